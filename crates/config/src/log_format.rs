//! Formats of access lines: text with HAProxy's `%` names to a list of parts.
//!
//! Compiled once with the plan, so that writing a line is a walk over a short list. What a name comes to is
//! the proxy's; nothing here knows a request. Named formats are texts in the same language: one
//! implementation, and the manual can show them.
//!
//! The language is HAProxy 2.6's (configuration manual §8.2.4), without sample expressions except
//! `%[traceparent]`.

use std::ops::Range;

use crate::nearest::nearest;
use crate::plan::{LogField, LogFormat, LogPart, LogStyle, Mode};

/// HAProxy's `option httplog`.
pub(crate) const HTTPLOG: &str = "%ci:%cp [%tr] %ft %b/%s %TR/%Tw/%Tc/%Tr/%Ta %ST %B %CC %CS %tsc \
    %ac/%fc/%bc/%sc/%rc %sq/%bq %hr %hs %{+Q}r";
/// HAProxy's `option tcplog`.
pub(crate) const TCPLOG: &str = "%ci:%cp [%t] %ft %b/%s %Tw/%Tc/%Tt %B %ts %ac/%fc/%bc/%sc/%rc %sq/%bq";
/// HAProxy's `option httplog clf`.
pub(crate) const CLF: &str = "%{+Q}o %{-Q}ci - - [%trg] %r %ST %B \"\" \"\" %cp %ms %ft %b %s %TR %Tw %Tc %Tr %Ta \
    %tsc %ac %fc %bc %sc %rc %sq %bq %CC %CS %hrl %hsl";

/// Formats with a name, and for which modes they are.
pub(crate) const NAMED: &[&str] = &["httplog", "tcplog", "json", "clf", "combined"];

/// Most parts of a format: more is no log line any more.
const MOST_PARTS: usize = 256;

/// What is wrong with a format, and where in its text.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) at: Range<usize>,
    pub(crate) message: String,
    pub(crate) help: String,
}

/// The names, sorted as in HAProxy's manual; what does not stand here is refused.
const NAMES: &[(&str, LogField)] = &[
    ("B", LogField::BytesOut),
    ("CC", LogField::Nothing),
    ("CS", LogField::Nothing),
    ("H", LogField::Hostname),
    ("HM", LogField::Method),
    ("HP", LogField::Path),
    ("HQ", LogField::Query),
    ("HU", LogField::Target),
    ("HV", LogField::Version),
    ("ID", LogField::RequestId),
    ("ST", LogField::Status),
    ("T", LogField::DateGmt),
    ("Ta", LogField::TimeActive),
    ("Tc", LogField::TimeConnect),
    ("Td", LogField::TimeData),
    ("Th", LogField::TimeHandshake),
    ("Ti", LogField::TimeIdle),
    ("Tl", LogField::DateLocal),
    ("Tq", LogField::TimeAll),
    ("TR", LogField::TimeRequest),
    ("Tr", LogField::TimeResponse),
    ("Ts", LogField::Seconds),
    ("Tt", LogField::TimeTotal),
    ("Tu", LogField::TimeUser),
    ("Tw", LogField::TimeQueue),
    ("U", LogField::BytesIn),
    ("ac", LogField::SessionsProcess),
    ("b", LogField::Backend),
    ("bc", LogField::SessionsBackend),
    ("bq", LogField::QueueBackend),
    ("ci", LogField::ClientIp),
    ("cp", LogField::ClientPort),
    ("f", LogField::Frontend),
    ("fc", LogField::SessionsFrontend),
    ("fi", LogField::FrontendIp),
    ("fp", LogField::FrontendPort),
    ("ft", LogField::FrontendTls),
    ("hr", LogField::RequestCaptures),
    ("hrl", LogField::RequestCaptureList),
    ("hs", LogField::ResponseCaptures),
    ("hsl", LogField::ResponseCaptureList),
    ("ms", LogField::Milliseconds),
    ("pid", LogField::Pid),
    ("r", LogField::RequestLine),
    ("rc", LogField::Retries),
    ("s", LogField::Server),
    ("sc", LogField::SessionsServer),
    ("si", LogField::ServerIp),
    ("sp", LogField::ServerPort),
    ("sq", LogField::QueueServer),
    ("t", LogField::DateAccept),
    ("tr", LogField::DateRequest),
    ("trg", LogField::DateRequestGmt),
    ("trl", LogField::DateRequestLocal),
    ("ts", LogField::State),
    ("tsc", LogField::StateCookie),
];

/// Whether a field says something about an HTTP message.
fn needs_http(field: &LogField) -> bool {
    matches!(
        field,
        LogField::Method
            | LogField::Path
            | LogField::Query
            | LogField::Target
            | LogField::Version
            | LogField::RequestId
            | LogField::Traceparent
            | LogField::Status
            | LogField::RequestLine
            | LogField::RequestCaptures
            | LogField::RequestCaptureList
            | LogField::ResponseCaptures
            | LogField::ResponseCaptureList
            | LogField::RequestHeader(_)
            | LogField::StateCookie
            | LogField::TimeRequest
            | LogField::TimeResponse
    )
}

/// The format of this name, or as written, for lines of `mode`.
///
/// # Errors
/// The first `%` that means nothing, or nothing in this mode.
pub(crate) fn compile(text: &str, mode: Mode, captures: Captures) -> Result<LogFormat, Wrong> {
    let parts = match text {
        "httplog" => parse(HTTPLOG)?,
        "tcplog" => parse(TCPLOG)?,
        "clf" => parse(CLF)?,
        "combined" => combined(),
        "json" => json(mode),
        own => parse(own)?,
    };
    if mode != Mode::Http
        && text != "json"
        && let Some(part) =
            parts.iter().find(|part| matches!(part, LogPart::Field { field, .. } if needs_http(field)))
    {
        let (at, what) = match NAMED.contains(&text) {
            true => (0..text.len(), format!("`{text}`")),
            false => place_of(text, part),
        };
        return Err(Wrong {
            at,
            message: format!("{what} needs `mode http`: in `mode {mode}` requests are not read"),
            help: "write tcplog or json, or leave the format out".into(),
        });
    }
    Ok(LogFormat { parts: if text == "json" { parts } else { tidy(parts, captures) } })
}

/// Checks a format as far as it can be without a mode.
///
/// # Errors
/// As [`compile`].
pub(crate) fn check(text: &str) -> Result<(), Wrong> {
    if !text.contains('%') && !NAMED.contains(&text) {
        let help = match nearest(text, NAMED.iter().copied()) {
            Some(name) => format!("did you mean `{name}`?"),
            None => "write one of these names, or a text with `%` names in it".into(),
        };
        return Err(Wrong { at: 0..text.len(), message: format!("there is no log format `{text}`"), help });
    }
    compile(text, Mode::Http, Captures::default()).map(drop)
}

/// Where the field of `part` stands in a text, and what it is called there.
fn place_of(text: &str, part: &LogPart) -> (Range<usize>, String) {
    let LogPart::Field { field, .. } = part else { return (0..text.len(), "the format".into()) };
    let name = NAMES.iter().find(|(_, other)| other == field).map_or("[traceparent]", |(name, _)| name);
    let mut rest = text;
    while let Some(at) = rest.find('%') {
        let mut parser = Parser { text, at: text.len() - rest.len() + at };
        let from = parser.at;
        if let Ok(Some(LogPart::Field { field: found, .. })) = parser.percent(&mut false)
            && found == *field
        {
            return (from..parser.at, format!("`{}`", &text[from..parser.at]));
        }
        rest = &text[parser.at.max(from + 1)..];
    }
    (0..text.len(), format!("`%{name}`"))
}

fn parse(text: &str) -> Result<Vec<LogPart>, Wrong> {
    let mut parser = Parser { text, at: 0 };
    let (mut parts, mut plain, mut quoted) = (Vec::new(), String::new(), false);
    while let Some(c) = text[parser.at..].chars().next() {
        if c != '%' {
            plain.push(c);
            parser.at += c.len_utf8();
            continue;
        }
        if text[parser.at..].starts_with("%%") {
            plain.push('%');
            parser.at += 2;
            continue;
        }
        if let Some(part) = parser.percent(&mut quoted)? {
            if !plain.is_empty() {
                parts.push(LogPart::Text(std::mem::take(&mut plain).into()));
            }
            parts.push(part);
        }
        if parts.len() > MOST_PARTS {
            return Err(Wrong {
                at: 0..text.len(),
                message: format!("the format has more than {MOST_PARTS} parts"),
                help: "log less on a line".into(),
            });
        }
    }
    if !plain.is_empty() {
        parts.push(LogPart::Text(plain.into()));
    }
    Ok(parts)
}

/// Takes out what is never there, and the second of two blanks, as HAProxy does: `%hr %hs` without captures
/// are one blank, not three.
fn tidy(parts: Vec<LogPart>, captures: Captures) -> Vec<LogPart> {
    let mut tidied: Vec<LogPart> = Vec::new();
    let mut blank = true;
    for part in parts {
        match part {
            LogPart::Field {
                field: LogField::RequestCaptures | LogField::RequestCaptureList,
                style: LogStyle::Plain | LogStyle::Quoted,
            } if !captures.request => {}
            LogPart::Field {
                field: LogField::ResponseCaptures | LogField::ResponseCaptureList,
                style: LogStyle::Plain | LogStyle::Quoted,
            } if !captures.response => {}
            LogPart::Text(text) => {
                let mut kept = String::new();
                for c in text.chars().filter(|c| !c.is_control()) {
                    if c != ' ' || !blank {
                        kept.push(c);
                    }
                    blank = c == ' ';
                }
                match tidied.last_mut() {
                    Some(LogPart::Text(before)) => *before = format!("{before}{kept}").into(),
                    _ if kept.is_empty() => {}
                    _ => tidied.push(LogPart::Text(kept.into())),
                }
            }
            field => {
                blank = false;
                tidied.push(field);
            }
        }
    }
    tidied
}

/// Whether a frontend captures headers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Captures {
    pub(crate) request: bool,
    pub(crate) response: bool,
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn wrong(&self, from: usize, message: impl Into<String>, help: impl Into<String>) -> Wrong {
        Wrong { at: from..self.at, message: message.into(), help: help.into() }
    }

    /// One `%...`; `None` for `%{...}o`, which sets what holds from there on.
    fn percent(&mut self, quoted: &mut bool) -> Result<Option<LogPart>, Wrong> {
        let from = self.at;
        self.at += 1;
        let mut own = *quoted;
        if self.text[self.at..].starts_with('{') {
            let Some(end) = self.text[self.at..].find('}') else {
                self.at = self.text.len();
                return Err(self.wrong(from, "`%{` has no `}`", "write for example %{+Q}r"));
            };
            let flags = self.text[self.at + 1..self.at + end].to_owned();
            self.at += end + 1;
            for flag in flags.split(',') {
                match flag.trim() {
                    "+Q" => own = true,
                    "-Q" => own = false,
                    other => {
                        let message = format!("`{other}` is no flag of a log field");
                        return Err(self.wrong(
                            from,
                            message,
                            "write %{+Q}NAME to have it in quotation marks, %{-Q}NAME not to",
                        ));
                    }
                }
            }
        }
        if self.text[self.at..].starts_with('[') {
            let end = self.text[self.at..].find(']').map_or(self.text.len(), |end| self.at + end + 1);
            let expression = self.text[self.at..end].to_owned();
            self.at = end;
            if expression != "[traceparent]" {
                return Err(self.wrong(
                    from,
                    format!("`%{expression}` is no field: sample expressions are not for logs here"),
                    "capture what a header says: capture request-header NAME len=64, and write %hr",
                ));
            }
            return Ok(Some(field(LogField::Traceparent, own)));
        }
        let name: String = self.text[self.at..].chars().take_while(char::is_ascii_alphanumeric).collect();
        self.at += name.len();
        if name == "o" {
            *quoted = own;
            return Ok(None);
        }
        match NAMES.iter().find(|(known, _)| *known == name) {
            Some((_, found)) => Ok(Some(field(found.clone(), own))),
            None if name.is_empty() => {
                self.at = self.at.max(from + 1);
                Err(self.wrong(from, "`%` without a name", "write %% for the sign itself"))
            }
            None => {
                let help = match NAMES.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name)) {
                    Some((known, _)) => format!("did you mean %{known}?"),
                    None => {
                        "`relais explain access-log` lists the names; write %% for the sign itself".into()
                    }
                };
                Err(self.wrong(from, format!("there is no log field `%{name}`"), help))
            }
        }
    }
}

const fn field(field: LogField, quoted: bool) -> LogPart {
    LogPart::Field { field, style: if quoted { LogStyle::Quoted } else { LogStyle::Plain } }
}

/// Apache's and nginx's `combined`.
fn combined() -> Vec<LogPart> {
    let header = |name: &str| field(LogField::RequestHeader(name.into()), true);
    let text = |text: &str| LogPart::Text(text.into());
    vec![
        field(LogField::ClientIp, false),
        text(" - - ["),
        field(LogField::DateRequestLocal, false),
        text("] "),
        field(LogField::RequestLine, true),
        text(" "),
        field(LogField::Status, false),
        text(" "),
        field(LogField::BytesOut, false),
        text(" "),
        header("referer"),
        text(" "),
        header("user-agent"),
    ]
}

/// Names and fields of `json`, in order; those that need HTTP are left out in `mode tcp`.
const JSON: &[(&str, LogField)] = &[
    ("time", LogField::DateIso),
    ("client", LogField::ClientIp),
    ("client_port", LogField::ClientPort),
    ("frontend", LogField::Frontend),
    ("tls", LogField::IsTls),
    ("backend", LogField::Backend),
    ("server", LogField::Server),
    ("method", LogField::Method),
    ("host", LogField::Host),
    ("target", LogField::Target),
    ("version", LogField::Version),
    ("status", LogField::Status),
    ("bytes_in", LogField::BytesIn),
    ("bytes_out", LogField::BytesOut),
    ("ms_request", LogField::TimeRequest),
    ("ms_queue", LogField::TimeQueue),
    ("ms_connect", LogField::TimeConnect),
    ("ms_response", LogField::TimeResponse),
    ("ms_total", LogField::TimeActive),
    ("state", LogField::State),
    ("retries", LogField::RetryCount),
    ("redispatched", LogField::IsRedispatched),
    ("queue_server", LogField::QueueServer),
    ("queue_backend", LogField::QueueBackend),
    ("sessions_process", LogField::SessionsProcess),
    ("sessions_frontend", LogField::SessionsFrontend),
    ("sessions_backend", LogField::SessionsBackend),
    ("sessions_server", LogField::SessionsServer),
    ("request_id", LogField::RequestId),
    ("traceparent", LogField::Traceparent),
    ("request_headers", LogField::RequestCaptures),
    ("response_headers", LogField::ResponseCaptures),
];

fn json(mode: Mode) -> Vec<LogPart> {
    let mut parts = Vec::new();
    let mut before = "{";
    for (name, field) in JSON {
        if mode != Mode::Http && (needs_http(field) || *field == LogField::Host) {
            continue;
        }
        parts.push(LogPart::Text(format!("{before}\"{name}\":").into()));
        parts.push(LogPart::Field { field: field.clone(), style: LogStyle::Json });
        before = ",";
    }
    parts.push(LogPart::Text("}".into()));
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong(text: &str) -> (String, String) {
        let wrong = check(text).expect_err(text);
        (text[wrong.at].to_owned(), wrong.message)
    }

    #[test]
    fn a_format_is_text_and_fields() {
        let format = compile("a%ci%%%{+Q}r", Mode::Http, Captures::default()).expect("a format");
        assert_eq!(
            format.parts,
            [
                LogPart::Text("a".into()),
                field(LogField::ClientIp, false),
                LogPart::Text("%".into()),
                field(LogField::RequestLine, true)
            ]
        );
    }

    #[test]
    fn what_means_nothing_is_pointed_at() {
        assert_eq!(wrong("%ci %zz x").0, "%zz");
        assert_eq!(wrong("%ci %{+Z}r").0, "%{+Z}r".replace('r', ""));
        assert_eq!(wrong("%ci %{+Q").0, "%{+Q");
        assert_eq!(wrong("100% ").0, "%");
        assert_eq!(wrong("%[req.hdr(x)]").0, "%[req.hdr(x)]");
        assert_eq!(wrong("htplog").0, "htplog");
        assert!(check("%hm").expect_err("no such field").help.contains("%HM"));
    }

    #[test]
    fn a_flag_for_all_that_follows_holds_until_it_is_taken_back() {
        let format =
            compile("%{+Q}o%ci%{-Q}cp%f%{-Q}o%b", Mode::Http, Captures::default()).expect("a format");
        let styles: Vec<_> = format
            .parts
            .iter()
            .map(|part| matches!(part, LogPart::Field { style: LogStyle::Quoted, .. }))
            .collect();
        assert_eq!(styles, [true, false, true, false]);
    }

    #[test]
    fn what_is_never_there_leaves_no_second_blank() {
        let text = |captures| {
            let format = compile("%ST  %hr %hs %r", Mode::Http, captures).expect("a format");
            format.parts.iter().filter(|p| matches!(p, LogPart::Text(_))).count()
        };
        assert_eq!(text(Captures::default()), 1);
        assert_eq!(text(Captures { request: true, response: true }), 3);
    }

    #[test]
    fn the_manual_has_every_name() {
        let row = crate::table::rows(crate::table::Section::Platform, "access-log")[0];
        for (name, _) in NAMES.iter().filter(|(name, _)| !matches!(*name, "CC" | "CS")) {
            assert!(row.doc.contains(&format!("`%{name}`")), "{name}");
        }
    }

    #[test]
    fn connections_have_no_requests_to_log() {
        assert!(
            compile("tcplog", Mode::Tcp, Captures::default()).is_ok()
                && compile("json", Mode::Tcp, Captures::default()).is_ok()
        );
        let wrong = compile("%ci %{+Q}r", Mode::Tcp, Captures::default()).expect_err("no request");
        assert_eq!(wrong.at, 4..10);
        assert!(compile("httplog", Mode::Tcp, Captures::default()).is_err());
    }
}
