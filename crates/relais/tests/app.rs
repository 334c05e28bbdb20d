//! The embedded application under `SIGKILL`: what it acknowledged is stored, what it did not is stored once
//! when it is tried again.
#![allow(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use serde_json::Value;

/// A running instance.
struct App(Child);

impl App {
    /// `SIGKILL`.
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for App {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn start(listen: SocketAddr, store: &Path) -> App {
    let listen = listen.to_string();
    let app = Command::new(env!("CARGO_BIN_EXE_relais"))
        .args(["child", "app", "--listen", &listen, "--name", "tomcat1-1", "--store"])
        .arg(store)
        .spawn()
        .map(App)
        .unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    while TcpStream::connect(&listen).is_err() {
        assert!(Instant::now() < deadline, "the application does not listen");
        std::thread::sleep(Duration::from_millis(5)); // it tells nobody when it does
    }
    app
}

/// Enrols; the receipt's number once it is acknowledged.
fn enrol(to: SocketAddr, token: &str) -> io::Result<u64> {
    let mut stream = TcpStream::connect(to)?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let body = format!("family_name=B&first_name=A&establishment=U&wilaya=W&level=M&token={token}");
    write!(
        stream,
        "POST /enrolments HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAccept: application/json\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let body = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?.1;
    let receipt: Value = serde_json::from_str(body)?;
    receipt["id"].as_u64().ok_or_else(|| io::Error::other(answer.clone()))
}

/// The tokens in the store with their receipts, each once.
fn stored(store: &Path) -> BTreeMap<String, u64> {
    let text = std::fs::read_to_string(store.join("enrolments.jsonl")).unwrap();
    let mut stored = BTreeMap::new();
    for line in text.lines() {
        let record: Value = serde_json::from_str(line).unwrap();
        let (token, id) = (record["token"].as_str().unwrap().to_owned(), record["id"].as_u64().unwrap());
        assert_eq!(stored.insert(token, id), None, "stored twice: {line}");
    }
    stored
}

#[test]
fn what_was_acknowledged_before_a_sigkill_is_stored_and_what_was_not_can_be_tried_again() {
    let store = std::env::temp_dir().join(format!("relais-test-app-{}", std::process::id()));
    struct Remove(PathBuf);
    impl Drop for Remove {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
    let _remove = Remove(store.clone());
    let listen = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut receipts = BTreeMap::new();
    for round in 0..5 {
        let mut app = start(listen, &store);
        let (sender, acknowledged) = mpsc::channel();
        let students: Vec<_> = (0..4)
            .map(|n| {
                let sender = sender.clone();
                std::thread::spawn(move || {
                    // Until the application dies under one; that one's token has no receipt.
                    (0..).map(|i| format!("student-{round}-{n}-{i}")).find(|token| {
                        match enrol(listen, token) {
                            Ok(id) => sender.send((token.clone(), id)).is_err(),
                            Err(_) => true,
                        }
                    })
                })
            })
            .collect();
        drop(sender); // when all students have stopped, no more receipts come
        let mut seen: Vec<_> = acknowledged.iter().take(20 + round).collect();
        app.kill(); // while each student waits for something
        let interrupted: Vec<_> =
            students.into_iter().filter_map(|student| student.join().unwrap()).collect();
        seen.extend(acknowledged.try_iter());
        assert_eq!(interrupted.len(), 4);
        receipts.extend(seen);

        let mut again = start(listen, &store);
        for token in interrupted {
            let id = enrol(listen, &token).unwrap();
            assert_eq!(enrol(listen, &token).unwrap(), id, "one token, one receipt");
            receipts.insert(token, id);
        }
        again.kill();
        assert_eq!(stored(&store), receipts);
    }
    assert!(receipts.len() >= 5 * 20);
}
