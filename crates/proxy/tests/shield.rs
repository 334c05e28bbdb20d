//! The waiting room: who waits, who comes in, what they are told.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use common::*;
use relais_ipc::files::Files;
use relais_ipc::{Order, Report};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const BROWSER: &str = "Accept: text/html,application/xhtml+xml;q=0.9\r\n";

/// A request of a browser, with a cookie if it has one.
fn page(path: &str, cookie: &str) -> String {
    let cookie =
        if cookie.is_empty() { String::new() } else { format!("Cookie: a=b; relais-shield={cookie}\r\n") };
    format!("GET {path} HTTP/1.1\r\nHost: h\r\n{BROWSER}{cookie}\r\n")
}

/// Status, cookie and all of the answer to a request on a connection of its own.
fn ask(door: &Door, request: impl AsRef<[u8]>) -> (u16, String, String) {
    let mut peer = Peer::connect(door.address);
    peer.send(request);
    let (head, body) = peer.message();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let cookie = field(&head, "set-cookie").and_then(|line| line.strip_prefix("relais-shield="));
    let cookie = cookie.map(|rest| rest.split(';').next().unwrap().to_owned()).unwrap_or_default();
    (status, cookie, head + &body)
}

#[test]
fn the_waiting_room_is_a_page_for_browsers_and_a_503_for_programs() {
    let (door, app) = (Door::new(1), Origin::answering(OK));
    let shield = "shield when=always refresh=\"20s\" admit=1";
    let mut proxy = Proxy::start(&plan(&door, shield, "", &[app.address]), &[&door]);
    let (status, cookie, answer) = ask(&door, page("/", ""));
    assert_eq!(status, 503);
    for line in
        ["Cache-Control: no-store", "Retry-After: 20", "Content-Type: text/html", "Content-Language: en"]
    {
        assert!(answer.contains(line), "{line}: {answer}");
    }
    for flag in ["Path=/", "HttpOnly", "SameSite=Lax"] {
        assert!(answer.contains(flag), "{answer}");
    }
    assert!(
        answer.contains("http-equiv=\"refresh\" content=\"20\"") && answer.contains("lang=\"en\""),
        "{answer}"
    );
    assert!(!answer.contains("Secure") && !answer.contains("%{"), "{answer}");
    let french = page("/", &cookie).replace("Accept:", "Accept-Language: fr-DZ,ar;q=0.5\r\nAccept:");
    let (status, again, answer) = ask(&door, french);
    assert!(status == 503 && !again.is_empty() && answer.contains("lang=\"fr\""), "{answer}");
    assert!(answer.contains("<strong>1</strong>"), "it is the first: {answer}");
    for request in [
        get("/"),
        page("/", "").replace("GET", "POST").replace("\r\n\r\n", "\r\nContent-Length: 2\r\n\r\nhi"),
        page("/", "").replace("text/html", "application/json").replace("xhtml", "x"),
    ] {
        let (status, _, answer) = ask(&door, &request);
        assert!(status == 503 && answer.contains("Content-Type: text/plain"), "{request} {answer}");
        assert!(answer.contains("Retry-After: 20") && answer.contains("no-store"), "{answer}");
    }
    let mut peer = Peer::connect(door.address);
    peer.send(page("/", "").replace("GET", "HEAD"));
    assert!(peer.head().starts_with("HTTP/1.1 503 "));
    peer.send(page("/", ""));
    assert!(
        peer.message().0.starts_with("HTTP/1.1 503 "),
        "the answer to HEAD has no body, and keeps the connection"
    );
    assert_eq!(app.accepted(), 0);
    assert!(proxy.lines(7).iter().all(|line| line.contains(" 503 ") && line.contains(" PQ-- ")));
    let shield = proxy.status().frontends[0].shield.clone().unwrap();
    assert!(shield.active && shield.waiting == 1 && shield.turned_away_total == 7, "{shield:?}");

    let own = scratch("waiting.html");
    std::fs::write(&own, "<p>Nr. %{place}, %{wait}, %{refresh}").unwrap();
    let shield = format!("shield when=always refresh=\"20s\" page=\"{}\"", own.display());
    proxy.plan(&plan(&door, &shield, "", &[app.address]), &[]);
    let (_, _, answer) = ask(&door, page("/", &cookie));
    assert!(answer.ends_with("<p>Nr. 1, less than a minute, 20"), "{answer}");
    std::fs::remove_file(own).unwrap();
}

#[test]
fn those_who_wait_come_in_by_their_order_and_a_place_is_good_once() {
    let (door, app) = (Door::new(2), Origin::answering(OK));
    let mut proxy = Proxy::bare(2);
    let shield = "shield when=always refresh=\"1s\" admit=1";
    proxy.plan(&plan(&door, shield, "", &[app.address]), &[&door]);
    let mut waiting: Vec<(usize, String)> = (0..3).map(|n| (n, ask(&door, page("/", "")).1)).collect();
    let places: Vec<String> = waiting.iter().map(|(_, cookie)| cookie.clone()).collect();
    let mut came: Vec<(usize, String)> = Vec::new();
    wait("all of them to come in", || {
        // The last asks first.
        for at in (0..waiting.len()).rev() {
            let (status, cookie, _) = ask(&door, page("/", &waiting[at].1));
            if status == 200 {
                came.push((waiting.remove(at).0, cookie));
            } else {
                waiting[at].1 = cookie;
            }
        }
        waiting.is_empty()
    });
    assert_eq!(came.iter().map(|(who, _)| *who).collect::<Vec<_>>(), [0, 1, 2]);
    for (_, session) in &came {
        let (status, cookie, _) = ask(&door, page("/", session));
        assert_eq!((status, &*cookie), (200, ""), "who is in comes in, and has its cookie");
    }
    // One of these may find room, as any newcomer; the others are told a place of their own.
    let copies: Vec<_> = (0..10).map(|n| ask(&door, page("/", &places[n % 3]))).collect();
    assert!(copies.iter().filter(|(status, ..)| *status == 503).count() >= 8, "{copies:?}");
    for (status, cookie, _) in copies {
        assert!(status == 200 || !cookie.is_empty() && !places.contains(&cookie));
    }
    assert!(proxy.status().frontends[0].shield.clone().unwrap().admitted_total >= 3);
}

#[test]
fn under_overload_newcomers_wait_and_those_inside_go_on() {
    let door = Door::new(2);
    let (release, held) = mpsc::channel::<()>();
    let held = Arc::new(Mutex::new(held));
    let app = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            if head.starts_with("GET /slow") {
                let _ = held.lock().unwrap().recv_timeout(PATIENCE);
            }
            peer.send(OK);
        }
    });
    let mut proxy = Proxy::bare(2);
    let shield = "shield saturation=60";
    let text = plan(&door, shield, "", &[app.address]);
    let text =
        text.replace(&format!("\"{}\"", app.address), &format!("\"{}\" max-connections=3", app.address));
    assert!(text.contains("max-connections=3"), "{text}");
    assert!(matches!(proxy.plan(&text, &[&door]), Report::Ready { .. }));
    let active = |proxy: &Proxy| proxy.status().frontends[0].shield.clone().unwrap().active;
    let (status, session, answer) = ask(&door, page("/", ""));
    assert!(answer.contains("\r\nCache-Control: private\r\n"), "no cache gives it to others: {answer}");
    assert!(status == 200 && !session.is_empty(), "in quiet times everybody comes in, and gets a session");
    assert_eq!(ask(&door, get("/")).1, "", "but for programs");
    assert!(!active(&proxy));
    let mut slow: Vec<Peer> = (0..2).map(|_| Peer::connect(door.address)).collect();
    slow.iter_mut().for_each(|peer| peer.send(get("/slow")));
    wait("too much load", || active(&proxy));
    assert_eq!(ask(&door, page("/", "")).0, 503);
    assert_eq!(ask(&door, get("/")).0, 503);
    let (status, again, _) = ask(&door, page("/", &session));
    assert_eq!((status, &*again), (200, ""), "who is inside goes on");
    assert_eq!(
        ask(&door, get("/").replace("Host", &format!("Cookie: relais-shield={session}\r\nHost"))).0,
        200
    );
    (0..2).for_each(|_| release.send(()).unwrap());
    for mut peer in slow {
        assert!(peer.message().0.starts_with("HTTP/1.1 200 "), "what was under way is not touched");
    }
}

#[test]
fn what_is_excepted_never_waits() {
    let (door, app) = (Door::new(1), Origin::answering(OK));
    let shield =
        "shield when=always { except path \"/healthz\" \"/static/**\"; except src \"127.0.9.0/24\"; }";
    let _proxy = Proxy::start(&plan(&door, shield, "", &[app.address]), &[&door]);
    assert_eq!(ask(&door, page("/healthz", "")).0, 200);
    assert_eq!(ask(&door, page("/x/../static/a/b.css?v=1", "")).0, 200);
    assert_eq!(ask(&door, page("/static/../", "")).0, 503);
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&"127.0.9.1:0".parse::<std::net::SocketAddr>().unwrap().into()).unwrap();
    socket.connect(&door.address.into()).unwrap();
    let mut peer = Peer::new(socket.into());
    peer.send(page("/", ""));
    assert!(peer.message().0.starts_with("HTTP/1.1 200 "));
}

#[test]
fn a_failover_loses_neither_session_nor_place() {
    let app = Origin::answering(OK);
    let start = |secret: &str, when: &str| {
        let door = Door::new(1);
        let mut files = Files::default();
        files.insert("/cluster.key", Ok(secret.as_bytes().to_vec()));
        let mut proxy = Proxy::bare(1);
        proxy.platform = "secret cluster-key file=\"/cluster.key\"".into();
        proxy.order(&Order::Files { renew: false }, Some(files.to_fd().unwrap()));
        let shield = format!("shield when={when} refresh=\"1s\" admit=100");
        let report = proxy.plan(&plan(&door, &shield, "", &[app.address]), &[&door]);
        assert!(matches!(report, Report::Ready { .. }), "{report:?}");
        (door, proxy)
    };
    let key = "kK3q9f0b2Jb1nZs0m5Z2hD6m0mWqk1e3Vt9c";
    let (one, first) = start(key, "always");
    let (two, second) = start(key, "overload");
    let (_, place, _) = ask(&one, page("/", ""));
    let mut session = String::new();
    let mut mine = place.clone();
    wait("the first to come in", || {
        let (status, cookie, _) = ask(&one, page("/", &mine));
        if status == 200 {
            session = cookie
        } else {
            mine = cookie
        }
        status == 200
    });
    let (stranger, _third) = start(&key.replace('k', "x"), "always");
    assert_eq!(ask(&stranger, page("/", &session)).0, 503, "another cluster's");
    assert_eq!(ask(&two, page("/", &session)).0, 200);
    assert!(!second.status().frontends[0].shield.clone().unwrap().active);
    // Somebody who waits comes to the other, which has had no load yet: there is a line, which it goes on with.
    let (status, waiting, _) = loop {
        let answer = ask(&one, page("/", ""));
        if answer.0 == 503 {
            break answer;
        }
    };
    assert_eq!(status, 503);
    drop(first);
    let (status, again, answer) = ask(&two, page("/", &waiting));
    assert_eq!(status, 503, "{answer}");
    assert!(second.status().frontends[0].shield.clone().unwrap().active);
    let mut mine = again;
    wait("its turn", || {
        std::thread::sleep(Duration::from_millis(100)); // the pace of one who waits
        let (status, cookie, _) = ask(&two, page("/", &mine));
        mine = cookie;
        status == 200
    });
    assert_eq!(ask(&two, page("/", &mine)).0, 200);
}
