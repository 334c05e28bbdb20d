//! Services as the kernel's IPVS has them (`linux/ip_vs.h`, generic netlink): those of frontends with `forward by=ipvs`.
//!
//! IPVS has no transactions. What is to change is changed piece by piece, what comes before what goes, so that a connection
//! begun meanwhile is led as before or as after. Services that others have made are left alone. Called by `forward`.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;

use relais_config::plan::Method;
use rustix::io::Errno;
use rustix::net::netlink::GENERIC;

use super::netlink::{self, ACK, DUMP, attribute, find};
use super::rules::{TCP, UDP};
use super::services::Service;

/// The controller of generic netlink: its number, its question for a family's, and what comes with it.
const CONTROLLER: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const NEW_SERVICE: u8 = 1;
const SET_SERVICE: u8 = 2;
const DELETE_SERVICE: u8 = 3;
const GET_SERVICE: u8 = 4;
const NEW_DESTINATION: u8 = 5;
const SET_DESTINATION: u8 = 6;
const DELETE_DESTINATION: u8 = 7;
const GET_DESTINATION: u8 = 8;
/// What a command is about.
const SERVICE: u16 = 1;
const DESTINATION: u16 = 2;

/// `mh`: a client whose server is weighed 0 meanwhile goes to the next.
const FALL_BACK: u32 = 0x8;
/// Seen where IPVS is loaded.
const SHOWN: &str = "/proc/net/ip_vs";
/// The mark of services that are made to see whether the kernel takes them: no packet bears it.
const MARK: u32 = 0x5265_6c61;

/// Packets that IPVS takes: of a protocol, to an address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    protocol: u8,
    address: SocketAddr,
}

/// Who gets them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Shared {
    scheduler: String,
    flags: u32,
    /// By server.
    destinations: HashMap<SocketAddr, Destination>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Destination {
    /// `IP_VS_CONN_F_*`.
    method: u32,
    weight: u32,
}

/// What IPVS is to do.
type Wanted = HashMap<Key, Shared>;

/// Connections that IPVS has led to a server since the latter is there.
pub(crate) type Counted = HashMap<(Key, SocketAddr), u64>;

/// IPVS of this network namespace.
pub(crate) struct Ipvs {
    family: u16,
}

impl Ipvs {
    /// Asks for it, which has the kernel load it.
    ///
    /// # Errors
    /// `NotFound`: it is neither there nor to be loaded.
    pub(crate) fn open() -> io::Result<Ipvs> {
        let mut name = Vec::new();
        attribute(&mut name, FAMILY_NAME, b"IPVS\0");
        let mut family = None;
        netlink::ask(GENERIC, CONTROLLER, ACK, [GET_FAMILY, 1, 0, 0], &name, |answer| {
            family = find(answer, FAMILY_ID).and_then(<[u8]>::first_chunk).map(|id| u16::from_ne_bytes(*id));
        })?;
        family.map(|family| Ipvs { family }).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    /// Has IPVS do what these services say, and no longer what was wanted before and is not now.
    ///
    /// # Errors
    /// What the kernel says; some of it may be done by then.
    pub(crate) fn put(&self, services: &[Service], before: &[Service]) -> io::Result<()> {
        let (wanted, found) = (wanted(services), self.services()?);
        for (key, shared) in &wanted {
            let is = match found.get(key) {
                None => {
                    self.tell(NEW_SERVICE, &[(SERVICE, key.with(shared))])?;
                    Shared::default()
                }
                Some(is) => {
                    if (&is.scheduler, is.flags) != (&shared.scheduler, shared.flags) {
                        self.tell(SET_SERVICE, &[(SERVICE, key.with(shared))])?;
                    }
                    self.destinations(key, is.clone())?
                }
            };
            for (server, destination) in &shared.destinations {
                let command = match is.destinations.get(server) {
                    None => NEW_DESTINATION,
                    Some(known) if known != destination => SET_DESTINATION,
                    Some(_) => continue,
                };
                let destination = destination.of(*server);
                self.tell(command, &[(SERVICE, key.itself()), (DESTINATION, destination)])?;
            }
            for server in is.destinations.keys().filter(|server| !shared.destinations.contains_key(server)) {
                self.tell(DELETE_DESTINATION, &[(SERVICE, key.itself()), (DESTINATION, naming(*server))])?;
            }
        }
        for key in self::wanted(before).keys().filter(|key| !wanted.contains_key(key)) {
            if found.contains_key(key) {
                self.tell(DELETE_SERVICE, &[(SERVICE, key.itself())])?;
            }
        }
        Ok(())
    }

    /// Connections by server; `None` if IPVS does not do what these services say.
    ///
    /// # Errors
    /// What the kernel says.
    pub(crate) fn look(&self, services: &[Service]) -> io::Result<Option<Counted>> {
        let (mut counted, mut found) = (Counted::new(), self.services()?);
        for (key, shared) in wanted(services) {
            let Some(is) = found.remove(&key) else { return Ok(None) };
            let is = self.each_destination(&key, is, |server, connections| {
                counted.insert((key, server), connections);
            })?;
            if is != shared {
                return Ok(None);
            }
        }
        Ok(Some(counted))
    }

    /// Tries this way of sharing with a service that no packet can reach.
    fn attempt(&self, scheduler: &str, ipv6: bool) -> io::Result<()> {
        let mut service = Vec::new();
        attribute(&mut service, 1, &(if ipv6 { libc::AF_INET6 } else { libc::AF_INET } as u16).to_ne_bytes());
        attribute(&mut service, 5, &MARK.to_ne_bytes());
        let mut full = service.clone();
        Shared { scheduler: scheduler.into(), ..Shared::default() }.add_to(&mut full, ipv6);
        self.tell(NEW_SERVICE, &[(SERVICE, full)])?;
        self.tell(DELETE_SERVICE, &[(SERVICE, service)])
    }

    /// All that there are, without their destinations.
    fn services(&self) -> io::Result<Wanted> {
        let mut services = Wanted::new();
        self.ask(GET_SERVICE, DUMP, &[], |answer| {
            let service = find(answer, SERVICE).unwrap_or_default();
            if let Some((key, shared)) = Key::read(service) {
                services.insert(key, shared);
            }
        })?;
        Ok(services)
    }

    fn destinations(&self, key: &Key, shared: Shared) -> io::Result<Shared> {
        self.each_destination(key, shared, |_, _| {})
    }

    fn each_destination(
        &self,
        key: &Key,
        mut shared: Shared,
        mut count: impl FnMut(SocketAddr, u64),
    ) -> io::Result<Shared> {
        let mut service = Vec::new();
        attribute(&mut service, SERVICE, &key.itself());
        self.ask(GET_DESTINATION, DUMP, &service, |answer| {
            let destination = find(answer, DESTINATION).unwrap_or_default();
            if let Some((server, is, connections)) = Destination::read(destination, key.address.is_ipv4()) {
                shared.destinations.insert(server, is);
                count(server, connections);
            }
        })?;
        Ok(shared)
    }

    fn tell(&self, command: u8, parts: &[(u16, Vec<u8>)]) -> io::Result<()> {
        let mut attributes = Vec::new();
        for (kind, part) in parts {
            attribute(&mut attributes, *kind, part);
        }
        self.ask(command, ACK, &attributes, |_| {})
    }

    fn ask(&self, command: u8, flags: u16, attributes: &[u8], each: impl FnMut(&[u8])) -> io::Result<()> {
        netlink::ask(GENERIC, self.family, flags, [command, 1, 0, 0], attributes, each)
    }
}

/// Whether this machine's IPVS shares connections like this.
///
/// # Errors
/// What the kernel says: `NotFound` if it has no IPVS, or not this scheduler.
pub(crate) fn attempt(scheduler: &str, ipv6: bool) -> io::Result<()> {
    Ipvs::open()?.attempt(scheduler, ipv6)
}

/// Takes what these services put there away, if IPVS is there; whether there was any of it.
///
/// # Errors
/// What the kernel says.
pub(crate) fn release(services: &[Service]) -> io::Result<bool> {
    let ours = wanted(services);
    // Asking would have the kernel load it.
    if ours.is_empty() || !Path::new(SHOWN).exists() {
        return Ok(false);
    }
    let ipvs = Ipvs::open()?;
    let found = ipvs.services()?;
    ipvs.put(&[], services)?;
    Ok(ours.keys().any(|key| found.contains_key(key)))
}

/// Whose connections IPVS counts under this name.
pub(crate) fn keys(service: &Service) -> impl Iterator<Item = Key> {
    let protocol = if service.udp { UDP } else { TCP };
    service.binds.iter().map(move |bind| Key { protocol, address: *bind })
}

fn wanted(services: &[Service]) -> Wanted {
    let mut wanted = Wanted::new();
    for service in services {
        let Some((method, scheduler)) = service.ipvs else { continue };
        let method = match method {
            Method::Nat => 0,
            Method::Tunnel => 2,
            Method::Direct => 3,
        };
        for key in keys(service) {
            // One weighed 0 keeps what it has; one that is dead loses it.
            let chosen = service.chosen(key.address.is_ipv4());
            let targets = service.targets.iter().enumerate();
            let targets = targets.filter(|(_, t)| t.alive && t.address.is_ipv4() == key.address.is_ipv4());
            let destinations = targets.map(|(index, target)| {
                let weight = if chosen.contains(&index) { u32::from(target.weight) } else { 0 };
                (target.address, Destination { method, weight })
            });
            let flags = if scheduler == "mh" { FALL_BACK } else { 0 };
            let shared = Shared { scheduler: scheduler.into(), flags, destinations: destinations.collect() };
            wanted.insert(key, shared);
        }
    }
    wanted
}

impl Key {
    /// The attributes that name it.
    fn itself(&self) -> Vec<u8> {
        let mut to = Vec::new();
        let family = if self.address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
        attribute(&mut to, 1, &(family as u16).to_ne_bytes());
        attribute(&mut to, 2, &u16::from(self.protocol).to_ne_bytes());
        attribute(&mut to, 3, &octets(self.address.ip()));
        attribute(&mut to, 4, &self.address.port().to_be_bytes());
        to
    }

    fn with(&self, shared: &Shared) -> Vec<u8> {
        let mut to = self.itself();
        shared.add_to(&mut to, self.address.is_ipv6());
        to
    }

    /// One without the other where it is of a mark.
    fn read(service: &[u8]) -> Option<(Key, Shared)> {
        let ipv4 = number(service, 1)? == libc::AF_INET as u32;
        let port = find(service, 4)?.first_chunk().map(|port| u16::from_be_bytes(*port))?;
        let key = Key {
            protocol: number(service, 2)? as u8,
            address: SocketAddr::new(address(find(service, 3)?, ipv4)?, port),
        };
        let scheduler = netlink::text(find(service, 6)?).to_owned();
        let flags = number(service, 7)? & FALL_BACK;
        Some((key, Shared { scheduler, flags, destinations: HashMap::new() }))
    }
}

impl Shared {
    fn add_to(&self, to: &mut Vec<u8>, ipv6: bool) {
        attribute(to, 6, &[self.scheduler.as_bytes(), &[0]].concat());
        attribute(to, 7, &[self.flags.to_ne_bytes(), FALL_BACK.to_ne_bytes()].concat());
        attribute(to, 8, &0u32.to_ne_bytes()); // clients are not kept together
        attribute(to, 9, &if ipv6 { 128 } else { u32::MAX }.to_ne_bytes());
    }
}

impl Destination {
    fn of(self, server: SocketAddr) -> Vec<u8> {
        let mut to = naming(server);
        for (kind, value) in [(3, self.method), (4, self.weight), (5, 0), (6, 0)] {
            attribute(&mut to, kind, &value.to_ne_bytes());
        }
        to
    }

    fn read(destination: &[u8], ipv4: bool) -> Option<(SocketAddr, Destination, u64)> {
        let port = find(destination, 2)?.first_chunk().map(|port| u16::from_be_bytes(*port))?;
        let server = SocketAddr::new(address(find(destination, 1)?, ipv4)?, port);
        // The way is one of three bits; those above are of connections.
        let is = Destination { method: number(destination, 3)? & 0x7, weight: number(destination, 4)? };
        let stats = find(destination, 12).and_then(|stats| find(stats, 1)).and_then(<[u8]>::first_chunk);
        Some((server, is, stats.map_or(0, |connections| u64::from_ne_bytes(*connections))))
    }
}

/// The attributes that name a server.
fn naming(server: SocketAddr) -> Vec<u8> {
    let mut to = Vec::new();
    attribute(&mut to, 1, &octets(server.ip()));
    attribute(&mut to, 2, &server.port().to_be_bytes());
    to
}

/// As `union nf_inet_addr` has it.
fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&address.octets());
            octets
        }
        IpAddr::V6(address) => address.octets(),
    }
}

fn address(octets: &[u8], ipv4: bool) -> Option<IpAddr> {
    if ipv4 {
        octets.first_chunk::<4>().map(|ip| Ipv4Addr::from(*ip).into())
    } else {
        octets.first_chunk::<16>().map(|ip| Ipv6Addr::from(*ip).into())
    }
}

/// A number of two bytes or four.
fn number(attributes: &[u8], kind: u16) -> Option<u32> {
    let bytes = find(attributes, kind)?;
    let short = || bytes.first_chunk().map(|bytes| u32::from(u16::from_ne_bytes(*bytes)));
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes)).or_else(short)
}

/// Why IPVS does not do what it should.
pub(crate) fn why(error: &io::Error) -> String {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        _ if error.kind() == io::ErrorKind::NotFound => format!(
            "the kernel's IPVS is not there, or lacks the scheduler ({error}): load ip_vs and its ip_vs_* modules, or write `forward by=nftables`"
        ),
        Some(Errno::PROTONOSUPPORT | Errno::AFNOSUPPORT) => {
            format!(
                "the kernel's IPVS was built without this protocol ({error}): write `forward by=nftables`"
            )
        }
        _ => format!("the kernel's IPVS says: {error}"),
    }
}
