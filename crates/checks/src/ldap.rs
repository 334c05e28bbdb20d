//! LDAP (RFC 4511 §4.2): an anonymous bind of version 3, then an unbind.

use alloc::format;

use crate::Step;

#[derive(Debug, Default)]
pub(crate) struct Ldap {
    asked: bool,
}

/// Message 1: a bind without name and password.
const BIND: &[u8] = b"\x30\x0c\x02\x01\x01\x60\x07\x02\x01\x03\x04\x00\x80\x00";
/// Message 2: an unbind.
const UNBIND: &[u8] = b"\x30\x05\x02\x01\x02\x42\x00";

impl Ldap {
    pub(crate) fn step(&mut self, inbox: &[u8]) -> Step {
        if !self.asked {
            self.asked = true;
            return Step::Say(BIND.to_vec());
        }
        match answer(inbox) {
            Ok(None) => Step::Wait,
            Ok(Some(0)) => Step::well("bound", UNBIND),
            // RFC 4511 §4.1.9; these are what a server says that is alive and not well.
            Ok(Some(51)) => Step::ill("it is busy"),
            Ok(Some(52)) => Step::ill("it is unavailable"),
            Ok(Some(code)) => Step::ill(format!("it refuses an anonymous bind, result code {code}")),
            Err(()) => Step::ill("not LDAP"),
        }
    }
}

/// The result code of a bind response; `Ok(None)`: it is not whole yet.
fn answer(inbox: &[u8]) -> Result<Option<u8>, ()> {
    let Some((message, _)) = element(inbox, 0x30)? else { return Ok(None) };
    let Some((id, rest)) = element(message, 0x02)? else { return Err(()) };
    let Some((response, _)) = element(rest, 0x61)? else { return Err(()) };
    let Some((code, _)) = element(response, 0x0a)? else { return Err(()) };
    match (id, code) {
        ([1], [code]) => Ok(Some(*code)),
        _ => Err(()),
    }
}

/// The contents of an element with this tag, and what is behind it (X.690 §8.1, definite lengths).
type Element<'a> = Option<(&'a [u8], &'a [u8])>;

fn element(bytes: &[u8], tag: u8) -> Result<Element<'_>, ()> {
    let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
    if first != tag {
        return Err(());
    }
    let Some((&length, rest)) = rest.split_first() else { return Ok(None) };
    let (length, rest) = match length {
        0..=0x7f => (usize::from(length), rest),
        0x81..=0x84 => {
            let Some((digits, rest)) = rest.split_at_checked(usize::from(length & 0x7f)) else {
                return Ok(None);
            };
            (digits.iter().fold(0, |sum, digit| sum << 8 | usize::from(*digit)), rest)
        }
        _ => return Err(()),
    };
    if length > crate::MOST {
        return Err(());
    }
    Ok(rest.split_at_checked(length))
}
