//! Three nodes by hand, and properties of any history.

use alloc::sync::Arc;
use alloc::vec;
use core::net::Ipv4Addr;

use super::*;
use crate::events::Peer;

const INTERVAL: Duration = Duration::from_millis(50);
const PATIENCE: Duration = Duration::from_millis(150);
const VIP: u32 = 7;

fn address(node: u32) -> IpAddr {
    Ipv4Addr::new(10, 0, 0, node as u8).into()
}

/// Node `me` of nodes 1 to `count`, all close, on one link.
fn config(me: u32, count: u32) -> Config {
    let others: Vec<u32> = (1..=count).filter(|node| *node != me).collect();
    let peer = |node: &u32| Peer { node: *node, name: Arc::from(format!("n{node}")), is_close: true };
    let path = |(peer, node): (usize, &u32)| Path { peer, link: 0, remote: address(*node) };
    Config {
        platform: 1,
        node: me,
        interval: INTERVAL,
        patience: PATIENCE,
        peers: others.iter().map(peer).collect(),
        paths: others.iter().enumerate().map(path).collect(),
    }
}

/// Nodes that hear each other at once, but for cuts.
struct Net {
    nodes: Vec<Members>,
    cuts: Vec<(u32, u32)>,
    dead: Vec<u32>,
    now: Time,
    seen: Vec<(u32, Output)>,
}

impl Net {
    fn new(count: u32) -> Net {
        let now = Time::from_millis(1000);
        let nodes = (1..=count).map(|me| Members::new(config(me, count), 1, now)).collect();
        Net { nodes, cuts: Vec::new(), dead: Vec::new(), now, seen: Vec::new() }
    }

    fn node(&mut self, n: u32) -> &mut Members {
        &mut self.nodes[n as usize - 1]
    }

    fn alive(&self) -> Vec<u32> {
        (1..=self.nodes.len() as u32).filter(|n| !self.dead.contains(n)).collect()
    }

    fn tell(&mut self, n: u32, input: Input<'_>) {
        let now = self.now;
        self.node(n).handle(input, now);
        self.deliver();
    }

    fn deliver(&mut self) {
        loop {
            let mut sent = Vec::new();
            for n in self.alive() {
                self.nodes[n as usize - 1].check_invariants();
                while let Some(output) = self.node(n).poll_output() {
                    match output {
                        Output::Send { to, heartbeat, .. } => sent.push((n, to, heartbeat)),
                        other => self.seen.push((n, other)),
                    }
                }
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, heartbeat) in sent {
                for n in (1..=self.nodes.len() as u32).filter(|n| to.contains(&address(*n))) {
                    if self.cuts.contains(&(from, n)) || self.dead.contains(&n) {
                        continue;
                    }
                    let now = self.now;
                    let input = Input::Heartbeat { link: 0, from: address(from), heartbeat: &heartbeat };
                    self.node(n).handle(input, now);
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += Duration::from_millis(1);
            let now = self.now;
            for n in self.alive() {
                if self.node(n).poll_timeout() <= now {
                    self.node(n).handle_timeout(now);
                }
            }
            self.deliver();
        }
    }

    fn cut(&mut self, a: u32, b: u32) {
        self.cuts.extend([(a, b), (b, a)]);
    }

    /// The last time that `n` was told of node 1's holding, and by whom.
    fn witnessed(&self, n: u32, by: u32) -> Option<Time> {
        let seen = self.seen.iter().filter_map(|(who, output)| match output {
            Output::Witnessed { vip: VIP, holder: 1, by: b, at, .. } if *who == n && *b == by => Some(*at),
            _ => None,
        });
        seen.max()
    }

    fn cuts_seen(&self, n: u32) -> Vec<bool> {
        let cut = |(who, output): &(u32, Output)| match output {
            Output::Cut { why, .. } if *who == n => Some(why.is_some()),
            _ => None,
        };
        self.seen.iter().filter_map(cut).collect()
    }
}

fn hold() -> Input<'static> {
    Input::Hold { vip: VIP, link: 0, held: Some(100) }
}

#[test]
fn a_witness_tells_of_a_holder_that_is_not_heard_here() {
    let mut net = Net::new(3);
    net.tell(1, hold());
    net.cut(1, 2);
    net.run(Duration::from_secs(2));
    let at = net.witnessed(2, 3).unwrap();
    assert!(net.now.since(at) <= INTERVAL + Duration::from_millis(2), "as fresh as if heard here");
    assert_eq!(net.witnessed(2, 1), None);
    assert!(net.cuts_seen(1).is_empty() && net.cuts_seen(2).is_empty(), "node 3 hears both");
}

#[test]
fn no_word_of_a_dead_holder_is_younger_than_its_death() {
    let mut net = Net::new(4);
    net.tell(1, hold());
    net.run(Duration::from_secs(1));
    net.dead.push(1);
    let died = net.now;
    net.run(Duration::from_secs(3));
    assert!(net.witnessed(2, 3).unwrap() <= died && net.witnessed(2, 4).unwrap() <= died);
}

#[test]
fn who_lets_go_is_not_said_to_hold() {
    let mut net = Net::new(3);
    net.tell(1, hold());
    net.run(Duration::from_millis(300));
    net.tell(1, Input::Hold { vip: VIP, link: 0, held: None });
    let let_go = net.now;
    net.run(Duration::from_millis(300));
    assert!(net.witnessed(2, 3).unwrap() <= let_go);
}

#[test]
fn a_node_that_hears_nobody_any_more_is_cut_off_and_comes_back() {
    let mut net = Net::new(3);
    net.run(Duration::from_secs(1));
    net.cut(1, 2);
    net.cut(1, 3);
    let cut = net.now;
    while net.cuts_seen(1).is_empty() {
        net.run(Duration::from_millis(1));
    }
    assert!(net.now.since(cut) <= PATIENCE + Duration::from_millis(1), "{:?}", net.now.since(cut));
    assert!(net.cuts_seen(2).is_empty() && net.cuts_seen(3).is_empty());
    net.cuts.clear();
    net.run(INTERVAL * 3);
    assert_eq!(net.cuts_seen(1), [true, false]);
}

#[test]
fn a_node_that_nobody_hears_any_more_is_cut_off_too() {
    let mut net = Net::new(3);
    net.run(Duration::from_secs(1));
    net.cuts.extend([(1, 2), (1, 3)]);
    net.run(PATIENCE + INTERVAL * 4);
    assert_eq!(net.cuts_seen(1), [true]);
    assert!(net.cuts_seen(2).is_empty() && net.cuts_seen(3).is_empty());
}

#[test]
fn silence_of_one_node_or_of_one_after_the_other_proves_nothing() {
    let mut net = Net::new(2);
    net.run(Duration::from_secs(1));
    net.dead.push(2);
    net.run(Duration::from_secs(5));
    assert!(net.cuts_seen(1).is_empty(), "it may as well be the other one that died");
    let mut net = Net::new(3);
    net.run(Duration::from_secs(1));
    net.dead.push(2);
    net.run(Duration::from_secs(3));
    net.dead.push(3);
    net.run(Duration::from_secs(5));
    assert!(net.cuts_seen(1).is_empty());
}

#[test]
fn who_says_that_it_leaves_is_not_missed() {
    let mut net = Net::new(3);
    net.run(Duration::from_secs(1));
    net.tell(2, Input::Leave);
    net.tell(3, Input::Leave);
    net.dead.extend([2, 3]);
    net.run(Duration::from_secs(5));
    assert!(net.cuts_seen(1).is_empty());
    assert!(net.seen.iter().all(|(_, output)| !matches!(output, Output::Warn(_))), "{:?}", net.seen);
}

#[test]
fn a_silent_path_is_told_once_and_so_is_its_return() {
    let mut net = Net::new(3);
    net.run(Duration::from_secs(1));
    net.cut(1, 2);
    net.run(Duration::from_secs(5));
    net.cuts.clear();
    net.run(Duration::from_secs(3));
    let said = |n: u32| {
        let of_it = net.seen.iter().filter(|(who, _)| *who == n);
        of_it.filter(|(_, o)| matches!(o, Output::Warn(_) | Output::Info(_))).count()
    };
    assert_eq!((said(1), said(2), said(3)), (2, 2, 0), "{:?}", net.seen);
    assert_eq!(net.node(1).census(), (3, 3));
}

#[test]
fn what_was_said_before_is_not_heard_again() {
    let mut members = Members::new(config(1, 3), 5, Time::from_millis(1000));
    let beat = |incarnation, sequence| Heartbeat {
        platform: 1,
        sender: 2,
        incarnation,
        sequence,
        leaves: false,
        heard: vec![],
        held: vec![Held { vip: VIP, node: 2, priority: 100, age_ms: 0 }],
    };
    let mut is_heard = |heartbeat: Heartbeat, at_ms| {
        let from = address(2);
        members.handle(Input::Heartbeat { link: 0, from, heartbeat: &heartbeat }, Time::from_millis(at_ms));
        let mut heard = false;
        while let Some(output) = members.poll_output() {
            heard |= matches!(output, Output::Witnessed { .. });
        }
        heard
    };
    assert!(is_heard(beat(10, 5), 1001));
    assert!(!is_heard(beat(10, 5), 1002), "the same again");
    assert!(!is_heard(beat(10, 4), 1003), "overtaken");
    assert!(!is_heard(beat(9, 99), 1004), "a process that has ended");
    assert!(is_heard(beat(11, 1), 1005), "started again");
    assert!(is_heard(beat(2, 1), 20_000), "its clock was set back long ago");
    assert!(!is_heard(Heartbeat { platform: 2, ..beat(12, 1) }, 20_001), "another platform");
}

#[test]
fn two_holders_do_not_drive_each_other() {
    let mut net = Net::new(3);
    net.tell(1, hold());
    net.tell(2, Input::Hold { vip: 8, link: 0, held: Some(100) });
    net.run(Duration::from_secs(10));
    let received: u64 = net.nodes[0].paths().map(|path| path.received).sum();
    assert!(
        received <= 10 * 20 * 3 + 20,
        "{received} in 10 s from two nodes, one of which passes on for two"
    );
    assert!(net.nodes[0].paths().all(|path| path.lost == 0));
}

#[test]
fn a_heartbeat_goes_along_with_what_is_sent_anyway_if_it_is_due_within_half_an_interval() {
    let start = Time::from_millis(1000);
    let mut node = Members::new(config(1, 3), 1, start);
    let mut sent_at = |at: Time| {
        node.handle_timeout(at);
        core::iter::from_fn(|| node.poll_output()).filter(|o| matches!(o, Output::Send { .. })).count()
    };
    assert_eq!(sent_at(start), 1);
    assert_eq!(sent_at(start + INTERVAL / 4), 0);
    let mut along = |at: Time| {
        node.go_along(at);
        node.handle_timeout(at);
        core::iter::from_fn(|| node.poll_output()).filter(|o| matches!(o, Output::Send { .. })).count()
    };
    assert_eq!(along(start + INTERVAL / 4), 0, "it has just spoken");
    assert_eq!(along(start + INTERVAL / 2), 1);
    // Both have the same interval, so from now on they go together.
    assert_eq!(node.poll_timeout(), start + INTERVAL / 2 + INTERVAL);
}
