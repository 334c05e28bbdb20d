//! Understood on the wire: Debian's keepalived and a vip process elect, follow, and hand over to each other.

#![allow(clippy::unwrap_used)] // helpers are not tests to clippy

mod common;

use std::time::{Duration, Instant};

use common::keepalived::Keepalived;
use common::{Lan, VIP, Vip, plan, ready};
use relais_ipc::{Order, Report, VipState};

const SECOND: Duration = Duration::from_secs(1);

/// A keepalived with the address and this priority, advertising this often.
fn keepalived(lan: &Lan, machine: usize, priority: u8, interval: &str) -> Keepalived {
    let text = format!(
        "global_defs {{\n  vrrp_version 3\n  router_id peer\n}}\n\
         vrrp_instance public {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  \
         priority {priority}\n  advert_int {interval}\n  virtual_ipaddress {{\n    {VIP}/24\n  }}\n}}\n"
    );
    Keepalived::start(lan, machine, &text)
}

/// Time until the state was reported, at most `limit`.
async fn within(limit: Duration, vip: &Vip, state: VipState) -> Duration {
    let took = vip.await_state(state).await;
    assert!(took < limit, "{state:?} only after {took:?}");
    took
}

#[tokio::test]
async fn a_killed_relais_is_replaced_by_keepalived() {
    if !ready(&["ip", "bash", "keepalived"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "client"]);
    let mut a = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    a.await_state(VipState::Master).await;
    let _peer = keepalived(&lan, 1, 100, "0.05");
    lan.visit(2);
    lan.await_neighbour(2, 0, SECOND);
    // Long enough for a keepalived that does not understand us to have taken the address itself.
    let news = tokio::time::timeout(2 * SECOND, a.await_state(VipState::Backup)).await;
    assert!(news.is_err() && lan.holds(0) && !lan.holds(1), "keepalived does not follow");

    a.kill();
    let begin = Instant::now();
    while !lan.holds(1) {
        assert!(begin.elapsed() < SECOND, "keepalived did not take the address");
    }
    lan.await_neighbour(2, 1, SECOND);
    lan.await_holder(1, 4 * SECOND);
}

#[tokio::test]
async fn keepalived_of_higher_priority_is_followed_and_its_farewell_understood() {
    if !ready(&["ip", "keepalived"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let a = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    a.await_state(VipState::Master).await;
    let mut peer = keepalived(&lan, 1, 150, "0.1");
    within(5 * SECOND, &a, VipState::Backup).await;
    lan.await_holder(1, SECOND);

    peer.stop();
    // Its interval counts, 100 ms: priority 0 is answered after our skew of 61 ms; a mere silence would
    // take more than 300.
    within(Duration::from_millis(200), &a, VipState::Master).await;
    lan.await_holder(0, SECOND);
}

#[tokio::test]
async fn a_hand_over_goes_to_keepalived() {
    if !ready(&["ip", "keepalived"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let a = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    a.await_state(VipState::Master).await;
    let _peer = keepalived(&lan, 1, 100, "0.05");
    let news = tokio::time::timeout(2 * SECOND, a.await_state(VipState::Backup)).await;
    assert!(news.is_err(), "keepalived does not follow");

    a.order(Order::HandOver).await;
    let took = a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
    assert!(!lan.holds(0));
    lan.await_holder(1, SECOND); // it advertises a moment before it has the address
}

#[tokio::test]
async fn after_a_split_brain_keepalived_and_the_link_know_the_winner() {
    if !ready(&["ip", "bash", "keepalived", "nft"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "client"]);
    let a = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    a.await_state(VipState::Master).await;
    lan.visit(2);
    lan.await_neighbour(2, 0, SECOND);
    lan.isolate(1, 0, true); // VRRP between the two, not the client
    let _peer = keepalived(&lan, 1, 100, "0.05");
    lan.await_neighbour(2, 1, 10 * SECOND); // the client follows the second master
    assert!(lan.holds(0) && lan.holds(1));

    lan.isolate(1, 0, false);
    lan.await_neighbour(2, 0, SECOND);
    lan.await_holder(0, SECOND);
}
