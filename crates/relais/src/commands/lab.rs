//! `relais lab` and `relais drill`: the command line of [`relais_lab::commands`].

use std::process::ExitCode;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use relais_lab::application::Application;
use relais_lab::balancer::Stack;
use relais_lab::commands::{self, DrillOptions, StormOptions};
use relais_lab::drill::Drill;
use relais_lab::platform::Settings;

use super::fail;

/// The drill that breaks anything at any moment.
const RANDOM: &str = "random";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// The whole platform in network namespaces of this machine (as root)
    #[command(subcommand)]
    Lab(Lab),
    /// Break one thing in a lab, repair it, and say what a client saw
    Drill {
        /// What to break
        #[arg(value_parser = PossibleValuesParser::new(Drill::ALL.map(Drill::name).into_iter().chain([RANDOM])))]
        name: String,
        /// How often
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        times: u32,
        /// One JSON object a run, and a last one for all of them
        #[arg(long)]
        json: bool,
        /// A machine goes deaf instead of losing its carrier
        #[arg(long)]
        silent: bool,
        /// With nobody to take over: the drill must then see an outage, or it could not see any
        #[arg(long)]
        no_failover: bool,
        /// Where the drill has a download that must not break: how long it takes, seconds
        #[arg(long, value_name = "SECONDS", default_value_t = relais_lab::drill::DOWNLOAD.as_secs(),
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        download: u64,
        /// `random`: the first run's faults; each further run has the next number's
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// `random`: no third node hears who is cut off, so that two machines may answer
        #[arg(long, conflicts_with = "witness")]
        no_witness: bool,
        /// `random`: each fault is a cut between the balancers that no third node sees, so that both answer: how soon is it one
        /// again when the cut ends?
        #[arg(long, conflicts_with = "witness")]
        cuts: bool,
        #[command(flatten)]
        with: With,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Lab {
    /// Make it; it stays until `relais lab down`
    Up {
        #[command(flatten)]
        with: With,
    },
    /// Say what is up in it and who holds the address
    Status {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove all of it, also after a crash
    Down,
}

#[derive(Debug, Args)]
pub(crate) struct With {
    /// HAProxy + keepalived instead of Relais
    #[arg(long)]
    peer: bool,
    /// The embedded application even where Tomcat is installed
    #[arg(long)]
    embedded: bool,
    /// VRRP advertisement interval, milliseconds
    #[arg(long, value_name = "MS", default_value_t = 50, value_parser = clap::value_parser!(u64).range(10..=40_950))]
    advertise: u64,
    /// The application servers run Relais too, as witnesses of who is cut off from whom
    #[arg(long, conflicts_with = "peer")]
    witness: bool,
}

impl With {
    fn settings(self, failover: bool) -> Settings {
        let defaults = Settings::new();
        Settings {
            stack: if self.peer { Stack::Peer } else { Stack::Relais },
            application: if self.embedded { Application::Embedded } else { defaults.application },
            failover,
            advertise_ms: self.advertise,
            witness: self.witness,
            ..defaults
        }
    }
}

impl Command {
    pub(crate) fn run(self) -> ExitCode {
        let out = &mut std::io::stdout().lock();
        let id = Settings::new().id;
        let done = match self {
            Command::Lab(Lab::Up { with }) => commands::up(with.settings(true), out),
            Command::Lab(Lab::Status { json }) => commands::status(&id, json, out),
            Command::Lab(Lab::Down) => commands::down(&id, out),
            Command::Drill { name, times, json, seed, no_witness, cuts, with, .. } if name == RANDOM => {
                let settings = Settings { witness: !no_witness && !cuts, ..with.settings(true) };
                commands::storm(&StormOptions { times, seed, json, cuts, settings }, out)
            }
            Command::Drill { name, times, json, silent, no_failover, download, with, .. } => {
                // The command line has checked the name against this very list.
                let drill = Drill::ALL.into_iter().find(|drill| drill.name() == name);
                let drill = drill.unwrap_or(Drill::BalancerMachine);
                let settings =
                    Settings { preempt: drill == Drill::BalancerReturn, ..with.settings(!no_failover) };
                let download = Duration::from_secs(download);
                commands::drill(&DrillOptions { drill, times, download, json, silent, settings }, out)
            }
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(why) => fail(&why.to_string()),
        }
    }
}
