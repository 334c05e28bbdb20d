//! The vip process alone, for this crate's own tests, which play its supervisor.

fn main() -> std::process::ExitCode {
    relais_vip::main()
}
