//! Namespaces, links and processes, on a real kernel: needs root.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use relais_lab::netns::{self, Netns};
use relais_lab::network::{Link, Network};
use relais_lab::process::Running;

mod common;
use common::{root, until};

const HOSTS: [(&str, Ipv4Addr); 2] =
    [("one", Ipv4Addr::new(192, 168, 112, 1)), ("two", Ipv4Addr::new(192, 168, 112, 2))];

/// Whether `two` gets an answer from `server` on `one`.
fn reaches(network: &Network, server: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect_timeout(&server, Duration::from_millis(200))?;
        stream.set_read_timeout(Some(Duration::from_millis(200)))?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer)?;
        Ok(answer == *b"ok")
    };
    network.host("two").netns().run(ask).unwrap_or(false)
}

#[test]
fn a_cut_or_silent_link_carries_nothing_and_a_mended_one_does() {
    if !root("a_cut_or_silent_link_carries_nothing_and_a_mended_one_does") {
        return;
    }
    let network = Network::create(&HOSTS, None).unwrap();
    let listener = network.host("one").netns().run(|| TcpListener::bind("0.0.0.0:0")).unwrap();
    let server = SocketAddr::from((HOSTS[0].1, listener.local_addr().unwrap().port()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.unwrap().write_all(b"ok");
        }
    });
    let carrier = || {
        let read = || std::fs::read_to_string("/proc/thread-self/net/route");
        network.host("one").netns().run(read).unwrap().contains("eth0")
    };
    until("the network carries", || reaches(&network, server));
    for link in [Link::Cut, Link::Silent, Link::Cut] {
        network.set_link("one", link).unwrap();
        assert!(!reaches(&network, server), "{link:?}");
        network.set_link("one", Link::Up).unwrap();
        until("the network carries again", || reaches(&network, server));
        assert!(carrier());
    }
}

#[test]
fn hosts_that_are_isolated_do_not_reach_each_other_and_reach_all_others() {
    if !root("hosts_that_are_isolated_do_not_reach_each_other_and_reach_all_others") {
        return;
    }
    let three = Ipv4Addr::new(192, 168, 112, 3);
    let network = Network::create(&[HOSTS[0], HOSTS[1], ("three", three)], None).unwrap();
    let listen = |host: &str, address: Ipv4Addr| {
        let listener = network.host(host).netns().run(|| TcpListener::bind("0.0.0.0:0")).unwrap();
        let server = SocketAddr::from((address, listener.local_addr().unwrap().port()));
        std::thread::spawn(move || listener.incoming().try_for_each(|stream| stream?.write_all(b"ok")));
        server
    };
    let (one, three) = (listen("one", HOSTS[0].1), listen("three", three));
    until("the network carries", || reaches(&network, one) && reaches(&network, three));
    HOSTS.iter().for_each(|(host, _)| network.isolate(host, true).unwrap());
    assert!(!reaches(&network, one) && reaches(&network, three));
    network.isolate("one", false).unwrap();
    until("the network carries again", || reaches(&network, one));
}

#[test]
fn a_host_has_its_address_and_no_other() {
    if !root("a_host_has_its_address_and_no_other") {
        return;
    }
    let network = Network::create(&HOSTS, None).unwrap();
    for (host, other) in [(0, 1), (1, 0)] {
        let name = HOSTS[host].0;
        assert!(network.host(name).has_address(HOSTS[host].1).unwrap());
        assert!(!network.host(name).has_address(HOSTS[other].1).unwrap());
    }
}

#[test]
fn what_a_killed_maker_left_behind_is_found_and_removed() {
    if !root("what_a_killed_maker_left_behind_is_found_and_removed") {
        return;
    }
    let prefix = format!("relais-test-{}", std::process::id());
    let network = Network::create(&HOSTS, Some(&prefix)).unwrap();
    let log = std::env::temp_dir().join(format!("{prefix}.log"));
    let mut process =
        Running::start(network.host("one").netns(), Command::new("sleep").arg("600"), &log).unwrap();
    let inodes = network.inodes();
    drop(network); // as if killed: nothing is tidied up
    assert!(Network::create(&HOSTS, Some(&prefix)).is_err(), "the names are taken");

    let found = Network::attach(&HOSTS, &prefix).unwrap();
    assert_eq!(found.inodes(), inodes);
    assert_eq!(netns::processes_in(&inodes), [process.identity]);
    drop(found);
    assert_eq!(netns::kill_all_in(&inodes, Duration::from_secs(5)).unwrap(), 1);
    assert!(process.ended().is_some());
    for (path, _) in Netns::pinned(&prefix) {
        Netns::unpin(&path).unwrap();
        assert!(!Path::new(&path).exists());
    }
    assert!(Netns::pinned(&prefix).is_empty());
    std::fs::remove_file(log).unwrap();
}
