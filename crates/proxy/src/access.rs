//! The access log: one line a request or TCP connection, with the fields of HAProxy's `httplog` and
//! `tcplog` (HAProxy configuration manual §8.2.2, §8.2.3).
//!
//! A worker writes lines into memory; a thread of its own writes blocks of them to the sink, so that a slow
//! disk or a stuck pipe never holds a request. What a stuck sink cannot take is dropped, and counted.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use tokio::sync::Notify;

use crate::counters::lock;
use crate::limits;

/// Where blocks of lines go.
pub(crate) struct Sink {
    target: Mutex<Option<File>>,
    on: AtomicBool,
    dropped: AtomicU64,
}

/// A sink at work: what writes to it, and what ends once nothing does.
pub(crate) struct Running {
    pub(crate) sink: Arc<Sink>,
    pub(crate) sender: SyncSender<Vec<u8>>,
    pub(crate) thread: JoinHandle<()>,
}

impl Sink {
    /// A sink that is off, and the thread that serves it until every sender is gone.
    ///
    /// # Errors
    /// If there can be no more threads.
    pub(crate) fn start() -> std::io::Result<Running> {
        let sink = Arc::new(Sink {
            target: Mutex::new(None),
            on: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
        });
        let (sender, blocks) = sync_channel(limits::LOG_BLOCKS);
        let serve = sink.clone();
        let thread =
            std::thread::Builder::new().name("access-log".into()).spawn(move || serve.run(&blocks))?;
        Ok(Running { sink, sender, thread })
    }

    /// Sends what follows to `target`, or nowhere.
    pub(crate) fn redirect(&self, target: Option<File>) {
        self.on.store(target.is_some(), Relaxed);
        *lock(&self.target) = target;
    }

    /// Whether anybody reads.
    pub(crate) fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    fn run(&self, blocks: &Receiver<Vec<u8>>) {
        let mut told = 0;
        while let Ok(block) = blocks.recv() {
            let target = lock(&self.target).as_ref().and_then(|file| file.try_clone().ok());
            if let Some(mut file) = target
                && let Err(error) = file.write_all(&block)
            {
                self.dropped.fetch_add(count_lines(&block), Relaxed);
                tracing::warn!("the access log cannot be written: {error}");
            }
            let dropped = self.dropped.load(Relaxed);
            if dropped > told {
                tracing::warn!("{} access lines were dropped: the log's reader is too slow", dropped - told);
                told = dropped;
            }
        }
    }
}

fn count_lines(block: &[u8]) -> u64 {
    block.iter().filter(|b| **b == b'\n').count() as u64
}

/// A worker's end of the log.
pub(crate) struct Log {
    sink: Arc<Sink>,
    sender: SyncSender<Vec<u8>>,
    block: Vec<u8>,
    begun: Rc<Notify>,
    date: DateCache,
}

impl Log {
    pub(crate) fn new(sink: Arc<Sink>, sender: SyncSender<Vec<u8>>) -> Log {
        Log { sink, sender, block: Vec::new(), begun: Rc::default(), date: DateCache::default() }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.sink.is_on()
    }

    /// Hears of the first line of each block.
    pub(crate) fn begun(&self) -> Rc<Notify> {
        self.begun.clone()
    }

    /// Writes one line.
    pub(crate) fn write(&mut self, entry: &Entry<'_>) {
        if self.block.is_empty() {
            self.begun.notify_one();
        }
        if self.block.capacity() == 0 {
            self.block.reserve_exact(limits::LOG_BYTES + limits::LOG_LINE_BYTES);
        }
        entry.format(&mut self.block, &mut self.date);
        if self.block.len() >= limits::LOG_BYTES {
            self.flush();
        }
    }

    /// Hands over what was gathered.
    pub(crate) fn flush(&mut self) {
        if self.block.is_empty() {
            return;
        }
        if let Err(refused) = self.sender.try_send(std::mem::take(&mut self.block)) {
            let (std::sync::mpsc::TrySendError::Full(block)
            | std::sync::mpsc::TrySendError::Disconnected(block)) = refused;
            self.sink.dropped.fetch_add(count_lines(&block), Relaxed);
        }
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
    /// From the first byte of the request to the end of its head.
    pub(crate) request: i64,
    /// In the queue.
    pub(crate) queue: i64,
    /// To connect to the server.
    pub(crate) connect: i64,
    /// To the server's response head.
    pub(crate) response: i64,
    /// Of it all.
    pub(crate) total: i64,
}

/// What kind of line.
pub(crate) enum Kind<'a> {
    /// `httplog`.
    Http { status: u16, line: RequestLine<'a> },
    /// `tcplog`.
    Tcp,
}

/// The last field of `httplog`.
pub(crate) enum RequestLine<'a> {
    /// The request line, as received.
    Good(&'a [u8]),
    /// It could not be read.
    Bad,
}

/// A line to be.
pub(crate) struct Entry<'a> {
    pub(crate) client: SocketAddr,
    /// Milliseconds since 1970, UTC.
    pub(crate) date_ms: u64,
    pub(crate) frontend: &'a str,
    pub(crate) backend: &'a str,
    pub(crate) server: Option<&'a str>,
    pub(crate) times: Times,
    pub(crate) bytes: u64,
    /// The first two letters of HAProxy's termination state.
    pub(crate) state: [u8; 2],
    pub(crate) sessions: Sessions,
    pub(crate) retries: u32,
    pub(crate) redispatched: bool,
    pub(crate) server_queue: u32,
    pub(crate) backend_queue: u32,
    pub(crate) kind: Kind<'a>,
}

impl Entry<'_> {
    fn format(&self, out: &mut Vec<u8>, date: &mut DateCache) {
        address(out, self.client);
        out.extend_from_slice(b" [");
        date.write(out, self.date_ms);
        out.extend_from_slice(b"] ");
        out.extend_from_slice(self.frontend.as_bytes());
        out.push(b' ');
        out.extend_from_slice(self.backend.as_bytes());
        out.push(b'/');
        out.extend_from_slice(self.server.unwrap_or("<NOSRV>").as_bytes());
        out.push(b' ');
        let Times { request, queue, connect, response, total } = self.times;
        match self.kind {
            Kind::Http { status, .. } => {
                for time in [request, queue, connect, response] {
                    signed(out, time);
                    out.push(b'/');
                }
                signed(out, total);
                out.push(b' ');
                number(out, u64::from(status));
            }
            Kind::Tcp => {
                for time in [queue, connect] {
                    signed(out, time);
                    out.push(b'/');
                }
                signed(out, total);
            }
        }
        out.push(b' ');
        number(out, self.bytes);
        if let Kind::Http { .. } = self.kind {
            out.extend_from_slice(b" - -"); // captured cookies: none are
        }
        out.push(b' ');
        out.extend_from_slice(&self.state);
        if let Kind::Http { .. } = self.kind {
            out.extend_from_slice(b"--"); // the persistence cookie: none is set
        }
        out.push(b' ');
        self.counts(out);
        if let Kind::Http { line, .. } = &self.kind {
            out.extend_from_slice(b" \"");
            match line {
                RequestLine::Good(line) => escaped(out, line),
                RequestLine::Bad => out.extend_from_slice(b"<BADREQ>"),
            }
            out.push(b'"');
        }
        out.push(b'\n');
    }

    fn counts(&self, out: &mut Vec<u8>) {
        let Sessions { process, frontend, backend, server } = self.sessions;
        for count in [process, frontend, backend, server] {
            number(out, u64::from(count));
            out.push(b'/');
        }
        if self.redispatched {
            out.push(b'+');
        }
        number(out, u64::from(self.retries));
        out.push(b' ');
        number(out, u64::from(self.server_queue));
        out.push(b'/');
        number(out, u64::from(self.backend_queue));
    }
}

/// As HAProxy: what is not printable, and the quotation mark, as `#` and two hexadecimal digits.
fn escaped(out: &mut Vec<u8>, line: &[u8]) {
    let line = &line[..line.len().min(limits::LOG_LINE_BYTES)];
    let plain = |b: u8| (0x20..0x7f).contains(&b) && !matches!(b, b'"' | b'#');
    if line.iter().all(|b| plain(*b)) {
        return out.extend_from_slice(line);
    }
    for &byte in line {
        if plain(byte) {
            out.push(byte);
        } else {
            let digit = |n: u8| b"0123456789ABCDEF"[usize::from(n)];
            out.extend_from_slice(&[b'#', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// `n` in decimal digits.
pub(crate) fn number(out: &mut Vec<u8>, mut n: u64) {
    let mut digits = [0; 20];
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

fn signed(out: &mut Vec<u8>, n: i64) {
    if n < 0 {
        out.push(b'-');
    }
    number(out, n.unsigned_abs());
}

fn address(out: &mut Vec<u8>, address: SocketAddr) {
    self::ip(out, address.ip());
    out.push(b':');
    number(out, u64::from(address.port()));
}

/// An address as text; an IPv4 address that came as IPv6 as the IPv4 address it is.
pub(crate) fn ip(out: &mut Vec<u8>, ip: std::net::IpAddr) {
    match ip.to_canonical() {
        std::net::IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            for (octet, end) in [(a, true), (b, true), (c, true), (d, false)] {
                number(out, u64::from(octet));
                if end {
                    out.push(b'.');
                }
            }
        }
        std::net::IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}

/// `22/Nov/2026:19:57:00.123`: the part before the milliseconds is made once a second.
#[derive(Default)]
struct DateCache {
    second: u64,
    text: Vec<u8>,
}

impl DateCache {
    fn write(&mut self, out: &mut Vec<u8>, date_ms: u64) {
        let second = date_ms / 1000;
        if self.second != second || self.text.is_empty() {
            self.second = second;
            self.text.clear();
            let (day, month, year) = civil(second / 86_400);
            let month =
                ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month];
            let (hour, minute, sec) = (second / 3600 % 24, second / 60 % 60, second % 60);
            let _ = write!(self.text, "{day:02}/{month}/{year}:{hour:02}:{minute:02}:{sec:02}.");
        }
        out.extend_from_slice(&self.text);
        let ms = date_ms % 1000;
        out.extend_from_slice(&[
            b'0' + (ms / 100) as u8,
            b'0' + (ms / 10 % 10) as u8,
            b'0' + (ms % 10) as u8,
        ]);
    }
}

/// Day, month from 0, and year of a day since 1970-01-01 (Howard Hinnant, *chrono-Compatible Low-Level Date
/// Algorithms*).
fn civil(days: u64) -> (u64, usize, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 2 } else { shifted - 10 };
    let year = year_of_era + era * 400 + u64::from(month < 2);
    (day, month as usize, year)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(kind: Kind<'_>) -> Entry<'_> {
        Entry {
            client: "[::ffff:10.0.1.2]:33317".parse().unwrap(),
            date_ms: 1_233_922_454_655,
            frontend: "http-in",
            backend: "static",
            server: Some("srv1"),
            times: Times { request: 10, queue: 0, connect: 30, response: 69, total: 109 },
            bytes: 2750,
            state: *b"--",
            sessions: Sessions { process: 1, frontend: 2, backend: 3, server: 4 },
            retries: 5,
            redispatched: true,
            server_queue: 0,
            backend_queue: 6,
            kind,
        }
    }

    fn line(entry: &Entry<'_>) -> String {
        let mut out = Vec::new();
        entry.format(&mut out, &mut DateCache::default());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_is_logged_as_haproxy_s_httplog() {
        let kind = Kind::Http { status: 200, line: RequestLine::Good(b"GET /index.html HTTP/1.1") };
        assert_eq!(
            line(&entry(kind)),
            "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- \
             1/2/3/4/+5 0/6 \"GET /index.html HTTP/1.1\"\n"
        );
    }

    #[test]
    fn a_connection_is_logged_as_haproxy_s_tcplog() {
        assert_eq!(
            line(&entry(Kind::Tcp)),
            "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 0/30/109 2750 -- 1/2/3/4/+5 0/6\n"
        );
    }

    #[test]
    fn what_a_client_sends_cannot_forge_a_line() {
        let kind = Kind::Http { status: 200, line: RequestLine::Good(b"GET /\"\n#\xff HTTP/1.1") };
        assert!(line(&entry(kind)).ends_with("\"GET /#22#0A#23#FF HTTP/1.1\"\n"));
        let bad = Entry { server: None, ..entry(Kind::Http { status: 400, line: RequestLine::Bad }) };
        assert!(line(&bad).contains(" static/<NOSRV> ") && line(&bad).ends_with(" \"<BADREQ>\"\n"));
    }

    #[test]
    fn days_become_dates() {
        assert_eq!(civil(0), (1, 0, 1970));
        assert_eq!(civil(11_016), (29, 1, 2000));
        assert_eq!(civil(11_017), (1, 2, 2000));
        assert_eq!(civil(20_779), (22, 10, 2026));
        assert_eq!(civil(47_540), (28, 1, 2100));
        assert_eq!(civil(47_541), (1, 2, 2100));
    }
}
