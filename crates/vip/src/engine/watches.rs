//! The engine's death-watch: who watches this node, and whom it watches. Called once a turn, and when an interface has changed.

use std::net::IpAddr;

use relais_vrrp::{Input, Link, State};

use super::{Engine, Event, is_ipv4, now};
use crate::watch;

/// Over IPv6 routers speak from link-local addresses, as RFC 9568 §5.1.2.1 wants it, and no plan names those.
fn is_local(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

impl Engine {
    /// Listens where this node's advertisements leave from.
    pub(super) fn settle_watches(&mut self, p: usize) {
        let here = |vip: &&super::Vip| vip.spec.interface == self.ports[p].name;
        let mut of_ipv6 = self.vips.iter().enumerate().filter(|(_, vip)| here(vip) && !is_ipv4(vip));
        let six = of_ipv6.next().map_or(Link::Missing, |(v, _)| self.link_of(v, p));
        let links = [self.own_address(p, IpAddr::is_ipv4), six];
        let mut failed = Vec::new();
        let port = &mut self.ports[p];
        for (watch, link) in port.watches.iter_mut().zip(links) {
            match (&port.found, link) {
                (Some(found), Link::Up(own)) => {
                    if let Err(e) = watch.settle(&port.name, found.index, own, &self.inbox) {
                        failed.push((own, e));
                    }
                }
                _ => watch.unsettle(),
            }
        }
        let name = port.name.clone();
        for (own, e) in failed {
            self.tell(Event::Warn(format!(
                "{own} port {} on {name} cannot be listened on ({e}): a backup notices only by the silence that this \
                 node's processes died",
                watch::PORT
            )));
        }
    }

    /// Lets other nodes watch this one, and hears whether those that it follows live; `told`: something has come.
    pub(super) fn watch_masters(&mut self, told: bool) {
        for p in 0..self.ports.len() {
            for family in 0..self.ports[p].watches.len() {
                if told {
                    self.let_watchers_in(p, family);
                }
                let masters = self.masters(p, family == 0);
                if !told && !self.ports[p].watches[family].is_due(&masters, now()) {
                    continue;
                }
                for died in self.ports[p].watches[family].look(&masters, &self.inbox, now()) {
                    self.master_died(p, died);
                }
            }
        }
    }

    fn let_watchers_in(&mut self, p: usize, family: usize) {
        for (from, connection) in self.ports[p].watches[family].accept() {
            if self.peers.contains(&from) || is_local(&from) {
                self.tell(Event::Watched(connection));
            }
        }
    }

    /// Whom the routers of one interface and family follow.
    fn masters(&self, p: usize, ipv4: bool) -> Vec<IpAddr> {
        let here = |vip: &&super::Vip| vip.spec.interface == self.ports[p].name;
        let followed = self.vips.iter().filter(here).filter(|vip| vip.router.state() == State::Backup);
        let mut masters: Vec<IpAddr> = followed.filter_map(|vip| vip.router.holder()).collect();
        masters.retain(|master| master.is_ipv4() == ipv4);
        masters.sort_unstable();
        masters.dedup();
        masters
    }

    fn master_died(&mut self, p: usize, died: IpAddr) {
        for v in 0..self.vips.len() {
            if self.vips[v].spec.interface == self.ports[p].name {
                self.handle(v, Input::MasterDied(died));
            }
        }
    }
}
