//! `access-log`: where each frontend's lines go, and what they say.

use std::sync::Arc;

use super::{Context, each};
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::log_format::{self, Captures};
use crate::plan::{Frontend, FrontendLog, LogField, LogFormat, LogPart, LogStyle, LogTarget, LogTo, Mode};

/// Most different targets: each has a thread of its own.
const MOST_TARGETS: usize = 16;

/// What an `access-log` says about where to.
struct Destination {
    target: LogTarget,
    header: Vec<LogPart>,
}

/// Gives every frontend its log, and returns where they all go.
pub(super) fn logs(
    cx: &mut Context,
    items: &[Item],
    platform: &Item,
    frontends: &mut [Frontend],
) -> Option<Vec<LogTarget>> {
    let common = platform.setting("access-log");
    let common_to = destination(cx, &common)?;
    let mut targets: Vec<LogTarget> = Vec::new();
    for (item, frontend) in each(items, "frontend").zip(frontends) {
        if frontend.mode == Mode::Forward {
            continue; // nobody sees its connections
        }
        let own = item.find("access-log");
        let elsewhere = own.filter(|own| own.get::<Arc<str>>("target").as_deref() != Some("platform"));
        let to = match elsewhere {
            Some(own) => destination(cx, own)?,
            None => common_to
                .as_ref()
                .map(|to| Destination { target: to.target.clone(), header: to.header.clone() }),
        };
        let Some(to) = to else {
            if let (Some(own), None) = (own, elsewhere) {
                cx.error(
                    Diagnostic::error(own.span.clone(), "this says how to log, and nothing says where to")
                        .related(common.span.clone(), "the platform's is off")
                        .help("give it a target: access-log \"/var/log/relais/access.log\""),
                );
            }
            continue;
        };
        let Some(format) = format(cx, own, &common, frontend) else { continue };
        let parts = to.header.into_iter().chain(format.parts).collect();
        let target = targets.iter().position(|other| *other == to.target).unwrap_or_else(|| {
            targets.push(to.target);
            targets.len() - 1
        });
        if target >= MOST_TARGETS
            && let Some(own) = own
        {
            cx.error(
                Diagnostic::error(
                    own.span.clone(),
                    format!("access lines go to more than {MOST_TARGETS} places"),
                )
                .help("let some of them share a target"),
            );
        }
        frontend.log = Some(FrontendLog { target, format: Arc::new(LogFormat { parts }) });
    }
    Some(targets)
}

/// The format of a frontend's lines: its own, the platform's, or what its mode suggests.
fn format(cx: &mut Context, own: Option<&Item>, common: &Item, frontend: &Frontend) -> Option<LogFormat> {
    let captures = Captures {
        request: !frontend.request_captures.is_empty(),
        response: !frontend.response_captures.is_empty(),
    };
    let given = own.filter(|own| own.get::<Arc<str>>("format").is_some());
    let said = given.unwrap_or(common);
    let text = said.get::<Arc<str>>("format");
    let text = match (&text, frontend.mode) {
        (None, Mode::Http) => "httplog",
        (None, _) => "tcplog",
        // One format for the whole platform, made for requests: connections have theirs.
        (Some(text), mode) if mode != Mode::Http && given.is_none() && &**text != "json" => {
            if log_format::compile(text, mode, captures).is_ok() {
                text
            } else {
                "tcplog"
            }
        }
        (Some(text), _) => text,
    };
    match log_format::compile(text, frontend.mode, captures) {
        Ok(format) => Some(format),
        Err(wrong) => {
            cx.error(Diagnostic::error(said.span_of("format"), wrong.message).help(wrong.help));
            None
        }
    }
}

/// Where an `access-log` sends its lines; the inner `None` is `off`.
#[allow(clippy::option_option)] // the outer one is "has been reported", as everywhere here
fn destination(cx: &mut Context, item: &Item) -> Option<Option<Destination>> {
    let target = item.get::<Arc<str>>("target")?;
    let to = match target.split_once('@') {
        Some(("udp", address)) => LogTo::Udp(address.parse().ok()?),
        Some(("tcp", address)) => LogTo::Tcp(address.parse().ok()?),
        Some(("unix", path)) => LogTo::Unix(path.into()),
        _ if &*target == "off" => return Some(None),
        _ if &*target == "platform" => {
            cx.error(
                Diagnostic::error(
                    item.span_of("target"),
                    "`platform` is for frontends: this is the platform's log",
                )
                .help("write where lines go: access-log stdout"),
            );
            return None;
        }
        _ if &*target == "stdout" => LogTo::Stdout,
        _ => LogTo::File(target.clone()),
    };
    let syslog = matches!(to, LogTo::Udp(_) | LogTo::Tcp(_) | LogTo::Unix(_));
    let header = if syslog { header(cx, item)? } else { Vec::new() };
    if !syslog
        && let Some(given) = item.values().iter().find(|given| {
            let name = given.field.name;
            !matches!(name, "target" | "format") && given.span != item.span
        })
    {
        let message = format!("`{}=` is for syslog, and these lines go to {to}", given.field.name);
        cx.error(
            Diagnostic::error(given.span.clone(), message)
                .related(item.span_of("target"), "where they go")
                .help("take it out, or write a syslog server such as \"udp@192.168.112.190:514\""),
        );
    }
    Some(Some(Destination { target: LogTarget { to, length: item.get("length")? }, header }))
}

/// What stands before each line: `<PRI>1 TIMESTAMP HOSTNAME APP-NAME PROCID MSGID SD ` (RFC 5424 §6).
fn header(cx: &mut Context, item: &Item) -> Option<Vec<LogPart>> {
    const INFO: usize = 6;
    let facility = item.get::<Arc<str>>("facility")?;
    let protocol = item.get::<Arc<str>>("protocol")?;
    let tag = item.get::<Arc<str>>("tag")?;
    let hostname = item.get::<Arc<str>>("hostname");
    for (name, text, longest) in [("tag", Some(&tag), 48), ("hostname", hostname.as_ref(), 255)] {
        let good = |text: &str| text.len() <= longest && text.bytes().all(|b| b.is_ascii_graphic());
        if text.is_some_and(|text| !good(text)) {
            let message =
                format!("`{name}=` has at most {longest} printable characters, none of them a blank");
            cx.error(
                Diagnostic::error(item.span_of(name), message)
                    .help("syslog's header ends a field at a blank"),
            );
            return None;
        }
    }
    let number = crate::table::facility(&facility)?;
    let text = |text: String| LogPart::Text(text.into());
    let field = |field| LogPart::Field { field, style: LogStyle::Plain };
    let host = || hostname.as_ref().map_or(field(LogField::Hostname), |name| LogPart::Text(name.clone()));
    let pri = number * 8 + INFO;
    Some(match &*protocol {
        "rfc5424" => vec![
            text(format!("<{pri}>1 ")),
            field(LogField::DateSyslog),
            text(" ".into()),
            host(),
            text(format!(" {tag} ")),
            field(LogField::Pid),
            text(" - - ".into()),
        ],
        old => {
            let mut parts = vec![text(format!("<{pri}>")), field(LogField::DateSyslogOld)];
            if old == "rfc3164" {
                parts.extend([text(" ".into()), host()]);
            }
            parts.extend([text(format!(" {tag}[")), field(LogField::Pid), text("]: ".into())]);
            parts
        }
    })
}
