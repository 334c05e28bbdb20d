//! How often a key came lately: counters over a sliding window, in a table that does not grow.
//!
//! As HAProxy's frequency counters (`freq_ctr`): each key has the count of the window under way and of the one before;
//! what of the latter is still within the last `per` is taken for its share of the time. So a steady stream is
//! counted right and a burst within one window exactly; who times bursts by the windows has twice the limit at most.
//!
//! Keys are 64-bit hashes; the caller makes them with a secret, so that nobody can choose where his key goes. Where a
//! bucket is full, what came least often lately gives way: a flood of keys that come once displaces none that
//! comes often. Not here: clocks, threads, what a key is made of.
//!
//! Balancers that share counters tell each other what each has counted since it was last asked ([`Rates::take_untold`]), and add what
//! they hear to their own ([`Rates::learn`]): every counter is that of all of them, and looking it up costs nothing more. Who
//! comes later is told what the others have ([`Rates::copy`]) and takes what is more than its own ([`Rates::raise`]).

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Keys in a bucket: what is looked at for one of them.
const WAYS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    /// When the window under way began.
    start_ms: u64,
    now: u32,
    before: u32,
    /// Counted here and told to nobody yet. While it is not 0 its place is in [`Rates::untold`].
    untold: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Rates {
    per_ms: u64,
    buckets: Box<[[Slot; WAYS]]>,
    /// Places with something to tell; `None`: nobody wants to know.
    untold: Option<Vec<u32>>,
}

impl Slot {
    /// How often its key came in the last `per`.
    fn rate(&self, now_ms: u64, per_ms: u64) -> u32 {
        // Another thread may have looked at the clock a little later.
        let gone = now_ms.saturating_sub(self.start_ms);
        let share = |count: u32, left_ms: u64| (u64::from(count) * left_ms / per_ms) as u32;
        if gone < per_ms {
            self.now.saturating_add(share(self.before, per_ms - gone))
        } else if gone < 2 * per_ms {
            share(self.now, 2 * per_ms - gone)
        } else {
            0
        }
    }

    fn turn(&mut self, now_ms: u64, per_ms: u64) {
        let gone = now_ms.saturating_sub(self.start_ms);
        if gone >= 2 * per_ms {
            (self.before, self.now, self.start_ms) = (0, 0, now_ms);
        } else if gone >= per_ms {
            (self.before, self.now) = (self.now, 0);
            self.start_ms += per_ms;
        }
    }
}

impl Rates {
    /// Counters of about `keys` keys over `per_ms` milliseconds, at least one of either.
    pub fn new(keys: usize, per_ms: u64) -> Rates {
        let buckets = keys.div_ceil(WAYS).max(1);
        let buckets = alloc::vec![[Slot::default(); WAYS]; buckets].into();
        Rates { per_ms: per_ms.max(1), buckets, untold: None }
    }

    /// The same, with what is counted to be told to others.
    pub fn shared(keys: usize, per_ms: u64) -> Rates {
        Rates { untold: Some(Vec::new()), ..Rates::new(keys, per_ms) }
    }

    /// Counts a key, and says how often it came in the last `per`, this time included. `now_ms` may go
    /// back a little.
    pub fn count(&mut self, key: u64, now_ms: u64) -> u32 {
        self.add(key, 1, now_ms)
    }

    /// How often a key came in the last `per`. It is not counted, nor remembered for that.
    pub fn rate(&self, key: u64, now_ms: u64) -> u32 {
        let slot = self.buckets[self.bucket(key)].iter().find(|slot| slot.key == key && slot.now > 0);
        slot.map_or(0, |slot| slot.rate(now_ms, self.per_ms))
    }

    fn bucket(&self, key: u64) -> usize {
        // The high half of the product: as good as a remainder, without a division.
        ((u128::from(key) * self.buckets.len() as u128) >> 64) as usize
    }

    /// Counts a key as `n` at once, as of bytes, and says what it comes to in the last `per`. Nothing is not remembered.
    pub fn add(&mut self, key: u64, n: u32, now_ms: u64) -> u32 {
        self.change(key, n, now_ms, true)
    }

    /// Counts what another balancer has counted.
    pub fn learn(&mut self, key: u64, n: u32, now_ms: u64) {
        self.change(key, n, now_ms, false);
    }

    /// Has a key's rate be this one at least, as another balancer knows it.
    pub fn raise(&mut self, key: u64, rate: u32, now_ms: u64) {
        let known = self.rate(key, now_ms);
        self.learn(key, rate.saturating_sub(known), now_ms);
    }

    /// Gives what was counted here since the last time to `each`, by key.
    pub fn take_untold(&mut self, mut each: impl FnMut(u64, u32)) {
        for place in self.untold.iter_mut().flat_map(|places| places.drain(..)) {
            let slot = &mut self.buckets[place as usize / WAYS][place as usize % WAYS];
            match core::mem::take(&mut slot.untold) {
                0 => {} // its key gave way to another
                n => each(slot.key, n),
            }
        }
        // What a flood has made large does not stay so.
        if let Some(untold) = self.untold.as_mut().filter(|untold| untold.capacity() > 4096) {
            *untold = Vec::new();
        }
    }

    /// Gives each key and its rate, without what is untold yet, to `each`.
    pub fn copy(&self, now_ms: u64, mut each: impl FnMut(u64, u32)) {
        for slot in self.buckets.iter().flatten().filter(|slot| slot.now > 0) {
            let rate = slot.rate(now_ms, self.per_ms).saturating_sub(slot.untold);
            if rate > 0 {
                each(slot.key, rate);
            }
        }
    }

    fn change(&mut self, key: u64, n: u32, now_ms: u64, is_ours: bool) -> u32 {
        if n == 0 {
            return self.rate(key, now_ms);
        }
        let per_ms = self.per_ms;
        let in_bucket = self.bucket(key);
        let bucket = &mut self.buckets[in_bucket];
        let at = bucket.iter().position(|slot| slot.key == key && slot.now > 0).unwrap_or_else(|| {
            let least = (0..WAYS).min_by_key(|&i| (bucket[i].rate(now_ms, per_ms), bucket[i].start_ms));
            let at = least.unwrap_or(0);
            bucket[at] = Slot { key, start_ms: now_ms, ..Slot::default() };
            at
        });
        let slot = &mut bucket[at];
        slot.turn(now_ms, per_ms);
        slot.now = slot.now.saturating_add(n);
        if let Some(places) = self.untold.as_mut().filter(|_| is_ours) {
            if slot.untold == 0 {
                places.push((in_bucket * WAYS + at) as u32);
            }
            slot.untold = slot.untold.saturating_add(n);
        }
        slot.rate(now_ms, per_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec::Vec;

    #[test]
    fn a_burst_is_counted_exactly_and_forgotten_after_two_windows() {
        let mut rates = Rates::new(100, 10_000);
        for n in 1..=200 {
            assert_eq!(rates.count(7, 5_000 + n), n as u32);
        }
        assert_eq!(rates.count(8, 5_300), 1, "another key is another count");
        assert_eq!(
            rates.count(7, 20_001),
            101,
            "half of the window before is still within the last ten seconds"
        );
        assert_eq!(rates.count(7, 90_000), 1);
    }

    #[test]
    fn a_steady_stream_is_counted_right() {
        let mut rates = Rates::new(100, 1_000);
        for n in 1..10_000u64 {
            let rate = rates.count(7, n * 10);
            assert!(n < 100 || (98..=101).contains(&rate), "{n}: {rate}");
        }
    }

    #[test]
    fn a_flood_of_other_keys_does_not_make_it_forget_who_comes_often() {
        let mut rates = Rates::new(64, 10_000);
        let mut seed = 1u64;
        let mut rate = 0;
        for n in 0..100_000u64 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            rates.count(seed, n / 100);
            if n % 1_000 < 2 {
                rate = rates.count(u64::MAX / 3, n / 100);
            }
        }
        assert_eq!(rate, 200);
    }

    #[test]
    fn what_is_only_asked_about_is_not_counted_and_takes_no_room() {
        let mut rates = Rates::new(8, 1_000);
        assert_eq!(rates.rate(7, 5_000), 0);
        assert_eq!(rates.add(7, 0, 5_000), 0);
        assert_eq!(rates.add(7, 500, 5_000), 500);
        assert_eq!((rates.rate(7, 5_400), rates.rate(7, 5_400)), (500, 500));
        assert_eq!(rates.rate(7, 6_500), 250, "half of it is still within the last second");
        assert_eq!(rates.rate(7, 9_000), 0);
        assert_eq!(rates.add(7, u32::MAX, 9_000), u32::MAX);
        assert_eq!(rates.add(7, u32::MAX, 9_001), u32::MAX, "more than can be counted is that much");
    }

    #[test]
    fn clocks_that_differ_a_little_lose_nothing() {
        let mut rates = Rates::new(8, 1_000);
        rates.count(7, 5_000);
        assert_eq!(rates.count(7, 4_998), 2);
    }

    /// Has one hear what the others have counted.
    fn exchange(all: &mut [Rates], now_ms: u64) {
        for from in 0..all.len() {
            let mut told = Vec::new();
            all[from].take_untold(|key, n| told.push((key, n)));
            for (to, other) in all.iter_mut().enumerate() {
                told.iter().filter(|_| to != from).for_each(|&(key, n)| other.learn(key, n, now_ms));
            }
        }
    }

    #[test]
    fn who_comes_later_takes_what_the_others_know_and_no_count_twice() {
        let mut all = [Rates::shared(100, 1_000), Rates::shared(100, 1_000)];
        all[0].add(7, 30, 5_000);
        all[1].add(7, 12, 5_000);
        exchange(&mut all, 5_000);
        all[0].add(7, 5, 5_010);
        let mut third = Rates::shared(100, 1_000);
        for from in &all {
            from.copy(5_010, |key, rate| third.raise(key, rate, 5_010));
        }
        assert_eq!(third.rate(7, 5_010), 42, "the last five are still to be told");
        let mut told = Vec::new();
        all[0].take_untold(|key, n| told.push((key, n)));
        assert_eq!(told, [(7, 5)]);
        third.take_untold(|key, n| unreachable!("{key} {n}: what it has heard it does not tell"));
        all[0].take_untold(|key, n| unreachable!("{key} {n}: it was told"));
    }

    proptest! {
        #[test]
        fn balancers_that_tell_each_other_count_as_one_would(
            steps in prop::collection::vec((0usize..3, 0u64..5, 1u32..9, 0u64..300, any::<bool>()), 1..100)
        ) {
            let mut all: Vec<Rates> = (0..3).map(|_| Rates::shared(64, 1_000)).collect();
            let (mut one, mut now) = (Rates::new(64, 1_000), 1_000_000u64);
            for (at, key, n, gone, is_told) in steps {
                now += gone;
                all[at].add(key, n, now);
                one.add(key, n, now);
                // Told at once: all of them have the same windows. Later: nobody has more than one would have.
                exchange(&mut all, now);
                for other in &all {
                    prop_assert_eq!(other.rate(key, now), one.rate(key, now));
                }
                if is_told {
                    let other = (at + 1) % 3;
                    let mut seen = Vec::new();
                    all[at].copy(now, |key, rate| seen.push((key, rate)));
                    seen.iter().for_each(|&(key, rate)| all[other].raise(key, rate, now));
                    prop_assert_eq!(all[other].rate(key, now), one.rate(key, now), "who knows all takes nothing");
                }
            }
        }

        #[test]
        fn every_count_is_told_once_though_keys_give_way(
            steps in prop::collection::vec((0u64..40, 1u32..9, 0u64..300, any::<bool>()), 1..200)
        ) {
            let mut rates = Rates::shared(8, 1_000);
            let (mut counted, mut told, mut now) = (0u64, 0u64, 1_000_000u64);
            for (key, n, gone, is_learned) in steps {
                now += gone;
                match is_learned {
                    true => rates.learn(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), n, now),
                    false => {
                        rates.add(key.wrapping_mul(0x9e37_79b9_7f4a_7c15), n, now);
                        counted += u64::from(n);
                    }
                }
                if gone % 3 == 0 {
                    rates.take_untold(|_, n| told += u64::from(n));
                    prop_assert!(told <= counted);
                    rates.take_untold(|_, _| told = u64::MAX);
                }
            }
            rates.take_untold(|_, n| told += u64::from(n));
            prop_assert!(told <= counted);
        }

        #[test]
        fn no_timing_gets_more_than_twice_the_limit_and_who_keeps_to_half_is_never_over(
            steps in prop::collection::vec((0u64..400, 1u32..8), 1..100)
        ) {
            const OVER: u32 = 12;
            let mut rates = Rates::new(8, 1_000);
            let (mut now, mut came, mut passed) = (1_000_000u64, Vec::new(), Vec::new());
            for (step, times) in steps {
                now += step;
                for _ in 0..times {
                    came.push(now);
                    let within = |all: &[u64], span: u64| all.iter().filter(|&&at| at + span > now).count() as u32;
                    let rate = rates.count(7, now);
                    prop_assert!((1..=within(&came, 2_000)).contains(&rate), "{rate}");
                    if rate <= OVER {
                        passed.push(now);
                    }
                    prop_assert!(within(&passed, 1_000) <= 2 * OVER);
                }
            }
        }
    }
}
