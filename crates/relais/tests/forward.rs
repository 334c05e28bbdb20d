//! `mode forward`: the kernel carries connections and datagrams from a client through the balancer to three servers, each
//! a network namespace. Needs root and nftables.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod node;
mod routed;

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

use node::{Node, PATIENCE, await_some, get};
use relais_ipc::{Role, VipState};
use routed::{
    Net, Open, SERVERS, WEB, WEB6, ask_by_udp, await_serving, can_run, ip, open_to, platform, shares, vips,
};
use rustix::process::Signal;

fn table(net: &Net) -> bool {
    let balancer = format!("{}-balancer", net.name);
    let listed =
        Command::new("ip").args(["netns", "exec", &balancer, "nft", "list", "tables"]).output().unwrap();
    String::from_utf8(listed.stdout).unwrap().contains("relais_forward")
}

#[test]
fn weights_share_connections_and_a_dead_server_is_left() {
    if !can_run() {
        return;
    }
    let net = Net::new("weights");
    let servers = SERVERS
        .replacen(":8080\"", ":8080\" weight=3", 1)
        .replace("10.9.3.2:8080\"", "10.9.3.2:8080\" weight=2");
    let node = net.run(&format!("bind \"{WEB}\""), &servers);
    node.await_log("net.ipv4.ip_forward was 0 and is 1 now");
    await_serving(WEB);
    let expected = BTreeMap::from([("s1".to_owned(), 150), ("s2".to_owned(), 100), ("s3".to_owned(), 50)]);
    assert_eq!(shares(WEB, 300), expected);
    net.enter("balancer");
    await_serving(WEB); // from the balancer itself, too
    net.enter("client");

    let mut open = ["s1", "s2", "s3"].map(|server| open_to(server, WEB));
    assert_eq!(open[0].seen_as, IpAddr::from([10, 9, 2, 1]), "masqueraded");
    net.well[0].store(false, Ordering::Relaxed);
    node.await_log("were cut");
    assert_eq!(shares(WEB, 30), BTreeMap::from([("s2".to_owned(), 20), ("s3".to_owned(), 10)]));
    open[0].ask().expect_err("a connection to a dead server is reset with its next packet");
    assert_eq!(
        (open[1].ask().unwrap(), open[2].ask().unwrap()),
        ("s2 10.9.3.1\n".into(), "s3 10.9.4.1\n".into())
    );

    net.well[0].store(true, Ordering::Relaxed);
    open_to("s1", WEB);
    for well in &net.well {
        well.store(false, Ordering::Relaxed);
    }
    await_some("a refusal", || {
        Open::to(WEB).err().filter(|e| e.kind() == std::io::ErrorKind::ConnectionRefused)
    });
}

#[test]
fn a_drained_server_keeps_its_connections_and_gets_no_new_ones() {
    if !can_run() {
        return;
    }
    let net = Net::new("drain");
    let node = net.run(&format!("bind \"{WEB}\""), &format!("{SERVERS} backup=yes"));
    await_serving(WEB);
    let mut open = open_to("s1", WEB);
    let command = |line: &[&str]| {
        let (ok, text) = node.command(line);
        assert!(ok, "{text}");
    };
    command(&["drain", "app/s1"]);
    assert_eq!(shares(WEB, 20), BTreeMap::from([("s2".to_owned(), 20)]));
    assert_eq!(open.ask().unwrap(), "s1 10.9.2.1\n");
    command(&["ready", "app/s1"]);
    command(&["weight", "app/s1", "4"]);
    assert_eq!(shares(WEB, 20), BTreeMap::from([("s1".to_owned(), 16), ("s2".to_owned(), 4)]));
    // A vip that is started again knows of it, too; the kernel has gone on meanwhile.
    command(&["down", "app/s2"]);
    let before = node.pid(Role::Vip).unwrap();
    node.signal(before, Signal::KILL);
    await_some("the next vip", || node.pid(Role::Vip).filter(|pid| *pid != before));
    await_some("its rules", || vips(&node).forwards.first().cloned());
    assert_eq!(shares(WEB, 20), BTreeMap::from([("s1".to_owned(), 20)]));
    assert_eq!(open.ask().unwrap(), "s1 10.9.2.1\n");
    // The backup, when nobody else is left.
    command(&["down", "app/s1"]);
    assert_eq!(shares(WEB, 5), BTreeMap::from([("s3".to_owned(), 5)]));
    open.ask().expect_err("who is put down is dead");
}

#[test]
fn source_keeps_a_client_on_its_server() {
    if !can_run() {
        return;
    }
    let net = Net::new("source");
    let servers = format!("balance source; {SERVERS}");
    let node = net.run(
        &format!("bind \"{WEB}\"; bind \"{WEB6}\""),
        &format!("{servers}; server t1 \"[fd09:2::2]:8080\""),
    );
    await_serving(WEB);
    for last in 10..70 {
        ip(&format!("-n {}-client address add 10.9.1.{last}/24 dev eth0", net.name));
    }
    let server_of = |last: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([10, 9, 1, last], 0)).into()).unwrap();
        socket.connect(&WEB.parse::<SocketAddr>().unwrap().into()).unwrap();
        let mut stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.write_all(b"who?\n").unwrap();
        let mut server = [0; 2];
        stream.read_exact(&mut server).unwrap();
        String::from_utf8(server.to_vec()).unwrap()
    };
    let all = || (10..70).map(server_of).collect::<Vec<_>>();
    let before = all();
    assert!(["s1", "s2", "s3"].iter().all(|server| before.iter().any(|of| of == server)), "{before:?}");
    assert_eq!(all(), before);
    net.well[2].store(false, Ordering::Relaxed);
    await_some("s3 is left", || (!vips(&node).forwards[0].servers[2].up).then_some(()));
    let after = all();
    let moved = before.iter().zip(&after).filter(|(was, is)| *was != "s3" && was != is).count();
    assert!(moved <= 6 && !after.iter().any(|server| server == "s3"), "{moved} moved: {before:?} {after:?}");
    net.well[2].store(true, Ordering::Relaxed);
    await_some("s3 is back", || vips(&node).forwards[0].servers[2].up.then_some(()));
    assert_eq!(all(), before);
}

#[test]
fn a_reload_loses_no_connection() {
    if !can_run() {
        return;
    }
    let net = Net::new("reload");
    let node = net.run(&format!("bind \"{WEB}\""), SERVERS);
    await_serving(WEB);
    let mut open = open_to("s2", WEB);
    let stop = AtomicBool::new(false);
    let (made, failed) = std::thread::scope(|scope| {
        let clients = [(); 2].map(|()| {
            scope.spawn(|| {
                net.enter("client");
                let (mut made, mut failed) = (0, Vec::new());
                while !stop.load(Ordering::Relaxed) {
                    match Open::to(WEB) {
                        Ok(_) => made += 1,
                        Err(error) => failed.push(error.to_string()),
                    }
                }
                (made, failed)
            })
        });
        let file = node.dir.join("plan.kdl");
        for n in 0..10 {
            let servers = SERVERS.replacen(":8080\"", &format!(":8080\" weight={}", n % 3), 1);
            let servers = if n % 2 == 0 { servers } else { servers.replace("server s3", "server other") };
            std::fs::write(&file, platform(node.admin, &format!("bind \"{WEB}\""), &servers)).unwrap();
            let (ok, text) = node.command(&["apply", file.to_str().unwrap()]);
            assert!(ok, "{text}");
            assert_eq!(open.ask().unwrap(), "s2 10.9.3.1\n");
        }
        stop.store(true, Ordering::Relaxed);
        clients.map(|client| client.join().unwrap()).into_iter().fold(
            (0, Vec::new()),
            |(n, mut all), (m, more)| {
                all.extend(more);
                (n + m, all)
            },
        )
    });
    assert!(made > 20 && failed.is_empty(), "{made} made, {failed:?}");
}

#[test]
fn udp_is_forwarded_and_servers_may_see_the_client() {
    if !can_run() {
        return;
    }
    let net = Net::new("udp");
    let frontend = format!("forward protocol=udp masquerade=no; bind \"{WEB}\"");
    let node = net.run(&frontend, SERVERS);
    let open = || UdpSocket::bind("0.0.0.0:0").unwrap();
    await_some("an answer", || ask_by_udp(&open(), WEB));
    let mut shares: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..30 {
        *shares.entry(ask_by_udp(&open(), WEB).unwrap()).or_default() += 1;
    }
    let each = ["s1", "s2", "s3"].map(|server| (format!("{server} 10.9.1.2\n"), 10));
    assert_eq!(shares, BTreeMap::from(each));
    // A session goes on where it is, until its server is dead: then with another.
    let session = await_some("a session with s1", || {
        let socket = open();
        ask_by_udp(&socket, WEB).filter(|answer| answer.starts_with("s1")).map(|_| socket)
    });
    assert!(ask_by_udp(&session, WEB).unwrap().starts_with("s1"));
    net.well[0].store(false, Ordering::Relaxed);
    node.await_log("were cut");
    let moved = await_some("another server", || ask_by_udp(&session, WEB));
    assert!(!moved.starts_with("s1"), "{moved}");
}

#[test]
fn ipv6_is_forwarded() {
    if !can_run() {
        return;
    }
    let net = Net::new("ipv6");
    let servers = "server s1 \"[fd09:2::2]:8080\" weight=2; server s2 \"[fd09:3::2]:8080\"; server s3 \"[fd09:4::2]:8080\"";
    let node = net.run(&format!("bind \"{WEB6}\""), servers);
    node.await_log("net.ipv6.conf.all.forwarding was 0 and is 1 now");
    await_serving(WEB6);
    let expected = BTreeMap::from([("s1".to_owned(), 20), ("s2".to_owned(), 10), ("s3".to_owned(), 10)]);
    assert_eq!(shares(WEB6, 40), expected);
    let mut open = open_to("s3", WEB6);
    assert_eq!(open.seen_as, "fd09:4::1".parse::<IpAddr>().unwrap());
    net.well[2].store(false, Ordering::Relaxed);
    node.await_log("were cut");
    open.ask().expect_err("a connection to a dead server is reset with its next packet");
    assert_eq!(shares(WEB6, 30), BTreeMap::from([("s1".to_owned(), 20), ("s2".to_owned(), 10)]));
}

#[test]
fn rules_that_others_remove_are_put_back_and_go_with_the_end() {
    if !can_run() {
        return;
    }
    let net = Net::new("rules");
    let mut node = net.run(&format!("bind \"{WEB}\""), SERVERS);
    await_serving(WEB);
    let balancer = format!("{}-balancer", net.name);
    let flushed = Command::new("ip").args(["netns", "exec", &balancer, "nft", "flush", "ruleset"]).status();
    assert!(flushed.unwrap().success());
    node.await_log("it is put back");
    await_serving(WEB);
    // What is carried is told.
    assert_eq!(shares(WEB, 30).len(), 3);
    let told = || vips(&node).forwards[0].servers.iter().map(|server| server.connections_total).sum::<u64>();
    await_some("the counters", || (told() >= 30).then_some(()));
    let (ok, text) = node.command(&["status"]);
    assert!(
        ok && text.contains("frontend web (forward): tcp 10.9.1.100:80, carried by the kernel"),
        "{text}"
    );
    net.enter("balancer");
    let (_, metrics) = get(node.admin, "/metrics").unwrap();
    assert!(metrics.contains("relais_forward_connections_total{proxy=\"web\",server=\"s1\"} "), "{metrics}");
    let pid = node.process.id();
    node.signal(pid, Signal::TERM);
    assert!(node.await_exit().success());
    assert!(!table(&net));
}

/// A client and a server with two balancers between them, which share two virtual addresses: one for clients, one that is
/// the server's way out. The server has an address for each name.
struct Pair(Net);

impl Pair {
    fn new(test: &str) -> Pair {
        let name = format!("rlxfwd-{}-{test}", std::process::id());
        let net = Net { name: name.clone(), well: Vec::new() };
        for machine in ["client", "balancer", "s1", "s2"] {
            ip(&format!("netns add {name}-{machine}"));
            ip(&format!("-n {name}-{machine} link set lo up"));
        }
        // `s1` is the server, `s2` the other balancer.
        for (number, machine, address) in [(1, "client", "10.9.1.2"), (2, "s1", "10.9.2.2")] {
            ip(&format!("-n {name}-{machine} link add switch type bridge"));
            ip(&format!("-n {name}-{machine} address add {address}/24 dev switch"));
            ip(&format!("-n {name}-{machine} link set switch up"));
            let link = if number == 1 { "front" } else { "back" };
            for (balancer, last) in [("balancer", 11), ("s2", 12)] {
                ip(&format!(
                    "-n {name}-{balancer} link add {link} type veth peer name to{last} netns {name}-{machine}"
                ));
                ip(&format!("-n {name}-{balancer} address add 10.9.{number}.{last}/24 dev {link}"));
                ip(&format!("-n {name}-{balancer} link set {link} up"));
                ip(&format!("-n {name}-{machine} link set to{last} master switch up"));
            }
        }
        ip(&format!("-n {name}-s1 address add 10.9.2.3/24 dev switch"));
        ip(&format!("-n {name}-s1 route add default via 10.9.2.100"));
        net.serve("s1");
        Pair(net)
    }

    /// Both balancers; the first holds the addresses.
    fn run(&self, forward: &str) -> [Node; 2] {
        let start = |machine: &str, ours: u8, theirs: u8, priority: u8| {
            self.0.enter(machine);
            let vip = |name: &str, network: u8, interface: &str, id: u8| {
                format!(
                    "vip {name} {{ address \"10.9.{network}.100/24\" interface={interface}; router-id {id}; advertise \"100ms\"; \
                     node here priority={priority}; node there priority={}; preempt never; }}\n",
                    201 - priority
                )
            };
            let prepared = Node::prepare(|_, admin| {
                format!(
                    "platform test {{ admin \"{admin}\"; access-log off; drain \"60s\"; }}\n\
                     node here {{ link \"10.9.1.{ours}\"; link \"10.9.2.{ours}\"; }}\n\
                     node there {{ link \"10.9.1.{theirs}\"; link \"10.9.2.{theirs}\"; }}\n{}{}\
                     frontend web {{ mode forward; {forward}; bind \"{WEB}\"; default-backend app; }}\n\
                     backend app {{ mode forward; balance source; check tcp every=\"50ms\" fall=2 rise=1; \
                     server one \"10.9.2.2:8080\"; server two \"10.9.2.3:8080\"; }}\n",
                    vip("public", 1, "front", 51),
                    vip("inside", 2, "back", 52)
                )
            });
            prepared.run(Path::new(env!("CARGO_BIN_EXE_relais")), &[])
        };
        let first = start("balancer", 11, 12, 101);
        await_holding(&first);
        let second = start("s2", 12, 11, 100);
        self.0.enter("client");
        await_serving(WEB);
        [first, second]
    }
}

fn await_holding(node: &Node) {
    await_some("both addresses", || {
        let vips = vips(node).vips;
        (vips.len() == 2 && vips.iter().all(|vip| vip.state == VipState::Master)).then_some(())
    });
}

fn kill_all(node: &Node) {
    let pids = node.status().processes.into_iter().filter_map(|process| process.pid);
    let pids: Vec<u32> = std::iter::once(node.process.id()).chain(pids).collect();
    pids.into_iter().for_each(|pid| node.signal(pid, Signal::KILL));
}

#[test]
fn connections_go_on_over_a_planned_move() {
    if !can_run() {
        return;
    }
    let pair = Pair::new("move");
    let [first, second] = pair.run("forward masquerade=yes");
    let mut open = Open::to(WEB).unwrap();
    assert_eq!(open.seen_as, IpAddr::from([10, 9, 2, 11]));
    let (ok, text) = first.command(&["standby"]);
    assert!(ok, "{text}");
    await_holding(&second);
    for _ in 0..20 {
        assert_eq!(open.ask().unwrap(), "s1 10.9.2.11\n");
        assert_eq!(Open::to(WEB).unwrap().seen_as, IpAddr::from([10, 9, 2, 12]));
    }
}

#[test]
fn connections_begin_anew_when_the_holder_dies() {
    if !can_run() {
        return;
    }
    let pair = Pair::new("dies");
    let [first, second] = pair.run("forward masquerade=yes");
    let mut open = Open::to(WEB).unwrap();
    kill_all(&first);
    await_holding(&second);
    assert_eq!(open.ask().unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
    assert_eq!(Open::to(WEB).unwrap().seen_as, IpAddr::from([10, 9, 2, 12]));
}

#[test]
fn by_source_and_without_masquerading_connections_outlive_the_holder() {
    if !can_run() {
        return;
    }
    let pair = Pair::new("outlive");
    let [first, second] = pair.run("forward masquerade=no");
    let mut open = Open::to(WEB).unwrap();
    assert_eq!(open.seen_as, IpAddr::from([10, 9, 1, 2]));
    kill_all(&first);
    await_holding(&second);
    for _ in 0..5 {
        assert_eq!(open.ask().unwrap(), "s1 10.9.1.2\n");
    }
}
