//! What a router decides, case by case. `sim` tries the combinations.

use super::*;
use crate::{Authentication, Form, Password, Refused, Track, Version};
use alloc::sync::Arc;
use alloc::vec;

#[path = "moves_tests.rs"]
mod moves;

const VIP: IpAddr = v4(10, 9, 0, 100);
const OWN: IpAddr = v4(10, 9, 0, 2);
const LOWER: IpAddr = v4(10, 9, 0, 1);
const HIGHER: IpAddr = v4(10, 9, 0, 3);
const INTERVAL: Duration = Duration::from_millis(100);

const fn v4(a: u8, b: u8, c: u8, d: u8) -> IpAddr {
    IpAddr::V4(core::net::Ipv4Addr::new(a, b, c, d))
}

fn config(priority: u8) -> Config {
    let track = vec![Track { what: Arc::from("frontend web"), weight: 0 }];
    let grace = Duration::from_millis(60);
    Config {
        vrid: 51,
        priority,
        addresses: vec![VIP],
        form: Form::V3,
        peers: vec![],
        least_hop_limit: 255,
        preempt_delay: Duration::ZERO,
        interval: INTERVAL,
        rivals: 0,
        preempt: true,
        track,
        grace,
        drain: Duration::ZERO,
    }
}

fn advertisement(priority: u8) -> Advertisement {
    Advertisement { vrid: 51, priority, interval: INTERVAL, addresses: vec![VIP] }
}

/// A router and its clock, in milliseconds.
#[derive(Clone)]
struct Bench {
    router: Router,
    ms: u64,
}

impl Bench {
    /// Started, linked, and told that its frontend is up.
    fn new(config: Config) -> Bench {
        let mut bench = Bench { router: Router::new(config, Time::ZERO), ms: 0 };
        bench.tell(Input::Link(Link::Up(OWN)));
        bench.tell(Input::Tracked("frontend web", Health::Up));
        bench.tell(Input::Start { resume: None });
        bench
    }

    /// One that has become master and has nothing left to put out.
    fn master(config: Config) -> Bench {
        let mut bench = Bench::new(config);
        bench.run(1000);
        assert_eq!(bench.router.state(), State::Master);
        bench
    }

    fn outputs(&mut self) -> Vec<Output> {
        self.router.check_invariants();
        core::iter::from_fn(|| self.router.poll_output()).collect()
    }

    fn tell(&mut self, input: Input<'_>) -> Vec<Output> {
        self.router.handle(input, Time::from_millis(self.ms));
        self.outputs()
    }

    fn hear(&mut self, source: IpAddr, priority: u8) -> Vec<Output> {
        self.tell(Input::Advertisement(source, &advertisement(priority)))
    }

    /// Lets time pass with a prompt driver.
    fn run(&mut self, ms: u64) -> Vec<Output> {
        let end = self.ms + ms;
        let mut outputs = Vec::new();
        while self.router.poll_timeout() <= Time::from_millis(end) {
            let at = self.router.poll_timeout();
            self.router.handle_timeout(at);
            outputs.extend(self.outputs());
            assert!(self.router.poll_timeout() > at, "a timer fires for ever");
        }
        self.ms = end;
        outputs
    }

    /// Lets time pass without the driver being run, then runs it once.
    fn sleep(&mut self, ms: u64) -> Vec<Output> {
        self.ms += ms;
        self.router.handle_timeout(Time::from_millis(self.ms));
        self.outputs()
    }
}

fn sent(outputs: &[Output]) -> Vec<u8> {
    let priority = |output: &Output| match output {
        Output::SendAdvertisement(_, advertisement) => Some(advertisement.priority),
        _ => None,
    };
    outputs.iter().filter_map(priority).collect()
}

fn states(outputs: &[Output]) -> Vec<State> {
    let state = |output: &Output| match output {
        Output::Changed(state, _) => Some(*state),
        _ => None,
    };
    outputs.iter().filter_map(state).collect()
}

#[test]
fn a_master_puts_the_address_announces_and_then_advertises() {
    let mut bench = Bench::new(config(100));
    bench.run(360); // three intervals and a skew of 60.9 ms
    let outputs = bench.run(2);
    let order: Vec<&Output> = outputs.iter().filter(|o| !matches!(o, Output::Changed(..))).collect();
    assert!(
        matches!(order[..], [Output::AddAddress, Output::Announce, Output::SendAdvertisement(OWN, _)]),
        "{order:?}"
    );
    assert_eq!(sent(&bench.run(300)), [100, 100, 100]);
}

#[test]
fn an_owner_waits_for_nobody() {
    let bench = Bench::new(config(255));
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn a_start_removes_what_an_earlier_process_left() {
    let mut router = Router::new(config(100), Time::ZERO);
    router.handle(Input::Start { resume: None }, Time::ZERO);
    assert_eq!(router.poll_output(), Some(Output::EndRelay));
    assert_eq!(router.poll_output(), Some(Output::RemoveAddress));
}

#[test]
fn a_backup_waits_with_the_intervals_of_the_master() {
    let mut bench = Bench::new(config(100));
    let slow = Advertisement { interval: INTERVAL * 10, ..advertisement(200) };
    let outputs = bench.tell(Input::Advertisement(HIGHER, &slow));
    assert!(matches!(&outputs[..], [Output::Log(why)] if why.contains("every 1000 ms")), "{outputs:?}");
    assert_eq!(bench.router.holder(), Some(HIGHER));
    assert!(states(&bench.run(3600)).is_empty());
    assert_eq!(states(&bench.run(20)), [State::Master]); // 3 s and 609 ms
    assert!(bench.router.reason().contains("stopped advertising for 3609 ms"), "{}", bench.router.reason());
}

#[test]
fn a_farewell_is_answered_after_the_skew() {
    let mut bench = Bench::new(config(100));
    bench.hear(HIGHER, 200);
    bench.run(10);
    bench.hear(HIGHER, 0);
    assert!(states(&bench.run(60)).is_empty());
    assert_eq!(states(&bench.run(1)), [State::Master]);
    assert_eq!(bench.router.reason(), "10.9.0.3 gave it up");
}

#[test]
fn the_death_of_the_master_is_answered_after_the_skew_unless_it_lives() {
    let mut bench = Bench::new(config(100));
    bench.hear(HIGHER, 200);
    bench.run(50);
    bench.tell(Input::MasterDied(LOWER)); // not the one that is followed
    bench.hear(HIGHER, 200);
    bench.tell(Input::MasterDied(HIGHER));
    bench.run(50);
    bench.hear(HIGHER, 200);
    assert_eq!(states(&bench.run(100)), [], "it was heard after its death");
    bench.hear(HIGHER, 200);
    bench.tell(Input::MasterDied(HIGHER));
    assert_eq!(states(&bench.run(60)), []);
    assert_eq!(states(&bench.run(1)), [State::Master]); // (256 - 100) x 100 ms / 256
    assert!(bench.router.reason().contains("died"), "{}", bench.router.reason());
}

#[test]
fn the_farewell_of_a_third_node_wakes_nobody() {
    let mut bench = Bench::new(config(100));
    bench.hear(LOWER, 150);
    bench.hear(HIGHER, 0);
    bench.run(90);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn what_a_farewell_has_overtaken_is_ignored() {
    let mut bench = Bench::new(config(100));
    bench.hear(HIGHER, 200);
    bench.hear(HIGHER, 0);
    bench.run(61);
    assert_eq!(bench.router.state(), State::Master);
    assert!(bench.hear(HIGHER, 200).is_empty(), "an old packet unseats the new master");
    bench.run(200);
    assert_eq!(states(&bench.hear(HIGHER, 200)), [State::Backup]);
}

#[test]
fn a_lower_master_is_displaced_only_with_preemption() {
    let mut eager = Bench::new(config(100));
    let mut patient = Bench::new(Config { preempt: false, ..config(100) });
    for _ in 0..10 {
        for bench in [&mut eager, &mut patient] {
            bench.hear(LOWER, 50);
            bench.run(50);
        }
    }
    assert_eq!((eager.router.state(), patient.router.state()), (State::Master, State::Backup));
    assert!(eager.router.reason().contains("100 is higher than 50 of 10.9.0.1"), "{}", eager.router.reason());
}

#[test]
fn of_two_masters_the_higher_priority_and_then_the_higher_address_stays() {
    for (source, priority, stays) in [
        (LOWER, 99, true),
        (HIGHER, 101, false),
        (LOWER, 100, true),
        (HIGHER, 100, false),
        (LOWER, 101, false),
    ] {
        let mut bench = Bench::master(config(100));
        let outputs = bench.hear(source, priority);
        assert_eq!(bench.router.state() == State::Master, stays, "{source} {priority}");
        assert_eq!(outputs.contains(&Output::RemoveAddress), !stays);
        assert_eq!(outputs.contains(&Output::Announce), stays, "a winner announces at once");
        assert_eq!(sent(&outputs), [100], "both speak: one insists, the other makes itself known");
    }
}

#[test]
fn a_loser_repeats_that_it_is_gone() {
    let mut bench = Bench::master(config(100));
    bench.hear(HIGHER, 200);
    bench.hear(HIGHER, 200);
    assert_eq!(sent(&bench.run(250)), [0, 0]);
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn a_hand_over_keeps_the_address_until_another_has_it() {
    let mut bench = Bench::master(config(100));
    let outputs = bench.tell(Input::HandOver);
    assert_eq!(sent(&outputs), [0]);
    assert!(!outputs.contains(&Output::RemoveAddress));
    assert_eq!(sent(&bench.run(250)), [0, 0]);
    bench.hear(HIGHER, 0); // a farewell takes nothing over
    assert_eq!(bench.router.state(), State::Master);
    let outputs = bench.hear(LOWER, 50);
    assert!(outputs.starts_with(&[Output::RemoveAddress]) && outputs.contains(&Output::HandedOver));
    assert_eq!(bench.router.reason(), "it was handed over to 10.9.0.1");
    bench.run(2000);
    assert_eq!(bench.router.state(), State::Fault, "it stays out until a plan brings it back");
    bench.tell(Input::Start { resume: None });
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn connections_of_before_a_hand_over_are_relayed_while_the_old_holder_drains() {
    let draining = |priority| Config { drain: Duration::from_secs(5), ..config(priority) };
    let mut old = Bench::master(draining(100));
    old.tell(Input::HandOver);
    let outputs = old.hear(LOWER, 50);
    assert!(outputs.starts_with(&[Output::LetGo, Output::RemoveAddress]), "{outputs:?}");
    assert!(!old.run(4990).contains(&Output::EndRelay));
    assert!(old.run(20).contains(&Output::EndRelay));

    let mut new = Bench::new(draining(50));
    new.hear(HIGHER, 100);
    new.hear(HIGHER, 0);
    let outputs = new.run(100);
    let position = |wanted: Output| outputs.iter().position(|output| *output == wanted).unwrap();
    assert!(position(Output::SendOnTo(HIGHER)) < position(Output::AddAddress));
    let outputs = new.clone().run(1000);
    assert!(
        outputs.contains(&Output::EndRelay),
        "the old holder does not repeat its farewell: it serves no more"
    );
    new.hear(HIGHER, 0);
    assert!(new.hear(HIGHER, 100).is_empty(), "overtaken");
    assert!(!new.run(4000).contains(&Output::EndRelay));
    assert!(new.clone().run(1001).contains(&Output::EndRelay), "drained");
    assert!(new.hear(HIGHER, 100).contains(&Output::EndRelay), "no longer the holder");
}

#[test]
fn a_hand_over_that_nobody_takes_ends() {
    let mut bench = Bench::master(config(100));
    bench.tell(Input::HandOver);
    assert!(bench.run(1299).iter().all(|o| *o != Output::HandedOver));
    let outputs = bench.run(2);
    assert!(outputs.contains(&Output::RemoveAddress) && outputs.contains(&Output::HandedOver));
}

#[test]
fn a_frontend_may_heal_for_as_long_as_the_grace() {
    let mut bench = Bench::master(config(100));
    bench.tell(Input::Tracked("frontend web", Health::Healing));
    assert!(states(&bench.run(59)).is_empty());
    bench.tell(Input::Tracked("frontend web", Health::Up));
    assert!(states(&bench.run(100)).is_empty());

    bench.tell(Input::Tracked("frontend web", Health::Healing));
    let outputs = bench.run(61);
    assert_eq!(states(&outputs), [State::Fault]);
    assert_eq!(sent(&outputs).last(), Some(&0));
    assert!(outputs.contains(&Output::RemoveAddress));
    assert_eq!(sent(&bench.run(250)), [0, 0], "a lost farewell must not cost a time-out");
}

#[test]
fn a_frontend_that_never_came_up_is_not_waited_for() {
    let mut bench = Bench { router: Router::new(config(100), Time::ZERO), ms: 0 };
    bench.tell(Input::Link(Link::Up(OWN)));
    bench.tell(Input::Start { resume: None });
    bench.tell(Input::Tracked("frontend web", Health::Healing));
    bench.run(1000);
    assert_eq!(
        (bench.router.state(), bench.router.reason()),
        (State::Fault, "frontend web has not come up yet")
    );
}

#[test]
fn a_carrier_lost_takes_the_address_along_and_its_return_is_told() {
    let mut bench = Bench::master(config(100));
    let outputs = bench.tell(Input::Link(Link::Down));
    assert!(outputs.contains(&Output::RemoveAddress) && sent(&outputs).is_empty());
    bench.run(1000);
    let outputs = bench.tell(Input::Link(Link::Up(OWN)));
    assert_eq!(sent(&outputs), [0], "whoever holds it by now announces it again");
    assert!(states(&bench.run(300)).is_empty(), "it was deaf, and listens first");
    assert_eq!(states(&bench.run(100)), [State::Master]);
}

#[test]
fn a_successor_resumes_within_two_intervals_and_not_after() {
    for (ago, resumes) in [(0, true), (199, true), (201, false), (u64::MAX, false)] {
        let mut bench = Bench { router: Router::new(config(100), Time::ZERO), ms: 0 };
        bench.tell(Input::Link(Link::Up(OWN)));
        let mut outputs = bench.tell(Input::Start { resume: Some(Duration::from_millis(ago)) });
        outputs.extend(bench.tell(Input::Tracked("frontend web", Health::Up)));
        assert_eq!(bench.router.state() == State::Master, resumes, "{ago}");
        assert_eq!(outputs.contains(&Output::RemoveAddress), !resumes, "{ago}");
    }
}

#[test]
fn a_resumption_whose_frontend_is_late_is_given_up() {
    let mut bench = Bench { router: Router::new(config(100), Time::ZERO), ms: 0 };
    bench.tell(Input::Link(Link::Up(OWN)));
    bench.tell(Input::Start { resume: Some(Duration::ZERO) });
    assert!(!bench.run(199).contains(&Output::RemoveAddress));
    assert!(bench.run(2).contains(&Output::RemoveAddress));
    bench.tell(Input::Tracked("frontend web", Health::Up));
    assert_eq!(bench.router.state(), State::Backup);
}

#[test]
fn a_master_that_slept_for_a_time_out_lets_go_and_listens() {
    let mut bench = Bench::master(config(100));
    let outputs = bench.sleep(450);
    assert!(outputs.starts_with(&[Output::RemoveAddress]) && sent(&outputs).is_empty(), "{outputs:?}");
    assert_eq!(bench.router.state(), State::Backup);
    bench.run(400);
    assert_eq!(bench.router.state(), State::Master);
}

#[test]
fn a_backup_that_slept_for_a_time_out_listens_once_more() {
    let mut bench = Bench::new(config(100));
    bench.hear(HIGHER, 200);
    let outputs = bench.sleep(360 + 310);
    assert!(matches!(&outputs[..], [Output::Log(_)]), "{outputs:?}");
    assert!(states(&bench.run(350)).is_empty());
    assert_eq!(states(&bench.run(20)), [State::Master]);
}

#[test]
fn an_address_that_somebody_removes_is_put_back() {
    let mut bench = Bench::master(config(100));
    let outputs = bench.tell(Input::AddressVanished);
    assert!(outputs.ends_with(&[Output::AddAddress, Output::Announce]), "{outputs:?}");
}

#[test]
fn an_address_that_the_kernel_refuses_is_left_to_others_for_a_second() {
    let mut bench = Bench::master(config(100));
    let outputs = bench.tell(Input::AddressRefused("no"));
    assert_eq!((states(&outputs), sent(&outputs)), (vec![State::Fault], vec![0]));
    assert!(states(&bench.run(990)).is_empty());
    assert_eq!(states(&bench.run(400)), [State::Backup, State::Master]);
}

#[test]
fn a_new_plan_changes_a_master_without_a_change_of_state() {
    let mut bench = Bench::master(config(100));
    let outputs = bench.tell(Input::Reconfigure(Config { interval: INTERVAL * 2, ..config(120) }));
    assert!(outputs.is_empty());
    assert_eq!(sent(&bench.run(0)), [120], "the others hear of the new interval at once");
    assert!(states(&bench.run(3000)).is_empty());
}

#[test]
fn another_address_under_the_same_vrid_is_said_once_and_accepted() {
    let mut bench = Bench::new(config(100));
    let other = Advertisement { addresses: vec![LOWER], ..advertisement(200) };
    let first = bench.tell(Input::Advertisement(HIGHER, &other));
    assert!(matches!(&first[..], [Output::Log(why)] if why.contains("the same file")), "{first:?}");
    assert!(bench.tell(Input::Advertisement(HIGHER, &other)).is_empty());
    assert_eq!(bench.router.holder(), Some(HIGHER));
}

#[test]
#[should_panic(expected = "master, but mute")]
fn a_master_that_would_be_mute_is_seen() {
    let mut bench = Bench::master(config(100));
    if let Phase::Master { advertise_at, .. } = &mut bench.router.phase {
        *advertise_at += INTERVAL * 2;
    }
    bench.router.check_invariants();
}

#[test]
#[should_panic(expected = "master with an obstacle")]
fn a_master_without_a_link_is_seen() {
    let mut bench = Bench::master(config(100));
    bench.router.link = Link::Down;
    bench.router.check_invariants();
}

#[test]
#[should_panic(expected = "too long for a dead master")]
fn a_backup_that_would_wait_for_ever_is_seen() {
    let mut bench = Bench::new(config(100));
    if let Phase::Backup { down_at, .. } = &mut bench.router.phase {
        *down_at = Time::MAX;
    }
    bench.router.check_invariants();
}

#[test]
fn a_node_that_comes_back_waits_before_it_preempts() {
    let mut bench = Bench::new(Config { preempt_delay: INTERVAL * 30, ..config(100) });
    let beat = |bench: &mut Bench, times: u32| {
        let each = |_| {
            let mut outputs = bench.hear(LOWER, 50);
            outputs.extend(bench.run(100));
            states(&outputs)
        };
        (0..times).flat_map(each).collect::<Vec<_>>()
    };
    assert_eq!(beat(&mut bench, 29), [], "it is not long enough back");
    assert_eq!(beat(&mut bench, 6), [State::Master]);
    // A master that dies meanwhile is not waited for.
    let mut bench = Bench::new(Config { preempt_delay: INTERVAL * 30, ..config(100) });
    bench.hear(LOWER, 50);
    assert_eq!(states(&bench.run(362)), [State::Master]);
}

fn weighed(what: &str, weight: i16) -> Config {
    Config { track: vec![Track { what: what.into(), weight }], ..config(100) }
}

#[test]
fn what_is_tracked_with_a_weight_moves_the_priority_and_leaves_the_address() {
    for (weight, down, up) in [(20, 100, 120), (-20, 80, 100), (253, 100, 254), (-253, 1, 100)] {
        let mut bench = Bench::master(weighed("link eth1", weight));
        assert_eq!(bench.router.priority(), down, "what was not heard of is down");
        let outputs = bench.tell(Input::Tracked("link eth1", Health::Up));
        assert_eq!((bench.router.priority(), states(&outputs)), (up, vec![]));
        assert_eq!(sent(&bench.run(0)), [up], "the others hear of it at once");
        bench.tell(Input::Tracked("link eth1", Health::Down));
        assert_eq!((bench.router.priority(), bench.router.state()), (down, State::Master));
    }
}

#[test]
fn what_is_measured_moves_the_priority_by_so_much() {
    let mut bench = Bench::master(weighed("file /x", 1));
    for (change, priority) in [(5, 105), (-30, 70), (i32::MAX, 254), (i32::MIN, 1), (0, 100)] {
        bench.tell(Input::Measured("file /x", change));
        assert_eq!(bench.router.priority(), priority);
    }
    // An owner's priority is no choice.
    let mut bench = Bench::master(Config { priority: 255, ..weighed("file /x", -20) });
    bench.tell(Input::Measured("file /x", -30));
    assert_eq!(bench.router.priority(), 255);
}

#[test]
fn a_priority_that_flaps_does_not_hide_a_dead_master() {
    let mut bench = Bench::new(weighed("link eth1", -20));
    bench.hear(HIGHER, 200);
    let mut outputs = Vec::new();
    for i in 0..40 {
        let health = if i % 2 == 0 { Health::Up } else { Health::Down };
        outputs.extend(bench.tell(Input::Tracked("link eth1", health)));
        outputs.extend(bench.run(10));
    }
    assert_eq!(states(&outputs), [State::Master]);
}

#[test]
fn each_check_of_admission_refuses() {
    let group = config(100);
    let packet = |source, destination| {
        crate::parse(&crate::encode(source, destination, &Form::V3, &advertisement(100))).unwrap()
    };
    let ordinary = packet(LOWER, crate::GROUP.into());
    assert_eq!(group.admits(&ordinary), Ok(()));
    assert_eq!(group.admits(&packet(LOWER, OWN)), Err(Refused::Destination));
    let far = crate::Packet { hop_limit: 254, ..ordinary.clone() };
    assert_eq!(group.admits(&far), Err(Refused::HopLimit(254)));
    let old = crate::Packet { version: Version::V2, ..ordinary.clone() };
    assert_eq!(group.admits(&old), Err(Refused::OtherVersion(Version::V2)));

    let unicast = Config { peers: vec![LOWER], least_hop_limit: 250, ..config(100) };
    assert_eq!(unicast.admits(&ordinary), Err(Refused::Destination));
    assert_eq!(unicast.admits(&packet(LOWER, OWN)), Ok(()));
    assert_eq!(unicast.admits(&packet(HIGHER, OWN)), Err(Refused::Stranger));
    let near = |hop_limit| crate::Packet { hop_limit, ..packet(LOWER, OWN) };
    assert_eq!(
        (unicast.admits(&near(250)), unicast.admits(&near(249))),
        (Ok(()), Err(Refused::HopLimit(249)))
    );

    let plain = |text| Authentication::PlainText(Password::new(text));
    let form = Form { version: Version::V2, authentication: plain("secret"), ..Form::V3 };
    let sealed = Form { authentication: Authentication::Header, ..form };
    let secret = Config { form, ..config(100) };
    for (authentication, result) in [
        (plain("secret"), Ok(())),
        (plain("other"), Err(Refused::Password)),
        (Authentication::None, Err(Refused::Password)),
        (Authentication::Header, Err(Refused::Method)),
    ] {
        let packet = crate::Packet { authentication, ..old.clone() };
        assert_eq!(secret.admits(&packet), result);
    }
    let open = Config { form: Form { authentication: Authentication::None, ..form }, ..config(100) };
    let packet = crate::Packet { authentication: form.authentication, ..old };
    assert_eq!(open.admits(&packet), Err(Refused::Password));
    let sealed = Config { form: sealed, ..config(100) };
    assert_eq!(sealed.admits(&packet), Err(Refused::Method));
}

// ---- witnesses ----------------------------------------------------------------------------------------

/// Word of another holder, so many milliseconds old.
fn witnessed(bench: &mut Bench, age_ms: u64, outranks: bool) -> Vec<Output> {
    let at = Time::from_millis(bench.ms - age_ms);
    bench.tell(Input::Witnessed { at, outranks })
}

#[test]
fn a_silent_master_that_others_hear_is_let_be_and_that_is_said_once() {
    let mut bench = Bench::new(config(100));
    bench.hear(HIGHER, 200);
    let mut all = Vec::new();
    for _ in 0..30 {
        all.extend(bench.run(100));
        all.extend(witnessed(&mut bench, 90, true));
    }
    assert_eq!(states(&all), []);
    assert_eq!(all.iter().filter(|o| matches!(o, Output::Log(_))).count(), 1, "{all:?}");
    // Once nobody hears it any more, it is dead.
    assert_eq!(states(&bench.run(400)), [State::Master]);
}

#[test]
fn a_node_that_starts_lets_a_master_be_that_only_others_hear() {
    let mut bench = Bench::new(config(100));
    for _ in 0..10 {
        assert_eq!(states(&witnessed(&mut bench, 0, true)), []);
        assert_eq!(states(&bench.run(100)), []);
    }
}

#[test]
fn witnesses_cost_no_time_where_the_master_is_dead_or_gives_up() {
    let fresh = || {
        let mut bench = Bench::new(config(1));
        bench.hear(HIGHER, 200);
        witnessed(&mut bench, 0, true);
        bench
    };
    let mut bench = fresh(); // its last word was heard here and there: silence, and the skew
    assert_eq!(states(&bench.run(398)), []);
    assert_eq!(states(&bench.run(2)), [State::Master]);
    let mut bench = fresh();
    bench.hear(HIGHER, 0);
    assert_eq!(states(&bench.run(100)), [State::Master]);
    let mut bench = fresh();
    bench.tell(Input::MasterDied(HIGHER));
    assert_eq!(states(&bench.run(100)), [State::Master]);
}

#[test]
fn word_of_a_master_that_is_heard_does_not_keep_a_better_one_from_preempting() {
    let mut bench = Bench::new(config(200));
    for _ in 0..3 {
        bench.hear(LOWER, 100);
        witnessed(&mut bench, 0, false);
        bench.run(100);
    }
    bench.hear(LOWER, 100);
    assert_eq!(states(&bench.run(200)), [State::Master]);
}

#[test]
fn of_two_masters_that_do_not_hear_each_other_the_lesser_yields() {
    let mut bench = Bench::master(config(100));
    assert_eq!(states(&witnessed(&mut bench, 0, false)), []);
    assert_eq!(states(&witnessed(&mut bench, 0, true)), [State::Backup]);
    // One that has just taken it does not, for the other may be on its way out.
    let mut bench = Bench::new(config(100));
    bench.hear(HIGHER, 200);
    bench.hear(HIGHER, 0);
    assert_eq!(states(&bench.run(100)), [State::Master]);
    assert_eq!(states(&witnessed(&mut bench, 0, true)), []);
}

#[test]
fn who_hands_over_lets_go_when_others_hear_that_it_was_taken() {
    let mut bench = Bench::master(config(100));
    bench.run(500);
    bench.tell(Input::HandOver);
    assert_eq!(states(&bench.run(50)), []);
    assert_eq!(states(&witnessed(&mut bench, 60, true)), [], "that was before");
    let outputs = witnessed(&mut bench, 10, false);
    assert_eq!(states(&outputs), [State::Fault]);
    assert!(outputs.contains(&Output::RemoveAddress) && outputs.contains(&Output::HandedOver), "{outputs:?}");
    assert!(bench.router.reason().contains("others hear"), "{}", bench.router.reason());
    // A move: it goes on listening, and does not take it back from one that is lesser.
    let mut bench = Bench::master(config(100));
    bench.run(500);
    bench.tell(Input::MoveAway);
    bench.run(50);
    let outputs = witnessed(&mut bench, 10, false);
    assert_eq!(states(&outputs), [State::Backup]);
    assert!(outputs.contains(&Output::Moved(Some(crate::Moved::Away))), "{outputs:?}");
}

#[test]
fn a_node_that_is_cut_off_gives_the_address_up_and_may_have_it_again() {
    let mut bench = Bench::master(config(100));
    let outputs = bench.tell(Input::CutOff(Some("this node is cut off")));
    assert_eq!(states(&outputs), [State::Fault]);
    assert!(outputs.contains(&Output::RemoveAddress) && bench.router.reason() == "this node is cut off");
    assert_eq!(states(&bench.run(10_000)), []);
    assert_eq!(states(&bench.tell(Input::CutOff(None))), [State::Backup]);
    assert_eq!(states(&bench.run(1000)), [State::Master]);
}
