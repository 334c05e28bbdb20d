//! The sockets for IPv6 on one interface: VRRP in and out, unsolicited neighbour advertisements out. Called by the
//! engine.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use relais_vrrp::{GROUP6, HEADER6_LEN, PROTOCOL};
use rustix::net::SendFlags;
use socket2::{Domain, Protocol, Socket, Type};

use crate::sys;

/// ICMPv6 (RFC 4443), neighbour advertisement (RFC 4861 §4.4), and its only option here, the link-layer address.
const ICMPV6: u8 = 58;
const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const TARGET_LINK_LAYER_ADDRESS: u8 = 2;
/// Flags: the sender is a router; what was known before is to be replaced.
const ROUTER: u8 = 0x80;
const OVERRIDE: u8 = 0x20;
/// Ethernet, IPv6, and the advertisement with its option.
const FRAME_LEN: usize = 14 + HEADER6_LEN + ADVERTISEMENT_LEN;
const ADVERTISEMENT_LEN: usize = 32;

/// The sockets for IPv6 on one interface.
#[derive(Debug)]
pub(crate) struct Wire6 {
    vrrp: OwnedFd,
    packets: OwnedFd,
    index: u32,
}

impl Wire6 {
    /// Opens the sockets on the interface of this name and index.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`, `ENODEV` if the interface went away, `EAFNOSUPPORT` in a kernel without IPv6.
    pub(crate) fn open(name: &str, index: u32) -> io::Result<Wire6> {
        let vrrp = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::from(i32::from(PROTOCOL))))?;
        vrrp.set_nonblocking(true)?;
        vrrp.set_header_included_v6(true)?;
        vrrp.bind_device(Some(name.as_bytes()))?;
        vrrp.join_multicast_v6(&GROUP6, index)?;
        vrrp.set_multicast_if_v6(index)?;
        vrrp.set_multicast_loop_v6(false)?;
        sys::tell_destination_and_hop_limit(vrrp.as_fd())?;
        let packets = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        Ok(Wire6 { vrrp: vrrp.into(), packets: packets.into(), index })
    }

    /// The interface index that it was opened on.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Readable when a packet came.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.vrrp.as_fd()
    }

    /// The next datagram; `None` when no more wait. A longer one than `buffer` is cut.
    ///
    /// The kernel gives the message without its header, so that one is made from what it tells beside it.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        let (header, message) = buffer.split_first_chunk_mut::<HEADER6_LEN>()?;
        let received = loop {
            match sys::receive_with_header(self.vrrp.as_fd(), message) {
                Ok(received) => break received,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return None,
            }
        };
        let length = (received.length as u16).to_be_bytes();
        header[..8].copy_from_slice(&[0x60, 0, 0, 0, length[0], length[1], PROTOCOL, received.hop_limit]);
        header[8..24].copy_from_slice(&received.source.octets());
        header[24..].copy_from_slice(&received.destination.octets());
        Some(&buffer[..HEADER6_LEN + received.length])
    }

    /// Sends an advertisement with its IPv6 header.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send(&self, destination: Ipv6Addr, datagram: &[u8]) -> io::Result<()> {
        let to = SocketAddrV6::new(destination, 0, 0, self.index);
        rustix::net::sendto(&self.vrrp, datagram, SendFlags::DONTWAIT, &to)?;
        Ok(())
    }

    /// Sends an advertisement to the group from this hardware address (RFC 9568 §7.2).
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send_to_group_as(&self, mac: [u8; 6], datagram: &[u8]) -> io::Result<()> {
        sys::send_frame(self.packets.as_fd(), self.index, &relais_vrrp::frame_to_group(mac, datagram))
    }

    /// Tells all nodes on the link of the interface `index` that `address` is at `mac` (RFC 4861 §7.2.6);
    /// `is_router`: the machine forwards.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn announce(
        &self,
        index: u32,
        mac: [u8; 6],
        address: Ipv6Addr,
        is_router: bool,
    ) -> io::Result<()> {
        sys::send_frame(self.packets.as_fd(), index, &unsolicited_advertisement(mac, address, is_router))
    }
}

fn unsolicited_advertisement(mac: [u8; 6], address: Ipv6Addr, is_router: bool) -> [u8; FRAME_LEN] {
    const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    let mut frame = [0; FRAME_LEN];
    frame[..6].copy_from_slice(&[0x33, 0x33, 0, 0, 0, 1]);
    frame[6..12].copy_from_slice(&mac);
    frame[12..14].copy_from_slice(&[0x86, 0xdd]);
    let ip = &mut frame[14..];
    ip[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, ADVERTISEMENT_LEN as u8, ICMPV6, 255]);
    ip[8..24].copy_from_slice(&address.octets());
    ip[24..40].copy_from_slice(&ALL_NODES.octets());
    ip[40] = NEIGHBOUR_ADVERTISEMENT;
    ip[44] = OVERRIDE | if is_router { ROUTER } else { 0 };
    ip[48..64].copy_from_slice(&address.octets());
    ip[64..66].copy_from_slice(&[TARGET_LINK_LAYER_ADDRESS, 1]);
    ip[66..72].copy_from_slice(&mac);
    // RFC 8200 §8.1: source, destination, length and protocol are summed up with the message.
    let words = ip[8..].chunks_exact(2).map(|w| u32::from(w[0]) << 8 | u32::from(w[1]));
    let mut sum = words.sum::<u32>() + ADVERTISEMENT_LEN as u32 + u32::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    ip[42..44].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keepalived_announces_with_the_same_bytes() {
        // Captured from keepalived 2.2.7.
        let expected = "33330000000102000000000186dd6000000000203afffe800000000000000000000000000064ff02000000000000\
                        0000000000000001880056d520000000fe8000000000000000000000000000640201020000000001";
        let hex = |frame: &[u8]| frame.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let address = "fe80::64".parse().unwrap();
        assert_eq!(hex(&unsolicited_advertisement([2, 0, 0, 0, 0, 1], address, false)), expected);
        assert_eq!(unsolicited_advertisement([2, 0, 0, 0, 0, 1], address, true)[58], OVERRIDE | ROUTER);
    }
}
