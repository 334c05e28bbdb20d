//! TLS seen from outside: a `ClientHello` (RFC 8446 §4.1.2) that any server of the last fifteen years can answer, and the
//! first record of its answer. Nothing is negotiated, no certificate is looked at: HAProxy's `ssl-hello-chk`, for backends
//! that pass TLS through.

use alloc::format;
use alloc::vec::Vec;

use crate::Step;

#[derive(Debug)]
pub(crate) struct Tls<'a> {
    sni: Option<&'a str>,
    random: [u8; 32],
    asked: bool,
}

/// AEAD with ECDHE for TLS 1.2 and what TLS 1.3 has, then what older servers know.
const SUITES: [u16; 11] =
    [0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8, 0xc013, 0x002f];
const GROUPS: [u16; 3] = [0x001d, 0x0017, 0x0018];
const SIGNATURES: [u16; 8] = [0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0201];

/// `close_notify`, a warning.
const FAREWELL: &[u8] = b"\x15\x03\x03\x00\x02\x01\x00";

impl<'a> Tls<'a> {
    pub(crate) fn new(sni: Option<&'a str>, random: [u8; 32]) -> Tls<'a> {
        Tls { sni, random, asked: false }
    }

    pub(crate) fn step(&mut self, inbox: &[u8]) -> Step {
        if !self.asked {
            self.asked = true;
            return Step::Say(self.hello());
        }
        match inbox {
            [0x16, 3, _, _, _, 2, ..] => Step::well("ServerHello", FAREWELL),
            [0x15, 3, _, 0, 2, _, alert, ..] => Step::ill(format!("TLS alert {alert} for a ClientHello")),
            [] | [0x15 | 0x16] | [0x15 | 0x16, 3] => Step::Wait,
            [0x16, 3, rest @ ..] if rest.len() < 4 => Step::Wait,
            [0x15, 3, rest @ ..] if rest.len() < 5 => match rest {
                [_, high, ..] if *high != 0 => Step::ill("not TLS"),
                [_, _, low, ..] if *low != 2 => Step::ill("not TLS"),
                _ => Step::Wait,
            },
            _ => Step::ill("not TLS"),
        }
    }

    /// The `ClientHello`, in a record.
    fn hello(&self) -> Vec<u8> {
        let mut extensions = Vec::new();
        if let Some(sni) = self.sni {
            let mut list = Vec::from([0]);
            sized(&mut list, sni.as_bytes());
            extension(&mut extensions, 0, &within(&list));
        }
        extension(&mut extensions, 10, &within(&numbers(&GROUPS)));
        extension(&mut extensions, 11, &[1, 0]); // uncompressed points
        extension(&mut extensions, 13, &within(&numbers(&SIGNATURES)));
        extension(&mut extensions, 43, &[4, 3, 4, 3, 3]); // TLS 1.3, 1.2
        // TLS 1.3 without a key share: the server asks for one with a ServerHello of its own (RFC 8446 §4.1.4).
        extension(&mut extensions, 51, &[0, 0]);
        let mut body = Vec::from([3, 3]);
        body.extend_from_slice(&self.random);
        body.push(0); // no session
        sized(&mut body, &numbers(&SUITES));
        body.extend_from_slice(&[1, 0]); // no compression
        sized(&mut body, &extensions);
        let mut message = Vec::from([1, 0]);
        sized(&mut message, &body);
        let mut record = Vec::from([0x16, 3, 1]);
        sized(&mut record, &message);
        record
    }
}

fn numbers(all: &[u16]) -> Vec<u8> {
    all.iter().flat_map(|number| number.to_be_bytes()).collect()
}

/// Adds bytes behind their length.
fn sized(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

fn within(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    sized(&mut out, bytes);
    out
}

fn extension(out: &mut Vec<u8>, kind: u16, bytes: &[u8]) {
    out.extend_from_slice(&kind.to_be_bytes());
    sized(out, bytes);
}
