//! HTTP/1 through the proxy, one behaviour a test.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An origin that answers with the head it got as the body.
fn mirror() -> Origin {
    Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()));
        }
    })
}

#[test]
fn a_request_is_forwarded_and_both_connections_are_kept() {
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..3 {
        client.send(get("/"));
        let (head, body) = client.message();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, "ok");
    }
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let door = Door::new(1);
    let origin = mirror();
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let requests: String = (0..20).map(|i| get(&format!("/{i}"))).collect();
    client.send(requests);
    for i in 0..20 {
        assert!(client.message().1.starts_with(&format!("GET /{i} HTTP/1.1\r\n")));
    }
}

#[test]
fn a_request_in_single_bytes_is_the_same_request() {
    let door = Door::new(1);
    let origin = mirror();
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for byte in get("/slow").as_bytes() {
        client.send([*byte]);
    }
    assert!(client.message().1.starts_with("GET /slow HTTP/1.1\r\n"));
}

#[test]
fn hop_fields_go_and_via_and_x_forwarded_come() {
    let door = Door::new(1);
    let origin = mirror();
    let _proxy = Proxy::start(&plan(&door, "forwarded-for", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(
        "GET / HTTP/1.1\r\nHost: h.test\r\nConnection: X-Hop\r\nX-Hop: 1\r\nX-Forwarded-For: 10.9.8.7\r\n\
         X-Forwarded-Proto: gopher\r\n\r\n",
    );
    let seen = client.message().1;
    assert_eq!(
        seen,
        "GET / HTTP/1.1\r\nHost: h.test\r\nX-Forwarded-For: 10.9.8.7\r\nVia: 1.1 relais\r\n\
         X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h.test\r\n\r\n"
    );
}

#[test]
fn an_excepted_network_keeps_the_forwarding_fields_that_it_sent() {
    let door = Door::new(1);
    let origin = mirror();
    let front = "forwarded-for except=\"127.0.0.0/8\"";
    let _proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("GET / HTTP/1.1\r\nHost: h\r\nX-Forwarded-Proto: https\r\n\r\n");
    let seen = client.message().1;
    assert_eq!(field(&seen, "x-forwarded-proto"), Some("https"));
    assert_eq!(field(&seen, "x-forwarded-for"), None);
}

#[test]
fn an_http_1_0_request_without_host_gets_one_on_its_way() {
    let door = Door::new(1);
    let origin = mirror();
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("GET /old HTTP/1.0\r\n\r\n");
    let (head, seen) = client.message();
    assert_eq!(field(&head, "connection"), Some("close"));
    assert!(seen.starts_with("GET /old HTTP/1.1\r\n"), "{seen}");
    assert_eq!(field(&seen, "host"), Some(origin.address.to_string().as_str()));
    assert!(client.is_closed());
}

#[test]
fn an_http_1_0_client_may_keep_its_connection() {
    let door = Door::new(1);
    let origin = Origin::answering(OK);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(field(&client.message().0, "connection"), Some("keep-alive"));
    }
}

#[test]
fn an_absolute_target_is_sent_on_as_a_path() {
    let door = Door::new(1);
    let origin = mirror();
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for (target, line) in [("http://h/x?y", "GET /x?y "), ("http://h?y", "GET /?y "), ("http://h", "GET / ")]
    {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"));
        let seen = client.message().1;
        assert!(seen.starts_with(line), "{seen}");
    }
}

#[test]
fn head_204_and_304_have_no_body_and_the_next_request_follows() {
    let origin = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            peer.send(match head.split(' ').nth(1) {
                Some("/204") => "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
                Some("/304") => "HTTP/1.1 304 Not Modified\r\nContent-Length: 50\r\n\r\n",
                Some("/chunked") => "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n",
            });
        }
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\nHEAD /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
    client.send(get("/204") + &get("/304"));
    assert_eq!(field(&client.head(), "content-length"), Some("50"));
    assert_eq!(field(&client.head(), "transfer-encoding"), Some("chunked"));
    let none = client.head();
    assert!(none.starts_with("HTTP/1.1 204") && field(&none, "content-length").is_none(), "{none}");
    assert!(client.head().starts_with("HTTP/1.1 304"));
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn bodies_with_a_length_pass_both_ways() {
    let origin = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            let n: usize = field(&head, "content-length").unwrap().parse().unwrap();
            let body = peer.take(n);
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {n}\r\n\r\n"));
            peer.send(body);
        }
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    // In one piece, beyond a buffer, and large enough for splicing.
    for n in [1usize, 5_000, 100_000, 3_000_000] {
        let body: Vec<u8> = (0..n).map(|i| (i * 7 % 251) as u8).collect();
        client.send(format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: {n}\r\n\r\n"));
        let mut write = client.io.get_ref().try_clone().unwrap();
        let sent = body.clone();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut write, &sent).unwrap());
        assert_eq!(field(&client.head(), "content-length"), Some(n.to_string().as_str()));
        assert!(client.take(n) == body, "{n} bytes came back changed");
        writer.join().unwrap();
    }
    assert_eq!(origin.accepted(), 1);
    // Four requests were seen, not one that never ended.
    assert_eq!(proxy.lines(4).len(), 4);
}

#[test]
fn chunked_bodies_pass_both_ways_without_their_extensions() {
    let origin = Origin::new(|mut peer| {
        while peer.try_head().is_some() {
            assert_eq!(peer.text(30), "5\r\nhello\r\n6\r\n world\r\n0\r\nT: v\r\n");
            assert_eq!(peer.text(2), "\r\n");
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;x=y\r\nabc\r\n0\r\n\r\n");
        }
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let request = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n6\r\n world\r\n0\r\nT: v\r\n\r\n";
    let answer = "3\r\nabc\r\n0\r\n\r\n";
    client.send(request);
    assert_eq!(field(&client.head(), "transfer-encoding"), Some("chunked"));
    assert_eq!(client.text(answer.len()), answer);
    // The same, cut at every byte.
    for byte in request.as_bytes() {
        client.send([*byte]);
    }
    client.head();
    assert_eq!(client.text(answer.len()), answer);
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_chunk_that_breaks_the_rules_under_way_is_answered_with_400_and_never_finished() {
    let (sender, seen) = handover();
    let origin = Origin::new(move |mut peer| {
        peer.head();
        sender.lock().unwrap().send(peer.text(10)).unwrap();
        sender.lock().unwrap().send(peer.rest()).unwrap();
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), "5\r\nhello\r\n");
    client.send("0x0\r\n\r\n");
    let (head, _) = client.message();
    assert!(head.starts_with("HTTP/1.1 400 ") && field(&head, "connection") == Some("close"), "{head}");
    assert_eq!(seen.recv_timeout(PATIENCE).unwrap(), "");
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/s1 ") && line.contains(" 400 ") && line.contains(" PR-- "), "{line}");
    assert_eq!(proxy.status().frontends[0].request_errors_total, 1);
}

#[test]
fn an_http_1_0_client_gets_a_chunked_body_as_plain_bytes() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    );
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    let head = client.head();
    assert_eq!((field(&head, "transfer-encoding"), field(&head, "connection")), (None, Some("close")));
    assert_eq!(client.rest(), "abcde");
}

#[test]
fn a_body_that_ends_with_the_connection_ends_with_the_connection() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.0 200 OK\r\n\r\nall of it");
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"));
    assert_eq!(client.rest(), "all of it");
}

#[test]
fn a_slow_reader_holds_the_server_back_and_costs_no_memory() {
    let (sender, sent) = handover();
    let origin = Origin::new(move |mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n");
        peer.io.get_ref().set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut total = 0u64;
        let block = vec![b'x'; 1 << 16];
        while let Ok(n) = std::io::Write::write(peer.io.get_mut(), &block) {
            total += n as u64;
        }
        sender.lock().unwrap().send(total).unwrap();
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    client.head();
    // Kernel buffers on both sides hold a few megabytes; the proxy adds a pipe.
    let total = sent.recv_timeout(PATIENCE).unwrap();
    assert!(total < 60_000_000, "{total} bytes were taken from the server");
}

#[test]
fn a_continue_is_passed_from_end_to_end() {
    let origin = Origin::new(|mut peer| {
        let head = peer.head();
        assert_eq!(field(&head, "expect"), Some("100-continue"));
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(peer.text(5), "hello");
        peer.send(OK);
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    client.send("hello");
    assert_eq!(client.message().1, "ok");
}

#[test]
fn a_client_that_is_refused_its_continue_gets_the_answer_and_the_end() {
    let origin = Origin::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n");
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 403"));
    assert_eq!((field(&head, "connection"), body.as_str()), (Some("close"), "no"));
    assert!(client.is_closed());
}

#[test]
fn interim_responses_reach_clients_that_know_them() {
    let origin = Origin::answering(
        "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
    );
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert!(client.head().starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n"));
    assert_eq!(client.message().1, "ok");
    let mut old = Peer::connect(door.address);
    old.send("GET / HTTP/1.0\r\n\r\n");
    assert!(old.head().starts_with("HTTP/1.1 200"));
}

#[test]
fn an_early_response_reaches_a_client_that_is_still_sending() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig");
        while peer.try_head().is_some() {}
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000\r\n\r\nthe beginning");
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 413"), "{head}");
    assert_eq!((body.as_str(), field(&head, "connection")), ("big", Some("close")));
}

#[test]
fn both_directions_flow_at_the_same_time() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            assert_eq!(peer.text(6), "1\r\na\r\n");
            peer.send("1\r\nb\r\n");
        }
        assert_eq!(peer.text(5), "0\r\n\r\n");
        peer.send("0\r\n\r\n");
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    client.head();
    for _ in 0..3 {
        client.send("1\r\na\r\n");
        assert_eq!(client.text(6), "1\r\nb\r\n");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.text(5), "0\r\n\r\n");
}

#[test]
fn an_upgrade_becomes_a_tunnel_whose_halves_close_apart() {
    let origin = Origin::new(|mut peer| {
        let head = peer.head();
        assert_eq!(field(&head, "upgrade"), Some("websocket"));
        assert_eq!(field(&head, "connection"), Some("upgrade"));
        peer.send("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX: y\r\n\r\nhello");
        assert_eq!(peer.rest(), "early and late");
        peer.send("goodbye");
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(
        "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n\r\nearly",
    );
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 101 Switching\r\nX: y\r\n"), "{head}");
    assert_eq!((field(&head, "connection"), field(&head, "upgrade")), (Some("upgrade"), Some("websocket")));
    assert_eq!(client.text(5), "hello");
    client.send(" and late");
    client.half_close();
    assert_eq!(client.rest(), "goodbye");
    assert!(proxy.lines(1)[0].contains(" 101 "));
}

#[test]
fn what_a_broken_server_says_never_reaches_a_client() {
    for (response, state) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "PH--"),
        ("HTTP/1.1 200 OK\nContent-Length: 2\n\nok", "PH--"),
        ("SSH-2.0-OpenSSH\r\n", "PH--"),
        ("HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", "PH--"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nx\r\n", "PH--"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "SH--"),
    ] {
        let origin = Origin::new(move |mut peer| {
            peer.head();
            peer.send(response);
        });
        let door = Door::new(1);
        let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
        let mut client = Peer::connect(door.address);
        client.send(get("/"));
        assert!(client.message().0.starts_with("HTTP/1.1 502 Bad Gateway\r\n"), "{response}");
        // The client's connection is none the worse for it.
        client.send(get("/"));
        assert!(client.message().0.starts_with("HTTP/1.1 502"));
        let line = proxy.lines(2).remove(0);
        assert!(line.contains(" 502 ") && line.contains(state), "{line}");
        assert_eq!(proxy.status().backends[0].servers[0].response_errors_total, 2);
    }
}

#[test]
fn a_response_that_breaks_off_is_not_finished_for_the_client() {
    let chunks =
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_owned() + &"4\r\nhalf\r\n".repeat(5000);
    for response in
        ["HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf".to_owned(), chunks.clone(), chunks + "x\r\n"]
    {
        let origin = Origin::new(move |mut peer| {
            peer.head();
            peer.send(&response);
        });
        let door = Door::new(1);
        // Were it taken for finished, the connection would be kept for longer than the test waits.
        let front = "timeout keep-alive=\"1m\"";
        let proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
        let mut client = Peer::connect(door.address);
        client.send(get("/"));
        client.head();
        let body = client.rest();
        assert!(body.contains("half") && !body.contains("0\r\n\r\n"), "{body:?}");
        let line = proxy.lines(1).remove(0);
        assert!(line.contains(" SD-- ") || line.contains(" PD-- "), "{line}");
    }
}

#[test]
fn bytes_after_a_response_cost_the_server_its_connection() {
    let origin = Origin::new(|mut peer| {
        while peer.try_head().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 666 Poison\r\n\r\n");
        }
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for i in 1..=3 {
        client.send(get("/"));
        let (head, body) = client.message();
        assert!(head.starts_with("HTTP/1.1 200") && body == "ok", "{head}");
        assert_eq!(origin.accepted(), i);
    }
}

#[test]
fn a_refused_request_gets_its_answer_even_if_it_is_still_being_sent() {
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[nobody()]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n");
    let head = client.head();
    for _ in 0..10 {
        client.send(vec![b'x'; 10_000]); // a reset now would fail this, and take the answer from many a client
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"));
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" web web/<NOSRV> -1/-1/-1/-1/") && line.contains(" 400 "), "{line}");
    assert!(line.ends_with(" PR-- 1/1/0/0/0 0/0 \"<BADREQ>\""), "{line}");
    assert_eq!(proxy.status().frontends[0].request_errors_total, 1);
}

#[test]
fn a_redirect_frontend_answers_by_itself() {
    let door = Door::new(1);
    let text = format!("frontend plain {{\n bind \"{}\"\n redirect scheme=https\n}}", door.address);
    let proxy = Proxy::start(&text, &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("GET /a?b HTTP/1.1\r\nHost: h.test:80\r\n\r\n");
    let (head, _) = client.message();
    assert_eq!(field(&head, "location"), Some("https://h.test/a?b"));
    assert!(proxy.lines(1)[0].contains(" plain plain/<NOSRV> 0/-1/-1/-1/0 30"), "{:?}", proxy.lines(1));
    client.send("OPTIONS * HTTP/1.1\r\nHost: h.test\r\nMax-Forwards: 0\r\n\r\n");
    assert!(client.message().0.starts_with("HTTP/1.1 200"));
}

#[test]
fn every_final_answer_has_a_date() {
    let fixed = "Sun, 06 Nov 1994 08:49:37 GMT";
    let origin = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let date = if head.contains("/dated") { format!("date: {fixed}\r\n") } else { String::new() };
            let kind = "Content-Type: text/plain\r\nContent-Length: 2000\r\n";
            peer.send(format!(
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n{date}{kind}\r\n{}",
                "x".repeat(2000)
            ));
        }
    });
    let door = Door::new(1);
    let front = "compression { algorithms gzip; types \"text/*\"; min-size \"100B\"; }\n rule \"no\" {\n match path \"/denied\"\n deny 403\n }";
    let _proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    for (request, status) in [
        (get("/"), 200),
        ("GET / HTTP/1.1\r\nHost: h.test\r\nAccept-Encoding: gzip\r\n\r\n".to_owned(), 200),
        (get("/denied"), 403),
        ("GET /\r\n\r\n".to_owned(), 400),
    ] {
        let mut client = Peer::connect(door.address);
        client.send(&request);
        let mut head = client.head();
        if status == 200 {
            assert!(head.starts_with("HTTP/1.1 100") && field(&head, "date").is_none(), "{head}");
            head = client.head();
        }
        assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{request:?}: {head}");
        let date = field(&head, "date").unwrap_or_else(|| panic!("{request:?}: {head}"));
        let stamp = jiff::fmt::rfc2822::parse(date).unwrap().timestamp();
        let age = jiff::Timestamp::now().duration_since(stamp).as_secs();
        assert!((-1..=60).contains(&age), "{request:?}: {date}");
    }
    let mut client = Peer::connect(door.address);
    client.send(get("/dated"));
    client.head();
    let head = client.head();
    assert_eq!(field(&head, "date"), Some(fixed));
    assert_eq!(head.to_lowercase().matches("\r\ndate:").count(), 1, "{head}");
}
