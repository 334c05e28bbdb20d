//! The engine's heartbeats: from the sockets to the core, from the core to the routers, and back.

use std::mem::{Discriminant, discriminant};
use std::net::IpAddr;

use relais_base::Time;
use relais_cluster::wire::{MAX_LEN, Refused, hash};
use relais_cluster::{Input as Word, Members, Output as Deed};
use relais_ipc::status::HeartbeatStatus;
use relais_vrrp::{Input, State};

use super::{Engine, Event, now};
use crate::heartbeat::{self, Key, PORT, Port};
use crate::inbox::{HEARTBEATS, listen};

/// Heartbeats read from one link before timers get their turn.
const MAX_READ: usize = 256;

/// The heartbeats of this process.
pub(super) struct Beats {
    members: Members,
    key: Key,
    node: u32,
    /// By the number of the link; `None` where there is no socket.
    ports: Vec<Option<Port>>,
    /// Why each link is cut off.
    cuts: Vec<Option<String>>,
    /// What the core was told last of what this node holds: virtual router, link, priority.
    holds: Vec<(u32, u8, u8)>,
    refused: u64,
    /// Complaints already made, so that each is made once.
    complained: Vec<Discriminant<Refused>>,
}

impl Engine {
    /// Puts what a plan says of heartbeats in force.
    pub(super) fn settle_heartbeats(&mut self, spec: Option<heartbeat::Spec>) {
        let Some(heartbeat::Spec { config, links, key }) = spec else {
            if let Some(mut beats) = self.beats.take() {
                beats.members.handle(Word::Leave, now());
                self.beats = Some(beats);
                self.carry_out_deeds();
                self.beats = None;
                (0..self.vips.len()).for_each(|v| self.handle(v, Input::CutOff(None)));
            }
            return;
        };
        let mut old = self.beats.take();
        let known =
            |beats: &Beats| -> Vec<_> { beats.ports.iter().map(|p| p.as_ref().map(|p| p.own)).collect() };
        let before = old.as_ref().map(known);
        let mut ports = Vec::new();
        for own in links {
            let kept = old.as_mut().and_then(|old| {
                old.ports.iter_mut().find(|port| port.as_ref().is_some_and(|port| port.own == own))?.take()
            });
            ports.push(kept.or_else(|| self.open_port(own)));
        }
        let node = config.node;
        let mut beats = Beats {
            members: Members::new(config.clone(), heartbeat::incarnation(), now()),
            key,
            node,
            cuts: vec![None; ports.len()],
            ports,
            holds: Vec::new(),
            refused: 0,
            complained: Vec::new(),
        };
        // Other links have other numbers: what is known of them is not carried over.
        if let Some(old) = old
            && before == Some(known(&beats))
        {
            (beats.members, beats.cuts, beats.holds) = (old.members, old.cuts, old.holds);
            beats.members.handle(Word::Reconfigure(config), now());
        }
        self.beats = Some(beats);
        self.carry_out_deeds();
    }

    fn open_port(&mut self, own: IpAddr) -> Option<Port> {
        let opened =
            Port::open(own).and_then(|port| listen(&self.inbox, port.fd(), HEARTBEATS).map(|()| port));
        if let Err(e) = &opened {
            self.tell(Event::Warn(format!(
                "{own} UDP port {PORT} cannot be opened ({e}): other nodes do not hear this one there, and it \
                 cannot tell a cut link from a dead node"
            )));
        }
        opened.ok()
    }

    pub(super) fn read_heartbeats(&mut self) {
        let mut buffer = [0; MAX_LEN + 1];
        let links = self.beats.as_ref().map_or(0, |beats| beats.ports.len());
        for link in 0..links {
            for _ in 0..MAX_READ {
                let Some(beats) = &mut self.beats else { return };
                let Some(port) = &beats.ports[link] else { break };
                let Some((from, datagram)) = port.receive(&mut buffer) else { break };
                match beats.key.open(datagram) {
                    Ok(heartbeat) => {
                        let word = Word::Heartbeat { link: link as u8, from, heartbeat: &heartbeat };
                        beats.members.handle(word, now());
                        self.carry_out_deeds();
                    }
                    Err(why) => self.refuse(from, why),
                }
            }
        }
    }

    fn refuse(&mut self, from: IpAddr, why: Refused) {
        let Some(beats) = &mut self.beats else { return };
        beats.refused += 1;
        if !beats.complained.contains(&discriminant(&why)) {
            beats.complained.push(discriminant(&why));
            self.tell(Event::Warn(format!("a heartbeat from {from} was refused: {why}")));
        }
    }

    pub(super) fn heartbeats_due(&self) -> Time {
        self.beats.as_ref().map_or(Time::MAX, |beats| beats.members.poll_timeout())
    }

    /// Comes before the routers' timers: what is known of others decides what these may do.
    pub(super) fn run_heartbeats(&mut self) {
        let now = now();
        if self.heartbeats_due() <= now {
            if let Some(beats) = &mut self.beats {
                beats.members.handle_timeout(now);
            }
            self.carry_out_deeds();
        }
    }

    /// An advertisement has gone out: one wake instead of two, here and at all who hear both.
    pub(super) fn heartbeats_go_along(&mut self) {
        if let Some(beats) = &mut self.beats {
            beats.members.go_along(now());
        }
    }

    pub(super) fn leave(&mut self) {
        if let Some(beats) = &mut self.beats {
            beats.members.handle(Word::Leave, now());
        }
        self.carry_out_deeds();
    }

    fn carry_out_deeds(&mut self) {
        loop {
            let Some(beats) = &mut self.beats else { return };
            let Some(deed) = beats.members.poll_output() else { return };
            match deed {
                Deed::Send { link, to, heartbeat } => {
                    if let Some(port) = &beats.ports[usize::from(link)] {
                        let datagram = beats.key.seal(&heartbeat);
                        to.into_iter().for_each(|to| port.send(to, &datagram));
                    }
                }
                Deed::Witnessed { vip, link, holder, priority, at, .. } => {
                    let node = beats.node;
                    for v in 0..self.vips.len() {
                        if hash(&self.vips[v].spec.name) != vip || self.witness_link(v) != Some(link) {
                            continue;
                        }
                        let outranks = (priority, holder) > (self.vips[v].router.priority(), node);
                        self.handle(v, Input::Witnessed { at, outranks });
                    }
                }
                Deed::Cut { link, why } => {
                    beats.cuts[usize::from(link)].clone_from(&why);
                    for v in 0..self.vips.len() {
                        if self.witness_link(v) == Some(link) {
                            self.handle(v, Input::CutOff(why.as_deref()));
                        }
                    }
                }
                Deed::Warn(sentence) => self.tell(Event::Warn(sentence)),
                Deed::Info(sentence) => self.tell(Event::Info(sentence)),
            }
        }
    }

    /// The link of this node that is on the virtual router's own network: only what is heard there proves anything.
    fn witness_link(&self, v: usize) -> Option<u8> {
        let port = self.ports.iter().find(|port| port.name == self.vips[v].spec.interface)?;
        let found = port.found.as_ref()?;
        let links = &self.beats.as_ref()?.ports;
        let is_here = |own: &IpAddr| found.addresses.contains(own);
        let position = links.iter().position(|port| port.as_ref().is_some_and(|port| is_here(&port.own)))?;
        u8::try_from(position).ok()
    }

    /// Tells a router that is new, or whose interface has changed, what it missed.
    pub(super) fn prime_cut(&mut self, v: usize) {
        let Some(link) = self.witness_link(v) else { return };
        let why = self.beats.as_ref().and_then(|beats| beats.cuts[usize::from(link)].clone());
        self.handle(v, Input::CutOff(why.as_deref()));
    }

    /// Tells the core what this node holds, where that has changed.
    pub(super) fn tell_of_holding(&mut self) {
        if self.beats.is_none() {
            return;
        }
        let mut holds = Vec::new();
        for v in 0..self.vips.len() {
            let vip = &self.vips[v];
            if vip.router.state() == State::Master
                && let Some(link) = self.witness_link(v)
            {
                // Who is leaving is no rival of who comes.
                let priority = if vip.leaving { 0 } else { vip.router.priority() };
                holds.push((hash(&vip.spec.name), link, priority));
            }
        }
        let Some(beats) = &mut self.beats else { return };
        if holds == beats.holds {
            return;
        }
        let now = now();
        for (vip, link, _) in
            beats.holds.iter().filter(|(vip, ..)| !holds.iter().any(|(held, ..)| held == vip))
        {
            beats.members.handle(Word::Hold { vip: *vip, link: *link, held: None }, now);
        }
        for (vip, link, priority) in &holds {
            beats.members.handle(Word::Hold { vip: *vip, link: *link, held: Some(*priority) }, now);
        }
        beats.holds = holds;
        self.carry_out_deeds();
    }

    /// How many nodes there are, and how many of them are heard, this one included.
    pub(super) fn census(&self) -> (usize, usize) {
        self.beats.as_ref().map_or((1, 0), |beats| beats.members.census())
    }

    pub(super) fn describe_heartbeats(&self, now: Time) -> Vec<HeartbeatStatus> {
        let Some(beats) = &self.beats else { return Vec::new() };
        let describe = |path: relais_cluster::PathReport| HeartbeatStatus {
            node: path.name.to_string(),
            from: beats.ports.get(usize::from(path.link)).and_then(|port| Some(port.as_ref()?.own)),
            to: path.remote,
            up: path.is_up,
            age_ms: path.heard.map(|at| u64::try_from(now.since(at).as_millis()).unwrap_or(u64::MAX)),
            received_total: path.received,
            lost_total: path.lost,
        };
        beats.members.paths().map(describe).collect()
    }
}
