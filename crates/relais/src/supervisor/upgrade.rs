//! A binary upgrade as the running supervisor sees it: it hands the node over to an *heir*, another supervisor
//! of perhaps another version, and then only finishes what it has open. Until the heir says that everything of it
//! serves, this one is the node: whatever happens to the heir, it goes on. The messages and their order are told
//! in `relais_ipc::upgrade`; the other side is [`super::inherit`].

use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relais_base::Time;
use relais_ipc::upgrade::{Heir, Legacy};
use relais_ipc::{Channel, Endpoint, Order, Protocol, Role};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tracing::{error, info, warn};

use super::{Options, Supervisor};

/// From SIGUSR2 until the new binary asks for the node.
const COME_FORWARD: Duration = Duration::from_secs(10);
/// From then until its proxy and its control serve.
const PREPARE: Duration = Duration::from_secs(30);
/// From the end of our vip until the heir has settled.
const SETTLE: Duration = Duration::from_secs(10);
/// An heir that takes no message for this long is hung.
pub(super) const DEAF_AFTER: Duration = Duration::from_secs(2);

/// What comes from the other supervisor; `id` tells one upgrade from those before it.
#[derive(Debug)]
pub(super) struct FromKin {
    pub(super) id: u64,
    pub(super) what: Kin,
}

#[derive(Debug)]
pub(super) enum Kin {
    /// The heir said this; `None`: it is gone.
    Heir(Option<Heir>),
    /// The predecessor said this; `None`: it is gone.
    Predecessor(Option<Legacy>),
    /// The binary that was started ended so.
    Ended(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// A binary was started and has not asked yet.
    Launched,
    /// The heir starts its proxy and its control.
    Preparing,
    /// Our vip was told to go, or is gone.
    Yielding,
    /// The node is the heir's.
    Retired,
}

/// An upgrade on its way.
#[derive(Debug)]
pub(super) struct Upgrading {
    id: u64,
    step: Step,
    pub(super) deadline: Time,
    heir: Option<Arc<Channel>>,
    pid: Option<u32>,
    vip_pid: Option<u32>,
    /// Who waits for the binary that SIGUSR2 started; once it is killed, the heir is init's child, whose death
    /// systemd hears of.
    launcher: Option<u32>,
}

/// The binary to start: the one that we were started as, which may be another one by now.
#[derive(Clone, Debug)]
pub(super) struct Binary(PathBuf);

impl Binary {
    /// From the command line that we were started with. Not `/proc/self/exe`: that goes on naming what we are.
    pub(super) fn of_this_process() -> Binary {
        let named = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
        let absolute = match std::env::current_dir() {
            Ok(here) if named.components().count() > 1 => Some(here.join(&named)),
            _ => std::env::var_os("PATH").and_then(|path| {
                std::env::split_paths(&path).map(|dir| dir.join(&named)).find(|file| file.is_file())
            }),
        };
        Binary(absolute.or_else(|| std::env::current_exe().ok()).unwrap_or(named))
    }
}

impl Supervisor {
    /// `SIGUSR2`: starts the binary that now stands where ours stood, as our heir.
    pub(super) fn launch(&mut self) {
        let refused = self.why_no_upgrade();
        let started = refused.map_or_else(|| self.launch_heir(), Err);
        if let Err(why) = started {
            error!("there is no upgrade: {why}");
        }
    }

    fn launch_heir(&mut self) -> Result<(), String> {
        let Options { file, node, run_dir, .. } = &self.options;
        let mut command = tokio::process::Command::new("/proc/self/exe");
        command.args(["child", "launch"]).arg(&self.binary.0).args(["run", "--upgrade"]);
        command.arg("--node").arg(node).arg("--run-dir").arg(run_dir).arg(file);
        command.stdin(std::process::Stdio::null()).process_group(0);
        let failed = |error| format!("{} cannot be started: {error}", self.binary.0.display());
        let mut launcher = command.spawn().map_err(failed)?;
        info!("SIGUSR2: {} is started to take over", self.binary.0.display());
        let id = self.next_kin();
        let deadline = self.now() + COME_FORWARD;
        let launcher_pid = launcher.id();
        self.upgrading = Some(Upgrading {
            id,
            step: Step::Launched,
            deadline,
            heir: None,
            pid: None,
            vip_pid: None,
            launcher: launcher_pid,
        });
        let kin = self.kin.clone();
        tokio::spawn(async move {
            let how = super::child::obituary(launcher.wait().await);
            let _ = kin.send(FromKin { id, what: Kin::Ended(how) }); // fails only once we end
        });
        Ok(())
    }

    fn next_kin(&mut self) -> u64 {
        self.last_kin += 1;
        self.last_kin
    }

    /// Why the node cannot be handed over just now.
    fn why_no_upgrade(&self) -> Option<String> {
        let why = match () {
            () if self.stopping.is_some() => "the node is being stopped",
            () if self.applying.is_some() => "a plan is being put in force: try again",
            () if self.inheriting.is_some() || self.upgrading.is_some() => {
                "another upgrade is on its way: wait for its end"
            }
            () if std::process::id() == 1 => {
                "this supervisor is process 1 of its container, which would end with it: start a new container instead"
            }
            () => return None,
        };
        Some(why.to_owned())
    }

    /// Somebody asks for the node.
    pub(super) async fn hand_over_to(&mut self, node: &str, version: &str, channel: Channel) {
        let launched = self.upgrading.take_if(|upgrading| upgrading.step == Step::Launched);
        let refused = if node != self.options.node {
            Some(format!("the node that runs here is {}", self.options.node))
        } else {
            self.why_no_upgrade()
        };
        let channel = Arc::new(channel);
        if let Some(why) = refused {
            warn!("an upgrade was refused: {why}");
            self.upgrading = launched.or(self.upgrading.take());
            return channel.tell(&Legacy::Withdrawn { why }, DEAF_AFTER).await;
        }
        let legacy = match self.legacy() {
            Ok(legacy) => legacy,
            Err(error) => {
                let why = format!("this process cannot hand over its descriptors: {error}");
                return channel.tell(&Legacy::Withdrawn { why }, DEAF_AFTER).await;
            }
        };
        let pid = channel.peer_pid().ok();
        info!("relais {version} (pid {}) takes over", pid.unwrap_or_default());
        if let Some(launcher) = launched.as_ref().and_then(|launched| launched.launcher) {
            kill(launcher);
        }
        self.child(Role::Proxy).order(&Order::Shared { shared: true }, None).await;
        let id = self.next_kin();
        let (kin, heir) = (self.kin.clone(), channel.clone());
        tokio::spawn(async move {
            for (message, fd) in legacy {
                if heir.send(&message, fd.as_ref().map(AsFd::as_fd)).await.is_err() {
                    break; // it is gone, as the next line finds
                }
            }
            loop {
                let said = heir.recv::<Heir>().await.ok().flatten().map(|(said, _)| said);
                let gone = said.is_none();
                if kin.send(FromKin { id, what: Kin::Heir(said) }).is_err() || gone {
                    return;
                }
            }
        });
        self.upgrading = Some(Upgrading {
            id,
            step: Step::Preparing,
            deadline: self.now() + PREPARE,
            heir: Some(channel),
            pid,
            vip_pid: None,
            launcher: None,
        });
    }

    /// Everything that the heir gets, with descriptors of its own.
    fn legacy(&self) -> std::io::Result<Vec<(Legacy, Option<OwnedFd>)>> {
        let mut all = vec![(
            Legacy::Node {
                workers: self.workers,
                generation: self.last_generation,
                pid: std::process::id(),
                vip_pid: self.child(Role::Vip).pid(),
                notify: self.notify.path.clone(),
                watchdog_us: self.notify.watchdog.map(|half| half.as_micros() as u64),
            },
            None,
        )];
        if let Some(lock) = &self.lock {
            all.push((Legacy::Lock, Some(lock.try_clone()?.into())));
        }
        all.push((Legacy::Asks, Some(self.asks.try_clone_to_owned()?)));
        for role in Role::ALL {
            if let Some(socket) = self.status_sockets.get(role.name()) {
                all.push((Legacy::Status { role }, Some(socket.try_clone()?)));
            }
        }
        for (Endpoint { address, protocol }, index, socket) in self.sockets.all() {
            let piece = match protocol {
                Protocol::Tcp => Legacy::Listener { address, index },
                Protocol::Udp => Legacy::Datagrams { address, index },
            };
            all.push((piece, Some(socket.try_clone_to_owned()?)));
        }
        for (path, file) in &self.current.access_logs {
            all.push((Legacy::AccessLog { path: path.clone() }, Some(file.try_clone()?)));
        }
        for ((backend, server), up) in &self.health {
            let (backend, server) = (backend.clone(), server.clone());
            all.push((Legacy::Server { backend, server, up: *up }, None));
        }
        for (backend, file) in &self.tables.files {
            all.push((Legacy::Table { backend: backend.clone() }, Some(file.try_clone()?)));
        }
        for (command, up) in &self.scripts {
            all.push((Legacy::Script { command: command.clone(), up: *up }, None));
        }
        for (name, state) in &self.vips {
            all.push((Legacy::Vip { name: name.clone(), state: *state }, None));
        }
        all.push((Legacy::Overrides { path: self.store.path().display().to_string() }, None));
        all.push((Legacy::Complete, None));
        Ok(all)
    }

    /// What the heir does, or the process that starts it.
    pub(super) async fn on_heir(&mut self, id: u64, said: Option<Heir>) {
        let now = self.now();
        let Some(upgrading) = self.upgrading.as_mut().filter(|upgrading| upgrading.id == id) else { return };
        match (said, upgrading.step) {
            (Some(Heir::Prepared { vip_pid }), Step::Preparing) => {
                upgrading.vip_pid = vip_pid;
                upgrading.step = Step::Yielding;
                upgrading.deadline = now + SETTLE;
                if self.child(Role::Vip).pid().is_none() {
                    return self.yield_addresses().await;
                }
                // Not asked to end, for then it would hand the addresses over: they stay where they are.
                self.child(Role::Vip).kill();
            }
            (Some(Heir::Settled), Step::Yielding) => self.retire().await,
            (Some(Heir::Failed { why }), Step::Preparing | Step::Yielding) => self.call_off(&why).await,
            (None, Step::Preparing | Step::Yielding) => self.call_off("the new process died").await,
            (None, Step::Retired) => {
                warn!(
                    "the process that took over is gone: what is open here gets no more than the drain's time"
                );
                self.upgrading = None;
                self.hurry_retirement().await;
            }
            (Some(other), _) => warn!("the new process said something out of turn: {other:?}"),
            (None, Step::Launched) => {}
        }
    }

    /// The binary that SIGUSR2 started ended before it asked for the node.
    pub(super) async fn on_launch_ended(&mut self, id: u64, how: &str) {
        if self.upgrading.as_ref().is_some_and(|upgrading| upgrading.id == id) {
            self.call_off(&format!("{} {how} before it took over", self.binary.0.display())).await;
        }
    }

    /// Whether the death of vip is our own doing.
    pub(super) fn is_yielding(&self) -> bool {
        self.upgrading.as_ref().is_some_and(|upgrading| upgrading.step == Step::Yielding)
    }

    /// Our vip is gone: the heir's goes on.
    pub(super) async fn yield_addresses(&mut self) {
        if let Some(heir) = self.upgrading.as_ref().and_then(|upgrading| upgrading.heir.clone()) {
            heir.tell(&Legacy::Yours { ago_ms: 0 }, DEAF_AFTER).await;
        }
    }

    /// Nobody said anything in time.
    pub(super) async fn upgrade_on_time(&mut self) {
        let now = self.now();
        let Some(upgrading) = self.upgrading.as_ref().filter(|upgrading| upgrading.deadline <= now) else {
            return;
        };
        let limit = match upgrading.step {
            Step::Launched => COME_FORWARD,
            Step::Preparing => PREPARE,
            Step::Yielding => SETTLE,
            Step::Retired => return,
        };
        let (launcher, pid) = (upgrading.launcher, upgrading.pid);
        self.call_off(&format!("the new process was not ready in {} s and is killed", limit.as_secs())).await;
        pid.into_iter().for_each(kill);
        if let Some(group) = launcher.and_then(|launcher| Pid::from_raw(launcher as i32)) {
            let _ = kill_process_group(group, Signal::KILL); // gone already
        }
    }

    /// Ends an upgrade that has not settled: this generation goes on.
    pub(super) async fn call_off(&mut self, why: &str) {
        let Some(upgrading) = self.upgrading.take_if(|upgrading| upgrading.step != Step::Retired) else {
            return;
        };
        let first = why.lines().next().unwrap_or(why);
        error!("the upgrade failed, and relais {} goes on: {first}", env!("CARGO_PKG_VERSION"));
        if let Some(heir) = &upgrading.heir {
            heir.tell(&Legacy::Withdrawn { why: why.to_owned() }, DEAF_AFTER).await;
        }
        self.child(Role::Proxy).order(&Order::Shared { shared: false }, None).await;
        if upgrading.step == Step::Yielding {
            // An heir that is gone would have its vip hand the addresses over.
            upgrading.vip_pid.filter(|pid| is_vip(*pid)).into_iter().for_each(kill);
            if self.child(Role::Vip).pid().is_none() && self.stopping.is_none() {
                self.start_child(Role::Vip).await;
            }
        }
    }

    /// The node is the heir's: lets go of everything but the connections that are open.
    async fn retire(&mut self) {
        let limit = self.current.plan.hard_stop_after;
        if let Some(upgrading) = &mut self.upgrading {
            upgrading.step = Step::Retired;
            upgrading.deadline = Time::MAX;
            if let Some(pid) = upgrading.pid {
                self.notify.main_pid(pid);
            }
        }
        self.notify = super::Notify::nowhere();
        if let Some(accepting) = self.accepting.take() {
            accepting.abort();
        }
        self.respawn.clear();
        let heir = self.upgrading.as_ref().and_then(|upgrading| upgrading.heir.clone());
        if let Some(heir) = heir {
            heir.tell(&Legacy::Farewell, DEAF_AFTER).await;
        }
        self.sockets.close_all_but(&[]);
        self.status_sockets.clear();
        self.lock = None;
        info!(
            "the new version serves: what is open here ends by itself, or after {} s (hard-stop-after)",
            limit.as_secs()
        );
        self.child(Role::Control).order(&Order::Stop, None).await;
        self.drain_retired(limit).await;
    }

    async fn hurry_retirement(&mut self) {
        if self.stopping.is_some() {
            self.drain_retired(self.current.plan.drain).await;
        }
    }
}

/// Whether this process is a vip: a number may have been given to another one since.
pub(super) fn is_vip(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline"));
    line.is_ok_and(|line| line.starts_with(b"relais-vip\0"))
}

pub(super) fn kill(pid: u32) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, Signal::KILL); // gone already
    }
}
