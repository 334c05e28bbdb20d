//! Map-based hashing (HAProxy's `map-based`, the buckets of IPVS's `sh` and `dh`): as many slots as a server has
//! weight.
//!
//! The split is as even as the hash; but a server more or less in the file moves nearly every key.

use crate::{Slots, StaticRr};

/// The table of servers with these weights, in the order of the file: at most 65,536 of them.
pub fn map(weights: &[u16]) -> Slots {
    Slots::new(StaticRr::new(weights).into_rotation().into(), weights.len())
}
