//! Smooth weighted round robin.
//!
//! Every server has turns at even distances on a line of virtual time, as many in one [`PERIOD`] as its
//! weight, and the earliest turn is next: HAProxy's algorithm (`lb_fwrr.c`), without its tree. At the start the
//! turns of all are spread over the line, so that equals alternate and 5, 1, 1 is dealt as `a a a b a a c`
//! where naive round robin bursts `a a a a a b c`.
//!
//! A turn lies where a server's own weight puts it, whoever else is there: when one goes, the others' proportions
//! hold from the next request on. (nginx's variant counts in shares of the total; when a heavy server
//! dies, its debts in the old total let a light one wait for many times its share.)
//!
//! One way through a tree a pick, and no allocation. Called by a worker of the proxy for each request of an HTTP
//! backend and each connection of a TCP one; every worker has a picker of its own, which starts at another
//! point of the rotation ([`RoundRobin::skip`]): what all of them deal together has the weights' proportions, as what each deals has.

use alloc::vec::Vec;

use crate::tree::Tree;

/// Virtual time in which every server has as many turns as its weight.
const PERIOD: u64 = 1 << 32;

/// Deals requests to servers by weight, evenly spread over time.
///
/// ```
/// let mut turns = relais_balance::RoundRobin::new([5, 1, 1]);
/// let first_seven: Vec<_> = (0..7).filter_map(|_| turns.pick(|_| true)).collect();
/// assert_eq!(first_seven, [0, 0, 0, 1, 0, 0, 2]);
/// ```
#[derive(Clone, Debug)]
pub struct RoundRobin {
    /// Virtual time: that of the last turn taken.
    now: u64,
    /// When each server's next turn is; in the past if it was not eligible then, and is taken for `now`.
    due: Tree<u64>,
    weights: Vec<u16>,
}

/// The turn of a server of weight 0.
const NEVER: u64 = u64::MAX;

impl RoundRobin {
    /// A picker for servers with these weights, known from here on by their places, from 0.
    pub fn new(weights: impl IntoIterator<Item = u16>) -> RoundRobin {
        let weights: Vec<u16> = weights.into_iter().collect();
        let count = weights.len() as u64;
        let due = weights.iter().enumerate().map(|(place, &weight)| match weight {
            0 => NEVER,
            _ => PERIOD * (2 * place as u64 + 1) / (2 * count * u64::from(weight)),
        });
        RoundRobin { now: 0, due: Tree::new(due, NEVER), weights }
    }

    /// The server whose turn it is among those that `eligible` admits; `None` if it admits nobody with a
    /// weight above 0.
    ///
    /// `eligible` is asked at most once for a server, and never for one that has weight 0 or whose turn is later than
    /// that of another already admitted. Who is not eligible loses the turns that it misses: it comes
    /// back without a burst.
    #[inline]
    pub fn pick(&mut self, eligible: impl FnMut(usize) -> bool) -> Option<usize> {
        let place = self.due.least(eligible)?;
        self.now = self.due.key(place).max(self.now);
        let share = PERIOD / u64::from(self.weights[place]); // rounding costs less than 1 turn in 10,000
        self.due.set(place, self.now + share);
        if self.now >= u64::MAX / 2 {
            self.turn_back();
        }
        debug_assert_eq!(self.check_invariants(), Ok(()));
        Some(place)
    }

    /// Gives up `part` of `parts` of one round, so that several pickers of the same servers are out of step.
    pub fn skip(&mut self, part: usize, parts: usize) {
        for _ in 0..self.len() * part / parts.max(1) {
            self.pick(|_| true);
        }
    }

    /// Moves the origin of virtual time, once in 2^31 periods.
    #[cold]
    fn turn_back(&mut self) {
        for place in 0..self.weights.len() {
            let due = self.due.key(place);
            if due != NEVER {
                self.due.set(place, due.saturating_sub(self.now));
            }
        }
        self.now = 0;
    }

    /// Gives the server at `place` another weight from the next pick on; 0 gives it nothing any more.
    ///
    /// It has waited for as large a part of its next share as it has of this one; the others do not notice.
    ///
    /// # Panics
    /// If there is no server at `place`.
    pub fn set_weight(&mut self, place: usize, weight: u16) {
        let old = u64::from(self.weights[place]);
        let due = match PERIOD.checked_div(u64::from(weight)) {
            Some(share) if old > 0 => {
                let wait = self.due.key(place).saturating_sub(self.now); // at most PERIOD / old
                self.now + (wait * old / u64::from(weight)).min(share)
            }
            Some(share) => self.now + share,
            None => NEVER,
        };
        self.due.set(place, due);
        self.weights[place] = weight;
        debug_assert_eq!(self.check_invariants(), Ok(()));
    }

    /// The weight of the server at `place`.
    ///
    /// # Panics
    /// If there is no server at `place`.
    pub fn weight(&self, place: usize) -> u16 {
        self.weights[place]
    }

    /// How many servers there are, those of weight 0 included.
    pub fn len(&self) -> usize {
        self.weights.len()
    }

    /// Whether there is no server at all.
    pub fn is_empty(&self) -> bool {
        self.weights.is_empty()
    }

    /// Says what is broken, if anything is.
    ///
    /// # Errors
    /// The invariant that does not hold.
    pub fn check_invariants(&self) -> Result<(), &'static str> {
        for (place, &weight) in self.weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
            if self.due.key(place) > self.now + PERIOD / u64::from(weight) {
                return Err("a server waits for longer than its share");
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    fn deal(turns: &mut RoundRobin, count: usize) -> Vec<usize> {
        (0..count).map(|_| turns.pick(|_| true).unwrap()).collect()
    }

    fn counts(picks: &[usize], servers: usize) -> Vec<usize> {
        (0..servers).map(|s| picks.iter().filter(|&&p| p == s).count()).collect()
    }

    fn total(weights: &[u16]) -> usize {
        weights.iter().map(|&w| usize::from(w)).sum()
    }

    fn weights() -> impl Strategy<Value = Vec<u16>> {
        prop::collection::vec(prop_oneof![Just(0), Just(1), 0u16..=16, 0u16..=256], 1..12)
            .prop_filter("somebody must be able to serve", |w| total(w) > 0)
    }

    #[test]
    fn light_servers_come_between_the_turns_of_heavy_ones() {
        assert_eq!(deal(&mut RoundRobin::new([5, 1, 1]), 7), [0, 0, 0, 1, 0, 0, 2]);
        assert_eq!(deal(&mut RoundRobin::new([4, 2, 1]), 7), [0, 1, 0, 0, 1, 0, 2]);
    }

    #[test]
    fn nobody_is_picked_from_nobody() {
        assert_eq!(RoundRobin::new([]).pick(|_| true), None);
        assert_eq!(RoundRobin::new([0, 0]).pick(|_| true), None);
        assert_eq!(RoundRobin::new([1, 2]).pick(|_| false), None);
    }

    #[test]
    fn a_server_of_weight_zero_is_not_even_asked_for() {
        let mut turns = RoundRobin::new([0, 3]);
        let picked = turns.pick(|place| {
            assert_ne!(place, 0);
            true
        });
        assert_eq!(picked, Some(1));
    }

    #[test]
    fn a_changed_weight_counts_from_the_next_pick() {
        let mut turns = RoundRobin::new([256, 1]);
        deal(&mut turns, 100);
        turns.set_weight(0, 1);
        assert_eq!(counts(&deal(&mut turns, 10), 2), [5, 5]);
        turns.set_weight(1, 0);
        assert_eq!(counts(&deal(&mut turns, 10), 2), [10, 0]);
        assert_eq!(turns.weight(1), 0);
        turns.set_weight(1, 3);
        assert_eq!(counts(&deal(&mut turns, 8), 2), [2, 6]);
    }

    #[test]
    fn a_server_that_gets_heavier_has_waited_for_part_of_its_new_share_already() {
        let mut turns = RoundRobin::new([2, 100]); // its first turn is an eighth of the period away
        turns.set_weight(0, 4);
        assert_eq!(deal(&mut turns, 30).iter().position(|&place| place == 0), Some(6));
    }

    #[test]
    fn virtual_time_does_not_run_out() {
        let mut turns = RoundRobin::new([2, 3, 1]);
        let offset = u64::MAX / 2 - 3 * PERIOD;
        turns.now += offset;
        (0..3).for_each(|place| turns.due.set(place, turns.due.key(place) + offset));
        assert_eq!(deal(&mut turns, 60), deal(&mut RoundRobin::new([2, 3, 1]), 60));
        assert!(turns.now < 10 * PERIOD);
    }

    #[test]
    fn the_largest_backend_of_the_heaviest_servers_does_not_overflow() {
        let mut turns = RoundRobin::new(vec![u16::MAX; 4095]);
        assert_eq!(deal(&mut turns, 4095 * 2), (0..4095).chain(0..4095).collect::<Vec<_>>());
    }

    proptest! {
        #[test]
        fn each_period_gives_every_server_exactly_its_weight(weights in weights(), periods in 1usize..4) {
            let mut turns = RoundRobin::new(weights.clone());
            for _ in 0..periods {
                let got = counts(&deal(&mut turns, total(&weights)), weights.len());
                prop_assert_eq!(got, weights.iter().map(|&w| usize::from(w)).collect::<Vec<_>>());
            }
        }

        #[test]
        fn equals_take_turns(servers in 1usize..20, weight in 1u16..300, rounds in 1usize..5) {
            let picks = deal(&mut RoundRobin::new(vec![weight; servers]), servers * rounds);
            for round in picks.chunks(servers) {
                prop_assert_eq!(round, (0..servers).collect::<Vec<_>>());
            }
        }

        // For any two: between two turns of one, the other has its weight in proportion and at most one more.
        #[test]
        fn no_burst_is_longer_than_the_weights_require(weights in weights()) {
            let picks = deal(&mut RoundRobin::new(weights.clone()), total(&weights) * 2);
            for (one, &light) in weights.iter().enumerate().filter(|(_, weight)| **weight > 0) {
                let mut between: Vec<_> = picks.split(|&p| p == one).collect();
                between.pop(); // cut off by the end, as the first is by the beginning
                for (other, &heavy) in weights.iter().enumerate().filter(|(other, _)| *other != one) {
                    for run in &between {
                        let turns = run.iter().filter(|&&p| p == other).count();
                        prop_assert!(turns <= usize::from(heavy / light) + 1);
                    }
                }
            }
        }

        #[test]
        fn a_gap_leaves_the_proportions_of_the_others(
            weights in weights(), gone in any::<prop::sample::Index>(), before in 0usize..600,
        ) {
            let gone = gone.index(weights.len());
            let rest = total(&weights) - usize::from(weights[gone]);
            prop_assume!(rest > 0);
            let mut turns = RoundRobin::new(weights.clone());
            deal(&mut turns, before);
            for _period in 0..3 {
                let picks: Vec<_> = (0..rest).map(|_| turns.pick(|p| p != gone).unwrap()).collect();
                for (server, turns) in counts(&picks, weights.len()).into_iter().enumerate() {
                    let wanted = if server == gone { 0 } else { usize::from(weights[server]) };
                    // Shares are whole numbers: where two turns nearly meet, one falls into the next period.
                    prop_assert!(turns.abs_diff(wanted) <= usize::from(server != gone), "{turns} turns for {wanted}");
                }
            }
        }

        // Whatever comes and goes, nobody starves and nobody is repaid in a burst.
        #[test]
        fn servers_that_come_and_go_disturb_nobody(
            weights in weights(), masks in prop::collection::vec((any::<u16>(), 1usize..50), 1..20),
        ) {
            let mut turns = RoundRobin::new(weights.clone());
            for (mask, count) in masks {
                for _ in 0..count {
                    let picked = turns.pick(|p| mask & (1 << p) != 0);
                    let may = |p: usize| weights[p] > 0 && mask & (1 << p) != 0;
                    prop_assert_eq!(picked.is_some(), (0..weights.len()).any(may));
                    prop_assert!(picked.is_none_or(may));
                    prop_assert_eq!(turns.check_invariants(), Ok(()));
                }
            }
            let got = counts(&deal(&mut turns, total(&weights)), weights.len());
            for (turns, &weight) in got.into_iter().zip(&weights) {
                prop_assert!(turns.abs_diff(usize::from(weight)) <= 1, "{} turns for weight {}", turns, weight);
            }
        }

        #[test]
        fn a_weight_that_ramps_up_leaves_the_others_their_order(others in 2usize..6, ramp in 1u16..100) {
            let mut turns = RoundRobin::new(core::iter::repeat_n(100, others).chain([0]));
            let mut order = Vec::new();
            for weight in 1..=ramp {
                turns.set_weight(others, weight);
                order.extend(deal(&mut turns, 10).into_iter().filter(|&p| p != others));
                prop_assert_eq!(turns.check_invariants(), Ok(()));
            }
            let expected: Vec<_> = (0..others).cycle().take(order.len()).collect();
            prop_assert_eq!(order, expected);
        }
    }
}
