use super::*;
use alloc::vec;
use proptest::prelude::*;

const SOURCE: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 9, 0, 1));
const SOURCE6: IpAddr = IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1));
const V2: Form = Form { version: Version::V2, ..Form::V3 };

fn v4(last: u8) -> IpAddr {
    Ipv4Addr::new(10, 9, 0, last).into()
}

fn sample() -> Advertisement {
    Advertisement { vrid: 51, priority: 100, interval: Duration::from_millis(50), addresses: vec![v4(100)] }
}

fn encoded() -> Vec<u8> {
    encode(SOURCE, GROUP.into(), &Form::V3, &sample())
}

/// Changes one byte of the message and makes the checksum right again.
fn with_byte(mut packet: Vec<u8>, offset: usize, value: u8) -> Vec<u8> {
    packet[HEADER_LEN + offset] = value;
    packet[HEADER_LEN + 6..HEADER_LEN + 8].fill(0);
    let sum = match packet[HEADER_LEN] >> 4 {
        2 => checksum(&[&packet[HEADER_LEN..]]),
        _ => checksum_with_pseudo_header(SOURCE, GROUP.into(), &packet[HEADER_LEN..]),
    };
    packet[HEADER_LEN + 6..HEADER_LEN + 8].copy_from_slice(&sum.to_be_bytes());
    packet
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// What keepalived 2.2.7 sent is read as `expected`, and written by us in the same bytes but for those that the
/// kernel fills in: identification and header checksum (IPv4), flow label (IPv6).
fn keepalived(captured: &str, form: &Form, expected: &Advertisement) {
    let mut captured = hex(captured);
    let packet = parse(&captured).unwrap();
    assert_eq!(&packet.advertisement, expected);
    assert_eq!(
        (packet.version, packet.authentication, packet.hop_limit),
        (form.version, form.authentication, 255)
    );
    if packet.source.is_ipv4() {
        captured[4..6].fill(0);
        captured[10..12].fill(0);
    } else {
        captured[1] &= 0xf0;
        captured[2..4].fill(0);
    }
    assert_eq!(encode(packet.source, packet.destination, form, expected), captured);
}

#[test]
fn keepalived_sends_the_same_bytes() {
    keepalived("45c0002000350000ff70d05c0a090001e000001231336401000575c00a090064", &Form::V3, &sample());
}

#[test]
fn keepalived_sends_the_same_bytes_in_version_2() {
    let expected =
        |vrid, addresses| Advertisement { vrid, addresses, interval: Duration::from_secs(1), ..sample() };
    // auth_type PASS, auth_pass secret99toolong
    keepalived(
        "45c0002c00010000ff70d0840a090001e0000012213364020101ef680a0900640a0900657365637265743939",
        &Form { authentication: Authentication::PlainText(Password::new("secret99toolong")), ..V2 },
        &expected(51, vec![v4(100), v4(101)]),
    );
    keepalived(
        "45c0002800010000ff70d0880a090001e0000012213464010001705a0a0900660000000000000000",
        &V2,
        &expected(52, vec![v4(102)]),
    );
}

#[test]
fn keepalived_sends_the_same_bytes_over_ipv6() {
    let addresses = vec!["fe80::64".parse().unwrap(), "fd09::100".parse().unwrap()];
    let interval = Duration::from_millis(500);
    keepalived(
        "6c09c035002870fffe800000000000000000000000000001ff0200000000000000000000000000123135640200326f78\
         fe800000000000000000000000000064fd090000000000000000000000000100",
        &Form::V3,
        &Advertisement { vrid: 53, priority: 100, interval, addresses },
    );
}

#[test]
fn keepalived_seals_with_the_same_digest() {
    let ah = "45c0004000010000ff33d0ad0a090001e0000012700400000a0900010000000144a45543a90eb1fae94a345c2138640102016e53\
              0a0900690000000000000000";
    let packet = parse(&hex(ah)).unwrap();
    assert_eq!((packet.advertisement.vrid, packet.authentication), (56, Authentication::Header));
    let key = Password::new("secret");
    assert_eq!(crate::Association::new(key, false, 0).verify(&hex(ah)), Ok(()));
}

#[test]
fn each_check_of_section_7_1_refuses() {
    assert!(parse(&encoded()).is_ok());
    assert_eq!(parse(&with_byte(encoded(), 0, 0x41)), Err(Refused::Version(4)));
    assert_eq!(parse(&with_byte(encoded(), 0, 0x32)), Err(Refused::Type(2)));
    assert_eq!(parse(&with_byte(encoded(), 1, 0)), Err(Refused::Vrid));
    assert_eq!(parse(&with_byte(encoded(), 3, 0)), Err(Refused::NoAddress));
    assert_eq!(parse(&with_byte(encoded(), 3, 2)), Err(Refused::Truncated));
    assert_eq!(parse(&with_byte(encoded(), 5, 0)), Err(Refused::Interval));
    let mut bent = encoded();
    bent[HEADER_LEN + 2] ^= 1;
    assert_eq!(parse(&bent), Err(Refused::Checksum));
    let mut moved = encoded();
    moved[15] ^= 1; // the source address is under the checksum through the pseudo-header
    assert_eq!(parse(&moved), Err(Refused::Checksum));
}

#[test]
fn each_check_of_version_2_refuses() {
    let second = Advertisement { interval: Duration::from_secs(1), ..sample() };
    let encoded = || encode(SOURCE, GROUP.into(), &V2, &second);
    assert!(parse(&encoded()).is_ok());
    assert_eq!(parse(&with_byte(encoded(), 4, 2)), Err(Refused::Authentication(2)));
    assert_eq!(parse(&with_byte(encoded(), 5, 0)), Err(Refused::Interval));
    assert_eq!(parse(&with_byte(encoded(), 3, 3)), Err(Refused::Truncated), "no room for a password");
    let mut bent = encoded();
    bent[HEADER_LEN + 15] ^= 1; // the password's place is under the checksum
    assert_eq!(parse(&bent), Err(Refused::Checksum));
    let mut v6 =
        encode(SOURCE6, GROUP6.into(), &Form::V3, &Advertisement { addresses: vec![SOURCE6], ..sample() });
    v6[HEADER6_LEN] = 0x21;
    assert_eq!(parse(&v6), Err(Refused::Version(2)));
}

#[test]
fn version_3_over_ipv4_is_read_with_each_checksum_that_is_about() {
    let plain = Form { checksum: Checksum::Message, ..Form::V3 };
    let unicast = v4(2);
    for (destination, form) in
        [(GROUP.into(), Form::V3), (GROUP.into(), plain), (unicast, Form::V3), (unicast, plain)]
    {
        assert_eq!(parse(&encode(SOURCE, destination, &form, &sample())).unwrap().advertisement, sample());
    }
    // keepalived up to 1.3.6 summed up the group where it sent to a peer.
    let mut old = encoded();
    old[16..20].copy_from_slice(&[10, 9, 0, 2]);
    assert_eq!(parse(&old).unwrap().destination, unicast);
}

#[test]
fn over_ipv6_the_pseudo_header_is_no_choice() {
    let advertisement = Advertisement { addresses: vec![SOURCE6], ..sample() };
    for checksum in [Checksum::Message, Checksum::PseudoHeader] {
        let packet = encode(SOURCE6, GROUP6.into(), &Form { checksum, ..Form::V3 }, &advertisement);
        assert_eq!(parse(&packet).unwrap().advertisement, advertisement);
    }
    let mut moved = encode(SOURCE6, GROUP6.into(), &Form::V3, &advertisement);
    moved[39] ^= 1;
    assert_eq!(parse(&moved), Err(Refused::Checksum));
}

#[test]
fn reserved_bits_are_ignored() {
    assert_eq!(parse(&with_byte(encoded(), 4, 0xf0)).map(|p| p.advertisement), Ok(sample()));
}

#[test]
fn a_password_is_not_shown() {
    assert_eq!(alloc::format!("{:?}", Password::new("secret")), "Password(..)");
}

prop_compose! {
    fn forms()(v2: bool, v6: bool, unicast: bool, message: bool, password in proptest::option::of("[a-z]{1,9}"))
        -> (Form, IpAddr, IpAddr)
    {
        let v6 = v6 && !v2;
        let version = if v2 { Version::V2 } else { Version::V3 };
        let checksum = if message { Checksum::Message } else { Checksum::PseudoHeader };
        let plain = password.filter(|_| v2).map(|p| Authentication::PlainText(Password::new(&p)));
        let form = Form { version, authentication: plain.unwrap_or(Authentication::None), checksum };
        match (v6, unicast) {
            (false, false) => (form, SOURCE, GROUP.into()),
            (false, true) => (form, SOURCE, v4(2)),
            (true, false) => (form, SOURCE6, GROUP6.into()),
            (true, true) => (form, SOURCE6, "fd09::2".parse().unwrap()),
        }
    }
}

proptest! {
    #[test]
    fn what_is_encoded_is_parsed_again((form, source, destination) in forms(), vrid in 1u8.., priority: u8, n in 1u64..=4095, count in 1usize..=MAX_ADDRESSES, seed: u32) {
        let address = |i: u32| match source {
            IpAddr::V4(_) => Ipv4Addr::from(seed.wrapping_add(i)).into(),
            IpAddr::V6(_) => Ipv6Addr::from(u128::from(seed) << 64 | u128::from(i)).into(),
        };
        let addresses = (0..count as u32).map(address).collect();
        let interval = match form.version {
            Version::V2 => Duration::from_secs(n % 255 + 1),
            Version::V3 => Duration::from_millis(n * 10),
        };
        let advertisement = Advertisement { vrid, priority, interval, addresses };
        let packet = parse(&encode(source, destination, &form, &advertisement));
        let Form { version, authentication, .. } = form;
        prop_assert_eq!(packet, Ok(Packet { source, destination, hop_limit: 255, version, authentication, advertisement }));
    }

    #[test]
    fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..120), real in 0..3) {
        let len = bytes.len() as u8;
        if real == 1 && bytes.len() > 12 {
            bytes[0] = 0x45;
            bytes[2..4].copy_from_slice(&[0, len]);
            bytes[8..10].copy_from_slice(&[255, PROTOCOL]);
        }
        if real == 2 && bytes.len() > 40 {
            bytes[0] = 0x60;
            bytes[4..8].copy_from_slice(&[0, len - 40, PROTOCOL, 255]);
        }
        let _ = parse(&bytes);
    }
}
