//! How the nodes of a run speak: version, family, group or peers, password, checksum.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use relais_base::Rng;
use relais_vrrp::{Authentication, Checksum, Form, Password, Version};

#[derive(Debug)]
pub(crate) struct Speech {
    pub(crate) form: Form,
    pub(crate) unicast: bool,
    pub(crate) addresses: Vec<IpAddr>,
}

impl Speech {
    /// Version 2 where the interval allows it.
    pub(crate) fn new(rng: &mut Rng, interval: Duration) -> Speech {
        let v2 = interval.subsec_millis() == 0 && rng.chance(2, 3);
        let v6 = !v2 && rng.chance(1, 3);
        let has_password = v2 && rng.chance(1, 2);
        let password = Authentication::PlainText(Password::new("password"));
        let authentication = if has_password { password } else { Authentication::None };
        let checksum = if rng.chance(1, 2) { Checksum::PseudoHeader } else { Checksum::Message };
        let address = |last: u8| match v6 {
            true => IpAddr::V6(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 1, u16::from(last))),
            false => IpAddr::V4(Ipv4Addr::new(10, 9, 0, last)),
        };
        Speech {
            form: Form { version: if v2 { Version::V2 } else { Version::V3 }, authentication, checksum },
            unicast: rng.chance(1, 3),
            addresses: (100..101 + rng.below(3) as u8).map(address).collect(),
        }
    }

    /// The own address of node `i`.
    pub(crate) fn source(&self, i: usize) -> IpAddr {
        let last = i as u8 + 1;
        match self.addresses[0] {
            IpAddr::V4(_) => Ipv4Addr::new(10, 9, 0, last).into(),
            IpAddr::V6(_) => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, u16::from(last)).into(),
        }
    }

    /// Those of the others.
    pub(crate) fn peers(&self, i: usize, size: usize) -> Vec<IpAddr> {
        (0..size).filter(|j| *j != i).map(|j| self.source(j)).collect()
    }
}
