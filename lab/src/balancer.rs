//! The balancers: Relais, or its peer HAProxy + keepalived with the equivalent configuration, each started,
//! reloaded, stopped and asked for its health in its own way. [`crate::peer`] has the peer's files.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use relais_ipc::status::{self, ProxyStatus, VipsStatus};
use relais_ipc::{Role, VipState};
use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::netns;
use crate::peer;
use crate::platform::{Lab, Result, SERVERS};
use crate::process::Identity;

/// The lab's plan: the file that `relais check` and the documentation use.
const PLAN: &str = include_str!("../../examples/lab.kdl");
/// Longest wait for a status document.
const STATUS: Duration = Duration::from_secs(1);

/// What balances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stack {
    /// Relais.
    Relais,
    /// HAProxy and keepalived.
    Peer,
}

impl Stack {
    /// For operators and reports.
    pub fn name(self) -> &'static str {
        match self {
            Stack::Relais => "relais",
            Stack::Peer => "haproxy+keepalived",
        }
    }
}

impl Lab {
    /// Starts the balancer of a host.
    ///
    /// # Errors
    /// If its file cannot be written or its program not be started.
    pub fn start_balancer(&mut self, host: &str) -> Result<()> {
        self.write_balancer_file(host, 0)?;
        match self.settings.stack {
            Stack::Relais => {
                let mut command = Command::new(&self.settings.relais);
                command.arg("run").arg(self.plan_file(host)).args(["--node", host]);
                command.arg("--run-dir").arg(self.run_dir(host));
                self.start(host, "relais", &mut command)
            }
            Stack::Peer => {
                if self.process(&format!("{host}/haproxy")).is_none() {
                    self.start(host, "haproxy", &mut peer::haproxy(&self.dir.join(host)))?;
                }
                if self.process(&format!("{host}/keepalived")).is_none() {
                    self.start(host, "keepalived", &mut peer::keepalived(&self.dir.join(host)))?;
                }
                Ok(())
            }
        }
    }

    /// Begins a planned stop of a host's balancer as its manual says; returns before it has ended.
    ///
    /// # Errors
    /// If it does not run.
    pub fn stop_balancer(&self, host: &str) -> Result<()> {
        match self.settings.stack {
            Stack::Relais => self.signal(&format!("{host}/relais"), Signal::TERM),
            Stack::Peer => {
                // The address first, and only then the service, gracefully.
                let keepalived = format!("{host}/keepalived");
                self.signal(&keepalived, Signal::TERM)?;
                let deadline = Instant::now() + Duration::from_secs(5);
                while self.process(&keepalived).is_some() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(1));
                }
                self.signal(&format!("{host}/haproxy"), Signal::USR1)
            }
        }
    }

    /// Has a host's node hold no address, or be as others again: `relais standby`, `relais ready`. Returns when it is done.
    ///
    /// # Errors
    /// If it cannot be done, or the balancer has no such command.
    pub fn standby(&self, host: &str, on: bool) -> Result<()> {
        if self.settings.stack == Stack::Peer {
            return Err("HAProxy and keepalived have no standby: stop them instead".to_owned());
        }
        let word = if on { "standby" } else { "ready" };
        let mut command = Command::new(&self.settings.relais);
        command.arg(word).arg(host).arg("--run-dir").arg(self.run_dir(host));
        let output = command.output().map_err(|e| format!("relais {word} cannot be run: {e}"))?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
        }
    }

    /// Changes a balancer's file in something that matters and has it read again; `edition` makes the change
    /// differ from the one before.
    ///
    /// # Errors
    /// If the file cannot be written or the balancer does not run.
    pub fn reload_balancer(&self, host: &str, edition: u32) -> Result<()> {
        self.write_balancer_file(host, edition)?;
        match self.settings.stack {
            Stack::Relais => self.signal(&format!("{host}/relais"), Signal::HUP),
            Stack::Peer => self.signal(&format!("{host}/haproxy"), Signal::USR2),
        }
    }

    /// A process of a host's balancer, the newest if there are several; the peer has only the one that serves
    /// clients, which is its [`Role::Proxy`].
    pub fn child(&self, host: &str, role: Role) -> Option<Identity> {
        let (starter, name) = match (self.settings.stack, role) {
            (Stack::Relais, _) => ("relais", format!("relais-{}", role.name())),
            (Stack::Peer, Role::Proxy) => ("haproxy", String::new()),
            (Stack::Peer, _) => return None,
        };
        let starter = self.process(&format!("{host}/{starter}"))?;
        let mut children = self.processes_on(host);
        children.retain(|process| {
            process
                .parent_and_name()
                .is_some_and(|(parent, argv0)| parent == starter.pid && argv0.contains(&name))
        });
        children.into_iter().max_by_key(|process| process.start)
    }

    /// The process that would heal the others of a host's balancer.
    pub fn supervisor(&self, host: &str) -> Option<Identity> {
        let name = match self.settings.stack {
            Stack::Relais => "relais",
            Stack::Peer => "haproxy",
        };
        self.process(&format!("{host}/{name}"))
    }

    /// Kills every process of a host's balancer at once.
    ///
    /// # Errors
    /// If some do not die.
    pub fn kill_balancer(&self, host: &str) -> Result<()> {
        let inodes = BTreeSet::from([self.network().host(host).netns().inode()]);
        netns::kill_all_in(&inodes, Duration::from_secs(5)).map(drop).map_err(|e| e.to_string())
    }

    /// Why a host's balancer is not well: dead, not in the election, or calling a server down.
    pub fn balancer_fault(&self, host: &str) -> Option<String> {
        let names: &[&str] = match self.settings.stack {
            Stack::Relais => &["relais"],
            Stack::Peer => &["haproxy", "keepalived"],
        };
        if let Some(name) = names.iter().find(|name| self.process(&format!("{host}/{name}")).is_none()) {
            return Some(format!("{name} on {host} is dead"));
        }
        let fault = match self.settings.stack {
            Stack::Relais => self.relais_fault(host),
            Stack::Peer => peer::fault(&self.dir.join(host)),
        };
        fault.err().map(|why| format!("{host}: {why}"))
    }

    fn relais_fault(&self, host: &str) -> Result<()> {
        let unanswered = |e| format!("no status yet ({e})");
        let proxy: ProxyStatus =
            status::fetch(&self.run_dir(host).join("proxy.sock"), STATUS).map_err(unanswered)?;
        let mut servers = proxy.backends.iter().flat_map(|b| &b.servers).peekable();
        if servers.peek().is_none() {
            return Err("the proxy has no server yet".into());
        }
        if let Some(down) = servers.find(|server| !server.up) {
            return Err(format!("server {} is down ({})", down.name, down.check));
        }
        let vips: VipsStatus =
            status::fetch(&self.run_dir(host).join("vip.sock"), STATUS).map_err(unanswered)?;
        if vips.vips.is_empty() {
            return Err("no virtual address yet".into());
        }
        match vips.vips.iter().find(|vip| vip.state == VipState::Fault) {
            Some(vip) => Err(format!("{} is not in the election: {}", vip.name, vip.reason)),
            None => Ok(()),
        }
    }

    /// Run directory of a host's Relais: its status sockets are there.
    pub fn run_dir(&self, host: &str) -> PathBuf {
        self.dir.join(host).join("run")
    }

    fn plan_file(&self, host: &str) -> PathBuf {
        self.dir.join(host).join("lab.kdl")
    }

    fn write_balancer_file(&self, host: &str, edition: u32) -> Result<()> {
        let written = match self.settings.stack {
            Stack::Relais => fs::write(self.plan_file(host), self.plan(edition)?),
            Stack::Peer => {
                let servers = self.instances().into_iter().map(|(server, number)| {
                    (format!("{server}-{number}"), self.instance_address(server, number))
                });
                let servers: Vec<_> = servers.collect();
                peer::write(&self.dir.join(host), host, &servers, self.settings.advertise_ms, edition)
            }
        };
        written.map_err(|e| format!("{host}'s file cannot be written: {e}"))
    }

    /// The example's text with what the settings vary.
    fn plan(&self, edition: u32) -> Result<String> {
        let mut text = PLAN.to_owned();
        let mut vary = |old: &str, new: &str| {
            if text.matches(old).count() != 1 {
                return Err(format!("examples/lab.kdl has no `{old}` to vary any more"));
            }
            text = text.replace(old, new);
            Ok(())
        };
        vary("advertise \"50ms\"", &format!("advertise \"{}ms\"", self.settings.advertise_ms))?;
        vary("drain \"10s\"", &format!("drain \"{}s\"", self.settings.drain_s))?;
        if self.settings.witness {
            let key = self.cluster_key()?;
            vary(
                "access-log off",
                &format!("access-log off\n    secret cluster-key file=\"{}\"", key.display()),
            )?;
        }
        if self.settings.preempt {
            vary("preempt never", "preempt always")?;
        }
        vary("retries 3", &format!("retries {}", 3 + edition % 2))?;
        vary("max-connections 20000", &format!("max-connections {}", 20_000 + edition))?;
        if !self.settings.failover {
            let only = self.instance_address(SERVERS[0], 1);
            vary("servers tomcat=app ", &format!("server only \"{only}\" "))?;
        }
        Ok(text)
    }

    /// What the nodes know each other by: a file that they share, as a lab's machines may.
    fn cluster_key(&self) -> Result<PathBuf> {
        let path = self.dir.join("cluster.key");
        if !path.exists() {
            let key = format!("the key of lab {}, which is no secret\n", self.settings.id);
            fs::write(&path, key).map_err(|e| format!("{} cannot be written: {e}", path.display()))?;
        }
        Ok(path)
    }

    /// Sends a signal to a process by its name.
    ///
    /// # Errors
    /// If it does not run.
    pub fn signal(&self, name: &str, signal: Signal) -> Result<()> {
        match self.process(name) {
            Some(process) if process.signal(signal) => Ok(()),
            _ => Err(format!("{name} does not run")),
        }
    }
}
