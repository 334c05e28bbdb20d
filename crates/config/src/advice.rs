//! What to say of words that the table does not have, and how to say what it has.

use crate::diagnostic::{Diagnostic, Span};
use crate::nearest::nearest;
use crate::table::{self, Directive, Field, Section};
use crate::value::Raw;

/// A value as it is written after `=`.
pub(crate) fn as_value(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) if !text.starts_with(|c: char| c.is_ascii_alphabetic()) => format!("\"{text}\""),
        other => other.text(),
    }
}

/// What a directive takes, in a sentence after its name.
pub(crate) fn takes(row: &Directive) -> String {
    match row.arguments.len() {
        0 if row.properties.is_empty() => "stands alone".into(),
        0 => format!("takes {}", properties_of(row)),
        1 => "takes one value".into(),
        n => format!("takes {n} values"),
    }
}

/// The property that other programs call `word`.
pub(crate) fn known_as(row: &Directive, word: &str) -> Option<&'static Field> {
    let own = table::foreign(word)?;
    row.properties.iter().find(|field| field.name == own)
}

/// A word that no directive of `section` has, and the one that was probably meant there, if any.
pub(crate) fn unknown(name: &str, section: Section, span: Span) -> (Diagnostic, Option<&'static str>) {
    let message = format!("there is no `{}` {}", shorten(name), section.place());
    let foreign = table::foreign(name);
    let word = foreign.unwrap_or(name);
    // Best the one that may stand here, else the section of that name, else any.
    let known = table::all()
        .filter(|row| row.name == word || row.title() == word)
        .min_by_key(|row| (!row.inside.contains(&section), !row.inside.contains(&Section::File)));
    let owner = table::inside(section).find(|row| row.properties.iter().any(|field| field.name == word));
    let near = nearest(name, table::inside(section).map(|row| row.name));
    let (help, meant) = match (known, owner, near) {
        (Some(row), _, _) if row.inside.contains(&section) => {
            (format!("here it is `{}`: {}", row.title(), row.example), Some(row.name))
        }
        (_, Some(row), _) => (format!("`{word}=` goes with `{}`: {}", row.title(), row.example), None),
        (Some(row), _, _) if foreign.is_some() => {
            (format!("here it is `{}`, {}: {}", row.title(), places(row), row.example), None)
        }
        (Some(row), _, _) => (format!("`{name}` stands {}: {}", places(row), row.example), None),
        (_, _, Some(near)) => (format!("did you mean `{near}`?"), Some(near)),
        _ => {
            let mut words: Vec<&str> = table::inside(section).map(|row| row.name).collect();
            words.dedup();
            (format!("what may stand there: {}", words.join(", ")), None)
        }
    };
    (Diagnostic::error(span, message).help(help), meant)
}

/// "in a `vip` or in a `site`"
pub(crate) fn places(row: &Directive) -> String {
    let places: Vec<String> = row.inside.iter().map(|section| section.place()).collect();
    match places.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

pub(crate) fn unknown_property(row: &Directive, name: &str, span: Span) -> Diagnostic {
    let message = format!("`{}` has no `{}=`", row.title(), shorten(name));
    let own = known_as(row, name).map(|field| field.name);
    let help = match own.or_else(|| nearest(name, row.properties.iter().map(|field| field.name))) {
        Some(own) if table::foreign(name).is_some() => format!("here it is `{own}=`"),
        Some(near) => format!("did you mean `{near}=`?"),
        None if row.properties.is_empty() => {
            format!("it has no properties; write for example: {}", row.example)
        }
        None => format!("it has {}", properties_of(row)),
    };
    Diagnostic::error(span, message).help(help)
}

pub(crate) fn properties_of(row: &Directive) -> String {
    row.properties.iter().map(|field| format!("`{}=`", field.name)).collect::<Vec<_>>().join(", ")
}

/// Text of the file for a message: not longer than a line can bear.
pub(crate) fn shorten(text: &str) -> String {
    if text.chars().count() <= 60 {
        text.into()
    } else {
        format!("{}...", text.chars().take(57).collect::<String>())
    }
}
