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

/// The risk that remains while no third machine is asked, in words: one note a vip that two nodes may hold.
pub(super) fn risks(items: &[Item], nodes: &[Option<Node>], vips: &[Option<Vip>]) -> Vec<Diagnostic> {
    let shared = each(items, "vip").zip(vips).filter_map(|(item, vip)| Some((item, vip.as_ref()?)));
    let shared = shared.filter(|(_, vip)| vip.nodes.len() > 1);
    shared.map(|(item, vip)| risk(item, nodes, vip)).collect()
}

fn risk(item: &Item, nodes: &[Option<Node>], vip: &Vip) -> Diagnostic {
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
        "no third machine is asked: while {names} run but do not hear each other on {}, {hold} vip `{}`, and a client \
         may reach either",
        vip.interface, vip.name
    );
    Diagnostic::new(Severity::Note, item.span_of("name"), message).help(
        "join them by two switches or bonded ports and let IP protocol 112 pass; `track link=` lets go where a cable \
         is out; when they hear each other again, the lower priority lets go",
    )
}
