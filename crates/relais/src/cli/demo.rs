//! `relais demo`: the command line of [`relais_lab::demo`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use relais_lab::demo;

/// `relais demo`
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// Port of the page on 127.0.0.1; 0 takes any that is free
    #[arg(long, value_name = "PORT", default_value_t = 8480)]
    port: u16,
    /// End after so many seconds instead of at Ctrl-C
    #[arg(long, value_name = "SECONDS")]
    duration: Option<u64>,
    /// Loopback addresses only, as on a machine that allows no user namespaces: no virtual address
    #[arg(long)]
    loopback: bool,
}

impl Demo {
    pub(super) fn run(self) -> ExitCode {
        let Demo { port, duration, loopback } = self;
        demo::main(demo::Options { port, duration: duration.map(Duration::from_secs), loopback })
    }
}

/// `relais child demo` and `relais child demo-door`
#[derive(Debug, Args)]
pub(super) struct Inside {
    /// `full`, `network` or `loopback`
    #[arg(long)]
    depth: demo::Depth,
    /// The demo's own directory
    #[arg(long)]
    run_dir: PathBuf,
}

impl From<Inside> for demo::Args {
    fn from(inside: Inside) -> demo::Args {
        demo::Args { depth: inside.depth, run_dir: inside.run_dir }
    }
}
