//! HTTP/2 by hand: frames as bytes, and an HPACK encoder that knows literals only. What a test sends is what it
//! writes down, however wrong.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::common::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH_PROMISE: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const ACK: u8 = 1;
pub const END_HEADERS: u8 = 4;
pub const PADDED: u8 = 8;
pub const WITH_PRIORITY: u8 = 0x20;

pub const NO_ERROR: u32 = 0;
pub const PROTOCOL: u32 = 1;
pub const FLOW_CONTROL: u32 = 3;
pub const STREAM_CLOSED: u32 = 5;
pub const FRAME_SIZE: u32 = 6;
pub const REFUSED: u32 = 7;
pub const CANCEL: u32 = 8;
pub const COMPRESSION: u32 = 9;
pub const CALM: u32 = 11;

/// A frame as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of RST_STREAM and GOAWAY.
    pub fn code(&self) -> u32 {
        let at = if self.kind == GOAWAY { 4 } else { 0 };
        u32::from_be_bytes(self.payload[at..at + 4].try_into().unwrap())
    }

    pub fn ends(&self) -> bool {
        matches!(self.kind, DATA | HEADERS) && self.flags & END_STREAM != 0
    }
}

/// A frame's bytes.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) -> Vec<u8> {
    let payload = payload.as_ref();
    let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// An integer behind a prefix of `bits` bits (RFC 7541 §5.1).
pub fn integer(out: &mut Vec<u8>, first: u8, bits: u32, mut value: usize) {
    let most = (1usize << bits) - 1;
    if value < most {
        return out.push(first | value as u8);
    }
    out.push(first | most as u8);
    value -= most;
    while value >= 128 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A field, as a literal that no table remembers.
pub fn literal(out: &mut Vec<u8>, name: &str, value: &str) {
    out.push(0);
    for text in [name, value] {
        integer(out, 0, 7, text.len());
        out.extend(text.as_bytes());
    }
}

/// A header block.
pub fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut out = Vec::new();
    fields.iter().for_each(|(name, value)| literal(&mut out, name, value));
    out
}

pub const GET: &[(&str, &str)] =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/"), (":authority", "h.test")];
pub const POST: &[(&str, &str)] =
    &[(":method", "POST"), (":scheme", "http"), (":path", "/"), (":authority", "h.test")];

/// `base` with more fields.
pub fn with(base: &[(&str, &str)], more: &[(&str, &str)]) -> Vec<u8> {
    block(&[base, more].concat())
}

/// What carries the frames: TCP, or TLS above it.
pub trait Carrier: Read + Write {
    /// How long a read waits.
    fn wait_at_most(&self, time: Duration);
}

impl Carrier for TcpStream {
    fn wait_at_most(&self, time: Duration) {
        self.set_read_timeout(Some(time)).unwrap();
    }
}

/// One end of a connection, the client's unless said otherwise.
pub struct Raw {
    pub io: Box<dyn Carrier>,
}

impl Raw {
    /// A connection on which nothing was said.
    pub fn silent(address: SocketAddr) -> Raw {
        Raw::on(TcpStream::connect(address).unwrap())
    }

    pub fn on(io: TcpStream) -> Raw {
        io.set_read_timeout(Some(PATIENCE)).unwrap();
        io.set_write_timeout(Some(PATIENCE)).unwrap();
        io.set_nodelay(true).unwrap();
        Raw { io: Box::new(io) }
    }

    /// A connection with both sides' settings said and acknowledged.
    pub fn open(address: SocketAddr) -> Raw {
        Raw::open_with(address, &[])
    }

    pub fn open_with(address: SocketAddr, settings: &[(u16, u32)]) -> Raw {
        let mut raw = Raw::silent(address);
        raw.begin(settings);
        raw
    }

    /// Says settings, and takes and acknowledges the other end's.
    pub fn begin(&mut self, settings: &[(u16, u32)]) {
        self.write(PREFACE);
        self.settings(settings);
        self.until(|f| f.kind == SETTINGS && f.flags & ACK == 0);
        self.send(SETTINGS, ACK, 0, b"");
        self.until(|f| f.kind == SETTINGS && f.flags & ACK != 0);
    }

    /// A server's end: takes the client's preface and settings.
    pub fn accept(io: TcpStream, settings: &[(u16, u32)]) -> Raw {
        let mut raw = Raw::on(io);
        let mut preface = [0; 24];
        raw.io.read_exact(&mut preface).unwrap();
        assert_eq!(preface, PREFACE);
        raw.settings(settings);
        raw.until(|f| f.kind == SETTINGS && f.flags & ACK == 0);
        raw.send(SETTINGS, ACK, 0, b"");
        raw
    }

    pub fn settings(&mut self, settings: &[(u16, u32)]) {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.send(SETTINGS, 0, 0, payload);
    }

    /// Writes bytes; what the other end does about it is read later, also that it has hung up.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        let _ = self.io.write_all(bytes.as_ref()).and_then(|()| self.io.flush());
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: impl AsRef<[u8]>) {
        self.write(frame(kind, flags, stream, payload));
    }

    /// A whole request without a body.
    pub fn get(&mut self, stream: u32) {
        self.send(HEADERS, END_HEADERS | END_STREAM, stream, block(GET));
    }

    /// The next frame; `None` at the end of the connection, however it came.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        if let Err(error) = self.io.read_exact(&mut head) {
            let late = matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut);
            assert!(!late, "waited too long for a frame");
            return None;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        self.io.read_exact(&mut payload).ok()?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame of which this is true.
    pub fn until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            let frame = self.next().expect("the connection lives");
            if wanted(&frame) {
                return frame;
            }
        }
    }

    /// The answer on a stream: its head's first byte in HPACK (0x88: 200, 0x8c: 400) and its data.
    pub fn answer(&mut self, stream: u32) -> (u8, Vec<u8>) {
        let head = self.until(|f| f.stream == stream && f.kind == HEADERS);
        let mut data = Vec::new();
        let mut last = head.clone();
        while !last.ends() {
            last = self.until(|f| f.stream == stream);
            assert!(matches!(last.kind, DATA | HEADERS), "{last:?}");
            if last.kind == DATA {
                data.extend(&last.payload);
            }
        }
        // A change of the table's size may stand before.
        let at = head.payload.iter().position(|b| b & 0xe0 != 0x20).unwrap();
        (head.payload[at], data)
    }

    /// Whether the connection still serves requests.
    pub fn lives(&mut self) -> bool {
        self.send(PING, 0, 0, b"are you?");
        loop {
            match self.next() {
                Some(Frame { kind: PING, flags: ACK, payload, .. }) if payload == b"are you?" => return true,
                Some(Frame { kind: GOAWAY, .. }) | None => return false,
                Some(_) => {}
            }
        }
    }

    /// The code of the GOAWAY that ends the connection; `None` if it ends without.
    pub fn goodbye(&mut self) -> Option<u32> {
        let mut code = None;
        while let Some(frame) = self.next() {
            if frame.kind == GOAWAY {
                code = Some(frame.code());
            }
        }
        code
    }
}
