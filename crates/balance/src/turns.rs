//! Whose turn it is, where several balancers check the same server and tell each other what they find.
//!
//! Each checks once in as many intervals as there are of them, one after the other, so that the server is asked once an
//! interval and each of them still sees it with its own eyes. Who finds something else than before has the others look at once. Nobody has to
//! agree with anybody: a balancer that hears no others is one that checks alone.

use alloc::boxed::Box;
use alloc::vec::Vec;

/// Those that check the same server.
#[derive(Clone, Debug)]
pub struct Turns {
    us: Box<str>,
    /// When we looked last.
    looked_ms: u64,
    others: Vec<Other>,
}

#[derive(Clone, Debug)]
struct Other {
    name: Box<str>,
    looked_ms: u64,
    well: bool,
}

/// What follows from what another has found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// It has changed: look at once.
    Change,
    /// It is well: our turn may be another.
    Turn,
    /// It is ill as it was, and everybody looks as often as he does; or we are new to each other.
    Nothing,
}

impl Turns {
    /// Nobody else is known yet; `us` is the name that others know us by.
    pub fn new(us: &str) -> Turns {
        Turns { us: us.into(), looked_ms: 0, others: Vec::new() }
    }

    /// We have checked the server, and told the others.
    pub fn looked(&mut self, now_ms: u64) {
        self.looked_ms = now_ms;
    }

    /// Another has checked it.
    pub fn heard(&mut self, name: &str, well: bool, now_ms: u64) -> Heard {
        let Some(other) = self.others.iter_mut().find(|other| *other.name == *name) else {
            self.others.push(Other { name: name.into(), looked_ms: now_ms, well });
            // It may not have heard of us yet, and would not wait for us.
            return if well { Heard::Nothing } else { Heard::Change };
        };
        other.looked_ms = now_ms;
        match (core::mem::replace(&mut other.well, well) == well, well) {
            (false, _) => Heard::Change,
            (true, true) => Heard::Turn,
            (true, false) => Heard::Nothing,
        }
    }

    /// Another is gone.
    pub fn gone(&mut self, name: &str) {
        self.others.retain(|other| *other.name != *name);
    }

    /// When it is our turn: whoever looked longest ago is the next, an interval after the last look of all. Of those that looked at
    /// the same time the one whose name comes first. Who was not heard for three rounds has no turn.
    pub fn next_ms(&mut self, now_ms: u64, every_ms: u64) -> u64 {
        let round = every_ms * (self.others.len() as u64 + 1);
        self.others.retain(|other| now_ms.saturating_sub(other.looked_ms) <= 3 * round);
        let is_before = |other: &&Other| match other.looked_ms.abs_diff(self.looked_ms) <= every_ms / 2 {
            true => *other.name < *self.us,
            false => other.looked_ms < self.looked_ms,
        };
        let before = self.others.iter().filter(is_before).count() as u64;
        let last = self.others.iter().map(|other| other.looked_ms).fold(self.looked_ms, u64::max);
        last + every_ms * (before + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::vec;

    const EVERY: u64 = 1_000;

    /// Balancers with a server; when each of them looks next.
    struct World {
        now: u64,
        all: Vec<(Turns, u64)>,
        alive: Vec<bool>,
        looks: Vec<(u64, usize)>,
        /// What is on its way: when it arrives, and whose it is.
        words: Vec<(u64, usize, bool)>,
        delay: u64,
        well: bool,
    }

    impl World {
        fn new(starts: &[u64], delay: u64) -> World {
            let one = |(at, start): (usize, &u64)| (Turns::new(&format!("n{at}")), *start);
            let alive = vec![true; starts.len()];
            World {
                now: 0,
                all: starts.iter().enumerate().map(one).collect(),
                alive,
                looks: Vec::new(),
                words: Vec::new(),
                delay,
                well: true,
            }
        }

        fn until(&mut self, end: u64) {
            loop {
                let next = (0..self.all.len()).filter(|&at| self.alive[at]).min_by_key(|&at| self.all[at].1);
                let look = next.map_or(u64::MAX, |at| self.all[at].1);
                let heard = self.words.first().map_or(u64::MAX, |word| word.0);
                if heard.min(look) > end {
                    break;
                }
                self.now = self.now.max(heard.min(look));
                if heard <= look {
                    self.tell();
                    continue;
                }
                let Some(at) = next else { break };
                self.looks.push((self.now, at));
                let (now, well) = (self.now, self.well);
                let (turns, next) = &mut self.all[at];
                turns.looked(now);
                *next = if well { turns.next_ms(now, EVERY) } else { now + EVERY };
                self.words.push((now + self.delay, at, well));
            }
            self.now = end;
        }

        /// The others hear what was said first.
        fn tell(&mut self) {
            let (now, from, well) = (self.now, self.words.remove(0).1, self.well);
            let name = format!("n{from}");
            for (_, (turns, next)) in self.all.iter_mut().enumerate().filter(|(other, _)| *other != from) {
                match turns.heard(&name, well, now) {
                    Heard::Change => *next = now,
                    Heard::Turn => *next = turns.next_ms(now, EVERY),
                    Heard::Nothing => {}
                }
            }
        }

        /// Looks since then, by each.
        fn since(&self, begin: u64) -> Vec<usize> {
            let by = |at| self.looks.iter().filter(|look| look.0 > begin && look.1 == at).count();
            (0..self.all.len()).map(by).collect()
        }
    }

    #[test]
    fn each_looks_in_turn_and_all_together_once_an_interval() {
        for starts in [&[0u64, 500][..], &[0, 0], &[0, 3], &[0, 10, 20], &[0, 0, 0], &[0, 0, 0, 999]] {
            for delay in [0, 1, 20, 100] {
                let mut world = World::new(starts, delay);
                world.until(20_000);
                let n = starts.len();
                world.until(20_000 + 12_000);
                let each = world.since(20_000);
                // What is on its way is waited for, so a round is a little longer.
                assert!(
                    each.iter().all(|looks| (12 / n - 2..=12 / n).contains(looks)),
                    "{starts:?} {delay}: {each:?}"
                );
                let times: Vec<u64> =
                    world.looks.iter().map(|look| look.0).filter(|at| *at > 20_000).collect();
                let apart = |pair: &[u64]| (EVERY..=EVERY + delay).contains(&(pair[1] - pair[0]));
                assert!(times.windows(2).all(apart), "{starts:?} {delay}: {times:?}");
            }
        }
    }

    #[test]
    fn what_one_finds_all_see_at_once_and_who_dies_is_missed_by_nobody() {
        let mut world = World::new(&[0, 300], 1);
        world.until(10_500);
        world.well = false;
        let before = world.looks.len();
        world.until(12_000);
        let first = world.looks[before].0;
        assert!(first <= 10_500 + EVERY + 2);
        assert_eq!(world.looks[before + 1].0, first + 1, "the other looks as soon as it hears of it");
        world.until(20_000);
        world.well = true;
        world.until(30_000);
        world.alive[0] = false;
        world.until(40_000);
        world.until(50_000);
        assert_eq!(world.since(40_000), [0, 10], "it checks alone");
        let (turns, _) = &mut world.all[1];
        let alone = turns.next_ms(50_000, EVERY);
        turns.heard("n0", true, 50_000);
        assert!(turns.next_ms(50_000, EVERY) > alone, "it has turns again");
        turns.gone("n0");
        assert_eq!(turns.next_ms(50_000, EVERY), alone);
    }
}
