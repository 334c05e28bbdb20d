//! Access lines as an operator finds them: where, in which format, and after a rotation.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use relais_ipc::{Order, Report};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn read(path: &std::path::Path) -> Vec<String> {
    std::fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn open(proxy: &mut Proxy, path: &std::path::Path) {
    let file = std::fs::File::options().create(true).append(true).open(path).unwrap();
    proxy.order(&Order::AccessLog { path: path.display().to_string() }, Some(file.into()));
}

#[test]
fn a_frontend_logs_elsewhere_or_not_at_all() {
    let origin = Origin::answering(OK);
    let (web, quiet, own) = (Door::new(1), Door::new(1), Door::new(1));
    let path = scratch("own-log");
    let mut proxy = Proxy::bare(1);
    open(&mut proxy, &path);
    let mut text = plan(&web, "", "", &[origin.address]);
    text += &format!(
        "frontend quiet {{ bind \"{}\"; access-log off; default-backend app; }}\n\
         frontend own {{ bind \"{}\"; default-backend app\n access-log \"{}\" format=json\n }}\n",
        quiet.address,
        own.address,
        path.display()
    );
    assert_eq!(proxy.plan(&text, &[&web, &quiet, &own]), Report::Ready { generation: 1 });
    for door in [&quiet, &own, &web] {
        let mut client = Peer::connect(door.address);
        client.send(get("/a?b"));
        assert_eq!(client.message().1, "ok");
    }
    let lines = proxy.lines(1);
    assert!(lines.len() == 1 && lines[0].contains(" web app/s1 "), "{lines:?}");
    wait("the other log", || !read(&path).is_empty());
    let line: serde_json::Value = serde_json::from_str(&read(&path)[0]).unwrap();
    assert_eq!(
        (&line["frontend"], &line["status"], &line["target"]),
        (&"own".into(), &200.into(), &"/a?b".into())
    );
    let logs = proxy.status().access_logs;
    assert_eq!(logs.len(), 2);
    assert!(logs.iter().all(|log| (log.written_total, log.dropped_total) == (1, 0)), "{logs:?}");
    std::fs::remove_file(path).unwrap();
}

#[test]
fn after_a_rotation_lines_go_to_the_new_file_and_none_is_lost() {
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let mut proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let mut ask = |path: &str| {
        client.send(get(path));
        assert_eq!(client.message().1, "ok");
    };
    ask("/before");
    proxy.lines(1);
    let old = proxy.log.with_extension("1");
    std::fs::rename(&proxy.log, &old).unwrap();
    ask("/between");
    wait("the line in the old file", || read(&old).len() == 2);
    let path = proxy.log.clone();
    open(&mut proxy, &path);
    // The order has been obeyed once a later one has been answered.
    assert_eq!(proxy.plan(&plan(&door, "", "", &[origin.address]), &[]), Report::Ready { generation: 2 });
    ask("/after");
    let lines = proxy.lines(1);
    assert!(lines[0].contains("/after") && lines.len() == 1, "{lines:?}");
    assert_eq!(read(&old).len(), 2);
    std::fs::remove_file(old).unwrap();
}
