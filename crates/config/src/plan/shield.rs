//! The waiting room of a frontend.

use std::sync::Arc;
use std::time::Duration;

use relais_rules::Condition;

/// Who is let in when more come than can be served.
#[derive(Clone, Debug, PartialEq)]
pub struct Shield {
    /// So many requests that wait for servers are too many, at least 1.
    pub queue: u32,
    /// Percent of the servers' limits that are too much, 1 to 100.
    pub saturation: u8,
    /// Percent of the workers' time that are too much, 1 to 100.
    pub cpu: u8,
    /// Newcomers let in a second; `None`: as many as the load allows.
    pub admit: Option<u32>,
    /// How often those who wait come back.
    pub refresh: Duration,
    /// How long somebody stays in.
    pub session: Duration,
    /// File of the page.
    pub page: Option<Arc<str>>,
    /// Whatever the load.
    pub always: bool,
    /// Requests that one of these is true of do not wait.
    pub except: Vec<Condition>,
    /// File of the secret that both balancers sign with; `None`: each process makes its own.
    pub key: Option<Arc<str>>,
}
