//! Consistent hashing (Karger et al. 1997; HAProxy's `consistent`): servers have points on a circle, and a key belongs to
//! the first point from its own hash on.
//!
//! Points are decided by a server's name and weight alone, so the order of the file does not matter, and a
//! server more or less moves only the keys between its points and those before them. A server that may not
//! be picked leaves its keys to the next ones on the circle, which its many points spread over all.

use alloc::vec;
use alloc::vec::Vec;
use core::sync::atomic::AtomicU16;
use core::sync::atomic::Ordering::Relaxed;

use crate::hash::{hash, mix};
use crate::weights::reduced;

/// Points for each unit of weight, once weights have no common factor: ketama's number.
const POINTS: usize = 160;
/// Points of all servers together; beyond, everybody has fewer.
const MOST: usize = 1 << 20;

/// Places keys on servers by a circle.
#[derive(Debug)]
pub struct Ring {
    points: Vec<Point>,
    /// First point of each equal part of the circle.
    parts: Vec<u32>,
    /// Hashes are cut to a part's number by this.
    shift: u32,
    /// Points that each server has now, and in full. Atomic, so that workers that share a ring need no lock.
    shares: Vec<(AtomicU16, u16)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u32,
    place: u16,
    /// Which of the server's points it is, from 0.
    number: u16,
}

impl Ring {
    /// The circle of servers with these names and weights: at most 65,536 of them.
    pub fn new(servers: &[(&str, u16)]) -> Ring {
        let weights = reduced(&servers.iter().map(|server| server.1).collect::<Vec<_>>());
        let total: usize = weights.iter().map(|&weight| POINTS * usize::from(weight)).sum();
        let share = |weight: u16| {
            let points = POINTS * usize::from(weight);
            let points = if total > MOST { points * MOST / total } else { points };
            if weight > 0 { points.clamp(1, usize::from(u16::MAX)) as u16 } else { 0 }
        };
        let shares: Vec<(AtomicU16, u16)> =
            weights.iter().map(|&weight| (share(weight).into(), share(weight))).collect();
        let mut points = Vec::new();
        for (place, (_, count)) in shares.iter().enumerate() {
            let name = hash(servers[place].0.as_bytes());
            points.extend((0..*count).map(|number| {
                let hash = (mix(name.wrapping_add(mix(u64::from(number) + 1))) >> 32) as u32;
                Point { hash, place: place as u16, number }
            }));
        }
        // Where two points meet the name decides, not the place in the file.
        points.sort_unstable_by_key(|point| (point.hash, servers[usize::from(point.place)].0, point.number));
        let bits = points.len().next_power_of_two().ilog2().clamp(1, 24);
        let shift = 32 - bits;
        let mut parts = vec![0u32; 1 << bits];
        let mut at = 0;
        for (part, first) in parts.iter_mut().enumerate() {
            while points.get(at).is_some_and(|point| ((point.hash >> shift) as usize) < part) {
                at += 1;
            }
            *first = at as u32;
        }
        Ring { points, parts, shift, shares }
    }

    /// Gives a server `part` of `parts` of its points: the first ones, so that growth only adds.
    pub fn set_share(&self, place: usize, part: u32, parts: u32) {
        let (now, full) = &self.shares[place];
        let share = u64::from(*full) * u64::from(part.min(parts)) / u64::from(parts.max(1));
        now.store(if part > 0 { (share as u16).max(1).min(*full) } else { 0 }, Relaxed);
    }

    /// The server of the first point from `hash` on that `eligible` admits; `None` if it admits nobody who has points.
    #[inline]
    pub fn pick(&self, hash: u64, mut eligible: impl FnMut(usize) -> bool) -> Option<usize> {
        let hash = (hash >> 32) as u32;
        let mut at = *self.parts.get((hash >> self.shift) as usize)? as usize;
        while self.points.get(at).is_some_and(|point| point.hash < hash) {
            at += 1;
        }
        let (before, after) = self.points.split_at(at);
        let mut refused = usize::MAX;
        for point in after.iter().chain(before) {
            let place = usize::from(point.place);
            if place == refused || point.number >= self.shares[place].0.load(Relaxed) {
                continue;
            }
            if eligible(place) {
                return Some(place);
            }
            refused = place;
        }
        None
    }
}
