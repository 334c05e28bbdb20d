//! A worker: one thread, one runtime, its own listeners, connections, pools, buffers and counters.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicI32, AtomicU64};
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relais_base::{Rng, Time};
use relais_config::plan::{self, Mode};
use relais_ipc::pulse;
use relais_ipc::{Endpoint, Protocol};
use rustix::net::SocketFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::access::{Dates, Log, Out, Sink};
use crate::buffer::Buffer;
use crate::choose::Common;
use crate::client::{self, Client, Places};
use crate::counters::{BackShared, FrontCounters, FrontShared, Gate, Pass, ServerShared};
use crate::io::Io;
use crate::limits;
use crate::pages::Pages;
use crate::persist::Sticks;
use crate::proxied;
use crate::rules::{self, Memory, Owner, Rules};
use crate::shield::Guard;
use crate::splice::Pipe;
use crate::stick::Sticky;
use crate::timer::Timers;
use crate::tls;
use crate::tunnel;
use crate::udp;
use crate::upstream::{Backend, Server};

/// A plan with everything that its names stand for.
#[derive(Clone, Default)]
pub(crate) struct Setup {
    pub(crate) fronts: Vec<(plan::Frontend, Arc<FrontShared>)>,
    /// By `BackendId`.
    pub(crate) backs: Vec<(plan::Backend, Arc<BackShared>, Vec<Arc<ServerShared>>)>,
    /// By `BackendId`: what workers share of the choice of servers.
    pub(crate) common: Vec<Arc<Common>>,
    /// By `BackendId`: how clients stay with their servers.
    pub(crate) sticks: Vec<Option<Arc<Sticks>>>,
    /// By `BackendId`: their tables.
    pub(crate) sticky: Vec<Option<Sticky>>,
    /// Index into `fronts` of all that is listened on.
    pub(crate) listens: HashMap<Endpoint, usize>,
    /// Of the TCP ones, by address, which have a limit of their own.
    pub(crate) doors: HashMap<SocketAddr, Arc<Gate>>,
    /// Of those, which speak TLS.
    pub(crate) tls: HashMap<SocketAddr, tls::Accepts>,
    /// By `BackendId`: whose servers are spoken to in TLS.
    pub(crate) connects: Vec<Option<tls::Connects>>,
    /// Where access lines go, in the order of the plan.
    pub(crate) logs: Vec<Arc<Sink>>,
    /// Whose connections begin with a PROXY protocol header, by the address they come in on.
    pub(crate) proxied: HashMap<SocketAddr, Arc<[plan::Cidr]>>,
    /// Error pages by file.
    pub(crate) pages: HashMap<String, Arc<str>>,
    /// Rules of the frontends, in their order.
    pub(crate) rules: Vec<Option<Arc<Rules>>>,
    /// Rules of the backends, by `BackendId`.
    pub(crate) back_rules: Vec<Option<Arc<Rules>>>,
    /// Waiting rooms of the frontends, in their order.
    pub(crate) shields: Vec<Option<Arc<Guard>>>,
    /// What clients are shown.
    pub(crate) certificates: Vec<relais_ipc::status::Certificate>,
}

/// From the process to a worker.
pub(crate) enum Command {
    /// Put this in force, with these new listeners; the answer says that it is.
    Setup { setup: Arc<Setup>, listeners: Vec<(Endpoint, OwnedFd)>, done: oneshot::Sender<()> },
    /// The files of rules have changed: these are in force now.
    Rules { owner: Owner, rules: Option<Arc<Rules>> },
    /// The checks took the server of this id out.
    Down(u32),
    /// Answer `Connection: close` from now on.
    Drain,
    /// Clients that are connected now are to connect anew after their next answer.
    Ebb,
    /// Accept nothing more and let go of the listeners, which another process has too.
    Leave,
    /// End now; the answer is the number of connections that were cut.
    Stop(oneshot::Sender<u32>),
}

/// A frontend on this worker: connections hold it, plans replace what is in it.
pub(crate) struct Front {
    pub(crate) shared: Arc<FrontShared>,
    worker: usize,
    plan: RefCell<Rc<FrontPlan>>,
}

/// A frontend as one plan describes it.
#[derive(Clone)]
pub(crate) struct FrontPlan {
    pub(crate) plan: plan::Frontend,
    pub(crate) backend: Option<Rc<Backend>>,
    /// Every backend of the plan, for rules.
    pub(crate) backends: Rc<[Rc<Backend>]>,
    pub(crate) rules: Option<Arc<Rules>>,
    /// Its waiting room.
    pub(crate) shield: Option<Arc<Guard>>,
    /// The plan in force does not have it any more: its connections end with their next answer.
    pub(crate) removed: bool,
    /// `None`: its requests are not logged.
    pub(crate) log: Option<Rc<Log>>,
    pub(crate) pages: Rc<Pages>,
}

impl Front {
    /// What is in force now. A request holds on to what was in force when it began.
    pub(crate) fn plan(&self) -> Rc<FrontPlan> {
        self.plan.borrow().clone()
    }

    /// This worker's counters of it.
    pub(crate) fn counters(&self) -> &FrontCounters {
        &self.shared.workers[self.worker]
    }
}

/// What all connections of a thread share.
pub(crate) struct Worker {
    pub(crate) index: usize,
    /// All of the process's connections.
    gate: Arc<Gate>,
    /// All of its responses that are being compressed.
    pub(crate) compressors: Arc<Gate>,
    /// All who are held before they are denied.
    pub(crate) tarpits: Arc<Gate>,
    origin: Instant,
    now: Cell<Time>,
    /// Milliseconds from 1970 to `origin`, set right again every second.
    wall_ms: Cell<u64>,
    pub(crate) timers: RefCell<Timers>,
    buffers: RefCell<Vec<Buffer>>,
    pipes: RefCell<Vec<Pipe>>,
    scratch: RefCell<Vec<Vec<u8>>>,
    /// Ends of the logs of the plan in force, and who hears of their first lines.
    outs: RefCell<Vec<Rc<Out>>>,
    log_begun: Rc<tokio::sync::Notify>,
    pub(crate) dates: RefCell<Dates>,
    /// For ids of requests and traces, which are no secrets.
    pub(crate) rng: RefCell<Rng>,
    pub(crate) rules: RefCell<Memory>,
    pub(crate) draining: Cell<bool>,
    /// Counts the times that everybody connected was to connect anew.
    pub(crate) ebbs: Cell<u16>,
    pub(crate) connections: Cell<u32>,
    complaints: Cell<(u64, u32)>,
    fronts: RefCell<HashMap<Arc<str>, Rc<Front>>>,
    servers: RefCell<HashMap<u32, Rc<Server>>>,
    listeners: RefCell<HashMap<SocketAddr, Rc<Listener>>>,
    /// UDP sockets by address.
    udp: RefCell<HashMap<SocketAddr, Rc<udp::Door>>>,
    /// Room for a datagram.
    pub(crate) datagram: udp::Room,
}

struct Listener {
    socket: AsyncFd<OwnedFd>,
    front: RefCell<Rc<Front>>,
    door: RefCell<Option<Arc<Gate>>>,
    /// Who sends a PROXY protocol header.
    proxied: RefCell<Option<Arc<[plan::Cidr]>>>,
    tls: RefCell<Option<tls::Accepts>>,
    removed: Cell<bool>,
    /// What waits in its queue is not for this process.
    left: Cell<bool>,
    changed: tokio::sync::Notify,
}

/// What shows that a worker's thread turns.
#[derive(Default)]
pub(crate) struct Signs {
    /// Counts up, every [`pulse::EVERY`].
    pub(crate) beats: AtomicU64,
    /// The kernel's number of the thread; 0 before it runs.
    pub(crate) thread: AtomicI32,
}

pub(crate) async fn give_signs(signs: Arc<Signs>) {
    loop {
        signs.beats.fetch_add(1, Relaxed);
        tokio::time::sleep(pulse::EVERY).await;
    }
}

/// Runs a worker on this thread until it is told to stop.
///
/// # Errors
/// If the runtime cannot be made.
pub(crate) fn run(
    index: usize,
    [gate, compressors, tarpits]: [Arc<Gate>; 3],
    signs: &Arc<Signs>,
    commands: UnboundedReceiver<Command>,
) -> io::Result<()> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    let worker = Rc::new(Worker {
        index,
        gate,
        compressors,
        tarpits,
        origin: Instant::now(),
        now: Cell::default(),
        wall_ms: Cell::new(0),
        timers: RefCell::default(),
        buffers: RefCell::default(),
        pipes: RefCell::default(),
        scratch: RefCell::default(),
        outs: RefCell::default(),
        log_begun: Rc::default(),
        dates: RefCell::new(Dates::new()),
        rng: RefCell::new(Rng::new(std::hash::BuildHasher::hash_one(
            &std::collections::hash_map::RandomState::new(),
            index,
        ))),
        rules: RefCell::default(),
        draining: Cell::new(false),
        ebbs: Cell::new(0),
        connections: Cell::new(0),
        complaints: Cell::default(),
        fronts: RefCell::default(),
        servers: RefCell::default(),
        listeners: RefCell::default(),
        udp: RefCell::default(),
        datagram: udp::Room::default(),
    });
    signs.thread.store(rustix::thread::gettid().as_raw_nonzero().get(), Relaxed);
    let signs = signs.clone();
    runtime.block_on(async {
        tokio::task::spawn_local(give_signs(signs));
        worker.clone().obey(commands).await;
    });
    drop(runtime);
    worker.flush_logs();
    Ok(())
}

impl Worker {
    /// Now, since the worker's start; as of the last [`Worker::tick`].
    pub(crate) fn now(&self) -> Time {
        self.now.get()
    }

    /// Looks at the clock. Called whenever a task goes on after waiting.
    pub(crate) fn tick(&self) {
        self.now.set(Time::from_nanos(self.origin.elapsed().as_nanos() as u64));
    }

    /// A moment as the process's clock has it: workers began at different ones.
    pub(crate) fn instant(&self, moment: Time) -> Instant {
        self.origin + Duration::from_nanos(moment.as_nanos())
    }

    /// Milliseconds since 1970 of a moment.
    pub(crate) fn date_ms(&self, moment: Time) -> u64 {
        self.wall_ms.get() + moment.as_millis()
    }

    /// Seconds since 1970, now.
    pub(crate) fn wall_s(&self) -> u64 {
        self.date_ms(self.now()) / 1_000
    }

    /// Adds a `Date` field: now.
    pub(crate) fn add_date(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.dates.borrow_mut().at(self.date_ms(self.now())).http);
    }

    fn set_wall_clock(&self) {
        self.tick();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64;
        self.wall_ms.set(wall.saturating_sub(self.now().as_millis()));
    }

    /// An empty buffer.
    pub(crate) fn take_buffer(&self) -> Buffer {
        self.buffers.borrow_mut().pop().unwrap_or_else(Buffer::new)
    }

    /// Takes a buffer back.
    pub(crate) fn give_buffer(&self, mut buffer: Buffer) {
        let mut free = self.buffers.borrow_mut();
        if free.len() < limits::FREE_BUFFERS {
            buffer.clear();
            free.push(buffer);
        }
    }

    /// An empty piece of memory in which a head is put together.
    pub(crate) fn take_scratch(&self) -> Vec<u8> {
        self.scratch.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes it back.
    pub(crate) fn give_scratch(&self, mut scratch: Vec<u8>) {
        let mut free = self.scratch.borrow_mut();
        if free.len() < limits::FREE_BUFFERS {
            scratch.clear();
            free.push(scratch);
        }
    }

    /// An empty pipe.
    ///
    /// # Errors
    /// If the process is out of descriptors.
    pub(crate) fn take_pipe(&self) -> io::Result<Pipe> {
        match self.pipes.borrow_mut().pop() {
            Some(pipe) => Ok(pipe),
            None => Pipe::new(),
        }
    }

    /// Takes an empty pipe back.
    pub(crate) fn give_pipe(&self, pipe: Pipe) {
        let mut free = self.pipes.borrow_mut();
        if free.len() < limits::FREE_PIPES {
            free.push(pipe);
        }
    }

    /// Whether one more message about a bad request may be logged in this second.
    pub(crate) fn may_complain(&self) -> bool {
        let second = self.now().as_millis() / 1000;
        let (last, count) = self.complaints.get();
        if last != second && count > limits::COMPLAINTS_PER_SECOND {
            tracing::info!("{} more like these were not written", count - limits::COMPLAINTS_PER_SECOND);
        }
        let count = if last == second { count + 1 } else { 1 };
        self.complaints.set((second, count));
        count <= limits::COMPLAINTS_PER_SECOND
    }

    /// Where connections and sessions take their places in the process.
    pub(crate) fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// Whether a connection that came after so many of those is to end when it can.
    pub(crate) fn sends_away(&self, ebbs: u16) -> bool {
        self.draining.get() || ebbs != self.ebbs.get()
    }

    /// Connections open on all workers and frontends.
    pub(crate) fn open_everywhere(&self) -> u32 {
        self.gate.open.load(Relaxed)
    }

    async fn obey(self: Rc<Self>, mut commands: UnboundedReceiver<Command>) {
        self.set_wall_clock();
        tokio::task::spawn_local(self.clone().look_at_timers());
        tokio::task::spawn_local(self.clone().flush_log());
        tokio::task::spawn_local(self.clone().sweep());
        while let Some(command) = commands.recv().await {
            self.tick();
            match command {
                Command::Setup { setup, listeners, done } => {
                    self.set_up(&setup, listeners);
                    self.timers.borrow().wake_waiting(limits::WAITS_FOR_DRAIN);
                    let _ = done.send(());
                }
                Command::Rules { owner, rules } => self.set_rules(&owner, rules),
                Command::Down(server) => {
                    let gone = self.servers.borrow().get(&server).cloned();
                    if let Some(server) = gone {
                        server.sweep(self.now());
                    }
                    self.timers.borrow().wake_waiting(server);
                }
                Command::Drain => {
                    self.draining.set(true);
                    self.timers.borrow().wake_waiting(limits::WAITS_FOR_DRAIN);
                    self.udp.borrow().values().for_each(|door| door.wake());
                }
                Command::Ebb => {
                    self.ebbs.set(self.ebbs.get().wrapping_add(1));
                    self.timers.borrow().wake_waiting(limits::WAITS_FOR_DRAIN);
                }
                Command::Leave => {
                    for (_, listener) in self.listeners.borrow_mut().drain() {
                        listener.left.set(true);
                        listener.remove();
                    }
                    self.udp.borrow_mut().drain().for_each(|(_, door)| door.leave());
                }
                Command::Stop(done) => {
                    self.flush_logs();
                    let _ = done.send(self.connections.get());
                    return;
                }
            }
        }
    }

    fn set_rules(&self, owner: &Owner, rules: Option<Arc<Rules>>) {
        let fronts = self.fronts.borrow();
        match owner {
            Owner::Frontend(name) => {
                let Some(front) = fronts.get(name) else { return };
                let plan = FrontPlan { rules, ..FrontPlan::clone(&front.plan()) };
                *front.plan.borrow_mut() = Rc::new(plan);
            }
            Owner::Backend(name) => {
                // All frontends have the same ones, but for those that are gone from the plan.
                let backends = fronts.values().flat_map(|front| front.plan().backends.to_vec());
                for backend in backends.filter(|backend| backend.plan.name == *name) {
                    *backend.rules.borrow_mut() = rules.clone();
                }
            }
        }
    }

    /// Puts a plan in force. Connections and what they are doing are left alone.
    fn set_up(self: &Rc<Self>, setup: &Setup, new: Vec<(Endpoint, OwnedFd)>) {
        let backends: Rc<[Rc<Backend>]> = self.set_up_backends(setup).into();
        let outs: Vec<Option<Rc<Out>>> = setup
            .logs
            .iter()
            .map(|sink| Some(Rc::new(Out::new(sink.clone(), sink.sender()?, self.log_begun.clone()))))
            .collect();
        self.flush_logs(); // lines stay in order, where an end of the same log is replaced
        *self.outs.borrow_mut() = outs.iter().flatten().cloned().collect();
        let mut fronts = self.fronts.borrow_mut();
        for front in fronts.values() {
            if !setup.fronts.iter().any(|(plan, _)| plan.name == front.shared.name) {
                let old = front.plan();
                let plan = FrontPlan { removed: true, ..FrontPlan::clone(&old) };
                *front.plan.borrow_mut() = Rc::new(plan);
            }
        }
        for (index, (plan, shared)) in setup.fronts.iter().enumerate() {
            let rules = setup.rules.get(index).cloned().flatten();
            let backends = backends.clone();
            let backend = plan.default_backend.map(|id| backends[usize::from(id.0)].clone());
            let pages = Rc::new(Pages::new(&plan.error_pages, &setup.pages));
            let log = plan.log.as_ref().and_then(|log| {
                let out = outs.get(log.target)?.clone()?;
                Some(Rc::new(Log::new(out, log.format.clone())))
            });
            let plan = Rc::new(FrontPlan {
                plan: plan.clone(),
                backend,
                backends,
                rules,
                shield: setup.shields.get(index).cloned().flatten(),
                removed: false,
                log,
                pages,
            });
            match fronts.get(&shared.name) {
                Some(front) => *front.plan.borrow_mut() = plan,
                None => {
                    let front =
                        Front { shared: shared.clone(), worker: self.index, plan: RefCell::new(plan) };
                    fronts.insert(shared.name.clone(), Rc::new(front));
                }
            }
        }
        let front_of = |endpoint: Endpoint| {
            let index = *setup.listens.get(&endpoint)?;
            fronts.get(&setup.fronts[index].0.name).cloned()
        };
        let mut listeners = self.listeners.borrow_mut();
        let (udp, tcp): (Vec<_>, Vec<_>) = new.into_iter().partition(|(e, _)| e.protocol == Protocol::Udp);
        for (endpoint, socket) in tcp {
            let address = endpoint.address;
            match (self.listen(socket), front_of(endpoint)) {
                (Ok(socket), Some(front)) => {
                    let (removed, changed) = (Cell::new(false), tokio::sync::Notify::new());
                    let (front, door, left) = (RefCell::new(front), RefCell::default(), Cell::new(false));
                    let (proxied, tls) = (RefCell::default(), RefCell::new(setup.tls.get(&address).cloned()));
                    let listener =
                        Rc::new(Listener { socket, front, door, proxied, tls, removed, left, changed });
                    tokio::task::spawn_local(accept(self.clone(), listener.clone()));
                    if let Some(old) = listeners.insert(address, listener) {
                        old.remove();
                    }
                }
                (Err(error), _) => tracing::error!("cannot watch the listener of {endpoint}: {error}"),
                (Ok(_), None) => {}
            }
        }
        listeners.retain(|address, listener| match front_of(Endpoint::tcp(*address)) {
            Some(front) => {
                listener.tell_kernel(&front.plan());
                *listener.front.borrow_mut() = front;
                *listener.door.borrow_mut() = setup.doors.get(address).cloned();
                *listener.proxied.borrow_mut() = setup.proxied.get(address).cloned();
                *listener.tls.borrow_mut() = setup.tls.get(address).cloned();
                true
            }
            None => {
                listener.remove();
                false
            }
        });
        self.set_up_udp(udp, front_of);
    }

    /// Takes datagrams on new sockets, and no longer on those that are out of the plan. Where one is open already, what
    /// comes with a later plan is the same socket: it stays, and so do its sessions.
    fn set_up_udp(
        self: &Rc<Self>,
        new: Vec<(Endpoint, OwnedFd)>,
        front_of: impl Fn(Endpoint) -> Option<Rc<Front>>,
    ) {
        let mut doors = self.udp.borrow_mut();
        for (endpoint, socket) in new {
            if let (Entry::Vacant(place), Some(front)) = (doors.entry(endpoint.address), front_of(endpoint)) {
                match udp::Door::open(self, socket, endpoint.address, front) {
                    Ok(door) => {
                        place.insert(door);
                    }
                    Err(error) => tracing::error!("cannot watch the socket of {endpoint}: {error}"),
                }
            }
        }
        doors.retain(|address, door| match front_of(Endpoint::udp(*address)) {
            Some(front) => {
                door.belongs_to(front);
                true
            }
            None => {
                door.remove();
                false
            }
        });
    }

    /// The backends of a plan; a server that is as it was keeps its connections.
    fn set_up_backends(&self, setup: &Setup) -> Vec<Rc<Backend>> {
        let mut known = self.servers.borrow_mut();
        let mut now = HashMap::new();
        let mut backends = Vec::new();
        let connects = setup.connects.iter().cloned().chain(std::iter::repeat(None));
        let rules = setup.back_rules.iter().cloned().chain(std::iter::repeat(None));
        let whole = setup.backs.iter().zip(connects).zip(rules).zip(&setup.common);
        let sticks = setup.sticks.iter().cloned().chain(std::iter::repeat(None));
        for (((((plan, shared, servers), tls), rules), common), sticks) in whole.zip(sticks) {
            let mut ours = Vec::new();
            for (plan, shared) in plan.servers.iter().zip(servers) {
                let server = match known.get(&shared.id) {
                    Some(server) if server.plan == *plan && server.tls == tls => server.clone(),
                    _ => Rc::new(Server::new(plan.clone(), shared.clone(), self.index, tls.clone())),
                };
                now.insert(shared.id, server.clone());
                ours.push(server);
            }
            let mut backend = Backend::new(
                plan.clone(),
                shared.clone(),
                ours,
                Pages::new(&plan.error_pages, &setup.pages),
                rules,
                common.clone(),
                (self.index, shared.unserved.len()),
            );
            backend.save(self.now());
            backend.sticks = sticks;
            backend.sticky = setup.sticky.get(backends.len()).cloned().flatten();
            backends.push(Rc::new(backend));
        }
        *known = now;
        backends
    }

    // Deprecated because a type could change its descriptor while it is watched; an `OwnedFd` cannot.
    #[allow(deprecated)]
    fn listen(&self, socket: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        // Accepted sockets inherit it: one system call less for each.
        rustix::net::sockopt::set_tcp_nodelay(&socket, true)?;
        AsyncFd::with_interest(socket, Interest::READABLE)
    }

    async fn look_at_timers(self: Rc<Self>) {
        let mut sleep = std::pin::pin!(tokio::time::sleep(Duration::ZERO));
        poll_fn(|cx| {
            loop {
                self.tick();
                let next = self.timers.borrow_mut().expire(self.now(), cx.waker());
                let moment = self.origin + Duration::from_nanos(next.as_nanos().min(1 << 60));
                sleep.as_mut().reset(moment.into());
                if sleep.as_mut().poll(cx).is_pending() {
                    return Poll::<()>::Pending;
                }
            }
        })
        .await;
    }

    async fn flush_log(self: Rc<Self>) {
        loop {
            self.log_begun.notified().await;
            tokio::time::sleep(limits::LOG_EVERY).await;
            self.flush_logs();
        }
    }

    fn flush_logs(&self) {
        self.outs.borrow().iter().for_each(|out| out.flush());
    }

    async fn sweep(self: Rc<Self>) {
        loop {
            tokio::time::sleep(limits::SWEEP).await;
            self.set_wall_clock();
            let servers: Vec<_> = self.servers.borrow().values().cloned().collect();
            servers.iter().for_each(|s| s.sweep(self.now()));
        }
    }
}

impl Listener {
    fn remove(&self) {
        self.removed.set(true);
        self.changed.notify_one();
    }

    /// Has the kernel hold clients of this listener to their time-out for what it holds itself: an answer that fits its
    /// buffers is done for us when it is written, and read at a byte a second it would stay there for days, also once the
    /// connection is closed. Connections inherit it, so it costs none of them a system call.
    fn tell_kernel(&self, plan: &FrontPlan) {
        let patience = match plan.plan.mode {
            Mode::Http => plan.plan.timeout.client,
            _ => Duration::ZERO, // a tunnel may be silent for as long as its file says
        };
        kernel_patience(&self.socket, patience);
    }

    /// Until what waits in its queue is not for this process any more.
    async fn left(&self) {
        while !self.left.get() {
            self.changed.notified().await;
        }
    }
}

/// Accepts on one listener while its frontend has places. Once it is removed, what already waits in its
/// queue is still taken.
async fn accept(worker: Rc<Worker>, listener: Rc<Listener>) {
    loop {
        let mut ready = None;
        if !listener.removed.get() {
            tokio::select! {
                result = listener.socket.readable() => match result {
                    Ok(guard) => ready = Some(guard),
                    Err(error) => return tracing::error!("a listener is lost: {error}"),
                },
                () = listener.changed.notified() => {}
            }
        }
        let (front, door) = (listener.front.borrow().clone(), listener.door.borrow().clone());
        let places = async {
            let door = match &door {
                Some(gate) => Some(Pass::through(gate).await),
                None => None,
            };
            (door, Pass::through(&front.shared.gate).await, Pass::through(&worker.gate).await)
        };
        let places = tokio::select! {
            biased;
            places = places => places,
            () = listener.left() => return,
        };
        if listener.left.get() {
            return;
        }
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let error: io::Error = match rustix::net::acceptfrom_with(&listener.socket, flags) {
            Ok((socket, address)) => {
                if worker.gate.short.swap(false, Relaxed) {
                    tracing::info!("connections are accepted again");
                }
                if let Err(error) = greet(&worker, &listener, front, socket, address, places) {
                    tracing::warn!("a connection is lost: {error}");
                }
                continue;
            }
            Err(error) => error.into(),
        };
        drop(places);
        match error.kind() {
            io::ErrorKind::WouldBlock if listener.removed.get() => return,
            io::ErrorKind::WouldBlock => {
                if let Some(mut guard) = ready {
                    guard.clear_ready();
                }
            }
            io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted => {}
            _ => {
                // Out of descriptors or memory: they come back when connections end. Said once, until it is over.
                if !worker.gate.short.swap(true, Relaxed) {
                    tracing::warn!(
                        "cannot accept connections: {error}; they wait in the kernel's queue until others end"
                    );
                }
                tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            }
        }
    }
}

/// How long the other end of a connection may leave what the kernel has for it (`TCP_USER_TIMEOUT`); zero: as the kernel likes.
/// A second longer than ours, so that whom we see ourselves is cut, and logged, here.
pub(crate) fn kernel_patience(socket: impl std::os::fd::AsFd, patience: Duration) {
    let longer = if patience.is_zero() { patience } else { patience + limits::LINGER };
    let ms = u32::try_from(longer.as_millis()).unwrap_or(u32::MAX).min(i32::MAX as u32);
    // A socket that is no longer one has nothing to hold.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(socket, ms);
}

fn greet(
    worker: &Rc<Worker>,
    listener: &Listener,
    front: Rc<Front>,
    socket: OwnedFd,
    address: Option<rustix::net::SocketAddrAny>,
    places: Places,
) -> io::Result<()> {
    let peer = address.and_then(|a| SocketAddr::try_from(a).ok()).ok_or(io::ErrorKind::AddrNotAvailable)?;
    let trusted =
        listener.proxied.borrow().as_ref().is_some_and(|from| from.iter().any(|net| net.contains(peer.ip())));
    // Before a TLS session, a timer or a task is made for it.
    let limits = match trusted {
        true => None,
        false => match rules::door(worker, &front.plan(), peer.ip(), || local_port(&socket)) {
            Ok(limits) => limits,
            Err(silent) => {
                front.counters().errors.add(1);
                crate::io::reject(&socket, silent);
                return Ok(());
            }
        },
    };
    let socket = TcpStream::from_std(std::net::TcpStream::from(socket))?;
    let io = match &*listener.tls.borrow() {
        None => Io::Plain(socket),
        Some(tls) => Io::tls_over(tls::accept(tls, socket).map_err(io::Error::other)?),
    };
    let mut client = Client::new(worker.clone(), front, io, peer, places);
    client.keep(limits);
    if trusted {
        // A task of its own: what it waits with is no part of the connection's later life.
        tokio::task::spawn_local(async move {
            if let Some(client) = proxied::receive(client).await {
                serve(client);
            }
        });
    } else {
        serve(client);
    }
    Ok(())
}

fn local_port(socket: &OwnedFd) -> u16 {
    let address =
        rustix::net::getsockname(socket).ok().and_then(|address| SocketAddr::try_from(address).ok());
    address.map_or(0, |address| address.port())
}

fn serve(client: Client) {
    match client.front.plan().plan.mode {
        Mode::Http => drop(tokio::task::spawn_local(client::http(client))),
        _ => drop(tokio::task::spawn_local(tunnel::tcp(client))),
    }
}
