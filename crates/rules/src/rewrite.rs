//! Rewriting a path: the path as the application server reads it, changed, and written out again.

use alloc::string::String;
use alloc::vec::Vec;

use regex_automata::meta::Regex;
use regex_automata::util::captures::Captures;

use crate::index::regex;
use crate::path;

/// Longest target that a rewrite makes, bytes.
pub const LONGEST: usize = 8 * 1024;

/// What is done to a path.
#[derive(Debug)]
pub struct Rewrite {
    how: How,
    to: String,
}

#[derive(Debug)]
enum How {
    /// This prefix, up to the end of a segment, becomes `to`.
    Prefix(Vec<u8>),
    /// The first match becomes `to`, in which `$1` to `$9` are what its groups found.
    Regex(Regex),
}

impl Rewrite {
    /// `/old/x` becomes `/new/x`, with `/old` for `prefix` and `/new` for `to`; `/older` stays.
    pub fn prefix(prefix: &str, to: &str) -> Rewrite {
        let prefix = prefix.trim_end_matches('/').as_bytes().to_vec();
        Rewrite { how: How::Prefix(prefix), to: to.trim_end_matches('/').into() }
    }

    /// What `regex` finds first becomes `to`.
    ///
    /// # Errors
    /// What is wrong with it, a clause.
    pub fn regex(text: &str, to: &str) -> Result<Rewrite, String> {
        let regex = regex(&[text.into()])?;
        let groups = regex.group_info().group_len(regex_automata::PatternID::ZERO);
        let mut rest = to;
        while let Some(at) = rest.find('$') {
            rest = &rest[at + 1..];
            if let Some(digit) = rest.chars().next().and_then(|c| c.to_digit(10))
                && digit as usize >= groups
            {
                return Err(alloc::format!("${digit} is no group of it: it has {}", groups - 1));
            }
        }
        Ok(Rewrite { how: How::Regex(regex), to: to.into() })
    }

    /// Puts the new target for `target` in `out`, its query kept; `false` if it stays as it is: the rewrite is
    /// not for it, or what would come of it is no path.
    pub fn apply(&self, target: &[u8], out: &mut Vec<u8>) -> bool {
        let mut space = Vec::new();
        let Ok(path) = path::normalize(target, &mut space) else { return false };
        let mut new = Vec::new();
        match &self.how {
            How::Prefix(prefix) => match path.strip_prefix(&prefix[..]) {
                Some(rest) if rest.is_empty() || rest[0] == b'/' => {
                    new.extend_from_slice(self.to.as_bytes());
                    new.extend_from_slice(rest);
                }
                _ => return false,
            },
            How::Regex(regex) => {
                let mut captures = regex.create_captures();
                regex.captures(path, &mut captures);
                let Some(found) = captures.get_match() else { return false };
                new.extend_from_slice(&path[..found.start()]);
                self.expand(path, &captures, &mut new);
                new.extend_from_slice(&path[found.end()..]);
            }
        }
        if new.is_empty() {
            new.push(b'/');
        }
        write(&new, path::split(target).1, out)
    }

    fn expand(&self, path: &[u8], captures: &Captures, new: &mut Vec<u8>) {
        let mut rest = self.to.as_bytes();
        while let [byte, tail @ ..] = rest {
            rest = tail;
            match (byte, tail) {
                (b'$', [b'$', tail @ ..]) => {
                    new.push(b'$');
                    rest = tail;
                }
                (b'$', [digit @ b'0'..=b'9', tail @ ..]) => {
                    if let Some(group) = captures.get_group(usize::from(digit - b'0')) {
                        new.extend_from_slice(&path[group.range()]);
                    }
                    rest = tail;
                }
                (byte, _) => new.push(*byte),
            }
        }
    }
}

/// Writes a decoded path out as a target.
fn write(new: &[u8], query: &[u8], out: &mut Vec<u8>) -> bool {
    out.clear();
    if new[0] != b'/' {
        return false;
    }
    for &byte in new {
        if is_plain(byte) { out.push(byte) } else { escape(byte, out) }
    }
    // Dot segments and double slashes may have come of putting pieces together.
    let mut space = Vec::new();
    match path::normalize(out, &mut space) {
        Ok(path) if path::is_normal(path) => {
            if path.len() != new.len() {
                let path = path.to_vec();
                out.clear();
                for byte in path {
                    if is_plain(byte) { out.push(byte) } else { escape(byte, out) }
                }
            }
        }
        _ => return false,
    }
    out.extend_from_slice(query);
    out.len() <= LONGEST
}

/// `unreserved`, `sub-delims` but `;`, `:`, `@` and `/` (RFC 3986 §3.3).
fn is_plain(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,=:@/".contains(&byte)
}

/// `%XX`.
pub(crate) fn escape(byte: u8, out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.extend_from_slice(&[b'%', DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]]);
}

/// Whether it can stand in a request line as path and query.
pub fn is_target(target: &[u8]) -> bool {
    target.first() == Some(&b'/') && target.iter().all(|b| (0x21..0x7f).contains(b) && *b != b'#')
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn to(rewrite: &Rewrite, target: &str) -> Option<String> {
        let mut out = Vec::new();
        rewrite.apply(target.as_bytes(), &mut out).then(|| String::from_utf8(out).unwrap())
    }

    #[test]
    fn a_prefix_is_whole_segments_and_the_query_stays() {
        let rewrite = Rewrite::prefix("/old", "/new/");
        assert_eq!(to(&rewrite, "/old/a?b=c").as_deref(), Some("/new/a?b=c"));
        assert_eq!(to(&rewrite, "/old").as_deref(), Some("/new"));
        assert_eq!(to(&rewrite, "/%6fld/a%20b;x").as_deref(), Some("/new/a%20b"));
        assert_eq!(to(&rewrite, "/older"), None);
        assert_eq!(to(&Rewrite::prefix("/old", "/"), "/old").as_deref(), Some("/"));
        assert_eq!(to(&Rewrite::prefix("/old", "/"), "/old/x").as_deref(), Some("/x"));
        assert_eq!(to(&Rewrite::prefix("/", "/app"), "/x").as_deref(), Some("/app/x"));
    }

    #[test]
    fn groups_go_where_the_operator_puts_them() {
        let rewrite = Rewrite::regex("^/u/([^/]+)/(.*)$", "/users/$2/$1").unwrap();
        assert_eq!(to(&rewrite, "/u/ann/x?q").as_deref(), Some("/users/x/ann?q"));
        assert!(Rewrite::regex("^/a$", "/$1").unwrap_err().contains("$1"));
    }

    #[test]
    fn what_comes_out_is_a_normal_path_or_nothing() {
        let rewrite = Rewrite::regex("^/(.*)$", "/.$1").unwrap();
        assert_eq!(to(&rewrite, "/..a").as_deref(), Some("/...a"));
        assert_eq!(to(&Rewrite::regex("^/x", "/.").unwrap(), "/x.").as_deref(), None);
        assert_eq!(to(&Rewrite::regex("^/x", "").unwrap(), "/xa").as_deref(), None);
        assert_eq!(to(&Rewrite::prefix("/old", "/n"), "/old/%3f%23%3bx").as_deref(), Some("/n/%3F%23%3Bx"));
    }
}
