//! The death-watch: a backup keeps a TCP connection to the holder's machine, and its end says at once what the silence
//! of advertisements says later.
//!
//! Nothing is ever sent on it. The holder's end is kept by two of its processes, this one and the supervisor, so the
//! kernel ends the connection when both are dead and not before: a vip process that is started again costs no move.
//! Because connections also end for other reasons (a firewall that forgets them), the backup asks once more before it
//! believes: where another connection can be made somebody lives; where the machine itself refuses it, nobody does.
//! Anything else is left to the timers of VRRP. A machine that dies without a word cannot end its connections:
//! that, too, is for the timers.
//!
//! Pure of decisions about addresses: called by the engine, which tells the router.

use std::io;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::fd::OwnedFd;
use std::time::Duration;

use relais_base::Time;
use rustix::io::Errno;
use rustix::net::RecvFlags;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use crate::inbox::{self, WATCHES};

/// TCP port of the death-watch.
pub(crate) const PORT: u16 = 8405;
/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(1);
/// How long after a peer could not be reached (keepalived never can) it is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(5);
/// How long a connection must have stood for its end to mean anything.
const AT_LEAST: Duration = Duration::from_millis(500);
/// Most connections accepted in one turn.
const MAX_ACCEPTED: usize = 16;
const BACKLOG: i32 = 64;

/// An address on one link.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    device: String,
    index: u32,
    own: IpAddr,
}

impl Place {
    fn socket(&self) -> io::Result<Socket> {
        let domain = if self.own.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        socket.bind_device(Some(self.device.as_bytes()))?;
        Ok(socket)
    }

    fn at(&self, address: IpAddr, port: u16) -> SockAddr {
        match address {
            IpAddr::V4(_) => SocketAddr::new(address, port).into(),
            IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, self.index).into(),
        }
    }

    fn listen(&self) -> io::Result<Socket> {
        let socket = self.socket()?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?; // a new binary's process listens before the old one's ends
        socket.bind(&self.at(self.own, PORT))?;
        socket.listen(BACKLOG)?;
        Ok(socket)
    }

    fn connect(&self, peer: IpAddr) -> io::Result<Socket> {
        let socket = self.socket()?;
        socket.bind(&self.at(self.own, 0))?;
        match socket.connect(&self.at(peer, PORT)) {
            Err(e) if e.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket),
            other => other.map(|()| socket),
        }
    }
}

#[derive(Debug)]
enum State {
    /// Nothing is known of the peer's process; it is tried then.
    Idle {
        again: Time,
    },
    /// `after_end`: a connection has just ended, and a refusal means death.
    Connecting {
        socket: Socket,
        until: Time,
        after_end: bool,
    },
    Open {
        socket: Socket,
        since: Time,
    },
}

#[derive(Debug)]
struct Peer {
    address: IpAddr,
    state: State,
}

/// What goes on on one link.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    place: Option<Place>,
    listener: Option<Socket>,
    peers: Vec<Peer>,
}

impl Watch {
    /// Listens on this link at this address from now on, if it does not yet.
    ///
    /// # Errors
    /// Why nobody can watch this node; it can watch others all the same.
    pub(crate) fn settle(
        &mut self,
        device: &str,
        index: u32,
        own: IpAddr,
        inbox: &OwnedFd,
    ) -> io::Result<()> {
        let place = Place { device: device.into(), index, own };
        if self.place.as_ref() == Some(&place) {
            return Ok(());
        }
        self.peers.clear();
        self.listener = None;
        let listener = place.listen();
        self.place = Some(place);
        let listener = listener?;
        inbox::listen(inbox, &listener, WATCHES)?;
        self.listener = Some(listener);
        Ok(())
    }

    /// The link is gone.
    pub(crate) fn unsettle(&mut self) {
        *self = Watch::default();
    }

    /// Connections that watchers have made since the last call, and who made them.
    pub(crate) fn accept(&mut self) -> Vec<(IpAddr, OwnedFd)> {
        let Some(listener) = &self.listener else { return Vec::new() };
        let accepted = std::iter::from_fn(|| {
            loop {
                match listener.accept() {
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                    other => return other.ok(),
                }
            }
        });
        let named = |(socket, from): (Socket, SockAddr)| Some((from.as_socket()?.ip(), socket.into()));
        accepted.take(MAX_ACCEPTED).filter_map(named).collect()
    }

    /// Watches exactly these peers; those that have died since the last call.
    pub(crate) fn look(&mut self, peers: &[IpAddr], inbox: &OwnedFd, now: Time) -> Vec<IpAddr> {
        let Some(place) = &self.place else { return Vec::new() };
        self.peers.retain(|peer| peers.contains(&peer.address));
        for address in peers {
            if self.peers.iter().all(|peer| peer.address != *address) {
                self.peers.push(Peer { address: *address, state: State::Idle { again: now } });
            }
        }
        let died =
            self.peers.iter_mut().filter_map(|peer| peer.look(place, inbox, now).then_some(peer.address));
        died.collect()
    }

    /// Whether `look` has something to do although nothing has come.
    pub(crate) fn is_due(&self, peers: &[IpAddr], now: Time) -> bool {
        let same =
            self.peers.len() == peers.len() && self.peers.iter().all(|peer| peers.contains(&peer.address));
        !same || self.due() <= now
    }

    /// When `look` is due although nothing has come.
    pub(crate) fn due(&self) -> Time {
        let times = self.peers.iter().map(|peer| match &peer.state {
            State::Idle { again } => *again,
            State::Connecting { until, .. } => *until,
            State::Open { .. } => Time::MAX,
        });
        times.min().unwrap_or(Time::MAX)
    }
}

impl Peer {
    /// Whether it has died.
    fn look(&mut self, place: &Place, inbox: &OwnedFd, now: Time) -> bool {
        let waiting = || State::Idle { again: now + RETRY_AFTER };
        let mut died = false;
        self.state = match std::mem::replace(&mut self.state, waiting()) {
            State::Idle { again } if again <= now => self.connect(place, inbox, now, false),
            State::Open { socket, since } if has_ended(&socket) => {
                // One that lets nobody in must not be asked again and again.
                if now.since(since) < AT_LEAST { waiting() } else { self.connect(place, inbox, now, true) }
            }
            State::Connecting { socket, until, after_end } => match connected(&socket) {
                Ok(true) if inbox::await_end(inbox, &socket, WATCHES).is_ok() => {
                    State::Open { socket, since: now }
                }
                Ok(false) if now < until => State::Connecting { socket, until, after_end },
                answer => {
                    let refused = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
                    died = after_end && answer.as_ref().is_err_and(refused);
                    waiting()
                }
            },
            same => same,
        };
        died
    }

    fn connect(&self, place: &Place, inbox: &OwnedFd, now: Time, after_end: bool) -> State {
        let made = place.connect(self.address).and_then(|socket| {
            inbox::await_connection(inbox, &socket, WATCHES)?;
            Ok(socket)
        });
        match made {
            Ok(socket) => State::Connecting { socket, until: now + CONNECT_WITHIN, after_end },
            Err(_) => State::Idle { again: now + RETRY_AFTER },
        }
    }
}

/// Whether the connection stands.
///
/// # Errors
/// Why it could not be made.
fn connected(socket: &Socket) -> io::Result<bool> {
    match socket.take_error()? {
        Some(e) => Err(e),
        None => Ok(socket.peer_addr().is_ok()),
    }
}

/// Whether the other end is gone. What it may say is passed over.
fn has_ended(socket: &Socket) -> bool {
    loop {
        match rustix::net::recv(socket, &mut [0u8; 64], RecvFlags::DONTWAIT) {
            Ok((0, _)) => return true,
            Ok(_) | Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => return false,
            Err(_) => return true,
        }
    }
}
