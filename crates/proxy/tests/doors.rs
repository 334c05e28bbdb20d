//! Those who are not answered: rejected where they are accepted, held, or dropped in silence.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::process::Command;
use std::time::{Duration, Instant};

use common::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A connection from an address of this machine.
fn from(ip: &str, door: &Door) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&format!("{ip}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&door.address.into()).unwrap();
    Peer::new(socket.into())
}

/// Whether a request on this connection is answered with 200.
fn serves(peer: &mut Peer) -> bool {
    peer.try_send(get("/")).is_ok()
        && peer.try_head().is_some_and(|head| {
            peer.take(2);
            head.starts_with("HTTP/1.1 200 ")
        })
}

#[test]
fn connections_of_listed_networks_are_rejected_before_tls() {
    let (door, app) = (Door::new(1), Origin::answering(OK));
    let list = scratch("blocked");
    std::fs::write(&list, "127.0.7.0/24\n").unwrap();
    let rule = format!(
        "rule blocked {{ match src \"127.0.6.1/32\" list=\"{}\"; unless src \"127.0.7.9/32\"; reject; }}",
        list.display()
    );
    let proxy = Proxy::start(&plan(&door, &rule, "", &[app.address]), &[&door]);
    for (ip, good) in [("127.0.0.1", true), ("127.0.6.1", false), ("127.0.7.1", false), ("127.0.7.9", true)] {
        assert_eq!(serves(&mut from(ip, &door)), good, "{ip}");
    }
    assert_eq!(proxy.status().frontends[0].rules[0].hits_total, 2);
    assert_eq!(proxy.status().frontends[0].connections_total, 2, "nothing was made of the others");
    std::fs::write(&list, "127.0.0.0/24\n").unwrap();
    wait("the list to be read again", || !serves(&mut from("127.0.0.1", &door)));
    assert!(serves(&mut from("127.0.7.1", &door)));
    std::fs::remove_file(list).unwrap();

    // Under TLS no byte is read of who is rejected, nor sent to it.
    let certificate = rcgen::generate_simple_self_signed(["h.test".to_owned()]).unwrap();
    let pem = certificate.cert.pem() + &certificate.signing_key.serialize_pem();
    let mut files = relais_ipc::files::Files::default();
    files.insert("/c.pem", Ok(pem.into_bytes()));
    let door = Door::new(1);
    let mut proxy = Proxy::bare(1);
    proxy.order(&relais_ipc::Order::Files { renew: false }, Some(files.to_fd().unwrap()));
    let rule = "rule blocked { match src \"127.0.6.0/24\"; reject; }";
    let text = plan(&door, rule, "", &[app.address]);
    let bind = format!("bind \"{}\"", door.address);
    let text = text.replace(&bind, &format!("{bind} {{ tls {{ certificate \"/c.pem\" }} }}"));
    let report = proxy.plan(&text, &[&door]);
    assert!(matches!(report, relais_ipc::Report::Ready { .. }), "{report:?}");
    assert!(from("127.0.6.1", &door).is_closed());
    let mut peer = from("127.0.0.1", &door);
    peer.send("GET / HTTP/1.1\r\n\r\n");
    assert!(peer.head().contains("400 "), "a TLS listener answers plain HTTP of others");
}

#[test]
fn connections_of_one_address_are_limited_where_they_are_accepted() {
    let (door, app) = (Door::new(2), Origin::answering(OK));
    let rule = "rule many { unless src \"127.0.9.0/24\"; reject max-connections=2 prefix=24; }";
    let mut proxy = Proxy::bare(2);
    proxy.plan(&plan(&door, rule, "", &[app.address]), &[&door]);
    let mut first = from("127.0.7.1", &door);
    let mut second = from("127.0.7.2", &door);
    assert!(serves(&mut first) && serves(&mut second));
    assert!(
        !serves(&mut from("127.0.7.3", &door)),
        "an idle connection counts, too, whichever worker has it"
    );
    assert!(serves(&mut from("127.0.8.1", &door)), "another network has its own");
    assert!((0..5).map(|_| from("127.0.9.1", &door)).collect::<Vec<_>>().iter_mut().all(serves));
    drop(first);
    wait("its place", || serves(&mut from("127.0.7.3", &door)));
    assert!(serves(&mut second), "those that are there stay");
}

#[test]
fn connections_that_come_too_often_are_rejected() {
    let (door, app) = (Door::new(1), Origin::answering(OK));
    let rule = "rule fast { match rate key=src over=3 per=\"1h\"; reject; }";
    let _proxy = Proxy::start(&plan(&door, rule, "", &[app.address]), &[&door]);
    let mut lasting = from("127.0.7.1", &door);
    assert!((0..20).all(|_| serves(&mut lasting)), "connections are counted, not requests");
    let others: Vec<bool> = (0..4).map(|_| serves(&mut from("127.0.7.1", &door))).collect();
    assert_eq!(others, [true, true, false, false]);
    assert!(serves(&mut lasting) && serves(&mut from("127.0.7.2", &door)));
}

#[test]
fn what_a_trusted_proxy_says_is_what_is_rejected() {
    let (door, app) = (Door::new(1), Origin::answering(OK));
    let rule = "rule blocked { match src \"198.51.100.0/24\" \"127.0.0.1/32\"; reject; }";
    let text = plan(&door, rule, "", &[app.address]);
    let bind = format!("bind \"{}\"", door.address);
    let text = text.replace(&bind, &format!("{bind} {{ accept-proxy from=\"127.0.0.1/32\" }}"));
    let _proxy = Proxy::start(&text, &[&door]);
    for (source, good) in [("198.51.100.7", false), ("203.0.113.7", true)] {
        let mut peer = Peer::connect(door.address);
        peer.send(format!("PROXY TCP4 {source} 127.0.0.1 5000 80\r\n"));
        assert_eq!(serves(&mut peer), good, "{source}");
    }
}

#[test]
fn a_tarpit_holds_a_request_and_then_denies_it() {
    let (door, app) = (Door::new(1), Origin::answering(OK));
    let rule = "rule bots { match header User-Agent \"bot*\"; tarpit 429 hold=\"300ms\"; }\n\
                rule worse { match path \"/worse\"; tarpit 403 hold=\"1h\"; }";
    let proxy = Proxy::start(&plan(&door, rule, "", &[app.address]), &[&door]);
    let began = Instant::now();
    let bot = get("/").replace("\r\n\r\n", "\r\nUser-Agent: bot/1\r\n\r\n");
    let mut held: Vec<Peer> = (0..50).map(|_| Peer::connect(door.address)).collect();
    held.iter_mut().for_each(|peer| peer.send(&bot));
    let mut other = Peer::connect(door.address);
    assert!(serves(&mut other), "others are served meanwhile");
    for peer in &mut held {
        let (head, _) = peer.message();
        assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
    held[0].send(get("/"));
    assert!(held[0].message().0.starts_with("HTTP/1.1 200 "), "its connection goes on");
    let mut gone = Peer::connect(door.address);
    gone.send(get("/worse"));
    drop(held);
    drop(other);
    wait("it to be held alone", || proxy.status().frontends[0].connections == 1);
    drop(gone);
    wait("it to go when its client does", || proxy.status().frontends[0].connections == 0);
    let denied = proxy.lines(53).iter().filter(|line| line.contains(" PR-- ")).count();
    assert_eq!(denied, 51);
}

#[test]
fn a_delayed_request_is_answered_later_and_whoever_does_not_wait_is_not_asked_for() {
    let app = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            let body = if head.starts_with("POST ") { "hello" } else { "" };
            assert_eq!(peer.take(body.len()), body.as_bytes());
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
    });
    let door = Door::new(1);
    let rules = "rule slow { match path \"/slow\"; delay \"300ms\"; }\n\
                 rule never { match path \"/never/**\"; delay \"1h\"; }\n\
                 rule denied { match path \"/never/denied\"; deny 403; }";
    let proxy = Proxy::start(&plan(&door, rules, "abort-on-close", &[app.address]), &[&door]);
    let began = Instant::now();
    let mut held: Vec<Peer> = (0..20).map(|_| Peer::connect(door.address)).collect();
    for peer in &mut held {
        peer.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello");
    }
    let mut other = Peer::connect(door.address);
    other.send(get("/"));
    assert!(other.message().0.starts_with("HTTP/1.1 200 "));
    assert!(began.elapsed() < Duration::from_millis(300), "others are served meanwhile");
    for peer in &mut held {
        let (head, body) = peer.message();
        assert!(head.starts_with("HTTP/1.1 200 ") && body == "hello", "{head}{body}");
    }
    assert!(began.elapsed() >= Duration::from_millis(300));
    other.send(get("/never/denied"));
    assert!(other.message().0.starts_with("HTTP/1.1 403 "), "what is denied is denied at once");
    let asked = app.accepted();
    let mut gone = Peer::connect(door.address);
    gone.send(get("/never"));
    drop((held, other));
    wait("it to be held alone", || proxy.status().frontends[0].connections == 1);
    drop(gone);
    wait("it to go when its client does", || proxy.status().frontends[0].connections == 0);
    assert!(proxy.lines(23).iter().any(|line| line.contains(" CR-- ") && line.contains("/never ")));
    assert_eq!(app.accepted(), asked);
}

#[test]
fn a_tcp_connection_is_held_or_vanishes() {
    let (door, app) = (Door::new(1), Origin::answering(OK));
    let rules = "mode tcp; rule a { match src \"127.0.7.0/24\"; tarpit 403 hold=\"200ms\"; }\n\
                 rule b { match src \"127.0.8.0/24\"; silent-drop; }\n\
                 rule c { match src \"127.0.9.0/24\"; reject how=silent; }\n\
                 rule d { match src \"127.0.10.0/24\"; delay \"200ms\"; }";
    let _proxy = Proxy::start(&plan(&door, rules, "mode tcp", &[app.address]), &[&door]);
    let began = Instant::now();
    assert!(from("127.0.7.1", &door).is_closed() && began.elapsed() >= Duration::from_millis(200));
    // There is no router on the way: here both are heard.
    assert!(from("127.0.8.1", &door).is_closed() && from("127.0.9.1", &door).is_closed());
    assert!(serves(&mut from("127.0.0.1", &door)));
    assert_eq!(app.accepted(), 1);
    // Whoever is delayed is served afterwards.
    let began = Instant::now();
    let mut held = from("127.0.10.1", &door);
    assert!(serves(&mut held) && began.elapsed() >= Duration::from_millis(200));
    assert_eq!(app.accepted(), 2);
}

/// Three namespaces: a client's, a router's, a server's.
struct Net(String);

impl Net {
    fn new() -> Option<Net> {
        if !rustix::process::geteuid().is_root() {
            assert!(std::env::var_os("CI").is_none(), "namespaces need root");
            eprintln!("skipped: namespaces need root");
            return None;
        }
        let net = Net(format!("rldoor{}", std::process::id()));
        let p = &net.0;
        for line in [
            format!("netns add {p}c"),
            format!("netns add {p}r"),
            format!("netns add {p}s"),
            format!("link add out netns {p}c type veth peer name c netns {p}r"),
            format!("link add out netns {p}s type veth peer name s netns {p}r"),
            format!("-n {p}c addr add 10.77.1.2/24 dev out"),
            format!("-n {p}r addr add 10.77.1.1/24 dev c"),
            format!("-n {p}r addr add 10.77.2.1/24 dev s"),
            format!("-n {p}s addr add 10.77.2.2/24 dev out"),
            format!("-n {p}c link set out up"),
            format!("-n {p}r link set c up"),
            format!("-n {p}r link set s up"),
            format!("-n {p}s link set out up"),
            format!("-n {p}c route add default via 10.77.1.1"),
            format!("-n {p}s route add default via 10.77.2.1"),
            format!("netns exec {p}r sysctl -qw net.ipv4.ip_forward=1"),
        ] {
            let done = Command::new("ip").args(line.split(' ')).output().unwrap();
            assert!(done.status.success(), "ip {line}: {}", String::from_utf8_lossy(&done.stderr));
        }
        Some(net)
    }

    /// What `run` returns in one of them.
    fn within<T: Send>(&self, which: char, run: impl FnOnce() -> T + Send) -> T {
        let file = std::fs::File::open(format!("/run/netns/{}{which}", self.0)).unwrap();
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let network = Some(rustix::thread::LinkNameSpaceType::Network);
                rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).unwrap();
                run()
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for which in ["c", "r", "s"] {
            let _ = Command::new("ip").args(["netns", "del", &format!("{}{which}", self.0)]).output();
        }
    }
}

#[test]
fn a_silent_drop_is_not_heard_behind_a_router() {
    let Some(net) = Net::new() else { return };
    let door = net.within('s', || Door::at("10.77.2.2:0".parse().unwrap(), 1));
    let app = Origin::answering(OK);
    let rule = "rule a { match path \"/gone\"; silent-drop; }\nrule b { match path \"/denied\"; deny 403; }";
    let proxy = Proxy::start(&plan(&door, rule, "", &[app.address]), &[&door]);
    let address = door.address;
    let ask = |path: &str| {
        let mut peer = Peer::connect(address);
        peer.send(get(path));
        peer
    };
    assert!(net.within('c', || ask("/denied")).head().contains("403"), "the way is open");
    let mut dropped = net.within('c', || ask("/gone"));
    assert!(proxy.lines(2)[1].contains(" PR-- "));
    wait("its end here", || proxy.status().frontends[0].connections == 0);
    assert!(dropped.hears_nothing(Duration::from_secs(1)), "it was told");
    let mut near = net.within('r', || ask("/gone"));
    assert!(near.is_closed(), "in the same network it hears a reset");
}
