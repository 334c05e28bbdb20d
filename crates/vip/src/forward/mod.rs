//! `mode forward`: frontends that the kernel carries. This has it do so (nftables, IPVS), follows the servers' health, and
//! counts; it moves no packet and checks nobody (the proxy's checks do, and the supervisor passes on what they say).
//!
//! A change of rules waits for whoever else changes some at the moment, perhaps for seconds. So all of it is done on a
//! thread of its own, which the threads of VRRP know nothing of. Called by `lib`.

mod ipvs;
mod kernel;
mod netlink;
mod routing;
mod rules;
mod services;

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relais_config::Plan;
use relais_config::plan::{Method, NodeId};
use relais_ipc::status::{ForwardStatus, ForwardTargetStatus};
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::oneshot;
use tracing::{info, warn};

use ipvs::{Counted, Ipvs};
use kernel::Flow;
use services::{Health, Service};

use crate::nft::Family;

/// How often counters are read, and rules looked for that another program has taken away.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// A plan's answer.
pub(crate) enum Said {
    /// The kernel does what the plan of this generation says.
    Applied(u64),
    /// It does what the plan before said.
    Refused(u64, String),
}

enum Order {
    /// Whether it is to be told.
    Plan {
        generation: u64,
        plan: Box<Plan>,
        node: NodeId,
        told: bool,
    },
    Health {
        backend: String,
        server: String,
        up: bool,
    },
    End(oneshot::Sender<()>),
}

/// The thread, as others see it. There is none until a plan needs it.
pub(crate) struct Forwarder {
    orders: Option<Sender<Order>>,
    said: UnboundedSender<Said>,
    status: Status,
    health: Health,
    /// A plan has come.
    begun: bool,
}

/// What is carried, for status documents.
pub(crate) type Status = Arc<Mutex<Vec<ForwardStatus>>>;

impl Forwarder {
    pub(crate) fn new(said: UnboundedSender<Said>) -> Forwarder {
        Forwarder { orders: None, said, status: Status::default(), health: Health::new(), begun: false }
    }

    pub(crate) fn status(&self) -> Status {
        self.status.clone()
    }

    /// Has the kernel do what this plan says. Whether what it comes to will be said: not where the plan has nothing for it,
    /// and not if `told` is false.
    pub(crate) fn apply(&mut self, generation: u64, plan: &Plan, node: NodeId, told: bool) -> bool {
        let has = |(backend, server): &(String, String)| {
            let backend = plan.backends.iter().find(|known| *known.name == **backend);
            backend.is_some_and(|backend| backend.servers.iter().any(|known| *known.name == **server))
        };
        self.health.retain(|key, _| has(key));
        let first = !std::mem::replace(&mut self.begun, true);
        let needed = plan.forwards_on(node).next().is_some();
        if self.orders.is_none() && needed {
            self.begin();
        } else if self.orders.is_none() && first {
            // A predecessor may have died with another plan.
            std::thread::spawn(release_rules);
        }
        let Some(orders) = &self.orders else { return false };
        let _ = orders.send(Order::Plan { generation, plan: Box::new(plan.clone()), node, told });
        told
    }

    fn begin(&mut self) {
        let (orders, inbox) = channel();
        for ((backend, server), up) in &self.health {
            let _ = orders.send(Order::Health { backend: backend.clone(), server: server.clone(), up: *up });
        }
        let carrier = Carrier {
            said: self.said.clone(),
            status: self.status.clone(),
            health: Health::new(),
            plan: None,
            services: Vec::new(),
            stale: false,
            trouble: None,
            dead: HashSet::new(),
            counted: HashMap::new(),
            before: HashMap::new(),
            by_ipvs: Counted::new(),
        };
        match std::thread::Builder::new().name("forward".into()).spawn(move || carrier.run(&inbox)) {
            Ok(_) => self.orders = Some(orders),
            Err(error) => warn!("no thread for `mode forward` ({error}); nothing is forwarded"),
        }
    }

    /// Checks changed their mind about a server.
    pub(crate) fn health(&mut self, backend: String, server: String, up: bool) {
        if let Some(orders) = &self.orders {
            let _ = orders.send(Order::Health { backend: backend.clone(), server: server.clone(), up });
        }
        self.health.insert((backend, server), up);
    }

    /// Nothing is carried any more.
    pub(crate) async fn end(&mut self) {
        let Some(orders) = self.orders.take() else { return };
        let (done, wait) = oneshot::channel();
        let _ = orders.send(Order::End(done));
        if tokio::time::timeout(Duration::from_secs(2), wait).await.is_err() {
            warn!(
                "the kernel's rules of `mode forward` could not be removed in time: `nft delete table ip {}` does it",
                rules::TABLE
            );
        }
    }
}

/// Whether this machine's IPVS can carry what a plan asks for, by this scheduler of its.
///
/// # Errors
/// Why not, in one sentence.
pub fn can_forward_by_ipvs(scheduler: &str, ipv6: bool) -> Result<(), CannotForward> {
    ipvs::attempt(scheduler, ipv6).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => CannotForward::Unknown(format!(
            "only root can try whether this machine's IPVS knows `{scheduler}`"
        )),
        _ => CannotForward::Lacking(ipvs::why(&error)),
    })
}

/// Whether this machine's kernel can carry what a plan asks for, by nftables.
///
/// # Errors
/// Why not, in one sentence.
pub fn can_forward(ipv6: bool) -> Result<(), CannotForward> {
    let kind = if ipv6 { "IPv6" } else { "IPv4" };
    rules::attempt(ipv6).map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => CannotForward::Unknown(format!(
            "only root can try whether nftables can forward {kind} on this machine"
        )),
        _ => {
            CannotForward::Lacking(format!("nftables cannot forward {kind} on this machine: {}", why(&error)))
        }
    })
}

/// Takes away what a dead Relais with this plan has left; whether there was any.
///
/// # Errors
/// What the kernel says.
pub(crate) fn release(plan: &Plan, node: NodeId) -> io::Result<bool> {
    let services = services::services(plan, node, &Health::new());
    Ok(release_rules()? | ipvs::release(&services)?)
}

fn release_rules() -> io::Result<bool> {
    // A kernel without nftables has nothing of ours.
    let mut found =
        [Family::Ipv4, Family::Ipv6].map(|family| kernel::counters(family).unwrap_or_default()).into_iter();
    if found.all(|counters| counters.is_empty()) {
        return Ok(false);
    }
    rules::put(&[]).map(|()| true)
}

/// Why a machine cannot carry `mode forward`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CannotForward {
    /// It may be that it can.
    Unknown(String),
    /// Its kernel lacks something.
    Lacking(String),
}

fn why(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::Unsupported => format!(
            "the kernel lacks a part of it ({error}): it needs nf_tables, nft_chain_nat, nft_nat, nft_masq, nft_numgen, nft_hash, \
             nft_fib and nft_reject; load them, or write `mode tcp`"
        ),
        _ => error.to_string(),
    }
}

/// What the thread has.
struct Carrier {
    said: UnboundedSender<Said>,
    status: Status,
    health: Health,
    plan: Option<(Box<Plan>, NodeId)>,
    /// As the kernel has them.
    services: Vec<Service>,
    /// The kernel does not have what it should.
    stale: bool,
    /// What it said to that, as last logged.
    trouble: Option<String>,
    /// Servers whose connections have been cut.
    dead: HashSet<Flow>,
    /// Connections by server, as the kernel counts them since rules last changed.
    counted: HashMap<String, u64>,
    /// Those of before.
    before: HashMap<String, u64>,
    /// Connections by address and server, as IPVS counts them since it has the server.
    by_ipvs: Counted,
}

impl Carrier {
    fn run(mut self, inbox: &Receiver<Order>) {
        loop {
            let idle = self.services.is_empty() && !self.stale;
            let first = match idle {
                true => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
                false => inbox.recv_timeout(LOOK_EVERY),
            };
            match first {
                Ok(order) => {
                    let mut healths = false;
                    for order in std::iter::once(order).chain(std::iter::from_fn(|| inbox.try_recv().ok())) {
                        match order {
                            Order::Health { backend, server, up } => {
                                healths |= self.health.insert((backend, server), up) != Some(up);
                            }
                            Order::Plan { generation, plan, node, told } => {
                                healths = false;
                                self.take(generation, plan, node, told);
                            }
                            Order::End(done) => {
                                let _ = rules::put(&[]);
                                let _ = self.put_ipvs(&[]);
                                let _ = done.send(());
                                return;
                            }
                        }
                    }
                    if healths {
                        self.follow();
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.look(),
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// A plan: in force, or not.
    fn take(&mut self, generation: u64, plan: Box<Plan>, node: NodeId, told: bool) {
        let services = services::services(&plan, node, &self.health);
        let put = self.put(services);
        match &put {
            Ok(()) => self.plan = Some((plan, node)),
            Err(why) if !told => {
                self.plan = Some((plan, node)); // it is in force for the others
                self.complain(why.clone());
            }
            Err(_) => {}
        }
        if told {
            let _ = self.said.send(match put {
                Ok(()) => Said::Applied(generation),
                Err(why) => Said::Refused(generation, format!("`mode forward`: {why}")),
            });
        }
    }

    /// The servers' health has changed.
    fn follow(&mut self) {
        let Some((plan, node)) = &self.plan else { return };
        let services = services::services(plan, *node, &self.health);
        if services == self.services && !self.stale {
            return;
        }
        match self.put(services) {
            Ok(()) => {
                if self.trouble.take().is_some() {
                    info!("what `mode forward` carries is as it should be again");
                }
            }
            Err(why) => self.complain(why),
        }
    }

    fn complain(&mut self, why: String) {
        self.stale = true;
        if self.trouble.as_ref() != Some(&why) {
            warn!("what `mode forward` carries could not be changed, and is tried again: {why}");
        }
        self.trouble = Some(why);
    }

    fn put(&mut self, services: Vec<Service>) -> Result<(), String> {
        self.count();
        self.count_by_ipvs();
        self.put_ipvs(&services)?;
        if let Err(error) = rules::put(&services) {
            let _ = self.return_ipvs(&services);
            return Err(why(&error));
        }
        for (name, counted) in self.counted.drain() {
            *self.before.entry(name).or_default() += counted;
        }
        self.stale = false;
        for ipv6 in [false, true] {
            let translated = |s: &&Service| s.ipvs.is_none_or(|(method, _)| method == Method::Nat);
            let mut translated = services.iter().filter(translated);
            if translated.any(|service| service.binds.iter().any(|bind| bind.is_ipv6() == ipv6)) {
                routing::switch_on(ipv6);
            }
        }
        self.tell_of_the_dead(&services);
        self.services = services;
        self.cut();
        self.tell();
        Ok(())
    }

    /// IPVS does what these services say, or what it did before.
    fn put_ipvs(&self, services: &[Service]) -> Result<(), String> {
        let needed = |services: &[Service]| services.iter().any(|service| service.ipvs.is_some());
        if !needed(services) && !needed(&self.services) {
            return Ok(());
        }
        let put = Ipvs::open().and_then(|ipvs| ipvs.put(services, &self.services));
        if let Err(error) = put {
            let _ = self.return_ipvs(services);
            return Err(ipvs::why(&error));
        }
        routing::answer_for_the_dead();
        Ok(())
    }

    /// Takes back what may have been done of these services.
    fn return_ipvs(&self, services: &[Service]) -> io::Result<()> {
        if !services.iter().any(|service| service.ipvs.is_some()) {
            return Ok(());
        }
        Ipvs::open()?.put(&self.services, services)
    }

    /// IPVS forgets connections to servers that it no longer has; those are told of.
    fn tell_of_the_dead(&self, services: &[Service]) {
        for (was, is) in self.services.iter().flat_map(|was| services.iter().map(move |is| (was, is))) {
            if was.name != is.name || is.ipvs.is_none() {
                continue;
            }
            let was = |name: &str| was.targets.iter().any(|target| &*target.name == name && target.alive);
            for target in is.targets.iter().filter(|target| !target.alive && was(&target.name)) {
                info!("connections that IPVS led to {} were cut, for it is down", target.address);
            }
        }
    }

    /// Connections to servers that are dead since: their clients are to come again, to others.
    fn cut(&mut self) {
        let flows = |alive: bool| {
            let all = rules::of_ours(&self.services).flat_map(move |service| {
                let protocol = if service.udp { rules::UDP } else { rules::TCP };
                let targets = service.targets.iter().filter(move |target| target.alive == alive);
                targets.flat_map(move |target| {
                    service.binds.iter().map(move |to| Flow { protocol, to: *to, server: target.address })
                })
            });
            all.collect::<HashSet<Flow>>()
        };
        // Two names for one address: one is alive, so is the other.
        let dead: HashSet<Flow> = flows(false).difference(&flows(true)).copied().collect();
        let new: HashSet<Flow> = dead.difference(&self.dead).copied().collect();
        self.dead = dead;
        for family in [Family::Ipv4, Family::Ipv6] {
            if !new.iter().any(|flow| rules::is_of(&flow.to, family)) {
                continue;
            }
            match kernel::cut(family, |flow| new.contains(flow)) {
                Ok(0) => {}
                Ok(number) => {
                    let servers: HashSet<SocketAddr> = new.iter().map(|flow| flow.server).collect();
                    let mut servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
                    servers.sort();
                    info!("{number} forwarded connections were cut, for {} is down", servers.join(", "));
                }
                Err(error) => warn!(
                    "connections to a dead server could not be cut ({error}): their clients notice by their own time-outs"
                ),
            }
        }
    }

    /// Reads the counters; puts rules back that somebody has taken away.
    fn look(&mut self) {
        if self.stale {
            return self.follow();
        }
        let (expected, found) = self.count();
        if !self.count_by_ipvs() {
            warn!(
                "another program changed what IPVS does for `mode forward` (`ipvsadm -C` does); it is put back"
            );
            self.stale = true;
            return self.follow();
        }
        if expected && !found {
            warn!(
                "another program removed the table {} (`nft flush ruleset` does); it is put back",
                rules::TABLE
            );
            self.stale = true;
            self.follow();
        }
        self.tell();
    }

    /// Whether there should be counters, and whether there are.
    fn count(&mut self) -> (bool, bool) {
        let (mut expected, mut found) = (false, true);
        for family in [Family::Ipv4, Family::Ipv6] {
            let mut binds = rules::of_ours(&self.services).flat_map(|service| &service.binds);
            if !binds.any(|bind| rules::is_of(bind, family)) {
                continue;
            }
            expected = true;
            match kernel::counters(family) {
                Ok(counted) => {
                    found &= !counted.is_empty();
                    self.counted.extend(counted);
                }
                Err(error) => found &= error.raw_os_error() != Some(rustix::io::Errno::NOENT.raw_os_error()),
            }
        }
        (expected, found)
    }

    /// Whether IPVS has what it should.
    fn count_by_ipvs(&mut self) -> bool {
        if self.services.iter().all(|service| service.ipvs.is_none()) {
            return true;
        }
        let looked = Ipvs::open().and_then(|ipvs| ipvs.look(&self.services));
        if let Ok(Some(counted)) = &looked {
            self.note_ipvs(counted);
        }
        !matches!(looked, Ok(None))
    }

    /// IPVS counts anew when it gets a server again.
    fn note_ipvs(&mut self, counted: &Counted) {
        for service in self.services.iter().filter(|service| service.ipvs.is_some()) {
            for target in &service.targets {
                let now = ipvs::keys(service).filter_map(|key| counted.get(&(key, target.address)).copied());
                let was =
                    ipvs::keys(service).filter_map(|key| self.by_ipvs.get(&(key, target.address)).copied());
                let (now, was): (u64, u64) = (now.sum(), was.sum());
                let more = if now >= was { now - was } else { now };
                *self.before.entry(rules::of_server(&service.name, &target.name)).or_default() += more;
            }
        }
        self.by_ipvs.clone_from(counted);
    }

    fn tell(&self) {
        let all = self.services.iter().map(|service| ForwardStatus {
            frontend: service.name.to_string(),
            backend: service.backend.to_string(),
            protocol: if service.udp { "udp" } else { "tcp" }.to_owned(),
            masquerade: service.masquerade,
            ipvs: service.ipvs.map(|(method, scheduler)| format!("{scheduler}, {}", method.word())),
            addresses: service.binds.iter().map(ToString::to_string).collect(),
            stale: self.stale,
            servers: self.targets(service),
        });
        *self.status.lock().unwrap_or_else(PoisonError::into_inner) = all.collect();
    }

    fn targets(&self, service: &Service) -> Vec<ForwardTargetStatus> {
        let targets = service.targets.iter().map(|target| {
            let name = rules::of_server(&service.name, &target.name);
            let of = |counted: &HashMap<String, u64>| counted.get(&name).copied().unwrap_or_default();
            ForwardTargetStatus {
                name: target.name.to_string(),
                address: target.address.to_string(),
                up: target.alive,
                weight: target.weight,
                connections_total: of(&self.before) + of(&self.counted),
            }
        });
        targets.collect()
    }
}
