//! Active health checks. They run on the process's main thread, which carries no traffic, so that load
//! does not delay them.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use relais_balance::{Health, Heard, Turns, hash};
use relais_base::Rng;
use relais_checks::{AgentAdmin, AgentSaid};
use relais_config::plan;
use relais_ipc::files::Files;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use crate::counters::{BackShared, ServerShared, lock};
use crate::outliers;
use crate::peers::{Checked, Peers};
use crate::probe::{Outcome, Way, ask_agent, probe};
use crate::tls;

/// Shortest time that an agent has to answer.
const AGENT_PATIENCE: Duration = Duration::from_secs(1);
/// How often it is said that a failing server stays.
const SPARED_EVERY: Duration = Duration::from_secs(10);

/// A server went up or down.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) server: Arc<ServerShared>,
    pub(crate) backend: Arc<BackShared>,
    pub(crate) up: bool,
}

/// What decides whether a running check goes on as it is.
#[derive(Clone, PartialEq)]
struct Subject {
    check: plan::Check,
    address: SocketAddr,
    send_proxy: Option<plan::ProxyVersion>,
    tls: Option<tls::Connects>,
    http2: bool,
    connect: Duration,
    limit: Duration,
    slow_start: Option<Duration>,
    observe: Option<plan::Observe>,
    /// Where its agent is.
    agent: Option<SocketAddr>,
    /// The password of the check, or why it cannot be had.
    secret: Result<Vec<u8>, String>,
}

/// A check that runs.
struct Running {
    subject: Subject,
    task: JoinHandle<()>,
    /// The number by which the nodes that share it know it, and where it hears what the others find.
    shared: Option<(u64, UnboundedSender<Word>)>,
}

/// What another node has found, or that it is gone.
type Word = (Arc<str>, Option<bool>);

/// The running checks, by id of the server.
pub(crate) struct Checks {
    running: HashMap<u32, Running>,
    peers: Rc<Peers>,
    /// Who looks for outliers, by backend.
    outliers: HashMap<Arc<str>, (plan::Outlier, Vec<u32>, JoinHandle<()>)>,
    /// Servers that an operator has put down.
    held: HashSet<u32>,
    /// What the programs of `check exec` said last, by their commands.
    scripts: HashMap<String, watch::Sender<Option<bool>>>,
    changes: UnboundedSender<Change>,
}

impl Checks {
    /// No checks yet; verdicts will go to `changes`, and what is found in checks that are shared to `peers`.
    pub(crate) fn new(changes: UnboundedSender<Change>, peers: Rc<Peers>) -> Checks {
        Checks {
            running: HashMap::new(),
            peers,
            outliers: HashMap::new(),
            held: HashSet::new(),
            scripts: HashMap::new(),
            changes,
        }
    }

    /// Another node has checked something, or is gone.
    pub(crate) fn heard(&self, Checked { node, what }: &Checked) {
        for (number, others) in self.running.values().filter_map(|running| running.shared.as_ref()) {
            match what {
                Some((server, ok)) if server == number => drop(others.send((node.clone(), Some(*ok)))),
                None => drop(others.send((node.clone(), None))),
                Some(_) => {}
            }
        }
    }

    /// A program of `check exec`, or of something else, has ended otherwise than before.
    pub(crate) fn script(&mut self, command: &str, up: bool) {
        self.scripts.entry(command.to_owned()).or_default().send_replace(Some(up));
    }

    /// Checks the servers of these backends, and no others. A check that stays the same goes on undisturbed.
    pub(crate) fn set<'a>(
        &mut self,
        backends: impl Iterator<Item = (&'a plan::Backend, &'a Arc<BackShared>, &'a [Arc<ServerShared>])>,
        connects: &[Option<tls::Connects>],
        files: &Files,
        node: &str,
    ) {
        let mut before = std::mem::take(&mut self.running);
        let mut looking = std::mem::take(&mut self.outliers);
        let connects = connects.iter().cloned().chain(std::iter::repeat(None));
        for ((plan, backend, servers), tls) in backends.zip(connects) {
            if let Some(outlier) = plan.outlier {
                let ids: Vec<u32> = servers.iter().map(|server| server.id).collect();
                let known = looking.remove(&plan.name);
                let known = known.filter(|(as_ever, of, _)| *as_ever == outlier && *of == ids);
                let running = known.unwrap_or_else(|| {
                    (outlier, ids, tokio::task::spawn_local(outliers::watch(outlier, servers.to_vec())))
                });
                self.outliers.insert(plan.name.clone(), running);
            }
            for (place, (server_plan, server)) in plan.servers.iter().zip(servers).enumerate() {
                let down = server_plan.admin == plan::Admin::Down;
                lock(&server.check).checked = plan.check.is_some() && !down;
                server.put_down.store(down, Relaxed);
                if down {
                    self.hold(server, backend);
                    continue;
                }
                let returns = self.held.remove(&server.id);
                let Some(check) = &plan.check else {
                    // Nobody looks any more: it is taken for well.
                    server.observed.set(None);
                    if !server.up.swap(true, Relaxed) {
                        backend.change();
                        backend.dispatch();
                        let change = Change { server: server.clone(), backend: backend.clone(), up: true };
                        let _ = self.changes.send(change);
                    }
                    continue;
                };
                // Another port speaks another language, mostly: as in HAProxy, neither TLS nor the PROXY header is for it.
                let elsewhere = check.elsewhere(server_plan);
                let subject = Subject {
                    check: check.clone(),
                    address: elsewhere.unwrap_or(server_plan.address),
                    send_proxy: server_plan.send_proxy.filter(|_| elsewhere.is_none()),
                    tls: tls.clone().filter(|_| elsewhere.is_none()),
                    http2: server_plan.http2 && elsewhere.is_none(),
                    secret: secret(check, files),
                    // As in HAProxy: a dead machine must not hold up the next check.
                    connect: plan.timeout.connect.min(check.every),
                    limit: plan.timeout.check,
                    slow_start: server_plan.slow_start,
                    observe: plan.observe.clone(),
                    agent: check.agent.as_ref().map(|agent| {
                        SocketAddr::new(agent.address.unwrap_or(server_plan.address.ip()), agent.port)
                    }),
                };
                server.observed.set(plan.observe.as_ref());
                if let Some(old) = before.remove(&server.id) {
                    if old.subject == subject {
                        self.running.insert(server.id, old);
                        continue;
                    }
                    old.task.abort();
                }
                server.agent.store(100, Relaxed);
                // Starts are spread over one interval, so that servers are not all asked at once.
                let share = if returns { 0.0 } else { place as f64 / plan.servers.len().max(1) as f64 };
                let start = check.every.mul_f64(share);
                let script = check.script(server_plan);
                let script = script
                    .map(|script| self.scripts.entry(script.command.to_string()).or_default().subscribe());
                let (mates, shared) = check.shared.then(|| self.share(&subject, server, node)).unzip();
                let watch = Watch::new(
                    subject.clone(),
                    server,
                    (backend, servers),
                    returns,
                    self.changes.clone(),
                    (script, mates),
                );
                let task = tokio::task::spawn_local(watch.run(start));
                self.running.insert(server.id, Running { subject, task, shared });
            }
        }
        before.into_values().for_each(|running| running.task.abort());
        looking.into_values().for_each(|(.., task)| task.abort());
        self.scripts.retain(|_, said| said.receiver_count() > 0 || said.borrow().is_some());
    }

    /// What the check of a server needs that nodes take turns in, and how it is reached.
    fn share(
        &self,
        subject: &Subject,
        server: &ServerShared,
        node: &str,
    ) -> (Mates, (u64, UnboundedSender<Word>)) {
        let Subject { check, address, .. } = subject;
        let number = hash(format!("{}\n{}\n{address}\n{check:?}", server.backend, server.name).as_bytes());
        let (sender, words) = unbounded_channel();
        let peers = self.peers.clone();
        (Mates { number, words, turns: Turns::new(node), peers, origin: Instant::now() }, (number, sender))
    }

    /// Takes out a server that an operator has put down; nobody asks it anything until it is made ready.
    fn hold(&mut self, server: &Arc<ServerShared>, backend: &Arc<BackShared>) {
        if self.held.insert(server.id) {
            let mut known = lock(&server.check);
            known.what = "put down by an operator".to_owned();
            known.since = Instant::now();
        }
        if server.up.swap(false, Relaxed) {
            backend.change();
            tracing::warn!("backend {}: server {} is down: an operator says so", server.backend, server.name);
            let _ = self.changes.send(Change { server: server.clone(), backend: backend.clone(), up: false });
        }
    }
}

/// The nodes that take turns in a check.
struct Mates {
    number: u64,
    words: UnboundedReceiver<Word>,
    turns: Turns,
    peers: Rc<Peers>,
    origin: Instant,
}

impl Mates {
    fn now_ms(&self) -> u64 {
        self.origin.elapsed().as_millis() as u64
    }

    /// How long it is to our turn.
    fn turn(&mut self, every: Duration) -> Duration {
        let now_ms = self.now_ms();
        let next_ms = self.turns.next_ms(now_ms, every.as_millis() as u64);
        Duration::from_millis(next_ms.saturating_sub(now_ms))
    }

    /// Waits for ever where there are none.
    async fn word(mates: &mut Option<Mates>) -> Word {
        match mates {
            Some(mates) => match mates.words.recv().await {
                Some(word) => word,
                None => std::future::pending().await,
            },
            None => std::future::pending().await,
        }
    }
}

/// The check of one server.
struct Watch {
    subject: Subject,
    server: Arc<ServerShared>,
    backend: Arc<BackShared>,
    /// All of the backend, this one included.
    servers: Box<[Arc<ServerShared>]>,
    changes: UnboundedSender<Change>,
    health: Health,
    ramp: Option<JoinHandle<()>>,
    /// When it was said last that a failing server stays.
    spared: Option<Instant>,
    /// What its agent says, as it comes.
    agent: UnboundedReceiver<Result<AgentSaid, String>>,
    /// What it has said.
    said: Said,
    /// What its check found last.
    found: String,
    /// The last word of the program that checks it, if one does.
    script: Option<watch::Receiver<Option<bool>>>,
    mates: Option<Mates>,
    /// Whether it was well when it was looked at from here.
    was_well: Option<bool>,
    /// Asks it, for as long as this is there.
    _asking: JoinSet<()>,
    /// Until then it is out, for it failed more than others.
    out: Option<tokio::time::Instant>,
    /// Until then failures do not count.
    grace: Instant,
    chance: Rng,
}

/// What an agent has said of its server.
#[derive(Default)]
struct Said {
    /// Why the server is taken for dead.
    dead: Option<String>,
    maint: Option<String>,
    drain: bool,
    weight: Option<u8>,
    /// Its last line.
    text: String,
    /// It was complained of: it does not answer, or is not understood.
    complained: bool,
}

impl Watch {
    fn new(
        subject: Subject,
        server: &Arc<ServerShared>,
        (backend, servers): (&Arc<BackShared>, &[Arc<ServerShared>]),
        returns: bool,
        changes: UnboundedSender<Change>,
        (script, mates): (Option<watch::Receiver<Option<bool>>>, Option<Mates>),
    ) -> Watch {
        let check = &subject.check;
        let seen = !lock(&server.check).what.is_empty();
        let mut health = first_health(check, server.is_up(), seen);
        let grace = Instant::now() + if seen { Duration::ZERO } else { check.grace };
        let (sender, agent) = unbounded_channel();
        let mut asking = JoinSet::new();
        if let (Some(address), Some(plan)) = (subject.agent, &check.agent) {
            asking.spawn_local(ask_for_ever(address, plan.clone(), sender));
        }
        let chance = Rng::new(RandomState::new().hash_one(server.id));
        if returns {
            // An operator says that it is well: the first good check confirms it.
            for _ in 1..check.rise {
                health.record(true);
            }
        }
        let (server, backend, servers) = (server.clone(), backend.clone(), servers.into());
        Watch {
            subject,
            server,
            backend,
            servers,
            changes,
            health,
            ramp: None,
            spared: None,
            agent,
            script,
            mates,
            was_well: None,
            said: Said::default(),
            found: String::new(),
            _asking: asking,
            out: None,
            grace,
            chance,
        }
    }

    /// Checks the server for ever.
    async fn run(mut self, start: Duration) {
        if let Some(script) = self.script.take() {
            return self.run_by(script).await;
        }
        let mut in_a_row = (true, 0u32);
        let mut next = tokio::time::Instant::now() + start;
        loop {
            let server = self.server.clone();
            tokio::select! {
                biased;
                () = tokio::time::sleep_until(next) => {}
                () = server.observed.reached() => {
                    self.react();
                    next = next.min(tokio::time::Instant::now() + self.pause());
                    continue;
                }
                Some(said) = self.agent.recv() => {
                    self.hear(said);
                    continue;
                }
                (time, why) = server.observed.sent_out() => {
                    self.go_out(time, &why);
                    continue;
                }
                () = over(self.out) => {
                    self.come_back();
                    continue;
                }
                (node, word) = Mates::word(&mut self.mates) => {
                    next = self.take_turns(&node, word, next);
                    continue;
                }
            }
            let begun = tokio::time::Instant::now();
            let outcome = self.ask().await;
            self.was_well = Some(outcome.ok);
            if let Some(mates) = &mut self.mates {
                mates.turns.looked(mates.now_ms());
                mates.peers.tell_check(mates.number, outcome.ok);
            }
            in_a_row = if in_a_row.0 == outcome.ok { (outcome.ok, in_a_row.1 + 1) } else { (outcome.ok, 1) };
            let counts = outcome.ok || Instant::now() >= self.grace;
            let change = if counts { self.health.record(outcome.ok) } else { None };
            next = self.next(begun);
            {
                let mut known = lock(&self.server.check);
                known.took_ms = outcome.took.as_millis() as u64;
                known.failures += u64::from(!outcome.ok);
            }
            self.note(&outcome.what);
            if let Some(up) = change {
                let of = if up { self.subject.check.rise } else { self.subject.check.fall };
                self.settle(&format!("{} ({} of {of} checks)", outcome.what, in_a_row.1));
            }
        }
    }

    /// Has a program's word, which control runs and has counted in a row.
    async fn run_by(mut self, mut script: watch::Receiver<Option<bool>>) {
        self.health = Health::new(1, 1, self.server.is_up());
        loop {
            let word = *script.borrow_and_update();
            if let Some(up) = word {
                let what =
                    if up { "its program ends with 0" } else { "its program fails, see control's log" };
                self.note(what);
                self.health.record(up);
                self.settle(what);
            }
            let server = self.server.clone();
            tokio::select! {
                changed = script.changed() => if changed.is_err() {
                    return; // there are no checks any more
                },
                Some(said) = self.agent.recv() => self.hear(said),
                () = server.observed.reached() => self.react(),
                (time, why) = server.observed.sent_out() => self.go_out(time, &why),
                () = over(self.out) => self.come_back(),
            }
        }
    }

    async fn ask(&self) -> Outcome {
        let Subject { check, address, send_proxy, tls, http2, connect, limit, secret, .. } = &self.subject;
        match secret {
            Ok(secret) => {
                let way = Way { send_proxy: *send_proxy, tls: tls.as_ref(), http2: *http2 };
                probe(&check.kind, *address, way, secret, (*connect, *limit)).await
            }
            Err(why) => Outcome { ok: false, what: why.clone(), took: Duration::ZERO },
        }
    }

    fn pause(&self) -> Duration {
        pause(&self.subject.check, &self.health)
    }

    /// How much longer or shorter the next interval is.
    fn stretch(&mut self) -> f64 {
        let jitter = f64::from(self.subject.check.jitter) / 100.0;
        1.0 + jitter * (self.chance.below(2_001) as f64 / 1_000.0 - 1.0)
    }

    /// Nothing points to a change of a server that is well.
    fn is_well(&self) -> bool {
        let (firm, of) = self.health.progress();
        self.health.is_up() && firm == of
    }

    /// After a check that was begun then, when the next one is: in our turn, if it is well and others take turns with us.
    fn next(&mut self, begun: tokio::time::Instant) -> tokio::time::Instant {
        let (now, every, stretch) = (tokio::time::Instant::now(), self.subject.check.every, self.stretch());
        match (self.is_well(), &mut self.mates) {
            (true, Some(mates)) => now + mates.turn(every).mul_f64(stretch),
            _ => (begun + self.pause().mul_f64(stretch)).max(now),
        }
    }

    /// Another node has found something, or is gone: when it is looked at next from here.
    fn take_turns(
        &mut self,
        node: &str,
        word: Option<bool>,
        next: tokio::time::Instant,
    ) -> tokio::time::Instant {
        let now = tokio::time::Instant::now();
        let Some(mates) = &mut self.mates else { return next };
        let Some(ok) = word else {
            mates.turns.gone(node);
            return next.min(now + self.pause());
        };
        match mates.turns.heard(node, ok, mates.now_ms()) {
            Heard::Change if self.was_well != Some(ok) => now,
            Heard::Turn if self.is_well() => self.next(now),
            // It is known here, or it is well there and not here.
            Heard::Change | Heard::Turn | Heard::Nothing => next,
        }
    }

    /// The traffic says that the server is ill.
    fn react(&mut self) {
        let Some(plan::Observe { errors, on_error, most_down, .. }) = self.subject.observe else { return };
        if !self.health.is_up() {
            return;
        }
        let (firm, _) = self.health.progress();
        let failures = match on_error {
            plan::OnError::FastInter => 0,
            plan::OnError::FailCheck => 1,
            plan::OnError::SuddenDeath => firm - 1,
            plan::OnError::MarkDown => firm,
        };
        let down = self.servers.iter().filter(|server| !server.is_up()).count() + 1;
        if failures == firm && down * 100 > usize::from(most_down) * self.servers.len() {
            return self.spare(errors, down - 1, most_down);
        }
        let change = (0..failures).filter_map(|_| self.health.record(false)).last();
        if change == Some(false) {
            let what = format!("{errors} requests in a row failed");
            self.note(&what);
            self.settle(&what);
        }
    }

    /// It fails more requests than the others do.
    fn go_out(&mut self, time: Duration, why: &str) {
        self.out = Some(tokio::time::Instant::now() + time);
        self.note(why);
        self.settle(why);
    }

    fn come_back(&mut self) {
        self.out = None;
        self.settle("its time out is over");
    }

    /// The server is up while its check and its agent say so, and it is not out.
    fn settle(&mut self, why: &str) {
        let says_so = self.said.dead.is_none() && self.said.maint.is_none();
        let up = self.health.is_up() && says_so && self.out.is_none();
        if up != self.server.is_up() {
            self.turn(up, why);
        }
    }

    /// Its agent has said something, or does not answer; then what it said last holds.
    fn hear(&mut self, said: Result<AgentSaid, String>) {
        let (backend, name) = (self.server.backend.clone(), self.server.name.clone());
        let said = match said {
            Ok(said) => said,
            Err(why) => {
                if !std::mem::replace(&mut self.said.complained, true) {
                    tracing::warn!(
                        "backend {backend}: the agent of server {name} does not answer: {why}; what it said last holds"
                    );
                }
                return;
            }
        };
        let complained = std::mem::take(&mut self.said.complained);
        if let Some(word) = &said.unknown {
            if !complained {
                tracing::warn!(
                    "backend {backend}: the agent of server {name} said {word}, which means nothing here"
                );
            }
            self.said.complained = true;
        }
        let held = &mut self.said;
        match said.up {
            Some(true) => held.dead = None,
            Some(false) => held.dead = Some(said.text.clone()),
            None => {}
        }
        match said.admin {
            Some(AgentAdmin::Ready) => (held.drain, held.maint) = (false, None),
            Some(AgentAdmin::Drain) => (held.drain, held.maint) = (true, None),
            Some(AgentAdmin::Maint) => (held.drain, held.maint) = (false, Some(said.text.clone())),
            None => {}
        }
        self.server.put_down.store(held.maint.is_some(), Relaxed);
        held.weight = said.weight.or(held.weight);
        held.text.clone_from(&said.text);
        if let Some(most) = said.max_connections
            && self.server.limit_by_agent(if most == 0 { u32::MAX } else { most })
        {
            tracing::info!("backend {backend}: server {name} may have {most} at a time: its agent says so");
            self.backend.change();
            self.backend.dispatch();
        }
        let percent = if held.drain { 0 } else { held.weight.unwrap_or(100) };
        let before = self.server.agent.swap(percent, Relaxed);
        if before != percent {
            tracing::info!(
                "backend {backend}: server {name} has {percent} % of its weight, was {before}: its agent says {}",
                said.text
            );
            self.backend.change();
            self.backend.dispatch();
        }
        let found = std::mem::take(&mut self.found);
        self.note(&found);
        self.settle(&format!("its agent says {}", said.text));
    }

    /// Has the status show what a check has found, and what the agent said last.
    fn note(&mut self, found: &str) {
        self.found = found.to_owned();
        lock(&self.server.check).what = match (found, &*self.said.text) {
            (found, "") => found.to_owned(),
            ("", said) => format!("its agent: {said}"),
            (found, said) => format!("{found}; its agent: {said}"),
        };
    }

    /// Too many others are down.
    fn spare(&mut self, errors: u32, down: usize, most_down: u8) {
        if self.spared.is_some_and(|at| at.elapsed() < SPARED_EVERY) {
            return;
        }
        self.spared = Some(Instant::now());
        tracing::warn!(
            "backend {}: {errors} requests in a row failed at server {}, and it stays: {down} of {} servers are down, and \
             `observe` takes out {most_down} % at most",
            self.server.backend,
            self.server.name,
            self.servers.len()
        );
    }

    /// The server goes up or down.
    fn turn(&mut self, up: bool, why: &str) {
        let (server, slow_start) = (&self.server, self.subject.slow_start);
        {
            let mut known = lock(&server.check);
            known.downs += u64::from(!up);
            known.since = Instant::now();
        }
        if let Some(ramp) = self.ramp.take() {
            ramp.abort();
        }
        server.set_ramp(if up && slow_start.is_some() { 1 } else { 100 });
        server.up.store(up, Relaxed);
        self.backend.change();
        if let (true, Some(time)) = (up, slow_start) {
            let ramp = start_slowly(server.clone(), self.backend.clone(), time);
            self.ramp = Some(tokio::task::spawn_local(ramp));
        }
        let (backend, name) = (&server.backend, &server.name);
        if up {
            tracing::info!("backend {backend}: server {name} is up: {why}");
        } else {
            tracing::warn!("backend {backend}: server {name} is down: {why}");
        }
        let change = Change { server: server.clone(), backend: self.backend.clone(), up };
        let _ = self.changes.send(change);
    }
}

/// Waits until then; without it for ever.
async fn over(end: Option<tokio::time::Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Asks an agent again and again; ends when nobody listens.
async fn ask_for_ever(
    address: SocketAddr,
    agent: plan::Agent,
    heard: UnboundedSender<Result<AgentSaid, String>>,
) {
    loop {
        let begun = tokio::time::Instant::now();
        let said = ask_agent(address, &agent.send, agent.every.max(AGENT_PATIENCE)).await;
        if heard.send(said).is_err() {
            return;
        }
        tokio::time::sleep_until(begun + agent.every).await;
    }
}

/// Lets a server that is back have more and more: HAProxy's `slowstart`, in steps of a hundredth. It goes on when the
/// check becomes another.
async fn start_slowly(server: Arc<ServerShared>, backend: Arc<BackShared>, time: Duration) {
    for percent in 2..=100 {
        tokio::time::sleep(time / 100).await;
        if !server.is_up() {
            return;
        }
        server.set_ramp(percent);
        backend.change();
        backend.dispatch();
    }
}

/// The password of a check, without the line's end that editors leave in files.
fn secret(check: &plan::Check, files: &Files) -> Result<Vec<u8>, String> {
    let Some(name) = check.secret() else { return Ok(Vec::new()) };
    let bytes = files.get(name)?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    Ok(bytes.strip_suffix(b"\r").unwrap_or(bytes).to_vec())
}

/// From the beginning of a check to that of the next: HAProxy's `inter`, `fastinter` and `downinter`.
fn pause(check: &plan::Check, health: &Health) -> Duration {
    let other = match (health.is_up(), health.progress()) {
        (true, (firm, of)) if firm == of => None,
        (false, (0, _)) => check.downinter,
        _ => check.fastinter,
    };
    other.unwrap_or(check.every)
}

/// What a new check begins with. A verdict that earlier checks have confirmed is firm: after a change of the
/// plan a server that was well stands `fall` failures, as before it.
fn first_health(check: &plan::Check, up: bool, confirmed: bool) -> Health {
    let mut health = Health::new(check.rise, check.fall, up);
    let firm = match check.init {
        _ if confirmed => up,
        plan::InitState::FullyUp => up,
        plan::InitState::Down if !up => {
            for _ in 1..check.rise {
                health.record(true);
            }
            false
        }
        _ => false,
    };
    if firm {
        health.record(true);
    }
    health
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(every: Duration) -> plan::Check {
        plan::Check {
            kind: plan::CheckKind::Tcp,
            every,
            fall: 3,
            rise: 2,
            fastinter: Some(every / 4),
            downinter: Some(every * 5),
            port: None,
            address: None,
            jitter: 0,
            init: plan::InitState::Up,
            grace: Duration::ZERO,
            agent: None,
            shared: false,
        }
    }

    #[test]
    fn checks_are_hurried_while_results_change_and_rare_while_a_server_is_down() {
        let every = Duration::from_secs(1);
        let (check, mut health) = (check(every), Health::new(2, 3, true));
        let mut after = |ok| {
            health.record(ok);
            pause(&check, &health)
        };
        let (fast, rare) = (every / 4, every * 5);
        assert_eq!([after(true), after(false), after(false)], [every, fast, fast]);
        assert_eq!([after(false), after(false), after(true), after(true)], [rare, rare, fast, every]);
    }

    /// How many rows of failures take a server down whose checks are well, with `fall` 3.
    fn rows(on_error: plan::OnError) -> Option<usize> {
        let (backend, name) = (Arc::from("app"), Arc::from("s1"));
        let mut registry = crate::counters::Registry::new(1);
        let (back, server) = (registry.back(&backend), registry.server(&backend, &name));
        let subject = Subject {
            check: check(Duration::from_secs(1)),
            address: SocketAddr::from(([127, 0, 0, 1], 1)),
            send_proxy: None,
            tls: None,
            http2: false,
            connect: Duration::ZERO,
            limit: Duration::ZERO,
            slow_start: None,
            observe: Some(plan::Observe { layer7: true, errors: 1, on_error, most_down: 100 }),
            agent: None,
            secret: Ok(Vec::new()),
        };
        let (changes, _heard) = tokio::sync::mpsc::unbounded_channel();
        let mut watch = Watch::new(
            subject,
            &server,
            (&back, std::slice::from_ref(&server)),
            false,
            changes,
            (None, None),
        );
        watch.health.record(true);
        let down = (1..5).find(|_| {
            watch.react();
            !server.is_up()
        });
        assert!(down.is_some() || on_error == plan::OnError::FastInter || watch.health.progress().0 == 1);
        down
    }

    #[test]
    fn a_row_of_failures_does_what_haproxy_does() {
        use plan::OnError::{FailCheck, FastInter, MarkDown, SuddenDeath};
        assert_eq!([MarkDown, FailCheck, SuddenDeath, FastInter].map(rows), [Some(1), Some(3), None, None]);
    }

    #[test]
    fn a_changed_check_trusts_a_server_that_was_seen_well() {
        let every = Duration::from_secs(1);
        let check = check(every);
        let failures = |mut health: Health| (1..).find(|_| health.record(false) == Some(false));
        assert_eq!(failures(first_health(&check, true, true)), Some(3));
        assert_eq!(failures(first_health(&check, true, false)), Some(1));
        assert!(!first_health(&check, false, true).is_up());
    }
}
