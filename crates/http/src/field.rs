//! The fields that a gateway acts on, and the lexical rules of field values.

macro_rules! fields {
    ($($variant:ident $name:literal;)*) => {
        /// A field that means something to a gateway; every other one is [`Field::Other`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[allow(missing_docs)]
        pub enum Field {
            Other,
            /// A name that is one of the others once `_` is read as `-`, as CGI's successors read it: what
            /// `Transfer_Encoding` frames and `X_Forwarded_Proto` claims is for nobody, and never sent on.
            Alias,
            $($variant,)*
        }

        impl Field {
            /// Which field a name is. Names have no case (RFC 9110 §5.1).
            pub fn of(name: &[u8]) -> Field {
                $(if name.len() == $name.len() {
                    match compare(name, $name) {
                        Same::Yes => return Field::$variant,
                        Same::ButUnderscores => return Field::Alias,
                        Same::No => {}
                    }
                })*
                Field::Other
            }
        }
    };
}

fields! {
    Te b"te";
    Date b"date";
    Host b"host";
    Expect b"expect";
    Upgrade b"upgrade";
    Trailer b"trailer";
    Connection b"connection";
    ClientCert b"client-cert";
    KeepAlive b"keep-alive";
    MaxForwards b"max-forwards";
    ContentLength b"content-length";
    Http2Settings b"http2-settings";
    ProxyConnection b"proxy-connection";
    ForwardedHost b"x-forwarded-host";
    ForwardedProto b"x-forwarded-proto";
    TransferEncoding b"transfer-encoding";
}

enum Same {
    Yes,
    ButUnderscores,
    No,
}

/// Whether `name` is `known`, which is lower-case and as long.
fn compare(name: &[u8], known: &[u8]) -> Same {
    let mut same = Same::Yes;
    for (ours, theirs) in name.iter().zip(known) {
        if ours.to_ascii_lowercase() != *theirs {
            if *ours != b'_' || *theirs != b'-' {
                return Same::No;
            }
            same = Same::ButUnderscores;
        }
    }
    same
}

impl Field {
    /// Whether it means nothing to a message's framing and hops, so that `Connection` may name it.
    pub fn is_plain(self) -> bool {
        matches!(self, Field::Other | Field::Date | Field::ForwardedHost | Field::ForwardedProto)
    }

    /// Whether it frames or routes a message, so that `Connection` may not take it away.
    pub fn is_structural(self) -> bool {
        matches!(
            self,
            Field::Host
                | Field::ContentLength
                | Field::TransferEncoding
                | Field::Connection
                | Field::Expect
                | Field::MaxForwards
        )
    }
}

/// `tchar` of RFC 9110 §5.6.2.
pub const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

/// A byte that a field value may have: HTAB, SP, VCHAR, obs-text (RFC 9110 §5.5).
pub const fn is_value_byte(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// `token` of RFC 9110 §5.6.2.
pub fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|&b| is_tchar(b))
}

/// Without optional whitespace at both ends.
pub fn trim(bytes: &[u8]) -> &[u8] {
    let blank = |b: &u8| *b == b' ' || *b == b'\t';
    let start = bytes.iter().position(|b| !blank(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !blank(b)).map_or(start, |i| i + 1);
    &bytes[start..end]
}

/// The elements of a comma-separated list (RFC 9110 §5.6.1), trimmed; empty ones stay, to be judged.
pub fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// `1*DIGIT` up to `max`; everything else, signs and blanks included, is `None`.
pub fn decimal(value: &[u8], max: u64) -> Option<u64> {
    if value.is_empty() {
        return None;
    }
    let mut number: u64 = 0;
    for &byte in value {
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.checked_mul(10)?.checked_add(u64::from(byte - b'0'))?;
    }
    (number <= max).then_some(number)
}

/// `uri-host [":" port]` of RFC 9110 §7.2, not empty: a bracketed IPv6 address or a registered name.
pub fn is_host(value: &[u8]) -> bool {
    let (host, port) = split_port(value);
    let port_ok = port.is_none_or(|p| p.is_empty() || decimal(p, 65_535).is_some());
    let host_ok = match host {
        [b'[', inner @ .., b']'] => {
            core::str::from_utf8(inner).is_ok_and(|text| text.parse::<core::net::Ipv6Addr>().is_ok())
        }
        name => is_registered_name(name),
    };
    host_ok && port_ok
}

/// `reg-name` of RFC 3986 §3.2.2, not empty, and without the comma that would make two of one.
fn is_registered_name(name: &[u8]) -> bool {
    let mut rest = name;
    while let [byte, tail @ ..] = rest {
        rest = match byte {
            b'%' => match tail {
                [a, b, tail @ ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => tail,
                _ => return false,
            },
            b'.' | b'-' | b'_' | b'~' | b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b';'
            | b'=' => tail,
            other if other.is_ascii_alphanumeric() => tail,
            _ => return false,
        };
    }
    !name.is_empty()
}

/// A host without its port, and the port if there is a colon for one.
pub fn split_port(value: &[u8]) -> (&[u8], Option<&[u8]>) {
    let after_bracket = value.iter().rposition(|&b| b == b']').map_or(0, |i| i + 1);
    match value[after_bracket..].iter().position(|&b| b == b':') {
        Some(colon) => {
            let colon = after_bracket + colon;
            (&value[..colon], Some(&value[colon + 1..]))
        }
        None => (value, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Field::of(b"TRANSFER-encoding"), Field::TransferEncoding);
        assert_eq!(Field::of(b"Transfer-Encodin"), Field::Other);
        assert_eq!(Field::of(b"te"), Field::Te);
    }

    #[test]
    fn a_name_that_underscores_make_of_a_known_one_is_an_alias() {
        for alias in ["Transfer_Encoding", "content_length", "x_forwarded-PROTO", "Keep_Alive"] {
            assert_eq!(Field::of(alias.as_bytes()), Field::Alias, "{alias}");
        }
        for other in ["X_A", "Content_Type", "transfer_encodinG_", "content.length", "_e"] {
            assert_eq!(Field::of(other.as_bytes()), Field::Other, "{other}");
        }
    }

    #[test]
    fn a_decimal_has_digits_only_and_never_overflows() {
        assert_eq!(decimal(b"0005", u64::MAX), Some(5));
        for bad in [&b""[..], b"+5", b"-1", b" 5", b"5 ", b"0x5", b"5.0", b"18446744073709551616"] {
            assert_eq!(decimal(bad, u64::MAX), None, "{bad:?}");
        }
        assert_eq!(decimal(b"9223372036854775808", (1 << 63) - 1), None);
    }

    #[test]
    fn a_host_is_a_name_or_an_address_with_an_optional_port() {
        for good in [
            "h1.test",
            "h1.test:8080",
            "h1.test:",
            "[::1]:8080",
            "[::1]",
            "10.0.0.1:80",
            "a_b",
            "h%31",
            "[::ffff:1.2.3.4]",
        ] {
            assert!(is_host(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            ":80",
            "u@h",
            "h/evil",
            "h evil",
            "h:65536",
            "h:8x",
            "[::1",
            "::1",
            "a,b",
            "[]",
            "h#",
            "é",
            "h%zz",
            "h%4",
            "[:::]",
            "[1:2]",
            "[fe80::1%25eth0]",
            "[::1]x",
        ] {
            assert!(!is_host(bad.as_bytes()), "{bad}");
        }
    }
}
