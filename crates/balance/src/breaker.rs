//! A circuit breaker: a backend whose requests mostly fail is left alone for a while, so that it can recover and clients are
//! answered at once. Closed, it counts; open, nobody is let through; half open, a few are, and they decide.
//! Pure; whoever has requests for the backend asks before each, and says how it ended.

use core::time::Duration;

use relais_base::Time;

/// What it goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BreakerRule {
    /// It opens at this share of failures, percent, 1 to 100.
    pub errors: u8,
    /// Of at least so many requests, 1 or more.
    pub least: u32,
    /// That ended within so long.
    pub window: Duration,
    /// It lets nobody through for so long.
    pub open: Duration,
    /// Then so many, which all have to succeed, 1 or more.
    pub probes: u32,
}

/// What it has become.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nobody is let through: so many of so many failed.
    Opened(u32, u32),
    /// The probes succeeded.
    Closed,
}

#[derive(Clone, Copy, Debug)]
enum State {
    Closed {
        since: Time,
        good: u32,
        bad: u32,
    },
    Open {
        until: Time,
    },
    /// `left` may still go through; a probe that never ends makes place for another when `until` is over.
    HalfOpen {
        left: u32,
        good: u32,
        until: Time,
    },
}

/// See the module's documentation.
#[derive(Clone, Copy, Debug)]
pub struct Breaker {
    rule: BreakerRule,
    state: State,
}

impl Breaker {
    /// One that is closed and has counted nothing.
    pub fn new(rule: BreakerRule, now: Time) -> Breaker {
        Breaker { rule, state: State::Closed { since: now, good: 0, bad: 0 } }
    }

    /// What it goes by.
    pub fn rule(&self) -> BreakerRule {
        self.rule
    }

    /// Whether a request may go through. Then [`Breaker::record`] or [`Breaker::forget`] has to follow.
    pub fn admit(&mut self, now: Time) -> bool {
        let again = State::HalfOpen { left: self.rule.probes, good: 0, until: now + self.rule.open };
        match self.state {
            State::Closed { .. } => return true,
            State::Open { until } | State::HalfOpen { left: 0, until, .. } if now >= until => {
                self.state = again
            }
            State::Open { .. } => return false,
            State::HalfOpen { .. } => {}
        }
        let State::HalfOpen { left, .. } = &mut self.state else { return false };
        let may = *left > 0;
        *left = left.saturating_sub(1);
        may
    }

    /// A request that went through has ended well, or failed.
    pub fn record(&mut self, ok: bool, now: Time) -> Option<Turn> {
        match &mut self.state {
            State::Closed { since, good, bad } => {
                if now.since(*since) >= self.rule.window {
                    (*since, *good, *bad) = (now, 0, 0);
                }
                *good += u32::from(ok);
                *bad += u32::from(!ok);
                let (bad, all) = (*bad, *good + *bad);
                if ok
                    || all < self.rule.least
                    || u64::from(bad) * 100 < u64::from(all) * u64::from(self.rule.errors)
                {
                    return None;
                }
                self.state = State::Open { until: now + self.rule.open };
                Some(Turn::Opened(bad, all))
            }
            State::Open { .. } => None, // it went through before
            State::HalfOpen { good, .. } if ok => {
                *good += 1;
                if *good < self.rule.probes {
                    return None;
                }
                *self = Breaker::new(self.rule, now);
                Some(Turn::Closed)
            }
            State::HalfOpen { good, .. } => {
                let all = *good + 1;
                self.state = State::Open { until: now + self.rule.open };
                Some(Turn::Opened(1, all))
            }
        }
    }

    /// A request that went through has ended in a way that says nothing of the backend.
    pub fn forget(&mut self) {
        if let State::HalfOpen { left, .. } = &mut self.state {
            *left = (*left + 1).min(self.rule.probes);
        }
    }

    /// How long nobody is let through from now on; none: somebody may be.
    pub fn closed_for(&self, now: Time) -> Option<Duration> {
        match self.state {
            State::Open { until } if until > now => Some(until.since(now)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    const RULE: BreakerRule = BreakerRule {
        errors: 50,
        least: 10,
        window: Duration::from_secs(10),
        open: Duration::from_secs(5),
        probes: 2,
    };

    fn at(ms: u64) -> Time {
        Time::from_millis(ms)
    }

    /// `.` succeeds, `x` fails, `-` says nothing, all at once; what became of each that was let through.
    fn run(breaker: &mut Breaker, requests: &str, now: Time) -> Vec<Option<Turn>> {
        let mut turns = Vec::new();
        for request in requests.chars().take_while(|_| breaker.admit(now)).collect::<Vec<_>>() {
            match request {
                '-' => breaker.forget(),
                request => turns.push(breaker.record(request == '.', now)),
            }
        }
        turns.into_iter().filter(Option::is_some).collect()
    }

    #[test]
    fn it_opens_at_its_share_of_enough_requests_and_tries_again_with_a_few() {
        let mut breaker = Breaker::new(RULE, at(0));
        assert_eq!(run(&mut breaker, "xxxxxxxxx", at(0)), [], "too few");
        let mut breaker = Breaker::new(RULE, at(0));
        assert_eq!(run(&mut breaker, ".....xxxx", at(1)), []);
        assert_eq!(run(&mut breaker, "x", at(2)), [Some(Turn::Opened(5, 10))]);
        assert!(!breaker.admit(at(5_001)));
        assert_eq!(breaker.closed_for(at(4_002)), Some(Duration::from_secs(1)));
        // Half open: two go through, and a failure closes the door again.
        assert!(breaker.admit(at(5_002)) && breaker.admit(at(5_002)) && !breaker.admit(at(5_002)));
        assert_eq!(breaker.record(true, at(5_003)), None);
        assert_eq!(breaker.record(false, at(5_003)), Some(Turn::Opened(1, 2)));
        assert!(!breaker.admit(at(10_002)));
        assert_eq!(run(&mut breaker, ".-", at(10_003)), []);
        assert_eq!(run(&mut breaker, ".", at(10_004)), [Some(Turn::Closed)]);
        assert_eq!(run(&mut breaker, "xxxxxxxxx", at(10_004)), [], "it counts anew");
    }

    #[test]
    fn what_was_long_ago_does_not_count_and_lost_probes_are_replaced() {
        let mut breaker = Breaker::new(RULE, at(0));
        assert_eq!(run(&mut breaker, "xxxxxxxxx", at(0)), []);
        assert_eq!(run(&mut breaker, "x", at(10_000)), []);
        assert_eq!(run(&mut breaker, "xxxxxxxxx", at(10_001)), [Some(Turn::Opened(10, 10))]);
        assert!(breaker.admit(at(15_001)) && breaker.admit(at(15_001)) && !breaker.admit(at(20_000)));
        assert!(breaker.admit(at(20_001)), "the probes never ended");
    }

    proptest! {
        // Whatever happens: while it is open nobody goes through, and it never stays open for longer than it should.
        #[test]
        fn nobody_passes_an_open_breaker_and_it_opens_its_door_again(
            steps in prop::collection::vec((0u64..3_000, 0u8..4), 1..300),
        ) {
            let (mut breaker, mut now, mut opened, mut inside) = (Breaker::new(RULE, at(0)), 0, None, 0u32);
            for (pause, what) in steps {
                now += pause;
                let admitted = breaker.admit(at(now));
                if let Some(since) = opened {
                    prop_assert_eq!(admitted, now - since >= 5_000);
                    if admitted {
                        opened = None;
                    }
                }
                inside += u32::from(admitted);
                if inside == 0 || what == 3 {
                    continue; // it goes on
                }
                inside -= 1;
                match what {
                    2 => breaker.forget(),
                    what => {
                        if let Some(Turn::Opened(..)) = breaker.record(what == 0, at(now)) {
                            prop_assert!(breaker.closed_for(at(now)) == Some(RULE.open));
                            opened = Some(now);
                        }
                    }
                }
            }
        }
    }
}
