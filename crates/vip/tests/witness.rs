//! Two nodes that may hold an address and one that only witnesses: the link between the two is cut, a node is cut off.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::time::Duration;

use common::{Key, Lan, Status, Vip, ready, run};
use relais_ipc::VipState;

/// Drops everything that comes to machine `here` from the others.
fn deafen(lan: &Lan, here: usize, others: &[usize]) {
    let nft = format!("ip netns exec {} nft", lan.machine(here));
    run(&format!("{nft} add table ip cut"));
    run(&format!("{nft} add chain ip cut in {{ type filter hook input priority 0 ; }}"));
    for other in others {
        run(&format!("{nft} add rule ip cut in ip saddr 10.9.0.{} drop", other + 1));
    }
}

fn mend(lan: &Lan, machines: &[usize]) {
    for machine in machines {
        run(&format!("ip netns exec {} nft delete table ip cut", lan.machine(*machine)));
    }
}

async fn three(lan: &Lan, text: &str) -> [Vip; 3] {
    let a = Vip::with_plan(lan.machine(0), "a", text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", text).await;
    b.await_state(VipState::Backup).await;
    [a, b, Vip::with_plan(lan.machine(2), "w", text).await]
}

/// Waits until all of a node's paths have carried heartbeats.
async fn await_heartbeats(status: &Status, count: usize) {
    let begin = std::time::Instant::now();
    loop {
        let all = status.all().await.heartbeats;
        if all.len() == count && all.iter().all(|path| path.up && path.received_total > 5) {
            return;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "the heartbeats stay {all:?}");
    }
}

#[tokio::test]
async fn a_cut_link_between_two_nodes_makes_no_second_master_where_a_third_hears_both() {
    if !ready(&["ip", "nft"]) {
        return;
    }
    let (lan, key) = (Lan::new(&["a", "b", "w"]), Key::new("cut"));
    let [a, b, w] = three(&lan, &key.plan()).await;
    let (a_status, b_status) = (a.status_socket().await, b.status_socket().await);
    await_heartbeats(&a_status, 2).await;
    await_heartbeats(&b_status, 2).await;
    for _ in 0..3 {
        deafen(&lan, 0, &[1]);
        deafen(&lan, 1, &[0]);
        // It has not heard the master for longer than VRRP waits, and lets it be.
        b_status.until(|vip| vip.master.is_none()).await;
        tokio::time::sleep(Duration::from_millis(300)).await; // six intervals in which it could go wrong
        assert!(lan.holds(0) && !lan.holds(1));
        mend(&lan, &[0, 1]);
        b_status.until(|vip| vip.master.is_some()).await;
    }
    assert_eq!(b_status.until(|_| true).await.became_master_total, 0);
    assert_eq!(a_status.until(|_| true).await.became_master_total, 1);

    // Without the witness the same cut makes two: it is the witness that prevents it.
    drop(w);
    tokio::time::sleep(Duration::from_secs(1)).await; // until its silence is old news
    deafen(&lan, 0, &[1]);
    deafen(&lan, 1, &[0]);
    b.await_state(VipState::Master).await;
    assert!(lan.holds(0) && lan.holds(1));
}

#[tokio::test]
async fn a_node_that_is_cut_off_from_all_gives_the_address_up_and_one_holds_it_after_the_cut() {
    if !ready(&["ip", "nft"]) {
        return;
    }
    let (lan, key) = (Lan::new(&["a", "b", "w"]), Key::new("off"));
    let [a, b, _w] = three(&lan, &key.plan()).await;
    let (a_status, b_status) = (a.status_socket().await, b.status_socket().await);
    await_heartbeats(&a_status, 2).await;
    await_heartbeats(&b_status, 2).await;
    for _ in 0..3 {
        deafen(&lan, 0, &[1, 2]);
        deafen(&lan, 1, &[0]);
        deafen(&lan, 2, &[0]);
        b.await_state(VipState::Master).await;
        let vip = a_status.until(|vip| vip.state == VipState::Fault).await;
        assert!(vip.reason.starts_with("this node is cut off: "), "{}", vip.reason);
        lan.await_holder(1, Duration::from_secs(1));
        mend(&lan, &[0, 1, 2]);
        a.await_report("master", |_| lan.holds(0)).await; // it preempts, as the plan says
        lan.await_holder(0, Duration::from_secs(1));
        b.await_state(VipState::Backup).await;
    }
}

#[tokio::test]
async fn strangers_and_other_keys_are_no_witnesses() {
    if !ready(&["ip", "nft"]) {
        return;
    }
    let (lan, key, other) = (Lan::new(&["a", "b", "w"]), Key::new("ours"), Key::new("theirs"));
    std::fs::write(&other.0, "a key of somebody else\n").unwrap();
    let a = Vip::with_plan(lan.machine(0), "a", &key.plan()).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &key.plan()).await;
    let _w = Vip::with_plan(lan.machine(2), "w", &other.plan()).await;
    let status = b.status_socket().await;
    let begin = std::time::Instant::now();
    loop {
        let all = status.all().await.heartbeats;
        let of = |name: &str| all.iter().find(|path| path.node == name).map_or(0, |path| path.received_total);
        if of("a") > 50 {
            assert_eq!(of("w"), 0);
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(10), "{all:?}");
    }
}
