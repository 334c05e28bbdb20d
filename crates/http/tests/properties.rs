//! What must hold for every message, tried on many.

use proptest::prelude::*;
use relais_http::request::Edit;
use relais_http::response::Asked;
use relais_http::{Chunked, Framing, Request, Response};

/// Heads that are nearly right: the places where parsers differ, more often than chance would have it.
fn head_like() -> impl Strategy<Value = Vec<u8>> {
    let text = |pieces: Vec<&'static str>| prop::sample::select(pieces).prop_map(|p| p.as_bytes().to_vec());
    let piece = prop_oneof![
        4 => text(vec!["\r\n"]),
        1 => text(vec!["\n", "\r", "\r\n\r\n", " ", "\t", "\0", "\u{e9}", ":", ": ", ",", ";"]),
        3 => text(vec![
            "GET / HTTP/1.1\r\n", "POST /x HTTP/1.0\r\n", "HTTP/1.1 200 OK\r\n", "Host: h\r\n",
            "Host: h.test:80", "Content-Length: 5\r\n", "Content-Length: 0", "Transfer-Encoding: chunked\r\n",
            "Connection: close, x-a", "Connection: keep-alive\r\n", "X-A: b\r\n", "Expect: 100-continue\r\n",
            "GET http://h/ HTTP/1.1\r\n", "OPTIONS * HTTP/1.1\r\n", "Upgrade: websocket\r\n",
        ]),
        1 => prop::collection::vec(b' '..=b'~', 0..12),
    ];
    let head = prop::collection::vec(piece, 0..14).prop_map(|pieces| pieces.concat());
    // Half of them begin well, or few would get beyond the first line.
    (prop::bool::ANY, head).prop_map(|(begin, rest)| {
        if begin { [b"GET / HTTP/1.1\r\nHost: h\r\n", &rest[..], b"\r\n\r\n"].concat() } else { rest }
    })
}

/// A well-formed chunked body, its data, and whether extensions were used.
fn chunked_body() -> impl Strategy<Value = (Vec<u8>, Vec<u8>)> {
    let chunk = (
        prop::collection::vec(any::<u8>(), 1..300),
        0usize..4,
        prop::sample::select(vec!["", ";a", ";b=\"c\" ; d=e"]),
    );
    (prop::collection::vec(chunk, 0..6), prop::sample::select(vec!["", "X-T: v\r\n", "A: b\r\nC:\r\n"]))
        .prop_map(|(chunks, trailer)| {
            let (mut body, mut data) = (Vec::new(), Vec::new());
            for (bytes, zeros, extension) in chunks {
                body.extend_from_slice(
                    format!("{}{:x}{extension}\r\n", "0".repeat(zeros), bytes.len()).as_bytes(),
                );
                body.extend_from_slice(&bytes);
                body.extend_from_slice(b"\r\n");
                data.extend_from_slice(&bytes);
            }
            body.extend_from_slice(format!("0\r\n{trailer}\r\n").as_bytes());
            (body, data)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(if cfg!(debug_assertions) { 4_000 } else { 100_000 }))]

    /// What we take, httparse reads the same way; what it refuses, we refuse.
    #[test]
    fn a_request_that_is_taken_is_read_as_httparse_reads_it(head in head_like()) {
        let ours = Request::parse(&head, Edit::default());
        let mut fields = [httparse::EMPTY_HEADER; 128];
        let mut theirs = httparse::Request::new(&mut fields);
        let status = theirs.parse(&head);
        if let Ok(Some(request)) = &ours {
            prop_assert_eq!(status, Ok(httparse::Status::Complete(request.length)));
            prop_assert!(head[..request.length].ends_with(b"\r\n\r\n"));
            let kept: Vec<u8> = request.fields.spans().iter().flat_map(|s| s.of(&head).to_vec()).collect();
            // What is sent on, parsed again, has the same framing and nothing for this hop.
            let again = [b"GET / HTTP/1.1\r\nHost: h\r\n", &kept[..], b"\r\n"].concat();
            let mut fields = [httparse::EMPTY_HEADER; 130];
            let mut forwarded = httparse::Request::new(&mut fields);
            prop_assert!(forwarded.parse(&again).is_ok_and(|s| s.is_complete()));
            for field in forwarded.headers.iter() {
                prop_assert!(!field.name.eq_ignore_ascii_case("connection"));
            }
            let framed = forwarded.headers.iter().filter(|f| {
                f.name.eq_ignore_ascii_case("content-length") || f.name.eq_ignore_ascii_case("transfer-encoding")
            });
            prop_assert!(framed.count() <= 1);
        }
        if status.is_err() {
            prop_assert!(ours.is_err());
        }
    }

    /// A head is judged the same however it is cut into reads: never taken early, never refused late for
    /// something that was there before.
    #[test]
    fn a_head_is_judged_by_its_bytes_not_by_its_packets(head in head_like()) {
        let whole = Request::parse(&head, Edit::default());
        let mut first = Ok(None);
        for end in 0..=head.len() {
            first = Request::parse(&head[..end], Edit::default());
            if !matches!(first, Ok(None)) {
                break;
            }
        }
        match (whole, first) {
            (Ok(None), Ok(None)) => {}
            (Ok(Some(a)), Ok(Some(b))) => prop_assert_eq!(a.length, b.length),
            (Err(_), Err(_)) => {}
            (whole, first) => prop_assert!(false, "whole {whole:?}, in pieces {first:?}"),
        }
    }

    #[test]
    fn a_response_that_is_taken_is_read_as_httparse_reads_it(head in head_like()) {
        let asked = Asked { head: false, upgrade: false, minor: 1 };
        if let Ok(Some(response)) = Response::parse(&head, asked) {
            let mut fields = [httparse::EMPTY_HEADER; 128];
            let mut theirs = httparse::Response::new(&mut fields);
            prop_assert_eq!(theirs.parse(&head), Ok(httparse::Status::Complete(response.length)));
            prop_assert_eq!(theirs.code, Some(response.status));
        }
    }

    #[test]
    fn a_chunked_body_is_forwarded_whole_in_whatever_pieces(
        (body, data) in chunked_body(),
        cuts in prop::collection::vec(1usize..64, 1..40),
    ) {
        for framing in [Framing::Keep, Framing::Strip] {
            let mut chunked = Chunked::new(framing);
            let (mut out, mut held, mut rest) = (Vec::new(), Vec::new(), &body[..]);
            for size in cuts.iter().cycle() {
                let (piece, later) = rest.split_at((*size).min(rest.len()));
                rest = later;
                held.extend_from_slice(piece);
                let progress = chunked.forward(&mut held).unwrap();
                prop_assert!(progress.kept <= progress.used && progress.used <= held.len());
                out.extend_from_slice(&held[..progress.kept]);
                held.drain(..progress.used);
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert!(chunked.is_end() && held.is_empty());
            if framing == Framing::Strip {
                prop_assert_eq!(&out, &data);
            } else {
                // Another decoder agrees on what was forwarded.
                let mut pos = 0;
                let mut decoded = Vec::new();
                while let Ok(httparse::Status::Complete((line, size))) = httparse::parse_chunk_size(&out[pos..]) {
                    prop_assert!(!out[pos..pos + line].contains(&b';'));
                    pos += line;
                    if size == 0 {
                        break;
                    }
                    decoded.extend_from_slice(&out[pos..pos + size as usize]);
                    pos += size as usize + 2;
                }
                prop_assert_eq!(&decoded, &data);
            }
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let _ = Request::parse(&bytes, Edit::default());
        let _ = Response::parse(&bytes, Asked { head: true, upgrade: true, minor: 0 });
        let _ = Chunked::new(Framing::Keep).forward(&mut bytes.clone());
    }
}
