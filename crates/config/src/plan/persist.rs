//! How clients stay with their servers.

use std::sync::Arc;
use std::time::Duration;

/// How a client stays with its server.
#[derive(Clone, Debug, PartialEq)]
pub enum Persist {
    /// By a cookie that says the server.
    Cookie(ServerCookie),
    /// By what stands behind the last dot of a session's id, in a cookie of this name or in the path: Tomcat's `jvmRoute`.
    Route(Arc<str>),
}

impl Persist {
    /// The secret that it needs, as [`super::Plan::files_on`] names it.
    pub fn secret(&self) -> Option<&Arc<str>> {
        match self {
            Persist::Cookie(cookie) => cookie.secret.as_ref(),
            Persist::Route(_) => None,
        }
    }
}

/// A table of which server a client's key stays with (HAProxy's `stick-table` and `stick on`).
#[derive(Clone, Debug, PartialEq)]
pub struct Stick {
    /// What a client is known by.
    pub key: StickKey,
    /// Most keys in it.
    pub size: u32,
    /// How long a key counts after its last request.
    pub expire: Duration,
}

/// What a client is known by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StickKey {
    /// This of a request or connection; of a path, so many directories if that is not 0.
    Of(relais_rules::Key, u8),
    /// The value of the cookie of this name that a server gave it.
    Learned(Arc<str>),
}

impl StickKey {
    /// The longest key that is kept as it is, bytes; what is longer is kept as its hash.
    pub const LONGEST: usize = 128;

    /// It is an address and nothing else.
    pub fn is_address(&self) -> bool {
        matches!(self, StickKey::Of(key, _) if key.parts == [relais_rules::What::Src])
    }

    /// For each of its parts whether that is an address.
    pub fn addresses(&self) -> Vec<bool> {
        match self {
            StickKey::Of(key, _) => key.parts.iter().map(|part| *part == relais_rules::What::Src).collect(),
            StickKey::Learned(_) => vec![false],
        }
    }

    /// It is of several parts, with their lengths between: no text.
    pub fn is_joined(&self) -> bool {
        matches!(self, StickKey::Of(key, _) if key.parts.len() > 1)
    }

    /// It needs the name in the TLS handshake.
    pub fn reads_sni(&self) -> bool {
        matches!(self, StickKey::Of(key, _) if key.parts.contains(&relais_rules::What::Sni))
    }
}

/// How balancers tell each other of their tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peers {
    /// Where each of them listens, on its node's first link.
    pub port: u16,
    /// HAProxies that have tables of the same names: what they call themselves, and where they come from.
    pub others: Vec<(Arc<str>, std::net::IpAddr)>,
}

/// A cookie that says which server its client is to stay with (HAProxy's `cookie`).
#[derive(Clone, Debug, PartialEq)]
pub struct ServerCookie {
    /// Its name.
    pub name: Arc<str>,
    /// Who sets it.
    pub mode: CookieMode,
    /// Where the secret is kept that servers' names are hashed with, as [`super::Plan::files_on`] names it; `None`: cookies say
    /// what the servers are called.
    pub secret: Option<Arc<str>>,
}

/// Who sets the cookie.
#[derive(Clone, Debug, PartialEq)]
pub enum CookieMode {
    /// Relais.
    Insert {
        /// No server sees it.
        indirect: bool,
        /// An answer that sets it says that no shared cache may keep it.
        nocache: bool,
        /// A server that sets it itself has its way.
        preserve: bool,
        /// Only answers to POST set it.
        post_only: bool,
        /// Longest time between two requests.
        max_idle: Option<Duration>,
        /// Longest time since the first.
        max_life: Option<Duration>,
        /// Its `Domain`; `None`: the host that was asked.
        domain: Option<Arc<str>>,
        /// Its `Path`.
        path: Arc<str>,
        /// Its `SameSite`.
        same_site: SameSite,
        /// Its `Secure`.
        secure: Secure,
        /// Scripts do not see it.
        http_only: bool,
        /// More attributes, as they are sent.
        attributes: Option<Arc<str>>,
    },
    /// The application, with a value of its own: the server stands before it, up to a `~`, and no server sees that.
    Prefix,
    /// The application, with any value: it becomes the server's.
    Rewrite,
}

/// Which requests of other sites a cookie goes with (RFC 6265bis §5.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SameSite {
    /// The attribute is not given.
    Off,
    /// Top-level navigation.
    Lax,
    /// None.
    Strict,
    /// All, over TLS only.
    None,
}

/// Whether a cookie comes back over TLS only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Secure {
    /// If it was set over TLS.
    Auto,
    /// Always.
    Yes,
    /// Never.
    No,
}
