//! The main thread: obeys the supervisor, keeps what is shared, runs the checks, and starts the workers.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relais_config::overrides::Overrides;
use relais_config::plan::{self, Admin, BackendId, InitState, Plan};
use relais_ipc::channel::{Channel, fd_to_text};
use relais_ipc::files::Files;
use relais_ipc::pulse::{self, Pulse};
use relais_ipc::{Endpoint, Order, Protocol, Report, status};
use tokio::net::UnixListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::access::Sinks;
use crate::checks::{Change, Checks};
use crate::choose::Common;
use crate::counters::Registry;
use crate::limits;
use crate::load::{Busy, load_of};
use crate::peers::{self, Checked, Peers};
use crate::persist::Sticks;
use crate::rules::{self, Owner, Rules};
use crate::shield::Guard;
use crate::status::document;
use crate::stick::keep::Keeper;
use crate::stick::{self, Sticky};
use crate::tls::{self, Secret};
use crate::traffic;
use crate::worker::{self, Command, Setup, Signs};

/// How long a stopping proxy waits for open requests if the supervisor died before it sent a plan.
const DRAIN_WITHOUT_PLAN: Duration = Duration::from_secs(30);

/// What the status document is made from.
#[derive(Default)]
struct View {
    setup: RefCell<Option<Arc<Setup>>>,
    generation: Cell<u64>,
    draining: Cell<bool>,
    workers: Cell<u16>,
}

/// Says that a worker has ended, by a panic too.
struct LastWords(usize, UnboundedSender<usize>);

impl Drop for LastWords {
    fn drop(&mut self) {
        let _ = self.1.send(self.0);
    }
}

/// The files of somebody's rules.
struct Watched {
    owner: Owner,
    plan: Vec<plan::Rule>,
    stamps: Vec<(rules::Stamp, PathBuf)>,
    rules: Option<Arc<Rules>>,
}

/// The proxy process.
struct Process {
    channel: Rc<Channel>,
    node: String,
    workers: Vec<(UnboundedSender<Command>, JoinHandle<()>)>,
    registry: Registry,
    /// Listeners that came and wait for the plan that uses them.
    pending: HashMap<Endpoint, HashMap<u16, OwnedFd>>,
    /// What the workers listen on.
    listening: Vec<Endpoint>,
    drain: Duration,
    view: Rc<View>,
    checks: Checks,
    /// The plan in force.
    plan: Option<Plan>,
    /// Certificates and keys that the supervisor read for us.
    files: Files,
    /// Those of them that are in force.
    good: Files,
    tickets: Secret,
    logs: Sinks,
    /// Operators' commands that came for the next plan.
    overrides: Overrides,
    /// Error pages that came, by file.
    pages: HashMap<String, Arc<str>>,
    /// Workers that end without being told tell it here.
    ended: (UnboundedSender<usize>, UnboundedReceiver<usize>),
    /// When a drain ends at the latest.
    deadline: Option<Instant>,
    orphan: bool,
    /// The workers' signs of life.
    signs: Rc<RefCell<Vec<Arc<Signs>>>>,
    /// Files that rules read.
    watched: Vec<Watched>,
    /// Too few descriptors, and connections wanted, as last said.
    short: Option<(u64, u64)>,
    /// Another generation accepts on the same sockets.
    shared: bool,
    answering: Option<tokio::task::JoinHandle<()>>,
    /// There are waiting rooms, whose load is measured.
    guards: bool,
    peers: Rc<Peers>,
    keeper: Keeper,
    /// There are tables, in which something may be over.
    tables: bool,
    busy: Busy,
}

/// Obeys the orders on `channel` until the end.
///
/// # Errors
/// If a thread cannot be started, or the channel speaks another language.
pub(crate) async fn run(channel: Channel) -> io::Result<()> {
    let (changes, mut changed) = unbounded_channel();
    let (checked, mut heard) = unbounded_channel();
    let peers = Rc::new(Peers::new(checked));
    let mut process = Process {
        channel: Rc::new(channel),
        node: String::new(),
        workers: Vec::new(),
        registry: Registry::new(1),
        pending: HashMap::new(),
        listening: Vec::new(),
        drain: DRAIN_WITHOUT_PLAN,
        view: Rc::default(),
        checks: Checks::new(changes, peers.clone()),
        plan: None,
        files: Files::default(),
        good: Files::default(),
        tickets: Secret::random().map_err(io::Error::other)?,
        logs: Sinks::default(),
        overrides: Overrides::default(),
        pages: HashMap::new(),
        ended: unbounded_channel(),
        deadline: None,
        orphan: false,
        signs: Rc::default(),
        watched: Vec::new(),
        short: None,
        shared: false,
        answering: None,
        guards: false,
        peers,
        keeper: Keeper::default(),
        tables: false,
        busy: Busy::default(),
    };
    let beating = tokio::task::spawn_local(beat(process.channel.clone(), process.signs.clone()));
    let view = process.view.clone();
    let watching = tokio::task::spawn_local(traffic::watch(move || view.setup.borrow().clone()));
    let result = process.obey(&mut changed, &mut heard).await;
    beating.abort();
    watching.abort();
    process.end();
    result
}

/// Tells the supervisor that this thread turns, and which worker does not: a hung one holds its connections and its
/// share of new ones for ever, and ends only with the process.
async fn beat(channel: Rc<Channel>, workers: Rc<RefCell<Vec<Arc<Signs>>>>) {
    let mut watch: Vec<(u64, Pulse)> = Vec::new();
    let mut tick = tokio::time::interval(pulse::EVERY);
    tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let mut report = Report::Alive;
        for (index, signs) in workers.borrow().iter().enumerate() {
            if watch.len() == index {
                watch.push((0, Pulse::default()));
            }
            let (seen, pulse) = &mut watch[index];
            let beats = signs.beats.load(Relaxed);
            if beats != std::mem::replace(seen, beats) {
                pulse.beat();
            }
            if let Some(what) = pulse.tick(|| pulse::Stat::of_thread(signs.thread.load(Relaxed))) {
                report = Report::Stuck { why: format!("worker {index} {what}") };
            }
        }
        if channel.send(&report, None).await.is_err() {
            return; // the supervisor is gone, which the main loop hears too
        }
    }
}

impl Process {
    async fn obey(
        &mut self,
        changed: &mut UnboundedReceiver<Change>,
        heard: &mut UnboundedReceiver<Checked>,
    ) -> io::Result<()> {
        let mut files = tokio::time::interval(limits::FILES_EVERY);
        files.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut load = tokio::time::interval(limits::LOAD_EVERY);
        load.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut changes = tokio::time::interval(limits::CHANGES_EVERY);
        changes.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut daily = tokio::time::interval(limits::REMARKS_EVERY);
        daily.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let draining = self.deadline.is_some();
            tokio::select! {
                order = self.channel.recv::<Order>(), if !self.orphan => match order? {
                    Some((Order::Stop, _)) => return Ok(()),
                    Some((order, fd)) => self.order(order, fd).await?,
                    None => {
                        tracing::warn!("the supervisor is gone: finishing what is open, then ending");
                        self.orphan = true;
                        if self.shared {
                            self.leave_the_listeners();
                        }
                        self.start_drain(self.drain);
                    }
                },
                Some(change) = changed.recv() => self.publish(&change).await?,
                Some(checked) = heard.recv() => self.checks.heard(&checked),
                Some(index) = self.ended.1.recv() => {
                    // Its connections are lost; the supervisor's next proxy serves what waits in its queues.
                    return Err(io::Error::other(format!("worker {index} ended unexpectedly")));
                }
                _ = daily.tick() => {
                    if let Some(plan) = &self.plan {
                        self.remark(plan);
                    }
                }
                _ = changes.tick(), if self.tables => {
                    if let Some(setup) = &*self.view.setup.borrow() {
                        self.peers.tell_rates();
                        self.keeper.turn(setup, &self.peers);
                    }
                }
                _ = load.tick(), if self.guards => self.look_at_load(),
                _ = files.tick(), if !self.watched.is_empty() => self.look_at_files(),
                () = tokio::time::sleep(Duration::from_millis(10)), if draining => {
                    if let Some(unfinished) = self.drained() {
                        self.report(&Report::Drained { unfinished }).await?;
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn report(&self, report: &Report) -> io::Result<()> {
        if self.orphan { Ok(()) } else { self.channel.send(report, None).await }
    }

    async fn order(&mut self, order: Order, fd: Option<OwnedFd>) -> io::Result<()> {
        let missing = || io::Error::other("an order came without its descriptor");
        match order {
            Order::Hello { node, workers, .. } => {
                self.node = node;
                self.start_workers(workers.clamp(1, 256))?;
            }
            Order::Files { renew } => {
                let files = Files::from_fd(fd.ok_or_else(missing)?)?;
                self.files = files;
                if renew {
                    let kept = self.plan.clone().map_or_else(Vec::new, |plan| self.keep_good(&plan, true));
                    let renewed = self.renew_certificates().await;
                    let used = renewed.is_ok();
                    if let Err(why) = renewed {
                        self.files = self.good.clone();
                        tracing::error!("files changed, but what was read before stays in use: {why}");
                    }
                    self.report(&Report::Files { used, kept }).await?;
                }
            }
            Order::Status => self.serve_status(fd.ok_or_else(missing)?)?,
            Order::ErrorPage { path } => {
                let text = fd_to_text(fd.ok_or_else(missing)?, relais_config::plan::ERROR_PAGE_BYTES)?;
                self.pages.insert(path, text.into());
            }
            Order::AccessLog { path } => self.logs.opened(path, File::from(fd.ok_or_else(missing)?)),
            Order::Server { backend, server, up } => {
                self.registry.remembered.insert((backend, server), up);
            }
            Order::Table { backend } => self.keeper.left(backend, fd.ok_or_else(missing)?),
            Order::Forget { backend, server, key } => {
                let setup = self.view.setup.borrow().clone();
                let forget =
                    |setup: &Arc<Setup>| stick::forget(setup, &backend, server.as_deref(), key.as_deref());
                let keys = setup.as_ref().map_or(0, forget);
                self.report(&Report::Forgot { keys }).await?;
            }
            Order::Listener { address, index, .. } => {
                self.wait_for_plan(Endpoint::tcp(address), index, fd.ok_or_else(missing)?);
            }
            Order::Datagrams { address, index } => {
                self.wait_for_plan(Endpoint::udp(address), index, fd.ok_or_else(missing)?);
            }
            Order::Overrides => {
                let text = fd_to_text(fd.ok_or_else(missing)?, limits::PLAN_BYTES)?;
                self.overrides = Overrides::read(&text).0; // the supervisor has said what is wrong with them
            }
            Order::Plan { generation, file } => {
                let text = fd_to_text(fd.ok_or_else(missing)?, limits::PLAN_BYTES);
                let report = match self.put_in_force(&file, text).await {
                    Ok(()) => {
                        self.view.generation.set(generation);
                        Report::Ready { generation }
                    }
                    Err(why) => Report::Refused { generation, why },
                };
                self.pending.clear();
                self.report(&report).await?;
            }
            Order::Ebb => {
                for (commands, _) in &self.workers {
                    let _ = commands.send(Command::Ebb);
                }
            }
            Order::Drain { limit_ms } => self.start_drain(Duration::from_millis(limit_ms)),
            Order::Shared { shared } => self.shared = shared,
            Order::Script { command, up } => self.checks.script(&command, up),
            Order::Retire { limit_ms } => {
                self.leave_the_listeners();
                self.start_drain(Duration::from_millis(limit_ms));
            }
            Order::Frontend { .. }
            | Order::Resume { .. }
            | Order::Node(_)
            | Order::HandOver
            | Order::Deliver
            | Order::Standby { .. }
            | Order::Move { .. }
            | Order::Moved { .. }
            | Order::Stop => {
                tracing::debug!("an order that is not for the proxy: {order:?}");
            }
        }
        Ok(())
    }

    fn wait_for_plan(&mut self, endpoint: Endpoint, worker: u16, socket: OwnedFd) {
        self.pending.entry(endpoint).or_default().insert(worker, socket);
    }

    fn start_workers(&mut self, count: u16) -> io::Result<()> {
        self.registry = Registry::new(usize::from(count));
        self.view.workers.set(count);
        for index in 0..usize::from(count) {
            let (commands, inbox) = unbounded_channel();
            let gates =
                [&self.registry.gate, &self.registry.compressors, &self.registry.tarpits].map(Arc::clone);
            let signs = Arc::new(Signs::default());
            self.signs.borrow_mut().push(signs.clone());
            let last_words = LastWords(index, self.ended.0.clone());
            let thread = std::thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
                let _last_words = last_words;
                if let Err(error) = worker::run(index, gates, &signs, inbox) {
                    tracing::error!("worker {index} cannot run: {error}");
                }
            })?;
            self.workers.push((commands, thread));
        }
        Ok(())
    }

    fn serve_status(&mut self, socket: OwnedFd) -> io::Result<()> {
        let listener = std::os::unix::net::UnixListener::from(socket);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (view, peers) = (self.view.clone(), self.peers.clone());
        self.answering = Some(tokio::task::spawn_local(status::serve(listener, move || {
            let setup = view.setup.borrow().clone();
            let document =
                document(setup.as_deref(), view.generation.get(), view.draining.get(), view.workers.get());
            status::ProxyStatus { peers: peers.status(), ..document }
        })));
        Ok(())
    }

    /// Puts a plan in force in every worker; on an error nothing has changed.
    async fn put_in_force(&mut self, file: &str, text: io::Result<String>) -> Result<(), String> {
        let text = text.map_err(|error| format!("the plan cannot be read: {error}"))?;
        let mut plan = relais_config::parse(file, &text).map_err(|rejected| rejected.to_string())?.plan;
        std::mem::take(&mut self.overrides).apply(&mut plan);
        if plan.needs_client_source() && !crate::source::is_allowed() {
            return Err("`source client` needs CAP_NET_RAW: start relais as root; if it is, its proxy gave the privilege up \
                        when it was started with another plan: upgrade (SIGUSR2 to relais) or restart"
                .to_owned());
        }
        let files = plan.error_page_files();
        if let Some(path) = files.iter().find(|path| !self.pages.contains_key(&****path)) {
            return Err(format!("no descriptor came for the error page {path}"));
        }
        self.pages.retain(|path, _| files.iter().any(|file| ***file == **path));
        self.keep_good(&plan, false);
        let peers = peers::Settings::new(&plan, &self.node, &self.files)?;
        self.registry.of_cluster = peers.as_ref().and_then(peers::Settings::hashes);
        let setup = self.set_up(&plan)?;
        let listeners = self.new_listeners(&setup)?;

        for (plan, shared) in &setup.fronts {
            shared.gate.set_limit(plan.max_connections);
            for bind in &plan.binds {
                if let (Some(most), Some(door)) = (bind.max_connections, setup.doors.get(&bind.address)) {
                    door.set_limit(most);
                }
            }
        }
        self.limit_connections(&plan, &setup);
        self.registry.disable_servers();
        let full: Vec<u32> =
            (0..).take(setup.backs.len()).map(|id| plan.full_connections(BackendId(id))).collect();
        for (full, (plan, shared, servers)) in full.into_iter().zip(&setup.backs) {
            let init = plan.check.as_ref().map(|check| check.init);
            let begins_down = matches!(init, Some(InitState::Down | InitState::FullyDown));
            for (plan, server) in plan.servers.iter().zip(servers) {
                server.set_limit(plan.max_connections.unwrap_or(u32::MAX), plan.min_connections.unwrap_or(0));
                server.backup.store(plan.backup, Relaxed);
                server.enabled.store(plan.weight > 0, Relaxed);
                let is_new = server.unknown.swap(false, Relaxed) && begins_down;
                if is_new || (self.plan.is_none() && plan.admin == Admin::Down) {
                    server.up.store(false, Relaxed); // before anybody asks for it
                }
            }
            shared.all_backups.store(plan.all_backups, Relaxed);
            shared.full.store(full, Relaxed);
            shared.panic.store(plan.panic.unwrap_or(0), Relaxed);
            shared.set_breaker(plan.breaker);
            crate::counters::lock(&shared.servers).clone_from(servers);
            shared.change();
            shared.dispatch();
        }
        self.drain = plan.drain;
        let setup = Arc::new(setup);
        let tables = self.keeper.set(&setup);
        self.give_to_workers(setup.clone(), listeners).await?;
        for (backend, file) in tables {
            let report = Report::Table { backend: backend.to_string() };
            let _ = self.channel.send(&report, file.as_ref().map(std::os::fd::AsFd::as_fd)).await;
        }
        self.peers.set(peers, &setup, self.registry.shared_rates());
        self.logs.retain(&plan.logs);
        self.good = self.files.clone();
        self.remark(&plan);
        self.plan = Some(plan);
        Ok(())
    }

    /// Has every worker work with it, and the checks.
    async fn give_to_workers(
        &mut self,
        setup: Arc<Setup>,
        mut listeners: Vec<Vec<(Endpoint, OwnedFd)>>,
    ) -> Result<(), String> {
        listeners.resize_with(self.workers.len(), Vec::new);
        let mut taken = Vec::new();
        for (index, (commands, _)) in self.workers.iter().enumerate() {
            let (done, wait) = oneshot::channel();
            let listeners = std::mem::take(&mut listeners[index]);
            let _ = commands.send(Command::Setup { setup: setup.clone(), listeners, done });
            taken.push(wait);
        }
        for (index, wait) in taken.into_iter().enumerate() {
            match tokio::time::timeout(limits::PLAN_TAKES, wait).await {
                Ok(Ok(())) => {}
                _ => return Err(format!("worker {index} did not take the plan; restart the proxy")),
            }
        }
        self.listening = setup.listens.keys().copied().collect();
        let backs = setup.backs.iter().map(|(plan, shared, servers)| (plan, shared, servers.as_slice()));
        self.checks.set(backs, &setup.connects, &self.files, &self.node);
        self.watch_files(&setup);
        self.guards = setup.shields.iter().any(Option::is_some);
        let has_tables = setup.sticky.iter().any(Option::is_some);
        self.tables = has_tables || !self.registry.shared_rates().is_empty();
        self.view.setup.replace(Some(setup));
        Ok(())
    }

    /// Sets how many connections the process takes: what the plan says, but no more than there are descriptors for.
    fn limit_connections(&mut self, plan: &Plan, setup: &Setup) {
        let fronts = setup.fronts.iter().map(|(front, _)| u64::from(front.max_connections)).sum::<u64>();
        let wanted = plan.max_connections.map_or(fronts, |most| fronts.min(u64::from(most)));
        let servers: usize = setup.backs.iter().map(|(back, ..)| back.servers.len()).sum();
        let per_worker = limits::DESCRIPTORS_PER_WORKER + setup.listens.len() as u64;
        let others = limits::DESCRIPTORS + servers as u64 + self.workers.len() as u64 * per_worker;
        let descriptors =
            rustix::process::getrlimit(rustix::process::Resource::Nofile).current.unwrap_or(u64::MAX);
        let room = (descriptors.saturating_sub(others) / 2).max(1);
        let limit = room.min(plan.max_connections.map_or(u64::MAX, u64::from));
        self.registry.gate.set_limit(u32::try_from(limit).unwrap_or(u32::MAX));
        let short = (room < wanted).then_some((descriptors, wanted));
        if short.is_some() && short != self.short {
            tracing::warn!(
                "the limit of open files is {descriptors}: at most {room} connections at a time, where the plan \
                 allows {wanted}; raise LimitNOFILE= (ulimit -n) to {} or lower max-connections",
                wanted * 2 + others
            );
        }
        self.short = short;
    }

    /// Has new connections use the files as they are now; on an error nothing has changed.
    async fn renew_certificates(&mut self) -> Result<(), String> {
        let Some(plan) = self.plan.clone() else { return Ok(()) };
        let setup = self.set_up(&plan)?;
        self.give_to_workers(Arc::new(setup), Vec::new()).await?;
        tracing::info!("certificates were read anew");
        self.good = self.files.clone();
        self.remark(&plan);
        Ok(())
    }

    /// One bad file must not keep back the others: what was good before takes its place, and without that a file of a
    /// directory is left out. Files that the plan names by themselves only if `named`: a plan that names a bad
    /// one is refused. The paths that stay with what was before.
    fn keep_good(&mut self, plan: &Plan, named: bool) -> Vec<String> {
        let Some(node) = plan.node(&self.node) else { return Vec::new() };
        let mut kept = Vec::new();
        for bad in tls::inspect::faults(plan, node, &self.files) {
            if !named && bad.directory.is_none() {
                continue;
            }
            let why = bad.message;
            if self.files.take_from(&self.good, &bad.path) {
                tracing::error!("files changed, but what was read before stays in use: {why}");
                kept.push(bad.path);
            } else if bad.directory.is_some() {
                tracing::error!("a certificate is left out until its file is good: {why}");
                self.files.remove(&bad.path);
            }
        }
        kept
    }

    /// Says which certificates will soon be of no use, and what else is wrong with them.
    fn remark(&self, plan: &Plan) {
        let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        let said = tls::inspect::look(plan, plan.node(&self.node), &self.files, now.unwrap_or(i64::MAX));
        for remark in said.into_iter().filter(|remark| !remark.fault) {
            tracing::warn!("{}: {}", remark.message, remark.help);
        }
    }

    /// This node's part of a plan.
    fn set_up(&mut self, plan: &Plan) -> Result<Setup, String> {
        let node = plan.node(&self.node).ok_or_else(|| format!("the plan has no node {}", self.node))?;
        let mut setup =
            Setup { logs: self.logs.set(&plan.logs)?, pages: self.pages.clone(), ..Setup::default() };
        for (_, front) in plan.frontends_on(node) {
            let carried = front.mode != plan::Mode::Forward; // the kernel's: nothing comes here
            for bind in plan.binds_on(node, front).filter(|_| carried) {
                let protocol = if front.mode == plan::Mode::Udp { Protocol::Udp } else { Protocol::Tcp };
                setup.listens.insert(Endpoint { address: bind.address, protocol }, setup.fronts.len());
                if let Some(tls) = &bind.tls {
                    let accepts = tls::accepts(tls, &self.files, &self.tickets);
                    let why = |why| format!("TLS on {} of frontend {}: {why}", bind.address, front.name);
                    setup.tls.insert(bind.address, accepts.map_err(why)?);
                }
                if bind.max_connections.is_some() {
                    setup.doors.insert(bind.address, self.registry.door(bind.address));
                }
                if let Some(from) = &bind.accept_proxy {
                    setup.proxied.insert(bind.address, from.clone());
                }
            }
            setup.fronts.push((front.clone(), self.registry.front(&front.name)));
        }
        for back in &plan.backends {
            let connects = back.tls.as_ref().map(|tls| tls::connects(tls, &self.files)).transpose();
            setup.connects.push(connects.map_err(|why| format!("TLS of backend {}: {why}", back.name))?);
            let before = self.view.setup.borrow().clone();
            let before = before.iter().flat_map(|setup| setup.backs.iter().zip(&setup.common));
            let before =
                before.map(|((plan, ..), common)| (plan, common)).find(|(plan, _)| plan.name == back.name);
            setup.common.push(Common::renew(before, back));
            let sticky = |plan: &plan::Stick| Sticky {
                plan: plan.clone(),
                table: self.registry.table(&back.name, plan),
            };
            setup.sticky.push(back.stick.as_ref().map(sticky));
            setup.sticks.push(Sticks::new(back, &self.files)?.map(Arc::new));
            let servers = back.servers.iter().map(|s| self.registry.server(&back.name, &s.name)).collect();
            setup.backs.push((back.clone(), self.registry.back(&back.name), servers));
        }
        setup.certificates = tls::inspect::presented(plan, node, &self.files);
        let names: Vec<Arc<str>> = plan.backends.iter().map(|backend| backend.name.clone()).collect();
        for (front, _) in &setup.fronts {
            let owner = Owner::Frontend(front.name.clone());
            setup.rules.push(Rules::new(&owner, &front.rules, &names, &mut self.registry)?);
        }
        for (front, _) in &setup.fronts {
            setup.shields.push(self.guard(front)?);
        }
        for (back, ..) in &setup.backs {
            let owner = Owner::Backend(back.name.clone());
            setup.back_rules.push(Rules::new(&owner, &back.rules, &names, &mut self.registry)?);
        }
        Ok(setup)
    }

    /// A frontend's waiting room, if it has one.
    fn guard(&mut self, front: &plan::Frontend) -> Result<Option<Arc<Guard>>, String> {
        let Some(shield) = &front.shield else { return Ok(None) };
        let now_ms = wall_ms();
        let line = self.registry.line(&front.name, now_ms);
        let wrong = |why| format!("the shield of frontend {}: {why}", front.name);
        let secret = match &shield.key {
            Some(path) => self.files.get(path).map_err(wrong)?.trim_ascii(),
            None => self.tickets.bytes(),
        };
        if secret.len() < SHORTEST_KEY {
            return Err(wrong(format!(
                "the cluster's key has at least {SHORTEST_KEY} characters; make one with `openssl rand -base64 48`"
            )));
        }
        Guard::new(&front.name, shield, secret, line, now_ms).map(Arc::new).map(Some).map_err(wrong)
    }

    /// Measures the load before every waiting room.
    fn look_at_load(&mut self) {
        let Some(setup) = self.view.setup.borrow().clone() else { return };
        let cpu = self.busy.percent(&self.signs.borrow());
        let now_ms = wall_ms();
        for ((front, _), guard) in setup.fronts.iter().zip(&setup.shields) {
            let Some(guard) = guard else { continue };
            let (queued, saturation) = load_of(&setup, front);
            match guard.line.load(guard.judge(queued, saturation, cpu), now_ms) {
                Some(true) => tracing::warn!(
                    "frontend {}: too much load ({queued} requests wait, servers {saturation} % full, workers {cpu} % \
                     busy): newcomers wait outside",
                    front.name
                ),
                Some(false) => tracing::info!("frontend {}: nobody waits outside any more", front.name),
                None => {}
            }
        }
    }

    /// Notes the state of the files that rules read.
    fn watch_files(&mut self, setup: &Setup) {
        let watch = |owner: Owner, plan: &[plan::Rule], rules: &Option<Arc<Rules>>| {
            let files = rules::files(plan).into_iter();
            let stamps = files.map(|file| (rules::stamp(&file), file)).collect();
            Watched { owner, plan: plan.to_vec(), stamps, rules: rules.clone() }
        };
        let fronts = setup.fronts.iter().zip(&setup.rules);
        let fronts =
            fronts.map(|((front, _), rules)| watch(Owner::Frontend(front.name.clone()), &front.rules, rules));
        let backs = setup.backs.iter().zip(&setup.back_rules);
        let backs =
            backs.map(|((back, ..), rules)| watch(Owner::Backend(back.name.clone()), &back.rules, rules));
        self.watched = fronts.chain(backs).filter(|watched| !watched.stamps.is_empty()).collect();
    }

    /// Reads again what has changed of the files that rules read. What is wrong in them changes nothing.
    fn look_at_files(&mut self) {
        let Some(setup) = self.view.setup.borrow().clone() else { return };
        let names: Vec<Arc<str>> = setup.backs.iter().map(|(back, ..)| back.name.clone()).collect();
        for watched in &mut self.watched {
            let mut changed = false;
            for (before, file) in &mut watched.stamps {
                let now = rules::stamp(file);
                changed |= now != *before;
                *before = now;
            }
            if !changed {
                continue;
            }
            let owner = &watched.owner;
            match Rules::new(owner, &watched.plan, &names, &mut self.registry) {
                Ok(rules) => {
                    watched.rules.clone_from(&rules);
                    for (commands, _) in &self.workers {
                        let _ = commands.send(Command::Rules { owner: owner.clone(), rules: rules.clone() });
                    }
                    tracing::info!("{owner}: the files of its rules have changed and are in force");
                }
                Err(why) => tracing::warn!("{owner}: its rules stay as they were: {why}"),
            }
        }
    }

    /// The listeners that came for this plan, by worker.
    fn new_listeners(&mut self, setup: &Setup) -> Result<Vec<Vec<(Endpoint, OwnedFd)>>, String> {
        let workers = self.workers.len();
        let mut by_worker: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        for endpoint in setup.listens.keys() {
            let Some(mut sockets) = self.pending.remove(endpoint) else {
                if self.listening.contains(endpoint) {
                    continue;
                }
                return Err(format!("no listening socket came for {endpoint}"));
            };
            for (index, listeners) in by_worker.iter_mut().enumerate() {
                let socket = sockets.remove(&(index as u16));
                listeners.push((
                    *endpoint,
                    socket.ok_or_else(|| format!("worker {index} has no listener for {endpoint}"))?,
                ));
            }
        }
        Ok(by_worker)
    }

    /// A server changed: those who wait for it, or for a place, must hear.
    async fn publish(&mut self, change: &Change) -> io::Result<()> {
        if change.up {
            change.backend.dispatch();
        } else {
            for (commands, _) in &self.workers {
                let _ = commands.send(Command::Down(change.server.id));
            }
        }
        let (backend, server) = (change.server.backend.to_string(), change.server.name.to_string());
        self.report(&Report::Server { backend, server, up: change.up }).await
    }

    /// Another generation accepts on the same sockets: what waits in their queues is its.
    fn leave_the_listeners(&mut self) {
        self.pending.clear();
        for (commands, _) in &self.workers {
            let _ = commands.send(Command::Leave);
        }
        self.peers.stop();
        if let Some(answering) = self.answering.take() {
            answering.abort();
        }
    }

    fn start_drain(&mut self, limit: Duration) {
        self.view.draining.set(true);
        let deadline = Instant::now() + limit;
        self.deadline = Some(self.deadline.map_or(deadline, |earlier| earlier.min(deadline)));
        for (commands, _) in &self.workers {
            let _ = commands.send(Command::Drain);
        }
    }

    /// How many connections a drain leaves unfinished, once it is over.
    fn drained(&self) -> Option<u32> {
        let open = self.registry.open();
        let late = self.deadline.is_some_and(|deadline| Instant::now() >= deadline);
        (open == 0 || late).then_some(open)
    }

    /// Stops the workers and sees the access log written.
    fn end(&mut self) {
        for (commands, _) in &self.workers {
            let (done, _) = oneshot::channel();
            let _ = commands.send(Command::Stop(done));
        }
        for (commands, thread) in self.workers.drain(..) {
            drop(commands);
            let _ = thread.join();
        }
        // A stuck sink must not keep the process from ending.
        self.logs.end(limits::LOG_END);
    }
}

/// Shortest key of a cluster, characters.
const SHORTEST_KEY: usize = 32;

/// Milliseconds since 1970.
fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn a_worker_that_hangs_is_reported_and_one_that_turns_is_not() {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
        runtime.unwrap().block_on(async {
            let (ours, theirs) = Channel::pair().unwrap();
            let signs: Vec<Arc<Signs>> = (0..2).map(|_| Arc::default()).collect();
            // One gives signs from here; the other's thread waits for a word that never comes.
            let (turns, hangs) = (signs[0].clone(), signs[1].clone());
            let (_word, waits) = std::sync::mpsc::channel::<()>();
            std::thread::spawn(move || {
                hangs.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
                let _ = waits.recv();
            });
            let me = rustix::thread::gettid().as_raw_nonzero().get();
            turns.thread.store(me, Relaxed);
            tokio::task::spawn_local(worker::give_signs(turns));
            let channel = Channel::new(theirs).unwrap();
            let beating = beat(Rc::new(channel), Rc::new(RefCell::new(signs)));
            tokio::task::spawn_local(beating);
            let mut alive = 0;
            loop {
                match ours.recv::<Report>().await.unwrap().unwrap().0 {
                    Report::Alive => alive += 1,
                    Report::Stuck { why } => {
                        assert!(why.starts_with("worker 1 is blocked"), "{why}");
                        break;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(alive >= 5, "{alive} ticks before the verdict");
        });
    }
}
