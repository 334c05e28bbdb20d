//! Inputs from seeds: what a fuzzer without coverage can do is to know the places where parsers differ, and
//! to go there often.

use relais_base::Rng;

/// Longest input, bytes: beyond the limits of a head, so that they are met too.
pub const MOST_BYTES: usize = 24 * 1024;

/// A new input from `seeds`, which is not empty, and the words of the format.
pub fn input(rng: &mut Rng, seeds: &[Vec<u8>], words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = pick(rng, seeds).clone();
    if rng.chance(1, 4) {
        // The beginning of one and the end of another.
        let other = pick(rng, seeds);
        bytes.truncate(place(rng, bytes.len()));
        bytes.extend_from_slice(&other[place(rng, other.len())..]);
    }
    // Few changes: most of what is changed often is refused at once, and shows nothing.
    let changes = if rng.chance(1, 2) { 1 } else { 1 + rng.below(4) };
    for _ in 0..changes {
        mutate(rng, &mut bytes, words);
        bytes.truncate(MOST_BYTES);
    }
    bytes
}

fn mutate(rng: &mut Rng, bytes: &mut Vec<u8>, words: &[&[u8]]) {
    let at = place(rng, bytes.len());
    match rng.below(9) {
        0 | 1 if !words.is_empty() => {
            let at = if rng.chance(2, 3) { line_start(bytes, at) } else { at };
            insert(bytes, at, pick::<&[u8]>(rng, words));
        }
        2 => {
            // Bytes that a tokenizer must decide about.
            let byte = *pick(rng, b"\r\n\t \0:;,\"\\=_-+#%/?[]@\x0b\x0c\x7f\x80\xa0\xff0159afFx");
            bytes.insert(at, byte);
        }
        3 if at < bytes.len() => bytes[at] = rng.next_u64() as u8,
        4 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
        5 => {
            let end = at + place(rng, (bytes.len() - at).min(40));
            bytes.drain(at..end);
        }
        6 => {
            let end = at + place(rng, (bytes.len() - at).min(120));
            let part = bytes[at..end].to_vec();
            let times = if rng.chance(1, 16) { 1 + rng.below(200) } else { 1 };
            for _ in 0..times {
                if bytes.len() < MOST_BYTES {
                    insert(bytes, at, &part);
                }
            }
        }
        7 => number(rng, bytes),
        8 => bytes.truncate(at),
        _ => {}
    }
}

/// The beginning of the line that `at` is in.
fn line_start(bytes: &[u8], at: usize) -> usize {
    bytes[..at].iter().rposition(|&b| b == b'\n').map_or(0, |end| end + 1)
}

/// Makes another number of one that is there.
fn number(rng: &mut Rng, bytes: &mut Vec<u8>) {
    let digits: Vec<usize> = (0..bytes.len()).filter(|i| bytes[*i].is_ascii_digit()).collect();
    if digits.is_empty() {
        return;
    }
    let at = *pick(rng, &digits);
    let numbers: [&[u8]; 10] = [
        b"0",
        b"1",
        b"00",
        b"-1",
        b"255",
        b"65536",
        b"4294967296",
        b"9223372036854775808",
        b"18446744073709551616",
        b"ffffffffffffffff",
    ];
    bytes.remove(at);
    insert(bytes, at, pick::<&[u8]>(rng, &numbers));
}

fn insert(bytes: &mut Vec<u8>, at: usize, part: &[u8]) {
    bytes.splice(at..at, part.iter().copied());
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.below(from.len() as u64) as usize]
}

/// `0..=length`.
fn place(rng: &mut Rng, length: usize) -> usize {
    rng.below(length as u64 + 1) as usize
}
