//! Answers that the proxy gives itself: redirects and errors. Always whole, always with a length.

use std::borrow::Cow;
use std::io::Write;

use crate::pages::Page;

/// Reason phrases of the codes that are answered here.
fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        413 => "Content Too Large",
        414 => "URI Too Long",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Error",
    }
}

/// What a client is told beside the status.
fn explanation(status: u16) -> &'static str {
    match status {
        401 | 403 => "This is not for you.",
        404 | 410 => "There is nothing here.",
        429 => "These are too many requests. Please wait a moment.",
        500 => "The request could not be served.",
        408 => "The request did not arrive in time.",
        413 => "The body of this request is longer than is taken here.",
        414 => "The address of this request is too long.",
        431 => "The header fields of this request are too many or too long.",
        501 => "This method or coding is not served here.",
        502 => "The application server gave an invalid answer, or none.",
        503 => "No application server is available. Please try again in a moment.",
        504 => "The application server did not answer in time.",
        505 => "Please use HTTP/1.1.",
        _ => "The request could not be understood.",
    }
}

/// How a connection goes on, as `Connection` says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Persistence {
    /// As HTTP/1.1 does by itself.
    Keep,
    /// `keep-alive`, for an HTTP/1.0 client.
    KeepOld,
    /// `close`.
    Close,
}

impl Persistence {
    /// The field's line, if there is one, and the empty line that ends the head.
    pub(crate) const fn tail(self) -> &'static [u8] {
        match self {
            Persistence::Keep => b"\r\n",
            Persistence::KeepOld => b"Connection: keep-alive\r\n\r\n",
            Persistence::Close => b"Connection: close\r\n\r\n",
        }
    }
}

/// An error, with a page of the operator's or a sentence of ours. `head`: the answer to HEAD, which has no body.
pub(crate) fn error(status: u16, persistence: Persistence, head: bool, page: Option<&Page>) -> Vec<u8> {
    let reason = reason(status);
    let ours = || {
        let explanation = explanation(status);
        format!(
            "<!doctype html>\n<title>{status} {reason}</title>\n<h1>{status} {reason}</h1>\n<p>{explanation}</p>\n"
        )
    };
    let (kind, body): (&str, Cow<'_, str>) = match page {
        Some(page) => (&page.kind, Cow::Borrowed(&page.body)),
        None => ("text/html; charset=utf-8", Cow::Owned(ours())),
    };
    let retry = if matches!(status, 429 | 503) { "Retry-After: 1\r\n" } else { "" };
    let allow = if status == 405 { "Allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n" } else { "" };
    let mut answer = format!(
        "HTTP/1.1 {status} {reason}\r\nCache-Control: no-store\r\nContent-Type: {kind}\r\n\
         {retry}{allow}Content-Length: {}\r\n",
        body.len()
    )
    .into_bytes();
    answer.extend_from_slice(persistence.tail());
    if !head {
        answer.extend_from_slice(body.as_bytes());
    }
    answer
}

/// A redirect to `scheme://host/path`.
pub(crate) fn redirect(
    code: u16,
    scheme: &str,
    host: &[u8],
    path: &[u8],
    persistence: Persistence,
) -> Vec<u8> {
    let mut answer = Vec::with_capacity(160 + host.len() + path.len());
    let _ = write!(answer, "HTTP/1.1 {code} {}\r\nContent-Length: 0\r\nLocation: {scheme}://", reason(code));
    answer.extend_from_slice(host);
    if path.first() != Some(&b'/') {
        answer.push(b'/');
    }
    answer.extend_from_slice(path);
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(persistence.tail());
    answer
}

/// A redirect to a place that is a URI reference already.
pub(crate) fn location(code: u16, location: &[u8], persistence: Persistence) -> Vec<u8> {
    let mut answer = Vec::with_capacity(128 + location.len());
    let _ = write!(answer, "HTTP/1.1 {code} {}\r\nContent-Length: 0\r\nLocation: ", reason(code));
    answer.extend_from_slice(location);
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(persistence.tail());
    answer
}

/// An answer with a body of the operator's. `head`: to HEAD.
pub(crate) fn respond(
    status: u16,
    content_type: &[u8],
    body: &[u8],
    persistence: Persistence,
    head: bool,
) -> Vec<u8> {
    let mut answer = Vec::with_capacity(160 + body.len());
    let _ = write!(answer, "HTTP/1.1 {status} {}\r\n", reason(status));
    if !matches!(status, 204 | 304) {
        answer.extend_from_slice(b"Content-Type: ");
        answer.extend_from_slice(content_type);
        let _ = write!(answer, "\r\nContent-Length: {}\r\n", body.len());
    }
    answer.extend_from_slice(persistence.tail());
    if !head && !matches!(status, 204 | 304) {
        answer.extend_from_slice(body);
    }
    answer
}

/// To a client that speaks HTTP where TLS is spoken.
pub(crate) fn plain_on_tls() -> Vec<u8> {
    let body = "This port speaks HTTPS, and what came was plain HTTP. Please use an address that begins with https.\n";
    let length = body.len();
    format!(
        "HTTP/1.1 400 Bad Request\r\nCache-Control: no-store\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )
    .into_bytes()
}

/// An empty 200: to OPTIONS that may not be forwarded any further (RFC 9110 §7.6.2).
pub(crate) fn options(persistence: Persistence) -> Vec<u8> {
    let mut answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n".to_vec();
    answer.extend_from_slice(persistence.tail());
    answer
}
