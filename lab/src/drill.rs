//! Drills: break one thing, measure what a client saw, mend it. Each run waits until the platform is well and
//! the probe has seen a clean second, breaks at a random moment, watches until clients are served again and the
//! dust has settled, mends, and waits until the platform is well again.

use std::fmt;
use std::str::FromStr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use relais_base::Rng;
use relais_ipc::Role;
use rustix::process::Signal;

use crate::download::Download;
use crate::eyes::{Eyes, wait_for_clean};
use crate::holders;
use crate::network::Link;
use crate::platform::{BALANCERS, CLIENT, FRONT, Lab, Result};
use crate::probe::Stream;
use crate::report::{JitterMs, Run, Seen, ms};

/// How long to watch after the break, at the least: past the three seconds in which a dead machine must lose the
/// address.
const WATCH: Duration = Duration::from_millis(3500);
/// When two holders are two too many.
const LOST_BY: Duration = Duration::from_secs(3);
/// Longest wait for clients to be served again.
const RECOVERY: Duration = Duration::from_secs(30);
/// The same with failover off, where the answer is known.
const NO_RECOVERY: Duration = Duration::from_secs(6);
/// Longest wait for a clean second before the break and after the repair.
const STEADY: Duration = Duration::from_secs(60);
/// Longest wait for a balancer to stop or to heal; its own limit for draining is 10 s.
const OWN_WORK: Duration = Duration::from_secs(30);

/// What can be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drill {
    /// The holder's cable is pulled.
    BalancerMachine,
    /// The holder's worker is killed.
    BalancerProcess,
    /// Every process of the holder is killed at once.
    BalancerAll,
    /// The holder is stopped as planned.
    BalancerStop,
    /// The holder is put in standby.
    BalancerStandby,
    /// A node of higher priority, in standby until then, takes the address back.
    BalancerReturn,
    /// The holder's file is changed and read again.
    BalancerReload,
    /// The holder's supervisor is killed: its children hand over, finish and end.
    BalancerSupervisor,
    /// The process that holds the holder's address is killed.
    BalancerVip,
    /// The holder's admin process is killed, which no client may notice.
    BalancerControl,
    /// An application server's cable is pulled.
    AppMachine,
    /// An application instance is killed.
    AppProcess,
}

/// How long the download takes that a planned move must not break, unless it is said.
pub const DOWNLOAD: Duration = Duration::from_secs(6);

/// How long a reload without any care takes.
const WITHOUT_CARE: Duration = Duration::from_millis(200);

impl Drill {
    /// Every drill.
    pub const ALL: [Drill; 12] = [
        Drill::BalancerMachine,
        Drill::BalancerProcess,
        Drill::BalancerAll,
        Drill::BalancerStop,
        Drill::BalancerStandby,
        Drill::BalancerReturn,
        Drill::BalancerReload,
        Drill::BalancerSupervisor,
        Drill::BalancerVip,
        Drill::BalancerControl,
        Drill::AppMachine,
        Drill::AppProcess,
    ];

    /// Its name on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Drill::BalancerMachine => "balancer-machine",
            Drill::BalancerProcess => "balancer-process",
            Drill::BalancerAll => "balancer-all",
            Drill::BalancerStop => "balancer-stop",
            Drill::BalancerStandby => "balancer-standby",
            Drill::BalancerReturn => "balancer-return",
            Drill::BalancerReload => "balancer-reload",
            Drill::BalancerSupervisor => "balancer-supervisor",
            Drill::BalancerVip => "balancer-vip",
            Drill::BalancerControl => "balancer-control",
            Drill::AppMachine => "app-machine",
            Drill::AppProcess => "app-process",
        }
    }
}

impl fmt::Display for Drill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Drill {
    type Err = String;

    fn from_str(name: &str) -> Result<Drill> {
        Drill::ALL.into_iter().find(|drill| drill.name() == name).ok_or_else(|| {
            let names: Vec<_> = Drill::ALL.iter().map(|drill| drill.name()).collect();
            format!("there is no drill `{name}`; there are {}", names.join(", "))
        })
    }
}

/// What was broken, and so must be mended.
#[derive(Clone, Copy, Debug)]
enum Broken {
    Cable(&'static str),
    Child(&'static str, Role),
    Balancer(&'static str),
    Standby(&'static str),
    Return(&'static str),
    Reload(&'static str),
    Instance(&'static str, u16),
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Broken::Cable(host) => write!(f, "the cable of {host}"),
            Broken::Child(host, Role::Proxy) => write!(f, "the worker of {host}"),
            Broken::Child(host, role) => write!(f, "{} of {host}", role.name()),
            Broken::Balancer(host) => write!(f, "all of {host}"),
            Broken::Standby(host) => write!(f, "{host}, in standby"),
            Broken::Return(host) => write!(f, "{host}, returning"),
            Broken::Reload(host) => write!(f, "the file of {host}"),
            Broken::Instance(host, number) => f.write_str(&Lab::instance_name(host, *number)),
        }
    }
}

/// Runs drills in one lab.
#[derive(Debug)]
pub struct Driller<'a> {
    lab: &'a mut Lab,
    drill: Drill,
    silent: bool,
    rng: Rng,
    runs: u32,
    download: Duration,
}

impl<'a> Driller<'a> {
    /// For `drill` in `lab`; `silent`: a machine's switch port goes deaf instead of its carrier; `seed` chooses
    /// victims and moments.
    pub fn new(lab: &'a mut Lab, drill: Drill, silent: bool, seed: u64) -> Driller<'a> {
        Driller { lab, drill, silent, rng: Rng::new(seed), runs: 0, download: DOWNLOAD }
    }

    /// The download that a planned move must not break takes this long, instead of [`DOWNLOAD`].
    #[must_use]
    pub fn with_download_of(self, download: Duration) -> Driller<'a> {
        Driller { download, ..self }
    }

    /// One run.
    ///
    /// # Errors
    /// If the platform does not get well before the break or after the repair, or something cannot be broken.
    pub fn run(&mut self) -> Result<Run> {
        self.lab.wait_until_well()?;
        self.prepare()?;
        let eyes = Eyes::open(self.lab)?;
        let begin = wait_for_clean(&eyes, Duration::ZERO, STEADY, "before anything was broken")?;
        let holder = match self.lab.holders()?.as_slice() {
            [holder] => *holder,
            _ => return Err("the address moved before anything was broken".into()),
        };
        std::thread::sleep(Duration::from_millis(self.rng.below(100))); // so that no timer is always hit alike

        let download = self.download()?;
        self.runs += 1;
        let broken_at = eyes.now();
        let broken_instant = Instant::now();
        let broken = self.break_it(holder)?;
        let recovered = self.watch(&eyes, broken_at);
        let holders_after = self.lab.holders()?;
        let changes = eyes.watch.changes();
        let mend_at = eyes.now();
        let mend_instant = Instant::now();
        let two_answered_ms = eyes.answers.more_than_one(broken_instant, mend_instant);
        self.mend(broken)?;
        self.lab.wait_until_well()?;
        wait_for_clean(&eyes, mend_at, STEADY, "after the repair")?;

        let download = download.map(|download| download.finish());
        let end = eyes.now();
        let (samples, every) = (eyes.samples.clone(), eyes.options.every);
        let late = eyes.probe.finish().map_err(|e| format!("the client could not probe: {e}"))?;
        let samples = samples.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = |stream, from, until| Seen::of(&samples, stream, from, until, every);
        let new = seen(Stream::New, begin, mend_at);
        let kept = seen(Stream::KeepAlive, begin, mend_at);
        let repair = [Stream::New, Stream::KeepAlive].map(|stream| seen(stream, mend_at, end));
        let bit = 1 << BALANCERS.iter().position(|host| *host == holder).unwrap_or(0);
        let late_holders = holders::sum(&changes, broken_instant + LOST_BY, mend_instant);
        Ok(Run {
            drill: self.drill.to_string(),
            stack: self.lab.settings().stack.name(),
            run: self.runs,
            broke: broken.to_string(),
            longest_outage_ms: new.longest_outage_ms,
            failed: new.failed + kept.failed,
            requests: new.requests + kept.requests,
            recovered,
            new_connections: new,
            keep_alive: kept,
            holder_before: holder.into(),
            holders_after: holders_after.into_iter().map(str::to_owned).collect(),
            holders_ms: holders::sum(&changes, broken_instant, mend_instant),
            two_answered_ms,
            lost_after_ms: holders::lost_after(&changes, bit, broken_instant).map(ms),
            two_holders_after_3s: late_holders.both > 0.0,
            repair_outage_ms: repair[0].longest_outage_ms,
            repair_failed: repair[0].failed + repair[1].failed,
            download: download.map(|done| done.map_or_else(|e| e.to_string(), |()| "whole".into())),
            probe_late_ms: JitterMs::from(late),
        })
    }

    /// What must be so before: the returning node is away.
    fn prepare(&mut self) -> Result<()> {
        if self.drill != Drill::BalancerReturn || !self.lab.settings().failover {
            return Ok(());
        }
        self.lab.standby(BALANCERS[0], true)?;
        self.await_here("take the address", BALANCERS[1], |lab| {
            lab.holders().is_ok_and(|holders| holders == [BALANCERS[1]])
        })
    }

    /// A download that a planned move must not break.
    fn download(&self) -> Result<Option<Download>> {
        if !matches!(self.drill, Drill::BalancerStop | Drill::BalancerStandby | Drill::BalancerReturn) {
            return Ok(None);
        }
        let client = self.lab.network().host(CLIENT).netns();
        Download::begin(client, FRONT, self.download)
            .map(Some)
            .map_err(|e| format!("no download can begin: {e}"))
    }

    /// Breaks what the drill is about; `holder` has the address.
    fn break_it(&mut self, holder: &'static str) -> Result<Broken> {
        let failover = self.lab.settings().failover;
        let instances = self.lab.instances();
        let (server, number) = instances[self.rng.below(instances.len() as u64) as usize];
        Ok(match self.drill {
            Drill::BalancerMachine => self.cut(holder)?,
            Drill::AppMachine => self.cut(server)?,
            Drill::BalancerProcess => self.kill_child(holder, Role::Proxy)?,
            Drill::BalancerVip => self.kill_child(holder, Role::Vip)?,
            Drill::BalancerControl => self.kill_child(holder, Role::Control)?,
            Drill::BalancerSupervisor => {
                let gone = || format!("the supervisor of {holder} is gone before it could be killed");
                self.lab.supervisor(holder).ok_or_else(gone)?.signal(Signal::KILL);
                Broken::Balancer(holder)
            }
            Drill::BalancerAll => {
                self.lab.kill_balancer(holder)?;
                Broken::Balancer(holder)
            }
            Drill::BalancerStop => {
                self.lab.stop_balancer(holder)?;
                Broken::Balancer(holder)
            }
            Drill::BalancerStandby => {
                self.lab.standby(holder, true)?;
                Broken::Standby(holder)
            }
            Drill::BalancerReturn if failover => {
                self.lab.standby(BALANCERS[0], false)?;
                Broken::Return(BALANCERS[0])
            }
            Drill::BalancerReload if failover => {
                self.lab.reload_balancer(holder, self.runs)?;
                Broken::Reload(holder)
            }
            Drill::BalancerReload | Drill::BalancerReturn => {
                // What a reload without any care would be: everything down, and up again. For long enough to be
                // felt, as a start of some milliseconds need not be.
                self.lab.kill_balancer(holder)?;
                std::thread::sleep(WITHOUT_CARE);
                self.lab.start_balancer(holder)?;
                Broken::Reload(holder)
            }
            Drill::AppProcess => {
                self.lab.signal(&Lab::instance_name(server, number), Signal::KILL)?;
                Broken::Instance(server, number)
            }
        })
    }

    /// Kills one child of a host's balancer; with failover off nobody starts it again.
    fn kill_child(&self, host: &'static str, role: Role) -> Result<Broken> {
        let gone = |what: &str| format!("{what} of {host} is gone before it could be killed");
        if !self.lab.settings().failover {
            self.lab.supervisor(host).ok_or_else(|| gone("the supervisor"))?.signal(Signal::STOP);
        }
        self.lab.child(host, role).ok_or_else(|| gone(role.name()))?.signal(Signal::KILL);
        Ok(Broken::Child(host, role))
    }

    fn cut(&self, host: &'static str) -> Result<Broken> {
        let link = if self.silent { Link::Silent } else { Link::Cut };
        let cut = self.lab.network().set_link(host, link);
        cut.map(|()| Broken::Cable(host)).map_err(|e| format!("the cable of {host} cannot be cut: {e}"))
    }

    /// Watches until clients are served again and long enough after; whether they were.
    fn watch(&mut self, eyes: &Eyes, broken_at: Duration) -> bool {
        let limit = if self.lab.settings().failover { RECOVERY } else { NO_RECOVERY };
        loop {
            self.lab.reap();
            let passed = eyes.now() - broken_at;
            let clean = eyes.is_clean(broken_at);
            if passed >= WATCH && (clean || passed >= limit) {
                return clean;
            }
            std::thread::sleep(Duration::from_millis(20)); // the watch itself
        }
    }

    /// Mends what was broken.
    fn mend(&mut self, broken: Broken) -> Result<()> {
        match broken {
            Broken::Cable(host) => {
                let mended = self.lab.network().set_link(host, Link::Up);
                mended.map_err(|e| format!("the cable of {host} cannot be mended: {e}"))
            }
            Broken::Child(host, role) => {
                if let Some(supervisor) = self.lab.supervisor(host) {
                    supervisor.signal(Signal::CONT);
                }
                // A supervisor heals, or ends with its child; then it is the operator's work.
                self.await_here("heal its process", host, |lab| {
                    lab.child(host, role).is_some() || lab.supervisor(host).is_none()
                })?;
                if self.lab.supervisor(host).is_none() { self.lab.start_balancer(host) } else { Ok(()) }
            }
            Broken::Balancer(host) => self.restart(host),
            Broken::Standby(host) => self.lab.standby(host, false),
            Broken::Reload(_) | Broken::Return(_) => Ok(()),
            Broken::Instance(host, number) => self.lab.start_instance(host, number),
        }
    }

    /// Waits until what is being stopped is gone, and starts it again.
    fn restart(&mut self, host: &'static str) -> Result<()> {
        match self.drill {
            Drill::BalancerStop => self.await_here("stop", host, |lab| lab.supervisor(host).is_none())?,
            // Its children end by themselves once they have drained; the next one shares the port with them.
            Drill::BalancerSupervisor => {
                self.await_here("end its children", host, |lab| lab.processes_on(host).is_empty())?;
            }
            _ => {}
        }
        self.lab.start_balancer(host)
    }

    /// Waits for what a host's balancer is to do.
    fn await_here(&self, what: &str, host: &str, done: impl Fn(&Lab) -> bool) -> Result<()> {
        let limit = OWN_WORK + self.download;
        let deadline = Instant::now() + limit;
        while !done(self.lab) {
            if Instant::now() >= deadline {
                let limit = limit.as_secs();
                return Err(format!("{host} was to {what} and has not done so after {limit} s"));
            }
            std::thread::sleep(Duration::from_millis(20)); // nobody here is its parent
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_drill_is_found_by_its_name_and_a_wrong_name_gets_the_list() {
        for drill in Drill::ALL {
            assert_eq!(drill.name().parse(), Ok(drill));
        }
        let error = "balancer".parse::<Drill>().unwrap_err();
        assert!(error.contains("`balancer`") && error.contains("app-process"), "{error}");
    }
}
