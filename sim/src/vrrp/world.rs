//! The event loop, the faults, and the invariants that are checked at every instant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use relais_base::{Rng, Time};
use relais_vrrp::{Config, Health, Input, LEASE, State};

use super::network::{Network, Quality};
use super::node::{Effect, FRONTEND, Node, Process};
use super::speech::Speech;
use super::{Bounds, Events, Mutant, Violation};

type Checked = Result<(), Box<Violation>>;

/// A packet on its way; the heap orders by time, then by number.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Flight {
    at: Time,
    number: u64,
    from: usize,
    to: usize,
    /// `None`: a gratuitous ARP.
    datagram: Option<Vec<u8>>,
}

pub(crate) struct World {
    seed: u64,
    now: Time,
    rng: Rng,
    pub(crate) interval: Duration,
    lateness: Duration,
    preempt: bool,
    bounds: Bounds,
    nodes: Vec<Node>,
    network: Network,
    flights: BinaryHeap<Reverse<Flight>>,
    numbers: u64,
    /// For each pair: since when both hold, both run and both hear each other.
    overlap_since: Vec<Option<Time>>,
    /// Who announced last, as the client heard it.
    client: Option<usize>,
    /// Running masters when the storm ended: each split brain that healed then.
    masters_at_mend: Vec<usize>,
    /// Who must hold the address at every instant from now on: somebody.
    no_gap: bool,
    is_calm: bool,
    handing_over: Vec<bool>,
    events: Events,
    trace: Option<Vec<String>>,
}

impl World {
    pub(crate) fn new(seed: u64, rng: &mut Rng, mutant: Mutant, trace: bool) -> World {
        let size = 2 + rng.below(4) as usize;
        let interval = Duration::from_millis([20, 50, 50, 50, 100, 1000][rng.below(6) as usize]);
        let losses_in_a_row = rng.below(4) as u32;
        let quality = Quality {
            loss_percent: rng.below(30),
            losses_in_a_row,
            max_delay: interval.mul_f64(rng.below(40) as f64 / 100.0),
            duplicate_percent: rng.below(10),
        };
        let lateness = interval / 16;
        let wire = Speech::new(rng, interval);
        let preempt_delay = interval * [0, 0, 5][rng.below(3) as usize];
        let preempt = rng.chance(1, 2) && mutant != Mutant::PreemptsAnyway;
        let priority = |_| 1 + rng.below(254) as u8 / [1, 60][rng.below(2) as usize];
        let priorities: Vec<u8> = (0..size).map(priority).collect();
        let rivals = |i| (0..size).filter(move |j| *j != i).map(|j| priorities[j]);
        let nodes: Vec<Node> = (0..size)
            .map(|i| {
                let config = Config {
                    vrid: 51,
                    priority: priorities[i],
                    addresses: wire.addresses.clone(),
                    form: wire.form,
                    peers: if wire.unicast { wire.peers(i, size) } else { Vec::new() },
                    least_hop_limit: 255,
                    interval,
                    preempt,
                    preempt_delay,
                    rivals: rivals(i).max().unwrap_or(0),
                    track: Vec::new(),
                    grace: Duration::from_millis(60),
                    drain: Duration::from_secs(1),
                };
                Node::new(wire.source(i), config, mutant, Time::ZERO)
            })
            .collect();
        let mut world = World {
            seed,
            now: Time::ZERO,
            rng: Rng::new(rng.next_u64()),
            interval,
            lateness,
            preempt,
            bounds: Bounds::new(interval, losses_in_a_row, quality.max_delay, lateness, preempt_delay),
            overlap_since: vec![None; size * size],
            handing_over: vec![false; size],
            network: Network::new(size, quality),
            nodes,
            flights: BinaryHeap::new(),
            numbers: 0,
            client: None,
            masters_at_mend: Vec::new(),
            no_gap: false,
            is_calm: false,
            events: Events::default(),
            trace: trace.then(Vec::new),
        };
        world.note(|w| {
            format!(
                "{size} nodes, interval {interval:?}, {quality:?}, preempt {preempt} after {preempt_delay:?}, {wire:?}, {:?}",
                w.bounds
            )
        });
        for i in 0..size {
            world.note(|w| format!("node {i}: priority {}", w.nodes[i].config.priority));
            world.restart(i);
        }
        world
    }

    pub(crate) fn size(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn now(&self) -> Time {
        self.now
    }

    pub(crate) fn events(&self) -> Events {
        let masters = self.nodes.iter().map(|n| n.router.counters().became_master).sum();
        Events { masters, ..self.events }
    }

    fn note(&mut self, what: impl FnOnce(&World) -> String) {
        if self.trace.is_some() {
            let line = format!("{:?} {}", self.now, what(self));
            if let Some(trace) = &mut self.trace {
                trace.push(line);
            }
        }
    }

    fn violation<T>(&mut self, invariant: u8, what: String) -> Result<T, Box<Violation>> {
        let trace = self.trace.take().unwrap_or_default();
        Err(Box::new(Violation {
            invariant,
            what: format!("{:?}: {what}", self.now),
            seed: self.seed,
            trace,
        }))
    }

    // ---- time ------------------------------------------------------------------------------------

    /// Lets the world run until `end`, checking every instant at which something happens.
    pub(crate) fn run_until(&mut self, end: Time) -> Checked {
        self.check()?;
        loop {
            // A driver may be late; how late is drawn again at each look, so that the order changes too.
            let lateness = self.lateness.as_nanos() as u64;
            let late = Duration::from_nanos(self.rng.below(lateness + 1));
            let timer = self.nodes.iter().enumerate().map(|(i, n)| (n.next_timer(), i)).min();
            let (timer_at, node) = timer.map_or((Time::MAX, 0), |(at, i)| ((at + late).max(self.now), i));
            let flight_at = self.flights.peek().map_or(Time::MAX, |Reverse(flight)| flight.at);
            let expiry = self.nodes.iter().map(Node::lease_until).filter(|at| *at > self.now).min();
            let next = timer_at.min(flight_at).min(expiry.unwrap_or(Time::MAX)).min(self.next_deadline());
            if next > end {
                self.now = end;
                return self.check();
            }
            self.now = next;
            if next == flight_at {
                self.land();
            } else if next == timer_at {
                self.nodes[node].run_timers(next);
                self.collect(node);
            }
            self.check()?;
        }
    }

    fn land(&mut self) {
        let Some(Reverse(flight)) = self.flights.pop() else { return };
        self.events.packets += 1;
        match flight.datagram {
            None => self.client = Some(flight.from),
            Some(datagram) => {
                self.nodes[flight.to].receive(datagram, self.now);
                self.collect(flight.to);
            }
        }
    }

    /// Sends what a node has to send.
    fn collect(&mut self, from: usize) {
        for effect in std::mem::take(&mut self.nodes[from].effects) {
            match effect {
                Effect::Note(what) => self.note(|_| format!("node {from} {what}")),
                Effect::HandedOver => self.handing_over[from] = false,
                Effect::Announce => self.send(from, self.size(), None),
                Effect::Send(destination, datagram) => {
                    for to in (0..self.size()).filter(|to| *to != from) {
                        if destination.is_multicast() || destination == self.nodes[to].source {
                            self.send(from, to, Some(&datagram));
                        }
                    }
                }
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, datagram: Option<&Vec<u8>>) {
        if !self.nodes[from].cable {
            return;
        }
        for delay in self.network.carry(from, to, &mut self.rng) {
            self.numbers += 1;
            let (at, number) = (self.now + delay, self.numbers);
            self.flights.push(Reverse(Flight { at, number, from, to, datagram: datagram.cloned() }));
        }
    }

    // ---- faults ------------------------------------------------------------------------------------

    pub(crate) fn crash(&mut self, i: usize) {
        if self.nodes[i].process != Process::Dead {
            self.note(|_| format!("node {i} dies"));
            self.events.crashes += 1;
            self.nodes[i].crash(self.now);
            self.handing_over[i] = false;
        }
    }

    pub(crate) fn restart(&mut self, i: usize) {
        if self.nodes[i].process == Process::Dead {
            self.note(|_| format!("node {i} is started"));
            self.nodes[i].start(self.is_calm, self.now);
            self.collect(i);
        }
    }

    pub(crate) fn pause(&mut self, i: usize) {
        if self.nodes[i].runs() {
            self.note(|_| format!("node {i} is stopped"));
            self.events.pauses += 1;
            self.nodes[i].pause(self.now);
        }
    }

    pub(crate) fn wake(&mut self, i: usize) {
        if self.nodes[i].process == Process::Paused {
            self.note(|_| format!("node {i} goes on"));
            self.nodes[i].wake(self.now);
            self.collect(i);
        }
    }

    /// Cuts the path from `i` to `j` (the client is the last number), and back.
    pub(crate) fn partition(&mut self, i: usize, j: usize, both: bool) {
        self.note(|_| format!("cut from {i} to {j}, both ways: {both}"));
        self.events.partitions += 1;
        self.network.set_blocked(i, j, true);
        self.network.set_blocked(j, i, both || !self.network.is_open(j, i));
    }

    /// Cuts the nodes into those in the set and those outside.
    pub(crate) fn split(&mut self, set: u64) {
        for i in 0..self.size() {
            for j in 0..self.size() {
                if (set >> i) & 1 != (set >> j) & 1 {
                    self.partition(i, j, false);
                }
            }
        }
    }

    pub(crate) fn mend_network(&mut self) {
        self.note(|_| "the network is mended".into());
        self.network.mend_all();
    }

    pub(crate) fn cable(&mut self, i: usize, plugged: bool) {
        if self.nodes[i].cable != plugged {
            self.note(|_| format!("node {i} cable {plugged}"));
            self.nodes[i].cable = plugged;
            let link =
                if plugged { relais_vrrp::Link::Up(self.nodes[i].source) } else { relais_vrrp::Link::Down };
            self.order(i, Input::Link(link));
        }
    }

    pub(crate) fn frontend(&mut self, i: usize, health: Health) {
        self.note(|_| format!("node {i} frontend {health:?}"));
        self.nodes[i].health = health;
        self.order(i, Input::Tracked(FRONTEND, health));
    }

    pub(crate) fn order(&mut self, i: usize, input: Input<'_>) {
        self.note(|_| format!("node {i} told {input:?}"));
        if matches!(input, Input::HandOver) && self.nodes[i].is_master() {
            self.events.hand_overs += 1;
            self.handing_over[i] = true;
        }
        self.nodes[i].handle(input, self.now);
        self.collect(i);
    }

    // ---- the calm --------------------------------------------------------------------------------------

    /// Waits for the settling time, and checks that somebody holds the address as the rules want it.
    pub(crate) fn settle(&mut self) -> Checked {
        self.is_calm = true;
        self.run_until(self.now + self.bounds.settle)?;
        self.check_settled()?;
        self.no_gap = self.is_reliable();
        self.run_until(self.now + self.bounds.announce)?;
        let mut holder = self.check_settled()?;
        if !self.is_reliable() {
            return Ok(()); // living masters are taken for dead now and then, and the client follows each
        }
        // Where two masters met when the storm ended, the winner announces at once. Whom nobody met (it let
        // go while nobody heard it) only the slow schedule can replace in the client's memory.
        let met = self.client.is_some_and(|told| self.masters_at_mend.contains(&told));
        if self.client != Some(holder) && !met {
            self.run_until(self.now + self.bounds.announce_again)?;
            holder = self.check_settled()?;
        }
        if self.client != Some(holder) {
            let told = self.client;
            return self.violation(5, format!("node {holder} holds it, the client was told {told:?}"));
        }
        Ok(())
    }

    /// Remembers who is master when the storm ends.
    pub(crate) fn remember_masters(&mut self) {
        self.masters_at_mend = (0..self.size()).filter(|i| self.nodes[*i].is_master()).collect();
    }

    /// The holder, which must be the only one and follow the rules.
    fn check_settled(&mut self) -> Result<usize, Box<Violation>> {
        let holders = |w: &World| (0..w.size()).filter(|i| w.nodes[*i].holds(w.now)).collect::<Vec<usize>>();
        for _ in 0..8 {
            if !self.is_reliable() && holders(self).len() > 1 {
                self.run_until(self.now + self.bounds.overlap / 4)?; // a living master was just taken for dead
            }
        }
        let holders = holders(self);
        let &[holder] = holders.as_slice() else {
            return self.violation(3, format!("holders after the settling time: {holders:?}"));
        };
        if !self.nodes[holder].is_master() {
            return self.violation(3, format!("node {holder} holds it and is not master"));
        }
        let able = |n: &&Node| n.router.state() != State::Fault;
        let highest = self.nodes.iter().filter(able).map(|n| n.config.priority).max();
        if self.preempt && Some(self.nodes[holder].config.priority) != highest && self.is_reliable() {
            return self
                .violation(3, format!("node {holder} holds it, though another has priority {highest:?}"));
        }
        Ok(holder)
    }

    /// Losses so rare that no backup takes a living master for dead: within three intervals it hears one.
    fn is_reliable(&self) -> bool {
        self.network.quality.losses_in_a_row <= 1
    }

    /// The holder hands over while the others are well: never a gap, and another holds it after.
    pub(crate) fn hand_over_calmly(&mut self) -> Checked {
        let holder = self.check_settled()?;
        self.order(holder, Input::HandOver);
        self.run_until(self.now + self.bounds.settle)?;
        if self.handing_over[holder] || self.check_settled()? == holder {
            return self.violation(3, format!("node {holder} did not get rid of it"));
        }
        self.order(holder, Input::Start { resume: None });
        self.run_until(self.now + self.bounds.settle)?;
        self.check_settled().map(drop)
    }

    /// The operator takes the address to another node and lets it go again: never a gap, and it is there meanwhile.
    pub(crate) fn move_calmly(&mut self) -> Checked {
        let holder = self.check_settled()?;
        let to = (holder + 1) % self.size();
        let theirs = self.nodes[holder].router.priority();
        if theirs >= 254 || self.nodes[to].router.state() != State::Backup {
            return Ok(());
        }
        self.order(to, Input::MoveHere);
        self.run_until(self.now + self.bounds.settle)?;
        let holders: Vec<usize> = (0..self.size()).filter(|i| self.nodes[*i].holds(self.now)).collect();
        if self.is_reliable() && holders != [to] {
            return self.violation(3, format!("moved to node {to}, it is held by {holders:?}"));
        }
        (0..self.size()).for_each(|i| self.order(i, Input::Restore(None)));
        self.run_until(self.now + self.bounds.settle)?;
        self.check_settled().map(drop)
    }

    /// A node that does not hold the address is started again: no gap, and without preemption no move.
    pub(crate) fn return_calmly(&mut self) -> Checked {
        let holder = self.check_settled()?;
        let others = (0..self.size()).filter(|i| *i != holder);
        let Some(other) = others.max_by_key(|i| self.nodes[*i].config.priority) else { return Ok(()) };
        self.crash(other);
        self.run_until(self.now + self.interval)?;
        self.restart(other);
        self.run_until(self.now + self.bounds.settle)?;
        let after = self.check_settled()?;
        if !self.preempt && after != holder && self.is_reliable() {
            return self
                .violation(3, format!("node {other} came back and node {after} took it from {holder}"));
        }
        Ok(())
    }

    // ---- invariants at every instant -----------------------------------------------------------------------

    fn hear_each_other(&self, i: usize, j: usize) -> bool {
        let open = self.network.is_open(i, j) && self.network.is_open(j, i);
        open && self.nodes[i].cable && self.nodes[j].cable
    }

    /// When an overlap that goes on becomes a violation.
    fn next_deadline(&self) -> Time {
        let since = self.overlap_since.iter().flatten().map(|since| *since + self.bounds.overlap);
        since.map(|at| at + Duration::from_nanos(1)).filter(|at| *at > self.now).min().unwrap_or(Time::MAX)
    }

    fn check(&mut self) -> Checked {
        let now = self.now;
        for i in 0..self.size() {
            let asleep = now.since(self.nodes[i].changed_at);
            if !self.nodes[i].runs() && self.nodes[i].holds(now) && asleep > LEASE {
                return self.violation(1, format!("node {i} has not run for {asleep:?} and still holds it"));
            }
            for j in 0..i {
                self.check_pair(i, j)?;
            }
        }
        if self.no_gap && !self.nodes.iter().any(|n| n.holds(now)) {
            return self.violation(4, "nobody holds it".into());
        }
        Ok(())
    }

    fn check_pair(&mut self, i: usize, j: usize) -> Checked {
        let (now, pair) = (self.now, i * self.size() + j);
        let both_run = self.nodes[i].runs() && self.nodes[j].runs();
        let both_hold = self.nodes[i].holds(now) && self.nodes[j].holds(now);
        if !(both_run && both_hold && self.hear_each_other(i, j)) {
            self.overlap_since[pair] = None;
            return Ok(());
        }
        match self.overlap_since[pair] {
            None => {
                self.overlap_since[pair] = Some(now);
                self.events.overlaps += 1;
                self.check_riser(i, j)?;
                self.check_riser(j, i)
            }
            Some(since) if now.since(since) > self.overlap_bound(i, j) => {
                self.violation(1, format!("nodes {i} and {j} hold it both, since {since:?}"))
            }
            Some(_) => Ok(()),
        }
    }

    /// Two that hand over at the same time both hold the address until their patience ends.
    fn overlap_bound(&self, i: usize, j: usize) -> Duration {
        let both = self.handing_over[i] && self.handing_over[j];
        self.bounds.overlap + if both { self.interval * 3 + Duration::from_secs(1) } else { Duration::ZERO }
    }

    /// `riser` runs since this very instant: after a time-out of the others it must have let go. One that
    /// was a backup may be surprised in the last of its own four intervals, and is late after three more.
    fn check_riser(&mut self, riser: usize, other: usize) -> Checked {
        let node = &self.nodes[riser];
        let slept = node.slept;
        let too_long = self.interval * if node.was_master { 3 } else { 7 } + self.lateness;
        if node.changed_at == self.now && slept > too_long && self.nodes[other].changed_at < self.now {
            return self
                .violation(2, format!("node {riser} slept {slept:?} and holds what node {other} holds"));
        }
        Ok(())
    }
}
