//! What this process asks of the kernel's routing tables: which interface has which addresses, the
//! virtual address put there with a lease and taken away, and word of every change.
//!
//! Called by the engine on its real-time thread. The kernel answers a request before `send` returns, so
//! that nothing here waits for anything but the kernel's own lock.

use std::io;
use std::net::IpAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_route::AddressFamily;
use netlink_packet_route::RouteNetlinkMessage as Route;
use netlink_packet_route::address::{
    AddressAttribute, AddressFlags, AddressHeaderFlags, AddressMessage, CacheInfo,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Multicast groups of `rtnetlink(7)`: link changes, and changes of IPv4 and IPv6 addresses.
const GROUPS: u32 = 0x1 | 0x10 | 0x100;
/// Routing table `local`, and the number that marks routes as ours (`rtnetlink(7)`: above 4, free to use).
const LOCAL_TABLE: u8 = 255;
const OUR_PROTOCOL: u8 = 112;
/// The kernel never puts more than this into one datagram.
const BUFFER: usize = 32 * 1024;
/// Most datagrams that one answer or one burst of news may consist of.
const MAX_DATAGRAMS: usize = 4096;

/// An interface as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) index: u32,
    pub(crate) mac: [u8; 6],
    /// It is up and has a carrier.
    pub(crate) running: bool,
    /// Its addresses, the primary ones first, without those of IPv6 that the kernel is still trying.
    pub(crate) addresses: Vec<IpAddr>,
}

/// Something changed in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// An interface came, went, or changed its flags.
    Link(String),
    /// An address came to the interface of this index, or went.
    Address { index: u32, address: IpAddr, gone: bool },
    /// There was more news than the kernel could keep: look at everything again.
    Lost,
}

/// A socket for requests, and one for news.
#[derive(Debug)]
pub(crate) struct Netlink {
    requests: OwnedFd,
    news: OwnedFd,
    sequence: u32,
    buffer: Vec<u8>,
}

fn open(groups: u32, flags: SocketFlags) -> io::Result<OwnedFd> {
    let socket = net::socket_with(
        net::AddressFamily::NETLINK,
        SocketType::RAW,
        flags | SocketFlags::CLOEXEC,
        None, // NETLINK_ROUTE
    )?;
    net::bind(&socket, &SocketAddrNetlink::new(0, groups))?;
    Ok(socket)
}

fn os_error(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code.abs())
}

impl Netlink {
    /// # Errors
    /// If the kernel has no descriptors left.
    pub(crate) fn new() -> io::Result<Netlink> {
        Ok(Netlink {
            requests: open(0, SocketFlags::empty())?,
            news: open(GROUPS, SocketFlags::NONBLOCK)?,
            sequence: 0,
            buffer: vec![0; BUFFER],
        })
    }

    /// Readable when there is news.
    pub(crate) fn news_fd(&self) -> BorrowedFd<'_> {
        self.news.as_fd()
    }

    /// The interface `name`; `None` if there is none.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn interface(&mut self, name: &str) -> io::Result<Option<Interface>> {
        let mut message = LinkMessage::default();
        message.attributes.push(LinkAttribute::IfName(name.into()));
        let mut found = None;
        let got = self.ask(Route::GetLink(message), NLM_F_ACK, |answer| {
            if let Route::NewLink(link) = answer {
                found = Some(describe(&link));
            }
        });
        match got {
            Err(e) if e.raw_os_error() == Some(libc::ENODEV) => return Ok(None),
            other => other?,
        }
        let Some(mut found) = found else { return Ok(None) };
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Unspec;
        let (mut primary, mut secondary) = (Vec::new(), Vec::new());
        self.ask(Route::GetAddress(message), NLM_F_DUMP, |answer| {
            if let Route::NewAddress(message) = answer
                && message.header.index == found.index
                && !message.header.flags.contains(AddressHeaderFlags::Tentative)
                && let Some(address) = local(&message)
            {
                let is_secondary = message.header.flags.contains(AddressHeaderFlags::Secondary);
                if is_secondary { secondary.push(address) } else { primary.push(address) }
            }
        })?;
        primary.append(&mut secondary);
        found.addresses = primary;
        Ok(Some(found))
    }

    /// Puts `address` on the interface, or extends its lease if it is there.
    ///
    /// It is added with the prefix that the file gives, as `keepalived` and `ip address add` do: within a
    /// subnet that the interface is in already it becomes a secondary address, which is never chosen as a
    /// source for new connections; outside of it the kernel adds the route to its neighbours with it.
    ///
    /// One of IPv6 is there at once, without duplicate address detection (the election has settled whose it is), is
    /// no source for new connections (its preferred time is over), and brings no route: that would replace the
    /// network's own and end with the lease.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn put(&mut self, index: u32, address: IpAddr, prefix: u8, lease: Duration) -> io::Result<()> {
        let mut message = address_message(index, address, prefix);
        message.attributes.push(AddressAttribute::Address(address));
        let seconds = u32::try_from(lease.as_secs()).unwrap_or(u32::MAX);
        let mut lifetime = CacheInfo::default();
        lifetime.ifa_valid = seconds;
        lifetime.ifa_preferred = if address.is_ipv4() { seconds } else { 0 };
        if address.is_ipv6() {
            message.header.flags |= AddressHeaderFlags::Nodad;
            message
                .attributes
                .push(AddressAttribute::Flags(AddressFlags::Nodad | AddressFlags::Noprefixroute));
        }
        message.attributes.push(AddressAttribute::CacheInfo(lifetime));
        self.ask(Route::NewAddress(message), NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, |_| ())
    }

    /// Takes `address` off the interface; whether it was there. Of IPv4 it goes whatever its prefix, of IPv6 the kernel
    /// wants the right one.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn take(&mut self, index: u32, address: IpAddr, prefix: u8) -> io::Result<bool> {
        let message = address_message(index, address, if address.is_ipv4() { 32 } else { prefix });
        match self.ask(Route::DelAddress(message), NLM_F_ACK, |_| ()) {
            Err(e) if matches!(e.raw_os_error(), Some(libc::EADDRNOTAVAIL | libc::ENODEV)) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// Makes packets to `address` be taken for ours without its being on any interface, or ends that; whether
    /// there was something to end.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn accept_without_address(&mut self, address: IpAddr, accept: bool) -> io::Result<bool> {
        let Some(loopback) = self.interface("lo")? else { return Ok(false) };
        let (family, length, destination) = match address {
            IpAddr::V4(address) => (AddressFamily::Inet, 32, RouteAddress::Inet(address)),
            IpAddr::V6(address) => (AddressFamily::Inet6, 128, RouteAddress::Inet6(address)),
        };
        let mut message = RouteMessage::default();
        message.header.address_family = family;
        message.header.destination_prefix_length = length;
        message.header.table = LOCAL_TABLE;
        message.header.protocol = RouteProtocol::Other(OUR_PROTOCOL);
        message.header.scope = RouteScope::Host;
        message.header.kind = RouteType::Local;
        message.attributes.push(RouteAttribute::Destination(destination));
        message.attributes.push(RouteAttribute::Oif(loopback.index));
        if accept {
            let flags = NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE;
            return self.ask(Route::NewRoute(message), flags, |_| ()).map(|()| true);
        }
        match self.ask(Route::DelRoute(message), NLM_F_ACK, |_| ()) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(false),
            other => other.map(|()| true),
        }
    }

    /// The news since the last call.
    pub(crate) fn drain_news(&mut self) -> Vec<News> {
        let mut news = Vec::new();
        for _ in 0..MAX_DATAGRAMS {
            match net::recv(&self.news, self.buffer.as_mut_slice(), RecvFlags::DONTWAIT) {
                Ok((length, _)) => each_message(&self.buffer[..length], |message| {
                    if let NetlinkPayload::InnerMessage(message) = message.payload {
                        news.extend(as_news(message));
                    }
                }),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => news.push(News::Lost),
                Err(_) => break,
            }
        }
        news
    }

    /// Sends one request and gives each part of the answer to `part`, until the kernel says it is done.
    pub(crate) fn ask(&mut self, request: Route, flags: u16, mut part: impl FnMut(Route)) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(request));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        net::send(&self.requests, &bytes, SendFlags::empty())?;

        for _ in 0..MAX_DATAGRAMS {
            let length = match net::recv(&self.requests, self.buffer.as_mut_slice(), RecvFlags::empty()) {
                Err(Errno::INTR) => continue,
                other => other?.0,
            };
            let (mut end, sequence) = (None, self.sequence);
            each_message(&self.buffer[..length], |message| {
                if message.header.sequence_number != sequence {
                    return;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => part(inner),
                    NetlinkPayload::Done(_) => end = Some(Ok(())),
                    NetlinkPayload::Error(e) => {
                        end = Some(e.code.map_or(Ok(()), |code| Err(os_error(code.get()))));
                    }
                    _ => {}
                }
            });
            if let Some(end) = end {
                return end;
            }
        }
        Err(io::Error::other("the kernel's answer has no end"))
    }
}

/// Goes through the messages of one datagram; one that this build cannot read is passed over.
fn each_message(mut bytes: &[u8], mut each: impl FnMut(NetlinkMessage<Route>)) {
    while bytes.len() >= 16 {
        let length = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if length < 16 || length > bytes.len() {
            return;
        }
        if let Ok(message) = NetlinkMessage::<Route>::deserialize(&bytes[..length]) {
            each(message);
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
}

fn describe(link: &LinkMessage) -> Interface {
    let mut mac = [0; 6];
    for attribute in &link.attributes {
        if let LinkAttribute::Address(bytes) = attribute
            && let Ok(bytes) = <[u8; 6]>::try_from(bytes.as_slice())
        {
            mac = bytes;
        }
    }
    let running = link.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
    Interface { index: link.header.index, mac, running, addresses: Vec::new() }
}

fn local(message: &AddressMessage) -> Option<IpAddr> {
    message.attributes.iter().find_map(|attribute| match attribute {
        AddressAttribute::Local(address @ IpAddr::V4(_))
        | AddressAttribute::Address(address @ IpAddr::V6(_)) => Some(*address),
        _ => None,
    })
}

fn address_message(index: u32, address: IpAddr, prefix: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    message.header.index = index;
    message.header.prefix_len = prefix;
    message.attributes.push(AddressAttribute::Local(address));
    message
}

fn as_news(message: Route) -> Option<News> {
    match message {
        Route::NewLink(link) | Route::DelLink(link) => {
            link.attributes.into_iter().find_map(|attribute| match attribute {
                LinkAttribute::IfName(name) => Some(News::Link(name)),
                _ => None,
            })
        }
        Route::NewAddress(message) => {
            local(&message).map(|address| News::Address { index: message.header.index, address, gone: false })
        }
        Route::DelAddress(message) => {
            local(&message).map(|address| News::Address { index: message.header.index, address, gone: true })
        }
        _ => None,
    }
}
