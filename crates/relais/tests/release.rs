//! `relais release`: what a killed node left in the kernel is taken away, and nothing else. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use relais_lab::netns::{self, Netns};
use relais_lab::network::Network;

const VIP: &str = "10.9.0.100";
const NAME: &str = "a_killed_node_leaves_nothing_once_it_is_released_and_a_living_one_is_left_alone";
const OTHER: &str = "10.9.0.101";
const LIMIT: Duration = Duration::from_secs(10);

/// One machine, and the directory of its node.
struct Machine {
    network: Network,
    dir: PathBuf,
}

impl Machine {
    fn new() -> Machine {
        let dir = std::env::temp_dir().join(format!("relais-release-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let plan = format!(
            "platform test {{\n    drain \"1s\"\n}}\nnode a {{ link \"10.9.0.1\"; }}\nvip public {{\n    address \"{VIP}/24\" \
             interface=eth0\n    router-id 51\n    node a priority=100\n    advertise \"50ms\"\n}}\nvip other {{\n    address \"{OTHER}/24\" interface=eth0\n    \
             router-id 52\n    virtual-mac\n    node a priority=100\n    advertise \"50ms\"\n}}\nfrontend web {{\n    \
             bind \"*:80\"\n    redirect scheme=https\n}}\n"
        );
        std::fs::write(dir.join("plan.kdl"), plan).unwrap();
        let network = Network::create(&[("a", Ipv4Addr::new(10, 9, 0, 1))], None).unwrap();
        Machine { network, dir }
    }

    /// A command of this build about the plan, on the machine.
    fn relais(&self, word: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_relais"));
        command
            .arg(word)
            .arg(self.dir.join("plan.kdl"))
            .args(["--node", "a", "--run-dir"])
            .arg(self.dir.join("run"));
        command
    }

    fn run(&self, command: &mut Command) -> Output {
        self.network.host("a").netns().run(|| command.output()).unwrap()
    }

    /// Addresses, local routes, filters and tables of the machine, without the times that run.
    fn kernel(&self) -> String {
        let ask = |program: &str, words: &str| {
            let output = self.run(Command::new(program).args(words.split_whitespace()));
            String::from_utf8(output.stdout).unwrap()
        };
        ["ingress", "egress"].map(|hook| ask("tc", &format!("filter show dev eth0 {hook}"))).concat()
            + &ask("ip", "-o address show")
            + &ask("ip", "route show table local")
            + &ask("nft", "list ruleset")
    }

    fn release(&self) -> (bool, String) {
        let output = self.run(&mut self.relais("release"));
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8(said).unwrap())
    }

    fn processes(&self) -> BTreeSet<u64> {
        BTreeSet::from([self.network.host("a").netns().inode()])
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = netns::kill_all_in(&self.processes(), LIMIT);
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

#[test]
fn a_killed_node_leaves_nothing_once_it_is_released_and_a_living_one_is_left_alone() {
    if !rustix::process::geteuid().is_root() || Netns::create().is_err() {
        eprintln!("SKIPPED: {NAME} needs root");
        assert!(std::env::var_os("CI").is_none(), "CI must run {NAME}: it needs root");
        return;
    }
    let machine = Machine::new();
    let before = machine.kernel();
    assert_eq!(machine.release(), (true, "nothing was left\n".into()));

    let log = machine.dir.join("log");
    let _node = machine.network.host("a").start(&mut machine.relais("run"), &log).unwrap();
    let begin = Instant::now();
    while [VIP, OTHER].iter().any(|vip| !machine.kernel().contains(vip)) {
        assert!(begin.elapsed() < LIMIT, "{}", std::fs::read_to_string(&log).unwrap());
        std::thread::sleep(Duration::from_millis(5)); // the kernel's tables have no event for this test
    }
    let (done, said) = machine.release();
    assert!(!done && said.contains("a node runs in"), "{said}");
    assert!(machine.kernel().contains(VIP), "a living node keeps its address");

    netns::kill_all_in(&machine.processes(), LIMIT).unwrap();
    let left = machine.kernel();
    assert!([VIP, OTHER, "relais-lease", "vrrp.52"].iter().all(|trace| left.contains(trace)), "{left}");
    let (done, said) = machine.release();
    let expected = format!(
        "removed {VIP}/24 on eth0\nremoved the gate of {VIP} on eth0\n\
                            removed the interface vrrp.52 with the virtual MAC\nremoved the gate of {OTHER} on eth0\n"
    );
    assert!(done && said == expected, "{said}");
    assert_eq!(machine.kernel(), before);
    assert_eq!(machine.release(), (true, "nothing was left\n".into()));
}
