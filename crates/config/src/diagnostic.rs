//! What is wrong with a file, and how an operator gets to see it.
//!
//! A [`Diagnostic`] points at bytes of the text; [`render`] turns it into `FILE:LINE:COL`, the line, a
//! caret under the offending word and a `help:` that says what to write instead. Nothing here knows
//! directives: `syntax`, `walk` and `resolve` make the diagnostics, [`crate::Checked`] and
//! [`crate::Rejected`] show them.

use std::ops::Range;

use annotate_snippets::{Annotation, AnnotationKind, Level, Renderer, Snippet};

/// Where in the text: byte offsets.
pub type Span = Range<usize>;

/// Most diagnostics that are shown in full; beyond that their number is said.
const MOST_SHOWN: usize = 100;
/// Lines longer than this, in bytes, are shown around the offending word only.
const LONGEST_LINE: usize = 400;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The file cannot be used.
    Error,
    /// The file can be used, but probably not as intended.
    Warning,
    /// Something to know, such as a file that is missing on this machine.
    Note,
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The offending word.
    pub span: Span,
    /// What is wrong, one sentence without a full stop.
    pub message: String,
    /// What the word under the caret is, where that helps.
    pub label: String,
    /// What to write instead.
    pub help: String,
    /// Another place that matters, such as where a name was given first.
    pub related: Option<(Span, String)>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self::new(Severity::Error, span, message)
    }

    /// A finding of any severity at `span`.
    pub fn new(severity: Severity, span: Span, message: impl Into<String>) -> Self {
        Self {
            severity,
            span,
            message: message.into(),
            label: String::new(),
            help: String::new(),
            related: None,
        }
    }

    /// Says what the word under the caret is.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Says what to write instead.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = help.into();
        self
    }

    /// Points at another place that matters.
    pub fn related(mut self, span: Span, label: impl Into<String>) -> Self {
        self.related = Some((span, label.into()));
        self
    }
}

/// A position in a text as people count: both from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// The position of byte `offset` of `text`.
pub fn position(text: &str, offset: usize) -> Position {
    let offset = text.floor_char_boundary(offset);
    let before = &text[..offset];
    let start = before.rfind('\n').map_or(0, |i| i + 1);
    Position { line: 1 + before.matches('\n').count(), column: 1 + text[start..offset].chars().count() }
}

/// Sorts by position and forgets what was found twice.
pub fn sort(diagnostics: &mut Vec<Diagnostic>) {
    diagnostics.sort_by_key(|d| (d.span.start, d.severity));
    diagnostics.dedup();
}

/// The findings as an operator reads them, worst news last: a line that counts them.
pub fn render(file: &str, text: &str, diagnostics: &[Diagnostic], colour: bool) -> String {
    let renderer = if colour { Renderer::styled() } else { Renderer::plain() }.term_width(120);
    let mut out = String::new();
    for diagnostic in diagnostics.iter().take(MOST_SHOWN) {
        out.push_str(&render_one(&renderer, file, text, diagnostic));
        out.push_str("\n\n");
    }
    if diagnostics.len() > MOST_SHOWN {
        out.push_str(&format!("... and {} more\n\n", diagnostics.len() - MOST_SHOWN));
    }
    out
}

fn render_one(renderer: &Renderer, file: &str, text: &str, diagnostic: &Diagnostic) -> String {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
        Severity::Note => Level::NOTE,
    };
    let primary = AnnotationKind::Primary;
    let mut group = level.primary_title(&diagnostic.message).element(excerpt(
        file,
        text,
        &diagnostic.span,
        primary,
        &diagnostic.label,
    ));
    if let Some((span, label)) = &diagnostic.related {
        group = group.element(excerpt(file, text, span, AnnotationKind::Context, label));
    }
    if !diagnostic.help.is_empty() {
        group = group.element(Level::HELP.message(&diagnostic.help));
    }
    renderer.render(&[group])
}

/// The line that `span` begins on. Only that line is handed to the renderer, so that its work does not
/// grow with the file.
fn excerpt<'a>(
    file: &'a str,
    text: &'a str,
    span: &Span,
    kind: AnnotationKind,
    label: &'a str,
) -> Snippet<'a, Annotation<'a>> {
    let at = text.floor_char_boundary(span.start);
    let line_start = text[..at].rfind('\n').map_or(0, |i| i + 1);
    let line_end = text[at..].find(['\n', '\r']).map_or(text.len(), |i| at + i);
    let start = if at - line_start > LONGEST_LINE {
        text.ceil_char_boundary(at - LONGEST_LINE / 2)
    } else {
        line_start
    };
    let end = text.floor_char_boundary(line_end.min(at + LONGEST_LINE));
    let from = at - start;
    let to = text.ceil_char_boundary(span.end).min(end).saturating_sub(start).max(from);
    let annotation = kind.span(from..to);
    let annotation = if label.is_empty() { annotation } else { annotation.label(label) };
    Snippet::source(&text[start..end]).path(file).line_start(position(text, at).line).annotation(annotation)
}
