//! The backends that addresses depend on: which of them have as many well servers as they must. Pure; called by `lib`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use relais_config::Plan;
use relais_config::plan::{Admin, NodeId, Tracked};

use crate::engine;

/// A backend, as one address or several depend on it.
#[derive(Debug)]
struct Wanted {
    /// What the core calls it.
    what: String,
    name: Arc<str>,
    min: usize,
    /// Those that operators have not put down.
    servers: Vec<Arc<str>>,
    /// What was said last.
    said: Option<bool>,
}

/// See the module's documentation.
#[derive(Debug, Default)]
pub(crate) struct Backends {
    wanted: Vec<Wanted>,
    /// By backend and server. One that no check has spoken of is well.
    health: HashMap<(String, String), bool>,
}

impl Backends {
    /// A plan, with the operators' words in it.
    pub(crate) fn plan(&mut self, plan: &Plan, node: NodeId) {
        let mut wanted = BTreeSet::new();
        for track in plan.vips_on(node).flat_map(|(_, vip, _)| &vip.track) {
            if let Tracked::Backend { backend, min } = track.what {
                wanted.insert((backend, min));
            }
        }
        let wanted = wanted.into_iter().map(|(backend, min)| {
            let backend = &plan.backends[usize::from(backend.0)];
            let there = backend.servers.iter().filter(|server| server.admin != Admin::Down);
            Wanted {
                what: engine::backend(&backend.name, min),
                name: backend.name.clone(),
                min: min.into(),
                servers: there.map(|server| server.name.clone()).collect(),
                said: None,
            }
        });
        self.wanted = wanted.collect();
        let exists = |backend: &str, server: &str| {
            let mut backends = plan.backends.iter().filter(|known| *known.name == *backend);
            backends.any(|known| known.servers.iter().any(|known| *known.name == *server))
        };
        self.health.retain(|(backend, server), _| exists(backend, server));
    }

    /// What a check says of a server.
    pub(crate) fn server(&mut self, backend: &str, server: &str, up: bool) {
        self.health.insert((backend.to_owned(), server.to_owned()), up);
    }

    /// What has to be said: the core's name of a backend, and whether it has its servers.
    pub(crate) fn changes(&mut self) -> Vec<(String, bool)> {
        let mut changes = Vec::new();
        for Wanted { what, name, min, servers, said } in &mut self.wanted {
            let is_well = |server: &&Arc<str>| {
                self.health.get(&(name.to_string(), server.to_string())).copied().unwrap_or(true)
            };
            let up = servers.iter().filter(is_well).count() >= *min;
            if said.replace(up) != Some(up) {
                changes.push((what.clone(), up));
            }
        }
        changes
    }
}
