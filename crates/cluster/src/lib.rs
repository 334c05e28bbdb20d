#![no_std]
#![forbid(unsafe_code)]
//! Who is there: heartbeats between all nodes of a platform, over every link, all the time.
//!
//! Pure: no clock, no socket, no key. A driver, which is `relais-vip` in production and `relais-sim` in tests, feeds
//! [`Members`] what happened ([`Input`]) and carries out what it decides ([`Output`]), by the same five verbs as
//! `relais-vrrp`. It answers two questions before anybody asks them:
//!
//! - *Does somebody hear the holder of an address that I do not hear?* Then the link between us is cut, and the holder
//!   is not dead ([`Output::Witnessed`]).
//! - *Am I the one that is cut off?* Then others will take what I hold ([`Output::Cut`]).
//!
//! Beside that, [`peers`]: how balancers tell each other which server a client stays with.
//!
//! It elects nobody: that is `relais-vrrp`'s. The datagram is in [`wire`]; states and bounds are in
//! `crates/vip/LIFECYCLE.md`.

extern crate alloc;

mod events;
mod members;
pub mod peers;
pub mod wire;

pub use events::{Config, Input, Output, Path, PathReport, Peer};
pub use members::Members;
pub use wire::{Heard, Heartbeat, Held};
