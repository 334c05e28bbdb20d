//! The engine's dealings with the operator's orders: standby, and addresses moved by hand.

use relais_ipc::message::Moved;
use relais_vrrp::Input;

use super::{Engine, Event};

/// As the supervisor and the status have it.
pub(super) fn moved(moved: relais_vrrp::Moved) -> Moved {
    match moved {
        relais_vrrp::Moved::Here(priority) => Moved::Here(priority),
        relais_vrrp::Moved::Away => Moved::Away,
    }
}

/// As the core has it.
fn core(moved: Moved) -> relais_vrrp::Moved {
    match moved {
        Moved::Here(priority) => relais_vrrp::Moved::Here(priority),
        Moved::Away => relais_vrrp::Moved::Away,
    }
}

impl Engine {
    pub(super) fn be_in_standby(&mut self, on: bool) {
        self.standby = on;
        (0..self.vips.len()).for_each(|v| self.handle(v, Input::Standby(on)));
    }

    pub(super) fn move_vip(&mut self, name: &str, here: bool) {
        let named = |vip: &super::Vip| *vip.spec.name == *name && !vip.dropped;
        match self.vips.iter().position(named) {
            Some(v) => {
                for v in self.held_together(v) {
                    self.handle(v, if here { Input::MoveHere } else { Input::MoveAway });
                }
            }
            None => self.tell(Event::Warn(format!("there is no vip {name} here to be moved"))),
        }
    }

    /// What a new router must know before it is started.
    pub(super) fn instruct(&mut self, v: usize) {
        let name = self.vips[v].spec.name.clone();
        if let Some(i) = self.moved.iter().position(|(vip, _)| **vip == *name) {
            let (_, moved) = self.moved.swap_remove(i);
            self.handle(v, Input::Restore(Some(core(moved))));
        }
        if self.standby {
            self.handle(v, Input::Standby(true));
        }
    }
}
