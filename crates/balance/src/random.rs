//! Random choice, the best of several (Mitzenmacher: *The Power of Two Choices in Randomized Load Balancing*, 2001;
//! HAProxy's `random`): no order to keep, so nothing that many workers would have to agree on.

use alloc::vec::Vec;

use relais_base::Rng;

use crate::{Slots, map};

/// Draws for each server that is wanted; more, and all servers are looked at.
const TRIES: u32 = 16;

/// Draws servers by weight, and takes the least loaded of those drawn.
#[derive(Clone, Debug)]
pub struct Random {
    slots: Slots,
    weights: Vec<u16>,
    draws: u32,
}

impl Random {
    /// For servers with these weights, `draws` of which are compared: at least 1. At most 65,536 servers.
    pub fn new(weights: &[u16], draws: u32) -> Random {
        Random { slots: map(weights), weights: weights.into(), draws: draws.max(1) }
    }

    /// The least loaded, for its weight, of the eligible servers that are drawn; of equals the first drawn. `load` says how
    /// many requests a server has, and which percentage of its weight now. A draw that `eligible` does not admit is repeated. `None` if it admits nobody.
    #[inline]
    pub fn pick(
        &self,
        rng: &mut Rng,
        mut eligible: impl FnMut(usize) -> bool,
        load: impl Fn(usize) -> (u32, u8),
    ) -> Option<usize> {
        let mut best: Option<(usize, u64, u64)> = None;
        let (mut drawn, mut tries) = (0, self.draws.saturating_mul(TRIES));
        while drawn < self.draws && tries > 0 {
            tries -= 1;
            let place = self.slots.draw(rng.next_u64())?;
            let (active, percent) = load(place);
            if !rng.chance(percent.into(), 100) || !eligible(place) {
                continue;
            }
            drawn += 1;
            let (active, weight) = (u64::from(active), u64::from(self.weights[place]));
            if best.is_none_or(|(_, least, its)| active * its < least * weight) {
                best = Some((place, active, weight));
            }
        }
        match best {
            Some((place, _, _)) => Some(place),
            None => self.slots.pick(rng.next_u64(), eligible),
        }
    }
}
