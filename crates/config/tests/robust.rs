//! No text makes the parser panic, and what it says of a text points into it.

use proptest::prelude::*;
use relais_config::diagnostic::position;
use relais_config::{Severity, parse};

fn reference() -> String {
    let path = format!("{}/../../examples/progres.kdl", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("the reference file")
}

/// What is done to a text at some place.
#[derive(Clone, Debug)]
enum Mutation {
    Delete(usize),
    Insert(String),
    Swap(usize),
    Repeat(usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let pieces = prop::sample::select(vec![
        "{",
        "}",
        "\"",
        "\"\"\"",
        "#",
        "#\"",
        "\"#",
        "=",
        ";",
        "\n",
        "\\",
        "//",
        "/*",
        "*/",
        "/-",
        " ",
        "\t",
        ",",
        "'",
        "“",
        "é",
        "\u{0}",
        "\u{feff}",
        "\u{202e}",
        "\r\n",
        "\u{2028}",
        "50ms",
        "-1",
        "0x",
        "1e999",
        "(u8)",
        "[::1]:80",
        "true",
        "#true",
        "#null",
        "99999999999999999999999999",
        "node",
        "frontend x",
        "on",
        "check http",
        "priority=",
        "\\u{110000}",
        "\\q",
        "0.0.0.0/0",
        "*:80",
        "../x",
    ]);
    prop_oneof![
        (1usize..40).prop_map(Mutation::Delete),
        pieces.prop_map(|piece| Mutation::Insert(piece.to_owned())),
        "\\PC{0,6}".prop_map(Mutation::Insert),
        (1usize..30).prop_map(Mutation::Swap),
        (1usize..60).prop_map(Mutation::Repeat),
    ]
}

fn mutate(text: &mut String, at: prop::sample::Index, mutation: &Mutation) {
    let at = text.floor_char_boundary(at.index(text.len() + 1));
    let end = |length: usize| text.ceil_char_boundary((at + length).min(text.len()));
    match mutation {
        Mutation::Delete(length) => text.replace_range(at..end(*length), ""),
        Mutation::Insert(piece) => text.insert_str(at, piece),
        Mutation::Swap(length) => {
            let piece: String = text[at..end(*length)].chars().rev().collect();
            text.replace_range(at..end(*length), &piece);
        }
        Mutation::Repeat(length) => {
            let piece = text[at..end(*length)].to_owned();
            text.insert_str(at, &piece);
        }
    }
}

/// Everything there is to hold of any text.
fn holds(text: &str) {
    match parse("any.kdl", text) {
        Ok(checked) => {
            assert!(checked.diagnostics().iter().all(|d| d.severity != Severity::Error));
            check_plan(&checked.plan);
        }
        Err(rejected) => {
            assert!(
                rejected.diagnostics().iter().any(|d| d.severity == Severity::Error),
                "rejected without an error: {text}"
            );
            for diagnostic in rejected.diagnostics() {
                let related = diagnostic.related.iter().map(|(span, _)| span);
                for span in [&diagnostic.span].into_iter().chain(related) {
                    assert!(span.start <= span.end && span.end <= text.len(), "{diagnostic:?}");
                    assert!(
                        text.is_char_boundary(span.start) && text.is_char_boundary(span.end),
                        "{diagnostic:?}"
                    );
                    assert!(position(text, span.start).line <= text.split('\n').count());
                }
                assert!(!diagnostic.message.is_empty() && !diagnostic.help.is_empty(), "{diagnostic:?}");
            }
            let told = rejected.to_string();
            assert!(told.contains("any.kdl:"), "{told}");
        }
    }
}

/// Whoever holds a plan need not check it again.
fn check_plan(plan: &relais_config::Plan) {
    let node = |id: &relais_config::plan::NodeId| usize::from(id.0) < plan.nodes.len();
    assert!(plan.nodes.iter().all(|node| !node.links.is_empty()));
    assert!(
        plan.vips
            .iter()
            .all(|vip| !vip.nodes.is_empty()
                && vip.nodes.iter().all(|(id, priority)| node(id) && *priority > 0))
    );
    let is_there = |track: &relais_config::plan::Track| match track.what {
        relais_config::plan::Tracked::Frontend(id) => usize::from(id.0) < plan.frontends.len(),
        _ => true,
    };
    assert!(plan.vips.iter().flat_map(|vip| &vip.track).all(is_there));
    for frontend in &plan.frontends {
        assert!(!frontend.binds.is_empty() && frontend.nodes.iter().all(node));
        assert!(frontend.redirect.is_some() || frontend.default_backend.is_some());
        if let Some(id) = frontend.default_backend {
            assert_eq!(plan.backends[usize::from(id.0)].mode, frontend.mode);
        }
    }
    for backend in &plan.backends {
        assert!(!backend.servers.is_empty());
        let mut names: Vec<&str> = backend.servers.iter().map(|server| &*server.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), backend.servers.len());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_change_of_the_reference_file_makes_it_panic(
        changes in prop::collection::vec((any::<prop::sample::Index>(), mutation()), 1..6),
    ) {
        let mut text = reference();
        for (at, change) in &changes {
            mutate(&mut text, *at, change);
        }
        holds(&text);
    }

    #[test]
    fn no_text_makes_it_panic(text in "(\\PC|[\\x00-\\x20{}\"=#/*;\\\\-]|node|vip|\"10.0.0.1\"){0,60}") {
        holds(&text);
    }
}

#[test]
fn the_largest_file_is_read_in_no_time() {
    let mut text = String::from("platform big\nnode a { link \"10.0.0.1\"; }\n");
    let mut servers = 0;
    while text.len() < 900_000 {
        if servers % 5_000 == 0 {
            let close = if servers == 0 { "" } else { "}\n" };
            text.push_str(&format!("{close}backend b{servers} {{\n"));
        }
        text.push_str(&format!("    server s{servers} \"127.0.0.1:8081\" weight=1 max-connections=10\n"));
        servers += 1;
    }
    text.push_str("}\n");
    let began = std::time::Instant::now();
    let checked = parse("big.kdl", &text).unwrap_or_else(|rejected| panic!("{rejected}"));
    assert!(checked.plan.backends.len() > 1);
    assert!(
        began.elapsed() < std::time::Duration::from_secs(20),
        "{:?} for {} bytes",
        began.elapsed(),
        text.len()
    );
}
