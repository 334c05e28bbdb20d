//! A plan in force, or on its way there, with everything that was read for it.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use relais_config::overrides::Overrides;
use relais_config::plan::{LogTo, NodeId, Plan};
use relais_ipc::Order;
use relais_ipc::channel::text_to_fd;
use tracing::error;

use super::child::Child;
use super::{Options, files, read_plan};

/// A plan and what it was made of.
#[derive(Debug)]
pub(super) struct Edition {
    pub(super) generation: u64,
    pub(super) file: String,
    pub(super) text: String,
    /// With the overrides in it.
    pub(super) plan: Plan,
    /// What operators have changed.
    pub(super) overrides: Overrides,
    /// What of that the text has no room for any more: a sentence each.
    pub(super) dropped: Vec<String>,
    pub(super) node: NodeId,
    /// Files that access lines go to, opened anew with each edition (so a reload follows logrotate).
    pub(super) access_logs: Vec<(String, OwnedFd)>,
    /// Error pages by file, read with each edition.
    pub(super) error_pages: Vec<(String, String)>,
    /// Certificates and keys, for the proxy.
    pub(super) secrets: Option<files::Secrets>,
}

impl Edition {
    /// The plan of this file, for this node. `logs` are access logs that are open already.
    pub(super) fn read(
        options: &Options,
        generation: u64,
        logs: Vec<(String, OwnedFd)>,
        overrides: Overrides,
    ) -> Result<Edition, String> {
        let file = options.file.display().to_string();
        let text = read_plan(&options.file)?;
        Edition::parse(&options.node, file, text, generation, logs, overrides)
    }

    pub(super) fn parse(
        node: &str,
        file: String,
        text: String,
        generation: u64,
        logs: Vec<(String, OwnedFd)>,
        mut overrides: Overrides,
    ) -> Result<Edition, String> {
        let checked = relais_config::parse(&file, &text).map_err(|rejected| rejected.to_string())?;
        let mut plan = checked.plan;
        let dropped = overrides.apply(&mut plan);
        let Some(id) = plan.node(node) else {
            let names: Vec<&str> = plan.nodes.iter().map(|node| &*node.name).collect();
            let names = names.join(", ");
            return Err(format!("{file} has no node {node}: --node must be one of {names}"));
        };
        let error_pages = plan.error_page_files().into_iter();
        let error_pages = error_pages
            .map(|path| Ok((path.to_string(), relais_config::read_error_page(Path::new(&**path))?)))
            .collect::<Result<Vec<_>, String>>()?;
        let access_logs = open_access_logs(&plan, logs)?;
        let secrets = files::Secrets::read(&plan, id)?;
        Ok(Edition {
            generation,
            file,
            text,
            plan,
            overrides,
            dropped,
            node: id,
            access_logs,
            error_pages,
            secrets,
        })
    }

    pub(super) async fn send_overrides(&self, child: &Child) {
        match text_to_fd(&self.overrides.lines().join("\n")) {
            Ok(fd) => child.order(&Order::Overrides, Some(fd.as_fd())).await,
            Err(error) => error!("what operators changed cannot be sent: {error}"),
        }
    }

    pub(super) async fn send_error_pages(&self, proxy: &Child) {
        for (path, text) in &self.error_pages {
            match text_to_fd(text) {
                Ok(fd) => proxy.order(&Order::ErrorPage { path: path.clone() }, Some(fd.as_fd())).await,
                Err(error) => error!("the error page {path} cannot be sent: {error}"),
            }
        }
    }

    pub(super) async fn send_access_logs(&self, proxy: &Child) {
        for (path, log) in &self.access_logs {
            proxy.order(&Order::AccessLog { path: path.clone() }, Some(log.as_fd())).await;
        }
    }
}

/// Opens the access logs while we may: the proxy runs as a user that perhaps may not. Those in `open` are
/// taken as they are.
pub(super) fn open_access_logs(
    plan: &Plan,
    mut open: Vec<(String, OwnedFd)>,
) -> Result<Vec<(String, OwnedFd)>, String> {
    let mut logs: Vec<(String, OwnedFd)> = Vec::new();
    for log in &plan.logs {
        let LogTo::File(path) = &log.to else { continue };
        if logs.iter().any(|(other, _)| **other == **path) {
            continue;
        }
        if let Some(at) = open.iter().position(|(other, _)| **other == **path) {
            logs.push(open.swap_remove(at));
            continue;
        }
        match File::options().create(true).append(true).open(&**path) {
            Ok(file) => logs.push((path.to_string(), file.into())),
            Err(error) => return Err(format!("the access log {path} cannot be opened: {error}")),
        }
    }
    Ok(logs)
}
