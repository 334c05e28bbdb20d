//! Servers that speak HTTP/2: one connection for many requests, and what they may do with each.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use crate::common::*;
use crate::wire::*;

/// A server at the frame level: `serve` has each connection, behind the settings, and its number.
struct Server {
    address: std::net::SocketAddr,
    accepted: Arc<AtomicU32>,
}

impl Server {
    fn new(settings: &'static [(u16, u32)], serve: impl Fn(Raw, u32) + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, serve) = (Arc::new(AtomicU32::new(0)), Arc::new(serve));
        let count = accepted.clone();
        std::thread::spawn(move || {
            for io in listener.incoming() {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                std::thread::spawn(move || serve(Raw::accept(io.unwrap(), settings), number));
            }
        });
        Server { address, accepted }
    }

    fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// The next stream that is asked on.
fn asked(raw: &mut Raw) -> Option<u32> {
    loop {
        match raw.next()? {
            Frame { kind: HEADERS, stream, .. } => return Some(stream),
            Frame { kind: PING, flags: 0, payload, .. } => raw.send(PING, ACK, 0, payload),
            _ => {}
        }
    }
}

/// 200 with these data.
fn answer(raw: &mut Raw, stream: u32, data: &[u8]) {
    raw.send(HEADERS, END_HEADERS, stream, b"\x88");
    raw.send(DATA, END_STREAM, stream, data);
}

fn started(server: &Server, back: &str) -> (Proxy, Door) {
    let door = Door::new(1);
    let text = format!(
        "frontend web {{\n bind \"{}\"\n default-backend app\n}}\nbackend app {{\n {back}\n server s1 \"{}\" proto=h2\n}}\n",
        door.address, server.address
    );
    (Proxy::start(&text, &[&door]), door)
}

#[test]
fn many_requests_share_one_connection_to_a_server() {
    let server = Server::new(&[], |mut raw, _| {
        // All ten are there before the first is answered, and the last is answered first.
        let streams: Vec<u32> = (0..10).map(|_| asked(&mut raw).unwrap()).collect();
        streams.into_iter().rev().for_each(|stream| answer(&mut raw, stream, b"ok"));
        while let Some(stream) = asked(&mut raw) {
            answer(&mut raw, stream, b"ok");
        }
    });
    let (_proxy, door) = started(&server, "");
    let mut clients: Vec<_> = (0..10).map(|_| Peer::connect(door.address)).collect();
    clients.iter_mut().for_each(|client| client.send(get("/")));
    for client in &mut clients {
        let (head, body) = client.chunked();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, "ok");
    }
    clients[0].send(get("/again"));
    assert_eq!(clients[0].chunked().1, "ok");
    assert_eq!(server.accepted(), 1);
}

#[test]
fn a_server_is_checked_in_the_language_that_it_speaks() {
    let lost = Arc::new(AtomicBool::new(false));
    let is_lost = lost.clone();
    let server = Server::new(&[], move |mut raw, _| {
        while let Some(stream) = asked(&mut raw) {
            match is_lost.load(Ordering::SeqCst) {
                false => answer(&mut raw, stream, b"well"),
                true => raw.send(HEADERS, END_HEADERS | END_STREAM, stream, b"\x8d"), // 404
            }
        }
    });
    let check = "check http path=\"/healthz\" every=\"30ms\" rise=1 fall=1";
    let (proxy, _door) = started(&server, check);
    let says = |what: &str| {
        wait(what, || proxy.status().backends[0].servers[0].check.contains(what));
    };
    says("status 200");
    lost.store(true, Ordering::SeqCst);
    says("status 404, expected 200");
}

#[test]
fn a_server_gets_no_more_streams_on_a_connection_than_it_allows() {
    let server = Server::new(&[(3, 2)], |mut raw, _| {
        let streams: Vec<u32> = (0..2).map(|_| asked(&mut raw).unwrap()).collect();
        streams.into_iter().for_each(|stream| answer(&mut raw, stream, b"ok"));
        assert_eq!(asked(&mut raw), None, "a third stream");
    });
    // The server's own limit is known once its settings are here; the operator's at once.
    let (_proxy, door) = started(&server, "http2 max-concurrent-streams=2");
    let mut clients: Vec<_> = (0..4).map(|_| Peer::connect(door.address)).collect();
    clients.iter_mut().for_each(|client| client.send(get("/")));
    for client in &mut clients {
        assert_eq!(client.chunked().1, "ok");
    }
    assert_eq!(server.accepted(), 2);
}

#[test]
fn what_a_server_has_not_touched_is_sent_again_even_if_it_is_a_post() {
    const POST_5: &str = "POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\nhello";
    for how in ["refused", "going"] {
        let server = Server::new(&[], move |mut raw, number| {
            let stream = asked(&mut raw).unwrap();
            if number > 0 || stream > 1 {
                answer(&mut raw, stream, b"second");
            } else if how == "refused" {
                raw.send(RST_STREAM, 0, stream, REFUSED.to_be_bytes());
                let stream = asked(&mut raw).unwrap();
                answer(&mut raw, stream, b"second");
            } else {
                raw.send(GOAWAY, 0, 0, [0; 8]); // the last stream that it has looked at is 0
            }
            raw.goodbye(); // closed with the request's body unread, the connection would be reset
        });
        let (_proxy, door) = started(&server, "retries 1");
        let mut client = Peer::connect(door.address);
        client.send(POST_5);
        assert_eq!(client.chunked().1, "second", "{how}");
    }
}

#[test]
fn what_a_server_may_have_done_is_not_done_twice() {
    let seen = Arc::new(AtomicU32::new(0));
    let count = seen.clone();
    let server = Server::new(&[], move |mut raw, _| {
        while let Some(stream) = asked(&mut raw) {
            count.fetch_add(1, Ordering::SeqCst);
            raw.send(RST_STREAM, 0, stream, CANCEL.to_be_bytes());
        }
    });
    let (_proxy, door) = started(&server, "retries 3");
    let mut client = Peer::connect(door.address);
    client.send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 5\r\n\r\nhello");
    assert!(client.head().starts_with("HTTP/1.1 502 "));
    assert_eq!(seen.load(Ordering::SeqCst), 1);
}

#[test]
fn a_server_that_goes_finishes_what_it_began() {
    let server = Server::new(&[], |mut raw, number| {
        let stream = asked(&mut raw).unwrap();
        if number == 0 {
            raw.send(GOAWAY, 0, 0, [0, 0, 0, 1, 0, 0, 0, 0]);
        }
        answer(&mut raw, stream, format!("from {number}").as_bytes());
        raw.goodbye();
    });
    let (_proxy, door) = started(&server, "");
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert_eq!(client.chunked().1, "from 0");
    client.send(get("/"));
    assert_eq!(client.chunked().1, "from 1");
}

#[test]
fn trailers_and_bodies_go_through_two_http_2_connections() {
    let server = Server::new(&[], |mut raw, _| {
        let stream = asked(&mut raw).unwrap();
        let mut body = Vec::new();
        let trailers = loop {
            let frame = raw.next().unwrap();
            match frame.kind {
                DATA => body.extend(frame.payload),
                HEADERS => break frame,
                _ => {}
            }
        };
        assert!(trailers.ends() && body == b"a message");
        raw.send(HEADERS, END_HEADERS, stream, b"\x88");
        raw.send(DATA, 0, stream, b"an answer");
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, block(&[("grpc-status", "0")]));
        raw.goodbye();
    });
    let (_proxy, door) = started(&server, "");
    let mut raw = Raw::open(door.address);
    raw.send(
        HEADERS,
        END_HEADERS,
        1,
        with(POST, &[("te", "trailers"), ("content-type", "application/grpc")]),
    );
    raw.send(DATA, 0, 1, b"a message");
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, block(&[("x-sum", "9")]));
    let data = raw.until(|f| f.kind == DATA);
    assert_eq!((&data.payload[..], data.ends()), (&b"an answer"[..], false));
    let trailers = raw.until(|f| f.kind == HEADERS);
    assert!(trailers.ends());
}

#[test]
fn a_server_that_breaks_the_rules_is_a_bad_gateway() {
    for (name, head) in [
        ("a field of the connection", block(&[(":status", "200"), ("transfer-encoding", "chunked")])),
        ("no status", block(&[("x", "y")])),
        ("a name in upper case", block(&[(":status", "200"), ("X-Y", "z")])),
        ("two lengths", block(&[(":status", "200"), ("content-length", "1"), ("content-length", "2")])),
    ] {
        let server = Server::new(&[], move |mut raw, _| {
            while let Some(stream) = asked(&mut raw) {
                raw.send(HEADERS, END_HEADERS, stream, &head);
            }
        });
        let (_proxy, door) = started(&server, "retries 0");
        let mut client = Peer::connect(door.address);
        client.send("POST / HTTP/1.1\r\nHost: h.test\r\nContent-Length: 0\r\n\r\n");
        let head = client.head();
        assert!(head.starts_with("HTTP/1.1 502 "), "{name}: {head}");
    }
}

#[test]
fn a_server_that_speaks_no_http_2_is_a_bad_gateway() {
    let origin = Origin::answering("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    let server = Server { address: origin.address, accepted: Arc::default() };
    let (_proxy, door) = started(&server, "retries 0");
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    let head = client.head();
    assert!(head.starts_with("HTTP/1.1 50"), "{head}");
}
