//! The way into namespaces: a process that has one thread, since `CLONE_NEWUSER` asks for that, moves into
//! new namespaces, starts the controller there, and lends it its exit status.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{Pid, Signal, WaitOptions, getgid, getpid, getuid, set_child_subreaper, waitpid};

use super::{Args, Depth, REFUSED};
use crate::process::Identity;
use crate::sys;

/// `relais child demo-door`, started by the front.
pub fn main(args: Args) -> ExitCode {
    relais_ipc::journal::init("demo");
    if args.depth != Depth::Loopback
        && let Err(why) = enter(args.depth)
    {
        let _ = std::fs::write(args.run_dir.join("why"), format!("user namespaces are refused: {why}"));
        return ExitCode::from(REFUSED);
    }
    if args.depth != Depth::Full {
        // No process namespace will take them along: whoever loses its parent in there becomes ours.
        let _ = set_child_subreaper(Some(getpid()));
    }
    let run = || -> io::Result<u8> {
        let mut controller = Command::new(std::env::current_exe()?);
        controller.args(["child", "demo", "--depth", args.depth.name(), "--run-dir"]).arg(&args.run_dir);
        let status = controller.status()?; // its standard input is ours: the channel from the front
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    };
    let ended = run();
    end_children();
    match ended {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("the demo's controller cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Ends whatever a controller that was killed has left to us, and what that leaves in turn.
fn end_children() {
    let is_ours =
        |one: &Identity| one.parent_and_name().is_some_and(|(parent, _)| parent == std::process::id());
    loop {
        let children: Vec<_> = processes().filter(is_ours).collect();
        if children.is_empty() {
            return;
        }
        for child in children {
            child.signal(Signal::KILL);
            let _ = waitpid(i32::try_from(child.pid).ok().and_then(Pid::from_raw), WaitOptions::empty());
        }
    }
}

/// Every process of this machine that lives.
fn processes() -> impl Iterator<Item = Identity> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| Identity::of(entry.file_name().to_str()?.parse().ok()?))
}

/// New namespaces, in which whoever we are is root, and root of nothing else. The next child is the
/// first process of the process namespace.
fn enter(depth: Depth) -> io::Result<()> {
    let (uid, gid) = (getuid().as_raw(), getgid().as_raw());
    sys::new_user_namespace(depth == Depth::Full)?;
    std::fs::write("/proc/self/setgroups", "deny")?; // user_namespaces(7): else a gid cannot be mapped
    std::fs::write("/proc/self/uid_map", format!("0 {uid} 1"))?;
    std::fs::write("/proc/self/gid_map", format!("0 {gid} 1"))
}

/// Gives the controller a `/proc` of its own process namespace. The machine's stays in `host-proc` in the run
/// directory, for [`super::watch`], which tells visitors the process ids that they can see.
pub(crate) fn own_proc(run_dir: &Path) -> io::Result<()> {
    let host = run_dir.join("host-proc");
    std::fs::DirBuilder::new().mode(0o700).create(&host)?;
    mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    mount_bind_recursive("/proc", &host)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("proc", "/proc", "proc", flags, None)?;
    Ok(())
}

/// Takes the machine's `/proc` out of the run directory again.
pub(crate) fn forget_host_proc(host: &Path) -> io::Result<()> {
    Ok(unmount(host, UnmountFlags::DETACH)?)
}
