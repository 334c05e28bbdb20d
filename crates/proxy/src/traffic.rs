//! The most there ever was of something, and how much of it a second: what HAProxy calls `smax`, `qmax`, `rate` and
//! `rate_max`.
//!
//! Rates are taken once a second by the main thread from counters that are there anyway: a request pays nothing for
//! them. Peaks are kept where a gauge goes up, by a look at what may be written only when it is passed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use tokio::time::Instant;

use crate::counters::{BackShared, Counter, FrontShared, ServerShared};
use crate::worker::Setup;

/// The highest value of a gauge.
#[derive(Debug, Default)]
pub(crate) struct Peak(AtomicU32);

impl Peak {
    /// The gauge has this value now.
    pub(crate) fn see(&self, now: u32) {
        if now > self.0.load(Relaxed) {
            self.0.fetch_max(now, Relaxed);
        }
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed).into()
    }
}

/// How much a counter grew in the last second, and in its best one. Written by the main thread alone.
#[derive(Debug, Default)]
pub(crate) struct Rate {
    total: AtomicU64,
    now: AtomicU64,
    most: AtomicU64,
}

impl Rate {
    /// The counter has come to `total`, `elapsed` after the last time.
    fn sample(&self, total: u64, elapsed: Duration) {
        let grown = total.saturating_sub(self.total.swap(total, Relaxed));
        let ms = (elapsed.as_millis() as u64).max(1);
        let rate = (grown * 1000).div_ceil(ms);
        self.now.store(rate, Relaxed);
        self.most.fetch_max(rate, Relaxed);
    }

    /// A second now, and at most.
    pub(crate) fn get(&self) -> [u64; 2] {
        [self.now.load(Relaxed), self.most.load(Relaxed)]
    }
}

fn total<'a>(counters: impl Iterator<Item = &'a Counter>) -> u64 {
    counters.map(Counter::get).sum()
}

/// Takes the rates of all that is in force, once a second, for ever.
pub(crate) async fn watch(setup: impl Fn() -> Option<Arc<Setup>>) {
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut last = Instant::now();
    loop {
        let now = tick.tick().await;
        let elapsed = now.saturating_duration_since(last);
        last = now;
        let Some(setup) = setup() else { continue };
        setup.fronts.iter().for_each(|(_, front)| front_rates(front, elapsed));
        setup.backs.iter().for_each(|(_, back, servers)| back_rates(back, servers, elapsed));
    }
}

fn front_rates(front: &FrontShared, elapsed: Duration) {
    front.rate.sample(total(front.workers.iter().map(|w| &w.connections)), elapsed);
    front.request_rate.sample(total(front.workers.iter().map(|w| &w.requests)), elapsed);
}

fn back_rates(back: &BackShared, servers: &[Arc<ServerShared>], elapsed: Duration) {
    let mut all = 0;
    for server in servers {
        let sessions = total(server.workers.iter().map(|w| &w.sessions));
        server.rate.sample(sessions, elapsed);
        all += sessions;
    }
    back.rate.sample(all, elapsed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_of_the_last_second_and_the_best_one_stays() {
        let rate = Rate::default();
        rate.sample(100, Duration::from_secs(1));
        assert_eq!(rate.get(), [100, 100]);
        rate.sample(110, Duration::from_secs(2));
        assert_eq!(rate.get(), [5, 100]);
        rate.sample(110, Duration::from_secs(1));
        assert_eq!(rate.get(), [0, 100]);
        rate.sample(5, Duration::ZERO);
        assert_eq!(rate.get(), [0, 100], "a server that was taken out and came back has grown by nothing");
    }

    #[test]
    fn a_peak_stays() {
        let peak = Peak::default();
        [3, 7, 5].into_iter().for_each(|now| peak.see(now));
        assert_eq!(peak.get(), 7);
    }
}
