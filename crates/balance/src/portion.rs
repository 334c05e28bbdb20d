//! How many of its places a server may use while its backend is not full: HAProxy's `minconn` and `fullconn`
//! (`srv_dynamic_maxconn`). Pure; called for every place that is taken at a server that has a least.

/// Places that a server may use now, at least 1.
///
/// `most`: all of its places; `least`: those that it may always use, 1 to `most`. `load`: requests at the backend's servers
/// and in its queue; with `full` of them, or 0 for `full`, the backend is full. `ramp`: percent of its places that a server
/// has that starts slowly, 1 to 100.
pub fn portion(most: u32, least: u32, load: u32, full: u32, ramp: u8) -> u32 {
    let grown = if load >= full {
        most
    } else {
        let part = u64::from(load) * u64::from(most) / u64::from(full);
        (part as u32).max(least) // `load` is less than `full`, so the part is less than `most`
    };
    let started = u64::from(grown) * u64::from(ramp.min(100)) / 100;
    (started as u32).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_dynamic_limit_is_what_haproxy_computes() {
        // The example of HAProxy's manual for `fullconn`: maxconn 1000, minconn 100, fullconn 10000.
        let limit = |load| portion(1000, 100, load, 10_000, 100);
        assert_eq!([limit(0), limit(1000), limit(1010), limit(5000)], [100, 100, 101, 500]);
        assert_eq!([limit(9_999), limit(10_000), limit(u32::MAX)], [999, 1000, 1000]);
        assert_eq!([portion(1000, 100, 5000, 10_000, 50), portion(10, 1, 0, 100, 1)], [250, 1]);
    }

    proptest! {
        // The source of HAProxy 2.6, line by line, with its names.
        #[test]
        fn it_agrees_with_the_source(
            maxconn in 1u32..1_000_000, share in 1u32..=100, beconn in 0u32..2_000_000, fullconn in 1u32..1_000_000, ratio in 1u32..=100,
        ) {
            let minconn = (u64::from(maxconn) * u64::from(share) / 100).max(1) as u32;
            let mut max;
            if beconn >= fullconn || minconn == maxconn {
                max = maxconn;
            } else {
                max = minconn.max((u64::from(beconn) * u64::from(maxconn) / u64::from(fullconn)) as u32);
            }
            max = 1.max((u64::from(max) * u64::from(ratio) / 100) as u32);
            prop_assert_eq!(portion(maxconn, minconn, beconn, fullconn, ratio as u8), max);
        }
    }
}
