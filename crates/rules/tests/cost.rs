//! What a request pays for 10,000 rules or list entries, counted by valgrind: no allocation at all, and hardly more
//! instructions than for ten. `examples/cost.rs` has the times.

#![allow(clippy::unwrap_used, missing_docs)]

use std::io::Write;
use std::process::Command;

use relais_rules::{Condition, Facts, Key, Pattern, Program, Rule, Scratch, What};

/// So many rules or entries of every kind, and half of the requests meet some of them.
fn program(n: usize) -> Program {
    let glob = |text: String| Pattern::Glob(text);
    let net = |i: usize| Pattern::Net(core::net::IpAddr::V4((0x0a00_0000 + (i as u32) * 256).into()), 24);
    let one = |what: &What, pattern| Condition { negated: false, what: what.clone(), any: vec![pattern] };
    let mut rules = Vec::new();
    for i in 0..n / 4 {
        for (what, pattern) in [
            (What::Host, glob(format!("*.host{i}.example"))),
            (What::Path, glob(format!("/app{i}/**"))),
            (What::Header("user-agent".into()), glob(format!("bot{i}/*"))),
            (What::Src, net(i)),
        ] {
            rules.push(Rule { conditions: vec![one(&what, pattern)], ..Rule::default() });
        }
    }
    let list = (0..n).map(|i| glob(format!("/list{i}/*.html"))).collect();
    let key = Key { parts: vec![What::Src], prefix4: 24, prefix6: 64 };
    rules.push(Rule {
        conditions: vec![Condition { negated: false, what: What::Path, any: list }],
        asked: vec![key],
        last: true,
    });
    Program::new(&rules).unwrap()
}

/// What runs under valgrind: so many requests to so many rules.
#[test]
#[ignore = "runs under valgrind, started by the tests below"]
fn worker() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<usize>().unwrap();
    let (rules, requests) = (number("RELAIS_RULES"), number("RELAIS_REQUESTS"));
    let program = program(rules);
    let mut scratch = Scratch::default();
    let mut hits = 0;
    let targets: Vec<(String, String)> = (0..16)
        .map(|i| (format!("www.host{i}.example"), format!("/app{}/%61;x/../list?x=1", i % 3)))
        .collect();
    for i in 0..requests {
        let (host, target) = &targets[i % targets.len()];
        let facts = Facts {
            src: core::net::IpAddr::V4((0x0a00_0000 + ((i as u32 * 7) % 16) * 256).into()),
            method: b"GET",
            host: Some(host.as_bytes()),
            target: if i % 2 == 0 { target.as_bytes() } else { b"/list1/index.html" },
            fields: b"Host: x\r\nUser-Agent: bot1/2.0\r\nAccept: */*\r\n",
            ..Facts::default()
        };
        program.evaluate_asking(&facts, &mut scratch, &mut |_, _, key| key.len() == 4).unwrap();
        hits += scratch.hits().len();
    }
    assert!(hits >= requests);
}

/// What runs under valgrind: so many sources that are looked for among so many networks of every length.
#[test]
#[ignore = "runs under valgrind, started by the tests below"]
fn sources() {
    let number = |name: &str| std::env::var(name).unwrap().parse::<u32>().unwrap();
    let (networks, requests) = (number("RELAIS_RULES"), number("RELAIS_REQUESTS"));
    let address = |i: u32| core::net::IpAddr::V4(i.wrapping_mul(0x9e37_79b9).into());
    let any = (0..networks).map(|i| Pattern::Net(address(i), 12 + (i % 21) as u8)).collect();
    let condition = Condition { negated: false, what: What::Src, any };
    let rule = Rule { conditions: vec![condition], last: true, ..Rule::default() };
    let program = Program::new(&[rule]).unwrap();
    let mut scratch = Scratch::default();
    let mut hits = 0;
    for i in 0..requests {
        // Every other one is in the list, behind most lengths; the rest have to be looked for in all.
        let src = address(if i % 2 == 0 { i % networks } else { u32::MAX - i });
        program.evaluate(&Facts { src, ..Facts::default() }, &mut scratch).unwrap();
        hits += scratch.hits().len();
    }
    assert!(hits * 2 >= requests as usize);
}

/// What valgrind counts: allocations, or instructions.
fn counted(tool: &str, line: &str, rules: usize, requests: usize) -> Option<u64> {
    counted_of("worker", tool, line, rules, requests)
}

fn counted_of(what: &str, tool: &str, line: &str, rules: usize, requests: usize) -> Option<u64> {
    let run = Command::new("valgrind")
        .args(
            [tool, "--cachegrind-out-file=/dev/null"]
                .iter()
                .filter(|a| tool.contains("cachegrind") || !a.contains("out-file")),
        )
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", what, "--ignored", "--test-threads=1"])
        .env("RELAIS_RULES", rules.to_string())
        .env("RELAIS_REQUESTS", requests.to_string())
        .output();
    let Ok(output) = run else {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "valgrind is not installed, and CI must not skip"
        );
        let _ = writeln!(std::io::stderr(), "SKIPPED: valgrind is not installed");
        return None;
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    let found = said.lines().find_map(|text| text.split_once(line)).unwrap_or_else(|| panic!("{said}"));
    let number: String =
        found.1.trim().chars().take_while(|c| *c != ' ').filter(char::is_ascii_digit).collect();
    Some(number.parse().unwrap())
}

#[test]
fn a_request_allocates_nothing_however_many_rules_there_are() {
    let allocations = |requests| counted("--tool=memcheck", "total heap usage:", 2_000, requests);
    let (Some(few), Some(many)) = (allocations(100), allocations(1_100)) else { return };
    // The test's own frame allocates the same in either run, give or take what its threads do.
    assert!(many.abs_diff(few) < 10, "1000 requests made {} allocations", many as i64 - few as i64);
}

#[test]
fn ten_thousand_rules_cost_a_request_hardly_more_than_ten() {
    let instructions = |rules, requests| counted("--tool=cachegrind", "refs:", rules, requests);
    let a_request =
        |rules| Some(instructions(rules, 3_000)?.checked_sub(instructions(rules, 1_000)?)? / 2_000);
    let (Some(ten), Some(many)) = (a_request(12), a_request(10_000)) else { return };
    assert!(many < 2 * ten, "{many} instructions with 10,000 rules, {ten} with ten");
}

#[test]
fn a_source_is_found_among_ten_thousand_networks_in_less_than_a_microsecond() {
    // Their number is of no matter, only that of their lengths: 100,000 cost as much, and take valgrind a minute to file.
    let instructions = |requests| counted_of("sources", "--tool=cachegrind", "refs:", 10_000, requests);
    let (Some(many), Some(few)) = (instructions(21_000), instructions(1_000)) else { return };
    let each = many.saturating_sub(few) / 20_000;
    // Of a build without optimisation, which takes some ten times as many as one with: 1 microsecond has 3,000.
    assert!(each < 30_000, "{each} instructions");
}
