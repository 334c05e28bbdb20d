//! What is asked of the kernel's tables beside changing rules: its counters, and the connections that it passes on
//! (`linux/netfilter/nfnetlink_conntrack.h`), those to a dead server to be forgotten. Called by `forward`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use rustix::net::netlink::NETFILTER;

use super::netlink::{ACK, DUMP, attribute, find, text};
use super::rules::TABLE;
use crate::nft::Family;

const GET_OBJECT: u16 = 10 << 8 | 19;
const GET_CONNECTION: u16 = 1 << 8 | 1;
const DELETE_CONNECTION: u16 = 1 << 8 | 2;

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
    ask(GET_OBJECT, DUMP, family, &table, |attributes| {
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
    ask(GET_CONNECTION, DUMP, family, &[], |attributes| {
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
        match ask(DELETE_CONNECTION, ACK, family, key, |_| {}) {
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

fn ask(kind: u16, flags: u16, family: Family, attributes: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
    super::netlink::ask(NETFILTER, kind, flags, [family as u8, 0, 0, 0], attributes, each)
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
