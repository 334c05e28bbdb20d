//! Servers that are killed with SIGKILL under load: no GET fails, and no POST is done twice.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::HashMap;
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::*;

/// Tells this program that it is a server: its address, and where it writes which POSTs it has done.
const ROLE: &str = "RELAIS_TEST_SERVER";
const GETTERS: usize = 6;
const POSTERS: usize = 2;
const KILLS: usize = 4;

/// No test: a server in a process of its own, when the test below starts this program again.
#[test]
fn a_server_that_can_be_killed() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let (address, log) = role.split_once(' ').unwrap();
    let listener = TcpListener::bind(address).unwrap();
    println!("listening");
    let log = OpenOptions::new().append(true).create(true).open(log).unwrap();
    for stream in listener.incoming().flatten() {
        let log = log.try_clone().unwrap();
        std::thread::spawn(move || serve(Peer::new(stream), log));
    }
}

fn serve(mut peer: Peer, mut log: std::fs::File) {
    while let Some(head) = peer.try_head() {
        if head.starts_with("POST ") {
            let id = peer.text(8);
            // One write: a process that is killed has done it or not.
            log.write_all(format!("{id}\n").as_bytes()).unwrap();
            std::thread::sleep(Duration::from_millis(2)); // in flight
        }
        if peer.try_send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

/// A server process, killed with this.
struct Server {
    child: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Server {
    fn start(address: SocketAddr, log: &Path) -> Server {
        Server { child: Server::process(address, log), address, log: log.to_owned() }
    }

    fn start_again(&mut self) {
        self.child = Server::process(self.address, &self.log);
    }

    fn process(address: SocketAddr, log: &Path) -> Child {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "a_server_that_can_be_killed", "--nocapture", "--test-threads=1"])
            .env(ROLE, format!("{address} {}", log.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("listening")));
        // Whatever it says from here on is read, so that it never waits for us.
        std::thread::spawn(move || lines.for_each(drop));
        child
    }

    fn kill(&mut self) {
        self.child.kill().unwrap(); // SIGKILL
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.log);
    }
}

/// The status of the next answer; its body is read.
fn answer(peer: &mut Peer) -> u16 {
    let head = peer.head();
    let length = field(&head, "content-length").unwrap().parse().unwrap();
    peer.take(length);
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_killed_server_costs_no_get_and_doubles_no_post() {
    let logs = [scratch("first"), scratch("second")];
    let mut servers: Vec<Server> = logs.iter().map(|log| Server::start(nobody(), log)).collect();
    let door = Door::new(1);
    let back = "check tcp every=\"50ms\" rise=1\n retries 3\n redispatch\n timeout queue=\"10s\"";
    let addresses: Vec<SocketAddr> = servers.iter().map(|server| server.address).collect();
    let mut proxy = Proxy::start(&plan(&door, "", back, &addresses), &[&door]);
    let (over, gets) = (AtomicBool::new(false), AtomicU32::new(0));
    let mut statuses: HashMap<String, u16> = HashMap::new();
    let begin = Instant::now();
    let took = std::thread::scope(|scope| {
        let getting = (0..GETTERS).map(|_| {
            scope.spawn(|| {
                let mut peer = Peer::connect(door.address);
                while !over.load(Ordering::Relaxed) {
                    peer.send(get("/"));
                    assert_eq!(answer(&mut peer), 200, "a GET fails");
                    gets.fetch_add(1, Ordering::Relaxed);
                }
            })
        });
        let getting: Vec<_> = getting.collect();
        let posting = (0..POSTERS).map(|poster| {
            let (over, door) = (&over, &door);
            scope.spawn(move || {
                let (mut peer, mut statuses) = (Peer::connect(door.address), Vec::new());
                for n in 0.. {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    let id = format!("{poster}{n:07}");
                    peer.send(format!("POST /{id} HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n\r\n{id}"));
                    statuses.push((id, answer(&mut peer)));
                }
                statuses
            })
        });
        let posting: Vec<_> = posting.collect();
        for kill in 0..KILLS {
            let (victim, name) = (kill % 2, if kill % 2 == 0 { "s1" } else { "s2" });
            std::thread::sleep(Duration::from_millis(300)); // the load itself is what takes time here
            servers[victim].kill();
            proxy.wait_server(name, false);
            std::thread::sleep(Duration::from_millis(100));
            servers[victim].start_again();
            proxy.wait_server(name, true);
        }
        over.store(true, Ordering::Relaxed);
        let took = begin.elapsed();
        getting.into_iter().for_each(|thread| thread.join().unwrap());
        posting.into_iter().for_each(|thread| statuses.extend(thread.join().unwrap()));
        took
    });

    let mut done: HashMap<String, u32> = HashMap::new();
    for log in &logs {
        let mut text = String::new();
        std::fs::File::open(log).unwrap().read_to_string(&mut text).unwrap();
        text.lines().for_each(|id| *done.entry(id.to_owned()).or_default() += 1);
    }
    let doubled: Vec<_> = done.iter().filter(|(_, count)| **count > 1).collect();
    assert!(doubled.is_empty(), "POSTs were done twice: {doubled:?}");
    for (id, status) in &statuses {
        match status {
            200 => assert_eq!(done.get(id), Some(&1), "{id} was answered and not done"),
            502 => {} // nobody knows whether it was done
            other => panic!("POST {id} was answered with {other}"),
        }
    }
    let unknown = statuses.values().filter(|status| **status == 502).count();
    assert!(unknown <= KILLS * POSTERS, "{unknown} POSTs were answered with 502, more than were in flight");
    let posts = statuses.len();
    assert!(posts > 100 && gets.load(Ordering::Relaxed) > 500, "too little was asked to show anything");
    println!(
        "{} GETs/s, 0 failed; {posts} POSTs, {unknown} of them 502, none done twice",
        (f64::from(gets.load(Ordering::Relaxed)) / took.as_secs_f64()) as u32
    );
}
