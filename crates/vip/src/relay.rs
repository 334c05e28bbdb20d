//! Open connections survive a planned move of the address.
//!
//! The new holder sends on to the old one whatever belongs to a TCP connection whose first segment it has
//! not seen itself; the old one goes on with them, mute on the link: it has no address any more, only a local
//! route for it, and ARP never says that the address is there. Answers go to clients directly. Both ends take
//! their part away when the old holder has drained. With a peer that is no Relais, connections break as they
//! always did.
//!
//! Everything is in tables of our own, one a virtual address, so that taking them away is all there is to undo.
//! Called by the engine for the core's `LetGo`, `SendOnTo` and `EndRelay`.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use crate::nft::{Base, Family, Rule, Transaction};

/// Connections begun at the new holder while the old one drains; beyond, they are not told apart.
const MAX_CONNECTIONS: u32 = 262_144;
/// Hooks (`NF_INET_PRE_ROUTING`, `NF_ARP_OUT`) and the priority before connection tracking.
const PREROUTING: u32 = 0;
const ARP_OUT: u32 = 1;
const RAW: i32 = -300;

/// The set of connections that began here.
const OURS: &str = "ours";
const TCP: u8 = 6;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

fn table(kind: &str, vip: IpAddr) -> String {
    match vip {
        IpAddr::V4(vip) => format!("relais_{kind}_{:08x}", u32::from(vip)),
        IpAddr::V6(vip) => format!("relais_{kind}_{:032x}", u128::from(vip)),
    }
}

fn relay_table(vip: IpAddr) -> (Family, String) {
    (if vip.is_ipv4() { Family::Ipv4 } else { Family::Ipv6 }, table("relay", vip))
}

/// In a table of a family that exists for IPv4 alone.
fn mute_table(vip: Ipv4Addr) -> String {
    table("mute", vip.into())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().into(),
        IpAddr::V6(address) => address.octets().into(),
    }
}

/// Packets to `vip` over TCP, with the key of their connection in the registers from 1 on, [`key_length`] bytes.
fn of_connection(vip: IpAddr) -> Rule {
    // RFC 791 §3.1, RFC 8200 §3.
    let (source, destination, length) = if vip.is_ipv4() { (12, 16, 4) } else { (8, 24, 16) };
    let ports = 1 + length / 4;
    Rule::default()
        .load(0, Base::Network, destination, length)
        .is(0, &octets(vip))
        .of_protocol(TCP)
        .load(1, Base::Network, source, length)
        .load(ports, Base::Transport, 0, 2)
        .load(ports + 1, Base::Transport, 2, 2)
}

/// A client's address and two ports, each of the latter padded to a register.
fn key_length(vip: IpAddr) -> u32 {
    if vip.is_ipv4() { 12 } else { 24 }
}

/// The new holder's part, before it takes the address from `old`, which is on the interface of this index.
///
/// # Errors
/// What the kernel says; a kernel without nftables or its `dup` says `ENOENT` or `EOPNOTSUPP`.
pub(crate) fn send_on(vip: IpAddr, old: IpAddr, index: u32) -> io::Result<()> {
    let (family, table) = relay_table(vip);
    let mut nft = Transaction::new();
    nft.remove_table(family, &table);
    nft.add_table(family, &table);
    nft.add_set(family, &table, OURS, key_length(vip), MAX_CONNECTIONS);
    nft.add_chain(family, &table, "in", PREROUTING, RAW);
    let begins = of_connection(vip).load(0, Base::Transport, 13, 1).mask(0, SYN | ACK).is(0, &[SYN]);
    nft.add_rule(family, &table, "in", begins.remember(OURS, 1).accept());
    let goes_on = of_connection(vip).not_in(OURS, 1);
    // The address fills the registers before 4.
    let sent_on = goes_on.set(0, &octets(old)).set(4, &index.to_ne_bytes()).copy_to(0, 4);
    nft.add_rule(family, &table, "in", sent_on.drop());
    nft.commit()
}

/// The old holder's part, before the address leaves the interface: mute it. The engine adds the local route.
///
/// Neither a question for a client's hardware address nor an answer may name the virtual address as the
/// sender's, or clients would take this machine for its holder again: `own` stands in. Over IPv6 there is nothing to do:
/// neighbour discovery speaks for addresses that are on the interface, and for no other (RFC 4861 §7.2.2, §7.2.4).
///
/// # Errors
/// What the kernel says.
pub(crate) fn mute(vip: IpAddr, own: IpAddr) -> io::Result<()> {
    const SENDER: u32 = 14;
    let (IpAddr::V4(vip), IpAddr::V4(own)) = (vip, own) else { return Ok(()) };
    let table = mute_table(vip);
    let mut nft = Transaction::new();
    nft.remove_table(Family::Arp, &table);
    nft.add_table(Family::Arp, &table);
    nft.add_chain(Family::Arp, &table, "out", ARP_OUT, 0);
    let says = Rule::default().load(0, Base::Network, SENDER, 4).is(0, &vip.octets());
    nft.add_rule(Family::Arp, &table, "out", says.set(0, &own.octets()).store(0, Base::Network, SENDER, 4));
    nft.commit()
}

/// Every table that either part may have.
fn tables(vip: IpAddr) -> Vec<(Family, String)> {
    let mute = match vip {
        IpAddr::V4(vip) => Some((Family::Arp, mute_table(vip))),
        IpAddr::V6(_) => None,
    };
    [relay_table(vip)].into_iter().chain(mute).collect()
}

/// Takes both parts away, whoever left them.
///
/// # Errors
/// What the kernel says.
pub(crate) fn end(vip: IpAddr) -> io::Result<()> {
    let mut nft = Transaction::new();
    tables(vip).iter().for_each(|(family, table)| nft.remove_table(*family, table));
    nft.commit()
}

/// Takes away what a killed process left of either part; whether there was anything. No nftables in the kernel: nothing.
pub(crate) fn release(vip: IpAddr) -> bool {
    let removed = |(family, table): (Family, String)| {
        let mut nft = Transaction::new();
        nft.remove_existing_table(family, &table);
        nft.commit().is_ok()
    };
    tables(vip).into_iter().map(removed).fold(false, |any, one| any | one)
}
