//! Who of a backend's servers gets the next request.

use std::sync::Arc;
use std::time::Duration;

use super::{BackendId, Frontend, Plan};

/// Who gets the next request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Each in turn, by weight, smoothly.
    RoundRobin,
    /// Each in turn, by weight, the heaviest first, as IPVS's `wrr` does.
    Wrr,
    /// Each in turn, in a rotation that never changes.
    StaticRr,
    /// The fewest connections for its weight; `ipvs`: those that are kept idle count a little.
    LeastConn {
        /// 256 times what is under way, and what is idle.
        ipvs: bool,
    },
    /// Shortest expected delay.
    Sed,
    /// Who has nothing to do, or the shortest expected delay.
    Nq,
    /// The first with a free place.
    First,
    /// The least loaded of so many that chance names.
    Random(u32),
    /// The least mean time for its weight.
    LeastTime,
    /// Where the hash of a key leads.
    Hash {
        /// What is hashed.
        key: HashKey,
        /// How the hash finds its server.
        table: HashType,
        /// The most that a server may have, in percent of an even share.
        balance_factor: Option<u32>,
    },
    /// Where the key was before, as long as it is well there.
    Locality {
        /// What belongs together.
        key: HashKey,
        /// A key may have several servers, one less when they did not change for so long.
        replicate: Option<Duration>,
    },
}

impl Balance {
    /// What is hashed.
    pub fn key(&self) -> Option<&HashKey> {
        match self {
            Balance::Hash { key, .. } | Balance::Locality { key, .. } => Some(key),
            _ => None,
        }
    }
}

/// What of a request is hashed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The client's address.
    Source,
    /// The address that it came to.
    Destination,
    /// The path.
    Uri {
        /// The query too.
        whole: bool,
        /// So many bytes of it.
        len: Option<u32>,
        /// So many directories of it.
        depth: Option<u32>,
    },
    /// A header of this name.
    Header(Arc<str>),
    /// A parameter of the query.
    Query(Arc<str>),
    /// A cookie.
    Cookie(Arc<str>),
}

impl HashKey {
    /// Whether it is there before there is a request.
    pub fn is_of_connection(&self) -> bool {
        matches!(self, HashKey::Source | HashKey::Destination)
    }
}

/// How a hash finds its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HashType {
    /// Points on a circle.
    Consistent,
    /// As many slots as weight.
    Map,
    /// A table of preferences.
    Maglev,
}

impl Plan {
    /// With how many requests at its servers and in its queue a backend is full: what its file says, or a tenth of the
    /// connections of the frontends that may lead there, at least 1.
    pub fn full_connections(&self, id: BackendId) -> u32 {
        let said = self.backends.get(usize::from(id.0)).and_then(|backend| backend.full_connections);
        let leads = |front: &&Frontend| {
            front.default_backend == Some(id)
                || front.rules.iter().any(|rule| rule.has_map() || rule.backends().any(|to| to == id))
        };
        let sum =
            || self.frontends.iter().filter(leads).map(|front| u64::from(front.max_connections)).sum::<u64>();
        said.unwrap_or_else(|| u32::try_from(sum() / 10).unwrap_or(u32::MAX).max(1))
    }
}
