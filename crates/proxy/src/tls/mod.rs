//! TLS towards clients and servers (RFC 8446, RFC 5246), by rustls.
//!
//! The main thread makes configurations of the plan and of the files that the supervisor read; workers only open
//! connections with them. A connection keeps the configuration it began with, so certificates change without a drop.
//! Not here: what is said over the connection.

mod alert;
mod certificates;
pub(crate) mod hello;
pub(crate) mod inspect;
mod stream;
pub(crate) mod strict;
mod tickets;
pub(crate) mod x509;

use std::sync::Arc;

use aws_lc_rs::digest;
use relais_config::plan;
use relais_ipc::files::Files;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};

use certificates::Certificates;
pub(crate) use stream::Stream;
pub(crate) use tickets::Secret;
use tickets::{ClusterTickets, Tickets};
use tokio::net::TcpStream;

/// The protocols that are spoken behind a handshake (RFC 7301).
const SPOKEN: &[&str] = &["h2", "http/1.1"];

/// What a listener does with connections.
pub(crate) type Accepts = Arc<Accept>;

/// As [`Accepts`].
pub(crate) struct Accept {
    config: Arc<ServerConfig>,
    /// The field line of `Strict-Transport-Security`, or nothing.
    hsts: Vec<u8>,
}

/// A client's connection over `socket`, whose handshake is still to come.
///
/// # Errors
/// If there is no connection with such a configuration.
pub(crate) fn accept(accepts: &Accepts, socket: TcpStream) -> Result<Stream, rustls::Error> {
    let tls = rustls::ServerConnection::new(accepts.config.clone())?;
    Ok(Stream::new(socket, tls.into(), Some(accepts.clone())))
}

/// How servers of a backend are reached over TLS.
#[derive(Clone)]
pub(crate) struct Connects {
    config: Arc<ClientConfig>,
    /// Where HTTP/2 is offered before HTTP/1.1.
    config_h2: Arc<ClientConfig>,
    name: Option<ServerName<'static>>,
}

impl PartialEq for Connects {
    fn eq(&self, other: &Connects) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Connects {
    /// A connection to a server over `socket`, whose handshake is still to come; `h2`: HTTP/2 is offered.
    pub(crate) fn open(&self, socket: TcpStream, ip: std::net::IpAddr, h2: bool) -> Result<Stream, String> {
        let name = self.name.clone().unwrap_or_else(|| ServerName::IpAddress(ip.into()));
        let config = if h2 { &self.config_h2 } else { &self.config };
        let tls = rustls::ClientConnection::new(config.clone(), name).map_err(|e| e.to_string())?;
        Ok(Stream::new(socket, tls.into(), None))
    }
}

/// Mozilla's "intermediate" (TLS 1.2 with forward secrecy and AEAD, and TLS 1.3) is all that the provider has.
fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn versions(least: plan::TlsVersion) -> &'static [&'static rustls::SupportedProtocolVersion] {
    static BOTH: [&rustls::SupportedProtocolVersion; 2] = [&rustls::version::TLS13, &rustls::version::TLS12];
    match least {
        plan::TlsVersion::Tls12 => &BOTH,
        plan::TlsVersion::Tls13 => &BOTH[..1],
    }
}

/// The configuration of a listener.
///
/// # Errors
/// One sentence that names the file it is about.
pub(crate) fn accepts(tls: &plan::Tls, files: &Files, secret: &Secret) -> Result<Accepts, String> {
    let provider = provider();
    let provider = Arc::new(CryptoProvider {
        cipher_suites: strict::suites(&provider.cipher_suites),
        ..(*provider).clone()
    });
    let mut certificates = Certificates::new(tls.strict_sni);
    let in_directories = tls.directories.iter().flat_map(|d| files.below(d));
    let pems = in_directories.filter(|path| path.ends_with(".pem"));
    for path in tls.certificates.iter().map(|path| &**path).chain(pems) {
        let ocsp = files.get(&format!("{path}.ocsp")).ok();
        certificates.add(path, files.get(path)?, ocsp, &provider)?;
    }
    if certificates.is_empty() {
        let directories = tls.directories.join(", ");
        return Err(format!("there is no certificate in {directories}: put a PEM file there"));
    }
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(versions(tls.least))
        .map_err(|error| error.to_string())?;
    let builder = match &tls.client {
        None => builder.with_no_client_auth(),
        Some(client) => {
            let roots = Arc::new(roots(&client.ca, files.get(&client.ca)?)?);
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            if let Some(path) = &client.crl {
                let lists = CertificateRevocationListDer::pem_slice_iter(files.get(path)?);
                let lists = lists.collect::<Result<Vec<_>, _>>();
                verifier = verifier.with_crls(lists.map_err(|e| format!("{path} is no PEM file: {e}"))?);
                verifier = verifier.only_check_end_entity_revocation().allow_unknown_revocation_status();
            }
            if !client.required {
                verifier = verifier.allow_unauthenticated();
            }
            let built = verifier.build();
            builder
                .with_client_cert_verifier(built.map_err(|e| format!("{} cannot be used: {e}", client.ca))?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(certificates));
    let spoken = tls.alpn.iter().filter(|protocol| SPOKEN.contains(&&***protocol));
    config.alpn_protocols = spoken.map(|protocol| protocol.as_bytes().to_vec()).collect();
    config.session_storage = Arc::new(NoServerSessionStorage {});
    let asked = asked(tls, files)?;
    config.ticketer = match (&tls.ticket_keys, &tls.cluster_key) {
        (Some(path), _) => Arc::new(Tickets::from_file(path, files.get(path)?, asked.as_ref())?),
        (None, Some(path)) => Arc::new(ClusterTickets::new(path, files.get(path)?, asked.as_ref())?),
        (None, None) => Arc::new(Tickets::of_process(secret, asked.as_ref())?),
    };
    config.max_early_data_size = 0; // a replayed request is never worth a round trip saved (RFC 8470)
    let hsts = tls.hsts.map(|age| format!("Strict-Transport-Security: max-age={}\r\n", age.as_secs()));
    Ok(Arc::new(Accept { config: Arc::new(config), hsts: hsts.unwrap_or_default().into_bytes() }))
}

/// A digest of what a listener asks of clients: need, authorities, revocations.
fn asked(tls: &plan::Tls, files: &Files) -> Result<digest::Digest, String> {
    let mut context = digest::Context::new(&digest::SHA256);
    if let Some(client) = &tls.client {
        context.update(if client.required { b"required" } else { b"optional" });
        for path in [Some(&client.ca), client.crl.as_ref()].into_iter().flatten() {
            let contents = files.get(path)?;
            context.update(&(contents.len() as u64).to_be_bytes());
            context.update(contents);
        }
    }
    Ok(context.finish())
}

fn roots(path: &str, pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| format!("{path} is no PEM file: {error}"))?;
        // What the machine trusts may have odd old ones among them; those are of no use to anybody.
        let _ = roots.add(certificate);
    }
    match roots.is_empty() {
        true => Err(format!("{path} has no certificate of an authority")),
        false => Ok(roots),
    }
}

/// How the servers of a backend are reached.
///
/// # Errors
/// As [`accepts`].
pub(crate) fn connects(tls: &plan::ServerTls, files: &Files) -> Result<Connects, String> {
    let provider = provider();
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = if tls.verify {
        let ca = tls.ca.as_deref().unwrap_or(plan::SYSTEM_CA);
        builder.with_root_certificates(roots(ca, files.get(ca)?)?)
    } else {
        let anybody = Anybody(provider.signature_verification_algorithms);
        builder.dangerous().with_custom_certificate_verifier(Arc::new(anybody))
    };
    let mut config = match &tls.certificate {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let pem = files.get(path)?;
            let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
            let chain = chain.map_err(|error| format!("{path} is no PEM file: {error}"))?;
            let key = PrivateKeyDer::from_pem_slice(pem)
                .map_err(|error| format!("{path}: the private key cannot be read: {error}"))?;
            let ours = builder.with_client_auth_cert(chain, key);
            ours.map_err(|error| format!("{path} cannot be used: {error}"))?
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let name = match &tls.sni {
        Some(name) => Some(
            ServerName::try_from(name.to_string())
                .map_err(|_| format!("{name} is not a name that a server can have"))?,
        ),
        None => None,
    };
    let mut config_h2 = config.clone();
    config_h2.alpn_protocols.insert(0, b"h2".to_vec());
    Ok(Connects { config: Arc::new(config), config_h2: Arc::new(config_h2), name })
}

/// Takes any certificate, for `verify=#false`: the connection is secret, and whose it is nobody knows.
#[derive(Debug)]
struct Anybody(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
