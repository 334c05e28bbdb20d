//! What a request pays for 10,000 rules or list entries: `cargo run --release -p relais-rules --example cost`.

#![allow(clippy::unwrap_used, clippy::print_stdout)]

use std::hint::black_box;

use relais_rules::{Condition, Facts, Pattern, Program, Rule, Scratch, What};

const RULES: usize = 10_000;
const ROUNDS: usize = 1_000_000;

fn each(what: What, pattern: impl Fn(usize) -> Pattern) -> Vec<Rule> {
    let one = |i| Condition { negated: false, what: what.clone(), any: vec![pattern(i)] };
    (0..RULES).map(|i| Rule { conditions: vec![one(i)], last: true, ..Rule::default() }).collect()
}

fn list(what: What, pattern: impl Fn(usize) -> Pattern) -> Vec<Rule> {
    let condition = Condition { negated: false, what, any: (0..RULES).map(pattern).collect() };
    vec![Rule { conditions: vec![condition], last: true, ..Rule::default() }]
}

/// This thread's time on a processor, which others' work does not lengthen as it does the clock's.
fn cpu_ns() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    text.split(' ').next().unwrap().parse().unwrap()
}

fn main() {
    let glob = |text: String| Pattern::Glob(text);
    let net = |i: usize| Pattern::Net(core::net::IpAddr::V4((0x0a00_0000 + (i as u32) * 256).into()), 24);
    let cases = [
        ("10,000 rules, a host each", each(What::Host, |i| glob(format!("host{i}.example")))),
        ("10,000 rules, a host wildcard each", each(What::Host, |i| glob(format!("*.host{i}.example")))),
        ("10,000 rules, a path each", each(What::Path, |i| glob(format!("/app{i}/index.html")))),
        ("10,000 rules, a path glob each", each(What::Path, |i| glob(format!("/app{i}/**")))),
        ("10,000 rules, a suffix glob each", each(What::Path, |i| glob(format!("/**/file{i}.html")))),
        ("10,000 rules, a network each", each(What::Src, net)),
        ("one rule, a list of 10,000 hosts", list(What::Host, |i| glob(format!("host{i}.example")))),
        ("one rule, a list of 10,000 paths", list(What::Path, |i| glob(format!("/app{i}/**")))),
        ("one rule, a list of 10,000 networks", list(What::Src, net)),
    ];
    println!("{:40} {:>12} {:>12}", "nanoseconds a request", "first hits", "none hits");
    for (name, rules) in cases {
        let program = Program::new(&rules).unwrap();
        let requests = |hit: bool| -> Vec<(String, String, std::net::IpAddr)> {
            let number = |i: usize| if hit { i * 9973 % RULES } else { RULES + i };
            (0..1024)
                .map(|i| {
                    let n = number(i);
                    let host = if name.contains("wildcard") { "www." } else { "" };
                    let path = if name.contains("suffix") {
                        format!("/a/b/file{n}.html?x=1")
                    } else {
                        format!("/app{n}/index.html?x=1")
                    };
                    let ip = (0x0a00_0000 + (n as u32) * 256 + 7).into();
                    (format!("{host}host{n}.example"), path, std::net::IpAddr::V4(ip))
                })
                .collect()
        };
        let mut scratch = Scratch::default();
        let mut cost = |requests: &[(String, String, std::net::IpAddr)], hit: bool| {
            let began = cpu_ns();
            for i in 0..ROUNDS {
                let (host, target, src) = &requests[i % requests.len()];
                let facts = Facts {
                    src: *src,
                    method: b"GET",
                    host: Some(host.as_bytes()),
                    target: target.as_bytes(),
                    ..Facts::default()
                };
                program.evaluate(black_box(&facts), &mut scratch).unwrap();
                assert_eq!(scratch.hits().is_empty(), !hit);
            }
            (cpu_ns() - began) / ROUNDS as u64
        };
        println!("{name:40} {:>12} {:>12}", cost(&requests(true), true), cost(&requests(false), false));
    }
}
