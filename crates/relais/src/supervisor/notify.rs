//! systemd's readiness protocol (`sd_notify(3)`), without libsystemd. Outside systemd it does nothing.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Where systemd listens, if it started us with `Type=notify`.
#[derive(Debug)]
pub(crate) struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Half of `WatchdogSec=`, if it is set: how often [`Notify::alive`] is due.
    pub(crate) watchdog: Option<Duration>,
}

impl Notify {
    /// From the environment that systemd gave us.
    pub(crate) fn from_env() -> Notify {
        let to = std::env::var("NOTIFY_SOCKET").ok().and_then(|path| {
            let address = match path.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name),
                None => SocketAddr::from_pathname(&path),
            };
            Some((UnixDatagram::unbound().ok()?, address.ok()?))
        });
        let usec = std::env::var("WATCHDOG_USEC").ok().and_then(|usec| usec.parse().ok());
        Notify { to, watchdog: usec.map(|usec: u64| Duration::from_micros((usec / 2).max(1000))) }
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

    /// The watchdog's sign of life.
    pub(crate) fn alive(&self) {
        self.say("WATCHDOG=1");
    }
}
