//! The peers protocol: what is written is read, and what HAProxy 2.6 sends is understood.
#![allow(clippy::unwrap_used)]

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

use proptest::prelude::*;

use super::*;

type Update = (String, Vec<u8>, Option<String>, u64);

fn updates(bytes: &[u8]) -> Result<Vec<Update>, Wrong> {
    let (mut reader, mut at, mut all) = (Reader::default(), bytes, Vec::new());
    while let Some((length, event)) = reader.read(at)? {
        if let Event::Update { table, key, server, expire_ms, .. } = event {
            all.push((table.into(), key.into(), server.map(Into::into), expire_ms));
        }
        at = &at[length..];
    }
    Ok(all)
}

fn text(number: u64, name: &str) -> Announced<'_> {
    Announced { number, name, kind: Kind::Text, key_bytes: 129, expire_ms: 1_800_000 }
}

#[test]
fn numbers_are_written_as_haproxy_does() {
    // From its doc/internals of varints: 240 begins two bytes, 2288 three.
    for (value, bytes) in
        [(0u64, &[0][..]), (239, &[239]), (240, &[240, 0]), (2287, &[255, 127]), (2288, &[240, 128, 0])]
    {
        let mut out = Vec::new();
        put_number(&mut out, value);
        assert_eq!(out, bytes, "{value}");
        assert_eq!(number(&mut &out[..]), Some(value));
    }
}

#[test]
fn more_servers_than_numbers_keep_their_names() {
    let (mut writer, mut out, mut said) = (Writer::default(), Vec::new(), Vec::new());
    for round in 0..3u32 {
        for server in 0..200u32 {
            let (key, server) = (format!("k{round}-{server}"), format!("s{server}"));
            writer.update(&mut out, text(1 + u64::from(round % 2), "app"), key.as_bytes(), &server, 5_000);
            said.push(("app".into(), key.into_bytes(), Some(server), 5_000));
        }
    }
    assert_eq!(updates(&out).unwrap(), said);
}

#[test]
fn a_haproxy_s_other_data_are_passed_over_and_its_ids_are_counted() {
    // A table of IPv4 keys with server_id, gpc0, gpc0_rate, bytes_in_cnt and server_key.
    let mut out = Vec::new();
    let mut define = vec![3, 3, b'a', b'p', b'p'];
    for value in [4, 4, 1 | 1 << 2 | 1 << 3 | 1 << 13 | 1 << 19, 60_000, 3, 10_000] {
        put_number(&mut define, value);
    }
    put_message(&mut out, DEFINE, &define);
    let mut update = vec![0, 0, 0, 9, 10, 0, 0, 1, 7, 250, 3, 1, 2, 3];
    put_number(&mut update, 1 << 40);
    update.extend_from_slice(&[4, 1, 2, b's', b'1']);
    put_message(&mut out, UPDATE, &update);
    put_message(&mut out, NEXT, &[10, 0, 0, 2, 7, 1, 1, 2, 3, 4, 1, 1]);
    put_message(&mut out, NEXT_TIMED, &[0, 0, 3, 232, 10, 0, 0, 3, 7, 1, 1, 2, 3, 4, 0]);
    let mut reader = Reader::default();
    let (mut at, mut said) = (&out[..], Vec::new());
    while let Some((length, event)) = reader.read(at).unwrap() {
        if let Event::Update { key, server, expire_ms, kind, .. } = event {
            assert_eq!(kind, Kind::Ip);
            said.push((key[3], server.map(String::from), expire_ms));
        }
        at = &at[length..];
    }
    let s1 = || Some(String::from("s1"));
    assert_eq!(said, [(1, s1(), 60_000), (2, s1(), 60_000), (3, None, 1_000)]);
    let mut acks = Vec::new();
    reader.acknowledge(&mut acks);
    assert_eq!(acks, [TABLE, ACK, 5, 3, 0, 0, 0, 11]);
    reader.acknowledge(&mut acks);
    assert_eq!(acks.len(), 8, "once");
}

#[test]
fn nonsense_is_said_and_nothing_else_happens() {
    for bytes in [
        &b"GET / HTTP/1.1\r\n"[..],
        &[10, 128, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255],
        &[10, 130, 1, 1],
    ] {
        assert!(Reader::default().read(bytes).is_err(), "{bytes:?}");
    }
    assert_eq!(Reader::default().read(&[10, 128, 1]).unwrap(), None);
    assert_eq!(Reader::default().read(&[10, 128, 1, 0]).unwrap(), Some((4, Event::Other)), "of no table");
}

proptest! {
    #[test]
    fn what_is_written_is_read_in_whatever_pieces(
        said in prop::collection::vec((0u64..3, prop::collection::vec(any::<u8>(), 1..140), 0u32..200, 0u64..1_800_000), 1..50),
        cut in any::<prop::sample::Index>(),
    ) {
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        let mut expected = Vec::new();
        for (table, key, server, ms) in said {
            let (name, server) = (format!("t{table}"), format!("s{server}"));
            writer.update(&mut out, text(table + 1, &name), &key, &server, ms);
            expected.push((name, key, Some(server), ms));
        }
        let cut = cut.index(out.len());
        prop_assert!(updates(&out[..cut]).unwrap().len() <= expected.len());
        prop_assert_eq!(updates(&out).unwrap(), expected);
    }

    #[test]
    fn whatever_comes_is_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = updates(&bytes);
    }
}

#[test]
fn counts_and_checks_are_read_as_they_were_written_in_messages_of_their_own() {
    for many in [0usize, 1, 900, 5_000] {
        let all: Vec<(u64, u32)> =
            (0..many as u64).map(|n| (n.wrapping_mul(0x9e37_79b9_7f4a_7c15), n as u32 * 800_000)).collect();
        let mut out = Vec::new();
        put_counts(&mut out, u64::MAX - 7, many == 900, all.iter().copied());
        put_checked(&mut out, 77, true);
        let (mut reader, mut at, mut read, mut checked) = (Reader::default(), &out[..], Vec::new(), None);
        while let Some((length, event)) = reader.read(at).unwrap() {
            match event {
                Event::Counts { table, is_all, counts } => {
                    assert_eq!((table, is_all), (u64::MAX - 7, many == 900));
                    read.extend(counts);
                }
                Event::Checked { server, ok } => checked = Some((server, ok)),
                other => panic!("{other:?}"),
            }
            at = &at[length..];
        }
        assert_eq!((read, checked, at.len()), (all, Some((77, true)), 0));
    }
}

#[test]
fn half_an_entry_is_no_message() {
    let mut out = Vec::new();
    put_framed(&mut out, ours::CLASS, ours::COUNTS, &[0; 8 + 8]);
    assert!(Reader::default().read(&out).is_err());
    out.clear();
    put_framed(&mut out, ours::CLASS, ours::CHECKED, &[0, 0, 0, 0, 0, 0, 0, 1, 2]);
    assert!(Reader::default().read(&out).is_err());
}
