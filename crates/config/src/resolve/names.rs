//! Names: what the file declares, once each, and what refers to them.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::advice::shorten;
use crate::diagnostic::{Diagnostic, Span};
use crate::item::{FromValue, Item};
use crate::nearest::nearest;
use crate::plan::{BackendId, FrontendId, NodeId};
use crate::table::{Kind, Type};

/// Every name that is unique in the whole file, by kind, with its place in the order of the file.
#[derive(Debug, Default)]
pub(crate) struct Names {
    by_kind: BTreeMap<Kind, Declared>,
}

/// The names of one kind.
#[derive(Debug, Default)]
struct Declared {
    by_name: BTreeMap<Arc<str>, (usize, Span)>,
    /// How many the file declares, also those whose name is no name or is given twice: the place of the
    /// next one, the same as in the plan's list.
    count: usize,
}

impl Names {
    /// Collects the names of a file. One given twice within its kind is an error.
    pub(crate) fn collect(items: &[Item], diagnostics: &mut Vec<Diagnostic>) -> Self {
        let mut names = Self::default();
        names.block(items, diagnostics);
        names.check_sites(diagnostics);
        names
    }

    fn block(&mut self, items: &[Item], diagnostics: &mut Vec<Diagnostic>) {
        let mut local: BTreeMap<Kind, Declared> = BTreeMap::new();
        for item in items {
            let kind = item.row.arguments.iter().find_map(|field| match field.kind {
                Type::Name(kind) => Some(kind),
                _ => None,
            });
            if let Some(kind) = kind {
                let names = if kind.is_local() { &mut local } else { &mut self.by_kind };
                names.entry(kind).or_default().declare(kind, item, diagnostics);
            }
            self.block(&item.children, diagnostics);
        }
    }

    /// A node of another site may not have the name of one of this site.
    fn check_sites(&self, diagnostics: &mut Vec<Diagnostic>) {
        for (name, (_, span)) in self.of_kind(Kind::SiteNode) {
            if let Some((_, before)) = self.find(Kind::Node, name) {
                diagnostics.push(
                    Diagnostic::error(span.clone(), format!("there are two nodes named `{name}`"))
                        .related(before.clone(), "this site has one")
                        .help("nodes of all sites have names of their own"),
                );
            }
        }
    }

    fn find(&self, kind: Kind, name: &str) -> Option<&(usize, Span)> {
        self.by_kind.get(&kind)?.by_name.get(name)
    }

    fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&Arc<str>, &(usize, Span))> {
        self.by_kind.get(&kind).into_iter().flat_map(|declared| &declared.by_name)
    }

    fn index(&self, kind: Kind, name: &str) -> Option<u16> {
        u16::try_from(self.find(kind, name)?.0).ok()
    }

    pub(crate) fn node(&self, name: &str) -> Option<NodeId> {
        self.index(Kind::Node, name).map(NodeId)
    }

    pub(crate) fn frontend(&self, name: &str) -> Option<FrontendId> {
        self.index(Kind::Frontend, name).map(FrontendId)
    }

    pub(crate) fn backend(&self, name: &str) -> Option<BackendId> {
        self.index(Kind::Backend, name).map(BackendId)
    }

    pub(crate) fn tomcat(&self, name: &str) -> Option<usize> {
        self.find(Kind::Tomcat, name).map(|(index, _)| *index)
    }

    /// Every reference to a name that is not there is an error.
    pub(crate) fn check_references(&self, items: &[Item], diagnostics: &mut Vec<Diagnostic>) {
        for item in items {
            for given in item.values() {
                let Type::Reference(kind) = given.field.kind else { continue };
                if let Some(name) = Arc::<str>::from_value(&given.value)
                    && self.find(kind, &name).is_none()
                {
                    diagnostics.push(self.missing(kind, &name, given.span.clone()));
                }
            }
            self.check_references(&item.children, diagnostics);
        }
    }

    fn missing(&self, kind: Kind, name: &str, span: Span) -> Diagnostic {
        let word = kind.name();
        let names: Vec<&str> = self.of_kind(kind).map(|(name, _)| &**name).collect();
        let elsewhere = kind == Kind::Node && self.find(Kind::SiteNode, name).is_some();
        let help = if elsewhere {
            format!("`{name}` is a node of another site; only nodes of this site can be named here")
        } else if let Some(near) = nearest(name, names.iter().copied()) {
            format!("did you mean `{near}`?")
        } else if names.is_empty() && kind == Kind::Secret {
            format!("declare it in `platform`: secret {name} file=\"/etc/relais/{name}\"")
        } else if names.is_empty() {
            format!("declare it: {word} {name} {{ ... }}")
        } else {
            format!("the file has: {}", shorten(&names.join(", ")))
        };
        Diagnostic::error(span, format!("there is no {word} named `{name}`")).help(help)
    }
}

impl Declared {
    fn declare(&mut self, kind: Kind, item: &Item, diagnostics: &mut Vec<Diagnostic>) {
        let (name, span, index) = (item.name(), item.name_span(), self.count);
        self.count += 1;
        if self.count - 1 == kind.most() {
            diagnostics.push(
                Diagnostic::error(
                    span.clone(),
                    format!("there are more than {} {}s", kind.most(), kind.name()),
                )
                .help("a platform of this size is better described in several files"),
            );
        }
        if name.is_empty() {
            return; // Reported.
        }
        match self.by_name.get(&name) {
            Some((_, before)) => diagnostics.push(
                Diagnostic::error(span, format!("there are two {}s named `{name}`", kind.name()))
                    .related(before.clone(), "the first is here")
                    .help("give one of them another name"),
            ),
            None => {
                self.by_name.insert(name, (index, span));
            }
        }
    }
}
