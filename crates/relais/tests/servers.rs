//! What operators do to servers of a running node: `relais drain`, `ready`, `down`, `weight`, `add-server`,
//! `remove-server` and `reset`, under load, over the deaths of processes, reloads, upgrades and restarts.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod node;

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use node::{Node, Origin, PATIENCE, await_some, get, plan, under_load};
use relais_ipc::Role;
use relais_ipc::status::ServerStatus;

fn server(node: &Node, name: &str) -> Option<ServerStatus> {
    node.proxy()?.backends.into_iter().flat_map(|backend| backend.servers).find(|server| server.name == name)
}

fn command(node: &Node, arguments: &[&str]) -> String {
    let (ok, text) = node.command(arguments);
    assert!(ok, "{arguments:?}: {text}");
    text
}

/// Bodies of the next answers, all of which are 200.
fn bodies(node: &Node, number: usize) -> Vec<String> {
    let one = |_| {
        let (status, body) = get(node.web, "/").unwrap();
        assert_eq!(status, 200, "{body}");
        body
    };
    let mut bodies: Vec<String> = (0..number).map(one).collect();
    bodies.sort();
    bodies
}

#[test]
fn servers_are_drained_weighed_added_and_taken_out_without_a_failed_request() {
    let (a, b, c) = (Origin::start("a"), Origin::start("b"), Origin::start("c"));
    let node = Node::start(&[&a, &b]);
    let mut changed = Ok(());
    let change = || {
        command(&node, &["drain", "app/s0"]);
        assert_eq!(bodies(&node, 6), ["b"; 6]);
        command(&node, &["ready", "app/s0"]);
        command(&node, &["weight", "app/s0", "3"]);
        assert_eq!(server(&node, "s0").unwrap().weight, 3);
        command(&node, &["add-server", "app/s2", &c.address.to_string(), "--weight", "2"]);
        await_some("the new server's turn", || (get(node.web, "/").unwrap().1 == "c").then_some(()));
        command(&node, &["remove-server", "app/s0"]);
        command(&node, &["remove-server", "app/s1"]);
        assert_eq!(bodies(&node, 6), ["c"; 6]);
        let (ok, text) = node.command(&["remove-server", "app/s2"]);
        assert!(!ok && text.contains("the only server"), "{text}");
        command(&node, &["reset"]);
        for origin in ["a", "b"] {
            await_some("the file's servers", || (get(node.web, "/").unwrap().1 == origin).then_some(()));
        }
    };
    // What fails in there must not leave the load going on for ever.
    let caught = std::panic::AssertUnwindSafe(change);
    let (answers, failures) = under_load(&node, || changed = std::panic::catch_unwind(caught));
    changed.unwrap();
    assert!(answers > 0 && failures.is_empty(), "{answers} answers, {failures:?}");
    let log = node.log();
    assert!(log.contains("command by user ") && log.contains(": drain app/s0"), "{log}");
}

#[test]
fn what_waits_for_a_server_that_is_put_down_is_answered_by_another() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let other = Origin::start("other");
    let prepared = Node::prepare(|web, admin| {
        let text = plan(web, admin, &[], "")
            .replace("check http path=\"/healthz\" every=\"100ms\" fall=1 rise=1", "");
        let servers = format!(
            " server s0 \"{}\"\n server s1 \"{}\" backup=yes\n}}\n",
            silent.local_addr().unwrap(),
            other.address
        );
        text.trim_end().trim_end_matches('}').to_owned() + &servers
    });
    let node = prepared.run(Path::new(env!("CARGO_BIN_EXE_relais")), &[]);
    let mut client = TcpStream::connect(node.web).unwrap();
    client.set_read_timeout(Some(PATIENCE)).unwrap();
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let (mut held, _) = silent.accept().unwrap();
    assert!(held.read(&mut [0; 16]).unwrap() > 0, "the request is there");
    command(&node, &["down", "app/s0"]);
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("other"), "{answer}");
    let text = command(&node, &["status"]);
    assert!(
        text.contains("changed by an operator: down app/s0") && text.contains("put down by an operator"),
        "{text}"
    );
    let (_, metrics) = get(node.admin, "/metrics").unwrap();
    assert!(
        metrics.contains("haproxy_server_status{proxy=\"app\",server=\"s0\",state=\"MAINT\"} 1"),
        "{metrics}"
    );
}

#[test]
fn a_table_shows_who_stays_where_and_forgets_them() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let stick =
        |web, admin| plan(web, admin, &[&a, &b], "").replace("retries 3", "stick query name=id\n retries 3");
    let node = Node::prepare(stick).run(Path::new(env!("CARGO_BIN_EXE_relais")), &[]);
    let refused = |arguments: &[&str], why: &str| {
        let (ok, text) = node.command(arguments);
        assert!(!ok && text.contains(why), "{arguments:?}: {text}");
    };
    assert_eq!(command(&node, &["table", "app"]), "table of app: 0 of 20480 keys\n");
    for user in 0..6 {
        assert_eq!(get(node.web, &format!("/?id=user{user}")).unwrap().0, 200);
    }
    // Nothing says when the last change is written; it takes 50 ms.
    let shown = await_some("six keys", || {
        let shown = command(&node, &["table", "app"]);
        shown.starts_with("table of app: 6 of 20480 keys\n").then_some(shown)
    });
    let rows: Vec<Vec<&str>> = shown.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert!(rows.iter().all(|row| row.len() == 5 && row[2..4] == ["for", "29m"]), "{shown}");
    let of = |server: &str| -> Vec<&str> {
        rows.iter().filter(|row| row[1] == server).map(|row| row[0]).collect()
    };
    let (first, second) = (of("s0"), of("s1"));
    assert!(first.len() >= 2 && second.len() >= 2 && first.len() + second.len() == 6, "{shown}");
    let one = command(&node, &["table", "app", second[0]]);
    let begin = format!("table of app: 6 of 20480 keys, 1 of them shown\n  {}  s1  ", second[0]);
    assert!(one.starts_with(&begin), "{one}");
    let json = command(&node, &["table", "app/s1", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let keys: Vec<&str> =
        json["keys"].as_array().unwrap().iter().map(|key| key["key"].as_str().unwrap()).collect();
    assert_eq!(keys, second);
    refused(&["table", "app", "user9"], "the table of app has no key user9");
    refused(&["table", "app/s9"], "backend app has no server `s9`; it has: s0, s1");
    refused(&["table", "web"], "there is no backend `web`; there are: app");
    // One is forgotten, then a server's, then all.
    let left = |many: u64| {
        let keys = || Some(node.proxy()?.backends.first()?.table.as_ref()?.entries);
        assert_eq!(keys(), Some(many));
        await_some("the table", || {
            command(&node, &["table", "app"]).starts_with(&format!("table of app: {many} of ")).then_some(())
        });
    };
    refused(&["clear-table", "app", "user9"], "the table of app has no key user9");
    refused(&["clear-table", "app/s1", first[0]], "the table of app/s1 has no key user");
    refused(&["clear-table", "app/s9"], "backend app has no server `s9`");
    left(6);
    assert_eq!(command(&node, &["clear-table", "app", first[0]]), "1 key is forgotten\n");
    left(5);
    let forgotten = format!("{} keys are forgotten\n", second.len());
    assert_eq!(command(&node, &["clear-table", "app/s1"]), forgotten);
    let rest = first.len() as u64 - 1;
    left(rest);
    let proxy = node.pid(Role::Proxy).unwrap();
    node.signal(proxy, rustix::process::Signal::KILL);
    await_some("the next proxy", || node.proxy().filter(|next| next.pid != proxy));
    await_some("what was left", || {
        command(&node, &["table", "app"]).starts_with(&format!("table of app: {rest} of ")).then_some(())
    });
    assert!(command(&node, &["clear-table", "app"]).ends_with("forgotten\n"));
    left(0);
    refused(&["clear-table", "app"], "the table of app has no keys");
    assert!(node.log().contains("the table of app is to forget all of server s1"));
}

#[test]
fn a_backend_without_a_table_has_none_to_show() {
    let a = Origin::start("a");
    let node = Node::start(&[&a]);
    for command in ["table", "clear-table"] {
        let (ok, text) = node.command(&[command, "app"]);
        assert!(
            !ok && text.contains("backend app keeps no table: clients stay by one where it says"),
            "{text}"
        );
    }
}

#[test]
fn what_an_operator_changed_outlives_deaths_reloads_upgrades_and_restarts() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let mut node = Node::start(&[&a, &b]);
    command(&node, &["down", "app/s0"]);
    command(&node, &["weight", "app/s1", "7"]);
    let holds = |node: &Node, what: &str| {
        await_some(what, || {
            let (s0, s1) = (server(node, "s0")?, server(node, "s1")?);
            (s0.admin == "down" && !s0.up && s1.weight == 7 && s1.up).then_some(())
        });
        assert_eq!(bodies(node, 4), ["b"; 4], "{what}");
        assert_eq!(node.status().overrides, ["down app/s0", "weight app/s1 7"], "{what}");
    };
    holds(&node, "the commands");
    let before = node.pid(Role::Proxy).unwrap();
    node.signal(before, rustix::process::Signal::KILL);
    await_some("the next proxy", || node.pid(Role::Proxy).filter(|pid| *pid != before));
    holds(&node, "the proxy's death");
    command(&node, &["apply", node.dir.join("plan.kdl").to_str().unwrap()]);
    holds(&node, "a reload");

    let before = node.status().pid;
    node.signal(before, rustix::process::Signal::USR2);
    await_some("the next version", || {
        let (ok, text) = node.command(&["status", "--json"]);
        (ok && !text.contains(&format!("\"pid\": {before},"))).then_some(())
    });
    holds(&node, "an upgrade");
    node.signal(node.status().pid, rustix::process::Signal::TERM);
    node.await_exit();
    let lock = node.run_dir().join("relais.lock");
    await_some("the end of the node", || std::fs::File::open(&lock).ok()?.try_lock().ok());
    let dir = std::mem::take(&mut node.dir);
    let again = node::Prepared { dir, web: node.web, admin: node.admin };
    let node = again.run(Path::new(env!("CARGO_BIN_EXE_relais")), &[]);
    holds(&node, "a restart");

    // A plan without the server says what that means.
    let file = node.dir.join("plan.kdl");
    std::fs::write(&file, plan(node.web, node.admin, &[&b], "")).unwrap();
    let text = command(&node, &["apply", file.to_str().unwrap()]);
    assert!(
        text.contains("`weight app/s1 7` is no longer in force: the plan has no such server any more"),
        "{text}"
    );
    assert_eq!(node.status().overrides, ["down app/s0"]);
    command(&node, &["ready", "app/s0"]);
    await_some("the server that is ready", || server(&node, "s0")?.up.then_some(()));
    assert_eq!(node.status().overrides, Vec::<String>::new());
}

#[test]
fn a_program_says_how_each_server_is() {
    let (a, b) = (Origin::start("a"), Origin::start("b"));
    let prepared = Node::prepare(|web, admin| plan(web, admin, &[&a, &b], ""));
    let dir = prepared.dir.clone();
    let file = dir.join("plan.kdl");
    let check = format!("check exec command=\"{0}/look {0}\" every=\"50ms\" fall=2 rise=1", dir.display());
    let http = "check http path=\"/healthz\" every=\"100ms\" fall=1 rise=1";
    let text = std::fs::read_to_string(&file).unwrap().replace(http, &check);
    assert!(text.contains("exec"), "{text}");
    std::fs::write(&file, text).unwrap();
    let look = dir.join("look");
    let script =
        "#!/bin/sh\necho \"$2 $3\" > $1/asked-$4\n[ ! -e $1/ill-$4 ] || { echo no disk >&2; exit 3; }\n";
    std::fs::write(&look, script).unwrap();
    std::fs::set_permissions(&look, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::set_permissions(&dir, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let node = prepared.run(Path::new(env!("CARGO_BIN_EXE_relais")), &[]);
    let check = |name: &str| server(&node, name).map(|server| (server.up, server.check));
    let well = (true, "its program ends with 0".to_owned());
    await_some("both to be asked", || {
        (check("s0").as_ref() == Some(&well) && check("s1").as_ref() == Some(&well)).then_some(())
    });
    let asked = std::fs::read_to_string(dir.join("asked-s1")).unwrap();
    assert_eq!(asked.trim(), format!("{} {}", b.address.ip(), b.address.port()));
    assert_eq!(bodies(&node, 4), ["a", "a", "b", "b"]);

    std::fs::write(dir.join("ill-s1"), "").unwrap();
    await_some("s1 is down", || check("s1").filter(|(up, _)| !up));
    node.await_log("it ended with 3 and said: no disk");
    assert_eq!(bodies(&node, 4), ["a"; 4]);
    // A new proxy knows what was said last.
    let before = node.pid(Role::Proxy).unwrap();
    node.signal(before, rustix::process::Signal::KILL);
    await_some("the next proxy", || node.pid(Role::Proxy).filter(|pid| *pid != before));
    await_some("s1 is down", || check("s1").filter(|(up, what)| !up && what.contains("fails")));
    assert_eq!(bodies(&node, 4), ["a"; 4]);
    std::fs::remove_file(dir.join("ill-s1")).unwrap();
    await_some("s1 is up", || check("s1").filter(|(up, _)| *up));
    // One that is added is asked, too.
    let c = Origin::start("c");
    std::fs::write(dir.join("ill-s2"), "").unwrap();
    command(&node, &["add-server", "app/s2", &c.address.to_string()]);
    await_some("s2 is down", || check("s2").filter(|(up, what)| !up && what.contains("fails")));
    std::fs::remove_file(dir.join("ill-s2")).unwrap();
    await_some("s2 is up", || check("s2").filter(|found| *found == well));
}
