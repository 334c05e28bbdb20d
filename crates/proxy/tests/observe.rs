//! What the traffic itself says of servers: rows of failures, who is taken out by them, and who stays.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use common::*;

/// Answers `/up` with 200, and the rest with 503 while it is ill.
fn ill(is_ill: &Arc<AtomicBool>) -> Origin {
    let is_ill = is_ill.clone();
    Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let bad = !head.starts_with("GET /up ") && is_ill.load(Ordering::SeqCst);
            let status = if bad { "503 Ill" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    })
}

fn status_of(client: &mut Peer) -> u16 {
    client.send(get("/"));
    client.message().0.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn servers_that_fail_requests_are_taken_out_before_any_check() {
    let (is_ill, well) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (sick, sound) = (ill(&is_ill), ill(&well));
    let door = Door::new(1);
    let back = "check http path=\"/up\" every=\"1h\"\n observe layer7 errors=3";
    let mut proxy = Proxy::start(&plan(&door, "", back, &[sick.address, sound.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let failures = (0..6).filter(|_| status_of(&mut client) == 503).count();
    assert_eq!(failures, 3, "each other request");
    proxy.wait_server("s1", false);
    for _ in 0..6 {
        assert_eq!(status_of(&mut client), 200);
    }
    let status = proxy.status();
    let server = &status.backends[0].servers[0];
    assert_eq!((server.check.as_str(), server.downs_total), ("3 requests in a row failed", 1));

    // The check, which was well all the time, brings it back.
    let back = "check http path=\"/up\" every=\"20ms\"\n observe layer7 errors=3";
    is_ill.store(false, Ordering::SeqCst);
    proxy.plan(&plan(&door, "", back, &[sick.address, sound.address]), &[]);
    proxy.wait_server("s1", true);
}

#[test]
fn failures_count_in_a_row_and_not_with_successes_between() {
    let nobody_is = Arc::new(AtomicBool::new(true));
    let flickers = nobody_is.clone();
    let origin = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            let bad = flickers.fetch_xor(true, Ordering::SeqCst);
            let status = if bad { "500 Ill" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let door = Door::new(1);
    let back = "check tcp every=\"1h\"\n observe layer7 errors=2 most-down=100";
    let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let failures = (0..40).filter(|_| status_of(&mut client) == 500).count();
    assert_eq!(failures, 20);
    assert!(proxy.status().backends[0].servers[0].up);
}

#[test]
fn where_all_fail_no_more_than_half_are_taken_out() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let origins: Vec<Origin> = (0..4).map(|_| ill(&is_ill)).collect();
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let door = Door::new(1);
    let back = "check http path=\"/up\" every=\"1h\"\n observe layer7 errors=2";
    let mut proxy = Proxy::start(&plan(&door, "", back, &addresses), &[&door]);
    let mut client = Peer::connect(door.address);
    let up = |proxy: &Proxy| proxy.status().backends[0].servers.iter().filter(|server| server.up).count();
    wait("half of them out", || {
        assert_eq!(status_of(&mut client), 503);
        up(&proxy) == 2
    });
    for _ in 0..40 {
        assert_eq!(status_of(&mut client), 503);
    }
    assert_eq!(up(&proxy), 2);
    assert!(proxy.any_report() != proxy.any_report(), "two servers were reported");
}

#[test]
fn connections_that_cannot_be_made_count_with_layer4() {
    let (elsewhere, sound) = (Origin::answering(""), ill(&Arc::default()));
    let door = Door::new(1);
    let port = elsewhere.address.port();
    let back = format!("check tcp port={port} every=\"1h\"\n observe layer4 errors=2\n redispatch");
    let mut proxy = Proxy::start(&plan(&door, "", &back, &[nobody(), sound.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..6 {
        assert_eq!(status_of(&mut client), 200, "another server answers");
    }
    proxy.wait_server("s1", false);
    assert_eq!(proxy.status().backends[0].servers[0].check, "2 requests in a row failed");
}
