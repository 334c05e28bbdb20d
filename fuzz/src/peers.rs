//! What other balancers say of their tables: read the same in whatever pieces it comes, and what is learned of it can be told on.

use relais_cluster::peers::{Announced, Control, Event, Kind, Reader, Writer};

/// Heads of messages, kinds of tables, long numbers.
pub(crate) const WORDS: &[&[u8]] = &[
    &[0, 0],
    &[0, 4],
    &[1, 0],
    &[10, 0x80, 5],
    &[10, 0x81],
    &[10, 0x82],
    &[10, 0x83, 1, 1],
    &[10, 0x84, 5, 1, 0, 0, 0, 1],
    &[10, 0x85],
    &[10, 0x86],
    &[240, 128, 0],
    &[255, 255, 255, 255, 255, 255, 255, 255, 255, 15],
];

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let table = |number, kind| Announced { number, name: "app", kind, key_bytes: 129, expire_ms: 60_000 };
    let mut all = Vec::new();
    for kind in [Kind::Text, Kind::Ip, Kind::Ipv6] {
        let (mut writer, mut out) = (Writer::default(), Vec::new());
        Writer::control(&mut out, Control::Resync);
        for (key, server) in [(&[7; 16][..], "s1"), (&[8; 16], "s2"), (&[9; 16], "s1")] {
            let length = if kind == Kind::Ip { 4 } else { 16 };
            writer.update(&mut out, table(3, kind), &key[..length], server, 5_000);
        }
        Writer::control(&mut out, Control::Finished);
        all.push(out);
    }
    // A HAProxy's, which counts more: server_id, gpc0, gpc0_rate, server_key.
    all.push(b"\x0a\x82\x0f\x01\x03app\x04\x04\xfd\xf0\x7e\x1e\x03\x0a\0\0\x0a\x80\x10\0\0\0\x01\x0a\0\0\x01\x01\x02\x03\x04\x05\x04\x01\x02s1".to_vec());
    all
}

type Said = Vec<(String, Vec<u8>, Option<String>, u64)>;

/// Everything that is read when the input comes in pieces of this length, and whether it ended in nonsense.
fn read(input: &[u8], piece: usize) -> (Said, bool, Vec<u8>) {
    let (mut reader, mut said, mut at) = (Reader::default(), Vec::new(), 0);
    let mut there = piece.min(input.len());
    loop {
        match reader.read(&input[at..there]) {
            Ok(Some((length, event))) => {
                if let Event::Update { table, key, server, expire_ms, .. } = event {
                    said.push((table.to_owned(), key.to_owned(), server.map(str::to_owned), expire_ms));
                }
                at += length;
            }
            Ok(None) if there == input.len() => break,
            Ok(None) => there = (there + piece).min(input.len()),
            Err(_) => return (said, true, Vec::new()),
        }
    }
    let mut acks = Vec::new();
    reader.acknowledge(&mut acks);
    (said, false, acks)
}

pub(crate) fn check(input: &[u8]) -> Result<(), String> {
    let whole = read(input, input.len().max(1));
    let pieces = read(input, 3);
    if whole != pieces {
        return Err(format!("whole {whole:?}, in pieces {pieces:?}"));
    }
    let mut reader = Reader::default();
    let mut acks = &whole.2[..];
    while !acks.is_empty() {
        match reader.read(acks) {
            Ok(Some((length, Event::Taken { .. }))) => acks = &acks[length..],
            other => return Err(format!("an acknowledgement is read as {other:?}")),
        }
    }
    Ok(())
}
