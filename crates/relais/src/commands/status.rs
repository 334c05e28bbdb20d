//! `relais status`: the running node in a few lines, or as JSON.

use std::fmt::Write;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use relais_ipc::message::{Answer, Ask, Moved};
use relais_ipc::status::{
    BackendStatus, ForwardStatus, ForwardTargetStatus, FrontendStatus, HeartbeatStatus, NodeStatus,
    PeerStatus, ProxyStatus, VipStatus, VipsStatus, fetch,
};

use super::{ask, fail, print};

/// A process that does not tell its status in this time is said not to answer.
const LIMIT: Duration = Duration::from_secs(1);

pub(crate) fn run(run_dir: &Path, json: bool) -> ExitCode {
    let node = match ask(run_dir, &Ask::Status, None) {
        Ok(Answer::Status(node)) => node,
        Ok(other) => return fail(&format!("the node answered something else: {other:?}")),
        Err(why) => return fail(&why),
    };
    let proxy: Option<ProxyStatus> = fetch(&run_dir.join("proxy.sock"), LIMIT).ok();
    let vips: Option<VipsStatus> = fetch(&run_dir.join("vip.sock"), LIMIT).ok();
    if json {
        let all = serde_json::json!({ "node": node, "proxy": proxy, "vips": vips });
        print(&format!("{all:#}\n"));
    } else {
        print(&text(&node, proxy.as_ref(), vips.as_ref()));
    }
    ExitCode::SUCCESS
}

fn text(node: &NodeStatus, proxy: Option<&ProxyStatus>, vips: Option<&VipsStatus>) -> String {
    let mut out = String::new();
    let state = if node.stopping { ", stopping" } else { "" };
    let _ = writeln!(
        out,
        "node {} of {}: {} (generation {}), relais {}, pid {}{state}",
        node.node, node.platform, node.file, node.generation, node.version, node.pid
    );
    if let Some(standby) = &node.standby {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs() as i64);
        let ago = now.saturating_sub(standby.since);
        let _ = writeln!(out, "  in STANDBY for {ago} s, by {}: `relais ready` ends it", standby.by);
    }
    for process in &node.processes {
        let pid = process.pid.map_or("being started".to_owned(), |pid| format!("pid {pid}"));
        let ready = if process.ready { "" } else { ", plan not in force yet" };
        let _ = writeln!(out, "  {:<8} {pid}, {} restarts{ready}", process.role.name(), process.restarts);
    }
    match vips {
        Some(vips) => {
            vips.vips.iter().for_each(|vip| write_vip(&mut out, vip));
            write_heartbeats(&mut out, &vips.heartbeats);
        }
        None => out.push_str("vip does not answer\n"),
    }
    let Some(proxy) = proxy else {
        out.push_str("proxy does not answer\n");
        return out;
    };
    for frontend in &proxy.frontends {
        let forward = vips.into_iter().flat_map(|vips| &vips.forwards).find(|f| f.frontend == frontend.name);
        match forward {
            Some(forward) => write_forward(&mut out, forward),
            None => write_frontend(&mut out, frontend),
        }
    }
    proxy.backends.iter().for_each(|backend| write_backend(&mut out, backend));
    proxy.peers.iter().for_each(|peer| write_peer(&mut out, peer));
    for line in &node.overrides {
        let _ = writeln!(out, "changed by an operator: {line}");
    }
    if !node.pending.is_empty() {
        let _ = writeln!(out, "not acted on by this build: {}", node.pending.join(", "));
    }
    out
}

fn write_vip(out: &mut String, vip: &VipStatus) {
    let state = format!("{:?}", vip.state).to_lowercase();
    let master = vip.master.map_or(String::new(), |master| format!(", last advertised by {master}"));
    let moved = match vip.moved {
        Some(Moved::Here(_)) => ", moved here by hand",
        Some(Moved::Away) => ", moved away by hand",
        None => "",
    };
    let _ = writeln!(
        out,
        "vip {} {} on {}: {state} for {} s, priority {}{moved}{master}: {}",
        vip.name, vip.address, vip.interface, vip.since_s, vip.priority, vip.reason
    );
}

/// One line for all that is well, one for each way that is not.
fn write_heartbeats(out: &mut String, all: &[HeartbeatStatus]) {
    if all.is_empty() {
        return;
    }
    let up = all.iter().filter(|path| path.up).count();
    let _ = writeln!(out, "heartbeats: {up} of {} ways to other nodes", all.len());
    for path in all.iter().filter(|path| !path.up) {
        let age = path.age_ms.map_or("never heard".to_owned(), |ms| format!("silent for {} s", ms / 1000));
        let _ = writeln!(out, "  {} at {}: {age}", path.node, path.to);
    }
}

/// A frontend that no process of ours sees anything of.
fn write_forward(out: &mut String, forward: &ForwardStatus) {
    let ForwardStatus { frontend, protocol, masquerade, stale, ipvs, .. } = forward;
    let how = match ipvs {
        Some(ipvs) => format!("'s IPVS ({ipvs})"),
        None if *masquerade => String::new(),
        None => " without masquerading".to_owned(),
    };
    let (addresses, total) = (forward.addresses.join(", "), |s: &ForwardTargetStatus| s.connections_total);
    let _ = writeln!(
        out,
        "frontend {frontend} (forward): {protocol} {addresses}, carried by the kernel{how}, {} connections so far{}",
        forward.servers.iter().map(total).sum::<u64>(),
        if *stale { "; its LAST CHANGE WAS REFUSED by the kernel, the log says why" } else { "" }
    );
    for server in &forward.servers {
        let state = if server.up { "up" } else { "DOWN" };
        let _ = writeln!(
            out,
            "  {:<16} {:<21} {state:<4} weight {}, {} connections",
            server.name, server.address, server.weight, server.connections_total
        );
    }
}

fn write_frontend(out: &mut String, frontend: &FrontendStatus) {
    let FrontendStatus { name, mode, connections, max_connections, .. } = frontend;
    let _ = match mode.as_str() {
        "forward" => {
            writeln!(out, "frontend {name} (forward): carried by the kernel, and vip does not answer")
        }
        "udp" => writeln!(
            out,
            "frontend {name} (udp): {connections} of {max_connections} sessions, {} datagrams in, {} out, {} dropped",
            frontend.datagrams_in_total, frontend.datagrams_out_total, frontend.datagrams_dropped_total
        ),
        _ => writeln!(
            out,
            "frontend {name} ({mode}): {connections} of {max_connections} connections, {} requests, {} refused, {} answered 5xx",
            frontend.requests_total, frontend.request_errors_total, frontend.responses_total[4]
        ),
    };
    if let Some(shield) = &frontend.shield {
        let _ = writeln!(
            out,
            "  shield {}: {} wait, {} let in, {} gave up, {} told to wait, {:.1} a second may come in",
            if shield.active { "ACTIVE" } else { "open" },
            shield.waiting,
            shield.admitted_total,
            shield.abandoned_total,
            shield.turned_away_total,
            shield.rate_per_1000_s as f64 / 1000.0
        );
    }
}

fn write_peer(out: &mut String, peer: &PeerStatus) {
    let _ = writeln!(
        out,
        "peer {}{}: {}, told of {} keys, learned {}, {} of no use here",
        peer.name,
        if peer.haproxy { " (HAProxy)" } else { "" },
        if peer.connected { "there" } else { "NOT there" },
        peer.sent_total,
        peer.learned_total,
        peer.ignored_total
    );
}

fn write_backend(out: &mut String, backend: &BackendStatus) {
    let up = backend.servers.iter().filter(|server| server.up).count();
    let _ = writeln!(
        out,
        "backend {} ({}): {up} of {} servers up, {} queued, {} unserved{}",
        backend.name,
        backend.mode,
        backend.servers.len(),
        backend.queued,
        backend.unserved_total,
        if backend.breaker_open { "; its BREAKER IS OPEN: too many requests failed" } else { "" }
    );
    if let Some(table) = &backend.table {
        let _ = writeln!(
            out,
            "  table: {} of {} keys, {} requests stayed, {} were new, {} keys forgotten for want of room",
            table.entries, table.size, table.known_total, table.unknown_total, table.evicted_total
        );
    }
    for server in &backend.servers {
        let state = match server.admin.as_str() {
            "drain" if server.up => "drained",
            _ if server.up => "up",
            _ => "DOWN",
        };
        let check = match server.admin.as_str() {
            "down" => "put down by an operator",
            _ if server.checked => server.check.as_str(),
            _ => "not checked",
        };
        let role = if server.backup { "backup, " } else { "" };
        let _ = writeln!(
            out,
            "  {:<16} {:<21} {state:<4} for {} s, {role}weight {}, {} active, {} served, {} retried: {check}",
            server.name,
            server.address,
            server.since_s,
            server.weight,
            server.active,
            server.sessions_total,
            server.retries_total
        );
    }
}
