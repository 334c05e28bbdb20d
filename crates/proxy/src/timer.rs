//! Time-outs of one worker's connections.
//!
//! A connection has one slot with one deadline, which it overwrites as often as it likes: that is a store.
//! A heap holds for each slot one moment at which somebody looks; only a deadline *before* that moment
//! costs a heap operation, and a look that comes too early puts itself off. One tokio `Sleep` serves all.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;

use relais_base::Time;

/// A connection's place among the timers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SlotId(u32);

#[derive(Default)]
struct Slot {
    waker: Option<Waker>,
    deadline: Time,
    /// The moment of this slot's valid heap entry; `Time::MAX` if it has none.
    armed: Time,
    /// Server that the connection waits for; 0: none.
    waits_for: u32,
    used: bool,
}

/// The timers of one worker.
#[derive(Default)]
pub(crate) struct Timers {
    slots: Vec<Slot>,
    free: Vec<u32>,
    heap: BinaryHeap<Reverse<(Time, u32)>>,
    /// Who sleeps until the next look, and until when.
    sleeper: Option<Waker>,
    sleeps_until: Time,
}

impl Timers {
    /// A new slot without a deadline.
    pub(crate) fn insert(&mut self) -> SlotId {
        let slot = Slot { waker: None, deadline: Time::MAX, armed: Time::MAX, waits_for: 0, used: true };
        match self.free.pop() {
            Some(index) => {
                self.slots[index as usize] = slot;
                SlotId(index)
            }
            None => {
                self.slots.push(slot);
                SlotId((self.slots.len() - 1) as u32)
            }
        }
    }

    /// Gives a slot back. Its heap entry stays until its moment and then finds that it is not meant.
    pub(crate) fn remove(&mut self, id: SlotId) {
        self.slots[id.0 as usize] = Slot::default();
        self.free.push(id.0);
    }

    /// Wakes `waker` at `deadline` or soon after, unless another deadline is set before.
    pub(crate) fn set(&mut self, id: SlotId, deadline: Time, waker: &Waker) {
        let slot = &mut self.slots[id.0 as usize];
        debug_assert!(slot.used);
        if !slot.waker.as_ref().is_some_and(|w| w.will_wake(waker)) {
            slot.waker = Some(waker.clone());
        }
        slot.deadline = deadline;
        if deadline < slot.armed {
            slot.armed = deadline;
            self.heap.push(Reverse((deadline, id.0)));
            if deadline < self.sleeps_until
                && let Some(sleeper) = self.sleeper.take()
            {
                sleeper.wake();
            }
        }
    }

    /// Notes that the connection waits for the server of this id.
    pub(crate) fn wait_for(&mut self, id: SlotId, server: u32) {
        self.slots[id.0 as usize].waits_for = server;
    }

    /// Wakes every connection that waits for the server of this id.
    pub(crate) fn wake_waiting(&self, server: u32) {
        for slot in self.slots.iter().filter(|s| s.waits_for == server) {
            if let Some(waker) = &slot.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Wakes whoever's deadline has passed, and says when to look again.
    pub(crate) fn expire(&mut self, now: Time, sleeper: &Waker) -> Time {
        while let Some(&Reverse((moment, index))) = self.heap.peek() {
            if moment > now {
                break;
            }
            self.heap.pop();
            let slot = &mut self.slots[index as usize];
            if slot.armed != moment {
                continue; // of an earlier life, or put forward since
            }
            if slot.deadline <= now {
                slot.armed = Time::MAX;
                if let Some(waker) = &slot.waker {
                    waker.wake_by_ref();
                }
            } else {
                slot.armed = slot.deadline;
                if slot.deadline < Time::MAX {
                    self.heap.push(Reverse((slot.deadline, index)));
                }
            }
        }
        self.sleeper = Some(sleeper.clone());
        self.sleeps_until = self.heap.peek().map_or(Time::MAX, |Reverse((moment, _))| *moment);
        self.sleeps_until
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicU32);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    struct Bench {
        timers: Timers,
        count: Arc<Count>,
        waker: Waker,
    }

    impl Bench {
        fn new() -> Bench {
            let count = Arc::new(Count::default());
            Bench { timers: Timers::default(), waker: count.clone().into(), count }
        }

        fn set(&mut self, id: SlotId, ms: u64) {
            self.timers.set(id, Time::from_millis(ms), &self.waker);
        }

        /// How many were woken by now, and when to look again.
        fn at(&mut self, ms: u64) -> (u32, Time) {
            let next = self.timers.expire(Time::from_millis(ms), Waker::noop());
            (self.count.0.swap(0, Ordering::SeqCst), next)
        }
    }

    #[test]
    fn a_deadline_wakes_once_and_not_before() {
        let mut bench = Bench::new();
        let id = bench.timers.insert();
        bench.set(id, 10);
        assert_eq!(bench.at(9), (0, Time::from_millis(10)));
        assert_eq!(bench.at(10), (1, Time::MAX));
        assert_eq!(bench.at(20), (0, Time::MAX));
    }

    #[test]
    fn putting_a_deadline_off_costs_no_heap_operation_and_still_wakes_in_time() {
        let mut bench = Bench::new();
        let id = bench.timers.insert();
        for ms in 10..1000 {
            bench.set(id, ms);
        }
        assert_eq!(bench.timers.heap.len(), 1);
        assert_eq!(bench.at(10), (0, Time::from_millis(999)));
        assert_eq!(bench.at(999).0, 1);
    }

    #[test]
    fn an_earlier_deadline_wakes_at_its_own_time() {
        let mut bench = Bench::new();
        let id = bench.timers.insert();
        bench.set(id, 100);
        bench.set(id, 10);
        assert_eq!(bench.at(10).0, 1);
        assert_eq!(bench.at(200), (0, Time::MAX));
    }

    #[test]
    fn a_slot_that_is_given_back_wakes_nobody() {
        let mut bench = Bench::new();
        let id = bench.timers.insert();
        bench.set(id, 10);
        bench.timers.remove(id);
        let next = bench.timers.insert();
        assert_eq!(next, id, "the place is used again");
        bench.set(next, 50);
        assert_eq!(bench.at(10), (0, Time::from_millis(50)));
        assert_eq!(bench.at(50).0, 1);
    }

    #[test]
    fn only_those_who_wait_for_a_server_hear_of_it() {
        let mut bench = Bench::new();
        let (one, two) = (bench.timers.insert(), bench.timers.insert());
        bench.set(one, 10);
        bench.set(two, 10);
        bench.timers.wait_for(one, 7);
        bench.timers.wait_for(two, 8);
        bench.timers.wake_waiting(7);
        assert_eq!(bench.count.0.swap(0, Ordering::SeqCst), 1);
        bench.timers.wake_waiting(9);
        assert_eq!(bench.count.0.swap(0, Ordering::SeqCst), 0);
    }
}
