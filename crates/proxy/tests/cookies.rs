//! Persistence cookies through HAProxy and through Relais: who answers, what it sees, what the client gets and what the log says
//! have to be the same.
//!
//! Where HAProxy 2.6 is not installed, Relais is held to what HAProxy said when the row was written.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::AsRawFd;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use common::*;

/// One way to persist, of HAProxy and of Relais, and what comes of it.
struct Row {
    name: &'static str,
    theirs: &'static str,
    ours: &'static str,
    asks: &'static [Ask],
}

/// A request's cookies, what the server sets, and: who answered, which cookies it saw; what the client gets; letters.
/// `<-10>` is the date of ten seconds ago. A request with an `!` is a POST.
type Ask = (&'static str, &'static str, &'static str);

const ROWS: &[Row] = &[
    Row {
        name: "transparent",
        theirs: "cookie SRV insert indirect nocache httponly",
        ours: "cookie=SRV same-site=off",
        asks: &[
            ("", "", "1 none; SRV=s1; httponly; path=/; private; NI"),
            ("a=b", "", "1 a=b; SRV=s1; httponly; path=/; private; NI"),
            ("a=b; SRV=s2; c=d", "", "2 a=b; c=d; ; VN"),
            ("SRV=s9", "", "1 none; SRV=s1; httponly; path=/; private; II"),
            ("SRV=", "", "1 none; SRV=s1; httponly; path=/; private; II"),
            ("SRV=s2", "SRV=x; Path=/a", "2 none; ; VD"),
            ("", "SRV=x; Path=/a", "1 none; SRV=s1; httponly; path=/; private; NI"),
            ("", "XSRV=x", "1 none; XSRV=x SRV=s1; httponly; path=/; private; NI"),
            ("SRV=s2|<-20>", "", "2 none; SRV=s2; httponly; path=/; private; VU"),
        ],
    },
    Row {
        name: "seen",
        theirs: "cookie SRV insert secure domain .example.org attr SameSite=Strict",
        ours: "cookie=SRV indirect=no nocache=no httponly=no secure=yes domain=\".example.org\" same-site=strict",
        asks: &[
            ("", "", "1 none; SRV=s1; domain=.example.org; path=/; samesite=strict; secure; NI"),
            ("a=b; SRV=s2", "", "2 a=b; SRV=s2; ; VN"),
            ("SRV=s2", "SRV=mine", "2 SRV=s2; ; VD"),
        ],
    },
    Row {
        name: "preserving",
        theirs: "cookie SRV insert indirect nocache preserve",
        ours: "cookie=SRV preserve=yes httponly=no same-site=off",
        asks: &[
            ("", "", "1 none; SRV=s1; path=/; private; NI"),
            ("", "SRV=s2", "1 none; SRV=s2; NP"),
            ("SRV=s2", "SRV=", "2 none; SRV=; VP"),
        ],
    },
    Row {
        name: "after_post",
        theirs: "cookie SRV insert indirect postonly",
        ours: "cookie=SRV postonly=yes nocache=no httponly=no same-site=off",
        asks: &[
            ("", "", "1 none; ; NN"),
            ("!", "", "1 none; SRV=s1; path=/; NI"),
            ("!SRV=s2", "", "2 none; ; VN"),
        ],
    },
    Row {
        name: "dated",
        theirs: "cookie SRV insert indirect nocache maxidle 60 maxlife 600",
        ours: "cookie=SRV maxidle=\"60s\" maxlife=\"10m\" httponly=no same-site=off",
        asks: &[
            ("", "", "1 none; SRV=s1|DATE|DATE; path=/; private; NI"),
            ("SRV=s2|<-20>|<-20>", "", "2 none; SRV=s2|DATE|<-20>; path=/; private; VU"),
            ("SRV=s2|<+8>|<-20>", "", "2 none; ; VN"),
            ("SRV=s2", "", "2 none; SRV=s2|DATE|DATE; path=/; private; VU"),
            ("SRV=s2|<-70>|<-80>", "", "1 none; SRV=s1|DATE|DATE; path=/; private; EI"),
            ("SRV=s2|<-20>|<-700>", "", "1 none; SRV=s1|DATE|DATE; path=/; private; OI"),
            ("SRV=s2|<+90000>|<-20>", "", "1 none; SRV=s1|DATE|DATE; path=/; private; EI"),
            ("SRV=s9|<-20>|<-20>", "", "1 none; SRV=s1|DATE|<-20>; path=/; private; II"),
        ],
    },
    Row {
        name: "before",
        theirs: "cookie SID prefix",
        ours: "cookie=SID mode=prefix",
        asks: &[
            ("", "", "1 none; ; NN"),
            ("", "SID=12; Path=/a", "1 none; SID=s1~12; path=/a; NR"),
            ("a=b; SID=s2~12", "", "2 a=b; SID=12; ; VN"),
            ("a=b; SID=s2~12", "SID=13", "2 a=b; SID=12; SID=s2~13; VR"),
            ("SID=s9~1~2", "", "1 SID=1~2; ; IN"),
            ("SID=12", "", "1 SID=12; ; IN"),
        ],
    },
    Row {
        name: "rewriting",
        theirs: "cookie SRV rewrite",
        ours: "cookie=SRV mode=rewrite",
        asks: &[
            ("", "", "1 none; ; NN"),
            ("", "SRV=x; Path=/a", "1 none; SRV=s1; path=/a; NR"),
            ("SRV=s2", "SRV=; Path=/a", "2 SRV=s2; SRV=s2; path=/a; VR"),
            ("SRV=s9", "", "1 SRV=s9; ; IN"),
        ],
    },
];

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `<-10>` and the like as dates.
fn with_dates(text: &str, now: i64) -> String {
    let mut parts = text.split('<');
    let mut out = parts.next().unwrap().to_owned();
    for part in parts {
        let (offset, rest) = part.split_once('>').unwrap();
        let quarters = (now + offset.parse::<i64>().unwrap()) >> 2;
        out.extend((0..5).rev().map(|place| char::from(ALPHABET[(quarters >> (6 * place) & 63) as usize])));
        out += rest;
    }
    out
}

fn origin(number: usize) -> Origin {
    Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let set = field(&head, "x-set").map_or(String::new(), |set| format!("Set-Cookie: {set}\r\n"));
            let body = format!("{number} {}", field(&head, "cookie").unwrap_or("none"));
            peer.send(format!(
                "HTTP/1.1 200 OK\r\n{set}Cache-Control: max-age=60\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    })
}

/// Who answered, what it saw and what the client gets.
fn ask(to: SocketAddr, (cookies, set, _): &Ask, now: i64) -> String {
    let (method, cookies) = match cookies.strip_prefix('!') {
        Some(cookies) => ("POST", cookies),
        None => ("GET", *cookies),
    };
    let mut text = format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n");
    if !cookies.is_empty() {
        text += &format!("Cookie: {}\r\n", with_dates(cookies, now));
    }
    if !set.is_empty() {
        text += &format!("X-Set: {set}\r\n");
    }
    let mut client = Peer::connect(to);
    client.send(text + "Connection: close\r\n\r\n");
    let (head, body) = client.message();
    let (mut values, mut attributes) = (Vec::new(), Vec::new());
    for line in head.lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        match &*name.to_lowercase() {
            "set-cookie" => {
                let mut parts = value.split("; ");
                let value = parts.next().unwrap();
                // Ours stands before what the server has sent, HAProxy's behind it.
                match value.starts_with("XSRV") {
                    true => values.insert(0, value.to_owned()),
                    false => values.push(value.to_owned()),
                }
                attributes.extend(parts.map(str::to_lowercase));
            }
            "cache-control" if value == "private" => attributes.push(value.to_owned()),
            _ => {}
        }
    }
    attributes.sort_by_key(|attribute| (attribute == "private", attribute.clone()));
    let parts: Vec<String> = [body.to_owned(), values.join(" ")].into_iter().chain(attributes).collect();
    parts.join("; ")
}

/// What is expected, with dates; `DATE` is any.
fn is_like(said: &str, expected: &str) -> bool {
    let (mut said, mut first) = (said, true);
    for part in expected.split("DATE") {
        if !first {
            let Some(rest) = said.get(5..) else { return false };
            said = rest;
        }
        first = false;
        let Some(rest) = said.strip_prefix(part) else { return false };
        said = rest;
    }
    said.is_empty()
}

struct Haproxy {
    process: Child,
    doors: Vec<TcpListener>,
    lines: Arc<Mutex<Vec<String>>>,
    file: std::path::PathBuf,
}

impl Haproxy {
    fn start(servers: &[SocketAddr]) -> Option<Haproxy> {
        let version = Command::new("haproxy").arg("-v").output().ok()?;
        if !String::from_utf8_lossy(&version.stdout).contains("version 2.6.") {
            return None;
        }
        let mut text = "global\n nbthread 1\ndefaults\n mode http\n option httplog\n log stdout len 8192 format raw local0\n \
                        timeout client 20s\n timeout server 20s\n timeout connect 20s\n"
            .to_owned();
        let mut doors = Vec::new();
        for Row { name, theirs, .. } in ROWS {
            let door = TcpListener::bind("127.0.0.1:0").unwrap();
            rustix::io::fcntl_setfd(&door, rustix::io::FdFlags::empty()).unwrap();
            text += &format!(
                "frontend {name}\n bind fd@{}\n default_backend b_{name}\nbackend b_{name}\n {theirs}\n \
                 server s1 {} cookie s1\n server s2 {} cookie s2 weight 0\n",
                door.as_raw_fd(),
                servers[0],
                servers[1]
            );
            doors.push(door);
        }
        let file = scratch("haproxy.cfg");
        std::fs::write(&file, text).unwrap();
        let mut process = Command::new("haproxy")
            .args(["-db", "-f"])
            .arg(&file)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (seen, stdout) = (lines.clone(), process.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                seen.lock().unwrap().push(line);
            }
        });
        Some(Haproxy { process, doors, lines, file })
    }
}

impl Drop for Haproxy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_file(&self.file);
    }
}

/// The letters of the `n`th line of a frontend, from 0.
fn letters(read: &dyn Fn() -> Vec<String>, name: &str, n: usize) -> String {
    let name = format!("] {name} ");
    let of = || -> Vec<String> { read().into_iter().filter(|line| line.contains(&name)).collect() };
    wait("an access line", || of().len() > n);
    of()[n].split(' ').nth(9).unwrap()[2..].to_owned()
}

#[test]
fn cookies_are_what_haproxy_makes_of_them() {
    let origins = [origin(1), origin(2)];
    let servers = [origins[0].address, origins[1].address];
    let doors: Vec<Door> = ROWS.iter().map(|_| Door::new(1)).collect();
    let haproxy = Haproxy::start(&servers);
    let mut text = String::new();
    for (row, door) in ROWS.iter().zip(&doors) {
        text += &format!(
            "frontend {0} {{\n bind \"{1}\"\n default-backend b_{0}\n}}\nbackend b_{0} {{\n persist {2}\n \
             server s1 \"{3}\"\n server s2 \"{4}\" weight=0\n}}\n",
            row.name, door.address, row.ours, servers[0], servers[1]
        );
    }
    let proxy = Proxy::start(&text, &doors.iter().collect::<Vec<_>>());
    let mut all = Vec::new();
    for (row, place) in ROWS.iter().zip(0..) {
        for (one, n) in row.asks.iter().zip(0..) {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
            let ours = ask(doors[place].address, one, now);
            let theirs = haproxy.as_ref().map(|h| ask(h.doors[place].local_addr().unwrap(), one, now));
            all.push((row.name, one, n, now, ours, theirs));
        }
    }
    let mut wrong = Vec::new();
    for (name, one, n, now, ours, theirs) in all {
        let expected = with_dates(one.2, now);
        let mut judge = |who: &str, said: String, read: &dyn Fn() -> Vec<String>| {
            let said = format!("{said}; {}", letters(read, name, n));
            if !is_like(&said, &expected) {
                wrong.push(format!("{who} {name}: {one:?}:\n  {said}\n  {expected}"));
            }
        };
        judge("Relais", ours, &|| proxy.lines(0));
        if let (Some(theirs), Some(haproxy)) = (theirs, &haproxy) {
            judge("HAProxy", theirs, &|| haproxy.lines.lock().unwrap().clone());
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_cookie_that_is_too_old_counts_no_more_and_one_that_is_used_lives_on() {
    let (door, origins) = (Door::new(1), [origin(1), origin(2)]);
    let text = plan(
        &door,
        "",
        "persist cookie=SRV maxidle=\"20m\" maxlife=\"40m\"",
        &[origins[0].address, origins[1].address],
    );
    let _proxy = Proxy::start(&text, &[&door]);
    let at = |now: i64, cookies: &'static str| ask(door.address, &(cookies, "", ""), now);
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    for server in ["1", "2"] {
        let young: &'static str = Box::leak(format!("SRV=s{server}|<-600>|<-1000>").into());
        let said = at(now(), young);
        assert!(said.starts_with(&format!("{server} none; SRV=s{server}|")), "{said}");
        let (time, first) = (now(), said.split('|').nth(2).unwrap()[..5].to_owned());
        let given = [with_dates("<-1000>", time), with_dates("<-1000>", time - 1)];
        assert!(given.contains(&first), "its first date stays: {said}");
    }
    for old in ["SRV=s2|<-1300>|<-1300>", "SRV=s2|<-600>|<-2500>"] {
        // Whoever is chosen, the cookie's life begins anew.
        let said = at(now(), old);
        let dates: Vec<&str> = said.split('|').skip(1).map(|date| &date[..5]).collect();
        assert_eq!(dates[0], dates[1], "{said}");
    }
}
