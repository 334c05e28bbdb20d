//! Processes by identity: a pid together with its start time, so that a pid the kernel has given to somebody
//! else is never taken for ours. Nothing here finds or ends a process by its name.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde::{Deserialize, Serialize};

use crate::netns::Netns;

/// One process, now and for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Identity {
    /// Its pid.
    pub pid: u32,
    /// When it started, clock ticks since boot: field 22 of `/proc/PID/stat`, see proc(5).
    pub start: u64,
}

impl Identity {
    /// Of the process that has this pid now; `None` if none does, or only its remains wait for a parent.
    pub fn of(pid: u32) -> Option<Identity> {
        Identity::and_state(pid)
            .and_then(|(identity, state)| (!matches!(state, 'Z' | 'X')).then_some(identity))
    }

    fn and_state(pid: u32) -> Option<(Identity, char)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name in parentheses may hold anything, even parentheses.
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let start = fields.nth(18)?.parse().ok()?;
        Some((Identity { pid, start }, state))
    }

    /// Whether it lives.
    pub fn is_alive(&self) -> bool {
        Identity::of(self.pid) == Some(*self)
    }

    /// A descriptor of it; `None` if it is gone. A process that took its pid is never caught.
    pub(crate) fn open(&self) -> Option<OwnedFd> {
        let pid = Pid::from_raw(i32::try_from(self.pid).ok()?)?;
        let fd = pidfd_open(pid, PidfdFlags::empty()).ok()?;
        self.is_alive().then_some(fd)
    }

    /// Sends it a signal; `false` if it is gone.
    pub fn signal(&self, signal: Signal) -> bool {
        self.open().is_some_and(|fd| pidfd_send_signal(fd, signal).is_ok())
    }

    /// Its parent's pid, and the name it was started under (`argv[0]`).
    pub(crate) fn parent_and_name(&self) -> Option<(u32, String)> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid)).ok()?;
        let parent = stat.rsplit_once(')')?.1.split_ascii_whitespace().nth(1)?.parse().ok()?;
        let command = fs::read(format!("/proc/{}/cmdline", self.pid)).ok()?;
        let name = command.split(|b| *b == 0).next()?;
        Some((parent, String::from_utf8_lossy(name).into_owned()))
    }
}

/// A process that was started in a namespace of the lab.
#[derive(Debug)]
pub struct Running {
    /// Who it is.
    pub identity: Identity,
    child: Child,
}

impl Running {
    /// Starts `command` inside `netns`, in a process group of its own (a terminal's Ctrl-C is not for it), with no
    /// standard input, and what it says appended to `log`.
    ///
    /// # Errors
    /// If the program or the log cannot be opened.
    pub fn start(netns: &Netns, command: &mut Command, log: &Path) -> io::Result<Running> {
        Running::prepare(command, log)?;
        Running::spawned(netns.run(|| command.spawn()), command)
    }

    /// As [`Running::start`], where this process is.
    ///
    /// # Errors
    /// As there.
    pub fn start_here(command: &mut Command, log: &Path) -> io::Result<Running> {
        Running::prepare(command, log)?;
        Running::spawned(command.spawn(), command)
    }

    fn prepare(command: &mut Command, log: &Path) -> io::Result<()> {
        let log = fs::File::options().create(true).append(true).open(log)?;
        std::os::unix::process::CommandExt::process_group(command, 0);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Ok(())
    }

    fn spawned(child: io::Result<Child>, command: &Command) -> io::Result<Running> {
        let child = child.map_err(|error| {
            let program = command.get_program().to_string_lossy();
            io::Error::new(error.kind(), format!("{program} cannot be started: {error}"))
        })?;
        // It may have died already, but nobody but us can take its remains away.
        let identity =
            Identity::and_state(child.id()).ok_or_else(|| io::Error::other("it has no /proc entry"))?.0;
        Ok(Running { identity, child })
    }

    /// Its exit status, if it has ended; takes its remains away.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }
}
