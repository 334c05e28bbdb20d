//! Two addresses, each with its own preferred holder: both machines serve, either takes all, each gets its own back.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::time::{Duration, Instant};

use common::{Lan, Vip, plan, ready, run};

const LIMIT: Duration = Duration::from_secs(5);
/// Of the second address; the first is the common plan's.
const OTHER: &str = "10.9.0.101";

fn crossed() -> String {
    let mut text = plan(101, 100, "preempt always");
    text += &format!(
        r#"vip other {{
    address "{OTHER}/24" interface=eth0
    router-id 52
    node a priority=100
    node b priority=101
    advertise "50ms"
    preempt always
}}
"#
    );
    text
}

/// Waits until exactly these machines have the first and the second address.
fn await_holders(lan: &Lan, first: usize, second: usize) {
    let begin = Instant::now();
    let holders = |address: &str| {
        let has = |i: &usize| {
            run(&format!("ip -n {} -4 -o address show", lan.machine(*i))).contains(&format!(" {address}/"))
        };
        (0..2).filter(has).collect::<Vec<_>>()
    };
    loop {
        let now = (holders(common::VIP), holders(OTHER));
        if now == (vec![first], vec![second]) {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "the holders are {now:?}, not {first} and {second}");
    }
}

#[tokio::test]
async fn each_of_two_machines_holds_its_own_address_and_either_takes_both() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let mut nodes = [None, None];
    for (i, name) in ["a", "b"].iter().enumerate() {
        nodes[i] = Some(Vip::with_plan(lan.machine(i), name, &crossed()).await);
    }
    await_holders(&lan, 0, 1);
    for (i, name) in ["a", "b"].iter().enumerate() {
        drop(nodes[i].take()); // SIGKILL
        await_holders(&lan, 1 - i, 1 - i);
        nodes[i] = Some(Vip::with_plan(lan.machine(i), name, &crossed()).await);
        await_holders(&lan, 0, 1);
    }
}
