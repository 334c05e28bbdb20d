//! One hash for every key and every balancer: fixed, so that two of them place alike, today and after an upgrade.
//!
//! Not a secret one: who can choose keys can choose a server, as in any balancer whose placement others can
//! repeat. A limit at the servers or a `balance-factor` is what bounds that.

/// The hash of a key.
///
/// Eight bytes at a time by multiplication, then the finalizer of MurmurHash3, without which the high bits of
/// short keys, which the tables go by, would hardly differ.
pub fn hash(key: &[u8]) -> u64 {
    const ODD: u64 = 0x9E37_79B9_7F4A_7C15;
    let mut hash = ODD ^ key.len() as u64;
    for chunk in key.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = (hash ^ u64::from_le_bytes(word)).wrapping_mul(ODD);
        hash ^= hash >> 32;
    }
    mix(hash)
}

/// Spreads every bit over all of them (Appleby, MurmurHash3, `fmix64`).
pub(crate) const fn mix(mut hash: u64) -> u64 {
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xFF51_AFD7_ED55_8CCD);
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xC4CE_B9FE_1A85_EC53);
    hash ^ (hash >> 33)
}

/// A number in `0..count`, by a hash's high bits.
pub(crate) const fn scale(hash: u64, count: usize) -> usize {
    ((hash as u128 * count as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_in_every_version() {
        assert_eq!(hash(b""), 0x9ca0_66f1_a4ab_2eea);
        assert_eq!(hash(b"/index.html"), 0x313b_6db6_6724_6f74);
    }
}
