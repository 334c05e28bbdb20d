//! The body of a message out of the text that this proxy writes: its data, its trailers, its end.

use bytes::{BufMut, BytesMut};
use http::header::{HeaderMap, HeaderName, HeaderValue};
use relais_http::Body;

use super::text;

/// Where we are in a body.
#[derive(Debug)]
pub(crate) enum Decode {
    /// So many bytes of data.
    Length(u64),
    /// Data until somebody closes.
    Open,
    /// Within a chunk-size line; its value so far.
    Size(u64),
    /// So many bytes of a chunk.
    Data(u64),
    /// So many bytes of the CRLF behind a chunk.
    DataEnd(u8),
    /// Within the trailers; the line so far.
    Trailer(Vec<u8>),
    /// Behind the end.
    End,
}

/// The text is not a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbled;

impl Decode {
    pub(crate) fn new(body: &Body) -> Decode {
        match body {
            Body::None => Decode::End,
            Body::Length(n) => Decode::Length(*n).or_end(),
            Body::Chunked => Decode::Size(0),
            Body::UntilClose => Decode::Open,
        }
    }

    fn or_end(self) -> Decode {
        if matches!(self, Decode::Length(0)) { Decode::End } else { self }
    }

    pub(crate) fn is_end(&self) -> bool {
        matches!(self, Decode::End)
    }

    /// Takes text off `bytes` until `data` has `room` more bytes, and says how much it took. Trailers go to `trailers`.
    ///
    /// # Errors
    /// If the text is not chunked as it should be; it is our own, so that is a fault of ours, or a server's garbage.
    pub(crate) fn take(
        &mut self,
        bytes: &[u8],
        mut room: usize,
        data: &mut BytesMut,
        trailers: &mut HeaderMap,
    ) -> Result<usize, Garbled> {
        let mut at = 0;
        while at < bytes.len() {
            let rest = &bytes[at..];
            match self {
                Decode::Length(left) | Decode::Data(left) => {
                    let n = rest.len().min(room).min(usize::try_from(*left).unwrap_or(usize::MAX));
                    if n == 0 {
                        break;
                    }
                    data.put_slice(&rest[..n]);
                    (at, room) = (at + n, room - n);
                    *left -= n as u64;
                    if *left == 0 {
                        let chunk = matches!(self, Decode::Data(_));
                        *self = if chunk { Decode::DataEnd(2) } else { Decode::End };
                    }
                }
                Decode::Open => {
                    let n = rest.len().min(room);
                    if n == 0 {
                        break;
                    }
                    data.put_slice(&rest[..n]);
                    (at, room) = (at + n, room - n);
                }
                Decode::Size(size) => {
                    at += 1;
                    match rest[0] {
                        b'\r' => {}
                        b'\n' if *size == 0 => *self = Decode::Trailer(Vec::new()),
                        b'\n' => *self = Decode::Data(*size),
                        byte => {
                            let digit = char::from(byte).to_digit(16).ok_or(Garbled)?;
                            *size = size.checked_mul(16).ok_or(Garbled)? + u64::from(digit);
                        }
                    }
                }
                Decode::DataEnd(left) => {
                    at += 1;
                    *left -= 1;
                    if *left == 0 {
                        *self = Decode::Size(0);
                    }
                }
                Decode::Trailer(line) => {
                    at += 1;
                    line.push(rest[0]);
                    if rest[0] == b'\n' {
                        if line.len() == 2 {
                            *self = Decode::End;
                            continue;
                        }
                        let (name, value) = text::field(line).ok_or(Garbled)?;
                        let name = HeaderName::from_bytes(name).map_err(|_| Garbled)?;
                        trailers.append(name, HeaderValue::from_bytes(value).map_err(|_| Garbled)?);
                        line.clear();
                    } else if line.len() > relais_http::limits::TRAILER_LINE_BYTES {
                        return Err(Garbled);
                    }
                }
                Decode::End => break,
            }
        }
        Ok(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] =
        b"3\r\nabc\r\n1a\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nGrpc-Status: 0\r\nX: y\r\n\r\n";

    #[test]
    fn chunks_become_data_and_trailers_however_they_are_cut() {
        for size in 1..TEXT.len() {
            let (mut decode, mut data, mut trailers) =
                (Decode::new(&Body::Chunked), BytesMut::new(), HeaderMap::new());
            for piece in TEXT.chunks(size) {
                assert_eq!(decode.take(piece, 100, &mut data, &mut trailers), Ok(piece.len()));
            }
            assert!(decode.is_end());
            assert_eq!(&data[..], b"abcabcdefghijklmnopqrstuvwxyz");
            assert_eq!(
                (&trailers["grpc-status"], &trailers["x"]),
                (&HeaderValue::from_static("0"), &HeaderValue::from_static("y"))
            );
        }
    }

    #[test]
    fn no_more_data_is_taken_than_there_is_room_for() {
        let (mut decode, mut data, mut trailers) =
            (Decode::new(&Body::Chunked), BytesMut::new(), HeaderMap::new());
        assert_eq!(decode.take(TEXT, 5, &mut data, &mut trailers), Ok(14));
        assert_eq!(&data[..], b"abcab");
        let mut decode = Decode::new(&Body::Length(4));
        assert_eq!(decode.take(b"abcdef", 10, &mut data, &mut trailers), Ok(4));
        assert!(decode.is_end());
    }
}
