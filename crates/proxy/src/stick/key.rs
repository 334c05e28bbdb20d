//! What a client is known by: where its key stands in a connection, a request or an answer.

use aws_lc_rs::digest;
use relais_config::plan::{Stick, StickKey};

use crate::client::Client;
use crate::persist;
use crate::rules;
use crate::session::Asked;

/// Gives a request's key to `each`, if it has one.
pub(crate) fn of_request(plan: &Stick, asked: &Asked<'_>, mut each: impl FnMut(&[u8])) {
    match &plan.key {
        StickKey::Of(key, depth) => rules::key_of_request(asked, key, &mut |key| {
            let key = match depth {
                0 => key,
                depth => relais_balance::key::Uri { depth: (*depth).into(), ..Default::default() }.of(key),
            };
            short(key, &mut each);
        }),
        StickKey::Learned(name) => {
            let (bytes, name) = (asked.buffer.bytes(), name.as_bytes());
            let value = persist::value(&bytes[..asked.request.length], name);
            let value = value.or_else(|| persist::path_parameter(asked.request.path.of(bytes), name));
            value.into_iter().for_each(|value| short(value, &mut each));
        }
    }
}

/// Gives a connection's key to `each`, if it has one; `sni`: the name in a handshake that is passed through.
pub(crate) fn of_connection(plan: &Stick, client: &Client, sni: Option<&str>, mut each: impl FnMut(&[u8])) {
    if let StickKey::Of(key, _) = &plan.key {
        rules::key_of_connection(client, sni, key, &mut |key| short(key, &mut each));
    }
}

/// The session id that the answer of this `head` gives, the last one where it gives several.
pub(crate) fn given<'a>(name: &str, head: &'a [u8]) -> Option<&'a [u8]> {
    let value = |line: &'a [u8]| {
        let (field, rest) = line.split_at_checked(b"set-cookie:".len())?;
        let pair =
            field.eq_ignore_ascii_case(b"set-cookie:").then_some(rest)?.split(|&b| b == b';').next()?;
        let value = pair.trim_ascii().strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
        Some(bare.unwrap_or(value)).filter(|value| !value.is_empty())
    };
    head.split(|&b| b == b'\n').filter_map(value).next_back()
}

/// Gives the key itself, or its hash where it is long; nothing, where it is empty.
pub(crate) fn short(key: &[u8], each: &mut impl FnMut(&[u8])) {
    if key.len() <= StickKey::LONGEST {
        if !key.is_empty() {
            each(key);
        }
        return;
    }
    let mut text = *b"sha256:0000000000000000000000000000000000000000000000000000000000000000";
    let hash = digest::digest(&digest::SHA256, key);
    for (digits, byte) in text[7..].chunks_exact_mut(2).zip(hash.as_ref()) {
        digits[0] = b"0123456789abcdef"[usize::from(byte >> 4)];
        digits[1] = b"0123456789abcdef"[usize::from(byte & 15)];
    }
    each(&text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_session_that_an_answer_gives_is_found_and_one_that_it_takes_away_is_none() {
        let head =
            b"HTTP/1.1 200 OK\r\nset-cookie: XPHPSESSID=no\r\nSet-Cookie: PHPSESSID=\"ab-1\"; Path=/\r\n";
        assert_eq!(given("PHPSESSID", head), Some(&b"ab-1"[..]));
        assert_eq!(given("phpsessid", head), None);
        let taken = b"HTTP/1.1 200 OK\r\nSet-Cookie: PHPSESSID=; Max-Age=0\r\n\r\n";
        assert_eq!(given("PHPSESSID", taken), None);
        let twice = b"Set-Cookie: S=1\r\nSet-Cookie: S=2; HttpOnly\r\n";
        assert_eq!(given("S", twice), Some(&b"2"[..]));
    }

    #[test]
    fn long_keys_that_begin_alike_are_not_one() {
        let key = |last: u8| [vec![b'a'; 500], vec![last]].concat();
        let shortened = |key: &[u8]| {
            let mut short_one = Vec::new();
            short(key, &mut |key| short_one = key.to_vec());
            short_one
        };
        assert_ne!(shortened(&key(1)), shortened(&key(2)));
        assert!(shortened(&key(1)).len() <= StickKey::LONGEST);
        assert_eq!(shortened(&[7; 128]), [7; 128]);
        assert_eq!(shortened(b""), b"");
    }
}
