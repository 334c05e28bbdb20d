//! What the kernel is to carry, and who gets it: of a plan and the servers' health. Pure; called by `forward`.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use relais_balance::maglev_table;
use relais_config::plan::{Admin, Balance, By, Method, NodeId, Plan};

/// Sizes of the table of `balance source`, primes: 100 slots a server and more.
const SIZES: [u64; 4] = [1_021, 4_093, 16_381, 65_537];
/// Most turns of `balance roundrobin`, beyond which weights are rounded.
const MOST_TURNS: u64 = 4_096;

/// Whether checks call a server well, by backend and server.
pub(crate) type Health = HashMap<(String, String), bool>;

/// A frontend that the kernel carries.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Service {
    pub(crate) name: Arc<str>,
    pub(crate) backend: Arc<str>,
    pub(crate) udp: bool,
    pub(crate) masquerade: bool,
    /// How IPVS reaches servers, and by which of its schedulers it shares, if it is IPVS that carries this.
    pub(crate) ipvs: Option<(Method, &'static str)>,
    pub(crate) binds: Vec<SocketAddr>,
    /// By the client's address; otherwise each server in turn.
    pub(crate) by_source: bool,
    all_backups: bool,
    pub(crate) targets: Vec<Target>,
}

/// One of its servers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Target {
    pub(crate) name: Arc<str>,
    pub(crate) address: SocketAddr,
    /// 0: it keeps what it has, and gets nothing new.
    pub(crate) weight: u16,
    pub(crate) backup: bool,
    pub(crate) alive: bool,
}

/// What the kernel of this node is to carry.
pub(crate) fn services(plan: &Plan, node: NodeId, health: &Health) -> Vec<Service> {
    let forwards = plan.forwards_on(node);
    let services = forwards.filter_map(|(frontend, forward)| {
        let backend = &plan.backends[usize::from(frontend.default_backend?.0)];
        let targets = backend.servers.iter().map(|server| {
            let key = (backend.name.to_string(), server.name.to_string());
            let well = backend.check.is_none() || health.get(&key).copied().unwrap_or(true);
            Target {
                name: server.name.clone(),
                address: server.address,
                weight: if server.admin == Admin::Drain { 0 } else { server.weight },
                backup: server.backup,
                alive: well && server.admin != Admin::Down,
            }
        });
        Some(Service {
            name: frontend.name.clone(),
            backend: backend.name.clone(),
            udp: forward.udp,
            masquerade: forward.by == By::Nftables { masquerade: true },
            ipvs: match forward.by {
                By::Nftables { .. } => None,
                By::Ipvs(method) => Some((method, backend.balance.ipvs_scheduler().unwrap_or("wrr"))),
            },
            binds: plan.binds_on(node, frontend).map(|bind| bind.address).collect(),
            by_source: matches!(backend.balance, Balance::Hash { .. }),
            all_backups: backend.all_backups,
            targets: targets.collect(),
        })
    });
    services.collect()
}

impl Service {
    /// One of a single server, to see whether the kernel takes it.
    pub(crate) fn example(address: SocketAddr, by_source: bool) -> Service {
        let target = Target { name: "s".into(), address, weight: 1, backup: false, alive: true };
        Service {
            name: if by_source { "source".into() } else { "roundrobin".into() },
            backend: "b".into(),
            udp: by_source,
            masquerade: true,
            ipvs: None,
            binds: vec![address],
            by_source,
            all_backups: false,
            targets: vec![target],
        }
    }

    /// Who gets what is new: indexes of `targets`.
    pub(crate) fn chosen(&self, ipv4: bool) -> Vec<usize> {
        let usable = |backup: bool| -> Vec<usize> {
            let fits = |target: &Target| {
                target.alive
                    && target.weight > 0
                    && target.backup == backup
                    && target.address.is_ipv4() == ipv4
            };
            (0..self.targets.len()).filter(|&index| fits(&self.targets[index])).collect()
        };
        let mut chosen = usable(false);
        if chosen.is_empty() {
            chosen = usable(true);
            chosen.truncate(if self.all_backups { usize::MAX } else { 1 });
        }
        chosen
    }

    /// The same in slots that are led to one after the other or by a hash.
    pub(crate) fn slots(&self, ipv4: bool) -> Vec<usize> {
        let chosen = self.chosen(ipv4);
        let named: Vec<(&str, u16)> =
            chosen.iter().map(|&index| (&*self.targets[index].name, self.targets[index].weight)).collect();
        let slots = if self.by_source {
            let enough = SIZES.iter().find(|size| **size >= 100 * named.len() as u64);
            maglev_table(&named, *enough.unwrap_or(&SIZES[SIZES.len() - 1]))
        } else {
            turns(&named.iter().map(|(_, weight)| u64::from(*weight)).collect::<Vec<_>>())
        };
        slots.into_iter().map(|place| chosen[usize::from(place)]).collect()
    }
}

/// As many turns for each as its weight says, evenly spread.
fn turns(weights: &[u64]) -> Vec<u16> {
    let divisor = weights.iter().fold(0, |a, &b| gcd(a, b)).max(1);
    let sum = weights.iter().sum::<u64>() / divisor;
    let share = |weight: u64| match weight / divisor {
        weight if sum <= MOST_TURNS => weight,
        weight => (weight * MOST_TURNS / sum).max(1),
    };
    let each = |(place, &weight): (u16, &u64)| {
        let share = share(weight);
        (0..share).map(move |turn| ((2 * turn + 1) * 1_000_000 / share, place))
    };
    let mut turns: Vec<(u64, u16)> = (0..).zip(weights).flat_map(each).collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, place)| place).collect()
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(by_source: bool, targets: &[(&str, u16, bool, bool)]) -> Service {
        let target = |&(name, weight, backup, alive): &(&str, u16, bool, bool)| Target {
            name: name.into(),
            address: "10.0.0.1:80".parse().expect("an address"),
            weight,
            backup,
            alive,
        };
        Service {
            name: "web".into(),
            backend: "app".into(),
            udp: false,
            masquerade: true,
            ipvs: None,
            binds: Vec::new(),
            by_source,
            all_backups: false,
            targets: targets.iter().map(target).collect(),
        }
    }

    fn shares(slots: &[usize], servers: usize) -> Vec<usize> {
        (0..servers).map(|server| slots.iter().filter(|slot| **slot == server).count()).collect()
    }

    #[test]
    fn turns_are_as_many_as_weights_say_and_evenly_spread() {
        let service = service(false, &[("a", 4, false, true), ("b", 2, false, true), ("c", 2, false, true)]);
        let slots = service.slots(true);
        assert_eq!(shares(&slots, 3), [2, 1, 1]);
        assert!(slots.windows(2).all(|two| two[0] != two[1]) || slots[0] != slots[3], "{slots:?}");
        assert!(service.slots(false).is_empty(), "no server is IPv6");
    }

    #[test]
    fn weights_of_many_servers_are_rounded_and_nobody_is_left_out() {
        let weights: Vec<u64> = (0..100).map(|n| if n == 0 { 1 } else { 255 }).collect();
        let slots = turns(&weights);
        assert!(slots.len() <= 4_200, "{}", slots.len());
        assert!((0..100).all(|server| slots.contains(&server)));
    }

    #[test]
    fn backups_serve_when_nobody_else_does_and_drained_servers_never() {
        let of = |a: (u16, bool), b: (u16, bool)| {
            let all = [("a", a.0, false, a.1), ("b", b.0, true, b.1), ("c", 1, true, true)];
            let mut slots = service(false, &all).slots(true);
            slots.dedup();
            slots
        };
        assert_eq!(of((1, true), (1, true)), [0]);
        assert_eq!(of((0, true), (1, true)), [1]);
        assert_eq!(of((1, false), (1, true)), [1]);
        assert_eq!(of((1, false), (1, false)), [2]);
    }

    #[test]
    fn a_dead_server_moves_few_clients_but_its_own() {
        let all = [("a", 1, false, true), ("b", 2, false, true), ("c", 1, false, true)];
        let before = service(true, &all).slots(true);
        let split = shares(&before, 3);
        assert!(split[1].abs_diff(510) <= 6 && split[0].abs_diff(255) <= 6, "{split:?}");
        let mut dead = all;
        dead[2].3 = false;
        let after = service(true, &dead).slots(true);
        let moved = before.iter().zip(&after).filter(|(was, is)| **was != 2 && was != is).count();
        assert!(moved < 1_021 / 10, "{moved} of 1021 slots moved");
    }
}
