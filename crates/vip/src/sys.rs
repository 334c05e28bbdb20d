//! The system calls that no safe library offers: a frame sent through `AF_PACKET`, real-time scheduling,
//! locked memory. The only unsafe code of this crate; called by `wire` and `engine`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends one whole Ethernet frame through the interface `index`; `socket` is an `AF_PACKET` raw socket.
///
/// # Errors
/// What the kernel says: `ENETDOWN`, `ENXIO`, `ENOBUFS`, ...
pub(crate) fn send_frame(socket: BorrowedFd<'_>, index: u32, frame: &[u8]) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sockaddr_ll`, which is plain integers.
    let mut to: libc::sockaddr_ll = unsafe { mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = i32::try_from(index).map_err(io::Error::other)?;
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(frame.get(..6).ok_or_else(|| io::Error::other("no frame"))?);
    // SAFETY: the pointers and lengths are those of `frame` and `to`, which outlive the call; the kernel
    // only reads them.
    let sent = unsafe {
        libc::sendto(
            socket.as_raw_fd(),
            frame.as_ptr().cast(),
            frame.len(),
            libc::MSG_DONTWAIT,
            (&raw const to).cast(),
            mem::size_of::<libc::sockaddr_ll>() as libc::socklen_t,
        )
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Puts the calling thread under `SCHED_FIFO` with this priority (1 to 99); what it starts is not.
///
/// # Errors
/// `EPERM` without `CAP_SYS_NICE`.
pub(crate) fn real_time(priority: i32) -> io::Result<()> {
    // SAFETY: all-zero bytes are a valid `sched_param`, which is plain integers.
    let mut param: libc::sched_param = unsafe { mem::zeroed() };
    param.sched_priority = priority;
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` outlives the call, which only reads it; 0 means the calling thread.
    let done = unsafe { libc::sched_setscheduler(0, policy, &raw const param) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Keeps everything that is mapped now in memory. What is mapped later is not kept: where the kernel
/// limits locked memory, asking for that would make a later allocation fail.
///
/// # Errors
/// `EPERM` or `ENOMEM` without `CAP_IPC_LOCK`.
pub(crate) fn lock_memory() -> io::Result<()> {
    // SAFETY: no pointers are passed; locking pages changes no content.
    let done = unsafe { libc::mlockall(libc::MCL_CURRENT) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
