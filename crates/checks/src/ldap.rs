//! LDAP (RFC 4511): a bind of version 3 (§4.2), anonymous or with a name and its password; then, if there is something to look for, a search
//! for that entry alone (§4.5); then an unbind.

use alloc::format;
use alloc::vec::Vec;

use crate::Step;

/// Tags (RFC 4511 appendix B).
const SEQUENCE: u8 = 0x30;
const INTEGER: u8 = 0x02;
const BOOLEAN: u8 = 0x01;
const OCTETS: u8 = 0x04;
const ENUMERATED: u8 = 0x0a;
const BIND: u8 = 0x60;
const BOUND: u8 = 0x61;
const SEARCH: u8 = 0x63;
const ENTRY: u8 = 0x64;
const REFERENCE: u8 = 0x73;
const FOUND: u8 = 0x65;
const SIMPLE: u8 = 0x80;
const PRESENT: u8 = 0x87;

/// An unbind, as message 3.
const UNBIND: &[u8] = b"\x30\x05\x02\x01\x03\x42\x00";

#[derive(Debug)]
pub(crate) struct Ldap<'a> {
    user: Option<&'a str>,
    password: &'a [u8],
    base: Option<&'a str>,
    /// What it waits for.
    awaits: Awaits,
}

#[derive(Debug)]
enum Awaits {
    Nothing,
    Bind,
    Search { entries: u32 },
}

impl<'a> Ldap<'a> {
    pub(crate) fn new(user: Option<&'a str>, password: &'a [u8], base: Option<&'a str>) -> Ldap<'a> {
        Ldap { user, password, base, awaits: Awaits::Nothing }
    }

    pub(crate) fn step(&mut self, inbox: &mut Vec<u8>) -> Step {
        if let Awaits::Nothing = self.awaits {
            self.awaits = Awaits::Bind;
            return Step::Say(self.bind());
        }
        loop {
            let answer = match answer(inbox) {
                Ok(None) => return Step::Wait,
                Ok(Some(answer)) => answer,
                Err(()) => return Step::ill("not LDAP"),
            };
            inbox.drain(..answer.length);
            match (&mut self.awaits, answer) {
                (Awaits::Bind, Answer { id: 1, tag: BOUND, code: Some(0), .. }) => {
                    let Some(base) = self.base else { return Step::well("bound", UNBIND) };
                    self.awaits = Awaits::Search { entries: 0 };
                    return Step::Say(search(base));
                }
                (Awaits::Search { entries }, Answer { id: 2, tag: ENTRY | REFERENCE, .. }) => *entries += 1,
                (Awaits::Search { entries: 1.. }, Answer { id: 2, tag: FOUND, code: Some(0), .. }) => {
                    return Step::well("found", UNBIND);
                }
                (Awaits::Search { .. }, Answer { id: 2, tag: FOUND, code: Some(0 | 32), .. }) => {
                    return Step::ill(format!(
                        "it has no {}, or does not show it",
                        self.base.unwrap_or_default()
                    ));
                }
                // RFC 4511 §4.1.9; these are what a server says that is alive and not well.
                (_, Answer { tag: BOUND | FOUND, code: Some(51), .. }) => return Step::ill("it is busy"),
                (_, Answer { tag: BOUND | FOUND, code: Some(52), .. }) => {
                    return Step::ill("it is unavailable");
                }
                (Awaits::Bind, Answer { id: 1, tag: BOUND, code: Some(code), .. }) => {
                    return Step::ill(match self.user {
                        None => format!("it refuses an anonymous bind, result code {code}"),
                        Some(user) => format!("it refuses the login of {user}, result code {code}"),
                    });
                }
                (Awaits::Search { .. }, Answer { id: 2, tag: FOUND, code: Some(code), .. }) => {
                    return Step::ill(format!("the search failed, result code {code}"));
                }
                // It says goodbye of its own (§4.4.1), or what nobody asked for.
                _ => return Step::ill("not LDAP"),
            }
        }
    }

    /// Message 1.
    fn bind(&self) -> Vec<u8> {
        let user = put(OCTETS, self.user.unwrap_or_default().as_bytes());
        let password = put(SIMPLE, if self.user.is_some() { self.password } else { b"" });
        message(1, BIND, &[put(INTEGER, &[3]), user, password].concat())
    }
}

/// Message 2: is the entry there? Of its attributes none (§4.5.1.8).
fn search(base: &str) -> Vec<u8> {
    let what = [
        put(OCTETS, base.as_bytes()),
        put(ENUMERATED, &[0]), // the entry itself
        put(ENUMERATED, &[0]), // aliases are not followed
        put(INTEGER, &[0]),
        put(INTEGER, &[0]),
        put(BOOLEAN, &[0]),
        put(PRESENT, b"objectClass"),
        put(SEQUENCE, &put(OCTETS, b"1.1")),
    ];
    message(2, SEARCH, &what.concat())
}

fn message(id: u8, tag: u8, contents: &[u8]) -> Vec<u8> {
    put(SEQUENCE, &[put(INTEGER, &[id]), put(tag, contents)].concat())
}

/// An element (X.690 §8.1, definite lengths).
fn put(tag: u8, contents: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(contents.len() + 4);
    out.push(tag);
    match contents.len() {
        length @ 0..=0x7f => out.push(length as u8),
        length => {
            out.push(0x82);
            out.extend_from_slice(&(length.min(usize::from(u16::MAX)) as u16).to_be_bytes());
        }
    }
    out.extend_from_slice(contents);
    out
}

/// A message that came.
#[derive(Clone, Copy)]
struct Answer {
    id: u8,
    tag: u8,
    /// The result code, where it has one.
    code: Option<u8>,
    /// Bytes of all of it.
    length: usize,
}

/// The first message of `inbox`; `Ok(None)`: it is not whole yet.
fn answer(inbox: &[u8]) -> Result<Option<Answer>, ()> {
    let Some((message, rest)) = element(inbox, SEQUENCE)? else { return Ok(None) };
    let length = inbox.len() - rest.len();
    let Some(([id], rest)) = element(message, INTEGER)? else { return Err(()) };
    let tag = *rest.first().ok_or(())?;
    let Some((contents, _)) = element(rest, tag)? else { return Err(()) };
    let code = match tag {
        BOUND | FOUND => match element(contents, ENUMERATED)? {
            Some(([code], _)) => Some(*code),
            _ => return Err(()),
        },
        _ => None,
    };
    Ok(Some(Answer { id: *id, tag, code, length }))
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
