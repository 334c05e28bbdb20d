//! Time-outs, retries and queues, one behaviour a test.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An origin that takes requests and never says a word, until it is dropped.
fn silent() -> Origin {
    Origin::new(|mut peer| while peer.try_head().is_some() {})
}

/// An address whose queue is full: connections to it are neither accepted nor refused.
fn full() -> (TcpListener, Vec<std::net::TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.listen(1).unwrap();
    let listener = TcpListener::from(socket);
    let address = listener.local_addr().unwrap();
    let mut held = Vec::new();
    while let Ok(stream) = std::net::TcpStream::connect_timeout(&address, Duration::from_millis(200)) {
        held.push(stream);
    }
    (listener, held)
}

#[test]
fn a_head_that_does_not_come_to_its_end_is_answered_with_408() {
    let door = Door::new(1);
    let front = "timeout request=\"100ms\"";
    let proxy = Proxy::start(&plan(&door, front, "", &[nobody()]), &[&door]);
    let mut client = Peer::connect(door.address);
    let start = Instant::now();
    client.send("GET / HTTP/1.1\r\nHost:");
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 408 ") && start.elapsed() >= Duration::from_millis(100), "{head}");
    assert_eq!(field(&head, "connection"), Some("close"));
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" web web/<NOSRV> -1/-1/-1/-1/1") && line.contains(" 408 "), "{line}");
    assert!(line.contains(" cR-- "), "{line}");
}

#[test]
fn an_idle_connection_ends_silently_after_the_keep_alive_time() {
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let front = "timeout keep-alive=\"100ms\"";
    let _proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..2 {
        client.send(get("/"));
        client.message();
    }
    let start = Instant::now();
    assert_eq!(client.rest(), "");
    assert!(start.elapsed() >= Duration::from_millis(80), "{:?}", start.elapsed());
}

#[test]
fn a_client_that_stops_in_its_body_is_answered_with_408() {
    let origin = silent();
    let door = Door::new(1);
    let front = "timeout client=\"100ms\"";
    let proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nhalf");
    assert!(client.head().starts_with("HTTP/1.1 408 "));
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/s1 ") && line.contains(" 408 ") && line.contains(" cD-- "), "{line}");
}

#[test]
fn a_client_that_takes_nothing_is_let_go() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 200000000\r\n\r\n");
        let block = vec![b'x'; 1 << 16];
        while peer.try_send(&block).is_ok() {}
    });
    let door = Door::new(1);
    let front = "timeout client=\"100ms\"";
    let proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" 200 ") && line.contains(" cD-- "), "{line}");
}

#[test]
fn a_server_that_does_not_answer_is_a_504() {
    let origin = silent();
    let door = Door::new(1);
    let back = "timeout server=\"100ms\"";
    let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert!(client.message().0.starts_with("HTTP/1.1 504 "));
    client.send(get("/"));
    assert!(client.message().0.starts_with("HTTP/1.1 504 "), "the client's connection goes on");
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/s1 0/0/") && line.contains("/-1/1") && line.contains(" sH-- "), "{line}");
    assert_eq!(origin.accepted(), 2);
}

#[test]
fn a_server_that_falls_silent_in_its_response_ends_the_response() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        peer.is_closed();
    });
    let door = Door::new(1);
    let back = "timeout server=\"100ms\"";
    let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    client.head();
    assert_eq!(client.rest(), "half");
    assert!(proxy.lines(1)[0].contains(" sD-- "));
}

#[test]
fn slow_but_steady_ends_are_not_cut() {
    // Each silence is a third of its time-out, the whole far longer.
    let pause = Duration::from_millis(100);
    let origin = Origin::new(move |mut peer| {
        peer.head();
        assert_eq!(peer.text(8), "xxxxxxxx");
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n");
        for _ in 0..8 {
            std::thread::sleep(pause);
            peer.send("y");
        }
    });
    let door = Door::new(1);
    let (front, back) = ("timeout client=\"300ms\"", "timeout server=\"300ms\"");
    let _proxy = Proxy::start(&plan(&door, front, back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        std::thread::sleep(pause);
        client.send("x");
    }
    assert_eq!(client.message().1, "yyyyyyyy");
}

#[test]
fn a_connection_that_is_not_made_in_time_is_a_503() {
    let (listener, _held) = full();
    let door = Door::new(1);
    let back = "timeout connect=\"100ms\"\n retries 0";
    let proxy = Proxy::start(&plan(&door, "", back, &[listener.local_addr().unwrap()]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    let head = client.message().0;
    assert!(head.starts_with("HTTP/1.1 503 ") && field(&head, "retry-after").is_some(), "{head}");
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/s1 0/0/-1/-1/1") && line.contains(" sC-- "), "{line}");
}

#[test]
fn a_silent_tunnel_ends() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        peer.is_closed();
    });
    let door = Door::new(1);
    let back = "timeout tunnel=\"100ms\"";
    let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    client.head();
    assert!(client.is_closed());
    assert!(proxy.lines(1)[0].contains(" cD-- "));
}

#[test]
fn a_check_that_takes_too_long_has_failed() {
    let origin = silent();
    let door = Door::new(1);
    let back = "timeout check=\"50ms\"\n check http path=\"/up\" every=\"50ms\" fall=1 rise=1";
    let mut proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    proxy.wait_server("s1", false);
    let status = proxy.status();
    let server = &status.backends[0].servers[0];
    assert!(!server.up && server.checked && server.check_failures_total >= 1 && server.downs_total == 1);
    assert!(server.check.contains("no answer"), "{}", server.check);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert!(client.message().0.starts_with("HTTP/1.1 503 "));
    assert!(proxy.lines(1)[0].contains(" app/<NOSRV> 0/-1/-1/-1/0 503 "), "{:?}", proxy.lines(1));
    assert_eq!(proxy.status().backends[0].unserved_total, 1);
}

#[test]
fn a_refused_connection_is_tried_again_elsewhere_whatever_the_method() {
    let origin = Origin::new(|mut peer| {
        while peer.try_head().is_some() {
            assert_eq!(peer.text(4), "body");
            peer.send(OK);
        }
    });
    let door = Door::new(1);
    let back = "redispatch\n retries 1";
    let proxy = Proxy::start(&plan(&door, "", back, &[nobody(), origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..4 {
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nbody");
        assert_eq!(client.message().1, "ok");
    }
    // Each request's turn is the dead server's, and the next turn the other's.
    for line in proxy.lines(4) {
        assert!(line.contains(" app/s2 ") && line.contains("/+1 0/0 "), "{line}");
    }
    let status = proxy.status();
    let dead = &status.backends[0].servers[0];
    assert_eq!((dead.connect_errors_total, dead.retries_total, dead.redispatches_total), (4, 4, 4));
}

#[test]
fn without_redispatch_the_same_server_is_tried_again() {
    let address = nobody();
    let door = Door::new(1);
    let back = "timeout connect=\"50ms\"\n retries 3";
    let proxy = Proxy::start(&plan(&door, "", back, &[address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    let origin = Origin::on(TcpListener::bind(address).unwrap(), |mut peer| {
        peer.head();
        peer.send(OK);
    });
    let answer = client.message();
    // Either the first try already met the server, or a later one did.
    assert_eq!((answer.1.as_str(), origin.accepted()), ("ok", 1));
    assert!(!proxy.lines(1)[0].contains("/+"), "{:?}", proxy.lines(1));
}

#[test]
fn the_retries_are_counted_and_end() {
    let door = Door::new(1);
    let back = "timeout connect=\"20ms\"\n retries 2";
    let proxy = Proxy::start(&plan(&door, "", back, &[nobody()]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert!(client.message().0.starts_with("HTTP/1.1 503 "));
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" SC-- ") && line.contains("/2 0/0 "), "{line}");
    assert_eq!(proxy.status().backends[0].servers[0].connect_errors_total, 3);
}

/// An origin whose first connection dies without an answer as soon as a head has come.
fn dies_once() -> (Origin, Arc<AtomicU32>) {
    let heads = Arc::new(AtomicU32::new(0));
    let count = heads.clone();
    let origin = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            if count.fetch_add(1, Ordering::SeqCst) == 0 {
                return;
            }
            peer.send(OK);
        }
    });
    (origin, heads)
}

#[test]
fn an_idempotent_request_without_an_answer_is_tried_again() {
    let (origin, heads) = dies_once();
    let door = Door::new(1);
    let back = "timeout connect=\"50ms\"\n retries 1";
    let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(client.message().1, "ok");
    assert_eq!(heads.load(Ordering::SeqCst), 2);
    assert!(proxy.lines(1)[0].contains("/1 0/0 "), "{:?}", proxy.lines(1));
}

#[test]
fn a_request_that_may_have_had_an_effect_is_never_repeated() {
    for request in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PATCH / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        // Idempotent, but its body is not here to be sent again.
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nhalf",
    ] {
        let (origin, heads) = dies_once();
        let door = Door::new(1);
        let back = "timeout connect=\"50ms\"\n retries 3";
        let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
        let mut client = Peer::connect(door.address);
        client.send(request);
        assert!(client.message().0.starts_with("HTTP/1.1 502 "), "{request}");
        assert_eq!(heads.load(Ordering::SeqCst), 1);
        assert!(proxy.lines(1)[0].contains(" SH-- "), "{:?}", proxy.lines(1));
    }
}

#[test]
fn a_kept_connection_that_turns_out_dead_is_no_failure() {
    // The server ends the connection when the second request comes, as one does whose keep-alive time is over.
    let first = Mutex::new(true);
    let origin = Origin::new(move |mut peer| {
        let dying = std::mem::replace(&mut *first.lock().unwrap(), false);
        while peer.try_head().is_some() {
            peer.send(OK);
            if dying {
                peer.try_head();
                return;
            }
        }
    });
    let door = Door::new(1);
    let back = "retries 0";
    let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..3 {
        client.send(get("/"));
        assert_eq!(client.message().1, "ok");
    }
    assert_eq!(origin.accepted(), 2);
    assert!(proxy.lines(3)[1].contains("/0 0/0 "), "{:?}", proxy.lines(3));
    assert_eq!(proxy.status().backends[0].servers[0].response_errors_total, 0);
}

#[test]
fn a_connection_that_the_server_closed_while_idle_is_not_used() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send(OK);
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "retries 0", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..5 {
        client.send("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n");
        assert!(client.message().0.starts_with("HTTP/1.1 200 "));
        // The runtime hears of the end at its next turn, and the sweep then takes the connection away.
        // (Its place is given back after that connection was kept: before, there may be none to sweep yet.)
        wait("the idle connection to be swept", || {
            let status = proxy.status();
            let server = &status.backends[0].servers[0];
            server.active == 0 && server.idle == 0
        });
    }
}

#[test]
fn marking_a_server_down_moves_the_requests_that_wait_for_it() {
    let well = Arc::new(Mutex::new(true));
    let says = well.clone();
    let (sender, asked) = handover();
    let dying = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            if head.starts_with("GET /up ") {
                let status = if *says.lock().unwrap() { "200 OK" } else { "500 Ill" };
                peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
            } else {
                sender.lock().unwrap().send(()).unwrap();
                peer.is_closed();
                return;
            }
        }
    });
    let door = Door::new(1);
    let back = "redispatch\n check http path=\"/up\" every=\"20ms\" fall=1 rise=1";
    let healthy = Origin::answering(OK);
    let mut proxy = Proxy::start(&plan(&door, "", back, &[dying.address, healthy.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    asked.recv_timeout(PATIENCE).unwrap();
    *well.lock().unwrap() = false;
    assert_eq!(client.message().1, "ok");
    proxy.wait_server("s1", false);
    assert!(proxy.lines(1)[0].contains(" app/s2 "), "{:?}", proxy.lines(1));
    *well.lock().unwrap() = true;
    proxy.wait_server("s1", true);
}

/// An origin that answers when it is told to, one request a turn, with the path as the body.
fn gated() -> (Origin, std::sync::mpsc::Receiver<String>, std::sync::mpsc::Sender<()>) {
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

/// A plan whose only server takes one request at a time.
fn one_place(door: &Door, back: &str, origin: &Origin) -> String {
    let text = plan(door, "", back, &[origin.address]);
    let server = format!("\"{}\"", origin.address);
    text.replace(&server, &format!("{server} max-connections=1"))
}

#[test]
fn who_waits_for_a_place_is_served_in_order() {
    let (origin, asked, go) = gated();
    let door = Door::new(1);
    let text = one_place(&door, "", &origin);
    let proxy = Proxy::start(&text, &[&door]);
    let mut clients = Vec::new();
    for i in 0..4 {
        let mut client = Peer::connect(door.address);
        client.send(get(&format!("/{i}")));
        clients.push(client);
        wait("the queue", || {
            let status = proxy.status();
            let backend = &status.backends[0];
            backend.servers[0].active == 1 && backend.queued == i
        });
    }
    for (i, client) in clients.iter_mut().enumerate() {
        assert_eq!(asked.recv_timeout(PATIENCE).unwrap(), format!("/{i}"));
        go.send(()).unwrap();
        assert_eq!(client.message().1, format!("/{i}"));
    }
    let lines = proxy.lines(4);
    for (i, line) in lines.iter().enumerate() {
        assert!(line.contains(&format!(" 0/{i} \"GET /{i} ")), "{line}");
    }
}

#[test]
fn who_waits_too_long_for_a_place_gets_a_503() {
    let (origin, asked, go) = gated();
    let door = Door::new(1);
    let text = one_place(&door, "timeout queue=\"100ms\"", &origin);
    let proxy = Proxy::start(&text, &[&door]);
    let mut first = Peer::connect(door.address);
    first.send(get("/first"));
    asked.recv_timeout(PATIENCE).unwrap();
    let mut second = Peer::connect(door.address);
    second.send(get("/second"));
    assert!(second.message().0.starts_with("HTTP/1.1 503 "));
    let line = proxy.lines(1).remove(0);
    assert!(
        line.contains(" app/<NOSRV> 0/1") && line.contains("/-1/-1/1") && line.contains(" sQ-- "),
        "{line}"
    );
    go.send(()).unwrap();
    assert_eq!(first.message().1, "/first");
    wait("the place to be free", || {
        let status = proxy.status();
        (status.backends[0].queued, status.backends[0].servers[0].active) == (0, 0)
    });
}

#[test]
fn a_full_frontend_leaves_connections_in_the_kernels_queue() {
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "max-connections 1", "", &[origin.address]), &[&door]);
    let mut first = Peer::connect(door.address);
    first.send(get("/"));
    first.message();
    let mut second = Peer::connect(door.address);
    second.send(get("/"));
    second.io.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(second.try_head().is_none(), "it must wait");
    assert_eq!(proxy.status().frontends[0].connections, 1);
    drop(first);
    second.io.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(second.message().1, "ok");
}

/// Resets a connection.
fn reset(peer: Peer) {
    socket2::Socket::from(peer.io.into_inner()).set_linger(Some(Duration::ZERO)).unwrap();
}

/// A request waits for the only place; its client leaves by `leave`. The next one in the queue gets the place that it left.
fn leave_the_queue(back: &str, leave: fn(Peer)) {
    let (origin, asked, answer) = gated();
    let door = Door::new(1);
    let proxy = Proxy::start(&one_place(&door, back, &origin), &[&door]);
    let queued = || proxy.status().backends[0].queued;
    let mut first = Peer::connect(door.address);
    first.send(get("/first"));
    assert!(asked.recv_timeout(PATIENCE).unwrap().contains("/first"));
    let mut leaver = Peer::connect(door.address);
    leaver.send(get("/leaver"));
    wait("the queue", || queued() == 1);
    leave(leaver);
    wait("its place in the queue", || queued() == 0);
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/<NOSRV> ") && line.contains(" 400 ") && line.contains(" CQ-- "), "{line}");
    let mut next = Peer::connect(door.address);
    next.send(get("/next"));
    wait("the queue", || queued() == 1);
    answer.send(()).unwrap();
    assert!(asked.recv_timeout(PATIENCE).unwrap().contains("/next"), "nobody asks for who has left");
    answer.send(()).unwrap();
    assert_eq!((first.message().1, next.message().1), ("/first".into(), "/next".into()));
    assert_eq!(proxy.status().backends[0].unserved_total, 0, "it is no fault of the backend");
}

#[test]
fn a_client_whose_connection_is_reset_leaves_the_queue_and_its_server() {
    leave_the_queue("", reset);
    let origin = silent();
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "timeout server=\"1h\"", &[origin.address]), &[&door]);
    let active = || proxy.status().backends[0].servers[0].active;
    for early in ["", "GET /next HTTP/1.1\r\nHost: h\r\n"] {
        let mut client = Peer::connect(door.address);
        client.send(get("/") + early);
        wait("the request", || active() == 1);
        reset(client);
        wait("its place at the server", || active() == 0);
    }
    let line = proxy.lines(2).remove(1);
    assert!(line.contains(" app/s1 ") && line.contains(" 400 ") && line.contains(" CH-- "), "{line}");
}

#[test]
fn a_client_that_closes_while_it_waits_leaves_its_place_where_the_file_says_so() {
    leave_the_queue("abort-on-close", drop);
    let origin = silent();
    let door = Door::new(1);
    let back = "abort-on-close; timeout server=\"1h\"";
    let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    let active = || proxy.status().backends[0].servers[0].active;
    for early in ["", "GET /next HTTP/1.1\r\nHost: h\r\n"] {
        let mut client = Peer::connect(door.address);
        client.send(get("/") + early);
        wait("the request", || active() == 1);
        client.half_close();
        wait("its place at the server", || active() == 0);
        assert!(client.head().starts_with("HTTP/1.1 400 "), "it may still read");
    }
    let line = proxy.lines(2).remove(1);
    assert!(line.contains(" CH-- "), "{line}");
}

#[test]
fn a_client_that_half_closes_is_answered_where_the_file_does_not_say_otherwise() {
    let (origin, asked, answer) = gated();
    let door = Door::new(1);
    let proxy = Proxy::start(&one_place(&door, "", &origin), &[&door]);
    let mut clients = Vec::new();
    for i in 0..2 {
        let mut client = Peer::connect(door.address);
        client.send(get("/"));
        client.half_close();
        if i == 0 {
            asked.recv_timeout(PATIENCE).unwrap();
        } else {
            wait("the queue", || proxy.status().backends[0].queued == 1);
        }
        clients.push(client);
    }
    answer.send(()).unwrap();
    answer.send(()).unwrap();
    for client in &mut clients {
        assert_eq!(client.message().1, "/");
    }
    assert!(proxy.lines(2).iter().all(|line| line.contains(" 200 ") && line.contains(" ---- ")));
}

/// A client with little room, which asks for an answer that the proxy's kernel takes whole.
fn slow_reader(address: std::net::SocketAddr, connection: &str) -> std::net::TcpStream {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(2048).unwrap();
    socket.connect(&address.into()).unwrap();
    let mut stream = std::net::TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let request = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: {connection}\r\n\r\n");
    std::io::Write::write_all(&mut stream, request.as_bytes()).unwrap();
    stream
}

/// Whether the kernel has a socket with this local and this remote port.
fn kernel_has(local: u16, remote: u16) -> bool {
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let pair = (format!(":{local:04X}"), format!(":{remote:04X}"));
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&pair.0) && fields[2].ends_with(&pair.1)
    })
}

#[test]
fn who_leaves_an_answer_in_the_kernels_buffer_is_cut_like_others() {
    let body = "x".repeat(200_000);
    let origin = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let door = Door::new(1);
    let front = "timeout client=\"300ms\" keep-alive=\"1h\"";
    let proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    for (i, connection) in ["keep-alive", "close"].into_iter().enumerate() {
        let mut stream = slow_reader(door.address, connection);
        let port = stream.local_addr().unwrap().port();
        let line = proxy.lines(i + 1).remove(i);
        assert!(line.contains(" 200 ") && line.contains(" ---- "), "all of it is written: {line}");
        assert!(kernel_has(door.address.port(), port), "it holds what nobody reads");
        let mut byte = [0];
        wait("its end", || {
            let _ = std::io::Read::read(&mut stream, &mut byte); // progress, of a kind
            !kernel_has(door.address.port(), port)
        });
        wait("its place", || proxy.status().frontends[0].connections == 0);
    }
}

#[test]
fn who_reads_slowly_but_steadily_gets_all_of_an_answer() {
    let body = "x".repeat(200_000);
    let origin = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let door = Door::new(1);
    let front = "timeout client=\"300ms\"";
    let _proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut stream = slow_reader(door.address, "close");
    let (mut all, mut piece) = (0, [0; 2048]);
    loop {
        match std::io::Read::read(&mut stream, &mut piece).expect("no reset") {
            0 => break,
            n => all += n,
        }
        std::thread::sleep(Duration::from_millis(20)); // 200,000 bytes take longer than any time-out here
    }
    assert!(all > 200_000, "{all}");
}
