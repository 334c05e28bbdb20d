//! The engine's part in virtual hardware addresses: on which interface a vip's addresses are put, and in whose name it
//! speaks to the link.

use std::io;
use std::net::IpAddr;

use relais_config::plan::Cidr;

use super::{Engine, Event, Spec, is_ipv4};
use crate::macvlan;

impl Engine {
    /// The hardware address that is the virtual router's own, if it has one.
    pub(super) fn virtual_mac(&self, v: usize) -> Option<[u8; 6]> {
        let vip = &self.vips[v];
        vip.spec.virtual_mac.then(|| macvlan::address(vip.router.config().vrid, is_ipv4(vip)))
    }

    /// The name of the interface that has the vip's addresses while it is held.
    pub(super) fn carrier_name(&self, v: usize) -> String {
        let vip = &self.vips[v];
        if vip.spec.virtual_mac {
            macvlan::name(vip.router.config().vrid, is_ipv4(vip))
        } else {
            vip.spec.interface.to_string()
        }
    }

    /// Makes the interface with the virtual hardware address, if there is to be one. Where it cannot be made, taking the
    /// address will fail, and says so.
    pub(super) fn prepare_carrier(&mut self, v: usize, p: usize) {
        if let Some(below) = self.ports[p].found.as_ref().map(|found| found.index) {
            self.vips[v].carrier = self.make_carrier(v, below).ok();
        }
    }

    fn make_carrier(&mut self, v: usize, below: u32) -> io::Result<u32> {
        let Some(mac) = self.virtual_mac(v) else { return Ok(below) };
        let (name, vip) = (self.carrier_name(v), &self.vips[v]);
        let index = self.netlink.macvlan(&name, below, mac)?;
        macvlan::settle(&name, &vip.spec.interface, vip.router.config().addresses[0])?;
        Ok(index)
    }

    /// The index of the interface that has the vip's addresses, which is up; `None` if there is not even one below.
    pub(super) fn carrier(&mut self, v: usize, p: usize) -> io::Result<Option<u32>> {
        let Some(below) = self.ports[p].found.as_ref().map(|found| found.index) else { return Ok(None) };
        if !self.vips[v].spec.virtual_mac {
            self.vips[v].carrier = Some(below);
            return Ok(Some(below));
        }
        if let Some(index) = self.vips[v].carrier
            && self.netlink.bring(index, true).is_ok()
        {
            return Ok(Some(index));
        }
        let index = self.make_carrier(v, below)?; // somebody took it away
        self.vips[v].carrier = Some(index);
        self.netlink.bring(index, true)?;
        Ok(Some(index))
    }

    /// The prefix with which an address is put there. Over a macvlan the machine's own way into the network remains the
    /// only one, if it has any.
    fn prefix(&self, v: usize, p: usize, address: IpAddr, prefix: u8) -> u8 {
        let network = Cidr { address, prefix };
        let mut own = self.ports[p].found.iter().flat_map(|found| &found.addresses);
        let is_inside = own.any(|own| network.contains(*own) && !self.is_virtual(*own));
        if self.vips[v].spec.virtual_mac && address.is_ipv4() && is_inside { 32 } else { prefix }
    }

    /// The addresses of the vip, with the prefixes that they are put there with.
    pub(super) fn placed(&self, v: usize, p: usize) -> Vec<(IpAddr, u8)> {
        let Spec { config, prefixes, .. } = &self.vips[v].spec;
        let all = config.addresses.iter().zip(prefixes);
        all.map(|(address, prefix)| (*address, self.prefix(v, p, *address, *prefix))).collect()
    }

    /// A macvlan that holds no address is down: its hardware address is another machine's now.
    pub(super) fn rest_carrier(&mut self, v: usize) {
        if let Some(index) = self.vips[v].carrier.filter(|_| self.vips[v].spec.virtual_mac) {
            let _ = self.netlink.bring(index, false); // it may be gone
        }
    }

    pub(super) fn remove_carrier(&mut self, v: usize) {
        let Some(mac) = self.virtual_mac(v) else { return };
        let (name, vip) = (self.carrier_name(v), self.vips[v].spec.name.clone());
        if let Err(e) = self.netlink.remove_macvlan(&name, mac) {
            self.tell(Event::Warn(format!(
                "vip {vip}: the interface {name} could not be removed ({e}); do it with `ip link delete {name}`"
            )));
        }
    }

    /// Why the addresses of a vip cannot be put anywhere.
    pub(super) fn no_carrier(&self, v: usize, e: &io::Error) -> String {
        let (name, below) = (self.carrier_name(v), &self.vips[v].spec.interface);
        match e.raw_os_error() {
            Some(libc::EEXIST) => format!(
                "there is another interface {name} on this machine; take it away with `ip link delete {name}`"
            ),
            Some(libc::EBUSY) => format!(
                "{below} cannot carry the virtual MAC, for it is part of a bridge or bond; name that one, or take \
                 `virtual-mac` out"
            ),
            _ => format!(
                "the kernel makes no interface {name} for the virtual MAC ({e}); load macvlan, or take `virtual-mac` out"
            ),
        }
    }
}
