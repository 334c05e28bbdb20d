//! UDP mode, one behaviour a test, with real sockets.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use common::*;
use relais_ipc::{Order, Report};

/// The longest datagram of IPv4.
const LONGEST: usize = 65_507;

/// A server that says what `say` makes of each datagram, and who it is asked by.
struct Oracle {
    address: SocketAddr,
    asked: Arc<AtomicU32>,
}

impl Oracle {
    fn new(say: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Oracle {
        Oracle::on(UdpSocket::bind("127.0.0.1:0").unwrap(), say)
    }

    fn on(socket: UdpSocket, say: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static) -> Oracle {
        let address = socket.local_addr().unwrap();
        let asked = Arc::new(AtomicU32::new(0));
        let count = asked.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_536];
            // A refusal is of a client that has gone.
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                count.fetch_add(1, Ordering::SeqCst);
                for answer in say(&buffer[..length]) {
                    let _ = socket.send_to(&answer, from);
                }
            }
        });
        Oracle { address, asked }
    }

    fn echo() -> Oracle {
        Oracle::new(|bytes| vec![bytes.to_vec()])
    }

    fn named(name: &'static str) -> Oracle {
        Oracle::new(move |_| vec![name.into()])
    }

    fn silent() -> Oracle {
        Oracle::new(|_| Vec::new())
    }

    fn asked(&self) -> u32 {
        self.asked.load(Ordering::SeqCst)
    }
}

/// An address where nobody receives: what is sent there is answered with "port unreachable".
fn closed() -> SocketAddr {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

fn udp_plan(door: &Door, front: &str, back: &str, servers: &[SocketAddr]) -> String {
    plan(door, &format!("mode udp\n {front}"), &format!("mode udp\n {back}"), servers)
}

/// A client's port.
struct Asker(UdpSocket);

impl Asker {
    fn of(door: &Door) -> Asker {
        Asker::at(door.address)
    }

    fn at(address: SocketAddr) -> Asker {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.connect(address).unwrap();
        Asker(socket)
    }

    fn send(&self, bytes: impl AsRef<[u8]>) {
        assert_eq!(self.0.send(bytes.as_ref()).unwrap(), bytes.as_ref().len());
    }

    fn receive(&self) -> Vec<u8> {
        let mut buffer = vec![0; 65_536];
        let length = self.0.recv(&mut buffer).expect("an answer");
        buffer.truncate(length);
        buffer
    }

    fn ask(&self, bytes: impl AsRef<[u8]>) -> String {
        self.send(bytes);
        String::from_utf8(self.receive()).unwrap()
    }

    /// Whether nothing comes for a while.
    fn hears_nothing(&self) -> bool {
        self.0.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        let silent = self.0.recv(&mut [0; 16]).is_err();
        self.0.set_read_timeout(Some(PATIENCE)).unwrap();
        silent
    }
}

#[test]
fn datagrams_pass_both_ways_and_keep_their_borders() {
    let server = Oracle::echo();
    let door = Door::datagrams(1);
    let proxy = Proxy::start(&udp_plan(&door, "", "timeout session=\"2s\"", &[server.address]), &[&door]);
    let client = Asker::of(&door);
    let lengths = [1, 0, 512, 1472, 1473, 9000, LONGEST];
    for length in lengths {
        let bytes: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
        client.send(&bytes);
        assert!(client.receive() == bytes, "{length} bytes came back as they were");
    }
    // It is counted when it is sent, which the client may see before.
    wait("the last answer's count", || proxy.status().frontends[0].datagrams_out_total == 7);
    let status = proxy.status();
    let (front, server) = (&status.frontends[0], &status.backends[0].servers[0]);
    let bytes = lengths.iter().sum::<usize>() as u64;
    assert_eq!((&*front.mode, front.connections, front.connections_total), ("udp", 1, 1));
    assert_eq!(
        (front.datagrams_in_total, front.datagrams_out_total, front.datagrams_dropped_total),
        (7, 7, 0)
    );
    assert_eq!((front.bytes_in_total, front.bytes_out_total), (bytes, bytes));
    assert_eq!((server.datagrams_in_total, server.datagrams_out_total, server.sessions_total), (7, 7, 1));
    assert_eq!((server.bytes_in_total, server.bytes_out_total), (bytes, bytes));
    let line = proxy.lines(1).remove(0);
    let fields: Vec<&str> = line.split(' ').collect();
    assert!(fields[0].starts_with("127.0.0.1:"), "{line}");
    assert_eq!(fields[2..4], ["web", "app/s1"], "{line}");
    assert_eq!(fields[5..], [&*bytes.to_string(), "--", "1/1/0/0/0", "0/0"], "{line}");
}

#[test]
fn an_answer_comes_from_the_address_that_was_asked() {
    let server = Oracle::echo();
    for (bound, asked) in [("0.0.0.0:0", ["127.0.0.1", "127.7.7.7"]), ("[::]:0", ["::1", "::1"])] {
        let door = Door::datagrams_at(bound.parse().unwrap(), 1);
        let _proxy = Proxy::start(&udp_plan(&door, "", "responses 1", &[server.address]), &[&door]);
        // The same client port on both addresses: these are two sessions.
        let client = UdpSocket::bind(bound).unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        for ip in asked {
            let asked = SocketAddr::new(ip.parse::<IpAddr>().unwrap(), door.address.port());
            client.send_to(ip.as_bytes(), asked).unwrap();
            let mut buffer = [0; 64];
            let (length, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!((&buffer[..length], from), (ip.as_bytes(), asked));
        }
    }
}

#[test]
fn a_session_keeps_its_server_and_sessions_are_shared_out() {
    let (one, two) = (Oracle::named("one"), Oracle::named("two"));
    let door = Door::datagrams(1);
    let _proxy = Proxy::start(&udp_plan(&door, "", "", &[one.address, two.address]), &[&door]);
    let clients: Vec<Asker> = (0..10).map(|_| Asker::of(&door)).collect();
    let first: Vec<String> = clients.iter().map(|client| client.ask("who?")).collect();
    assert_eq!(first.iter().filter(|name| *name == "one").count(), 5);
    for (client, name) in clients.iter().zip(&first) {
        for _ in 0..3 {
            assert_eq!(client.ask("and now?"), *name);
        }
    }
}

#[test]
fn a_session_ends_with_the_answers_to_all_that_was_asked() {
    // As a resolver that asks for two kinds of address from one port; the second question comes first.
    let held = std::sync::Mutex::new(Vec::new());
    let server = Oracle::new(move |bytes| {
        let mut held = held.lock().unwrap();
        held.push(bytes.to_vec());
        if held.len() < 2 { Vec::new() } else { held.drain(..).rev().collect() }
    });
    let door = Door::datagrams(1);
    let proxy = Proxy::start(&udp_plan(&door, "", "responses 1", &[server.address]), &[&door]);
    let client = Asker::of(&door);
    client.send("A");
    client.send("AAAA");
    assert_eq!((client.receive(), client.receive()), (b"AAAA".to_vec(), b"A".to_vec()));
    wait("the session's end", || proxy.status().frontends[0].connections == 0);
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/s1 ") && line.contains(" 5 -- "), "{line}");
    assert_eq!(proxy.status().backends[0].servers[0].active, 0);
    client.send("A");
    client.send("AAAA");
    client.receive();
    assert_eq!(proxy.status().frontends[0].connections_total, 2);
}

#[test]
fn a_silent_session_ends_after_its_time() {
    let server = Oracle::silent();
    let door = Door::datagrams(1);
    let back = "responses 1\n timeout session=\"100ms\"";
    let proxy = Proxy::start(&udp_plan(&door, "", back, &[server.address]), &[&door]);
    let (client, start) = (Asker::of(&door), Instant::now());
    client.send("hello?");
    let line = proxy.lines(1).remove(0);
    assert!(start.elapsed() >= Duration::from_millis(100));
    assert!(line.contains(" app/s1 ") && line.contains(" 0 sD "), "{line}");
    let server = &proxy.status().backends[0].servers[0];
    assert_eq!((server.response_errors_total, server.active), (1, 0));
}

#[test]
fn many_clients_get_each_its_own_answers() {
    let server = Oracle::echo();
    let door = Door::datagrams(2);
    let mut proxy = Proxy::bare(2);
    let plan = udp_plan(&door, "", "responses 1", &[server.address]);
    assert_eq!(proxy.plan(&plan, &[&door]), Report::Ready { generation: 1 });
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let door = &door;
            scope.spawn(move || {
                let clients: Vec<Asker> = (0..50).map(|_| Asker::of(door)).collect();
                for round in 0..4 {
                    // Some at a time, as the server's socket has room for.
                    for some in clients.chunks(10) {
                        for (i, client) in some.iter().enumerate() {
                            client.send(format!("{thread} {round} {i}"));
                        }
                        for (i, client) in some.iter().enumerate() {
                            assert_eq!(client.receive(), format!("{thread} {round} {i}").into_bytes());
                        }
                    }
                }
            });
        }
    });
    wait("the sessions' end", || proxy.status().frontends[0].connections == 0);
    let status = proxy.status();
    assert_eq!(status.frontends[0].datagrams_out_total, 8 * 50 * 4);
    assert_eq!(status.frontends[0].datagrams_dropped_total, 0);
}

#[test]
fn what_a_dead_server_did_not_take_is_answered_by_another() {
    let alive = Oracle::named("alive");
    let door = Door::datagrams(1);
    let plan = udp_plan(&door, "", "responses 1", &[closed(), alive.address]);
    let proxy = Proxy::start(&plan, &[&door]);
    for _ in 0..50 {
        assert_eq!(Asker::of(&door).ask("anybody?"), "alive");
    }
    let lines = proxy.lines(50);
    let again = lines.iter().filter(|line| line.ends_with("/+1 0/0")).count() as u64;
    assert!(again >= 25, "{lines:?}");
    assert!(lines.iter().all(|line| line.contains(" app/s2 ") && line.contains(" 5 -- ")), "{lines:?}");
    wait("the end", || proxy.status().frontends[0].connections == 0);
    let status = proxy.status();
    let dead = &status.backends[0].servers[0];
    assert_eq!((dead.connect_errors_total, dead.redispatches_total, dead.active), (again, again, 0));
    assert_eq!(status.frontends[0].datagrams_dropped_total, 0);
}

#[test]
fn a_server_that_dies_between_two_questions_costs_none() {
    let dying = UdpSocket::bind("127.0.0.1:0").unwrap();
    let alive = Oracle::named("alive");
    let door = Door::datagrams(1);
    let plan = udp_plan(&door, "", "", &[dying.local_addr().unwrap(), alive.address]);
    let _proxy = Proxy::start(&plan, &[&door]);
    let client = Asker::of(&door);
    client.send("first");
    let mut buffer = [0; 16];
    let (_, from) = dying.recv_from(&mut buffer).unwrap();
    dying.send_to(b"dying", from).unwrap();
    assert_eq!(client.receive(), b"dying");
    drop(dying);
    assert_eq!(client.ask("second"), "alive");
    assert_eq!(client.ask("third"), "alive");
}

#[test]
fn where_nobody_answers_a_datagram_is_counted_as_lost() {
    let door = Door::datagrams(1);
    let proxy = Proxy::start(&udp_plan(&door, "", "responses 1", &[closed(), closed()]), &[&door]);
    let client = Asker::of(&door);
    client.send("anybody?");
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" 0 SC ") && line.ends_with("/+1 0/0"), "{line}");
    let status = proxy.status();
    assert_eq!((status.frontends[0].datagrams_dropped_total, status.backends[0].unserved_total), (1, 1));
    assert_eq!(status.frontends[0].connections, 0);
    assert!(client.hears_nothing());
}

#[test]
fn a_silent_server_is_passed_over_where_the_file_says_so() {
    let (silent, alive) = (Oracle::silent(), Oracle::named("alive"));
    let door = Door::datagrams(1);
    let servers = [silent.address, alive.address];
    let back = "responses 1\n timeout server=\"50ms\" session=\"5s\"";
    let mut proxy = Proxy::start(&udp_plan(&door, "", &format!("{back}\n redispatch"), &servers), &[&door]);
    for _ in 0..4 {
        assert_eq!(Asker::of(&door).ask("anybody?"), "alive");
    }
    let asked = silent.asked();
    assert!(asked >= 2, "{asked}");
    assert_eq!(proxy.status().backends[0].servers[0].response_errors_total, u64::from(asked));
    // Without it, whoever was asked is waited for.
    assert!(matches!(proxy.plan(&udp_plan(&door, "", back, &servers), &[&door]), Report::Ready { .. }));
    let clients = [Asker::of(&door), Asker::of(&door)];
    clients.iter().for_each(|client| client.send("anybody?"));
    wait("the silent server", || silent.asked() == asked + 1);
    wait("the other's answer", || proxy.status().frontends[0].datagrams_out_total == 5);
    assert_eq!(clients.iter().filter(|client| client.hears_nothing()).count(), 1);
}

#[test]
fn a_full_table_drops_datagrams_and_counts_them() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(PATIENCE)).unwrap();
    let door = Door::datagrams(1);
    let plan = udp_plan(&door, "max-connections 2", "responses 1", &[server.local_addr().unwrap()]);
    let proxy = Proxy::start(&plan, &[&door]);
    let clients: Vec<Asker> = (0..3).map(|_| Asker::of(&door)).collect();
    let asked = |client: &Asker| {
        client.send("question");
        server.recv_from(&mut [0; 16]).unwrap().1
    };
    let [first, _second] = [&clients[0], &clients[1]].map(asked);
    clients[2].send("one too many");
    wait("the drop", || proxy.status().frontends[0].datagrams_dropped_total == 1);
    // Who has a session keeps it, and the end of one makes room.
    assert_eq!(asked(&clients[0]), first);
    for _ in 0..2 {
        server.send_to(b"answer", first).unwrap();
        assert_eq!(clients[0].receive(), b"answer");
    }
    wait("a free place", || proxy.status().frontends[0].connections == 1);
    let third = asked(&clients[2]);
    server.send_to(b"at last", third).unwrap();
    assert_eq!(clients[2].receive(), b"at last");
    assert_eq!(proxy.status().frontends[0].datagrams_dropped_total, 1);
}

#[test]
fn a_server_has_no_more_sessions_than_it_may() {
    let server = Oracle::echo();
    let door = Door::datagrams(1);
    let text = udp_plan(&door, "", "", &[server.address]);
    let text = text
        .replace(&format!("\"{}\"", server.address), &format!("\"{}\" max-connections=1", server.address));
    let proxy = Proxy::start(&text, &[&door]);
    assert_eq!(Asker::of(&door).ask("1"), "1");
    Asker::of(&door).send("2");
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" app/<NOSRV> ") && line.contains(" 0 PQ "), "{line}");
    assert_eq!(proxy.status().frontends[0].datagrams_dropped_total, 1);
}

#[test]
fn sessions_survive_a_reload_and_new_ones_take_the_new_plan() {
    let (old, new) = (Oracle::named("old"), Oracle::named("new"));
    let door = Door::datagrams(1);
    let mut proxy = Proxy::start(&udp_plan(&door, "", "", &[old.address]), &[&door]);
    let before = Asker::of(&door);
    assert_eq!(before.ask("who?"), "old");
    for _ in 0..2 {
        let report = proxy.plan(&udp_plan(&door, "", "", &[new.address]), &[&door]);
        assert!(matches!(report, Report::Ready { .. }), "{report:?}");
        assert_eq!(before.ask("who?"), "old");
        assert_eq!(Asker::of(&door).ask("who?"), "new");
    }
}

#[test]
fn a_frontend_that_is_taken_out_still_answers_what_was_asked() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (door, other) = (Door::datagrams(1), Door::datagrams(1));
    let back = "responses 1";
    let address = server.local_addr().unwrap();
    let mut proxy = Proxy::start(&udp_plan(&door, "", back, &[address]), &[&door]);
    let client = Asker::of(&door);
    client.send("first");
    let mut buffer = [0; 16];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    let text = udp_plan(&other, "", back, &[address]).replace("web", "dns");
    assert!(matches!(proxy.plan(&text, &[&other]), Report::Ready { .. }));
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.receive(), b"answer");
    let client = Asker::of(&other);
    client.send("second");
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.receive(), b"answer");
}

#[test]
fn a_frontend_that_comes_back_while_old_sessions_last_loses_nothing() {
    let (server, elsewhere) = (Oracle::echo(), Door::datagrams(1));
    let door = Door::datagrams(1);
    let mut proxy = Proxy::start(&udp_plan(&door, "", "", &[server.address]), &[&door]);
    let old = Asker::of(&door);
    assert_eq!(old.ask("before"), "before");
    let text = udp_plan(&elsewhere, "", "", &[server.address]);
    assert!(matches!(proxy.plan(&text, &[&elsewhere]), Report::Ready { .. }));
    assert_eq!(old.ask("between"), "between");
    // Nobody new is taken there.
    let late = Asker::of(&door);
    late.send("too late");
    wait("the drop", || proxy.status().frontends[0].datagrams_dropped_total == 1);
    // Its sockets are others now, beside the one that the old session keeps open: the kernel shares out among them.
    let again = Door::datagrams_at(door.address, 1);
    drop(door);
    assert!(matches!(
        proxy.plan(&udp_plan(&again, "", "", &[server.address]), &[&again]),
        Report::Ready { .. }
    ));
    for n in 0..30 {
        assert_eq!(Asker::of(&again).ask(format!("{n}")), format!("{n}"));
    }
    assert_eq!(old.ask("after"), "after");
}

/// A port of both protocols.
fn on_both() -> (std::net::TcpListener, UdpSocket) {
    loop {
        let tcp = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        if let Ok(udp) = UdpSocket::bind(tcp.local_addr().unwrap()) {
            return (tcp, udp);
        }
    }
}

#[test]
fn what_a_server_that_goes_down_owes_is_asked_of_another() {
    // Both are silent by UDP; the checks are of TCP.
    let [(first, one), (second, two)] = [0, 1].map(|_| on_both());
    let sockets = [one, two];
    let addresses = [0, 1].map(|i| sockets[i].local_addr().unwrap());
    let door = Door::datagrams(1);
    let back = "responses 1\n check tcp every=\"20ms\" fall=1 rise=1";
    let mut proxy = Proxy::start(&udp_plan(&door, "", back, &addresses), &[&door]);
    let clients = [Asker::of(&door), Asker::of(&door)];
    clients.iter().for_each(|client| client.send("held"));
    sockets.iter().for_each(|socket| assert_eq!(socket.recv(&mut [0; 16]).unwrap(), 4));
    drop(first);
    proxy.wait_server("s1", false);
    let mut buffer = [0; 16];
    let (length, from) = sockets[1].recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"held");
    sockets[1].send_to(b"answer", from).unwrap();
    assert!(proxy.lines(1)[0].contains(" app/s2 "), "{:?}", proxy.lines(1));
    // Nobody is left for the other session's question.
    drop(second);
    proxy.wait_server("s2", false);
    let line = proxy.lines(2).remove(1);
    assert!(line.contains(" app/s2 ") && line.contains(" 0 SC "), "{line}");
    assert_eq!(proxy.status().frontends[0].datagrams_dropped_total, 1);
}

#[test]
fn a_stop_waits_for_what_is_owed_and_no_longer() {
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let door = Door::datagrams(1);
    let back = "responses 1\n timeout session=\"1h\"";
    let mut proxy = Proxy::start(&udp_plan(&door, "", back, &[server.local_addr().unwrap()]), &[&door]);
    let client = Asker::of(&door);
    client.send("question");
    let mut buffer = [0; 16];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    proxy.order(&Order::Drain { limit_ms: 60_000 }, None);
    wait("the drain", || proxy.status().draining);
    server.send_to(b"answer", from).unwrap();
    assert_eq!(client.receive(), b"answer");
    assert_eq!(proxy.report(), Report::Drained { unfinished: 0 });

    // What is never answered is not waited for.
    let log = Oracle::silent();
    let back = "responses 0\n timeout session=\"1h\"";
    let door = Door::datagrams(1);
    let mut proxy = Proxy::start(&udp_plan(&door, "", back, &[log.address]), &[&door]);
    Asker::of(&door).send("line");
    wait("the line", || log.asked() == 1);
    assert_eq!(proxy.status().frontends[0].connections, 1);
    proxy.order(&Order::Drain { limit_ms: 60_000 }, None);
    assert_eq!(proxy.report(), Report::Drained { unfinished: 0 });
}

#[test]
fn what_waits_in_a_socket_is_left_to_who_has_it_too() {
    let server = Oracle::named("old");
    let door = Door::datagrams(1);
    let mut proxy = Proxy::start(&udp_plan(&door, "", "responses 1", &[server.address]), &[&door]);
    assert_eq!(Asker::of(&door).ask("who?"), "old");
    proxy.order(&Order::Retire { limit_ms: 60_000 }, None);
    assert_eq!(proxy.report(), Report::Drained { unfinished: 0 });
    let client = Asker::of(&door);
    client.send("who?");
    let server = Oracle::named("new");
    let _next = Proxy::start(&udp_plan(&door, "", "responses 1", &[server.address]), &[&door]);
    assert_eq!(client.receive(), b"new");
}

#[test]
fn connections_and_datagrams_share_an_address() {
    let (names, lines) = (Oracle::named("by UDP"), Origin::new(|mut peer| peer.send("by TCP")));
    let tcp = Door::new(1);
    let udp = Door::datagrams_at(tcp.address, 1);
    let text = udp_plan(&udp, "", "", &[names.address]).replace("web", "dns").replace("app", "resolvers");
    let both = text + &plan(&tcp, "mode tcp", "mode tcp", &[lines.address]);
    let _proxy = Proxy::start(&both, &[&tcp, &udp]);
    assert_eq!(Asker::of(&udp).ask("how?"), "by UDP");
    assert_eq!(Peer::connect(tcp.address).rest(), "by TCP");
}

/// A name server that finds every name, or none.
fn name_server(code: Arc<AtomicU32>) -> Oracle {
    Oracle::new(move |question| {
        let mut answer = question.to_vec();
        (answer[2], answer[3]) = (0x80, code.load(Ordering::SeqCst) as u8);
        vec![answer]
    })
}

#[test]
fn a_dns_check_takes_a_server_out() {
    let (well, sick) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (one, two) = (name_server(well), name_server(sick.clone()));
    let door = Door::datagrams(1);
    let back = "responses 1\n check dns name=\"www.example\" every=\"20ms\" fall=1 rise=1";
    let mut proxy = Proxy::start(&udp_plan(&door, "", back, &[one.address, two.address]), &[&door]);
    sick.store(2, Ordering::SeqCst);
    proxy.wait_server("s2", false);
    let status = proxy.status();
    assert_eq!(status.backends[0].servers[1].check, "SERVFAIL, expected NOERROR");
    sick.store(0, Ordering::SeqCst);
    proxy.wait_server("s2", true);
}

#[test]
fn descriptors_come_back_with_the_end_of_sessions() {
    let count = || {
        let links = std::fs::read_dir("/proc/self/fd").unwrap();
        links.filter_map(|fd| std::fs::read_link(fd.ok()?.path()).ok()).count()
    };
    let server = Oracle::echo();
    let door = Door::datagrams(1);
    let proxy = Proxy::start(&udp_plan(&door, "", "responses 1", &[server.address]), &[&door]);
    assert_eq!(Asker::of(&door).ask("first"), "first");
    wait("the end", || proxy.status().frontends[0].connections == 0);
    let before = count();
    for i in 0..300 {
        assert_eq!(Asker::of(&door).ask(format!("{i}")), format!("{i}"));
    }
    wait("the end", || proxy.status().frontends[0].connections == 0);
    // Other tests of this binary run in processes of their own.
    assert!(count() <= before + 5, "{} after {before}", count());
}

#[test]
fn a_socket_that_came_for_tcp_does_not_stand_in_for_udp() {
    let door = Door::new(1);
    let mut proxy = Proxy::bare(1);
    let report = proxy.plan(&udp_plan(&door, "", "", &[closed()]), &[&door]);
    let Report::Refused { why, .. } = report else { panic!("{report:?}") };
    assert!(why.contains("no listening socket came for") && why.contains("(UDP)"), "{why}");
    let _: &[OwnedFd] = door.sockets();
}
