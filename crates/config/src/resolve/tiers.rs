//! The tiers: Tomcats, which servers are made of, and what the other sections need to make sense.

use super::{Context, each};
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::Tomcat;

pub(super) fn tomcats(cx: &mut Context, items: &[Item]) -> Vec<Option<Tomcat>> {
    each(items, "tomcat").map(|item| tomcat(cx, item)).collect()
}

fn tomcat(cx: &mut Context, item: &Item) -> Option<Tomcat> {
    let nodes = cx.required_on(item);
    let instances_item = item.setting("instances");
    let (instances, first_port): (Option<u16>, Option<u16>) =
        (instances_item.get("number"), instances_item.get("first-port"));
    let (instances, first_port) = (instances?, first_port?);
    if let Some(heap) = item.find("heap")
        && let (Some(min), Some(max)) = (heap.get::<u64>("min"), heap.get::<u64>("max"))
        && min > max
    {
        cx.error(
            Diagnostic::error(heap.span_of("min"), "the heap's `min` is above its `max`")
                .related(heap.span_of("max"), "`max` is here")
                .help("swap them"),
        );
    }
    if first_port.checked_add(instances - 1).is_none() {
        cx.error(
            Diagnostic::error(
                instances_item.span_of("first-port"),
                format!("{instances} ports from {first_port} on go beyond 65535"),
            )
            .help(format!("write first-port={}", u16::MAX - (instances - 1))),
        );
        return None;
    }
    Some(Tomcat { name: item.name(), nodes, instances, first_port })
}

/// Sections whose engines come later: what they lack is said now.
pub(super) fn check_others(cx: &mut Context, items: &[Item]) {
    for item in items {
        match item.row.name {
            "galera" | "resource" => {
                cx.required_on(item);
            }
            "gluster" => {
                cx.required_on(item);
                for mount in item.each("mount") {
                    cx.required_on(mount);
                }
            }
            "alert" if !item.says("smtp") && !item.says("webhook") => cx.error(
                Diagnostic::error(
                    item.span.clone(),
                    format!("alert `{}` reaches nobody: it has neither `smtp` nor `webhook`", item.name()),
                )
                .help("add for example: smtp to=\"name@www.example\" via=\"127.0.0.1:25\""),
            ),
            _ => {}
        }
    }
}
