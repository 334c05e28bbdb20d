//! RFC 9113 and RFC 7541, section by section: what a server must refuse, and how. The cases are those that public
//! conformance suites ask for, and some more.

use crate::common::*;
use crate::secure::{Both, Over};
use crate::wire::*;

/// What must follow.
#[derive(Clone, Copy, Debug)]
enum Then {
    /// The connection ends, with one of these codes if it says GOAWAY.
    Connection(&'static [u32]),
    /// The stream of this number is reset with one of these codes, or the connection ends with one.
    Stream(u32, &'static [u32]),
    /// Nothing happens: a PING is answered.
    Nothing,
    /// The stream of this number is answered.
    Answer(u32),
    /// The stream of this number is reset, or answered with 400.
    Refused(u32),
}

struct Case {
    section: &'static str,
    what: &'static str,
    act: fn(&mut Raw),
    then: Then,
}

const ES: u8 = END_STREAM;
const EH: u8 = END_HEADERS;

fn setting(raw: &mut Raw, id: u16, value: u32) {
    raw.settings(&[(id, value)]);
}

fn headers(raw: &mut Raw, stream: u32, fields: &[(&str, &str)]) {
    raw.send(HEADERS, EH | ES, stream, block(fields));
}

fn get_with(raw: &mut Raw, more: &[(&str, &str)]) {
    raw.send(HEADERS, EH | ES, 1, with(GET, more));
}

/// A request whose header block is these bytes.
fn coded(raw: &mut Raw, bytes: &[u8]) {
    raw.send(HEADERS, EH | ES, 1, [block(GET), bytes.to_vec()].concat());
}

/// A stream that is over on both sides.
fn closed(raw: &mut Raw) {
    raw.get(1);
    raw.answer(1);
}

macro_rules! cases {
    ($($section:literal $what:literal => $then:expr, $act:expr;)*) => {
        &[$(Case { section: $section, what: $what, act: $act, then: $then },)*]
    };
}

use Then::{Answer, Connection, Nothing, Refused, Stream};

const CASES: &[Case] = cases! {
    "9113 4.1" "a frame of unknown type" => Nothing, |r| r.send(0x16, 0, 0, b"12345678");
    "9113 4.1" "undefined flags" => Nothing, |r| r.send(PING, 0x16, 0, b"12345678");
    "9113 4.1" "the reserved bit" => Nothing, |r| r.send(PING, 0, 1 << 31, b"12345678");
    "9113 4.2" "DATA of 2^14 bytes" => Answer(1), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(DATA, ES, 1, [0; 16_384]);
    };
    "9113 4.2" "DATA longer than SETTINGS_MAX_FRAME_SIZE" => Stream(1, &[FRAME_SIZE]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(DATA, ES, 1, [0; 16_385]);
    };
    "9113 4.2" "HEADERS longer than SETTINGS_MAX_FRAME_SIZE" => Connection(&[FRAME_SIZE]), |r| {
        r.send(HEADERS, EH | ES, 1, with(GET, &[("x", &"x".repeat(16_385))]));
    };
    "9113 4.3" "a header block that does not decode" => Connection(&[COMPRESSION]), |r| coded(r, b"\x00\x05abc");
    "9113 4.3" "PRIORITY within a header block" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, ES, 1, block(GET));
        r.send(PRIORITY, 0, 1, b"\0\0\0\0\xff");
        r.send(CONTINUATION, EH, 1, block(&[("x", "y")]));
    };
    "9113 4.3" "HEADERS of another stream within a header block" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, ES, 1, block(GET));
        r.get(3);
    };
    "9113 5.1" "idle: DATA" => Connection(&[PROTOCOL]), |r| r.send(DATA, ES, 1, b"test");
    "9113 5.1" "idle: RST_STREAM" => Connection(&[PROTOCOL]), |r| r.send(RST_STREAM, 0, 1, b"\0\0\0\x08");
    "9113 5.1" "idle: WINDOW_UPDATE" => Connection(&[PROTOCOL]), |r| r.send(WINDOW_UPDATE, 0, 1, b"\0\0\0\x64");
    "9113 5.1" "idle: CONTINUATION" => Connection(&[PROTOCOL]), |r| r.send(CONTINUATION, EH, 1, block(GET));
    "9113 5.1" "half-closed (remote): DATA" => Stream(1, &[STREAM_CLOSED]), |r| {
        r.get(1);
        r.send(DATA, ES, 1, b"test");
    };
    "9113 5.1" "half-closed (remote): HEADERS" => Stream(1, &[STREAM_CLOSED]), |r| {
        r.get(1);
        r.get(1);
    };
    "9113 5.1" "half-closed (remote): CONTINUATION" => Stream(1, &[STREAM_CLOSED, PROTOCOL]), |r| {
        r.get(1);
        r.send(CONTINUATION, EH, 1, block(GET));
    };
    "9113 5.1" "closed by RST_STREAM: DATA" => Stream(1, &[STREAM_CLOSED]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(RST_STREAM, 0, 1, b"\0\0\0\x08");
        r.send(DATA, ES, 1, b"test");
    };
    "9113 5.1" "closed by RST_STREAM: HEADERS" => Stream(1, &[STREAM_CLOSED]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(RST_STREAM, 0, 1, b"\0\0\0\x08");
        r.get(1);
    };
    "9113 5.1" "closed by END_STREAM: DATA" => Stream(1, &[STREAM_CLOSED]), |r| {
        closed(r);
        r.send(DATA, ES, 1, b"test");
    };
    "9113 5.1" "closed by END_STREAM: HEADERS" => Stream(1, &[STREAM_CLOSED, PROTOCOL]), |r| {
        closed(r);
        r.get(1);
    };
    "9113 5.1" "closed: PRIORITY" => Nothing, |r| {
        closed(r);
        r.send(PRIORITY, 0, 1, b"\0\0\0\0\x0f");
    };
    "9113 5.1" "closed: WINDOW_UPDATE" => Nothing, |r| {
        closed(r);
        r.send(WINDOW_UPDATE, 0, 1, b"\0\0\0\x01");
    };
    "9113 5.1.1" "a stream of even number" => Connection(&[PROTOCOL]), |r| r.get(2);
    "9113 5.1.1" "a stream of lower number" => Connection(&[PROTOCOL, STREAM_CLOSED]), |r| {
        r.get(5);
        r.get(3);
    };
    "9113 5.3" "a stream that depends on itself" => Answer(1), |r| {
        // RFC 9113 §5.3.2 takes priorities away; RFC 7540 made this an error of the stream.
        r.send(HEADERS, EH | ES, 1, block(GET));
    };
    "9113 5.5" "an unknown setting, an unknown frame on a stream" => Answer(1), |r| {
        setting(r, 0xff, 1);
        r.get(1);
        r.send(0xbe, 0, 1, b"x");
    };
    "9113 5.5" "an unknown frame within a header block" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, ES, 1, block(GET));
        r.send(0x16, 0, 0, b"x");
    };
    "9113 6.1" "DATA on stream 0" => Connection(&[PROTOCOL]), |r| r.send(DATA, ES, 0, b"test");
    "9113 6.1" "DATA with padding" => Answer(1), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(DATA, ES | PADDED, 1, b"\x02hi\0\0");
    };
    "9113 6.1" "DATA with more padding than payload" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(DATA, ES | PADDED, 1, b"\x06test");
    };
    "9113 6.2" "HEADERS on stream 0" => Connection(&[PROTOCOL]), |r| r.get(0);
    "9113 6.2" "HEADERS with padding and priority" => Answer(1), |r| {
        let payload = [b"\x02\0\0\0\0\x10".to_vec(), block(GET), vec![0; 2]].concat();
        r.send(HEADERS, EH | ES | PADDED | WITH_PRIORITY, 1, payload);
    };
    "9113 6.2" "HEADERS with more padding than payload" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, EH | ES | PADDED, 1, [vec![200], block(GET)].concat());
    };
    "9113 6.3" "PRIORITY on stream 0" => Connection(&[PROTOCOL]), |r| r.send(PRIORITY, 0, 0, b"\0\0\0\0\x0f");
    "9113 6.3" "PRIORITY of another length than 5" => Stream(1, &[FRAME_SIZE]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(PRIORITY, 0, 1, b"\x80\0\0\x01");
    };
    "9113 6.3" "PRIORITY of an idle stream" => Answer(1), |r| {
        r.send(PRIORITY, 0, 3, b"\0\0\0\x01\x0f");
        r.get(1);
    };
    "9113 6.4" "RST_STREAM on stream 0" => Connection(&[PROTOCOL]), |r| r.send(RST_STREAM, 0, 0, b"\0\0\0\x08");
    "9113 6.4" "RST_STREAM of another length than 4" => Connection(&[FRAME_SIZE]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(RST_STREAM, 0, 1, b"\0\0\0");
    };
    "9113 6.5" "SETTINGS ACK with a payload" => Connection(&[FRAME_SIZE]), |r| r.send(SETTINGS, ACK, 0, b"\0");
    "9113 6.5" "SETTINGS on a stream" => Connection(&[PROTOCOL]), |r| {
        r.send(SETTINGS, 0, 1, b"\0\x03\0\0\0\x64");
    };
    "9113 6.5" "SETTINGS of another length than a multiple of 6" => Connection(&[FRAME_SIZE]), |r| {
        r.send(SETTINGS, 0, 0, b"\0\x03\0");
    };
    "9113 6.5.2" "SETTINGS_ENABLE_PUSH of 2" => Connection(&[PROTOCOL]), |r| setting(r, 2, 2);
    "9113 6.5.2" "SETTINGS_INITIAL_WINDOW_SIZE of 2^31" => Connection(&[FLOW_CONTROL]), |r| setting(r, 4, 1 << 31);
    "9113 6.5.2" "SETTINGS_MAX_FRAME_SIZE below 2^14" => Connection(&[PROTOCOL]), |r| setting(r, 5, 16_383);
    "9113 6.5.2" "SETTINGS_MAX_FRAME_SIZE of 2^24" => Connection(&[PROTOCOL]), |r| setting(r, 5, 1 << 24);
    "9113 6.5.2" "SETTINGS_HEADER_TABLE_SIZE of 0" => Answer(1), |r| {
        setting(r, 1, 0);
        r.get(1);
    };
    "9113 6.6" "PUSH_PROMISE from a client" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(PUSH_PROMISE, EH, 1, [vec![0, 0, 0, 2], block(GET)].concat());
    };
    "9113 6.7" "PING with ACK" => Nothing, |r| r.send(PING, ACK, 0, b"invalid\0");
    "9113 6.7" "PING on a stream" => Connection(&[PROTOCOL]), |r| r.send(PING, 0, 1, b"12345678");
    "9113 6.7" "PING of another length than 8" => Connection(&[FRAME_SIZE]), |r| r.send(PING, 0, 0, b"\0\0\0");
    "9113 6.8" "GOAWAY on a stream" => Connection(&[PROTOCOL]), |r| r.send(GOAWAY, 0, 1, [0; 8]);
    "9113 6.8" "GOAWAY: what is open is still answered" => Answer(1), |r| {
        r.get(1);
        r.send(GOAWAY, 0, 0, [0; 8]);
    };
    "9113 6.9" "WINDOW_UPDATE of 0 on the connection" => Connection(&[PROTOCOL]), |r| {
        r.send(WINDOW_UPDATE, 0, 0, [0; 4]);
    };
    "9113 6.9" "WINDOW_UPDATE of 0 on a stream" => Stream(1, &[PROTOCOL]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(WINDOW_UPDATE, 0, 1, [0; 4]);
    };
    "9113 6.9" "WINDOW_UPDATE of another length than 4" => Connection(&[FRAME_SIZE]), |r| {
        r.send(WINDOW_UPDATE, 0, 0, b"\0\0\x01");
    };
    "9113 6.9.1" "the connection's window beyond 2^31-1" => Connection(&[FLOW_CONTROL]), |r| {
        r.send(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff");
        r.send(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff");
    };
    "9113 6.9.1" "a stream's window beyond 2^31-1" => Stream(1, &[FLOW_CONTROL]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff");
        r.send(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff");
    };
    // NO_ERROR (0): the server's end was quicker than the client's fault.
    "9113 6.9.1" "more DATA than the window" => Stream(1, &[FLOW_CONTROL, 0]), |r| {
        r.send(HEADERS, EH, 1, with(POST, &[("x-slow", "yes")]));
        (0..40).for_each(|_| r.send(DATA, 0, 1, [0; 16_384]));
    };
    "9113 6.10" "CONTINUATION frames" => Answer(1), |r| {
        let bytes = with(GET, &[("x-a", "1"), ("x-b", "2")]);
        r.send(HEADERS, ES, 1, &bytes[..10]);
        r.send(CONTINUATION, 0, 1, &bytes[10..20]);
        r.send(CONTINUATION, EH, 1, &bytes[20..]);
    };
    "9113 6.10" "CONTINUATION of another stream" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, ES, 1, block(GET));
        r.send(CONTINUATION, EH, 3, block(&[("x", "y")]));
    };
    "9113 6.10" "CONTINUATION on stream 0" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, ES, 1, block(GET));
        r.send(CONTINUATION, EH, 0, block(&[("x", "y")]));
    };
    "9113 6.10" "CONTINUATION behind END_HEADERS" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(CONTINUATION, EH, 1, block(&[("x", "y")]));
    };
    "9113 6.10" "DATA within a header block" => Connection(&[PROTOCOL]), |r| {
        r.send(HEADERS, 0, 1, block(POST));
        r.send(DATA, ES, 1, b"test");
    };
    "9113 8.1" "trailers without END_STREAM" => Stream(1, &[PROTOCOL]), |r| {
        r.send(HEADERS, EH, 1, with(POST, &[("x-slow", "yes")]));
        r.send(HEADERS, EH, 1, block(&[("x", "y")]));
    };
    "9113 8.1.1" "content-length beside more DATA" => Stream(1, &[PROTOCOL]), |r| {
        r.send(HEADERS, EH, 1, with(POST, &[("content-length", "1")]));
        r.send(DATA, ES, 1, b"test");
    };
    "9113 8.1.1" "content-length beside less DATA" => Stream(1, &[PROTOCOL]), |r| {
        r.send(HEADERS, EH, 1, with(POST, &[("content-length", "9")]));
        r.send(DATA, 0, 1, b"te");
        r.send(DATA, ES, 1, b"st");
    };
    "9113 8.1.1" "content-length without a body" => Stream(1, &[PROTOCOL]), |r| {
        get_with(r, &[("content-length", "1")]);
    };
    "9113 8.1.1" "two content-lengths" => Refused(1), |r| {
        r.send(HEADERS, EH, 1, with(POST, &[("content-length", "4"), ("content-length", "5")]));
        r.send(DATA, ES, 1, b"test");
    };
    "9113 8.2.1" "a name in upper case" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("X-TEST", "ok")]);
    "9113 8.2.1" "a name that is no token" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("x test", "ok")]);
    "9113 8.2.1" "a value with a line end" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("x", "a\r\nb: c")]);
    "9113 8.2.1" "a value with NUL" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("x", "a\0b")]);
    "9113 8.2.1" "a value that begins with a blank" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("x", " a")]);
    "9113 8.2.2" "connection" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("connection", "keep-alive")]);
    "9113 8.2.2" "keep-alive" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("keep-alive", "5")]);
    "9113 8.2.2" "proxy-connection" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("proxy-connection", "x")]);
    "9113 8.2.2" "transfer-encoding" => Stream(1, &[PROTOCOL]), |r| {
        get_with(r, &[("transfer-encoding", "chunked")]);
    };
    "9113 8.2.2" "upgrade" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("upgrade", "websocket")]);
    "9113 8.2.2" "te: gzip" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[("te", "trailers, deflate;q=0.5")]);
    "9113 8.2.2" "te: trailers" => Answer(1), |r| get_with(r, &[("te", "trailers")]);
    "9113 8.3" "an unknown pseudo-header" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[(":test", "ok")]);
    "9113 8.3" "a response's pseudo-header" => Stream(1, &[PROTOCOL]), |r| get_with(r, &[(":status", "200")]);
    "9113 8.3" "a pseudo-header behind a field" => Stream(1, &[PROTOCOL]), |r| {
        headers(r, 1, &[(":method", "GET"), (":scheme", "http"), (":authority", "h"), ("x", "y"), (":path", "/")]);
    };
    // The library takes it away, and does not say so: nothing of it can reach a server.
    "9113 8.3" "a pseudo-header as a trailer" => Answer(1), |r| {
        r.send(HEADERS, EH, 1, block(POST));
        r.send(HEADERS, EH | ES, 1, block(&[(":method", "200")]));
    };
    "9113 8.3.1" "an empty :path" => Stream(1, &[PROTOCOL]), |r| {
        headers(r, 1, &[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "h")]);
    };
    "9113 8.3.1" "a :path that is a URI" => Stream(1, &[PROTOCOL]), |r| {
        headers(r, 1, &[(":method", "GET"), (":scheme", "http"), (":path", "http://evil/"), (":authority", "h")]);
    };
    "9113 8.3.1" "no :method" => Stream(1, &[PROTOCOL]), |r| headers(r, 1, &GET[1..]);
    "9113 8.3.1" "no :scheme" => Stream(1, &[PROTOCOL]), |r| headers(r, 1, &[GET[0], GET[2], GET[3]]);
    "9113 8.3.1" "no :path" => Stream(1, &[PROTOCOL]), |r| headers(r, 1, &[GET[0], GET[1], GET[3]]);
    "9113 8.3.1" "two :method" => Stream(1, &[PROTOCOL]), |r| headers(r, 1, &[&[GET[0]], GET].concat());
    "9113 8.3.1" "two :scheme" => Stream(1, &[PROTOCOL]), |r| headers(r, 1, &[&[GET[1]], GET].concat());
    "9113 8.3.1" "two :path" => Stream(1, &[PROTOCOL]), |r| headers(r, 1, &[&[GET[2]], GET].concat());
    "9113 8.3.1" "two :authority" => Stream(1, &[PROTOCOL]), |r| headers(r, 1, &[&[GET[3]], GET].concat());
    "9113 8.3.1" "neither :authority nor host" => Refused(1), |r| headers(r, 1, &GET[..3]);
    "9113 8.3.1" "host in place of :authority" => Answer(1), |r| {
        headers(r, 1, &[&GET[..3], &[("host", "h.test")]].concat());
    };
    "9113 8.3.1" "host beside another :authority" => Refused(1), |r| get_with(r, &[("host", "evil.test")]);
    "9113 8.3.1" "host beside the same :authority" => Answer(1), |r| get_with(r, &[("host", "h.test")]);
    "9113 8.3.1" "an :authority with a user" => Refused(1), |r| {
        headers(r, 1, &[&GET[..3], &[(":authority", "u@h.test")]].concat());
    };
    "9113 8.5" "CONNECT with a :path" => Stream(1, &[PROTOCOL]), |r| {
        headers(r, 1, &[(":method", "CONNECT"), (":scheme", "http"), (":path", "/"), (":authority", "h:1")]);
    };
    "7541 2.3.3" "an index beyond the tables" => Connection(&[COMPRESSION]), |r| coded(r, b"\xc6");
    "7541 2.3.3" "a literal whose name is beyond the tables" => Connection(&[COMPRESSION]), |r| {
        coded(r, b"\x7f\x07\x01x");
    };
    "7541 4.2" "a change of the table's size behind a field" => Connection(&[COMPRESSION]), |r| coded(r, b"\x20");
    "7541 5.1" "an integer without end" => Connection(&[COMPRESSION]), |r| {
        coded(r, b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01");
    };
    "7541 5.2" "Huffman padding longer than 7 bits" => Connection(&[COMPRESSION]), |r| {
        coded(r, b"\x00\x81\xf3\x84\x07\x2a\x53\xff");
    };
    "7541 5.2" "Huffman padding of zeros" => Connection(&[COMPRESSION]), |r| coded(r, b"\x00\x01x\x81\x18");
    "7541 5.2" "EOS in a Huffman string" => Connection(&[COMPRESSION]), |r| {
        coded(r, b"\x00\x01x\x84\xff\xff\xff\xff");
    };
    "7541 6.1" "the index 0" => Connection(&[COMPRESSION]), |r| coded(r, b"\x80");
    "7541 6.3" "a table larger than SETTINGS_HEADER_TABLE_SIZE" => Connection(&[COMPRESSION]), |r| {
        r.send(HEADERS, EH | ES, 1, [b"\x3f\xe1\x7f".to_vec(), block(GET)].concat());
    };
};

/// What went wrong, if anything did.
fn judge(raw: &mut Raw, then: Then) -> Result<(), String> {
    // The library says PROTOCOL_ERROR for most that has a code of its own; that one is always true (RFC 9113 §7).
    let ended = |code: Option<u32>, codes: &[u32]| match code {
        Some(code) if code != PROTOCOL && !codes.contains(&code) => Err(format!("GOAWAY with {code}")),
        _ => Ok(()),
    };
    let (stream, codes) = match then {
        Nothing => return if raw.lives() { Ok(()) } else { Err("the connection ended".into()) },
        Connection(codes) => return ended(raw.goodbye(), codes),
        Stream(stream, codes) => (stream, Some(codes)),
        Answer(stream) | Refused(stream) => (stream, None),
    };
    let refused = matches!(then, Refused(_));
    while let Some(frame) = raw.next() {
        match (frame.kind, codes) {
            (GOAWAY, Some(codes)) => return ended(Some(frame.code()), codes),
            (RST_STREAM, Some(codes)) if frame.stream == stream && codes.contains(&frame.code()) => {
                return Ok(());
            }
            (RST_STREAM, None) if refused && frame.stream == stream => return Ok(()),
            (HEADERS, None) if frame.stream == stream => {
                let code = frame.payload.iter().find(|b| *b & 0xe0 != 0x20).copied();
                let wanted = if refused { 0x8c } else { 0x88 };
                return if code == Some(wanted) { Ok(()) } else { Err(format!("answered with {frame:?}")) };
            }
            (RST_STREAM | GOAWAY, _) => return Err(format!("{frame:?}, code {}", frame.code())),
            _ => {}
        }
    }
    if codes.is_some() { Ok(()) } else { Err("the connection ended".into()) }
}

/// A server that answers at once, unless the request says that it is slow.
pub fn origin() -> Origin {
    Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            if field(&head, "x-slow").is_some() {
                peer.is_closed();
                return;
            }
            if field(&head, "transfer-encoding").is_some() {
                let mut text = String::new();
                while !text.ends_with("0\r\n\r\n") {
                    text += &peer.text(1);
                }
            } else {
                let length = field(&head, "content-length").map_or(0, |v| v.parse().unwrap());
                peer.take(length);
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    })
}

#[test]
fn every_rule_of_the_protocol_is_kept() {
    let origin = origin();
    let both = Both::start(origin.address);
    let mut wrong = Vec::new();
    for over in [Over::Tcp, Over::Tls] {
        for case in CASES {
            let mut raw = both.open(over);
            (case.act)(&mut raw);
            if let Err(why) = judge(&mut raw, case.then) {
                let Case { section, what, then, .. } = case;
                wrong.push(format!("RFC {section}, over {over:?}: {what}: {then:?} expected: {why}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), 2 * CASES.len(), wrong.join("\n"));
}

#[test]
fn a_connection_begins_with_the_preface_and_settings() {
    let origin = origin();
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    // RFC 9113 §3.4: the server's first frame is SETTINGS, whatever else the client sends with its own.
    let mut raw = Raw::silent(door.address);
    for byte in PREFACE {
        raw.write([*byte]);
    }
    raw.settings(&[]);
    raw.get(1);
    assert_eq!(raw.next().unwrap().kind, SETTINGS);
    assert_eq!(raw.answer(1), (0x88, b"ok".to_vec()));
    // The client's first frame must be SETTINGS too.
    let mut raw = Raw::silent(door.address);
    raw.write([PREFACE, &frame(PING, 0, 0, b"12345678")].concat());
    assert!(matches!(raw.goodbye(), Some(PROTOCOL) | None));
    let mut raw = Raw::silent(door.address);
    raw.write(PREFACE);
    raw.send(SETTINGS, ACK, 0, b"");
    assert!(matches!(raw.goodbye(), Some(PROTOCOL) | None));
    // What only begins like the preface is a bad HTTP/1 request.
    let mut client = Peer::connect(door.address);
    client.send("PRI * HTTP/2.0\r\n\r\nXM\r\n\r\n");
    assert!(client.head().starts_with("HTTP/1.1 505 "));
    // Nor does a connection change in the middle: what is behind a request is the next one.
    let mut client = Peer::connect(door.address);
    client.send([get("/").as_bytes(), PREFACE].concat());
    assert_eq!(client.message().1, "ok");
    assert!(client.head().starts_with("HTTP/1.1 505 "));
}
