//! VRRP over ten thousand seeds, and each invariant on a bug planted for it.

use relais_sim::vrrp::{Events, Mutant, Violation, run};

/// Runs these seeds; a failing one is run again for its trace and shown.
fn hold(seeds: std::ops::Range<u64>) -> Events {
    let mut events = Events::default();
    for seed in seeds {
        match run(seed, Mutant::None, false) {
            Ok(more) => events.add(&more),
            Err(_) => show(seed),
        }
    }
    events
}

fn show(seed: u64) {
    if let Err(violation) = run(seed, Mutant::None, true) {
        let Violation { invariant, what, trace, .. } = *violation;
        let from = trace.len().saturating_sub(400);
        println!("{}", trace[from..].join("\n"));
        panic!("seed {seed}: invariant {invariant}: {what}");
    }
}

#[test]
fn seeds_0_to_2499_hold() {
    hold(0..2_500);
}

#[test]
fn seeds_2500_to_4999_hold() {
    hold(2_500..5_000);
}

#[test]
fn seeds_5000_to_7499_hold() {
    hold(5_000..7_500);
}

#[test]
fn seeds_7500_to_9999_hold() {
    hold(7_500..10_000);
}

/// `RELAIS_SIM_SEED=N` shows one seed; `RELAIS_SIM_SEEDS=N` runs the first N, for the long runs.
#[test]
fn one_seed_or_many_more() {
    let number = |name| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    if let Some(seed) = number("RELAIS_SIM_SEED") {
        println!(
            "{}",
            run(seed, Mutant::None, true).map_or_else(|v| v.trace.join("\n"), |e| format!("{e:?}"))
        );
        show(seed);
    }
    if let Some(seeds) = number("RELAIS_SIM_SEEDS") {
        println!("{:?}", hold(10_000..10_000 + seeds));
    }
}

#[test]
fn much_happens_in_a_hundred_seeds() {
    let events = hold(0..100);
    let Events { masters, overlaps, crashes, pauses, partitions, hand_overs, packets } = events;
    assert!(masters > 300 && overlaps > 200 && packets > 20_000, "{events:?}");
    assert!(crashes > 200 && pauses > 100 && partitions > 200 && hand_overs > 50, "{events:?}");
}

#[test]
fn a_seed_decides_the_whole_run() {
    let events = |seed| run(seed, Mutant::None, false).ok();
    assert_eq!(events(7), events(7));
    assert_ne!(events(7), events(8));
}

/// Some of the first seeds shows that `mutant` breaks `invariant`.
fn breaks(mutant: Mutant, invariant: u8) {
    let broken: Vec<u8> =
        (0..300).filter_map(|seed| run(seed, mutant, false).err()).map(|v| v.invariant).collect();
    assert!(broken.contains(&invariant), "{mutant:?} broke {broken:?}, not {invariant}");
}

#[test]
fn a_node_that_ignores_priority_is_a_second_holder() {
    breaks(Mutant::IgnoresPriority, 1);
}

#[test]
fn a_node_that_forgets_to_remove_the_address_is_a_second_holder() {
    breaks(Mutant::ForgetsToRemove, 1);
}

#[test]
fn an_address_without_a_lease_stays_with_the_dead() {
    breaks(Mutant::HasNoLease, 1);
}

#[test]
fn a_process_that_resumes_too_late_is_seen() {
    breaks(Mutant::ResumesTooLate, 2);
}

#[test]
fn a_process_that_does_not_notice_its_sleep_is_seen() {
    breaks(Mutant::SleepsUnnoticed, 2);
}

#[test]
fn an_address_that_nobody_takes_is_seen() {
    breaks(Mutant::NeverTimesOut, 3);
}

#[test]
fn a_node_that_preempts_though_it_must_not_is_seen() {
    breaks(Mutant::PreemptsAnyway, 3);
}

#[test]
fn a_hand_over_that_breaks_before_it_makes_leaves_a_gap() {
    breaks(Mutant::BreaksBeforeMaking, 4);
}

#[test]
fn a_holder_that_does_not_announce_is_not_found() {
    breaks(Mutant::AnnouncesNothing, 5);
}
