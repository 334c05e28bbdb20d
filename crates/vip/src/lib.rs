#![deny(unsafe_code)]
//! The process that holds virtual addresses: VRRP sockets, the address as a lease in the kernel, and the
//! announcements; no HTTP, no TLS, no decision (those are `relais-vrrp`'s).
//!
//! Its main thread talks to the supervisor, logs and answers status requests; two real-time ones ([`prompt`],
//! [`engine`]) do everything that has a deadline. Started by the supervisor as `relais child vip`.
//! States and timers: `LIFECYCLE.md`.

use std::io::Read;
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener as StdListener;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use relais_base::Time;
use relais_config::Plan;
use relais_config::overrides::Overrides;
use relais_config::plan::NodeId;
use relais_ipc::status::VipsStatus;
use relais_ipc::watchers::Watchers;
use relais_ipc::{Channel, FrontendState, Order, Report};
use rustix::event::{EventfdFlags, eventfd};
use tokio::net::UnixListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::{error, info, warn};

use crate::backends::Backends;
use crate::engine::{Command, Engine, Event, now};
use crate::forward::{Forwarder, Said};
use crate::netlink::Netlink;
use crate::wanted::Wanted;

mod backends;
mod bpf;
mod engine;
mod forward;
mod gate;
mod heartbeat;
mod inbox;
mod macvlan;
mod netlink;
mod nft;
mod privileges;
mod prompt;
mod relay;
mod release;
mod sockets;
#[allow(unsafe_code)]
mod sys;
mod wanted;
mod watch;
mod wire;
mod wire6;

pub use forward::{CannotForward, can_forward, can_forward_by_ipvs};
pub use release::release;

/// How often tracked files are read, and how long that may take.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often it is looked whether clients have everything.
const LOOK_FOR_DELIVERY: Duration = Duration::from_millis(100);
/// Most of a tracked file that is read, bytes.
const LONGEST_NUMBER: u64 = 64;
/// Longest plan text, bytes.
const MAX_PLAN: u64 = 16 * 1024 * 1024;
/// Longest wait for addresses to be handed over once nobody is there to ask for it any more.
const LAST_HAND_OVER: Duration = Duration::from_secs(130);

/// Runs the process until the supervisor says `Stop`, or is gone and every address is handed over.
pub fn main() -> ExitCode {
    relais_ipc::journal::init("vip");
    let privileged = privileges::drop_all_but_needed();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map(|runtime| runtime.block_on(run(privileged))) {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(e)) | Err(e) => {
            error!("the vip process ends: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What the main thread knows.
struct Vips {
    channel: Channel,
    commands: Sender<Command>,
    wake: OwnedFd,
    status: Arc<Mutex<VipsStatus>>,
    node: String,
    /// Addresses that a predecessor held, and when it died.
    resumes: Vec<(String, Time)>,
    watchers: Watchers,
    /// Tracked files, and what they last said.
    files: Vec<(Arc<str>, Option<i32>)>,
    /// Why no address can be held here; `None` if one can.
    unprivileged: Option<String>,
    /// What operators changed, for the plan that comes next.
    overrides: Overrides,
    /// The backends that addresses depend on.
    backends: Backends,
    /// What the kernel carries.
    forwarder: Forwarder,
    /// A plan that waits for that; the VRRP threads get it then.
    waiting: Option<(u64, Command)>,
    /// Clients have what the kernel had for them.
    delivered: UnboundedSender<()>,
}

async fn run(privileged: Result<(), String>) -> std::io::Result<()> {
    let channel = Channel::from_stdin()?;
    let mut terminate = signal(SignalKind::terminate())?;
    relais_ipc::signals::leave_to_supervisor()?;
    let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    let (commands, inbox) = std::sync::mpsc::channel();
    let (events, mut outbox) = unbounded_channel();
    let (forward_said, mut forwarded) = unbounded_channel();
    let (delivered, mut is_delivered) = unbounded_channel();
    let status = Arc::new(Mutex::new(VipsStatus { pid: std::process::id(), ..VipsStatus::default() }));
    let engine = Engine::new(Netlink::new()?, inbox, wake.try_clone()?, events, status.clone())?;
    let thread = std::thread::Builder::new().name("vrrp".into()).stack_size(prompt::STACK);
    let thread = thread.spawn(move || prompt::run(engine))?;
    let mut vips = Vips {
        channel,
        commands,
        wake,
        status,
        node: String::new(),
        resumes: Vec::new(),
        watchers: Watchers::default(),
        files: Vec::new(),
        unprivileged: privileged.err(),
        overrides: Overrides::default(),
        backends: Backends::default(),
        forwarder: Forwarder::new(forward_said),
        waiting: None,
        delivered,
    };
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick(), if !vips.files.is_empty() => vips.read_files().await,
            order = vips.channel.recv::<Order>() => match order? {
                Some((Order::Stop, _)) => break,
                Some((order, fd)) => vips.obey(order, fd).await?,
                None => {
                    warn!("the supervisor is gone; every address is handed over, then this process ends");
                    vips.hand_over_at_last(&mut outbox).await;
                    break;
                }
            },
            Some(said) = forwarded.recv() => vips.on_forwarded(said).await?,
            Some(()) = is_delivered.recv() => vips.channel.send(&Report::Delivered, None).await?,
            event = outbox.recv() => match event {
                Some(event) => vips.pass_on(event).await?,
                None => break,
            },
            _ = terminate.recv() => {
                info!("asked to end; every address is handed over first");
                vips.hand_over_at_last(&mut outbox).await;
                break;
            }
        }
    }
    vips.forwarder.end().await;
    vips.command(Command::Stop);
    while let Some(event) = outbox.recv().await {
        if vips.pass_on(event).await.is_err() {
            continue; // nobody is there to hear it
        }
    }
    thread.join().map_err(|_| std::io::Error::other("the VRRP thread panicked"))
}

impl Vips {
    fn command(&self, command: Command) {
        let _ = self.commands.send(command); // fails only if the engine is gone, which its events tell
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
    }

    /// Tells the engine what has changed in the tracked files. One whose file system hangs is read no more, so that it
    /// holds up the supervisor's orders once.
    async fn read_files(&mut self) {
        let mut hung = Vec::new();
        for (path, known) in &mut self.files {
            let file = path.clone();
            let reading = tokio::task::spawn_blocking(move || read_number(&file));
            let Ok(number) = tokio::time::timeout(LOOK_EVERY, reading).await else {
                warn!(
                    "{path} could not be read within {} ms; it is not tracked until the next plan",
                    LOOK_EVERY.as_millis()
                );
                hung.push(path.clone());
                continue;
            };
            let number = number.unwrap_or(0);
            if known.replace(number) != Some(number) {
                let _ = self.commands.send(Command::File(path.clone(), number));
                let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
            }
        }
        self.files.retain(|(path, _)| !hung.contains(path));
    }

    /// Tells the engine which backends have become well or ill.
    fn tell_of_backends(&mut self) {
        for (what, up) in self.backends.changes() {
            self.command(Command::Tracked(what, is(up)));
        }
    }

    async fn obey(&mut self, order: Order, fd: Option<OwnedFd>) -> std::io::Result<()> {
        match order {
            Order::Hello { node, .. } => self.node = node,
            Order::Status => self.serve_status(fd)?,
            Order::Resume { vip, ago_ms } => {
                self.resumes.push((vip, now() - Duration::from_millis(ago_ms)));
            }
            Order::Frontend { name, state } => self.command(Command::Tracked(engine::frontend(&name), state)),
            Order::Script { command, up } => self.command(Command::Tracked(engine::script(&command), is(up))),
            Order::Standby { on } => self.command(Command::Standby(on)),
            Order::Server { backend, server, up } => {
                self.backends.server(&backend, &server, up);
                self.tell_of_backends();
                self.forwarder.health(backend, server, up);
            }
            Order::Overrides => {
                let text = fd.map(|fd| relais_ipc::channel::fd_to_text(fd, MAX_PLAN)).transpose()?;
                self.overrides = Overrides::read(&text.unwrap_or_default()).0; // the supervisor has said what is wrong
            }
            Order::Move { vip, here } => self.command(Command::Move(vip, here)),
            Order::Moved { vip, moved } => self.command(Command::Moved(vip, moved)),
            Order::HandOver => self.command(Command::HandOver),
            Order::Deliver => self.command(Command::Deliver),
            Order::Plan { generation, file } => match self.read_plan(&file, fd) {
                Ok((plan, node, Wanted { links, peers, specs, heartbeats })) => {
                    let heartbeats = heartbeats.and_then(|wanted| match wanted {
                        Ok(spec) => Some(Box::new(spec)),
                        Err(why) => {
                            warn!("{why}; no heartbeats are sent, so a cut link may make two masters");
                            None
                        }
                    });
                    let resumes = std::mem::take(&mut self.resumes);
                    self.backends.plan(&plan, node);
                    self.tell_of_backends();
                    let files = specs.iter().flat_map(|spec| &spec.files);
                    self.files = files.map(|(path, _)| (path.clone(), None)).collect();
                    // Rules that a predecessor left go on; who resumes an address has no time to wait for new ones.
                    self.waiting = None;
                    let first = resumes.is_empty();
                    let apply = Command::Apply { generation, links, peers, specs, heartbeats, resumes };
                    if self.forwarder.apply(generation, &plan, node, first) {
                        self.waiting = Some((generation, apply));
                    } else {
                        self.command(apply);
                    }
                }
                Err(why) => self.channel.send(&Report::Refused { generation, why }, None).await?,
            },
            other => warn!("an order that is not for this process was ignored: {other:?}"),
        }
        Ok(())
    }

    /// The kernel carries what a plan says, or does not.
    async fn on_forwarded(&mut self, said: Said) -> std::io::Result<()> {
        let generation = match &said {
            Said::Applied(generation) | Said::Refused(generation, _) => *generation,
        };
        match (self.waiting.take(), said) {
            (Some((of, apply)), Said::Applied(_)) if of == generation => self.command(apply),
            (Some((of, _)), Said::Refused(_, why)) if of == generation => {
                self.channel.send(&Report::Refused { generation, why }, None).await?;
            }
            (other, _) => self.waiting = other, // of a plan that another one has followed
        }
        Ok(())
    }

    async fn pass_on(&mut self, event: Event) -> std::io::Result<()> {
        if let Event::Watched(connection) = event {
            self.channel.send(&Report::Watched, Some(connection.as_fd())).await?;
            self.watchers.hold(connection);
            return Ok(());
        }
        if let Event::Pulse(socket) = event {
            return self.channel.send(&Report::Pulse, Some(socket.as_fd())).await;
        }
        if let Event::Delivering(addresses) = event {
            let delivered = self.delivered.clone();
            tokio::spawn(async move {
                deliver(addresses).await;
                let _ = delivered.send(()); // fails only if this process ends
            });
            return Ok(());
        }
        if let Event::Left { vip, addresses, after, is_here_again } = event {
            tokio::spawn(end_connections(vip, addresses, after, is_here_again));
            return Ok(());
        }
        let report = match event {
            Event::Info(sentence) => {
                info!("{sentence}");
                return Ok(());
            }
            Event::Warn(sentence) => {
                warn!("{sentence}");
                return Ok(());
            }
            Event::Stopped
            | Event::Watched(_)
            | Event::Pulse(_)
            | Event::Left { .. }
            | Event::Delivering(_) => return Ok(()),
            Event::Applied(generation) => Report::Ready { generation },
            Event::Moved(vip, moved) => Report::Moved { vip, moved },
            Event::Changed(name, state) => Report::Vip { name, state },
            Event::HandedOver => Report::HandedOver,
        };
        self.channel.send(&report, None).await
    }

    fn serve_status(&self, fd: Option<OwnedFd>) -> std::io::Result<()> {
        let listener = StdListener::from(fd.ok_or_else(|| std::io::Error::other("no status socket came"))?);
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        let (status, forwards) = (self.status.clone(), self.forwarder.status());
        tokio::spawn(relais_ipc::status::serve(listener, move || {
            let forwards = forwards.lock().unwrap_or_else(PoisonError::into_inner).clone();
            VipsStatus { forwards, ..status.lock().unwrap_or_else(PoisonError::into_inner).clone() }
        }));
        Ok(())
    }

    /// What the plan wants of this node: its own addresses, and the virtual ones that it may hold.
    fn read_plan(&mut self, file: &str, fd: Option<OwnedFd>) -> Result<(Plan, NodeId, Wanted), String> {
        let fd = fd.ok_or("no plan came with the order; this is a defect of Relais")?;
        let text = relais_ipc::channel::fd_to_text(fd, MAX_PLAN).map_err(|e| e.to_string())?;
        let checked = relais_config::parse(file, &text).map_err(|e| e.to_string())?;
        let mut plan = checked.plan;
        std::mem::take(&mut self.overrides).apply(&mut plan);
        let wanted = wanted::wanted(&plan, &self.node)?;
        let node = plan.node(&self.node).ok_or_else(|| format!("the plan has no node {}", self.node))?;
        match &self.unprivileged {
            Some(why) if !wanted.specs.is_empty() => Err(why.clone()),
            Some(_) if plan.forwards_on(node).next().is_some() => {
                Err("`mode forward` needs CAP_NET_ADMIN: start `relais run` as root, or write `mode tcp`"
                    .into())
            }
            _ => Ok((plan, node, wanted)),
        }
    }

    /// Hands over without being asked: the supervisor is gone, or somebody ended this process.
    async fn hand_over_at_last(&mut self, outbox: &mut UnboundedReceiver<Event>) {
        self.command(Command::HandOver);
        let handed_over = async {
            while let Some(event) = outbox.recv().await {
                let done = matches!(event, Event::HandedOver);
                let _ = self.pass_on(event).await; // the supervisor may be gone
                if done {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(LAST_HAND_OVER, handed_over).await;
    }
}

fn is(up: bool) -> FrontendState {
    if up { FrontendState::Up } else { FrontendState::Down }
}

/// Returns when the kernel has nothing more for clients of these addresses. How long that may take is the supervisor's to say.
async fn deliver(addresses: Vec<IpAddr>) {
    if addresses.is_empty() {
        return;
    }
    let addresses: Arc<[IpAddr]> = addresses.into();
    loop {
        let asked = addresses.clone();
        let answer = tokio::task::spawn_blocking(move || sockets::is_delivering(&asked)).await;
        if !matches!(answer, Ok(Ok(true))) {
            return; // or nobody can tell
        }
        tokio::time::sleep(LOOK_FOR_DELIVERY).await;
    }
}

/// Ends what is open of addresses that have left, after this time, and says how many that were.
async fn end_connections(
    vip: Arc<str>,
    addresses: Vec<IpAddr>,
    after: Duration,
    is_here_again: Arc<AtomicBool>,
) {
    tokio::time::sleep(after).await;
    let flag = is_here_again.clone();
    let ended = tokio::task::spawn_blocking(move || sockets::end(&addresses, &flag)).await;
    if is_here_again.load(Ordering::Relaxed) {
        return;
    }
    match (ended, after.is_zero()) {
        (Ok(Ok(0)), true) | (Err(_), _) => {}
        (Ok(Ok(0)), false) => info!("vip {vip}: every connection that was open when it moved has finished"),
        (Ok(Ok(open)), true) => {
            warn!("vip {vip}: connections that were still open here and ended with it: {open}");
        }
        (Ok(Ok(open)), false) => {
            let s = after.as_secs();
            warn!(
                "vip {vip}: connections that did not finish within {s} s of its move and were reset: {open}"
            );
        }
        (Ok(Err(e)), _) => warn!(
            "vip {vip}: connections that it has left behind here cannot be ended ({e}) and wait for their time-outs; \
             that needs CAP_NET_ADMIN and a kernel with INET_DIAG_DESTROY"
        ),
    }
}

/// The whole number that is all there is in the file; 0 without one.
fn read_number(path: &str) -> i32 {
    let mut text = String::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(LONGEST_NUMBER).read_to_string(&mut text));
    read.ok().and_then(|_| text.trim().parse().ok()).unwrap_or(0)
}
