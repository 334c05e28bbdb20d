//! What the operator's orders do, case by case.

use super::*;
use crate::events::Moved;

fn relaying(priority: u8) -> Config {
    Config {
        drain: Duration::from_secs(2),
        rivals: if priority > 100 { 100 } else { 101 },
        ..config(priority)
    }
}

/// A backup of this priority that follows a master of that one.
fn backup(priority: u8, master: u8) -> Bench {
    let mut bench = Bench::new(Config { preempt: false, ..relaying(priority) });
    bench.hear(HIGHER, master);
    assert_eq!(bench.router.state(), State::Backup);
    bench
}

fn has(outputs: &[Output], wanted: &Output) -> bool {
    outputs.contains(wanted)
}

fn advertised(outputs: &[Output]) -> Vec<u8> {
    let priority = |output: &Output| match output {
        Output::SendAdvertisement(_, advertisement) => Some(advertisement.priority),
        _ => None,
    };
    outputs.iter().filter_map(priority).collect()
}

#[test]
fn a_node_in_standby_gives_the_address_up_and_no_plan_brings_it_back() {
    let mut bench = Bench::master(relaying(101));
    assert_eq!(advertised(&bench.tell(Input::Standby(true))), [0]);
    assert_eq!(bench.router.state(), State::Master, "make before break");
    // A plan that comes meanwhile changes nothing.
    assert_eq!(bench.tell(Input::Start { resume: None }), []);
    let outputs = bench.hear(LOWER, 100);
    assert_eq!(outputs[..2], [Output::LetGo, Output::RemoveAddress]);
    assert_eq!(bench.router.state(), State::Fault);
    bench.tell(Input::Start { resume: None });
    bench.run(5000);
    assert_eq!(bench.router.state(), State::Fault, "nobody advertises, and it takes nothing");
    bench.tell(Input::Standby(false));
    bench.run(1000);
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn a_standby_that_ends_before_anybody_took_the_address_ends_without_a_gap() {
    let mut bench = Bench::master(relaying(101));
    bench.tell(Input::Standby(true));
    let outputs = bench.tell(Input::Standby(false));
    assert_eq!((bench.router.state(), advertised(&outputs)), (State::Master, vec![101]));
    assert!(!has(&outputs, &Output::RemoveAddress));
    bench.run(5000);
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn an_address_moved_here_is_held_with_one_more_than_its_holder_had() {
    let mut bench = backup(100, 101);
    let outputs = bench.tell(Input::MoveHere);
    let add = outputs.iter().position(|o| *o == Output::AddAddress).unwrap();
    assert!(outputs[..add].contains(&Output::SendOnTo(HIGHER)), "what is open goes on: {outputs:?}");
    assert!(has(&outputs, &Output::Moved(Some(Moved::Here(102)))));
    assert_eq!(advertised(&outputs), [102]);
    // Its former holder yields, and would take it back if it could.
    bench.hear(HIGHER, 0);
    assert_eq!((bench.router.state(), bench.router.priority()), (State::Master, 102));
    bench.run(300); // until its farewell can have overtaken nothing more
    // Moved back by the other: the mark goes with the address.
    let outputs = bench.hear(HIGHER, 103);
    assert!(has(&outputs, &Output::LetGo) && has(&outputs, &Output::Moved(None)));
    assert_eq!((bench.router.state(), bench.router.priority()), (State::Backup, 100));
}

#[test]
fn a_move_home_leaves_no_mark_once_the_other_has_let_go() {
    let mut bench = backup(101, 102);
    bench.tell(Input::MoveHere);
    assert_eq!(bench.router.moved(), Some(Moved::Here(103)));
    let outputs = bench.hear(HIGHER, 0);
    assert!(has(&outputs, &Output::Moved(None)));
    assert_eq!((bench.router.state(), bench.router.priority()), (State::Master, 101));
}

#[test]
fn an_owner_of_the_address_is_not_displaced_by_a_move() {
    let mut bench = backup(100, 255);
    let outputs = bench.tell(Input::MoveHere);
    assert!(matches!(&outputs[..], [Output::Log(why)] if why.contains("gives way to none")), "{outputs:?}");
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn an_address_moved_away_is_not_taken_back_while_its_holder_lives() {
    let mut bench = Bench::master(relaying(101));
    assert_eq!(advertised(&bench.tell(Input::MoveAway)), [0]);
    let outputs = bench.hear(LOWER, 100);
    assert_eq!(outputs[..2], [Output::LetGo, Output::RemoveAddress]);
    assert!(has(&outputs, &Output::Moved(Some(Moved::Away))));
    for _ in 0..50 {
        bench.run(100);
        bench.hear(LOWER, 100);
    }
    assert_eq!(bench.router.state(), State::Backup, "preemption waits for the operator");
    let outputs = bench.run(1000);
    assert_eq!(bench.router.state(), State::Master, "its holder is silent");
    assert!(has(&outputs, &Output::Moved(None)));
}

#[test]
fn an_address_that_nobody_takes_is_not_moved_away() {
    let mut bench = Bench::master(relaying(101));
    bench.tell(Input::MoveAway);
    let outputs = bench.run(3000);
    assert_eq!(bench.router.state(), State::Master);
    assert!(!has(&outputs, &Output::RemoveAddress));
    assert!(outputs.iter().any(|o| matches!(o, Output::Log(why) if why.contains("stays here"))));
    assert_eq!(bench.router.moved(), None);
}

#[test]
fn a_frontend_that_dies_during_a_move_ends_it() {
    let mut bench = Bench::master(relaying(101));
    bench.tell(Input::MoveAway);
    let outputs = bench.tell(Input::Tracked("frontend web", Health::Down));
    assert!(has(&outputs, &Output::RemoveAddress));
    bench.tell(Input::Tracked("frontend web", Health::Up));
    bench.run(1000);
    assert_eq!(bench.router.state(), State::Master, "it is in the election as before");
}

#[test]
fn a_mark_is_kept_by_the_next_process_and_ends_where_that_comes_too_late() {
    let restored = |ago: Option<u64>| {
        let mut bench = Bench { router: Router::new(relaying(100), Time::ZERO), ms: 0 };
        bench.tell(Input::Restore(Some(Moved::Here(102))));
        bench.tell(Input::Link(Link::Up(OWN)));
        bench.tell(Input::Tracked("frontend web", Health::Up));
        bench.tell(Input::Start { resume: ago.map(Duration::from_millis) });
        bench
    };
    let bench = restored(Some(20));
    assert_eq!((bench.router.state(), bench.router.priority()), (State::Master, 102));
    let bench = restored(None);
    assert_eq!((bench.router.state(), bench.router.priority()), (State::Backup, 100));
}

#[test]
fn a_living_master_that_is_displaced_keeps_what_is_open() {
    let mut bench = Bench::new(relaying(102));
    bench.hear(HIGHER, 101);
    let mut outputs = Vec::new();
    while bench.router.state() == State::Backup {
        outputs.extend(bench.run(50));
        bench.hear(HIGHER, 101);
    }
    let add = outputs.iter().position(|o| *o == Output::AddAddress);
    let send_on = outputs.iter().position(|o| *o == Output::SendOnTo(HIGHER));
    assert!(send_on.is_some() && send_on < add, "{outputs:?}");
}

#[test]
fn one_that_let_go_and_is_master_again_relays_no_more() {
    let mut bench = Bench::master(relaying(101));
    assert!(has(&bench.hear(HIGHER, 102), &Output::LetGo));
    let outputs = bench.run(1000);
    let end = outputs.iter().position(|o| *o == Output::EndRelay).unwrap();
    assert!(end < outputs.iter().position(|o| *o == Output::AddAddress).unwrap(), "{outputs:?}");
}

#[test]
fn what_a_displaced_holder_goes_on_with_is_sent_on_for_the_whole_drain() {
    let mut bench = backup(100, 101);
    let mut outputs = bench.tell(Input::MoveHere);
    for word in [101, 0, 0] {
        outputs.extend(bench.hear(HIGHER, word));
        outputs.extend(bench.run(50));
    }
    outputs.extend(bench.run(1800));
    assert!(!has(&outputs, &Output::EndRelay), "{outputs:?}");
    assert!(has(&bench.run(200), &Output::EndRelay));
}
