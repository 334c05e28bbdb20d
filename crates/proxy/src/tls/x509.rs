//! What stands in a certificate (RFC 5280 §4.1): dates, names, key, for those who read it. Whether it is to be trusted is
//! decided by webpki alone, never here.

use std::fmt::Write;
use std::net::{Ipv4Addr, Ipv6Addr};

use relais_rules::Identity;

/// The parts of a certificate that somebody asks for.
#[derive(Debug)]
pub(crate) struct Certificate<'a> {
    serial: &'a [u8],
    /// Object identifier of the signature's algorithm, as DER has it.
    signature: &'a [u8],
    /// Who signed it, as DER has it; likewise `subject`.
    pub(crate) issuer: &'a [u8],
    pub(crate) subject: &'a [u8],
    /// Seconds since 1970.
    pub(crate) not_before: i64,
    /// As `not_before`.
    pub(crate) not_after: i64,
    /// Bits of an RSA key; `None`: it is another kind.
    pub(crate) rsa_bits: Option<usize>,
    /// DNS names and addresses that it is for (subjectAltName).
    pub(crate) names: Vec<String>,
}

const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
/// MD5 and SHA-1 with RSA, SHA-1 with ECDSA.
const BROKEN: [&[u8]; 3] = [
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x04",
    b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x05",
    b"\x2a\x86\x48\xce\x3d\x04\x01",
];
const ALT_NAMES: &[u8] = b"\x55\x1d\x11";

const INTEGER: u8 = 2;
const BIT_STRING: u8 = 3;
const OCTETS: u8 = 4;
const OBJECT: u8 = 6;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;

/// Reads whatever comes; nothing panics. For `fuzz/`.
pub fn fuzz(der: &[u8]) {
    if let Some(certificate) = Certificate::read(der) {
        certificate.is_signed_weakly();
        certificate.identity(&[0; 32]);
    }
}

impl<'a> Certificate<'a> {
    /// Reads DER; `None` if it is something else.
    pub(crate) fn read(der: &'a [u8]) -> Option<Certificate<'a>> {
        let mut fields = Reader(Reader(Reader(der).take(SEQUENCE)?).take(SEQUENCE)?);
        fields.take_if(0xa0); // version
        let serial = fields.take(INTEGER)?;
        let signature = Reader(fields.take(SEQUENCE)?).take(OBJECT)?;
        let issuer = fields.take(SEQUENCE)?;
        let mut validity = Reader(fields.take(SEQUENCE)?);
        let (not_before, not_after) = (time(validity.next()?)?, time(validity.next()?)?);
        let subject = fields.take(SEQUENCE)?;
        let mut key = Reader(fields.take(SEQUENCE)?);
        let algorithm = Reader(key.take(SEQUENCE)?).take(OBJECT)?;
        let rsa_bits = if algorithm == RSA { Some(modulus_bits(key.take(BIT_STRING)?)?) } else { None };
        let mut names = Vec::new();
        while let Some((tag, content)) = fields.next() {
            if tag == 0xa3 {
                names = alt_names(content)?;
            }
        }
        Some(Certificate { serial, signature, issuer, subject, not_before, not_after, rsa_bits, names })
    }

    /// Whether it was signed with a hash that can be forged.
    pub(crate) fn is_signed_weakly(&self) -> bool {
        BROKEN.contains(&self.signature)
    }

    /// Who it is about, for rules and logs; `sha256`: of the whole certificate.
    pub(crate) fn identity(&self, sha256: &[u8]) -> Identity {
        let serial =
            self.serial.iter().position(|byte| *byte != 0).map_or(&b"\0"[..], |at| &self.serial[at..]);
        Identity {
            subject: distinguished(self.subject).unwrap_or_default(),
            issuer: distinguished(self.issuer).unwrap_or_default(),
            cn: common_name(self.subject).unwrap_or_default(),
            serial: hex(serial).to_ascii_uppercase(),
            san: self.names.join(","),
            sha256: hex(sha256),
        }
    }
}

/// What comes one behind the other in DER (X.690 §8.1), of tags below 31.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let [tag, first, rest @ ..] = self.0 else { return None };
        let (length, rest) = match usize::from(first & 0x7f) {
            short if first & 0x80 == 0 => (short, rest),
            digits @ 1..=4 => {
                let (digits, rest) = rest.split_at_checked(digits)?;
                (digits.iter().fold(0, |sum: usize, digit| sum << 8 | usize::from(*digit)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        (tag & 0x1f != 0x1f).then_some((*tag, content))
    }

    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(got, _)| *got == tag).map(|(_, content)| content)
    }

    fn take_if(&mut self, tag: u8) -> Option<&'a [u8]> {
        if self.0.first() == Some(&tag) { self.take(tag) } else { None }
    }
}

/// UTCTime or GeneralizedTime (RFC 5280 §4.1.2.5), in seconds since 1970.
fn time((tag, text): (u8, &[u8])) -> Option<i64> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, at) = match (tag, text.len()) {
        (0x17, 12) => (number(0, 2).map(|year| if year < 50 { year + 2000 } else { year + 1900 })?, 2),
        (0x18, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let part = |index: usize| number(at + 2 * index, at + 2 * index + 2);
    let (month, day) = (part(0)?, part(1)?);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Days since 1970-03-01 of years that begin in March: the leap day is the last of them.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (month * 153 + 2) / 5
        + day
        - 719_469;
    Some(days * 86_400 + part(2)? * 3600 + part(3)? * 60 + part(4)?)
}

/// Of an RSA key (RFC 8017 §A.1.1) in its bit string.
fn modulus_bits(bits: &[u8]) -> Option<usize> {
    let modulus = Reader(Reader(bits.get(1..)?).take(SEQUENCE)?).take(INTEGER)?;
    let first = modulus.iter().position(|byte| *byte != 0)?;
    Some((modulus.len() - first) * 8 - modulus[first].leading_zeros() as usize)
}

fn alt_names(extensions: &[u8]) -> Option<Vec<String>> {
    let mut extensions = Reader(Reader(extensions).take(SEQUENCE)?);
    let mut names = Vec::new();
    while let Some(extension) = extensions.take_if(SEQUENCE) {
        let mut parts = Reader(extension);
        if parts.take(OBJECT)? != ALT_NAMES {
            continue;
        }
        parts.take_if(1); // critical
        let mut alternatives = Reader(Reader(parts.take(OCTETS)?).take(SEQUENCE)?);
        while let Some((tag, content)) = alternatives.next() {
            match (tag, content.len()) {
                (0x82 | 0x81 | 0x86, _) => names.push(String::from_utf8_lossy(content).to_ascii_lowercase()),
                (0x87, 4) => {
                    names.extend(<[u8; 4]>::try_from(content).map(|ip| Ipv4Addr::from(ip).to_string()))
                }
                (0x87, 16) => {
                    names.extend(<[u8; 16]>::try_from(content).map(|ip| Ipv6Addr::from(ip).to_string()))
                }
                _ => {}
            }
        }
    }
    Some(names)
}

/// Object identifier, as DER has it, and value.
type Attribute<'a> = (&'a [u8], String);

/// The attributes of a name, those together that belong together.
fn attributes(name: &[u8]) -> Option<Vec<Vec<Attribute<'_>>>> {
    let mut sets = Reader(name);
    let mut all = Vec::new();
    while let Some(set) = sets.take_if(SET) {
        let mut set = Reader(set);
        let mut together = Vec::new();
        while let Some(attribute) = set.take_if(SEQUENCE) {
            let mut attribute = Reader(attribute);
            together.push((attribute.take(OBJECT)?, text(attribute.next()?)));
        }
        all.push(together);
    }
    Some(all)
}

fn text((tag, content): (u8, &[u8])) -> String {
    match tag {
        0x14 => content.iter().map(|byte| char::from(*byte)).collect(), // TeletexString, as Latin-1
        0x1e => {
            let units = content.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        _ => String::from_utf8_lossy(content).into_owned(),
    }
}

const COMMON_NAME: &[u8] = b"\x55\x04\x03";

/// The most specific common name.
fn common_name(name: &[u8]) -> Option<String> {
    let all = attributes(name)?;
    all.into_iter().flatten().rev().find(|(object, _)| *object == COMMON_NAME).map(|(_, value)| value)
}

/// A name as RFC 4514 writes it: the most specific part first. Letters beyond ASCII stay what they are.
fn distinguished(name: &[u8]) -> Option<String> {
    let mut out = String::new();
    for together in attributes(name)?.iter().rev() {
        for (index, (object, value)) in together.iter().enumerate() {
            if !out.is_empty() {
                out.push(if index == 0 { ',' } else { '+' });
            }
            match keyword(object) {
                Some(word) => out.push_str(word),
                None => dotted(object, &mut out),
            }
            out.push('=');
            escape(value, &mut out);
        }
    }
    Some(out)
}

fn keyword(object: &[u8]) -> Option<&'static str> {
    Some(match object {
        COMMON_NAME => "CN",
        b"\x55\x04\x04" => "SN",
        b"\x55\x04\x05" => "serialNumber",
        b"\x55\x04\x06" => "C",
        b"\x55\x04\x07" => "L",
        b"\x55\x04\x08" => "ST",
        b"\x55\x04\x09" => "STREET",
        b"\x55\x04\x0a" => "O",
        b"\x55\x04\x0b" => "OU",
        b"\x55\x04\x0c" => "title",
        b"\x55\x04\x2a" => "GN",
        b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x01" => "UID",
        b"\x09\x92\x26\x89\x93\xf2\x2c\x64\x01\x19" => "DC",
        b"\x2a\x86\x48\x86\xf7\x0d\x01\x09\x01" => "emailAddress",
        _ => return None,
    })
}

fn dotted(object: &[u8], out: &mut String) {
    let mut number: u64 = 0;
    let mut first = true;
    for byte in object {
        number = number << 7 | u64::from(byte & 0x7f);
        if byte & 0x80 != 0 {
            continue;
        }
        let _ = match first {
            true => write!(out, "{}.{}", (number / 40).min(2), number - (number / 40).min(2) * 40),
            false => write!(out, ".{number}"),
        };
        (first, number) = (false, 0);
    }
}

fn escape(value: &str, out: &mut String) {
    let last = value.chars().count().saturating_sub(1);
    for (index, c) in value.chars().enumerate() {
        match c {
            '"' | '+' | ',' | ';' | '<' | '>' | '\\' => out.extend(['\\', c]),
            '#' if index == 0 => out.push_str("\\#"),
            ' ' if index == 0 || index == last => out.push_str("\\ "),
            c if c.is_ascii_control() => drop(write!(out, "\\{:02X}", u32::from(c))),
            c => out.push(c),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SerialNumber};

    use super::*;

    #[test]
    fn a_certificate_is_read_as_it_was_made() {
        let mut params = CertificateParams::new(vec!["One.test".to_owned(), "192.0.2.1".to_owned()]).unwrap();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(DnType::CountryName, "FR");
        params.distinguished_name.push(DnType::OrganizationName, "Lycée, \"X\"");
        params.distinguished_name.push(DnType::CommonName, " a+b\n");
        params.serial_number = Some(SerialNumber::from(0x0abc_u64));
        params.not_before = rcgen::date_time_ymd(1999, 12, 31);
        params.not_after = rcgen::date_time_ymd(2052, 2, 29);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let read = Certificate::read(made.der()).unwrap();
        assert_eq!((read.not_before, read.not_after), (946_598_400, 2_592_777_600), "date -ud DAY +%s");
        assert_eq!((read.rsa_bits, read.is_signed_weakly()), (None, false));
        assert_eq!(read.subject, read.issuer);
        let identity = read.identity(&[0xab, 1]);
        let expected = Identity {
            subject: r#"CN=\ a\+b\0A,O=Lycée\, \"X\",C=FR"#.into(),
            issuer: r#"CN=\ a\+b\0A,O=Lycée\, \"X\",C=FR"#.into(),
            cn: " a+b\n".into(),
            serial: "0ABC".into(),
            san: "one.test,192.0.2.1".into(),
            sha256: "ab01".into(),
        };
        assert_eq!(identity, expected);
    }

    #[test]
    fn what_was_cut_or_changed_panics_nobody() {
        let made = rcgen::generate_simple_self_signed(vec!["one.test".to_owned()]).unwrap();
        let der = made.cert.der().to_vec();
        for at in 0..der.len() {
            assert!(Certificate::read(&der[..at]).is_none(), "cut at {at}");
            for value in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.clone();
                changed[at] = value;
                let _ = Certificate::read(&changed).map(|read| read.identity(b""));
            }
        }
    }

    #[test]
    fn an_object_without_a_word_is_written_in_numbers() {
        let mut out = String::new();
        dotted(b"\x2a\x86\x48\x86\xf7\x0d", &mut out);
        assert_eq!(out, "1.2.840.113549");
    }
}
