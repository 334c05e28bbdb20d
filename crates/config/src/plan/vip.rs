//! Virtual addresses, and what they depend on.

use std::sync::Arc;
use std::time::Duration;

use super::{BackendId, Cidr, FrontendId, NodeId};

/// A virtual address and who may hold it (RFC 9568).
#[derive(Clone, Debug, PartialEq)]
pub struct Vip {
    /// Its name.
    pub name: Arc<str>,
    /// Its addresses with the lengths of their network prefixes: at least one, all of one family.
    pub addresses: Vec<Cidr>,
    /// Interface that carries them.
    pub interface: Arc<str>,
    /// VRID, 1 to 255: unique on the link.
    pub router_id: u8,
    /// Who may hold it and with which priority, 1 to 255, in the order of the file.
    pub nodes: Vec<(NodeId, u8)>,
    /// Version of VRRP, 2 or 3; 2 only with IPv4.
    pub version: u8,
    /// File with the password of version 2.
    pub password: Option<Arc<str>>,
    /// Whether it makes an authentication header instead of standing in the packet.
    pub sealed: bool,
    /// Whether the checksum of version 3 over IPv4 covers a pseudo-header.
    pub checksum_with_pseudo_header: bool,
    /// Advertisements go to the other nodes' links instead of to the group, and may arrive with no less than this TTL.
    pub unicast: Option<u8>,
    /// Advertisement interval: 10 ms to 40.95 s, whole centiseconds; in version 2 whole seconds up to 255.
    pub advertise: Duration,
    /// Whether a node of higher priority takes the address from a live holder.
    pub preempt: Preempt,
    /// How long a node that comes (back) waits before it does.
    pub preempt_delay: Duration,
    /// Clients find the addresses at a hardware address of the virtual router's own.
    pub virtual_mac: bool,
    /// The name that the vips share that one node holds together.
    pub sync_group: Option<Arc<str>>,
    /// What must be up on a node for it to hold the address; in a group, for any of it.
    pub track: Vec<Track>,
}

/// Something that decides whether, or how gladly, a node holds an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// What it is.
    pub what: Tracked,
    /// 0: where it is down the address goes; else what the priority gains while it is up (above 0) or loses while it
    /// is down (below 0). For a file: what its number is multiplied by.
    pub weight: i16,
}

/// What may be tracked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tracked {
    /// A frontend of this node.
    Frontend(FrontendId),
    /// An interface: up and with a carrier, a bond with one working slave at least.
    Link(Arc<str>),
    /// A file with a whole number.
    File(Arc<str>),
    /// A backend: so many of its servers must be well, as this node's checks see them.
    Backend {
        /// Which.
        backend: BackendId,
        /// How many, 1 to 1000.
        min: u16,
    },
    /// A program.
    Script(Script),
    /// A majority of the plan's nodes, this one included, by their heartbeats.
    Quorum,
}

/// A program that ends with 0 where all is well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its absolute path, and its arguments with blanks between them.
    pub command: Arc<str>,
    /// How long after its end it is run again.
    pub interval: Duration,
    /// How long it may take; after that it is killed, and has failed.
    pub timeout: Duration,
    /// Successes in a row that make it well, 1 to 100; the first result counts at once.
    pub rise: u8,
    /// Failures in a row that make it ill, 1 to 100.
    pub fall: u8,
}

/// Whether a returning node of higher priority takes its address back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Preempt {
    /// As soon as it is ready.
    Always,
    /// Not while the holder lives.
    Never,
}
