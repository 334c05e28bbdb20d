//! Text to KDL document, with errors that an operator understands.
//!
//! The KDL parser's own messages speak of grammar ("expected end of document"). So a scanner goes over
//! the text first and finds what people really get wrong: words that need quotes, braces that do not
//! match, `#` comments. Where the intent is clear it reports the mistake, puts a harmless word of the
//! same length in its place and remembers what was meant, so that the rest of the file is still
//! checked in the same run. It also bounds nesting before the recursive parser sees the text.
//!
//! Called by [`crate::parse`]; knows KDL, not directives.

use kdl::KdlDocument;

use crate::advice::shorten;
use crate::diagnostic::{Diagnostic, Span};

/// Longest file, in bytes.
pub(crate) const LONGEST_FILE: usize = 1 << 20;
/// Deepest block in a block, comment in a comment, or chain of `/-`.
const DEEPEST: usize = 16;
/// Invisible characters reported one by one.
const MOST_INVISIBLE: usize = 20;

/// A text, and what was meant where the parser was given something else.
#[derive(Debug)]
pub(crate) struct Source {
    /// The text as it is.
    pub(crate) text: String,
    meant: Vec<(Span, String)>,
}

impl Source {
    /// A span of the KDL parser as bytes of the text.
    pub(crate) fn span(&self, offset: usize, length: usize) -> Span {
        let start = self.text.floor_char_boundary(offset);
        start..self.text.ceil_char_boundary(offset.saturating_add(length)).max(start)
    }

    /// What was meant by the word at `span`, where that is not what the parser saw.
    pub(crate) fn meant(&self, span: &Span) -> Option<String> {
        let at = self.meant.binary_search_by_key(&span.start, |(span, _)| span.start).ok()?;
        Some(self.meant[at].1.clone())
    }

    /// Where in the file the bytes `at` of the word at `span` stand, whose meaning is `text` and which begin
    /// with a `%`: escapes may make the word longer than its meaning, but none of them makes a `%`.
    pub(crate) fn within(&self, span: &Span, text: &str, at: std::ops::Range<usize>) -> Span {
        let before = text.get(..at.start).unwrap_or_default().matches('%').count();
        let raw = &self.text[span.clone()];
        match raw.match_indices('%').nth(before) {
            Some((offset, _)) if text[at.start..].starts_with('%') => {
                let start = span.start + offset;
                start..(start + at.len()).min(span.end)
            }
            _ => span.clone(),
        }
    }
}

/// The document, as far as there is one, and what is wrong with the text.
pub(crate) fn read(text: &str) -> (Source, Option<KdlDocument>, Vec<Diagnostic>) {
    let mut source = Source { text: text.to_owned(), meant: Vec::new() };
    if text.len() > LONGEST_FILE {
        let error =
            Diagnostic::error(0..0, format!("the file has {} bytes; {LONGEST_FILE} are allowed", text.len()))
                .help("a platform of this size is better described in several files");
        return (source, None, vec![error]);
    }
    let (clean, mut diagnostics) = without_invisible(text);
    let mut scanner = Scanner::new(&clean);
    scanner.scan();
    diagnostics.append(&mut scanner.diagnostics);
    let (repaired, meant, fatal) = (scanner.repaired, scanner.meant, scanner.fatal);
    source.meant = meant;
    source.meant.sort_by_key(|(span, _)| span.start);
    if fatal {
        return (source, None, diagnostics);
    }
    let repaired = String::from_utf8(repaired).unwrap_or_default();
    match KdlDocument::parse_v2(&repaired) {
        Ok(document) => (source, Some(document), diagnostics),
        Err(error) => {
            if diagnostics.is_empty() {
                diagnostics.push(from_parser(&source, &error));
            }
            (source, None, diagnostics)
        }
    }
}

/// The parser's first message, for what the scanner did not foresee.
fn from_parser(source: &Source, error: &kdl::KdlError) -> Diagnostic {
    let first = error.diagnostics.iter().min_by_key(|d| d.span.offset());
    let (span, message, help) = match first {
        Some(d) => (source.span(d.span.offset(), d.span.len()), d.message.clone(), d.help.clone()),
        None => (0..0, None, None),
    };
    let message = message.unwrap_or_else(|| "unexpected text".into());
    let mut letters = message.chars();
    let message: String = letters.next().into_iter().flat_map(char::to_lowercase).chain(letters).collect();
    Diagnostic::error(span, format!("this is not KDL: {message}")).help(help.unwrap_or_else(|| {
        "a directive is a line: name, values, name=value pairs, then perhaps a { block }".into()
    }))
}

/// The text with spaces for the characters that KDL forbids because nobody sees them.
fn without_invisible(text: &str) -> (String, Vec<Diagnostic>) {
    let mut clean = String::with_capacity(text.len());
    let mut diagnostics = Vec::new();
    for (at, c) in text.char_indices() {
        let forbidden = matches!(c, '\0'..='\x08' | '\x0e'..='\x1f' | '\x7f' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            || (c == '\u{feff}' && at != 0);
        if !forbidden {
            clean.push(c);
            continue;
        }
        clean.extend(std::iter::repeat_n(' ', c.len_utf8()));
        if diagnostics.len() < MOST_INVISIBLE {
            let message = format!("an invisible character stands here: U+{:04X}", c as u32);
            diagnostics.push(
                Diagnostic::error(at..at + c.len_utf8(), message)
                    .help("delete it; it may have come with a copied text"),
            );
        }
    }
    (clean, diagnostics)
}

/// What stands before the current place on its line.
#[derive(Clone, Debug, PartialEq)]
enum Before {
    /// Nothing: the name of a directive comes next.
    Nothing,
    /// A word that may be a property's name, if `=` follows.
    Word(Span),
    /// A complete value.
    Value,
    /// `name=`
    Equals(Span),
    /// A closed block.
    Block,
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    before: Before,
    /// Whether the word before is the directive's name.
    name_only: bool,
    blocks: Vec<usize>,
    /// The text being read has an escape that means nothing.
    bad_escape: bool,
    /// A `{` that seems to lack its `}`, and where that shows.
    suspect: Option<(usize, usize)>,
    slashdashes: usize,
    repaired: Vec<u8>,
    meant: Vec<(Span, String)>,
    diagnostics: Vec<Diagnostic>,
    fatal: bool,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            before: Before::Nothing,
            name_only: false,
            blocks: Vec::new(),
            bad_escape: false,
            suspect: None,
            slashdashes: 0,
            repaired: text.as_bytes().to_vec(),
            meant: Vec::new(),
            diagnostics: Vec::new(),
            fatal: false,
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn error(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.diagnostics.push(Diagnostic::error(span, message).help(help));
    }

    fn fatal(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.fatal = true;
        self.error(span, message, help);
    }

    /// Gives the parser spaces instead.
    fn blank(&mut self, span: Span) {
        self.repaired[span].fill(b' ');
    }

    /// Gives the parser a word instead, and remembers what it stands for.
    fn stand_in(&mut self, span: Span, meant: &str) {
        self.repaired[span.clone()].fill(b'x');
        self.meant.push((span, meant.to_owned()));
    }

    fn scan(&mut self) {
        while let Some(c) = self.rest().chars().next() {
            let start = self.at;
            match c {
                c if is_newline(c) => self.end_of_directive(c.len_utf8()),
                ';' => self.end_of_directive(1),
                c if is_space(c) => self.at += c.len_utf8(),
                '{' => self.open(),
                '}' => self.close(),
                '\\' => self.continuation(),
                '/' if self.rest().starts_with("//") => self.at += line_length(self.rest()),
                '/' if self.rest().starts_with("/*") => self.comment(),
                '/' if self.rest().starts_with("/-") => self.slashdash(),
                '=' => self.equals(),
                '"' => self.string(),
                '#' => self.hash(),
                _ => self.bare(),
            }
            debug_assert!(self.at > start || self.at == self.text.len(), "the scanner moves on");
            if self.fatal && self.blocks.len() > DEEPEST {
                return;
            }
        }
        self.end_of_directive(0);
        if let Some(&open) = self.blocks.last() {
            let (open, shows) = self.suspect.map_or((open, None), |(open, shows)| (open, Some(shows)));
            self.fatal(
                open..open + 1,
                "this `{` is never closed",
                "close its block with a `}` on a line of its own",
            );
            if let (Some(shows), Some(last)) = (shows, self.diagnostics.last_mut()) {
                let end = shows + word_length(&self.text[shows..]);
                last.related =
                    Some((shows..end, "what seems to be the next section is still inside it".into()));
            }
        }
    }

    fn end_of_directive(&mut self, length: usize) {
        if let Before::Equals(span) = self.before.clone() {
            let name = &self.text[span.clone()];
            let name = name.trim_end_matches('=').trim_end().to_owned();
            self.error(
                span.clone(),
                format!("`{name}=` has no value"),
                format!("write {name}=VALUE, or leave it out"),
            );
            self.stand_in(span, &format!("{name}="));
        }
        self.before = Before::Nothing;
        self.slashdashes = 0;
        self.at += length;
    }

    fn open(&mut self) {
        let at = self.at;
        if self.before == Before::Nothing {
            // The brace of a block on its own line, as C has it.
            let gap = self.text[..at].trim_end();
            let starts = gap.ends_with(['{', '}', ';']) || gap.is_empty();
            let commented = gap.rsplit('\n').next().is_some_and(|line| line.contains("//"));
            if starts || commented || gap.ends_with("*/") {
                self.fatal(
                    at..at + 1,
                    "this block belongs to no directive",
                    "`{` stands on the line of its directive, after it",
                );
            } else {
                let gap = gap.len();
                self.error(
                    at..at + 1,
                    "this `{` stands on a line of its own",
                    "write it at the end of the line before",
                );
                self.blank(gap..at);
            }
        }
        self.blocks.push(at);
        if self.blocks.len() > DEEPEST {
            self.fatal(
                at..at + 1,
                format!("blocks are nested more than {DEEPEST} deep"),
                "no directive needs that: look for a `}` that is missing",
            );
        }
        self.end_of_directive(1);
    }

    fn close(&mut self) {
        let at = self.at;
        self.end_of_directive(0);
        if self.blocks.pop().is_none() {
            self.error(
                at..at + 1,
                "this `}` closes nothing",
                "delete it, or look for a `{` that is missing above",
            );
            self.blank(at..at + 1);
        }
        self.at += 1;
        self.before = Before::Block;
    }

    /// `\` at the end of a line joins it with the next.
    fn continuation(&mut self) {
        let after = self.rest()[1..].trim_start_matches(is_space);
        if after.is_empty() || after.starts_with(is_newline) || after.starts_with("//") {
            let line = line_length(self.rest());
            let newline = self.rest()[line..].chars().next().map_or(0, char::len_utf8);
            let crlf = usize::from(self.rest()[line..].starts_with("\r\n"));
            self.at += line + newline + crlf;
            return;
        }
        let at = self.at;
        self.error(
            at..at + 1,
            "a `\\` outside quotes only joins a line with the next",
            "delete it, or put the word in quotes",
        );
        self.blank(at..at + 1);
        self.at += 1;
    }

    fn comment(&mut self) {
        let start = self.at;
        let mut depth = 0usize;
        let mut deepest = 0;
        while let Some(c) = self.rest().chars().next() {
            if self.rest().starts_with("/*") {
                depth += 1;
                deepest = depth.max(deepest);
                self.at += 2;
            } else if self.rest().starts_with("*/") {
                depth -= 1;
                self.at += 2;
                if depth == 0 {
                    break;
                }
            } else {
                self.at += c.len_utf8();
            }
        }
        if depth > 0 {
            self.fatal(start..start + 2, "this comment is never closed", "close it with */");
        } else if deepest > DEEPEST {
            self.fatal(
                start..start + 2,
                format!("comments are nested more than {DEEPEST} deep"),
                "use // at the beginning of each line",
            );
        }
    }

    fn slashdash(&mut self) {
        self.slashdashes += 1;
        if self.slashdashes > DEEPEST {
            let at = self.at;
            self.fatal(
                at..at + 2,
                format!("more than {DEEPEST} `/-` on one line"),
                "use // to comment the line out",
            );
        }
        self.at += 2;
    }

    fn equals(&mut self) {
        let at = self.at;
        self.at += 1;
        match self.before.clone() {
            Before::Word(span) if !self.name_only => self.before = Before::Equals(span.start..at + 1),
            Before::Word(span) => {
                let name = &self.text[span.clone()];
                self.error(
                    span.start..at + 1,
                    format!("`{name}` is a directive: no `=` after it"),
                    format!("write {name} and its value with a space between them"),
                );
                self.blank(at..at + 1);
            }
            _ => {
                self.error(at..at + 1, "this `=` has no name before it", "write name=value, without spaces");
                self.blank(at..at + 1);
            }
        }
    }

    /// A quoted string, of one line or of several.
    fn string(&mut self) {
        let start = self.at;
        self.begin_value(start);
        let multi = self.rest().starts_with("\"\"\"");
        let quotes = if multi { 3 } else { 1 };
        self.at += quotes;
        loop {
            let Some(c) = self.rest().chars().next() else {
                return self.unclosed(start, multi);
            };
            match c {
                '"' if !multi || self.rest().starts_with("\"\"\"") => break,
                '\\' => self.escape(),
                c if is_newline(c) && !multi => return self.unclosed(start, multi),
                c => self.at += c.len_utf8(),
            }
        }
        if std::mem::take(&mut self.bad_escape) {
            self.meant.push((start..self.at, self.text[start + quotes..self.at].to_owned()));
        }
        self.at += quotes;
        self.end_value(start);
    }

    fn unclosed(&mut self, start: usize, multi: bool) {
        let line = start + line_length(&self.text[start..]);
        if multi {
            self.fatal(
                start..start + 3,
                "this text is never closed",
                "close it with \"\"\" on a line of its own",
            );
        } else {
            let text = self.text[start..line].trim_end();
            self.fatal(
                start..start + text.len(),
                "this text has no closing quote",
                "close it with a \" on the same line",
            );
        }
        self.before = Before::Value;
    }

    fn escape(&mut self) {
        let at = self.at;
        let next = self.rest().chars().nth(1);
        self.at += 1 + next.map_or(0, char::len_utf8);
        let good = match next {
            Some('n' | 'r' | 't' | '\\' | '"' | 'b' | 'f' | 's') => true,
            Some(c) if is_space(c) || is_newline(c) => {
                // Swallows all white space after it.
                let space = self.rest().len()
                    - self.rest().trim_start_matches(|c| is_space(c) || is_newline(c)).len();
                self.at += space;
                true
            }
            Some('u') => {
                let hex = self.rest().strip_prefix('{').and_then(|r| r.split_once('}')).map(|(hex, _)| hex);
                let code =
                    hex.filter(|h| (1..=6).contains(&h.len())).and_then(|h| u32::from_str_radix(h, 16).ok());
                code.and_then(char::from_u32).is_some()
            }
            _ => false,
        };
        if !good {
            let end = self.at;
            let what = self.text[at..end].to_owned();
            self.error(
                at..end,
                format!("`{what}` means nothing inside quotes"),
                "a backslash itself is written \\\\",
            );
            self.repaired[at..end].fill(b'x');
            self.bad_escape = true;
        }
    }

    /// `#true`, `#"raw text"#`, or a comment as other files have them.
    fn hash(&mut self) {
        let start = self.at;
        let rest = self.rest();
        let hashes = rest.len() - rest.trim_start_matches('#').len();
        if rest[hashes..].starts_with('"') {
            self.begin_value(start);
            let quotes = if rest[hashes..].starts_with("\"\"\"") { 3 } else { 1 };
            let end = format!("{}{}", "\"".repeat(quotes), "#".repeat(hashes));
            let body = &rest[hashes + quotes..];
            match body.find(&end) {
                Some(length) if quotes == 3 || !body[..length].contains(is_newline) => {
                    self.at += hashes + quotes + length + end.len();
                    self.end_value(start);
                }
                _ => {
                    self.fatal(
                        start..start + hashes + quotes,
                        "this raw text is never closed",
                        format!("close it with {end}"),
                    );
                    self.at += line_length(rest);
                }
            }
            return;
        }
        let word = &rest[..word_length(rest)];
        if matches!(word, "#true" | "#false" | "#null" | "#inf" | "#-inf" | "#nan") {
            self.begin_value(start);
            self.at += word.len();
            self.end_value(start);
            return;
        }
        let line = line_length(rest);
        self.error(
            start..start + 1,
            "comments begin with // here, not with #",
            "write // instead; text that has a # in it goes in quotes",
        );
        self.blank(start..start + line);
        self.at += line;
    }

    /// A word without quotes: a name, a number, or something that needed them.
    fn bare(&mut self) {
        let start = self.at;
        let as_name = matches!(self.before, Before::Nothing | Before::Block);
        let property = match &self.before {
            Before::Equals(name) => &self.text[name.clone()],
            _ => "",
        };
        let as_property = !property.is_empty();
        let length = bare_length(self.rest(), as_property);
        let word = &self.rest()[..length];
        let span = start..start + length;
        let indented = start > 0 && !self.text[..start].ends_with(is_newline);
        if as_name
            && !indented
            && self.suspect.is_none()
            && let Some(&open) = self.blocks.last()
        {
            self.suspect = Some((open, start));
        }
        self.begin_value(start);
        self.at += length;
        self.judge(word, span.clone(), as_name, property);
        self.before = if as_property { Before::Value } else { Before::Word(span) };
        self.name_only = as_name;
    }

    fn judge(&mut self, word: &str, span: Span, as_name: bool, property: &str) {
        let quote = |c: char| matches!(c, '\'' | '“' | '”' | '„' | '‘' | '’' | '«' | '»' | '`');
        let plain = word.trim_matches(quote);
        if word.starts_with(quote) || (plain != word && !as_name) {
            self.error(
                span.clone(),
                format!("{} is in quotes that do not count", shorten(word)),
                format!("use \" on both sides: \"{plain}\""),
            );
            return self.stand_in(span, plain);
        }
        if !as_name
            && word.len() > 1
            && let Some(before) = word.strip_suffix(',')
        {
            self.error(
                span.end - 1..span.end,
                "no comma between values",
                "values stand with a space between them",
            );
            return self.stand_in(span, before);
        }
        if is_identifier(word) || (is_number(word) && !as_name) {
            return;
        }
        if as_name {
            self.error(
                span.clone(),
                format!("`{}` is no directive", shorten(word)),
                "a line begins with the name of a directive",
            );
        } else if !is_keyword(word) && !is_long_number(word) {
            let word = shorten(word);
            self.error(span.clone(), format!("`{word}` needs quotes"), format!("write {property}\"{word}\""));
        }
        self.stand_in(span, word);
    }

    /// A value begins here: there must be something that it can belong to.
    fn begin_value(&mut self, start: usize) {
        if self.before == Before::Block {
            let gap = &self.text[..start];
            let end = start + word_length(&self.text[start..]);
            self.error(
                start..end,
                "a directive needs a line of its own",
                "begin a new line, or put a `;` after the `}`",
            );
            if gap.ends_with([' ', '\t']) {
                self.repaired[start - 1] = b';';
            } else {
                self.fatal = true;
            }
            self.before = Before::Nothing;
        }
    }

    /// A quoted value has just ended: something must part it from the next.
    fn end_value(&mut self, start: usize) {
        let at = self.at;
        let as_name = self.before == Before::Nothing;
        let as_property = matches!(self.before, Before::Equals(_));
        self.before = if as_property { Before::Value } else { Before::Word(start..at) };
        self.name_only = as_name;
        match self.rest().chars().next() {
            None | Some(';' | '{' | '}' | '=' | '\\' | '/') => {}
            Some(c) if is_space(c) || is_newline(c) => {}
            Some(',') => {
                self.error(at..at + 1, "no comma between values", "values stand with a space between them");
                self.blank(at..at + 1);
                self.at += 1;
            }
            Some(_) => {
                let end = at + word_length(self.rest());
                self.fatal(
                    at..end,
                    "a space is missing before this word",
                    "put a space between two values, or everything inside the quotes",
                );
                self.at = end;
            }
        }
    }
}

fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}')
}

fn is_space(c: char) -> bool {
    matches!(
        c,
        '\t' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'
            ..='\u{200a}' | '\u{202f}' | '\u{205f}' | '\u{3000}' | '\u{feff}'
    )
}

fn line_length(text: &str) -> usize {
    text.find(is_newline).unwrap_or(text.len())
}

/// Length of what an eye takes for one word.
fn word_length(text: &str) -> usize {
    text.find(|c| is_space(c) || is_newline(c) || matches!(c, ';' | '{' | '}' | '"'))
        .unwrap_or(text.len())
        .max(text.chars().next().map_or(0, char::len_utf8))
}

/// Length of a word without quotes. It may be a path or a URL whose quotes were forgotten, so `//` ends
/// it only where no `:` stands before, and `/*` only where no `/` does; `=` ends a name, not a value.
fn bare_length(text: &str, as_property: bool) -> usize {
    let end = word_length(text);
    let word = &text[..end];
    let slashed = |at: usize| word[..at].contains('/');
    for (at, c) in word.char_indices().skip(1) {
        let before = &word[..at];
        match c {
            '=' if !as_property && !slashed(at) => return at,
            '/' if word[at..].starts_with("//") && !before.ends_with(':') => return at,
            '/' if word[at..].starts_with("/*") && !slashed(at) => return at,
            '\\' => return at,
            _ => {}
        }
    }
    end
}

fn is_identifier(word: &str) -> bool {
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    let like_number =
        unsigned.strip_prefix('.').unwrap_or(unsigned).starts_with(|c: char| c.is_ascii_digit());
    !word.is_empty()
        && !like_number
        && !is_keyword(word)
        && !word.contains(['[', ']', '(', ')', '#', '/', '\\', '=', '"'])
}

/// Words that KDL keeps for itself. Reported by type where they stand, not here.
fn is_keyword(word: &str) -> bool {
    matches!(word, "true" | "false" | "null" | "inf" | "-inf" | "nan")
}

fn digits(text: &str, good: fn(&char) -> bool) -> bool {
    text.starts_with(|c: char| good(&c)) && text.chars().all(|c| good(&c) || c == '_')
}

fn is_number(word: &str) -> bool {
    if is_long_number(word) {
        return false;
    }
    let unsigned = word.strip_prefix(['+', '-']).unwrap_or(word);
    for (prefix, good) in [
        ("0x", char::is_ascii_hexdigit as fn(&char) -> bool),
        ("0o", |c| matches!(c, '0'..='7')),
        ("0b", |c| matches!(c, '0' | '1')),
    ] {
        if let Some(rest) = unsigned.strip_prefix(prefix) {
            return digits(rest, good);
        }
    }
    let (mantissa, exponent) =
        unsigned.split_once(['e', 'E']).map_or((unsigned, None), |(m, e)| (m, Some(e)));
    let (whole, fraction) = mantissa.split_once('.').map_or((mantissa, None), |(w, f)| (w, Some(f)));
    let decimal = char::is_ascii_digit as fn(&char) -> bool;
    digits(whole, decimal)
        && fraction.is_none_or(|f| digits(f, decimal))
        && exponent.is_none_or(|e| digits(e.strip_prefix(['+', '-']).unwrap_or(e), decimal))
}

/// A number that the parser has no room for; its type says so.
fn is_long_number(word: &str) -> bool {
    word.len() > 30
        && word.chars().all(|c| c.is_ascii_hexdigit() || matches!(c, '+' | '-' | '.' | '_' | 'x' | 'o'))
        && word.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-'))
}
