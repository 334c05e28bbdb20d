//! A proxy in a thread with a channel to order it about, and small servers and clients around it.
#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test file uses its part

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use relais_ipc::channel::text_to_fd;
use relais_ipc::status::{ProxyStatus, fetch};
use relais_ipc::{Channel, Order, Report};
use socket2::{Domain, Socket, Type};

/// Longer than anything takes that works.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// The listening sockets of one bind, one for each worker.
pub struct Door {
    pub address: SocketAddr,
    sockets: Vec<OwnedFd>,
    udp: bool,
}

impl Door {
    pub fn new(workers: u16) -> Door {
        Door::at("127.0.0.1:0".parse().unwrap(), workers)
    }

    pub fn sockets(&self) -> &[OwnedFd] {
        &self.sockets
    }

    pub fn at(address: SocketAddr, workers: u16) -> Door {
        Door::open(address, workers, false)
    }

    /// UDP sockets.
    pub fn datagrams(workers: u16) -> Door {
        Door::datagrams_at("127.0.0.1:0".parse().unwrap(), workers)
    }

    pub fn datagrams_at(address: SocketAddr, workers: u16) -> Door {
        Door::open(address, workers, true)
    }

    fn open(mut address: SocketAddr, workers: u16, udp: bool) -> Door {
        let mut sockets = Vec::new();
        for _ in 0..workers {
            let kind = if udp { Type::DGRAM } else { Type::STREAM };
            let socket = Socket::new(Domain::for_address(address), kind, None).unwrap();
            socket.set_reuse_port(true).unwrap();
            if !udp {
                socket.set_reuse_address(true).unwrap();
            }
            socket.bind(&address.into()).unwrap();
            if !udp {
                socket.listen(1024).unwrap();
            }
            address = socket.local_addr().unwrap().as_socket().unwrap();
            sockets.push(socket.into());
        }
        Door { address, sockets, udp }
    }
}

static NAMES: AtomicU32 = AtomicU32::new(0);

/// A path in the temporary directory that nobody else uses.
pub fn scratch(name: &str) -> PathBuf {
    let number = NAMES.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("relais-proxy-{}-{number}-{name}", std::process::id()))
}

/// A running proxy.
pub struct Proxy {
    runtime: tokio::runtime::Runtime,
    channel: Option<Channel>,
    thread: Option<JoinHandle<ExitCode>>,
    status: PathBuf,
    pub log: PathBuf,
    /// More directives for `platform`.
    pub platform: String,
    /// Memory files that it has given to its supervisor, by backend.
    pub tables: std::collections::BTreeMap<String, OwnedFd>,
    /// The nodes of the plan.
    pub nodes: String,
    workers: u16,
    generation: u64,
}

impl Proxy {
    /// A proxy with one worker and this plan in force. The plan is wrapped in what every plan needs.
    pub fn start(plan: &str, doors: &[&Door]) -> Proxy {
        let mut proxy = Proxy::bare(1);
        assert_eq!(proxy.plan(plan, doors), Report::Ready { generation: 1 });
        proxy
    }

    pub fn bare(workers: u16) -> Proxy {
        Proxy::bare_as("here", workers)
    }

    /// One on the node of this name.
    pub fn bare_as(node: &str, workers: u16) -> Proxy {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (channel, theirs) = runtime.block_on(async { Channel::pair() }).unwrap();
        let thread = std::thread::spawn(move || relais_proxy::run(theirs));
        let (status, log) = (scratch("status"), scratch("log"));
        let mut proxy = Proxy {
            runtime,
            channel: Some(channel),
            thread: Some(thread),
            status,
            log,
            platform: String::new(),
            tables: Default::default(),
            nodes: "node here { link \"127.0.0.1\"; }".into(),
            workers,
            generation: 0,
        };
        proxy.order(&Order::Hello { node: node.into(), workers, run_dir: "/tmp".into() }, None);
        let listener = std::os::unix::net::UnixListener::bind(&proxy.status).unwrap();
        proxy.order(&Order::Status, Some(listener.into()));
        let log = std::fs::File::options().create(true).append(true).open(&proxy.log).unwrap();
        let path = proxy.log.display().to_string();
        proxy.order(&Order::AccessLog { path }, Some(log.into()));
        proxy
    }

    pub fn order(&mut self, order: &Order, fd: Option<OwnedFd>) {
        let channel = self.channel.as_ref().unwrap();
        self.runtime.block_on(channel.send(order, fd.as_ref().map(|fd| fd.as_fd()))).unwrap();
    }

    /// Sends listeners and plan, and returns the answer.
    pub fn plan(&mut self, plan: &str, doors: &[&Door]) -> Report {
        for door in doors {
            for (index, socket) in door.sockets.iter().enumerate() {
                let (address, index) = (door.address, index as u16);
                let order = match door.udp {
                    true => Order::Datagrams { address, index },
                    false => Order::Listener { frontend: String::new(), address, index },
                };
                self.order(&order, Some(socket.try_clone().unwrap()));
            }
        }
        let log = self.log.display();
        let text =
            format!("platform test {{ access-log \"{log}\"; {} }}\n{}\n{plan}\n", self.platform, self.nodes);
        self.generation += 1;
        let generation = self.generation;
        self.order(&Order::Plan { generation, file: "test.kdl".into() }, Some(text_to_fd(&text).unwrap()));
        loop {
            match self.report() {
                Report::Server { .. } => {}
                report => return report,
            }
        }
    }

    /// The next report that is not a sign of life.
    pub fn report(&mut self) -> Report {
        loop {
            match self.any_report() {
                Report::Alive => {}
                report => return report,
            }
        }
    }

    /// The next report.
    pub fn any_report(&mut self) -> Report {
        let channel = self.channel.as_ref().unwrap();
        let next = async { tokio::time::timeout(PATIENCE, channel.recv::<Report>()).await };
        match self.runtime.block_on(next).expect("a report").unwrap().expect("the proxy lives") {
            (Report::Table { backend }, file) => {
                self.tables.remove(&backend);
                self.tables.extend(file.map(|file| (backend, file)));
                self.any_report()
            }
            (report, _) => report,
        }
    }

    /// Waits until the checks find the server of this name in this state.
    pub fn wait_server(&mut self, name: &str, wanted: bool) {
        loop {
            if let Report::Server { server, up, .. } = self.report()
                && server == name
                && up == wanted
            {
                return;
            }
        }
    }

    pub fn status(&self) -> ProxyStatus {
        fetch(&self.status, PATIENCE).unwrap()
    }

    /// Lets go of the channel, as a dying supervisor does.
    pub fn hang_up(&mut self) {
        self.channel = None;
    }

    /// Waits for the proxy's end.
    pub fn join(&mut self) -> ExitCode {
        let thread = self.thread.take().unwrap();
        wait("the proxy's end", || thread.is_finished());
        thread.join().unwrap()
    }

    /// The lines of the access log, once there are `n`.
    pub fn lines(&self, n: usize) -> Vec<String> {
        let read = || -> Vec<String> {
            std::fs::read_to_string(&self.log).unwrap_or_default().lines().map(str::to_owned).collect()
        };
        wait(&format!("{n} access lines"), || read().len() >= n);
        read()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let (Some(channel), Some(thread)) = (&self.channel, self.thread.take()) {
            let _ = self.runtime.block_on(channel.send(&Order::Stop, None));
            if !std::thread::panicking() {
                thread.join().unwrap();
            }
        }
        let _ = std::fs::remove_file(&self.status);
        let _ = std::fs::remove_file(&self.log);
    }
}

/// Waits until `true`.
pub fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A server that runs `serve` on every connection, in a thread each.
pub struct Origin {
    pub address: SocketAddr,
    accepted: Arc<AtomicU32>,
}

impl Origin {
    pub fn new(serve: impl Fn(Peer) + Send + Sync + 'static) -> Origin {
        Origin::on(TcpListener::bind("127.0.0.1:0").unwrap(), serve)
    }

    pub fn on(listener: TcpListener, serve: impl Fn(Peer) + Send + Sync + 'static) -> Origin {
        let address = listener.local_addr().unwrap();
        let (serve, accepted) = (Arc::new(serve), Arc::new(AtomicU32::new(0)));
        let count = accepted.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                count.fetch_add(1, Ordering::SeqCst);
                let serve = serve.clone();
                let stream = stream.unwrap();
                std::thread::spawn(move || serve(Peer::new(stream)));
            }
        });
        Origin { address, accepted }
    }

    /// An origin that answers every request with this, for ever.
    pub fn answering(response: &'static str) -> Origin {
        Origin::new(move |mut peer| {
            while peer.try_head().is_some() {
                peer.send(response);
            }
        })
    }

    /// Connections accepted so far.
    pub fn accepted(&self) -> u32 {
        self.accepted.load(Ordering::SeqCst)
    }
}

/// One end of a connection, as a test sees it.
pub struct Peer {
    pub io: BufReader<TcpStream>,
}

impl Peer {
    pub fn new(io: TcpStream) -> Peer {
        io.set_read_timeout(Some(PATIENCE)).unwrap();
        io.set_write_timeout(Some(PATIENCE)).unwrap();
        io.set_nodelay(true).unwrap();
        Peer { io: BufReader::new(io) }
    }

    pub fn connect(address: SocketAddr) -> Peer {
        Peer::new(TcpStream::connect(address).unwrap())
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).unwrap();
    }

    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.io.get_mut().write_all(bytes.as_ref())
    }

    /// A head with its empty line; `None` at the end of the stream.
    pub fn try_head(&mut self) -> Option<String> {
        let mut head = String::new();
        loop {
            match self.io.read_line(&mut head) {
                Ok(0) | Err(_) => return None,
                Ok(_) if head.ends_with("\r\n\r\n") => return Some(head),
                Ok(_) => {}
            }
        }
    }

    pub fn head(&mut self) -> String {
        self.try_head().expect("a head")
    }

    /// So many bytes.
    pub fn take(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.io.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub fn text(&mut self, n: usize) -> String {
        String::from_utf8(self.take(n)).unwrap()
    }

    /// Everything until the end of the stream.
    pub fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        self.io.read_to_end(&mut bytes).unwrap();
        String::from_utf8(bytes).unwrap()
    }

    /// As [`Peer::rest`], of any bytes, up to an error.
    pub fn rest_bytes(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = self.io.read_to_end(&mut bytes);
        bytes
    }

    /// A head and, by its length field, its body.
    pub fn message(&mut self) -> (String, String) {
        let head = self.head();
        let length = field(&head, "content-length").map_or(0, |v| v.parse().unwrap());
        (head, self.text(length))
    }

    /// A head and, chunked or by its length field, its body.
    pub fn chunked(&mut self) -> (String, String) {
        let head = self.head();
        if field(&head, "transfer-encoding").is_none() {
            let length = field(&head, "content-length").map_or(0, |v| v.parse().unwrap());
            return (head, self.text(length));
        }
        let mut body = String::new();
        loop {
            let mut line = String::new();
            self.io.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            body += &self.text(size);
            self.take(2);
            if size == 0 {
                return (head, body);
            }
        }
    }

    /// Whether the other end has closed, or reset.
    pub fn is_closed(&mut self) -> bool {
        matches!(self.io.fill_buf(), Ok([]) | Err(_))
    }

    /// Whether neither a byte nor an end comes within this time.
    pub fn hears_nothing(&mut self, time: Duration) -> bool {
        self.io.get_mut().set_read_timeout(Some(time)).unwrap();
        let heard = self.io.fill_buf().map(|bytes| bytes.len());
        heard.is_err_and(|e| matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut))
    }

    pub fn half_close(&mut self) {
        self.io.get_mut().shutdown(Shutdown::Write).unwrap();
    }
}

/// The value of a field, by lower-case name.
pub fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        key.eq_ignore_ascii_case(name).then_some(value.trim())
    })
}

pub fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: h.test\r\n\r\n")
}

/// A plan with a frontend `web` and a backend `app` with servers `s1`, `s2`, ...
pub fn plan(door: &Door, front: &str, back: &str, servers: &[SocketAddr]) -> String {
    let mut text =
        format!("frontend web {{\n bind \"{}\"\n {front}\n default-backend app\n}}\n", door.address);
    text += &format!("backend app {{\n {back}\n");
    for (i, address) in servers.iter().enumerate() {
        text += &format!(" server s{} \"{address}\"\n", i + 1);
    }
    text + "}\n"
}

/// An address where nobody listens.
pub fn nobody() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

/// A pair of ends to hand something from a server's thread to the test.
pub fn handover<T>() -> (Arc<Mutex<mpsc::Sender<T>>>, mpsc::Receiver<T>) {
    let (sender, receiver) = mpsc::channel();
    (Arc::new(Mutex::new(sender)), receiver)
}
