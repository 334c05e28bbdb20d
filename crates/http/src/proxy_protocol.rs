//! HAProxy's PROXY protocol, versions 1 and 2 (`doc/proxy-protocol.txt`): who is behind a connection, said before
//! anything else on it. Not HTTP, but like it framing at the beginning of a receive buffer.
//!
//! A pure parser and a pure writer. Whom to believe, and how long to wait, is the caller's: the `proxy` crate.

use alloc::vec::Vec;
use core::fmt;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Longest header of version 1, its line end included (§2.1).
pub const MAX_V1: usize = 107;
/// Longest header of version 2 that is taken, bytes. The protocol allows 65,551; addresses, TLS facts and a client's
/// certificate fit in this.
pub const MAX_V2: usize = 8192;

const SIGNATURE_V1: &[u8] = b"PROXY";
const SIGNATURE_V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const HEAD_V2: usize = 16;
const CRC32C: u8 = 0x03;
const SSL: u8 = 0x20;
const SSL_VERSION: u8 = 0x21;
const SSL_CN: u8 = 0x22;
const SSL_CIPHER: u8 = 0x23;
/// `PP2_CLIENT_SSL`, and `PP2_CLIENT_CERT_CONN` with it.
const CLIENT_SSL: u8 = 0x01;
const CLIENT_CERT: u8 = 0x02;

/// A whole header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its bytes; the client's own follow.
    pub length: usize,
    /// The two ends of the connection that it is about.
    pub ends: Ends,
}

/// The two ends of a connection, as its header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// The sender speaks for itself (`LOCAL`), or cannot say (`UNKNOWN`, `UNSPEC`), or it is no TCP connection (Unix
    /// sockets, datagrams): the connection's own ends count.
    Own,
    /// A TCP connection from `source` to `destination`.
    Tcp {
        /// The client.
        source: SocketAddr,
        /// What it connected to.
        destination: SocketAddr,
    },
}

/// Why a header is not one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bad {
    /// It begins otherwise.
    Signature,
    /// Version 1 without an end within 107 bytes; version 2 of more than [`MAX_V2`].
    Long,
    /// Version 1 with a word that is not what should stand there.
    Line,
    /// Another version, or a command that is neither `LOCAL` nor `PROXY`.
    Command,
    /// An address family or protocol that nobody has defined.
    Family,
    /// Shorter than its addresses.
    Short,
    /// A type-length-value field that does not fit.
    Field,
    /// The checksum is not that of these bytes.
    Checksum,
}

impl fmt::Display for Bad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Bad::Signature => "it begins with something else",
            Bad::Long => "it is too long",
            Bad::Line => "its line has a wrong word",
            Bad::Command => "its version or command is unknown",
            Bad::Family => "its address family is unknown",
            Bad::Short => "it is shorter than its addresses",
            Bad::Field => "a field of it does not fit",
            Bad::Checksum => "its checksum is wrong",
        })
    }
}

/// The header at the beginning of `bytes`; `None` if it is not all there, and nothing in it is wrong so far.
///
/// # Errors
/// As soon as it cannot become a header any more.
pub fn parse(bytes: &[u8]) -> Result<Option<Header>, Bad> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => parse_v1(bytes),
        Some(_) => parse_v2(bytes),
    }
}

fn begins_like(bytes: &[u8], signature: &[u8]) -> Result<bool, Bad> {
    let n = bytes.len().min(signature.len());
    if bytes[..n] == signature[..n] { Ok(n == signature.len()) } else { Err(Bad::Signature) }
}

fn parse_v1(bytes: &[u8]) -> Result<Option<Header>, Bad> {
    if !begins_like(bytes, SIGNATURE_V1)? {
        return Ok(None);
    }
    let Some(end) = bytes.iter().take(MAX_V1).position(|b| *b == b'\n') else {
        return if bytes.len() < MAX_V1 { Ok(None) } else { Err(Bad::Long) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Bad::Line)?;
    let length = end + 1;
    let rest = line.strip_prefix(b"PROXY ").ok_or(Bad::Line)?;
    if rest == b"UNKNOWN" || rest.starts_with(b"UNKNOWN ") {
        return Ok(Some(Header { length, ends: Ends::Own }));
    }
    let rest = core::str::from_utf8(rest).map_err(|_| Bad::Line)?;
    let mut words = rest.split(' ');
    let mut word = || words.next().ok_or(Bad::Line);
    let family = word()?;
    let (source, destination) = (ip(family, word()?)?, ip(family, word()?)?);
    let (from, to) = (port(word()?)?, port(word()?)?);
    if words.next().is_some() {
        return Err(Bad::Line);
    }
    let ends =
        Ends::Tcp { source: SocketAddr::new(source, from), destination: SocketAddr::new(destination, to) };
    Ok(Some(Header { length, ends }))
}

fn ip(family: &str, word: &str) -> Result<IpAddr, Bad> {
    match family {
        "TCP4" => word.parse().map(IpAddr::V4).map_err(|_| Bad::Line),
        "TCP6" => word.parse().map(IpAddr::V6).map_err(|_| Bad::Line),
        _ => Err(Bad::Line),
    }
}

/// A port without sign or leading zeros.
fn port(word: &str) -> Result<u16, Bad> {
    let plain = word.bytes().all(|b| b.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    if plain { word.parse().map_err(|_| Bad::Line) } else { Err(Bad::Line) }
}

fn parse_v2(bytes: &[u8]) -> Result<Option<Header>, Bad> {
    if !begins_like(bytes, SIGNATURE_V2)? {
        return Ok(None);
    }
    let local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(Bad::Command),
    };
    let Some(head) = bytes.first_chunk::<HEAD_V2>() else { return Ok(None) };
    let length = HEAD_V2 + usize::from(u16::from_be_bytes([head[14], head[15]]));
    if length > MAX_V2 {
        return Err(Bad::Long);
    }
    let (family, protocol) = (head[13] >> 4, head[13] & 15);
    // With LOCAL the family must be ignored (§2.2).
    if !local && (family > 3 || protocol > 2) {
        return Err(Bad::Family);
    }
    let Some(whole) = bytes.get(..length) else { return Ok(None) };
    if local || family == 0 {
        return Ok(Some(Header { length, ends: Ends::Own }));
    }
    let body = &whole[HEAD_V2..];
    let (source, destination, fields) = match family {
        1 => {
            let (b, rest) = body.split_first_chunk::<12>().ok_or(Bad::Short)?;
            let ip = |at: usize| IpAddr::V4(Ipv4Addr::new(b[at], b[at + 1], b[at + 2], b[at + 3]));
            (address(ip(0), &b[8..10]), address(ip(4), &b[10..12]), rest)
        }
        2 => {
            let (b, rest) = body.split_first_chunk::<36>().ok_or(Bad::Short)?;
            let ip = |at: usize| {
                let octets: [u8; 16] = core::array::from_fn(|i| b[at + i]);
                IpAddr::V6(Ipv6Addr::from(octets))
            };
            (address(ip(0), &b[32..34]), address(ip(16), &b[34..36]), rest)
        }
        _ => {
            let rest = body.get(216..).ok_or(Bad::Short)?;
            check_fields(whole, rest)?;
            return Ok(Some(Header { length, ends: Ends::Own }));
        }
    };
    check_fields(whole, fields)?;
    let ends = if protocol == 1 { Ends::Tcp { source, destination } } else { Ends::Own };
    Ok(Some(Header { length, ends }))
}

fn address(ip: IpAddr, port: &[u8]) -> SocketAddr {
    SocketAddr::new(ip, port.iter().fold(0, |port, byte| port << 8 | u16::from(*byte)))
}

/// Walks over the fields at the end of `whole`; of all kinds only the checksum is looked at.
fn check_fields(whole: &[u8], fields: &[u8]) -> Result<(), Bad> {
    let mut rest = fields;
    while !rest.is_empty() {
        let (&[kind, high, low], after) = rest.split_first_chunk::<3>().ok_or(Bad::Field)?;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let (value, after) = after.split_at_checked(length).ok_or(Bad::Field)?;
        if kind == CRC32C {
            let said = value.first_chunk::<4>().filter(|_| length == 4).ok_or(Bad::Field)?;
            let at = whole.len() - after.len() - 4;
            // The checksum is that of the header with zeros in its own place (§2.2.3).
            let crc = [&whole[..at], &[0; 4], after].iter().fold(!0, |crc, part| crc32c(crc, part));
            if !crc != u32::from_be_bytes(*said) {
                return Err(Bad::Checksum);
            }
        }
        rest = after;
    }
    Ok(())
}

/// Goes on with a CRC-32C (RFC 4960, appendix B), reflected, without the inversions at its ends.
fn crc32c(crc: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(crc, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0x82f6_3b78 & 0u32.wrapping_sub(crc & 1)))
    })
}

/// What is known of a client's TLS, for the header's TLS field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tls<'a> {
    /// Such as `TLSv1.3`.
    pub version: &'a str,
    /// The cipher suite's name.
    pub cipher: Option<&'a str>,
    /// The common name of the client's certificate, which was verified.
    pub client_name: Option<&'a str>,
}

/// Appends a header of version 1. Two ends of different families are both written as IPv6.
pub fn write_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let (from, to) = one_family(source, destination);
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    let text = alloc::format!(
        "PROXY {family} {} {} {} {}\r\n",
        from.ip(),
        to.ip(),
        source.port(),
        destination.port()
    );
    out.extend_from_slice(text.as_bytes());
}

/// Appends a header of version 1 that says nothing: for connections of our own, such as checks.
pub fn write_v1_unknown(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}

/// Appends a header of version 2, with what is known of the client's TLS.
pub fn write_v2(source: SocketAddr, destination: SocketAddr, tls: Option<&Tls<'_>>, out: &mut Vec<u8>) {
    let start = out.len();
    let (from, to) = one_family(source, destination);
    out.extend_from_slice(SIGNATURE_V2);
    out.extend_from_slice(&[0x21, if from.is_ipv4() { 0x11 } else { 0x21 }, 0, 0]);
    for end in [from, to] {
        match end.ip() {
            IpAddr::V4(ip) => out.extend_from_slice(&ip.octets()),
            IpAddr::V6(ip) => out.extend_from_slice(&ip.octets()),
        }
    }
    out.extend_from_slice(&from.port().to_be_bytes());
    out.extend_from_slice(&to.port().to_be_bytes());
    if let Some(tls) = tls {
        write_tls(tls, out);
    }
    let length = (out.len() - start - HEAD_V2) as u16; // at most some 800 bytes, by the limit of `field`
    out[start + 14..start + 16].copy_from_slice(&length.to_be_bytes());
}

fn write_tls(tls: &Tls<'_>, out: &mut Vec<u8>) {
    let at = out.len();
    let client = CLIENT_SSL | if tls.client_name.is_some() { CLIENT_CERT } else { 0 };
    let verify = u32::from(tls.client_name.is_none()).to_be_bytes(); // 0: there was a certificate, and it is good
    out.extend_from_slice(&[SSL, 0, 0, client]);
    out.extend_from_slice(&verify);
    field(SSL_VERSION, tls.version, out);
    tls.cipher.into_iter().for_each(|cipher| field(SSL_CIPHER, cipher, out));
    tls.client_name.into_iter().for_each(|name| field(SSL_CN, name, out));
    let length = (out.len() - at - 3) as u16;
    out[at + 1..at + 3].copy_from_slice(&length.to_be_bytes());
}

/// A field of at most 255 bytes of text; longer text is left out rather than cut.
fn field(kind: u8, text: &str, out: &mut Vec<u8>) {
    if let Ok(length) = u8::try_from(text.len()) {
        out.extend_from_slice(&[kind, 0, length]);
        out.extend_from_slice(text.as_bytes());
    }
}

/// Appends a header of version 2 for a connection of our own, such as a check (`LOCAL`).
pub fn write_v2_local(out: &mut Vec<u8>) {
    out.extend_from_slice(SIGNATURE_V2);
    out.extend_from_slice(&[0x20, 0, 0, 0]);
}

/// Both ends in one family: IPv4 where both are, or mean, IPv4.
fn one_family(source: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let plain = |end: SocketAddr| SocketAddr::new(end.ip().to_canonical(), end.port());
    let (from, to) = (plain(source), plain(destination));
    if from.is_ipv4() == to.is_ipv4() {
        return (from, to);
    }
    let mapped = |end: SocketAddr| match end.ip() {
        IpAddr::V4(ip) => SocketAddr::new(IpAddr::V6(ip.to_ipv6_mapped()), end.port()),
        IpAddr::V6(_) => end,
    };
    (mapped(from), mapped(to))
}

/// For fuzzing: any bytes are a header, an error, or the beginning of one, and a prefix never says otherwise.
pub fn fuzz(bytes: &[u8]) {
    let whole = parse(bytes);
    if let Ok(Some(header)) = whole {
        assert!(header.length <= bytes.len() && header.length <= MAX_V2);
        assert!(parse(&bytes[..header.length]) == whole, "what follows a header changes it");
        assert!(parse(&bytes[..header.length - 1]) == Ok(None), "a header ends before its end");
        if let Ends::Tcp { source, destination } = header.ends {
            let mut out = Vec::new();
            write_v2(source, destination, None, &mut out);
            let again = parse(&out).ok().flatten().map(|header| header.ends);
            let (source, destination) = one_family(source, destination);
            assert!(again == Some(Ends::Tcp { source, destination }), "what is written reads otherwise");
        }
    }
}
