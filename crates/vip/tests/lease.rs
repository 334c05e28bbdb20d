//! The lease's fine stage: a holder that is dead, hangs or slept does not answer for the address, although it is
//! still on its interface.

#![allow(clippy::unwrap_used)] // helpers are not tests to clippy

mod common;

use std::net::UdpSocket;
use std::os::unix::process::ExitStatusExt;
use std::time::{Duration, Instant};

use common::{Lan, VIP, Vip, plan, ready, run};
use relais_ipc::VipState;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};

const SECOND: Duration = Duration::from_secs(1);
/// Three intervals of 50 ms.
const LEASE: Duration = Duration::from_millis(150);

/// A machine that asks the address again and again, and one that answers for it.
struct Echo {
    asks: UdpSocket,
    answers: UdpSocket,
}

impl Echo {
    /// Machine `client` asks machine `server`, which must hold the address.
    fn between(lan: &Lan, client: usize, server: usize) -> Echo {
        let answers = lan.inside(server, || UdpSocket::bind((VIP, 7007)).unwrap());
        let asks = lan.inside(client, || UdpSocket::bind("0.0.0.0:0").unwrap());
        asks.connect((VIP, 7007)).unwrap();
        answers.set_nonblocking(true).unwrap();
        asks.set_nonblocking(true).unwrap();
        Echo { asks, answers }
    }

    /// Whether one datagram makes its way there and back within 5 ms.
    fn works(&self) -> bool {
        let mut buffer = [0; 16];
        while self.asks.recv(&mut buffer).is_ok() {} // late answers
        let begin = Instant::now();
        let _ = self.asks.send(b"?"); // refused: what came back for an earlier one
        while begin.elapsed() < Duration::from_millis(5) {
            while let Ok((_, from)) = self.answers.recv_from(&mut buffer) {
                let _ = self.answers.send_to(b"!", from);
            }
            if self.asks.recv(&mut buffer).is_ok() {
                return true;
            }
        }
        false
    }

    /// Asks until it does not work for 300 ms; when it last did, from now.
    fn last_answer(&self) -> Duration {
        let (begin, mut last) = (Instant::now(), Duration::ZERO);
        while begin.elapsed() < last + Duration::from_millis(300) {
            assert!(begin.elapsed() < 3 * SECOND, "it answers and answers");
            if self.works() {
                last = begin.elapsed();
            }
        }
        last
    }
}

fn signal(vip: &Vip, signal: Signal) {
    kill_process(Pid::from_child(&vip.child), signal).unwrap();
}

async fn alone(lan: &Lan) -> Vip {
    let vip = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    vip.await_state(VipState::Master).await;
    vip
}

#[tokio::test]
async fn a_killed_holder_is_mute_at_once() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "client"]);
    let mut a = alone(&lan).await;
    let echo = Echo::between(&lan, 1, 0);
    assert!(echo.works());
    assert_eq!(a.child.try_wait().unwrap().and_then(|status| status.signal()), None);
    a.kill();
    assert!(echo.works(), "its supervisor lives, and starts another within the lease");
    a.held.borrow_mut().clear();
    assert!(!echo.works(), "the processes are gone, and their machine answers");
    assert!(lan.holds(0), "it is the gate, not the address's own end, that this test is about");
    run(&format!("ip -n {} neighbour flush dev eth0", lan.machine(1)));
    assert!(!echo.works());
    let neighbours = run(&format!("ip -n {} neighbour show {VIP}", lan.machine(1)));
    assert!(!neighbours.contains("lladdr"), "ARP was answered: {neighbours}");
}

#[tokio::test]
async fn a_hanging_holder_is_mute_when_its_lease_ends_and_stays_so_when_it_wakes_too_late() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "client", "b"]);
    let a = alone(&lan).await;
    let b = Vip::with_plan(lan.machine(2), "b", &plan(101, 100, "")).await;
    b.await_state(VipState::Backup).await;
    // What reaches the old holder, whatever the link was told of the new one.
    let there = lan.mac(0);
    let echo = Echo::between(&lan, 1, 0);
    run(&format!("ip -n {} neighbour replace {VIP} lladdr {there} dev eth0 nud permanent", lan.machine(1)));
    assert!(echo.works());
    signal(&a, Signal::STOP);
    let last = echo.last_answer();
    assert!(last < LEASE + Duration::from_millis(20), "it answered for {last:?}");
    b.await_state(VipState::Master).await;
    signal(&a, Signal::CONT);
    let begin = Instant::now();
    while begin.elapsed() < Duration::from_millis(500) && lan.holds(2) {
        assert!(!echo.works(), "two machines answer, {:?} after the older holder woke", begin.elapsed());
        if begin.elapsed() > LEASE && !lan.holds(0) {
            break;
        }
    }
}

/// Puts 375,000 elements into nftables of a namespace and takes everything out, on these processors; how long that
/// took.
fn load_nftables(namespace: &str, processors: &str) -> Duration {
    let elements: Vec<String> =
        (0..375_000u32).map(|i| std::net::Ipv4Addr::from(0x0b00_0000 + 2 * i).to_string()).collect();
    let script = format!(
        "table ip t {{\nset s {{\ntype ipv4_addr\nelements = {{ {} }}\n}}\n}}\n",
        elements.join(", ")
    );
    let file = std::env::temp_dir().join(format!("relais-lease-{}.nft", std::process::id()));
    std::fs::write(&file, script).unwrap();
    let begin = Instant::now();
    let nft = format!("ip netns exec {namespace} taskset -c {processors} nft");
    run(&format!("{nft} -f {}", file.display()));
    run(&format!("{nft} flush ruleset"));
    std::fs::remove_file(file).unwrap();
    begin.elapsed()
}

#[tokio::test]
async fn nothing_that_is_done_to_nftables_shuts_or_opens_the_gate() {
    if !ready(&["ip", "nft"]) {
        return;
    }
    let lan = Lan::new(&["a", "client"]);
    let a = alone(&lan).await;
    let echo = Echo::between(&lan, 1, 0);
    let namespace = lan.machine(0).to_owned();
    // Not on this thread's processor, for there the kernel lets nobody in meanwhile.
    let mut first = CpuSet::new();
    first.set(0);
    let load = std::thread::spawn(move || load_nftables(&namespace, "1-63"));
    sched_setaffinity(None, &first).unwrap();
    let mut last = Instant::now();
    while !load.is_finished() {
        if echo.works() {
            last = Instant::now();
        }
        assert!(last.elapsed() < Duration::from_millis(400), "the holder was mute for 400 ms");
    }
    let took = load.join().unwrap();
    assert!(took > LEASE, "that was too short ({took:?}) to show anything");
    signal(&a, Signal::STOP);
    let last = echo.last_answer();
    assert!(last < LEASE + Duration::from_millis(20), "it answered for {last:?}");
}

#[tokio::test]
async fn a_process_that_ends_in_order_leaves_no_gate() {
    if !ready(&["ip", "tc"]) {
        return;
    }
    let lan = Lan::new(&["a"]);
    let a = alone(&lan).await;
    let filters = |hook: &str| run(&format!("tc -n {} filter show dev eth0 {hook}", lan.machine(0)));
    assert!(filters("ingress").contains("relais-lease") && filters("egress").contains("relais-lease"));
    a.order(relais_ipc::Order::Stop).await;
    while a.channel.recv::<relais_ipc::Report>().await.is_ok_and(|report| report.is_some()) {}
    let begin = Instant::now();
    while !(filters("ingress").is_empty() && filters("egress").is_empty()) {
        assert!(begin.elapsed() < SECOND, "{}", filters("ingress"));
    }
}

/// The kernel does not preempt itself: the thread that was woken on the processor of that call waits for its end.
#[tokio::test]
async fn a_long_system_call_of_another_program_moves_no_address() {
    if !ready(&["ip", "nft", "taskset"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let a = alone(&lan).await;
    // The other machine must not be late for the same reason.
    let elsewhere = ["taskset", "-c", "1", "ip", "netns", "exec", lan.machine(1)];
    let b = Vip::start_by(&elsewhere, "b").await;
    b.plan(1, &plan(101, 100, "")).await;
    b.await_state(VipState::Backup).await;
    load_nftables(lan.machine(0), "0");
    let news = tokio::time::timeout(Duration::from_millis(10), b.await_state(VipState::Master)).await;
    assert!(news.is_err(), "the peer took the address");
    drop(a);
}

#[tokio::test]
async fn who_lets_go_is_mute_at_once_though_another_program_holds_nftables() {
    if !ready(&["ip", "nft", "taskset", "bash"]) {
        return;
    }
    let lan = Lan::new(&["a", "client", "b"]);
    let a = alone(&lan).await;
    let b = Vip::with_plan(lan.machine(2), "b", &plan(101, 100, "")).await;
    b.await_state(VipState::Backup).await;
    // The client hears of the address by the old holder alone, if that says anything.
    let deaf = format!("ip netns exec {} nft add", lan.machine(1));
    run(&format!("{deaf} table arp deaf"));
    run(&format!("{deaf} chain arp deaf in {{ type filter hook input priority 0 ; }}"));
    run(&format!("{deaf} rule arp deaf in arp saddr ether {} drop", lan.mac(2)));
    let namespace = lan.machine(0).to_owned();
    let load = std::thread::spawn(move || load_nftables(&namespace, "1-63"));
    // What wants to change something waits: the other has begun.
    let nft = format!("ip netns exec {} nft add table ip probe", lan.machine(0));
    loop {
        assert!(!load.is_finished(), "it was never held up");
        let command = nft.clone();
        let probe = std::thread::spawn(move || run(&command));
        std::thread::sleep(Duration::from_millis(60));
        if !probe.is_finished() {
            break;
        }
    }
    a.order(relais_ipc::Order::HandOver).await;
    b.await_state(VipState::Master).await;
    std::thread::sleep(Duration::from_millis(100)); // two of its intervals
    let mut questions = 0;
    while !load.is_finished() || questions < 3 {
        run(&format!("ip -n {} neighbour flush all", lan.machine(1)));
        lan.visit(1);
        std::thread::sleep(Duration::from_millis(5)); // an answer takes less than one
        let neighbour = run(&format!("ip -n {} neighbour show {VIP}", lan.machine(1)));
        assert!(!neighbour.contains(&lan.mac(0)), "the old holder answers");
        questions += 1;
    }
    load.join().unwrap();
}
