//! Servers that break HTTP/1, one answer a row: what a client sees of it, what the log says and where, and
//! that nobody else gets a byte of it. What the log says of clients is here as well: a process has one log.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{self, Read, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use common::*;

/// What the client must see.
#[derive(Clone, Copy, Debug)]
enum See {
    /// A 502, and in the log this, with its byte.
    Refused(&'static str),
    /// This status and body, whole.
    Whole(u16, &'static str),
    /// The beginning, and an end that does not look like one; the log may say why.
    Cut(&'static str),
}
use See::{Cut, Refused, Whole};

const GET: &str = "GET /case HTTP/1.1\r\nHost: h.test\r\n\r\n";
const HEAD: &str = "HEAD /case HTTP/1.1\r\nHost: h.test\r\n\r\n";
const OLD: &str = "GET /case HTTP/1.0\r\n\r\n";
const ASKS: &str = "GET /case HTTP/1.1\r\nHost: h.test\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Request, answer, whether the server closes behind it, what the client sees, why.
type Row = (&'static str, &'static str, bool, See, &'static str);

#[rustfmt::skip]
const ROWS: &[Row] = &[
    // RFC 9112 §4: the status line.
    (GET, "HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("malformed (byte 0)"), "9112 2.3"),
    (GET, "HTTP/1.2 200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 7)"), "9112 2.3"),
    (GET, "HTTP/0.9 200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 0)"), "9112 2.3"),
    (GET, "http/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 0)"), "9112 2.3"),
    (GET, "HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 11)"), "9112 4: 3DIGIT"),
    (GET, "HTTP/1.1 2000 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 12)"), "9112 4"),
    (GET, "HTTP/1.1 2x0 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 10)"), "9112 4"),
    (GET, "HTTP/1.1 +20 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 9)"), "9112 4"),
    (GET, "HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("100 to 599 (byte 9)"), "9110 15"),
    (GET, "HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("100 to 599 (byte 9)"), "9110 15"),
    (GET, "HTTP/1.1  200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 9)"), "9112 4"),
    (GET, "HTTP/1.1\t200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 8)"), "9112 4"),
    (GET, "HTTP/1.1 200 O\0K\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 14)"), "9112 4: reason-phrase"),
    (GET, "HTTP/1.1 200 O\x01K\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 14)"), "9112 4"),
    (GET, "HTTP/1.1 200 O\rK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 15)"), "9112 2.2"),
    (GET, "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nno", false, Refused("does not end with CRLF (byte 15)"), "9112 2.2"),
    (GET, "\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 0)"), "9112 2.1"),
    (GET, " HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 0)"), "9112 2.1"),
    (GET, "<html>no", true, Refused("(byte 0)"), "no HTTP/0.9"),
    (GET, "HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nok", false, Whole(200, "ok"), "9112 4: forgiven without the space"),
    (GET, "HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\nok", false, Whole(200, "ok"), "9112 4: an empty reason"),
    (GET, "HTTP/1.1 299 A b\tc!\r\nContent-Length: 2\r\n\r\nok", false, Whole(299, "ok"), "9112 4"),
    (GET, "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", true, Whole(200, "ok"), "9112 2.3"),
    // RFC 9112 §5: fields.
    (GET, "HTTP/1.1 200 OK\r\nX : y\r\nContent-Length: 2\r\n\r\nok", false, Whole(200, "ok"), "9112 5.1: taken out, not forwarded"),
    (GET, "HTTP/1.1 200 OK\r\nX \t : y\r\nContent-Length\t: 2\r\n\r\nok", false, Whole(200, "ok"), "9112 5.1: whatever field it is"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", false, Whole(200, "ok"), "9112 5.1: and it frames"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length : 3\r\n\r\nno", false, Refused("more than one Content-Length"), "9112 5.1: and it is no way around 6.3"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding : chunked\r\nContent-Length: 2\r\n\r\n2\r\nno\r\n0\r\n\r\n", false, Refused("both"), "9112 5.1, 6.3 rule 3"),
    (GET, "HTTP/1.1 200 OK\r\nX y: z\r\nContent-Length: 2\r\n\r\nno", false, Refused("its colon (byte 18)"), "9110 5.6.2: a blank within a name"),
    (GET, "HTTP/1.1 200 OK\r\nX \r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 18)"), "9112 5: no colon at all"),
    (GET, "HTTP/1.1 200 OK\r\n : y\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 17)"), "9112 5: nor a name"),
    (GET, "HTTP/1.1 200 OK\r\nX\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 18)"), "9112 5"),
    (GET, "HTTP/1.1 200 OK\r\n: y\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 17)"), "9112 5"),
    (GET, "HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\nno", false, Refused("folding) (byte 23)"), "9112 5.2"),
    (GET, "HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nno", false, Refused("control character (byte 21)"), "9110 5.5"),
    (GET, "HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 22)"), "9112 2.2"),
    (GET, "HTTP/1.1 200 OK\r\nX: a\nSet-Cookie: evil=1\r\nContent-Length: 2\r\n\r\nno", false, Refused("does not end with CRLF"), "9112 2.2: response splitting"),
    (GET, "HTTP/1.1 200 OK\r\nX(y): a\r\nContent-Length: 2\r\n\r\nno", false, Refused("(byte 18)"), "9110 5.6.2"),
    (GET, "HTTP/1.1 200 OK\r\nX: a\x7fb\r\nContent-Length: 2\r\n\r\nno", false, Refused("control character (byte 21)"), "9110 5.5: DEL, too"),
    (GET, "HTTP/1.1 200 OK\r\nX: a\r\nContent-Length: 2\r\n\nno", false, Refused("does not end with CRLF"), "9112 2.2: the line that ends the head"),
    (GET, "HTTP/1.1 200 OK\r\nX: a\r\nContent-Length: 2\n\r\nno", false, Refused("does not end with CRLF"), "9112 2.2: the last field"),
    (GET, "HTTP/1.1 200 OK\r\n!#$%&'*+-.^_`|~: a\r\nContent-Length: 2\r\n\r\nok", false, Whole(200, "ok"), "9110 5.6.2: every tchar"),
    (GET, "HTTP/1.1 200 OK\r\nX:\r\nContent-Length:\t2 \r\n\r\nok", false, Whole(200, "ok"), "9110 5.5: an empty value; OWS"),
    // RFC 9112 §6: framing.
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nno", false, Refused("more than one Content-Length"), "9112 6.3 rule 5"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\nno", false, Refused("decimal number (byte 33)"), "9112 6.3 rule 5"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: +2\r\n\r\nno", false, Refused("decimal number (byte 33)"), "9110 8.6"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\nno", false, Refused("decimal number"), "9110 8.6"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0x2\r\n\r\nno", false, Refused("decimal number"), "9110 8.6"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\nno", true, Refused("decimal number"), "9110 8.6"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551618\r\n\r\nno", false, Refused("decimal number"), "9110 8.6"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\n\r\n", false, Refused("both"), "9112 6.3 rule 3"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n2\r\nno\r\n0\r\n\r\n", false, Refused("both"), "9112 6.3 rule 3"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", false, Refused("other than chunked"), "9112 6.1: not asked for"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\nno", true, Refused("does not end with chunked"), "9112 6.3 rule 4"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", false, Refused("does not end with chunked"), "9112 6.3 rule 4"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", false, Refused("does not end with chunked"), "9112 6.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, Refused("does not end with chunked"), "9112 6.1"),
    (GET, "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, Refused("HTTP/1.0 message"), "9112 6.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer_Encoding: chunked\r\nContent-Length: 2\r\n\r\nok", false, Whole(200, "ok"), "another name, and not sent on"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: Content-Length\r\n\r\nok", false, Whole(200, "ok"), "9110 7.6.1: framing stays"),
    (GET, "HTTP/1.1 200 OK\r\n\r\nok", true, Whole(200, "ok"), "9112 6.3 rule 8"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nno", false, Refused("decimal number (byte 33)"), "9112 6.3 rule 5: a list of the same may be refused"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 2\r\n\r\nno", false, Refused("more than one Content-Length"), "9112 6.3 rule 5"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false, Refused(""), "9112 6.1: several fields are one list"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n", true, Refused(""), "9112 6.3 rule 4"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked;q=1\r\n\r\n0\r\n\r\n", false, Refused(""), "9112 7: chunked has no parameters"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding:\r\nContent-Length: 2\r\n\r\nno", false, Refused(""), "9112 6.3: an empty list frames nothing"),
    // Bodies that are not there: what follows is for nobody.
    (HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false, Whole(200, ""), "9112 6.3 rule 1"),
    (HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", false, Whole(200, ""), "9112 6.3 rule 1"),
    (GET, "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", false, Whole(204, ""), "9112 6.3 rule 1"),
    (GET, "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", false, Whole(204, ""), "9112 6.1"),
    (GET, "HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil", false, Whole(304, ""), "9112 6.3 rule 1"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokevil", false, Whole(200, "ok"), "9112 6.3: data behind the response"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false, Whole(200, "ok"), "9112 9.2: a second response nobody asked for"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil", false, Whole(200, "ok"), "9112 9.2"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nevil", false, Whole(200, ""), "9112 6.3"),
    (GET, "HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", false, Whole(304, ""), "9112 6.3 rule 1"),
    (HEAD, "HTTP/1.1 200 OK\r\n\r\nevil", true, Whole(200, ""), "9112 6.3 rule 1"),
    (HEAD, "HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil", false, Whole(204, ""), "9110 8.6"),
    (HEAD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n", false, Refused("both"), "9112 6.3 rule 3, also without a body"),
    // Chunks.
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", false, Refused("chunk size is malformed or too large (byte 47)"), "9112 7.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0x2\r\nno\r\n0\r\n\r\n", false, Refused("chunk size"), "9112 7.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\nno\n0\n\n", false, Refused("chunk size"), "9112 7.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nnono\r\n0\r\n\r\n", false, Refused("not followed by CRLF (byte 52)"), "9112 7.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff1\r\nno", false, Refused("chunk size"), "9112 7.1: overflow"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nContent-Length: 9\r\n\r\n", false, Refused("trailer field frames"), "9110 6.5.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nX : y\r\n\r\n", false, Refused("trailer"), "9112 7.1.2"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a=\"b\"\r\nok\r\n000\r\nX-T: v\r\n\r\n", false, Whole(200, "ok"), "9112 7.1"),
    (OLD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-T: v\r\n\r\n", false, Whole(200, "ok"), "9112 7: plain bytes for 1.0"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\nb\r\nno\r\n0\r\n\r\n", false, Refused(""), "9112 7.1.1: a bare LF in an extension"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;a\0\r\nno\r\n0\r\n\r\n", false, Refused(""), "9112 7.1.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\n0\r\n\r\n", false, Refused("not followed by CRLF"), "9112 7.1: a bare LF behind the data"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\r\n2\r\nno\r\n0\r\n\r\n", false, Refused("chunk size"), "9112 7.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n", false, Refused("trailer field frames"), "9110 6.5.1"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nno\r\n0\r\nX: a\0\r\n\r\n", false, Refused("trailer"), "9110 5.5"),
    // Early ends.
    (GET, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nok", true, Cut(""), "9112 8"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, Cut(""), "9112 8"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nok", true, Cut(""), "9112 8"),
    (GET, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n", true, Cut(""), "9112 8"),
    (OLD, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n", true, Cut(""), "9112 8: a reset, as nothing else tells a 1.0 client"),
    (GET, "HTTP/1.1 200 OK\r\nContent-Le", true, Refused(""), "9112 8"),
    (GET, "", true, Refused(""), "9112 8"),
    // Interim and switching.
    (GET, "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, Whole(200, "ok"), "9110 15.2"),
    (GET, "HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, Whole(200, "ok"), "9112 6.3 rule 1: an interim response has no body"),
    (GET, "HTTP/1.1 103 Early Hints\r\nContent-Length: 4\r\n\r\nevilHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nno", false, Refused(""), "9112 6.3 rule 1: what it counts as a body is no response"),
    (GET, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nevil", false, Refused("without being asked"), "9110 15.2.2"),
    (ASKS, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\nevil", false, Refused("without being asked (byte 64)"), "9110 7.8"),
    (ASKS, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\nevil", false, Refused("without being asked"), "9110 7.8"),
    (ASKS, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\n\r\nevil", false, Refused("without being asked"), "9110 7.8"),
    (ASKS, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", false, Whole(200, "ok"), "9110 7.8: an upgrade may be declined"),
];

/// The proxy's log.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came, and whether the stream ended cleanly.
fn read_all(client: &mut Peer) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let clean = client.io.read_to_end(&mut bytes).is_ok();
    (bytes, clean)
}

/// The final response in `bytes` (status, body), if it is whole; as httparse reads it.
fn response(mut bytes: &[u8], asked: &str, clean: bool) -> Option<(u16, String)> {
    loop {
        let mut fields = [httparse::EMPTY_HEADER; 32];
        let mut response = httparse::Response::new(&mut fields);
        let Ok(httparse::Status::Complete(length)) = response.parse(bytes) else { return None };
        let status = response.code.unwrap();
        bytes = &bytes[length..];
        if status < 200 {
            continue;
        }
        let value = |name: &str| {
            let found = response.headers.iter().find(|f| f.name.eq_ignore_ascii_case(name));
            found.map(|f| std::str::from_utf8(f.value).unwrap())
        };
        let body = if asked == HEAD || status == 204 || status == 304 {
            Some(bytes.to_vec())
        } else if let Some(length) = value("content-length") {
            (bytes.len() == length.parse::<usize>().unwrap()).then(|| bytes.to_vec())
        } else if value("transfer-encoding").is_some() {
            let (line, size) = httparse::parse_chunk_size(bytes).ok()?.unwrap();
            let data = bytes.get(line..line + size as usize)?;
            bytes.ends_with(b"\r\n\r\n").then(|| data.to_vec())
        } else {
            clean.then(|| bytes.to_vec())
        };
        return body.map(|body| (status, String::from_utf8(body).unwrap()));
    }
}

/// A body that breaks once its beginning is with the client: the log counts from the body's first byte.
fn fault_under_way(log: &Log) -> Option<String> {
    let (seen, arrived) = handover::<()>();
    let arrived = Mutex::new(arrived);
    let origin = Origin::new(move |mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        let _ = arrived.lock().unwrap().recv();
        peer.send("zz\r\n");
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(GET);
    client.head();
    client.take("4\r\nhalf\r\n".len());
    seen.lock().unwrap().send(()).unwrap();
    let (rest, _) = read_all(&mut client);
    let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    let fits = rest.is_empty()
        && said.contains("body of the response of server s1 refused: a chunk size")
        && said.contains("(byte 9)");
    (!fits).then(|| format!("under way: {rest:?}, log {said:?}"))
}

/// Requests that are refused, and what the log says; what the wrong bytes of `strict.jsonl` are judged by.
fn requests_refused(log: &Log) -> Vec<String> {
    let chunks = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
    let origin = Origin::new(|mut peer| while peer.try_head().is_some() {});
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut bad = Vec::new();
    for (first, second, text) in [
        ("GET / HTTP/1.1\r\nHost : h\r\n\r\n", "", "request of 127.0.0.1:", "its colon (byte 20)"),
        ("\r\nGET /\x01 HTTP/1.1\r\nHost: h\r\n\r\n", "", "request of ", "malformed (byte 7)"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5, 5\r\n\r\n",
            "",
            "request of ",
            "decimal number (byte 41)",
        ),
        ("GET / HTTP/1.1\r\nHost: h\r\nX: \0\r\n\r\n", "", "request of ", "control character (byte 28)"),
        ("GET / HTTP/1.1\r\nHost: h\r\n\tX: y\r\n\r\n", "", "request of ", "folding) (byte 25)"),
        ("GET / HTTP/1.1\r\nHost: a b\r\n\r\n", "", "request of ", "optional port (byte 22)"),
        (chunks, "5\r\nhelloX", "of the request of ", "not followed by CRLF (byte 8)"),
        (
            chunks,
            "5\r\nhello\r\n0\r\nHost: x\r\n",
            "of the request of ",
            "frames or routes the message (byte 13)",
        ),
    ]
    .map(|(first, second, whose, why)| (first, second, (whose, why)))
    {
        log.0.lock().unwrap().clear();
        let before = origin.accepted();
        let mut client = Peer::connect(door.address);
        client.send(first);
        if !second.is_empty() {
            // Once the head has gone on, the body is under way.
            wait("the head to be forwarded", || origin.accepted() > before);
            client.send(second);
        }
        let (answer, _) = read_all(&mut client);
        let said = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        if !answer.starts_with(b"HTTP/1.1 4") || !said.contains(text.0) || !said.contains(text.1) {
            bad.push(format!(
                "{first:?}: {text:?}, but log {said:?}, answer {:?}",
                String::from_utf8_lossy(&answer)
            ));
        }
    }
    bad
}

#[test]
fn a_server_that_breaks_the_rules_harms_one_answer_at_most_and_the_log_says_where() {
    let log = Log::default();
    let writer = log.clone();
    tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
    let mut bad = Vec::new();
    for (number, (request, answer, closes, see, why)) in ROWS.iter().enumerate() {
        log.0.lock().unwrap().clear();
        let first = AtomicBool::new(true);
        let origin = Origin::new(move |mut peer| {
            while let Some(head) = peer.try_head() {
                if head.contains("/case") && first.swap(false, Ordering::SeqCst) {
                    let _ = peer.try_send(answer);
                    if *closes {
                        return;
                    }
                } else {
                    let _ = peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood");
                }
            }
        });
        let door = Door::new(1);
        let _proxy = Proxy::start(&plan(&door, "", "retries 0", &[origin.address]), &[&door]);
        // Half-closed, so that the stream ends behind the answer; the next request comes on another connection.
        let mut client = Peer::connect(door.address);
        client.send(request);
        client.half_close();
        let (bytes, clean) = read_all(&mut client);
        let mut next = Peer::connect(door.address);
        next.send("GET /next HTTP/1.1\r\nHost: h.test\r\n\r\n");
        let (_, after) = next.message();
        let (got, said) = (response(&bytes, request, clean), log.0.lock().unwrap().clone());
        let said = String::from_utf8(said).unwrap();
        let fits = match see {
            Refused(text) => got.as_ref().is_some_and(|(s, _)| *s == 502) && said.contains(text),
            Whole(status, body) => got == Some((*status, (*body).to_owned())),
            Cut(text) => got.is_none() && said.contains(text),
        };
        let leaks = String::from_utf8_lossy(&bytes).contains("evil") || after != "good";
        if !fits || leaks {
            let bytes = String::from_utf8_lossy(&bytes).into_owned();
            bad.push(format!("{number} {answer:?} ({why}): {see:?}, but {got:?}\n  {bytes:?}\n  log {said:?}\n  next {after:?}"));
        }
    }
    bad.extend(fault_under_way(&log));
    bad.extend(requests_refused(&log));
    assert!(bad.is_empty(), "{} rows:\n{}", bad.len(), bad.join("\n"));
}
