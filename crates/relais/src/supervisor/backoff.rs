//! When a child that died is started again. Pure: the caller brings the clock.

use std::time::Duration;

use relais_base::Time;

/// A child that lived this long is healthy; its next death is a first one again.
const HEALTHY_AFTER: Duration = Duration::from_secs(3);
const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(5);

/// The deaths in a row of one child.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    quick_deaths: u32,
}

impl Backoff {
    /// How long to wait before the next start, for a child that was started at `born` and died at `died`.
    ///
    /// The first death is healed at once, since that is what keeps an outage short. A child that dies
    /// again within 3 s waits 100 ms, then twice as long each time, up to 5 s.
    pub(crate) fn delay(&mut self, born: Time, died: Time) -> Duration {
        if died.since(born) >= HEALTHY_AFTER {
            self.quick_deaths = 0;
        }
        let delay = match self.quick_deaths {
            0 => Duration::ZERO,
            n => FIRST_DELAY.saturating_mul(1 << (n - 1).min(10)).min(LONGEST_DELAY),
        };
        self.quick_deaths = self.quick_deaths.saturating_add(1);
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_death_is_healed_at_once_and_a_crash_loop_slows_down() {
        let mut backoff = Backoff::default();
        let mut now = Time::from_millis(0);
        let mut delays = Vec::new();
        for _ in 0..9 {
            let born = now;
            now += Duration::from_millis(20);
            let delay = backoff.delay(born, now);
            delays.push(delay.as_millis());
            now += delay;
        }
        assert_eq!(delays, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
    }

    #[test]
    fn a_child_that_lived_long_starts_afresh() {
        let mut backoff = Backoff::default();
        backoff.delay(Time::ZERO, Time::from_millis(1));
        assert!(!backoff.delay(Time::ZERO, Time::from_millis(1)).is_zero());
        assert!(backoff.delay(Time::ZERO, Time::from_millis(10_000)).is_zero());
    }
}
