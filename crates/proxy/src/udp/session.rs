//! A session: a client port, and the socket towards the server that has it.
//!
//! What a client sent is *held* until the server says something, so that it can go to another server: at once if
//! nobody listens at this one (ICMP says so, and the socket with `ECONNREFUSED`), and with `redispatch` also if this
//! one stays silent. A datagram that a server has answered is never repeated.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, Waker};

use nix::sys::socket::MsgFlags;
use relais_base::Time;
use socket2::{Domain, Socket, Type};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{Door, Ends, packet};
use crate::access::{Entry, Kind, Noted, Sessions, Times};
use crate::counters::Pass;
use crate::limits;
use crate::timer::SlotId;
use crate::upstream::{Backend, Lease, Server, Tried};
use crate::worker::{Front, FrontPlan, Worker};

/// How a session ended, in the letters of HAProxy's termination state.
type End = [u8; 2];

const DONE: End = *b"--";
/// The server was silent until the time-out.
const SILENT: End = *b"sD";
/// No server is left that could have it.
const NO_SERVER: End = *b"SC";
/// Every server has as many sessions as it may.
const NO_PLACE: End = *b"PQ";
/// No descriptor for a socket.
const NO_SOCKET: End = *b"RC";
/// The checks took its server out, and nothing was held that another could answer.
const TAKEN_OUT: End = *b"DD";

pub(super) struct Session {
    worker: Rc<Worker>,
    door: Rc<Door>,
    ends: Ends,
    front: Rc<Front>,
    plan: Rc<FrontPlan>,
    backend: Rc<Backend>,
    began: Time,
    slot: SlotId,
    state: RefCell<State>,
    _places: (Pass, Pass),
}

#[derive(Default)]
struct State {
    /// The server that has it, and the socket there.
    upstream: Option<(Lease, Rc<Upstream>)>,
    /// The one that was tried last.
    server: Option<Rc<Server>>,
    tried: Tried,
    /// Datagrams that wait for a word of the server, and since when.
    held: Vec<Box<[u8]>>,
    held_since: Time,
    /// Those that wait likewise and are not here: too long, or too many.
    unheld: u64,
    asked: u64,
    answered: u64,
    bytes: [u64; 2],
    retries: u32,
    last: Time,
    waker: Option<Waker>,
    ended: bool,
}

/// A connected socket.
type Upstream = AsyncFd<OwnedFd>;

/// What came of looking for a datagram of the server's.
enum Heard {
    /// There may be another.
    More,
    /// There is none now.
    Nothing,
    /// The session has ended, or another server has it.
    Last,
}

impl State {
    /// Whether this socket is the session's.
    fn has(&self, socket: &Rc<Upstream>) -> bool {
        self.upstream.as_ref().is_some_and(|(_, ours)| Rc::ptr_eq(ours, socket))
    }

    /// Keeps a datagram in case the server cannot be reached; says whether there is room.
    fn hold(&mut self, bytes: &[u8], now: Time) -> bool {
        if self.held.is_empty() {
            self.held_since = now;
        }
        let held: usize = self.held.iter().map(|datagram| datagram.len()).sum();
        let fits = held + bytes.len() <= limits::UDP_HELD_BYTES && self.held.len() < limits::UDP_HELD;
        if fits {
            self.held.push(bytes.into());
        } else {
            self.unheld += 1;
        }
        fits
    }
}

impl Session {
    /// A session that has no server yet; `None` if the frontend leads nowhere.
    pub(super) fn begin(
        worker: &Rc<Worker>,
        door: &Rc<Door>,
        front: Rc<Front>,
        ends: Ends,
        places: (Pass, Pass),
    ) -> Option<Rc<Session>> {
        let plan = front.plan();
        let backend = plan.backend.clone()?;
        let slot = worker.timers.borrow_mut().insert();
        worker.connections.set(worker.connections.get() + 1);
        front.counters().connections.add(1);
        Some(Rc::new(Session {
            worker: worker.clone(),
            door: door.clone(),
            ends,
            front,
            plan,
            backend,
            began: worker.now(),
            slot,
            state: RefCell::new(State { last: worker.now(), ..State::default() }),
            _places: places,
        }))
    }

    /// Waits for the server, on a task of its own, until the session has ended.
    pub(super) fn run(self: Rc<Self>) {
        if !self.state.borrow().ended {
            tokio::task::spawn_local(self.live());
        }
    }

    /// Has its task look whether it goes on.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.state.borrow().waker {
            waker.wake_by_ref();
        }
    }

    /// Sends a client's datagram to the server.
    pub(super) fn ask(&self, bytes: &[u8]) {
        let (now, counters) = (self.worker.now(), self.front.counters());
        counters.datagrams_in.add(1);
        counters.bytes_in.add(bytes.len() as u64);
        let mut state = self.state.borrow_mut();
        state.asked += 1;
        state.bytes[0] += bytes.len() as u64;
        state.last = now;
        let sent = match &state.upstream {
            Some((lease, socket)) => pass(lease.server(), socket, bytes),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        match sent {
            Err(error) if is_ours(&error) => {
                state.asked -= 1; // there will be no answer to it
                counters.dropped.add(1);
            }
            Ok(()) => {
                state.hold(bytes, now);
                self.arm(&state);
            }
            Err(error) => {
                let unheld = (!state.hold(bytes, now)).then_some(bytes);
                let failed = error.kind() != io::ErrorKind::NotConnected;
                let end = self.move_on(&mut state, failed, unheld);
                self.end_if(&mut state, end);
            }
        }
    }

    /// Has another server, or the first, asked what is held. `failed`: the one so far cannot be reached. `unheld` is
    /// what the client sent just now, if it cannot be held: it is sent once all the same.
    fn move_on(&self, state: &mut State, failed: bool, unheld: Option<&[u8]>) -> Option<End> {
        let mut failed = failed;
        loop {
            let before = state.upstream.take().map(|(lease, _)| lease);
            if let Some(lease) = &before {
                state.tried.add(lease.index());
                lease.server().counters().connect_errors.add(failed.into());
                let nothing = state.held.is_empty() && unheld.is_none();
                if nothing || state.retries >= u32::from(self.backend.plan.retries) {
                    return Some(NO_SERVER);
                }
            }
            let (client, local) = self.ends;
            let key = self
                .backend
                .chooser
                .key_of_addresses(client.ip(), || Some(local.unwrap_or(self.door.address.ip())));
            let Some(lease) = self.backend.pick(&self.worker, key, state.tried) else {
                return Some(if self.backend.has_server(state.tried) { NO_PLACE } else { NO_SERVER });
            };
            if let Some(before) = before {
                state.retries += 1;
                before.server().counters().retries.add(1);
                before.server().counters().redispatches.add(1);
            }
            let server = lease.server().clone();
            state.server = Some(server.clone());
            let Ok(socket) = connect(server.plan.address) else { return Some(NO_SOCKET) };
            server.counters().sessions.add(1);
            self.worker.timers.borrow_mut().wait_for(self.slot, server.shared.id);
            let all = state.held.iter().map(|held| &**held).chain(unheld);
            let mut errors = all.filter_map(|bytes| pass(&server, &socket, bytes).err());
            failed = errors.any(|error| {
                let ours = is_ours(&error);
                self.front.counters().dropped.add(ours.into());
                !ours
            });
            state.upstream = Some((lease, socket));
            state.held_since = self.worker.now();
            if !failed {
                self.arm(state);
                return None;
            }
        }
    }

    /// When nobody has said anything for too long, and whether another server is asked then.
    fn deadline(&self, state: &State) -> (Time, bool) {
        let plan = &self.backend.plan;
        let over = state.last + plan.timeout.session;
        let patience = state.held_since + plan.timeout.server;
        let may = plan.redispatch && !state.held.is_empty() && state.retries < u32::from(plan.retries);
        if !may || patience >= over {
            return (over, false);
        }
        let mut avoid = state.tried;
        state.upstream.iter().for_each(|(lease, _)| avoid.add(lease.index()));
        if self.backend.has_server(avoid) { (patience, true) } else { (over, false) }
    }

    fn arm(&self, state: &State) {
        if let Some(waker) = &state.waker {
            self.worker.timers.borrow_mut().set(self.slot, self.deadline(state).0, waker);
            waker.wake_by_ref(); // it may have another socket to wait on
        }
    }

    /// Whether the server has still to say something.
    fn owes(&self, state: &State) -> bool {
        match self.backend.plan.responses {
            Some(each) => state.answered < u64::from(each) * state.asked,
            None => true,
        }
    }

    /// Carries what the server says, until the session has ended.
    async fn live(self: Rc<Self>) {
        loop {
            let Some(socket) = self.socket() else { return };
            let mut ready = pin!(socket.ready(Interest::READABLE | Interest::ERROR));
            let mut guard = match poll_fn(|cx| self.poll(&socket, ready.as_mut(), cx)).await {
                Some(guard) => guard,
                None => continue, // it has another socket now, or none
            };
            for _ in 0..limits::TURNS {
                match self.hear(&socket) {
                    Heard::More => {}
                    Heard::Nothing => {
                        guard.clear_ready();
                        break;
                    }
                    Heard::Last => break,
                }
            }
        }
    }

    fn socket(&self) -> Option<Rc<Upstream>> {
        self.state.borrow().upstream.as_ref().map(|(_, socket)| socket.clone())
    }

    /// Waits until the server may have said something; `None`: this socket is not the session's any more.
    fn poll<T>(
        &self,
        socket: &Rc<Upstream>,
        ready: Pin<&mut impl Future<Output = io::Result<T>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<T>> {
        self.worker.tick();
        let mut state = self.state.borrow_mut();
        if !state.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            state.waker = Some(cx.waker().clone());
        }
        if !state.has(socket) {
            return Poll::Ready(None);
        }
        if let Some(verdict) = self.look(&mut state) {
            self.end_if(&mut state, verdict);
            return Poll::Ready(None);
        }
        match ready.poll(cx) {
            Poll::Ready(Ok(guard)) => return Poll::Ready(Some(guard)),
            Poll::Ready(Err(_)) => {
                self.end_if(&mut state, Some(NO_SOCKET)); // the runtime is ending
                return Poll::Ready(None);
            }
            Poll::Pending => {}
        }
        let (deadline, another) = self.deadline(&state);
        if self.worker.now() < deadline {
            self.worker.timers.borrow_mut().set(self.slot, deadline, cx.waker());
            return Poll::Pending;
        }
        let end = self.too_late(&mut state, another);
        self.end_if(&mut state, end);
        Poll::Ready(None)
    }

    /// Whether the session may go on as it is; if not, how it ends, or `Some(None)` where it moved on.
    #[allow(clippy::option_option)] // the outer one is whether there is a verdict
    fn look(&self, state: &mut State) -> Option<Option<End>> {
        let up = state.upstream.as_ref().is_some_and(|(lease, _)| lease.server().shared.is_up());
        if !up {
            let end = if state.held.is_empty() { Some(TAKEN_OUT) } else { self.move_on(state, false, None) };
            return Some(end);
        }
        let closing = self.worker.draining.get() || self.door.removed.get();
        (closing && !self.owes(state)).then_some(Some(DONE))
    }

    /// The server has been silent for too long: another is asked, or the session ends.
    fn too_late(&self, state: &mut State, another: bool) -> Option<End> {
        let unanswered = match self.backend.plan.responses {
            Some(_) => self.owes(state),
            None => state.answered == 0,
        };
        if unanswered && let Some((lease, _)) = &state.upstream {
            lease.server().counters().response_errors.add(1);
        }
        match another {
            true => self.move_on(state, false, None),
            false => Some(if unanswered { SILENT } else { DONE }),
        }
    }

    /// Takes one datagram of the server's.
    fn hear(&self, socket: &Rc<Upstream>) -> Heard {
        let mut state = self.state.borrow_mut();
        let Some((lease, _)) = state.upstream.as_ref().filter(|_| state.has(socket)) else {
            return Heard::Last;
        };
        let server = lease.server().clone();
        let came = self.worker.datagram.with(|room| {
            let length = nix::sys::socket::recv(socket.as_raw_fd(), room, MsgFlags::MSG_DONTWAIT)?;
            self.answer(&server, &room[..length]);
            Ok::<_, io::Error>(length)
        });
        let end = match came {
            Ok(length) => self.answered(&mut state, length),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Heard::Nothing,
            Err(error) if is_ours(&error) => None,
            Err(_) => self.move_on(&mut state, true, None), // nobody listens there: "connection refused"
        };
        self.end_if(&mut state, end);
        if state.has(socket) { Heard::More } else { Heard::Last }
    }

    /// Gives the client what the server said, from the address that the client asked.
    fn answer(&self, server: &Server, bytes: &[u8]) {
        let of_server = server.counters();
        of_server.datagrams_out.add(1);
        of_server.bytes_out.add(bytes.len() as u64);
        let counters = self.front.counters();
        match packet::send(self.door.socket.get_ref(), bytes, self.ends.0, self.ends.1) {
            Ok(()) => {
                counters.datagrams_out.add(1);
                counters.bytes_out.add(bytes.len() as u64);
            }
            Err(error) => {
                counters.dropped.add(1);
                if self.worker.may_complain() {
                    let name = &self.front.shared.name;
                    tracing::warn!("frontend {name}: {} cannot be answered: {error}", self.ends.0);
                }
            }
        }
    }

    fn answered(&self, state: &mut State, length: usize) -> Option<End> {
        state.answered += 1;
        state.bytes[1] += length as u64;
        state.last = self.worker.now();
        state.held.clear();
        state.unheld = 0;
        let counted = self.backend.plan.responses.is_some_and(|each| each > 0);
        (counted && !self.owes(state)).then_some(DONE)
    }

    fn end_if(&self, state: &mut State, end: Option<End>) {
        let Some(end) = end else { return };
        state.ended = true;
        if let Some(waker) = state.waker.take() {
            waker.wake();
        }
        self.door.forget(&self.ends);
        if !matches!(end, DONE | SILENT) {
            let waiting = state.held.len() as u64 + state.unheld;
            self.front.counters().dropped.add(waiting);
            if waiting > 0 && matches!(end, NO_SERVER | NO_PLACE) {
                self.backend.shared.unserved[self.worker.index].add(1);
            }
        }
        self.log(state, end);
        state.held = Vec::new();
        state.upstream = None;
    }

    /// Writes the session's access line.
    fn log(&self, state: &State, end: End) {
        let Some(log) = &self.plan.log else { return };
        let worker = &self.worker;
        let at_server = state.server.as_ref().map_or(0, |server| server.shared.active.load(Relaxed));
        let has_place = u32::from(state.upstream.is_some());
        let [bytes_in, bytes_out] = state.bytes;
        let connect = if state.server.is_some() { 0 } else { -1 };
        let entry = Entry {
            client: self.ends.0,
            local: Some(SocketAddr::new(
                self.ends.1.unwrap_or(self.door.address.ip()),
                self.door.address.port(),
            )),
            tls: false,
            date_ms: worker.date_ms(self.began),
            frontend: &self.front.shared.name,
            backend: &self.backend.shared.name,
            server: state.server.as_ref().map(|s| (&*s.shared.name, s.plan.address)),
            times: Times {
                idle: 0,
                request: 0,
                queue: connect,
                connect,
                response: 0,
                total: worker.now().since(self.began).as_millis() as i64,
            },
            bytes_in,
            bytes_out,
            state: end,
            cookie: *b"--",
            sessions: Sessions {
                process: worker.open_everywhere(),
                frontend: self.front.shared.open(),
                // Without this one, as HAProxy counts.
                backend: self.backend.active().saturating_sub(has_place),
                server: at_server.saturating_sub(has_place),
            },
            retries: state.retries,
            redispatched: state.retries > 0,
            server_queue: 0,
            backend_queue: 0,
            request_captures: &[],
            response_captures: &[],
            noted: &Noted::default(),
            request_id: b"",
            traceparent: b"",
            kind: Kind::Tcp,
        };
        log.write(&entry, &mut worker.dates.borrow_mut());
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.worker.timers.borrow_mut().remove(self.slot);
        self.worker.connections.set(self.worker.connections.get() - 1);
    }
}

/// A socket of its own for each session: what comes on it is the answer to nobody else, and its port is one more
/// thing that a forger has to guess (RFC 5452 §9.2).
// Deprecated because a type could change its descriptor while it is watched; an `OwnedFd` cannot.
#[allow(deprecated)]
fn connect(server: SocketAddr) -> io::Result<Rc<Upstream>> {
    let socket = Socket::new(Domain::for_address(server), Type::DGRAM.nonblocking(), None)?;
    socket.connect(&server.into())?;
    // That nobody listens there is an error, and makes nothing readable.
    Ok(Rc::new(AsyncFd::with_interest(socket.into(), Interest::READABLE | Interest::ERROR)?))
}

fn pass(server: &Server, socket: &Upstream, bytes: &[u8]) -> io::Result<()> {
    rustix::net::send(socket, bytes, rustix::net::SendFlags::DONTWAIT)?;
    server.counters().datagrams_in.add(1);
    server.counters().bytes_in.add(bytes.len() as u64);
    Ok(())
}

/// Whether an error says nothing of the server: our socket is full, or the datagram too long for the way there.
fn is_ours(error: &io::Error) -> bool {
    let too_long = rustix::io::Errno::MSGSIZE.raw_os_error();
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
        || error.raw_os_error() == Some(too_long)
}
