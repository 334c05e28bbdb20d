//! What `relais check` says of `mode forward`: whether this machine's kernel can.

use std::path::{Path, PathBuf};

use relais_config::plan::Plan;
use relais_config::{Remark, Severity};

/// Where a kernel with IPVS shows it.
const IPVS: &str = "/proc/net/ip_vs";

pub(crate) fn look(plan: &Plan) -> Vec<Remark> {
    let binds = || plan.frontends.iter().filter(|f| f.forward.is_some()).flat_map(|f| &f.binds);
    let families = [false, true].into_iter().filter(|ipv6| binds().any(|b| b.address.is_ipv6() == *ipv6));
    families.map(family).collect()
}

fn family(ipv6: bool) -> Remark {
    let kind = if ipv6 { "IPv6" } else { "IPv4" };
    let ipvs = if Path::new(IPVS).exists() {
        "its IPVS is there too, and Relais does not use it"
    } else {
        "IPVS is not there, and is not needed"
    };
    let (severity, message, help) = match relais_vip::can_forward(ipv6) {
        Ok(()) => {
            let message = format!("nftables can carry the {kind} part of `mode forward` on this machine");
            (Severity::Note, message, ipvs.to_owned())
        }
        Err(relais_vip::CannotForward::Unknown(why)) => {
            (Severity::Note, why, "run `relais check` as root on each node that is to carry it".to_owned())
        }
        Err(relais_vip::CannotForward::Lacking(why)) => {
            let help = format!(
                "no node can run `mode forward` with this kernel: write `mode tcp` or `mode udp`; {ipvs}"
            );
            (Severity::Warning, why, help)
        }
    };
    Remark { path: PathBuf::new(), severity, missing: false, message, help }
}
