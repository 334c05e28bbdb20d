//! What the tables have in common: weights without their common factor.

use alloc::vec::Vec;

/// The weights divided by their greatest common divisor: the shortest list of turns with the same proportions.
pub(crate) fn reduced(weights: &[u16]) -> Vec<u16> {
    let divisor = divisor(weights).max(1);
    weights.iter().map(|weight| weight / divisor).collect()
}

/// The greatest common divisor of all; 0 where all are 0.
pub(crate) fn divisor(weights: &[u16]) -> u16 {
    weights.iter().fold(0, |a, &b| gcd(a, b))
}

fn gcd(a: u16, b: u16) -> u16 {
    if b == 0 { a } else { gcd(b, a % b) }
}
