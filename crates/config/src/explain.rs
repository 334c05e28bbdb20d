//! What the table says, for people: `relais explain` and `docs/directives.md`.

use std::fmt::Write;

use crate::advice::{places, shorten};
use crate::nearest::nearest;
use crate::table::{self, Directive, Effect, Field, Need, Section, Times};

/// What `relais explain WORD` prints: the directive wherever it may stand, every form of it, and the
/// directives that have a property of that name. `WORD` may be one word (`check`), a form
/// (`check http`), or a section and a word (`vip node`). An empty word lists everything.
///
/// # Errors
///
/// One sentence with the word that was probably meant.
pub fn explain(word: &str) -> Result<String, String> {
    let words: Vec<&str> = word.split([' ', '.', '/']).filter(|word| !word.is_empty()).collect();
    let Some(last) = words.last().map(|word| word.trim_end_matches('=')) else { return Ok(overview()) };
    let rows: Vec<&Directive> = table::all().filter(|row| answers(row, &words)).collect();
    let mut out = String::new();
    for row in &rows {
        explain_row(&mut out, row);
    }
    let owners: Vec<&Directive> = if words.len() == 1 { with_property(last).collect() } else { Vec::new() };
    if !owners.is_empty() {
        let also = if rows.is_empty() { "" } else { "also " };
        let _ = writeln!(out, "`{last}=` is {also}a property:\n");
        for row in owners {
            for field in row.properties.iter().filter(|field| field.name == last) {
                let _ = writeln!(out, "  of `{}` {}: {}", row.title(), places(row), field.doc);
                let _ = writeln!(out, "      {}", row.example);
            }
        }
        out.push('\n');
    }
    if let Some(ours) = table::foreign(last) {
        let _ = writeln!(out, "`{last}` is `{ours}` here: `relais explain {ours}` says more.\n");
    }
    if out.is_empty() {
        let names =
            table::all().flat_map(|row| row.properties.iter().map(|field| field.name).chain([row.name]));
        let help = match nearest(last, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => "`relais explain` lists all".into(),
        };
        return Err(format!("there is no directive `{}`: {help}", shorten(word)));
    }
    Ok(out)
}

/// Whether a row is what `words` ask for: `check`, `check http`, `backend check`, `backend check http`.
fn answers(row: &Directive, words: &[&str]) -> bool {
    let full: Vec<&str> = [row.name].into_iter().chain(row.form).collect();
    let fits = |words: &[&str]| !words.is_empty() && full.starts_with(words);
    let section = |name: &str| row.inside.iter().any(|section| section.name() == name);
    fits(words) || (words.len() > 1 && section(words[0]) && fits(&words[1..]))
}

fn with_property(name: &str) -> impl Iterator<Item = &'static Directive> {
    table::all().filter(move |row| row.properties.iter().any(|field| field.name == name))
}

/// Every directive, section by section, one line each; `*` marks what this build only validates.
fn overview() -> String {
    let mut out = String::from(
        "The directives, by where they stand; `relais explain WORD` says more.\nThose with a * are checked, and not acted on by this build.\n",
    );
    for section in Section::ALL {
        let title =
            if section == Section::File { "the file".into() } else { format!("{} {{ }}", section.name()) };
        let _ = writeln!(out, "\n{title}");
        for row in table::inside(section) {
            let mark = if row.acts() { ' ' } else { '*' };
            let _ = writeln!(out, " {mark}{:<18} {}", row.title(), first_sentence(row.doc));
        }
    }
    out
}

/// The first sentence of a doc.
fn first_sentence(doc: &str) -> &str {
    let end = doc
        .match_indices(". ")
        .map(|(at, _)| at)
        .find(|at| !doc[..*at].ends_with("e.g"))
        .unwrap_or(doc.len());
    doc[..end].split(": ").next().unwrap_or(doc).trim_end_matches('.')
}

/// How a directive is written: `check http [path=] [every=]`, `on NODE...`.
fn synopsis(row: &Directive) -> String {
    let mut out = row.title();
    for field in row.arguments {
        let word = field.name.to_uppercase();
        let _ = match field.need {
            Need::OneOrMore => write!(out, " {word}..."),
            Need::Any(_) => write!(out, " [{word}...]"),
            _ => write!(out, " {word}"),
        };
    }
    for field in row.properties {
        let _ = match field.need {
            Need::Required | Need::OneOrMore => write!(out, " {}=VALUE", field.name),
            Need::Optional(_) | Need::Any(_) => write!(out, " [{}=VALUE]", field.name),
            Need::Default(value) => write!(out, " [{}={}]", field.name, written(value)),
        };
    }
    if row.block.is_some() {
        out.push_str(" { ... }");
    }
    out
}

/// A default as the file would have it.
fn written(value: &str) -> String {
    let bare = value.parse::<u64>().is_ok() || value.starts_with(|c: char| c.is_ascii_alphabetic());
    if bare { value.into() } else { format!("\"{value}\"") }
}

/// How often it may stand there, in a sentence.
fn times(row: &Directive) -> &'static str {
    match row.times {
        Times::Once => "at most once",
        Times::Required => "exactly once",
        Times::Many => "any number of times",
        Times::OneOrMore => "once or more",
    }
}

/// What it is when it is left out.
fn absent(field: &Field) -> String {
    match field.need {
        Need::Required | Need::OneOrMore => "required".into(),
        Need::Optional(meaning) | Need::Any(meaning) => format!("if left out: {meaning}"),
        Need::Default(value) => format!("default {}", written(value)),
    }
}

/// What leaving the whole directive out means.
fn default_of(row: &Directive) -> Option<String> {
    let [field] = row.arguments else { return None };
    match field.need {
        Need::Default(value) if row.times == Times::Once => Some(format!("{} {}", row.name, written(value))),
        _ => None,
    }
}

fn explain_row(out: &mut String, row: &Directive) {
    let _ = writeln!(out, "{}\n    {}, {}\n", synopsis(row), places(row), times(row));
    for line in wrap(row.doc, 92) {
        let _ = writeln!(out, "    {line}");
    }
    out.push('\n');
    let fields = row.arguments.iter().map(|field| (field.name.to_uppercase(), field));
    let properties = row.properties.iter().map(|field| (format!("{}=", field.name), field));
    for (name, field) in fields.chain(properties) {
        let _ = writeln!(out, "    {name:<16} {}", field.doc);
        let default = if default_of(row).is_some() { String::new() } else { format!("; {}", absent(field)) };
        let _ = writeln!(out, "    {:<16} takes {}{default}", "", field.kind.describe());
    }
    if !row.arguments.is_empty() || !row.properties.is_empty() {
        out.push('\n');
    }
    if let Some(default) = default_of(row) {
        let _ = writeln!(out, "    default: {default}");
    }
    let _ = writeln!(out, "    example: {}", row.example);
    if let Some(section) = row.block {
        let mut words: Vec<&str> = table::inside(section).map(|row| row.name).collect();
        words.dedup();
        let _ = writeln!(out, "    its block may have: {}", words.join(", "));
    }
    let _ = match row.effect {
        Effect::Tests(_) => writeln!(out, "    This build acts on it.\n"),
        Effect::Later(what) => {
            writeln!(out, "    This build checks it and does not act on it yet. Later it will {what}.\n")
        }
    };
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.len() + word.len() < width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// `docs/directives.md`: the manual of the whole table.
pub fn directives() -> String {
    let mut out = String::from(
        "# Directives\n\n\
         Every directive of a Relais file, by where it stands. This page is made from the directive table:\n\
         `UPDATE=1 cargo test -p relais-config` writes it anew. `relais explain WORD` says the same in a terminal.\n\n\
         The file is [KDL 2](https://kdl.dev): a directive is a line with its name, its values and `name=value` pairs,\n\
         then perhaps a block in braces. Bare words need no quotes; time spans, sizes, addresses and paths do: `\"50ms\"`,\n\
         `\"256MiB\"`, `\"*:80\"`. Comments begin with `//`. Time spans count in ms, s, m, h or d; sizes in B, KiB, MiB, GiB or TiB.\n\n\
         What is marked *later* is checked, and not acted on by this build; `relais run` says so in one line.\n",
    );
    for section in Section::ALL {
        let title =
            if section == Section::File { "The file".into() } else { format!("In `{}`", section.name()) };
        let _ = writeln!(out, "\n## {title}");
        for row in table::inside(section) {
            document_row(&mut out, row);
        }
    }
    out
}

fn document_row(out: &mut String, row: &Directive) {
    let later = if row.acts() { "" } else { " (later)" };
    let _ = writeln!(out, "\n### `{}`{later}\n\n```kdl\n{}\n```\n", row.title(), row.example);
    let _ = writeln!(out, "{} Stands {}.", row.doc, times(row));
    if let Some(default) = default_of(row) {
        let _ = writeln!(out, "Default: `{default}`.");
    }
    if let Effect::Later(what) = row.effect {
        let _ = writeln!(out, "Later it will {what}.");
    }
    if row.arguments.is_empty() && row.properties.is_empty() {
        return;
    }
    let _ = writeln!(out, "\n| | takes | if left out | |\n| --- | --- | --- | --- |");
    let arguments = row.arguments.iter().map(|field| (format!("*{}*", field.name), field));
    let properties = row.properties.iter().map(|field| (format!("`{}=`", field.name), field));
    for (name, field) in arguments.chain(properties) {
        let absent = match field.need {
            Need::Required | Need::OneOrMore => "an error".into(),
            Need::Optional(meaning) | Need::Any(meaning) => meaning.to_owned(),
            // A directive's only argument has to be given where the directive is.
            Need::Default(_) if !row.is_action() && row.arguments.iter().any(|a| a.name == field.name) => {
                "an error".into()
            }
            Need::Default(value) => format!("`{}`", written(value)),
        };
        let _ = writeln!(out, "| {name} | {} | {absent} | {} |", field.kind.describe(), field.doc);
    }
}
