//! What goes into [`Members`](crate::Members) and what comes out of it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use relais_base::Time;

use crate::wire::Heartbeat;

/// What the plan says of the platform, as this node sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The platform, by the hash of its name: another's heartbeats are not ours.
    pub platform: u32,
    /// This node, by the hash of its name.
    pub node: u32,
    /// How often nodes that have to do with an address hear of each other, 10 ms to 1 s.
    pub interval: Duration,
    /// After how long without a word from anybody a link is cut off: as long as the shortest lease of any address, so
    /// that a node gives up what it holds before others take it.
    pub patience: Duration,
    /// The other nodes.
    pub peers: Vec<Peer>,
    /// How they are reached from here.
    pub paths: Vec<Path>,
}

/// Another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// By the hash of its name.
    pub node: u32,
    /// As sentences call it.
    pub name: Arc<str>,
    /// It and this node speak every [`Config::interval`]: both may hold an address, or witness who does. Other pairs
    /// speak once a second.
    pub is_close: bool,
}

/// One way to another node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Index into [`Config::peers`].
    pub peer: usize,
    /// The link of this node that it leaves by: a number that the driver chooses, 0 to 15.
    pub link: u8,
    /// Where it goes.
    pub remote: IpAddr,
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A new plan. What is known of paths that stay is kept.
    Reconfigure(Config),
    /// A heartbeat, whose seal was good, came to this link from this address.
    Heartbeat {
        /// The link of this node that it came to.
        link: u8,
        /// The address it came from.
        from: IpAddr,
        /// It.
        heartbeat: &'a Heartbeat,
    },
    /// This node holds an address whose network this link is in, or no longer.
    Hold {
        /// The virtual router, by the hash of its name.
        vip: u32,
        /// The link.
        link: u8,
        /// Its priority in that, 0 while it hands it over; `None`: it does not hold it.
        held: Option<u8>,
    },
    /// This process ends, and the node's word with it.
    Leave,
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Seal this, and send it from this link to all of these.
    Send {
        /// The link.
        link: u8,
        /// Where to.
        to: Vec<IpAddr>,
        /// What.
        heartbeat: Heartbeat,
    },
    /// At this time, which is not in the future, this other node held the address, as somebody heard from itself on
    /// this link's network.
    Witnessed {
        /// The virtual router, by the hash of its name.
        vip: u32,
        /// The link.
        link: u8,
        /// Who held it.
        holder: u32,
        /// Its priority in that; 0 while it hands it over.
        priority: u8,
        /// Who says so: the holder, or a witness.
        by: u32,
        /// When.
        at: Time,
    },
    /// Whether this link is cut off from all nodes that were there: the end of a sentence that begins "... because".
    Cut {
        /// The link.
        link: u8,
        /// Why; `None`: it is not, any more.
        why: Option<String>,
    },
    /// Tell the operator that something is wrong.
    Warn(String),
    /// Tell the operator that it is right again.
    Info(String),
}

/// What is known of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathReport {
    /// The other node's name.
    pub name: Arc<str>,
    /// The link of this node.
    pub link: u8,
    /// The other end.
    pub remote: IpAddr,
    /// When it was heard last, if ever.
    pub heard: Option<Time>,
    /// It is heard, as often as it should be.
    pub is_up: bool,
    /// Heartbeats received.
    pub received: u64,
    /// Heartbeats that were sent here and did not come.
    pub lost: u64,
}
