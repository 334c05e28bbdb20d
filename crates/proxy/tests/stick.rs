//! Clients that stay with their server by a table: `stick`, `persist learn=`.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;

use common::*;
use relais_ipc::status::TableStatus;
use relais_ipc::{Order, Report};

/// Servers that answer with their number, and give out a session where `/login` is asked for.
fn servers(count: usize) -> Vec<Origin> {
    let serve = |number: usize| {
        move |mut peer: Peer| {
            let mut sessions = 0;
            while let Some(head) = peer.try_head() {
                let port = peer.io.get_ref().peer_addr().unwrap().port();
                sessions += 1;
                let cookie = match head.starts_with("GET /login") {
                    true => format!("Set-Cookie: PHPSESSID=id{number}x{port}x{sessions}; path=/\r\n"),
                    false => String::new(),
                };
                peer.send(format!("HTTP/1.1 200 OK\r\n{cookie}Content-Length: 1\r\n\r\n{number}"));
            }
        }
    };
    (1..=count).map(|number| Origin::new(serve(number))).collect()
}

fn addresses(origins: &[Origin]) -> Vec<SocketAddr> {
    origins.iter().map(|origin| origin.address).collect()
}

/// The head of the answer, and the server's number.
fn ask(door: &Door, target: &str, fields: &str) -> (String, usize) {
    let mut client = Peer::connect(door.address);
    client.send(format!("GET {target} HTTP/1.1\r\nHost: h\r\n{fields}\r\n"));
    let (head, body) = client.message();
    let number = body.parse().unwrap_or_else(|_| panic!("no server's answer: {head}{body}"));
    (head, number)
}

fn table(proxy: &Proxy) -> TableStatus {
    proxy.status().backends[0].table.clone().unwrap()
}

#[test]
fn whoever_has_a_key_stays_with_the_server_that_answered_it() {
    let (door, origins) = (Door::new(2), servers(3));
    let mut proxy = Proxy::bare(2);
    let text = plan(&door, "", "stick header name=X-User", &addresses(&origins));
    assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
    let user = |user: usize| ask(&door, "/", &format!("X-User: u{user}\r\n")).1;
    let first: Vec<usize> = (0..12).map(user).collect();
    assert!((1..=3).all(|server| first.contains(&server)), "without an entry the balance decides: {first:?}");
    for _ in 0..3 {
        assert_eq!((0..12).map(user).collect::<Vec<_>>(), first, "both workers have one table");
    }
    let found = table(&proxy);
    assert_eq!((found.entries, found.size, found.known_total, found.unknown_total), (12, 20_480, 36, 12));
    let others: Vec<usize> = (0..6).map(|_| ask(&door, "/", "").1).collect();
    assert!((1..=3).all(|server| others.contains(&server)), "without a key, too: {others:?}");
    assert_eq!(table(&proxy).entries, 12);
}

#[test]
fn who_sticks_to_a_dead_server_moves_and_stays_there() {
    let (door, origins) = (Door::new(1), servers(2));
    let servers = [addresses(&origins), vec![nobody()]].concat();
    let _proxy =
        Proxy::start(&plan(&door, "", "stick header name=X-User\nretries 3\nredispatch", &servers), &[&door]);
    for user in 0..9 {
        let ask = || ask(&door, "/", &format!("X-User: u{user}\r\n")).1;
        let first = ask();
        assert!(first < 3);
        assert_eq!([ask(), ask()], [first; 2]);
    }
}

#[test]
fn keys_of_all_kinds_stick() {
    let origins = servers(3);
    for (stick, same, others) in [
        ("src", vec![("/", ""), ("/b", "")], vec![]),
        ("\"src+path\"", vec![("/a", "")], vec![("/b", ""), ("/c", "")]),
        (
            "cookie name=ID",
            vec![("/", "Cookie: x=y; ID=7\r\n"), ("/b", "Cookie: ID=7\r\n")],
            vec![("/", "Cookie: ID=8\r\n")],
        ),
        ("query name=id", vec![("/?id=7", ""), ("/b?x=1&id=7", "")], vec![("/?id=8", ""), ("/?id=9", "")]),
        ("path depth=1", vec![("/a/b", ""), ("/a/c/d", "")], vec![("/b/b", ""), ("/c/b", "")]),
        ("path", vec![("/a/b", ""), ("/a/x/../b", "")], vec![("/a/c", ""), ("/a/d", "")]),
        (
            "header name=X",
            vec![("/", "X: 1\r\n"), ("/", "x: 1\r\n")],
            vec![("/", "X: 2\r\n"), ("/", "X: 3\r\n")],
        ),
    ] {
        let door = Door::new(1);
        let proxy = Proxy::start(&plan(&door, "", &format!("stick {stick}"), &addresses(&origins)), &[&door]);
        let (path, fields) = same[0];
        let first = ask(&door, path, fields).1;
        for (path, fields) in same.iter().cycle().take(6) {
            assert_eq!(ask(&door, path, fields).1, first, "{stick}: {path} {fields}");
        }
        for (path, fields) in &others {
            ask(&door, path, fields);
        }
        assert_eq!(table(&proxy).entries, 1 + others.len() as u64, "{stick}");
    }
}

#[test]
fn a_table_outlives_reloads_and_changes_of_the_servers_order() {
    let (door, origins) = (Door::new(1), servers(3));
    let text = |back: &str, order: [usize; 3]| {
        let mut text = plan(&door, "", back, &[]);
        text.truncate(text.rfind('}').unwrap());
        for at in order {
            text += &format!(" server s{at} \"{}\"\n", origins[at - 1].address);
        }
        text + "}\n"
    };
    let stick = "stick header name=X-User";
    let mut proxy = Proxy::start(&text(stick, [1, 2, 3]), &[&door]);
    let user = |user: usize| ask(&door, "/", &format!("X-User: u{user}\r\n")).1;
    let first: Vec<usize> = (0..9).map(user).collect();
    assert_eq!(
        proxy.plan(&text(&format!("{stick} size=9 expire=\"1h\""), [3, 1, 2]), &[]),
        Report::Ready { generation: 2 }
    );
    assert_eq!((0..9).map(user).collect::<Vec<_>>(), first);
    assert_eq!(
        proxy.plan(&text("stick header name=X-Other", [3, 1, 2]), &[]),
        Report::Ready { generation: 3 }
    );
    assert_eq!(table(&proxy).entries, 0, "other keys, another table");
}

#[test]
fn the_next_process_reads_what_the_last_one_wrote() {
    for stick in ["header name=X-User", "src"] {
        let (door, origins) = (Door::new(1), servers(3));
        let text = plan(&door, "", &format!("stick {stick}"), &addresses(&origins));
        let mut proxy = Proxy::start(&text, &[&door]);
        let from = |host: u8| {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
            socket.bind(&SocketAddr::from(([127, 9, 6, host], 0)).into()).unwrap();
            socket.connect(&door.address.into()).unwrap();
            let mut client = Peer::new(socket.into());
            client.send(format!("GET / HTTP/1.1\r\nHost: h\r\nX-User: u{host}\r\n\r\n"));
            client.message().1
        };
        let first: Vec<String> = (1..41).map(from).collect();
        let file = std::fs::File::from(proxy.tables.remove("app").unwrap());
        // As its bytes are at the moment of a death.
        let written = || file.metadata().unwrap().len() > 64 && slots(&file, stick == "src") == 40;
        wait("all of it to be written", written);
        drop(proxy);
        let mut proxy = Proxy::bare(1);
        proxy.order(&Order::Table { backend: "app".into() }, Some(file.into()));
        assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
        assert_eq!(table(&proxy).entries, 40, "{stick}");
        let mut again: Vec<String> = (1..41).rev().map(from).collect();
        again.reverse();
        assert_eq!(again, first, "{stick}");
        // One of another kind, or torn, is left alone.
        drop(proxy);
        let torn = std::fs::File::from(relais_ipc::channel::text_to_fd(&"RlStick1".repeat(100)).unwrap());
        let mut proxy = Proxy::bare(1);
        proxy.order(&Order::Table { backend: "app".into() }, Some(torn.into()));
        assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
        assert_eq!(table(&proxy).entries, 0);
    }
}

/// Slots of a table's file that are in use.
fn slots(file: &std::fs::File, is_address: bool) -> usize {
    let length = if is_address { 40 } else { 152 };
    let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
    std::os::unix::fs::FileExt::read_exact_at(file, &mut bytes, 0).unwrap();
    bytes[64..].chunks(length).filter(|slot| slot[4] > 0).count()
}

#[test]
fn a_full_table_forgets_who_came_longest_ago_and_old_keys_expire() {
    let (door, origins) = (Door::new(1), servers(3));
    let back = "stick query name=id size=4 expire=\"1s\"";
    let proxy = Proxy::start(&plan(&door, "", back, &addresses(&origins)), &[&door]);
    for id in 0..12 {
        ask(&door, &format!("/?id={id}"), "");
    }
    let found = table(&proxy);
    assert!(found.entries <= 4 && found.evicted_total >= 8, "{found:?}");
    wait("the end of all keys", || table(&proxy).entries == 0);
}

#[test]
fn a_session_stays_with_the_server_that_gave_its_cookie() {
    let (door, origins) = (Door::new(1), servers(3));
    let proxy = Proxy::start(&plan(&door, "", "persist learn=PHPSESSID", &addresses(&origins)), &[&door]);
    for round in 1..=6 {
        let (head, server) = ask(&door, "/login", "");
        let set = field(&head, "set-cookie").unwrap();
        let id = set.split([';', '=']).nth(1).unwrap();
        for _ in 0..4 {
            assert_eq!(ask(&door, "/", &format!("Cookie: a=b; PHPSESSID={id}\r\n")).1, server);
            assert_eq!(ask(&door, &format!("/x;phpsessid={id}?y"), "").1, server);
        }
        assert_eq!(table(&proxy).entries, round);
    }
    // One of which the table has lost every trace stays where it was answered.
    let lost = || ask(&door, "/", "Cookie: PHPSESSID=lost\r\n").1;
    assert_eq!([lost(), lost()], [lost(); 2]);
}

/// A server that says its number to whoever connects, when the first bytes have come.
fn speakers(count: usize) -> Vec<Origin> {
    let serve = |number: usize| {
        move |mut peer: Peer| {
            peer.take(1);
            peer.send(format!("{number}"));
            peer.rest_bytes();
        }
    };
    (1..=count).map(|number| Origin::new(serve(number))).collect()
}

#[test]
fn a_connection_sticks_by_its_address_and_by_the_name_in_its_handshake() {
    let origins = speakers(3);
    let tcp =
        |door: &Door, back: &str| plan(door, "mode tcp", &format!("mode tcp\n {back}"), &addresses(&origins));
    let door = Door::new(1);
    let proxy = Proxy::start(&tcp(&door, "stick src"), &[&door]);
    let from = |host: u8| {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from(([127, 9, 8, host], 0)).into()).unwrap();
        socket.connect(&door.address.into()).unwrap();
        let mut client = Peer::new(socket.into());
        client.send("x");
        client.text(1)
    };
    let first: Vec<String> = (1..11).map(from).collect();
    assert!(["1", "2", "3"].iter().all(|server| first.iter().any(|one| one == server)), "{first:?}");
    assert_eq!((1..11).map(from).collect::<Vec<_>>(), first);
    assert_eq!(table(&proxy).entries, 10);

    let door = Door::new(1);
    let proxy = Proxy::start(&tcp(&door, "stick sni"), &[&door]);
    let config = Arc::new(
        rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth(),
    );
    let named = |name: usize| {
        let name = format!("h{name}.example").try_into().unwrap();
        let mut hello = Vec::new();
        rustls::ClientConnection::new(config.clone(), name).unwrap().write_tls(&mut hello).unwrap();
        let mut client = Peer::connect(door.address);
        client.send(hello);
        client.text(1)
    };
    let first: Vec<String> = (1..8).map(named).collect();
    assert_eq!((1..8).map(named).collect::<Vec<_>>(), first);
    assert_eq!(table(&proxy).entries, 7);
}
