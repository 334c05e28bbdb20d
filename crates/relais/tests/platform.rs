//! One node, run for real without root: `relais run` with its four processes, an origin made here, and the
//! deaths, reloads and stops that an operator will see.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use relais_ipc::Role;
use relais_ipc::status::{NodeStatus, ProxyStatus};

/// Everything here happens within this time or the test fails.
const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `condition` gives something.
fn await_some<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_millis(5)); // the polling interval of an awaited condition
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// An origin that answers every GET with `body`, after `delay` for paths that begin with `/slow`.
struct Origin {
    address: SocketAddr,
}

impl Origin {
    fn start(body: &'static str) -> Origin {
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
struct Node {
    process: Child,
    dir: PathBuf,
    web: SocketAddr,
    admin: SocketAddr,
    log: Arc<Mutex<String>>,
}

static NODES: AtomicU32 = AtomicU32::new(0);

impl Node {
    fn start(origins: &[&Origin]) -> Node {
        Node::start_with(origins, "")
    }

    /// A node whose processes come out of a shell that has done `first`.
    fn start_with(origins: &[&Origin], first: &str) -> Node {
        let n = NODES.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("relais-test-{}-{n}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let web: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        let admin: SocketAddr = ([127, 0, 0, 1], free_port()).into();
        std::fs::write(dir.join("plan.kdl"), plan(web, admin, origins, "")).unwrap();
        let mut process = Command::new("sh")
            .args(["-c", &format!("{first}\nexec \"$0\" \"$@\""), env!("CARGO_BIN_EXE_relais")])
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

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    fn await_log(&self, words: &str) {
        let start = Instant::now();
        while !self.log().contains(words) {
            assert!(start.elapsed() < PATIENCE, "waited for {words:?} in:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(5)); // the polling interval of an awaited condition
        }
    }

    fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    fn command(&self, arguments: &[&str]) -> (bool, String) {
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

    fn status(&self) -> NodeStatus {
        let (ok, text) = self.command(&["status", "--json"]);
        assert!(ok, "{text}");
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        serde_json::from_value(all["node"].clone()).unwrap()
    }

    fn proxy(&self) -> Option<ProxyStatus> {
        relais_ipc::status::fetch(&self.run_dir().join("proxy.sock"), Duration::from_secs(1)).ok()
    }

    fn pid(&self, role: Role) -> Option<u32> {
        self.status().processes.iter().find(|process| process.role == role)?.pid
    }

    fn signal(&self, pid: u32, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    fn await_exit(&mut self) -> std::process::ExitStatus {
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

fn plan(web: SocketAddr, admin: SocketAddr, origins: &[&Origin], more: &str) -> String {
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
fn get(address: SocketAddr, path: &str) -> std::io::Result<(u16, String)> {
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
fn ask_until(stop: &AtomicBool, address: SocketAddr) -> (u32, Vec<String>) {
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
fn under_load(node: &Node, change: impl FnOnce()) -> (u32, Vec<String>) {
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

#[test]
fn a_request_passes_through_and_status_tells_of_it() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    assert_eq!(get(node.web, "/").unwrap(), (200, "hello".to_owned()));
    let (ok, text) = node.command(&["status"]);
    assert!(ok && text.contains("frontend web (http)") && text.contains("1 of 1 servers up"), "{text}");
    let (code, metrics) = get(node.admin, "/metrics").unwrap();
    assert_eq!(code, 200);
    assert!(metrics.contains("haproxy_frontend_http_requests_total{proxy=\"web\"} 1"), "{metrics}");
}

#[test]
fn a_low_limit_of_open_files_is_said_and_kept() {
    let origin = Origin::start("hello");
    let node = Node::start_with(&[&origin], "ulimit -n 200");
    node.await_log("the limit of open files is 200: at most ");
    // Far more than there are places: the kernel's queue holds the rest, and everybody has an answer.
    std::thread::scope(|scope| {
        let asking: Vec<_> = (0..150).map(|_| scope.spawn(|| get(node.web, "/slow").unwrap())).collect();
        for thread in asking {
            assert_eq!(thread.join().unwrap(), (200, "hello".to_owned()));
        }
    });
    assert!(!node.log().contains("cannot accept"), "{}", node.log());
}

#[test]
fn a_killed_proxy_is_back_at_once_and_its_sockets_never_closed() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let before = node.pid(Role::Proxy).unwrap();
    node.signal(before, rustix::process::Signal::KILL);
    // Connections made right after the death wait in the kernel's queue; none is refused.
    let start = Instant::now();
    assert_eq!(get(node.web, "/").unwrap().0, 200);
    assert!(start.elapsed() < Duration::from_secs(1), "it took {:?}", start.elapsed());
    let after = await_some("the next proxy", || node.pid(Role::Proxy).filter(|pid| *pid != before));
    assert_ne!(after, before);
    node.await_log("was killed by signal 9; it is started again at once");
}

#[test]
fn a_proxy_that_keeps_dying_is_started_ever_more_slowly() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    for _ in 0..3 {
        let pid = await_some("a proxy", || node.pid(Role::Proxy));
        node.signal(pid, rustix::process::Signal::KILL);
        await_some("its death", || (node.pid(Role::Proxy) != Some(pid)).then_some(()));
    }
    node.await_log("it is started again in 100 ms");
    node.await_log("it is started again in 200 ms");
    assert_eq!(get(node.web, "/").unwrap().0, 200);
}

#[test]
fn the_death_of_control_costs_no_request_and_it_comes_back() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let before = node.pid(Role::Control).unwrap();
    let (answers, failures) = under_load(&node, || {
        node.signal(before, rustix::process::Signal::KILL);
        await_some("the next control", || {
            let pid = node.pid(Role::Control).filter(|pid| *pid != before)?;
            (get(node.admin, "/healthz").ok()?.0 == 200).then_some(pid)
        });
    });
    assert!(answers > 0);
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn a_new_server_is_taken_by_apply_without_a_lost_request() {
    let (one, two) = (Origin::start("one"), Origin::start("two"));
    let node = Node::start(&[&one]);
    let file = node.dir.join("next.kdl");
    std::fs::write(&file, plan(node.web, node.admin, &[&one, &two], "")).unwrap();
    let (answers, failures) = under_load(&node, || {
        let (ok, text) = node.command(&["apply", file.to_str().unwrap()]);
        assert!(ok && text.contains("is in force"), "{text}");
        await_some("an answer of the new server", || {
            get(node.web, "/").is_ok_and(|(_, body)| body == "two").then_some(())
        });
    });
    assert!(answers > 0);
    assert_eq!(failures, Vec::<String>::new());
}

#[test]
fn a_plan_that_fails_check_changes_nothing_and_says_where() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let file = node.dir.join("bad.kdl");
    std::fs::write(&file, plan(node.web, node.admin, &[&origin], "timeout reqest=\"1s\"")).unwrap();
    let generation = node.status().generation;
    let (ok, text) = node.command(&["apply", file.to_str().unwrap()]);
    assert!(!ok && text.contains("nothing was changed") && text.contains("bad.kdl:10:10"), "{text}");
    std::fs::copy(&file, node.dir.join("plan.kdl")).unwrap();
    node.signal(node.process.id(), rustix::process::Signal::HUP);
    node.await_log("nothing was changed");
    assert_eq!(node.status().generation, generation);
    assert_eq!(get(node.web, "/").unwrap().0, 200);
}

#[test]
fn a_plan_whose_address_is_taken_changes_nothing() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = format!("bind \"{}\"", taken.local_addr().unwrap());
    let file = node.dir.join("taken.kdl");
    std::fs::write(&file, plan(node.web, node.admin, &[&origin], &bind)).unwrap();
    let (ok, text) = node.command(&["apply", file.to_str().unwrap()]);
    assert!(!ok && text.contains("another program has it"), "{text}");
    assert_eq!(get(node.web, "/").unwrap().0, 200);
}

#[test]
fn a_listener_comes_and_goes_with_the_plan() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let more: SocketAddr = ([127, 0, 0, 1], free_port()).into();
    let file = node.dir.join("more.kdl");
    std::fs::write(&file, plan(node.web, node.admin, &[&origin], &format!("bind \"{more}\""))).unwrap();
    assert!(node.command(&["apply", file.to_str().unwrap()]).0);
    assert_eq!(get(more, "/").unwrap().0, 200);
    assert!(node.command(&["apply", node.dir.join("plan.kdl").to_str().unwrap()]).0);
    await_some("the listener's end", || TcpStream::connect(more).is_err().then_some(()));
    assert_eq!(get(node.web, "/").unwrap().0, 200);
}

#[test]
fn a_stop_finishes_what_was_begun() {
    let origin = Origin::start("hello");
    let mut node = Node::start(&[&origin]);
    let web = node.web;
    let slow = std::thread::spawn(move || get(web, "/slow"));
    await_some("the slow request's arrival", || {
        node.proxy()?.backends.first()?.servers.first().filter(|server| server.active > 0).map(|_| ())
    });
    node.signal(node.process.id(), rustix::process::Signal::TERM);
    assert_eq!(slow.join().unwrap().unwrap(), (200, "hello".to_owned()));
    assert!(node.await_exit().success());
    assert!(TcpStream::connect(web).is_err());
}

#[test]
fn children_do_not_outlive_a_killed_supervisor() {
    let origin = Origin::start("hello");
    let mut node = Node::start(&[&origin]);
    let pids: Vec<u32> = Role::ALL.iter().map(|role| node.pid(*role).unwrap()).collect();
    node.process.kill().unwrap();
    node.await_exit();
    for pid in pids {
        await_some("the child's end", || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"));
            stat.map_or(Some(()), |stat| stat.contains(") Z ").then_some(()))
        });
    }
}

#[test]
fn a_second_node_in_the_same_run_directory_is_refused() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let file = node.dir.join("plan.kdl");
    let (ok, text) = node.command(&["run", file.to_str().unwrap(), "--node", "here"]);
    assert!(!ok && text.contains("another relais runs in"), "{text}");
}

#[test]
fn a_node_that_the_file_does_not_have_is_named_with_those_it_has() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let file = node.dir.join("plan.kdl");
    let (ok, text) = node.command(&["run", file.to_str().unwrap(), "--node", "there"]);
    assert!(!ok && text.contains("has no node there: --node must be one of here"), "{text}");
}
