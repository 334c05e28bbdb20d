//! How a TLS connection that cannot go on ends: the client is told why by an alert (RFC 8446 §6.2), which no reset overtakes.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use common::*;
use relais_ipc::files::Files;
use relais_ipc::{Order, Report};
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ClientConnection, RootCertStore};

fn start(door: &Door) -> (Proxy, ClientConfig) {
    let made = rcgen::generate_simple_self_signed(vec!["h.test".to_owned()]).unwrap();
    let mut files = Files::default();
    files.insert("/h.pem", Ok((made.cert.pem() + &made.signing_key.serialize_pem()).into_bytes()));
    let mut proxy = Proxy::bare(1);
    proxy.order(&Order::Files { renew: false }, Some(files.to_fd().unwrap()));
    let plain = plan(door, "", "", &[nobody()]);
    let bind = format!("bind \"{}\"", door.address);
    let text = plain.replace(&bind, &format!("{bind} {{ tls {{ certificate \"/h.pem\"; }}; }}"));
    assert_eq!(proxy.plan(&text, &[door]), Report::Ready { generation: 1 });
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    (proxy, builder.with_root_certificates(roots).with_no_client_auth())
}

fn connect(door: &Door) -> TcpStream {
    let socket = TcpStream::connect(door.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    socket
}

#[test]
fn a_record_that_cannot_be_read_is_answered_with_an_alert() {
    let door = Door::new(1);
    let (_proxy, config) = start(&door);
    let mut socket = connect(&door);
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from("h.test").unwrap()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    let junk = [&[0x17, 3, 3, 0, 32][..], &[0x5a; 32]].concat();
    socket.write_all(&junk).unwrap();
    let error = loop {
        assert!(tls.read_tls(&mut socket).unwrap() > 0, "the connection ended without a word");
        if let Err(error) = tls.process_new_packets() {
            break error;
        }
    };
    assert_eq!(error, rustls::Error::AlertReceived(AlertDescription::BadRecordMac));
}

#[test]
fn a_failed_handshake_ends_in_an_alert_even_if_more_was_sent() {
    let door = Door::new(1);
    let (_proxy, _) = start(&door);
    let mut socket = connect(&door);
    // A ClientHello of no bytes, and much behind it that nobody reads.
    let mut bytes = vec![0x16, 3, 1, 0, 4, 1, 0, 0, 0];
    bytes.resize(60_000, 0x16);
    socket.write_all(&bytes).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an end in order");
    assert!(matches!(answer[..], [21, 3, _, 0, 2, 2, 50]), "a fatal decode_error: {answer:?}");
}
