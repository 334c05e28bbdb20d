//! How the health of servers is known: what checks ask, and what an operator says.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

/// What an operator wants of a server, whatever its checks say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Admin {
    /// It serves.
    #[default]
    Ready,
    /// It finishes what it has; its weight is 0.
    Drain,
    /// It is taken for dead.
    Down,
}

impl Admin {
    /// As commands and status documents say it.
    pub const fn name(self) -> &'static str {
        match self {
            Admin::Ready => "ready",
            Admin::Drain => "drain",
            Admin::Down => "down",
        }
    }
}

/// What the traffic itself says of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observe {
    /// Answers count, not connections alone.
    pub layer7: bool,
    /// Failures in a row that have something done, 1 to 1000.
    pub errors: u32,
    /// What is done.
    pub on_error: OnError,
    /// Percentage of the backend's servers that may be down for it to take out one more, that one included.
    pub most_down: u8,
}

/// What a row of failures does (HAProxy's `on-error`). The next check comes sooner in any case.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnError {
    /// The server is down.
    MarkDown,
    /// As if a check had failed.
    FailCheck,
    /// One failed check more takes it down.
    SuddenDeath,
    /// Nothing else.
    FastInter,
}

/// When a backend that fails is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Breaker {
    /// Percentage of failures, 1 to 100.
    pub errors: u8,
    /// Of at least so many requests.
    pub least: u32,
    /// Within so long.
    pub window: Duration,
    /// How long it is left alone.
    pub open: Duration,
    /// How many requests try it then.
    pub probes: u32,
}

/// When a server that fails more than the others is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outlier {
    /// Failures of a hundred requests more than all others together, 1 to 100.
    pub errors: u8,
    /// Of at least so many requests.
    pub least: u32,
    /// That ended within so long.
    pub window: Duration,
    /// How long it is out.
    pub out: Duration,
    /// Percentage of the backend's servers that may be down for it to take out one more, that one included.
    pub most_down: u8,
}

/// When a second server is asked while the first has not answered: GET and HEAD alone, and nobody who stays with a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hedge {
    /// So long after the first was asked.
    pub after: Duration,
    /// For so many of a hundred requests at most, 1 to 100.
    pub budget: u8,
}

/// After what a request is tried again, beside a connection that cannot be made; only one that is idempotent and whose body, if any,
/// is here still.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetryOn {
    /// No byte of an answer came.
    pub empty: bool,
    /// What came is no HTTP.
    pub junk: bool,
    /// No answer came in time.
    pub late: bool,
    /// An answer with one of these statuses.
    pub statuses: Vec<u16>,
}

/// An active health check.
#[derive(Clone, Debug, PartialEq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// How often, 10 ms to 1 h.
    pub every: Duration,
    /// Failures in a row that take a server out, 1 to 255.
    pub fall: u8,
    /// Successes in a row that bring it back, 1 to 255.
    pub rise: u8,
    /// How often while results begin to change; `None`: as ever.
    pub fastinter: Option<Duration>,
    /// How often while a server is down; `None`: as ever.
    pub downinter: Option<Duration>,
    /// Another port to ask.
    pub port: Option<u16>,
    /// Another address to ask.
    pub address: Option<IpAddr>,
    /// Percent by which intervals vary, 0 to 50.
    pub jitter: u8,
    /// What is thought of a server that nobody has asked yet.
    pub init: InitState,
    /// How long failures do not count at first.
    pub grace: Duration,
    /// Who says how a server is on its own machine.
    pub agent: Option<Agent>,
    /// Whether the nodes take turns.
    pub shared: bool,
}

/// What is thought of a server that nobody has asked yet (HAProxy's `init-state`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum InitState {
    /// The first failure takes it out.
    #[default]
    Up,
    /// It stands as many failures as ever.
    FullyUp,
    /// The first success brings it in.
    Down,
    /// It needs as many successes as ever.
    FullyDown,
}

/// An agent on the machine of each server (HAProxy's `agent-check`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Agent {
    /// Its port.
    pub port: u16,
    /// Another address than the server's.
    pub address: Option<IpAddr>,
    /// How often it is asked, 10 ms to 1 h.
    pub every: Duration,
    /// What is said to it.
    pub send: Arc<str>,
}

impl Check {
    /// Who is asked for a server that listens there; `None`: the server itself.
    pub fn elsewhere(&self, server: &super::Server) -> Option<SocketAddr> {
        let (port, address) = (server.check_port.or(self.port), server.check_address.or(self.address));
        let own = server.address;
        (port.is_some() || address.is_some())
            .then(|| SocketAddr::new(address.unwrap_or(own.ip()), port.unwrap_or(own.port())))
    }

    /// The program that says how this server is, if one does.
    pub fn script(&self, server: &super::Server) -> Option<super::Script> {
        let CheckKind::Exec { command, timeout } = &self.kind else { return None };
        let (address, port) = (server.address.ip(), server.address.port());
        Some(super::Script {
            command: format!("{command} {address} {port} {}", server.name).into(),
            interval: self.every,
            timeout: *timeout,
            rise: self.rise,
            fall: self.fall,
        })
    }

    /// The secret that it needs, as [`super::Plan::files_on`] names it.
    pub fn secret(&self) -> Option<&Arc<str>> {
        match &self.kind {
            CheckKind::Mysql { secret, .. }
            | CheckKind::Redis { secret }
            | CheckKind::Ldap { secret, .. } => secret.as_ref(),
            _ => None,
        }
    }
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq)]
pub enum CheckKind {
    /// A connection can be made.
    Tcp,
    /// A request answers with a status in the range.
    Http {
        /// Path and query.
        path: Arc<str>,
        /// `Host` field; `None`: the server's address.
        host: Option<Arc<str>>,
        /// First and last status that counts as well.
        expect: (u16, u16),
        /// The method.
        method: Arc<str>,
        /// What has to be in the body.
        contains: Option<Arc<str>>,
        /// A regular expression that has to be found there.
        matches: Option<Arc<str>>,
        /// Fields of the request.
        headers: Vec<(Arc<str>, Arc<str>)>,
        /// Its body.
        body: Option<Arc<str>>,
    },
    /// A program ends with 0, run with the server's address, port and name.
    Exec {
        /// Its absolute path, and its arguments with blanks between them.
        command: Arc<str>,
        /// How long it may take.
        timeout: Duration,
    },
    /// gRPC's health protocol says that a service is SERVING.
    Grpc {
        /// Which; empty: the server as a whole.
        service: Arc<str>,
        /// The name in `:authority`.
        host: Arc<str>,
    },
    /// A name server answers a question, over UDP, as expected.
    Dns {
        /// The name that is asked for, as the file has it.
        name: Arc<str>,
        /// The type of its records (RFC 1035 §3.2.2).
        kind: u16,
        /// Which answers count as well.
        expect: DnsExpect,
    },
    /// A `ClientHello` is answered.
    Tls {
        /// The name asked for.
        sni: Option<Arc<str>>,
    },
    /// MySQL or MariaDB greets, and takes a login.
    Mysql {
        /// Who logs in.
        user: Option<Arc<str>>,
        /// The password.
        secret: Option<Arc<str>>,
        /// The node has to be Primary and Synced, too.
        galera: bool,
    },
    /// PostgreSQL takes the start of a session.
    Postgresql {
        /// Whose.
        user: Arc<str>,
    },
    /// Redis answers `PING`.
    Redis {
        /// The password.
        secret: Option<Arc<str>>,
    },
    /// A mail server takes `EHLO`.
    Smtp {
        /// Our name.
        helo: Arc<str>,
    },
    /// A directory takes a bind, and has an entry.
    Ldap {
        /// Who binds; `None`: nobody.
        user: Option<Arc<str>>,
        /// The password.
        secret: Option<Arc<str>>,
        /// The entry that it has to have.
        base: Option<Arc<str>>,
    },
}

/// The answers of a name server that count as well, by their RCODE (RFC 1035 §4.1.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DnsExpect {
    /// 0: the name exists.
    NoError,
    /// 3: it does not.
    NxDomain,
    /// One of both.
    Either,
    /// Whatever it says, "refused" and "server failure" too.
    Any,
}
