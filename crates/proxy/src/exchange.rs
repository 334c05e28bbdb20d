//! One attempt: the request goes to a connected server, and the response comes back.
//!
//! Both directions run at the same time, so an early response reaches a client that is still sending, and
//! each waits for the slower of its two ends.

mod hedge;

use std::io::{self, Write};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use base64::Engine as _;
use relais_base::Time;
use relais_config::plan;
use relais_http::response::Blanks;
use relais_http::{Body, Framing, Method, Reject, Response, Why, field, response};

use crate::access;
use crate::answer::Persistence;
use crate::buffer::Buffer;
use crate::client::Client;
use crate::compress::{self, Verdict};
use crate::counters::Pass;
use crate::gone::Gone;
use crate::half::{Broken, Half, Stand, recycle};
use crate::io::Io;
use crate::limits;
use crate::pace::Pace;
use crate::persist;
use crate::rules::Edits;
use crate::session::{self, Account, Asked, Leaves, Rest};
use crate::squeeze::Squeeze;
use crate::stick::{self, Sticky};
use crate::tls;
use crate::transaction;
use crate::tunnel::{Patience, Tunnel};
use crate::upstream::{Backend, Lease, Server};

/// Why there is no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// No connection; the letters for the log.
    NoConnection([u8; 2]),
    /// The connection was dead before a byte of the request was sent.
    Unsent,
    /// The server said that it has not looked at the request (RFC 9113 §8.7); whether all of it is still here.
    Refused { untouched: bool },
    /// The connection ended before a byte of the response came.
    Silent,
    /// The checks took the server out while its response was awaited.
    Down,
    /// The server's time-out.
    Late,
    /// The response broke off within its head.
    Broken,
    /// The response is one after which another server is asked, and the budget has been charged with that.
    Status,
    /// The response breaks the rules.
    Response(Reject),
    /// The request's body breaks the rules.
    Request(Reject),
    /// The client's time-out.
    ClientLate,
    /// The client closed in the middle of its body.
    ClientGone,
    /// The client has asked, and does not want the answer any more.
    ClientLeft,
}

/// An attempt under way.
struct Exchange<'a> {
    client: &'a Client,
    backend: &'a Rc<Backend>,
    server: Rc<Server>,
    /// Which of the backend's it is.
    place: usize,
    /// When it was asked.
    sent: Time,
    timeout_client: Duration,
    timeout_server: Duration,
    io: Io,
    up: Half,
    /// The server takes no more of the request.
    deaf: bool,
    /// The client gives no more of it.
    cut: bool,
    /// Who owes the next move, and since when.
    turn: (Whose, Time),
    pace: Pace,
    /// Bytes of the response that the client has taken.
    taken: u64,
    gone: Gone<'a>,
}

/// Whose silence is counted.
#[derive(Clone, Copy, PartialEq)]
enum Whose {
    Client,
    Server,
}

/// Sends the request over `io` and brings the response back. The access line is written here.
///
/// # Errors
/// If no response has begun; what was sent of the request can be told from the failure.
pub(crate) async fn run(
    asked: &mut Asked<'_>,
    account: &mut Account,
    backend: &Rc<Backend>,
    lease: &mut Lease,
    io: Io,
    (repeatable, again): (bool, bool),
) -> Result<Leaves, Failure> {
    let client = asked.client;
    let limits = asked.limits.as_deref();
    if let Some(longer) =
        limits.and_then(|l| l.timeout_client).filter(|t| *t > asked.plan.plan.timeout.client)
    {
        client.be_patient(longer);
    }
    let mut exchange = Exchange::new(asked, backend, lease, io);
    exchange.send(asked)?;
    let mut received = client.worker.take_buffer();
    client.wait_for(exchange.server.shared.id);
    let hedge = backend.plan.hedge.filter(|_| repeatable && hedge::may(asked, account));
    let result = match hedge {
        None => exchange.response(asked, account, &mut received, repeatable).await,
        Some(hedge) => Box::pin(exchange.hedged(asked, account, &mut received, lease, hedge)).await,
    };
    client.wait_for(0);
    let worker = &client.worker;
    let response = match result {
        Ok(response) => response,
        Err(failure) => {
            worker.give_buffer(received);
            recycle(&mut exchange.up, worker);
            return Err(failure);
        }
    };
    let server = exchange.server.clone();
    backend.chooser.answered(&client.worker, exchange.place, worker.now().since(exchange.sent));
    let is_unwanted = repeatable && again && backend.plan.retry_on.statuses.contains(&response.status);
    if is_unwanted && backend.may_repeat(worker.now()) {
        server.counters().responses.count(response.status);
        server.shared.observed.answered(response.status);
        worker.give_buffer(received);
        recycle(&mut exchange.up, worker);
        return Err(Failure::Status);
    }
    account.times.response = worker.now().since(account.began).as_millis() as i64
        - account.times.request
        - account.times.queue.max(0)
        - account.times.connect.max(0);
    if response.status == 101 {
        if let Some(reject) = switches_elsewhere(asked, &response, &received) {
            worker.give_buffer(received);
            recycle(&mut exchange.up, worker);
            return Err(Failure::Response(reject));
        }
        exchange.count(account, &response);
        return Ok(exchange.switch(asked, account, &response, received).await);
    }
    exchange.relay(asked, account, &response, received).await
}

/// What a response's framing depends on.
fn question(asked: &Asked<'_>) -> response::Asked {
    response::Asked {
        head: asked.request.method == Method::Head,
        upgrade: asked.request.upgrade.is_some(),
        minor: asked.request.minor,
    }
}

impl Failure {
    /// The client's doing.
    const fn is_of_client(&self) -> bool {
        matches!(self, Failure::Request(_) | Failure::ClientLate | Failure::ClientGone | Failure::ClientLeft)
    }

    /// Counts it with its server, if it is that one's doing.
    pub(crate) fn count(&self, server: &Server) {
        if matches!(self, Failure::Silent | Failure::Late | Failure::Broken | Failure::Response(_)) {
            server.counters().response_errors.add(1);
            server.shared.observed.failed();
        }
    }
}

impl<'a> Exchange<'a> {
    fn new(asked: &Asked<'a>, backend: &'a Rc<Backend>, lease: &Lease, io: Io) -> Exchange<'a> {
        let (client, limits) = (asked.client, asked.limits.as_deref());
        let now = client.worker.now();
        let min_rate = limits.and_then(|l| l.min_rate).unwrap_or(asked.plan.plan.min_rate);
        Exchange {
            client,
            backend,
            server: lease.server().clone(),
            place: lease.index(),
            sent: now,
            timeout_client: limits.and_then(|l| l.timeout_client).unwrap_or(asked.plan.plan.timeout.client),
            timeout_server: limits.and_then(|l| l.timeout_server).unwrap_or(backend.plan.timeout.server),
            io,
            up: Half::new(Body::None, Framing::Keep),
            deaf: false,
            cut: false,
            turn: (Whose::Server, now),
            pace: Pace::new(min_rate, now),
            taken: 0,
            gone: Gone::new(&client.io, backend.plan.abort_on_close),
        }
    }

    /// Writes the head and what is here of the body, in one go if the socket takes it.
    fn send(&mut self, asked: &Asked<'_>) -> Result<(), Failure> {
        let worker = &self.client.worker;
        let mut head = worker.take_scratch();
        request_head(&mut head, asked, &self.backend.plan, &self.server);
        let bytes = asked.buffer.bytes();
        let body = &bytes[asked.request.length..asked.request.length + asked.inline];
        let all = head.len() + body.len();
        let sent = match write_both(&self.io, &mut head, body) {
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(_) => {
                worker.give_scratch(head);
                return Err(Failure::Unsent);
            }
        };
        self.server.counters().bytes_in.add(all as u64);
        self.up = match &asked.rest {
            Rest::Nothing => Half::new(Body::None, Framing::Keep),
            Rest::Length(n) => Half::new(Body::Length(*n), Framing::Keep),
            Rest::Chunked(chunked) => {
                let mut half = Half::resume(chunked.clone());
                let rest = &bytes[asked.request.length + asked.inline..];
                if !rest.is_empty() {
                    let mut buffer = worker.take_buffer();
                    buffer.append(rest);
                    half.feed(buffer).map_err(|broken| match broken {
                        Broken::Framing(reject) => Failure::Request(reject),
                        _ => Failure::ClientGone,
                    })?;
                }
                half
            }
        };
        if sent < all {
            head.extend_from_slice(&body[head.len() + body.len() - all..]);
            self.up.owe_head(head[sent..].to_vec());
        }
        worker.give_scratch(head);
        Ok(())
    }

    /// The head of the final response, at the beginning of `received`. Interim ones go to the client.
    async fn response(
        &mut self,
        asked: &Asked<'_>,
        account: &mut Account,
        received: &mut Buffer,
        repeatable: bool,
    ) -> Result<Response, Failure> {
        let question = question(asked);
        let client = self.client;
        for _ in 0..limits::INTERIM {
            let response = client.drive(|cx| self.poll_response(question, received, repeatable, cx)).await?;
            if !response.is_interim() {
                return Ok(response);
            }
            if asked.request.minor == 1 {
                let mut head = Vec::new();
                response_head(&mut head, client, &response, received.bytes(), Persistence::Keep, None, None);
                let written = session::write_all(self.client, asked.plan, &head).await;
                account.written += written.map_err(|_| Failure::ClientGone)?;
            }
            received.consume(response.length);
        }
        Err(Failure::Broken)
    }

    fn poll_response(
        &mut self,
        question: response::Asked,
        received: &mut Buffer,
        repeatable: bool,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response, Failure>> {
        let upload = self.poll_upload(cx)?;
        let mut moved = self.up.has_moved();
        loop {
            if !received.is_empty() {
                match Response::parse(received.bytes(), question) {
                    Ok(Some(response)) => return Poll::Ready(Ok(response)),
                    Ok(None) => {}
                    Err(reject) => match response::blanks_before_colon(received.bytes(), reject) {
                        Some(Blanks::Remove(n)) => {
                            received.remove(reject.at, n);
                            continue;
                        }
                        Some(Blanks::Wait) => {}
                        None => return Poll::Ready(Err(Failure::Response(reject))),
                    },
                }
            }
            match received.fill(&self.io) {
                Ok(n) if n > 0 => moved = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if self.io.poll_read_ready(cx).is_pending() {
                        break;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused && received.is_empty() => {
                    return Poll::Ready(Err(Failure::Refused { untouched: self.up.read == 0 }));
                }
                _ if !received.is_empty() => return Poll::Ready(Err(Failure::Broken)),
                _ if self.cut => return Poll::Ready(Err(Failure::ClientGone)),
                _ => return Poll::Ready(Err(Failure::Silent)),
            }
        }
        if repeatable && received.is_empty() && !self.server.shared.serves() {
            return Poll::Ready(Err(Failure::Down));
        }
        let (whose, failure) = match upload {
            Stand::Hungry => (Whose::Client, Failure::ClientLate),
            Stand::Done | Stand::Stuffed => (Whose::Server, Failure::Late),
        };
        if whose == Whose::Server && upload == Stand::Done && self.gone.poll(cx).is_ready() {
            return Poll::Ready(Err(Failure::ClientLeft));
        }
        let deadline = self.deadline(whose, moved);
        self.client.poll_deadline(deadline, cx).map(|_| Err(failure))
    }

    /// When the patience with whoever's turn it is ends: it begins anew with each move, and with each turn, so that
    /// nobody is blamed for a time in which the other was waited for. A client's ends with its credit, too.
    fn deadline(&mut self, whose: Whose, moved: bool) -> Time {
        let now = self.client.worker.now();
        let waited = self.turn.0 == Whose::Client;
        if moved || whose != self.turn.0 {
            self.turn = (whose, now);
        }
        match whose {
            Whose::Server if !waited => self.turn.1 + self.timeout_server,
            Whose::Server => {
                self.pace.end(now, waited, self.up.read + self.taken);
                self.turn.1 + self.timeout_server
            }
            Whose::Client => {
                let end = self.pace.end(now, waited, self.up.read + self.taken);
                end.min(self.turn.1 + self.timeout_client)
            }
        }
    }

    /// Carries the request's body on; once it is done, or will not get any further, it stands as done.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<Stand, Failure> {
        if self.deaf || self.up.is_done() {
            return Ok(Stand::Done);
        }
        let stand = match self.up.pump(&self.client.worker, &self.client.io, &self.io, cx) {
            Ok(stand) => stand,
            Err(Broken::Destination) => {
                // It may have answered before it closed its ear: that answer counts.
                self.deaf = true;
                Stand::Done
            }
            Err(Broken::Source) => return Err(Failure::ClientGone),
            Err(Broken::Framing(reject)) => return Err(Failure::Request(reject)),
        };
        Ok(stand)
    }

    /// Whether the response is compressed, and what does it.
    fn judge(&self, asked: &Asked<'_>, response: &Response, bytes: &[u8]) -> (Verdict, Option<Box<Squeeze>>) {
        let Some(plan) = compress::plan(&self.backend.plan, &asked.plan.plan) else {
            return (Verdict::Leave, None);
        };
        let verdict = compress::judge(plan, asked, response, bytes);
        let Verdict::Squeeze(coding) = verdict else { return (verdict, None) };
        if response.body == Body::None {
            return (verdict, None); // an answer to HEAD
        }
        let place = Pass::at_once(&self.client.worker.compressors, plan.max_active);
        match place.and_then(|place| Squeeze::new(coding, plan.level, place).ok()) {
            Some(squeeze) => (verdict, Some(Box::new(squeeze))),
            None => {
                self.client.front.counters().comp_bypassed.add(1);
                (Verdict::Vary, None)
            }
        }
    }

    /// Has the client stay with the server that answers.
    fn persist(&self, asked: &Asked<'_>, account: &mut Account, head: &mut Vec<u8>) {
        if let Some(sticky) = &self.backend.sticky {
            self.learn(sticky, asked, account, head);
        }
        let Some(sticks) = &self.backend.sticks else { return };
        let setting = persist::Setting {
            is_tls: self.client.tls().is_some(),
            is_post: asked.head().starts_with(b"POST "),
            now_s: self.client.worker.wall_s(),
        };
        let set = persist::answer(head, sticks, account.stuck, self.place, setting);
        account.cookie = account.stuck.letters(set);
    }

    /// Has the table know who answered, where it did not.
    fn learn(&self, sticky: &Sticky, asked: &Asked<'_>, account: &Account, head: &[u8]) {
        let now = self.client.worker.instant(self.client.worker.now());
        if let plan::StickKey::Learned(name) = &sticky.plan.key
            && let Some(id) = stick::key::given(name, head)
        {
            stick::key::short(id, &mut |key| sticky.put(key, &self.server, now));
        } else if account.stuck.server() != Some(self.place) {
            stick::key::of_request(&sticky.plan, asked, |key| sticky.put(key, &self.server, now));
        }
    }

    /// Notes that there is a response.
    fn count(&self, account: &mut Account, response: &Response) {
        account.status = response.status;
        account.held = 1;
        self.client.front.counters().responses.count(response.status);
        self.server.counters().responses.count(response.status);
        self.server.shared.observed.answered(response.status);
    }

    /// Brings a response to the client and settles everything.
    ///
    /// # Errors
    /// If what is here of its body is already wrong.
    async fn relay(
        mut self,
        asked: &mut Asked<'_>,
        account: &mut Account,
        response: &Response,
        mut received: Buffer,
    ) -> Result<Leaves, Failure> {
        let client = self.client;
        let worker = &client.worker;
        let (verdict, squeeze) = self.judge(asked, response, received.bytes());
        let strip = response.unchunk || squeeze.is_some();
        let framing = match strip {
            _ if squeeze.is_some() => Framing::Trailers,
            true => Framing::Strip,
            false => Framing::Keep,
        };
        let unframed = response.unchunk || (response.body == Body::UntilClose && squeeze.is_none());
        let keep = session::may_keep(asked) && self.up.is_done() && !unframed;
        let mut head = worker.take_scratch();
        let persistence = session::persistence(keep, asked.request.minor);
        match verdict {
            Verdict::Leave => {
                let edits = asked.edits.as_deref();
                response_head(&mut head, client, response, received.bytes(), persistence, None, edits);
            }
            _ => {
                compress::response_fields(&mut head, response, received.bytes(), verdict);
                add_date(&mut head, client, response);
                add_hsts(&mut head, client);
                if let Some(edits) = asked.edits.as_deref() {
                    edits.response.apply(&mut head, 0);
                }
                head.extend_from_slice(persistence.tail());
            }
        }
        if let Some(marks) = &asked.marks {
            marks.response(&mut head);
        }
        self.persist(asked, account, &mut head);
        note_headers(asked, account, &received.bytes()[..response.length]);
        received.consume(response.length);

        let mut down = Half::new(response.body, framing);
        if let Some(squeeze) = squeeze {
            down.compress(squeeze);
        }
        let fed = received.len();
        if let Err(Broken::Framing(reject)) = down.feed(received) {
            worker.give_scratch(head);
            recycle(&mut down, worker);
            recycle(&mut self.up, worker);
            return Err(Failure::Response(Reject { at: reject.at + response.length, ..reject }));
        }
        self.count(account, response);
        let head_bytes = head.len() as u64;
        self.send_response(&mut head, &mut down);
        let state = if down.is_done() && client.io.flush().is_ok() {
            *b"--"
        } else {
            client.drive(|cx| self.poll_relay(&mut down, cx)).await
        };
        worker.give_scratch(head);
        account.state = state;
        account.written += head_bytes + down.written;
        if let Some(taken) = down.squeezed() {
            let counters = client.front.counters();
            counters.comp_responses.add(1);
            counters.comp_in.add(taken);
            counters.comp_out.add(down.written);
        }
        account.read += asked.inline as u64 + self.up.read;
        let counters = self.server.counters();
        counters.bytes_in.add(self.up.written);
        counters.bytes_out.add(response.length as u64 + fed as u64 + down.read);
        if matches!(state, [b'S' | b's' | b'P', _]) {
            counters.response_errors.add(1);
        }
        session::log_request(self.client, asked.plan, account, Some(asked.head()));

        if state != *b"--" && unframed {
            // Nothing but the connection's end tells this client where the body ends: let it not look like one.
            client.io.end_in_reset();
        } else if state == *b"cD" {
            // It takes nothing: what the kernel still holds for it, megabytes perhaps, is not to wait for it longer.
            client.io.end_in_reset();
        }
        let sent_no_more =
            asked.buffer.len() == asked.request.length + asked.inline && !self.up.has_surplus();
        let whole = state == *b"--" && self.up.is_done() && !self.deaf;
        let reusable = whole && response.keep_alive && !down.has_surplus();
        recycle(&mut down, worker);
        let surplus = self.up.take_buffer();
        recycle(&mut self.up, worker);
        if reusable {
            self.server.put_idle(self.io, self.client);
        }
        if !(whole && keep) {
            surplus.into_iter().for_each(|buffer| worker.give_buffer(buffer));
            // Who asked for the end, and sent all, sends no more; another may be sending this moment.
            let silent = whole && !asked.request.keep_alive && sent_no_more;
            return Ok(if state == *b"--" && !silent { Leaves::Linger } else { Leaves::Closed });
        }
        if matches!(asked.rest, Rest::Nothing) {
            asked.buffer.consume(asked.request.length + asked.inline);
        } else {
            asked.buffer.clear();
            if let Some(next) = surplus {
                asked.buffer.append(next.bytes());
                worker.give_buffer(next);
            }
        }
        Ok(Leaves::Open)
    }

    /// Writes the head and what is here of the body, in one go if the socket takes it.
    fn send_response(&self, head: &mut Vec<u8>, down: &mut Half) {
        let length = head.len();
        // A lasting error comes again with the next write.
        let n = write_both(&self.client.io, head, down.ready()).unwrap_or(0);
        if n >= length {
            down.wrote(n - length);
        } else {
            down.owe_head(head[n..length].to_vec());
        }
    }

    fn poll_relay(&mut self, down: &mut Half, cx: &mut Context<'_>) -> Poll<[u8; 2]> {
        let upload = match self.poll_upload(cx) {
            Ok(stand) => stand,
            Err(failure) => {
                // The client cut its request short, or garbled it; the response under way is still its due.
                if let Failure::Request(reject) = failure {
                    transaction::complain_of_body(self.client, reject);
                }
                self.cut = true;
                self.deaf = true;
                Stand::Done
            }
        };
        let download = match down.pump(&self.client.worker, &self.io, &self.client.io, cx) {
            Ok(Stand::Done) => return Poll::Ready(*b"--"),
            Ok(stand) => stand,
            Err(Broken::Source) => return Poll::Ready(*b"SD"),
            Err(Broken::Framing(reject)) => {
                transaction::complain_of_response(self.client, &self.server, "body of the response", reject);
                return Poll::Ready(*b"PD");
            }
            Err(Broken::Destination) => return Poll::Ready(*b"CD"),
        };
        let (whose, state) = match (upload, download) {
            (_, Stand::Stuffed) | (Stand::Hungry, Stand::Hungry) => (Whose::Client, *b"cD"),
            _ => (Whose::Server, *b"sD"),
        };
        if self.client.io.poll_cancelled(cx).is_ready() {
            return Poll::Ready(*b"CD");
        }
        let moved = self.up.has_moved() | down.has_moved();
        self.taken = down.written;
        let deadline = self.deadline(whose, moved);
        self.client.poll_deadline(deadline, cx).map(|_| state)
    }

    /// Hands both connections over to the protocol they switched to.
    async fn switch(
        mut self,
        asked: &mut Asked<'_>,
        account: &mut Account,
        response: &Response,
        mut received: Buffer,
    ) -> Leaves {
        let worker = &self.client.worker;
        let mut head = Vec::new();
        let protocol = response.upgrade.map(|span| span.of(received.bytes()));
        let edits = asked.edits.as_deref();
        response_head(&mut head, self.client, response, received.bytes(), Persistence::Keep, protocol, edits);
        if let Some(marks) = &asked.marks {
            marks.response(&mut head);
        }
        self.persist(asked, account, &mut head);
        note_headers(asked, account, &received.bytes()[..response.length]);
        received.consume(response.length);
        account.written += head.len() as u64;

        let patience = Patience::new(&asked.plan.plan, &self.backend.plan);
        self.client.be_patient(Duration::ZERO); // a tunnel may be silent for as long as its file says
        let mut tunnel = Tunnel::new(self.client, &self.io, patience);
        tunnel.down.owe_head(head);
        let _ = tunnel.down.feed(received);
        // What the client sent after its request belongs to the new protocol already.
        let mut early = worker.take_buffer();
        early.append(&asked.buffer.bytes()[asked.request.length + asked.inline..]);
        let _ = tunnel.up.feed(early);
        account.state = tunnel.run().await;
        account.read += tunnel.up.written;
        account.written += tunnel.down.written;
        let counters = self.server.counters();
        counters.bytes_in.add(tunnel.up.written);
        counters.bytes_out.add(response.length as u64 + tunnel.down.written);
        drop(tunnel);
        session::log_request(self.client, asked.plan, account, Some(asked.head()));
        recycle(&mut self.up, worker);
        Leaves::Closed
    }
}

/// What is wrong with a 101, if it switches to a protocol that was not offered (RFC 9110 §7.8).
fn switches_elsewhere(asked: &Asked<'_>, response: &Response, received: &Buffer) -> Option<Reject> {
    let (offer, taken) = (asked.request.upgrade?, response.upgrade?);
    let offered = |protocol: &[u8]| {
        field::elements(offer.of(asked.buffer.bytes())).any(|p| p.eq_ignore_ascii_case(protocol))
    };
    let fits = field::elements(taken.of(received.bytes())).all(offered);
    (!fits).then_some(Reject { why: Why::Switching, at: usize::from(taken.start) })
}

/// Writes a head and the beginning of a body with one system call. A short body is copied behind the head
/// (which then is longer by it): that costs less than a list of two.
fn write_both(io: &Io, head: &mut Vec<u8>, body: &[u8]) -> io::Result<usize> {
    if body.len() <= limits::COALESCE_BYTES {
        head.extend_from_slice(body);
        io.try_write(head)
    } else {
        io.try_write_both(head, body)
    }
}

/// Keeps what the access log shows of a response's head, before that goes.
fn note_headers(asked: &Asked<'_>, account: &mut Account, head: &[u8]) {
    let captures = &asked.plan.plan.response_captures;
    if !captures.is_empty() && asked.plan.log.is_some() {
        account.noted.note(captures, head);
    }
}

/// The head as it goes to the server.
fn request_head(out: &mut Vec<u8>, asked: &Asked<'_>, backend: &plan::Backend, server: &Server) {
    let request = asked.request;
    let bytes = asked.buffer.bytes();
    out.clear();
    out.extend_from_slice(request.method_sp.of(bytes));
    let edits = asked.edits.as_deref();
    let path = edits.and_then(|edits| edits.target.as_deref()).unwrap_or(request.path.of(bytes));
    match path.first() {
        None if request.method == Method::Options => out.push(b'*'),
        None | Some(b'?') => out.push(b'/'),
        _ => {}
    }
    out.extend_from_slice(path);
    out.extend_from_slice(b" HTTP/1.1\r\n");
    let fields = out.len();
    if let Some(compression) = compress::plan(backend, &asked.plan.plan) {
        compress::request_fields(out, &request.fields, bytes, compression.offload);
    } else {
        for span in request.fields.spans() {
            out.extend_from_slice(span.of(bytes));
        }
    }
    if let Some(edits) = edits {
        edits.apply_request(out, fields);
    }
    if let Some(persist) = &backend.persist {
        persist::prepare(out, fields, persist);
    }
    if let Some(marks) = &asked.marks {
        marks.request(out, fields);
    }
    if !request.has_host_field && edits.is_none_or(|edits| edits.host.is_none()) {
        // HTTP/1.0 may go without; what we send is HTTP/1.1 and must not.
        out.extend_from_slice(b"Host: ");
        match request.host {
            Some(authority) => out.extend_from_slice(authority.of(bytes)),
            None => drop(write!(out, "{}", server.plan.address)),
        }
        out.extend_from_slice(b"\r\n");
    }
    if let Some(hops) = request.max_forwards {
        out.extend_from_slice(b"Max-Forwards: ");
        access::number(out, u64::from(hops.saturating_sub(1)));
        out.extend_from_slice(b"\r\n");
    }
    if let Some(protocol) = request.upgrade {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: ");
        out.extend_from_slice(protocol.of(bytes));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(match request.minor {
        _ if asked.client.io.is_stream() => b"Via: 2.0 relais\r\n",
        1 => b"Via: 1.1 relais\r\n",
        _ => b"Via: 1.0 relais\r\n",
    });
    if let Some(tls) = asked.client.tls() {
        add_client_certificate(out, tls);
    }
    if session::sets_forwarded(asked.plan, asked.client) {
        out.extend_from_slice(b"X-Forwarded-For: ");
        access::ip(out, asked.client.peer.ip());
        let tls = asked.client.tls().is_some();
        out.extend_from_slice(b"\r\nX-Forwarded-Proto: ");
        out.extend_from_slice(if tls { b"https\r\n" } else { b"http\r\n" });
        if let Some(host) = request.host {
            out.extend_from_slice(b"X-Forwarded-Host: ");
            out.extend_from_slice(host.of(bytes));
            out.extend_from_slice(b"\r\n");
        }
    }
    out.extend_from_slice(b"\r\n");
}

/// Adds `Date` to a final response that a server without a clock sent without (RFC 9110 §6.6.1).
fn add_date(out: &mut Vec<u8>, client: &Client, response: &Response) {
    if !response.dated && response.status >= 200 {
        client.worker.add_date(out);
    }
}

/// Adds `Strict-Transport-Security`, unless the server has said something of it.
fn add_hsts(out: &mut Vec<u8>, client: &Client) {
    const NAME: &[u8] = b"\nstrict-transport-security:";
    let line = client.tls().map_or(&[][..], |tls| tls.hsts());
    if !line.is_empty() && !out.windows(NAME.len()).any(|part| part.eq_ignore_ascii_case(NAME)) {
        out.extend_from_slice(line);
    }
}

/// The client's certificate for the server (RFC 9440 §2.2), if it has shown one.
fn add_client_certificate(out: &mut Vec<u8>, tls: &tls::Stream) {
    tls.with(|connection| {
        if let Some(certificate) = connection.peer_certificates().and_then(|chain| chain.first()) {
            let text = base64::prelude::BASE64_STANDARD.encode(certificate);
            out.extend_from_slice(b"Client-Cert: :");
            out.extend_from_slice(text.as_bytes());
            out.extend_from_slice(b":\r\n");
        }
    });
}

/// The head as it goes to the client.
fn response_head(
    out: &mut Vec<u8>,
    client: &Client,
    response: &Response,
    bytes: &[u8],
    persistence: Persistence,
    protocol: Option<&[u8]>,
    edits: Option<&Edits>,
) {
    out.clear();
    for span in response.kept.spans() {
        out.extend_from_slice(span.of(bytes));
    }
    add_date(out, client, response);
    if let Some(edits) = edits {
        edits.response.apply(out, 0);
    }
    out[response::MINOR_AT] = b'1';
    if response.status >= 200 {
        add_hsts(out, client);
    }
    if let Some(protocol) = protocol {
        out.extend_from_slice(b"Connection: upgrade\r\nUpgrade: ");
        out.extend_from_slice(protocol);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(persistence.tail());
}
