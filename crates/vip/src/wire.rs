//! The sockets for IPv4 on one interface: VRRP in and out, gratuitous ARP out; `wire6` has those for IPv6. Called by
//! the engine.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

use crate::sys;

/// The sockets on one interface.
#[derive(Debug)]
pub(crate) struct Wire {
    vrrp: OwnedFd,
    arp: OwnedFd,
    index: u32,
}

impl Wire {
    /// Opens the sockets on the interface of this name and index, for packets of this IP protocol.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`, `ENODEV` if the interface went away.
    pub(crate) fn open(name: &str, index: u32, protocol: u8) -> io::Result<Wire> {
        let vrrp = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
        vrrp.set_nonblocking(true)?;
        vrrp.set_header_included_v4(true)?;
        vrrp.bind_device(Some(name.as_bytes()))?;
        vrrp.join_multicast_v4_n(&relais_vrrp::GROUP, &InterfaceIndexOrAddress::Index(index))?;
        vrrp.set_multicast_loop_v4(false)?;
        vrrp.set_multicast_all_v4(false)?;
        // Protocol 0: it sends whole frames and receives none.
        let arp = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        Ok(Wire { vrrp: vrrp.into(), arp: arp.into(), index })
    }

    /// The interface index that it was opened on.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Readable when a packet came.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.vrrp.as_fd()
    }

    /// The next datagram with its IPv4 header; `None` when no more wait. A longer one than `buffer` is cut.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> Option<&'b [u8]> {
        loop {
            match rustix::net::recv(&self.vrrp, &mut *buffer, RecvFlags::DONTWAIT) {
                Ok((length, _)) => return Some(&buffer[..length.min(buffer.len())]),
                Err(Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Sends an advertisement with its IPv4 header.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send(&self, destination: Ipv4Addr, datagram: &[u8]) -> io::Result<()> {
        let to = SocketAddrV4::new(destination, 0);
        rustix::net::sendto(&self.vrrp, datagram, SendFlags::DONTWAIT, &to)?;
        Ok(())
    }

    /// Sends an advertisement to the group from this hardware address (RFC 9568 §7.2).
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn send_to_group_as(&self, mac: [u8; 6], datagram: &[u8]) -> io::Result<()> {
        sys::send_frame(self.arp.as_fd(), self.index, &relais_vrrp::frame_to_group(mac, datagram))
    }

    /// Tells the link of the interface `index` that `address` is at `mac`.
    ///
    /// Both forms go out, an ARP request (RFC 5227 §3, what keepalived sends) and an ARP reply: there are
    /// hosts and switches that learn from only one of the two, and the second costs 42 bytes.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn announce(&self, index: u32, mac: [u8; 6], address: Ipv4Addr) -> io::Result<()> {
        for operation in [Operation::Request, Operation::Reply] {
            sys::send_frame(self.arp.as_fd(), index, &gratuitous_arp(mac, address, operation))?;
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Operation {
    Request = 1,
    Reply = 2,
}

/// RFC 826 on Ethernet, sender and target address both `address`.
fn gratuitous_arp(mac: [u8; 6], address: Ipv4Addr, operation: Operation) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac);
    frame[12..20].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4]);
    frame[21] = operation as u8;
    frame[22..28].copy_from_slice(&mac);
    frame[28..32].copy_from_slice(&address.octets());
    if let Operation::Reply = operation {
        frame[32..38].copy_from_slice(&mac); // Linux takes a reply for gratuitous only so
    }
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gratuitous_arp_names_the_same_address_twice() {
        let mac = [2, 0, 0, 0, 0, 7];
        let frame = gratuitous_arp(mac, Ipv4Addr::new(10, 9, 0, 100), Operation::Request);
        let expected = [
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 7, 8, 6, // broadcast, from mac, ARP
            0, 1, 8, 0, 6, 4, 0, 1, // Ethernet, IPv4, request
            2, 0, 0, 0, 0, 7, 10, 9, 0, 100, 0, 0, 0, 0, 0, 0, 10, 9, 0, 100,
        ];
        assert_eq!(frame, expected);
        let frame = gratuitous_arp(mac, Ipv4Addr::new(10, 9, 0, 100), Operation::Reply);
        assert_eq!((frame[21], &frame[32..38]), (2, &mac[..]));
    }
}
