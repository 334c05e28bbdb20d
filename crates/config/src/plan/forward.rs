//! `mode forward`: what the kernel carries, and how.

use std::net::SocketAddr;

use super::{Frontend, Mode, NodeId, Plan};

/// How the kernel carries a frontend's packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Datagrams; otherwise TCP connections.
    pub udp: bool,
    /// Servers see this machine's address instead of the client's, and so answer to it.
    pub masquerade: bool,
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
