#![forbid(unsafe_code)]
//! How the processes of one node talk: the supervisor's [`channel`] to each child, the [`message`]s on
//! it, the read-only [`status`] documents, and the [`journal`] they all log to.
//!
//! A child's channel is its standard input: a `SOCK_SEQPACKET` Unix socket pair, so that messages keep
//! their borders, descriptors travel with them, and the death of either end is seen at once by the
//! other. Called by the supervisor, the three children, and the commands that ask a running node.

pub mod channel;
pub mod files;
pub mod journal;
pub mod message;
pub mod pulse;
pub mod signals;
pub mod status;
pub mod upgrade;
pub mod watchers;

pub use channel::Channel;
pub use message::{Endpoint, FrontendState, Order, Protocol, Report, Role, VipState};
