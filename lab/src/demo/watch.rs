//! Looks at the platform as an operator would, ten times a second: each supervisor's own word on its
//! socket, the proxies' and the virtual addresses' status documents, and what the kernel has on each
//! interface. Nothing here changes anything.

use std::collections::{BTreeMap, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use relais_ipc::Channel;
use relais_ipc::message::{Answer, Ask, VipState};
use relais_ipc::status::{NodeStatus, ProxyStatus, VipsStatus, fetch_async};
use serde::Serialize;

use super::platform::Platform;

/// A process that does not answer for this long is shown as it was not.
const LIMIT: Duration = Duration::from_millis(80);
/// Looks over which rates are counted: a second of them.
const RATE_LOOKS: usize = 10;

/// The platform at one moment.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct View {
    /// Whoever is plugged in and has the address on its interface; on loopback, whoever is asked first.
    pub(crate) holder: Option<String>,
    pub(crate) balancers: Vec<BalancerView>,
    pub(crate) servers: Vec<ServerView>,
}

/// A balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct BalancerView {
    pub(crate) name: String,
    pub(crate) address: String,
    pub(crate) linked: bool,
    /// Its supervisor lives.
    pub(crate) running: bool,
    pub(crate) stopping: bool,
    /// The kernel has the virtual address on its interface.
    pub(crate) has_address: bool,
    /// `master`, `backup`, `fault`; empty: nobody there says so.
    pub(crate) state: String,
    pub(crate) reason: String,
    /// Generation of the plan in force.
    pub(crate) generation: u64,
    /// Requests a second.
    pub(crate) rate: u64,
    pub(crate) processes: Vec<ProcessView>,
}

/// A process of a balancer.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ProcessView {
    pub(crate) role: String,
    /// As processes of the demo see it.
    #[serde(skip)]
    pub(crate) pid: Option<u32>,
    /// As the visitor's own terminal sees it.
    #[serde(rename = "pid")]
    pub(crate) shown: Option<u32>,
    pub(crate) ready: bool,
    pub(crate) restarts: u64,
}

/// An application server.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct ServerView {
    pub(crate) name: String,
    pub(crate) linked: bool,
    pub(crate) instances: Vec<InstanceView>,
}

/// An application instance.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(crate) struct InstanceView {
    pub(crate) name: String,
    pub(crate) running: bool,
    pub(crate) pid: Option<u32>,
    /// The balancer gives it requests.
    pub(crate) up: bool,
    pub(crate) check: String,
    /// Requests a second.
    pub(crate) rate: u64,
}

impl View {
    /// The balancer of this name.
    pub(crate) fn balancer(&self, name: &str) -> Option<&BalancerView> {
        self.balancers.iter().find(|balancer| balancer.name == name)
    }
}

/// What must be remembered from one look to the next.
#[derive(Debug)]
pub(crate) struct Watch {
    /// Counters of the last looks, by name: a balancer's or an instance's requests.
    counted: BTreeMap<String, VecDeque<u64>>,
    pids: Pids,
}

/// What one balancer says of itself; `None` where nobody answers.
#[derive(Debug, Default)]
struct Word {
    node: Option<NodeStatus>,
    proxy: Option<ProxyStatus>,
    vips: Option<VipsStatus>,
}

impl Watch {
    /// Before the first look.
    pub(crate) fn new(platform: &Platform) -> Watch {
        Watch { counted: BTreeMap::new(), pids: Pids::new(platform.host_proc()) }
    }

    /// Looks.
    pub(crate) async fn look(&mut self, platform: &Platform) -> View {
        let mut words = Vec::new();
        for balancer in &platform.balancers {
            words.push(word(&balancer.run_dir).await);
        }
        let balancers: Vec<_> =
            words.iter().enumerate().map(|(i, word)| self.balancer(platform, i, word)).collect();
        let holder = balancers.iter().find(|balancer| {
            balancer.linked
                && balancer.running_or_holding()
                && (balancer.has_address || !platform.has_network())
        });
        let holder = holder.map(|balancer| balancer.name.clone());
        let servers = self.servers(platform, &words, holder.as_deref());
        View { holder, balancers, servers }
    }

    fn balancer(&mut self, platform: &Platform, i: usize, word: &Word) -> BalancerView {
        let machine = &platform.balancers[i];
        let vip = word.vips.as_ref().and_then(|document| document.vips.first());
        let requests = word.proxy.iter().flat_map(|proxy| &proxy.frontends).map(|f| f.requests_total).sum();
        let rate = self.rate(machine.name, requests);
        let supervisor = platform.supervisor(i).map(|identity| identity.pid);
        let mut view = BalancerView {
            name: machine.name.to_owned(),
            address: machine.address.to_string(),
            linked: platform.linked(machine.name),
            running: supervisor.is_some(),
            has_address: platform.has_address(i),
            state: vip.map_or("", |vip| state_name(vip.state)).to_owned(),
            reason: vip.map_or(String::new(), |vip| vip.reason.clone()),
            rate,
            ..BalancerView::default()
        };
        view.processes.push(ProcessView {
            role: "supervisor".into(),
            pid: supervisor,
            shown: supervisor.map(|pid| self.pids.shown(pid)),
            ready: supervisor.is_some() && word.node.is_some(),
            restarts: 0,
        });
        if let Some(node) = &word.node {
            (view.stopping, view.generation) = (node.stopping, node.generation);
            view.processes.extend(node.processes.iter().map(|process| ProcessView {
                role: process.role.name().to_owned(),
                pid: process.pid,
                shown: process.pid.map(|pid| self.pids.shown(pid)),
                ready: process.ready,
                restarts: process.restarts,
            }));
        }
        view
    }

    /// The instances, with the health that the holder sees, or whoever answers.
    fn servers(&mut self, platform: &Platform, words: &[Word], holder: Option<&str>) -> Vec<ServerView> {
        let position = platform.balancers.iter().position(|balancer| Some(balancer.name) == holder);
        let proxies: Vec<_> = words.iter().filter_map(|word| word.proxy.as_ref()).collect();
        let witness = position.and_then(|i| words[i].proxy.as_ref()).or(proxies.first().copied());
        let find = |proxy: &ProxyStatus, name: &str| {
            proxy
                .backends
                .iter()
                .flat_map(|backend| &backend.servers)
                .find(|server| server.name == name)
                .cloned()
        };
        let mut servers: Vec<ServerView> = Vec::new();
        for (i, instance) in platform.instances.iter().enumerate() {
            let seen = witness.and_then(|proxy| find(proxy, &instance.name));
            let given = proxies
                .iter()
                .filter_map(|proxy| find(proxy, &instance.name))
                .map(|s| s.sessions_total)
                .sum();
            let pid = platform.instance(i).map(|identity| identity.pid);
            let view = InstanceView {
                name: instance.name.clone(),
                running: pid.is_some(),
                pid: pid.map(|pid| self.pids.shown(pid)),
                up: seen.as_ref().is_some_and(|server| server.up),
                check: seen.map_or(String::new(), |server| server.check),
                rate: self.rate(&instance.name, given),
            };
            match servers.last_mut().filter(|server| server.name == instance.machine) {
                Some(server) => server.instances.push(view),
                None => servers.push(ServerView {
                    name: instance.machine.to_owned(),
                    linked: platform.linked(instance.machine),
                    instances: vec![view],
                }),
            }
        }
        servers
    }

    /// How much a counter grew in the last second. Counters begin anew with their process.
    fn rate(&mut self, name: &str, now: u64) -> u64 {
        let counted = self.counted.entry(name.to_owned()).or_default();
        counted.push_back(now);
        if counted.len() > RATE_LOOKS + 1 {
            counted.pop_front();
        }
        counted.iter().zip(counted.iter().skip(1)).map(|(before, after)| after.saturating_sub(*before)).sum()
    }
}

impl BalancerView {
    /// On loopback who runs is who serves; on the network, who has the address is.
    fn running_or_holding(&self) -> bool {
        self.running || self.has_address
    }
}

const fn state_name(state: VipState) -> &'static str {
    match state {
        VipState::Fault => "fault",
        VipState::Backup => "backup",
        VipState::Master => "master",
    }
}

/// Asks every process of a balancer.
async fn word(run_dir: &Path) -> Word {
    let node = async {
        let channel = Channel::connect(&run_dir.join("relais.sock")).ok()?;
        channel.send(&Ask::Status, None).await.ok()?;
        match channel.recv::<Answer>().await {
            Ok(Some((Answer::Status(status), _))) => Some(status),
            _ => None,
        }
    };
    let (proxy, vip) = (run_dir.join("proxy.sock"), run_dir.join("vip.sock"));
    let (node, proxy, vips) = tokio::join!(
        tokio::time::timeout(LIMIT, node),
        fetch_async::<ProxyStatus>(&proxy, LIMIT),
        fetch_async::<VipsStatus>(&vip, LIMIT),
    );
    Word { node: node.ok().flatten(), proxy: proxy.ok(), vips: vips.ok() }
}

/// Process ids of our namespace as the rest of the machine sees them.
#[derive(Debug)]
struct Pids {
    host_proc: Option<PathBuf>,
    namespace: Option<PathBuf>,
    known: BTreeMap<u32, u32>,
}

impl Pids {
    fn new(host_proc: Option<PathBuf>) -> Pids {
        Pids { host_proc, namespace: fs::read_link("/proc/self/ns/pid").ok(), known: BTreeMap::new() }
    }

    /// `pid` for a visitor; itself where that is the same or not known.
    fn shown(&mut self, pid: u32) -> u32 {
        if self.host_proc.is_some() && !self.known.contains_key(&pid) {
            self.known = self.all();
        }
        self.known.get(&pid).copied().unwrap_or(pid)
    }

    fn all(&self) -> BTreeMap<u32, u32> {
        let entries = self.host_proc.iter().filter_map(|proc| fs::read_dir(proc).ok()).flatten().flatten();
        entries
            .filter_map(|entry| {
                let outer = entry.file_name().to_str()?.parse().ok()?;
                let namespace = fs::read_link(entry.path().join("ns/pid")).ok();
                let ours = namespace.is_some() && namespace == self.namespace;
                let status = fs::read_to_string(entry.path().join("status")).ok().filter(|_| ours)?;
                Some((inner_pid(&status)?, outer))
            })
            .collect()
    }
}

/// The last number of `NSpid` in the text of `/proc/PID/status`: the pid in the process's own namespace.
fn inner_pid(status: &str) -> Option<u32> {
    status.lines().find_map(|line| line.strip_prefix("NSpid:"))?.split_whitespace().last()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pid_in_the_innermost_namespace_is_found() {
        assert_eq!(inner_pid("Name:\trelais\nPid:\t4711\nNSpid:\t4711\t12\t5\n"), Some(5));
        assert_eq!(inner_pid("Name:\tNSpid\n"), None);
    }

    #[test]
    fn a_rate_is_what_a_second_added_even_where_a_counter_began_anew() {
        let mut watch = Watch { counted: BTreeMap::new(), pids: Pids::new(None) };
        for look in 0..20 {
            watch.rate("a", 1_000 + look * 20);
        }
        assert_eq!(watch.rate("a", 1_400), 200);
        assert_eq!(watch.rate("a", 3), 180, "the new process's three are not a fall");
    }
}
