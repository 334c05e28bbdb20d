//! The little of rtnetlink(7) that a lab needs: bridge, veth pairs, addresses, the state of a link and of a
//! bridge port, and word of address changes. Blocking; an answer that does not come within a second is an
//! error. The socket belongs to the namespace of the thread that opened it, wherever it is used afterwards.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{
    DefaultNla, NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    InfoBridge, InfoData, InfoKind, InfoVeth, LinkAttribute, LinkFlags, LinkInfo, LinkMessage,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage as Route};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use crate::netns::Netns;

/// The loopback interface's index in every namespace.
const LOOPBACK: u32 = 1;
/// Longest answer to one read; the kernel fills at most 32 KiB.
const MAX_DATAGRAM: usize = 64 * 1024;
/// `RTMGRP_IPV4_IFADDR`: one bit a multicast group, rtnetlink(7).
const IPV4_ADDRESSES: u32 = 0x10;

/// A socket to the kernel's routing tables.
#[derive(Debug)]
pub(crate) struct Netlink {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Netlink {
    /// In `netns`, to ask and to change.
    pub(crate) fn open(netns: &Netns) -> io::Result<Netlink> {
        Netlink::with_groups(netns, 0)
    }

    /// In `netns`, readable whenever an IPv4 address comes or goes there.
    pub(crate) fn watch_addresses(netns: &Netns) -> io::Result<Netlink> {
        Netlink::with_groups(netns, IPV4_ADDRESSES)
    }

    fn with_groups(netns: &Netns, groups: u32) -> io::Result<Netlink> {
        let socket = netns.run(|| {
            Ok(rustix::net::socket_with(
                rustix::net::AddressFamily::NETLINK,
                SocketType::RAW,
                SocketFlags::CLOEXEC,
                None,
            )?)
        })?;
        rustix::net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
        sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(Duration::from_secs(1)))?;
        Ok(Netlink { socket, buffer: vec![0; MAX_DATAGRAM] })
    }

    /// Throws away what has been reported; a later look at the addresses is newer anyway.
    pub(crate) fn discard_reports(&mut self) {
        // An overrun (ENOBUFS) is a report too.
        while !matches!(
            rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::DONTWAIT),
            Err(rustix::io::Errno::AGAIN)
        ) {}
    }

    /// Sends one request and returns what is answered to it.
    fn ask(&mut self, request: Route, flags: u16) -> io::Result<Vec<Route>> {
        let mut message = NetlinkMessage::from(request);
        message.header.flags = NLM_F_REQUEST | flags;
        message.header.sequence_number = 1;
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty())?;
        let mut answers = Vec::new();
        loop {
            let (length, _) = rustix::net::recv(&self.socket, &mut self.buffer[..], RecvFlags::empty())?;
            let mut rest = &self.buffer[..length];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<Route>::deserialize(rest).map_err(io::Error::other)?;
                let step = (answer.header.length as usize).next_multiple_of(4);
                rest = rest.get(step..).unwrap_or_default();
                match answer.payload {
                    NetlinkPayload::Done(_) => return Ok(answers),
                    NetlinkPayload::Error(error) if error.code.is_none() => return Ok(answers),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    NetlinkPayload::InnerMessage(inner) => answers.push(inner),
                    _ => {}
                }
            }
        }
    }

    fn new_link(&mut self, name: &str, attributes: Vec<LinkAttribute>) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.into()));
        link.attributes.extend(attributes);
        self.ask(Route::NewLink(link), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// A bridge that forwards at once and does not snoop, up.
    pub(crate) fn add_bridge(&mut self, name: &str) -> io::Result<u32> {
        let data = vec![InfoBridge::ForwardDelay(0), InfoBridge::MulticastSnooping(false)];
        let info = vec![LinkInfo::Kind(InfoKind::Bridge), LinkInfo::Data(InfoData::Bridge(data))];
        self.new_link(name, vec![LinkAttribute::LinkInfo(info)])?;
        let index = self.index(name)?;
        self.set_up(index, true)?;
        Ok(index)
    }

    /// A veth pair: `name` here as a port of bridge `master`, its other end `peer` in `netns`; both down.
    pub(crate) fn add_veth(&mut self, name: &str, master: u32, peer: &str, netns: &Netns) -> io::Result<u32> {
        let mut other = LinkMessage::default();
        other.attributes.push(LinkAttribute::IfName(peer.into()));
        other.attributes.push(LinkAttribute::NetNsFd(netns.as_fd().as_raw_fd()));
        let info =
            vec![LinkInfo::Kind(InfoKind::Veth), LinkInfo::Data(InfoData::Veth(InfoVeth::Peer(other)))];
        self.new_link(name, vec![LinkAttribute::Controller(master), LinkAttribute::LinkInfo(info)])?;
        self.index(name)
    }

    fn link(&mut self, name: &str) -> io::Result<LinkMessage> {
        let mut link = LinkMessage::default();
        link.attributes.push(LinkAttribute::IfName(name.into()));
        let answers = self.ask(Route::GetLink(link), NLM_F_ACK)?;
        let link = answers.into_iter().find_map(|answer| match answer {
            Route::NewLink(link) => Some(link),
            _ => None,
        });
        link.ok_or_else(|| io::Error::other(format!("the kernel knows no link {name}")))
    }

    /// The index of a link.
    pub(crate) fn index(&mut self, name: &str) -> io::Result<u32> {
        self.link(name).map(|link| link.header.index)
    }

    /// The hardware address of a link.
    pub(crate) fn mac(&mut self, name: &str) -> io::Result<[u8; 6]> {
        let mac = self.link(name)?.attributes.into_iter().find_map(|attribute| match attribute {
            LinkAttribute::Address(bytes) => bytes.try_into().ok(),
            _ => None,
        });
        mac.ok_or_else(|| io::Error::other(format!("link {name} has no hardware address")))
    }

    /// Sets a link up or down. Down, the other end of a veth pair loses its carrier.
    pub(crate) fn set_up(&mut self, index: u32, up: bool) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = if up { LinkFlags::Up } else { LinkFlags::empty() };
        link.header.change_mask = LinkFlags::Up;
        self.ask(Route::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// The loopback interface up, as on every machine.
    pub(crate) fn set_loopback_up(&mut self) -> io::Result<()> {
        self.set_up(LOOPBACK, true)
    }

    /// Makes a link a port of a bridge, or takes it out of every bridge with its carrier up.
    pub(crate) fn set_master(&mut self, port: u32, bridge: Option<&str>) -> io::Result<()> {
        let mut link = LinkMessage::default();
        link.header.index = port;
        let master = bridge.map_or(Ok(0), |name| self.index(name))?;
        link.attributes.push(LinkAttribute::Controller(master));
        self.ask(Route::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// Whether a bridge port exchanges nothing with other isolated ports: `IFLA_BRPORT_ISOLATED` of if_link.h.
    pub(crate) fn set_isolated(&mut self, port: u32, isolated: bool) -> io::Result<()> {
        const PROTINFO: u16 = 12;
        const NESTED: u16 = 1 << 15;
        const ISOLATED: u16 = 33;
        let mut nested = vec![5, 0]; // one attribute of a byte, padded
        nested.extend(ISOLATED.to_ne_bytes());
        nested.extend([u8::from(isolated), 0, 0, 0]);
        let mut link = LinkMessage::default();
        link.header.interface_family = AddressFamily::Bridge;
        link.header.index = port;
        link.attributes.push(LinkAttribute::Other(DefaultNla::new(PROTINFO | NESTED, nested)));
        self.ask(Route::SetLink(link), NLM_F_ACK).map(drop)
    }

    /// Gives a link an IPv4 address.
    pub(crate) fn add_address(&mut self, index: u32, address: Ipv4Addr, prefix: u8) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = prefix;
        message.header.index = index;
        message.attributes.push(AddressAttribute::Local(address.into()));
        message.attributes.push(AddressAttribute::Address(address.into()));
        self.ask(Route::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL).map(drop)
    }

    /// Whether some link has this IPv4 address.
    pub(crate) fn has_address(&mut self, address: Ipv4Addr) -> io::Result<bool> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        let answers = self.ask(Route::GetAddress(message), NLM_F_DUMP)?;
        Ok(answers.iter().any(|answer| match answer {
            Route::NewAddress(a) => a.attributes.contains(&AddressAttribute::Local(IpAddr::V4(address))),
            _ => false,
        }))
    }
}

impl AsFd for Netlink {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
