//! The client's own address as the source of connections to servers (`source client`; TPROXY in the kernel's words),
//! and the one privilege that it takes.

use std::io;
use std::net::{IpAddr, SocketAddr};

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpSocket;

/// Becomes this user and group, and keeps CAP_NET_RAW of all privileges. Called before any thread starts: users
/// and capabilities belong to a thread and are inherited by those it makes.
///
/// # Errors
/// If the kernel refuses, as it does to those who are not root.
pub(crate) fn keep_net_raw_as(uid: u32, gid: u32) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    set_keep_capabilities(true)?;
    set_thread_groups(&[])?;
    set_thread_res_gid(gid, gid, gid)?;
    set_thread_res_uid(uid, uid, uid)?;
    set_keep_capabilities(false)?;
    let kept = CapabilitySet::NET_RAW;
    set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() },
    )?;
    Ok(())
}

/// Whether this process may use addresses that are not the machine's own.
pub(crate) fn is_allowed() -> bool {
    let enough = CapabilitySet::NET_RAW | CapabilitySet::NET_ADMIN;
    capabilities(None).is_ok_and(|there| there.effective.intersects(enough))
}

/// A socket towards `server` that comes from this address, on a port that the kernel chooses.
///
/// # Errors
/// If the two are not of one family, or the kernel refuses.
pub(crate) fn socket_of(client: IpAddr, server: SocketAddr) -> io::Result<TcpSocket> {
    let client = client.to_canonical();
    if client.is_ipv4() != server.is_ipv4() {
        return Err(io::Error::other("the server is of another address family"));
    }
    let socket = Socket::new(Domain::for_address(server), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    if client.is_ipv4() {
        socket.set_ip_transparent_v4(true)?;
    } else {
        socket.set_ip_transparent_v6(true)?;
    }
    socket.bind(&SocketAddr::new(client, 0).into())?;
    Ok(TcpSocket::from_std_stream(socket.into()))
}
