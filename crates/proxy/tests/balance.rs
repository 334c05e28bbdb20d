//! Who gets the next request, one behaviour a test: what `crates/balance` decides, with real servers.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;
use socket2::{Domain, Socket, Type};

/// Servers that answer with their number, or hold a request for `/held` until the test drops the connection.
fn servers(count: usize) -> Vec<Origin> {
    let serve = |number: usize| {
        move |mut peer: Peer| {
            while let Some(head) = peer.try_head() {
                let name = number.to_string();
                if !head.starts_with("GET /held") {
                    peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len()));
                }
            }
        }
    };
    (1..=count).map(|number| Origin::new(serve(number))).collect()
}

fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

/// The plan, with `weights` of its servers.
fn weighted(door: &Door, back: &str, origins: &[Origin], weights: &[u16]) -> String {
    let mut text = plan(door, "", back, &addresses(origins));
    for (origin, weight) in origins.iter().zip(weights) {
        let server = format!("\"{}\"", origin.address);
        text = text.replace(&server, &format!("{server} weight={weight}"));
    }
    text
}

/// Which server answers.
fn ask(client: &mut Peer, request: impl AsRef<[u8]>) -> usize {
    client.send(request);
    let (head, body) = client.message();
    body.parse().unwrap_or_else(|_| panic!("no server's answer: {head}{body}"))
}

/// A connection from this address.
fn from(source: &str, door: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&format!("{source}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&door.into()).unwrap();
    Peer::new(socket.into())
}

/// Requests that each server has now.
fn active(proxy: &Proxy) -> Vec<u64> {
    proxy.status().backends[0].servers.iter().map(|server| server.active).collect()
}

#[test]
fn heavy_servers_come_first_where_it_is_said() {
    let origins = servers(3);
    let door = Door::new(1);
    let _proxy =
        Proxy::start(&weighted(&door, "balance roundrobin order=ipvs", &origins, &[1, 4, 2]), &[&door]);
    let mut client = Peer::connect(door.address);
    let got: Vec<usize> = (0..14).map(|_| ask(&mut client, get("/"))).collect();
    assert_eq!(got, [2, 2, 2, 3, 1, 2, 3, 2, 2, 2, 3, 1, 2, 3]);
}

#[test]
fn every_algorithm_serves_requests() {
    let origins = servers(3);
    // What 80 requests one after the other do, to servers of weight 1, 1 and 2. `None`: it is not that exact.
    let exact = [
        ("roundrobin", Some([20, 20, 40])),
        ("roundrobin order=ipvs", Some([20, 20, 40])),
        ("static-rr", Some([20, 20, 40])),
        ("leastconn", None),                        // 80 is no multiple of three: see below
        ("leastconn count=ipvs", Some([1, 1, 78])), // a connection that is kept is a load
        ("sed", Some([0, 0, 80])),
        ("nq", Some([80, 0, 0])),
        ("first", Some([80, 0, 0])),
        ("random draws=1", None),
        ("random", None),
        ("least-time", None),
        ("uri", None),
        ("uri depth=2 part=whole len=40", None),
        ("query name=\"q\"", None),
        ("lblc key=uri", None),
        ("lblcr key=uri shrink=\"1h\"", None),
        ("header name=\"X-None\"", Some([20, 20, 40])),
        ("cookie name=\"none\"", Some([20, 20, 40])),
    ];
    for (algorithm, expected) in exact {
        let door = Door::new(1);
        let text = weighted(&door, &format!("balance {algorithm}"), &origins, &[1, 1, 2]);
        let _proxy = Proxy::start(&text, &[&door]);
        let mut client = Peer::connect(door.address);
        let mut got = [0; 3];
        for number in 0..80 {
            got[ask(&mut client, get(&format!("/dir{number}/page?q={number}"))) - 1] += 1;
        }
        match expected {
            Some(expected) => assert_eq!(got, expected, "{algorithm}"),
            // Who was slow once, on a busy machine, has few: but everybody is tried.
            None if algorithm == "least-time" => assert!(got.iter().all(|&got| got > 0), "{got:?}"),
            None => assert!(got.iter().all(|&got| got >= 5), "{algorithm}: {got:?}"),
        }
        if algorithm == "leastconn" {
            assert!(got.iter().all(|&got| (26..=27).contains(&got)), "{algorithm}: {got:?}");
        }
    }
    for algorithm in ["source", "destination", "lblc", "lblcr"] {
        let door = Door::new(1);
        let _proxy =
            Proxy::start(&weighted(&door, &format!("balance {algorithm}"), &origins, &[1; 3]), &[&door]);
        let mut client = Peer::connect(door.address);
        let first = ask(&mut client, get("/"));
        assert!((0..20).all(|n| ask(&mut client, get(&format!("/{n}"))) == first), "{algorithm}");
    }
}

#[test]
fn the_least_connections_are_those_of_all_workers() {
    let origins = servers(3);
    let door = Door::new(2);
    let mut proxy = Proxy::bare(2);
    proxy.plan(&plan(&door, "", "balance leastconn", &addresses(&origins)), &[&door]);
    let mut held = Vec::new();
    for number in 1..=30 {
        let mut client = Peer::connect(door.address);
        client.send(get("/held"));
        held.push(client);
        wait("the request at a server", || active(&proxy).iter().sum::<u64>() == number);
        let now = active(&proxy);
        assert!(now.iter().max().unwrap() - now.iter().min().unwrap() <= 1, "{now:?} of {number}");
    }
    assert_eq!(active(&proxy), [10; 3]);
}

/// Which of the servers has one more than before.
fn next_tcp(proxy: &Proxy, door: &Door, open: &mut Vec<Peer>) -> usize {
    let before = active(proxy);
    open.push(Peer::connect(door.address));
    let mut now = before.clone();
    wait("the connection at a server", || {
        now = active(proxy);
        now.iter().sum::<u64>() == before.iter().sum::<u64>() + 1
    });
    now.iter().zip(&before).position(|(now, before)| now > before).unwrap()
}

#[test]
fn least_connections_hold_for_tcp() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::new(|mut peer| drop(peer.rest()))).collect();
    let door = Door::new(2);
    let mut proxy = Proxy::bare(2);
    let text = plan(&door, "mode tcp", "mode tcp\n balance leastconn", &addresses(&origins));
    proxy.plan(&text, &[&door]);
    let mut open = Vec::new();
    let places: Vec<usize> = (0..30).map(|_| next_tcp(&proxy, &door, &mut open)).collect();
    for round in places.chunks(3) {
        let mut round = round.to_vec();
        round.sort_unstable();
        assert_eq!(round, [0, 1, 2], "{places:?}");
    }
    // Those of one server end: it gets all that come until it has as many as the others.
    let mut kept = Vec::new();
    for (peer, place) in open.into_iter().zip(&places) {
        if *place != 1 {
            kept.push(peer);
        }
    }
    wait("the ends of ten", || active(&proxy) == [10, 0, 10]);
    assert!((0..10).all(|_| next_tcp(&proxy, &door, &mut kept) == 1));
}

#[test]
fn first_fills_one_server_after_the_other() {
    let origins: Vec<Origin> = (0..3).map(|_| Origin::new(|mut peer| drop(peer.rest()))).collect();
    let door = Door::new(2);
    let mut proxy = Proxy::bare(2);
    let mut text = plan(&door, "mode tcp", "mode tcp\n balance first", &addresses(&origins));
    for origin in &origins {
        let server = format!("\"{}\"", origin.address);
        text = text.replace(&server, &format!("{server} max-connections=2"));
    }
    proxy.plan(&text, &[&door]);
    let mut open = Vec::new();
    let places: Vec<usize> = (0..5).map(|_| next_tcp(&proxy, &door, &mut open)).collect();
    assert_eq!(places, [0, 0, 1, 1, 2]);
    open.remove(2);
    wait("a free place", || active(&proxy) == [2, 1, 1]);
    assert_eq!(next_tcp(&proxy, &door, &mut open), 1);
    assert_eq!(next_tcp(&proxy, &door, &mut open), 2);
}

#[test]
fn clients_stay_with_their_server_by_address() {
    let origins = servers(4);
    for table in ["consistent", "maglev", "map"] {
        let (one, other) = (Door::new(1), Door::new(2));
        let back = format!("balance source\n hash type={table}");
        let text = plan(&one, "", &back, &addresses(&origins));
        let _one = Proxy::start(&text, &[&one]);
        // The other balancer's file has the servers in another order, where that must not matter.
        let mut lines: Vec<&str> = text.lines().collect();
        if table != "map" {
            let first = lines.iter().position(|line| line.contains("server s1")).unwrap();
            lines[first..first + 4].reverse();
        }
        let text = lines.join("\n").replace(&one.address.to_string(), &other.address.to_string());
        let mut second = Proxy::bare(2);
        second.plan(&text, &[&other]);
        let mut got = [0; 4];
        for number in 1..=60 {
            let source = format!("127.7.{number}.9");
            let mut client = from(&source, one.address);
            let server = ask(&mut client, get("/a"));
            got[server - 1] += 1;
            assert_eq!(ask(&mut client, get("/b")), server);
            assert_eq!(ask(&mut from(&source, one.address), get("/c")), server, "{source} by {table}");
            assert_eq!(ask(&mut from(&source, other.address), get("/d")), server, "{source} by {table}");
        }
        assert!(got.iter().all(|&got| got >= 4), "{table}: {got:?}");
    }
}

#[test]
fn requests_of_one_key_go_to_one_server() {
    let origins = servers(4);
    type Request = fn(usize, usize) -> String;
    let cases: [(&str, Request); 6] = [
        ("uri", |key, other| format!("GET /a/{key}?x={other} HTTP/1.1\r\nHost: h\r\n\r\n")),
        ("uri depth=2", |key, other| format!("GET /a/{key}/{other} HTTP/1.1\r\nHost: h\r\n\r\n")),
        ("header name=\"x-tenant\"", |key, other| {
            format!("GET /{other} HTTP/1.1\r\nHost: h\r\nX-Tenant: {key}\r\nX-Tenant2: {other}\r\n\r\n")
        }),
        ("header name=\"Host\"", |key, other| format!("GET /{other} HTTP/1.1\r\nHost: h{key}.test\r\n\r\n")),
        ("query name=\"user\"", |key, other| {
            format!("GET /{other}?xuser={other}&user={key}&z={other} HTTP/1.1\r\nHost: h\r\n\r\n")
        }),
        ("cookie name=\"id\"", |key, other| {
            format!("GET / HTTP/1.1\r\nHost: h\r\nCookie: xid={other}; id={key}; z={other}\r\n\r\n")
        }),
    ];
    for (table, (algorithm, request)) in ["consistent", "maglev", "map"].iter().cycle().zip(cases) {
        let door = Door::new(1);
        let back = format!("balance {algorithm}\n hash type={table}\n redispatch");
        let text = plan(&door, "", &back, &addresses(&origins));
        let mut proxy = Proxy::start(&text, &[&door]);
        let mut client = Peer::connect(door.address);
        let mut home = HashMap::new();
        for key in 0..40 {
            let server = ask(&mut client, request(key, 0));
            home.insert(key, server);
            assert!((1..4).all(|other| ask(&mut client, request(key, other)) == server), "{algorithm}");
        }
        assert!((1..=4).all(|server| home.values().filter(|s| **s == server).count() >= 3), "{algorithm}");
        // A server refuses connections: its keys are served by others, and only they.
        let gone = format!("\"{}\"", origins[1].address);
        proxy.plan(&text.replace(&gone, &format!("\"{}\"", nobody())), &[]);
        for key in 0..40 {
            let server = ask(&mut client, request(key, 9));
            assert!(server == home[&key] || home[&key] == 2, "{algorithm} of {key}");
            assert_ne!(server, 2);
        }
    }
}

#[test]
fn a_popular_key_is_spread_by_its_balance_factor() {
    let origins = servers(3);
    for (factor, most) in [("", 30), (" balance-factor=120", 13)] {
        for table in ["consistent", "maglev", "map"] {
            let door = Door::new(2);
            let mut proxy = Proxy::bare(2);
            let back = format!("balance uri\n hash type={table}{factor}");
            proxy.plan(&plan(&door, "", &back, &addresses(&origins)), &[&door]);
            let mut held = Vec::new();
            for number in 1..=30 {
                let mut client = Peer::connect(door.address);
                client.send(get("/held"));
                held.push(client);
                wait("the request at a server", || active(&proxy).iter().sum::<u64>() == number);
            }
            // 31 requests of 120 % among three: twelve each, and a part of one.
            let now = active(&proxy);
            let highest = *now.iter().max().unwrap();
            assert!(highest <= most && highest + 2 > most, "{table}{factor}: {now:?}");
        }
    }
}

/// A server that is well while the flag is up.
fn with_health(number: usize, well: &Arc<AtomicBool>) -> Origin {
    let well = well.clone();
    Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            if head.starts_with("GET /held") {
                continue;
            }
            let ill = head.starts_with("GET /up ") && !well.load(Ordering::SeqCst);
            let status = if ill { "503 Ill" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 1\r\n\r\n{number}"));
        }
    })
}

const CHECK: &str = "check http path=\"/up\" every=\"20ms\" fall=2 rise=2";

#[test]
fn backups_serve_when_nobody_else_is_up() {
    for algorithm in ["roundrobin", "static-rr", "leastconn", "random", "uri", "least-time"] {
        let well = [(); 2].map(|()| Arc::new(AtomicBool::new(true)));
        let mut origins: Vec<Origin> = (1..=2).map(|n| with_health(n, &well[n - 1])).collect();
        let always = Arc::new(AtomicBool::new(true));
        origins.extend((3..=4).map(|n| with_health(n, &always)));
        let door = Door::new(1);
        let mut text = plan(&door, "", &format!("{CHECK}\n balance {algorithm}"), &addresses(&origins));
        for backup in &origins[2..] {
            let server = format!("\"{}\"", backup.address);
            text = text.replace(&server, &format!("{server} backup=yes"));
        }
        let mut proxy = Proxy::start(&text, &[&door]);
        let mut client = Peer::connect(door.address);
        let answering = |client: &mut Peer| {
            let mut all: Vec<usize> = (0..24).map(|n| ask(client, get(&format!("/{n}")))).collect();
            all.sort_unstable();
            all.dedup();
            all
        };
        // The quickest may be one and the same all the time.
        let serve = |client: &mut Peer, servers: &[usize]| {
            let all = answering(client);
            let fits =
                all == servers || (algorithm == "least-time" && all.iter().all(|n| servers.contains(n)));
            assert!(fits, "{algorithm}: {all:?} of {servers:?}");
        };
        serve(&mut client, &[1, 2]);
        well[0].store(false, Ordering::SeqCst);
        proxy.wait_server("s1", false);
        assert_eq!(answering(&mut client), [2], "{algorithm}");
        well[1].store(false, Ordering::SeqCst);
        proxy.wait_server("s2", false);
        assert_eq!(answering(&mut client), [3], "{algorithm}");
        proxy.plan(&text.replace("balance", "allbackups\n balance"), &[]);
        serve(&mut client, &[3, 4]);
        well[0].store(true, Ordering::SeqCst);
        proxy.wait_server("s1", true);
        assert_eq!(answering(&mut client), [1], "{algorithm}");
    }
}

#[test]
fn a_full_server_does_not_make_way_for_a_backup() {
    let origins = servers(2);
    let door = Door::new(1);
    let text = plan(&door, "", "timeout queue=\"50ms\"", &addresses(&origins));
    let [first, second] = [0, 1].map(|n: usize| format!("\"{}\"", origins[n].address));
    let text = text.replace(&first, &format!("{first} max-connections=1"));
    let text = text.replace(&second, &format!("{second} backup=yes"));
    let proxy = Proxy::start(&text, &[&door]);
    let mut held = Peer::connect(door.address);
    held.send(get("/held"));
    wait("the request at the server", || active(&proxy) == [1, 0]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert!(client.head().starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_server_that_comes_back_gets_more_step_by_step() {
    for algorithm in ["roundrobin", "uri", "random draws=1"] {
        let (well, always) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
        let origins = [with_health(1, &well), with_health(2, &always)];
        let door = Door::new(1);
        let text = plan(&door, "", &format!("{CHECK}\n balance {algorithm}"), &addresses(&origins));
        let server = format!("\"{}\"", origins[0].address);
        let text = text.replace(&server, &format!("{server} slowstart=\"3s\""));
        let mut proxy = Proxy::start(&text, &[&door]);
        proxy.wait_server("s1", false);
        well.store(true, Ordering::SeqCst);
        proxy.wait_server("s1", true);
        let began = std::time::Instant::now();
        let mut client = Peer::connect(door.address);
        let mut number = 0;
        let mut share = |client: &mut Peer| {
            let mut one = || {
                number += 1;
                ask(client, get(&format!("/{number}")))
            };
            (0..100).filter(|_| one() == 1).count()
        };
        let first = share(&mut client);
        let took = began.elapsed().as_millis() as usize;
        // At most what it would have at the end of these requests, and a few by chance.
        assert!(first <= 5 + took / 30, "{algorithm}: {first} of 100 within {took} ms");
        wait("an even share", || share(&mut client) >= 40);
        assert!(began.elapsed().as_millis() > 1_000, "{algorithm}: its share grew at once");
    }
}

#[test]
fn a_limit_starts_slowly_too() {
    let (well, always) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let origins = [with_health(1, &well), with_health(2, &always)];
    let door = Door::new(1);
    let text = plan(&door, "", &format!("{CHECK}\n balance first"), &addresses(&origins));
    let server = format!("\"{}\"", origins[0].address);
    let text = text.replace(&server, &format!("{server} slowstart=\"1h\" max-connections=100"));
    let mut proxy = Proxy::start(&text, &[&door]);
    proxy.wait_server("s1", false);
    well.store(true, Ordering::SeqCst);
    proxy.wait_server("s1", true);
    // A hundredth of its limit is one: the second goes on.
    let mut held = Peer::connect(door.address);
    held.send(get("/held"));
    wait("the request at the server", || active(&proxy) == [1, 0]);
    assert_eq!(ask(&mut Peer::connect(door.address), get("/")), 2);
}
