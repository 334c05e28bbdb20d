//! Clients that ask for work without end, on one connection: it ends, and another one is served as ever.

use crate::common::*;
use crate::spec::origin;
use crate::wire::*;

/// Sends what `round` makes until the connection ends, and says after how many rounds it was written, at most, and
/// with which code.
fn flood(raw: &mut Raw, most: u32, round: impl Fn(u32) -> Vec<u8>) -> Option<u32> {
    for i in 0..most {
        raw.write(round(i));
    }
    raw.goodbye()
}

fn cancelled(i: u32) -> Vec<u8> {
    let stream = 2 * i + 1;
    [
        frame(HEADERS, END_HEADERS | END_STREAM, stream, block(GET)),
        frame(RST_STREAM, 0, stream, b"\0\0\0\x08"),
    ]
    .concat()
}

/// A stream, and behind it something that makes the server reset it (CVE-2025-8671).
fn made_to_reset(i: u32, kind: u8, payload: &[u8]) -> Vec<u8> {
    let stream = 2 * i + 1;
    [frame(HEADERS, END_HEADERS | END_STREAM, stream, block(GET)), frame(kind, 0, stream, payload)].concat()
}

/// A header block that is short on the wire and endless when decoded: one large field into the table, then that again.
fn bomb(i: u32) -> Vec<u8> {
    let mut bytes = block(GET);
    if i == 0 {
        bytes.push(0x40);
        for text in ["x-bomb", &"b".repeat(3900)] {
            integer(&mut bytes, 0, 7, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes.extend([0xbe; 12_000]);
    frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, bytes)
}

#[test]
fn every_flood_is_ended_and_hurts_nobody_else() {
    let origin = origin();
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut neighbour = Raw::open(door.address);
    type Round = Box<dyn Fn(u32) -> Vec<u8>>;
    let same = |bytes: Vec<u8>| -> Round { Box::new(move |_| bytes.clone()) };
    let floods: Vec<(&str, Round)> = vec![
        ("rapid reset", Box::new(cancelled)),
        ("reset by WINDOW_UPDATE of 0", Box::new(|i| made_to_reset(i, WINDOW_UPDATE, &[0; 4]))),
        (
            "reset by a window too large",
            Box::new(|i| made_to_reset(i, WINDOW_UPDATE, &[0x7f, 255, 255, 255])),
        ),
        ("reset by PRIORITY of a wrong length", Box::new(|i| made_to_reset(i, PRIORITY, &[0; 4]))),
        (
            "malformed requests",
            Box::new(|i| frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, block(&GET[1..]))),
        ),
        ("SETTINGS", same(frame(SETTINGS, 0, 0, b""))),
        ("PING", same(frame(PING, 0, 0, b"12345678"))),
        ("PRIORITY", same(frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"))),
        ("WINDOW_UPDATE", same(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"))),
        ("unknown frames", same(frame(0xbe, 0, 0, b"x"))),
        ("header bombs", Box::new(bomb)),
    ];
    for (name, round) in floods {
        let mut raw = Raw::open(door.address);
        let code = flood(&mut raw, 1000, round);
        // A reset of the connection may overtake the GOAWAY; what is wrong as well may be called so.
        assert!(matches!(code, Some(CALM | PROTOCOL) | None), "{name}: {code:?}");
        let mut other = Raw::open(door.address);
        other.get(1);
        assert_eq!(other.answer(1), (0x88, b"ok".to_vec()), "after {name}");
        neighbour.send(PING, 0, 0, b"neighbor");
        neighbour.until(|f| f.kind == PING && f.flags & ACK != 0);
    }
    let errors = proxy.status().frontends[0].request_errors_total;
    assert!(errors >= 6, "{errors} errors counted");
}

#[test]
fn a_header_block_ends_before_64_kib() {
    let origin = origin();
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    for piece in [1, 100, 16_000] {
        let mut raw = Raw::open(door.address);
        raw.send(HEADERS, END_STREAM, 1, block(GET));
        let mut sent = 0;
        let field = block(&[("x", &"y".repeat(piece))]);
        while sent < 64 * 1024 {
            raw.send(CONTINUATION, 0, 1, &field);
            sent += field.len();
        }
        assert!(matches!(raw.goodbye(), Some(CALM) | None), "pieces of {piece}");
    }
    let mut raw = Raw::open(door.address);
    raw.get(1);
    assert_eq!(raw.answer(1), (0x88, b"ok".to_vec()));
}

#[test]
fn empty_data_without_end_is_ended() {
    let origin = origin();
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    for (flags, payload) in [(0, &b""[..]), (PADDED, b"\x03\0\0\0")] {
        let mut raw = Raw::open(door.address);
        raw.send(HEADERS, END_HEADERS, 1, with(POST, &[("x-slow", "yes")]));
        let code = flood(&mut raw, 1000, |_| frame(DATA, flags, 1, payload));
        assert!(matches!(code, Some(CALM) | None), "{code:?}");
    }
}

#[test]
fn a_long_and_busy_connection_is_never_ended() {
    let origin = origin();
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut raw = Raw::open(door.address);
    // Three thousand requests, of which every fourth is cancelled, with both windows opened after each answer.
    for i in 0..3000 {
        let stream = 2 * i + 1;
        if i % 4 == 0 {
            raw.write(cancelled(i));
            continue;
        }
        raw.get(stream);
        assert_eq!(raw.answer(stream), (0x88, b"ok".to_vec()));
        raw.send(WINDOW_UPDATE, 0, 0, b"\0\0\0\x02");
        if i % 10 == 1 {
            assert!(raw.lives());
        }
    }
    assert!(raw.lives());
}

#[test]
fn requests_whose_head_is_too_long_are_answered_with_431() {
    let origin = origin();
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut raw = Raw::open(door.address);
    // Beyond what HTTP/1.1 heads may have, within what the header list may: our own answer, and a line.
    let long = with(GET, &[("x", &"y".repeat(16_000)), ("z", &"y".repeat(800))]);
    raw.send(HEADERS, END_STREAM, 1, &long[..16_000]);
    raw.send(CONTINUATION, END_HEADERS, 1, &long[16_000..]);
    let head = raw.until(|f| f.kind == HEADERS);
    assert!(head.stream == 1 && !head.ends(), "an answer with a body: {head:?}");
    assert!(proxy.lines(1)[0].contains(" 431 "), "{:?}", proxy.lines(1));
    // Beyond that: the list is not even kept.
    let long = with(GET, &[("x", &"y".repeat(16_000)), ("z", &"y".repeat(8000))]);
    raw.send(HEADERS, END_STREAM, 3, &long[..16_000]);
    raw.send(CONTINUATION, END_HEADERS, 3, &long[16_000..]);
    let head = raw.until(|f| f.kind == HEADERS && f.stream == 3);
    assert!(head.ends(), "{head:?}");
    assert!(raw.lives());
}
