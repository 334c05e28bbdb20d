//! The walk: a KDL document, block by block, against the directive table.
//!
//! Every node becomes an [`Item`] whose values have their types and defaults, or a diagnostic that says
//! what to write instead. What needs more than one directive to see (names, references, listeners) is
//! `resolve`'s. A value that did not fit is simply missing from its item: it has been reported, and the
//! walk goes on so that one run finds everything.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use kdl::{KdlDocument, KdlEntry, KdlNode, KdlValue};

use crate::diagnostic::{Diagnostic, Span};
use crate::nearest::nearest;
use crate::plan::Cidr;
use crate::syntax::Source;
use crate::table::{self, Directive, Field, Need, Section, Times, Type};
use crate::value::{Raw, Value, alternatives};

/// A directive as the file gives it.
#[derive(Debug)]
pub(crate) struct Item {
    /// Its row.
    pub(crate) row: &'static Directive,
    /// Its word.
    pub(crate) span: Span,
    values: Vec<Given>,
    /// Its block.
    pub(crate) children: Vec<Item>,
}

/// A value and where it stands.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) field: &'static Field,
    pub(crate) value: Value,
    pub(crate) span: Span,
}

/// What [`Item::get`] can return.
pub(crate) trait FromValue: Sized {
    fn from_value(value: &Value) -> Option<Self>;
}

macro_rules! from_value {
    ($($type:ty: $pattern:pat => $result:expr;)*) => {$(
        impl FromValue for $type {
            fn from_value(value: &Value) -> Option<Self> {
                match value { $pattern => $result, _ => None }
            }
        }
    )*};
}

from_value! {
    Arc<str>: Value::Text(text) => Some(text.clone());
    u64: Value::Integer(number) => Some(*number);
    u32: Value::Integer(number) => u32::try_from(*number).ok();
    u16: Value::Integer(number) => u16::try_from(*number).ok();
    u8: Value::Integer(number) => u8::try_from(*number).ok();
    SocketAddr: Value::Socket(address) => Some(*address);
    IpAddr: Value::Ip(address) => Some(*address);
    Duration: Value::Duration(time) => Some(*time);
    Vec<Cidr>: Value::Networks(networks) => Some(networks.clone());
    (u16, u16): Value::Statuses(first, last) => Some((*first, *last));
}

impl Item {
    /// The directive as it is where the file does not have it; `span` is what is pointed at instead.
    fn absent(row: &'static Directive, span: Span) -> Self {
        let mut item = Self { row, span, values: Vec::new(), children: Vec::new() };
        item.fill_in_defaults();
        item
    }

    fn fill_in_defaults(&mut self) {
        for field in self.row.arguments.iter().chain(self.row.properties) {
            let Need::Default(text) = field.need else { continue };
            if self.values.iter().any(|given| given.field.name == field.name) {
                continue;
            }
            let raw = text.parse().map_or_else(|_| Raw::Text(text.into()), Raw::Integer);
            if let Ok(value) = field.kind.parse(&raw) {
                self.values.push(Given { field, value, span: self.span.clone() });
            }
        }
    }

    /// Values in the order of the file.
    pub(crate) fn values(&self) -> &[Given] {
        &self.values
    }

    /// The value of an argument or property. `None`: it was left out and has no default, or it did not
    /// fit and has been reported.
    pub(crate) fn get<T: FromValue>(&self, field: &str) -> Option<T> {
        T::from_value(&self.values.iter().find(|given| given.field.name == field)?.value)
    }

    /// Every value of an argument that may be repeated.
    pub(crate) fn all<T: FromValue>(&self, field: &str) -> Vec<(T, Span)> {
        let given = self.values.iter().filter(|given| given.field.name == field);
        given.filter_map(|given| Some((T::from_value(&given.value)?, given.span.clone()))).collect()
    }

    /// Where a value stands; where the directive's word stands if it was left out.
    pub(crate) fn span_of(&self, field: &str) -> Span {
        self.values
            .iter()
            .find(|given| given.field.name == field)
            .map_or(self.span.clone(), |given| given.span.clone())
    }

    /// The name that it declares, as given.
    pub(crate) fn name(&self) -> Arc<str> {
        self.values
            .iter()
            .find(|given| matches!(given.field.kind, Type::Name(_)))
            .and_then(|given| Arc::<str>::from_value(&given.value))
            .unwrap_or_else(|| "".into())
    }

    /// Where its name stands.
    pub(crate) fn name_span(&self) -> Span {
        self.values
            .iter()
            .find(|given| matches!(given.field.kind, Type::Name(_)))
            .map_or(self.span.clone(), |given| given.span.clone())
    }

    /// Directives of this name in its block.
    pub(crate) fn each<'a>(&'a self, name: &'static str) -> impl Iterator<Item = &'a Item> {
        self.children.iter().filter(move |item| item.row.name == name)
    }

    /// The directive of this name in its block.
    pub(crate) fn find(&self, name: &'static str) -> Option<&Item> {
        self.children.iter().find(|item| item.row.name == name)
    }

    /// The directive of this name in its block, with its defaults where the file does not have it.
    pub(crate) fn setting(&self, name: &'static str) -> Setting<'_> {
        match self.find(name) {
            Some(item) => Setting::Given(item),
            None => match self.row.block.and_then(|section| table::rows(section, name).first().copied()) {
                Some(row) => Setting::Absent(Item::absent(row, self.span.clone())),
                None => unreachable!("the table has no `{name}` in `{}`", self.row.name),
            },
        }
    }
}

/// A directive that is there either way.
pub(crate) enum Setting<'a> {
    Given(&'a Item),
    Absent(Item),
}

impl std::ops::Deref for Setting<'_> {
    type Target = Item;

    fn deref(&self) -> &Item {
        match self {
            Self::Given(item) => item,
            Self::Absent(item) => item,
        }
    }
}

/// The directives of `document`, read as the block of `section`, and what is wrong with them.
pub(crate) fn walk(
    source: &Source,
    document: &KdlDocument,
    section: Section,
) -> (Vec<Item>, Vec<Diagnostic>) {
    let mut walk = Walk { source, diagnostics: Vec::new() };
    let items = walk.block(document, section, source.span(0, 1), "");
    (items, walk.diagnostics)
}

struct Walk<'a> {
    source: &'a Source,
    diagnostics: Vec<Diagnostic>,
}

impl Walk<'_> {
    fn error(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    /// A block: its directives, each as often as its row allows. `owner` is whose block it is, for messages.
    fn block(
        &mut self,
        document: &KdlDocument,
        section: Section,
        owner_span: Span,
        owner: &str,
    ) -> Vec<Item> {
        let mut seen: Vec<&str> = Vec::new();
        let mut items: Vec<Item> = Vec::new();
        for node in document.nodes() {
            let name = node.name().value();
            let span = self.source.span(node.name().span().offset(), node.name().span().len());
            if self.source.meant(&span).is_some() {
                continue; // No name at all, which has been reported.
            }
            let rows = table::rows(section, name);
            let Some(first) = rows.first() else {
                let unknown = unknown(name, section, span);
                self.error(unknown);
                continue;
            };
            let single = matches!(first.times, Times::Once | Times::Required);
            if single && let Some(before) = items.iter().find(|item| item.row.name == name) {
                let before = before.span.clone();
                self.error(
                    Diagnostic::error(span.clone(), format!("`{name}` is given twice {}", section.place()))
                        .related(before, "first given here")
                        .help("keep one of them"),
                );
            }
            if !seen.contains(&first.name) {
                seen.push(first.name);
            }
            if let Some(item) = self.directive(node, &rows, span) {
                items.push(item);
            }
        }
        self.missing(section, &seen, owner_span, owner);
        items
    }

    /// What a block has to have and has not.
    fn missing(&mut self, section: Section, seen: &[&str], span: Span, owner: &str) {
        for row in table::inside(section) {
            if matches!(row.times, Times::Required | Times::OneOrMore) && !seen.contains(&row.name) {
                let owner = if owner.is_empty() { "the file" } else { owner };
                self.error(
                    Diagnostic::error(span.clone(), format!("{owner} has no `{}`", row.name))
                        .help(format!("add for example: {}", row.example)),
                );
            }
        }
    }

    fn directive(&mut self, node: &KdlNode, rows: &[&'static Directive], span: Span) -> Option<Item> {
        let entries: Vec<Entry> = node.entries().iter().map(|entry| Entry::new(self.source, entry)).collect();
        let (row, entries) = self.choose_form(rows, entries, &span)?;
        let mut item = Item { row, span: span.clone(), values: Vec::new(), children: Vec::new() };
        self.properties(&mut item, &entries);
        self.arguments(&mut item, &entries);
        item.fill_in_defaults();
        let none = KdlDocument::new();
        match (row.block, node.children()) {
            (Some(section), children) => {
                let name = item.name();
                let owner = if name.is_empty() {
                    format!("this `{}`", row.name)
                } else {
                    format!("{} `{name}`", row.name)
                };
                item.children = self.block(children.unwrap_or(&none), section, span, &owner);
            }
            (None, Some(_)) => self.error(
                Diagnostic::error(span, format!("`{}` takes no block", row.title()))
                    .help(format!("write for example: {}", row.example)),
            ),
            (None, None) => {}
        }
        Some(item)
    }

    /// Chooses between the forms of a directive by its first argument, which is then done with.
    fn choose_form(
        &mut self,
        rows: &[&'static Directive],
        mut entries: Vec<Entry>,
        span: &Span,
    ) -> Option<(&'static Directive, Vec<Entry>)> {
        let first = rows.first()?;
        if first.form.is_none() {
            return Some((first, entries));
        }
        let forms: Vec<&str> = rows.iter().filter_map(|row| row.form).collect();
        let Some(at) = entries.iter().position(|entry| entry.name.is_none()) else {
            self.error(
                Diagnostic::error(
                    span.clone(),
                    format!("`{}` does not say which: {}", first.name, alternatives(&forms)),
                )
                .help(format!("write for example: {}", first.example)),
            );
            return None;
        };
        let entry = entries.remove(at);
        let word = entry.raw.text();
        if let Some(row) = rows.iter().find(|row| row.form == Some(&word)) {
            return Some((row, entries));
        }
        let help = match nearest(&word, forms.iter().copied()) {
            Some(form) => format!("did you mean `{} {form}`?", first.name),
            None => format!("write for example: {}", first.example),
        };
        let message = format!("there is no `{} {word}`: it is {}", first.name, alternatives(&forms));
        self.error(Diagnostic::error(entry.span, message).help(help));
        None
    }

    fn properties(&mut self, item: &mut Item, entries: &[Entry]) {
        let row = item.row;
        let mut seen: Vec<(&str, Span)> = Vec::new();
        for entry in entries {
            let Some((name, name_span)) = &entry.name else { continue };
            let Some(field) = row.properties.iter().find(|field| field.name == name) else {
                let unknown = unknown_property(row, name, name_span.clone());
                self.error(unknown);
                continue;
            };
            if let Some((_, before)) = seen.iter().find(|(n, _)| n == name) {
                self.error(
                    Diagnostic::error(
                        name_span.clone(),
                        format!("`{name}` is given twice in one `{}`", row.title()),
                    )
                    .related(before.clone(), "first given here")
                    .help("keep one of them"),
                );
                continue;
            }
            seen.push((name, name_span.clone()));
            if !entry.void {
                self.value(item, field, entry);
            }
        }
        let spoken_of: Vec<String> = unnamed(row, entries).map(|entry| entry.raw.text()).collect();
        let mut missing = missing_properties(row, entries);
        // A single word that is left over is taken for the value of the only one that is missing.
        let explained = spoken_of.len() == 1 && missing.clone().count() == 1;
        if let Some(field) =
            missing.find(|field| !explained && !spoken_of.iter().any(|word| word == field.name))
        {
            self.error(
                Diagnostic::error(
                    item.span.clone(),
                    format!("`{}` has no `{}=`: {}", row.title(), field.name, field.doc),
                )
                .help(format!("write for example: {}", row.example)),
            );
        }
    }

    fn arguments(&mut self, item: &mut Item, entries: &[Entry]) {
        let row = item.row;
        let mut words = entries.iter().filter(|entry| entry.name.is_none() && !entry.void).peekable();
        for field in row.arguments {
            match field.need {
                Need::OneOrMore => {
                    if words.peek().is_none() {
                        self.no_argument(item, field);
                    }
                    for entry in words.by_ref() {
                        self.value(item, field, entry);
                    }
                }
                // A word alone is `setting default`; whoever writes `retries` without a number forgot it.
                _ => match words.next() {
                    Some(entry) => self.value(item, field, entry),
                    None => self.no_argument(item, field),
                },
            }
        }
        let left: Vec<&Entry> = words.collect();
        self.left_over(item, entries, &left);
    }

    /// Words after the last argument: values that lack the name of their property, or too many.
    fn left_over(&mut self, item: &Item, entries: &[Entry], left: &[&Entry]) {
        let row = item.row;
        let Some((first, rest)) = left.split_first() else { return };
        let word = first.raw.text();
        if let Some(field) = row.properties.iter().find(|field| field.name == word) {
            // `timeout connect 3s`, as HAProxy has it.
            let value =
                rest.first().map_or_else(|| field.kind.sample().to_owned(), |next| as_value(&next.raw));
            self.error(
                Diagnostic::error(first.span.clone(), format!("`{word}` takes its value after a `=`"))
                    .help(format!("write {word}={value}")),
            );
            return self.left_over(item, entries, rest.get(1..).unwrap_or_default());
        }
        let mut missing = missing_properties(row, entries);
        if let (Some(field), None, []) = (missing.next(), missing.next(), rest) {
            self.error(
                Diagnostic::error(
                    first.span.clone(),
                    format!("`{}` lacks its name: `{}=`", shorten(&word), field.name),
                )
                .help(format!("write {}={}", field.name, as_value(&first.raw))),
            );
            return;
        }
        let span = first.span.start..rest.last().unwrap_or(first).span.end;
        let words = self.source.text[span.clone()].to_owned();
        let takes = takes(row);
        let help = match left.iter().find_map(|entry| Some((entry, known_as(row, &entry.raw.text())?))) {
            Some((entry, field)) => format!(
                "`{}` is `{}=` here; write for example: {}",
                entry.raw.text(),
                field.name,
                row.example
            ),
            None => format!("write for example: {}", row.example),
        };
        let message = format!("`{}` is too much: `{}` {takes}", shorten(&words), row.title());
        self.error(Diagnostic::error(span, message).help(help));
    }

    fn no_argument(&mut self, item: &Item, field: &Field) {
        let row = item.row;
        self.error(
            Diagnostic::error(
                item.span.clone(),
                format!("`{}` lacks its {}: {}", row.title(), field.name, field.kind.describe()),
            )
            .help(format!("write for example: {}", row.example)),
        );
    }

    fn value(&mut self, item: &mut Item, field: &'static Field, entry: &Entry) {
        match field.kind.parse(&entry.raw) {
            Ok(value) => item.values.push(Given { field, value, span: entry.span.clone() }),
            Err(misfit) => {
                let is_property = item.row.properties.iter().any(|f| f.name == field.name);
                let what = if is_property {
                    format!("`{}=`", field.name)
                } else {
                    format!("`{}`", item.row.title())
                };
                let message =
                    format!("{what} takes {}, not `{}`", misfit.expected, shorten(&entry.raw.text()));
                self.error(Diagnostic::error(entry.span.clone(), message).help(misfit.help));
            }
        }
    }
}

/// One argument or property as it stands in the text.
struct Entry {
    name: Option<(String, Span)>,
    raw: Raw,
    span: Span,
    /// A property without a value, which has been reported.
    void: bool,
}

impl Entry {
    fn new(source: &Source, entry: &KdlEntry) -> Self {
        let whole = source.span(entry.span().offset(), entry.span().len());
        let written = entry.format().map_or(0, |format| format.value_repr.len());
        // A property's span covers `name=value`; the value is what it ends with.
        let span = if entry.name().is_some() {
            whole.end.saturating_sub(written).max(whole.start)..whole.end
        } else {
            whole
        };
        let raw = match source.meant(&span) {
            Some(text) => Raw::Text(text),
            None => match entry.value() {
                KdlValue::String(text) => Raw::Text(text.clone()),
                KdlValue::Integer(number) => Raw::Integer(*number),
                KdlValue::Float(number) => Raw::Float(*number, source.text[span.clone()].to_owned()),
                KdlValue::Bool(_) | KdlValue::Null => Raw::Keyword(source.text[span.clone()].to_owned()),
            },
        };
        if let (None, Raw::Text(text)) = (entry.name(), &raw)
            && let (Some(name), Some(_)) = (text.strip_suffix('='), source.meant(&span))
        {
            return Self {
                name: Some((name.trim_end().to_owned(), span.clone())),
                raw: raw.clone(),
                span,
                void: true,
            };
        }
        let name = entry.name().map(|name| {
            let span = source.span(name.span().offset(), name.span().len());
            (source.meant(&span).unwrap_or_else(|| name.value().to_owned()), span)
        });
        Self { name, raw, span, void: false }
    }
}

/// The properties that a directive has to have and that `entries` do not give.
fn missing_properties<'a>(
    row: &'static Directive,
    entries: &'a [Entry],
) -> impl Iterator<Item = &'static Field> + Clone + 'a {
    let given = |field: &Field| {
        entries.iter().any(|entry| entry.name.as_ref().is_some_and(|(name, _)| name == field.name))
    };
    row.properties.iter().filter(move |field| field.need == Need::Required && !given(field))
}

/// The words that no argument takes.
fn unnamed<'a>(row: &Directive, entries: &'a [Entry]) -> impl Iterator<Item = &'a Entry> {
    let all = row.arguments.iter().any(|field| field.need == Need::OneOrMore);
    let taken = if all { usize::MAX } else { row.arguments.len() };
    entries.iter().filter(|entry| entry.name.is_none() && !entry.void).skip(taken)
}

/// A value as it is written after `=`.
fn as_value(raw: &Raw) -> String {
    match raw {
        Raw::Text(text) if !text.starts_with(|c: char| c.is_ascii_alphabetic()) => format!("\"{text}\""),
        other => other.text(),
    }
}

/// What a directive takes, in a sentence after its name.
fn takes(row: &Directive) -> String {
    match row.arguments.len() {
        0 if row.properties.is_empty() => "stands alone".into(),
        0 => format!("takes {}", properties_of(row)),
        1 => "takes one value".into(),
        n => format!("takes {n} values"),
    }
}

/// The property that other programs call `word`.
fn known_as(row: &Directive, word: &str) -> Option<&'static Field> {
    let own = table::foreign(word)?;
    row.properties.iter().find(|field| field.name == own)
}

fn unknown(name: &str, section: Section, span: Span) -> Diagnostic {
    let message = format!("there is no `{}` {}", shorten(name), section.place());
    let candidates = table::inside(section).map(|row| row.name);
    let foreign = table::foreign(name);
    let word = foreign.unwrap_or(name);
    // Best the one that may stand here, else the section of that name, else any.
    let elsewhere = table::all()
        .filter(|row| row.name == word || row.title() == word)
        .min_by_key(|row| (!row.inside.contains(&section), !row.inside.contains(&Section::File)));
    let help = match (nearest(name, candidates), elsewhere) {
        (_, Some(row)) if foreign.is_some() => {
            format!("here it is `{}`, {}: {}", row.title(), places(row), row.example)
        }
        (_, Some(row)) => format!("`{name}` stands {}: {}", places(row), row.example),
        (Some(near), None) => format!("did you mean `{near}`?"),
        (None, None) => {
            let mut words: Vec<&str> = table::inside(section).map(|row| row.name).collect();
            words.dedup();
            format!("what may stand there: {}", words.join(", "))
        }
    };
    Diagnostic::error(span, message).help(help)
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

fn unknown_property(row: &Directive, name: &str, span: Span) -> Diagnostic {
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

fn properties_of(row: &Directive) -> String {
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
