//! Clients that ask for work without end, on one connection: it ends, and another one is served as ever.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::common::*;
use crate::secure::{Both, Over};
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

/// Makes the bytes of a round.
type Round = Box<dyn Fn(u32) -> Vec<u8>>;

/// The floods: a name, how often, at most, and with what.
fn floods() -> Vec<(&'static str, u32, Round)> {
    let same = |bytes: Vec<u8>| -> Round { Box::new(move |_| bytes.clone()) };
    vec![
        ("rapid reset", 1000, Box::new(cancelled)),
        ("reset by WINDOW_UPDATE of 0", 1000, Box::new(|i| made_to_reset(i, WINDOW_UPDATE, &[0; 4]))),
        (
            "reset by a window too large",
            1000,
            Box::new(|i| made_to_reset(i, WINDOW_UPDATE, &[0x7f, 255, 255, 255])),
        ),
        ("reset by PRIORITY of a wrong length", 1000, Box::new(|i| made_to_reset(i, PRIORITY, &[0; 4]))),
        (
            "malformed requests",
            1000,
            Box::new(|i| frame(HEADERS, END_HEADERS | END_STREAM, 2 * i + 1, block(&GET[1..]))),
        ),
        ("SETTINGS", 1000, same(frame(SETTINGS, 0, 0, b""))),
        ("PING", 1000, same(frame(PING, 0, 0, b"12345678"))),
        ("PRIORITY", 1000, same(frame(PRIORITY, 0, 1, b"\0\0\0\0\x10"))),
        ("WINDOW_UPDATE", 1000, same(frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"))),
        ("unknown frames", 1000, same(frame(0xbe, 0, 0, b"x"))),
        ("header bombs", 5, Box::new(bomb)),
        (
            "CONTINUATION",
            64,
            Box::new(|i| match i {
                0 => frame(HEADERS, END_STREAM, 1, block(GET)),
                _ => frame(CONTINUATION, 0, 1, block(&[("x", &"y".repeat(1000))])),
            }),
        ),
        (
            "empty DATA",
            1000,
            Box::new(|i| match i {
                0 => frame(HEADERS, END_HEADERS, 1, with(POST, &[("x-slow", "yes")])),
                _ => frame(DATA, 0, 1, b""),
            }),
        ),
    ]
}

#[test]
fn every_flood_is_ended_and_hurts_nobody_else() {
    let origin = origin();
    let both = Both::start(origin.address);
    for over in [Over::Tcp, Over::Tls] {
        let mut neighbour = both.open(over);
        for (name, most, round) in floods() {
            let mut raw = both.open(over);
            let code = flood(&mut raw, most, round);
            // A reset of the connection may overtake the GOAWAY; what is wrong as well may be called so.
            assert!(matches!(code, Some(CALM | PROTOCOL) | None), "{name}: {code:?}");
            let mut other = both.open(over);
            other.get(1);
            assert_eq!(other.answer(1), (0x88, b"ok".to_vec()), "after {name}");
            neighbour.send(PING, 0, 0, b"neighbor");
            neighbour.until(|f| f.kind == PING && f.flags & ACK != 0);
        }
    }
    let errors = both.proxy.status().frontends[0].request_errors_total;
    assert!(errors >= 12, "{errors} errors counted");
}

/// A figure of this process, KiB: `VmRSS`, or `VmHWM`, the most that it was.
fn memory(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The peak counts from here on (proc(5), `clear_refs`).
fn forget_the_peak() {
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
}

#[test]
fn floods_of_a_hundred_connections_leave_no_memory_behind() {
    const AT_ONCE: usize = 100;
    const MOST_KIB: u64 = 4096;
    let origin = origin();
    let both = Both::start(origin.address);
    for over in [Over::Tcp, Over::Tls] {
        let mut settled = None;
        for _ in 0..2 {
            for (name, most, round) in floods() {
                let bytes: Vec<u8> = (0..most).flat_map(&round).collect();
                let mut raws: Vec<Raw> = (0..AT_ONCE).map(|_| both.open(over)).collect();
                forget_the_peak();
                let before = memory("VmHWM");
                raws.iter_mut().for_each(|raw| raw.write(&bytes));
                for raw in &mut raws {
                    let code = raw.goodbye();
                    assert!(matches!(code, Some(CALM | PROTOCOL) | None), "{name}: {code:?}");
                }
                let mut other = both.open(over);
                other.get(1);
                assert_eq!(other.answer(1), (0x88, b"ok".to_vec()), "after {name}");
                let peak = memory("VmHWM");
                assert!(peak < before + MOST_KIB, "{name} over {over:?}: from {before} to {peak} KiB");
            }
            wait("all connections to end", || {
                both.proxy.status().frontends.iter().map(|front| front.connections).sum::<u64>() <= 1
            });
            let now = memory("VmRSS");
            let settled = *settled.get_or_insert(now);
            assert!(now < settled + MOST_KIB, "over {over:?}: {settled} KiB, then {now}");
        }
    }
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
fn what_is_asked_and_cancelled_in_one_breath_goes_nowhere() {
    let asked = Arc::new(AtomicU32::new(0));
    let count = asked.clone();
    let origin = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            count.fetch_add(1, Ordering::SeqCst);
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut raw = Raw::open(door.address);
    raw.write((0..50).flat_map(cancelled).collect::<Vec<u8>>());
    raw.get(101);
    assert_eq!(raw.answer(101), (0x88, b"ok".to_vec()));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    let lines = proxy.lines(51);
    assert_eq!(lines.iter().filter(|line| line.contains(" CR-- ")).count(), 50, "{lines:?}");
    assert_eq!(proxy.status().frontends[0].request_errors_total, 50);
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
