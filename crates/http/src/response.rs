//! Response heads (RFC 9112 §4, §6.3).

use core::mem::MaybeUninit;

use crate::field::Field;
use crate::head::{Body, ConnectionNames, Frame, Kept, Lines, Span, expect_crlf, locate};
use crate::limits;
use crate::reject::{Reject, Why};

/// What a response is an answer to.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// The request was HEAD: its answer has no body, whatever it says.
    pub head: bool,
    /// The request asked to switch protocols.
    pub upgrade: bool,
    /// Minor version of the client.
    pub minor: u8,
}

/// A response head that may be forwarded.
#[derive(Clone, Debug)]
pub struct Response {
    /// Status code, 100 to 599.
    pub status: u16,
    /// Minor version of the server: 0 or 1.
    pub minor: u8,
    /// How its body ends.
    pub body: Body,
    /// Whether the server's connection may carry another request.
    pub keep_alive: bool,
    /// The chunk framing is taken off for a client that does not know it.
    pub unchunk: bool,
    /// The protocol switched to, of a 101.
    pub upgrade: Option<Span>,
    /// It says when it was made; else whoever forwards it does (RFC 9110 §6.6.1).
    pub dated: bool,
    /// Status line and field lines to send on, not those for this hop.
    pub kept: Kept,
    /// Length of the head, the empty line included.
    pub length: usize,
}

/// Offset of the minor version's digit in a status line: a gateway answers with its own, 1.
pub const MINOR_AT: usize = 7;

impl Response {
    /// Whether more responses to the same request follow (1xx, but not 101).
    pub fn is_interim(&self) -> bool {
        self.status < 200 && self.status != 101
    }

    /// Parses the head at the beginning of `buffer`; `None` while it is not complete.
    ///
    /// # Errors
    /// What is wrong with it, and where; also once it is longer than [`limits::HEAD_BYTES`].
    pub fn parse(buffer: &[u8], asked: Asked) -> Result<Option<Response>, Reject> {
        let input = &buffer[..buffer.len().min(limits::HEAD_BYTES)];
        if !b"HTTP/1.".starts_with(&input[..input.len().min(MINOR_AT)]) {
            return Err(Reject::new(Why::StartLine, 0)); // httparse would skip empty lines
        }
        let mut space = [const { MaybeUninit::uninit() }; limits::FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let config = httparse::ParserConfig::default();
        match config.parse_response_with_uninit_headers(&mut parsed, input, &mut space) {
            Ok(httparse::Status::Complete(_)) => build(input, &parsed, asked).map(Some),
            Ok(httparse::Status::Partial) if input.len() == limits::HEAD_BYTES => {
                Err(Reject::new(Why::HeadTooLong, input.len()))
            }
            Ok(httparse::Status::Partial) => Ok(None),
            Err(error) => Err(locate(input, error, |prefix| {
                let mut space = [const { MaybeUninit::uninit() }; limits::FIELDS];
                let mut parsed = httparse::Response::new(&mut []);
                config.parse_response_with_uninit_headers(&mut parsed, prefix, &mut space).is_err()
            })),
        }
    }
}

/// What is to be done about blanks between a field's name and its colon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blanks {
    /// So many, from where the head was refused on, are to be taken out, and the head parsed again.
    Remove(usize),
    /// What follows them is not here yet.
    Wait,
}

/// What a proxy has to do about a head that was refused, if blanks before a colon are all that is wrong with it there:
/// they are no part of the name, and go no further (RFC 9112 §5.1). In a request they are a reason to refuse it.
pub fn blanks_before_colon(buffer: &[u8], reject: Reject) -> Option<Blanks> {
    if reject.why != Why::SpaceBeforeColon || buffer.len() >= limits::HEAD_BYTES {
        return None;
    }
    let rest = buffer.get(reject.at..)?;
    match rest.iter().position(|byte| !matches!(byte, b' ' | b'\t')) {
        None => Some(Blanks::Wait),
        Some(n @ 1..) if rest[n] == b':' => Some(Blanks::Remove(n)),
        Some(_) => None,
    }
}

fn build(buffer: &[u8], parsed: &httparse::Response<'_, '_>, asked: Asked) -> Result<Response, Reject> {
    let (Some(status), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(Reject::new(Why::StartLine, 0));
    };
    if !(100..600).contains(&status) {
        return Err(Reject::new(Why::StatusCode, MINOR_AT + 2));
    }
    // "HTTP/1.x NNN", then a space and a reason, or nothing.
    let mut line_end = 12;
    while buffer.get(line_end).is_some_and(|b| *b != b'\r' && *b != b'\n') {
        line_end += 1;
    }
    let fields_at = expect_crlf(buffer, line_end)?;

    let mut frame = Frame::default();
    let mut connection = ConnectionNames::default();
    let mut upgrade = None;
    let mut dated = false;
    let (lines, length) = Lines::walk(buffer, fields_at, parsed.headers, |kind, at, value| match kind {
        Field::ContentLength => frame.content_length(buffer, at, value),
        Field::TransferEncoding => frame.transfer_encoding(buffer, at, value, minor),
        Field::Connection => connection.add_of_server(buffer, value),
        Field::Upgrade => {
            upgrade = Some(value);
            Ok(())
        }
        Field::Date => {
            dated = true;
            Ok(())
        }
        _ => Ok(()),
    })?;
    if status == 101 && !(asked.upgrade && connection.upgrade && upgrade.is_some()) {
        return Err(Reject::new(Why::Switching, MINOR_AT + 2));
    }
    let bodiless = status < 200 || status == 204 || status == 304;
    let body = match (frame.length, frame.chunked) {
        _ if bodiless || asked.head => Body::None,
        (_, true) => Body::Chunked,
        (Some(0), _) => Body::None,
        (Some(n), _) => Body::Length(n),
        (None, false) => Body::UntilClose,
    };
    let unframed = status < 200 || status == 204;
    let unchunk = frame.chunked && asked.minor == 0;
    let mut kept = Kept::new();
    kept.keep(0, fields_at)?;
    lines.keep(buffer, &mut kept, &connection, |kind| match kind {
        Field::Connection
        | Field::KeepAlive
        | Field::ProxyConnection
        | Field::Te
        | Field::Upgrade
        | Field::Alias => true,
        Field::Trailer if connection.trailer => true,
        Field::TransferEncoding | Field::Trailer => unframed || unchunk || !frame.chunked,
        Field::ContentLength => unframed,
        _ => false,
    })?;
    Ok(Response {
        status,
        minor,
        body,
        keep_alive: !connection.close && (minor == 1 || connection.keep_alive) && body != Body::UntilClose,
        unchunk,
        upgrade: upgrade.filter(|_| status == 101),
        dated,
        kept,
        length,
    })
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    const GET: Asked = Asked { head: false, upgrade: false, minor: 1 };

    fn good(text: &str, asked: Asked) -> Response {
        Response::parse(text.as_bytes(), asked).unwrap().expect("a whole head")
    }

    fn why(text: &str) -> Why {
        Response::parse(text.as_bytes(), GET).expect_err(text).why
    }

    fn kept(text: &str, asked: Asked) -> String {
        let response = good(text, asked);
        let bytes: Vec<u8> =
            response.kept.spans().iter().flat_map(|s| s.of(text.as_bytes()).iter().copied()).collect();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_body_ends_as_rfc_9112_6_3_says() {
        let body = |status: u16, fields: &str, head: bool| {
            good(&format!("HTTP/1.1 {status} X\r\n{fields}\r\n"), Asked { head, ..GET }).body
        };
        assert_eq!(body(200, "Content-Length: 3\r\n", false), Body::Length(3));
        assert_eq!(body(200, "Content-Length: 3\r\n", true), Body::None);
        assert_eq!(body(304, "Content-Length: 3\r\n", false), Body::None);
        assert_eq!(body(204, "", false), Body::None);
        assert_eq!(body(103, "", false), Body::None);
        assert_eq!(body(200, "Transfer-Encoding: chunked\r\n", false), Body::Chunked);
        assert_eq!(body(200, "", false), Body::UntilClose);
    }

    #[test]
    fn a_connection_is_reused_only_where_both_ends_know_where_the_message_ends() {
        let reuse = |text: &str| good(text, GET).keep_alive;
        assert!(reuse("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(!reuse("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"));
        assert!(!reuse("HTTP/1.1 200 OK\r\n\r\n"));
        assert!(!reuse("HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n"));
        assert!(reuse("HTTP/1.0 200 OK\r\nContent-Length: 0\r\nConnection: keep-alive\r\n\r\n"));
    }

    #[test]
    fn what_two_parsers_could_read_differently_is_refused() {
        for (text, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n", Why::ContentLengthTwice),
            (
                "HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
                Why::LengthAndCoding,
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", Why::Coding),
            ("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", Why::CodingInOld),
            ("HTTP/1.1 200 OK\nContent-Length: 1\r\n\r\n", Why::BareLineEnd),
            ("HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", Why::Fold),
            ("HTTP/1.1 99 X\r\n\r\n", Why::StartLine),
            ("HTTP/1.1 600 X\r\n\r\n", Why::StatusCode),
            ("HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n", Why::Switching),
            ("\r\nHTTP/1.1 200 OK\r\n\r\n", Why::StartLine),
            ("ICY 200 OK\r\n\r\n", Why::StartLine),
        ] {
            assert_eq!(why(text), expected, "{text:?}");
        }
    }

    #[test]
    fn fields_for_one_hop_stay_here() {
        let text = "HTTP/1.1 200 OK\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 1\r\n\r\n";
        assert_eq!(kept(text, GET), "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: T\r\n\r\n";
        assert_eq!(kept(chunked, Asked { minor: 0, ..GET }), "HTTP/1.1 200 OK\r\n");
        assert!(good(chunked, Asked { minor: 0, ..GET }).unchunk);
        let none = "HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n";
        assert_eq!(kept(none, GET), "HTTP/1.1 204 No\r\n");
    }

    #[test]
    fn a_server_that_names_framing_in_connection_is_forgiven() {
        let text = "HTTP/1.1 200 OK\r\nConnection: Transfer-Encoding, a b, X-Hop\r\nX-Hop: 1\r\n\
                    Transfer-Encoding: chunked\r\n\r\n";
        assert_eq!(kept(text, GET), "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n");
        assert_eq!(good(text, GET).body, Body::Chunked);
    }

    #[test]
    fn a_status_line_may_do_without_a_reason() {
        assert_eq!(good("HTTP/1.1 200\r\n\r\n", GET).status, 200);
        assert_eq!(good("HTTP/1.1 200 \r\n\r\n", GET).status, 200);
    }

    #[test]
    fn a_server_may_say_when_it_answered() {
        assert!(good("HTTP/1.1 200 OK\r\nDATE: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n", GET).dated);
        assert!(!good("HTTP/1.1 200 OK\r\nX-Date: today\r\n\r\n", GET).dated);
    }

    #[test]
    fn blanks_before_a_colon_are_told_from_blanks_within_a_name() {
        let blanks = |text: &str| {
            let reject = Response::parse(text.as_bytes(), GET).expect_err(text);
            blanks_before_colon(text.as_bytes(), reject)
        };
        assert_eq!(blanks("HTTP/1.1 200 OK\r\nX \t: y\r\n\r\n"), Some(Blanks::Remove(2)));
        assert_eq!(blanks("HTTP/1.1 200 OK\r\nX  "), Some(Blanks::Wait));
        assert_eq!(blanks("HTTP/1.1 200 OK\r\nX y: z\r\n\r\n"), None);
        assert_eq!(blanks("HTTP/1.1 200 OK\r\nX \r\n\r\n"), None);
        assert_eq!(blanks("HTTP/1.1 200 OK\r\n X: y\r\n\r\n"), None);
        assert_eq!(blanks(&format!("HTTP/1.1 200 OK\r\nX{}", " ".repeat(limits::HEAD_BYTES))), None);
    }

    #[test]
    fn a_head_in_pieces_says_nothing_until_it_is_whole() {
        let text = "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n";
        for end in 0..text.len() {
            assert!(Response::parse(&text.as_bytes()[..end], GET).unwrap().is_none(), "{end}");
        }
    }
}
