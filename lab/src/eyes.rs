//! What watches while things are broken: a probe that clients would be, who has the address, who answers for it.
//! [`crate::drill`] and [`crate::storm`] look through these.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::answers;
use crate::holders::Watch;
use crate::platform::{BALANCERS, CLIENT, FRONT, Lab, Result, VIP};
use crate::probe::{Options, Probe, Sample, Stream};
use crate::report::{Seen, is_clean};

/// How long the probe must see nothing wrong.
pub(crate) const CLEAN: Duration = Duration::from_secs(1);
/// A request slower than this is no sign of health.
const QUICK: Duration = Duration::from_millis(100);

/// A probe with its samples, and a watch on the address.
pub(crate) struct Eyes {
    pub(crate) samples: Arc<Mutex<Vec<Sample>>>,
    pub(crate) probe: Probe,
    pub(crate) options: Options,
    pub(crate) watch: Watch,
    pub(crate) answers: answers::Watch,
}

impl Eyes {
    pub(crate) fn open(lab: &Lab) -> Result<Eyes> {
        let blind = |e| format!("the client cannot probe: {e}");
        let samples = Arc::new(Mutex::new(Vec::new()));
        let sink = samples.clone();
        let options = Options::new(FRONT);
        let netns = lab.network().host(CLIENT).netns();
        let push = move |sample| sink.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        let balancers = BALANCERS.map(|host| lab.network().host(host).netns().clone());
        let watch = Watch::start(&balancers, VIP).map_err(blind)?;
        let answers = lab.network().watch_answers(VIP).map_err(blind)?;
        let probe = Probe::start(Some(netns), options.clone(), push).map_err(blind)?;
        Ok(Eyes { samples, probe, options, watch, answers })
    }

    /// Time on the probe's clock.
    pub(crate) fn now(&self) -> Duration {
        self.probe.started().elapsed()
    }

    pub(crate) fn samples(&self) -> Vec<Sample> {
        self.samples.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the second up to 0.2 s ago was clean, all of it after `since`.
    pub(crate) fn is_clean(&self, since: Duration) -> bool {
        let Some(until) = self.now().checked_sub(2 * QUICK) else { return false };
        let Some(from) = until.checked_sub(CLEAN) else { return false };
        // A request without an answer has no sample yet: they must all be there.
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let inside = samples.iter().filter(|s| from <= s.intended && s.intended < until).count();
        let due = 2 * (CLEAN.as_millis() / self.options.every.as_millis()) as usize;
        from >= since && inside + 4 >= due && is_clean(&samples, from, until, QUICK)
    }
}

/// Waits for a clean second that begins after `since`; when it began.
pub(crate) fn wait_for_clean(eyes: &Eyes, since: Duration, limit: Duration, when: &str) -> Result<Duration> {
    let deadline = Instant::now() + limit;
    while !eyes.is_clean(since) {
        if Instant::now() >= deadline {
            let now = eyes.now();
            let seen =
                Seen::of(&eyes.samples(), Stream::New, now.saturating_sub(CLEAN), now, eyes.options.every);
            let limit = limit.as_secs();
            return Err(format!("clients had no clean second in {limit} s {when}; the last one: {seen:?}"));
        }
        std::thread::sleep(Duration::from_millis(20)); // the probe needs its second
    }
    Ok(eyes.now().saturating_sub(CLEAN + 2 * QUICK))
}
