//! Balancers tell each other which server a key stays with: HAProxy's peers protocol between the nodes that run a frontend
//! together, and with HAProxies that the plan names. The nodes tell each other how often keys of rules came, too.
//!
//! All of it is the main thread's. What has changed in the tables comes a few times a second (`stick::keep`), and goes to one [`session`]
//! for each peer that is there; [`hello`] is how they begin. Of two nodes the one whose name comes first connects. Who meets asks the
//! other for everything; later only changes go over. What a peer says is learned unless a later word is known here, so
//! balancers that were apart agree.

mod hello;
mod session;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use aws_lc_rs::hmac;
use relais_cluster::peers::{Counts, put_checked, put_counts};
use relais_config::plan::Plan;
use relais_ipc::files::Files;
use relais_ipc::status::PeerStatus;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::counters::ServerShared;
use crate::keyed::{Keyed, Rates};
use crate::limits;
use crate::stick::Sticky;
use crate::worker::Setup;
use session::{Change, Session};

/// Shortest key of a cluster, characters.
const SHORTEST_KEY: usize = 32;

/// With whom tables are shared, as a plan has it for one node.
#[derive(Clone)]
pub(crate) struct Settings {
    name: Arc<str>,
    listen: SocketAddr,
    others: Vec<Other>,
    secret: Vec<u8>,
}

/// A balancer that shares our tables.
#[derive(Clone, Debug, PartialEq)]
struct Other {
    name: Arc<str>,
    /// Where it comes from.
    addresses: Vec<IpAddr>,
    /// Where it is connected to; `None`: it connects.
    dial: Option<SocketAddr>,
    is_haproxy: bool,
}

impl Settings {
    /// Those of a node; `None`: it shares nothing.
    ///
    /// # Errors
    /// A sentence, if the cluster's key is of no use.
    pub(crate) fn new(plan: &Plan, node: &str, files: &Files) -> Result<Option<Settings>, String> {
        let (Some(peers), Some(id)) = (&plan.peers, plan.node(node)) else { return Ok(None) };
        let node = &plan.nodes[usize::from(id.0)];
        let Some(link) = node.links.first() else { return Ok(None) };
        let rules = plan.frontends.iter().flat_map(|front| &front.rules);
        let mut rules = rules.chain(plan.backends.iter().flat_map(|backend| &backend.rules));
        let has_tables = plan.backends.iter().any(|backend| backend.stick.is_some());
        let has_checks = plan.backends.iter().any(|backend| backend.check.as_ref().is_some_and(|c| c.shared));
        if !has_tables && !has_checks && rules.all(|rule| rule.rates.is_empty()) {
            return Ok(None);
        }
        let nodes = plan.peers_of(id).map(|id| &plan.nodes[usize::from(id.0)]);
        let mut others: Vec<Other> = nodes
            .map(|other| Other {
                name: other.name.clone(),
                addresses: other.links.clone(),
                dial: other
                    .links
                    .first()
                    .filter(|_| node.name < other.name)
                    .map(|link| SocketAddr::new(*link, peers.port)),
                is_haproxy: false,
            })
            .collect();
        let mut secret = Vec::new();
        if !others.is_empty()
            && let Some(path) = &plan.cluster_key
        {
            secret = files.get(path).map_err(|why| format!("`peers`: {why}"))?.trim_ascii().to_vec();
            if secret.len() < SHORTEST_KEY {
                return Err(format!(
                    "`peers`: the cluster's key has at least {SHORTEST_KEY} characters; make one with `openssl rand -base64 48`"
                ));
            }
        }
        others.extend(peers.others.iter().map(|(name, address)| Other {
            name: name.clone(),
            addresses: vec![*address],
            dial: None,
            is_haproxy: true,
        }));
        Ok(Some(Settings {
            name: node.name.clone(),
            listen: SocketAddr::new(*link, peers.port),
            others,
            secret,
        }))
    }
}

impl Settings {
    /// Makes the hashes that the nodes have in common; `None`: there is no other.
    pub(crate) fn hashes(&self) -> Option<Keyed> {
        let has_nodes = self.others.iter().any(|other| !other.is_haproxy);
        has_nodes.then(|| Keyed::of_cluster(&self.secret))
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Settings) -> bool {
        (&self.name, self.listen, &self.others, &self.secret)
            == (&other.name, other.listen, &other.others, &other.secret)
    }
}

/// A table that is shared.
struct Local {
    name: Arc<str>,
    sticky: Sticky,
    servers: Vec<Arc<ServerShared>>,
}

impl Local {
    fn server(&self, id: u32) -> Option<&Arc<str>> {
        self.servers.iter().find(|server| server.id == id).map(|server| &server.name)
    }

    fn id(&self, name: &str) -> Option<u32> {
        self.servers.iter().find(|server| &*server.name == name).map(|server| server.id)
    }
}

/// What a node says of a check that nodes share.
#[derive(Clone, Debug)]
pub(crate) struct Checked {
    /// Its name.
    pub(crate) node: Arc<str>,
    /// The number of the check, and whether the server was well; `None`: the node is gone.
    pub(crate) what: Option<(u64, bool)>,
}

/// What all tasks of it know.
struct Shared {
    checked: Option<UnboundedSender<Checked>>,
    settings: Settings,
    key: hmac::Key,
    tables: RefCell<Vec<Local>>,
    rates: RefCell<Vec<Arc<Rates>>>,
    sessions: RefCell<HashMap<Arc<str>, Rc<Session>>>,
    figures: HashMap<Arc<str>, Figures>,
    /// Others have taken its place.
    over: Cell<bool>,
}

impl Shared {
    /// Has the other nodes, not HAProxies, hear these messages, in which so much is told.
    fn news(&self, messages: &Rc<[u8]>, told: u64) {
        for (name, session) in self.sessions.borrow().iter().filter(|(_, session)| !session.is_haproxy) {
            if session.hear_news(messages) {
                add(&self.figures[name].sent, told);
            }
        }
    }

    /// Another node has found something, or is gone.
    fn checked(&self, node: &Arc<str>, what: Option<(u64, bool)>) {
        if let Some(checked) = &self.checked {
            let _ = checked.send(Checked { node: node.clone(), what });
        }
    }

    /// Messages with all rates.
    fn all_rates(&self) -> (Rc<[u8]>, u64) {
        let (mut out, mut counts, mut told, now) = (Vec::new(), Vec::new(), 0, Instant::now());
        for rates in &*self.rates.borrow() {
            rates.copy(now, |key, rate| counts.push((key, rate)));
            told += counts.len() as u64;
            put_counts(&mut out, rates.number.unwrap_or_default(), true, counts.drain(..));
        }
        (out.into(), told)
    }

    /// Counts what another node has counted; how many of it are of use here, and how many are not.
    fn learn_rates(&self, table: u64, counts: Counts<'_>, is_all: bool) -> (u64, u64) {
        let (all, now) = (self.rates.borrow(), Instant::now());
        let Some(rates) = all.iter().find(|rates| rates.number == Some(table)) else {
            return (0, counts.count() as u64);
        };
        let learned = counts.map(|(key, n)| rates.learn(key, n, is_all, now)).count();
        (learned as u64, 0)
    }
}

/// What there is to say of a peer.
#[derive(Default)]
struct Figures {
    connected: Cell<bool>,
    connections: Cell<u64>,
    sent: Cell<u64>,
    learned: Cell<u64>,
    ignored: Cell<u64>,
}

fn add(counter: &Cell<u64>, n: u64) {
    counter.set(counter.get() + n);
}

/// What its tasks share, and the tasks.
type Running = (Rc<Shared>, Vec<JoinHandle<()>>);

/// The balancers that share tables with this one.
#[derive(Default)]
pub(crate) struct Peers {
    running: RefCell<Option<Running>>,
    checked: Option<UnboundedSender<Checked>>,
}

impl Peers {
    /// Nobody yet; what nodes find in checks will go to `checked`.
    pub(crate) fn new(checked: UnboundedSender<Checked>) -> Peers {
        Peers { checked: Some(checked), ..Peers::default() }
    }

    /// Tells the other nodes what a check that they share has found.
    pub(crate) fn tell_check(&self, number: u64, ok: bool) {
        if let Some((shared, _)) = &*self.running.borrow() {
            let mut out = Vec::new();
            put_checked(&mut out, number, ok);
            shared.news(&out.into(), 0);
            shared.sessions.borrow().values().for_each(|session| session.wake());
        }
    }

    /// Shares the tables of this setup, and these rates, as these settings say.
    pub(crate) fn set(&self, settings: Option<Settings>, setup: &Setup, rates: Vec<Arc<Rates>>) {
        let tables: Vec<Local> = setup
            .backs
            .iter()
            .zip(&setup.sticky)
            .filter_map(|((plan, _, servers), sticky)| {
                let sticky = sticky.clone()?;
                Some(Local { name: plan.name.clone(), sticky, servers: servers.clone() })
            })
            .collect();
        if let (Some((shared, _)), Some(settings)) = (&*self.running.borrow(), &settings) {
            let known = shared.tables.borrow();
            let same =
                |(a, b): (&Local, &Local)| a.name == b.name && Arc::ptr_eq(&a.sticky.table, &b.sticky.table);
            if shared.settings == *settings
                && known.len() == tables.len()
                && known.iter().zip(&tables).all(same)
            {
                drop(known);
                *shared.tables.borrow_mut() = tables;
                *shared.rates.borrow_mut() = rates;
                return;
            }
        }
        self.stop();
        let Some(settings) = settings else { return };
        let shared = Rc::new(Shared {
            key: hmac::Key::new(hmac::HMAC_SHA256, &settings.secret),
            figures: settings.others.iter().map(|other| (other.name.clone(), Figures::default())).collect(),
            tables: RefCell::new(tables),
            rates: RefCell::new(rates),
            checked: self.checked.clone(),
            sessions: RefCell::default(),
            over: Cell::new(false),
            settings,
        });
        let mut tasks = vec![tokio::task::spawn_local(listen(shared.clone()))];
        for other in shared.settings.others.iter().filter(|other| other.dial.is_some()) {
            tasks.push(tokio::task::spawn_local(dial(shared.clone(), other.clone())));
        }
        *self.running.borrow_mut() = Some((shared, tasks));
    }

    /// A key of the table of this number stays with a server until then.
    pub(crate) fn tell(&self, table: usize, key: &[u8], server: &Arc<str>, ends: Instant) {
        let running = self.running.borrow();
        let Some((shared, _)) = &*running else { return };
        let sessions = shared.sessions.borrow();
        if !sessions.is_empty() {
            let change = Change { table, key: key.into(), server: server.clone(), ends };
            sessions.values().for_each(|session| session.add(&change));
        }
    }

    /// Tells the other nodes what the workers have counted since the last time.
    pub(crate) fn tell_rates(&self) {
        let running = self.running.borrow();
        let Some((shared, _)) = &*running else { return };
        let (mut out, mut counts, mut told) = (Vec::new(), Vec::new(), 0);
        for rates in &*shared.rates.borrow() {
            rates.take_untold(|key, n| counts.push((key, n)));
            told += counts.len() as u64;
            put_counts(&mut out, rates.number.unwrap_or_default(), false, counts.drain(..));
        }
        if !out.is_empty() {
            shared.news(&out.into(), told);
        }
    }

    /// That was all for now.
    pub(crate) fn wake(&self) {
        if let Some((shared, _)) = &*self.running.borrow() {
            shared.sessions.borrow().values().for_each(|session| session.wake());
        }
    }

    /// Ends all of it: another generation does it, or nobody.
    pub(crate) fn stop(&self) {
        if let Some((shared, tasks)) = self.running.borrow_mut().take() {
            shared.over.set(true);
            tasks.iter().for_each(JoinHandle::abort);
            shared.sessions.borrow().values().for_each(|session| session.end());
        }
    }

    /// How things are with each of them.
    pub(crate) fn status(&self) -> Vec<PeerStatus> {
        let running = self.running.borrow();
        let Some((shared, _)) = &*running else { return Vec::new() };
        let one = |other: &Other| {
            let figures = &shared.figures[&other.name];
            PeerStatus {
                name: other.name.to_string(),
                haproxy: other.is_haproxy,
                connected: figures.connected.get(),
                connections_total: figures.connections.get(),
                sent_total: figures.sent.get(),
                learned_total: figures.learned.get(),
                ignored_total: figures.ignored.get(),
            }
        };
        shared.settings.others.iter().map(one).collect()
    }
}

/// Takes the connections of peers.
async fn listen(shared: Rc<Shared>) {
    let address = shared.settings.listen;
    let mut complained = false;
    let listener = loop {
        match open(address) {
            Ok(listener) => break listener,
            Err(error) if !complained => {
                complained = true;
                tracing::error!("peers: cannot listen on {address}: {error}; tried again until it can");
            }
            Err(_) => {}
        }
        tokio::time::sleep(limits::PEER_RETRY).await;
    };
    let greeting = Rc::new(Cell::new(0u32));
    loop {
        let Ok((stream, from)) = listener.accept().await else {
            tokio::time::sleep(limits::ACCEPT_PAUSE).await;
            continue;
        };
        let ip = from.ip().to_canonical();
        if !shared.settings.others.iter().any(|other| other.addresses.contains(&ip)) {
            tracing::warn!(
                "peers: {ip} is no peer's address: cut off; write `peer NAME \"{ip}\"` if it is one"
            );
            continue;
        }
        if greeting.get() >= limits::PEERS_GREETING {
            continue; // who dials and says nothing keeps no more than these waiting
        }
        greeting.set(greeting.get() + 1);
        let (shared, greeting) = (shared.clone(), greeting.clone());
        tokio::task::spawn_local(async move {
            let mut stream = stream;
            let hello =
                tokio::time::timeout(limits::PEER_SILENCE, hello::answer(&shared, ip, &mut stream)).await;
            greeting.set(greeting.get() - 1);
            match hello {
                Ok(Ok(other)) => session::run(shared, other, stream).await,
                Ok(Err(why)) => tracing::warn!("peers: {ip} is cut off: {why}"),
                Err(_) => tracing::warn!("peers: {ip} is cut off: it says nothing"),
            }
        });
    }
}

fn open(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // While one generation hands over to the next, both listen.
    socket.set_reuseport(true)?;
    socket.bind(address)?;
    socket.listen(16)
}

/// Connects to a peer, again and again.
async fn dial(shared: Rc<Shared>, other: Other) {
    let Some(to) = other.dial else { return };
    let mut pause = limits::PEER_RETRY;
    let mut complained = false;
    loop {
        let connected = tokio::time::timeout(limits::PEER_SILENCE, meet(&shared, &other, to)).await;
        let why = match connected {
            Ok(Ok(stream)) => {
                (pause, complained) = (limits::PEER_RETRY, false);
                session::run(shared.clone(), other.clone(), stream).await;
                tokio::time::sleep(pause).await;
                continue;
            }
            Ok(Err(why)) => why,
            Err(_) => "it does not answer".to_owned(),
        };
        if !std::mem::replace(&mut complained, true) {
            tracing::warn!("peers: {} ({to}) cannot be reached: {why}; tried again until it can", other.name);
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(limits::PEER_RETRY_MOST);
    }
}

async fn meet(shared: &Shared, other: &Other, to: SocketAddr) -> Result<TcpStream, String> {
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let socket = socket.map_err(|error| error.to_string())?;
    // From the address that the others know us by.
    let from = SocketAddr::new(shared.settings.listen.ip(), 0);
    socket.bind(from).map_err(|error| format!("{}: {error}", from.ip()))?;
    let mut stream = socket.connect(to).await.map_err(|error| error.to_string())?;
    hello::say(shared, other, &mut stream).await?;
    Ok(stream)
}

/// What is left of an entry's time.
fn left(ends: Instant, now: Instant) -> Duration {
    ends.saturating_duration_since(now)
}
