//! How often a key came lately: counters over a sliding window, in a table that does not grow.
//!
//! As HAProxy's frequency counters (`freq_ctr`): each key has the count of the window under way and of the one before;
//! what of the latter is still within the last `per` is taken for its share of the time. So a steady stream is
//! counted right and a burst within one window exactly; who times bursts by the windows has twice the limit at most.
//!
//! Keys are 64-bit hashes; the caller makes them with a secret, so that nobody can choose where his key goes. Where a
//! bucket is full, what came least often lately gives way: a flood of keys that come once displaces none that
//! comes often. Not here: clocks, threads, what a key is made of.

use alloc::boxed::Box;

/// Keys in a bucket: what is looked at for one of them.
const WAYS: usize = 8;

#[derive(Clone, Copy, Debug, Default)]
struct Slot {
    key: u64,
    /// When the window under way began.
    start_ms: u64,
    now: u32,
    before: u32,
}

/// See the module.
#[derive(Debug)]
pub struct Rates {
    per_ms: u64,
    buckets: Box<[[Slot; WAYS]]>,
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
        Rates { per_ms: per_ms.max(1), buckets: alloc::vec![[Slot::default(); WAYS]; buckets].into() }
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
        if n == 0 {
            return self.rate(key, now_ms);
        }
        let per_ms = self.per_ms;
        let at = self.bucket(key);
        let bucket = &mut self.buckets[at];
        let at = bucket.iter().position(|slot| slot.key == key && slot.now > 0).unwrap_or_else(|| {
            let least = (0..WAYS).min_by_key(|&i| (bucket[i].rate(now_ms, per_ms), bucket[i].start_ms));
            let at = least.unwrap_or(0);
            bucket[at] = Slot { key, start_ms: now_ms, now: 0, before: 0 };
            at
        });
        let slot = &mut bucket[at];
        slot.turn(now_ms, per_ms);
        slot.now = slot.now.saturating_add(n);
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

    proptest! {
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
