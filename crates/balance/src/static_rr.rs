//! Static round robin: a rotation that is worked out once and never changes (HAProxy's `static-rr`).
//!
//! The order is that of [`RoundRobin`], frozen: one place in a list a turn, so a pick costs the same however
//! many servers there are, and a weight that changes while it runs changes nothing. A server that may not be
//! picked is passed over; the others keep their proportions, as each has its own places.

use alloc::vec::Vec;

use crate::RoundRobin;
use crate::weights::reduced;

/// Deals requests in a fixed rotation.
#[derive(Clone, Debug)]
pub struct StaticRr {
    rotation: Vec<u16>,
    next: usize,
}

impl StaticRr {
    /// The rotation of servers with these weights; at most 65,536 of them.
    pub fn new(weights: &[u16]) -> StaticRr {
        let weights = reduced(weights);
        let length = weights.iter().map(|&weight| usize::from(weight)).sum();
        let mut turns = RoundRobin::new(weights);
        let rotation = (0..length).filter_map(|_| turns.pick(|_| true)).map(|place| place as u16).collect();
        StaticRr { rotation, next: 0 }
    }

    pub(crate) fn into_rotation(self) -> Vec<u16> {
        self.rotation
    }

    /// Goes on from `part` of `parts` of the rotation, so that several pickers are out of step.
    pub fn skip(&mut self, part: usize, parts: usize) {
        self.next = self.rotation.len() * part / parts.max(1);
    }

    /// The next server in the rotation that `eligible` admits; `None` if it admits nobody with a weight above 0.
    #[inline]
    pub fn pick(&mut self, mut eligible: impl FnMut(usize) -> bool) -> Option<usize> {
        for _ in 0..self.rotation.len() {
            let place = usize::from(self.rotation[self.next]);
            self.next = if self.next + 1 == self.rotation.len() { 0 } else { self.next + 1 };
            if eligible(place) {
                return Some(place);
            }
        }
        None
    }
}
