//! gRPC: the health protocol (`grpc.health.v1.Health/Check`) over HTTP/2 (RFC 9113), one call on a connection of its own.
//!
//! Of the answer only the message counts: it comes with success alone. So its fields need not be decompressed.

use alloc::format;
use alloc::vec::Vec;

use super::Step;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Frames (RFC 9113 §6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GO_AWAY: u8 = 7;
const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const HEAD: usize = 9;

#[derive(Debug)]
pub(crate) struct Grpc<'a> {
    service: &'a str,
    host: &'a str,
    tls: bool,
    asked: bool,
    /// The server's first frame has come, and was its settings.
    settled: bool,
    message: Vec<u8>,
}

impl<'a> Grpc<'a> {
    pub(crate) fn new(service: &'a str, host: &'a str, tls: bool) -> Grpc<'a> {
        Grpc { service, host, tls, asked: false, settled: false, message: Vec::new() }
    }

    pub(crate) fn step(&mut self, inbox: &mut Vec<u8>) -> Step {
        if !self.asked {
            self.asked = true;
            return Step::Say(self.request());
        }
        loop {
            let Some(head) = inbox.first_chunk::<HEAD>() else { return Step::Wait };
            let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
            let (kind, flags) = (head[3], head[4]);
            if !self.settled && (kind != SETTINGS || length % 6 != 0) {
                return Step::ill("not HTTP/2");
            }
            if length > super::MOST - HEAD {
                return Step::ill(format!("a frame of {length} bytes for an answer of two"));
            }
            if inbox.len() < HEAD + length {
                return Step::Wait;
            }
            let frame: Vec<u8> = inbox.drain(..HEAD + length).skip(HEAD).collect();
            self.settled = true;
            match kind {
                SETTINGS if flags & ACK == 0 => return Step::Say(framed(SETTINGS, ACK, 0, &[])),
                PING if flags & ACK == 0 => return Step::Say(framed(PING, ACK, 0, &frame)),
                RESET => return Step::ill("the call was reset"),
                GO_AWAY => return Step::ill("the server says goodbye"),
                HEADERS if flags & END_STREAM != 0 && self.message.is_empty() => {
                    return Step::ill("an error instead of an answer; is grpc.health.v1.Health there?");
                }
                DATA => {
                    let padding =
                        if flags & PADDED != 0 { frame.first().copied().map(usize::from) } else { None };
                    let data = match padding {
                        None => frame.get(..),
                        Some(padding) => frame.len().checked_sub(padding).and_then(|end| frame.get(1..end)),
                    };
                    let Some(data) = data else { return Step::ill("not HTTP/2") };
                    self.message.extend_from_slice(data);
                    if self.message.len() > super::MOST {
                        return Step::ill("an answer without an end");
                    }
                    if let Some(step) = verdict(&self.message) {
                        return step;
                    }
                    if flags & END_STREAM != 0 {
                        return Step::ill("an answer that ends too soon");
                    }
                }
                _ => {}
            }
        }
    }

    fn request(&self) -> Vec<u8> {
        let mut fields = Vec::from([0x83, if self.tls { 0x87 } else { 0x86 }]); // POST; the scheme (RFC 7541 appendix A)
        let mut text = |name: &[u8], value: &str| {
            fields.extend_from_slice(name);
            fields.push(value.len().min(126) as u8);
            fields.extend_from_slice(&value.as_bytes()[..value.len().min(126)]);
        };
        text(&[0x04], "/grpc.health.v1.Health/Check");
        text(&[0x01], self.host);
        text(&[0x0f, 0x10], "application/grpc");
        text(b"\x00\x02te", "trailers");
        let mut body = Vec::from([0, 0, 0, 0, 0]);
        if !self.service.is_empty() {
            // HealthCheckRequest { string service = 1; }
            body.extend_from_slice(&[0x0a, self.service.len().min(127) as u8]);
            body.extend_from_slice(&self.service.as_bytes()[..self.service.len().min(127)]);
        }
        body[4] = (body.len() - 5) as u8;
        let frames = [
            framed(SETTINGS, 0, 0, &[]),
            framed(HEADERS, END_HEADERS, 1, &fields),
            framed(DATA, END_STREAM, 1, &body),
        ];
        [PREFACE, &frames.concat()].concat()
    }
}

fn framed(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(HEAD + payload.len());
    frame.extend_from_slice(&(payload.len() as u32).to_be_bytes()[1..]);
    frame.extend_from_slice(&[kind, flags]);
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// Of `HealthCheckResponse { ServingStatus status = 1; }` behind the five bytes of gRPC, once it is there.
fn verdict(message: &[u8]) -> Option<Step> {
    let (head, rest) = message.split_first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if head[0] != 0 || length > 64 {
        return Some(Step::ill("not an answer of grpc.health.v1.Health"));
    }
    let status = match rest.get(..length)? {
        [] => 0,
        [0x08, status, ..] => *status,
        _ => return Some(Step::ill("not an answer of grpc.health.v1.Health")),
    };
    Some(match status {
        1 => Step::well("SERVING", b""),
        2 => Step::ill("NOT_SERVING"),
        3 => Step::ill("SERVICE_UNKNOWN"),
        _ => Step::ill("UNKNOWN"),
    })
}
