use super::*;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::{Advertisement, Authentication, Checksum, Form, GROUP, Version, encode, parse};

const AT: usize = HEADER_LEN + AH_LEN - DIGEST_LEN;

fn association(password: &str, last: u32) -> Association {
    Association::new(Password::new(password), false, last)
}

fn datagram() -> Vec<u8> {
    datagram_from(1)
}

fn datagram_from(sender: u8) -> Vec<u8> {
    let form = Form {
        version: Version::V2,
        authentication: Authentication::Header,
        checksum: Checksum::PseudoHeader,
    };
    let addresses = alloc::vec![Ipv4Addr::new(10, 9, 0, 100).into()];
    let advertisement =
        Advertisement { vrid: 51, priority: 100, interval: Duration::from_secs(1), addresses };
    let source = Ipv4Addr::new(10, 9, 0, sender).into();
    encode(source, GROUP.into(), &form, &advertisement)
}

#[test]
fn what_is_sealed_is_heard_once_and_by_those_with_the_key() {
    let (mut one, mut other, mut stranger) =
        (association("secret99", 7), association("secret99", 0), association("secret98", 0));
    let first = one.seal(&datagram());
    assert_eq!(parse(&first).unwrap().authentication, Authentication::Header);
    assert_eq!(stranger.verify(&first), Err(Refused::Seal));
    assert_eq!(other.verify(&first), Ok(()));
    assert_eq!(other.verify(&first), Err(Refused::Replay { sequence: 8, last: 8 }));

    // All share one sequence: who takes over goes on where the other was.
    let second = other.seal(&datagram_from(2));
    assert_eq!(second[HEADER_LEN + 8..HEADER_LEN + 12], [0, 0, 0, 9]);
    // Or both speak at once, and say the same number.
    let crossing = one.seal(&datagram());
    assert_eq!((one.verify(&second), other.verify(&crossing)), (Ok(()), Ok(())));
    for old in [&first, &crossing] {
        assert!(matches!(other.verify(old), Err(Refused::Replay { last: 9, .. })));
    }
    assert_eq!(
        one.verify(&crossing),
        Err(Refused::Replay { sequence: 9, last: 9 }),
        "one's own come from nobody else"
    );
}

#[test]
fn nothing_in_it_can_be_changed_but_what_changes_on_the_way() {
    let sealed = association("secret99", 0).seal(&datagram());
    // Class, flags and fragment, checksum; a TTL that fell is refused by other rules, and to peers it may fall.
    let mutable = [1, 6, 7, 10, 11];
    for i in 4..sealed.len() {
        let mut bent = sealed.clone();
        bent[i] ^= 1;
        let refused = association("secret99", 0).verify(&bent) == Err(Refused::Seal);
        assert_eq!(refused, !mutable.contains(&i), "byte {i}");
    }
    let (mut bent, key) = (sealed.clone(), Password::new("secret99"));
    bent[8] = 9;
    assert_eq!(
        Association::new(key, true, 0).verify(&bent),
        Err(Refused::Seal),
        "it was sealed for the group"
    );
    let mut to_peer = Association::new(key, true, 0).seal(&datagram());
    to_peer[8] = 9;
    assert_eq!(Association::new(key, true, 0).verify(&to_peer), Ok(()));
}

#[test]
fn no_piece_of_it_makes_it_panic() {
    let sealed = association("secret99", 0).seal(&datagram());
    for end in 0..sealed.len() {
        let (mut short, head) = (sealed[..end].to_vec(), end.to_be_bytes());
        assert!(parse(&short).is_err() && association("secret99", 0).verify(&short).is_err());
        if end > 3 {
            short[2..4].copy_from_slice(&head[6..]);
            assert!(association("secret99", 0).verify(&short).is_err());
        }
    }
}

#[test]
fn a_digest_is_that_of_the_rfc() {
    // By Python's hmac module over the same bytes with the mutable ones zero.
    let sealed = association("secret99", 0).seal(&datagram());
    assert_eq!(sealed[HEADER_LEN..AT], [112, 4, 0, 0, 10, 9, 0, 1, 0, 0, 0, 1]);
    let hex: alloc::string::String =
        sealed[AT..AT + DIGEST_LEN].iter().map(|b| alloc::format!("{b:02x}")).collect();
    assert_eq!(hex, "dbb5ea7f6929fe7f69f7b79a");
}
