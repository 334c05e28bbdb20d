//! What requests are marked with: `Forwarded`, request ids, traces.

#![allow(clippy::unwrap_used)]

mod common;

use common::*;
use relais_ipc::{Order, Report};

/// What an origin saw of a request that was sent with `fields`, and the head of its answer.
fn through(front: &str, fields: &str) -> (String, String) {
    let origin = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nX-Request-Id: theirs\r\n\r\n{head}",
                head.len()
            ));
        }
    });
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, front, "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(format!("GET / HTTP/1.1\r\nHost: h.test:81\r\n{fields}\r\n"));
    let (head, seen) = client.message();
    (seen, head)
}

fn all<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
}

#[test]
fn forwarded_says_who_asks_and_believes_only_whom_it_should() {
    let sent = "Forwarded: for=10.9.8.7\r\nAccept: */*\r\n";
    let ours = "for=127.0.0.1;host=\"h.test:81\";proto=http";
    let (seen, _) = through("forwarded", sent);
    assert_eq!(all(&seen, "forwarded"), [ours]);
    assert_eq!(all(&seen, "accept"), ["*/*"]);
    let (seen, _) = through("forwarded by=_edge1 for=hidden", "FORWARDED:x\r\n");
    assert_eq!(all(&seen, "forwarded"), ["by=_edge1;for=unknown;host=\"h.test:81\";proto=http"]);
    let (seen, _) = through("forwarded except=\"127.0.0.0/8\"", sent);
    assert_eq!(all(&seen, "forwarded"), ["for=10.9.8.7"]);
    let (seen, _) = through("", sent);
    assert_eq!(all(&seen, "forwarded"), ["for=10.9.8.7"]);
}

#[test]
fn forwarded_is_appended_for_proxies_of_ours() {
    let (seen, _) = through("forwarded from=\"127.0.0.0/8\"", "Forwarded: for=10.9.8.7\r\n");
    assert_eq!(all(&seen, "forwarded"), ["for=10.9.8.7", "for=127.0.0.1;host=\"h.test:81\";proto=http"]);
}

#[test]
fn x_forwarded_for_is_replaced_where_the_file_says_so() {
    let sent = "X-Forwarded-For: 10.9.8.7\r\nX-Forwarded-Port: 1\r\n";
    let (seen, _) = through("forwarded-for sent=replace port=on", sent);
    assert_eq!(all(&seen, "x-forwarded-for"), ["127.0.0.1"]);
    let port = all(&seen, "x-forwarded-port");
    assert!(port.len() == 1 && port[0] != "1", "{seen}");
    let (seen, _) = through("forwarded-for", sent);
    assert_eq!(all(&seen, "x-forwarded-for"), ["10.9.8.7", "127.0.0.1"]);
    assert_eq!(all(&seen, "x-forwarded-port"), ["1"]);
}

#[test]
fn a_request_gets_an_id_that_server_client_and_log_share() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: theirs\r\n\r\nok");
    let door = Door::new(1);
    let log = scratch("ids");
    let mut proxy = Proxy::bare(1);
    let file = std::fs::File::create(&log).unwrap();
    proxy.order(&Order::AccessLog { path: log.display().to_string() }, Some(file.into()));
    let front =
        format!("request-id X-Request-Id answer=on\n access-log \"{}\" format=\"%ID %ST\"", log.display());
    let text = plan(&door, &front, "", &[origin.address]);
    assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
    let mut client = Peer::connect(door.address);
    let mut ids = Vec::new();
    for _ in 0..2 {
        client.send("GET / HTTP/1.1\r\nHost: h\r\nX-Request-Id: mine\r\n\r\n");
        let (head, _) = client.message();
        let id = all(&head, "x-request-id");
        assert!(id.len() == 1 && id[0].len() == 36, "{head}");
        ids.push(id[0].to_owned());
    }
    // An answer of our own has it as well.
    client.send("OPTIONS / HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n");
    ids.push(all(&client.message().0, "x-request-id")[0].to_owned());
    assert!(ids[0] != ids[1] && ids[1] != ids[2]);
    let read = || std::fs::read_to_string(&log).unwrap();
    wait("three lines", || read().lines().count() == 3);
    let expected: String = ids.iter().map(|id| format!("{id} 200\n")).collect();
    assert_eq!(read(), expected);
    std::fs::remove_file(log).unwrap();

    let (seen, head) = through("request-id X-Request-Id", "X_Request_Id: mine\r\n");
    assert_eq!(all(&seen, "x-request-id")[0].len(), 36);
    assert_eq!((all(&seen, "x_request_id"), all(&head, "x-request-id")), (vec![], vec!["theirs"]));
    let trusting = "request-id X-Request-Id from=\"127.0.0.0/8\"";
    assert_eq!(all(&through(trusting, "X-Request-Id: mine\r\n").0, "x-request-id"), ["mine"]);
    for bad in ["a b", "<x>", &"x".repeat(129), "a\r\nX-Request-Id: b"] {
        let (seen, _) = through(trusting, &format!("X-Request-Id: {bad}\r\n"));
        let ids = all(&seen, "x-request-id");
        assert!(ids.len() == 1 && ids[0].len() == 36, "{bad}: {seen}");
    }
}

#[test]
fn a_trace_passes_untouched_and_a_broken_one_ends() {
    let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = format!("traceparent: {good}\r\ntracestate: a=1\r\ntracestate: b=2\r\n");
    for front in ["", "trace", "trace start=sampled"] {
        let (seen, _) = through(front, &sent);
        assert_eq!(all(&seen, "traceparent"), [good], "{front}");
        assert_eq!(all(&seen, "tracestate"), ["a=1", "b=2"], "{front}");
    }
    let twice = format!("{sent}traceparent: {good}\r\n");
    for broken in ["traceparent: 00-00-00-00\r\ntracestate: a=1\r\n", &twice] {
        let (seen, _) = through("trace", broken);
        assert_eq!((all(&seen, "traceparent"), all(&seen, "tracestate")), (vec![], vec![]));
        let (seen, _) = through("trace start=unsampled", broken);
        let started = all(&seen, "traceparent");
        assert!(started.len() == 1 && started[0].len() == 55 && started[0].ends_with("-00"), "{seen}");
        assert_ne!(started[0], good);
        assert!(all(&seen, "tracestate").is_empty());
    }
    assert_eq!(all(&through("trace", "").0, "traceparent"), [""; 0]);
    assert!(all(&through("trace start=sampled", "").0, "traceparent")[0].ends_with("-01"));
}
