//! What operators change on the running node: their commands, kept in a file of their own so that a reload, a restart
//! and an upgrade find them. What the commands mean is `relais_config::overrides`.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use relais_config::overrides::Overrides;
use relais_ipc::Channel;
use relais_ipc::message::Answer;
use tracing::{info, warn};

use super::{Supervisor, answer};

/// The file, in systemd's state directory or else in the run directory.
const NAME: &str = "overrides";

/// Longest file, bytes.
const LONGEST: u64 = 1024 * 1024;

/// Where they are kept.
#[derive(Debug)]
pub(super) struct Store(PathBuf);

impl Store {
    /// The store of the version before, or that of this node: `StateDirectory=` outlives the machine's next start,
    /// and the run directory need not.
    pub(super) fn at(inherited: Option<PathBuf>, run_dir: &Path) -> Store {
        let state = std::env::var_os("STATE_DIRECTORY").and_then(|all| std::env::split_paths(&all).next());
        Store(inherited.unwrap_or_else(|| state.unwrap_or_else(|| run_dir.to_owned()).join(NAME)))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// What was kept.
    ///
    /// # Errors
    /// If the file is there and cannot be read: without it drained servers would serve.
    pub(super) fn load(&self) -> Result<Overrides, String> {
        let shown = self.0.display();
        let failed = |why: &dyn std::fmt::Display| {
            format!(
                "{shown}, which keeps what operators changed, cannot be read: {why}; if it is of no use, remove it"
            )
        };
        let text = match fs::metadata(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Overrides::default()),
            Ok(metadata) if metadata.len() > LONGEST => return Err(failed(&"it is too long")),
            _ => fs::read_to_string(&self.0).map_err(|error| failed(&error))?,
        };
        let (overrides, wrong) = Overrides::read(&text);
        wrong.iter().for_each(|why| warn!("{shown}: a line is left out: {why}"));
        Ok(overrides)
    }

    /// Keeps these, whole or not at all.
    fn save(&self, overrides: &Overrides) -> io::Result<()> {
        let aside = self.0.with_extension("new");
        let mut file = File::create(&aside)?;
        writeln!(
            file,
            "# What operators changed on the running node; kept by relais. `relais reset` drops it."
        )?;
        for line in overrides.lines() {
            writeln!(file, "{line}")?;
        }
        file.sync_all()?;
        fs::rename(&aside, &self.0)?;
        let directory = self.0.parent().unwrap_or(Path::new("."));
        File::open(directory)?.sync_all()
    }
}

impl Supervisor {
    /// An operator's command: the plan in force, with one override more or less.
    pub(super) async fn command(&mut self, line: &str, channel: Channel) {
        let mut overrides = self.current.overrides.clone();
        let changed = overrides.command(line, &self.current.plan);
        let by = channel.peer_uid().map_or_else(|_| "somebody".to_owned(), |uid| format!("user {uid}"));
        match changed {
            Ok(()) => {
                info!("command by {by}: {line}");
                let (file, text) = (self.current.file.clone(), self.current.text.clone());
                self.apply_with(file, text, overrides, Some(channel)).await;
            }
            Err(why) => {
                info!("command by {by}, refused: {line}: {why}");
                answer(&channel, &Answer::Refused { why }).await;
            }
        }
    }

    /// After a plan was put in force: keeps the overrides that it has. What is to be said of others, a sentence each.
    pub(super) fn keep_overrides(&mut self) -> Vec<String> {
        let mut said = self.current.dropped.clone();
        let kept = self.store.load();
        if kept.ok().as_ref() != Some(&self.current.overrides)
            && let Err(error) = self.store.save(&self.current.overrides)
        {
            let path = self.store.path().display();
            said.push(format!(
                "{path} cannot be written: {error}; what operators changed holds until the next start only"
            ));
        }
        said.iter().for_each(|why| warn!("{why}"));
        said
    }

    pub(super) fn say_what_is_overridden(&self) {
        self.current.dropped.iter().for_each(|why| warn!("{why}"));
        if !self.current.overrides.is_empty() {
            info!("operators have changed: {}", self.current.overrides.lines().join("; "));
        }
    }
}
