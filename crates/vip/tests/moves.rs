//! The operator's orders on two machines: standby, and an address moved by hand; what is open goes on.

#![allow(clippy::unwrap_used)] // helpers are not tests to clippy

mod common;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use common::{Lan, VIP, Vip, plan, ready};
use relais_ipc::message::Moved;
use relais_ipc::{Order, Report, VipState};

const PATIENCE: Duration = Duration::from_secs(5);

fn say(from: &mut TcpStream, to: &mut TcpStream, what: &[u8]) {
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    from.write_all(what).unwrap();
    let mut heard = vec![0; what.len()];
    to.read_exact(&mut heard).unwrap();
    assert_eq!(heard, what);
}

/// A connection of machine 2 to the address, which machine `at` holds.
fn connect(lan: &Lan, at: usize) -> (TcpStream, TcpStream) {
    let listener = lan.inside(at, || TcpListener::bind("0.0.0.0:0").unwrap());
    let port = listener.local_addr().unwrap().port();
    let client = lan.inside(2, || TcpStream::connect((VIP.parse::<Ipv4Addr>().unwrap(), port)).unwrap());
    (client, listener.accept().unwrap().0)
}

#[tokio::test]
async fn an_address_goes_where_it_is_moved_and_stays_though_the_other_preempts() {
    if !ready(&["ip", "bash", "nft"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "client"]);
    let text = plan(101, 100, "");
    let a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;
    b.status_socket().await.until(|vip| vip.master.is_some()).await; // it has heard who serves what is open
    let (mut client, mut server) = connect(&lan, 0);
    say(&mut client, &mut server, b"before");

    b.order(Order::Move { vip: "public".into(), here: true }).await;
    let mark = Report::Moved { vip: "public".into(), moved: Some(Moved::Here(102)) };
    b.await_report("its mark", |report| *report == mark).await;
    b.await_state(VipState::Master).await;
    a.await_state(VipState::Backup).await;
    lan.await_holder(1, PATIENCE);
    lan.await_neighbour(2, 1, PATIENCE);
    say(&mut client, &mut server, b"what was open goes on");
    // Ten of its time-outs: it would have taken the address back.
    tokio::time::sleep(Duration::from_secs(2)).await;
    lan.await_holder(1, PATIENCE);

    // Back again, at home without a mark.
    a.order(Order::Move { vip: "public".into(), here: true }).await;
    let over = Report::Moved { vip: "public".into(), moved: None };
    b.await_report("the end of its mark", |report| *report == over).await;
    a.await_report("the end of a's mark", |report| *report == over).await;
    lan.await_holder(0, PATIENCE);

    // Given away, it is left there while the other lives.
    a.order(Order::Move { vip: "public".into(), here: false }).await;
    let away = Report::Moved { vip: "public".into(), moved: Some(Moved::Away) };
    a.await_report("a's mark", |report| *report == away).await;
    lan.await_holder(1, PATIENCE);
    b.order(Order::Stop).await;
    a.await_report("the end of a's mark", |report| *report == over).await;
    lan.await_holder(0, PATIENCE);
}

#[tokio::test]
async fn a_node_in_standby_takes_nothing_though_a_plan_comes_and_a_new_process() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let text = plan(101, 100, "");
    let mut a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;
    a.order(Order::Standby { on: true }).await;
    lan.await_holder(1, PATIENCE);
    a.plan(2, &plan(110, 100, "")).await;
    a.await_report("Ready", |report| *report == Report::Ready { generation: 2 }).await;
    a.kill();
    drop(b);

    let a = Vip::start(lan.machine(0), "a").await;
    a.order(Order::Standby { on: true }).await;
    a.plan(1, &text).await;
    a.await_report("Ready", |report| *report == Report::Ready { generation: 1 }).await;
    tokio::time::sleep(Duration::from_secs(1)).await; // five time-outs in which nobody advertises
    assert!(!lan.holds(0));
    a.order(Order::Standby { on: false }).await;
    a.await_state(VipState::Master).await;
}
