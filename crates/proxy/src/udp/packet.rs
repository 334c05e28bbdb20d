//! Datagrams with both of their addresses: who sent one, and which of our addresses it was sent to. A client takes
//! an answer only from the address that it asked, and a socket that is bound to every address (`*`) would answer
//! from whichever the route prefers (ip(7), `IP_PKTINFO`; RFC 3542 §6.2).

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::libc;
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, sendmsg, setsockopt, sockopt,
};

/// Longest datagram: what IPv6 can say of a length without jumbograms (RFC 8200 §3) and a bit, so none is cut.
pub(super) const LONGEST: usize = 65_536;

/// Has the kernel tell with each datagram where it was sent to, if the socket is bound to more than one address.
///
/// # Errors
/// If the kernel refuses.
pub(super) fn tell_destinations(socket: &OwnedFd, bound: SocketAddr) -> io::Result<()> {
    match bound {
        _ if !bound.ip().is_unspecified() => Ok(()),
        SocketAddr::V4(_) => Ok(setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?),
        SocketAddr::V6(_) => Ok(setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?),
    }
}

/// What came: the length of what is in `buffer`, who sent it, and where to, if the kernel was asked to tell.
///
/// # Errors
/// As recvmsg(2); `WouldBlock` if nothing waits.
pub(super) fn receive(
    socket: &OwnedFd,
    buffer: &mut [u8],
) -> io::Result<(usize, SocketAddr, Option<IpAddr>)> {
    let mut control = [0; 64]; // CMSG_SPACE of the longer of the two is 40
    let mut into = [IoSliceMut::new(buffer)];
    let fd = socket.as_raw_fd();
    let came = recvmsg::<SockaddrStorage>(fd, &mut into, Some(&mut control), MsgFlags::empty())?;
    let client = came.address.as_ref().and_then(address).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut destination = None;
    for message in came.cmsgs()? {
        match message {
            // The address to answer from, which is not where a broadcast was sent to. None if the datagram came
            // before the kernel was asked.
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let [ours, header] = [info.ipi_spec_dst, info.ipi_addr].map(|a| u32::from_be(a.s_addr));
                destination = Some(Ipv4Addr::from(if ours == 0 { header } else { ours }).into());
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr).into());
            }
            _ => {}
        }
    }
    Ok((came.bytes, client, destination))
}

/// Sends `bytes` to `client`, from the address `from` if there is one.
///
/// # Errors
/// As sendmsg(2); `WouldBlock` if the socket is full.
pub(super) fn send(
    socket: &OwnedFd,
    bytes: &[u8],
    client: SocketAddr,
    from: Option<IpAddr>,
) -> io::Result<()> {
    let parts = [IoSlice::new(bytes)];
    let client = SockaddrStorage::from(client);
    let send = |messages: &[ControlMessage<'_>]| {
        sendmsg(socket.as_raw_fd(), &parts, messages, MsgFlags::MSG_DONTWAIT, Some(&client))
    };
    match from {
        None => send(&[])?,
        Some(IpAddr::V4(ip)) => {
            let s_addr = u32::from(ip).to_be();
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            send(&[ControlMessage::Ipv4PacketInfo(&info)])?
        }
        Some(IpAddr::V6(ip)) => {
            let ipi6_addr = libc::in6_addr { s6_addr: ip.octets() };
            send(&[ControlMessage::Ipv6PacketInfo(&libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 })])?
        }
    };
    Ok(())
}

fn address(storage: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = storage.as_sockaddr_in().map(|v4| SocketAddr::V4(SocketAddrV4::new(v4.ip(), v4.port())));
    let v6 = || {
        let v6 = storage.as_sockaddr_in6()?;
        Some(SocketAddr::V6(SocketAddrV6::new(v6.ip(), v6.port(), v6.flowinfo(), v6.scope_id())))
    };
    v4.or_else(v6)
}
