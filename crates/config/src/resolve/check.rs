//! `check`: what is asked of servers, and how often.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Context, each};
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::{
    Agent, Breaker, Check, CheckKind, DnsExpect, Hedge, InitState, Mode, Observe, OnError, Outlier,
};

/// Types of records (RFC 1035 §3.2.2, RFC 3596 §2.1, RFC 2782).
const DNS_TYPES: &[(&str, u16)] = &[
    ("A", 1),
    ("NS", 2),
    ("CNAME", 5),
    ("SOA", 6),
    ("PTR", 12),
    ("MX", 15),
    ("TXT", 16),
    ("AAAA", 28),
    ("SRV", 33),
];

/// The check of a `backend`, from the items of the whole file.
pub(super) fn check(cx: &mut Context, item: &Item, backend: &Item, items: &[Item]) -> Option<Check> {
    let secret = || secret(item, items);
    let kind = match item.row.form? {
        "http" => CheckKind::Http {
            path: item.get("path")?,
            host: item.get("host"),
            expect: item.get("expect")?,
            method: item.get("method")?,
            contains: item.get("contains"),
            matches: item.get("matches"),
            headers: item.each("header").filter_map(|h| Some((h.get("name")?, h.get("value")?))).collect(),
            body: item.get("body"),
        },
        "exec" => {
            let command: Arc<str> = item.get("command")?;
            if !command.starts_with('/') {
                cx.error(
                    Diagnostic::error(item.span_of("command"), "a program is named by its absolute path")
                        .help(format!("write where it is: command=\"/usr/local/bin/{command}\"")),
                );
                return None;
            }
            CheckKind::Exec { command, timeout: item.get("timeout").or_else(|| item.get("every"))? }
        }
        "grpc" => {
            CheckKind::Grpc { service: item.get("service").unwrap_or_default(), host: item.get("host")? }
        }
        "dns" => dns(item)?,
        "tls" => CheckKind::Tls { sni: item.get("sni") },
        "mysql" => CheckKind::Mysql { user: item.get("user"), secret: secret(), galera: false },
        "galera" => CheckKind::Mysql { user: Some(item.get("user")?), secret: Some(secret()?), galera: true },
        "postgresql" => CheckKind::Postgresql { user: item.get("user")? },
        "redis" => CheckKind::Redis { secret: secret() },
        "smtp" => CheckKind::Smtp { helo: item.get("helo")? },
        "ldap" => CheckKind::Ldap { user: item.get("user"), secret: secret(), base: item.get("base") },
        _ => CheckKind::Tcp,
    };
    refuse(cx, item, backend, &kind);
    Some(Check {
        kind,
        every: item.get("every")?,
        fall: item.get("fall")?,
        rise: item.get("rise")?,
        fastinter: item.get("fastinter"),
        downinter: item.get("downinter"),
        port: item.get("port"),
        address: item.get("address"),
        jitter: item.get("jitter").unwrap_or_default(),
        init: match &*item.get::<Arc<str>>("init").unwrap_or_default() {
            "fully-up" => InitState::FullyUp,
            "down" => InitState::Down,
            "fully-down" => InitState::FullyDown,
            _ => InitState::Up,
        },
        grace: item.get("grace").unwrap_or_default(),
        shared: backend.find("share-checks").is_some(),
        agent: backend.find("agent").and_then(|agent| {
            Some(Agent {
                port: agent.get("port")?,
                address: agent.get("address"),
                every: agent.get("every")?,
                send: agent.get::<Arc<str>>("send").unwrap_or_default().replace("\\n", "\n").into(),
            })
        }),
    })
}

/// What `share-checks` needs.
pub(super) fn shared(cx: &mut Context, backend: &Item, items: &[Item]) {
    let Some(item) = backend.find("share-checks") else { return };
    let peers = each(items, "platform").any(|platform| platform.find("peers").is_some());
    let (what, help) = match backend.find("check").map(|check| check.row.form) {
        None => ("there is no `check` to share", "add one, such as `check tcp`"),
        Some(Some("exec")) => {
            ("what a program finds is not shared: each node runs it", "take `share-checks` out")
        }
        Some(_) if !peers => {
            ("nodes share their checks as they share tables", "add to `platform`: peers port=10000")
        }
        Some(_) => return,
    };
    cx.error(Diagnostic::error(item.span.clone(), what).help(help));
}

/// An agent alone brings no server back.
pub(super) fn agent(cx: &mut Context, backend: &Item) {
    if let (Some(agent), None) = (backend.find("agent"), backend.find("check")) {
        cx.error(
            Diagnostic::error(agent.span.clone(), "`agent` needs a `check`: it only adds to what that says")
                .help("add one, such as `check tcp`"),
        );
    }
}

/// Where servers of a `backend` have their own place for its check, there is one.
pub(super) fn places(cx: &mut Context, backend: &Item) {
    let why = match backend.find("check").map(|check| check.row.form) {
        Some(Some("exec")) => "the program of `check exec` is told the server's own address",
        Some(_) => return,
        None => "there is no `check` to send elsewhere",
    };
    for server in backend.each("server") {
        let port = server.get::<u16>("check-port").map(|_| "check-port");
        let address = server.get::<IpAddr>("check-address").map(|_| "check-address");
        for name in port.into_iter().chain(address) {
            cx.error(
                Diagnostic::error(server.span_of(name), format!("`{name}` has no effect: {why}"))
                    .help("take it out, or write a check that asks the server, such as `check tcp`"),
            );
        }
    }
}

/// What the traffic of a `backend` says of its servers.
pub(super) fn observe(cx: &mut Context, backend: &Item, mode: Option<Mode>) -> Option<Observe> {
    let item = backend.find("observe")?;
    let layer7 = &*item.get::<Arc<str>>("what")? == "layer7";
    if backend.find("check").is_none() {
        cx.error(
            Diagnostic::error(
                item.span.clone(),
                "`observe` needs a `check`: nothing else would bring a server back",
            )
            .help("add one, such as `check tcp`"),
        );
    }
    if layer7 && mode == Some(Mode::Tcp) {
        cx.error(
            Diagnostic::error(item.span_of("what"), "in `mode tcp` there are no answers to look at")
                .help("write `observe layer4`"),
        );
    }
    if matches!(mode, Some(Mode::Udp)) || backend.find("mode").is_some_and(|mode| mode.says("forward")) {
        cx.error(
            Diagnostic::error(item.span.clone(), "`observe` is for HTTP and TCP that pass through Relais")
                .help("take it out; the check alone decides here"),
        );
    }
    let on_error = match &*item.get::<Arc<str>>("on-error")? {
        "fail-check" => OnError::FailCheck,
        "sudden-death" => OnError::SuddenDeath,
        "fastinter" => OnError::FastInter,
        _ => OnError::MarkDown,
    };
    Some(Observe { layer7, errors: item.get("errors")?, on_error, most_down: item.get("most-down")? })
}

/// Which servers fail too much.
pub(super) fn outlier(cx: &mut Context, backend: &Item, mode: Option<Mode>) -> Option<Outlier> {
    let item = backend.find("outlier")?;
    if mode.is_some_and(|mode| mode != Mode::Http) {
        cx.error(
            Diagnostic::error(item.span.clone(), "`outlier` counts requests, and only `mode http` has them")
                .help("take it out; `observe layer4` takes servers out that take no connections"),
        );
    }
    if backend.find("check").is_none() {
        cx.error(
            Diagnostic::error(
                item.span.clone(),
                "`outlier` needs a `check`: a server that is back is to be well",
            )
            .help("add one, such as `check tcp`"),
        );
    }
    Some(Outlier {
        errors: item.get("errors")?,
        least: item.get("least")?,
        window: item.get("window")?,
        out: item.get("for")?,
        most_down: item.get("most-down")?,
    })
}

/// When a second server is asked.
pub(super) fn hedge(cx: &mut Context, backend: &Item, mode: Option<Mode>) -> Option<Hedge> {
    let item = backend.find("hedge")?;
    if mode.is_some_and(|mode| mode != Mode::Http) {
        cx.error(
            Diagnostic::error(
                item.span.clone(),
                "`hedge` asks a second server, and only `mode http` has requests",
            )
            .help("take it out"),
        );
    }
    Some(Hedge { after: item.get("after")?, budget: item.get("budget")? })
}

/// When the backend is left alone.
pub(super) fn breaker(cx: &mut Context, backend: &Item, mode: Option<Mode>) -> Option<Breaker> {
    let item = backend.find("breaker")?;
    if mode.is_some_and(|mode| mode != Mode::Http) {
        cx.error(
            Diagnostic::error(item.span.clone(), "`breaker` counts requests, and only `mode http` has them")
                .help("take it out; `observe layer4` takes servers out that take no connections"),
        );
    }
    Some(Breaker {
        errors: item.get("errors")?,
        least: item.get("least")?,
        window: item.get("window")?,
        open: item.get("open")?,
        probes: item.get("probes")?,
    })
}

/// What makes no sense together.
fn refuse(cx: &mut Context, item: &Item, backend: &Item, kind: &CheckKind) {
    if let (CheckKind::Tls { .. }, Some(tls)) = (kind, backend.find("tls")) {
        cx.error(
            Diagnostic::error(
                item.span.clone(),
                "`check tls` is for TLS that passes through, and this backend speaks it itself",
            )
            .related(tls.span.clone(), "it is here")
            .help("write `check tcp`: with `tls` in the backend it does the whole handshake"),
        );
    }
    if let CheckKind::Ldap { user: Some(_), secret: None, .. } = kind {
        cx.error(
            Diagnostic::error(
                item.span_of("user"),
                "a login without a password proves nothing: directories take it as anonymous",
            )
            .help("add secret=NAME, or take `user` out"),
        );
    }
    if let CheckKind::Mysql { user: None, secret: Some(_), .. }
    | CheckKind::Ldap { user: None, secret: Some(_), .. } = kind
    {
        cx.error(
            Diagnostic::error(item.span_of("secret"), "a password needs its `user`")
                .help("add user=NAME, or take `secret` out"),
        );
    }
    if let CheckKind::Http { method, body: Some(_), .. } = kind
        && !matches!(&**method, "POST" | "PUT")
    {
        cx.error(
            Diagnostic::error(item.span_of("body"), format!("a {method} has no body"))
                .help("add method=POST, or take `body` out"),
        );
    }
    if let CheckKind::Http { method, contains, matches, .. } = kind
        && &**method == "HEAD"
        && (contains.is_some() || matches.is_some())
    {
        cx.error(
            Diagnostic::error(
                item.span_of(if contains.is_some() { "contains" } else { "matches" }),
                "the answer to HEAD has no body that could contain it",
            )
            .help("take `method=HEAD` out"),
        );
    }
}

fn dns(item: &Item) -> Option<CheckKind> {
    let kind: Arc<str> = item.get("type")?;
    Some(CheckKind::Dns {
        name: item.get("name")?,
        kind: *DNS_TYPES.iter().find(|(word, _)| *word == &*kind).map(|(_, number)| number)?,
        expect: match item.get::<Arc<str>>("expect")?.as_ref() {
            "noerror" => DnsExpect::NoError,
            "nxdomain" => DnsExpect::NxDomain,
            "either" => DnsExpect::Either,
            _ => DnsExpect::Any,
        },
    })
}

/// Where the secret that an item names is kept.
pub(super) fn secret(item: &Item, items: &[Item]) -> Option<Arc<str>> {
    let name: Arc<str> = item.get("secret")?;
    let mut all = each(items, "platform").flat_map(|platform| platform.each("secret"));
    kept(all.find(|secret| secret.name() == name)?)
}

/// Where a secret is kept, as [`crate::Plan::files_on`] names it.
fn kept(secret: &Item) -> Option<Arc<str>> {
    let credential = || secret.get::<Arc<str>>("credential").map(|name| format!("credential:{name}").into());
    let environment =
        || secret.get::<Arc<str>>("environment").map(|name| format!("environment:{name}").into());
    secret.get("file").or_else(credential).or_else(environment)
}
