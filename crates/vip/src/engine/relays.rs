//! The engine's part in the relay of open connections. A failure here costs those, and nothing else.

use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use relais_vrrp::{Link, State};

use super::{Engine, Event, Vip};
use crate::relay;
use crate::wanted::AFTER_DRAIN;

impl Engine {
    pub(super) fn let_go(&mut self, v: usize, p: usize) {
        let Link::Up(own) = self.link_of(v, p) else { return };
        self.vips[v].relaying = true;
        // At once: what follows waits for the kernel, and until then both would say that the address is theirs.
        self.mute_gates(v, true);
        self.hold_gates(v, self.vips[v].router.config().drain);
        let done = self.addresses_of(v).into_iter().try_for_each(|address| {
            relay::mute(address, own)?;
            self.netlink.accept_without_address(address, true).map(drop)
        });
        if let Err(e) = done {
            self.end_relay(v);
            return self.no_relay(v, &e);
        }
        // While the gates are open still: a reset reaches the client.
        self.tell_of_what_is_left(v, self.vips[v].router.config().drain.saturating_sub(AFTER_DRAIN));
    }

    /// The main thread is to end, and to count, what is still open after this time.
    pub(super) fn tell_of_what_is_left(&mut self, v: usize, after: Duration) {
        let is_here_again = Arc::new(AtomicBool::new(false));
        self.vips[v].is_here_again = is_here_again.clone();
        let (vip, addresses) = (self.vips[v].spec.name.clone(), self.addresses_of(v));
        self.tell(Event::Left { vip, addresses, after, is_here_again });
    }

    /// Of an address that another holds without us, nothing reaches anybody.
    pub(super) fn tell_of_delivery(&mut self) {
        let delivers = |vip: &&Vip| vip.relaying || vip.router.state() == State::Master;
        let addresses = self.vips.iter().filter(delivers).flat_map(|vip| vip.spec.config.addresses.clone());
        self.tell(Event::Delivering(addresses.collect()));
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
        let relayed = std::mem::replace(&mut self.vips[v].relaying, false);
        self.mute_gates(v, false);
        if self.vips[v].router.state() != State::Master {
            self.shut_gates(v);
            if relayed {
                self.tell_of_what_is_left(v, Duration::ZERO);
            }
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
