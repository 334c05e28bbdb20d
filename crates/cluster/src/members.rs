//! What one node knows of all others, and when it speaks.
//!
//! Decides everything about heartbeats and does nothing: see the crate's documentation for the five verbs.

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use relais_base::Time;

use crate::events::{Config, Input, Output, Path, PathReport};
use crate::wire::{Heard, Heartbeat, Held, MAX_ENTRIES, age_ms};

/// How often nodes speak that neither hold addresses nor witness who does; and how often all is looked over.
const SLOW: Duration = Duration::from_secs(1);
/// How many of its periods a path may be silent before it counts as down.
const MISSES: u32 = 3;
/// That somebody hears this node it learns up to so many intervals later.
const ECHO: u32 = 2;
/// How long the word of a holder is passed on: longer than any virtual router believes it.
const KEEP_CLAIMS_FOR: Duration = Duration::from_secs(5);
/// The silence of a path is told after this long at the least.
const TELL_AFTER: Duration = Duration::from_secs(1);
/// After this long a node may come back with a clock that was set back: until then an older incarnation is a replay.
const FORGET_AFTER: Duration = Duration::from_secs(10);
/// Most virtual routers whose holders are known.
const MAX_CLAIMS: usize = 256;
/// Most outputs that one input can cause; more would be a loop.
const MAX_OUTPUTS: usize = 1024;

/// What is known of one way to another node.
#[derive(Clone, Debug)]
struct State {
    path: Path,
    /// When something came last.
    heard: Option<Time>,
    /// When the other end last heard us, as far as it has told.
    hears_us: Option<Time>,
    incarnation: u64,
    sequence: u64,
    /// It said that it ends.
    left: bool,
    /// Its silence was told.
    is_missed: bool,
    received: u64,
    lost: u64,
}

impl State {
    fn new(path: Path) -> State {
        State {
            path,
            heard: None,
            hears_us: None,
            incarnation: 0,
            sequence: 0,
            left: false,
            is_missed: false,
            received: 0,
            lost: 0,
        }
    }
}

/// One link of this node.
#[derive(Clone, Debug)]
struct Link {
    link: u8,
    /// Virtual routers that this node holds, and its priority in each.
    holds: Vec<(u32, u8)>,
    /// When close peers are spoken to next; the others.
    close_at: Time,
    distant_at: Time,
    /// When close peers were spoken to last.
    spoke_at: Time,
    close_sequence: u64,
    distant_sequence: u64,
    /// Since when it is cut off.
    cut_since: Option<Time>,
}

/// Somebody held an address, as it said itself.
#[derive(Clone, Copy, Debug)]
struct Claim {
    link: u8,
    vip: u32,
    holder: u32,
    priority: u8,
    at: Time,
}

/// What one node knows of all others.
#[derive(Clone, Debug)]
pub struct Members {
    config: Config,
    incarnation: u64,
    now: Time,
    links: Vec<Link>,
    paths: Vec<State>,
    claims: Vec<Claim>,
    has_left: bool,
    outputs: VecDeque<Output>,
}

impl Members {
    /// `incarnation`: nanoseconds since 1970, now.
    pub fn new(config: Config, incarnation: u64, now: Time) -> Members {
        let mut members = Members {
            config: Config { peers: Vec::new(), paths: Vec::new(), ..config.clone() },
            incarnation,
            now,
            links: Vec::new(),
            paths: Vec::new(),
            claims: Vec::new(),
            has_left: false,
            outputs: VecDeque::new(),
        };
        members.reconfigure(config);
        members
    }

    // ---- the five verbs ------------------------------------------------------------------------

    /// Something happened at `now`.
    pub fn handle(&mut self, input: Input<'_>, now: Time) {
        self.now = self.now.max(now);
        match input {
            Input::Reconfigure(config) => self.reconfigure(config),
            Input::Heartbeat { link, from, heartbeat } => self.heard(link, from, heartbeat),
            Input::Hold { vip, link, held } => self.hold(vip, link, held),
            Input::Leave => self.leave(),
        }
        self.judge_links();
        assert!(self.outputs.len() <= MAX_OUTPUTS, "one input caused {} outputs", self.outputs.len());
    }

    /// The time that [`Members::poll_timeout`] named has come; harmless if it has not.
    pub fn handle_timeout(&mut self, now: Time) {
        self.now = self.now.max(now);
        for l in 0..self.links.len() {
            if self.links[l].close_at <= self.now {
                self.speak(l, true);
            }
            if self.links[l].distant_at <= self.now {
                self.speak(l, false);
            }
        }
        self.judge_links();
        self.tell_of_silence();
        let now = self.now;
        self.claims.retain(|claim| now.since(claim.at) < KEEP_CLAIMS_FOR);
    }

    /// When to call [`Members::handle_timeout`] next; [`Time::MAX`] for never.
    pub fn poll_timeout(&self) -> Time {
        let due = |link: &Link| {
            let cut_at = if link.cut_since.is_some() { Time::MAX } else { self.cut_at(link.link) };
            link.close_at.min(link.distant_at).min(cut_at)
        };
        self.links.iter().map(due).min().unwrap_or(Time::MAX)
    }

    /// What to do now, in order; `None` when that is all.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// Holds the state against what must always be true of it.
    ///
    /// # Panics
    /// If it is not.
    pub fn check_invariants(&self) {
        assert!(self.claims.len() <= MAX_CLAIMS, "claims have a limit");
        assert!(self.claims.iter().all(|claim| claim.at <= self.now && claim.holder != self.config.node));
        for state in &self.paths {
            assert!(state.path.peer < self.config.peers.len(), "a path leads to a peer");
            assert!(state.heard.is_none_or(|at| at <= self.now), "nothing is heard from the future");
            assert!(state.hears_us.is_none_or(|at| at <= self.now));
        }
        for link in &self.links {
            assert!(self.has_left || link.distant_at <= self.now + SLOW, "it would fall silent");
            assert!(
                link.cut_since.is_none_or(|since| !self.is_mended(link.link, since)),
                "cut off, but heard"
            );
        }
    }

    // ---- what it says of itself ------------------------------------------------------------------

    /// All paths, in the order of the configuration.
    pub fn paths(&self) -> impl Iterator<Item = PathReport> {
        self.paths.iter().map(|state| PathReport {
            name: self.config.peers[state.path.peer].name.clone(),
            link: state.path.link,
            remote: state.path.remote,
            heard: state.heard,
            is_up: self.is_up(state),
            received: state.received,
            lost: state.lost,
        })
    }

    /// How many nodes there are, this one included, and how many of them are heard, it included.
    pub fn census(&self) -> (usize, usize) {
        let heard = |peer: usize| self.paths.iter().any(|state| state.path.peer == peer && self.is_up(state));
        let count = (0..self.config.peers.len()).filter(|peer| heard(*peer)).count();
        (self.config.peers.len() + 1, count + 1)
    }

    // ---- inputs ------------------------------------------------------------------------------------

    fn reconfigure(&mut self, config: Config) {
        let old = core::mem::take(&mut self.paths);
        for path in &config.paths {
            let node = config.peers[path.peer].node;
            let known = old.iter().find(|state| {
                let known = &self.config.peers[state.path.peer];
                (state.path.link, state.path.remote) == (path.link, path.remote) && known.node == node
            });
            self.paths.push(match known {
                Some(state) => State { path: path.clone(), ..state.clone() },
                None => State::new(path.clone()),
            });
        }
        let mut numbers: Vec<u8> = config.paths.iter().map(|path| path.link).collect();
        numbers.sort_unstable();
        numbers.dedup();
        self.links.retain(|link| numbers.contains(&link.link));
        for number in numbers {
            if !self.links.iter().any(|link| link.link == number) {
                self.links.push(Link {
                    link: number,
                    holds: Vec::new(),
                    close_at: Time::MAX,
                    distant_at: self.now,
                    spoke_at: Time::ZERO,
                    close_sequence: 0,
                    distant_sequence: 0,
                    cut_since: None,
                });
            }
        }
        self.config = config;
        for l in 0..self.links.len() {
            let number = self.links[l].link;
            let has_close = self.paths.iter().any(|s| s.path.link == number && self.is_close(s));
            self.links[l].close_at = if has_close && !self.has_left { self.now } else { Time::MAX };
        }
        let node = self.config.node;
        self.claims.retain(|claim| claim.holder != node);
    }

    fn hold(&mut self, vip: u32, link: u8, held: Option<u8>) {
        let now = self.now;
        for known in &mut self.links {
            let had = known.holds.iter().find(|(held, _)| *held == vip).map(|(_, priority)| *priority);
            let has = if known.link == link { held } else { had.filter(|_| held.is_none()) };
            if had == has {
                continue;
            }
            known.holds.retain(|(other, _)| *other != vip);
            if let Some(priority) = has
                && known.holds.len() < MAX_ENTRIES
            {
                known.holds.push((vip, priority));
            }
            if known.close_at < Time::MAX {
                known.close_at = now; // the witnesses need not wait for it
            }
        }
    }

    fn leave(&mut self) {
        self.has_left = true;
        for l in 0..self.links.len() {
            self.links[l].holds.clear();
            self.speak(l, true);
            self.speak(l, false);
            (self.links[l].close_at, self.links[l].distant_at) = (Time::MAX, Time::MAX);
        }
    }

    fn heard(&mut self, link: u8, from: IpAddr, heartbeat: &Heartbeat) {
        let sender = heartbeat.sender;
        if heartbeat.platform != self.config.platform || sender == self.config.node {
            return;
        }
        let is_it = |state: &State| {
            state.path.link == link
                && state.path.remote == from
                && self.config.peers[state.path.peer].node == sender
        };
        let Some(p) = self.paths.iter().position(is_it) else { return };
        if !self.is_news(p, heartbeat) {
            return;
        }
        let (now, node) = (self.now, self.config.node);
        let ago = |age_ms: u16| now - Duration::from_millis(age_ms.into());
        let state = &mut self.paths[p];
        state.received += 1;
        state.heard = Some(now);
        state.left = heartbeat.leaves;
        if let Some(us) = heartbeat.heard.iter().find(|heard| heard.node == node) {
            state.hears_us = Some(ago(us.age_ms)).max(state.hears_us);
        }
        self.claims.retain(|claim| (claim.link, claim.holder) != (link, sender));
        for held in heartbeat.held.iter().filter(|held| held.node != node) {
            let Held { vip, node: holder, priority, age_ms } = *held;
            let at = ago(age_ms);
            self.outputs.push_back(Output::Witnessed { vip, link, holder, priority, by: sender, at });
            if holder == sender && self.claims.len() < MAX_CLAIMS {
                self.claims.push(Claim { link, vip, holder, priority, at });
            }
        }
        let is_holder = heartbeat.held.iter().any(|held| held.node == sender);
        if is_holder {
            self.pass_on(link);
        }
    }

    /// Whether it was said after what is known of its sender; then that is noted.
    fn is_news(&mut self, p: usize, heartbeat: &Heartbeat) -> bool {
        let now = self.now;
        let state = &mut self.paths[p];
        let (incarnation, sequence) = (heartbeat.incarnation, heartbeat.sequence);
        let is_forgotten = state.heard.is_none_or(|at| now.since(at) >= FORGET_AFTER);
        if incarnation == state.incarnation {
            if sequence <= state.sequence {
                return false;
            }
            state.lost += sequence - state.sequence - 1;
        } else if incarnation < state.incarnation && !is_forgotten {
            return false;
        } else {
            state.hears_us = None;
        }
        (state.incarnation, state.sequence) = (incarnation, sequence);
        true
    }

    /// A holder has spoken: the others learn of it at once, not with our next heartbeat. A holder itself passes nothing
    /// on: two of them would drive each other.
    fn pass_on(&mut self, link: u8) {
        let half = self.config.interval / 2;
        if let Some(link) = self.links.iter_mut().find(|known| known.link == link)
            && link.holds.is_empty()
            && link.close_at < Time::MAX
        {
            link.close_at = link.close_at.min((link.spoke_at + half).max(self.now));
        }
    }

    /// Something of ours has just been sent for another reason: what is due within half an interval goes now, so that
    /// both wake their hearers once.
    pub fn go_along(&mut self, now: Time) {
        let half = self.config.interval / 2;
        for link in self.links.iter_mut().filter(|link| link.close_at < Time::MAX) {
            if link.spoke_at + half <= now {
                link.close_at = link.close_at.min(now);
            }
        }
    }

    // ---- speech --------------------------------------------------------------------------------------

    fn speak(&mut self, l: usize, to_close: bool) {
        let number = self.links[l].link;
        let meant = |state: &&State| state.path.link == number && self.is_close(state) == to_close;
        let to: Vec<IpAddr> = self.paths.iter().filter(meant).map(|state| state.path.remote).collect();
        let (heard, held) = (self.list_heard(number), self.list_held(l));
        let link = &mut self.links[l];
        let sequence = if to_close { &mut link.close_sequence } else { &mut link.distant_sequence };
        *sequence += 1;
        let heartbeat = Heartbeat {
            platform: self.config.platform,
            sender: self.config.node,
            incarnation: self.incarnation,
            sequence: *sequence,
            leaves: self.has_left,
            heard,
            held,
        };
        if to_close {
            link.spoke_at = self.now;
            link.close_at = self.now + self.config.interval;
        } else {
            link.distant_at = self.now + SLOW;
        }
        if !to.is_empty() {
            self.outputs.push_back(Output::Send { link: number, to, heartbeat });
        }
    }

    fn list_heard(&self, link: u8) -> Vec<Heard> {
        let mut all = Vec::new();
        for state in self.paths.iter().filter(|state| state.path.link == link) {
            if let Some(at) = state.heard
                && self.now.since(at) < FORGET_AFTER
                && all.len() < MAX_ENTRIES
            {
                let node = self.config.peers[state.path.peer].node;
                all.push(Heard { node, age_ms: age_ms(self.now.since(at)) });
            }
        }
        all
    }

    /// What we hold ourselves, and what holders have told us themselves; never what others have told of them.
    fn list_held(&self, l: usize) -> Vec<Held> {
        let link = &self.links[l];
        let node = self.config.node;
        let own =
            link.holds.iter().map(|(vip, priority)| Held { vip: *vip, node, priority: *priority, age_ms: 0 });
        let others = self.claims.iter().filter(|claim| claim.link == link.link);
        let others = others.filter(|claim| self.now.since(claim.at) < KEEP_CLAIMS_FOR).map(|claim| Held {
            vip: claim.vip,
            node: claim.holder,
            priority: claim.priority,
            age_ms: age_ms(self.now.since(claim.at)),
        });
        own.chain(others).take(MAX_ENTRIES).collect()
    }

    // ---- judgement -------------------------------------------------------------------------------------

    fn is_close(&self, state: &State) -> bool {
        self.config.peers[state.path.peer].is_close
    }

    fn period(&self, state: &State) -> Duration {
        if self.is_close(state) { self.config.interval } else { SLOW }
    }

    fn is_up(&self, state: &State) -> bool {
        let patience = (self.period(state) * MISSES).max(TELL_AFTER);
        !state.left && state.heard.is_some_and(|at| self.now.since(at) < patience)
    }

    /// Until when a path is known to carry both ways, if it ever did: close ones only, the others are too slow to tell.
    fn good_until(&self, state: &State) -> Option<Time> {
        let Config { interval, patience, .. } = self.config;
        let known = self.is_close(state) && !state.left;
        let (heard, hears_us) = (state.heard.filter(|_| known)?, state.hears_us?);
        Some((heard + patience).min(hears_us + patience + interval * ECHO))
    }

    /// When this link is cut off if nothing more comes; `Time::MAX` if silence would prove nothing: where only one
    /// node was there, it may as well be that one which died. Those that fall silent within our patience of each other
    /// are taken not to have died one by one.
    fn cut_at(&self, link: u8) -> Time {
        let ends = || self.paths.iter().filter(|s| s.path.link == link).filter_map(|s| self.good_until(s));
        let Some(last) = ends().max() else { return Time::MAX };
        let together = ends().filter(|end| last.since(*end) < self.config.patience).count();
        if together >= 2 { last } else { Time::MAX }
    }

    fn judge_links(&mut self) {
        for l in 0..self.links.len() {
            let number = self.links[l].link;
            let why = match self.links[l].cut_since {
                None if !self.has_left && self.cut_at(number) <= self.now => Some(self.why_cut(number)),
                Some(since) if self.has_left || self.is_mended(number, since) => None,
                _ => continue,
            };
            self.links[l].cut_since = why.as_ref().map(|_| self.now);
            self.outputs.push_back(Output::Cut { link: number, why });
        }
    }

    /// Whether somebody has said that it heard this node since then; or nobody is left to say so.
    fn is_mended(&self, link: u8, since: Time) -> bool {
        let mut known = self.paths.iter().filter(|s| s.path.link == link && self.good_until(s).is_some());
        known.clone().next().is_none() || known.any(|state| state.hears_us.is_some_and(|at| at > since))
    }

    fn why_cut(&self, link: u8) -> String {
        let on_link = || self.paths.iter().filter(|s| s.path.link == link && self.good_until(s).is_some());
        let names: Vec<&str> = on_link().map(|state| &*self.config.peers[state.path.peer].name).collect();
        let deaf = on_link().filter_map(|state| state.heard).max();
        let silence = deaf.map_or(0, |at| self.now.since(at).as_millis());
        if deaf.is_some_and(|at| self.now < at + self.config.patience) {
            return format!("this node is cut off: {} hear nothing from it any more", names.join(" and "));
        }
        format!("this node is cut off: {} are all silent since {silence} ms", names.join(" and "))
    }

    /// Says once that a path is silent, and once that it is not any more.
    fn tell_of_silence(&mut self) {
        for p in 0..self.paths.len() {
            let state = &self.paths[p];
            let Some(at) = state.heard else { continue };
            let is_missed = !state.left && !self.is_up(state);
            if is_missed == state.is_missed {
                continue;
            }
            let (name, remote) = (&self.config.peers[state.path.peer].name, state.path.remote);
            let others =
                self.paths.iter().filter(|o| o.path.peer == state.path.peer && self.is_up(o)).count();
            let output = if state.left {
                None
            } else if is_missed {
                let rest = match others {
                    0 => "it is not heard on any other link either",
                    _ => "it is still heard on another link",
                };
                let silence = self.now.since(at).as_millis();
                Some(Output::Warn(format!(
                    "nothing is heard of node {name} at {remote} since {silence} ms; {rest}"
                )))
            } else {
                Some(Output::Info(format!("node {name} is heard at {remote} again")))
            };
            self.outputs.extend(output);
            self.paths[p].is_missed = is_missed;
        }
    }
}

#[cfg(test)]
mod tests;
