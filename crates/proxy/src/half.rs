//! One direction of a connection pair: bytes of a body, or of a tunnel, from one socket to another.
//!
//! Holds at most one buffer or one pipe, and neither while nothing is under way: that is the
//! back-pressure, and what makes an idle tunnel cheap.

use std::io;
use std::task::Context;

use relais_http::{Body, Chunked, Framing, Reject};

use crate::buffer::Buffer;
use crate::io::Io;
use crate::limits;
use crate::splice::Pipe;
use crate::squeeze::Squeeze;
use crate::worker::Worker;

/// What is still to come from the source.
enum Left {
    Length(u64),
    Chunked(Chunked),
    UntilClose,
    Nothing,
}

/// One direction.
pub(crate) struct Half {
    left: Left,
    /// Read, and not yet written.
    buffer: Option<Buffer>,
    /// So many bytes at its beginning may be written; what lies behind was not looked at yet.
    ready: usize,
    /// The rest of a head that the destination did not take at once; goes before the buffer.
    head: Vec<u8>,
    pipe: Option<Pipe>,
    /// What goes out is what comes in, compressed.
    squeeze: Option<Box<Squeeze>>,
    /// The last read filled the buffer: there is more where that came from.
    flood: bool,
    /// Something was read or written since [`Half::has_moved`] was asked last.
    moved: bool,
    /// Bytes written.
    pub(crate) written: u64,
    /// Bytes read.
    pub(crate) read: u64,
}

/// Where a direction stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stand {
    /// All of it is delivered.
    Done,
    /// Waits for the source.
    Hungry,
    /// Waits for the destination.
    Stuffed,
}

/// Why a direction ended before its end.
#[derive(Debug)]
pub(crate) enum Broken {
    /// The source closed, or failed.
    Source,
    /// The destination failed.
    Destination,
    /// The source's framing is wrong.
    Framing(Reject),
}

impl Half {
    /// A direction that carries a body.
    pub(crate) fn new(body: Body, framing: Framing) -> Half {
        let left = match body {
            Body::None => Left::Nothing,
            Body::Length(n) => Left::Length(n),
            Body::Chunked => Left::Chunked(Chunked::new(framing)),
            Body::UntilClose => Left::UntilClose,
        };
        Half {
            left,
            buffer: None,
            ready: 0,
            head: Vec::new(),
            pipe: None,
            squeeze: None,
            flood: false,
            moved: false,
            written: 0,
            read: 0,
        }
    }

    /// A direction that goes on with a chunked body in the middle.
    pub(crate) fn resume(chunked: Chunked) -> Half {
        Half { left: Left::Chunked(chunked), ..Half::new(Body::None, Framing::Keep) }
    }

    /// Compresses what it carries; for a new direction, whose framing is stripped.
    pub(crate) fn compress(&mut self, squeeze: Box<Squeeze>) {
        self.squeeze = Some(squeeze);
    }

    /// Bytes that were given to be compressed, if any were to be.
    pub(crate) fn squeezed(&self) -> Option<u64> {
        self.squeeze.as_ref().map(|squeeze| squeeze.taken)
    }

    /// Gives it bytes that were already read from the source, and has them looked at.
    ///
    /// # Errors
    /// If the body's framing is wrong.
    pub(crate) fn feed(&mut self, buffer: Buffer) -> Result<(), Broken> {
        debug_assert!(self.buffer.is_none());
        self.buffer = Some(buffer);
        self.digest()
    }

    /// Bytes that wait in memory and may be written.
    pub(crate) fn ready(&self) -> &[u8] {
        match (&self.squeeze, &self.buffer) {
            (Some(squeeze), _) => squeeze.ready(),
            (None, Some(buffer)) => &buffer.bytes()[..self.ready],
            (None, None) => &[],
        }
    }

    /// Notes that `n` of the ready bytes were written.
    pub(crate) fn wrote(&mut self, n: usize) {
        debug_assert!(n <= self.ready().len());
        match (&mut self.squeeze, &mut self.buffer) {
            (Some(squeeze), _) => squeeze.wrote(n),
            (None, Some(buffer)) => {
                buffer.consume(n);
                self.ready -= n;
            }
            (None, None) => return,
        }
        self.written += n as u64;
        self.moved = true;
    }

    /// Has these bytes written before everything else.
    pub(crate) fn owe_head(&mut self, rest: Vec<u8>) {
        self.head = rest;
    }

    /// Whether something was read or written since this was asked last.
    pub(crate) fn has_moved(&mut self) -> bool {
        std::mem::take(&mut self.moved)
    }

    /// Nothing more will come from the source, and nothing more is to be written.
    pub(crate) fn is_done(&self) -> bool {
        matches!(self.left, Left::Nothing)
            && self.ready().is_empty()
            && self.head.is_empty()
            && self.held() == 0
    }

    /// Whether more was read than belongs to this body.
    pub(crate) fn has_surplus(&self) -> bool {
        self.buffer.as_ref().is_some_and(|b| b.len() > self.ready)
    }

    /// The buffer, with what was read beyond this body.
    pub(crate) fn take_buffer(&mut self) -> Option<Buffer> {
        debug_assert!(self.ready == 0);
        self.buffer.take()
    }

    fn held(&self) -> usize {
        self.pipe.as_ref().map_or(0, Pipe::held)
    }

    /// Makes ready what of the buffer may be written.
    fn digest(&mut self) -> Result<(), Broken> {
        self.look()?;
        if self.squeeze.is_some() {
            self.squeeze().map_err(|_| Broken::Source)?; // the library failed: it ends unfinished
        }
        Ok(())
    }

    fn squeeze(&mut self) -> io::Result<()> {
        let Some(squeeze) = &mut self.squeeze else { return Ok(()) };
        if let Some(buffer) = &mut self.buffer {
            squeeze.feed(&buffer.bytes()[..self.ready])?;
            buffer.consume(self.ready);
            self.ready = 0;
        }
        if matches!(self.left, Left::Nothing) && !squeeze.is_finished() {
            squeeze.finish()?;
        }
        Ok(())
    }

    /// Sets `ready` to what of the buffer belongs to the body.
    fn look(&mut self) -> Result<(), Broken> {
        let Some(buffer) = &mut self.buffer else { return Ok(()) };
        let fresh = buffer.len() - self.ready;
        match &mut self.left {
            Left::Nothing => {}
            Left::UntilClose => self.ready += fresh,
            Left::Length(left) => {
                let take = (*left).min(fresh as u64);
                *left -= take;
                self.ready += take as usize;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
            }
            Left::Chunked(chunked) => {
                let progress =
                    chunked.forward(&mut buffer.bytes_mut()[self.ready..]).map_err(Broken::Framing)?;
                buffer.remove(self.ready + progress.kept, progress.used - progress.kept);
                self.ready += progress.kept - progress.trailers;
                if let Some(squeeze) = self.squeeze.as_mut().filter(|_| progress.trailers > 0) {
                    squeeze.add_trailers(&buffer.bytes()[self.ready..self.ready + progress.trailers]);
                    buffer.remove(self.ready, progress.trailers);
                }
                if chunked.is_end() {
                    self.left = Left::Nothing;
                }
            }
        }
        Ok(())
    }

    /// Carries bytes as far as both sockets let it.
    ///
    /// # Errors
    /// If it cannot come to its end.
    pub(crate) fn pump(
        &mut self,
        worker: &Worker,
        from: &Io,
        to: &Io,
        cx: &mut Context<'_>,
    ) -> Result<Stand, Broken> {
        let turns = if self.squeeze.is_some() { limits::SQUEEZE_TURNS } else { limits::TURNS };
        for _ in 0..turns {
            if let Err(error) = self.write(worker, to) {
                if error.kind() != io::ErrorKind::WouldBlock {
                    return Err(Broken::Destination);
                }
                match to.poll_write_ready(cx) {
                    std::task::Poll::Pending => return Ok(Stand::Stuffed),
                    std::task::Poll::Ready(_) => continue,
                }
            }
            if self.is_done() {
                self.put_away(worker);
                return Ok(Stand::Done);
            }
            match self.read(worker, from, to) {
                Ok(()) => self.digest()?,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if from.poll_read_ready(cx).is_pending() {
                        if let Some(squeeze) = self.squeeze.as_mut().filter(|s| s.is_dirty()) {
                            // What the source gave goes on before it gives more: it may be an event, or a question.
                            squeeze.flush().map_err(|_| Broken::Source)?;
                            continue;
                        }
                        self.put_away(worker);
                        return Ok(Stand::Hungry);
                    }
                }
                Err(_) => return Err(Broken::Source),
            }
        }
        cx.waker().wake_by_ref(); // there is more to do, but others want their turn
        Ok(Stand::Hungry)
    }

    fn put_away(&mut self, worker: &Worker) {
        if self.buffer.as_ref().is_some_and(Buffer::is_empty)
            && let Some(buffer) = self.buffer.take()
        {
            worker.give_buffer(buffer);
        }
        if self.held() == 0
            && let Some(pipe) = self.pipe.take()
        {
            worker.give_pipe(pipe);
        }
    }

    /// Writes all that is there to write.
    fn write(&mut self, worker: &Worker, to: &Io) -> io::Result<()> {
        while !self.head.is_empty() {
            let n = to.try_write(&self.head)?;
            self.head.drain(..n);
            self.moved = true;
        }
        while !self.ready().is_empty() {
            let n = to.try_write(self.ready())?;
            self.wrote(n);
        }
        while let (Some(pipe), Some(socket)) = (self.pipe.as_mut().filter(|p| p.held() > 0), to.plain()) {
            let n = pipe.drain(socket)?;
            self.written += n as u64;
            self.moved = true;
        }
        if let Some(pipe) = self.pipe.take() {
            worker.give_pipe(pipe);
        }
        to.flush()
    }

    /// Reads once. Nothing waits to be written.
    fn read(&mut self, worker: &Worker, from: &Io, to: &Io) -> io::Result<()> {
        let spliceable = match &self.left {
            _ if self.squeeze.is_some() => 0,
            Left::Length(n) if *n >= limits::SPLICE_FROM => *n,
            Left::UntilClose if self.flood => u64::MAX,
            Left::Chunked(chunked) if chunked.data_ahead() >= limits::SPLICE_FROM => chunked.data_ahead(),
            _ => 0,
        };
        let nothing_held = self.buffer.as_ref().is_none_or(Buffer::is_empty);
        let socket = from.plain().filter(|_| spliceable > 0 && nothing_held && to.plain().is_some());
        if socket.is_some() && self.pipe.is_none() {
            self.pipe = worker.take_pipe().ok(); // without one, out of descriptors, bytes are copied
        }
        let got = if let (Some(socket), Some(pipe)) = (socket, &mut self.pipe) {
            let got = pipe.fill(socket, spliceable)?;
            self.pass_by(got);
            got
        } else {
            let buffer = self.buffer.get_or_insert_with(|| worker.take_buffer());
            if buffer.is_full() {
                return Err(io::ErrorKind::InvalidData.into()); // a line that never ends; limits forbid it
            }
            let got = buffer.fill(from)?;
            self.flood = buffer.is_full();
            got
        };
        self.read += got as u64;
        self.moved = true;
        if got == 0 {
            match self.left {
                Left::UntilClose => self.left = Left::Nothing,
                _ => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
        Ok(())
    }

    /// Accounts for bytes of the body that went into the pipe.
    fn pass_by(&mut self, got: usize) {
        match &mut self.left {
            Left::Length(left) => {
                *left -= got as u64;
                if *left == 0 {
                    self.left = Left::Nothing;
                }
            }
            Left::Chunked(chunked) => chunked.skip_data(got as u64),
            Left::UntilClose if got < limits::BUFFER_BYTES => self.flood = false,
            _ => {}
        }
    }
}

/// Gives a finished direction's memory back.
pub(crate) fn recycle(half: &mut Half, worker: &Worker) {
    if let Some(buffer) = half.buffer.take() {
        worker.give_buffer(buffer);
    }
    half.put_away(worker);
}
