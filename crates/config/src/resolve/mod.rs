//! Typed directives to a [`Plan`]: names become indexes, sections become what runs.
//!
//! Everything that takes more than one directive to see is found here: names given twice, references
//! to nothing, listeners in each other's way, a frontend that leads nowhere. A function returns `None`
//! for a section that cannot be resolved because of an error that has been reported; there is a plan
//! only if nothing was.

mod back;
mod balance;
mod check;
mod compression;
mod datagrams;
mod forward;
mod front;
mod group;
mod listeners;
mod logs;
mod marks;
mod names;
mod pages;
mod partition;
mod peers;
mod pending;
mod persist;
mod rules;
mod shield;
mod tiers;
mod track;
mod vip;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::diagnostic::{Diagnostic, Severity, Span};
use crate::item::{FromValue, Item};
use crate::plan::{Mode, Node, NodeId, Plan};
use crate::table::{Kind, Type};

pub(crate) use names::Names;

/// A file that the platform's file names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NamedFile {
    pub(crate) path: PathBuf,
    pub(crate) span: Span,
    pub(crate) directive: String,
    /// Whether this build acts on the directive, so that `run` needs the file.
    pub(crate) needed: bool,
    /// What of a request its lines are compared with, and whether they name backends, too.
    pub(crate) lines: Option<(relais_rules::What, bool)>,
}

impl NamedFile {
    /// Whether its lines can be read, if it has lines.
    pub(crate) fn read(&self, plan: &Plan) -> Result<(), String> {
        match &self.lines {
            None => Ok(()),
            Some((what, false)) => crate::lists::list(&self.path, what).map(drop),
            Some((what, true)) => {
                let known = |name: &str| plan.backends.iter().find(|backend| &*backend.name == name);
                crate::lists::map(&self.path, what, known).map(drop)
            }
        }
    }

    /// What `check` says where the file is missing.
    pub(crate) fn note(&self) -> Diagnostic {
        let message = format!("{} is not on this machine", self.path.display());
        let help = if self.needed {
            "`relais run` needs it on the nodes that use it"
        } else {
            "the nodes that use it will need it"
        };
        Diagnostic::new(Severity::Note, self.span.clone(), message).help(help)
    }
}

impl NamedFile {
    /// What `check` says of an error page that is here and could not be used.
    pub(crate) fn unfit(&self) -> Option<Diagnostic> {
        if self.directive != "error-page" {
            return None;
        }
        let why = read_error_page(&self.path).err().filter(|_| self.path.exists())?;
        Some(Diagnostic::error(self.span.clone(), why).help("an error page is a text file of at most 64 KiB"))
    }
}

/// The text of an error page.
///
/// # Errors
/// One sentence: it cannot be read, is too long, or is not UTF-8.
pub fn read_error_page(path: &std::path::Path) -> Result<String, String> {
    use std::io::Read;
    let shown = path.display();
    // Opened without waiting: a pipe in its place must not hold whoever reads it.
    let kind = std::fs::metadata(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if !kind.is_file() {
        return Err(format!("{shown} is not a file"));
    }
    let file = std::fs::File::open(path).map_err(|error| format!("{shown} cannot be read: {error}"))?;
    let (mut bytes, most) = (Vec::new(), crate::plan::ERROR_PAGE_BYTES);
    let read = file.take(most + 1).read_to_end(&mut bytes);
    read.map_err(|error| format!("{shown} cannot be read: {error}"))?;
    if bytes.len() as u64 > most {
        return Err(format!("{shown} is longer than 64 KiB"));
    }
    String::from_utf8(bytes).map_err(|_| format!("{shown} is not UTF-8"))
}

/// What the sections are resolved with.
struct Context<'a> {
    names: &'a Names,
    diagnostics: &'a mut Vec<Diagnostic>,
    /// Whether every link of every node could be read: only then is an address nobody's.
    links_known: bool,
}

impl Context<'_> {
    fn error(&mut self, diagnostic: Diagnostic) {
        self.diagnostics.push(diagnostic);
    }

    fn warn(&mut self, span: Span, message: String, help: &str) {
        self.diagnostics.push(Diagnostic::new(Severity::Warning, span, message).help(help));
    }

    /// The nodes that an `on` names, each once; `None` if there is no `on`.
    fn on(&mut self, item: &Item) -> Option<Vec<NodeId>> {
        let on = item.find("on")?;
        let mut nodes: Vec<(NodeId, Span)> = Vec::new();
        for (name, span) in on.all::<Arc<str>>("node") {
            let Some(id) = self.names.node(&name) else { continue };
            match nodes.iter().find(|(other, _)| *other == id) {
                Some((_, before)) => self.diagnostics.push(
                    Diagnostic::error(span, format!("`{name}` is named twice in one `on`"))
                        .related(before.clone(), "first named here")
                        .help("keep one of them"),
                ),
                None => nodes.push((id, span)),
            }
        }
        Some(nodes.into_iter().map(|(id, _)| id).collect())
    }

    /// An `on` where one has to be.
    fn required_on(&mut self, item: &Item) -> Vec<NodeId> {
        let on = self.on(item);
        if !item.says("on") {
            let (kind, name) = (item.row.name, item.name());
            self.error(
                Diagnostic::error(
                    item.span.clone(),
                    format!("{kind} `{name}` has no `on`: nothing says where it runs").replace(" ``", ""),
                )
                .help("add the nodes that run it: on NODE NODE"),
            );
        }
        on.unwrap_or_default()
    }
}

/// What a file comes to.
pub(crate) struct Resolved {
    pub(crate) plan: Option<Plan>,
    pub(crate) files: Vec<NamedFile>,
    /// What remains possible although nothing is wrong: `check` says it.
    pub(crate) risks: Vec<Diagnostic>,
}

/// Resolves a whole file; errors go to `diagnostics`.
pub(crate) fn resolve(items: &[Item], diagnostics: &mut Vec<Diagnostic>) -> Resolved {
    let names = Names::collect(items, diagnostics);
    names.check_references(items, diagnostics);
    let mut cx = Context { names: &names, diagnostics, links_known: true };
    let mut risks = Vec::new();
    let plan = plan(&mut cx, items, &mut risks);
    let mut files = Vec::new();
    for item in items {
        named_files(item, &mut files);
    }
    Resolved { plan, files, risks }
}

fn each<'a>(items: &'a [Item], name: &'static str) -> impl Iterator<Item = &'a Item> {
    items.iter().filter(move |item| item.row.name == name)
}

fn plan(cx: &mut Context, items: &[Item], risks: &mut Vec<Diagnostic>) -> Option<Plan> {
    let nodes = nodes(cx, items);
    let tomcats = tiers::tomcats(cx, items);
    let mut vips = vip::vips(cx, items, &nodes);
    group::settle(cx, items, &mut vips);
    let backends = back::backends(cx, items, &nodes, &tomcats);
    let frontends = front::frontends(cx, items, &nodes, &vips, &backends);
    partition::check_unicast(cx, items, &nodes, &vips);
    partition::unlike(cx, items, "node");
    partition::unlike(cx, items, "vip");
    let has_key = each(items, "platform").any(|platform| shield::cluster_key(platform).is_some());
    track::check(cx, items, &nodes, &vips, (&frontends, &backends), has_key);
    *risks = partition::risks(items, &nodes, &vips, has_key);
    tiers::check_others(cx, items);
    let platform = each(items, "platform").next()?;
    secrets(cx, platform);
    listeners::check(cx, items, platform, &nodes, &frontends, &tomcats);
    let admin = platform.setting("admin").get("address")?;
    let mut frontends = all(frontends)?;
    let common = pages::error_pages(cx, platform);
    for frontend in frontends.iter_mut().filter(|f| f.mode == Mode::Http) {
        frontend.error_pages.extend(common.iter().cloned());
    }
    shield::keys(cx, items, platform, &mut frontends);
    let cluster_key = shield::cluster_key(platform);
    let logs = logs::logs(cx, items, platform, &mut frontends)?;
    let nodes = all(nodes)?;
    let peers = peers::peers(cx, items, platform, &nodes, &frontends);
    Some(Plan {
        platform: platform.name(),
        admin,
        logs,
        user: platform.setting("user").get("name")?,
        drain: platform.setting("drain").get::<Duration>("time")?,
        cluster_key,
        peers,
        max_connections: platform.find("max-connections").and_then(|m| m.get("number")),
        hard_stop_after: platform.setting("hard-stop-after").get::<Duration>("time")?,
        nodes,
        vips: all(vips)?,
        frontends,
        backends: all(backends)?,
        tomcats: all(tomcats)?,
        pending: pending::pending(items),
    })
}

fn all<T>(sections: Vec<Option<T>>) -> Option<Vec<T>> {
    sections.into_iter().collect()
}

fn nodes(cx: &mut Context, items: &[Item]) -> Vec<Option<Node>> {
    let mut seen: Vec<(std::net::IpAddr, Span)> = Vec::new();
    let mut nodes = Vec::new();
    let site_nodes = each(items, "site").flat_map(|site| site.each("node"));
    for (index, item) in each(items, "node").chain(site_nodes).enumerate() {
        let mut links = Vec::new();
        for link in item.each("link") {
            let Some(address) = link.get::<std::net::IpAddr>("address") else {
                cx.links_known = false;
                continue;
            };
            let span = link.span_of("address");
            if address.is_unspecified() || address.is_multicast() {
                cx.error(
                    Diagnostic::error(
                        span.clone(),
                        format!("{address} is no address that a machine can have"),
                    )
                    .help("write the node's own address on that network"),
                );
            }
            match seen.iter().find(|(other, _)| *other == address) {
                Some((_, before)) => cx.error(
                    Diagnostic::error(span, format!("{address} is given twice"))
                        .related(before.clone(), "first given here")
                        .help("every link of every node has an address of its own"),
                ),
                None => seen.push((address, span)),
            }
            links.push(address);
        }
        if index < each(items, "node").count() {
            nodes.push(Some(Node { name: item.name(), links }));
        }
    }
    nodes
}

fn secrets(cx: &mut Context, platform: &Item) {
    for item in platform.each("secret") {
        let places: Vec<_> = item
            .values()
            .iter()
            .filter(|given| !matches!(given.field.kind, Type::Name(Kind::Secret)))
            .collect();
        match places.as_slice() {
            [_] => {}
            [] => cx.error(
                Diagnostic::error(
                    item.span.clone(),
                    format!("secret `{}` does not say where it is kept", item.name()),
                )
                .help("add one of file=\"/PATH\", credential=NAME and environment=NAME"),
            ),
            [first, second, ..] => cx.error(
                Diagnostic::error(
                    second.span.clone(),
                    format!("secret `{}` is kept in two places", item.name()),
                )
                .related(first.span.clone(), "first given here")
                .help("keep one of them"),
            ),
        }
    }
}

fn named_files(item: &Item, files: &mut Vec<NamedFile>) {
    for given in item.values().iter().filter(|given| given.field.kind == Type::File) {
        if let Some(path) = Arc::<str>::from_value(&given.value) {
            let (span, directive) = (given.span.clone(), item.row.title());
            let lines = match given.field.name {
                "list" => rules::what(item).map(|what| (what, false)),
                "map" => rules::key(item).map(|what| (what, true)),
                _ => None,
            };
            let path = PathBuf::from(&*path);
            files.push(NamedFile { path, span, directive, needed: item.row.acts(), lines });
        }
    }
    for child in &item.children {
        named_files(child, files);
    }
}
