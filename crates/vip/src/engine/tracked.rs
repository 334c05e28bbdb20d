//! The engine's word to the routers of links and files that they track.

use relais_vrrp::{Health, Input};

use super::{Engine, LINK, Vip, file, link};

impl Engine {
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
