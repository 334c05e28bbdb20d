//! Every algorithm beside a second, naive one that says the rule without any trick, over random histories.

#![allow(clippy::unwrap_used)]

use std::collections::HashMap;

use proptest::prelude::*;
use relais_balance::{Load, Locality, Ranking, Ring, Rule, StaticRr, Wrr, has_share, hash, maglev, map};

const SHRINK_S: u32 = 24 * 3600;

/// What happens to a backend.
#[derive(Clone, Debug)]
enum Event {
    /// A request comes; who may serve it, by bits.
    Comes(u16),
    /// One of the requests under way ends.
    Ends(prop::sample::Index),
    /// A server gets another weight.
    Weight(prop::sample::Index, u16),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        6 => prop_oneof![Just(u16::MAX), any::<u16>()].prop_map(Event::Comes),
        4 => any::<prop::sample::Index>().prop_map(Event::Ends),
        1 => (any::<prop::sample::Index>(), 0u16..300).prop_map(|(at, weight)| Event::Weight(at, weight)),
    ]
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    prop::collection::vec(event(), 1..150)
}

fn weights() -> impl Strategy<Value = Vec<u16>> {
    prop::collection::vec(prop_oneof![Just(1), 0u16..=4, 0u16..=256, Just(25_600)], 1..12)
}

/// A server as the naive ones know it.
#[derive(Clone, Copy, Default)]
struct Naive {
    active: u64,
    weight: u64,
    used: u64,
    limit: u64,
}

/// Whether `a` has less than `b`, by the rule's words; cross-multiplied.
fn is_less(rule: Rule, a: Naive, b: Naive) -> bool {
    match rule {
        Rule::LeastConn => {
            let (left, right) = (a.active * b.weight, b.active * a.weight);
            left < right || (left == right && a.used < b.used)
        }
        Rule::Sed => (a.active + 1) * b.weight < (b.active + 1) * a.weight,
        Rule::Nq => match (a.active, b.active) {
            (_, 0) => false,
            (0, _) => true,
            _ => is_less(Rule::Sed, a, b),
        },
        Rule::First => a.active < a.limit && b.active >= b.limit,
        Rule::LeastTime => unreachable!("it has a test of its own"),
    }
}

fn naive_pick(rule: Rule, servers: &[Naive], eligible: impl Fn(usize) -> bool) -> Option<usize> {
    let may = |&place: &usize| servers[place].weight > 0 && eligible(place);
    (0..servers.len())
        .filter(may)
        .reduce(|best, place| if is_less(rule, servers[place], servers[best]) { place } else { best })
}

fn rank_alike(rule: Rule, weights: &[u16], events: &[Event]) -> Result<(), TestCaseError> {
    let naive = |&weight: &u16| Naive { weight: weight.into(), limit: 3, ..Naive::default() };
    let mut servers: Vec<Naive> = weights.iter().map(naive).collect();
    let mut ranking = Ranking::new(rule, weights.iter().copied());
    (0..servers.len()).for_each(|place| ranking.set_limit(place, 3));
    let mut open = Vec::new();
    for (at, event) in (1..).zip(events) {
        match event {
            Event::Comes(mask) => {
                let eligible = |place: usize| mask & (1 << place) != 0;
                let expected = naive_pick(rule, &servers, eligible);
                prop_assert_eq!(ranking.pick(eligible, |place| servers[place].active), expected);
                if let Some(place) = expected {
                    servers[place].active += 1;
                    servers[place].used = at;
                    open.push(place);
                    ranking.set_load(place, servers[place].active);
                }
            }
            Event::Ends(which) if !open.is_empty() => {
                let place = open.swap_remove(which.index(open.len()));
                servers[place].active -= 1;
                ranking.set_load(place, servers[place].active);
            }
            Event::Ends(_) => {}
            Event::Weight(which, weight) => {
                let place = which.index(servers.len());
                servers[place].weight = u64::from(*weight);
                ranking.set_weight(place, *weight);
            }
        }
    }
    Ok(())
}

/// LBLC and LBLCR as a table without rows or limits.
struct NaiveLocality {
    replicate: bool,
    /// A key's servers, when they changed, and when they were used.
    keys: HashMap<u64, (Vec<usize>, u32, u32)>,
    choices: u64,
}

impl NaiveLocality {
    fn pick(
        &mut self,
        key: u64,
        now: u32,
        servers: &mut [Naive],
        eligible: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        let (set, changed, used) = self.keys.entry(key).or_default();
        if now - *used >= 24 * 3600 {
            set.clear();
        }
        *used = now;
        let choice = {
            let usable = |place: usize| servers[place].weight > 0 && eligible(place);
            let below = |a: usize, b: usize| {
                servers[a].active * servers[b].weight < servers[b].active * servers[a].weight
            };
            let known = set.iter().copied().filter(|&place| usable(place));
            let known = known.reduce(|best, place| if below(place, best) { place } else { best });
            if set.len() > 1 && now - *changed > SHRINK_S {
                let most = set.iter().copied();
                let most = most.reduce(|most, place| if below(place, most) { most } else { place });
                set.retain(|place| Some(*place) != most);
                *changed = now;
            }
            let idle = |place: usize| usable(place) && servers[place].active * 2 < servers[place].weight;
            if let Some(place) = known
                && !(servers[place].active > servers[place].weight && (0..servers.len()).any(idle))
            {
                return Some(place);
            }
            naive_pick(Rule::LeastConn, servers, eligible)?
        };
        self.choices += 1;
        servers[choice].used = self.choices;
        if !set.contains(&choice) {
            if !self.replicate {
                set.clear();
            }
            set.push(choice);
            *changed = now;
        }
        Some(choice)
    }
}

fn keep_alike(replicate: bool, weights: &[u16], events: &[(Event, u8, u8)]) -> Result<(), TestCaseError> {
    let naive = |&weight: &u16| Naive { weight: weight.into(), ..Naive::default() };
    let mut servers: Vec<Naive> = weights.iter().map(naive).collect();
    let mut real = Locality::new(replicate.then_some(SHRINK_S), weights.iter().copied());
    let mut model = NaiveLocality { replicate, keys: HashMap::new(), choices: 0 };
    let (mut open, mut now_s) = (Vec::new(), 0);
    for (event, key, hours) in events {
        now_s += u32::from(*hours) * 3600 / 2;
        match event {
            Event::Comes(mask) => {
                let before = servers.clone();
                let load = |place: usize| Load {
                    active: before[place].active as u32,
                    weight: before[place].weight as u16,
                };
                let eligible = |place: usize| mask & (1 << place) != 0 && before[place].weight > 0;
                let expected = model.pick(u64::from(*key), now_s, &mut servers, eligible);
                prop_assert_eq!(real.pick(u64::from(*key), now_s, eligible, load), expected);
                if let Some(place) = expected {
                    servers[place].active += 1;
                    open.push(place);
                    real.ranking.set_load(place, servers[place].active);
                }
            }
            Event::Ends(which) if !open.is_empty() => {
                let place = open.swap_remove(which.index(open.len()));
                servers[place].active -= 1;
                real.ranking.set_load(place, servers[place].active);
            }
            Event::Ends(_) | Event::Weight(..) => {}
        }
    }
    Ok(())
}

/// Names of servers, by place.
fn names(count: usize) -> Vec<String> {
    (0..count).map(|place| format!("tomcat{}-{}", place / 2 + 1, place % 2 + 1)).collect()
}

fn named<'a>(names: &'a [String], weights: &[u16]) -> Vec<(&'a str, u16)> {
    names.iter().map(String::as_str).zip(weights.iter().copied()).collect()
}

fn keys(count: u32) -> impl Iterator<Item = u64> {
    (0..count).map(|number| hash(format!("/page/{number}").as_bytes()))
}

/// How many keys each server gets.
fn split(servers: usize, count: u32, mut pick: impl FnMut(u64) -> Option<usize>) -> Vec<u32> {
    let mut got = vec![0; servers];
    keys(count).for_each(|key| got[pick(key).unwrap()] += 1);
    got
}

/// Says if a server is off its share by more than `percent` of all.
fn assert_shares(got: &[u32], weights: &[u16], percent: f64) {
    let all: u32 = got.iter().sum();
    let total: u32 = weights.iter().map(|&weight| u32::from(weight)).sum();
    for (place, (&got, &weight)) in got.iter().zip(weights).enumerate() {
        let off = f64::from(got) / f64::from(all) - f64::from(weight) / f64::from(total);
        assert!(off.abs() * 100.0 <= percent, "server {place} of weight {weight} got {got} of {all}");
    }
}

/// `ip_vs_wrr.c`, a server after the other: the level falls by the divisor each time that the list is at its end.
struct NaiveWrr {
    weights: Vec<u16>,
    level: u16,
    next: usize,
}

impl NaiveWrr {
    fn pick(&mut self, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let divisor = (1..=self.weights.iter().copied().max()?).rev();
        let divisor = divisor.into_iter().find(|d| self.weights.iter().all(|weight| weight % d == 0))?;
        let greatest = *self.weights.iter().max()?;
        for _ in 0..(usize::from(greatest / divisor) + 2) * self.weights.len() {
            if self.next == self.weights.len() {
                self.next = 0;
                self.level = self.level.saturating_sub(divisor);
                if self.level == 0 {
                    self.level = greatest;
                }
            }
            let place = self.next;
            self.next += 1;
            if self.weights[place] >= self.level && eligible(place) {
                return Some(place);
            }
        }
        None
    }
}

proptest! {
    #[test]
    fn the_heaviest_come_first_as_ipvs_deals_them(
        weights in prop::collection::vec(prop_oneof![Just(0u16), 1u16..=6, Just(60), Just(90)], 1..10),
        masks in prop::collection::vec(prop_oneof![Just(u16::MAX), any::<u16>()], 1..300),
    ) {
        let greatest = weights.iter().copied().max().unwrap();
        let mut naive = NaiveWrr { weights: weights.clone(), level: greatest, next: 0 };
        let mut turns = Wrr::new(weights.iter().copied());
        for mask in masks {
            let eligible = |place: usize| mask & (1 << place) != 0;
            let expected = naive.pick(eligible);
            prop_assert_eq!(turns.pick(eligible), expected);
            if expected.is_none() {
                // Who finds nobody has gone round in vain, and where it stands is nobody's business.
                naive = NaiveWrr { weights: weights.clone(), level: greatest, next: 0 };
                turns = Wrr::new(weights.iter().copied());
            }
        }
    }

    #[test]
    fn a_round_of_ipvs_gives_every_server_its_weight_whatever_they_become(
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0u16..=12, 0usize..9), 0..20),
        weights in prop::collection::vec(0u16..=12, 1..9),
    ) {
        let mut turns = Wrr::new(weights.iter().copied());
        let mut weights = weights;
        for (which, weight, picks) in changes {
            let place = which.index(weights.len());
            weights[place] = weight;
            turns.set_weight(place, weight);
            for _ in 0..picks {
                turns.pick(|_| true);
            }
        }
        let all = weights.iter().map(|&weight| usize::from(weight)).sum::<usize>();
        let mut got = vec![0u16; weights.len()];
        (0..all).for_each(|_| got[turns.pick(|_| true).unwrap()] += 1);
        prop_assert_eq!((all == 0).then(|| turns.pick(|_| true)).flatten(), None);
        prop_assert_eq!(got, weights);
    }

    #[test]
    fn least_connections_are_what_cross_multiplication_says(weights in weights(), events in events()) {
        rank_alike(Rule::LeastConn, &weights, &events)?;
    }

    #[test]
    fn the_shortest_expected_delay_is_what_cross_multiplication_says(weights in weights(), events in events()) {
        rank_alike(Rule::Sed, &weights, &events)?;
    }

    #[test]
    fn never_queue_takes_the_first_idle_server(weights in weights(), events in events()) {
        rank_alike(Rule::Nq, &weights, &events)?;
    }

    #[test]
    fn first_is_the_first_with_a_free_place(weights in weights(), events in events()) {
        rank_alike(Rule::First, &weights, &events)?;
    }

    #[test]
    fn a_key_stays_with_its_server_until_that_has_too_much(
        weights in prop::collection::vec(0u16..6, 1..8),
        events in prop::collection::vec((event(), 0u8..6, prop_oneof![4 => Just(0u8), 1 => 0u8..60]), 1..150),
    ) {
        keep_alike(false, &weights, &events)?;
    }

    #[test]
    fn a_key_with_replicas_has_a_set_that_grows_and_shrinks(
        weights in prop::collection::vec(0u16..6, 1..8),
        events in prop::collection::vec((event(), 0u8..6, prop_oneof![4 => Just(0u8), 1 => 0u8..60]), 1..150),
    ) {
        keep_alike(true, &weights, &events)?;
    }

    #[test]
    fn a_ring_is_the_next_point_of_those_who_may(
        weights in prop::collection::vec(0u16..5, 1..8), masks in prop::collection::vec(any::<u8>(), 1..20),
    ) {
        let names = names(weights.len());
        let servers = named(&names, &weights);
        let ring = Ring::new(&servers);
        // Where each server begins is learned by asking for it alone; the next point is then the least distance.
        let reversed: Vec<_> = servers.iter().rev().copied().collect();
        let mirror = Ring::new(&reversed);
        for (mask, key) in masks.iter().zip(keys(20)) {
            let eligible = |place: usize| mask & (1 << place) != 0;
            let mut asked = Vec::new();
            let picked = ring.pick(key, |place| { asked.push(place); eligible(place) });
            prop_assert_eq!(picked.is_some(), (0..weights.len()).any(|place| weights[place] > 0 && eligible(place)));
            // Whoever is refused gives way to the one that has the key once the refused are gone from the walk.
            let gone: Vec<_> = asked.iter().copied().filter(|place| !eligible(*place)).collect();
            prop_assert_eq!(ring.pick(key, |place| !gone.contains(&place)), picked);
            let there = mirror.pick(key, |place| eligible(weights.len() - 1 - place));
            prop_assert_eq!(there.map(|place| weights.len() - 1 - place), picked);
        }
    }

    #[test]
    fn somebody_has_always_a_share(
        actives in prop::collection::vec((0u32..50, 1u16..=256), 1..20), factor in 101u32..300,
    ) {
        let total = actives.iter().map(|server| server.0).sum();
        let weights = actives.iter().map(|server| u32::from(server.1)).sum();
        let naive = |active: u32, weight: u16| {
            let slots = (f64::from(total) + 1.0) * f64::from(factor) / 100.0;
            f64::from(active) < ((slots - 1e-9).ceil() * f64::from(weight) / f64::from(weights) - 1e-9).ceil()
        };
        for &(active, weight) in &actives {
            prop_assert_eq!(has_share(active, total, weight.into(), weights, factor), naive(active, weight));
        }
        prop_assert!(actives.iter().any(|&(active, weight)| has_share(active, total, weight.into(), weights, factor)));
    }

    #[test]
    fn a_static_rotation_gives_each_round_the_weights_of_those_who_may(
        weights in prop::collection::vec(0u16..9, 1..8), mask in any::<u8>(), skip in 0usize..7,
    ) {
        let eligible = |place: usize| mask & (1 << place) != 0;
        let up: Vec<u16> = (0..weights.len()).map(|p| if eligible(p) { weights[p] } else { 0 }).collect();
        let mut turns = StaticRr::new(&weights);
        turns.skip(skip, 7);
        let round = up.iter().map(|&weight| usize::from(weight)).sum();
        let mut got = vec![0; weights.len()];
        if round == 0 {
            prop_assert_eq!(turns.pick(eligible), None);
        }
        for _ in 0..round {
            got[turns.pick(eligible).unwrap()] += 1;
        }
        prop_assert_eq!(got, up);
    }
}

#[test]
fn tables_split_keys_by_weight() {
    let weights = [1, 2, 3, 0, 4];
    let names = names(5);
    let servers = named(&names, &weights);
    let (map, maglev, ring) = (map(&weights), maglev(&servers), Ring::new(&servers));
    assert_shares(&split(5, 100_000, |key| map.pick(key, |_| true)), &weights, 0.5);
    assert_shares(&split(5, 100_000, |key| maglev.pick(key, |_| true)), &weights, 0.5);
    assert_shares(&split(5, 100_000, |key| ring.pick(key, |_| true)), &weights, 4.0);
    // One is gone: the others have its keys by their weights.
    let without = [1, 2, 3, 0, 0];
    let up = |place: usize| without[place] > 0;
    assert_shares(&split(5, 100_000, |key| map.pick(key, up)), &without, 0.5);
    assert_shares(&split(5, 100_000, |key| maglev.pick(key, up)), &without, 0.5);
    assert_shares(&split(5, 100_000, |key| ring.pick(key, up)), &without, 4.0);
}

/// The part of the keys that go elsewhere.
fn moved(before: impl Fn(u64) -> Option<usize>, after: impl Fn(u64) -> Option<usize>) -> f64 {
    f64::from(keys(20_000).filter(|&key| before(key) != after(key)).count() as u32) / 20_000.0
}

#[test]
fn a_server_that_goes_takes_no_other_keys_with_it() {
    let weights = [1; 10];
    let names = names(10);
    let servers = named(&names, &weights);
    let (map, maglev, ring) = (map(&weights), maglev(&servers), Ring::new(&servers));
    for gone in 0..10 {
        let up = |place: usize| place != gone;
        for part in [
            moved(|key| map.pick(key, |_| true), |key| map.pick(key, up)),
            moved(|key| maglev.pick(key, |_| true), |key| maglev.pick(key, up)),
            moved(|key| ring.pick(key, |_| true), |key| ring.pick(key, up)),
        ] {
            assert!((0.06..0.14).contains(&part), "{part} of the keys moved with server {gone}");
        }
    }
}

#[test]
fn a_server_more_in_the_file_moves_its_own_keys_and_few_others() {
    let weights = [1; 11];
    let names = names(11);
    let servers = named(&names, &weights);
    let (small, large) = (Ring::new(&servers[..10]), Ring::new(&servers));
    let part = moved(|key| small.pick(key, |_| true), |key| large.pick(key, |_| true));
    assert!((0.05..0.13).contains(&part), "{part} moved on the ring");
    let (few, more) = (maglev(&servers[..10]), maglev(&servers));
    let part = moved(|key| few.pick(key, |_| true), |key| more.pick(key, |_| true));
    assert!((0.05..0.16).contains(&part), "{part} moved in maglev's table");
    let (few, more) = (map(&weights[..10]), map(&weights));
    let part = moved(|key| few.pick(key, |_| true), |key| more.pick(key, |_| true));
    assert!(part > 0.4, "only {part} moved in the map");
}

#[test]
fn maglev_does_not_go_by_the_order_of_the_file() {
    let names = names(7);
    let servers = named(&names, &[1, 2, 3, 4, 5, 6, 7]);
    let reversed: Vec<_> = servers.iter().rev().copied().collect();
    let (one, other) = (maglev(&servers), maglev(&reversed));
    assert_eq!(moved(|key| one.pick(key, |_| true), |key| other.pick(key, |_| true).map(|p| 6 - p)), 0.0);
}

#[test]
fn a_share_of_a_ring_only_grows() {
    let names = names(4);
    let ring = Ring::new(&named(&names, &[1; 4]));
    let mut before: Vec<u64> = Vec::new();
    for part in [0, 1, 10, 50, 100] {
        ring.set_share(3, part, 100);
        let has: Vec<u64> = keys(20_000).filter(|&key| ring.pick(key, |_| true) == Some(3)).collect();
        assert!(before.iter().all(|key| has.contains(key)), "keys were lost at {part} percent");
        let expected = 20_000 * part as usize / (300 + part as usize);
        assert!(has.len().abs_diff(expected) <= 60 + expected / 3, "{} keys at {part} percent", has.len());
        before = has;
    }
}

#[test]
fn a_full_row_forgets_the_key_that_was_used_least_recently() {
    let mut keys = Locality::new(None, [1, 1]);
    let load = |_| Load { active: 0, weight: 1 };
    let row = |n: u64| 7 + n * 1024;
    for n in 0..16 {
        keys.pick(row(n), n as u32, |_| true, load);
    }
    let first = keys.pick(row(0), 16, |_| true, load); // now the second is the oldest
    keys.pick(row(16), 17, |_| true, load);
    assert_eq!(keys.pick(row(0), 18, |_| true, load), first);
    // Only who has no server asks the ranking, whose next is always the one that is idle longest.
    let kept = |n: u64| {
        let mut keys = keys.clone();
        let mine = keys.pick(row(n), 19, |_| true, load);
        let mut other = keys.clone();
        let next = other.ranking.next(|_| true, |_| 0);
        (mine, next)
    };
    let before = keys.clone().ranking.next(|_| true, |_| 0);
    assert_eq!(kept(2).1, before, "a known key asked the ranking");
    assert_ne!(kept(1).1, before, "the oldest key was still there");
}
