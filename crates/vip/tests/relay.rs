//! A planned move of the address: connections that are open go on at the old holder, new ones begin at the new.

#![allow(clippy::unwrap_used)] // helpers are not tests to clippy

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::{Lan, VIP, VIP6, Vip, plan, plan6, ready, run};
use relais_ipc::{Order, Report, VipState};

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: usize = 2;

/// Says something on one end, and hears it on the other.
fn say(from: &mut TcpStream, to: &mut TcpStream, what: &[u8]) {
    to.set_read_timeout(Some(SECOND)).unwrap();
    from.write_all(what).unwrap();
    let mut heard = vec![0; what.len()];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(heard, what);
}

/// A connection from the client, and the end that `server` got; `None` if it did not get it.
fn connect(lan: &Lan, vip: &str, server: &TcpListener) -> (TcpStream, Option<TcpStream>) {
    let port = server.local_addr().unwrap().port();
    let vip: IpAddr = vip.parse().unwrap();
    let client = lan.inside(CLIENT, || TcpStream::connect((vip, port)).unwrap());
    server.set_nonblocking(true).unwrap();
    let accepted = server.accept().ok().map(|(stream, _)| stream);
    if let Some(stream) = &accepted {
        stream.set_nonblocking(false).unwrap();
    }
    (client, accepted)
}

fn tables(lan: &Lan, i: usize) -> String {
    run(&format!("ip netns exec {} nft list tables", lan.machine(i)))
}

fn our_routes(lan: &Lan, i: usize) -> String {
    let show =
        |family: u8| run(&format!("ip -n {} -{family} route show table local proto 112", lan.machine(i)));
    show(4) + &show(6)
}

fn await_no_tables(lan: &Lan, i: usize, limit: Duration) {
    let begin = Instant::now();
    while !tables(lan, i).is_empty() {
        assert!(begin.elapsed() < limit, "machine {i} keeps {}", tables(lan, i));
    }
}

#[tokio::test]
async fn open_connections_go_on_at_the_old_holder() {
    if ready(&["ip", "nft"]) {
        open_connections_go_on(VIP, "0.0.0.0:0", &plan(101, 100, "")).await;
    }
}

#[tokio::test]
async fn open_connections_go_on_at_the_old_holder_over_ipv6() {
    if ready(&["ip", "nft"]) {
        open_connections_go_on(VIP6, "[::]:0", &plan6(101, 100)).await;
    }
}

async fn open_connections_go_on(vip: &str, any: &str, text: &str) {
    let lan = Lan::new(&["a", "b", "client"]);
    lan.add_ipv6();
    let a = Vip::with_plan(lan.machine(0), "a", text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", text).await;
    b.await_state(VipState::Backup).await;
    let at_a = lan.inside(0, || TcpListener::bind(any).unwrap());
    let address = at_a.local_addr().unwrap();
    let at_b = lan.inside(1, || TcpListener::bind(address).unwrap());
    let (mut client, server) = connect(&lan, vip, &at_a);
    let mut server = server.unwrap();
    say(&mut client, &mut server, b"before");

    a.order(Order::HandOver).await;
    a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
    lan.await_holder_of(vip, 1, SECOND);
    lan.await_neighbour_of(vip, CLIENT, 1, SECOND);
    say(&mut client, &mut server, b"after, from the client");
    say(&mut server, &mut client, b"after, from the server");
    // The old holder must ask for the client's hardware address without claiming the virtual one.
    run(&format!("ip -n {} neighbour flush all", lan.machine(0)));
    say(&mut server, &mut client, &[7; 100_000]);
    lan.await_neighbour_of(vip, CLIENT, 1, Duration::from_millis(100));

    for _ in 0..5 {
        // Nor may it answer when the client asks for the virtual one.
        run(&format!("ip -n {} neighbour flush all", lan.machine(CLIENT)));
        say(&mut client, &mut server, b"who has it?");
        let begin = Instant::now();
        while begin.elapsed() < Duration::from_millis(50) {
            let neighbour = run(&format!("ip -n {} neighbour show {vip}", lan.machine(CLIENT)));
            assert!(!neighbour.contains(&lan.mac(0)), "the old holder answers");
        }
    }

    let (mut second, server_b) = connect(&lan, vip, &at_b);
    let mut server_b = server_b.expect("a new connection goes to the new holder");
    say(&mut second, &mut server_b, b"new");
    say(&mut client, &mut server, b"and still the old one");

    a.order(Order::Stop).await;
    await_no_tables(&lan, 0, SECOND);
    assert_eq!(our_routes(&lan, 0), "");
    say(&mut second, &mut server_b, b"new, once more");
    await_no_tables(&lan, 1, 4 * SECOND); // drain and a second
    say(&mut second, &mut server_b, b"new, after the relay");
    assert_eq!(connect(&lan, vip, &at_b).1.map(drop), Some(()));
}

#[tokio::test]
async fn the_end_of_an_answer_that_only_the_kernel_has_still_is_delivered() {
    const ANSWER: usize = 400_000;
    if !ready(&["ip", "nft"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "client"]);
    let a = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &plan(101, 100, "")).await;
    b.await_state(VipState::Backup).await;
    a.order(Order::Deliver).await;
    a.await_report("Delivered", |report| *report == Report::Delivered).await; // there is nothing

    let at_a = lan.inside(0, || TcpListener::bind("0.0.0.0:0").unwrap());
    let (mut client, server) = connect(&lan, VIP, &at_a);
    a.order(Order::HandOver).await;
    a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
    let mut server = server.unwrap();
    socket2::SockRef::from(&server).set_send_buffer_size(ANSWER).unwrap();
    server.write_all(&[7; ANSWER]).unwrap();
    drop(server); // its process has ended, as far as the kernel knows
    a.order(Order::Deliver).await;
    let is_delivered = a.await_report("Delivered", |report| *report == Report::Delivered);
    let too_soon = tokio::time::timeout(Duration::from_millis(500), is_delivered).await;
    assert!(too_soon.is_err(), "the client has not read anything yet");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer.len(), ANSWER);
    a.await_report("Delivered", |report| *report == Report::Delivered).await;
}

#[tokio::test]
async fn what_a_killed_process_left_of_a_relay_is_removed_by_the_next() {
    if ready(&["ip", "nft"]) {
        what_is_left_is_removed(&plan(101, 100, "")).await;
        what_is_left_is_removed(&plan6(101, 100)).await;
    }
}

async fn what_is_left_is_removed(text: &str) {
    let lan = Lan::new(&["a", "b"]);
    lan.add_ipv6();
    let mut a = Vip::with_plan(lan.machine(0), "a", text).await;
    a.await_state(VipState::Master).await;
    let mut b = Vip::with_plan(lan.machine(1), "b", text).await;
    b.await_state(VipState::Backup).await;
    a.order(Order::HandOver).await;
    a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
    assert!(!our_routes(&lan, 0).is_empty() && tables(&lan, 1).contains("relais_relay"));
    a.kill();
    b.kill();

    let _a = Vip::with_plan(lan.machine(0), "a", text).await;
    let _b = Vip::with_plan(lan.machine(1), "b", text).await;
    assert_eq!((tables(&lan, 0), tables(&lan, 1)), (String::new(), String::new()));
    assert_eq!(our_routes(&lan, 0), "");
}

#[tokio::test]
async fn what_outlasts_the_drain_is_reset_and_counted() {
    if !ready(&["ip", "bash", "nft", "ss"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "client"]);
    let text = plan(101, 100, "");
    let log = std::env::temp_dir().join(format!("relais-outlasts-{}.log", std::process::id()));
    let script = format!("exec \"$0\" 2>{}", log.display());
    let a = Vip::start_by(&["ip", "netns", "exec", lan.machine(0), "bash", "-c", &script], "a").await;
    a.plan(1, &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;
    let at_a = lan.inside(0, || TcpListener::bind("0.0.0.0:0").unwrap());
    let [(mut slow, slow_end), (quick, quick_end)] = [0; 2].map(|_| connect(&lan, VIP, &at_a));
    let (_slow_end, quick_end) = (slow_end.unwrap(), quick_end.unwrap());

    a.order(Order::Standby { on: true }).await;
    b.await_state(VipState::Master).await;
    drop(quick_end); // ends first at a, where TIME-WAIT remains
    drop(quick);
    slow.set_read_timeout(Some(10 * SECOND)).unwrap();
    let end = slow.read(&mut [0]).unwrap_err();
    assert_eq!(end.kind(), std::io::ErrorKind::ConnectionReset, "a client that only listens is told");
    let begin = Instant::now();
    let sentence = "connections that did not finish within 2 s of its move and were reset: 1";
    while !std::fs::read_to_string(&log).unwrap().contains(sentence) {
        assert!(begin.elapsed() < 5 * SECOND, "{}", std::fs::read_to_string(&log).unwrap());
    }
    let left = run(&format!("ip netns exec {} ss --all --no-header --tcp src {VIP}", lan.machine(0)));
    assert_eq!(left, "", "a client that uses a port again must not meet it");
    std::fs::remove_file(log).unwrap();
}

#[tokio::test]
async fn connections_end_with_an_address_that_is_lost_without_a_move() {
    if !ready(&["ip", "ss"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "client"]);
    let text = plan(101, 100, "");
    let a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let at_a = lan.inside(0, || TcpListener::bind("0.0.0.0:0").unwrap());
    let (_client, server) = connect(&lan, VIP, &at_a);
    let mut server = server.unwrap();
    lan.cable(0, false);
    a.await_state(VipState::Fault).await;
    server.set_read_timeout(Some(10 * SECOND)).unwrap();
    let end = server.read(&mut [0]).unwrap_err().kind();
    assert_eq!(end, std::io::ErrorKind::ConnectionAborted, "nobody waits here for a client that cannot come");
}
