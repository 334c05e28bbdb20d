//! What is asked of the kernel's tables beside changing rules: its counters, and the connections that it passes on
//! (`linux/netfilter/nfnetlink_conntrack.h`), those to a dead server to be forgotten. Called by `forward`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

use super::rules::TABLE;
use crate::nft::Family;

const GET_OBJECT: u16 = 10 << 8 | 19;
const GET_CONNECTION: u16 = 1 << 8 | 1;
const DELETE_CONNECTION: u16 = 1 << 8 | 2;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
/// Header of netlink and of netfilter's part of it.
const HEADER: usize = 20;
/// Longest wait for an answer: the kernel gives it at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// A connection: what its first packet said, and who answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    pub(crate) protocol: u8,
    /// Where its first packet was sent.
    pub(crate) to: SocketAddr,
    /// Where it was led to.
    pub(crate) server: SocketAddr,
}

/// Connections by the names of the counters; empty if the table is not there.
///
/// # Errors
/// What the kernel says.
pub(crate) fn counters(family: Family) -> io::Result<HashMap<String, u64>> {
    let mut table = Vec::new();
    attribute(&mut table, 1, &[TABLE.as_bytes(), &[0]].concat());
    let mut counted = HashMap::new();
    ask(GET_OBJECT, DUMP, family as u8, &table, |attributes| {
        // The kernel leaves others' tables out only if it likes.
        if find(attributes, 1).is_none_or(|name| text(name) != TABLE) {
            return;
        }
        let packets = find(attributes, 4).and_then(|data| find(data, 2)).and_then(<[u8]>::first_chunk);
        if let (Some(name), Some(packets)) = (find(attributes, 2), packets) {
            counted.insert(text(name).to_owned(), u64::from_be_bytes(*packets));
        }
    })?;
    Ok(counted)
}

/// Has the kernel forget the connections that `which` names: their next packets begin anew. How many there were.
///
/// # Errors
/// What the kernel says.
pub(crate) fn cut(family: Family, which: impl Fn(&Flow) -> bool) -> io::Result<usize> {
    let mut doomed: Vec<Vec<u8>> = Vec::new();
    ask(GET_CONNECTION, DUMP, family as u8, &[], |attributes| {
        let (original, reply) = (find(attributes, 1), find(attributes, 2));
        let flow = original.zip(reply).and_then(|(original, reply)| {
            let ((protocol, _, to), (_, server, _)) = (tuple(original)?, tuple(reply)?);
            Some(Flow { protocol, to, server })
        });
        if let (Some(flow), Some(original)) = (flow, original)
            && which(&flow)
        {
            let mut key = Vec::new();
            attribute(&mut key, 1 | 0x8000, original);
            if let Some(id) = find(attributes, 12) {
                attribute(&mut key, 12, id);
            }
            doomed.push(key);
        }
    })?;
    for key in &doomed {
        match ask(DELETE_CONNECTION, ACK, family as u8, key, |_| {}) {
            Err(error) if error.raw_os_error() != Some(Errno::NOENT.raw_os_error()) => return Err(error),
            _ => {} // it may have ended by itself
        }
    }
    Ok(doomed.len())
}

/// Protocol, source and destination of a tuple.
fn tuple(bytes: &[u8]) -> Option<(u8, SocketAddr, SocketAddr)> {
    let (addresses, ports) = (find(bytes, 1)?, find(bytes, 2)?);
    let ipv4 = |kind| find(addresses, kind)?.first_chunk::<4>().map(|ip| IpAddr::V4(Ipv4Addr::from(*ip)));
    let ipv6 = |kind| find(addresses, kind)?.first_chunk::<16>().map(|ip| IpAddr::V6(Ipv6Addr::from(*ip)));
    let port = |kind| find(ports, kind)?.first_chunk::<2>().map(|port| u16::from_be_bytes(*port));
    let source = SocketAddr::new(ipv4(1).or_else(|| ipv6(3))?, port(2)?);
    let destination = SocketAddr::new(ipv4(2).or_else(|| ipv6(4))?, port(3)?);
    Some((*find(ports, 1)?.first()?, source, destination))
}

fn attribute(to: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    to.extend_from_slice(&((bytes.len() + 4) as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(bytes);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// The first attribute of this kind.
fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((header, _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default().trim_end_matches('\0')
}

/// Asks, and hands the attributes of every answer on until the kernel says that it was the last.
fn ask(kind: u16, flags: u16, family: u8, attributes: &[u8], mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let socket =
        net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(NETFILTER))?;
    net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let mut message = Vec::with_capacity(HEADER + attributes.len());
    message.extend_from_slice(&((HEADER + attributes.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    message.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0, family, 0, 0, 0]);
    message.extend_from_slice(attributes);
    net::send(&socket, &message, SendFlags::empty())?;
    let mut buffer = vec![0u8; 64 * 1024];
    while !read(&socket, &mut buffer, &mut each)? {}
    Ok(())
}

/// Reads once; whether that was all.
fn read(socket: &OwnedFd, buffer: &mut [u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    let length = match net::recv(socket, &mut *buffer, RecvFlags::empty()) {
        Err(Errno::INTR) => return Ok(false),
        other => other?.0,
    };
    let mut rest = &buffer[..length];
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let code = i32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
        match u16::from_ne_bytes([header[4], header[5]]) {
            DONE => return Ok(true),
            ERROR if code != 0 => return Err(io::Error::from_raw_os_error(-code)),
            ERROR => return Ok(true),
            _ => each(rest.get(HEADER..size).unwrap_or_default()),
        }
        rest = rest.get(size.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seen on the wire: `ctnetlink` on a connection of 10.9.1.2 to 10.9.1.100:80 that was led to 10.9.2.11:8080.
    #[test]
    fn a_tuple_is_read_as_the_kernel_writes_it_and_cut_off_ones_are_left() {
        let bytes = [
            20, 0, 1, 128, 8, 0, 1, 0, 10, 9, 1, 2, 8, 0, 2, 0, 10, 9, 1, 100, // addresses
            28, 0, 2, 128, 5, 0, 1, 0, 6, 0, 0, 0, 6, 0, 2, 0, 200, 10, 0, 0, 6, 0, 3, 0, 0, 80, 0,
            0, // ports
        ];
        let expected = (6, "10.9.1.2:51210".parse().expect("one"), "10.9.1.100:80".parse().expect("one"));
        assert_eq!(tuple(&bytes), Some(expected));
        for length in 0..bytes.len() - 2 {
            assert_eq!(tuple(&bytes[..length]), None, "{length}");
        }
    }
}
