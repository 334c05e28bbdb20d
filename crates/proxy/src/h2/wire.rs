//! The bytes of an HTTP/2 connection, between its socket and the library, past the meter.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use relais_http::meter::{Abuse, Meter};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::buffer::Buffer;
use crate::io::Io;
use crate::limits;
use crate::worker::Worker;

/// Whose socket a [`Wire`] is on.
pub(super) trait Socket {
    fn io(&self) -> &Io;
    fn worker(&self) -> &Worker;
}

/// A connection's bytes.
pub(super) struct Wire<S> {
    socket: S,
    /// What was read and not yet taken by the library.
    early: Option<Buffer>,
    guard: Option<Rc<Guard>>,
    /// Bytes read since the library had nothing more to read: it writes its answers only then.
    run: usize,
}

/// The meter of a connection, and what it found.
pub(super) struct Guard {
    meter: RefCell<Meter>,
    pub(super) abuse: Cell<Option<Abuse>>,
}

impl Guard {
    pub(super) fn new(meter: Meter) -> Rc<Guard> {
        Rc::new(Guard { meter: RefCell::new(meter), abuse: Cell::new(None) })
    }

    fn note(&self, result: Result<(), Abuse>) {
        if let Err(abuse) = result
            && self.abuse.get().is_none()
        {
            self.abuse.set(Some(abuse));
        }
    }
}

impl<S: Socket> Wire<S> {
    /// `early`: what was already read.
    pub(super) fn new(socket: S, early: Option<Buffer>, guard: Option<Rc<Guard>>) -> Wire<S> {
        if let (Some(guard), Some(early)) = (&guard, &early) {
            guard.note(guard.meter.borrow_mut().received(early.bytes(), socket.worker().now()));
        }
        Wire { socket, early, guard, run: 0 }
    }

    fn give_back(&mut self) {
        if let Some(buffer) = self.early.take() {
            self.socket.worker().give_buffer(buffer);
        }
    }

    fn wrote(&self, bytes: &[u8]) {
        if let Some(guard) = &self.guard {
            guard.note(guard.meter.borrow_mut().sent(bytes));
        }
    }

    fn poll_write_with(
        &self,
        cx: &mut Context<'_>,
        mut write: impl FnMut(&Io) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match write(self.socket.io()) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    std::task::ready!(self.socket.io().poll_write_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }
}

impl<S: Socket + Unpin> AsyncRead for Wire<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.guard.as_ref().is_some_and(|guard| guard.abuse.get().is_some()) {
            return Poll::Pending; // nobody listens any more; the connection's task ends it
        }
        if this.early.as_ref().is_none_or(Buffer::is_empty) {
            if this.run >= limits::H2_RUN_BYTES {
                // The library answers what it has read, and others get their turn.
                this.run = 0;
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            let buffer = this.early.get_or_insert_with(|| this.socket.worker().take_buffer());
            loop {
                match buffer.fill(this.socket.io()) {
                    Ok(n) => {
                        this.run += n;
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if this.socket.io().poll_read_ready(cx)?.is_pending() {
                            this.run = 0;
                            this.give_back();
                            return Poll::Pending;
                        }
                    }
                    Err(error) => {
                        this.give_back();
                        return Poll::Ready(Err(error));
                    }
                }
            }
            if let Some(guard) = &this.guard {
                let now = this.socket.worker().now();
                guard.note(guard.meter.borrow_mut().received(buffer.bytes(), now));
                if guard.abuse.get().is_some() {
                    this.give_back();
                    cx.waker().wake_by_ref();
                    return Poll::Pending;
                }
            }
        }
        if let Some(buffer) = &mut this.early {
            let n = buffer.len().min(into.remaining());
            into.put_slice(&buffer.bytes()[..n]);
            buffer.consume(n);
            if buffer.is_empty() {
                this.give_back();
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: Socket + Unpin> AsyncWrite for Wire<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = std::task::ready!(self.poll_write_with(cx, |io| io.try_write(bytes)));
        if let Ok(n) = result {
            self.wrote(&bytes[..n]);
        }
        Poll::Ready(result)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let mut full = slices.iter().filter(|slice| !slice.is_empty());
        let (first, second) = (full.next(), full.next());
        let result = std::task::ready!(self.poll_write_with(cx, |io| match (first, second) {
            (Some(first), Some(second)) => io.try_write_both(first, second),
            (Some(one), None) | (None, Some(one)) => io.try_write(one),
            (None, None) => Ok(0),
        }));
        if let Ok(mut n) = result {
            for slice in slices {
                let part = n.min(slice.len());
                self.wrote(&slice[..part]);
                n -= part;
            }
        }
        Poll::Ready(result)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.socket.io().flush() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.socket.io().poll_write_ready(cx),
            result => Poll::Ready(result),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.io().shut_down())
    }
}

impl<S> Drop for Wire<S> {
    fn drop(&mut self) {
        // The buffer goes with it; most often there is none.
        self.early = None;
    }
}
