//! `rule`: what is done with some of a frontend's requests.

use std::sync::Arc;

use relais_rules::template::{Template, is_token};
use relais_rules::{Condition, Key, Pattern, Program, What};

use super::Context;
use super::front::check_same_mode;
use crate::diagnostic::{Diagnostic, Span};
use crate::item::Item;
use crate::plan::{
    Action, Backend, Cidr, Limit, Measure, MinRate, Mode, Rank, Rate, RespondBody, RewriteSpec, Rule,
    RuleCondition,
};

/// Actions after which no later rule is asked.
const ENDS: &[&str] = &["deny", "tarpit", "silent-drop", "reject", "backend", "redirect", "respond"];

/// Most keys that the rates of a frontend or backend remember together: 384 MiB.
const RATE_KEYS: u64 = 16 << 20;

/// What `limit` knows of requests only.
const HTTP_LIMITS: &[&str] = &["max-body", "min-rate", "timeout-client", "timeout-server"];

/// Fields that frame a message, are for one hop only, or are Relais's own to set.
const PROTECTED: &[(&str, &str)] = &[
    ("content-length", "it says where the body ends"),
    ("transfer-encoding", "it says where the body ends"),
    ("connection", "it is between two neighbours only"),
    ("keep-alive", "it is between two neighbours only"),
    ("proxy-connection", "it is between two neighbours only"),
    ("upgrade", "it is between two neighbours only"),
    ("te", "it is between two neighbours only"),
    ("trailer", "it speaks of the body's framing"),
    ("expect", "it is settled before rules are asked"),
    ("max-forwards", "it is counted here"),
    ("http2-settings", "it is between two neighbours only"),
    ("content-encoding", "it says how the body is to be read, which no rule changes"),
];

/// The rules of a frontend or backend, in order.
pub(super) fn rules(
    cx: &mut Context,
    frontend: &Item,
    mode: Mode,
    backends: &[Option<Backend>],
) -> Option<Vec<Rule>> {
    let mut rules = Vec::new();
    let mut whole = true;
    let mut closed: Option<Span> = None;
    for item in frontend.each("rule") {
        if let Some(before) = &closed {
            cx.diagnostics.push(
                Diagnostic::new(
                    crate::diagnostic::Severity::Warning,
                    item.span.clone(),
                    format!("rule `{}` is never asked", item.name()),
                )
                .related(before.clone(), "this one ends every request")
                .help("put it before that one, or give that one a `match`"),
            );
        }
        let rule = rule(cx, frontend, item, mode, backends);
        match rule {
            Some(rule) => {
                if rule.conditions.is_empty() && rule.rates.is_empty() && rule.ends() && closed.is_none() {
                    closed = Some(item.span.clone());
                }
                rules.push(rule);
            }
            None => whole = false,
        }
    }
    if !whole {
        return None;
    }
    let keys: u64 = rules.iter().flat_map(|rule| &rule.rates).map(|rate| u64::from(rate.keys)).sum();
    if keys > RATE_KEYS {
        cx.error(
            Diagnostic::error(
                frontend.span.clone(),
                format!("its rates remember {keys} keys, 24 bytes each"),
            )
            .help(format!("at most {RATE_KEYS} together: write a smaller `remember=` in some of them")),
        );
        return None;
    }
    let specs: Vec<relais_rules::Rule> = rules
        .iter()
        .map(|rule| relais_rules::Rule {
            conditions: rule.conditions.iter().map(|condition| condition.is.clone()).collect(),
            asked: rule.rates.iter().map(|rate| rate.key.clone()).collect(),
            last: rule.ends(),
        })
        .collect();
    if let Err(error) = Program::new(&specs) {
        let name = rules.get(error.rule).map(|rule| rule.name.clone()).unwrap_or_default();
        cx.error(
            Diagnostic::error(frontend.span.clone(), format!("rule `{name}` cannot be used: {}", error.why))
                .help("move long lists of values into a `list=` file"),
        );
        return None;
    }
    Some(rules)
}

fn rule(
    cx: &mut Context,
    frontend: &Item,
    item: &Item,
    mode: Mode,
    backends: &[Option<Backend>],
) -> Option<Rule> {
    if mode == Mode::Tcp {
        check_tcp(cx, item);
    }
    if frontend.row.name == "backend" {
        check_backend(cx, item);
    }
    check_rejecting(cx, frontend, item);
    let (mut conditions, mut rates, mut actions) = (Vec::new(), Vec::new(), Vec::new());
    let mut whole = true;
    let mut end: Option<&Item> = None;
    for child in &item.children {
        if matches!(child.row.name, "match" | "unless") {
            if child.row.form == Some("rate") {
                rate(cx, child).map_or_else(|| whole = false, |rate| rates.push(rate));
            } else {
                condition(cx, child).map_or_else(|| whole = false, |condition| conditions.push(condition));
            }
            continue;
        }
        if let Some(before) = end {
            let message = if ENDS.contains(&child.row.name) {
                format!("rule `{}` does two things that end a request", item.name())
            } else {
                format!("`{}` comes too late: the request has ended", child.row.title())
            };
            cx.error(
                Diagnostic::error(child.span.clone(), message)
                    .related(before.span.clone(), "the first is here")
                    .help("what ends a request stands last and alone; write two rules otherwise"),
            );
        }
        if ENDS.contains(&child.row.name) {
            end = end.or(Some(child));
        }
        match action(cx, frontend, child, mode, backends) {
            Some(action) => actions.push(action),
            None => whole = false,
        }
    }
    let acts = |name: &str| !matches!(name, "match" | "unless");
    if actions.is_empty() && whole && !item.said.iter().any(|said| acts(said)) {
        cx.error(
            Diagnostic::error(item.span.clone(), format!("rule `{}` does nothing", item.name()))
                .help("add what it does: deny 403, or backend NAME"),
        );
    }
    whole.then(|| Rule { name: item.name(), conditions, rates, actions })
}

/// Who answers is settled where a backend's rules are asked.
fn check_backend(cx: &mut Context, rule: &Item) {
    for child in rule.children.iter().filter(|child| child.row.name == "backend") {
        cx.error(
            Diagnostic::error(child.span.clone(), "a rule of a backend chooses no other")
                .help("put this rule into the frontend: there it is asked before a backend is chosen"),
        );
    }
}

/// In TCP mode there is no request to look at, or to answer.
fn check_tcp(cx: &mut Context, rule: &Item) {
    for child in &rule.children {
        let good = match child.row.name {
            "match" | "unless" => matches!(child.row.form, Some("src" | "port" | "sni" | "rate")),
            name => {
                matches!(
                    name,
                    "deny" | "tarpit" | "delay" | "silent-drop" | "reject" | "backend" | "limit" | "priority"
                )
            }
        };
        if !good {
            cx.error(
                Diagnostic::error(
                    child.span.clone(),
                    format!("`{}` needs `mode http`: in `mode tcp` requests are not read", child.row.title()),
                )
                .help(
                    "in `mode tcp` rules have `src`, `port`, `sni` and `rate`, `backend`, `limit` and `deny`",
                ),
            );
            continue;
        }
        let counted = matches!(child.row.name, "limit") || child.row.form == Some("rate");
        for given in child.values().iter().filter(|_| counted) {
            let word = child.get::<Arc<str>>(given.field.name).unwrap_or_default();
            let (wrong, help) = match given.field.name {
                "key" => (word.split('+').any(|part| !matches!(part, "src" | "sni")), "write key=src"),
                "measure" => {
                    (matches!(&*word, "errors" | "failures"), "write measure=connections, or take it out")
                }
                name => (
                    HTTP_LIMITS.contains(&name),
                    "take it out: in `mode tcp` a `limit` is max-connections=NUMBER key=src",
                ),
            };
            if wrong {
                cx.error(
                    Diagnostic::error(
                        given.span.clone(),
                        format!(
                            "`{}=` needs more than `mode tcp` has: requests are not read",
                            given.field.name
                        ),
                    )
                    .help(help),
                );
            }
        }
    }
}

/// What a condition looks at.
pub(super) fn what(item: &Item) -> Option<What> {
    let name = |item: &Item| item.get::<Arc<str>>("name");
    Some(match item.row.form? {
        "path" => What::Path,
        "host" => What::Host,
        "method" => What::Method,
        "header" => What::Header(name(item)?.to_ascii_lowercase()),
        "cookie" => What::Cookie(name(item)?.to_string()),
        "query" => What::Query(name(item)?.to_string()),
        "src" => What::Src,
        "sni" => What::Sni,
        "scheme" => What::Scheme,
        "tls" => What::Tls,
        "port" => What::Port,
        _ => return None,
    })
}

/// What the map of a `backend` is asked for.
pub(super) fn key(item: &Item) -> Option<What> {
    Some(match item.get::<Arc<str>>("key")?.as_ref() {
        "path" => What::Path,
        "src" => What::Src,
        "sni" => What::Sni,
        _ => What::Host,
    })
}

pub(super) fn condition(cx: &mut Context, item: &Item) -> Option<RuleCondition> {
    let what = what(item)?;
    if what == What::Header("host".into()) {
        cx.error(
            Diagnostic::error(item.span_of("name"), "the field `Host` may not be what the request is for")
                .help(format!(
                    "write {} host \"www.example\", which also reads absolute targets",
                    item.row.name
                )),
        );
    }
    let mut any = Vec::new();
    for given in item.values().iter().filter(|given| !matches!(given.field.name, "name" | "list")) {
        use crate::value::Value;
        match &given.value {
            Value::Text(text) if given.field.name == "regex" => any.push(Pattern::Regex(text.to_string())),
            Value::Text(text) => {
                let pattern = pattern(&what, text);
                if let Err(why) = pattern.check() {
                    cx.error(Diagnostic::error(given.span.clone(), why).help("write a shorter one"));
                    return None;
                }
                any.push(pattern);
            }
            Value::Integer(number) => any.push(Pattern::Glob(number.to_string())),
            Value::Networks(networks) => any.extend(networks.iter().map(net)),
            _ => {}
        }
    }
    let list = item.get::<Arc<str>>("list");
    if any.is_empty() && list.is_none() {
        match what {
            What::Header(_) | What::Cookie(_) | What::Query(_) => any.push(Pattern::Any),
            _ => {
                // Values that did not fit have been reported; is it only that there are none?
                cx.error(
                    Diagnostic::error(item.span.clone(), format!("`{}` looks for nothing", item.row.title()))
                        .help(format!("write for example: {}", item.row.example)),
                );
                return None;
            }
        }
    }
    Some(RuleCondition { is: Condition { negated: item.row.name == "unless", what, any }, list })
}

/// What is counted together; `None` if that has been reported.
fn counted(cx: &mut Context, item: &Item) -> Option<Key> {
    joint_key(cx, item, "key=", 64)
}

/// What requests of a kind have in common; `None` if that has been reported. `before`: what stands before it in the file.
pub(super) fn joint_key(cx: &mut Context, item: &Item, before: &str, prefix6: u8) -> Option<Key> {
    let name = item.get::<Arc<str>>("name");
    let word: Arc<str> = item.get("key")?;
    let said = |name| item.values().iter().any(|given| given.field.name == name);
    let (mut parts, mut named) = (Vec::new(), 0);
    for part in word.split('+') {
        named += u32::from(matches!(part, "header" | "cookie" | "query"));
        parts.push(match (part, &name) {
            ("src", _) => What::Src,
            ("path", _) => What::Path,
            ("host", _) => What::Host,
            ("sni", _) => What::Sni,
            ("header", Some(name)) => What::Header(name.to_ascii_lowercase()),
            ("cookie", Some(name)) => What::Cookie(name.to_string()),
            ("query", Some(name)) => What::Query(name.to_string()),
            _ => {
                cx.error(
                    Diagnostic::error(item.span_of("key"), format!("`{before}{part}` does not say which"))
                        .help(format!("add its name: {before}{word} name=NAME")),
                );
                return None;
            }
        });
    }
    if named > 1 {
        cx.error(
            Diagnostic::error(item.span_of("key"), "`name=` can be of one part of the key only")
                .help("write one of `header`, `cookie` and `query`"),
        );
    }
    let src = parts.contains(&What::Src);
    for (field, useless) in [("name", named == 0), ("prefix", !src), ("prefix6", !src)] {
        if useless && said(field) {
            cx.error(
                Diagnostic::error(item.span_of(field), format!("`{before}{word}` has no `{field}=`"))
                    .help("take it out"),
            );
        }
    }
    Some(Key {
        parts,
        prefix4: item.get("prefix").unwrap_or(32),
        prefix6: item.get("prefix6").unwrap_or(prefix6),
    })
}

fn rate(cx: &mut Context, item: &Item) -> Option<Rate> {
    let key = counted(cx, item)?;
    let measure = match &*item.get::<Arc<str>>("measure")? {
        "connections" => Measure::Connections,
        "errors" => Measure::Errors,
        "failures" => Measure::Failures,
        "bytes-in" => Measure::BytesIn,
        "bytes-out" => Measure::BytesOut,
        _ => Measure::Requests,
    };
    Some(Rate { key, measure, over: item.get("over")?, per: item.get("per")?, keys: item.get("remember")? })
}

fn limit(cx: &mut Context, item: &Item) -> Option<Action> {
    let most = item.get::<u32>("max-connections");
    let keyed =
        item.values().iter().find(|given| matches!(given.field.name, "key" | "name" | "prefix" | "prefix6"));
    let places = match (most, keyed) {
        (Some(most), Some(_)) if item.get::<Arc<str>>("key").is_some() => Some((most, counted(cx, item)?)),
        (Some(_), _) => {
            cx.error(
                Diagnostic::error(item.span_of("max-connections"), "`max-connections=` does not say of whom")
                    .help("add key=src: so many of each address"),
            );
            return None;
        }
        (None, Some(given)) => {
            let message = format!("`{}=` belongs to `max-connections=`", given.field.name);
            cx.error(
                Diagnostic::error(given.span.clone(), message)
                    .help(format!("write for example: {}", item.row.example)),
            );
            return None;
        }
        (None, None) => None,
    };
    let min_rate = item.get::<u64>("min-rate");
    let grace = item.get("grace")?;
    let limit = Limit {
        places,
        max_body: item.get("max-body"),
        min_rate: min_rate.map(|bytes| (bytes > 0).then_some(MinRate { bytes, grace })),
        client: item.get("timeout-client"),
        server: item.get("timeout-server"),
        rank: None,
        delay: None,
    };
    if limit == Limit::default() {
        cx.error(
            Diagnostic::error(item.span.clone(), "`limit` limits nothing")
                .help(format!("write for example: {}", item.row.example)),
        );
        return None;
    }
    Some(Action::Limit(limit))
}

/// Of what is rejected, only sources are known.
fn reject(cx: &mut Context, item: &Item) -> Option<Action> {
    let most = item.get::<u32>("max-connections");
    for field in ["prefix", "prefix6"] {
        if most.is_none() && item.values().iter().any(|given| given.field.name == field) {
            cx.error(
                Diagnostic::error(item.span_of(field), format!("`{field}=` belongs to `max-connections=`"))
                    .help(format!("write for example: {}", item.row.example)),
            );
        }
    }
    let key = Key {
        parts: vec![What::Src],
        prefix4: item.get("prefix").unwrap_or(32),
        prefix6: item.get("prefix6").unwrap_or(64),
    };
    let silent = &*item.get::<Arc<str>>("how")? == "silent";
    Some(Action::Reject { places: most.map(|most| (most, key)), silent })
}

/// Rules that reject are asked when nothing but addresses is known, and are alone with it.
fn check_rejecting(cx: &mut Context, frontend: &Item, rule: &Item) {
    if rule.find("reject").is_none() {
        return;
    }
    if frontend.row.name == "backend" {
        cx.error(
            Diagnostic::error(
                rule.span.clone(),
                "a rule of a backend is asked too late to reject connections",
            )
            .help("put this rule into the frontend"),
        );
    }
    for child in &rule.children {
        let word = |name: &str| child.get::<Arc<str>>(name).unwrap_or_default();
        let good = match (child.row.name, child.row.form) {
            ("match", Some("rate")) => {
                &*word("key") == "src" && matches!(&*word("measure"), "requests" | "connections")
            }
            ("match" | "unless", form) => matches!(form, Some("src" | "port")),
            (name, _) => name == "reject",
        };
        if !good {
            cx.error(
                Diagnostic::error(
                    child.span.clone(),
                    format!("`{}` cannot stand in a rule that rejects connections", child.row.title()),
                )
                .help("nothing is known then but `src`, `port` and `match rate key=src`; for what comes later there is `deny`"),
            );
        }
    }
}

fn net(network: &Cidr) -> Pattern {
    Pattern::Net(network.address, network.prefix)
}

/// A value as a pattern.
fn pattern(what: &What, text: &str) -> Pattern {
    Pattern::Glob(match what {
        What::Host | What::Sni => text.to_ascii_lowercase(),
        _ => text.to_owned(),
    })
}

fn action(
    cx: &mut Context,
    frontend: &Item,
    item: &Item,
    mode: Mode,
    backends: &[Option<Backend>],
) -> Option<Action> {
    let name = item.row.name;
    match name {
        "deny" => Some(Action::Deny(item.get("code")?)),
        "tarpit" => Some(Action::Tarpit(item.get("code")?, item.get("hold")?)),
        "silent-drop" => Some(Action::SilentDrop),
        "reject" => reject(cx, item),
        "backend" => backend(cx, frontend, item, mode, backends),
        "redirect" => redirect(cx, item),
        "respond" => respond(cx, item),
        "rewrite" => rewrite(cx, item),
        "limit" => limit(cx, item),
        "priority" => {
            let rank = Rank { class: item.get("class")?, later: item.get("later")? };
            Some(Action::Limit(Limit { rank: Some(rank), ..Limit::default() }))
        }
        "delay" => Some(Action::Limit(Limit { delay: Some(item.get("time")?), ..Limit::default() })),
        _ => header(cx, item),
    }
}

fn backend(
    cx: &mut Context,
    frontend: &Item,
    item: &Item,
    mode: Mode,
    backends: &[Option<Backend>],
) -> Option<Action> {
    let names = item.all::<Arc<str>>("backend");
    if let Some((_, span)) = names.get(1) {
        cx.error(
            Diagnostic::error(span.clone(), "one rule leads to one backend")
                .help("write two rules, or a `map=` file"),
        );
        return None;
    }
    let to = match names.first() {
        Some((name, _)) => Some(cx.names.backend(name)?),
        None => None,
    };
    if let Some(Some(backend)) = to.map(|id| backends.get(usize::from(id.0)).and_then(Option::as_ref)) {
        check_same_mode(cx, frontend, mode, backend, item);
    }
    let key = key(item)?;
    if mode == Mode::Tcp && !matches!(key, What::Src) && item.get::<Arc<str>>("map").is_some() {
        cx.error(
            Diagnostic::error(item.span_of("key"), "in `mode tcp` requests are not read")
                .help("write key=src"),
        );
    }
    let map = item.get::<Arc<str>>("map").map(|file| (file, key));
    if to.is_none() && map.is_none() {
        cx.error(
            Diagnostic::error(item.span.clone(), "`backend` does not say which")
                .help("write for example: backend app"),
        );
        return None;
    }
    Some(Action::Backend { to, map })
}

fn redirect(cx: &mut Context, item: &Item) -> Option<Action> {
    let code = item.get::<Arc<str>>("code")?.parse().ok()?;
    let given: Vec<_> = item.values().iter().filter(|given| given.field.name != "code").collect();
    let [one] = given.as_slice() else {
        let span = given.get(1).map_or(item.span.clone(), |second| second.span.clone());
        cx.error(
            Diagnostic::error(span, "a redirect has one of `scheme=`, `location=` and `prefix=`")
                .help(format!("write for example: {}", item.row.example)),
        );
        return None;
    };
    let text: Arc<str> = item.get(one.field.name)?;
    let text = match one.field.name {
        "scheme" => format!("{text}://%{{host}}%{{uri}}"),
        "prefix" => format!("{}%{{uri}}", text.trim_end_matches('/')),
        _ => text.to_string(),
    };
    match Template::location(&text) {
        Ok(to) => Some(Action::Redirect { to, code }),
        Err(why) => {
            cx.error(
                Diagnostic::error(one.span.clone(), format!("no redirect can lead there: {why}"))
                    .help("write it whole, such as \"https://www.example\""),
            );
            None
        }
    }
}

fn respond(cx: &mut Context, item: &Item) -> Option<Action> {
    let status: u16 = item.get("code")?;
    let body = match (item.get::<Arc<str>>("text"), item.get::<Arc<str>>("file")) {
        (Some(_), Some(_)) => {
            cx.error(
                Diagnostic::error(item.span_of("file"), "an answer has one body")
                    .related(item.span_of("text"), "the other is here")
                    .help("keep one of them"),
            );
            return None;
        }
        (_, Some(file)) => RespondBody::File(file),
        (text, None) => RespondBody::Text(text.unwrap_or_default()),
    };
    if matches!(status, 204 | 205 | 304) && body != RespondBody::Text("".into()) {
        cx.error(
            Diagnostic::error(item.span_of("code"), format!("an answer {status} has no body"))
                .help("take the body out, or write 200"),
        );
    }
    Some(Action::Respond { status, body, content_type: item.get("content-type")? })
}

fn rewrite(cx: &mut Context, item: &Item) -> Option<Action> {
    let to: Arc<str> = item.get("to")?;
    let (regex, what): (bool, Arc<str>) =
        match (item.get::<Arc<str>>("prefix"), item.get::<Arc<str>>("regex")) {
            (Some(prefix), None) => (false, prefix),
            (None, Some(regex)) => (true, regex),
            _ => {
                cx.error(
                    Diagnostic::error(item.span.clone(), "`rewrite path` has one of `prefix=` and `regex=`")
                        .help(format!("write for example: {}", item.row.example)),
                );
                return None;
            }
        };
    if !regex && !to.starts_with('/') {
        cx.error(
            Diagnostic::error(item.span_of("to"), "a path begins with `/`")
                .help(format!("write to=\"/{to}\"")),
        );
        return None;
    }
    if regex && let Err(why) = relais_rules::rewrite::Rewrite::regex(&what, &to) {
        cx.error(
            Diagnostic::error(item.span_of("to"), why).help("`$1` is what the first (...) of `regex=` found"),
        );
        return None;
    }
    Some(Action::Rewrite(RewriteSpec { regex, what, to }))
}

fn header(cx: &mut Context, item: &Item) -> Option<Action> {
    let name: Arc<str> = item.get("name")?;
    let response = item.row.name.contains("response");
    let lower = name.to_ascii_lowercase().replace('_', "-");
    let why = match PROTECTED.iter().find(|(protected, _)| *protected == lower) {
        Some((_, why)) => Some(*why),
        None if lower == "host" && response => Some("responses have none"),
        None if lower == "host" && !item.row.name.starts_with("set-") => Some("a request has exactly one"),
        None if !is_token(&name) => Some("it is no name of a field"),
        None => None,
    };
    if let Some(why) = why {
        cx.error(
            Diagnostic::error(item.span_of("name"), format!("no rule changes `{name}`: {why}"))
                .help("take it out"),
        );
        return None;
    }
    let value = match item.get::<Arc<str>>("value") {
        Some(text) => Some(Template::value(&text).ok()?),
        None if item.row.name.starts_with("remove-") => None,
        None => return None,
    };
    let replace = !item.row.name.starts_with("add-");
    Some(Action::Header { response, replace, name, value })
}
