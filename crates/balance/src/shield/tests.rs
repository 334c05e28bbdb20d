use super::*;
use alloc::vec;
use proptest::prelude::*;
use relais_base::Rng;

const REFRESH: u64 = 10_000;
const T0: u64 = 1_800_000_000_000;

fn settings(rate: Option<u64>) -> Settings {
    Settings { rate, refresh_ms: REFRESH, always: false }
}

/// A line of a rate a second.
fn line(rate: u64) -> Shield {
    let mut shield = Shield::new(settings(Some(rate * 1_000)), 7, T0);
    shield.load(FULL, T0);
    shield
}

fn place(answer: Answer) -> Place {
    match answer {
        Answer::Wait { place, .. } => place,
        Answer::Enter => panic!("it was let in"),
    }
}

#[test]
fn without_too_much_load_everybody_comes_in() {
    let mut shield = Shield::new(settings(None), 7, T0);
    for n in 0..100 {
        assert!(!shield.load(FULL - 1, T0 + n));
        assert_eq!(shield.ask(None, T0 + n), Answer::Enter);
    }
}

#[test]
fn a_newcomer_waits_one_refresh_and_comes_in_when_it_is_its_turn() {
    let mut shield = line(10);
    let one = place(shield.ask(None, T0 + 5));
    let two = place(shield.ask(None, T0 + 6));
    assert!(one < two && one.at_ms() == T0 + 5);
    let at = T0 + REFRESH + 6;
    assert!(matches!(shield.ask(Some((one, T0)), at), Answer::Wait { ahead: 0, place, .. } if place == one));
    assert!(matches!(shield.ask(Some((two, T0)), at), Answer::Wait { ahead: 1, .. }));
    let at = at + REFRESH;
    assert_eq!(shield.ask(Some((two, T0)), at), Answer::Enter);
    assert_eq!(shield.ask(Some((one, T0)), at), Answer::Enter);
    shield.check_invariants();
}

#[test]
fn a_place_is_good_for_one() {
    let mut shield = line(1);
    let one = place(shield.ask(None, T0));
    let at = T0 + 2 * REFRESH;
    assert_eq!(shield.ask(Some((one, T0)), at), Answer::Enter);
    // There is no room for anybody for a second.
    for n in 1..1_000 {
        let again = place(shield.ask(Some((one, T0)), at + n));
        assert!(again > one && again.at_ms() >= at, "a copy is a newcomer");
    }
}

#[test]
fn who_does_not_come_back_is_passed_over_and_keeps_its_place() {
    let mut shield = line(1);
    let gone = place(shield.ask(None, T0));
    let stays = place(shield.ask(None, T0 + 1));
    let last = place(shield.ask(None, T0 + 2));
    for place in [gone, stays, last] {
        let _ = shield.ask(Some((place, T0)), T0 + REFRESH);
    }
    let mut entered = vec![];
    for round in 2..12 {
        for place in [stays, last] {
            if !entered.contains(&place)
                && shield.ask(Some((place, T0)), T0 + round * REFRESH) == Answer::Enter
            {
                entered.push(place);
            }
        }
    }
    assert_eq!(entered, [stays, last]);
    let _ = shield.ask(None, T0 + 12 * REFRESH);
    assert_eq!(shield.figures().abandoned, 1);
    assert_eq!(shield.ask(Some((gone, T0)), T0 + 12 * REFRESH + 1_000), Answer::Enter, "before newcomers");
}

#[test]
fn another_balancer_takes_the_line_over_in_its_order() {
    let mut first = line(100);
    let places: Vec<Place> = (0..500).map(|n| place(first.ask(None, T0 + n))).collect();
    let mut second = Shield::new(settings(Some(10_000)), 8, T0 + 30_000);
    let mut rng = Rng::new(3);
    let mut left = places;
    let mut entered = vec![];
    // They come back in any order, at moments of their own, and it has no load of its own yet.
    let mut phase: BTreeMap<Place, u64> = left.iter().map(|p| (*p, rng.below(REFRESH))).collect();
    for tick in 0..1_000u64 {
        let now = T0 + 30_000 + tick * 100;
        for at in (0..left.len()).rev() {
            let due = phase[&left[at]];
            if now < T0 + 30_000 + due {
                continue;
            }
            phase.insert(left[at], due + REFRESH);
            if second.ask(Some((left[at], now - 100)), now) == Answer::Enter {
                entered.push(left.remove(at));
            } else {
                assert!(second.is_on(), "there is a line elsewhere");
            }
        }
    }
    assert_eq!(entered.len(), 500);
    for (at, place) in entered.iter().enumerate() {
        let later = entered[..at].iter().filter(|earlier| *earlier > place).count();
        // Called in order; each comes at its own moment, within a refresh, in which 100 more are called.
        assert!(later <= 110, "{later} came in before one that was there before them");
    }
}

#[test]
fn the_rate_follows_the_load() {
    // A server that does 100 a second and keeps the others waiting; too much is 20 that wait.
    let mut shield = Shield::new(settings(None), 7, T0);
    let (mut backlog, mut now) = (100u64, T0);
    let mut line: VecDeque<(u64, Place)> = VecDeque::new();
    let mut admitted = vec![];
    for tick in 0..2_000u64 {
        now += 100;
        backlog = backlog.saturating_sub(10);
        shield.load((backlog * 1_000 / 20) as u32, now);
        for _ in 0..13 {
            match shield.ask(None, now) {
                Answer::Enter => backlog += 1,
                Answer::Wait { place, .. } => line.push_back((now + REFRESH, place)),
            }
        }
        let mut entered = 0;
        while line.front().is_some_and(|(due, _)| *due <= now) {
            let (_, place) = line.pop_front().unwrap();
            match shield.ask(Some((place, now)), now) {
                Answer::Enter => entered += 1,
                Answer::Wait { .. } => line.push_back((now + REFRESH, place)),
            }
        }
        backlog += entered;
        if tick >= 1_000 {
            admitted.push(entered);
        }
    }
    let rate = admitted.iter().sum::<u64>() * 10 / admitted.len() as u64;
    assert!((50..=105).contains(&rate), "{rate} a second");
}

#[test]
fn the_line_ends_when_it_is_calm_and_empty_for_a_while_and_not_before() {
    let mut shield = line(1_000);
    let one = place(shield.ask(None, T0));
    for n in 1..200 {
        assert!(shield.load(0, T0 + n * 100), "somebody waits");
    }
    assert_eq!(shield.ask(Some((one, T0)), T0 + 20_000), Answer::Enter);
    assert!(shield.load(CALM, T0 + 40_000) && shield.load(0, T0 + 45_000) && shield.load(0, T0 + 49_000));
    assert!(!shield.load(0, T0 + 51_000));
    assert_eq!(shield.ask(None, T0 + 51_000), Answer::Enter);
}

#[test]
fn places_are_unlike_each_other_and_in_order_however_many_come_at_once() {
    let mut shield = line(1);
    let mut last = Place(0);
    for n in 0..100_000u64 {
        let place = shield.place(T0 + n / 5_000);
        assert!(place > last);
        last = place;
    }
    let mut other = Shield::new(settings(None), 8, T0);
    assert_ne!(other.place(T0), line(1).place(T0));
}

#[test]
fn a_hundred_thousand_come_in_in_order_at_the_rate_and_nobody_is_forgotten() {
    const CLIENTS: u64 = 100_000;
    const RATE: u64 = 500;
    const TICK: u64 = 100;
    // A longer refresh than one would set: fewer steps.
    const REFRESH: u64 = 30_000;
    let mut shield = line(RATE);
    shield.set(Settings { refresh_ms: REFRESH, ..shield.settings }, T0);
    let mut rng = Rng::new(1_730_000);
    // By tick: who comes, with its place.
    let mut due: Vec<Vec<Option<Place>>> = vec![vec![]; 4_000];
    (0..CLIENTS).for_each(|_| due[rng.below(200) as usize].push(None));
    let (mut entered, mut abandoned, mut last_tick) = (0, 0, 0);
    let mut by_second = vec![0u64; 400];
    for tick in 0..due.len() as u64 {
        let now = T0 + tick * TICK;
        shield.load(900, now);
        for ticket in core::mem::take(&mut due[tick as usize]) {
            match shield.ask(ticket.map(|place| (place, now - REFRESH)), now) {
                Answer::Enter => {
                    let mine = ticket.expect("newcomers wait");
                    let earlier = shield
                        .waiting
                        .range(..mine)
                        .find(|(_, seen)| now - **seen <= shield.settings.patience_ms());
                    assert_eq!(earlier, None, "somebody who came earlier is still in the line");
                    entered += 1;
                    last_tick = tick;
                    by_second[(tick * TICK / 1_000) as usize] += 1;
                }
                // One in a hundred gives up, each time.
                Answer::Wait { .. } if rng.chance(1, 100) => abandoned += 1,
                Answer::Wait { place, .. } => {
                    assert!(ticket.is_none_or(|mine| mine == place), "a place is kept");
                    let next = tick + REFRESH / TICK;
                    if let Some(then) = due.get_mut(next as usize) {
                        then.push(Some(place));
                    }
                }
            }
        }
        if tick % 100 == 0 {
            shield.check_invariants();
        }
    }
    assert_eq!(entered + abandoned, CLIENTS, "nobody starves");
    let patience = shield.settings.patience_ms() / 1_000;
    for from in 0..by_second.len() {
        for length in [1, 10, 60] {
            let sum: u64 = by_second.iter().skip(from).take(length as usize).sum();
            assert!(sum <= RATE * (length + patience + 1), "{sum} in {length} s");
        }
    }
    let took = last_tick * TICK / 1_000;
    let least = (CLIENTS - abandoned) / RATE;
    assert!((least..least + 120).contains(&took), "{took} s, where {least} would do");
}

/// Whether those who have been called since, and the one who has entered, came before all who wait and are still there. Who
/// joins the line later than others of its time were called comes after them.
fn nobody_was_passed_over(
    shield: &Shield,
    called: &BTreeMap<Place, u64>,
    entered: Option<Place>,
    now: u64,
) -> bool {
    let patience = shield.settings.patience_ms();
    let new = shield.called.keys().copied().chain(entered).filter(|place| !called.contains_key(place));
    new.max().is_none_or(|last| shield.waiting.range(..last).all(|(_, seen)| now > seen + patience))
}

proptest! {
    #[test]
    fn whatever_comes_nothing_breaks_and_no_more_are_let_in_than_is_freed(
        steps in prop::collection::vec((0u64..3_000, 0usize..40, 0u32..1_500, any::<bool>()), 1..300),
        rate in 1u64..50,
    ) {
        let mut shield = line(rate);
        let mut now = T0;
        let mut known: Vec<Place> = vec![];
        let mut entered = 0;
        let mut used: Vec<Place> = vec![];
        for (past, who, load, has_place) in steps {
            now += past;
            let called = shield.called.clone();
            prop_assert!(shield.load(load.max(CALM), now));
            prop_assert!(nobody_was_passed_over(&shield, &called, None, now));
            let called = shield.called.clone();
            let ticket = if has_place { known.get(who).copied() } else { None };
            let answer = shield.ask(ticket.map(|place| (place, now)), now);
            // A place that was used is a newcomer's, for whom there may be room.
            let mine = ticket.filter(|mine| answer == Answer::Enter && !used.contains(mine));
            prop_assert!(nobody_was_passed_over(&shield, &called, mine, now));
            used.extend(mine);
            match answer {
                Answer::Enter => entered += 1,
                Answer::Wait { place, .. } => {
                    if ticket != Some(place) {
                        prop_assert!(!known.contains(&place));
                        known.push(place);
                    }
                }
            }
            shield.check_invariants();
            // One second's worth may have gathered before.
            prop_assert!(entered <= rate * (now - T0) / 1_000 + rate.max(1) + 1);
        }
    }
}
