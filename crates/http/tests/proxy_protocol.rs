//! The PROXY protocol: what is written is read back, what is not a header is refused as soon as that is clear, and
//! no bytes do harm.

#![allow(clippy::unwrap_used)]

use std::net::SocketAddr;

use proptest::prelude::*;
use relais_http::proxy_protocol::{
    Bad, Ends, Header, MAX_V2, Tls, fuzz, parse, write_v1, write_v1_unknown, write_v2, write_v2_local,
};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

fn v2(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    [SIGNATURE, &[command, family], &length, body].concat()
}

fn tcp(source: &str, destination: &str) -> Ends {
    Ends::Tcp { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
}

fn ends(bytes: &[u8]) -> Result<Option<Ends>, Bad> {
    parse(bytes).map(|header| {
        header.map(|Header { length, ends }| {
            assert_eq!(length, bytes.len());
            ends
        })
    })
}

const V4: &[u8] = &[192, 0, 2, 1, 198, 51, 100, 2, 0x1f, 0x90, 0, 80];

#[test]
fn a_line_of_version_1_says_both_ends() {
    assert_eq!(
        ends(b"PROXY TCP4 192.0.2.1 198.51.100.2 8080 80\r\n"),
        Ok(Some(tcp("192.0.2.1:8080", "198.51.100.2:80")))
    );
    assert_eq!(
        ends(b"PROXY TCP6 2001:db8::1 ::ffff:192.0.2.1 65535 0\r\n"),
        Ok(Some(tcp("[2001:db8::1]:65535", "[::ffff:192.0.2.1]:0")))
    );
    for unknown in [&b"PROXY UNKNOWN\r\n"[..], b"PROXY UNKNOWN ff::1 x  y\r\n"] {
        assert_eq!(ends(unknown), Ok(Some(Ends::Own)));
    }
}

#[test]
fn a_line_with_a_wrong_word_is_refused() {
    for line in [
        "PROXY TCP4 192.0.2.1 198.51.100.2 8080 80\n",
        "PROXY  TCP4 192.0.2.1 198.51.100.2 8080 80\r\n",
        "PROXY TCP4 192.0.2.1  198.51.100.2 8080 80\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 8080 80 \r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 8080\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 08080 80\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 +80 80\r\n",
        "PROXY TCP4 192.0.2.1 198.51.100.2 65536 80\r\n",
        "PROXY TCP4 192.0.2.01 198.51.100.2 1 80\r\n",
        "PROXY TCP4 ::1 ::1 1 80\r\n",
        "PROXY TCP6 192.0.2.1 198.51.100.2 1 80\r\n",
        "PROXY UDP4 192.0.2.1 198.51.100.2 1 80\r\n",
        "PROXY UNKNOWNS\r\n",
        "PROXY\r\n",
        "PROXYTCP4 192.0.2.1 198.51.100.2 1 80\r\n",
    ] {
        assert_eq!(parse(line.as_bytes()), Err(Bad::Line), "{line:?}");
    }
    assert_eq!(parse(b"POST / HTTP/1.1\r\n"), Err(Bad::Signature));
    assert_eq!(parse(b"GET"), Err(Bad::Signature));
    assert_eq!(parse(b"\r\n\r\n\r"), Err(Bad::Signature));
}

#[test]
fn version_1_ends_within_107_bytes() {
    let mut line = b"PROXY UNKNOWN ".to_vec();
    line.resize(106, b'x');
    assert_eq!(parse(&line), Ok(None));
    line.push(b'x');
    assert_eq!(parse(&line), Err(Bad::Long));
    line[105..].copy_from_slice(b"\r\n");
    assert_eq!(ends(&line), Ok(Some(Ends::Own)));
}

#[test]
fn version_2_says_both_ends_and_its_fields_are_skipped() {
    assert_eq!(ends(&v2(0x21, 0x11, V4)), Ok(Some(tcp("192.0.2.1:8080", "198.51.100.2:80"))));
    let fields = [V4, &[0xe0, 0, 2, 1, 2], &[4, 0, 0]].concat();
    assert_eq!(ends(&v2(0x21, 0x11, &fields)), Ok(Some(tcp("192.0.2.1:8080", "198.51.100.2:80"))));
    let mut v6 = [0u8; 36];
    (v6[15], v6[31], v6[33]) = (1, 2, 7);
    assert_eq!(ends(&v2(0x21, 0x21, &v6)), Ok(Some(tcp("[::1]:7", "[::2]:0"))));
}

#[test]
fn what_is_no_tcp_connection_leaves_the_connections_own_ends() {
    let local = [(0x20, 0x11, V4), (0x20, 0xff, &[][..])];
    let unspecified = [(0x21, 0x00, &b"anything"[..]), (0x21, 0x31, &[7; 216][..]), (0x21, 0x12, V4)];
    for (command, family, body) in local.into_iter().chain(unspecified) {
        assert_eq!(ends(&v2(command, family, body)), Ok(Some(Ends::Own)), "{command:x} {family:x}");
    }
}

#[test]
fn a_malformed_version_2_is_refused() {
    let with = |field: &[u8]| v2(0x21, 0x11, &[V4, field].concat());
    assert_eq!(parse(&v2(0x11, 0x11, V4)), Err(Bad::Command));
    assert_eq!(parse(&v2(0x22, 0x11, V4)), Err(Bad::Command));
    assert_eq!(parse(&v2(0x21, 0x41, V4)), Err(Bad::Family));
    assert_eq!(parse(&v2(0x21, 0x13, V4)), Err(Bad::Family));
    assert_eq!(parse(&v2(0x21, 0x11, &V4[..11])), Err(Bad::Short));
    assert_eq!(parse(&v2(0x21, 0x21, V4)), Err(Bad::Short));
    assert_eq!(parse(&v2(0x21, 0x31, V4)), Err(Bad::Short));
    assert_eq!(parse(&with(&[4])), Err(Bad::Field));
    assert_eq!(parse(&with(&[4, 0, 2, 9])), Err(Bad::Field));
    assert_eq!(parse(&with(&[3, 0, 3, 0, 0, 0])), Err(Bad::Field));
    let long = ((MAX_V2 - 15) as u16).to_be_bytes();
    let long = [SIGNATURE, &[0x21, 0x11], &long].concat();
    assert_eq!(parse(&long), Err(Bad::Long), "said before the rest is waited for");
}

/// A second, table-free way to the same checksum (RFC 4960, appendix B), most significant bit first.
fn crc32c(bytes: &[u8]) -> u32 {
    let crc = bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ (u32::from(byte.reverse_bits()) << 24), |crc, _| {
            if crc & 0x8000_0000 != 0 { (crc << 1) ^ 0x1edc_6f41 } else { crc << 1 }
        })
    });
    (!crc).reverse_bits()
}

#[test]
fn the_checksum_is_looked_at_where_there_is_one() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value that everybody publishes");
    let mut bytes = v2(0x21, 0x11, &[V4, &[3, 0, 4, 0, 0, 0, 0], &[4, 0, 1, 0]].concat());
    let crc = crc32c(&bytes).to_be_bytes();
    assert_eq!(parse(&bytes), Err(Bad::Checksum));
    bytes[31..35].copy_from_slice(&crc);
    assert_eq!(ends(&bytes), Ok(Some(tcp("192.0.2.1:8080", "198.51.100.2:80"))));
    // Byte 28 is the field's own type: without it there is no checksum.
    for at in (12..bytes.len()).filter(|at| *at != 28) {
        let mut wrong = bytes.clone();
        wrong[at] ^= 0x01;
        assert_ne!(parse(&wrong), parse(&bytes), "a bit of byte {at} may change unseen");
    }
}

#[test]
fn connections_of_our_own_say_so() {
    let mut bytes = Vec::new();
    write_v1_unknown(&mut bytes);
    assert_eq!(ends(&bytes), Ok(Some(Ends::Own)));
    bytes.clear();
    write_v2_local(&mut bytes);
    assert_eq!(ends(&bytes), Ok(Some(Ends::Own)));
}

#[test]
fn the_tls_field_has_version_cipher_and_name() {
    let (a, b) = ("192.0.2.1:1".parse().unwrap(), "192.0.2.2:2".parse().unwrap());
    let tls = Tls { version: "TLSv1.3", cipher: Some("AES"), client_name: Some("me") };
    let mut bytes = Vec::new();
    write_v2(a, b, Some(&tls), &mut bytes);
    assert_eq!(ends(&bytes), Ok(Some(Ends::Tcp { source: a, destination: b })));
    let expected = b"\x20\0\x1a\x03\0\0\0\0\x21\0\x07TLSv1.3\x23\0\x03AES\x22\0\x02me";
    assert_eq!(&bytes[28..], expected);
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_from_any_piece(a in address(), b in address(), tail in any::<[u8; 3]>(), two: bool) {
        let mut bytes = Vec::new();
        if two { write_v2(a, b, None, &mut bytes) } else { write_v1(a, b, &mut bytes) }
        for n in 0..bytes.len() {
            prop_assert_eq!(parse(&bytes[..n]), Ok(None));
        }
        let length = bytes.len();
        bytes.extend_from_slice(&tail);
        let header = parse(&bytes).unwrap().unwrap();
        prop_assert_eq!(header.length, length);
        let Ends::Tcp { source, destination } = header.ends else { panic!("{header:?}") };
        let plain = |end: SocketAddr| (end.ip().to_canonical(), end.port());
        prop_assert_eq!((plain(source), plain(destination)), (plain(a), plain(b)));
    }

    #[test]
    fn no_bytes_do_harm(bytes: Vec<u8>, command: u8, family: u8) {
        fuzz(&bytes);
        fuzz(&v2(command, family, &bytes));
        fuzz(&[b"PROXY ", &bytes[..]].concat());
    }

    #[test]
    fn a_header_with_a_changed_byte_does_no_harm(a in address(), b in address(), at: prop::sample::Index, to: u8) {
        let mut bytes = Vec::new();
        write_v1(a, b, &mut bytes);
        write_v2(a, b, None, &mut bytes);
        let at = at.index(bytes.len());
        bytes[at] = to;
        fuzz(&bytes);
    }
}
