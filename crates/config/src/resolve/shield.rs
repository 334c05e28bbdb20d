//! `shield`: the waiting room of a frontend.

use std::sync::Arc;

use super::{Context, each, rules};
use crate::diagnostic::{Diagnostic, Severity};
use crate::item::Item;
use crate::plan::{Frontend, Shield};

/// The name of the secret that both balancers sign with.
pub(super) const KEY: &str = "cluster-key";

/// A frontend's waiting room; `None` within: it has none.
pub(super) fn shield(cx: &mut Context, frontend: &Item) -> Option<Option<Shield>> {
    let Some(item) = frontend.find("shield") else { return Some(None) };
    let except = item.children.iter().map(|child| Some(rules::condition(cx, child)?.is));
    let except = except.collect::<Option<Vec<_>>>()?;
    Some(Some(Shield {
        queue: item.get("queue")?,
        saturation: item.get("saturation")?,
        cpu: item.get("cpu")?,
        admit: item.get("admit"),
        refresh: item.get("refresh")?,
        session: item.get("session")?,
        page: item.get("page"),
        always: &*item.get::<Arc<str>>("when")? == "always",
        except,
        key: None, // `keys` gives it one
    }))
}

/// The file of the cluster's key.
pub(super) fn cluster_key(platform: &Item) -> Option<Arc<str>> {
    platform.each("secret").find(|secret| &*secret.name() == KEY)?.get("file")
}

/// Gives every waiting room, and session tickets, the cluster's key, and says where there is none.
pub(super) fn keys(cx: &mut Context, items: &[Item], platform: &Item, frontends: &mut [Frontend]) {
    let secret = platform.each("secret").find(|secret| &*secret.name() == KEY);
    let file = secret.and_then(|secret| secret.get::<Arc<str>>("file"));
    for item in each(items, "frontend").filter_map(|frontend| frontend.find("shield")) {
        match (secret, &file) {
            (_, Some(_)) => {}
            (Some(secret), None) => cx.diagnostics.push(
                Diagnostic::new(
                    Severity::Warning,
                    item.span.clone(),
                    "`shield` signs with a key of its own: it reads the cluster's key from a file only",
                )
                .related(secret.span.clone(), "this one is kept elsewhere")
                .help("write secret cluster-key file=\"/etc/relais/cluster.key\", the same on every node"),
            ),
            (None, None) => cx.diagnostics.push(
                Diagnostic::new(
                    Severity::Warning,
                    item.span.clone(),
                    "`shield` signs with a key that ends with the process: after a failover everybody is a newcomer",
                )
                .help("add to `platform`: secret cluster-key file=\"/etc/relais/cluster.key\", the same on every node"),
            ),
        }
    }
    let binds = frontends.iter_mut().flat_map(|frontend| &mut frontend.binds);
    for tls in binds.filter_map(|bind| bind.tls.as_mut()).map(Arc::make_mut) {
        // A file of its own comes first.
        tls.cluster_key = file.clone().filter(|_| tls.ticket_keys.is_none());
    }
    for shield in frontends.iter_mut().filter_map(|frontend| frontend.shield.as_mut()) {
        shield.key.clone_from(&file);
    }
}
