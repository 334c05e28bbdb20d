//! A binary upgrade as the new supervisor sees it (`relais run --upgrade`): it inherits the listening sockets, the
//! lock and what the old one knows, starts its proxy and its control beside the old ones, then has its vip go on
//! with the addresses. Until the old one's farewell it is nobody: if anything fails it ends, and the addresses
//! stay where they are. The messages are told in `relais_ipc::upgrade`; the other side is [`super::upgrade`].

use std::collections::BTreeMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use relais_base::Time;
use relais_ipc::message::Ask;
use relais_ipc::upgrade::{Heir, Legacy};
use relais_ipc::{Channel, Endpoint, Order, Role, VipState};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, info, warn};

use super::upgrade::{DEAF_AFTER, FromKin, Kin, is_vip, kill};
use super::{Options, Supervisor};

/// Longest wait for the old supervisor to tell everything.
const TELL: Duration = Duration::from_secs(10);
/// Longest wait for its next word, once it is its turn; it has shorter limits of its own.
const NEXT_WORD: Duration = Duration::from_secs(60);

/// What the old supervisor left us.
pub(super) struct Inheritance {
    channel: Arc<Channel>,
    pid: u32,
    vip_pid: Option<u32>,
    pub(super) workers: u16,
    pub(super) generation: u64,
    pub(super) notify: Option<String>,
    pub(super) watchdog: Option<Duration>,
    pub(super) lock: Option<File>,
    pub(super) asks: Option<OwnedFd>,
    pub(super) status_sockets: BTreeMap<&'static str, OwnedFd>,
    pub(super) listeners: BTreeMap<Endpoint, BTreeMap<u16, OwnedFd>>,
    pub(super) access_logs: Vec<(String, OwnedFd)>,
    pub(super) health: BTreeMap<(String, String), bool>,
    pub(super) tables: BTreeMap<String, OwnedFd>,
    pub(super) scripts: BTreeMap<String, bool>,
    pub(super) vips: BTreeMap<String, VipState>,
    /// Where operators' commands are kept.
    pub(super) overrides: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Proxy and control are being started.
    Preparing,
    /// They serve; the old vip is about to go.
    Waiting,
    /// Our vip has been told to go on.
    Taking,
    /// Everything of ours serves; the farewell is about to come.
    Settled,
}

/// An inheritance that is not settled.
pub(super) struct Inheriting {
    channel: Arc<Channel>,
    pid: u32,
    vip_pid: Option<u32>,
    step: Step,
    /// The old supervisor died: nobody will say anything more.
    alone: bool,
    pub(super) deadline: Time,
}

impl Inheritance {
    /// Asks the supervisor that runs in the run directory for everything.
    ///
    /// # Errors
    /// A sentence for the operator.
    pub(super) async fn ask(options: &Options) -> Result<Inheritance, String> {
        let dir = options.run_dir.display();
        let channel = Channel::connect(&options.run_dir.join("relais.sock")).map_err(|error| {
            format!("no relais runs in {dir} ({error}): start this one without --upgrade")
        })?;
        let mut inheritance = Inheritance {
            channel: Arc::new(channel),
            pid: 0,
            vip_pid: None,
            workers: 0,
            generation: 0,
            notify: None,
            watchdog: None,
            lock: None,
            asks: None,
            status_sockets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            access_logs: Vec::new(),
            health: BTreeMap::new(),
            tables: BTreeMap::new(),
            scripts: BTreeMap::new(),
            vips: BTreeMap::new(),
            overrides: None,
        };
        let told = tokio::time::timeout(TELL, inheritance.receive(&options.node)).await;
        told.map_err(|_| {
            format!("the relais that runs in {dir} did not tell what it has in {} s", TELL.as_secs())
        })??;
        Ok(inheritance)
    }

    async fn receive(&mut self, node: &str) -> Result<(), String> {
        let ask = Ask::Upgrade { node: node.to_owned(), version: env!("CARGO_PKG_VERSION").to_owned() };
        let lost = |error: std::io::Error| format!("the running relais cannot be asked: {error}");
        self.channel.send(&ask, None).await.map_err(lost)?;
        loop {
            let Some((legacy, fd)) = self.channel.recv::<Legacy>().await.map_err(lost)? else {
                return Err(
                    "the running relais does not hand over, perhaps because it is too old: restart it".into(),
                );
            };
            if self.take(legacy, fd)? {
                return Ok(());
            }
        }
    }

    /// Takes one piece; says whether it was the last.
    fn take(&mut self, legacy: Legacy, fd: Option<OwnedFd>) -> Result<bool, String> {
        let descriptor = || "the running relais sent a message without its descriptor: restart it".to_owned();
        match legacy {
            Legacy::Node { workers, generation, pid, vip_pid, notify, watchdog_us } => {
                (self.workers, self.generation) = (workers.clamp(1, 256), generation);
                (self.pid, self.vip_pid) = (pid, vip_pid);
                (self.notify, self.watchdog) = (notify, watchdog_us.map(Duration::from_micros));
            }
            Legacy::Lock => self.lock = Some(fd.ok_or_else(descriptor)?.into()),
            Legacy::Asks => self.asks = fd,
            Legacy::Status { role } => {
                self.status_sockets.insert(role.name(), fd.ok_or_else(descriptor)?);
            }
            Legacy::Listener { address, index } => {
                let set = self.listeners.entry(Endpoint::tcp(address)).or_default();
                set.insert(index, fd.ok_or_else(descriptor)?);
            }
            Legacy::Datagrams { address, index } => {
                let set = self.listeners.entry(Endpoint::udp(address)).or_default();
                set.insert(index, fd.ok_or_else(descriptor)?);
            }
            Legacy::AccessLog { path } => self.access_logs.push((path, fd.ok_or_else(descriptor)?)),
            Legacy::Server { backend, server, up } => {
                self.health.insert((backend, server), up);
            }
            Legacy::Script { command, up } => {
                self.scripts.insert(command, up);
            }
            Legacy::Table { backend } => {
                self.tables.insert(backend, fd.ok_or_else(descriptor)?);
            }
            Legacy::Vip { name, state } => {
                self.vips.insert(name, state);
            }
            Legacy::Overrides { path } => self.overrides = Some(path.into()),
            Legacy::Withdrawn { why } => return Err(format!("the running relais refuses: {why}")),
            Legacy::Complete if self.workers > 0 => return Ok(true),
            Legacy::Complete | Legacy::Yours { .. } | Legacy::Farewell => {
                return Err("the running relais said something out of turn: restart it".into());
            }
            Legacy::Unknown => {}
        }
        Ok(false)
    }

    /// Tells the old supervisor why there will be no upgrade.
    pub(super) async fn give_up(&self, why: &str) {
        self.channel.tell(&Heir::Failed { why: why.to_owned() }, DEAF_AFTER).await;
    }

    /// From here on the old supervisor's words come as events.
    pub(super) fn begin(&self, now: Time, id: u64, kin: &UnboundedSender<FromKin>) -> Inheriting {
        let (channel, kin) = (self.channel.clone(), kin.clone());
        tokio::spawn(async move {
            loop {
                let said = channel.recv::<Legacy>().await.ok().flatten().map(|(said, _)| said);
                let gone = said.is_none();
                if kin.send(FromKin { id, what: Kin::Predecessor(said) }).is_err() || gone {
                    return;
                }
            }
        });
        Inheriting {
            channel: self.channel.clone(),
            pid: self.pid,
            vip_pid: self.vip_pid,
            step: Step::Preparing,
            alone: false,
            deadline: now + NEXT_WORD,
        }
    }
}

impl Supervisor {
    /// Whether the addresses are still the old vip's: ours gets no plan yet.
    pub(super) fn withholds_addresses(&self) -> bool {
        let early = |inheriting: &Inheriting| matches!(inheriting.step, Step::Preparing | Step::Waiting);
        self.inheriting.as_ref().is_some_and(early)
    }

    /// A child of ours has the plan in force. Says whether the node is nobody's but ours.
    pub(super) async fn inherit_on_ready(&mut self) -> bool {
        let ready = |role: Role| self.child(role).generation == self.current.generation;
        let (serving, all) = (ready(Role::Proxy) && ready(Role::Control), Role::ALL.into_iter().all(ready));
        let vip_pid = self.child(Role::Vip).pid();
        let deadline = self.now() + NEXT_WORD;
        let Some(inheriting) = &mut self.inheriting else { return true };
        let (alone, channel) = (inheriting.alone, inheriting.channel.clone());
        match inheriting.step {
            Step::Preparing if serving => {
                (inheriting.step, inheriting.deadline) = (Step::Waiting, deadline);
                channel.tell(&Heir::Prepared { vip_pid }, DEAF_AFTER).await;
                if alone {
                    self.take_addresses(0).await;
                }
            }
            Step::Taking if all => {
                (inheriting.step, inheriting.deadline) = (Step::Settled, deadline);
                channel.tell(&Heir::Settled, DEAF_AFTER).await;
                if alone {
                    self.be_the_node().await;
                }
            }
            _ => {}
        }
        self.inheriting.is_none()
    }

    /// The old supervisor said something, or is gone.
    pub(super) async fn on_predecessor(&mut self, said: Option<Legacy>) {
        let Some(inheriting) = &mut self.inheriting else {
            if said.is_none()
                && let Some((pid, _)) = self.predecessor.take()
            {
                info!("the version before (pid {pid}) has ended");
            }
            return;
        };
        match (said, inheriting.step) {
            (Some(Legacy::Yours { ago_ms }), Step::Waiting) => self.take_addresses(ago_ms).await,
            (Some(Legacy::Farewell), Step::Settled) => self.be_the_node().await,
            (Some(Legacy::Withdrawn { why }), _) => self.step_back(&why).await,
            (None, step) => {
                warn!("the version before (pid {}) died while it handed over", inheriting.pid);
                inheriting.alone = true;
                // Its vip would hand the addresses over to another node.
                inheriting.vip_pid.filter(|pid| is_vip(*pid)).into_iter().for_each(kill);
                match step {
                    Step::Waiting => self.take_addresses(0).await,
                    Step::Settled => self.be_the_node().await,
                    Step::Preparing | Step::Taking => {}
                }
            }
            (Some(other), _) => warn!("the version before said something out of turn: {other:?}"),
        }
    }

    /// The old vip has ended: ours goes on as master of what it held.
    async fn take_addresses(&mut self, ago_ms: u64) {
        let now = self.now();
        if let Some(inheriting) = &mut self.inheriting {
            (inheriting.step, inheriting.deadline) = (Step::Taking, now + NEXT_WORD);
        }
        self.child_mut(Role::Vip).died = Some(now - Duration::from_millis(ago_ms));
        self.brief_vip().await;
    }

    /// The farewell: from here on this is a supervisor like any other.
    async fn be_the_node(&mut self) {
        let Some(Inheriting { channel, pid, .. }) = self.inheriting.take() else { return };
        self.predecessor = Some((pid, channel));
        self.child(Role::Proxy).order(&Order::Shared { shared: false }, None).await;
        self.accept_asks();
        info!("relais {} has taken over from pid {pid}", env!("CARGO_PKG_VERSION"));
        self.announce_if_ready();
        self.tell_control().await;
    }

    /// There will be no upgrade: ends without touching the addresses, which the old generation holds.
    pub(super) async fn step_back(&mut self, why: &str) {
        let Some(inheriting) = self.inheriting.take() else { return };
        if matches!(inheriting.step, Step::Taking | Step::Settled) {
            self.child(Role::Vip).kill();
        }
        inheriting.channel.tell(&Heir::Failed { why: why.to_owned() }, DEAF_AFTER).await;
        error!("the upgrade is off, and this process ends: {}", why.lines().next().unwrap_or(why));
        self.failed = Some("the version before goes on".to_owned());
        self.notify = super::Notify::nowhere();
        self.vips.clear();
        self.respawn.clear();
        self.drain_retired(self.current.plan.drain).await;
    }

    /// The old supervisor is silent, or our own children are not ready.
    pub(super) async fn inherit_on_time(&mut self) {
        let now = self.now();
        if self.inheriting.as_ref().is_some_and(|inheriting| inheriting.deadline <= now) {
            self.step_back(&format!("there was no next step in {} s", NEXT_WORD.as_secs())).await;
        }
    }
}
