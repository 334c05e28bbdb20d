//! A client's connection: what stays of it while it idles, and waiting with a deadline.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::rc::Rc;
use std::task::{Context, Poll};

use relais_base::Time;

use crate::buffer::Buffer;
use crate::counters::Pass;
use crate::gone::Gone;
use crate::h2;
use crate::io::Io;
use crate::rules::Limits;
use crate::session;
use crate::timer::SlotId;
use crate::tls;
use crate::worker::{Front, Worker, kernel_patience};

/// The places that a connection takes: at its listener if that has a limit, at its frontend, in the process.
pub(crate) type Places = (Option<Pass>, Pass, Pass);

/// A deadline passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Late;

/// A client's connection.
pub(crate) struct Client {
    pub(crate) worker: Rc<Worker>,
    pub(crate) front: Rc<Front>,
    pub(crate) io: Io,
    /// The client's address: the connection's other end, or what a trusted one says.
    pub(crate) peer: SocketAddr,
    /// [`Worker::ebbs`] when it came.
    pub(crate) ebbs: u16,
    /// When it came, or its last request was done.
    pub(crate) since: Cell<Time>,
    /// What few have.
    rare: Option<Box<Rare>>,
    slot: SlotId,
    /// It has asked rules about a request.
    asked: Cell<bool>,
    /// Its own, or, of a stream, the connection that it is on.
    places: Held,
}

/// What only few connections have; the others pay for none of it.
#[derive(Default)]
struct Rare {
    /// Where it connected to, if a trusted one says.
    destination: Option<SocketAddr>,
    /// What it was let in with, which ends with it.
    #[allow(dead_code)]
    limits: Option<Box<Limits>>,
}

/// What keeps a connection's places at the listener, the frontend and the process.
enum Held {
    Own(#[allow(dead_code)] Places),
    Parent(Rc<Client>),
}

impl Client {
    /// Takes over an accepted connection and its places, which are given back when it ends.
    pub(crate) fn new(
        worker: Rc<Worker>,
        front: Rc<Front>,
        io: Io,
        peer: SocketAddr,
        places: Places,
    ) -> Client {
        worker.tick();
        let slot = worker.timers.borrow_mut().insert();
        worker.connections.set(worker.connections.get() + 1);
        front.counters().connections.add(1);
        let since = Cell::new(worker.now());
        let ebbs = worker.ebbs.get();
        Client {
            worker,
            front,
            io,
            peer,
            ebbs,
            since,
            rare: None,
            slot,
            asked: Cell::new(false),
            places: Held::Own(places),
        }
    }

    /// A stream of an HTTP/2 connection, which keeps that connection's places.
    pub(crate) fn stream(parent: Rc<Client>, io: Io) -> Client {
        let (worker, front) = (parent.worker.clone(), parent.front.clone());
        let slot = worker.timers.borrow_mut().insert();
        let (peer, since) = (parent.peer, Cell::new(worker.now()));
        let asked = Cell::new(false);
        let ebbs = parent.ebbs;
        Client { worker, front, io, peer, ebbs, since, rare: None, slot, asked, places: Held::Parent(parent) }
    }

    /// Notes where it connected to, as a trusted one says.
    pub(crate) fn connected_to(&mut self, destination: SocketAddr) {
        self.rare.get_or_insert_default().destination = Some(destination);
    }

    /// Keeps for as long as it lives what it was let in with.
    pub(crate) fn keep(&mut self, limits: Option<Box<Limits>>) {
        if limits.is_some() {
            self.rare.get_or_insert_default().limits = limits;
        }
    }

    /// Ends its connection so that it does not hear of it, if it is behind a router; see [`crate::io::reject`].
    pub(crate) fn vanish(&self) {
        let connection = self.connection();
        if let Some(socket) = connection.io.socket() {
            crate::io::reject(socket, true);
            // Its other streams end, too.
            let _ = rustix::net::shutdown(socket, rustix::net::Shutdown::Both);
        }
        connection.io.end_in_reset();
    }

    /// Waits before it is denied or goes on, unless too many do; `false`: it has gone meanwhile. `at_end`: see [`Gone`].
    pub(crate) async fn hold(&self, time: std::time::Duration, at_end: bool) -> bool {
        let Some(_place) = Pass::if_free(&self.worker.tarpits) else { return true };
        let deadline = self.worker.now() + time;
        let mut gone = Gone::new(&self.io, at_end);
        self.until(deadline, |cx| gone.poll(cx)).await.is_err()
    }

    fn connection(&self) -> &Client {
        match &self.places {
            Held::Own(_) => self,
            Held::Parent(parent) => parent,
        }
    }

    /// Whether what rules are asked about is its connection's first request.
    pub(crate) fn is_first(&self) -> bool {
        !self.connection().asked.get()
    }

    /// Rules have been asked about a request of its connection.
    pub(crate) fn was_asked(&self) {
        self.connection().asked.set(true);
    }

    /// What TLS knows of the connection; a stream speaks it if its connection does.
    pub(crate) fn tls(&self) -> Option<&tls::Stream> {
        match &self.places {
            Held::Own(_) => self.io.tls(),
            Held::Parent(parent) => parent.io.tls(),
        }
    }

    /// Where it connected to, or where a trusted one says that it did; a system call.
    pub(crate) fn local(&self) -> Option<SocketAddr> {
        if let Some(said) = self.rare.as_ref().and_then(|rare| rare.destination) {
            return Some(said);
        }
        if let Held::Parent(parent) = &self.places {
            return parent.local();
        }
        let address = rustix::net::getsockname(self.io.socket()?).ok()?;
        SocketAddr::try_from(address).ok()
    }

    /// Has the kernel bear with the client for longer than its frontend says.
    pub(crate) fn be_patient(&self, patience: std::time::Duration) {
        let io = match &self.places {
            Held::Own(_) => &self.io,
            Held::Parent(parent) => &parent.io,
        };
        if let Some(socket) = io.socket() {
            kernel_patience(socket, patience);
        }
    }

    /// What `poll` is ready with, or that `deadline` came first.
    // Not an `async fn`, and neither is `drive`: an idle connection would hold its arguments twice over.
    pub(crate) fn until<'a, T>(
        &'a self,
        deadline: Time,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T> + 'a,
    ) -> impl Future<Output = Result<T, Late>> + 'a {
        self.drive(move |cx| {
            if let Poll::Ready(done) = poll(cx) {
                return Poll::Ready(Ok(done));
            }
            self.poll_deadline(deadline, cx).map(Err)
        })
    }

    /// What `poll` is ready with. Every wait of a connection ends in here, and so the worker's clock is set
    /// whenever one goes on: [`Worker::now`] needs no look at a clock of its own.
    pub(crate) fn drive<'a, T>(
        &'a self,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T> + 'a,
    ) -> impl Future<Output = T> + 'a {
        poll_fn(move |cx| {
            self.worker.tick();
            poll(cx)
        })
    }

    /// Ready once `deadline` has passed.
    pub(crate) fn poll_deadline(&self, deadline: Time, cx: &mut Context<'_>) -> Poll<Late> {
        if self.worker.now() >= deadline {
            return Poll::Ready(Late);
        }
        self.worker.timers.borrow_mut().set(self.slot, deadline, cx.waker());
        Poll::Pending
    }

    /// Notes the server that this connection waits for, so that it hears when the checks take it out; 0: none.
    pub(crate) fn wait_for(&self, server: u32) {
        self.worker.timers.borrow_mut().wait_for(self.slot, server);
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.worker.timers.borrow_mut().remove(self.slot);
        if matches!(self.places, Held::Parent(_)) {
            return;
        }
        self.worker.connections.set(self.worker.connections.get() - 1);
    }
}

/// What becomes of a connection after a burst of requests.
pub(crate) enum Then {
    /// It waits for the next request.
    Idle,
    /// It ends.
    Close,
    /// It speaks HTTP/2, of which these are the first bytes.
    Http2(Buffer),
}

/// The life of an HTTP connection. This future is what an idle connection costs: what a request needs is
/// boxed when its first byte is there, and goes when the connection idles again.
// Not an `async fn`: that would hold the client twice, as an argument and as a variable.
#[allow(clippy::manual_async_fn)]
pub(crate) fn http(client: Client) -> impl Future<Output = ()> {
    async move {
        if client.io.tls().is_some() && !Box::pin(session::handshake(&client)).await {
            return;
        }
        if client.io.tls().is_some_and(tls::Stream::agreed_on_h2) {
            let early = client.worker.take_buffer();
            return Box::pin(h2::server::run(client, early)).await;
        }
        let mut deadline = client.worker.now() + client.front.plan().plan.timeout.request;
        let mut first = true;
        loop {
            let readable = client.until(deadline, |cx| client.io.poll_read_ready(cx)).await;
            if !matches!(readable, Ok(Ok(()))) {
                return;
            }
            match Box::pin(session::serve(&client, first)).await {
                Then::Idle => first = false,
                Then::Close => return,
                Then::Http2(early) => return Box::pin(h2::server::run(client, early)).await,
            }
            deadline = client.worker.now() + client.front.plan().plan.timeout.keep_alive;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size_of_future<F, A>(_: impl FnOnce(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn an_idle_connection_is_a_future_of_at_most_384_bytes() {
        let size = size_of_future(http);
        assert!(size <= 384, "{size} bytes");
    }
}
