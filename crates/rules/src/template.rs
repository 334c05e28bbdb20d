//! Text with `%{placeholders}`, for field values and redirects.
//!
//! What a client sends goes in; what comes out can neither end a line nor, in a redirect, lead to a host that the
//! operator did not write.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use crate::Facts;
use crate::facts::{Identity, IdentityField, decimal, fields, without_port};
use crate::path;

/// Most placeholders and texts of a template.
pub const PARTS: usize = 64;

/// The placeholders, as messages list them.
pub const NAMES: &str = "%{src}, %{host}, %{path}, %{query}, %{uri}, %{method}, %{scheme}, %{port}, %{sni}, \
                         %{request-id}, %{client-certificate:FIELD} and %{header:NAME}";

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(String),
    Src,
    Host,
    Path,
    Query,
    Uri,
    Method,
    Scheme,
    Port,
    Sni,
    RequestId,
    Client(IdentityField),
    Header(String),
}

/// A parsed template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    parts: Vec<Part>,
}

impl Template {
    /// Parses the text of a field value. `%%` is a percent sign.
    ///
    /// # Errors
    /// What is wrong, a clause.
    pub fn value(text: &str) -> Result<Template, String> {
        if let Some(bad) = text.chars().find(|c| c.is_control()) {
            return Err(format!("the character {bad:?} has no place in a field value"));
        }
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('%') {
            literal.push_str(&rest[..at]);
            rest = &rest[at..];
            if let Some(tail) = rest.strip_prefix("%%") {
                literal.push('%');
                rest = tail;
                continue;
            }
            let Some(inner) = rest.strip_prefix("%{") else {
                literal.push('%');
                rest = &rest[1..];
                continue;
            };
            let end = inner.find('}').ok_or("a `%{` has no `}`")?;
            if !literal.is_empty() {
                parts.push(Part::Text(core::mem::take(&mut literal)));
            }
            parts.push(part(&inner[..end])?);
            rest = &inner[end + 1..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            parts.push(Part::Text(literal));
        }
        if parts.len() > PARTS {
            return Err(format!("it has more than {PARTS} parts"));
        }
        Ok(Template { parts })
    }

    /// Parses a redirect's target: `https://` or `http://` and a host, or a path. What a client sends may name no
    /// host but the one that it asked for.
    ///
    /// # Errors
    /// What is wrong, a clause.
    pub fn location(text: &str) -> Result<Template, String> {
        let template = Template::value(text)?;
        let scheme = ["https://", "http://", "%{scheme}://"].into_iter().find_map(|s| text.strip_prefix(s));
        let free = match scheme {
            None if text.starts_with("%{path}") || text.starts_with("%{uri}") => return Ok(template),
            None if text.starts_with('/') && !text.starts_with("//") && !text.starts_with("/\\") => {
                return Ok(template);
            }
            None => return Err("it begins with neither `https://`, `http://` nor one `/`".into()),
            Some(rest) => rest,
        };
        // The authority ends at the first slash, or where a path is put in, which begins with one.
        let mut rest = free;
        let mut named = false;
        loop {
            match (rest.find(['/', '?']), rest.find("%{")) {
                (slash, Some(at)) if slash.is_none_or(|slash| at < slash) => {
                    named |= at > 0;
                    let inner = &rest[at + 2..];
                    let (name, behind) = inner.split_at(inner.find('}').unwrap_or(inner.len()));
                    match name {
                        "host" => named = true,
                        "port" if named => {}
                        "path" | "uri" if named => return Ok(template),
                        other => {
                            return Err(format!(
                                "%{{{other}}} stands where the host does: a client could choose where it leads"
                            ));
                        }
                    }
                    rest = behind.strip_prefix('}').unwrap_or(behind);
                }
                (slash, _) => {
                    named |= slash.unwrap_or(rest.len()) > 0;
                    return if named { Ok(template) } else { Err("it has no host".into()) };
                }
            }
        }
    }

    /// Appends the field value for a request.
    pub fn render(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        let start = out.len();
        self.fill(facts, out);
        for byte in &mut out[start..] {
            if (*byte < b' ' && *byte != b'\t') || *byte == 0x7f {
                *byte = b'_';
            }
        }
    }

    /// Appends the redirect's target for a request: a URI reference that stays on its host.
    pub fn render_location(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        let mut filled = Vec::new();
        self.fill(facts, &mut filled);
        let mut rest = &filled[..];
        if filled.starts_with(b"/") {
            // `//host` and `/\host` would lead to another one.
            let path = filled.iter().position(|b| !matches!(b, b'/' | b'\\')).unwrap_or(filled.len());
            out.push(b'/');
            rest = &filled[path..];
        }
        for &byte in rest {
            if byte > b' '
                && byte < 0x7f
                && !matches!(byte, b'"' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}')
            {
                out.push(byte);
            } else {
                crate::rewrite::escape(byte, out);
            }
        }
    }

    /// Whether the client's certificate is asked for.
    pub fn reads_client(&self) -> bool {
        self.parts.iter().any(|part| matches!(part, Part::Client(_)))
    }

    /// Whether the port is asked for.
    pub fn reads_port(&self) -> bool {
        self.parts.contains(&Part::Port)
    }

    fn fill(&self, facts: &Facts<'_>, out: &mut Vec<u8>) {
        for part in &self.parts {
            match part {
                Part::Text(text) => out.extend_from_slice(text.as_bytes()),
                Part::Src => {
                    out.extend_from_slice(facts.src.to_canonical().to_string().as_bytes());
                }
                Part::Host => out.extend_from_slice(without_port(facts.host.unwrap_or_default())),
                Part::Path => {
                    let path = path::split(facts.target).0;
                    out.extend_from_slice(if path.is_empty() { b"/" } else { path });
                }
                Part::Query => {
                    let query = path::split(facts.target).1;
                    out.extend_from_slice(query.strip_prefix(b"?").unwrap_or(query));
                }
                Part::Uri => {
                    if !facts.target.starts_with(b"/") {
                        out.push(b'/');
                    }
                    out.extend_from_slice(facts.target);
                }
                Part::Method => out.extend_from_slice(facts.method),
                Part::Scheme => out.extend_from_slice(if facts.tls { b"https" } else { b"http" }),
                Part::Port => out.extend_from_slice(decimal(facts.port, &mut [0; 5])),
                Part::Sni => out.extend_from_slice(facts.sni.unwrap_or_default()),
                Part::RequestId => out.extend_from_slice(facts.request_id),
                Part::Client(field) => out.extend_from_slice(field.of(facts.client).as_bytes()),
                Part::Header(name) => {
                    fields(facts.fields, name.as_bytes(), &mut |value| {
                        out.extend_from_slice(value);
                        true
                    });
                }
            }
        }
    }
}

fn part(name: &str) -> Result<Part, String> {
    Ok(match name {
        "src" => Part::Src,
        "host" => Part::Host,
        "path" => Part::Path,
        "query" => Part::Query,
        "uri" => Part::Uri,
        "method" => Part::Method,
        "scheme" => Part::Scheme,
        "port" => Part::Port,
        "sni" => Part::Sni,
        "request-id" => Part::RequestId,
        other => match (other.strip_prefix("header:"), other.strip_prefix("client-certificate:")) {
            (Some(name), _) if is_token(name) => Part::Header(name.to_ascii_lowercase()),
            (_, Some(name)) => Part::Client(IdentityField::named(name).ok_or_else(|| {
                format!("a client's certificate has no `{name}`; it has {}", Identity::NAMES)
            })?),
            _ => return Err(format!("there is no %{{{other}}}; there are {NAMES}")),
        },
    })
}

/// Whether it can be the name of a field.
pub fn is_token(name: &str) -> bool {
    let good = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.len() <= 256 && name.bytes().all(good)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> Facts<'static> {
        Facts {
            host: Some(b"www.example:8080"),
            target: b"/a?b=c",
            method: b"GET",
            fields: b"Host: www.example:8080\r\nX-A:  1 \r\n",
            ..Facts::default()
        }
    }

    #[test]
    fn placeholders_become_what_they_name() {
        let template = Template::value("%{src} %{host}%{uri} %{header:x-a} 100%% %{query} %{path}").unwrap();
        let mut out = Vec::new();
        template.render(&facts(), &mut out);
        assert_eq!(out, b"0.0.0.0 www.example/a?b=c 1 100% b=c /a");
        assert!(Template::value("%{sorce}").unwrap_err().contains("%{src}"));
        assert!(Template::value("a\r\nb").is_err());
    }

    #[test]
    fn a_clients_certificate_is_put_into_words() {
        let all = Template::value(
            "%{client-certificate:verified} %{client-certificate:cn} %{client-certificate:subject}",
        )
        .unwrap();
        let ada = Identity { cn: "Ada\n".into(), subject: "CN=Ada".into(), ..Identity::default() };
        let said = |client| {
            let mut out = Vec::new();
            all.render(&Facts { client, ..Facts::default() }, &mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(said(Some(&ada)), "SUCCESS Ada_ CN=Ada");
        assert_eq!(said(None), "NONE  ");
        assert!(Template::value("%{client-certificate:dn}").unwrap_err().contains("subject, issuer"));
        assert!(Template::location("https://%{client-certificate:cn}/").is_err());
    }

    #[test]
    fn nothing_that_a_client_sends_ends_a_line() {
        let template = Template::value("%{header:x}").unwrap();
        let mut out = Vec::new();
        template.render(&Facts { fields: b"x: a\rb\0c\x7f", ..Facts::default() }, &mut out);
        assert_eq!(out, b"a_b_c_");
        let mut out = Vec::new();
        let location = Template::location("/x?%{header:x}").unwrap();
        location.render_location(&Facts { fields: b"x: a\rb\\c d", ..Facts::default() }, &mut out);
        assert_eq!(out, b"/x?a%0Db%5Cc%20d");
    }

    #[test]
    fn a_redirect_leads_to_no_host_of_the_clients_choice() {
        for bad in [
            "https://%{header:x}/",
            "https://%{path}",
            "https://a%{query}",
            "//evil",
            "javascript:x",
            "%{query}",
            "https://",
            "https:///x",
            "https://%{sni}/",
        ] {
            assert!(Template::location(bad).is_err(), "{bad}");
        }
        for good in [
            "https://%{host}%{uri}",
            "https://www.example%{path}",
            "/new%{path}",
            "%{uri}",
            "http://a/%{query}",
        ] {
            assert!(Template::location(good).is_ok(), "{good}");
        }
        let mut out = Vec::new();
        let location = Template::location("%{uri}").unwrap();
        location.render_location(&Facts { target: b"//evil.example/x", ..Facts::default() }, &mut out);
        assert_eq!(out, b"/evil.example/x");
    }
}
