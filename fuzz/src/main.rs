//! `relais-fuzz TARGET... --seconds N --seed N`: fuzzes for a while, and says which input fails, if one does.

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use relais_fuzz::seeds::escape;
use relais_fuzz::targets::TARGETS;

/// Fuzzes what reads strangers' bytes
#[derive(Parser)]
struct Args {
    /// Names of targets; all of them if none is given
    targets: Vec<String>,
    /// Only name the targets
    #[arg(long)]
    list: bool,
    /// How long for each, in seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the random numbers begin
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> ExitCode {
    let args = Args::parse();
    if args.list {
        TARGETS.iter().for_each(|target| println!("{}", target.name));
        return ExitCode::SUCCESS;
    }
    if let Some(unknown) = args.targets.iter().find(|name| !TARGETS.iter().any(|t| t.name == **name)) {
        let names: Vec<&str> = TARGETS.iter().map(|t| t.name).collect();
        eprintln!("fuzz: no target {unknown}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let mut bad = false;
    for target in
        TARGETS.iter().filter(|t| args.targets.is_empty() || args.targets.iter().any(|n| n == t.name))
    {
        match relais_fuzz::run(target, args.seed, Duration::from_secs(args.seconds)) {
            Ok(tried) => {
                println!("fuzz {}: {tried} inputs in {} s, seed {}", target.name, args.seconds, args.seed)
            }
            Err(finding) => {
                bad = true;
                println!(
                    "fuzz {}: FAILED after {} inputs: {}\n  add to fuzz/corpus/{}.seeds:\n{}",
                    target.name,
                    finding.tried,
                    finding.fault,
                    target.name,
                    escape(&finding.input)
                );
            }
        }
    }
    if bad { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
