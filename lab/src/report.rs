//! What a client saw, in numbers: from a probe's samples to the figures that a drill reports.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

use crate::probe::{Jitter, Sample, Stream};

/// One stream in one window of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Seen {
    /// Requests whose intended time lies in the window.
    pub requests: u64,
    /// Of these, those without a good answer.
    pub failed: u64,
    /// How many failed for which reason.
    pub reasons: BTreeMap<String, u64>,
    /// Requests sent again on a fresh connection because the kept one had closed (counted as good if that went well).
    pub retried: u64,
    /// The longest gap in which no request succeeded: the longest time between two successive moments at which
    /// a good answer was complete, less the regular spacing of requests. The window's beginning and end count as
    /// such moments, so that an outage that does not end is measured up to the window's end.
    pub longest_outage_ms: f64,
    /// Median latency of the good ones, from the intended time to the last byte.
    pub p50_ms: f64,
    /// Latency that 99 of 100 good ones keep within.
    pub p99_ms: f64,
    /// The slowest good one.
    pub max_ms: f64,
}

impl Seen {
    /// Sums up the samples of `stream` that were intended in `from..until`, sent every `every`.
    pub fn of(samples: &[Sample], stream: Stream, from: Duration, until: Duration, every: Duration) -> Seen {
        let window = from..until;
        let mut seen = Seen::default();
        let (mut completions, mut latencies) = (vec![from], Vec::new());
        for sample in samples.iter().filter(|s| s.stream == stream && window.contains(&s.intended)) {
            seen.requests += 1;
            seen.retried += u64::from(sample.retried);
            match sample.outcome {
                Ok(()) => {
                    completions.push(sample.done);
                    latencies.push(sample.done.saturating_sub(sample.intended));
                }
                Err(failure) => {
                    seen.failed += 1;
                    *seen.reasons.entry(failure.to_string()).or_default() += 1;
                }
            }
        }
        completions.sort_unstable();
        latencies.sort_unstable();
        completions.push(until.max(completions[completions.len() - 1]));
        let gaps = completions.windows(2).map(|pair| (pair[1] - pair[0]).saturating_sub(every));
        seen.longest_outage_ms = ms(gaps.max().unwrap_or_default());
        let at =
            |percent: usize| latencies.get((latencies.len() * percent / 100).min(latencies.len().max(1) - 1));
        seen.p50_ms = ms(at(50).copied().unwrap_or_default());
        seen.p99_ms = ms(at(99).copied().unwrap_or_default());
        seen.max_ms = ms(latencies.last().copied().unwrap_or_default());
        seen
    }
}

/// Whether every request of both streams intended in `from..until` has succeeded, and quickly (within `limit`).
pub fn is_clean(samples: &[Sample], from: Duration, until: Duration, limit: Duration) -> bool {
    let mut inside = samples.iter().filter(|s| from <= s.intended && s.intended < until).peekable();
    inside.peek().is_some() && inside.all(|s| s.outcome.is_ok() && s.done - s.intended <= limit)
}

/// How long both or neither of the balancers had the address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Holders {
    /// Milliseconds in which both had it on an interface, whether or not the network let both be heard.
    pub both: f64,
    /// Milliseconds in which neither had it.
    pub neither: f64,
}

/// How late the probe itself was, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct JitterMs {
    /// For 99 of 100 requests.
    pub p99: f64,
    /// At worst.
    pub max: f64,
}

impl From<Jitter> for JitterMs {
    fn from(jitter: Jitter) -> JitterMs {
        JitterMs { p99: ms(jitter.p99), max: ms(jitter.max) }
    }
}

/// One run of a drill.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Run {
    /// Which drill.
    pub drill: String,
    /// `relais` or `haproxy+keepalived`.
    pub stack: &'static str,
    /// Counts from 1.
    pub run: u32,
    /// What was broken, such as `haproxy1` or `tomcat2/app-1`.
    pub broke: String,
    /// Of the stream of new connections, the time until the repair.
    pub longest_outage_ms: f64,
    /// Failed requests of both streams, until the repair.
    pub failed: u64,
    /// Requests of both streams, until the repair.
    pub requests: u64,
    /// Whether clients were served again before anything was repaired.
    pub recovered: bool,
    /// A new connection for each request.
    pub new_connections: Seen,
    /// All on one connection. An outage here is longer: TCP sends what was lost again after 0.2, 0.6, 1.4 s.
    pub keep_alive: Seen,
    /// Holder of the address before.
    pub holder_before: String,
    /// Holders of the address at the end, before the repair.
    pub holders_after: Vec<String>,
    /// From the break to the repair.
    pub holders_ms: Holders,
    /// Milliseconds from the break to the repair in which more than one balancer answered for the address.
    pub two_answered_ms: f64,
    /// When the address left the balancer that held it, counted from the break; none: it kept it.
    pub lost_after_ms: Option<f64>,
    /// Whether, 3 s after the break, another balancer has the address and the broken one still does.
    pub two_holders_after_3s: bool,
    /// The outage, and failed requests, that the repair cost.
    pub repair_outage_ms: f64,
    /// Failed requests of both streams during the repair.
    pub repair_failed: u64,
    /// Where the drill has one: what became of a download that was under way, `whole` or what broke it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub download: Option<String>,
    /// The probe's own lateness.
    pub probe_late_ms: JitterMs,
}

/// All runs of a drill: the last line.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Total {
    /// Which drill.
    pub name: String,
    /// `relais` or `haproxy+keepalived`.
    pub stack: &'static str,
    /// How many runs.
    pub runs: u32,
    /// Median of the runs' longest outages.
    pub longest_outage_ms: f64,
    /// The worst of them.
    pub max_outage_ms: f64,
    /// Failed requests in all runs.
    pub failed: u64,
    /// Requests in all runs.
    pub requests: u64,
}

impl Total {
    /// Sums up `runs`, of which there is at least one.
    pub fn of(runs: &[Run]) -> Total {
        assert!(!runs.is_empty());
        let mut outages: Vec<f64> = runs.iter().map(|r| r.longest_outage_ms).collect();
        outages.sort_by(f64::total_cmp);
        let middle = outages.len() / 2;
        let median = if outages.len() % 2 == 1 {
            outages[middle]
        } else {
            tenth((outages[middle - 1] + outages[middle]) / 2.0)
        };
        Total {
            name: runs[0].drill.clone(),
            stack: runs[0].stack,
            runs: runs.len() as u32,
            longest_outage_ms: median,
            max_outage_ms: outages[outages.len() - 1],
            failed: runs.iter().map(|r| r.failed).sum(),
            requests: runs.iter().map(|r| r.requests).sum(),
        }
    }
}

/// Milliseconds with one decimal.
pub fn ms(duration: Duration) -> f64 {
    tenth(duration.as_secs_f64() * 1000.0)
}

fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Failure;

    const EVERY: Duration = Duration::from_millis(5);

    fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn sample(intended: u64, done: u64, outcome: Result<(), Failure>) -> Sample {
        Sample { stream: Stream::New, intended: at(intended), done: at(done), retried: false, outcome }
    }

    fn seen(samples: &[Sample], until: u64) -> Seen {
        Seen::of(samples, Stream::New, at(0), at(until), EVERY)
    }

    #[test]
    fn a_calm_second_has_no_outage() {
        let samples: Vec<_> = (0..200).map(|n| sample(n * 5, n * 5 + 1, Ok(()))).collect();
        let seen = seen(&samples, 1000);
        assert_eq!((seen.requests, seen.failed, seen.longest_outage_ms), (200, 0, 0.0));
        assert_eq!((seen.p50_ms, seen.p99_ms, seen.max_ms), (1.0, 1.0, 1.0));
    }

    #[test]
    fn an_outage_is_seen_whether_requests_fail_or_wait() {
        let served = |n: u64| n * 5 < 300 || n * 5 >= 500;
        let failing =
            (0..200).map(|n| sample(n * 5, n * 5, if served(n) { Ok(()) } else { Err(Failure::Refused) }));
        let waiting = (0..200).map(|n| sample(n * 5, if served(n) { n * 5 } else { 500 }, Ok(())));
        let (failing, waiting) =
            (seen(&failing.collect::<Vec<_>>(), 1000), seen(&waiting.collect::<Vec<_>>(), 1000));
        assert_eq!((failing.longest_outage_ms, failing.failed), (200.0, 40));
        assert_eq!(failing.reasons, BTreeMap::from([("refused".to_owned(), 40)]));
        assert_eq!((waiting.longest_outage_ms, waiting.failed, waiting.max_ms), (200.0, 0, 200.0));
    }

    #[test]
    fn an_outage_that_does_not_end_lasts_to_the_end_of_the_window() {
        let samples = [sample(0, 0, Ok(())), sample(5, 5000, Err(Failure::TimedOut))];
        assert_eq!(seen(&samples, 1000).longest_outage_ms, 995.0);
        assert_eq!(seen(&[], 1000).longest_outage_ms, 995.0);
    }

    #[test]
    fn only_a_window_whose_requests_all_went_well_is_clean() {
        let good: Vec<_> = (0..200).map(|n| sample(n * 5, n * 5 + 1, Ok(()))).collect();
        assert!(is_clean(&good, at(0), at(1000), at(100)));
        assert!(!is_clean(&good, at(2000), at(3000), at(100)), "nothing was asked");
        let mut slow = good.clone();
        slow[7].done = at(500);
        assert!(!is_clean(&slow, at(0), at(1000), at(100)));
        let mut failed = good;
        failed[7].outcome = Err(Failure::Reset);
        assert!(!is_clean(&failed, at(0), at(1000), at(100)));
    }
}
