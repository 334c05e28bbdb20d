//! What the traffic itself says of a server (`observe`): failures in a row, counted by the workers. Who acts on them is the
//! check of that server ([`crate::checks`]).

use std::sync::Mutex;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::Duration;

use relais_config::plan::Observe;
use tokio::sync::Notify;

use crate::counters::lock;

/// Of one server; all workers write it. Costs a load a request where nobody observes.
#[derive(Debug, Default)]
pub(crate) struct Observed {
    /// Failures in a row that count; 0: nobody observes.
    limit: AtomicU32,
    layer7: AtomicBool,
    in_a_row: AtomicU32,
    reached: Notify,
    /// For how long it is to be out, and why.
    out: Mutex<Option<(Duration, String)>>,
    sent_out: Notify,
}

impl Observed {
    pub(crate) fn set(&self, observe: Option<&Observe>) {
        self.layer7.store(observe.is_some_and(|observe| observe.layer7), Relaxed);
        self.limit.store(observe.map_or(0, |observe| observe.errors), Relaxed);
    }

    /// Waits until so many failures came in a row.
    pub(crate) async fn reached(&self) {
        self.reached.notified().await;
    }

    /// It fails more than others do: out with it for so long.
    pub(crate) fn send_out(&self, time: Duration, why: String) {
        *lock(&self.out) = Some((time, why));
        self.sent_out.notify_one();
    }

    /// Waits until it is to go out: for how long, and why.
    pub(crate) async fn sent_out(&self) -> (Duration, String) {
        loop {
            self.sent_out.notified().await;
            if let Some(out) = lock(&self.out).take() {
                return out;
            }
        }
    }

    /// A connection could be made.
    pub(crate) fn connected(&self) {
        if self.limit.load(Relaxed) != 0 && !self.layer7.load(Relaxed) {
            self.good();
        }
    }

    /// It could not.
    pub(crate) fn unreachable(&self) {
        self.bad();
    }

    /// A request was answered with this status. As in HAProxy, 501 and 505 are the client's doing.
    pub(crate) fn answered(&self, status: u16) {
        if self.limit.load(Relaxed) == 0 || !self.layer7.load(Relaxed) {
            return;
        }
        match status {
            500 | 502..=504 => self.bad(),
            _ => self.good(),
        }
    }

    /// A request was not answered, or with something that is no HTTP.
    pub(crate) fn failed(&self) {
        if self.layer7.load(Relaxed) {
            self.bad();
        }
    }

    fn good(&self) {
        if self.in_a_row.load(Relaxed) != 0 {
            self.in_a_row.store(0, Relaxed);
        }
    }

    fn bad(&self) {
        let limit = self.limit.load(Relaxed);
        if limit != 0 && self.in_a_row.fetch_add(1, Relaxed) + 1 >= limit {
            self.in_a_row.store(0, Relaxed);
            self.reached.notify_one();
        }
    }
}
