//! `relais table`, `relais clear-table`: which server each client stays with, by a table.

use std::fmt::Write;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use clap::Subcommand;
use relais_ipc::message::{Answer, Ask};
use relais_ipc::status::{ProxyStatus, fetch};
use relais_proxy::{TableRow, table_rows};

use super::{ask, ask_for_more, fail, print};
use crate::cli::RunDir;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show which server each client stays with, by a backend's table (`stick`, `persist learn=`)
    Table {
        #[command(flatten)]
        of: Of,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Have a table forget clients, who are given a server anew when they come again; on this node alone
    ClearTable(Of),
}

/// Part of a table.
#[derive(Debug, clap::Args)]
pub(crate) struct Of {
    /// The backend; or a server of it, for those that stay with this one
    #[arg(value_name = "BACKEND[/SERVER]")]
    table: String,
    /// One client, as `relais table` shows its key
    key: Option<String>,
    #[command(flatten)]
    run_dir: RunDir,
}

impl Command {
    pub(crate) fn run(&self) -> ExitCode {
        match self {
            Command::Table { of, json } => of.show(*json),
            Command::ClearTable(of) => of.clear(),
        }
    }
}

impl Of {
    fn names(&self) -> (&str, Option<&str>) {
        match self.table.split_once('/') {
            Some((backend, server)) => (backend, Some(server)),
            None => (&self.table, None),
        }
    }

    /// The key as tables have it: an address may be written in several ways.
    fn key(&self) -> Option<String> {
        let key = self.key.as_ref()?;
        Some(key.parse::<IpAddr>().map_or_else(|_| key.clone(), |address| address.to_canonical().to_string()))
    }

    fn show(&self, json: bool) -> ExitCode {
        let (backend, server) = self.names();
        let asked = Ask::Table { backend: backend.to_owned() };
        let (servers, size, all) = match ask_for_more(self.run_dir.path(), &asked, None) {
            Ok((Answer::Table { addresses, size }, Some(file))) => {
                let servers = match servers(self.run_dir.path(), backend) {
                    Ok(servers) => servers,
                    Err(why) => return fail(&why),
                };
                match table_rows(&File::from(file), &addresses, &servers) {
                    Ok(rows) => (servers, size, rows),
                    Err(error) => return fail(&format!("the table of {backend} cannot be read: {error}")),
                }
            }
            Ok((Answer::Refused { why }, _)) => return fail(&why),
            Ok(other) => return fail(&format!("the node answered something else: {other:?}")),
            Err(why) => return fail(&why),
        };
        let wanted = match server.map(|name| servers.iter().position(|server| server == name)) {
            Some(None) => {
                let server = server.unwrap_or_default();
                return fail(&format!(
                    "backend {backend} has no server `{server}`; it has: {}",
                    servers.join(", ")
                ));
            }
            Some(at) => at,
            None => None,
        };
        let (key, in_all) = (self.key(), all.len());
        let is_meant = |row: &TableRow| {
            (wanted.is_none() || row.server == wanted) && key.as_ref().is_none_or(|key| row.key == *key)
        };
        let mut some: Vec<TableRow> = all.into_iter().filter(is_meant).collect();
        some.sort_by(|one, other| one.key.cmp(&other.key));
        let name = |row: &TableRow| row.server.and_then(|at| servers.get(at)).map(String::as_str);
        if json {
            let keys: Vec<_> = some.iter().map(|row| {
                serde_json::json!({ "key": row.key, "server": name(row), "expires_in_ms": row.left.as_millis() as u64 })
            }).collect();
            let document = serde_json::json!({ "backend": backend, "size": size, "keys": keys });
            print(&format!("{document:#}\n"));
            return ExitCode::SUCCESS;
        }
        if let (Some(key), true) = (&key, some.is_empty()) {
            return fail(&format!("the table of {} has no key {key}", self.table));
        }
        let mut out = format!("table of {backend}: {in_all} of {size} keys");
        if some.len() != in_all {
            let _ = write!(out, ", {} of them shown", some.len());
        }
        out.push('\n');
        let widest = some.iter().map(|row| row.key.chars().count()).max().unwrap_or(0).min(40);
        for row in &some {
            let server = name(row).unwrap_or("(a server that is no longer there)");
            let _ = writeln!(out, "  {:<widest$}  {server:<16}  for {}", row.key, time(row.left));
        }
        print(&out);
        ExitCode::SUCCESS
    }

    fn clear(&self) -> ExitCode {
        let ((backend, server), key) = (self.names(), self.key());
        let asked =
            Ask::Forget { backend: backend.to_owned(), server: server.map(str::to_owned), key: key.clone() };
        match ask(self.run_dir.path(), &asked, None) {
            Ok(Answer::Forgotten { keys: 0 }) => {
                let what = key.map_or("no keys".to_owned(), |key| format!("no key {key}"));
                fail(&format!("nothing was changed: the table of {} has {what}", self.table))
            }
            Ok(Answer::Forgotten { keys: 1 }) => {
                print("1 key is forgotten\n");
                ExitCode::SUCCESS
            }
            Ok(Answer::Forgotten { keys }) => {
                print(&format!("{keys} keys are forgotten\n"));
                ExitCode::SUCCESS
            }
            Ok(Answer::Refused { why }) => fail(&format!("nothing was changed: {why}")),
            Ok(other) => fail(&format!("the node answered something else: {other:?}")),
            Err(why) => fail(&why),
        }
    }
}

/// The servers of a backend, by name.
fn servers(run_dir: &Path, backend: &str) -> Result<Vec<String>, String> {
    let proxy: ProxyStatus = fetch(&run_dir.join("proxy.sock"), Duration::from_secs(1))
        .map_err(|error| format!("proxy in {} does not answer: {error}", run_dir.display()))?;
    let found = proxy.backends.into_iter().find(|other| other.name == backend);
    Ok(found.into_iter().flat_map(|backend| backend.servers).map(|server| server.name).collect())
}

/// Such as `1h 3m`: two units are enough.
fn time(left: Duration) -> String {
    let seconds = left.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m {}s", seconds / 60, seconds % 60),
        3_600..86_400 => format!("{}h {}m", seconds / 3_600, seconds % 3_600 / 60),
        _ => format!("{}d {}h", seconds / 86_400, seconds % 86_400 / 3_600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let said = [5, 65, 3_900, 100_000].map(|seconds| time(Duration::from_secs(seconds)));
        assert_eq!(said, ["5s", "1m 5s", "1h 5m", "1d 3h"]);
    }
}
