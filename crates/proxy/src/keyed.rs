//! What rules count by key: how often one came lately, and how many of its requests are under way.
//!
//! Shared by all workers, in shards with a lock each, which is held for one look-up: two workers meet at one only
//! if they have keys of the same shard at the same moment, and only requests that a counting rule is for come here.
//! Keys are hashed with a secret ([`Keyed`]), so that nobody can make keys meet: one of the table's own, or one that balancers have
//! in common and that lets them tell each other what they have counted (`peers`).
//! The arithmetic of rates is `relais_rules::rate`'s.

use std::collections::HashMap;
use std::hash::{BuildHasher, DefaultHasher, Hasher, RandomState};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use aws_lc_rs::hmac;
use relais_config::plan::{self, Measure};
use relais_rules::rate;

use crate::counters::lock;

/// Parts of a table, a power of two.
const SHARDS: usize = 64;

/// The shard of a hash, by its low bits; what is behind the shards goes by the high ones.
fn shard(hash: u64) -> usize {
    hash as usize % SHARDS
}

/// Makes hashes that nobody can who does not know its secret: the standard library's SipHash, behind the secret.
#[derive(Clone, Debug)]
pub(crate) struct Keyed(DefaultHasher);

impl Keyed {
    fn random() -> Keyed {
        let (one, other) = (RandomState::new().hash_one(1), RandomState::new().hash_one(2));
        let mut hasher = DefaultHasher::new();
        hasher.write_u64(one);
        hasher.write_u64(other);
        Keyed(hasher)
    }

    /// One that makes the same hashes wherever the cluster's key is known.
    pub(crate) fn of_cluster(key: &[u8]) -> Keyed {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, key), b"relais rates 1");
        let mut hasher = DefaultHasher::new();
        hasher.write(tag.as_ref());
        Keyed(hasher)
    }
}

impl BuildHasher for Keyed {
    type Hasher = DefaultHasher;

    fn build_hasher(&self) -> DefaultHasher {
        self.0.clone()
    }
}

/// How often keys came lately.
#[derive(Debug)]
pub(crate) struct Rates {
    /// What balancers that count the same know it by; `None`: it is this one's alone.
    pub(crate) number: Option<u64>,
    over: u32,
    measure: Measure,
    origin: Instant,
    secret: Keyed,
    shards: Box<[Mutex<rate::Rates>]>,
}

impl Rates {
    /// With its number and the hashes of the cluster, if balancers count together.
    pub(crate) fn new(plan: &plan::Rate, shared: Option<(u64, Keyed)>) -> Rates {
        let keys = (plan.keys as usize).div_ceil(SHARDS);
        let per_ms = plan.per.as_millis() as u64;
        let new = if shared.is_some() { rate::Rates::shared } else { rate::Rates::new };
        let (number, secret) = shared.unzip();
        Rates {
            number,
            over: plan.over,
            measure: plan.measure,
            origin: Instant::now(),
            secret: secret.unwrap_or_else(Keyed::random),
            shards: (0..SHARDS).map(|_| Mutex::new(new(keys, per_ms))).collect(),
        }
    }

    /// Gives what was counted here since the last time to `each`.
    pub(crate) fn take_untold(&self, mut each: impl FnMut(u64, u32)) {
        self.shards.iter().for_each(|shard| lock(shard).take_untold(&mut each));
    }

    /// Gives all keys and their rates to `each`.
    pub(crate) fn copy(&self, now: Instant, mut each: impl FnMut(u64, u32)) {
        let now_ms = self.ms(now);
        self.shards.iter().for_each(|shard| lock(shard).copy(now_ms, &mut each));
    }

    /// Counts what another balancer has counted; `is_all`: its rate, of which ours has its part already.
    pub(crate) fn learn(&self, hash: u64, n: u32, is_all: bool, now: Instant) {
        let now_ms = self.ms(now);
        let shard = &mut *lock(&self.shards[shard(hash)]);
        if is_all { shard.raise(hash, n, now_ms) } else { shard.learn(hash, n, now_ms) }
    }

    /// Whether a key comes more often than it should, this time included. `first`: it is its connection's first
    /// request. Where only its end tells what there is to count, that is left in `tallies`.
    pub(crate) fn over(
        self: &Arc<Rates>,
        key: &[u8],
        now: Instant,
        first: bool,
        tallies: &mut Vec<Tally>,
    ) -> bool {
        let hash = self.secret.hash_one(key);
        let now_ms = self.ms(now);
        let counts = match self.measure {
            Measure::Requests => true,
            Measure::Connections => first,
            Measure::Errors | Measure::Failures | Measure::BytesIn | Measure::BytesOut => {
                tallies.push(Tally { rates: self.clone(), hash });
                false
            }
        };
        let mut shard = lock(&self.shards[shard(hash)]);
        let rate = if counts { shard.count(hash, now_ms) } else { shard.rate(hash, now_ms) };
        rate > self.over
    }

    fn ms(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.origin).as_millis() as u64
    }
}

/// What there will be to count of a request when it is over.
#[derive(Debug)]
pub(crate) struct Tally {
    rates: Arc<Rates>,
    hash: u64,
}

impl Tally {
    /// It is over: with this status, after so many bytes received and sent.
    pub(crate) fn count(&self, now: Instant, status: u16, read: u64, written: u64) {
        let n = match self.rates.measure {
            Measure::Requests | Measure::Connections => 0,
            Measure::Errors => u64::from((400..500).contains(&status)),
            Measure::Failures => u64::from((500..600).contains(&status)),
            Measure::BytesIn => read,
            Measure::BytesOut => written,
        };
        if n > 0 {
            let n = u32::try_from(n).unwrap_or(u32::MAX);
            lock(&self.rates.shards[shard(self.hash)]).add(self.hash, n, self.rates.ms(now));
        }
    }
}

/// How many requests of each key are under way. It has room for those that are, and no others.
#[derive(Debug)]
pub(crate) struct Places {
    secret: RandomState,
    shards: Box<[Mutex<HashMap<u64, u32>>]>,
}

/// One of them; its end gives it back.
#[derive(Debug)]
pub(crate) struct Place {
    places: Arc<Places>,
    hash: u64,
}

impl Places {
    pub(crate) fn new() -> Places {
        Places { secret: RandomState::new(), shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// A place for a key, unless it has `most` already.
    pub(crate) fn take(self: &Arc<Places>, key: &[u8], most: u32) -> Option<Place> {
        let hash = self.secret.hash_one(key);
        let mut shard = lock(&self.shards[shard(hash)]);
        let count = shard.entry(hash).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Place { places: self.clone(), hash })
    }

    /// Keys that have a place.
    #[cfg(test)]
    fn keys(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).len()).sum()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut shard = lock(&self.places.shards[shard(self.hash)]);
        match shard.get_mut(&self.hash) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(shard.remove(&self.hash)),
        }
        // What a rush has made large does not stay so.
        if shard.is_empty() && shard.capacity() > 1024 {
            *shard = HashMap::new();
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn workers_that_race_for_places_never_have_more_and_leave_none_behind() {
        const MOST: u32 = 3;
        let places = Arc::new(Places::new());
        let held: Vec<_> = (0..4).map(|_| std::sync::atomic::AtomicU32::new(0)).collect();
        std::thread::scope(|scope| {
            for thread in 0..4u64 {
                let (places, held) = (&places, &held);
                scope.spawn(move || {
                    let mut mine = Vec::new();
                    for turn in 0..20_000u64 {
                        let key = (turn.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40 ^ thread) as usize % 4;
                        if let Some(place) = places.take(&[key as u8], MOST) {
                            let others = held[key].fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                            assert!(others < MOST, "{others}");
                            mine.push((key, place));
                        }
                        if mine.len() > 3 || turn % 3 == 0 || turn == 19_999 {
                            for (key, place) in mine.drain(..) {
                                held[key].fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
                                drop(place);
                            }
                        }
                    }
                });
            }
        });
        assert_eq!(places.keys(), 0);
    }

    #[test]
    fn hashes_are_the_cluster_s_where_its_key_is_known_and_nobody_s_else() {
        let [one, same, other] = ["a", "a", "b"].map(|key| Keyed::of_cluster(key.as_bytes()));
        assert_eq!(one.hash_one(b"10.0.0.1"), same.hash_one(b"10.0.0.1"));
        assert_ne!(one.hash_one(b"10.0.0.1"), other.hash_one(b"10.0.0.1"));
        assert_ne!(Keyed::random().hash_one(1), Keyed::random().hash_one(1));
    }

    proptest! {
        #[test]
        fn places_are_counted_as_a_list_would(steps in prop::collection::vec((0u8..6, any::<bool>(), 1u32..5), 1..200)) {
            let places = Arc::new(Places::new());
            let mut held: Vec<(u8, Place)> = Vec::new();
            for (key, take, most) in steps {
                let has = held.iter().filter(|(k, _)| *k == key).count();
                if take {
                    let place = places.take(&[key], most);
                    prop_assert_eq!(place.is_some(), has < most as usize);
                    held.extend(place.map(|place| (key, place)));
                } else if let Some(at) = held.iter().position(|(k, _)| *k == key) {
                    held.swap_remove(at);
                }
                let keys: std::collections::BTreeSet<u8> = held.iter().map(|(k, _)| *k).collect();
                prop_assert_eq!(places.keys(), keys.len());
            }
        }
    }

    #[test]
    fn all_threads_count_one_key_together() {
        let rate = |over| plan::Rate {
            measure: Measure::Requests,
            key: relais_rules::Key { parts: vec![relais_rules::What::Src], prefix4: 32, prefix6: 64 },
            over,
            per: std::time::Duration::from_secs(3600),
            keys: 1024,
        };
        let (rates, now) = (Arc::new(Rates::new(&rate(999), None)), Instant::now());
        let ask = |key: &[u8]| rates.over(key, now, true, &mut Vec::new());
        let over = std::thread::scope(|scope| {
            let one = || (0..300).filter(|_| ask(b"a")).count();
            let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
            all.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert_eq!(over, 1200 - 999);
        assert!(!ask(b"b"));
    }
}
