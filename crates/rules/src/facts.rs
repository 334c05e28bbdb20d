//! What is known of a request, and how a condition's values are found in it.

use alloc::string::String;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr};

use crate::path::{self, BadPath};
use crate::{Key, What};

/// What is known of a request or, where only `src`, `port` and `sni` are, of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// The client's address.
    pub src: IpAddr,
    /// The port that it came in on.
    pub port: u16,
    /// Whether it came over TLS.
    pub tls: bool,
    /// The server name of the TLS handshake.
    pub sni: Option<&'a [u8]>,
    /// Who the client's certificate is about, if it has shown one.
    pub client: Option<&'a Identity>,
    /// The method.
    pub method: &'a [u8],
    /// The host asked for, with its port.
    pub host: Option<&'a [u8]>,
    /// Path and query as the client wrote them.
    pub target: &'a [u8],
    /// The field lines, `name: value CRLF` each.
    pub fields: &'a [u8],
    /// The name that the request has in the logs.
    pub request_id: &'a [u8],
}

impl Default for Facts<'_> {
    fn default() -> Self {
        Facts {
            src: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            port: 0,
            tls: false,
            sni: None,
            client: None,
            method: b"",
            host: None,
            target: b"",
            fields: b"",
            request_id: b"",
        }
    }
}

/// What a client's certificate says of it, in words for servers and logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The subject as RFC 4514 writes it: `CN=Ada,O=Example`.
    pub subject: String,
    /// Who signed it, likewise.
    pub issuer: String,
    /// The subject's common name.
    pub cn: String,
    /// Hexadecimal, in capitals.
    pub serial: String,
    /// DNS names, addresses, mail addresses and URIs (subjectAltName), with commas between.
    pub san: String,
    /// SHA-256 of the certificate, hexadecimal, in small letters.
    pub sha256: String,
}

impl Identity {
    /// The words after `client-certificate:`, as messages list them.
    pub const NAMES: &str = "subject, issuer, cn, serial, san, sha256 and verified";
}

/// A word of [`Identity::NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityField {
    /// As in [`Identity`]; likewise the others.
    Subject,
    #[allow(missing_docs)]
    Issuer,
    #[allow(missing_docs)]
    Cn,
    #[allow(missing_docs)]
    Serial,
    #[allow(missing_docs)]
    San,
    #[allow(missing_docs)]
    Sha256,
    /// `SUCCESS` for a certificate that was found good, else `NONE`.
    Verified,
}

impl IdentityField {
    /// The field of a name.
    pub fn named(name: &str) -> Option<IdentityField> {
        Some(match name {
            "subject" => Self::Subject,
            "issuer" => Self::Issuer,
            "cn" => Self::Cn,
            "serial" => Self::Serial,
            "san" => Self::San,
            "sha256" => Self::Sha256,
            "verified" => Self::Verified,
            _ => return None,
        })
    }

    /// What it is for a client, whose certificate may be none.
    pub fn of(self, client: Option<&Identity>) -> &str {
        let Some(client) = client else {
            return if self == Self::Verified { "NONE" } else { "" };
        };
        match self {
            Self::Subject => &client.subject,
            Self::Issuer => &client.issuer,
            Self::Cn => &client.cn,
            Self::Serial => &client.serial,
            Self::San => &client.san,
            Self::Sha256 => &client.sha256,
            Self::Verified => "SUCCESS",
        }
    }
}

/// Where values are put that do not stand in the request the way they are compared. A value is worked out once.
#[derive(Debug, Default)]
pub(crate) struct Worked {
    path: Vec<u8>,
    path_is: Form,
    host: Vec<u8>,
    host_is: Form,
    spare: Vec<u8>,
    joined: Vec<u8>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
enum Form {
    #[default]
    Unknown,
    None,
    AsWritten,
    Changed,
}

impl Worked {
    pub(crate) fn forget(&mut self) {
        self.path_is = Form::Unknown;
        self.host_is = Form::Unknown;
    }

    /// Works the path out.
    pub(crate) fn read_path(&mut self, facts: &Facts<'_>) -> Result<(), BadPath> {
        if self.path_is != Form::Unknown {
            return Ok(());
        }
        if facts.target == b"*" {
            self.path_is = Form::None; // OPTIONS of the server itself
            return Ok(());
        }
        let raw = path::split(facts.target).0;
        let path = path::normalize(facts.target, &mut self.path)?;
        self.path_is =
            if core::ptr::eq(path.as_ptr(), raw.as_ptr()) { Form::AsWritten } else { Form::Changed };
        if self.path_is == Form::Changed && raw.is_empty() {
            self.path.clear();
            self.path.push(b'/');
        }
        Ok(())
    }

    /// Gives each value of `what` to `each` until it says that it has seen enough; whether it did.
    pub(crate) fn values(
        &mut self,
        what: &What,
        facts: &Facts<'_>,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        match what {
            What::Path => {
                let _ = self.read_path(facts); // an error was the end before
                match self.path_is {
                    Form::AsWritten => each(path::split(facts.target).0),
                    Form::Changed => each(&self.path),
                    Form::None | Form::Unknown => false,
                }
            }
            What::Host => {
                if self.host_is == Form::Unknown {
                    self.host_is = host(facts.host, &mut self.host);
                }
                match self.host_is {
                    Form::AsWritten => facts.host.is_some_and(each),
                    Form::Changed => each(&self.host),
                    Form::None | Form::Unknown => false,
                }
            }
            What::Sni => match host(facts.sni, &mut self.spare) {
                Form::AsWritten => facts.sni.is_some_and(each),
                Form::Changed => each(&self.spare),
                Form::None | Form::Unknown => false,
            },
            What::Method => !facts.method.is_empty() && each(facts.method),
            What::Header(name) => fields(facts.fields, name.as_bytes(), each),
            What::Cookie(name) => fields(facts.fields, b"cookie", &mut |line| cookies(line, name, each)),
            What::Query(name) => self.parameters(path::split(facts.target).1, name.as_bytes(), each),
            What::Tls => each(if facts.tls { b"yes" } else { b"no" }),
            What::Scheme => each(if facts.tls { b"https" } else { b"http" }),
            What::Port => {
                let mut digits = [0; 5];
                each(decimal(facts.port, &mut digits))
            }
            What::Src => false,
        }
    }

    /// Gives the value of a key to `ask`, and returns its answer; `false` if there is none.
    pub(crate) fn key(&mut self, key: &Key, facts: &Facts<'_>, ask: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        if let [what] = key.parts.as_slice() {
            return self.part(key, what, facts, ask);
        }
        let mut joined = core::mem::take(&mut self.joined);
        joined.clear();
        let whole = key.parts.iter().all(|what| {
            self.part(key, what, facts, &mut |value| {
                // With its length, so that no two pairs of values look alike.
                joined.extend_from_slice(&(value.len() as u32).to_be_bytes());
                joined.extend_from_slice(value);
                true
            })
        });
        let answer = whole && ask(&joined);
        self.joined = joined;
        answer
    }

    /// Gives the value of a part of a key to `ask`, and returns its answer; `false` if there is none.
    fn part(
        &mut self,
        key: &Key,
        what: &What,
        facts: &Facts<'_>,
        ask: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        if *what == What::Src {
            return match facts.src.to_canonical() {
                IpAddr::V4(ip) => {
                    let mask = u32::MAX.checked_shl(32 - u32::from(key.prefix4.min(32))).unwrap_or(0);
                    ask(&(u32::from(ip) & mask).to_be_bytes())
                }
                IpAddr::V6(ip) => {
                    let mask = u128::MAX.checked_shl(128 - u32::from(key.prefix6.min(128))).unwrap_or(0);
                    ask(&(u128::from(ip) & mask).to_be_bytes())
                }
            };
        }
        let mut answer = false;
        self.values(what, facts, &mut |value| {
            answer = ask(value);
            true
        });
        answer
    }

    fn parameters(&mut self, query: &[u8], name: &[u8], each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        let pairs = query.strip_prefix(b"?").unwrap_or(query).split(|&b| b == b'&');
        for pair in pairs.filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_at(pair.iter().position(|&b| b == b'=').unwrap_or(pair.len()));
            if decoded(key, &mut self.spare) != name {
                continue;
            }
            if each(decoded(value.get(1..).unwrap_or_default(), &mut self.spare)) {
                return true;
            }
        }
        false
    }
}

/// A number as text.
pub(crate) fn decimal(mut number: u16, digits: &mut [u8; 5]) -> &[u8] {
    let mut at = digits.len();
    loop {
        at -= 1;
        digits[at] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &digits[at..];
        }
    }
}

/// A host in small letters, without its port and the dot that ends a full name, and with no escape: `%61` is another
/// spelling of `a` (RFC 3986 §6.2.2.2), so that a rule for `a.example` is one for `%61.example`.
fn host(value: Option<&[u8]>, out: &mut Vec<u8>) -> Form {
    let Some(value) = value else { return Form::None };
    let name = without_port(value);
    let plain = |b: &u8| !b.is_ascii_uppercase() && *b != b'%';
    if name.len() == value.len() && !name.ends_with(b".") && name.iter().all(plain) {
        return Form::AsWritten;
    }
    out.clear();
    let mut rest = name;
    while let [byte, tail @ ..] = rest {
        let escape = match tail {
            [high, low, behind @ ..] if *byte == b'%' => {
                path::hex(*high).zip(path::hex(*low)).map(|(high, low)| (high << 4 | low, behind))
            }
            _ => None,
        };
        let (byte, behind) = escape.unwrap_or((*byte, tail));
        out.push(byte.to_ascii_lowercase());
        rest = behind;
    }
    if out.last() == Some(&b'.') {
        out.pop();
    }
    Form::Changed
}

pub(crate) fn without_port(host: &[u8]) -> &[u8] {
    let bracket = host.iter().rposition(|&b| b == b']').map_or(0, |i| i + 1);
    host[bracket..].iter().position(|&b| b == b':').map_or(host, |colon| &host[..bracket + colon])
}

/// The values of the fields of a name, in small letters, trimmed.
pub(crate) fn fields(lines: &[u8], name: &[u8], each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    for line in lines.split(|&b| b == b'\n') {
        let Some((head, tail)) = line.split_at_checked(name.len()) else { continue };
        if let [b':', value @ ..] = tail
            && head.eq_ignore_ascii_case(name)
            && each(value.trim_ascii())
        {
            return true;
        }
    }
    false
}

fn cookies(line: &[u8], name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    for pair in line.split(|&b| b == b';').map(<[u8]>::trim_ascii) {
        let Some(at) = pair.iter().position(|&b| b == b'=') else { continue };
        if pair[..at].trim_ascii_end() != name.as_bytes() {
            continue;
        }
        let value = pair[at + 1..].trim_ascii_start();
        let value = match value {
            [b'"', inner @ .., b'"'] => inner,
            other => other,
        };
        if each(value) {
            return true;
        }
    }
    false
}

/// `+` is a space, `%xx` a byte; a broken escape stays what it is.
fn decoded<'a>(text: &'a [u8], out: &'a mut Vec<u8>) -> &'a [u8] {
    if !text.iter().any(|&b| b == b'%' || b == b'+') {
        return text;
    }
    out.clear();
    let mut rest = text;
    while let [byte, tail @ ..] = rest {
        rest = tail;
        match (byte, tail) {
            (b'+', _) => out.push(b' '),
            (b'%', [high, low, behind @ ..]) => match path::hex(*high).zip(path::hex(*low)) {
                Some((high, low)) => {
                    out.push(high << 4 | low);
                    rest = behind;
                }
                None => out.push(b'%'),
            },
            (byte, _) => out.push(*byte),
        }
    }
    out
}
