//! The plan: a whole platform, immutable and fully resolved.
//!
//! Everything that runs works from a `Plan` and nothing else. Names have become indexes, defaults are
//! filled in, references are known to exist: whoever holds a `Plan` never has to check it again
//! ("parse, don't validate"). A change is a new `Plan`, swapped whole.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

mod balance;
mod check;
mod forward;

pub use balance::{Balance, HashKey, HashType};
pub use check::{
    Admin, Agent, Breaker, Check, CheckKind, DnsExpect, Hedge, InitState, Observe, OnError, Outlier, RetryOn,
};
pub use forward::{By, Forward, Method};

mod persist;
pub use persist::{CookieMode, Peers, Persist, SameSite, Secure, ServerCookie, Stick, StickKey};

mod shield;
pub use shield::Shield;

mod vip;
pub use vip::{Preempt, Script, Track, Tracked, Vip};

mod rule;
pub use rule::{Action, Limit, Measure, Rank, Rate, RespondBody, RewriteSpec, Rule, RuleCondition};

/// Index of a [`Node`] in [`Plan::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NodeId(pub u16);
/// Index of a [`Vip`] in [`Plan::vips`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VipId(pub u16);
/// Index of a [`Frontend`] in [`Plan::frontends`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrontendId(pub u16);
/// Index of a [`Backend`] in [`Plan::backends`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(pub u16);

/// A whole platform.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// The name after `platform`.
    pub platform: Arc<str>,
    /// Where each node's dashboard, API and `/metrics` listen.
    pub admin: SocketAddr,
    /// Where access lines go, for all frontends together.
    pub logs: Vec<LogTarget>,
    /// User that unprivileged processes run as when started by root.
    pub user: Arc<str>,
    /// How long a stopping node waits for open requests before it ends them.
    pub drain: Duration,
    /// File of the secret that nodes know each other by; `None`: they have none.
    pub cluster_key: Option<Arc<str>>,
    /// How balancers tell each other of their tables; `None`: they do not.
    pub peers: Option<Peers>,
    /// Client connections open at a time on one node; `None`: as many as its descriptors allow.
    pub max_connections: Option<u32>,
    /// How long the processes that a binary upgrade replaces may keep what they have open.
    pub hard_stop_after: Duration,
    /// Machines, in the order of the file.
    pub nodes: Vec<Node>,
    /// Virtual addresses.
    pub vips: Vec<Vip>,
    /// Where requests come in.
    pub frontends: Vec<Frontend>,
    /// Who answers them.
    pub backends: Vec<Backend>,
    /// Application tiers.
    pub tomcats: Vec<Tomcat>,
    /// What the file asks for that this build validates but does not act on yet, one phrase each, such
    /// as `cache pages`; `relais run` says them in one line.
    pub pending: Vec<String>,
}

/// A machine.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Its name, as in `--node NAME`.
    pub name: Arc<str>,
    /// Its addresses, one a heartbeat link; the first is the one that servers are reached by.
    pub links: Vec<IpAddr>,
}

/// An IPv4 or IPv6 network in CIDR notation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cidr {
    /// An address in it, host bits kept as written.
    pub address: IpAddr,
    /// Length of the prefix, 0 to 32 or 128.
    pub prefix: u8,
}

impl Cidr {
    /// Whether `ip` is inside. An IPv4-mapped IPv6 address is taken as the IPv4 address it means.
    pub fn contains(&self, ip: IpAddr) -> bool {
        match (self.address, ip.to_canonical()) {
            (IpAddr::V4(net), IpAddr::V4(ip)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                u32::from(net) & mask == u32::from(ip) & mask
            }
            (IpAddr::V6(net), IpAddr::V6(ip)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                u128::from(net) & mask == u128::from(ip) & mask
            }
            _ => false,
        }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

/// What a frontend or backend speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// HTTP/1.1, balanced request by request.
    Http,
    /// Bytes, balanced connection by connection.
    Tcp,
    /// Datagrams, balanced session by session: those of one client port to one of our addresses.
    Udp,
    /// Packets, which the kernel passes on connection by connection.
    Forward,
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Mode::Http => "http",
            Mode::Tcp => "tcp",
            Mode::Udp => "udp",
            Mode::Forward => "forward",
        })
    }
}

/// Where requests come in.
#[derive(Clone, Debug, PartialEq)]
pub struct Frontend {
    /// Its name.
    pub name: Arc<str>,
    /// Nodes that run it (design §1: `on`, else those of the addresses it binds, else all).
    pub nodes: Vec<NodeId>,
    /// What it speaks.
    pub mode: Mode,
    /// How the kernel carries it (`mode forward`).
    pub forward: Option<Forward>,
    /// Its listeners.
    pub binds: Vec<Bind>,
    /// Connections open at a time on one node; more wait in the kernel's queue.
    pub max_connections: u32,
    /// Longest body of a request, bytes; more is answered with 413.
    pub max_body: Option<u64>,
    /// How responses are compressed, unless the backend says.
    pub compression: Option<Arc<Compression>>,
    /// The least that a client must send or take; `None`: only the time-outs hold.
    pub min_rate: Option<MinRate>,
    /// Bodies of errors: its own, then the platform's; the first that fits counts.
    pub error_pages: Vec<ErrorPage>,
    /// Where its access lines go; `None`: nowhere.
    pub log: Option<FrontendLog>,
    /// Request headers that the log shows.
    pub request_captures: Vec<Capture>,
    /// Response headers that the log shows.
    pub response_captures: Vec<Capture>,
    /// What else requests are marked with; `None`: nothing, and neither are the two below.
    pub marking: Option<Arc<Marking>>,
    /// `X-Forwarded-For` that a client sent is taken out.
    pub forwarded_replace: bool,
    /// `X-Forwarded-Port` is set.
    pub forwarded_port: bool,
    /// `X-Forwarded-For` is set on requests, except from these networks; `None`: not set at all.
    pub forwarded_for: Option<Vec<Cidr>>,
    /// Time-outs towards the client.
    pub timeout: FrontendTimeouts,
    /// How it speaks HTTP/2.
    pub http2: Http2,
    /// Answers every request with a redirect to this scheme.
    pub redirect: Option<Redirect>,
    /// Asked in this order before anything else decides.
    pub rules: Vec<Rule>,
    /// Who is let in under overload; `None`: everybody.
    pub shield: Option<Shield>,
    /// Who answers; always there unless `redirect` is.
    pub default_backend: Option<BackendId>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq)]
pub struct Bind {
    /// Where it listens; `*` is written as the unspecified IPv4 address.
    pub address: SocketAddr,
    /// It speaks TLS.
    pub tls: Option<Arc<Tls>>,
    /// Connections open at a time that came in here.
    pub max_connections: Option<u32>,
    /// Networks whose connections begin with a PROXY protocol header; `None`: none do.
    pub accept_proxy: Option<Arc<[Cidr]>>,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with TLS facts where there are any.
    V2,
}

/// TLS on a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// PEM files of certificate, chain and key; the first is the default.
    pub certificates: Vec<Arc<str>>,
    /// Directories of such files; there is one of these or of those at least.
    pub directories: Vec<Arc<str>>,
    /// ALPN protocols in the order of preference (RFC 7301); none: the extension is not used.
    pub alpn: Vec<Arc<str>>,
    /// The least version.
    pub least: TlsVersion,
    /// Whether clients are asked for a certificate.
    pub client: Option<ClientCertificate>,
    /// File of the secrets that seal session tickets; `None`: `cluster_key`.
    pub ticket_keys: Option<Arc<str>>,
    /// File of the secret that both balancers have, which then seals session tickets; `None`: each process makes its own.
    pub cluster_key: Option<Arc<str>>,
    /// Names that no certificate has are refused.
    pub strict_sni: bool,
    /// `max-age` of `Strict-Transport-Security` (RFC 6797).
    pub hsts: Option<Duration>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// RFC 5246.
    Tls12,
    /// RFC 8446.
    Tls13,
}

/// What is asked of clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// Without one there is no handshake.
    pub required: bool,
    /// PEM file of the authorities.
    pub ca: Arc<str>,
    /// PEM file of revocation lists.
    pub crl: Option<Arc<str>>,
}

/// The authorities that the machine trusts (Debian's `ca-certificates`).
pub const SYSTEM_CA: &str = "/etc/ssl/certs/ca-certificates.crt";

/// TLS towards servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTls {
    /// The name asked for and to be found in the certificate; `None`: the server's IP address.
    pub sni: Option<Arc<str>>,
    /// PEM file of the authorities; `None`: [`SYSTEM_CA`].
    pub ca: Option<Arc<str>>,
    /// Whether the certificate is looked at.
    pub verify: bool,
    /// PEM file of our own certificate, chain and key.
    pub certificate: Option<Arc<str>>,
}

/// The least that a client must send of a body, or take of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MinRate {
    /// Bytes a second, at least 1.
    pub bytes: u64,
    /// Patience that a client begins with, and never has more of.
    pub grace: Duration,
}

/// How responses are compressed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compression {
    /// In the order of preference; at least one.
    pub algorithms: Vec<Coding>,
    /// Media types, lower case: `text/html`, or `text/` for all of a kind.
    pub types: Vec<Arc<str>>,
    /// Shorter bodies are left as they are, bytes.
    pub min_size: u64,
    /// 1 to 9.
    pub level: u8,
    /// Responses compressed at a time on one node.
    pub max_active: u32,
    /// Servers do not hear of `Accept-Encoding`.
    pub offload: bool,
}

/// A content coding (RFC 9110 §8.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// RFC 8878.
    Zstd,
    /// RFC 7932.
    Brotli,
    /// RFC 1952.
    Gzip,
}

impl Coding {
    /// Its name in `Content-Encoding`.
    pub const fn name(self) -> &'static str {
        match self {
            Coding::Zstd => "zstd",
            Coding::Brotli => "br",
            Coding::Gzip => "gzip",
        }
    }
}

/// What a client may ask of an HTTP/2 connection (RFC 9113 §6.5.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Http2 {
    /// Requests at a time on one connection, 1 to 1000.
    pub max_concurrent_streams: u32,
    /// Bytes of a request's body that it may send before the server has taken them, 16 KiB to 16 MiB.
    pub initial_window: u32,
}

/// A redirect of every request to another scheme on the same host and path.
#[derive(Clone, Debug, PartialEq)]
pub struct Redirect {
    /// `http` or `https`.
    pub scheme: Arc<str>,
    /// Status code: 301, 302, 303, 307 or 308.
    pub code: u16,
}

/// Time-outs towards the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrontendTimeouts {
    /// From the first byte of a request to the end of its head (answer: 408).
    pub request: Duration,
    /// Longest silence while a client owes us bytes or takes ours.
    pub client: Duration,
    /// Longest wait for the next request on an idle connection (end: silent close).
    pub keep_alive: Duration,
    /// Longest silence of a tunnel's client once the server has ended its half.
    pub client_fin: Option<Duration>,
}

/// Time-outs towards the servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendTimeouts {
    /// To establish a connection (answer: 503).
    pub connect: Duration,
    /// Longest silence while a server owes us bytes or takes ours (answer: 504).
    pub server: Duration,
    /// Longest wait for a free place at a server (answer: 503).
    pub queue: Duration,
    /// Longest silence in both directions of a tunnel (Upgrade, TCP mode).
    pub tunnel: Duration,
    /// Longest silence of a tunnel's server once the client has ended its half.
    pub server_fin: Option<Duration>,
    /// Longest silence of a session (UDP mode).
    pub session: Duration,
    /// For a health check as a whole, once connected (before that, `connect` counts too).
    pub check: Duration,
}

/// Who answers.
#[derive(Clone, Debug, PartialEq)]
pub struct Backend {
    /// Its name.
    pub name: Arc<str>,
    /// What it speaks.
    pub mode: Mode,
    /// Who gets the next request.
    pub balance: Balance,
    /// Where no other server is up all backups serve; else the first of them.
    pub all_backups: bool,
    /// How a server shows that it is well; `None`: it is taken for well.
    pub check: Option<Check>,
    /// What the traffic says of its servers, beside the check.
    pub observe: Option<Observe>,
    /// Which of its servers fail too much.
    pub outlier: Option<Outlier>,
    /// Time-outs towards its servers.
    pub timeout: BackendTimeouts,
    /// The most that may wait for a place at its servers.
    pub max_queue: Option<u32>,
    /// When it is left alone.
    pub breaker: Option<Breaker>,
    /// Percentage of its servers, fewer than which are not enough to serve alone.
    pub panic: Option<u8>,
    /// At its servers and in its queue, when servers may have all of their limits; `None`: see [`Plan::full_connections`].
    pub full_connections: Option<u32>,
    /// Longest body of a request, bytes; more is answered with 413.
    pub max_body: Option<u64>,
    /// How responses are compressed.
    pub compression: Option<Arc<Compression>>,
    /// TLS to its servers.
    pub tls: Option<Arc<ServerTls>>,
    /// Datagrams that a server answers each of a client's with (UDP mode); `None`: nobody knows.
    pub responses: Option<u32>,
    /// How often a request may be tried again, 0 to 100.
    pub retries: u8,
    /// How a client stays with its server; `None`: it does not.
    pub persist: Option<Persist>,
    /// The table that says which server a client stays with.
    pub stick: Option<Stick>,
    /// After what.
    pub retry_on: RetryOn,
    /// Retries for a hundred requests, 1 to 100; `None`: as many as there are failures.
    pub retry_budget: Option<u8>,
    /// Whether a retry may go to another server.
    pub redispatch: bool,
    /// When a second server is asked beside the first.
    pub hedge: Option<Hedge>,
    /// Whether a client that sends no more, and whose request waits, is taken for gone.
    pub abort_on_close: bool,
    /// Its servers, tiers expanded.
    pub servers: Vec<Server>,
    /// Bodies of errors; they go before the frontend's.
    pub error_pages: Vec<ErrorPage>,
    /// Asked in this order once it is known that this backend answers.
    pub rules: Vec<Rule>,
}

/// One server.
#[derive(Clone, Debug, PartialEq)]
pub struct Server {
    /// Its name, unique in the backend.
    pub name: Arc<str>,
    /// Where it listens.
    pub address: SocketAddr,
    /// Its share, 0 to 256; 0 gets nothing new.
    pub weight: u16,
    /// Requests (HTTP) or connections (TCP) it may have at a time; `None`: no limit.
    pub max_connections: Option<u32>,
    /// How many of those while the backend is idle; `None`: all.
    pub min_connections: Option<u32>,
    /// It serves only while no other is up.
    pub backup: bool,
    /// How long its weight and limit grow after it was down.
    pub slow_start: Option<Duration>,
    /// Connections to it come from the client's own address.
    pub source_client: bool,
    /// Its connections begin with a PROXY protocol header.
    pub send_proxy: Option<ProxyVersion>,
    /// It speaks HTTP/2.
    pub http2: bool,
    /// Requests at a time on one HTTP/2 connection to it, 1 to 1000; fewer where it says so itself.
    pub max_concurrent_streams: u32,
    /// What stands for it in a persistence cookie; `None`: its name.
    pub cookie: Option<Arc<str>>,
    /// Another port for its check, before the check's own.
    pub check_port: Option<u16>,
    /// Another address for its check, likewise.
    pub check_address: Option<IpAddr>,
    /// The node it runs on, where the file knows it.
    pub node: Option<NodeId>,
    /// What an operator wants of it at the moment.
    pub admin: Admin,
}

/// An application tier: instances of Tomcat on several nodes.
#[derive(Clone, Debug, PartialEq)]
pub struct Tomcat {
    /// Its name.
    pub name: Arc<str>,
    /// Nodes that run it.
    pub nodes: Vec<NodeId>,
    /// Instances on each node, 1 to 64.
    pub instances: u16,
    /// Port of the first instance; the next ones count up.
    pub first_port: u16,
}

/// What requests are marked with on their way.
#[derive(Clone, Debug, PartialEq, Default)]
pub struct Marking {
    /// `Forwarded` is set.
    pub forwarded: Option<Forwarded>,
    /// A request id is.
    pub request_id: Option<RequestId>,
    /// `traceparent` is looked at.
    pub trace: Option<StartTrace>,
}

/// How `Forwarded` is set (RFC 7239).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// The identifier after `by=`, `_` first.
    pub by: Option<Arc<str>>,
    /// The client's address is not told.
    pub hidden: bool,
    /// Clients whose own `Forwarded` is kept before ours.
    pub from: Vec<Cidr>,
    /// Clients it is not set for.
    pub except: Vec<Cidr>,
}

/// How requests get an id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId {
    /// The header, as it is written.
    pub header: Arc<str>,
    /// It in lower case.
    pub name: Arc<str>,
    /// Clients whose ids are kept.
    pub from: Vec<Cidr>,
    /// Whether clients are told.
    pub answer: bool,
}

/// What becomes of a request without a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartTrace {
    /// It stays without.
    No,
    /// It gets one that is to be recorded.
    Sampled,
    /// It gets one that need not be.
    Unsampled,
}

/// A body for errors that Relais answers with itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorPage {
    /// First status that it is for, 400 to 599.
    pub first: u16,
    /// Last status that it is for.
    pub last: u16,
    /// The file with the body: UTF-8, at most [`ERROR_PAGE_BYTES`].
    pub file: Arc<str>,
    /// Its media type, by the file's extension.
    pub kind: Arc<str>,
}

/// Longest error page, bytes.
pub const ERROR_PAGE_BYTES: u64 = 64 * 1024;

/// Where access lines go, and how they get there. Frontends that say the same share one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LogTarget {
    /// The other end.
    pub to: LogTo,
    /// Longest line in bytes, 80 to 65535; what is more is cut off. Syslog only.
    pub length: u32,
}

/// The other end of an access log.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum LogTo {
    /// The standard output, which systemd's journal keeps.
    Stdout,
    /// A file, appended to, reopened on reload and on SIGUSR1.
    File(Arc<str>),
    /// A syslog server: each line a datagram (RFC 5426).
    Udp(SocketAddr),
    /// A syslog server: lines with their length before them (RFC 6587 §3.4.1).
    Tcp(SocketAddr),
    /// A datagram socket of this machine, such as `/dev/log`.
    Unix(Arc<str>),
}

impl fmt::Display for LogTo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LogTo::Stdout => f.write_str("stdout"),
            LogTo::File(path) => f.write_str(path),
            LogTo::Udp(address) => write!(f, "udp@{address}"),
            LogTo::Tcp(address) => write!(f, "tcp@{address}"),
            LogTo::Unix(path) => write!(f, "unix@{path}"),
        }
    }
}

/// A frontend's access log.
#[derive(Clone, Debug, PartialEq)]
pub struct FrontendLog {
    /// Where its lines go: index in [`Plan::logs`].
    pub target: usize,
    /// What they say, syslog's header included.
    pub format: Arc<LogFormat>,
}

/// What an access line is made of.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFormat {
    /// Written one after the other; the line's end is not among them.
    pub parts: Vec<LogPart>,
}

/// A part of an access line.
#[derive(Clone, Debug, PartialEq)]
pub enum LogPart {
    /// Written as it is.
    Text(Arc<str>),
    /// Something about the request or connection.
    Field {
        /// What.
        field: LogField,
        /// How.
        style: LogStyle,
    },
}

/// How a field is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogStyle {
    /// As HAProxy does.
    Plain,
    /// In quotation marks.
    Quoted,
    /// As a JSON value (RFC 8259); what is not there is `null`.
    Json,
}

/// What can be logged: HAProxy's names (configuration manual §8.2.4) where it has one.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)]
pub enum LogField {
    /// Always `-`: captured cookies, of which there are none.
    Nothing,
    Hostname,
    Pid,
    ClientIp,
    ClientPort,
    FrontendIp,
    FrontendPort,
    ServerIp,
    ServerPort,
    Frontend,
    /// With `~` behind it where the client spoke TLS.
    FrontendTls,
    IsTls,
    Backend,
    Server,
    DateAccept,
    DateRequest,
    DateRequestGmt,
    DateRequestLocal,
    DateGmt,
    DateLocal,
    /// RFC 3339, local time, milliseconds.
    DateIso,
    /// Of now, as RFC 5424 has it.
    DateSyslog,
    /// Of now, as RFC 3164 has it.
    DateSyslogOld,
    Seconds,
    Milliseconds,
    TimeHandshake,
    TimeIdle,
    TimeRequest,
    TimeQueue,
    TimeConnect,
    TimeResponse,
    TimeData,
    TimeActive,
    TimeAll,
    TimeTotal,
    TimeUser,
    Status,
    BytesOut,
    BytesIn,
    State,
    StateCookie,
    SessionsProcess,
    SessionsFrontend,
    SessionsBackend,
    SessionsServer,
    Retries,
    RetryCount,
    IsRedispatched,
    QueueServer,
    QueueBackend,
    RequestCaptures,
    RequestCaptureList,
    ResponseCaptures,
    ResponseCaptureList,
    /// A field of the request by lower-case name.
    RequestHeader(Arc<str>),
    Host,
    RequestLine,
    Method,
    Path,
    Query,
    Target,
    Version,
    RequestId,
    Traceparent,
}

/// A header that is kept for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// Its name, lower case.
    pub name: Arc<str>,
    /// Bytes of its value that are kept, 1 to 4096.
    pub length: u16,
}

impl Plan {
    /// The files of all error pages, each once.
    pub fn error_page_files(&self) -> Vec<&Arc<str>> {
        let all = self.frontends.iter().flat_map(|f| &f.error_pages);
        let all = all.chain(self.backends.iter().flat_map(|b| &b.error_pages));
        let mut files: Vec<&Arc<str>> = all.map(|page| &page.file).collect();
        files.sort();
        files.dedup();
        files
    }

    /// The node of this name.
    pub fn node(&self, name: &str) -> Option<NodeId> {
        self.nodes.iter().position(|n| &*n.name == name).map(|i| NodeId(i as u16))
    }

    /// The frontends that run on `node`.
    pub fn frontends_on(&self, node: NodeId) -> impl Iterator<Item = (FrontendId, &Frontend)> {
        let ids = (0u16..).map(FrontendId);
        ids.zip(&self.frontends).filter(move |(_, f)| f.nodes.contains(&node))
    }

    /// What a frontend listens on at `node`: its listeners without those on an address that is another node's own
    /// (loopback is everybody's).
    pub fn binds_on<'a>(&'a self, node: NodeId, frontend: &'a Frontend) -> impl Iterator<Item = &'a Bind> {
        let others = move |ip: IpAddr| {
            let owner = self.nodes.iter().position(|n| n.links.contains(&ip));
            !ip.is_loopback() && owner.is_some_and(|owner| owner != usize::from(node.0))
        };
        frontend.binds.iter().filter(move |bind| !others(bind.address.ip()))
    }

    /// The files that the processes of `node` need and only root may read, each once: certificates, keys, authorities,
    /// secrets. A secret may be `credential:NAME` or `environment:NAME` instead of a path.
    pub fn files_on(&self, node: NodeId) -> Vec<Arc<str>> {
        let mut files: Vec<Arc<str>> = Vec::new();
        let binds = self.frontends_on(node).flat_map(|(_, front)| self.binds_on(node, front));
        for tls in binds.filter_map(|bind| bind.tls.as_ref()) {
            files.extend(tls.certificates.iter().cloned());
            files.extend(tls.certificates.iter().map(|path| format!("{path}.ocsp").into()));
            files.extend(tls.ticket_keys.clone());
            files.extend(tls.cluster_key.clone());
            if let Some(client) = &tls.client {
                files.push(client.ca.clone());
                files.extend(client.crl.clone());
            }
        }
        let shields = self.frontends_on(node).filter_map(|(_, front)| front.shield.as_ref());
        files.extend(shields.filter_map(|shield| shield.key.clone()));
        for tls in self.backends.iter().filter_map(|backend| backend.tls.as_ref()) {
            files.extend(tls.certificate.clone());
            if tls.verify {
                files.push(tls.ca.clone().unwrap_or_else(|| SYSTEM_CA.into()));
            }
        }
        files.extend(self.backends.iter().filter_map(|backend| backend.check.as_ref()?.secret()).cloned());
        files.extend(self.backends.iter().filter_map(|backend| backend.persist.as_ref()?.secret()).cloned());
        files.extend(self.peers.iter().filter_map(|_| self.cluster_key.clone()));
        files.sort();
        files.dedup();
        files
    }

    /// The nodes that have tables in common with `node`: those that run a frontend with it.
    pub fn peers_of(&self, node: NodeId) -> impl Iterator<Item = NodeId> {
        let common = move |other: &NodeId| {
            let both = |front: &Frontend| front.nodes.contains(&node) && front.nodes.contains(other);
            *other != node && self.frontends.iter().any(|front| front.mode != Mode::Forward && both(front))
        };
        (0..self.nodes.len() as u16).map(NodeId).filter(common)
    }

    /// The directories whose files are needed likewise.
    pub fn directories_on(&self, node: NodeId) -> Vec<Arc<str>> {
        let binds = self.frontends_on(node).flat_map(|(_, front)| self.binds_on(node, front));
        let mut all: Vec<Arc<str>> =
            binds.filter_map(|bind| bind.tls.as_ref()).flat_map(|tls| tls.directories.clone()).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Whether connections to some server come from the client's own address, which takes a privilege.
    pub fn needs_client_source(&self) -> bool {
        self.backends.iter().flat_map(|backend| &backend.servers).any(|server| server.source_client)
    }

    /// The programs that the virtual addresses of `node` depend on, and those that check servers for its frontends; one of
    /// them perhaps more than once.
    pub fn scripts_on(&self, node: NodeId) -> impl Iterator<Item = Script> {
        let tracks = self.vips_on(node).flat_map(|(_, vip, _)| &vip.track);
        let tracked = tracks.filter_map(|track| match &track.what {
            Tracked::Script(script) => Some(script.clone()),
            _ => None,
        });
        let serves = self.frontends_on(node).next().is_some();
        let checked = self.backends.iter().filter(move |_| serves).flat_map(|backend| {
            backend.servers.iter().filter_map(|server| backend.check.as_ref()?.script(server))
        });
        tracked.chain(checked)
    }

    /// The virtual addresses that `node` may hold, with its priority for each.
    pub fn vips_on(&self, node: NodeId) -> impl Iterator<Item = (VipId, &Vip, u8)> {
        (0u16..).map(VipId).zip(&self.vips).filter_map(move |(id, vip)| {
            let (_, priority) = vip.nodes.iter().find(|(n, _)| *n == node)?;
            Some((id, vip, *priority))
        })
    }
}
