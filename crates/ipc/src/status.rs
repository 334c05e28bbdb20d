//! The status documents: what each process says of itself, as JSON, to whoever connects to its socket
//! in the run directory (`proxy.sock`, `vip.sock`). Counters count up from the process's start.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::net::IpAddr;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::Path;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::message::{FrontendState, Moved, Role, VipState};

/// The node as its supervisor sees it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its name.
    pub node: String,
    /// The platform's name.
    pub platform: String,
    /// Version of the binary.
    pub version: String,
    /// Supervisor's process id.
    pub pid: u32,
    /// Where the plan came from.
    pub file: String,
    /// Generation of the plan in force.
    pub generation: u64,
    /// What the file asks for that this build does not act on.
    pub pending: Vec<String>,
    /// What operators have changed beside the file, as the commands that they gave.
    #[serde(default)]
    pub overrides: Vec<String>,
    /// The node is being stopped.
    pub stopping: bool,
    /// It holds no address because an operator wants that.
    #[serde(default)]
    pub standby: Option<Standby>,
    /// Its children.
    pub processes: Vec<ProcessStatus>,
}

/// An operator's word that a node is to hold no address.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Standby {
    /// Seconds since 1970.
    pub since: i64,
    /// Who said it.
    pub by: String,
}

/// The operator's words of where addresses are to be, as a node remembers them over a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Words {
    /// The node is to hold no address.
    #[serde(default)]
    pub standby: Option<Standby>,
    /// What moves left, by virtual address.
    #[serde(default)]
    pub moved: BTreeMap<String, Moved>,
}

/// One child.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Which.
    pub role: Role,
    /// Its process id; `None` while it is being restarted.
    pub pid: Option<u32>,
    /// Whether its plan is in force.
    pub ready: bool,
    /// How often it had to be started again.
    pub restarts: u64,
}

/// The data plane.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ProxyStatus {
    /// Process id.
    pub pid: u32,
    /// Generation of its plan.
    pub generation: u64,
    /// It finishes what is open and takes nothing new.
    pub draining: bool,
    /// Worker threads.
    pub workers: u16,
    /// One for each frontend of this node.
    pub frontends: Vec<FrontendStatus>,
    /// One for each backend that those can reach.
    pub backends: Vec<BackendStatus>,
    /// One for each place that access lines go to.
    #[serde(default)]
    pub access_logs: Vec<AccessLogStatus>,
    /// One for each file with a certificate that clients are shown.
    #[serde(default)]
    pub certificates: Vec<Certificate>,
    /// One for each balancer that shares tables with this one.
    #[serde(default)]
    pub peers: Vec<PeerStatus>,
}

/// A balancer that shares tables with this one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// Its name.
    pub name: String,
    /// It is a HAProxy.
    pub haproxy: bool,
    /// It is there.
    pub connected: bool,
    /// How often it came.
    pub connections_total: u64,
    /// Keys that it was told of.
    pub sent_total: u64,
    /// Keys that it told of and that have a place here.
    pub learned_total: u64,
    /// Those that have none: of another table, or a server that is unknown here.
    pub ignored_total: u64,
}

/// A certificate that clients are shown.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Certificate {
    /// The file.
    pub file: String,
    /// The first name that it is for; empty if it has none.
    pub name: String,
    /// When it expires, seconds since 1970.
    pub not_after: i64,
}

/// Where access lines go.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct AccessLogStatus {
    /// As the plan has it: `stdout`, a path, `udp@ADDRESS:PORT`.
    pub target: String,
    /// Lines written there.
    pub written_total: u64,
    /// Lines that it could not take.
    pub dropped_total: u64,
}

/// A frontend's counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FrontendStatus {
    /// Its name.
    pub name: String,
    /// `http`, `tcp` or `udp`.
    pub mode: String,
    /// Connections open now; of `udp`, sessions, here and below.
    pub connections: u64,
    /// The most that may be open.
    pub max_connections: u64,
    /// Connections accepted.
    pub connections_total: u64,
    /// The most of them at a time, and how many began a second.
    #[serde(default)]
    pub traffic: Traffic,
    /// Requests received in the last second.
    #[serde(default)]
    pub request_rate: u64,
    /// Requests received in the second with most.
    #[serde(default)]
    pub request_rate_max: u64,
    /// Requests received whole.
    pub requests_total: u64,
    /// Requests refused as malformed or too slow (400, 408, 413, 414, 431, ...).
    pub request_errors_total: u64,
    /// Responses by class: 1xx, 2xx, 3xx, 4xx, 5xx, other.
    pub responses_total: [u64; 6],
    /// Bytes received from clients.
    pub bytes_in_total: u64,
    /// Bytes sent to clients.
    pub bytes_out_total: u64,
    /// Datagrams taken from clients.
    #[serde(default)]
    pub datagrams_in_total: u64,
    /// Datagrams given to clients.
    #[serde(default)]
    pub datagrams_out_total: u64,
    /// Datagrams lost: too many sessions, no server, no room in a socket.
    #[serde(default)]
    pub datagrams_dropped_total: u64,
    /// Responses compressed.
    #[serde(default)]
    pub comp_responses_total: u64,
    /// Bytes of their bodies before.
    #[serde(default)]
    pub comp_in_total: u64,
    /// Bytes of their bodies after, chunk framing included.
    #[serde(default)]
    pub comp_out_total: u64,
    /// Responses not compressed because `max-active` others were.
    #[serde(default)]
    pub comp_bypassed_total: u64,
    /// Its rules, in the order that they are asked in.
    #[serde(default)]
    pub rules: Vec<RuleStatus>,
    /// Its waiting room, if it has one.
    #[serde(default)]
    pub shield: Option<ShieldStatus>,
}

/// A frontend's waiting room.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShieldStatus {
    /// Newcomers wait.
    pub active: bool,
    /// Those who do.
    pub waiting: u64,
    /// Let in from there, or past it while it was empty.
    pub admitted_total: u64,
    /// Those who waited and did not come back.
    pub abandoned_total: u64,
    /// Requests that were answered with its page, or with 503.
    pub turned_away_total: u64,
    /// Newcomers let in, in a thousand seconds.
    pub rate_per_1000_s: u64,
}

/// How much there was at a time and a second.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// The most connections, sessions or requests there have been at a time.
    pub sessions_max: u64,
    /// How many began in the last second.
    pub rate: u64,
    /// How many began in the second with most.
    pub rate_max: u64,
}

/// A rule of a frontend or backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RuleStatus {
    /// What it is for, in the operator's words.
    pub name: String,
    /// Requests or connections that it matched.
    pub hits_total: u64,
}

/// A backend's servers and what it did that no server counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct BackendStatus {
    /// Its name.
    pub name: String,
    /// `http`, `tcp` or `udp`.
    pub mode: String,
    /// Its servers.
    pub servers: Vec<ServerStatus>,
    /// Requests answered with 503 because no server was there.
    pub unserved_total: u64,
    /// Its breaker is open: requests are refused, or a few of them try the servers.
    #[serde(default)]
    pub breaker_open: bool,
    /// Requests waiting for a free place now.
    pub queued: u64,
    /// The most that have waited at a time.
    #[serde(default)]
    pub queued_max: u64,
    /// The most of them at a time, and how many began a second.
    #[serde(default)]
    pub traffic: Traffic,
    /// Average times of its servers' last 1024 requests each, milliseconds: in the queue, to connect, to the response, in all.
    #[serde(default)]
    pub average_ms: [u64; 4],
    /// Clients that left before they had a server.
    #[serde(default)]
    pub client_aborts_total: u64,
    /// Its rules, in the order that they are asked in.
    #[serde(default)]
    pub rules: Vec<RuleStatus>,
    /// The table that clients stay by, if it has one.
    #[serde(default)]
    pub table: Option<TableStatus>,
}

/// A table that says which server a client's key stays with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct TableStatus {
    /// Keys in it.
    pub entries: u64,
    /// The most that may be in it.
    pub size: u64,
    /// Requests and connections whose key it knew.
    pub known_total: u64,
    /// Those that came with one that it did not know.
    pub unknown_total: u64,
    /// Keys that it forgot for want of room.
    pub evicted_total: u64,
}

/// A server's state and counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its name.
    pub name: String,
    /// Where it listens, `IP:PORT`.
    pub address: String,
    /// Whether it gets requests.
    pub up: bool,
    /// What an operator wants of it: `ready`, `drain` or `down`.
    #[serde(default)]
    pub admin: String,
    /// Whether it is checked at all.
    pub checked: bool,
    /// What the last check found, in a few words.
    pub check: String,
    /// How long the last check took, milliseconds.
    pub check_ms: u64,
    /// Seconds since it went up or down.
    pub since_s: u64,
    /// How often it went down.
    pub downs_total: u64,
    /// Weight, 0 to 256.
    pub weight: u16,
    /// It serves only while no other is up.
    #[serde(default)]
    pub backup: bool,
    /// Requests (HTTP) or connections (TCP) it has now.
    pub active: u64,
    /// The most of them at a time, and how many began a second.
    #[serde(default)]
    pub traffic: Traffic,
    /// Idle connections kept to it.
    pub idle: u64,
    /// Requests or connections given to it.
    pub sessions_total: u64,
    /// Connections to it that failed.
    pub connect_errors_total: u64,
    /// Responses that broke off, timed out or were malformed.
    pub response_errors_total: u64,
    /// Requests tried again after it failed them.
    pub retries_total: u64,
    /// Of these, those given to another server.
    pub redispatches_total: u64,
    /// Requests that it was asked beside another that was slow, and of these, those that it answered first.
    #[serde(default)]
    pub hedges_total: [u64; 2],
    /// Average times of its last 1024 requests, milliseconds: in the queue, to connect, to the response, in all.
    #[serde(default)]
    pub average_ms: [u64; 4],
    /// Of its requests or connections, those that the client ended before the end.
    #[serde(default)]
    pub client_aborts_total: u64,
    /// Those that it ended itself within its answer.
    #[serde(default)]
    pub server_aborts_total: u64,
    /// Failed checks.
    pub check_failures_total: u64,
    /// Responses by class: 1xx, 2xx, 3xx, 4xx, 5xx, other.
    pub responses_total: [u64; 6],
    /// Bytes sent to it.
    pub bytes_in_total: u64,
    /// Bytes received from it.
    pub bytes_out_total: u64,
    /// Datagrams sent to it.
    #[serde(default)]
    pub datagrams_in_total: u64,
    /// Datagrams received from it.
    #[serde(default)]
    pub datagrams_out_total: u64,
}

/// The virtual addresses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct VipsStatus {
    /// Process id.
    pub pid: u32,
    /// Generation of its plan.
    pub generation: u64,
    /// One for each address that this node may hold.
    pub vips: Vec<VipStatus>,
    /// One for each way to another node; empty without a cluster-key.
    #[serde(default)]
    pub heartbeats: Vec<HeartbeatStatus>,
    /// One for each frontend that the kernel carries here.
    #[serde(default)]
    pub forwards: Vec<ForwardStatus>,
}

/// A frontend of `mode forward`, as the kernel carries it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardStatus {
    /// Its name.
    pub frontend: String,
    /// Its backend's name.
    pub backend: String,
    /// `tcp` or `udp`.
    pub protocol: String,
    /// Servers see this machine's address.
    pub masquerade: bool,
    /// It is IPVS that carries it: its scheduler and the way to servers.
    #[serde(default)]
    pub ipvs: Option<String>,
    /// Where packets are taken from.
    pub addresses: Vec<String>,
    /// The kernel refused the last change; the one before it holds.
    pub stale: bool,
    /// The backend's servers.
    pub servers: Vec<ForwardTargetStatus>,
}

/// A server that the kernel passes connections on to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ForwardTargetStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: String,
    /// It is not dead.
    pub up: bool,
    /// Its share; 0 keeps what it has.
    pub weight: u16,
    /// Connections (UDP: sessions) passed on to it since this process began.
    pub connections_total: u64,
}

/// Heartbeats of one other node, on one link.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeartbeatStatus {
    /// Its name.
    pub node: String,
    /// This node's address there; `None`: no socket could be opened on it.
    pub from: Option<IpAddr>,
    /// Its address.
    pub to: IpAddr,
    /// They come as often as they should.
    pub up: bool,
    /// Milliseconds since the last; `None`: there was none yet.
    pub age_ms: Option<u64>,
    /// Heartbeats received.
    pub received_total: u64,
    /// Heartbeats that were sent here and did not come.
    pub lost_total: u64,
}

/// One virtual address on this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VipStatus {
    /// Its name.
    pub name: String,
    /// Its addresses with their prefixes, `A.B.C.D/N`, with spaces between them.
    pub address: String,
    /// Interface that carries it.
    pub interface: String,
    /// VRID.
    pub router_id: u8,
    /// This node's state in the election.
    pub state: VipState,
    /// This node's priority.
    pub priority: u8,
    /// Who advertised last: the holder as seen from here.
    pub master: Option<IpAddr>,
    /// What an operator's move left.
    #[serde(default)]
    pub moved: Option<Moved>,
    /// Why the state is what it is, one sentence.
    pub reason: String,
    /// Seconds since the last change of state.
    pub since_s: u64,
    /// How often this node became master.
    pub became_master_total: u64,
    /// Changes of state, by the state that they led to.
    #[serde(default)]
    pub transitions_total: BTreeMap<String, u64>,
    /// Advertisements sent.
    pub adverts_sent_total: u64,
    /// Advertisements received that were for this virtual router.
    pub adverts_received_total: u64,
    /// Packets refused (checksum, TTL, version, VRID, ...).
    pub adverts_refused_total: u64,
    /// State of each thing that it depends on, such as `frontend web`.
    pub tracked: Vec<(String, FrontendState)>,
}

/// Answers every connection on `listener` with the JSON of what `document` returns, for ever.
///
/// A reader that does not take its answer within a second is dropped.
pub async fn serve<T: Serialize>(listener: UnixListener, document: impl Fn() -> T) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await; // out of descriptors: let some come back
            continue;
        };
        let Ok(json) = serde_json::to_vec(&document()) else { continue };
        let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(&json)).await;
    }
}

/// Reads the status document behind `path`, blocking for at most `limit`.
///
/// # Errors
/// If nobody listens there, the time is up, or the answer is not the document asked for.
pub fn fetch<T: DeserializeOwned>(path: &Path, limit: Duration) -> io::Result<T> {
    let mut stream = StdUnixStream::connect(path)?;
    stream.set_read_timeout(Some(limit))?;
    let mut json = Vec::new();
    stream.read_to_end(&mut json)?;
    serde_json::from_slice(&json).map_err(io::Error::other)
}

/// Longest status document that [`fetch_async`] reads, bytes.
pub const MAX_DOCUMENT: u64 = 16 * 1024 * 1024;

/// As [`fetch`], for callers on a tokio runtime; `limit` is for the whole of it.
///
/// # Errors
/// As [`fetch`]; also if the document is longer than [`MAX_DOCUMENT`].
pub async fn fetch_async<T: DeserializeOwned>(path: &Path, limit: Duration) -> io::Result<T> {
    let read = async {
        let mut json = Vec::new();
        UnixStream::connect(path).await?.take(MAX_DOCUMENT + 1).read_to_end(&mut json).await?;
        if json.len() as u64 > MAX_DOCUMENT {
            return Err(io::Error::other("the status document is too long"));
        }
        serde_json::from_slice(&json).map_err(io::Error::other)
    };
    tokio::time::timeout(limit, read).await.map_err(|_| io::ErrorKind::TimedOut)?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(name: &str) -> (std::path::PathBuf, UnixListener) {
        let path = std::env::temp_dir().join(format!("relais-status-{}-{name}", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        (path, listener)
    }

    #[tokio::test]
    async fn a_document_arrives_as_it_was_served() {
        let (path, listener) = socket("served");
        let server =
            tokio::spawn(serve(listener, || VipsStatus { pid: 7, generation: 3, ..VipsStatus::default() }));
        let seen: VipsStatus = fetch_async(&path, Duration::from_secs(5)).await.unwrap();
        assert_eq!((seen.pid, seen.generation), (7, 3));
        server.abort();
        let _ = std::fs::remove_file(path);
    }

    #[tokio::test]
    async fn a_silent_process_is_waited_for_no_longer_than_asked() {
        let (path, _listener) = socket("silent");
        let error = fetch_async::<VipsStatus>(&path, Duration::from_millis(20)).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let _ = std::fs::remove_file(path);
    }
}
