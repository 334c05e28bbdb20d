//! The client whose eyes count: an open-loop probe. Every 5 ms, at times fixed in advance and whatever became
//! of earlier ones, it sends one `GET` on a new connection, and one on a connection that is kept. Latency
//! counts from the intended time, so that a stall is seen by every request that it delays, and so that the
//! probe's own lateness is never hidden (it is measured besides, as [`Jitter`]).
//!
//! What a success is, and what is tried again, is a browser's view: status 200 and the whole body; and a `GET`
//! on a *reused* connection that closes before the first byte of the answer is sent once more on a fresh one
//! (RFC 9112 §9.3.1). Nothing else is repeated. What the samples amount to is [`crate::report`]'s affair.

use std::cell::RefCell;
use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::time::{Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::LocalSet;
use tokio::time::Instant as Deadline;

use crate::exchange::{Connection, Failure};
use crate::netns::Netns;
use crate::sys;

/// What to ask, and how often.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whom to ask.
    pub target: SocketAddr,
    /// Path of the `GET`s.
    pub path: String,
    /// Time between two requests of one stream, 1 ms or more.
    pub every: Duration,
    /// A request that has no whole answer by then, counted from its intended time, failed. Generous, so that
    /// slowness shows as latency.
    pub timeout: Duration,
}

impl Options {
    /// 5 ms, 5 s, `/`.
    pub fn new(target: SocketAddr) -> Options {
        Options { target, path: "/".into(), every: Duration::from_millis(5), timeout: Duration::from_secs(5) }
    }
}

/// Which of the two streams a request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// A new connection for each request.
    New,
    /// All on one connection, one after the other.
    KeepAlive,
}

/// What became of one request. Times count from the probe's start.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// Its stream.
    pub stream: Stream,
    /// When it was to be sent.
    pub intended: Duration,
    /// When its fate was known.
    pub done: Duration,
    /// It was sent a second time, on a fresh connection.
    pub retried: bool,
    /// Success, or why not.
    pub outcome: Result<(), Failure>,
}

/// How late the probe itself was at sending: its error of measurement.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Jitter {
    /// 99 of 100 sends were at most this late.
    pub p99: Duration,
    /// The worst.
    pub max: Duration,
}

/// A running probe. Dropped, it stops at once and forgets what is outstanding.
pub struct Probe {
    started: Instant,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<io::Result<Jitter>>>,
}

impl fmt::Debug for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Probe").field("started", &self.started).finish_non_exhaustive()
    }
}

impl Probe {
    /// Starts it in `netns` (`None`: in this process's own), on a thread of its own; `sink` gets every sample
    /// there, in the order of completion, and must be quick.
    ///
    /// # Errors
    /// If the thread or its timer cannot be had.
    pub fn start(
        netns: Option<&Netns>,
        options: Options,
        sink: impl FnMut(Sample) + Send + 'static,
    ) -> io::Result<Probe> {
        assert!(options.every >= Duration::from_millis(1) && options.timeout > options.every);
        let (stop, stopped) = oneshot::channel();
        let netns = netns.cloned();
        let started = Instant::now();
        let work = move || {
            if let Some(netns) = netns {
                netns.enter()?;
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            LocalSet::new().block_on(&runtime, run(options, started, Box::new(sink), stopped))
        };
        let thread = std::thread::Builder::new().name("probe".into()).spawn(work)?;
        Ok(Probe { started, stop: Some(stop), thread: Some(thread) })
    }

    /// The instant that samples count from.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Sends no more, waits for what is outstanding (at most the time-out), and says how exact it was.
    ///
    /// # Errors
    /// If the probe could not work at all.
    pub fn finish(mut self) -> io::Result<Jitter> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            _ => Err(io::Error::other("the probe panicked")),
        }
    }
}

type Sink = Rc<RefCell<Box<dyn FnMut(Sample)>>>;

async fn run(
    options: Options,
    started: Instant,
    sink: Box<dyn FnMut(Sample)>,
    mut stopped: oneshot::Receiver<()>,
) -> io::Result<Jitter> {
    let options = Rc::new(options);
    let sink: Sink = Rc::new(RefCell::new(sink));
    let timer = timer(options.every)?;
    let (queue, intended_times) = mpsc::unbounded_channel();
    let kept = tokio::task::spawn_local(keep_alive(options.clone(), started, sink.clone(), intended_times));
    let mut outstanding = tokio::task::JoinSet::new();
    let mut lateness = Lateness::default();
    let mut next = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            result = &mut stopped => match result {
                Ok(()) => break,
                Err(_) => return Ok(Jitter::default()), // dropped: nobody wants the rest
            },
            result = tick(&timer) => result?,
        }
        let now = started.elapsed();
        while next <= now {
            lateness.note(now - next);
            outstanding.spawn_local(one_new(options.clone(), started, sink.clone(), next));
            let _ = queue.send(next);
            next += options.every;
        }
        while outstanding.try_join_next().is_some() {}
    }
    drop(queue);
    while outstanding.join_next().await.is_some() {}
    let _ = kept.await;
    Ok(lateness.summary())
}

/// A histogram of fixed size, since a demo's probe runs for days.
#[derive(Default)]
struct Lateness {
    /// How many were late by so many tenths of a millisecond.
    tenths: Vec<u64>,
    max: Duration,
}

impl Lateness {
    /// Tenths of a millisecond that are told apart.
    const FINE: usize = 1000;

    fn note(&mut self, late: Duration) {
        self.tenths.resize(Self::FINE, 0);
        self.tenths[(late.as_micros() / 100).min(Self::FINE as u128 - 1) as usize] += 1;
        self.max = self.max.max(late);
    }

    fn summary(&self) -> Jitter {
        let total: u64 = self.tenths.iter().sum();
        let mut seen = 0;
        let p99 = self.tenths.iter().position(|count| {
            seen += count;
            seen * 100 >= total * 99
        });
        let p99 = Duration::from_micros(p99.map_or(0, |tenth| 100 * (tenth as u64 + 1)));
        Jitter { p99: p99.min(self.max), max: self.max }
    }
}

/// A timer of the kernel's own precision; tokio's is a millisecond's.
fn timer(every: Duration) -> io::Result<AsyncFd<OwnedFd>> {
    let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
    let timer = rustix::time::timerfd_create(TimerfdClockId::Monotonic, flags)?;
    let every = every.try_into().map_err(io::Error::other)?;
    let spec = Itimerspec { it_interval: every, it_value: every };
    rustix::time::timerfd_settime(&timer, TimerfdTimerFlags::empty(), &spec)?;
    sys::watch_readable(timer)
}

async fn tick(timer: &AsyncFd<OwnedFd>) -> io::Result<()> {
    let mut expirations = [0; 8];
    timer.async_io(Interest::READABLE, |fd| Ok(rustix::io::read(fd, &mut expirations)?)).await.map(drop)
}

/// A request on a connection of its own.
async fn one_new(options: Rc<Options>, started: Instant, sink: Sink, intended: Duration) {
    let attempt = async {
        let mut connection = Connection::open(options.target).await?;
        connection.get(&options.path, false).await.map(drop)
    };
    let deadline = Deadline::from_std(started + intended + options.timeout);
    let outcome = tokio::time::timeout_at(deadline, attempt).await.unwrap_or(Err(Failure::TimedOut));
    let done = started.elapsed();
    sink.borrow_mut()(Sample { stream: Stream::New, intended, done, retried: false, outcome });
}

/// The stream on one connection: a request waits for the one before it, as in a browser, and its latency says so.
async fn keep_alive(
    options: Rc<Options>,
    started: Instant,
    sink: Sink,
    mut intended_times: mpsc::UnboundedReceiver<Duration>,
) {
    let mut kept: Option<Connection> = None;
    while let Some(intended) = intended_times.recv().await {
        let deadline = Deadline::from_std(started + intended + options.timeout);
        let mut retried = false;
        let attempt = async {
            if let Some(mut connection) = kept.take() {
                match connection.get(&options.path, true).await {
                    Ok(again) => return Ok(again.then_some(connection)),
                    // RFC 9112 §9.3.1: it may have been closed for idleness while our request was under way.
                    Err(Failure::Closed | Failure::Reset) => retried = true,
                    Err(failure) => return Err(failure),
                }
            }
            let mut connection = Connection::open(options.target).await?;
            let again = connection.get(&options.path, true).await?;
            Ok(again.then_some(connection))
        };
        let outcome = match tokio::time::timeout_at(deadline, attempt).await {
            Ok(Ok(connection)) => {
                kept = connection;
                Ok(())
            }
            Ok(Err(failure)) => Err(failure),
            Err(_) => Err(Failure::TimedOut),
        };
        let done = started.elapsed();
        sink.borrow_mut()(Sample { stream: Stream::KeepAlive, intended, done, retried, outcome });
    }
}
