//! `mode forward`: what the kernel carries, and how.

use std::net::SocketAddr;

use super::{Balance, Frontend, HashKey, Mode, NodeId, Plan};

/// How the kernel carries a frontend's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Datagrams; otherwise TCP connections.
    pub udp: bool,
    /// What of the kernel does it.
    pub by: By,
}

/// A part of the kernel that passes packets on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// Address translation by nftables.
    Nftables {
        /// Servers see this machine's address instead of the client's, and so answer to it.
        masquerade: bool,
    },
    /// IP Virtual Server, as LVS uses it.
    Ipvs(Method),
}

/// How IPVS has packets reach a server (`ipvsadm(8)`, packet-forwarding-method).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Addresses are translated; answers come back through this machine.
    Nat,
    /// Frames are readdressed: the server is on the same link, has the address, and answers past this machine.
    Direct,
    /// Packets are wrapped (IPIP); the server has the address, and answers past this machine.
    Tunnel,
}

impl Method {
    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Method::Nat => "nat",
            Method::Direct => "direct",
            Method::Tunnel => "tunnel",
        }
    }
}

impl Balance {
    /// The scheduler of IPVS that does this, if one does.
    pub fn ipvs_scheduler(&self) -> Option<&'static str> {
        Some(match self {
            Balance::RoundRobin | Balance::Wrr => "wrr",
            Balance::LeastConn { .. } => "wlc",
            Balance::Sed => "sed",
            Balance::Nq => "nq",
            Balance::Hash { key: HashKey::Source, .. } => "mh",
            Balance::Hash { key: HashKey::Destination, .. } => "dh",
            Balance::Locality { key: HashKey::Destination, replicate: None } => "lblc",
            Balance::Locality { key: HashKey::Destination, replicate: Some(_) } => "lblcr",
            _ => return None,
        })
    }
}

impl Plan {
    /// The frontends that the kernel of `node` carries.
    pub fn forwards_on(&self, node: NodeId) -> impl Iterator<Item = (&Frontend, Forward)> {
        self.frontends_on(node).filter_map(|(_, frontend)| Some((frontend, frontend.forward?)))
    }

    /// What the processes of `node` listen on: the addresses that the kernel carries are nobody's.
    pub fn listens_on(&self, node: NodeId) -> impl Iterator<Item = (&Frontend, SocketAddr)> {
        let ours = self.frontends_on(node).filter(|(_, frontend)| frontend.mode != Mode::Forward);
        ours.flat_map(move |(_, frontend)| {
            self.binds_on(node, frontend).map(move |bind| (frontend, bind.address))
        })
    }
}
