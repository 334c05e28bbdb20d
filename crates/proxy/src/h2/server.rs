//! A client's HTTP/2 connection: accepts its streams, has each served, and ends it in time.

use std::cell::Cell;
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use relais_base::Time;
use relais_config::plan;
use relais_http::meter::{Abuse, Meter};

use super::stream::StreamIo;
use super::wire::{Guard, Socket, Wire};
use crate::buffer::Buffer;
use crate::client::{Client, Late};
use crate::io::Io;
use crate::limits;
use crate::session::{self, Account};
use crate::worker::Worker;

/// The client whose connection it is; streams hold it, so that it counts until the last of them is over.
struct Shared(Rc<Client>);

impl Socket for Shared {
    fn io(&self) -> &Io {
        &self.0.io
    }

    fn worker(&self) -> &Worker {
        &self.0.worker
    }
}

/// What there is to do.
// It lives for one turn of the loop: boxing the requests would cost each of them an allocation.
#[allow(clippy::large_enum_variant)]
enum Event {
    Stream(http::Request<RecvStream>, SendResponse<Bytes>),
    Abuse(Abuse),
    /// The node, or the frontend, takes no more.
    Drain,
    /// Nothing was asked for the keep-alive time.
    Idle,
    /// It is over.
    End,
}

/// Serves a connection on which the client speaks HTTP/2, whose first bytes are in `early`.
pub(crate) async fn run(client: Client, early: Buffer) {
    let client = Rc::new(client);
    let plan = client.front.plan();
    let guard = Guard::new(Meter::new(client.worker.now()));
    let early = if early.is_empty() {
        client.worker.give_buffer(early);
        None
    } else {
        Some(early)
    };
    let wire = Wire::new(Shared(client.clone()), early, Some(guard.clone()));
    let mut handshake = builder(&plan.plan.http2).handshake(wire);
    let deadline = client.worker.now() + plan.plan.timeout.request;
    drop(plan);
    let greet = |cx: &mut Context<'_>| match std::pin::Pin::new(&mut handshake).poll(cx) {
        Poll::Pending => match guard.abuse.get() {
            Some(abuse) => Poll::Ready(Err(abuse)),
            None => Poll::Pending,
        },
        Poll::Ready(result) => Poll::Ready(Ok(result)),
    };
    match client.until(deadline, greet).await {
        Ok(Ok(Ok(connection))) => serve(&client, connection, &guard).await,
        Ok(Err(abuse)) => {
            complain(&client, abuse);
            let _ = client.io.try_write(b"\0\0\x08\x07\0\0\0\0\0\0\0\0\0\0\0\0\x01"); // GOAWAY, PROTOCOL_ERROR
        }
        Ok(Ok(Err(_))) => {}
        Err(Late) => return,
    }
    // What the client still sends must not take away what was said to it.
    session::linger(&client).await;
}

fn builder(http2: &plan::Http2) -> Builder {
    let mut builder = Builder::new();
    builder
        .initial_window_size(http2.initial_window)
        .initial_connection_window_size(http2.initial_window.max(limits::H2_CONNECTION_WINDOW))
        .max_concurrent_streams(http2.max_concurrent_streams)
        .max_header_list_size(limits::H2_HEADER_LIST)
        .max_send_buffer_size(limits::H2_SEND_BYTES)
        .max_concurrent_reset_streams(limits::H2_REMEMBERED_RESETS)
        .max_pending_accept_reset_streams(limits::H2_PENDING_RESETS)
        // A count that only grows would end honest connections in time; the meter's does not.
        .max_local_error_reset_streams(None)
        .enable_connect_protocol();
    builder
}

/// The connection's own state.
struct State {
    open: Rc<Cell<u32>>,
    /// Since when no stream is open.
    idle_since: Time,
    /// GOAWAY was said; when it is over, whatever is still open. `None`: not said.
    leaving: Option<Time>,
}

async fn serve(client: &Rc<Client>, mut connection: Connection<Wire<Shared>, Bytes>, guard: &Guard) {
    client.wait_for(limits::WAITS_FOR_DRAIN);
    let mut state = State { open: Rc::default(), idle_since: client.worker.now(), leaving: None };
    let mut in_a_row = 0;
    loop {
        match client.drive(|cx| poll_event(client, &mut connection, guard, &mut state, cx)).await {
            Event::Stream(request, send) => {
                accept(client, request, send, &state.open);
                in_a_row += 1;
                if in_a_row == limits::H2_STREAMS_IN_A_ROW {
                    in_a_row = 0;
                    tokio::task::yield_now().await; // other clients get their turn
                }
            }
            Event::Abuse(abuse) => {
                complain(client, abuse);
                connection.abrupt_shutdown(match abuse {
                    Abuse::Beginning => Reason::PROTOCOL_ERROR,
                    _ => Reason::ENHANCE_YOUR_CALM,
                });
                let deadline = client.worker.now() + limits::LINGER;
                let _ = client.until(deadline, |cx| connection.poll_closed(cx)).await;
                return;
            }
            Event::Drain | Event::Idle if state.leaving.is_none() => {
                // RFC 9113 §6.8: first that no more is wanted, then, a round trip later, what was the last.
                connection.graceful_shutdown();
                state.leaving = Some(client.worker.now() + limits::H2_GOODBYE);
            }
            Event::Drain | Event::Idle | Event::End => return,
        }
    }
}

fn poll_event(
    client: &Client,
    connection: &mut Connection<Wire<Shared>, Bytes>,
    guard: &Guard,
    state: &mut State,
    cx: &mut Context<'_>,
) -> Poll<Event> {
    let accepted = connection.poll_accept(cx);
    if let Some(abuse) = guard.abuse.get() {
        return Poll::Ready(Event::Abuse(abuse));
    }
    match accepted {
        Poll::Ready(Some(Ok((request, send)))) => return Poll::Ready(Event::Stream(request, send)),
        Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(Event::End),
        Poll::Pending => {}
    }
    let plan = client.front.plan();
    let now = client.worker.now();
    if state.open.get() > 0 {
        state.idle_since = now;
    }
    let deadline = match state.leaving {
        None if client.worker.sends_away(client.ebbs) || plan.removed => return Poll::Ready(Event::Drain),
        None => state.idle_since + plan.plan.timeout.keep_alive,
        Some(deadline) => deadline.max(state.idle_since + limits::H2_GOODBYE),
    };
    client.poll_deadline(deadline, cx).map(|Late| Event::Idle)
}

/// Has a stream served, by a task of its own.
fn accept(
    client: &Rc<Client>,
    request: http::Request<RecvStream>,
    mut send: SendResponse<Bytes>,
    open: &Rc<Cell<u32>>,
) {
    // Whoever asks and cancels in one breath is asking nothing: no rule, no server and no task sees it.
    if send.poll_reset(&mut Context::from_waker(Waker::noop())).is_ready() {
        return fail(client, *b"CR");
    }
    match StreamIo::accepted(request, send) {
        Ok(io) => {
            let stream = Client::stream(client.clone(), Io::stream(io));
            let place = Open::new(open.clone());
            tokio::task::spawn_local(async move {
                session::serve(&stream, false).await;
                drop(place);
            });
        }
        Err((mut send, _)) => {
            send.send_reset(Reason::PROTOCOL_ERROR);
            fail(client, *b"PR");
        }
    }
}

/// A request that comes to nothing before it is one.
fn fail(client: &Client, state: [u8; 2]) {
    client.front.counters().errors.add(1);
    let mut account = Account::new(client.worker.now(), 0);
    (account.status, account.state) = (400, state);
    session::log_request(client, &client.front.plan(), &mut account, None);
}

fn complain(client: &Client, abuse: Abuse) {
    client.front.counters().errors.add(1);
    if client.worker.may_complain() {
        let name = &client.front.shared.name;
        tracing::info!("frontend {name}: HTTP/2 connection of {} ended: {abuse}", client.peer);
    }
}

/// One of the open streams of a connection.
struct Open(Rc<Cell<u32>>);

impl Open {
    fn new(count: Rc<Cell<u32>>) -> Open {
        count.set(count.get() + 1);
        Open(count)
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}
