//! What is to be said of the files that TLS needs, each looked at by itself: what makes one useless, and what its owner
//! should know of one that can be used. `relais check` says it, and the proxy where it runs.

use std::collections::HashMap;
use std::sync::Arc;

use relais_config::plan::{self, NodeId, Plan};
use relais_ipc::files::Files;
use relais_ipc::status;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

use super::certificates::Certificates;
use super::tickets::{ClusterTickets, Tickets};
use super::x509::Certificate;

/// A certificate that ends within this time is spoken of, seconds: longer than who renews by ACME leaves it.
const SOON: i64 = 30 * 86_400;

/// Something to say of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// The file.
    pub path: String,
    /// The directory that the plan names, if that is how the file is found.
    pub directory: Option<Arc<str>>,
    /// It cannot be used.
    pub fault: bool,
    /// One sentence with the path.
    pub message: String,
    /// What to do.
    pub help: &'static str,
}

/// What a file is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Certificate, chain and key.
    Certificate,
    Authorities,
    Revocations,
    Tickets,
    ClusterKey,
}

struct Named {
    path: String,
    directory: Option<Arc<str>>,
    role: Role,
}

/// The listeners' part of the plan that speaks TLS; `node`: of this one only.
fn listeners(plan: &Plan, node: Option<NodeId>) -> Vec<&plan::Tls> {
    let fronts = plan.frontends.iter().filter(|front| node.is_none_or(|node| front.nodes.contains(&node)));
    let binds = fronts.flat_map(|front| match node {
        Some(node) => plan.binds_on(node, front).collect(),
        None => front.binds.iter().collect::<Vec<_>>(),
    });
    binds.filter_map(|bind| bind.tls.as_deref()).collect()
}

fn certificates_of(tls: &plan::Tls, files: &Files) -> Vec<Named> {
    let named = tls.certificates.iter().map(|path| (path.to_string(), None));
    let found = tls.directories.iter().flat_map(|directory| {
        let pems = files.below(directory).filter(|path| path.ends_with(".pem"));
        pems.map(move |path| (path.to_owned(), Some(directory.clone())))
    });
    let all = named.chain(found);
    all.map(|(path, directory)| Named { path, directory, role: Role::Certificate }).collect()
}

/// Every file that the plan needs for TLS, each once.
fn named(plan: &Plan, node: Option<NodeId>, files: &Files) -> Vec<Named> {
    let mut all = Vec::new();
    let one = |path: &Arc<str>, role| Named { path: path.to_string(), directory: None, role };
    for tls in listeners(plan, node) {
        all.extend(certificates_of(tls, files));
        if let Some(client) = &tls.client {
            all.push(one(&client.ca, Role::Authorities));
            all.extend(client.crl.iter().map(|path| one(path, Role::Revocations)));
        }
        all.extend(tls.ticket_keys.iter().map(|path| one(path, Role::Tickets)));
        all.extend(tls.cluster_key.iter().map(|path| one(path, Role::ClusterKey)));
    }
    for tls in plan.backends.iter().filter_map(|backend| backend.tls.as_ref()) {
        all.extend(tls.certificate.iter().map(|path| one(path, Role::Certificate)));
        all.extend(tls.ca.iter().filter(|_| tls.verify).map(|path| one(path, Role::Authorities)));
    }
    let mut seen = std::collections::HashSet::new();
    all.retain(|named| seen.insert(named.path.clone()));
    all
}

/// Why a file is of no use.
fn fault(named: &Named, files: &Files) -> Option<String> {
    let (path, contents) = (&*named.path, files.get(&named.path));
    let looked = contents.and_then(|contents| match named.role {
        Role::Certificate => Certificates::new(false).add(path, contents, None, &super::provider()),
        Role::Authorities => super::roots(path, contents).map(drop),
        Role::Revocations => {
            let lists = CertificateRevocationListDer::pem_slice_iter(contents).collect::<Result<Vec<_>, _>>();
            match lists {
                Ok(lists) if lists.is_empty() => Err(format!("{path} has no revocation list")),
                Ok(_) => Ok(()),
                Err(error) => Err(format!("{path} is no PEM file: {error}")),
            }
        }
        Role::Tickets => Tickets::from_file(path, contents, b"").map(drop),
        Role::ClusterKey => ClusterTickets::new(path, contents, b"").map(drop),
    });
    looked.err()
}

/// The files that are of no use to `node`, and why.
pub(crate) fn faults(plan: &Plan, node: NodeId, files: &Files) -> Vec<Finding> {
    let all = named(plan, Some(node), files);
    all.into_iter().filter_map(|named| fault(&named, files).map(|why| useless(named, why))).collect()
}

fn useless(named: Named, message: String) -> Finding {
    let help = match named.role {
        Role::Certificate => {
            "a file holds one certificate, what signed it, and the certificate's key, as PEM"
        }
        Role::Authorities => "it holds the certificates of the authorities, as PEM",
        Role::Revocations => "it holds the authorities' revocation lists, as PEM",
        Role::Tickets => "it holds one secret a line, as `openssl rand -base64 48` prints one",
        Role::ClusterKey => {
            "it holds one secret, the same on every node, as `openssl rand -base64 48` prints one"
        }
    };
    Finding { path: named.path, directory: named.directory, fault: true, message, help }
}

/// All there is to say of the files that could be read; `now`: seconds since 1970.
pub fn look(plan: &Plan, node: Option<NodeId>, files: &Files, now: i64) -> Vec<Finding> {
    let mut findings = Vec::new();
    for named in named(plan, node, files).into_iter().filter(|named| files.has(&named.path)) {
        match fault(&named, files) {
            Some(why) => findings.push(useless(named, why)),
            None if named.role == Role::Certificate => {
                let pem = files.get(&named.path).unwrap_or_default();
                let said = remarks(&named.path, pem, now).into_iter().map(|(message, help)| Finding {
                    path: named.path.clone(),
                    directory: named.directory.clone(),
                    fault: false,
                    message,
                    help,
                });
                findings.extend(said);
            }
            None => {}
        }
    }
    for tls in listeners(plan, node) {
        twins(tls, files, &mut findings);
    }
    findings
}

/// Names that two files of a listener have: only the first of them is presented.
fn twins(tls: &plan::Tls, files: &Files, findings: &mut Vec<Finding>) {
    let mut first: HashMap<(String, bool), String> = HashMap::new();
    for named in certificates_of(tls, files) {
        let Some(chain) = files.get(&named.path).ok().and_then(chain) else { continue };
        let Some(read) = chain.first().and_then(|der| Certificate::read(der)) else { continue };
        let mut taken: Option<(String, String)> = None;
        for name in &read.names {
            let key = (name.clone(), read.rsa_bits.is_some());
            match first.get(&key) {
                Some(other) if *other != named.path => {
                    taken.get_or_insert((name.clone(), other.clone()));
                }
                _ => drop(first.insert(key, named.path.clone())),
            }
        }
        let Some((name, other)) = taken else { continue };
        let message =
            format!("{} is for {name} like {other}, which comes first and is presented", named.path);
        let help = "take one of them away, or the name out of one";
        let said = Finding { path: named.path, directory: named.directory, fault: false, message, help };
        if !findings.contains(&said) {
            findings.push(said);
        }
    }
}

fn chain(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>().ok()
}

/// What the owner of a good file should know, and do.
fn remarks(path: &str, pem: &[u8], now: i64) -> Vec<(String, &'static str)> {
    const RENEW: &str = "renew it; what is put in its place is taken without a reload";
    let mut said = Vec::new();
    let Some(chain) = chain(pem) else { return said };
    let read: Vec<Certificate<'_>> = chain.iter().filter_map(|der| Certificate::read(der)).collect();
    for (index, certificate) in read.iter().enumerate() {
        let which = match index {
            0 => format!("the certificate in {path}"),
            _ => format!("certificate {} in {path}", index + 1),
        };
        let left = certificate.not_after - now;
        if left <= 0 {
            said.push((format!("{which} expired on {}", day(certificate.not_after)), RENEW));
        } else if certificate.not_before > now {
            let from = day(certificate.not_before);
            said.push((format!("{which} is not valid before {from}"), "is the clock of this machine right?"));
        } else if left < SOON {
            let (end, days) = (day(certificate.not_after), left / 86_400);
            let days = if days == 1 { "1 day".to_owned() } else { format!("{days} days") };
            said.push((format!("{which} expires on {end}, in {days}"), RENEW));
        }
        if certificate.is_signed_weakly() && certificate.subject != certificate.issuer {
            let help = "have it signed anew with SHA-256";
            said.push((format!("{which} is signed with SHA-1 or MD5, which clients refuse"), help));
        }
        if index > 0 && read[index - 1].issuer != certificate.subject {
            let message = format!("{which} did not sign certificate {index}");
            said.push((message, "put behind each certificate the one that signed it, and no other"));
        }
    }
    if read.first().is_some_and(|end| end.names.is_empty()) {
        let help = "have it made anew with a subjectAltName: a common name alone is not looked at";
        said.push((format!("the certificate in {path} names no host, so clients refuse it"), help));
    }
    said
}

fn day(seconds: i64) -> String {
    jiff::Timestamp::from_second(seconds)
        .map_or_else(|_| "a day far away".into(), |t| t.strftime("%Y-%m-%d").to_string())
}

/// The certificates that `node` presents, for whoever watches their end.
pub(crate) fn presented(plan: &Plan, node: NodeId, files: &Files) -> Vec<status::Certificate> {
    let mut all: Vec<status::Certificate> = Vec::new();
    for tls in listeners(plan, Some(node)) {
        for named in certificates_of(tls, files) {
            let Some(chain) = files.get(&named.path).ok().and_then(chain) else { continue };
            let Some(read) = chain.first().and_then(|der| Certificate::read(der)) else { continue };
            if all.iter().any(|other| other.file == named.path) {
                continue;
            }
            let name = read.names.first().cloned().unwrap_or_default();
            all.push(status::Certificate { file: named.path, name, not_after: read.not_after });
        }
    }
    all
}
