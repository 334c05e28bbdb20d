//! Services as an nftables table of ours, one for each family: `ip relais_forward` and `ip6 relais_forward`.
//!
//! ```text
//! prerouting, output ── to this machine ──▶ services ── address, port ──▶ to_FRONTEND ── map ──▶ to_FRONTEND/SERVER: count, dnat
//! postrouting ── connection was made to a service's address ──▶ masquerade
//! ```
//!
//! The kernel looks here with the first packet of a connection only; the others go as its table of connections says. The
//! table is replaced whole, in one transaction: a packet sees the one before or the one after. Called by `forward`.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::services::Service;
use crate::nft::{Base, Family, Rule, Transaction};

pub(crate) const TABLE: &str = "relais_forward";
const FAMILIES: [Family; 2] = [Family::Ipv4, Family::Ipv6];

/// Hooks (`NF_INET_*`), and priorities a little before those that others have for address translation.
const PREROUTING: u32 = 0;
const OUTPUT: u32 = 3;
const POSTROUTING: u32 = 4;
const BEFORE_DNAT: i32 = -105;
const BEFORE_SNAT: i32 = 95;

/// The same on every node and after every change, so that a client stays where it is.
const SEED: u32 = 0x7265_6c61;

pub(crate) const TCP: u8 = 6;
pub(crate) const UDP: u8 = 17;
/// "Port unreachable" of ICMP and ICMPv6.
const PORT: u8 = 3;
const PORT6: u8 = 4;

/// The name of a server's chain and counter.
pub(crate) fn of_server(service: &str, server: &str) -> String {
    format!("to_{service}/{server}")
}

/// Puts these in force, and nothing else.
///
/// # Errors
/// What the kernel says; then what was in force still is.
pub(crate) fn put(services: &[Service]) -> io::Result<()> {
    let mut nft = Transaction::large();
    for family in FAMILIES {
        // A kernel without IPv6 is not asked about it.
        if family == Family::Ipv4
            || carries(services, family)
            || std::path::Path::new("/proc/net/if_inet6").exists()
        {
            nft.remove_table(family, TABLE);
        }
        if carries(services, family) {
            add(&mut nft, family, TABLE, services);
        }
    }
    nft.commit()
}

/// Whether the kernel could, tried with a table that is gone before anybody sees it.
///
/// # Errors
/// What it says.
pub(crate) fn attempt(ipv6: bool) -> io::Result<()> {
    let ip = if ipv6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
    let family = if ipv6 { Family::Ipv6 } else { Family::Ipv4 };
    let mut nft = Transaction::large();
    let services = [false, true].map(|by_source| Service::example(SocketAddr::new(ip, 9), by_source));
    add(&mut nft, family, "relais_forward_try", &services);
    nft.remove_table(family, "relais_forward_try");
    nft.commit()
}

fn carries(services: &[Service], family: Family) -> bool {
    of_ours(services).any(|service| service.binds.iter().any(|bind| is_of(bind, family)))
}

/// Those that IPVS does not carry.
pub(crate) fn of_ours(services: &[Service]) -> impl Iterator<Item = &Service> {
    services.iter().filter(|service| service.ipvs.is_none())
}

pub(crate) fn is_of(address: &SocketAddr, family: Family) -> bool {
    address.is_ipv4() == (family == Family::Ipv4)
}

fn add(nft: &mut Transaction, family: Family, table: &str, services: &[Service]) {
    const SERVICES: &str = "services";
    nft.add_table(family, table);
    nft.add_inner_chain(family, table, SERVICES);
    for (chain, hook, priority) in [
        ("prerouting", PREROUTING, BEFORE_DNAT),
        ("output", OUTPUT, BEFORE_DNAT),
        ("postrouting", POSTROUTING, BEFORE_SNAT),
    ] {
        nft.add_nat_chain(family, table, chain, hook, priority);
        if hook != POSTROUTING {
            nft.add_rule(family, table, chain, Rule::default().destined_here().jump(SERVICES));
        }
    }
    for service in of_ours(services) {
        let chain = format!("to_{}", service.name);
        let mut binds = service.binds.iter().filter(|bind| is_of(bind, family)).peekable();
        if binds.peek().is_none() {
            continue;
        }
        add_service(nft, family, table, &chain, service);
        let protocol = if service.udp { UDP } else { TCP };
        for bind in binds {
            let rule = sent_to(Rule::default().of_protocol(protocol), bind);
            nft.add_rule(family, table, SERVICES, rule.goto(&chain));
            if service.masquerade {
                let rule = Rule::default().of_protocol(protocol).first_sent_to(*bind).masquerade();
                nft.add_rule(family, table, "postrouting", rule);
            }
        }
    }
}

/// Goes on if the packet is for this address and port.
fn sent_to(rule: Rule, to: &SocketAddr) -> Rule {
    let rule = match to {
        SocketAddr::V4(to) => rule.load(0, Base::Network, 16, 4).is(0, &to.ip().octets()),
        SocketAddr::V6(to) => rule.load(0, Base::Network, 24, 16).is(0, &to.ip().octets()),
    };
    rule.load(0, Base::Transport, 2, 2).is(0, &to.port().to_be_bytes())
}

fn add_service(nft: &mut Transaction, family: Family, table: &str, chain: &str, service: &Service) {
    nft.add_inner_chain(family, table, chain);
    let names: Vec<String> =
        service.targets.iter().map(|target| of_server(&service.name, &target.name)).collect();
    for (target, name) in
        service.targets.iter().zip(&names).filter(|(target, _)| is_of(&target.address, family))
    {
        nft.add_counter(family, table, name);
        nft.add_inner_chain(family, table, name);
        nft.add_rule(family, table, name, Rule::default().count(name).send_to(target.address));
    }
    let slots = service.slots(family == Family::Ipv4);
    if !slots.is_empty() {
        nft.add_map(family, table, chain, slots.iter().map(|&slot| &*names[slot]));
        let modulus = slots.len() as u32;
        let rule = match (service.by_source, family) {
            (false, _) => Rule::default().turn(0, modulus),
            (true, Family::Ipv6) => {
                Rule::default().load(4, Base::Network, 8, 16).hash(4, 16, 0, modulus, SEED)
            }
            (true, _) => Rule::default().load(4, Base::Network, 12, 4).hash(4, 4, 0, modulus, SEED),
        };
        nft.add_rule(family, table, chain, rule.led_by(chain, 0));
    }
    // Nobody is there to answer: clients are told at once.
    let code = if family == Family::Ipv4 { PORT } else { PORT6 };
    nft.add_rule(family, table, chain, Rule::default().refuse(service.udp.then_some(code)));
}
