//! What only Relais nodes tell each other, between messages of HAProxy's: a class of messages that HAProxy does not have, and that readers
//! which do not know it pass over.

use alloc::vec::Vec;

use super::{LONGEST, Wrong, number, put_framed, put_number, take};

/// The class of these messages.
pub(super) const CLASS: u8 = 82;

/// How often keys came, since the last message.
pub(super) const COUNTS: u8 = 0x80;
/// How often keys came of late, all told.
pub(super) const RATES: u8 = 0x81;
/// A server was checked.
pub(super) const CHECKED: u8 = 0x82;

/// Longest entry: a key and a number.
const ENTRY: usize = 8 + 10;

/// Keys, as hashes, and how often they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts<'a>(&'a [u8]);

impl Iterator for Counts<'_> {
    type Item = (u64, u32);

    fn next(&mut self) -> Option<(u64, u32)> {
        let key = double(&mut self.0)?;
        let n = number(&mut self.0)?;
        Some((key, u32::try_from(n).unwrap_or(u32::MAX)))
    }
}

/// A table's number, and its keys.
pub(super) fn read_counts<'a>(mut at: &'a [u8]) -> Result<(u64, Counts<'a>), Wrong> {
    const CUT: Wrong = Wrong("counts are cut off");
    let table = double(&mut at).ok_or(CUT)?;
    let mut rest = at;
    while !rest.is_empty() {
        double(&mut rest).ok_or(CUT)?;
        number(&mut rest).ok_or(CUT)?;
    }
    Ok((table, Counts(at)))
}

/// A server's number, and whether it was found well.
pub(super) fn read_checked(mut at: &[u8]) -> Result<(u64, bool), Wrong> {
    const CUT: Wrong = Wrong("the result of a check is cut off");
    let server = double(&mut at).ok_or(CUT)?;
    match at {
        [0] => Ok((server, false)),
        [1] => Ok((server, true)),
        _ => Err(CUT),
    }
}

/// Adds to `out` how often keys of a table came: since the last time, or with `is_all` of late and all told. As many messages as it
/// takes.
pub fn put_counts(out: &mut Vec<u8>, table: u64, is_all: bool, mut counts: impl Iterator<Item = (u64, u32)>) {
    let kind = if is_all { RATES } else { COUNTS };
    let mut text = Vec::new();
    loop {
        text.clear();
        text.extend_from_slice(&table.to_be_bytes());
        let empty = text.len();
        while text.len() <= LONGEST - ENTRY
            && let Some((key, n)) = counts.next()
        {
            text.extend_from_slice(&key.to_be_bytes());
            put_number(&mut text, u64::from(n));
        }
        if text.len() == empty {
            return;
        }
        put_framed(out, CLASS, kind, &text);
    }
}

/// Adds to `out` that a server was checked, and whether it was found well.
pub fn put_checked(out: &mut Vec<u8>, server: u64, ok: bool) {
    let mut text = server.to_be_bytes().to_vec();
    text.push(ok.into());
    put_framed(out, CLASS, CHECKED, &text);
}

fn double(at: &mut &[u8]) -> Option<u64> {
    take(at, 8).and_then(|bytes| Some(u64::from_be_bytes(*bytes.first_chunk()?)))
}
