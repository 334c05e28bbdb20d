//! The cookie that says a server, in HAProxy's forms.
//!
//! | mode | a client has | its server sees |
//! | --- | --- | --- |
//! | insert | `SRV=tomcat1`; with dates `SRV=tomcat1\|Z5bnW\|Z5baA` | nothing, or with `indirect=no` the same |
//! | prefix | `JSESSIONID=tomcat1~1A2B` | `JSESSIONID=1A2B` |
//! | rewrite | `SRV=tomcat1` | the same |
//!
//! Dates (when it was used last, when it was given first) are seconds since 1970 in quarters, in five characters of base64, highest
//! first. Who forges one stays longer with a server that it could have asked for anyway.

use std::time::Duration;

use relais_config::plan::{CookieMode, SameSite, Secure, ServerCookie};

use super::{Came, Set, Stuck, cookies, lines};

/// What a cookie's date stands behind.
const DATE: u8 = b'|';
/// What a prefix ends in.
const PREFIX: u8 = b'~';
/// A clock that is wrong by so much is not ours, seconds.
const FUTURE_S: u64 = 86_400;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// In what circumstances an answer is given.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting {
    /// The client speaks TLS.
    pub(crate) is_tls: bool,
    /// It asked with POST.
    pub(crate) is_post: bool,
    /// Seconds since 1970.
    pub(crate) now_s: u64,
}

/// A date, in seconds since 1970; 0 if it is none.
fn date(text: &[u8]) -> u64 {
    let digit = |byte: &u8| ALPHABET.iter().position(|known| known == byte);
    let quarters = match text.get(..5) {
        Some(text) => text.iter().try_fold(0, |sum, byte| Some(sum << 6 | digit(byte)? as u64)),
        None => None,
    };
    quarters.map_or(0, |quarters| quarters << 2)
}

fn write_date(out: &mut Vec<u8>, seconds: u64) {
    let quarters = seconds >> 2;
    out.push(DATE);
    out.extend((0..5).rev().map(|place| ALPHABET[(quarters >> (6 * place) & 63) as usize]));
}

/// A value without its dates, and those: of its last use, of its first.
pub(super) fn dated(value: &[u8]) -> (&[u8], (u64, u64)) {
    let mut parts = value.split(|&b| b == DATE);
    let name = parts.next().unwrap_or(value);
    let mut date = || parts.next().map_or(0, date);
    (name, (date(), date()))
}

/// Whether a cookie with these dates still counts. A date far in the future counts as too old, one that is not there as now.
pub(super) fn age(
    (last, first): (u64, u64),
    max_idle: Option<Duration>,
    max_life: Option<Duration>,
    now_s: u64,
) -> Result<(), Came> {
    let is_over = |date: u64, most: Option<Duration>| {
        let too_long = |most: Duration| now_s.saturating_sub(date) > most.as_secs();
        date != 0 && most.is_some_and(|most| too_long(most) || date.saturating_sub(now_s) > FUTURE_S)
    };
    match () {
        () if is_over(first, max_life) => Err(Came::Old),
        () if is_over(last, max_idle) => Err(Came::Expired),
        () => Ok(()),
    }
}

/// What stands before the `~` of a value.
pub(super) fn prefix(value: &[u8]) -> Option<&[u8]> {
    Some(&value[..value.iter().position(|&b| b == PREFIX)?])
}

/// Whether a piece of a `Cookie` field is the cookie of this name.
fn is_of(pair: &[u8], name: &[u8]) -> bool {
    pair.trim_ascii().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="))
}

/// Takes the cookie out of a request's field lines, which are what `out` has from `from` on.
pub(super) fn take_out(out: &mut Vec<u8>, from: usize, name: &str) {
    let name = name.as_bytes();
    let has = |line: &[u8]| {
        cookies(line).is_some_and(|field| field.split(|&b| b == b';').any(|pair| is_of(pair, name)))
    };
    if !lines(&out[from..]).any(has) {
        return;
    }
    let fields = out.split_off(from);
    for line in lines(&fields) {
        let Some(field) = cookies(line).filter(|_| has(line)) else {
            out.extend_from_slice(line);
            continue;
        };
        let mut kept = field.split(|&b| b == b';').filter(|pair| !is_of(pair, name)).map(<[u8]>::trim_ascii);
        if let Some(first) = kept.next() {
            out.extend_from_slice(b"Cookie: ");
            out.extend_from_slice(first);
            for pair in kept {
                out.extend_from_slice(b"; ");
                out.extend_from_slice(pair);
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Takes the server off the values of the cookie in a request's field lines likewise.
pub(super) fn take_off_prefix(out: &mut Vec<u8>, from: usize, name: &str) {
    let name = name.as_bytes();
    let mut at = from;
    while at < out.len() {
        let end = out[at..].iter().position(|&b| b == b'\n').map_or(out.len(), |length| at + length + 1);
        let mut removed = 0;
        if cookies(&out[at..end]).is_some() {
            let mut pair = at + b"cookie:".len();
            while pair < end - removed {
                let stop = out[pair..end - removed].iter().position(|&b| b == b';');
                let stop = stop.map_or(end - removed, |length| pair + length);
                let text = &out[pair..stop];
                let blanks = text.len() - text.trim_ascii_start().len();
                let value = pair + blanks + name.len() + 1;
                let length =
                    if is_of(text, name) { prefix(&out[value..stop]).map(<[u8]>::len) } else { None };
                let length = length.map_or(0, |length| length + 1);
                out.drain(value.min(stop)..value.min(stop) + length);
                removed += length;
                pair = stop - length + 1;
            }
        }
        at = end - removed;
    }
}

/// What of an answer's line is the value of its `Set-Cookie` of this name.
fn value_set(line: &[u8], name: &[u8]) -> Option<std::ops::Range<usize>> {
    const FIELD: &[u8] = b"set-cookie:";
    let (field, rest) = line.split_at_checked(FIELD.len())?;
    if !field.eq_ignore_ascii_case(FIELD) {
        return None;
    }
    let pair = rest.split(|&b| b == b';').next()?;
    let at = pair.iter().position(|&b| b == b'=')?;
    if pair[..at].trim_ascii() != name {
        return None;
    }
    let value = &pair[at + 1..];
    let start = FIELD.len() + at + 1 + (value.len() - value.trim_ascii_start().len());
    Some(start..start + value.trim_ascii().len())
}

/// Has the client of an answer's `head` come back to `server`, called `name` in the cookie.
pub(super) fn answer(
    head: &mut Vec<u8>,
    plan: &ServerCookie,
    stuck: Stuck,
    server: usize,
    name: &str,
    setting: Setting,
) -> Set {
    let mut set = Set::Nothing;
    let mut at = 0;
    while at < head.len() {
        let end = head[at..].iter().position(|&b| b == b'\n').map_or(head.len(), |length| at + length + 1);
        let Some(value) = value_set(&head[at..end], plan.name.as_bytes()) else {
            at = end;
            continue;
        };
        let value = at + value.start..at + value.end;
        match plan.mode {
            CookieMode::Insert { preserve: true, .. } => {
                set = Set::Provided;
                at = end;
            }
            CookieMode::Insert { .. } => {
                set = Set::Deleted;
                head.drain(at..end);
            }
            CookieMode::Prefix => {
                set = Set::Rewritten;
                let prefix = name.bytes().chain([PREFIX]);
                head.splice(value.start..value.start, prefix);
                at = end + name.len() + 1;
            }
            CookieMode::Rewrite => {
                set = Set::Rewritten;
                at = end - value.len() + name.len();
                head.splice(value, name.bytes());
            }
        }
    }
    let CookieMode::Insert { max_idle, max_life, post_only, .. } = &plan.mode else { return set };
    let is_there = stuck.server == Some(server);
    let (last, first) = stuck.dates;
    let is_stale = (max_idle.is_some() || last != 0) && last < setting.now_s
        || max_life.is_some() && first == 0
        || max_life.is_none() && first != 0;
    if set == Set::Provided || is_there && !is_stale || *post_only && !setting.is_post {
        return set;
    }
    insert(head, plan, name, first, setting);
    if is_there { Set::Updated } else { Set::Inserted }
}

/// Writes the cookie behind the status line. `first`: when it was given first, if it was.
fn insert(head: &mut Vec<u8>, plan: &ServerCookie, name: &str, first: u64, setting: Setting) {
    let CookieMode::Insert {
        nocache,
        max_idle,
        max_life,
        domain,
        path,
        same_site,
        secure,
        http_only,
        attributes,
        ..
    } = &plan.mode
    else {
        return;
    };
    let Some(end) = head.iter().position(|&b| b == b'\n') else { return };
    let mut line = Vec::with_capacity(192);
    for part in [b"Set-Cookie: ", plan.name.as_bytes(), b"=", name.as_bytes()] {
        line.extend_from_slice(part);
    }
    if max_idle.is_some() || max_life.is_some() {
        let now = setting.now_s + 3; // in quarters it is never before now
        write_date(&mut line, now);
        if max_life.is_some() {
            write_date(&mut line, if first == 0 { now } else { first });
        }
    }
    for part in [b"; Path=", path.as_bytes()] {
        line.extend_from_slice(part);
    }
    if let Some(domain) = domain {
        line.extend_from_slice(b"; Domain=");
        line.extend_from_slice(domain.as_bytes());
    }
    if *http_only {
        line.extend_from_slice(b"; HttpOnly");
    }
    if *secure == Secure::Yes || *secure == Secure::Auto && setting.is_tls {
        line.extend_from_slice(b"; Secure");
    }
    line.extend_from_slice(match same_site {
        SameSite::Off => b"",
        SameSite::Lax => b"; SameSite=Lax",
        SameSite::Strict => b"; SameSite=Strict",
        SameSite::None => b"; SameSite=None",
    });
    if let Some(attributes) = attributes {
        line.extend_from_slice(b"; ");
        line.extend_from_slice(attributes.as_bytes());
    }
    line.extend_from_slice(b"\r\n");
    if *nocache {
        line.extend_from_slice(b"Cache-Control: private\r\n");
    }
    head.splice(end + 1..end + 1, line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(fields: &str, edit: fn(&mut Vec<u8>, usize, &str)) -> String {
        let mut out = b"GET / HTTP/1.1\r\n".to_vec();
        let from = out.len();
        out.extend_from_slice(fields.as_bytes());
        edit(&mut out, from, "SRV");
        String::from_utf8(out.split_off(from)).expect("text")
    }

    #[test]
    fn the_cookie_is_taken_out_and_others_are_left_as_they_are() {
        for (fields, left) in [
            ("Host: h\r\nCookie: SRV=a\r\nAccept: */*\r\n", "Host: h\r\nAccept: */*\r\n"),
            ("cookie: x=1; SRV=a; y=2\r\n", "Cookie: x=1; y=2\r\n"),
            ("Cookie: SRV=a;x=1\r\nCookie: SRV=b\r\n", "Cookie: x=1\r\n"),
            ("Cookie: XSRV=a;  y=\"SRV=b\"\r\n", "Cookie: XSRV=a;  y=\"SRV=b\"\r\n"),
            ("Cookies: SRV=a\r\n", "Cookies: SRV=a\r\n"),
            ("X: SRV=a\r\n", "X: SRV=a\r\n"),
            ("", ""),
        ] {
            assert_eq!(edited(fields, take_out), left, "{fields:?}");
        }
    }

    #[test]
    fn a_server_is_taken_off_the_application_s_cookie_and_nothing_else() {
        for (fields, left) in [
            ("Cookie: SRV=a~12\r\nX: SRV=a~1\r\n", "Cookie: SRV=12\r\nX: SRV=a~1\r\n"),
            ("Cookie: x=1;SRV=a~1~2 ; SRV=b~3\r\n", "Cookie: x=1;SRV=1~2 ; SRV=3\r\n"),
            ("cookie:SRV=~;XSRV=a~1\r\nA: b\r\n", "cookie:SRV=;XSRV=a~1\r\nA: b\r\n"),
            ("Cookie: SRV=12; SRV=; SRV; =\r\n", "Cookie: SRV=12; SRV=; SRV; =\r\n"),
            ("Cookie: \r\nCookie: ;;\r\n", "Cookie: \r\nCookie: ;;\r\n"),
            ("Cookie: SRV=a~1", "Cookie: SRV=1"),
            ("Cookie:", "Cookie:"),
        ] {
            assert_eq!(edited(fields, take_off_prefix), left, "{fields:?}");
        }
    }

    #[test]
    fn the_value_that_an_answer_sets_is_found() {
        let value = |line: &str| value_set(line.as_bytes(), b"SRV").map(|range| line[range].to_owned());
        assert_eq!(value("Set-Cookie: SRV=a; Path=/\r\n"), Some("a".into()));
        assert_eq!(value("set-cookie:SRV = \"a\"\r\n"), Some("\"a\"".into()));
        assert_eq!(value("Set-Cookie: SRV=\r\n"), Some(String::new()));
        assert_eq!(value("Set-Cookie: XSRV=a; SRV=b\r\n"), None);
        assert_eq!(value("Set-Cookie: SRV; Path=/\r\n"), None);
        assert_eq!(value("Cookie: SRV=a\r\n"), None);
    }

    #[test]
    fn dates_are_haproxy_s() {
        let mut out = b"s1".to_vec();
        write_date(&mut out, 1_700_000_000);
        write_date(&mut out, 4);
        assert_eq!(out, b"s1|ZVPxA|AAAAB");
        assert_eq!(dated(&out), (&b"s1"[..], (1_700_000_000, 4)));
        for none in ["s1", "s1|", "s1|ZVP", "s1|ZV xA|ZV:xA"] {
            assert_eq!(dated(none.as_bytes()), (&b"s1"[..], (0, 0)), "{none}");
        }
    }

    #[test]
    fn a_cookie_counts_until_it_is_too_old_and_not_if_it_comes_from_the_future() {
        let (hour, day) = (Some(Duration::from_secs(3_600)), Some(Duration::from_secs(86_400)));
        let now = 1_700_000_000;
        assert_eq!(age((now - 3_600, now - 86_400), hour, day, now), Ok(()));
        assert_eq!(age((now - 3_604, now), hour, day, now), Err(Came::Expired));
        assert_eq!(age((now, now - 86_404), hour, day, now), Err(Came::Old));
        assert_eq!(age((now - 9_999_999, now - 9_999_999), None, None, now), Ok(()));
        assert_eq!(age((0, 0), hour, day, now), Ok(()), "one without dates gets them");
        assert_eq!(age((now + 86_400, 0), hour, None, now), Ok(()));
        assert_eq!(age((now + 86_404, 0), hour, None, now), Err(Came::Expired));
    }
}
