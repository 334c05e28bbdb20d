//! Plans that change, drains, the death of the supervisor, checks, the status and the log.

#![allow(clippy::unwrap_used)]

mod common;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::*;
use relais_ipc::{Order, Report};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn saying(word: &'static str) -> Origin {
    Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{word}", word.len()));
        }
    })
}

#[test]
fn a_kept_connection_takes_the_new_plan_at_its_next_request() {
    let (old, new) = (saying("old"), saying("new"));
    let door = Door::new(1);
    let mut proxy = Proxy::start(&plan(&door, "", "", &[old.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    assert_eq!(client.message().1, "old");
    assert_eq!(proxy.plan(&plan(&door, "", "", &[new.address]), &[]), Report::Ready { generation: 2 });
    client.send(get("/"));
    assert_eq!(client.message().1, "new");
    let status = proxy.status();
    assert_eq!((status.generation, status.frontends[0].requests_total), (2, 2), "counters survive by name");
}

#[test]
fn a_plan_that_cannot_be_used_changes_nothing() {
    let origin = saying("ok");
    let door = Door::new(1);
    let good = plan(&door, "", "", &[origin.address]);
    let mut proxy = Proxy::start(&good, &[&door]);
    let elsewhere = Door::new(1);
    for (bad, reason) in [
        (good.replace("default-backend app", "default-backend nobody"), "nobody"),
        (good.replace(&door.address.to_string(), &elsewhere.address.to_string()), "no listening socket came"),
    ] {
        match proxy.plan(&bad, &[]) {
            Report::Refused { why, .. } => assert!(why.contains(reason), "{why}"),
            other => panic!("{other:?}"),
        }
        let mut client = Peer::connect(door.address);
        client.send(get("/"));
        assert_eq!(client.message().1, "ok");
        assert_eq!(proxy.status().generation, 1);
    }
}

#[test]
fn swapping_plans_under_load_fails_no_request() {
    let origin = saying("ok");
    let door = Door::new(1);
    let text = |server: &str| {
        format!(
            "frontend web {{\n bind \"{}\"\n default-backend app\n}}\nbackend app {{\n server {server} \"{}\"\n}}\n",
            door.address, origin.address
        )
    };
    let mut proxy = Proxy::start(&text("a"), &[&door]);
    let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|i| {
            let (stop, served, address) = (stop.clone(), served.clone(), door.address);
            std::thread::spawn(move || {
                let mut client = Peer::connect(address);
                while !stop.load(Ordering::Relaxed) {
                    if i % 2 == 0 {
                        client = Peer::connect(address); // some come new each time
                    }
                    client.send(get("/"));
                    assert_eq!(client.message().1, "ok");
                    served.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for generation in 2..30 {
        let before = served.load(Ordering::Relaxed);
        let name = if generation % 2 == 0 { "b" } else { "a" };
        assert_eq!(proxy.plan(&text(name), &[]), Report::Ready { generation });
        wait("requests under this plan", || served.load(Ordering::Relaxed) > before + 4);
    }
    stop.store(true, Ordering::Relaxed);
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn a_removed_frontend_serves_what_it_has_and_listens_no_more() {
    let origin = saying("ok");
    let (stays, goes) = (Door::new(1), Door::new(1));
    let one = plan(&stays, "", "", &[origin.address]);
    let both = format!("{one}frontend extra {{\n bind \"{}\"\n default-backend app\n}}\n", goes.address);
    let mut proxy = Proxy::start(&both, &[&stays, &goes]);
    let mut client = Peer::connect(goes.address);
    client.send(get("/"));
    client.message();
    assert_eq!(proxy.plan(&one, &[]), Report::Ready { generation: 2 });
    client.send(get("/"));
    let (head, body) = client.message();
    assert_eq!((field(&head, "connection"), body.as_str()), (Some("close"), "ok"));
    // The test still holds the socket, so a connection waits there; nobody takes it.
    let mut late = Peer::connect(goes.address);
    late.send(get("/"));
    late.io.get_ref().set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    assert!(late.try_head().is_none());
    // A third plan brings it back.
    assert_eq!(proxy.plan(&both, &[&goes]), Report::Ready { generation: 3 });
    late.io.get_ref().set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(late.message().1, "ok");
}

#[test]
fn a_draining_proxy_says_close_and_ends_when_nothing_is_open() {
    let origin = saying("ok");
    let door = Door::new(1);
    let mut proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut idle = Peer::connect(door.address);
    idle.send(get("/"));
    assert_eq!(field(&idle.message().0, "connection"), None);
    proxy.order(&Order::Drain { limit_ms: 60_000 }, None);
    wait("the drain", || proxy.status().draining);
    // A new connection is still served; a kept one is not cut, and ends with its next answer.
    for client in [&mut Peer::connect(door.address), &mut idle] {
        client.send(get("/"));
        let (head, body) = client.message();
        assert_eq!((field(&head, "connection"), body.as_str()), (Some("close"), "ok"));
    }
    drop(idle);
    assert_eq!(proxy.report(), Report::Drained { unfinished: 0 });
    assert_eq!(proxy.join(), ExitCode::SUCCESS);
    assert_eq!(proxy.lines(3).len(), 3, "the log is complete");
}

#[test]
fn a_drain_waits_for_the_keep_alive_time_of_idle_connections() {
    let origin = saying("ok");
    let door = Door::new(1);
    let front = "timeout keep-alive=\"200ms\"";
    let mut proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut idle = Peer::connect(door.address);
    idle.send(get("/"));
    idle.message();
    let start = Instant::now();
    proxy.order(&Order::Drain { limit_ms: 60_000 }, None);
    assert_eq!(proxy.report(), Report::Drained { unfinished: 0 });
    assert!(start.elapsed() >= Duration::from_millis(150), "{:?}", start.elapsed());
    assert_eq!(idle.rest(), "");
}

#[test]
fn a_drain_cuts_at_its_limit_and_says_how_many() {
    let origin = Origin::new(|mut peer| while peer.try_head().is_some() {});
    let door = Door::new(1);
    let mut proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut clients: Vec<_> = (0..3).map(|_| Peer::connect(door.address)).collect();
    clients.iter_mut().for_each(|client| client.send(get("/")));
    wait("three requests", || proxy.status().frontends[0].requests_total == 3);
    proxy.order(&Order::Drain { limit_ms: 100 }, None);
    assert_eq!(proxy.report(), Report::Drained { unfinished: 3 });
    assert_eq!(proxy.join(), ExitCode::SUCCESS);
}

#[test]
fn a_proxy_whose_supervisor_dies_drains_and_ends() {
    let origin = saying("ok");
    let door = Door::new(1);
    let mut proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    client.message();
    proxy.hang_up();
    wait("the drain", || proxy.status().draining);
    client.send(get("/"));
    assert_eq!(field(&client.message().0, "connection"), Some("close"));
    assert_eq!(proxy.join(), ExitCode::SUCCESS);
}

#[test]
fn checks_take_servers_out_and_bring_them_back() {
    let well = Arc::new(AtomicBool::new(false));
    let says = well.clone();
    let origin = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let ill = head.starts_with("GET /up ") && !says.load(Ordering::SeqCst);
            peer.send(if ill { "HTTP/1.1 503 Ill\r\nContent-Length: 0\r\n\r\n" } else { OK });
        }
    });
    let steady = saying("steady");
    let door = Door::new(1);
    let back = "check http path=\"/up\" every=\"20ms\" fall=3 rise=2";
    let mut proxy = Proxy::start(&plan(&door, "", back, &[origin.address, steady.address]), &[&door]);
    proxy.wait_server("s1", false);
    let mut client = Peer::connect(door.address);
    for _ in 0..4 {
        client.send(get("/"));
        assert_eq!(client.message().1, "steady");
    }
    well.store(true, Ordering::SeqCst);
    proxy.wait_server("s1", true);
    wait("requests at the returned server", || {
        client.send(get("/"));
        client.message().1 == "ok"
    });
    let status = proxy.status();
    assert_eq!(status.backends[0].servers[0].downs_total, 1);
    assert!(status.backends[0].servers.iter().all(|server| server.up && server.checked));
}

#[test]
fn a_server_that_was_down_for_the_predecessor_starts_down() {
    let (was_down, well) = (saying("down"), saying("well"));
    let door = Door::new(1);
    let mut proxy = Proxy::bare(1);
    proxy.order(&Order::Server { backend: "app".into(), server: "s1".into(), up: false }, None);
    let back = "check tcp every=\"1h\"";
    let report = proxy.plan(&plan(&door, "", back, &[was_down.address, well.address]), &[&door]);
    assert_eq!(report, Report::Ready { generation: 1 });
    let mut client = Peer::connect(door.address);
    for _ in 0..4 {
        client.send(get("/"));
        assert_eq!(client.message().1, "well");
    }
}

#[test]
fn weights_share_requests_out() {
    let (light, heavy) = (saying("light"), saying("heavy"));
    let door = Door::new(1);
    let text = plan(&door, "", "", &[light.address, heavy.address]);
    let server = format!("\"{}\"", heavy.address);
    let _proxy = Proxy::start(&text.replace(&server, &format!("{server} weight=3")), &[&door]);
    let mut client = Peer::connect(door.address);
    let mut count = 0;
    for _ in 0..40 {
        client.send(get("/"));
        count += usize::from(client.message().1 == "heavy");
    }
    assert_eq!(count, 30);
}

#[test]
fn an_access_line_has_the_fields_of_httplog() {
    let origin = saying("four");
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send("GET /a\"b?c HTTP/1.1\r\nHost: h\r\n\r\n");
    let (head, body) = client.message();
    let line = proxy.lines(1).remove(0);
    let port = client.io.get_ref().local_addr().unwrap().port();
    let bytes = head.len() + body.len();
    let (address, rest) = line.split_once(" [").unwrap();
    let (date, rest) = rest.split_once("] ").unwrap();
    assert_eq!(address, format!("127.0.0.1:{port}"));
    // 22/Nov/2026:19:57:00.123
    let shape: String = date.chars().map(|c| if c.is_ascii_digit() { '9' } else { c }).collect();
    let month = shape.split('/').nth(1).unwrap().to_owned();
    assert_eq!(shape.replace(&month, "Mon"), "99/Mon/9999:99:99:99.999");
    let fields: Vec<&str> = rest.splitn(11, ' ').collect();
    assert_eq!(fields[..2], ["web", "app/s1"]);
    let times: Vec<i64> = fields[2].split('/').map(|t| t.parse().unwrap()).collect();
    assert!(times.len() == 5 && times.iter().all(|t| (0..1000).contains(t)), "{line}");
    assert_eq!(fields[3..6], ["200", &bytes.to_string(), "-"]);
    assert_eq!(fields[6..10], ["-", "----", "1/1/0/0/0", "0/0"]);
    assert_eq!(fields[10], "\"GET /a#22b?c HTTP/1.1\"");
}

#[test]
fn the_status_document_counts_what_happened() {
    let origin = saying("body");
    let door = Door::new(1);
    let proxy = Proxy::start(&plan(&door, "max-connections 77", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let request = get("/");
    let mut out = 0;
    for _ in 0..3 {
        client.send(&request);
        let (head, body) = client.message();
        out += (head.len() + body.len()) as u64;
    }
    // A client has its answer a moment before the books are closed.
    wait("the counters", || proxy.status().frontends[0].bytes_out_total == out);
    let status = proxy.status();
    let front = &status.frontends[0];
    assert_eq!((front.name.as_str(), front.mode.as_str(), front.max_connections), ("web", "http", 77));
    assert_eq!((front.connections, front.connections_total, front.requests_total), (1, 1, 3));
    assert_eq!((front.responses_total, front.request_errors_total), ([0, 3, 0, 0, 0, 0], 0));
    assert_eq!((front.bytes_in_total, front.bytes_out_total), (3 * request.len() as u64, out));
    let server = &status.backends[0].servers[0];
    assert_eq!((server.active, server.idle, server.sessions_total), (0, 1, 3));
    assert_eq!((server.responses_total, server.up, server.checked), ([0, 3, 0, 0, 0, 0], true, false));
    let dates = 3 * "Date: Sun, 06 Nov 1994 08:49:37 GMT\r\n".len() as u64;
    assert_eq!(server.bytes_out_total, out - dates, "what came from the server went to the client, dated");
    assert_eq!((server.address.as_str(), server.weight), (origin.address.to_string().as_str(), 1));
}

#[test]
fn two_workers_share_the_connections_of_a_bind() {
    let origin = saying("ok");
    let door = Door::new(2);
    let mut proxy = Proxy::bare(2);
    let text = plan(&door, "", "", &[origin.address]);
    assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
    // Enough for the kernel to give some to each.
    let mut clients: Vec<_> = (0..50).map(|_| Peer::connect(door.address)).collect();
    for client in &mut clients {
        client.send(get("/"));
        assert_eq!(client.message().1, "ok");
    }
    let status = proxy.status();
    assert_eq!(
        (status.workers, status.frontends[0].connections, status.frontends[0].requests_total),
        (2, 50, 50)
    );
    assert!(origin.accepted() >= 2, "each worker has its own connections to the server");
}

#[test]
fn a_log_whose_reader_is_stuck_holds_no_request() {
    // A pipe that nobody reads, behind a path, as a file would be.
    let origin = saying("ok");
    let door = Door::new(1);
    let mut proxy = Proxy::bare(1);
    let (read, write) = rustix::pipe::pipe().unwrap();
    let path = proxy.log.display().to_string();
    proxy.order(&Order::AccessLog { path }, Some(write));
    let text = plan(&door, "", "", &[origin.address]);
    assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
    let served = Mutex::new(0);
    let mut client = Peer::connect(door.address);
    let path = format!("/{}", "x".repeat(4000));
    for _ in 0..2000 {
        client.send(get(&path));
        assert_eq!(client.message().1, "ok");
        *served.lock().unwrap() += 1;
    }
    assert_eq!(*served.lock().unwrap(), 2000);
    drop(read);
}

#[test]
fn the_status_document_has_peaks_rates_and_who_broke_off() {
    let (gate, open) = std::sync::mpsc::channel::<()>();
    let open = std::sync::Mutex::new(open);
    let origin = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            if head.contains("/broken") {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\nfour");
                return;
            }
            if head.contains("/wait") && open.lock().unwrap().recv().is_err() {
                return;
            }
            peer.send(OK);
        }
    });
    let door = Door::new(1);
    let text = plan(&door, "", "abort-on-close", &[origin.address]);
    let server = format!("\"{}\"", origin.address);
    let proxy = Proxy::start(&text.replace(&server, &format!("{server} max-connections=1")), &[&door]);
    let backend = || proxy.status().backends[0].clone();
    let mut first = Peer::connect(door.address);
    first.send(get("/wait"));
    wait("the first", || backend().traffic.sessions_max == 1);
    let mut second = Peer::connect(door.address);
    second.send(get("/"));
    wait("the queue", || backend().queued == 1);
    second.half_close();
    assert!(second.head().starts_with("HTTP/1.1 400 "));
    gate.send(()).unwrap();
    first.message();
    first.send(get("/wait"));
    wait("its second request", || backend().servers[0].active == 1);
    first.half_close();
    assert!(first.head().starts_with("HTTP/1.1 400 "));
    let mut third = Peer::connect(door.address);
    third.send(get("/broken"));
    third.head();
    assert!(third.is_closed() || third.text(4) == "four");
    wait("the rates", || proxy.status().frontends[0].traffic.rate_max > 0);
    let status = proxy.status();
    let (front, back) = (&status.frontends[0], &status.backends[0]);
    assert_eq!((back.traffic.sessions_max, back.queued_max), (1, 1));
    assert!((2..=3).contains(&front.traffic.sessions_max), "one may be lingering");
    assert!(front.request_rate_max > 0 && back.traffic.rate_max > 0 && back.servers[0].traffic.rate_max > 0);
    let server = &back.servers[0];
    assert_eq!((back.client_aborts_total, server.client_aborts_total), (1, 1));
    wait("its end", || proxy.status().backends[0].servers[0].server_aborts_total == 1);
    wait("the rate of now", || proxy.status().frontends[0].traffic.rate == 0);
}
