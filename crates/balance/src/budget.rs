//! How many requests may be tried again: a share of them, so that servers that fail under load are not asked several times as
//! much (retry budgets of Finagle and Envoy). A bucket: each request puts a part of a retry in, each retry takes one out.

use relais_base::Time;

/// Parts of a retry, so that a percentage is a whole number of them.
const PARTS: u32 = 100;
/// What a worker may repeat in a second, whatever the share: with little traffic one failure must not go unrepeated.
const LEAST_PER_S: u64 = 10;
/// So many retries are kept at most.
const KEPT: u32 = 100;

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Budget {
    percent: u8,
    parts: u32,
    /// When time was counted last.
    at: Time,
}

impl Budget {
    /// `percent`: retries for a hundred requests, 1 to 100.
    pub fn new(percent: u8, now: Time) -> Budget {
        Budget { percent, parts: LEAST_PER_S as u32 * PARTS, at: now }
    }

    /// There is a request.
    pub fn request(&mut self) {
        self.add(u32::from(self.percent));
    }

    /// Whether one may be repeated; then it is taken as repeated.
    pub fn retry(&mut self, now: Time) -> bool {
        let parts_per_s = LEAST_PER_S * u64::from(PARTS);
        let parts = now.since(self.at).as_millis() as u64 * parts_per_s / 1000;
        if parts > 0 {
            self.at = now;
            self.add(u32::try_from(parts).unwrap_or(u32::MAX));
        }
        let may = self.parts >= PARTS;
        if may {
            self.parts -= PARTS;
        }
        may
    }

    fn add(&mut self, parts: u32) {
        self.parts = self.parts.saturating_add(parts).min(KEPT * PARTS);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn retries(budget: &mut Budget, now: Time) -> usize {
        (0..1000).take_while(|_| budget.retry(now)).count()
    }

    #[test]
    fn a_fifth_of_the_requests_may_be_repeated_and_ten_a_second_at_least() {
        let begin = Time::from_millis(5);
        let mut budget = Budget::new(20, begin);
        assert_eq!(retries(&mut budget, begin), 10, "those of the first second");
        (0..200).for_each(|_| budget.request());
        assert_eq!(retries(&mut budget, begin), 40);
        assert_eq!(retries(&mut budget, begin + Duration::from_millis(500)), 5);
        assert_eq!(retries(&mut budget, begin + Duration::from_millis(599)), 0);
        assert_eq!(retries(&mut budget, begin + Duration::from_millis(600)), 1);
    }

    #[test]
    fn what_is_not_used_is_not_kept_for_ever() {
        let begin = Time::from_millis(5);
        let mut budget = Budget::new(100, begin);
        (0..1_000_000).for_each(|_| budget.request());
        assert_eq!(retries(&mut budget, begin), 100);
        assert_eq!(retries(&mut budget, begin + Duration::from_secs(1_000_000)), 100);
    }
}
