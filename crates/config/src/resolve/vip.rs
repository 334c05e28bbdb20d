//! `vip`: virtual addresses and who may hold them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Context, each};
use crate::diagnostic::{Diagnostic, Span};
use crate::item::Item;
use crate::plan::{Cidr, Frontend, Node, NodeId, Preempt, Vip};

pub(super) fn vips(cx: &mut Context, items: &[Item], nodes: &[Option<Node>]) -> Vec<Option<Vip>> {
    check_unique(cx, items);
    each(items, "vip").map(|item| vip(cx, item, nodes)).collect()
}

fn vip(cx: &mut Context, item: &Item, nodes: &[Option<Node>]) -> Option<Vip> {
    let holders = holders(cx, item);
    let track = item
        .each("track")
        .filter_map(|track| cx.names.frontend(&track.get::<Arc<str>>("frontend")?))
        .collect();
    let advertise_item = item.setting("advertise");
    let advertise: Option<Duration> = advertise_item.get("interval");
    if let Some(time) = advertise
        && !time.as_millis().is_multiple_of(10)
    {
        let rounded = time.as_millis().div_ceil(10) * 10;
        cx.error(
            Diagnostic::error(
                advertise_item.span_of("interval"),
                "`advertise` counts in hundredths of a second",
            )
            .help(format!("write \"{rounded}ms\"")),
        );
    }
    let address = item.find("address")?;
    let (ip, prefix) = cidr(address)?;
    if let Some(node) = nodes.iter().flatten().find(|node| node.links.contains(&IpAddr::V4(ip))) {
        cx.error(
            Diagnostic::error(
                address.span_of("address"),
                format!("{ip} is node `{}`'s own address", node.name),
            )
            .help(
                "a virtual address is one that no machine has of its own: choose a free one of the network",
            ),
        );
    }
    let preempt = match item.setting("preempt").get::<Arc<str>>("when")?.as_ref() {
        "never" => Preempt::Never,
        _ => Preempt::Always,
    };
    Some(Vip {
        name: item.name(),
        address: ip,
        prefix,
        interface: address.get("interface")?,
        router_id: item.find("router-id")?.get("id")?,
        nodes: holders,
        advertise: advertise?,
        preempt,
        track,
    })
}

fn cidr(address: &Item) -> Option<(std::net::Ipv4Addr, u8)> {
    match address.get::<Vec<Cidr>>("address")?.first()? {
        Cidr { address: IpAddr::V4(ip), prefix } => Some((*ip, *prefix)),
        _ => None,
    }
}

/// Who may hold it. Two with the same priority would both think they are next.
fn holders(cx: &mut Context, item: &Item) -> Vec<(NodeId, u8)> {
    let mut holders: Vec<(NodeId, u8, Span, Span)> = Vec::new();
    for node in item.each("node") {
        let (Some(name), Some(priority)) = (node.get::<Arc<str>>("name"), node.get::<u8>("priority")) else {
            continue;
        };
        let Some(id) = cx.names.node(&name) else { continue };
        let (name_span, priority_span) = (node.span_of("name"), node.span_of("priority"));
        if let Some((_, _, before, _)) = holders.iter().find(|(other, ..)| *other == id) {
            cx.error(
                Diagnostic::error(
                    name_span.clone(),
                    format!("node `{name}` is given twice in vip `{}`", item.name()),
                )
                .related(before.clone(), "first given here")
                .help("keep one of them"),
            );
        } else if let Some((_, _, _, before)) = holders.iter().find(|(_, other, ..)| *other == priority) {
            let free = (1..=255)
                .rev()
                .filter(|p| *p < priority)
                .find(|p| !holders.iter().any(|(_, o, ..)| o == p))
                .unwrap_or(255);
            cx.error(
                Diagnostic::error(
                    priority_span.clone(),
                    format!("two nodes of vip `{}` have priority {priority}", item.name()),
                )
                .related(before.clone(), "the other is here")
                .help(format!(
                    "the higher one is preferred; give the one that stands in less: priority={free}"
                )),
            );
        }
        holders.push((id, priority, name_span, priority_span));
    }
    holders.into_iter().map(|(id, priority, ..)| (id, priority)).collect()
}

/// No address twice, and no VRID twice on one interface.
fn check_unique(cx: &mut Context, items: &[Item]) {
    let mut addresses: Vec<(std::net::Ipv4Addr, Span)> = Vec::new();
    let mut routers: Vec<(Arc<str>, u8, Span)> = Vec::new();
    for item in each(items, "vip") {
        let Some(address) = item.find("address") else { continue };
        if let Some((ip, _)) = cidr(address) {
            let span = address.span_of("address");
            if let Some((_, before)) = addresses.iter().find(|(other, _)| *other == ip) {
                cx.error(
                    Diagnostic::error(span.clone(), format!("two vips have the address {ip}"))
                        .related(before.clone(), "the other is here")
                        .help("every vip has an address of its own"),
                );
            }
            addresses.push((ip, span));
        }
        let Some(router) = item.find("router-id") else { continue };
        let (Some(interface), Some(id)) = (address.get::<Arc<str>>("interface"), router.get::<u8>("id"))
        else {
            continue;
        };
        let span = router.span_of("id");
        if let Some((_, _, before)) = routers.iter().find(|(i, r, _)| *i == interface && *r == id) {
            let free =
                (1..=255).find(|n| !routers.iter().any(|(i, r, _)| *i == interface && r == n)).unwrap_or(255);
            cx.error(
                Diagnostic::error(span.clone(), format!("two vips on {interface} have router-id {id}"))
                    .related(before.clone(), "the other is here")
                    .help(format!(
                        "each vip on a network has its own: router-id {free} is free in this file"
                    )),
            );
        }
        routers.push((interface, id, span));
    }
}

/// A node can hold the address only if what is tracked runs there.
pub(super) fn check_tracking(
    cx: &mut Context,
    items: &[Item],
    nodes: &[Option<Node>],
    vips: &[Option<Vip>],
    frontends: &[Option<Frontend>],
) {
    for (item, vip) in each(items, "vip").zip(vips) {
        let Some(vip) = vip else { continue };
        for track in item.each("track") {
            let Some(id) = track.get::<Arc<str>>("frontend").and_then(|name| cx.names.frontend(&name)) else {
                continue;
            };
            let Some(Some(frontend)) = frontends.get(usize::from(id.0)) else { continue };
            for (holder, _) in vip.nodes.iter().filter(|(holder, _)| !frontend.nodes.contains(holder)) {
                let Some(Some(node)) = nodes.get(usize::from(holder.0)) else { continue };
                let message = format!(
                    "frontend `{}` does not run on `{}`, so that node could never hold `{}`",
                    frontend.name, node.name, vip.name
                );
                cx.error(Diagnostic::error(track.span_of("frontend"), message).help(format!(
                    "add `{0}` to the `on` of frontend `{1}`, or take node `{0}` out of this vip",
                    node.name, frontend.name
                )));
            }
        }
    }
}
