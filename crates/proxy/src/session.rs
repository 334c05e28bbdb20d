//! A burst of requests on a client's connection: from the first byte after a silence until it idles again.

use std::io;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;

use relais_base::Time;
use relais_http::request::Edit;
use relais_http::{Body, Chunked, Framing, Method, Reject, Request, Why, field};

use crate::access::{Entry, Kind, Noted, Sessions, Times};
use crate::answer::{self, Persistence};
use crate::buffer::Buffer;
use crate::client::{Client, Late, Then};
use crate::counters::count_abort;
use crate::h2;
use crate::keyed::Tally;
use crate::limits;
use crate::marks::{Marks, Seen};
use crate::persist::Stuck;
use crate::rules::{self, Decision, Edits, Limits, Manner, Rules, Verdict};
use crate::shield;
use crate::transaction;
use crate::upstream::{Backend, Server};
use crate::worker::FrontPlan;

/// What an access line needs to know, gathered on the way.
pub(crate) struct Account {
    pub(crate) began: Time,
    pub(crate) times: Times,
    pub(crate) status: u16,
    pub(crate) written: u64,
    pub(crate) read: u64,
    pub(crate) state: [u8; 2],
    pub(crate) backend: Option<Rc<Backend>>,
    pub(crate) server: Option<Rc<Server>>,
    pub(crate) retries: u32,
    pub(crate) redispatched: bool,
    /// What the request says of its server.
    pub(crate) stuck: Stuck,
    /// What a log line says of it.
    pub(crate) cookie: [u8; 2],
    pub(crate) queued: u32,
    /// 1 while a server's place is held: log lines count the others, as HAProxy does.
    pub(crate) held: u32,
    /// Response headers that the log shows.
    pub(crate) noted: Noted,
    /// What the request is marked with.
    pub(crate) marks: Option<Rc<Marks>>,
    /// What rules count of it when it is over.
    pub(crate) tallies: Vec<Tally>,
}

impl Account {
    pub(crate) fn new(began: Time, idle: i64) -> Account {
        Account {
            began,
            times: Times { idle, request: -1, queue: -1, connect: -1, response: -1, total: 0 },
            status: 0,
            written: 0,
            read: 0,
            state: *b"--",
            backend: None,
            server: None,
            retries: 0,
            redispatched: false,
            stuck: Stuck::default(),
            cookie: *b"--",
            queued: 0,
            held: 0,
            noted: Noted::default(),
            marks: None,
            tallies: Vec::new(),
        }
    }
}

/// A request whose head is understood, with the connection it came on.
pub(crate) struct Asked<'a> {
    pub(crate) client: &'a Client,
    pub(crate) plan: &'a FrontPlan,
    pub(crate) request: &'a Request,
    /// Head, and behind it what is in memory of the body (`inline` bytes), and what comes after.
    pub(crate) buffer: &'a mut Buffer,
    /// Bytes of the body, as they are sent on, that stand behind the head.
    pub(crate) inline: usize,
    /// What of the body is still to be read.
    pub(crate) rest: Rest,
    /// What it is marked with on its way.
    pub(crate) marks: Option<Rc<Marks>>,
    /// Bytes of its body: as its length says, or as its chunks that are here announce.
    pub(crate) body_bytes: u64,
    /// Who answers it.
    pub(crate) backend: Option<Rc<Backend>>,
    /// What rules change of its head, and of its answer's.
    pub(crate) edits: Option<Box<Edits>>,
    /// What rules hold it to.
    pub(crate) limits: Option<Box<Limits>>,
    /// How it is denied, if it is.
    pub(crate) manner: Manner,
}

impl Asked<'_> {
    /// The head as received, from the request line on.
    pub(crate) fn head(&self) -> &[u8] {
        &self.buffer.bytes()[usize::from(self.request.line.start)..self.request.length]
    }
}

/// What of a request's body is not in memory.
#[derive(Clone)]
pub(crate) enum Rest {
    /// Nothing: the request can be sent more than once.
    Nothing,
    /// So many bytes.
    Length(u64),
    /// Chunks; the undecoded bytes behind the inline part belong to them.
    Chunked(Chunked),
}

/// How a transaction leaves the client's connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leaves {
    /// Ready for the next request.
    Open,
    /// To be closed, but the client may still be sending: see [`crate::limits::LINGER`].
    Linger,
    /// To be closed.
    Closed,
    /// As it was: there was no request yet.
    Idle,
    /// As it was: it speaks HTTP/2.
    Http2,
}

/// The TLS handshake; `false` if it failed, and the connection has only to be closed.
pub(crate) async fn handshake(client: &Client) -> bool {
    let Some(tls) = client.io.tls() else { return true };
    let plan = client.front.plan();
    let deadline = client.worker.now() + plan.plan.timeout.request;
    let (why, is_told) = match client.until(deadline, |cx| tls.poll_handshake(cx)).await {
        Ok(Ok(())) => return true,
        Err(Late) => ("it took too long".to_owned(), false),
        Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => {
            ("the client closed".to_owned(), false)
        }
        Ok(Err(error)) => (error.to_string(), error.kind() == io::ErrorKind::InvalidData),
    };
    client.front.counters().errors.add(1);
    let name = &plan.plan.name;
    let may_complain = client.worker.may_complain();
    if tls.looks_like_http() {
        if may_complain {
            tracing::info!("frontend {name}: {} spoke HTTP on a port for HTTPS", client.peer);
        }
        if tls.socket().try_write(&answer::plain_on_tls()).is_err() {
            return false;
        }
    } else if may_complain {
        tracing::info!("frontend {name}: TLS handshake with {} failed: {why}", client.peer);
    }
    if is_told && rustix::net::shutdown(tls.socket(), rustix::net::Shutdown::Write).is_ok() {
        // What is unread when a socket is closed turns its end into a reset, which overtakes what the client was told.
        let deadline = client.worker.now() + limits::LINGER;
        let mut left = limits::LINGER_BYTES;
        let mut rest = [0; 1024];
        let drained = |cx: &mut std::task::Context<'_>| loop {
            match crate::io::receive(tls.socket(), &mut rest) {
                Ok(n @ 1..) if n < left => left -= n,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if tls.socket().poll_read_ready(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                _ => return Poll::Ready(()),
            }
        };
        let _ = client.until(deadline, drained).await;
    }
    false
}

/// Serves requests until the connection idles or ends. `first`: it has not carried any, so it may speak HTTP/2.
pub(crate) async fn serve(client: &Client, mut first: bool) -> Then {
    let mut buffer = client.worker.take_buffer();
    let leaves = loop {
        match one(client, &mut buffer, first).await {
            Leaves::Open if !buffer.is_empty() => first = false,
            Leaves::Open => break Leaves::Idle,
            Leaves::Http2 => return Then::Http2(buffer),
            leaves => break leaves,
        }
    };
    client.worker.give_buffer(buffer);
    match leaves {
        Leaves::Idle => return Then::Idle,
        Leaves::Linger => linger(client).await,
        Leaves::Closed | Leaves::Open | Leaves::Http2 => {}
    }
    Then::Close
}

/// One request and its answer.
async fn one(client: &Client, buffer: &mut Buffer, first: bool) -> Leaves {
    let plan = client.front.plan();
    let began = client.worker.now();
    let mut account = Account::new(began, began.since(client.since.get()).as_millis() as i64);
    let request = match read_head(client, &plan, buffer, account.began, first).await {
        Ok(request) => request,
        Err(NoHead::Closed) => return Leaves::Closed,
        Err(NoHead::Nothing) => return Leaves::Idle,
        Err(NoHead::Http2) => return Leaves::Http2,
        Err(failure) => return refuse_head(client, &mut account, failure).await,
    };
    let counters = client.front.counters();
    counters.requests.add(1);
    account.times.request = client.worker.now().since(account.began).as_millis() as i64;
    account.read = request.length as u64;
    let mut asked = match look_at_body(client, &plan, &request, buffer) {
        Ok(asked) => asked,
        Err(reject) => {
            let head = &buffer.bytes()[usize::from(request.line.start)..request.length];
            return refuse(client, &mut account, reject, Some(head)).await;
        }
    };
    if let Some(marking) = &plan.plan.marking {
        let marks = Rc::new(mark(&asked, marking));
        (asked.marks, account.marks) = (Some(marks.clone()), Some(marks));
    }
    let ruled = match &plan.rules {
        Some(rules) => ask_rules(&mut asked, rules),
        None => None,
    };
    let answer = ruled.or_else(|| local_answer(&asked));
    let answer = match &plan.shield {
        Some(guard) if answer.is_none() => shield::ask(&mut asked, guard),
        _ => answer,
    };
    let answer = answer.or_else(|| ask_backend(&mut asked, &mut account));
    client.was_asked();
    if let Some(limits) = &mut asked.limits {
        account.tallies = std::mem::take(&mut limits.tallies);
    }
    let held = asked.limits.as_ref().and_then(|limits| limits.delay).filter(|_| answer.is_none());
    let stays = match held {
        Some(time) => {
            let backend = asked.backend.as_ref().or(plan.backend.as_ref());
            let at_end = backend.is_some_and(|backend| backend.plan.abort_on_close);
            Box::pin(hold(&mut asked, time, at_end)).await
        }
        None => true,
    };
    let leaves = match answer {
        _ if !stays => {
            (account.status, account.state) = (400, *b"CR");
            account.read = asked.request.length as u64;
            log_request(client, &plan, &mut account, Some(asked.head()));
            Leaves::Closed
        }
        Some(_) if asked.manner != Manner::AtOnce && !Box::pin(delay(&mut asked)).await => {
            account.state = *b"PR";
            account.read = asked.request.length as u64;
            log_request(client, &plan, &mut account, Some(asked.head()));
            Leaves::Closed
        }
        Some((status, state, answer)) => {
            let keep = matches!(asked.rest, Rest::Nothing) && may_keep(&asked);
            account.status = status;
            account.state = state;
            let sent = send(client, &plan, &answer, &mut account).await;
            let all = asked.request.length + asked.inline;
            account.read = all as u64;
            log_request(client, &plan, &mut account, Some(asked.head()));
            match sent {
                Err(_) => Leaves::Closed,
                Ok(()) if !keep => Leaves::Linger,
                Ok(()) => {
                    asked.buffer.consume(all);
                    Leaves::Open
                }
            }
        }
        None => transaction::run(&mut asked, &mut account).await,
    };
    counters.bytes_in.add(account.read);
    counters.bytes_out.add(account.written);
    leaves
}

/// Holds a request that is denied, or drops it; whether it is still to be answered. Its connection keeps no buffer.
async fn delay(asked: &mut Asked<'_>) -> bool {
    match asked.manner {
        Manner::AtOnce => true,
        Manner::After(time) => hold(asked, time, true).await,
        Manner::Silent => {
            asked.client.vanish();
            false
        }
    }
}

/// Holds a request; whether its client has waited.
async fn hold(asked: &mut Asked<'_>, time: std::time::Duration, at_end: bool) -> bool {
    let client = asked.client;
    let spare = asked.buffer.fold().map(|spare| client.worker.give_buffer(spare));
    let stays = client.hold(time, at_end).await;
    if spare.is_some() {
        asked.buffer.unfold(client.worker.take_buffer());
    }
    stays
}

/// The marks of a request.
fn mark(asked: &Asked<'_>, marking: &relais_config::plan::Marking) -> Marks {
    let (client, plan) = (asked.client, asked.plan);
    let worker = &client.worker;
    let seen = Seen {
        head: asked.head(),
        host: asked.request.host.map(|host| host.of(asked.buffer.bytes())),
        client: client.peer.ip(),
        port: if plan.plan.forwarded_port { client.local().map(|local| local.port()) } else { None },
        scheme: if client.tls().is_some() { "https" } else { "http" },
        x_forwarded: sets_forwarded(plan, client),
        now_ms: worker.date_ms(worker.now()),
    };
    Marks::new(&plan.plan, marking, &seen, &mut worker.rng.borrow_mut())
}

/// Why there is no head.
enum NoHead {
    /// The client closed before a request.
    Closed,
    /// A wake without bytes.
    Nothing,
    /// What came is HTTP/2.
    Http2,
    /// The connection broke within the head.
    Gone,
    /// The request time-out.
    Late,
    Bad(Reject),
}

async fn read_head(
    client: &Client,
    plan: &FrontPlan,
    buffer: &mut Buffer,
    began: Time,
    first: bool,
) -> Result<Request, NoHead> {
    let edit = Edit { strip_forwarded: sets_forwarded(plan, client) };
    let deadline = began + plan.plan.timeout.request;
    loop {
        if !buffer.is_empty() {
            match Request::parse(buffer.bytes(), edit) {
                Ok(Some(request)) => return Ok(request),
                Ok(None) => {}
                // On the way to this error lies nothing that an HTTP/1 request does not pay for.
                Err(_) if first && h2::is_preface(buffer.bytes()) == Some(true) => return Err(NoHead::Http2),
                Err(_) if first && h2::is_preface(buffer.bytes()).is_none() => {}
                Err(reject) => return Err(NoHead::Bad(reject)),
            }
        }
        match buffer.fill(&client.io) {
            Ok(0) if buffer.is_empty() => return Err(NoHead::Closed),
            Ok(0) => return Err(NoHead::Bad(Reject { why: Why::Truncated, at: buffer.len() })),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && buffer.is_empty() => {
                return Err(NoHead::Nothing);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let spare = buffer.fold().map(|spare| client.worker.give_buffer(spare));
                let ready = client.until(deadline, |cx| client.io.poll_read_ready(cx)).await;
                if spare.is_some() {
                    buffer.unfold(client.worker.take_buffer());
                }
                match ready {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) => return Err(NoHead::Gone),
                    Err(Late) => return Err(NoHead::Late),
                }
            }
            Err(_) if buffer.is_empty() => return Err(NoHead::Closed),
            Err(_) => return Err(NoHead::Gone),
        }
    }
}

/// Whether this client's requests get our `X-Forwarded-*`: not where its network is excepted, which is where
/// another proxy of ours has already set them.
pub(crate) fn sets_forwarded(plan: &FrontPlan, client: &Client) -> bool {
    let ip = client.peer.ip();
    plan.plan.forwarded_for.as_ref().is_some_and(|except| !except.iter().any(|net| net.contains(ip)))
}

/// Answers a head that cannot be used, and logs it as HAProxy does.
async fn refuse_head(client: &Client, account: &mut Account, failure: NoHead) -> Leaves {
    let reject = match failure {
        NoHead::Bad(reject) => reject,
        NoHead::Late => {
            let plan = client.front.plan();
            client.front.counters().errors.add(1);
            account.status = 408;
            account.state = *b"cR";
            let _ = send(
                client,
                &plan,
                &answer::error(408, Persistence::Close, false, plan.pages.find(408)),
                account,
            )
            .await;
            log_request(client, &plan, account, None);
            return Leaves::Linger;
        }
        NoHead::Closed | NoHead::Nothing | NoHead::Http2 | NoHead::Gone => {
            client.front.counters().errors.add(1);
            account.state = *b"CR";
            account.status = 400;
            log_request(client, &client.front.plan(), account, None);
            return Leaves::Closed;
        }
    };
    refuse(client, account, reject, None).await
}

/// Answers what breaks the rules, and says why in the log.
async fn refuse(client: &Client, account: &mut Account, reject: Reject, head: Option<&[u8]>) -> Leaves {
    let plan = client.front.plan();
    client.front.counters().errors.add(1);
    if client.worker.may_complain() {
        tracing::info!("frontend {}: request of {} refused: {reject}", plan.plan.name, client.peer);
    }
    account.status = reject.why.status();
    account.state = if reject.why == Why::Truncated { *b"CR" } else { *b"PR" };
    let to_head = head.is_some_and(|head| head.starts_with(b"HEAD "));
    let _ = send(
        client,
        &plan,
        &answer::error(account.status, Persistence::Close, to_head, plan.pages.find(account.status)),
        account,
    )
    .await;
    log_request(client, &plan, account, head);
    Leaves::Linger
}

/// Looks at what of the body is already here.
fn look_at_body<'a>(
    client: &'a Client,
    plan: &'a FrontPlan,
    request: &'a Request,
    buffer: &'a mut Buffer,
) -> Result<Asked<'a>, Reject> {
    let behind = buffer.len() - request.length;
    let most = plan.plan.max_body.unwrap_or(u64::MAX);
    let mut body_bytes = 0;
    let (inline, rest) = match request.body {
        Body::None | Body::UntilClose => (0, Rest::Nothing),
        Body::Length(n) => {
            body_bytes = n;
            if n > most {
                return Err(Reject { why: Why::BodyTooLong, at: request.length });
            }
            if n <= behind as u64 {
                (n as usize, Rest::Nothing)
            } else {
                (behind, Rest::Length(n - behind as u64))
            }
        }
        Body::Chunked => {
            let mut chunked = Chunked::new(Framing::Keep);
            chunked.limit(most)?;
            let progress = chunked
                .forward(&mut buffer.bytes_mut()[request.length..])
                .map_err(|reject| Reject { at: request.length + reject.at, ..reject })?;
            buffer.remove(request.length + progress.kept, progress.used - progress.kept);
            body_bytes = chunked.announced();
            let rest = if chunked.is_end() { Rest::Nothing } else { Rest::Chunked(chunked) };
            (progress.kept, rest)
        }
    };
    let (marks, backend, edits, limits) = (None, None, None, None);
    let manner = Manner::AtOnce;
    Ok(Asked {
        client,
        plan,
        request,
        buffer,
        inline,
        rest,
        marks,
        body_bytes,
        backend,
        edits,
        limits,
        manner,
    })
}

/// Whether the client's connection may go on after this request's answer.
pub(crate) fn may_keep(asked: &Asked<'_>) -> bool {
    asked.request.keep_alive
        && !asked.client.worker.sends_away(asked.client.ebbs)
        && !asked.client.front.plan().removed
}

/// How that is said to the client.
pub(crate) fn persistence(keep: bool, minor: u8) -> Persistence {
    match (keep, minor) {
        (false, _) => Persistence::Close,
        (true, 0) => Persistence::KeepOld,
        (true, _) => Persistence::Keep,
    }
}

/// The answer to a request that goes to no server.
fn local_answer(asked: &Asked<'_>) -> Option<(u16, [u8; 2], Vec<u8>)> {
    let Asked { request, buffer, plan, .. } = asked;
    let keep = matches!(asked.rest, Rest::Nothing) && may_keep(asked);
    let persistence = persistence(keep, request.minor);
    if request.max_forwards == Some(0) {
        return Some(match request.method {
            Method::Options => (200, *b"LR", answer::options(persistence)),
            _ => (405, *b"LR", answer::error(405, persistence, false, plan.pages.find(405))),
        });
    }
    let redirect = plan.plan.redirect.as_ref()?;
    let Some(host) = request.host else {
        return Some((
            400,
            *b"LR",
            answer::error(400, persistence, request.method == Method::Head, plan.pages.find(400)),
        ));
    };
    let (host, _) = field::split_port(host.of(buffer.bytes()));
    let path = request.path.of(buffer.bytes());
    let answer = answer::redirect(redirect.code, &redirect.scheme, host, path, persistence);
    Some((redirect.code, *b"LR", answer))
}

/// Asks the rules of the backend that answers, if it has any.
fn ask_backend(asked: &mut Asked<'_>, account: &mut Account) -> Option<(u16, [u8; 2], Vec<u8>)> {
    let backend = asked.backend.as_ref().or(asked.plan.backend.as_ref())?;
    let rules = backend.rules.borrow().clone()?;
    account.backend = Some(backend.clone());
    ask_rules(asked, &rules)
}

/// Asks rules: an answer, or what of the request is different now.
#[inline(never)]
fn ask_rules(asked: &mut Asked<'_>, rules: &Rules) -> Option<(u16, [u8; 2], Vec<u8>)> {
    let Asked { client, plan, request, .. } = *asked;
    let head = request.method == Method::Head;
    let so_far = Decision {
        backend: asked.backend.take(),
        edits: asked.edits.take(),
        limits: asked.limits.take(),
        verdict: None,
    };
    let decision = match rules::decide(asked, rules, so_far) {
        Ok(decision) => decision,
        Err(bad) => {
            client.front.counters().errors.add(1);
            if client.worker.may_complain() {
                tracing::info!("frontend {}: request of {} refused: {bad}", plan.plan.name, client.peer);
            }
            let keep = matches!(asked.rest, Rest::Nothing) && may_keep(asked);
            let answer = answer::error(400, persistence(keep, request.minor), head, plan.pages.find(400));
            return Some((400, *b"PR", answer));
        }
    };
    asked.backend = decision.backend;
    asked.edits = decision.edits;
    asked.limits = decision.limits;
    let verdict = decision.verdict?;
    if let Verdict::Deny(status, rule, manner) = &verdict {
        asked.manner = *manner;
        if client.worker.may_complain() {
            tracing::info!(
                "frontend {}: request of {} denied with {status} by rule `{rule}`",
                plan.plan.name,
                client.peer
            );
        }
    }
    let keep = matches!(asked.rest, Rest::Nothing) && may_keep(asked);
    let edits = asked.edits.as_deref().map(|edits| &edits.response);
    Some(verdict.answer(persistence(keep, request.minor), head, edits, &plan.pages))
}

/// Writes an answer of our own to the client.
///
/// # Errors
/// If the client is gone, or does not take it within its time-out.
pub(crate) async fn send(
    client: &Client,
    plan: &FrontPlan,
    answer: &[u8],
    account: &mut Account,
) -> io::Result<()> {
    client.front.counters().responses.count(account.status);
    let hsts = client.tls().map_or(&[][..], |tls| tls.hsts());
    let line = answer.iter().position(|&byte| byte == b'\n').map_or(answer.len(), |at| at + 1);
    let mut whole = Vec::with_capacity(answer.len() + 64 + hsts.len());
    whole.extend_from_slice(&answer[..line]);
    client.worker.add_date(&mut whole);
    whole.extend_from_slice(hsts);
    whole.extend_from_slice(&answer[line..]);
    if let Some(marks) = account.marks.as_ref().filter(|marks| marks.answers()) {
        marks.own_answer(&mut whole);
    }
    account.written += write_all(client, plan, &whole).await?;
    Ok(())
}

/// Writes all of `bytes` to the client.
///
/// # Errors
/// As [`send`].
pub(crate) async fn write_all(client: &Client, plan: &FrontPlan, bytes: &[u8]) -> io::Result<u64> {
    let mut left = bytes;
    while !left.is_empty() {
        let deadline = client.worker.now() + plan.plan.timeout.client;
        let write = |cx: &mut std::task::Context<'_>| loop {
            match client.io.try_write(left) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if client.io.poll_write_ready(cx).is_pending() {
                        return Poll::Pending;
                    }
                }
                other => return Poll::Ready(other),
            }
        };
        let n = client
            .until(deadline, write)
            .await
            .map_err(|Late| io::Error::from(io::ErrorKind::TimedOut))??;
        left = &left[n..];
    }
    if client.io.flush().is_err() {
        let deadline = client.worker.now() + plan.plan.timeout.client;
        let flushed = client.until(deadline, |cx| client.io.poll_write_ready(cx)).await;
        flushed.map_err(|Late| io::Error::from(io::ErrorKind::TimedOut))??;
    }
    Ok(bytes.len() as u64)
}

/// Writes the access line of a request; `head` is what was received of it, from the request line on.
pub(crate) fn log_request(client: &Client, plan: &FrontPlan, account: &mut Account, head: Option<&[u8]>) {
    let worker = &client.worker;
    client.since.set(worker.now());
    for tally in account.tallies.drain(..) {
        tally.count(worker.instant(worker.now()), account.status, account.read, account.written);
    }
    account.times.total = worker.now().since(account.began).as_millis() as i64;
    if let Some(server) = &account.server
        && account.times.response >= 0
    {
        let times = &account.times;
        server.counters().times.add([times.queue, times.connect, times.response, times.total]);
    }
    if account.state != *b"--" {
        let server = account.server.as_ref().map(|server| server.counters());
        count_abort(account.state, server, account.backend.as_ref().map(|b| &*b.shared), worker.index);
    }
    let Some(log) = &plan.log else { return };
    let front: &str = &client.front.shared.name;
    let sessions = Sessions {
        process: worker.open_everywhere(),
        frontend: client.front.shared.open(),
        backend: account.backend.as_ref().map_or(0, |b| b.active()).saturating_sub(account.held),
        server: account
            .server
            .as_ref()
            .map_or(0, |s| s.shared.active.load(Relaxed))
            .saturating_sub(account.held),
    };
    let mut line = head.map(|head| head.split(|&b| b == b'\r').next().unwrap_or(head));
    let mut scratch = Vec::new();
    if client.io.is_stream()
        && let Some(text) = &mut line
    {
        // What was received is HTTP/2, and what we have its rendering.
        scratch = worker.take_scratch();
        scratch.extend_from_slice(text.strip_suffix(b"HTTP/1.1").unwrap_or(text));
        scratch.extend_from_slice(b"HTTP/2.0");
        *text = &scratch;
    }
    let entry = Entry {
        client: client.peer,
        local: if log.wants_local { client.local() } else { None },
        tls: client.tls().is_some(),
        date_ms: worker.date_ms(account.began),
        frontend: front,
        backend: account.backend.as_ref().map_or(front, |b| &b.shared.name),
        server: account.server.as_ref().map(|s| (&*s.shared.name, s.plan.address)),
        times: account.times,
        bytes_in: account.read,
        bytes_out: account.written,
        state: account.state,
        cookie: account.cookie,
        sessions,
        retries: account.retries,
        redispatched: account.redispatched,
        server_queue: 0,
        backend_queue: account.queued,
        request_captures: &plan.plan.request_captures,
        response_captures: &plan.plan.response_captures,
        noted: &account.noted,
        request_id: account.marks.as_ref().map_or(b"", |marks| &marks.request_id),
        traceparent: account.marks.as_ref().map_or(b"", |marks| &marks.traceparent),
        kind: Kind::Http { status: account.status, line, head: head.unwrap_or_default() },
    };
    log.write(&entry, &mut worker.dates.borrow_mut());
    if scratch.capacity() > 0 {
        worker.give_scratch(scratch);
    }
}

/// Ends a connection so that a client still sending gets what was answered; see [`limits::LINGER`].
pub(crate) async fn linger(client: &Client) {
    if client.io.shut_down().is_err() {
        return;
    }
    let deadline = client.worker.now() + limits::LINGER;
    let mut left = limits::LINGER_BYTES;
    let mut buffer = client.worker.take_buffer();
    while left > 0 {
        buffer.clear();
        match buffer.fill(&client.io) {
            Ok(0) => break,
            Ok(n) => {
                left = left.saturating_sub(n);
                tokio::task::yield_now().await; // whoever never stops sending holds nobody up
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if client.until(deadline, |cx| client.io.poll_read_ready(cx)).await.is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    client.worker.give_buffer(buffer);
}
