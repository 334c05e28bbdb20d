//! The command line (design §2). Every command ends with 0 when it did what was asked, 1 when it could
//! not, 2 when the command line itself was wrong.

mod demo;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::{commands, supervisor};

/// Where a node's sockets are unless it is told otherwise.
const RUN_DIR: &str = "/run/relais";

/// Keeps a web application answering while the machines under it die.
#[derive(Debug, Parser)]
#[command(name = "relais", version, arg_required_else_help = true, subcommand_required = true)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Say what is wrong with a plan file, with line, column and what to write instead
    Check {
        /// The plan file
        file: PathBuf,
        /// This machine is that node of the file: what it needs has to be here
        #[arg(long, value_name = "NAME")]
        node: Option<String>,
    },
    /// Explain a directive: what it does, its values, its limits; without one, list them all
    Explain {
        /// The directive's name, such as `advertise`
        directive: Option<String>,
    },
    /// Run this machine's whole part of the platform, in the foreground (systemd: Type=notify)
    Run {
        /// The plan file, the same on every machine
        file: PathBuf,
        /// Which of the file's nodes this machine is
        #[arg(long, value_name = "NAME")]
        node: String,
        /// Take over from the relais that runs in the run directory: its sockets, its addresses, what it knows. It
        /// finishes what it has open. If this one cannot serve, that one goes on
        #[arg(long)]
        upgrade: bool,
        #[command(flatten)]
        run_dir: RunDir,
    },
    /// Put a plan file in force on the running node without dropping a connection
    Apply {
        /// The plan file
        file: PathBuf,
        #[command(flatten)]
        run_dir: RunDir,
    },
    /// Show the running node: processes, addresses, frontends, servers
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        run_dir: RunDir,
    },
    /// Give every virtual address of this node up and take none, until `relais ready`
    Standby {
        /// The node that is meant: refused where this machine is another
        node: Option<String>,
        #[command(flatten)]
        run_dir: RunDir,
    },
    /// Take away what a killed node left in the kernel: its addresses, their gates (systemd: ExecStopPost)
    Release {
        /// The plan file
        file: PathBuf,
        /// Which of the file's nodes this machine is
        #[arg(long, value_name = "NAME")]
        node: String,
        #[command(flatten)]
        run_dir: RunDir,
    },
    /// Move a virtual address to a node now, whatever the priorities; on that node, or on the holder of two
    Move {
        /// The address's name in the plan
        vip: String,
        /// The node that is to hold it
        node: String,
        #[command(flatten)]
        run_dir: RunDir,
    },
    #[command(flatten)]
    Servers(commands::servers::Command),
    #[command(flatten)]
    Tables(commands::tables::Command),
    #[command(flatten)]
    Lab(commands::lab::Command),
    /// Run the whole platform on this machine, to watch and to break: no root, nothing to install
    Demo(demo::Demo),
    /// One of the processes that `relais run` starts
    #[command(hide = true)]
    #[command(subcommand)]
    Child(Child),
}

#[derive(Debug, Args)]
pub(crate) struct RunDir {
    /// Directory of the node's sockets
    #[arg(long, value_name = "DIR", default_value = RUN_DIR)]
    run_dir: PathBuf,
}

impl RunDir {
    pub(crate) fn path(&self) -> &std::path::Path {
        &self.run_dir
    }
}

#[derive(Debug, Subcommand)]
enum Child {
    /// The data plane
    Proxy {
        /// Keep CAP_NET_RAW and become this user
        #[arg(long, requires = "gid")]
        uid: Option<u32>,
        /// and this group
        #[arg(long, requires = "uid")]
        gid: Option<u32>,
    },
    /// The virtual addresses
    Vip,
    /// The admin page and `/metrics`
    Control,
    /// The embedded application of the lab and the demo
    App {
        /// Where it listens
        #[arg(long, value_name = "IP:PORT")]
        listen: SocketAddr,
        /// Its name, such as `tomcat1-1`
        #[arg(long)]
        name: String,
        /// The directory that all instances share
        #[arg(long, value_name = "DIR")]
        store: PathBuf,
    },
    /// What starts a new version and waits for its end
    Launch {
        /// The binary and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        command: Vec<std::ffi::OsString>,
    },
    /// The controller of `relais demo`
    Demo(demo::Inside),
    /// What takes it into namespaces
    DemoDoor(demo::Inside),
}

impl Cli {
    /// Does what was asked.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Check { file, node } => commands::check(&file, node.as_deref()),
            Command::Explain { directive } => commands::explain(directive.as_deref()),
            Command::Run { file, node, upgrade, run_dir } => {
                supervisor::run(supervisor::Options { file, node, run_dir: run_dir.run_dir, upgrade })
            }
            Command::Apply { file, run_dir } => commands::apply(&file, &run_dir.run_dir),
            Command::Status { json, run_dir } => commands::status::run(&run_dir.run_dir, json),
            Command::Servers(command) => command.run(),
            Command::Tables(command) => command.run(),
            Command::Standby { node, run_dir } => commands::moves::standby(&run_dir.run_dir, true, node),
            Command::Release { file, node, run_dir } => commands::release(&file, &node, &run_dir.run_dir),
            Command::Move { vip, node, run_dir } => commands::moves::shift(&run_dir.run_dir, vip, node),
            Command::Lab(command) => command.run(),
            Command::Demo(demo) => demo.run(),
            Command::Child(role) => child(role),
        }
    }
}

/// Becomes one of the processes; none of them can gain privileges that it was not started with.
fn child(child: Child) -> ExitCode {
    if let Child::Launch { command } = child {
        return launch(&command);
    }
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        eprintln!("relais: the kernel cannot forbid new privileges: {error}");
    }
    match child {
        Child::Proxy { uid, gid } => relais_proxy::main(uid.zip(gid)),
        Child::Vip => relais_vip::main(),
        Child::Control => relais_admin::main(),
        Child::App { listen, name, store } => {
            relais_lab::app::main(relais_lab::app::Args { listen, name, store })
        }
        Child::Launch { command } => launch(&command),
        Child::Demo(inside) => relais_lab::demo::controller(inside.into()),
        Child::DemoDoor(inside) => relais_lab::demo::door(inside.into()),
    }
}

/// Starts a new version, which is no child of the supervisor: killed once the new version has come forward, so that
/// systemd is its parent and hears of its death.
fn launch(command: &[std::ffi::OsString]) -> ExitCode {
    let Some((binary, arguments)) = command.split_first() else { return ExitCode::FAILURE };
    match std::process::Command::new(binary).args(arguments).status() {
        Ok(status) => ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1)),
        Err(error) => {
            eprintln!("relais: {} cannot be started: {error}", binary.display());
            ExitCode::FAILURE
        }
    }
}
