//! `track`: what a virtual address depends on.

use std::sync::Arc;
use std::time::Duration;

use super::{Context, each};
use crate::diagnostic::{Diagnostic, Span};
use crate::item::Item;
use crate::plan::{Backend, Frontend, Node, Script, Track, Tracked, Vip};

/// What belongs to one kind of line only.
const OF_BACKENDS: &[&str] = &["min"];
const OF_SCRIPTS: &[&str] = &["interval", "timeout", "rise", "fall"];
/// Fewer nodes have no majority without each of them.
const FEWEST_FOR_QUORUM: usize = 3;

/// One thing a line.
pub(super) fn tracked(cx: &mut Context, item: &Item) -> Option<Track> {
    let settings = ["weight"].iter().chain(OF_BACKENDS).chain(OF_SCRIPTS);
    let is_setting = |name: &str| settings.clone().any(|setting| *setting == name);
    let given = item.values().iter().filter(|given| !is_setting(given.field.name)).count();
    if given != 1 {
        cx.error(
            Diagnostic::error(item.span.clone(), format!("`track` names one thing a line, not {given}")).help(
                "write one of frontend=NAME, backend=NAME, link=INTERFACE, file=\"PATH\", script=\"PATH ARGUMENTS\", \
                 quorum=majority; another line for another",
            ),
        );
        return None;
    }
    for (settings, of) in [(OF_BACKENDS, "backend"), (OF_SCRIPTS, "script")] {
        for setting in settings.iter().filter(|setting| item.has(setting) && !item.has(of)) {
            let message = format!("`{setting}` belongs to `{of}`");
            cx.error(Diagnostic::error(item.span_of(setting), message).help("take it out"));
        }
    }
    let what = if let Some(name) = item.get::<Arc<str>>("frontend") {
        Tracked::Frontend(cx.names.frontend(&name)?)
    } else if let Some(name) = item.get::<Arc<str>>("backend") {
        Tracked::Backend { backend: cx.names.backend(&name)?, min: item.get("min").unwrap_or(1) }
    } else if let Some(link) = item.get("link") {
        Tracked::Link(link)
    } else if let Some(command) = item.get("script") {
        Tracked::Script(script(cx, item, command)?)
    } else if item.has("quorum") {
        Tracked::Quorum
    } else {
        Tracked::File(item.get("file")?)
    };
    let is_file = matches!(what, Tracked::File(_));
    let weight: i16 = item.get("weight").unwrap_or(is_file.into());
    if is_file && weight == 0 {
        cx.error(
            Diagnostic::error(item.span_of("weight"), "a file of weight 0 changes nothing")
                .help("its number is multiplied by the weight: leave it out for 1"),
        );
    }
    Some(Track { what, weight })
}

fn script(cx: &mut Context, item: &Item, command: Arc<str>) -> Option<Script> {
    if !command.starts_with('/') {
        cx.error(
            Diagnostic::error(item.span_of("script"), "a script is named by its absolute path")
                .help(format!("write where it is: script=\"/usr/local/bin/{command}\"")),
        );
        return None;
    }
    let interval = item.get("interval").unwrap_or(Duration::from_secs(2));
    Some(Script {
        command,
        interval,
        timeout: item.get("timeout").unwrap_or(interval),
        rise: item.get("rise").unwrap_or(1),
        fall: item.get("fall").unwrap_or(1),
    })
}

/// What only the whole file tells of the lines.
pub(super) fn check(
    cx: &mut Context,
    items: &[Item],
    nodes: &[Option<Node>],
    vips: &[Option<Vip>],
    (frontends, backends): (&[Option<Frontend>], &[Option<Backend>]),
    has_key: bool,
) {
    check_frontends(cx, items, nodes, vips, frontends);
    let mut scripts: Vec<(Script, Span)> = Vec::new();
    for line in each(items, "vip").flat_map(|item| item.each("track")) {
        check_backend(cx, line, backends);
        check_quorum(cx, line, nodes.len(), has_key);
        let command = line.get::<Arc<str>>("script").filter(|command| command.starts_with('/'));
        let Some(script) = command.and_then(|command| script(cx, line, command)) else { continue };
        let same = |(known, _): &&(Script, Span)| known.command == script.command;
        if let Some((known, before)) = scripts.iter().find(same) {
            if *known != script {
                cx.error(
                    Diagnostic::error(
                        line.span_of("script"),
                        "this script is tracked twice, in different ways",
                    )
                    .related(before.clone(), "the other is here")
                    .help("it runs once for all: give both lines the same interval, timeout, rise and fall"),
                );
            }
            continue;
        }
        scripts.push((script, line.span_of("script")));
    }
}

fn check_backend(cx: &mut Context, line: &Item, backends: &[Option<Backend>]) {
    let Some(name) = line.get::<Arc<str>>("backend") else { return };
    let min: u16 = line.get("min").unwrap_or(1);
    let Some(Some(backend)) = cx.names.backend(&name).and_then(|id| backends.get(usize::from(id.0))) else {
        return;
    };
    if usize::from(min) > backend.servers.len() {
        let message =
            format!("backend `{name}` has {} servers, so it can never have {min}", backend.servers.len());
        cx.error(Diagnostic::error(line.span_of("min"), message).help("lower `min`, or add servers"));
    } else if backend.check.is_none() {
        let message = format!("backend `{name}` checks nobody, so its servers always count as well");
        cx.error(
            Diagnostic::error(line.span_of("backend"), message)
                .help(format!("write a `check` into backend `{name}`, or take the line out")),
        );
    }
}

fn check_quorum(cx: &mut Context, line: &Item, nodes: usize, has_key: bool) {
    if !line.has("quorum") {
        return;
    }
    let span = line.span_of("quorum");
    if !has_key {
        cx.error(
            Diagnostic::error(
                span,
                "a majority is known by heartbeats, and without a cluster-key there are none",
            )
            .help("write `secret cluster-key file=\"PATH\"` into the platform"),
        );
    } else if nodes < FEWEST_FOR_QUORUM {
        let message = format!("of {nodes} nodes every one is needed for a majority");
        cx.error(Diagnostic::error(span, message).help(
            "the death of any would take the address away: add a third node, which need not hold anything",
        ));
    }
}

/// A node can hold the address only if what is tracked runs there.
fn check_frontends(
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
