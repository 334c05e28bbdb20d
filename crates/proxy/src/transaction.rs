//! One request through to a server and its answer back: the attempts.

use std::rc::Rc;

use relais_http::{Method, Reject};

use crate::answer::{self, Persistence};
use crate::client::Client;
use crate::exchange::{self, Failure};
use crate::h2;
use crate::io::Io;
use crate::limits;
use crate::persist::Stuck;
use crate::session::{self, Account, Asked, Leaves, Rest};
use crate::stick;
use crate::upstream::{self, Backend, Lease, NoConnection, NoPlace, Server, Tried};

/// How a transaction failed for good.
struct Verdict {
    status: u16,
    state: [u8; 2],
    why: Why,
}

enum Why {
    /// Nothing that a log line could add to the access line.
    Plain,
    /// The client's body breaks the rules.
    Request(Reject),
    /// The server's answer breaks the rules.
    Response(Reject),
}

impl Verdict {
    const fn plain(status: u16, state: &[u8; 2]) -> Verdict {
        Verdict { status, state: *state, why: Why::Plain }
    }
}

/// Has the request answered.
pub(crate) async fn run(asked: &mut Asked<'_>, account: &mut Account) -> Leaves {
    let Some(backend) = asked.backend.take().or_else(|| asked.plan.backend.clone()) else {
        return give_up(asked, account, Verdict::plain(503, b"SC")).await;
    };
    account.backend = Some(backend.clone());
    if let Err(reject) = limit_body(asked, &backend) {
        let verdict = Verdict { status: reject.why.status(), state: *b"PR", why: Why::Request(reject) };
        return give_up(asked, account, verdict).await;
    }
    if backend.plan.breaker.is_some() && !backend.shared.admits(asked.client.worker.now()) {
        return give_up(asked, account, Verdict::plain(503, b"PC")).await;
    }
    let result = attempts(asked, account, &backend).await;
    if backend.plan.breaker.is_some() {
        let ok = match &result {
            Ok(_) => Some(!matches!(account.status, 500 | 502..=504)),
            Err(verdict) => is_of_servers(verdict).then_some(false),
        };
        backend.shared.ended(ok, asked.client.worker.now());
    }
    match result {
        Ok(leaves) => leaves,
        Err(verdict) => give_up(asked, account, verdict).await,
    }
}

/// Whether it is the servers' doing that there is no answer, and not the client's or an operator's.
fn is_of_servers(verdict: &Verdict) -> bool {
    matches!(verdict.state[0], b's' | b'S') || verdict.state == *b"PH"
}

/// Holds the request's body to what the backend takes, and rules let it have.
fn limit_body(asked: &mut Asked<'_>, backend: &Backend) -> Result<(), Reject> {
    let ruled = asked.limits.as_ref().and_then(|limits| limits.max_body);
    let Some(most) = [backend.plan.max_body, ruled].into_iter().flatten().min() else { return Ok(()) };
    if asked.body_bytes > most {
        return Err(Reject { why: relais_http::Why::BodyTooLong, at: asked.request.length });
    }
    if let Rest::Chunked(chunked) = &mut asked.rest {
        chunked.limit(most)?;
    }
    Ok(())
}

/// The bookkeeping of repeated attempts.
struct Attempts {
    left: u32,
    tried: Tried,
    /// A connection from the pool that turns out dead is no failure of the server, once; nor is an HTTP/2 connection
    /// that takes no more requests.
    stale_allowed: bool,
}

async fn attempts(
    asked: &mut Asked<'_>,
    account: &mut Account,
    backend: &Rc<Backend>,
) -> Result<Leaves, Verdict> {
    let repeatable = asked.request.method.is_idempotent() && matches!(asked.rest, Rest::Nothing);
    let mut attempts =
        Attempts { left: u32::from(backend.plan.retries), tried: Tried::default(), stale_allowed: true };
    backend.count_request();
    loop {
        let mut lease = place(asked, account, backend, attempts.tried).await?;
        let server = lease.server().clone();
        account.server = Some(server.clone());
        let (connected, reused) =
            connect(asked.client, backend, &server, repeatable, attempts.stale_allowed).await;
        let failure = match connected {
            Ok(io) => {
                let now = asked.client.worker.now();
                account.times.connect = now.since(account.began).as_millis() as i64
                    - account.times.request
                    - account.times.queue.max(0);
                server.counters().sessions.add(1);
                server.shared.observed.connected();
                match exchange::run(asked, account, backend, &mut lease, io, (repeatable, attempts.left > 0))
                    .await
                {
                    Ok(leaves) => return Ok(leaves),
                    Err(failure) => failure,
                }
            }
            Err(no) => {
                if !matches!(no, NoConnection::Gone) {
                    server.counters().connect_errors.add(1);
                    server.shared.observed.unreachable();
                }
                match no {
                    NoConnection::Gone => return Err(Verdict::plain(400, b"CC")),
                    NoConnection::Late => Failure::NoConnection(*b"sC"),
                    NoConnection::Down => Failure::NoConnection(*b"SC"),
                    NoConnection::Failed(error) => {
                        complain_of_connect(asked, &server, &error);
                        Failure::NoConnection(upstream::state_of(&error))
                    }
                }
            }
        };
        attempts.next(asked, account, backend, lease, failure, reused, repeatable).await?;
    }
}

/// A connection to the server, or a stream of one, and whether the connection was there before.
pub(crate) async fn connect(
    client: &Client,
    backend: &Backend,
    server: &Server,
    repeatable: bool,
    stale_allowed: bool,
) -> (Result<Io, NoConnection>, bool) {
    let longest = if repeatable { limits::IDLE_FOR } else { limits::FRESH_FOR };
    // One that is to speak HTTP/2 has idle connections only where its TLS agreed on HTTP/1.1.
    let idle = if stale_allowed { server.take_idle(client, longest) } else { None };
    if let Some(io) = idle {
        return (Ok(io), true);
    }
    if server.plan.http2 {
        return match Box::pin(h2::upstream::open(client, backend, server)).await {
            Ok((io, reused)) => (Ok(io), reused),
            Err(no) => (Err(no), false),
        };
    }
    (Box::pin(upstream::connect(client, backend, server)).await, false)
}

impl Attempts {
    /// Decides whether there is a next attempt, and prepares it.
    #[allow(clippy::too_many_arguments)]
    async fn next(
        &mut self,
        asked: &Asked<'_>,
        account: &mut Account,
        backend: &Backend,
        lease: Lease,
        failure: Failure,
        reused: bool,
        repeatable: bool,
    ) -> Result<(), Verdict> {
        let on = &backend.plan.retry_on;
        let (may, verdict) = match failure {
            Failure::NoConnection(state) => (true, Verdict::plain(503, &state)),
            Failure::Unsent => (true, Verdict::plain(502, b"SH")),
            Failure::Refused { untouched } => (untouched, Verdict::plain(502, b"SH")),
            Failure::Silent => (repeatable && on.empty, Verdict::plain(502, b"SH")),
            Failure::Status => (true, Verdict::plain(502, b"SH")),
            Failure::Down => (repeatable, Verdict::plain(503, b"SH")),
            Failure::Late => (repeatable && on.late, Verdict::plain(504, b"sH")),
            Failure::Broken => (repeatable && on.junk, Verdict::plain(502, b"SH")),
            Failure::Response(reject) => {
                (repeatable && on.junk, Verdict { status: 502, state: *b"PH", why: Why::Response(reject) })
            }
            Failure::Request(reject) => {
                let status = reject.why.status();
                (false, Verdict { status, state: *b"PR", why: Why::Request(reject) })
            }
            Failure::ClientLate => (false, Verdict::plain(408, b"cD")),
            Failure::ClientGone => (false, Verdict::plain(400, b"CD")),
            Failure::ClientLeft => (false, Verdict::plain(400, b"CH")),
        };
        let counters = lease.server().counters();
        if !reused {
            failure.count(lease.server());
        }
        if !may {
            return Err(verdict);
        }
        let stale = reused && matches!(failure, Failure::Unsent | Failure::Silent);
        if self.stale_allowed && (stale || matches!(failure, Failure::Refused { .. })) {
            self.stale_allowed = false;
            return Ok(());
        }
        let is_charged = matches!(failure, Failure::Status);
        if self.left == 0 || !(is_charged || backend.may_repeat(asked.client.worker.now())) {
            return Err(verdict);
        }
        self.left -= 1;
        account.retries += 1;
        counters.retries.add(1);
        let mut tried = self.tried;
        tried.add(lease.index());
        if backend.plan.redispatch && backend.has_server(tried) {
            self.tried = tried;
            account.redispatched = true;
            counters.redispatches.add(1);
            return Ok(());
        }
        self.tried = Tried::default();
        // A server that the checks have taken out gives way to others at once.
        let pause = lease.server().shared.serves();
        drop(lease);
        if pause {
            let pause = asked.client.worker.now() + limits::RETRY_PAUSE.min(backend.plan.timeout.connect);
            let _ = asked.client.until(pause, |_| std::task::Poll::<()>::Pending).await;
        }
        Ok(())
    }
}

/// Says why a request's body was refused.
pub(crate) fn complain_of_body(client: &Client, reject: Reject) {
    if client.worker.may_complain() {
        let front = &client.front.shared.name;
        tracing::info!("frontend {front}: body of the request of {} refused: {reject}", client.peer);
    }
}

/// Says why a server's response, or what `part` of it is, was refused.
pub(crate) fn complain_of_response(client: &Client, server: &Server, part: &str, reject: Reject) {
    if client.worker.may_complain() {
        let (backend, name) = (&server.shared.backend, &server.shared.name);
        tracing::warn!("backend {backend}: {part} of server {name} refused: {reject}");
    }
}

fn complain_of_connect(asked: &Asked<'_>, server: &Server, error: &std::io::Error) {
    if asked.client.worker.may_complain() {
        let (backend, name, address) = (&server.shared.backend, &server.shared.name, server.plan.address);
        tracing::info!("backend {backend}: cannot connect to server {name} ({address}): {error}");
    }
}

/// A place at a server, perhaps after waiting for it.
async fn place(
    asked: &Asked<'_>,
    account: &mut Account,
    backend: &Rc<Backend>,
    tried: Tried,
) -> Result<Lease, Verdict> {
    let bytes = asked.buffer.bytes();
    let key = backend.chooser.key(asked.client, asked.request, bytes);
    if let Some(sticks) = &backend.sticks {
        let (head, target) = (&bytes[..asked.request.length], asked.request.path.of(bytes));
        account.stuck = Stuck::of(sticks, head, target, &backend.servers, asked.client.worker.wall_s());
    }
    if let Some(sticky) = &backend.sticky {
        let now = asked.client.worker.instant(asked.client.worker.now());
        let mut server = None;
        stick::key::of_request(&sticky.plan, asked, |key| server = sticky.server(key, now, &backend.servers));
        account.stuck = Stuck::by_table(server);
    }
    let rank = asked.limits.as_ref().and_then(|limits| limits.rank).unwrap_or_default();
    let result = backend.acquire(asked.client, key, tried, (account.stuck.server(), rank)).await;
    let waited = asked.client.worker.now().since(account.began).as_millis() as i64 - account.times.request;
    match result {
        Ok(place) => {
            account.queued = place.queued;
            account.times.queue = if place.waited { waited } else { 0 };
            Ok(place.lease)
        }
        Err(NoPlace::Late { queued }) => {
            account.queued = queued;
            account.times.queue = waited;
            Err(Verdict::plain(503, b"sQ"))
        }
        Err(NoPlace::Gone { queued }) => {
            account.queued = queued;
            account.times.queue = waited;
            Err(Verdict::plain(400, b"CQ"))
        }
        Err(NoPlace::Full { queued }) => {
            account.queued = queued;
            Err(Verdict::plain(503, b"PQ"))
        }
        Err(NoPlace::NoServer) => Err(Verdict::plain(503, b"SC")),
    }
}

/// Tells the client, the counters and the logs that there is no answer.
async fn give_up(asked: &mut Asked<'_>, account: &mut Account, verdict: Verdict) -> Leaves {
    let client = asked.client;
    let worker = &client.worker;
    match verdict.why {
        Why::Plain => {}
        Why::Request(reject) => {
            client.front.counters().errors.add(1);
            complain_of_body(client, reject);
        }
        Why::Response(reject) => {
            if let Some(server) = &account.server {
                complain_of_response(client, server, "response", reject);
            }
        }
    }
    if verdict.status == 503
        && let Some(backend) = &account.backend
    {
        backend.shared.unserved[worker.index].add(1);
    }
    if verdict.status == 408 {
        client.front.counters().errors.add(1);
    }
    account.status = verdict.status;
    account.state = verdict.state;
    // What is left of the request is known only if all of it is here.
    let whole = matches!(asked.rest, Rest::Nothing) && !matches!(verdict.why, Why::Request(_));
    let keep = whole && session::may_keep(asked) && verdict.status != 400;
    let persistence = session::persistence(keep, asked.request.minor);
    let page = account.backend.as_ref().and_then(|backend| backend.pages.find(verdict.status));
    let page = page.or_else(|| asked.plan.pages.find(verdict.status));
    let answer = answer::error(verdict.status, persistence, asked.request.method == Method::Head, page);
    let sent = session::send(client, asked.plan, &answer, account).await;
    session::log_request(client, asked.plan, account, Some(asked.head()));
    match sent {
        Err(_) => Leaves::Closed,
        Ok(()) if persistence == Persistence::Close => Leaves::Linger,
        Ok(()) => {
            asked.buffer.consume(asked.request.length + asked.inline);
            Leaves::Open
        }
    }
}
