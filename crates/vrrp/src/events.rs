//! What goes into a [`Router`](crate::Router) and what comes out of it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use relais_base::Time;

use crate::packet::{Advertisement, Authentication, Form, GROUP, GROUP6, HOP_LIMIT, Packet, Refused};

/// What the plan says of a virtual router on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// VRID, 1 to 255.
    pub vrid: u8,
    /// This node's priority, 1 to 255; 255 owns the address.
    pub priority: u8,
    /// The virtual addresses, at least one, all of one family: they move together.
    pub addresses: Vec<IpAddr>,
    /// How advertisements are written.
    pub form: Form,
    /// Whom to advertise to and to hear; empty: the group of the family.
    pub peers: Vec<IpAddr>,
    /// Least TTL of what `peers` send; what is sent to the group has 255.
    pub least_hop_limit: u8,
    /// How often a master advertises: 10 ms to 40.95 s, whole centiseconds; in version 2 whole seconds up to 255.
    pub interval: Duration,
    /// Whether a live master of lower priority is displaced.
    pub preempt: bool,
    /// How long a node that comes (back) lets such a master be.
    pub preempt_delay: Duration,
    /// The highest priority that the plan gives another node; 0 if there is none.
    pub rivals: u8,
    /// What the address depends on here.
    pub track: Vec<Track>,
    /// How long something tracked may be [`Health::Healing`] before it counts as down.
    pub grace: Duration,
    /// How long after a hand-over connections made before it go on through the old holder; zero: not at all.
    pub drain: Duration,
}

impl Config {
    /// Where its advertisements go.
    pub fn destinations(&self) -> Vec<IpAddr> {
        match self.addresses.first() {
            _ if !self.peers.is_empty() => self.peers.clone(),
            Some(IpAddr::V6(_)) => Vec::from([GROUP6.into()]),
            _ => Vec::from([GROUP.into()]),
        }
    }

    /// Whether a packet with its VRID is for it (RFC 9568 §7.1, RFC 3768 §7.1).
    ///
    /// # Errors
    /// Why it is not.
    pub fn admits(&self, packet: &Packet) -> Result<(), Refused> {
        if packet.version != self.form.version {
            return Err(Refused::OtherVersion(packet.version));
        }
        if packet.destination.is_multicast() != self.peers.is_empty() {
            return Err(Refused::Destination);
        }
        let least = if self.peers.is_empty() { HOP_LIMIT } else { self.least_hop_limit };
        if packet.hop_limit < least {
            return Err(Refused::HopLimit(packet.hop_limit));
        }
        match (packet.authentication, self.form.authentication) {
            (ours, theirs) if ours == theirs => {}
            (Authentication::Header, _) | (_, Authentication::Header) => return Err(Refused::Method),
            _ => return Err(Refused::Password),
        }
        if !self.peers.is_empty() && !self.peers.contains(&packet.source) {
            return Err(Refused::Stranger);
        }
        Ok(())
    }
}

/// Something that the address depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Track {
    /// What it is, as sentences call it and inputs name it: "frontend web".
    pub what: Arc<str>,
    /// 0: where it is down, the address goes. Above 0: what the priority gains while it is up. Below 0: what the
    /// priority loses while it is down. -253 to 253.
    pub weight: i16,
}

/// Whether something tracked serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Health {
    /// It serves.
    Up,
    /// Its process died and the next is on its way; connections wait in the kernel.
    Healing,
    /// It does not serve.
    Down,
}

/// The interface that carries the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It does not exist.
    Missing,
    /// It is off, or has no carrier.
    Down,
    /// It has no address of its own, of the family, to advertise from.
    NoAddress,
    /// It works; advertisements leave with this source address, which also breaks ties.
    Up(IpAddr),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A plan wants this router: at the process's start, or again after a hand-over.
    Start {
        /// How long ago a predecessor of this process that held the address died.
        resume: Option<Duration>,
    },
    /// A new plan says this of it. VRID and addresses never change: that would be another router.
    Reconfigure(Config),
    /// Word of another router with the same VRID.
    Advertisement(IpAddr, &'a Advertisement),
    /// Word of something tracked; of what is not tracked it is ignored.
    Tracked(&'a str, Health),
    /// Nothing that could advertise is left on the machine of this master; it did not say so itself.
    MasterDied(IpAddr),
    /// Another node held the address, as somebody heard from that node itself on the address's network.
    Witnessed {
        /// When; not in the future.
        at: Time,
        /// Of the two, it is the one that should: by priority, and where that is the same by whatever both agree on.
        outranks: bool,
    },
    /// This node is cut off from all others on the address's network, and why: the end of a sentence that begins
    /// "... because"; `None`: it is not, any more.
    CutOff(Option<&'a str>),
    /// Why another address of its sync group cannot be held here, as with `CutOff`; `None`: all can.
    Group(Option<&'a str>),
    /// Another address of its sync group has gone to a better master: let it have this one, too, unless it does not want it.
    Follow,
    /// Something tracked changes the priority by so much, whatever its weight; it is up.
    Measured(&'a str, i32),
    /// Word of the interface.
    Link(Link),
    /// Let another node take the address, then say [`Output::HandedOver`].
    HandOver,
    /// The operator wants the node to hold nothing, or to be as others again; plans do not change that.
    Standby(bool),
    /// The operator wants the address here, whatever the priorities.
    MoveHere,
    /// The operator wants the other node to have it. Where nobody takes it, it stays.
    MoveAway,
    /// What a predecessor of this process last said with [`Output::Moved`].
    Restore(Option<Moved>),
    /// Let go of the address now: the process ends.
    Stop,
    /// Somebody else removed the address from the interface.
    AddressVanished,
    /// The kernel would not add the address, and why.
    AddressRefused(&'a str),
}

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Put the addresses on the interface with a lease of [`LEASE`](crate::LEASE).
    AddAddress,
    /// Extend that lease to [`LEASE`](crate::LEASE) from now.
    RefreshLease,
    /// Take the address off the interface if it is there.
    RemoveAddress,
    /// Comes before `RemoveAddress`: connections that are open go on. Answer no ARP for the address, but
    /// accept what its new holder sends on.
    LetGo,
    /// Comes before `AddAddress`: this node let go of the address, so send on to it what belongs to connections
    /// that did not begin here.
    SendOnTo(IpAddr),
    /// Undo `LetGo` and `SendOnTo`, also an earlier process's.
    EndRelay,
    /// Tell the link by gratuitous ARP or unsolicited neighbour advertisements that the addresses are here.
    Announce,
    /// Send this from this source address, to each of [`Config::destinations`].
    SendAdvertisement(IpAddr, Advertisement),
    /// The state changed, and why: the end of a sentence that begins "... because".
    Changed(State, String),
    /// What [`Input::HandOver`] asked for is done.
    HandedOver,
    /// To be remembered for a successor of this process, in place of what was said before.
    Moved(Option<Moved>),
    /// Tell the operator.
    Log(String),
}

/// What an operator's move leaves behind, so that the address stays where it was moved to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moved {
    /// It was moved here: this priority is advertised, unless the plan's is higher. Over when the address goes.
    Here(u8),
    /// It was moved away: a living master is let be, whatever its priority. Over when this node is master again.
    Away,
}

/// What the outside sees of a router's state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Not in the election.
    Fault,
    /// Listening to the master.
    Backup,
    /// Holding the address.
    Master,
}

/// Counted since the router was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Times it became master.
    pub became_master: u64,
    /// Advertisements sent.
    pub sent: u64,
    /// Advertisements of others received.
    pub received: u64,
}
