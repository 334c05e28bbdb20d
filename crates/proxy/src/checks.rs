//! Active health checks. They run on the process's main thread, which carries no traffic, so that load
//! does not delay them.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use relais_balance::Health;
use relais_config::plan;
use relais_ipc::files::Files;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::counters::{BackShared, ServerShared, lock};
use crate::probe::{Outcome, probe};
use crate::tls;

/// A server went up or down.
#[derive(Debug)]
pub(crate) struct Change {
    pub(crate) server: Arc<ServerShared>,
    pub(crate) backend: Arc<BackShared>,
    pub(crate) up: bool,
}

/// What decides whether a running check goes on as it is.
#[derive(Clone, PartialEq)]
struct Subject {
    check: plan::Check,
    address: SocketAddr,
    send_proxy: Option<plan::ProxyVersion>,
    tls: Option<tls::Connects>,
    connect: Duration,
    limit: Duration,
    slow_start: Option<Duration>,
    /// The password of the check, or why it cannot be had.
    secret: Result<Vec<u8>, String>,
}

/// The running checks, by id of the server.
pub(crate) struct Checks {
    running: HashMap<u32, (Subject, JoinHandle<()>)>,
    /// Servers that an operator has put down.
    held: HashSet<u32>,
    changes: UnboundedSender<Change>,
}

impl Checks {
    /// No checks yet; verdicts will go to `changes`.
    pub(crate) fn new(changes: UnboundedSender<Change>) -> Checks {
        Checks { running: HashMap::new(), held: HashSet::new(), changes }
    }

    /// Checks the servers of these backends, and no others. A check that stays the same goes on undisturbed.
    pub(crate) fn set<'a>(
        &mut self,
        backends: impl Iterator<Item = (&'a plan::Backend, &'a Arc<BackShared>, &'a [Arc<ServerShared>])>,
        connects: &[Option<tls::Connects>],
        files: &Files,
    ) {
        let mut before = std::mem::take(&mut self.running);
        let connects = connects.iter().cloned().chain(std::iter::repeat(None));
        for ((plan, backend, servers), tls) in backends.zip(connects) {
            for (place, (server_plan, server)) in plan.servers.iter().zip(servers).enumerate() {
                let down = server_plan.admin == plan::Admin::Down;
                lock(&server.check).checked = plan.check.is_some() && !down;
                if down {
                    self.hold(server, backend);
                    continue;
                }
                let returns = self.held.remove(&server.id);
                let Some(check) = &plan.check else {
                    // Nobody looks any more: it is taken for well.
                    if !server.up.swap(true, Relaxed) {
                        backend.change();
                        backend.dispatch();
                        let change = Change { server: server.clone(), backend: backend.clone(), up: true };
                        let _ = self.changes.send(change);
                    }
                    continue;
                };
                // Another port speaks another language, mostly: as in HAProxy, neither TLS nor the PROXY header is for it.
                let elsewhere = check.elsewhere(server_plan.address);
                let subject = Subject {
                    check: check.clone(),
                    address: elsewhere.unwrap_or(server_plan.address),
                    send_proxy: server_plan.send_proxy.filter(|_| elsewhere.is_none()),
                    tls: tls.clone().filter(|_| elsewhere.is_none()),
                    secret: secret(check, files),
                    // As in HAProxy: a dead machine must not hold up the next check.
                    connect: plan.timeout.connect.min(check.every),
                    limit: plan.timeout.check,
                    slow_start: server_plan.slow_start,
                };
                if let Some((old, handle)) = before.remove(&server.id) {
                    if old == subject {
                        self.running.insert(server.id, (old, handle));
                        continue;
                    }
                    handle.abort();
                }
                // Starts are spread over one interval, so that servers are not all asked at once.
                let share = if returns { 0.0 } else { place as f64 / plan.servers.len().max(1) as f64 };
                let start = (check.every.mul_f64(share), returns);
                let run = run(subject.clone(), server.clone(), backend.clone(), start, self.changes.clone());
                self.running.insert(server.id, (subject, tokio::task::spawn_local(run)));
            }
        }
        before.into_values().for_each(|(_, handle)| handle.abort());
    }

    /// Takes out a server that an operator has put down; nobody asks it anything until it is made ready.
    fn hold(&mut self, server: &Arc<ServerShared>, backend: &Arc<BackShared>) {
        if self.held.insert(server.id) {
            let mut known = lock(&server.check);
            known.what = "put down by an operator".to_owned();
            known.since = Instant::now();
        }
        if server.up.swap(false, Relaxed) {
            backend.change();
            tracing::warn!("backend {}: server {} is down: an operator says so", server.backend, server.name);
            let _ = self.changes.send(Change { server: server.clone(), backend: backend.clone(), up: false });
        }
    }
}

/// Checks one server for ever.
async fn run(
    subject: Subject,
    server: Arc<ServerShared>,
    backend: Arc<BackShared>,
    (start, returns): (Duration, bool),
    changes: UnboundedSender<Change>,
) {
    let Subject { check, address, send_proxy, tls, connect, limit, slow_start, secret } = subject;
    let mut ramp: Option<JoinHandle<()>> = None;
    let mut health = first_health(&check, server.is_up(), !lock(&server.check).what.is_empty());
    if returns {
        // An operator says that it is well: the first good check confirms it.
        for _ in 1..check.rise {
            health.record(true);
        }
    }
    let mut in_a_row = (true, 0u32);
    tokio::time::sleep(start).await;
    let mut next = tokio::time::Instant::now();
    loop {
        tokio::time::sleep_until(next).await;
        let begun = tokio::time::Instant::now();
        let outcome = match &secret {
            Ok(secret) => {
                let times = (connect, limit);
                probe(&check.kind, address, send_proxy, tls.as_ref(), secret, times).await
            }
            Err(why) => Outcome { ok: false, what: why.clone(), took: Duration::ZERO },
        };
        in_a_row = if in_a_row.0 == outcome.ok { (outcome.ok, in_a_row.1 + 1) } else { (outcome.ok, 1) };
        let change = health.record(outcome.ok);
        next = (begun + pause(&check, &health)).max(tokio::time::Instant::now());
        {
            let mut known = lock(&server.check);
            known.took_ms = outcome.took.as_millis() as u64;
            known.failures += u64::from(!outcome.ok);
            known.downs += u64::from(change == Some(false));
            if change.is_some() {
                known.since = Instant::now();
            }
            known.what.clone_from(&outcome.what);
        }
        if let Some(up) = change {
            if let Some(ramp) = ramp.take() {
                ramp.abort();
            }
            server.set_ramp(if up && slow_start.is_some() { 1 } else { 100 });
            server.up.store(up, Relaxed);
            backend.change();
            if let (true, Some(time)) = (up, slow_start) {
                ramp = Some(tokio::task::spawn_local(start_slowly(server.clone(), backend.clone(), time)));
            }
            tell(&server, &outcome.what, up, in_a_row.1, if up { check.rise } else { check.fall });
            let _ = changes.send(Change { server: server.clone(), backend: backend.clone(), up });
        }
    }
}

/// Lets a server that is back have more and more: HAProxy's `slowstart`, in steps of a hundredth. It goes on when the
/// check becomes another.
async fn start_slowly(server: Arc<ServerShared>, backend: Arc<BackShared>, time: Duration) {
    for percent in 2..=100 {
        tokio::time::sleep(time / 100).await;
        if !server.is_up() {
            return;
        }
        server.set_ramp(percent);
        backend.change();
        backend.dispatch();
    }
}

/// The password of a check, without the line's end that editors leave in files.
fn secret(check: &plan::Check, files: &Files) -> Result<Vec<u8>, String> {
    let Some(name) = check.secret() else { return Ok(Vec::new()) };
    let bytes = files.get(name)?;
    let bytes = bytes.strip_suffix(b"\n").unwrap_or(bytes);
    Ok(bytes.strip_suffix(b"\r").unwrap_or(bytes).to_vec())
}

/// From the beginning of a check to that of the next: HAProxy's `inter`, `fastinter` and `downinter`.
fn pause(check: &plan::Check, health: &Health) -> Duration {
    let other = match (health.is_up(), health.progress()) {
        (true, (firm, of)) if firm == of => None,
        (false, (0, _)) => check.downinter,
        _ => check.fastinter,
    };
    other.unwrap_or(check.every)
}

/// What a new check begins with. A verdict that earlier checks have confirmed is firm: after a change of the
/// plan a server that was well stands `fall` failures, as before it.
fn first_health(check: &plan::Check, up: bool, confirmed: bool) -> Health {
    let mut health = Health::new(check.rise, check.fall, up);
    if up && confirmed {
        health.record(true);
    }
    health
}

fn tell(server: &ServerShared, what: &str, up: bool, in_a_row: u32, of: u8) {
    let (backend, name) = (&server.backend, &server.name);
    if up {
        tracing::info!("backend {backend}: server {name} is up: {what} ({in_a_row} of {of} checks)");
    } else {
        tracing::warn!("backend {backend}: server {name} is down: {what} ({in_a_row} of {of} checks)");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(every: Duration) -> plan::Check {
        plan::Check {
            kind: plan::CheckKind::Tcp,
            every,
            fall: 3,
            rise: 2,
            fastinter: Some(every / 4),
            downinter: Some(every * 5),
            port: None,
            address: None,
        }
    }

    #[test]
    fn checks_are_hurried_while_results_change_and_rare_while_a_server_is_down() {
        let every = Duration::from_secs(1);
        let (check, mut health) = (check(every), Health::new(2, 3, true));
        let mut after = |ok| {
            health.record(ok);
            pause(&check, &health)
        };
        let (fast, rare) = (every / 4, every * 5);
        assert_eq!([after(true), after(false), after(false)], [every, fast, fast]);
        assert_eq!([after(false), after(false), after(true), after(true)], [rare, rare, fast, every]);
    }

    #[test]
    fn a_changed_check_trusts_a_server_that_was_seen_well() {
        let every = Duration::from_secs(1);
        let check = check(every);
        let failures = |mut health: Health| (1..).find(|_| health.record(false) == Some(false));
        assert_eq!(failures(first_health(&check, true, true)), Some(3));
        assert_eq!(failures(first_health(&check, true, false)), Some(1));
        assert!(!first_health(&check, false, true).is_up());
    }
}
