//! A connection as everything above it sees one: bytes in, bytes out, readiness.
//!
//! The one place that knows what carries the bytes. It never waits and decides nothing; sessions, exchanges and
//! tunnels call it. A variant that keeps state does so behind `&self`: a connection belongs to one thread, and
//! both directions of a session hold it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use rustix::net::{RecvFlags, Shutdown};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use crate::h2::stream::StreamIo;
use crate::tls;

/// A connection to a client or to a server.
pub(crate) enum Io {
    /// TCP.
    Plain(TcpStream),
    /// Something above it. One variant, so that this takes no more room than a socket does.
    Above(Box<Above>),
}

/// What is not a socket itself. It is always behind a box, and TLS behind one of its own: its size is nobody's.
#[allow(clippy::large_enum_variant)]
pub(crate) enum Above {
    /// TLS over TCP.
    Tls(Box<tls::Stream>),
    /// A stream of an HTTP/2 connection, read and written as HTTP/1.1 text.
    Stream(StreamIo),
}

/// The same, to look at.
#[derive(Clone, Copy)]
enum Layer<'a> {
    Plain(&'a TcpStream),
    Tls(&'a tls::Stream),
    Stream(&'a StreamIo),
}

/// Reads what a socket has; 0 is the end of the stream.
///
/// A read that leaves room has emptied the socket: the readiness is cleared with it, without the second
/// system call that would find nothing (`epoll(7)`, question 9).
///
/// # Errors
/// `WouldBlock` if nothing is there; else what the kernel says.
pub(crate) fn receive(socket: &TcpStream, room: &mut [u8]) -> io::Result<usize> {
    debug_assert!(!room.is_empty());
    let size = room.len();
    let mut got = 0;
    let result = socket.try_io(Interest::READABLE, || {
        got = rustix::net::recv(socket, &mut *room, RecvFlags::empty())?.0;
        if got > 0 && got < size { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match result {
        Err(error) if got == 0 => Err(error),
        _ => Ok(got),
    }
}

/// Has a connection end in a reset when it is closed. `silent`: the reset dies at the first router, and so does all else
/// that is still sent. That is all that a process without privileges can do: the kernel's `TCP_REPAIR` needs some.
pub(crate) fn reject(socket: impl std::os::fd::AsFd + Copy, silent: bool) {
    use rustix::net::sockopt;
    if silent {
        // One of them is for the socket's family; of IPv4 on an IPv6 socket, the first.
        let _ = sockopt::set_ip_ttl(socket, 1);
        let _ = sockopt::set_ipv6_unicast_hops(socket, Some(1));
    }
    // A lasting error means that there is no connection left to reset.
    let _ = sockopt::set_socket_linger(socket, Some(Duration::ZERO));
}

impl Io {
    /// A connection that speaks TLS.
    pub(crate) fn tls_over(stream: tls::Stream) -> Io {
        Io::Above(Box::new(Above::Tls(Box::new(stream))))
    }

    /// A stream of an HTTP/2 connection.
    pub(crate) fn stream(stream: StreamIo) -> Io {
        Io::Above(Box::new(Above::Stream(stream)))
    }

    fn layer(&self) -> Layer<'_> {
        match self {
            Io::Plain(io) => Layer::Plain(io),
            Io::Above(above) => match &**above {
                Above::Tls(io) => Layer::Tls(io),
                Above::Stream(stream) => Layer::Stream(stream),
            },
        }
    }

    /// Reads what is there into `room`, which is not empty; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; else what is wrong.
    pub(crate) fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        match self.layer() {
            Layer::Plain(io) => receive(io, room),
            Layer::Tls(io) => io.try_read(room),
            Layer::Stream(stream) => stream.try_read(room),
        }
    }

    /// Writes some of `bytes`.
    ///
    /// # Errors
    /// `WouldBlock` if none is taken now; else what the kernel says.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        match self.layer() {
            Layer::Plain(io) => io.try_write(bytes),
            Layer::Tls(io) => io.try_write(bytes),
            Layer::Stream(stream) => stream.try_write(bytes),
        }
    }

    /// Writes some of `first` and, behind it, of `second`.
    ///
    /// # Errors
    /// As [`Io::try_write`].
    pub(crate) fn try_write_both(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        match self.layer() {
            Layer::Plain(io) => io.try_write_vectored(&[IoSlice::new(first), IoSlice::new(second)]),
            Layer::Tls(io) => io.try_write_both(first, second),
            Layer::Stream(stream) => match stream.try_write(first)? {
                // What goes wrong with the second comes again with the next write.
                n if n == first.len() => Ok(n + stream.try_write(second).unwrap_or(0)),
                n => Ok(n),
            },
        }
    }

    /// Sends what was taken and is still held here: done when the socket has all of it.
    ///
    /// # Errors
    /// `WouldBlock` while the socket does not take it; [`Io::poll_write_ready`] is ready once it has.
    pub(crate) fn flush(&self) -> io::Result<()> {
        match self.layer() {
            Layer::Plain(_) | Layer::Stream(_) => Ok(()),
            Layer::Tls(io) => io.flush(),
        }
    }

    /// Ready when a read may find something.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.layer() {
            Layer::Plain(io) => io.poll_read_ready(cx),
            Layer::Tls(io) => io.poll_read_ready(cx),
            Layer::Stream(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Ready when a write may be taken.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.layer() {
            Layer::Plain(io) => io.poll_write_ready(cx),
            Layer::Tls(io) => io.poll_write_ready(cx),
            Layer::Stream(stream) => stream.poll_write_ready(cx),
        }
    }

    /// Says that nothing more will be written.
    ///
    /// # Errors
    /// What the kernel says, as when the other end is gone.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        match self.layer() {
            Layer::Plain(io) => Ok(rustix::net::shutdown(io, Shutdown::Write)?),
            Layer::Tls(io) => io.shut_down(),
            Layer::Stream(stream) => {
                stream.shut_down();
                Ok(())
            }
        }
    }

    /// Has the connection end with a reset when it is dropped: the other end must not take what it got for whole,
    /// and has no other way to tell.
    pub(crate) fn end_in_reset(&self) {
        match self.layer() {
            // A lasting error means that there is no connection left to reset.
            Layer::Plain(io) => drop(rustix::net::sockopt::set_socket_linger(io, Some(Duration::ZERO))),
            Layer::Tls(io) => io.end_in_reset(),
            Layer::Stream(stream) => stream.reset(),
        }
    }

    /// Whether nothing has arrived on an idle connection: neither its end nor bytes that nobody asked for. Costs
    /// no system call unless the runtime has seen something.
    pub(crate) fn is_quiet(&self) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        if self.poll_read_ready(&mut context).is_pending() {
            return true;
        }
        match self.layer() {
            Layer::Plain(io) => {
                let peek =
                    || rustix::net::recv(io, &mut [0u8; 1][..], RecvFlags::PEEK).map_err(io::Error::from);
                let got = io.try_io(Interest::READABLE, peek);
                matches!(got, Err(error) if error.kind() == io::ErrorKind::WouldBlock)
            }
            Layer::Tls(io) => io.is_quiet(),
            Layer::Stream(_) => false, // it is good for one exchange
        }
    }

    /// What TLS knows of the connection, if it speaks it itself.
    pub(crate) fn tls(&self) -> Option<&tls::Stream> {
        match self.layer() {
            Layer::Tls(io) => Some(io),
            Layer::Plain(_) | Layer::Stream(_) => None,
        }
    }

    /// The socket, if its bytes are the connection's own: only those may be spliced.
    pub(crate) fn plain(&self) -> Option<&TcpStream> {
        match self.layer() {
            Layer::Plain(io) => Some(io),
            Layer::Tls(_) | Layer::Stream(_) => None,
        }
    }

    /// The socket that carries it; a stream shares one with others, and does not know it.
    pub(crate) fn socket(&self) -> Option<&TcpStream> {
        match self.layer() {
            Layer::Plain(io) => Some(io),
            Layer::Tls(io) => Some(io.socket()),
            Layer::Stream(_) => None,
        }
    }

    /// Whether it is a stream of an HTTP/2 connection.
    pub(crate) fn is_stream(&self) -> bool {
        matches!(self.layer(), Layer::Stream(_))
    }

    /// Ready once the other end has cancelled its stream; sockets have none (`gone`).
    pub(crate) fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.layer() {
            Layer::Stream(stream) => stream.poll_gone(cx),
            _ => Poll::Pending,
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, room: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if room.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        loop {
            match self.try_read(room.initialize_unfilled()) {
                Ok(got) => {
                    room.advance(got);
                    return Poll::Ready(Ok(()));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_read_ready(cx))?,
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            match self.try_write(bytes) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(self.poll_write_ready(cx))?,
                result => return Poll::Ready(result),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.poll_write_ready(cx),
            result => Poll::Ready(result),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.shut_down())
    }
}
