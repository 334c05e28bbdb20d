//! Compiled rules decide as rules that are walked one by one, and paths come out normal.

#![allow(clippy::unwrap_used, missing_docs)]

use std::net::{IpAddr, Ipv4Addr};

use proptest::prelude::*;
use relais_rules::path::{is_normal, normalize};
use relais_rules::{Condition, Facts, Glob, Pattern, Program, Rule, Scratch, What};

/// A request as its values, already the way rules read them.
#[derive(Debug, Clone)]
struct Request {
    host: Option<String>,
    path: String,
    method: String,
    headers: Vec<(String, String)>,
    src: Ipv4Addr,
}

fn net_has(net: IpAddr, prefix: u8, ip: Ipv4Addr) -> bool {
    let IpAddr::V4(net) = net else { return false };
    (0..prefix.min(32)).all(|bit| u32::from(net) >> (31 - bit) & 1 == u32::from(ip) >> (31 - bit) & 1)
}

fn holds(condition: &Condition, request: &Request) -> bool {
    let values: Vec<String> = match &condition.what {
        What::Path => {
            let mut out = Vec::new();
            vec![String::from_utf8(normalize(request.path.as_bytes(), &mut out).unwrap().to_vec()).unwrap()]
        }
        What::Host => request.host.iter().map(|h| h.to_ascii_lowercase()).collect(),
        What::Method => vec![request.method.clone()],
        What::Header(name) => request
            .headers
            .iter()
            .filter(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v.clone())
            .collect(),
        _ => Vec::new(),
    };
    let fits = |pattern: &Pattern| match pattern {
        Pattern::Net(net, prefix) => condition.what == What::Src && net_has(*net, *prefix, request.src),
        Pattern::Any => !values.is_empty(),
        Pattern::Glob(glob) => {
            let glob = Glob::new(glob, condition.what == What::Path);
            values.iter().any(|value| glob.matches(value.as_bytes()))
        }
        Pattern::Regex(text) => {
            let regex = regex_automata::meta::Regex::new(text).unwrap();
            values.iter().any(|value| regex.is_match(value))
        }
    };
    condition.any.iter().any(fits) != condition.negated
}

fn naive(rules: &[Rule], request: &Request) -> Vec<u32> {
    let mut hits = Vec::new();
    for (number, rule) in (0u32..).zip(rules) {
        if rule.conditions.iter().all(|condition| holds(condition, request)) {
            hits.push(number);
            if rule.last {
                break;
            }
        }
    }
    hits
}

fn text_pattern() -> impl Strategy<Value = Pattern> {
    prop_oneof![
        4 => "/?[ab/.]{0,4}(\\*|\\*\\*)?[ab/.]{0,3}".prop_map(Pattern::Glob),
        1 => "\\^?[ab]\\.?[ab]?\\$?".prop_map(Pattern::Regex),
        1 => Just(Pattern::Any),
    ]
}

fn condition() -> impl Strategy<Value = Condition> {
    let what = prop_oneof![
        Just(What::Path),
        Just(What::Host),
        Just(What::Method),
        Just(What::Header("x".into())),
        Just(What::Header("y".into())),
    ];
    let text = (what, prop::collection::vec(text_pattern(), 1..4));
    let net = (0u32..16, 24u8..=32)
        .prop_map(|(host, prefix)| Pattern::Net(IpAddr::V4((0x0a00_0000 + host).into()), prefix));
    let src = prop::collection::vec(net, 1..4).prop_map(|any| (What::Src, any));
    (any::<bool>(), prop_oneof![4 => text, 1 => src]).prop_map(|(negated, (what, any))| Condition {
        negated,
        what,
        any,
    })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let rule = (prop::collection::vec(condition(), 0..4), prop::bool::weighted(0.3))
        .prop_map(|(conditions, last)| Rule { conditions, last, ..Rule::default() });
    prop::collection::vec(rule, 0..24)
}

fn request() -> impl Strategy<Value = Request> {
    let header = ("[xyXYz]", "[ab.]{0,3}");
    (
        prop::option::of("[ab]{1,3}(\\.[abA]{1,2})?"),
        "/([ab./]{0,6}|%61|;x|/\\.\\./){0,3}"
            .prop_filter("readable", |path| normalize(path.as_bytes(), &mut Vec::new()).is_ok()),
        "[ab]{1,2}",
        prop::collection::vec(header, 0..4),
        0u32..16,
    )
        .prop_map(|(host, path, method, headers, src)| Request {
            host,
            path,
            method,
            headers,
            src: (0x0a00_0000 + src).into(),
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn compiled_rules_decide_as_walked_ones(rules in rules(), requests in prop::collection::vec(request(), 1..6)) {
        let program = Program::new(&rules).unwrap();
        let mut scratch = Scratch::default();
        for request in &requests {
            let fields: String = request.headers.iter().map(|(n, v)| format!("{n}: {v}\r\n")).collect();
            let facts = Facts {
                src: IpAddr::V4(request.src),
                method: request.method.as_bytes(),
                host: request.host.as_deref().map(str::as_bytes),
                target: request.path.as_bytes(),
                fields: fields.as_bytes(),
                ..Facts::default()
            };
            prop_assert!(program.evaluate(&facts, &mut scratch).is_ok());
            prop_assert_eq!(scratch.hits(), naive(&rules, request));
        }
    }

    #[test]
    fn a_path_comes_out_normal_and_stays_so(target in "/?([a./;%?\\\\]|%2e|%2f|%5c|%00|%c3%a9|%ff|//|/\\.\\.){0,12}") {
        let mut out = Vec::new();
        if let Ok(path) = normalize(target.as_bytes(), &mut out) {
            prop_assert!(is_normal(path), "{:?}", path);
            // Written out again, it is read as itself.
            let mut again = String::new();
            path.iter().for_each(|byte| match byte {
                b'a' | b'.' | b'/' => again.push(char::from(*byte)),
                other => again.push_str(&format!("%{other:02x}")),
            });
            let mut second = Vec::new();
            prop_assert_eq!(normalize(again.as_bytes(), &mut second), Ok(path));
        }
    }

    #[test]
    fn no_bytes_make_it_panic(data in prop::collection::vec(any::<u8>(), 0..120)) {
        relais_rules::fuzz(&data);
    }
}

fn rule(conditions: Vec<(bool, What, Pattern)>) -> Rule {
    let conditions = conditions
        .into_iter()
        .map(|(negated, what, pattern)| Condition { negated, what, any: vec![pattern] })
        .collect();
    Rule { conditions, last: true, ..Rule::default() }
}

fn glob(text: &str) -> Pattern {
    Pattern::Glob(text.into())
}

fn hits(rules: &[Rule], facts: &Facts<'_>) -> Vec<u32> {
    let mut scratch = Scratch::default();
    Program::new(rules).unwrap().evaluate(facts, &mut scratch).unwrap();
    scratch.hits().to_vec()
}

#[test]
fn a_host_has_no_case_no_port_and_no_final_dot() {
    let rules = [rule(vec![(false, What::Host, glob("www.example"))])];
    for host in ["www.example", "WWW.Example", "www.example:8443", "www.example.", "www.example.:80"] {
        assert_eq!(hits(&rules, &Facts { host: Some(host.as_bytes()), ..Facts::default() }), [0], "{host}");
    }
    for host in ["example", "a.www.example", "www.example.org", "[::1]:80"] {
        assert!(
            hits(&rules, &Facts { host: Some(host.as_bytes()), ..Facts::default() }).is_empty(),
            "{host}"
        );
    }
}

#[test]
fn a_mapped_address_is_the_address_that_it_means() {
    let rules = [rule(vec![(false, What::Src, Pattern::Net("192.168.112.0".parse().unwrap(), 24))])];
    for (src, is) in
        [("192.168.112.9", true), ("::ffff:192.168.112.9", true), ("192.168.113.9", false), ("::1", false)]
    {
        assert_eq!(
            !hits(&rules, &Facts { src: src.parse().unwrap(), ..Facts::default() }).is_empty(),
            is,
            "{src}"
        );
    }
}

#[test]
fn cookies_and_parameters_are_found_by_name() {
    let rules = [rule(vec![
        (false, What::Cookie("beta".into()), glob("1*")),
        (false, What::Query("q".into()), glob("a b")),
        (true, What::Query("no".into()), Pattern::Any),
    ])];
    let facts = |target, fields| Facts { target, fields, ..Facts::default() };
    assert_eq!(hits(&rules, &facts(b"/?x=1&%71=a+b", b"Cookie: a=b; beta=\"10\"\r\n")), [0]);
    assert_eq!(hits(&rules, &facts(b"/?q=a%20b", b"X: 1\r\nCOOKIE:beta=1\r\n")), [0]);
    assert!(hits(&rules, &facts(b"/?q=a+b", b"Cookie: xbeta=1\r\n")).is_empty());
    assert!(hits(&rules, &facts(b"/?q=a+b&no", b"Cookie: beta=1\r\n")).is_empty());
}

#[test]
fn a_path_that_cannot_be_read_is_refused_only_where_a_rule_reads_it() {
    let mut scratch = Scratch::default();
    let facts = Facts { target: b"/a%2fb", host: Some(b"h"), ..Facts::default() };
    let by_host = Program::new(&[rule(vec![(false, What::Host, glob("h"))])]).unwrap();
    assert_eq!(by_host.evaluate(&facts, &mut scratch), Ok(()));
    let by_path = Program::new(&[rule(vec![(true, What::Path, glob("/x"))])]).unwrap();
    assert!(by_path.evaluate(&facts, &mut scratch).is_err());
    let star = Facts { target: b"*", method: b"OPTIONS", ..Facts::default() };
    assert_eq!(by_path.evaluate(&star, &mut scratch), Ok(()));
}

#[test]
fn a_regular_expression_that_is_none_says_why() {
    let wrong = Program::new(&[rule(vec![(false, What::Path, Pattern::Regex("(a".into()))])]).unwrap_err();
    assert_eq!((wrong.rule, wrong.why.as_str()), (0, "unclosed group"));
    assert!(Pattern::Regex("(?:a{1000}){1000}".into()).check().is_err());
}

#[test]
fn of_several_regular_expressions_each_that_is_found_counts() {
    let regex = |text: &str| Pattern::Regex(text.into());
    let mut rules =
        [rule(vec![(false, What::Host, regex("aa"))]), rule(vec![(false, What::Host, regex("b$"))])];
    rules[0].last = false;
    assert_eq!(hits(&rules, &Facts { host: Some(b"aa.b"), ..Facts::default() }), [0, 1]);
}
