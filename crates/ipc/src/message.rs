//! What the supervisor and its children say to each other.

use std::fmt;
use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::status::NodeStatus;

/// The three children (design §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// The data plane: workers, health checks.
    Proxy,
    /// Virtual addresses.
    Vip,
    /// Admin API, `/metrics`.
    Control,
}

impl Role {
    /// Every role, in the order in which they are started.
    pub const ALL: [Role; 3] = [Role::Proxy, Role::Vip, Role::Control];

    /// The name in logs, in `ps` and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Role::Proxy => "proxy",
            Role::Vip => "vip",
            Role::Control => "control",
        }
    }
}

/// What a listening socket takes: a protocol has addresses of its own, so TCP and UDP may share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// Connections.
    Tcp,
    /// Datagrams.
    Udp,
}

/// What a listening socket is known by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Endpoint {
    /// The bind's address, as in the plan.
    pub address: SocketAddr,
    /// What it takes there.
    pub protocol: Protocol,
}

impl Endpoint {
    /// Connections to this address.
    pub const fn tcp(address: SocketAddr) -> Endpoint {
        Endpoint { address, protocol: Protocol::Tcp }
    }

    /// Datagrams to this address.
    pub const fn udp(address: SocketAddr) -> Endpoint {
        Endpoint { address, protocol: Protocol::Udp }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.protocol {
            Protocol::Tcp => write!(f, "{}", self.address),
            Protocol::Udp => write!(f, "{} (UDP)", self.address),
        }
    }
}

/// What an operator's move leaves at an address until it goes elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Moved {
    /// It was moved here and is held with this priority, whatever the plan's.
    Here(u8),
    /// It was moved away, and is left with its holder.
    Away,
}

/// From the supervisor to a child.
///
/// A new child gets `Hello`, then `Status`, then what it must remember (`Server`, `Resume`), then its
/// `Listener`s, then `Plan`; it answers `Ready` or `Refused`. Later plans come the same way: the new
/// listeners first, then `Plan`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "order")]
pub enum Order {
    /// Which node this is, and how many worker threads the proxy must run (1 to 256).
    Hello {
        /// The node's name in the plan.
        node: String,
        /// Worker threads; each listener comes once for every one of them.
        workers: u16,
        /// Absolute path of the run directory, where the status sockets of all processes are.
        run_dir: String,
    },
    /// The attached descriptor is a listening Unix stream socket: answer every connection on it with
    /// this process's status document (JSON) and close it.
    Status,
    /// The attached descriptor is the listening TCP socket of worker `index` for one bind. For the
    /// control process `frontend` is `admin`.
    Listener {
        /// The frontend's name.
        frontend: String,
        /// The bind's address, as in the plan.
        address: SocketAddr,
        /// Worker that accepts on it, from 0.
        index: u16,
    },
    /// To proxy: the attached descriptor is the UDP socket of worker `index` for one bind.
    Datagrams {
        /// The bind's address, as in the plan.
        address: SocketAddr,
        /// Worker that receives on it, from 0.
        index: u16,
    },
    /// The attached descriptor is an access log's file, opened for appending; it replaces the one of this path
    /// at once. Comes before `Plan` for each file that the plan's `access-log`s name, and when files are to be
    /// opened anew.
    AccessLog {
        /// The file, as in the plan.
        path: String,
    },
    /// The attached descriptor is a memory file with the text of an error page. Comes before `Plan` for each file
    /// that its `error-page`s name.
    ErrorPage {
        /// The file, as in the plan.
        path: String,
    },
    /// To proxy: the attached descriptor is a memory file ([`crate::files::Files`]) with the certificates, keys and
    /// lists that a plan names. Comes before `Plan`, and alone when one of them has changed.
    Files {
        /// No plan follows: the one in force is to use them.
        renew: bool,
    },
    /// To proxy and vip: the attached descriptor is a memory file with the commands of operators that hold beside the plan's
    /// text, one a line. Comes before `Plan`, and is for that plan alone.
    Overrides,
    /// The attached descriptor is a memory file with the text of the plan to put in force.
    Plan {
        /// Counts up with each plan of one supervisor.
        generation: u64,
        /// Where the text came from, for diagnostics.
        file: String,
    },
    /// To a new proxy: what its predecessor knew of a server. To vip: what checks say of one.
    Server {
        /// Backend's name.
        backend: String,
        /// Server's name.
        server: String,
        /// Whether its health check called it well.
        up: bool,
    },
    /// To a new proxy: the attached descriptor is the memory file in which its predecessor kept a backend's table. Before `Plan`.
    Table {
        /// Backend's name.
        backend: String,
    },
    /// To proxy: forget keys of a backend's table, and answer `Forgot`.
    Forget {
        /// Backend's name.
        backend: String,
        /// Only those of this server.
        server: Option<String>,
        /// Only this one, as `relais table` shows it.
        key: Option<String>,
    },
    /// To vip: whether a frontend of this node can serve.
    Frontend {
        /// Frontend's name.
        name: String,
        /// Its state.
        state: FrontendState,
    },
    /// To vip and proxy: how a script is that an address depends on, or that checks a server.
    Script {
        /// Its command, as in the plan.
        command: String,
        /// Whether it is well.
        up: bool,
    },
    /// To a new vip: its predecessor held this address until `ago_ms` milliseconds before now.
    Resume {
        /// Virtual address's name.
        vip: String,
        /// Milliseconds since the predecessor's death.
        ago_ms: u64,
    },
    /// To control: the node as the supervisor sees it; sent on every change.
    Node(NodeStatus),
    /// To vip: hold nothing whatever plans say, or be as others again. To a new vip before the plan.
    Standby {
        /// Whether the node is in standby.
        on: bool,
    },
    /// To vip: the operator moves an address.
    Move {
        /// Virtual address's name.
        vip: String,
        /// To this node; otherwise away from it.
        here: bool,
    },
    /// To a new vip, before the plan: what its predecessor said of a move.
    Moved {
        /// Virtual address's name.
        vip: String,
        /// What the move left.
        moved: Moved,
    },
    /// To proxy: an address has left this node. Clients that are connected are to connect anew, after their next answer.
    Ebb,
    /// To vip: give every address to another node, answer `HandedOver`, then hold none until a plan comes.
    HandOver,
    /// To vip, when the proxy has drained: answer `Delivered` once the kernel has got rid of what it still has for clients of
    /// the addresses.
    Deliver,
    /// To proxy: let clients finish with `Connection: close`, then answer `Drained` and exit 0.
    Drain {
        /// Milliseconds until what is still open is cut.
        limit_ms: u64,
    },
    /// To proxy: another generation accepts on the same sockets as well, or no longer does. While it does, a proxy
    /// whose supervisor dies leaves them to it.
    Shared {
        /// Whether it does.
        shared: bool,
    },
    /// To proxy: the listening sockets are another generation's now. Let go of them and of the status socket, let
    /// clients finish as in `Drain`, then answer `Drained` and exit 0.
    Retire {
        /// Milliseconds until what is still open is cut.
        limit_ms: u64,
    },
    /// Exit 0 now.
    Stop,
}

/// Whether a frontend can serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrontendState {
    /// A worker accepts on all its listeners.
    Up,
    /// Its process died and the next is being started; connections wait in the kernel's queue.
    Healing,
    /// Nobody will accept soon.
    Down,
}

/// A virtual router's state (RFC 9568 §6.4); `Fault` is ours: not in the election at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VipState {
    /// Something that it tracks is down, or it was handed over.
    Fault,
    /// Another node holds the address.
    Backup,
    /// This node holds it.
    Master,
}

/// From a child to the supervisor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "report")]
pub enum Report {
    /// The plan of this generation is in force.
    Ready {
        /// As in `Order::Plan`.
        generation: u64,
    },
    /// The plan could not be put in force; the one before it still is.
    Refused {
        /// As in `Order::Plan`.
        generation: u64,
        /// One sentence that says what happened and what to do.
        why: String,
    },
    /// A virtual router changed its state.
    Vip {
        /// Virtual address's name.
        name: String,
        /// Its new state.
        state: VipState,
    },
    /// What an operator's move leaves at an address, to be remembered for vip's successor.
    Moved {
        /// Virtual address's name.
        vip: String,
        /// Nothing: it is over.
        moved: Option<Moved>,
    },
    /// The files that came with `Order::Files { renew: true }` were looked at.
    Files {
        /// They are used from now on; if not, those before them are.
        used: bool,
        /// Paths among them that are of no use: for these the contents before them stay in use.
        #[serde(default)]
        kept: Vec<String>,
    },
    /// A health check changed its mind.
    Server {
        /// Backend's name.
        backend: String,
        /// Server's name.
        server: String,
        /// Whether it is well now.
        up: bool,
    },
    /// A script that an address depends on has shown how it is: for the first time, or otherwise than before.
    Script {
        /// Its command, as in the plan.
        command: String,
        /// Whether it is well.
        up: bool,
    },
    /// The attached descriptor is a memory file in which a backend's table is kept, to be held for proxy's successor; without one there
    /// is none any more.
    Table {
        /// Backend's name.
        backend: String,
    },
    /// To `Order::Forget`; in the order of these.
    Forgot {
        /// Keys that are forgotten.
        keys: u64,
    },
    /// A backup on another node watches this one through the attached connection. The supervisor holds it as long as
    /// it lives, so that it ends when both are dead.
    Watched,
    /// While the attached socket is open the kernel lets packets to this node's addresses pass. The supervisor holds it
    /// likewise.
    Pulse,
    /// Clients have all that was sent to them from the addresses.
    Delivered,
    /// Every address has another holder, or nobody took it in time.
    HandedOver,
    /// Proxy's main thread turns: every [`crate::pulse::EVERY`].
    Alive,
    /// A worker has hung; the process is to be replaced.
    Stuck {
        /// Which, and what it does.
        why: String,
    },
    /// Nothing is open any more.
    Drained {
        /// Connections that were cut at the limit.
        unfinished: u32,
    },
}

/// What a command asks the supervisor on `RUN_DIR/relais.sock`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "ask")]
pub enum Ask {
    /// The node's status.
    Status,
    /// Put the attached plan text in force.
    Apply {
        /// Where it came from, for diagnostics.
        file: String,
    },
    /// Do something with a server: a command as `relais_config::overrides` has it, such as `drain app/tomcat1`.
    Command {
        /// The command.
        line: String,
    },
    /// The table that a backend's clients stay by.
    Table {
        /// Backend's name.
        backend: String,
    },
    /// Forget keys of it.
    Forget {
        /// Backend's name.
        backend: String,
        /// Only those of this server.
        server: Option<String>,
        /// Only this one, as `relais table` shows it.
        key: Option<String>,
    },
    /// Give every address up and take none, or be as before.
    Standby {
        /// Which of the two.
        on: bool,
        /// The node that the operator means, if named.
        node: Option<String>,
        /// Who asks, as the command knows.
        by: String,
    },
    /// Move a virtual address.
    Move {
        /// Its name.
        vip: String,
        /// The node that is to hold it.
        node: String,
        /// Who asks, as the command knows.
        by: String,
    },
    /// Hand the node over to the supervisor that asks; what follows on the channel is told in
    /// [`upgrade`](crate::upgrade).
    Upgrade {
        /// The node that it was told to be.
        node: String,
        /// Its version.
        version: String,
    },
}

/// The supervisor's answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "answer")]
pub enum Answer {
    /// To `Ask::Status`.
    Status(NodeStatus),
    /// The plan is in force in every process.
    Applied {
        /// Its generation.
        generation: u64,
        /// What operators had changed and the plan no longer has room for: a sentence each.
        #[serde(default)]
        dropped: Vec<String>,
    },
    /// To `Ask::Table`: the attached descriptor is the memory file in which the proxy keeps it.
    Table {
        /// For each part of its keys whether that is an address.
        addresses: Vec<bool>,
        /// The most keys that may be in it.
        size: u32,
    },
    /// To `Ask::Forget`.
    Forgotten {
        /// Keys that are forgotten.
        keys: u64,
    },
    /// The node is in standby, or no longer.
    Standby {
        /// It was not so before.
        changed: bool,
        /// What it does not remember over a restart, and why; empty if it does.
        forgets: String,
    },
    /// The move has begun.
    Moving {
        /// To the node that was asked; otherwise away from it.
        here: bool,
    },
    /// Nothing was changed.
    Refused {
        /// The diagnostics, ready to print.
        why: String,
    },
}
