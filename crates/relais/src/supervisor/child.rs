//! One child process: started from this very binary, with its channel as standard input.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use relais_base::Time;
use relais_ipc::pulse::{self, Pulse};
use relais_ipc::{Channel, Order, Report, Role};
use tokio::process::Command;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::backoff::Backoff;
use super::user::User;

/// A child that takes no message for this long is hung; it is killed, and its death heals it.
const DEAF_AFTER: Duration = Duration::from_secs(2);

/// What a child did.
#[derive(Debug)]
pub(crate) enum Event {
    /// It said something.
    Said(Report),
    /// `Report::Watched`.
    Watched(OwnedFd),
    /// `Report::Table`.
    Table(String, Option<OwnedFd>),
    /// `Report::Pulse`.
    Pulse(OwnedFd),
    /// It is gone.
    Died(String),
}

/// An event with the child it came from; `birth` tells a child from its predecessors.
#[derive(Debug)]
pub(crate) struct FromChild {
    pub(crate) role: Role,
    pub(crate) birth: u64,
    pub(crate) event: Event,
}

/// A child and its history.
#[derive(Debug)]
pub(crate) struct Child {
    pub(crate) role: Role,
    /// Counts its lives.
    pub(crate) birth: u64,
    /// Generation of the plan that it has in force; 0: none yet.
    pub(crate) generation: u64,
    pub(crate) born: Time,
    /// When its predecessor died.
    pub(crate) died: Option<Time>,
    pub(crate) backoff: Backoff,
    life: Option<Life>,
}

#[derive(Debug)]
struct Life {
    pid: u32,
    channel: Arc<Channel>,
}

impl Child {
    /// Not started yet.
    pub(crate) fn new(role: Role) -> Child {
        Child {
            role,
            birth: 0,
            generation: 0,
            born: Time::ZERO,
            died: None,
            backoff: Backoff::default(),
            life: None,
        }
    }

    /// Its process id while it lives.
    pub(crate) fn pid(&self) -> Option<u32> {
        self.life.as_ref().map(|life| life.pid)
    }

    /// How often it had to be started again.
    pub(crate) fn restarts(&self) -> u64 {
        self.birth.saturating_sub(1)
    }

    /// Starts it, as `user` where it needs no privilege. With `raw` the proxy keeps CAP_NET_RAW: it becomes that user
    /// itself, for no capability outlives a change of user from without. What it says and its death come to `events`.
    ///
    /// # Errors
    /// If the process cannot be made.
    pub(crate) fn start(
        &mut self,
        user: Option<User>,
        raw: bool,
        now: Time,
        events: &mpsc::UnboundedSender<FromChild>,
    ) -> io::Result<()> {
        let (channel, theirs) = Channel::pair()?;
        // Not the path of the binary: that may have been replaced by the next version.
        let mut command = Command::new("/proc/self/exe");
        command.arg0(format!("relais-{}", self.role.name())).args(["child", self.role.name()]);
        command.stdin(Stdio::from(theirs)).env_remove("NOTIFY_SOCKET").env_remove("WATCHDOG_USEC");
        if let (Some(User { uid, gid }), Role::Proxy, true) = (user, self.role, raw) {
            command.args(["--uid", &uid.to_string(), "--gid", &gid.to_string()]);
        } else if let (Some(user), Role::Proxy | Role::Control) = (user, self.role) {
            command.uid(user.uid).gid(user.gid); // and no supplementary groups: the standard library drops them
        }
        let mut process = command.spawn()?;
        drop(command); // closes our copy of its end, so that we see it go

        self.birth += 1;
        self.born = now;
        self.generation = 0;
        let channel = Arc::new(channel);
        self.life = Some(Life { pid: process.id().unwrap_or_default(), channel: channel.clone() });

        let (role, birth, events) = (self.role, self.birth, events.clone());
        tokio::spawn(async move {
            // Proxy says every half second that it turns; silence is looked into (`relais_ipc::pulse`).
            let mut watched = role == Role::Proxy;
            let (mut pulse, mut tick) = (Pulse::default(), tokio::time::interval(pulse::EVERY));
            tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let say = |event| drop(events.send(FromChild { role, birth, event })); // fails only once we end
            loop {
                tokio::select! {
                    biased;
                    said = channel.recv::<Report>() => match said {
                        Ok(Some((Report::Alive, _))) => pulse.beat(),
                        Ok(Some((Report::Watched, Some(connection)))) => say(Event::Watched(connection)),
                        Ok(Some((Report::Table { backend }, file))) => say(Event::Table(backend, file)),
                        Ok(Some((Report::Pulse, Some(socket)))) => say(Event::Pulse(socket)),
                        Ok(Some((report, _))) => {
                            pulse.beat();
                            watched &= !matches!(report, Report::Drained { .. });
                            say(Event::Said(report));
                        }
                        Ok(None) => break,
                        Err(error) => debug!("{} said something unclear: {error}", role.name()),
                    },
                    status = process.wait() => return say(Event::Died(obituary(status))),
                    _ = tick.tick(), if watched => {
                        let Some(pid) = process.id() else { continue };
                        if let Some(what) = pulse.tick(|| pulse::Stat::of_process(pid)) {
                            warn!("{} (pid {pid}) {what}; it is killed", role.name());
                            watched = false;
                            let _ = process.start_kill();
                        }
                    }
                }
            }
            // It closed its channel without dying: it is of no use any more.
            let _ = process.start_kill();
            say(Event::Died(obituary(process.wait().await)));
        });
        Ok(())
    }

    /// Gives an order; one to a dead child is dropped, since its successor is told everything anew.
    pub(crate) async fn order(&self, order: &Order, fd: Option<BorrowedFd<'_>>) {
        let Some(life) = &self.life else { return };
        match tokio::time::timeout(DEAF_AFTER, life.channel.send(order, fd)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => debug!("{} did not take an order: {error}", self.role.name()),
            Err(_) => {
                warn!("{} took no order for {} s and is killed", self.role.name(), DEAF_AFTER.as_secs());
                self.kill();
            }
        }
    }

    /// Ends it by force.
    pub(crate) fn kill(&self) {
        if let Some(pid) = self.pid().and_then(|pid| rustix::process::Pid::from_raw(pid as i32)) {
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }

    /// It is gone.
    pub(crate) fn buried(&mut self, now: Time) {
        self.life = None;
        self.generation = 0;
        self.died = Some(now);
    }
}

/// How a process ended, in words.
pub(super) fn obituary(status: io::Result<ExitStatus>) -> String {
    use std::os::unix::process::ExitStatusExt;
    match status {
        Err(error) => format!("was lost ({error})"),
        Ok(status) => match (status.code(), status.signal()) {
            (Some(0), _) => "ended".to_owned(),
            (Some(code), _) => format!("ended with status {code}"),
            (_, Some(signal)) => format!("was killed by signal {signal}"),
            _ => "ended".to_owned(),
        },
    }
}
