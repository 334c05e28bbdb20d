//! Just enough of nfnetlink (`linux/netfilter/nf_tables.h`) to put a table of ours in place and to take it
//! away: no `nft` program is needed, and nothing is started from the real-time thread. Called by `relay` and `forward`.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::{NETFILTER, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 16;
const BATCH_END: u16 = 17;
const NEW_TABLE: u16 = SUBSYSTEM << 8;
const DELETE_TABLE: u16 = SUBSYSTEM << 8 | 2;
const NEW_CHAIN: u16 = SUBSYSTEM << 8 | 3;
const NEW_RULE: u16 = SUBSYSTEM << 8 | 6;
const NEW_SET: u16 = SUBSYSTEM << 8 | 9;
const NEW_ELEMENT: u16 = SUBSYSTEM << 8 | 12;
const NEW_OBJECT: u16 = SUBSYSTEM << 8 | 18;

const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const CREATE: u16 = 0x400;
const APPEND: u16 = 0x800;
const NESTED: u16 = 0x8000;

/// Registers of four bytes each, numbered from here.
const REGISTER: u32 = 8;
const ACCEPT: u32 = 1;
const DROP: u32 = 0;
const JUMP: u32 = -3i32 as u32;
const GOTO: u32 = -4i32 as u32;
/// `NFT_OBJECT_COUNTER`, `NFT_DATA_VERDICT`.
const COUNTER: u32 = 1;
const VERDICT: u32 = 0xffff_ff00;
/// Bytes that a socket takes without being told to.
const USUAL_BUFFER: usize = 64 * 1024;
/// Bytes of elements in one message: an attribute's length has 16 bits.
const MOST_OF_ELEMENTS: usize = 32 * 1024;

/// Address family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    Ipv4 = 2,
    Arp = 3,
    Ipv6 = 10,
}

/// Where a packet's bytes are counted from.
#[derive(Clone, Copy)]
pub(crate) enum Base {
    Network = 1,
    Transport = 2,
}

/// Netlink attributes, one after the other.
#[derive(Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    fn put(mut self, kind: u16, bytes: &[u8]) -> Attributes {
        self.0.extend_from_slice(&((bytes.len() + 4) as u16).to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    fn text(self, kind: u16, text: &str) -> Attributes {
        self.put(kind, &[text.as_bytes(), &[0]].concat())
    }

    fn number(self, kind: u16, number: u32) -> Attributes {
        self.put(kind, &number.to_be_bytes())
    }

    fn nest(self, kind: u16, inner: Attributes) -> Attributes {
        self.put(kind | NESTED, &inner.0)
    }
}

/// A rule's expressions, in their order.
#[derive(Default)]
pub(crate) struct Rule(Attributes);

impl Rule {
    fn expression(self, name: &str, data: Attributes) -> Rule {
        let element = Attributes::default().text(1, name).nest(2, data);
        Rule(self.0.nest(1, element))
    }

    /// Loads `length` bytes of the packet into the register number `to`.
    pub(crate) fn load(self, to: u32, base: Base, offset: u32, length: u32) -> Rule {
        let data = Attributes::default().number(1, REGISTER + to).number(2, base as u32);
        self.expression("payload", data.number(3, offset).number(4, length))
    }

    /// Goes on if the register holds these bytes.
    pub(crate) fn is(self, register: u32, bytes: &[u8]) -> Rule {
        let value = Attributes::default().put(1, bytes);
        let data = Attributes::default().number(1, REGISTER + register).number(2, 0).nest(3, value);
        self.expression("cmp", data)
    }

    /// Keeps the bits of `mask` of the one byte in the register.
    pub(crate) fn mask(self, register: u32, mask: u8) -> Rule {
        let data = Attributes::default().number(1, REGISTER + register).number(2, REGISTER + register);
        let data = data.number(3, 1).nest(4, Attributes::default().put(1, &[mask]));
        self.expression("bitwise", data.nest(5, Attributes::default().put(1, &[0])))
    }

    /// Puts these bytes into the register.
    pub(crate) fn set(self, register: u32, bytes: &[u8]) -> Rule {
        let data = Attributes::default().number(1, REGISTER + register);
        self.expression("immediate", data.nest(2, Attributes::default().put(1, bytes)))
    }

    /// Writes the register into the packet; no checksum covers it.
    pub(crate) fn store(self, register: u32, base: Base, offset: u32, length: u32) -> Rule {
        let data = Attributes::default().number(5, REGISTER + register).number(2, base as u32);
        self.expression("payload", data.number(3, offset).number(4, length))
    }

    /// Adds the key that begins in this register to the set.
    pub(crate) fn remember(self, set: &str, register: u32) -> Rule {
        self.expression(
            "dynset",
            Attributes::default().text(1, set).number(3, 0).number(4, REGISTER + register),
        )
    }

    /// Goes on if the key that begins in this register is not in the set.
    pub(crate) fn not_in(self, set: &str, register: u32) -> Rule {
        self.expression(
            "lookup",
            Attributes::default().text(1, set).number(2, REGISTER + register).number(5, 1),
        )
    }

    /// Sends a copy to the machine whose address is in one register through the interface whose index is in
    /// the other.
    pub(crate) fn copy_to(self, address: u32, interface: u32) -> Rule {
        self.expression(
            "dup",
            Attributes::default().number(1, REGISTER + address).number(2, REGISTER + interface),
        )
    }

    /// The packet goes no further.
    pub(crate) fn drop(self) -> Rule {
        self.verdict(DROP)
    }

    /// The packet goes on past this chain.
    pub(crate) fn accept(self) -> Rule {
        self.verdict(ACCEPT)
    }

    fn verdict(self, code: u32) -> Rule {
        let verdict = Attributes::default().nest(2, Attributes::default().number(1, code));
        self.expression("immediate", Attributes::default().number(1, 0).nest(2, verdict))
    }

    /// Goes on in this chain, and after it here.
    pub(crate) fn jump(self, chain: &str) -> Rule {
        self.expression("immediate", Attributes::default().number(1, 0).nest(2, to_chain(JUMP, chain)))
    }

    /// Goes on in this chain, and not here.
    pub(crate) fn goto(self, chain: &str) -> Rule {
        self.expression("immediate", Attributes::default().number(1, 0).nest(2, to_chain(GOTO, chain)))
    }

    /// Goes on if the packet's destination is this machine.
    pub(crate) fn destined_here(self) -> Rule {
        const TYPE: u32 = 3;
        const DESTINATION: u32 = 2;
        const LOCAL: u32 = 2;
        let data = Attributes::default().number(1, REGISTER).number(2, TYPE).number(3, DESTINATION);
        self.expression("fib", data).is(0, &LOCAL.to_ne_bytes())
    }

    /// Goes on if the packet is of this protocol (`IPPROTO_*`).
    pub(crate) fn of_protocol(self, protocol: u8) -> Rule {
        const L4PROTO: u32 = 16;
        self.expression("meta", Attributes::default().number(1, REGISTER).number(2, L4PROTO))
            .is(0, &[protocol])
    }

    /// Goes on if the packet's connection was made to this address and port.
    pub(crate) fn first_sent_to(self, to: SocketAddr) -> Rule {
        const PORT: u32 = 12;
        const IPV4: u32 = 20;
        const IPV6: u32 = 22;
        let load = |rule: Rule, key: u32| {
            rule.expression("ct", Attributes::default().number(1, REGISTER).number(2, key).put(3, &[0]))
        };
        let rule = match to.ip() {
            IpAddr::V4(ip) => load(self, IPV4).is(0, &ip.octets()),
            IpAddr::V6(ip) => load(self, IPV6).is(0, &ip.octets()),
        };
        load(rule, PORT).is(0, &to.port().to_be_bytes())
    }

    /// Counts the packet under this name.
    pub(crate) fn count(self, counter: &str) -> Rule {
        self.expression("objref", Attributes::default().number(1, COUNTER).text(2, counter))
    }

    /// Puts the next of the numbers below `modulus` into the register.
    pub(crate) fn turn(self, to: u32, modulus: u32) -> Rule {
        self.expression(
            "numgen",
            Attributes::default().number(1, REGISTER + to).number(2, modulus).number(3, 0),
        )
    }

    /// Puts a hash of `length` bytes from the register `from` on, below `modulus`, into the register `to`.
    pub(crate) fn hash(self, from: u32, length: u32, to: u32, modulus: u32, seed: u32) -> Rule {
        let data =
            Attributes::default().number(1, REGISTER + from).number(2, REGISTER + to).number(3, length);
        self.expression("hash", data.number(4, modulus).number(5, seed))
    }

    /// Goes where the map says for the key in this register; on to the next rule where it says nothing.
    pub(crate) fn led_by(self, map: &str, register: u32) -> Rule {
        self.expression(
            "lookup",
            Attributes::default().text(1, map).number(2, REGISTER + register).number(3, 0),
        )
    }

    /// Sends the packet's connection to this address and port.
    pub(crate) fn send_to(self, to: SocketAddr) -> Rule {
        const DESTINATION: u32 = 1;
        const WITH_PORT: u32 = 2;
        let (rule, family) = match to.ip() {
            IpAddr::V4(ip) => (self.set(0, &ip.octets()), Family::Ipv4),
            IpAddr::V6(ip) => (self.set(0, &ip.octets()), Family::Ipv6),
        };
        let data = Attributes::default().number(1, DESTINATION).number(2, family as u32).number(3, REGISTER);
        let data = data.number(5, REGISTER + 4).number(7, WITH_PORT);
        rule.set(4, &to.port().to_be_bytes()).expression("nat", data)
    }

    /// Has the packet's connection come from this machine's own address.
    pub(crate) fn masquerade(self) -> Rule {
        self.expression("masq", Attributes::default())
    }

    /// Refuses: a connection with RST, anything else with this ICMP code of "unreachable".
    pub(crate) fn refuse(self, code: Option<u8>) -> Rule {
        const UNREACHABLE: u32 = 0;
        const RESET: u32 = 1;
        let data = match code {
            Some(code) => Attributes::default().number(1, UNREACHABLE).put(2, &[code]),
            None => Attributes::default().number(1, RESET),
        };
        self.expression("reject", data)
    }
}

/// A verdict, as data.
fn to_chain(code: u32, chain: &str) -> Attributes {
    Attributes::default().nest(2, Attributes::default().number(1, code).text(2, chain))
}

/// Changes that are made together or not at all.
pub(crate) struct Transaction {
    bytes: Vec<u8>,
    sequence: u32,
    /// Changes whose success is told: the answers to many do not fit the socket's queue.
    told: u32,
    flags: u16,
}

impl Transaction {
    pub(crate) fn new() -> Transaction {
        Transaction::with(ACK)
    }

    /// One of many changes: the kernel tells errors alone.
    pub(crate) fn large() -> Transaction {
        Transaction::with(0)
    }

    fn with(flags: u16) -> Transaction {
        let mut transaction = Transaction { bytes: Vec::new(), sequence: 0, told: 0, flags };
        transaction.message(BATCH_BEGIN, REQUEST, 0, SUBSYSTEM, Attributes::default());
        transaction
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, attributes: Attributes) {
        self.sequence += 1;
        self.bytes.extend_from_slice(&(20 + attributes.0.len() as u32).to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&flags.to_ne_bytes());
        self.bytes.extend_from_slice(&self.sequence.to_ne_bytes());
        self.bytes.extend_from_slice(&[0, 0, 0, 0, family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.bytes.extend_from_slice(&attributes.0);
    }

    fn change(&mut self, kind: u16, flags: u16, family: Family, attributes: Attributes) {
        self.told += u32::from(self.flags == ACK);
        self.message(kind, REQUEST | self.flags | flags, family as u8, 0, attributes);
    }

    /// Removes the table if it is there. (Made first, so that its removal cannot fail.)
    pub(crate) fn remove_table(&mut self, family: Family, table: &str) {
        self.change(NEW_TABLE, CREATE, family, Attributes::default().text(1, table));
        self.change(DELETE_TABLE, 0, family, Attributes::default().text(1, table));
    }

    /// Removes the table, which must be there.
    pub(crate) fn remove_existing_table(&mut self, family: Family, table: &str) {
        self.change(DELETE_TABLE, 0, family, Attributes::default().text(1, table));
    }

    pub(crate) fn add_table(&mut self, family: Family, table: &str) {
        self.change(NEW_TABLE, CREATE, family, Attributes::default().text(1, table));
    }

    /// A set of keys of `length` bytes, at most `size` of them, filled by packets.
    pub(crate) fn add_set(&mut self, family: Family, table: &str, set: &str, length: u32, size: u32) {
        const EVALUATED: u32 = 0x20;
        let attributes = Attributes::default().text(1, table).text(2, set).number(3, EVALUATED).number(4, 0);
        let size = Attributes::default().number(1, size);
        self.change(NEW_SET, CREATE, family, attributes.number(5, length).nest(9, size).number(10, 1));
    }

    pub(crate) fn add_chain(&mut self, family: Family, table: &str, chain: &str, hook: u32, priority: i32) {
        let hook = Attributes::default().number(1, hook).number(2, priority as u32);
        let attributes = Attributes::default().text(1, table).text(3, chain).nest(4, hook).text(7, "filter");
        self.change(NEW_CHAIN, CREATE, family, attributes);
    }

    /// A chain for address translation at this hook.
    pub(crate) fn add_nat_chain(
        &mut self,
        family: Family,
        table: &str,
        chain: &str,
        hook: u32,
        priority: i32,
    ) {
        let hook = Attributes::default().number(1, hook).number(2, priority as u32);
        let attributes = Attributes::default().text(1, table).text(3, chain).nest(4, hook).text(7, "nat");
        self.change(NEW_CHAIN, CREATE, family, attributes);
    }

    /// A chain that others lead to.
    pub(crate) fn add_inner_chain(&mut self, family: Family, table: &str, chain: &str) {
        self.change(NEW_CHAIN, CREATE, family, Attributes::default().text(1, table).text(3, chain));
    }

    pub(crate) fn add_counter(&mut self, family: Family, table: &str, counter: &str) {
        let attributes = Attributes::default().text(1, table).text(2, counter).number(3, COUNTER);
        self.change(NEW_OBJECT, CREATE, family, attributes.nest(4, Attributes::default()));
    }

    /// A map from the numbers 0, 1, 2, ... to the chains that these are led to.
    pub(crate) fn add_map<'a>(
        &mut self,
        family: Family,
        table: &str,
        map: &str,
        chains: impl ExactSizeIterator<Item = &'a str>,
    ) {
        const MAP: u32 = 0x8;
        let id = self.sequence + 1;
        let attributes = Attributes::default().text(1, table).text(2, map).number(3, MAP).number(4, 0);
        let attributes = attributes.number(5, 4).number(6, VERDICT).number(7, 0);
        let size = Attributes::default().number(1, chains.len() as u32);
        self.change(NEW_SET, CREATE, family, attributes.nest(9, size).number(10, id));
        let mut elements = Attributes::default();
        let put = |transaction: &mut Transaction, elements: Attributes| {
            let attributes = Attributes::default().text(1, table).text(2, map).nest(3, elements);
            transaction.change(NEW_ELEMENT, CREATE, family, attributes.number(4, id));
        };
        for (number, chain) in (0u32..).zip(chains) {
            let key = Attributes::default().put(1, &number.to_ne_bytes());
            elements = elements.nest(1, Attributes::default().nest(1, key).nest(2, to_chain(GOTO, chain)));
            if elements.0.len() > MOST_OF_ELEMENTS {
                put(self, std::mem::take(&mut elements));
            }
        }
        if !elements.0.is_empty() {
            put(self, elements);
        }
    }

    pub(crate) fn add_rule(&mut self, family: Family, table: &str, chain: &str, rule: Rule) {
        let attributes = Attributes::default().text(1, table).text(2, chain).nest(4, rule.0);
        self.change(NEW_RULE, CREATE | APPEND, family, attributes);
    }

    /// Has the kernel make the changes.
    ///
    /// # Errors
    /// What the kernel says to the first that it refuses; then none is made.
    pub(crate) fn commit(mut self) -> io::Result<()> {
        self.message(BATCH_END, REQUEST, 0, SUBSYSTEM, Attributes::default());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(NETFILTER))?;
        net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
        if self.bytes.len() > USUAL_BUFFER {
            net::sockopt::set_socket_send_buffer_size_force(&socket, 2 * self.bytes.len())?;
        }
        net::send(&socket, &self.bytes, SendFlags::empty())?;
        read_answers(&socket, if self.flags == ACK { self.told } else { u32::MAX })
    }
}

/// The kernel has answered before `send` returns: each change has its acknowledgement or error.
fn read_answers(socket: &OwnedFd, changes: u32) -> io::Result<()> {
    let (mut buffer, mut answers) = (vec![0u8; 16 * 1024], 0);
    while answers < changes {
        let length = match net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            Err(Errno::AGAIN) => break,
            other => other?.0,
        };
        let mut rest = &buffer[..length];
        while let Some((header, _)) = rest.split_first_chunk::<20>() {
            let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let code = i32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
            if u16::from_ne_bytes([header[4], header[5]]) == 2 && code != 0 {
                return Err(io::Error::from_raw_os_error(-code));
            }
            answers += 1;
            rest = rest.get(size.max(20).next_multiple_of(4)..).unwrap_or_default();
        }
    }
    Ok(())
}
