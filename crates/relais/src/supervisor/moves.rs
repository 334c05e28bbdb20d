//! The operator's words of where addresses are to be: a node in standby, an address moved by hand. Root's commands say
//! them, vip does what they say, and what outlasts a process is kept here and in a file.
//!
//! The file is in systemd's state directory of the service, else in the run directory.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use relais_ipc::message::{Answer, Moved};
use relais_ipc::status::{Standby, Words};
use relais_ipc::{Channel, Order, Role, VipState};
use tracing::{info, warn};

use super::{Supervisor, answer};

/// Longest file that is read, bytes: some ten thousand addresses.
const MAX_FILE: u64 = 1024 * 1024;

/// What must be remembered, and where it is.
#[derive(Debug)]
pub(super) struct Kept {
    path: PathBuf,
    words: Words,
}

impl Kept {
    /// What the last process wrote. A file that cannot be read is nothing that was said.
    pub(super) fn read(run_dir: &Path) -> Kept {
        let state_dir = std::env::var_os("STATE_DIRECTORY").filter(|dir| !dir.is_empty());
        let path = state_dir.map_or_else(|| run_dir.to_owned(), PathBuf::from).join("moves.json");
        let words = match read(&path) {
            Ok(words) => words,
            Err(error) if error.kind() == io::ErrorKind::NotFound => Words::default(),
            Err(error) => {
                warn!(
                    "{} cannot be read ({error}): if this node was in standby, say `relais standby` again",
                    path.display()
                );
                Words::default()
            }
        };
        Kept { path, words }
    }

    pub(super) fn standby(&self) -> Option<&Standby> {
        self.words.standby.as_ref()
    }

    /// What an operator's move left at an address.
    pub(super) fn moved(&mut self, vip: String, moved: Option<Moved>) {
        let before = match moved {
            Some(moved) => self.words.moved.insert(vip, moved),
            None => self.words.moved.remove(&vip),
        };
        if before != moved
            && let Err(why) = self.write()
        {
            warn!("a restart of this node forgets where addresses were moved: {why}");
        }
    }

    fn write(&self) -> Result<(), String> {
        let failed = |error: io::Error| format!("{} cannot be written ({error})", self.path.display());
        if self.words.standby.is_none() && self.words.moved.is_empty() {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(error)),
                _ => Ok(()),
            };
        }
        let new = self.path.with_extension("new");
        let text = serde_json::to_vec(&self.words).map_err(|error| error.to_string())?;
        std::fs::write(&new, text).and_then(|()| std::fs::rename(&new, &self.path)).map_err(failed)
    }
}

fn read(path: &Path) -> io::Result<Words> {
    use std::io::Read;
    let mut text = String::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_string(&mut text)?;
    serde_json::from_str(&text).map_err(io::Error::other)
}

impl Supervisor {
    /// Tells a new vip the operator's words, before its plan.
    pub(super) async fn instruct_vip(&self) {
        let vip = self.child(Role::Vip);
        for (name, moved) in &self.kept.words.moved {
            vip.order(&Order::Moved { vip: name.clone(), moved: *moved }, None).await;
        }
        if self.kept.words.standby.is_some() {
            vip.order(&Order::Standby { on: true }, None).await;
        }
    }

    /// Why the operator's word cannot be taken now.
    fn why_no_move(&self) -> Option<String> {
        let why = match () {
            () if self.stopping.is_some() => "the node is being stopped",
            () if self.inheriting.is_some() || self.upgrading.is_some() => {
                "an upgrade is on its way: try again when it is over"
            }
            () => return None,
        };
        Some(why.to_owned())
    }

    /// `relais standby`, `relais ready`.
    pub(super) async fn on_standby(&mut self, on: bool, node: Option<String>, by: &str, channel: Channel) {
        let word = if on { "standby" } else { "ready" };
        let refused = match node {
            Some(node) if node != self.options.node => Some(format!(
                "this machine is {}: say `relais {word}` on {node}, where it is done",
                self.options.node
            )),
            _ => self.why_no_move(),
        };
        if let Some(why) = refused {
            return answer(&channel, &Answer::Refused { why }).await;
        }
        let changed = on != self.kept.words.standby.is_some();
        let mut forgets = String::new();
        if changed {
            let pid = channel.peer_pid().unwrap_or_default();
            info!("{word}: asked for by {by} (pid {pid})");
            let since =
                SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
            self.kept.words.standby = on.then(|| Standby { since, by: by.to_owned() });
            forgets = self.kept.write().err().unwrap_or_default();
            self.child(Role::Vip).order(&Order::Standby { on }, None).await;
            self.tell_control().await;
        }
        answer(&channel, &Answer::Standby { changed, forgets }).await;
    }

    /// `relais move`.
    pub(super) async fn on_move(&mut self, vip: String, node: &str, by: &str, channel: Channel) {
        let here = match self.may_move(&vip, node) {
            Ok(here) => here,
            Err(why) => return answer(&channel, &Answer::Refused { why }).await,
        };
        let pid = channel.peer_pid().unwrap_or_default();
        info!("vip {vip}: a move to {node} was asked for by {by} (pid {pid})");
        self.child(Role::Vip).order(&Order::Move { vip, here }, None).await;
        answer(&channel, &Answer::Moving { here }).await;
    }

    /// Whether the move is to this node, or away from it; or why there is none.
    fn may_move(&self, vip: &str, node: &str) -> Result<bool, String> {
        if let Some(why) = self.why_no_move() {
            return Err(why);
        }
        let (plan, own) = (&self.current.plan, self.current.node);
        let known = plan.vips.iter().find(|known| *known.name == *vip);
        let known = known.ok_or_else(|| {
            let names: Vec<&str> = plan.vips.iter().map(|vip| &*vip.name).collect();
            format!("there is no vip {vip}; there is {}", names.join(", "))
        })?;
        let name = |id: &relais_config::plan::NodeId| &*plan.nodes[usize::from(id.0)].name;
        if !known.nodes.iter().any(|(id, _)| name(id) == node) {
            let names: Vec<&str> = known.nodes.iter().map(|(id, _)| name(id)).collect();
            return Err(format!("vip {vip} is not for {node}; it is for {}", names.join(", ")));
        }
        if node == name(&own) {
            return match &self.kept.words.standby {
                Some(_) => Err("this node is in standby: say `relais ready` first".to_owned()),
                None => Ok(true),
            };
        }
        let there = format!("say `relais move {vip} {node}` on {node}");
        if self.vips.get(vip) != Some(&VipState::Master) {
            return Err(format!("this node does not hold vip {vip}: {there}"));
        }
        if known.nodes.len() > 2 {
            return Err(format!("vip {vip} has more than two nodes, and another might take it: {there}"));
        }
        Ok(false)
    }
}
