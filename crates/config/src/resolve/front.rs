//! `frontend`: where requests come in, and what its rules need.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Context, datagrams, each, forward, marks, pages};
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::{
    Backend, Bind, Capture, Cidr, ClientCertificate, Frontend, FrontendTimeouts, Http2, MinRate, Mode, Node,
    NodeId, Redirect, Tls, TlsVersion, Vip,
};

pub(super) fn frontends(
    cx: &mut Context,
    items: &[Item],
    nodes: &[Option<Node>],
    vips: &[Option<Vip>],
    backends: &[Option<Backend>],
) -> Vec<Option<Frontend>> {
    each(items, "frontend").map(|item| frontend(cx, item, nodes, vips, backends)).collect()
}

fn frontend(
    cx: &mut Context,
    item: &Item,
    nodes: &[Option<Node>],
    vips: &[Option<Vip>],
    backends: &[Option<Backend>],
) -> Option<Frontend> {
    let mode = mode(item);
    let on = cx.on(item);
    let binds: Vec<Bind> = item.each("bind").filter_map(|b| bind(cx, b, mode)).collect();
    let running = on.clone().unwrap_or_else(|| homes(&binds, nodes, vips));
    check_binds(cx, item, &running, nodes);
    check_leads_somewhere(cx, item);
    if mode == Some(Mode::Tcp) {
        check_tcp(cx, item);
    }
    datagrams::check_frontend(cx, item, mode);
    let forward = forward::frontend(cx, item, mode);
    let default_backend = item
        .find("default-backend")
        .map(|d| d.get::<Arc<str>>("backend").and_then(|name| cx.names.backend(&name)));
    if let (Some(Some(id)), Some(mode), Some(directive)) =
        (default_backend, mode, item.find("default-backend"))
        && let Some(Some(backend)) = backends.get(usize::from(id.0))
    {
        check_same_mode(cx, item, mode, backend, directive);
        if let Some(forward) = forward {
            forward::pair(cx, item, forward, &binds, backend);
        }
    }
    let timeout = item.setting("timeout");
    let http2 = item.setting("http2");
    Some(Frontend {
        name: item.name(),
        nodes: running,
        mode: mode?,
        forward,
        binds,
        max_connections: item.setting("max-connections").get("number")?,
        max_body: max_body(item),
        compression: super::compression::compression(cx, item)?,
        min_rate: min_rate(item)?,
        marking: marks::marking(cx, item),
        forwarded_replace: marks::says(item, "forwarded-for", "sent", "replace"),
        forwarded_port: marks::says(item, "forwarded-for", "port", "on"),
        error_pages: pages::error_pages(cx, item),
        log: None, // `logs` gives it one
        request_captures: captures(cx, item, "request-header"),
        response_captures: captures(cx, item, "response-header"),
        forwarded_for: item.find("forwarded-for").map(|f| f.get("except").unwrap_or_default()),
        timeout: FrontendTimeouts {
            request: timeout.get("request")?,
            client: timeout.get("client")?,
            keep_alive: timeout.get("keep-alive")?,
            client_fin: timeout.get("client-fin"),
        },
        http2: Http2 {
            max_concurrent_streams: http2.get("max-concurrent-streams")?,
            initial_window: u32::try_from(http2.get::<u64>("initial-window")?).ok()?,
        },
        redirect: match item.find("redirect") {
            Some(r) => {
                Some(Redirect { scheme: r.get("scheme")?, code: r.get::<Arc<str>>("code")?.parse().ok()? })
            }
            None => None,
        },
        rules: match mode? {
            Mode::Udp | Mode::Forward => Vec::new(), // they have been refused
            mode => super::rules::rules(cx, item, mode, backends)?,
        },
        shield: super::shield::shield(cx, item)?,
        default_backend: match default_backend {
            Some(id) => Some(id?),
            None => None,
        },
    })
}

/// What a frontend or backend speaks; `None` if that has been reported.
pub(super) fn mode(item: &Item) -> Option<Mode> {
    match item.setting("mode").get::<Arc<str>>("mode")?.as_ref() {
        "tcp" => Some(Mode::Tcp),
        "udp" => Some(Mode::Udp),
        "forward" => Some(Mode::Forward),
        _ => Some(Mode::Http),
    }
}

/// Most headers of one kind that a frontend captures.
const MOST_CAPTURES: usize = 16;

fn captures(cx: &mut Context, item: &Item, form: &str) -> Vec<Capture> {
    let forms: Vec<&Item> = item.each("capture").filter(|c| c.row.form == Some(form)).collect();
    if let Some(one_too_many) = forms.get(MOST_CAPTURES) {
        cx.error(
            Diagnostic::error(
                one_too_many.span.clone(),
                format!("more than {MOST_CAPTURES} times `capture {form}` in one frontend"),
            )
            .help("keep those that somebody reads"),
        );
    }
    forms
        .iter()
        .filter_map(|c| {
            let name = c.get::<Arc<str>>("name")?.to_ascii_lowercase();
            Some(Capture { name: name.into(), length: c.get("len")? })
        })
        .collect()
}

fn bind(cx: &mut Context, item: &Item, mode: Option<Mode>) -> Option<Bind> {
    let tls = match item.find("tls") {
        Some(block) => Some(Arc::new(tls(cx, block, mode)?)),
        None => None,
    };
    let max_connections = item.find("max-connections").and_then(|m| m.get("number"));
    let accept_proxy = match item.find("accept-proxy") {
        Some(accept) => Some(accept.get::<Vec<Cidr>>("from")?.into()),
        None => None,
    };
    Some(Bind { address: item.get("address")?, tls, max_connections, accept_proxy })
}

/// `tls` on a listener; `None` if what is wrong with it has been reported.
fn tls(cx: &mut Context, item: &Item, mode: Option<Mode>) -> Option<Tls> {
    let files = |name: &'static str, argument: &'static str| -> Vec<Arc<str>> {
        item.each(name).filter_map(|each| each.get(argument)).collect()
    };
    let (certificates, directories) = (files("certificate", "file"), files("certificates", "directory"));
    if !item.says("certificate") && !item.says("certificates") {
        cx.error(
            Diagnostic::error(item.span.clone(), "`tls` has no certificate")
                .help("add one: certificate \"/etc/relais/tls/www1.pem\""),
        );
        return None;
    }
    let tcp = mode == Some(Mode::Tcp);
    if let Some(hsts) = item.find("hsts").filter(|_| tcp) {
        let message = "`hsts` needs `mode http`: in `mode tcp` answers are not read";
        cx.error(Diagnostic::error(hsts.span.clone(), message).help("take it out"));
    }
    let alpn = match item.find("alpn") {
        Some(alpn) => alpn.all::<Arc<str>>("protocol").into_iter().map(|(protocol, _)| protocol).collect(),
        None if tcp => Vec::new(),
        None => vec!["h2".into(), "http/1.1".into()],
    };
    Some(Tls {
        certificates,
        directories,
        alpn,
        least: match item.setting("min-version").get::<Arc<str>>("version")?.as_ref() {
            "1.3" => TlsVersion::Tls13,
            _ => TlsVersion::Tls12,
        },
        client: match item.find("client-certificate") {
            Some(client) => Some(ClientCertificate {
                required: &*client.get::<Arc<str>>("need")? == "required",
                ca: client.get("ca")?,
                crl: client.get("crl"),
            }),
            None => None,
        },
        ticket_keys: item.find("ticket-keys").and_then(|keys| keys.get("file")),
        cluster_key: None, // `shield::keys` gives it one
        strict_sni: item.find("strict-sni").is_some(),
        hsts: item.find("hsts").and_then(|hsts| hsts.get("max-age")),
    })
}

/// The longest body of a request to a frontend or backend.
pub(super) fn max_body(item: &Item) -> Option<u64> {
    item.find("max-body").and_then(|m| m.get("size"))
}

/// The least that clients must send or take; `None` within if there is none.
fn min_rate(item: &Item) -> Option<Option<MinRate>> {
    let setting = item.setting("min-rate");
    let (bytes, grace) = (setting.get("rate")?, setting.get("grace")?);
    Some((bytes > 0).then_some(MinRate { bytes, grace }))
}

/// Where a frontend without `on` runs: on the nodes that have, or may hold, an address it binds; where
/// it binds none of those, on all.
fn homes(binds: &[Bind], nodes: &[Option<Node>], vips: &[Option<Vip>]) -> Vec<NodeId> {
    let ids = || (0u16..).map(NodeId).take(nodes.len());
    let holds = |id: NodeId, ip: IpAddr| {
        let own = nodes[usize::from(id.0)].as_ref().is_some_and(|node| node.links.contains(&ip));
        own || vips.iter().flatten().any(|vip| {
            vip.addresses.iter().any(|a| a.address == ip) && vip.nodes.iter().any(|(node, _)| *node == id)
        })
    };
    let homes: Vec<NodeId> =
        ids().filter(|id| binds.iter().any(|bind| holds(*id, bind.address.ip()))).collect();
    if homes.is_empty() { ids().collect() } else { homes }
}

/// An address of one node can only be listened on there.
fn check_binds(cx: &mut Context, item: &Item, running: &[NodeId], nodes: &[Option<Node>]) {
    for bind in item.each("bind") {
        let Some(address) = bind.get::<std::net::SocketAddr>("address") else { continue };
        let owner = nodes.iter().flatten().enumerate().find(|(_, node)| node.links.contains(&address.ip()));
        if let Some((index, node)) = owner
            && !address.ip().is_loopback()
            && !running.iter().any(|id| usize::from(id.0) == index)
        {
            let message = format!(
                "{} is an address of node `{}`, which does not run this frontend",
                address.ip(),
                node.name
            );
            cx.error(Diagnostic::error(bind.span_of("address"), message).help(format!(
                "add `{}` to `on`, or write \"*:{}\"",
                node.name,
                address.port()
            )));
        }
    }
}

fn check_leads_somewhere(cx: &mut Context, item: &Item) {
    match (item.find("default-backend"), item.find("redirect")) {
        (None, None) if item.says("default-backend") || item.says("redirect") => {}
        (None, None) => cx.error(
            Diagnostic::error(
                item.span.clone(),
                format!(
                    "frontend `{}` leads nowhere: it has neither `default-backend` nor `redirect`",
                    item.name()
                ),
            )
            .help("add who answers: default-backend NAME"),
        ),
        (Some(backend), Some(redirect)) => cx.error(
            Diagnostic::error(
                backend.span.clone(),
                "a frontend that redirects every request never asks its `default-backend`",
            )
            .related(redirect.span.clone(), "it redirects here")
            .help("keep one of them"),
        ),
        _ => {}
    }
}

/// What needs HTTP to be understood.
fn check_tcp(cx: &mut Context, item: &Item) {
    for child in &item.children {
        if matches!(
            child.row.name,
            "redirect"
                | "forwarded-for"
                | "cache"
                | "capture"
                | "error-page"
                | "forwarded"
                | "request-id"
                | "trace"
                | "max-body"
                | "min-rate"
                | "compression"
                | "http2"
                | "shield"
        ) {
            cx.error(
                Diagnostic::error(
                    child.span.clone(),
                    format!("`{}` needs `mode http`: in `mode tcp` requests are not read", child.row.name),
                )
                .help("take it out, or take `mode tcp` out"),
            );
        }
    }
}

pub(super) fn check_same_mode(cx: &mut Context, item: &Item, mode: Mode, backend: &Backend, at: &Item) {
    if mode == backend.mode {
        return;
    }
    let message = format!(
        "frontend `{}` is `mode {mode}` and backend `{}` is `mode {}`",
        item.name(),
        backend.name,
        backend.mode
    );
    let said = |one| [mode, backend.mode].contains(&one).then_some(one);
    let both = said(Mode::Forward).or(said(Mode::Udp)).unwrap_or(Mode::Tcp);
    cx.error(
        Diagnostic::error(at.span_of("backend"), message)
            .help(format!("write `mode {both}` in both or in neither, or name another backend")),
    );
}
