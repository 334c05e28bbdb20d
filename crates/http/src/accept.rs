//! Which content coding a client likes best (`Accept-Encoding`, RFC 9110 §12.5.3).

use crate::field;

/// The index among `offered`, names in the order of our preference, of the coding that the client likes best;
/// `None` where it is to get the content as it is. `values` are those of its `Accept-Encoding` fields.
///
/// A coding that we offer wins over none if the client ranks it no lower; what is malformed is not accepted.
pub fn best<'a>(values: impl Iterator<Item = &'a [u8]>, offered: &[&str]) -> Option<usize> {
    let mut named = [None; 8];
    let (mut any, mut identity) = (None, None);
    for element in values.flat_map(|value| value.split(|b| *b == b',')) {
        let mut parts = element.split(|b| *b == b';').map(field::trim);
        let name = parts.next().unwrap_or_default();
        let quality = match (parts.next(), parts.next()) {
            (None, _) => 1000,
            (Some(weight), None) => quality(weight).unwrap_or(0),
            _ => 0,
        };
        if name == b"*" {
            any = Some(quality);
        } else if name.eq_ignore_ascii_case(b"identity") {
            identity = Some(quality);
        } else {
            let name = if name.eq_ignore_ascii_case(b"x-gzip") { b"gzip" } else { name };
            let at = offered.iter().position(|o| o.as_bytes().eq_ignore_ascii_case(name));
            if let Some(place) = at.and_then(|at| named.get_mut(at)) {
                *place = Some(quality);
            }
        }
    }
    let mut best = None;
    for (at, quality) in named.iter().enumerate().take(offered.len()) {
        let quality = quality.or(any).unwrap_or(0);
        if quality > 0 && best.is_none_or(|(_, other)| quality > other) {
            best = Some((at, quality));
        }
    }
    best.filter(|(_, quality)| *quality >= identity.unwrap_or(0)).map(|(at, _)| at)
}

/// `q=` and 0 to 1 with at most three decimals, in thousandths (RFC 9110 §12.4.2).
fn quality(weight: &[u8]) -> Option<u16> {
    let (b'q' | b'Q', rest) = weight.split_first().map(|(q, rest)| (*q, rest))? else { return None };
    let value = field::trim(field::trim(rest).strip_prefix(b"=")?);
    let (whole, decimals) = match value {
        [whole] => (whole, &[][..]),
        [whole, b'.', decimals @ ..] if decimals.len() <= 3 => (whole, decimals),
        _ => return None,
    };
    let mut thousandths = match whole {
        b'0' => 0,
        b'1' => 1000,
        _ => return None,
    };
    for (digit, scale) in decimals.iter().zip([100, 10, 1]) {
        thousandths += u16::from(digit.is_ascii_digit().then(|| digit - b'0')?) * scale;
    }
    (thousandths <= 1000).then_some(thousandths)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OURS: [&str; 3] = ["zstd", "br", "gzip"];

    fn chosen(value: &str) -> Option<&'static str> {
        best(core::iter::once(value.as_bytes()), &OURS).map(|at| OURS[at])
    }

    #[test]
    fn the_highest_quality_wins_and_then_our_order() {
        for (value, expected) in [
            ("gzip, deflate, br, zstd", Some("zstd")),
            ("gzip, deflate, br", Some("br")),
            ("gzip", Some("gzip")),
            ("x-gzip", Some("gzip")),
            ("GZIP", Some("gzip")),
            ("br;q=0.5, gzip;q=0.8", Some("gzip")),
            ("br; q=0.5 , gzip ;q=0.501", Some("gzip")),
            ("zstd;q=0, *", Some("br")),
            ("*;q=0.1", Some("zstd")),
            ("br;q=1.000, zstd;q=0.999", Some("br")),
            ("identity, gzip", Some("gzip")),
            ("identity;q=0, gzip;q=0.1", Some("gzip")),
        ] {
            assert_eq!(chosen(value), expected, "{value}");
        }
    }

    #[test]
    fn who_does_not_ask_or_asks_in_vain_gets_it_as_it_is() {
        for value in [
            "",
            ",",
            "identity",
            "deflate",
            "gzip;q=0",
            "*;q=0",
            "gzip;q=0.5, identity",
            "gzip;q=0.5, identity;q=0.6",
            "gzip;q=2",
            "gzip;q=0.1234",
            "gzip;q=",
            "gzip;q=1;x=1",
            "gzip;level=1",
            "gzip;q=1.5",
            "gzip;q=-1",
        ] {
            assert_eq!(chosen(value), None, "{value}");
        }
        assert_eq!(best(core::iter::empty(), &OURS), None);
    }

    #[test]
    fn several_fields_are_one_list() {
        let values = [&b"gzip;q=0.2"[..], b"br;q=0.1"];
        assert_eq!(best(values.into_iter(), &OURS), Some(2));
    }
}
