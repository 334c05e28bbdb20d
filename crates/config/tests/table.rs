//! The table itself: every row is documented, its example parses, and what it is said to do is tested.

use std::path::{Path, PathBuf};

use relais_config::table::{self, Effect, Need, Section};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// All Rust of the workspace.
fn sources(folder: &Path, out: &mut String) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() && name != "target" && !name.to_string_lossy().starts_with('.') {
            sources(&path, out);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            out.push_str(&std::fs::read_to_string(&path).expect("source"));
        }
    }
}

#[test]
fn every_test_that_shows_an_effect_is_there() {
    let mut text = String::new();
    sources(&root(), &mut text);
    for row in table::all() {
        let Effect::Tests(names) = row.effect else { continue };
        assert!(!names.is_empty(), "{} has no test", row.title());
        for name in names {
            assert!(text.contains(&format!("fn {name}(")), "{}: there is no test {name}", row.title());
        }
    }
}

#[test]
fn every_row_says_what_it_is() {
    for row in table::all() {
        let title = row.title();
        assert!(row.doc.ends_with('.') && row.doc.len() > 8, "{title}: its doc is no sentence: {}", row.doc);
        assert!(
            row.example.starts_with(&title),
            "{title}: its example is of something else: {}",
            row.example
        );
        assert!(!row.inside.is_empty(), "{title} stands nowhere");
        if let Effect::Later(what) = row.effect {
            assert!(!what.is_empty() && !what.ends_with('.'), "{title}: what will it do?");
        }
        for field in row.arguments.iter().chain(row.properties) {
            assert!(
                !field.doc.is_empty() && !field.doc.ends_with('.'),
                "{title} {}: {}",
                field.name,
                field.doc
            );
        }
        let many =
            row.arguments.iter().position(|field| matches!(field.need, Need::OneOrMore | Need::Any(_)));
        assert!(
            many.is_none_or(|at| at + 1 == row.arguments.len()),
            "{title}: only the last argument may be repeated"
        );
        assert!(
            row.properties.iter().all(|field| !matches!(field.need, Need::OneOrMore | Need::Any(_))),
            "{title}: properties are single"
        );
        assert!(
            row.arguments.iter().all(|field| !matches!(field.need, Need::Optional(_))),
            "{title}: arguments are not optional"
        );
    }
}

#[test]
fn rows_of_one_word_in_one_section_are_forms() {
    for section in Section::ALL {
        for row in table::inside(section) {
            let rows = table::rows(section, row.name);
            let forms: std::collections::BTreeSet<_> = rows.iter().map(|row| row.form).collect();
            assert_eq!(forms.len(), rows.len(), "{} twice {}", row.title(), section.place());
            assert!(
                rows.len() == 1 || rows.iter().all(|row| row.form.is_some()),
                "{} {}",
                row.title(),
                section.place()
            );
        }
    }
}

#[test]
fn every_section_is_some_directives_block() {
    for section in Section::ALL.into_iter().filter(|section| *section != Section::File) {
        let owner = table::all().find(|row| row.block == Some(section));
        assert!(owner.is_some_and(|row| row.name == section.name()), "{section:?}");
    }
}

#[test]
fn every_directive_is_explained() {
    for row in table::all() {
        for word in [row.name.to_owned(), row.title()] {
            let text = relais_config::explain(&word).expect("it is in the table");
            assert!(
                text.contains(row.example) && text.contains(&row.doc[..20.min(row.doc.len())]),
                "{word}:\n{text}"
            );
        }
    }
    assert_eq!(
        relais_config::explain("balanse"),
        Err("there is no directive `balanse`: did you mean `balance`?".into())
    );
    assert!(relais_config::explain("xyzzy").expect_err("nothing").contains("lists all"));
    assert!(relais_config::explain("expect").expect("a property").contains("of `check http`"));
    assert!(relais_config::explain("maxconn").expect("HAProxy's word").contains("`max-connections`"));
    let node = relais_config::explain("vip node").expect("a section and a word");
    assert!(node.contains("priority=") && !node.contains("heartbeat"), "{node}");
    let all = relais_config::explain("").expect("the list");
    assert!(table::all().all(|row| all.contains(&row.title())), "{all}");
}

#[test]
fn the_manual_is_that_of_the_table() {
    let path = root().join("docs/directives.md");
    let manual = relais_config::directives();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::create_dir_all(root().join("docs")).expect("docs");
        std::fs::write(&path, &manual).expect("the manual can be written");
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == manual,
        "docs/directives.md is stale: `UPDATE=1 cargo test -p relais-config` writes it anew"
    );
}
