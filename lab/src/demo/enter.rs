//! The way into namespaces: a process that has one thread, since `CLONE_NEWUSER` asks for that, moves into
//! new namespaces, starts the controller there, and lends it its exit status.

use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::process::{Command, ExitCode};

use rustix::mount::{
    MountFlags, MountPropagationFlags, UnmountFlags, mount, mount_bind_recursive, mount_change, unmount,
};
use rustix::process::{getgid, getuid};

use super::{Args, Depth, REFUSED};
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
    let run = || -> io::Result<u8> {
        let mut controller = Command::new(std::env::current_exe()?);
        controller.args(["child", "demo", "--depth", args.depth.name(), "--run-dir"]).arg(&args.run_dir);
        let status = controller.status()?; // its standard input is ours: the channel from the front
        Ok(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    };
    match run() {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            tracing::error!("the demo's controller cannot be started: {error}");
            ExitCode::FAILURE
        }
    }
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
