//! `relais demo`, `relais lab` and `relais drill`: the whole platform on this one machine.

use std::process::ExitCode;

use clap::Subcommand;

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// x
    Lab,
}

impl Command {
    pub(crate) fn run(self) -> ExitCode {
        ExitCode::SUCCESS
    }
}
