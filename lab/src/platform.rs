//! The platform on the lab's network: which machines there are, what runs on them, where its files and its
//! memory are, and how all of it is removed whatever happened. Balancers are [`crate::balancer`]'s, application
//! servers [`crate::application`]'s; the commands, the drills and the demo call this.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde::{Deserialize, Serialize};

use crate::application::Application;
use crate::balancer::Stack;
use crate::netns::{self, Netns};
use crate::network::Network;
use crate::process::{Identity, Running};

/// The machines, with the thesis's addresses.
pub const HOSTS: [(&str, Ipv4Addr); 5] = [
    ("haproxy1", Ipv4Addr::new(192, 168, 112, 176)),
    ("haproxy2", Ipv4Addr::new(192, 168, 112, 178)),
    ("tomcat1", Ipv4Addr::new(192, 168, 112, 177)),
    ("tomcat2", Ipv4Addr::new(192, 168, 112, 174)),
    (CLIENT, Ipv4Addr::new(192, 168, 112, 200)),
];
/// The machines that balance, the preferred holder of the address first.
pub const BALANCERS: [&str; 2] = ["haproxy1", "haproxy2"];
/// The machines that run the application.
pub const SERVERS: [&str; 2] = ["tomcat1", "tomcat2"];
/// The machine that asks.
pub const CLIENT: &str = "client";
/// The address that users know.
pub const VIP: Ipv4Addr = Ipv4Addr::new(192, 168, 112, 180);
/// Where users ask.
pub const FRONT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(VIP), 80);

/// What everything that is killed gets to be gone.
const DEATH: Duration = Duration::from_secs(5);
/// Longest wait for the whole platform to be well.
const STEADY: Duration = Duration::from_secs(120);
const STATE_FILE: &str = "lab.json";
/// How the id of a lab begins that is to end with its maker; the maker's pid follows.
const OWN: &str = "drill-";

/// Errors are one sentence for the operator.
pub type Result<T> = std::result::Result<T, String>;

/// What a lab is to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Tells labs on one machine apart: letters, digits and `-`, at most 32. Namespaces are `relais-lab-ID-HOST`.
    pub id: String,
    /// The `relais` binary.
    pub relais: PathBuf,
    /// What balances.
    pub stack: Stack,
    /// What the application servers run.
    pub application: Application,
    /// Without it there is one balancer, and one application instance: nothing can stand in for anything.
    pub failover: bool,
    /// A balancer of higher priority that returns takes the address back.
    #[serde(default)]
    pub preempt: bool,
    /// VRRP's advertisement interval, milliseconds: 10 to 40950.
    pub advertise_ms: u64,
    /// How long a balancer that stops lets open connections finish, seconds.
    #[serde(default = "drain_s")]
    pub drain_s: u64,
    /// The application servers run Relais too, as witnesses of who is cut off from whom.
    #[serde(default)]
    pub witness: bool,
}

const fn drain_s() -> u64 {
    10
}

impl Settings {
    /// The lab as it is when nothing is asked for, running this very binary.
    pub fn new() -> Settings {
        Settings {
            id: "1".into(),
            relais: std::env::current_exe().unwrap_or_else(|_| "relais".into()),
            stack: Stack::Relais,
            application: Application::installed(),
            failover: true,
            preempt: false,
            advertise_ms: 50,
            drain_s: drain_s(),
            witness: false,
        }
    }

    fn prefix(&self) -> Result<String> {
        prefix(&self.id)
    }
}

impl Default for Settings {
    fn default() -> Settings {
        Settings::new()
    }
}

fn prefix(id: &str) -> Result<String> {
    let good = |c: char| c.is_ascii_alphanumeric() || c == '-';
    if id.is_empty() || id.len() > 32 || !id.chars().all(good) {
        return Err(format!("`{id}` cannot name a lab: use letters, digits and `-`, at most 32"));
    }
    Ok(format!("relais-lab-{id}"))
}

/// What is kept on the disk of a lab that outlives its maker.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct State {
    settings: Settings,
    /// Who made it.
    maker: Option<Identity>,
    processes: BTreeMap<String, Identity>,
}

impl State {
    /// `None`: its maker died before it could write it.
    fn read(dir: &Path) -> Option<State> {
        serde_json::from_str(&fs::read_to_string(dir.join(STATE_FILE)).ok()?).ok()
    }
}

/// A lab.
#[derive(Debug)]
pub struct Lab {
    pub(crate) settings: Settings,
    pub(crate) dir: PathBuf,
    network: Network,
    processes: BTreeMap<String, Identity>,
    children: Vec<Running>,
    maker: Option<Identity>,
    /// Its namespaces have names: it outlives this value, until [`Lab::down`].
    pinned: bool,
}

impl Lab {
    /// Makes a lab that outlives this process; `say` hears of the progress.
    ///
    /// # Errors
    /// If one of this id is up, without root, or if something does not get well; then nothing is left.
    pub fn up(settings: Settings, say: &mut dyn FnMut(&str)) -> Result<Lab> {
        let prefix = settings.prefix()?;
        let id = settings.id.clone();
        if !Netns::pinned(&format!("{prefix}-")).is_empty() {
            return Err(format!("lab {id} is up already: use it, or end it with `relais lab down`"));
        }
        let dir = state_dir(&id)?;
        let made = Lab::make(settings, dir, Some(&prefix)).and_then(|mut lab| lab.fill(say).map(|()| lab));
        made.inspect_err(|_| drop(Lab::down(&id)))
    }

    /// Makes a lab in `dir` that ends with this value (or with this process's user namespace).
    ///
    /// # Errors
    /// As [`Lab::up`].
    pub fn private(settings: Settings, dir: &Path, say: &mut dyn FnMut(&str)) -> Result<Lab> {
        let mut lab = Lab::make(settings, dir.to_owned(), None)?;
        lab.fill(say)?;
        Ok(lab)
    }

    fn make(settings: Settings, dir: PathBuf, prefix: Option<&str>) -> Result<Lab> {
        let in_dir = |e| format!("the lab's files cannot be kept in {}: {e}", dir.display());
        for (host, _) in HOSTS {
            fs::create_dir_all(dir.join(host)).map_err(in_dir)?;
        }
        let network = Network::create(&HOSTS, prefix).map_err(|error| match error.kind() {
            std::io::ErrorKind::PermissionDenied => {
                "a lab needs root for its network namespaces: run this as root, or try `relais demo`"
                    .to_owned()
            }
            _ => format!("the lab's network cannot be made: {error}"),
        })?;
        let pinned = prefix.is_some();
        let (processes, children, maker) = (BTreeMap::new(), Vec::new(), Identity::of(std::process::id()));
        let lab = Lab { settings, dir, network, processes, children, maker, pinned };
        lab.save()?;
        Ok(lab)
    }

    /// Starts everything and waits until it is well.
    fn fill(&mut self, say: &mut dyn FnMut(&str)) -> Result<()> {
        let instances = self.instances();
        say(&format!("starting {} x {}", instances.len(), self.settings.application.name()));
        for (host, number) in &instances {
            self.start_instance(host, *number)?;
        }
        self.wait("the application", STEADY, Lab::application_fault)?;
        say(&format!("starting {}", self.settings.stack.name()));
        for host in self.balancers() {
            self.start_balancer(host)?;
        }
        if self.settings.witness {
            SERVERS.iter().try_for_each(|host| self.start_balancer(host))?;
        }
        self.wait_until_well()
    }

    /// The lab that another process has made and left up.
    ///
    /// # Errors
    /// If there is none, or it is broken.
    pub fn attach(id: &str) -> Result<Lab> {
        let prefix = prefix(id)?;
        if Netns::pinned(&format!("{prefix}-")).is_empty() {
            return Err(format!("lab {id} is not up: make it with `relais lab up`"));
        }
        let broken = |why: String| format!("lab {id} is broken ({why}): end it with `relais lab down`");
        let dir = state_dir(id)?;
        let text = fs::read_to_string(dir.join(STATE_FILE)).map_err(|e| broken(e.to_string()))?;
        let state: State = serde_json::from_str(&text).map_err(|e| broken(e.to_string()))?;
        let network = Network::attach(&HOSTS, &prefix).map_err(|e| broken(e.to_string()))?;
        let State { settings, maker, processes } = state;
        Ok(Lab { settings, dir, network, processes, children: Vec::new(), maker, pinned: true })
    }

    /// Ends the lab of this id and removes all of it, whoever made it and whatever became of him; whether there
    /// was anything to remove.
    ///
    /// # Errors
    /// If something resists.
    pub fn down(id: &str) -> Result<bool> {
        let pins = Netns::pinned(&format!("{}-", prefix(id)?));
        let dir = state_dir(id)?;
        for process in State::read(&dir).iter().flat_map(|state| state.processes.values()) {
            process.signal(Signal::KILL);
        }
        let inodes = pins.iter().filter_map(|(_, netns)| netns.as_ref()).map(Netns::inode).collect();
        netns::kill_all_in(&inodes, DEATH).map_err(|e| format!("lab {id} cannot be ended: {e}"))?;
        for (path, _) in &pins {
            Netns::unpin(path).map_err(|e| format!("{} cannot be removed: {e}", path.display()))?;
        }
        let had_files = dir.exists();
        if had_files {
            fs::remove_dir_all(&dir).map_err(|e| format!("{} cannot be removed: {e}", dir.display()))?;
        }
        let _ = dir.parent().map(fs::remove_dir); // where another lab is, it stays
        Ok(had_files || !pins.is_empty())
    }

    /// Settings for a lab that is this process's own, for as long as it lives.
    pub fn own(settings: &Settings) -> Settings {
        Settings { id: format!("{OWN}{}", std::process::id()), ..settings.clone() }
    }

    /// Ends every lab of [`Lab::own`] whose process is dead; their ids.
    ///
    /// # Errors
    /// If something resists.
    pub fn end_abandoned() -> Result<Vec<String>> {
        let mut ended = Vec::new();
        let root = state_dir(OWN)?;
        let entries = root.parent().and_then(|root| fs::read_dir(root).ok());
        let ids = entries.into_iter().flatten().flatten().filter_map(|e| e.file_name().into_string().ok());
        for id in ids.filter(|id| id.starts_with(OWN)) {
            let maker = State::read(&state_dir(&id)?).and_then(|state| state.maker);
            let pid = || id.strip_prefix(OWN).and_then(|pid| pid.parse().ok());
            if !maker.or_else(|| pid().and_then(Identity::of)).is_some_and(|maker| maker.is_alive()) {
                Lab::down(&id)?;
                ended.push(id);
            }
        }
        Ok(ended)
    }

    /// What it is.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Where its files are: `HOST/` for each machine.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// The balancers that it has: both, or one without failover.
    pub fn balancers(&self) -> &'static [&'static str] {
        if self.settings.failover { &BALANCERS } else { &BALANCERS[..1] }
    }

    /// The balancers that have the address now.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn holders(&self) -> Result<Vec<&'static str>> {
        let mut holders = Vec::new();
        for host in BALANCERS {
            let has = self.network.host(host).has_address(VIP);
            if has.map_err(|e| format!("{host} does not say its addresses: {e}"))? {
                holders.push(host);
            }
        }
        Ok(holders)
    }

    /// Every process on a host.
    pub fn processes_on(&self, host: &str) -> Vec<Identity> {
        netns::processes_in(&BTreeSet::from([self.network.host(host).netns().inode()]))
    }

    /// The process that was started under this name, such as `haproxy1/relais` or `tomcat1/app-1`, if it lives.
    pub fn process(&self, name: &str) -> Option<Identity> {
        self.processes.get(name).copied().filter(Identity::is_alive)
    }

    /// Everything that was started, by name, dead or alive.
    pub fn processes(&self) -> &BTreeMap<String, Identity> {
        &self.processes
    }

    /// Starts a program on a host as `HOST/NAME`; what it says is in `DIR/HOST/NAME.log`.
    pub(crate) fn start(&mut self, host: &str, name: &str, command: &mut Command) -> Result<()> {
        self.reap();
        let log = self.dir.join(host).join(format!("{name}.log"));
        let running = self.network.host(host).start(command, &log);
        let running = running.map_err(|e| format!("{name} cannot be started on {host}: {e}"))?;
        self.processes.insert(format!("{host}/{name}"), running.identity);
        self.children.push(running);
        self.save()
    }

    /// Why the platform is not well, if so: an instance or balancer is not, or not exactly one holds the address.
    pub fn fault(&self) -> Option<String> {
        let balancers = || self.balancers().iter().find_map(|host| self.balancer_fault(host));
        let holders = || match self.holders() {
            Err(why) => Some(why),
            Ok(holders) if holders.len() == 1 => None,
            Ok(holders) if holders.is_empty() => Some("nobody holds the address".into()),
            Ok(_) => Some("both balancers hold the address".into()),
        };
        self.application_fault().or_else(balancers).or_else(holders)
    }

    /// Waits until the platform is well.
    ///
    /// # Errors
    /// What is not well after two minutes.
    pub fn wait_until_well(&mut self) -> Result<()> {
        self.wait("the platform", STEADY, Lab::fault)
    }

    fn wait(&mut self, what: &str, limit: Duration, fault: impl Fn(&Lab) -> Option<String>) -> Result<()> {
        let deadline = Instant::now() + limit;
        while let Some(why) = fault(self) {
            if let Some(dead) = self.processes.keys().find(|name| self.process(name).is_none()) {
                return Err(format!("{dead} died: {}", self.last_words(dead)));
            }
            if Instant::now() >= deadline {
                return Err(format!("{what} is not well after {} s: {why}", limit.as_secs()));
            }
            self.reap();
            std::thread::sleep(Duration::from_millis(20)); // other processes' health has no event to wait for
        }
        Ok(())
    }

    /// Takes away the remains of children of ours, which still count as running for some: `kill -0`, a pid file's lock.
    pub(crate) fn reap(&mut self) {
        self.children.retain_mut(|child| child.ended().is_none());
    }

    /// The last line that a process has said.
    fn last_words(&self, name: &str) -> String {
        let log = fs::read(self.dir.join(format!("{name}.log"))).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        log.trim_end().lines().next_back().unwrap_or("it said nothing").to_owned()
    }

    fn save(&self) -> Result<()> {
        let (settings, processes) = (self.settings.clone(), self.processes.clone());
        let state = State { settings, maker: self.maker, processes };
        let text = serde_json::to_string_pretty(&state).map_err(|e| e.to_string())?;
        let (new, path) = (self.dir.join("lab.json.new"), self.dir.join(STATE_FILE));
        fs::write(&new, text)
            .and_then(|()| fs::rename(&new, &path))
            .map_err(|e| format!("{} cannot be written: {e}", path.display()))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if !self.pinned {
            let _ = netns::kill_all_in(&self.network.inodes(), DEATH);
            let _ = fs::remove_dir_all(&self.dir);
        }
        for child in &mut self.children {
            let _ = child.ended(); // a zombie is nobody's lab
        }
    }
}

/// Where lab `id` keeps its files: `/run/relais-lab/ID`, or below the user's runtime or temporary directory
/// where `/run` is not ours to write.
fn state_dir(id: &str) -> Result<PathBuf> {
    let user = rustix::process::getuid().as_raw();
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(|dir| PathBuf::from(dir).join("relais-lab"));
    let temporary = std::env::temp_dir().join(format!("relais-lab-{user}"));
    let places = [Some(PathBuf::from("/run/relais-lab")), runtime, Some(temporary)];
    let writable = |place: &PathBuf| {
        fs::create_dir_all(place).is_ok()
            && rustix::fs::access(place, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK).is_ok()
    };
    let place = places.into_iter().flatten().find(writable);
    place
        .map(|place| place.join(id))
        .ok_or_else(|| "there is no directory to keep a lab's files in".to_owned())
}
