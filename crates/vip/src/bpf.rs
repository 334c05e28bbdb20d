//! Just enough of an assembler for `bpf(2)` to write the one program that this process puts into the kernel, and
//! of the traffic-control messages (`tc-bpf(8)`) to put it on an interface and to take it off. No compiler, no
//! `tc` and no object file are needed. Called by `gate`; the instruction set is the kernel's
//! `Documentation/bpf/standardization/instruction-set.rst`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A register: `r0` is a result, `r1` to `r5` are arguments that a call destroys, `r10` is the stack's upper end.
#[derive(Clone, Copy)]
pub(crate) struct Register(u8);

pub(crate) const R0: Register = Register(0);
pub(crate) const R1: Register = Register(1);
pub(crate) const R2: Register = Register(2);
pub(crate) const R3: Register = Register(3);
pub(crate) const R4: Register = Register(4);
pub(crate) const R5: Register = Register(5);
pub(crate) const R6: Register = Register(6);
pub(crate) const R7: Register = Register(7);
pub(crate) const R10: Register = Register(10);

/// What a call asks the kernel for (`include/uapi/linux/bpf.h`, `enum bpf_func_id`).
#[derive(Clone, Copy)]
pub(crate) enum Helper {
    /// Nanoseconds, not counting suspension.
    Monotonic = 5,
    LoadBytesRelative = 68,
    LookUpUdp = 85,
    Release = 86,
    /// Nanoseconds, counting suspension.
    Boottime = 125,
}

/// A place in the program that is jumped to; always further on.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(usize);

/// Instructions, written one after the other.
#[derive(Default)]
pub(crate) struct Assembler {
    code: Vec<u64>,
    /// Jumps: the instruction, and where it goes.
    jumps: Vec<(usize, Label)>,
    /// Where each label stands.
    places: Vec<Option<usize>>,
}

fn instruction(opcode: u8, to: Register, from: Register, offset: i16, immediate: i32) -> u64 {
    let offset = u64::from(offset.cast_unsigned());
    let registers = u64::from(to.0) | u64::from(from.0) << 4;
    u64::from(opcode) | registers << 8 | offset << 16 | u64::from(immediate.cast_unsigned()) << 32
}

impl Assembler {
    pub(crate) fn label(&mut self) -> Label {
        self.places.push(None);
        Label(self.places.len() - 1)
    }

    /// The next instruction stands at this label.
    pub(crate) fn place(&mut self, label: Label) {
        debug_assert!(self.places[label.0].is_none(), "a label stands in one place");
        self.places[label.0] = Some(self.code.len());
    }

    fn add(&mut self, opcode: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        self.code.push(instruction(opcode, to, from, offset, immediate));
    }

    pub(crate) fn copy(&mut self, to: Register, from: Register) {
        self.add(0xbf, to, from, 0, 0);
    }

    pub(crate) fn set(&mut self, to: Register, value: i32) {
        self.add(0xb7, to, R0, 0, value);
    }

    pub(crate) fn add_to(&mut self, to: Register, value: i32) {
        self.add(0x07, to, R0, 0, value);
    }

    /// `to` = the address of the first value of the array map.
    pub(crate) fn set_value_of(&mut self, to: Register, map: BorrowedFd<'_>) {
        const VALUE: Register = Register(2);
        self.add(0x18, to, VALUE, 0, map.as_raw_fd());
        self.code.push(0);
    }

    pub(crate) fn load8(&mut self, to: Register, from: Register, offset: i16) {
        self.add(0x71, to, from, offset, 0);
    }

    pub(crate) fn load32(&mut self, to: Register, from: Register, offset: i16) {
        self.add(0x61, to, from, offset, 0);
    }

    pub(crate) fn load64(&mut self, to: Register, from: Register, offset: i16) {
        self.add(0x79, to, from, offset, 0);
    }

    /// Stores four bytes as they stand in memory.
    pub(crate) fn store32(&mut self, to: Register, offset: i16, bytes: [u8; 4]) {
        self.add(0x62, to, R0, offset, i32::from_ne_bytes(bytes));
    }

    pub(crate) fn call(&mut self, helper: Helper) {
        self.add(0x85, R0, R0, 0, helper as i32);
    }

    fn jump_with(&mut self, opcode: u8, a: Register, b: Register, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.add(opcode, a, b, 0, value);
    }

    pub(crate) fn jump(&mut self, to: Label) {
        self.jump_with(0x05, R0, R0, 0, to);
    }

    /// Compares the lower half of a register with bytes as they stand in memory.
    pub(crate) fn jump_if_is(&mut self, register: Register, bytes: [u8; 4], to: Label) {
        self.jump_with(0x16, register, R0, i32::from_ne_bytes(bytes), to);
    }

    pub(crate) fn jump_unless_is(&mut self, register: Register, bytes: [u8; 4], to: Label) {
        self.jump_with(0x56, register, R0, i32::from_ne_bytes(bytes), to);
    }

    pub(crate) fn jump_if_zero(&mut self, register: Register, to: Label) {
        self.jump_with(0x15, register, R0, 0, to);
    }

    pub(crate) fn jump_unless_zero(&mut self, register: Register, to: Label) {
        self.jump_with(0x55, register, R0, 0, to);
    }

    /// If `a` > `b`, as unsigned numbers.
    pub(crate) fn jump_if_greater(&mut self, a: Register, b: Register, to: Label) {
        self.jump_with(0x2d, a, b, 0, to);
    }

    pub(crate) fn exit(&mut self) {
        self.add(0x95, R0, R0, 0, 0);
    }

    /// The finished program.
    pub(crate) fn finish(mut self) -> Vec<u64> {
        for (at, label) in self.jumps {
            let place = self.places[label.0].unwrap_or(at);
            debug_assert!(place > at, "jumps go forward, to labels that stand somewhere");
            self.code[at] |= (place.saturating_sub(at + 1) as u64 & 0xffff) << 16;
        }
        self.code
    }
}

// ---- traffic control -------------------------------------------------------------------------------------------

/// Which packets of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Direction {
    Ingress,
    Egress,
}

const NEW_QDISC: u16 = 36;
const NEW_FILTER: u16 = 44;
const DELETE_FILTER: u16 = 45;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
/// `TC_H_CLSACT`: the place on an interface that holds programs and queues nothing.
const CLSACT: u32 = 0xffff_fff1;
/// Our filters come first: one of another program may let a packet pass for good.
const PRIORITY: u32 = 1;
const ALL_PROTOCOLS: u16 = 0x0003;

fn attribute(message: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    message.extend_from_slice(&((bytes.len() + 4) as u16).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(bytes);
    message.resize(message.len().next_multiple_of(4), 0);
}

/// `struct tcmsg`.
fn about(index: u32, handle: u32, parent: u32, info: u32) -> Vec<u8> {
    let mut message = vec![0; 4];
    for word in [index, handle, parent, info] {
        message.extend_from_slice(&word.to_ne_bytes());
    }
    message
}

fn ask(kind: u16, flags: u16, body: &[u8]) -> io::Result<()> {
    let mut bytes = Vec::with_capacity(16 + body.len());
    bytes.extend_from_slice(&(16 + body.len() as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(REQUEST | ACK | flags).to_ne_bytes());
    bytes.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    bytes.extend_from_slice(body);
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?; // NETLINK_ROUTE
    net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    net::send(&socket, &bytes, SendFlags::empty())?;
    let mut answer = [0u8; 512];
    loop {
        match net::recv(&socket, &mut answer, RecvFlags::empty()) {
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
            Ok(_) => break, // the kernel has answered before `send` returned
        }
    }
    match i32::from_ne_bytes([answer[16], answer[17], answer[18], answer[19]]) {
        0 => Ok(()),
        code => Err(io::Error::from_raw_os_error(code.abs())),
    }
}

fn parent(direction: Direction) -> u32 {
    let minor = if direction == Direction::Ingress { 0xfff2 } else { 0xfff3 };
    CLSACT & 0xffff_0000 | minor
}

fn filter(index: u32, direction: Direction, handle: u32) -> Vec<u8> {
    about(index, handle, parent(direction), PRIORITY << 16 | u32::from(ALL_PROTOCOLS.to_be()))
}

/// Puts a program on the interface, in place of the one that has this handle, at once and without a gap.
///
/// # Errors
/// What the kernel says: `EPERM` without `CAP_NET_ADMIN`, `EOPNOTSUPP` without `cls_bpf`.
pub(crate) fn attach(
    index: u32,
    direction: Direction,
    handle: u32,
    program: BorrowedFd<'_>,
) -> io::Result<()> {
    let mut qdisc = about(index, CLSACT & 0xffff_0000, CLSACT, 0);
    attribute(&mut qdisc, 1, b"clsact\0");
    match ask(NEW_QDISC, CREATE, &qdisc) {
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => {}
        other => other?,
    }
    let mut options = Vec::new();
    attribute(&mut options, 6, &program.as_raw_fd().to_ne_bytes());
    attribute(&mut options, 7, b"relais-lease\0");
    attribute(&mut options, 8, &1u32.to_ne_bytes()); // direct action: the program's result is the verdict
    let mut message = filter(index, direction, handle);
    attribute(&mut message, 1, b"bpf\0");
    attribute(&mut message, 2, &options);
    ask(NEW_FILTER, CREATE | REPLACE, &message)
}

/// Takes the program with this handle off the interface; whether there was one.
///
/// # Errors
/// What the kernel says.
pub(crate) fn detach(index: u32, direction: Direction, handle: u32) -> io::Result<bool> {
    let mut message = filter(index, direction, handle);
    attribute(&mut message, 1, b"bpf\0");
    match ask(DELETE_FILTER, 0, &message) {
        // No such filter, no place for any, or no such interface.
        Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::EINVAL | libc::ENODEV)) => Ok(false),
        other => other.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_end_where_their_labels_stand() {
        let mut code = Assembler::default();
        let end = code.label();
        code.jump_if_zero(R1, end);
        code.set(R0, 2);
        code.place(end);
        code.exit();
        assert_eq!(code.finish(), [0x0001_0115, 0x2_0000_00b7, 0x95]);
    }
}
