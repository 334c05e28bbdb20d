//! The process that the visitor started. It holds what only the outside has: the terminal, the listening
//! sockets of the browser's network, the run directory. It ends when it is told to or the time is up, and its
//! end, however it comes, is the end of everything else.

use std::io::{self, BufRead, IsTerminal};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{ExitCode, Stdio};
use std::time::Duration;

use relais_ipc::Channel;
use tokio::process::{Child, Command};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::{Depth, Letter, REFUSED};

/// How long the controller may take to clean up.
const GOODBYE: Duration = Duration::from_secs(5);

/// What `relais demo` was asked to do.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Port of the dashboard on 127.0.0.1, 0 for any; the platform is on another, the next one if it is free.
    pub port: u16,
    /// How long it runs; `None`: until it is told to stop.
    pub duration: Option<Duration>,
    /// As if the kernel refused user namespaces.
    pub loopback: bool,
}

/// Runs the demo.
pub fn main(options: Options) -> ExitCode {
    let run = || -> io::Result<()> {
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(front(options))
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("relais: the demo cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn front(options: Options) -> io::Result<()> {
    let page = listen(options.port).map_err(|error| {
        let port = options.port;
        io::Error::new(error.kind(), format!("port {port} of 127.0.0.1: {error}; name another with --port"))
    })?;
    let next = page.local_addr()?.port().checked_add(1).unwrap_or_default();
    let platform = listen(next).or_else(|_| listen(0))?;
    let run_dir = RunDir::create()?;
    let mut signals = Signals::new()?;
    let deadline = async {
        match options.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let depths = Depth::ALL.into_iter().filter(|depth| !options.loopback || *depth == Depth::Loopback);
    for depth in depths {
        if depth == Depth::Loopback && !options.loopback {
            let why = std::fs::read_to_string(run_dir.0.join("why")).unwrap_or_default();
            eprintln!(
                "relais: this machine cannot have the demo's network, so it runs on loopback addresses ({why})"
            );
        }
        let (channel, theirs) = Channel::pair()?;
        let mut door = open_door(depth, &run_dir.0, theirs)?;
        hand_over(&channel, &Letter::Page, &page).await;
        hand_over(&channel, &Letter::Platform, &platform).await;
        let mut typed = typed_lines();
        loop {
            tokio::select! {
                () = &mut deadline => break,
                () = signals.any() => break,
                Some(line) = typed.recv() => match line.trim() {
                    "q" => break,
                    line => drop(channel.send(&Letter::Typed(line.to_owned()), None).await),
                },
                ended = door.wait() => match ended?.code() {
                    Some(code) if code == i32::from(REFUSED) => break,
                    Some(0) => return Ok(()),
                    _ => return Err(io::Error::other("its controller died; the lines above may say why")),
                },
            }
        }
        if door.try_wait()?.is_none() {
            drop(channel); // which tells the controller to end
            if tokio::time::timeout(GOODBYE, door.wait()).await.is_err() {
                door.kill().await?;
            }
            return Ok(());
        }
    }
    let why = std::fs::read_to_string(run_dir.0.join("why")).unwrap_or_default();
    Err(io::Error::other(why))
}

fn listen(port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// Starts the door in a process group of its own: a terminal's Ctrl-C is for us.
fn open_door(depth: Depth, run_dir: &Path, channel: OwnedFd) -> io::Result<Child> {
    let mut door = Command::new(std::env::current_exe()?);
    door.args(["child", "demo-door", "--depth", depth.name(), "--run-dir"]).arg(run_dir);
    door.stdin(Stdio::from(channel)).process_group(0).spawn()
}

/// Sends a socket; a controller that is gone already is noticed by its exit status.
async fn hand_over(channel: &Channel, letter: &Letter, socket: &TcpListener) {
    let _ = channel.send(letter, Some(socket.as_fd())).await;
}

/// The signals that end a demo.
struct Signals([tokio::signal::unix::Signal; 3]);

impl Signals {
    fn new() -> io::Result<Signals> {
        let [a, b, c] = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
        Ok(Signals([signal(a)?, signal(b)?, signal(c)?]))
    }

    async fn any(&mut self) {
        let [a, b, c] = &mut self.0;
        tokio::select! { _ = a.recv() => {}, _ = b.recv() => {}, _ = c.recv() => {} }
    }
}

/// What the visitor types, line by line; nothing where there is no terminal, or it is somebody else's turn.
fn typed_lines() -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel(16);
    let stdin = io::stdin();
    let ours = rustix::termios::tcgetpgrp(&stdin).is_ok_and(|group| group == rustix::process::getpgrp());
    if stdin.is_terminal() && ours {
        std::thread::spawn(move || {
            for line in stdin.lock().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
    }
    lines
}

/// The demo's directory, removed at its end.
struct RunDir(PathBuf);

impl RunDir {
    fn create() -> io::Result<RunDir> {
        let path = std::env::temp_dir().join(format!("relais-demo.{}", std::process::id()));
        std::fs::DirBuilder::new().mode(0o700).create(&path).map_err(|error| {
            io::Error::new(error.kind(), format!("{} cannot be made: {error}", path.display()))
        })?;
        Ok(RunDir(path))
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
