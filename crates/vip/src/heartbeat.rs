//! Heartbeats on the wire: a UDP socket for each link of this node, the seal, and which links of two nodes are a pair.
//!
//! What they mean is `relais-cluster`'s; the engine brings the two together (`engine/heartbeats.rs`).

use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::{hkdf, hmac};
use relais_cluster::wire::{self, Refused, SEAL_LEN, hash};
use relais_cluster::{Config, Heartbeat, Path, Peer};
use relais_config::Plan;
use relais_config::plan::NodeId;
use socket2::{Domain, Protocol, Socket, Type};

/// UDP port of heartbeats, the death-watch's of TCP.
pub(crate) const PORT: u16 = 8405;
/// Most nodes that only witness and are spoken to as often as those that hold addresses. More would prove no more.
const MAX_WITNESSES: usize = 3;
/// Shortest and longest interval.
const INTERVALS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// A lease in intervals of VRRP.
const LEASE: u32 = 3;
/// Shortest key that is taken, bytes.
const SHORTEST_KEY: usize = 16;

/// What a plan says of heartbeats on this node.
#[derive(Clone, Debug)]
pub(crate) struct Spec {
    pub(crate) config: Config,
    /// This node's links, in their order: their numbers are the core's.
    pub(crate) links: Vec<IpAddr>,
    pub(crate) key: Key,
}

/// Seals heartbeats and knows which are sealed.
#[derive(Clone, Debug)]
pub(crate) struct Key(hmac::Key);

impl Key {
    /// From the text of the cluster's key, whose white space at the ends does not count.
    ///
    /// # Errors
    /// The end of a sentence.
    pub(crate) fn new(text: &[u8]) -> Result<Key, String> {
        struct Length;
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                32
            }
        }
        let secret = text.trim_ascii();
        if secret.len() < SHORTEST_KEY {
            return Err(format!("is shorter than {SHORTEST_KEY} bytes; write a longer one"));
        }
        let key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"relais heartbeats").extract(secret);
        let mut bytes = [0; 32];
        let filled = key.expand(&[b"version 1"], Length).and_then(|okm| okm.fill(&mut bytes));
        filled.map_err(|_| "cannot be used".to_owned())?;
        Ok(Key(hmac::Key::new(hmac::HMAC_SHA256, &bytes)))
    }

    /// The datagram.
    pub(crate) fn seal(&self, heartbeat: &Heartbeat) -> Vec<u8> {
        let mut bytes = wire::encode(heartbeat);
        let seal = hmac::sign(&self.0, &bytes);
        bytes.extend_from_slice(&seal.as_ref()[..SEAL_LEN]);
        bytes
    }

    pub(crate) fn open(&self, datagram: &[u8]) -> Result<Heartbeat, Refused> {
        wire::parse(datagram, |bytes, seal| {
            let ours = hmac::sign(&self.0, bytes);
            aws_lc_rs::constant_time::verify_slices_are_equal(&ours.as_ref()[..SEAL_LEN], seal).is_ok()
        })
    }
}

/// Nanoseconds since 1970: tells one life of this process from the next.
pub(crate) fn incarnation() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// What `plan` says of heartbeats on `node`, but for the key; `None` where there is nobody to speak to.
pub(crate) fn config(plan: &Plan, node: NodeId) -> Option<Config> {
    let all = || (0..plan.nodes.len()).filter(|n| *n != usize::from(node.0));
    all().next()?;
    let holds = |n: usize| plan.vips.iter().any(|vip| vip.nodes.iter().any(|(id, _)| usize::from(id.0) == n));
    let witnesses: Vec<usize> = (0..plan.nodes.len()).filter(|n| !holds(*n)).take(MAX_WITNESSES).collect();
    let shortest = plan.vips.iter().map(|vip| vip.advertise).min();
    let is_near = |n: usize| shortest.is_some() && (holds(n) || witnesses.contains(&n));
    let (mut peers, mut paths) = (Vec::new(), Vec::new());
    let own = &plan.nodes[usize::from(node.0)];
    for n in all() {
        let other = &plan.nodes[n];
        for (link, remote) in pairs(&own.links, &other.links) {
            paths.push(Path { peer: peers.len(), link, remote });
        }
        peers.push(Peer {
            node: hash(&other.name),
            name: Arc::from(&*other.name),
            is_close: is_near(usize::from(node.0)) && is_near(n),
        });
    }
    let shortest = shortest.unwrap_or(INTERVALS.1);
    Some(Config {
        platform: hash(&plan.platform),
        node: hash(&own.name),
        interval: (shortest / 2).clamp(INTERVALS.0, INTERVALS.1),
        patience: shortest * LEASE,
        peers,
        paths,
    })
}

/// Which links of two nodes belong together: of each the one whose address is most like the other's. Both nodes come to
/// the same pairs.
fn pairs(own: &[IpAddr], other: &[IpAddr]) -> Vec<(u8, IpAddr)> {
    let best = |of: &[IpAddr], to: IpAddr| {
        let like = |link: &IpAddr| common_bits(*link, to);
        // The first of those that are alike, so that the order of the file decides.
        let most = of.iter().filter_map(like).max()?;
        of.iter().position(|link| like(link) == Some(most))
    };
    let mut pairs = Vec::new();
    for (number, link) in own.iter().enumerate().take(usize::from(u8::MAX)) {
        let Some(theirs) = best(other, *link) else { continue };
        if best(own, other[theirs]) == Some(number) {
            pairs.push((number as u8, other[theirs]));
        }
    }
    pairs
}

/// How many leading bits two addresses share; `None` if they are of two families.
fn common_bits(a: IpAddr, b: IpAddr) -> Option<u32> {
    match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(b)) => Some((u32::from(a) ^ u32::from(b)).leading_zeros()),
        (IpAddr::V6(a), IpAddr::V6(b)) => Some((u128::from(a) ^ u128::from(b)).leading_zeros()),
        _ => None,
    }
}

/// The socket of one link.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) own: IpAddr,
    socket: UdpSocket,
}

impl Port {
    /// Opens it, whether the address is there already or comes later.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn open(own: IpAddr) -> io::Result<Port> {
        let domain = if own.is_ipv4() { Domain::IPV4 } else { Domain::IPV6 };
        let socket = Socket::new(domain, Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
        socket.set_reuse_port(true)?; // a new binary's process listens before the old one's ends
        match own {
            IpAddr::V4(_) => socket.set_freebind_v4(true)?,
            IpAddr::V6(_) => socket.set_freebind_v6(true)?,
        }
        socket.bind(&SocketAddr::new(own, PORT).into())?;
        Ok(Port { own, socket: socket.into() })
    }

    /// Readable when a heartbeat came.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The next datagram and its sender; `None` when no more wait. What is not from the port is passed over.
    pub(crate) fn receive<'b>(&self, buffer: &'b mut [u8]) -> Option<(IpAddr, &'b [u8])> {
        loop {
            match self.socket.recv_from(buffer) {
                Ok((length, from)) if from.port() == PORT => return Some((from.ip(), &buffer[..length])),
                Ok(_) => {}
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return None,
                Err(_) => {} // what came back of a datagram that nobody wanted: the next may be one
            }
        }
    }

    /// Sends. What cannot be sent is lost, as it may be on the way.
    pub(crate) fn send(&self, to: IpAddr, datagram: &[u8]) {
        let _ = self.socket.send_to(datagram, (to, PORT));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(all: &[&str]) -> Vec<IpAddr> {
        all.iter().map(|text| text.parse().expect("an address")).collect()
    }

    #[test]
    fn links_are_paired_by_their_networks_and_the_same_on_both_sides() {
        let two = addresses(&["192.168.112.176", "10.10.0.1"]);
        let other = addresses(&["10.10.0.2", "192.168.112.178"]);
        let one = addresses(&["192.168.112.177"]);
        assert_eq!(pairs(&two, &other), [(0, other[1]), (1, other[0])]);
        assert_eq!(pairs(&other, &two), [(0, two[1]), (1, two[0])]);
        assert_eq!(pairs(&two, &one), [(0, one[0])]);
        assert_eq!(pairs(&one, &two), [(0, two[0])]);
        assert_eq!(pairs(&one, &addresses(&["fd00::1"])), []);
        assert_eq!(pairs(&one, &[]), []);
    }

    #[test]
    fn only_the_same_key_opens_what_a_key_has_sealed() {
        let heartbeat = Heartbeat {
            platform: 1,
            sender: 2,
            incarnation: 3,
            sequence: 4,
            leaves: false,
            heard: Vec::new(),
            held: Vec::new(),
        };
        let key = Key::new(b"a key that is long enough\n").expect("a key");
        let sealed = key.seal(&heartbeat);
        assert_eq!(key.open(&sealed), Ok(heartbeat));
        let same = Key::new(b"  a key that is long enough").expect("a key");
        assert!(same.open(&sealed).is_ok(), "white space at the ends does not count");
        let other = Key::new(b"a key that is long enough!").expect("a key");
        assert_eq!(other.open(&sealed), Err(Refused::Seal));
        for at in 8..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(key.open(&changed), Err(Refused::Seal), "byte {at}");
        }
        assert!(Key::new(b"short").is_err());
    }
}
