//! Where lines go: one thread a target, behind a bounded queue.
//!
//! Only these threads ever wait for a disk, a pipe or a network. While they do, the queue fills; then workers
//! drop whole blocks, count their lines, and go on.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relais_config::plan::{LogTarget, LogTo};

use crate::counters::lock;
use crate::limits;

/// Lines, each with its `\n`.
#[derive(Debug, Default)]
pub(crate) struct Block {
    pub(crate) bytes: Vec<u8>,
    pub(crate) lines: u64,
}

/// A target, as everybody sees it.
pub(crate) struct Sink {
    target: LogTarget,
    /// The file to write to, as last opened by the supervisor; the standard output.
    file: Mutex<Option<Arc<File>>>,
    /// Workers get theirs from here; `None` once nothing more is to come.
    sender: Mutex<Option<SyncSender<Block>>>,
    closing: AtomicBool,
    written: AtomicU64,
    dropped: AtomicU64,
    told: Mutex<Told>,
}

/// What was said of lost lines.
#[derive(Default)]
struct Told {
    when: Option<Instant>,
    dropped: u64,
}

impl Sink {
    /// A worker's way in; `None` if the sink ends.
    pub(crate) fn sender(&self) -> Option<SyncSender<Block>> {
        lock(&self.sender).clone()
    }

    /// For the status document: where to, lines written, lines dropped.
    pub(crate) fn counts(&self) -> (String, u64, u64) {
        (self.target.to.to_string(), self.written.load(Relaxed), self.dropped.load(Relaxed))
    }

    /// Counts lines that nobody will read, and says so now and then.
    pub(crate) fn lost(&self, lines: u64, why: &str) {
        let dropped = self.dropped.fetch_add(lines, Relaxed) + lines;
        let mut told = lock(&self.told);
        if told.when.is_none_or(|when| when.elapsed() >= limits::LOG_COMPLAINT) {
            let now = dropped.saturating_sub(told.dropped);
            tracing::warn!("access log {}: {now} lines dropped: {why}", self.target.to);
            *told = Told { when: Some(Instant::now()), dropped };
        }
    }

    fn wrote(&self, lines: u64) {
        self.written.fetch_add(lines, Relaxed);
    }

    fn run(&self, blocks: &Receiver<Block>) {
        let mut socket = Socket::None;
        // A file that was full in the middle of a line: the next line begins on a new one.
        let mut torn: Option<Arc<File>> = None;
        while let Ok(block) = blocks.recv() {
            match &self.target.to {
                LogTo::Stdout | LogTo::File(_) => self.append(&block, &mut torn),
                LogTo::Udp(_) | LogTo::Unix(_) => self.datagrams(&block, &mut socket),
                LogTo::Tcp(address) => self.stream(&block, *address, &mut socket),
            }
        }
    }

    fn append(&self, block: &Block, torn: &mut Option<Arc<File>>) {
        let Some(file) = lock(&self.file).clone() else { return self.lost(block.lines, "it is not open") };
        let mut to: &File = &file;
        let mended = match torn.take() {
            Some(same) if Arc::ptr_eq(&same, &file) => to.write_all(b"\n"),
            _ => Ok(()),
        };
        let mut done = 0;
        let result = mended.and_then(|()| {
            while done < block.bytes.len() {
                match to.write(&block.bytes[done..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(n) => done += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        });
        match result {
            Ok(()) => self.wrote(block.lines),
            Err(error) => {
                let whole = count_lines(&block.bytes[..done]);
                self.wrote(whole);
                if done > 0 && block.bytes[done - 1] != b'\n' {
                    *torn = Some(file);
                }
                self.lost(block.lines - whole, &format!("it cannot be written: {error}"));
            }
        }
    }

    fn datagrams(&self, block: &Block, socket: &mut Socket) {
        let mut lost = 0;
        let mut why = None;
        for line in block.bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let line = &line[..line.len().min(self.target.length as usize)];
            // A daemon that was started again has a new socket behind the same path: a second try finds it.
            let sent = self.send_datagram(line, socket).or_else(|_| {
                *socket = Socket::None;
                self.send_datagram(line, socket)
            });
            if let Err(error) = sent {
                lost += 1;
                why = Some(error);
                if lost > 3 && !matches!(socket, Socket::Udp(_)) {
                    break; // nobody is there: the rest of this block would only find that out again
                }
            }
        }
        match why {
            None => self.wrote(block.lines),
            Some(error) => {
                let lost = if lost > 3 { block.lines } else { lost };
                self.wrote(block.lines - lost);
                self.lost(lost, &format!("it cannot be reached: {error}"));
            }
        }
    }

    fn send_datagram(&self, line: &[u8], socket: &mut Socket) -> io::Result<()> {
        loop {
            match (&*socket, &self.target.to) {
                // Not connected: a server that is away for a moment must not make the next line an error.
                (Socket::Udp(socket), LogTo::Udp(address)) => return socket.send_to(line, address).map(drop),
                (Socket::Unix(socket), _) => return socket.send(line).map(drop),
                (_, LogTo::Unix(path)) => {
                    let unix = UnixDatagram::unbound()?;
                    unix.connect(&**path)?;
                    unix.set_write_timeout(Some(limits::LOG_PATIENCE))?;
                    *socket = Socket::Unix(unix);
                }
                (_, LogTo::Udp(address)) => {
                    let any: SocketAddr = match address {
                        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
                        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
                    };
                    *socket = Socket::Udp(UdpSocket::bind(any)?);
                }
                _ => return Err(io::ErrorKind::Unsupported.into()),
            }
        }
    }

    /// Sends a block with each line's length before it (octet counting, RFC 6587 §3.4.1), over as many
    /// connections as it takes.
    fn stream(&self, block: &Block, address: SocketAddr, socket: &mut Socket) {
        let (mut framed, mut starts) = (Vec::with_capacity(block.bytes.len() + 8 * 1024), Vec::new());
        for line in block.bytes.split(|&b| b == b'\n').filter(|line| !line.is_empty()) {
            let line = &line[..line.len().min(self.target.length as usize)];
            starts.push(framed.len());
            super::number(&mut framed, line.len() as u64);
            framed.push(b' ');
            framed.extend_from_slice(line);
        }
        let (mut done, mut pause) = (0, limits::LOG_RETRY_FIRST);
        loop {
            match self.send_stream(&framed, &mut done, address, socket) {
                Ok(()) => return self.wrote(block.lines),
                Err(error) => {
                    *socket = Socket::None;
                    // What the connection took a part of is sent again whole: a line twice, at worst.
                    done = starts.iter().copied().take_while(|start| *start <= done).last().unwrap_or(0);
                    let left = starts.iter().filter(|start| **start >= done).count() as u64;
                    if self.closing.load(Relaxed) {
                        self.wrote(block.lines - left);
                        return self.lost(left, &format!("it cannot be reached: {error}"));
                    }
                    self.away(&error);
                    std::thread::park_timeout(pause);
                    pause = (pause * 2).min(limits::LOG_RETRY_LAST);
                }
            }
        }
    }

    /// Says now and then that a server is away; lines wait.
    fn away(&self, error: &io::Error) {
        let mut told = lock(&self.told);
        if told.when.is_none_or(|when| when.elapsed() >= limits::LOG_COMPLAINT) {
            tracing::warn!("access log {}: it cannot be reached: {error}; lines wait", self.target.to);
            told.when = Some(Instant::now());
        }
    }

    fn send_stream(
        &self,
        framed: &[u8],
        done: &mut usize,
        address: SocketAddr,
        socket: &mut Socket,
    ) -> io::Result<()> {
        if let Socket::Tcp(stream) = &*socket
            && has_ended(stream)
        {
            *socket = Socket::None;
        }
        if !matches!(socket, Socket::Tcp(_)) {
            let stream = TcpStream::connect_timeout(&address, limits::LOG_PATIENCE)?;
            stream.set_write_timeout(Some(limits::LOG_PATIENCE))?;
            *socket = Socket::Tcp(stream);
        }
        let Socket::Tcp(stream) = socket else { return Err(io::ErrorKind::NotConnected.into()) };
        while *done < framed.len() {
            match stream.write(&framed[*done..]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(n) => *done += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// A socket at hand.
enum Socket {
    None,
    Udp(UdpSocket),
    Unix(UnixDatagram),
    Tcp(TcpStream),
}

/// Whether the other end has closed: a write would still succeed, into nothing.
fn has_ended(stream: &TcpStream) -> bool {
    use rustix::net::RecvFlags;
    let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
    match rustix::net::recv(stream, &mut [0u8; 1][..], flags) {
        Ok((_, n)) => n == 0,
        Err(error) => error != rustix::io::Errno::AGAIN,
    }
}

fn count_lines(block: &[u8]) -> u64 {
    block.iter().filter(|b| **b == b'\n').count() as u64
}

/// Every target at work, with its thread.
#[derive(Default)]
pub(crate) struct Sinks {
    running: HashMap<LogTarget, (Arc<Sink>, JoinHandle<()>)>,
    /// Threads of targets that no plan has any more: they write what they have, and end.
    ending: Vec<(Arc<Sink>, JoinHandle<()>)>,
    /// Files as the supervisor opened them, by path.
    files: HashMap<String, Arc<File>>,
}

impl Sinks {
    /// A file was opened, perhaps anew: what is written from now on goes there.
    pub(crate) fn opened(&mut self, path: String, file: File) {
        let file = Arc::new(file);
        for (target, (sink, _)) in &self.running {
            if matches!(&target.to, LogTo::File(other) if **other == *path) {
                *lock(&sink.file) = Some(file.clone());
            }
        }
        self.files.insert(path, file);
    }

    /// The sinks of a plan, in its order: those that are there go on, new ones start, others end.
    ///
    /// # Errors
    /// If a file has not been opened, or there can be no more threads.
    pub(crate) fn set(&mut self, targets: &[LogTarget]) -> Result<Vec<Arc<Sink>>, String> {
        let mut sinks = Vec::new();
        for target in targets {
            if let Some((sink, _)) = self.running.get(target) {
                sinks.push(sink.clone());
                continue;
            }
            let file = match &target.to {
                LogTo::File(path) => match self.files.get(&**path) {
                    Some(file) => Some(file.clone()),
                    None => return Err(format!("no descriptor came for the access log {path}")),
                },
                LogTo::Stdout => {
                    let stdout = io::stdout().as_fd().try_clone_to_owned();
                    stdout.ok().map(|fd| Arc::new(File::from(fd)))
                }
                _ => None,
            };
            let (sink, thread) =
                start(target, file).map_err(|error| format!("no thread for a log: {error}"))?;
            sinks.push(sink.clone());
            self.running.insert(target.clone(), (sink, thread));
        }
        Ok(sinks)
    }

    /// Lets those go that a plan now in force does not have.
    pub(crate) fn retain(&mut self, targets: &[LogTarget]) {
        let gone: Vec<LogTarget> =
            self.running.keys().filter(|target| !targets.contains(target)).cloned().collect();
        for target in gone {
            if let Some((sink, thread)) = self.running.remove(&target) {
                lock(&sink.sender).take();
                self.ending.push((sink, thread));
            }
        }
        self.ending.retain(|(_, thread)| !thread.is_finished());
        let used = |path: &str| targets.iter().any(|t| matches!(&t.to, LogTo::File(p) if **p == *path));
        self.files.retain(|path, _| used(path));
    }

    /// Sees everything written, as far as that can be had in `limit`. Workers have ended.
    pub(crate) fn end(&mut self, limit: Duration) {
        self.retain(&[]);
        let until = Instant::now() + limit;
        for (sink, thread) in &self.ending {
            sink.closing.store(true, Relaxed);
            thread.thread().unpark();
        }
        while self.ending.iter().any(|(_, thread)| !thread.is_finished()) && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn start(target: &LogTarget, file: Option<Arc<File>>) -> io::Result<(Arc<Sink>, JoinHandle<()>)> {
    let (sender, blocks) = sync_channel(limits::LOG_BLOCKS);
    let sink = Arc::new(Sink {
        target: target.clone(),
        file: Mutex::new(file),
        sender: Mutex::new(Some(sender)),
        closing: AtomicBool::new(false),
        written: AtomicU64::new(0),
        dropped: AtomicU64::new(0),
        told: Mutex::default(),
    });
    let serve = sink.clone();
    let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || serve.run(&blocks))?;
    Ok((sink, thread))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::io::Read;
    use std::net::TcpListener;

    fn target(to: LogTo) -> LogTarget {
        LogTarget { to, length: 80 }
    }

    fn block(lines: &[&str]) -> Block {
        Block { bytes: lines.concat().into_bytes(), lines: lines.len() as u64 }
    }

    #[test]
    fn a_syslog_server_gets_each_line_as_a_datagram() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let (sink, thread) = start(&target(LogTo::Udp(server.local_addr().unwrap())), None).unwrap();
        let long = format!("{}\n", "x".repeat(200));
        sink.sender().unwrap().send(block(&["one\n", &long, "three\n"])).unwrap();
        let mut buffer = [0; 1000];
        let mut next = || {
            let n = server.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..n].to_vec()).unwrap()
        };
        assert_eq!([next(), next(), next()], ["one".to_owned(), "x".repeat(80), "three".to_owned()]);
        lock(&sink.sender).take();
        thread.join().unwrap();
        assert_eq!(sink.counts().1, 3);
    }

    #[test]
    fn a_syslog_server_over_tcp_gets_lengths_and_every_line_through_a_restart() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (sink, thread) = start(&target(LogTo::Tcp(address)), None).unwrap();
        let sender = sink.sender().unwrap();
        sender.send(block(&["one\n", "seconds\n"])).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = [0; 14];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"3 one7 seconds");
        // It goes away, and comes back after lines have come.
        drop((stream, listener));
        sender.send(block(&["three\n"])).unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let mut text = [0; 7];
        stream.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"5 three");
        drop(sender);
        lock(&sink.sender).take();
        thread.join().unwrap();
        assert_eq!(sink.counts(), (format!("tcp@{address}"), 3, 0));
    }

    #[test]
    fn a_local_syslog_daemon_may_be_started_again() {
        let path = std::env::temp_dir().join(format!("relais-log-{}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let to = LogTo::Unix(path.to_str().unwrap().into());
        let (sink, thread) = start(&target(to), None).unwrap();
        let sender = sink.sender().unwrap();
        let mut buffer = [0; 100];
        for round in 0..2 {
            let daemon = UnixDatagram::bind(&path).unwrap();
            daemon.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            sender.send(block(&["line\n"])).unwrap();
            assert_eq!(daemon.recv(&mut buffer).unwrap(), 4, "round {round}");
            drop(daemon);
            std::fs::remove_file(&path).unwrap();
        }
        sender.send(block(&["nobody\n"])).unwrap();
        drop(sender);
        lock(&sink.sender).take();
        thread.join().unwrap();
        assert_eq!((sink.counts().1, sink.counts().2), (2, 1));
    }

    #[test]
    fn a_full_disk_costs_lines_and_nothing_else() {
        let full = File::options().write(true).open("/dev/full").unwrap();
        let path = std::env::temp_dir().join(format!("relais-log-full-{}", std::process::id()));
        let mut sinks = Sinks::default();
        let name = path.to_str().unwrap().to_owned();
        sinks.opened(name.clone(), full);
        let targets = [target(LogTo::File(name.as_str().into()))];
        let sink = sinks.set(&targets).unwrap().remove(0);
        let sender = sink.sender().unwrap();
        sender.send(block(&["lost\n", "too\n"])).unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while sink.counts().2 < 2 && Instant::now() < until {
            std::thread::yield_now();
        }
        // The operator made room and had the file opened anew.
        sinks.opened(name, File::create(&path).unwrap());
        sender.send(block(&["kept\n"])).unwrap();
        drop(sender);
        sinks.end(Duration::from_secs(10));
        assert_eq!((sink.counts().1, sink.counts().2), (1, 2));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "kept\n");
        std::fs::remove_file(path).unwrap();
    }
}
