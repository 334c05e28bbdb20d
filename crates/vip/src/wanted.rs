//! What a plan wants of this node: its own addresses, and the virtual routers that it takes part in. Called by `lib`.

use std::net::IpAddr;
use std::time::Duration;

use relais_config::Plan;
use relais_config::plan::{self, Cidr, NodeId, Preempt, Tracked, Vip};
use relais_vrrp::{Authentication, Checksum, Config, Form, Password, Track, Version};

use crate::engine::{QUORUM, Spec, backend, file, frontend, link, script};
use crate::heartbeat::{self, Key};

/// How long a frontend whose process died may take to come back before the address goes elsewhere.
/// A worker starts in some 10 ms; a connection made meanwhile waits in the kernel's queue.
const HEALING_GRACE: Duration = Duration::from_millis(60);
/// How long after the drain a relay is kept up: the cut connections' last segments.
pub(crate) const AFTER_DRAIN: Duration = Duration::from_secs(1);
/// What a plan wants of this node.
pub(crate) struct Wanted {
    /// Its own addresses.
    pub(crate) links: Vec<IpAddr>,
    /// Those of all nodes.
    pub(crate) peers: Vec<IpAddr>,
    /// The virtual ones that it may hold.
    pub(crate) specs: Vec<Spec>,
    /// Its heartbeats; why there are none although the plan has a key.
    pub(crate) heartbeats: Option<Result<heartbeat::Spec, String>>,
}

/// # Errors
/// One sentence for the operator.
pub(crate) fn wanted(plan: &Plan, node: &str) -> Result<Wanted, String> {
    let id = plan.node(node).ok_or_else(|| format!("the plan has no node {node}"))?;
    let links = plan.nodes[usize::from(id.0)].links.clone();
    let specs = plan.vips_on(id).map(|(_, vip, priority)| spec(plan, id, vip, priority));
    let peers = plan.nodes.iter().flat_map(|node| node.links.iter().copied()).collect();
    let specs = specs.collect::<Result<_, _>>()?;
    Ok(Wanted { heartbeats: heartbeats(plan, id, &links), links, peers, specs })
}

fn heartbeats(plan: &Plan, node: NodeId, links: &[IpAddr]) -> Option<Result<heartbeat::Spec, String>> {
    let (file, config) = (plan.cluster_key.as_deref()?, heartbeat::config(plan, node)?);
    let key = std::fs::read(file)
        .map_err(|e| format!("the cluster-key {file} cannot be read ({e}); write the same one on every node"))
        .and_then(|text| Key::new(&text).map_err(|why| format!("the cluster-key {file} {why}")));
    Some(key.map(|key| heartbeat::Spec { config, links: links.to_vec(), key }))
}

fn spec(plan: &Plan, node: NodeId, vip: &Vip, priority: u8) -> Result<Spec, String> {
    let tracked = vip.track.iter().map(|track| {
        let what = match &track.what {
            Tracked::Frontend(id) => frontend(&plan.frontends[usize::from(id.0)].name),
            Tracked::Link(name) => link(name),
            Tracked::File(path) => file(path),
            Tracked::Backend { backend: id, min } => backend(&plan.backends[usize::from(id.0)].name, *min),
            Tracked::Script(known) => script(&known.command),
            Tracked::Quorum => QUORUM.into(),
        };
        // Until it is read a file changes nothing: neither a gain while down nor an obstacle.
        let weight = if matches!(track.what, Tracked::File(_)) { 1 } else { track.weight };
        Track { what: what.into(), weight }
    });
    let file = |track: &plan::Track| match &track.what {
        Tracked::File(path) => Some((path.clone(), track.weight)),
        _ => None,
    };
    let files = vip.track.iter().filter_map(file).collect();
    let others = vip.nodes.iter().filter(|(id, _)| *id != node);
    let rivals = others.map(|(_, priority)| *priority).max().unwrap_or(0);
    let key = vip.password.as_deref().map(|file| password(&vip.name, file)).transpose()?;
    let form = Form {
        version: if vip.version == 2 { Version::V2 } else { Version::V3 },
        authentication: match (key, vip.sealed) {
            (None, _) => Authentication::None,
            (Some(_), true) => Authentication::Header,
            (Some(key), false) => Authentication::PlainText(key),
        },
        checksum: if vip.checksum_with_pseudo_header { Checksum::PseudoHeader } else { Checksum::Message },
    };
    let peers = if vip.unicast.is_some() { peers(plan, node, vip)? } else { Vec::new() };
    Ok(Spec {
        name: vip.name.clone(),
        interface: vip.interface.clone(),
        sync_group: vip.sync_group.clone(),
        files,
        seal: key.filter(|_| vip.sealed),
        virtual_mac: vip.virtual_mac,
        prefixes: vip.addresses.iter().map(|a| a.prefix).collect(),
        config: Config {
            vrid: vip.router_id,
            priority,
            addresses: vip.addresses.iter().map(|a| a.address).collect(),
            form,
            peers,
            least_hop_limit: vip.unicast.unwrap_or(relais_vrrp::HOP_LIMIT),
            interval: vip.advertise,
            rivals,
            preempt: vip.preempt == Preempt::Always,
            preempt_delay: vip.preempt_delay,
            track: tracked.collect(),
            grace: HEALING_GRACE,
            drain: plan.drain + AFTER_DRAIN,
        },
    })
}

fn password(vip: &str, file: &str) -> Result<Password, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| format!("vip {vip}: its password {file} cannot be read ({e})"))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(Password::new(line)),
        _ => Err(format!("vip {vip}: the first line of {file} is empty; write the password there")),
    }
}

/// By which address each other node of the vip is reached.
fn peers(plan: &Plan, node: NodeId, vip: &Vip) -> Result<Vec<IpAddr>, String> {
    let others = vip.nodes.iter().filter(|(id, _)| *id != node);
    let address = |id: &NodeId| {
        let node = &plan.nodes[usize::from(id.0)];
        let near = |link: &&IpAddr| vip.addresses.iter().any(|network| contains(network, **link));
        let family = |link: &&IpAddr| link.is_ipv4() == vip.addresses[0].address.is_ipv4();
        let found = node.links.iter().find(near).or_else(|| node.links.iter().find(family));
        found.copied().ok_or_else(|| {
            let family = if vip.addresses[0].address.is_ipv4() { "IPv4" } else { "IPv6" };
            format!("vip {}: node {} has no {family} link to advertise to", vip.name, node.name)
        })
    };
    let all = others.map(|(id, _)| address(id)).collect::<Result<Vec<_>, _>>()?;
    if all.is_empty() {
        return Err(format!("vip {}: `unicast` needs another node to advertise to", vip.name));
    }
    Ok(all)
}

fn contains(network: &Cidr, address: IpAddr) -> bool {
    let bits = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    };
    let differ = bits(network.address) ^ bits(address);
    network.address.is_ipv4() == address.is_ipv4() && differ.leading_zeros() >= u32::from(network.prefix)
}
