//! The same requests through HAProxy and through Relais: servers get the same parts of them.
//!
//! `SPLIT=100000 cargo nextest run -p relais-proxy --test split --no-capture` is the long version, which holds every algorithm to one
//! percent; with fewer keys hashes leave that to chance. Where HAProxy 2.6 is not installed, Relais is held to
//! the weights.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};

use common::*;
use relais_base::Rng;
use socket2::{Domain, Socket, Type};

const WEIGHTS: [u16; 3] = [1, 2, 3];

/// What HAProxy is told, what Relais is, parts of the requests in percent, and whether each client has its own connection.
const CASES: &[(&str, &str, [f64; 3], bool)] = &[
    ("balance roundrobin", "balance roundrobin", BY_WEIGHT, false),
    ("balance static-rr", "balance static-rr", BY_WEIGHT, false),
    // One after the other: nobody ever has a connection, and who was idle longest is next, whatever its weight.
    ("balance leastconn", "balance leastconn", [100.0 / 3.0; 3], false),
    ("balance uri", "balance uri\n hash type=map", BY_WEIGHT, false),
    ("balance hdr(X-Id)", "balance header name=\"X-Id\"\n hash type=map", BY_WEIGHT, false),
    ("balance source", "balance source\n hash type=map", BY_WEIGHT, true),
];
const BY_WEIGHT: [f64; 3] = [100.0 / 6.0, 200.0 / 6.0, 300.0 / 6.0];

struct Haproxy(Child, std::path::PathBuf);

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

fn haproxy(balance: &str, servers: &[SocketAddr]) -> Option<(Haproxy, TcpListener)> {
    let version = Command::new("haproxy").arg("-v").output().ok()?;
    if !String::from_utf8_lossy(&version.stdout).contains("version 2.6.") {
        return None;
    }
    let door = TcpListener::bind("127.0.0.1:0").unwrap();
    rustix::io::fcntl_setfd(&door, rustix::io::FdFlags::empty()).unwrap();
    let mut text = format!(
        "global\n nbthread 1\ndefaults\n mode http\n timeout client 10s\n timeout server 10s\n timeout connect 5s\n\
         listen web\n bind fd@{}\n {balance}\n",
        door.as_raw_fd()
    );
    for (number, (address, weight)) in (1..).zip(servers.iter().zip(WEIGHTS)) {
        text += &format!(" server s{number} {address} weight {weight}\n");
    }
    let file = scratch("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let mut command = Command::new("haproxy");
    command.args(["-db", "-f"]).arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
    let process = command.spawn().unwrap();
    Some((Haproxy(process, file), door))
}

/// Percentage of the requests that each server got.
fn split(door: SocketAddr, requests: u32, each_its_own: bool) -> [f64; 3] {
    let mut rng = Rng::new(7);
    let mut client = None;
    let mut got = [0u32; 3];
    for _ in 0..requests {
        let number = rng.next_u64();
        if each_its_own || client.is_none() {
            let [a, b, c, ..] = number.to_be_bytes();
            let source = SocketAddr::from(([127, a, b, c.clamp(1, 254)], 0));
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
            socket.bind(&source.into()).unwrap();
            socket.connect(&door.into()).unwrap();
            client = Some(Peer::new(socket.into()));
        }
        let peer = client.as_mut().unwrap();
        peer.send(format!("GET /page/{number} HTTP/1.1\r\nHost: h\r\nX-Id: {number}\r\n\r\n"));
        got[peer.message().1.parse::<usize>().unwrap()] += 1;
    }
    got.map(|got| f64::from(got) * 100.0 / f64::from(requests))
}

#[test]
fn servers_get_the_parts_that_haproxy_gives_them() {
    let requests: u32 = std::env::var("SPLIT").map_or(3_000, |text| text.parse().unwrap());
    let origins: Vec<Origin> = (0..3)
        .map(|number| {
            Origin::new(move |mut peer| {
                while peer.try_head().is_some() {
                    peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n{number}"));
                }
            })
        })
        .collect();
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    for (theirs, ours, parts, each_its_own) in CASES {
        let door = Door::new(1);
        let mut text = plan(&door, "", ours, &addresses);
        for (address, weight) in addresses.iter().zip(WEIGHTS) {
            text = text.replace(&format!("\"{address}\""), &format!("\"{address}\" weight={weight}"));
        }
        let _proxy = Proxy::start(&text, &[&door]);
        let got = split(door.address, requests, *each_its_own);
        let reference = haproxy(theirs, &addresses);
        let reference = match &reference {
            Some((_process, door)) => split(door.local_addr().unwrap(), requests, *each_its_own),
            None => *parts,
        };
        println!("{theirs}: HAProxy {reference:.2?}, Relais {got:.2?}");
        let chance = if requests < 50_000 && ours.contains("hash") { 3.0 } else { 1.0 };
        for ((got, reference), part) in got.iter().zip(reference).zip(parts) {
            assert!((got - reference).abs() <= chance, "{theirs}: {got} here, {reference} there");
            assert!((got - part).abs() <= chance, "{theirs}: {got} instead of {part}");
        }
    }
}
