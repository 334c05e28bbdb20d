//! Certificates, keys and what else the plan names that only root may read: read here, looked at by the proxy alone.
//! They are followed: what has changed on the disk, and then stayed as it is for one look, is read anew.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use relais_config::plan::{NodeId, Plan};
use relais_ipc::files::{Files, MAX_BYTES};
use relais_ipc::{Order, Role};
use tracing::error;

use super::Supervisor;

/// Time between two looks.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Longest file, bytes.
const LONGEST: u64 = 4 * 1024 * 1024;

/// What tells a file from its successor: device, inode, size, and when it was written and renamed, in nanoseconds.
type Signature = (u64, u64, u64, i64, i64);

/// The files of one edition of the plan.
#[derive(Debug)]
pub(super) struct Secrets {
    /// What the proxy uses, and its successor will get.
    pub(super) fd: OwnedFd,
    /// What it was offered since, and has not judged yet.
    offered: Option<OwnedFd>,
    /// As they were when they were read.
    read: BTreeMap<String, Option<Signature>>,
    /// As they were at the last look, where that is something else.
    changing: Option<BTreeMap<String, Option<Signature>>>,
}

impl Secrets {
    /// Reads what `node` needs; `None` if that is nothing. A file that cannot be read is for the proxy to complain of.
    pub(super) fn read(plan: &Plan, node: NodeId) -> Result<Option<Secrets>, String> {
        let read = signatures(plan, node);
        if read.is_empty() {
            return Ok(None);
        }
        let mut files = Files::default();
        let mut total = 0;
        for (path, signature) in &read {
            let contents = read_file(path);
            total += contents.as_ref().map_or(0, |bytes| bytes.len() as u64);
            if total > MAX_BYTES {
                return Err(format!("the plan's certificates are more than {} MiB", MAX_BYTES >> 20));
            }
            // Beside a certificate there may be an OCSP response, or none.
            if signature.is_some() || !path.ends_with(".ocsp") {
                files.insert(path, contents);
            }
        }
        let fd = files.to_fd().map_err(|error| format!("the plan's certificates cannot be held: {error}"))?;
        Ok(Some(Secrets { fd, offered: None, read, changing: None }))
    }
}

/// What is there of the files that these nodes need, and why the others are not.
pub(crate) fn read_now(plan: &Plan, nodes: impl Iterator<Item = NodeId>) -> Files {
    let mut files = Files::default();
    for node in nodes {
        for (path, signature) in signatures(plan, node) {
            if signature.is_some() || !path.ends_with(".ocsp") {
                files.insert(&path, read_file(&path));
            }
        }
    }
    files
}

/// Every file that is needed, as it is now; directories as what is in them.
fn signatures(plan: &Plan, node: NodeId) -> BTreeMap<String, Option<Signature>> {
    let mut paths: Vec<String> = plan.files_on(node).iter().map(ToString::to_string).collect();
    for directory in plan.directories_on(node) {
        let entries = fs::read_dir(&*directory).into_iter().flatten().flatten();
        let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
        let wanted = names.filter(|name| name.ends_with(".pem") || name.ends_with(".pem.ocsp"));
        paths.extend(wanted.map(|name| format!("{}/{name}", directory.trim_end_matches('/'))));
    }
    let signature = |path: &str| {
        let data = fs::metadata(&*place(path)).ok()?;
        let written = data.mtime().saturating_mul(1_000_000_000).saturating_add(data.mtime_nsec());
        let changed = data.ctime().saturating_mul(1_000_000_000).saturating_add(data.ctime_nsec());
        Some((data.dev(), data.ino(), data.size(), written, changed))
    };
    paths.into_iter().map(|path| (path.clone(), signature(&path))).collect()
}

/// Where something is that a plan names: a path, or `credential:NAME` of systemd.
fn place(name: &str) -> std::borrow::Cow<'_, str> {
    match name.strip_prefix("credential:") {
        Some(credential) => {
            let directory =
                std::env::var("CREDENTIALS_DIRECTORY").unwrap_or_else(|_| "/nonexistent".to_owned());
            format!("{directory}/{credential}").into()
        }
        None => name.into(),
    }
}

fn read_file(path: &str) -> Result<Vec<u8>, String> {
    if let Some(variable) = path.strip_prefix("environment:") {
        let value = std::env::var_os(variable);
        let bytes = value.map(std::os::unix::ffi::OsStringExt::into_vec);
        return bytes.ok_or_else(|| "this environment variable is not set".to_owned());
    }
    let path = &*place(path);
    let file = fs::File::open(Path::new(path)).map_err(|error| error.to_string())?;
    if !file.metadata().is_ok_and(|data| data.is_file()) {
        return Err("it is not a file".to_owned());
    }
    let mut bytes = Vec::new();
    file.take(LONGEST + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > LONGEST {
        return Err(format!("it is longer than {} MiB", LONGEST >> 20));
    }
    Ok(bytes)
}

/// The files of `after`, with those of `kept` as they are in `before`.
fn merge(before: &OwnedFd, after: OwnedFd, kept: &[String]) -> std::io::Result<OwnedFd> {
    if kept.is_empty() {
        return Ok(after);
    }
    let (before, mut files) = (Files::from_fd(before.try_clone()?)?, Files::from_fd(after)?);
    for path in kept {
        files.take_from(&before, path);
    }
    files.to_fd()
}

impl Supervisor {
    /// Has the proxy use files that have changed. Not while a plan is on its way, which brings them anyway.
    pub(super) async fn follow_files(&mut self) {
        if self.applying.is_some() || self.stopping.is_some() {
            return;
        }
        let edition = &mut self.current;
        let Some(secrets) = &mut edition.secrets else { return };
        let now = signatures(&edition.plan, edition.node);
        if now == secrets.read {
            secrets.changing = None;
            return;
        }
        if secrets.changing.as_ref() != Some(&now) {
            secrets.changing = Some(now); // perhaps somebody is still writing
            return;
        }
        match Secrets::read(&edition.plan, edition.node) {
            Ok(Some(fresh)) => {
                (secrets.read, secrets.changing, secrets.offered) = (fresh.read, None, Some(fresh.fd));
            }
            Ok(None) => return,
            Err(why) => {
                secrets.read = now;
                return error!("files changed, but what was read before stays in use: {why}");
            }
        }
        if let Some(offered) = self.current.secrets.as_ref().and_then(|secrets| secrets.offered.as_ref()) {
            let order = Order::Files { renew: true };
            self.child(Role::Proxy).order(&order, Some(offered.as_fd())).await;
        }
    }

    /// The proxy has judged what it was offered. Until then, and if it is of no use, a new proxy gets what was good.
    /// `kept`: paths for which it stays with the contents before.
    pub(super) fn on_files(&mut self, used: bool, kept: &[String]) {
        if let Some(secrets) = &mut self.current.secrets
            && let Some(offered) = secrets.offered.take()
            && used
        {
            match merge(&secrets.fd, offered, kept) {
                Ok(fd) => secrets.fd = fd,
                Err(why) => error!("files changed, but a new proxy would get what was read before: {why}"),
            }
        }
    }

    /// Gives the proxy the files of a plan that follows.
    pub(super) async fn send_files(&self, secrets: &Secrets) {
        let order = Order::Files { renew: false };
        self.child(Role::Proxy).order(&order, Some(secrets.fd.as_fd())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_from_where_the_file_says() {
        let home = std::env::var("PATH").unwrap();
        assert_eq!(read_file("environment:PATH").unwrap(), home.as_bytes());
        assert_eq!(read_file("environment:RELAIS_NO").unwrap_err(), "this environment variable is not set");
        assert!(place("credential:db").ends_with("/db"));
        let path = std::env::temp_dir().join(format!("relais-secret-{}", std::process::id()));
        fs::write(&path, "word\n").unwrap();
        assert_eq!(read_file(path.to_str().unwrap()).unwrap(), b"word\n");
        fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_read_or_is_too_long_is_said() {
        assert!(read_file("/nonexistent/relais.pem").unwrap_err().contains("No such file"));
        assert_eq!(read_file("/proc").unwrap_err(), "it is not a file");
        let path = std::env::temp_dir().join(format!("relais-long-{}", std::process::id()));
        fs::File::create(&path).unwrap().set_len(LONGEST + 1).unwrap();
        let why = read_file(path.to_str().unwrap());
        fs::remove_file(&path).unwrap();
        assert_eq!(why.unwrap_err(), "it is longer than 4 MiB");
    }
}
