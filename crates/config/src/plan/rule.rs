//! Rules: what is done with some of the requests of a frontend or backend.

use std::sync::Arc;
use std::time::Duration;

use relais_rules::template::Template;
use relais_rules::{Condition, Key, What};

use super::{BackendId, MinRate};

/// What is done with some of the requests.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// What it is for, in the operator's words.
    pub name: Arc<str>,
    /// What must hold, all of it.
    pub conditions: Vec<RuleCondition>,
    /// What is counted of the requests for which those hold, and has to be true, too.
    pub rates: Vec<Rate>,
    /// What is done, in this order; at most one of them ends the request, and that one is the last.
    pub actions: Vec<Action>,
}

/// A condition of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct RuleCondition {
    /// It, with what the plan itself says.
    pub is: Condition,
    /// A file with more values, one a line.
    pub list: Option<Arc<str>>,
}

/// More than so many of one key in some time.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// What is counted together.
    pub key: Key,
    /// What is counted of it.
    pub measure: Measure,
    /// It is true from the next one on.
    pub over: u32,
    /// The time that they are counted over.
    pub per: Duration,
    /// Keys that are remembered.
    pub keys: u32,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Measure {
    /// Requests; in TCP mode connections.
    Requests,
    /// Connections, by the first request of each.
    Connections,
    /// Answers with a status of 400 to 499.
    Errors,
    /// Answers with a status of 500 to 599.
    Failures,
    /// Bytes of requests.
    BytesIn,
    /// Bytes of answers.
    BytesOut,
}

/// What a rule lets those that it is for have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limit {
    /// Most requests, or connections in TCP mode, at a time of one key.
    pub places: Option<(u32, Key)>,
    /// Longest body, bytes.
    pub max_body: Option<u64>,
    /// The least that a client sends or takes; within, `None`: nothing.
    pub min_rate: Option<Option<MinRate>>,
    /// Instead of the frontend's `timeout client`.
    pub client: Option<Duration>,
    /// Instead of the backend's `timeout server`.
    pub server: Option<Duration>,
    /// Before whom it waits for a place at a server.
    pub rank: Option<Rank>,
    /// How long it waits before anything is done with it.
    pub delay: Option<Duration>,
}

/// Who leaves a queue before whom: the lowest class first, and within it who came first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    /// -2047 to 2047; others have 0.
    pub class: i16,
    /// As if it had come so much later.
    pub later: Duration,
}

/// What a rule does.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Answers with this status; in TCP mode, closes.
    Deny(u16),
    /// The same after so long.
    Tarpit(u16, Duration),
    /// Ends the connection, and does not say so.
    SilentDrop,
    /// Closes connections as they are accepted. Rules that have it have no other action.
    Reject {
        /// Only those that are more than so many of one key.
        places: Option<(u32, Key)>,
        /// And does not say so.
        silent: bool,
    },
    /// This backend answers, or the one that the map says. One of both is there.
    Backend {
        /// The backend, also where the map says nothing.
        to: Option<BackendId>,
        /// File of the map, and what it is asked for.
        map: Option<(Arc<str>, What)>,
    },
    /// Answers with a redirect.
    Redirect {
        /// Where to.
        to: Template,
        /// 301, 302, 303, 307 or 308.
        code: u16,
    },
    /// Answers with a body of the operator's.
    Respond {
        /// Its status.
        status: u16,
        /// Its body.
        body: RespondBody,
        /// Its `Content-Type`.
        content_type: Arc<str>,
    },
    /// Changes a field.
    Header {
        /// Of the response; else of the request.
        response: bool,
        /// What there was of that name goes.
        replace: bool,
        /// Its name.
        name: Arc<str>,
        /// Its value; `None`: it only goes.
        value: Option<Template>,
    },
    /// Holds the request, or connection, to limits of its own.
    Limit(Limit),
    /// The server gets another path.
    Rewrite(RewriteSpec),
}

/// What a rule answers with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RespondBody {
    /// This.
    Text(Arc<str>),
    /// What is in this file.
    File(Arc<str>),
}

/// How a path is rewritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RewriteSpec {
    /// What is replaced: a regular expression, or else a prefix of whole segments.
    pub regex: bool,
    /// It.
    pub what: Arc<str>,
    /// What stands there instead.
    pub to: Arc<str>,
}

impl Rule {
    /// Whether no later rule is asked once this one matches.
    pub fn ends(&self) -> bool {
        self.actions.iter().any(|action| match action {
            Action::Backend { to, .. } => to.is_some(),
            Action::Reject { places, .. } => places.is_none(),
            Action::Deny(_) | Action::Tarpit(..) | Action::SilentDrop => true,
            Action::Redirect { .. } | Action::Respond { .. } => true,
            Action::Header { .. } | Action::Limit(_) | Action::Rewrite(_) => false,
        })
    }

    /// Whether it is asked about connections as they are accepted.
    pub fn rejects(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Reject { .. }))
    }

    /// The backends that it names itself.
    pub fn backends(&self) -> impl Iterator<Item = BackendId> {
        self.actions.iter().filter_map(|action| match action {
            Action::Backend { to, .. } => *to,
            _ => None,
        })
    }

    /// Whether it has a map, which may lead to any backend.
    pub fn has_map(&self) -> bool {
        self.actions.iter().any(|action| matches!(action, Action::Backend { map: Some(_), .. }))
    }
}
