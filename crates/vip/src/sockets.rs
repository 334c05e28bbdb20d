//! TCP connections of a virtual address that has left this machine: counted, and ended.
//!
//! Nothing reaches them any more, and nothing from them reaches a client, so they would only wait for time-outs. Worse is
//! what the kernel remembers of ended ones for a minute (TIME-WAIT, RFC 9293 §3.6): when the address comes back sooner, a
//! client that uses a port a second time is answered from there, and stalls. `sock_diag(7)` finds and ends them;
//! it may take long where there are many, so this is for a thread that nobody waits for. Called by `lib`.

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::Errno;
use rustix::net::netlink::{SOCK_DIAG, SocketAddrNetlink};
use rustix::net::{self, AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// `SOCK_DIAG_BY_FAMILY` and `SOCK_DESTROY` (`linux/sock_diag.h`).
const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
const REQUEST: u16 = 0x1;
const ACK: u16 = 0x4;
const DUMP: u16 = 0x300;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const TCP: u8 = 6;
const FAMILIES: [u8; 2] = [2, 10];
/// States by their bit (`tcp_states.h`): all but CLOSE and LISTEN, and those in which somebody has still something to say.
const CONNECTED: u32 = 0x1fff & !(1 << 7 | 1 << 10 | 1);
const TALKING: u32 = 1 << 1 | 1 << 4 | 1 << 8;
/// Length of a header, of `inet_diag_sockid`, and where that is in an `inet_diag_msg`.
const HEADER: usize = 16;
const ID: usize = 48;
const ID_AT: usize = HEADER + 4;
/// Behind that come the timer and the queue of what was received.
const WRITE_QUEUE_AT: usize = ID_AT + ID + 8;
const BUFFER: usize = 64 * 1024;

/// What the kernel knows a connection by.
struct Connection {
    family: u8,
    state: u8,
    id: [u8; ID],
    /// Bytes.
    unacknowledged: u32,
}

/// Ends all TCP connections that have one of these addresses at this end, with a reset where they are open; how many
/// of them were. Stops when the address is here again: younger ones are not touched.
///
/// # Errors
/// What the kernel says; one without `CONFIG_INET_DIAG_DESTROY` says `EOPNOTSUPP`.
pub(crate) fn end(addresses: &[IpAddr], is_here_again: &AtomicBool) -> io::Result<usize> {
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?;
    net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    let mut open = 0;
    for connection in connections(&socket, addresses)? {
        if is_here_again.load(Ordering::Relaxed) {
            break;
        }
        if destroy(&socket, &connection)? && TALKING & 1 << connection.state != 0 {
            open += 1;
        }
    }
    Ok(open)
}

/// Whether the kernel still has something for clients at the other end of these addresses: what was sent from here, perhaps by
/// a process that has ended since, and has not been acknowledged.
///
/// # Errors
/// What the kernel says.
pub(crate) fn is_delivering(addresses: &[IpAddr]) -> io::Result<bool> {
    let flags = SocketFlags::CLOEXEC;
    let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG))?;
    net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    Ok(connections(&socket, addresses)?.iter().any(|connection| connection.unacknowledged > 0))
}

fn connections(socket: &OwnedFd, addresses: &[IpAddr]) -> io::Result<Vec<Connection>> {
    let mut found = Vec::new();
    for family in FAMILIES {
        ask(socket, BY_FAMILY, DUMP, family, &[0; ID])?;
        let each = |message: &[u8]| {
            let id = message.get(ID_AT..ID_AT + ID).and_then(|id| <[u8; ID]>::try_from(id).ok());
            if let (Some(id), Some(state)) = (id, message.get(HEADER + 1))
                && addresses.contains(&local(family, &id))
            {
                let queued =
                    message.get(WRITE_QUEUE_AT..WRITE_QUEUE_AT + 4).and_then(|bytes| bytes.try_into().ok());
                let unacknowledged = u32::from_ne_bytes(queued.unwrap_or_default());
                found.push(Connection { family, state: *state, id, unacknowledged });
            }
        };
        read(socket, each)?;
    }
    Ok(found)
}

/// The address at this end; one of IPv4 that a socket of IPv6 carries is one of IPv4.
fn local(family: u8, id: &[u8; ID]) -> IpAddr {
    let mut source = [0; 16];
    source.copy_from_slice(&id[4..20]);
    match family {
        2 => IpAddr::from([source[0], source[1], source[2], source[3]]),
        _ => IpAddr::from(source).to_canonical(),
    }
}

/// Whether it was there still.
fn destroy(socket: &OwnedFd, connection: &Connection) -> io::Result<bool> {
    ask(socket, DESTROY, ACK, connection.family, &connection.id)?;
    match read(socket, |_| ()) {
        // Gone by itself, or in a state that this kernel cannot end.
        Err(e) if e.raw_os_error() == Some(libc::ENOENT) => Ok(false),
        other => other.map(|()| true),
    }
}

/// Sends an `inet_diag_req_v2`.
fn ask(socket: &OwnedFd, kind: u16, flags: u16, family: u8, id: &[u8; ID]) -> io::Result<()> {
    const LENGTH: usize = HEADER + 8 + ID;
    let mut message = Vec::with_capacity(LENGTH);
    message.extend_from_slice(&(LENGTH as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    message.extend_from_slice(&[0; 8]);
    message.extend_from_slice(&[family, TCP, 0, 0]);
    message.extend_from_slice(&CONNECTED.to_ne_bytes());
    message.extend_from_slice(id);
    net::send(socket, &message, SendFlags::empty())?;
    Ok(())
}

/// Gives each message of an answer to `each`, up to the one that ends it.
fn read(socket: &OwnedFd, mut each: impl FnMut(&[u8])) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = match net::recv(socket, buffer.as_mut_slice(), RecvFlags::empty()) {
            Err(Errno::INTR) => continue,
            other => other?.0,
        };
        let mut rest = &buffer[..length];
        while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
            let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
            let Some(message) = rest.get(..size.max(HEADER)) else { break };
            match u16::from_ne_bytes([header[4], header[5]]) {
                DONE => return Ok(()),
                ERROR => {
                    let code = message.get(HEADER..HEADER + 4).and_then(|code| code.try_into().ok());
                    return match i32::from_ne_bytes(code.unwrap_or_default()) {
                        0 => Ok(()),
                        code => Err(io::Error::from_raw_os_error(-code)),
                    };
                }
                _ => each(message),
            }
            rest = rest.get(size.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_connections_of_one_address_are_ended_and_no_others() {
        if !rustix::process::geteuid().is_root() {
            return eprintln!("skipped: needs root");
        }
        let [one, other] = [Ipv4Addr::new(127, 98, 0, 1), Ipv4Addr::new(127, 98, 0, 2)];
        let pair = |address: Ipv4Addr| {
            let listener = TcpListener::bind((address, 0)).expect("a listener");
            let client = TcpStream::connect(listener.local_addr().expect("an address")).expect("connected");
            let (server, _) = listener.accept().expect("accepted");
            (client, server)
        };
        let mut ended = [pair(one), pair(one)];
        let (mut kept, mut other_end) = pair(other);

        let none = end(&[IpAddr::V4(one)], &AtomicBool::new(true));
        assert_eq!(none.expect("permission"), 0, "it is here again");
        let count = end(&[IpAddr::V4(one)], &AtomicBool::new(false));
        assert_eq!(count.expect("permission"), 2);
        for (client, _) in &mut ended {
            assert_eq!(client.read(&mut [0]).expect_err("an end").kind(), ErrorKind::ConnectionReset);
        }
        std::io::Write::write_all(&mut kept, b"x").expect("a connection");
        other_end.read_exact(&mut [0]).expect("a connection");

        let (closing, server) = pair(one);
        drop(server); // this end is the first: TIME-WAIT remains of it
        drop(closing);
        let ours = |socket: &OwnedFd| connections(socket, &[IpAddr::V4(one)]).expect("an answer").len();
        let flags = SocketFlags::CLOEXEC;
        let socket = net::socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, Some(SOCK_DIAG));
        let socket = socket.expect("a socket");
        assert_ne!(ours(&socket), 0);
        assert_eq!(end(&[IpAddr::V4(one)], &AtomicBool::new(false)).expect("permission"), 0, "none was open");
        assert_eq!(ours(&socket), 0);
    }
}
