//! VRRP: whatever datagram is read as an advertisement, of version 2 or 3, over IPv4 or IPv6, with a password or
//! without, is written and read again as the same.

use relais_vrrp::{
    AH_LEN, AH_PROTOCOL, Association, Authentication, Checksum, Form, HEADER_LEN, HEADER6_LEN, MAX_ADDRESSES,
    Packet, Password, encode, parse,
};

/// First bytes of headers and messages, and passwords.
pub(crate) const WORDS: &[&[u8]] = &[
    b"\x45\xc0",
    b"\x46\0",
    b"\x60\0\0\0",
    b"\xff\x70",
    b"\x70\xff",
    b"\x21\x33",
    b"\x31\x33",
    b"\x01\x01",
    b"\x02\x01",
    b"\x0f\xff",
    b"\xe0\0\0\x12",
    b"\xff\x33",
    b"\x70\x04",
    b"secret99",
    b"\0\0\0\0\0\0\0\0",
    b"\xff",
];

pub(crate) fn check(input: &[u8]) -> Result<(), String> {
    let mut input = input.to_vec();
    again(&input)?;
    mend(&mut input); // or hardly a mutation would get past the checksum
    again(&input)
}

fn again(input: &[u8]) -> Result<(), String> {
    let _ = Association::new(Password::new("secret99"), true, 0).verify(input); // no bytes make it panic
    let Ok(packet) = parse(input) else { return Ok(()) };
    let Packet { source, destination, version, authentication, advertisement, .. } = &packet;
    if advertisement.addresses.len() > MAX_ADDRESSES {
        return Ok(()); // we never write so many
    }
    for checksum in [Checksum::PseudoHeader, Checksum::Message] {
        let form = Form { version: *version, authentication: *authentication, checksum };
        let mut datagram = encode(*source, *destination, &form, advertisement);
        if *authentication == Authentication::Header {
            datagram = Association::new(Password::new("secret99"), false, 0).seal(&datagram);
            let mut peer = Association::new(Password::new("secret99"), false, 0);
            if let Err(why) = peer.verify(&datagram) {
                return Err(format!("{advertisement:?} was sealed and refused: {why}"));
            }
        }
        let written = parse(&datagram);
        let expected = Packet { hop_limit: 255, ..packet.clone() };
        if written.as_ref() != Ok(&expected) {
            return Err(format!("{expected:?} was written and read as {written:?}"));
        }
    }
    Ok(())
}

/// Puts the right checksum where it belongs; every version over IPv4 has one without a pseudo-header.
fn mend(datagram: &mut [u8]) {
    let is_v6 = datagram.first().is_some_and(|first| first >> 4 == 6);
    let total =
        |from: usize| datagram.get(from..from + 2).map(|l| usize::from(l[0]) << 8 | usize::from(l[1]));
    let (start, end) = match is_v6 {
        true => (HEADER6_LEN, total(4).map(|length| HEADER6_LEN + length)),
        false => {
            let header = usize::from(datagram.first().map_or(0, |first| first & 0x0f)) * 4;
            let is_sealed = datagram.get(9) == Some(&AH_PROTOCOL);
            (header + if is_sealed { AH_LEN } else { 0 }, total(2))
        }
    };
    let Some(end) = end.filter(|end| *end <= datagram.len() && start >= HEADER_LEN && *end >= start + 8)
    else {
        return;
    };
    datagram[start + 6..start + 8].fill(0);
    let words = |part: &[u8]| {
        part.chunks(2).map(|w| u64::from(w[0]) << 8 | u64::from(*w.get(1).unwrap_or(&0))).sum::<u64>()
    };
    let mut sum = words(&datagram[start..end]);
    if is_v6 {
        sum += words(&datagram[8..HEADER6_LEN]) + (end - start) as u64 + u64::from(relais_vrrp::PROTOCOL);
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    datagram[start + 6..start + 8].copy_from_slice(&(!(sum as u16)).to_be_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_is_an_advertisement_and_so_is_one_that_was_mended() {
        for seed in crate::seeds::lines(include_str!("../corpus/vrrp.seeds")) {
            assert!(parse(&seed).is_ok(), "{seed:?}");
            let mut bent = seed.clone();
            let priority = match (seed[0] >> 4, seed[9]) {
                (6, _) => HEADER6_LEN + 2,
                (_, AH_PROTOCOL) => HEADER_LEN + AH_LEN + 2,
                _ => HEADER_LEN + 2,
            };
            bent[priority] ^= 1;
            assert!(parse(&bent).is_err());
            mend(&mut bent);
            assert!(parse(&bent).is_ok(), "{bent:?}");
        }
    }
}
