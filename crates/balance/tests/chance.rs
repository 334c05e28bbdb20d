//! Algorithms that go by chance or by time: what they do on the whole.

#![allow(clippy::unwrap_used)]

use relais_balance::{Random, Ranking, RoundRobin, Rule};
use relais_base::Rng;

/// Requests of one unit of work each, a hundred at a time; how many each server gets.
fn serve(servers: usize, requests: usize, mut pick: impl FnMut(&[u32]) -> usize) -> Vec<u32> {
    let (mut active, mut got) = (vec![0u32; servers], vec![0; servers]);
    let mut open = std::collections::VecDeque::new();
    for _ in 0..requests {
        if open.len() == 100 {
            let done: usize = open.pop_front().unwrap();
            active[done] -= 1;
        }
        let place = pick(&active);
        active[place] += 1;
        got[place] += 1;
        open.push_back(place);
    }
    got
}

#[test]
fn one_draw_goes_by_weight_and_two_even_loads_out() {
    let weights = [1, 2, 3, 4, 0];
    let mut rng = Rng::new(1);
    let one = Random::new(&weights, 1);
    let got = serve(5, 100_000, |_| one.pick(&mut rng, |_| true, |_| (0, 100)).unwrap());
    for (got, weight) in got.into_iter().zip(weights) {
        assert!(got.abs_diff(u32::from(weight) * 10_000) < 600, "{got} for weight {weight}");
    }
    // The most that a server of ten has at a time of a hundred requests: chance alone leaves one with twice its share.
    let most = |draws: u32| {
        let random = Random::new(&[1; 10], draws);
        let (mut rng, mut most) = (Rng::new(2), 0);
        serve(10, 20_000, |active| {
            most = most.max(*active.iter().max().unwrap());
            random.pick(&mut rng, |_| true, |place| (active[place], 100)).unwrap()
        });
        most
    };
    assert!(most(1) > 18 && most(2) <= 16, "{} with one draw, {} with two", most(1), most(2));
}

#[test]
fn a_draw_of_who_may_not_is_repeated() {
    let random = Random::new(&[256, 1, 256], 2);
    let mut rng = Rng::new(3);
    for _ in 0..1_000 {
        assert_eq!(random.pick(&mut rng, |place| place == 1, |_| (7, 100)), Some(1));
    }
    assert_eq!(random.pick(&mut rng, |_| false, |_| (0, 100)), None);
    assert_eq!(Random::new(&[0, 0], 2).pick(&mut rng, |_| true, |_| (0, 100)), None);
}

/// The naive least time: floats, and every server looked at.
struct Naive {
    time: Option<f64>,
    at_ms: f64,
}

#[test]
fn least_time_is_within_three_percent_of_the_least_product() {
    let mut rng = Rng::new(4);
    for _ in 0..200 {
        let weights: Vec<u16> = (0..6).map(|_| 1 + rng.below(9) as u16).collect();
        let mut active = [0u64; 6];
        let mut ranking = Ranking::new(Rule::LeastTime, weights.iter().copied());
        let mut naive: Vec<Naive> = (0..6).map(|_| Naive { time: None, at_ms: 0.0 }).collect();
        let mut now_ms = 0;
        for place in 0..6 {
            answer(&mut ranking, &mut naive, place, 1_000 + rng.below(100_000), now_ms);
        }
        for _ in 0..300 {
            now_ms += rng.below(300);
            let cost = |place: usize| {
                let faded = f64::exp2(-(now_ms as f64 - naive[place].at_ms) / 10_000.0);
                (naive[place].time.unwrap() + 1.0) * faded * (active[place] + 1) as f64
                    / f64::from(weights[place])
            };
            let least = (0..6).map(cost).fold(f64::INFINITY, f64::min);
            let picked = ranking.pick(|_| true, |place| active[place]).unwrap();
            assert!(cost(picked) <= least * 1.03, "{} instead of {least}", cost(picked));
            active[picked] += 1;
            ranking.set_load(picked, active[picked]);
            let done = rng.below(6) as usize;
            if active[done] > 0 {
                active[done] -= 1;
                ranking.set_load(done, active[done]);
                answer(&mut ranking, &mut naive, done, 1_000 + rng.below(100_000), now_ms);
            }
        }
    }
}

fn answer(ranking: &mut Ranking, naive: &mut [Naive], place: usize, micros: u64, now_ms: u64) {
    ranking.answered(place, micros, now_ms);
    let server = &mut naive[place];
    let new = ((now_ms as f64 - server.at_ms) / 20_000.0).clamp(0.125, 1.0);
    server.time = Some(server.time.map_or(micros as f64, |mean| mean * (1.0 - new) + micros as f64 * new));
    server.at_ms = now_ms as f64;
}

#[test]
fn a_server_that_was_slow_once_is_tried_again() {
    let mut ranking = Ranking::new(Rule::LeastTime, [1, 1]);
    ranking.answered(0, 1_000, 0);
    ranking.answered(1, 1_000_000, 0);
    let mut tried = None;
    for now_ms in (0..600_000).step_by(100) {
        let place = ranking.pick(|_| true, |_| 0).unwrap();
        if place == 1 {
            tried = Some(now_ms);
            break;
        }
        ranking.answered(0, 1_000, now_ms);
    }
    // A thousand times slower is ten half-lives away.
    assert!(tried.is_some_and(|ms| (90_000..120_000).contains(&ms)), "{tried:?}");
}

#[test]
fn nobody_who_has_not_answered_yet_gets_everything() {
    let mut ranking = Ranking::new(Rule::LeastTime, [1, 1, 1]);
    ranking.answered(0, 5_000, 0);
    ranking.answered(1, 5_000, 0);
    let mut active = [0u64; 3];
    for _ in 0..30 {
        let place = ranking.pick(|_| true, |place| active[place]).unwrap();
        active[place] += 1;
        ranking.set_load(place, active[place]);
    }
    assert!(active.iter().all(|&n| (8..=12).contains(&n)), "{active:?}");
}

#[test]
fn several_pickers_begin_at_several_servers_and_split_as_one() {
    let weights = [3, 1, 1, 1];
    let mut got = [0; 4];
    let mut firsts = Vec::new();
    for worker in 0..4 {
        let mut turns = RoundRobin::new(weights);
        turns.skip(worker, 4);
        firsts.push(turns.pick(|_| true).unwrap());
        got[firsts[worker]] += 1;
        (0..599).for_each(|_| got[turns.pick(|_| true).unwrap()] += 1);
    }
    firsts.sort_unstable();
    firsts.dedup();
    assert!(firsts.len() >= 3, "{firsts:?}");
    assert!(
        got.iter().zip([1200, 400, 400, 400]).all(|(&got, share): (&u32, u32)| got.abs_diff(share) <= 4),
        "{got:?}"
    );
}

#[test]
fn a_pick_among_a_thousand_asks_for_one_or_two_servers() {
    use relais_balance::{Load, Locality, Ring, StaticRr, Wrr, maglev, map};
    let weights = [3u16; 1_000];
    let names: Vec<String> = (0..1_000).map(|place| format!("s{place}")).collect();
    let named: Vec<(&str, u16)> = names.iter().map(String::as_str).zip(weights).collect();
    let asked = std::cell::Cell::new(0);
    let ask = |_: usize| {
        asked.set(asked.get() + 1);
        true
    };
    let mut rng = Rng::new(5);
    let mut turns = RoundRobin::new(weights);
    let mut fixed = StaticRr::new(&weights);
    let mut heaviest = Wrr::new(weights);
    let mut rankings = [Rule::LeastConn, Rule::Sed, Rule::Nq, Rule::First, Rule::LeastTime]
        .map(|rule| Ranking::new(rule, weights));
    let random = Random::new(&weights, 2);
    let (ring, table, slots) = (Ring::new(&named), maglev(&named), map(&weights));
    let mut locality = Locality::new(Some(3_600), weights);
    for _ in 0..3_000 {
        let key = rng.next_u64();
        turns.pick(ask).unwrap();
        fixed.pick(ask).unwrap();
        heaviest.pick(ask).unwrap();
        for ranking in &mut rankings {
            let place = ranking.pick(ask, |_| 0).unwrap();
            ranking.set_load(place, 1);
        }
        random.pick(&mut rng, ask, |_| (0, 100)).unwrap();
        ring.pick(key, ask).unwrap();
        table.pick(key, ask).unwrap();
        slots.pick(key, ask).unwrap();
        locality.pick(key, 0, ask, |_| Load { active: 0, weight: 3 }).unwrap();
    }
    // 12 algorithms that ask for one, one that draws two, and one that looks twice at a new key.
    assert!(asked.get() <= 3_000 * (12 + 2 + 2), "{} servers were asked for", asked.get());
}
