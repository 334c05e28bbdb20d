#![forbid(unsafe_code)]
//! The one binary: reads the command line and calls whoever does the work.

mod cli;
mod commands;
mod supervisor;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    cli::Cli::parse().run()
}
