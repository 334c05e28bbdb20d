//! What other routers with the same VRID say, and what follows from it.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::net::IpAddr;

use crate::events::{Link, Output};
use crate::packet::Advertisement;
use crate::timers::skew_time;

use super::{FAULT, LAST_WORDS, LastWords, Phase, Router};

impl Router {
    pub(super) fn heard_from(&mut self, source: IpAddr, advertisement: &Advertisement) {
        if self.link == Link::Up(source) {
            return; // our own
        }
        self.counters.received += 1;
        let priority = advertisement.priority;
        if let Some((who, until)) = self.departed
            && who == source
            && priority > 0
        {
            if self.now < until {
                return; // overtaken on the way by the farewell of the same sender
            }
            self.departed = None;
        }
        if priority == 0 {
            self.departed = Some((source, self.now + advertisement.interval * 2));
            return self.released(source);
        }
        self.note_oddities(source, advertisement);
        match self.phase {
            Phase::Fault { resume_until } => {
                self.follow(source, advertisement);
                self.phase = FAULT;
                if resume_until.is_some() {
                    self.outputs.push_back(Output::RemoveAddress); // a successor was quicker
                }
            }
            Phase::Backup { .. } => {
                let owner = self.config.priority == 255;
                let preempt =
                    owner || (self.config.preempt && self.now >= self.preempt_at && self.moved.is_none());
                if priority >= self.priority || !preempt {
                    self.follow(source, advertisement);
                    let down_at = self.now + self.down_interval();
                    self.phase = Phase::Backup { down_at, released_by: None };
                } else {
                    self.master = Some((source, priority));
                    self.heard = self.now;
                }
            }
            Phase::Master { .. } => self.contested(source, advertisement),
            Phase::Leaving { .. } => {
                self.follow(source, advertisement);
                self.begin_relay(Output::LetGo);
                if self.moving {
                    return self.moved_to(&source.to_string(), priority < self.priority);
                }
                self.left(format!("it was handed over to {source}"));
            }
        }
    }

    fn follow(&mut self, source: IpAddr, advertisement: &Advertisement) {
        self.dead = None;
        self.spared = false;
        self.master = Some((source, advertisement.priority));
        self.master_interval = advertisement.interval;
        self.heard = self.now;
    }

    /// Somebody gave up. That counts only from whom we follow: with three nodes the farewell of one
    /// that has a successor already must not wake the third.
    fn released(&mut self, source: IpAddr) {
        match &mut self.phase {
            Phase::Backup { down_at, released_by, .. } => {
                if self.master.is_none_or(|(master, _)| master == source) {
                    let skew = skew_time(self.priority, self.master_interval);
                    *down_at = (*down_at).min(self.now + skew);
                    *released_by = Some(source);
                }
            }
            Phase::Master { .. } => {
                if self.relay_from == Some(source) {
                    self.relay_from = None;
                    self.relay_until = Some(self.now + self.config.drain);
                }
                self.settled_at_home();
                self.assert_mastership();
            }
            Phase::Fault { .. } | Phase::Leaving { .. } => {}
        }
    }

    /// As good as a farewell (RFC 9568 §6.4.2), but nobody is left to serve the open connections.
    pub(super) fn master_died(&mut self, master: IpAddr) {
        if let Phase::Backup { down_at, .. } = &mut self.phase
            && self.master.is_some_and(|(followed, _)| followed == master)
        {
            let skew = skew_time(self.priority, self.master_interval);
            *down_at = (*down_at).min(self.now + skew);
            self.dead = Some(master);
        }
    }

    /// Another master: one of us yields. An owner against an owner is settled by address too, where the
    /// RFC would have both ignore each other for ever (§7.1).
    fn contested(&mut self, source: IpAddr, advertisement: &Advertisement) {
        let Link::Up(own) = self.link else { return };
        if (advertisement.priority, source) < (self.priority, own) {
            return self.assert_mastership();
        }
        self.follow(source, advertisement);
        let why = match advertisement.priority.cmp(&self.priority) {
            Ordering::Equal => "and the higher address",
            _ => "which is higher",
        };
        self.listen(format!("{source} holds it too with priority {}, {why}", advertisement.priority));
        // Where the winner displaced us on purpose, it sends on what is open here.
        self.begin_relay(Output::LetGo);
        self.outputs.push_back(Output::RemoveAddress);
        // The winner may not know of us. These words make it advertise and announce at once, now that we are
        // silent; otherwise the link would keep our hardware address for the virtual one. The first has our
        // priority, for that is what keepalived announces upon.
        self.advertise(self.priority);
        self.last_words = Some(LastWords { left: LAST_WORDS - 1, next: self.now + self.config.interval });
    }

    /// Not more often than a fraction of the interval, so that two that both insist make no storm.
    fn assert_mastership(&mut self) {
        let (now, interval) = (self.now, self.config.interval);
        let may_advertise = now.since(self.promised.0) >= interval / 16;
        if let Phase::Master { advertise_at, announcements, .. } = &mut self.phase {
            announcements.restart(now);
            if may_advertise {
                *advertise_at = now + interval;
                self.advertise(self.priority);
            }
        }
        self.announce_if_due();
    }

    fn note_oddities(&mut self, source: IpAddr, advertisement: &Advertisement) {
        let same_address = advertisement.addresses == self.config.addresses;
        let oddity = (source, advertisement.interval, same_address);
        if self.odd == Some(oddity) || (same_address && advertisement.interval == self.config.interval) {
            return;
        }
        self.odd = Some(oddity);
        if !same_address {
            let list =
                |all: &[IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<String>>().join(" and ");
            self.log(format!(
                "{source} advertises {} under VRID {}, this node {}; give both nodes the same file",
                list(&advertisement.addresses),
                self.config.vrid,
                list(&self.config.addresses)
            ));
        }
        if advertisement.interval != self.config.interval {
            self.log(format!(
                "{source} advertises every {} ms, this node every {} ms; the master's interval counts",
                advertisement.interval.as_millis(),
                self.config.interval.as_millis()
            ));
        }
    }
}
