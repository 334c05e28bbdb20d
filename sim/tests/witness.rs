//! Witnesses over thousands of seeds, and each invariant on a bug planted for it.

use relais_sim::witness::{Events, Mutant, Violation, run};

fn hold(seeds: std::ops::Range<u64>) -> Events {
    let mut events = Events::default();
    for seed in seeds {
        match run(seed, Mutant::None) {
            Ok(more) => events.add(&more),
            Err(violation) => {
                let Violation { invariant, what, trace } = *violation;
                println!("{}", trace[trace.len().saturating_sub(200)..].join("\n"));
                panic!("seed {seed}: invariant {invariant}: {what}");
            }
        }
    }
    events
}

#[test]
fn seeds_0_to_999_hold_and_much_happens() {
    let events = hold(0..1000);
    let Events { acts, single_cuts, isolations, deaths, masters, cut_moves } = events;
    assert!(acts == 10_000 && single_cuts > 1500 && masters > 2000, "{events:?}");
    assert!(isolations > 100 && deaths > 100 && cut_moves > 500, "{events:?}");
}

#[test]
fn seeds_1000_to_1999_hold() {
    hold(1000..2000);
}

/// `RELAIS_SIM_SEED=N` shows one seed; `RELAIS_SIM_SEEDS=N` runs the first N, for the long runs.
#[test]
fn one_seed_or_many_more() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("RELAIS_SIM_SEED") {
        hold(seed..seed + 1);
    }
    if let Some(seeds) = number("RELAIS_SIM_SEEDS") {
        println!("{:?}", hold(10_000..10_000 + seeds));
    }
}

/// Some of the first seeds shows that `mutant` breaks `invariant`.
fn breaks(mutant: Mutant, invariant: u8) {
    let mut violations = (0..300).filter_map(|seed| run(seed, mutant).err());
    assert!(
        violations.any(|violation| violation.invariant == invariant),
        "{mutant:?} never broke {invariant}"
    );
}

#[test]
fn a_cut_link_makes_two_holders_of_routers_that_ignore_witnesses() {
    breaks(Mutant::IgnoresWitnesses, 1);
}

#[test]
fn old_news_that_is_believed_keeps_the_dead_alive() {
    breaks(Mutant::BelievesOldNews, 5);
}

#[test]
fn a_node_that_ignores_its_cut_holds_the_address_alone() {
    breaks(Mutant::IgnoresItsCut, 3);
}

#[test]
fn two_masters_that_do_not_hear_each_other_stay_so_if_none_yields() {
    breaks(Mutant::NeverYields, 2);
}
