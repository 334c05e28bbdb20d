//! The access log: one line a request or TCP connection.
//!
//! A worker writes lines into memory, in the format that the plan compiled; for each target of the plan there
//! is a thread that writes blocks of them out, so that a slow disk, a stuck pipe or a dead syslog server never
//! holds a request. What a target cannot take is dropped, counted, and said.
//!
//! `format` is what a line says, `sink` where it goes, `dates` the time of day.

mod dates;
mod format;
mod sink;

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;

use relais_config::plan::{Capture, LogField, LogFormat, LogPart};
use tokio::sync::Notify;

use crate::limits;

pub(crate) use dates::Dates;
pub(crate) use format::{find_field, ip, number};
pub(crate) use sink::{Block, Sink, Sinks};

/// A worker's end of one target.
pub(crate) struct Out {
    sink: Arc<Sink>,
    sender: SyncSender<Block>,
    block: RefCell<Block>,
    begun: Rc<Notify>,
}

impl Out {
    /// `begun` hears of the first line of each block.
    pub(crate) fn new(sink: Arc<Sink>, sender: SyncSender<Block>, begun: Rc<Notify>) -> Out {
        Out { sink, sender, block: RefCell::default(), begun }
    }

    fn write(&self, format: &LogFormat, entry: &Entry<'_>, dates: &mut Dates) {
        let mut block = self.block.borrow_mut();
        if block.lines == 0 {
            self.begun.notify_one();
        }
        if block.bytes.capacity() == 0 {
            block.bytes.reserve_exact(limits::LOG_BYTES + limits::LOG_LINE_BYTES);
        }
        entry.write(&format.parts, &mut block.bytes, dates);
        block.bytes.push(b'\n');
        block.lines += 1;
        let full = block.bytes.len() >= limits::LOG_BYTES;
        drop(block);
        if full {
            self.flush();
        }
    }

    /// Hands over what was gathered.
    pub(crate) fn flush(&self) {
        let block = self.block.take();
        if block.lines == 0 {
            return;
        }
        if let Err(refused) = self.sender.try_send(block) {
            let (std::sync::mpsc::TrySendError::Full(block)
            | std::sync::mpsc::TrySendError::Disconnected(block)) = refused;
            self.sink.lost(block.lines, "it is taken too slowly");
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.flush();
    }
}

/// A frontend's log on one worker: where its lines go and what they say.
pub(crate) struct Log {
    out: Rc<Out>,
    format: Arc<LogFormat>,
    /// The format asks for the address that the client connected to, which costs a system call.
    pub(crate) wants_local: bool,
}

impl Log {
    pub(crate) fn new(out: Rc<Out>, format: Arc<LogFormat>) -> Log {
        let local = |part: &LogPart| {
            matches!(part, LogPart::Field { field: LogField::FrontendIp | LogField::FrontendPort, .. })
        };
        let wants_local = format.parts.iter().any(local);
        Log { out, format, wants_local }
    }

    /// Writes one line.
    pub(crate) fn write(&self, entry: &Entry<'_>, dates: &mut Dates) {
        self.out.write(&self.format, entry, dates);
    }
}

/// Open sessions when a line is written: of the process, the frontend, the backend, the server.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sessions {
    pub(crate) process: u32,
    pub(crate) frontend: u32,
    pub(crate) backend: u32,
    pub(crate) server: u32,
}

/// Times of a session, milliseconds; -1: did not come to it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From the connection, or the end of the request before, to the first byte of this one.
    pub(crate) idle: i64,
    /// From the first byte of the request to the end of its head.
    pub(crate) request: i64,
    /// In the queue.
    pub(crate) queue: i64,
    /// To connect to the server.
    pub(crate) connect: i64,
    /// To the server's response head.
    pub(crate) response: i64,
    /// Of it all, without `idle`.
    pub(crate) total: i64,
}

/// What kind of line.
pub(crate) enum Kind<'a> {
    /// A request.
    Http {
        status: u16,
        /// `METHOD target HTTP/1.x` as received; `None`: it could not be read.
        line: Option<&'a [u8]>,
        /// The whole head, as far as there is one.
        head: &'a [u8],
    },
    /// A connection.
    Tcp,
}

/// What was noted of a response's headers: values one after the other, and where each ends.
#[derive(Default)]
pub(crate) struct Noted {
    bytes: Vec<u8>,
    ends: Vec<u32>,
}

impl Noted {
    /// Notes what `captures` asks for.
    pub(crate) fn note(&mut self, captures: &[Capture], head: &[u8]) {
        self.bytes.clear();
        self.ends.clear();
        for capture in captures {
            let value = find_field(head, &capture.name).unwrap_or_default();
            self.bytes.extend_from_slice(&value[..value.len().min(usize::from(capture.length))]);
            self.ends.push(self.bytes.len() as u32);
        }
    }

    fn get(&self, index: usize) -> &[u8] {
        let from = index.checked_sub(1).map_or(0, |before| self.ends.get(before).copied().unwrap_or(0));
        let to = self.ends.get(index).copied().unwrap_or(from);
        &self.bytes[from as usize..to as usize]
    }
}

/// A line to be.
pub(crate) struct Entry<'a> {
    pub(crate) client: SocketAddr,
    /// Where it connected to, if the format wants it.
    pub(crate) local: Option<SocketAddr>,
    pub(crate) tls: bool,
    /// Of the first byte: milliseconds since 1970, UTC.
    pub(crate) date_ms: u64,
    pub(crate) frontend: &'a str,
    pub(crate) backend: &'a str,
    pub(crate) server: Option<(&'a str, SocketAddr)>,
    pub(crate) times: Times,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// The first two letters of HAProxy's termination state.
    pub(crate) state: [u8; 2],
    /// What came of a persistence cookie, and what was done, as HAProxy writes it.
    pub(crate) cookie: [u8; 2],
    pub(crate) sessions: Sessions,
    pub(crate) retries: u32,
    pub(crate) redispatched: bool,
    pub(crate) server_queue: u32,
    pub(crate) backend_queue: u32,
    pub(crate) request_captures: &'a [Capture],
    pub(crate) response_captures: &'a [Capture],
    pub(crate) noted: &'a Noted,
    pub(crate) request_id: &'a [u8],
    pub(crate) traceparent: &'a [u8],
    pub(crate) kind: Kind<'a>,
}

#[cfg(test)]
mod tests;
