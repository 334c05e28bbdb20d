//! Whether a client is still there while somebody else is waited for: a place at a server, a connection, an answer.
//!
//! A reset says that it is gone, and so does a cancelled stream. The end of what it sends does not: it may have closed
//! that half alone, and still read. Where the file says `abort-on-close` that end counts too, as HAProxy's option has it.
//! It costs no system call: the runtime knows. Not here: clients that are being read from or written to, whose errors come
//! with that.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{Interest, Ready};

use crate::io::Io;

/// A look-out for one client's going, for as long as one wait.
pub(crate) struct Gone<'a> {
    io: &'a Io,
    /// The end of what it sends counts.
    at_end: bool,
    /// Waits for its end, behind bytes that it has sent ahead: only then is there something to allocate.
    behind: Option<Pin<Box<dyn Future<Output = io::Result<Ready>> + 'a>>>,
}

impl<'a> Gone<'a> {
    /// Looks out for the client behind `io`; `at_end`: the end of what it sends counts as its going.
    pub(crate) fn new(io: &'a Io, at_end: bool) -> Gone<'a> {
        Gone { io, at_end, behind: None }
    }

    /// Ready once the client wants no answer any more.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(socket) = self.io.socket() else { return self.io.poll_cancelled(cx) };
        let behind = match &mut self.behind {
            Some(behind) => behind,
            None if socket.poll_read_ready(cx).is_pending() => return Poll::Pending,
            None => {
                // The runtime wakes whoever waits for urgent data at the end of the stream too, and not for what is
                // readable; for urgent data itself it does not look.
                let end = Interest::ERROR | Interest::PRIORITY;
                let interest = if self.at_end { end } else { Interest::ERROR };
                self.behind.insert(Box::pin(socket.ready(interest)))
            }
        };
        behind.as_mut().poll(cx).map(drop)
    }
}
