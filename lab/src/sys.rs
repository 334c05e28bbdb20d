//! The calls that libraries rightly call unsafe in general and that are safe as they are used here.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::addr::{SocketAddrArg, SocketAddrLen, SocketAddrOpaque};
use rustix::net::{AddressFamily, SendFlags};
use rustix::thread::{UnshareFlags, unshare_unsafe};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Moves the calling thread, and nothing else of the process, into a new network namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the thread's user namespace.
pub(crate) fn new_network_namespace() -> io::Result<()> {
    // SAFETY: the danger is in `UnshareFlags::FILES`, which would take descriptors away from threads that
    // hold them; a network namespace is no property of any descriptor or memory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}

/// Has the current tokio runtime watch a descriptor for something to read.
///
/// # Errors
/// If the kernel cannot watch it.
pub(crate) fn watch_readable(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is one open descriptor from beginning to end, and the `AsyncFd` owns it.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

/// Moves the calling process into new user, mount and network namespaces, and its future children into a new
/// process namespace where `processes` says so.
///
/// # Errors
/// `EINVAL` where the process has more than one thread, `EPERM` or `ENOSPC` where the kernel allows no user
/// namespaces.
pub(crate) fn new_user_namespace(processes: bool) -> io::Result<()> {
    let mut flags = UnshareFlags::NEWUSER | UnshareFlags::NEWNS | UnshareFlags::NEWNET;
    flags.set(UnshareFlags::NEWPID, processes);
    // SAFETY: as above, no descriptor table is unshared; the kernel refuses a process with other threads.
    unsafe { unshare_unsafe(flags) }.map_err(io::Error::from)
}

/// `struct sockaddr_ll` of packet(7).
struct LinkAddress([u8; 20]);

// SAFETY: the closure is given a pointer to 20 bytes of `self`, which outlives the call, and that length.
unsafe impl SocketAddrArg for LinkAddress {
    unsafe fn with_sockaddr<R>(&self, f: impl FnOnce(*const SocketAddrOpaque, SocketAddrLen) -> R) -> R {
        f(self.0.as_ptr().cast(), self.0.len() as SocketAddrLen)
    }
}

/// Sends a payload to every machine on the link of this index; `socket` is an `AF_PACKET` datagram socket.
///
/// # Errors
/// What the kernel says.
pub(crate) fn broadcast(socket: &OwnedFd, index: u32, ethertype: u16, payload: &[u8]) -> io::Result<()> {
    let mut to = [0; 20];
    to[..2].copy_from_slice(&AddressFamily::PACKET.as_raw().to_ne_bytes());
    to[2..4].copy_from_slice(&ethertype.to_be_bytes());
    to[4..8].copy_from_slice(&index.to_ne_bytes());
    to[11] = 6;
    to[12..18].fill(0xff);
    rustix::net::sendto(socket, payload, SendFlags::DONTWAIT, &LinkAddress(to))?;
    Ok(())
}
