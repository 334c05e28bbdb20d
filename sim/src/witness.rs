//! Two or three virtual routers, and one or two nodes that only witness, on a network that is cut in every way.
//!
//! A run is a row of acts, each followed by time enough to settle: a link between two nodes is cut, in one direction or
//! both; a node is cut off from all; a process dies, hangs, comes back; all is mended. Packets are lost, late and
//! doubled all the time, and each node's clock runs at a speed of its own.
//!
//! The invariants:
//!
//! 1. *Never two.* Where one link between two routers is cut and nothing else is wrong, no two nodes hold the address, not
//!    for an instant.
//! 2. *Not two for long.* After any act, two nodes that a third can hear and speak to do not both hold it once things have
//!    settled.
//! 3. *Nobody holds it alone.* A node that is cut off from all that it knew gives the address up.
//! 4. *Somebody holds it.* Where at least two run, and all that run hear each other, one of them holds it.
//! 5. *Witnesses cost no time.* After its holder's death another has it as soon as VRRP alone would have it there.
//! 6. *Not two over a hand-over.* Where a holder hands over and the link to who takes it is cut meanwhile, a witness that
//!    hears both is enough for the old holder to let go.
//! 7. The cores' own `check_invariants`, after every input.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use relais_base::{Rng, Time};
use relais_cluster::{Heartbeat, Input as Word, Members, Output as Deed, Path, Peer};
use relais_vrrp::{Advertisement, Config, Form, Input, Link, Output, Router, State, master_down_interval};

use crate::vrrp::network::{Network, Quality};

const VIP: u32 = 1;
/// The lease of the address in intervals, after which a holder that says nothing is mute.
const LEASE: u32 = 3;

/// A bug planted in all nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// No bug.
    None,
    /// Routers do not listen to witnesses.
    IgnoresWitnesses,
    /// What a witness says of the past is taken for the present.
    BelievesOldNews,
    /// A node that is cut off does not mind.
    IgnoresItsCut,
    /// A master does not mind another that it does not hear.
    NeverYields,
}

/// Which invariant did not hold, and what happened.
#[derive(Debug)]
pub struct Violation {
    /// Number in the module's list.
    pub invariant: u8,
    /// What was seen.
    pub what: String,
    /// What happened until then.
    pub trace: Vec<String>,
}

/// How much happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Acts.
    pub acts: u64,
    /// Links between two routers that were cut while all else was well.
    pub single_cuts: u64,
    /// Nodes cut off from all while they held the address.
    pub isolations: u64,
    /// Deaths of holders.
    pub deaths: u64,
    /// Becomings of a master.
    pub masters: u64,
    /// Hand-overs that a cut came into.
    pub cut_moves: u64,
}

impl Events {
    /// Adds another run's.
    pub fn add(&mut self, other: &Events) {
        self.acts += other.acts;
        self.single_cuts += other.single_cuts;
        self.isolations += other.isolations;
        self.deaths += other.deaths;
        self.masters += other.masters;
        self.cut_moves += other.cut_moves;
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Runs,
    Hangs,
    Dead,
}

#[derive(Clone, Debug)]
enum Packet {
    Advertisement(Advertisement),
    Heartbeat(Heartbeat),
}

#[derive(Debug)]
struct Node {
    process: Process,
    members: Members,
    /// Witnesses have none.
    router: Option<Router>,
    config: Option<Config>,
    cluster: relais_cluster::Config,
    /// The kernel answers for the address until then.
    held_until: Time,
    waiting: VecDeque<(usize, Packet)>,
    /// It was told to hand over, and has not yet.
    leaving: bool,
    incarnation: u64,
    /// Its clock's speed, in thousandths of the world's.
    speed: u64,
    masters: u64,
}

#[derive(Debug)]
struct World {
    now: Time,
    rng: Rng,
    interval: Duration,
    nodes: Vec<Node>,
    network: Network,
    flights: BinaryHeap<Reverse<(Time, u64, usize, usize)>>,
    packets: Vec<Option<Packet>>,
    mutant: Mutant,
    /// No two may hold it.
    strict: bool,
    trace: Vec<String>,
    events: Events,
}

type Checked = Result<(), Box<Violation>>;

fn address(n: usize) -> IpAddr {
    Ipv4Addr::new(10, 9, 0, n as u8 + 1).into()
}

/// Runs one seed to its end.
///
/// # Errors
/// The first violation of an invariant.
pub fn run(seed: u64, mutant: Mutant) -> Result<Events, Box<Violation>> {
    let mut world = World::new(seed, mutant);
    let settle = world.interval * 16;
    for n in 0..world.nodes.len() {
        world.start(n);
    }
    world.run_for(settle)?;
    world.check_settled()?;
    for _ in 0..10 {
        world.act()?;
    }
    let masters = world.nodes.iter().map(|node| node.masters).sum();
    Ok(Events { masters, ..world.events })
}

impl World {
    fn new(seed: u64, mutant: Mutant) -> World {
        let mut rng = Rng::new(seed);
        let routers = 2 + rng.below(2) as usize;
        let size = routers + 1 + rng.below(2) as usize;
        let interval = Duration::from_millis([20, 50, 100, 1000][rng.below(4) as usize]);
        let quality = Quality {
            loss_percent: rng.below(6),
            losses_in_a_row: 1,
            max_delay: interval / 16,
            duplicate_percent: rng.below(10),
        };
        let preempt = rng.chance(1, 2);
        let mut nodes = Vec::new();
        for n in 0..size {
            let config = (n < routers).then(|| Config {
                vrid: 51,
                priority: 1 + rng.below(254) as u8,
                addresses: vec![Ipv4Addr::new(10, 9, 0, 100).into()],
                form: Form::V3,
                peers: Vec::new(),
                least_hop_limit: 255,
                interval,
                preempt,
                preempt_delay: Duration::ZERO,
                track: Vec::new(),
                grace: Duration::ZERO,
                drain: Duration::ZERO,
                rivals: 0,
            });
            let others: Vec<usize> = (0..size).filter(|other| *other != n).collect();
            let cluster = relais_cluster::Config {
                platform: 1,
                node: n as u32,
                interval: (interval / 2).min(Duration::from_secs(1)),
                patience: interval * LEASE,
                peers: others
                    .iter()
                    .map(|o| Peer { node: *o as u32, name: Arc::from(format!("n{o}")), is_close: true })
                    .collect(),
                paths: others
                    .iter()
                    .enumerate()
                    .map(|(peer, o)| Path { peer, link: 0, remote: address(*o) })
                    .collect(),
            };
            nodes.push(Node {
                process: Process::Dead,
                members: Members::new(cluster.clone(), 0, Time::ZERO),
                router: None,
                config,
                cluster,
                held_until: Time::ZERO,
                waiting: VecDeque::new(),
                leaving: false,
                incarnation: 0,
                speed: 998 + rng.below(5),
                masters: 0,
            });
        }
        let mut world = World {
            now: Time::from_millis(1000),
            rng: Rng::new(rng.next_u64()),
            interval,
            network: Network::new(size, quality),
            nodes,
            flights: BinaryHeap::new(),
            packets: Vec::new(),
            mutant,
            strict: false,
            trace: Vec::new(),
            events: Events::default(),
        };
        world
            .note(format!("{routers} routers of {size} nodes, {interval:?}, {quality:?}, preempt {preempt}"));
        world
    }

    fn note(&mut self, what: String) {
        self.trace.push(format!("{:?} {what}", self.now));
    }

    fn violation<T>(&mut self, invariant: u8, what: String) -> Result<T, Box<Violation>> {
        let trace = std::mem::take(&mut self.trace);
        Err(Box::new(Violation { invariant, what: format!("{:?}: {what}", self.now), trace }))
    }

    /// What a node's clock says.
    fn clock(&self, n: usize) -> Time {
        let nanos = u128::from(self.now.as_nanos()) * u128::from(self.nodes[n].speed) / 1000;
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    // ---- processes ------------------------------------------------------------------------------

    fn start(&mut self, n: usize) {
        if self.nodes[n].process != Process::Dead {
            return;
        }
        self.note(format!("node {n} is started"));
        let now = self.clock(n);
        let node = &mut self.nodes[n];
        node.process = Process::Runs;
        node.incarnation += 1;
        node.leaving = false;
        node.members = Members::new(node.cluster.clone(), node.incarnation, now);
        node.router = node.config.clone().map(|config| Router::new(config, now));
        if let Some(router) = &mut node.router {
            router.handle(Input::Link(Link::Up(address(n))), now);
            router.handle(Input::Start { resume: None }, now);
        }
        self.carry_out(n);
    }

    /// Every process of the node is killed: the kernel stops answering for the address.
    fn die(&mut self, n: usize) {
        self.note(format!("node {n} dies"));
        let node = &mut self.nodes[n];
        (node.process, node.held_until) = (Process::Dead, Time::ZERO);
        node.waiting.clear();
    }

    fn wake(&mut self, n: usize) {
        if self.nodes[n].process != Process::Hangs {
            return;
        }
        self.note(format!("node {n} goes on"));
        self.nodes[n].process = Process::Runs;
        // Packets before timers, as the cores demand.
        while let Some((from, packet)) = self.nodes[n].waiting.pop_front() {
            self.read(n, from, packet);
        }
        self.run_timers(n);
    }

    fn holds(&self, n: usize) -> bool {
        self.now < self.nodes[n].held_until
    }

    fn holders(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.holds(*n)).collect()
    }

    // ---- the driver of one node ---------------------------------------------------------------------

    fn next_timer(&self, n: usize) -> Time {
        let node = &self.nodes[n];
        if node.process != Process::Runs {
            return Time::MAX;
        }
        let router = node.router.as_ref().map_or(Time::MAX, Router::poll_timeout);
        let at = node.members.poll_timeout().min(router);
        let nanos = u128::from(at.as_nanos()) * 1000 / u128::from(node.speed) + 1;
        Time::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    fn run_timers(&mut self, n: usize) {
        let now = self.clock(n);
        let node = &mut self.nodes[n];
        node.members.handle_timeout(now);
        self.carry_out(n); // what heartbeats say comes before what VRRP's timers do
        let node = &mut self.nodes[n];
        if let Some(router) = &mut node.router {
            router.handle_timeout(now);
        }
        self.carry_out(n);
    }

    fn read(&mut self, n: usize, from: usize, packet: Packet) {
        let now = self.clock(n);
        let node = &mut self.nodes[n];
        match (packet, &mut node.router) {
            (Packet::Heartbeat(heartbeat), _) => {
                node.members
                    .handle(Word::Heartbeat { link: 0, from: address(from), heartbeat: &heartbeat }, now);
            }
            (Packet::Advertisement(advertisement), Some(router)) => {
                router.handle(Input::Advertisement(address(from), &advertisement), now);
            }
            (Packet::Advertisement(_), None) => {}
        }
        self.carry_out(n);
    }

    fn carry_out(&mut self, n: usize) {
        loop {
            self.nodes[n].members.check_invariants();
            let deed = self.nodes[n].members.poll_output();
            let output = self.nodes[n].router.as_mut().and_then(|router| {
                router.check_invariants();
                router.poll_output()
            });
            if deed.is_none() && output.is_none() {
                return;
            }
            deed.into_iter().for_each(|deed| self.do_deed(n, deed));
            output.into_iter().for_each(|output| self.put_out(n, output));
            self.tell_of_holding(n);
        }
    }

    fn do_deed(&mut self, n: usize, deed: Deed) {
        let now = self.clock(n);
        let mutant = self.mutant;
        let node = &mut self.nodes[n];
        match (deed, &mut node.router) {
            (Deed::Send { to, heartbeat, .. }, _) => {
                for other in (0..self.nodes.len()).filter(|other| to.contains(&address(*other))) {
                    self.send(n, other, Packet::Heartbeat(heartbeat.clone()));
                }
            }
            (Deed::Witnessed { holder, priority, at, .. }, Some(router)) => {
                let own = (router.priority(), n as u32);
                let outranks = (priority, holder) > own && mutant != Mutant::NeverYields;
                let at = if mutant == Mutant::BelievesOldNews { now } else { at };
                if mutant != Mutant::IgnoresWitnesses {
                    router.handle(Input::Witnessed { at, outranks }, now);
                }
            }
            (Deed::Cut { why, .. }, Some(router)) => {
                if mutant != Mutant::IgnoresItsCut {
                    router.handle(Input::CutOff(why.as_deref()), now);
                }
                self.note(format!("node {n}: cut off: {why:?}"));
            }
            (Deed::Warn(_) | Deed::Info(_), _) | (_, None) => {}
        }
    }

    fn put_out(&mut self, n: usize, output: Output) {
        let lease = self.interval * LEASE;
        match output {
            Output::AddAddress => self.nodes[n].held_until = self.now + lease,
            Output::RemoveAddress => self.nodes[n].held_until = Time::ZERO,
            Output::SendAdvertisement(_, advertisement) => {
                if self.holds(n) {
                    self.nodes[n].held_until = self.now + lease;
                }
                for other in (0..self.nodes.len()).filter(|other| *other != n) {
                    self.send(n, other, Packet::Advertisement(advertisement.clone()));
                }
            }
            Output::Changed(state, reason) => {
                self.nodes[n].masters += u64::from(state == State::Master);
                self.note(format!("node {n}: {state:?}: {reason}"));
            }
            Output::HandedOver => self.nodes[n].leaving = false,
            Output::Log(sentence) => self.note(format!("node {n}: {sentence}")),
            _ => {}
        }
    }

    fn tell_of_holding(&mut self, n: usize) {
        let now = self.clock(n);
        let node = &mut self.nodes[n];
        if let Some(router) = &node.router {
            let priority = if node.leaving { 0 } else { router.priority() };
            let held = (router.state() == State::Master).then_some(priority);
            node.members.handle(Word::Hold { vip: VIP, link: 0, held }, now);
        }
    }

    fn send(&mut self, from: usize, to: usize, packet: Packet) {
        for delay in self.network.carry(from, to, &mut self.rng) {
            let number = self.packets.len() as u64;
            self.packets.push(Some(packet.clone()));
            self.flights.push(Reverse((self.now + delay, number, from, to)));
        }
    }

    // ---- time ------------------------------------------------------------------------------------------

    fn run_for(&mut self, time: Duration) -> Checked {
        let end = self.now + time;
        loop {
            let timer = (0..self.nodes.len()).map(|n| (self.next_timer(n).max(self.now), n)).min();
            let (timer_at, n) = timer.unwrap_or((Time::MAX, 0));
            let flight_at = self.flights.peek().map_or(Time::MAX, |Reverse((at, ..))| *at);
            let next = timer_at.min(flight_at);
            if next > end {
                self.now = end;
                return self.check();
            }
            self.now = next;
            if next == flight_at {
                self.land();
            } else {
                self.run_timers(n);
            }
            self.check()?;
        }
    }

    fn land(&mut self) {
        let Some(Reverse((_, number, from, to))) = self.flights.pop() else { return };
        let Some(packet) = self.packets[number as usize].take() else { return };
        match self.nodes[to].process {
            Process::Runs => self.read(to, from, packet),
            Process::Hangs => self.nodes[to].waiting.push_back((from, packet)),
            Process::Dead => {}
        }
    }

    fn check(&mut self) -> Checked {
        let holders = self.holders();
        if self.strict && holders.len() > 1 {
            return self.violation(1, format!("nodes {holders:?} hold it"));
        }
        Ok(())
    }

    // ---- acts --------------------------------------------------------------------------------------------

    fn is_open(&self, a: usize, b: usize) -> bool {
        self.network.is_open(a, b) && self.network.is_open(b, a)
    }

    fn running(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|n| self.nodes[*n].process == Process::Runs).collect()
    }

    /// All that run hear each other.
    fn is_whole(&self) -> bool {
        let running = self.running();
        running.iter().all(|a| running.iter().all(|b| self.is_open(*a, *b)))
    }

    fn act(&mut self) -> Checked {
        self.events.acts += 1;
        let size = self.nodes.len() as u64;
        let (a, b) = (self.rng.below(size) as usize, self.rng.below(size) as usize);
        match self.rng.below(9) {
            0 | 1 => self.cut_one_link()?,
            8 => self.cut_a_move()?,
            2 => self.isolate(a)?,
            3 if a != b => {
                self.note(format!("cut from {a} to {b}"));
                self.network.set_blocked(a, b, true);
            }
            4 => self.kill(a)?,
            5 if self.nodes[a].process == Process::Runs => {
                self.note(format!("node {a} hangs"));
                self.nodes[a].process = Process::Hangs;
            }
            6 => {
                self.wake(a);
                self.start(a);
            }
            _ => self.mend(),
        }
        self.run_for(self.interval * 16)?;
        self.check_settled()
    }

    fn mend(&mut self) {
        self.note("all is mended".into());
        self.network.mend_all();
        for n in 0..self.nodes.len() {
            self.wake(n);
            self.start(n);
        }
    }

    /// From a state in which all is well.
    fn all_well(&mut self) -> Checked {
        self.mend();
        self.run_for(self.interval * 16)?;
        self.check_settled()
    }

    /// Two routers no longer hear each other, in one direction or in both; witnesses hear both.
    fn cut_one_link(&mut self) -> Checked {
        self.all_well()?;
        let routers = self.nodes.iter().filter(|node| node.config.is_some()).count() as u64;
        let a = self.rng.below(routers) as usize;
        let b = (a + 1 + self.rng.below(routers - 1) as usize) % routers as usize;
        let both = self.rng.chance(1, 2);
        self.note(format!("the link between {a} and {b} is cut, both ways: {both}"));
        self.network.set_blocked(a, b, true);
        self.network.set_blocked(b, a, both);
        self.events.single_cuts += 1;
        self.strict = true;
        let done = self.run_for(self.interval * 40);
        self.strict = false;
        done
    }

    /// The holder hands over, and before that is done the other routers and it no longer hear each other; witnesses do.
    fn cut_a_move(&mut self) -> Checked {
        self.all_well()?;
        let [holder] = self.holders()[..] else { return Ok(()) };
        self.note(format!("node {holder} hands over"));
        let now = self.clock(holder);
        let node = &mut self.nodes[holder];
        node.leaving = true;
        let Some(router) = &mut node.router else { return Ok(()) };
        router.handle(Input::HandOver, now);
        self.carry_out(holder);
        // Its farewell has arrived.
        let meanwhile = self.interval / 16 + self.interval.mul_f64(self.rng.below(100) as f64 / 100.0);
        self.run_for(meanwhile)?;
        self.note(format!("node {holder} is cut off from the other routers"));
        for other in (0..self.nodes.len()).filter(|n| *n != holder && self.nodes[*n].config.is_some()) {
            self.network.set_blocked(holder, other, true);
            self.network.set_blocked(other, holder, true);
        }
        self.events.cut_moves += 1;
        // A skew, a heartbeat that is lost, the next one, and their way over the witness.
        self.run_for(self.interval * 4)?;
        let holders = self.holders();
        if holders.len() > 1 {
            return self.violation(6, format!("nodes {holders:?} hold it"));
        }
        self.run_for(self.interval * 16)?;
        // It is ready to have it again.
        let now = self.clock(holder);
        if let Some(router) = &mut self.nodes[holder].router {
            router.handle(Input::Start { resume: None }, now);
        }
        self.carry_out(holder);
        self.all_well()
    }

    fn isolate(&mut self, n: usize) -> Checked {
        let others: Vec<usize> = (0..self.nodes.len()).filter(|other| *other != n).collect();
        let could_know = self.running().iter().filter(|o| **o != n && self.is_open(n, **o)).count() >= 2;
        let counts = could_know && self.is_whole() && self.holds(n);
        self.note(format!("node {n} is cut off from all"));
        for other in others {
            self.network.set_blocked(n, other, true);
            self.network.set_blocked(other, n, true);
        }
        if counts && self.nodes[n].process == Process::Runs {
            self.events.isolations += 1;
            self.run_for(self.interval * (LEASE + 1))?;
            if self.holds(n) {
                return self.violation(3, format!("node {n} holds it, alone"));
            }
        }
        Ok(())
    }

    fn kill(&mut self, n: usize) -> Checked {
        let counts = self.holds(n) && self.is_whole() && self.nodes[n].process == Process::Runs;
        self.die(n);
        let heirs: Vec<usize> =
            self.running().into_iter().filter(|heir| self.nodes[*heir].router.is_some()).collect();
        if !counts || heirs.is_empty() {
            return Ok(());
        }
        self.events.deaths += 1;
        let most = heirs.iter().filter_map(|heir| self.nodes[*heir].router.as_ref());
        let most = most.map(|router| master_down_interval(router.priority(), self.interval)).max();
        // Every packet may be lost once, come late, and be timed by a clock that is slow.
        let bound = most.unwrap_or_default() + self.interval + self.interval / 4;
        self.run_for(bound)?;
        if self.holders().is_empty() {
            return self.violation(5, format!("nobody has it {bound:?} after its holder's death"));
        }
        Ok(())
    }

    fn check_settled(&mut self) -> Checked {
        let holders = self.holders();
        for (i, a) in holders.iter().enumerate() {
            for b in &holders[i + 1..] {
                let running = self.running();
                let sees_both =
                    |w: &&usize| **w != *a && **w != *b && self.is_open(**w, *a) && self.is_open(**w, *b);
                if let Some(witness) = running.iter().find(sees_both) {
                    return self.violation(2, format!("nodes {a} and {b} hold it, and {witness} hears both"));
                }
            }
        }
        let running = self.running();
        let routers = running.iter().filter(|n| self.nodes[**n].router.is_some()).count();
        if self.is_whole() && running.len() > 1 && routers > 0 && holders.is_empty() {
            return self.violation(4, format!("of {running:?}, which hear each other, nobody holds it"));
        }
        Ok(())
    }
}
