//! The peer: HAProxy and keepalived as their manuals would have them, equivalent to `examples/lab.kdl`. It is
//! what Relais is compared with, and it shows that a drill can see what it claims to see.

use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::network::{INTERFACE, PREFIX};
use crate::platform::{BALANCERS, VIP};

/// Writes a host's files into `dir`.
pub(crate) fn write(
    dir: &Path,
    host: &str,
    servers: &[(String, SocketAddr)],
    advertise_ms: u64,
    edition: u32,
) -> io::Result<()> {
    fs::write(dir.join("haproxy.cfg"), haproxy_cfg(dir, servers, edition))?;
    // keepalived's track_process listens to the kernel's connector, which exists in the first namespace only,
    // and names would match the other machines' processes: its other way is a script.
    let check = dir.join("check.sh");
    fs::write(&check, format!("#!/bin/sh\nkill -0 \"$(cat {}/haproxy.pid)\"\n", dir.display()))?;
    fs::set_permissions(&check, Permissions::from_mode(0o700))?;
    let keepalived = dir.join("keepalived.conf");
    fs::write(&keepalived, keepalived_conf(dir, host, advertise_ms))?;
    fs::set_permissions(&keepalived, Permissions::from_mode(0o600))
}

fn haproxy_cfg(dir: &Path, servers: &[(String, SocketAddr)], edition: u32) -> String {
    let lines =
        servers.iter().map(|(name, address)| format!("    server {name} {address} check maxconn 5000\n"));
    let (dir, maxconn, retries) = (dir.display(), 5000 + edition, 3 + edition % 2);
    format!(
        "global
    stats socket {dir}/haproxy.sock mode 600 level admin expose-fd listeners
    maxconn 8000
defaults
    mode http
    timeout connect 3s
    timeout client 1m
    timeout server 1m
    timeout http-request 10s
    timeout http-keep-alive 10s
    timeout queue 10s
    timeout check 5s
    option forwardfor except 127.0.0.0/8
frontend web
    bind *:80
    maxconn {maxconn}
    default_backend app
backend app
    balance roundrobin
    option httpchk
    http-check send meth GET uri /healthz
    http-check expect status 200
    default-server inter 1s fall 2 rise 2
    retries {retries}
    option redispatch 1
    retry-on conn-failure empty-response
    http-request disable-l7-retry unless METH_GET
{}",
        lines.collect::<String>()
    )
}

fn keepalived_conf(dir: &Path, host: &str, advertise_ms: u64) -> String {
    let priority = if host == BALANCERS[0] { 101 } else { 100 };
    let (dir, advertise) = (dir.display(), advertise_ms as f64 / 1000.0);
    format!(
        "global_defs {{
    router_id {host}
    vrrp_version 3
    script_user root
    vrrp_garp_master_delay 1
    vrrp_garp_master_refresh 10
    vrrp_rt_priority 50
    vrrp_no_swap
}}
vrrp_script haproxy {{
    script \"{dir}/check.sh\"
    interval 1
    timeout 1
    fall 1
    rise 1
}}
vrrp_instance public {{
    state BACKUP
    interface {INTERFACE}
    virtual_router_id 51
    priority {priority}
    advert_int {advertise}
    nopreempt
    virtual_ipaddress {{
        {VIP}/{PREFIX} dev {INTERFACE}
    }}
    track_script {{
        haproxy
    }}
}}
"
    )
}

/// HAProxy in the foreground, master and worker.
pub(crate) fn haproxy(dir: &Path) -> Command {
    let mut command = Command::new("haproxy");
    command.args(["-W", "-db", "-f"]).arg(dir.join("haproxy.cfg")).arg("-p").arg(dir.join("haproxy.pid"));
    command
}

/// keepalived in the foreground.
pub(crate) fn keepalived(dir: &Path) -> Command {
    let (parent, vrrp) = (dir.join("keepalived.pid"), dir.join("vrrp.pid"));
    for stale in [&parent, &vrrp] {
        let _ = fs::remove_file(stale); // after SIGKILL it would take another process's pid for its own
    }
    let mut command = Command::new("keepalived");
    command.args(["-n", "-l", "-D", "-P", "-f"]).arg(dir.join("keepalived.conf"));
    command.arg("-p").arg(parent).arg("-r").arg(vrrp);
    command
}

/// Why HAProxy is not well.
pub(crate) fn fault(dir: &Path) -> Result<(), String> {
    let ask = || {
        let mut socket = UnixStream::connect(dir.join("haproxy.sock"))?;
        socket.set_read_timeout(Some(Duration::from_secs(1)))?;
        socket.write_all(b"show stat\n")?;
        let mut csv = String::new();
        socket.read_to_string(&mut csv)?;
        io::Result::Ok(csv)
    };
    let csv = ask().map_err(|e| format!("no statistics yet ({e})"))?;
    let mut servers = csv.lines().filter_map(|line| {
        let fields: Vec<_> = line.split(',').collect();
        let (name, status) = (*fields.get(1)?, *fields.get(17)?);
        (!line.starts_with('#') && !matches!(name, "FRONTEND" | "BACKEND")).then_some((name, status))
    });
    match servers.find(|(_, status)| *status != "UP") {
        Some((name, status)) => Err(format!("server {name} is {status}")),
        None => Ok(()),
    }
}
