//! One node, run for real without root: `relais run` with its four processes, an origin made here, and the
//! deaths, reloads and stops that an operator will see.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod node;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use node::{Node, Origin, await_some, await_standstill, free_port, get, plan, under_load};
use relais_ipc::Role;

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
fn a_standby_is_kept_over_an_upgrade_and_a_restart_and_said_until_it_ends() {
    let origin = Origin::start("hello");
    let mut node = Node::start(&[&origin]);
    let (ok, text) = node.command(&["standby", "there"]);
    assert!(!ok && text.contains("this machine is here: say `relais standby` on there"), "{text}");
    let (ok, text) = node.command(&["move", "public", "here"]);
    assert!(!ok && text.contains("there is no vip public"), "{text}");
    let (ok, text) = node.command(&["standby", "here"]);
    assert!(ok && text.contains("it takes no address until `relais ready`"), "{text}");
    node.await_log("standby: asked for by ");
    let kept = std::fs::read_to_string(node.run_dir().join("moves.json")).unwrap();

    let before = node.status().pid;
    node.signal(before, rustix::process::Signal::USR2);
    await_some("the next version", || {
        let (ok, text) = node.command(&["status", "--json"]);
        (ok && !text.contains(&format!("\"pid\": {before},"))).then_some(())
    });
    let (_, text) = node.command(&["status"]);
    assert!(text.contains("in STANDBY for "), "{text}");
    assert_eq!(std::fs::read_to_string(node.run_dir().join("moves.json")).unwrap(), kept);

    node.signal(node.status().pid, rustix::process::Signal::TERM);
    node.await_exit();
    let lock = node.run_dir().join("relais.lock");
    await_some("the end of the node", || std::fs::File::open(&lock).ok()?.try_lock().ok());
    let again = node.again();
    let (_, text) = again.command(&["status"]);
    assert!(text.contains("in STANDBY for ") && text.contains("`relais ready` ends it"), "{text}");
    assert_eq!(std::fs::read_to_string(again.run_dir().join("moves.json")).unwrap(), kept);
    let (ok, text) = again.command(&["ready"]);
    assert!(ok && text.contains("this node is ready"), "{text}");
    assert_eq!(again.status().standby, None);
    assert!(!again.run_dir().join("moves.json").exists());
}

#[test]
fn a_proxy_that_hangs_is_replaced() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let before = node.pid(Role::Proxy).unwrap();
    // Stopped, it holds its connections and its listeners and says nothing, as one that is blocked.
    node.signal(before, rustix::process::Signal::STOP);
    await_standstill(before);
    let start = Instant::now();
    assert_eq!(get(node.web, "/").unwrap().0, 200);
    assert!(start.elapsed() >= Duration::from_secs(2), "only {:?} of patience", start.elapsed());
    node.await_log("is stopped and has not moved for 3.0 s; it is killed");
    let after = await_some("the next proxy", || node.pid(Role::Proxy).filter(|pid| *pid != before));
    // One that works is left alone, for longer than the silence that is fatal.
    std::thread::sleep(Duration::from_secs(4));
    assert_eq!(node.pid(Role::Proxy), Some(after));
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
fn the_supervisors_signals_end_no_child() {
    use rustix::process::Signal;
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let children = || [Role::Proxy, Role::Vip, Role::Control].map(|role| node.pid(role).unwrap());
    let before = children();
    for pid in before {
        for signal in [Signal::INT, Signal::HUP, Signal::USR1, Signal::USR2] {
            node.signal(pid, signal);
        }
    }
    let (answers, failures) = under_load(&node, || (0..20).for_each(|_| drop(node.status())));
    assert!(answers > 0 && failures.is_empty(), "{failures:?}");
    assert_eq!(children(), before, "{}", node.log());
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

#[test]
fn a_signal_opens_the_access_log_anew_and_a_reload_does() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let log = node.dir.join("access.log");
    let with_log = plan(node.web, node.admin, &[&origin], "")
        .replace("access-log off", &format!("access-log \"{}\"", log.display()));
    std::fs::write(node.dir.join("plan.kdl"), with_log).unwrap();
    let supervisor = node.process.id();
    node.signal(supervisor, rustix::process::Signal::HUP);
    await_some("the plan with a log", || (node.status().generation == 2).then_some(()));
    let lines = |path: &std::path::Path| std::fs::read_to_string(path).unwrap_or_default().lines().count();
    let ask_and_find = |path: &std::path::Path, n: usize| {
        assert_eq!(get(node.web, "/").unwrap().0, 200);
        await_some("the access line", || (lines(path) == n).then_some(()));
    };
    ask_and_find(&log, 1);
    for (round, signal) in
        [rustix::process::Signal::USR1, rustix::process::Signal::HUP].into_iter().enumerate()
    {
        let old = node.dir.join(format!("access.log.{round}"));
        std::fs::rename(&log, &old).unwrap();
        node.signal(supervisor, signal);
        await_some("the new file", || log.exists().then_some(()));
        if signal == rustix::process::Signal::HUP {
            await_some("the reloaded plan", || (node.status().generation == 3).then_some(()));
        } else {
            node.await_log("access logs are opened anew");
            // It is in the proxy once that has answered something that was sent after it.
            await_some("the proxy's answer", || node.proxy());
        }
        let before = lines(&old);
        assert_eq!(get(node.web, "/").unwrap().0, 200);
        await_some("the access line, in either file", || (lines(&log) + lines(&old) > before).then_some(()));
        ask_and_find(&log, lines(&log) + 1);
    }
}

/// A certificate for `name` with its key, in one PEM file that only its owner may read.
fn certificate(path: &std::path::Path, name: &str) {
    use std::os::unix::fs::PermissionsExt;
    let (subject, key) = (format!("/CN={name}"), path.with_extension("key"));
    let made = std::process::Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", &subject, "-addext", &format!("subjectAltName=DNS:{name}")])
        .args(["-keyout", key.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let text = [made.stdout, std::fs::read(&key).unwrap()].concat();
    // As a careful tool replaces a file: whole, by a rename.
    let fresh = path.with_extension("fresh");
    std::fs::write(&fresh, text).unwrap();
    std::fs::set_permissions(&fresh, std::fs::Permissions::from_mode(0o600)).unwrap();
    std::fs::rename(&fresh, path).unwrap();
}

/// What openssl sees of the certificate on `port`, and that it is answered there.
fn presented(address: std::net::SocketAddr) -> Option<String> {
    use std::io::Write;
    let mut client = std::process::Command::new("openssl")
        .args(["s_client", "-quiet", "-ign_eof", "-connect", &address.to_string()])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let request = b"GET / HTTP/1.1\r\nHost: h.test\r\nConnection: close\r\n\r\n";
    let _ = client.stdin.take().unwrap().write_all(request);
    let out = client.wait_with_output().unwrap();
    let (said, answer) = (String::from_utf8_lossy(&out.stderr), String::from_utf8_lossy(&out.stdout));
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let name = said.lines().find_map(|line| line.rsplit_once("CN = ").map(|(_, name)| name.to_owned()));
    name.filter(|_| !answer.is_empty())
}

#[test]
fn a_certificate_renewed_on_the_disk_is_used_by_itself() {
    let origin = Origin::start("hello");
    let node = Node::start(&[&origin]);
    let pem = node.dir.join("www.pem");
    certificate(&pem, "first.test");
    let secure = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let file = node.dir.join("tls.kdl");
    let bind = format!("bind \"{secure}\" {{ tls {{ certificate \"{}\"; }} }}", pem.display());
    std::fs::write(&file, plan(node.web, node.admin, &[&origin], &bind)).unwrap();
    let (ok, text) = node.command(&["apply", file.to_str().unwrap()]);
    assert!(ok, "{text}");
    assert_eq!(presented(secure).as_deref(), Some("first.test"));

    std::fs::write(&pem, "nothing of use").unwrap();
    node.await_log("what was read before stays in use");
    assert_eq!(presented(secure).as_deref(), Some("first.test"));
    // And a new proxy gets what was good.
    let before = node.pid(Role::Proxy).unwrap();
    node.signal(before, rustix::process::Signal::KILL);
    await_some("the next proxy", || node.pid(Role::Proxy).filter(|pid| *pid != before));
    assert_eq!(presented(secure).as_deref(), Some("first.test"));

    certificate(&pem, "second.test");
    await_some("the new certificate", || presented(secure).filter(|name| name == "second.test").map(drop));
}
