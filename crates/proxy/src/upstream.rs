//! A worker's side of the servers: who gets a request, a place there, a connection to send it on.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use relais_balance::RoundRobin;
use relais_base::Time;
use relais_config::plan::{self, ProxyVersion};
use relais_http::proxy_protocol;
use tokio::net::TcpStream;

use crate::client::{Client, Late};
use crate::counters::{BackShared, ServerCounters, ServerShared, Waiter, lock};
use crate::h2::upstream::Links;
use crate::io::Io;
use crate::limits;
use crate::pages::Pages;
use crate::rules::Rules;
use crate::source;
use crate::tls;

/// A server as one plan describes it, with this worker's idle connections to it.
pub(crate) struct Server {
    pub(crate) plan: plan::Server,
    pub(crate) shared: Arc<ServerShared>,
    /// How it is spoken to, if in TLS.
    pub(crate) tls: Option<tls::Connects>,
    worker: usize,
    idle: RefCell<Vec<Idle>>,
    /// Where it speaks HTTP/2.
    pub(crate) links: Links,
}

struct Idle {
    io: Io,
    since: Time,
    /// The client that the server was told it is for; `None`: it is for any.
    whose: Option<SocketAddr>,
}

impl Server {
    pub(crate) fn new(
        plan: plan::Server,
        shared: Arc<ServerShared>,
        worker: usize,
        tls: Option<tls::Connects>,
    ) -> Server {
        Server { plan, shared, tls, worker, idle: RefCell::default(), links: Links::default() }
    }

    /// This worker's counters of it.
    pub(crate) fn counters(&self) -> &ServerCounters {
        &self.shared.workers[self.worker]
    }

    /// The idle connection used last, unless it has been idle for `longest`; dead ones on the way go.
    pub(crate) fn take_idle(&self, client: &Client, longest: Duration) -> Option<Io> {
        let (now, whose) = (client.worker.now(), self.whose(client));
        let mut idle = self.idle.borrow_mut();
        while let Some(last) = idle.iter().rposition(|idle| idle.whose == whose) {
            if now.since(idle[last].since) > longest {
                return None;
            }
            let Idle { io, .. } = idle.remove(last);
            self.shared.idle.fetch_sub(1, Relaxed);
            if io.is_quiet() {
                return Some(io);
            }
        }
        None
    }

    /// Keeps a connection for the next request.
    pub(crate) fn put_idle(&self, io: Io, client: &Client) {
        if io.is_stream() {
            return;
        }
        let mut idle = self.idle.borrow_mut();
        if idle.len() < limits::IDLE_PER_SERVER && self.shared.is_up() {
            self.shared.idle.fetch_add(1, Relaxed);
            idle.push(Idle { io, since: client.worker.now(), whose: self.whose(client) });
        }
    }

    /// Whom a connection of this client's is for.
    fn whose(&self, client: &Client) -> Option<SocketAddr> {
        (self.plan.send_proxy.is_some() || self.plan.source_client).then_some(client.peer)
    }

    /// Closes idle connections that are dead, or old; all of them where the server is down.
    pub(crate) fn sweep(&self, now: Time) {
        let up = self.shared.is_up();
        self.links.sweep(up, now);
        self.idle.borrow_mut().retain(|idle| {
            let keep = up && now.since(idle.since) < limits::IDLE_FOR && idle.io.is_quiet();
            if !keep {
                self.shared.idle.fetch_sub(1, Relaxed);
            }
            keep
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.idle.fetch_sub(self.idle.get_mut().len() as u32, Relaxed);
    }
}

/// A backend as one plan describes it.
pub(crate) struct Backend {
    pub(crate) plan: plan::Backend,
    pub(crate) shared: Arc<BackShared>,
    pub(crate) servers: Vec<Rc<Server>>,
    pub(crate) pages: Pages,
    /// Replaced when their files change.
    pub(crate) rules: RefCell<Option<Arc<Rules>>>,
    turn: RefCell<RoundRobin>,
}

impl Backend {
    pub(crate) fn new(
        plan: plan::Backend,
        shared: Arc<BackShared>,
        servers: Vec<Rc<Server>>,
        pages: Pages,
        rules: Option<Arc<Rules>>,
    ) -> Backend {
        let weights = plan.servers.iter().map(|s| s.weight);
        let turn = RefCell::new(RoundRobin::new(weights));
        Backend { plan, shared, servers, pages, rules: RefCell::new(rules), turn }
    }

    /// Requests or connections that its servers have now.
    pub(crate) fn active(&self) -> u32 {
        self.servers.iter().map(|s| s.shared.active.load(Relaxed)).sum()
    }

    /// A place at a server outside `tried`, if there is one just now.
    pub(crate) fn pick(self: &Rc<Self>, tried: Tried) -> Option<Lease> {
        loop {
            let eligible = |i: usize| {
                let server = &self.servers[i].shared;
                server.is_up() && server.has_place() && !tried.has(i)
            };
            let index = self.turn.borrow_mut().pick(eligible)?;
            if self.servers[index].shared.enter() {
                return Some(Lease { backend: self.clone(), index });
            }
        }
    }

    /// Whether any server outside `tried` is up and gets requests.
    pub(crate) fn has_server(&self, tried: Tried) -> bool {
        let gets = |s: &Server| s.shared.is_up() && s.plan.weight > 0;
        self.servers.iter().enumerate().any(|(i, s)| gets(s) && !tried.has(i))
    }

    /// A place at a server outside `tried`: at once, or by waiting in the queue.
    ///
    /// # Errors
    /// If no server is up, the queue is full, or its time-out is over.
    pub(crate) async fn acquire(self: &Rc<Self>, client: &Client, tried: Tried) -> Result<Place, NoPlace> {
        if self.shared.queued.load(Relaxed) == 0
            && let Some(lease) = self.pick(tried)
        {
            return Ok(Place { lease, queued: 0, waited: false });
        }
        if !self.has_server(Tried::default()) {
            return Err(NoPlace::NoServer);
        }
        let failed = self.servers.iter().enumerate().filter(|(i, _)| tried.has(*i));
        let avoid = failed.map(|(_, s)| s.shared.id).collect();
        let wait = Queued { backend: self, waiter: Arc::new(Waiter { avoid, ..Waiter::default() }) };
        let most = self.plan.max_queue.unwrap_or(u32::MAX);
        let before = self.shared.wait(&wait.waiter, most).map_err(|queued| NoPlace::Full { queued })?;
        let queued = before + 1; // as HAProxy counts: 0 is said by those that did not wait
        let deadline = client.worker.now() + self.plan.timeout.queue;
        let granted = |cx: &mut Context<'_>| {
            *lock(&wait.waiter.waker) = Some(cx.waker().clone());
            match lock(&wait.waiter.granted).take() {
                Some(server) => Poll::Ready(server),
                None => Poll::Pending,
            }
        };
        let server = client.until(deadline, granted).await.map_err(|Late| NoPlace::Late { queued })?;
        match self.servers.iter().position(|s| Arc::ptr_eq(&s.shared, &server)) {
            Some(index) => Ok(Place { lease: Lease { backend: self.clone(), index }, queued, waited: true }),
            None => {
                // A plan of another age granted a server that this one does not have.
                self.shared.leave(&server);
                Err(NoPlace::NoServer)
            }
        }
    }
}

struct Queued<'a> {
    backend: &'a Backend,
    waiter: Arc<Waiter>,
}

impl Drop for Queued<'_> {
    fn drop(&mut self) {
        self.backend.shared.give_up(&self.waiter);
    }
}

/// A place at a server, and how it was come by.
pub(crate) struct Place {
    pub(crate) lease: Lease,
    /// How many waited before.
    pub(crate) queued: u32,
    pub(crate) waited: bool,
}

/// Why there is no place.
pub(crate) enum NoPlace {
    /// No server is up.
    NoServer,
    /// As many wait as may.
    Full { queued: u32 },
    /// The queue time-out is over.
    Late { queued: u32 },
}

/// Servers of a backend that have failed a request, by index; those from 128 on are not remembered.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tried(u128);

impl Tried {
    pub(crate) fn add(&mut self, index: usize) {
        self.0 |= 1u128.checked_shl(index as u32).unwrap_or(0);
    }

    fn has(self, index: usize) -> bool {
        self.0 & 1u128.checked_shl(index as u32).unwrap_or(0) != 0
    }
}

/// A place at a server; given back when dropped.
pub(crate) struct Lease {
    backend: Rc<Backend>,
    index: usize,
}

impl Lease {
    pub(crate) fn server(&self) -> &Rc<Server> {
        &self.backend.servers[self.index]
    }

    pub(crate) fn index(&self) -> usize {
        self.index
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.backend.shared.leave(&self.server().shared);
    }
}

/// Why there is no connection.
pub(crate) enum NoConnection {
    Failed(io::Error),
    Late,
    /// The checks took the server out while we waited.
    Down,
}

/// Connects to a server within the connect time-out.
pub(crate) async fn connect(client: &Client, backend: &Backend, server: &Server) -> Result<Io, NoConnection> {
    let deadline = client.worker.now() + backend.plan.timeout.connect;
    let attempt = dial(client, server);
    let mut attempt = std::pin::pin!(attempt);
    client.wait_for(server.shared.id);
    let result = client
        .until(deadline, |cx| match attempt.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(Some(result)),
            Poll::Pending if !server.shared.is_up() => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        })
        .await;
    client.wait_for(0);
    let io = match result {
        Err(Late) => return Err(NoConnection::Late),
        Ok(None) => return Err(NoConnection::Down),
        Ok(Some(Err(error))) => return Err(NoConnection::Failed(error)),
        Ok(Some(Ok(io))) => io,
    };
    io.set_nodelay(true).map_err(NoConnection::Failed)?;
    if let Some(version) = server.plan.send_proxy {
        introduce(client, &io, version).map_err(NoConnection::Failed)?;
    }
    let Some(tls) = &server.tls else { return Ok(Io::Plain(io)) };
    let stream = tls.open(io, server.plan.address.ip(), server.plan.http2).map_err(io::Error::other);
    let stream = stream.map_err(NoConnection::Failed)?;
    match client.until(deadline, |cx| stream.poll_handshake(cx)).await {
        Err(Late) => Err(NoConnection::Late),
        Ok(Err(error)) => Err(NoConnection::Failed(io::Error::new(error.kind(), format!("TLS: {error}")))),
        Ok(Ok(())) => Ok(Io::tls_over(stream)),
    }
}

async fn dial(client: &Client, server: &Server) -> io::Result<TcpStream> {
    if !server.plan.source_client {
        return TcpStream::connect(server.plan.address).await;
    }
    let socket = source::socket_of(client.peer.ip(), server.plan.address);
    if let Err(error) = &socket
        && client.worker.may_complain()
    {
        let (backend, name) = (&server.shared.backend, &server.shared.name);
        tracing::warn!(
            "backend {backend}: server {name}: {} cannot be the source: {error}",
            client.peer.ip()
        );
    }
    socket?.connect(server.plan.address).await
}

/// Tells a server who the client is. The header fits into any socket's empty buffer.
fn introduce(client: &Client, io: &TcpStream, version: ProxyVersion) -> io::Result<()> {
    let destination = client.local().ok_or(io::ErrorKind::AddrNotAvailable)?;
    let mut header = client.worker.take_scratch();
    match version {
        ProxyVersion::V1 => proxy_protocol::write_v1(client.peer, destination, &mut header),
        ProxyVersion::V2 => proxy_protocol::write_v2(client.peer, destination, None, &mut header),
    }
    let result = match io.try_write(&header) {
        Ok(n) if n == header.len() => Ok(()),
        Ok(_) => Err(io::ErrorKind::WriteZero.into()),
        Err(error) => Err(error),
    };
    client.worker.give_scratch(header);
    result
}
