#![no_std]
#![forbid(unsafe_code)]
//! What every core shares: virtual time and seeded randomness.
//!
//! The cores (`http`, `balance`, `vrrp`, ...) are pure: they never read a clock, a socket or a source
//! of entropy. They are handed a [`Time`] by whoever drives them, the shells in production and the
//! simulator in tests, and take their randomness from a [`Rng`] with a seed. Nothing here allocates.

mod rng;
mod time;

pub use rng::Rng;
pub use time::Time;
