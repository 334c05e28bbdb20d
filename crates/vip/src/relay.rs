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
use std::net::Ipv4Addr;

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

fn relay_table(vip: Ipv4Addr) -> String {
    format!("relais_relay_{:08x}", u32::from(vip))
}

fn mute_table(vip: Ipv4Addr) -> String {
    format!("relais_mute_{:08x}", u32::from(vip))
}

/// Packets to `vip` over TCP, with the key of their connection in registers 1 to 3.
fn of_connection(vip: Ipv4Addr) -> Rule {
    Rule::default()
        .load(0, Base::Network, 16, 4)
        .is(0, &vip.octets())
        .load(0, Base::Network, 9, 1)
        .is(0, &[TCP])
        .load(1, Base::Network, 12, 4)
        .load(2, Base::Transport, 0, 2)
        .load(3, Base::Transport, 2, 2)
}

/// The new holder's part, before it takes the address from `old`, which is on the interface of this index.
///
/// # Errors
/// What the kernel says; a kernel without nftables or its `dup` says `ENOENT` or `EOPNOTSUPP`.
pub(crate) fn send_on(vip: Ipv4Addr, old: Ipv4Addr, index: u32) -> io::Result<()> {
    let table = relay_table(vip);
    let mut nft = Transaction::new();
    nft.remove_table(Family::Ipv4, &table);
    nft.add_table(Family::Ipv4, &table);
    nft.add_set(Family::Ipv4, &table, OURS, 12, MAX_CONNECTIONS);
    nft.add_chain(Family::Ipv4, &table, "in", PREROUTING, RAW);
    let begins = of_connection(vip).load(0, Base::Transport, 13, 1).mask(0, SYN | ACK).is(0, &[SYN]);
    nft.add_rule(Family::Ipv4, &table, "in", begins.remember(OURS, 1).accept());
    let goes_on = of_connection(vip).not_in(OURS, 1);
    let sent_on = goes_on.set(0, &old.octets()).set(1, &index.to_ne_bytes()).copy_to(0, 1);
    nft.add_rule(Family::Ipv4, &table, "in", sent_on.drop());
    nft.commit()
}

/// The old holder's part, before the address leaves the interface: mute it. The engine adds the local route.
///
/// Neither a question for a client's hardware address nor an answer may name the virtual address as the
/// sender's, or clients would take this machine for its holder again: `own` stands in.
///
/// # Errors
/// What the kernel says.
pub(crate) fn mute(vip: Ipv4Addr, own: Ipv4Addr) -> io::Result<()> {
    const SENDER: u32 = 14;
    let table = mute_table(vip);
    let mut nft = Transaction::new();
    nft.remove_table(Family::Arp, &table);
    nft.add_table(Family::Arp, &table);
    nft.add_chain(Family::Arp, &table, "out", ARP_OUT, 0);
    let says = Rule::default().load(0, Base::Network, SENDER, 4).is(0, &vip.octets());
    nft.add_rule(Family::Arp, &table, "out", says.set(0, &own.octets()).store(0, Base::Network, SENDER, 4));
    nft.commit()
}

/// Takes both parts away, whoever left them.
///
/// # Errors
/// What the kernel says.
pub(crate) fn end(vip: Ipv4Addr) -> io::Result<()> {
    let mut nft = Transaction::new();
    nft.remove_table(Family::Ipv4, &relay_table(vip));
    nft.remove_table(Family::Arp, &mute_table(vip));
    nft.commit()
}

/// Takes away what a killed process left of either part; whether there was anything. No nftables in the kernel: nothing.
pub(crate) fn release(vip: Ipv4Addr) -> bool {
    let removed = |(family, table): (Family, String)| {
        let mut nft = Transaction::new();
        nft.remove_existing_table(family, &table);
        nft.commit().is_ok()
    };
    [(Family::Ipv4, relay_table(vip)), (Family::Arp, mute_table(vip))].map(removed).contains(&true)
}
