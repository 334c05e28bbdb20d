//! The demo's machines and what runs on them: two balancers, two application servers with two instances
//! each, one client. It starts, cuts, kills and mends; what that does to anybody is not its affair.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::{Args, Depth};
use crate::netns::Netns;
use crate::network::{Link, Network};
use crate::process::{Identity, Running};

/// The machines with the addresses that the thesis gave them.
const BALANCERS: [(&str, Ipv4Addr); 2] =
    [("haproxy1", Ipv4Addr::new(192, 168, 112, 176)), ("haproxy2", Ipv4Addr::new(192, 168, 112, 178))];
const SERVERS: [(&str, Ipv4Addr); 2] =
    [("tomcat1", Ipv4Addr::new(192, 168, 112, 177)), ("tomcat2", Ipv4Addr::new(192, 168, 112, 174))];
const CLIENT: (&str, Ipv4Addr) = ("client", Ipv4Addr::new(192, 168, 112, 10));
/// The address that the client knows.
const VIRTUAL: Ipv4Addr = Ipv4Addr::new(192, 168, 112, 180);
/// Instances on an application server.
const INSTANCES: u16 = 2;

/// One balancer.
#[derive(Debug)]
pub(crate) struct Balancer {
    pub(crate) name: &'static str,
    /// Where its frontend is when it holds the virtual address, or always, on loopback.
    pub(crate) frontend: SocketAddr,
    pub(crate) address: Ipv4Addr,
    pub(crate) run_dir: PathBuf,
    plan: PathBuf,
    running: Option<Running>,
}

/// One application instance.
#[derive(Debug)]
pub(crate) struct Instance {
    pub(crate) name: String,
    pub(crate) machine: &'static str,
    pub(crate) listen: SocketAddr,
    running: Option<Running>,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Platform {
    depth: Depth,
    run_dir: PathBuf,
    network: Option<Network>,
    pub(crate) balancers: Vec<Balancer>,
    pub(crate) instances: Vec<Instance>,
    cut: BTreeSet<&'static str>,
    /// Children of our balancers that the kernel gives to us if their supervisor dies first.
    orphans: BTreeSet<u32>,
}

impl Platform {
    /// The machines and their network; nothing runs yet.
    pub(crate) fn create(args: &Args) -> io::Result<Platform> {
        let network = match args.depth {
            Depth::Loopback => None,
            Depth::Full | Depth::Network => {
                let hosts: Vec<_> = BALANCERS.into_iter().chain(SERVERS).chain([CLIENT]).collect();
                Some(Network::create(&hosts, None)?)
            }
        };
        let loopback = network.is_none();
        let mut instances = Vec::new();
        for (machine, address) in SERVERS {
            for n in 1..=INSTANCES {
                let listen = if loopback { free_port(address)? } else { (address, 8080 + n).into() };
                let name = format!("{machine}-{n}");
                instances.push(Instance { name, machine, listen, running: None });
            }
        }
        let mut balancers = Vec::new();
        for (name, address) in BALANCERS {
            let run_dir = args.run_dir.join(name);
            let plan = args.run_dir.join(format!("{name}.kdl"));
            let frontend = if loopback { free_port(address)? } else { (VIRTUAL, 80).into() };
            let text =
                if loopback { loopback_plan(name, frontend, &instances)? } else { plan_text(&instances) };
            std::fs::write(&plan, text)?;
            balancers.push(Balancer { name, frontend, address, run_dir, plan, running: None });
        }
        Ok(Platform {
            depth: args.depth,
            run_dir: args.run_dir.clone(),
            network,
            balancers,
            instances,
            cut: BTreeSet::new(),
            orphans: BTreeSet::new(),
        })
    }

    /// Starts everything.
    pub(crate) fn start_all(&mut self) -> io::Result<()> {
        (0..self.instances.len()).try_for_each(|i| self.start_instance(i))?;
        (0..self.balancers.len()).try_for_each(|i| self.start_balancer(i))
    }

    /// Whether there is a virtual address, and cables that can be cut.
    pub(crate) fn has_network(&self) -> bool {
        self.network.is_some()
    }

    /// The virtual address.
    pub(crate) fn virtual_address(&self) -> Option<Ipv4Addr> {
        self.network.as_ref().map(|_| VIRTUAL)
    }

    /// Where the enrolments are.
    pub(crate) fn store(&self) -> PathBuf {
        self.run_dir.join("enrolments")
    }

    /// Where the machine's own `/proc` is, if ours is another.
    pub(crate) fn host_proc(&self) -> Option<PathBuf> {
        (self.depth == Depth::Full).then(|| self.run_dir.join("host-proc"))
    }

    /// Where a client finds the platform: to be tried in turn, for each request anew.
    pub(crate) fn doors(&self) -> Vec<SocketAddr> {
        let mut doors: Vec<_> = self.balancers.iter().map(|balancer| balancer.frontend).collect();
        doors.dedup(); // the virtual address is one for both
        doors
    }

    /// The client's machine, if it is not this one.
    pub(crate) fn client_netns(&self) -> Option<&Netns> {
        self.network.as_ref().map(|network| network.host(CLIENT.0).netns())
    }

    fn start(&self, machine: &str, log: &str, args: &[&str], rest: &[&Path]) -> io::Result<Running> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).args(rest).env_remove("NOTIFY_SOCKET");
        let log = self.run_dir.join(format!("{log}.log"));
        match &self.network {
            Some(network) => network.host(machine).start(&mut command, &log),
            None => Running::start_here(&mut command, &log),
        }
    }

    /// Starts an instance that does not run.
    pub(crate) fn start_instance(&mut self, i: usize) -> io::Result<()> {
        let Instance { name, machine, listen, .. } = &self.instances[i];
        let listen = listen.to_string();
        let args = ["child", "app", "--listen", &listen, "--name", name, "--store"];
        let running = self.start(machine, name, &args, &[&self.store()])?;
        self.instances[i].running = Some(running);
        Ok(())
    }

    /// Starts `relais run` for a balancer on which nothing runs.
    pub(crate) fn start_balancer(&mut self, i: usize) -> io::Result<()> {
        let Balancer { name, plan, run_dir, .. } = &self.balancers[i];
        let args = ["run", "--node", name, "--run-dir"];
        let running = self.start(name, name, &args, &[run_dir, plan])?;
        self.balancers[i].running = Some(running);
        Ok(())
    }

    /// Whether a balancer's supervisor lives.
    pub(crate) fn supervisor(&self, i: usize) -> Option<Identity> {
        alive(self.balancers[i].running.as_ref())
    }

    /// An instance's process.
    pub(crate) fn instance(&self, i: usize) -> Option<Identity> {
        alive(self.instances[i].running.as_ref())
    }

    /// Whether a machine's cable is in.
    pub(crate) fn linked(&self, machine: &str) -> bool {
        !self.cut.contains(machine)
    }

    /// Whether a balancer's interface has the virtual address now.
    pub(crate) fn has_address(&self, i: usize) -> bool {
        let host = self.network.as_ref().map(|network| network.host(self.balancers[i].name));
        host.is_some_and(|host| host.has_address(VIRTUAL).unwrap_or(false))
    }

    /// Pulls a machine's cable, or plugs it in.
    pub(crate) fn set_link(&mut self, machine: &'static str, plugged: bool) -> io::Result<()> {
        let Some(network) = &self.network else {
            return Err(io::Error::other("on loopback addresses there are no cables"));
        };
        network.set_link(machine, if plugged { Link::Up } else { Link::Cut })?;
        if plugged {
            self.cut.remove(machine)
        } else {
            self.cut.insert(machine)
        };
        Ok(())
    }

    /// These children of a balancer may become ours.
    pub(crate) fn expect_orphans(&mut self, pids: impl Iterator<Item = u32>) {
        self.orphans.extend(pids);
    }

    /// Takes away what is left of the dead.
    pub(crate) fn bury(&mut self) {
        let balancers = self.balancers.iter_mut().map(|balancer| &mut balancer.running);
        let instances = self.instances.iter_mut().map(|instance| &mut instance.running);
        for running in balancers.chain(instances) {
            if running.as_mut().is_some_and(|running| running.ended().is_some()) {
                *running = None;
            }
        }
        self.orphans.retain(|pid| {
            let Some(id) = i32::try_from(*pid).ok().and_then(rustix::process::Pid::from_raw) else {
                return false;
            };
            let buried = rustix::process::waitpid(Some(id), rustix::process::WaitOptions::NOHANG);
            !matches!(buried, Ok(Some(_)))
        });
    }

    /// Kills whatever lives, and waits for the end of it.
    pub(crate) fn kill_all(&mut self) {
        let orphans: Vec<_> = self.orphans.iter().filter_map(|pid| Identity::of(*pid)).collect();
        let supervisors = (0..self.balancers.len()).filter_map(|i| self.supervisor(i));
        let instances = (0..self.instances.len()).filter_map(|i| self.instance(i));
        let all: Vec<_> = supervisors.chain(orphans).chain(instances).collect();
        for process in &all {
            process.signal(Signal::KILL);
        }
        let limit = Instant::now() + Duration::from_secs(1);
        while all.iter().any(Identity::is_alive) && Instant::now() < limit {
            std::thread::sleep(Duration::from_millis(2)); // death has no event for who is not the parent
        }
    }
}

fn alive(running: Option<&Running>) -> Option<Identity> {
    running.map(|running| running.identity).filter(Identity::is_alive)
}

/// A free port on the loopback address that ends as the machine's own does.
fn free_port(address: Ipv4Addr) -> io::Result<SocketAddr> {
    let [_, _, c, d] = address.octets();
    TcpListener::bind((IpAddr::from([127, 0, c, d]), 0))?.local_addr()
}

/// The servers of the backend, as the plan names them.
fn servers(instances: &[Instance]) -> String {
    let line = |instance: &Instance| format!("    server {} \"{}\"\n", instance.name, instance.listen);
    instances.iter().map(line).collect()
}

const PLAN: &str = include_str!("platform.kdl");

/// The plan, the same for both balancers.
fn plan_text(instances: &[Instance]) -> String {
    PLAN.replace("    // servers\n", &servers(instances))
}

/// The plan of one balancer on loopback addresses: all listens on one machine, so each has its own, and
/// there is no virtual address.
fn loopback_plan(name: &str, frontend: SocketAddr, instances: &[Instance]) -> io::Result<String> {
    let admin = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
    let text = plan_text(instances).replace("127.0.0.1:8404", &admin.to_string());
    let text = text
        .replace("\"*:80\"", &format!("\"{frontend}\""))
        .replace("on haproxy1 haproxy2", &format!("on {name}"));
    let parts: Vec<&str> = text.split("// ---- the address").collect();
    let (before, after) = match parts.as_slice() {
        [before, rest] => (before, rest.split_once("// ---- the door").map_or("", |(_, after)| after)),
        _ => return Err(io::Error::other("the demo's plan has no part about the address")),
    };
    Ok(format!("{before}// ---- the door{after}"))
}
