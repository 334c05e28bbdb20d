//! A proxy that runs out of descriptors. Alone in its file: the limit is the whole process's.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::*;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What was logged.
#[derive(Clone, Default)]
struct Journal(Arc<Mutex<Vec<u8>>>);

impl Write for Journal {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Journal {
    fn count(&self, words: &str) -> usize {
        String::from_utf8_lossy(&self.0.lock().unwrap()).matches(words).count()
    }
}

#[test]
fn out_of_descriptors_accepting_pauses_says_so_once_and_goes_on() {
    let journal = Journal::default();
    let writer = journal.clone();
    tracing_subscriber::fmt().with_writer(move || writer.clone()).init();
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut kept = Peer::connect(door.address);
    kept.send(get("/"));
    assert_eq!(kept.message().1, "ok");
    // Growing it under load would stop all workers for a while.
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")).unwrap();
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    assert!(
        size.trim().parse::<u64>().unwrap() >= limit.min(65_536),
        "the table has room for {size} of {limit}"
    );
    assert_eq!(proxy.lines(1).len(), 1); // what is closed from here on is what this test closes
    let before = getrlimit(Resource::Nofile);
    // The limit is on the number, and the lowest free number is taken: here is room for a few more.
    let used = std::fs::read_dir("/proc/self/fd").unwrap().count() as u64;
    setrlimit(Resource::Nofile, Rlimit { current: Some(used + 8), ..before }).unwrap();
    let mut late: Vec<Peer> = Vec::new();
    while let Ok(io) = std::net::TcpStream::connect(door.address) {
        late.push(Peer::new(io));
    }
    wait("the complaint", || journal.count("cannot accept connections") == 1);
    for _ in 0..3 {
        kept.send(get("/"));
        assert_eq!(kept.message().1, "ok", "who is there is served");
        std::thread::sleep(Duration::from_millis(150)); // longer than the pause: it tries again, and is silent
    }
    assert_eq!(journal.count("cannot accept connections"), 1);
    setrlimit(Resource::Nofile, before).unwrap();
    for peer in &mut late {
        peer.send(get("/"));
        assert_eq!(peer.message().1, "ok");
    }
    assert_eq!(journal.count("connections are accepted again"), 1);
}
