//! A table of slots: a key's hash names a slot, and a slot its server. What fills it is [`crate::map`] or
//! [`crate::maglev`].
//!
//! A server that may not be picked leaves its slots where they are: its keys, and no others, go by a second hash of
//! theirs, then a third, each as fair by weight as the first. When it is back they are as before.

use alloc::boxed::Box;

use crate::hash::{mix, scale};

/// Hashes of a key that are tried before all servers are looked at in turn.
const TRIES: u64 = 32;

/// Places keys on servers by a table.
#[derive(Clone, Debug)]
pub struct Slots {
    table: Box<[u16]>,
    servers: usize,
}

impl Slots {
    pub(crate) fn new(table: Box<[u16]>, servers: usize) -> Slots {
        Slots { table, servers }
    }

    /// The server of this hash, or where that may not be picked the one of its next hash; `None` if `eligible`
    /// admits nobody with a weight above 0. It must not admit servers of weight 0, which no slot names.
    #[inline]
    pub fn pick(&self, hash: u64, mut eligible: impl FnMut(usize) -> bool) -> Option<usize> {
        if self.table.is_empty() {
            return None;
        }
        for attempt in 0..TRIES {
            let place = self.place(hash, attempt);
            if eligible(place) {
                return Some(place);
            }
        }
        let first = scale(mix(hash), self.servers);
        (first..self.servers).chain(0..first).find(|&place| eligible(place))
    }

    /// The server of this hash, whoever it is.
    pub(crate) fn draw(&self, hash: u64) -> Option<usize> {
        (!self.table.is_empty()).then(|| self.place(hash, 0))
    }

    fn place(&self, hash: u64, attempt: u64) -> usize {
        let hash = if attempt == 0 { hash } else { mix(hash.wrapping_add(attempt)) };
        usize::from(self.table[scale(hash, self.table.len())])
    }
}
