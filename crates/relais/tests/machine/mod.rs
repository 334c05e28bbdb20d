//! One machine in a network namespace with a node of its own, for tests of what that does to the kernel. Needs root.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its part")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use relais_lab::netns::{self, Netns};
use relais_lab::network::Network;
use relais_lab::process::Running;

pub const VIP: &str = "10.9.0.100";
pub const OTHER: &str = "10.9.0.101";
pub const LIMIT: Duration = Duration::from_secs(10);

/// Whether namespaces can be had; where not, the test of this name is skipped out loud, and fails in CI.
pub fn can_run(name: &str) -> bool {
    let can = rustix::process::geteuid().is_root() && Netns::create().is_ok();
    if !can {
        eprintln!("SKIPPED: {name} needs root");
        assert!(std::env::var_os("CI").is_none(), "CI must run {name}: it needs root");
    }
    can
}

/// See the module's documentation.
pub struct Machine {
    network: Network,
    pub dir: PathBuf,
}

impl Machine {
    /// `more`: lines of the vip, in which `DIR` is the directory.
    pub fn new(more: &str) -> Machine {
        let dir = std::env::temp_dir().join(format!("relais-machine-{}", std::process::id()));
        let more = more.replace("DIR", &dir.display().to_string());
        std::fs::create_dir_all(&dir).unwrap();
        let plan = format!(
            "platform test {{\n    drain \"1s\"\n}}\nnode a {{ link \"10.9.0.1\"; }}\nvip public {{\n    address \"{VIP}/24\" \
             interface=eth0\n    router-id 51\n    node a priority=100\n    advertise \"50ms\"\n    {more}\n}}\nvip other {{\n    address \"{OTHER}/24\" interface=eth0\n    \
             router-id 52\n    virtual-mac\n    node a priority=100\n    advertise \"50ms\"\n}}\nfrontend web {{\n    \
             bind \"*:80\"\n    redirect scheme=https\n}}\n"
        );
        std::fs::write(dir.join("plan.kdl"), plan).unwrap();
        let network = Network::create(&[("a", Ipv4Addr::new(10, 9, 0, 1))], None).unwrap();
        Machine { network, dir }
    }

    /// A command of this build about the plan, on the machine.
    pub fn relais(&self, word: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        command
            .arg(word)
            .arg(self.dir.join("plan.kdl"))
            .args(["--node", "a", "--run-dir"])
            .arg(self.dir.join("run"));
        command
    }

    /// Runs the node, and where its log is.
    pub fn start(&self) -> (Running, PathBuf) {
        let log = self.dir.join("log");
        (self.network.host("a").start(&mut self.relais("run"), &log).unwrap(), log)
    }

    pub fn run(&self, command: &mut Command) -> Output {
        self.network.host("a").netns().run(|| command.output()).unwrap()
    }

    /// Addresses, local routes, filters and tables of the machine, without the times that run.
    pub fn kernel(&self) -> String {
        let ask = |program: &str, words: &str| {
            let output = self.run(Command::new(program).args(words.split_whitespace()));
            String::from_utf8(output.stdout).unwrap()
        };
        ["ingress", "egress"].map(|hook| ask("tc", &format!("filter show dev eth0 {hook}"))).concat()
            + &ask("ip", "-o address show")
            + &ask("ip", "route show table local")
            + &ask("nft", "list ruleset")
    }

    pub fn release(&self) -> (bool, String) {
        let output = self.run(&mut self.relais("release"));
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    pub fn processes(&self) -> BTreeSet<u64> {
        BTreeSet::from([self.network.host("a").netns().inode()])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = netns::kill_all_in(&self.processes(), LIMIT);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
