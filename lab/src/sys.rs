//! The one system call that rustix rightly calls unsafe in general and that is safe as it is used here.

use std::io;

use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Moves the calling thread, and nothing else of the process, into a new network namespace.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the thread's user namespace.
pub(crate) fn new_network_namespace() -> io::Result<()> {
    // SAFETY: the danger is in `UnshareFlags::FILES`, which would take descriptors away from threads that
    // hold them; a network namespace is no property of any descriptor or memory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.map_err(io::Error::from)
}
