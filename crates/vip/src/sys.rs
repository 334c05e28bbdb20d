//! The system calls that no safe library offers: a frame sent through `AF_PACKET`, an IPv6 packet with what stood in
//! its header, real-time scheduling, locked memory, programs in the kernel. The only unsafe code of this crate; called
//! by `wire`, `wire6`, `engine` and `gate`.

use std::io;
use std::mem;
use std::net::Ipv6Addr;
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

/// An array of one value of three words, shared between programs in the kernel and whoever maps it (`BPF_F_MMAPABLE`).
///
/// # Errors
/// `EPERM` without `CAP_BPF`, `ENOSYS` where the kernel has no `bpf(2)`.
pub(crate) fn bpf_page() -> io::Result<OwnedFd> {
    const MAP_CREATE: libc::c_long = 0;
    const ARRAY: u64 = 2;
    const MAPPABLE: u64 = 1 << 10;
    let mut attributes = [0; 16];
    attributes[0] = ARRAY | 4 << 32; // type, size of a key
    attributes[1] = 24 | 1 << 32; // size of a value, number of them
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

    /// Stores one of the three words.
    pub(crate) fn store(&self, word: usize, value: u64) {
        assert!(word < 3);
        // SAFETY: the mapping lives as long as `self` and is aligned to a page; all three words are in it.
        unsafe { self.0.add(word).as_ref() }.store(value, Ordering::Release);
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: made by `map` with this length, and nobody has a reference into it any more.
        unsafe { libc::munmap(self.0.as_ptr().cast(), PAGE) };
    }
}

/// An IPv6 packet's header, as far as it matters; its message is in the caller's buffer.
pub(crate) struct Received {
    pub(crate) length: usize,
    pub(crate) source: Ipv6Addr,
    pub(crate) destination: Ipv6Addr,
    pub(crate) hop_limit: u8,
}

/// Has [`receive_with_header`] learn of destination and hop limit (RFC 3542 §6).
///
/// # Errors
/// What the kernel says.
pub(crate) fn tell_destination_and_hop_limit(socket: BorrowedFd<'_>) -> io::Result<()> {
    for option in [libc::IPV6_RECVPKTINFO, libc::IPV6_RECVHOPLIMIT] {
        let on: libc::c_int = 1;
        let size = mem::size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: the pointer and length are those of `on`, which outlives the call; the kernel only reads it.
        let done = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, option, (&raw const on).cast(), size)
        };
        if done < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Receives one message into `buffer`, cut if it is longer; does not wait.
///
/// # Errors
/// `EAGAIN` when none waits; `InvalidData` for one whose header the kernel does not tell.
pub(crate) fn receive_with_header(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<Received> {
    // SAFETY: all-zero bytes are a valid `sockaddr_in6`, which is plain integers.
    let mut from: libc::sockaddr_in6 = unsafe { mem::zeroed() };
    let mut control = [0u64; 16]; // room for both control messages, aligned as `cmsghdr` must be
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: all-zero bytes are a valid `msghdr`: null pointers and lengths of 0.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_name = (&raw mut from).cast();
    message.msg_namelen = mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t;
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control) as _;
    // SAFETY: every pointer in `message` is to a local or to `buffer`, with its length, and outlives the call.
    let length = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
    let (mut destination, mut hop_limit) = (None, None);
    // SAFETY: `message` is as `recvmsg` left it, and `control` lives.
    let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    while !header.is_null() {
        // SAFETY: `header` points to a whole control message within `control`, as the macros promise; its data is as
        // long as its type says, and is read without asking for alignment.
        unsafe {
            let data = libc::CMSG_DATA(header);
            match ((*header).cmsg_level, (*header).cmsg_type) {
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = data.cast::<libc::in6_pktinfo>().read_unaligned();
                    destination = Some(Ipv6Addr::from(info.ipi6_addr.s6_addr));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                    hop_limit = u8::try_from(data.cast::<libc::c_int>().read_unaligned()).ok();
                }
                _ => {}
            }
            header = libc::CMSG_NXTHDR(&raw const message, header);
        }
    }
    let missing = || io::Error::new(io::ErrorKind::InvalidData, "no header was told");
    Ok(Received {
        length,
        source: Ipv6Addr::from(from.sin6_addr.s6_addr),
        destination: destination.ok_or_else(missing)?,
        hop_limit: hop_limit.ok_or_else(missing)?,
    })
}
