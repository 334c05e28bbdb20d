//! What is asked for again, where, and how often at most.

#![allow(clippy::unwrap_used)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use common::*;

/// A server that counts what it is asked, and answers with this status; 0: it closes without a word.
fn counting(status: u16) -> (Origin, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let counts = count.clone();
    let origin = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let length = field(&head, "content-length").map_or(0, |length| length.parse().unwrap());
            peer.take(length);
            counts.fetch_add(1, Ordering::SeqCst);
            match status {
                0 => return,
                1 => peer.send("nonsense\r\n\r\n"),
                _ => peer.send(format!("HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\nbody")),
            }
        }
    });
    (origin, count)
}

fn ask(client: &mut Peer, request: &str) -> u16 {
    client.send(request);
    let head = client.head();
    let length = field(&head, "content-length").unwrap().parse().unwrap();
    client.take(length);
    head.split(' ').nth(1).unwrap().parse().unwrap()
}

#[test]
fn chosen_answers_are_asked_for_again_elsewhere_and_the_last_is_given() {
    let post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
    // What the first server does, what is chosen, the answer to a GET, and to a POST.
    for (first, on, to_get, to_post) in [
        (503, "503", 200, 503),
        (503, "empty-response+503", 200, 503),
        (503, "502", 503, 503),
        (0, "empty-response", 200, 502),
        (0, "503", 502, 502),
        (1, "junk-response", 200, 502),
        (1, "empty-response", 502, 502),
    ] {
        let ((ill, asked_ill), (well, _)) = (counting(first), counting(200));
        let door = Door::new(1);
        let back = format!("retry-on \"{on}\"\n redispatch\n retries 3\n balance first");
        let proxy = Proxy::start(&plan(&door, "", &back, &[ill.address, well.address]), &[&door]);
        assert_eq!(ask(&mut Peer::connect(door.address), &get("/")), to_get, "GET, {first}, {on}");
        assert_eq!(ask(&mut Peer::connect(door.address), post), to_post, "POST, {first}, {on}");
        assert_eq!(asked_ill.load(Ordering::SeqCst), 2, "each once: {first}, {on}");
        let status = proxy.status();
        let retries: u64 = status.backends[0].servers.iter().map(|server| server.retries_total).sum();
        assert_eq!(retries, u64::from(to_get == 200));
    }
    // Nobody does better: the answer is the server's own, body and all.
    let (ill, asked) = counting(503);
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "retry-on \"503\"\n retries 1", &[ill.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/"));
    let (head, body) = client.message();
    assert!(head.starts_with("HTTP/1.1 503 X") && body == "body", "{head}");
    assert_eq!(asked.load(Ordering::SeqCst), 2);
}

#[test]
fn a_budget_ends_retries_where_all_servers_fail() {
    let ((ill, asked), (other, asked_other)) = (counting(503), counting(503));
    let door = Door::new(1);
    // One at the other server, which takes no pause.
    let back = "retry-on \"503\"\n redispatch\n retries 1 budget=10";
    let _proxy = Proxy::start(&plan(&door, "", back, &[ill.address, other.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    let begin = std::time::Instant::now();
    for _ in 0..400 {
        assert_eq!(ask(&mut client, &get("/")), 503);
    }
    // 40 by the share, 10 of the first second, and 10 for each second that this took; without a budget 400.
    let most = 400 + 40 + 10 + 10 * (begin.elapsed().as_secs() as u32 + 1);
    let asked = asked.load(Ordering::SeqCst) + asked_other.load(Ordering::SeqCst);
    assert!((450..=most).contains(&asked), "the server was asked {asked} times, not 450 to {most}");
}
