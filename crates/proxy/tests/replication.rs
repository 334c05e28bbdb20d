//! Balancers that tell each other which server a client stays with: two Relais, and a Relais and a HAProxy.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use common::*;
use relais_ipc::files::Files;
use relais_ipc::status::PeerStatus;
use relais_ipc::{Order, Report};

const KEY: &str = "0123456789abcdef0123456789abcdef0123456789abcdef";

/// Servers that answer with their number.
fn servers(count: usize) -> Vec<Origin> {
    let serve = |number: usize| {
        move |mut peer: Peer| {
            while peer.try_head().is_some() {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"));
            }
        }
    };
    (1..=count).map(|number| Origin::new(serve(number))).collect()
}

/// Two nodes, `a` and `b`, with addresses of their own.
struct Pair {
    links: [IpAddr; 2],
    port: u16,
    origins: Vec<Origin>,
    platform: &'static str,
    back: &'static str,
}

/// The number in the second place of this test's addresses.
static PAIRS: AtomicUsize = AtomicUsize::new(0);

impl Pair {
    fn new(back: &'static str, platform: &'static str) -> Pair {
        let (process, pair) = (std::process::id(), PAIRS.fetch_add(1, Ordering::Relaxed) as u8);
        let link =
            |node: u8| IpAddr::from([127, 64 + (process >> 8) as u8 % 128, process as u8, pair * 8 + node]);
        let links = [link(1), link(2)];
        let port = TcpListener::bind((links[0], 0)).unwrap().local_addr().unwrap().port();
        Pair { links, port, origins: servers(3), platform, back }
    }

    /// The balancer of this node.
    fn start(&self, node: usize, door: &Door) -> Proxy {
        self.start_with(node, door, KEY, self.port)
    }

    fn start_with(&self, node: usize, door: &Door, key: &str, port: u16) -> Proxy {
        let mut proxy = Proxy::bare_as(["a", "b"][node], 1);
        let mut files = Files::default();
        files.insert("/cluster.key", Ok(key.as_bytes().to_vec()));
        proxy.order(&Order::Files { renew: false }, Some(files.to_fd().unwrap()));
        assert_eq!(self.plan(&mut proxy, door, port), Report::Ready { generation: 1 });
        proxy
    }

    fn plan(&self, proxy: &mut Proxy, door: &Door, port: u16) -> Report {
        let [a, b] = self.links;
        proxy.nodes = format!("node a {{ link \"{a}\"; }}\nnode b {{ link \"{b}\"; }}");
        proxy.platform =
            format!("secret cluster-key file=\"/cluster.key\"; peers port={port}; {}", self.platform);
        let servers: Vec<SocketAddr> = self.origins.iter().map(|origin| origin.address).collect();
        proxy.plan(&plan(door, "on a b", self.back, &servers), &[door])
    }
}

/// The server of a user, on a connection that is kept.
fn ask(client: &mut Peer, user: usize) -> usize {
    client.send(format!("GET / HTTP/1.1\r\nHost: h\r\nX-User: u{user}\r\n\r\n"));
    let (head, body) = client.message();
    body.parse().unwrap_or_else(|_| panic!("no server's answer: {head}{body}"))
}

fn ask_all(door: &Door, users: std::ops::Range<usize>) -> Vec<usize> {
    let mut client = Peer::connect(door.address);
    users.map(|user| ask(&mut client, user)).collect()
}

/// The same, the last one first: whoever only takes turns gives other servers.
fn ask_all_backwards(door: &Door, users: std::ops::Range<usize>) -> Vec<usize> {
    let mut client = Peer::connect(door.address);
    let mut all: Vec<usize> = users.rev().map(|user| ask(&mut client, user)).collect();
    all.reverse();
    all
}

fn entries(proxy: &Proxy) -> u64 {
    proxy.status().backends[0].table.as_ref().unwrap().entries
}

fn peer(proxy: &Proxy) -> PeerStatus {
    proxy.status().peers[0].clone()
}

#[test]
fn clients_stay_with_their_servers_when_their_balancer_dies() {
    const CLIENTS: usize = 20_000;
    const PARTS: usize = 4;
    let pair = Pair::new("stick header name=X-User size=30000", "");
    let doors = [Door::new(1), Door::new(1)];
    let (first, second) = (pair.start(0, &doors[0]), pair.start(1, &doors[1]));
    let all = |door: &Door, ask: fn(&Door, std::ops::Range<usize>) -> Vec<usize>| -> Vec<usize> {
        std::thread::scope(|scope| {
            let part = |part: usize| part * CLIENTS / PARTS..(part + 1) * CLIENTS / PARTS;
            let threads: Vec<_> = (0..PARTS).map(|n| scope.spawn(move || ask(door, part(n)))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        })
    };
    let before = all(&doors[0], ask_all);
    wait("the other balancer to know them all", || entries(&second) == CLIENTS as u64);
    drop(first);
    let after = all(&doors[1], ask_all_backwards);
    let stayed = before.iter().zip(&after).filter(|(before, after)| before == after).count();
    println!("{stayed} of {CLIENTS} clients stayed with their server");
    assert!(stayed * 1000 >= CLIENTS * 999, "{stayed} of {CLIENTS}");
}

#[test]
fn a_balancer_that_comes_back_learns_the_whole_table_and_both_agree_on_the_later_word() {
    const USERS: usize = 40;
    let pair = Pair::new("stick header name=X-User", "");
    let doors = [Door::new(1), Door::new(1)];
    let first = pair.start(0, &doors[0]);
    // Apart: the other looks for its peers elsewhere.
    let elsewhere = TcpListener::bind((pair.links[1], 0)).unwrap().local_addr().unwrap().port();
    let mut second = pair.start_with(1, &doors[1], KEY, elsewhere);
    let early = ask_all(&doors[0], 0..USERS);
    ask_all(&doors[1], USERS..USERS + 1); // so that turns differ
    let late = ask_all(&doors[1], 0..USERS);
    assert!(early.iter().zip(&late).any(|(early, late)| early != late));
    ask_all(&doors[0], 100..150);
    assert_eq!((entries(&first), entries(&second)), (90, 41));
    assert_eq!(pair.plan(&mut second, &doors[1], pair.port), Report::Ready { generation: 2 });
    wait("both to know everything", || (entries(&first), entries(&second)) == (91, 91));
    wait("the later word", || peer(&first).learned_total >= USERS as u64);
    assert_eq!(ask_all(&doors[0], 0..USERS), late);
    assert_eq!(ask_all(&doors[1], 0..USERS), late);
    // It dies, and another takes its place.
    drop(second);
    wait("the end of the connection", || !peer(&first).connected);
    let known = ask_all(&doors[0], 100..150);
    let second = pair.start(1, &doors[1]);
    wait("the newcomer to know everything", || entries(&second) == 91);
    assert_eq!(ask_all(&doors[1], 100..150), known);
    assert_eq!(ask_all(&doors[1], 0..USERS), late);
}

/// The statuses of a user's next requests.
fn statuses(door: &Door, user: usize, requests: usize) -> Vec<u32> {
    let mut client = Peer::connect(door.address);
    let one = |_| {
        client.send(format!("GET / HTTP/1.1\r\nHost: h\r\nX-User: u{user}\r\n\r\n"));
        client.message().0[9..12].parse().unwrap()
    };
    (0..requests).map(one).collect()
}

#[test]
fn balancers_count_together_and_one_that_comes_back_knows_what_the_other_does() {
    const RULE: &str = "rule \"so many\" { match rate key=header name=X-User over=10 per=\"1h\"; deny 429; }";
    let pair = Pair::new(RULE, "");
    let doors = [Door::new(1), Door::new(1)];
    let (first, second) = (pair.start(0, &doors[0]), pair.start(1, &doors[1]));
    wait("both to meet", || peer(&first).connected && peer(&second).connected);
    let heard = |proxy: &Proxy, n: u64| {
        wait("counts", || peer(proxy).learned_total >= n);
        std::thread::sleep(Duration::from_millis(300)); // they come every 50 ms, and nothing says that these were all
    };
    assert_eq!(statuses(&doors[0], 1, 6), [200; 6]);
    heard(&second, 1);
    // Those of the first balancer count at the second, and the other way round; another user's do not.
    assert_eq!(statuses(&doors[1], 1, 6), [200, 200, 200, 200, 429, 429]);
    heard(&first, 1);
    assert_eq!(statuses(&doors[0], 1, 1), [429]);
    assert_eq!(statuses(&doors[0], 2, 10), [200; 10]);
    heard(&second, 3); // of the first user twice, of the second once
    // What it does not tell again: the second user has had ten, and no more.
    assert_eq!(statuses(&doors[1], 3, 1), [200]);
    drop(first);
    let first = pair.start(0, &doors[0]);
    heard(&first, 3);
    assert_eq!([1, 2, 3].map(|user| statuses(&doors[0], user, 1)), [[429], [429], [200]]);
    assert_eq!(peer(&first).ignored_total + peer(&second).ignored_total, 0);
}

#[test]
fn balancers_with_other_rules_do_not_mix_their_counts() {
    let rule = |per: &str| {
        let text = format!(
            "rule \"so many\" {{ match rate key=header name=X-User over=1 per=\"{per}\"; deny 429; }}"
        );
        Box::leak(text.into_boxed_str())
    };
    let pair = Pair::new(rule("1h"), "");
    let doors = [Door::new(1), Door::new(1)];
    let first = pair.start(0, &doors[0]);
    let pair = Pair { back: rule("30m"), ..pair };
    let second = pair.start(1, &doors[1]);
    wait("both to meet", || peer(&first).connected && peer(&second).connected);
    assert_eq!(statuses(&doors[0], 1, 1), [200]);
    wait("counts", || peer(&second).ignored_total == 1);
    assert_eq!(statuses(&doors[1], 1, 2), [200, 429]);
}

/// A connection to a balancer's port for peers, from an address.
fn dial(pair: &Pair, from: IpAddr) -> Peer {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(from, 0).into()).unwrap();
    socket.connect(&SocketAddr::new(pair.links[0], pair.port).into()).unwrap();
    Peer::new(socket.into())
}

/// What it says until it ends the connection, in order or with a reset.
fn until_cut(peer: &mut Peer) -> String {
    let mut said = Vec::new();
    let mut byte = [0];
    while matches!(peer.io.read(&mut byte), Ok(1)) {
        said.push(byte[0]);
    }
    String::from_utf8_lossy(&said).into_owned()
}

#[test]
fn who_does_not_know_the_key_or_sends_nonsense_is_cut_off() {
    let pair = Pair::new("stick header name=X-User", "peer old \"127.0.0.1\"");
    let doors = [Door::new(1), Door::new(1)];
    let first = pair.start(0, &doors[0]);
    wait("it to listen", || std::net::TcpStream::connect((pair.links[0], pair.port)).is_ok());
    let old = || "127.0.0.1".parse().unwrap();
    assert_eq!(until_cut(&mut dial(&pair, "127.0.0.2".parse().unwrap())), "", "from another address");
    let greet = |from: IpAddr, hello: &str| {
        let mut client = dial(&pair, from);
        client.send(hello);
        until_cut(&mut client)
    };
    assert_eq!(greet(old(), "GET / HTTP/1.1\n"), "502\n");
    assert_eq!(greet(old(), "HAProxyS 2.1\nz\nold 1 1\n"), "503\n");
    assert_eq!(greet(old(), "HAProxyS 2.1\na\nother 1 1\n"), "504\n");
    assert_eq!(greet(pair.links[1], "HAProxyS 2.1\na\nb 1 1\n"), "504\n", "a node proves who it is");
    assert!(
        greet(pair.links[1], "RelaisS 1.0\na\nb 00\n00\n").starts_with("200 "),
        "and cannot without the key"
    );
    // A HAProxy's connection that turns into something else.
    let mut client = dial(&pair, old());
    client.send("HAProxyS 2.1\na\nold 1 1\n");
    assert_eq!(client.take(6), b"200\n\0\0", "it asks for everything");
    client.send(b"\x0a\x82\x7fnonsense");
    assert_eq!(peer(&first).name, "b");
    client.send([0xff; 200]);
    until_cut(&mut client);
    wait("its end", || !first.status().peers[1].connected);
    // A node with another key.
    let second = pair.start_with(1, &doors[1], &KEY.replace('0', "x"), pair.port);
    ask_all(&doors[0], 0..5);
    let mut client = dial(&pair, old());
    client.send("HAProxyS 2.1\na\nold 1 1\n");
    client.take(6);
    wait("the HAProxy to be told", || first.status().peers[1].connected);
    assert_eq!((entries(&second), peer(&second).connected), (0, false));
}

/// A HAProxy that ends with the test.
struct HaProxy {
    process: Child,
    door: SocketAddr,
    socket: PathBuf,
}

impl HaProxy {
    /// One with this table, whose servers are the pair's.
    fn start(pair: &Pair, table: &str, stick: &str) -> HaProxy {
        let free = |ip: IpAddr| TcpListener::bind((ip, 0)).unwrap().local_addr().unwrap();
        let (door, own) = (free([127, 0, 0, 1].into()), free(pair.links[1]));
        let (socket, file) = (scratch("haproxy.sock"), scratch("haproxy.cfg"));
        let mut text = format!(
            "global\n stats socket {}\n\
             defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
             peers both\n peer old {own}\n peer a {}:{}\n\
             frontend web\n bind {door}\n default_backend app\n\
             backend app\n stick-table {table} size 10k expire 30m peers both\n stick on {stick}\n",
            socket.display(),
            pair.links[0],
            pair.port
        );
        for (at, origin) in pair.origins.iter().enumerate() {
            text += &format!(" server s{} {}\n", at + 1, origin.address);
        }
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new("haproxy");
        let process = command.args(["-db", "-L", "old", "-f"]).arg(&file).stderr(Stdio::null()).spawn();
        let haproxy = HaProxy { process: process.unwrap(), door, socket };
        // It listens for clients before it does for commands.
        wait("HAProxy", || UnixStream::connect(&haproxy.socket).is_ok());
        wait("HAProxy's door", || std::net::TcpStream::connect(door).is_ok());
        let _ = std::fs::remove_file(file);
        haproxy
    }

    /// Keys that it has a server for.
    fn known(&self) -> usize {
        let mut socket = UnixStream::connect(&self.socket).unwrap();
        socket.write_all(b"show table app\n").unwrap();
        let mut text = String::new();
        socket.read_to_string(&mut text).unwrap();
        text.lines().filter(|line| line.contains("server_key=s")).count()
    }
}

impl Drop for HaProxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.socket);
    }
}

/// The servers of users who come from an address each, the last one first: whoever only takes turns gives others.
fn ask_each_backwards(door: SocketAddr, users: std::ops::Range<u8>) -> Vec<usize> {
    let mut all: Vec<usize> = users.rev().flat_map(|user| ask_each(door, user..user + 1)).collect();
    all.reverse();
    all
}

/// The servers of users who come from an address each.
fn ask_each(door: SocketAddr, users: std::ops::Range<u8>) -> Vec<usize> {
    let from = |user: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 9, 7, user], 0)).into()).unwrap();
        socket.connect(&door.into()).unwrap();
        ask(&mut Peer::new(socket.into()), user.into())
    };
    users.map(from).collect()
}

#[test]
fn a_haproxy_and_a_relais_share_a_table_both_ways() {
    if Command::new("haproxy").arg("-v").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "install haproxy");
        eprintln!("skipped: there is no haproxy");
        return;
    }
    for (back, table, stick) in [
        ("stick header name=X-User", "type string len 128", "hdr(X-User)"),
        ("stick src", "type ip", "src"),
        ("stick src", "type ipv6", "src"),
    ] {
        let pair = Pair::new(back, "peer old \"127.0.0.1\"");
        let door = Door::new(1);
        let relais = pair.start(0, &door);
        let old = || relais.status().peers[1].clone();
        // What Relais knows when HAProxy comes, and what it learns later.
        let mut here = ask_each(door.address, 1..9);
        let haproxy = HaProxy::start(&pair, table, stick);
        wait("HAProxy to know what there is", || haproxy.known() == 8);
        here.extend(ask_each(door.address, 9..20));
        wait("HAProxy to be told", || haproxy.known() == 19);
        assert_eq!(ask_each_backwards(haproxy.door, 1..20), here, "{table}");
        // What HAProxy learns.
        let there = ask_each(haproxy.door, 20..40);
        wait("Relais to be told", || entries(&relais) == 39);
        assert_eq!(ask_each_backwards(door.address, 20..40), there, "{table}");
        assert_eq!(old().ignored_total, 0, "{table}");
        drop(haproxy);
        wait("its end", || !old().connected);
    }
}

/// A server that counts its checks, and is ill when it is to be.
fn checked(ill: &Arc<AtomicBool>, checks: &Arc<AtomicUsize>) -> Origin {
    let (ill, checks) = (ill.clone(), checks.clone());
    Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            checks.fetch_add(1, Ordering::SeqCst);
            let status = if ill.load(Ordering::SeqCst) { "503 Ill" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    })
}

#[test]
fn balancers_take_turns_in_checking_and_see_a_death_at_once() {
    const EVERY: Duration = Duration::from_millis(400);
    let (ill, checks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let pair = Pair::new("check http every=\"400ms\" fall=1 rise=1\n share-checks", "");
    let pair = Pair { origins: vec![checked(&ill, &checks)], ..pair };
    let doors = [Door::new(1), Door::new(1)];
    let (first, second) = (pair.start(0, &doors[0]), pair.start(1, &doors[1]));
    let up = |proxy: &Proxy| proxy.status().backends[0].servers[0].up;
    wait("both to meet", || peer(&first).connected && peer(&second).connected);
    let in_ten = || {
        let before = checks.load(Ordering::SeqCst);
        std::thread::sleep(EVERY * 10); // what is measured is how many checks there are in it
        checks.load(Ordering::SeqCst) - before
    };
    std::thread::sleep(EVERY * 2); // until each has heard the other
    let both = in_ten();
    assert!((8..=13).contains(&both), "{both} checks in ten intervals of two balancers");
    // One of them sees it within an interval, and the other in the same moment.
    ill.store(true, Ordering::SeqCst);
    wait("one to see it", || !up(&first) || !up(&second));
    let begun = Instant::now();
    wait("the other to see it", || !up(&first) && !up(&second));
    assert!(begun.elapsed() < EVERY / 2, "{:?}", begun.elapsed());
    ill.store(false, Ordering::SeqCst);
    wait("one to see it", || up(&first) || up(&second));
    let begun = Instant::now();
    wait("the other to see it", || up(&first) && up(&second));
    assert!(begun.elapsed() < EVERY / 2, "{:?}", begun.elapsed());
    drop(first);
    wait("the end of the connection", || !peer(&second).connected);
    let alone = in_ten();
    assert!((8..=13).contains(&alone), "{alone} checks in ten intervals of one balancer");
}
