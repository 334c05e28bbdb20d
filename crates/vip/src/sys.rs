//! The system calls that no safe library offers: a frame sent through `AF_PACKET`, real-time scheduling,
//! locked memory, programs in the kernel. The only unsafe code of this crate; called by `wire`, `engine` and `gate`.

use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

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

const PAGE: usize = 4096;

/// One call of `bpf(2)` that makes a descriptor.
fn bpf(command: libc::c_long, attributes: &mut [u64; 16]) -> io::Result<OwnedFd> {
    // SAFETY: `attributes` is larger than what the commands below read, zero beyond what they are told, and outlives
    // the call; what it points to is the caller's and does too.
    let made = unsafe {
        libc::syscall(libc::SYS_bpf, command, attributes.as_mut_ptr(), mem::size_of_val(attributes))
    };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    let made = i32::try_from(made).map_err(io::Error::other)?;
    // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
    Ok(unsafe { OwnedFd::from_raw_fd(made) })
}

/// An array of one value of 16 bytes, shared between programs in the kernel and whoever maps it (`BPF_F_MMAPABLE`).
///
/// # Errors
/// `EPERM` without `CAP_BPF`, `ENOSYS` where the kernel has no `bpf(2)`.
pub(crate) fn bpf_page() -> io::Result<OwnedFd> {
    const MAP_CREATE: libc::c_long = 0;
    const ARRAY: u64 = 2;
    const MAPPABLE: u64 = 1 << 10;
    let mut attributes = [0; 16];
    attributes[0] = ARRAY | 4 << 32; // type, size of a key
    attributes[1] = 16 | 1 << 32; // size of a value, number of them
    attributes[2] = MAPPABLE;
    bpf(MAP_CREATE, &mut attributes)
}

/// Has the kernel check and keep a program for traffic control.
///
/// # Errors
/// `EACCES` or `EINVAL` if it refuses the program.
pub(crate) fn bpf_program(code: &[u64]) -> io::Result<OwnedFd> {
    const PROGRAM_LOAD: libc::c_long = 5;
    const TRAFFIC_CONTROL: u64 = 3;
    let licence = c"Dual MIT/GPL";
    let mut attributes = [0; 16];
    attributes[0] = TRAFFIC_CONTROL | (code.len() as u64) << 32;
    attributes[1] = code.as_ptr() as u64;
    attributes[2] = licence.as_ptr() as u64;
    bpf(PROGRAM_LOAD, &mut attributes)
}

/// The mapped page of a map made by [`bpf_page`].
#[derive(Debug)]
pub(crate) struct Page(NonNull<AtomicU64>);

// SAFETY: it is memory of this process alone to free, and all access to it is atomic.
unsafe impl Send for Page {}

impl Page {
    /// # Errors
    /// What the kernel says.
    pub(crate) fn map(map: BorrowedFd<'_>) -> io::Result<Page> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping where the kernel likes it; nothing that exists is replaced.
        let at = unsafe {
            libc::mmap(std::ptr::null_mut(), PAGE, protection, libc::MAP_SHARED, map.as_raw_fd(), 0)
        };
        if at == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        NonNull::new(at.cast()).map(Page).ok_or_else(|| io::Error::other("the kernel mapped nothing"))
    }

    /// Stores one of the two words.
    pub(crate) fn store(&self, word: usize, value: u64) {
        assert!(word < 2);
        // SAFETY: the mapping lives as long as `self` and is aligned to a page; both words are in it.
        unsafe { self.0.add(word).as_ref() }.store(value, Ordering::Release);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: made by `map` with this length, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}
