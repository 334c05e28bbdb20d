//! Weighted round robin as IPVS deals it (`ip_vs_wrr.c`): heavier servers first, and more often.
//!
//! A round goes from the greatest weight down to nothing, by the greatest common divisor of all; each step of it is a pass over all
//! servers of at least this weight, in their order. Weights 4, 2, 1 are dealt as `a a a b a b c`, where [`RoundRobin`](crate::RoundRobin)
//! deals `a b a a b a c`.

use alloc::vec::Vec;

use crate::weights::divisor;

/// Deals requests to servers by weight, the heaviest first.
///
/// ```
/// let mut turns = relais_balance::Wrr::new([4, 2, 1]);
/// let first_seven: Vec<_> = (0..7).filter_map(|_| turns.pick(|_| true)).collect();
/// assert_eq!(first_seven, [0, 0, 0, 1, 0, 1, 2]);
/// ```
#[derive(Clone, Debug)]
pub struct Wrr {
    weights: Vec<u16>,
    /// By how much the level falls from pass to pass.
    step: u16,
    /// Who has less is not in this pass; 0: nobody has any weight.
    level: u16,
    /// Who is, in order; the same for all levels above `floor`.
    pass: Vec<u16>,
    /// The greatest weight of those who are not.
    floor: u16,
    /// Where the pass is.
    at: usize,
}

impl Wrr {
    /// A picker for servers with these weights, at most 65,536, known from here on by their places, from 0.
    pub fn new(weights: impl IntoIterator<Item = u16>) -> Wrr {
        let weights = weights.into_iter().collect();
        let mut turns = Wrr { weights, step: 1, level: 0, pass: Vec::new(), floor: 0, at: 0 };
        turns.begin(u16::MAX);
        turns
    }

    /// The server whose turn it is among those that `eligible` admits; `None` if it admits nobody with a weight above 0.
    ///
    /// `eligible` is asked at most three times for a server.
    #[inline]
    pub fn pick(&mut self, mut eligible: impl FnMut(usize) -> bool) -> Option<usize> {
        for pass in 0..2 {
            while let Some(&place) = self.pass.get(self.at) {
                self.at += 1;
                if eligible(place.into()) {
                    return Some(place.into());
                }
            }
            if pass == 0 {
                self.descend();
            }
        }
        // Nobody of a whole pass may: on to the greatest weight below it that somebody has who may.
        let below = self.weights.iter().enumerate().filter(|(_, weight)| (1..self.level).contains(*weight));
        let level = below.filter(|(place, _)| eligible(*place)).map(|(_, weight)| *weight).max()?;
        self.enter(level);
        while let Some(&place) = self.pass.get(self.at) {
            self.at += 1;
            if eligible(place.into()) {
                return Some(place.into());
            }
        }
        None
    }

    /// Gives up `part` of `parts` of one round, so that several pickers of the same servers are out of step.
    pub fn skip(&mut self, part: usize, parts: usize) {
        for _ in 0..self.weights.len() * part / parts.max(1) {
            self.pick(|_| true);
        }
    }

    /// Gives the server at `place` another weight; the pass begins anew.
    ///
    /// # Panics
    /// If there is no server at `place`.
    pub fn set_weight(&mut self, place: usize, weight: u16) {
        self.weights[place] = weight;
        self.begin(self.level.max(1));
    }

    /// The weight of the server at `place`.
    ///
    /// # Panics
    /// If there is no server at `place`.
    pub fn weight(&self, place: usize) -> u16 {
        self.weights[place]
    }

    /// Goes on at this level or, where nobody has as much, at the greatest.
    fn begin(&mut self, level: u16) {
        self.step = divisor(&self.weights).max(1);
        let greatest = self.weights.iter().copied().max().unwrap_or(0);
        self.enter(level.min(greatest).next_multiple_of(self.step).min(greatest));
    }

    /// The next pass.
    fn descend(&mut self) {
        let level = self.level.saturating_sub(self.step);
        if level == 0 {
            self.begin(u16::MAX);
        } else if level > self.floor {
            (self.level, self.at) = (level, 0);
        } else {
            self.enter(level);
        }
    }

    /// Begins the pass of a level.
    fn enter(&mut self, level: u16) {
        (self.level, self.at) = (level, 0);
        self.pass.clear();
        self.floor = 0;
        for (place, &weight) in self.weights.iter().enumerate() {
            if weight >= level.max(1) {
                self.pass.push(place as u16);
            } else {
                self.floor = self.floor.max(weight);
            }
        }
    }
}
