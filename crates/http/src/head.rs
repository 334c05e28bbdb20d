//! What request and response heads share: spans, the ranges that are kept, the walk over the fields.

use crate::field::{self, Field};
use crate::limits;
use crate::reject::{Reject, Why};

/// A range of a receive buffer that a head was parsed from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Span {
    /// Offset of its first byte.
    pub start: u16,
    /// Offset behind its last byte.
    pub end: u16,
}

impl Span {
    pub(crate) fn new(start: usize, end: usize) -> Span {
        debug_assert!(start <= end && end <= limits::HEAD_BYTES);
        Span { start: start as u16, end: end as u16 }
    }

    /// Its bytes in the buffer.
    pub fn of(self, buffer: &[u8]) -> &[u8] {
        &buffer[usize::from(self.start)..usize::from(self.end)]
    }

    /// How many bytes it has.
    pub fn len(self) -> usize {
        usize::from(self.end - self.start)
    }

    /// Whether it has none.
    pub fn is_empty(self) -> bool {
        self.start == self.end
    }
}

/// The ranges of a head that are sent on, in order, without the empty line that ends it.
#[derive(Clone, Debug)]
pub struct Kept {
    spans: [Span; limits::CUTS],
    count: usize,
}

impl Kept {
    pub(crate) fn new() -> Kept {
        Kept { spans: [Span::default(); limits::CUTS], count: 0 }
    }

    /// Keeps `start..end`, as one range with the one before where they touch.
    pub(crate) fn keep(&mut self, start: usize, end: usize) -> Result<(), Reject> {
        if start == end {
            return Ok(());
        }
        if let Some(last) = self.spans[..self.count].last_mut()
            && usize::from(last.end) == start
        {
            last.end = end as u16;
            return Ok(());
        }
        let place = self.spans.get_mut(self.count).ok_or(Reject::new(Why::TooManyFields, start))?;
        *place = Span::new(start, end);
        self.count += 1;
        Ok(())
    }

    /// The ranges.
    pub fn spans(&self) -> &[Span] {
        &self.spans[..self.count]
    }

    /// Its lines, each with its CRLF; the first of a response is the status line.
    pub fn lines<'a>(&'a self, buffer: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
        self.spans().iter().flat_map(|span| span.of(buffer).split_inclusive(|b| *b == b'\n'))
    }

    /// How many bytes they have together.
    pub fn len(&self) -> usize {
        self.spans().iter().map(|s| s.len()).sum()
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// How the end of a message's body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// There is none.
    None,
    /// So many bytes.
    Length(u64),
    /// Chunks.
    Chunked,
    /// Everything until the connection closes; responses only.
    UntilClose,
}

/// The fields of a head: where each line starts, and which it is.
pub(crate) struct Lines {
    starts: [u16; limits::FIELDS + 1],
    kinds: [Field; limits::FIELDS],
    count: usize,
}

impl Lines {
    /// Walks the fields that httparse found from `pos` on, again and strictly: each is `name ":" OWS value
    /// OWS CRLF`, and they follow each other without a gap. `visit` gets kind, offset, value.
    ///
    /// Returns the lines and the length of the head.
    pub(crate) fn walk(
        buffer: &[u8],
        mut pos: usize,
        fields: &[httparse::Header<'_>],
        mut visit: impl FnMut(Field, usize, Span) -> Result<(), Reject>,
    ) -> Result<(Lines, usize), Reject> {
        let mut lines =
            Lines { starts: [0; limits::FIELDS + 1], kinds: [Field::Other; limits::FIELDS], count: 0 };
        for parsed in fields {
            let start = pos;
            pos += parsed.name.len();
            if buffer.get(pos) != Some(&b':') {
                return Err(Reject::new(Why::FieldName, pos));
            }
            pos = skip_blank(buffer, pos + 1);
            let value = Span::new(pos, pos + parsed.value.len());
            pos = expect_crlf(buffer, skip_blank(buffer, usize::from(value.end)))?;
            let kind = Field::of(parsed.name.as_bytes());
            lines.starts[lines.count] = start as u16;
            lines.kinds[lines.count] = kind;
            lines.count += 1;
            if kind != Field::Other {
                visit(kind, start, value)?;
            }
        }
        lines.starts[lines.count] = pos as u16;
        Ok((lines, expect_crlf(buffer, pos)?))
    }

    /// Keeps every line that `cut` does not take away.
    pub(crate) fn keep(
        &self,
        buffer: &[u8],
        kept: &mut Kept,
        names: &ConnectionNames,
        mut cut: impl FnMut(Field) -> bool,
    ) -> Result<(), Reject> {
        for i in 0..self.count {
            let (start, end) = (usize::from(self.starts[i]), usize::from(self.starts[i + 1]));
            let named = || !names.is_empty() && names.has(buffer, &buffer[start..end]);
            let gone = match self.kinds[i] {
                Field::Other => named(),
                kind if kind.is_plain() => cut(kind) || named(),
                known => cut(known),
            };
            if !gone {
                kept.keep(start, end)?;
            }
        }
        Ok(())
    }
}

fn skip_blank(buffer: &[u8], mut pos: usize) -> usize {
    while matches!(buffer.get(pos), Some(b' ' | b'\t')) {
        pos += 1;
    }
    pos
}

pub(crate) fn expect_crlf(buffer: &[u8], pos: usize) -> Result<usize, Reject> {
    match buffer.get(pos..pos + 2) {
        Some(b"\r\n") => Ok(pos + 2),
        _ => Err(Reject::new(Why::BareLineEnd, pos)),
    }
}

/// What `Connection` says (RFC 9110 §7.6.1).
#[derive(Default)]
pub(crate) struct ConnectionNames {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
    pub(crate) trailer: bool,
    names: [Span; limits::CONNECTION_NAMES],
    count: usize,
}

impl ConnectionNames {
    /// Takes in one `Connection` field of a request.
    ///
    /// # Errors
    /// If it is malformed, or names what no hop may take away.
    pub(crate) fn add(&mut self, buffer: &[u8], value: Span) -> Result<(), Reject> {
        self.take_in(buffer, value, true)
    }

    /// Takes in one `Connection` field of a response. What servers misspell there, or name that must stay
    /// (`Transfer-Encoding`, of old ones), means nothing: no client is served better by a 502.
    pub(crate) fn add_of_server(&mut self, buffer: &[u8], value: Span) -> Result<(), Reject> {
        self.take_in(buffer, value, false)
    }

    fn take_in(&mut self, buffer: &[u8], value: Span, strict: bool) -> Result<(), Reject> {
        let bad = Reject::new(Why::Connection, usize::from(value.start));
        let mut offset = usize::from(value.start);
        for part in value.of(buffer).split(|&b| b == b',') {
            let name = field::trim(part);
            let at = skip_blank(buffer, offset).min(offset + part.len());
            offset += part.len() + 1;
            if name.is_empty() {
                continue; // RFC 9110 §5.6.1.2: a few empty elements are to be ignored
            }
            if !field::is_token(name) {
                if strict {
                    return Err(Reject::new(Why::Connection, at));
                }
                continue;
            }
            match Field::of(name) {
                Field::Upgrade => self.upgrade = true,
                Field::KeepAlive => self.keep_alive = true,
                kind if kind.is_structural() && strict => return Err(Reject::new(Why::Connection, at)),
                Field::Trailer => self.trailer = true,
                Field::Other if name.eq_ignore_ascii_case(b"close") => self.close = true,
                kind if kind.is_plain() => {
                    *self.names.get_mut(self.count).ok_or(bad)? = Span::new(at, at + name.len());
                    self.count += 1;
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Whether a field line begins with one of the names.
    fn has(&self, buffer: &[u8], line: &[u8]) -> bool {
        self.names[..self.count].iter().any(|name| {
            let name = name.of(buffer);
            line.len() > name.len()
                && line[name.len()] == b':'
                && line[..name.len()].eq_ignore_ascii_case(name)
        })
    }
}

/// `Content-Length` and `Transfer-Encoding`, as far as seen.
#[derive(Default)]
pub(crate) struct Frame {
    pub(crate) length: Option<u64>,
    pub(crate) chunked: bool,
}

impl Frame {
    pub(crate) fn content_length(&mut self, buffer: &[u8], at: usize, value: Span) -> Result<(), Reject> {
        if self.chunked {
            return Err(Reject::new(Why::LengthAndCoding, at));
        }
        if self.length.is_some() {
            return Err(Reject::new(Why::ContentLengthTwice, at));
        }
        let digits = value.of(buffer);
        let length =
            field::decimal(digits, limits::BODY_BYTES).filter(|_| digits.len() <= limits::LENGTH_DIGITS);
        self.length = Some(length.ok_or(Reject::new(Why::ContentLength, usize::from(value.start)))?);
        Ok(())
    }

    pub(crate) fn transfer_encoding(
        &mut self,
        buffer: &[u8],
        at: usize,
        value: Span,
        minor: u8,
    ) -> Result<(), Reject> {
        if minor == 0 {
            return Err(Reject::new(Why::CodingInOld, at));
        }
        if self.length.is_some() {
            return Err(Reject::new(Why::LengthAndCoding, at));
        }
        if self.chunked {
            return Err(Reject::new(Why::Coding, at));
        }
        let coding = value.of(buffer);
        if !coding.eq_ignore_ascii_case(b"chunked") {
            let (before, last) = match coding.iter().rposition(|&b| b == b',') {
                Some(comma) => (&coding[..comma], field::trim(&coding[comma + 1..])),
                None => (&coding[..0], coding),
            };
            let known_end = last.eq_ignore_ascii_case(b"chunked");
            let foreign = |c: &[u8]| field::is_token(c) && !c.eq_ignore_ascii_case(b"chunked");
            let why = if known_end && field::elements(before).all(foreign) {
                Why::CodingUnknown
            } else {
                Why::Coding
            };
            return Err(Reject::new(why, usize::from(value.start)));
        }
        self.chunked = true;
        Ok(())
    }
}

/// httparse's error as ours, with the byte that made it.
///
/// httparse reads from left to right and its errors say no position: the first prefix that it refuses
/// ends with the byte it refuses, and is found by halving. Only messages that are refused pay for it.
pub(crate) fn locate(buffer: &[u8], error: httparse::Error, refused: impl Fn(&[u8]) -> bool) -> Reject {
    let (mut fine, mut bad) = (0, buffer.len());
    while fine + 1 < bad {
        let middle = fine + (bad - fine) / 2;
        if refused(&buffer[..middle]) { bad = middle } else { fine = middle }
    }
    let at = bad.saturating_sub(1);
    let byte = buffer.get(at).copied().unwrap_or(0);
    let line_starts = at > 0 && buffer[at - 1] == b'\n';
    let why = match error {
        httparse::Error::HeaderName if matches!(byte, b' ' | b'\t') && line_starts => Why::Fold,
        httparse::Error::HeaderName if matches!(byte, b' ' | b'\t') => Why::SpaceBeforeColon,
        httparse::Error::HeaderName => Why::FieldName,
        httparse::Error::HeaderValue => Why::FieldValue,
        httparse::Error::NewLine => Why::BareLineEnd,
        httparse::Error::TooManyHeaders => Why::TooManyFields,
        httparse::Error::Version => Why::Version,
        httparse::Error::Status | httparse::Error::Token => Why::StartLine,
    };
    Reject::new(why, at)
}
