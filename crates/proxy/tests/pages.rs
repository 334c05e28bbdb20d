//! Error pages of the operator's own.

#![allow(clippy::unwrap_used)]

mod common;

use std::time::Duration;

use common::*;
use relais_ipc::channel::text_to_fd;
use relais_ipc::{Order, Report};

fn send_page(proxy: &mut Proxy, path: &str, text: &str) {
    proxy.order(&Order::ErrorPage { path: path.into() }, Some(text_to_fd(text).unwrap()));
}

#[test]
fn an_error_is_answered_with_the_page_of_its_backend_frontend_or_platform() {
    let (door, other) = (Door::new(1), Door::new(1));
    let nobody = nobody();
    let mut proxy = Proxy::bare(1);
    for (path, text) in [("/front.html", "<p>front"), ("/back.json", "{}"), ("/wide.txt", "wide")] {
        send_page(&mut proxy, path, text);
    }
    let text = format!(
        "frontend web {{ bind \"{}\"; default-backend app\n error-page 400 \"/front.html\"; error-page \"400-599\" \"/wide.txt\"\n }}\n\
         backend app {{ retries 0; server s1 \"{nobody}\"\n error-page \"502-504\" \"/back.json\"\n }}\n\
         frontend other {{ bind \"{}\"; default-backend plain\n }}\n\
         backend plain {{ retries 0; server s1 \"{nobody}\"; }}",
        door.address, other.address
    );
    assert_eq!(proxy.plan(&text, &[&door, &other]), Report::Ready { generation: 1 });
    let ask = |door: &Door, request: &str| {
        let mut client = Peer::connect(door.address);
        client.send(request);
        let (head, body) = client.message();
        let kind = field(&head, "content-type").unwrap().to_owned();
        (head.split(' ').nth(1).unwrap().to_owned(), kind, body)
    };
    let is = |status: &str, kind: &str, body: &str| (status.to_owned(), kind.to_owned(), body.to_owned());
    assert_eq!(ask(&door, &get("/")), is("503", "application/json", "{}"));
    assert_eq!(ask(&door, "GET / HTTP/1.1\r\n\r\n"), is("400", "text/html; charset=utf-8", "<p>front"));
    assert_eq!(ask(&door, "GET / HTTP/3.0\r\n\r\n"), is("505", "text/plain; charset=utf-8", "wide"));
    let (status, _, body) = ask(&other, &get("/"));
    assert!(status == "503" && body.contains("Please try again"), "{body}");
}

#[test]
fn an_error_page_is_for_keeps_and_for_head_too() {
    let door = Door::new(1);
    let mut proxy = Proxy::bare(1);
    let front = "error-page 503 \"/sorry.html\"";
    let text = plan(&door, front, "retries 0", &[nobody()]);
    let Report::Refused { why, .. } = proxy.plan(&text, &[&door]) else { panic!("a page that never came") };
    assert!(why.contains("/sorry.html"), "{why}");
    let page = "é".repeat(30_000);
    send_page(&mut proxy, "/sorry.html", &page);
    assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 2 });
    let mut client = Peer::connect(door.address);
    client.send("HEAD / HTTP/1.1\r\nHost: h\r\n\r\n");
    let head = client.head();
    assert_eq!(field(&head, "content-length"), Some("60000"));
    assert_eq!((field(&head, "retry-after"), field(&head, "connection")), (Some("1"), None));
    for _ in 0..2 {
        client.send(get("/"));
        let (head, body) = client.message();
        assert!(head.starts_with("HTTP/1.1 503 ") && body == page, "{head}");
    }
    // A page may change with a reload, under the same name.
    send_page(&mut proxy, "/sorry.html", "new");
    assert_eq!(proxy.plan(&text, &[]), Report::Ready { generation: 3 });
    wait("the new page", || {
        client.send(get("/"));
        client.message().1 == "new"
    });
    // It is for a HEAD that is refused, too: the connection ends, and nothing follows the head.
    let mut refused = Peer::connect(door.address);
    refused.io.get_ref().set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    refused.send("HEAD / HTTP/1.1\r\nHost: h\r\nHost: h\r\n\r\n");
    assert!(refused.head().starts_with("HTTP/1.1 400 "));
}
