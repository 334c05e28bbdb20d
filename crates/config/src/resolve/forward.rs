//! What `mode forward` understands: what the kernel can do by itself. Everything else that may stand in a frontend or
//! backend is done by a process that sees connections or requests, and is refused here, so that nobody believes that
//! it holds.

use super::Context;
use crate::diagnostic::{Diagnostic, Span};
use crate::item::Item;
use crate::plan::{Backend, Balance, Bind, By, Forward, HashKey, Method, Mode};

const FRONTEND: &[&str] = &["on", "mode", "bind", "forward", "default-backend"];
const BACKEND: &[&str] = &["mode", "balance", "allbackups", "check", "timeout", "server", "servers"];
/// Time-outs of connections, which only the kernel has.
const TIMEOUTS: &[&str] = &["server", "queue", "tunnel", "server-fin", "session"];
/// What a server is to get, or to have at most, with every connection.
const SERVER: &[&str] = &["max-connections", "min-connections", "slowstart", "send-proxy", "proto", "cookie"];

/// A frontend: how it is forwarded, if it is.
pub(super) fn frontend(cx: &mut Context, item: &Item, mode: Option<Mode>) -> Option<Forward> {
    let said = item.find("forward");
    if mode != Some(Mode::Forward) {
        if let (Some(said), Some(mode)) = (said, mode) {
            let message =
                format!("`forward` needs `mode forward`: in `mode {mode}` the proxy carries everything");
            cx.error(
                Diagnostic::error(said.span.clone(), message).help("take it out, or write `mode forward`"),
            );
        }
        return None;
    }
    only(cx, item, FRONTEND);
    for bind in item.each("bind") {
        bind.children.iter().for_each(|child| refuse(cx, child.span.clone(), &child.row.title()));
        let Some(address) = bind.get::<std::net::SocketAddr>("address") else { continue };
        let ip = address.ip();
        if ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
            let what = if ip.is_unspecified() { "every address of the machine" } else { "this address" };
            let message = format!("`mode forward` cannot take what comes to {what}");
            cx.error(Diagnostic::error(bind.span_of("address"), message).help(format!(
                "write one that clients reach it by, such as a vip's: bind \"192.168.112.180:{}\"",
                address.port()
            )));
        }
    }
    let forward = item.setting("forward");
    let word = |name: &str| forward.get::<std::sync::Arc<str>>(name);
    let by = match (&*word("by")?, &*word("method")?) {
        ("nftables", _) => By::Nftables { masquerade: &*word("masquerade")? == "yes" },
        (_, "direct") => By::Ipvs(Method::Direct),
        (_, "tunnel") => By::Ipvs(Method::Tunnel),
        _ => By::Ipvs(Method::Nat),
    };
    let is_ipvs = matches!(by, By::Ipvs(_));
    let (other, of) = if is_ipvs { ("masquerade", "nftables") } else { ("method", "ipvs") };
    let span = forward.span_of(other);
    if span != forward.span {
        let message = format!("`{other}` is of `forward by={of}`, and this is not");
        let help = match is_ipvs {
            true => "take it out: with IPVS servers always see the client's address",
            false => "take it out, or write `by=ipvs` where the kernel has that",
        };
        cx.error(Diagnostic::error(span, message).help(help));
    }
    Some(Forward { udp: &*word("protocol")? == "udp", by })
}

/// A backend of this mode.
pub(super) fn backend(cx: &mut Context, item: &Item, mode: Option<Mode>) {
    if mode != Some(Mode::Forward) {
        return;
    }
    only(cx, item, BACKEND);
    for timeout in item.each("timeout") {
        TIMEOUTS.iter().for_each(|name| refuse_property(cx, timeout, name));
    }
    for server in item.children.iter().filter(|child| matches!(child.row.name, "server" | "servers")) {
        SERVER.iter().for_each(|name| refuse_property(cx, server, name));
    }
}

/// What a frontend wants of its backend and the kernel cannot do.
pub(super) fn pair(cx: &mut Context, item: &Item, forward: Forward, binds: &[Bind], backend: &Backend) {
    families(cx, item, binds, backend);
    let nftables =
        matches!(backend.balance, Balance::RoundRobin | Balance::Hash { key: HashKey::Source, .. });
    let at = item.find("default-backend").map_or(&item.span, |to| &to.span).clone();
    let (known, help) = match forward.by {
        By::Nftables { .. } => (
            nftables,
            "write `balance roundrobin` or `balance source` there; `forward by=ipvs` knows more, and `mode tcp` all",
        ),
        By::Ipvs(_) => (
            backend.balance.ipvs_scheduler().is_some(),
            "IPVS knows roundrobin, leastconn, sed, nq, source, destination, and lblc and lblcr by destination",
        ),
    };
    if backend.mode == Mode::Forward && !known {
        let message = format!(
            "the way that backend `{}` balances cannot be had here: the kernel does not know it",
            backend.name
        );
        cx.error(Diagnostic::error(at, message).help(help));
    }
    if let By::Ipvs(method @ (Method::Direct | Method::Tunnel)) = forward.by {
        for (bind, said) in binds.iter().zip(item.each("bind")) {
            let other = backend.servers.iter().find(|server| server.address.port() != bind.address.port());
            if let Some(server) = other {
                let method = method.word();
                let message = format!(
                    "server `{}` has port {}, and with `method={method}` packets reach it with port {}: nothing translates them",
                    server.name,
                    server.address.port(),
                    bind.address.port()
                );
                cx.error(
                    Diagnostic::error(said.span_of("address"), message)
                        .help("give both the same port, or write `method=nat`"),
                );
            }
        }
    }
}

/// The kernel does not translate between IPv4 and IPv6.
fn families(cx: &mut Context, item: &Item, binds: &[Bind], backend: &Backend) {
    for (bind, at) in binds.iter().zip(item.each("bind")) {
        let is_v4 = bind.address.is_ipv4();
        if backend.servers.iter().all(|server| server.address.is_ipv4() != is_v4) {
            let (ours, theirs) = if is_v4 { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
            let message = format!(
                "{} is {ours} and every server of backend `{}` is {theirs}: the kernel does not translate",
                bind.address.ip(),
                backend.name
            );
            cx.error(
                Diagnostic::error(at.span_of("address"), message)
                    .help(format!("give the servers {ours} addresses, or write `mode tcp`")),
            );
        }
    }
}

fn only(cx: &mut Context, item: &Item, known: &[&str]) {
    for child in item.children.iter().filter(|child| !known.contains(&child.row.name)) {
        refuse(cx, child.span.clone(), &child.row.title());
    }
}

fn refuse_property(cx: &mut Context, item: &Item, name: &str) {
    let span = item.span_of(name);
    if span != item.span {
        refuse(cx, span, name);
    }
}

fn refuse(cx: &mut Context, span: Span, what: &str) {
    let message =
        format!("`{what}` is not for `mode forward`: the kernel passes packets on, and nobody reads them");
    cx.error(
        Diagnostic::error(span, message)
            .help("take it out, or let the proxy carry it: `mode tcp` or `mode http`"),
    );
}
