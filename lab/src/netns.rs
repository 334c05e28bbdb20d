//! Network namespaces, each held by a descriptor: made, entered by a thread, pinned to a name, and asked
//! which processes are inside. It knows nothing of links, hosts or the platform; [`crate::network`] does.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::process::{Signal, pidfd_send_signal};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::process::Identity;
use crate::sys;

/// Where named namespaces are, for `ip netns` too.
const PIN_DIR: &str = "/run/netns";

/// A network namespace. It exists at least as long as a clone of this.
#[derive(Clone, Debug)]
pub struct Netns {
    file: Arc<File>,
    inode: u64,
}

impl Netns {
    /// A new one, with nothing in it but a loopback interface that is down.
    ///
    /// # Errors
    /// Without root or a user namespace in which this process is root.
    pub fn create() -> io::Result<Netns> {
        on_a_thread(|| {
            sys::new_network_namespace()?;
            Netns::open(Path::new("/proc/thread-self/ns/net"))
        })
    }

    /// The one behind a path: a pin, or `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// If there is none.
    pub fn open(path: &Path) -> io::Result<Netns> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Netns { file: Arc::new(file), inode })
    }

    /// Its inode number, which names it on this machine while it exists.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Moves the calling thread into it, for good: for threads that were made for that.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        move_into_link_name_space(self.file.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(io::Error::from)
    }

    /// Runs `work` on a thread inside. Sockets and processes that it makes stay inside.
    ///
    /// # Errors
    /// If the thread cannot enter, and what `work` returns.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
        on_a_thread(|| {
            self.enter()?;
            work()
        })
    }

    /// Gives it a name in `/run/netns`, so that it outlives this process and `ip netns exec NAME` reaches it.
    ///
    /// # Errors
    /// If the name is taken, or without the right to mount.
    pub fn pin(&self, name: &str) -> io::Result<()> {
        fs::create_dir_all(PIN_DIR)?;
        // As ip-netns(8) does: mounts below must reach every mount namespace that sees this directory.
        if rustix::mount::mount_change(PIN_DIR, MountPropagationFlags::SHARED | MountPropagationFlags::REC)
            .is_err()
        {
            rustix::mount::mount_bind_recursive(PIN_DIR, PIN_DIR)?;
            rustix::mount::mount_change(PIN_DIR, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
        }
        let path = Path::new(PIN_DIR).join(name);
        File::create_new(&path)?;
        let source = format!("/proc/self/fd/{}", self.file.as_raw_fd());
        rustix::mount::mount_bind(source, &path).map_err(|errno| {
            let _ = fs::remove_file(&path);
            errno.into()
        })
    }

    /// Every name in `/run/netns` that begins with `prefix`, with what it pins; `None`: a name whose maker died
    /// before it could pin anything.
    pub fn pinned(prefix: &str) -> Vec<(PathBuf, Option<Netns>)> {
        let Ok(entries) = fs::read_dir(PIN_DIR) else { return Vec::new() };
        let named = entries.flatten().filter(|e| e.file_name().to_string_lossy().starts_with(prefix));
        let mut pins: Vec<_> = named.map(|e| e.path()).collect();
        pins.sort();
        let is_namespace = |path: &Path| {
            rustix::fs::statfs(path)
                .is_ok_and(|s| s.f_type as u64 == NSFS_MAGIC)
                .then(|| Netns::open(path).ok())
        };
        pins.into_iter().map(|path| (path.clone(), is_namespace(&path).flatten())).collect()
    }

    /// Removes a name; the namespace goes with the last process and descriptor in it.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn unpin(path: &Path) -> io::Result<()> {
        let _ = rustix::mount::unmount(path, UnmountFlags::DETACH); // nothing is mounted on a half-made pin
        match fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

/// `statfs(2)`'s type of a namespace file.
const NSFS_MAGIC: u64 = 0x6e73_6673;

/// Every process but this one whose network namespace is one of `inodes`.
pub fn processes_in(inodes: &BTreeSet<u64>) -> Vec<Identity> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let others = pids.filter(|pid| *pid != std::process::id());
    others
        .filter_map(|pid| {
            let identity = Identity::of(pid)?;
            // The inode is read after the start time: a pid that was reused between the two has another one.
            let inode = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
            inodes.contains(&inode).then_some(identity)
        })
        .collect()
}

/// Kills every process in `inodes` by `SIGKILL` and waits until none is left.
///
/// # Errors
/// If some are still there after `limit`.
pub fn kill_all_in(inodes: &BTreeSet<u64>, limit: Duration) -> io::Result<usize> {
    let deadline = Instant::now() + limit;
    let mut killed = BTreeSet::new();
    loop {
        let inside = processes_in(inodes);
        if inside.is_empty() {
            return Ok(killed.len());
        }
        if Instant::now() > deadline {
            let pids: Vec<_> = inside.iter().map(|p| p.pid.to_string()).collect();
            return Err(io::Error::other(format!("processes {} do not die", pids.join(", "))));
        }
        killed.extend(inside.iter().map(|process| process.pid));
        // At once: nobody is to have the time to act on another's death.
        let doomed: Vec<_> = inside.iter().filter_map(Identity::open).collect();
        for process in &doomed {
            let _ = pidfd_send_signal(process, Signal::KILL); // it may have died by itself
        }
        std::thread::sleep(Duration::from_millis(2)); // death has no event for who is not the parent
    }
}

/// Runs `work` on a thread of its own, whose namespaces nobody else has to live with.
fn on_a_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("netns".into()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread in a namespace panicked")))
    })
}
