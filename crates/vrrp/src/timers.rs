//! The intervals of RFC 9568 §6.1, and the schedules of the lease and of the announcements.

use core::time::Duration;

use relais_base::Time;

/// How long the kernel keeps the address without a refresh (`valid_lft`).
pub const LEASE: Duration = Duration::from_secs(2);
/// How often the lease is refreshed: three refreshes may fail before the kernel takes the address away.
pub const REFRESH_EVERY: Duration = Duration::from_millis(500);
/// How often a holder announces once the burst at its start is over.
///
/// It bounds how long a client can be sent to the wrong machine where a split healed unseen by the holder,
/// which a peer other than Relais can cause (keepalived yields without a word). It costs 84 bytes.
pub const ANNOUNCE_EVERY: Duration = Duration::from_secs(10);

/// When a new holder announces, counted from its start. Linux keeps a fresh neighbour entry for about a
/// second, switches learn late, and an announcement may be lost: hence beyond the first one.
const BURST: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_millis(1000),
    Duration::from_millis(2500),
    Duration::from_millis(5000),
];

/// `Skew_Time`: the lower the priority, the longer the wait, so that the best backup wakes first.
pub fn skew_time(priority: u8, interval: Duration) -> Duration {
    interval * (256 - u32::from(priority)) / 256
}

/// `Active_Down_Interval`: this long a silence of the master means that it is gone.
pub fn master_down_interval(priority: u8, interval: Duration) -> Duration {
    interval * 3 + skew_time(priority, interval)
}

/// When to send the next gratuitous ARP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Announcements {
    start: Time,
    step: usize,
    next: Time,
    last: Option<Time>,
}

impl Announcements {
    /// A schedule whose first announcement is due at `now`.
    pub(crate) fn new(now: Time) -> Announcements {
        Announcements { start: now, step: 0, next: now, last: None }
    }

    pub(crate) fn next(&self) -> Time {
        self.next
    }

    /// Begins the burst again, for somebody else has claimed the address; at most one announcement each
    /// 100 ms comes of it, however often it is called.
    pub(crate) fn restart(&mut self, now: Time) {
        let first = self.last.map_or(now, |last| now.max(last + BURST[1]));
        if self.step > 1 {
            *self = Announcements { start: first, step: 0, next: first, last: self.last };
        }
    }

    /// Whether one is due now; if so the schedule moves on.
    pub(crate) fn take_due(&mut self, now: Time) -> bool {
        if now < self.next {
            return false;
        }
        self.step += 1;
        self.last = Some(now);
        self.next = match BURST.get(self.step) {
            Some(&offset) => (self.start + offset).max(now),
            None => now + ANNOUNCE_EVERY,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn the_intervals_are_those_of_the_rfc() {
        let interval = Duration::from_millis(100);
        assert_eq!(skew_time(128, interval), Duration::from_millis(50));
        assert_eq!(master_down_interval(128, interval), Duration::from_millis(350));
        assert!(master_down_interval(255, interval) < master_down_interval(254, interval));
    }

    fn announced(schedule: &mut Announcements, until_ms: u64) -> Vec<u64> {
        let mut at = Vec::new();
        while schedule.next() <= Time::from_millis(until_ms) {
            let now = schedule.next();
            assert!(schedule.take_due(now));
            at.push(now.as_millis());
        }
        at
    }

    #[test]
    fn a_holder_announces_in_a_burst_and_then_every_ten_seconds() {
        let mut schedule = Announcements::new(Time::ZERO);
        assert_eq!(announced(&mut schedule, 30_000), [0, 100, 300, 1000, 2500, 5000, 15_000, 25_000]);
    }

    #[test]
    fn conflicts_without_end_make_at_most_ten_announcements_a_second() {
        let mut schedule = Announcements::new(Time::ZERO);
        let mut count = 0;
        for ms in 0..1000 {
            schedule.restart(Time::from_millis(ms));
            count += u32::from(schedule.take_due(Time::from_millis(ms)));
        }
        assert!((8..=11).contains(&count), "{count}");
    }
}
