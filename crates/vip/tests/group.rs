//! Sync groups: a machine with two networks holds an address on each, or none.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::time::{Duration, Instant};

use common::keepalived::Keepalived;
use common::{Lan, Vip, ready, run};

const LIMIT: Duration = Duration::from_secs(10);
/// The outer and the inner address.
const ADDRESSES: [&str; 2] = ["10.9.0.100", "10.8.0.100"];

/// Machines with `eth0` on one network and `eth1`, 10.8.0.x, on another.
fn two_networks(names: &[&str]) -> Lan {
    let lan = Lan::new(names);
    let switch = lan.machine(0).replace("-a", "-switch");
    run(&format!("ip -n {switch} link add br1 type bridge forward_delay 0 mcast_snooping 0"));
    run(&format!("ip -n {switch} link set br1 up"));
    for i in 0..names.len() {
        let machine = lan.machine(i);
        run(&format!("ip -n {switch} link add inner{i} type veth peer name eth1 netns {machine}"));
        run(&format!("ip -n {switch} link set inner{i} master br1 up"));
        run(&format!("ip -n {machine} address add 10.8.0.{}/24 dev eth1", i + 1));
        run(&format!("ip -n {machine} link set eth1 up"));
    }
    lan
}

fn inner_cable(lan: &Lan, machine: usize, plugged: bool) {
    let (switch, state) = (lan.machine(0).replace("-a", "-switch"), if plugged { "up" } else { "down" });
    run(&format!("ip -n {switch} link set inner{machine} {state}"));
}

fn plan() -> String {
    let vip = |name: &str, address: &str, interface: &str, id: u8| {
        format!(
            "vip {name} {{\n    address \"{address}/24\" interface={interface}\n    router-id {id}\n    node a priority=101\n    \
             node b priority=100\n    advertise \"50ms\"\n    sync-group edge\n}}\n"
        )
    };
    let nodes = "platform test {\n    drain \"1s\"\n}\nnode a { link \"10.9.0.1\"; link \"10.8.0.1\"; }\nnode b { link \
                 \"10.9.0.2\"; link \"10.8.0.2\"; }\nfrontend web {\n    bind \"*:80\"\n    redirect scheme=https\n}\n";
    nodes.to_owned() + &vip("outer", ADDRESSES[0], "eth0", 51) + &vip("inner", ADDRESSES[1], "eth1", 52)
}

/// keepalived with the same two addresses in a sync group.
fn keepalived(lan: &Lan, machine: usize) -> Keepalived {
    let instance = |name: &str, interface: &str, id: u8, address: &str| {
        format!(
            "vrrp_instance {name} {{\n  state BACKUP\n  interface {interface}\n  virtual_router_id {id}\n  priority 100\n  \
             advert_int 0.05\n  virtual_ipaddress {{\n    {address}/24\n  }}\n}}\n"
        )
    };
    let text = "global_defs {\n  vrrp_version 3\n}\nvrrp_sync_group edge {\n  group {\n    outer\n    inner\n  }\n}\n".to_owned()
        + &instance("outer", "eth0", 51, ADDRESSES[0])
        + &instance("inner", "eth1", 52, ADDRESSES[1]);
    Keepalived::start(lan, machine, &text)
}

/// Waits until exactly this machine holds both; how long that took.
fn await_both(lan: &Lan, holder: usize) -> Duration {
    let begin = Instant::now();
    loop {
        let held = |i: usize| {
            let all = run(&format!("ip -n {} -4 -o address show", lan.machine(i)));
            ADDRESSES.map(|address| all.contains(&format!(" {address}/")))
        };
        let now = [held(0), held(1)];
        if now[holder] == [true; 2] && now[1 - holder] == [false; 2] {
            return begin.elapsed();
        }
        assert!(begin.elapsed() < LIMIT, "not both at machine {holder}: {now:?}");
    }
}

#[tokio::test]
async fn a_cable_pulled_on_one_side_moves_both_addresses_beside_keepalived() {
    if !ready(&["ip", "keepalived"]) {
        return;
    }
    let lan = two_networks(&["a", "b"]);
    let _a = Vip::with_plan(lan.machine(0), "a", &plan()).await;
    await_both(&lan, 0);
    let _peer = keepalived(&lan, 1);
    for _ in 0..2 {
        inner_cable(&lan, 0, false);
        await_both(&lan, 1);
        inner_cable(&lan, 0, true);
        await_both(&lan, 0);
    }
}

#[tokio::test]
async fn a_cable_pulled_on_one_side_moves_both_addresses_to_the_other_relais() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = two_networks(&["a", "b"]);
    let mut nodes = Vec::new();
    for (i, name) in ["a", "b"].iter().enumerate() {
        nodes.push(Vip::with_plan(lan.machine(i), name, &plan()).await);
    }
    await_both(&lan, 0);
    inner_cable(&lan, 0, false);
    let took = await_both(&lan, 1);
    assert!(took < Duration::from_secs(1), "the silence of one side and the farewell of the other: {took:?}");
    inner_cable(&lan, 0, true);
    await_both(&lan, 0);

    // A move of one is a move of both, and the preemption does not undo it.
    nodes[1].order(relais_ipc::Order::Move { vip: "inner".into(), here: true }).await;
    await_both(&lan, 1);
    tokio::time::sleep(Duration::from_secs(1)).await; // twenty intervals in which it could go back
    await_both(&lan, 1);
}
