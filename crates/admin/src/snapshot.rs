//! What is known of the node at one moment: the supervisor's word, and the documents of the other processes.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relais_config::plan::{Node, Plan};
use relais_ipc::Role;
use relais_ipc::status::{NodeStatus, ProcessStatus, ProxyStatus, VipsStatus, fetch_async};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A process that does not tell its status within this time is said not to answer.
const LIMIT: Duration = Duration::from_millis(500);

/// Where snapshots come from.
#[derive(Debug, Default)]
pub(crate) struct Source(Mutex<Known>);

#[derive(Clone, Debug, Default)]
struct Known {
    run_dir: PathBuf,
    node: NodeStatus,
    names: BTreeMap<IpAddr, String>,
}

/// The node at one moment. Serialized, it is the `/status` document.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Snapshot {
    /// When it was taken, seconds since 1970.
    pub(crate) time_s: u64,
    /// What an operator should look at, most urgent first; empty if all is well.
    pub(crate) attention: Vec<String>,
    /// The supervisor's word.
    pub(crate) node: NodeStatus,
    /// Which node has which address, so that a holder can be named.
    pub(crate) names: BTreeMap<IpAddr, String>,
    /// When each process that lives was started, seconds since 1970.
    pub(crate) started_s: Vec<(Role, u64)>,
    /// The data plane; `None` if it does not answer.
    pub(crate) proxy: Option<ProxyStatus>,
    /// The virtual addresses; `None` if their process does not answer.
    pub(crate) vips: Option<VipsStatus>,
    /// Why a document is missing.
    pub(crate) missing: Vec<Missing>,
}

/// A process that did not tell its status.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Missing {
    /// Which.
    pub(crate) role: Role,
    /// Why, in a few words.
    pub(crate) why: String,
}

impl Source {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner) // no lock is held across anything that can panic
    }

    /// The node's name and its run directory.
    pub(crate) fn hello(&self, node: String, run_dir: PathBuf) {
        let mut known = self.known();
        known.node.node = node;
        known.run_dir = run_dir;
    }

    /// The supervisor's word on the node.
    pub(crate) fn node_is(&self, node: NodeStatus) {
        self.known().node = node;
    }

    /// The plan in force, of which only the nodes' addresses are of use here.
    pub(crate) fn plan_is(&self, plan: &Plan) {
        let links =
            |node: &Node| node.links.iter().map(|link| (*link, node.name.to_string())).collect::<Vec<_>>();
        self.known().names = plan.nodes.iter().flat_map(links).collect();
    }

    /// The supervisor's last word.
    pub(crate) fn node(&self) -> NodeStatus {
        self.known().node.clone()
    }

    /// Asks every process, at most for [`LIMIT`].
    pub(crate) async fn snapshot(&self) -> Snapshot {
        let Known { run_dir, node, names } = self.known().clone();
        let (proxy, vips) = tokio::join!(ask(&run_dir, Role::Proxy, &node), ask(&run_dir, Role::Vip, &node));
        let missing = [proxy.as_ref().err(), vips.as_ref().err()].into_iter().flatten().cloned().collect();
        let started_s = node.processes.iter().filter_map(|p| Some((p.role, started_s(p)?))).collect();
        let mut snapshot = Snapshot {
            time_s: now_s(),
            attention: Vec::new(),
            names,
            started_s,
            proxy: proxy.ok(),
            vips: vips.ok(),
            missing,
            node,
        };
        snapshot.attention = crate::attention::attention(&snapshot);
        snapshot
    }
}

impl Snapshot {
    /// When the process of this role was started, seconds since 1970.
    pub(crate) fn started_s(&self, role: Role) -> Option<u64> {
        self.started_s.iter().find(|(r, _)| *r == role).map(|(_, started)| *started)
    }

    /// Why the process of this role does not tell its status; `None` if it does.
    pub(crate) fn missing(&self, role: Role) -> Option<&str> {
        self.missing.iter().find(|missing| missing.role == role).map(|missing| &*missing.why)
    }
}

async fn ask<T: DeserializeOwned>(run_dir: &Path, role: Role, node: &NodeStatus) -> Result<T, Missing> {
    let path = run_dir.join(format!("{}.sock", role.name()));
    fetch_async(&path, LIMIT).await.map_err(|error| {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, TimedOut};
        let lives = node.processes.iter().any(|process| process.role == role && process.pid.is_some());
        let why = match error.kind() {
            // The supervisor keeps the socket open; without the process nobody answers on it.
            NotFound | ConnectionRefused | TimedOut if !lives => "is not running".to_owned(),
            TimedOut => format!("has not answered within {} ms", LIMIT.as_millis()),
            NotFound | ConnectionRefused => format!("does not listen on {}", path.display()),
            _ => format!("gave an answer that is not understood ({error})"),
        };
        Missing { role, why }
    })
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// When a process was started, from `/proc/PID/stat` (proc(5): field 22, clock ticks after the boot).
fn started_s(process: &ProcessStatus) -> Option<u64> {
    const TICKS_PER_SECOND: f64 = 100.0; // USER_HZ, fixed on every architecture that Linux shows to users
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", process.pid?)).ok()?;
    let uptime = std::fs::read_to_string("/proc/uptime").ok()?;
    // The name of the program, in parentheses, may hold spaces; after it comes field 3.
    let ticks: f64 = stat.rsplit_once(')')?.1.split_whitespace().nth(22 - 3)?.parse().ok()?;
    let uptime_s: f64 = uptime.split_whitespace().next()?.parse().ok()?;
    let age = Duration::try_from_secs_f64(uptime_s - ticks / TICKS_PER_SECOND).unwrap_or_default();
    Some(now_s().saturating_sub(age.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_age_of_a_process_is_read_from_the_kernel() {
        let me =
            ProcessStatus { role: Role::Control, pid: Some(std::process::id()), ready: true, restarts: 0 };
        let started = started_s(&me).unwrap();
        assert!((now_s() - 600..=now_s()).contains(&started), "{started}");
        assert_eq!(started_s(&ProcessStatus { pid: None, ..me }), None);
    }
}
