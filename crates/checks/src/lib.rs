#![no_std]
#![forbid(unsafe_code)]
//! What health checks say to servers, and what the answers mean: one [`Talk`] a check, one file a protocol.
//!
//! Pure conversations: no socket and no clock. The proxy's `probe` moves the bytes, watches the time and closes the
//! connection; it calls [`Talk::step`] with whatever has come. Not how often to ask, nor what a verdict does to a server.
//! Everything that is read here was written by a stranger: nothing panics, nothing grows beyond [`MOST`].

extern crate alloc;

mod agent;
mod grpc;
mod ldap;
mod mysql;
mod postgresql;
mod redis;
mod smtp;
mod tls;

pub use agent::{AgentAdmin, AgentSaid, agent};

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes of answers that may wait to be understood: a caller gives up beyond it.
pub const MOST: usize = 16 * 1024;

/// The function that `mysql_native_password` is made of (FIPS 180-4), of all pieces in a row. A core has none.
pub type Sha1 = fn(&[&[u8]]) -> [u8; 20];

/// What is asked of a server.
#[derive(Clone, Copy, Debug)]
pub enum Ask<'a> {
    /// TLS: it answers a `ClientHello` with its own.
    Tls {
        /// The name asked for.
        sni: Option<&'a str>,
        /// Random bytes of the `ClientHello`: nothing is kept secret with them.
        random: [u8; 32],
    },
    /// MySQL's protocol: it greets, and takes the login of `user` if there is one.
    Mysql {
        /// Who logs in; without it the greeting is all.
        user: Option<&'a str>,
        /// The password, or nothing.
        password: &'a [u8],
        /// The node has to be Primary and Synced.
        galera: bool,
        /// For the password.
        sha1: Sha1,
    },
    /// PostgreSQL's: it takes the start of a session of `user`.
    Postgresql {
        /// Whose session.
        user: &'a str,
    },
    /// Redis: it answers `PING`.
    Redis {
        /// The password, or nothing.
        password: &'a [u8],
    },
    /// SMTP: it greets and takes `EHLO`.
    Smtp {
        /// The name that we say is ours.
        helo: &'a str,
    },
    /// LDAP: it takes a bind, and has an entry.
    Ldap {
        /// Who binds; `None`: nobody.
        user: Option<&'a str>,
        /// The password.
        password: &'a [u8],
        /// The entry that is looked for.
        base: Option<&'a str>,
    },
    /// gRPC's health protocol: the service is SERVING.
    Grpc {
        /// The service; empty: the server as a whole.
        service: &'a str,
        /// The name in `:authority`.
        host: &'a str,
        /// It is asked over TLS.
        tls: bool,
    },
}

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Wait for more bytes.
    Wait,
    /// Send this, then ask again.
    Say(Vec<u8>),
    /// The verdict, in a few words either way, and what is said for farewell.
    Done(Result<String, String>, &'static [u8]),
}

impl Step {
    fn well(what: impl Into<String>, farewell: &'static [u8]) -> Step {
        Step::Done(Ok(what.into()), farewell)
    }

    fn ill(what: impl Into<String>) -> Step {
        Step::Done(Err(what.into()), b"")
    }
}

/// A conversation under way.
#[derive(Debug)]
pub struct Talk<'a>(Kind<'a>);

#[derive(Debug)]
enum Kind<'a> {
    Tls(tls::Tls<'a>),
    Mysql(mysql::Mysql<'a>),
    Postgresql(postgresql::Postgresql<'a>),
    Redis(redis::Redis<'a>),
    Smtp(smtp::Smtp<'a>),
    Ldap(ldap::Ldap<'a>),
    Grpc(grpc::Grpc<'a>),
}

impl<'a> Talk<'a> {
    /// The beginning of one.
    pub fn new(ask: Ask<'a>) -> Talk<'a> {
        Talk(match ask {
            Ask::Tls { sni, random } => Kind::Tls(tls::Tls::new(sni, random)),
            Ask::Mysql { user, password, galera, sha1 } => {
                Kind::Mysql(mysql::Mysql::new(user, password, galera, sha1))
            }
            Ask::Postgresql { user } => Kind::Postgresql(postgresql::Postgresql::new(user)),
            Ask::Redis { password } => Kind::Redis(redis::Redis::new(password)),
            Ask::Smtp { helo } => Kind::Smtp(smtp::Smtp::new(helo)),
            Ask::Ldap { user, password, base } => Kind::Ldap(ldap::Ldap::new(user, password, base)),
            Ask::Grpc { service, host, tls } => Kind::Grpc(grpc::Grpc::new(service, host, tls)),
        })
    }

    /// The next step, with all that has come and was not understood yet in `inbox`: what is understood is taken out.
    /// Called until it is [`Step::Done`]; after [`Step::Wait`], with more.
    pub fn step(&mut self, inbox: &mut Vec<u8>) -> Step {
        match &mut self.0 {
            Kind::Tls(talk) => talk.step(inbox),
            Kind::Mysql(talk) => talk.step(inbox),
            Kind::Postgresql(talk) => talk.step(inbox),
            Kind::Redis(talk) => talk.step(inbox),
            Kind::Smtp(talk) => talk.step(inbox),
            Kind::Ldap(talk) => talk.step(inbox),
            Kind::Grpc(talk) => talk.step(inbox),
        }
    }
}

/// The first line of `inbox`, without its end, taken out.
fn line(inbox: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = inbox.iter().position(|&byte| byte == b'\n')?;
    let mut line: Vec<u8> = inbox.drain(..=end).collect();
    line.pop();
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Some(line)
}

/// What a server said, for a log: at most 80 characters, nothing that a terminal acts on.
fn quote(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let clean = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let short: String = clean.take(80).collect();
    format!("\"{}\"", short.trim())
}

/// Checks that no input, in whatever pieces it comes, makes a conversation panic or never end. The first byte chooses
/// the protocol. For the fuzzer.
pub fn fuzz(input: &[u8]) {
    let Some((choice, input)) = input.split_first() else { return };
    let said = agent(input);
    assert!(said.weight.is_none_or(|weight| weight <= 100), "more than all");
    let sha1: Sha1 = |pieces| [pieces.iter().fold(0, |sum, piece| piece.len() as u8 ^ sum); 20];
    let ask = || match choice % 8 {
        0 => Ask::Tls { sni: Some("a.example"), random: [7; 32] },
        1 => Ask::Mysql { user: None, password: b"", galera: false, sha1 },
        2 => Ask::Mysql { user: Some("monitor"), password: b"secret", galera: true, sha1 },
        3 => Ask::Postgresql { user: "monitor" },
        4 => Ask::Redis { password: b"secret" },
        5 => Ask::Smtp { helo: "a.example" },
        6 => Ask::Ldap { user: Some("cn=m"), password: b"secret", base: Some("dc=x") },
        _ => Ask::Grpc { service: "a.Service", host: "a.example", tls: false },
    };
    let verdict = |pieces: &mut dyn Iterator<Item = &[u8]>| {
        let (mut talk, mut inbox) = (Talk::new(ask()), Vec::new());
        loop {
            let mut said = 0;
            loop {
                match talk.step(&mut inbox) {
                    Step::Wait => break,
                    Step::Say(bytes) => {
                        assert!(!bytes.is_empty(), "nothing is said");
                        said += 1;
                        assert!(said < 16, "a conversation goes on by itself");
                    }
                    Step::Done(result, _) => return Some(result),
                }
            }
            inbox.extend_from_slice(pieces.next()?);
        }
    };
    let whole = verdict(&mut core::iter::once(input));
    let piecewise = verdict(&mut input.chunks(1));
    assert_eq!(whole, piecewise, "pieces change the verdict");
}

#[cfg(test)]
mod tests;
