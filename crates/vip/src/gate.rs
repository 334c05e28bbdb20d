//! The fine stage of an address's lease: a program in the kernel that lets packets to and from the address pass
//! only until a moment that this process keeps moving on, and only while somebody of ours lives.
//!
//! The address itself, on the interface, outlives its holder by the seconds of `valid_lft`. The gate shuts within
//! the milliseconds after which the others may take over, whether the holder died, hangs, or its machine slept: it
//! is a `tc-bpf(8)` program that compares the boot-time clock with a word in a page that this process has mapped.
//! Moving the moment on is a store to memory: no lock that others hold can delay it, and nothing that is done to
//! nftables (a long transaction, `flush ruleset`) touches it. That this process *and* the supervisor are dead the program
//! sees by a socket that both hold (UDP on the loopback; nobody sends to it): it is gone in the moment of the later
//! death. While the supervisor lives another vip is on its way, and the lease waits for it as long as it lasts.
//!
//! A shut gate opens of itself `OBLIVION` after it was last held. By then the kernel has removed the address, and
//! another program may want to use it. Called by the engine.

use std::io;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use relais_base::Time;
use rustix::time::{ClockId, clock_gettime};

use crate::bpf::{self, Assembler, Direction, Helper, Label, R0, R1, R2, R3, R4, R5, R6, R7, R10};
use crate::sys::{self, Page};

/// How long a gate stays shut after it was last held. The address itself is gone after `LEASE` and a second.
const OBLIVION: Duration = Duration::from_secs(10);
/// Where `struct __sk_buff` has the protocol.
const PROTOCOL: i16 = 16;
const IPV4: [u8; 4] = [0x08, 0x00, 0, 0];
const IPV6: [u8; 4] = [0x86, 0xdd, 0, 0];
const ARP: [u8; 4] = [0x08, 0x06, 0, 0];
/// Verdicts of traffic control: on to the next program; drop.
const GO_ON: i32 = -1;
const DROP: i32 = 2;
/// Words of the page.
const UNTIL: usize = 0;
const OBLIVION_AT: usize = 1;
const MUTED: usize = 2;

/// The socket by which the kernel knows that somebody of ours lives.
#[derive(Debug)]
pub(crate) struct Pulse(UdpSocket);

impl Pulse {
    /// # Errors
    /// If there is no loopback in this network namespace, or no port left.
    pub(crate) fn new() -> io::Result<Pulse> {
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).map(Pulse)
    }

    /// The same socket, for somebody else to hold.
    ///
    /// # Errors
    /// If the process has no descriptors left.
    pub(crate) fn socket(&self) -> io::Result<OwnedFd> {
        self.0.try_clone().map(OwnedFd::from)
    }
}

/// The number of the gate before the `i`th address of a virtual router: unlike any other's on the interface, for routers
/// of the two families may share a VRID.
pub(crate) fn number(vrid: u8, address: IpAddr, i: u32) -> u32 {
    u32::from(vrid) | i << 8 | u32::from(address.is_ipv6()) << 15
}

/// A gate before one address on one interface.
#[derive(Debug)]
pub(crate) struct Gate {
    page: Page,
    index: u32,
    handle: u32,
}

impl Gate {
    /// Puts a shut gate in place of whatever gate stands there.
    ///
    /// `number` tells the gates of an interface apart, from 1.
    ///
    /// # Errors
    /// What the kernel says: `EPERM` without `CAP_BPF`, `ENOSYS` or `EOPNOTSUPP` without `tc-bpf`.
    pub(crate) fn new(index: u32, address: IpAddr, number: u32, pulse: &Pulse) -> io::Result<Gate> {
        let map = sys::bpf_page()?;
        let page = Page::map(map.as_fd())?;
        let port = pulse.0.local_addr()?.port();
        for direction in [Direction::Ingress, Direction::Egress] {
            let program = sys::bpf_program(&program(direction, address, &map, port))?;
            bpf::attach(index, direction, number, program.as_fd())?;
        }
        Ok(Gate { page, index, handle: number })
    }

    /// The interface that it stands on.
    pub(crate) fn index(&self) -> u32 {
        self.index
    }

    /// Lets packets pass until then, on the clock that counts suspension.
    pub(crate) fn hold_until(&self, until: Time) {
        let now = clock_gettime(ClockId::Monotonic);
        let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        self.page.store(OBLIVION_AT, now + OBLIVION.as_nanos() as u64);
        self.page.store(UNTIL, until.as_nanos());
    }

    /// From now on nobody is told that the address is here, though what comes to it passes: another machine has it, and what
    /// is open goes on. Or that ends.
    pub(crate) fn mute(&self, muted: bool) {
        self.page.store(MUTED, muted.into());
    }

    /// Shuts it.
    pub(crate) fn shut(&self) {
        self.page.store(UNTIL, 0);
    }

    /// Takes the gate of this number away, whoever left it there; whether there was one.
    pub(crate) fn remove(index: u32, number: u32) -> bool {
        // Where it cannot be taken away, none could be put.
        let removed = |direction| bpf::detach(index, direction, number).unwrap_or(false);
        [Direction::Ingress, Direction::Egress].map(removed).contains(&true)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        Gate::remove(self.index, self.handle);
    }
}

/// Goes to `pass` unless `length` bytes at `offset` of the network header could be read onto the stack.
fn read(code: &mut Assembler, offset: i32, length: i32, pass: Label) {
    const FROM_NETWORK_HEADER: i32 = 1;
    code.copy(R1, R6);
    code.set(R2, offset);
    code.copy(R3, R10);
    code.add_to(R3, -16);
    code.set(R4, length);
    code.set(R5, FROM_NETWORK_HEADER);
    code.call(Helper::LoadBytesRelative);
    code.jump_unless_zero(R0, pass);
}

/// Goes to `other` unless the address stands at `offset` of the network header.
fn expect(code: &mut Assembler, address: IpAddr, offset: i32, pass: Label, other: Label) {
    let octets = match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    };
    read(code, offset, octets.len() as i32, pass);
    let (words, _) = octets.as_chunks::<4>();
    for (i, word) in words.iter().enumerate() {
        code.load32(R1, R10, -16 + 4 * i as i16);
        code.jump_unless_is(R1, *word, other);
    }
}

/// Goes to `ours` if the packet is to the address (or from it, going out), else to `pass`. What asks where an
/// address is, or says it, is to or from that address too: ARP, and neighbour solicitations (RFC 4861); it goes to `asks`.
fn recognise(code: &mut Assembler, direction: Direction, address: IpAddr, [ours, asks, pass]: [Label; 3]) {
    let inbound = direction == Direction::Ingress;
    code.load32(R1, R6, PROTOCOL);
    match address {
        IpAddr::V4(_) => {
            let ip = code.label();
            code.jump_if_is(R1, IPV4, ip);
            code.jump_unless_is(R1, ARP, pass);
            expect(code, address, if inbound { 24 } else { 14 }, pass, pass);
            code.jump(asks);
            code.place(ip);
            expect(code, address, if inbound { 16 } else { 12 }, pass, pass);
            code.jump(ours);
        }
        IpAddr::V6(_) => {
            const ICMP: u8 = 58;
            let neighbour = code.label();
            code.jump_unless_is(R1, IPV6, pass);
            expect(code, address, if inbound { 24 } else { 8 }, pass, neighbour);
            code.jump(ours);
            code.place(neighbour);
            read(code, 6, 1, pass);
            code.load8(R1, R10, -16);
            code.jump_unless_is(R1, [ICMP, 0, 0, 0], pass);
            read(code, 40, 1, pass);
            code.load8(R1, R10, -16);
            code.jump_unless_is(R1, [if inbound { 135 } else { 136 }, 0, 0, 0], pass);
            expect(code, address, 48, pass, pass);
            code.jump(asks);
        }
    }
}

/// Goes to `shut` unless somebody of ours lives. `R7` is not touched.
fn expect_pulse(code: &mut Assembler, port: u16, shut: Label) {
    let [high, low] = port.to_be_bytes();
    code.store32(R10, -16, [0; 4]); // from anywhere
    code.store32(R10, -12, Ipv4Addr::LOCALHOST.octets());
    code.store32(R10, -8, [0, 0, high, low]);
    code.copy(R1, R6);
    code.copy(R2, R10);
    code.add_to(R2, -16);
    code.set(R3, 12);
    code.set(R4, -1); // in the interface's own network namespace
    code.set(R5, 0);
    code.call(Helper::LookUpUdp);
    code.jump_if_zero(R0, shut);
    code.copy(R1, R0);
    code.call(Helper::Release);
}

/// What runs for each packet. Only what comes in asks for the socket: what is not heard is not answered.
fn program(direction: Direction, address: IpAddr, page: &OwnedFd, port: u16) -> Vec<u64> {
    let mut code = Assembler::default();
    let (ours, pass, shut) = (code.label(), code.label(), code.label());
    let (asks, drop) = (code.label(), code.label());
    code.copy(R6, R1);
    recognise(&mut code, direction, address, [ours, asks, pass]);
    code.place(asks);
    if direction == Direction::Ingress {
        code.set_value_of(R7, page.as_fd());
        code.load64(R1, R7, 8 * MUTED as i16);
        code.jump_unless_zero(R1, drop);
    }
    code.place(ours);
    code.set_value_of(R7, page.as_fd());
    code.call(Helper::Boottime);
    code.load64(R1, R7, 8 * UNTIL as i16);
    code.jump_if_greater(R0, R1, shut);
    if direction == Direction::Ingress {
        expect_pulse(&mut code, port, shut);
    }
    code.jump(pass);
    code.place(shut);
    let forgotten = code.label();
    code.call(Helper::Monotonic);
    code.load64(R1, R7, 8 * OBLIVION_AT as i16);
    code.jump_if_greater(R0, R1, forgotten);
    code.place(drop);
    code.set(R0, DROP);
    code.exit();
    code.place(pass);
    code.place(forgotten);
    code.set(R0, GO_ON);
    code.exit();
    code.finish()
}
