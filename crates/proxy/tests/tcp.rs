//! TCP mode, one behaviour a test.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;

fn tcp_plan(door: &Door, back: &str, servers: &[std::net::SocketAddr]) -> String {
    plan(door, "mode tcp", &format!("mode tcp\n {back}"), servers)
}

#[test]
fn bytes_pass_both_ways_and_halves_close_apart() {
    let origin = Origin::new(|mut peer| {
        peer.send("server first\n");
        assert_eq!(peer.rest(), "question");
        peer.send("answer");
    });
    let door = Door::new(1);
    let proxy = Proxy::start(&tcp_plan(&door, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    assert_eq!(client.text(13), "server first\n");
    client.send("question");
    client.half_close();
    assert_eq!(client.rest(), "answer");
    let line = proxy.lines(1).remove(0);
    let fields: Vec<&str> = line.split(' ').collect();
    assert_eq!(fields[2..4], ["web", "app/s1"], "{line}");
    assert_eq!(fields[4].split('/').count(), 3, "{line}");
    assert_eq!(fields[5..], ["19", "--", "1/1/0/0/0", "0/0"], "{line}");
    let status = proxy.status();
    assert_eq!((status.frontends[0].bytes_in_total, status.frontends[0].bytes_out_total), (8, 19));
    assert_eq!(status.frontends[0].mode, "tcp");
}

/// Pipes that this process has open.
fn pipes() -> usize {
    let links =
        std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("pipe:")).count()
}

#[test]
fn much_passes_both_ways_at_once_and_by_splicing() {
    let before = pipes();
    const N: usize = 20_000_000;
    let origin = Origin::new(|mut peer| {
        let mut copy = peer.io.get_ref().try_clone().unwrap();
        std::io::copy(&mut peer.io, &mut copy).unwrap();
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&tcp_plan(&door, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let sent: Vec<u8> = (0..N).map(|i| (i * 31 % 253) as u8).collect();
    let mut writer = client.io.get_ref().try_clone().unwrap();
    let bytes = sent.clone();
    let thread = std::thread::spawn(move || {
        std::io::Write::write_all(&mut writer, &bytes).unwrap();
        writer.shutdown(std::net::Shutdown::Write).unwrap();
    });
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut client.io, &mut got).unwrap();
    thread.join().unwrap();
    assert!(got == sent, "{} of {N} bytes came back as they were", got.len());
    assert!(pipes() > before, "the worker keeps the pipes that it spliced through");
}

#[test]
fn a_dead_server_is_passed_over() {
    let origin = Origin::new(|mut peer| peer.send("here"));
    let door = Door::new(1);
    let back = "redispatch\n retries 1";
    let proxy = Proxy::start(&tcp_plan(&door, back, &[nobody(), origin.address]), &[&door]);
    for _ in 0..3 {
        assert_eq!(Peer::connect(door.address).rest(), "here");
    }
    for line in proxy.lines(3) {
        assert!(line.contains(" app/s2 ") && line.contains("/+1 0/0"), "{line}");
    }
}

#[test]
fn where_no_server_is_the_connection_ends() {
    let door = Door::new(1);
    let proxy = Proxy::start(&tcp_plan(&door, "retries 0", &[nobody()]), &[&door]);
    assert!(Peer::connect(door.address).is_closed());
    assert!(proxy.lines(1)[0].contains(" SC "), "{:?}", proxy.lines(1));
}

#[test]
fn silence_on_both_sides_ends_a_tunnel() {
    let origin = Origin::new(|mut peer| while !peer.is_closed() {});
    let door = Door::new(1);
    let back = "timeout tunnel=\"100ms\"";
    let proxy = Proxy::start(&tcp_plan(&door, back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.io.get_ref().set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    assert!(client.is_closed());
    assert!(proxy.lines(1)[0].contains(" cD "), "{:?}", proxy.lines(1));
}
