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

/// A connection to Relais whose handshake is over.
fn greeted(door: &Door, config: ClientConfig) -> (TcpStream, ClientConnection) {
    let mut socket = connect(door);
    let mut tls = ClientConnection::new(Arc::new(config), ServerName::try_from("h.test").unwrap()).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    (socket, tls)
}

/// A ClientHello of TLS 1.3 and 1.2 with these groups, shares and signature schemes, as the text of a message.
fn hello(version: [u8; 2], key_share: bool, schemes: &[u16]) -> Vec<u8> {
    let block = |extension: u16, data: &[u8]| {
        let mut all = extension.to_be_bytes().to_vec();
        all.extend((data.len() as u16).to_be_bytes());
        all.extend(data);
        all
    };
    let mut extensions = block(43, &[4, 3, 4, 3, 3]); // supported_versions
    extensions.extend(block(10, &[0, 2, 0, 29])); // supported_groups: X25519
    let schemes: Vec<u8> = schemes.iter().flat_map(|scheme| scheme.to_be_bytes()).collect();
    extensions.extend(block(13, &[&(schemes.len() as u16).to_be_bytes()[..], &schemes].concat()));
    if key_share {
        extensions.extend(block(51, &[&[0, 36, 0, 29, 0, 32][..], &[9; 32]].concat()));
    }
    let mut body = version.to_vec();
    body.extend([7; 32]);
    body.push(0); // no session
    body.extend([0, 4, 0x13, 0x01, 0xc0, 0x2b]);
    body.extend([1, 0]); // no compression
    body.extend((extensions.len() as u16).to_be_bytes());
    body.extend(extensions);
    [&[1, 0][..], &(body.len() as u16).to_be_bytes(), &body].concat()
}

fn record(kind: u8, text: &[u8]) -> Vec<u8> {
    [&[kind, 3, 1][..], &(text.len() as u16).to_be_bytes(), text].concat()
}

/// What `bytes` are answered with until the end, which is in order.
fn answer(door: &Door, bytes: &[u8]) -> Vec<u8> {
    let mut socket = connect(door);
    socket.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).expect("an end in order");
    answer
}

/// ECDSA with P-256 and SHA-256, which the certificate of these tests has.
const OURS: &[u16] = &[0x0403];

#[test]
fn what_a_client_does_wrong_in_the_clear_is_answered_with_the_alert_of_the_rfc() {
    const DECODE_ERROR: u8 = 50;
    const HANDSHAKE_FAILURE: u8 = 40;
    const MISSING_EXTENSION: u8 = 109;
    const PROTOCOL_VERSION: u8 = 70;
    const RECORD_OVERFLOW: u8 = 22;
    const UNEXPECTED_MESSAGE: u8 = 10;
    let door = Door::new(1);
    let (_proxy, _) = start(&door);
    let good = hello([3, 3], true, OURS);
    let (begin, end) = good.split_at(40);
    let change = record(20, &[1]);
    let long = [&[1, 0, 0xff, 0xff, 3, 3][..], &[0; 16_378]].concat();
    let cases: &[(&str, u8, Vec<u8>)] = &[
        (
            "a record within a message",
            UNEXPECTED_MESSAGE,
            [record(22, begin), change.clone(), record(22, end)].concat(),
        ),
        (
            "data within a message",
            UNEXPECTED_MESSAGE,
            [record(22, begin), record(23, b""), record(22, end)].concat(),
        ),
        ("no key share", MISSING_EXTENSION, record(22, &hello([3, 3], false, OURS))),
        (
            "no signature that we could make",
            HANDSHAKE_FAILURE,
            record(22, &hello([3, 3], true, &[0x0401, 0x0501])),
        ),
        ("SSL 3", PROTOCOL_VERSION, record(22, &hello([3, 0], true, OURS))),
        ("SSL 2 in a record", PROTOCOL_VERSION, record(22, &hello([0, 2], true, OURS))),
        ("a record that is too long", RECORD_OVERFLOW, record(22, &vec![1; (1 << 14) + 1])),
        (
            "a message of many records that is too long",
            DECODE_ERROR,
            record(22, &[1, 0xff, 0xff, 0xff, 3, 3]),
        ),
        (
            "a message that fills what there is",
            DECODE_ERROR,
            [record(22, &long), record(22, &[0; 16_384]).repeat(4)].concat(),
        ),
        ("a change of ciphers of two bytes", UNEXPECTED_MESSAGE, record(20, &[1, 1])),
        ("a change of ciphers to something else", UNEXPECTED_MESSAGE, record(20, &[2])),
    ];
    for (what, alert, bytes) in cases {
        let said = answer(&door, bytes);
        assert!(
            said.len() == 7 && said[..2] == [21, 3] && said[3..] == [0, 2, 2, *alert],
            "{what}: {said:?}"
        );
    }
}

#[test]
fn a_second_change_of_ciphers_is_refused_behind_the_handshake_that_it_follows() {
    let door = Door::new(1);
    let (_proxy, _) = start(&door);
    let change = record(20, &[1]);
    let said = answer(&door, &[record(22, &hello([3, 3], true, OURS)), change.clone(), change].concat());
    let mut records = Vec::new();
    let mut rest = &said[..];
    while let [kind, 3, _, high, low, text @ ..] = rest {
        let length = usize::from(*high) << 8 | usize::from(*low);
        records.push((*kind, length));
        rest = &text[length..];
    }
    assert_eq!(records.first().map(|r| r.0), Some(22), "the ServerHello: {records:?}");
    assert_eq!(records.last(), Some(&(23, 2 + 1 + 16)), "a sealed alert: {records:?}");
}

#[test]
fn data_in_the_clear_behind_a_handshake_is_an_unexpected_message() {
    let door = Door::new(1);
    let (_proxy, config) = start(&door);
    let (mut socket, mut tls) = greeted(&door, config);
    // More behind it, which nobody reads, does not take the alert away.
    socket.write_all(&record(22, &[20, 0, 0, 32]).repeat(2000)).unwrap();
    let error = loop {
        assert!(tls.read_tls(&mut socket).unwrap() > 0, "the connection ended without a word");
        if let Err(error) = tls.process_new_packets() {
            break error;
        }
    };
    assert_eq!(error, rustls::Error::AlertReceived(AlertDescription::UnexpectedMessage));
}
