//! What a running supervisor (the *predecessor*) and the one that replaces it (the *heir*) say to each other
//! during a binary upgrade, on a channel that the heir opens with [`Ask::Upgrade`](crate::message::Ask).
//!
//! ```text
//! heir                                    predecessor
//!   Ask::Upgrade ─────────────────────────▶
//!   ◀──────────── Node, Listener …, Complete      both accept on the same sockets from here on
//!   Prepared (its proxy and control serve) ▶      stops its vip, without a farewell
//!   ◀───────────────────────────── Yours          the heir's vip goes on as master
//!   Settled ──────────────────────────────▶       tells systemd, drops the lock, retires
//!   ◀────────────────────────── Farewell
//! ```
//!
//! Until `Settled` the predecessor answers for the node: whatever happens to the heir, it goes on. The two are
//! different binaries, so each ignores what it does not know.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::message::{Role, VipState};

/// From the predecessor to the heir.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "legacy")]
pub enum Legacy {
    /// The node; comes first.
    Node {
        /// Workers, and so listeners in a set: the heir keeps the number, because closing one resets what waits in
        /// its queue.
        workers: u16,
        /// Generation of the plan in force; the heir counts on from it.
        generation: u64,
        /// The predecessor's process id.
        pid: u32,
        /// Process id of its vip, if that lives: whoever outlives the other ends the other's vip.
        vip_pid: Option<u32>,
        /// systemd's notification socket, if systemd started the predecessor.
        notify: Option<String>,
        /// Half of systemd's watchdog time, microseconds.
        watchdog_us: Option<u64>,
    },
    /// The attached descriptor is the lock of the run directory.
    Lock,
    /// The attached descriptor is the socket on which commands ask, `relais.sock`.
    Asks,
    /// The attached descriptor is the status socket of this child.
    Status {
        /// Whose.
        role: Role,
    },
    /// The attached descriptor is a listening TCP socket.
    Listener {
        /// The address it listens on, as in the plan.
        address: SocketAddr,
        /// Its place in the set of that address, from 0.
        index: u16,
    },
    /// The attached descriptor is a UDP socket that receives from clients. A message of its own, so that a version
    /// that knows of TCP alone does not take it for a listener.
    Datagrams {
        /// The address it is bound to, as in the plan.
        address: SocketAddr,
        /// Its place in the set of that address, from 0.
        index: u16,
    },
    /// The attached descriptor is the access log's file, opened for appending.
    AccessLog {
        /// Its path, as in the plan.
        path: String,
    },
    /// What the checks know of a server.
    Server {
        /// Backend's name.
        backend: String,
        /// Server's name.
        server: String,
        /// Whether it is well.
        up: bool,
    },
    /// How a script is that an address depends on.
    Script {
        /// Its command, as in the plan.
        command: String,
        /// Whether it is well.
        up: bool,
    },
    /// The attached descriptor is a memory file with a backend's table.
    Table {
        /// Backend's name.
        backend: String,
    },
    /// The state of a virtual address.
    Vip {
        /// Its name.
        name: String,
        /// Its state.
        state: VipState,
    },
    /// Where operators' commands are kept.
    Overrides {
        /// The file.
        path: String,
    },
    /// That was all of it: the heir starts its children now.
    Complete,
    /// The predecessor's vip ended without a farewell this long ago: the addresses are the heir's to hold.
    Yours {
        /// Milliseconds since its end.
        ago_ms: u64,
    },
    /// The node is the heir's. The predecessor only finishes what it has open.
    Farewell,
    /// The upgrade is called off: the heir must end, and leave the addresses alone.
    Withdrawn {
        /// One sentence.
        why: String,
    },
    /// Something that a later version says and this one does not know.
    #[serde(other)]
    Unknown,
}

/// From the heir to the predecessor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "heir")]
pub enum Heir {
    /// Its proxy and its control have the plan in force; its vip waits for the addresses.
    Prepared {
        /// Its vip's process id.
        vip_pid: Option<u32>,
    },
    /// All its children have the plan in force.
    Settled,
    /// It cannot take over.
    Failed {
        /// One sentence that says what happened and what to do.
        why: String,
    },
    /// Something that a later version says and this one does not know.
    #[serde(other)]
    Unknown,
}
