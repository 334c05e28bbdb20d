//! A client, a balancer with `mode forward`, and three servers behind it, each a network namespace.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses its part

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use relais_ipc::status::VipsStatus;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::node::{Node, PATIENCE, await_some};

pub const WEB: &str = "10.9.1.100:80";
pub const WEB6: &str = "[fd09:1::1]:80";

pub fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
}

pub fn can_run() -> bool {
    let root = rustix::process::geteuid().is_root() && Command::new("nft").arg("-v").output().is_ok();
    if !root {
        assert!(std::env::var_os("CI").is_none(), "this test needs root and nft, and CI must not skip it");
        eprintln!("SKIPPED: this test needs root and nft");
    }
    root
}

/// A client, the balancer, and servers `s1` to `s3` behind it, whose way to the client leads through the balancer.
pub struct Net {
    pub name: String,
    /// Which servers are well, as far as their checks can see.
    pub well: Vec<Arc<AtomicBool>>,
}

impl Net {
    pub fn new(test: &str) -> Net {
        let name = format!("rlxfwd-{}-{test}", std::process::id());
        let mut net = Net { name: name.clone(), well: Vec::new() };
        for machine in ["client", "balancer", "s1", "s2", "s3"] {
            ip(&format!("netns add {name}-{machine}"));
            ip(&format!("-n {name}-{machine} link set lo up"));
        }
        for (number, machine) in (1..).zip(["client", "s1", "s2", "s3"]) {
            let link = if number == 1 { "front" } else { machine };
            ip(&format!(
                "-n {name}-balancer link add {link} type veth peer name eth0 netns {name}-{machine}"
            ));
            for (on, device, last) in [("balancer", link, 1), (machine, "eth0", 2)] {
                ip(&format!("-n {name}-{on} address add 10.9.{number}.{last}/24 dev {device}"));
                ip(&format!("-n {name}-{on} address add fd09:{number}::{last}/64 dev {device} nodad"));
                ip(&format!("-n {name}-{on} link set {device} up"));
            }
            ip(&format!("-n {name}-{machine} route add default via 10.9.{number}.1"));
            ip(&format!("-n {name}-{machine} -6 route add default via fd09:{number}::1"));
        }
        net.well = ["s1", "s2", "s3"].map(|machine| net.serve(machine)).into();
        net
    }

    /// What this thread makes from here on is on that machine.
    pub fn enter(&self, machine: &str) {
        enter(&self.name, machine);
    }

    /// A server says its name and who asks, to every line and every datagram at port 8080. At 8081 it can be connected
    /// to while it is well.
    pub fn serve(&self, machine: &'static str) -> Arc<AtomicBool> {
        let (well, net) = (Arc::new(AtomicBool::new(true)), self.name.clone());
        let (ready, wait) = std::sync::mpsc::channel();
        let shown = well.clone();
        std::thread::spawn(move || {
            enter(&net, machine);
            let listener = TcpListener::bind("[::]:8080").unwrap();
            let datagrams = UdpSocket::bind("[::]:8080").unwrap();
            std::thread::spawn(move || answer_datagrams(machine, &datagrams));
            std::thread::spawn(move || show(&shown));
            ready.send(()).unwrap();
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || answer_lines(machine, &stream));
            }
        });
        wait.recv_timeout(PATIENCE).unwrap();
        well
    }

    /// The node on the balancer, ready; the thread is at the client from here on.
    pub fn run(&self, frontend: &str, backend: &str) -> Node {
        self.enter("balancer");
        let prepared = Node::prepare(|_, admin| platform(admin, frontend, backend));
        let node = prepared.run(Path::new(env!("CARGO_BIN_EXE_relais")), &[]);
        self.enter("client");
        node
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for machine in ["client", "balancer", "s1", "s2", "s3"] {
            let _ =
                Command::new("ip").args(["netns", "delete", &format!("{}-{machine}", self.name)]).status();
        }
    }
}

fn enter(net: &str, machine: &str) {
    let namespace = std::fs::File::open(format!("/run/netns/{net}-{machine}")).unwrap();
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
}

fn answer_lines(machine: &str, stream: &TcpStream) -> Option<()> {
    let from = stream.peer_addr().ok()?.ip().to_canonical();
    let (mut lines, mut stream, mut line) = (BufReader::new(stream.try_clone().ok()?), stream, String::new());
    while lines.read_line(&mut line).ok()? > 0 {
        writeln!(stream, "{machine} {from}").ok()?;
        line.clear();
    }
    None
}

fn answer_datagrams(machine: &str, socket: &UdpSocket) {
    let mut buffer = [0; 64];
    while let Ok((_, from)) = socket.recv_from(&mut buffer) {
        let _ = socket.send_to(format!("{machine} {}\n", from.ip().to_canonical()).as_bytes(), from);
    }
}

/// Takes connections at the checks' port while all is well.
fn show(well: &AtomicBool) {
    loop {
        let listener = await_some("the checks' port", || TcpListener::bind("[::]:8081").ok());
        listener.set_nonblocking(true).unwrap();
        while well.load(Ordering::Relaxed) {
            let _ = listener.accept();
            std::thread::sleep(Duration::from_millis(2)); // the polling interval of an awaited condition
        }
        drop(listener);
        while !well.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(2)); // likewise
        }
    }
}

pub const SERVERS: &str =
    "server s1 \"10.9.2.2:8080\"; server s2 \"10.9.3.2:8080\"; server s3 \"10.9.4.2:8080\"";

pub fn platform(admin: SocketAddr, frontend: &str, backend: &str) -> String {
    format!(
        "platform test {{ admin \"{admin}\"; access-log off; drain \"1s\"; }}\n\
         node here {{ link \"10.9.1.1\"; link \"fd09:1::1\"; }}\n\
         vip www {{ address \"10.9.1.100/24\" interface=front; router-id 51; node here priority=100; advertise \"50ms\"; }}\n\
         frontend web {{ mode forward; {frontend}; default-backend app; }}\n\
         backend app {{ mode forward; check tcp port=8081 every=\"50ms\" fall=2 rise=1; {backend}; }}\n"
    )
}

/// A connection, and who is at its other end.
pub struct Open {
    pub stream: BufReader<TcpStream>,
    pub server: String,
    pub seen_as: IpAddr,
}

impl Open {
    pub fn to(address: &str) -> std::io::Result<Open> {
        let stream = TcpStream::connect_timeout(&address.parse().unwrap(), Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let mut open =
            Open { stream: BufReader::new(stream), server: String::new(), seen_as: IpAddr::from([0; 4]) };
        let answer = open.ask()?;
        let (server, from) = answer.split_once(' ').unwrap();
        (open.server, open.seen_as) = (server.to_owned(), from.trim().parse().unwrap());
        Ok(open)
    }

    pub fn ask(&mut self) -> std::io::Result<String> {
        self.stream.get_mut().write_all(b"who?\n")?;
        let mut answer = String::new();
        self.stream.read_line(&mut answer)?;
        if answer.is_empty() { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(answer) }
    }
}

/// Who answers so many connections.
pub fn shares(address: &str, connections: usize) -> BTreeMap<String, usize> {
    let mut shares = BTreeMap::new();
    for _ in 0..connections {
        *shares.entry(Open::to(address).unwrap().server).or_default() += 1;
    }
    shares
}

pub fn await_serving(address: &str) {
    await_some("an answer", || Open::to(address).ok());
}

/// A connection to this server.
pub fn open_to(server: &str, address: &str) -> Open {
    await_some(server, || Open::to(address).ok().filter(|open| open.server == server))
}

pub fn vips(node: &Node) -> VipsStatus {
    relais_ipc::status::fetch(&node.run_dir().join("vip.sock"), Duration::from_secs(5)).unwrap()
}

pub fn ask_by_udp(socket: &UdpSocket, address: &str) -> Option<String> {
    socket.set_read_timeout(Some(Duration::from_secs(1))).unwrap();
    socket.send_to(b"who?", address).ok()?;
    let mut buffer = [0; 64];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    assert_eq!(from, address.parse().unwrap(), "the answer comes from where the question went");
    Some(String::from_utf8_lossy(&buffer[..length]).into_owned())
}
