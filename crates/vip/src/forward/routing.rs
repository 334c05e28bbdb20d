//! A machine passes packets on only if it is told to: `ip_forward`, and the like for IPv6. Called by `forward`.

use std::fs;
use std::path::Path;

use tracing::{info, warn};

const IPV4: &str = "/proc/sys/net/ipv4/ip_forward";
const IPV6: &str = "/proc/sys/net/ipv6/conf/all/forwarding";
const NO_SERVER: &str = "/proc/sys/net/ipv4/vs/expire_nodest_conn";
const INTERFACES: &str = "/proc/sys/net/ipv6/conf";

/// Switches on what is off, and says so. It stays on when Relais ends: others may count on it by then.
pub(crate) fn switch_on(ipv6: bool) {
    let path = if ipv6 { IPV6 } else { IPV4 };
    if fs::read(path).is_ok_and(|value| value.starts_with(b"1")) {
        return;
    }
    if ipv6 {
        keep_router_advertisements();
    }
    let name = path.trim_start_matches("/proc/sys/").replace('/', ".");
    match fs::write(path, "1") {
        Ok(()) => info!("{name} was 0 and is 1 now: without it the kernel passes nothing on to servers"),
        Err(error) => warn!(
            "{name} is 0 and cannot be set ({error}), so nothing is passed on to servers: set it with `sysctl -w {name}=1`"
        ),
    }
}

/// IPVS drops what comes for connections to a server that it no longer has, unless this is set: then their clients are
/// answered with a reset, and come again.
pub(crate) fn answer_for_the_dead() {
    if fs::read(NO_SERVER).is_ok_and(|value| value.starts_with(b"1")) {
        return;
    }
    match fs::write(NO_SERVER, "1") {
        Ok(()) => info!(
            "net.ipv4.vs.expire_nodest_conn was 0 and is 1 now: clients of a dead server are to come again"
        ),
        Err(error) => warn!(
            "net.ipv4.vs.expire_nodest_conn cannot be set ({error}), so clients of a dead server wait for their own time-outs: \
             set it with `sysctl -w net.ipv4.vs.expire_nodest_conn=1`"
        ),
    }
}

/// A machine that passes packets on no longer listens to routers, unless `accept_ra` is 2: it would lose its way out.
fn keep_router_advertisements() {
    for interface in fs::read_dir(INTERFACES).into_iter().flatten().flatten() {
        let path = interface.path().join("accept_ra");
        if fs::read(&path).is_ok_and(|value| value.starts_with(b"1")) && listens(&interface.path()) {
            let _ = fs::write(path, "2");
        }
    }
}

/// `default` and `all` are no interfaces, but what new ones begin with.
fn listens(interface: &Path) -> bool {
    interface.file_name().is_some_and(|name| name != "all")
}
