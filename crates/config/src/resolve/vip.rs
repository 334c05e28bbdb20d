//! `vip`: virtual addresses and who may hold them.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::{Context, each, track};
use crate::diagnostic::{Diagnostic, Span};
use crate::item::Item;
use crate::plan::{Cidr, Node, NodeId, Preempt, Vip};

/// As many as one advertisement carries.
const MOST_ADDRESSES: usize = 64;

pub(super) fn vips(cx: &mut Context, items: &[Item], nodes: &[Option<Node>]) -> Vec<Option<Vip>> {
    check_unique(cx, items);
    check_virtual_macs(cx, items);
    each(items, "vip").map(|item| vip(cx, item, nodes)).collect()
}

fn vip(cx: &mut Context, item: &Item, nodes: &[Option<Node>]) -> Option<Vip> {
    let holders = holders(cx, item);
    let track = item.each("track").filter_map(|line| track::tracked(cx, line)).collect();
    let addresses = addresses(cx, item, nodes)?;
    let version = version(cx, item, &addresses)?;
    let advertise = advertise(cx, item, version)?;
    let preempt_item = item.setting("preempt");
    let preempt = match preempt_item.get::<Arc<str>>("when")?.as_ref() {
        "never" => Preempt::Never,
        _ => Preempt::Always,
    };
    Some(Vip {
        name: item.name(),
        addresses,
        interface: item.find("address")?.get("interface")?,
        router_id: item.find("router-id")?.get("id")?,
        nodes: holders,
        version,
        password: item.find("password").and_then(|password| password.get("file")),
        sealed: item.find("password").is_some_and(|p| p.get::<Arc<str>>("method").as_deref() == Some("ah")),
        checksum_with_pseudo_header: &*item.setting("checksum").get::<Arc<str>>("over")? == "pseudo-header",
        unicast: item.find("unicast").and_then(|unicast| unicast.get("least-ttl")),
        advertise,
        preempt,
        preempt_delay: preempt_item.get("delay")?,
        virtual_mac: item.find("virtual-mac").is_some(),
        sync_group: item.find("sync-group").and_then(|group| group.get("name")),
        track,
    })
}

/// Its addresses: all of one family and on one interface, a link-local one first.
fn addresses(cx: &mut Context, item: &Item, nodes: &[Option<Node>]) -> Option<Vec<Cidr>> {
    let first = item.find("address")?;
    let mut all: Vec<Cidr> = Vec::new();
    for address in item.each("address") {
        let Some(cidr) = cidr(address) else { continue };
        let ip = cidr.address;
        if let Some(node) = nodes.iter().flatten().find(|node| node.links.contains(&ip)) {
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
        if all.first().is_some_and(|before| before.address.is_ipv4() != ip.is_ipv4()) {
            cx.error(
                Diagnostic::error(address.span_of("address"), "a vip has addresses of one family")
                    .related(first.span_of("address"), "the first is here")
                    .help("make a second vip of it; IPv4 and IPv6 are elected apart (RFC 9568), and may share a router-id"),
            );
        } else if !all.is_empty() && is_link_local(ip) {
            cx.error(
                Diagnostic::error(
                    address.span_of("address"),
                    "a link-local address comes first (RFC 9568 §5.2.9)",
                )
                .help("move this line before the other addresses"),
            );
        }
        if address.get::<Arc<str>>("interface") != first.get("interface") {
            cx.error(
                Diagnostic::error(
                    address.span_of("interface"),
                    "the addresses of a vip are on one interface, for they move together",
                )
                .related(first.span_of("interface"), "the first is here")
                .help("make a second vip of it"),
            );
        }
        all.push(cidr);
    }
    if all.len() > MOST_ADDRESSES {
        cx.error(
            Diagnostic::error(item.span.clone(), format!("a vip has up to {MOST_ADDRESSES} addresses"))
                .help("make a second vip of the rest"),
        );
    }
    (!all.is_empty()).then_some(all)
}

fn is_link_local(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

fn version(cx: &mut Context, item: &Item, addresses: &[Cidr]) -> Option<u8> {
    let setting = item.setting("version");
    let version: u8 = setting.get("version")?;
    if version == 2 && addresses.iter().any(|a| a.address.is_ipv6()) {
        cx.error(
            Diagnostic::error(setting.span_of("version"), "VRRP version 2 has no IPv6")
                .help("take `version 2` out; keepalived speaks version 3 over IPv6 as well"),
        );
    }
    if version == 3
        && let Some(password) = item.find("password")
    {
        cx.error(
            Diagnostic::error(password.span.clone(), "VRRP version 3 has no passwords (RFC 9568 §8)")
                .help("write `version 2`, or take the password out"),
        );
    }
    Some(version)
}

/// The interval, in the units that the packet has for it.
fn advertise(cx: &mut Context, item: &Item, version: u8) -> Option<Duration> {
    let setting = item.setting("advertise");
    let time: Duration = setting.get("interval")?;
    let (unit, most, what, written): (u128, u128, _, fn(u128) -> String) = match version {
        2 => (1000, 255_000, "in version 2 `advertise` counts in seconds", |ms| format!("{}s", ms / 1000)),
        _ => (10, 40_950, "`advertise` counts in hundredths of a second", |ms| format!("{ms}ms")),
    };
    let ms = time.as_millis();
    if !ms.is_multiple_of(unit) {
        let rounded = written(ms.div_ceil(unit) * unit);
        cx.error(Diagnostic::error(setting.span_of("interval"), what).help(format!("write \"{rounded}\"")));
    } else if ms > most {
        cx.error(
            Diagnostic::error(setting.span_of("interval"), "in version 3 `advertise` is at most 40.95 s")
                .help("write a shorter one, or `version 2`"),
        );
    }
    Some(time)
}

fn cidr(address: &Item) -> Option<Cidr> {
    address.get::<Vec<Cidr>>("address")?.first().copied()
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

/// No address twice, and no VRID twice on one interface in one family.
fn check_unique(cx: &mut Context, items: &[Item]) {
    let mut addresses: Vec<(IpAddr, Span)> = Vec::new();
    let mut routers: Vec<(Arc<str>, bool, u8, Span)> = Vec::new();
    for item in each(items, "vip") {
        for address in item.each("address") {
            let Some(Cidr { address: ip, .. }) = cidr(address) else { continue };
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
        let (Some(address), Some(router)) = (item.find("address"), item.find("router-id")) else { continue };
        let (Some(interface), Some(id), Some(first)) =
            (address.get::<Arc<str>>("interface"), router.get::<u8>("id"), cidr(address))
        else {
            continue;
        };
        let (is_v4, span) = (first.address.is_ipv4(), router.span_of("id"));
        let taken = |n: u8| routers.iter().find(|(i, v4, r, _)| *i == interface && *v4 == is_v4 && *r == n);
        if let Some((_, _, _, before)) = taken(id) {
            let free = (1..=255).find(|n| taken(*n).is_none()).unwrap_or(255);
            cx.error(
                Diagnostic::error(span.clone(), format!("two vips on {interface} have router-id {id}"))
                    .related(before.clone(), "the other is here")
                    .help(format!(
                        "each vip on a network has its own: router-id {free} is free in this file"
                    )),
            );
        }
        routers.push((interface, is_v4, id, span));
    }
}

/// The interface of a virtual MAC is named by family and VRID alone, and is on one other.
fn check_virtual_macs(cx: &mut Context, items: &[Item]) {
    let mut seen: Vec<(bool, u8, Span)> = Vec::new();
    for item in each(items, "vip") {
        let (Some(mac), Some(address), Some(router)) =
            (item.find("virtual-mac"), item.find("address"), item.find("router-id"))
        else {
            continue;
        };
        let (Some(first), Some(id)) = (cidr(address), router.get::<u8>("id")) else { continue };
        let is_v4 = first.address.is_ipv4();
        if let Some((.., before)) = seen.iter().find(|(v4, other, _)| (*v4, *other) == (is_v4, id)) {
            cx.error(
                Diagnostic::error(
                    mac.span.clone(),
                    format!("two vips with `virtual-mac` have router-id {id}"),
                )
                .related(before.clone(), "the other is here")
                .help("give them different ones, also on different interfaces: the MAC is made from it"),
            );
        }
        seen.push((is_v4, id, mac.span.clone()));
    }
}
