//! The walk: a KDL document, block by block, against the directive table.
//!
//! Every node becomes an [`Item`] whose values have their types and defaults, or a diagnostic that says
//! what to write instead. What needs more than one directive to see (names, references, listeners) is
//! `resolve`'s. A value that did not fit is simply missing from its item: it has been reported, and the
//! walk goes on so that one run finds everything.

use kdl::{KdlDocument, KdlEntry, KdlNode, KdlValue};

use crate::advice::{as_value, known_as, shorten, takes, unknown, unknown_property};
use crate::diagnostic::{Diagnostic, Span};
use crate::item::{Given, Item};
use crate::nearest::nearest;
use crate::syntax::Source;
use crate::table::{self, Directive, Field, Need, Section, Times};
use crate::value::{Misfit, Raw, alternatives};

/// The directives of `document`, read as the block of `section`, and what is wrong with them.
pub(crate) fn walk(
    source: &Source,
    document: &KdlDocument,
    section: Section,
) -> (Vec<Item>, Vec<Diagnostic>) {
    let mut walk = Walk { source, diagnostics: Vec::new() };
    let (items, _) = walk.block(document, section, source.span(0, 1), "");
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

    /// A block: its directives, each as often as its row allows, and the names that it says, also those
    /// that cannot be read and seem to be meant. `owner` is whose block it is, for messages.
    fn block(
        &mut self,
        document: &KdlDocument,
        section: Section,
        owner_span: Span,
        owner: &str,
    ) -> (Vec<Item>, Vec<&'static str>) {
        let mut said: Vec<&'static str> = Vec::new();
        let mut items: Vec<Item> = Vec::new();
        for node in document.nodes() {
            let name = node.name().value();
            let span = self.source.span(node.name().span().offset(), node.name().span().len());
            if self.source.meant(&span).is_some() {
                continue; // No name at all, which has been reported.
            }
            let rows = table::rows(section, name);
            let Some(first) = rows.first() else {
                let (unknown, meant) = unknown(name, section, span);
                self.error(unknown);
                said.extend(meant);
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
            if !said.contains(&first.name) {
                said.push(first.name);
            }
            let (item, forgotten) = self.directive(node, &rows, section, span);
            items.extend(item);
            said.extend(forgotten);
        }
        self.missing(section, &said, owner_span, owner);
        (items, said)
    }

    /// What a block has to have and has not.
    fn missing(&mut self, section: Section, said: &[&str], span: Span, owner: &str) {
        for row in table::inside(section) {
            if matches!(row.times, Times::Required | Times::OneOrMore) && !said.contains(&row.name) {
                let owner = if owner.is_empty() { "the file" } else { owner };
                self.error(
                    Diagnostic::error(span.clone(), format!("{owner} has no `{}`", row.name))
                        .help(format!("add for example: {}", row.example)),
                );
            }
        }
    }

    /// One directive, and the name of another on its line that a new line was forgotten before.
    fn directive(
        &mut self,
        node: &KdlNode,
        rows: &[&'static Directive],
        section: Section,
        span: Span,
    ) -> (Option<Item>, Option<&'static str>) {
        let entries: Vec<Entry> = node.entries().iter().map(|entry| Entry::new(self.source, entry)).collect();
        let Some((row, mut entries)) = self.choose_form(rows, entries, &span) else { return (None, None) };
        let mut item =
            Item { row, span: span.clone(), values: Vec::new(), children: Vec::new(), said: Vec::new() };
        let forgotten = self.up_to_next_directive(row, section, &mut entries);
        self.properties(&mut item, &entries);
        self.arguments(&mut item, &entries);
        item.fill_in_defaults();
        match (row.block, node.children()) {
            (Some(section), Some(children)) => {
                let owner = title(&item);
                (item.children, item.said) = self.block(children, section, span, &owner);
            }
            (Some(section), None) => self.without_block(&mut item, section),
            (None, Some(_)) => self.error(
                Diagnostic::error(span, format!("`{}` takes no block", row.title()))
                    .help(format!("write for example: {}", row.example)),
            ),
            (None, None) => {}
        }
        (Some(item), forgotten)
    }

    /// A section that is nothing without its block: one error, not one for each thing it lacks.
    fn without_block(&mut self, item: &mut Item, section: Section) {
        let needed = |row: &Directive| matches!(row.times, Times::Required | Times::OneOrMore);
        if !table::inside(section).any(needed) && section != Section::Backend {
            return;
        }
        item.said = table::inside(section).map(|row| row.name).collect();
        self.error(
            Diagnostic::error(item.span.clone(), format!("{} has no block", title(item)))
                .help(format!("what belongs to it stands in braces: {}", item.row.example)),
        );
    }

    /// Takes away what follows a word that is the name of another directive: a new line was forgotten.
    fn up_to_next_directive(
        &mut self,
        row: &Directive,
        section: Section,
        entries: &mut Vec<Entry>,
    ) -> Option<&'static str> {
        let word = unnamed(row, entries).next()?;
        let text = word.raw.text();
        let next = table::inside(section).find(|row| row.name == text)?.name;
        let property = row.properties.iter().any(|field| field.name == text);
        if property || unnamed(row, entries).any(|entry| known_as(row, &entry.raw.text()).is_some()) {
            return None;
        }
        let span = word.span.clone();
        entries.retain(|entry| entry.span.start < span.start);
        self.error(
            Diagnostic::error(span, format!("`{next}` is a directive of its own"))
                .help(format!("begin a new line before `{next}`, or put a `;` there")),
        );
        Some(next)
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
        // `hdr(host)`: HAProxy puts what belongs to a word in parentheses.
        let theirs = word.split('(').next().unwrap_or_default();
        let ours = table::foreign(theirs).and_then(|ours| rows.iter().find(|row| row.title() == ours));
        let help = match nearest(&word, forms.iter().copied()) {
            _ if ours.is_some() => format!(
                "`{theirs}` is `{}` here; write for example: {}",
                ours.map(|row| row.title()).unwrap_or_default(),
                ours.map_or("", |row| row.example)
            ),
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
                Need::OneOrMore | Need::Any(_) => {
                    if words.peek().is_none() && field.need == Need::OneOrMore {
                        self.no_argument(item, field);
                    }
                    for entry in words.by_ref() {
                        self.value(item, field, entry);
                    }
                }
                // A word alone is `setting default`; whoever writes `retries` without a number forgot it.
                _ => match words.next() {
                    Some(entry) => self.value(item, field, entry),
                    // An action is no setting: `deny` alone does something.
                    None if row.is_action() && matches!(field.need, Need::Default(_)) => {}
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
            Err(Misfit { within: Some((at, message)), help, .. }) => {
                let span = self.source.within(&entry.span, &entry.raw.text(), at);
                self.error(Diagnostic::error(span, message).help(help));
            }
            Err(misfit) => {
                let is_property = item.row.properties.iter().any(|f| f.name == field.name);
                let what = if is_property {
                    format!("`{}=`", field.name)
                } else {
                    format!("`{}`", item.row.title())
                };
                let written = shorten(&self.source.text[entry.span.clone()]);
                let message = format!("{what} takes {}, not {written}", misfit.expected);
                self.error(Diagnostic::error(entry.span.clone(), message).help(misfit.help));
            }
        }
    }
}

/// Whose block it is, in a sentence: "vip `public`".
fn title(item: &Item) -> String {
    let name = item.name();
    if name.is_empty() { format!("this `{}`", item.row.name) } else { format!("{} `{name}`", item.row.name) }
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
    let all = row.arguments.iter().any(|field| matches!(field.need, Need::OneOrMore | Need::Any(_)));
    let taken = if all { usize::MAX } else { row.arguments.len() };
    entries.iter().filter(|entry| entry.name.is_none() && !entry.void).skip(taken)
}
