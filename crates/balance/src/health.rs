//! What a row of health checks says about a server: HAProxy's rise and fall.
//!
//! Not the checks themselves (they need a socket and a clock: the proxy's `probe`), and not what
//! follows from a verdict. Called by whoever runs the checks, once for each that ended.

/// Whether a server is up, and how close it is to the other.
///
/// Two counters of HAProxy's in one (`check->health`): from 0 to `rise - 1` the server is down and this is
/// how many successes it has in a row; from `rise` to `rise + fall - 1` it is up and this is how many
/// failures it can stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    rise: u8,
    fall: u8,
    level: u16,
}

impl Health {
    /// The health of a server that no check has seen yet, with the first verdict given as `up`.
    ///
    /// Such a server is trusted little: the first failed check takes one that starts up down, and one that starts
    /// down needs all of `rise`. A `rise` or `fall` of 0 counts as 1.
    pub fn new(rise: u8, fall: u8, up: bool) -> Health {
        let (rise, fall) = (rise.max(1), fall.max(1));
        Health { rise, fall, level: if up { u16::from(rise) } else { 0 } }
    }

    /// Takes in the result of one check. `Some(up)` if it changed the verdict.
    pub fn record(&mut self, ok: bool) -> Option<bool> {
        let was_up = self.is_up();
        let rise = u16::from(self.rise);
        self.level = match ok {
            true if self.level + 1 >= rise => self.highest(),
            true => self.level + 1,
            false if self.level > rise => self.level - 1,
            false => 0,
        };
        assert!(self.level <= self.highest(), "a health beyond its scale");
        (self.is_up() != was_up).then_some(self.is_up())
    }

    /// Whether the server is to get requests.
    pub fn is_up(&self) -> bool {
        self.level >= u16::from(self.rise)
    }

    /// How firm the verdict is, as HAProxy's statistics show it: `(2, 3)` for "up 2/3", one failed check
    /// of the three that take it down; `(1, 2)` for "down 1/2", one good check of the two that it needs.
    pub fn progress(&self) -> (u8, u8) {
        let rise = u16::from(self.rise);
        // Both are at most 255: `level` is below `rise` in one case and below `rise + fall` in the other.
        match self.is_up() {
            true => ((self.level - rise + 1) as u8, self.fall),
            false => (self.level as u8, self.rise),
        }
    }

    fn highest(&self) -> u16 {
        u16::from(self.rise) + u16::from(self.fall) - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use proptest::prelude::*;

    fn record(health: &mut Health, results: &str) -> Vec<Option<bool>> {
        results.bytes().map(|result| health.record(result == b'+')).collect()
    }

    #[test]
    fn a_server_never_checked_goes_down_at_the_first_failure() {
        let mut health = Health::new(2, 3, true);
        assert!(health.is_up());
        assert_eq!(health.progress(), (1, 3));
        assert_eq!(health.record(false), Some(false));
    }

    #[test]
    fn one_success_makes_the_first_verdict_firm() {
        let mut health = Health::new(2, 3, true);
        assert_eq!(record(&mut health, "+--"), [None, None, None]);
        assert_eq!(health.progress(), (1, 3));
        assert_eq!(health.record(false), Some(false));
    }

    #[test]
    fn a_success_between_failures_starts_the_count_anew() {
        let mut health = Health::new(2, 3, true);
        assert_eq!(record(&mut health, "+--+--"), [None; 6]);
        assert_eq!(health.record(false), Some(false));
    }

    #[test]
    fn a_failure_between_successes_starts_the_count_anew() {
        let mut health = Health::new(3, 1, false);
        assert_eq!(record(&mut health, "++-++"), [None; 5]);
        assert_eq!(health.progress(), (2, 3));
        assert_eq!(health.record(true), Some(true));
        assert_eq!(health.progress(), (1, 1));
    }

    #[test]
    fn the_largest_counts_fit() {
        let mut health = Health::new(255, 255, false);
        assert_eq!((0..255).filter_map(|_| health.record(true)).collect::<Vec<_>>(), [true]);
        assert_eq!(health.progress(), (255, 255));
        assert_eq!((0..255).filter_map(|_| health.record(false)).collect::<Vec<_>>(), [false]);
    }

    proptest! {
        // The same, said without the trick of one counter: rows of equal results since the last change.
        #[test]
        fn the_verdict_is_what_rows_of_results_say(
            rise in 1u8..6, fall in 1u8..6, up in any::<bool>(), results in prop::collection::vec(any::<bool>(), 0..200),
        ) {
            let mut health = Health::new(rise, fall, up);
            let (mut is_up, mut row, mut needed) = (up, 0u8, if up { 1 } else { rise });
            for ok in results {
                if ok == is_up {
                    (row, needed) = (0, if is_up { fall } else { rise });
                } else {
                    row += 1;
                }
                let mut change = None;
                if row >= needed {
                    is_up = ok;
                    (row, needed) = (0, if is_up { fall } else { rise });
                    change = Some(is_up);
                }
                prop_assert_eq!(health.record(ok), change);
                prop_assert_eq!(health.is_up(), is_up);
                let (have, of) = health.progress();
                prop_assert!(have <= of && (have > 0 || !is_up));
            }
        }
    }
}
