#![no_std]
#![forbid(unsafe_code)]
//! Who gets the next request: the algorithms, and what a health check's answers mean.
//!
//! Pure decisions: no clock, no socket, no thread. The proxy owns pickers, some one a worker and some one for all of them, and
//! asks for every request; the one that runs the checks owns one [`Health`] a server. Connections,
//! queues and retries are the caller's: it says through `eligible` who may be chosen at all.
//!
//! | goes by | algorithms |
//! | --- | --- |
//! | turns | [`RoundRobin`], [`Wrr`], [`StaticRr`] |
//! | load | [`Ranking`]: least connections, shortest expected delay, never queue, first, least time; [`Random`] |
//! | a key's hash | [`Ring`], [`map()`], [`maglev()`], all of them bounded by [`has_share`] if one likes |
//! | both | [`Locality`] |
//!
//! Clients that are to stay with a server are in a table: [`stick`]. Where more come than all servers together can serve, [`shield`] says who is let in.

extern crate alloc;

mod bounded;
mod breaker;
mod budget;
mod hash;
mod health;
pub mod key;
mod locality;
mod maglev;
mod map;
pub mod outlier;
mod portion;
mod random;
mod ranking;
mod ring;
mod round_robin;
pub mod shield;
mod slots;
mod static_rr;
pub mod stick;
mod tree;
mod turns;
mod weights;
mod wrr;

pub use bounded::has_share;
pub use breaker::{Breaker, BreakerRule, Turn};
pub use budget::Budget;
pub use hash::hash;
pub use health::Health;
pub use locality::{Load, Locality};
pub use maglev::{maglev, maglev_table};
pub use map::map;
pub use portion::portion;
pub use random::Random;
pub use ranking::{Ranking, Rule};
pub use ring::Ring;
pub use round_robin::RoundRobin;
pub use slots::Slots;
pub use static_rr::StaticRr;
pub use turns::{Heard, Turns};
pub use wrr::Wrr;
