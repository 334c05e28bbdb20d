//! What a request pays for a stick table, a rate rule and leastconn, counted by valgrind in instructions of user space, so the same on a
//! busy machine. `bench/run.py --guards` has the time, with the kernel's part, and HAProxy beside.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::Command;

use common::*;

/// A thousand instructions take a fifth of a microsecond to half of one, and 1.5 microseconds is the budget.
const MOST: u64 = if cfg!(debug_assertions) { 12_000 } else { 3_500 };

/// What runs under valgrind: so many requests, one after the other on one connection.
#[test]
#[ignore = "runs under valgrind, started by the test below"]
fn worker() {
    let setting = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let (requests, guarded) = (setting("RELAIS_REQUESTS"), setting("RELAIS_GUARDED") == 1);
    let origins = [(); 4].map(|()| Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let addresses = origins.each_ref().map(|origin| origin.address);
    let door = Door::new(1);
    let (front, back) = match guarded {
        false => ("forwarded-for", ""),
        true => (
            "forwarded-for\nrule \"nobody asks that often\" { match rate key=src over=1000000 per=\"10s\"; deny 429; }",
            "balance leastconn\nstick src size=100000 expire=\"30m\"",
        ),
    };
    let _proxy = Proxy::start(&plan(&door, front, back, &addresses), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..requests {
        client.send(get("/"));
        assert_eq!(client.message().1, "ok");
    }
}

/// The instructions of so many requests, of clients and servers too.
fn counted(guarded: bool, requests: usize) -> u64 {
    let output = Command::new("valgrind")
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "worker", "--ignored", "--test-threads=1"])
        .env("RELAIS_GUARDED", u8::from(guarded).to_string())
        .env("RELAIS_REQUESTS", requests.to_string())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let found =
        said.lines().find_map(|line| line.split_once("I   refs:")).unwrap_or_else(|| panic!("{said}"));
    found.1.replace(',', "").trim().parse().unwrap()
}

#[test]
fn a_stick_table_a_rate_rule_and_leastconn_cost_little() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "valgrind is not installed, and CI must not skip");
        eprintln!("SKIPPED: valgrind is not installed");
        return;
    }
    // Start and end cost the same, so the difference is the requests' alone.
    const FEW: usize = 200;
    const MANY: usize = 1_200;
    let [plain, guarded] =
        [false, true].map(|guarded| (counted(guarded, MANY) - counted(guarded, FEW)) / (MANY - FEW) as u64);
    println!("instructions a request: {plain}; with stick, rate and leastconn {guarded}");
    assert!(guarded < plain + MOST, "{plain} {guarded}");
}
