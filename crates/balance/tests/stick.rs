//! A stick table beside a naive one, over random histories.

#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use relais_balance::stick::{Put, Stick};

/// What happens to a table.
#[derive(Clone, Debug)]
enum Event {
    /// Somebody asks; whether it then counts for longer.
    Get(u8, bool),
    Put(u8, u32),
    /// The other balancer says so; for so long.
    Learn(u8, u32, u64),
    Remove(u8),
    /// What is over goes, at most so much.
    Expire(usize),
    /// Somebody clears what goes to this server.
    Clear(u32),
    /// What has changed is asked for, at most so much.
    Changed(usize),
    Later(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let key = || 0u8..24;
    prop_oneof![
        6 => (key(), any::<bool>()).prop_map(|(key, renew)| Event::Get(key, renew)),
        6 => (key(), 0u32..4).prop_map(|(key, server)| Event::Put(key, server)),
        3 => (key(), 0u32..4, 0u64..200).prop_map(|(key, server, time)| Event::Learn(key, server, time)),
        1 => key().prop_map(Event::Remove),
        1 => (0usize..30).prop_map(Event::Expire),
        1 => (0u32..4).prop_map(Event::Clear),
        2 => (0usize..30).prop_map(Event::Changed),
        4 => (0u64..60).prop_map(Event::Later),
    ]
}

/// A table that says the rules without any trick: entries in the order of their use, the oldest first.
#[derive(Default)]
struct Naive {
    entries: Vec<(u8, u32, u64)>,
}

impl Naive {
    fn at(&self, key: u8) -> Option<usize> {
        self.entries.iter().position(|(known, ..)| *known == key)
    }

    fn get(&mut self, key: u8, now: u64, ends: Option<u64>) -> Option<u32> {
        let at = self.at(key).filter(|at| self.entries[*at].2 > now)?;
        if let Some(ends) = ends {
            let entry = self.entries.remove(at);
            self.entries.push((key, entry.1, ends));
        }
        self.entries.iter().find(|(known, ..)| *known == key).map(|entry| entry.1)
    }

    fn put(&mut self, key: u8, server: u32, ends: u64, most: usize) {
        match self.at(key) {
            Some(at) => drop(self.entries.remove(at)),
            None if self.entries.len() >= most => drop(self.entries.remove(0)),
            None => {}
        }
        self.entries.push((key, server, ends));
    }
}

/// Few chains, so that keys meet in them; the parts below are never equal for two keys.
fn hash(key: u8) -> u64 {
    u64::from(key % 3) << 32 | u64::from(key)
}

proptest! {
    #[test]
    fn a_table_is_what_a_list_would_be(
        events in prop::collection::vec(event(), 1..300),
        most in 1usize..16,
        step in prop_oneof![Just(0u64), Just(10), Just(1000)],
    ) {
        const LASTS: u64 = 100;
        let (mut table, mut naive, mut now) = (Stick::new(step), Naive::default(), 1_000u64);
        let mut copy: BTreeMap<u32, (u8, u32, u64)> = BTreeMap::new();
        let mut ours: BTreeSet<u8> = BTreeSet::new();
        for event in events {
            let room = naive.entries.len() < most;
            match event {
                Event::Get(key, renew) => {
                    let ends = renew.then_some(now + LASTS);
                    if renew {
                        ours.insert(key);
                    }
                    prop_assert_eq!(table.get(hash(key), &[key], now, ends), naive.get(key, now, ends));
                }
                Event::Put(key, server) => {
                    let known = naive.at(key).is_some();
                    naive.put(key, server, now + LASTS, most);
                    ours.insert(key);
                    let expected = if known { Put::Renewed } else if room { Put::Added } else { Put::Replaced };
                    prop_assert_eq!(table.put(hash(key), &[key], server, now + LASTS, room), expected);
                }
                Event::Learn(key, server, time) => {
                    let ends = now + time;
                    if naive.at(key).is_none_or(|at| naive.entries[at].2 < ends) {
                        naive.put(key, server, ends, most);
                        ours.remove(&key);
                    }
                    table.learn(hash(key), &[key], server, ends, room);
                }
                Event::Remove(key) => {
                    prop_assert_eq!(table.remove(hash(key), &[key]), naive.at(key).is_some());
                    naive.entries.retain(|(known, ..)| *known != key);
                }
                Event::Expire(at_most) => {
                    let counts = naive.entries.iter().position(|entry| entry.2 > now);
                    let gone = counts.unwrap_or(naive.entries.len()).min(at_most);
                    naive.entries.drain(..gone);
                    prop_assert_eq!(table.expire(now, at_most), gone);
                }
                Event::Clear(server) => {
                    let before = naive.entries.len();
                    naive.entries.retain(|entry| entry.1 != server);
                    let cleared = table.retain(|kept| kept.server != server);
                    prop_assert_eq!(cleared, before - naive.entries.len());
                }
                Event::Changed(most) => table.changed(most, |place, kept| {
                    if let Some(kept) = kept {
                        assert!(!kept.is_ours || ours.contains(&kept.key[0]), "what was learned is not told of");
                    }
                    match kept {
                        Some(kept) => copy.insert(place, (kept.key[0], kept.server, kept.ends_ms)),
                        None => copy.remove(&place),
                    };
                }),
                Event::Later(time) => now += time,
            }
            prop_assert_eq!(table.len(), naive.entries.len());
            prop_assert!(table.len() <= most);
            table.check_invariants();
        }
        // A copy that is told of changes has the same keys with the same servers, and ends that are at most a step older.
        table.changed(usize::MAX, |place, kept| {
            match kept {
                Some(kept) => copy.insert(place, (kept.key[0], kept.server, kept.ends_ms)),
                None => copy.remove(&place),
            };
        });
        prop_assert!(!table.has_changed());
        let copied: BTreeSet<(u8, u32)> = copy.values().map(|(key, server, _)| (*key, *server)).collect();
        let real: BTreeSet<(u8, u32)> = naive.entries.iter().map(|(key, server, _)| (*key, *server)).collect();
        prop_assert_eq!(copied, real);
        for (key, _, ends) in copy.values() {
            let real = naive.entries[naive.at(*key).unwrap()].2;
            prop_assert!(real <= ends.saturating_add(step.max(1)) || step == 1000, "{} {}", real, ends);
        }
    }
}
