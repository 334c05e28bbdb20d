//! Machines in network namespaces on one switch, the vip process in them, and its supervisor's side.
//! Every namespace is called `rlxvip-PID-N-NAME`, removed on drop, and after a crash by the next run.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses its part

pub mod keepalived;

use std::cell::{Cell, RefCell};
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use relais_ipc::channel::text_to_fd;
use relais_ipc::status::{VipStatus, VipsStatus, fetch_async};
use relais_ipc::{Channel, FrontendState, Order, Report, VipState};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub const VIP: &str = "10.9.0.100";
const PREFIX: &str = "rlxvip";

/// Runs a command, which must succeed.
pub fn run(command: &str) -> String {
    let output = try_run(command);
    assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn try_run(command: &str) -> Output {
    let mut words = command.split_whitespace();
    Command::new(words.next().unwrap()).args(words).stdin(Stdio::null()).output().unwrap()
}

/// Whether the test can run here. Where it cannot it says so, and fails where it must not be skipped.
pub fn ready(programs: &[&str]) -> bool {
    let missing = if rustix::process::geteuid().is_root() {
        programs.iter().find(|program| !try_run(&format!("which {program}")).status.success())
    } else {
        Some(&"root")
    };
    if let Some(missing) = missing {
        assert!(std::env::var_os("CI").is_none(), "this test needs {missing}, and CI must not skip it");
        eprintln!("SKIPPED: this test needs {missing}");
    }
    missing.is_none()
}

/// A switch and the machines on it.
pub struct Lan {
    prefix: String,
    machines: Vec<String>,
}

impl Lan {
    /// Machines of these names with the addresses 10.9.0.1, 10.9.0.2, ... on `eth0`.
    pub fn new(names: &[&str]) -> Lan {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_leftovers();
        let prefix = format!("{PREFIX}-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let lan = Lan { machines: names.iter().map(|name| format!("{prefix}-{name}")).collect(), prefix };
        let switch = format!("{}-switch", lan.prefix);
        run(&format!("ip netns add {switch}"));
        run(&format!("ip -n {switch} link add br0 type bridge forward_delay 0 mcast_snooping 0"));
        run(&format!("ip -n {switch} link set br0 up"));
        for (i, machine) in lan.machines.iter().enumerate() {
            run(&format!("ip netns add {machine}"));
            run(&format!("ip -n {switch} link add port{i} type veth peer name eth0 netns {machine}"));
            run(&format!("ip -n {switch} link set port{i} master br0 up"));
            run(&format!("ip -n {machine} link set lo up"));
            run(&format!("ip -n {machine} address add 10.9.0.{}/24 dev eth0", i + 1));
            run(&format!("ip -n {machine} link set eth0 up"));
        }
        lan
    }

    /// The namespace of the machine number `i`, from 0.
    pub fn machine(&self, i: usize) -> &str {
        &self.machines[i]
    }

    /// Plugs the machine's cable in or out.
    pub fn cable(&self, i: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        run(&format!("ip -n {}-switch link set port{i} {state}", self.prefix));
    }

    /// Drops VRRP from machine `from` at machine `to` and back, or lets it pass again.
    pub fn isolate(&self, from: usize, to: usize, isolated: bool) {
        for (here, there) in [(from, to), (to, from)] {
            let namespace = &self.machines[here];
            let command = format!("ip netns exec {namespace} nft");
            if isolated {
                run(&format!("{command} add table ip cut"));
                run(&format!("{command} add chain ip cut in {{ type filter hook input priority 0 ; }}"));
                let source = format!("ip saddr 10.9.0.{}", there + 1);
                run(&format!("{command} add rule ip cut in {source} ip protocol 112 drop"));
            } else {
                run(&format!("{command} delete table ip cut"));
            }
        }
    }

    /// Whether the machine has the virtual address.
    pub fn holds(&self, i: usize) -> bool {
        self.holds_this(i, VIP)
    }

    /// Whether it has this one.
    fn holds_this(&self, i: usize, vip: &str) -> bool {
        run(&format!("ip -n {} -o address show", self.machines[i])).contains(&format!(" {vip}/"))
    }

    /// Waits until exactly this machine holds the address; how long that took.
    pub fn await_holder(&self, holder: usize, limit: Duration) -> Duration {
        self.await_holder_of(VIP, holder, limit)
    }

    /// The same of this address.
    pub fn await_holder_of(&self, vip: &str, holder: usize, limit: Duration) -> Duration {
        let begin = Instant::now();
        loop {
            let holders: Vec<usize> = (0..self.machines.len()).filter(|i| self.holds_this(*i, vip)).collect();
            if holders == [holder] {
                return begin.elapsed();
            }
            assert!(begin.elapsed() < limit, "after {limit:?} the holders are {holders:?}, not {holder}");
        }
    }

    /// Runs `f` on machine `i`: sockets that it makes stay there.
    pub fn inside<T: Send>(&self, i: usize, f: impl FnOnce() -> T + Send) -> T {
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.machine(i))).unwrap();
        let enter = move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network)).unwrap();
            f()
        };
        std::thread::scope(|scope| scope.spawn(enter).join().unwrap())
    }

    /// Has machine `i` send something to the virtual address, so that it must know where that is.
    pub fn visit(&self, i: usize) {
        let script = format!("echo >/dev/udp/{VIP}/9");
        let namespace = ["netns", "exec", self.machine(i), "bash", "-c", &script];
        assert!(Command::new("ip").args(namespace).status().unwrap().success());
    }

    /// Waits until machine `i` takes the virtual address to be at machine `at`, without asking the link.
    pub fn await_neighbour(&self, i: usize, at: usize, limit: Duration) {
        self.await_neighbour_of(VIP, i, at, limit);
    }

    /// The same of this address.
    pub fn await_neighbour_of(&self, vip: &str, i: usize, at: usize, limit: Duration) {
        let (begin, mac) = (Instant::now(), self.mac(at));
        while !run(&format!("ip -n {} neighbour show {vip}", self.machine(i))).contains(&mac) {
            assert!(begin.elapsed() < limit, "machine {i} was not told that the address is at machine {at}");
        }
    }

    /// The hardware address of machine `i`.
    pub fn mac(&self, i: usize) -> String {
        let link = run(&format!("ip -n {} -o link show eth0", self.machines[i]));
        link.split_whitespace().skip_while(|word| *word != "link/ether").nth(1).unwrap().into()
    }
}

impl Drop for Lan {
    fn drop(&mut self) {
        for machine in self.machines.iter().chain([&format!("{}-switch", self.prefix)]) {
            try_run(&format!("ip netns delete {machine}"));
        }
    }
}

/// Namespaces of runs whose process is gone.
fn remove_leftovers() {
    let list = run("ip netns list");
    for name in list.lines().filter_map(|line| line.split_whitespace().next()) {
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').nth(1)?.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            try_run(&format!("ip netns delete {name}"));
        }
    }
}

/// A plan for nodes `a` and `b` with these priorities.
pub fn plan(a: u8, b: u8, more: &str) -> String {
    format!(
        r#"platform test {{
    drain "2s"
}}
node a {{ link "10.9.0.1"; }}
node b {{ link "10.9.0.2"; }}
vip public {{
    address "{VIP}/24" interface=eth0
    router-id 51
    node a priority={a}
    node b priority={b}
    advertise "50ms"
    {more}
}}
frontend web {{
    bind "*:80"
    redirect scheme=https
}}
"#
    )
}

/// The virtual address of [`plan6`].
pub const VIP6: &str = "fd00::100";

/// [`plan`] with a virtual address of IPv6.
pub fn plan6(a: u8, b: u8) -> String {
    plan(a, b, "").replace(VIP, VIP6).replace("/24\" interface", "/64\" interface").replace("*:80", "[::]:80")
}

impl Lan {
    /// Gives every machine an address beside `VIP6`.
    pub fn add_ipv6(&self) {
        for (i, machine) in self.machines.iter().enumerate() {
            run(&format!("ip -n {machine} address add fd00::{}/64 dev eth0 nodad", i + 1));
        }
    }
}

/// The key of one test; removed with it.
pub struct Key(pub std::path::PathBuf);

impl Key {
    pub fn new(name: &str) -> Key {
        let path = std::env::temp_dir().join(format!("rlxvip-{}-{name}.key", std::process::id()));
        std::fs::write(&path, "a key for this test alone\n").unwrap();
        Key(path)
    }

    /// A plan whose nodes know each other by it, with a third node.
    pub fn plan(&self) -> String {
        let secret = format!("secret cluster-key file=\"{}\"\n    drain", self.0.display());
        let witness = "\nnode w { link \"10.9.0.3\"; }\nvip ";
        plan(101, 100, "").replacen("drain", &secret, 1).replacen("\nvip ", witness, 1)
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A vip process and its supervisor's end of the channel.
pub struct Vip {
    pub child: Child,
    pub channel: Channel,
    /// What it last said of its address.
    state: Cell<VipState>,
    /// What it gave its supervisor to hold.
    pub held: RefCell<Vec<OwnedFd>>,
}

impl Vip {
    /// Starts one in a namespace, as `node`, with nothing said to it but who it is.
    pub async fn start(namespace: &str, node: &str) -> Vip {
        Vip::start_by(&["ip", "netns", "exec", namespace], node).await
    }

    /// Starts one by a command that runs the program given to it.
    pub async fn start_by(command: &[&str], node: &str) -> Vip {
        let (channel, theirs) = Channel::pair().unwrap();
        let child = Command::new(command[0])
            .args(&command[1..])
            .arg(env!("CARGO_BIN_EXE_vip-child"))
            .stdin(Stdio::from(theirs))
            .spawn()
            .unwrap();
        let vip = Vip { child, channel, state: Cell::new(VipState::Fault), held: RefCell::default() };
        vip.order(Order::Hello { node: node.into(), workers: 1, run_dir: "/nonexistent".into() }).await;
        vip
    }

    /// Starts one and puts a plan in force.
    pub async fn with_plan(namespace: &str, node: &str, plan: &str) -> Vip {
        let vip = Vip::start(namespace, node).await;
        vip.plan(1, plan).await;
        vip.await_report("Ready", |report| *report == Report::Ready { generation: 1 }).await;
        vip
    }

    pub async fn order(&self, order: Order) {
        self.channel.send(&order, None).await.unwrap();
    }

    /// Gives it a socket to answer status requests on.
    pub async fn status_socket(&self) -> Status {
        let path = std::env::temp_dir().join(format!("{PREFIX}-{}.sock", self.child.id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        self.channel.send(&Order::Status, Some(listener.as_fd())).await.unwrap();
        Status { path }
    }

    pub async fn plan(&self, generation: u64, text: &str) {
        let fd = text_to_fd(text).unwrap();
        let order = Order::Plan { generation, file: "test.kdl".into() };
        self.channel.send(&order, Some(fd.as_fd())).await.unwrap();
    }

    pub async fn frontend(&self, state: FrontendState) {
        self.order(Order::Frontend { name: "web".into(), state }).await;
    }

    /// Waits for a report that fits, passing over the others; how long that took.
    pub async fn await_report(&self, what: &str, mut fits: impl FnMut(&Report) -> bool) -> Duration {
        let begin = Instant::now();
        let wait = async {
            while let Some((report, fd)) = self.channel.recv::<Report>().await.unwrap() {
                self.held.borrow_mut().extend(fd);
                if let Report::Vip { state, .. } = report {
                    self.state.set(state);
                }
                if fits(&report) {
                    return;
                }
                assert!(!matches!(report, Report::Refused { .. }), "{report:?} instead of {what}");
            }
            panic!("the vip process ended before {what}");
        };
        tokio::time::timeout(Duration::from_secs(10), wait).await.unwrap_or_else(|_| panic!("no {what}"));
        begin.elapsed()
    }

    /// Waits for this state, unless it is in it.
    pub async fn await_state(&self, wanted: VipState) -> Duration {
        if self.state.get() == wanted {
            return Duration::ZERO;
        }
        let fits = |report: &Report| matches!(report, Report::Vip { state, .. } if *state == wanted);
        self.await_report(&format!("{wanted:?}"), fits).await
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Vip {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a vip process answers status requests.
pub struct Status {
    path: std::path::PathBuf,
}

impl Status {
    /// The status of every address.
    pub async fn all(&self) -> VipsStatus {
        fetch_async(&self.path, Duration::from_secs(1)).await.unwrap()
    }

    /// Asks until the first address's status fits.
    pub async fn until(&self, fits: impl Fn(&VipStatus) -> bool) -> VipStatus {
        let begin = Instant::now();
        loop {
            let vips: VipsStatus = fetch_async(&self.path, Duration::from_secs(1)).await.unwrap();
            match vips.vips.into_iter().next() {
                Some(vip) if fits(&vip) => return vip,
                other => assert!(begin.elapsed() < Duration::from_secs(5), "the status stays {other:?}"),
            }
        }
    }
}

impl Drop for Status {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}
