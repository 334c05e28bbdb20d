//! Datagrams through a node that is run for real: what clients see while processes die and plans change, and a name
//! server that Debian ships, asked by UDP and TCP on one address.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod node;

use std::io::Read;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use node::{
    Node, PATIENCE, await_some, await_standstill, echo_datagrams, free_port, get, udp_plan, under_udp_load,
};
use relais_ipc::Role;
use rustix::process::Signal;

const RELAIS: &str = env!("CARGO_BIN_EXE_relais");

fn udp_node(more: &str) -> Node {
    let server = echo_datagrams();
    Node::prepare(|web, admin| udp_plan(web, admin, server, more)).run(Path::new(RELAIS), &[])
}

fn answers(node: &Node) -> u64 {
    node.proxy().map_or(0, |status| status.frontends[0].datagrams_out_total)
}

#[test]
fn a_killed_proxy_costs_no_more_than_what_was_on_its_way() {
    let node = udp_node("");
    // Clients ask one question at a time, and wait for an answer for longer than the next proxy takes to start.
    let (answered, lost) = under_udp_load(node.web, Duration::from_secs(3), || {
        await_some("answers", || (answers(&node) > 50).then_some(()));
        let before = node.pid(Role::Proxy).unwrap();
        node.signal(before, Signal::KILL);
        await_some("the next proxy", || node.pid(Role::Proxy).filter(|pid| *pid != before));
        await_some("answers of the next", || (answers(&node) > 50).then_some(()));
    });
    assert!(answered > 100);
    assert!(lost.iter().all(|lost| *lost <= 1), "{lost:?} of {answered}");
}

#[test]
fn what_came_while_no_proxy_was_there_is_answered_by_the_next() {
    let node = udp_node("");
    let before = node.pid(Role::Proxy).unwrap();
    node.signal(before, Signal::STOP);
    await_standstill(before);
    let clients = [0u8; 100].map(|_| {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(node.web).unwrap();
        socket.send(b"anybody?").unwrap();
        socket
    });
    node.signal(before, Signal::KILL);
    for client in clients {
        let mut buffer = [0; 16];
        assert_eq!(client.recv(&mut buffer).expect("an answer"), 8);
    }
}

#[test]
fn a_reload_costs_no_question_by_udp() {
    let node = udp_node("");
    let file = node.dir.join("plan.kdl");
    let plan = std::fs::read_to_string(&file).unwrap();
    let (answered, lost) = under_udp_load(node.web, PATIENCE, || {
        for n in 0..5 {
            std::fs::write(&file, plan.replace("responses 1", &format!("responses 1\n retries {n}")))
                .unwrap();
            let (ok, text) = node.command(&["apply", file.to_str().unwrap()]);
            assert!(ok, "{text}");
        }
    });
    assert_eq!(lost, [0, 0, 0], "of {answered}");
    assert!(answered > 50);
}

#[test]
fn sessions_and_datagrams_are_told_by_status_and_metrics() {
    let node = udp_node("");
    let (answered, _) = under_udp_load(node.web, PATIENCE, || {
        await_some("answers", || (answers(&node) > 10).then_some(()));
    });
    await_some("the last answer's count", || (answers(&node) == u64::from(answered)).then_some(()));
    let (ok, text) = node.command(&["status"]);
    assert!(ok && text.contains("1 of 1 servers up"), "{text}");
    let line = format!(
        "frontend dns (udp): 0 of 20000 sessions, {answered} datagrams in, {answered} out, 0 dropped"
    );
    assert!(text.contains(&line), "{text}");
    let (_, metrics) = get(node.admin, "/metrics").unwrap();
    for (name, labels) in [
        ("relais_frontend_datagrams_in_total", "proxy=\"dns\""),
        ("relais_frontend_datagrams_out_total", "proxy=\"dns\""),
        ("haproxy_frontend_sessions_total", "proxy=\"dns\""),
        ("relais_backend_datagrams_in_total", "proxy=\"resolvers\""),
        ("relais_backend_datagrams_out_total", "proxy=\"resolvers\""),
        ("relais_server_datagrams_in_total", "proxy=\"resolvers\",server=\"s\""),
        ("relais_server_datagrams_out_total", "proxy=\"resolvers\",server=\"s\""),
    ] {
        let line = format!("{name}{{{labels}}} {answered}\n");
        assert!(metrics.contains(&line), "{line}{metrics}");
    }
    assert!(metrics.contains("relais_frontend_datagrams_dropped_total{proxy=\"dns\"} 0\n"), "{metrics}");
}

/// dnsmasq, ended with the test.
struct NameServer(Child, SocketAddr);

impl NameServer {
    fn start(address: SocketAddr) -> NameServer {
        let mut command = Command::new("dnsmasq");
        command.args(["--no-daemon", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file"]);
        command.args(["--bind-interfaces", "--listen-address=127.0.0.1", "--user=root", "--cache-size=0"]);
        command.arg(format!("--port={}", address.port())).arg("--address=/www.example/192.0.2.7");
        for n in 0..40 {
            command.arg(format!("--txt-record=long.example,{n}-{}", "x".repeat(200)));
        }
        let server = NameServer(command.stderr(Stdio::null()).spawn().unwrap(), address);
        await_some("the name server", || std::net::TcpStream::connect(address).ok());
        server
    }
}

impl Drop for NameServer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn dig(address: SocketAddr, arguments: &[&str]) -> String {
    let port = address.port().to_string();
    let mut dig = Command::new("dig");
    dig.args(["@127.0.0.1", "-p", &port, "+tries=1", "+time=10"]).args(arguments).stdout(Stdio::piped());
    let mut dig = dig.spawn().unwrap();
    let mut said = String::new();
    dig.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    dig.wait().unwrap();
    said
}

#[test]
fn name_servers_are_asked_by_udp_and_tcp_on_one_address() {
    let there = |program: &str| Command::new(program).arg("-v").output().is_ok();
    if !there("dnsmasq") || !there("dig") {
        assert!(std::env::var_os("CI").is_none(), "this test needs dnsmasq and dig, and CI must not skip it");
        eprintln!("SKIPPED: this test needs dnsmasq and dig");
        return;
    }
    let at = || SocketAddr::from(([127, 0, 0, 1], free_port()));
    let (one, two) = (NameServer::start(at()), NameServer::start(at()));
    let prepared = Node::prepare(|web, admin| {
        let backend = |mode: &str, more: &str| {
            format!(
                "backend {mode} {{\n mode {mode}\n {more}\n check dns name=\"www.example\" every=\"100ms\" fall=1 rise=1\n \
                 server one \"{}\"\n server two \"{}\"\n}}\n",
                one.1, two.1
            )
        };
        format!(
            "platform test {{\n admin \"{admin}\"\n access-log off\n}}\nnode here {{ link \"127.0.0.1\"; }}\n\
             frontend dns {{\n mode udp\n bind \"{web}\"\n default-backend udp\n}}\n\
             frontend dns-tcp {{\n mode tcp\n bind \"{web}\"\n default-backend tcp\n}}\n{}{}",
            backend("udp", "responses 1"),
            backend("tcp", "redispatch")
        )
    });
    let node = prepared.run(Path::new(RELAIS), &[]);
    let asks = |arguments: &[&str]| dig(node.web, arguments);
    for _ in 0..4 {
        assert_eq!(asks(&["+short", "www.example", "A"]), "192.0.2.7\n");
        assert_eq!(asks(&["+short", "+tcp", "www.example", "A"]), "192.0.2.7\n");
    }
    // Too long for a datagram: the answer says so, and is asked for again by TCP.
    let long = asks(&["+noedns", "long.example", "TXT"]);
    assert!(long.contains(";; Truncated, retrying in TCP mode") && long.contains("ANSWER: 40"), "{long}");
    // In one large datagram.
    let whole = asks(&["+bufsize=16384", "+ignore", "long.example", "TXT"]);
    assert!(whole.contains("(UDP)") || whole.contains("ANSWER:"), "{whole}");

    drop(one);
    for _ in 0..10 {
        assert_eq!(asks(&["+short", "www.example", "A"]), "192.0.2.7\n");
    }
    await_some("the check", || {
        let status = node.proxy()?;
        let server = status.backends.iter().find(|backend| backend.name == "udp")?.servers.first()?.clone();
        (!server.up && server.check == "connection refused").then_some(())
    });
}
