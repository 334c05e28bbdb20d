//! The engine's sync groups: addresses that one node holds together. The core decides, see [`relais_vrrp::Group`].

use std::sync::Arc;

use relais_vrrp::{Group, Input, Router, Word};

use super::{Engine, Vip};

/// The group of one name.
#[derive(Debug)]
pub(super) struct Together {
    name: Arc<str>,
    /// The vips of it, by name.
    members: Vec<Arc<str>>,
    group: Group,
}

impl Engine {
    /// This vip, and those of its group.
    pub(super) fn held_together(&self, v: usize) -> Vec<usize> {
        let group = &self.vips[v].spec.sync_group;
        let others = |i: &usize| {
            *i == v || (group.is_some() && self.vips[*i].spec.sync_group == *group && !self.vips[*i].dropped)
        };
        (0..self.vips.len()).filter(others).collect()
    }

    /// Tells the members of every group what the others make them do; once a turn, when all else is done.
    pub(super) fn settle_groups(&mut self) {
        if self.vips.iter().all(|vip| vip.spec.sync_group.is_none()) && self.groups.is_empty() {
            return;
        }
        let mut groups = std::mem::take(&mut self.groups);
        for name in self.vips.iter().filter_map(group_of).cloned().collect::<std::collections::BTreeSet<_>>()
        {
            let members = self.members(&name);
            let names: Vec<Arc<str>> = members.iter().map(|v| self.vips[*v].spec.name.clone()).collect();
            match groups.iter_mut().find(|known| known.name == name) {
                Some(known) if known.members == names => {}
                known => {
                    let together = Together { group: Group::new(names.len()), members: names, name };
                    match known {
                        Some(known) => *known = together,
                        None => groups.push(together),
                    }
                    // What an older group has told them holds no longer.
                    members.into_iter().for_each(|v| self.handle(v, Input::Group(None)));
                }
            }
        }
        groups.retain(|known| !self.members(&known.name).is_empty());
        for together in &mut groups {
            let members = self.members(&together.name);
            let routers: Vec<&Router> = members.iter().map(|v| &self.vips[*v].router).collect();
            for (i, word) in together.group.settle(&routers) {
                let why = match word {
                    Word::Follow(_) => {
                        self.handle(members[i], Input::Follow);
                        continue;
                    }
                    Word::Obstacle(obstacle) => obstacle.map(|(other, why)| {
                        format!(
                            "vip {} of its sync group cannot be held here: {why}",
                            together.members[other]
                        )
                    }),
                };
                self.handle(members[i], Input::Group(why.as_deref()));
            }
        }
        self.groups = groups;
        self.ungroup();
    }

    /// Those that a new plan has taken out of their group are told of it.
    fn ungroup(&mut self) {
        let alone: Vec<usize> = (0..self.vips.len())
            .filter(|v| group_of(&self.vips[*v]).is_none() && self.vips[*v].grouped)
            .collect();
        for v in alone {
            self.vips[v].grouped = false;
            self.handle(v, Input::Group(None));
        }
        for vip in &mut self.vips {
            vip.grouped = group_of(vip).is_some();
        }
    }

    fn members(&self, group: &Arc<str>) -> Vec<usize> {
        (0..self.vips.len()).filter(|v| group_of(&self.vips[*v]) == Some(group)).collect()
    }
}

/// Its group, unless it is on its way out.
fn group_of(vip: &Vip) -> Option<&Arc<str>> {
    vip.spec.sync_group.as_ref().filter(|_| !vip.dropped)
}
