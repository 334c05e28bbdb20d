//! One switch and the hosts on it, each in a network namespace: a bridge, one veth pair a host, named `eth0`
//! on the host's side. Links are cut on the switch's side, as a cable is. What runs on the hosts is
//! [`crate::lab`]'s affair.

use std::collections::BTreeSet;
use std::io;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use crate::answers::Watch;
use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::process::Running;

/// Interface of every host.
pub const INTERFACE: &str = "eth0";
/// Length of the network's prefix.
pub const PREFIX: u8 = 24;
/// The switch's name among the namespaces, and its bridge's.
const SWITCH: &str = "switch";

/// A host's cable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// Plugged in.
    Up,
    /// Pulled: both ends see the carrier go.
    Cut,
    /// Plugged in, but the switch forwards nothing: nobody is told.
    Silent,
}

/// One machine on the network.
#[derive(Clone, Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    netns: Netns,
}

impl Host {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its own address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Its namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// Starts a program on it; see [`Running::start`].
    ///
    /// # Errors
    /// As there.
    pub fn start(&self, command: &mut Command, log: &Path) -> io::Result<Running> {
        Running::start(&self.netns, command, log)
    }

    /// Whether its interfaces have this address now.
    ///
    /// # Errors
    /// If the kernel does not answer.
    pub fn has_address(&self, address: Ipv4Addr) -> io::Result<bool> {
        Netlink::open(&self.netns)?.has_address(address)
    }
}

/// The switch and its hosts. Gone when dropped, unless pinned or still used by a process.
#[derive(Clone, Debug)]
pub struct Network {
    switch: Netns,
    hosts: Vec<Host>,
}

impl Network {
    /// Makes the network. With a `prefix` every namespace is pinned as `PREFIX-HOST` the moment it exists, so
    /// that [`Network::remove`] finds it whatever happens to this process.
    ///
    /// # Errors
    /// Without root (or a user namespace where this process is root), or if a name is taken.
    pub fn create(hosts: &[(&str, Ipv4Addr)], prefix: Option<&str>) -> io::Result<Network> {
        let new = |name: &str| {
            let netns = Netns::create()?;
            if let Some(prefix) = prefix {
                netns.pin(&format!("{prefix}-{name}"))?;
            }
            io::Result::Ok(netns)
        };
        let switch = new(SWITCH)?;
        let mut on_switch = Netlink::open(&switch)?;
        let bridge = on_switch.add_bridge(SWITCH)?;
        let mut network = Network { switch, hosts: Vec::with_capacity(hosts.len()) };
        for (name, address) in hosts {
            let netns = new(name)?;
            let port = on_switch.add_veth(name, bridge, INTERFACE, &netns)?;
            let mut on_host = Netlink::open(&netns)?;
            on_host.set_loopback_up()?;
            let interface = on_host.index(INTERFACE)?;
            on_host.add_address(interface, *address, PREFIX)?;
            on_host.set_up(interface, true)?;
            on_switch.set_up(port, true)?;
            network.hosts.push(Host { name: (*name).to_owned(), address: *address, netns });
        }
        Ok(network)
    }

    /// The network that another process made and pinned under `prefix`.
    ///
    /// # Errors
    /// If one of the pins is missing.
    pub fn attach(hosts: &[(&str, Ipv4Addr)], prefix: &str) -> io::Result<Network> {
        let pins = Netns::pinned(&format!("{prefix}-"));
        let find = |name: &str| {
            let wanted = format!("{prefix}-{name}");
            let pin = pins.iter().find(|(path, _)| path.ends_with(&wanted));
            let netns = pin.and_then(|(_, netns)| netns.clone());
            netns.ok_or_else(|| io::Error::other(format!("the network namespace {wanted} is gone")))
        };
        let switch = find(SWITCH)?;
        let host = |(name, address): &(&str, Ipv4Addr)| {
            Ok(Host { name: (*name).to_owned(), address: *address, netns: find(name)? })
        };
        Ok(Network { switch, hosts: hosts.iter().map(host).collect::<io::Result<_>>()? })
    }

    /// Begins to watch which machines answer for an address.
    ///
    /// # Errors
    /// As [`Watch::start`].
    pub fn watch_answers(&self, address: Ipv4Addr) -> io::Result<Watch> {
        Watch::start(&self.switch, SWITCH, address)
    }

    /// The hosts.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// The host of this name, which the caller knows to exist.
    ///
    /// # Panics
    /// If there is none: names of hosts are never input.
    pub fn host(&self, name: &str) -> &Host {
        match self.hosts.iter().find(|h| h.name == name) {
            Some(host) => host,
            None => panic!("the lab has no host {name}"),
        }
    }

    /// Inode numbers of all its namespaces.
    pub fn inodes(&self) -> BTreeSet<u64> {
        self.hosts.iter().map(|h| h.netns.inode()).chain([self.switch.inode()]).collect()
    }

    /// Has the switch forward nothing between the isolated hosts, and everything else as ever.
    ///
    /// # Errors
    /// If the kernel refuses, or the host's port is silent.
    pub fn isolate(&self, host: &str, isolated: bool) -> io::Result<()> {
        let mut on_switch = Netlink::open(&self.switch)?;
        let port = on_switch.index(host)?;
        on_switch.set_isolated(port, isolated)
    }

    /// Plugs a host's cable in, pulls it, or silences it.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_link(&self, host: &str, link: Link) -> io::Result<()> {
        let mut on_switch = Netlink::open(&self.switch)?;
        let port = on_switch.index(host)?;
        match link {
            Link::Cut => on_switch.set_up(port, false),
            Link::Silent => on_switch.set_master(port, None),
            Link::Up => {
                on_switch.set_up(port, true)?;
                on_switch.set_master(port, Some(SWITCH))
            }
        }
    }
}
