//! HTTP/1 through the proxy, one behaviour a test.

mod common;

use common::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_request_is_forwarded_and_both_connections_are_kept() {
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let _proxy = Proxy::start(&plan(&door, "", "", &[origin.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    for _ in 0..3 {
        client.send(get("/"));
        let (head, body) = client.message();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, "ok");
    }
    assert_eq!(origin.accepted(), 1);
}
