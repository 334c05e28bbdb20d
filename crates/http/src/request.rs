//! Request heads (RFC 9112 §3, §6; RFC 9110 §7).

use core::mem::MaybeUninit;

use crate::field::{self, Field};
use crate::head::{Body, ConnectionNames, Frame, Kept, Lines, Span, expect_crlf, locate};
use crate::limits;
use crate::reject::{Reject, Why};

/// A method, as far as a gateway must tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Method {
    Get,
    Head,
    Options,
    Put,
    Delete,
    Trace,
    Connect,
    /// POST, PATCH and all others: not known to be idempotent.
    Other,
}

impl Method {
    /// Whether doing it twice is doing it once (RFC 9110 §9.2.2).
    pub const fn is_idempotent(self) -> bool {
        !matches!(self, Method::Other | Method::Connect)
    }

    fn of(token: &str) -> Method {
        match token {
            "GET" => Method::Get,
            "HEAD" => Method::Head,
            "OPTIONS" => Method::Options,
            "PUT" => Method::Put,
            "DELETE" => Method::Delete,
            "TRACE" => Method::Trace,
            "CONNECT" => Method::Connect,
            _ => Method::Other,
        }
    }
}

/// A request head that may be forwarded.
#[derive(Clone, Debug)]
pub struct Request {
    /// Its method.
    pub method: Method,
    /// `METHOD target HTTP/1.x`, as received.
    pub line: Span,
    /// Path and query as they are sent on; empty where the target has none (then `/` stands for it).
    pub path: Span,
    /// Minor version: 0 or 1.
    pub minor: u8,
    /// The value of `Host`, or the authority of the target; `None` only under HTTP/1.0.
    pub host: Option<Span>,
    /// `Host` is among `fields`; else the gateway adds it. It does not stay where an absolute target says
    /// otherwise (RFC 9112 §3.2.2).
    pub has_host_field: bool,
    /// How its body ends.
    pub body: Body,
    /// Whether the client wants to go on with this connection.
    pub keep_alive: bool,
    /// The client waits for `100 Continue`.
    pub expect_continue: bool,
    /// The protocol that the client wants to change to.
    pub upgrade: Option<Span>,
    /// `Max-Forwards`, of OPTIONS and TRACE; its line is not among `fields`.
    pub max_forwards: Option<u32>,
    /// The method and the space behind it.
    pub method_sp: Span,
    /// The field lines to send on: not those for this hop, and none of what the gateway sets itself.
    pub fields: Kept,
    /// Length of the head, the empty lines before it and after it included.
    pub length: usize,
}

/// How a request is edited.
#[derive(Clone, Copy, Debug, Default)]
pub struct Edit {
    /// `X-Forwarded-Proto` and `X-Forwarded-Host` are taken away, as the gateway sets its own.
    pub strip_forwarded: bool,
}

impl Request {
    /// Parses the head at the beginning of `buffer`; `None` while it is not complete.
    ///
    /// # Errors
    /// What is wrong with it, and where; also once it is longer than [`limits::HEAD_BYTES`].
    pub fn parse(buffer: &[u8], edit: Edit) -> Result<Option<Request>, Reject> {
        let start = skip_empty_lines(buffer)?;
        let input = &buffer[..buffer.len().min(limits::HEAD_BYTES)];
        let mut space = [const { MaybeUninit::uninit() }; limits::FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(&input[start..], &mut space) {
            Ok(httparse::Status::Complete(_)) => build(input, start, &parsed, edit).map(Some),
            Ok(httparse::Status::Partial) if input.len() == limits::HEAD_BYTES => Err(too_long(input)),
            Ok(httparse::Status::Partial) => Ok(None),
            Err(error) => Err(refuse(input, start, error)),
        }
    }
}

fn skip_empty_lines(buffer: &[u8]) -> Result<usize, Reject> {
    let mut start = 0;
    while buffer.get(start) == Some(&b'\r') {
        match buffer.get(start + 1) {
            Some(b'\n') => start += 2,
            Some(_) => return Err(Reject::new(Why::BareLineEnd, start)),
            None => break,
        }
        if start > 2 * limits::LEADING_EMPTY_LINES {
            return Err(Reject::new(Why::EmptyLines, start));
        }
    }
    if buffer.get(start) == Some(&b'\n') {
        return Err(Reject::new(Why::BareLineEnd, start));
    }
    Ok(start)
}

fn too_long(input: &[u8]) -> Reject {
    let why = if input.contains(&b'\n') { Why::HeadTooLong } else { Why::TargetTooLong };
    Reject::new(why, input.len())
}

fn refuse(input: &[u8], start: usize, error: httparse::Error) -> Reject {
    let mut reject = locate(&input[start..], error, |prefix| {
        let mut space = [const { MaybeUninit::uninit() }; limits::FIELDS];
        httparse::Request::new(&mut []).parse_with_uninit_headers(prefix, &mut space).is_err()
    });
    reject.at += start;
    if reject.why == Why::Version && !looks_like_version(&input[start..]) {
        reject.why = Why::StartLine;
    }
    reject
}

/// Whether a request line ends with `HTTP/` and a number that is just not ours.
fn looks_like_version(input: &[u8]) -> bool {
    let line = input.split(|&b| b == b'\r').next().unwrap_or(input);
    let word = line.rsplit(|&b| b == b' ').next().unwrap_or(line);
    matches!(word, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

#[derive(Default)]
struct Facts {
    frame: Frame,
    connection: ConnectionNames,
    host: Option<Span>,
    upgrade: Option<Span>,
    expect_continue: bool,
    max_forwards: Option<Span>,
    max_forwards_twice: bool,
}

impl Facts {
    fn visit(&mut self, buffer: &[u8], minor: u8, kind: Field, at: usize, value: Span) -> Result<(), Reject> {
        match kind {
            Field::Host if self.host.is_some() => return Err(Reject::new(Why::HostTwice, at)),
            Field::Host => self.host = Some(value),
            Field::ContentLength => self.frame.content_length(buffer, at, value)?,
            Field::TransferEncoding => self.frame.transfer_encoding(buffer, at, value, minor)?,
            Field::Connection => self.connection.add(buffer, value)?,
            Field::Upgrade => self.upgrade = Some(value),
            Field::Expect if value.of(buffer).eq_ignore_ascii_case(b"100-continue") => {
                self.expect_continue = minor == 1;
            }
            Field::Expect => return Err(Reject::new(Why::Expectation, usize::from(value.start))),
            Field::MaxForwards => {
                self.max_forwards_twice = self.max_forwards.is_some();
                self.max_forwards = Some(value);
            }
            _ => {}
        }
        Ok(())
    }
}

impl Facts {
    fn max_forwards(&self, buffer: &[u8]) -> Result<Option<u32>, Reject> {
        let Some(value) = self.max_forwards else { return Ok(None) };
        match field::decimal(value.of(buffer), u64::from(u32::MAX)) {
            Some(number) if !self.max_forwards_twice => Ok(Some(number as u32)),
            _ => Err(Reject::new(Why::MaxForwards, usize::from(value.start))),
        }
    }
}

fn build(
    buffer: &[u8],
    start: usize,
    parsed: &httparse::Request<'_, '_>,
    edit: Edit,
) -> Result<Request, Reject> {
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Reject::new(Why::StartLine, start));
    };
    let method_sp = Span::new(start, start + method.len() + 1);
    let target_span = Span::new(usize::from(method_sp.end), usize::from(method_sp.end) + target.len());
    // " HTTP/1.x" follows; httparse has seen to it.
    let line_end = usize::from(target_span.end) + 9;
    let fields_at = expect_crlf(buffer, line_end)?;
    let method = Method::of(method);

    let mut facts = Facts::default();
    let (lines, length) = Lines::walk(buffer, fields_at, parsed.headers, |kind, at, value| {
        facts.visit(buffer, minor, kind, at, value)
    })?;
    let (path, authority) = target_form(buffer, method, target_span)?;
    let (host, has_host_field) = check_host(buffer, minor, facts.host, authority, fields_at)?;
    let body = match (facts.frame.length, facts.frame.chunked) {
        (_, true) => Body::Chunked,
        (None | Some(0), false) => Body::None,
        (Some(n), false) => Body::Length(n),
    };
    let connection = &facts.connection;
    let upgrade = facts.upgrade.filter(|protocol| {
        // h2c behind a gateway's back is a way around its rules: never offered on.
        let no_h2c = field::elements(protocol.of(buffer)).all(|p| !p.eq_ignore_ascii_case(b"h2c"));
        connection.upgrade && minor == 1 && body == Body::None && no_h2c
    });
    let limited = matches!(method, Method::Options | Method::Trace);
    let max_forwards = if limited { facts.max_forwards(buffer)? } else { None };

    let mut fields = Kept::new();
    lines.keep(buffer, &mut fields, connection, |kind| match kind {
        Field::Connection
        | Field::KeepAlive
        | Field::ProxyConnection
        | Field::Te
        | Field::Upgrade
        | Field::Http2Settings
        | Field::ClientCert
        | Field::Alias => true,
        Field::Host => !has_host_field,
        Field::Trailer => body != Body::Chunked || connection.trailer,
        Field::Expect => !facts.expect_continue,
        Field::MaxForwards => limited,
        Field::ForwardedHost | Field::ForwardedProto => edit.strip_forwarded,
        Field::Other | Field::Date | Field::ContentLength | Field::TransferEncoding => false,
    })?;
    Ok(Request {
        method,
        line: Span::new(start, line_end),
        path,
        minor,
        host,
        has_host_field,
        body,
        keep_alive: !connection.close && (minor == 1 || connection.keep_alive),
        expect_continue: facts.expect_continue && body != Body::None,
        upgrade,
        max_forwards,
        method_sp,
        fields,
        length,
    })
}

/// Path and query, and the authority of an absolute target (RFC 9112 §3.2).
fn target_form(buffer: &[u8], method: Method, target: Span) -> Result<(Span, Option<Span>), Reject> {
    let bytes = target.of(buffer);
    let at = |offset: usize| Reject::new(Why::Target, usize::from(target.start) + offset);
    // A fragment never travels (RFC 9110 §7.1), and nothing beyond ASCII is a URI (RFC 3986 §2).
    if let Some(bad) = bytes.iter().position(|&b| b == b'#' || !(0x21..0x7f).contains(&b)) {
        return Err(at(bad));
    }
    match method {
        Method::Connect if field::is_host(bytes) && field::split_port(bytes).1.is_some() => {
            return Err(Reject::new(Why::Connect, usize::from(target.start)));
        }
        Method::Connect => return Err(at(0)),
        Method::Options if bytes == b"*" => return Ok((target, None)),
        _ => {}
    }
    if bytes.first() == Some(&b'/') {
        return Ok((target, None));
    }
    let scheme = [&b"http://"[..], b"https://"]
        .into_iter()
        .find(|s| bytes.len() >= s.len() && bytes[..s.len()].eq_ignore_ascii_case(s))
        .ok_or(at(0))?
        .len();
    let rest = &bytes[scheme..];
    let authority = rest.iter().position(|&b| b == b'/' || b == b'?').unwrap_or(rest.len());
    let from = usize::from(target.start) + scheme;
    let authority = Span::new(from, from + authority);
    if !field::is_host(authority.of(buffer)) {
        return Err(at(scheme));
    }
    Ok((Span { start: authority.end, end: target.end }, Some(authority)))
}

/// Who is asked for, and whether the `Host` field says just that.
fn check_host(
    buffer: &[u8],
    minor: u8,
    host: Option<Span>,
    authority: Option<Span>,
    fields_at: usize,
) -> Result<(Option<Span>, bool), Reject> {
    let Some(host) = host else {
        return if minor == 0 {
            Ok((authority, false))
        } else {
            Err(Reject::new(Why::HostMissing, fields_at))
        };
    };
    if !field::is_host(host.of(buffer)) {
        return Err(Reject::new(Why::HostInvalid, usize::from(host.start)));
    }
    match authority {
        // RFC 9112 §3.2.2: the target rules, and the next one must hear of no other host.
        Some(authority) if !authority.of(buffer).eq_ignore_ascii_case(host.of(buffer)) => {
            Ok((Some(authority), false))
        }
        _ => Ok((Some(host), true)),
    }
}

#[cfg(test)]
mod tests {
    use std::format;
    use std::string::String;
    use std::vec::Vec;

    use super::*;

    fn parse(text: &str) -> Result<Option<Request>, Reject> {
        Request::parse(text.as_bytes(), Edit { strip_forwarded: true })
    }

    fn good(text: &str) -> Request {
        parse(text).unwrap().expect("a whole head")
    }

    fn why(text: &str) -> Why {
        parse(text).expect_err(text).why
    }

    /// The field lines that are sent on.
    fn kept(text: &str) -> String {
        let bytes: Vec<u8> =
            good(text).fields.spans().iter().flat_map(|s| s.of(text.as_bytes()).iter().copied()).collect();
        String::from_utf8(bytes).unwrap()
    }

    /// A GET with these field lines behind `Host`.
    fn with(fields: &str) -> String {
        format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")
    }

    #[test]
    fn a_plain_request_is_understood() {
        let text = "GET /a?b HTTP/1.1\r\nHost: h:80\r\nAccept: */*\r\n\r\nnext";
        let request = good(text);
        assert_eq!(request.method, Method::Get);
        assert_eq!(request.path.of(text.as_bytes()), b"/a?b");
        assert_eq!(request.line.of(text.as_bytes()), b"GET /a?b HTTP/1.1");
        assert_eq!(request.host.map(|h| h.of(text.as_bytes())), Some(&b"h:80"[..]));
        assert_eq!((request.body, request.keep_alive, request.minor), (Body::None, true, 1));
        assert_eq!(request.length, text.len() - 4);
        assert_eq!(kept(text), "Host: h:80\r\nAccept: */*\r\n");
    }

    #[test]
    fn a_head_may_come_in_pieces_and_says_nothing_until_it_is_whole() {
        let text = with("X: 1\r\n");
        for end in 0..text.len() {
            assert!(parse(&text[..end]).unwrap().is_none(), "{end}");
        }
        assert!(parse(&text).unwrap().is_some());
    }

    #[test]
    fn a_few_empty_lines_before_a_request_are_skipped() {
        assert_eq!(good(&format!("\r\n\r\n{}", with(""))).length, with("").len() + 4);
        assert_eq!(why(&format!("{}{}", "\r\n".repeat(6), with(""))), Why::EmptyLines);
        assert_eq!(why(&format!("\n{}", with(""))), Why::BareLineEnd);
    }

    #[test]
    fn lines_end_with_crlf_and_nothing_else() {
        for text in [
            "GET / HTTP/1.1\nHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\n",
            "GET / HTTP/1.1\rHost: h\r\n\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n\r\r\n\r\n",
        ] {
            let status = parse(text).expect_err(text).why.status();
            assert_eq!(status, 400, "{text:?}");
        }
    }

    #[test]
    fn the_offset_names_the_byte_that_decided() {
        let text = with("X-A : v\r\n");
        let reject = parse(&text).unwrap_err();
        assert_eq!((reject.why, reject.at), (Why::SpaceBeforeColon, text.find(" :").unwrap()));
        let text = with("X: a\0b\r\n");
        let reject = parse(&text).unwrap_err();
        assert_eq!((reject.why, reject.at), (Why::FieldValue, text.find('\0').unwrap()));
        let text = with("X: a\r\n b\r\n");
        let reject = parse(&text).unwrap_err();
        assert_eq!((reject.why, reject.at), (Why::Fold, text.find(" b").unwrap()));
    }

    #[test]
    fn every_rule_about_length_and_coding_is_held() {
        for (fields, expected) in [
            ("Content-Length: 5\r\nContent-Length: 5\r\n", Why::ContentLengthTwice),
            ("Content-Length: 5, 5\r\n", Why::ContentLength),
            ("Content-Length: +5\r\n", Why::ContentLength),
            ("Content-Length: \r\n", Why::ContentLength),
            ("Content-Length: 9223372036854775808\r\n", Why::ContentLength),
            ("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", Why::LengthAndCoding),
            ("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", Why::LengthAndCoding),
            ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", Why::Coding),
            ("Transfer-Encoding: chunked, gzip\r\n", Why::Coding),
            ("Transfer-Encoding: chunked, chunked\r\n", Why::Coding),
            ("Transfer-Encoding: , chunked\r\n", Why::Coding),
            ("Transfer-Encoding: \r\n", Why::Coding),
            ("Transfer-Encoding: \x0bchunked\r\n", Why::FieldValue),
            ("Transfer-Encoding: gzip, chunked\r\n", Why::CodingUnknown),
        ] {
            assert_eq!(why(&with(fields)), expected, "{fields:?}");
        }
        assert_eq!(why("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"), Why::CodingInOld);
        assert_eq!(good(&with("Content-Length: 0005\r\n")).body, Body::Length(5));
        assert_eq!(good(&with("Content-Length: 0\r\n")).body, Body::None);
        assert_eq!(good(&with("transfer-encoding: CHUNKED\r\n")).body, Body::Chunked);
    }

    #[test]
    fn the_host_is_there_once_and_gives_way_to_an_absolute_target() {
        assert_eq!(why("GET / HTTP/1.1\r\n\r\n"), Why::HostMissing);
        assert_eq!(why("GET / HTTP/1.1\r\nHost: a\r\nhOST: a\r\n\r\n"), Why::HostTwice);
        assert_eq!(why("GET / HTTP/1.1\r\nHost:\r\n\r\n"), Why::HostInvalid);
        assert_eq!(why("GET http://b/ HTTP/1.1\r\nHost: a/\r\n\r\n"), Why::HostInvalid);
        for (target, host) in [("http://b/", "b"), ("http://a:81/", "a:81"), ("https://[::1]", "[::1]")] {
            let text = format!("GET {target} HTTP/1.1\r\nX: 1\r\nHost: a\r\nY: 2\r\n\r\n");
            let request = good(&text);
            assert_eq!(request.host.map(|h| h.of(text.as_bytes())), Some(host.as_bytes()));
            assert!(!request.has_host_field);
            assert_eq!(kept(&text), "X: 1\r\nY: 2\r\n");
        }
        assert_eq!(why("GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n"), Why::Target);
        assert!(!good("GET / HTTP/1.0\r\n\r\n").has_host_field);
        let text = "GET HTTP://A:80/x?y HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(good(text).path.of(text.as_bytes()), b"/x?y");
        let text = "GET https://a?y HTTP/1.1\r\nHost: a:443\r\n\r\n";
        assert_eq!(good(text).path.of(text.as_bytes()), b"?y");
        assert!(good("GET http://a HTTP/1.1\r\nHost: a\r\n\r\n").path.is_empty());
    }

    #[test]
    fn the_target_fits_the_method() {
        for (line, expected) in [
            ("GET * HTTP/1.1", Why::Target),
            ("GET x HTTP/1.1", Why::Target),
            ("GET ftp://h/ HTTP/1.1", Why::Target),
            ("GET /a#b HTTP/1.1", Why::Target),
            ("GET /\u{e9} HTTP/1.1", Why::Target),
            ("CONNECT /x HTTP/1.1", Why::Target),
            ("CONNECT h:443 HTTP/1.1", Why::Connect),
            ("GET / HTTP/2.0", Why::Version),
            ("GET / HTTP/1.2", Why::Version),
            ("GET / HTTP/01.1", Why::StartLine),
            ("GET /", Why::StartLine),
            ("GET  / HTTP/1.1", Why::StartLine),
            ("G@T / HTTP/1.1", Why::StartLine),
            (" GET / HTTP/1.1", Why::StartLine),
        ] {
            assert_eq!(why(&format!("{line}\r\nHost: h\r\n\r\n")), expected, "{line}");
        }
        let star = "OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(good(star).path.of(star.as_bytes()), b"*");
    }

    #[test]
    fn fields_for_one_hop_stay_here() {
        let text = with(
            "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: x\r\nTE: trailers\r\n\
             X-Hope: 2\r\nTrailer: T\r\nX-Forwarded-Proto: https\r\nX-Forwarded-For: 1.2.3.4\r\nUpgrade: x\r\n",
        );
        assert_eq!(kept(&text), "Host: h\r\nX-Hope: 2\r\nX-Forwarded-For: 1.2.3.4\r\n");
        let trusted = Request::parse(text.as_bytes(), Edit::default()).unwrap().unwrap();
        assert!(trusted.fields.len() > good(&text).fields.len());
        let named = with("Connection: X-Forwarded-Proto\r\nX-Forwarded-Proto: https\r\n");
        let trusted = Request::parse(named.as_bytes(), Edit::default()).unwrap().unwrap();
        assert_eq!(trusted.fields.len(), "Host: h\r\n".len());
    }

    #[test]
    fn connection_never_takes_away_what_frames_or_routes() {
        for name in ["Host", "content-length", "Transfer-Encoding", "Connection"] {
            assert_eq!(why(&with(&format!("Connection: {name}\r\n"))), Why::Connection, "{name}");
        }
        assert_eq!(why(&with("Connection: a b\r\n")), Why::Connection);
        let many: Vec<String> = (0..=limits::CONNECTION_NAMES).map(|i| format!("x{i}")).collect();
        assert_eq!(why(&with(&format!("Connection: {}\r\n", many.join(",")))), Why::Connection);
    }

    #[test]
    fn names_that_a_cgi_server_would_take_for_framing_or_forwarding_stay_here() {
        let text = with(
            "Content_Length: 41\r\nTransfer_Encoding: chunked\r\nX_Forwarded_Proto: https\r\nX_A: b\r\n",
        );
        assert_eq!(kept(&text), "Host: h\r\nX_A: b\r\n");
        assert_eq!(good(&text).body, Body::None);
        assert_eq!(kept(&with("Connection: Trailer\r\nTrailer: X\r\n")), "Host: h\r\n");
    }

    #[test]
    fn an_upgrade_is_offered_on_unless_it_is_h2c_or_has_a_body() {
        let asks = |fields: &str| good(&with(fields)).upgrade.is_some();
        assert!(asks("Connection: Upgrade\r\nUpgrade: websocket\r\n"));
        assert!(!asks("Upgrade: websocket\r\n"));
        assert!(!asks("Connection: upgrade\r\nUpgrade: h2c\r\n"));
        assert!(!asks("Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 3\r\n"));
    }

    #[test]
    fn keep_alive_is_the_default_of_1_1_and_an_option_of_1_0() {
        assert!(good(&with("")).keep_alive);
        assert!(!good(&with("Connection: Close\r\n")).keep_alive);
        assert!(!good("GET / HTTP/1.0\r\n\r\n").keep_alive);
        assert!(good("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").keep_alive);
    }

    #[test]
    fn max_forwards_counts_for_options_and_trace_only() {
        let of = |method: &str, value: &str| {
            parse(&format!("{method} / HTTP/1.1\r\nHost: h\r\nMax-Forwards: {value}\r\n\r\n"))
        };
        assert_eq!(of("OPTIONS", "5").unwrap().unwrap().max_forwards, Some(5));
        assert_eq!(of("OPTIONS", "x").unwrap_err().why, Why::MaxForwards);
        assert_eq!(of("GET", "x").unwrap().unwrap().max_forwards, None);
    }

    #[test]
    fn a_head_has_an_end_within_the_limits() {
        let many = with(&"a: b\r\n".repeat(limits::FIELDS));
        assert_eq!(why(&many), Why::TooManyFields);
        let long = with(&format!("a: {}", "b".repeat(limits::HEAD_BYTES)));
        assert_eq!(why(&long), Why::HeadTooLong);
        let target = format!("GET /{}", "b".repeat(limits::HEAD_BYTES));
        assert_eq!(why(&target), Why::TargetTooLong);
        let cuts = with(&"Connection: x\r\na: b\r\n".repeat(limits::CUTS + 1));
        assert!(matches!(why(&cuts), Why::TooManyFields | Why::Connection));
    }

    #[test]
    fn an_expectation_is_continue_or_refused() {
        assert!(good(&with("Expect: 100-Continue\r\nContent-Length: 3\r\n")).expect_continue);
        assert_eq!(why(&with("Expect: bogus\r\n")), Why::Expectation);
    }
}
