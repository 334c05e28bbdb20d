//! systemd's readiness protocol (`sd_notify(3)`), without libsystemd. Outside systemd it does nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where systemd listens, if it started us with `Type=notify`.
#[derive(Debug)]
pub(crate) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Its path, as systemd gave it; an abstract one begins with `@`.
    pub(crate) path: Option<String>,
    /// Half of `WatchdogSec=`, if it is set: how often [`Notify::alive`] is due.
    pub(crate) watchdog: Option<Duration>,
}

impl Notify {
    /// From the environment that systemd gave us.
    pub(crate) fn from_env() -> Notify {
        let usec = std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok());
        let watchdog = usec.map(|usec: u64| Duration::from_micros((usec / 2).max(1000)));
        match std::env::var("NOTIFY_SOCKET") {
            Ok(path) => Notify::to(path, watchdog),
            Err(_) => Notify { watchdog, ..Notify::nowhere() },
        }
    }

    /// To the socket at `path`, with a watchdog to be kept alive this often.
    pub(crate) fn to(path: String, watchdog: Option<Duration>) -> Notify {
        let address = match path.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None => SocketAddr::from_pathname(&path),
        };
        let to = UnixDatagram::unbound().ok().zip(address.ok());
        Notify { to, path: Some(path), watchdog }
    }

    /// To nobody.
    pub(crate) fn nowhere() -> Notify {
        Notify { to: None, path: None, watchdog: None }
    }

    fn say(&self, state: &str) {
        if let Some((socket, address)) = &self.to {
            let _ = socket.send_to_addr(state.as_bytes(), address); // systemd went away: nobody to tell
        }
    }

    /// Everything serves; also after a reload.
    pub(crate) fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    /// A new plan is being put in force.
    pub(crate) fn reloading(&self) {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let usec = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={usec}"));
    }

    /// The node hands over and drains.
    pub(crate) fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=handing over and draining");
    }

    /// The service's main process is another one now. The old main process says so, since systemd need not believe
    /// anybody else (`NotifyAccess=main`).
    pub(crate) fn main_pid(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}"));
    }

    /// The watchdog's sign of life.
    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1");
    }
}
