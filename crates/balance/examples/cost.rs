//! What a pick costs among 1,000 servers: `cargo run --release -p relais-balance --example cost`.

use std::hint::black_box;
use std::time::Instant;

use relais_balance::{
    Load, Locality, Random, Ranking, Ring, RoundRobin, Rule, StaticRr, Wrr, has_share, hash, maglev, map,
};
use relais_base::Rng;

const SERVERS: usize = 1_000;
const PICKS: u64 = 2_000_000;

fn measure(name: &str, mut pick: impl FnMut(u64) -> Option<usize>) {
    let mut rng = Rng::new(1);
    let began = Instant::now();
    for _ in 0..PICKS {
        black_box(pick(rng.next_u64()));
    }
    println!("{name:<24}{:>6.0} ns", began.elapsed().as_nanos() as f64 / PICKS as f64);
}

fn main() {
    let weights: Vec<u16> = (0..SERVERS).map(|place| 1 + (place % 4) as u16).collect();
    let names: Vec<String> = (0..SERVERS).map(|place| format!("server-{place}")).collect();
    let named: Vec<(&str, u16)> = names.iter().map(String::as_str).zip(weights.iter().copied()).collect();
    let mut turns = RoundRobin::new(weights.iter().copied());
    measure("roundrobin", |_| turns.pick(|_| true));
    let mut fixed = StaticRr::new(&weights);
    measure("static-rr", |_| fixed.pick(|_| true));
    let mut heaviest = Wrr::new(weights.iter().copied());
    measure("roundrobin order=ipvs", |_| heaviest.pick(|_| true));
    // Four requests a server under way; with each pick one begins and one ends.
    for rule in [Rule::LeastConn, Rule::Sed, Rule::Nq, Rule::First, Rule::LeastTime] {
        let mut ranking = Ranking::new(rule, weights.iter().copied());
        let mut active = vec![4u64; SERVERS];
        for place in 0..SERVERS {
            ranking.set_limit(place, 8);
            ranking.set_load(place, 4);
        }
        measure(&format!("{rule:?}, and one ends"), |random| {
            let place = ranking.pick(|_| true, |place| active[place])?;
            active[place] += 1;
            ranking.set_load(place, active[place]);
            let done = (random % SERVERS as u64) as usize;
            active[done] = active[done].saturating_sub(1);
            ranking.set_load(done, active[done]);
            if rule == Rule::LeastTime {
                ranking.answered(done, random % 100_000, 0);
            }
            Some(place)
        });
    }
    let random = Random::new(&weights, 2);
    let mut rng = Rng::new(2);
    measure("random, two draws", |_| random.pick(&mut rng, |_| true, |_| (4, 100)));
    let (ring, table, slots) = (Ring::new(&named), maglev(&named), map(&weights));
    measure("consistent", |hash| ring.pick(hash, |_| true));
    let bound = |place: usize| has_share(4, 4_000, weights[place].into(), 2_500, 125);
    measure("consistent, bounded", |hash| ring.pick(hash, bound));
    measure("maglev", |hash| table.pick(hash, |_| true));
    measure("map", |hash| slots.pick(hash, |_| true));
    for replicate in [None, Some(3600)] {
        let mut locality = Locality::new(replicate, weights.iter().copied());
        let load = |_| Load { active: 1, weight: 1 };
        let name = if replicate.is_some() { "lblcr, known key" } else { "lblc, known key" };
        measure(name, |hash| locality.pick(hash % 5_000, 0, |_| true, load));
    }
    let path = b"/progres/api/students/2026/000123456/results.json";
    measure("hash of a path of 49", |n| Some(hash(&path[..48 + (n % 2) as usize]) as usize));
}
