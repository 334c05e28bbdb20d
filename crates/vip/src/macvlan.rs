//! The interface that has a virtual router's own hardware address (RFC 9568 §7.3): a macvlan over the one that the
//! plan names, which is up while the address is held and down elsewhere.
//!
//! Advertisements and announcements leave with this address from the interface below (`wire`, `wire6`), and what comes
//! for it passes that one's gate first, so both work alike with and without it. Called by the engine and `release`.

use std::io;
use std::net::IpAddr;
use std::path::Path;

use netlink_packet_core::{NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL};
use netlink_packet_route::RouteNetlinkMessage as Route;
use netlink_packet_route::link::{
    InfoData, InfoKind, InfoMacVlan, LinkAttribute, LinkFlags, LinkInfo, LinkMessage, MacVlanMode,
};

use crate::netlink::Netlink;

/// Among the machines of one network, none of whose own interfaces may see the other's frames as its own: `private`, which
/// keepalived uses, would hide another holder's advertisements from the interface below.
const MODE: MacVlanMode = MacVlanMode::Bridge;

/// The hardware address of a virtual router.
pub(crate) fn address(vrid: u8, is_ipv4: bool) -> [u8; 6] {
    [0, 0, 0x5e, 0, if is_ipv4 { 1 } else { 2 }, vrid]
}

/// What its interface is called: as keepalived calls it.
pub(crate) fn name(vrid: u8, is_ipv4: bool) -> String {
    format!("vrrp{}.{vrid}", if is_ipv4 { "" } else { "6" })
}

/// An interface of another, or a leftover.
struct Found {
    index: u32,
    is_ours: bool,
    is_the_same: bool,
}

impl Netlink {
    /// The index of the interface `name` with the hardware address `mac` over `below`: the one that a predecessor left, or a
    /// new one, which is down.
    ///
    /// # Errors
    /// `EEXIST` if something else has the name, `EBUSY` if `below` is a port of a bridge or a bond, `EOPNOTSUPP` in a kernel
    /// without macvlan.
    pub(crate) fn macvlan(&mut self, name: &str, below: u32, mac: [u8; 6]) -> io::Result<u32> {
        match self.find_macvlan(name, below, mac)? {
            Some(Found { index, is_the_same: true, .. }) => return Ok(index),
            Some(Found { index, is_ours: true, .. }) => self.delete_link(index)?,
            Some(_) => return Err(io::Error::from_raw_os_error(libc::EEXIST)),
            None => {}
        }
        let mut message = LinkMessage::default();
        message.attributes = vec![
            LinkAttribute::IfName(name.into()),
            LinkAttribute::Link(below),
            LinkAttribute::Address(mac.to_vec()),
            LinkAttribute::LinkInfo(vec![
                LinkInfo::Kind(InfoKind::MacVlan),
                LinkInfo::Data(InfoData::MacVlan(vec![InfoMacVlan::Mode(MODE)])),
            ]),
        ];
        self.ask(Route::NewLink(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, |_| ())?;
        let made = self.find_macvlan(name, below, mac)?;
        made.map(|found| found.index).ok_or_else(|| io::Error::from_raw_os_error(libc::ENODEV))
    }

    fn find_macvlan(&mut self, name: &str, below: u32, mac: [u8; 6]) -> io::Result<Option<Found>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        let mut found = None;
        let got = self.ask(Route::GetLink(message), NLM_F_ACK, |answer| {
            if let Route::NewLink(link) = answer {
                let has = |wanted: &LinkAttribute| link.attributes.contains(wanted);
                let is_ours = has(&LinkAttribute::Address(mac.to_vec())) && mode(&link).is_some();
                let is_the_same = is_ours && has(&LinkAttribute::Link(below)) && mode(&link) == Some(MODE);
                found = Some(Found { index: link.header.index, is_ours, is_the_same });
            }
        });
        match got {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            other => other.map(|()| found),
        }
    }

    /// Takes the interface `name` away if it is a macvlan with this hardware address; whether it was there.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn remove_macvlan(&mut self, name: &str, mac: [u8; 6]) -> io::Result<bool> {
        match self.find_macvlan(name, 0, mac)? {
            Some(Found { index, is_ours: true, .. }) => self.delete_link(index).map(|()| true),
            _ => Ok(false),
        }
    }

    /// Brings an interface up or down.
    ///
    /// # Errors
    /// `ENODEV` if it is gone.
    pub(crate) fn bring(&mut self, index: u32, up: bool) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        message.header.change_mask = LinkFlags::Up;
        message.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        self.ask(Route::SetLink(message), NLM_F_ACK, |_| ())
    }

    fn delete_link(&mut self, index: u32) -> io::Result<()> {
        let mut message = LinkMessage::default();
        message.header.index = index;
        match self.ask(Route::DelLink(message), NLM_F_ACK, |_| ()) {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        }
    }
}

fn mode(link: &LinkMessage) -> Option<MacVlanMode> {
    let of_info = |info: &LinkInfo| match info {
        LinkInfo::Data(InfoData::MacVlan(all)) => all.iter().find_map(|one| match one {
            InfoMacVlan::Mode(mode) => Some(*mode),
            _ => None,
        }),
        _ => None,
    };
    link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::LinkInfo(all) => all.iter().find_map(of_info),
        _ => None,
    })
}

/// Has the macvlan speak for its own addresses alone and the interface below for no others, in `ip-sysctl.rst`'s terms.
///
/// The machine's answers leave from the interface below, for the routes are there. So the reverse path of what comes in
/// is not the way that it came (`rp_filter` 2 asks only for any), and neither may the questions for clients' hardware
/// addresses name the virtual one as the sender's, or clients would learn this machine's (`arp_announce` 2).
///
/// # Errors
/// Where `/proc/sys` cannot be written.
pub(crate) fn settle(name: &str, below: &str, address: IpAddr) -> io::Result<()> {
    let set = |interface: &str, family: &str, key: &str, value: &str| {
        let path = format!("/proc/sys/net/{family}/conf/{interface}/{key}");
        if Path::new(&path).exists() { std::fs::write(path, value) } else { Ok(()) }
    };
    if address.is_ipv6() {
        // No address of its own, and none from routers.
        set(name, "ipv6", "addr_gen_mode", "1")?;
        set(name, "ipv6", "accept_ra", "0")?;
        return set(name, "ipv6", "autoconf", "0");
    }
    set(name, "ipv6", "disable_ipv6", "1")?;
    set(name, "ipv4", "arp_ignore", "1")?;
    set(name, "ipv4", "rp_filter", "2")?;
    set(below, "ipv4", "arp_ignore", "1")?;
    set(below, "ipv4", "arp_announce", "2")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_are_those_of_the_rfc() {
        assert_eq!(address(51, true), [0, 0, 0x5e, 0, 1, 51]);
        assert_eq!(address(51, false), [0, 0, 0x5e, 0, 2, 51]);
        assert_eq!((name(51, true), name(255, false)), ("vrrp.51".into(), "vrrp6.255".into()));
    }
}
