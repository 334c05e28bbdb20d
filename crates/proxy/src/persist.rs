//! A client stays with its server: by a cookie that is set here and that no server sees, or by the route that Tomcat
//! appends to its session's id (`jvmRoute`).
//!
//! Both say a server's name. One that is no server's of the backend, or whose server is down, says nothing: the
//! request goes where it would have gone without it. Called by `transaction` (who serves) and `exchange` (what the two
//! ends see).

use relais_config::plan::{Persist, SameSite};

use crate::upstream::Server;

/// What a request says of its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stuck {
    /// The backend does not ask.
    #[default]
    Unasked,
    /// It does not say.
    New,
    /// It names no server that there is.
    Invalid,
    /// It names one that is down.
    Down,
    /// It names this one, by index.
    To(usize),
}

impl Stuck {
    /// What the request with this head and target says.
    pub(crate) fn of(
        persist: &Persist,
        head: &[u8],
        target: &[u8],
        servers: &[std::rc::Rc<Server>],
    ) -> Stuck {
        let name = match persist {
            Persist::Cookie { name, .. } => cookie(head, name.as_bytes()),
            Persist::Route(name) => {
                let id = cookie(head, name.as_bytes()).or_else(|| path_parameter(target, name.as_bytes()));
                id.and_then(|id| Some(&id[id.iter().rposition(|&b| b == b'.')? + 1..]))
            }
        };
        let Some(name) = name else { return Stuck::New };
        match servers.iter().position(|server| server.plan.name.as_bytes() == name) {
            Some(index) if servers[index].shared.is_up() => Stuck::To(index),
            Some(_) => Stuck::Down,
            None => Stuck::Invalid,
        }
    }

    /// The two letters of a log line for it: what came, and what was done (HAProxy's manual 8.5).
    pub(crate) fn letters(self, is_set: bool) -> [u8; 2] {
        let came = match self {
            Stuck::Unasked => return *b"--",
            Stuck::New => b'N',
            Stuck::Invalid => b'I',
            Stuck::Down => b'D',
            Stuck::To(_) => b'V',
        };
        [came, if is_set { b'I' } else { b'N' }]
    }
}

/// The value of a cookie, quotation marks around it taken off (RFC 6265 §4.1.1).
fn cookie<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let value = lines(head).filter_map(cookies).find_map(|field| relais_balance::key::cookie(field, name))?;
    let bare = value.strip_prefix(b"\"").and_then(|rest| rest.strip_suffix(b"\""));
    Some(bare.unwrap_or(value))
}

fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    head.split_inclusive(|&b| b == b'\n')
}

/// The value of a line that is a `Cookie` field.
fn cookies(line: &[u8]) -> Option<&[u8]> {
    let (name, rest) = line.split_at_checked(b"cookie:".len())?;
    name.eq_ignore_ascii_case(b"cookie:").then(|| rest.trim_ascii())
}

/// The value of `;name=` in a path. Tomcat writes it in lower case, whatever the cookie is called.
fn path_parameter<'a>(target: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let path = target.split(|&b| b == b'?').next()?;
    let parameters = path.split(|&b| b == b';').skip(1);
    parameters
        .filter_map(|parameter| {
            let (key, value) = parameter.split_at_checked(name.len())?;
            let value = value.strip_prefix(b"=")?;
            let value = value.split(|&b| b == b'/').next()?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
        .next()
}

/// Takes the cookie out of a request's field lines, which are what `out` has from `from` on.
pub(crate) fn take_out(out: &mut Vec<u8>, from: usize, name: &str) {
    let name = name.as_bytes();
    let is_it = |pair: &[u8]| pair.trim_ascii().strip_prefix(name).is_some_and(|rest| rest.starts_with(b"="));
    let has = |line: &[u8]| cookies(line).is_some_and(|field| field.split(|&b| b == b';').any(is_it));
    if !lines(&out[from..]).any(has) {
        return;
    }
    let fields = out.split_off(from);
    for line in lines(&fields) {
        let Some(field) = cookies(line).filter(|_| has(line)) else {
            out.extend_from_slice(line);
            continue;
        };
        let mut kept = field.split(|&b| b == b';').filter(|pair| !is_it(pair)).map(<[u8]>::trim_ascii);
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

/// Has the client of a response's `head` come back to `server`, and no cache keep the cookie for others.
pub(crate) fn set(head: &mut Vec<u8>, persist: &Persist, server: &str, is_tls: bool) {
    let Persist::Cookie { name, domain, path, same_site } = persist else { return };
    let Some(end) = head.iter().position(|&b| b == b'\n') else { return };
    let mut line = Vec::with_capacity(128);
    for part in [b"Set-Cookie: ", name.as_bytes(), b"=", server.as_bytes(), b"; Path=", path.as_bytes()] {
        line.extend_from_slice(part);
    }
    if let Some(domain) = domain {
        line.extend_from_slice(b"; Domain=");
        line.extend_from_slice(domain.as_bytes());
    }
    line.extend_from_slice(b"; HttpOnly");
    if is_tls {
        line.extend_from_slice(b"; Secure");
    }
    line.extend_from_slice(match same_site {
        SameSite::Off => b"",
        SameSite::Lax => b"; SameSite=Lax",
        SameSite::Strict => b"; SameSite=Strict",
        SameSite::None => b"; SameSite=None",
    });
    line.extend_from_slice(b"\r\nCache-Control: private\r\n");
    head.splice(end + 1..end + 1, line);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken_out(fields: &str) -> String {
        let mut out = b"GET / HTTP/1.1\r\n".to_vec();
        let from = out.len();
        out.extend_from_slice(fields.as_bytes());
        take_out(&mut out, from, "SRV");
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
            assert_eq!(taken_out(fields), left, "{fields:?}");
        }
    }

    #[test]
    fn a_session_s_route_is_found_in_the_cookie_and_in_the_path() {
        let path = |target: &str| path_parameter(target.as_bytes(), b"JSESSIONID").map(<[u8]>::to_vec);
        assert_eq!(path("/a;jsessionid=12.t1?x=;jsessionid=3.t2"), Some(b"12.t1".to_vec()));
        assert_eq!(path("/a;v=1;JSESSIONID=12.t1/b"), Some(b"12.t1".to_vec()));
        assert_eq!(path("/a?x;jsessionid=12.t1"), None);
        let head = b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b; JSESSIONID=\"AB.t2\"\r\n\r\n";
        assert_eq!(cookie(head, b"JSESSIONID"), Some(&b"AB.t2"[..]));
    }
}
