//! Limits: of connections, of what waits, of bodies, of patience with those who trickle.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::sync::Mutex;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use common::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Whether nothing comes for a while.
fn waits(peer: &mut Peer) -> bool {
    peer.io.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let silent = peer.try_head().is_none();
    peer.io.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    silent
}

#[test]
fn a_full_listener_leaves_the_others_of_its_frontend_alone() {
    let origin = Origin::answering(OK);
    let (narrow, wide) = (Door::new(1), Door::new(1));
    let text = plan(&narrow, &format!("bind \"{}\"", wide.address), "", &[origin.address]);
    let bind = format!("bind \"{}\"", narrow.address);
    let text = text.replace(&bind, &format!("{bind} {{ max-connections 1; }}"));
    let proxy = Proxy::start(&text, &[&narrow, &wide]);
    let mut first = Peer::connect(narrow.address);
    first.send(get("/"));
    assert_eq!(first.message().1, "ok");
    let mut second = Peer::connect(narrow.address);
    second.send(get("/"));
    assert!(waits(&mut second), "the listener has one place");
    let mut other = Peer::connect(wide.address);
    other.send(get("/"));
    assert_eq!(other.message().1, "ok");
    assert_eq!(proxy.status().frontends[0].connections, 2);
    drop(first);
    assert_eq!(second.message().1, "ok");
}

#[test]
fn a_full_process_leaves_connections_in_the_kernels_queue() {
    let origin = Origin::answering(OK);
    let (one, two) = (Door::new(1), Door::new(1));
    let mut proxy = Proxy::bare(1);
    proxy.platform = "max-connections 1".into();
    let text = plan(&one, "", "", &[origin.address])
        + &format!("frontend other {{ bind \"{}\"; default-backend app; }}", two.address);
    proxy.plan(&text, &[&one, &two]);
    let mut first = Peer::connect(one.address);
    first.send(get("/"));
    assert_eq!(first.message().1, "ok");
    let mut second = Peer::connect(two.address);
    second.send(get("/"));
    assert!(waits(&mut second), "the process has one place");
    drop(first);
    assert_eq!(second.message().1, "ok");
    proxy.platform = "max-connections 2".into();
    proxy.plan(&text, &[]);
    let mut third = Peer::connect(one.address);
    third.send(get("/"));
    assert_eq!(third.message().1, "ok", "a larger limit holds at once");
}

/// An origin that takes one request, and hands over what it saw until its connection ended.
fn listening() -> (Origin, Receiver<(String, String)>) {
    let (sender, seen) = handover();
    let origin = Origin::new(move |mut peer| {
        let head = peer.head();
        let mut rest = Vec::new();
        let _ = peer.io.read_to_end(&mut rest);
        let _ = sender.lock().unwrap().send((head, String::from_utf8(rest).unwrap()));
    });
    (origin, seen)
}

#[test]
fn a_body_that_is_announced_too_long_never_reaches_a_server() {
    for (front, back) in
        [("max-body \"10B\"", ""), ("", "max-body \"10B\""), ("max-body \"10B\"", "max-body \"1GiB\"")]
    {
        let origin = Origin::answering(OK);
        let door = Door::new(1);
        let proxy = Proxy::start(&plan(&door, front, back, &[origin.address]), &[&door]);
        let mut client = Peer::connect(door.address);
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n");
        let (head, _) = client.message();
        assert!(head.starts_with("HTTP/1.1 413 Content Too Large\r\n"), "{head}");
        assert_eq!(field(&head, "connection"), Some("close"));
        assert_eq!(origin.accepted(), 0);
        let line = proxy.lines(1).remove(0);
        assert!(line.contains("/<NOSRV> ") && line.contains(" 413 ") && line.contains(" PR-- "), "{line}");
        assert_eq!(proxy.status().frontends[0].request_errors_total, 1);
    }
}

#[test]
fn a_body_of_the_longest_length_passes() {
    let origin = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            match field(&head, "content-length") {
                Some(_) => assert_eq!(peer.text(10), "0123456789"),
                None => assert_eq!(peer.text(20), "a\r\n0123456789\r\n0\r\n\r\n"),
            }
            peer.send(OK);
        }
    });
    let door = Door::new(1);
    let text = plan(&door, "max-body \"10B\"", "max-body \"10B\"", &[origin.address]);
    let _proxy = Proxy::start(&text, &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\n0123456789");
    assert_eq!(client.message().1, "ok");
    client
        .send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n");
    assert_eq!(client.message().1, "ok");
}

#[test]
fn a_chunked_body_that_grows_too_long_is_never_finished_for_the_server() {
    for (front, back) in [("max-body \"10B\"", ""), ("", "max-body \"10B\"")] {
        let (origin, seen) = listening();
        let door = Door::new(1);
        let proxy = Proxy::start(&plan(&door, front, back, &[origin.address]), &[&door]);
        let mut client = Peer::connect(door.address);
        client.send("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n8\r\n01234567\r\n");
        wait("the request to be under way", || origin.accepted() == 1);
        client.send("3\r\nabc\r\n0\r\n\r\n");
        let head = client.message().0;
        assert!(head.starts_with("HTTP/1.1 413 "), "{head}");
        assert_eq!(seen.recv_timeout(PATIENCE).unwrap().1, "8\r\n01234567\r\n", "cut, and not finished");
        let line = proxy.lines(1).remove(0);
        assert!(line.contains(" app/s1 ") && line.contains(" 413 ") && line.contains(" PR-- "), "{line}");
    }
    // All of it comes with the head.
    for (front, back) in [("max-body \"10B\"", ""), ("", "max-body \"10B\"")] {
        let door = Door::new(1);
        let _proxy = Proxy::start(&plan(&door, front, back, &[nobody()]), &[&door]);
        let mut client = Peer::connect(door.address);
        client.send(
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n",
        );
        assert!(client.message().0.starts_with("HTTP/1.1 413 "));
    }
}

#[test]
fn a_head_that_trickles_is_answered_with_408_when_its_time_is_over() {
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "timeout request=\"150ms\"", "", &[nobody()]), &[&door]);
    let mut client = Peer::connect(door.address);
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\n");
    let mut sent = 0;
    while client.try_send("X-Slow: 1\r\n").is_ok() && !waits_no_longer(&mut client) {
        sent += 1;
        assert!(start.elapsed() < PATIENCE, "{sent} fields and no end");
    }
    assert!(client.head().starts_with("HTTP/1.1 408 "));
    assert!(start.elapsed() >= Duration::from_millis(150));
    assert!(proxy.lines(1)[0].contains(" cR-- "));
}

/// Whether something has come within a moment.
fn waits_no_longer(peer: &mut Peer) -> bool {
    use std::io::BufRead;
    peer.io.get_ref().set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let came = peer.io.fill_buf().is_ok();
    peer.io.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    came
}

#[test]
fn a_body_that_trickles_is_cut_though_it_never_pauses() {
    let (origin, seen) = listening();
    let door = Door::new(1);
    let front = "min-rate \"1KiB\" grace=\"200ms\"\n timeout client=\"1m\"";
    let proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 100000\r\n\r\n");
    let start = Instant::now();
    while client.try_send("x").is_ok() && !waits_no_longer(&mut client) {
        assert!(start.elapsed() < PATIENCE);
    }
    assert!(client.head().starts_with("HTTP/1.1 408 "));
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    assert!(seen.recv_timeout(PATIENCE).unwrap().1.len() < 100_000);
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/s1 ") && line.contains(" 408 ") && line.contains(" cD-- "), "{line}");
}

#[test]
fn a_reader_that_trickles_is_cut_though_it_never_pauses() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2000000000\r\n\r\n");
        let block = vec![b'x'; 1 << 16];
        while peer.try_send(&block).is_ok() {}
    });
    let door = Door::new(1);
    // More than the test can take in bytes a second, so that what the kernel's buffers hide does not matter.
    let front = "min-rate \"1GiB\" grace=\"300ms\"\n timeout client=\"1m\"";
    let proxy = Proxy::start(&plan(&door, front, "timeout server=\"1m\"", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    client.head();
    let start = Instant::now();
    let mut block = vec![0; 1 << 16];
    while proxy.status().frontends[0].connections == 1 {
        assert!(start.elapsed() < PATIENCE, "it is still served");
        std::thread::sleep(Duration::from_millis(5));
        let _ = client.io.read(&mut block).unwrap();
    }
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" 200 ") && line.contains(" cD-- "), "{line}");
    // Not even what the kernel held for it is kept: it ends in a reset, not after all of that.
    let end = client.io.read_to_end(&mut Vec::new());
    assert_eq!(end.map_err(|error| error.kind()).err(), Some(std::io::ErrorKind::ConnectionReset));
}

#[test]
fn a_client_that_keeps_the_minimum_rate_is_never_cut() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        assert_eq!(peer.take(20_000).len(), 20_000);
        peer.send(OK);
    });
    let door = Door::new(1);
    // Ten times what is asked for, with a grace that is far shorter than the whole.
    let front = "min-rate \"1KiB\" grace=\"500ms\"";
    let _proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n");
    for _ in 0..20 {
        std::thread::sleep(Duration::from_millis(60));
        client.send([b'x'; 1000]);
    }
    assert_eq!(client.message().1, "ok");
}

#[test]
fn a_half_closed_tunnel_waits_no_longer_than_its_fin_time_outs() {
    for (server_ends, state) in [(false, "sD"), (true, "cD")] {
        let origin = Origin::new(move |mut peer| {
            peer.send("hello");
            if server_ends {
                peer.half_close();
            }
            let _ = peer.io.read_to_end(&mut Vec::new());
            while !server_ends && peer.io.get_mut().write_all(b"").is_ok() {
                std::thread::sleep(Duration::from_millis(20));
                if peer.io.get_ref().take_error().unwrap().is_some() {
                    return;
                }
            }
        });
        let door = Door::new(1);
        let front = "mode tcp\n timeout client-fin=\"100ms\"";
        let back = "mode tcp\n timeout tunnel=\"1m\" server-fin=\"100ms\"";
        let proxy = Proxy::start(&plan(&door, front, back, &[origin.address]), &[&door]);
        let mut client = Peer::connect(door.address);
        assert_eq!(client.text(5), "hello");
        if !server_ends {
            client.half_close();
        }
        assert!(client.is_closed());
        let line = proxy.lines(1).remove(0);
        assert!(line.contains(&format!(" {state} ")), "{line}");
    }
}

/// An origin that answers when it is told to, one request a turn, with the path as the body.
fn gated() -> (Origin, Receiver<String>, std::sync::mpsc::Sender<()>) {
    let (sender, asked) = handover();
    let (go, gate) = std::sync::mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let origin = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let path = head.split(' ').nth(1).unwrap().to_owned();
            sender.lock().unwrap().send(path.clone()).unwrap();
            if gate.lock().unwrap().recv().is_err() {
                return;
            }
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{path}", path.len()));
        }
    });
    (origin, asked, go)
}

/// A plan whose first server takes one request at a time.
fn one_place(door: &Door, back: &str, servers: &[std::net::SocketAddr]) -> String {
    let server = format!("\"{}\"", servers[0]);
    plan(door, "", back, servers).replace(&server, &format!("{server} max-connections=1"))
}

#[test]
fn who_finds_the_queue_full_gets_a_503_at_once() {
    let (origin, asked, go) = gated();
    let door = Door::new(1);
    let back = "max-queue 1\n timeout queue=\"1h\"";
    let proxy = Proxy::start(&one_place(&door, back, &[origin.address]), &[&door]);
    let mut clients: Vec<Peer> = Vec::new();
    for i in 0..2 {
        let mut client = Peer::connect(door.address);
        client.send(get(&format!("/{i}")));
        clients.push(client);
        wait("the queue", || {
            let backend = &proxy.status().backends[0];
            backend.servers[0].active == 1 && backend.queued == i
        });
    }
    let mut third = Peer::connect(door.address);
    third.send(get("/2"));
    let (head, _) = third.message();
    assert!(head.starts_with("HTTP/1.1 503 ") && field(&head, "retry-after").is_some(), "{head}");
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/<NOSRV> ") && line.contains(" PQ-- ") && line.contains(" 0/1 "), "{line}");
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), format!("/{i}"));
        go.send(()).unwrap();
        assert_eq!(client.message().1, format!("/{i}"));
    }
    third.send(get("/3"));
    assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), "/3");
    go.send(()).unwrap();
    assert_eq!(third.message().1, "/3", "its connection went on");
}

#[test]
fn a_waiter_on_one_worker_is_not_passed_by_those_of_another() {
    let (origin, asked, go) = gated();
    let door = Door::new(2);
    let mut proxy = Proxy::bare(2);
    proxy.plan(&one_place(&door, "timeout queue=\"1h\"", &[origin.address]), &[&door]);
    // The kernel spreads connections over the two workers; among twelve both have some.
    let mut clients: Vec<Peer> = Vec::new();
    for i in 0..12u64 {
        let mut client = Peer::connect(door.address);
        client.send(get(&format!("/{i}")));
        clients.push(client);
        wait("the queue", || {
            let backend = &proxy.status().backends[0];
            backend.servers[0].active == 1 && backend.queued == i
        });
    }
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), format!("/{i}"));
        go.send(()).unwrap();
        assert_eq!(client.message().1, format!("/{i}"));
        // Whoever has been served asks at once again, and does not get in front of those who wait.
        client.send(get("/again"));
    }
    for _ in 0..12 {
        assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), "/again");
        go.send(()).unwrap();
    }
}

#[test]
fn who_waits_after_a_failure_is_not_given_the_server_that_failed() {
    // The first server refuses connections; the second has one place, which is taken.
    let (origin, asked, go) = gated();
    let door = Door::new(1);
    let back = "redispatch\n retries 1\n timeout queue=\"1h\"";
    let proxy = Proxy::start(&one_place(&door, back, &[origin.address, nobody()]), &[&door]);
    let mut first = Peer::connect(door.address);
    first.send(get("/first"));
    assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), "/first");
    let mut second = Peer::connect(door.address);
    second.send(get("/second"));
    wait("the retry to be queued", || proxy.status().backends[0].queued == 1);
    go.send(()).unwrap();
    assert_eq!(first.message().1, "/first");
    assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), "/second");
    go.send(()).unwrap();
    assert_eq!(second.message().1, "/second");
    let line = proxy.lines(2).remove(1);
    assert!(line.contains(" app/s1 ") && line.contains("/+1 0/1 "), "{line}");
}

#[test]
fn who_has_priority_leaves_the_queue_first() {
    let (origin, asked, go) = gated();
    let door = Door::new(1);
    let front = "rule office { match path \"/office/**\"; priority -10; }\n rule patient { match path \"/later/**\"; priority 0 later=\"1h\"; }";
    let server = format!("\"{}\"", origin.address);
    let text = plan(&door, front, "timeout queue=\"1h\"", &[origin.address])
        .replace(&server, &format!("{server} max-connections=1"));
    let proxy = Proxy::start(&text, &[&door]);
    let mut clients: Vec<Peer> = Vec::new();
    for (i, path) in (0..).zip(["/now", "/later/1", "/2", "/office/3", "/office/4", "/5"]) {
        let mut client = Peer::connect(door.address);
        client.send(get(path));
        clients.push(client);
        wait("the queue", || {
            let backend = &proxy.status().backends[0];
            backend.servers[0].active == 1 && backend.queued == i
        });
    }
    for path in ["/now", "/office/3", "/office/4", "/2", "/5", "/later/1"] {
        assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), path);
        go.send(()).unwrap();
    }
    clients.iter_mut().for_each(|client| assert!(client.message().0.starts_with("HTTP/1.1 200 ")));
}

#[test]
fn the_limit_of_a_server_grows_with_the_load_as_haproxys() {
    let (origin, _asked, go) = gated();
    let door = Door::new(1);
    let server = format!("\"{}\"", origin.address);
    let text = plan(&door, "", "timeout queue=\"1h\"\n full-connections 8", &[origin.address])
        .replace(&server, &format!("{server} max-connections=4 min-connections=1"));
    let proxy = Proxy::start(&text, &[&door]);
    let mut clients: Vec<Peer> = Vec::new();
    // HAProxy: max(minconn, load * maxconn / fullconn), and all from `fullconn` on.
    for (i, active) in (1..).zip([1, 1, 1, 2, 2, 3, 3, 4, 4]) {
        let mut client = Peer::connect(door.address);
        client.send(get("/"));
        clients.push(client);
        wait("a place or the queue", || {
            let backend = &proxy.status().backends[0];
            backend.servers[0].active + backend.queued == i
        });
        assert_eq!(proxy.status().backends[0].servers[0].active, active, "with {i} of them");
    }
    clients.iter().for_each(|_| go.send(()).unwrap());
    clients.iter_mut().for_each(|client| assert!(client.message().0.starts_with("HTTP/1.1 200 ")));
}
