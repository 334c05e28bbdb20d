//! A second server is asked where the first takes long.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::*;

/// How a server takes a request.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Answers,
    /// After so many milliseconds.
    Slow(u64),
    /// It closes the connection after so many milliseconds.
    Dies(u64),
    /// The end of its answer comes after so many milliseconds.
    Drags(u64),
}

/// A server that answers with its name, and counts its requests and the connections that were broken off while it was slow.
struct Server {
    origin: Origin,
    requests: Arc<AtomicUsize>,
    broken: Arc<AtomicUsize>,
}

impl Server {
    fn new(name: &'static str, manner: Manner) -> Server {
        let (requests, broken) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (counts, ends) = (requests.clone(), broken.clone());
        let origin = Origin::new(move |mut peer| {
            while peer.try_head().is_some() {
                counts.fetch_add(1, Ordering::SeqCst);
                match manner {
                    Manner::Answers => {}
                    Manner::Slow(ms) => {
                        std::thread::sleep(Duration::from_millis(ms)); // how slow it is
                        if !peer.hears_nothing(Duration::from_millis(1)) {
                            ends.fetch_add(1, Ordering::SeqCst);
                            return;
                        }
                    }
                    Manner::Dies(ms) => {
                        std::thread::sleep(Duration::from_millis(ms)); // likewise
                        return;
                    }
                    Manner::Drags(ms) => {
                        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
                        std::thread::sleep(Duration::from_millis(ms)); // likewise
                        peer.send(name);
                        continue;
                    }
                }
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{name}"));
            }
        });
        Server { origin, requests, broken }
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

fn start(door: &Door, back: &str, servers: &[SocketAddr]) -> Proxy {
    Proxy::start(&plan(door, "", &format!("balance first\n {back}"), servers), &[door])
}

/// The body of the answer to a request, and how long it took.
fn ask(client: &mut Peer, request: &str) -> (String, Duration) {
    let begun = Instant::now();
    client.send(request);
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    (body, begun.elapsed())
}

fn hedges(proxy: &Proxy) -> Vec<[u64; 2]> {
    proxy.status().backends[0].servers.iter().map(|server| server.hedges_total).collect()
}

#[test]
fn a_slow_server_is_overtaken_by_another() {
    let (slow, quick) = (Server::new("s1", Manner::Slow(1500)), Server::new("s2", Manner::Answers));
    let door = Door::new(1);
    let proxy = start(&door, "hedge after=\"50ms\"", &[slow.origin.address, quick.origin.address]);
    let mut client = Peer::connect(door.address);
    let (body, took) = ask(&mut client, &get("/"));
    assert_eq!(body, "s2");
    assert!(took >= Duration::from_millis(50) && took < Duration::from_millis(1000), "{took:?}");
    assert_eq!((slow.requests(), quick.requests(), hedges(&proxy)), (1, 1, vec![[0, 0], [1, 1]]));
    assert!(proxy.lines(1)[0].contains(" app/s2 "), "the log has who answered");
    let active = |server: usize| proxy.status().backends[0].servers[server].active;
    assert_eq!([active(0), active(1)], [0, 0], "nobody's place is kept");
    wait("the slow one to see that nobody listens", || slow.broken.load(Ordering::SeqCst) == 1);
    // The client's connection goes on, and so does the one to the server that answered.
    let (body, _) = ask(&mut client, &get("/"));
    assert_eq!(body, "s2");
}

#[test]
fn the_place_goes_along_with_the_answer() {
    let (slow, drags) = (Server::new("s1", Manner::Slow(1500)), Server::new("s2", Manner::Drags(1000)));
    let door = Door::new(1);
    let proxy = start(&door, "hedge after=\"50ms\"", &[slow.origin.address, drags.origin.address]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    let head = client.try_head().unwrap();
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    let active = |server: usize| proxy.status().backends[0].servers[server].active;
    assert_eq!([active(0), active(1)], [0, 1]);
    assert_eq!(client.take(2), b"s2");
}

#[test]
fn who_answers_in_time_is_not_overtaken() {
    let (slow, quick) = (Server::new("s1", Manner::Slow(100)), Server::new("s2", Manner::Slow(2000)));
    let door = Door::new(1);
    let proxy = start(&door, "hedge after=\"20ms\"", &[slow.origin.address, quick.origin.address]);
    let mut client = Peer::connect(door.address);
    assert_eq!(ask(&mut client, &get("/")).0, "s1");
    assert_eq!(hedges(&proxy), [[0, 0], [1, 0]], "the second was asked, and the first answered");
    wait("the second to see that nobody listens", || quick.broken.load(Ordering::SeqCst) == 1);
    assert_eq!(ask(&mut client, &get("/")).0, "s1");
}

#[test]
fn whoever_of_two_fails_the_other_is_waited_for() {
    for (first, second, body) in [
        (Manner::Dies(200), Manner::Slow(400), "s2"),
        (Manner::Slow(400), Manner::Dies(0), "s1"),
        (Manner::Slow(400), Manner::Dies(200), "s1"),
    ] {
        let (one, two) = (Server::new("s1", first), Server::new("s2", second));
        let door = Door::new(1);
        let back = "hedge after=\"50ms\"\n retries 0";
        let proxy = start(&door, back, &[one.origin.address, two.origin.address]);
        let mut client = Peer::connect(door.address);
        assert_eq!(ask(&mut client, &get("/")).0, body);
        assert_eq!((one.requests(), two.requests()), (1, 1));
        let failed = usize::from(body == "s1");
        assert_eq!(proxy.status().backends[0].servers[failed].response_errors_total, 1);
    }
    // Nobody listens at the second; and where both fail, the first one's failure is the answer.
    let door = Door::new(1);
    let one = Server::new("s1", Manner::Slow(300));
    let proxy = start(&door, "hedge after=\"50ms\"\n retries 0", &[one.origin.address, nobody()]);
    assert_eq!(ask(&mut Peer::connect(door.address), &get("/")).0, "s1");
    assert_eq!(proxy.status().backends[0].servers[1].connect_errors_total, 1);
    let door = Door::new(1);
    let (one, two) = (Server::new("s1", Manner::Dies(150)), Server::new("s2", Manner::Dies(300)));
    let proxy = start(&door, "hedge after=\"50ms\"\n retries 0", &[one.origin.address, two.origin.address]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert!(client.message().0.starts_with("HTTP/1.1 502 "));
    let errors = |server: usize| proxy.status().backends[0].servers[server].response_errors_total;
    assert_eq!([errors(0), errors(1)], [1, 1], "each is counted once");
}

#[test]
fn a_hedge_asks_nobody_who_stays_or_writes_and_keeps_to_its_budget() {
    let (slow, quick) = (Server::new("s1", Manner::Slow(150)), Server::new("s2", Manner::Answers));
    let door = Door::new(1);
    let back = "hedge after=\"20ms\"\n persist cookie=SRV mode=insert";
    let addresses = [slow.origin.address, quick.origin.address];
    let _proxy = start(&door, back, &addresses);
    let mut client = Peer::connect(door.address);
    for request in [
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: h\r\nCookie: SRV=s1\r\n\r\n",
    ] {
        assert_eq!(ask(&mut client, request).0, "s1", "{request}");
    }
    assert_eq!(quick.requests(), 0);
    assert_eq!(ask(&mut client, &get("/")).0, "s2", "who has no cookie yet is anybody's");
    // Ten a second go beyond the share, and no more, however many are slow.
    let (one, two) = (Server::new("s1", Manner::Slow(200)), Server::new("s2", Manner::Slow(200)));
    let door = Door::new(1);
    let proxy = start(&door, "hedge after=\"20ms\" budget=1", &[one.origin.address, two.origin.address]);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..60 {
            scope.spawn(|| ask(&mut Peer::connect(door.address), &get("/")));
        }
    });
    let most = 10 + begun.elapsed().as_secs() * 10 + 10;
    let hedged: u64 = hedges(&proxy).iter().map(|hedge| hedge[0]).sum();
    assert!((10..=most).contains(&hedged), "{hedged} of 60 requests were hedged, {most} might be");
}
