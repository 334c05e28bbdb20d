//! The PROXY protocol, in and out, one behaviour a test; and with HAProxy on either side.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use common::*;
use relais_http::proxy_protocol::{Ends, Header, parse, write_v1, write_v2, write_v2_local};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A plan whose only bind believes `from`.
fn believing(door: &Door, from: &str, front: &str, back: &str, server: &str) -> String {
    format!(
        "frontend web {{\n bind \"{}\" {{ accept-proxy from=\"{from}\"; }}\n {front}\n default-backend app\n}}\n\
         backend app {{\n {back}\n server s1 {server}\n}}\n",
        door.address
    )
}

fn sending(door: &Door, version: &str, mode: &str, more: &str, server: SocketAddr) -> String {
    format!(
        "frontend web {{ bind \"{}\"; {mode}; default-backend app; }}\n\
         backend app {{ {mode}; {more}\n server s1 \"{server}\" send-proxy={version}; }}\n",
        door.address
    )
}

/// Gives back the head that it was sent as a body.
fn mirror() -> Origin {
    Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{head}", head.len()));
        }
    })
}

fn addresses() -> (SocketAddr, SocketAddr) {
    ("192.0.2.9:4711".parse().unwrap(), "198.51.100.1:443".parse().unwrap())
}

fn header(version: u8) -> Vec<u8> {
    let ((source, destination), mut bytes) = (addresses(), Vec::new());
    match version {
        1 => write_v1(source, destination, &mut bytes),
        _ => write_v2(source, destination, None, &mut bytes),
    }
    bytes
}

#[test]
fn a_trusted_source_says_who_the_client_is() {
    let (origin, door) = (mirror(), Door::new(1));
    let server = format!("\"{}\"", origin.address);
    let plan = believing(&door, "127.0.0.0/8", "forwarded-for", "", &server);
    let proxy = Proxy::start(&plan, &[&door]);
    for version in [1, 2] {
        let mut client = Peer::connect(door.address);
        client.send([header(version), get("/").into_bytes()].concat());
        let (_, seen) = client.message();
        assert_eq!(field(&seen, "x-forwarded-for"), Some("192.0.2.9"), "version {version}: {seen}");
        client.send(get("/again"));
        assert_eq!(field(&client.message().1, "x-forwarded-for"), Some("192.0.2.9"));
    }
    assert!(proxy.lines(4).iter().all(|line| line.contains("192.0.2.9:4711")), "{:?}", proxy.lines(4));
}

#[test]
fn a_header_may_come_byte_by_byte() {
    let (origin, door) = (mirror(), Door::new(1));
    let server = format!("\"{}\"", origin.address);
    let _proxy = Proxy::start(&believing(&door, "127.0.0.1/32", "forwarded-for", "", &server), &[&door]);
    for version in [1, 2] {
        let mut client = Peer::connect(door.address);
        for byte in [header(version), get("/").into_bytes()].concat() {
            client.send([byte]);
            std::thread::yield_now();
        }
        assert_eq!(field(&client.message().1, "x-forwarded-for"), Some("192.0.2.9"));
    }
}

#[test]
fn a_balancer_that_speaks_for_itself_is_the_client() {
    let (origin, door) = (mirror(), Door::new(1));
    let server = format!("\"{}\"", origin.address);
    let _proxy = Proxy::start(&believing(&door, "127.0.0.1/32", "forwarded-for", "", &server), &[&door]);
    let mut local = Vec::new();
    write_v2_local(&mut local);
    for header in [local, b"PROXY UNKNOWN\r\n".to_vec()] {
        let mut client = Peer::connect(door.address);
        client.send([header, get("/").into_bytes()].concat());
        assert_eq!(field(&client.message().1, "x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn a_header_from_elsewhere_is_data() {
    let (origin, door) = (mirror(), Door::new(1));
    let server = format!("\"{}\"", origin.address);
    let _proxy = Proxy::start(&believing(&door, "192.0.2.0/24", "", "", &server), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send([header(1), get("/").into_bytes()].concat());
    assert!(client.head().starts_with("HTTP/1.1 400 "));
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert!(client.head().starts_with("HTTP/1.1 200 "), "and nothing waits for one");
    assert_eq!(origin.accepted(), 1);
}

#[test]
fn a_trusted_source_that_says_nothing_is_cut() {
    let (origin, door) = (mirror(), Door::new(1));
    let server = format!("\"{}\"", origin.address);
    let front = "timeout request=\"50ms\"";
    let proxy = Proxy::start(&believing(&door, "127.0.0.1/32", front, "", &server), &[&door]);
    let mut silent = Peer::connect(door.address);
    let mut slow = Peer::connect(door.address);
    slow.send("PROXY TCP4 192");
    assert!(silent.is_closed() && slow.is_closed());
    let mut other = Peer::connect(door.address);
    other.send(get("/"));
    assert!(other.is_closed(), "what is no header ends it at once");
    let mut cut = Peer::connect(door.address);
    cut.send("PROXY TCP4");
    cut.half_close();
    assert!(cut.is_closed());
    assert_eq!(origin.accepted(), 0);
    wait("every connection's end", || proxy.status().frontends[0].connections == 0);
}

#[test]
fn tcp_mode_passes_on_what_follows_the_header() {
    let door = Door::new(1);
    let origin = Origin::new(|mut peer| {
        assert_eq!(peer.rest(), "what follows");
        peer.send("answer");
    });
    let server = format!("\"{}\"", origin.address);
    let plan = believing(&door, "127.0.0.1/32", "mode tcp", "mode tcp", &server);
    let proxy = Proxy::start(&plan, &[&door]);
    let mut client = Peer::connect(door.address);
    client.send([header(2), b"what follows".to_vec()].concat());
    client.half_close();
    assert_eq!(client.rest(), "answer");
    assert!(proxy.lines(1)[0].starts_with("192.0.2.9:4711 "), "{:?}", proxy.lines(1));
}

/// Reads a header and gives back its ends, and what it lay before.
fn read_header(peer: &mut Peer) -> Ends {
    let mut bytes = Vec::new();
    loop {
        bytes.extend(peer.take(1));
        if let Some(Header { ends, .. }) = parse(&bytes).unwrap() {
            return ends;
        }
    }
}

#[test]
fn a_server_is_told_the_client_before_anything_else() {
    for version in ["v1", "v2"] {
        for mode in ["mode http", "mode tcp"] {
            let (sender, told) = handover();
            let origin = Origin::new(move |mut peer| {
                sender.lock().unwrap().send(read_header(&mut peer)).unwrap();
                while peer.try_head().is_some() {
                    peer.send(OK);
                }
            });
            let door = Door::new(1);
            let _proxy = Proxy::start(&sending(&door, version, mode, "", origin.address), &[&door]);
            let mut client = Peer::connect(door.address);
            client.send(get("/"));
            assert_eq!(client.message().1, "ok");
            let source = client.io.get_ref().local_addr().unwrap();
            let expected = Ends::Tcp { source, destination: door.address };
            assert_eq!(told.recv_timeout(PATIENCE).unwrap(), expected, "{version} {mode}");
        }
    }
}

#[test]
fn what_came_with_a_header_goes_on_with_one() {
    let (sender, told) = handover();
    let origin = Origin::new(move |mut peer| {
        sender.lock().unwrap().send(read_header(&mut peer)).unwrap();
        peer.head();
        peer.send(OK);
    });
    let door = Door::new(1);
    let server = format!("\"{}\" send-proxy=v2", origin.address);
    let _proxy = Proxy::start(&believing(&door, "127.0.0.1/32", "", "", &server), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send([header(1), get("/").into_bytes()].concat());
    assert_eq!(client.message().1, "ok");
    let (source, destination) = addresses();
    assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Ends::Tcp { source, destination });
}

#[test]
fn a_connection_that_names_its_client_serves_no_other() {
    let origin = Origin::new(|mut peer| {
        read_header(&mut peer);
        while peer.try_head().is_some() {
            peer.send(OK);
        }
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&sending(&door, "v2", "mode http", "", origin.address), &[&door]);
    let (mut one, mut two) = (Peer::connect(door.address), Peer::connect(door.address));
    for _ in 0..3 {
        for client in [&mut one, &mut two] {
            client.send(get("/"));
            assert_eq!(client.message().1, "ok");
        }
    }
    assert_eq!(origin.accepted(), 2, "one connection for each client, and both are kept");
}

#[test]
fn a_check_says_that_it_speaks_for_nobody() {
    for version in ["v1", "v2"] {
        let (sender, told) = handover();
        let origin = Origin::new(move |mut peer| {
            sender.lock().unwrap().send(read_header(&mut peer)).unwrap();
            if peer.try_head().is_some() {
                peer.send(OK);
            }
        });
        let door = Door::new(1);
        let plan =
            sending(&door, version, "mode http", "check http path=\"/\" every=\"20ms\"", origin.address);
        let _proxy = Proxy::start(&plan, &[&door]);
        assert_eq!(told.recv_timeout(PATIENCE).unwrap(), Ends::Own);
    }
}

/// A real HAProxy, ended with the test.
struct HaProxy(Child, std::path::PathBuf);

impl HaProxy {
    /// Runs it, if there is one, with a frontend that listens at `bind` and a server as told.
    fn start(bind: &str, server: &str) -> Option<HaProxy> {
        if Command::new("haproxy").arg("-v").stdout(Stdio::null()).status().is_err() {
            assert!(std::env::var_os("CI").is_none(), "this test needs haproxy, and CI must not skip it");
            eprintln!("SKIPPED: this test needs haproxy");
            return None;
        }
        let file = scratch("haproxy.cfg");
        let text = format!(
            "defaults\n mode http\n timeout connect 5s\n timeout client 5s\n timeout server 5s\n option forwardfor\n\
             frontend f\n bind {bind}\n default_backend b\nbackend b\n server s {server}\n"
        );
        std::fs::write(&file, text).unwrap();
        let child = Command::new("haproxy").arg("-db").arg("-f").arg(&file).spawn().unwrap();
        Some(HaProxy(child, file))
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

/// An answer to a request at an address that may not listen yet.
fn ask(address: SocketAddr) -> (SocketAddr, String) {
    let mut stream = None;
    wait("the listener", || {
        stream = std::net::TcpStream::connect(address).ok();
        stream.is_some()
    });
    let mut client = Peer::new(stream.unwrap());
    client.send(get("/"));
    (client.io.get_ref().local_addr().unwrap(), client.message().1)
}

#[test]
fn haproxy_tells_us_who_the_client_is() {
    for how in ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl proxy-v2-options crc32c"] {
        let (origin, door) = (mirror(), Door::new(1));
        let server = format!("\"{}\"", origin.address);
        let proxy = Proxy::start(&believing(&door, "127.0.0.1/32", "", "", &server), &[&door]);
        let entry = nobody();
        let Some(_haproxy) = HaProxy::start(&entry.to_string(), &format!("{} {how}", door.address)) else {
            return;
        };
        let (client, _) = ask(entry);
        let line = proxy.lines(1).remove(0);
        assert!(line.contains(&client.to_string()), "{how}: {line} is not for {client}");
    }
}

#[test]
fn haproxy_is_told_by_us_who_the_client_is() {
    for version in ["v1", "v2"] {
        let (origin, door, entry) = (mirror(), Door::new(1), nobody());
        let Some(_haproxy) = HaProxy::start(&format!("{entry} accept-proxy"), &origin.address.to_string())
        else {
            return;
        };
        wait("HAProxy", || std::net::TcpStream::connect(entry).is_ok());
        // The client is on an address of its own, so that HAProxy cannot have it from the connection.
        let _proxy = Proxy::start(&sending(&door, version, "mode http", "", entry), &[&door]);
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&"127.0.0.7:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        socket.connect(&door.address.into()).unwrap();
        let mut client = Peer::new(socket.into());
        client.send(get("/"));
        assert_eq!(field(&client.message().1, "x-forwarded-for"), Some("127.0.0.7"), "{version}");
    }
}
