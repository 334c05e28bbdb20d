//! Bytes from socket to socket without passing through this process: `splice(2)` over a pooled pipe.

use std::io;
use std::os::fd::OwnedFd;

use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::limits;

/// A pipe and how much is in it. Only empty ones are pooled.
pub(crate) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    held: usize,
}

impl Pipe {
    /// An empty pipe.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub(crate) fn new() -> io::Result<Pipe> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        Ok(Pipe { read, write, held: 0 })
    }

    /// Bytes in it.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Moves up to `most` bytes from a socket into the pipe, which must be empty: `EAGAIN` has two meanings,
    /// a full pipe and an empty socket, and only an empty pipe leaves one. 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if the socket has nothing; else what the kernel says.
    pub(crate) fn fill(&mut self, from: &TcpStream, most: u64) -> io::Result<usize> {
        assert!(self.held == 0, "a pipe is filled when it is empty");
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(limits::SPLICE_BYTES);
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let got =
            from.try_io(Interest::READABLE, || Ok(splice(from, None, &self.write, None, most, flags)?))?;
        self.held = got;
        Ok(got)
    }

    /// Moves what is in the pipe to a socket.
    ///
    /// # Errors
    /// `WouldBlock` if the socket takes nothing; else what the kernel says.
    pub(crate) fn drain(&mut self, to: &TcpStream) -> io::Result<usize> {
        let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
        let put =
            to.try_io(Interest::WRITABLE, || Ok(splice(&self.read, None, to, None, self.held, flags)?))?;
        self.held -= put;
        Ok(put)
    }
}
