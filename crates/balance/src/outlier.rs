//! Servers that fail far more of their requests than the others do.

use alloc::vec::Vec;

/// What came of a server's requests lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Requests that ended.
    pub total: u64,
    /// Of these, those that failed; no more than them.
    pub failed: u64,
}

impl Sample {
    /// Failures of a hundred, in hundredths.
    fn share(self) -> u64 {
        (self.failed * 10_000).checked_div(self.total).unwrap_or(0)
    }
}

/// Which of the servers fail `points` of a hundred requests more than all others together, the worst first. A server with fewer than
/// `least` requests is none; and where the others have none there is nothing to compare with.
pub fn outliers(samples: &[Sample], points: u8, least: u32) -> Vec<usize> {
    let sum = |each: fn(&Sample) -> u64| samples.iter().map(each).sum::<u64>();
    let (total, failed) = (sum(|sample| sample.total), sum(|sample| sample.failed));
    let others = |sample: &Sample| Sample { total: total - sample.total, failed: failed - sample.failed };
    let is_outlier = |sample: &Sample| {
        let others = others(sample);
        sample.total >= u64::from(least.max(1))
            && others.total > 0
            && sample.share() >= others.share() + u64::from(points) * 100
    };
    let mut all: Vec<usize> = (0..samples.len()).filter(|&at| is_outlier(&samples[at])).collect();
    all.sort_by_key(|&at| core::cmp::Reverse(samples[at].share()));
    all
}

/// As it is said: failures of a hundred.
pub fn percent(failed: u64, total: u64) -> u64 {
    Sample { total, failed }.share().div_ceil(100)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(of: &[(u64, u64)]) -> Vec<Sample> {
        of.iter().map(|&(failed, total)| Sample { total, failed }).collect()
    }

    #[test]
    fn who_fails_more_than_the_others_is_one_and_where_all_fail_nobody_is() {
        let found = |of: &[(u64, u64)]| outliers(&samples(of), 20, 10);
        assert_eq!(found(&[(2, 100), (25, 100), (1, 100)]), [1]);
        assert_eq!(found(&[(2, 100), (60, 100), (90, 100), (0, 100), (0, 100)]), [2, 1]);
        assert_eq!(found(&[(95, 100), (97, 100), (96, 100)]), [], "the fault is elsewhere");
        assert_eq!(found(&[(9, 9), (0, 100)]), [], "too few to say");
        assert_eq!(found(&[(90, 100)]), [], "nothing to compare with");
        assert_eq!(found(&[(90, 100), (0, 0)]), []);
        assert_eq!(found(&[]), []);
        assert_eq!((percent(1, 3), percent(0, 0), percent(3, 3)), (34, 0, 100));
    }

    proptest! {
        #[test]
        fn an_outlier_is_worse_than_any_that_is_none_with_as_many_requests(
            of in prop::collection::vec((0u64..=50, 50u64..=50), 1..8),
            points in 1u8..=100,
        ) {
            let all = samples(&of);
            let found = outliers(&all, points, 1);
            for (at, sample) in all.iter().enumerate().filter(|(at, _)| !found.contains(at)) {
                for &outlier in &found {
                    prop_assert!(all[outlier].failed > sample.failed, "{} {at}", outlier);
                }
            }
            prop_assert!(found.windows(2).all(|pair| all[pair[0]].failed >= all[pair[1]].failed));
        }
    }
}
