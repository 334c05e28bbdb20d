//! Who has the virtual address, moment by moment: the balancers' own interfaces, watched by netlink in each of
//! their namespaces. It sees the address, not whether a switch lets it be heard.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};

use crate::netlink::Netlink;
use crate::netns::Netns;
use crate::report::{Holders, ms};

/// From `at` on, exactly the balancers with a bit in `who` (the first host's is 1) have the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Since when.
    pub at: Instant,
    /// One bit a host.
    pub who: u8,
}

/// A watch over some hosts.
#[derive(Debug)]
pub struct Watch {
    changes: Arc<Mutex<Vec<Change>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    /// Begins to watch for `address` in at most 8 namespaces.
    ///
    /// # Errors
    /// If they cannot be asked.
    pub fn start(hosts: &[Netns], address: Ipv4Addr) -> io::Result<Watch> {
        assert!(hosts.len() <= 8);
        let mut reports = hosts.iter().map(Netlink::watch_addresses).collect::<io::Result<Vec<_>>>()?;
        let mut asks = hosts.iter().map(Netlink::open).collect::<io::Result<Vec<_>>>()?;
        let changes = Arc::new(Mutex::new(vec![look(&mut asks, address, 0)]));
        let stop = Arc::new(AtomicBool::new(false));
        let (seen, stopped) = (changes.clone(), stop.clone());
        let thread = std::thread::Builder::new().name("holders".into()).spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut fds: Vec<_> = reports.iter().map(|r| PollFd::new(r, PollFlags::IN)).collect();
                let limit = rustix::time::Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
                let _ = poll(&mut fds, Some(&limit)); // interrupted or not: look
                reports.iter_mut().for_each(Netlink::discard_reports);
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let last = seen.last().map_or(0, |change| change.who);
                let now = look(&mut asks, address, last);
                if now.who != last {
                    seen.push(now);
                }
            }
        })?;
        Ok(Watch { changes, stop, thread: Some(thread) })
    }

    /// Every change so far, the state at the beginning first.
    pub fn changes(&self) -> Vec<Change> {
        self.changes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Who has it now; a host that does not answer is taken to be as it was.
fn look(asks: &mut [Netlink], address: Ipv4Addr, before: u8) -> Change {
    let at = Instant::now();
    let bit = |(i, ask): (usize, &mut Netlink)| match ask.has_address(address) {
        Ok(has) => u8::from(has) << i,
        Err(_) => before & 1 << i,
    };
    let who = asks.iter_mut().enumerate().map(bit).sum();
    Change { at, who }
}

/// Milliseconds in `from..until` with more than one holder, and with none.
pub fn sum(changes: &[Change], from: Instant, until: Instant) -> Holders {
    let (mut both, mut neither) = (Duration::ZERO, Duration::ZERO);
    for (i, change) in changes.iter().enumerate() {
        let end = changes.get(i + 1).map_or(until, |next| next.at).min(until);
        let span = end.saturating_duration_since(change.at.max(from));
        match change.who.count_ones() {
            0 => neither += span,
            1 => {}
            _ => both += span,
        }
    }
    Holders { both: ms(both), neither: ms(neither) }
}

/// When, counted from `from`, the host with this bit lost the address and had not got it back by the end; `None`:
/// it has it.
pub fn lost_after(changes: &[Change], bit: u8, from: Instant) -> Option<Duration> {
    let last_with = changes.iter().rposition(|change| change.who & bit != 0);
    match last_with {
        None => Some(Duration::ZERO),
        Some(i) => changes.get(i + 1).map(|change| change.at.saturating_duration_since(from)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_with_two_holders_and_with_none_is_summed() {
        let from = Instant::now() + Duration::from_secs(1);
        let at = |ms: u64| from + Duration::from_millis(ms);
        // The first has it from before, both from 100 to 130, the second to 400, nobody to 450, then the second.
        let history = [(100, 3), (130, 2), (400, 0), (450, 2)].map(|(ms, who)| Change { at: at(ms), who });
        let mut changes = vec![Change { at: from - Duration::from_secs(1), who: 1 }];
        changes.extend(history);
        assert_eq!(sum(&changes, from, at(1000)), Holders { both: 30.0, neither: 50.0 });
        assert_eq!(sum(&changes, from, at(110)), Holders { both: 10.0, neither: 0.0 });
        assert_eq!(lost_after(&changes, 1, from), Some(Duration::from_millis(130)));
        assert_eq!(lost_after(&changes, 2, from), None, "it has it at the end");
        assert_eq!(sum(&changes[..1], from, at(1000)), Holders::default());
    }
}
