//! Questions to the kernel over netlink, and the attributes in its answers (`linux/netlink.h`). Called by `kernel` and `ipvs`.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{self, AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType, sockopt};

pub(crate) const ACK: u16 = 0x4;
pub(crate) const DUMP: u16 = 0x300;
const REQUEST: u16 = 0x1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// Header of netlink and of the protocol's part of it.
const HEADER: usize = 20;
/// Longest wait for an answer: the kernel gives it at once.
const PATIENCE: Duration = Duration::from_secs(2);

/// Adds one, padded.
pub(crate) fn attribute(to: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    to.extend_from_slice(&((bytes.len() + 4) as u16).to_ne_bytes());
    to.extend_from_slice(&kind.to_ne_bytes());
    to.extend_from_slice(bytes);
    to.resize(to.len().next_multiple_of(4), 0);
}

/// The first attribute of this kind.
pub(crate) fn find(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((header, _)) = attributes.split_first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = attributes.get(4..length)?;
        if kind == wanted {
            return Some(value);
        }
        attributes = attributes.get(length.next_multiple_of(4)..)?;
    }
    None
}

/// A string as the kernel ends it.
pub(crate) fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default().trim_end_matches('\0')
}

/// Asks, and hands the attributes of every answer on until the kernel says that it was the last. `of_family` is the header
/// that the protocol puts after netlink's.
///
/// # Errors
/// What the kernel says.
pub(crate) fn ask(
    protocol: Protocol,
    kind: u16,
    flags: u16,
    of_family: [u8; 4],
    attributes: &[u8],
    mut each: impl FnMut(&[u8]),
) -> io::Result<()> {
    let socket =
        net::socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, Some(protocol))?;
    net::bind(&socket, &SocketAddrNetlink::new(0, 0))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    let mut message = Vec::with_capacity(HEADER + attributes.len());
    message.extend_from_slice(&((HEADER + attributes.len()) as u32).to_ne_bytes());
    message.extend_from_slice(&kind.to_ne_bytes());
    message.extend_from_slice(&(REQUEST | flags).to_ne_bytes());
    message.extend_from_slice(&[1, 0, 0, 0, 0, 0, 0, 0]);
    message.extend_from_slice(&of_family);
    message.extend_from_slice(attributes);
    net::send(&socket, &message, SendFlags::empty())?;
    let mut buffer = vec![0u8; 64 * 1024];
    while !read(&socket, &mut buffer, &mut each)? {}
    Ok(())
}

/// Reads once; whether that was all.
fn read(socket: &OwnedFd, buffer: &mut [u8], each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
    let length = match net::recv(socket, &mut *buffer, RecvFlags::empty()) {
        Err(Errno::INTR) => return Ok(false),
        other => other?.0,
    };
    let mut rest = &buffer[..length];
    while let Some((header, _)) = rest.split_first_chunk::<HEADER>() {
        let size = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let code = i32::from_ne_bytes([header[16], header[17], header[18], header[19]]);
        match u16::from_ne_bytes([header[4], header[5]]) {
            DONE => return Ok(true),
            ERROR if code != 0 => return Err(io::Error::from_raw_os_error(-code)),
            ERROR => return Ok(true),
            _ => each(rest.get(HEADER..size).unwrap_or_default()),
        }
        rest = rest.get(size.max(HEADER).next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}
