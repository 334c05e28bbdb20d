//! An attack drill: slow heads, a flood from many addresses and a storm of cancelled streams, all at once, while honest
//! clients work. None of them may be refused, or fail. `RELAIS_ATTACK="SLOW HONEST"` makes it larger, has HAProxy with the same
//! limits beside it, and says how long honest clients waited (`packaging/verify`): under attack the slowest of a hundred
//! answers may take three times what it takes without; more only where HAProxy takes longer still, for attackers, clients and servers
//! are on the same processors here. The attackers get what time nobody else wants, for they would be elsewhere.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

use common::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const REQUESTS: usize = 20;
/// Requests a second from each of fifty addresses.
const FLOOD: usize = 400;
/// Cancelled requests a second from each of two addresses.
const STORM: u32 = 50_000;

/// A connection from an address of this machine, where there is room for it.
fn connect(ip: &str, to: SocketAddr) -> Option<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
    socket.bind(&format!("{ip}:0").parse::<SocketAddr>().unwrap().into()).ok()?;
    socket.connect_timeout(&to.into(), PATIENCE).ok()?;
    let socket = TcpStream::from(socket);
    socket.set_nodelay(true).ok()?;
    socket.set_read_timeout(Some(PATIENCE)).ok()?;
    socket.set_write_timeout(Some(PATIENCE)).ok()?;
    Some(socket)
}

#[derive(Default)]
struct Drill {
    over: AtomicBool,
    /// Requests of the flood that were answered, and those that were refused.
    flooded: AtomicU32,
    refused: AtomicU32,
    /// Requests of the storm.
    cancelled: AtomicU32,
    /// Slow heads that were cut, and HTTP/2 connections that were ended.
    cut: AtomicU32,
    ended: AtomicU32,
}

impl Drill {
    fn goes_on(&self) -> bool {
        !self.over.load(Relaxed)
    }

    /// Heads that never end, a byte at a time, twice a second; what is cut comes again. They do not all send at once.
    fn slow(&self, to: SocketAddr, many: usize) {
        const TURNS: usize = 250;
        lower_priority();
        let mut all: [Vec<TcpStream>; TURNS] = [const { Vec::new() }; TURNS];
        let mut made = 0;
        for turn in (0..TURNS).cycle().take_while(|_| self.goes_on()) {
            let begun = Instant::now();
            let some = &mut all[turn];
            let before = some.len();
            some.retain_mut(|io| io.write_all(b"a").is_ok());
            self.cut.fetch_add((before - some.len()) as u32, Relaxed);
            // New ones as fast as old ones are cut, after a second, and no faster.
            for _ in some.len()..many.div_ceil(TURNS).min(some.len() + many.div_ceil(TURNS * 2)) {
                made += 1;
                let Some(mut io) = connect(&format!("127.0.2.{}", made % 200 + 1), to) else { break };
                if io.write_all(b"GET / HTTP/1.1\r\nHost: h\r\nX-Slow: ").is_ok() {
                    some.push(io);
                }
            }
            let turn = Duration::from_millis(500) / TURNS as u32;
            std::thread::sleep(turn.saturating_sub(begun.elapsed())); // the pace of the attack
        }
    }

    /// Requests without a pause between them on connections that are kept, [`FLOOD`] a second from each of these addresses.
    fn flood(&self, to: SocketAddr, ips: std::ops::Range<u8>) {
        const TURNS: usize = 100;
        lower_priority();
        let requests = get("/").repeat(FLOOD / TURNS);
        let mut all: Vec<(u8, Option<TcpStream>)> = ips.map(|ip| (ip, None)).collect();
        let mut answers = vec![0; 64 * 1024];
        let pause = Duration::from_secs(1) / (TURNS * all.len()) as u32;
        let mut due = Instant::now();
        while self.goes_on() {
            for (ip, io) in &mut all {
                due = (due + pause).max(Instant::now());
                std::thread::sleep(due.saturating_duration_since(Instant::now())); // the pace of the attack
                let mut open = io.take().or_else(|| connect(&format!("127.0.3.{ip}"), to));
                // Without a wait: what does not fit into the socket is not sent.
                *io = open.take().filter(|mut io| {
                    let sent = io.set_nonblocking(true).is_ok() && io.write_all(requests.as_bytes()).is_ok();
                    loop {
                        match io.read(&mut answers) {
                            Ok(0) => return false,
                            Ok(n) => self.count(&answers[..n]),
                            Err(error) => return sent && error.kind() == std::io::ErrorKind::WouldBlock,
                        }
                    }
                });
            }
        }
    }

    /// Counts the answers in these bytes; one that is cut in two is not seen.
    fn count(&self, answers: &[u8]) {
        for start in answers.windows(12).filter(|start| start.starts_with(b"HTTP/1.1 ")) {
            let which = if start.ends_with(b"200") { &self.flooded } else { &self.refused };
            which.fetch_add(1, Relaxed);
        }
    }

    /// Streams that are opened and cancelled at once (CVE-2023-44487), [`STORM`] a second.
    fn storm(&self, to: SocketAddr, ip: &str) {
        const STREAMS: u32 = 50;
        const HEAD: &[u8] = b"\x82\x86\x84\x41\x01h";
        lower_priority();
        let mut due = Instant::now();
        while self.goes_on() {
            let Some(mut io) = connect(ip, to) else { continue };
            let mut frames = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
            let mut stream = 1u32;
            while self.goes_on() {
                due = (due + Duration::from_secs(1) * STREAMS / STORM).max(Instant::now());
                std::thread::sleep(due.saturating_duration_since(Instant::now())); // the pace of the attack
                for _ in 0..STREAMS {
                    frames.extend_from_slice(&[0, 0, HEAD.len() as u8, 1, 5]);
                    frames.extend_from_slice(&stream.to_be_bytes());
                    frames.extend_from_slice(HEAD);
                    frames.extend_from_slice(&[0, 0, 4, 3, 0]);
                    frames.extend_from_slice(&stream.to_be_bytes());
                    frames.extend_from_slice(&8u32.to_be_bytes());
                    stream += 2;
                }
                self.cancelled.fetch_add(STREAMS, Relaxed);
                // Who attacks well sees the end of a connection and makes another.
                if io.write_all(&frames).is_err() || is_over(&mut io) {
                    self.ended.fetch_add(1, Relaxed);
                    break;
                }
                frames.clear();
            }
        }
    }
}

/// Whether the other side has ended the connection, as far as is known.
fn is_over(io: &mut TcpStream) -> bool {
    let _ = io.set_nonblocking(true);
    let mut said = [0; 4096];
    let over = loop {
        match io.read(&mut said) {
            Ok(0) => break true,
            Ok(_) => {}
            Err(error) => break error.kind() != std::io::ErrorKind::WouldBlock,
        }
    };
    let _ = io.set_nonblocking(false);
    over
}

/// What one honest client does, and how long each answer took; what went wrong, if anything did.
fn honest(to: SocketAddr, number: usize, pause: Duration) -> Result<Vec<Duration>, String> {
    let mut times = Vec::new();
    let ip = format!("127.0.1.{}", number % 200 + 1);
    let mut lasting: Option<Peer> = None;
    std::thread::sleep(Duration::from_millis(number as u64)); // they do not all come at once
    for request in 0..REQUESTS {
        // Half of them come with a connection for each request.
        let begun = Instant::now();
        let mut peer = match lasting.take() {
            Some(peer) => peer,
            None => Peer::new(connect(&ip, to).ok_or("no connection")?),
        };
        peer.try_send(get("/")).map_err(|error| format!("request {request} of {ip}: {error}"))?;
        let head = peer.try_head().ok_or(format!("request {request} of {ip}: no answer"))?;
        if !head.starts_with("HTTP/1.1 200 ") {
            return Err(format!("request {request} of {ip}: {head}"));
        }
        peer.take(2);
        times.push(begun.elapsed());
        lasting = number.is_multiple_of(2).then_some(peer);
        std::thread::sleep(pause); // somebody reads what came
    }
    Ok(times)
}

/// How long the answers took that half, and that all but one of a hundred took.
struct Waits {
    p50: Duration,
    p99: Duration,
}

impl std::fmt::Display for Waits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.2} ms (half), {:.2} ms (99 of 100)",
            self.p50.as_secs_f64() * 1e3,
            self.p99.as_secs_f64() * 1e3
        )
    }
}

/// All honest clients at once.
fn all_honest(to: SocketAddr, clients: usize) -> Waits {
    // A thousand requests a second of all together: what they wait for is not themselves.
    let pause = Duration::from_millis(clients as u64);
    let results: Vec<_> = std::thread::scope(|scope| {
        let all: Vec<_> = (0..clients).map(|number| scope.spawn(move || honest(to, number, pause))).collect();
        all.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let wrong: Vec<&String> = results.iter().filter_map(|result| result.as_ref().err()).collect();
    assert!(wrong.is_empty(), "{} of {clients} honest clients failed: {wrong:?}", wrong.len());
    let mut times: Vec<Duration> = results.into_iter().flatten().flatten().collect();
    times.sort();
    Waits { p50: times[times.len() / 2], p99: times[times.len() * 99 / 100] }
}

/// What honest clients see before an attack, and during it.
fn attack(drill: &Drill, to: SocketAddr, slow: usize, clients: usize) -> [Waits; 2] {
    let quiet = all_honest(to, clients);
    let under = std::thread::scope(|scope| {
        scope.spawn(move || drill.slow(to, slow));
        for part in 0..5u8 {
            scope.spawn(move || drill.flood(to, part * 10 + 1..part * 10 + 11));
        }
        for ip in ["127.0.4.1", "127.0.4.2"] {
            scope.spawn(move || drill.storm(to, ip));
        }
        // They are under way before anybody is asked how it is.
        let met = || [&drill.refused, &drill.ended].iter().all(|met| met.load(Relaxed) > 0);
        let begun = Instant::now();
        while !met() && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20)); // awaited, for as long as it may take
        }
        let counts = || [drill.refused.load(Relaxed), drill.cancelled.load(Relaxed)];
        let (begun, before) = (Instant::now(), counts());
        let under = std::panic::catch_unwind(|| all_honest(to, clients));
        let seconds = begun.elapsed().as_secs_f64();
        let [refused, cancelled] = [0, 1].map(|at| f64::from(counts()[at] - before[at]) / seconds);
        println!(
            "a second, {refused:.0} requests of the flood were refused and {cancelled:.0} of the storm sent"
        );
        // The attackers have to have met what was set up against them; they go on until they have.
        let begun = Instant::now();
        while drill.cut.load(Relaxed) == 0 && begun.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(20)); // likewise
        }
        drill.over.store(true, Relaxed);
        under.unwrap_or_else(|why| std::panic::resume_unwind(why))
    });
    [quiet, under]
}

/// This thread gets what time nobody else wants: whoever attacks has machines of its own.
fn lower_priority() {
    let thread = rustix::thread::gettid().as_raw_pid().to_string();
    let done = std::process::Command::new("chrt").args(["--idle", "--pid", "0", &thread]).status();
    assert!(done.as_ref().is_ok_and(|done| done.success()), "{done:?}");
}

/// HAProxy with the same limits, where it is installed; ended when dropped.
struct Beside(std::process::Child, std::path::PathBuf);

impl Beside {
    fn start(door: SocketAddr, app: SocketAddr) -> Option<Beside> {
        let haproxy = "/usr/sbin/haproxy";
        if !std::path::Path::new(haproxy).exists() {
            eprintln!("SKIPPED: there is no {haproxy} to stand beside");
            return None;
        }
        // It does not start where it cannot have the descriptors that its `maxconn` takes, two for each.
        let descriptors =
            rustix::process::getrlimit(rustix::process::Resource::Nofile).maximum.unwrap_or(u64::MAX);
        let most = (descriptors / 2).saturating_sub(200).min(20_000);
        let file = scratch("attack.cfg");
        let text = format!(
            "global\n maxconn {most}\n nbthread 2\ndefaults\n mode http\n timeout http-request 1s\n timeout client 30s\n \
             timeout server 30s\n timeout connect 5s\n timeout http-keep-alive 30s\nfrontend web\n bind {door}\n maxconn {most}\n \
             acl honest src 127.0.1.0/24\n stick-table type ip size 100k expire 1m store conn_cur,http_req_rate(1m)\n \
             tcp-request connection track-sc0 src\n tcp-request connection reject if !honest {{ sc0_conn_cur gt 15 }}\n \
             http-request deny deny_status 429 if !honest {{ sc0_http_req_rate gt 5 }}\n default_backend app\n\
             backend app\n server s1 {app}\n"
        );
        std::fs::write(&file, text).unwrap();
        let child = std::process::Command::new(haproxy).args(["-db", "-f"]).arg(&file).spawn().unwrap();
        let beside = Beside(child, file);
        wait("HAProxy", || TcpStream::connect(door).is_ok());
        Some(beside)
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_file(&self.1);
    }
}

#[test]
fn honest_clients_see_nothing_of_slow_heads_a_flood_and_a_storm_of_resets() {
    let sizes = std::env::var("RELAIS_ATTACK").unwrap_or_else(|_| "200 20".into());
    let sizes: Vec<usize> = sizes.split(' ').map(|size| size.parse().unwrap()).collect();
    let (slow, clients) = (sizes[0], sizes[1]);
    let (door, app) = (Door::new(2), Origin::answering(OK));
    let rules = "timeout request=\"1s\"; max-connections 20000\n\
         rule \"one address, some connections\" { unless src \"127.0.1.0/24\"; reject max-connections=15; }\n\
         rule \"a flood\" { unless src \"127.0.1.0/24\"; match rate key=src over=5 per=\"1m\"; deny 429; }";
    let mut proxy = Proxy::bare(2);
    let report = proxy.plan(&plan(&door, rules, "", &[app.address]), &[&door]);
    assert!(matches!(report, relais_ipc::Report::Ready { .. }), "{report:?}");
    let drill = Drill::default();
    let [quiet, under] = attack(&drill, door.address, slow, clients);
    println!("Relais: without an attack {quiet}, under it {under}");
    let [refused, cut, ended] = [&drill.refused, &drill.cut, &drill.ended].map(|met| met.load(Relaxed));
    assert!(refused > 0 && cut > 0 && ended > 0, "refused {refused}, cut {cut}, ended {ended}");
    assert!(drill.flooded.load(Relaxed) <= 50 * 5, "each address of the flood had five answers");
    wait("every connection to be over", || proxy.status().frontends[0].connections == 0);
    assert!(proxy.status().backends[0].servers[0].up, "and the proxy goes on");
    if std::env::var_os("RELAIS_ATTACK").is_none() {
        return;
    }
    drop(proxy);
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut most = quiet.p99 * 3;
    if let Some(beside) = Beside::start(free, app.address) {
        let seen = std::panic::catch_unwind(|| attack(&Drill::default(), free, slow, clients));
        drop(beside);
        match seen {
            Ok([quiet, under]) => {
                println!("HAProxy: without an attack {quiet}, under it {under}");
                most = most.max(under.p99);
            }
            Err(_) => println!("HAProxy: honest clients failed, see above"),
        }
    }
    assert!(under.p99 < most, "under attack {under}, without {quiet}, and {most:?} would do");
}
