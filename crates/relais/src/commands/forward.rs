//! What `relais check` says of `mode forward`: what this machine's kernel can carry of it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use relais_config::plan::{By, Plan};
use relais_config::{Remark, Severity};
use relais_vip::CannotForward;

/// Where a kernel shows its IPVS.
const IPVS: &str = "/proc/net/ip_vs";

pub(crate) fn look(plan: &Plan) -> Vec<Remark> {
    // What is needed: by nftables, or a scheduler of IPVS; for which family.
    let mut needed = BTreeSet::new();
    for frontend in &plan.frontends {
        let Some(forward) = frontend.forward else { continue };
        let backend = frontend.default_backend.map(|id| &plan.backends[usize::from(id.0)]);
        let scheduler = match forward.by {
            By::Nftables { .. } => None,
            By::Ipvs(_) => backend.and_then(|backend| backend.balance.ipvs_scheduler()),
        };
        needed.extend(frontend.binds.iter().map(|bind| (scheduler, bind.address.is_ipv6())));
    }
    needed.into_iter().map(|(scheduler, ipv6)| remark(scheduler, ipv6)).collect()
}

fn remark(scheduler: Option<&str>, ipv6: bool) -> Remark {
    let kind = if ipv6 { "IPv6" } else { "IPv4" };
    let (found, what) = match scheduler {
        None => (relais_vip::can_forward(ipv6), "nftables".to_owned()),
        Some(name) => (relais_vip::can_forward_by_ipvs(name, ipv6), format!("IPVS, sharing by `{name}`,")),
    };
    let (severity, message, help) = match found {
        Ok(()) => {
            let other = match scheduler {
                Some(_) => "every node that is to carry it has to have them",
                None if Path::new(IPVS).exists() => "its IPVS is there too: `forward by=ipvs` would use it",
                None => "IPVS is not there, and is not needed",
            };
            let message = format!("{what} can carry the {kind} part of `mode forward` on this machine");
            (Severity::Note, message, other.to_owned())
        }
        Err(CannotForward::Unknown(why)) => {
            (Severity::Note, why, "run `relais check` as root on each node that is to carry it".to_owned())
        }
        Err(CannotForward::Lacking(why)) if scheduler.is_some() => {
            let help = match relais_vip::can_forward(ipv6) {
                Ok(()) => "nftables could carry it on this machine: write `forward by=nftables`",
                Err(_) => "no node can run it with this kernel: write `mode tcp` or `mode udp`",
            };
            (Severity::Warning, why, help.to_owned())
        }
        Err(CannotForward::Lacking(why)) => {
            let help = "no node can run `mode forward` with this kernel: write `mode tcp` or `mode udp`";
            (Severity::Warning, why, help.to_owned())
        }
    };
    Remark { path: PathBuf::new(), severity, missing: false, message, help }
}
