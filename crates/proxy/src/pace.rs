//! Patience with a client that trickles: it moves often enough for every time-out, and takes a server's place
//! for hours (slow bodies, slow readers).
//!
//! A credit of time that waiting for the client spends, and each byte that it sends or takes earns back
//! (`min-rate`). Not here: silence, which is `timeout client`'s, and heads, which `timeout request` holds as a whole.

use std::time::Duration;

use relais_base::Time;
use relais_config::plan::MinRate;

/// One client's credit, for one request and its response.
pub(crate) struct Pace {
    rate: Option<MinRate>,
    credit: Duration,
    /// As of when, and after how many bytes.
    at: Time,
    bytes: u64,
}

impl Pace {
    /// A client with all its credit.
    pub(crate) fn new(rate: Option<MinRate>, now: Time) -> Pace {
        Pace { rate, credit: rate.map_or(Duration::ZERO, |r| r.grace), at: now, bytes: 0 }
    }

    /// Accounts for the time until `now`, in which the client was waited for if `waited`, and for all the `bytes`
    /// that it has sent and taken so far. Returns when its credit ends if it is waited for from now on.
    pub(crate) fn end(&mut self, now: Time, waited: bool, bytes: u64) -> Time {
        let Some(MinRate { bytes: rate, grace }) = self.rate else { return Time::MAX };
        if waited {
            self.credit = self.credit.saturating_sub(now.since(self.at));
        }
        let fresh = bytes.saturating_sub(self.bytes).saturating_mul(1_000_000) / rate;
        self.credit = self.credit.saturating_add(Duration::from_micros(fresh)).min(grace);
        self.at = now;
        self.bytes = bytes;
        now + self.credit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace() -> Pace {
        Pace::new(Some(MinRate { bytes: 100, grace: Duration::from_secs(10) }), Time::ZERO)
    }

    fn at(seconds: u64) -> Time {
        Time::from_millis(seconds * 1000)
    }

    #[test]
    fn waiting_spends_and_bytes_earn() {
        let mut pace = pace();
        assert_eq!(pace.end(at(0), true, 0), at(10));
        assert_eq!(pace.end(at(4), true, 0), at(10), "silence earns nothing");
        assert_eq!(pace.end(at(4), true, 200), at(12), "200 bytes are two seconds");
        assert_eq!(pace.end(at(12), true, 200), at(12), "all is spent");
    }

    #[test]
    fn a_fast_beginning_earns_no_more_than_the_grace() {
        let mut pace = pace();
        assert_eq!(pace.end(at(1), true, 1_000_000), at(11));
    }

    #[test]
    fn time_in_which_somebody_else_is_waited_for_costs_nothing() {
        let mut pace = pace();
        pace.end(at(3), true, 0);
        assert_eq!(pace.end(at(1000), false, 0), at(1007));
    }

    #[test]
    fn without_a_rate_there_is_no_end() {
        assert_eq!(Pace::new(None, Time::ZERO).end(at(5000), true, 0), Time::MAX);
    }
}
