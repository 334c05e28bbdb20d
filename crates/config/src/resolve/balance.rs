//! `balance` and what goes with it: `hash`, `allbackups`, `slowstart`.

use std::sync::Arc;

use super::Context;
use super::back::is_backup;
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::{Balance, HashKey, HashType, Mode};

pub(super) fn balance(cx: &mut Context, item: &Item, mode: Option<Mode>) -> Option<Balance> {
    let balance = item.setting("balance");
    let form = balance.row.form?;
    let hashes = matches!(form, "source" | "destination" | "uri" | "header" | "query" | "cookie");
    if let (Some(hash), false) = (item.find("hash"), hashes) {
        cx.error(
            Diagnostic::error(
                hash.span.clone(),
                format!("`balance {form}` has nothing that `hash` could place"),
            )
            .related(balance.span.clone(), "it is here")
            .help("take `hash` out, or balance by a key: balance source"),
        );
    }
    let key = key(cx, &balance, form)?;
    if let Some(key) = &key
        && mode.is_some_and(|mode| !matches!(mode, Mode::Http | Mode::Forward)) // which has its own word for it
        && !key.is_of_connection()
    {
        let message = format!("`{}` needs `mode http`: otherwise requests are not read", balance.row.title());
        cx.error(
            Diagnostic::error(balance.span.clone(), message)
                .help("balance by what a connection has: balance source"),
        );
    }
    let hash = item.setting("hash");
    let table = match &*hash.get::<Arc<str>>("type")? {
        "map" => HashType::Map,
        "maglev" => HashType::Maglev,
        _ => HashType::Consistent,
    };
    let fixed = form == "static-rr" || (hashes && table != HashType::Consistent);
    check_servers(cx, item, fixed);
    Some(match (form, key) {
        ("static-rr", _) => Balance::StaticRr,
        ("leastconn", _) => Balance::LeastConn { ipvs: &*balance.get::<Arc<str>>("count")? == "ipvs" },
        ("sed", _) => Balance::Sed,
        ("nq", _) => Balance::Nq,
        ("first", _) => Balance::First,
        ("random", _) => Balance::Random(balance.get("draws")?),
        ("least-time", _) => Balance::LeastTime,
        ("lblc", Some(key)) => Balance::Locality { key, replicate: None },
        ("lblcr", Some(key)) => Balance::Locality { key, replicate: Some(balance.get("shrink")?) },
        (_, Some(key)) => Balance::Hash { key, table, balance_factor: hash.get("balance-factor") },
        (_, None) if balance.get::<Arc<str>>("order").is_some_and(|order| &*order == "ipvs") => Balance::Wrr,
        (_, None) => Balance::RoundRobin,
    })
}

/// What is hashed, if anything is. `None`: it is wrong, which has been reported.
fn key(cx: &mut Context, balance: &Item, form: &str) -> Option<Option<HashKey>> {
    let name = balance.get::<Arc<str>>("name");
    let lower = |name: Arc<str>| name.to_ascii_lowercase().into();
    let what = match form {
        "lblc" | "lblcr" => balance.get::<Arc<str>>("key")?,
        form => form.into(),
    };
    Some(Some(match (&*what, name) {
        ("header", Some(name)) => HashKey::Header(lower(name)),
        ("header", None) if form != "header" => {
            cx.error(
                Diagnostic::error(balance.span_of("key"), "`key=header` does not say which header")
                    .help("add its name: name=\"X-Tenant\""),
            );
            return None;
        }
        ("query", Some(name)) => HashKey::Query(name),
        ("cookie", Some(name)) => HashKey::Cookie(name),
        ("header" | "query" | "cookie", None) => return None, // reported as missing
        (_, Some(_)) => {
            cx.error(
                Diagnostic::error(balance.span_of("name"), format!("`key={what}` has no header's name"))
                    .help("take `name=` out, or write key=header"),
            );
            return None;
        }
        ("source", _) => HashKey::Source,
        ("destination", _) => HashKey::Destination,
        ("uri", _) => HashKey::Uri {
            whole: balance.get::<Arc<str>>("part").is_some_and(|part| &*part == "whole"),
            len: balance.get("len"),
            depth: balance.get("depth"),
        },
        _ => return Some(None),
    }))
}

/// Servers that say what this algorithm cannot do.
fn check_servers(cx: &mut Context, item: &Item, fixed: bool) {
    let servers = || item.children.iter().filter(|child| matches!(child.row.name, "server" | "servers"));
    let slow = servers().find(|server| server.get::<std::time::Duration>("slowstart").is_some());
    if let (Some(server), true) = (slow, fixed) {
        cx.error(
            Diagnostic::error(
                server.span_of("slowstart"),
                "`slowstart` changes weights, and this backend's table never changes",
            )
            .help("take it out, or balance by what can change: balance roundrobin, or hash type=consistent"),
        );
    }
    if let (Some(server), true) = (slow, item.find("check").is_none() && !fixed) {
        cx.warn(
            server.span_of("slowstart"),
            "without a `check` no server is ever down, so none ever starts slowly".to_owned(),
            "add one: check tcp",
        );
    }
    if let (Some(all), false) = (item.find("allbackups"), servers().any(is_backup)) {
        cx.error(
            Diagnostic::error(all.span.clone(), "no server here is a backup")
                .help("write backup=yes at those that wait for the others' end"),
        );
    }
}
