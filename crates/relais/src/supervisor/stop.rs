//! The planned stop: the addresses are handed over first, then open requests are finished, then the kernel delivers the ends of
//! their answers, then the children end. A second signal, or a step that takes too long, goes on to the next step at once.

use std::time::Duration;

use relais_base::Time;
use relais_ipc::{Order, Role, VipState};
use tracing::{info, warn};

use super::Supervisor;

/// Longest wait for another node to take the addresses.
const HAND_OVER_LIMIT: Duration = Duration::from_secs(5);
/// What a child gets between `Stop` and SIGKILL.
const END_LIMIT: Duration = Duration::from_secs(2);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    HandOver,
    Drain,
    Deliver,
    End,
    Done,
}

/// A stop on its way.
#[derive(Debug)]
pub(super) struct Stopping {
    step: Step,
    pub(super) deadline: Time,
    /// When the whole drain ends.
    drained_by: Time,
}

impl Supervisor {
    /// Begins the planned stop; the second call hurries it.
    pub(super) async fn stop(&mut self, why: &str) {
        if self.stopping.is_some() {
            warn!("{why} again: not waiting any longer");
            return self.next_step().await;
        }
        if self.inheriting.is_some() {
            return self.step_back(why).await;
        }
        self.call_off("the node is being stopped").await;
        info!("{why}: handing over, then draining");
        self.notify.stopping();
        self.respawn.clear();
        self.enter(Step::HandOver, HAND_OVER_LIMIT).await;
    }

    /// Whether there is nothing left to do.
    pub(super) fn has_stopped(&self) -> bool {
        self.stopping.as_ref().is_some_and(|stopping| stopping.step == Step::Done)
    }

    fn step(&self) -> Option<Step> {
        self.stopping.as_ref().map(|stopping| stopping.step)
    }

    async fn enter(&mut self, step: Step, limit: Duration) {
        let deadline = self.now() + limit;
        let drained_by = self.stopping.as_ref().map_or(deadline, |stopping| stopping.drained_by);
        let drained_by = if step == Step::Drain { deadline } else { drained_by };
        self.stopping = Some(Stopping { step, deadline, drained_by });
        match step {
            Step::HandOver => {
                if self.child(Role::Vip).pid().is_none() || !self.holds_an_address() {
                    // Nothing to hand over; vip still must not take one during the drain.
                    self.child(Role::Vip).order(&Order::HandOver, None).await;
                    return Box::pin(self.next_step()).await;
                }
                self.child(Role::Vip).order(&Order::HandOver, None).await;
            }
            Step::Drain => {
                if self.child(Role::Proxy).pid().is_none() {
                    return Box::pin(self.next_step()).await;
                }
                let limit_ms = self.current.plan.drain.as_millis() as u64;
                self.child(Role::Proxy).order(&Order::Drain { limit_ms }, None).await;
            }
            Step::Deliver => {
                if self.child(Role::Vip).pid().is_none() {
                    return Box::pin(self.next_step()).await;
                }
                self.child(Role::Vip).order(&Order::Deliver, None).await;
            }
            Step::End => {
                for role in Role::ALL {
                    self.child(role).order(&Order::Stop, None).await;
                }
                self.done_if_all_ended();
            }
            Step::Done => {}
        }
        self.tell_control().await;
    }

    /// Another generation has the sockets and the addresses: finishes what is open here, then ends. A second call
    /// can only shorten the limit.
    pub(super) async fn drain_retired(&mut self, limit: Duration) {
        let deadline = self.now() + limit + Duration::from_secs(1);
        let deadline = self.stopping.as_ref().map_or(deadline, |stopping| stopping.deadline.min(deadline));
        self.stopping = Some(Stopping { step: Step::Drain, deadline, drained_by: deadline });
        if self.child(Role::Proxy).pid().is_none() {
            return self.next_step().await;
        }
        let limit_ms = limit.as_millis() as u64;
        self.child(Role::Proxy).order(&Order::Retire { limit_ms }, None).await;
    }

    fn holds_an_address(&self) -> bool {
        self.vips.values().any(|state| *state == VipState::Master)
    }

    async fn next_step(&mut self) {
        match self.step() {
            // The proxy gets a moment more than its own limit, so that it can say what it cut.
            Some(Step::HandOver) => {
                let limit = self.current.plan.drain + Duration::from_secs(1);
                self.enter(Step::Drain, limit).await;
            }
            Some(Step::Drain) => {
                let drained_by = self.stopping.as_ref().map_or(Time::ZERO, |stopping| stopping.drained_by);
                self.enter(Step::Deliver, drained_by.since(self.now())).await;
            }
            Some(Step::Deliver) => self.enter(Step::End, END_LIMIT).await,
            Some(Step::End) => {
                self.children.iter().for_each(|child| child.kill());
                self.enter(Step::Done, Duration::ZERO).await;
            }
            Some(Step::Done) | None => {}
        }
    }

    pub(super) async fn stop_on_handed_over(&mut self) {
        if self.step() == Some(Step::HandOver) {
            self.next_step().await;
        }
    }

    pub(super) async fn stop_on_drained(&mut self, unfinished: u32) {
        if unfinished > 0 {
            warn!("{unfinished} connections were still open after the drain and were cut");
        }
        if self.step() == Some(Step::Drain) {
            self.next_step().await;
        }
    }

    pub(super) async fn stop_on_delivered(&mut self) {
        if self.step() == Some(Step::Deliver) {
            self.next_step().await;
        }
    }

    pub(super) async fn stop_on_death(&mut self, role: Role) {
        match (self.step(), role) {
            (Some(Step::HandOver | Step::Deliver), Role::Vip) | (Some(Step::Drain), Role::Proxy) => {
                self.next_step().await
            }
            (Some(Step::End), _) => self.done_if_all_ended(),
            _ => {}
        }
    }

    pub(super) async fn stop_on_time(&mut self) {
        let now = self.now();
        if let Some(stopping) = self.stopping.as_ref().filter(|stopping| stopping.deadline <= now) {
            match stopping.step {
                Step::HandOver => {
                    warn!("no other node took the addresses in {} s", HAND_OVER_LIMIT.as_secs())
                }
                Step::Drain => warn!("the proxy did not drain in time"),
                Step::Deliver | Step::End | Step::Done => {}
            }
            self.next_step().await;
        }
    }

    fn done_if_all_ended(&mut self) {
        if self.children.iter().all(|child| child.pid().is_none()) {
            self.stopping = Some(Stopping { step: Step::Done, deadline: Time::MAX, drained_by: Time::MAX });
        }
    }
}
