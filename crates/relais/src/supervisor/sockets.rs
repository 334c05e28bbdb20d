//! The listening sockets, of TCP and of UDP: made here once, kept for the supervisor's life, lent to every generation of
//! workers. A worker's death closes nothing, so clients wait in the kernel's queue until the next one
//! accepts them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::net::SocketAddr;
use std::os::fd::{BorrowedFd, OwnedFd};

use relais_config::plan::{Mode, NodeId, Plan};
use relais_ipc::{Endpoint, Protocol};
use socket2::{Domain, Socket, Type};
use std::os::fd::AsFd;

/// Connections that may wait in a listener's queue; the kernel's `net.core.somaxconn` may lower it.
const BACKLOG: i32 = 4096;

/// Bytes of datagrams that may wait in a socket, as the kernel counts them: some thousands of small ones, for the
/// moment in which a proxy that died is replaced.
const WAITING_BYTES: usize = 4 << 20;

/// The name under which the control process gets its listener.
pub(crate) const ADMIN: &str = "admin";

/// A listener that a plan asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// The frontend's name, or [`ADMIN`].
    pub(crate) frontend: String,
    /// Where it listens.
    pub(crate) endpoint: Endpoint,
}

impl Wanted {
    /// Whether it is the control process's and not a frontend's.
    pub(crate) fn is_admin(&self) -> bool {
        self.frontend == ADMIN
    }
}

/// The listeners that `plan` asks for on `node`.
pub(crate) fn wanted(plan: &Plan, node: NodeId) -> Vec<Wanted> {
    let admin = Wanted { frontend: ADMIN.to_owned(), endpoint: Endpoint::tcp(plan.admin) };
    let frontends = plan.listens_on(node).map(|(frontend, address)| {
        let protocol = if frontend.mode == Mode::Udp { Protocol::Udp } else { Protocol::Tcp };
        Wanted { frontend: frontend.name.to_string(), endpoint: Endpoint { address, protocol } }
    });
    std::iter::once(admin).chain(frontends).collect()
}

/// Every listening socket of this node: one a worker for each endpoint.
#[derive(Debug)]
pub(crate) struct Sockets {
    workers: u16,
    open: BTreeMap<Endpoint, Vec<OwnedFd>>,
}

impl Sockets {
    /// None yet; each endpoint will get one socket for every one of `workers`.
    pub(crate) fn new(workers: u16) -> Sockets {
        Sockets { workers, open: BTreeMap::new() }
    }

    /// Takes over the sets of another supervisor; one that is not whole is left, and opened anew.
    pub(crate) fn inherit(&mut self, sets: BTreeMap<Endpoint, BTreeMap<u16, OwnedFd>>) {
        for (endpoint, set) in sets {
            if set.keys().copied().eq(0..set.len() as u16) {
                self.open.insert(endpoint, set.into_values().collect());
            }
        }
    }

    /// Every socket, with what it is known by and its place in the set.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Endpoint, u16, BorrowedFd<'_>)> {
        self.open.iter().flat_map(|(endpoint, set)| {
            (0..).zip(set).map(|(index, socket)| (*endpoint, index, socket.as_fd()))
        })
    }

    /// Opens what is wanted and not open, all or nothing.
    ///
    /// # Errors
    /// A sentence for the operator; what was open before still is, and nothing else.
    pub(crate) fn open(&mut self, wanted: &[Wanted]) -> Result<(), String> {
        let mut new = Vec::new();
        for want in wanted {
            if let Entry::Vacant(vacant) = self.open.entry(want.endpoint) {
                let count = if want.is_admin() { 1 } else { self.workers };
                let sockets: std::io::Result<Vec<OwnedFd>> =
                    (0..count).map(|_| listen(want.endpoint, count > 1)).collect();
                match sockets {
                    Ok(sockets) => {
                        vacant.insert(sockets);
                        new.push(want.endpoint);
                    }
                    Err(error) => {
                        new.iter().for_each(|endpoint| drop(self.open.remove(endpoint)));
                        return Err(cannot_listen(want, &error));
                    }
                }
            }
        }
        Ok(())
    }

    /// Closes what is open and not wanted.
    pub(crate) fn close_all_but(&mut self, wanted: &[Wanted]) {
        self.open.retain(|endpoint, _| wanted.iter().any(|want| want.endpoint == *endpoint));
    }

    /// The sockets of `endpoint`, in the order of the workers.
    pub(crate) fn of(&self, endpoint: Endpoint) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.open.get(&endpoint).into_iter().flatten().map(|socket| socket.as_fd())
    }
}

fn cannot_listen(want: &Wanted, error: &std::io::Error) -> String {
    let Wanted { frontend, endpoint } = want;
    let what = if want.is_admin() { "the admin page".to_owned() } else { format!("frontend {frontend}") };
    let todo = match error.kind() {
        std::io::ErrorKind::AddrInUse => {
            let kind = if endpoint.protocol == Protocol::Udp { 'u' } else { 't' };
            format!("another program has it: `ss -l{kind}np sport = :{}` names it", endpoint.address.port())
        }
        std::io::ErrorKind::PermissionDenied => {
            "ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
        }
        _ => error.to_string(),
    };
    format!("{what} cannot listen on {endpoint}: {todo}")
}

fn listen(Endpoint { address, protocol }: Endpoint, shared: bool) -> std::io::Result<OwnedFd> {
    let kind = if protocol == Protocol::Udp { Type::DGRAM } else { Type::STREAM };
    let socket = Socket::new(Domain::for_address(address), kind, None)?;
    if protocol == Protocol::Tcp {
        socket.set_reuse_address(true)?; // of UDP it would let any other program of root's in beside us
    }
    if shared {
        socket.set_reuse_port(true)?;
    }
    match address {
        // The virtual address may be on the other machine now.
        SocketAddr::V4(_) => socket.set_freebind_v4(true)?,
        SocketAddr::V6(_) => {
            socket.set_only_v6(true)?;
            socket.set_freebind_v6(true)?;
        }
    }
    socket.bind(&address.into())?;
    match protocol {
        Protocol::Tcp => socket.listen(BACKLOG)?,
        // Without the privilege it is as large as the kernel lets us have it (`net.core.rmem_max`).
        Protocol::Udp => rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, WAITING_BYTES)
            .or_else(|_| rustix::net::sockopt::set_socket_recv_buffer_size(&socket, WAITING_BYTES))?,
    }
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn free_address() -> SocketAddr {
        std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
    }

    fn want(address: SocketAddr) -> Wanted {
        Wanted { frontend: "web".into(), endpoint: Endpoint::tcp(address) }
    }

    #[test]
    fn an_address_that_is_taken_leaves_nothing_half_open() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let free = free_address();
        let mut sockets = Sockets::new(2);
        let why = sockets.open(&[want(free), want(taken.local_addr().unwrap())]).unwrap_err();
        assert!(why.contains("frontend web cannot listen on 127.0.0.1:"), "{why}");
        assert!(why.contains("another program has it"), "{why}");
        assert_eq!(sockets.of(Endpoint::tcp(free)).count(), 0);
    }

    #[test]
    fn sockets_that_stay_wanted_are_never_reopened() {
        let (kept, gone) = (free_address(), free_address());
        let mut sockets = Sockets::new(2);
        sockets.open(&[want(kept), want(gone)]).unwrap();
        let before: Vec<_> = sockets.of(Endpoint::tcp(kept)).map(|fd| format!("{fd:?}")).collect();
        assert_eq!(before.len(), 2);
        sockets.open(&[want(kept)]).unwrap();
        sockets.close_all_but(&[want(kept)]);
        assert_eq!(sockets.of(Endpoint::tcp(kept)).map(|fd| format!("{fd:?}")).collect::<Vec<_>>(), before);
        assert_eq!(sockets.of(Endpoint::tcp(gone)).count(), 0);
    }

    #[test]
    fn one_address_takes_connections_and_datagrams() {
        let address = free_address();
        let datagrams = Wanted { frontend: "dns".into(), endpoint: Endpoint::udp(address) };
        let mut sockets = Sockets::new(2);
        sockets.open(&[want(address), datagrams.clone()]).unwrap();
        let kinds: Vec<_> = sockets
            .all()
            .map(|(endpoint, _, socket)| (endpoint, rustix::net::sockopt::socket_type(socket).unwrap()))
            .collect();
        let (tcp, udp) = (Endpoint::tcp(address), Endpoint::udp(address));
        let (stream, datagram) = (rustix::net::SocketType::STREAM, rustix::net::SocketType::DGRAM);
        assert_eq!(kinds, [(tcp, stream), (tcp, stream), (udp, datagram), (udp, datagram)]);
        sockets.close_all_but(&[datagrams]);
        assert_eq!((sockets.of(tcp).count(), sockets.of(udp).count()), (0, 2));
    }

    #[test]
    fn a_taken_udp_port_is_said_with_what_finds_the_program() {
        let taken = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let endpoint = Endpoint::udp(taken.local_addr().unwrap());
        let why = Sockets::new(2).open(&[Wanted { frontend: "dns".into(), endpoint }]).unwrap_err();
        assert!(why.contains("(UDP): another program has it: `ss -lunp"), "{why}");
    }
}
