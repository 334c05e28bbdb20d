//! A lossy link layer: who hears whom, when, and how often.

use std::time::Duration;

use relais_base::Rng;

/// A link's faults. Losses in a row are bounded: without a bound no protocol could promise anything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Quality {
    /// Packets lost of 100.
    pub(crate) loss_percent: u64,
    /// Most packets lost in a row from one node to another.
    pub(crate) losses_in_a_row: u32,
    /// Longest delay; each packet draws its own, so that later ones overtake earlier ones.
    pub(crate) max_delay: Duration,
    /// Packets that arrive twice, of 100.
    pub(crate) duplicate_percent: u64,
}

/// Directed paths between `n` nodes and to one client, which is number `n`.
#[derive(Debug)]
pub(crate) struct Network {
    size: usize,
    pub(crate) quality: Quality,
    blocked: Vec<bool>,
    lost_in_a_row: Vec<u32>,
}

impl Network {
    pub(crate) fn new(nodes: usize, quality: Quality) -> Network {
        let size = nodes + 1;
        Network { size, quality, blocked: vec![false; size * size], lost_in_a_row: vec![0; size * size] }
    }

    /// Cuts or mends one direction.
    pub(crate) fn set_blocked(&mut self, from: usize, to: usize, blocked: bool) {
        self.blocked[from * self.size + to] = blocked;
    }

    pub(crate) fn mend_all(&mut self) {
        self.blocked.fill(false);
    }

    pub(crate) fn is_open(&self, from: usize, to: usize) -> bool {
        !self.blocked[from * self.size + to]
    }

    /// After which delays a packet arrives: none, one or two.
    pub(crate) fn carry(&mut self, from: usize, to: usize, rng: &mut Rng) -> Vec<Duration> {
        let path = from * self.size + to;
        let Quality { loss_percent, losses_in_a_row, max_delay, duplicate_percent } = self.quality;
        if self.blocked[path] {
            return Vec::new();
        }
        if self.lost_in_a_row[path] < losses_in_a_row && rng.chance(loss_percent, 100) {
            self.lost_in_a_row[path] += 1;
            return Vec::new();
        }
        self.lost_in_a_row[path] = 0;
        let mut delay = || Duration::from_nanos(rng.below(max_delay.as_nanos() as u64 + 1));
        let first = delay();
        let second = delay();
        if rng.chance(duplicate_percent, 100) { vec![first, second] } else { vec![first] }
    }
}
