//! What `check` says of a vip whose nodes may be cut from each other, and of one whose nodes could never hear each
//! other. Called by `resolve`.

use std::sync::Arc;

use super::{Context, each};
use crate::diagnostic::{Diagnostic, Severity};
use crate::item::Item;
use crate::plan::{Node, NodeId, Vip};

/// Advertisements to the nodes' links need a node to send to, and a link of the address's family on each.
pub(super) fn check_unicast(cx: &mut Context, items: &[Item], nodes: &[Option<Node>], vips: &[Option<Vip>]) {
    for (item, vip) in each(items, "vip").zip(vips) {
        let (Some(unicast), Some(vip)) = (item.find("unicast"), vip) else { continue };
        // Also those whose name is no node's: that has been complained of already.
        let holders: Vec<&Item> = item.each("node").collect();
        if holders.len() == 1 {
            cx.error(
                Diagnostic::error(
                    unicast.span.clone(),
                    format!("vip `{}` has one node, so `unicast` has nobody to advertise to", vip.name),
                )
                .help("add the node that stands in: node NAME priority=100; or take `unicast` out"),
            );
        }
        let is_v4 = vip.addresses.iter().any(|cidr| cidr.address.is_ipv4());
        let family = if is_v4 { "IPv4" } else { "IPv6" };
        for holder in holders {
            let Some(id) = holder.get::<Arc<str>>("name").and_then(|name| cx.names.node(&name)) else {
                continue;
            };
            let Some(Some(node)) = nodes.get(usize::from(id.0)) else { continue };
            if cx.links_known && node.links.iter().all(|link| link.is_ipv4() != is_v4) {
                let message = format!(
                    "node `{}` has no {family} link, and vip `{}` advertises to its nodes' links",
                    node.name, vip.name
                );
                let help = format!(
                    "give node `{}` its {family} address as another `link`, or take `unicast` out of the vip",
                    node.name
                );
                cx.error(Diagnostic::error(holder.span_of("name"), message).help(help));
            }
        }
    }
}

/// The risk that remains, in words: one note for each vip that two nodes may hold and nobody can witness.
pub(super) fn risks(
    items: &[Item],
    nodes: &[Option<Node>],
    vips: &[Option<Vip>],
    has_key: bool,
) -> Vec<Diagnostic> {
    let shared = each(items, "vip").zip(vips).filter_map(|(item, vip)| Some((item, vip.as_ref()?)));
    let shared = shared.filter(|(_, vip)| vip.nodes.len() > 1);
    shared.filter_map(|(item, vip)| risk(item, nodes, vip, has_key)).collect()
}

fn risk(item: &Item, nodes: &[Option<Node>], vip: &Vip, has_key: bool) -> Option<Diagnostic> {
    let holds = |n: usize| vip.nodes.iter().any(|(id, _)| usize::from(id.0) == n);
    let is_here =
        |node: &Node| node.links.iter().any(|link| vip.addresses.iter().any(|net| net.contains(*link)));
    let others = nodes.iter().enumerate().filter(|(n, _)| !holds(*n)).filter_map(|(_, node)| node.as_ref());
    let (why, help) = match (has_key, others.filter(|node| is_here(node)).count()) {
        (false, _) => (
            "nodes exchange no heartbeats without a cluster-key",
            "add to `platform`: secret cluster-key file=\"/etc/relais/cluster.key\", the same on every node",
        ),
        (true, 0) => (
            "no other node is on its network to say which of them is cut off",
            "add a node there that only witnesses: any machine that runs `relais run` with this file will do",
        ),
        (true, 1..) => return None,
    };
    let name = |(id, _): &(NodeId, u8)| match nodes.get(usize::from(id.0)) {
        Some(Some(node)) => format!("`{}`", node.name),
        _ => String::new(),
    };
    let names: Vec<String> = vip.nodes.iter().map(name).collect();
    let names = match names.split_last() {
        Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
        None => String::new(),
    };
    let hold = if vip.nodes.len() == 2 { "both hold" } else { "more than one of them holds" };
    let message = format!(
        "{why}: while {names} run but do not hear each other on {}, {hold} vip `{}`, and a client may reach either",
        vip.interface, vip.name
    );
    Some(Diagnostic::new(Severity::Note, item.span_of("name"), message).help(help))
}

/// Heartbeats know nodes and addresses by 32 bits of their names.
pub(super) fn unlike(cx: &mut Context, items: &[Item], kind: &'static str) {
    let mut seen: Vec<(u32, &Item)> = Vec::new();
    for item in each(items, kind) {
        let hash = relais_cluster::wire::hash(&item.name());
        match seen.iter().find(|(other, before)| *other == hash && before.name() != item.name()) {
            Some((_, before)) => cx.error(
                Diagnostic::error(
                    item.span.clone(),
                    format!("`{}` and `{}` look the same to heartbeats", item.name(), before.name()),
                )
                .related(before.span.clone(), "the other one")
                .help("give one of them another name; it is their 32-bit FNV hash that is the same"),
            ),
            None => seen.push((hash, item)),
        }
    }
}
