//! One line: the parts of a compiled format, filled in. Allocates nothing, and lets nothing that a client or a
//! server sent end a line or a field early.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};

use relais_config::plan::{Capture, LogField, LogPart, LogStyle};

use super::{Dates, Entry, Kind};
use crate::limits;

/// A field's value, before it is written in a style.
enum Value<'a> {
    /// Nothing that a plain line would show, and `null`.
    None,
    /// Nothing, which a plain line shows as this, and `null`.
    Mark(&'static str),
    /// Not from outside: needs no escaping.
    Plain(&'a [u8]),
    /// From outside.
    Foreign(&'a [u8], Map),
    Number(i64),
    Bool(bool),
    Ip(IpAddr),
    /// Written by a function: a date or a list.
    Made(fn(&Entry<'_>, &mut Vec<u8>, &mut Dates)),
}

/// What is escaped beside everything that is not printable ASCII.
#[derive(Clone, Copy)]
enum Map {
    /// `"` and `#`, as HAProxy does in a URL.
    Url,
    /// Also `{`, `|` and `}`, which captured headers stand between.
    Header,
}

impl Entry<'_> {
    pub(super) fn write(&self, parts: &[LogPart], out: &mut Vec<u8>, dates: &mut Dates) {
        for part in parts {
            match part {
                LogPart::Text(text) => out.extend_from_slice(text.as_bytes()),
                LogPart::Field { field, style } => match style {
                    LogStyle::Plain => self.plain(field, out, dates),
                    LogStyle::Quoted => self.quoted(field, out, dates),
                    LogStyle::Json => self.json(field, out, dates),
                },
            }
        }
    }

    fn plain(&self, field: &LogField, out: &mut Vec<u8>, dates: &mut Dates) {
        match self.value(field) {
            Value::None => {}
            Value::Mark(text) => out.extend_from_slice(text.as_bytes()),
            Value::Plain(text) => out.extend_from_slice(text),
            Value::Foreign(text, map) => escaped(out, text, map),
            Value::Number(n) => signed(out, n),
            Value::Bool(b) => out.push(if b { b'1' } else { b'0' }),
            Value::Ip(address) => ip(out, address),
            Value::Made(make) => make(self, out, dates),
        }
    }

    /// As HAProxy's `+Q`: texts and addresses, but no numbers, dates or states; an empty text is `""`.
    fn quoted(&self, field: &LogField, out: &mut Vec<u8>, dates: &mut Dates) {
        let text = match self.value(field) {
            Value::Number(_) | Value::Bool(_) => false,
            Value::Made(_) => matches!(
                field,
                LogField::FrontendTls
                    | LogField::Hostname
                    | LogField::RequestCaptures
                    | LogField::ResponseCaptures
            ),
            Value::Plain(_) => *field != LogField::State,
            Value::None | Value::Mark(_) | Value::Foreign(..) | Value::Ip(_) => true,
        };
        if !text {
            return self.plain(field, out, dates);
        }
        out.push(b'"');
        if !matches!(self.value(field), Value::Mark("-")) {
            self.plain(field, out, dates);
        }
        out.push(b'"');
    }

    fn json(&self, field: &LogField, out: &mut Vec<u8>, dates: &mut Dates) {
        match field {
            LogField::RequestCaptures => {
                return self.list(out, self.request_captures, |entry, i, out| {
                    entry.captured_request(i).map(|v| json_text(out, v))
                });
            }
            LogField::ResponseCaptures => {
                return self.list(out, self.response_captures, |entry, i, out| {
                    entry.captured_response(i).map(|v| json_text(out, v))
                });
            }
            _ => {}
        }
        match self.value(field) {
            Value::None | Value::Mark(_) => out.extend_from_slice(b"null"),
            Value::Plain(text) | Value::Foreign(text, _) => json_text(out, text),
            Value::Number(n) if n < 0 => out.extend_from_slice(b"null"),
            Value::Number(n) => signed(out, n),
            Value::Bool(b) => out.extend_from_slice(if b { b"true" } else { b"false" }),
            Value::Ip(address) => {
                out.push(b'"');
                ip(out, address);
                out.push(b'"');
            }
            Value::Made(make) => {
                out.push(b'"');
                make(self, out, dates);
                out.push(b'"');
            }
        }
    }

    fn list(
        &self,
        out: &mut Vec<u8>,
        captures: &[Capture],
        write: impl Fn(&Self, usize, &mut Vec<u8>) -> Option<()>,
    ) {
        out.push(b'{');
        for (i, capture) in captures.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            json_text(out, capture.name.as_bytes());
            out.push(b':');
            if write(self, i, out).is_none() {
                out.extend_from_slice(b"null");
            }
        }
        out.push(b'}');
    }

    fn value(&self, field: &LogField) -> Value<'_> {
        let times = &self.times;
        let port = |address: Option<SocketAddr>| match address {
            Some(address) => Value::Number(i64::from(address.port())),
            None => Value::Mark("-"),
        };
        let address = |address: Option<SocketAddr>| match address {
            Some(address) => Value::Ip(address.ip()),
            None => Value::Mark("-"),
        };
        let count = |n: u32| Value::Number(i64::from(n));
        match field {
            LogField::Nothing => Value::Mark("-"),
            LogField::Hostname => Value::Made(|_, out, dates| out.extend_from_slice(&dates.hostname)),
            LogField::Pid => Value::Made(|_, out, dates| number(out, u64::from(dates.pid))),
            LogField::ClientIp => Value::Ip(self.client.ip()),
            LogField::ClientPort => count(self.client.port().into()),
            LogField::FrontendIp => address(self.local),
            LogField::FrontendPort => port(self.local),
            LogField::ServerIp => address(self.server.map(|(_, address)| address)),
            LogField::ServerPort => port(self.server.map(|(_, address)| address)),
            LogField::Frontend => Value::Plain(self.frontend.as_bytes()),
            LogField::FrontendTls => Value::Made(|entry, out, _| {
                out.extend_from_slice(entry.frontend.as_bytes());
                if entry.tls {
                    out.push(b'~');
                }
            }),
            LogField::IsTls => Value::Bool(self.tls),
            LogField::Backend => Value::Plain(self.backend.as_bytes()),
            LogField::Server => match self.server {
                Some((name, _)) => Value::Plain(name.as_bytes()),
                None => Value::Mark("<NOSRV>"),
            },
            LogField::DateAccept => Value::Made(|entry, out, dates| date(out, dates, entry.accepted_ms())),
            LogField::DateRequest => Value::Made(|entry, out, dates| date(out, dates, entry.date_ms)),
            LogField::DateRequestGmt => Value::Made(|entry, out, dates| {
                out.extend_from_slice(&dates.at(entry.date_ms).gmt);
            }),
            LogField::DateGmt => Value::Made(|entry, out, dates| {
                out.extend_from_slice(&dates.at(entry.accepted_ms()).gmt);
            }),
            LogField::DateRequestLocal => Value::Made(|entry, out, dates| local(out, dates, entry.date_ms)),
            LogField::DateLocal => Value::Made(|entry, out, dates| local(out, dates, entry.accepted_ms())),
            LogField::DateIso => Value::Made(|entry, out, dates| iso(out, dates, entry.date_ms)),
            LogField::DateSyslog => Value::Made(|entry, out, dates| iso(out, dates, entry.now_ms())),
            LogField::DateSyslogOld => Value::Made(|entry, out, dates| {
                out.extend_from_slice(&dates.at(entry.now_ms()).bsd);
            }),
            LogField::Seconds => Value::Number((self.accepted_ms() / 1000) as i64),
            LogField::Milliseconds => Value::Made(|entry, out, _| three(out, entry.accepted_ms())),
            LogField::TimeHandshake => Value::Number(0),
            LogField::TimeIdle => Value::Number(times.idle),
            LogField::TimeRequest => Value::Number(times.request),
            LogField::TimeQueue => Value::Number(times.queue),
            LogField::TimeConnect => Value::Number(times.connect),
            LogField::TimeResponse => Value::Number(times.response),
            LogField::TimeData => Value::Number(match times.response {
                -1 => -1,
                response => {
                    let before = times.request.max(0) + times.queue.max(0) + times.connect.max(0) + response;
                    (times.total - before).max(0)
                }
            }),
            LogField::TimeActive | LogField::TimeUser => Value::Number(times.total),
            LogField::TimeAll => {
                Value::Number(if times.request < 0 { -1 } else { times.idle.max(0) + times.request })
            }
            LogField::TimeTotal => Value::Number(times.idle.max(0) + times.total),
            LogField::BytesOut => Value::Number(self.bytes_out as i64),
            LogField::BytesIn => Value::Number(self.bytes_in as i64),
            LogField::State => Value::Plain(&self.state),
            LogField::StateCookie => Value::Made(|entry, out, _| {
                out.extend_from_slice(&entry.state);
                out.extend_from_slice(&entry.cookie);
            }),
            LogField::SessionsProcess => count(self.sessions.process),
            LogField::SessionsFrontend => count(self.sessions.frontend),
            LogField::SessionsBackend => count(self.sessions.backend),
            LogField::SessionsServer => count(self.sessions.server),
            LogField::Retries => Value::Made(|entry, out, _| {
                if entry.redispatched {
                    out.push(b'+');
                }
                number(out, u64::from(entry.retries));
            }),
            LogField::RetryCount => count(self.retries),
            LogField::IsRedispatched => Value::Bool(self.redispatched),
            LogField::QueueServer => count(self.server_queue),
            LogField::QueueBackend => count(self.backend_queue),
            LogField::RequestCaptures => Value::Made(|entry, out, _| {
                braces(out, entry.request_captures, |i| entry.captured_request(i));
            }),
            LogField::ResponseCaptures => Value::Made(|entry, out, _| {
                braces(out, entry.response_captures, |i| entry.captured_response(i));
            }),
            LogField::RequestCaptureList => Value::Made(|entry, out, _| {
                quoted_list(out, entry.request_captures, |i| entry.captured_request(i));
            }),
            LogField::ResponseCaptureList => Value::Made(|entry, out, _| {
                quoted_list(out, entry.response_captures, |i| entry.captured_response(i));
            }),
            message => self.message_value(message),
        }
    }

    /// What only a request has.
    fn message_value(&self, field: &LogField) -> Value<'_> {
        let Kind::Http { status, line, head } = self.kind else { return Value::Mark("-") };
        fn foreign(text: Option<&[u8]>) -> Value<'_> {
            match text {
                Some(text) => Value::Foreign(text, Map::Url),
                None => Value::Mark("-"),
            }
        }
        match field {
            LogField::Status if status == 0 => Value::Number(-1),
            LogField::Status => Value::Number(i64::from(status)),
            LogField::RequestId if self.request_id.is_empty() => Value::Mark("-"),
            LogField::RequestId => Value::Foreign(self.request_id, Map::Header),
            LogField::Traceparent if self.traceparent.is_empty() => Value::Mark("-"),
            LogField::Traceparent => Value::Foreign(self.traceparent, Map::Header),
            LogField::RequestHeader(name) => foreign(find_field(head, name)),
            LogField::Host => foreign(find_field(head, "host")),
            LogField::RequestLine => match line {
                Some(line) => Value::Foreign(line, Map::Url),
                None => Value::Mark("<BADREQ>"),
            },
            LogField::Method | LogField::Path | LogField::Query | LogField::Target | LogField::Version => {
                let Some(line) = line else { return Value::Mark("<BADREQ>") };
                let mut words = line.splitn(3, |&b| b == b' ');
                let (method, target, version) =
                    (words.next(), words.next().unwrap_or_default(), words.next());
                let question = target.iter().position(|&b| b == b'?');
                match field {
                    LogField::Method => foreign(method),
                    LogField::Target => foreign(Some(target)),
                    LogField::Path => foreign(Some(&target[..question.unwrap_or(target.len())])),
                    LogField::Query => match question {
                        Some(at) => foreign(Some(&target[at..])),
                        None => Value::None,
                    },
                    _ => foreign(version),
                }
            }
            _ => Value::Mark("-"),
        }
    }

    fn captured_request(&self, index: usize) -> Option<&[u8]> {
        let Kind::Http { head, .. } = self.kind else { return None };
        let capture = self.request_captures.get(index)?;
        let value = find_field(head, &capture.name)?;
        Some(&value[..value.len().min(usize::from(capture.length))])
    }

    fn captured_response(&self, index: usize) -> Option<&[u8]> {
        Some(self.noted.get(index)).filter(|value| !value.is_empty())
    }

    /// When the connection came, or the request before was done.
    fn accepted_ms(&self) -> u64 {
        self.date_ms.saturating_sub(self.times.idle.max(0) as u64)
    }

    fn now_ms(&self) -> u64 {
        self.date_ms + self.times.total.max(0) as u64
    }
}

fn braces<'a>(out: &mut Vec<u8>, captures: &[Capture], get: impl Fn(usize) -> Option<&'a [u8]>) {
    out.push(b'{');
    for i in 0..captures.len() {
        if i > 0 {
            out.push(b'|');
        }
        escaped(out, get(i).unwrap_or_default(), Map::Header);
    }
    out.push(b'}');
}

fn quoted_list<'a>(out: &mut Vec<u8>, captures: &[Capture], get: impl Fn(usize) -> Option<&'a [u8]>) {
    for i in 0..captures.len() {
        out.extend_from_slice(if i > 0 { b" \"" } else { b"\"" });
        escaped(out, get(i).unwrap_or_default(), Map::Header);
        out.push(b'"');
    }
}

/// The value of the last field of this (lower-case) name in a head.
pub(crate) fn find_field<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let name = name.as_bytes();
    let mut found = None;
    let mut rest = head;
    while let Some(end) = rest.iter().position(|&b| b == b'\n') {
        let line = &rest[..end];
        rest = &rest[end + 1..];
        if line.len() > name.len()
            && line[name.len()] == b':'
            && line[..name.len()].eq_ignore_ascii_case(name)
        {
            let value = line[name.len() + 1..].strip_suffix(b"\r").unwrap_or(&line[name.len() + 1..]);
            found = Some(relais_http::field::trim(value));
        }
    }
    found
}

/// As HAProxy: what is not printable, and what would end a field, as `#` and two hexadecimal digits.
fn escaped(out: &mut Vec<u8>, text: &[u8], map: Map) {
    let text = &text[..text.len().min(limits::LOG_LINE_BYTES)];
    let plain = |b: u8| {
        (0x20..0x7f).contains(&b)
            && match map {
                Map::Url => !matches!(b, b'"' | b'#'),
                Map::Header => !matches!(b, b'"' | b'#' | b'{' | b'|' | b'}'),
            }
    };
    if text.iter().all(|b| plain(*b)) {
        return out.extend_from_slice(text);
    }
    for &byte in text {
        if plain(byte) {
            out.push(byte);
        } else {
            let digit = |n: u8| b"0123456789ABCDEF"[usize::from(n)];
            out.extend_from_slice(&[b'#', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// A JSON string (RFC 8259 §7). What is not UTF-8 becomes U+FFFD, as a JSON text has to be UTF-8 whole.
fn json_text(out: &mut Vec<u8>, text: &[u8]) {
    let text = &text[..text.len().min(limits::LOG_LINE_BYTES)];
    out.push(b'"');
    if text.iter().all(|b| (0x20..0x7f).contains(b) && !matches!(b, b'"' | b'\\')) {
        out.extend_from_slice(text);
    } else {
        for chunk in text.utf8_chunks() {
            for &byte in chunk.valid().as_bytes() {
                match byte {
                    b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                    0..0x20 | 0x7f => {
                        let digit = |n: u8| b"0123456789abcdef"[usize::from(n)];
                        out.extend_from_slice(b"\\u00");
                        out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
                    }
                    _ => out.push(byte),
                }
            }
            if !chunk.invalid().is_empty() {
                out.extend_from_slice(b"\\ufffd");
            }
        }
    }
    out.push(b'"');
}

fn date(out: &mut Vec<u8>, dates: &mut Dates, ms: u64) {
    out.extend_from_slice(&dates.at(ms).local);
    out.push(b'.');
    three(out, ms);
}

fn local(out: &mut Vec<u8>, dates: &mut Dates, ms: u64) {
    let second = dates.at(ms);
    out.extend_from_slice(&second.local);
    out.push(b' ');
    out.extend_from_slice(&second.offset);
}

fn iso(out: &mut Vec<u8>, dates: &mut Dates, ms: u64) {
    let second = dates.at(ms);
    out.extend_from_slice(&second.iso);
    out.push(b'.');
    three(out, ms);
    out.extend_from_slice(&second.iso_offset);
}

/// The milliseconds of a second, three digits.
fn three(out: &mut Vec<u8>, ms: u64) {
    let ms = ms % 1000;
    out.extend_from_slice(&[b'0' + (ms / 100) as u8, b'0' + (ms / 10 % 10) as u8, b'0' + (ms % 10) as u8]);
}

/// `n` in decimal digits.
pub(crate) fn number(out: &mut Vec<u8>, mut n: u64) {
    if n < 10 {
        // Most of an access line's numbers: times of a fast answer, counts, retries.
        out.push(b'0' + n as u8);
        return;
    }
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

/// An address as text; an IPv4 address that came as IPv6 as the IPv4 address it is.
pub(crate) fn ip(out: &mut Vec<u8>, ip: IpAddr) {
    match ip.to_canonical() {
        IpAddr::V4(v4) => {
            let [a, b, c, d] = v4.octets();
            for (octet, end) in [(a, true), (b, true), (c, true), (d, false)] {
                number(out, u64::from(octet));
                if end {
                    out.push(b'.');
                }
            }
        }
        IpAddr::V6(v6) => {
            let _ = write!(out, "{v6}");
        }
    }
}
