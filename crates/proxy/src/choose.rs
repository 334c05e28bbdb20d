//! Which server of a backend is next: `relais-balance` over the loads and verdicts that the workers share.
//!
//! Turns are each worker's own, out of step with the others': they need no agreement. What goes by loads has to: one
//! ranking of the process, behind a lock that is held for one way through a tree. Tables of hashes are shared
//! too, and never change. Who may be chosen at all is `upstream`'s business.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex};

use relais_balance::{
    Load, Locality, Random, Ranking, Ring, RoundRobin, Rule, Slots, StaticRr, Wrr, has_share, hash, key,
    maglev, map,
};
use relais_config::plan::{self, Balance, HashKey, HashType};
use relais_http::Request;

use crate::client::Client;
use crate::counters::{BackShared, ServerShared, lock};
use crate::upstream::Server;
use crate::worker::Worker;

/// What all workers share of a backend's choice, for as long as its servers and its `balance` stay.
#[derive(Debug)]
pub(crate) enum Common {
    /// Each worker deals for itself.
    Nothing,
    Ranking(Mutex<Ranking>),
    Locality(Mutex<Locality>),
    Ring(Ring),
    Slots(Slots),
    Random(Random),
}

impl Common {
    /// For a backend whose servers have nothing to do yet.
    pub(crate) fn new(plan: &plan::Backend) -> Common {
        let weights: Vec<u16> = plan.servers.iter().map(|server| server.weight).collect();
        let named = || plan.servers.iter().map(|server| (&*server.name, server.weight)).collect::<Vec<_>>();
        let rule = match &plan.balance {
            Balance::RoundRobin | Balance::Wrr | Balance::StaticRr => return Common::Nothing,
            Balance::Random(draws) => return Common::Random(Random::new(&weights, *draws)),
            Balance::Hash { table: HashType::Consistent, .. } => return Common::Ring(Ring::new(&named())),
            Balance::Hash { table: HashType::Maglev, .. } => return Common::Slots(maglev(&named())),
            Balance::Hash { table: HashType::Map, .. } => return Common::Slots(map(&weights)),
            Balance::Locality { replicate, .. } => {
                let shrink = replicate.map(|time| time.as_secs() as u32);
                return Common::Locality(Mutex::new(Locality::new(shrink, weights)));
            }
            Balance::LeastConn { .. } => Rule::LeastConn,
            Balance::Sed => Rule::Sed,
            Balance::Nq => Rule::Nq,
            Balance::First => Rule::First,
            Balance::LeastTime => Rule::LeastTime,
        };
        Common::Ranking(Mutex::new(Ranking::new(rule, weights)))
    }

    /// The one of before, where nothing that it goes by has changed: what it has learned stays.
    pub(crate) fn renew(before: Option<(&plan::Backend, &Arc<Common>)>, plan: &plan::Backend) -> Arc<Common> {
        let alike = |(old, _): &(&plan::Backend, _)| {
            let same = |(a, b): (&plan::Server, &plan::Server)| a.name == b.name && a.weight == b.weight;
            old.balance == plan.balance
                && old.servers.len() == plan.servers.len()
                && old.servers.iter().zip(&plan.servers).all(same)
        };
        match before.filter(alike) {
            Some((_, common)) => common.clone(),
            None => Arc::new(Common::new(plan)),
        }
    }
}

/// A worker's side of it.
pub(crate) struct Chooser {
    common: Arc<Common>,
    balance: Balance,
    /// For requests without a key, too.
    turns: RefCell<RoundRobin>,
    fixed: RefCell<StaticRr>,
    heaviest: RefCell<Wrr>,
    /// State of the servers' weights that is known here.
    seen: Cell<u32>,
    /// Weights are hundred times those of the plan, so that they can start at a hundredth.
    slow: bool,
    /// Sum of the weights of all servers that are up.
    weights: Cell<u32>,
}

impl Chooser {
    pub(crate) fn new(
        plan: &plan::Backend,
        common: Arc<Common>,
        shared: &BackShared,
        worker: usize,
        workers: usize,
    ) -> Chooser {
        let weights: Vec<u16> = plan.servers.iter().map(|server| server.weight).collect();
        let mut turns = RoundRobin::new(weights.iter().copied());
        turns.skip(worker, workers);
        let of_fixed: &[u16] = if plan.balance == Balance::StaticRr { &weights } else { &[] };
        let mut fixed = StaticRr::new(of_fixed);
        fixed.skip(worker, workers);
        let of_heaviest: &[u16] = if plan.balance == Balance::Wrr { &weights } else { &[] };
        let mut heaviest = Wrr::new(of_heaviest.iter().copied());
        heaviest.skip(worker, workers);
        Chooser {
            common,
            balance: plan.balance.clone(),
            turns: RefCell::new(turns),
            fixed: RefCell::new(fixed),
            heaviest: RefCell::new(heaviest),
            seen: Cell::new(shared.changes.load(Relaxed).wrapping_sub(1)),
            slow: plan.servers.iter().any(|server| server.slow_start.is_some()),
            weights: Cell::default(),
        }
    }

    /// The next server of those that `eligible` admits, none of which has weight 0; it gets its place by `enter`, which may fail.
    pub(crate) fn pick(
        &self,
        backend: &BackShared,
        servers: &[Rc<Server>],
        worker: &Worker,
        key: Option<u64>,
        eligible: impl Fn(usize) -> bool + Copy,
    ) -> Option<usize> {
        let changes = backend.changes.load(Relaxed);
        if self.seen.replace(changes) != changes {
            self.look_at_weights(servers);
        }
        let enter = |place: &usize| backend.enter(&servers[*place].shared);
        let load = |place: usize| self.load(&servers[place].shared);
        // Whoever is entered was free a moment ago; another worker may have been faster.
        for _ in 0..=servers.len() {
            let place = match (&*self.common, key) {
                (Common::Ranking(ranking), _) => {
                    let mut ranking = lock(ranking);
                    let place = ranking.pick(eligible, load)?;
                    let entered = enter(&place);
                    ranking.set_load(place, load(place));
                    if entered {
                        return Some(place);
                    }
                    continue;
                }
                (Common::Locality(locality), Some(key)) => {
                    let mut locality = lock(locality);
                    let now_s = (worker.now().as_millis() / 1000) as u32;
                    let load_of = |place: usize| Load {
                        active: servers[place].shared.active.load(Relaxed),
                        weight: servers[place].weight_now(1),
                    };
                    let place = locality.pick(key, now_s, eligible, load_of)?;
                    let entered = enter(&place);
                    locality.ranking.set_load(place, load(place));
                    if entered {
                        return Some(place);
                    }
                    continue;
                }
                (Common::Ring(ring), Some(key)) => {
                    self.bounded(backend, servers, eligible, |eligible| ring.pick(key, eligible))
                }
                (Common::Slots(slots), Some(key)) => {
                    self.bounded(backend, servers, eligible, |eligible| slots.pick(key, eligible))
                }
                (Common::Random(random), _) => {
                    let load = |place: usize| {
                        let server = &servers[place].shared;
                        (server.active.load(Relaxed), server.ramp.load(Relaxed))
                    };
                    random.pick(&mut worker.rng.borrow_mut(), eligible, load)
                }
                _ if self.balance == Balance::StaticRr => self.fixed.borrow_mut().pick(eligible),
                _ if self.balance == Balance::Wrr => self.heaviest.borrow_mut().pick(eligible),
                _ => self.turns.borrow_mut().pick(eligible),
            }?;
            if enter(&place) {
                return Some(place);
            }
        }
        None
    }

    /// A hash's server, of those that have less than their bound; if nobody has, of all.
    fn bounded(
        &self,
        backend: &BackShared,
        servers: &[Rc<Server>],
        eligible: impl Fn(usize) -> bool + Copy,
        pick: impl Fn(&dyn Fn(usize) -> bool) -> Option<usize>,
    ) -> Option<usize> {
        let Balance::Hash { balance_factor: Some(factor), .. } = self.balance else { return pick(&eligible) };
        let total = backend.active.load(Relaxed);
        let below = |place: usize| {
            let server = &servers[place];
            let (active, weight) = (server.shared.active.load(Relaxed), server.weight_now(self.scale()));
            eligible(place) && has_share(active, total, weight.into(), self.weights.get(), factor)
        };
        pick(&below).or_else(|| pick(&eligible))
    }

    /// A server's load has changed otherwise than by [`Chooser::pick`].
    pub(crate) fn load_changed(&self, place: usize, server: &ServerShared) {
        match &*self.common {
            Common::Ranking(ranking) => drop(lock(ranking).set_load(place, self.load(server))),
            Common::Locality(locality) => drop(lock(locality).ranking.set_load(place, self.load(server))),
            _ => {}
        }
    }

    /// A server's answer has begun, or it was connected, after so long.
    pub(crate) fn answered(&self, worker: &Worker, place: usize, took: std::time::Duration) {
        if let (Common::Ranking(ranking), Balance::LeastTime) = (&*self.common, &self.balance) {
            lock(ranking).answered(place, took.as_micros() as u64, worker.now().as_millis());
        }
    }

    fn load(&self, server: &ServerShared) -> u64 {
        let active = u64::from(server.active.load(Relaxed));
        match self.balance {
            Balance::LeastConn { ipvs: true } => active * 256 + u64::from(server.idle.load(Relaxed)),
            _ => active,
        }
    }

    fn scale(&self) -> u16 {
        if self.slow { 100 } else { 1 }
    }

    /// Takes in weights that grow, and who is up.
    fn look_at_weights(&self, servers: &[Rc<Server>]) {
        let mut up = 0;
        for (place, server) in servers.iter().enumerate() {
            let weight = server.weight_now(self.scale());
            if server.shared.serves() && !server.plan.backup {
                up += u32::from(weight);
            }
            let mut turns = self.turns.borrow_mut();
            if turns.weight(place) != weight {
                turns.set_weight(place, weight);
                if self.balance == Balance::Wrr {
                    self.heaviest.borrow_mut().set_weight(place, weight);
                }
            }
            match &*self.common {
                Common::Ranking(ranking) => {
                    let mut ranking = lock(ranking);
                    ranking.set_weight(place, weight);
                    let limit = server.shared.limit.load(Relaxed);
                    ranking.set_limit(place, if limit == u32::MAX { u64::MAX } else { limit.into() });
                }
                Common::Locality(locality) => lock(locality).ranking.set_weight(place, weight),
                Common::Ring(ring) => {
                    ring.set_share(place, u32::from(server.shared.ramp.load(Relaxed)), 100);
                }
                _ => {}
            }
        }
        self.weights.set(up);
    }

    /// What of a connection is hashed.
    pub(crate) fn key_of_connection(&self, client: &Client) -> Option<u64> {
        self.key_of_addresses(client.peer.ip(), || client.local().map(|local| local.ip()))
    }

    /// What of a pair of addresses is hashed: of who comes, and where to.
    pub(crate) fn key_of_addresses(
        &self,
        source: IpAddr,
        destination: impl FnOnce() -> Option<IpAddr>,
    ) -> Option<u64> {
        match self.balance.key()? {
            HashKey::Source => Some(hash_of(source)),
            HashKey::Destination => destination().map(hash_of),
            _ => None,
        }
    }

    /// What of a request is hashed; `None`: it has no such thing, and takes its turn.
    pub(crate) fn key(&self, client: &Client, request: &Request, buffer: &[u8]) -> Option<u64> {
        let target = || request.path.of(buffer);
        match self.balance.key()? {
            HashKey::Source | HashKey::Destination => self.key_of_connection(client),
            HashKey::Uri { whole, len, depth } => {
                let uri = key::Uri { whole: *whole, len: len.unwrap_or(0), depth: depth.unwrap_or(0) };
                Some(hash(uri.of(target())))
            }
            HashKey::Query(name) => key::query(target(), name.as_bytes()).map(hash),
            HashKey::Header(name) if &**name == "host" => request.host.map(|host| hash(host.of(buffer))),
            HashKey::Header(name) => {
                let head = &buffer[..request.length];
                let values = fields(head, name).filter(|value| !value.is_empty());
                values.last().map(hash)
            }
            HashKey::Cookie(name) => {
                let head = &buffer[..request.length];
                let value = fields(head, "cookie").find_map(|value| key::cookie(value, name.as_bytes()));
                value.map(hash)
            }
        }
    }
}

/// The values of all fields of a name, in lower case, in a head that has been parsed.
fn fields<'a>(head: &'a [u8], name: &str) -> impl Iterator<Item = &'a [u8]> {
    head.split(|&b| b == b'\n').skip(1).filter_map(move |line| {
        let (field, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        field.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// An IPv4 client has one hash, also where it comes to an IPv6 listener.
fn hash_of(address: IpAddr) -> u64 {
    match address.to_canonical() {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}
