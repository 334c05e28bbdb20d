//! Compression, from a client's side: what is compressed, for whom, and that it is the same afterwards.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;

const COMPRESSION: &str =
    "compression { algorithms zstd br gzip; types \"text/*\" \"application/json\"; min-size \"100B\"; }";

/// Text that does not end at a boundary of anything.
fn page() -> String {
    (0..7001).map(|i| format!("<p>paragraph {} of many</p>\n", i * 7919 % 1013)).collect()
}

/// What follows a head with `Transfer-Encoding: chunked`, without its framing.
fn chunks(peer: &mut Peer) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let piece = chunk(peer);
        if piece.is_empty() {
            return body;
        }
        body.extend_from_slice(&piece);
    }
}

/// One chunk; empty at the end, trailers and all.
fn chunk(peer: &mut Peer) -> Vec<u8> {
    let mut line = String::new();
    std::io::BufRead::read_line(&mut peer.io, &mut line).unwrap();
    let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size");
    let data = peer.take(size);
    while size == 0 && line != "\r\n" {
        line.clear();
        std::io::BufRead::read_line(&mut peer.io, &mut line).unwrap();
    }
    assert!(size == 0 || peer.text(2) == "\r\n");
    data
}

/// The plain text of a coded body.
fn decode(coding: &str, body: &[u8]) -> String {
    let mut plain = Vec::new();
    match coding {
        "br" => drop(brotli::Decompressor::new(body, 4096).read_to_end(&mut plain).unwrap()),
        "zstd" => drop(zstd::Decoder::new(body).unwrap().read_to_end(&mut plain).unwrap()),
        // The tool itself, so that header and checksum are seen by somebody else's eyes.
        "gzip" => {
            let mut gzip = Command::new("gzip")
                .arg("-dc")
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .expect("gzip");
            let (mut input, body) = (gzip.stdin.take().unwrap(), body.to_vec());
            let writer = std::thread::spawn(move || input.write_all(&body).unwrap());
            gzip.stdout.take().unwrap().read_to_end(&mut plain).unwrap();
            writer.join().unwrap();
            assert!(gzip.wait().unwrap().success());
        }
        other => panic!("{other}?"),
    }
    String::from_utf8(plain).unwrap()
}

fn ask(path: &str, more: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{more}\r\n")
}

/// An origin whose answer is made from the path and the request's head.
fn origin(answer: impl Fn(&str, &str) -> Vec<u8> + Send + Sync + 'static) -> Origin {
    Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            let bytes = answer(&path, &head);
            let old = bytes.starts_with(b"HTTP/1.0");
            if peer.try_send(&bytes).is_err() || old {
                return;
            }
        }
    })
}

fn with_length(head: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\n{head}Content-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn in_chunks(head: &str, body: &str) -> Vec<u8> {
    let mut out = format!("HTTP/1.1 200 OK\r\n{head}Transfer-Encoding: chunked\r\n\r\n");
    for piece in body.as_bytes().chunks(997) {
        out += &format!("{:x};x=y\r\n{}\r\n", piece.len(), std::str::from_utf8(piece).unwrap());
    }
    (out + "0\r\nX-Trailer: kept\r\n\r\n").into_bytes()
}

#[test]
fn a_response_is_compressed_as_the_client_likes_it_best() {
    let origin = origin(|path, _| match path {
        "/chunks" => in_chunks("Content-Type: text/html; charset=utf-8\r\n", &page()),
        "/close" => format!("HTTP/1.0 200 OK\r\nContent-Type: text/html\r\n\r\n{}", page()).into_bytes(),
        _ => with_length("Content-Type: Text/HTML\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n", &page()),
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, COMPRESSION, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let mut sent = 0;
    for path in ["/", "/chunks", "/close"] {
        for (accept, coding) in [
            ("gzip, deflate, br, zstd", "zstd"),
            ("gzip, br", "br"),
            ("gzip", "gzip"),
            ("zstd;q=0.1, gzip;q=0.2", "gzip"),
        ] {
            client.send(ask(path, &format!("Accept-Encoding: {accept}\r\n")));
            let head = client.head();
            assert_eq!(field(&head, "content-encoding"), Some(coding), "{head}");
            assert_eq!(field(&head, "transfer-encoding"), Some("chunked"));
            assert_eq!(field(&head, "vary"), Some("Accept-Encoding"));
            assert_eq!((field(&head, "content-length"), field(&head, "accept-ranges")), (None, None));
            if path == "/" {
                assert_eq!(field(&head, "etag"), Some("W/\"v1\""));
            }
            let body = chunks(&mut client);
            assert!(body.len() < page().len() / 4, "{} bytes", body.len());
            assert_eq!(decode(coding, &body), page());
            sent += 1;
        }
    }
    let status = proxy.status();
    let web = &status.frontends[0];
    assert_eq!(web.comp_responses_total, sent);
    assert_eq!(web.comp_in_total, sent * page().len() as u64);
    assert!(web.comp_out_total < web.comp_in_total / 4 && web.comp_out_total > 0);
    // The access line has the bytes that were sent.
    let line = proxy.lines(sent as usize).remove(0);
    let bytes: u64 = line.split(" 200 ").nth(1).unwrap().split(' ').next().unwrap().parse().unwrap();
    assert!(bytes < page().len() as u64 / 4, "{line}");
}

#[test]
fn what_must_not_be_compressed_is_not() {
    let long = "x".repeat(1000);
    let text = "Content-Type: text/plain\r\n";
    let body = long.clone();
    let origin = origin(move |path, _| match path {
        "/encoded" => with_length(&format!("{text}Content-Encoding: gzip\r\n"), &body),
        "/no-transform" => with_length(&format!("{text}Cache-Control: public, No-Transform\r\n"), &body),
        "/image" => with_length("Content-Type: image/png\r\n", &body),
        "/untyped" => with_length("", &body),
        "/short" => with_length(text, &body[..99]),
        "/digest" => with_length(&format!("{text}Content-Digest: sha-256=:AAAA:\r\n"), &body),
        "/trailer" => in_chunks(&format!("{text}Trailer: X-Trailer\r\n"), &body),
        "/part" => {
            let whole = with_length(&format!("{text}Content-Range: bytes 0-999/5000\r\n"), &body);
            String::from_utf8(whole).unwrap().replace("200 OK", "206 Partial Content").into_bytes()
        }
        _ => with_length(text, &body),
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, COMPRESSION, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for path in ["/encoded", "/no-transform", "/image", "/untyped", "/short", "/digest", "/part"] {
        client.send(ask(path, "Accept-Encoding: gzip\r\n"));
        let (head, got) = client.message();
        assert!(long.starts_with(&got) && got.len() >= 99, "{path}");
        assert_eq!(field(&head, "vary"), None, "{path}: {head}");
        assert_eq!(field(&head, "content-encoding").is_some(), path == "/encoded", "{path}: {head}");
    }
    client.send(ask("/trailer", "Accept-Encoding: gzip\r\n"));
    let head = client.head();
    assert_eq!((field(&head, "content-encoding"), field(&head, "trailer")), (None, Some("X-Trailer")));
    let piece =
        client.text("3e5\r\n".len() + 997 + 2 + "3\r\nxxx\r\n".len() + "0\r\nX-Trailer: kept\r\n\r\n".len());
    assert!(piece.ends_with("0\r\nX-Trailer: kept\r\n\r\n"), "{piece}");
    // These could be compressed, for somebody else: caches must know.
    for more in [
        "",
        "Accept-Encoding: identity\r\n",
        "Accept-Encoding: gzip;q=0\r\n",
        "Accept-Encoding: deflate\r\n",
        "Accept-Encoding: gzip\r\nCache-Control: no-transform\r\n",
    ] {
        client.send(ask("/", more));
        let (head, got) = client.message();
        assert_eq!((field(&head, "content-encoding"), field(&head, "vary")), (None, Some("Accept-Encoding")));
        assert_eq!(got, long, "{more}");
    }
    let mut old = Peer::connect(door.address);
    old.send("GET / HTTP/1.0\r\nAccept-Encoding: gzip\r\n\r\n");
    assert_eq!(field(&old.head(), "content-encoding"), None);
    assert_eq!(old.rest(), long);
    assert_eq!(proxy.status().frontends[0].comp_responses_total, 0);
}

#[test]
fn a_vary_that_says_it_already_is_not_said_twice() {
    let origin = origin(|path, _| {
        let vary = match path {
            "/all" => "Vary: *\r\n",
            "/list" => "Vary: Origin, accept-encoding\r\n",
            _ => "Vary: Origin\r\n",
        };
        with_length(&format!("Content-Type: text/plain\r\n{vary}ETag: W/\"weak\"\r\n"), &"x".repeat(200))
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", COMPRESSION, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for (path, expected) in [
        ("/all", vec!["*"]),
        ("/list", vec!["Origin, accept-encoding"]),
        ("/", vec!["Origin", "Accept-Encoding"]),
    ] {
        client.send(ask(path, "Accept-Encoding: br\r\n"));
        let head = client.head();
        let varies: Vec<_> = head.lines().filter_map(|line| line.strip_prefix("Vary: ")).collect();
        assert_eq!(varies, expected);
        assert_eq!(field(&head, "etag"), Some("W/\"weak\""));
        assert_eq!(decode("br", &chunks(&mut client)), "x".repeat(200));
    }
}

#[test]
fn a_stream_of_events_is_not_held_back() {
    for coding in ["zstd", "br", "gzip"] {
        let (go, gate) = std::sync::mpsc::channel::<()>();
        let gate = Mutex::new(gate);
        let origin = Origin::new(move |mut peer| {
            peer.head();
            peer.send(
                "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
            );
            for i in 0..5 {
                let event = format!("data: {i}\n\n");
                peer.send(format!("{:x}\r\n{event}\r\n", event.len()));
                gate.lock().unwrap().recv().unwrap();
            }
            peer.send("0\r\n\r\n");
        });
        let door = Door::new(1);
        let _proxy = Proxy::start(&plan(&door, COMPRESSION, "", &[origin.address]), &[&door]);
        let mut client = Peer::connect(door.address);
        client.send(ask("/", &format!("Accept-Encoding: {coding}\r\n")));
        assert_eq!(field(&client.head(), "content-encoding"), Some(coding));
        let (mut body, mut plain) = (Vec::new(), String::new());
        for i in 0..5 {
            plain += &format!("data: {i}\n\n");
            // The next event only comes when this one has been seen.
            while decode_beginning(coding, &body) != plain {
                body.extend_from_slice(&chunk(&mut client));
            }
            go.send(()).unwrap();
        }
        body.extend_from_slice(&chunks(&mut client));
        assert_eq!(decode(coding, &body), plain);
    }
}

/// What a client can read before the end has come.
fn decode_beginning(coding: &str, body: &[u8]) -> String {
    let mut reader: Box<dyn Read> = match coding {
        "br" => Box::new(brotli::Decompressor::new(body, 4096)),
        "zstd" => Box::new(zstd::Decoder::new(body).unwrap()),
        _ => Box::new(flate2::read::GzDecoder::new(body)),
    };
    let (mut plain, mut piece) = (Vec::new(), [0; 64]);
    while let Ok(n @ 1..) = reader.read(&mut piece) {
        plain.extend_from_slice(&piece[..n]);
    }
    String::from_utf8(plain).unwrap()
}

#[test]
fn a_compressed_response_that_breaks_off_is_not_finished_for_the_client() {
    for (response, state) in [
        ("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 1000000\r\n\r\nhalf", "SD--"),
        (
            "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
            "SD--",
        ),
    ] {
        let origin = Origin::new(move |mut peer| {
            peer.head();
            peer.send(response);
        });
        let door = Door::new(1);
        let proxy = Proxy::start(&plan(&door, COMPRESSION, "", &[origin.address]), &[&door]);
        let mut client = Peer::connect(door.address);
        client.send(ask("/", "Accept-Encoding: gzip\r\n"));
        assert_eq!(field(&client.head(), "content-encoding"), Some("gzip"));
        let mut rest = Vec::new();
        let _ = client.io.read_to_end(&mut rest);
        assert!(!rest.ends_with(b"0\r\n\r\n"));
        assert!(proxy.lines(1)[0].contains(state), "{:?}", proxy.lines(1));
    }
}

#[test]
fn offload_keeps_servers_from_compressing() {
    let heads = Arc::new(Mutex::new(Vec::new()));
    let seen = heads.clone();
    let origin = origin(move |_, head| {
        seen.lock().unwrap().push(head.to_owned());
        with_length("Content-Type: text/plain\r\n", &"x".repeat(500))
    });
    let door = Door::new(1);
    let text = |offload: &str| {
        let front = COMPRESSION.replace("min-size", &format!("{offload} min-size"));
        plan(&door, &front, "", &[origin.address])
    };
    let mut proxy = Proxy::start(&text("offload;"), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..2 {
        client.send(ask("/", "X-Before: 1\r\nAccept-Encoding: gzip\r\nX-After: 2\r\n"));
        assert_eq!(field(&client.head(), "content-encoding"), Some("gzip"));
        assert_eq!(decode("gzip", &chunks(&mut client)), "x".repeat(500));
        proxy.plan(&text(""), &[]);
    }
    let heads = heads.lock().unwrap();
    assert_eq!(field(&heads[0], "accept-encoding"), None);
    assert_eq!((field(&heads[0], "x-before"), field(&heads[0], "x-after")), (Some("1"), Some("2")));
    assert_eq!(field(&heads[1], "accept-encoding"), Some("gzip"));
}

#[test]
fn beyond_the_limit_of_compressors_responses_go_as_they_are() {
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let whole = with_length("Content-Type: text/plain\r\n", &"x".repeat(500));
            if head.starts_with("GET /slow") {
                peer.send(&whole[..whole.len() - 100]);
                gate.lock().unwrap().recv().unwrap();
                peer.send(&whole[whole.len() - 100..]);
            } else {
                peer.send(&whole);
            }
        }
    });
    let door = Door::new(1);
    let front = COMPRESSION.replace("min-size", "max-active 1; min-size");
    let proxy = Proxy::start(&plan(&door, &front, "", &[origin.address]), &[&door]);
    let mut slow = Peer::connect(door.address);
    slow.send(ask("/slow", "Accept-Encoding: gzip\r\n"));
    assert_eq!(field(&slow.head(), "content-encoding"), Some("gzip"));
    let mut other = Peer::connect(door.address);
    other.send(ask("/", "Accept-Encoding: gzip\r\n"));
    let (head, body) = other.message();
    assert_eq!((field(&head, "content-encoding"), field(&head, "vary")), (None, Some("Accept-Encoding")));
    assert_eq!(body, "x".repeat(500));
    assert_eq!(proxy.status().frontends[0].comp_bypassed_total, 1);
    go.send(()).unwrap();
    assert_eq!(decode("gzip", &chunks(&mut slow)), "x".repeat(500));
    other.send(ask("/", "Accept-Encoding: gzip\r\n"));
    assert_eq!(field(&other.head(), "content-encoding"), Some("gzip"), "its place is free again");
    chunks(&mut other);
}

#[test]
fn a_slow_reader_holds_a_compressed_response_back_and_costs_no_memory() {
    let (sender, sent) = handover();
    let origin = Origin::new(move |mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 400000000\r\n\r\n");
        peer.io.get_ref().set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        // Noise, so that as much comes out as goes in.
        let mut state = 1u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        };
        let mut total = 0u64;
        loop {
            let block: Vec<u8> = std::iter::repeat_with(&mut noise).take(1 << 16).collect();
            match peer.io.get_mut().write(&block) {
                Ok(n) => total += n as u64,
                Err(_) => break,
            }
        }
        sender.lock().unwrap().send(total).unwrap();
    });
    let door = Door::new(1);
    let front = COMPRESSION.replace("algorithms zstd br gzip", "algorithms zstd");
    let _proxy = Proxy::start(&plan(&door, &front, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(ask("/", "Accept-Encoding: zstd\r\n"));
    assert_eq!(field(&client.head(), "content-encoding"), Some("zstd"));
    // Kernel buffers on both sides hold a few megabytes; the proxy adds a few buffers.
    let total = sent.recv_timeout(PATIENCE).unwrap();
    assert!(total < 60_000_000, "{total} bytes were taken from the server");
}

/// A head's lines, without those that time decides.
fn lines_of(head: &str) -> Vec<&str> {
    head.lines().filter(|line| !line.starts_with("Date:")).collect()
}

#[test]
fn head_is_answered_with_the_fields_that_get_would_be() {
    let origin = origin(|path, head| {
        let text = "Content-Type: text/plain\r\nETag: \"v1\"\r\nAccept-Ranges: bytes\r\n";
        let whole = match path {
            "/short" => with_length(text, "short"),
            "/image" => with_length("Content-Type: image/png\r\nETag: \"v1\"\r\n", &"x".repeat(1000)),
            "/empty" => with_length(text, ""),
            "/chunks" => in_chunks(text, &"x".repeat(1000)),
            _ => with_length(text, &"x".repeat(1000)),
        };
        let end = whole.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        if head.starts_with("HEAD") { whole[..end].to_vec() } else { whole }
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, COMPRESSION, "", &[origin.address]), &[&door]);
    for path in ["/", "/chunks", "/short", "/image", "/empty"] {
        for accept in ["", "Accept-Encoding: gzip\r\n", "Accept-Encoding: identity\r\n"] {
            let mut get = Peer::connect(door.address);
            get.send(ask(path, accept));
            let expected = get.head();
            let mut client = Peer::connect(door.address);
            client.send(ask(path, accept).replacen("GET", "HEAD", 1));
            let head = client.head();
            assert_eq!(lines_of(&head), lines_of(&expected), "{path} {accept}");
            // Nothing follows it but the next answer.
            client.send(ask("/short", ""));
            assert_eq!(client.message().1, "short", "{path} {accept}");
            if path == "/" && accept.contains("gzip") {
                assert_eq!(field(&head, "etag"), Some("W/\"v1\""));
                assert_eq!(field(&head, "content-encoding"), Some("gzip"));
                assert_eq!(field(&head, "content-length"), None);
            }
        }
    }
    assert_eq!(proxy.status().frontends[0].comp_responses_total, 2, "an answer to HEAD takes no compressor");
}

#[test]
fn a_304_varies_and_names_the_tag_under_which_the_client_has_it() {
    let origin = origin(|path, _| match path {
        "/image" => b"HTTP/1.1 304 N\r\nETag: \"v1\"\r\nContent-Type: image/png\r\n\r\n".to_vec(),
        _ => b"HTTP/1.1 304 N\r\nETag: \"v1\"\r\n\r\n".to_vec(),
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", COMPRESSION, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for (path, held, tag, varies) in [
        ("/", "\"a\", W/\"v1\"", "W/\"v1\"", Some("Accept-Encoding")),
        ("/", "\"v1\"", "\"v1\"", Some("Accept-Encoding")),
        ("/image", "\"v1\"", "\"v1\"", None),
    ] {
        client.send(ask(path, &format!("Accept-Encoding: gzip\r\nIf-None-Match: {held}\r\n")));
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 304 "), "{head}");
        assert_eq!((field(&head, "etag"), field(&head, "vary")), (Some(tag), varies), "{held}");
        assert_eq!(field(&head, "content-encoding"), None);
    }
}

#[test]
fn a_tag_that_was_made_weak_is_found_by_servers_that_compare_letter_by_letter() {
    let (seen, asked) = handover();
    let origin = origin(move |_, head| {
        let held = field(head, "if-none-match").map(str::to_owned);
        seen.lock().unwrap().send(held.clone()).unwrap();
        let names = |tag| held.iter().flat_map(|held| held.split(',')).any(|held| held.trim() == tag);
        if names("\"v1\"") {
            return b"HTTP/1.1 304 N\r\nETag: \"v1\"\r\n\r\n".to_vec();
        }
        with_length("Content-Type: text/plain\r\nETag: \"v1\"\r\n", &"x".repeat(1000))
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, COMPRESSION, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(ask("/", "Accept-Encoding: br\r\n"));
    let tag = field(&client.head(), "etag").unwrap().to_owned();
    chunks(&mut client);
    assert_eq!((tag.as_str(), asked.recv().unwrap()), ("W/\"v1\"", None));
    for (held, expected) in [
        (tag.as_str(), "W/\"v1\", \"v1\""),
        ("\"v1\"", "\"v1\""),
        ("\"v1\", W/\"b,c\"", "\"v1\", W/\"b,c\", \"b,c\""),
    ] {
        client.send(ask("/", &format!("Accept-Encoding: br\r\nIf-None-Match: {held}\r\n")));
        assert!(client.head().starts_with("HTTP/1.1 304 "), "{held}");
        assert_eq!(asked.recv().unwrap().as_deref(), Some(expected));
    }
    client.send(ask("/", "If-None-Match: *\r\n"));
    client.message();
    assert_eq!(asked.recv().unwrap().as_deref(), Some("*"));
}

#[test]
fn trailers_that_nobody_announced_outlive_compression() {
    let body = "x".repeat(5000);
    let whole = body.clone();
    let origin = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n";
            peer.send(head);
            peer.send(format!("{:x}\r\n{whole}\r\n0\r\nX-Su", whole.len()));
            peer.send("m: 1\r\nContent-Digest: sha-256=:AAAA:\r\nX-Time: 2\r\n\r\n");
        }
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, COMPRESSION, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for coding in ["gzip", "br", "zstd"] {
        client.send(ask("/", &format!("Accept-Encoding: {coding}\r\n")));
        assert_eq!(field(&client.head(), "content-encoding"), Some(coding));
        let mut coded = Vec::new();
        let trailers = loop {
            let mut line = String::new();
            std::io::BufRead::read_line(&mut client.io, &mut line).unwrap();
            match usize::from_str_radix(line.trim(), 16).unwrap() {
                0 => break client.head(),
                size => coded.extend_from_slice(&client.take(size)),
            }
            client.take(2);
        };
        assert_eq!(decode(coding, &coded), body);
        assert_eq!(trailers, "X-Sum: 1\r\nX-Time: 2\r\n\r\n", "all but what speaks of other bytes");
    }
}
