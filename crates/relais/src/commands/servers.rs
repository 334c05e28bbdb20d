//! The commands that change a server of the running node without its file: `relais drain app/tomcat1`. What they mean is
//! `relais_config::overrides`; the supervisor keeps them.

use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use relais_ipc::message::{Answer, Ask};

use super::{ask, fail, print};
use crate::cli::RunDir;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Give a server nothing new: it finishes what it has, and keeps the clients that are bound to it
    Drain(Named),
    /// Have a server serve again, after `drain` or `down`, from its first good check on; or this node, after `standby`
    Ready {
        /// The server; without it, or with the node's name, the node
        #[arg(value_name = "BACKEND/SERVER|NODE")]
        what: Option<String>,
        #[command(flatten)]
        run_dir: RunDir,
    },
    /// Take a server for dead: what waits for its answer is tried elsewhere, and it is not checked
    Down(Named),
    /// Change a server's share of requests
    Weight {
        #[command(flatten)]
        server: Named,
        /// 0 to 256; with 0 it gets nothing new
        weight: u16,
    },
    /// Add a server to a backend; what is not said here is as it is of the backend's first server
    AddServer {
        #[command(flatten)]
        server: Named,
        /// Where it listens
        #[arg(value_name = "ADDRESS:PORT")]
        address: SocketAddr,
        /// Its share of requests, 0 to 256 [default: 1]
        #[arg(long, value_name = "N")]
        weight: Option<u16>,
        /// Requests that it may have at a time
        #[arg(long, value_name = "N")]
        max_connections: Option<u32>,
        /// It serves only while no other is up
        #[arg(long)]
        backup: bool,
    },
    /// Take a server out of a backend: it finishes what it has
    RemoveServer(Named),
    /// Take back what these commands have changed: of one server, or everything
    Reset {
        /// The server; without it, all
        #[arg(value_name = "BACKEND/SERVER")]
        server: Option<String>,
        #[command(flatten)]
        run_dir: RunDir,
    },
}

/// A server of the node in this run directory.
#[derive(Debug, clap::Args)]
pub(crate) struct Named {
    /// The server
    #[arg(value_name = "BACKEND/SERVER")]
    server: String,
    #[command(flatten)]
    run_dir: RunDir,
}

impl Command {
    pub(crate) fn run(&self) -> ExitCode {
        let back = |server: &str| format!("until `relais ready {server}`");
        let fixed = |server: &str| format!("until `relais reset {server}`");
        match self {
            Command::Drain(Named { server, run_dir }) => {
                let said =
                    format!("{server} gets nothing new {}; `relais status` shows what it has", back(server));
                give(run_dir.path(), &format!("drain {server}"), &said)
            }
            Command::Ready { what: Some(server), run_dir } if server.contains('/') => {
                give(run_dir.path(), &format!("ready {server}"), &format!("{server} may serve"))
            }
            Command::Ready { what, run_dir } => super::moves::standby(run_dir.path(), false, what.clone()),
            Command::Down(Named { server, run_dir }) => {
                give(run_dir.path(), &format!("down {server}"), &format!("{server} is down {}", back(server)))
            }
            Command::Weight { server: Named { server, run_dir }, weight } => {
                let said = format!("{server} has weight {weight} {}", fixed(server));
                give(run_dir.path(), &format!("weight {server} {weight}"), &said)
            }
            Command::AddServer {
                server: Named { server, run_dir },
                address,
                weight,
                max_connections,
                backup,
            } => {
                let mut line = format!("add-server {server} {address}");
                line += &weight.map_or_else(String::new, |weight| format!(" weight={weight}"));
                line += &max_connections.map_or_else(String::new, |most| format!(" max-connections={most}"));
                line += if *backup { " backup" } else { "" };
                let said = format!("{server} is added; write it into the file to have it on every node");
                give(run_dir.path(), &line, &said)
            }
            Command::RemoveServer(Named { server, run_dir }) => {
                let said =
                    format!("{server} is taken out; take it out of the file to have it so on every node");
                give(run_dir.path(), &format!("remove-server {server}"), &said)
            }
            Command::Reset { server, run_dir } => {
                let subject = server.as_deref().unwrap_or_default();
                let said = match subject {
                    "" => "every server is as the file says".to_owned(),
                    server => format!("{server} is as the file says"),
                };
                give(run_dir.path(), format!("reset {subject}").trim_end(), &said)
            }
        }
    }
}

/// Gives the node a command, and says what came of it.
fn give(run_dir: &Path, line: &str, done: &str) -> ExitCode {
    match ask(run_dir, &Ask::Command { line: line.to_owned() }, None) {
        Ok(Answer::Applied { dropped, .. }) => {
            print(&format!("{done}\n"));
            dropped.iter().for_each(|why| eprintln!("relais: {why}"));
            ExitCode::SUCCESS
        }
        Ok(Answer::Refused { why }) => fail(&format!("nothing was changed: {why}")),
        Ok(other) => fail(&format!("the node answered something else: {other:?}")),
        Err(why) => fail(&why),
    }
}
