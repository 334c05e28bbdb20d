//! A node run for real, its origins, and clients: for the tests of the whole program.

#![allow(dead_code, unreachable_pub, clippy::unwrap_used)] // each test binary uses its part

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use relais_ipc::Role;
use relais_ipc::status::{NodeStatus, ProxyStatus};

/// Everything here happens within this time or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives something.
pub fn await_some<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5)); // the polling interval of an awaited condition
    }
}

/// Waits until no thread of a process that was sent SIGSTOP moves any more.
pub fn await_standstill(pid: u32) {
    await_some("all its threads to stand still", || {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).ok()?;
        let stopped = |task: std::fs::DirEntry| {
            let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
        };
        tasks.flatten().all(stopped).then_some(())
    });
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An origin that answers every GET with `body`, after `delay` for paths that begin with `/slow`.
pub struct Origin {
    pub address: SocketAddr,
}

impl Origin {
    pub fn start(body: &'static str) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || Origin::serve(stream, body));
            }
        });
        Origin { address }
    }

    fn serve(stream: TcpStream, body: &str) -> Option<()> {
        let mut reader = BufReader::new(stream.try_clone().ok()?);
        let mut stream = stream;
        loop {
            let mut line = String::new();
            let mut path = String::new();
            while reader.read_line(&mut line).ok()? > 0 && line != "\r\n" {
                if path.is_empty() {
                    path = line.split(' ').nth(1)?.to_owned();
                }
                line.clear();
            }
            if path.is_empty() {
                return None;
            }
            if path.starts_with("/slow") {
                std::thread::sleep(Duration::from_millis(400)); // the slowness that is asked for
            }
            let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).ok()?;
        }
    }
}

/// A running node, stopped with the test.
pub struct Node {
    pub process: Child,
    pub dir: PathBuf,
    pub web: SocketAddr,
    pub admin: SocketAddr,
    log: Arc<Mutex<String>>,
}

static NODES: AtomicU32 = AtomicU32::new(0);

/// See [`Node::prepare`].
pub struct Prepared {
    pub dir: PathBuf,
    pub web: SocketAddr,
    pub admin: SocketAddr,
}

impl Prepared {
    /// Runs it from this binary until it is ready.
    pub fn run(self, binary: &Path, environment: &[(&str, &str)]) -> Node {
        self.start(Command::new(binary).envs(environment.iter().copied()))
    }

    fn start(self, command: &mut Command) -> Node {
        let Prepared { dir, web, admin } = self;
        let mut process = command
            .arg("run")
            .arg(dir.join("plan.kdl"))
            .args(["--node", "here", "--run-dir"])
            .arg(dir.join("run"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let (stderr, seen) = (process.stderr.take().unwrap(), log.clone());
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let _ = writeln!(seen.lock().unwrap(), "{line}");
            }
        });
        let node = Node { process, dir, web, admin, log };
        node.await_log("is ready");
        node
    }
}

impl Node {
    pub fn start(origins: &[&Origin]) -> Node {
        Node::start_with(origins, "")
    }

    /// A node whose processes come out of a shell that has done `first`.
    pub fn start_with(origins: &[&Origin], first: &str) -> Node {
        let prepared = Node::prepare(|web, admin| plan(web, admin, origins, ""));
        let script = format!("{first}\nexec \"$0\" \"$@\"");
        prepared.start(Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_relais")]))
    }

    /// A node with its plan and directory, not run yet.
    pub fn prepare(plan: impl FnOnce(SocketAddr, SocketAddr) -> String) -> Prepared {
        let n = NODES.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("relais-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let web: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let admin: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        std::fs::write(dir.join("plan.kdl"), plan(web, admin)).unwrap();
        Prepared { dir, web, admin }
    }

    /// One that ended, started again where it was.
    pub fn again(&self) -> Node {
        let (dir, web, admin) = (self.dir.clone(), self.web, self.admin);
        Prepared { dir, web, admin }.run(Path::new(env!("CARGO_BIN_EXE_relais")), &[])
    }

    pub fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    pub fn await_log(&self, words: &str) {
        let start = Instant::now();
        while !self.log().contains(words) {
            assert!(start.elapsed() < PATIENCE, "waited for {words:?} in:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5)); // the polling interval of an awaited condition
        }
    }

    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    pub fn command(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_relais"))
            .args(arguments)
            .arg("--run-dir")
            .arg(self.run_dir())
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text)
    }

    pub fn status(&self) -> NodeStatus {
        let (ok, text) = self.command(&["status", "--json"]);
        assert!(ok, "{text}");
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(all["node"].clone()).unwrap()
    }

    pub fn proxy(&self) -> Option<ProxyStatus> {
        relais_ipc::status::fetch(&self.run_dir().join("proxy.sock"), Duration::from_secs(1)).ok()
    }

    pub fn pid(&self, role: Role) -> Option<u32> {
        self.status().processes.iter().find(|process| process.role == role)?.pid
    }

    pub fn signal(&self, pid: u32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub fn await_exit(&mut self) -> std::process::ExitStatus {
        await_some("the node's end", || self.process.try_wait().unwrap())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
        if std::thread::panicking() {
            eprintln!("the node's log:\n{}", self.log());
        }
    }
}

pub fn plan(web: SocketAddr, admin: SocketAddr, origins: &[&Origin], more: &str) -> String {
    let mut text = format!(
        "platform test {{\n admin \"{admin}\"\n access-log off\n drain \"5s\"\n}}\nnode here {{ link \"127.0.0.1\"; }}\n\
         frontend web {{\n bind \"{web}\"\n default-backend app\n {more}\n}}\n\
         backend app {{\n check http path=\"/healthz\" every=\"100ms\" fall=1 rise=1\n retries 3\n redispatch\n"
    );
    for (n, origin) in origins.iter().enumerate() {
        let _ = writeln!(text, " server s{n} \"{}\"", origin.address);
    }
    text + "}\n"
}

/// One GET on a new connection: the status code and the body, or why not.
pub fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.ok_or_else(|| std::io::Error::other(format!("no answer: {answer:?}")))?;
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default();
    Ok((status, body))
}

/// Asks without a pause until told to stop, on new connections; says how many answers there were and what
/// went wrong.
pub fn ask_until(stop: &AtomicBool, address: SocketAddr) -> (u32, Vec<String>) {
    let (mut answers, mut failures) = (0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        match get(address, "/") {
            Ok((200, _)) => answers += 1,
            Ok((code, body)) => failures.push(format!("{code} {body}")),
            Err(error) => failures.push(error.to_string()),
        }
    }
    (answers, failures)
}

/// What clients see while `change` happens.
pub fn under_load(node: &Node, change: impl FnOnce()) -> (u32, Vec<String>) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3).map(|_| scope.spawn(|| ask_until(&stop, node.web))).collect();
        change();
        stop.store(true, Ordering::Relaxed);
        asking.into_iter().map(|thread| thread.join().unwrap()).fold(
            (0, Vec::new()),
            |(n, mut all), (m, more)| {
                all.extend(more);
                (n + m, all)
            },
        )
    })
}

/// A server that gives every datagram back.
pub fn echo_datagrams() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let _ = socket.send_to(&buffer[..length], from);
        }
    });
    address
}

/// A plan whose frontend `dns` gives datagrams to this server; `more` is for the backend.
pub fn udp_plan(web: SocketAddr, admin: SocketAddr, server: SocketAddr, more: &str) -> String {
    format!(
        "platform test {{\n admin \"{admin}\"\n access-log off\n drain \"5s\"\n}}\nnode here {{ link \"127.0.0.1\"; }}\n\
         frontend dns {{\n mode udp\n bind \"{web}\"\n default-backend resolvers\n}}\n\
         backend resolvers {{\n mode udp\n responses 1\n {more}\n server s \"{server}\"\n}}\n"
    )
}

/// Asks one question after the other by UDP, every second from a new port, until told to stop: how many were answered,
/// and how many not within `patience`.
pub fn ask_by_udp(stop: &AtomicBool, address: SocketAddr, patience: Duration) -> (u32, u32) {
    let open = || {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(patience)).unwrap();
        socket.connect(address).unwrap();
        socket
    };
    let (mut socket, mut answered, mut lost) = (open(), 0, 0);
    for question in 0u64.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if question % 2 == 0 {
            socket = open();
        }
        socket.send(&question.to_be_bytes()).unwrap();
        let mut buffer = [0; 64];
        match socket.recv(&mut buffer) {
            Ok(length) => {
                assert_eq!(buffer[..length], question.to_be_bytes());
                answered += 1;
            }
            Err(_) => {
                lost += 1;
                socket = open(); // a late answer is no answer to the next question
            }
        }
    }
    (answered, lost)
}

/// What three such clients see while `change` happens: answers in all, and what each has lost.
pub fn under_udp_load(address: SocketAddr, patience: Duration, change: impl FnOnce()) -> (u32, Vec<u32>) {
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..3).map(|_| scope.spawn(|| ask_by_udp(&stop, address, patience))).collect();
        change();
        stop.store(true, Ordering::Relaxed);
        let seen = asking.into_iter().map(|thread| thread.join().unwrap());
        seen.fold((0, Vec::new()), |(all, mut lost), (answered, missing)| {
            lost.push(missing);
            (all + answered, lost)
        })
    })
}
