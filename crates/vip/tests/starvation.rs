//! A machine whose processors are all taken keeps its address: neither the holder nor the backup is late for it.

#![allow(clippy::unwrap_used)] // helpers are not tests to clippy

mod common;

use std::process::{Child, Command};
use std::time::Duration;

use common::{Lan, Vip, plan, ready};
use relais_ipc::VipState;

/// How long the machine is starved; `RELAIS_STARVE_S` for the long run.
fn how_long() -> Duration {
    let seconds = std::env::var("RELAIS_STARVE_S").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(4))
}

/// Processes that do nothing, as fast as they can; they end with this.
struct Busy(Vec<Child>);

impl Busy {
    fn loops(count: usize) -> Busy {
        let busy = |_| Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        Busy((0..count).map(busy).collect())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[tokio::test]
async fn six_busy_loops_move_no_address() {
    if !ready(&["ip"]) {
        return;
    }
    for interval in ["50ms", "10ms"] {
        let lan = Lan::new(&["a", "b"]);
        let text = plan(101, 100, "").replace("50ms", interval);
        let a = Vip::with_plan(lan.machine(0), "a", &text).await;
        a.await_state(VipState::Master).await;
        let b = Vip::with_plan(lan.machine(1), "b", &text).await;
        b.await_state(VipState::Backup).await;
        let before = a.status_socket().await.until(|vip| vip.state == VipState::Master).await;
        let busy = Busy::loops(6);
        tokio::time::sleep(how_long()).await;
        drop(busy);
        let after = a.status_socket().await.until(|_| true).await;
        assert_eq!(after.state, VipState::Master, "every {interval}");
        assert_eq!(after.became_master_total, before.became_master_total, "every {interval}");
        assert_eq!(b.status_socket().await.until(|_| true).await.became_master_total, 0, "every {interval}");
        assert!(after.adverts_sent_total > before.adverts_sent_total + 10);
    }
}
