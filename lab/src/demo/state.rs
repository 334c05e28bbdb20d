//! What the demo knows, and the one JSON document that the page draws. Written by the client's thread
//! and the controller, read by the page's server.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use serde::Serialize;

use super::outage::{Ledger, Row, Sample};
use super::watch::View;

/// The student's side of the account, and the store's.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Enrolments {
    /// Students who began.
    pub(crate) begun: u64,
    /// Receipts they have.
    pub(crate) acknowledged: u64,
    /// Everybody in the store, visitors too.
    pub(crate) in_store: u64,
    /// Receipts for what is not in the store as the receipt says.
    pub(crate) lost: u64,
    /// Stored more than once.
    pub(crate) twice: u64,
    /// Requests that had to be sent again.
    pub(crate) tried_again: u64,
    /// Students who never got a receipt.
    pub(crate) given_up: u64,
    /// The longest time from a student's first try to the receipt, milliseconds.
    pub(crate) longest_wait_ms: u64,
}

/// What does not change.
#[derive(Clone, Debug, Serialize)]
struct Fixed {
    /// `network`, or `loopback`.
    mode: &'static str,
    /// The virtual address.
    address: Option<String>,
    platform_url: String,
    #[serde(skip)]
    page: SocketAddr,
}

/// All of it, shared.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) started: Instant,
    fixed: Fixed,
    changing: Mutex<Changing>,
}

#[derive(Debug, Default)]
pub(crate) struct Changing {
    pub(crate) ledger: Ledger,
    pub(crate) view: View,
    pub(crate) enrolments: Enrolments,
}

#[derive(Serialize)]
struct Document<'a> {
    now_ms: u64,
    #[serde(flatten)]
    fixed: &'a Fixed,
    #[serde(flatten)]
    view: &'a View,
    client: Client,
    enrolments: &'a Enrolments,
    rows: Vec<&'a Row>,
    /// `sent_ms, took_us` of each result since the last look, flat; -1: failed.
    samples: Vec<i64>,
    /// What to ask for next.
    next: u64,
}

#[derive(Serialize)]
struct Client {
    requests: u64,
    failed: u64,
    troubled: bool,
}

impl State {
    /// At the demo's start; without a virtual address all is on loopback.
    pub(crate) fn new(address: Option<Ipv4Addr>, page: SocketAddr, visitors: SocketAddr) -> State {
        let fixed = Fixed {
            mode: if address.is_some() { "network" } else { "loopback" },
            address: address.map(|address| address.to_string()),
            platform_url: format!("http://{visitors}/"),
            page,
        };
        State { started: Instant::now(), fixed, changing: Mutex::default() }
    }

    /// Milliseconds since the demo's start.
    pub(crate) fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    /// Where the dashboard listens.
    pub(crate) fn page(&self) -> SocketAddr {
        self.fixed.page
    }

    /// Where the visitor finds the platform.
    pub(crate) fn platform_url(&self) -> &str {
        &self.fixed.platform_url
    }

    /// The changing part; nobody holds it for longer than it takes to copy something.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Changing> {
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A result of the probe.
    pub(crate) fn sample(&self, sample: Sample) {
        self.lock().ledger.sample(sample, self.now_ms());
    }

    /// News of the students.
    pub(crate) fn enrolments(&self, edit: impl FnOnce(&mut Enrolments)) {
        edit(&mut self.lock().enrolments);
    }

    /// The document for a page that has seen the first `after` results.
    pub(crate) fn json(&self, after: u64) -> serde_json::Result<String> {
        let now_ms = self.now_ms();
        let changing = self.lock();
        let (samples, next) = changing.ledger.since(after);
        let took = |sample: &Sample| if sample.answered { i64::from(sample.took_us) } else { -1 };
        let document = Document {
            now_ms,
            fixed: &self.fixed,
            view: &changing.view,
            client: Client {
                requests: changing.ledger.requests,
                failed: changing.ledger.failed,
                troubled: changing.ledger.troubled(now_ms),
            },
            enrolments: &changing.enrolments,
            rows: changing.ledger.rows().collect(),
            samples: samples.flat_map(|sample| [sample.sent_ms as i64, took(sample)]).collect(),
            next,
        };
        serde_json::to_string(&document)
    }
}
