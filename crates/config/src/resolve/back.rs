//! `backend`: who answers, tiers expanded.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Context, balance, datagrams, each, forward, front::mode, pages};
use crate::diagnostic::{Diagnostic, Span};
use crate::item::Item;
use crate::plan::{
    Admin, Backend, BackendTimeouts, Mode, Node, NodeId, ProxyVersion, RetryOn, Server, ServerTls, Tomcat,
};
use crate::table::Kind;

pub(super) fn backends(
    cx: &mut Context,
    items: &[Item],
    nodes: &[Option<Node>],
    tomcats: &[Option<Tomcat>],
) -> Vec<Option<Backend>> {
    each(items, "backend").map(|item| backend(cx, item, items, nodes, tomcats)).collect()
}

fn backend(
    cx: &mut Context,
    item: &Item,
    items: &[Item],
    nodes: &[Option<Node>],
    tomcats: &[Option<Tomcat>],
) -> Option<Backend> {
    let mode = mode(item);
    if mode == Some(Mode::Tcp) {
        check_tcp(cx, item);
    }
    datagrams::check_backend(cx, item, mode);
    forward::backend(cx, item, mode);
    if let (Some(first), Some(second)) = (item.find("persist"), item.find("stick")) {
        cx.error(
            Diagnostic::error(second.span.clone(), "`persist` and `stick` are two ways to the same end")
                .related(first.span.clone(), "`persist` is here")
                .help("keep one of them: a cookie follows the browser, a table the address"),
        );
    }
    check_source(cx, item);
    if let Some(tls) = item.find("tls") {
        check_tls(cx, tls);
    }
    let servers = servers(cx, item, nodes, tomcats);
    super::check::places(cx, item);
    super::check::agent(cx, item);
    super::check::shared(cx, item, items);
    let check = match item.find("check") {
        Some(check) => Some(super::check::check(cx, check, item, items)?),
        None => None,
    };
    let timeout = item.setting("timeout");
    let connect = timeout.get("connect")?;
    let balance = balance::balance(cx, item, mode)?;
    let stays = super::persist::stays(cx, item, mode, items)?;
    Some(Backend {
        name: item.name(),
        mode: mode?,
        balance,
        all_backups: item.find("allbackups").is_some(),
        timeout: BackendTimeouts {
            connect,
            server: timeout.get("server")?,
            queue: timeout.get("queue")?,
            tunnel: timeout.get("tunnel")?,
            server_fin: timeout.get("server-fin"),
            session: timeout.get("session")?,
            check: timeout.get("check").or(check.as_ref().map(|check| check.every)).unwrap_or(connect),
        },
        observe: super::check::observe(cx, item, mode),
        outlier: super::check::outlier(cx, item, mode),
        check,
        max_queue: item.find("max-queue").and_then(|m| m.get("number")),
        breaker: super::check::breaker(cx, item, mode),
        panic: item.find("panic").and_then(|panic| panic.get("percent")),
        full_connections: item.find("full-connections").and_then(|m| m.get("number")),
        max_body: super::front::max_body(item),
        compression: super::compression::compression(cx, item)?,
        tls: match item.find("tls") {
            Some(tls) => Some(Arc::new(ServerTls {
                sni: tls.get("sni"),
                ca: tls.get("ca"),
                verify: &*tls.get::<Arc<str>>("verify")? == "required",
                certificate: tls.get("certificate"),
            })),
            None => None,
        },
        responses: item.find("responses").and_then(|responses| responses.get("number")),
        retries: item.setting("retries").get("number")?,
        retry_on: retry_on(&item.setting("retry-on").get::<Arc<str>>("what")?),
        retry_budget: item.setting("retries").get("budget"),
        redispatch: item.find("redispatch").is_some(),
        hedge: super::check::hedge(cx, item, mode),
        persist: stays.persist,
        stick: stays.stick,
        abort_on_close: item.find("abort-on-close").is_some(),
        servers: servers?
            .into_iter()
            .map(|server| Server { source_client: item.find("source").is_some(), ..server })
            .collect(),
        error_pages: pages::error_pages(cx, item),
        rules: super::rules::rules(cx, item, mode?, &[])?,
    })
}

fn retry_on(words: &str) -> RetryOn {
    let mut on = RetryOn::default();
    for word in words.split('+') {
        match word {
            "empty-response" => on.empty = true,
            "junk-response" => on.junk = true,
            "response-timeout" => on.late = true,
            status => on.statuses.extend(status.parse::<u16>()),
        }
    }
    on
}

/// Without verification an authority is never asked.
fn check_tls(cx: &mut Context, tls: &Item) {
    let unverified = tls.get::<Arc<str>>("verify").is_some_and(|verify| &*verify == "none");
    if unverified && tls.get::<Arc<str>>("ca").is_some() {
        cx.error(
            Diagnostic::error(tls.span_of("ca"), "`verify=none` never asks the authorities of `ca`")
                .related(tls.span_of("verify"), "verification ends here")
                .help("take `verify=none` out: servers are then verified against `ca`"),
        );
    } else if unverified {
        cx.warn(
            tls.span_of("verify"),
            "whoever answers at a server's address is taken for the server".to_owned(),
            "name the authority of its certificate instead: ca=\"/PATH\"",
        );
    }
}

/// A connection from a client's own address carries nobody else's requests; one of HTTP/2 does.
fn check_source(cx: &mut Context, item: &Item) {
    let speaks = |server: &&Item| server.get::<Arc<str>>("proto").as_deref() == Some("h2");
    if let (Some(source), Some(server)) = (item.find("source"), item.each("server").find(speaks)) {
        cx.error(
            Diagnostic::error(
                server.span_of("proto"),
                "a connection with `proto=h2` is shared by many clients, and `source client` is for one",
            )
            .related(source.span.clone(), "it is here")
            .help("keep one of them: with `proto=h2` servers hear of clients by `forwarded-for`"),
        );
    }
}

fn check_tcp(cx: &mut Context, item: &Item) {
    let speaks = |server: &&Item| server.get::<Arc<str>>("proto").as_deref() == Some("h2");
    if let Some(server) = item.each("server").find(speaks) {
        cx.error(
            Diagnostic::error(
                server.span_of("proto"),
                "`proto=h2` needs `mode http`: in `mode tcp` client and server speak what they like",
            )
            .help("take it out, or take `mode tcp` out"),
        );
    }
    for name in ["max-body", "compression", "http2"] {
        if let Some(child) = item.find(name) {
            let message = format!("`{name}` needs `mode http`: in `mode tcp` requests are not read");
            cx.error(
                Diagnostic::error(child.span.clone(), message).help("take it out, or take `mode tcp` out"),
            );
        }
    }
    if let Some(persist) = item.find("persist") {
        cx.error(
            Diagnostic::error(
                persist.span.clone(),
                "`persist` needs `mode http`: there are no cookies in `mode tcp`",
            )
            .help("write `stick src` instead, or take `mode tcp` out"),
        );
    }
}

fn servers(
    cx: &mut Context,
    item: &Item,
    nodes: &[Option<Node>],
    tomcats: &[Option<Tomcat>],
) -> Option<Vec<Server>> {
    let streams = item.setting("http2").get("max-concurrent-streams")?;
    let mut servers = Vec::new();
    let mut tiers = Vec::new();
    let mut whole = true;
    for child in &item.children {
        match child.row.name {
            "server" => match server(cx, child, nodes, streams) {
                Some(server) => servers.push(server),
                None => whole = false,
            },
            "servers" => match tier(cx, child, nodes, tomcats) {
                Some(tier) => {
                    servers.extend(tier.clone());
                    tiers.push((child.span_of("tomcat"), tier));
                }
                None => whole = false,
            },
            _ => {}
        }
    }
    if !item.says("server") && !item.says("servers") {
        cx.error(
            Diagnostic::error(item.span.clone(), format!("backend `{}` has no server", item.name()))
                .help("add server NAME \"192.168.112.177:8081\", or servers tomcat=NAME"),
        );
    }
    if servers.len() > Kind::Server.most() {
        cx.error(
            Diagnostic::error(
                item.span.clone(),
                format!("backend `{}` has more than {} servers", item.name(), Kind::Server.most()),
            )
            .help("spread them over several backends"),
        );
    }
    check_twins(cx, item, &tiers);
    whole.then_some(servers)
}

/// Servers made of a tier have names too; what logs say must stay clear.
fn check_twins(cx: &mut Context, item: &Item, tiers: &[(Span, Vec<Server>)]) {
    let named = item.each("server").map(|child| (child.name(), child.name_span()));
    let mut seen: BTreeMap<Arc<str>, Span> = named.collect();
    for (span, servers) in tiers {
        if let Some((name, before)) = servers.iter().find_map(|server| seen.get_key_value(&server.name)) {
            cx.error(
                Diagnostic::error(
                    span.clone(),
                    format!("this makes a second server named `{name}` in backend `{}`", item.name()),
                )
                .related(before.clone(), "the other is here")
                .help("keep one of them, or give each a backend of its own"),
            );
        }
        seen.extend(servers.iter().map(|server| (server.name.clone(), span.clone())));
    }
}

fn server(
    cx: &mut Context,
    item: &Item,
    nodes: &[Option<Node>],
    max_concurrent_streams: u32,
) -> Option<Server> {
    let address: SocketAddr = item.get("address")?;
    let node = owner(nodes, address.ip());
    if node.is_none() && cx.links_known && !address.ip().is_loopback() {
        cx.warn(
            item.span_of("address"),
            format!("{} is no node's address", address.ip()),
            "is it a slip? If the machine is outside the platform, this is only to be known",
        );
    }
    let http2 = item.get::<Arc<str>>("proto")?.as_ref() == "h2";
    if http2 && item.get::<Arc<str>>("send-proxy").is_some() {
        cx.error(
            Diagnostic::error(
                item.span_of("send-proxy"),
                "`send-proxy` names one client, and a connection with `proto=h2` is shared by many",
            )
            .help("keep one of them: with `proto=h2` servers hear of clients by `forwarded-for`"),
        );
    }
    Some(Server {
        name: item.name(),
        address,
        weight: item.get("weight")?,
        max_connections: item.get("max-connections"),
        min_connections: min_connections(cx, item),
        backup: is_backup(item),
        slow_start: item.get("slowstart"),
        source_client: false, // the backend says
        send_proxy: send_proxy(item),
        http2,
        max_concurrent_streams,
        cookie: super::persist::server_cookie(cx, item),
        check_port: item.get("check-port"),
        check_address: item.get("check-address"),
        node,
        admin: Admin::Ready,
    })
}

pub(super) fn is_backup(item: &Item) -> bool {
    item.get::<Arc<str>>("backup").is_some_and(|backup| &*backup == "yes")
}

fn min_connections(cx: &mut Context, item: &Item) -> Option<u32> {
    let least: u32 = item.get("min-connections")?;
    match item.get::<u32>("max-connections") {
        Some(most) if least <= most => return Some(least),
        Some(most) => {
            let message = format!("`min-connections={least}` is more than `max-connections={most}`");
            cx.error(
                Diagnostic::error(item.span_of("min-connections"), message).help("make it the smaller one"),
            );
        }
        None => cx.error(
            Diagnostic::error(
                item.span_of("min-connections"),
                "`min-connections` is a part of `max-connections`",
            )
            .help("add max-connections=NUMBER, or take it out"),
        ),
    }
    None
}

fn send_proxy(item: &Item) -> Option<ProxyVersion> {
    item.get::<Arc<str>>("send-proxy")
        .map(|version| if &*version == "v1" { ProxyVersion::V1 } else { ProxyVersion::V2 })
}

fn owner(nodes: &[Option<Node>], ip: IpAddr) -> Option<NodeId> {
    let index = nodes.iter().position(|node| node.as_ref().is_some_and(|node| node.links.contains(&ip)))?;
    u16::try_from(index).ok().map(NodeId)
}

/// The instances of a tier: `tomcat1-1`, `tomcat1-2`, ...
fn tier(
    cx: &mut Context,
    item: &Item,
    nodes: &[Option<Node>],
    tomcats: &[Option<Tomcat>],
) -> Option<Vec<Server>> {
    let tomcat = tomcats.get(cx.names.tomcat(&item.get::<Arc<str>>("tomcat")?)?)?.as_ref()?;
    if tomcat.nodes.is_empty() {
        return None; // Its `on` is missing or wrong, which has been reported.
    }
    let weight = item.get("weight")?;
    let (max_connections, send_proxy) = (item.get("max-connections"), send_proxy(item));
    let min_connections = min_connections(cx, item);
    let mut servers = Vec::new();
    for id in &tomcat.nodes {
        let node = nodes.get(usize::from(id.0))?.as_ref()?;
        let ip = *node.links.first()?;
        for instance in 0..tomcat.instances {
            let name = format!("{}-{}", node.name, instance + 1).into();
            let address = SocketAddr::new(ip, tomcat.first_port.checked_add(instance)?);
            servers.push(Server {
                name,
                address,
                weight,
                max_connections,
                min_connections,
                backup: is_backup(item),
                slow_start: item.get("slowstart"),
                source_client: false,
                send_proxy,
                http2: false,
                max_concurrent_streams: 1,
                cookie: None,
                check_port: None,
                check_address: None,
                node: Some(*id),
                admin: Admin::Ready,
            });
        }
    }
    Some(servers)
}
