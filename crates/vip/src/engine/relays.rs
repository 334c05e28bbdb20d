//! The engine's part in the relay of open connections. A failure here costs those, and nothing else.

use std::io;
use std::net::IpAddr;

use relais_vrrp::{Link, State};

use super::{Engine, Event};
use crate::relay;

impl Engine {
    pub(super) fn let_go(&mut self, v: usize, p: usize) {
        let Link::Up(own) = self.link_of(v, p) else { return };
        self.vips[v].relaying = true;
        self.hold_gates(v, self.vips[v].router.config().drain);
        let done = self.addresses_of(v).into_iter().try_for_each(|address| {
            relay::mute(address, own)?;
            self.netlink.accept_without_address(address, true).map(drop)
        });
        if let Err(e) = done {
            self.end_relay(v);
            self.no_relay(v, &e);
        }
    }

    pub(super) fn send_on(&mut self, v: usize, p: usize, old: IpAddr) {
        let Some(index) = self.ports[p].found.as_ref().map(|found| found.index) else { return };
        let mut all = self.addresses_of(v).into_iter();
        if let Err(e) = all.try_for_each(|address| relay::send_on(address, old, index)) {
            self.no_relay(v, &e);
        }
    }

    fn no_relay(&self, v: usize, e: &io::Error) {
        let name = &self.vips[v].spec.name;
        self.tell(Event::Warn(format!(
            "vip {name}: connections that are open do not survive this move, for the kernel has no nftables for \
             it ({e}); load nf_tables, nft_dup_ipv4 and nft_dup_ipv6"
        )));
    }

    pub(super) fn end_relay(&mut self, v: usize) {
        self.vips[v].relaying = false;
        if self.vips[v].router.state() != State::Master {
            self.shut_gates(v);
        }
        for address in self.addresses_of(v) {
            let _ = relay::end(address); // where there is no nftables there is nothing to take away
            if let Err(e) = self.netlink.accept_without_address(address, false) {
                let name = &self.vips[v].spec.name;
                self.tell(Event::Warn(format!("vip {name}: the local route for {address} stays ({e})")));
            }
        }
    }

    fn addresses_of(&self, v: usize) -> Vec<IpAddr> {
        self.vips[v].spec.config.addresses.clone()
    }
}
