//! A tournament of servers by key: the least is known at once, a changed key costs one way to the root.
//!
//! What makes a pick among 1,000 servers as cheap as one among ten. It knows nothing of what a key means, nor
//! of who may be picked: the algorithms are its callers, and say the one and pass on the other.

use alloc::vec;
use alloc::vec::Vec;

/// Keys of servers by place; the least is found first, of equal ones the first in the list.
#[derive(Clone, Debug)]
pub(crate) struct Tree<K> {
    /// A binary heap's layout: the root at 1, leaves from `leaves` on; every node has the least key below it.
    keys: Vec<K>,
    leaves: usize,
    /// The key of who is never picked: greater than every other.
    never: K,
}

impl<K: Ord + Copy> Tree<K> {
    /// A tree of these keys.
    pub(crate) fn new(keys: impl ExactSizeIterator<Item = K>, never: K) -> Tree<K> {
        let leaves = keys.len().next_power_of_two();
        let mut tree = Tree { keys: vec![never; 2 * leaves], leaves, never };
        for (leaf, key) in tree.keys[leaves..].iter_mut().zip(keys) {
            *leaf = key;
        }
        for node in (1..leaves).rev() {
            tree.keys[node] = tree.keys[2 * node].min(tree.keys[2 * node + 1]);
        }
        tree
    }

    /// The key of a server.
    pub(crate) fn key(&self, place: usize) -> K {
        self.keys[self.leaves + place]
    }

    /// Gives a server another key.
    #[inline]
    pub(crate) fn set(&mut self, place: usize, key: K) {
        let mut node = self.leaves + place;
        self.keys[node] = key;
        while node > 1 {
            node /= 2;
            let least = self.keys[2 * node].min(self.keys[2 * node + 1]);
            if self.keys[node] == least {
                return;
            }
            self.keys[node] = least;
        }
    }

    /// The server of the least key among those that `eligible` admits, which is asked at most once for each, and for
    /// none whose key is not less than that of one already admitted.
    #[inline]
    pub(crate) fn least(&self, mut eligible: impl FnMut(usize) -> bool) -> Option<usize> {
        let mut best = None;
        self.search(1, &mut best, &mut eligible);
        best.map(|(_, place)| place)
    }

    fn search(&self, node: usize, best: &mut Option<(K, usize)>, eligible: &mut impl FnMut(usize) -> bool) {
        let key = self.keys[node];
        // Of equal keys the left one is looked at first, unless the way to it led by a lesser one.
        let beaten = |(k, place): (K, usize)| k < key || (k == key && place < self.first_below(node));
        if key == self.never || best.is_some_and(beaten) {
            return;
        }
        if node >= self.leaves {
            let place = node - self.leaves;
            if eligible(place) {
                *best = Some((key, place));
            }
            return;
        }
        let (left, right) = (2 * node, 2 * node + 1);
        let order = if self.keys[right] < self.keys[left] { [right, left] } else { [left, right] };
        for child in order {
            self.search(child, best, eligible);
        }
    }

    /// The first place below a node.
    fn first_below(&self, node: usize) -> usize {
        let depth = self.leaves.ilog2() - node.ilog2();
        (node << depth) - self.leaves
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn the_least_is_what_a_look_at_all_finds(
            keys in prop::collection::vec(0u64..6, 0..40),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0u64..7, any::<u64>()), 1..60),
        ) {
            const NEVER: u64 = 6;
            let mut keys = keys;
            let mut tree = Tree::new(keys.iter().copied(), NEVER);
            for (at, key, mask) in changes {
                if !keys.is_empty() {
                    let place = at.index(keys.len());
                    keys[place] = key;
                    tree.set(place, key);
                    prop_assert_eq!(tree.key(place), key);
                }
                let eligible = |place: usize| mask & (1 << place) != 0;
                let mut asked = Vec::new();
                let found = tree.least(|place| { asked.push(place); eligible(place) });
                let admitted = keys.iter().enumerate().filter(|(place, key)| **key < NEVER && eligible(*place));
                prop_assert_eq!(found, admitted.min_by_key(|(_, key)| **key).map(|(place, _)| place));
                let all = asked.len();
                asked.sort_unstable();
                asked.dedup();
                prop_assert_eq!(asked.len(), all);
            }
        }
    }
}
