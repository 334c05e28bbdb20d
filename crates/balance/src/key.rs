//! What of a request is its key, where it stands: nothing is copied, and nothing is decoded, so that everybody who reads the request
//! hashes the same.

/// What of a URI counts (HAProxy's `balance uri`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uri {
    /// The query too; else what is left of the `?`.
    pub whole: bool,
    /// Only so many bytes from the beginning; 0: all.
    pub len: u32,
    /// Only so many directories; 0: all.
    pub depth: u32,
}

impl Uri {
    /// What counts of `target`, a path with its query; an empty one is `/`.
    pub fn of<'a>(&self, target: &'a [u8]) -> &'a [u8] {
        let mut end = target.len();
        if !self.whole {
            end = target.iter().position(|&b| b == b'?').unwrap_or(end);
        }
        if self.len > 0 {
            end = end.min(self.len as usize);
        }
        if self.depth > 0 {
            let slashes = target[..end].iter().enumerate().filter(|(_, b)| **b == b'/');
            end = slashes.map(|(at, _)| at).nth(self.depth as usize).unwrap_or(end);
        }
        if target.is_empty() { b"/" } else { &target[..end] }
    }
}

/// The value of a parameter in the query of `target`, as it is written; `None` if it is not there or empty (HAProxy's
/// `url_param`).
pub fn query<'a>(target: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let at = target.iter().position(|&b| b == b'?')?;
    let pairs = target[at + 1..].split(|&b| b == b'&' || b == b';');
    let value = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"=")).next()?;
    (!value.is_empty()).then_some(value)
}

/// The value of a cookie in the value of a `Cookie` field (RFC 6265 §4.2); `None` if it is not there or empty.
pub fn cookie<'a>(field: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pairs = field.split(|&b| b == b';').map(<[u8]>::trim_ascii);
    let value = pairs.filter_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"=")).next()?;
    (!value.is_empty()).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uri_counts_as_far_as_it_is_asked_to() {
        let uri = |whole, len, depth| Uri { whole, len, depth };
        for (what, target, key) in [
            (uri(false, 0, 0), "/a/b/c.html?x=1", "/a/b/c.html"),
            (uri(true, 0, 0), "/a/b/c.html?x=1", "/a/b/c.html?x=1"),
            (uri(false, 4, 0), "/a/b/c.html?x=1", "/a/b"),
            (uri(true, 13, 0), "/a/b/c.html?x=1", "/a/b/c.html?x"),
            (uri(false, 13, 0), "/a/b/c.html?x=1", "/a/b/c.html"),
            (uri(false, 0, 1), "/a/b/c.html?x=1", "/a"),
            (uri(false, 0, 2), "/a/b/c.html?x=1", "/a/b"),
            (uri(false, 0, 9), "/a/b/c.html?x=1", "/a/b/c.html"),
            (uri(false, 0, 1), "/", "/"),
            (uri(true, 0, 0), "?x", "?x"),
            (uri(false, 0, 0), "", "/"),
        ] {
            assert_eq!(what.of(target.as_bytes()), key.as_bytes(), "{what:?} of {target}");
        }
    }

    #[test]
    fn parameters_and_cookies_are_found_by_their_whole_name() {
        assert_eq!(query(b"/p?xid=2&id=1&id=3", b"id"), Some(&b"1"[..]));
        assert_eq!(query(b"/p?id", b"id"), None);
        assert_eq!(query(b"/p?id=", b"id"), None);
        assert_eq!(query(b"/id=1", b"id"), None);
        assert_eq!(cookie(b"xid=2; id=1;  b=4", b"id"), Some(&b"1"[..]));
        assert_eq!(cookie(b"xid=2; id=1;  b=4", b"b"), Some(&b"4"[..]));
        assert_eq!(cookie(b"idx=2", b"id"), None);
    }
}
