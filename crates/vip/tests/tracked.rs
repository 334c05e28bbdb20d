//! What an address depends on beside the election: backends, scripts, a majority of the nodes.

#![allow(clippy::unwrap_used)] // helpers are not tests to clippy

mod common;

use std::os::fd::AsFd;
use std::time::Duration;

use common::{Key, Lan, Vip, plan, ready};
use relais_ipc::channel::text_to_fd;
use relais_ipc::{Order, VipState};

const SCRIPT: &str = "/usr/local/bin/look here";

fn server(server: &str, up: bool) -> Order {
    Order::Server { backend: "app".into(), server: server.into(), up }
}

fn script(up: bool) -> Order {
    Order::Script { command: SCRIPT.into(), up }
}

#[tokio::test]
async fn a_backend_that_loses_its_servers_takes_the_address_along() {
    if !ready(&["ip"]) {
        return;
    }
    let text = plan(101, 100, "track backend=app min=2\n    track backend=app weight=-10")
        + "backend app {\n    check tcp\n    server s0 \"10.9.0.9:80\"\n    server s1 \"10.9.0.9:81\"\n    \
           server s2 \"10.9.0.9:82\"\n}\n";
    let lan = Lan::new(&["a"]);
    let a = Vip::start(lan.machine(0), "a").await;
    a.order(server("s0", false)).await;
    a.plan(1, &text).await;
    a.await_state(VipState::Master).await; // two that no check has spoken of are enough
    let status = a.status_socket().await;
    a.order(server("s1", false)).await;
    let vip = status.until(|vip| vip.state == VipState::Fault).await;
    assert_eq!((vip.reason.as_str(), vip.priority), ("backend app with 2 servers is down", 101));
    assert!(!lan.holds(0));
    a.order(server("s2", false)).await;
    status.until(|vip| vip.priority == 91).await;
    a.order(server("s0", true)).await;
    status.until(|vip| vip.priority == 101).await;
    a.order(server("s1", true)).await;
    status.until(|vip| vip.state == VipState::Master).await;

    // What an operator puts down does not count.
    let overrides = text_to_fd("down app/s0").unwrap();
    a.channel.send(&Order::Overrides, Some(overrides.as_fd())).await.unwrap();
    a.plan(2, &text).await;
    status.until(|vip| vip.state == VipState::Fault).await;
    a.plan(3, &text).await;
    status.until(|vip| vip.state == VipState::Master).await;
}

#[tokio::test]
async fn a_script_that_fails_takes_the_address_along() {
    if !ready(&["ip"]) {
        return;
    }
    let text = plan(101, 100, &format!("track script=\"{SCRIPT}\""));
    let lan = Lan::new(&["a"]);
    let mut a = Vip::with_plan(lan.machine(0), "a", &text).await;
    let status = a.status_socket().await;
    let reason = "script /usr/local/bin/look here has not come up yet";
    status.until(|vip| vip.state == VipState::Fault && vip.reason == reason).await;
    a.order(script(true)).await;
    status.until(|vip| vip.state == VipState::Master).await;
    a.order(script(false)).await;
    status.until(|vip| vip.state == VipState::Fault && vip.reason.ends_with("look here is down")).await;
    assert!(!lan.holds(0));
    a.order(script(true)).await;
    a.await_state(VipState::Fault).await;
    a.await_state(VipState::Master).await;

    // Its successor is told before the plan, and goes on.
    a.kill();
    let a = Vip::start(lan.machine(0), "a").await;
    a.order(script(true)).await;
    a.order(Order::Resume { vip: "public".into(), ago_ms: 1 }).await;
    a.plan(1, &text).await;
    a.await_state(VipState::Master).await;
    assert!(lan.holds(0));

    // A plan that adds one does not take the address from a holder before it has run.
    let two = plan(101, 100, &format!("track script=\"{SCRIPT}\"\n    track script=\"/bin/other\""));
    a.plan(2, &two).await;
    let status = a.status_socket().await;
    let vip = status.until(|vip| vip.tracked.len() == 2).await;
    assert_eq!(vip.state, VipState::Master);
    a.order(Order::Script { command: "/bin/other".into(), up: false }).await;
    status.until(|vip| vip.state == VipState::Fault).await;
}

#[tokio::test]
async fn without_a_majority_the_address_goes() {
    if !ready(&["ip"]) {
        return;
    }
    let (lan, key) = (Lan::new(&["a", "b", "w", "x", "y", "z"]), Key::new("quorum"));
    // The last one speaks once a second.
    let more =
        ["x", "y", "z"].iter().zip(4..).map(|(name, i)| format!("node {name} {{ link \"10.9.0.{i}\"; }}\n"));
    let text = key.plan().replace("router-id", "track quorum=majority\n    router-id");
    let text = text.replacen("vip public", &(more.collect::<String>() + "vip public"), 1);
    let mut a = Vip::with_plan(lan.machine(0), "a", &text).await;
    let status = a.status_socket().await;
    let reason = "the majority of nodes has not come up yet";
    status.until(|vip| vip.state == VipState::Fault && vip.reason == reason).await;
    tokio::time::sleep(Duration::from_millis(300)).await; // long enough to take it
    assert!(!lan.holds(0));
    let w = Vip::with_plan(lan.machine(2), "w", &text).await;
    let _x = Vip::with_plan(lan.machine(3), "x", &text).await;
    let _z = Vip::with_plan(lan.machine(5), "z", &text).await;
    a.await_state(VipState::Master).await;

    // Its successor has not heard enough yet, and goes on all the same.
    drop(status);
    a.kill();
    let a = Vip::start(lan.machine(0), "a").await;
    a.order(Order::Resume { vip: "public".into(), ago_ms: 1 }).await;
    a.plan(1, &text).await;
    a.await_state(VipState::Master).await;
    let status = a.status_socket().await;
    let vip = status.until(|vip| vip.state == VipState::Master).await;
    assert_eq!(vip.reason, "its process was restarted within its time");
    tokio::time::sleep(Duration::from_millis(1500)).await; // longer than it is trusted for
    assert_eq!(status.until(|_| true).await.transitions_total.get("fault"), None);
    drop(w);
    status.until(|vip| vip.state == VipState::Fault && vip.reason == "the majority of nodes is down").await;
    assert!(!lan.holds(0));
}
