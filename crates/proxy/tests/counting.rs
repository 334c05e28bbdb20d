//! Rules that count: how often a key came, and how much of it is under way.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::{Duration, Instant};

use common::*;
use relais_ipc::Report;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// An origin that does what the path says.
fn obedient() -> Origin {
    Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
            match path.as_str() {
                "/silent" => drop(peer.rest_bytes()),
                "/dies" => return,
                "/broken" => return peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
                "/tunnel" => {
                    peer.send(
                        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
                    );
                    peer.rest_bytes();
                }
                "/upload" => drop(peer.rest_bytes()),
                _ => peer.send(OK),
            }
        }
    })
}

/// The status of the answer to a request on a connection of its own.
fn status(door: &Door, request: impl AsRef<[u8]>) -> u16 {
    let mut peer = Peer::connect(door.address);
    peer.send(request);
    peer.message().0.split(' ').nth(1).unwrap().parse().unwrap()
}

fn with(path: &str, lines: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n")
}

#[test]
fn too_many_requests_from_one_address_are_denied_until_it_slows_down() {
    let (door, app) = (Door::new(1), obedient());
    let rule =
        |per: &str| format!("rule \"slow down\" {{ match rate key=src over=5 per=\"{per}\"; deny 429; }}");
    let mut proxy = Proxy::start(&plan(&door, &rule("1h"), "", &[app.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for n in 1..=8 {
        client.send(get("/"));
        let (head, _) = client.message();
        let denied = head.starts_with("HTTP/1.1 429 ");
        assert_eq!(denied, n > 5, "{n}: {head}");
        assert_eq!(field(&head, "retry-after").is_some(), denied);
    }
    let line = &proxy.lines(8)[7];
    assert!(line.contains(" 429 ") && line.contains(" PR-- "), "{line}");
    assert_eq!(proxy.status().frontends[0].rules[0].hits_total, 3, "a rule that only counts has not matched");
    proxy.plan(&plan(&door, &rule("20ms"), "", &[app.address]), &[&door]);
    for _ in 0..6 {
        status(&door, get("/"));
    }
    wait("an address that slows down", || {
        std::thread::sleep(Duration::from_millis(50)); // the pace that is asked for
        status(&door, get("/")) == 200
    });
}

#[test]
fn a_rate_is_counted_by_what_the_rule_says_and_only_where_the_rest_of_it_holds() {
    let (door, app) = (Door::new(1), obedient());
    for (key, one, other) in [
        ("key=header name=X-Api-Key", with("/login", "x-api-key: a\r\n"), with("/login", "X-Api-Key: b\r\n")),
        (
            "key=cookie name=sid",
            with("/login", "Cookie: a=b; sid=1\r\n"),
            with("/login", "Cookie: sid=2\r\n"),
        ),
        ("key=path", with("/login/./a", ""), with("/login/b", "")),
        ("key=host", get("/login"), with("/login", "")),
        ("key=query name=q", with("/login?q=%31", ""), with("/login?q=2", "")),
    ] {
        let rule = format!(
            "rule first {{ match path \"/never\"; match rate {key} over=1 per=\"1h\"; deny 403; }}\n\
             rule second {{ match path \"/login/**\"; match rate {key} over=2 per=\"1h\"; deny 429; }}"
        );
        let _proxy = Proxy::start(&plan(&door, &rule, "", &[app.address]), &[&door]);
        assert_eq!(status(&door, one.replace("/login", "/other")), 200);
        let answers: Vec<u16> = (0..3).map(|_| status(&door, &one)).collect();
        assert_eq!(answers, [200, 200, 429], "{key}");
        assert_eq!(status(&door, &other), 200, "{key}");
        if !key.contains("path") && !key.contains("host") {
            let without: Vec<u16> = (0..3).map(|_| status(&door, get("/login"))).collect();
            assert_eq!(without, [200; 3], "{key}: who has no key is not counted");
        }
    }
}

#[test]
fn networks_are_one_key_as_long_as_their_prefix_says() {
    let (door, app) = (Door::new(1), obedient());
    let rule = "rule slow { match rate key=src prefix=24 over=2 per=\"1h\"; deny 429; }";
    let _proxy = Proxy::start(&plan(&door, rule, "", &[app.address]), &[&door]);
    let from = |ip: &str| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        let source: std::net::SocketAddr = format!("{ip}:0").parse().unwrap();
        socket.bind(&source.into()).unwrap();
        socket.connect(&door.address.into()).unwrap();
        let mut peer = Peer::new(socket.into());
        peer.send(get("/"));
        peer.message().0.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(["127.0.7.1", "127.0.7.2", "127.0.7.3", "127.0.8.1"].map(from), ["200", "200", "429", "200"]);
}

#[test]
fn all_workers_count_together_and_a_reload_goes_on_counting() {
    let (door, app) = (Door::new(2), obedient());
    let rule = "rule slow { match rate key=src over=40 per=\"1h\"; deny 429; }";
    let text = plan(&door, rule, "", &[app.address]);
    let mut proxy = Proxy::bare(2);
    proxy.plan(&text, &[&door]);
    let passed = |times: usize| (0..times).filter(|_| status(&door, get("/")) == 200).count();
    assert_eq!(passed(30), 30);
    proxy.plan(&text.replace("server s1", "retries 1\nserver s1"), &[]);
    assert_eq!(passed(30), 10);
    proxy.plan(&text.replace("over=40", "over=45"), &[]);
    assert_eq!(passed(30), 30, "another rate is another count");
}

#[test]
fn too_many_connections_from_one_address_are_refused_in_tcp_mode() {
    let (door, app) = (Door::new(1), obedient());
    let rule = "mode tcp; rule slow { match rate key=src over=3 per=\"1h\"; deny 403; }";
    let proxy = Proxy::start(&plan(&door, rule, "mode tcp", &[app.address]), &[&door]);
    let ask = || {
        let mut peer = Peer::connect(door.address);
        let _ = peer.try_send(get("/"));
        peer.try_head().is_some()
    };
    let answers: Vec<bool> = (0..5).map(|_| ask()).collect();
    assert_eq!(answers, [true, true, true, false, false]);
    assert_eq!(proxy.lines(5).iter().filter(|line| line.contains(" PR ")).count(), 2);
}

const TWO: &str = "rule \"two of each\" { limit max-connections=2 key=src; }";

#[test]
fn a_rule_limits_the_requests_under_way_of_each_address() {
    let (door, app) = (Door::new(2), obedient());
    let rule =
        format!("{TWO}\nrule web {{ match path \"/a\"; limit max-connections=1 key=header name=X-User; }}");
    let mut proxy = Proxy::bare(2);
    assert!(matches!(proxy.plan(&plan(&door, &rule, "", &[app.address]), &[&door]), Report::Ready { .. }));
    let mut under_way: Vec<Peer> = (0..2).map(|_| Peer::connect(door.address)).collect();
    let upload = "POST /upload HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nhalf";
    under_way.iter_mut().for_each(|peer| peer.send(upload));
    wait("both under way", || proxy.status().backends[0].servers[0].active == 2);
    let mut third = Peer::connect(door.address);
    third.send(get("/"));
    let (head, body) = third.message();
    assert!(head.starts_with("HTTP/1.1 429 ") && field(&head, "retry-after") == Some("1"), "{head}");
    assert!(body.contains("too many"), "{body}");
    let lines = proxy.lines(1);
    assert!(lines[0].contains("/<NOSRV> ") && lines[0].contains(" PR-- "), "{lines:?}");
    // It is the request that is limited: the connection goes on, and idle ones hold nothing.
    under_way.pop();
    wait("a place", || {
        third.send(get("/"));
        third.message().0.starts_with("HTTP/1.1 200 ")
    });
    let idle: Vec<Peer> = (0..4)
        .map(|_| {
            let mut peer = Peer::connect(door.address);
            // A place is given back just after the answer's last byte; another worker may be quicker.
            wait("a place", || {
                peer.send(get("/"));
                peer.message().0.starts_with("HTTP/1.1 200 ")
            });
            peer
        })
        .collect();
    wait("a place of another key", || status(&door, with("/a", "X-User: me\r\n")) == 200);
    drop(idle);
}

#[test]
fn a_limited_place_is_given_back_however_a_request_ends() {
    let (door, app) = (Door::new(2), obedient());
    let rules = format!(
        "max-body \"1KiB\"; timeout client=\"100ms\"; {TWO}\n\
         rule denied {{ match path \"/denied\"; deny 403; }}\n\
         rule small {{ match path \"/small\"; limit max-body=\"1B\"; }}"
    );
    let mut proxy = Proxy::bare(2);
    let text = plan(&door, &rules, "retries 0; timeout server=\"100ms\"", &[app.address]);
    assert!(matches!(proxy.plan(&text, &[&door]), Report::Ready { .. }));
    let post =
        |path: &str, lines: &str, body: &str| format!("POST {path} HTTP/1.1\r\nHost: h\r\n{lines}\r\n{body}");
    let ways: Vec<(&str, String, bool)> = vec![
        ("answered", get("/"), false),
        ("denied behind the limit", get("/denied"), false),
        ("a bad path", get("/%zz"), false),
        ("a body too long for the rule", post("/small", "Content-Length: 2\r\n", "ab"), false),
        ("a body too long for the frontend", post("/", "Content-Length: 2000\r\n", ""), false),
        ("a chunk that is none", post("/upload", "Transfer-Encoding: chunked\r\n", "2\r\nabcd"), false),
        ("a body that stops", post("/upload", "Content-Length: 20\r\n", "ab"), false),
        ("a body that ends early", post("/upload", "Content-Length: 20\r\n", "ab"), true),
        ("a server that says nothing", get("/silent"), false),
        ("a client that does not wait", get("/silent"), true),
        ("a server that closes", get("/dies"), false),
        ("a server that breaks off", get("/broken"), false),
        ("a tunnel", with("/tunnel", "Connection: upgrade\r\nUpgrade: x\r\n"), true),
        ("not to be forwarded", "OPTIONS * HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n".into(), false),
    ];
    for round in 0..2 {
        for (way, request, leaves) in &ways {
            let mut peer = Peer::connect(door.address);
            peer.send(request);
            if *leaves {
                wait(way, || proxy.status().backends[0].servers[0].active > 0);
                drop(peer);
            } else {
                assert!(peer.try_head().is_some(), "{way}");
            }
            // One is lost in two rounds at the latest if this way keeps it, and none is left in four.
            wait(&format!("a place after {way}, round {round}"), || {
                let mut held = Peer::connect(door.address);
                held.send(get("/silent"));
                let began = Instant::now();
                let answer = status(&door, get("/"));
                assert!(began.elapsed() < PATIENCE);
                answer == 200
            });
        }
    }
}

#[test]
fn a_rule_limits_the_connections_of_each_address_in_tcp_mode() {
    let (door, app) = (Door::new(1), obedient());
    let rules = "mode tcp; rule one { limit max-connections=1 key=src; }";
    let proxy = Proxy::start(&plan(&door, rules, "mode tcp", &[app.address]), &[&door]);
    let mut first = Peer::connect(door.address);
    first.send(get("/"));
    assert_eq!(first.message().1, "ok");
    assert!(Peer::connect(door.address).is_closed());
    assert!(proxy.lines(1)[0].contains(" PR "), "{:?}", proxy.lines(1));
    drop(first);
    wait("its place", || {
        let mut next = Peer::connect(door.address);
        let _ = next.try_send(get("/"));
        next.try_head().is_some()
    });
}

#[test]
fn a_rule_sets_limits_of_bodies_and_patience_for_some() {
    let (door, app) = (Door::new(1), obedient());
    let rules = "rule guests { unless src \"192.0.2.0/24\"; match header X-Guest; \
         limit max-body=\"10B\" timeout-server=\"50ms\" timeout-client=\"50ms\"; }\n\
         rule slow { match header X-Slow; limit min-rate=\"1MiB\" grace=\"100ms\"; }";
    let proxy = Proxy::start(&plan(&door, rules, "timeout server=\"1h\"", &[app.address]), &[&door]);
    let post = |more: &str, body: &str| {
        format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 11\r\n{more}\r\n{body}")
    };
    assert_eq!(status(&door, post("X-Guest: 1\r\n", "")), 413);
    let chunked = "POST /upload HTTP/1.1\r\nHost: h\r\nX-Guest: 1\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n0\r\n\r\n";
    assert_eq!(status(&door, chunked), 413);
    assert_eq!(status(&door, with("/silent", "X-Guest: 1\r\n")), 504);
    let stops = "POST /upload HTTP/1.1\r\nHost: h\r\nX-Guest: 1\r\nContent-Length: 9\r\n\r\nab";
    assert_eq!(status(&door, stops), 408);
    let trickles = "POST /upload HTTP/1.1\r\nHost: h\r\nX-Slow: 1\r\nContent-Length: 9\r\n\r\nab";
    assert_eq!(status(&door, trickles), 408);
    assert_eq!(status(&door, post("", "01234567890")), 200);
    assert_eq!(proxy.status().frontends[0].rules[0].hits_total, 4);
}

#[test]
fn answers_and_bytes_are_counted_when_requests_are_over() {
    let door = Door::new(1);
    let app = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            let length = head
                .to_lowercase()
                .split("content-length: ")
                .nth(1)
                .and_then(|rest| rest.split('\r').next().unwrap().parse::<usize>().ok());
            length.into_iter().for_each(|length| drop(peer.take(length)));
            peer.send(match head.split(' ').nth(1).unwrap() {
                "/missing" => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/broken" => "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n".to_owned(),
                "/large" => format!("HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000)),
                _ => OK.to_owned(),
            });
        }
    });
    let body = format!("POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 60000\r\n\r\n{}", "x".repeat(60_000));
    for (measure, over, counted, other) in [
        ("errors", "1", get("/missing"), get("/broken")),
        ("failures", "1", get("/broken"), get("/missing")),
        ("bytes-out", "\"100KiB\"", get("/large"), get("/")),
        ("bytes-in", "100000", body.clone(), get("/large")),
    ] {
        let rule =
            format!("rule slow {{ match rate key=src measure={measure} over={over} per=\"1h\"; deny 429; }}");
        let _proxy = Proxy::start(&plan(&door, &rule, "", &[app.address]), &[&door]);
        // Each on a connection that lasts, so that an answer's end is known to have been counted.
        let mut client = Peer::connect(door.address);
        let mut ask = |request: &str| {
            client.send(request);
            client.message().0.split(' ').nth(1).unwrap().to_owned()
        };
        for _ in 0..5 {
            assert_ne!(ask(&other), "429", "{measure}");
        }
        assert_ne!(ask(&counted), "429", "{measure}");
        assert_ne!(ask(&counted), "429", "{measure}: the second is what goes over it");
        assert_eq!(ask(&get("/")), "429", "{measure}");
    }
}

#[test]
fn connections_are_counted_by_their_first_requests() {
    let (door, app) = (Door::new(1), obedient());
    let rule = "rule slow { match rate key=src measure=connections over=2 per=\"1h\"; deny 429; }";
    let _proxy = Proxy::start(&plan(&door, rule, "", &[app.address]), &[&door]);
    let mut lasting = Peer::connect(door.address);
    let mut ask = || {
        lasting.send(get("/"));
        lasting.message().0.split(' ').nth(1).unwrap().to_owned()
    };
    for _ in 0..10 {
        assert_eq!(ask(), "200", "requests are not what is counted");
    }
    assert_eq!([(); 3].map(|()| status(&door, get("/"))), [200, 429, 429]);
    assert_eq!(ask(), "429", "its address has too many, whichever connection it asks on");
}

#[test]
fn a_key_of_several_parts_counts_each_combination_by_itself() {
    let (door, app) = (Door::new(1), obedient());
    let rule = "rule slow { match rate key=\"host+query\" name=q over=1 per=\"1h\"; deny 429; }";
    let _proxy = Proxy::start(&plan(&door, rule, "", &[app.address]), &[&door]);
    let ask = |host: &str, q: &str| status(&door, format!("GET /?q={q} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    assert_eq!([ask("a", "bc"), ask("ab", "c"), ask("a", "c"), ask("ab", "bc")], [200; 4]);
    assert_eq!([ask("a", "bc"), ask("ab", "c"), ask("b", "c")], [429, 429, 200]);
    assert_eq!([(); 3].map(|()| status(&door, get("/"))), [200; 3], "who lacks a part is not counted");
}
