//! What goes into a [`Router`](crate::Router) and what comes out of it.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::packet::Advertisement;

/// What the plan says of a virtual router on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// VRID, 1 to 255.
    pub vrid: u8,
    /// This node's priority, 1 to 255; 255 owns the address.
    pub priority: u8,
    /// The virtual address.
    pub address: Ipv4Addr,
    /// How often a master advertises: 10 ms to 40.95 s, whole centiseconds.
    pub interval: Duration,
    /// Whether a live master of lower priority is displaced.
    pub preempt: bool,
    /// Frontends that must serve here for the address to be held here.
    pub track: Vec<Arc<str>>,
    /// How long a frontend may be [`Health::Healing`] before it counts as down.
    pub grace: Duration,
    /// How long after a hand-over connections made before it go on through the old holder; zero: not at all.
    pub drain: Duration,
}

/// Whether a tracked frontend serves.
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
    /// It has no address of its own to advertise from.
    NoAddress,
    /// It works; advertisements leave with this source address, which also breaks ties.
    Up(Ipv4Addr),
}

/// What happened.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// A plan wants this router: at the process's start, or again after a hand-over.
    Start {
        /// How long ago a predecessor of this process that held the address died.
        resume: Option<Duration>,
    },
    /// A new plan says this of it. VRID and address never change: that would be another router.
    Reconfigure(Config),
    /// Word of another router with the same VRID.
    Advertisement(Ipv4Addr, &'a Advertisement),
    /// Word of a frontend; of those not tracked it is ignored.
    Tracked(&'a str, Health),
    /// Nothing that could advertise is left on the machine of this master; it did not say so itself.
    MasterDied(Ipv4Addr),
    /// Word of the interface.
    Link(Link),
    /// Let another node take the address, then say [`Output::HandedOver`].
    HandOver,
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
    /// Put the address on the interface with a lease of [`LEASE`](crate::LEASE).
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
    SendOnTo(Ipv4Addr),
    /// Undo `LetGo` and `SendOnTo`, also an earlier process's.
    EndRelay,
    /// Tell the link by gratuitous ARP that the address is here.
    Announce,
    /// Send this from this source address.
    SendAdvertisement(Ipv4Addr, Advertisement),
    /// The state changed, and why: the end of a sentence that begins "... because".
    Changed(State, String),
    /// What [`Input::HandOver`] asked for is done.
    HandedOver,
    /// Tell the operator.
    Log(String),
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
