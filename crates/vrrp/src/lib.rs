#![no_std]
#![forbid(unsafe_code)]
//! VRRP versions 2 and 3 (RFC 3768, RFC 9568) over IPv4 and IPv6: the packet and the virtual router's state machine.
//!
//! Pure: no clock, no socket, no thread. A driver, which is `relais-vip` in production and `relais-sim` in
//! tests, feeds a [`Router`] what happened ([`Input`]) and carries out what it decides ([`Output`]):
//!
//! ```text
//! handle(input, now)     something happened
//! handle_timeout(now)    the time that poll_timeout() named has come
//! poll_timeout()         when to call handle_timeout
//! poll_output()          what to do now, until None, in this order
//! check_invariants()     panics on a state that must not be (tests, simulator)
//! ```
//!
//! A driver that was away (stopped, starved, suspended) first hands over every packet that waits in its
//! sockets and only then calls `handle_timeout`: whoever advertised meanwhile is not mistaken for dead.
//!
//! States, timers and where this goes beyond the RFC: `crates/vip/LIFECYCLE.md`.

extern crate alloc;

mod ah;
mod events;
mod group;
mod packet;
mod router;
mod timers;

pub use ah::{AH_LEN, AH_PROTOCOL, Association};
pub use events::{Config, Counters, Health, Input, Link, Moved, Output, State, Track};
pub use group::{Group, Word};
pub use packet::{
    Advertisement, Authentication, Checksum, Form, GROUP, GROUP6, HEADER_LEN, HEADER6_LEN, HOP_LIMIT,
    MAX_ADDRESSES, PROTOCOL, Packet, Password, Refused, Version, encode, frame_to_group, parse,
};
pub use router::Router;
pub use timers::{ANNOUNCE_EVERY, LEASE, REFRESH_EVERY, master_down_interval, skew_time};
