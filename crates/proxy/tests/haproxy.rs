//! The same traffic through HAProxy and through Relais: access lines have to say the same.
//!
//! Each row provokes one end of a session, on both. Where HAProxy 2.6 is not installed, Relais is held to what
//! HAProxy said when the row was written. Rows with `ours` are where Relais differs, and why.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;

/// One end of a session.
struct Row {
    name: &'static str,
    /// What the server does with a connection.
    origin: fn(Peer),
    /// What the client does.
    client: fn(SocketAddr),
    /// In the frontend, of HAProxy and of Relais.
    front: [&'static str; 2],
    /// In the backend and behind the server.
    back: [&'static str; 2],
    /// `BACKEND/SERVER TIMERS STATUS STATE RETRIES QUEUES`: timers as `-` where they are -1, else `n`.
    says: &'static str,
    /// What Relais says instead, and why that is so.
    ours: Option<(&'static str, &'static str)>,
}

const PLAIN: Row =
    Row { name: "", origin: answer, client: ask, front: ["", ""], back: ["", ""], says: "", ours: None };

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn answer(mut peer: Peer) {
    while peer.try_head().is_some() {
        let _ = peer.try_send(OK);
    }
}

/// Answers late: whoever comes second waits in the queue until the first has been given up.
fn slow(mut peer: Peer) {
    peer.try_head();
    std::thread::sleep(Duration::from_millis(800));
    let _ = peer.try_send(OK);
    silent(peer);
}

const GET: &str = "GET /x HTTP/1.1\r\nHost: h\r\n\r\n";

/// A request whose client resets the connection while it waits.
fn ask_and_reset(to: SocketAddr) {
    let mut peer = Peer::connect(to);
    peer.send(GET);
    std::thread::sleep(Duration::from_millis(100)); // it is under way
    reset(peer);
}

/// A request whose client sends no more.
fn ask_and_close(to: SocketAddr) {
    let mut peer = Peer::connect(to);
    peer.send(GET);
    std::thread::sleep(Duration::from_millis(100)); // it is under way
    peer.half_close();
    let _ = peer.io.read_to_end(&mut Vec::new());
}

/// Another client, which has the only place while `second` asks.
fn behind_another(to: SocketAddr, second: fn(SocketAddr)) {
    let mut first = Peer::connect(to);
    first.send(GET);
    std::thread::sleep(Duration::from_millis(50)); // it is to be first
    second(to);
    first.half_close();
    let _ = first.io.read_to_end(&mut Vec::new());
}

fn silent(mut peer: Peer) {
    let _ = peer.io.read_to_end(&mut Vec::new());
}

/// Sends a request and reads to the end.
fn ask(address: SocketAddr) {
    say(address, "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
}

fn say(address: SocketAddr, text: &str) {
    let mut peer = Peer::connect(address);
    peer.send(text);
    let _ = peer.io.read_to_end(&mut Vec::new());
}

/// Closes with a reset.
fn reset(peer: Peer) {
    let socket = socket2::Socket::from(peer.io.into_inner());
    socket.set_linger(Some(Duration::ZERO)).unwrap();
}

const RESET: &str =
    "HAProxy does not look at a client while it waits for somebody else, and wastes a server on nobody";
const TOLD: &str = "HAProxy answers nothing; here a client that only stopped sending is told why";
const DURING: &str = "HAProxy says D before there is a connection; here it is what the manual defines";

const HTTP: &[Row] = &[
    Row { name: "good", says: "s1 n/n/n/n/n 200 ---- 0 0/0", ..PLAIN },
    Row {
        name: "redirect",
        front: ["http-request redirect scheme https", "redirect scheme=https"],
        says: "<NOSRV> n/-/-/-/n 302 LR-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "malformed",
        client: |to| say(to, "GET /x HTTP/1.1\r\nHost: h\r\nbad header\r\n\r\n"),
        says: "<NOSRV> -/-/-/-/n 400 PR-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "head_aborted",
        client: |to| {
            let mut peer = Peer::connect(to);
            peer.send("GET /x HTT");
            peer.half_close();
            let _ = peer.io.read_to_end(&mut Vec::new());
        },
        says: "<NOSRV> -/-/-/-/n 400 CR-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "head_late",
        client: |to| say(to, "GET /x HTT"),
        says: "<NOSRV> -/-/-/-/n 408 cR-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "refused",
        origin: |_| {},
        back: ["server s1 NOBODY", "server s1 \"NOBODY\""],
        says: "s1 n/n/-/-/n 503 SC-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "connect_late",
        back: ["server s1 FULL", "server s1 \"FULL\""],
        says: "s1 n/n/-/-/n 503 sC-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "no_server",
        back: ["server s1 ORIGIN weight 0", "server s1 \"ORIGIN\" weight=0"],
        says: "<NOSRV> n/-/-/-/n 503 SC-- 0 0/0",
        ..PLAIN
    },
    Row { name: "response_late", origin: silent, says: "s1 n/n/n/-/n 504 sH-- 0 0/0", ..PLAIN },
    Row {
        name: "response_none",
        origin: |mut peer| drop(peer.try_head()),
        says: "s1 n/n/n/-/n 502 SH-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "response_malformed",
        origin: |mut peer| {
            peer.try_head();
            let _ = peer.try_send("HTTP/1.1 200 OK\r\nbad header\r\n\r\n");
            silent(peer);
        },
        says: "s1 n/n/n/-/n 502 PH-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "body_broken",
        origin: |mut peer| {
            peer.try_head();
            let _ = peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nfour");
        },
        says: "s1 n/n/n/n/n 200 SD-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "body_late",
        origin: |mut peer| {
            peer.try_head();
            let _ = peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nfour");
            silent(peer);
        },
        says: "s1 n/n/n/n/n 200 sD-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "client_left",
        origin: |mut peer| {
            peer.try_head();
            let _ = peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nfour");
            while peer.try_send([b'x'; 10_000]).is_ok() {}
        },
        client: |to| {
            let mut peer = Peer::connect(to);
            peer.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
            peer.head();
            reset(peer);
        },
        says: "s1 n/n/n/n/n 200 CD-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "client_stuffed",
        origin: |mut peer| {
            peer.try_head();
            let _ = peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\nfour");
            while peer.try_send([b'x'; 10_000]).is_ok() {}
        },
        client: |to| {
            let mut peer = Peer::connect(to);
            peer.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
            std::thread::sleep(Duration::from_millis(1500)); // reads nothing for longer than is allowed
        },
        says: "s1 n/n/n/n/n 200 cD-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "upload_late",
        origin: silent,
        client: |to| say(to, "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nfour"),
        says: "s1 n/n/n/-/n 504 sH-- 0 0/0",
        ours: Some((
            "s1 n/n/n/-/n 408 cD-- 0 0/0",
            "HAProxy waits for the server's time-out and blames the server, which has nothing to answer yet",
        )),
        ..PLAIN
    },
    Row {
        name: "body_malformed",
        origin: |mut peer| {
            peer.try_head();
            let _ = peer.try_send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\n");
            std::thread::sleep(Duration::from_millis(100)); // the head is on its way before the bad chunk is seen
            let _ = peer.try_send("zz\r\n");
            silent(peer);
        },
        says: "s1 n/n/n/n/n 200 SD-- 0 0/0",
        ours: Some((
            "s1 n/n/n/n/n 200 PD-- 0 0/0",
            "HAProxy takes a bad chunk for the server's end; here it is the proxy that ends it",
        )),
        ..PLAIN
    },
    Row {
        name: "queue_good",
        origin: |mut peer| {
            while peer.try_head().is_some() {
                std::thread::sleep(Duration::from_millis(60)); // holds the only place for a while
                let _ = peer.try_send(OK);
            }
        },
        client: |to| {
            let mut first = Peer::connect(to);
            first.send("GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
            std::thread::sleep(Duration::from_millis(20)); // it is to be first
            ask(to);
            silent(first);
        },
        back: ["timeout queue 900ms\n server s1 ORIGIN maxconn 1", "server s1 \"ORIGIN\" max-connections=1"],
        says: "s1 n/n/n/n/n 200 ---- 0 0/1",
        ..PLAIN
    },
    Row {
        name: "upload_aborted",
        origin: silent,
        client: |to| {
            let mut peer = Peer::connect(to);
            peer.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 20\r\n\r\nfour");
            peer.half_close();
            let _ = peer.io.read_to_end(&mut Vec::new());
        },
        says: "s1 n/n/n/-/n -1 CL-- 0 0/0",
        ours: Some((
            "s1 n/n/n/-/n 400 CD-- 0 0/0",
            "HAProxy answers nothing; here a client that only stopped sending is told why",
        )),
        ..PLAIN
    },
    Row {
        name: "upload_malformed",
        origin: silent,
        client: |to| {
            say(to, "POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nfour\r\nzz\r\n");
        },
        says: "<NOSRV> -/-/-/-/n 400 PR-- 0 0/0",
        ours: Some((
            "<NOSRV> n/-/-/-/n 400 PR-- 0 0/0",
            "HAProxy drops the request with its first chunk; here it was understood, and is logged",
        )),
        ..PLAIN
    },
    Row {
        name: "queue_late",
        origin: |mut peer| {
            peer.try_head();
            // The first request holds the only place until the second has been given up.
            std::thread::sleep(Duration::from_millis(800));
            let _ = peer.try_send(OK);
            silent(peer);
        },
        client: |to| {
            let mut first = Peer::connect(to);
            first.send("GET /x HTTP/1.1\r\nHost: h\r\n\r\n");
            std::thread::sleep(Duration::from_millis(50)); // it is to be first
            ask(to);
        },
        back: ["server s1 ORIGIN maxconn 1", "server s1 \"ORIGIN\" max-connections=1"],
        says: "<NOSRV> n/n/-/-/n 503 sQ-- 0 0/1",
        ..PLAIN
    },
    Row {
        name: "queue_reset",
        origin: slow,
        client: |to| behind_another(to, ask_and_reset),
        back: ["timeout queue 900ms\n server s1 ORIGIN maxconn 1", "server s1 \"ORIGIN\" max-connections=1"],
        says: "s1 n/n/n/n/n 200 CD-- 0 0/1",
        ours: Some(("<NOSRV> n/n/-/-/n 400 CQ-- 0 0/1", RESET)),
        ..PLAIN
    },
    Row {
        name: "queue_closed",
        origin: slow,
        client: |to| behind_another(to, ask_and_close),
        back: [
            "timeout queue 900ms\n server s1 ORIGIN maxconn 1",
            "abort-on-close\n server s1 \"ORIGIN\" max-connections=1",
        ],
        says: "<NOSRV> n/n/-/-/n -1 CQ-- 0 0/1",
        ours: Some(("<NOSRV> n/n/-/-/n 400 CQ-- 0 0/1", TOLD)),
        ..PLAIN
    },
    Row {
        name: "connect_reset",
        client: ask_and_reset,
        back: ["server s1 FULL", "server s1 \"FULL\""],
        says: "s1 n/n/-/-/n 503 sC-- 0 0/0",
        ours: Some(("s1 n/n/-/-/n 400 CC-- 0 0/0", RESET)),
        ..PLAIN
    },
    Row {
        name: "connect_closed",
        client: ask_and_close,
        back: ["server s1 FULL", "abort-on-close\n server s1 \"FULL\""],
        says: "s1 n/n/-/-/n -1 CC-- 0 0/0",
        ours: Some(("s1 n/n/-/-/n 400 CC-- 0 0/0", TOLD)),
        ..PLAIN
    },
    Row {
        name: "response_reset",
        origin: silent,
        client: ask_and_reset,
        says: "s1 n/n/n/-/n 504 sH-- 0 0/0",
        ours: Some(("s1 n/n/n/-/n 400 CH-- 0 0/0", RESET)),
        ..PLAIN
    },
    Row {
        name: "response_closed",
        origin: silent,
        client: ask_and_close,
        back: ["server s1 ORIGIN", "abort-on-close\n server s1 \"ORIGIN\""],
        says: "s1 n/n/n/-/n 400 CH-- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "half_closed",
        origin: |mut peer| {
            peer.try_head();
            std::thread::sleep(Duration::from_millis(300)); // the client has closed its half
            let _ = peer.try_send(OK);
        },
        client: ask_and_close,
        says: "s1 n/n/n/n/n 200 ---- 0 0/0",
        ..PLAIN
    },
];

const TCP: &[Row] = &[
    Row {
        name: "tcp_good",
        origin: |mut peer| {
            peer.take(4);
            peer.send("good");
        },
        client: |to| {
            let mut peer = Peer::connect(to);
            peer.send("four");
            peer.half_close();
            assert_eq!(peer.rest(), "good");
        },
        says: "s1 n/n/n -- 0 0/0",
        ..PLAIN
    },
    Row {
        name: "tcp_refused",
        back: ["server s1 NOBODY", "server s1 \"NOBODY\""],
        client: |to| say(to, "four"),
        says: "s1 n/-/n SC 0 0/0",
        ..PLAIN
    },
    Row {
        name: "tcp_client_reset",
        origin: silent,
        client: |to| {
            let mut peer = Peer::connect(to);
            peer.send("four");
            std::thread::sleep(Duration::from_millis(100)); // the server has it before the reset
            reset(peer);
        },
        says: "s1 n/n/n CD 0 0/0",
        ..PLAIN
    },
    Row {
        name: "tcp_server_reset",
        origin: |mut peer| {
            peer.take(4);
            reset(peer);
        },
        client: |to| say(to, "four"),
        says: "s1 n/n/n SD 0 0/0",
        ..PLAIN
    },
    Row {
        name: "tcp_silent",
        origin: silent,
        client: |to| say(to, "four"),
        says: "s1 n/n/n cD 0 0/0",
        ..PLAIN
    },
    Row {
        name: "tcp_connect_late",
        back: ["server s1 FULL", "server s1 \"FULL\""],
        client: |to| say(to, "four"),
        says: "s1 n/-/n sC 0 0/0",
        ..PLAIN
    },
    Row {
        name: "tcp_connect_reset",
        back: ["server s1 FULL", "server s1 \"FULL\""],
        client: ask_and_reset,
        says: "s1 n/-/n CD 0 0/0",
        ours: Some(("s1 n/-/n CC 0 0/0", DURING)),
        ..PLAIN
    },
    Row {
        name: "tcp_queue_late",
        origin: silent,
        client: |to| behind_another(to, ask),
        back: ["server s1 ORIGIN maxconn 1", "server s1 \"ORIGIN\" max-connections=1"],
        says: "<NOSRV> n/-/n sQ 0 0/1",
        ..PLAIN
    },
    Row {
        name: "tcp_queue_reset",
        origin: silent,
        client: |to| behind_another(to, ask_and_reset),
        back: ["timeout queue 900ms\n server s1 ORIGIN maxconn 1", "server s1 \"ORIGIN\" max-connections=1"],
        says: "<NOSRV> n/-/n CD 0 0/1",
        ours: Some(("<NOSRV> n/-/n CQ 0 0/1", DURING)),
        ..PLAIN
    },
];

/// A listener whose queue is full: to connect there takes for ever.
struct Full {
    address: SocketAddr,
    _listener: socket2::Socket,
    _waiting: Vec<socket2::Socket>,
}

impl Full {
    fn new() -> Full {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let waiting = (0..3)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            })
            .collect();
        Full { address, _listener: listener, _waiting: waiting }
    }
}

/// HAProxy with a frontend for every row.
struct Haproxy {
    process: Child,
    doors: Vec<TcpListener>,
    lines: Arc<Mutex<Vec<String>>>,
    file: std::path::PathBuf,
}

impl Haproxy {
    /// `None` where it is not installed, or is another version.
    fn start(rows: &[(&Row, &str)], fill: impl Fn(&str, usize) -> String) -> Option<Haproxy> {
        let version = Command::new("haproxy").arg("-v").output().ok()?;
        if !String::from_utf8_lossy(&version.stdout).contains("version 2.6.") {
            return None;
        }
        let mut text = "global\n nbthread 1\ndefaults plain\n log stdout len 8192 format raw local0\n timeout client 500ms\n \
                        timeout server 900ms\n timeout connect 800ms\n timeout queue 150ms\n timeout tunnel 500ms\n \
                        timeout http-request 400ms\n retries 0\n\
                        defaults aborting from plain\n option abortonclose\n"
            .to_owned();
        let mut doors = Vec::new();
        for (i, (row, mode)) in rows.iter().enumerate() {
            let door = TcpListener::bind("127.0.0.1:0").unwrap();
            rustix::io::fcntl_setfd(&door, rustix::io::FdFlags::empty()).unwrap();
            let (fd, name) = (door.as_raw_fd(), row.name);
            // It works where frontend and backend have it, as from a common section of defaults.
            let from = if row.back[1].starts_with("abort-on-close") { "aborting" } else { "plain" };
            let back = if row.back[0].is_empty() { "server s1 ORIGIN" } else { row.back[0] };
            text += &format!(
                "frontend {name} from {from}\n mode {mode}\n bind fd@{fd}\n option {mode}log\n {}\n default_backend b_{name}\n\
                 backend b_{name} from {from}\n mode {mode}\n {}\n",
                row.front[0],
                fill(back, i)
            );
            doors.push(door);
        }
        let file = scratch("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let mut process = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (seen, stdout) = (lines.clone(), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                seen.lock().unwrap().push(line);
            }
        });
        Some(Haproxy { process, doors, lines, file })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// What a line says, without what differs by chance.
fn essence(line: &str, mode: &str) -> String {
    let fields: Vec<&str> = line.split(' ').collect();
    let server = fields[3].split('/').nth(1).unwrap();
    let timers: Vec<&str> =
        fields[4].trim_start_matches('+').split('/').map(|t| if t == "-1" { "-" } else { "n" }).collect();
    let at = if mode == "http" { 5 } else { 4 };
    let status = if mode == "http" { format!("{} ", fields[5]) } else { String::new() };
    let state = if mode == "http" { fields[9] } else { fields[at + 2] };
    let counts = if mode == "http" { fields[10] } else { fields[at + 3] };
    let queues = if mode == "http" { fields[11] } else { fields[at + 4] };
    let counts: Vec<&str> = counts.split('/').collect();
    assert!(line.contains("queue_") || counts[2..4] == ["0", "0"], "{line}");
    format!("{server} {} {status}{state} {} {queues}", timers.join("/"), counts[4])
}

fn of<'a>(lines: &'a [String], name: &str) -> Vec<&'a String> {
    let name = format!("] {name} ");
    lines.iter().filter(|line| line.contains(&name)).collect()
}

#[test]
fn sessions_end_in_haproxy_s_words() {
    let rows: Vec<(&Row, &str)> =
        HTTP.iter().map(|row| (row, "http")).chain(TCP.iter().map(|row| (row, "tcp"))).collect();
    let origins: Vec<Origin> = rows.iter().map(|(row, _)| Origin::new(row.origin)).collect();
    let (full, nobody) = (Full::new(), nobody());
    let fill = |text: &str, i: usize| {
        text.replace("ORIGIN", &origins[i].address.to_string())
            .replace("FULL", &full.address.to_string())
            .replace("NOBODY", &nobody.to_string())
    };
    let haproxy = Haproxy::start(&rows, fill);
    let doors: Vec<Door> = rows.iter().map(|_| Door::new(1)).collect();
    let mut text = String::new();
    for (i, (row, mode)) in rows.iter().enumerate() {
        let (name, bind) = (row.name, doors[i].address);
        let queue = if row.name.ends_with("queue_late") { "150ms" } else { "900ms" };
        let back = if row.back[1].is_empty() { "server s1 \"ORIGIN\"" } else { row.back[1] };
        let leads =
            if row.front[1].is_empty() { format!("default-backend b_{name}") } else { row.front[1].into() };
        text += &format!(
            "frontend {name} {{\n mode {mode}\n bind \"{bind}\"\n timeout request=\"400ms\" client=\"500ms\"\n {leads}\n}}\n\
             backend b_{name} {{\n mode {mode}\n retries 0\n timeout connect=\"800ms\" server=\"900ms\" queue=\"{queue}\" tunnel=\"500ms\"\n {}\n}}\n",
            fill(back, i)
        );
    }
    let proxy = Proxy::start(&text, &doors.iter().collect::<Vec<_>>());
    let mut wrong = Vec::new();
    std::thread::scope(|scope| {
        let mut asking = Vec::new();
        for (i, (row, _)) in rows.iter().enumerate() {
            let to = haproxy.iter().map(|h| h.doors[i].local_addr().unwrap()).chain([doors[i].address]);
            asking.extend(to.map(|to| scope.spawn(move || (row.client)(to))));
        }
        asking.into_iter().for_each(|thread| thread.join().unwrap());
    });
    for (row, mode) in &rows {
        let wanted = 1 + usize::from(row.name.contains("queue_"));
        let find = |read: &dyn Fn() -> Vec<String>| {
            wait(&format!("{wanted} lines of {}", row.name), || of(&read(), row.name).len() >= wanted);
            let lines = read();
            // Of several, the one that was in the queue, or found it full.
            let rank =
                |line: &&&String| (!line.contains(" PQ") && !line.contains(" SQ"), line.contains(" 0/0"));
            let line = of(&lines, row.name).into_iter().min_by_key(|line| rank(&line)).unwrap().clone();
            (essence(&line, mode), line)
        };
        let read_ours = || proxy.lines(0);
        let (ours, line) = find(&read_ours);
        let expected = row.ours.map_or(row.says, |(ours, why)| {
            assert!(!why.is_empty());
            ours
        });
        if ours != expected {
            wrong.push(format!("Relais {}: {ours}, not {expected}: {line}", row.name));
        }
        if let Some(haproxy) = &haproxy {
            let (theirs, line) = find(&|| haproxy.lines.lock().unwrap().clone());
            if theirs != row.says {
                wrong.push(format!("HAProxy {}: {theirs}, not {}: {line}", row.name, row.says));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
