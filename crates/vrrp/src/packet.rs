//! The advertisement as it stands on the wire: a whole IP datagram in, a whole IP datagram out.
//!
//! Version 2 (RFC 3768, with the passwords of RFC 2338 §5.3.6) over IPv4 and version 3 (RFC 9568) over IPv4 and
//! IPv6. The IP header belongs to it because the receive checks of §7.1 (hop limit) and the checksum's pseudo-header
//! (§5.2.8) need it. Not here: which virtual router a packet is for, whether that one admits it
//! ([`Config::admits`](crate::Config::admits)), and what it means.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use core::time::Duration;

use crate::ah::{AH_LEN, AH_PROTOCOL};

/// IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// Bytes of an IPv4 header without options.
pub const HEADER_LEN: usize = 20;
/// Bytes of an IPv6 header.
pub const HEADER6_LEN: usize = 40;
/// Most addresses of one virtual router: so many of IPv6 fit into one datagram on Ethernet.
pub const MAX_ADDRESSES: usize = 64;
/// Where advertisements go over IPv4 (RFC 9568 §5.1.1.2).
pub const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Where advertisements go over IPv6 (RFC 9568 §5.1.2.2).
pub const GROUP6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
/// The TTL or hop limit of every advertisement: less has crossed a router (§5.1.1.3, §5.1.2.3).
pub const HOP_LIMIT: u8 = 255;
/// Bytes before the addresses.
const FIXED_LEN: usize = 8;
/// Bytes after the addresses in version 2, whether they are used or not.
const PASSWORD_LEN: usize = 8;
/// Type 1 (advertisement), the only one there is.
const ADVERTISEMENT: u8 = 1;
/// Authentication types of version 2 (RFC 2338 §5.3.6): none, a password in plain text, an authentication header.
const NO_AUTHENTICATION: u8 = 0;
const PLAIN_TEXT: u8 = 1;
const HEADER: u8 = 2;
/// Largest maximum advertise interval of version 3, centiseconds (12 bits).
const MAX_INTERVAL_CS: u16 = 0x0fff;
/// Class CS6, network control.
const CLASS: u8 = 0xc0;

/// Protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 3768: IPv4, whole seconds, a password if one likes.
    V2,
    /// RFC 9568: IPv4 and IPv6, centiseconds.
    V3,
}

/// What version 3 over IPv4 sums up. The RFCs contradict each other, so both are understood on receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksum {
    /// The message and a pseudo-header: RFC 5798 as keepalived reads it.
    PseudoHeader,
    /// The message alone: RFC 9568 §5.2.8.
    Message,
}

/// A password of version 2: it stands in every packet for all to read, and keeps apart what is not meant to meet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Password([u8; PASSWORD_LEN]);

impl Password {
    /// All eight bytes, zeros behind a shorter one.
    pub(crate) fn padded(&self) -> [u8; PASSWORD_LEN] {
        self.0
    }

    /// The first eight bytes count, as with keepalived.
    pub fn new(text: &str) -> Password {
        let mut bytes = [0; PASSWORD_LEN];
        for (to, from) in bytes.iter_mut().zip(text.bytes()) {
            *to = from;
        }
        Password(bytes)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

/// By what members of a virtual router of version 2 know each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authentication {
    /// By nothing.
    None,
    /// By a password that all can read.
    PlainText(Password),
    /// By an authentication header before the message; [`Association`](crate::Association) puts it there.
    Header,
}

/// How a virtual router writes its advertisements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Form {
    /// Protocol version.
    pub version: Version,
    /// Version 2 only.
    pub authentication: Authentication,
    /// Version 3 over IPv4 only.
    pub checksum: Checksum,
}

impl Form {
    /// Version 3 as keepalived speaks it.
    pub const V3: Form =
        Form { version: Version::V3, authentication: Authentication::None, checksum: Checksum::PseudoHeader };
}

/// What one advertisement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Virtual router identifier, 1 to 255.
    pub vrid: u8,
    /// Sender's priority: 0 "I stop", 255 "I own the address".
    pub priority: u8,
    /// How often the sender advertises. Version 3: whole centiseconds, 10 ms to 40.95 s; version 2: whole seconds,
    /// 1 to 255.
    pub interval: Duration,
    /// The virtual addresses, all of the family of the datagram.
    pub addresses: Vec<IpAddr>,
}

/// A datagram that is well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Who sent it.
    pub source: IpAddr,
    /// The group, or one of our own addresses.
    pub destination: IpAddr,
    /// TTL or hop limit on arrival.
    pub hop_limit: u8,
    /// Protocol version.
    pub version: Version,
    /// The password in it, or that there is an authentication header, which is still to be verified.
    pub authentication: Authentication,
    /// What it says.
    pub advertisement: Advertisement,
}

/// Why a packet was dropped (RFC 9568 §7.1, RFC 3768 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Shorter than its own lengths say, or no VRRP at all.
    Truncated,
    /// The TTL or hop limit is below what is asked for: it crossed a router, so it was not sent on this link.
    HopLimit(u8),
    /// Neither version 2 nor 3, or version 2 over IPv6.
    Version(u8),
    /// The virtual router speaks the other version.
    OtherVersion(Version),
    /// Another type than 1.
    Type(u8),
    /// The checksum is wrong.
    Checksum,
    /// VRID 0, which no virtual router may have.
    Vrid,
    /// An interval of zero: no time-out could be derived from it.
    Interval,
    /// No address in it.
    NoAddress,
    /// Authentication of a type that is not understood.
    Authentication(u8),
    /// Another password, one too many, or none.
    Password,
    /// One side has an authentication header and the other has none.
    Method,
    /// The authentication header was made with another key, or the datagram was altered.
    Seal,
    /// The authentication header's number is not above all that were heard before.
    Replay {
        /// Its number.
        sequence: u32,
        /// The highest of its sender so far.
        last: u32,
    },
    /// Sent to the group, where the plan has peers, or the other way round.
    Destination,
    /// A unicast packet of somebody who is not in the plan.
    Stranger,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Truncated => f.write_str("it is shorter than it says"),
            Refused::HopLimit(ttl) => write!(f, "its TTL is {ttl}, not 255: it was not sent on this link"),
            Refused::Version(version) => write!(f, "it is VRRP version {version}, which does not exist there"),
            Refused::OtherVersion(Version::V2) => f.write_str(
                "it is VRRP version 2; set the sender to version 3 (keepalived: vrrp_version 3), or write `version 2`",
            ),
            Refused::OtherVersion(Version::V3) => {
                f.write_str("it is VRRP version 3; set the sender to version 2, or take `version 2` out of the file")
            }
            Refused::Type(kind) => write!(f, "its type is {kind}, not 1 (advertisement)"),
            Refused::Checksum => f.write_str("its checksum is wrong"),
            Refused::Vrid => f.write_str("its VRID is 0"),
            Refused::Interval => f.write_str("its advertisement interval is zero"),
            Refused::NoAddress => f.write_str("it names no address"),
            Refused::Authentication(kind) => {
                write!(f, "its authentication is of type {kind}; give the sender a password or none")
            }
            Refused::Password => f.write_str("its password is another one; give both sides the same"),
            Refused::Method => f.write_str(
                "one side has an authentication header (keepalived: auth_type AH) and the other has none; write \
                 `method=ah` for both or for neither",
            ),
            Refused::Seal => f.write_str(
                "its authentication header is not right: it was altered on its way, or the sender has another password",
            ),
            Refused::Replay { sequence, last } => write!(
                f,
                "its number {sequence} is not above {last}, which was heard already: somebody repeats old packets, or its \
                 sender was started anew and has not heard this one yet"
            ),
            Refused::Destination => f.write_str(
                "one side sends to the group and the other to its peers; write `unicast` for both or for neither",
            ),
            Refused::Stranger => f.write_str("it comes from a machine that is not among the nodes of the vip"),
        }
    }
}

/// The Internet checksum (RFC 1071) over `parts`, each but the last of even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The sum over pseudo-header and message (RFC 5798 §5.2.8; RFC 8200 §8.1), not yet inverted twice: 0 if it is right.
fn checksum_with_pseudo_header(source: IpAddr, destination: IpAddr, message: &[u8]) -> u16 {
    let length = (message.len() as u32).to_be_bytes();
    match (source, destination) {
        (IpAddr::V4(s), IpAddr::V4(d)) => {
            checksum(&[&s.octets(), &d.octets(), &[0, PROTOCOL], &length[2..], message])
        }
        (IpAddr::V6(s), IpAddr::V6(d)) => {
            checksum(&[&s.octets(), &d.octets(), &length, &[0, 0, 0, PROTOCOL], message])
        }
        _ => unreachable!("a datagram has one family"),
    }
}

fn put_address(message: &mut Vec<u8>, address: &IpAddr) {
    match address {
        IpAddr::V4(address) => message.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => message.extend_from_slice(&address.octets()),
    }
}

/// The datagram that carries `advertisement` from `source` to `destination`, TTL 255, class CS6.
///
/// The IPv4 header's own checksum is left to the kernel, which fills it in on a socket with `IP_HDRINCL`.
///
/// # Panics
/// If a field is out of the range its documentation gives, or families are mixed.
pub fn encode(source: IpAddr, destination: IpAddr, form: &Form, advertisement: &Advertisement) -> Vec<u8> {
    let message = message(source, destination, form, advertisement);
    let mut datagram = Vec::with_capacity(HEADER6_LEN + message.len());
    if source.is_ipv4() {
        let total = (HEADER_LEN + message.len()) as u16;
        datagram.extend_from_slice(&[0x45, CLASS]);
        datagram.extend_from_slice(&total.to_be_bytes());
        datagram.extend_from_slice(&[0, 0, 0, 0, HOP_LIMIT, PROTOCOL, 0, 0]);
    } else {
        let length = (message.len() as u16).to_be_bytes();
        datagram.extend_from_slice(&[
            0x60 | CLASS >> 4,
            CLASS << 4,
            0,
            0,
            length[0],
            length[1],
            PROTOCOL,
            HOP_LIMIT,
        ]);
    }
    put_address(&mut datagram, &source);
    put_address(&mut datagram, &destination);
    datagram.extend_from_slice(&message);
    datagram
}

/// The Ethernet frame that carries a datagram of [`encode`] to the group (RFC 1112 §6.4, RFC 2464 §7), with the IPv4 header's
/// checksum, which no kernel fills in here.
pub fn frame_to_group(mac: [u8; 6], datagram: &[u8]) -> Vec<u8> {
    let is_ipv4 = datagram.first().is_some_and(|byte| byte >> 4 == 4);
    let mut frame = Vec::with_capacity(14 + datagram.len());
    let (to, kind) = if is_ipv4 {
        ([0x01, 0x00, 0x5e, 0, 0, 18], [0x08, 0x00])
    } else {
        ([0x33, 0x33, 0, 0, 0, 0x12], [0x86, 0xdd])
    };
    frame.extend_from_slice(&to);
    frame.extend_from_slice(&mac);
    frame.extend_from_slice(&kind);
    frame.extend_from_slice(datagram);
    if is_ipv4 && let Some(header) = frame[14..].first_chunk_mut::<HEADER_LEN>() {
        header[10..12].fill(0);
        let sum = checksum(&[&header[..]]);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
    }
    frame
}

fn message(source: IpAddr, destination: IpAddr, form: &Form, advertisement: &Advertisement) -> Vec<u8> {
    let Advertisement { vrid, priority, interval, addresses } = advertisement;
    assert!(*vrid > 0, "a VRID is 1 to 255");
    assert!((1..=MAX_ADDRESSES).contains(&addresses.len()), "1 to 64 addresses");
    let of_family = |address: &IpAddr| address.is_ipv4() == source.is_ipv4();
    assert!(of_family(&destination) && addresses.iter().all(of_family), "a datagram has one family");
    let timing = match form.version {
        Version::V2 => {
            let seconds = u8::try_from(interval.as_secs()).unwrap_or(0);
            assert!(seconds > 0 && source.is_ipv4(), "version 2 has 1 to 255 s, and no IPv6");
            let authentication = match form.authentication {
                Authentication::None => NO_AUTHENTICATION,
                Authentication::PlainText(_) => PLAIN_TEXT,
                Authentication::Header => HEADER,
            };
            [authentication, seconds]
        }
        Version::V3 => {
            let centiseconds = u16::try_from(interval.as_millis() / 10).unwrap_or(0);
            assert!((1..=MAX_INTERVAL_CS).contains(&centiseconds), "an interval is 10 ms to 40.95 s");
            centiseconds.to_be_bytes()
        }
    };
    let version = match form.version {
        Version::V2 => 2,
        Version::V3 => 3,
    };
    let mut message = Vec::with_capacity(FIXED_LEN + 16 * addresses.len() + PASSWORD_LEN);
    message.extend_from_slice(&[version << 4 | ADVERTISEMENT, *vrid, *priority, addresses.len() as u8]);
    message.extend_from_slice(&[timing[0], timing[1], 0, 0]);
    addresses.iter().for_each(|address| put_address(&mut message, address));
    if form.version == Version::V2 {
        message.extend_from_slice(&match form.authentication {
            Authentication::PlainText(password) => password.0,
            Authentication::None | Authentication::Header => [0; PASSWORD_LEN],
        });
    }
    let is_plain = form.version == Version::V2 || (source.is_ipv4() && form.checksum == Checksum::Message);
    let sum = if is_plain {
        checksum(&[&message])
    } else {
        checksum_with_pseudo_header(source, destination, &message)
    };
    message[6..8].copy_from_slice(&sum.to_be_bytes());
    message
}

/// What this IP datagram says, and how.
///
/// # Errors
/// Why it must be dropped. Whether its VRID is one of ours, and whether that one admits it, is for the caller to see;
/// reserved bits are ignored (§5.2.6); bytes after the end are covered by the checksum and otherwise ignored.
pub fn parse(datagram: &[u8]) -> Result<Packet, Refused> {
    match datagram.first().ok_or(Refused::Truncated)? >> 4 {
        4 => parse_ipv4(datagram),
        6 => parse_ipv6(datagram),
        _ => Err(Refused::Truncated),
    }
}

fn parse_ipv4(datagram: &[u8]) -> Result<Packet, Refused> {
    let (
        &[version_ihl, _, len_hi, len_lo, _, _, _, _, ttl, protocol, _, _, s0, s1, s2, s3, d0, d1, d2, d3],
        _,
    ) = datagram.split_first_chunk::<HEADER_LEN>().ok_or(Refused::Truncated)?;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([len_hi, len_lo]));
    if header_len < HEADER_LEN {
        return Err(Refused::Truncated);
    }
    let mut message = datagram.get(header_len..total).ok_or(Refused::Truncated)?;
    if protocol == AH_PROTOCOL {
        message = message_behind_header(message).ok_or(Refused::Truncated)?;
    } else if protocol != PROTOCOL {
        return Err(Refused::Truncated);
    }
    let (source, destination) = (Ipv4Addr::new(s0, s1, s2, s3), Ipv4Addr::new(d0, d1, d2, d3));
    parse_message(source.into(), destination.into(), ttl, protocol == AH_PROTOCOL, message)
}

/// What an authentication header stands before, if it is of the only length that there is here.
fn message_behind_header(bytes: &[u8]) -> Option<&[u8]> {
    let (header, message) = bytes.split_at_checked(AH_LEN)?;
    (header[0] == PROTOCOL && usize::from(header[1]) == AH_LEN / 4 - 2).then_some(message)
}

fn parse_ipv6(datagram: &[u8]) -> Result<Packet, Refused> {
    let (header, rest) = datagram.split_first_chunk::<HEADER6_LEN>().ok_or(Refused::Truncated)?;
    let &[_, _, _, _, len_hi, len_lo, protocol, hop_limit, ref addresses @ ..] = header;
    if protocol != PROTOCOL {
        return Err(Refused::Truncated);
    }
    let message = rest.get(..usize::from(u16::from_be_bytes([len_hi, len_lo]))).ok_or(Refused::Truncated)?;
    let (source, rest) = addresses.split_first_chunk::<16>().ok_or(Refused::Truncated)?;
    let destination = rest.first_chunk::<16>().ok_or(Refused::Truncated)?;
    parse_message(
        Ipv6Addr::from(*source).into(),
        Ipv6Addr::from(*destination).into(),
        hop_limit,
        false,
        message,
    )
}

fn parse_message(
    source: IpAddr,
    destination: IpAddr,
    hop_limit: u8,
    has_header: bool,
    message: &[u8],
) -> Result<Packet, Refused> {
    let (&[version_type, vrid, priority, count, timing_hi, timing_lo, _, _], rest) =
        message.split_first_chunk::<FIXED_LEN>().ok_or(Refused::Truncated)?;
    let version = match version_type >> 4 {
        2 if source.is_ipv4() => Version::V2,
        3 => Version::V3,
        other => return Err(Refused::Version(other)),
    };
    if version_type & 0x0f != ADVERTISEMENT {
        return Err(Refused::Type(version_type & 0x0f));
    }
    let size = if source.is_ipv4() { 4 } else { 16 };
    let (list, rest) = rest.split_at_checked(size * usize::from(count)).ok_or(Refused::Truncated)?;
    if !is_intact(source, destination, version, message) {
        return Err(Refused::Checksum);
    }
    let (interval, authentication) = match version {
        Version::V3 => {
            let centiseconds = u16::from_be_bytes([timing_hi, timing_lo]) & MAX_INTERVAL_CS;
            if has_header {
                return Err(Refused::Method);
            }
            (Duration::from_millis(u64::from(centiseconds) * 10), Authentication::None)
        }
        Version::V2 => {
            let password = rest.first_chunk().ok_or(Refused::Truncated)?;
            let authentication = match (timing_hi, has_header) {
                (NO_AUTHENTICATION, false) => Authentication::None,
                (PLAIN_TEXT, false) => Authentication::PlainText(Password(*password)),
                (HEADER, true) => Authentication::Header,
                (other, _) => return Err(Refused::Authentication(other)),
            };
            (Duration::from_secs(u64::from(timing_lo)), authentication)
        }
    };
    if vrid == 0 {
        return Err(Refused::Vrid);
    }
    if interval.is_zero() {
        return Err(Refused::Interval);
    }
    if count == 0 {
        return Err(Refused::NoAddress);
    }
    let addresses = list.chunks_exact(size).filter_map(address).collect();
    let advertisement = Advertisement { vrid, priority, interval, addresses };
    Ok(Packet { source, destination, hop_limit, version, authentication, advertisement })
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    let v4 = <[u8; 4]>::try_from(bytes).map(IpAddr::from);
    v4.or_else(|_| <[u8; 16]>::try_from(bytes).map(IpAddr::from)).ok()
}

/// Version 3 over IPv4 may be summed up in three ways: with the pseudo-header, without it, and, as keepalived up to
/// 1.3.6 did for unicast, with the group in place of the destination.
fn is_intact(source: IpAddr, destination: IpAddr, version: Version, message: &[u8]) -> bool {
    let is_plain = || checksum(&[message]) == 0;
    let with = |destination| checksum_with_pseudo_header(source, destination, message) == 0;
    match version {
        Version::V2 => is_plain(),
        Version::V3 if source.is_ipv6() => with(destination),
        Version::V3 => with(destination) || is_plain() || with(GROUP.into()),
    }
}

#[cfg(test)]
mod tests;
