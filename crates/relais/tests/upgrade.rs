//! Binary upgrades of one node, run for real without root: what clients see while one version takes over from
//! another, and what happens when either fails on the way.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod node;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use node::{
    Node, Origin, PATIENCE, await_some, echo_datagrams, get, plan, udp_plan, under_load, under_udp_load,
};
use relais_ipc::message::Ask;
use relais_ipc::upgrade::{Heir, Legacy};
use relais_ipc::{Channel, Role};
use rustix::process::{Pid, Signal, kill_process};

const RELAIS: &str = env!("CARGO_BIN_EXE_relais");

/// A node, and whoever has taken over from it since: both end with the test.
struct Upgraded(Node);

impl Drop for Upgraded {
    fn drop(&mut self) {
        let lock = self.0.run_dir().join("relais.lock");
        let held = await_quiet(|| {
            let Some(pid) = supervisor(&self.0) else { return std::fs::File::open(&lock).is_ok() };
            let _ = kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL);
            false
        });
        assert!(held || std::thread::panicking(), "a supervisor outlives the test");
    }
}

fn await_quiet(mut done: impl FnMut() -> bool) -> bool {
    (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(5)); // the polling interval of an awaited condition
        done()
    })
}

/// The supervisor that answers for the node now.
fn supervisor(node: &Node) -> Option<u32> {
    let (ok, text) = node.command(&["status", "--json"]);
    let all: serde_json::Value = serde_json::from_str(&text).ok().filter(|_| ok)?;
    Some(all["node"]["pid"].as_u64()? as u32)
}

fn await_successor(node: &Node, before: u32) -> u32 {
    await_some("the next supervisor", || supervisor(node).filter(|pid| *pid != before))
}

/// `relais run --upgrade` beside the node, to its end.
fn upgrade_in_vain(node: &Node, plan: &Path) -> Output {
    let mut command = Command::new(RELAIS);
    command.args(["run", "--upgrade", "--node", "here", "--run-dir"]).arg(node.run_dir()).arg(plan);
    command.stdin(Stdio::null()).output().unwrap()
}

/// A server that changes to a protocol of its own and then gives every line back.
fn echo_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut lines = BufReader::new(stream.try_clone().unwrap());
                let (mut stream, mut line, mut upgraded) = (stream, String::new(), false);
                while lines.read_line(&mut line).is_ok_and(|n| n > 0) {
                    if upgraded {
                        stream.write_all(line.as_bytes()).unwrap();
                    } else if line == "\r\n" {
                        let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n";
                        stream.write_all(head.as_bytes()).unwrap();
                        upgraded = true;
                    }
                    line.clear();
                }
            });
        }
    });
    address
}

/// A connection that changed its protocol, as a WebSocket does.
struct Socket(BufReader<TcpStream>);

impl Socket {
    fn open(node: &Node) -> Socket {
        let mut stream = TcpStream::connect(node.web).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
            .write_all(b"GET /ws HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            .unwrap();
        let mut socket = Socket(BufReader::new(stream));
        assert!(socket.line().unwrap().starts_with("HTTP/1.1 101"));
        while socket.line().unwrap() != "\r\n" {}
        socket
    }

    fn line(&mut self) -> std::io::Result<String> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        Ok(line)
    }

    fn echoes(&mut self, word: &str) -> bool {
        let line = format!("{word}\n");
        self.0.get_mut().write_all(line.as_bytes()).is_ok() && self.line().is_ok_and(|back| back == line)
    }
}

/// A node whose only server gives back what a changed protocol brings.
fn node_with_echo(more: &str) -> Node {
    let server = echo_server();
    let prepared = Node::prepare(|web, admin| {
        format!(
            "platform test {{\n admin \"{admin}\"\n access-log off\n drain \"2s\"\n {more}\n}}\n\
             node here {{ link \"127.0.0.1\"; }}\nfrontend web {{\n bind \"{web}\"\n default-backend app\n}}\n\
             backend app {{\n server s \"{server}\"\n}}\n"
        )
    });
    prepared.run(Path::new(RELAIS), &[])
}

/// Requests on connections that are kept for as long as they are, until told to stop: answers, connections,
/// and what went wrong.
fn ask_on_kept_connections(stop: &AtomicBool, address: SocketAddr) -> (u32, u32, Vec<String>) {
    let (mut answers, mut connections, mut failures) = (0, 0, Vec::new());
    while !stop.load(Ordering::Relaxed) {
        connections += 1;
        let mut stream = BufReader::new(TcpStream::connect(address).unwrap());
        stream.get_mut().set_read_timeout(Some(PATIENCE)).unwrap();
        loop {
            let mut once = || -> std::io::Result<bool> {
                stream.get_mut().write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
                let (mut close, mut length, mut line) = (false, 0, String::new());
                while stream.read_line(&mut line)? > 0 && line != "\r\n" {
                    let lower = line.to_ascii_lowercase();
                    close |= lower.starts_with("connection: close");
                    if let Some(value) = lower.strip_prefix("content-length: ") {
                        length = value.trim().parse().map_err(std::io::Error::other)?;
                    }
                    line.clear();
                }
                stream.read_exact(&mut vec![0; length])?;
                if length == 0 { Err(std::io::ErrorKind::UnexpectedEof.into()) } else { Ok(close) }
            };
            match once() {
                Ok(close) => {
                    answers += 1;
                    if close || stop.load(Ordering::Relaxed) {
                        break;
                    }
                }
                Err(error) => {
                    failures.push(error.to_string());
                    break;
                }
            }
        }
    }
    (answers, connections, failures)
}

#[test]
fn an_upgrade_costs_no_request_on_new_or_kept_connections() {
    let origin = Origin::start("hello");
    let mut node = Upgraded(Node::start(&[&origin]));
    let first = node.0.process.id();
    let stop = AtomicBool::new(false);
    let seen = AtomicU32::new(0);
    std::thread::scope(|scope| {
        let kept: Vec<_> =
            (0..2).map(|_| scope.spawn(|| ask_on_kept_connections(&stop, node.0.web))).collect();
        let (answers, failures) = under_load(&node.0, || {
            let mut before = first;
            for _ in 0..2 {
                node.0.signal(before, Signal::USR2);
                before = await_successor(&node.0, before);
                node.0.await_log(&format!("has taken over from pid {}", first));
                await_some("an answer", || (get(node.0.web, "/").ok()?.0 == 200).then_some(()));
            }
            await_some("the end of the first version", || {
                let stat = std::fs::read_to_string(format!("/proc/{first}/stat"));
                stat.map_or(Some(()), |stat| stat.contains(") Z ").then_some(()))
            });
        });
        stop.store(true, Ordering::Relaxed);
        assert!(answers > 0);
        assert_eq!(failures, Vec::<String>::new());
        for thread in kept {
            let (answers, connections, failures) = thread.join().unwrap();
            assert_eq!(failures, Vec::<String>::new());
            assert!(answers > connections, "{connections} connections for {answers} answers");
            seen.fetch_add(answers, Ordering::Relaxed);
        }
    });
    assert!(seen.load(Ordering::Relaxed) > 0);
    assert!(node.0.await_exit().success(), "the first version ends by itself");
}

#[test]
fn an_upgrade_costs_no_question_by_udp() {
    let server = echo_datagrams();
    let prepared = Node::prepare(|web, admin| udp_plan(web, admin, server, ""));
    let mut node = Upgraded(prepared.run(Path::new(RELAIS), &[]));
    let first = node.0.process.id();
    let (answered, lost) = under_udp_load(node.0.web, PATIENCE, || {
        let mut before = first;
        for _ in 0..2 {
            node.0.signal(before, Signal::USR2);
            before = await_successor(&node.0, before);
            await_some("the end of the version before", || {
                let status = node.0.proxy()?;
                (!status.draining && status.frontends[0].datagrams_out_total > 100).then_some(())
            });
        }
    });
    assert_eq!(lost, [0, 0, 0], "of {answered}");
    assert!(answered > 200);
    assert!(node.0.await_exit().success(), "the first version ends by itself");
}

#[test]
fn a_socket_that_changed_its_protocol_outlives_the_version_that_took_it() {
    let mut node = Upgraded(node_with_echo(""));
    let mut old = Socket::open(&node.0);
    assert!(old.echoes("before"));
    node.0.signal(node.0.process.id(), Signal::USR2);
    await_successor(&node.0, node.0.process.id());
    node.0.await_log("the new version serves");
    let mut new = Socket::open(&node.0);
    assert!(old.echoes("after") && new.echoes("new"));
    assert!(node.0.process.try_wait().unwrap().is_none(), "the old version stays for its connection");
    drop(old);
    assert!(node.0.await_exit().success());
    assert!(new.echoes("still"));
}

#[test]
fn a_replaced_generation_ends_what_is_open_at_its_hard_stop() {
    let mut node = Upgraded(node_with_echo("hard-stop-after \"1s\""));
    let mut old = Socket::open(&node.0);
    node.0.signal(node.0.process.id(), Signal::USR2);
    assert!(node.0.await_exit().success());
    assert_eq!(old.line().unwrap_or_default(), "", "it was cut");
    node.0.await_log("1 connections were still open after the drain and were cut");
    assert!(Socket::open(&node.0).echoes("the next"));
}

#[test]
fn what_the_checks_know_and_the_access_log_go_to_the_next_version() {
    let (dead, alive) =
        (TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap(), Origin::start("hello"));
    let prepared = Node::prepare(|web, admin| {
        let log = std::env::temp_dir().join(format!("relais-upgrade-{}.log", std::process::id()));
        let log = log.display();
        format!(
            "platform test {{\n admin \"{admin}\"\n access-log \"{log}\"\n drain \"5s\"\n}}\n\
             node here {{ link \"127.0.0.1\"; }}\nfrontend web {{\n bind \"{web}\"\n default-backend app\n}}\n\
             backend app {{\n check tcp every=\"1h\" fall=1\n server dead \"{dead}\"\n server alive \"{}\"\n}}\n",
            alive.address
        )
    });
    let log: PathBuf = std::env::temp_dir().join(format!("relais-upgrade-{}.log", std::process::id()));
    let node = Upgraded(prepared.run(Path::new(RELAIS), &[]));
    node.0.await_log("server dead is down");
    std::fs::remove_file(&log).unwrap(); // a log that is opened by name would be made anew
    let node_before = node.0.process.id();
    node.0.signal(node_before, Signal::USR2);
    await_successor(&node.0, node_before);
    for _ in 0..4 {
        assert_eq!(get(node.0.web, "/").unwrap(), (200, "hello".to_owned()));
    }
    let proxy = node.0.proxy().unwrap();
    let dead = proxy.backends[0].servers.iter().find(|server| server.name == "dead").unwrap();
    assert!(!dead.up && dead.sessions_total == 0, "{dead:?}");
    assert!(!log.exists());
}

/// The servers that users have by a stick table, the last one asked first: whoever only takes turns gives others.
fn stuck_to(web: SocketAddr, users: std::ops::Range<usize>) -> Vec<String> {
    let ask = |user: usize| {
        let answer = || get(web, &format!("/?id={user}")).ok().filter(|(status, _)| *status == 200);
        await_some("an answer", answer).1
    };
    let mut all: Vec<String> = users.rev().map(ask).collect();
    all.reverse();
    all
}

#[test]
fn a_stick_table_outlives_a_killed_proxy_and_an_upgrade() {
    let origins = ["one", "two", "six"].map(Origin::start);
    let origins: Vec<&Origin> = origins.iter().collect();
    let stick =
        |web, admin| plan(web, admin, &origins, "").replace("retries 3", "stick query name=id\n retries 3");
    let node = Upgraded(Node::prepare(stick).run(Path::new(RELAIS), &[]));
    let entries = |of: u64| {
        let known = || node.0.proxy()?.backends.first()?.table.as_ref().map(|table| table.entries);
        await_some("the table", || known().filter(|known| *known == of));
    };
    let ask_in_turn =
        |users: std::ops::Range<usize>| users.for_each(|user| drop(stuck_to(node.0.web, user..user + 1)));
    ask_in_turn(0..20);
    let first = stuck_to(node.0.web, 0..20);
    // Nothing says when the last change is written; it takes 50 ms.
    std::thread::sleep(Duration::from_secs(1));
    let proxy = node.0.pid(Role::Proxy).unwrap();
    node.0.signal(proxy, Signal::KILL);
    await_some("the next proxy", || node.0.proxy().filter(|next| next.pid != proxy));
    entries(20);
    assert_eq!(stuck_to(node.0.web, 0..20), first);
    ask_in_turn(20..31);
    let all = stuck_to(node.0.web, 0..31);
    std::thread::sleep(Duration::from_secs(1)); // as above
    let before = node.0.process.id();
    node.0.signal(before, Signal::USR2);
    await_successor(&node.0, before);
    entries(31);
    assert_eq!(stuck_to(node.0.web, 0..31), all);
}

#[test]
fn a_plan_that_cannot_be_put_in_force_leaves_the_old_version_serving() {
    let origin = Origin::start("hello");
    let node = Upgraded(Node::start(&[&origin]));
    let bad = node.0.dir.join("bad.kdl");
    std::fs::write(&bad, plan(node.0.web, node.0.admin, &[&origin], "timeout reqest=\"1s\"")).unwrap();
    let output = upgrade_in_vain(&node.0, &bad);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("bad.kdl:10:10"), "{said}");
    node.0.await_log("the upgrade failed, and relais");
    assert_eq!(supervisor(&node.0), Some(node.0.process.id()));
    assert_eq!(get(node.0.web, "/").unwrap().0, 200);
    // And nothing of it stands in the way of the next one.
    node.0.signal(node.0.process.id(), Signal::USR2);
    await_successor(&node.0, node.0.process.id());
}

#[test]
fn an_upgrade_by_hand_needs_a_node_of_that_name_that_runs() {
    let origin = Origin::start("hello");
    let node = Upgraded(Node::start(&[&origin]));
    let other = node.0.dir.join("other.kdl");
    let text = plan(node.0.web, node.0.admin, &[&origin], "").replace("node here", "node there");
    std::fs::write(&other, text).unwrap();
    let run = |dir: &Path, name: &str| {
        let mut command = Command::new(RELAIS);
        command.args(["run", "--upgrade", "--node", name, "--run-dir"]).arg(dir).arg(&other);
        let output = command.stdin(Stdio::null()).output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = run(&node.0.run_dir(), "there");
    assert!(said.contains("the node that runs here is here"), "{said}");
    let said = run(&node.0.dir, "there");
    assert!(said.contains("no relais runs in") && said.contains("without --upgrade"), "{said}");
}

/// A node that was started from a binary of its own, which is then replaced by `script`.
fn node_with_next_version(origin: &Origin, script: &str) -> Upgraded {
    let prepared = Node::prepare(|web, admin| plan(web, admin, &[origin], ""));
    let binary = prepared.dir.join("relais");
    std::fs::copy(RELAIS, &binary).unwrap();
    let node = prepared.run(&binary, &[]);
    let next = node.dir.join("next");
    std::fs::write(&next, script).unwrap();
    std::fs::set_permissions(&next, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&next, &binary).unwrap();
    Upgraded(node)
}

#[test]
fn a_new_binary_that_cannot_start_is_named_and_the_old_one_goes_on() {
    let origin = Origin::start("hello");
    let node = node_with_next_version(&origin, "#!/bin/sh\nexit 3\n");
    node.0.signal(node.0.process.id(), Signal::USR2);
    node.0.await_log("relais ended with status 3 before it took over");
    assert_eq!(supervisor(&node.0), Some(node.0.process.id()));
    assert_eq!(get(node.0.web, "/").unwrap().0, 200);
}

#[test]
fn the_binary_that_stands_in_the_old_ones_place_takes_over() {
    let origin = Origin::start("hello");
    let node = node_with_next_version(
        &origin,
        &format!("#!/bin/sh\necho the next version >&2\nexec {RELAIS} \"$@\"\n"),
    );
    node.0.signal(node.0.process.id(), Signal::USR2);
    await_successor(&node.0, node.0.process.id());
    node.0.await_log("the next version");
    assert_eq!(get(node.0.web, "/").unwrap().0, 200);
}

/// Becomes the heir of a node, up to the end of its legacy.
async fn ask_for_the_node(node: &Node) -> (Channel, Vec<Legacy>) {
    let channel = Channel::connect(&node.run_dir().join("relais.sock")).unwrap();
    let ask = Ask::Upgrade { node: "here".into(), version: "test".into() };
    channel.send(&ask, None).await.unwrap();
    let mut legacy = Vec::new();
    while let Some((piece, _)) = channel.recv::<Legacy>().await.unwrap() {
        let last = matches!(piece, Legacy::Complete | Legacy::Withdrawn { .. });
        legacy.push(piece);
        if last {
            break;
        }
    }
    (channel, legacy)
}

fn block_on<T>(future: impl std::future::Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

#[test]
fn two_upgrades_at_once_are_refused() {
    let origin = Origin::start("hello");
    let node = Upgraded(Node::start(&[&origin]));
    block_on(async {
        let (heir, legacy) = ask_for_the_node(&node.0).await;
        assert!(legacy.iter().any(|piece| matches!(piece, Legacy::Listener { .. })), "{legacy:?}");
        let (_, refused) = ask_for_the_node(&node.0).await;
        let [Legacy::Withdrawn { why }] = refused.as_slice() else { panic!("{refused:?}") };
        assert!(why.contains("another upgrade is on its way"), "{why}");
        drop(heir);
    });
    node.0.signal(node.0.process.id(), Signal::USR2);
    node.0.await_log("the upgrade failed, and relais");
    // What was in the way is gone.
    await_some("the next supervisor", || {
        node.0.signal(node.0.process.id(), Signal::USR2);
        supervisor(&node.0).filter(|pid| *pid != node.0.process.id())
    });
}

#[test]
fn an_heir_that_dies_between_the_old_vip_and_its_own_costs_nothing() {
    let origin = Origin::start("hello");
    let node = Upgraded(Node::start(&[&origin]));
    let vip = node.0.pid(Role::Vip).unwrap();
    let (answers, failures) = under_load(&node.0, || {
        block_on(async {
            let (heir, _) = ask_for_the_node(&node.0).await;
            heir.send(&Heir::Prepared { vip_pid: None }, None).await.unwrap();
            let yours = heir.recv::<Legacy>().await.unwrap().unwrap().0;
            assert!(matches!(yours, Legacy::Yours { .. }), "{yours:?}");
        });
        await_some("the next vip", || node.0.pid(Role::Vip).filter(|pid| *pid != vip));
    });
    assert!(answers > 0);
    assert_eq!(failures, Vec::<String>::new());
    node.0.await_log("the new process died");
    assert_eq!(supervisor(&node.0), Some(node.0.process.id()));
}

#[test]
fn a_version_that_loses_its_predecessor_on_the_way_goes_on_alone() {
    let origin = Origin::start("hello");
    let prepared = Node::prepare(|web, admin| plan(web, admin, &[&origin], ""));
    let run_dir = prepared.dir.join("run");
    std::fs::create_dir_all(&run_dir).unwrap();
    let (web, dir) = (prepared.web, prepared.dir.clone());
    let mut command = Command::new(RELAIS);
    command.args(["run", "--upgrade", "--node", "here", "--run-dir"]).arg(&run_dir);
    command.arg(dir.join("plan.kdl")).stdin(Stdio::null());
    let mut heir = block_on(async {
        let listener = relais_ipc::channel::Listener::bind(&run_dir.join("relais.sock")).unwrap();
        let heir = command.spawn().unwrap();
        let channel = listener.accept().await.unwrap();
        assert!(matches!(channel.recv::<Ask>().await.unwrap(), Some((Ask::Upgrade { .. }, _))));
        let node = Legacy::Node {
            workers: 1,
            generation: 6,
            pid: 0,
            vip_pid: None,
            notify: None,
            watchdog_us: None,
        };
        channel.send(&node, None).await.unwrap();
        channel.send(&Legacy::Unknown, None).await.unwrap(); // what a later version might add
        channel.send(&Legacy::Complete, None).await.unwrap();
        let prepared = channel.recv::<Heir>().await.unwrap();
        assert!(matches!(prepared, Some((Heir::Prepared { vip_pid: Some(_) }, _))), "{prepared:?}");
        heir
    });
    let answer = await_some("an answer", || get(web, "/").ok());
    assert_eq!(answer, (200, "hello".to_owned()));
    await_some("its readiness", || {
        let output = Command::new(RELAIS).args(["status", "--run-dir"]).arg(&run_dir).output().unwrap();
        String::from_utf8_lossy(&output.stdout).contains("(generation 7)").then_some(())
    });
    heir.kill().unwrap();
    heir.wait().unwrap();
    let _ = std::fs::remove_dir_all(dir);
}

#[test]
fn systemd_hears_of_the_new_main_process_from_the_old_one() {
    let origin = Origin::start("hello");
    let prepared = Node::prepare(|web, admin| plan(web, admin, &[&origin], ""));
    let path = prepared.dir.join("notify");
    let systemd = UnixDatagram::bind(&path).unwrap();
    systemd.set_read_timeout(Some(PATIENCE)).unwrap();
    let environment = [("NOTIFY_SOCKET", path.to_str().unwrap()), ("WATCHDOG_USEC", "40000000")];
    let node = Upgraded(prepared.run(Path::new(RELAIS), &environment));
    let next = || loop {
        let mut buffer = [0; 512];
        let n = systemd.recv(&mut buffer).unwrap();
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        if text != "WATCHDOG=1" {
            return text;
        }
    };
    assert!(next().starts_with("READY=1"));
    // By hand, from a shell that knows nothing of systemd.
    let plan = node.0.dir.join("plan.kdl");
    let mut heir = Command::new(RELAIS)
        .args(["run", "--upgrade", "--node", "here", "--run-dir"])
        .arg(node.0.run_dir())
        .arg(plan)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    assert_eq!(next(), format!("MAINPID={}", heir.id()));
    assert!(next().starts_with("READY=1"));
    assert_eq!(await_successor(&node.0, node.0.process.id()), heir.id());
    drop(node);
    heir.wait().unwrap();
}

/// Two machines on one cable, as network namespaces; removed on drop.
struct Cable([String; 2]);

impl Cable {
    fn new() -> Cable {
        let cable = Cable([0, 1].map(|i| format!("rlxupg-{}-{i}", std::process::id())));
        let [a, b] = &cable.0;
        let lines = [
            format!("netns add {a}"),
            format!("netns add {b}"),
            format!("-n {a} link add eth0 type veth peer name eth0 netns {b}"),
        ];
        lines.iter().for_each(|line| ip(line));
        for (i, name) in cable.0.iter().enumerate() {
            ip(&format!("-n {name} link set lo up"));
            ip(&format!("-n {name} address add 10.9.0.{}/24 dev eth0", i + 1));
            ip(&format!("-n {name} link set eth0 up"));
        }
        cable
    }

    /// What this thread makes from here on is on that machine.
    fn enter(&self, i: usize) {
        use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
        let namespace = std::fs::File::open(format!("/run/netns/{}", self.0[i])).unwrap();
        let namespace = std::os::fd::AsFd::as_fd(&namespace);
        move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network)).unwrap();
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        for name in &self.0 {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

fn ip(line: &str) {
    assert!(Command::new("ip").args(line.split(' ')).status().unwrap().success(), "ip {line}");
}

fn vip_of(run_dir: &Path) -> Option<relais_ipc::status::VipStatus> {
    let status: relais_ipc::status::VipsStatus =
        relais_ipc::status::fetch(&run_dir.join("vip.sock"), Duration::from_secs(1)).ok()?;
    status.vips.into_iter().next()
}

#[test]
fn a_virtual_address_stays_where_it_is_through_an_upgrade() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root, and CI must not skip it");
        eprintln!("SKIPPED: this test needs root");
        return;
    }
    use relais_ipc::VipState;
    let cable = Cable::new();
    let origin = "127.0.0.1:1";
    let text = |web: SocketAddr, admin: SocketAddr| {
        format!(
            "platform test {{ admin \"{admin}\"; access-log off; drain \"1s\"; }}\n\
             node here {{ link \"10.9.0.1\"; }}\nnode there {{ link \"10.9.0.2\"; }}\n\
             vip public {{\n address \"10.9.0.100/24\" interface=eth0\n router-id 7\n node here priority=110\n \
             node there priority=100\n advertise \"50ms\"\n track frontend=web\n}}\n\
             frontend web {{ on here there; bind \"{web}\"; default-backend app; }}\n\
             backend app {{ server s \"{origin}\"; }}\n"
        )
    };
    cable.enter(0);
    let node = Upgraded(Node::prepare(text).run(Path::new(RELAIS), &[]));
    await_some("the address", || vip_of(&node.0.run_dir()).filter(|vip| vip.state == VipState::Master));
    cable.enter(1);
    let peer_dir = node.0.dir.join("peer");
    let mut peer = Command::new(RELAIS)
        .args(["run", "--node", "there", "--run-dir"])
        .arg(&peer_dir)
        .arg(node.0.dir.join("plan.kdl"))
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    await_some("the peer", || {
        vip_of(&peer_dir).filter(|vip| vip.state == VipState::Backup && vip.adverts_received_total > 0)
    });
    let mut news = Command::new("ip");
    news.args(["-n", &cable.0[0], "monitor", "address"]).stdout(Stdio::piped());
    let mut news = news.spawn().unwrap();
    let mut before = node.0.process.id();
    for _ in 0..2 {
        node.0.signal(before, Signal::USR2);
        before = await_successor(&node.0, before);
        let held = await_some("the new vip", || vip_of(&node.0.run_dir()));
        assert_eq!(held.state, VipState::Master, "{held:?}");
    }
    let peer_saw = await_some("the peer's view", || vip_of(&peer_dir));
    assert_eq!((peer_saw.state, peer_saw.became_master_total), (VipState::Backup, 0), "{peer_saw:?}");
    news.kill().unwrap();
    let mut said = String::new();
    news.stdout.take().unwrap().read_to_string(&mut said).unwrap();
    news.wait().unwrap();
    assert!(!said.contains("Deleted"), "{said}");
    peer.kill().unwrap();
    peer.wait().unwrap();
}
