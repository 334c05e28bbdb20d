//! One health check of one server: a connection and an HTTP request or another protocol's conversation
//! (`relais-checks` has those), or a question to a name server ([`dns`]).
//!
//! Not how often to ask and not what a failure means: that is the check loop's and
//! `relais_balance::Health`'s. Time is limited as HAProxy does it: the caller hands in `timeout connect`
//! (or the interval, if that is shorter) for the connection, and `timeout check` for the answer after it.

mod http2;

use std::fmt::Write as _;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use aws_lc_rs::digest;
use relais_checks::{AgentSaid, Ask, Step, Talk};
use relais_config::plan::{CheckKind, ProxyVersion};
use relais_http::proxy_protocol;
use relais_rules::Finder;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::dns;
use crate::io::Io;
use crate::tls::Connects;

/// Longest head that an answer to a check may have, bytes, interim responses included.
const MAX_HEAD: usize = 16 * 1024;

/// Longest line of an agent, bytes.
const MAX_LINE: usize = 1024;

/// Bytes of a body in which a text is looked for.
const MAX_BODY: usize = 64 * 1024;

/// How long a server that has answered may take to close, so that it is not shown a reset for its answer.
const FAREWELL: Duration = Duration::from_millis(50);

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whether the server is well.
    pub ok: bool,
    /// What was seen, in a few words for logs and the status page: `status 200`, `connection refused`.
    pub what: String,
    /// From the first packet to the verdict.
    pub took: Duration,
}

/// How a server is spoken to.
#[derive(Clone, Copy, Default)]
pub(crate) struct Way<'a> {
    pub(crate) send_proxy: Option<ProxyVersion>,
    pub(crate) tls: Option<&'a Connects>,
    /// HTTP/2; over TLS, if it agrees.
    pub(crate) http2: bool,
}

/// Asks `server` once, waiting at most `connect` for the connection and then at most
/// `answer`. `secret`: the password of checks that have one. A server that is told of clients is told that this is none.
pub(crate) async fn probe(
    kind: &CheckKind,
    server: SocketAddr,
    way: Way<'_>,
    secret: &[u8],
    (connect, answer): (Duration, Duration),
) -> Outcome {
    let start = Instant::now();
    if let CheckKind::Dns { name, kind, expect } = kind {
        let result = dns::ask(server, name, *kind, *expect, answer).await;
        let (ok, what) = result.map_or_else(|what| (false, what), |what| (true, what));
        return Outcome { ok, what, took: start.elapsed() };
    }
    let way = Way { http2: way.http2 || matches!(kind, CheckKind::Grpc { .. }), ..way };
    let opened = timeout(connect, open(server, way)).await;
    let opened = opened.unwrap_or_else(|_| Err(format!("no connection within {}", Seconds(connect))));
    let (result, stream) = match opened {
        Err(why) => (Err(why), None),
        Ok(mut stream) => match kind {
            CheckKind::Tcp | CheckKind::Dns { .. } => (Ok("connected".to_owned()), Some(stream)),
            CheckKind::Http { .. } => {
                let is_http2 = stream.tls().map_or(way.http2, crate::tls::Stream::agreed_on_h2);
                let asked = timeout(answer, async {
                    let wanted = Wanted::new(kind)?;
                    match is_http2 {
                        true => http2::ask(&mut stream, kind, server, &wanted).await,
                        false => http(&mut stream, &request(kind, server), &wanted).await,
                    }
                });
                let asked =
                    asked.await.unwrap_or_else(|_| Err(format!("no answer within {}", Seconds(answer))));
                (asked, Some(stream))
            }
            kind => {
                let talked = timeout(answer, talk(&mut stream, kind, secret, way.tls.is_some())).await;
                let talked = talked.unwrap_or_else(|_| Err(format!("no answer within {}", Seconds(answer))));
                (talked, Some(stream))
            }
        },
    };
    let took = start.elapsed();
    let (ok, what) = match result {
        Ok(what) => (true, what),
        Err(what) => (false, what),
    };
    if let Some(stream) = stream {
        close(stream, ok && !matches!(kind, CheckKind::Tcp)).await;
    }
    Outcome { ok, what, took }
}

async fn open(server: SocketAddr, way: Way<'_>) -> Result<Io, String> {
    let mut socket = TcpStream::connect(server).await.map_err(|error| in_words(&error))?;
    let mut header = Vec::new();
    match way.send_proxy {
        Some(ProxyVersion::V1) => proxy_protocol::write_v1_unknown(&mut header),
        Some(ProxyVersion::V2) => proxy_protocol::write_v2_local(&mut header),
        None => {}
    }
    socket.write_all(&header).await.map_err(|error| in_words(&error))?;
    let Some(tls) = way.tls else { return Ok(Io::Plain(socket)) };
    let stream = tls.open(socket, server.ip(), way.http2)?;
    let shaken = poll_fn(|cx| stream.poll_handshake(cx)).await;
    shaken.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => format!("TLS: {error}"),
        _ => format!("TLS: {}", in_words(&error)),
    })?;
    Ok(Io::tls_over(stream))
}

/// Has the conversation of a check that `relais-checks` knows.
async fn talk(stream: &mut Io, kind: &CheckKind, secret: &[u8], tls: bool) -> Result<String, String> {
    let Some(ask) = question(kind, secret, tls) else { return Err("there is no such check".to_owned()) };
    let (mut talk, mut inbox) = (Talk::new(ask), Vec::with_capacity(1024));
    loop {
        match talk.step(&mut inbox) {
            Step::Say(bytes) => stream.write_all(&bytes).await.map_err(|error| in_words(&error))?,
            Step::Done(verdict, farewell) => {
                let _ = stream.write_all(farewell).await; // the verdict stands without it
                return verdict;
            }
            Step::Wait if inbox.len() >= relais_checks::MOST => {
                return Err(format!("no end of its answer within {} KiB", relais_checks::MOST / 1024));
            }
            Step::Wait => {
                let room = relais_checks::MOST - inbox.len();
                match (&mut *stream).take(room as u64).read_buf(&mut inbox).await {
                    Ok(0) => return Err("closed within its answer".to_owned()),
                    Ok(_) => {}
                    Err(error) => return Err(in_words(&error)),
                }
            }
        }
    }
}

fn question<'a>(kind: &'a CheckKind, secret: &'a [u8], tls: bool) -> Option<Ask<'a>> {
    Some(match kind {
        CheckKind::Tls { sni } => {
            let hash = |n: u8| RandomState::new().hash_one(n).to_be_bytes();
            let mut random = [0; 32];
            (0..).zip(random.chunks_mut(8)).for_each(|(n, part)| part.copy_from_slice(&hash(n)));
            Ask::Tls { sni: sni.as_deref(), random }
        }
        CheckKind::Mysql { user, galera, .. } => {
            Ask::Mysql { user: user.as_deref(), password: secret, galera: *galera, sha1 }
        }
        CheckKind::Postgresql { user } => Ask::Postgresql { user },
        CheckKind::Redis { .. } => Ask::Redis { password: secret },
        CheckKind::Smtp { helo } => Ask::Smtp { helo },
        CheckKind::Ldap { user, base, .. } => {
            Ask::Ldap { user: user.as_deref(), password: secret, base: base.as_deref() }
        }
        CheckKind::Grpc { service, host } => Ask::Grpc { service, host, tls },
        CheckKind::Tcp | CheckKind::Http { .. } | CheckKind::Dns { .. } | CheckKind::Exec { .. } => {
            return None;
        }
    })
}

/// What `mysql_native_password` is made of.
fn sha1(pieces: &[&[u8]]) -> [u8; 20] {
    let mut context = digest::Context::new(&digest::SHA1_FOR_LEGACY_USE_ONLY);
    pieces.iter().for_each(|piece| context.update(piece));
    let mut out = [0; 20];
    out.copy_from_slice(context.finish().as_ref());
    out
}

/// What is expected of an answer.
struct Wanted<'a> {
    expect: (u16, u16),
    contains: Option<&'a str>,
    matches: Option<(&'a str, Finder)>,
}

impl<'a> Wanted<'a> {
    fn new(kind: &'a CheckKind) -> Result<Wanted<'a>, String> {
        let CheckKind::Http { expect, contains, matches, .. } = kind else {
            return Err("no HTTP".to_owned());
        };
        let matches = match matches {
            Some(pattern) => Some((&**pattern, Finder::new(pattern)?)),
            None => None,
        };
        Ok(Wanted { expect: *expect, contains: contains.as_deref(), matches })
    }

    fn status(&self, status: u16) -> Result<String, String> {
        let (first, last) = self.expect;
        match status {
            _ if (first..=last).contains(&status) => Ok(format!("status {status}")),
            _ if first == last => Err(format!("status {status}, expected {first}")),
            _ => Err(format!("status {status}, expected {first} to {last}")),
        }
    }

    fn contains(&self, body: &[u8]) -> bool {
        let has = |text: &str| body.windows(text.len()).any(|part| part == text.as_bytes());
        self.contains.is_none_or(has)
    }

    /// Whether what is wanted of the body is in what is here of it.
    fn is_in(&self, body: &[u8]) -> bool {
        self.contains(body) && self.matches.as_ref().is_none_or(|(_, finder)| finder.finds(body))
    }

    /// What the body lacks. `said`: what is said of the status.
    fn lacking(&self, said: &str, body: &[u8]) -> String {
        match (self.contains, &self.matches) {
            (Some(text), _) if !self.contains(body) => {
                format!("{said}, but the body does not contain \"{text}\"")
            }
            (_, Some((pattern, _))) => format!("{said}, but the body does not match \"{pattern}\""),
            (_, None) => said.to_owned(),
        }
    }
}

/// Asks by HTTP, and judges status and body.
async fn http(stream: &mut Io, request: &str, wanted: &Wanted<'_>) -> Result<String, String> {
    let (status, mut body) = ask(stream, request).await?;
    let said = wanted.status(status)?;
    while !wanted.is_in(&body) {
        let room = MAX_BODY.saturating_sub(body.len());
        match (&mut *stream).take(room as u64).read_buf(&mut body).await {
            Ok(0) => return Err(wanted.lacking(&said, &body)),
            Ok(_) => {}
            Err(error) => return Err(in_words(&error)),
        }
    }
    Ok(said)
}

/// The name that a server is asked by.
fn authority(host: Option<&str>, server: SocketAddr) -> String {
    match host {
        Some(host) => host.to_owned(),
        None if server.port() == 80 && server.is_ipv6() => format!("[{}]", server.ip()),
        None if server.port() == 80 => server.ip().to_string(),
        None => server.to_string(),
    }
}

fn request(kind: &CheckKind, server: SocketAddr) -> String {
    let CheckKind::Http { method, path, host, headers, body, .. } = kind else { return String::new() };
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: {}", authority(host.as_deref(), server));
    // Writing to a string cannot fail.
    for (name, value) in [("User-Agent", "relais-check"), ("Accept", "*/*")] {
        if !headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            let _ = write!(text, "\r\n{name}: {value}");
        }
    }
    for (name, value) in headers {
        let _ = write!(text, "\r\n{name}: {value}");
    }
    if let Some(body) = body {
        let _ = write!(text, "\r\nContent-Length: {}", body.len());
    } else if matches!(&**method, "POST" | "PUT") {
        text.push_str("\r\nContent-Length: 0");
    }
    text.push_str("\r\nConnection: close\r\n\r\n");
    text.push_str(body.as_deref().unwrap_or_default());
    text
}

/// The first line that an agent says, if it says one within `patience`.
pub(crate) async fn ask_agent(
    agent: SocketAddr,
    send: &str,
    patience: Duration,
) -> Result<AgentSaid, String> {
    let asked = async {
        let mut socket = TcpStream::connect(agent).await.map_err(|error| in_words(&error))?;
        socket.write_all(send.as_bytes()).await.map_err(|error| in_words(&error))?;
        let mut line = Vec::with_capacity(256);
        while !line.contains(&b'\n') && line.len() < MAX_LINE {
            let room = MAX_LINE - line.len();
            if (&mut socket).take(room as u64).read_buf(&mut line).await.map_err(|error| in_words(&error))?
                == 0
            {
                break;
            }
        }
        if line.is_empty() { Err("it said nothing".to_owned()) } else { Ok(relais_checks::agent(&line)) }
    };
    timeout(patience, asked).await.unwrap_or_else(|_| Err(format!("no answer within {}", Seconds(patience))))
}

/// Sends the request and reads heads until one is final; its status, and what came behind it.
async fn ask(stream: &mut Io, request: &str) -> Result<(u16, Vec<u8>), String> {
    stream.write_all(request.as_bytes()).await.map_err(|error| in_words(&error))?;
    let mut head = Vec::with_capacity(1024);
    let mut start = 0; // of the head being read; those before it were interim responses (RFC 9110 §15.2)
    loop {
        while let Some(length) = head[start..].windows(4).position(|end| end == b"\r\n\r\n") {
            match status(&head[start..start + length]).ok_or("not HTTP")? {
                status @ (101 | 200..) => return Ok((status, head.split_off(start + length + 4))),
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
        CheckKind::Http {
            path: "/healthz?deep=1".into(),
            host: None,
            expect: (first, last),
            method: "GET".into(),
            contains: None,
            matches: None,
            headers: Vec::new(),
            body: None,
        }
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
            let is_whole = |read: &[u8]| read.windows(4).any(|end| end == b"\r\n\r\n");
            while !is_whole(&request) && stream.read_buf(&mut request).await.unwrap() > 0 {}
            stream.write_all(&answer).await.unwrap();
            stream.shutdown().await.unwrap();
            let end = stream.read(&mut [0; 1]).await;
            (String::from_utf8(request).unwrap(), matches!(end, Ok(0)))
        });
        (address, task)
    }

    async fn found(answer: impl Into<Vec<u8>>) -> (bool, String) {
        let (address, _task) = serve(answer).await;
        let outcome = probe(&http(200, 200), address, Way::default(), b"", (LONG, LONG)).await;
        (outcome.ok, outcome.what)
    }

    fn said(ok: bool, what: &str) -> (bool, String) {
        (ok, what.to_owned())
    }

    #[tokio::test]
    async fn a_well_server_is_asked_politely_and_found_well() {
        let (address, task) = serve("HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok").await;
        let outcome = probe(&http(200, 399), address, Way::default(), b"", (LONG, LONG)).await;
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
        let host = |host: Option<&str>, server: &str| {
            let CheckKind::Http { expect, method, contains, matches, headers, body, .. } = http(200, 200)
            else {
                unreachable!()
            };
            let host = host.map(std::sync::Arc::from);
            let kind =
                CheckKind::Http { path: "/".into(), host, expect, method, contains, matches, headers, body };
            let text = request(&kind, server.parse().unwrap());
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
        let outcome = probe(&http(200, 399), address, Way::default(), b"", (LONG, LONG)).await;
        assert_eq!(outcome.what, "status 404, expected 200 to 399");
    }

    #[tokio::test]
    async fn a_body_has_to_contain_what_is_expected_of_it() {
        let found = async |answer: &str, text: &str| {
            let (address, _task) = serve(answer).await;
            let mut kind = http(200, 200);
            let CheckKind::Http { contains, .. } = &mut kind else { unreachable!() };
            *contains = Some(text.into());
            let outcome = probe(&kind, address, Way::default(), b"", (LONG, LONG)).await;
            (outcome.ok, outcome.what)
        };
        let answer = "HTTP/1.1 200 ok\r\nContent-Length: 17\r\n\r\n{\"status\": \"UP\"}";
        assert_eq!(found(answer, "\"UP\"").await, said(true, "status 200"));
        let why = "status 200, but the body does not contain \"DOWN\"";
        assert_eq!(found(answer, "DOWN").await, said(false, why));
        assert_eq!(found("HTTP/1.1 503 no\r\n\r\nUP", "UP").await, said(false, "status 503, expected 200"));
    }

    #[tokio::test]
    async fn a_check_says_what_the_file_has_it_say() {
        let text = r#"
            platform test
            node here { link "127.0.0.1"; }
            frontend web { bind "127.0.0.1:80"; default-backend app; }
            backend app {
                check http path="/deep" method=POST body="{\"ping\": 1}" matches="\"up\": *[0-9]+" expect=200 {
                    header Content-Type "application/json"
                    header Accept "application/json"
                }
                server one "127.0.0.1:81"
            }"#;
        let plan = relais_config::parse("test.kdl", text).unwrap().plan;
        let kind = &plan.backends[0].check.as_ref().unwrap().kind;
        let found = async |answer: &str| {
            let (address, task) = serve(answer).await;
            let outcome = probe(kind, address, Way::default(), b"", (LONG, LONG)).await;
            (outcome.what, task.await.unwrap().0)
        };
        let (what, asked) = found("HTTP/1.1 200 ok\r\n\r\n{\"up\":  31}").await;
        assert_eq!(what, "status 200");
        let (head, _) = asked.split_once("\r\n\r\n").unwrap();
        let lines: Vec<&str> = head.lines().filter(|line| !line.starts_with("Host: ")).collect();
        let expected = [
            "POST /deep HTTP/1.1",
            "User-Agent: relais-check",
            "Content-Type: application/json",
            "Accept: application/json",
            "Content-Length: 11",
            "Connection: close",
        ];
        assert_eq!(lines, expected);
        let (what, _) = found("HTTP/1.1 200 ok\r\n\r\n{\"up\": no}").await;
        assert_eq!(what, "status 200, but the body does not match \"\"up\": *[0-9]+\"");
    }

    #[tokio::test]
    async fn a_server_that_speaks_http2_is_asked_over_http2() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let mut asked = Vec::new();
            for status in [200, 200, 503] {
                let (socket, _) = listener.accept().await.unwrap();
                let mut connection = h2::server::handshake(socket).await.unwrap();
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                let driver = tokio::spawn(async move { while connection.accept().await.is_some() {} });
                let said =
                    (request.method().to_string(), request.uri().to_string(), request.headers().clone());
                let mut body = request.into_body();
                let sent = body.data().await.map(|data| data.unwrap()).unwrap_or_default();
                asked.push((said, sent));
                let head = http::Response::builder().status(status).body(()).unwrap();
                let mut stream = respond.send_response(head, false).unwrap();
                stream.send_data(bytes::Bytes::from_static(b"{\"up\""), false).unwrap();
                stream.send_data(bytes::Bytes::from_static(b": true}"), true).unwrap();
                let _ = driver.await;
            }
            asked
        });
        let way = Way { http2: true, ..Way::default() };
        let found = async |kind: &CheckKind| {
            let outcome = probe(kind, address, way, b"", (LONG, LONG)).await;
            (outcome.ok, outcome.what)
        };
        assert_eq!(found(&http(200, 200)).await, said(true, "status 200"));
        let mut kind = http(200, 200);
        let CheckKind::Http { contains, method, body, headers, host, .. } = &mut kind else { unreachable!() };
        (*contains, *method, *body) = (Some("\"up\": false".into()), "POST".into(), Some("ping".into()));
        (*headers, *host) = (vec![("Accept".into(), "text/x".into())], Some("a.example".into()));
        let lacks = "status 200, but the body does not contain \"\"up\": false\"";
        assert_eq!(found(&kind).await, said(false, lacks));
        assert_eq!(found(&http(200, 200)).await, said(false, "status 503, expected 200"));
        let asked = server.await.unwrap();
        let ((method, uri, fields), _) = &asked[0];
        assert_eq!((&**method, &**uri), ("GET", &*format!("http://{address}/healthz?deep=1")));
        assert_eq!(fields["user-agent"], "relais-check");
        let ((method, uri, fields), sent) = &asked[1];
        assert_eq!((&**method, &**uri), ("POST", "http://a.example/healthz?deep=1"));
        assert_eq!(
            (&fields["accept"], &fields["content-length"]),
            (&"text/x".parse().unwrap(), &"4".parse().unwrap())
        );
        assert_eq!(&sent[..], b"ping");
        // One that speaks HTTP/1.1 alone is found so.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            while stream.read(&mut [0; 512]).await.is_ok_and(|n| n > 0) {}
        });
        let outcome = probe(&http(200, 200), address, way, b"", (LONG, LONG)).await;
        assert_eq!((outcome.ok, &*outcome.what), (false, "not HTTP/2"));
    }

    #[tokio::test]
    async fn a_grpc_server_is_asked_over_http2() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move {
            let (socket, _) = listener.accept().await.unwrap();
            let mut connection = h2::server::handshake(socket).await.unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let driver = tokio::spawn(async move { while connection.accept().await.is_some() {} });
            let uri = request.uri().to_string();
            let fields = request.headers().clone();
            let mut body = request.into_body();
            let asked = body.data().await.unwrap().unwrap();
            let head = http::Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x02\x08\x01"), false).unwrap();
            let mut trailers = http::HeaderMap::new();
            trailers.insert("grpc-status", "0".parse().unwrap());
            stream.send_trailers(trailers).unwrap();
            let _ = driver.await;
            (uri, fields, asked)
        });
        let kind = CheckKind::Grpc { service: "a.B".into(), host: "a.example".into() };
        let outcome = probe(&kind, address, Way::default(), b"", (LONG, LONG)).await;
        assert_eq!((outcome.ok, &*outcome.what), (true, "SERVING"));
        let (uri, fields, asked) = server.await.unwrap();
        assert_eq!(uri, "http://a.example/grpc.health.v1.Health/Check");
        assert_eq!(
            (&fields["content-type"], &fields["te"]),
            (&"application/grpc".parse().unwrap(), &"trailers".parse().unwrap())
        );
        assert_eq!(&asked[..], b"\0\0\0\0\x05\x0a\x03a.B");
    }

    #[tokio::test]
    async fn a_tls_check_sees_whether_tls_is_spoken() {
        let tls = CheckKind::Tls { sni: Some("a.example".into()) };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let key = rcgen::generate_simple_self_signed(["a.example".to_owned()]).unwrap();
        let certificate = vec![key.cert.der().clone()];
        let private = rustls::pki_types::PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
        let config =
            rustls::ServerConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into());
        let config =
            config.with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12]).unwrap();
        let config =
            std::sync::Arc::new(config.with_no_client_auth().with_single_cert(certificate, private).unwrap());
        let server = tokio::task::spawn_blocking(move || {
            let listener = listener.into_std().unwrap();
            listener.set_nonblocking(false).unwrap();
            let (mut stream, _) = listener.accept().unwrap();
            let mut session = rustls::ServerConnection::new(config).unwrap();
            session.complete_io(&mut stream).err().map(|error| error.to_string())
        });
        let outcome = probe(&tls, address, Way::default(), b"", (LONG, LONG)).await;
        assert_eq!((outcome.ok, &*outcome.what), (true, "ServerHello"));
        server.await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let hello = stream.read(&mut [0; 512]).await.unwrap();
            assert!(hello > 100);
            stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await.unwrap();
            let _ = stream.read(&mut [0; 1]).await; // until it has been read
        });
        let outcome = probe(&tls, address, Way::default(), b"", (LONG, LONG)).await;
        assert_eq!((outcome.ok, &*outcome.what), (false, "not TLS"));
        assert_eq!(sha1(&[b"a", b"bc"])[..4], [0xa9, 0x99, 0x3e, 0x36]);
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
        let outcome = probe(&http(200, 200), address, Way::default(), b"", (LONG, SHORT)).await;
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
        let outcome = probe(&CheckKind::Tcp, address, Way::default(), b"", (SHORT, LONG)).await;
        assert_eq!((outcome.ok, &*outcome.what), (false, "no connection within 30 ms"));
    }

    #[tokio::test]
    async fn a_closed_port_is_a_refused_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        let outcome = probe(&CheckKind::Tcp, address, Way::default(), b"", (LONG, LONG)).await;
        assert_eq!((outcome.ok, &*outcome.what), (false, "connection refused"));
    }

    #[tokio::test]
    async fn a_tcp_check_ends_with_a_reset() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let outcome = probe(&CheckKind::Tcp, address, Way::default(), b"", (LONG, LONG)).await;
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
