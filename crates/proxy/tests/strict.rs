//! HTTP/1 requests, one a line in `strict.jsonl`: what must be refused, what must pass, and what of it the
//! server may see. The file has the form of the torture suite, so that `h1-torture.py` runs it too.
//!
//! The judge here is another one: `httparse` reads what the server got, and everything that would let a second
//! parser see something else is a finding. `expected` is `reject`, `accept` or `either`; `absent` and
//! `present` are patterns of what reached the server; `why` names the RFC and its section.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Read;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use regex_lite::Regex;
use serde_json::Value;

/// What reached the server on one connection.
type Note = Arc<Mutex<Vec<u8>>>;
/// And on all of them.
type Seen = Arc<Mutex<Vec<Note>>>;

/// A server that notes every byte, answers what is complete, and closes.
fn recorder() -> (SocketAddr, Seen) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let notes = seen.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (stream, note) = (stream.unwrap(), Note::default());
            notes.lock().unwrap().push(note.clone());
            std::thread::spawn(move || record(stream, &note));
        }
    });
    (address, seen)
}

fn record(mut stream: TcpStream, note: &Note) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut piece = [0; 65536];
    let mut answered = false;
    while let Ok(n @ 1..) = stream.read(&mut piece) {
        let bytes = {
            let mut note = note.lock().unwrap();
            note.extend_from_slice(&piece[..n]);
            note.clone()
        };
        if answered {
            continue;
        }
        if let Ok(judged) = judge(&bytes)
            && judged.whole > 0
        {
            let body = if bytes.starts_with(b"HEAD ") { "" } else { "ok" };
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{body}");
            let _ = std::io::Write::write_all(&mut stream, answer.as_bytes());
            let _ = stream.shutdown(Shutdown::Write);
            answered = true;
        }
    }
}

/// What a strict reader finds on a connection to the server.
#[derive(Default)]
struct Judged {
    /// Complete requests.
    whole: usize,
    /// Requests begun.
    begun: usize,
    /// The first one's body, decoded.
    body: Vec<u8>,
}

/// Reads the requests of a connection, or says what in them could be read in two ways.
fn judge(bytes: &[u8]) -> Result<Judged, String> {
    let mut judged = Judged::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        judged.begun += 1;
        let mut fields = [httparse::EMPTY_HEADER; 256];
        let mut request = httparse::Request::new(&mut fields);
        let length = match request.parse(rest) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(judged),
            Err(error) => return Err(format!("a second parser says {error}")),
        };
        let head = &rest[..length];
        let lines = head.split(|&b| b == b'\n').filter(|line| line.last() != Some(&b'\r'));
        if lines.filter(|line| !line.is_empty()).count() > 0 || head.starts_with(b"\r\n") {
            return Err("a line without CR, or an empty one first".into());
        }
        let values = |name: &str| -> Vec<&[u8]> {
            let named = request.headers.iter().filter(|f| f.name.eq_ignore_ascii_case(name));
            named.map(|f| f.value).collect()
        };
        let (lengths, codings) = (values("content-length"), values("transfer-encoding"));
        if values("host").len() != 1 {
            return Err(format!("{} Host fields", values("host").len()));
        }
        rest = &rest[length..];
        let body = match (&lengths[..], &codings[..]) {
            ([], []) => Some((Vec::new(), 0)),
            ([digits], []) if digits.iter().all(u8::is_ascii_digit) && (1..=19).contains(&digits.len()) => {
                let n: usize = std::str::from_utf8(digits).unwrap().parse().map_err(|_| "a huge length")?;
                rest.get(..n).map(|body| (body.to_vec(), n))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") && request.version == Some(1) => {
                dechunk(rest)?
            }
            _ => return Err(format!("framed by lengths {lengths:?} and codings {codings:?}")),
        };
        let Some((body, used)) = body else { return Ok(judged) };
        rest = &rest[used..];
        judged.whole += 1;
        if judged.whole == 1 {
            judged.body = body;
        }
    }
    Ok(judged)
}

/// The data of a chunked body and the length of all of it; `None` while it is not complete.
fn dechunk(bytes: &[u8]) -> Result<Option<(Vec<u8>, usize)>, String> {
    let (mut data, mut pos) = (Vec::new(), 0);
    loop {
        let (line, size) = match httparse::parse_chunk_size(&bytes[pos..]) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err("a second parser refuses a chunk size".into()),
        };
        let text = &bytes[pos..pos + line - 2];
        if !text.iter().all(u8::is_ascii_hexdigit) || text.len() > 16 {
            return Err(format!("a chunk size {:?}", String::from_utf8_lossy(text)));
        }
        pos += line;
        if size == 0 {
            break;
        }
        let end = pos + usize::try_from(size).unwrap();
        let Some(chunk) = bytes.get(pos..end) else { return Ok(None) };
        data.extend_from_slice(chunk);
        match bytes.get(end..end + 2) {
            None => return Ok(None),
            Some(b"\r\n") => pos = end + 2,
            Some(other) => return Err(format!("{other:?} behind a chunk")),
        }
    }
    let mut fields = [httparse::EMPTY_HEADER; 2048];
    match httparse::parse_headers(&bytes[pos..], &mut fields) {
        Ok(httparse::Status::Complete((length, _))) => Ok(Some((data, pos + length))),
        Ok(httparse::Status::Partial) => Ok(None),
        Err(error) => Err(format!("a second parser says of a trailer: {error}")),
    }
}

/// The final status codes on the client's side.
fn statuses(mut bytes: &[u8], head_first: bool) -> Vec<u16> {
    let mut found = Vec::new();
    while !bytes.is_empty() {
        let mut fields = [httparse::EMPTY_HEADER; 64];
        let mut response = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = response.parse(bytes) else { break };
        let status = response.code.unwrap();
        bytes = &bytes[length..];
        if status < 200 {
            continue;
        }
        let body = response.headers.iter().find(|f| f.name.eq_ignore_ascii_case("content-length"));
        let body = body.map_or(0, |f| std::str::from_utf8(f.value).unwrap().parse().unwrap());
        found.push(status);
        if !(head_first && found.len() == 1) {
            bytes = &bytes[body.min(bytes.len())..];
        }
    }
    found
}

/// What the client saw of a case.
struct Outcome {
    statuses: Vec<u16>,
    closed: bool,
    hung: bool,
}

fn play(case: &Value, raw: &[u8], door: SocketAddr) -> Outcome {
    let mut stream = TcpStream::connect(door).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    let piece = case["split"].as_u64().map_or(raw.len().max(1), |n| n as usize);
    for part in raw.chunks(piece) {
        // A refusal may come before all is sent.
        if std::io::Write::write_all(&mut stream, part).is_err() {
            break;
        }
    }
    if case["shut"] == true {
        let _ = stream.shutdown(Shutdown::Write);
    }
    let wanted = case["responses"].as_u64().unwrap_or(1) as usize;
    let must_close = case["must_close"] == true;
    let until = Instant::now() + PATIENCE;
    let (mut got, mut buffer) = (Vec::new(), [0; 65536]);
    let mut outcome = Outcome { statuses: Vec::new(), closed: false, hung: false };
    loop {
        outcome.statuses = statuses(&got, raw.starts_with(b"HEAD "));
        if outcome.statuses.len() >= wanted && !must_close {
            return outcome;
        }
        if Instant::now() > until {
            outcome.hung = outcome.statuses.is_empty();
            return outcome;
        }
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => got.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    outcome.closed = true;
    outcome
}

/// What is wrong with what became of a case.
fn verdict(case: &Value, outcome: &Outcome, streams: &[Vec<u8>]) -> Vec<String> {
    let mut faults = Vec::new();
    let (mut whole, mut begun, mut body) = (0, 0, None);
    for stream in streams {
        match judge(stream) {
            Ok(judged) => {
                begun += judged.begun;
                whole += judged.whole;
                body = body.or((judged.whole > 0).then_some(judged.body));
            }
            Err(fault) => faults.push(format!("the server got what can be read in two ways: {fault}")),
        }
    }
    let refused = outcome.statuses.first().map_or(outcome.closed, |status| *status >= 400);
    let most = case["max_req"].as_u64().unwrap_or(1) as usize;
    if outcome.hung {
        faults.push("no answer".into());
    }
    if begun > most {
        faults.push(format!("the server got {begun} requests"));
    }
    match case["expected"].as_str().unwrap() {
        "reject" if !refused => faults.push("it was taken".into()),
        "reject" if whole > 0 => faults.push("it was refused, and the server got it complete".into()),
        "accept" if refused => faults.push("it was refused".into()),
        _ => {}
    }
    let all: Vec<u8> = streams.concat();
    let all: String = all.iter().map(|b| char::from(*b)).collect();
    let patterns = |key: &str| -> Vec<String> {
        let list = case[key].as_array().cloned().unwrap_or_default();
        list.iter().map(|p| p.as_str().unwrap().to_owned()).collect()
    };
    let found = |pattern: &String| Regex::new(pattern).unwrap().is_match(&all);
    faults.extend(patterns("absent").iter().filter(|p| found(p)).map(|p| format!("the server got {p}")));
    if !refused {
        let missing = patterns("present").into_iter().filter(|p| !streams.is_empty() && !found(p));
        faults.extend(missing.map(|p| format!("the server did not get {p}")));
        if let (Some(wanted), Some(body)) = (case["body"].as_str(), &body)
            && latin1(wanted) != *body
        {
            faults.push(format!("the body is {:?}", String::from_utf8_lossy(body)));
        }
        if case["responses"].as_u64().is_some_and(|n| n as usize != outcome.statuses.len()) {
            faults.push(format!("the answers are {:?}", outcome.statuses));
        }
    }
    if case["must_close"] == true && !outcome.closed {
        faults.push("the connection stays open".into());
    }
    faults
}

/// A case's text stands for bytes, a character each.
fn latin1(text: &str) -> Vec<u8> {
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect()
}

#[test]
fn every_request_is_forwarded_with_one_reading_or_refused_as_its_rfc_says() {
    let (server, seen) = recorder();
    let door = Door::new(1);
    let front = "timeout request=\"5s\" client=\"5s\" keep-alive=\"5s\"\n forwarded-for";
    let _proxy = Proxy::start(&plan(&door, front, "timeout server=\"5s\"", &[server]), &[&door]);
    let mut bad = Vec::new();
    let cases = include_str!("strict.jsonl").lines();
    for (number, line) in cases.enumerate() {
        let case: Value = serde_json::from_str(line).unwrap();
        let raw = latin1(case["raw"].as_str().unwrap());
        seen.lock().unwrap().clear();
        let outcome = play(&case, &raw, door.address);
        // The proxy's one worker has seen all that came before once it has forwarded this.
        let mut marker = Peer::connect(door.address);
        marker.send(format!("GET /marker HTTP/1.1\r\nHost: h\r\nX-Case: {number}\r\n\r\n"));
        marker.head();
        let streams = std::mem::take(&mut *seen.lock().unwrap());
        let streams = streams.iter().map(|note| note.lock().unwrap().clone());
        let streams: Vec<_> = streams.filter(|s| !s.is_empty() && !s.starts_with(b"GET /marker ")).collect();
        let faults = verdict(&case, &outcome, &streams);
        if !faults.is_empty() {
            bad.push(format!(
                "{} ({}, {}): {faults:?}; answers {:?}",
                case["name"], case["expected"], case["why"], outcome.statuses
            ));
        }
    }
    assert!(bad.is_empty(), "{} cases:\n{}", bad.len(), bad.join("\n"));
}
