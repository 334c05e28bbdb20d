//! A worker's HTTP/2 connections to one server: each carries many requests at a time.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::{future::Future, io};

use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use relais_base::Time;

use super::stream::StreamIo;
use super::wire::{Socket, Wire};
use crate::client::{Client, Late};
use crate::gone::Gone;
use crate::io::Io;
use crate::limits;
use crate::upstream::{self, Backend, NoConnection, Server};
use crate::worker::Worker;

/// The connections of one worker to one server.
#[derive(Default)]
pub(crate) struct Links {
    links: RefCell<Vec<Connected>>,
    /// A connection is being made; who needs one waits for it.
    connecting: Cell<bool>,
    waiting: RefCell<Vec<Waker>>,
    /// In its last handshake the server agreed on HTTP/1.1 (RFC 7301), so one connection carries one request.
    only_h1: Cell<bool>,
}

struct Connected {
    send: SendRequest<Bytes>,
    state: Rc<State>,
}

/// What the pool, the streams and the driver of a connection share.
struct State {
    open: Cell<u32>,
    /// Since when no stream is open.
    idle_since: Cell<Time>,
    /// It takes no new streams.
    over: Cell<bool>,
    tls: bool,
}

/// A stream's place on its connection; given back when dropped.
pub(crate) struct Link {
    state: Rc<State>,
    worker: Rc<Worker>,
    /// Whether the connection is encrypted.
    pub(super) tls: bool,
}

impl Link {
    fn new(state: Rc<State>, worker: Rc<Worker>) -> Link {
        state.open.set(state.open.get() + 1);
        Link { tls: state.tls, state, worker }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.state.open.set(self.state.open.get() - 1);
        self.state.idle_since.set(self.worker.now());
    }
}

impl Links {
    /// Lets go of connections that are over, or idle for long; of all where the server is down.
    pub(crate) fn sweep(&self, up: bool, now: Time) {
        self.links.borrow_mut().retain(|link| {
            let state = &link.state;
            let old = state.open.get() == 0 && now.since(state.idle_since.get()) >= limits::IDLE_FOR;
            up && !old && !state.over.get()
        });
    }

    /// A connection with room for one more stream.
    fn find(&self, most: u32) -> Option<(SendRequest<Bytes>, Rc<State>)> {
        let links = self.links.borrow();
        let open = |link: &&Connected| link.state.open.get();
        let usable = links.iter().filter(|link| !link.state.over.get());
        let room = |link: &&Connected| {
            open(link) < most && (open(link) as usize) < link.send.current_max_send_streams()
        };
        let full = links.len() >= limits::H2_LINKS;
        let best = usable.clone().find(room).or_else(|| full.then(|| usable.min_by_key(open)).flatten())?;
        Some((best.send.clone(), best.state.clone()))
    }
}

/// While this lives, others wait for the connection that is being made.
struct Connecting<'a>(&'a Links);

impl Drop for Connecting<'_> {
    fn drop(&mut self) {
        self.0.connecting.set(false);
        self.0.waiting.borrow_mut().drain(..).for_each(Waker::wake);
    }
}

/// A stream to the server, within the connect time-out, and whether its connection was there before. A connection
/// of HTTP/1.1 instead, if that is what the server agrees on in the handshake.
///
/// # Errors
/// If there is no connection, or it has no room in time.
pub(crate) async fn open(
    client: &Client,
    backend: &Backend,
    server: &Server,
) -> Result<(Io, bool), NoConnection> {
    let deadline = client.worker.now() + backend.plan.timeout.connect;
    let links = &server.links;
    let mut gone = Gone::new(&client.io, backend.plan.abort_on_close);
    let mut reused = true;
    loop {
        if let Some((mut send, state)) = links.find(server.plan.max_concurrent_streams) {
            let ready = |cx: &mut std::task::Context<'_>| match send.poll_ready(cx) {
                Poll::Ready(result) => Poll::Ready(Some(result)),
                Poll::Pending => gone.poll(cx).map(|()| None),
            };
            match client.until(deadline, ready).await {
                Ok(None) => return Err(NoConnection::Gone),
                Ok(Some(Ok(()))) => {
                    let link = Link::new(state, client.worker.clone());
                    return Ok((Io::stream(StreamIo::to_server(send, link)), reused));
                }
                Ok(Some(Err(_))) => state.over.set(true),
                Err(Late) => return Err(NoConnection::Late),
            }
            continue;
        }
        if links.connecting.get() && !links.only_h1.get() {
            let made = |cx: &mut std::task::Context<'_>| {
                if !links.connecting.get() {
                    return Poll::Ready(Ok(()));
                }
                links.waiting.borrow_mut().push(cx.waker().clone());
                gone.poll(cx).map(|()| Err(NoConnection::Gone))
            };
            client.until(deadline, made).await.map_err(|Late| NoConnection::Late)??;
            if links.find(server.plan.max_concurrent_streams).is_none() && !server.shared.serves() {
                return Err(NoConnection::Down);
            }
            continue;
        }
        links.connecting.set(true);
        let _connecting = Connecting(links);
        let io = upstream::connect(client, backend, server).await?;
        let only_h1 = io.tls().is_some_and(|tls| !tls.agreed_on_h2());
        if links.only_h1.replace(only_h1) != only_h1 && only_h1 && client.worker.may_complain() {
            let (backend, name) = (&server.shared.backend, &server.shared.name);
            tracing::warn!("backend {backend}: server {name} has `proto=h2` but agreed on HTTP/1.1 only");
        }
        if only_h1 {
            return Ok((io, false));
        }
        let connected = handshake(client, io, deadline).await?;
        links.links.borrow_mut().push(connected);
        reused = false;
    }
}

/// Our own end of a connection.
struct Own {
    io: Io,
    worker: Rc<Worker>,
}

impl Socket for Own {
    fn io(&self) -> &Io {
        &self.io
    }

    fn worker(&self) -> &Worker {
        &self.worker
    }
}

async fn handshake(client: &Client, io: Io, deadline: Time) -> Result<Connected, NoConnection> {
    let worker = client.worker.clone();
    let tls = io.plain().is_none();
    let wire = Wire::new(Own { io, worker: worker.clone() }, None, None);
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(limits::H2_SERVER_WINDOW)
        .initial_connection_window_size(limits::H2_SERVER_CONNECTION_WINDOW)
        .max_header_list_size(limits::H2_HEADER_LIST)
        .max_send_buffer_size(limits::H2_SEND_BYTES)
        .max_local_error_reset_streams(None);
    let mut handshake = pin!(builder.handshake(wire));
    let result = client.until(deadline, |cx| handshake.as_mut().poll(cx)).await;
    let (send, mut connection) = match result {
        Err(Late) => return Err(NoConnection::Late),
        Ok(Err(error)) => {
            return Err(NoConnection::Failed(
                error.into_io().unwrap_or_else(|| io::ErrorKind::InvalidData.into()),
            ));
        }
        Ok(Ok(pair)) => pair,
    };
    let state = Rc::new(State {
        open: Cell::new(0),
        idle_since: Cell::new(worker.now()),
        over: Cell::new(false),
        tls,
    });
    let pings = connection.ping_pong();
    tokio::task::spawn_local(drive(worker, connection, pings, state.clone()));
    Ok(Connected { send, state })
}

/// Drives a connection until it ends, or its server answers no PING.
async fn drive(
    worker: Rc<Worker>,
    connection: Connection<Wire<Own>, Bytes>,
    mut pings: Option<PingPong>,
    state: Rc<State>,
) {
    let mut connection = pin!(connection);
    let mut tick = tokio::time::interval(limits::H2_PING_EVERY);
    tick.reset();
    let mut awaited = false;
    poll_fn(|cx| {
        worker.tick();
        if connection.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(pings) = &mut pings else { return Poll::Pending };
        if awaited && pings.poll_pong(cx).is_ready() {
            awaited = false;
        }
        while tick.poll_tick(cx).is_ready() {
            if awaited {
                return Poll::Ready(()); // dead; its streams hear of it as the connection is dropped
            }
            if state.open.get() > 0 {
                awaited = pings.send_ping(Ping::opaque()).is_ok();
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    })
    .await;
    state.over.set(true);
}
