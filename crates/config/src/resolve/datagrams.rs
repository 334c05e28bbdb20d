//! What `mode udp` understands. Everything else that may stand in a frontend or backend is about connections or
//! requests, and is refused here, so that nobody believes that it holds.

use super::Context;
use crate::diagnostic::{Diagnostic, Span};
use crate::item::Item;
use crate::plan::Mode;

const FRONTEND: &[&str] = &["on", "mode", "bind", "max-connections", "access-log", "default-backend"];
const BACKEND: &[&str] = &[
    "mode",
    "balance",
    "hash",
    "allbackups",
    "check",
    "timeout",
    "responses",
    "retries",
    "redispatch",
    "server",
    "servers",
];
/// Time-outs of connections.
const TIMEOUTS: &[&str] = &["queue", "tunnel", "server-fin"];

/// A frontend of this mode.
pub(super) fn check_frontend(cx: &mut Context, item: &Item, mode: Option<Mode>) {
    if mode != Some(Mode::Udp) {
        return;
    }
    only(cx, item, FRONTEND);
    for child in item.each("bind").flat_map(|bind| &bind.children) {
        refuse(cx, child.span.clone(), &child.row.title());
    }
}

/// A backend of this mode.
pub(super) fn check_backend(cx: &mut Context, item: &Item, mode: Option<Mode>) {
    if mode == Some(Mode::Udp) {
        only(cx, item, BACKEND);
        for timeout in item.each("timeout") {
            TIMEOUTS.iter().for_each(|name| refuse_property(cx, timeout, name));
        }
        for server in item.children.iter().filter(|child| matches!(child.row.name, "server" | "servers")) {
            refuse_property(cx, server, "send-proxy");
            refuse_property(cx, server, "proto");
        }
    } else if let Some(mode) = mode {
        let session = item.find("timeout").and_then(|timeout| said(timeout, "session"));
        let responses = item.find("responses").map(|responses| responses.span.clone());
        for (name, span) in [("responses", responses), ("session", session)] {
            if let Some(span) = span {
                let message = format!("`{name}` needs `mode udp`: in `mode {mode}` there are connections");
                cx.error(Diagnostic::error(span, message).help("take it out, or write `mode udp`"));
            }
        }
    }
}

fn only(cx: &mut Context, item: &Item, known: &[&str]) {
    for child in item.children.iter().filter(|child| !known.contains(&child.row.name)) {
        refuse(cx, child.span.clone(), &child.row.title());
    }
}

fn refuse_property(cx: &mut Context, item: &Item, name: &str) {
    if let Some(span) = said(item, name) {
        refuse(cx, span, name);
    }
}

/// Where a property stands, if it does and is no default.
fn said(item: &Item, name: &str) -> Option<Span> {
    let span = item.span_of(name);
    (span != item.span).then_some(span)
}

fn refuse(cx: &mut Context, span: Span, what: &str) {
    let message = format!("`{what}` is not for `mode udp`, which has no connections and reads no requests");
    cx.error(Diagnostic::error(span, message).help("take it out, or take `mode udp` out"));
}
