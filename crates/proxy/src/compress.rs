//! Whether a response is compressed, and what that changes in its head (RFC 9110 §8.4, §12.5.3).
//!
//! Called by `exchange` between a response's head and its body; the work is `squeeze`'s.

use relais_config::plan::{self, Coding, Compression};
use relais_http::{Body, Kept, Method, Response, accept, field, response};

use crate::limits;
use crate::session::Asked;

/// What becomes of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Leave,
    /// It goes as it is, and caches hear that it could have been otherwise.
    Vary,
    /// As `Vary`, and its tag is weak: it says that a compressed response still holds.
    Weaken,
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
    let asked_bytes = asked.buffer.bytes();
    let size = match response.body {
        Body::Length(n) => Some(n),
        // What GET would be answered with.
        Body::None if request.method == Method::Head => length(response, bytes),
        Body::None => Some(0),
        Body::Chunked | Body::UntilClose => None,
    };
    if response.status == 304 {
        return unchanged(plan, asked, response, bytes);
    }
    if !may_be(plan, response, size, bytes) {
        return Verdict::Leave;
    }
    let mut caches = named(&request.fields, asked_bytes, "cache-control");
    let whole = request.minor == 1 && size != Some(0);
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

/// What a response says that its body's length is; `None`: nothing.
fn length(response: &Response, bytes: &[u8]) -> Option<u64> {
    let value = named(&response.kept, bytes, "content-length").next()?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// What becomes of a 304: it says what the 200 would have said (RFC 9110 §15.4.5), which depends on the client unless its
/// type is one that is never compressed, and names the tag that the client has: another one would not freshen what is stored
/// under it (RFC 9111 §4.3.4).
fn unchanged(plan: &Compression, asked: &Asked<'_>, response: &Response, bytes: &[u8]) -> Verdict {
    let typed = named(&response.kept, bytes, "content-type").next().is_some();
    let coded = named(&response.kept, bytes, "content-encoding").next().is_some();
    if coded || (typed && !may_be(plan, response, None, bytes)) {
        return Verdict::Leave;
    }
    let tag = named(&response.kept, bytes, "etag").next().unwrap_or_default();
    let held = named(&asked.request.fields, asked.buffer.bytes(), "if-none-match");
    if held.flat_map(weak_tags).any(|weak| weak == tag) { Verdict::Weaken } else { Verdict::Vary }
}

/// The tags of an `If-None-Match` that are weak, without what says so.
fn weak_tags(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = value;
    std::iter::from_fn(move || {
        loop {
            let start = rest.iter().position(|byte| *byte == b'"')?;
            let length = rest[start + 1..].iter().position(|byte| *byte == b'"')? + 2;
            let (tag, weak) = (&rest[start..start + length], rest[..start].ends_with(b"W/"));
            rest = &rest[start + length..];
            if weak {
                return Some(tag);
            }
        }
    })
}

/// Whether a response is of the kind that is compressed for those who like it; `size`: of its body, if it is known.
fn may_be(plan: &Compression, response: &Response, size: Option<u64>, bytes: &[u8]) -> bool {
    if response.status < 200 || matches!(response.status, 204 | 206) || response.unchunk {
        return false;
    }
    // An empty one is no shorter for anybody, but what caches hear of it is what they hear of its like.
    if size.is_some_and(|n| n > 0 && n < plan.min_size) {
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
            // It is a part, or what is said of its bytes, perhaps behind them, would not hold.
            _ if UNTOUCHED.iter().any(|u| name.eq_ignore_ascii_case(u.as_bytes())) => return false,
            _ => {}
        }
    }
    wanted
}

/// A response with one of these is left as it is.
const UNTOUCHED: [&str; 6] =
    ["content-range", "content-md5", "content-digest", "repr-digest", "digest", "trailer"];

/// Whether a field line would not hold for other bytes than those that it came with.
pub(crate) fn speaks_of_bytes(line: &[u8]) -> bool {
    let name = split(line).0;
    UNTOUCHED.iter().any(|untouched| name.eq_ignore_ascii_case(untouched.as_bytes()))
}

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
        if squeeze
            && (is("content-length")
                || is("transfer-encoding")
                || is("content-encoding")
                || is("accept-ranges"))
        {
            continue;
        }
        if (squeeze || verdict == Verdict::Weaken) && is("etag") && value.starts_with(b"\"") {
            // The bytes are others now: only their meaning is the same (RFC 9110 §8.8.1).
            out.extend_from_slice(b"ETag: W/");
            out.extend_from_slice(value);
            out.extend_from_slice(b"\r\n");
            continue;
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

/// Writes a request's fields for a server whose responses are compressed here; `offload`: without `Accept-Encoding`. A tag that we
/// made weak is named as the server knows it, too: to compare weakly (RFC 9110 §13.1.2) both are the same, and a
/// server that compares letter by letter finds its own.
pub(crate) fn request_fields(out: &mut Vec<u8>, fields: &Kept, bytes: &[u8], offload: bool) {
    for line in fields.lines(bytes) {
        let (name, value) = split(line);
        if offload && name.eq_ignore_ascii_case(b"accept-encoding") {
            continue;
        }
        out.extend_from_slice(line);
        if name.eq_ignore_ascii_case(b"if-none-match") && value.len() <= limits::TAGS_BYTES {
            let end = out.len() - 2;
            for (i, tag) in weak_tags(value).enumerate() {
                if i == 0 {
                    out.truncate(end);
                }
                out.extend_from_slice(b", ");
                out.extend_from_slice(tag);
            }
            if !out.ends_with(b"\r\n") {
                out.extend_from_slice(b"\r\n");
            }
        }
    }
}
