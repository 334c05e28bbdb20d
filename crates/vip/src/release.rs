//! What a killed Relais leaves in the kernel, taken away: the addresses of the plan, their gates, relays and routes, and the rules of what the kernel forwards.
//! No other node needs it, for each of these is a lease or ends by itself within seconds; it is for a node that is not
//! started again, and for the operator who wants the machine as it was. Called by `relais release`.

use std::io;

use relais_config::Plan;
use relais_config::plan::Cidr;

use crate::forward;
use crate::gate::{self, Gate};
use crate::macvlan;
use crate::netlink::Netlink;
use crate::relay;

/// Takes away whatever is left of the addresses that this node may hold; says what was there. A second call finds
/// nothing.
///
/// # Errors
/// One sentence for the operator.
pub fn release(plan: &Plan, node: &str) -> Result<Vec<String>, String> {
    let id = plan.node(node).ok_or_else(|| format!("the plan has no node {node}"))?;
    let mut netlink = Netlink::new().map_err(|e| format!("the kernel cannot be asked ({e})"))?;
    let mut found = Vec::new();
    for (_, vip, _) in plan.vips_on(id) {
        // Its addresses go with it.
        let (vrid, is_ipv4) = (vip.router_id, vip.addresses[0].address.is_ipv4());
        let name = macvlan::name(vrid, is_ipv4);
        let mac = macvlan::address(vrid, is_ipv4);
        if vip.virtual_mac
            && netlink
                .remove_macvlan(&name, mac)
                .map_err(|e| format!("the interface {name} cannot be removed ({e}); are you root?"))?
        {
            found.push(format!("the interface {name} with the virtual MAC"));
        }
        for (i, cidr) in (0..).zip(&vip.addresses) {
            let (interface, number) = (&vip.interface, gate::number(vip.router_id, cidr.address, i));
            release_address(&mut netlink, interface, *cidr, number, &mut found).map_err(|e| {
                format!("{} cannot be taken off {interface} ({e}); are you root?", cidr.address)
            })?;
        }
    }
    if forward::release(plan, id)
        .map_err(|e| format!("the rules of `mode forward` cannot be removed ({e}); are you root?"))?
    {
        found.push("the rules of `mode forward`".to_owned());
    }
    Ok(found)
}

/// The address first: until it is gone its gate keeps it mute.
fn release_address(
    netlink: &mut Netlink,
    interface: &str,
    Cidr { address, prefix }: Cidr,
    number: u32,
    found: &mut Vec<String>,
) -> io::Result<()> {
    if let Some(interface_now) = netlink.interface(interface)? {
        let index = interface_now.index;
        if netlink.take(index, address, prefix)? {
            found.push(format!("{address}/{prefix} on {interface}"));
        }
        if Gate::remove(index, number) {
            found.push(format!("the gate of {address} on {interface}"));
        }
    }
    if relay::release(address) {
        found.push(format!("the relay of open connections to {address}"));
    }
    if netlink.accept_without_address(address, false)? {
        found.push(format!("the local route for {address}"));
    }
    Ok(())
}
