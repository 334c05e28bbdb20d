//! A table as operators see it: keys as text, servers by name.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::IpAddr;
use std::time::Duration;

use relais_balance::hash;

use super::keep;

/// A key of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// As text; what is none of it is escaped, parts stand behind one another with a blank and a `+` between.
    pub key: String,
    /// Its server, an index; `None`: one that the backend no longer has.
    pub server: Option<usize>,
    /// How long it counts if nobody comes with it.
    pub left: Duration,
}

/// What is in a table's memory file, as the proxy has written it lately. `addresses`: which parts of its keys are addresses.
///
/// # Errors
/// If the file cannot be read.
pub fn rows(file: &File, addresses: &[bool], servers: &[String]) -> io::Result<Vec<Row>> {
    let names: HashMap<u64, usize> =
        servers.iter().enumerate().map(|(at, name)| (hash(name.as_bytes()), at)).collect();
    let mut rows = Vec::new();
    keep::read(file, addresses == [true], |key, server, left| {
        rows.push(Row { key: shown(addresses, key), server: names.get(&server).copied(), left });
    })?;
    Ok(rows)
}

/// A key as it is shown.
pub(crate) fn shown(addresses: &[bool], key: &[u8]) -> String {
    if let [is_address] = addresses {
        return part(*is_address, key);
    }
    let mut parts = Vec::new();
    let mut rest = key;
    for is_address in addresses {
        let taken = rest.split_first_chunk().and_then(|(length, rest)| {
            rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX))
        });
        let Some((value, after)) = taken else { return part(false, key) }; // it was too long, and is a hash
        parts.push(part(*is_address, value));
        rest = after;
    }
    parts.join(" + ")
}

fn part(is_address: bool, value: &[u8]) -> String {
    let four = || Some(IpAddr::from(<[u8; 4]>::try_from(value).ok()?));
    let six = || Some(IpAddr::from(<[u8; 16]>::try_from(value).ok()?));
    match is_address.then(|| four().or_else(six)).flatten() {
        Some(address) => address.to_canonical().to_string(),
        None => match std::str::from_utf8(value) {
            Ok(text) if !text.chars().any(char::is_control) => text.to_owned(),
            _ => value.escape_ascii().to_string(),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_shown_as_people_write_them() {
        assert_eq!(shown(&[true], &[10, 0, 0, 7]), "10.0.0.7");
        let mut six = [0; 16];
        six[15] = 1;
        assert_eq!(shown(&[true], &six), "::1");
        assert_eq!(shown(&[false], "é-1".as_bytes()), "é-1");
        assert_eq!(shown(&[false], b"a\x1b[2Jb\xff"), "a\\x1b[2Jb\\xff", "a terminal is not told anything");
        let joined = b"\0\0\0\x04\x0a\0\0\x07\0\0\0\x02ab";
        assert_eq!(shown(&[true, false], joined), "10.0.0.7 + ab");
        assert_eq!(shown(&[true, false], b"sha256:00"), "sha256:00");
        assert_eq!(shown(&[true, false], &joined[..5]), "\\x00\\x00\\x00\\x04\\n");
    }
}
