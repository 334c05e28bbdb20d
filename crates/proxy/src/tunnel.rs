//! TCP mode, and what an HTTP connection becomes after `101 Switching Protocols`.
//!
//! Two directions that know nothing of each other but their common silence; the end of one is passed on as
//! a half-close, and the other goes on.

use std::future::Future;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use relais_base::Time;
use relais_config::plan;
use relais_http::{Body, Framing};

use crate::access::{Entry, Kind, Noted, Sessions, Times};
use crate::client::Client;
use crate::counters::count_abort;
use crate::half::{Broken, Half, Stand, recycle};
use crate::io::Io;
use crate::rules::{self, Decision, Limits, Manner, Rules, Verdict};
use crate::session;
use crate::stick;
use crate::tls;
use crate::upstream::{self, Backend, Lease, NoConnection, NoPlace, Server, Tried};
use crate::worker::FrontPlan;

/// How a tunnel ended, in the letters of HAProxy's termination state.
pub(crate) type State = [u8; 2];

/// A tunnel between two sockets.
pub(crate) struct Tunnel<'a> {
    client: &'a Client,
    server: &'a Io,
    pub(crate) up: Half,
    pub(crate) down: Half,
    patience: Patience,
    open: [bool; 2],
    last: Time,
}

/// How long a tunnel may be silent: with both halves open, and with only the server's or the client's to come.
#[derive(Clone, Copy)]
pub(crate) struct Patience {
    both: Duration,
    server: Duration,
    client: Duration,
}

impl Patience {
    pub(crate) fn new(front: &plan::Frontend, back: &plan::Backend) -> Patience {
        let both = back.timeout.tunnel;
        let (server, client) = (back.timeout.server_fin, front.timeout.client_fin);
        Patience { both, server: server.unwrap_or(both), client: client.unwrap_or(both) }
    }
}

impl<'a> Tunnel<'a> {
    /// A tunnel that ends after a silence in both directions.
    pub(crate) fn new(client: &'a Client, server: &'a Io, patience: Patience) -> Tunnel<'a> {
        let half = || Half::new(Body::UntilClose, Framing::Keep);
        let last = client.worker.now();
        Tunnel { client, server, up: half(), down: half(), patience, open: [true; 2], last }
    }

    /// Carries bytes both ways until both ends are done, one fails, or both are silent for too long.
    pub(crate) async fn run(&mut self) -> State {
        let client = self.client;
        let worker = &client.worker;
        client
            .drive(|cx| {
                if self.open[0] {
                    match self.up.pump(worker, &client.io, self.server, cx) {
                        Ok(Stand::Done) => {
                            self.open[0] = false;
                            let _ = self.server.shut_down();
                        }
                        Ok(_) => {}
                        Err(Broken::Source) => return Poll::Ready(*b"CD"),
                        Err(_) => return Poll::Ready(*b"SD"),
                    }
                }
                if self.open[1] {
                    match self.down.pump(worker, self.server, &client.io, cx) {
                        Ok(Stand::Done) => {
                            self.open[1] = false;
                            let _ = client.io.shut_down();
                        }
                        Ok(_) => {}
                        Err(Broken::Source) => return Poll::Ready(*b"SD"),
                        Err(_) => return Poll::Ready(*b"CD"),
                    }
                }
                if self.open == [false; 2] {
                    return Poll::Ready(*b"--");
                }
                if self.up.has_moved() | self.down.has_moved() {
                    self.last = worker.now();
                }
                let (silence, state) = match self.open {
                    [false, _] => (self.patience.server, *b"sD"),
                    [_, false] => (self.patience.client, *b"cD"),
                    _ => (self.patience.both, *b"cD"), // as HAProxy says it, which looks at the client first
                };
                client.poll_deadline(self.last + silence, cx).map(|_| state)
            })
            .await
    }
}

impl Drop for Tunnel<'_> {
    fn drop(&mut self) {
        recycle(&mut self.up, &self.client.worker);
        recycle(&mut self.down, &self.client.worker);
    }
}

/// What a TCP connection's access line needs.
struct Account {
    began: Time,
    queue: i64,
    connect: i64,
    queued: u32,
    retries: u32,
    redispatched: bool,
    state: State,
    /// The one that was tried last.
    server: Option<Rc<Server>>,
    bytes: [u64; 2],
    /// Its places among those of its keys, and what is counted of it: they end with it.
    limits: Option<Box<Limits>>,
}

/// Who answers a connection, and what it is held to; `None`: nobody, by a rule or because there is nobody.
async fn choose(client: &Client, plan: &FrontPlan) -> Option<(Rc<Backend>, Option<Box<Limits>>)> {
    let mut decision = Decision::default();
    if let Some(rules) = &plan.rules {
        decision = ask(client, plan, rules, decision).await?;
    }
    let backend = decision.backend.take().or_else(|| plan.backend.clone())?;
    let rules = backend.rules.borrow().clone();
    if let Some(rules) = rules {
        decision = ask(client, plan, &rules, decision).await?;
    }
    if let Some(time) = decision.limits.as_ref().and_then(|limits| limits.delay)
        && !Box::pin(client.hold(time, backend.plan.abort_on_close)).await
    {
        return None;
    }
    Some((backend, decision.limits))
}

/// What rules make of a connection; `None`: they close it.
async fn ask(client: &Client, plan: &FrontPlan, rules: &Rules, so_far: Decision) -> Option<Decision> {
    let passed = if rules.reads_sni && client.tls().is_none() { tls::hello::sni(client).await } else { None };
    let decision = rules::decide_connection(client, plan, rules, passed.as_deref(), so_far);
    if let Some(Verdict::Deny(_, rule, manner)) = &decision.verdict {
        deny(client, rule);
        match manner {
            Manner::AtOnce => {}
            Manner::After(time) => drop(Box::pin(client.hold(*time, true)).await),
            Manner::Silent => client.vanish(),
        }
        return None;
    }
    Some(decision)
}

/// The life of a connection in TCP mode.
// Not an `async fn`: that would hold the client twice, as an argument and as a variable.
#[allow(clippy::manual_async_fn)]
pub(crate) fn tcp(client: Client) -> impl Future<Output = ()> {
    async move {
        if client.io.tls().is_some() && !Box::pin(session::handshake(&client)).await {
            return;
        }
        let plan = client.front.plan();
        let Some((backend, limits)) = Box::pin(choose(&client, &plan)).await else { return };
        let began = client.worker.now();
        let mut account = Box::new(Account {
            began,
            queue: -1,
            connect: -1,
            queued: 0,
            retries: 0,
            redispatched: false,
            state: *b"SC",
            server: None,
            bytes: [0; 2],
            limits,
        });
        let lease = match Box::pin(open(&client, &backend, &mut account)).await {
            Some((lease, server)) => {
                account.connect = client.worker.now().since(began).as_millis() as i64 - account.queue;
                lease.server().counters().sessions.add(1);
                let mut tunnel = Tunnel::new(&client, &server, Patience::new(&plan.plan, &backend.plan));
                account.state = tunnel.run().await;
                account.bytes = [tunnel.up.written, tunnel.down.written];
                Some(lease)
            }
            None => None,
        };
        finish(&client, &backend, lease.as_ref(), &account);
    }
}

/// A connection to a server of the backend, with its place.
async fn open(client: &Client, backend: &Rc<Backend>, account: &mut Account) -> Option<(Lease, Io)> {
    let mut tried = Tried::default();
    let key = backend.chooser.key_of_connection(client);
    let sni = match &backend.sticky {
        Some(sticky) if sticky.plan.key.reads_sni() && client.tls().is_none() => {
            tls::hello::sni(client).await
        }
        _ => None,
    };
    loop {
        let stuck = backend.sticky.as_ref().and_then(|sticky| {
            let now = client.worker.instant(client.worker.now());
            let mut server = None;
            let each = |key: &[u8]| server = sticky.server(key, now, &backend.servers);
            stick::key::of_connection(&sticky.plan, client, sni.as_deref(), each);
            server
        });
        let rank = account.limits.as_ref().and_then(|limits| limits.rank).unwrap_or_default();
        let place = match backend.acquire(client, key, tried, (stuck, rank)).await {
            Ok(place) => place,
            Err(late @ (NoPlace::Late { queued } | NoPlace::Gone { queued })) => {
                account.queued = queued;
                account.queue = client.worker.now().since(account.began).as_millis() as i64;
                account.state = if matches!(late, NoPlace::Gone { .. }) { *b"CQ" } else { *b"sQ" };
                return None;
            }
            Err(NoPlace::Full { queued }) => {
                account.queued = queued;
                account.state = *b"PQ";
                return None;
            }
            Err(NoPlace::NoServer) => return None,
        };
        account.queued = place.queued;
        let now = client.worker.now();
        account.queue = now.since(account.began).as_millis() as i64;
        let server = place.lease.server().clone();
        account.server = Some(server.clone());
        match upstream::connect(client, backend, &server).await {
            Ok(io) => {
                server.shared.observed.connected();
                let took = client.worker.now().since(now);
                backend.chooser.answered(&client.worker, place.lease.index(), took);
                if let Some(sticky) = backend.sticky.as_ref().filter(|_| stuck != Some(place.lease.index())) {
                    let each =
                        |key: &[u8]| sticky.put(key, &server, client.worker.instant(client.worker.now()));
                    stick::key::of_connection(&sticky.plan, client, sni.as_deref(), each);
                }
                return Some((place.lease, io));
            }
            Err(NoConnection::Gone) => {
                account.state = *b"CC";
                return None;
            }
            Err(NoConnection::Late) => account.state = *b"sC",
            Err(NoConnection::Down) => account.state = *b"SC",
            Err(NoConnection::Failed(error)) => account.state = upstream::state_of(&error),
        }
        let counters = server.counters();
        counters.connect_errors.add(1);
        server.shared.observed.unreachable();
        if account.retries >= u32::from(backend.plan.retries) {
            return None;
        }
        account.retries += 1;
        counters.retries.add(1);
        let mut avoid = tried;
        avoid.add(place.lease.index());
        drop(place);
        if backend.plan.redispatch && backend.has_server(avoid) {
            tried = avoid;
            account.redispatched = true;
            counters.redispatches.add(1);
        } else {
            let pause = client.worker.now() + crate::limits::RETRY_PAUSE.min(backend.plan.timeout.connect);
            let _ = client.until(pause, |_| Poll::<()>::Pending).await;
        }
    }
}

/// Closes a connection that a rule is against, with its line in the log: `PR`, and no server.
fn deny(client: &Client, rule: &str) {
    let began = client.worker.now();
    client.front.counters().errors.add(1);
    if client.worker.may_complain() {
        let front = &client.front.shared.name;
        tracing::info!("frontend {front}: connection of {} denied by rule `{rule}`", client.peer);
    }
    let account = Account {
        began,
        queue: -1,
        connect: -1,
        queued: 0,
        retries: 0,
        redispatched: false,
        state: *b"PR",
        server: None,
        bytes: [0; 2],
        limits: None,
    };
    log(client, &client.front.shared.name, Sessions::default(), &account);
}

fn finish(client: &Client, backend: &Backend, lease: Option<&Lease>, account: &Account) {
    let worker = &client.worker;
    let [up, down] = account.bytes;
    for tally in account.limits.iter().flat_map(|limits| &limits.tallies) {
        tally.count(worker.instant(worker.now()), 0, up, down);
    }
    client.front.counters().bytes_in.add(up);
    client.front.counters().bytes_out.add(down);
    match lease {
        Some(lease) => {
            lease.server().counters().bytes_in.add(up);
            lease.server().counters().bytes_out.add(down);
        }
        None if account.state[0] == b'C' => {} // it was the client that left
        None => backend.shared.unserved[worker.index].add(1),
    }
    count_abort(
        account.state,
        account.server.as_ref().map(|server| server.counters()),
        Some(&backend.shared),
        worker.index,
    );
    let sessions = Sessions {
        // Without this one, as HAProxy counts.
        backend: backend.active().saturating_sub(lease.is_some().into()),
        server: lease
            .map_or(0, |l| l.server().shared.active.load(std::sync::atomic::Ordering::Relaxed))
            .saturating_sub(1),
        ..Sessions::default()
    };
    log(client, &backend.shared.name, sessions, account);
}

/// Writes the access line of a connection.
fn log(client: &Client, backend: &str, sessions: Sessions, account: &Account) {
    let worker = &client.worker;
    let plan = client.front.plan();
    let Some(log) = &plan.log else { return };
    let [up, down] = account.bytes;
    let sessions =
        Sessions { process: worker.open_everywhere(), frontend: client.front.shared.open(), ..sessions };
    let total = worker.now().since(account.began).as_millis() as i64;
    let entry = Entry {
        client: client.peer,
        local: if log.wants_local { client.local() } else { None },
        tls: client.tls().is_some(),
        date_ms: worker.date_ms(account.began),
        frontend: &client.front.shared.name,
        backend,
        server: account.server.as_ref().map(|s| (&*s.shared.name, s.plan.address)),
        times: Times {
            idle: 0,
            request: 0,
            queue: account.queue,
            connect: account.connect,
            response: 0,
            total,
        },
        bytes_in: up,
        bytes_out: down,
        state: account.state,
        cookie: *b"--",
        sessions,
        retries: account.retries,
        redispatched: account.redispatched,
        server_queue: 0,
        backend_queue: account.queued,
        request_captures: &[],
        response_captures: &[],
        noted: &Noted::default(),
        request_id: b"",
        traceparent: b"",
        kind: Kind::Tcp,
    };
    log.write(&entry, &mut worker.dates.borrow_mut());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F, A>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_tcp_session_is_a_future_of_at_most_768_bytes() {
        let size = size_of_future(tcp);
        assert!(size <= 768, "{size} bytes");
    }
}
