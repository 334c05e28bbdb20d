//! Paths as a servlet container reads them, so that no spelling gets past a rule.
//!
//! The order is Tomcat's (10.1, `CoyoteAdapter`): path parameters (`;x` up to the next slash) go first, on the raw
//! text; then escapes are decoded; then `//` and dot segments are resolved. What it refuses is refused here: an
//! encoded slash or any backslash, a NUL, a broken escape, a path that climbs above the root, bytes that are no
//! UTF-8, characters that no target may have. A `;` that was encoded is an ordinary character, as there.

use alloc::vec::Vec;
use core::fmt;

/// Why a path cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadPath {
    /// `%` without two hexadecimal digits.
    Escape,
    /// `%2F`: whether it separates would be a matter of opinion.
    EncodedSlash,
    /// A backslash, encoded or not.
    Backslash,
    /// `%00`.
    Nul,
    /// More `..` than there are segments.
    AboveRoot,
    /// Not UTF-8 once decoded, overlong forms included.
    NotUtf8,
    /// A character that no target may have.
    Character,
    /// It does not begin with `/`.
    NoSlash,
}

impl fmt::Display for BadPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Escape => "its path has a `%` without two hexadecimal digits",
            Self::EncodedSlash => "its path has an encoded slash",
            Self::Backslash => "its path has a backslash",
            Self::Nul => "its path has an encoded NUL",
            Self::AboveRoot => "its path climbs above the root",
            Self::NotUtf8 => "its path is not UTF-8",
            Self::Character => "its path has a character that no target may have",
            Self::NoSlash => "its path does not begin with a slash",
        })
    }
}

/// The path of a target (which may have a query) as the application server reads it. `out` is used where that is
/// not how it is written. An empty path is `/`.
///
/// # Errors
/// What an application server would refuse, too.
pub fn normalize<'a>(target: &'a [u8], out: &'a mut Vec<u8>) -> Result<&'a [u8], BadPath> {
    let raw = split(target).0;
    if raw.is_empty() {
        return Ok(b"/");
    }
    if raw[0] != b'/' {
        return Err(BadPath::NoSlash);
    }
    if is_plain(raw) {
        return Ok(raw);
    }
    out.clear();
    decode(raw, out)?;
    resolve(out)?;
    if core::str::from_utf8(out).is_err() {
        return Err(BadPath::NotUtf8);
    }
    Ok(out)
}

/// A target's path, and its query with the `?`.
pub fn split(target: &[u8]) -> (&[u8], &[u8]) {
    target.split_at(target.iter().position(|&b| b == b'?').unwrap_or(target.len()))
}

/// Whether a path has no dot segments, no empty ones, no NUL and no backslash.
pub fn is_normal(path: &[u8]) -> bool {
    let Some(rest) = path.strip_prefix(b"/") else { return false };
    let mut segments = rest.split(|&b| b == b'/').peekable();
    while let Some(segment) = segments.next() {
        let last = segments.peek().is_none();
        if (segment.is_empty() && !last) || segment == b"." || segment == b".." {
            return false;
        }
    }
    !path.iter().any(|&b| b == 0 || b == b'\\')
}

/// Bytes that need a closer look: 1. Those that no target may have: 2.
const KIND: [u8; 256] = {
    let mut kind = [0; 256];
    let mut b = 0;
    while b < 256 {
        kind[b] = match b as u8 {
            b'%' | b';' => 1,
            0..=b' ' | 0x7f..=0xff => 2,
            b'"' | b'#' | b'<' | b'>' | b'[' | b'\\' | b']' | b'^' | b'`' | b'{' | b'|' | b'}' => 2,
            _ => 0,
        };
        b += 1;
    }
    kind
};

/// Whether it is read as it is written. May say no without need.
fn is_plain(raw: &[u8]) -> bool {
    let mut before = 0;
    for &byte in raw {
        if KIND[usize::from(byte)] != 0 || (before == b'/' && (byte == b'/' || byte == b'.')) {
            return false;
        }
        before = byte;
    }
    true
}

/// Takes path parameters away and decodes escapes.
fn decode(raw: &[u8], out: &mut Vec<u8>) -> Result<(), BadPath> {
    let mut rest = raw;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match byte {
            b';' => {
                let end = rest.iter().position(|&b| b == b'/').unwrap_or(rest.len());
                if let Some(bad) = rest[..end].iter().find(|&&b| KIND[usize::from(b)] == 2) {
                    return Err(if *bad == b'\\' { BadPath::Backslash } else { BadPath::Character });
                }
                rest = &rest[end..];
            }
            b'%' => {
                let [high, low, tail @ ..] = rest else { return Err(BadPath::Escape) };
                rest = tail;
                match hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low) {
                    None => return Err(BadPath::Escape),
                    Some(0) => return Err(BadPath::Nul),
                    Some(b'/') => return Err(BadPath::EncodedSlash),
                    Some(b'\\') => return Err(BadPath::Backslash),
                    Some(byte) => out.push(byte),
                }
            }
            b'\\' => return Err(BadPath::Backslash),
            byte if KIND[usize::from(*byte)] == 2 => return Err(BadPath::Character),
            byte => out.push(*byte),
        }
    }
    Ok(())
}

pub(crate) const fn hex(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

/// Resolves `//`, `/.` and `/..` in place.
fn resolve(path: &mut Vec<u8>) -> Result<(), BadPath> {
    let (mut read, mut written) = (0, 0);
    // `path[..written]` is done and has no final slash but that of the segment to come.
    while read < path.len() {
        debug_assert_eq!(path[read], b'/');
        let end = path[read + 1..].iter().position(|&b| b == b'/').map_or(path.len(), |i| read + 1 + i);
        match &path[read + 1..end] {
            b"" if end < path.len() => {}
            b"." => {}
            b".." => {
                written = path[..written].iter().rposition(|&b| b == b'/').ok_or(BadPath::AboveRoot)?;
            }
            _ => {
                path.copy_within(read..end, written);
                written += end - read;
            }
        }
        read = end;
    }
    path.truncate(written);
    if path.is_empty() {
        path.push(b'/');
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::String;

    fn read(target: &str) -> Result<String, BadPath> {
        let mut out = Vec::new();
        normalize(target.as_bytes(), &mut out).map(|path| String::from_utf8(path.to_vec()).unwrap())
    }

    #[test]
    fn every_spelling_of_the_manager_is_the_manager() {
        for spelling in [
            "/manager/html",
            "/%6danager/html",
            "/%6Danager/html?x=/../..",
            "/manager;x/html",
            "/manager;x=1;y/html;z",
            "/;a/manager/html",
            "//manager//html",
            "/a/../manager/html",
            "/./manager/./html",
            "/%2e/manager/html",
            "/a/%2e%2e/manager/html",
            "/a/..;/manager/html",
            "/a/..;x=1/manager/html",
            "/a/%2e.;/manager/html",
            "/a/b/../../manager/html",
            "/manager/x/../html",
            "/manager/html/.",
            "/manager/html/x/..",
            "/;/;/manager/html",
        ] {
            assert_eq!(read(spelling).as_deref(), Ok("/manager/html"), "{spelling}");
        }
    }

    #[test]
    fn what_an_application_server_refuses_is_refused() {
        for (target, why) in [
            ("/manager%2Fhtml", BadPath::EncodedSlash),
            ("/manager%2fhtml", BadPath::EncodedSlash),
            ("/manager%5chtml", BadPath::Backslash),
            ("/manager\\html", BadPath::Backslash),
            ("/a%00", BadPath::Nul),
            ("/a%", BadPath::Escape),
            ("/a%4", BadPath::Escape),
            ("/a%zz", BadPath::Escape),
            ("/..", BadPath::AboveRoot),
            ("/../manager", BadPath::AboveRoot),
            ("/a/../../manager", BadPath::AboveRoot),
            ("/..;/manager", BadPath::AboveRoot),
            ("/%c0%afmanager", BadPath::NotUtf8),
            ("/%ff", BadPath::NotUtf8),
            ("/a|b", BadPath::Character),
            ("/a;|b", BadPath::Character),
            ("manager", BadPath::NoSlash),
            (";a/manager", BadPath::NoSlash),
        ] {
            assert_eq!(read(target), Err(why), "{target}");
        }
    }

    #[test]
    fn what_is_only_odd_stays() {
        for (target, path) in [
            ("", "/"),
            ("?a=b", "/"),
            ("/", "/"),
            ("/.", "/"),
            ("/a/..", "/"),
            ("/a/", "/a/"),
            ("/a//", "/a/"),
            ("/a/b/../", "/a/"),
            ("/manager%3bx/html", "/manager;x/html"),
            ("/%256d", "/%6d"),
            ("/...", "/..."),
            ("/.a/..b", "/.a/..b"),
            ("/a/%C3%A9", "/a/é"),
        ] {
            assert_eq!(read(target).as_deref(), Ok(path), "{target}");
        }
    }
}
