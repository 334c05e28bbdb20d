#![forbid(unsafe_code)]
//! The control process: the dashboard, `/status` and `/metrics` of one node, read only; and the scripts that its addresses
//! depend on.
//!
//! It knows nothing by itself. The node comes from the supervisor, the data plane and the addresses from
//! the status sockets of the other processes, asked anew for each request. Its death costs nobody
//! anything: no traffic passes through it, and nothing is kept in it.
//!
//! Not here: the socket it listens on (the supervisor opens it, as the plan says), and commands that change
//! something (`relais.sock`, for who may write there).

mod app;
mod attention;
mod csv;
mod metrics;
mod process;
mod scripts;
mod server;
mod snapshot;

use std::process::ExitCode;

use relais_ipc::Channel;

/// The control process: obeys the channel on its standard input until the end.
pub fn main() -> ExitCode {
    relais_ipc::journal::init("control");
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the control process cannot go on: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        relais_ipc::signals::leave_to_supervisor()?;
        process::run(Channel::from_stdin()?).await
    })
}
