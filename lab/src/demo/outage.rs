//! What a kill costs the client. Pure: probe results and clock readings in, rows out.
//!
//! The outage of a kill is the longest time without an answer that touches the time between the kill and the
//! moment when the client has been answered steadily again. With a request every 5 ms, 5 to 10 ms is nothing.

use std::collections::VecDeque;

use serde::Serialize;

/// Time between two requests of the probe, milliseconds.
const INTERVAL_MS: u64 = 5;
/// Rows that are kept.
const MAX_ROWS: usize = 100;
/// Results that are kept for pages that open later: a minute of them.
const MAX_SAMPLES: usize = 60_000 / INTERVAL_MS as usize;
/// The client is served again when every request of this long was answered.
const STEADY_MS: u64 = 1_000;
/// A request without an answer after this long has failed. A lost first packet is sent again after a second.
pub(crate) const PATIENCE_MS: u64 = 2_000;
/// No row is closed before this long: by then what the kill caught in flight has failed.
const SHORTEST_MS: u64 = PATIENCE_MS + 300;
/// A gap below this is no outage: it is the probe's own rhythm, or a busy machine's.
const NOTICED_MS: u64 = 30;

/// An answer that took this long is trouble too, though no outage.
const SLOW_MS: u64 = 500;

/// One request of the probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sample {
    /// When it was to be sent, milliseconds since the demo's start.
    pub(crate) sent_ms: u64,
    /// When its answer was whole, or it failed, microseconds after `sent_ms`.
    pub(crate) took_us: u32,
    /// Whether it was answered as it should.
    pub(crate) answered: bool,
}

/// What one kill cost.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Row {
    pub(crate) id: u64,
    /// When it was done, milliseconds since the demo's start.
    pub(crate) at_ms: u64,
    /// What was done, in a few words.
    pub(crate) what: String,
    /// On which machine or instance.
    pub(crate) target: String,
    /// `kill` or `revive`.
    pub(crate) kind: &'static str,
    /// Longest time without an answer so far, milliseconds.
    pub(crate) outage_ms: u64,
    /// The slowest answer so far, milliseconds.
    pub(crate) slowest_ms: u64,
    /// Requests that failed since.
    pub(crate) failed: u64,
    /// Who took over, or how it was healed.
    pub(crate) then: String,
    /// The figures are final.
    pub(crate) done: bool,
}

/// The rows, and the results that they are made of.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    rows: VecDeque<Row>,
    next_id: u64,
    samples: VecDeque<Sample>,
    /// Results that came before the first of `samples`.
    forgotten: u64,
    pub(crate) requests: u64,
    pub(crate) failed: u64,
    /// When the platform first answered. What was sent before that, while it was still starting, is nobody's fault.
    first_answer_ms: Option<u64>,
    last_answer_ms: Option<u64>,
    last_trouble_ms: u64,
}

impl Ledger {
    /// A request ended at `now_ms`. Results come in the order in which they ended.
    pub(crate) fn sample(&mut self, sample: Sample, now_ms: u64) {
        self.requests += 1;
        self.samples.push_back(sample);
        if self.samples.len() > MAX_SAMPLES {
            self.samples.pop_front();
            self.forgotten += 1;
        }
        let premature = self.first_answer_ms.is_none_or(|first| sample.sent_ms < first);
        if !sample.answered {
            self.last_trouble_ms = now_ms;
            if premature {
                return;
            }
            self.failed += 1;
            if let Some(row) = self.row_of(&sample, now_ms) {
                row.failed += 1;
            }
            return;
        }
        self.measure(now_ms);
        self.first_answer_ms.get_or_insert(now_ms);
        let slow_ms = u64::from(sample.took_us) / 1000;
        if !premature && let Some(row) = self.row_of(&sample, now_ms) {
            row.slowest_ms = row.slowest_ms.max(slow_ms);
        }
        if slow_ms >= SLOW_MS {
            self.last_trouble_ms = now_ms;
        }
        self.last_answer_ms = Some(now_ms);
    }

    /// The gap that lasts until now, for every open row.
    fn measure(&mut self, now_ms: u64) {
        let gap = self.last_answer_ms.map_or(0, |last| now_ms.saturating_sub(last));
        if gap >= NOTICED_MS {
            self.last_trouble_ms = now_ms;
        }
        self.open_rows().for_each(|row| row.outage_ms = row.outage_ms.max(gap));
    }

    /// To whom a request is charged that ended now: to the first thing that was done while it was under way, else to
    /// the last before it.
    fn row_of(&mut self, sample: &Sample, now_ms: u64) -> Option<&mut Row> {
        let later = self.rows.iter().position(|row| (sample.sent_ms..=now_ms).contains(&row.at_ms));
        let index = later.or_else(|| self.rows.iter().rposition(|row| row.at_ms < sample.sent_ms))?;
        self.rows.get_mut(index).filter(|row| !row.done || later.is_some())
    }

    fn open_rows(&mut self) -> impl Iterator<Item = &mut Row> {
        self.rows.iter_mut().filter(|row| !row.done)
    }

    /// Something is done to the platform now; what was done before has had its time. Returns the row's id.
    pub(crate) fn open(&mut self, now_ms: u64, kind: &'static str, what: &str, target: &str) -> u64 {
        self.open_rows().for_each(|row| row.done = true);
        self.next_id += 1;
        self.rows.push_back(Row {
            id: self.next_id,
            at_ms: now_ms,
            what: what.to_owned(),
            target: target.to_owned(),
            kind,
            outage_ms: 0,
            slowest_ms: 0,
            failed: 0,
            then: String::new(),
            done: false,
        });
        if self.rows.len() > MAX_ROWS {
            self.rows.pop_front();
        }
        self.next_id
    }

    /// Something was done to the platform by somebody else, after `since_ms` and before now: as [`Ledger::open`],
    /// with what it has cost already.
    pub(crate) fn discover(&mut self, since_ms: u64, what: &str, target: &str) -> u64 {
        let id = self.open(since_ms, "kill", what, target);
        let ended = |sample: &&Sample| sample.sent_ms + u64::from(sample.took_us) / 1000;
        let recent = self.samples.iter().rev().take(MAX_SAMPLES / 10);
        let (mut answers, failures): (Vec<_>, Vec<_>) = recent.partition(|sample| sample.answered);
        answers.sort_by_key(ended);
        let gaps = answers.windows(2).filter(|pair| ended(&pair[1]) >= since_ms);
        let longest = gaps.map(|pair| ended(&pair[1]) - ended(&pair[0])).max().unwrap_or_default();
        let first = self.first_answer_ms.unwrap_or(u64::MAX);
        let ours = |failure: &&&Sample| ended(failure) >= since_ms && failure.sent_ms >= first;
        let failed = failures.iter().filter(ours).count() as u64;
        for row in self.open_rows() {
            (row.outage_ms, row.failed) = (longest, failed);
        }
        id
    }

    /// What came of it.
    pub(crate) fn then(&mut self, id: u64, then: &str) {
        if let Some(row) = self.rows.iter_mut().rev().find(|row| row.id == id && row.then != then) {
            row.then = then.to_owned();
        }
    }

    /// Takes back a row of something that could not be done after all.
    pub(crate) fn forget(&mut self, id: u64) {
        self.rows.retain(|row| row.id != id);
    }

    /// Time passes: gaps grow, and rows whose client is steadily answered again are closed and returned.
    pub(crate) fn pass(&mut self, now_ms: u64) -> Vec<Row> {
        self.measure(now_ms);
        let steady = now_ms.saturating_sub(self.last_trouble_ms) >= STEADY_MS;
        let over = |row: &Row| !row.done && steady && now_ms.saturating_sub(row.at_ms) >= SHORTEST_MS;
        let mut closed = Vec::new();
        for row in self.rows.iter_mut().filter(|row| over(row)) {
            row.done = true;
            closed.push(row.clone());
        }
        closed
    }

    /// The row whose figures still change.
    pub(crate) fn open_row(&self) -> Option<&Row> {
        self.rows.iter().rev().find(|row| !row.done)
    }

    /// Whether the client goes without an answer, or did a moment ago.
    pub(crate) fn troubled(&self, now_ms: u64) -> bool {
        self.last_trouble_ms > 0 && now_ms.saturating_sub(self.last_trouble_ms) < NOTICED_MS
    }

    /// The rows, oldest first.
    pub(crate) fn rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter()
    }

    /// Results from the `after`-th on, and the number to ask for next.
    pub(crate) fn since(&self, after: u64) -> (impl Iterator<Item = &Sample>, u64) {
        let skip = after.saturating_sub(self.forgotten).min(self.samples.len() as u64);
        (self.samples.iter().skip(skip as usize), self.forgotten + self.samples.len() as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(ledger: &mut Ledger, from_ms: u64, to_ms: u64) {
        for sent_ms in (from_ms..to_ms).step_by(5) {
            ledger.sample(Sample { sent_ms, took_us: 1_000, answered: true }, sent_ms + 1);
        }
    }

    #[test]
    fn an_outage_is_the_longest_gap_between_two_answers_and_counts_what_failed() {
        let mut ledger = Ledger::default();
        answered(&mut ledger, 0, 1_000);
        ledger.open(1_000, "kill", "link cut", "haproxy1");
        ledger.sample(Sample { sent_ms: 1_000, took_us: 150_000, answered: false }, 1_150);
        answered(&mut ledger, 1_200, 2_005);
        ledger.sample(Sample { sent_ms: 1_005, took_us: 1_000_000, answered: true }, 2_005);
        answered(&mut ledger, 2_005, 3_000);
        assert_eq!(ledger.pass(3_000), [], "a second after an answer that took a second");
        answered(&mut ledger, 3_000, 4_000);
        let closed = ledger.pass(4_000);
        assert_eq!((closed[0].outage_ms, closed[0].slowest_ms, closed[0].failed), (1_201 - 996, 1_000, 1));
        assert_eq!((ledger.requests, ledger.failed), (762, 1));
    }

    #[test]
    fn a_row_stays_open_while_the_client_waits_and_its_outage_grows() {
        let mut ledger = Ledger::default();
        answered(&mut ledger, 0, 1_000);
        ledger.open(1_000, "kill", "everything killed", "haproxy1");
        assert_eq!(ledger.pass(9_000), []);
        assert_eq!(ledger.open_row().unwrap().outage_ms, 9_000 - 996);
        answered(&mut ledger, 9_000, 9_900);
        assert_eq!(ledger.pass(9_900), [], "less than a second of answers");
        answered(&mut ledger, 9_900, 10_100);
        assert_eq!(ledger.pass(10_100).len(), 1);
        assert!(ledger.open_row().is_none());
    }

    #[test]
    fn a_gap_counts_for_the_row_it_touches_and_for_no_other() {
        let mut ledger = Ledger::default();
        answered(&mut ledger, 0, 1_000);
        ledger.open(1_000, "kill", "worker killed", "haproxy1");
        answered(&mut ledger, 1_100, 4_000);
        ledger.open(4_000, "kill", "reload", "haproxy1");
        assert_eq!(ledger.rows().filter(|row| !row.done).count(), 1, "the first has had its time");
        answered(&mut ledger, 4_000, 7_000);
        ledger.pass(7_000);
        let outages: Vec<_> = ledger.rows().map(|row| (row.outage_ms, row.done)).collect();
        assert_eq!(outages, [(105, true), (5, true)]);
    }

    #[test]
    fn a_request_is_charged_to_what_was_done_while_it_was_under_way() {
        let mut ledger = Ledger::default();
        answered(&mut ledger, 0, 1_000);
        ledger.open(1_000, "kill", "link cut", "haproxy1");
        answered(&mut ledger, 1_200, 2_500);
        ledger.open(2_500, "revive", "link mended", "haproxy1");
        ledger.sample(Sample { sent_ms: 995, took_us: 2_000_000, answered: false }, 2_995);
        ledger.sample(Sample { sent_ms: 2_600, took_us: 700_000, answered: true }, 3_300);
        let charged: Vec<_> = ledger.rows().map(|row| (row.failed, row.slowest_ms)).collect();
        assert_eq!(charged, [(1, 1), (0, 700)]);
        answered(&mut ledger, 3_300, 9_000);
        ledger.pass(9_000);
        ledger.sample(Sample { sent_ms: 9_000, took_us: 1_000, answered: false }, 9_001);
        assert_eq!(ledger.rows().map(|row| row.failed).sum::<u64>(), 1, "that is nobody's any more");
    }

    #[test]
    fn what_was_sent_before_the_platform_first_answered_is_charged_to_nobody() {
        let mut ledger = Ledger::default();
        ledger.sample(Sample { sent_ms: 0, took_us: 90_000, answered: false }, 90);
        answered(&mut ledger, 205, 1_200);
        ledger.open(1_200, "kill", "proxy killed", "haproxy1");
        ledger.sample(Sample { sent_ms: 5, took_us: 2_000_000, answered: false }, 2_005);
        ledger.sample(Sample { sent_ms: 10, took_us: 2_000_000, answered: true }, 2_010);
        ledger.sample(Sample { sent_ms: 1_199, took_us: 820_000, answered: false }, 2_019);
        let row = ledger.open_row().unwrap();
        assert_eq!((row.failed, row.slowest_ms, ledger.failed), (1, 0, 1));
        ledger.discover(1_300, "proxy killed from outside", "haproxy1");
        assert_eq!(ledger.open_row().unwrap().failed, 1);
    }

    #[test]
    fn what_somebody_else_did_costs_what_it_cost_before_it_was_seen() {
        let mut ledger = Ledger::default();
        answered(&mut ledger, 0, 500);
        answered(&mut ledger, 800, 1_000); // an older and longer gap, which is somebody else's
        ledger.sample(Sample { sent_ms: 1_000, took_us: 20_000, answered: false }, 1_020);
        answered(&mut ledger, 1_050, 1_090);
        ledger.discover(990, "proxy killed from outside", "haproxy1");
        let row = ledger.open_row().unwrap();
        assert_eq!((row.at_ms, row.outage_ms, row.failed), (990, 1_051 - 996, 1));
        answered(&mut ledger, 1_200, 1_300);
        assert_eq!(ledger.open_row().unwrap().outage_ms, 1_201 - 1_086);
    }

    #[test]
    fn a_page_gets_each_result_once_and_the_oldest_are_forgotten() {
        let mut ledger = Ledger::default();
        answered(&mut ledger, 0, 100);
        let (all, next) = ledger.since(0);
        assert_eq!((all.count(), next), (20, 20));
        answered(&mut ledger, 100, 110);
        assert_eq!(ledger.since(20).0.map(|s| s.sent_ms).collect::<Vec<_>>(), [100, 105]);
        answered(&mut ledger, 110, 110 + 60_000);
        let (kept, next) = ledger.since(0);
        assert_eq!((kept.count(), next), (MAX_SAMPLES, 12_022));
        assert_eq!(ledger.since(12_020).0.count(), 2, "counted from the first of all, not of the kept");
        assert_eq!(ledger.since(99_999).0.count(), 0);
    }
}
