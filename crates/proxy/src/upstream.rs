//! A worker's side of the servers: who gets a request, a place there, a connection to send it on.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use relais_balance::Budget;
use relais_base::Time;
use relais_config::plan::{self, ProxyVersion};
use relais_http::proxy_protocol;
use tokio::net::TcpStream;

use crate::choose::{Chooser, Common};
use crate::client::{Client, Late};
use crate::counters::{BackShared, ServerCounters, ServerShared, Waiter, lock};
use crate::gone::Gone;
use crate::h2::upstream::Links;
use crate::io::Io;
use crate::limits;
use crate::pages::Pages;
use crate::persist::Sticks;
use crate::rules::Rules;
use crate::source;
use crate::stick::Sticky;
use crate::tls;
use crate::worker::Worker;

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

    /// `scale` times its weight, or less while it starts slowly.
    pub(crate) fn weight_now(&self, scale: u16) -> u16 {
        let (ramp, agent) = (self.shared.ramp.load(Relaxed), self.shared.agent.load(Relaxed));
        match u32::from(self.plan.weight) * u32::from(scale) * u32::from(agent) {
            0 => 0,
            full => (full / 100 * u32::from(ramp) / 100).max(1) as u16,
        }
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
        if idle.len() < limits::IDLE_PER_SERVER && self.shared.serves() {
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
        let up = self.shared.serves();
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
    pub(crate) chooser: Chooser,
    /// How clients stay with their servers.
    pub(crate) sticks: Option<Arc<Sticks>>,
    /// Likewise, by a table.
    pub(crate) sticky: Option<Sticky>,
    has_backup: bool,
    /// What this worker may repeat.
    budget: Option<Cell<Budget>>,
    hedges: Option<Cell<Budget>>,
}

/// Who serves: backups only while nobody else is up.
#[derive(Clone, Copy)]
enum Tier {
    Primary,
    /// This backup.
    Only(usize),
    /// Every backup.
    Backup,
}

impl Backend {
    /// `place`: the worker's number, and of how many.
    pub(crate) fn new(
        plan: plan::Backend,
        shared: Arc<BackShared>,
        servers: Vec<Rc<Server>>,
        pages: Pages,
        rules: Option<Arc<Rules>>,
        common: Arc<Common>,
        place: (usize, usize),
    ) -> Backend {
        let chooser = Chooser::new(&plan, common, &shared, place.0, place.1);
        let has_backup = plan.servers.iter().any(|server| server.backup);
        Backend {
            plan,
            shared,
            servers,
            pages,
            rules: RefCell::new(rules),
            chooser,
            sticks: None,
            sticky: None,
            has_backup,
            budget: None,
            hedges: None,
        }
    }

    /// Limits what this worker repeats, from now on.
    pub(crate) fn save(&mut self, now: Time) {
        let budget = |percent| Cell::new(Budget::new(percent, now));
        self.budget = self.plan.retry_budget.map(budget);
        self.hedges = self.plan.hedge.map(|hedge| budget(hedge.budget));
    }

    /// There is a request.
    pub(crate) fn count_request(&self) {
        for budget in self.budget.iter().chain(&self.hedges) {
            let mut now = budget.get();
            now.request();
            budget.set(now);
        }
    }

    /// A place at another server than this one, which is slow; then it has to be asked, too.
    pub(crate) fn hedge(self: &Rc<Self>, client: &Client, key: Option<u64>, slow: usize) -> Option<Lease> {
        let mut tried = Tried::default();
        tried.add(slow);
        let lease = self.pick(&client.worker, key, tried)?;
        let is_other = lease.index != slow && (!lease.server().plan.backup || self.servers[slow].plan.backup);
        (is_other && spend(self.hedges.as_ref()?, client.worker.now())).then_some(lease)
    }

    /// Whether a request may be repeated; then it has to be.
    pub(crate) fn may_repeat(&self, now: Time) -> bool {
        self.budget.as_ref().is_none_or(|budget| spend(budget, now))
    }

    /// Requests or connections that its servers have now.
    pub(crate) fn active(&self) -> u32 {
        self.shared.active.load(Relaxed)
    }

    /// A place at a server outside `tried`, if there is one just now. `key`: the hash that decides, if one does.
    pub(crate) fn pick(self: &Rc<Self>, worker: &Worker, key: Option<u64>, tried: Tried) -> Option<Lease> {
        let tier = self.tier(tried);
        let eligible =
            |i: usize| self.counts(i, tried, tier) && self.shared.has_place(&self.servers[i].shared);
        let index = self.chooser.pick(&self.shared, &self.servers, worker, key, eligible)?;
        Some(Lease { backend: self.clone(), index })
    }

    /// Which servers are for requests that `tried` have failed.
    fn tier(&self, tried: Tried) -> Tier {
        let serves = |i: &usize| self.gets(*i, tried);
        let all = 0..self.servers.len();
        if !self.has_backup || all.clone().any(|i| serves(&i) && !self.servers[i].plan.backup) {
            return Tier::Primary;
        }
        match all.clone().find(serves) {
            Some(first) if !self.plan.all_backups => Tier::Only(first),
            _ => Tier::Backup,
        }
    }

    fn gets(&self, index: usize, tried: Tried) -> bool {
        let server = &self.servers[index];
        server.shared.serves() && server.shared.is_open() && server.plan.weight > 0 && !tried.has(index)
    }

    fn counts(&self, index: usize, tried: Tried, tier: Tier) -> bool {
        let backup = self.servers[index].plan.backup;
        self.gets(index, tried)
            && match tier {
                Tier::Primary => !backup,
                Tier::Only(only) => index == only,
                Tier::Backup => backup,
            }
    }

    /// Whether any server outside `tried` is up and gets requests.
    pub(crate) fn has_server(&self, tried: Tried) -> bool {
        (0..self.servers.len()).any(|i| self.gets(i, tried))
    }

    /// A place that is free just now; or who waits for one; or nothing, where no server is up.
    fn at_once(
        self: &Rc<Self>,
        client: &Client,
        key: Option<u64>,
        tried: Tried,
        (stuck, rank): (Option<usize>, plan::Rank),
    ) -> Result<Lease, Option<Arc<Waiter>>> {
        let stuck = stuck.filter(|i| self.servers[*i].shared.serves() && !tried.has(*i));
        if let Some(index) = stuck {
            let server = &self.servers[index].shared;
            if self.shared.enter(server) {
                self.chooser.load_changed(index, server);
                return Ok(Lease { backend: self.clone(), index });
            }
        } else if self.shared.queued.load(Relaxed) == 0
            && let Some(lease) = self.pick(&client.worker, key, tried)
        {
            return Ok(lease);
        }
        if stuck.is_none() && !self.has_server(Tried::default()) {
            return Err(None);
        }
        // Who is stuck waits for its server alone, while that is up.
        let avoids = |i: usize| stuck.map_or(tried.has(i), |stuck| i != stuck);
        let avoided = self.servers.iter().enumerate().filter(|(i, _)| avoids(*i));
        let avoid = avoided.map(|(_, server)| server.shared.id).collect();
        Err(Some(Arc::new(Waiter { avoid, rank, ..Waiter::default() })))
    }

    /// A place at a server outside `tried`: at once, or by waiting in the queue. `key`: the hash that decides, if one does.
    /// The server, by index, that the client is to stay with while it is up; and before whom it waits.
    ///
    /// # Errors
    /// If no server is up, the queue is full, or its time-out is over.
    pub(crate) async fn acquire(
        self: &Rc<Self>,
        client: &Client,
        key: Option<u64>,
        tried: Tried,
        (stuck, rank): (Option<usize>, plan::Rank),
    ) -> Result<Place, NoPlace> {
        let waiter = match self.at_once(client, key, tried, (stuck, rank)) {
            Ok(lease) => return Ok(Place { lease, queued: 0, waited: false }),
            Err(None) => return Err(NoPlace::NoServer),
            Err(Some(waiter)) => waiter,
        };
        let wait = Queued { backend: self, waiter };
        let most = self.plan.max_queue.unwrap_or(u32::MAX);
        let before = self.shared.wait(&wait.waiter, most).map_err(|queued| NoPlace::Full { queued })?;
        let queued = before + 1; // as HAProxy counts: 0 is said by those that did not wait
        let deadline = client.worker.now() + self.plan.timeout.queue;
        let mut gone = Gone::new(&client.io, self.plan.abort_on_close);
        let granted = |cx: &mut Context<'_>| {
            *lock(&wait.waiter.waker) = Some(cx.waker().clone());
            match lock(&wait.waiter.granted).take() {
                Some(server) => Poll::Ready(Some(server)),
                None => gone.poll(cx).map(|()| None),
            }
        };
        let granted = client.until(deadline, granted).await.map_err(|Late| NoPlace::Late { queued })?;
        let server = granted.ok_or(NoPlace::Gone { queued })?;
        match self.servers.iter().position(|s| Arc::ptr_eq(&s.shared, &server)) {
            Some(index) => {
                self.chooser.load_changed(index, &server);
                Ok(Place { lease: Lease { backend: self.clone(), index }, queued, waited: true })
            }
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
    /// The client does not want it any more.
    Gone { queued: u32 },
}

/// Whether the budget has one left; then it is taken.
fn spend(budget: &Cell<Budget>, now: Time) -> bool {
    let mut left = budget.get();
    let may = left.retry(now);
    budget.set(left);
    may
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
        let server = &self.server().shared;
        self.backend.shared.leave(server);
        self.backend.chooser.load_changed(self.index, server);
    }
}

/// Why there is no connection.
pub(crate) enum NoConnection {
    Failed(io::Error),
    Late,
    /// The checks took the server out while we waited.
    Down,
    /// The client does not want it any more.
    Gone,
}

/// Connects to a server within the connect time-out.
pub(crate) async fn connect(client: &Client, backend: &Backend, server: &Server) -> Result<Io, NoConnection> {
    let deadline = client.worker.now() + backend.plan.timeout.connect;
    let attempt = dial(client, server);
    let mut attempt = std::pin::pin!(attempt);
    client.wait_for(server.shared.id);
    let mut gone = Gone::new(&client.io, backend.plan.abort_on_close);
    let result = client
        .until(deadline, |cx| match attempt.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result.map_err(NoConnection::Failed)),
            Poll::Pending if !server.shared.serves() => Poll::Ready(Err(NoConnection::Down)),
            Poll::Pending => gone.poll(cx).map(|()| Err(NoConnection::Gone)),
        })
        .await;
    client.wait_for(0);
    let io = result.map_err(|Late| NoConnection::Late)??;
    io.set_nodelay(true).map_err(NoConnection::Failed)?;
    if let Some(version) = server.plan.send_proxy {
        introduce(client, &io, version).map_err(NoConnection::Failed)?;
    }
    let Some(tls) = &server.tls else { return Ok(Io::Plain(io)) };
    let stream = tls.open(io, server.plan.address.ip(), server.plan.http2).map_err(io::Error::other);
    let stream = stream.map_err(NoConnection::Failed)?;
    let result = client
        .until(deadline, |cx| match stream.poll_handshake(cx) {
            Poll::Ready(result) => Poll::Ready(result.map_err(|error| {
                NoConnection::Failed(io::Error::new(error.kind(), format!("TLS: {error}")))
            })),
            Poll::Pending => gone.poll(cx).map(|()| Err(NoConnection::Gone)),
        })
        .await;
    result.map_err(|Late| NoConnection::Late)??;
    Ok(Io::tls_over(stream))
}

/// How a failed connection is logged: by who could not, the server or this machine.
pub(crate) fn state_of(error: &io::Error) -> [u8; 2] {
    use rustix::io::Errno;
    let ours = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM, Errno::ADDRNOTAVAIL, Errno::AGAIN];
    let is_ours = error.raw_os_error().is_some_and(|code| ours.iter().any(|e| e.raw_os_error() == code));
    if is_ours { *b"RC" } else { *b"SC" }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_has_run_out_of_is_no_fault_of_the_server() {
        let state = |errno: rustix::io::Errno| state_of(&errno.into());
        assert_eq!(state(rustix::io::Errno::MFILE), *b"RC");
        assert_eq!(state(rustix::io::Errno::ADDRNOTAVAIL), *b"RC", "no port of ours is free");
        assert_eq!(state(rustix::io::Errno::CONNREFUSED), *b"SC");
        assert_eq!(state_of(&io::ErrorKind::InvalidData.into()), *b"SC", "TLS");
    }
}
