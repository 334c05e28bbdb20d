//! Gives up every privilege but the five that this process needs. Called once, before any thread starts:
//! capabilities belong to a thread and are inherited by those it makes.

use rustix::thread::{CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_no_new_privs};

/// Keeps `NET_ADMIN` (addresses), `NET_RAW` (VRRP, ARP), `SYS_NICE` (real time), `IPC_LOCK` (locked
/// memory) and `BPF` (the gate), as far as they are there.
///
/// # Errors
/// One sentence with what to do, if the first two are not there.
pub(crate) fn drop_all_but_needed() -> Result<(), String> {
    let needed = CapabilitySet::NET_ADMIN | CapabilitySet::NET_RAW;
    let useful = needed | CapabilitySet::SYS_NICE | CapabilitySet::IPC_LOCK | CapabilitySet::BPF;
    let there = capabilities(None).map_err(|e| format!("the kernel does not tell our capabilities ({e})"))?;
    let kept = there.permitted & useful;
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    set_no_new_privs(true).map_err(|e| format!("new privileges could not be ruled out ({e})"))?;
    set_capabilities(None, sets).map_err(|e| format!("privileges could not be dropped ({e})"))?;
    if kept.contains(needed) {
        Ok(())
    } else {
        Err("virtual addresses need CAP_NET_ADMIN and CAP_NET_RAW: start `relais run` as root, or take the \
             vip section out of the file"
            .into())
    }
}
