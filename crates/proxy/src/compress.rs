//! Whether a response is compressed, and what that changes in its head (RFC 9110 §8.4, §12.5.3).
//!
//! Called by `exchange` between a response's head and its body; the work is `squeeze`'s.

use relais_config::plan::{self, Coding, Compression};
use relais_http::{Body, Kept, Method, Response, accept, field, response};

use crate::session::Asked;

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Leave,
    /// It goes as it is, and caches hear that it could have been otherwise.
    Vary,
    /// It is compressed.
    Squeeze(Coding),
}

/// What holds for a response: its backend's, or else its frontend's.
pub(crate) fn plan<'a>(back: &'a plan::Backend, front: &'a plan::Frontend) -> Option<&'a Compression> {
    back.compression.as_deref().or(front.compression.as_deref())
}

/// A field line's name and value.
fn split(line: &[u8]) -> (&[u8], &[u8]) {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    let colon = line.iter().position(|b| *b == b':').unwrap_or(line.len());
    (&line[..colon], field::trim(line[colon..].strip_prefix(b":").unwrap_or_default()))
}

fn fields<'a>(head: &'a Kept, bytes: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
    head.lines(bytes).map(split)
}

fn named<'a>(head: &'a Kept, bytes: &'a [u8], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    fields(head, bytes).filter(move |(n, _)| n.eq_ignore_ascii_case(name.as_bytes())).map(|(_, value)| value)
}

/// Whether a comma-separated list has this element.
fn lists(value: &[u8], word: &str) -> bool {
    value.split(|b| *b == b',').any(|element| field::trim(element).eq_ignore_ascii_case(word.as_bytes()))
}

/// Decides on a response.
pub(crate) fn judge(plan: &Compression, asked: &Asked<'_>, response: &Response, bytes: &[u8]) -> Verdict {
    let request = asked.request;
    if !may_be(plan, response, bytes) {
        return Verdict::Leave;
    }
    let asked_bytes = asked.buffer.bytes();
    let mut caches = named(&request.fields, asked_bytes, "cache-control");
    let whole = request.minor == 1 && request.method != Method::Head && response.body != Body::None;
    if !whole || caches.any(|value| lists(value, "no-transform")) {
        return Verdict::Vary;
    }
    let mut names = [""; 3];
    for (name, coding) in names.iter_mut().zip(&plan.algorithms) {
        *name = coding.name();
    }
    let offered = &names[..plan.algorithms.len().min(3)];
    match accept::best(named(&request.fields, asked_bytes, "accept-encoding"), offered) {
        Some(at) => Verdict::Squeeze(plan.algorithms[at]),
        None => Verdict::Vary,
    }
}

/// Whether a response is of the kind that is compressed for those who like it.
fn may_be(plan: &Compression, response: &Response, bytes: &[u8]) -> bool {
    if response.status < 200 || matches!(response.status, 204 | 206 | 304) || response.unchunk {
        return false;
    }
    if matches!(response.body, Body::Length(n) if n < plan.min_size) {
        return false;
    }
    let mut wanted = false;
    for (name, value) in fields(&response.kept, bytes).skip(1) {
        match name.len() {
            12 if name.eq_ignore_ascii_case(b"content-type") => {
                let kind = field::trim(value.split(|b| *b == b';').next().unwrap_or_default());
                wanted = plan.types.iter().any(|t| is_of(kind, t.as_bytes()));
            }
            13 if name.eq_ignore_ascii_case(b"cache-control") && lists(value, "no-transform") => {
                return false;
            }
            16 if name.eq_ignore_ascii_case(b"content-encoding")
                && !value.eq_ignore_ascii_case(b"identity") =>
            {
                return false;
            }
            // It is a part, or what is said of its bytes would not hold, or its trailers would be lost.
            _ if UNTOUCHED.iter().any(|u| name.eq_ignore_ascii_case(u.as_bytes())) => return false,
            _ => {}
        }
    }
    wanted
}

/// A response with one of these is left as it is.
const UNTOUCHED: [&str; 6] =
    ["content-range", "content-md5", "content-digest", "repr-digest", "digest", "trailer"];

/// Whether a media type is the one that the plan says, or of its kind.
fn is_of(kind: &[u8], wanted: &[u8]) -> bool {
    match wanted.last() {
        Some(b'/') => kind.get(..wanted.len()).is_some_and(|k| k.eq_ignore_ascii_case(wanted)),
        _ => kind.eq_ignore_ascii_case(wanted),
    }
}

/// Writes a response's status line and fields as the verdict has them.
pub(crate) fn response_fields(out: &mut Vec<u8>, response: &Response, bytes: &[u8], verdict: Verdict) {
    let squeeze = matches!(verdict, Verdict::Squeeze(_));
    let mut varies = false;
    for line in response.kept.lines(bytes) {
        let (name, value) = split(line);
        let is = |other: &str| name.eq_ignore_ascii_case(other.as_bytes());
        if is("vary") {
            varies |= lists(value, "accept-encoding") || lists(value, "*");
        }
        if squeeze {
            if is("content-length")
                || is("transfer-encoding")
                || is("content-encoding")
                || is("accept-ranges")
            {
                continue;
            }
            if is("etag") && value.starts_with(b"\"") {
                // The bytes are others now: only their meaning is the same (RFC 9110 §8.8.1).
                out.extend_from_slice(b"ETag: W/");
                out.extend_from_slice(value);
                out.extend_from_slice(b"\r\n");
                continue;
            }
        }
        out.extend_from_slice(line);
    }
    if let Some(minor) = out.get_mut(response::MINOR_AT) {
        *minor = b'1';
    }
    if let Verdict::Squeeze(coding) = verdict {
        out.extend_from_slice(b"Content-Encoding: ");
        out.extend_from_slice(coding.name().as_bytes());
        out.extend_from_slice(b"\r\nTransfer-Encoding: chunked\r\n");
    }
    if !varies && verdict != Verdict::Leave {
        out.extend_from_slice(b"Vary: Accept-Encoding\r\n");
    }
}

/// Writes a request's fields without `Accept-Encoding`.
pub(crate) fn request_fields(out: &mut Vec<u8>, fields: &Kept, bytes: &[u8]) {
    for line in fields.lines(bytes) {
        if !split(line).0.eq_ignore_ascii_case(b"accept-encoding") {
            out.extend_from_slice(line);
        }
    }
}
