//! The targets, and the table of them. To add one: a function that checks an input, a row, and its seeds.

use relais_http::meter::Meter;
use relais_http::request::Edit;
use relais_http::response::{Asked, MINOR_AT};
use relais_http::{Body, Chunked, Framing, Request, Response};

use crate::{Reading, Target, heartbeat, lines, peer, peers, seeds, vrrp};

/// All of them.
pub const TARGETS: &[Target] = &[
    Target { name: "request", seeds: request_seeds, words: HTTP, check: request },
    Target {
        name: "response",
        seeds: || seeds::lines(include_str!("../corpus/response.seeds")),
        words: HTTP,
        check: response,
    },
    Target {
        name: "chunked",
        seeds: || seeds::lines(include_str!("../corpus/chunked.seeds")),
        words: CHUNKS,
        check: chunked,
    },
    Target {
        name: "proxy-protocol",
        seeds: || seeds::lines(include_str!("../corpus/proxy-protocol.seeds")),
        words: PROXY,
        check: |input| {
            relais_http::proxy_protocol::fuzz(input);
            Ok(())
        },
    },
    Target {
        name: "h2-meter",
        seeds: || seeds::lines(include_str!("../corpus/h2-meter.seeds")),
        words: FRAMES,
        check: h2_meter,
    },
    Target {
        name: "rules",
        seeds: || seeds::lines(include_str!("../corpus/rules.seeds")),
        words: RULES,
        check: |input| {
            relais_rules::fuzz(input);
            Ok(())
        },
    },
    Target {
        name: "checks",
        seeds: || seeds::lines(include_str!("../corpus/checks.seeds")),
        words: CHECKS,
        check: |input| {
            relais_checks::fuzz(input);
            Ok(())
        },
    },
    Target {
        name: "vrrp",
        seeds: || seeds::lines(include_str!("../corpus/vrrp.seeds")),
        words: vrrp::WORDS,
        check: vrrp::check,
    },
    Target { name: "heartbeat", seeds: heartbeat::seeds, words: heartbeat::WORDS, check: heartbeat::check },
    Target { name: "peers", seeds: peers::seeds, words: peers::WORDS, check: peers::check },
    Target {
        name: "tls-records",
        seeds: || seeds::lines(include_str!("../corpus/tls-records.seeds")),
        words: RECORDS,
        check: |input| {
            relais_proxy::fuzz_tls_records(input);
            Ok(())
        },
    },
    Target {
        name: "certificate",
        seeds: || seeds::lines(include_str!("../corpus/certificate.seeds")),
        words: DER,
        check: |input| {
            relais_proxy::fuzz_certificate(input);
            Ok(())
        },
    },
    Target {
        name: "plan",
        seeds: || vec![include_bytes!("../../examples/progres.kdl").to_vec()],
        words: PLAN,
        check: plan,
    },
];

const RECORDS: &[&[u8]] = &[
    b"\x14\x03\x03\0\x01\x01",
    b"\x15\x03\x03\0\x02",
    b"\x16\x03\x01",
    b"\x17\x03\x03",
    b"\x40\x01",
    b"\x14\0\0\x20",
];

const DER: &[&[u8]] = &[
    b"\x30\x80",
    b"\x30\x82\xff\xff",
    b"\x30\0",
    b"\x06\x03\x55\x1d\x11",
    b"\x87\x04",
    b"\x17\x0d",
    b"\x18\x0f",
    b"\xa3",
];

fn request_seeds() -> Vec<Vec<u8>> {
    let mut all = seeds::lines(include_str!("../corpus/request.seeds"));
    all.extend(seeds::of_table());
    all
}

const HTTP: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b": ",
    b"\0",
    b"GET / HTTP/1.1\r\n",
    b"POST /x HTTP/1.0\r\n",
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.1 204 No\r\n",
    b"HTTP/1.1 304 No\r\n",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"HTTP/1.0 ",
    b"Host: h\r\n",
    b"Content-Length: 5\r\n",
    b"Content-Length: 0\r\n",
    b"content-length:5",
    b"Content_Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: gzip, chunked\r\n",
    b"transfer-encoding:\tCHUNKED",
    b"Transfer_Encoding: chunked\r\n",
    b"chunked",
    b"identity",
    b", ",
    b"Connection: close\r\n",
    b"Connection: keep-alive, x-a\r\n",
    b"Connection: Content-Length\r\n",
    b"Connection: upgrade\r\nUpgrade: x\r\n",
    b"Expect: 100-continue\r\n",
    b"Max-Forwards: 0\r\n",
    b"TE: trailers\r\n",
    b"Trailer: X\r\n",
    b"X-A: b\r\n",
    b"GET http://h/ HTTP/1.1\r\n",
    b"OPTIONS * HTTP/1.1\r\n",
    b"HEAD / HTTP/1.1\r\n",
    b"5\r\nhello\r\n0\r\n\r\n",
    b"0\r\n\r\n",
    b"0\r\nX-T: v\r\n\r\n",
    b"5;a=b\r\n",
    b";a=\"",
    b"[::1]",
    b"%2e",
    b"hello",
];

const CHUNKS: &[&[u8]] = &[
    b"\r\n",
    b"0\r\n\r\n",
    b"5\r\nhello\r\n",
    b"0\r\n",
    b"00",
    b"0x",
    b"f",
    b"A",
    b";a",
    b";a=b",
    b";a=\"b\"",
    b"=\"\\\"",
    b" ;",
    b"X-T: v\r\n",
    b"Content-Length: 5\r\n",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b"10000000000000000",
];

const PROXY: &[&[u8]] = &[
    b"PROXY ",
    b"TCP4 ",
    b"TCP6 ",
    b"UNKNOWN",
    b"\r\n",
    b" ",
    b"10.0.0.1 ",
    b"2001:db8::1 ",
    b"65535",
    b"65536",
    b"0",
    b"\r\n\r\n\0\r\nQUIT\n",
    b"\x21\x11\0\x0c",
    b"\x21\x21\0\x24",
    b"\x20\0\0\0",
    b"\x21\x31\0\xd8",
    b"\xff\xff",
    b"\x20\0\x05",
];

const FRAMES: &[&[u8]] = &[
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\0\0\0\x04\0\0\0\0\0",
    b"\0\0\0\x04\x01\0\0\0\0",
    b"\0\0\x08\x06\0\0\0\0\0abcdefgh",
    b"\0\0\x04\x03\0\0\0\0\x01\0\0\0\x08",
    b"\0\0\x04\x08\0\0\0\0\x01\0\0\0\x01",
    b"\0\0\x01\x01\x04\0\0\0\x01\x82",
    b"\0\0\x01\x01\0\0\0\0\x03\x82",
    b"\0\0\x01\x09\0\0\0\0\x03\x82",
    b"\0\0\x01\x09\x04\0\0\0\x03\x82",
    b"\0\0\x03\0\x01\0\0\0\x01abc",
    b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\0\0\0\0\0\x01",
    b"\0\0\0\xfe\0\0\0\0\0",
];

const CHECKS: &[&[u8]] = &[
    b"\0",
    b"\x01",
    b"\x02",
    b"\x03",
    b"\x04",
    b"\x05",
    b"\x06",
    b"\xff",
    b"\xfe",
    b"\x0a",
    b"\0\0\0",
    b"\0\0\x02",
    b"\r\n",
    b"220 ",
    b"250-",
    b"+OK",
    b"+PONG",
    b"-ERR",
    b"R\0\0\0",
    b"E\0\0\0",
    b"\x30\x84",
    b"\x61",
    b"\x16\x03",
    b"wsrep_ready",
    b"mysql_native_password\0",
];

const RULES: &[&[u8]] = &[
    b"/", b"//", b"/../", b"/./", b"..", b";x=y", b"%2e", b"%2E%2e", b"%2f", b"%5c", b"%00", b"%25",
    b"%c0%af", b"%6d", b"\\", b"?", b"*", b"**", b"[a-z]", b"(a|b)+", b"^", b"$", b".*", b"$1", b"${1}",
    b"\n", b"\xff", b"(?i)",
];

const PLAN: &[&[u8]] = &[
    b"{",
    b"}",
    b"\"",
    b"\n",
    b";",
    b"=",
    b"frontend x {\n",
    b"backend y {\n",
    b"server s \"10.0.0.1:80\"\n",
    b"#true",
    b"/-",
    b"/*",
    b"*/",
    b"r#\"",
    b"\\u{10ffff}",
    b"0x",
    b"-1",
    b"1e999",
    b"\"50ms\"",
    b"node",
    b"platform",
    b"bind",
    b"check http",
    b"on ",
    b"\xff",
    b"\xe2\x80\xae",
];

/// What we send on of a client's bytes, and whether the client is cut off for what follows.
struct Sent {
    bytes: Vec<u8>,
    /// So many requests were sent on whole.
    whole: usize,
    /// Method, target and length of the body's data of each.
    meant: Vec<(String, String)>,
}

/// Forwards as the proxy does: one request after the other, until one is refused, incomplete, or the last.
fn forward(input: &[u8]) -> Sent {
    let mut sent = Sent { bytes: Vec::new(), whole: 0, meant: Vec::new() };
    let mut rest = input;
    while let Ok(Some(request)) = Request::parse(rest, Edit { strip_forwarded: true }) {
        let out = &mut sent.bytes;
        out.extend_from_slice(request.method_sp.of(rest));
        let path = request.path.of(rest);
        match path.first() {
            None if request.method == relais_http::Method::Options => out.push(b'*'),
            None | Some(b'?') => out.push(b'/'),
            _ => {}
        }
        out.extend_from_slice(path);
        let from = request.method_sp.of(rest).len();
        let start = out.len() - path.len() - usize::from(!matches!(path.first(), Some(b'/' | b'*')));
        let text = |bytes: &[u8]| bytes.iter().map(|b| char::from(*b)).collect::<String>();
        sent.meant.push((text(&request.method_sp.of(rest)[..from - 1]), text(&out[start..])));
        out.extend_from_slice(b" HTTP/1.1\r\n");
        for span in request.fields.spans() {
            out.extend_from_slice(span.of(rest));
        }
        if !request.has_host_field {
            out.extend_from_slice(b"Host: ");
            out.extend_from_slice(request.host.map_or(b"server", |host| host.of(rest)));
            out.extend_from_slice(b"\r\n");
        }
        out.extend_from_slice(b"Via: 1.1 relais\r\n\r\n");
        let body = &rest[request.length..];
        let Some(used) = forward_body(request.body, body, Framing::Keep, out) else { return sent };
        sent.whole += 1;
        if !request.keep_alive {
            break;
        }
        rest = &body[used..];
    }
    sent
}

/// Appends what is sent on of a body, and says how long it was; `None` if it is refused or not all there.
fn forward_body(body: Body, bytes: &[u8], framing: Framing, out: &mut Vec<u8>) -> Option<usize> {
    match body {
        Body::None => Some(0),
        Body::UntilClose => {
            out.extend_from_slice(bytes);
            Some(bytes.len())
        }
        Body::Length(n) => {
            let n = usize::try_from(n).unwrap_or(usize::MAX);
            out.extend_from_slice(&bytes[..n.min(bytes.len())]);
            (n <= bytes.len()).then_some(n)
        }
        Body::Chunked => {
            let mut copy = bytes.to_vec();
            let mut chunked = Chunked::new(framing);
            let progress = chunked.forward(&mut copy).ok()?;
            out.extend_from_slice(&copy[..progress.kept]);
            chunked.is_end().then_some(progress.used)
        }
    }
}

/// A request that is sent on means the same to three readers, and what is not whole looks whole to none.
fn request(input: &[u8]) -> Result<(), String> {
    let sent = forward(input);
    let strict = lines::requests(&sent.bytes);
    if strict.whole.len() != sent.whole {
        return Err(format!("we sent {} whole requests, but {strict:?}", sent.whole));
    }
    for ((method, target), message) in sent.meant.iter().zip(&strict.whole) {
        if (method, target) != (&message.method, &message.target) {
            return Err(format!("we meant {method} {target}, but {message:?}"));
        }
        for name in
            ["connection", "keep-alive", "proxy-connection", "te", "http2-settings", "transfer_encoding"]
        {
            if message.fields.iter().any(|(field, _)| field == name) {
                return Err(format!("{name} is sent on"));
            }
        }
    }
    // hyper's URIs are narrower than the targets that clients send; it then refuses the request, which is one reading.
    let readable = sent.meant.iter().take_while(|(_, target)| target.parse::<hyper::Uri>().is_ok()).count();
    agree(&strict, &peer::requests(&sent.bytes), readable.min(sent.whole))
}

fn agree(strict: &Reading, other: &Reading, whole: usize) -> Result<(), String> {
    if other.whole.len() < whole || other.whole.len() > strict.whole.len() {
        return Err(format!("hyper finds {other:?}\n  where {strict:?}"));
    }
    match strict.whole.iter().zip(&other.whole).find(|(a, b)| a != b) {
        Some((ours, theirs)) => Err(format!("hyper reads {theirs:?}\n  where {ours:?}")),
        None => Ok(()),
    }
}

/// A response that is sent on means the same to three readers. The first byte says what was asked.
fn response(input: &[u8]) -> Result<(), String> {
    let Some((&mode, mut rest)) = input.split_first() else { return Ok(()) };
    let asked = Asked { head: mode & 1 == 1, upgrade: false, minor: 1 - (mode >> 1 & 1) };
    let mut out = Vec::new();
    let mut interim = 0;
    let (final_response, whole) = loop {
        let Ok(Some(response)) = Response::parse(rest, asked) else { return Ok(()) };
        let start = out.len();
        for span in response.kept.spans() {
            out.extend_from_slice(span.of(rest));
        }
        out[start + MINOR_AT] = b'1';
        let unframed = response.body == Body::UntilClose || response.unchunk;
        out.extend_from_slice(if unframed { b"Connection: close\r\n\r\n" } else { b"\r\n" });
        rest = &rest[response.length..];
        interim += 1;
        if !response.is_interim() {
            let framing = if response.unchunk { Framing::Strip } else { Framing::Keep };
            let whole = forward_body(response.body, rest, framing, &mut out).is_some();
            break (response, whole);
        }
        if interim > 8 {
            return Ok(());
        }
    };
    if !whole && (final_response.unchunk || final_response.body == Body::UntilClose) {
        return Ok(()); // ends in a reset
    }
    let strict = lines::response(&out, asked.head);
    if strict.whole.len() != usize::from(whole) || (whole && strict.refused.is_some()) {
        return Err(format!("we sent {} whole responses, but {strict:?}", usize::from(whole)));
    }
    if let Some(message) = strict.whole.first()
        && message.target != final_response.status.to_string()
    {
        return Err(format!("we meant {}, but {message:?}", final_response.status));
    }
    agree(&strict, &peer::response(&out, asked.head), usize::from(whole))
}

/// A chunked body is judged by its bytes, not by its packets; and stripped it is its data.
fn chunked(input: &[u8]) -> Result<(), String> {
    let run = |size: usize, framing: Framing| -> (Vec<u8>, bool, bool) {
        let mut chunked = Chunked::new(framing);
        let (mut out, mut held) = (Vec::new(), Vec::new());
        for piece in input.chunks(size) {
            held.extend_from_slice(piece);
            let Ok(progress) = chunked.forward(&mut held) else { return (out, false, true) };
            out.extend_from_slice(&held[..progress.kept]);
            held.drain(..progress.used);
        }
        (out, chunked.is_end(), false)
    };
    let size = 1 + usize::from(input.first().copied().unwrap_or(0) & 31);
    for framing in [Framing::Keep, Framing::Strip] {
        let (whole, end, bad) = run(input.len().max(1), framing);
        let (pieces, end_too, bad_too) = run(size, framing);
        let (single, end_three, bad_three) = run(1, framing);
        if (end, bad) != (end_too, bad_too) || (end, bad) != (end_three, bad_three) {
            return Err(format!("in pieces of {size} it is judged otherwise"));
        }
        if !bad && (whole != pieces || whole != single) {
            return Err(format!("in pieces of {size} other bytes are sent on"));
        }
        if framing == Framing::Keep {
            // With a head in front, strict readers agree whether it is whole, and what it says.
            let head = b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
            let strict = lines::requests(&[&head[..], &whole].concat());
            if strict.whole.len() != usize::from(end) {
                return Err(format!("it is {}whole, but {strict:?}", if end { "" } else { "not " }));
            }
            if let Some(message) = strict.whole.first()
                && message.body != run(input.len().max(1), Framing::Strip).0
            {
                return Err("stripped it is not its data".into());
            }
        }
    }
    Ok(())
}

/// Frames are counted by what they are, not by how they are cut into reads; a verdict stands.
fn h2_meter(input: &[u8]) -> Result<(), String> {
    let now = relais_base::Time::from_nanos(1);
    let size = 1 + usize::from(input.first().copied().unwrap_or(0) & 31);
    let mut verdicts = Vec::new();
    for size in [input.len().max(1), size, 1] {
        let (mut client, mut server) = (Meter::new(now), Meter::new(now));
        let came = input.chunks(size).find_map(|piece| client.received(piece, now).err());
        let went = input.chunks(size).find_map(|piece| server.sent(piece).err());
        verdicts.push(format!("{came:?} {went:?}"));
    }
    if verdicts.iter().any(|verdict| *verdict != verdicts[0]) {
        return Err(format!("whole, in pieces of {size}, of 1: {verdicts:?}"));
    }
    Ok(())
}

/// A plan is taken or refused with diagnostics that can be shown, whatever it says.
fn plan(input: &[u8]) -> Result<(), String> {
    let Ok(text) = std::str::from_utf8(input) else { return Ok(()) };
    match relais_config::parse("fuzz.kdl", text) {
        Ok(_) => Ok(()),
        Err(rejected) if rejected.to_string().is_empty() => Err("refused without a word".into()),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn for_a_second(name: &str) {
        let target = TARGETS.iter().find(|t| t.name == name).expect("a target");
        let found = crate::run(target, 1, Duration::from_secs(1));
        found.map_err(|f| format!("{}: {}\n{}", f.tried, f.fault, seeds::escape(&f.input))).expect(name);
    }

    #[test]
    fn requests_that_are_sent_on_mean_the_same_to_three_readers() {
        for_a_second("request");
    }

    #[test]
    fn responses_that_are_sent_on_mean_the_same_to_three_readers() {
        for_a_second("response");
    }

    #[test]
    fn chunks_are_judged_by_their_bytes() {
        for_a_second("chunked");
    }

    #[test]
    fn frames_are_counted_the_same_in_whatever_pieces() {
        for_a_second("h2-meter");
    }

    #[test]
    fn proxy_headers_are_the_same_in_whatever_pieces() {
        for_a_second("proxy-protocol");
    }

    #[test]
    fn paths_are_normal_once_read_and_globs_agree_with_the_index() {
        for_a_second("rules");
    }

    #[test]
    fn answers_to_checks_are_judged_the_same_in_whatever_pieces() {
        for_a_second("checks");
    }

    #[test]
    fn advertisements_that_are_read_are_written_and_read_the_same() {
        for_a_second("vrrp");
    }

    #[test]
    fn heartbeats_that_are_read_leave_the_membership_whole() {
        for_a_second("heartbeat");
    }

    #[test]
    fn what_peers_say_is_read_the_same_in_whatever_pieces() {
        for_a_second("peers");
    }

    #[test]
    fn records_of_tls_are_judged_the_same_in_whatever_pieces() {
        for_a_second("tls-records");
    }

    #[test]
    fn certificates_are_read_or_not_and_nothing_else() {
        for_a_second("certificate");
    }

    #[test]
    fn plans_are_taken_or_refused_with_words() {
        for_a_second("plan");
    }

    #[test]
    fn a_planted_fault_is_found_and_made_short() {
        let target = Target {
            name: "planted",
            seeds: || seeds::lines(include_str!("../corpus/request.seeds")),
            words: HTTP,
            check: |input| {
                let both =
                    input.windows(8).any(|w| w == b"chunked\r") && input.windows(3).any(|w| w == b"\r\n\n");
                if both { Err("planted".into()) } else { Ok(()) }
            },
        };
        let finding = crate::run(&target, 1, Duration::from_secs(60)).expect_err("it is there");
        assert_eq!((finding.fault.as_str(), finding.input.len() <= 11), ("planted", true), "{finding:?}");
    }

    #[test]
    fn every_target_is_run_for_a_second_by_a_test() {
        let tests = include_str!("targets.rs");
        for target in TARGETS {
            assert!(tests.contains(&format!("for_a_second(\"{}\")", target.name)), "{}", target.name);
        }
    }
}
