//! The engine's dealings with an interface: its sockets, its own address, packets in and out.

use std::io;
use std::mem::discriminant;
use std::net::IpAddr;

use relais_vrrp::{AH_PROTOCOL, Advertisement, Input, Link, PROTOCOL, Refused};

use super::{Engine, Event, Vip, is_ipv4};
use crate::inbox::{PACKETS, listen};
use crate::wire::Wire;
use crate::wire6::Wire6;

impl Engine {
    pub(super) fn read_packet(&mut self, p: usize, datagram: &[u8]) {
        let packet = match relais_vrrp::parse(datagram) {
            Ok(packet) => packet,
            Err(why) => return self.complain(p, why),
        };
        let for_it = |vip: &Vip| {
            vip.spec.interface == self.ports[p].name
                && vip.router.config().vrid == packet.advertisement.vrid
                && is_ipv4(vip) == packet.source.is_ipv4()
        };
        let Some(v) = self.vips.iter().position(for_it) else {
            self.ports[p].refused += 1; // another virtual router on this link
            return;
        };
        let Vip { router, association, .. } = &mut self.vips[v];
        let mut verified = || association.as_mut().map_or(Ok(()), |association| association.verify(datagram));
        match router.config().admits(&packet).and_then(|()| verified()) {
            Ok(()) => self.handle(v, Input::Advertisement(packet.source, &packet.advertisement)),
            Err(why) => self.complain(p, why),
        }
    }

    pub(super) fn complain(&mut self, p: usize, why: Refused) {
        let port = &mut self.ports[p];
        port.refused += 1;
        if !port.complained.contains(&discriminant(&why)) {
            port.complained.push(discriminant(&why));
            let name = port.name.clone();
            self.tell(Event::Warn(format!("a VRRP packet on {name} was refused: {why}")));
        }
    }

    /// Sockets on the interface as it is now: none if it is gone, new ones if it is another.
    pub(super) fn open_wires(&mut self, p: usize) {
        let name = self.ports[p].name.clone();
        let any =
            |wants: fn(&Vip) -> bool| self.vips.iter().any(|vip| vip.spec.interface == name && wants(vip));
        let (wants_ipv6, wants_sealed) = (any(|vip| !is_ipv4(vip)), any(|vip| vip.spec.seal.is_some()));
        let port = &mut self.ports[p];
        let index = port.found.as_ref().map(|found| found.index);
        port.wire.take_if(|wire| Some(wire.index()) != index);
        port.sealed.take_if(|wire| Some(wire.index()) != index || !wants_sealed);
        port.wire6.take_if(|wire| Some(wire.index()) != index || !wants_ipv6);
        let Some(index) = index else { return };
        let mut failed = Vec::new();
        let open = |protocol: u8| {
            let wire = Wire::open(&name, index, protocol)?;
            listen(&self.inbox, wire.fd(), PACKETS).map(|()| wire)
        };
        if port.wire.is_none() {
            port.wire = open(PROTOCOL).map_err(|e| failed.push(e)).ok();
        }
        if wants_sealed && port.sealed.is_none() {
            port.sealed = open(AH_PROTOCOL).map_err(|e| failed.push(e)).ok();
        }
        if wants_ipv6 && port.wire6.is_none() {
            let opened = Wire6::open(&name, index);
            let heard = opened.and_then(|wire| listen(&self.inbox, wire.fd(), PACKETS).map(|()| wire));
            port.wire6 = heard.map_err(|e| failed.push(e)).ok();
        }
        // Or the kernel takes away every other address of the network with the first.
        let _ = std::fs::write(format!("/proc/sys/net/ipv4/conf/{name}/promote_secondaries"), "1");
        if wants_ipv6 {
            let path = format!("/proc/sys/net/ipv6/conf/{name}/forwarding");
            port.is_router6 = std::fs::read(path).is_ok_and(|value| value.starts_with(b"1"));
        }
        for e in failed {
            self.tell(Event::Warn(format!("no VRRP socket on {name} ({e})")));
        }
    }

    /// The interface as the router sees it. To the group of IPv6 advertisements leave from the link-local address
    /// (RFC 9568 §5.1.2.1).
    pub(super) fn link_of(&self, v: usize, p: usize) -> Link {
        let (port, to_group) = (&self.ports[p], self.vips[v].router.config().peers.is_empty());
        if is_ipv4(&self.vips[v]) {
            return if port.wire.is_some() { self.own_address(p, IpAddr::is_ipv4) } else { Link::Missing };
        }
        let is_local = |a: &IpAddr| matches!(a, IpAddr::V6(a) if a.is_unicast_link_local());
        match port.wire6 {
            Some(_) if to_group => self.own_address(p, is_local),
            Some(_) => self.own_address(p, |a| a.is_ipv6() && !is_local(a)),
            None => Link::Missing,
        }
    }

    /// The node's own address on the interface that fits: one that the plan names as a link, which is what peers know
    /// it by, else the first.
    pub(super) fn own_address(&self, p: usize, fits: impl Fn(&IpAddr) -> bool) -> Link {
        let Some(found) = &self.ports[p].found else { return Link::Missing };
        if !found.running {
            return Link::Down;
        }
        let own = found.addresses.iter().filter(|a| fits(a) && !self.is_virtual(**a));
        match own.clone().find(|a| self.links.contains(a)).or(own.clone().next()) {
            Some(source) => Link::Up(*source),
            None => Link::NoAddress,
        }
    }

    pub(super) fn is_virtual(&self, address: IpAddr) -> bool {
        self.vips.iter().any(|vip| vip.router.config().addresses.contains(&address))
    }

    pub(super) fn announce(&mut self, v: usize, p: usize) {
        let port = &self.ports[p];
        let Some(found) = port.found.as_ref() else { return };
        let (index, mac) = (found.index, self.virtual_mac(v).unwrap_or(found.mac));
        let mut done = Ok(());
        for address in &self.vips[v].router.config().addresses {
            let told = match (address, &port.wire, &port.wire6) {
                (IpAddr::V4(address), Some(wire), _) => wire.announce(index, mac, *address),
                (IpAddr::V6(address), _, Some(wire)) => wire.announce(index, mac, *address, port.is_router6),
                _ => Ok(()),
            };
            done = done.and(told);
        }
        self.note_send(p, done);
    }

    pub(super) fn send(&mut self, v: usize, p: usize, source: IpAddr, advertisement: &Advertisement) {
        let mac = self.virtual_mac(v);
        let Vip { router, association, .. } = &mut self.vips[v];
        let (port, config) = (&self.ports[p], router.config());
        // A neighbour's hardware address is for the kernel to find: to peers advertisements leave as anything does.
        let mac = mac.filter(|_| config.peers.is_empty());
        let mut done = Ok(());
        for destination in config.destinations() {
            let mut datagram = relais_vrrp::encode(source, destination, &config.form, advertisement);
            if let Some(association) = association {
                datagram = association.seal(&datagram);
            }
            let sent = match (destination, &port.wire, &port.wire6, mac) {
                (IpAddr::V4(_), Some(wire), _, Some(mac)) => wire.send_to_group_as(mac, &datagram),
                (IpAddr::V6(_), _, Some(wire), Some(mac)) => wire.send_to_group_as(mac, &datagram),
                (IpAddr::V4(to), Some(wire), ..) => wire.send(to, &datagram),
                (IpAddr::V6(to), _, Some(wire), _) => wire.send(to, &datagram),
                _ => Ok(()),
            };
            done = done.and(sent);
        }
        self.note_send(p, done);
    }

    /// Says once that nothing can be sent, and once that it can again.
    pub(super) fn note_send(&mut self, p: usize, done: io::Result<()>) {
        let port = &mut self.ports[p];
        let failed = done.is_err();
        if failed == port.send_failed {
            return;
        }
        port.send_failed = failed;
        let name = port.name.clone();
        self.tell(match done {
            Err(e) => Event::Warn(format!("nothing can be sent on {name} ({e})")),
            Ok(()) => Event::Info(format!("packets can be sent on {name} again")),
        });
    }
}
