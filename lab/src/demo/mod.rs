//! `relais demo`: the platform on this one machine, without root and with nothing installed.
//!
//! Three processes. The *front* stays where it was started: it owns the terminal and the two listening
//! sockets that the visitor's browser reaches. The *door* ([`enter`]) goes into new user, mount, network
//! and process namespaces. The *controller*, the first process in there, makes the network
//! ([`platform`]), starts real `relais run` processes and application instances on it, watches them
//! ([`watch`]), plays the client ([`client`]), accounts for what each kill costs ([`outage`]) and
//! serves the page ([`page`]). The channel from the front is the controller's lifeline: whatever ends the
//! front ends the controller, and with the first process of a process namespace the kernel ends all
//! the others.
//!
//! Where the kernel refuses user namespaces, the same controller runs the same processes on loopback
//! addresses, without a virtual address, and says so.

mod act;
mod client;
mod enter;
mod front;
mod outage;
mod page;
mod platform;
mod state;
mod watch;

use std::io;
use std::net::TcpListener as StdTcpListener;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use relais_ipc::Channel;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use tracing::error;

pub use enter::main as door;
pub use front::{Options, main};

use platform::Platform;
use state::State;

/// Exit status of a controller that this kernel does not let work as it was asked to; the reason is in
/// `why` in the run directory, and the front asks for less.
pub(crate) const REFUSED: u8 = 75;

/// How much of the platform the kernel lets us have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Machines in network namespaces, and a process namespace around them.
    Full,
    /// Machines in network namespaces.
    Network,
    /// Loopback addresses.
    Loopback,
}

impl Depth {
    /// From the most to the least.
    pub(crate) const ALL: [Depth; 3] = [Depth::Full, Depth::Network, Depth::Loopback];

    /// Its name on the command line of the door and the controller.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Depth::Full => "full",
            Depth::Network => "network",
            Depth::Loopback => "loopback",
        }
    }
}

impl std::str::FromStr for Depth {
    type Err = String;

    fn from_str(name: &str) -> Result<Depth, String> {
        Depth::ALL.into_iter().find(|d| d.name() == name).ok_or_else(|| format!("there is no depth {name}"))
    }
}

/// What the front sends to the controller, the sockets as descriptors.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Letter {
    /// The listening socket of the dashboard.
    Page,
    /// The listening socket behind which the platform itself is.
    Platform,
    /// The visitor typed this.
    Typed(String),
}

/// What `relais child demo-door` and `relais child demo` are told.
#[derive(Clone, Debug)]
pub struct Args {
    /// How deep to go.
    pub depth: Depth,
    /// A directory of this demo's own.
    pub run_dir: PathBuf,
}

/// The controller; `relais child demo`, started by the door.
pub fn controller(args: Args) -> ExitCode {
    relais_ipc::journal::init("demo");
    // A process whose parent was killed comes to us, so that we can bury it.
    let _ = rustix::process::set_child_subreaper(Some(rustix::process::getpid()));
    let result = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(Stop::Failed)
        .and_then(|runtime| runtime.block_on(control(&args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(Stop::Refused(why)) => {
            let _ = std::fs::write(args.run_dir.join("why"), why);
            ExitCode::from(REFUSED)
        }
        Err(Stop::Failed(why)) => {
            error!("{why}");
            ExitCode::FAILURE
        }
    }
}

/// Why a controller ends before it is told to.
enum Stop {
    /// The kernel does not allow what this depth needs.
    Refused(String),
    /// Anything else.
    Failed(io::Error),
}

impl From<io::Error> for Stop {
    fn from(error: io::Error) -> Stop {
        Stop::Failed(error)
    }
}

async fn control(args: &Args) -> Result<(), Stop> {
    let front = Channel::from_stdin()?;
    if args.depth == Depth::Full {
        enter::own_proc(&args.run_dir).map_err(|e| Stop::Refused(format!("/proc cannot be mounted: {e}")))?;
    }
    let mut platform = Platform::create(args)
        .map_err(|e| Stop::Refused(format!("network namespaces cannot be made: {e}")))?;
    let page = socket(&front).await?;
    let visitors = socket(&front).await?;
    let page_address = page.local_addr()?;
    let state = Arc::new(State::new(platform.virtual_address(), page_address, visitors.local_addr()?));
    platform.start_all()?;
    let _client = client::start(&platform, &state, visitors)?;
    let orders = page::serve(TcpListener::from_std(page), Arc::clone(&state));
    let end = act::obey(&front, orders, &mut platform, &state).await;
    platform.kill_all();
    if platform.host_proc().is_none_or(|proc| enter::forget_host_proc(&proc).is_ok()) {
        let _ = std::fs::remove_dir_all(&args.run_dir); // the front does so too, if it is still there
    }
    Ok(end?)
}

/// The next listening socket that the front hands over.
async fn socket(front: &Channel) -> io::Result<StdTcpListener> {
    match front.recv::<Letter>().await? {
        Some((Letter::Page | Letter::Platform, Some(fd))) => {
            let listener = StdTcpListener::from(fd);
            listener.set_nonblocking(true)?;
            Ok(listener)
        }
        _ => Err(io::Error::other("this command is started by `relais demo`, not by hand")),
    }
}
