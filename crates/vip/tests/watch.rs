//! The death-watch: backups know at once that nothing of ours is left on the holder's machine.

mod common;

use std::time::Duration;

use common::{Lan, Vip, plan, plan6, ready, run};
use relais_ipc::{Order, Report, VipState};

/// With advertisements a second apart, silence takes 3.6 s to mean anything.
fn slow_plan() -> String {
    plan(101, 100, "").replace("50ms", "1s")
}

/// The master on machine 0, watched by the backup on machine 1.
async fn pair(lan: &Lan) -> (Vip, Vip) {
    pair_with(lan, &slow_plan()).await
}

async fn pair_with(lan: &Lan, plan: &str) -> (Vip, Vip) {
    let a = Vip::with_plan(lan.machine(0), "a", plan).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", plan).await;
    b.await_state(VipState::Backup).await;
    a.await_report("Watched", |report| *report == Report::Watched).await;
    (a, b)
}

async fn stays_backup(b: &Vip, how_long: Duration) {
    let news = tokio::time::timeout(how_long, b.await_state(VipState::Master)).await;
    assert!(news.is_err(), "the backup took the address");
}

#[tokio::test]
async fn the_death_of_all_is_known_at_once_but_not_that_of_one() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let (mut a, b) = pair(&lan).await;
    stays_backup(&b, Duration::from_millis(700)).await;
    a.kill();
    stays_backup(&b, Duration::from_millis(1200)).await; // its supervisor lives, and starts another
    a.held.borrow_mut().clear(); // and now it does not
    let took = b.await_state(VipState::Master).await;
    assert!(took > Duration::from_millis(500) && took < Duration::from_millis(900), "{took:?}: not the skew");
    assert!(lan.holds(1));
}

#[tokio::test]
async fn the_death_of_all_is_known_at_once_over_ipv6() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    lan.add_ipv6();
    let to_group = plan6(101, 100).replace("50ms", "1s");
    let to_each = to_group.replace("router-id", "unicast\n    router-id");
    let to_each = to_each.replace("\"10.9.0.1\"", "\"fd00::1\"").replace("\"10.9.0.2\"", "\"fd00::2\"");
    for text in [to_group, to_each] {
        let (mut a, b) = pair_with(&lan, &text).await;
        stays_backup(&b, Duration::from_millis(700)).await;
        a.kill();
        a.held.borrow_mut().clear();
        let took = b.await_state(VipState::Master).await;
        assert!(took < Duration::from_millis(900), "{took:?}: not the skew");
    }
}

#[tokio::test]
async fn a_connection_that_is_cut_proves_no_death() {
    if !ready(&["ip", "ss"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let (a, b) = pair(&lan).await;
    stays_backup(&b, Duration::from_millis(700)).await; // a younger connection's end means nothing at all
    run(&format!("ip netns exec {} ss --kill --tcp state established sport = :8405", lan.machine(0)));
    a.await_report("Watched", |report| *report == Report::Watched).await; // again
    stays_backup(&b, Duration::from_millis(1200)).await;
}

#[tokio::test]
async fn a_hand_over_is_no_death() {
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let (a, b) = pair(&lan).await;
    a.order(Order::HandOver).await;
    b.await_state(VipState::Master).await;
    a.await_report("HandedOver", |report| *report == Report::HandedOver).await;
    drop(a);
    lan.await_holder(1, Duration::from_secs(1));
}

#[tokio::test]
async fn strangers_cannot_watch() {
    use std::io::Read;
    if !ready(&["ip"]) {
        return;
    }
    let lan = Lan::new(&["a", "b", "stranger"]);
    let (_a, _b) = pair(&lan).await;
    let address: std::net::SocketAddr = "10.9.0.1:8405".parse().expect("an address");
    let mut connection = lan.inside(2, || std::net::TcpStream::connect(address)).expect("a connection");
    connection.set_read_timeout(Some(Duration::from_secs(5))).expect("a time-out");
    assert_eq!(connection.read(&mut [0]).expect("an end"), 0);
}

#[tokio::test]
async fn a_backup_that_is_not_let_in_does_not_knock_without_end() {
    if !ready(&["ip", "ss"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    let text = slow_plan().replace("10.9.0.2", "10.9.0.77"); // not where b advertises from
    let a = Vip::with_plan(lan.machine(0), "a", &text).await;
    a.await_state(VipState::Master).await;
    let b = Vip::with_plan(lan.machine(1), "b", &text).await;
    b.await_state(VipState::Backup).await;
    stays_backup(&b, Duration::from_millis(1500)).await;
    // Each attempt is another port of the same client, which the kernel remembers for a minute.
    let ends = run(&format!("ip netns exec {} ss --all --numeric --tcp sport = :8405", lan.machine(0)));
    let attempts = ends.lines().filter(|line| line.contains("10.9.0.2")).count();
    assert!((1..=3).contains(&attempts), "{ends}");
}
