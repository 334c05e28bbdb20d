//! The chunked coding (RFC 9112 §7.1), checked where it lies.
//!
//! [`Chunked::forward`] goes over the bytes of a receive buffer and leaves in front what may be sent on:
//! the same chunks with the same sizes, but without extensions, so that what arrives behind the gateway
//! has one reading; or, for a receiver that knows no chunks, the data alone. A line is passed on once it
//! is complete and found right, so nothing that is refused ever looks like a message's end.

use crate::field::{self, Field};
use crate::limits;
use crate::reject::{Reject, Why};

/// What becomes of the framing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Chunks are passed on as chunks.
    Keep,
    /// Only the data is passed on.
    Strip,
    /// The data is passed on, and behind it the trailer fields.
    Trailers,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Before a chunk-size line.
    Size,
    /// So many bytes of data are missing.
    Data(u64),
    /// Before the CRLF behind the data.
    DataEnd,
    /// Before a trailer field or the empty line that ends it all; what was seen of them.
    Trailer { bytes: u32, fields: u32 },
    /// Behind the end.
    End,
}

/// Where we are in a chunked body.
#[derive(Clone, Debug)]
pub struct Chunked {
    state: State,
    framing: Framing,
    /// Bytes of the body, as received, that are behind us.
    seen: u64,
    /// Bytes of data in all chunks whose size was read.
    announced: u64,
    most: u64,
}

/// What a call to [`Chunked::forward`] found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// So many bytes at the beginning of the buffer are to be sent on.
    pub kept: usize,
    /// So many of these, at their end, are trailer fields ([`Framing::Trailers`]).
    pub trailers: usize,
    /// They stand for so many bytes; what lies behind these was not looked at or is not complete.
    pub used: usize,
}

impl Chunked {
    /// At the beginning of a body.
    pub const fn new(framing: Framing) -> Chunked {
        Chunked { state: State::Size, framing, seen: 0, announced: 0, most: limits::BODY_BYTES }
    }

    /// Refuses a body of more than `most` bytes of data, at the size line of the chunk that would pass it.
    ///
    /// # Errors
    /// If the chunks seen so far have more.
    pub fn limit(&mut self, most: u64) -> Result<(), Reject> {
        self.most = self.most.min(most);
        if self.announced > self.most { Err(Reject::new(Why::BodyTooLong, 0)) } else { Ok(()) }
    }

    /// Bytes of data in all chunks whose size line was seen.
    pub fn announced(&self) -> u64 {
        self.announced
    }

    /// Whether the whole body was seen.
    pub fn is_end(&self) -> bool {
        self.state == State::End
    }

    /// Bytes of chunk data that follow without any framing between them.
    pub fn data_ahead(&self) -> u64 {
        if let State::Data(n) = self.state { n } else { 0 }
    }

    /// Takes note of `n` bytes of data, at most [`Chunked::data_ahead`], that went by outside the buffer.
    pub fn skip_data(&mut self, n: u64) {
        assert!(n <= self.data_ahead(), "more data than the chunk has");
        self.seen += n;
        self.pass_data(n);
    }

    fn pass_data(&mut self, n: u64) {
        if let State::Data(left) = self.state {
            self.state = if left == n { State::DataEnd } else { State::Data(left - n) };
        }
    }

    /// Checks the bytes of `buffer`, the next ones of the body, and moves together what is to be sent on.
    ///
    /// # Errors
    /// If the framing is broken; `at` counts from the body's first byte, as received.
    pub fn forward(&mut self, buffer: &mut [u8]) -> Result<Progress, Reject> {
        let before = usize::try_from(self.seen).unwrap_or(usize::MAX);
        let progress = self.advance(buffer).map_err(|r| Reject::new(r.why, before.saturating_add(r.at)))?;
        self.seen += progress.used as u64;
        Ok(progress)
    }

    fn advance(&mut self, buffer: &mut [u8]) -> Result<Progress, Reject> {
        let (mut kept, mut used, mut trailers) = (0, 0, 0);
        while self.state != State::End {
            let rest = &buffer[used..];
            let mut emits = self.framing == Framing::Keep;
            let (take, emit) = match self.state {
                State::Size => match size_line(rest).map_err(|r| Reject::new(r.why, r.at + used))? {
                    None => break,
                    Some(line) => {
                        self.announced = self.announced.saturating_add(line.size);
                        if self.announced > self.most {
                            return Err(Reject::new(Why::BodyTooLong, used));
                        }
                        self.state = match line.size {
                            0 => State::Trailer { bytes: 0, fields: 0 },
                            size => State::Data(size),
                        };
                        if line.digits + 2 < line.length && self.framing == Framing::Keep {
                            // An extension stands between size and CRLF: both are kept, it is not.
                            buffer.copy_within(used + line.zeros..used + line.digits, kept);
                            kept += line.digits - line.zeros;
                            (line.length, (line.length - 2, 2))
                        } else {
                            (line.length, (line.zeros, line.length - line.zeros))
                        }
                    }
                },
                State::Data(left) => {
                    let n = rest.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                    if n == 0 {
                        break;
                    }
                    self.pass_data(n as u64);
                    buffer.copy_within(used..used + n, kept);
                    kept += n;
                    used += n;
                    continue;
                }
                State::DataEnd => match rest {
                    [b'\r', b'\n', ..] => {
                        self.state = State::Size;
                        (2, (0, 2))
                    }
                    [] | [b'\r'] => break,
                    [b'\r', ..] => return Err(Reject::new(Why::ChunkEnd, used + 1)),
                    _ => return Err(Reject::new(Why::ChunkEnd, used)),
                },
                State::Trailer { bytes, fields } => {
                    let read =
                        trailer_line(rest, bytes as usize).map_err(|r| Reject::new(r.why, r.at + used))?;
                    let Some(length) = read else { break };
                    self.state = match length {
                        2 => State::End,
                        _ if fields as usize == limits::FIELDS => {
                            return Err(Reject::new(Why::TrailerTooLong, used));
                        }
                        _ => State::Trailer { bytes: bytes + length as u32, fields: fields + 1 },
                    };
                    if self.framing == Framing::Trailers && length > 2 {
                        emits = true;
                        trailers += length;
                    }
                    (length, (0, length))
                }
                State::End => break,
            };
            if emits {
                buffer.copy_within(used + emit.0..used + emit.0 + emit.1, kept);
                kept += emit.1;
            }
            used += take;
        }
        Ok(Progress { kept, trailers, used })
    }
}

struct SizeLine {
    size: u64,
    /// Leading zeros that mean nothing; parsers differ in how many digits they take.
    zeros: usize,
    digits: usize,
    length: usize,
}

/// The chunk-size line at the beginning of `input`, if it is complete.
fn size_line(input: &[u8]) -> Result<Option<SizeLine>, Reject> {
    let mut size: u64 = 0;
    let (mut zeros, mut digits) = (0, 0);
    while let Some(value) = input.get(digits).and_then(|b| (*b as char).to_digit(16)) {
        if digits - zeros == limits::CHUNK_SIZE_DIGITS || zeros == limits::CHUNK_LINE_BYTES {
            return Err(Reject::new(Why::ChunkSize, digits));
        }
        // A zero is a leading one once another digit follows it.
        if size == 0 && digits > 0 {
            zeros += 1;
        }
        size = size << 4 | u64::from(value);
        digits += 1;
    }
    if size > limits::BODY_BYTES || (digits == 0 && !input.is_empty()) {
        return Err(Reject::new(Why::ChunkSize, digits));
    }
    match input.get(digits..) {
        None | Some([] | [b'\r']) => return Ok(None),
        Some([b'\r', b'\n', ..]) => return Ok(Some(SizeLine { size, zeros, digits, length: digits + 2 })),
        Some([b';' | b' ' | b'\t', ..]) => {}
        Some(_) => return Err(Reject::new(Why::ChunkSize, digits)),
    }
    let line = &input[..input.len().min(limits::CHUNK_LINE_BYTES)];
    match line.iter().position(|&b| !field::is_value_byte(b)) {
        None if line.len() == limits::CHUNK_LINE_BYTES => Err(Reject::new(Why::ChunkLineTooLong, line.len())),
        None => Ok(None),
        Some(end) if line[end] != b'\r' => Err(Reject::new(Why::ChunkExtension, end)),
        Some(end) => match line.get(end + 1) {
            None if line.len() == limits::CHUNK_LINE_BYTES => Err(Reject::new(Why::ChunkLineTooLong, end)),
            None => Ok(None),
            Some(b'\n') => {
                extensions(&line[digits..end]).map_err(|at| Reject::new(Why::ChunkExtension, digits + at))?;
                Ok(Some(SizeLine { size, zeros, digits, length: end + 2 }))
            }
            Some(_) => Err(Reject::new(Why::ChunkExtension, end)),
        },
    }
}

/// `*( BWS ";" BWS token [ BWS "=" BWS ( token / quoted-string ) ] )`, RFC 9112 §7.1.1; the error is an offset.
fn extensions(bytes: &[u8]) -> Result<(), usize> {
    let mut pos = 0;
    let blank = |mut at: usize| {
        while matches!(bytes.get(at), Some(b' ' | b'\t')) {
            at += 1;
        }
        at
    };
    let token = |at: usize| {
        let length = bytes[at..].iter().take_while(|b| field::is_tchar(**b)).count();
        if length == 0 { Err(at) } else { Ok(at + length) }
    };
    while pos < bytes.len() {
        pos = blank(pos);
        if bytes.get(pos) != Some(&b';') {
            return Err(pos);
        }
        pos = token(blank(pos + 1))?;
        let equals = blank(pos);
        if bytes.get(equals) == Some(&b'=') {
            pos = blank(equals + 1);
            pos = if bytes.get(pos) == Some(&b'"') { quoted(bytes, pos)? } else { token(pos)? };
        }
    }
    Ok(())
}

/// The end of the quoted string that begins at `start`.
fn quoted(bytes: &[u8], start: usize) -> Result<usize, usize> {
    let mut pos = start + 1;
    loop {
        match bytes.get(pos) {
            Some(b'"') => return Ok(pos + 1),
            Some(b'\\') => pos += 2,
            Some(_) => pos += 1,
            None => return Err(start),
        }
    }
}

/// Length of the trailer line at the beginning of `input`, if it is complete; 2 is the end of the body.
fn trailer_line(input: &[u8], seen: usize) -> Result<Option<usize>, Reject> {
    match input {
        [b'\r', b'\n', ..] => return Ok(Some(2)),
        [] | [b'\r'] => return Ok(None),
        [b' ' | b'\t', ..] => return Err(Reject::new(Why::Fold, 0)),
        _ => {}
    }
    let room = limits::TRAILER_LINE_BYTES.min(limits::TRAILER_BYTES.saturating_sub(seen));
    let line = &input[..input.len().min(room)];
    let name = line.iter().take_while(|b| field::is_tchar(**b)).count();
    match line.get(name) {
        Some(b':') if name > 0 => {}
        Some(_) => return Err(Reject::new(Why::Trailer, name)),
        None if line.len() == room => return Err(Reject::new(Why::TrailerTooLong, room)),
        None => return Ok(None),
    }
    if !matches!(Field::of(&line[..name]), Field::Other | Field::Date) {
        return Err(Reject::new(Why::TrailerForbidden, 0));
    }
    let value_end = line[name + 1..].iter().position(|b| !field::is_value_byte(*b)).map(|n| name + 1 + n);
    match value_end.map(|end| (end, &line[end..])) {
        Some((end, [b'\r', b'\n', ..])) => Ok(Some(end + 2)),
        Some((end, [b'\r'])) if end + 1 < room => Ok(None),
        Some((end, [b'\r'])) => Err(Reject::new(Why::TrailerTooLong, end)),
        Some((end, _)) => Err(Reject::new(Why::Trailer, end)),
        None if line.len() == room => Err(Reject::new(Why::TrailerTooLong, room)),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    /// What comes out, and what is left over, if the body comes in pieces of `size`.
    fn run(input: &[u8], size: usize, framing: Framing) -> Result<(Vec<u8>, usize, bool), Why> {
        let mut chunked = Chunked::new(framing);
        let (mut out, mut held) = (Vec::new(), Vec::new());
        for piece in input.chunks(size) {
            held.extend_from_slice(piece);
            let progress = chunked.forward(&mut held).map_err(|r| r.why)?;
            out.extend_from_slice(&held[..progress.kept]);
            held.drain(..progress.used);
        }
        Ok((out, held.len(), chunked.is_end()))
    }

    fn why(input: &[u8]) -> Why {
        run(input, input.len(), Framing::Keep).expect_err("refused")
    }

    #[test]
    fn a_body_is_the_same_in_whatever_pieces_it_comes() {
        let body = b"5\r\nhello\r\n0006 ; a = \"b;\\\"\" ;c\r\n world\r\n000;z=1\r\nX-T: v\r\n\r\n";
        for size in 1..=body.len() {
            let kept = run(body, size, Framing::Keep).unwrap();
            assert_eq!(
                kept,
                (b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-T: v\r\n\r\n".to_vec(), 0, true),
                "{size}"
            );
            let stripped = run(body, size, Framing::Strip).unwrap();
            assert_eq!(stripped, (b"hello world".to_vec(), 0, true), "{size}");
        }
    }

    #[test]
    fn what_follows_the_body_is_not_its_own() {
        let (out, left, end) = run(b"1\r\na\r\n0\r\n\r\nGET /", 100, Framing::Keep).unwrap();
        assert_eq!((out.as_slice(), left, end), (&b"1\r\na\r\n0\r\n\r\n"[..], 5, true));
    }

    #[test]
    fn broken_framing_is_refused() {
        for (input, expected) in [
            (&b"x\r\n"[..], Why::ChunkSize),
            (b" 5\r\n", Why::ChunkSize),
            (b"5x\r\n", Why::ChunkSize),
            (b"0x5\r\n", Why::ChunkSize),
            (b"5_0\r\n", Why::ChunkSize),
            (b"10000000000000005\r\n", Why::ChunkSize),
            (b"8000000000000000\r\n", Why::ChunkSize),
            (b"5\n", Why::ChunkSize),
            (b"5\rhello", Why::ChunkSize),
            (b"5;\r\n", Why::ChunkExtension),
            (b"5;a\rb\r\n", Why::ChunkExtension),
            (b"5;a=\0\r\n", Why::ChunkExtension),
            (b"5;a=\"b\r\n", Why::ChunkExtension),
            (b"5;a\nhello", Why::ChunkExtension),
            (b"5 \r\n", Why::ChunkExtension),
            (b"1\r\naX0\r\n\r\n", Why::ChunkEnd),
            (b"1\r\na\n0\r\n\r\n", Why::ChunkEnd),
            (b"1\r\na\rX", Why::ChunkEnd),
            (b"0\r\nX T: v\r\n\r\n", Why::Trailer),
            (b"0\r\nX-T : v\r\n\r\n", Why::Trailer),
            (b"0\r\n: v\r\n\r\n", Why::Trailer),
            (b"0\r\nX: \0\r\n\r\n", Why::Trailer),
            (b"0\r\nX: a\n\r\n", Why::Trailer),
            (b"0\r\n\n", Why::Trailer),
            (b"0\r\n fold\r\n\r\n", Why::Fold),
            (b"0\r\nContent-Length: 5\r\n\r\n", Why::TrailerForbidden),
            (b"0\r\ntransfer-encoding: chunked\r\n\r\n", Why::TrailerForbidden),
        ] {
            assert_eq!(why(input), expected, "{:?}", std::string::String::from_utf8_lossy(input));
        }
    }

    #[test]
    fn the_offset_of_a_fault_counts_from_the_first_byte_of_the_body() {
        let body = b"a\r\n0123456789\r\n5\r\nhelloX";
        let mut chunked = Chunked::new(Framing::Keep);
        let mut first = body[..8].to_vec();
        assert_eq!(chunked.forward(&mut first).unwrap().used, 8);
        chunked.skip_data(5); // spliced
        let mut rest = body[13..].to_vec();
        assert_eq!(chunked.forward(&mut rest), Err(Reject::new(Why::ChunkEnd, 23)));
    }

    #[test]
    fn leading_zeros_mean_nothing_and_have_a_limit() {
        let body = [&b"0".repeat(40)[..], b"5\r\nhello\r\n", &b"0".repeat(40)[..], b"\r\n\r\n"].concat();
        for size in 1..=body.len() {
            let kept = run(&body, size, Framing::Keep).unwrap();
            assert_eq!(kept, (b"5\r\nhello\r\n0\r\n\r\n".to_vec(), 0, true), "{size}");
        }
        assert_eq!(why(&b"0".repeat(limits::CHUNK_LINE_BYTES + 2)), Why::ChunkSize);
    }

    #[test]
    fn lines_and_trailers_have_limits() {
        let mut line = b"5;a=".to_vec();
        line.resize(limits::CHUNK_LINE_BYTES + 1, b'b');
        assert_eq!(why(&line), Why::ChunkLineTooLong);
        let mut trailer = b"0\r\nX: ".to_vec();
        trailer.resize(limits::TRAILER_LINE_BYTES + 10, b'b');
        assert_eq!(why(&trailer), Why::TrailerTooLong);
        let mut many = b"0\r\n".to_vec();
        for _ in 0..limits::TRAILER_BYTES / 5 {
            many.extend_from_slice(b"X: v\r\n");
        }
        assert_eq!(why(&many), Why::TrailerTooLong);
        let fields = |n: usize| [&b"0\r\n"[..], &b"T:\r\n".repeat(n), b"\r\n"].concat();
        assert_eq!(why(&fields(limits::FIELDS + 1)), Why::TrailerTooLong);
        let mut most = fields(limits::FIELDS);
        let length = most.len();
        assert_eq!(
            Chunked::new(Framing::Keep).forward(&mut most).unwrap(),
            Progress { kept: length, trailers: 0, used: length }
        );
    }

    #[test]
    fn data_that_went_by_outside_counts() {
        let mut chunked = Chunked::new(Framing::Keep);
        let mut head = b"a\r\n123".to_vec();
        assert_eq!(chunked.forward(&mut head).unwrap(), Progress { kept: 6, trailers: 0, used: 6 });
        assert_eq!(chunked.data_ahead(), 7);
        chunked.skip_data(7);
        let mut tail = b"\r\n0\r\n\r\n".to_vec();
        chunked.forward(&mut tail).unwrap();
        assert!(chunked.is_end());
    }

    #[test]
    fn a_body_is_refused_at_the_chunk_that_would_pass_its_limit() {
        let chunks = |most: u64| {
            let mut chunked = Chunked::new(Framing::Keep);
            chunked.limit(most).unwrap();
            chunked.forward(&mut b"4\r\nabcd\r\n4\r\nefgh\r\n0\r\n\r\n".to_vec())
        };
        assert!(chunks(8).is_ok());
        assert_eq!(chunks(7), Err(Reject::new(Why::BodyTooLong, 9)));
        let mut chunked = Chunked::new(Framing::Keep);
        chunked.forward(&mut b"4\r\nabcd\r\n".to_vec()).unwrap();
        assert_eq!(chunked.limit(4), Ok(()));
        assert_eq!(chunked.limit(3), Err(Reject::new(Why::BodyTooLong, 0)));
    }
}
