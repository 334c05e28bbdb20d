//! Two vip processes on one switch: takeover, hand-over, the lease, the cable, the restart.

mod common;

use std::time::Duration;

use common::{Lan, Vip, plan, ready, run};
use relais_ipc::{FrontendState, Order, Report, VipState};

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test]
async fn a_killed_process_loses_the_address_to_the_peer_and_then_to_the_kernel() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let text = plan(101, 100, "");
    let mut a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;
    assert!(lan.holds(0) && !lan.holds(1));

    a.kill();
    let took = b.await_state(VipState::Master).await;
    assert!(took < Duration::from_millis(400), "{took:?}");
    assert!(lan.holds(1));
    lan.await_holder(1, 4 * SECOND);
}

#[tokio::test]
async fn a_hand_over_ends_when_the_peer_holds_the_address() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let text = plan(101, 100, "");
    let a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;

    a.order(Order::HandOver).await;
    let took = a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
    assert!(took < Duration::from_millis(300), "{took:?}");
    assert!(lan.holds(1) && !lan.holds(0));

    a.plan(2, &text).await; // and a new plan brings it back, for it has the higher priority
    a.await_state(VipState::Master).await;
    lan.await_holder(0, SECOND);
}

#[tokio::test]
async fn a_restarted_process_resumes_and_the_peer_never_notices() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let text = plan(101, 100, "preempt never");
    let mut a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;

    a.kill();
    let successor = Vip::start(lan.machine(0), "a").await;
    successor.order(Order::Resume { vip: "public".into(), ago_ms: 0 }).await;
    successor.plan(1, &text).await;
    successor.await_state(VipState::Master).await;
    assert!(lan.holds(0));
    b.frontend(FrontendState::Up).await;
    let news = tokio::time::timeout(Duration::from_millis(600), b.await_state(VipState::Master)).await; // 3 time-outs
    assert!(news.is_err(), "the peer took the address");
}

#[tokio::test]
async fn a_restarted_process_that_comes_too_late_removes_what_was_left() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    run(&format!("ip -n {} address add {}/24 dev eth0", lan.machine(0), common::VIP));
    let text = plan(100, 101, "");
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Master).await;
    let a = Vip::start(lan.machine(0), "a").await;
    a.order(Order::Resume { vip: "public".into(), ago_ms: 400 }).await;
    a.plan(1, &text).await;
    a.await_report("Ready", |report| *report == Report::Ready { generation: 1 }).await;
    assert!(lan.holds(1) && !lan.holds(0));
}

#[tokio::test]
async fn the_address_leaves_with_the_carrier_and_the_link_hears_of_the_new_place() {
    if !ready(&["ip", "bash"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "client"]);
    let text = plan(101, 100, "");
    let a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;
    lan.visit(2);
    lan.await_neighbour(2, 0, SECOND);

    lan.cable(0, false);
    a.await_state(VipState::Fault).await;
    assert!(!lan.holds(0));
    b.await_state(VipState::Master).await;
    lan.await_neighbour(2, 1, SECOND);
    lan.cable(0, true);
    a.await_state(VipState::Master).await;
    lan.await_neighbour(2, 0, SECOND);
    lan.await_holder(0, SECOND);
}

#[tokio::test]
async fn the_address_follows_the_frontend() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let text = plan(101, 100, "track frontend=web");
    let a = Vip::with_plan(lan.machine(0), "a", &text).await;
    assert!(!lan.holds(0), "nobody has said yet that the frontend is up");
    a.frontend(FrontendState::Up).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.frontend(FrontendState::Up).await;
    b.await_state(VipState::Backup).await;

    a.frontend(FrontendState::Healing).await; // not for long enough to matter
    a.frontend(FrontendState::Up).await;
    a.frontend(FrontendState::Healing).await;
    let took = b.await_state(VipState::Master).await;
    assert!(took > Duration::from_millis(50) && took < Duration::from_millis(300), "{took:?}");
    lan.await_holder(1, SECOND);
    a.frontend(FrontendState::Up).await;
    lan.await_holder(0, SECOND);
}

#[tokio::test]
async fn a_process_without_its_supervisor_hands_over_and_ends() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let text = plan(101, 100, "");
    let mut a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;
    a.channel = relais_ipc::Channel::pair().unwrap().0; // and the old end is dropped
    b.await_state(VipState::Master).await;
    lan.await_holder(1, SECOND);
    assert!(a.child.wait().unwrap().success());
}

#[tokio::test]
async fn without_privileges_a_plan_with_an_address_is_refused() {
    if !ready(&["ip", "setpriv"]) {
        return;
    }
    let command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
    let vip = Vip::start_by(&command, "a").await;
    vip.plan(1, &plan(101, 100, "")).await;
    vip.await_report(
        "Refused",
        |report| matches!(report, Report::Refused { why, .. } if why.contains("as root")),
    )
    .await;
}

#[tokio::test]
async fn a_new_plan_keeps_what_it_does_not_change_and_hands_over_what_it_drops() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let a = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &plan(101, 100, "")).await;
    b.await_state(VipState::Backup).await;

    a.plan(2, &plan(120, 100, "preempt never")).await;
    let mut changed = false;
    let ready = |report: &Report| {
        changed |= matches!(report, Report::Vip { .. });
        *report == Report::Ready { generation: 2 }
    };
    a.await_report("Ready", ready).await;
    assert!(!changed && lan.holds(0), "a change of priority is no change of state");

    a.plan(3, &plan(99, 100, "").replace("vip public", "vip other").replace("router-id 51", "router-id 52"))
        .await;
    a.await_report("Ready", |report| *report == Report::Ready { generation: 3 }).await;
    b.await_state(VipState::Master).await;
    b.order(Order::Stop).await;
    lan.await_holder(0, 3 * SECOND); // as the other router
}

#[tokio::test]
async fn an_interface_that_comes_later_is_waited_for() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a"]);
    run(&format!("ip -n {} link set eth0 down", lan.machine(0)));
    run(&format!("ip -n {} link set eth0 name spare", lan.machine(0)));
    let a = Vip::start(lan.machine(0), "a").await;
    let status = a.status_socket().await;
    a.plan(1, &plan(101, 100, "")).await;
    let vips = status.until(|vip| vip.reason.contains("does not exist")).await;
    assert_eq!((vips.state, vips.address.as_str(), vips.router_id), (VipState::Fault, "10.9.0.100/24", 51));

    run(&format!("ip -n {} link set spare name eth0", lan.machine(0)));
    run(&format!("ip -n {} link set eth0 up", lan.machine(0)));
    a.await_state(VipState::Master).await;
    let vips = status.until(|vip| vip.state == VipState::Master && vip.adverts_sent_total > 3).await;
    assert_eq!(vips.master, Some([10, 9, 0, 1].into()));
    assert_eq!((vips.became_master_total, vips.priority), (1, 101));
}

#[tokio::test]
async fn only_the_needed_privileges_are_kept_and_the_thread_is_real_time() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a"]);
    let a = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    let process = format!("/proc/{}", a.child.id());
    let status = std::fs::read_to_string(format!("{process}/status")).unwrap();
    // Bits 12, 13, 14, 23 and 39: NET_ADMIN, NET_RAW, IPC_LOCK, SYS_NICE, BPF.
    assert!(status.contains("CapEff:\t0000008000807000") && status.contains("NoNewPrivs:\t1"), "{status}");
    assert!(!status.contains("VmLck:\t       0 kB"), "{status}");
    let threads = std::fs::read_dir(format!("{process}/task")).unwrap();
    let policies = threads.map(|task| {
        let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
        // Field 41 of proc_pid_stat(5), counted from the end of the name, which is field 2.
        stat.rsplit_once(") ").unwrap().1.split(' ').nth(38).unwrap().to_owned()
    });
    assert!(policies.into_iter().any(|policy| policy == "1"), "no thread is SCHED_FIFO");
}

#[tokio::test]
async fn links_and_files_move_the_priority_and_a_link_without_weight_the_address() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a"]);
    let machine = lan.machine(0);
    run(&format!("ip -n {machine} link add uplink type veth peer name far"));
    run(&format!("ip -n {machine} link set far up"));
    run(&format!("ip -n {machine} link set uplink up"));
    let file = std::env::temp_dir().join(format!("{machine}.weight"));
    let more =
        format!("track link=uplink\n track link=far weight=-20\n track file=\"{}\" weight=2", file.display());
    let a = Vip::with_plan(machine, "a", &plan(101, 100, &more)).await;
    a.await_state(VipState::Master).await;
    let status = a.status_socket().await;
    status.until(|vip| vip.priority == 101).await;

    std::fs::write(&file, "-5\n").unwrap();
    status.until(|vip| vip.priority == 91).await;
    run(&format!("ip -n {machine} link set far down")); // and with it the carrier of the other end
    status.until(|vip| vip.priority == 71 && vip.state == VipState::Fault).await;
    assert!(!lan.holds(0));
    std::fs::remove_file(&file).unwrap();
    run(&format!("ip -n {machine} link set far up"));
    status.until(|vip| vip.priority == 101 && vip.state == VipState::Master).await;
    assert!(lan.holds(0));
}

/// The announcements of a takeover are lost on the way to a client: it hears the ones that are repeated. What keepalived
/// says once costs such a client 50 s, until its own entry ends.
#[tokio::test]
async fn a_client_that_misses_the_first_announcements_is_told_within_1200_ms() {
    if !ready(&["ip", "bash", "nft"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "client"]);
    let mut a = Vip::with_plan(lan.machine(0), "a", &plan(101, 100, "")).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &plan(101, 100, "")).await;
    b.await_state(VipState::Backup).await;
    lan.visit(2);
    lan.await_neighbour(2, 0, SECOND);

    let nft = format!("ip netns exec {} nft", lan.machine(2));
    run(&format!("{nft} add table arp deaf"));
    run(&format!("{nft} add chain arp deaf in {{ type filter hook input priority 0 ; policy drop ; }}"));
    a.kill();
    b.await_state(VipState::Master).await;
    let taken = std::time::Instant::now();
    tokio::time::sleep(Duration::from_millis(200)).await; // those at once and after 100 ms are lost
    run(&format!("{nft} delete table arp deaf"));
    lan.await_neighbour(2, 1, Duration::from_millis(1200).saturating_sub(taken.elapsed()));
}
