//! What is shared between the workers, the checks and the status document, by name and across plans:
//! counters, gauges, health, and the queues for places at servers.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::task::{Poll, Waker};
use std::time::Instant;

use relais_balance::{Breaker, BreakerRule, Turn, portion};
use relais_base::Time;
use relais_config::plan;
use relais_rules::Key;

use crate::keyed::{Keyed, Places, Rates};
use crate::limits;
use crate::observed::Observed;
use crate::shield::Line;
use crate::stick::Table;
use crate::traffic::{Peak, Rate};

/// A number that one thread counts up and others read: no locked instruction.
#[derive(Debug, Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Average times of the last 1024 requests or so, as HAProxy has them: queue, connect, response, total.
#[derive(Debug, Default)]
pub(crate) struct Averages {
    /// Each 1024 times its average, in milliseconds.
    sums: [Counter; 4],
    seen: Counter,
}

impl Averages {
    const OVER: u64 = 1024;

    /// Takes in the times of a request, milliseconds.
    pub(crate) fn add(&self, times: [i64; 4]) {
        for (sum, time) in self.sums.iter().zip(times) {
            let old = sum.get();
            sum.0.store(old - old / Self::OVER + time.max(0) as u64, Relaxed);
        }
        self.seen.add(1);
    }

    /// The averages of several workers together, milliseconds.
    pub(crate) fn of<'a>(all: impl Iterator<Item = &'a Averages>) -> [u64; 4] {
        let (mut sums, mut weight) = ([0; 4], 0);
        for one in all {
            weight += one.seen.get().min(Self::OVER);
            sums.iter_mut().zip(&one.sums).for_each(|(total, sum)| *total += sum.get());
        }
        // The first 1024 have not been forgotten yet: nearly their sum, over their number.
        sums.map(|sum| (sum + weight / 2).checked_div(weight).unwrap_or(0))
    }
}

/// Responses by class: 1xx to 5xx, other.
#[derive(Debug, Default)]
pub(crate) struct Classes([Counter; 6]);

impl Classes {
    pub(crate) fn count(&self, status: u16) {
        let class = usize::from(status / 100).wrapping_sub(1);
        self.0[class.min(5)].add(1);
    }

    pub(crate) fn sum<'a>(all: impl Iterator<Item = &'a Classes>) -> [u64; 6] {
        let mut sum = [0; 6];
        for classes in all {
            for (total, one) in sum.iter_mut().zip(&classes.0) {
                *total += one.get();
            }
        }
        sum
    }
}

/// One worker's counters of a frontend, on cache lines of their own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct FrontCounters {
    pub(crate) connections: Counter,
    pub(crate) requests: Counter,
    pub(crate) errors: Counter,
    pub(crate) responses: Classes,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    /// Datagrams of clients taken, given to clients, and lost either way.
    pub(crate) datagrams_in: Counter,
    pub(crate) datagrams_out: Counter,
    pub(crate) dropped: Counter,
    /// Responses compressed, their bytes before, and after.
    pub(crate) comp_responses: Counter,
    pub(crate) comp_in: Counter,
    pub(crate) comp_out: Counter,
    /// Responses that were not compressed because too many others were.
    pub(crate) comp_bypassed: Counter,
}

/// One worker's counters of a server.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct ServerCounters {
    pub(crate) sessions: Counter,
    pub(crate) connect_errors: Counter,
    pub(crate) response_errors: Counter,
    pub(crate) retries: Counter,
    pub(crate) redispatches: Counter,
    /// Asked beside another, and answered before it.
    pub(crate) hedges: Counter,
    pub(crate) hedges_won: Counter,
    /// Ended by the client, and by the server, before the end.
    pub(crate) client_aborts: Counter,
    pub(crate) server_aborts: Counter,
    pub(crate) times: Averages,
    pub(crate) responses: Classes,
    pub(crate) bytes_in: Counter,
    pub(crate) bytes_out: Counter,
    pub(crate) datagrams_in: Counter,
    pub(crate) datagrams_out: Counter,
}

/// A limit of connections that is shared by everybody: of a listener, a frontend, the process.
#[derive(Debug)]
pub(crate) struct Gate {
    /// Connections open now, all workers.
    pub(crate) open: AtomicU32,
    pub(crate) peak: Peak,
    /// The most that may be.
    pub(crate) limit: AtomicU32,
    /// Accepting failed for want of descriptors, and has not succeeded since.
    pub(crate) short: AtomicBool,
    /// Accept loops that wait for a place.
    waiting: Mutex<Vec<Waker>>,
}

impl Gate {
    pub(crate) fn new(limit: u32) -> Gate {
        Gate {
            open: AtomicU32::new(0),
            peak: Peak::default(),
            limit: AtomicU32::new(limit),
            short: AtomicBool::new(false),
            waiting: Mutex::default(),
        }
    }

    /// Takes a place for a connection; if there is none, `waker` hears of the next.
    fn enter(&self, waker: &Waker) -> bool {
        if self.try_enter() {
            return true;
        }
        lock(&self.waiting).push(waker.clone());
        self.try_enter()
    }

    fn try_enter(&self) -> bool {
        let place = |open: u32| (open < self.limit.load(SeqCst)).then_some(open + 1);
        let before = self.open.fetch_update(SeqCst, SeqCst, place);
        before.inspect(|open| self.peak.see(open + 1)).is_ok()
    }

    /// Gives a place back.
    fn leave(&self) {
        let open = self.open.fetch_sub(1, SeqCst);
        if open >= self.limit.load(SeqCst) {
            self.wake();
        }
    }

    /// Sets the most that may be, for those who wait too.
    pub(crate) fn set_limit(&self, limit: u32) {
        self.limit.store(limit, SeqCst);
        self.wake();
    }

    /// Lets every waiting accept loop try again.
    fn wake(&self) {
        std::mem::take(&mut *lock(&self.waiting)).into_iter().for_each(Waker::wake);
    }
}

/// A place at a [`Gate`]; given back when dropped.
#[derive(Debug)]
pub(crate) struct Pass(Arc<Gate>);

impl Pass {
    /// Waits for a place.
    pub(crate) async fn through(gate: &Arc<Gate>) -> Pass {
        std::future::poll_fn(|cx| {
            if gate.enter(cx.waker()) { Poll::Ready(Pass(gate.clone())) } else { Poll::Pending }
        })
        .await
    }
}

impl Pass {
    /// A place if there is one just now.
    pub(crate) fn if_free(gate: &Arc<Gate>) -> Option<Pass> {
        gate.try_enter().then(|| Pass(gate.clone()))
    }

    /// A place if fewer than `limit` are taken, whatever the gate's own limit is.
    pub(crate) fn at_once(gate: &Arc<Gate>, limit: u32) -> Option<Pass> {
        let place = |open: u32| (open < limit).then_some(open + 1);
        gate.open.fetch_update(SeqCst, SeqCst, place).is_ok().then(|| Pass(gate.clone()))
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.0.leave();
    }
}

/// A frontend, by name.
#[derive(Debug)]
pub(crate) struct FrontShared {
    pub(crate) name: Arc<str>,
    pub(crate) gate: Arc<Gate>,
    /// Connections, and requests.
    pub(crate) rate: Rate,
    pub(crate) request_rate: Rate,
    pub(crate) workers: Box<[FrontCounters]>,
}

impl FrontShared {
    /// Connections open now, all workers.
    pub(crate) fn open(&self) -> u32 {
        self.gate.open.load(Relaxed)
    }
}

/// What the checks know of a server.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) checked: bool,
    pub(crate) what: String,
    pub(crate) took_ms: u64,
    pub(crate) since: Instant,
    pub(crate) downs: u64,
    pub(crate) failures: u64,
}

/// A server, by the names of its backend and itself.
#[derive(Debug)]
pub(crate) struct ServerShared {
    /// Never 0.
    pub(crate) id: u32,
    pub(crate) backend: Arc<str>,
    pub(crate) name: Arc<str>,
    pub(crate) up: AtomicBool,
    /// Requests (HTTP) or connections (TCP) it has now, all workers.
    pub(crate) active: AtomicU32,
    pub(crate) peak: Peak,
    pub(crate) rate: Rate,
    /// The most it may have; `u32::MAX`: no limit.
    pub(crate) limit: AtomicU32,
    /// The most it may have once it has started.
    full_limit: AtomicU32,
    /// How many of those while its backend is idle; 0: all.
    least: AtomicU32,
    /// Percentage of its weight and limit that it has: less than 100 for a while after it was down.
    pub(crate) ramp: AtomicU8,
    /// Percentage of its weight that its agent leaves it; 0: nothing new.
    pub(crate) agent: AtomicU8,
    /// An operator, or its agent, has put it down.
    pub(crate) put_down: AtomicBool,
    /// It serves although it is down: too few others are up.
    pressed: AtomicBool,
    /// Nobody has asked it yet, in this process or the one before.
    pub(crate) unknown: AtomicBool,
    /// It is in force, may be given something, and has a weight.
    pub(crate) enabled: AtomicBool,
    /// It gets something only while no other server is up.
    pub(crate) backup: AtomicBool,
    /// Idle connections kept to it, all workers.
    pub(crate) idle: AtomicU32,
    pub(crate) check: Mutex<Checked>,
    pub(crate) observed: Observed,
    pub(crate) workers: Box<[ServerCounters]>,
}

impl ServerShared {
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Relaxed)
    }

    /// Whether it gets requests: it is up, or too few others are.
    pub(crate) fn serves(&self) -> bool {
        self.is_up() || self.pressed.load(Relaxed)
    }

    /// Whether its agent lets it have new requests.
    pub(crate) fn is_open(&self) -> bool {
        self.agent.load(Relaxed) > 0
    }

    /// Sets the most that it may have (`u32::MAX`: no limit), and how many of those while its backend is idle (0: all).
    pub(crate) fn set_limit(&self, limit: u32, least: u32) {
        self.full_limit.store(limit, SeqCst);
        self.least.store(least, SeqCst);
        self.set_ramp(self.ramp.load(SeqCst));
    }

    /// Sets what it may have to what its agent says, until a plan comes; whether it was something else.
    pub(crate) fn limit_by_agent(&self, limit: u32) -> bool {
        let changed = self.full_limit.load(SeqCst) != limit;
        if changed {
            self.set_limit(limit, self.least.load(SeqCst).min(limit));
        }
        changed
    }

    /// Sets the percentage of its weight and limit that it has.
    pub(crate) fn set_ramp(&self, percent: u8) {
        self.ramp.store(percent, SeqCst);
        let full = self.full_limit.load(SeqCst);
        let part = u64::from(full) * u64::from(percent) / 100;
        self.limit.store(if full == u32::MAX { full } else { part.max(1) as u32 }, SeqCst);
    }

    /// The most it may have with so many at its backend, who wait included.
    fn limit_at(&self, load: impl Fn() -> (u32, u32)) -> u32 {
        match self.least.load(Relaxed) {
            0 => self.limit.load(SeqCst),
            least => {
                let (load, full) = load();
                portion(self.full_limit.load(SeqCst), least, load, full, self.ramp.load(SeqCst))
            }
        }
    }

    /// Takes one of the places at the server.
    fn enter(&self, load: impl Fn() -> (u32, u32)) -> bool {
        if self.limit.load(Relaxed) == u32::MAX {
            self.peak.see(self.active.fetch_add(1, Relaxed) + 1);
            return true;
        }
        let place = |active: u32| (active < self.limit_at(&load)).then_some(active + 1);
        let before = self.active.fetch_update(SeqCst, SeqCst, place);
        before.inspect(|active| self.peak.see(active + 1)).is_ok()
    }
}

/// Somebody who waits for a place at any server of a backend.
#[derive(Debug, Default)]
pub(crate) struct Waiter {
    /// Servers, by id, that have failed this request: it gets another if another is up.
    pub(crate) avoid: Vec<u32>,
    pub(crate) rank: plan::Rank,
    /// When it came, or is to have come.
    pub(crate) since: OnceLock<Instant>,
    /// The server whose place it was given.
    pub(crate) granted: Mutex<Option<Arc<ServerShared>>>,
    pub(crate) waker: Mutex<Option<Waker>>,
}

impl Waiter {
    /// Before whom it goes: by what is less.
    fn turn(&self) -> (i16, Option<Instant>) {
        (self.rank.class, self.since.get().copied())
    }
}

/// A backend, by name.
#[derive(Debug)]
pub(crate) struct BackShared {
    pub(crate) name: Arc<str>,
    pub(crate) servers: Mutex<Vec<Arc<ServerShared>>>,
    /// Requests or connections that its servers have now, all workers.
    pub(crate) active: AtomicU32,
    /// Counts changes of who is up, and of weights.
    pub(crate) changes: AtomicU32,
    /// Where no other server is up all backups serve; else the first of them.
    pub(crate) all_backups: AtomicBool,
    /// What says whether it is left alone, and what that goes by.
    breaker: Mutex<Option<Breaker>>,
    /// It is left alone, or tried with a few requests.
    pub(crate) is_open: AtomicBool,
    /// Percentage of its servers, fewer than which are not enough; 0: none is ever too few.
    pub(crate) panic: AtomicU8,
    /// So many at its servers and in its queue, and servers may have all of their limits.
    pub(crate) full: AtomicU32,
    queue: Mutex<VecDeque<Arc<Waiter>>>,
    /// Length of the queue, to be read without the lock.
    pub(crate) queued: AtomicU32,
    /// The most at its servers, and in the queue.
    pub(crate) peak: Peak,
    pub(crate) queue_peak: Peak,
    pub(crate) rate: Rate,
    /// Clients that left before they had a server.
    pub(crate) client_aborts: Box<[Counter]>,
    pub(crate) unserved: Box<[Counter]>,
}

impl BackShared {
    /// Takes one of the places at `server`.
    pub(crate) fn enter(&self, server: &ServerShared) -> bool {
        let entered = server.enter(|| self.load());
        self.peak.see(self.active.fetch_add(entered.into(), Relaxed) + u32::from(entered));
        entered
    }

    /// Whether a place is free at `server` just now.
    pub(crate) fn has_place(&self, server: &ServerShared) -> bool {
        server.active.load(Relaxed) < server.limit_at(|| self.load())
    }

    /// Those at its servers and in its queue, whoever asks included; and how many make it full.
    fn load(&self) -> (u32, u32) {
        let there = self.active.load(Relaxed) + self.queued.load(Relaxed).max(1);
        (there, self.full.load(Relaxed))
    }

    /// Who is up, or a weight, has changed.
    pub(crate) fn change(&self) {
        self.press();
        self.changes.fetch_add(1, SeqCst);
    }

    /// Where too few servers are up, all serve.
    fn press(&self) {
        let servers = lock(&self.servers);
        let counted = || {
            servers
                .iter()
                .filter(|s| s.enabled.load(Relaxed) && !s.backup.load(Relaxed) && !s.put_down.load(Relaxed))
        };
        let (all, up) = (counted().count(), counted().filter(|s| s.is_up()).count());
        let panic = usize::from(self.panic.load(Relaxed));
        let is_too_few = up * 100 < all * panic;
        let mut news = false;
        for server in servers.iter() {
            let presses = is_too_few && counted().any(|s| Arc::ptr_eq(s, server));
            news |= server.pressed.swap(presses, Relaxed) != presses;
        }
        if news && is_too_few {
            tracing::warn!(
                "backend {}: {up} of {all} servers are up, and `panic` wants {panic} %: all of them get requests, dead or not",
                self.name
            );
        } else if news && panic > 0 {
            tracing::info!(
                "backend {}: {up} of {all} servers are up, which is enough: the dead get nothing",
                self.name
            );
        }
    }

    /// Has a breaker, or none, from now on; one that stays the same goes on as it is.
    pub(crate) fn set_breaker(&self, plan: Option<plan::Breaker>) {
        let rule = plan.map(|plan::Breaker { errors, least, window, open, probes }| BreakerRule {
            errors,
            least,
            window,
            open,
            probes,
        });
        let mut breaker = lock(&self.breaker);
        if breaker.map(|breaker| breaker.rule()) != rule {
            *breaker = rule.map(|rule| Breaker::new(rule, Time::ZERO));
            self.is_open.store(false, Relaxed);
        }
    }

    /// Whether a request may go to the servers.
    pub(crate) fn admits(&self, now: Time) -> bool {
        lock(&self.breaker).as_mut().is_none_or(|breaker| breaker.admit(now))
    }

    /// How one that might has ended; `None`: it says nothing of the backend.
    pub(crate) fn ended(&self, ok: Option<bool>, now: Time) {
        let mut breaker = lock(&self.breaker);
        let Some(breaker) = breaker.as_mut() else { return };
        let Some(ok) = ok else { return breaker.forget() };
        let turn = breaker.record(ok, now);
        if let Some(turn) = turn {
            self.is_open.store(turn != Turn::Closed, Relaxed);
        }
        match turn {
            Some(Turn::Opened(bad, all)) => tracing::warn!(
                "backend {}: {bad} of {all} requests failed; the next are answered with 503 for {} s, and its servers left alone",
                self.name,
                breaker.rule().open.as_secs_f64()
            ),
            Some(Turn::Closed) => {
                tracing::info!("backend {}: requests succeed again, and go to its servers", self.name)
            }
            None => {}
        }
    }

    /// Gives back a place at `server`, to whoever waits longest.
    pub(crate) fn leave(&self, server: &ServerShared) {
        self.active.fetch_sub(1, Relaxed);
        if server.limit.load(Relaxed) == u32::MAX {
            server.active.fetch_sub(1, Relaxed);
        } else {
            server.active.fetch_sub(1, SeqCst);
        }
        if self.queued.load(SeqCst) > 0 {
            self.dispatch();
        }
    }

    /// Puts a waiter into the queue, behind those of its rank, and says how many are before it.
    ///
    /// # Errors
    /// If there are `most` already.
    pub(crate) fn wait(&self, waiter: &Arc<Waiter>, most: u32) -> Result<u32, u32> {
        let before = {
            let mut queue = lock(&self.queue);
            if queue.len() as u32 >= most {
                return Err(queue.len() as u32);
            }
            let _ = waiter.since.set(Instant::now() + waiter.rank.later);
            let at = queue.partition_point(|other| other.turn() <= waiter.turn());
            queue.insert(at, waiter.clone());
            let before = at as u32;
            self.queue_peak.see(self.queued.fetch_add(1, SeqCst) + 1);
            before
        };
        self.dispatch(); // a place may have come free before we were seen
        Ok(before)
    }

    /// Takes a waiter out again; a place that it was given in the meantime goes on to the next.
    pub(crate) fn give_up(&self, waiter: &Arc<Waiter>) {
        {
            let mut queue = lock(&self.queue);
            if let Some(at) = queue.iter().position(|w| Arc::ptr_eq(w, waiter)) {
                queue.remove(at);
                self.queued.fetch_sub(1, SeqCst);
            }
        }
        if let Some(server) = lock(&waiter.granted).take() {
            self.leave(&server);
        }
    }

    /// Gives free places to waiters in their order, whichever worker they wait on. Only who avoids the
    /// servers with a free place is passed over.
    pub(crate) fn dispatch(&self) {
        let servers = lock(&self.servers);
        let mut queue = lock(&self.queue);
        let mut at = 0;
        while let Some(waiter) = queue.get(at) {
            let serves = |s: &ServerShared| s.enabled.load(Relaxed) && s.serves() && s.is_open();
            let others = servers.iter().any(|s| serves(s) && !waiter.avoid.contains(&s.id));
            let counts = |s: &ServerShared| serves(s) && !(others && waiter.avoid.contains(&s.id));
            let backup = |s: &ServerShared| s.backup.load(Relaxed);
            let tier = !servers.iter().any(|s| counts(s) && !backup(s));
            let only = tier && !self.all_backups.load(Relaxed);
            let most = if only { 1 } else { servers.len() };
            let mut suit = servers.iter().filter(|s| counts(s) && backup(s) == tier).take(most);
            let Some(server) = suit.find(|s| self.enter(s)) else {
                if waiter.avoid.is_empty() {
                    return;
                }
                at += 1;
                continue;
            };
            *lock(&waiter.granted) = Some(server.clone());
            if let Some(waker) = lock(&waiter.waker).take() {
                waker.wake();
            }
            queue.remove(at);
            self.queued.fetch_sub(1, SeqCst);
        }
    }
}

/// A lock whose holder panicked is still a lock: every value in this crate stays valid between two statements.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often something happened, by worker.
pub(crate) type Hits = Arc<[Counter]>;

/// A thing of a rule: its frontend or backend, its rule, its number there, and itself.
pub(crate) type Counted<T> = (Arc<str>, Arc<str>, usize, T);

/// What is still in use of it, or a new one.
fn in_use<K: std::hash::Hash + Eq, T>(
    all: &mut HashMap<K, Weak<T>>,
    key: K,
    make: impl FnOnce() -> T,
) -> Arc<T> {
    if let Some(known) = all.get(&key).and_then(Weak::upgrade) {
        return known;
    }
    all.retain(|_, one| one.strong_count() > 0);
    let new = Arc::new(make());
    all.insert(key, Arc::downgrade(&new));
    new
}

/// Counts a session that its client or its server ended before the end, by its termination state: `C` and `SD`, as HAProxy does.
pub(crate) fn count_abort(
    state: [u8; 2],
    server: Option<&ServerCounters>,
    backend: Option<&BackShared>,
    worker: usize,
) {
    match (state, server, backend) {
        ([b'C', _], Some(server), _) => server.client_aborts.add(1),
        ([b'C', _], None, Some(backend)) => backend.client_aborts[worker].add(1),
        ([b'S', b'D'], Some(server), _) => server.server_aborts.add(1),
        _ => {}
    }
}

/// Everything that has a name, in force or not: a name that returns finds its counters.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: usize,
    /// All of the process's connections.
    pub(crate) gate: Arc<Gate>,
    /// All responses that are being compressed.
    pub(crate) compressors: Arc<Gate>,
    /// All who are held before they are denied.
    pub(crate) tarpits: Arc<Gate>,
    doors: HashMap<SocketAddr, Arc<Gate>>,
    fronts: HashMap<Arc<str>, Arc<FrontShared>>,
    backs: HashMap<Arc<str>, Arc<BackShared>>,
    servers: HashMap<(Arc<str>, Arc<str>), Arc<ServerShared>>,
    /// By frontend and rule.
    rules: HashMap<(Arc<str>, Arc<str>), Hits>,
    /// What rules count by key, by owner, rule and number; as long as a plan in force has it.
    /// Makes the hashes that balancers have in common, where they count together.
    pub(crate) of_cluster: Option<Keyed>,
    rates: HashMap<Counted<(plan::Rate, Option<u64>)>, Weak<Rates>>,
    places: HashMap<Counted<Key>, Weak<Places>>,
    /// Which servers keys stay with, by backend; likewise.
    tables: HashMap<(Arc<str>, plan::StickKey), Weak<Table>>,
    /// Those who wait, by frontend.
    lines: HashMap<Arc<str>, Arc<Line>>,
    /// What a predecessor of this process knew: down servers start down.
    pub(crate) remembered: HashMap<(String, String), bool>,
}

fn each<T: Default>(workers: usize) -> Box<[T]> {
    (0..workers).map(|_| T::default()).collect()
}

impl Registry {
    pub(crate) fn new(workers: usize) -> Registry {
        Registry {
            workers,
            gate: Arc::new(Gate::new(u32::MAX)),
            compressors: Arc::new(Gate::new(u32::MAX)),
            tarpits: Arc::new(Gate::new(limits::TARPITS)),
            doors: HashMap::new(),
            fronts: HashMap::new(),
            backs: HashMap::new(),
            servers: HashMap::new(),
            rules: HashMap::new(),
            of_cluster: None,
            rates: HashMap::new(),
            places: HashMap::new(),
            tables: HashMap::new(),
            lines: HashMap::new(),
            remembered: HashMap::new(),
        }
    }

    pub(crate) fn front(&mut self, name: &Arc<str>) -> Arc<FrontShared> {
        let workers = self.workers;
        let make = || FrontShared {
            name: name.clone(),
            gate: Arc::new(Gate::new(0)),
            rate: Rate::default(),
            request_rate: Rate::default(),
            workers: each(workers),
        };
        self.fronts.entry(name.clone()).or_insert_with(|| Arc::new(make())).clone()
    }

    /// The limit of a listener that has one of its own.
    pub(crate) fn door(&mut self, address: SocketAddr) -> Arc<Gate> {
        self.doors.entry(address).or_insert_with(|| Arc::new(Gate::new(u32::MAX))).clone()
    }

    /// Connections open now, all frontends.
    pub(crate) fn open(&self) -> u32 {
        self.fronts.values().map(|f| f.gate.open.load(SeqCst)).sum()
    }

    /// How often a rule matched, by worker.
    pub(crate) fn rule(&mut self, front: &Arc<str>, rule: &Arc<str>) -> Hits {
        let workers = self.workers;
        let make = || (0..workers).map(|_| Counter::default()).collect();
        self.rules.entry((front.clone(), rule.clone())).or_insert_with(make).clone()
    }

    /// The counters of a rate; as long as the plan says the same of it they go on counting.
    pub(crate) fn rates(&mut self, of: Counted<plan::Rate>) -> Arc<Rates> {
        let (place, rule, at, rate) = of;
        // What balancers know it by: the limit may be another while plans differ.
        let plan::Rate { key, measure, per, over: _, keys: _ } = &rate;
        let words = format!("{place}\n{rule}\n{at}\n{key:?}\n{measure:?}\n{per:?}");
        let shared =
            self.of_cluster.clone().map(|keyed| (std::hash::BuildHasher::hash_one(&keyed, words), keyed));
        let number = shared.as_ref().map(|(number, _)| *number);
        let plan = rate.clone();
        in_use(&mut self.rates, (place, rule, at, (rate, number)), || Rates::new(&plan, shared))
    }

    /// Those that balancers count together.
    pub(crate) fn shared_rates(&self) -> Vec<Arc<Rates>> {
        self.rates.values().filter_map(Weak::upgrade).filter(|rates| rates.number.is_some()).collect()
    }

    /// The places of a limit; how many there are of a key may change.
    pub(crate) fn places(&mut self, of: Counted<Key>) -> Arc<Places> {
        in_use(&mut self.places, of, Places::new)
    }

    /// A backend's table; it stays as long as keys are found in the same place.
    pub(crate) fn table(&mut self, backend: &Arc<str>, plan: &plan::Stick) -> Arc<Table> {
        let of = (backend.clone(), plan.key.clone());
        in_use(&mut self.tables, of, || Table::new(plan.expire))
    }

    /// Those who wait before a frontend, across plans.
    pub(crate) fn line(&mut self, front: &Arc<str>, now_ms: u64) -> Arc<Line> {
        let issuer = || std::hash::BuildHasher::hash_one(&std::hash::RandomState::new(), front);
        self.lines.entry(front.clone()).or_insert_with(|| Arc::new(Line::new(issuer(), now_ms))).clone()
    }

    pub(crate) fn back(&mut self, name: &Arc<str>) -> Arc<BackShared> {
        let workers = self.workers;
        let make = || BackShared {
            name: name.clone(),
            servers: Mutex::default(),
            active: AtomicU32::new(0),
            changes: AtomicU32::new(0),
            all_backups: AtomicBool::new(false),
            breaker: Mutex::default(),
            is_open: AtomicBool::new(false),
            panic: AtomicU8::new(0),
            full: AtomicU32::new(0),
            queue: Mutex::default(),
            queued: AtomicU32::new(0),
            peak: Peak::default(),
            queue_peak: Peak::default(),
            rate: Rate::default(),
            client_aborts: each(workers),
            unserved: each(workers),
        };
        self.backs.entry(name.clone()).or_insert_with(|| Arc::new(make())).clone()
    }

    pub(crate) fn server(&mut self, backend: &Arc<str>, name: &Arc<str>) -> Arc<ServerShared> {
        let (workers, id) = (self.workers, self.servers.len() as u32 + 1);
        let remembered = self.remembered.get(&(backend.to_string(), name.to_string())).copied();
        let (up, known) = (remembered.unwrap_or(true), remembered.is_some());
        let make = || ServerShared {
            id,
            backend: backend.clone(),
            name: name.clone(),
            up: AtomicBool::new(up),
            active: AtomicU32::new(0),
            peak: Peak::default(),
            rate: Rate::default(),
            limit: AtomicU32::new(u32::MAX),
            full_limit: AtomicU32::new(u32::MAX),
            least: AtomicU32::new(0),
            ramp: AtomicU8::new(100),
            agent: AtomicU8::new(100),
            put_down: AtomicBool::new(false),
            pressed: AtomicBool::new(false),
            unknown: AtomicBool::new(!known),
            backup: AtomicBool::new(false),
            enabled: AtomicBool::new(false),
            idle: AtomicU32::new(0),
            check: Mutex::new(Checked {
                checked: false,
                what: String::new(),
                took_ms: 0,
                since: Instant::now(),
                downs: 0,
                failures: 0,
            }),
            observed: Observed::default(),
            workers: each(workers),
        };
        self.servers.entry((backend.clone(), name.clone())).or_insert_with(|| Arc::new(make())).clone()
    }

    /// Nothing may be given to any server until a plan enables it.
    pub(crate) fn disable_servers(&self) {
        self.servers.values().for_each(|s| s.enabled.store(false, Relaxed));
    }
}

#[cfg(test)]
mod average_tests {
    use super::*;

    #[test]
    fn averages_follow_the_last_1024_requests_of_all_workers() {
        let (one, two, idle) = (Averages::default(), Averages::default(), Averages::default());
        assert_eq!(Averages::of([&one].into_iter()), [0; 4]);
        for _ in 0..20 {
            one.add([-1, 10, 100, 110]);
            two.add([0, 30, 100, 130]);
        }
        let [queue, connect, response, total] = Averages::of([&one, &two, &idle].into_iter());
        assert_eq!(queue, 0);
        assert!((19..=20).contains(&connect) && (98..=100).contains(&response), "{connect} {response}");
        assert!((118..=120).contains(&total), "{total}");
        for _ in 0..20_000 {
            one.add([0, 0, 200, 0]);
        }
        let [_, connect, response, _] = Averages::of([&one].into_iter());
        // Whole numbers forget a little less than all.
        assert!(connect <= 1 && (199..=201).contains(&response), "{connect} {response}");
    }
}
