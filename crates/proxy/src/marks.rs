//! What a request is marked with on its way: `Forwarded` (RFC 7239), a request id, a trace (W3C Trace Context).
//!
//! Made once a request, when its head is understood, and the same for every attempt; frontends without any of
//! it pay one branch. What clients sent under these names is taken out where it is not to be believed.

use std::io::Write;
use std::net::IpAddr;

use relais_base::Rng;
use relais_config::plan::{Cidr, Forwarded, Frontend, Marking, StartTrace};
use relais_http::field;

use crate::access;

/// Longest request id that is taken from a client, bytes.
const LONGEST_ID: usize = 128;
/// Bytes of a `traceparent` of version 00.
const TRACEPARENT: usize = 55;

/// The marks of one request.
#[derive(Default)]
pub(crate) struct Marks {
    /// Field lines that are added on the way to the server.
    lines: Vec<u8>,
    /// Lower-case names whose lines are taken out before.
    strip: Vec<Box<str>>,
    /// Empty if there is none.
    pub(crate) request_id: Vec<u8>,
    /// Empty if there is none.
    pub(crate) traceparent: Vec<u8>,
    /// The line that tells the client its id, and the field's lower-case name.
    answer: Option<(Vec<u8>, Box<str>)>,
}

/// What marks are made from.
pub(crate) struct Seen<'a> {
    /// The head as received.
    pub(crate) head: &'a [u8],
    pub(crate) host: Option<&'a [u8]>,
    pub(crate) client: IpAddr,
    /// Port that the client connected to.
    pub(crate) port: Option<u16>,
    /// `http` or `https`.
    pub(crate) scheme: &'static str,
    /// Whether `X-Forwarded-*` are set for this client.
    pub(crate) x_forwarded: bool,
    /// Milliseconds since 1970.
    pub(crate) now_ms: u64,
}

impl Marks {
    /// What `plan` asks for.
    pub(crate) fn new(plan: &Frontend, marking: &Marking, seen: &Seen<'_>, rng: &mut Rng) -> Marks {
        let mut marks = Marks::default();
        if seen.x_forwarded {
            if plan.forwarded_replace {
                marks.strip.push("x-forwarded-for".into());
            }
            if let (true, Some(port)) = (plan.forwarded_port, seen.port) {
                marks.strip.push("x-forwarded-port".into());
                let _ = write!(marks.lines, "X-Forwarded-Port: {port}\r\n");
            }
        }
        if let Some(forwarded) = &marking.forwarded
            && !within(&forwarded.except, seen.client)
        {
            marks.forwarded(forwarded, seen);
        }
        if let Some(id) = &marking.request_id {
            let sent = only(seen.head, &id.name).filter(|sent| is_id(sent));
            marks.request_id = match sent {
                Some(sent) if within(&id.from, seen.client) => sent.to_vec(),
                _ => uuid(seen.now_ms, rng),
            };
            let mut line = Vec::with_capacity(id.header.len() + marks.request_id.len() + 4);
            line.extend_from_slice(id.header.as_bytes());
            line.extend_from_slice(b": ");
            line.extend_from_slice(&marks.request_id);
            line.extend_from_slice(b"\r\n");
            marks.strip.push((*id.name).into());
            marks.lines.extend_from_slice(&line);
            marks.answer = id.answer.then(|| (line, (*id.name).into()));
        }
        if let Some(start) = marking.trace {
            match only(seen.head, "traceparent").filter(|sent| is_traceparent(sent)) {
                Some(sent) => marks.traceparent = sent.to_vec(),
                None => marks.trace(start, rng),
            }
        }
        marks
    }

    fn forwarded(&mut self, plan: &Forwarded, seen: &Seen<'_>) {
        if !within(&plan.from, seen.client) {
            self.strip.push("forwarded".into());
        }
        let out = &mut self.lines;
        out.extend_from_slice(b"Forwarded: ");
        if let Some(by) = &plan.by {
            let _ = write!(out, "by={by};");
        }
        match seen.client.to_canonical() {
            _ if plan.hidden => out.extend_from_slice(b"for=unknown"),
            IpAddr::V4(v4) => drop(write!(out, "for={v4}")),
            // A colon needs quotation marks (RFC 7239 §6).
            IpAddr::V6(v6) => drop(write!(out, "for=\"[{v6}]\"")),
        }
        if let Some(host) = seen.host {
            let token = field::is_token(host);
            out.extend_from_slice(if token { b";host=" } else { b";host=\"" });
            out.extend_from_slice(host);
            if !token {
                out.push(b'"');
            }
        }
        let _ = write!(out, ";proto={}\r\n", seen.scheme);
    }

    /// There is no trace, or none that can be understood, which ends with us (W3C Trace Context §3.2.2).
    fn trace(&mut self, start: StartTrace, rng: &mut Rng) {
        self.strip.extend(["traceparent".into(), "tracestate".into()]);
        let flags = match start {
            StartTrace::No => return,
            StartTrace::Sampled => "01",
            StartTrace::Unsampled => "00",
        };
        let (high, low, span) = (rng.next_u64(), rng.next_u64() | 1, rng.next_u64() | 1);
        let _ = write!(self.traceparent, "00-{high:016x}{low:016x}-{span:016x}-{flags}");
        self.lines.extend_from_slice(b"traceparent: ");
        self.lines.extend_from_slice(&self.traceparent);
        self.lines.extend_from_slice(b"\r\n");
    }

    /// Marks the request's fields, which are what `out` has from `from` on.
    pub(crate) fn request(&self, out: &mut Vec<u8>, from: usize) {
        take_out(out, from, |name| self.strip.iter().any(|strip| is_name(name, strip)));
        out.extend_from_slice(&self.lines);
    }

    /// Marks the head of a response.
    pub(crate) fn response(&self, head: &mut Vec<u8>) {
        let Some((line, name)) = &self.answer else { return };
        let Some(end) = head.iter().position(|&b| b == b'\n') else { return };
        take_out(head, end + 1, |other| is_name(other, name));
        head.splice(end + 1..end + 1, line.iter().copied());
    }

    /// Marks an answer of our own, which has no such field yet; what follows its head is left alone.
    pub(crate) fn own_answer(&self, answer: &mut Vec<u8>) {
        let Some((line, _)) = &self.answer else { return };
        let Some(end) = answer.iter().position(|&b| b == b'\n') else { return };
        answer.splice(end + 1..end + 1, line.iter().copied());
    }

    /// Whether responses are marked.
    pub(crate) fn answers(&self) -> bool {
        self.answer.is_some()
    }
}

fn within(networks: &[Cidr], ip: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(ip))
}

/// Whether a name is the lower-case `known`; an underscore may stand for a hyphen, as it does for CGI.
fn is_name(name: &[u8], known: &str) -> bool {
    let fold = |b: u8| if b == b'_' { b'-' } else { b.to_ascii_lowercase() };
    name.len() == known.len() && name.iter().zip(known.bytes()).all(|(b, k)| fold(*b) == fold(k))
}

/// Takes the field lines out whose name `gone` says yes to.
fn take_out(out: &mut Vec<u8>, from: usize, gone: impl Fn(&[u8]) -> bool) {
    let (mut read, mut write) = (from, from);
    while read < out.len() {
        let end = out[read..].iter().position(|&b| b == b'\n').map_or(out.len(), |n| read + n + 1);
        let colon = out[read..end].iter().position(|&b| b == b':');
        if !colon.is_some_and(|colon| gone(&out[read..read + colon])) {
            out.copy_within(read..end, write);
            write += end - read;
        }
        read = end;
    }
    out.truncate(write);
}

/// The value of a field that stands exactly once.
fn only<'a>(head: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let is = |line: &&[u8]| line.iter().position(|&b| b == b':').is_some_and(|c| is_name(&line[..c], name));
    let lines = head.split(|&b| b == b'\n');
    if lines.skip(1).filter(is).count() == 1 { access::find_field(head, name) } else { None }
}

fn is_id(id: &[u8]) -> bool {
    let good = |b: &u8| field::is_tchar(*b) || matches!(b, b':' | b'/' | b'=' | b'@');
    (1..=LONGEST_ID).contains(&id.len()) && id.iter().all(good)
}

/// W3C Trace Context §3.2: version, trace-id, parent-id, trace-flags.
fn is_traceparent(value: &[u8]) -> bool {
    let hex = |part: &[u8]| part.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    let some = |part: &[u8]| hex(part) && part.iter().any(|&b| b != b'0');
    if value.len() < TRACEPARENT || value[2] != b'-' || value[35] != b'-' || value[52] != b'-' {
        return false;
    }
    let version = &value[..2];
    let length = match version {
        b"00" => value.len() == TRACEPARENT,
        // A version to come may say more.
        _ => value.len() == TRACEPARENT || value[TRACEPARENT] == b'-',
    };
    length
        && hex(version)
        && version != b"ff"
        && some(&value[3..35])
        && some(&value[36..52])
        && hex(&value[53..55])
}

/// A UUID of version 7 (RFC 9562 §5.7): time first, so that ids sort as they came.
fn uuid(now_ms: u64, rng: &mut Rng) -> Vec<u8> {
    let (a, b) = (rng.next_u64(), rng.next_u64());
    let mut id = Vec::with_capacity(36);
    let _ = write!(
        id,
        "{:08x}-{:04x}-7{:03x}-{:04x}-{:012x}",
        (now_ms >> 16) & 0xffff_ffff,
        now_ms & 0xffff,
        a & 0xfff,
        0x8000 | ((a >> 12) & 0x3fff),
        b & 0xffff_ffff_ffff
    );
    id
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_what_the_specification_says() {
        let good = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(is_traceparent(good));
        assert!(is_traceparent(b"cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-comes"));
        let with = |from: usize, text: &str| {
            let mut value = good.to_vec();
            value[from..from + text.len()].copy_from_slice(text.as_bytes());
            value
        };
        for bad in [
            with(0, "ff"),
            with(0, "0g"),
            with(3, "4B"),
            with(3, &"0".repeat(32)),
            with(36, &"0".repeat(16)),
            with(53, "0x"),
            with(35, "_"),
            good[..54].to_vec(),
            [&good[..], b"-x"].concat(),
            [b"cc", &good[2..], b".x"].concat(),
            Vec::new(),
        ] {
            assert!(!is_traceparent(&bad), "{}", String::from_utf8_lossy(&bad));
        }
    }

    #[test]
    fn ids_are_version_7_and_sort_by_time() {
        let mut rng = Rng::new(1);
        let ids: Vec<Vec<u8>> = (0..100).map(|i| uuid(1_700_000_000_000 + i * 7, &mut rng)).collect();
        assert!(ids.is_sorted());
        for id in ids {
            assert!(id.len() == 36 && id[14] == b'7' && b"89ab".contains(&id[19]) && is_id(&id));
        }
    }

    #[test]
    fn lines_are_taken_out_by_their_whole_name() {
        let mut out =
            b"GET / HTTP/1.1\r\nforwarded: a\r\nForwarded-X: b\r\nFORWARDED:c\r\nX: forwarded: d\r\n"
                .to_vec();
        take_out(&mut out, 16, |name| is_name(name, "forwarded"));
        assert_eq!(out, b"GET / HTTP/1.1\r\nForwarded-X: b\r\nX: forwarded: d\r\n");
    }
}
