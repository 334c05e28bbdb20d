//! A `SOCK_SEQPACKET` Unix socket that carries JSON messages, each with at most one descriptor.

use std::io::{self, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::fs::{MemfdFlags, Mode, memfd_create};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, listen,
    recvmsg, sendmsg, socket_with, socketpair,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Longest message, bytes. Plan texts travel as memory files and have no part in it.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// One end of a channel.
#[derive(Debug)]
pub struct Channel {
    socket: AsyncFd<OwnedFd>,
}

impl Channel {
    /// Both ends of a new channel: ours, and the one that becomes a child's standard input.
    ///
    /// # Errors
    /// If the kernel has no descriptors left.
    pub fn pair() -> io::Result<(Channel, OwnedFd)> {
        let (ours, theirs) =
            socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        Ok((Channel::new(ours)?, theirs))
    }

    /// The channel behind a descriptor, from within a tokio runtime.
    ///
    /// # Errors
    /// If it cannot be made non-blocking or watched.
    pub fn new(socket: OwnedFd) -> io::Result<Channel> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Channel { socket: watch(socket, Interest::READABLE | Interest::WRITABLE)? })
    }

    /// A child's channel: its standard input.
    ///
    /// # Errors
    /// If the standard input is not a channel, which is so when an operator starts a child by hand.
    pub fn from_stdin() -> io::Result<Channel> {
        let stdin = std::io::stdin();
        match rustix::net::sockopt::socket_type(&stdin) {
            Ok(SocketType::SEQPACKET) => Channel::new(stdin.as_fd().try_clone_to_owned()?),
            _ => Err(io::Error::other("this command is started by `relais run`, not by hand")),
        }
    }

    /// The channel to whoever listens at `path`.
    ///
    /// # Errors
    /// If nobody does, or this user may not.
    pub fn connect(path: &Path) -> io::Result<Channel> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Channel::new(socket)
    }

    /// Process id of the other end, as the kernel noted it when the channel was made.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn peer_pid(&self) -> io::Result<u32> {
        let peer = rustix::net::sockopt::socket_peercred(self.socket.get_ref())?;
        Ok(peer.pid.as_raw_nonzero().get() as u32)
    }

    /// User id of the other end, likewise.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn peer_uid(&self) -> io::Result<u32> {
        Ok(rustix::net::sockopt::socket_peercred(self.socket.get_ref())?.uid.as_raw())
    }

    /// Sends one message, with a descriptor if there is one. Waits while the other end is slow.
    ///
    /// # Errors
    /// `BrokenPipe` or `ConnectionReset` when the other end is gone.
    pub async fn send<T: Serialize>(&self, message: &T, fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let bytes = serde_json::to_vec(message).map_err(io::Error::other)?;
        if bytes.len() > MAX_MESSAGE {
            return Err(io::Error::other("a message between processes is too long"));
        }
        let send = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = SendAncillaryBuffer::new(&mut space);
            let fds: [BorrowedFd<'_>; 1];
            if let Some(fd) = fd {
                fds = [fd];
                control.push(SendAncillaryMessage::ScmRights(&fds));
            }
            sendmsg(socket, &[IoSlice::new(&bytes)], &mut control, SendFlags::NOSIGNAL)?;
            Ok(())
        };
        self.socket.async_io(Interest::WRITABLE, send).await
    }

    /// Sends one message to another end that may be gone or hung, which is heard of elsewhere: waits no longer than
    /// `limit`, and tells nothing.
    pub async fn tell<T: Serialize>(&self, message: &T, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.send(message, None)).await;
    }

    /// The next message and its descriptor; `None` once the other end is gone.
    ///
    /// # Errors
    /// If a message is not what was expected, which means two different binaries.
    pub async fn recv<T: DeserializeOwned>(&self) -> io::Result<Option<(T, Option<OwnedFd>)>> {
        let mut bytes = vec![0; MAX_MESSAGE];
        let receive = |socket: &OwnedFd| {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let got = match recvmsg(
                socket,
                &mut [IoSliceMut::new(&mut bytes)],
                &mut control,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(Errno::CONNRESET) => return Ok(None),
                other => other?,
            };
            if got.flags.contains(ReturnFlags::TRUNC) {
                return Err(io::Error::other("a message between processes was cut short"));
            }
            let fd = control.drain().find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            });
            Ok(Some((got.bytes, fd)))
        };
        match self.socket.async_io(Interest::READABLE, receive).await? {
            None | Some((0, _)) => Ok(None),
            Some((length, fd)) => {
                let message = serde_json::from_slice(&bytes[..length]).map_err(io::Error::other)?;
                Ok(Some((message, fd)))
            }
        }
    }
}

/// Has the runtime watch a descriptor.
// Deprecated because a type could change its descriptor while it is watched; an `OwnedFd` cannot.
#[allow(deprecated)]
fn watch(socket: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::try_with_interest(socket, interest).map_err(Into::into)
}

/// A socket in the file system on which channels are accepted.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
}

impl Listener {
    /// Listens at `path`, for its owner only; what a dead process left there is replaced.
    ///
    /// # Errors
    /// If the directory is not there or not ours to write.
    pub fn bind(path: &Path) -> io::Result<Listener> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        bind(&socket, &SocketAddrUnix::new(path)?)?;
        rustix::fs::chmod(path, Mode::RUSR | Mode::WUSR)?;
        listen(&socket, 16)?;
        Listener::new(socket)
    }

    /// A socket that listens already, from within a tokio runtime.
    ///
    /// # Errors
    /// If it cannot be made non-blocking or watched.
    pub fn new(socket: OwnedFd) -> io::Result<Listener> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        Ok(Listener { socket: watch(socket, Interest::READABLE)? })
    }

    /// Another descriptor of the socket: it listens as long as one of them is open.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub fn try_clone_to_owned(&self) -> io::Result<OwnedFd> {
        self.socket.get_ref().try_clone()
    }

    /// The next channel.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub async fn accept(&self) -> io::Result<Channel> {
        let flags = SocketFlags::CLOEXEC;
        let accept = |socket: &OwnedFd| Ok(accept_with(socket, flags)?);
        Channel::new(self.socket.async_io(Interest::READABLE, accept).await?)
    }
}

/// A memory file with this text, to be sent along with a message.
///
/// # Errors
/// If the kernel has no memory or descriptors left.
pub fn text_to_fd(text: &str) -> io::Result<OwnedFd> {
    let mut file = std::fs::File::from(memfd_create("relais-plan", MemfdFlags::CLOEXEC)?);
    file.write_all(text.as_bytes())?;
    Ok(file.into())
}

/// The text behind a descriptor made by [`text_to_fd`], from its beginning.
///
/// # Errors
/// If it cannot be read, or is not UTF-8, or is longer than `limit` bytes.
pub fn fd_to_text(fd: OwnedFd, limit: u64) -> io::Result<String> {
    let mut file = std::fs::File::from(fd);
    file.rewind()?;
    let mut text = String::new();
    if (&file).take(limit + 1).read_to_string(&mut text)? as u64 > limit {
        return Err(io::Error::other(format!("the plan is longer than {limit} bytes")));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Order, Report};

    #[tokio::test]
    async fn messages_keep_their_borders_and_bring_their_descriptor() {
        let (ours, theirs) = Channel::pair().unwrap();
        let theirs = Channel::new(theirs).unwrap();
        let plan = Order::Plan { generation: 7, file: "a.kdl".into() };
        ours.send(&plan, Some(text_to_fd("platform x").unwrap().as_fd())).await.unwrap();
        ours.send(&Order::Stop, None).await.unwrap();

        let (first, fd) = theirs.recv::<Order>().await.unwrap().unwrap();
        assert_eq!(first, plan);
        assert_eq!(fd_to_text(fd.unwrap(), 100).unwrap(), "platform x");
        let (second, fd) = theirs.recv::<Order>().await.unwrap().unwrap();
        assert_eq!(second, Order::Stop);
        assert!(fd.is_none());
    }

    #[tokio::test]
    async fn the_death_of_the_other_end_is_seen() {
        let (ours, theirs) = Channel::pair().unwrap();
        drop(theirs);
        assert!(ours.recv::<Report>().await.unwrap().is_none());
        assert!(ours.send(&Order::Stop, None).await.is_err());
    }

    #[test]
    fn a_plan_longer_than_the_limit_is_refused() {
        let fd = text_to_fd("0123456789").unwrap();
        assert!(fd_to_text(fd, 9).unwrap_err().to_string().contains("longer than 9 bytes"));
    }
}
