//! The advertisement as it stands on the wire: a whole IPv4 datagram in, a whole IPv4 datagram out.
//!
//! RFC 9568 §5. The IPv4 header belongs to it because the receive checks of §7.1 (TTL) and the checksum's
//! pseudo-header (§5.2.8) need it. Not here: which virtual router a packet is for, and what it means.

use alloc::vec::Vec;
use core::fmt;
use core::net::Ipv4Addr;
use core::time::Duration;

/// IP protocol number of VRRP.
pub const PROTOCOL: u8 = 112;
/// Bytes of an IPv4 header without options.
pub const HEADER_LEN: usize = 20;
/// Most addresses that one advertisement can carry: its count is one byte.
pub const MAX_ADDRESSES: usize = 255;
/// Where advertisements go (RFC 9568 §5.1.1.2).
const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
/// Bytes before the addresses.
const FIXED_LEN: usize = 8;
/// Version 3 and type 1 (advertisement), the only ones there are.
const VERSION_TYPE: u8 = 0x31;
/// Largest maximum advertise interval, centiseconds (12 bits).
const MAX_INTERVAL_CS: u16 = 0x0fff;

/// What one advertisement says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Advertisement {
    /// Virtual router identifier, 1 to 255.
    pub vrid: u8,
    /// Sender's priority: 0 "I stop", 255 "I own the address".
    pub priority: u8,
    /// How often the sender advertises, whole centiseconds, 10 ms to 40.95 s.
    pub interval: Duration,
    /// The virtual addresses.
    pub addresses: Vec<Ipv4Addr>,
}

/// Why a packet was dropped (RFC 9568 §7.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// Shorter than its own lengths say, or no VRRP over IPv4 at all.
    Truncated,
    /// The TTL is not 255: it crossed a router, so it was not sent on this link.
    Ttl(u8),
    /// Another version than 3.
    Version(u8),
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
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::Truncated => f.write_str("it is shorter than it says"),
            Refused::Ttl(ttl) => write!(f, "its TTL is {ttl}, not 255: it was not sent on this link"),
            Refused::Version(2) => {
                f.write_str("it is VRRP version 2; set the sender to version 3 (keepalived: vrrp_version 3)")
            }
            Refused::Version(version) => write!(f, "it is VRRP version {version}, not 3"),
            Refused::Type(kind) => write!(f, "its type is {kind}, not 1 (advertisement)"),
            Refused::Checksum => f.write_str("its checksum is wrong"),
            Refused::Vrid => f.write_str("its VRID is 0"),
            Refused::Interval => f.write_str("its advertisement interval is zero"),
            Refused::NoAddress => f.write_str("it names no address"),
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

fn pseudo_header(source: [u8; 4], destination: [u8; 4], length: usize) -> [u8; 12] {
    let [s, d, l] = [source, destination, (length as u32).to_be_bytes()];
    [s[0], s[1], s[2], s[3], d[0], d[1], d[2], d[3], 0, PROTOCOL, l[2], l[3]]
}

/// The datagram that carries `advertisement` from `source` to the VRRP group, TTL 255, class CS6.
///
/// The header's own checksum is left to the kernel, which fills it in on a socket with `IP_HDRINCL`.
///
/// # Panics
/// If a field is out of the range its documentation gives.
pub fn encode(source: Ipv4Addr, advertisement: &Advertisement) -> Vec<u8> {
    let Advertisement { vrid, priority, interval, addresses } = advertisement;
    let centiseconds = (interval.as_millis() / 10) as u16;
    assert!(*vrid > 0, "a VRID is 1 to 255");
    assert!((1..=MAX_INTERVAL_CS).contains(&centiseconds), "an interval is 10 ms to 40.95 s");
    assert!((1..=MAX_ADDRESSES).contains(&addresses.len()), "1 to 255 addresses");
    let payload_len = FIXED_LEN + 4 * addresses.len();
    let total = (HEADER_LEN + payload_len) as u16;

    let mut packet = Vec::with_capacity(usize::from(total));
    packet.extend_from_slice(&[0x45, 0xc0]);
    packet.extend_from_slice(&total.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 255, PROTOCOL, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&GROUP.octets());
    packet.extend_from_slice(&[VERSION_TYPE, *vrid, *priority, addresses.len() as u8]);
    packet.extend_from_slice(&centiseconds.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    for address in addresses {
        packet.extend_from_slice(&address.octets());
    }
    let pseudo = pseudo_header(source.octets(), GROUP.octets(), payload_len);
    let sum = checksum(&[&pseudo, &packet[HEADER_LEN..]]);
    packet[HEADER_LEN + 6..HEADER_LEN + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

/// Who sent this IPv4 datagram, and what it says.
///
/// # Errors
/// Why it must be dropped. Whether its VRID is one of ours is for the caller to see; reserved bits are
/// ignored (§5.2.6); bytes after the addresses are covered by the checksum and otherwise ignored.
pub fn parse(datagram: &[u8]) -> Result<(Ipv4Addr, Advertisement), Refused> {
    let (&[version_ihl, _, len_hi, len_lo, _, _, _, _, ttl, protocol, _, _, ref addresses @ ..], _) =
        datagram.split_first_chunk::<HEADER_LEN>().ok_or(Refused::Truncated)?;
    let [s0, s1, s2, s3, d0, d1, d2, d3] = *addresses;
    let header_len = usize::from(version_ihl & 0x0f) * 4;
    let total = usize::from(u16::from_be_bytes([len_hi, len_lo]));
    if version_ihl >> 4 != 4 || protocol != PROTOCOL || header_len < HEADER_LEN {
        return Err(Refused::Truncated);
    }
    let payload = datagram.get(header_len..total).ok_or(Refused::Truncated)?;
    if ttl != 255 {
        return Err(Refused::Ttl(ttl));
    }
    let (&[version_type, vrid, priority, count, interval_hi, interval_lo, _, _], rest) =
        payload.split_first_chunk::<FIXED_LEN>().ok_or(Refused::Truncated)?;
    if version_type >> 4 != 3 {
        return Err(Refused::Version(version_type >> 4));
    }
    if version_type & 0x0f != 1 {
        return Err(Refused::Type(version_type & 0x0f));
    }
    let list = rest.get(..4 * usize::from(count)).ok_or(Refused::Truncated)?;
    if checksum(&[&pseudo_header([s0, s1, s2, s3], [d0, d1, d2, d3], payload.len()), payload]) != 0 {
        return Err(Refused::Checksum);
    }
    let centiseconds = u16::from_be_bytes([interval_hi, interval_lo]) & MAX_INTERVAL_CS;
    if vrid == 0 {
        return Err(Refused::Vrid);
    }
    if centiseconds == 0 {
        return Err(Refused::Interval);
    }
    if count == 0 {
        return Err(Refused::NoAddress);
    }
    let addresses = list.chunks_exact(4).map(|a| Ipv4Addr::new(a[0], a[1], a[2], a[3])).collect();
    let interval = Duration::from_millis(u64::from(centiseconds) * 10);
    Ok((Ipv4Addr::new(s0, s1, s2, s3), Advertisement { vrid, priority, interval, addresses }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;
    use proptest::prelude::*;

    const SOURCE: Ipv4Addr = Ipv4Addr::new(10, 9, 0, 1);

    fn sample() -> Advertisement {
        Advertisement {
            vrid: 51,
            priority: 100,
            interval: Duration::from_millis(50),
            addresses: vec![Ipv4Addr::new(10, 9, 0, 100)],
        }
    }

    /// Changes one byte of the VRRP part and makes the checksum right again.
    fn with_byte(offset: usize, value: u8) -> Vec<u8> {
        let mut packet = encode(SOURCE, &sample());
        packet[HEADER_LEN + offset] = value;
        packet[HEADER_LEN + 6..HEADER_LEN + 8].fill(0);
        let pseudo = pseudo_header(SOURCE.octets(), GROUP.octets(), packet.len() - HEADER_LEN);
        let sum = checksum(&[&pseudo, &packet[HEADER_LEN..]]);
        packet[HEADER_LEN + 6..HEADER_LEN + 8].copy_from_slice(&sum.to_be_bytes());
        packet
    }

    #[test]
    fn keepalived_sends_the_same_bytes() {
        // Captured from keepalived 2.2.7: vrrp_version 3, virtual_router_id 51, priority 100, advert_int
        // 0.05, address 10.9.0.100, sent by 10.9.0.1.
        let mut captured = [
            0x45, 0xc0, 0x00, 0x20, 0x00, 0x35, 0x00, 0x00, 0xff, 0x70, 0xd0, 0x5c, 10, 9, 0, 1, 224, 0, 0,
            18, //
            0x31, 0x33, 0x64, 0x01, 0x00, 0x05, 0x75, 0xc0, 10, 9, 0, 100,
        ];
        assert_eq!(parse(&captured), Ok((SOURCE, sample())));
        for filled_in_by_the_kernel in [4, 5, 10, 11] {
            captured[filled_in_by_the_kernel] = 0;
        }
        assert_eq!(encode(SOURCE, &sample()), captured);
    }

    #[test]
    fn each_check_of_section_7_1_refuses() {
        assert!(parse(&encode(SOURCE, &sample())).is_ok());
        let mut far = encode(SOURCE, &sample());
        far[8] = 254;
        assert_eq!(parse(&far), Err(Refused::Ttl(254)));
        assert_eq!(parse(&with_byte(0, 0x21)), Err(Refused::Version(2)));
        assert_eq!(parse(&with_byte(0, 0x32)), Err(Refused::Type(2)));
        assert_eq!(parse(&with_byte(1, 0)), Err(Refused::Vrid));
        assert_eq!(parse(&with_byte(3, 0)), Err(Refused::NoAddress));
        assert_eq!(parse(&with_byte(3, 2)), Err(Refused::Truncated));
        assert_eq!(parse(&with_byte(5, 0)), Err(Refused::Interval));
        let mut bent = encode(SOURCE, &sample());
        bent[HEADER_LEN + 2] ^= 1;
        assert_eq!(parse(&bent), Err(Refused::Checksum));
        let mut moved = encode(SOURCE, &sample());
        moved[15] ^= 1; // the source address is under the checksum through the pseudo-header
        assert_eq!(parse(&moved), Err(Refused::Checksum));
    }

    #[test]
    fn reserved_bits_are_ignored() {
        assert_eq!(parse(&with_byte(4, 0xf0)), Ok((SOURCE, sample())));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_parsed_again(vrid in 1u8.., priority: u8, cs in 1u64..=4095, n in 1usize..=255, seed: u32) {
            let addresses = (0..n as u32).map(|i| Ipv4Addr::from(seed.wrapping_add(i))).collect();
            let advertisement = Advertisement { vrid, priority, interval: Duration::from_millis(cs * 10), addresses };
            prop_assert_eq!(parse(&encode(SOURCE, &advertisement)), Ok((SOURCE, advertisement)));
        }

        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..80), real: bool) {
            if real && bytes.len() > 12 {
                bytes[0] = 0x45;
                let len = bytes.len() as u8;
                bytes[2..4].copy_from_slice(&[0, len]);
                bytes[8..10].copy_from_slice(&[255, PROTOCOL]);
            }
            let _ = parse(&bytes);
        }
    }
}
