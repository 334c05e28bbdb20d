//! The engine's word to the routers of what they track, and the names by which the core knows it.

use std::time::Duration;

use relais_base::Time;
use relais_ipc::FrontendState;
use relais_vrrp::{Health, Input};

use super::{Engine, Vip, health, now};

/// So long a majority is taken to be there when this process goes on with its predecessor's addresses: heartbeats are
/// heard by then.
const UNTIL_HEARD: Duration = Duration::from_secs(1);

impl Engine {
    pub(super) fn tracked_is(&mut self, what: String, state: FrontendState) {
        for v in 0..self.vips.len() {
            self.handle(v, Input::Tracked(&what, health(state)));
        }
        match self.known.iter_mut().find(|(known, _)| *known == what) {
            Some(known) => known.1 = state,
            None => self.known.push((what, state)),
        }
    }

    /// A plan comes; whether it goes on with addresses of a predecessor.
    pub(super) fn trust_in_quorum(&mut self, resumes: bool) {
        self.quorum = None; // routers that are new to it must be told
        if resumes {
            self.quorum_until = now() + UNTIL_HEARD;
        }
    }

    /// Tells the routers that track it whether this node hears a majority, where that has changed.
    pub(super) fn tell_of_quorum(&mut self) {
        let tracks = |vip: &Vip| vip.router.config().track.iter().any(|track| &*track.what == QUORUM);
        if !self.vips.iter().any(tracks) {
            return;
        }
        let (all, heard) = self.census();
        let is_there = 2 * heard > all || (self.quorum_until > Time::ZERO && now() < self.quorum_until);
        if self.quorum != Some(is_there) {
            self.quorum = Some(is_there);
            let state = if is_there { FrontendState::Up } else { FrontendState::Down };
            self.tracked_is(QUORUM.into(), state);
        }
    }

    pub(super) fn file_says(&mut self, path: &str, number: i32) {
        for v in 0..self.vips.len() {
            let Some((_, weight)) = self.vips[v].spec.files.iter().find(|(known, _)| **known == *path) else {
                continue;
            };
            let change = number.saturating_mul(i32::from(*weight));
            self.handle(v, Input::Measured(&file(path), change));
        }
    }

    /// Tells the routers that track links how those are.
    pub(super) fn tell_of_links(&mut self) {
        let tracks = self.vips.iter().flat_map(|vip| &vip.router.config().track);
        let names = tracks.filter_map(|track| track.what.strip_prefix(LINK).map(str::to_owned));
        for name in names.collect::<std::collections::BTreeSet<_>>() {
            self.tell_of_link(&name);
        }
    }

    pub(super) fn tell_of_link(&mut self, name: &str) {
        let what = link(name);
        let tracks = |vip: &Vip| vip.router.config().track.iter().any(|track| *track.what == *what);
        if !self.vips.iter().any(tracks) {
            return;
        }
        let is_up = matches!(self.netlink.interface(name), Ok(Some(found)) if found.running);
        let health = if is_up { Health::Up } else { Health::Down };
        for v in 0..self.vips.len() {
            self.handle(v, Input::Tracked(&what, health));
        }
    }
}

const LINK: &str = "link ";

/// What the core calls the majority.
pub(crate) const QUORUM: &str = "the majority of nodes";

/// What the core calls a frontend.
pub(crate) fn frontend(name: &str) -> String {
    format!("frontend {name}")
}

/// What the core calls a backend of which so many servers must be well.
pub(crate) fn backend(name: &str, min: u16) -> String {
    match min {
        1 => format!("backend {name}"),
        _ => format!("backend {name} with {min} servers"),
    }
}

/// What the core calls an interface that is tracked.
pub(crate) fn link(name: &str) -> String {
    format!("{LINK}{name}")
}

/// What the core calls a file.
pub(crate) fn file(path: &str) -> String {
    format!("file {path}")
}

/// What the core calls a script.
pub(crate) fn script(command: &str) -> String {
    format!("script {command}")
}
