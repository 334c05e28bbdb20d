//! `peers` and `peer`: with whom balancers share their tables.

use std::net::IpAddr;
use std::sync::Arc;

use super::{Context, each, shield};
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::{BackendId, Frontend, Node, Peers, Rule};

/// The longest name that a HAProxy's greeting has room for.
const LONGEST: usize = 255;

pub(super) fn peers(
    cx: &mut Context,
    items: &[Item],
    platform: &Item,
    nodes: &[Node],
    frontends: &[Frontend],
) -> Option<Peers> {
    let mut others: Vec<(Arc<str>, IpAddr)> = Vec::new();
    for item in platform.each("peer") {
        let (Some(name), Some(address)) = (item.get::<Arc<str>>("name"), item.get("address")) else {
            continue;
        };
        if name.is_empty() || name.len() > LONGEST || !name.bytes().all(|b| b.is_ascii_graphic()) {
            cx.error(
                Diagnostic::error(
                    item.span_of("name"),
                    "a peer's name has no blanks and is at most 255 characters",
                )
                .help("write what the HAProxy calls itself: its host name, or what `-L` says"),
            );
        }
        if nodes.iter().any(|node| node.name == name) || others.iter().any(|(other, _)| *other == name) {
            cx.error(
                Diagnostic::error(item.span_of("name"), format!("there is another balancer called `{name}`"))
                    .help("start the HAProxy with `-L NAME`, and write that name here and in its `peers` section"),
            );
        }
        others.push((name, address));
    }
    let Some(item) = platform.find("peers") else {
        if let Some(first) = platform.each("peer").next() {
            cx.error(
                Diagnostic::error(
                    first.span.clone(),
                    "`peer` needs `peers`, which says where it is listened to",
                )
                .help("add to `platform`: peers port=10000"),
            );
        }
        alone(cx, items, frontends);
        return None;
    };
    if nodes.len() > 1 && shield::cluster_key(platform).is_none() {
        cx.error(
            Diagnostic::error(item.span.clone(), "balancers share no tables without a cluster-key in a file")
                .help("add to `platform`: secret cluster-key file=\"/etc/relais/cluster.key\", the same on every node"),
        );
    }
    Some(Peers { port: item.get("port")?, others })
}

/// Says which tables are each balancer's own.
fn alone(cx: &mut Context, items: &[Item], frontends: &[Frontend]) {
    let moves = |front: &&Frontend| {
        front.nodes.len() > 1 && front.binds.iter().any(|bind| !bind.address.ip().is_loopback())
    };
    let reached = |id: usize| {
        let here = |backend: BackendId| usize::from(backend.0) == id;
        let named = |front: &Frontend| front.rules.iter().flat_map(Rule::backends).any(here);
        frontends.iter().filter(moves).any(|front| front.default_backend.is_some_and(here) || named(front))
    };
    for (_, backend) in each(items, "backend").enumerate().filter(|(id, _)| reached(*id)) {
        let learned = backend.find("persist").filter(|persist| persist.get::<Arc<str>>("learn").is_some());
        if let Some(table) = backend.find("stick").or(learned) {
            cx.warn(
                table.span.clone(),
                "each balancer has a table of its own: after a failover clients go to other servers"
                    .to_owned(),
                "add to `platform`: peers port=10000",
            );
        }
    }
}
