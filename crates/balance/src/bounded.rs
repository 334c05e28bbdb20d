//! Hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam: *Consistent Hashing with Bounded Loads*, 2016; HAProxy's
//! `hash-balance-factor`): a server that already has more than its share of all requests is passed over.

/// Whether a server may get one more. `active` of the backend's `total` requests are its; its weight is `weight` of the
/// `weights` of all servers that are up; `factor` is the percentage of an even share that is allowed, above 100.
///
/// Shares are rounded up, so there is always somebody who may.
#[inline]
pub fn has_share(active: u32, total: u32, weight: u32, weights: u32, factor: u32) -> bool {
    let all = ((u64::from(total) + 1) * u64::from(factor)).div_ceil(100);
    let share = (all * u64::from(weight)).div_ceil(u64::from(weights.max(1)));
    u64::from(active) < share.max(1)
}
