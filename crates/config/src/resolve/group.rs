//! `sync-group`: vips that one node holds together. Called by `resolve`, after the vips themselves.

use std::sync::Arc;

use super::{Context, each};
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::{NodeId, Track, Vip};

/// Says what would part the vips of a group, and has each track what any of them tracks: their elections must end alike.
pub(super) fn settle(cx: &mut Context, items: &[Item], vips: &mut [Option<Vip>]) {
    let lines: Vec<Option<&Item>> = each(items, "vip").map(|item| item.find("sync-group")).collect();
    let known = |vip: &Option<Vip>| vip.as_ref().and_then(|vip| vip.sync_group.clone());
    let groups: Vec<Option<Arc<str>>> = vips.iter().map(known).collect();
    for (i, line) in lines.iter().enumerate() {
        let (Some(line), Some(group), Some(vip)) = (line, &groups[i], &vips[i]) else { continue };
        let first = groups.iter().position(|other| other.as_ref() == Some(group)).filter(|first| *first != i);
        let Some((Some(other), Some(before))) = first.map(|first| (&vips[first], lines[first])) else {
            if groups.iter().filter(|other| other.as_ref() == Some(group)).count() == 1 {
                let alone = format!("vip `{}` is alone in sync-group `{group}`", vip.name);
                let help = "write the same name in another vip, or take the line out";
                cx.error(Diagnostic::error(line.span.clone(), alone).help(help));
            }
            continue;
        };
        if let Some(what) = difference(vip, other) {
            let message =
                format!("vips `{}` and `{}` of sync-group `{group}` have {what}", other.name, vip.name);
            cx.error(
                Diagnostic::error(line.span.clone(), message)
                    .related(before.span.clone(), "the other is here")
                    .help("give both the same nodes, preferred in the same order, and the same `preempt`"),
            );
        }
    }
    for group in groups.iter().flatten() {
        let members = || vips.iter().flatten().filter(|vip| vip.sync_group.as_ref() == Some(group));
        let mut all: Vec<Track> = Vec::new();
        for track in members().flat_map(|vip| &vip.track) {
            if !all.contains(track) {
                all.push(track.clone());
            }
        }
        for vip in vips.iter_mut().flatten().filter(|vip| vip.sync_group.as_ref() == Some(group)) {
            vip.track.clone_from(&all);
        }
    }
}

fn difference(a: &Vip, b: &Vip) -> Option<&'static str> {
    let ranked = |vip: &Vip| {
        let mut nodes: Vec<(u8, NodeId)> = vip.nodes.iter().map(|(id, priority)| (*priority, *id)).collect();
        nodes.sort_unstable_by_key(|(priority, _)| core::cmp::Reverse(*priority));
        nodes.into_iter().map(|(_, id)| id).collect::<Vec<_>>()
    };
    if ranked(a) != ranked(b) {
        return Some("different nodes, or prefer them in a different order");
    }
    let unlike = (a.preempt, a.preempt_delay) != (b.preempt, b.preempt_delay);
    unlike.then_some("a different `preempt`")
}
