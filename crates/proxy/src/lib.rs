#![forbid(unsafe_code)]
//! The data plane: what accepts connections and has requests answered (design §4).
//!
//! A process of its own, without privileges. Its main thread ([`process`]) obeys the supervisor and runs
//! the health checks; one thread per worker ([`worker`]) accepts, forwards and logs, and shares nothing
//! on its way but a few gauges. What a session goes through stands in `LIFECYCLE.md` beside this crate.
//!
//! Not here: framing rules (`http`), whose turn it is (`balance`), who listens and restarts (`relais`).

use std::os::fd::OwnedFd;
use std::process::ExitCode;

use relais_ipc::Channel;

mod access;
mod answer;
mod buffer;
mod checks;
mod choose;
mod client;
mod compress;
mod counters;
mod dns;
mod exchange;
mod gone;
mod h2;
mod half;
mod io;
mod keyed;
mod limits;
mod load;
mod marks;
mod observed;
mod outliers;
mod pace;
mod pages;
mod peers;
mod persist;
mod probe;
mod process;
mod proxied;
mod rules;
mod session;
mod shield;
mod source;
mod splice;
mod squeeze;
mod status;
mod stick;
mod timer;
mod tls;
mod traffic;
mod transaction;
mod tunnel;
mod udp;
mod upstream;
mod worker;

/// The proxy process: obeys the channel on its standard input until the end. With a user and a group it becomes
/// these, and keeps CAP_NET_RAW alone.
pub fn main(user: Option<(u32, u32)>) -> ExitCode {
    relais_ipc::journal::init("proxy");
    if let Some((uid, gid)) = user
        && let Err(error) = source::keep_net_raw_as(uid, gid)
    {
        tracing::error!("the privileges cannot be dropped: {error}");
        return ExitCode::FAILURE;
    }
    raise_descriptor_limit();
    finish(serve(|| {
        ignore_signals()?;
        Channel::from_stdin()
    }))
}

pub use stick::show::{Row as TableRow, rows as table_rows};
pub use tls::inspect::{Finding, look as look_at_certificates};
pub use tls::strict::fuzz as fuzz_tls_records;
pub use tls::x509::fuzz as fuzz_certificate;

/// As [`main`], with the channel behind `socket`: for those who run a proxy in a thread.
pub fn run(socket: OwnedFd) -> ExitCode {
    finish(serve(|| Channel::new(socket)))
}

fn serve(channel: impl FnOnce() -> std::io::Result<Channel>) -> std::io::Result<()> {
    grow_descriptor_table();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default())?;
    runtime.block_on(async { process::run(channel()?).await })
}

/// The end of this process is for the supervisor to say, which drains it first, or for the end of its channel.
fn ignore_signals() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    drop(signal(SignalKind::terminate())?); // once asked for, a signal never again has its default effect
    relais_ipc::signals::leave_to_supervisor()
}

/// A connection is two descriptors; the limit that a login shell sets is for login shells.
fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!("the limit of open descriptors stays at {:?}: {error}", limit.current);
    }
}

/// Has the kernel make its table of descriptors large while there is one thread. Each time that it grows later, every thread that opens
/// a descriptor waits until all processors have been through the scheduler (`synchronize_rcu` in `expand_fdtable`, fs/file.c):
/// all workers at once, 5 to 25 ms.
fn grow_descriptor_table() {
    use rustix::process::{Resource, getrlimit};
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let last = limit.min(limits::DESCRIPTOR_TABLE).saturating_sub(1) as i32;
    let some = rustix::fs::memfd_create("relais-table", rustix::fs::MemfdFlags::CLOEXEC);
    // Where it cannot be had it grows as it is needed.
    let _ = some.and_then(|some| rustix::io::fcntl_dupfd_cloexec(&some, last));
}

fn finish(result: std::io::Result<()>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the proxy cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}
