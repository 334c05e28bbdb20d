//! What the real-time threads do: the shell around the [`Router`]s. It hands packets, news from the kernel, commands
//! and deadlines to the core, and carries out what the core decides.
//!
//! It decides nothing itself, and never waits for another process: what it has to tell goes through a
//! queue to the main thread, which alone writes logs and answers the supervisor. Called by `prompt`.

mod gates;
mod groups;
mod heartbeats;
mod macs;
mod moves;
mod ports;
mod relays;
mod tracked;
mod watches;

pub(crate) use tracked::{QUORUM, backend, file, frontend, link, script};

use std::collections::BTreeMap;
use std::io;
use std::mem::Discriminant;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use relais_base::Time;
use relais_ipc::message::{FrontendState, Moved, VipState};
use relais_ipc::status::{VipStatus, VipsStatus};
use relais_vrrp::{Association, Config, Health, Input, Output, Password, Refused, Router, State};
use rustix::time::{ClockId, clock_gettime};
use tokio::sync::mpsc::UnboundedSender;

use self::heartbeats::Beats;
use crate::gate::{Gate, Pulse};
use crate::heartbeat;
use crate::inbox::{self, listen};
use crate::netlink::{Interface, Netlink, News};
use crate::sys;
use crate::watch::Watch;
use crate::wire::Wire;
use crate::wire6::Wire6;

/// Longest packet that is looked at: an IPv6 header and 255 addresses, more than IPv4's with options and a password.
const MAX_PACKET: usize = relais_vrrp::HEADER6_LEN + 8 + 16 * 255;
/// Packets read from one interface before timers get their turn: a flood must not stop the adverts.
const MAX_PACKETS: usize = 256;
/// How many of its own intervals after its last advertisement a holder is mute. The others wait for as many and their
/// skew (RFC 9568 §6.1).
const GATE_INTERVALS: u32 = 3;
/// How old the status document may be, nanoseconds.
const STATUS_EVERY_NS: u64 = 100_000_000;

/// A virtual address that this node may hold.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) name: Arc<str>,
    pub(crate) interface: Arc<str>,
    /// Others of this name are held together with it.
    pub(crate) sync_group: Option<Arc<str>>,
    /// Tracked files, and what their numbers are multiplied by.
    pub(crate) files: Vec<(Arc<str>, i16)>,
    /// Lengths of the addresses' network prefixes, in their order.
    pub(crate) prefixes: Vec<u8>,
    /// What the authentication header is made with, where there is one.
    pub(crate) seal: Option<Password>,
    /// Clients find them at a hardware address that moves along (RFC 9568 §7.3).
    pub(crate) virtual_mac: bool,
    pub(crate) config: Config,
}

/// From the main thread.
#[derive(Debug)]
pub(crate) enum Command {
    /// Put this plan in force.
    Apply {
        generation: u64,
        /// This node's own addresses: advertisements leave from one of them where the interface has it.
        links: Vec<IpAddr>,
        /// The addresses of all nodes: who may watch this one.
        peers: Vec<IpAddr>,
        specs: Vec<Spec>,
        /// `None`: none are sent, and none are heard.
        heartbeats: Option<Box<heartbeat::Spec>>,
        /// Addresses that a predecessor of this process held when it died at that time.
        resumes: Vec<(String, Time)>,
    },
    /// Something that addresses may depend on, by the name that the core knows it by.
    Tracked(String, FrontendState),
    /// The operator's word of the node.
    Standby(bool),
    /// The operator's word of an address: here, or away.
    Move(String, bool),
    /// What a predecessor of this process knew of such a word.
    Moved(String, Moved),
    /// The number in a tracked file.
    File(Arc<str>, i32),
    HandOver,
    /// Name the addresses from which clients may still get something.
    Deliver,
    /// Let go of everything and end.
    Stop,
}

/// To the main thread.
#[derive(Debug)]
pub(crate) enum Event {
    Applied(u64),
    Changed(String, VipState),
    Moved(String, Option<Moved>),
    HandedOver,
    /// A backup watches this node: the supervisor, too, must hold the connection.
    Watched(OwnedFd),
    /// What keeps the gates open: likewise.
    Pulse(OwnedFd),
    /// What connections of these addresses are still open here after this time is to be ended, unless the addresses are
    /// here again.
    Left {
        vip: Arc<str>,
        addresses: Vec<IpAddr>,
        after: Duration,
        is_here_again: Arc<AtomicBool>,
    },
    /// From these addresses clients may still get something.
    Delivering(Vec<IpAddr>),
    Info(String),
    Warn(String),
    Stopped,
}

/// Nanoseconds that pass also while the machine is suspended.
pub(crate) fn now() -> Time {
    let now = clock_gettime(ClockId::Boottime);
    Time::from_nanos(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

struct Vip {
    spec: Spec,
    router: Router,
    /// Where advertisements have an authentication header.
    association: Option<Association>,
    /// A hand-over was asked for and is not done.
    leaving: bool,
    /// No longer in the plan: it goes when it has left.
    dropped: bool,
    /// Where the kernel allows it.
    gates: Vec<Gate>,
    /// The interface with the virtual hardware address, once there is one.
    carrier: Option<u32>,
    /// Connections go on here although another node has the address.
    relaying: bool,
    /// Says of the last `Event::Left` that it need not be minded any more.
    is_here_again: Arc<AtomicBool>,
    /// It was in a sync group at the end of the last turn.
    grouped: bool,
    /// Changes of state, by the state that they led to.
    transitions: BTreeMap<String, u64>,
}

struct Port {
    name: Arc<str>,
    found: Option<Interface>,
    wire: Option<Wire>,
    /// Where an authentication header is wanted.
    sealed: Option<Wire>,
    /// Where a virtual address of IPv6 is wanted.
    wire6: Option<Wire6>,
    /// The machine forwards IPv6 from this interface.
    is_router6: bool,
    refused: u64,
    /// Complaints already made, so that each is made once.
    complained: Vec<Discriminant<Refused>>,
    send_failed: bool,
    /// Of IPv4 and of IPv6.
    watches: [Watch; 2],
}

/// See the module's documentation.
pub(crate) struct Engine {
    netlink: Netlink,
    /// Made with the first gate; it must live as long as the process.
    pulse: Option<Pulse>,
    /// It was said that there are no gates here.
    ungated: bool,
    ports: Vec<Port>,
    vips: Vec<Vip>,
    links: Vec<IpAddr>,
    peers: Vec<IpAddr>,
    beats: Option<Beats>,
    /// What was said of frontends, backends and scripts, by the names that the core knows them by.
    known: Vec<(String, FrontendState)>,
    /// What routers that track it were told of a majority.
    quorum: Option<bool>,
    /// Until then a majority is taken to be there.
    quorum_until: Time,
    generation: u64,
    handing_over: bool,
    standby: bool,
    /// For routers that are still to be made.
    moved: Vec<(String, Moved)>,
    groups: Vec<groups::Together>,
    stopped: bool,
    commands: Receiver<Command>,
    wake: OwnedFd,
    /// An epoll instance over all that can wake a thread.
    inbox: OwnedFd,
    events: UnboundedSender<Event>,
    status: Arc<Mutex<VipsStatus>>,
    status_at: Time,
}

fn health(state: FrontendState) -> Health {
    match state {
        FrontendState::Up => Health::Up,
        FrontendState::Healing => Health::Healing,
        FrontendState::Down => Health::Down,
    }
}

fn state(health: Health) -> FrontendState {
    match health {
        Health::Up => FrontendState::Up,
        Health::Healing => FrontendState::Healing,
        Health::Down => FrontendState::Down,
    }
}

fn vip_state(state: State) -> VipState {
    match state {
        State::Fault => VipState::Fault,
        State::Backup => VipState::Backup,
        State::Master => VipState::Master,
    }
}

impl Engine {
    /// An engine that obeys `commands`; whoever sends one writes to `wake` (an eventfd) afterwards.
    pub(crate) fn new(
        netlink: Netlink,
        commands: Receiver<Command>,
        wake: OwnedFd,
        events: UnboundedSender<Event>,
        status: Arc<Mutex<VipsStatus>>,
    ) -> io::Result<Engine> {
        let inbox = inbox::create()?;
        listen(&inbox, wake.as_fd(), inbox::COMMANDS)?;
        listen(&inbox, netlink.news_fd(), inbox::NEWS)?;
        Ok(Engine {
            netlink,
            pulse: None,
            ungated: false,
            ports: Vec::new(),
            vips: Vec::new(),
            links: Vec::new(),
            peers: Vec::new(),
            beats: None,
            known: Vec::new(),
            quorum: None,
            quorum_until: Time::ZERO,
            generation: 0,
            handing_over: false,
            standby: false,
            moved: Vec::new(),
            groups: Vec::new(),
            stopped: false,
            commands,
            wake,
            inbox,
            events,
            status,
            status_at: Time::ZERO,
        })
    }

    /// One turn: everything that has come or is due.
    pub(crate) fn turn(&mut self) {
        let come = inbox::come(&self.inbox);
        // Packets before timers: see the core's documentation.
        if come & inbox::PACKETS != 0 {
            self.read_packets();
        }
        if come & inbox::HEARTBEATS != 0 {
            self.read_heartbeats();
        }
        if come & inbox::NEWS != 0 {
            self.read_news();
        }
        self.read_commands(come & inbox::COMMANDS != 0);
        self.run_heartbeats();
        self.run_timers();
        self.run_heartbeats(); // those that go with an advertisement
        self.tell_of_quorum();
        self.watch_masters(come & inbox::WATCHES != 0);
        self.settle_groups();
        self.forget_dropped();
        self.tell_of_holding();
        self.report_hand_over();
        self.publish();
        if self.stopped {
            self.tell(Event::Stopped);
            let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes()); // nobody need wait for more
        }
    }

    /// Readable when something has come.
    pub(crate) fn inbox(&self) -> io::Result<OwnedFd> {
        self.inbox.try_clone()
    }

    /// When the next turn is due, whether anything has come or not.
    pub(crate) fn due(&self) -> Time {
        let timers = self.vips.iter().map(|vip| vip.router.poll_timeout());
        let watches = self.ports.iter().flat_map(|port| port.watches.iter().map(Watch::due));
        timers.chain(watches).chain([self.heartbeats_due()]).min().unwrap_or(Time::MAX)
    }

    /// It has let go of everything; there must be no further turn.
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped
    }

    /// Says once that the threads that call it are late sometimes, and what to do.
    pub(crate) fn complain_of_scheduling(&self, e: &io::Error) {
        self.tell(Event::Warn(format!(
            "real-time scheduling was refused ({e}): on a starved machine another node may take the \
             addresses for no reason; give the service CAP_SYS_NICE"
        )));
    }

    fn lock_memory(&self) {
        if let Err(e) = sys::lock_memory() {
            self.tell(Event::Warn(format!(
                "memory could not be locked ({e}): on a machine that swaps another node may take the \
                 addresses for no reason; give the service CAP_IPC_LOCK"
            )));
        }
    }

    fn tell(&self, event: Event) {
        let _ = self.events.send(event); // fails only if the main thread is gone, and we end with it
    }

    // ---- packets ---------------------------------------------------------------------------------

    fn read_packets(&mut self) {
        let mut buffer = [0; MAX_PACKET];
        for p in 0..self.ports.len() {
            for _ in 0..MAX_PACKETS {
                let port = &self.ports[p];
                let Some(datagram) = port.wire.as_ref().and_then(|w| w.receive(&mut buffer)) else { break };
                self.read_packet(p, datagram);
            }
            for _ in 0..MAX_PACKETS {
                let port = &self.ports[p];
                let Some(datagram) = port.sealed.as_ref().and_then(|w| w.receive(&mut buffer)) else { break };
                self.read_packet(p, datagram);
            }
            for _ in 0..MAX_PACKETS {
                let port = &self.ports[p];
                let Some(datagram) = port.wire6.as_ref().and_then(|w| w.receive(&mut buffer)) else { break };
                self.read_packet(p, datagram);
            }
        }
    }

    // ---- the kernel's news -------------------------------------------------------------------------

    fn read_news(&mut self) {
        for news in self.netlink.drain_news() {
            match news {
                News::Lost => {
                    (0..self.ports.len()).for_each(|p| self.look_at(p));
                    self.tell_of_links();
                }
                News::Link(name) => {
                    self.tell_of_link(&name);
                    if let Some(p) = self.ports.iter().position(|port| *port.name == *name) {
                        self.look_at(p);
                    }
                }
                News::Address { index, address, gone } => self.address_news(index, address, gone),
            }
        }
    }

    fn address_news(&mut self, index: u32, address: IpAddr, gone: bool) {
        let is_here = |port: &Port| port.found.as_ref().is_some_and(|found| found.index == index);
        let has_it = |vip: &Vip| vip.router.config().addresses.contains(&address);
        let carries = |vip: &Vip| vip.carrier == Some(index) && has_it(vip);
        match (self.vips.iter().position(carries), self.ports.iter().position(is_here)) {
            (Some(v), _) if gone && !self.is_there(v, address) => self.handle(v, Input::AddressVanished),
            (None, Some(p)) if !self.is_virtual(address) => self.look_at(p),
            _ => {}
        }
    }

    fn is_there(&mut self, v: usize, address: IpAddr) -> bool {
        let name = self.carrier_name(v);
        matches!(self.netlink.interface(&name), Ok(Some(found)) if found.addresses.contains(&address))
    }

    /// Asks the kernel about an interface and tells the routers on it.
    fn look_at(&mut self, p: usize) {
        let name = self.ports[p].name.clone();
        let found = self.netlink.interface(&name).unwrap_or_else(|e| {
            self.tell(Event::Warn(format!("the kernel does not describe {name} ({e})")));
            None
        });
        self.ports[p].found = found;
        self.open_wires(p);
        self.settle_watches(p);
        for v in 0..self.vips.len() {
            if self.vips[v].spec.interface == name {
                self.build_gates(v, p);
                self.prepare_carrier(v, p);
                let link = self.link_of(v, p);
                self.handle(v, Input::Link(link));
                self.prime_cut(v);
            }
        }
    }

    // ---- commands ------------------------------------------------------------------------------------

    fn read_commands(&mut self, woken: bool) {
        if woken {
            let _ = rustix::io::read(&self.wake, &mut [0u8; 8]);
        }
        loop {
            match self.commands.try_recv() {
                Ok(Command::Apply { generation, links, peers, specs, heartbeats, resumes }) => {
                    (self.links, self.peers) = (links, peers);
                    self.settle_heartbeats(heartbeats.map(|spec| *spec));
                    self.trust_in_quorum(!resumes.is_empty());
                    self.apply(specs, &resumes);
                    self.generation = generation;
                    self.status_at = Time::ZERO; // a new plan is in the status at once
                    self.lock_memory();
                    self.tell(Event::Applied(generation));
                }
                Ok(Command::Tracked(what, state)) => self.tracked_is(what, state),
                Ok(Command::Standby(on)) => self.be_in_standby(on),
                Ok(Command::Move(name, here)) => self.move_vip(&name, here),
                Ok(Command::Moved(name, moved)) => self.moved.push((name, moved)),
                Ok(Command::File(path, number)) => self.file_says(&path, number),
                Ok(Command::HandOver) => self.hand_over(),
                Ok(Command::Deliver) => self.tell_of_delivery(),
                Ok(Command::Stop) | Err(TryRecvError::Disconnected) => {
                    for v in 0..self.vips.len() {
                        self.handle(v, Input::Stop);
                        self.remove_carrier(v);
                    }
                    self.leave();
                    self.stopped = true;
                    return;
                }
                Err(TryRecvError::Empty) => return,
            }
        }
    }

    fn hand_over(&mut self) {
        self.handing_over = true;
        for v in 0..self.vips.len() {
            self.vips[v].leaving = true;
            self.handle(v, Input::HandOver);
        }
    }

    fn report_hand_over(&mut self) {
        if self.handing_over && self.vips.iter().all(|vip| !vip.leaving) {
            self.handing_over = false;
            self.tell(Event::HandedOver);
        }
    }

    /// Puts a plan in force: what stays keeps its state, what goes is handed over, what comes begins.
    fn apply(&mut self, specs: Vec<Spec>, resumes: &[(String, Time)]) {
        for v in 0..self.vips.len() {
            let Vip { spec: old, dropped, .. } = &self.vips[v];
            let stays = specs.iter().any(|new| new.name == old.name && is_same_router(new, old));
            let replaced = specs.iter().any(|new| {
                let (new_, old_) = (&new.config.addresses, &old.config.addresses);
                new.interface == old.interface
                    && (new.config.vrid == old.config.vrid || new_.iter().any(|a| old_.contains(a)))
            });
            if replaced && (!stays || *dropped) {
                self.vips[v].dropped = true;
                self.handle(v, Input::Stop);
                self.vips[v].leaving = false;
            } else if !stays && !*dropped {
                self.vips[v].dropped = true;
                self.vips[v].leaving = true;
                self.handle(v, Input::HandOver);
            }
        }
        self.forget_dropped();
        for spec in specs {
            let p = self.port(&spec.interface);
            let kept = |vip: &Vip| !vip.dropped && vip.spec.name == spec.name;
            if let Some(v) = self.vips.iter().position(kept) {
                let config = spec.config.clone();
                if self.vips[v].spec.seal != spec.seal {
                    self.vips[v].association = association(&spec);
                }
                self.vips[v].spec = spec;
                self.handle(v, Input::Reconfigure(config));
                self.prime(v, p, None);
            } else {
                let resume = resumes.iter().find(|(name, _)| *name == *spec.name).map(|(_, died)| *died);
                let router = Router::new(spec.config.clone(), now());
                let association = association(&spec);
                self.vips.push(Vip {
                    spec,
                    router,
                    association,
                    leaving: false,
                    dropped: false,
                    gates: Vec::new(),
                    carrier: None,
                    relaying: false,
                    is_here_again: Arc::default(),
                    grouped: false,
                    transitions: BTreeMap::new(),
                });
                self.instruct(self.vips.len() - 1);
                self.prime(self.vips.len() - 1, p, resume);
            }
        }
        self.handing_over = false;
        self.tell_of_links();
        (0..self.ports.len()).for_each(|p| self.look_at(p)); // what is virtual may have changed
    }

    /// Dropped routers go when they have left, and what they relay has ended.
    fn forget_dropped(&mut self) {
        let done = |vip: &Vip| vip.dropped && !vip.leaving && vip.router.poll_timeout() == Time::MAX;
        for v in 0..self.vips.len() {
            if done(&self.vips[v]) {
                self.remove_carrier(v);
            }
        }
        self.vips.retain(|vip| !done(vip));
    }

    /// Tells a router all that is known, and starts it.
    fn prime(&mut self, v: usize, p: usize, resume: Option<Time>) {
        self.open_wires(p); // the first of its family may need one
        self.build_gates(v, p);
        self.prepare_carrier(v, p);
        self.handle(v, Input::Link(self.link_of(v, p)));
        for (what, state) in self.known.clone() {
            self.handle(v, Input::Tracked(&what, health(state)));
        }
        self.vips[v].leaving = false;
        self.handle(v, Input::Start { resume: resume.map(|died| now().since(died)) });
    }

    /// The port of this interface, looked at when it is new.
    fn port(&mut self, name: &Arc<str>) -> usize {
        if let Some(p) = self.ports.iter().position(|port| port.name == *name) {
            return p;
        }
        self.ports.push(Port {
            name: name.clone(),
            found: None,
            wire: None,
            sealed: None,
            wire6: None,
            is_router6: false,
            refused: 0,
            complained: Vec::new(),
            send_failed: false,
            watches: Default::default(),
        });
        self.look_at(self.ports.len() - 1);
        self.ports.len() - 1
    }

    // ---- the core ----------------------------------------------------------------------------------------

    fn run_timers(&mut self) {
        for v in 0..self.vips.len() {
            let now = now();
            if self.vips[v].router.poll_timeout() <= now {
                self.vips[v].router.handle_timeout(now);
                self.carry_out(v);
            }
        }
    }

    fn handle(&mut self, v: usize, input: Input<'_>) {
        self.vips[v].router.handle(input, now());
        self.carry_out(v);
    }

    fn carry_out(&mut self, v: usize) {
        while let Some(output) = self.vips[v].router.poll_output() {
            let p = self.port(&self.vips[v].spec.interface.clone());
            match output {
                Output::AddAddress => {
                    self.mute_gates(v, false);
                    self.vips[v].is_here_again.store(true, Ordering::Relaxed);
                    self.hold_gates(v, GATE_INTERVALS * self.vips[v].router.config().interval);
                    self.put_address(v, p);
                }
                Output::RefreshLease => self.put_address(v, p),
                Output::RemoveAddress => self.remove_address(v, p),
                Output::LetGo => self.let_go(v, p),
                Output::SendOnTo(old) => self.send_on(v, p, old),
                Output::EndRelay => self.end_relay(v),
                Output::Announce => self.announce(v, p),
                Output::SendAdvertisement(source, advertisement) => {
                    if self.vips[v].router.state() == State::Master {
                        self.hold_gates(v, GATE_INTERVALS * self.vips[v].router.config().interval);
                    }
                    self.send(v, p, source, &advertisement);
                    self.heartbeats_go_along();
                }
                Output::Changed(state, reason) => self.changed(v, state, &reason),
                Output::HandedOver => self.vips[v].leaving = false,
                Output::Moved(moved) => {
                    let name = self.vips[v].spec.name.to_string();
                    self.tell(Event::Moved(name, moved.map(moves::moved)));
                }
                Output::Log(sentence) => {
                    self.tell(Event::Warn(format!("vip {}: {sentence}", self.vips[v].spec.name)));
                }
            }
        }
    }

    fn changed(&mut self, v: usize, state: State, reason: &str) {
        let Spec { name, interface, .. } = &self.vips[v].spec;
        let state = vip_state(state);
        let to = format!("{state:?}").to_lowercase();
        let sentence = match state {
            VipState::Master => format!("vip {name}: master on {interface} because {reason}"),
            VipState::Backup => format!("vip {name}: backup on {interface} because {reason}"),
            VipState::Fault => format!("vip {name}: not held on {interface} because {reason}"),
        };
        self.tell(Event::Info(sentence));
        self.tell(Event::Changed(name.to_string(), state));
        *self.vips[v].transitions.entry(to).or_default() += 1;
        self.status_at = Time::ZERO;
    }

    fn put_address(&mut self, v: usize, p: usize) {
        let mut done = self.try_to_put(v, p);
        if done.as_ref().is_err_and(|(_, e)| e.raw_os_error() == Some(libc::ENODEV)) {
            self.vips[v].carrier = None; // it was being taken away
            done = self.try_to_put(v, p);
        }
        if let Err((address, e)) = done {
            let why = match address {
                Some(address) => format!("the kernel refuses the address {address} ({e})"),
                None => self.no_carrier(v, &e),
            };
            self.handle(v, Input::AddressRefused(&why));
        }
    }

    /// An error is with the address that is refused, or with none where there is no interface for any.
    fn try_to_put(&mut self, v: usize, p: usize) -> Result<(), (Option<IpAddr>, io::Error)> {
        let Some(index) = self.carrier(v, p).map_err(|e| (None, e))? else { return Ok(()) };
        self.placed(v, p).into_iter().try_for_each(|(address, prefix)| {
            self.netlink.put(index, address, prefix, relais_vrrp::LEASE).map_err(|e| (Some(address), e))
        })
    }

    fn remove_address(&mut self, v: usize, p: usize) {
        self.shut_gates(v);
        if !self.vips[v].relaying {
            self.tell_of_what_is_left(v, Duration::ZERO);
        }
        let Some(index) = self.vips[v].carrier else { return };
        for (address, prefix) in self.placed(v, p) {
            if let Err(e) = self.netlink.take(index, address, prefix) {
                let name = &self.vips[v].spec.name;
                self.tell(Event::Warn(format!(
                    "vip {name}: {address} could not be removed ({e}); the kernel will do it within {} s",
                    relais_vrrp::LEASE.as_secs() + 1
                )));
            }
        }
        self.rest_carrier(v);
    }

    // ---- status ------------------------------------------------------------------------------------------

    /// Renews the status document, unless somebody is reading it: this thread waits for nobody.
    fn publish(&mut self) {
        let now = now();
        if now.since(self.status_at).as_nanos() < u128::from(STATUS_EVERY_NS) {
            return;
        }
        let vips = self.vips.iter().map(|vip| self.describe(vip, now)).collect();
        if let Ok(mut status) = self.status.try_lock() {
            let (pid, heartbeats) = (std::process::id(), self.describe_heartbeats(now));
            *status =
                VipsStatus { pid, generation: self.generation, vips, heartbeats, ..VipsStatus::default() };
            self.status_at = now;
        }
    }

    fn describe(&self, vip: &Vip, now: Time) -> VipStatus {
        let (router, config) = (&vip.router, vip.router.config());
        let port = self.ports.iter().find(|port| port.name == vip.spec.interface);
        VipStatus {
            name: vip.spec.name.to_string(),
            address: addresses(&vip.spec),
            interface: vip.spec.interface.to_string(),
            router_id: config.vrid,
            state: vip_state(router.state()),
            priority: router.priority(),
            master: router.holder(),
            moved: router.moved().map(moves::moved),
            reason: router.reason().to_owned(),
            since_s: now.since(router.since()).as_secs(),
            became_master_total: router.counters().became_master,
            transitions_total: vip.transitions.clone(),
            adverts_sent_total: router.counters().sent,
            adverts_received_total: router.counters().received,
            adverts_refused_total: port.map_or(0, |port| port.refused),
            tracked: router.tracked().map(|(what, health)| (what.to_owned(), state(health))).collect(),
        }
    }
}

fn is_same_router(a: &Spec, b: &Spec) -> bool {
    (&a.interface, &a.prefixes, a.virtual_mac, a.config.vrid, &a.config.addresses)
        == (&b.interface, &b.prefixes, b.virtual_mac, b.config.vrid, &b.config.addresses)
}

/// Numbers go on where the clock is, four a second since 2020: a new process is above what its predecessor said, and the
/// next advertisement that it hears brings it up to the others. They last until 2054.
fn association(spec: &Spec) -> Option<Association> {
    const BEGINNING: u64 = 1_577_836_800;
    let now = clock_gettime(ClockId::Realtime).tv_sec as u64;
    let floor = u32::try_from(now.saturating_sub(BEGINNING).saturating_mul(4)).unwrap_or(u32::MAX);
    spec.seal.map(|key| Association::new(key, !spec.config.peers.is_empty(), floor))
}

fn is_ipv4(vip: &Vip) -> bool {
    vip.spec.config.addresses.iter().any(IpAddr::is_ipv4)
}

fn addresses(spec: &Spec) -> String {
    let all = spec.config.addresses.iter().zip(&spec.prefixes);
    all.map(|(address, prefix)| format!("{address}/{prefix}")).collect::<Vec<_>>().join(" ")
}
