//! What other nodes say of the holder: heartbeats tell, long before anybody needs to know, who is heard by whom.
//!
//! Nothing is asked and nothing waited for. Word of a holder is believed for a time that is over before a dead one's
//! silence has lasted for the longest that [`master_down_interval`](crate::master_down_interval) may take.

use alloc::format;
use alloc::string::ToString;

use relais_base::Time;

use crate::events::Output;

use super::{Phase, Router};

/// For how many of the master's intervals word of it is believed.
const BELIEVED_FOR: u32 = 3;
/// For how many a new master takes it that another may not have heard of it yet.
const UNHEARD_FOR: u32 = 3;

impl Router {
    pub(super) fn witnessed(&mut self, at: Time, outranks: bool) {
        self.witnessed = self.witnessed.max(Some(at));
        // Two that hear each other settle it by their advertisements, and a new one is soon heard by the old.
        if let Phase::Leaving { begun, .. } = self.phase
            && at > begun
        {
            self.begin_relay(Output::LetGo);
            return match self.moving {
                true => self.moved_to("another node, which others hear and this one does not", !outranks),
                false => self.left(
                    "it was handed over to another node, which others hear and this one does not".into(),
                ),
            };
        }
        let is_new = at < self.since + self.config.interval * UNHEARD_FOR;
        if outranks && !is_new && matches!(self.phase, Phase::Master { .. }) {
            self.outputs.push_back(Output::RemoveAddress);
            self.heard = self.now;
            self.listen(
                "another node holds it too, which is to have it; this one does not hear it, others do".into(),
            );
        }
    }

    /// Until when the holder counts as alive although it is not heard here, for somebody else hears it.
    pub(super) fn spares_until(&self) -> Option<Time> {
        let silence = self.now.since(self.heard);
        let is_heard = self.master.is_some() && silence < self.master_interval * 3;
        let is_dead = self.master.is_some_and(|(who, _)| self.dead == Some(who));
        let until = self.witnessed? + self.master_interval * BELIEVED_FOR;
        (!is_heard && !is_dead && until > self.now).then_some(until)
    }

    pub(super) fn spare(&mut self, until: Time) {
        self.phase = Phase::Backup { down_at: until, released_by: None };
        if !self.spared {
            self.spared = true;
            let who = self.master.map_or("its holder".into(), |(who, _)| who.to_string());
            self.log(format!(
                "{who} is not heard here, but other nodes hear that it holds the address: this node stays backup; \
                 look at the link between the two"
            ));
        }
    }
}
