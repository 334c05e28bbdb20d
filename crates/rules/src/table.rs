//! A hash table that is built once: byte strings to numbers.
//!
//! Its keys are the operator's, so that its longest bucket is known when it is built; what clients send is only
//! looked up and cannot make a look-up longer than that.

use alloc::boxed::Box;
use alloc::vec::Vec;

const START: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The hash of nothing.
pub(crate) const fn start() -> u64 {
    START
}

/// The hash with one more byte. Every prefix's hash is met on the way.
pub(crate) const fn step(hash: u64, byte: u8) -> u64 {
    (hash ^ byte as u64).wrapping_mul(PRIME)
}

pub(crate) fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(START, |hash, byte| step(hash, *byte))
}

fn slot(hash: u64, mask: u64) -> usize {
    ((hash ^ (hash >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20 & mask) as usize
}

#[derive(Clone, Debug)]
struct Entry {
    hash: u64,
    key: Box<[u8]>,
    value: u32,
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Table {
    mask: u64,
    /// Where each bucket begins in `entries`, and one more.
    starts: Box<[u32]>,
    entries: Box<[Entry]>,
}

impl Table {
    /// Of keys that differ, with their hashes as [`hash`] makes them of the key, or of the key backwards.
    pub(crate) fn new(pairs: Vec<(u64, Vec<u8>, u32)>) -> Table {
        if pairs.is_empty() {
            return Table::default();
        }
        let buckets = (pairs.len() * 2).next_power_of_two();
        let mask = buckets as u64 - 1;
        let mut entries: Vec<Entry> = pairs
            .into_iter()
            .map(|(hash, key, value)| Entry { hash, key: key.into_boxed_slice(), value })
            .collect();
        entries.sort_by_key(|entry| slot(entry.hash, mask));
        let mut starts = alloc::vec![0u32; buckets + 1];
        for entry in &entries {
            starts[slot(entry.hash, mask) + 1] += 1;
        }
        for i in 0..buckets {
            starts[i + 1] += starts[i];
        }
        Table { mask, starts: starts.into_boxed_slice(), entries: entries.into_boxed_slice() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The value of a key.
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<u32> {
        if self.entries.is_empty() {
            return None;
        }
        let slot = slot(hash, self.mask);
        let bucket = &self.entries[self.starts[slot] as usize..self.starts[slot + 1] as usize];
        bucket.iter().find(|entry| entry.hash == hash && *entry.key == *key).map(|entry| entry.value)
    }
}
