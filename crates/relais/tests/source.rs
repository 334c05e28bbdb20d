//! `source client`: servers see the client's own address. Needs root and three network namespaces: a client, the
//! balancer between, and a server whose way back leads through the balancer.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod node;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;

use node::{Node, PATIENCE};
use relais_ipc::Role;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
}

fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must not skip it");
        eprintln!("SKIPPED: this test needs root");
    }
    root
}

/// The three machines.
struct Net(String);

impl Net {
    fn new(test: &str) -> Net {
        let net = Net(format!("rlxsrc-{}-{test}", std::process::id()));
        let Net(n) = &net;
        for machine in ["client", "balancer", "server"] {
            ip(&format!("netns add {n}-{machine}"));
            ip(&format!("-n {n}-{machine} link set lo up"));
        }
        for (machine, link, theirs, ours) in
            [("client", "front", "10.9.1.2", "10.9.1.1"), ("server", "back", "10.9.2.2", "10.9.2.1")]
        {
            ip(&format!("-n {n}-balancer link add {link} type veth peer name eth0 netns {n}-{machine}"));
            ip(&format!("-n {n}-balancer address add {ours}/24 dev {link}"));
            ip(&format!("-n {n}-balancer link set {link} up"));
            ip(&format!("-n {n}-{machine} address add {theirs}/24 dev eth0"));
            ip(&format!("-n {n}-{machine} link set eth0 up"));
            ip(&format!("-n {n}-{machine} route add default via {ours}"));
        }
        // As docs/operating.md has it: what servers answer to clients is for the sockets here.
        ip(&format!("-n {n}-balancer route add local 0.0.0.0/0 dev lo table 100"));
        ip(&format!("-n {n}-balancer rule add iif back ipproto tcp sport 8080 lookup 100"));
        net
    }

    /// What this thread makes from here on is on that machine.
    fn enter(&self, machine: &str) {
        let namespace = std::fs::File::open(format!("/run/netns/{}-{machine}", self.0)).unwrap();
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for machine in ["client", "balancer", "server"] {
            let _ = Command::new("ip").args(["netns", "delete", &format!("{}-{machine}", self.0)]).status();
        }
    }
}

/// Answers every request with the address that the connection came from.
fn serve(listener: TcpListener) {
    for stream in listener.incoming().flatten() {
        std::thread::spawn(move || {
            let from = stream.peer_addr().unwrap().ip().to_string();
            let mut lines = BufReader::new(stream.try_clone().unwrap());
            let (mut stream, mut line) = (stream, String::new());
            while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                if line == "\r\n" {
                    let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{from}", from.len());
                    stream.write_all(answer.as_bytes()).unwrap();
                }
                line.clear();
            }
        });
    }
}

fn platform(web: SocketAddr, admin: SocketAddr, mode: &str, source: &str) -> String {
    format!(
        "platform test {{ admin \"{admin}\"; access-log off; drain \"1s\"; }}\n\
         node here {{ link \"10.9.1.1\"; }}\n\
         frontend web {{ {mode}; bind \"10.9.1.1:{}\"; default-backend app; }}\n\
         backend app {{ {mode}; check tcp every=\"50ms\" fall=1; {source}\n server s \"10.9.2.2:8080\"; }}\n",
        web.port()
    )
}

#[test]
fn servers_see_the_clients_own_address() {
    if !is_root() {
        return;
    }
    let net = Net::new("sees");
    net.enter("server");
    let listener = TcpListener::bind("10.9.2.2:8080").unwrap();
    std::thread::spawn(move || serve(listener));
    for (mode, source, seen) in [
        ("mode http", "source client", "10.9.1.2"),
        ("mode tcp", "source client", "10.9.1.2"),
        ("mode http", "", "10.9.2.1"),
    ] {
        net.enter("balancer");
        let prepared = Node::prepare(|web, admin| platform(web, admin, mode, source));
        let node = prepared.run(Path::new(env!("CARGO_BIN_EXE_relais")), &[]);
        net.enter("client");
        let mut client = TcpStream::connect(("10.9.1.1", node.web.port())).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let _ = client.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        client.read_to_string(&mut answer).unwrap();
        assert!(answer.ends_with(&format!("\r\n\r\n{seen}")), "{mode}, {source:?}: {answer}");
    }
}

#[test]
fn the_proxy_keeps_one_capability_where_it_needs_it() {
    if !is_root() {
        return;
    }
    let net = Net::new("cap");
    net.enter("balancer");
    for (source, kept) in [("source client", 1 << 13), ("", 0)] {
        let prepared = Node::prepare(|web, admin| platform(web, admin, "mode http", source));
        let node = prepared.run(Path::new(env!("CARGO_BIN_EXE_relais")), &[]);
        let pid = node.pid(Role::Proxy).unwrap();
        for task in std::fs::read_dir(format!("/proc/{pid}/task")).unwrap() {
            let status = std::fs::read_to_string(task.unwrap().path().join("status")).unwrap();
            let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
            for set in ["CapEff:", "CapPrm:"] {
                assert_eq!(u64::from_str_radix(field(set), 16).unwrap(), kept, "{set} with {source:?}");
            }
            assert!(!field("Uid:").split_whitespace().any(|uid| uid == "0"), "{status}");
            assert_eq!(field("Groups:"), "");
        }
        if source.is_empty() {
            // A plan that needs what was given up is refused, and the message says what to do.
            let file = node.dir.join("next.kdl");
            std::fs::write(&file, platform(node.web, node.admin, "mode http", "source client")).unwrap();
            let (ok, text) = node.command(&["apply", file.to_str().unwrap()]);
            assert!(!ok && text.contains("CAP_NET_RAW") && text.contains("SIGUSR2"), "{text}");
        }
    }
}
