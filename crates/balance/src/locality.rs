//! Locality-based least connection, without and with replication (IPVS `lblc`, `lblcr`): what a key was sent to stays
//! its server, until that one has too much to do while another has little.
//!
//! IPVS's key is the destination address, for caches; behind one virtual address that would be one server for all. Here the
//! caller makes a hash of whatever it likes: the client's address (the thesis's groups of users), the URI
//! (a cache's view), a header.
//!
//! The rules, of IPVS's sources: a server is *overloaded* if it has more connections than its weight, and another has less
//! than half its weight in connections. `lblc` then gives the key to the weighted least connection choice, as it does
//! a new key, or one whose server may not be picked. `lblcr` keeps a set of servers a key, picks its least loaded, and adds
//! the choice to the set; a set that has not changed for a time loses its most loaded server at the next request.
//!
//! The table has a fixed size, 1,024 rows of 16 keys: a new key takes the place of the one in its row that was used
//! least recently, where IPVS collects what was not used for 6 minutes. 24 hours unused, and a key is forgotten.

use alloc::boxed::Box;
use alloc::vec;

use crate::{Ranking, Rule};

const ROWS: usize = 1024;
const WAYS: usize = 16;
/// Servers of a key's set; the most loaded gives way to one more.
const SET: usize = 8;
/// A key that is not used for so long is forgotten, seconds.
const FORGET_S: u32 = 24 * 3600;

/// Keys and their servers, above a ranking by connections and weight.
#[derive(Clone, Debug)]
pub struct Locality {
    /// After how many seconds without a change a set gets smaller; `None`: a key has one server.
    replicate_s: Option<u32>,
    /// Who gets a key that nobody has, and what everybody has to do.
    pub ranking: Ranking,
    keys: Box<[Entry]>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    key: u64,
    used_s: u32,
    changed_s: u32,
    /// 0: the entry is free.
    count: u8,
    set: [u16; SET],
}

impl Entry {
    fn set(&self) -> &[u16] {
        &self.set[..usize::from(self.count)]
    }

    fn remove(&mut self, at: usize) {
        self.set.copy_within(at + 1.., at);
        self.count -= 1;
    }
}

/// What there is to know of a server now.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Its connections.
    pub active: u32,
    /// Its weight.
    pub weight: u16,
}

impl Load {
    /// Whether it has less to do, for its weight, than the other.
    fn is_below(self, other: Load) -> bool {
        u64::from(self.active) * u64::from(other.weight) < u64::from(other.active) * u64::from(self.weight)
    }
}

impl Locality {
    /// For servers with these weights. `replicate_s`: keys have sets of servers (`lblcr`), which get smaller when they did not
    /// change for so many seconds (`lblcr_expiration`: 24 hours).
    pub fn new(replicate_s: Option<u32>, weights: impl IntoIterator<Item = u16>) -> Locality {
        let keys = vec![Entry::default(); ROWS * WAYS].into();
        Locality { replicate_s, ranking: Ranking::new(Rule::LeastConn, weights), keys }
    }

    /// The server of a key, at `now_s` seconds of any beginning. `eligible` admits no server of weight 0; `load` says what a
    /// server has to do. `None` if nobody may be picked.
    pub fn pick(
        &mut self,
        key: u64,
        now_s: u32,
        mut eligible: impl FnMut(usize) -> bool,
        load: impl Fn(usize) -> Load,
    ) -> Option<usize> {
        let entry = self.entry(key, now_s);
        let mut found = self.keys[entry];
        found.used_s = now_s;
        let known = least(&found, &mut eligible, &load);
        let stale = |after| now_s.saturating_sub(found.changed_s) > after;
        if found.count > 1 && self.replicate_s.is_some_and(stale) {
            let most = (0..found.set().len()).rev().reduce(|most, at| {
                let (one, other) = (load(found.set[most].into()), load(found.set[at].into()));
                if one.is_below(other) { at } else { most }
            });
            found.remove(most.unwrap_or(0));
            found.changed_s = now_s;
        }
        self.keys[entry] = found;
        let full = known.is_some_and(|place| load(place).active > u32::from(load(place).weight));
        if let (Some(_), false) = (known, full) {
            return known;
        }
        // It has the least for its weight: if it is not idle enough, nobody is.
        let idlest = self.ranking.next(&mut eligible, |place| load(place).active.into())?;
        let idle = |load: Load| u64::from(load.active) * 2 < u64::from(load.weight);
        if let (Some(_), false) = (known, idle(load(idlest))) {
            return known;
        }
        let choice = self.ranking.pick(&mut eligible, |place| load(place).active.into())?;
        self.assign(entry, key, choice, now_s, &load);
        Some(choice)
    }

    /// Gives a key a server: one more, or instead of the one it has.
    fn assign(&mut self, entry: usize, key: u64, choice: usize, now_s: u32, load: &impl Fn(usize) -> Load) {
        let entry = &mut self.keys[entry];
        let place = choice as u16;
        if entry.set().contains(&place) {
            return;
        }
        if self.replicate_s.is_none() {
            entry.count = 0;
        }
        if usize::from(entry.count) == SET {
            let most = (0..SET).reduce(|most, at| {
                let (one, other) = (load(entry.set[most].into()), load(entry.set[at].into()));
                if one.is_below(other) { at } else { most }
            });
            entry.remove(most.unwrap_or(0));
        }
        entry.set[usize::from(entry.count)] = place;
        entry.count += 1;
        (entry.key, entry.changed_s) = (key, now_s);
    }

    /// Where a key is, or would be.
    fn entry(&mut self, key: u64, now_s: u32) -> usize {
        let first = (key as usize % ROWS) * WAYS;
        let row = &mut self.keys[first..first + WAYS];
        let fresh = |entry: &Entry| entry.count > 0 && now_s.saturating_sub(entry.used_s) < FORGET_S;
        if let Some(at) = row.iter().position(|entry| entry.key == key && fresh(entry)) {
            return first + at;
        }
        let oldest = (0..WAYS).min_by_key(|&at| (fresh(&row[at]), row[at].used_s)).unwrap_or(0);
        row[oldest] = Entry { key, ..Entry::default() };
        first + oldest
    }
}

/// The least loaded server of a set that may be picked.
fn least(
    entry: &Entry,
    eligible: &mut impl FnMut(usize) -> bool,
    load: &impl Fn(usize) -> Load,
) -> Option<usize> {
    let mut servers = entry.set().iter().map(|&place| usize::from(place)).filter(|&place| eligible(place));
    let first = servers.next()?;
    Some(servers.fold(first, |least, place| if load(place).is_below(load(least)) { place } else { least }))
}
