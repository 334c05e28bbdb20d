//! One machine: the process with its core, and the kernel that keeps the address when the process is gone.

use std::collections::VecDeque;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use relais_base::Time;
use relais_vrrp::{Config, Health, Input, LEASE, Link, Output, Router, State, Track};

use super::Mutant;

/// The one frontend that every router tracks.
pub(crate) const FRONTEND: &str = "frontend web";

/// What a node does to the world around it.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A datagram for one other node, or for all.
    Send(IpAddr, Vec<u8>),
    /// A gratuitous ARP.
    Announce,
    /// Its hand-over is done.
    HandedOver,
    /// For the trace.
    Note(String),
}

/// The process: there, stopped by a signal, or dead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Process {
    Runs,
    Paused,
    Dead,
}

#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) source: IpAddr,
    pub(crate) config: Config,
    pub(crate) router: Router,
    pub(crate) process: Process,
    /// When the process last changed between running and not.
    pub(crate) changed_at: Time,
    /// How long it had not run when it last began to.
    pub(crate) slept: Duration,
    /// It was master when it last ceased to run, as its supervisor remembers.
    pub(crate) was_master: bool,
    /// Kernel: until when the address is on the interface.
    lease_until: Time,
    pub(crate) cable: bool,
    pub(crate) health: Health,
    /// Kernel: packets that wait for a paused process.
    waiting: VecDeque<Vec<u8>>,
    /// What a process that does not notice its pauses takes off the clock.
    unnoticed: Duration,
    mutant: Mutant,
    pub(crate) effects: Vec<Effect>,
}

impl Node {
    pub(crate) fn new(source: IpAddr, mut config: Config, mutant: Mutant, now: Time) -> Node {
        config.track = vec![Track { what: Arc::from(FRONTEND), weight: 0 }];
        Node {
            source,
            router: Router::new(config.clone(), now),
            config,
            process: Process::Dead,
            changed_at: now,
            slept: Duration::ZERO,
            was_master: false,
            lease_until: Time::ZERO,
            cable: true,
            health: Health::Up,
            waiting: VecDeque::new(),
            unnoticed: Duration::ZERO,
            mutant,
            effects: Vec::new(),
        }
    }

    pub(crate) fn runs(&self) -> bool {
        self.process == Process::Runs
    }

    /// Whether its kernel answers for the address.
    pub(crate) fn holds(&self, now: Time) -> bool {
        now < self.lease_until
    }

    /// When the kernel takes the address away by itself; in the past if it has none.
    pub(crate) fn lease_until(&self) -> Time {
        self.lease_until
    }

    pub(crate) fn is_master(&self) -> bool {
        self.runs() && self.router.state() == State::Master
    }

    fn link(&self) -> Link {
        if self.cable { Link::Up(self.source) } else { Link::Down }
    }

    // ---- the supervisor -------------------------------------------------------------------------

    /// A new process, which is told what its supervisor knows.
    pub(crate) fn start(&mut self, is_calm: bool, now: Time) {
        assert!(self.process == Process::Dead);
        let ago = now.since(self.changed_at);
        let resume = self.was_master.then_some(match self.mutant {
            Mutant::ResumesTooLate => Duration::ZERO,
            _ => ago,
        });
        self.process = Process::Runs;
        self.slept = now.since(self.changed_at);
        self.changed_at = now;
        self.unnoticed = Duration::ZERO;
        self.config.preempt |= is_calm && self.mutant == Mutant::PreemptsAnyway;
        self.router = Router::new(self.config.clone(), now);
        self.handle(Input::Link(self.link()), now);
        self.handle(Input::Tracked(FRONTEND, self.health), now);
        self.handle(Input::Start { resume }, now);
    }

    pub(crate) fn crash(&mut self, now: Time) {
        self.was_master = self.router.state() == State::Master;
        self.process = Process::Dead;
        self.changed_at = now;
        self.waiting.clear();
    }

    pub(crate) fn pause(&mut self, now: Time) {
        self.was_master = self.router.state() == State::Master;
        self.process = Process::Paused;
        self.changed_at = now;
    }

    /// SIGCONT: what waits in the socket comes before the timers, as the core demands of its driver.
    pub(crate) fn wake(&mut self, now: Time) {
        if self.mutant == Mutant::SleepsUnnoticed {
            self.unnoticed += now.since(self.changed_at);
            self.waiting.clear();
        }
        self.process = Process::Runs;
        self.slept = now.since(self.changed_at);
        self.changed_at = now;
        self.handle(Input::Link(self.link()), now);
        self.handle(Input::Tracked(FRONTEND, self.health), now);
        while let Some(datagram) = self.waiting.pop_front() {
            self.read(&datagram, now);
        }
        self.run_timers(now);
    }

    // ---- the driver -------------------------------------------------------------------------------

    /// A datagram came to the interface.
    pub(crate) fn receive(&mut self, datagram: Vec<u8>, now: Time) {
        match self.process {
            _ if !self.cable => {}
            Process::Runs => self.read(&datagram, now),
            Process::Paused if self.waiting.len() < 100 => self.waiting.push_back(datagram),
            Process::Paused | Process::Dead => {}
        }
    }

    fn read(&mut self, datagram: &[u8], now: Time) {
        let packet = relais_vrrp::parse(datagram).expect("the simulator sends well-formed packets");
        self.config.admits(&packet).expect("the nodes speak alike");
        let (source, mut advertisement) = (packet.source, packet.advertisement);
        if self.mutant == Mutant::IgnoresPriority && advertisement.priority > 0 {
            advertisement.priority = 1;
        }
        self.handle(Input::Advertisement(source, &advertisement), now);
    }

    pub(crate) fn handle(&mut self, input: Input<'_>, now: Time) {
        if self.runs() {
            if self.mutant == Mutant::BreaksBeforeMaking && matches!(input, Input::HandOver) {
                self.lease_until = Time::ZERO;
            }
            self.router.handle(input, now - self.unnoticed);
            self.carry_out(now);
        }
    }

    /// When its driver would call it next.
    pub(crate) fn next_timer(&self) -> Time {
        if !self.runs() || (self.mutant == Mutant::NeverTimesOut && !self.is_master()) {
            return Time::MAX;
        }
        self.router.poll_timeout() + self.unnoticed
    }

    pub(crate) fn run_timers(&mut self, now: Time) {
        if self.next_timer() <= now {
            self.router.handle_timeout(now - self.unnoticed);
            self.carry_out(now);
        }
    }

    fn carry_out(&mut self, now: Time) {
        self.router.check_invariants();
        while let Some(output) = self.router.poll_output() {
            match output {
                Output::AddAddress | Output::RefreshLease => {
                    let forever = self.mutant == Mutant::HasNoLease;
                    self.lease_until = if forever { Time::MAX } else { now + LEASE };
                }
                Output::RemoveAddress if self.mutant == Mutant::ForgetsToRemove => {}
                Output::RemoveAddress => self.lease_until = Time::ZERO,
                // For connections of before; no part in who holds the address.
                Output::LetGo | Output::SendOnTo(_) | Output::EndRelay => {}
                Output::Announce if self.mutant == Mutant::AnnouncesNothing => {}
                Output::Announce => self.effects.push(Effect::Announce),
                Output::SendAdvertisement(source, advertisement) => {
                    let Config { form, .. } = &self.config;
                    for to in self.config.destinations() {
                        let datagram = relais_vrrp::encode(source, to, form, &advertisement);
                        self.effects.push(Effect::Send(to, datagram));
                    }
                }
                Output::Changed(state, reason) => {
                    self.effects.push(Effect::Note(format!("{state:?}: {reason}")))
                }
                Output::Moved(_) => {} // no process here is told what its predecessor knew
                Output::HandedOver => self.effects.push(Effect::HandedOver),
                Output::Log(sentence) => self.effects.push(Effect::Note(sentence)),
            }
        }
    }
}
