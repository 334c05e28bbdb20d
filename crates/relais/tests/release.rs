//! `relais release`: what a killed node left in the kernel is taken away, and nothing else. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod machine;

use std::time::{Duration, Instant};

use machine::{LIMIT, Machine, OTHER, VIP, can_run};
use relais_lab::netns;

const NAME: &str = "a_killed_node_leaves_nothing_once_it_is_released_and_a_living_one_is_left_alone";

#[test]
fn a_killed_node_leaves_nothing_once_it_is_released_and_a_living_one_is_left_alone() {
    if !can_run(NAME) {
        return;
    }
    let machine = Machine::new("");
    let before = machine.kernel();
    assert_eq!(machine.release(), (true, "nothing was left\n".into()));

    let (_node, log) = machine.start();
    let begin = Instant::now();
    while [VIP, OTHER].iter().any(|vip| !machine.kernel().contains(vip)) {
        assert!(begin.elapsed() < LIMIT, "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::sleep(Duration::from_millis(5)); // the kernel's tables have no event for this test
    }
    let (done, said) = machine.release();
    assert!(!done && said.contains("a node runs in"), "{said}");
    assert!(machine.kernel().contains(VIP), "a living node keeps its address");

    netns::kill_all_in(&machine.processes(), LIMIT).unwrap();
    let left = machine.kernel();
    assert!([VIP, OTHER, "relais-lease", "vrrp.52"].iter().all(|trace| left.contains(trace)), "{left}");
    let (done, said) = machine.release();
    let expected = format!(
        "removed {VIP}/24 on eth0\nremoved the gate of {VIP} on eth0\n\
                            removed the interface vrrp.52 with the virtual MAC\nremoved the gate of {OTHER} on eth0\n"
    );
    assert!(done && said == expected, "{said}");
    assert_eq!(machine.kernel(), before);
    assert_eq!(machine.release(), (true, "nothing was left\n".into()));
}
