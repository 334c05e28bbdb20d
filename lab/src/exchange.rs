//! One `GET` and its answer over HTTP/1.1: just enough of a client to know a whole answer from a broken one.
//! The probe and the lab's own questions use it; the data plane has its own engine.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::netns::Netns;

/// Longest answer that is taken, bytes.
const MAX_ANSWER: usize = 1024 * 1024;
const MAX_FIELDS: usize = 64;

/// Why a request has no good answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// Nobody listens there.
    Refused,
    /// No way there.
    Unreachable,
    /// The connection was closed in order before the first byte of an answer.
    Closed,
    /// The connection was reset before the first byte of an answer.
    Reset,
    /// The answer had begun and did not end.
    CutShort,
    /// No whole answer in time.
    TimedOut,
    /// A whole answer, but not a 200.
    Status(u16),
    /// No HTTP.
    Malformed,
    /// This machine has run out of something.
    Local,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Failure::Refused => "refused",
            Failure::Unreachable => "unreachable",
            Failure::Closed => "closed before the answer",
            Failure::Reset => "reset before the answer",
            Failure::CutShort => "answer cut short",
            Failure::TimedOut => "timed out",
            Failure::Status(code) => return write!(f, "status {code}"),
            Failure::Malformed => "malformed answer",
            Failure::Local => "the probe's machine is out of resources",
        })
    }
}

impl Failure {
    fn of(error: &io::Error) -> Failure {
        use io::ErrorKind as E;
        match error.kind() {
            E::ConnectionRefused => Failure::Refused,
            E::HostUnreachable | E::NetworkUnreachable | E::NetworkDown => Failure::Unreachable,
            E::ConnectionReset | E::BrokenPipe | E::ConnectionAborted | E::NotConnected => Failure::Reset,
            E::TimedOut => Failure::TimedOut,
            _ => Failure::Local,
        }
    }
}

/// How the end of a body is known.
enum Body {
    Length(usize),
    Chunked,
    UntilClose,
}

/// A client's connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(to: SocketAddr) -> Result<Connection, Failure> {
        let stream = TcpStream::connect(to).await.map_err(|e| Failure::of(&e))?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// One exchange; whether the connection can be used for another. The answer is left in the buffer.
    pub(crate) async fn get(&mut self, path: &str, keep: bool) -> Result<bool, Failure> {
        let connection = if keep { "" } else { "Connection: close\r\n" };
        let request = format!("GET {path} HTTP/1.1\r\nHost: relais.lab\r\n{connection}\r\n");
        self.buffer.clear();
        self.stream.write_all(request.as_bytes()).await.map_err(|e| Failure::of(&e))?;
        let (status, start, body, mut reusable) = loop {
            if let Some(head) = head(&self.buffer)? {
                break head;
            }
            if !self.read().await? {
                return Err(if self.buffer.is_empty() { Failure::Closed } else { Failure::CutShort });
            }
        };
        let mut closed = false;
        while !is_whole(&self.buffer[start..], &body, closed)? {
            if closed {
                return Err(Failure::CutShort);
            }
            closed = !self.read().await?;
        }
        reusable &= keep && !closed;
        if status == 200 { Ok(reusable) } else { Err(Failure::Status(status)) }
    }

    /// Reads on; `false` at the end.
    async fn read(&mut self) -> Result<bool, Failure> {
        if self.buffer.len() >= MAX_ANSWER {
            return Err(Failure::Malformed);
        }
        match self.stream.read_buf(&mut self.buffer).await {
            Ok(length) => Ok(length > 0),
            Err(error) if self.buffer.is_empty() => Err(Failure::of(&error)),
            Err(_) => Err(Failure::CutShort),
        }
    }
}

/// Status, where the body begins, how it ends, and whether the connection stays; `None`: not yet.
fn head(bytes: &[u8]) -> Result<Option<(u16, usize, Body, bool)>, Failure> {
    let mut fields = [httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut response = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(start) = response.parse(bytes).map_err(|_| Failure::Malformed)? else {
        return Ok(None);
    };
    let (mut body, mut reusable) = (Body::UntilClose, true);
    for field in response.headers.iter() {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        match field.name.to_ascii_lowercase().as_str() {
            "content-length" => body = Body::Length(value.parse().map_err(|_| Failure::Malformed)?),
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => body = Body::Chunked,
            "connection" if value.eq_ignore_ascii_case("close") => reusable = false,
            _ => {}
        }
    }
    Ok(Some((response.code.unwrap_or_default(), start, body, reusable)))
}

fn is_whole(mut bytes: &[u8], body: &Body, closed: bool) -> Result<bool, Failure> {
    match body {
        Body::Length(length) => Ok(bytes.len() >= *length),
        Body::UntilClose => Ok(closed),
        Body::Chunked => loop {
            let parsed = httparse::parse_chunk_size(bytes).map_err(|_| Failure::Malformed)?;
            let httparse::Status::Complete((start, size)) = parsed else { return Ok(false) };
            if size == 0 {
                return Ok(bytes[start..].starts_with(b"\r\n") || bytes[start..].ends_with(b"\r\n\r\n"));
            }
            let Some(rest) = bytes.get(start.saturating_add(size as usize).saturating_add(2)..) else {
                return Ok(false);
            };
            bytes = rest;
        },
    }
}

/// Asks once from inside `netns` and waits; the whole answer, head and all.
///
/// # Errors
/// One phrase that says why there is no answer with status 200.
pub(crate) fn get(netns: &Netns, to: SocketAddr, path: &str, limit: Duration) -> Result<Vec<u8>, String> {
    let ask = async {
        let mut connection = Connection::open(to).await?;
        connection.get(path, false).await?;
        Ok(connection.buffer)
    };
    let work = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(runtime
            .block_on(async { tokio::time::timeout(limit, ask).await.unwrap_or(Err(Failure::TimedOut)) }))
    };
    netns.run(work).map_err(|e| e.to_string())?.map_err(|failure| failure.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(answer: &[u8], closed: bool) -> bool {
        let (_, start, body, _) = head(answer).unwrap().unwrap();
        is_whole(&answer[start..], &body, closed).unwrap()
    }

    #[test]
    fn an_answer_is_whole_at_its_last_byte_and_not_before() {
        let answers: [&[u8]; 3] = [
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-Trailer: a\r\n\r\n",
        ];
        for answer in answers {
            assert!(whole(answer, false), "{}", answer.escape_ascii());
            let head_end = answer.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
            for cut in head_end..answer.len() {
                assert!(!whole(&answer[..cut], true), "{}", answer[..cut].escape_ascii());
            }
        }
        let until_close = b"HTTP/1.1 200 OK\r\n\r\nhello";
        assert!(!whole(until_close, false) && whole(until_close, true));
    }
}
