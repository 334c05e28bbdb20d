//! The drills, end to end, against the budgets: what a client sees when a part of the platform dies. The lab is
//! the thesis's network in namespaces with this very binary on both balancers, so this needs root; every other
//! moment of the machine's time should be the lab's. `RELAIS_DRILL_TIMES` says how often (3).

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::time::Duration;

use relais_lab::application::Application;
use relais_lab::balancer::Stack;
use relais_lab::commands::{self, DrillOptions, StormOptions};
use relais_lab::drill::{DOWNLOAD, Drill};
use relais_lab::netns::Netns;
use relais_lab::platform::{Lab, Settings};
use relais_lab::storm::{self, Fault, What};
use serde_json::Value;

/// Whether this can run; without root it says that it does not, and in CI that is a failure.
fn can_run(test: &str) -> bool {
    // Root of the machine: root of a user namespace may make network namespaces but not name them.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let root = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]) && Netns::create().is_ok();
    if !root {
        eprintln!("SKIPPED: {test} needs root for network namespaces");
        assert!(std::env::var_os("CI").is_none(), "CI must run {test}: it needs root");
    }
    root
}

fn times() -> u32 {
    std::env::var("RELAIS_DRILL_TIMES").ok().and_then(|times| times.parse().ok()).unwrap_or(3)
}

/// A lab of its own for each test, with this build's binary.
fn settings(test: &str) -> Settings {
    Settings {
        id: format!("{test}-{}", std::process::id()),
        relais: env!("CARGO_BIN_EXE_relais").into(),
        ..Settings::new()
    }
}

/// Runs a drill: its runs, and its last line.
fn drill(drill: Drill, times: u32, settings: Settings) -> (Vec<Value>, Value) {
    let mut out = Vec::new();
    let options = DrillOptions { drill, times, download: DOWNLOAD, json: true, silent: false, settings };
    let done = commands::drill(&options, &mut out);
    let text = String::from_utf8(out).unwrap();
    println!("{text}");
    done.unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let total = lines.pop().unwrap();
    assert_eq!(lines.len(), times as usize);
    assert_eq!(total["name"], drill.name());
    assert_eq!(total["runs"], times);
    assert!(total["requests"].as_u64().unwrap() > 1000 * u64::from(times), "{total}");
    assert!(lines.iter().all(|run| run["recovered"] == true || !options.settings.failover), "{lines:?}");
    (lines, total)
}

fn ms(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number of milliseconds"))
}

/// The broken machine had lost the address within three seconds, and another one has it.
fn assert_moved(runs: &[Value]) {
    for run in runs {
        assert!(ms(&run["lost_after_ms"]) <= 3000.0, "{run}");
        assert_eq!(run["two_holders_after_3s"], false, "{run}");
        assert_eq!(run["holders_after"].as_array().unwrap().len(), 1, "{run}");
        assert_ne!(run["holders_after"][0], run["holder_before"], "{run}");
    }
}

#[test]
fn the_death_of_the_balancing_machine_costs_300_ms_at_most() {
    if !can_run("the_death_of_the_balancing_machine_costs_300_ms_at_most") {
        return;
    }
    let (runs, total) = drill(Drill::BalancerMachine, times(), settings("machine"));
    assert!(ms(&total["longest_outage_ms"]) <= 300.0, "{total}");
    assert_moved(&runs);
}

#[test]
fn the_death_of_the_worker_costs_100_ms_at_most() {
    if !can_run("the_death_of_the_worker_costs_100_ms_at_most") {
        return;
    }
    let (_, total) = drill(Drill::BalancerProcess, times(), settings("worker"));
    assert!(ms(&total["longest_outage_ms"]) <= 100.0, "{total}");
}

#[test]
fn the_death_of_all_of_relais_costs_250_ms_at_most_and_the_address_leaves_the_dead() {
    if !can_run("the_death_of_all_of_relais_costs_250_ms_at_most_and_the_address_leaves_the_dead") {
        return;
    }
    let (runs, total) = drill(Drill::BalancerAll, times(), settings("all"));
    assert!(ms(&total["longest_outage_ms"]) <= 250.0, "{total}");
    assert_moved(&runs);
    // The dead one still has the address, for seconds; but it is mute before the other answers.
    assert!(runs.iter().all(|run| ms(&run["holders_ms"]["both"]) > 0.0), "{runs:?}");
    assert!(runs.iter().all(|run| ms(&run["two_answered_ms"]) == 0.0), "{runs:?}");
}

/// "One process" is every one of the four; the worker's death is the test above.
#[test]
fn the_death_of_any_one_process_leaves_neither_both_nor_none_with_the_address_for_long() {
    if !can_run("the_death_of_any_one_process_leaves_neither_both_nor_none_with_the_address_for_long") {
        return;
    }
    for (what, moves) in
        [(Drill::BalancerVip, false), (Drill::BalancerControl, false), (Drill::BalancerSupervisor, true)]
    {
        let (runs, total) = drill(what, times(), settings("one"));
        assert!(ms(&total["longest_outage_ms"]) <= 250.0, "{total}");
        for run in &runs {
            let held = &run["holders_ms"];
            assert!(ms(&held["both"]) <= 250.0 && ms(&held["neither"]) <= 250.0, "{run}");
            assert_eq!(run["holders_after"].as_array().unwrap().len(), 1, "{run}");
            assert_eq!(run["holders_after"][0] != run["holder_before"], moves, "{run}");
        }
        if what == Drill::BalancerControl {
            assert_eq!(total["failed"], 0, "{total}");
        }
    }
}

#[test]
fn a_planned_stop_fails_no_request() {
    if !can_run("a_planned_stop_fails_no_request") {
        return;
    }
    let (runs, total) = drill(Drill::BalancerStop, times(), settings("stop"));
    assert_eq!(total["failed"], 0, "{runs:?}");
    assert_moved(&runs);
}

#[test]
fn a_standby_and_a_preemptive_return_fail_no_request_and_break_no_download() {
    if !can_run("a_standby_and_a_preemptive_return_fail_no_request_and_break_no_download") {
        return;
    }
    for what in [Drill::BalancerStandby, Drill::BalancerReturn] {
        let settings = Settings {
            preempt: what == Drill::BalancerReturn,
            application: Application::Embedded,
            ..settings("moves")
        };
        let (runs, total) = drill(what, 1, settings);
        assert_eq!(total["failed"], 0, "{runs:?}");
        assert_moved(&runs);
        assert!(runs.iter().all(|run| run["repair_failed"] == 0 && run["download"] == "whole"), "{runs:?}");
    }
}

#[test]
fn a_reload_fails_no_request_and_moves_nothing() {
    if !can_run("a_reload_fails_no_request_and_moves_nothing") {
        return;
    }
    let (runs, total) = drill(Drill::BalancerReload, times(), settings("reload"));
    assert_eq!(total["failed"], 0, "{runs:?}");
    assert!(runs.iter().all(|run| run["holders_after"][0] == run["holder_before"]), "{runs:?}");
}

#[test]
fn the_death_of_an_application_instance_fails_no_get() {
    if !can_run("the_death_of_an_application_instance_fails_no_get") {
        return;
    }
    let (runs, total) = drill(Drill::AppProcess, times(), settings("app"));
    assert_eq!(total["failed"], 0, "{runs:?}");
}

#[test]
fn the_death_of_an_application_machine_is_no_outage_for_new_clients() {
    if !can_run("the_death_of_an_application_machine_is_no_outage_for_new_clients") {
        return;
    }
    let (_, total) = drill(Drill::AppMachine, times(), settings("appmachine"));
    assert!(ms(&total["longest_outage_ms"]) <= 200.0, "half of the servers are well: {total}");
}

/// A drill that cannot see an outage proves nothing by seeing none.
#[test]
fn with_failover_off_every_drill_sees_an_outage() {
    if !can_run("with_failover_off_every_drill_sees_an_outage") {
        return;
    }
    // The death of control is felt by nobody, with failover or without.
    for what in Drill::ALL.into_iter().filter(|what| *what != Drill::BalancerControl) {
        let settings = Settings { failover: false, application: Application::Embedded, ..settings("off") };
        let (runs, total) = drill(what, 1, settings);
        assert!(total["failed"].as_u64().unwrap() > 0, "{total}");
        if !matches!(what, Drill::BalancerReload | Drill::BalancerReturn) {
            assert_eq!(runs[0]["recovered"], false);
            assert!(ms(&total["longest_outage_ms"]) > 4000.0, "{total}");
        }
    }
}

/// What no drill of one fault finds: two at a time, at any moment. `relais drill random --times 1000` is the long one.
#[test]
fn random_faults_leave_no_two_machines_answering_and_the_address_never_away() {
    let test = "random_faults_leave_no_two_machines_answering_and_the_address_never_away";
    if !can_run(test) {
        return;
    }
    let settings = Settings { application: Application::Embedded, witness: true, ..settings("random") };
    let mut out = Vec::new();
    let options = StormOptions { times: 3 * times(), seed: Some(1), json: true, cuts: false, settings };
    let done = commands::storm(&options, &mut out);
    println!("{}", String::from_utf8(out).unwrap());
    done.unwrap();
}

/// The promise of the drill above can be seen broken: two nodes kept apart, and nobody who hears both.
#[test]
fn two_balancers_kept_apart_both_answer_without_a_witness_and_only_then() {
    if !can_run("two_balancers_kept_apart_both_answer_without_a_witness_and_only_then") {
        return;
    }
    let apart = Fault { at: Duration::from_millis(50), until: Duration::from_secs(1), what: What::Apart };
    for witness in [true, false] {
        let settings = Settings { application: Application::Embedded, witness, ..settings("apart") };
        let id = settings.id.clone();
        let mut lab = Lab::up(settings, &mut |_| ()).unwrap();
        let gust = storm::blow(&mut lab, 0, &[apart], false);
        let healed = storm::blow(&mut lab, 1, &storm::cut(1), true);
        Lab::down(&id).unwrap();
        let (gust, healed) = (gust.unwrap(), healed.unwrap());
        assert_eq!(gust.broken.is_empty(), witness, "{gust:?}");
        // Where there were two, there is one again within a second of the end; else there was nothing to heal.
        assert_eq!(healed.broken.is_empty(), !witness, "{healed:?}");
    }
}

/// The peer is the oracle of the drill itself: its outages are known (three advertisements and the skew for a
/// lost machine), whatever Relais does.
#[test]
fn the_drill_sees_what_haproxy_and_keepalived_are_known_to_do() {
    let test = "the_drill_sees_what_haproxy_and_keepalived_are_known_to_do";
    let has = |program: &str| Path::new("/usr/sbin").join(program).exists();
    if !can_run(test) {
        return;
    }
    if !has("haproxy") || !has("keepalived") {
        eprintln!("SKIPPED: {test} needs haproxy and keepalived");
        assert!(std::env::var_os("CI").is_none(), "CI must run {test}");
        return;
    }
    let peer = |application, failover| {
        let id = format!("peer-{}", std::process::id());
        Settings { stack: Stack::Peer, application, failover, id, ..settings("peer") }
    };
    let (runs, total) = drill(Drill::BalancerMachine, 2, peer(Application::installed(), true));
    let outage = ms(&total["longest_outage_ms"]);
    assert!(
        (90.0..=400.0).contains(&outage),
        "3 x 50 ms and the skew, less the moment of the break: {total}"
    );
    assert_moved(&runs);
    assert!(runs.iter().all(|run| ms(&run["holders_ms"]["neither"]) >= 90.0), "{runs:?}");

    let (runs, total) = drill(Drill::BalancerMachine, 1, peer(Application::Embedded, false));
    assert_eq!(runs[0]["recovered"], false);
    assert!(ms(&total["longest_outage_ms"]) > 4000.0, "{total}");
}
