//! Messages as HTTP/1.1 text and as HTTP/2 header lists, each made from the other.
//!
//! Text made from what a peer sent is judged by the same parser as what an HTTP/1 peer sends; what cannot even be
//! written as text without changing its meaning is refused here (RFC 9113 §8.2, §8.3). Header lists are made from
//! text that this proxy wrote itself.

use std::io::Write;

use bytes::Bytes;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, request, response};
use relais_http::{Body, Kept, Request, Response};

use crate::access;

/// How a body is written as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// There is none.
    Nothing,
    /// As it is: a length is known, or it is a tunnel.
    Plain,
    /// In chunks, trailers behind the last.
    Chunks,
}

/// What of a body is known when its head is written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    /// The message ended with its head.
    pub(crate) none: bool,
    /// All of it is here, so many bytes, without trailers.
    pub(crate) whole: Option<u64>,
}

/// A message that is malformed (RFC 9113 §8.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A client's request as text.
///
/// # Errors
/// Where HTTP/1.1 could not say the same: a path that is none, `Host` beside another `:authority`.
pub(crate) fn request(out: &mut Vec<u8>, parts: &request::Parts, known: Known) -> Result<Form, Malformed> {
    let path = parts.uri.path_and_query().map_or("", |p| p.as_str());
    let websocket = match parts.extensions.get::<h2::ext::Protocol>() {
        Some(protocol) if protocol.as_str() == "websocket" => true,
        Some(_) => return Err(Malformed),
        None => false,
    };
    let connect = parts.method == Method::CONNECT && !websocket;
    if !(connect || path.starts_with('/') || path == "*" && parts.method == Method::OPTIONS) {
        return Err(Malformed);
    }
    let authority = parts.uri.authority().map(|a| a.as_str());
    let method = if websocket { "GET" } else { parts.method.as_str() };
    out.extend_from_slice(method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(if connect { authority.unwrap_or("") } else { path }.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if let Some(authority) = authority {
        line(out, b"Host", authority.as_bytes());
    }
    let mut has_length = false;
    for (name, value) in &parts.headers {
        if is_padded(value) || is_of_connection(name) {
            return Err(Malformed);
        }
        match *name {
            header::HOST if authority.is_some() => {
                let ours = authority.unwrap_or("").as_bytes();
                if !value.as_bytes().eq_ignore_ascii_case(ours) {
                    return Err(Malformed); // two hosts, two places
                }
                continue;
            }
            header::COOKIE | header::TE | header::SEC_WEBSOCKET_KEY => continue,
            header::CONTENT_LENGTH => has_length = true,
            _ => {}
        }
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    cookies(out, &parts.headers);
    if websocket {
        // RFC 8441 §5.1: what HTTP/1.1 needs for the same; the answer to the key stays here.
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: ");
        websocket_key(out);
        out.extend_from_slice(b"\r\n\r\n");
        return Ok(Form::Plain);
    }
    let form = length(out, known, has_length);
    out.extend_from_slice(b"\r\n");
    Ok(form)
}

/// A server's response as text. `bodiless`: it answers HEAD.
///
/// # Errors
/// If it has fields that HTTP/2 forbids.
pub(crate) fn response(
    out: &mut Vec<u8>,
    parts: &response::Parts,
    known: Known,
    bodiless: bool,
) -> Result<Form, Malformed> {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(parts.status.canonical_reason().unwrap_or("").as_bytes());
    out.extend_from_slice(b"\r\n");
    let mut has_length = false;
    for (name, value) in &parts.headers {
        if is_padded(value) || is_of_connection(name) {
            return Err(Malformed);
        }
        has_length |= name == header::CONTENT_LENGTH;
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    let status = parts.status.as_u16();
    let form = if bodiless || status < 200 || status == 204 || status == 304 {
        Form::Nothing
    } else {
        if known.none && !has_length {
            out.extend_from_slice(b"Content-Length: 0\r\n");
        }
        length(out, known, has_length)
    };
    out.extend_from_slice(b"\r\n");
    Ok(form)
}

/// The field that says where the body ends.
fn length(out: &mut Vec<u8>, known: Known, has_length: bool) -> Form {
    match known.whole {
        _ if known.none => Form::Nothing,
        _ if has_length => Form::Plain,
        Some(whole) => {
            out.extend_from_slice(b"Content-Length: ");
            access::number(out, whole);
            out.extend_from_slice(b"\r\n");
            Form::Plain
        }
        None => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
            Form::Chunks
        }
    }
}

/// The beginning of a chunk.
pub(crate) fn chunk(out: &mut Vec<u8>, size: usize) {
    let _ = write!(out, "{size:x}\r\n");
}

/// The last chunk, with trailers.
///
/// # Errors
/// If they have fields that HTTP/2 forbids.
pub(crate) fn last_chunk(out: &mut Vec<u8>, trailers: Option<&HeaderMap>) -> Result<(), Malformed> {
    out.extend_from_slice(b"0\r\n");
    for (name, value) in trailers.into_iter().flatten() {
        if is_padded(value) || is_of_connection(name) {
            return Err(Malformed);
        }
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    Ok(())
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// HTTP/2 may cut a cookie field into pieces; HTTP/1.1 has one (RFC 9113 §8.2.3).
fn cookies(out: &mut Vec<u8>, headers: &HeaderMap) {
    let mut between: &[u8] = b"cookie: ";
    for value in headers.get_all(header::COOKIE) {
        out.extend_from_slice(between);
        out.extend_from_slice(value.as_bytes());
        between = b"; ";
    }
    if between == b"; " {
        out.extend_from_slice(b"\r\n");
    }
}

/// A nonce of 16 bytes in base64 (RFC 6455 §4.1).
fn websocket_key(out: &mut Vec<u8>) {
    use std::hash::{BuildHasher, RandomState};
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let half = || u128::from(RandomState::new().hash_one(0u8));
    let nonce = half() << 64 | half();
    // 128 bits are 21 digits and 2 bits, which a 22nd digit has at its upper end.
    out.extend((0..21).map(|i| DIGITS[(nonce >> (122 - 6 * i)) as usize & 63]));
    out.extend([DIGITS[(nonce as usize & 3) << 4], b'=', b'=']);
}

/// RFC 9113 §8.2.1: a value neither begins nor ends with whitespace.
fn is_padded(value: &HeaderValue) -> bool {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    value.as_bytes().first().is_some_and(blank) || value.as_bytes().last().is_some_and(blank)
}

/// RFC 9113 §8.2.2.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(*name, header::CONNECTION | header::TRANSFER_ENCODING | header::UPGRADE)
        || matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
}

/// The head of a response, from text that is ours. `tunnel`: 101 says that the extended CONNECT is granted.
pub(crate) fn to_response(head: &Bytes, parsed: &Response, tunnel: bool) -> Option<http::Response<()>> {
    let mut response = http::Response::new(());
    *response.status_mut() = if tunnel && parsed.status == 101 {
        http::StatusCode::OK
    } else {
        http::StatusCode::from_u16(parsed.status).ok()?
    };
    fields(head, &parsed.kept, 1, |name, value| {
        if name != header::TRANSFER_ENCODING && !(tunnel && name == header::SEC_WEBSOCKET_ACCEPT) {
            response.headers_mut().append(name, value);
        }
    })?;
    Some(response)
}

/// The head of a request, from text that is ours, and whether a body follows.
pub(crate) fn to_request(head: &Bytes, parsed: &Request, tls: bool) -> Option<http::Request<()>> {
    let method = parsed.method_sp.of(head).trim_ascii_end();
    let authority = head.slice_ref(parsed.host?.of(head));
    let path = match parsed.path.of(head) {
        b"" => Bytes::from_static(b"/"),
        path => head.slice_ref(path),
    };
    let uri = http::Uri::builder()
        .scheme(if tls { http::uri::Scheme::HTTPS } else { http::uri::Scheme::HTTP })
        .authority(http::uri::Authority::from_maybe_shared(authority).ok()?)
        .path_and_query(http::uri::PathAndQuery::from_maybe_shared(path).ok()?)
        .build()
        .ok()?;
    let mut request = http::Request::new(());
    *request.method_mut() = Method::from_bytes(method).ok()?;
    *request.version_mut() = http::Version::HTTP_2;
    *request.uri_mut() = uri;
    fields(head, &parsed.fields, 0, |name, value| {
        if name != header::HOST && name != header::TRANSFER_ENCODING {
            request.headers_mut().append(name, value);
        }
    })?;
    // We take trailers, and carry them on; servers of gRPC want to hear it.
    request.headers_mut().insert(header::TE, HeaderValue::from_static("trailers"));
    Some(request)
}

/// The field lines of `kept`, the first `skip` lines left out.
fn fields(
    head: &Bytes,
    kept: &Kept,
    skip: usize,
    mut each: impl FnMut(HeaderName, HeaderValue),
) -> Option<()> {
    let lines = kept.spans().iter().flat_map(|span| span.of(head).split_inclusive(|b| *b == b'\n'));
    for text in lines.skip(skip) {
        let (name, value) = field(text)?;
        each(HeaderName::from_bytes(name).ok()?, HeaderValue::from_maybe_shared(head.slice_ref(value)).ok()?);
    }
    Some(())
}

/// Name and value of a line.
pub(crate) fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    Some((&line[..colon], line[colon + 1..].trim_ascii()))
}

/// Whether a body follows a head, and how it stands in the text.
pub(crate) fn has_body(body: &Body) -> bool {
    !matches!(body, Body::None | Body::Length(0))
}
