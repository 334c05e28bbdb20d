//! Listeners in each other's way: two on one address and port of one node. TCP and UDP have ports of their own.

use std::net::{IpAddr, SocketAddr};

use super::{Context, each};
use crate::diagnostic::{Diagnostic, Span};
use crate::item::Item;
use crate::plan::{Frontend, Mode, Node, NodeId, Tomcat};

struct Listener {
    address: SocketAddr,
    udp: bool,
    nodes: Vec<NodeId>,
    span: Span,
    what: String,
}

pub(super) fn check(
    cx: &mut Context,
    items: &[Item],
    platform: &Item,
    nodes: &[Option<Node>],
    frontends: &[Option<Frontend>],
    tomcats: &[Option<Tomcat>],
) {
    let everywhere: Vec<NodeId> = (0u16..).map(NodeId).take(nodes.len()).collect();
    let mut listeners: Vec<Listener> = Vec::new();
    let admin = platform.setting("admin");
    if let Some(address) = admin.get("address") {
        let what = "the dashboard".to_owned();
        listeners.push(Listener {
            address,
            udp: false,
            nodes: everywhere.clone(),
            span: admin.span_of("address"),
            what,
        });
    }
    if let Some((peers, port)) = platform.find("peers").and_then(|peers| Some((peers, peers.get("port")?))) {
        for (id, node) in everywhere.iter().zip(nodes) {
            let Some(link) = node.as_ref().and_then(|node| node.links.first()) else { continue };
            listeners.push(Listener {
                address: SocketAddr::new(*link, port),
                udp: false,
                nodes: vec![*id],
                span: peers.span_of("port"),
                what: "`peers`".to_owned(),
            });
        }
    }
    for (item, tomcat) in each(items, "tomcat").zip(tomcats) {
        let Some(tomcat) = tomcat else { continue };
        for port in (tomcat.first_port..).take(usize::from(tomcat.instances)) {
            let address = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), port);
            let span = item.setting("instances").span_of("first-port");
            listeners.push(Listener {
                address,
                udp: false,
                nodes: tomcat.nodes.clone(),
                span,
                what: format!("an instance of tomcat `{}`", tomcat.name),
            });
        }
    }
    for (item, frontend) in each(items, "frontend").zip(frontends) {
        let Some(frontend) = frontend else { continue };
        for bind in item.each("bind") {
            let Some(address) = bind.get::<SocketAddr>("address") else { continue };
            let owner = nodes
                .iter()
                .position(|node| node.as_ref().is_some_and(|node| node.links.contains(&address.ip())))
                .filter(|_| !address.ip().is_loopback());
            let running = frontend
                .nodes
                .iter()
                .copied()
                .filter(|id| owner.is_none_or(|owner| owner == usize::from(id.0)))
                .collect();
            listeners.push(Listener {
                address,
                udp: frontend.mode == Mode::Udp || frontend.forward.is_some_and(|forward| forward.udp),
                nodes: running,
                span: bind.span_of("address"),
                what: format!("frontend `{}`", frontend.name),
            });
        }
    }
    listeners.sort_by_key(|listener| (listener.udp, listener.address.port(), listener.span.start));
    for same_port in listeners.chunk_by(|a, b| (a.udp, a.address.port()) == (b.udp, b.address.port())) {
        check_port(cx, same_port, nodes);
    }
}

/// One conflict is reported for each listener, with the first one before it.
fn check_port(cx: &mut Context, listeners: &[Listener], nodes: &[Option<Node>]) {
    for (index, listener) in listeners.iter().enumerate() {
        let clash = listeners[..index].iter().find_map(|before| {
            let node = listener.nodes.iter().find(|node| before.nodes.contains(node))?;
            overlap(before.address.ip(), listener.address.ip()).then_some((before, *node))
        });
        let Some((before, node)) = clash else { continue };
        let name = nodes.get(usize::from(node.0)).and_then(Option::as_ref).map_or("?", |node| &node.name);
        let address = |listener: &Listener| listener.address.to_string().replace("0.0.0.0:", "*:");
        let message = format!(
            "{} cannot listen on {}: {} listens on {} on node `{name}`",
            listener.what,
            address(listener),
            before.what,
            address(before)
        );
        cx.error(
            Diagnostic::error(listener.span.clone(), message)
                .related(before.span.clone(), "the other is here")
                .help("choose another port or address for one of them"),
        );
    }
}

/// IPv6 listeners are opened for IPv6 alone, so the families do not meet.
fn overlap(a: IpAddr, b: IpAddr) -> bool {
    a.is_ipv4() == b.is_ipv4() && (a == b || a.is_unspecified() || b.is_unspecified())
}
