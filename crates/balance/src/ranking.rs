//! Algorithms that go by what each server has to do: the servers in the order of their load.
//!
//! | rule | next is | of equals |
//! | --- | --- | --- |
//! | `LeastConn` | least `C/W`: connections by weight (thesis; IPVS `wlc`, HAProxy `leastconn`) | idle longest |
//! | `Sed` | least `(C+1)/W`: shortest expected delay (IPVS `sed`) | first in the list |
//! | `Nq` | first in the list that has none; else as `Sed`: never queue (IPVS `nq`) | first in the list |
//! | `First` | first in the list with a free place (HAProxy `first`) | |
//! | `LeastTime` | least `T(C+1)/W`, `T` the mean time of its answers (nginx `least_time`) | first in the list |
//!
//! All workers of a process share one ranking of a backend: each for itself would see a part of the connections
//! and send too much to the same servers. It is told of each change of a load, and holds what it was told;
//! what it was not told of it finds by itself, one server a pick.
//!
//! Quotients are compared exactly, as whole numbers: two different ones of denominators up to 2^15 differ by more
//! than 2^-30, so `C·2^30/W` rounded down puts them in the same order as cross-multiplication does.

use alloc::vec::Vec;

use crate::tree::Tree;

/// What the next server is chosen by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Least connections for its weight.
    LeastConn,
    /// Shortest expected delay.
    Sed,
    /// Never queue.
    Nq,
    /// The first that is not full.
    First,
    /// Least time for its weight.
    LeastTime,
}

/// Servers in the order of their load.
#[derive(Clone, Debug)]
pub struct Ranking {
    rule: Rule,
    order: Tree<u128>,
    servers: Vec<Server>,
    /// Counts picks: who is idle longest is known by it.
    picks: u64,
    /// The server that is looked at next without an occasion.
    suspect: usize,
    /// Logarithm of the mean time of all servers, for those that have not answered yet.
    typical: u64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Server {
    load: u64,
    limit: u64,
    used: u64,
    weight: u16,
    time: Option<Time>,
}

/// A server's mean time as it was when it last answered.
#[derive(Clone, Copy, Debug)]
struct Time {
    micros: u64,
    at_ms: u64,
}

/// Loads are counted up to here.
const MOST: u64 = 1 << 33;
const NEVER: u128 = u128::MAX;
/// A mean time halves in so many milliseconds, without answers; and an answer that comes after so long a silence counts
/// as much as all that were before. So a server that was slow once is tried again.
const HALF_LIFE_MS: u64 = 10_000;
/// Logarithms are this many times the one to base 2.
const UNIT: u64 = 1 << 16;

impl Ranking {
    /// A ranking of servers with these weights, up to 32,767, none of which has anything to do.
    pub fn new(rule: Rule, weights: impl IntoIterator<Item = u16>) -> Ranking {
        let server = |weight| Server { weight, limit: u64::MAX, ..Server::default() };
        let servers: Vec<Server> = weights.into_iter().map(server).collect();
        let order = Tree::new((0..servers.len()).map(|_| NEVER), NEVER);
        let mut ranking = Ranking { rule, order, servers, picks: 0, suspect: 0, typical: 0 };
        (0..ranking.servers.len()).for_each(|place| ranking.rank(place));
        ranking
    }

    /// The next server of those that `eligible` admits, which counts as used from here on; `None` if it admits nobody
    /// with a weight above 0. `load` says what a server has to do now.
    #[inline]
    pub fn pick(
        &mut self,
        eligible: impl FnMut(usize) -> bool,
        load: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        let place = self.next(eligible, load)?;
        self.picks += 1;
        self.servers[place].used = self.picks;
        self.rank(place);
        Some(place)
    }

    /// Who would be picked.
    #[inline]
    pub fn next(
        &mut self,
        mut eligible: impl FnMut(usize) -> bool,
        load: impl Fn(usize) -> u64,
    ) -> Option<usize> {
        self.suspect = if self.suspect + 1 < self.servers.len() { self.suspect + 1 } else { 0 };
        if self.suspect < self.servers.len() {
            self.set_load(self.suspect, load(self.suspect));
        }
        loop {
            let place = self.order.least(&mut eligible)?;
            if !self.set_load(place, load(place)) {
                return Some(place);
            }
        }
    }

    /// Notes what a server has to do now: whether that is news.
    #[inline]
    pub fn set_load(&mut self, place: usize, load: u64) -> bool {
        let load = load.min(MOST);
        let news = self.servers[place].load != load;
        if news {
            self.servers[place].load = load;
            self.rank(place);
        }
        news
    }

    /// Gives a server another weight; 0 gives it nothing any more.
    pub fn set_weight(&mut self, place: usize, weight: u16) {
        self.servers[place].weight = weight;
        self.rank(place);
    }

    /// The load that a server is full with, for [`Rule::First`].
    pub fn set_limit(&mut self, place: usize, limit: u64) {
        self.servers[place].limit = limit;
        self.rank(place);
    }

    /// Takes in that an answer took a server so long, microseconds, for [`Rule::LeastTime`]. `now_ms` goes on steadily from
    /// any beginning.
    pub fn answered(&mut self, place: usize, micros: u64, now_ms: u64) {
        let server = &mut self.servers[place];
        let mean = match server.time {
            None => micros,
            Some(Time { micros: mean, at_ms }) => {
                // The weight of what is new: at least an eighth, a half after one half-life of silence.
                let silence = now_ms.saturating_sub(at_ms).min(8 * HALF_LIFE_MS);
                let new = (silence * 512 / HALF_LIFE_MS).clamp(128, 1024);
                (mean * (1024 - new) + micros.min(1 << 40) * new) / 1024
            }
        };
        server.time = Some(Time { micros: mean, at_ms: now_ms });
        let now = Self::decaying(mean, now_ms);
        self.typical = if self.typical == 0 { now } else { (self.typical * 7 + now) / 8 };
        self.rank(place);
    }

    /// The logarithm of a time that halves from now on, on a scale that does not change with the time: all decay
    /// alike, so their order stays.
    fn decaying(micros: u64, at_ms: u64) -> u64 {
        log2(micros.saturating_add(1)) + at_ms * UNIT / HALF_LIFE_MS
    }

    /// Puts a server where it belongs.
    fn rank(&mut self, place: usize) {
        let server = self.servers[place];
        let tie = place as u64;
        let delay = ((server.load + 1) << 30).checked_div(u64::from(server.weight));
        let (key, tie) = match (self.rule, delay) {
            (_, None) => return self.order.set(place, NEVER),
            (Rule::LeastConn, _) => ((server.load << 30) / u64::from(server.weight), server.used),
            (Rule::Nq, _) if server.load == 0 => (0, tie),
            (Rule::Sed | Rule::Nq, Some(delay)) => (delay, tie),
            (Rule::First, _) => (u64::from(server.load >= server.limit), tie),
            (Rule::LeastTime, _) => {
                let time = server.time.map_or(self.typical, |time| Self::decaying(time.micros, time.at_ms));
                let weight = log2(u64::from(server.weight));
                (time + log2(server.load + 1) + log2(1 << 16) - weight, tie)
            }
        };
        self.order.set(place, u128::from(key) << 64 | u128::from(tie));
    }
}

/// [`UNIT`] times the logarithm to base 2, within a hundredth of a doubling: the fraction by a parabola through both
/// ends and the middle.
fn log2(number: u64) -> u64 {
    let whole = u64::from(number.max(1).ilog2());
    let fraction = (((u128::from(number.max(1)) << 16) >> whole) as u64) - UNIT;
    whole * UNIT + fraction + (fraction * (UNIT - fraction) / UNIT) * 22_272 / UNIT
}
