//! A client stays with its server: by a cookie that says the server, or by the route that Tomcat appends to its session's
//! id (`jvmRoute`).
//!
//! What names no server of the backend, or one that is down, says nothing: the request goes where it would have gone
//! without it. Called by `transaction` (who serves) and `exchange` (what the two ends see); [`cookie`] has the forms.

mod cookie;

use std::rc::Rc;
use std::sync::Arc;

use aws_lc_rs::hmac;
use relais_config::plan::{self, CookieMode, Persist};
use relais_ipc::files::Files;

use crate::upstream::Server;

pub(crate) use cookie::Setting;

/// Bytes of a hash that stands for a server's name: nobody is to find names, and no two names are to meet.
const HASH: usize = 8;
/// Shortest secret, characters.
const SHORTEST_SECRET: usize = 16;

/// How a backend's clients stay, as one plan has it.
#[derive(Debug, PartialEq)]
pub(crate) struct Sticks {
    pub(crate) plan: Persist,
    /// What cookies call the servers, in their order.
    pub(crate) names: Vec<Arc<str>>,
}

impl Sticks {
    /// How this backend's clients stay, if they do.
    ///
    /// # Errors
    /// A sentence, if the secret is of no use.
    pub(crate) fn new(backend: &plan::Backend, files: &Files) -> Result<Option<Sticks>, String> {
        let Some(plan) = &backend.persist else { return Ok(None) };
        let plain =
            backend.servers.iter().map(|server| server.cookie.as_ref().unwrap_or(&server.name).clone());
        let names = match plan.secret() {
            None => plain.collect(),
            Some(path) => {
                let wrong = |why| format!("`persist` of backend {}: {why}", backend.name);
                let secret = files.get(path).map_err(wrong)?.trim_ascii();
                if secret.len() < SHORTEST_SECRET {
                    return Err(wrong(format!(
                        "its secret has at least {SHORTEST_SECRET} characters; make one with `openssl rand -base64 48`"
                    )));
                }
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
                plain.map(|name| hashed(&key, &backend.name, &name)).collect()
            }
        };
        Ok(Some(Sticks { plan: plan.clone(), names }))
    }
}

/// What stands for a server's name.
fn hashed(key: &hmac::Key, backend: &str, name: &str) -> Arc<str> {
    let text = ["relais persist", backend, name].join("\0");
    let hash = hmac::sign(key, text.as_bytes());
    hash.as_ref()[..HASH].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into()
}

/// What came of what a request says of its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Came {
    /// The backend does not ask.
    #[default]
    Unasked,
    /// It does not say.
    New,
    /// It names no server that there is.
    Invalid,
    /// It names one that is down.
    Down,
    /// It has not been used for too long.
    Expired,
    /// It was given too long ago.
    Old,
    /// It names one that is up.
    Valid,
}

/// What a request says of its server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stuck {
    came: Came,
    /// The server, by index.
    server: Option<usize>,
    /// When the cookie was used last and given first, seconds since 1970; 0: it does not say.
    dates: (u64, u64),
}

impl Stuck {
    /// What the request with this head and target says, at this second since 1970.
    pub(crate) fn of(
        sticks: &Sticks,
        head: &[u8],
        target: &[u8],
        servers: &[Rc<Server>],
        now_s: u64,
    ) -> Stuck {
        match &sticks.plan {
            Persist::Cookie(plan) => {
                let Some(value) = value(head, plan.name.as_bytes()) else { return Stuck::came(Came::New) };
                let (name, dates) = match &plan.mode {
                    CookieMode::Insert { max_idle, max_life, .. } => {
                        let (name, dates) = cookie::dated(value);
                        match cookie::age(dates, *max_idle, *max_life, now_s) {
                            Ok(()) => (name, dates),
                            Err(came) => return Stuck::came(came),
                        }
                    }
                    CookieMode::Prefix => (cookie::prefix(value).unwrap_or(value), (0, 0)),
                    CookieMode::Rewrite => (value, (0, 0)),
                };
                let names = sticks.names.iter().map(|known| known.as_bytes());
                Stuck { dates, ..Stuck::find(name, names, servers) }
            }
            Persist::Route(name) => {
                let name = name.as_bytes();
                let id = value(head, name).or_else(|| path_parameter(target, name));
                let route = id.and_then(|id| Some(&id[id.iter().rposition(|&b| b == b'.')? + 1..]));
                let Some(route) = route else { return Stuck::came(Came::New) };
                Stuck::find(route, servers.iter().map(|server| server.plan.name.as_bytes()), servers)
            }
        }
    }

    /// It is to go there by a table, which no log line tells of.
    pub(crate) fn by_table(server: Option<usize>) -> Stuck {
        Stuck { server, ..Stuck::default() }
    }

    fn came(came: Came) -> Stuck {
        Stuck { came, ..Stuck::default() }
    }

    /// The first server of this name that is up: servers may share one.
    fn find<'a>(name: &[u8], names: impl Iterator<Item = &'a [u8]>, servers: &[Rc<Server>]) -> Stuck {
        let mut came = Came::Invalid;
        for (index, _) in names.enumerate().filter(|(_, known)| *known == name) {
            if servers[index].shared.serves() {
                return Stuck { came: Came::Valid, server: Some(index), dates: (0, 0) };
            }
            came = Came::Down;
        }
        Stuck::came(came)
    }

    /// The server, by index, that the request is to go to.
    pub(crate) fn server(self) -> Option<usize> {
        self.server
    }

    /// The two letters of a log line for it: what came, and what was done (HAProxy's manual 8.5).
    pub(crate) fn letters(self, set: Set) -> [u8; 2] {
        let came = match self.came {
            Came::Unasked => return *b"--",
            Came::New => b'N',
            Came::Invalid => b'I',
            Came::Down => b'D',
            Came::Expired => b'E',
            Came::Old => b'O',
            Came::Valid => b'V',
        };
        [came, set as u8]
    }
}

/// What was done about an answer's cookie; HAProxy's letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Set {
    /// There was none, and there is none.
    Nothing = b'N',
    /// There is one.
    Inserted = b'I',
    /// It is the same with a new date.
    Updated = b'U',
    /// The server's own is as it was.
    Provided = b'P',
    /// The server's own says the server now.
    Rewritten = b'R',
    /// The server's own was taken out.
    Deleted = b'D',
}

/// The value of a cookie of a request, quotation marks around it taken off (RFC 6265 §4.1.1).
pub(crate) fn value<'a>(head: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let pairs = lines(head).filter_map(cookies).flat_map(|field| field.split(|&b| b == b';'));
    let value = pairs.map(<[u8]>::trim_ascii).find_map(|pair| pair.strip_prefix(name)?.strip_prefix(b"="))?;
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
pub(crate) fn path_parameter<'a>(target: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
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

/// Has the server see of the cookie what it is to see: `out` has the request's field lines from `from` on.
pub(crate) fn prepare(out: &mut Vec<u8>, from: usize, persist: &Persist) {
    let Persist::Cookie(plan) = persist else { return };
    match plan.mode {
        CookieMode::Insert { indirect: true, .. } => cookie::take_out(out, from, &plan.name),
        CookieMode::Prefix => cookie::take_off_prefix(out, from, &plan.name),
        CookieMode::Insert { .. } | CookieMode::Rewrite => {}
    }
}

/// Has the client of an answer's `head` come back to the server of this index.
pub(crate) fn answer(
    head: &mut Vec<u8>,
    sticks: &Sticks,
    stuck: Stuck,
    server: usize,
    setting: Setting,
) -> Set {
    match &sticks.plan {
        Persist::Cookie(plan) => cookie::answer(head, plan, stuck, server, &sticks.names[server], setting),
        Persist::Route(_) => Set::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_s_route_is_found_in_the_cookie_and_in_the_path() {
        let path = |target: &str| path_parameter(target.as_bytes(), b"JSESSIONID").map(<[u8]>::to_vec);
        assert_eq!(path("/a;jsessionid=12.t1?x=;jsessionid=3.t2"), Some(b"12.t1".to_vec()));
        assert_eq!(path("/a;v=1;JSESSIONID=12.t1/b"), Some(b"12.t1".to_vec()));
        assert_eq!(path("/a?x;jsessionid=12.t1"), None);
        let head = b"GET / HTTP/1.1\r\nHost: h\r\nCookie: a=b; JSESSIONID=\"AB.t2\"\r\n\r\n";
        assert_eq!(value(head, b"JSESSIONID"), Some(&b"AB.t2"[..]));
    }

    #[test]
    fn a_hashed_name_depends_on_the_secret_and_on_the_backend() {
        let key = |secret: &[u8]| hmac::Key::new(hmac::HMAC_SHA256, secret);
        let (ours, theirs) = (key(b"one secret of sixteen"), key(b"another of sixteen"));
        let name = hashed(&ours, "app", "tomcat1");
        assert_eq!(name, hashed(&ours, "app", "tomcat1"));
        assert_eq!(name.len(), 2 * HASH);
        assert_ne!(name, hashed(&theirs, "app", "tomcat1"));
        assert_ne!(name, hashed(&ours, "app2", "tomcat1"));
        assert_ne!(name, hashed(&ours, "app", "tomcat2"));
    }
}
