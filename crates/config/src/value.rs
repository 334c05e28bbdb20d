//! One value: from what stands in the text to what its [`Type`] makes of it.
//!
//! A value that does not fit is a [`Misfit`]: what the directive takes, and what to write instead.
//! `walk` adds where it stands.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use crate::plan::Cidr;
use crate::table::Type;

/// A value as it stands in the text.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Raw {
    /// A word, quoted or bare.
    Text(String),
    /// A whole number.
    Integer(i128),
    /// A number with decimals, and how it is written.
    Float(f64, String),
    /// `#true`, `#false`, `#null` and the like.
    Keyword(String),
}

/// A value that fits its type.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    /// Any kind of text: names, words, paths, hosts.
    Text(Arc<str>),
    /// A number, or a size in bytes.
    Integer(u64),
    /// A number that may be below zero.
    Signed(i16),
    /// Where to listen or connect to.
    Socket(SocketAddr),
    /// An address.
    Ip(IpAddr),
    /// A time span.
    Duration(Duration),
    /// Networks, or one address with its prefix.
    Networks(Vec<Cidr>),
    /// First and last status.
    Statuses(u16, u16),
    /// Checked, and not acted on yet.
    Checked,
}

/// Why a value does not fit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    /// What was expected: "a time span from 1ms to 1h".
    pub(crate) expected: String,
    /// What to write instead.
    pub(crate) help: String,
    /// What exactly is wrong and where in the text, if it is not the whole.
    pub(crate) within: Option<(std::ops::Range<usize>, String)>,
}

const LONGEST_TEXT: usize = 255;
const LONGEST_PATH: usize = 4095;
const MOST_NETWORKS: usize = 256;

impl Raw {
    /// It as text, the way it was meant.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) | Self::Float(_, text) | Self::Keyword(text) => text.clone(),
            Self::Integer(number) => number.to_string(),
        }
    }
}

impl Type {
    /// What it takes, in a sentence after "takes": "a time span from 1ms to 1h".
    pub fn describe(self) -> String {
        match self {
            Self::Name(kind) => format!("the name of the new {}", kind.name()),
            Self::Reference(kind) => format!("the name of a {}", kind.name()),
            Self::Word(words) => alternatives(words),
            Self::Words(words) => format!("{}, or several of them joined by `+`", alternatives(words)),
            Self::Text => "a text of 1 to 255 characters".into(),
            Self::Path => "an absolute path".into(),
            Self::File => "the absolute path of a file".into(),
            Self::LogTarget => "`off`, `stdout`, the absolute path of a file, or a syslog server".into(),
            Self::LogFormat => "a format of access lines".into(),
            Self::HeaderName => "the name of a header field".into(),
            Self::UrlPath => "the path of a URL, which begins with `/`".into(),
            Self::Url => "a URL that begins with `http://` or `https://`".into(),
            Self::PathPattern => "a pattern for paths, which begins with `/`".into(),
            Self::Host => "a host name".into(),
            Self::HostPattern => "a host name, or `*.` before one".into(),
            Self::Regex => "a regular expression".into(),
            Self::HeaderValue => "the value of a header field".into(),
            Self::Location => "a place to redirect to".into(),
            Self::Interface => "the name of a network interface, 1 to 15 characters".into(),
            Self::Mail => "a mail address".into(),
            Self::Integer(min, max) => format!("a whole number from {min} to {max}"),
            Self::Decimal(min, max) => format!("a number from {min} to {max}"),
            Self::Signed(most) => format!("a whole number from -{most} to {most}"),
            Self::Duration(min, max) => format!("a time span from {} to {}", show_ms(min), show_ms(max)),
            Self::Size(min, max) => format!("a size from {} to {}", show_size(min), show_size(max)),
            Self::Amount(min, max) => format!("a number, or a size, from {min} to {max}"),
            Self::Ip => "an IP address".into(),
            Self::Listen | Self::Socket => "an address and a port".into(),
            Self::Address => "an address and the length of its network prefix".into(),
            Self::Networks => "networks in CIDR notation".into(),
            Self::Statuses => "a status from 100 to 599, or a range of them".into(),
        }
    }

    /// Something that fits, as one would write it.
    pub fn sample(self) -> &'static str {
        match self {
            Self::Name(kind) | Self::Reference(kind) => match kind.name() {
                "node" => "haproxy1",
                "backend" | "tomcat" => "app",
                _ => "NAME",
            },
            Self::Word(words) | Self::Words(words) => words.first().copied().unwrap_or_default(),
            Self::Text => "NAME",
            Self::Path | Self::File => "\"/srv/relais/FILE\"",
            Self::LogTarget => "stdout",
            Self::LogFormat => "json",
            Self::HeaderName => "User-Agent",
            Self::UrlPath => "\"/healthz\"",
            Self::Url => "\"https://www.example/healthz\"",
            Self::PathPattern => "\"/manager/**\"",
            Self::Host => "\"www.example\"",
            Self::HostPattern => "\"*.example\"",
            Self::Regex => "\"^/files/[0-9]+$\"",
            Self::HeaderValue => "\"%{src}\"",
            Self::Location => "\"https://www.example%{uri}\"",
            Self::Interface => "eth0",
            Self::Mail => "\"name@www.example\"",
            Self::Integer(..) | Self::Amount(..) | Self::Decimal(..) | Self::Signed(_) => "10",
            Self::Duration(..) => "\"10s\"",
            Self::Size(..) => "\"256MiB\"",
            Self::Ip => "\"192.168.112.176\"",
            Self::Listen => "\"*:80\"",
            Self::Socket => "\"192.168.112.177:8081\"",
            Self::Address => "\"192.168.112.180/24\"",
            Self::Networks => "\"192.168.112.0/24\"",
            Self::Statuses => "\"200-399\"",
        }
    }

    fn misfit(self, help: impl Into<String>) -> Misfit {
        Misfit { expected: self.describe(), help: help.into(), within: None }
    }

    /// What `raw` is as this type.
    pub(crate) fn parse(self, raw: &Raw) -> Result<Value, Misfit> {
        match (self, raw) {
            (Self::Amount(min, max), Raw::Integer(_)) | (Self::Integer(min, max), _) => {
                self.parse_integer(raw, min, max)
            }
            (Self::Decimal(min, max), _) => self.parse_decimal(raw, min, max),
            (Self::Signed(most), Raw::Integer(number)) => match i16::try_from(*number) {
                Ok(number) if (-most..=most).contains(&number) => Ok(Value::Signed(number)),
                _ => Err(self.misfit(format!("write a number from -{most} to {most}"))),
            },
            (
                Self::Statuses | Self::Word(_) | Self::Listen | Self::Socket | Self::HeaderValue,
                Raw::Integer(_),
            ) => self.parse_text(&raw.text()),
            (Self::Duration(..), Raw::Integer(n)) => Err(self.misfit(format!(
                "a number alone has no unit: write \"{n}s\" for seconds or \"{n}ms\" for milliseconds"
            ))),
            (Self::Size(..), Raw::Integer(n)) => {
                Err(self.misfit(format!("a number alone has no unit: write \"{n}MiB\"")))
            }
            (_, Raw::Text(text)) => self.parse_text(text),
            (Self::Name(_) | Self::Reference(_) | Self::Text, Raw::Integer(_) | Raw::Float(..)) => {
                Err(self.misfit(format!("a number is no name; with quotes it is: \"{}\"", raw.text())))
            }
            _ => Err(self.misfit(format!("write for example {}", self.sample()))),
        }
    }

    fn parse_integer(self, raw: &Raw, min: u64, max: u64) -> Result<Value, Misfit> {
        match raw {
            Raw::Integer(number) => match u64::try_from(*number) {
                Ok(number) if (min..=max).contains(&number) => Ok(Value::Integer(number)),
                _ => Err(self.misfit(format!("write a number from {min} to {max}"))),
            },
            Raw::Text(text) if text.parse::<u64>().is_ok() => {
                Err(self.misfit(format!("numbers stand without quotes: {text}")))
            }
            _ => Err(self.misfit(format!("write a number from {min} to {max}"))),
        }
    }

    fn parse_decimal(self, raw: &Raw, min: f64, max: f64) -> Result<Value, Misfit> {
        let number = match raw {
            Raw::Integer(number) => *number as f64,
            Raw::Float(number, _) => *number,
            Raw::Text(text) => match text.trim_end_matches('%').parse::<f64>() {
                Ok(number) => {
                    return Err(self.misfit(format!("numbers stand without quotes and without %: {number}")));
                }
                Err(_) => {
                    return Err(self.misfit(format!("write a number from {min} to {max}, such as 99.9")));
                }
            },
            Raw::Keyword(_) => f64::NAN,
        };
        if (min..=max).contains(&number) {
            Ok(Value::Checked)
        } else {
            Err(self.misfit(format!("write a number from {min} to {max}, such as 99.9")))
        }
    }

    fn parse_text(self, text: &str) -> Result<Value, Misfit> {
        let it =
            |good: bool, help: &str| if good { Ok(Value::Text(text.into())) } else { Err(self.misfit(help)) };
        match self {
            Self::Name(_) | Self::Reference(_) => self.parse_name(text),
            Self::Word(words) => {
                let near = crate::nearest::nearest(text, words.iter().copied());
                it(
                    words.contains(&text),
                    &near
                        .map(|w| format!("did you mean `{w}`?"))
                        .unwrap_or_else(|| format!("write {}", alternatives(words))),
                )
            }
            Self::Words(words) => self.parse_words(text, words),
            Self::Text => it(is_text(text), "write 1 to 255 characters on one line"),
            Self::Path | Self::File => it(
                is_path(text),
                &format!(
                    "write the path from the root on: \"/{}\"",
                    text.trim_start_matches(['.', '/', '~'])
                ),
            ),
            Self::LogTarget => match text.split_once('@') {
                Some(("udp" | "tcp", address))
                    if address.parse::<SocketAddr>().is_ok_and(|a| a.port() != 0) =>
                {
                    Ok(Value::Text(text.into()))
                }
                Some((kind @ ("udp" | "tcp"), _)) => {
                    Err(self.misfit(format!("write address and port: \"{kind}@192.168.112.177:514\"")))
                }
                Some(("unix", path)) => it(
                    is_path(path) && path.len() < 108,
                    "write the socket's path, of at most 107 bytes: \"unix@/dev/log\"",
                ),
                _ => it(
                    matches!(text, "off" | "stdout" | "platform") || is_path(text),
                    "write `off`, `stdout`, a path from the root on such as \"/var/log/relais/access.log\", \
                     \"udp@ADDRESS:PORT\", \"tcp@ADDRESS:PORT\" or \"unix@/dev/log\"",
                ),
            },
            Self::LogFormat => match crate::log_format::check(text) {
                Ok(()) if text.len() <= LONGEST_PATH && !text.chars().any(char::is_control) => {
                    Ok(Value::Text(text.into()))
                }
                Ok(()) => Err(self.misfit(format!("write at most {LONGEST_PATH} characters on one line"))),
                Err(wrong) => Err(Misfit {
                    within: Some((wrong.at, wrong.message)),
                    help: wrong.help,
                    expected: self.describe(),
                }),
            },
            Self::HeaderName => it(
                text.len() <= 128 && relais_http::field::is_token(text.as_bytes()),
                "write a name such as User-Agent, without `:`",
            ),
            Self::UrlPath | Self::PathPattern => it(
                is_url_path(text),
                &format!(
                    "write \"/{}\"",
                    text.trim_start_matches('/').replace(|c: char| !c.is_ascii_graphic(), "")
                ),
            ),
            Self::Url => it(is_url(text), "write it whole, such as \"https://www.example/healthz\""),
            Self::HostPattern => it(
                is_host(text.strip_prefix("*.").unwrap_or(text)),
                "write a name such as \"www.example\", or \"*.example\" for all below it, without scheme, port or path",
            ),
            Self::Regex => match relais_rules::Pattern::Regex(text.into()).check() {
                Ok(()) => it(!text.is_empty(), "an empty one is found everywhere: leave it out"),
                Err(why) => Err(self
                    .misfit(format!("{why}; a raw string needs no doubled backslashes: #\"^/x\\.html$\"#"))),
            },
            Self::HeaderValue => match relais_rules::template::Template::value(text) {
                Ok(_) => it(text.len() <= LONGEST_PATH, "write at most 4095 bytes"),
                Err(why) => Err(self.misfit(why)),
            },
            Self::Location => match relais_rules::template::Template::location(text) {
                Ok(_) => it(text.len() <= LONGEST_PATH, "write at most 4095 bytes"),
                Err(why) => Err(self.misfit(why)),
            },
            Self::Host => {
                it(is_host(text), "write a name such as \"www.example\", without scheme, port or path")
            }
            Self::Interface => it(
                (1..=15).contains(&text.len())
                    && text.bytes().all(|b| b.is_ascii_graphic() && b != b'/' && b != b':'),
                "`ip link` lists the interfaces of a machine; write one such as eth0",
            ),
            Self::Mail => it(
                is_text(text)
                    && text
                        .split_once('@')
                        .is_some_and(|(name, host)| !name.is_empty() && !text.contains(' ') && is_host(host)),
                "write one such as \"name@www.example\"",
            ),
            Self::Duration(min, max) => self.parse_duration(text, min, max),
            Self::Size(min, max) | Self::Amount(min, max) => self.parse_size(text, min, max),
            Self::Ip => self.parse_ip(text),
            Self::Listen | Self::Socket => self.parse_socket(text),
            Self::Address => self.parse_address(text),
            Self::Networks => self.parse_networks(text),
            Self::Statuses => self.parse_statuses(text),
            Self::Integer(..) | Self::Decimal(..) | Self::Signed(_) => Err(self.misfit("write a number")),
        }
    }

    fn parse_name(self, text: &str) -> Result<Value, Misfit> {
        let (Self::Name(kind) | Self::Reference(kind)) = self else { return Err(self.misfit("")) };
        // A rule's name is a sentence for people; every other name ends up in logs, labels and file names.
        let good = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if kind == crate::table::Kind::Rule {
            return if is_text(text) {
                Ok(Value::Text(text.into()))
            } else {
                Err(self.misfit("write 1 to 255 characters on one line"))
            };
        }
        if text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(good)
        {
            return Ok(Value::Text(text.into()));
        }
        if text.parse::<SocketAddr>().is_ok() {
            return Err(self.misfit(format!("the name comes first: NAME \"{text}\"")));
        }
        let cleaned: String =
            text.trim_end_matches(',').chars().map(|c| if good(c) { c } else { '-' }).take(63).collect();
        let cleaned = cleaned.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        Err(self.misfit(if cleaned.is_empty() {
            "names are up to 63 letters, digits, `-`, `_` and `.`, a letter or digit first".into()
        } else {
            format!(
                "names are up to 63 letters, digits, `-`, `_` and `.`, a letter or digit first: {cleaned}"
            )
        }))
    }

    fn parse_words(self, text: &str, words: &[&str]) -> Result<Value, Misfit> {
        let mut seen = Vec::new();
        for part in text.split('+') {
            if !words.contains(&part) {
                let near = crate::nearest::nearest(part, words.iter().copied());
                let help = near.map(|word| format!("did you mean `{}`?", text.replace(part, word)));
                return Err(self.misfit(help.unwrap_or_else(|| format!("write {}", alternatives(words)))));
            }
            if seen.contains(&part) {
                return Err(self.misfit(format!("`{part}` stands there twice: write each once")));
            }
            seen.push(part);
        }
        Ok(Value::Text(text.into()))
    }

    fn parse_duration(self, text: &str, min: u64, max: u64) -> Result<Value, Misfit> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let factor = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(self.misfit(duration_help(number, unit))),
        };
        match number.parse::<u64>().ok().and_then(|n| n.checked_mul(factor)) {
            Some(ms) if (min..=max).contains(&ms) => Ok(Value::Duration(Duration::from_millis(ms))),
            _ if number.is_empty() => Err(self.misfit(duration_help(number, unit))),
            Some(ms) if ms < min => Err(self.misfit(format!("write at least \"{}\"", show_ms(min)))),
            _ => Err(self.misfit(format!("write at most \"{}\"", show_ms(max)))),
        }
    }

    fn parse_size(self, text: &str, min: u64, max: u64) -> Result<Value, Misfit> {
        let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            "TiB" => 40,
            _ => {
                let meant = unit
                    .chars()
                    .next()
                    .map(|c| c.to_ascii_uppercase())
                    .filter(|c| "KMGT".contains(*c))
                    .unwrap_or('M');
                let number = if number.is_empty() { "256" } else { number };
                return Err(
                    self.misfit(format!("units are B, KiB, MiB, GiB and TiB: write \"{number}{meant}iB\""))
                );
            }
        };
        match number.parse::<u64>().ok().and_then(|n| n.checked_mul(1 << shift)) {
            Some(bytes) if (min..=max).contains(&bytes) => Ok(Value::Integer(bytes)),
            _ => Err(self.misfit(format!(
                "write a size from \"{}\" to \"{}\"",
                show_size(min),
                show_size(max)
            ))),
        }
    }

    fn parse_ip(self, text: &str) -> Result<Value, Misfit> {
        text.parse().map(Value::Ip).map_err(|_| {
            let bare = text.split(['/', ':']).next().unwrap_or_default();
            self.misfit(match bare.parse::<Ipv4Addr>() {
                Ok(ip) if text.contains('/') => format!("an address without its prefix length: \"{ip}\""),
                Ok(ip) => format!("an address without a port: \"{ip}\""),
                Err(_) => ip_help(text),
            })
        })
    }

    fn parse_socket(self, text: &str) -> Result<Value, Misfit> {
        let listen = self == Self::Listen;
        let host = if listen { "*" } else { "192.168.112.177" };
        let Some((address, port)) = text.rsplit_once(':') else {
            return Err(self.misfit(match text.parse::<u16>() {
                Ok(port) => format!("the address is missing: write \"{host}:{port}\""),
                Err(_) => format!("the port is missing: write \"{text}:80\""),
            }));
        };
        let Some(port) = port.parse::<u16>().ok().filter(|p| *p != 0 && !port.starts_with('+')) else {
            return Err(self.misfit(format!("ports are 1 to 65535: write \"{address}:80\"")));
        };
        let ip = match address {
            "*" if listen => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            "" => return Err(self.misfit(format!("the address is missing: write \"{host}:{port}\""))),
            _ => match address.strip_prefix('[').and_then(|a| a.strip_suffix(']')) {
                Some(v6) => match v6.parse() {
                    Ok(ip) => IpAddr::V6(ip),
                    Err(_) => return Err(self.misfit(ip_help(v6))),
                },
                None => match address.parse::<IpAddr>() {
                    Ok(IpAddr::V6(ip)) => {
                        return Err(
                            self.misfit(format!("an IPv6 address stands in brackets: \"[{ip}]:{port}\""))
                        );
                    }
                    Ok(ip) => ip,
                    Err(_) if text.parse::<std::net::Ipv6Addr>().is_ok() => {
                        return Err(self.misfit(format!(
                            "an IPv6 address stands in brackets, the port after them: \"[{text}]:80\""
                        )));
                    }
                    Err(_) => return Err(self.misfit(ip_help(address))),
                },
            },
        };
        if !listen && ip.is_unspecified() {
            return Err(self.misfit("write the address of one machine, such as \"192.168.112.177:8081\""));
        }
        Ok(Value::Socket(SocketAddr::new(ip, port)))
    }

    fn parse_address(self, text: &str) -> Result<Value, Misfit> {
        let (address, prefix) = text.split_once('/').unwrap_or((text, ""));
        let Ok(ip) = address.parse::<IpAddr>() else { return Err(self.misfit(ip_help(address))) };
        let (longest, usual) = if ip.is_ipv4() { (32, 24) } else { (128, 64) };
        if prefix.is_empty() {
            return Err(self.misfit(format!(
                "the prefix length of the network is missing: write \"{address}/{usual}\""
            )));
        }
        let Some(prefix) = parse_prefix(prefix, longest).filter(|p| *p > 0) else {
            return Err(self.misfit(format!("prefix lengths are 1 to {longest}: write \"{ip}/{usual}\"")));
        };
        let nobodys = match ip {
            IpAddr::V4(ip) => ip.is_broadcast() || ip.octets()[0] == 0,
            IpAddr::V6(ip) => ip.to_ipv4_mapped().is_some(),
        };
        if nobodys || ip.is_unspecified() || ip.is_loopback() || ip.is_multicast() {
            let one = if ip.is_ipv4() { "192.168.112.180/24" } else { "fd00:112::180/64" };
            return Err(self.misfit(format!("write an address that a machine can have, such as \"{one}\"")));
        }
        if let IpAddr::V4(ip) = ip {
            self.check_host(ip, prefix)?;
        }
        Ok(Value::Networks(vec![Cidr { address: ip, prefix }]))
    }

    fn check_host(self, ip: Ipv4Addr, prefix: u8) -> Result<(), Misfit> {
        let mask = u32::MAX << (32 - u32::from(prefix));
        let host = u32::from(ip) & !mask;
        if prefix < 31 && (host == 0 || host == !mask) {
            let what = if host == 0 { "the network itself" } else { "the network's broadcast address" };
            let first = Ipv4Addr::from((u32::from(ip) & mask) | 1);
            return Err(self.misfit(format!(
                "{ip}/{prefix} is {what}: write one of its hosts, such as \"{first}/{prefix}\""
            )));
        }
        Ok(())
    }

    fn parse_networks(self, text: &str) -> Result<Value, Misfit> {
        let mut networks = Vec::new();
        for word in text.split([' ', ',']).filter(|word| !word.is_empty()) {
            let (address, prefix) = word.split_once('/').map_or((word, None), |(a, p)| (a, Some(p)));
            let Ok(address) = address.parse::<IpAddr>() else { return Err(self.misfit(ip_help(address))) };
            let longest = if address.is_ipv4() { 32 } else { 128 };
            let Some(prefix) = prefix.map_or(Some(longest), |p| parse_prefix(p, longest)) else {
                return Err(self.misfit(format!(
                    "prefix lengths are 0 to {longest}: write \"{address}/{longest}\" for that address alone"
                )));
            };
            networks.push(Cidr { address, prefix });
        }
        if networks.is_empty() || networks.len() > MOST_NETWORKS {
            return Err(
                self.misfit(format!("write 1 to {MOST_NETWORKS} networks, such as \"192.168.112.0/24\""))
            );
        }
        Ok(Value::Networks(networks))
    }

    fn parse_statuses(self, text: &str) -> Result<Value, Misfit> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (first.parse::<u16>(), last.parse::<u16>()) {
            (Ok(first), Ok(last)) if 100 <= first && first <= last && last <= 599 => {
                Ok(Value::Statuses(first, last))
            }
            _ => Err(self.misfit("write one status such as 200, or a range such as \"200-399\"")),
        }
    }
}

fn parse_prefix(text: &str, longest: u8) -> Option<u8> {
    text.parse().ok().filter(|p| *p <= longest && !text.starts_with('+'))
}

fn ip_help(text: &str) -> String {
    if text.chars().any(|c| c.is_ascii_alphabetic()) && !text.contains(':') {
        "names are not looked up: write the address, such as \"192.168.112.177\"".into()
    } else {
        "an IPv4 address is four numbers from 0 to 255, such as \"192.168.112.177\"".into()
    }
}

fn duration_help(number: &str, unit: &str) -> String {
    let units = "units are ms, s, m, h and d";
    let unit = unit.to_ascii_lowercase();
    let meant = match unit.trim() {
        "" => "s",
        "sec" | "secs" | "second" | "seconds" => "s",
        "min" | "mins" | "minute" | "minutes" => "m",
        "msec" | "millis" | "milliseconds" => "ms",
        "hour" | "hours" | "hr" => "h",
        "day" | "days" => "d",
        "us" | "ns" => return format!("{units}: \"1ms\" is the shortest"),
        other if other.starts_with('.') => {
            return format!("{units}, in whole numbers: \"1500ms\" for one second and a half");
        }
        other if matches!(other, "ms" | "s" | "m" | "h" | "d") => other,
        _ => "s",
    };
    format!("{units}: write \"{}{meant}\"", if number.is_empty() { "10" } else { number })
}

/// A time span the way the file writes it.
pub(crate) fn show_ms(ms: u64) -> String {
    for (factor, unit) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")] {
        if ms != 0 && ms.is_multiple_of(factor) {
            return format!("{}{unit}", ms / factor);
        }
    }
    format!("{ms}ms")
}

fn show_size(bytes: u64) -> String {
    for (shift, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        if bytes != 0 && bytes.is_multiple_of(1 << shift) {
            return format!("{}{unit}", bytes >> shift);
        }
    }
    format!("{bytes}B")
}

/// "`a`, `b` or `c`"
pub(crate) fn alternatives(words: &[&str]) -> String {
    let quoted: Vec<String> = words.iter().map(|w| format!("`{w}`")).collect();
    match quoted.split_last() {
        Some((last, [])) => last.clone(),
        Some((last, rest)) => format!("{} or {last}", rest.join(", ")),
        None => String::new(),
    }
}

fn is_text(text: &str) -> bool {
    !text.trim().is_empty() && text.chars().count() <= LONGEST_TEXT && !text.chars().any(char::is_control)
}

fn is_path(text: &str) -> bool {
    text.starts_with('/') && text.len() <= LONGEST_PATH && !text.chars().any(char::is_control)
}

fn is_url_path(text: &str) -> bool {
    text.starts_with('/')
        && text.len() <= LONGEST_PATH
        && text.bytes().all(|b| b.is_ascii_graphic())
        && !text.contains('#')
}

fn is_host(text: &str) -> bool {
    let label = |l: &str| {
        (1..=63).contains(&l.len())
            && !l.starts_with('-')
            && !l.ends_with('-')
            && l.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn is_url(text: &str) -> bool {
    let Some(rest) = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")) else {
        return false;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let host = authority
        .rsplit_once(':')
        .filter(|(_, port)| port.parse::<u16>().is_ok())
        .map_or(authority, |(host, _)| host);
    let bracketed = host.strip_prefix('[').and_then(|h| h.strip_suffix(']'));
    let good_host = bracketed.map_or(is_host(host), |v6| v6.parse::<std::net::Ipv6Addr>().is_ok());
    good_host && text.len() <= LONGEST_PATH && text.bytes().all(|b| b.is_ascii_graphic())
}
