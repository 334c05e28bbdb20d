//! UDP mode: datagrams of one client port to one of our addresses are a *session*, which one server has until it
//! ends. Here: the sockets that clients send to, and which session a datagram belongs to. What a session does is
//! [`session`]'s; both addresses of a datagram are [`packet`]'s.
//!
//! Not here: the sockets' making (`relais`), which server it is (`upstream`). The life of a session stands in
//! `LIFECYCLE.md`.

mod packet;
mod session;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::{Rc, Weak};

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::counters::Pass;
use crate::limits;
use crate::worker::{Front, Worker};
use session::Session;

/// Who sent a datagram, and which of our addresses it was sent to, where the socket has several.
type Ends = (SocketAddr, Option<IpAddr>);

/// A worker's socket for one bind, and the sessions that came in there.
pub(crate) struct Door {
    socket: AsyncFd<OwnedFd>,
    /// Where it is bound.
    address: SocketAddr,
    front: RefCell<Rc<Front>>,
    /// Each is held by its own task.
    sessions: RefCell<HashMap<Ends, Weak<Session>>>,
    /// It is open for its sessions alone. As long as it is, the kernel gives it a share of what comes, even beside the
    /// socket of a later plan: it is read until the last of them has ended.
    removed: Cell<bool>,
    /// What waits in it is not for this process.
    left: Cell<bool>,
    changed: tokio::sync::Notify,
}

/// Room for one datagram, shared by everything on a thread: it is only used between two waits.
#[derive(Default)]
pub(crate) struct Room(RefCell<Vec<u8>>);

impl Room {
    fn with<T>(&self, use_it: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut room = self.0.borrow_mut();
        room.resize(packet::LONGEST, 0); // once; a worker without UDP does not have it
        use_it(&mut room)
    }
}

impl Door {
    /// Takes datagrams of clients on `socket` from here on.
    ///
    /// # Errors
    /// If the kernel refuses to watch it.
    // Deprecated because a type could change its descriptor while it is watched; an `OwnedFd` cannot.
    #[allow(deprecated)]
    pub(crate) fn open(
        worker: &Rc<Worker>,
        socket: OwnedFd,
        address: SocketAddr,
        front: Rc<Front>,
    ) -> io::Result<Rc<Door>> {
        rustix::io::ioctl_fionbio(&socket, true)?;
        packet::tell_destinations(&socket, address)?;
        let door = Rc::new(Door {
            socket: AsyncFd::with_interest(socket, Interest::READABLE)?,
            address,
            front: RefCell::new(front),
            sessions: RefCell::default(),
            removed: Cell::new(false),
            left: Cell::new(false),
            changed: tokio::sync::Notify::new(),
        });
        tokio::task::spawn_local(receive(worker.clone(), door.clone()));
        Ok(door)
    }

    /// New sessions are this frontend's.
    pub(crate) fn belongs_to(&self, front: Rc<Front>) {
        *self.front.borrow_mut() = front;
    }

    /// The plan in force does not have it any more. Sessions go on until nothing is owed.
    pub(crate) fn remove(&self) {
        self.removed.set(true);
        self.changed.notify_one();
        self.wake();
    }

    /// Another process takes what comes from here on.
    pub(crate) fn leave(&self) {
        self.left.set(true);
        self.remove();
    }

    /// Has every session look whether it goes on.
    pub(crate) fn wake(&self) {
        let sessions: Vec<_> = self.sessions.borrow().values().filter_map(Weak::upgrade).collect();
        sessions.iter().for_each(|session| session.wake());
    }

    /// Whether new sessions may come in here: it is in the plan, or is again.
    fn is_wanted(&self, front: &Front) -> bool {
        let plan = front.plan();
        let bound = || plan.plan.binds.iter().any(|bind| bind.address == self.address);
        !self.removed.get() || (!plan.removed && bound())
    }

    /// A session has ended.
    fn forget(&self, ends: &Ends) {
        self.sessions.borrow_mut().remove(ends);
        if self.removed.get() {
            self.changed.notify_one();
        }
    }

    /// Gives a client's datagram to its session, which it may begin.
    fn take(self: &Rc<Self>, worker: &Rc<Worker>, bytes: &[u8], ends: Ends) {
        let known = self.sessions.borrow().get(&ends).and_then(Weak::upgrade);
        if let Some(session) = known {
            return session.ask(bytes);
        }
        let front = self.front.borrow().clone();
        if !self.is_wanted(&front) {
            return front.counters().dropped.add(1);
        }
        let places =
            Pass::if_free(&front.shared.gate).and_then(|front| Some((front, Pass::if_free(worker.gate())?)));
        let Some(places) = places else {
            front.counters().dropped.add(1);
            if worker.may_complain() {
                let name = &front.shared.name;
                tracing::warn!(
                    "frontend {name}: as many sessions as it may have (max-connections): a datagram of {} is dropped",
                    ends.0
                );
            }
            return;
        };
        let Some(session) = Session::begin(worker, self, front, ends, places) else { return };
        self.sessions.borrow_mut().insert(ends, Rc::downgrade(&session));
        session.ask(bytes);
        session.run();
    }
}

/// Takes what clients send, for as long as it is this process's to take.
async fn receive(worker: Rc<Worker>, door: Rc<Door>) {
    loop {
        let mut ready = None;
        tokio::select! {
            result = door.socket.readable() => match result {
                Ok(guard) => ready = Some(guard),
                Err(error) => return tracing::error!("the UDP socket of {} is lost: {error}", door.address),
            },
            () = door.changed.notified() => {}
        }
        worker.tick();
        let mut more = true;
        for _ in 0..limits::TURNS {
            if door.left.get() {
                return;
            }
            let came = worker.datagram.with(|room| {
                let (length, client, local) = packet::receive(door.socket.get_ref(), room)?;
                door.take(&worker, &room[..length], (client, local));
                Ok::<_, io::Error>(())
            });
            match came {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if door.removed.get() && door.sessions.borrow().is_empty() {
                        return;
                    }
                    if let Some(guard) = &mut ready {
                        guard.clear_ready();
                    }
                    more = false;
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    door.front.borrow().counters().dropped.add(1);
                    if worker.may_complain() {
                        tracing::warn!("a datagram to {} is lost: {error}", door.address);
                    }
                    break;
                }
            }
        }
        if more {
            tokio::task::yield_now().await; // sessions get their turn
        }
    }
}
