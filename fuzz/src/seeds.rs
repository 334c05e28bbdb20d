//! Seeds: a line each in `corpus/NAME.seeds`, with Rust's escapes; and the tables of the proxy's tests.

/// The seeds of a corpus file.
///
/// # Panics
/// If an escape is not one: the file is part of the source.
pub fn lines(text: &str) -> Vec<Vec<u8>> {
    text.lines().filter(|line| !line.is_empty() && !line.starts_with("# ")).map(unescape).collect()
}

fn unescape(line: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = line.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next() {
                Some(b'r') => b'\r',
                Some(b'n') => b'\n',
                Some(b't') => b'\t',
                Some(b'0') => 0,
                Some(b'\\') => b'\\',
                Some(b'x') => {
                    let digit = |b: Option<u8>| b.and_then(|b| char::from(b).to_digit(16));
                    match (digit(rest.next()), digit(rest.next())) {
                        (Some(high), Some(low)) => (high << 4 | low) as u8,
                        _ => panic!("bad \\x in {line:?}"),
                    }
                }
                other => panic!("bad escape {other:?} in {line:?}"),
            },
            byte => byte,
        });
    }
    bytes
}

/// An input as a line of a corpus file.
pub fn escape(bytes: &[u8]) -> String {
    let mut line = String::new();
    for &byte in bytes {
        match byte {
            b'\r' => line.push_str("\\r"),
            b'\n' => line.push_str("\\n"),
            b'\t' => line.push_str("\\t"),
            0 => line.push_str("\\0"),
            b'\\' => line.push_str("\\\\"),
            b' '..=b'~' => line.push(char::from(byte)),
            other => line.push_str(&format!("\\x{other:02x}")),
        }
    }
    line
}

/// The requests of the proxy's table, the short ones; those that must be taken are in it three times, as they are
/// what leads on.
pub fn of_table() -> Vec<Vec<u8>> {
    let table = include_str!("../../crates/proxy/tests/strict.jsonl");
    let raw = |line: &str| -> Option<Vec<u8>> {
        let case: serde_json::Value = serde_json::from_str(line).ok()?;
        case["raw"].as_str()?.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
    };
    let times = |line: &str| if line.contains(r#""expected": "accept""#) { 3 } else { 1 };
    let lines = table.lines().flat_map(|line| std::iter::repeat_n(line, times(line)));
    lines.filter_map(raw).filter(|bytes| bytes.len() < 2048).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_survives_being_written_down() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(lines(&escape(&all)), [all]);
        assert!(of_table().len() > 500);
    }
}
