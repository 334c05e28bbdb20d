#![no_std]
#![forbid(unsafe_code)]
//! Who gets the next request: the algorithms, and what a health check's answers mean.
//!
//! Pure decisions: no clock, no socket, no thread. A worker of the proxy owns one picker a backend and
//! asks it for every request; the one that runs the checks owns one [`Health`] a server. Connections,
//! queues and retries are the caller's: it says through `eligible` who may be chosen at all.

extern crate alloc;

mod health;
mod round_robin;

pub use health::Health;
pub use round_robin::RoundRobin;
