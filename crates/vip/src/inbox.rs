//! What has come, and to which kind of socket: one epoll instance over all that the engine reads.
//!
//! Sockets to which nothing has come are left alone, for a look at one costs a system call, and at a listening one an
//! allocation in the kernel, some hundred times a second. Called by [`crate::engine`] and [`crate::watch`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll;
use rustix::time::Timespec;

/// Packets of VRRP.
pub(crate) const PACKETS: u64 = 1;
/// Heartbeats.
pub(crate) const HEARTBEATS: u64 = 2;
/// The kernel's news of links and addresses.
pub(crate) const NEWS: u64 = 4;
/// Commands of the main thread.
pub(crate) const COMMANDS: u64 = 8;
/// Watchers, and what becomes of those that are watched.
pub(crate) const WATCHES: u64 = 16;
/// All of it.
const ANYTHING: u64 = u64::MAX;
/// Events taken at once; where there are more, anything may have come.
const AT_ONCE: usize = 16;

/// An instance that is told of nothing yet.
///
/// # Errors
/// If there are no descriptors left.
pub(crate) fn create() -> io::Result<OwnedFd> {
    Ok(epoll::create(epoll::CreateFlags::CLOEXEC)?)
}

/// Has it tell that `what` comes to `fd`, until that is closed.
///
/// # Errors
/// If the kernel has no memory left, or `fd` cannot be waited for.
pub(crate) fn listen(inbox: &OwnedFd, fd: impl AsFd, what: u64) -> io::Result<()> {
    Ok(epoll::add(inbox, fd, epoll::EventData::new_u64(what), epoll::EventFlags::IN)?)
}

/// Has it tell when a connection is made or has failed.
///
/// # Errors
/// As [`listen`].
pub(crate) fn await_connection(inbox: &OwnedFd, fd: impl AsFd, what: u64) -> io::Result<()> {
    Ok(epoll::add(inbox, fd, epoll::EventData::new_u64(what), epoll::EventFlags::OUT)?)
}

/// Has it tell of a connection's end, no longer of its being made.
///
/// # Errors
/// As [`listen`].
pub(crate) fn await_end(inbox: &OwnedFd, fd: impl AsFd, what: u64) -> io::Result<()> {
    Ok(epoll::modify(inbox, fd, epoll::EventData::new_u64(what), epoll::EventFlags::IN)?)
}

/// What has come by now, the bits of all of it together; waits for nothing.
pub(crate) fn come(inbox: &OwnedFd) -> u64 {
    let none = epoll::Event { flags: epoll::EventFlags::empty(), data: epoll::EventData::new_u64(0) };
    let mut events = [none; AT_ONCE];
    match epoll::wait(inbox, &mut events[..], Some(&Timespec::default())) {
        Ok(count) if count < AT_ONCE => events[..count].iter().fold(0, |come, event| come | event.data.u64()),
        _ => ANYTHING, // interrupted, or more than were asked for
    }
}
