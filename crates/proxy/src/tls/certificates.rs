//! Which certificate a client gets: by the server name that it asks for (RFC 6066 §3), exact before wildcard, else the
//! first of all.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::SignatureScheme;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use super::x509::Certificate;

/// The certificates of one listener.
#[derive(Debug, Default)]
pub(crate) struct Certificates {
    /// By lower-case name.
    exact: HashMap<String, Keys>,
    /// By what follows the `*` in `*.example.org`, dot included (RFC 9525 §6.3).
    wildcard: HashMap<String, Keys>,
    default: Keys,
    /// Who asks for a name that no certificate has is refused.
    strict: bool,
}

/// Certificates of one name, which differ in the kind of their keys.
type Keys = Vec<Arc<CertifiedKey>>;

impl Certificates {
    pub(crate) fn new(strict: bool) -> Certificates {
        Certificates { strict, ..Certificates::default() }
    }

    /// Adds what stands in one PEM file: a certificate, its chain, its key, in any order of key and certificates.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub(crate) fn add(
        &mut self,
        path: &str,
        pem: &[u8],
        ocsp: Option<&[u8]>,
        provider: &CryptoProvider,
    ) -> Result<(), String> {
        let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| format!("{path} is no PEM file: {error}"))?;
        let end = chain.first().ok_or_else(|| format!("{path} has no certificate"))?.clone();
        let key = PrivateKeyDer::from_pem_slice(pem).map_err(|error| match error {
            rustls::pki_types::pem::Error::NoItemsFound => {
                format!("{path} has no private key: put it behind the certificates")
            }
            error => format!("{path}: the private key cannot be read: {error}"),
        })?;
        if let Some(bits) = Certificate::read(&end).and_then(|read| read.rsa_bits).filter(|bits| *bits < 2048)
        {
            return Err(format!("{path}: an RSA key of {bits} bits is too short: make one of 2048 at least"));
        }
        let key = CertifiedKey::from_der(chain, key, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                format!("{path}: the private key is not that of the first certificate")
            }
            error => format!("{path} cannot be used: {error}"),
        })?;
        let key = Arc::new(CertifiedKey { ocsp: ocsp.map(<[u8]>::to_vec), ..key });
        let parsed = webpki::EndEntityCert::try_from(&end)
            .map_err(|error| format!("{path}: the certificate cannot be understood: {error}"))?;
        for name in parsed.valid_dns_names() {
            let name = name.to_ascii_lowercase();
            match name.strip_prefix('*') {
                Some(suffix) => self.wildcard.entry(suffix.to_owned()).or_default().push(key.clone()),
                None => self.exact.entry(name).or_default().push(key.clone()),
            }
        }
        // The default is one file; others join it only with another kind of key for the same names.
        let first = self.default.first().map(|first| first.cert.first() == Some(&end));
        if first.is_none() || self.serves_same_names(&end) {
            self.default.push(key);
        }
        Ok(())
    }

    fn serves_same_names(&self, end: &CertificateDer<'_>) -> bool {
        let names = |der: &CertificateDer<'_>| -> Option<Vec<String>> {
            let parsed = webpki::EndEntityCert::try_from(der).ok()?;
            Some(parsed.valid_dns_names().map(str::to_ascii_lowercase).collect())
        };
        let default = self.default.first().and_then(|key| key.cert.first());
        default.is_some_and(|default| names(default).is_some_and(|n| !n.is_empty() && Some(n) == names(end)))
    }

    /// Whether there is none at all.
    pub(crate) fn is_empty(&self) -> bool {
        self.default.is_empty()
    }

    fn keys(&self, name: Option<&str>) -> Option<&Keys> {
        let Some(name) = name else { return Some(&self.default) };
        // rustls gives the name in lower case and without a final dot, and has checked that it is one.
        let wildcard = || self.wildcard.get(&name[name.find('.')?..]);
        let found = self.exact.get(name).or_else(wildcard);
        found.or(if self.strict { None } else { Some(&self.default) })
    }

    fn choose(&self, name: Option<&str>, schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let keys = self.keys(name)?;
        let fits = |key: &&Arc<CertifiedKey>| key.key.choose_scheme(schemes).is_some();
        // An elliptic key costs a fraction of what RSA does: it is preferred where the client has the choice.
        let cheap = |key: &&Arc<CertifiedKey>| key.key.algorithm() != rustls::SignatureAlgorithm::RSA;
        let found = keys.iter().find(|key| fits(key) && cheap(key)).or_else(|| keys.iter().find(fits));
        found.or(keys.first()).cloned()
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(str::to_ascii_lowercase);
        self.choose(name.as_deref(), hello.signature_schemes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(names: &[&str]) -> String {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        made.cert.pem() + &made.signing_key.serialize_pem()
    }

    fn certificates(strict: bool, files: &[&[&str]]) -> Certificates {
        let mut all = Certificates::new(strict);
        for (index, names) in files.iter().enumerate() {
            let provider = rustls::crypto::aws_lc_rs::default_provider();
            all.add(&format!("{index}.pem"), pem(names).as_bytes(), None, &provider).unwrap();
        }
        all
    }

    /// The first name of the certificate for `name`.
    fn chosen(all: &Certificates, name: Option<&str>) -> Option<String> {
        let key = all.choose(name, &[SignatureScheme::ECDSA_NISTP256_SHA256])?;
        let parsed = webpki::EndEntityCert::try_from(&key.cert[0]).unwrap();
        parsed.valid_dns_names().next().map(str::to_owned)
    }

    #[test]
    fn the_exact_name_comes_before_the_wildcard_and_the_first_is_for_everybody_else() {
        let files: [&[&str]; 3] = [&["first.example"], &["*.shop.example"], &["www.shop.example"]];
        let all = certificates(false, &files);
        let cases = [
            (Some("first.example"), "first.example"),
            (Some("www.shop.example"), "www.shop.example"),
            (Some("api.shop.example"), "*.shop.example"),
            (Some("a.b.shop.example"), "first.example"), // a wildcard is one label (RFC 9525 §6.3)
            (Some("shop.example"), "first.example"),
            (Some("localhost"), "first.example"),
            (None, "first.example"),
        ];
        for (name, expected) in cases {
            assert_eq!(chosen(&all, name).as_deref(), Some(expected), "{name:?}");
        }
        let strict = certificates(true, &files);
        assert_eq!(chosen(&strict, Some("elsewhere.example")), None);
        assert_eq!(chosen(&strict, None).as_deref(), Some("first.example"));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_in_a_sentence_that_names_it() {
        let provider = rustls::crypto::aws_lc_rs::default_provider();
        let (one, two) = (pem(&["one.example"]), pem(&["two.example"]));
        let certificate = &one[..one.find("-----BEGIN PRIVATE").unwrap()];
        let other_key = &two[two.find("-----BEGIN PRIVATE").unwrap()..];
        let mixed = format!("{certificate}{other_key}");
        let cases = [
            ("", "/c.pem has no certificate"),
            (other_key, "/c.pem has no certificate"),
            (certificate, "/c.pem has no private key: put it behind the certificates"),
            (&mixed, "/c.pem: the private key is not that of the first certificate"),
        ];
        for (text, expected) in cases {
            let mut all = Certificates::new(false);
            let why = all.add("/c.pem", text.as_bytes(), None, &provider).unwrap_err();
            assert_eq!(why, expected);
            assert!(all.is_empty());
        }
    }
}
