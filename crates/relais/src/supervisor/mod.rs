//! The supervisor: `relais run`. It holds the listening sockets, starts the three children and starts
//! them again when they die, and puts plans in force. It reads the plan file and the messages of its own
//! children and of root's commands; it never parses what comes from the network.

mod apply;
mod backoff;
mod child;
mod edition;
pub(crate) mod files;
mod inherit;
mod moves;
mod notify;
mod overrides;
mod sockets;
mod stop;
mod tables;
mod upgrade;
mod user;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relais_base::Time;
use relais_ipc::channel::{Listener, text_to_fd};
use relais_ipc::message::{Answer, Ask};
use relais_ipc::status::{NodeStatus, ProcessStatus};
use relais_ipc::watchers::{Pulses, Watchers};
use relais_ipc::{Channel, Endpoint, FrontendState, Order, Protocol, Report, Role, VipState};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tracing::{error, info, warn};

use apply::Applying;
use child::{Child, Event, FromChild};
use edition::{Edition, open_access_logs};
use inherit::{Inheritance, Inheriting};
use moves::Kept;
use notify::Notify;
use overrides::Store;
use sockets::Sockets;
use stop::Stopping;
use tables::Tables;
use upgrade::{Binary, FromKin, Kin, Upgrading};
use user::User;

/// Longest plan text, bytes.
pub(crate) const MAX_PLAN: u64 = 1024 * 1024;

/// What `relais run` was asked to do.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// The plan file.
    pub(crate) file: PathBuf,
    /// Which of its nodes this machine is.
    pub(crate) node: String,
    /// Where the sockets of this node are.
    pub(crate) run_dir: PathBuf,
    /// Take over from the relais that runs there.
    pub(crate) upgrade: bool,
}

struct Supervisor {
    options: Options,
    started: Instant,
    notify: Notify,
    user: Option<User>,
    workers: u16,
    sockets: Sockets,
    status_sockets: BTreeMap<&'static str, OwnedFd>,
    children: [Child; 3],
    events: mpsc::UnboundedSender<FromChild>,
    /// Children to be started again, and when.
    respawn: Vec<(Role, Time)>,
    current: Edition,
    /// Where operators' changes are kept.
    store: Store,
    last_generation: u64,
    applying: Option<Applying>,
    stopping: Option<Stopping>,
    /// What a new vip must know of scripts, by their commands.
    scripts: BTreeMap<String, bool>,
    /// What a new proxy must know of the servers.
    health: BTreeMap<(String, String), bool>,
    tables: Tables,
    /// What a new vip must know of the addresses.
    vips: BTreeMap<String, VipState>,
    /// The operator's words that outlast processes.
    kept: Kept,
    /// Backups that take it from these connections whether this node lives.
    watchers: Watchers,
    /// What keeps vip's gates open while another vip is started.
    pulses: Pulses,
    frontends: FrontendState,
    announced_ready: bool,
    /// The run directory's lock, until another supervisor has taken over.
    lock: Option<File>,
    asks: Arc<Listener>,
    asked: mpsc::Sender<Asked>,
    accepting: Option<tokio::task::JoinHandle<()>>,
    binary: Binary,
    /// Where the words of another supervisor come from, in an upgrade.
    kin: mpsc::UnboundedSender<FromKin>,
    last_kin: u64,
    upgrading: Option<Upgrading>,
    inheriting: Option<Inheriting>,
    /// Who ran the node before, while it finishes what it has open. It sees our end by the channel.
    predecessor: Option<(u32, Arc<Channel>)>,
    /// Why the process ends as a failure.
    failed: Option<String>,
}

/// A command's question, with a descriptor if one came along, and where the answer goes.
type Asked = (Ask, Option<OwnedFd>, Channel);

/// Runs this node until it is told to stop.
pub(crate) fn run(options: Options) -> ExitCode {
    relais_ipc::journal::init("relais");
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            error!("cannot start: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(async { Supervisor::start(options).await?.serve().await }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            error!("{why}");
            ExitCode::FAILURE
        }
    }
}

impl Supervisor {
    /// Reads the plan, opens or inherits the sockets, starts the children.
    async fn start(options: Options) -> Result<Running, String> {
        if !options.upgrade {
            return Supervisor::start_with(options, None).await;
        }
        let inheritance = Inheritance::ask(&options).await?;
        Supervisor::start_with(options, Some(inheritance)).await
    }

    async fn start_with(options: Options, inherited: Option<Inheritance>) -> Result<Running, String> {
        let mut inherited = inherited;
        match Supervisor::make(options, inherited.as_mut()) {
            Ok(mut running) => {
                running.supervisor.begin(inherited.as_ref()).await;
                Ok(running)
            }
            Err(why) => {
                if let Some(inheritance) = inherited {
                    inheritance.give_up(&why).await;
                }
                Err(why)
            }
        }
    }

    fn make(options: Options, mut inherited: Option<&mut Inheritance>) -> Result<Running, String> {
        let generation = inherited.as_ref().map_or(1, |inherited| inherited.generation + 1);
        let logs = inherited.as_mut().map(|inherited| std::mem::take(&mut inherited.access_logs));
        // What is wrong with the file is said first, whoever else runs here.
        let store = Store::at(inherited.as_ref().and_then(|i| i.overrides.clone()), &options.run_dir);
        let edition = Edition::read(&options, generation, logs.unwrap_or_default(), store.load()?)?;
        let lock = match inherited.as_mut().and_then(|inherited| inherited.lock.take()) {
            Some(lock) => lock,
            None => prepare_run_dir(&options.run_dir)?,
        };
        raise_descriptor_limit();
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get().min(256) as u16);
        let workers = inherited.as_ref().map_or(cores, |inherited| inherited.workers);
        let user = user::unprivileged(&edition.plan.user);
        let mut sockets = Sockets::new(workers);
        let mut notify = Notify::from_env();
        let (mut health, mut scripts, mut tables) = (BTreeMap::new(), BTreeMap::new(), Tables::default());
        let (mut vips, mut asks) = (BTreeMap::new(), None);
        if let Some(inherited) = &mut inherited {
            sockets.inherit(std::mem::take(&mut inherited.listeners));
            if let Some(path) = inherited.notify.take() {
                notify = Notify::to(path, inherited.watchdog);
            }
            health = std::mem::take(&mut inherited.health);
            tables.files = std::mem::take(&mut inherited.tables);
            scripts = std::mem::take(&mut inherited.scripts);
            vips = std::mem::take(&mut inherited.vips);
            asks = inherited.asks.take();
        }
        let wanted = sockets::wanted(&edition.plan, edition.node);
        sockets.open(&wanted)?;
        sockets.close_all_but(&wanted);
        let status_sockets = match inherited.map(|inherited| std::mem::take(&mut inherited.status_sockets)) {
            Some(sockets) if !sockets.is_empty() => sockets,
            _ => status_sockets(&options.run_dir, user)?,
        };
        let asks = match asks {
            Some(socket) => Listener::new(socket),
            None => Listener::bind(&options.run_dir.join("relais.sock")),
        };
        let asks =
            asks.map_err(|error| format!("cannot listen in {}: {error}", options.run_dir.display()))?;
        let (events, from_children) = mpsc::unbounded_channel();
        let (kin, from_kin) = mpsc::unbounded_channel();
        let (asked, asks_from) = mpsc::channel(16);
        let supervisor = Supervisor {
            started: Instant::now(),
            notify,
            user,
            workers,
            sockets,
            status_sockets,
            children: Role::ALL.map(Child::new),
            events,
            respawn: Vec::new(),
            last_generation: edition.generation,
            current: edition,
            store,
            applying: None,
            stopping: None,
            health,
            tables,
            scripts,
            vips,
            kept: Kept::read(&options.run_dir),
            watchers: Watchers::default(),
            pulses: Pulses::default(),
            frontends: FrontendState::Down,
            announced_ready: false,
            options,
            lock: Some(lock),
            asks: Arc::new(asks),
            asked,
            accepting: None,
            binary: Binary::of_this_process(),
            kin,
            last_kin: 0,
            upgrading: None,
            inheriting: None,
            predecessor: None,
            failed: None,
        };
        Ok(Running { supervisor, from_children, from_kin, asks: asks_from })
    }

    async fn begin(&mut self, inherited: Option<&Inheritance>) {
        info!(
            "node {} of platform {}: plan {} with {} workers",
            self.options.node, self.current.plan.platform, self.current.file, self.workers
        );
        self.say_what_is_pending();
        self.say_what_is_overridden();
        match inherited {
            Some(inherited) => self.inheriting = Some(inherited.begin(self.now(), 0, &self.kin)),
            None => self.accept_asks(),
        }
        for role in Role::ALL {
            self.start_child(role).await;
        }
    }

    /// Answers commands from here on.
    fn accept_asks(&mut self) {
        self.accepting = Some(tokio::spawn(accept_asks(self.asks.clone(), self.asked.clone())));
    }

    fn now(&self) -> Time {
        Time::from_nanos(self.started.elapsed().as_nanos() as u64)
    }

    fn child(&self, role: Role) -> &Child {
        &self.children[role as usize]
    }

    fn child_mut(&mut self, role: Role) -> &mut Child {
        &mut self.children[role as usize]
    }

    fn say_what_is_pending(&self) {
        if !self.current.plan.pending.is_empty() {
            warn!("this build checks but does not act on: {}", self.current.plan.pending.join(", "));
        }
    }

    /// Starts a child and tells it everything it must know, ending with the plan in force.
    async fn start_child(&mut self, role: Role) {
        let (user, now, events) = (self.user, self.now(), self.events.clone());
        let raw = self.current.plan.needs_client_source();
        if let Err(error) = self.child_mut(role).start(user, raw, now, &events) {
            error!("{} cannot be started: {error}", role.name());
            self.child_mut(role).birth += 1;
            self.schedule_respawn(role);
            return;
        }
        let child = self.child(role);
        let hello = Order::Hello {
            node: self.options.node.clone(),
            workers: self.workers,
            run_dir: self.options.run_dir.display().to_string(),
        };
        child.order(&hello, None).await;
        if role == Role::Vip {
            self.tell_vip_of_frontends().await;
            if !self.withholds_addresses() {
                self.brief_vip().await;
            }
            return self.tell_control().await;
        }
        if let Some(socket) = self.status_sockets.get(role.name()) {
            child.order(&Order::Status, Some(socket.as_fd())).await;
        }
        match role {
            Role::Proxy => {
                if self.inheriting.is_some() || self.upgrading.is_some() {
                    child.order(&Order::Shared { shared: true }, None).await;
                }
                self.tell_health(child).await;
                self.tell_scripts(child).await;
                for (backend, file) in &self.tables.files {
                    let order = Order::Table { backend: backend.clone() };
                    child.order(&order, Some(file.as_fd())).await;
                }
            }
            Role::Vip => {}
            Role::Control => child.order(&Order::Node(self.status()), None).await,
        }
        self.send_plan(role, &self.current).await;
        self.tell_control().await;
    }

    /// Tells a new proxy, or vip, what is known of the servers.
    async fn tell_health(&self, child: &Child) {
        for ((backend, server), up) in &self.health {
            let (backend, server) = (backend.clone(), server.clone());
            child.order(&Order::Server { backend, server, up: *up }, None).await;
        }
    }

    /// Tells a new vip which addresses it goes on with, and the plan.
    async fn brief_vip(&self) {
        let (child, now) = (self.child(Role::Vip), self.now());
        if let Some(socket) = self.status_sockets.get(Role::Vip.name()) {
            child.order(&Order::Status, Some(socket.as_fd())).await;
        }
        let ago_ms = child.died.map_or(u64::MAX, |died| now.since(died).as_millis() as u64);
        let held = self.vips.iter().filter(|(_, state)| **state == VipState::Master);
        self.instruct_vip().await;
        self.tell_health(child).await;
        self.tell_scripts(child).await;
        for (vip, _) in held {
            child.order(&Order::Resume { vip: vip.clone(), ago_ms }, None).await;
        }
        self.send_plan(Role::Vip, &self.current).await;
    }

    /// What the scripts of the plan said last.
    async fn tell_scripts(&self, child: &Child) {
        for (command, up) in &self.scripts {
            child.order(&Order::Script { command: command.clone(), up: *up }, None).await;
        }
    }

    /// Sends the listeners of `edition` that are this child's, then its text.
    async fn send_plan(&self, role: Role, edition: &Edition) {
        let child = self.child(role);
        for want in sockets::wanted(&edition.plan, edition.node) {
            let for_role = if want.is_admin() { Role::Control } else { Role::Proxy };
            if for_role != role {
                continue;
            }
            let Endpoint { address, protocol } = want.endpoint;
            for (index, socket) in (0..).zip(self.sockets.of(want.endpoint)) {
                let order = match protocol {
                    Protocol::Tcp => Order::Listener { frontend: want.frontend.clone(), address, index },
                    Protocol::Udp => Order::Datagrams { address, index },
                };
                child.order(&order, Some(socket)).await;
            }
        }
        if role == Role::Proxy {
            edition.send_access_logs(child).await;
            edition.send_error_pages(child).await;
            if let Some(secrets) = &edition.secrets {
                self.send_files(secrets).await;
            }
        }
        // Each of them has the plan as operators have changed it.
        edition.send_overrides(child).await;
        match text_to_fd(&edition.text) {
            Ok(text) => {
                let plan = Order::Plan { generation: edition.generation, file: edition.file.clone() };
                child.order(&plan, Some(text.as_fd())).await;
            }
            Err(error) => error!("the plan cannot be sent to {}: {error}", role.name()),
        }
    }

    /// Tells vip whether the frontends of this node can serve.
    async fn tell_vip_of_frontends(&self) {
        for (_, frontend) in self.current.plan.frontends_on(self.current.node) {
            let name = frontend.name.to_string();
            self.child(Role::Vip).order(&Order::Frontend { name, state: self.frontends }, None).await;
        }
    }

    async fn frontends_are(&mut self, state: FrontendState) {
        if self.frontends != state {
            self.frontends = state;
            self.tell_vip_of_frontends().await;
        }
    }

    async fn tell_control(&self) {
        self.child(Role::Control).order(&Order::Node(self.status()), None).await;
    }

    /// The node as this supervisor sees it.
    fn status(&self) -> NodeStatus {
        let process = |child: &Child| ProcessStatus {
            role: child.role,
            pid: child.pid(),
            ready: child.generation == self.current.generation,
            restarts: child.restarts(),
        };
        NodeStatus {
            node: self.options.node.clone(),
            platform: self.current.plan.platform.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            file: self.current.file.clone(),
            generation: self.current.generation,
            pending: self.current.plan.pending.clone(),
            overrides: self.current.overrides.lines(),
            stopping: self.stopping.is_some(),
            standby: self.kept.standby().cloned(),
            processes: self.children.iter().map(process).collect(),
        }
    }

    async fn on_child(&mut self, from: FromChild) -> Result<(), String> {
        if from.birth != self.child(from.role).birth {
            return Ok(()); // the last words of one that is buried already
        }
        match from.event {
            Event::Said(report) => self.on_report(from.role, report).await,
            Event::Watched(connection) => {
                self.watchers.hold(connection);
                Ok(())
            }
            Event::Table(backend, Some(file)) => {
                self.tables.files.insert(backend, file);
                Ok(())
            }
            Event::Table(backend, None) => {
                self.tables.files.remove(&backend);
                Ok(())
            }
            Event::Pulse(socket) => {
                self.pulses.hold(socket);
                Ok(())
            }
            Event::Died(how) => {
                self.on_death(from.role, &how).await;
                Ok(())
            }
        }
    }

    async fn on_report(&mut self, role: Role, report: Report) -> Result<(), String> {
        match report {
            Report::Ready { generation } => {
                self.child_mut(role).generation = generation;
                if role == Role::Proxy && self.stopping.is_none() {
                    self.frontends_are(FrontendState::Up).await;
                }
                self.apply_on_ready(role, generation).await;
                if self.inherit_on_ready().await {
                    self.announce_if_ready();
                }
                self.tell_control().await;
            }
            Report::Refused { generation, why } => {
                if generation == self.current.generation {
                    return Err(format!("{} cannot work with {}: {why}", role.name(), self.current.file));
                }
                self.apply_on_refused(role, generation, &why).await;
            }
            Report::Vip { name, state } => {
                let before = self.vips.insert(name, state);
                if before == Some(VipState::Master) && state != VipState::Master {
                    self.child(Role::Proxy).order(&Order::Ebb, None).await;
                }
            }
            Report::Moved { vip, moved } => self.kept.moved(vip, moved),
            Report::Server { backend, server, up } => {
                let told = Order::Server { backend: backend.clone(), server: server.clone(), up };
                self.child(Role::Vip).order(&told, None).await; // for what the kernel carries
                self.health.insert((backend, server), up);
            }
            Report::Script { command, up } => {
                for role in [Role::Vip, Role::Proxy] {
                    self.child(role).order(&Order::Script { command: command.clone(), up }, None).await;
                }
                self.scripts.insert(command, up);
            }
            Report::Files { used, kept } => self.on_files(used, &kept),
            Report::Forgot { keys } => self.forgotten(Some(keys)).await,
            Report::Delivered => self.stop_on_delivered().await,
            Report::HandedOver => self.stop_on_handed_over().await,
            Report::Alive | Report::Watched | Report::Table { .. } | Report::Pulse => {} // dealt with in `child`
            Report::Stuck { why } => {
                warn!("{}: {why}; it is killed", role.name());
                self.child(role).kill();
            }
            Report::Drained { unfinished } => self.stop_on_drained(unfinished).await,
        }
        Ok(())
    }

    /// After a rotation: the same names, new files. Where one cannot be opened, lines go on to the old ones.
    async fn reopen_access_logs(&mut self) {
        match open_access_logs(&self.current.plan, Vec::new()) {
            Ok(logs) => {
                self.current.access_logs = logs;
                self.current.send_access_logs(self.child(Role::Proxy)).await;
                info!("access logs are opened anew");
            }
            Err(why) => error!("{why}; lines go on to where they went"),
        }
    }

    fn announce_if_ready(&mut self) {
        let all = self.children.iter().all(|child| child.generation == self.current.generation);
        if all && !self.announced_ready {
            self.announced_ready = true;
            self.notify.ready(&format!("plan {} in force", self.current.file));
            info!("node {} is ready", self.options.node);
        }
    }

    async fn on_death(&mut self, role: Role, how: &str) {
        let (now, pid) = (self.now(), self.child(role).pid());
        let child = self.child_mut(role);
        child.buried(now);
        if self.stopping.is_some() {
            self.stop_on_death(role).await;
            return;
        }
        if role == Role::Vip && self.is_yielding() {
            return self.yield_addresses().await;
        }
        let delay = self.schedule_respawn(role);
        if role == Role::Proxy {
            self.forgotten(None).await;
            let healing = delay.is_zero();
            self.frontends_are(if healing { FrontendState::Healing } else { FrontendState::Down }).await;
        }
        let pid = pid.map_or(String::new(), |pid| format!(" (pid {pid})"));
        let again =
            if delay.is_zero() { "at once".to_owned() } else { format!("in {} ms", delay.as_millis()) };
        warn!("{}{pid} {how}; it is started again {again}", role.name());
        if delay.is_zero() {
            self.respawn_due().await;
        }
        self.apply_on_death(role).await;
        self.tell_control().await;
    }

    fn schedule_respawn(&mut self, role: Role) -> Duration {
        let now = self.now();
        let child = self.child_mut(role);
        let delay = child.backoff.delay(child.born, now);
        self.respawn.push((role, now + delay));
        delay
    }

    async fn respawn_due(&mut self) {
        let now = self.now();
        while let Some(index) = self.respawn.iter().position(|(_, at)| *at <= now) {
            let (role, _) = self.respawn.swap_remove(index);
            self.start_child(role).await;
        }
    }

    /// When something is due without anybody saying so.
    fn next_deadline(&self) -> Option<Time> {
        let respawn = self.respawn.iter().map(|(_, at)| *at);
        let applying = self.applying.as_ref().map(|applying| applying.deadline);
        let stopping = self.stopping.as_ref().map(|stopping| stopping.deadline);
        let upgrading = self.upgrading.as_ref().map(|upgrading| upgrading.deadline);
        let inheriting = self.inheriting.as_ref().map(|inheriting| inheriting.deadline);
        let all = respawn.chain(applying).chain(stopping).chain(upgrading).chain(inheriting);
        all.filter(|at| *at < Time::MAX).min()
    }
}

/// A supervisor with what it listens to.
struct Running {
    supervisor: Supervisor,
    from_children: mpsc::UnboundedReceiver<FromChild>,
    from_kin: mpsc::UnboundedReceiver<FromKin>,
    asks: mpsc::Receiver<Asked>,
}

impl Running {
    /// Until the node has stopped.
    async fn serve(mut self) -> Result<(), String> {
        let ended = self.obey().await;
        let supervisor = &mut self.supervisor;
        match (ended, supervisor.failed.take()) {
            (Err(why), _) => {
                supervisor.step_back(&why).await;
                Err(why)
            }
            (Ok(()), Some(why)) => Err(why),
            (Ok(()), None) => {
                info!("node {} has stopped", supervisor.options.node);
                Ok(())
            }
        }
    }

    async fn obey(&mut self) -> Result<(), String> {
        let listen = |kind| signal(kind).map_err(|error| format!("cannot catch signals: {error}"));
        let mut terminate = listen(SignalKind::terminate())?;
        let mut interrupt = listen(SignalKind::interrupt())?;
        let mut hangup = listen(SignalKind::hangup())?;
        let mut upgrade = listen(SignalKind::user_defined2())?;
        let mut reopen = listen(SignalKind::user_defined1())?;
        let watchdog = self.supervisor.notify.watchdog.unwrap_or(Duration::from_secs(3600));
        let mut watchdog = tokio::time::interval(watchdog);
        let mut look = tokio::time::interval(files::EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);

        let supervisor = &mut self.supervisor;
        while !supervisor.has_stopped() {
            let now = supervisor.now();
            let due = supervisor.next_deadline().map(|at| at.since(now));
            tokio::select! {
                Some(from) = self.from_children.recv() => supervisor.on_child(from).await?,
                Some(from) = self.from_kin.recv() => supervisor.on_kin(from).await,
                _ = terminate.recv() => supervisor.stop("SIGTERM").await,
                _ = interrupt.recv() => supervisor.stop("SIGINT").await,
                _ = hangup.recv() => supervisor.reload().await,
                _ = reopen.recv() => supervisor.reopen_access_logs().await,
                _ = upgrade.recv() => supervisor.launch(),
                Some((ask, fd, channel)) = self.asks.recv() => supervisor.on_ask(ask, fd, channel).await,
                _ = look.tick() => supervisor.follow_files().await,
                _ = watchdog.tick() => supervisor.notify.alive(),
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {
                    supervisor.respawn_due().await;
                    supervisor.apply_on_time().await;
                    supervisor.stop_on_time().await;
                    supervisor.upgrade_on_time().await;
                    supervisor.inherit_on_time().await;
                }
            }
        }
        Ok(())
    }
}

/// Takes questions from root's commands; each has a second to be asked.
async fn accept_asks(listener: Arc<Listener>, asked: mpsc::Sender<Asked>) {
    loop {
        let Ok(channel) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(50)).await; // out of descriptors: let some come back
            continue;
        };
        let asked = asked.clone();
        tokio::spawn(async move {
            let ask = tokio::time::timeout(Duration::from_secs(1), channel.recv::<Ask>()).await;
            if let Ok(Ok(Some((ask, fd)))) = ask {
                let _ = asked.send((ask, fd, channel)).await;
            }
        });
    }
}

impl Supervisor {
    async fn on_kin(&mut self, from: FromKin) {
        match from.what {
            Kin::Heir(said) => self.on_heir(from.id, said).await,
            Kin::Predecessor(said) => self.on_predecessor(said).await,
            Kin::Ended(how) => self.on_launch_ended(from.id, &how).await,
        }
    }

    async fn on_ask(&mut self, ask: Ask, fd: Option<OwnedFd>, channel: Channel) {
        match ask {
            Ask::Status => answer(&channel, &Answer::Status(self.status())).await,
            Ask::Command { line } => self.command(&line, channel).await,
            Ask::Table { backend } => self.on_table(&backend, channel).await,
            Ask::Forget { .. } => self.on_forget(ask, channel).await,
            Ask::Standby { on, node, by } => self.on_standby(on, node, &by, channel).await,
            Ask::Move { vip, node, by } => self.on_move(vip, &node, &by, channel).await,
            Ask::Upgrade { node, version } => self.hand_over_to(&node, &version, channel).await,
            Ask::Apply { file } => {
                let text = fd.map(|fd| relais_ipc::channel::fd_to_text(fd, MAX_PLAN));
                match text {
                    Some(Ok(text)) => self.apply(file, text, Some(channel)).await,
                    Some(Err(error)) => {
                        answer(&channel, &Answer::Refused { why: format!("{file} cannot be read: {error}") })
                            .await;
                    }
                    None => answer(&channel, &Answer::Refused { why: "no plan came along".to_owned() }).await,
                }
            }
        }
    }
}

/// Answers a command, which may have gone away.
async fn answer(channel: &Channel, answer: &Answer) {
    answer_with(channel, answer, None).await;
}

/// The same, with a descriptor.
async fn answer_with(channel: &Channel, answer: &Answer, fd: Option<BorrowedFd<'_>>) {
    let _ = tokio::time::timeout(Duration::from_secs(1), channel.send(answer, fd)).await;
}

/// The text of a plan file.
pub(crate) fn read_plan(path: &Path) -> Result<String, String> {
    use std::io::Read;
    let shown = path.display();
    let file = File::open(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let mut text = String::new();
    match file.take(MAX_PLAN + 1).read_to_string(&mut text) {
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
        Ok(length) if length as u64 > MAX_PLAN => Err(format!("{shown} is longer than {MAX_PLAN} bytes")),
        Ok(_) => Ok(text),
    }
}

/// Makes the run directory and takes its lock.
fn prepare_run_dir(dir: &Path) -> Result<File, String> {
    let failed = |error: io::Error| format!("the run directory {} cannot be used: {error}", dir.display());
    fs::create_dir_all(dir).map_err(failed)?;
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).map_err(failed)?;
    let path = dir.join("relais.lock");
    let lock = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(fs::TryLockError::WouldBlock) => Err(format!(
            "another relais runs in {}: stop it, or give this one its own --run-dir",
            dir.display()
        )),
        Err(fs::TryLockError::Error(error)) => Err(failed(error)),
    }
}

/// The sockets on which the children answer with their status: root's and the unprivileged user's.
fn status_sockets(dir: &Path, user: Option<User>) -> Result<BTreeMap<&'static str, OwnedFd>, String> {
    let bind = |role: Role| -> io::Result<OwnedFd> {
        let path = dir.join(format!("{}.sock", role.name()));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixListener::bind(&path)?;
        socket.set_nonblocking(true)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        if let Some(user) = user {
            std::os::unix::fs::chown(&path, Some(user.uid), Some(user.gid))?;
        }
        Ok(socket.into())
    };
    let bind = |role: Role| {
        bind(role)
            .map(|socket| (role.name(), socket))
            .map_err(|error| format!("cannot listen in {}: {error}", dir.display()))
    };
    [Role::Proxy, Role::Vip].into_iter().map(bind).collect()
}

/// As many descriptors as the machine lets us have: each connection costs two.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!("the limit of open files stays at {:?}: {error}", limit.current);
    }
}
