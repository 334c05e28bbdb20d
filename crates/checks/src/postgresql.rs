//! PostgreSQL's protocol 3 (its manual, "Message Formats"): the start of a session, as far as the server's wish for a
//! password or its consent.

use alloc::string::String;
use alloc::vec::Vec;

use crate::{Step, quote};

#[derive(Debug)]
pub(crate) struct Postgresql<'a> {
    user: &'a str,
    asked: bool,
}

/// `Terminate`.
const TERMINATE: &[u8] = b"X\0\0\0\x04";

impl<'a> Postgresql<'a> {
    pub(crate) fn new(user: &'a str) -> Postgresql<'a> {
        Postgresql { user, asked: false }
    }

    pub(crate) fn step(&mut self, inbox: &[u8]) -> Step {
        if !self.asked {
            self.asked = true;
            let mut message = Vec::from((3u32 << 16).to_be_bytes());
            message.extend_from_slice(b"user\0");
            message.extend_from_slice(self.user.as_bytes());
            message.extend_from_slice(b"\0\0");
            let mut packet = Vec::from((message.len() as u32 + 4).to_be_bytes());
            packet.append(&mut message);
            return Step::Say(packet);
        }
        let Some(&kind) = inbox.first() else { return Step::Wait };
        if !matches!(kind, b'R' | b'E') {
            return Step::ill("not PostgreSQL");
        }
        let Some(length) = inbox.get(1..5) else { return Step::Wait };
        let length = length.iter().fold(0usize, |sum, digit| sum << 8 | usize::from(*digit));
        if !(8..=crate::MOST - 1).contains(&length) {
            return Step::ill("not PostgreSQL");
        }
        let Some(body) = inbox.get(5..=length) else { return Step::Wait };
        match kind {
            // It asks for a password, or takes the user without one: it serves.
            b'R' => Step::well("takes sessions", TERMINATE),
            _ => Step::ill(why(body)),
        }
    }
}

/// The message of an `ErrorResponse`, and its code.
fn why(body: &[u8]) -> String {
    let fields = || body.split(|&byte| byte == 0);
    let of = |name| fields().find_map(|field| field.strip_prefix(&[name]));
    let mut text = quote(of(b'M').unwrap_or(b"an error without words"));
    if let Some(code) = of(b'C') {
        text.push(' ');
        text.push_str(quote(code).trim_matches('"'));
    }
    text
}
