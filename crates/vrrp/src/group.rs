//! Sync groups: virtual routers of which a node holds all or none, such as the two sides of a router.
//!
//! What stands against one of them on a node stands against all: each is told why another cannot be held here, and
//! they go together, by priority 0, to the node where nothing stands against any. One that a better master took is
//! followed by the others, make before break. Apart from that each is elected for itself; with the same priorities and
//! the same things tracked, which `relais-config` sees to, the elections end alike. keepalived's `vrrp_sync_group` forces the
//! others up with the first that becomes master, too; two nodes that hear each other for one address only
//! then take both from each other without end, where here each address has one holder and the log says so.
//!
//! Pure, as the routers are; the driver calls [`Group::settle`] after whatever may have changed one of them.

use alloc::string::String;
use alloc::vec::Vec;

use crate::events::State;
use crate::router::Router;

/// What a member is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// [`Input::Group`](crate::Input::Group): that member cannot be held here, for this reason; `None`: all can.
    Obstacle(Option<(usize, String)>),
    /// [`Input::Follow`](crate::Input::Follow): a better master has taken that member.
    Follow(usize),
}

/// The routers of one group on one node.
#[derive(Clone, Debug)]
pub struct Group {
    was: Vec<State>,
    told: Vec<Option<(usize, String)>>,
}

impl Group {
    /// A group of so many routers, none of them master yet, as far as it knows.
    pub fn new(members: usize) -> Group {
        Group {
            was: Vec::from_iter((0..members).map(|_| State::Fault)),
            told: Vec::from_iter((0..members).map(|_| None)),
        }
    }

    /// What the members, always the same and in the same order, are to be told now, by their number.
    pub fn settle(&mut self, members: &[&Router]) -> Vec<(usize, Word)> {
        let mut words = Vec::new();
        let against: Vec<Option<String>> = members.iter().map(|member| member.own_obstacle()).collect();
        let lost = |(i, member): (usize, &&Router)| {
            (self.was[i] == State::Master && member.state() == State::Backup).then_some(i)
        };
        let lost: Vec<usize> = members.iter().enumerate().filter_map(lost).collect();
        for (i, member) in members.iter().enumerate() {
            let other = |(j, why): (usize, &Option<String>)| (j != i).then_some((j, why.clone()?));
            let obstacle = against.iter().enumerate().find_map(other);
            if obstacle != self.told[i] {
                self.told[i].clone_from(&obstacle);
                words.push((i, Word::Obstacle(obstacle)));
            }
            if member.state() == State::Master
                && let Some(first) = lost.first()
            {
                words.push((i, Word::Follow(*first)));
            }
        }
        self.was = members.iter().map(|member| member.state()).collect();
        words
    }
}

#[cfg(test)]
mod tests;
