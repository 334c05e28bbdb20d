//! One virtual router on one node: who holds the address, and what to do about it (RFC 9568 §6.4).
//!
//! Decides everything and does nothing: see the crate's documentation for the five verbs. Beyond the RFC's
//! three states a router can be in `Fault`: not in the election, because something that it needs is down.

mod moves;
mod peers;
mod tracked;
mod witness;

use alloc::collections::VecDeque;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;
use core::time::Duration;

use relais_base::Time;

use self::tracked::Tracked;
use crate::events::{Config, Counters, Health, Input, Link, Moved, Output, State};
use crate::packet::Advertisement;
use crate::timers::{Announcements, LEASE, REFRESH_EVERY, master_down_interval, skew_time};

/// How often a node says that it holds the address no more: one lost packet must not cost a time-out.
const LAST_WORDS: u8 = 3;
/// How long after the kernel refused the address it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Most outputs that one input can cause; more would be a loop.
const MAX_OUTPUTS: usize = 64;

#[derive(Clone, Debug)]
enum Phase {
    /// Until `resume_until` it may go on where its predecessor stopped.
    Fault {
        resume_until: Option<Time>,
    },
    /// `released_by` gave the address up.
    Backup {
        down_at: Time,
        released_by: Option<IpAddr>,
    },
    Master {
        advertise_at: Time,
        refresh_at: Time,
        announcements: Announcements,
    },
    /// Holds the address, but calls for somebody else to take it.
    Leaving {
        begun: Time,
        advertise_at: Time,
        refresh_at: Time,
        give_up_at: Time,
    },
}

const FAULT: Phase = Phase::Fault { resume_until: None };

/// What is still to be said after letting go: so many advertisements of priority 0, the next one then.
#[derive(Clone, Copy, Debug)]
struct LastWords {
    left: u8,
    next: Time,
}

/// A virtual router.
#[derive(Clone, Debug)]
pub struct Router {
    config: Config,
    phase: Phase,
    reason: String,
    since: Time,
    now: Time,
    link: Link,
    tracked: Vec<Tracked>,
    /// The plan's, moved by what is tracked.
    priority: u8,
    /// Until then a master of lower priority is let be.
    preempt_at: Time,
    /// Handed over, stopped or not started: why it takes no part.
    retired: Option<&'static str>,
    /// The operator wants nothing held here.
    standby: bool,
    /// What the operator's last move left.
    moved: Option<Moved>,
    /// `Leaving` is a move: the router stays in the election.
    moving: bool,
    /// A move that nobody ordered, but that follows one of the group: it leaves no mark.
    following: bool,
    /// Why the kernel refused the address, and until when it is not asked again.
    refused: Option<(String, Time)>,
    /// Who advertised last, with which priority.
    master: Option<(IpAddr, u8)>,
    /// When it did, or since when we listen.
    heard: Time,
    /// The master's interval, learned from it.
    master_interval: Duration,
    /// Who gave up; until then, what it sent before may still arrive and means nothing.
    departed: Option<(IpAddr, Time)>,
    /// When we last advertised, and the interval that we promised: others count from there.
    promised: (Time, Duration),
    last_words: Option<LastWords>,
    /// Until when connections older than a hand-over are relayed, on either side of it.
    relay_until: Option<Time>,
    /// From whom we took the address, while it has not shown that it goes on serving.
    relay_from: Option<IpAddr>,
    /// The master that is dead, as far as we know.
    dead: Option<IpAddr>,
    /// When somebody else held the address, as far as witnesses have said.
    witnessed: Option<Time>,
    /// It was said that a silent master is let be.
    spared: bool,
    /// Why this node is alone on the address's network.
    cut_off: Option<String>,
    /// Why another address of the group cannot be held here.
    group: Option<String>,
    /// Oddities of others that were logged already.
    odd: Option<(IpAddr, Duration, bool)>,
    counters: Counters,
    outputs: VecDeque<Output>,
}

impl Router {
    /// A router that waits for [`Input::Start`], knows of no link and trusts no frontend yet.
    ///
    /// # Panics
    /// If a number is outside the range its documentation gives.
    pub fn new(config: Config, now: Time) -> Router {
        assert!(config.vrid > 0 && config.priority > 0, "VRID and priority begin at 1");
        assert!(config.interval >= Duration::from_millis(10), "the shortest interval is 10 ms");
        assert!(!config.addresses.is_empty(), "a virtual router has an address");
        Router {
            tracked: config.track.iter().cloned().map(Tracked::new).collect(),
            priority: config.priority,
            preempt_at: now,
            master_interval: config.interval,
            promised: (Time::ZERO, config.interval),
            config,
            phase: FAULT,
            reason: String::from("it has just been made"),
            since: now,
            now,
            link: Link::Missing,
            retired: Some("it has not been started"),
            standby: false,
            moved: None,
            moving: false,
            following: false,
            refused: None,
            master: None,
            heard: now,
            departed: None,
            last_words: None,
            relay_until: None,
            relay_from: None,
            dead: None,
            witnessed: None,
            spared: false,
            cut_off: None,
            group: None,
            odd: None,
            counters: Counters::default(),
            outputs: VecDeque::new(),
        }
    }

    // ---- the five verbs ------------------------------------------------------------------------

    /// Something happened at `now`.
    pub fn handle(&mut self, input: Input<'_>, now: Time) {
        self.advance(now);
        match input {
            Input::Start { resume } => self.start(resume),
            Input::Reconfigure(config) => self.reconfigure(config),
            Input::Advertisement(source, advertisement) => self.heard_from(source, advertisement),
            Input::MasterDied(master) => self.master_died(master),
            Input::Tracked(what, health) => self.track(what, health),
            Input::Witnessed { at, outranks } => self.witnessed(at.min(self.now), outranks),
            Input::Group(why) => self.group = why.map(String::from),
            Input::Follow => self.follow_group(),
            Input::CutOff(why) => self.cut_off = why.map(String::from),
            Input::Measured(what, change) => self.measured(what, change),
            Input::Link(link) => {
                if !matches!(self.link, Link::Up(_)) {
                    self.heard = self.now; // deaf until now: silence so far means nothing
                }
                self.link = link;
                self.say_last_words(); // mute until now
            }
            Input::HandOver => self.hand_over(),
            Input::Standby(on) => self.standby(on),
            Input::MoveHere => self.move_here(),
            Input::MoveAway => self.move_away(),
            Input::Restore(moved) => self.moved = moved,
            Input::Stop => self.stop(),
            Input::AddressVanished => self.add_again(),
            Input::AddressRefused(why) => self.refused = Some((why.to_string(), self.now + RETRY_AFTER)),
        }
        self.reconsider();
        assert!(self.outputs.len() <= MAX_OUTPUTS, "one input caused {} outputs", self.outputs.len());
    }

    /// The time that [`Router::poll_timeout`] named has come; harmless if it has not.
    pub fn handle_timeout(&mut self, now: Time) {
        self.advance(now);
        self.reconsider();
        self.say_last_words();
        if self.relay_until.is_some_and(|until| until <= self.now) {
            self.end_relay();
        }
        match self.phase {
            Phase::Fault { resume_until: Some(until) } if until <= self.now => {
                self.phase = FAULT;
                self.outputs.push_back(Output::RemoveAddress);
            }
            Phase::Fault { .. } => {}
            Phase::Backup { down_at, .. } if down_at <= self.now => self.master_is_down(),
            Phase::Backup { .. } => {}
            Phase::Master { .. } => self.keep_holding(),
            Phase::Leaving { .. } => self.keep_leaving(),
        }
    }

    /// When to call [`Router::handle_timeout`] next; [`Time::MAX`] for never.
    pub fn poll_timeout(&self) -> Time {
        let own = match &self.phase {
            Phase::Fault { resume_until } => resume_until.unwrap_or(Time::MAX),
            Phase::Backup { down_at, .. } => *down_at,
            Phase::Master { advertise_at, refresh_at, announcements } => {
                (*advertise_at).min(*refresh_at).min(announcements.next())
            }
            Phase::Leaving { advertise_at, refresh_at, give_up_at, .. } => {
                (*advertise_at).min(*refresh_at).min(*give_up_at)
            }
        };
        let healing = self.tracked.iter().filter_map(|t| t.heals_until(self.now)).min().unwrap_or(Time::MAX);
        let retry = self.refused.as_ref().map_or(Time::MAX, |(_, until)| *until);
        let can_speak = matches!(self.link, Link::Up(_));
        let words = self.last_words.filter(|_| can_speak).map_or(Time::MAX, |words| words.next);
        let relay = self.relay_until.unwrap_or(Time::MAX);
        own.min(healing).min(retry).min(words).min(relay)
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
        let source = matches!(self.link, Link::Up(_));
        match &self.phase {
            Phase::Fault { .. } => {}
            Phase::Backup { down_at, .. } => {
                assert!(self.obstacle().is_none(), "in the election with an obstacle");
                let longest = master_down_interval(1, self.master_interval.max(self.config.interval));
                assert!(*down_at <= self.now + longest, "it would wait too long for a dead master");
            }
            Phase::Master { advertise_at, refresh_at, .. } => {
                assert!(self.obstacle().is_none(), "master with an obstacle");
                assert!(*advertise_at <= self.now + self.config.interval, "master, but mute");
                assert!(*refresh_at <= self.now + REFRESH_EVERY, "master, but the lease runs out");
            }
            Phase::Leaving { refresh_at, give_up_at, .. } => {
                assert!(source && self.retired.is_none());
                assert!(*refresh_at <= self.now + REFRESH_EVERY);
                assert!(*give_up_at <= self.now + self.patience(), "it would never leave");
            }
        }
        assert!(self.last_words.is_none() || self.state() != State::Master, "a holder says good-bye");
        assert!(REFRESH_EVERY * 3 < LEASE, "a lost refresh must not cost the lease");
    }

    // ---- what it says of itself ------------------------------------------------------------------

    /// The state that the outside sees. A router that is leaving still holds the address.
    pub fn state(&self) -> State {
        match self.phase {
            Phase::Fault { .. } => State::Fault,
            Phase::Backup { .. } => State::Backup,
            Phase::Master { .. } | Phase::Leaving { .. } => State::Master,
        }
    }

    /// Why the state is what it is: the end of a sentence that begins "... because".
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// When the state last changed.
    pub fn since(&self) -> Time {
        self.since
    }

    /// What it works from.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// What it counted.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The holder as seen from here; our own source address if that is us.
    pub fn holder(&self) -> Option<IpAddr> {
        match (self.state(), self.link) {
            (State::Master, Link::Up(source)) => Some(source),
            (State::Master, _) => None,
            _ => self.master.filter(|_| self.now <= self.heard + self.down_interval()).map(|(ip, _)| ip),
        }
    }

    /// Its priority as others hear it: the plan's, moved by what is tracked.
    pub fn priority(&self) -> u8 {
        self.priority
    }

    /// Everything tracked and what was last said of it.
    pub fn tracked(&self) -> impl Iterator<Item = (&str, Health)> {
        self.tracked.iter().map(|t| (&*t.track.what, t.health))
    }

    // ---- inputs ------------------------------------------------------------------------------------

    /// Moves the clock, and notices that the process did not run when it should have: whoever holds an
    /// address and was silent for as long as the others wait must take it that they took over.
    fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
        let (at, interval) = self.promised;
        let silence = self.now.since(at);
        if silence < interval * 3 {
            return;
        }
        let slept =
            || format!("this process was not run for {} ms and another may hold it", silence.as_millis());
        match self.phase {
            Phase::Master { .. } => {
                self.outputs.push_back(Output::RemoveAddress);
                self.heard = self.now;
                self.listen(slept());
            }
            Phase::Leaving { .. } => self.left(slept()),
            Phase::Fault { .. } | Phase::Backup { .. } => {}
        }
    }

    fn start(&mut self, resume: Option<Duration>) {
        if matches!(self.phase, Phase::Leaving { .. }) {
            if self.standby || self.moving {
                return; // the operator's word stands
            }
            self.left("a new plan came while it was handed over".into());
        }
        self.retired = self.standby.then_some(moves::STANDBY);
        if self.standby {
            self.reason = moves::STANDBY.into();
        }
        self.end_relay();
        if !matches!(self.phase, Phase::Fault { .. }) {
            return;
        }
        // Others count from the last advertisement, which may have left a whole interval before the
        // predecessor died: only two of their three intervals are ours.
        let left = resume.and_then(|ago| (self.config.interval * 2).checked_sub(ago));
        self.phase = FAULT;
        match left {
            Some(left) => {
                self.phase = Phase::Fault { resume_until: Some(self.now + left) };
            }
            None => {
                self.outputs.push_back(Output::RemoveAddress);
                if resume.is_some() {
                    // Clients may still look for the address here: have its holder announce it again.
                    self.last_words = Some(LastWords { left: LAST_WORDS, next: self.now });
                }
            }
        }
    }

    fn reconfigure(&mut self, config: Config) {
        assert!(
            (config.vrid, &config.addresses) == (self.config.vrid, &self.config.addresses),
            "another VRID or address is another router"
        );
        self.retrack(&config.track);
        let changed = self.config != config;
        self.config = config;
        if changed {
            self.priority_changed();
        }
    }

    /// The others must hear of a new interval or priority, and we wait by it: never longer than before, so that a
    /// priority that flaps does not hide a dead master.
    fn priority_changed(&mut self) {
        let down_at = self.now + self.down_interval();
        match &mut self.phase {
            Phase::Master { advertise_at, .. } => *advertise_at = self.now,
            Phase::Backup { down_at: at, released_by: None } => *at = down_at.min(*at),
            _ => {}
        }
    }

    fn hand_over(&mut self) {
        match self.phase {
            Phase::Leaving { .. } => self.moving = false,
            Phase::Master { .. } => self.begin_leaving(),
            Phase::Fault { .. } | Phase::Backup { .. } => self.left("it was handed over".into()),
        }
    }

    fn begin_leaving(&mut self) {
        let Phase::Master { refresh_at, .. } = self.phase else { return };
        let give_up_at = self.now + self.patience();
        self.phase = Phase::Leaving { begun: self.now, advertise_at: self.now, refresh_at, give_up_at };
        self.reason = "it is being handed over and nobody has taken it yet".into();
        self.keep_leaving();
    }

    fn stop(&mut self) {
        self.end_relay();
        if self.state() == State::Master {
            self.advertise(0);
        }
        self.last_words = None;
        self.retired = Some("its process is stopping");
        self.fault("its process is stopping".into());
    }

    fn add_again(&mut self) {
        if self.state() == State::Master {
            self.log("somebody removed the address from the interface; it is put back".into());
            self.outputs.extend([Output::AddAddress, Output::Announce]);
        }
    }

    // ---- time ------------------------------------------------------------------------------------------

    fn master_is_down(&mut self) {
        let Phase::Backup { down_at, released_by } = &mut self.phase else { return };
        let late = self.now.since(*down_at);
        if late >= self.master_interval * 3 {
            // A suspended machine misses the master's packets with the time. One that is always this late could
            // not be master either.
            let down_at = self.now + self.down_interval();
            self.phase = Phase::Backup { down_at, released_by: None };
            self.heard = self.now;
            return self.log(format!(
                "this process was not run for {} ms; listening once more before taking the address",
                late.as_millis()
            ));
        }
        let released_by = *released_by;
        if released_by.is_none()
            && let Some(until) = self.spares_until()
        {
            return self.spare(until);
        }
        if let Some(old) = released_by {
            self.begin_relay(Output::SendOnTo(old));
        }
        let silence = self.now.since(self.heard);
        if let (None, Some((who, _))) = (released_by, self.master)
            && self.dead != Some(who)
            && silence < self.master_interval * 3
        {
            self.begin_relay(Output::SendOnTo(who)); // it lives, and is displaced
        }
        let reason = match (released_by, self.master) {
            (Some(who), _) => format!("{who} gave it up"),
            (None, Some((who, _))) if self.dead == Some(who) => format!("everything of ours on {who} died"),
            (None, Some((who, _))) if silence >= self.master_interval * 3 => {
                format!("{who} stopped advertising for {} ms", silence.as_millis())
            }
            (None, Some((who, priority))) => {
                format!("its priority {} is higher than {priority} of {who}", self.priority)
            }
            (None, None) => "nobody else advertises it".into(),
        };
        self.hold(reason);
    }

    fn keep_holding(&mut self) {
        let (now, interval) = (self.now, self.config.interval);
        let Phase::Master { advertise_at, refresh_at, .. } = &mut self.phase else { return };
        if *refresh_at <= now {
            *refresh_at = now + REFRESH_EVERY;
            self.outputs.push_back(Output::RefreshLease);
        }
        if *advertise_at <= now {
            let next = *advertise_at + interval;
            *advertise_at = if next <= now { now + interval } else { next };
            self.advertise(self.priority);
        }
        self.announce_if_due();
    }

    fn announce_if_due(&mut self) {
        if let Phase::Master { announcements, .. } = &mut self.phase
            && announcements.take_due(self.now)
        {
            self.outputs.push_back(Output::Announce);
        }
    }

    fn keep_leaving(&mut self) {
        let (now, interval) = (self.now, self.config.interval);
        let Phase::Leaving { advertise_at, refresh_at, give_up_at, .. } = &mut self.phase else { return };
        if *give_up_at <= now && self.moving {
            return self.stay("it was to be moved, but nobody took it");
        }
        if *give_up_at <= now {
            return self.left("it was handed over, but nobody took it".into());
        }
        if *refresh_at <= now {
            *refresh_at = now + REFRESH_EVERY;
            self.outputs.push_back(Output::RefreshLease);
        }
        if *advertise_at <= now {
            *advertise_at = now + interval;
            self.advertise(0);
        }
    }

    fn say_last_words(&mut self) {
        let can_speak = matches!(self.link, Link::Up(_));
        let Some(words) = self.last_words.as_mut().filter(|words| can_speak && words.next <= self.now) else {
            return;
        };
        words.left -= 1;
        words.next = self.now + self.config.interval;
        if words.left == 0 {
            self.last_words = None;
        }
        self.advertise(0);
    }

    // ---- transitions -------------------------------------------------------------------------------------

    /// Why this router must not be in the election; `None` if nothing stands against it.
    fn obstacle(&self) -> Option<String> {
        self.own_obstacle().or_else(|| self.group.clone())
    }

    /// The same without what stands against others of its group.
    pub fn own_obstacle(&self) -> Option<String> {
        if let Some(why) = self.retired {
            return Some(why.into());
        }
        match self.link {
            Link::Missing => return Some("the interface does not exist; it is waited for".into()),
            Link::Down => return Some("the interface is down or has no carrier".into()),
            Link::NoAddress => {
                let family = if self.config.addresses[0].is_ipv4() { "IPv4" } else { "IPv6" };
                return Some(format!("the interface has no {family} address to advertise from; give it one"));
            }
            Link::Up(_) => {}
        }
        if let Some(why) = &self.cut_off {
            return Some(why.clone());
        }
        if let Some((why, until)) = &self.refused
            && *until > self.now
        {
            return Some(why.clone());
        }
        self.tracked.iter().find_map(|t| t.obstacle(self.now))
    }

    /// Brings the phase in line with the obstacles there are.
    fn reconsider(&mut self) {
        if self.refused.as_ref().is_some_and(|(_, until)| *until <= self.now) {
            self.refused = None;
        }
        let priority = self.moved_priority();
        if priority != self.priority {
            self.priority = priority;
            self.priority_changed();
        }
        let obstacle = self.obstacle();
        match (&self.phase, obstacle) {
            (Phase::Fault { resume_until }, None) => match resume_until {
                Some(until) if *until > self.now => {
                    self.hold("its process was restarted within its time".into());
                }
                resume_until => {
                    if resume_until.is_some() {
                        self.outputs.push_back(Output::RemoveAddress);
                    }
                    self.enter_election();
                }
            },
            (Phase::Fault { .. }, Some(why)) if self.retired.is_none() => self.reason = why,
            (Phase::Fault { .. }, Some(_)) => {} // why it retired is known already
            (Phase::Backup { .. }, Some(why)) => self.fault(why),
            (Phase::Master { .. }, Some(why)) => self.give_up(why),
            (Phase::Leaving { .. }, Some(why)) if self.moving => {
                self.moving = false;
                self.give_up(why);
            }
            (Phase::Leaving { .. }, Some(why)) => {
                self.advertise(0);
                self.left(why);
            }
            (_, None) => {}
        }
    }

    fn enter_election(&mut self) {
        if matches!(self.moved, Some(Moved::Here(_))) {
            self.remember(None); // it is elsewhere by now
        }
        self.preempt_at = self.now + self.config.preempt_delay;
        if self.config.priority == 255 {
            return self.hold("it owns the address (priority 255)".into());
        }
        self.listen("everything that it needs is up".into());
        // We have listened all along: who has been silent for long enough need not be waited for again,
        // but for the skew, so that two nodes that wake together do not both take the address.
        let skew = skew_time(self.priority, self.config.interval);
        let known = (self.heard + self.down_interval()).max(self.now + skew);
        if let Phase::Backup { down_at, .. } = &mut self.phase {
            *down_at = known.min(*down_at);
        }
    }

    fn down_interval(&self) -> Duration {
        master_down_interval(self.priority, self.master_interval)
    }

    /// How long a hand-over waits for a taker.
    fn patience(&self) -> Duration {
        self.config.interval * 3 + Duration::from_secs(1)
    }

    fn listen(&mut self, reason: String) {
        let down_at = self.now + self.down_interval();
        let phase = Phase::Backup { down_at, released_by: None };
        self.change(phase, reason);
    }

    /// Becomes master. The link learns of it before the others do: whoever hands over lets go when it
    /// hears us, and by then no client must be sent to it any more.
    fn hold(&mut self, reason: String) {
        let now = self.now;
        if self.relay_until.is_some() && self.relay_from.is_none() {
            self.end_relay(); // of a time when it was let go of here
        }
        if self.moved == Some(Moved::Away) {
            self.remember(None);
        }
        self.counters.became_master += 1;
        self.last_words = None;
        self.promised = (now, self.config.interval);
        let announcements = Announcements::new(now);
        let phase = Phase::Master { advertise_at: now, refresh_at: now + REFRESH_EVERY, announcements };
        self.change(phase, reason);
        self.outputs.push_back(Output::AddAddress);
        self.announce_if_due();
        self.keep_holding();
    }

    /// A master that cannot serve any more: nobody is helped by its keeping the address.
    fn give_up(&mut self, reason: String) {
        self.outputs.push_back(Output::RemoveAddress);
        self.master = None;
        self.heard = self.now;
        self.change(FAULT, reason);
        self.last_words = Some(LastWords { left: LAST_WORDS, next: self.now });
        self.say_last_words();
    }

    fn fault(&mut self, reason: String) {
        if !matches!(self.phase, Phase::Backup { .. }) {
            self.outputs.push_back(Output::RemoveAddress);
        }
        self.change(FAULT, reason);
    }

    fn left(&mut self, reason: String) {
        if matches!(self.phase, Phase::Leaving { .. }) {
            // Whoever has the address by now announces it again, now that we are silent.
            self.last_words = Some(LastWords { left: LAST_WORDS, next: self.now + self.config.interval });
        }
        if core::mem::take(&mut self.moving) {
            self.outputs.push_back(Output::RemoveAddress);
            return self.listen(reason);
        }
        self.fault(reason);
        let brings_back = if self.standby { moves::STANDBY } else { moves::HANDED_OVER };
        self.retired = Some(brings_back);
        self.outputs.push_back(Output::HandedOver);
    }

    fn begin_relay(&mut self, output: Output) {
        if self.relay_until.is_some() {
            self.end_relay();
        }
        if self.config.drain.is_zero() {
            return;
        }
        let mut until = self.now + self.config.drain;
        if let Output::SendOnTo(old) = output {
            // Only one of our kind goes on serving, and repeats its farewell. Sent on to any other, a
            // connection would hang where it could have been reset.
            self.relay_from = Some(old);
            until = until.min(self.now + self.master_interval * (u32::from(LAST_WORDS) + 2));
        }
        self.relay_until = Some(until);
        self.outputs.push_back(output);
    }

    fn end_relay(&mut self) {
        self.relay_until = None;
        self.relay_from = None;
        self.outputs.push_back(Output::EndRelay);
    }

    fn change(&mut self, phase: Phase, reason: String) {
        let before = self.state();
        if matches!(self.phase, Phase::Master { .. }) && self.relay_until.is_some() {
            self.end_relay(); // it is no longer ours to relay
        }
        self.phase = phase;
        self.reason = reason;
        if before == State::Master && self.state() != before && matches!(self.moved, Some(Moved::Here(_))) {
            self.remember(None);
        }
        if self.state() != before {
            self.since = self.now;
            self.outputs.push_back(Output::Changed(self.state(), self.reason.clone()));
        }
    }

    fn advertise(&mut self, priority: u8) {
        let Link::Up(source) = self.link else { return };
        self.counters.sent += 1;
        self.promised = (self.now, self.config.interval);
        let advertisement = Advertisement {
            vrid: self.config.vrid,
            priority,
            interval: self.config.interval,
            addresses: self.config.addresses.clone(),
        };
        self.outputs.push_back(Output::SendAdvertisement(source, advertisement));
    }

    fn log(&mut self, sentence: String) {
        self.outputs.push_back(Output::Log(sentence));
    }
}

#[cfg(test)]
mod tests;
