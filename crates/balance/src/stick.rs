//! Which server a key's client stays with: a table of bounded size that forgets who came longest ago.
//!
//! One [`Stick`] is a part of a table; whoever has several parts for several threads counts entries over all of them and says
//! with each new key whether there is room. Keys are bytes, servers are numbers that mean something to the caller; the hash of a key
//! is the caller's, who takes a secret one, so that nobody can make keys meet. Time is milliseconds of any clock that does not go
//! back. Nothing is allocated but for new keys, and nothing is searched: a look-up costs its hash's chain.
//!
//! What has changed is remembered until it is asked for ([`Stick::changed`]): copies elsewhere are kept by that.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// No entry.
const NONE: u32 = u32::MAX;
/// Smallest number of chains.
const CHAINS: usize = 16;

/// Part of a table.
#[derive(Debug, Default)]
pub struct Stick {
    entries: Vec<Entry>,
    /// First entries of the chains, by hash.
    chains: Vec<u32>,
    /// Entries that are not in use.
    free: Vec<u32>,
    /// The entry used last, and the one not used for longest.
    newest: u32,
    oldest: u32,
    used: usize,
    /// Places that have changed, each once.
    changed: Vec<u32>,
    /// A change of its end alone counts as one when it is so much later, milliseconds.
    step_ms: u64,
}

#[derive(Debug)]
struct Entry {
    hash: u64,
    /// It counts before this moment.
    ends_ms: u64,
    /// Its end when it was last told of.
    told_ms: u64,
    key: Box<[u8]>,
    server: u32,
    /// The next one of its chain.
    chain: u32,
    newer: u32,
    older: u32,
    in_use: bool,
    is_changed: bool,
    is_ours: bool,
}

/// An entry as others see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept<'a> {
    /// Its key.
    pub key: &'a [u8],
    /// Its server.
    pub server: u32,
    /// It counts before this moment, milliseconds.
    pub ends_ms: u64,
    /// What it says was last said here; else it was learned.
    pub is_ours: bool,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// It is another, and was added.
    Added,
    /// It is another, and took the place of the one not used for longest.
    Replaced,
    /// It was there.
    Renewed,
    /// There is no room for it, and nobody here to make some.
    Full,
}

impl Stick {
    /// An empty one. `step_ms`: by how much the end of an entry has to be later for it to count as changed.
    pub fn new(step_ms: u64) -> Stick {
        Stick { newest: NONE, oldest: NONE, step_ms, ..Stick::default() }
    }

    /// Entries in it, those included that no longer count and have not been looked at since.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// The server of a key. With `ends_ms` it counts until then, from now on, and is the last one used.
    pub fn get(&mut self, hash: u64, key: &[u8], now_ms: u64, ends_ms: Option<u64>) -> Option<u32> {
        let at = self.find(hash, key)?;
        let entry = &mut self.entries[at as usize];
        if entry.ends_ms <= now_ms {
            return None; // it is in the way of nobody until there is need of room
        }
        let server = entry.server;
        if let Some(ends_ms) = ends_ms {
            entry.ends_ms = ends_ms;
            if ends_ms >= entry.told_ms.saturating_add(self.step_ms) {
                entry.is_ours = true;
                self.note(at);
            }
            self.touch(at);
        }
        Some(server)
    }

    /// Has a key's client stay with this server. `room`: the table may have one more entry; else an old one of this part makes room.
    pub fn put(&mut self, hash: u64, key: &[u8], server: u32, ends_ms: u64, room: bool) -> Put {
        if let Some(at) = self.find(hash, key) {
            let entry = &mut self.entries[at as usize];
            let is_other = entry.server != server || ends_ms >= entry.told_ms.saturating_add(self.step_ms);
            (entry.server, entry.ends_ms) = (server, ends_ms);
            if is_other {
                entry.is_ours = true;
                self.note(at);
            }
            self.touch(at);
            return Put::Renewed;
        }
        if !room && !self.drop_oldest() {
            return Put::Full;
        }
        self.insert(hash, key, server, ends_ms);
        if room { Put::Added } else { Put::Replaced }
    }

    /// As [`Stick::put`] for what was learned elsewhere: what ends later was used later, and stays. So balancers that were apart
    /// and have other servers for a key agree, whoever tells first.
    pub fn learn(&mut self, hash: u64, key: &[u8], server: u32, ends_ms: u64, room: bool) -> Put {
        let known = self.find(hash, key).map(|at| &self.entries[at as usize]);
        if known.is_some_and(|entry| entry.ends_ms >= ends_ms) {
            return Put::Renewed;
        }
        let put = self.put(hash, key, server, ends_ms, room);
        if let Some(at) = self.find(hash, key) {
            self.entries[at as usize].is_ours = false;
        }
        put
    }

    /// Forgets a key; whether it was there.
    pub fn remove(&mut self, hash: u64, key: &[u8]) -> bool {
        match self.find(hash, key) {
            Some(at) => {
                self.release(at);
                true
            }
            None => false,
        }
    }

    /// Forgets the entry not used for longest; whether there was one.
    pub fn drop_oldest(&mut self) -> bool {
        let at = self.oldest;
        if at == NONE {
            return false;
        }
        self.release(at);
        true
    }

    /// Forgets those that no longer count, beginning with the one not used for longest, until one does, at most `most`; how many.
    pub fn expire(&mut self, now_ms: u64, most: usize) -> usize {
        let before = self.used;
        while self.oldest != NONE
            && self.entries[self.oldest as usize].ends_ms <= now_ms
            && before - self.used < most
        {
            self.release(self.oldest);
        }
        before - self.used
    }

    /// Forgets all that `keep` does not want; how many.
    pub fn retain(&mut self, mut keep: impl FnMut(Kept<'_>) -> bool) -> usize {
        let before = self.used;
        for at in 0..self.entries.len() as u32 {
            if self.kept(at).is_some_and(|kept| !keep(kept)) {
                self.release(at);
            }
        }
        before - self.used
    }

    /// What is at a place.
    pub fn kept(&self, place: u32) -> Option<Kept<'_>> {
        let entry = self.entries.get(place as usize).filter(|entry| entry.in_use)?;
        Some(Kept { key: &entry.key, server: entry.server, ends_ms: entry.ends_ms, is_ours: entry.is_ours })
    }

    /// Places, those not in use included.
    pub fn places(&self) -> u32 {
        self.entries.len() as u32
    }

    /// Gives every place that has changed since the last time to `each`, with what is there now, until `most` were given.
    pub fn changed(&mut self, most: usize, mut each: impl FnMut(u32, Option<Kept<'_>>)) {
        let rest = self.changed.split_off(most.min(self.changed.len()));
        for place in core::mem::replace(&mut self.changed, rest) {
            let entry = &mut self.entries[place as usize];
            entry.is_changed = false;
            entry.told_ms = entry.ends_ms;
            each(place, self.kept(place));
        }
    }

    /// Whether something has changed.
    pub fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<u32> {
        let mut at = *self.chains.get(self.chain(hash)?)?;
        while at != NONE {
            let entry = &self.entries[at as usize];
            if entry.hash == hash && *entry.key == *key {
                return Some(at);
            }
            at = entry.chain;
        }
        None
    }

    fn chain(&self, hash: u64) -> Option<usize> {
        // The low bits chose the part.
        let mask = self.chains.len().checked_sub(1)?;
        Some((hash >> 32) as usize & mask)
    }

    fn insert(&mut self, hash: u64, key: &[u8], server: u32, ends_ms: u64) {
        if self.used >= self.chains.len() {
            self.grow();
        }
        let at = self.free.pop().unwrap_or(self.entries.len() as u32);
        let first = self.chain(hash).unwrap_or(0);
        let is_changed = self.entries.get(at as usize).is_some_and(|entry| entry.is_changed);
        let entry = Entry {
            hash,
            ends_ms,
            told_ms: 0,
            key: key.into(),
            server,
            chain: core::mem::replace(&mut self.chains[first], at),
            newer: NONE,
            older: NONE,
            in_use: true,
            is_changed,
            is_ours: true,
        };
        match self.entries.get_mut(at as usize) {
            Some(place) => *place = entry,
            None => self.entries.push(entry),
        }
        self.used += 1;
        self.put_first(at);
        self.note(at);
    }

    fn grow(&mut self) {
        let chains = (self.chains.len() * 2).max(CHAINS);
        self.chains.clear();
        self.chains.resize(chains, NONE);
        for at in 0..self.entries.len() {
            if self.entries[at].in_use {
                let first = (self.entries[at].hash >> 32) as usize & (chains - 1);
                self.entries[at].chain = core::mem::replace(&mut self.chains[first], at as u32);
            }
        }
    }

    fn release(&mut self, at: u32) {
        let Some(first) = self.chain(self.entries[at as usize].hash) else { return };
        let next = self.entries[at as usize].chain;
        let mut before = self.chains[first];
        if before == at {
            self.chains[first] = next;
        } else {
            while self.entries[before as usize].chain != at {
                before = self.entries[before as usize].chain;
            }
            self.entries[before as usize].chain = next;
        }
        self.take_out(at);
        let entry = &mut self.entries[at as usize];
        entry.in_use = false;
        entry.key = Box::default();
        self.used -= 1;
        self.free.push(at);
        self.note(at);
    }

    fn note(&mut self, at: u32) {
        if !core::mem::replace(&mut self.entries[at as usize].is_changed, true) {
            self.changed.push(at);
        }
    }

    /// Makes it the one used last.
    fn touch(&mut self, at: u32) {
        if self.newest != at {
            self.take_out(at);
            self.put_first(at);
        }
    }

    fn put_first(&mut self, at: u32) {
        let second = core::mem::replace(&mut self.newest, at);
        (self.entries[at as usize].newer, self.entries[at as usize].older) = (NONE, second);
        match second {
            NONE => self.oldest = at,
            second => self.entries[second as usize].newer = at,
        }
    }

    fn take_out(&mut self, at: u32) {
        let (newer, older) = (self.entries[at as usize].newer, self.entries[at as usize].older);
        match newer {
            NONE => self.newest = older,
            newer => self.entries[newer as usize].older = older,
        }
        match older {
            NONE => self.oldest = newer,
            older => self.entries[older as usize].newer = newer,
        }
    }

    /// Whether lists and chains are whole; for tests.
    pub fn check_invariants(&self) {
        let (mut at, mut before, mut seen) = (self.newest, NONE, 0);
        while at != NONE {
            let entry = &self.entries[at as usize];
            assert!(entry.in_use && entry.newer == before, "the order of use is broken at {at}");
            assert_eq!(self.find(entry.hash, &entry.key), Some(at), "an entry is not in its chain");
            (before, at, seen) = (at, entry.older, seen + 1);
        }
        assert_eq!((self.oldest, self.used), (before, seen));
        assert_eq!(self.used + self.free.len(), self.entries.len());
        let changed = self.entries.iter().filter(|entry| entry.is_changed).count();
        assert_eq!(changed, self.changed.len());
    }
}
