//! Clients that stay with their server: by our cookie, by the route in a session's id.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;

/// Servers that answer with their number and the cookies they saw; `/held` when it is released.
fn servers_that_hold(count: usize, released: &Arc<AtomicBool>) -> Vec<Origin> {
    let serve = |number: usize, released: Arc<AtomicBool>| {
        move |mut peer: Peer| {
            while let Some(head) = peer.try_head() {
                if head.starts_with("GET /held") {
                    wait("the release", || released.load(Ordering::SeqCst));
                }
                let body = format!("{number} {}", field(&head, "cookie").unwrap_or("none"));
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()));
            }
        }
    };
    (1..=count).map(|number| Origin::new(serve(number, released.clone()))).collect()
}

fn servers(count: usize) -> Vec<Origin> {
    servers_that_hold(count, &Arc::default())
}

fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

/// The answer to a request with these cookies on a connection of its own: head, server, what it saw.
fn ask(door: &Door, path: &str, cookies: &str) -> (String, usize, String) {
    let mut client = Peer::connect(door.address);
    let line = if cookies.is_empty() { String::new() } else { format!("Cookie: {cookies}\r\n") };
    client.send(format!("GET {path} HTTP/1.1\r\nHost: h\r\n{line}\r\n"));
    let (head, body) = client.message();
    let (number, saw) = body.split_once(' ').unwrap_or_else(|| panic!("no server's answer: {head}{body}"));
    (head.clone(), number.parse().unwrap(), saw.to_owned())
}

#[test]
fn a_client_stays_with_its_server_by_a_cookie_that_no_server_sees() {
    let (door, origins) = (Door::new(1), servers(3));
    let proxy = Proxy::start(&plan(&door, "", "persist cookie=SRV", &addresses(&origins)), &[&door]);
    let mut seen = [false; 3];
    for _ in 0..12 {
        let (head, server, _) = ask(&door, "/", "");
        seen[server - 1] = true;
        assert_eq!(
            field(&head, "set-cookie"),
            Some(&*format!("SRV=s{server}; Path=/; HttpOnly; SameSite=Lax"))
        );
        assert_eq!(field(&head, "cache-control"), Some("private"));
        for _ in 0..4 {
            let (head, again, saw) = ask(&door, "/", &format!("a=b; SRV=s{server}; c=\"d\""));
            assert_eq!((again, &*saw), (server, "a=b; c=\"d\""));
            assert!(
                field(&head, "set-cookie").is_none() && field(&head, "cache-control").is_none(),
                "{head}"
            );
            assert_eq!(ask(&door, "/", &format!("SRV=\"s{server}\"")).2, "none");
        }
    }
    assert_eq!(seen, [true; 3], "without a cookie the balance decides");
    let lines = proxy.lines(9);
    let states =
        |line: &String| line.split_whitespace().find(|word| word.starts_with("--")).unwrap().to_owned();
    let first: Vec<String> = lines[..3].iter().map(states).collect();
    assert_eq!(first, ["--NI", "--VN", "--VN"], "{lines:?}");
    for wrong in ["SRV=s9", "SRV=", "srv=s1", "SRV=s1/../s2", "SRV=S1"] {
        let (head, server, _) = ask(&door, "/", wrong);
        let set = field(&head, "set-cookie").unwrap_or_else(|| panic!("{wrong}: {head}"));
        assert!(set.starts_with(&format!("SRV=s{server};")), "{wrong}: {set}");
    }
    drop(proxy);
}

#[test]
fn a_session_s_route_leads_to_its_server() {
    let (door, origins) = (Door::new(1), servers(3));
    let _proxy = Proxy::start(&plan(&door, "", "persist route=JSESSIONID", &addresses(&origins)), &[&door]);
    for server in [2, 3, 1, 3] {
        let cookie = format!("x=y; JSESSIONID=0A1B2C.s{server}");
        let (head, by_cookie, saw) = ask(&door, "/app", &cookie);
        assert_eq!((by_cookie, &*saw), (server, &*cookie), "the cookie is the application's");
        assert!(field(&head, "set-cookie").is_none());
        let path = format!("/app;jsessionid=0A1B2C.s{server}/page?q=1");
        assert_eq!(ask(&door, &path, "").1, server);
    }
    for lost in ["JSESSIONID=0A1B2C", "JSESSIONID=0A1B2C.s7", "JSESSIONID=."] {
        assert!((1..=3).contains(&ask(&door, "/", lost).1), "{lost}");
    }
}

#[test]
fn who_is_stuck_to_a_drained_server_stays_and_to_a_dead_one_moves() {
    let (door, origins) = (Door::new(1), servers(2));
    let text =
        plan(&door, "", "persist cookie=SRV\nredispatch", &[addresses(&origins), vec![nobody()]].concat());
    let drained = format!("\"{}\" weight=0", origins[0].address);
    let text = text.replace(&format!("\"{}\"", origins[0].address), &drained);
    let proxy = Proxy::start(&text, &[&door]);
    for _ in 0..6 {
        assert_eq!(ask(&door, "/", "SRV=s1").1, 1, "it keeps the clients that it has");
        assert_eq!(ask(&door, "/", "").1, 2, "and gets no new ones");
        let (head, server, _) = ask(&door, "/", "SRV=s3");
        assert_eq!(server, 2, "where it leads nobody listens");
        assert!(field(&head, "set-cookie").unwrap().starts_with("SRV=s2;"), "{head}");
    }
    drop(proxy);
}

#[test]
fn who_is_stuck_to_a_full_server_waits_for_it() {
    let (door, released) = (Door::new(1), Arc::default());
    let origins = servers_that_hold(2, &released);
    let text = plan(&door, "", "persist cookie=SRV", &addresses(&origins));
    let full = format!("\"{}\" max-connections=1", origins[0].address);
    let text = text.replace(&format!("\"{}\"", origins[0].address), &full);
    let proxy = Proxy::start(&text, &[&door]);
    let mut holder = Peer::connect(door.address);
    holder.send("GET /held HTTP/1.1\r\nHost: h\r\nCookie: SRV=s1\r\n\r\n");
    wait("the server to be full", || proxy.status().backends[0].servers[0].active == 1);
    let mut waiter = Peer::connect(door.address);
    waiter.send("GET / HTTP/1.1\r\nHost: h\r\nCookie: SRV=s1\r\n\r\n");
    wait("a request in the queue", || proxy.status().backends[0].queued == 1);
    assert_eq!(ask(&door, "/", "SRV=s2").1, 2, "others do not wait behind it");
    released.store(true, Ordering::SeqCst);
    assert!(waiter.message().1.starts_with("1 "), "its own server has answered");
    assert!(holder.message().1.starts_with("1 "));
}

#[test]
fn a_server_is_called_in_the_cookie_what_its_row_says() {
    let (door, origins) = (Door::new(1), servers(2));
    let text = plan(&door, "", "persist cookie=SRV", &addresses(&origins));
    let second = format!("\"{}\"", origins[1].address);
    let _proxy = Proxy::start(&text.replace(&second, &format!("{second} cookie=second")), &[&door]);
    for (cookie, server) in [("SRV=s1", 1), ("SRV=second", 2)] {
        let (head, answered, _) = ask(&door, "/", cookie);
        assert_eq!((answered, field(&head, "set-cookie")), (server, None), "{cookie}");
    }
    let (head, server, _) = ask(&door, "/", "SRV=s2");
    let name = if server == 1 { "s1" } else { "second" };
    assert!(field(&head, "set-cookie").unwrap().starts_with(&format!("SRV={name};")), "{head}");
}

#[test]
fn a_cookie_made_with_a_secret_says_no_name_and_both_balancers_read_it() {
    let origins = servers(3);
    let balancer = |secret: &str| {
        let (door, mut proxy) = (Door::new(1), Proxy::bare(1));
        let mut files = relais_ipc::files::Files::default();
        files.insert("/word", Ok(format!("{secret}\n").into_bytes()));
        proxy.platform = "secret word file=\"/word\";".to_owned();
        proxy.order(&relais_ipc::Order::Files { renew: false }, Some(files.to_fd().unwrap()));
        let text = plan(&door, "", "persist cookie=SRV secret=word", &addresses(&origins));
        let report = proxy.plan(&text, &[&door]);
        (door, proxy, report)
    };
    let (first, _one, _) = balancer("a secret that both of them have");
    let (second, _two, _) = balancer("a secret that both of them have");
    let (stranger, _three, _) = balancer("a secret that somebody else has");
    for _ in 0..6 {
        let (head, server, _) = ask(&first, "/", "");
        let cookie = field(&head, "set-cookie").unwrap().split(';').next().unwrap().to_owned();
        assert!(cookie.len() == 20 && !cookie.contains(&format!("s{server}")), "{cookie}");
        for _ in 0..3 {
            let (head, again, _) = ask(&second, "/", &cookie);
            assert_eq!((again, field(&head, "set-cookie")), (server, None), "both know it");
        }
        assert!(field(&ask(&stranger, "/", &cookie).0, "set-cookie").is_some(), "nobody else does");
        let name = format!("SRV=s{server}");
        assert!(field(&ask(&first, "/", &name).0, "set-cookie").is_some(), "a name is none any more");
    }
    let (_, _proxy, report) = balancer("short");
    let relais_ipc::Report::Refused { why, .. } = report else { panic!("{report:?}") };
    assert!(why.contains("backend app") && why.contains("at least 16 characters"), "{why}");
}
