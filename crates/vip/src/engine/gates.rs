//! The engine's part in the gates, the lease's fine stage: when they are made, held open and shut.

use std::io;
use std::time::Duration;

use relais_vrrp::Config;

use super::{Engine, Event, now};
use crate::gate::{self, Gate, Pulse};

impl Engine {
    /// A gate before each address, on the interface as it is now. Where there can be none it is said once.
    pub(super) fn build_gates(&mut self, v: usize, p: usize) {
        let Some(index) = self.ports[p].found.as_ref().map(|found| found.index) else { return };
        if self.ungated || self.vips[v].gates.iter().any(|gate| gate.index() == index) {
            return;
        }
        let Config { addresses, vrid, .. } = self.vips[v].router.config().clone();
        self.vips[v].gates.clear();
        for (address, i) in addresses.into_iter().zip(0..) {
            let number = gate::number(vrid, address, i);
            let gate = self.pulse().and_then(|pulse| Gate::new(index, address, number, pulse));
            match gate {
                Ok(gate) => self.vips[v].gates.push(gate),
                Err(e) => return self.cannot_gate(&e),
            }
        }
    }

    fn cannot_gate(&mut self, e: &io::Error) {
        self.ungated = true;
        self.tell(Event::Warn(format!(
            "the kernel does not gate addresses here ({e}): if this process is killed or hangs while it holds one, this \
             machine answers for it up to {} s beside its successor; it needs Linux 5.8 with cls_bpf, and CAP_BPF",
            relais_vrrp::LEASE.as_secs() + 1
        )));
    }

    fn pulse(&mut self) -> io::Result<&Pulse> {
        if self.pulse.is_none() {
            let pulse = Pulse::new()?;
            self.tell(Event::Pulse(pulse.socket()?));
            self.pulse = Some(pulse);
        }
        self.pulse.as_ref().ok_or_else(|| io::Error::other("there is no pulse"))
    }

    /// See [`Gate::mute`].
    pub(super) fn mute_gates(&self, v: usize, muted: bool) {
        self.vips[v].gates.iter().for_each(|gate| gate.mute(muted));
    }

    pub(super) fn shut_gates(&self, v: usize) {
        if !self.vips[v].relaying {
            self.vips[v].gates.iter().for_each(Gate::shut);
        }
    }

    pub(super) fn hold_gates(&self, v: usize, lease: Duration) {
        let until = now() + lease;
        self.vips[v].gates.iter().for_each(|gate| gate.hold_until(until));
    }
}
