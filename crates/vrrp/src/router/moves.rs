//! What the operator orders: a node in standby, an address moved by hand.
//!
//! A move leaves a mark, or the next advertisement would undo it. Moved *here*, the router advertises one more than the
//! highest of the others, so that every one of them, of whatever make, lets it be. Moved *away*, it lets a living master
//! be. Either ends with the holder, and neither needs the other node to know of it.

use alloc::format;

use crate::events::{Moved, Output};
use crate::timers::Announcements;

use super::{LAST_WORDS, LastWords, Phase, Router};

pub(super) const STANDBY: &str = "this node is in standby; `relais ready` brings it back";
pub(super) const HANDED_OVER: &str = "it was handed over; a new plan brings it back";
/// The highest priority that displaces and can be displaced; 255 is an owner's.
const HIGHEST: u8 = 254;

impl Router {
    /// What the operator's last move left.
    pub fn moved(&self) -> Option<Moved> {
        self.moved
    }

    pub(super) fn standby(&mut self, on: bool) {
        self.standby = on;
        match self.phase {
            Phase::Master { .. } | Phase::Leaving { .. } if on => self.hand_over(),
            _ if on => self.left(STANDBY.into()),
            Phase::Leaving { .. } => self.stay("the standby was ended before anybody took it"),
            _ if self.retired == Some(STANDBY) => self.retired = None,
            _ => {}
        }
    }

    /// Takes the address from whoever has it. The link learns of it first, the old holder goes on with what is open.
    pub(super) fn move_here(&mut self) {
        match self.phase {
            Phase::Master { .. } => {}
            Phase::Leaving { .. } if self.moving => self.stay("it was to be moved, and then was not"),
            Phase::Leaving { .. } | Phase::Fault { .. } => {
                self.log(format!("it cannot be moved here: {}", self.reason));
            }
            Phase::Backup { .. } => self.take_over(),
        }
    }

    fn take_over(&mut self) {
        let lives = self.now <= self.heard + self.down_interval();
        let master = self.master.filter(|_| lives);
        let (own, theirs) = (self.priority, master.map_or(0, |(_, priority)| priority));
        if theirs >= HIGHEST && own < 255 {
            return self
                .log(format!("it cannot be moved here: priority {theirs} of its holder gives way to none"));
        }
        let highest = theirs.max(self.config.rivals);
        let with = Moved::Here(highest.saturating_add(1).min(HIGHEST));
        self.remember((highest >= own).then_some(with));
        if let Some((who, _)) = master {
            self.begin_relay(Output::SendOnTo(who));
        }
        self.hold("the operator moved it here".into());
    }

    pub(super) fn move_away(&mut self) {
        if self.config.priority == 255 {
            return self.log("it cannot be moved away: priority 255 owns the address".into());
        }
        if matches!(self.phase, Phase::Master { .. }) {
            (self.moving, self.following) = (true, false);
            self.begin_leaving();
        }
    }

    /// Another address of the group went to a better master.
    pub(super) fn follow_group(&mut self) {
        if self.config.priority < 255 && matches!(self.phase, Phase::Master { .. }) {
            (self.moving, self.following) = (true, true);
            self.begin_leaving();
        }
    }

    /// Goes on as master: nobody took the address.
    pub(super) fn stay(&mut self, why: &str) {
        let Phase::Leaving { refresh_at, .. } = self.phase else { return };
        self.moving = false;
        let announcements = Announcements::new(self.now);
        self.phase = Phase::Master { advertise_at: self.now, refresh_at, announcements };
        self.reason = why.into();
        self.log(format!("{why}; it stays here"));
        self.keep_holding();
    }

    /// The move is done: this node listens, and lets that master be.
    pub(super) fn moved_to(&mut self, master: &str, is_lesser: bool) {
        self.moving = false;
        self.outputs.push_back(Output::RemoveAddress);
        self.listen(match self.following {
            true => format!("it follows its sync group to {master}"),
            false => format!("the operator moved it to {master}"),
        });
        self.last_words = Some(LastWords { left: LAST_WORDS, next: self.now + self.config.interval });
        if is_lesser && !self.following {
            self.remember(Some(Moved::Away));
        }
    }

    /// The old holder has let go of an address that was moved here. Where the plan's priority is the highest anyway,
    /// nothing more needs to hold it.
    pub(super) fn settled_at_home(&mut self) {
        if self.config.priority > self.config.rivals && matches!(self.moved, Some(Moved::Here(_))) {
            self.remember(None);
        }
    }

    pub(super) fn held_with(&self) -> u8 {
        match self.moved {
            Some(Moved::Here(priority)) => priority,
            _ => 0,
        }
    }

    pub(super) fn remember(&mut self, moved: Option<Moved>) {
        if self.moved != moved {
            self.moved = moved;
            self.priority = self.moved_priority();
            self.outputs.push_back(Output::Moved(moved));
        }
    }
}
