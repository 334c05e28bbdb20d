//! Heartbeats: whatever datagram is read as one, its seal aside, is written and read again as the same, and no sequence of
//! them brings the membership of a node out of its invariants.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use relais_base::Time;
use relais_cluster::wire::{Heard, Heartbeat, Held, SEAL_LEN, encode, parse};
use relais_cluster::{Config, Input, Members, Path, Peer};

/// Heads, and the nodes and addresses of [`node`] and of the seeds.
pub(crate) const WORDS: &[&[u8]] = &[
    b"RlHb\x01\0",
    b"RlHb\x01\x01",
    b"\0\0\0\x01",
    b"\0\0\0\x02",
    b"\0\0\0\x03",
    b"\0\0\0\x09",
    b"\xff\xff",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    &[0; 16],
];

const NODES: std::ops::RangeInclusive<u32> = 1..=3;

fn sample(sender: u32) -> Heartbeat {
    Heartbeat {
        platform: 1,
        sender,
        incarnation: 7,
        sequence: 9,
        leaves: false,
        heard: NODES.map(|node| Heard { node, age_ms: 5 }).collect(),
        held: vec![Held { vip: 9, node: 2, priority: 101, age_ms: 0 }],
    }
}

/// Several in one input, each with a byte before it that says how long it is.
pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let one = |sender: u32| {
        let mut bytes = encode(&sample(sender));
        bytes.extend([0; SEAL_LEN]);
        bytes.insert(0, bytes.len() as u8);
        bytes
    };
    vec![one(2), one(3), [one(2), one(3), one(2)].concat()]
}

/// Node 1 of three.
fn node(now: Time) -> Members {
    let others = [2, 3];
    let peer = |node: u32| Peer { node, name: Arc::from(format!("n{node}")), is_close: true };
    let path = |peer: usize| Path { peer, link: 0, remote: address(others[peer]) };
    let config = Config {
        platform: 1,
        node: 1,
        interval: Duration::from_millis(25),
        patience: Duration::from_millis(150),
        peers: others.map(peer).into(),
        paths: [0, 1].map(path).into(),
    };
    Members::new(config, 1, now)
}

fn address(node: u32) -> IpAddr {
    Ipv4Addr::from(0x0a09_0000 | node).into()
}

pub(crate) fn check(input: &[u8]) -> Result<(), String> {
    let mut now = Time::from_millis(1000);
    let mut members = node(now);
    let mut rest = input;
    while let Some((length, behind)) = rest.split_first() {
        let (datagram, behind) = behind.split_at(usize::from(*length).min(behind.len()));
        rest = behind;
        now += Duration::from_millis(u64::from(*length));
        let Ok(heartbeat) = parse(datagram, |_, _| true) else { continue };
        let mut written = encode(&heartbeat);
        written.extend([0; SEAL_LEN]);
        let again = parse(&written, |_, _| true);
        if again.as_ref() != Ok(&heartbeat) {
            return Err(format!("{heartbeat:?} was written and read as {again:?}"));
        }
        let from = address(heartbeat.sender);
        members.handle(Input::Heartbeat { link: 0, from, heartbeat: &heartbeat }, now);
        if members.poll_timeout() <= now {
            members.handle_timeout(now);
        }
        while members.poll_output().is_some() {}
        members.check_invariants();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_heard() {
        for sender in [2, 3] {
            let mut members = node(Time::from_millis(1000));
            let heartbeat = sample(sender);
            let from = address(sender);
            members
                .handle(Input::Heartbeat { link: 0, from, heartbeat: &heartbeat }, Time::from_millis(1001));
            assert_eq!(members.paths().map(|path| path.received).sum::<u64>(), 1);
        }
        assert!(seeds().iter().all(|seed| check(seed).is_ok()));
    }
}
