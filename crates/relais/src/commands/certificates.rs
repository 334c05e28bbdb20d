//! What `relais check` says of the certificates and keys that a plan names, where this machine has them.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use relais_config::plan::{NodeId, Plan};
use relais_config::{Remark, Severity};

use crate::supervisor::files::read_now;

/// `node`: this machine is that one, and has to have what it needs. Else a file that is not here may be elsewhere.
pub(crate) fn look(plan: &Plan, node: Option<NodeId>) -> Vec<Remark> {
    let nodes = (0..plan.nodes.len()).filter_map(|index| u16::try_from(index).ok()).map(NodeId);
    let nodes: Vec<NodeId> = nodes.filter(|id| node.is_none_or(|node| node == *id)).collect();
    let files = read_now(plan, nodes.iter().copied());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let found =
        relais_proxy::look_at_certificates(plan, node, &files, i64::try_from(now).unwrap_or(i64::MAX));
    let mut remarks: Vec<Remark> = found
        .into_iter()
        .map(|found| Remark {
            severity: match found.fault {
                // Without it the rest of its directory is served.
                true if found.directory.is_none() => Severity::Error,
                _ => Severity::Warning,
            },
            path: found.directory.as_deref().map_or_else(|| found.path.into(), PathBuf::from),
            missing: false,
            message: found.message,
            help: found.help.to_owned(),
        })
        .collect();
    let named = nodes.iter().flat_map(|node| plan.files_on(*node)).filter(|path| !path.ends_with(".ocsp"));
    let directories = nodes.iter().flat_map(|node| plan.directories_on(*node));
    let mut paths: Vec<_> = named.chain(directories).collect();
    paths.sort();
    paths.dedup();
    remarks.extend(paths.iter().filter_map(|path| unreadable(Path::new(&**path), node.is_some())));
    remarks
}

/// What to say of a file or directory that cannot be read.
fn unreadable(path: &Path, here: bool) -> Option<Remark> {
    let opened = match path.is_dir() {
        true => path.read_dir().map(drop),
        false => std::fs::File::open(path).map(drop),
    };
    let error = opened.err()?;
    let missing = error.kind() == ErrorKind::NotFound;
    let (severity, help) = match (missing, here) {
        (true, true) => (Severity::Error, "put it there: `relais run` of this node needs it"),
        (true, false) => return None, // a note says so already
        (false, true) => (Severity::Error, "run `relais check` as root, as `relais run` is"),
        (false, false) => (Severity::Warning, "run `relais check` as root to have it looked at"),
    };
    let message = format!("{} cannot be read: {error}", path.display());
    Some(Remark { path: path.to_owned(), severity, missing, message, help: help.to_owned() })
}
