//! When the engine turns: at once when something comes, and on time when something is due.
//!
//! Real-time priority is not enough for that. Most kernels do not preempt themselves: a thread that is woken on a
//! processor where a system call is in the middle of something long (`nft -f` of 375,000 elements: a second) waits
//! for its end, although another processor idles. So there are two threads, each bound to a processor of its own.
//! The first does the work. The second sleeps until a turn is overdue, and then does that one turn.
//!
//! Made by `lib`; [`Engine`] knows nothing of threads.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use relais_base::Time;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use rustix::time::Timespec;

use crate::engine::{Engine, now};
use crate::sys;

/// Stack of a real-time thread, bytes: it is locked in memory as a whole.
pub(crate) const STACK: usize = 512 * 1024;
/// `SCHED_FIFO` priority: above everything ordinary, below the kernel's own watchdogs.
const PRIORITY: i32 = 50;
/// A turn that is this late is overdue. The shortest interval is 10 ms.
const OVERDUE: Duration = Duration::from_millis(2);
/// Longest sleep of the second thread: what is due may come to be due sooner meanwhile.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// What [`Shared::due`] says when there will be no further turn.
const NEVER_AGAIN: u64 = 0;

struct Shared {
    engine: Mutex<Engine>,
    /// When the next turn is due, nanoseconds.
    due: AtomicU64,
}

/// Runs the engine until it stops.
pub(crate) fn run(engine: Engine) {
    let shared = Shared { engine: Mutex::new(engine), due: AtomicU64::new(u64::MAX) };
    let processors = sched_getaffinity(None).ok();
    let mut processors =
        (0..CpuSet::MAX_CPU).filter(|cpu| processors.as_ref().is_some_and(|set| set.is_set(*cpu)));
    let (first, second) = (processors.next(), processors.next());
    let shared = &shared;
    std::thread::scope(|scope| {
        if let Some(second) = second {
            let builder = std::thread::Builder::new().name("vrrp-second".into()).stack_size(STACK);
            // Without it everything works as long as the kernel is quick.
            let _ = builder.spawn_scoped(scope, move || stand_in(shared, second));
        }
        be_prompt(shared, first);
        work(shared);
        shared.due.store(NEVER_AGAIN, Ordering::Relaxed);
    });
}

fn be_prompt(shared: &Shared, processor: Option<usize>) {
    if let Some(processor) = processor {
        let mut only = CpuSet::new();
        only.set(processor);
        let _ = sched_setaffinity(None, &only); // where it is refused, both run wherever they are put
    }
    if let Err(e) = sys::real_time(PRIORITY) {
        lock(shared).complain_of_scheduling(&e);
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, Engine> {
    shared.engine.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One turn; whether there may be another.
fn turn(shared: &Shared, mut engine: MutexGuard<'_, Engine>) -> bool {
    if engine.is_stopped() {
        return false; // the other thread turned it last
    }
    engine.turn();
    shared.due.store(engine.due().as_nanos().max(NEVER_AGAIN + 1), Ordering::Relaxed);
    !engine.is_stopped()
}

fn work(shared: &Shared) {
    let Ok(inbox) = lock(shared).inbox() else { return };
    while turn(shared, lock(shared)) {
        let due = Time::from_nanos(shared.due.load(Ordering::Relaxed));
        let timeout = (due < Time::MAX).then(|| Timespec::try_from(due.since(now())).ok()).flatten();
        let _ = poll(&mut [PollFd::new(&inbox, PollFlags::IN)], timeout.as_ref()); // interrupted or not: look
    }
}

fn stand_in(shared: &Shared, processor: usize) {
    be_prompt(shared, Some(processor));
    loop {
        let due = shared.due.load(Ordering::Relaxed);
        if due == NEVER_AGAIN {
            return;
        }
        let overdue = Time::from_nanos(due) + OVERDUE;
        if overdue <= now()
            && let Ok(engine) = shared.engine.try_lock()
        {
            turn(shared, engine);
            continue;
        }
        std::thread::sleep(overdue.since(now()).clamp(Duration::from_millis(1), LOOK_AGAIN));
    }
}
