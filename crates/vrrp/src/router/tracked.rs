//! What the address depends on beside the election: it stands against holding it, or moves the priority.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use relais_base::Time;

use super::Router;
use crate::events::{Health, State, Track};

#[derive(Clone, Debug)]
pub(super) struct Tracked {
    pub(super) track: Track,
    pub(super) health: Health,
    /// While healing: when patience ends.
    heal_until: Time,
    seen_up: bool,
    /// What it was measured to change the priority by, in place of its weight.
    change: Option<i32>,
}

impl Tracked {
    pub(super) fn new(track: Track) -> Tracked {
        Tracked { track, health: Health::Down, heal_until: Time::MAX, seen_up: false, change: None }
    }

    /// When patience with it ends, if that is still to come.
    pub(super) fn heals_until(&self, now: Time) -> Option<Time> {
        (self.health == Health::Healing && self.heal_until > now).then_some(self.heal_until)
    }

    fn serves(&self, now: Time) -> bool {
        self.health == Health::Up || self.heals_until(now).is_some()
    }

    /// Why the address must not be held, if this is down and has no weight.
    pub(super) fn obstacle(&self, now: Time) -> Option<String> {
        if self.track.weight != 0 || self.serves(now) {
            return None;
        }
        let what = &self.track.what;
        Some(match self.health {
            Health::Healing => format!("{what} did not come back at once"),
            _ if self.seen_up => format!("{what} is down"),
            _ => format!("{what} has not come up yet"),
        })
    }

    /// What it adds to the priority.
    fn adds(&self, now: Time) -> i32 {
        match (self.change, self.track.weight) {
            (Some(change), _) => change,
            (None, weight @ 1..) if self.serves(now) => weight.into(),
            (None, weight @ ..=-1) if !self.serves(now) => weight.into(),
            _ => 0,
        }
    }
}

impl Router {
    pub(super) fn retrack(&mut self, tracks: &[Track]) {
        let known = core::mem::take(&mut self.tracked);
        // A plan that has a holder depend on more does not take its address before anything is known of that.
        let health = if self.state() == State::Master { Health::Up } else { Health::Down };
        let keep = |track: &Track| match known.iter().find(|t| t.track.what == track.what) {
            Some(before) => Tracked { track: track.clone(), ..before.clone() },
            None => Tracked { health, ..Tracked::new(track.clone()) },
        };
        self.tracked = tracks.iter().map(keep).collect::<Vec<_>>();
    }

    pub(super) fn track(&mut self, what: &str, health: Health) {
        let (now, grace) = (self.now, self.config.grace);
        for tracked in self.tracked.iter_mut().filter(|t| *t.track.what == *what) {
            match (tracked.health, health) {
                (Health::Up, Health::Healing) => {
                    tracked.health = health;
                    tracked.heal_until = now + grace;
                }
                (_, Health::Healing) => {} // it was not up, so there is nothing to be patient about
                _ => tracked.health = health,
            }
            tracked.seen_up |= health == Health::Up;
            tracked.change = None;
        }
    }

    pub(super) fn measured(&mut self, what: &str, change: i32) {
        for tracked in self.tracked.iter_mut().filter(|t| *t.track.what == *what) {
            tracked.health = Health::Up;
            tracked.seen_up = true;
            tracked.change = Some(change);
        }
    }

    /// The plan's priority, moved by what is tracked; 1 to 254, for 0 and 255 mean something else. An owner's does
    /// not move.
    pub(super) fn moved_priority(&self) -> u8 {
        let planned = self.config.priority;
        if planned == 255 {
            return planned;
        }
        let change = self.tracked.iter().fold(0i32, |sum, t| sum.saturating_add(t.adds(self.now)));
        let moved = i32::from(planned).saturating_add(change).clamp(1, 254) as u8;
        moved.max(self.held_with())
    }
}
