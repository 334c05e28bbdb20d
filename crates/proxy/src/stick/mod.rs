//! Tables that say which server a client's key stays with (`stick`, `persist learn=`): one of the process for each backend
//! that has one, in parts with a lock each, which is held for one look-up.
//!
//! What a table is, is `relais_balance::stick`'s business; [`key`] finds keys in requests and answers. Asked by `transaction` and
//! `tunnel` for every attempt, told by `exchange` and `tunnel` when a server has answered that was not the known one.

pub(crate) mod keep;
pub(crate) mod key;
pub(crate) mod show;

use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use relais_balance::stick::{Kept, Put, Stick};
use relais_config::plan;
use relais_ipc::status::TableStatus;

use crate::counters::lock;
use crate::limits;
use crate::upstream::Server;
use crate::worker::Setup;

/// Parts of a table, a power of two.
pub(crate) const PARTS: usize = 64;
/// How much later an entry's end must be to be told of: one in so many parts of its time.
const STEPS: u32 = 10;

/// A table and how the plan in force has it.
#[derive(Clone, Debug)]
pub(crate) struct Sticky {
    pub(crate) plan: plan::Stick,
    pub(crate) table: Arc<Table>,
}

/// Which server, by `ServerShared::id`, each key stays with.
#[derive(Debug)]
pub(crate) struct Table {
    /// Entries of all parts.
    entries: AtomicU32,
    origin: Instant,
    /// Makes hashes that nobody else can: strangers choose their keys.
    secret: RandomState,
    parts: Box<[Mutex<Part>]>,
}

#[derive(Debug)]
struct Part {
    stick: Stick,
    known: u64,
    unknown: u64,
    evicted: u64,
}

impl Sticky {
    /// The server, by index, that the client of a key is to go to: one that is up.
    pub(crate) fn server(&self, key: &[u8], now: Instant, servers: &[Rc<Server>]) -> Option<usize> {
        let id = self.table.get(key, now, self.plan.expire)?;
        servers.iter().position(|server| server.shared.id == id && server.shared.serves())
    }

    /// Has the client of a key stay with a server.
    pub(crate) fn put(&self, key: &[u8], server: &Server, now: Instant) {
        self.table.put(key, server.shared.id, now, self.plan.expire, self.plan.size);
    }

    /// Forgets the keys of a server, or of all; with `key`, as it is shown, that one alone. How many.
    pub(crate) fn forget(&self, servers: Option<&[u32]>, key: Option<&str>) -> u64 {
        let addresses = self.plan.key.addresses();
        self.table.forget(|kept| {
            servers.is_none_or(|servers| servers.contains(&kept.server))
                && key.is_none_or(|key| show::shown(&addresses, kept.key) == key)
        })
    }

    /// Forgets what is over, and what the table has no room for any more.
    pub(crate) fn sweep(&self, now: Instant) {
        self.table.sweep(now, self.plan.size);
    }

    /// The figures of it.
    pub(crate) fn status(&self) -> TableStatus {
        let mut status = TableStatus {
            entries: u64::from(self.table.entries.load(Relaxed)),
            size: u64::from(self.plan.size),
            ..TableStatus::default()
        };
        for part in &self.table.parts {
            let part = lock(part);
            status.known_total += part.known;
            status.unknown_total += part.unknown;
            status.evicted_total += part.evicted;
        }
        status
    }
}

/// Has a backend's table forget the keys of a server, or of all; with `key`, as it is shown, that one alone. How many.
pub(crate) fn forget(setup: &Setup, backend: &str, server: Option<&str>, key: Option<&str>) -> u64 {
    let mut backs = setup.backs.iter().zip(&setup.sticky);
    let found = backs.find(|((plan, ..), _)| *plan.name == *backend);
    let Some(((_, _, servers), Some(sticky))) = found else { return 0 };
    let named = |name: &str| -> Vec<u32> {
        servers.iter().filter(|server| *server.name == *name).map(|server| server.id).collect()
    };
    sticky.forget(server.map(named).as_deref(), key)
}

impl Table {
    pub(crate) fn new(expire: Duration) -> Table {
        let step_ms = ms(expire / STEPS);
        let part = || Part { stick: Stick::new(step_ms), known: 0, unknown: 0, evicted: 0 };
        Table {
            entries: AtomicU32::new(0),
            origin: Instant::now(),
            secret: RandomState::new(),
            parts: (0..PARTS).map(|_| Mutex::new(part())).collect(),
        }
    }

    /// The table's time: milliseconds that only grow.
    fn ms(&self, now: Instant) -> u64 {
        ms(now.saturating_duration_since(self.origin))
    }

    fn get(&self, key: &[u8], now: Instant, expire: Duration) -> Option<u32> {
        let (hash, now_ms) = (self.secret.hash_one(key), self.ms(now));
        let part = &mut *lock(&self.parts[hash as usize % PARTS]);
        let server = part.stick.get(hash, key, now_ms, Some(now_ms + ms(expire)));
        match server {
            Some(_) => part.known += 1,
            None => part.unknown += 1,
        }
        server
    }

    fn put(&self, key: &[u8], server: u32, now: Instant, expire: Duration, size: u32) {
        let (hash, ends_ms) = (self.secret.hash_one(key), self.ms(now) + ms(expire));
        self.change(hash, size, |stick, room| stick.put(hash, key, server, ends_ms, room));
    }

    /// Puts something into the part of a hash, with room for it if there is some: of its own part, else of another.
    fn change(&self, hash: u64, size: u32, mut put: impl FnMut(&mut Stick, bool) -> Put) {
        let take = |entries| (entries < size).then_some(entries + 1);
        let room = self.entries.fetch_update(Relaxed, Relaxed, take).is_ok();
        let own = hash as usize % PARTS;
        {
            let part = &mut *lock(&self.parts[own]);
            match (put(&mut part.stick, room), room) {
                (Put::Added, true) => return,
                (Put::Replaced, _) => {
                    part.evicted += 1;
                    return;
                }
                (Put::Full, _) => {}
                (_, true) => {
                    self.entries.fetch_sub(1, Relaxed);
                    return;
                }
                (_, false) => return,
            }
        }
        // One lock at a time: what this thread has freed nobody else has counted.
        for other in (1..PARTS).map(|step| (own + step) % PARTS) {
            let made = {
                let part = &mut *lock(&self.parts[other]);
                let made = part.stick.drop_oldest();
                part.evicted += u64::from(made);
                made
            };
            if made {
                if !matches!(put(&mut lock(&self.parts[own]).stick, true), Put::Added) {
                    self.entries.fetch_sub(1, Relaxed);
                }
                return;
            }
        }
    }

    /// Gives the places that have changed to `each`: part, place, what is there now and counts, how long it does.
    fn changes(
        &self,
        now: Instant,
        most: usize,
        mut each: impl FnMut(usize, u32, keep::Changed<'_>, Duration),
    ) {
        let now_ms = self.ms(now);
        for (number, part) in self.parts.iter().enumerate() {
            lock(part).stick.changed(most, |place, kept| {
                let kept = kept.filter(|kept| kept.ends_ms > now_ms);
                let left = kept.map_or(0, |kept| kept.ends_ms - now_ms);
                each(number, place, kept, Duration::from_millis(left));
            });
        }
    }

    /// Gives at most `most` places of a part, from `place` on, to `each`; where to go on, `None`: that was the part.
    pub(crate) fn copy(
        &self,
        part: usize,
        place: u32,
        most: u32,
        now: Instant,
        mut each: impl FnMut(&[u8], u32, Duration),
    ) -> Option<u32> {
        let now_ms = self.ms(now);
        let stick = &lock(&self.parts[part]).stick;
        let end = place.saturating_add(most).min(stick.places());
        for kept in (place..end).filter_map(|place| stick.kept(place)).filter(|kept| kept.ends_ms > now_ms) {
            each(kept.key, kept.server, Duration::from_millis(kept.ends_ms - now_ms));
        }
        (end < stick.places()).then_some(end)
    }

    /// Takes in what another balancer says, which counts for so long; what ends later here stays.
    pub(crate) fn learn(&self, key: &[u8], server: u32, left: Duration, now: Instant, size: u32) {
        let (hash, ends_ms) = (self.secret.hash_one(key), self.ms(now) + ms(left));
        self.change(hash, size, |stick, room| stick.learn(hash, key, server, ends_ms, room));
    }

    fn forget(&self, is_meant: impl Fn(&Kept<'_>) -> bool) -> u64 {
        let gone = |part: &Mutex<Part>| {
            let gone = lock(part).stick.retain(|kept| !is_meant(&kept));
            self.entries.fetch_sub(gone as u32, Relaxed);
            gone as u64
        };
        self.parts.iter().map(gone).sum()
    }

    fn sweep(&self, now: Instant, size: u32) {
        let now_ms = self.ms(now);
        for part in &self.parts {
            let gone = lock(part).stick.expire(now_ms, limits::EXPIRED_AT_A_TIME);
            self.entries.fetch_sub(gone as u32, Relaxed);
        }
        // After a plan with a smaller size.
        let mut parts = self.parts.iter().cycle().take(PARTS * limits::EXPIRED_AT_A_TIME);
        while self.entries.load(Relaxed) > size {
            let Some(part) = parts.next() else { return };
            let part = &mut *lock(part);
            if part.stick.drop_oldest() {
                part.evicted += 1;
                self.entries.fetch_sub(1, Relaxed);
            }
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_that_race_for_a_full_table_never_have_more_and_lose_no_count() {
        const SIZE: u32 = 100;
        let table = Table::new(Duration::from_secs(60));
        std::thread::scope(|scope| {
            for thread in 0..4u32 {
                let table = &table;
                scope.spawn(move || {
                    for turn in 0..5_000u32 {
                        let key = (turn.wrapping_mul(0x9e37_79b9) ^ thread) % 400;
                        let (now, expire) = (Instant::now(), Duration::from_secs(60));
                        table.put(&key.to_be_bytes(), key, now, expire, SIZE);
                        if let Some(server) = table.get(&key.to_be_bytes(), now, expire) {
                            assert_eq!(server, key);
                        }
                    }
                });
            }
        });
        let held: usize = table.parts.iter().map(|part| lock(part).stick.len()).sum();
        assert_eq!((held, table.entries.load(Relaxed)), (SIZE as usize, SIZE));
        table.parts.iter().for_each(|part| lock(part).stick.check_invariants());
        table.sweep(Instant::now(), 7);
        assert_eq!(table.entries.load(Relaxed), 7);
        table.sweep(Instant::now() + Duration::from_secs(61), 7);
        assert_eq!(table.entries.load(Relaxed), 0);
    }

    #[test]
    fn a_table_of_one_gives_its_place_to_whoever_came_last() {
        let table = Table::new(Duration::from_secs(60));
        for key in 0..200u32 {
            let (now, expire) = (Instant::now(), Duration::from_secs(60));
            table.put(&key.to_be_bytes(), key, now, expire, 1);
            assert_eq!(table.get(&key.to_be_bytes(), now, expire), Some(key));
            assert_eq!(table.entries.load(Relaxed), 1);
        }
    }
}
