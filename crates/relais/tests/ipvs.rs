//! `forward by=ipvs`: what IPVS carries from a client through the balancer to three servers. Where the kernel of this machine
//! has no IPVS these tests run on Debian's, in a virtual machine (`packaging/vm`): `on_a_kernel_with_ipvs` runs them all.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod node;
mod routed;

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::Ordering;

use node::{Node, await_some};
use relais_ipc::status::ForwardStatus;
use routed::{Net, Open, SERVERS, WEB, WEB6, ask_by_udp, await_serving, can_run, ip, open_to, shares, vips};
use rustix::process::Signal;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(10, 9, 1, 2));

#[test]
fn on_a_kernel_with_ipvs() {
    if !can_run() {
        return;
    }
    let relais = env!("CARGO_BIN_EXE_relais");
    let tests = std::env::current_exe().unwrap();
    let arguments = ["--ignored", "--test-threads=1", "--nocapture"];
    let vm = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/vm");
    let mut command = if Path::new("/proc/net/ip_vs").exists() {
        Command::new(tests)
    } else {
        let mut command = Command::new(vm);
        command.args(["--with", relais, "--with-command", "ip", "--with-command", "nft"]);
        command.args(["--with-command", "ipvsadm", "--"]).arg(tests);
        command
    };
    let output = command.args(arguments).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    if output.status.code() == Some(77) {
        assert!(std::env::var_os("CI").is_none(), "CI must not skip this: {said}");
        eprintln!("SKIPPED: {said}");
        return;
    }
    assert!(output.status.success() && said.contains("test result: ok. 6 passed"), "{said}");
}

fn ipvsadm(net: &Net, line: &str) -> String {
    let balancer = format!("{}-balancer", net.name);
    let line = format!("netns exec {balancer} ipvsadm {line}");
    let output = Command::new("ip").args(line.split(' ')).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn carried(node: &Node) -> ForwardStatus {
    await_some("its services", || vips(node).forwards.first().cloned())
}

fn command(node: &Node, line: &[&str]) -> String {
    let (ok, text) = node.command(line);
    assert!(ok, "{text}");
    text
}

#[test]
#[ignore = "on_a_kernel_with_ipvs runs it"]
fn weights_share_connections_and_dead_and_drained_servers_are_left() {
    let net = Net::new("weights");
    let servers = SERVERS
        .replacen(":8080\"", ":8080\" weight=3", 1)
        .replace("10.9.3.2:8080\"", "10.9.3.2:8080\" weight=2");
    let mut node = net.run(&format!("forward by=ipvs; bind \"{WEB}\""), &servers);
    node.await_log("net.ipv4.ip_forward was 0 and is 1 now");
    await_serving(WEB);
    await_some("a whole turn", || {
        let turn = shares(WEB, 60);
        (turn == BTreeMap::from([("s1".into(), 30), ("s2".into(), 20), ("s3".into(), 10)])).then_some(())
    });
    // What others do with IPVS is theirs.
    ipvsadm(&net, "-A -t 10.9.1.1:81 -s rr");

    let mut open = ["s1", "s2", "s3"].map(|server| open_to(server, WEB));
    assert_eq!(open[0].seen_as, CLIENT);
    net.well[0].store(false, Ordering::Relaxed);
    node.await_log("were cut");
    assert_eq!(shares(WEB, 30), BTreeMap::from([("s2".to_owned(), 20), ("s3".to_owned(), 10)]));
    open[0].ask().expect_err("a connection to a dead server is reset");
    assert_eq!(open[1].ask().unwrap(), "s2 10.9.1.2\n");
    net.well[0].store(true, Ordering::Relaxed);
    open_to("s1", WEB);

    command(&node, &["drain", "app/s2"]);
    let drained = shares(WEB, 40);
    assert!(!drained.contains_key("s2") && drained["s1"] == 30, "{drained:?}");
    assert_eq!(open[1].ask().unwrap(), "s2 10.9.1.2\n", "what it has it keeps");
    for well in &net.well {
        well.store(false, Ordering::Relaxed);
    }
    await_some("a refusal", || {
        Open::to(WEB).err().filter(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    });
    net.well.iter().for_each(|well| well.store(true, Ordering::Relaxed));
    await_serving(WEB);

    let of_others = "10.9.1.1:81";
    ipvsadm(&net, "-D -t 10.9.1.100:80");
    node.await_log("it is put back");
    await_serving(WEB);
    assert!(ipvsadm(&net, "-Ln").contains(of_others));
    let (pid, exited) = (node.process.id(), "10.9.1.100:80");
    node.signal(pid, Signal::TERM);
    assert!(node.await_exit().success());
    let left = ipvsadm(&net, "-Ln");
    assert!(left.contains(of_others) && !left.contains(exited), "{left}");
}

#[test]
#[ignore = "on_a_kernel_with_ipvs runs it"]
fn what_is_carried_is_told_and_a_reload_changes_the_way_it_is_shared() {
    let net = Net::new("told");
    let frontend = format!("forward by=ipvs; bind \"{WEB}\"");
    let node = net.run(&frontend, &format!("balance leastconn; {SERVERS}"));
    await_serving(WEB);
    let held: Vec<Open> = (0..6).map(|_| Open::to(WEB).unwrap()).collect();
    for server in ["s1", "s2", "s3"] {
        assert_eq!(held.iter().filter(|open| open.server == server).count(), 2, "each has as many");
    }
    let told = || carried(&node).servers.iter().map(|server| server.connections_total).sum::<u64>();
    await_some("the counters", || (told() >= 7).then_some(()));
    let text = command(&node, &["status"]);
    assert!(
        text.contains("frontend web (forward): tcp 10.9.1.100:80, carried by the kernel's IPVS (wlc, nat)"),
        "{text}"
    );
    let file = node.dir.join("plan.kdl");
    let plan = routed::platform(node.admin, &frontend, &format!("balance source; {SERVERS}"));
    std::fs::write(&file, plan).unwrap();
    command(&node, &["apply", file.to_str().unwrap()]);
    assert!(ipvsadm(&net, "-Ln").contains("TCP  10.9.1.100:80 mh"), "{}", ipvsadm(&net, "-Ln"));
    assert_eq!(shares(WEB, 10).len(), 1, "a client stays with its server");
    for mut open in held {
        assert_eq!(
            open.ask().unwrap(),
            format!("{} {CLIENT}\n", open.server),
            "and connections where they are"
        );
    }
    net.enter("balancer");
    let check = Command::new(env!("CARGO_BIN_EXE_relais")).arg("check").arg(&file).output().unwrap();
    let text = String::from_utf8([check.stdout, check.stderr].concat()).unwrap();
    assert!(text.contains("IPVS, sharing by `mh`, can carry the IPv4 part"), "{text}");
}

#[test]
#[ignore = "on_a_kernel_with_ipvs runs it"]
fn datagrams_are_shared_and_leave_a_dead_server() {
    let net = Net::new("udp");
    let node = net.run(&format!("forward by=ipvs protocol=udp; bind \"{WEB}\""), SERVERS);
    let open = || UdpSocket::bind("0.0.0.0:0").unwrap();
    await_some("an answer", || ask_by_udp(&open(), WEB));
    let session = await_some("a session with s1", || {
        let socket = open();
        ask_by_udp(&socket, WEB).filter(|answer| answer == "s1 10.9.1.2\n").map(|_| socket)
    });
    assert!(ask_by_udp(&session, WEB).unwrap().starts_with("s1"));
    net.well[0].store(false, Ordering::Relaxed);
    node.await_log("were cut");
    let moved = await_some("another server", || ask_by_udp(&session, WEB));
    assert!(!moved.starts_with("s1"), "{moved}");
}

#[test]
#[ignore = "on_a_kernel_with_ipvs runs it"]
fn ipv6_is_carried() {
    let net = Net::new("ipv6");
    let servers = "server s1 \"[fd09:2::2]:8080\" weight=2; server s2 \"[fd09:3::2]:8080\"; server s3 \"[fd09:4::2]:8080\"";
    let node = net.run(&format!("forward by=ipvs; bind \"{WEB6}\""), servers);
    node.await_log("net.ipv6.conf.all.forwarding was 0 and is 1 now");
    await_serving(WEB6);
    await_some("a whole turn", || {
        let turn = shares(WEB6, 40);
        (turn == BTreeMap::from([("s1".into(), 20), ("s2".into(), 10), ("s3".into(), 10)])).then_some(())
    });
}

/// Servers have the address too, where only IPVS finds it, and a way of their own to the client. They know the client's
/// link by an interface that no answer of theirs leaves the balancer by.
fn past_the_balancer(net: &Net) {
    for (number, machine) in (2..).zip(["s1", "s2", "s3"]) {
        let (name, out) = (&net.name, format!("from{number}"));
        ip(&format!("-n {name}-client link add {out} type veth peer name out netns {name}-{machine}"));
        ip(&format!("-n {name}-client link set {out} up"));
        ip(&format!("-n {name}-{machine} link set out up"));
        ip(&format!("-n {name}-{machine} address add 10.9.1.100/32 dev lo"));
        ip(&format!("-n {name}-{machine} route add 10.9.1.2/32 dev out src 10.9.1.100"));
    }
}

/// Where answers to the client pass is known by who may still send any.
fn close_the_way_back(net: &Net) {
    ip(&format!("netns exec {}-balancer nft add table ip closed", net.name));
    let line = "add chain ip closed out { type filter hook postrouting priority 0 ; }";
    let balancer = format!("{}-balancer", net.name);
    let nft = |line: &str| {
        let done = Command::new("ip").args(["netns", "exec", &balancer, "nft", line]).status().unwrap();
        assert!(done.success(), "nft {line}");
    };
    nft(line);
    nft("add rule ip closed out oifname front tcp sport 8080 drop");
}

#[test]
#[ignore = "on_a_kernel_with_ipvs runs it"]
fn servers_on_the_link_answer_past_the_balancer() {
    let net = Net::new("direct");
    past_the_balancer(&net);
    close_the_way_back(&net);
    let address = "10.9.1.100:8080";
    let node = net.run(&format!("forward by=ipvs method=direct; bind \"{address}\""), SERVERS);
    await_serving(address);
    assert_eq!(shares(address, 30).len(), 3);
    assert_eq!(Open::to(address).unwrap().seen_as, CLIENT);
    assert_eq!(carried(&node).ipvs.as_deref(), Some("wrr, direct"));
}

#[test]
#[ignore = "on_a_kernel_with_ipvs runs it"]
fn servers_anywhere_are_reached_by_a_tunnel() {
    let net = Net::new("tunnel");
    past_the_balancer(&net);
    close_the_way_back(&net);
    for (number, machine) in (2..).zip(["s1", "s2", "s3"]) {
        let name = &net.name;
        ip(&format!("-n {name}-{machine} tunnel add wrapped mode ipip local 10.9.{number}.2"));
        ip(&format!("-n {name}-{machine} link set wrapped up"));
    }
    let address = "10.9.1.100:8080";
    let node = net.run(&format!("forward by=ipvs method=tunnel; bind \"{address}\""), SERVERS);
    await_serving(address);
    assert_eq!(shares(address, 30).len(), 3);
    assert_eq!(carried(&node).ipvs.as_deref(), Some("wrr, tunnel"));
}
