//! One health check of one server: a connection, a request and the status of its answer, or a question to a name
//! server ([`dns`]).
//!
//! Not how often to ask and not what a failure means: that is the check loop's and
//! `relais_balance::Health`'s. Time is limited as HAProxy does it: the caller hands in `timeout connect`
//! (or the interval, if that is shorter) for the connection, and `timeout check` for the answer after it.

use std::fmt::Write as _;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use relais_config::plan::{CheckKind, ProxyVersion};
use relais_http::proxy_protocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::dns;
use crate::io::Io;
use crate::tls::Connects;

/// Longest head that an answer to a check may have, bytes, interim responses included.
const MAX_HEAD: usize = 16 * 1024;

/// How long a server that has answered may take to close, so that it is not shown a reset for its answer.
const FAREWELL: Duration = Duration::from_millis(50);

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the server is well.
    pub ok: bool,
    /// What was seen, in a few words for logs and the status page: `status 200`, `connection refused`.
    pub what: String,
    /// From the first packet to the verdict.
    pub took: Duration,
}

/// Asks `server` once, over TLS if there is `tls`, waiting at most `connect` for the connection and then at most
/// `answer`. A server that is told of clients is told that this is none.
pub(crate) async fn probe(
    kind: &CheckKind,
    server: SocketAddr,
    send_proxy: Option<ProxyVersion>,
    tls: Option<&Connects>,
    connect: Duration,
    answer: Duration,
) -> Outcome {
    let start = Instant::now();
    if let CheckKind::Dns { name, kind, expect } = kind {
        let result = dns::ask(server, name, *kind, *expect, answer).await;
        let (ok, what) = result.map_or_else(|what| (false, what), |what| (true, what));
        return Outcome { ok, what, took: start.elapsed() };
    }
    let opened = timeout(connect, open(server, send_proxy, tls)).await;
    let opened = opened.unwrap_or_else(|_| Err(format!("no connection within {}", Seconds(connect))));
    let (result, stream) = match opened {
        Err(why) => (Err(why), None),
        Ok(mut stream) => match kind {
            CheckKind::Tcp | CheckKind::Dns { .. } | CheckKind::Other => {
                (Ok("connected".to_owned()), Some(stream))
            }
            CheckKind::Http { path, host, expect } => {
                let request = request(path, host.as_deref(), server);
                let asked = timeout(answer, ask(&mut stream, &request)).await;
                let status = asked.unwrap_or_else(|_| Err(format!("no answer within {}", Seconds(answer))));
                (status.and_then(|status| judge(status, *expect)), Some(stream))
            }
        },
    };
    let took = start.elapsed();
    let (ok, what) = match result {
        Ok(what) => (true, what),
        Err(what) => (false, what),
    };
    if let Some(stream) = stream {
        close(stream, ok && matches!(kind, CheckKind::Http { .. })).await;
    }
    Outcome { ok, what, took }
}

async fn open(
    server: SocketAddr,
    send_proxy: Option<ProxyVersion>,
    tls: Option<&Connects>,
) -> Result<Io, String> {
    let mut socket = TcpStream::connect(server).await.map_err(|error| in_words(&error))?;
    let mut header = Vec::new();
    match send_proxy {
        Some(ProxyVersion::V1) => proxy_protocol::write_v1_unknown(&mut header),
        Some(ProxyVersion::V2) => proxy_protocol::write_v2_local(&mut header),
        None => {}
    }
    socket.write_all(&header).await.map_err(|error| in_words(&error))?;
    let Some(tls) = tls else { return Ok(Io::Plain(socket)) };
    let stream = tls.open(socket, server.ip(), false)?;
    let shaken = poll_fn(|cx| stream.poll_handshake(cx)).await;
    shaken.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => format!("TLS: {error}"),
        _ => format!("TLS: {}", in_words(&error)),
    })?;
    Ok(Io::tls_over(stream))
}

fn request(path: &str, host: Option<&str>, server: SocketAddr) -> String {
    let mut text = format!("GET {path} HTTP/1.1\r\nHost: ");
    // Writing to a string cannot fail.
    let _ = match host {
        Some(host) => write!(text, "{host}"),
        None if server.port() == 80 && server.is_ipv6() => write!(text, "[{}]", server.ip()),
        None if server.port() == 80 => write!(text, "{}", server.ip()),
        None => write!(text, "{server}"),
    };
    text.push_str("\r\nUser-Agent: relais-check\r\nAccept: */*\r\nConnection: close\r\n\r\n");
    text
}

/// Sends the request and reads heads until one is final; its status.
async fn ask(stream: &mut Io, request: &str) -> Result<u16, String> {
    stream.write_all(request.as_bytes()).await.map_err(|error| in_words(&error))?;
    let mut head = Vec::with_capacity(1024);
    let mut start = 0; // of the head being read; those before it were interim responses (RFC 9110 §15.2)
    loop {
        while let Some(length) = head[start..].windows(4).position(|end| end == b"\r\n\r\n") {
            match status(&head[start..start + length]).ok_or("not HTTP")? {
                status @ (101 | 200..) => return Ok(status),
                _ => start += length + 4,
            }
        }
        if head.len() >= MAX_HEAD {
            return Err(format!("no end of the head within {} KiB", MAX_HEAD / 1024));
        }
        if head.len() - start >= 9 && !head[start..].starts_with(b"HTTP/1.") {
            return Err("not HTTP".to_owned()); // said at once rather than when the time is up
        }
        let room = MAX_HEAD - head.len();
        match (&mut *stream).take(room as u64).read_buf(&mut head).await {
            Ok(0) if head.is_empty() => return Err("closed without an answer".to_owned()),
            Ok(0) if status(first_line(&head[start..])).is_none() => return Err("not HTTP".to_owned()),
            Ok(0) => return Err("closed within the head of its answer".to_owned()),
            Ok(_) => {}
            Err(error) => return Err(in_words(&error)),
        }
    }
}

fn first_line(head: &[u8]) -> &[u8] {
    head.split(|&byte| byte == b'\r').next().unwrap_or_default()
}

/// The status of a head whose first line is `HTTP/1.x NNN`, then a reason after a space or nothing
/// (RFC 9112 §4).
fn status(head: &[u8]) -> Option<u16> {
    let line = first_line(head);
    let rest = line.strip_prefix(b"HTTP/1.")?;
    let [minor, b' ', code @ ..] = rest else { return None };
    let (code, reason) = code.split_at_checked(3)?;
    let printable = |&byte: &u8| byte == b'\t' || (byte >= b' ' && byte != 0x7f);
    if !minor.is_ascii_digit() || !matches!(reason, [] | [b' ', ..]) || !reason.iter().all(printable) {
        return None;
    }
    let digits = code.iter().all(u8::is_ascii_digit).then_some(code)?;
    let status = digits.iter().fold(0, |number, digit| number * 10 + u16::from(digit - b'0'));
    (100..=999).contains(&status).then_some(status)
}

fn judge(status: u16, (first, last): (u16, u16)) -> Result<String, String> {
    match status {
        _ if (first..=last).contains(&status) => Ok(format!("status {status}")),
        _ if first == last => Err(format!("status {status}, expected {first}")),
        _ => Err(format!("status {status}, expected {first} to {last}")),
    }
}

/// Ends the connection. Where an answer was read, the server gets a moment to finish its body and close
/// first. Else a reset: no half-open connection and no TIME_WAIT is left on either side, as HAProxy
/// does it.
async fn close(mut stream: Io, answered: bool) {
    let mut rest = [0; 4096];
    let finished = answered
        && timeout(FAREWELL, async {
            let mut left = MAX_HEAD;
            while let Ok(read @ 1..) = stream.read(&mut rest).await {
                left = left.saturating_sub(read);
                if left == 0 {
                    return false;
                }
            }
            true
        })
        .await
        .unwrap_or(false);
    if !finished {
        stream.end_in_reset();
    }
}

/// An error of the operating system as an operator says it.
pub(crate) fn in_words(error: &io::Error) -> String {
    use io::ErrorKind::*;
    let known = match error.kind() {
        ConnectionRefused => "connection refused",
        ConnectionReset | ConnectionAborted | BrokenPipe => "connection reset",
        HostUnreachable => "no route to the host",
        NetworkUnreachable => "no route to the network",
        TimedOut => "connection timed out",
        PermissionDenied => "connecting is not permitted",
        _ => return error.to_string(),
    };
    known.to_owned()
}

/// A limit as the file writes it: `1 s`, `1.5 s`, `50 ms`.
pub(crate) struct Seconds(pub(crate) Duration);

impl std::fmt::Display for Seconds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            limit if limit >= Duration::from_secs(1) => write!(f, "{} s", limit.as_millis() as f64 / 1000.0),
            limit => write!(f, "{} ms", limit.as_millis()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    const LONG: Duration = Duration::from_secs(20);
    const SHORT: Duration = Duration::from_millis(30);

    fn http(first: u16, last: u16) -> CheckKind {
        CheckKind::Http { path: "/healthz?deep=1".into(), host: None, expect: (first, last) }
    }

    /// A server that reads one request, says `answer` and closes; resolves to what it read, and whether
    /// the prober ended with a clean close rather than a reset.
    async fn serve(answer: impl Into<Vec<u8>>) -> (SocketAddr, tokio::task::JoinHandle<(String, bool)>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.into();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") && stream.read_buf(&mut request).await.unwrap() > 0 {}
            stream.write_all(&answer).await.unwrap();
            stream.shutdown().await.unwrap();
            let end = stream.read(&mut [0; 1]).await;
            (String::from_utf8(request).unwrap(), matches!(end, Ok(0)))
        });
        (address, task)
    }

    async fn found(answer: impl Into<Vec<u8>>) -> (bool, String) {
        let (address, _task) = serve(answer).await;
        let outcome = probe(&http(200, 200), address, None, None, LONG, LONG).await;
        (outcome.ok, outcome.what)
    }

    fn said(ok: bool, what: &str) -> (bool, String) {
        (ok, what.to_owned())
    }

    #[tokio::test]
    async fn a_well_server_is_asked_politely_and_found_well() {
        let (address, task) = serve("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok").await;
        let outcome = probe(&http(200, 399), address, None, None, LONG, LONG).await;
        assert_eq!((outcome.ok, &*outcome.what), (true, "status 200"));
        let (request, clean) = task.await.unwrap();
        assert_eq!(
            request,
            format!(
                "GET /healthz?deep=1 HTTP/1.1\r\nHost: {address}\r\nUser-Agent: relais-check\r\n\
                 Accept: */*\r\nConnection: close\r\n\r\n"
            )
        );
        assert!(clean, "the server saw a reset for its good answer");
    }

    #[test]
    fn the_host_is_the_one_given_or_the_servers_address() {
        let host = |host, server: &str| {
            let text = request("/", host, server.parse().unwrap());
            text.lines().nth(1).unwrap().to_owned()
        };
        assert_eq!(host(Some("a.example"), "10.0.0.1:80"), "Host: a.example");
        assert_eq!(host(None, "10.0.0.1:80"), "Host: 10.0.0.1");
        assert_eq!(host(None, "10.0.0.1:8081"), "Host: 10.0.0.1:8081");
        assert_eq!(host(None, "[::1]:80"), "Host: [::1]");
        assert_eq!(host(None, "[::1]:81"), "Host: [::1]:81");
    }

    #[tokio::test]
    async fn a_status_out_of_the_range_is_a_failure_that_says_both() {
        assert_eq!(found("HTTP/1.0 503 no\r\n\r\n").await, said(false, "status 503, expected 200"));
        let (address, _task) = serve("HTTP/1.1 404\r\n\r\n").await;
        let outcome = probe(&http(200, 399), address, None, None, LONG, LONG).await;
        assert_eq!(outcome.what, "status 404, expected 200 to 399");
    }

    #[tokio::test]
    async fn an_interim_response_is_not_the_answer() {
        assert_eq!(
            found("HTTP/1.1 103 x\r\nLink: </a>\r\n\r\nHTTP/1.1 200 ok\r\n\r\n").await,
            said(true, "status 200")
        );
    }

    #[tokio::test]
    async fn what_is_not_http_is_said_so() {
        for answer in [
            "SSH-2.0-OpenSSH_9.2\r\n",
            "HTTP/1.1 200",
            "HTTP/1.1 20\r\n\r\n",
            "HTTP/1.1 2000 x\r\n\r\n",
            "HTTP/2 200 x\r\n\r\n",
            "HTTP/1.1  200 x\r\n\r\n",
            "HTTP/1.1 +20 x\r\n\r\n",
            "HTTP/1.1 099 x\r\n\r\n",
            "HTTP/1.1 200 a\x01b\r\n\r\n",
            "\r\nHTTP/1.1 200 ok\r\n\r\n",
            "http/1.1 200 ok\r\n\r\n",
        ] {
            let expected = match answer {
                "HTTP/1.1 200" => "closed within the head of its answer",
                _ => "not HTTP",
            };
            assert_eq!(found(answer).await, said(false, expected), "{answer:?}");
        }
        assert_eq!(found("").await, said(false, "closed without an answer"));
    }

    #[tokio::test]
    async fn a_head_without_end_is_given_up() {
        let mut answer = b"HTTP/1.1 200 ok\r\n".to_vec();
        answer.resize(MAX_HEAD * 2, b'x');
        assert_eq!(found(answer).await, said(false, "no end of the head within 16 KiB"));
    }

    #[tokio::test]
    async fn a_silent_server_is_waited_for_no_longer_than_the_check_allows() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap(); // the kernel connects, nobody answers
        let address = listener.local_addr().unwrap();
        let outcome = probe(&http(200, 200), address, None, None, LONG, SHORT).await;
        assert_eq!((outcome.ok, &*outcome.what), (false, "no answer within 30 ms"));
        assert!(outcome.took >= SHORT && outcome.took < LONG);
    }

    #[tokio::test]
    async fn a_server_that_does_not_take_connections_is_waited_for_no_longer_than_connect_allows() {
        // A queue of one that is full: the kernel drops further SYNs.
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.listen(0).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut filling = Vec::new();
        while let Ok(Ok(stream)) = timeout(SHORT * 5, TcpStream::connect(address)).await {
            filling.push(stream);
        }
        let outcome = probe(&CheckKind::Tcp, address, None, None, SHORT, LONG).await;
        assert_eq!((outcome.ok, &*outcome.what), (false, "no connection within 30 ms"));
    }

    #[tokio::test]
    async fn a_closed_port_is_a_refused_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let outcome = probe(&CheckKind::Tcp, address, None, None, LONG, LONG).await;
        assert_eq!((outcome.ok, &*outcome.what), (false, "connection refused"));
    }

    #[tokio::test]
    async fn a_tcp_check_ends_with_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let outcome = probe(&CheckKind::Tcp, address, None, None, LONG, LONG).await;
        assert_eq!((outcome.ok, &*outcome.what), (true, "connected"));
        let (mut stream, _) = listener.accept().await.unwrap();
        let end = stream.read(&mut [0; 1]).await.map_err(|error| error.kind());
        assert_eq!(end, Err(io::ErrorKind::ConnectionReset));
    }

    #[test]
    fn limits_are_said_as_the_file_writes_them() {
        let said = |ms| Seconds(Duration::from_millis(ms)).to_string();
        assert_eq!([said(50), said(1000), said(1500), said(60_000)], ["50 ms", "1 s", "1.5 s", "60 s"]);
    }
}
