//! A hardware address that moves with the virtual one: clients find it where they found it before.

#![allow(clippy::unwrap_used)] // helpers are not tests to clippy

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use common::keepalived::Keepalived;
use common::{Lan, VIP, VIP6, Vip, plan, plan6, ready, run};
use relais_ipc::{Order, Report, VipState};

const SECOND: Duration = Duration::from_secs(1);
const CLIENT: usize = 2;
const MAC: &str = "00:00:5e:00:01:33";
const MAC6: &str = "00:00:5e:00:02:33";

/// One family's part of a test.
struct Family {
    vip: &'static str,
    mac: &'static str,
    interface: &'static str,
    plan: String,
}

fn families() -> [Family; 2] {
    let with_mac = |text: String| text.replace("router-id", "virtual-mac\n    router-id");
    [
        Family { vip: VIP, mac: MAC, interface: "vrrp.51", plan: with_mac(plan(101, 100, "")) },
        Family { vip: VIP6, mac: MAC6, interface: "vrrp6.51", plan: with_mac(plan6(101, 100)) },
    ]
}

/// Machine `i` answers each connection with its number.
fn serve(lan: &Lan, i: usize) -> u16 {
    let any: SocketAddr = "[::]:8080".parse().unwrap();
    let listener = lan.inside(i, || TcpListener::bind(any).unwrap());
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(&[i as u8]));
        }
    });
    port
}

/// Which machine answers the client within this time.
fn await_answer(lan: &Lan, vip: &str, port: u16, from: usize, limit: Duration) -> Duration {
    let to = SocketAddr::new(vip.parse::<IpAddr>().unwrap(), port);
    let begin = Instant::now();
    loop {
        let answer = lan.inside(CLIENT, || {
            let mut stream = TcpStream::connect_timeout(&to, Duration::from_millis(50))?;
            let mut byte = [0];
            stream.read_exact(&mut byte).map(|()| usize::from(byte[0]))
        });
        match answer {
            Ok(i) if i == from => return begin.elapsed(),
            other => assert!(begin.elapsed() < limit, "{other:?} instead of machine {from} at {vip}"),
        }
    }
}

fn links(lan: &Lan, i: usize) -> String {
    run(&format!("ip -n {} -o link show", lan.machine(i)))
}

#[tokio::test]
async fn a_virtual_mac_moves_with_the_address_and_clients_learn_nothing() {
    if !ready(&["ip"]) {
        return;
    }
    for Family { vip, mac, interface, plan } in families() {
        let lan = Lan::new(&["a", "b", "client"]);
        lan.add_ipv6();
        // Strict, as some distributions have it: the way back to a client is not the way that it came.
        run(&format!("ip netns exec {} sysctl -qw net.ipv4.conf.all.rp_filter=1", lan.machine(0)));
        let mut a = Vip::with_plan(lan.machine(0), "a", &plan).await;
        a.await_state(VipState::Master).await;
        let b = Vip::with_plan(lan.machine(1), "b", &plan).await;
        b.await_state(VipState::Backup).await;
        let port = serve(&lan, 0);
        serve(&lan, 1);
        await_answer(&lan, vip, port, 0, SECOND);
        // The holder's questions for the client's hardware address do not say otherwise.
        run(&format!("ip netns exec {} sysctl -qw net.ipv4.neigh.eth0.locktime=0", lan.machine(CLIENT)));
        for _ in 0..3 {
            run(&format!("ip -n {} neighbour flush all", lan.machine(0)));
            await_answer(&lan, vip, port, 0, SECOND);
            let neighbour = run(&format!("ip -n {} neighbour show {vip}", lan.machine(CLIENT)));
            assert!(neighbour.contains(mac), "{neighbour}");
        }

        // From here on the client hears nothing about who is where, gratuitous or not.
        run(&format!(
            "ip -n {} neighbour replace {vip} lladdr {mac} dev eth0 nud permanent",
            lan.machine(CLIENT)
        ));
        a.kill();
        b.await_state(VipState::Master).await;
        await_answer(&lan, vip, port, 1, SECOND);

        // Its successor finds what it left, and takes the address back.
        let a = Vip::with_plan(lan.machine(0), "a", &plan).await;
        a.await_state(VipState::Master).await;
        b.await_state(VipState::Backup).await;
        await_answer(&lan, vip, port, 0, SECOND);
        lan.await_holder_of(vip, 0, SECOND);
        assert!(
            links(&lan, 1).contains(&format!("{interface}@eth0: <BROADCAST,MULTICAST> ")),
            "{}",
            links(&lan, 1)
        );

        a.order(Order::HandOver).await;
        a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
        await_answer(&lan, vip, port, 1, SECOND);
        a.order(Order::Stop).await;
        let begin = Instant::now();
        while links(&lan, 0).contains(interface) {
            assert!(begin.elapsed() < 2 * SECOND, "{interface} outlives its maker");
        }
    }
}

#[tokio::test]
async fn open_connections_go_on_beside_a_virtual_mac() {
    if !ready(&["ip", "nft"]) {
        return;
    }
    for Family { vip, plan, .. } in families() {
        let lan = Lan::new(&["a", "b", "client"]);
        lan.add_ipv6();
        let a = Vip::with_plan(lan.machine(0), "a", &plan).await;
        a.await_state(VipState::Master).await;
        let b = Vip::with_plan(lan.machine(1), "b", &plan).await;
        b.await_state(VipState::Backup).await;
        let at_a = lan.inside(0, || TcpListener::bind("[::]:0").unwrap());
        let to = SocketAddr::new(vip.parse().unwrap(), at_a.local_addr().unwrap().port());
        let mut client = lan.inside(CLIENT, || TcpStream::connect(to).unwrap());
        let (mut server, _) = at_a.accept().unwrap();

        a.order(Order::HandOver).await;
        a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
        b.await_state(VipState::Master).await;
        server.set_read_timeout(Some(SECOND)).unwrap();
        for said in [b"one", b"two"] {
            client.write_all(said).unwrap();
            let mut heard = [0; 3];
            server.read_exact(&mut heard).unwrap();
            assert_eq!(heard, *said);
            server.write_all(said).unwrap();
            client.read_exact(&mut heard).unwrap();
            // The old holder must ask for the client without claiming the virtual address.
            run(&format!("ip -n {} neighbour flush all", lan.machine(0)));
            run(&format!("ip -n {} neighbour flush all", lan.machine(CLIENT)));
        }
    }
}

#[tokio::test]
async fn what_is_done_to_its_interface_is_mended_or_said() {
    if !ready(&["ip"]) {
        return;
    }
    let [Family { vip, plan, interface, .. }, _] = families();
    let lan = Lan::new(&["a", "b", "client"]);
    let machine = lan.machine(0);
    run(&format!("ip -n {machine} link add {interface} type veth peer name other"));
    let a = Vip::with_plan(machine, "a", &plan).await;
    let status = a.status_socket().await;
    let said = format!(
        "there is another interface {interface} on this machine; take it away with `ip link delete {interface}`"
    );
    status.until(|vip| vip.reason.contains(&said)).await;
    run(&format!("ip -n {machine} link delete {interface}"));
    status.until(|vip| vip.state == VipState::Master).await;
    let port = serve(&lan, 0);
    await_answer(&lan, vip, port, 0, SECOND);

    run(&format!("ip -n {machine} link delete {interface}"));
    await_answer(&lan, vip, port, 0, SECOND);
    run(&format!("ip -n {machine} link set {interface} down"));
    await_answer(&lan, vip, port, 0, SECOND);
}

#[tokio::test]
async fn keepalived_with_a_virtual_mac_and_relais_with_one_take_turns() {
    if !ready(&["ip", "keepalived"]) {
        return;
    }
    for Family { vip, mac, plan, .. } in families() {
        let lan = Lan::new(&["a", "b", "client"]);
        lan.add_ipv6();
        let a = Vip::with_plan(lan.machine(0), "a", &plan).await;
        a.await_state(VipState::Master).await;
        let port = serve(&lan, 0);
        serve(&lan, 1);
        let length = if vip.contains(':') { 128 } else { 32 };
        let text = format!(
            "global_defs {{\n  vrrp_version 3\n  router_id peer\n}}\n\
             vrrp_instance public {{\n  state BACKUP\n  interface eth0\n  virtual_router_id 51\n  use_vmac\n  \
             priority 100\n  advert_int 0.05\n  virtual_ipaddress {{\n    {vip}/{length}\n  }}\n}}\n"
        );
        let mut peer = Keepalived::start(&lan, 1, &text);
        await_answer(&lan, vip, port, 0, SECOND);
        run(&format!(
            "ip -n {} neighbour replace {vip} lladdr {mac} dev eth0 nud permanent",
            lan.machine(CLIENT)
        ));
        // It has to know its master, or it would be one beside it.
        let begin = Instant::now();
        while !peer.log().contains("Entering BACKUP STATE") {
            assert!(begin.elapsed() < 5 * SECOND, "{}", peer.log());
        }
        let news = tokio::time::timeout(SECOND, a.await_state(VipState::Backup)).await;
        assert!(news.is_err() && !lan.holds(1), "keepalived does not follow: {}", peer.log());

        a.order(Order::HandOver).await;
        a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
        await_answer(&lan, vip, port, 1, 2 * SECOND);
        a.plan(2, &plan).await;
        a.await_state(VipState::Master).await; // by its higher priority
        await_answer(&lan, vip, port, 0, 2 * SECOND);
        peer.stop();
    }
}
