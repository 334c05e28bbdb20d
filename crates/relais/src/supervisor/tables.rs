//! Stick tables, as the supervisor has to do with them: it holds their memory files for proxy's successor, shows them to root's
//! commands, and has proxy forget keys.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, OwnedFd};

use relais_config::plan::Backend;
use relais_ipc::message::{Answer, Ask};
use relais_ipc::{Channel, Order, Role};
use tracing::info;

use super::{Supervisor, answer, answer_with};

/// The tables of this node.
#[derive(Debug, Default)]
pub(super) struct Tables {
    /// Memory files, by backend.
    pub(super) files: BTreeMap<String, OwnedFd>,
    /// Who has asked proxy to forget something, in order.
    asked: VecDeque<Channel>,
}

impl Supervisor {
    /// The backend of this name, if it has a table; or why not.
    fn backend_with_table(&self, name: &str) -> Result<&Backend, String> {
        let all = &self.current.plan.backends;
        let Some(backend) = all.iter().find(|backend| *backend.name == *name) else {
            let names: Vec<&str> = all.iter().map(|backend| &*backend.name).collect();
            return Err(format!("there is no backend `{name}`; there are: {}", names.join(", ")));
        };
        match backend.stick {
            Some(_) => Ok(backend),
            None => Err(format!(
                "backend {name} keeps no table: clients stay by one where it says `stick` or `persist learn=`"
            )),
        }
    }

    /// `relais table`.
    pub(super) async fn on_table(&self, backend: &str, channel: Channel) {
        let found = self.backend_with_table(backend).and_then(|plan| {
            let file =
                self.tables.files.get(backend).ok_or("proxy is being started: ask again in a second")?;
            let stick = plan.stick.as_ref().ok_or("it keeps no table")?;
            Ok((Answer::Table { addresses: stick.key.addresses(), size: stick.size }, file))
        });
        match found {
            Ok((table, file)) => answer_with(&channel, &table, Some(file.as_fd())).await,
            Err(why) => answer(&channel, &Answer::Refused { why }).await,
        }
    }

    /// `relais clear-table`.
    pub(super) async fn on_forget(&mut self, ask: Ask, channel: Channel) {
        let Ask::Forget { backend, server, key } = ask else { return };
        let found = self.backend_with_table(&backend).and_then(|plan| match &server {
            Some(name) if !plan.servers.iter().any(|server| *server.name == **name) => {
                Err(format!("backend {backend} has no server `{name}`"))
            }
            _ if self.child(Role::Proxy).pid().is_none() => {
                Err("proxy is being started: ask again in a second".to_owned())
            }
            _ => Ok(()),
        });
        if let Err(why) = found {
            return answer(&channel, &Answer::Refused { why }).await;
        }
        let by = channel.peer_uid().map_or_else(|_| "somebody".to_owned(), |uid| format!("user {uid}"));
        let of = server.as_ref().map_or(String::new(), |server| format!(" of server {server}"));
        match &key {
            Some(key) => info!("command by {by}: the table of {backend} is to forget {key}{of}"),
            None => info!("command by {by}: the table of {backend} is to forget all{of}"),
        }
        self.tables.asked.push_back(channel);
        self.child(Role::Proxy).order(&Order::Forget { backend, server, key }, None).await;
    }

    /// Proxy has done so; or it will not any more.
    pub(super) async fn forgotten(&mut self, keys: Option<u64>) {
        let many = if keys.is_some() { 1 } else { self.tables.asked.len() };
        for channel in self.tables.asked.drain(..many.min(self.tables.asked.len())) {
            let said = match keys {
                Some(keys) => Answer::Forgotten { keys },
                None => Answer::Refused { why: "proxy died before it had done so: ask again".to_owned() },
            };
            answer(&channel, &said).await;
        }
    }
}
