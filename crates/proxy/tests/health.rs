//! Who else says how servers are: agents on their machines; and what is thought of a server before anybody has asked it.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;

/// Answers with its name, and with 503 to checks while it is ill.
fn origin(name: &'static str, ill: &Arc<AtomicBool>, checks: &Arc<AtomicU32>) -> Origin {
    let (ill, checks) = (ill.clone(), checks.clone());
    Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let is_check = head.starts_with("GET /up ");
            checks.fetch_add(is_check.into(), Ordering::SeqCst);
            let status = if is_check && ill.load(Ordering::SeqCst) { "503 Ill" } else { "200 OK" };
            peer.send(format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{name}"));
        }
    })
}

/// An agent that says what it is to say.
fn agent() -> (SocketAddr, Arc<Mutex<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (address, says) = (listener.local_addr().unwrap(), Arc::new(Mutex::new("up\n".to_owned())));
    let text = says.clone();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let _ = stream.write_all(text.lock().unwrap().as_bytes());
        }
    });
    (address, says)
}

/// How many of the next requests each server answers.
fn shares(client: &mut Peer, requests: usize) -> (usize, usize) {
    let mut first = 0;
    for _ in 0..requests {
        client.send(get("/"));
        first += usize::from(client.message().1 == "s1");
    }
    (first, requests - first)
}

#[test]
fn an_agent_drains_weighs_and_kills_its_server() {
    let (well, checks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let (one, two) = (origin("s1", &well, &checks), origin("s2", &well, &checks));
    let (address, says) = agent();
    let door = Door::new(1);
    let back = |agent: &str| format!("check http path=\"/up\" every=\"20ms\" rise=1 fall=1\n {agent}");
    let ask = format!("agent {} every=\"20ms\"", address.port());
    let mut proxy = Proxy::start(&plan(&door, "", &back(&ask), &[one.address, two.address]), &[&door]);
    // The agent of both servers is one; so only what all have in common is seen, but for their weights.
    let mut client = Peer::connect(door.address);
    let say = |text: &str, done: &dyn Fn() -> bool| {
        *says.lock().unwrap() = text.to_owned();
        wait(text, done);
    };
    let check = |server: usize| proxy.status().backends[0].servers[server].check.clone();
    let up = |server: usize| proxy.status().backends[0].servers[server].up;
    say("up 50%\n", &|| check(0) == "status 200; its agent: \"up 50%\"");
    assert_eq!(shares(&mut client, 20), (10, 10));
    say("down # the disk is full\n", &|| !up(0) && !up(1));
    client.send(get("/"));
    assert!(client.message().0.starts_with("HTTP/1.1 503 "));
    // What is said last holds: a weight does not bring it back, `up` does.
    say("100%\n", &|| check(0).ends_with("\"100%\""));
    assert!(!up(0));
    let mut client = Peer::connect(door.address);
    say("up\n", &|| up(0) && up(1));
    assert_eq!(shares(&mut client, 10), (5, 5));
    say("maint\n", &|| !up(0) && !up(1));
    say("ready\n", &|| up(0) && up(1));
    say("drain\n", &|| check(0).ends_with("\"drain\""));
    wait("a refusal", || {
        let mut client = Peer::connect(door.address);
        client.send(get("/"));
        client.message().0.starts_with("HTTP/1.1 503 ")
    });
    assert!(up(0) && up(1), "it is up, and gets nothing new");
    // Without its agent a server has all of its weight again.
    proxy.plan(&plan(&door, "", &back(""), &[one.address, two.address]), &[]);
    let mut client = Peer::connect(door.address);
    wait("an answer", || shares(&mut client, 2) == (1, 1));
}

#[test]
fn an_agent_that_is_silent_changes_nothing() {
    let (well, checks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let one = origin("s1", &well, &checks);
    let door = Door::new(1);
    let back = format!("check http path=\"/up\" every=\"20ms\"\n agent {} every=\"20ms\"", nobody().port());
    let proxy = Proxy::start(&plan(&door, "", &back, &[one.address]), &[&door]);
    wait("checks", || checks.load(Ordering::SeqCst) > 5);
    assert!(proxy.status().backends[0].servers[0].up);
    let mut client = Peer::connect(door.address);
    assert_eq!(shares(&mut client, 2), (2, 0));
}

#[test]
fn servers_of_one_machine_are_each_checked_where_their_rows_say() {
    let [well, ill, other] = [200, 500, 404]
        .map(|status| answering(&Arc::new(AtomicU32::new(status)), &Arc::new(AtomicU32::new(0))));
    let apps = [(); 3].map(|()| Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"));
    let door = Door::new(1);
    let text = plan(
        &door,
        "",
        "check http path=\"/\" every=\"20ms\" fall=1",
        &apps.each_ref().map(|app| app.address),
    );
    let place = |app: usize, place: String| (format!("\"{}\"", apps[app].address), place);
    let places = [
        place(0, format!("check-port={}", well.address.port())),
        place(1, format!("check-port={}", ill.address.port())),
        place(2, format!("check-address=\"127.0.0.1\" check-port={}", other.address.port())),
    ];
    let text = places
        .iter()
        .fold(text, |text, (address, place)| text.replace(address, &format!("{address} {place}")));
    let proxy = Proxy::start(&text, &[&door]);
    let shown = |server: usize| proxy.status().backends[0].servers[server].check.clone();
    wait("what each is found to be", || {
        (0..3).all(|server| shown(server).contains(["status 200", "status 500", "status 404"][server]))
    });
    let mut client = Peer::connect(door.address);
    assert_eq!(status_of(&mut client), 200);
    let up: Vec<bool> = proxy.status().backends[0].servers.iter().map(|server| server.up).collect();
    assert_eq!(up, [true, false, false]);
}

#[test]
fn an_agent_says_how_many_requests_its_server_may_have() {
    let at_once = Arc::new((AtomicU32::new(0), AtomicU32::new(0)));
    let counts = at_once.clone();
    let slow = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            let now = counts.0.fetch_add(1, Ordering::SeqCst) + 1;
            counts.1.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(100)); // long enough for others to come
            counts.0.fetch_sub(1, Ordering::SeqCst);
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let (address, says) = agent();
    *says.lock().unwrap() = "maxconn:1\n".to_owned();
    let door = Door::new(1);
    let back = |agent: String| format!("check tcp every=\"1h\"\n {agent}");
    let asked = back(format!("agent {} every=\"20ms\"", address.port()));
    let mut proxy = Proxy::start(&plan(&door, "", &asked, &[slow.address]), &[&door]);
    let most = || {
        at_once.1.store(0, Ordering::SeqCst);
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let mut client = Peer::connect(door.address);
                    client.send(get("/"));
                    assert_eq!(client.message().1, "ok");
                });
            }
        });
        at_once.1.load(Ordering::SeqCst)
    };
    let shown = |word: &str| {
        let shown = format!("its agent: \"{word}\"");
        wait(word, || proxy.status().backends[0].servers[0].check.ends_with(&shown));
    };
    shown("maxconn:1");
    assert_eq!(most(), 1);
    *says.lock().unwrap() = "maxconn:2 up\n".to_owned();
    shown("maxconn:2 up");
    assert_eq!(most(), 2);
    *says.lock().unwrap() = "maxconn:0\n".to_owned();
    shown("maxconn:0");
    assert_eq!(most(), 3);
    *says.lock().unwrap() = "maxconn:1\n".to_owned();
    shown("maxconn:1");
    // Without its agent it has the limit of the file.
    proxy.plan(&plan(&door, "", &back(String::new()), &[slow.address]), &[]);
    assert_eq!(most(), 3);
}

#[test]
fn what_an_agent_says_is_shown_beside_whatever_checks_its_server() {
    let (well, checks) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
    let one = origin("s1", &well, &checks);
    let (address, says) = agent();
    let door = Door::new(1);
    // The next check is an hour away, and the agent is heard all the same.
    let back = format!("check http path=\"/up\" every=\"1h\"\n agent {} every=\"20ms\"", address.port());
    let proxy = Proxy::start(&plan(&door, "", &back, &[one.address]), &[&door]);
    for word in ["up 70%", "up 30%"] {
        *says.lock().unwrap() = format!("{word}\n");
        let shown = format!("status 200; its agent: \"{word}\"");
        wait(word, || proxy.status().backends[0].servers[0].check == shown);
    }
}

#[test]
fn jitter_grace_and_the_first_state_are_as_said() {
    let (ill, checks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU32::new(0)));
    let one = origin("s1", &ill, &checks);
    let asked = || checks.load(Ordering::SeqCst);
    let proxy = |check: &str| {
        checks.store(0, Ordering::SeqCst);
        let door = Door::new(1);
        let back = format!("check http path=\"/up\" {check}");
        let proxy = Proxy::start(&plan(&door, "", &back, &[one.address]), &[&door]);
        (proxy, door)
    };
    let is_up = |proxy: &Proxy| proxy.status().backends[0].servers[0].up;
    // Without a word of it the first failure takes it out; one that is `fully-up` stands all of `fall`.
    let (up, _door) = proxy("every=\"1h\" fall=2");
    wait("the first check", || asked() == 1 && !is_up(&up));
    drop(up);
    let (fully, _door) = proxy("every=\"50ms\" fall=255 init=fully-up");
    wait("some checks", || asked() > 3);
    assert!(is_up(&fully));
    drop(fully);
    let (grace, _door) = proxy("every=\"20ms\" fall=1 grace=\"1h\"");
    wait("some checks", || asked() > 5);
    assert!(is_up(&grace));
    drop(grace);
    // One that begins down gets nothing until a check has said that it is well.
    let (down, door) = proxy("every=\"20ms\" rise=2 init=down");
    wait("some checks", || asked() > 2);
    assert!(!is_up(&down));
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert!(client.message().0.starts_with("HTTP/1.1 503 "));
    ill.store(false, Ordering::SeqCst);
    wait("the server", || is_up(&down));
    drop(down);
    let (up, _door) = proxy("every=\"1h\" rise=2 init=down");
    wait("the server", || is_up(&up));
    assert_eq!(asked(), 1, "one success brings it in");
    drop(up);
    let (fully, _door) = proxy("every=\"300ms\" rise=2 init=fully-down");
    wait("the first check", || asked() == 1);
    assert!(!is_up(&fully));
    wait("the second check", || is_up(&fully));
    assert!(asked() >= 2);
    drop(fully);
    // As many checks as ever with jitter, but not at the same distance.
    let (_jittery, _door) = proxy("every=\"150ms\" jitter=50");
    let (mut times, start) = (Vec::new(), Instant::now());
    for number in 1..25 {
        wait("a check", || asked() >= number);
        times.push(start.elapsed());
    }
    let mut gaps: Vec<Duration> = times.windows(2).map(|two| two[1] - two[0]).collect();
    gaps.sort();
    assert!(gaps[17] > gaps[5] + Duration::from_millis(20), "{gaps:?}");
}

/// Answers what it is told to.
fn answering(status: &Arc<AtomicU32>, asked: &Arc<AtomicU32>) -> Origin {
    let (status, asked) = (status.clone(), asked.clone());
    Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            asked.fetch_add(1, Ordering::SeqCst);
            peer.send(format!("HTTP/1.1 {} x\r\nContent-Length: 0\r\n\r\n", status.load(Ordering::SeqCst)));
        }
    })
}

fn status_of(client: &mut Peer) -> u32 {
    client.send(get("/"));
    client.message().0.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_backend_that_fails_is_left_alone_for_a_while() {
    let (status, asked) = (Arc::new(AtomicU32::new(200)), Arc::new(AtomicU32::new(0)));
    let origin = answering(&status, &asked);
    let door = Door::new(1);
    let back = "breaker errors=50 least=10 open=\"300ms\" probes=2";
    let proxy = Proxy::start(&plan(&door, "", back, &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let is_open = || proxy.status().backends[0].breaker_open;
    let mut answers = |requests: usize| (0..requests).map(|_| status_of(&mut client)).collect::<Vec<_>>();
    assert_eq!(answers(10), [200; 10]);
    assert!(!is_open());
    status.store(500, Ordering::SeqCst);
    assert_eq!(answers(10), [500; 10]);
    wait("the breaker", is_open);
    assert_eq!((answers(5), asked.load(Ordering::SeqCst)), (vec![503; 5], 20), "nobody goes through");
    let line = proxy.lines(25).remove(20);
    assert!(line.contains(" app/<NOSRV> ") && line.contains(" PC-- "), "{line}");
    // It is tried after a while, and left alone again.
    std::thread::sleep(Duration::from_millis(320));
    assert_eq!((answers(3), asked.load(Ordering::SeqCst)), (vec![500, 503, 503], 21));
    status.store(200, Ordering::SeqCst);
    std::thread::sleep(Duration::from_millis(320));
    assert_eq!(answers(5), [200; 5]);
    wait("the breaker", || !is_open());
    // What a client does wrong is no fault of the servers.
    status.store(404, Ordering::SeqCst);
    assert_eq!(answers(20), [404; 20]);
    assert!(!is_open());
}

#[test]
fn a_server_that_fails_more_than_the_others_is_out_for_a_while() {
    let (status, asked) = (Arc::new(AtomicU32::new(500)), Arc::new(AtomicU32::new(0)));
    let (well, other) = (Arc::new(AtomicU32::new(200)), Arc::new(AtomicU32::new(200)));
    let [bad, one, two] = [&status, &other, &well].map(|status| answering(status, &asked));
    let door = Door::new(1);
    let back =
        "check tcp every=\"50ms\"\n outlier errors=40 least=10 window=\"300ms\" for=\"700ms\" most-down=34";
    let proxy = Proxy::start(&plan(&door, "", back, &[bad.address, one.address, two.address]), &[&door]);
    let server = |at: usize| proxy.status().backends[0].servers[at].clone();
    let mut client = Peer::connect(door.address);
    let mut until = |what: &str, done: &dyn Fn() -> bool| {
        let begun = Instant::now();
        while !done() {
            status_of(&mut client);
            assert!(begun.elapsed() < Duration::from_secs(20), "{what}");
        }
    };
    until("it to be out", &|| !server(0).up);
    let shown = server(0).check;
    assert!(
        shown.starts_with("of its last ") && shown.contains(" requests 100 % failed, of the others' 0 %"),
        "{shown}"
    );
    assert!(server(1).up && server(2).up);
    let begun = Instant::now();
    until("it to be back", &|| server(0).up);
    assert!(begun.elapsed() > Duration::from_millis(500), "{:?}", begun.elapsed());
    // Where all fail alike nobody goes.
    well.store(500, Ordering::SeqCst);
    other.store(500, Ordering::SeqCst);
    let begun = Instant::now();
    until("two windows", &|| begun.elapsed() > Duration::from_millis(800));
    assert!((0..3).all(|at| server(at).up));
    // And where two do, one: a third may be out.
    well.store(200, Ordering::SeqCst);
    let down = || (0..3).filter(|&at| !server(at).up).count();
    until("one to be out", &|| down() == 1);
    let begun = Instant::now();
    until("half a second", &|| {
        assert!(down() <= 1);
        begun.elapsed() > Duration::from_millis(500)
    });
}

#[test]
fn where_too_few_are_up_all_serve() {
    let (well, ill) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(true)));
    let checks = Arc::new(AtomicU32::new(0));
    let origins = [origin("s1", &well, &checks), origin("s2", &ill, &checks), origin("s3", &ill, &checks)];
    let door = Door::new(1);
    let addresses: Vec<SocketAddr> = origins.iter().map(|origin| origin.address).collect();
    let back = |panic: &str| format!("check http path=\"/up\" every=\"20ms\" rise=1 fall=1\n {panic}");
    let mut proxy = Proxy::start(&plan(&door, "", &back("panic 33"), &addresses), &[&door]);
    let both = |proxy: &Proxy, up: bool| {
        wait("both servers", || proxy.status().backends[0].servers[1..].iter().all(|server| server.up == up));
    };
    both(&proxy, false);
    let mut client = Peer::connect(door.address);
    let mut names = || {
        let mut names: Vec<String> = (0..6)
            .map(|_| {
                client.send(get("/"));
                client.message().1
            })
            .collect();
        names.sort();
        names
    };
    assert_eq!(names(), ["s1"; 6], "one of three is enough");
    proxy.plan(&plan(&door, "", &back("panic 34"), &addresses), &[]);
    assert_eq!(names(), ["s1", "s1", "s2", "s2", "s3", "s3"]);
    let status = proxy.status();
    assert!(!status.backends[0].servers[1].up, "it is said to be down all the same");
    // One more is up: enough.
    ill.store(false, Ordering::SeqCst);
    both(&proxy, true);
    ill.store(true, Ordering::SeqCst);
    both(&proxy, false);
    wait("all of them", || names() == ["s1", "s1", "s2", "s2", "s3", "s3"]);
    proxy.plan(&plan(&door, "", &back(""), &addresses), &[]);
    assert_eq!(names(), ["s1"; 6]);
}
