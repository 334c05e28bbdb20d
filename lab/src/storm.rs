//! `relais drill random`: random things break at random moments, two at a time now and then, again and again, and two
//! promises are held against what clients see. No two machines answer for the address for longer than the lease, nor
//! a second after the last fault; and then the address is not away for longer than 4 s.
//!
//! The application servers run Relais as witnesses: with two nodes alone nothing could keep the second promise of two
//! that a cut separates. Without them (`--no-witness`) the first promise must be seen broken, or it could not be seen at all.
//!
//! With `--cuts` every fault is such a cut, and only its end is looked at: within a second there is one holder again.

use std::fmt;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use relais_base::Rng;
use relais_ipc::Role;
use rustix::process::Signal;
use serde::Serialize;

use crate::eyes::{CLEAN, Eyes, wait_for_clean};
use crate::network::Link;
use crate::platform::{BALANCERS, Lab, Result};
use crate::probe::Stream;
use crate::report::{Seen, ms};

/// How long the address may be away after the last fault.
pub const AWAY: Duration = Duration::from_secs(4);
/// How long two machines may go on answering after it.
pub const HEALED: Duration = Duration::from_secs(1);
/// Longest wait for clients to be served again.
const RECOVERY: Duration = Duration::from_secs(30);
/// Faults begin within so many milliseconds.
const BEGIN_MS: u64 = 400;
/// And last for so many at the most.
const LAST_MS: u64 = 1500;
/// What the watch itself may be wrong by: two of its questions.
const RESOLUTION: Duration = Duration::from_millis(10);

/// What can happen to the platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// A child is killed; its supervisor heals it.
    Kill(&'static str, Role),
    /// The supervisor is killed; the machine starts it again.
    KillSupervisor(&'static str),
    /// Every process of a balancer is killed; the machine starts it again.
    KillAll(&'static str),
    /// A child hangs (SIGSTOP) and goes on (SIGCONT).
    Pause(&'static str, Role),
    /// Every process hangs and goes on, as those of a virtual machine that is moved.
    PauseAll(&'static str),
    /// A cable is pulled and plugged in.
    Cut(&'static str),
    /// A switch port goes deaf for a while; nobody is told.
    Silent(&'static str),
    /// The switch forwards nothing between the balancers, and everything else.
    Apart,
}

impl What {
    fn is_of_the_network(self) -> bool {
        matches!(self, What::Cut(_) | What::Silent(_) | What::Apart)
    }

    fn random(rng: &mut Rng) -> What {
        let host = BALANCERS[rng.below(2) as usize];
        let role = [Role::Proxy, Role::Vip, Role::Control][rng.below(3) as usize];
        match rng.below(10) {
            0 | 1 => What::Kill(host, role),
            2 => What::KillSupervisor(host),
            3 => What::KillAll(host),
            4 | 5 => What::Pause(host, role),
            6 => What::PauseAll(host),
            7 => What::Cut(host),
            8 => What::Silent(host),
            _ => What::Apart,
        }
    }
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            What::Kill(host, role) => write!(f, "{} of {host} killed", role.name()),
            What::KillSupervisor(host) => write!(f, "the supervisor of {host} killed"),
            What::KillAll(host) => write!(f, "all of {host} killed"),
            What::Pause(host, role) => write!(f, "{} of {host} paused", role.name()),
            What::PauseAll(host) => write!(f, "all of {host} paused"),
            What::Cut(host) => write!(f, "the cable of {host} pulled"),
            What::Silent(host) => write!(f, "the port of {host} deaf"),
            What::Apart => f.write_str("the balancers kept apart"),
        }
    }
}

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// When it ends; what was killed is then started again.
    pub until: Duration,
    /// What it is.
    pub what: What,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}..{} ms", self.what, self.at.as_millis(), self.until.as_millis())
    }
}

/// The faults that a seed stands for: one, or two that may overlap, of which one at most is the network's.
pub fn faults(seed: u64) -> Vec<Fault> {
    let mut rng = Rng::new(seed);
    let mut faults: Vec<Fault> = Vec::new();
    for _ in 0..=rng.below(2) {
        let at = Duration::from_millis(rng.below(BEGIN_MS));
        let until = at + Duration::from_millis(rng.below(LAST_MS));
        let what = What::random(&mut rng);
        let second = faults.iter().any(|fault| fault.what.is_of_the_network());
        if !(second && what.is_of_the_network()) {
            faults.push(Fault { at, until, what });
        }
    }
    faults
}

/// The cut that a seed stands for: longer than a takeover takes, so that it makes two holders.
pub fn cut(seed: u64) -> Vec<Fault> {
    let mut rng = Rng::new(seed);
    let at = Duration::from_millis(rng.below(BEGIN_MS));
    let until = at + Duration::from_millis(LAST_MS / 2 + rng.below(LAST_MS));
    vec![Fault { at, until, what: What::Apart }]
}

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Gust {
    /// Gives the same faults again: `--seed N --times 1`.
    pub seed: u64,
    /// What happened.
    pub faults: Vec<String>,
    /// The longest time, milliseconds, in which more than one machine answered for the address.
    pub two_answered_ms: f64,
    /// When, after the last fault had ended, two machines answered for the last time, milliseconds; none: 0.
    pub healed_ms: f64,
    /// The longest outage after the last fault had ended, milliseconds.
    pub away_ms: f64,
    /// The longest outage in the whole run, milliseconds.
    pub longest_outage_ms: f64,
    /// Failed requests of both streams.
    pub failed: u64,
    /// Requests of both streams.
    pub requests: u64,
    /// Promises that were broken, a sentence each.
    pub broken: Vec<String>,
}

/// All runs: the last line.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Weather {
    /// `random`.
    pub name: &'static str,
    /// How many runs.
    pub runs: u32,
    /// How many of them broke a promise.
    pub broken: u32,
    /// The longest time in which two answered, milliseconds.
    pub two_answered_ms: f64,
    /// The latest moment after the last fault at which two answered, milliseconds.
    pub healed_ms: f64,
    /// The longest time the address was away after the last fault, milliseconds.
    pub away_ms: f64,
    /// Failed requests.
    pub failed: u64,
    /// Requests.
    pub requests: u64,
}

impl Weather {
    /// Adds a run.
    pub fn add(&mut self, gust: &Gust) {
        self.name = "random";
        self.runs += 1;
        self.broken += u32::from(!gust.broken.is_empty());
        self.two_answered_ms = self.two_answered_ms.max(gust.two_answered_ms);
        self.healed_ms = self.healed_ms.max(gust.healed_ms);
        self.away_ms = self.away_ms.max(gust.away_ms);
        self.failed += gust.failed;
        self.requests += gust.requests;
    }
}

/// Lets `faults` happen in a lab that is well, and says what clients saw. `cuts`: they cannot but make two holders.
///
/// # Errors
/// If the platform does not get well again, or something cannot be broken.
pub fn blow(lab: &mut Lab, seed: u64, faults: &[Fault], cuts: bool) -> Result<Gust> {
    lab.wait_until_well()?;
    let eyes = Eyes::open(lab)?;
    let begin = Instant::now();
    let mut steps: Vec<(Duration, bool, What)> =
        faults.iter().flat_map(|f| [(f.at, true, f.what), (f.until, false, f.what)]).collect();
    steps.sort_by_key(|(at, begins, _)| (*at, !*begins));
    for (at, begins, what) in steps {
        std::thread::sleep((begin + at).saturating_duration_since(Instant::now()));
        if begins { lab.break_(what)? } else { lab.mend(what)? }
    }
    let (mended, mended_at) = (Instant::now(), eyes.now());
    wait_for_clean(&eyes, mended_at, RECOVERY, "after the last fault")?;
    lab.wait_until_well()?;
    let (end, end_at) = (Instant::now(), eyes.now().saturating_sub(CLEAN / 4));
    let (longest, lease) = (eyes.answers.longest_of_more_than_one(begin, end), lab.lease());
    let healed = eyes.answers.end_of_more_than_one(mended, end).map_or(Duration::ZERO, |last| last - mended);
    let (samples, every) = (eyes.samples.clone(), eyes.options.every);
    eyes.probe.finish().map_err(|e| format!("the client could not probe: {e}"))?;
    let samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
    let seen = |stream, from| Seen::of(&samples, stream, from, end_at, every);
    let (new, kept) = (seen(Stream::New, Duration::ZERO), seen(Stream::KeepAlive, Duration::ZERO));
    let away_ms = seen(Stream::New, mended_at).longest_outage_ms;
    let mut broken = Vec::new();
    if cuts && longest.is_zero() {
        broken.push("the cut made no two holders, so that nothing had to heal".to_owned());
    }
    if !cuts && longest > lease + RESOLUTION {
        broken.push(format!("two machines answered for {} ms; the lease is {} ms", ms(longest), ms(lease)));
    }
    if healed > HEALED {
        broken.push(format!("two machines still answered {} ms after the last fault", ms(healed)));
    }
    if away_ms > ms(AWAY) {
        broken.push(format!("the address was away for {away_ms} ms after the last fault"));
    }
    Ok(Gust {
        seed,
        faults: faults.iter().map(Fault::to_string).collect(),
        two_answered_ms: ms(longest),
        healed_ms: ms(healed),
        away_ms,
        longest_outage_ms: new.longest_outage_ms,
        failed: new.failed + kept.failed,
        requests: new.requests + kept.requests,
        broken,
    })
}

impl Lab {
    /// Three advertisements: so long after the last one the address of a holder that hangs is mute.
    fn lease(&self) -> Duration {
        Duration::from_millis(3 * self.settings.advertise_ms)
    }

    fn break_(&mut self, what: What) -> Result<()> {
        // A second fault may find dead what it was to kill.
        let signal = |process: Option<crate::process::Identity>, signal| {
            process.map(|process| process.signal(signal));
        };
        match what {
            What::Kill(host, role) => signal(self.child(host, role), Signal::KILL),
            What::Pause(host, role) => signal(self.child(host, role), Signal::STOP),
            What::KillSupervisor(host) => signal(self.supervisor(host), Signal::KILL),
            What::KillAll(host) => self.kill_balancer(host)?,
            What::PauseAll(host) => self.signal_all(host, Signal::STOP),
            What::Cut(host) => self.link(host, Link::Cut)?,
            What::Silent(host) => self.link(host, Link::Silent)?,
            What::Apart => self.apart(true)?,
        }
        Ok(())
    }

    fn mend(&mut self, what: What) -> Result<()> {
        match what {
            What::Kill(..) => Ok(()),
            // As systemd does: what is left of it first.
            What::KillSupervisor(host) | What::KillAll(host) => {
                self.kill_balancer(host)?;
                self.start_balancer(host)
            }
            What::Pause(host, _) | What::PauseAll(host) => {
                self.signal_all(host, Signal::CONT);
                Ok(())
            }
            What::Cut(host) | What::Silent(host) => self.link(host, Link::Up),
            What::Apart => self.apart(false),
        }
    }

    fn signal_all(&self, host: &str, signal: Signal) {
        for process in self.processes_on(host) {
            process.signal(signal);
        }
    }

    fn link(&self, host: &str, link: Link) -> Result<()> {
        let set = self.network().set_link(host, link);
        set.map_err(|e| format!("the cable of {host} cannot be changed: {e}"))
    }

    fn apart(&self, apart: bool) -> Result<()> {
        let set = BALANCERS.iter().try_for_each(|host| self.network().isolate(host, apart));
        set.map_err(|e| format!("the balancers cannot be kept apart: {e}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_always_stands_for_the_same_faults_and_every_kind_comes() {
        let mut kinds = std::collections::BTreeSet::new();
        for seed in 0..500 {
            let of_seed = faults(seed);
            assert_eq!(of_seed, faults(seed));
            assert!((1..=2).contains(&of_seed.len()));
            assert!(of_seed.iter().filter(|fault| fault.what.is_of_the_network()).count() <= 1);
            kinds.extend(of_seed.iter().map(|fault| fault.what.to_string()));
        }
        assert_eq!(kinds.len(), 23, "{kinds:?}");
    }
}
