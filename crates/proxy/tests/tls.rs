//! TLS towards clients and servers, one behaviour a test. The other end is rustls with its own settings.

#![allow(clippy::unwrap_used)]

mod common;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Mutex};

use common::*;
use rcgen::{CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use relais_ipc::files::Files;
use relais_ipc::{Order, Report};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, HandshakeKind, RootCertStore, ServerConfig, StreamOwned};

/// An authority of the test's own.
struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of the test");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        Authority { issuer }
    }

    fn pem(&self) -> String {
        self.issuer.pem()
    }

    /// Certificate and key for these names, in one PEM text.
    fn sign(&self, names: &[&str]) -> String {
        let mut params =
            CertificateParams::new(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
        params.distinguished_name.push(DnType::CommonName, names[0]);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let issuer: &Issuer<'_, KeyPair> = &self.issuer;
        params.signed_by(&key, issuer).unwrap().pem() + &key.serialize_pem()
    }

    fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        roots
    }
}

fn chain(pem: &str) -> (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>) {
    let chain = CertificateDer::pem_slice_iter(pem.as_bytes()).map(Result::unwrap).collect();
    (chain, PrivateKeyDer::from_pem_slice(pem.as_bytes()).unwrap())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// What a client of the test trusts and shows.
fn client_config(authority: &Authority, own: Option<&str>) -> ClientConfig {
    let builder =
        ClientConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let builder = builder.with_root_certificates(authority.roots());
    match own {
        None => builder.with_no_client_auth(),
        Some(pem) => {
            let (chain, key) = chain(pem);
            builder.with_client_auth_cert(chain, key).unwrap()
        }
    }
}

type Tls = BufReader<StreamOwned<ClientConnection, TcpStream>>;

/// A connection after its handshake.
fn connect(door: &Door, config: &Arc<ClientConfig>, name: &str) -> Result<Tls, String> {
    let mut socket = TcpStream::connect(door.address).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket.set_write_timeout(Some(PATIENCE)).unwrap();
    let name = ServerName::try_from(name.to_owned()).unwrap();
    let mut tls = ClientConnection::new(config.clone(), name).unwrap();
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).map_err(|error| error.to_string())?;
    }
    Ok(BufReader::new(StreamOwned::new(tls, socket)))
}

fn head(io: &mut impl BufRead) -> String {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(io.read_line(&mut head).unwrap() > 0, "the connection ended after {head:?}");
    }
    head
}

/// One exchange without a body in the request.
fn ask(tls: &mut Tls, path: &str) -> (String, String) {
    tls.get_mut().write_all(get(path).as_bytes()).unwrap();
    let head = head(tls);
    let mut body = vec![0; field(&head, "content-length").map_or(0, |v| v.parse().unwrap())];
    tls.read_exact(&mut body).unwrap();
    (head, String::from_utf8(body).unwrap())
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn files(entries: &[(&str, &str)]) -> Files {
    let mut files = Files::default();
    for (path, text) in entries {
        files.insert(path, Ok(text.as_bytes().to_vec()));
    }
    files
}

fn give(proxy: &mut Proxy, entries: &[(&str, &str)], renew: bool) {
    let fd = files(entries).to_fd().unwrap();
    proxy.order(&Order::Files { renew }, Some(fd));
}

/// A plan whose one listener speaks TLS.
fn tls_plan(door: &Door, tls: &str, front: &str, back: &str, servers: &[SocketAddr]) -> String {
    let text = plan(door, front, back, servers);
    let bind = format!("bind \"{}\"", door.address);
    text.replace(&bind, &format!("{bind} {{ tls {{ {tls} }} }}"))
}

fn start(door: &Door, tls: &str, front: &str, origin: &Origin, entries: &[(&str, &str)]) -> Proxy {
    let mut proxy = Proxy::bare(1);
    give(&mut proxy, entries, false);
    let report = proxy.plan(&tls_plan(door, tls, front, "", &[origin.address]), &[door]);
    assert_eq!(report, Report::Ready { generation: 1 });
    proxy
}

#[test]
fn requests_and_answers_of_every_size_pass_over_tls() {
    let authority = Authority::new();
    // Echoes the body.
    let origin = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            assert_eq!(field(&head, "x-forwarded-proto"), Some("https"), "{head}");
            let length = field(&head, "content-length").map_or(0, |v| v.parse().unwrap());
            let body = peer.take(length);
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"));
            peer.send(body);
        }
    });
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let proxy = start(&door, "certificate \"/c.pem\"", "forwarded-for", &origin, &[("/c.pem", &pem)]);
    let config = Arc::new(client_config(&authority, None));
    let mut tls = connect(&door, &config, "h.test").unwrap();
    for length in [0, 1, 500, 16_384, 16_385, 100_000, 3_000_000] {
        let body: Vec<u8> = (0..length).map(|i| (i * 31 % 251) as u8).collect();
        let request = format!("PUT / HTTP/1.1\r\nHost: h.test\r\nContent-Length: {length}\r\n\r\n");
        let mut got = vec![0; length];
        // Both directions at once: the echo begins while the body is still being sent.
        let io = tls.get_mut();
        io.write_all(request.as_bytes()).unwrap();
        for piece in body.chunks(200_000) {
            io.write_all(piece).unwrap();
        }
        let head = head(&mut tls);
        assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
        tls.read_exact(&mut got).unwrap();
        assert!(got == body, "{length} bytes came back changed");
    }
    assert_eq!(proxy.status().frontends[0].requests_total, 7);
}

#[test]
fn an_answer_that_ends_with_the_connection_ends_with_close_notify() {
    let authority = Authority::new();
    let origin = Origin::new(|mut peer| {
        if peer.try_head().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n");
            peer.send("x".repeat(300_000));
        }
    });
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let _proxy = start(&door, "certificate \"/c.pem\"", "", &origin, &[("/c.pem", &pem)]);
    let config = Arc::new(client_config(&authority, None));
    let mut tls = connect(&door, &config, "h.test").unwrap();
    tls.get_mut().write_all(b"GET / HTTP/1.0\r\nHost: h.test\r\n\r\n").unwrap();
    head(&mut tls);
    let mut body = Vec::new();
    tls.read_to_end(&mut body).expect("rustls takes an end without close_notify for an error");
    assert_eq!(body.len(), 300_000);
}

#[test]
fn a_slow_reader_holds_the_server_back_and_gets_everything() {
    const N: usize = 30_000_000;
    let authority = Authority::new();
    let sent = Arc::new(Mutex::new(0));
    let progress = sent.clone();
    let origin = Origin::new(move |mut peer| {
        peer.try_head();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {N}\r\n\r\n"));
        for _ in 0..N / 10_000 {
            if peer.try_send([b'x'; 10_000]).is_err() {
                return;
            }
            *progress.lock().unwrap() += 10_000;
        }
    });
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let _proxy = start(&door, "certificate \"/c.pem\"", "", &origin, &[("/c.pem", &pem)]);
    let config = Arc::new(client_config(&authority, None));
    let mut tls = connect(&door, &config, "h.test").unwrap();
    tls.get_mut().write_all(get("/").as_bytes()).unwrap();
    let mut before = usize::MAX;
    wait("the origin to be held back", || {
        let now = *sent.lock().unwrap();
        let same = now > 0 && now == std::mem::replace(&mut before, now);
        std::thread::sleep(std::time::Duration::from_millis(50)); // standing still has no event
        same
    });
    assert!(before < N, "all {N} bytes went somewhere");
    head(&mut tls);
    let mut body = Vec::new();
    tls.take(N as u64).read_to_end(&mut body).unwrap();
    assert_eq!(body.len(), N);
}

#[test]
fn http_on_a_tls_port_is_told_so() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let proxy = start(&door, "certificate \"/c.pem\"", "", &origin, &[("/c.pem", &pem)]);
    let mut plain = Peer::connect(door.address);
    plain.send(get("/"));
    let (head, body) = plain.message();
    assert!(head.starts_with("HTTP/1.1 400 ") && body.contains("HTTPS"), "{head}{body}");
    assert!(plain.is_closed());
    let mut noise = Peer::connect(door.address);
    noise.send([0xff; 100]);
    assert!(!noise.rest_bytes().starts_with(b"HTTP"), "what is no HTTP gets an alert at most");
    assert_eq!((origin.accepted(), proxy.status().frontends[0].request_errors_total), (0, 2));
}

#[test]
fn a_client_that_does_not_shake_hands_is_cut_in_time() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let front = "timeout request=\"200ms\"";
    let _proxy = start(&door, "certificate \"/c.pem\"", front, &origin, &[("/c.pem", &pem)]);
    let mut silent = Peer::connect(door.address);
    silent.send([22, 3, 1]); // the beginning of a record
    assert!(silent.is_closed());
}

#[test]
fn a_certificate_that_changes_is_presented_without_a_reload() {
    let (old, new) = (Authority::new(), Authority::new());
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let pem = old.sign(&["h.test"]);
    let mut proxy = start(&door, "certificate \"/c.pem\"", "", &origin, &[("/c.pem", &pem)]);
    let (trusts_old, trusts_new) = (Arc::new(client_config(&old, None)), Arc::new(client_config(&new, None)));
    let mut kept = connect(&door, &trusts_old, "h.test").unwrap();
    ask(&mut kept, "/");

    give(&mut proxy, &[("/c.pem", "half a file")], true);
    give(&mut proxy, &[("/c.pem", &new.sign(&["h.test"]))], true);
    wait("the new certificate", || connect(&door, &trusts_new, "h.test").is_ok());
    let no_ticket = Arc::new(client_config(&old, None));
    assert!(connect(&door, &no_ticket, "h.test").is_err());
    assert_eq!(ask(&mut kept, "/").1, "ok", "a connection keeps what it began with");

    give(&mut proxy, &[("/c.pem", "half a file")], true);
    proxy.status(); // by then the order is obeyed
    ask(&mut connect(&door, &trusts_new, "h.test").unwrap(), "/");
}

#[test]
fn a_directory_of_certificates_is_followed() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let (one, two) = (authority.sign(&["one.test"]), authority.sign(&["two.test"]));
    let first = ("/tls/1.pem", one.as_str());
    let mut proxy = start(&door, "certificates \"/tls\"", "", &origin, &[first, ("/tls/x.txt", "no")]);
    let config = Arc::new(client_config(&authority, None));
    ask(&mut connect(&door, &config, "one.test").unwrap(), "/");
    assert!(connect(&door, &config, "two.test").unwrap_err().contains("not valid for name"));
    give(&mut proxy, &[first, ("/tls/2.pem", &two)], true);
    wait("the second certificate", || connect(&door, &config, "two.test").is_ok());
    ask(&mut connect(&door, &config, "one.test").unwrap(), "/");
}

#[test]
fn a_bad_file_keeps_no_good_one_back() {
    let (old, new) = (Authority::new(), Authority::new());
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let (one, two) = (old.sign(&["one.test"]), old.sign(&["two.test"]));
    let (named, in_directory) = (("/c.pem", one.as_str()), ("/tls/2.pem", two.as_str()));
    let bad = ("/tls/3.pem", "half a file");
    let tls = "certificate \"/c.pem\"; certificates \"/tls\"";
    let mut proxy = start(&door, tls, "", &origin, &[named, in_directory, bad]);
    let (trusts_old, trusts_new) = (Arc::new(client_config(&old, None)), Arc::new(client_config(&new, None)));
    ask(&mut connect(&door, &trusts_old, "two.test").unwrap(), "/");

    let (three, renewed) = (new.sign(&["three.test"]), new.sign(&["two.test"]));
    let set = [("/c.pem", "half a file"), ("/tls/2.pem", "nothing"), ("/tls/3.pem", &three)];
    give(&mut proxy, &set, true);
    wait("the file that is good now", || connect(&door, &trusts_new, "three.test").is_ok());
    for name in ["one.test", "two.test"] {
        let fresh = Arc::new(client_config(&old, None));
        ask(&mut connect(&door, &fresh, name).unwrap(), "/");
    }
    give(&mut proxy, &[named, ("/tls/2.pem", &renewed), ("/tls/3.pem", &three)], true);
    wait("the repaired file", || connect(&door, &trusts_new, "two.test").is_ok());

    let shown: Vec<_> = proxy.status().certificates.into_iter().map(|c| (c.file, c.name)).collect();
    let expected = [("/c.pem", "one.test"), ("/tls/2.pem", "two.test"), ("/tls/3.pem", "three.test")];
    assert_eq!(shown, expected.map(|(file, name)| (file.to_owned(), name.to_owned())));
}

/// A HAProxy that speaks TLS and says which protocol a request came in and from which port of ours.
fn haproxy(pem: &str, alpn: &str) -> (SocketAddr, Ended) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let directory =
        std::env::temp_dir().join(format!("relais-haproxy-{}", listener.local_addr().unwrap().port()));
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join("c.pem"), pem).unwrap();
    rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::empty()).unwrap();
    let text = format!(
        "defaults\n mode http\n timeout connect 5s\n timeout client 30s\n timeout server 30s\n\
         frontend f\n bind fd@{} ssl crt {}/c.pem alpn {alpn}\n http-request return status 200 content-type text/plain \
         lf-string \"%HV %[ssl_fc_alpn] %cp\"\n",
        std::os::fd::AsRawFd::as_raw_fd(&listener),
        directory.display()
    );
    let file = directory.join("haproxy.cfg");
    std::fs::write(&file, text).unwrap();
    let child = std::process::Command::new("haproxy").arg("-db").arg("-f").arg(&file).spawn().unwrap();
    (listener.local_addr().unwrap(), Ended(child, directory))
}

/// Ended when dropped.
struct Ended(std::process::Child, std::path::PathBuf);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
        let _ = std::fs::remove_dir_all(&self.1);
    }
}

#[test]
fn servers_over_tls_get_http2_if_they_agree_on_it_and_else_http1() {
    let authority = Authority::new();
    let pem = authority.sign(&["app.internal"]);
    for (offered, proto, said) in [
        ("h2,http/1.1", " proto=h2", "HTTP/2.0 h2 "),
        ("http/1.1", " proto=h2", "HTTP/1.1 http/1.1 "),
        ("h2,http/1.1", "", "HTTP/1.1 http/1.1 "),
    ] {
        let (address, _haproxy) = haproxy(&pem, offered);
        let door = Door::new(1);
        let mut proxy = Proxy::bare(1);
        give(&mut proxy, &[("/ca.pem", &authority.pem())], false);
        let server = format!("server s1 \"{address}\"");
        let text = plan(&door, "", "tls sni=\"app.internal\" ca=\"/ca.pem\"", &[address]);
        assert!(text.contains(&server), "{text}");
        let text = text.replace(&server, &format!("{server}{proto}"));
        assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
        let mut clients = [Peer::connect(door.address), Peer::connect(door.address)];
        let mut bodies = Vec::new();
        for _ in 0..2 {
            for client in &mut clients {
                client.send(get("/"));
                let (head, body) = client.message();
                assert!(head.starts_with("HTTP/1.1 200 ") && body.starts_with(said), "{proto}: {head}{body}");
                bodies.push(body);
            }
        }
        bodies.dedup();
        assert_eq!(bodies.len(), 1, "{proto}: the connection is kept: {bodies:?}");
    }
}

#[test]
fn the_protocol_is_agreed_on_in_the_handshake() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let _proxy = start(&door, "certificate \"/c.pem\"; alpn \"http/1.1\"", "", &origin, &[("/c.pem", &pem)]);
    let agreed = |offered: &[&[u8]]| {
        let mut config = client_config(&authority, None);
        config.alpn_protocols = offered.iter().map(|p| p.to_vec()).collect();
        let tls = connect(&door, &Arc::new(config), "h.test")?;
        Ok::<_, String>(tls.get_ref().conn.alpn_protocol().map(<[u8]>::to_vec))
    };
    assert_eq!(
        agreed(&[b"h2", b"http/1.1"]).unwrap().as_deref(),
        Some(&b"http/1.1"[..]),
        "h2 is not offered"
    );
    assert_eq!(agreed(&[]).unwrap(), None);
    assert!(agreed(&[b"smtp"]).unwrap_err().contains("NoApplicationProtocol"));
}

#[test]
fn clients_below_the_least_version_are_refused() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let pem = authority.sign(&["h.test"]);
    let old = || {
        let versions = [&rustls::version::TLS12];
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&versions);
        Arc::new(builder.unwrap().with_root_certificates(authority.roots()).with_no_client_auth())
    };
    for (least, welcome) in [("1.2", true), ("1.3", false)] {
        let door = Door::new(1);
        let tls = format!("certificate \"/c.pem\"; min-version \"{least}\"");
        let _proxy = start(&door, &tls, "", &origin, &[("/c.pem", &pem)]);
        assert_eq!(connect(&door, &old(), "h.test").is_ok(), welcome, "{least}");
        ask(&mut connect(&door, &Arc::new(client_config(&authority, None)), "h.test").unwrap(), "/");
    }
}

#[test]
fn clients_show_their_certificate_and_servers_see_it() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let (sender, seen) = handover();
    let origin = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            sender.lock().unwrap().send(field(&head, "client-cert").map(str::to_owned)).unwrap();
            peer.send(OK);
        }
    });
    let (pem, own) = (authority.sign(&["h.test"]), authority.sign(&["student.test"]));
    let entries = [("/c.pem", pem.as_str()), ("/ca.pem", &authority.pem())];
    let forged = "GET / HTTP/1.1\r\nHost: h.test\r\nClient-Cert: :bWFuYWdlcg==:\r\n\r\n";
    for need in ["required", "optional"] {
        let door = Door::new(1);
        let tls = format!("certificate \"/c.pem\"; client-certificate {need} ca=\"/ca.pem\"");
        let _proxy = start(&door, &tls, "", &origin, &entries);
        let mut shown = connect(&door, &Arc::new(client_config(&authority, Some(&own))), "h.test").unwrap();
        shown.get_mut().write_all(forged.as_bytes()).unwrap();
        head(&mut shown);
        let value = seen.recv().unwrap().unwrap();
        let der = value.trim_matches(':');
        let body: String = own.lines().skip(1).take_while(|line| !line.starts_with("---")).collect();
        assert_eq!(der, body, "RFC 9440 carries the DER as base64");

        // TLS 1.3 clients learn of a refusal with their first read.
        let asked = |own: Option<&str>| {
            let mut tls = connect(&door, &Arc::new(client_config(&authority, own)), "h.test").ok()?;
            tls.get_mut().write_all(forged.as_bytes()).ok()?;
            let mut line = String::new();
            tls.read_line(&mut line).ok().filter(|n| *n > 0)?;
            Some(seen.recv().unwrap())
        };
        let nothing_forged = if need == "required" { None } else { Some(None) };
        assert_eq!(asked(None), nothing_forged, "{need}");
        assert_eq!(asked(Some(&stranger.sign(&["student.test"]))), None, "{need}");
    }
}

#[test]
fn rules_tell_servers_who_shows_a_certificate_and_nobody_can_pretend() {
    let authority = Authority::new();
    let (sender, seen) = handover();
    let origin = Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            sender.lock().unwrap().send(head).unwrap();
            peer.send(OK);
        }
    });
    let (pem, own) = (authority.sign(&["h.test"]), authority.sign(&["student.test"]));
    let door = Door::new(1);
    let names = ["subject", "issuer", "cn", "serial", "san", "sha256", "verified"];
    let sets: String = names
        .iter()
        .map(|n| format!("set-header \"X-Client-{n}\" \"%{{client-certificate:{n}}}\"; "))
        .collect();
    let front = format!("rule \"who\" {{ {sets} }}");
    let tls = "certificate \"/c.pem\"; client-certificate optional ca=\"/ca.pem\"";
    let ca = authority.pem();
    let _proxy = start(&door, tls, &front, &origin, &[("/c.pem", &pem), ("/ca.pem", &ca)]);
    let forged: String = names.iter().map(|n| format!("x-CLIENT-{n}: forged\r\n")).collect();
    let asked = |own: Option<&str>| -> Vec<String> {
        let mut tls = connect(&door, &Arc::new(client_config(&authority, own)), "h.test").unwrap();
        tls.get_mut()
            .write_all(format!("GET / HTTP/1.1\r\nHost: h.test\r\n{forged}\r\n").as_bytes())
            .unwrap();
        head(&mut tls);
        let head = seen.recv().unwrap();
        assert!(!head.contains("forged"), "{head}");
        names.iter().map(|n| field(&head, &format!("x-client-{n}")).unwrap_or("none").to_owned()).collect()
    };
    let shown = asked(Some(&own));
    let directory = std::env::temp_dir().join(format!("relais-identity-{}", std::process::id()));
    std::fs::write(&directory, &own).unwrap();
    let openssl = |what: &[&str]| {
        let mut openssl = std::process::Command::new("openssl");
        let out = openssl.args(["x509", "-noout", "-in"]).arg(&directory).args(what).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        text.trim().split_once('=').unwrap().1.to_owned()
    };
    assert_eq!(shown[0], openssl(&["-subject", "-nameopt", "RFC2253"]));
    assert_eq!(shown[1], openssl(&["-issuer", "-nameopt", "RFC2253"]));
    assert_eq!(shown[2..5], ["student.test".to_owned(), openssl(&["-serial"]), "student.test".to_owned()]);
    assert_eq!(shown[5], openssl(&["-fingerprint", "-sha256"]).replace(':', "").to_ascii_lowercase());
    assert_eq!(shown[6], "SUCCESS");
    std::fs::remove_file(&directory).unwrap();
    assert_eq!(asked(None), ["", "", "", "", "", "", "NONE"]);
}

#[test]
fn a_ticket_of_one_balancer_is_taken_by_another_with_the_same_keys() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let pem = authority.sign(&["h.test"]);
    let keys = "7c2e0Jb1nZs0m5Z2hD6m0mWqk1e3Vt9cAA\n";
    let resumed = |version: &'static rustls::SupportedProtocolVersion, second_keys: &str| {
        let tls = "certificate \"/c.pem\"; ticket-keys \"/keys\"";
        let (one, two) = (Door::new(1), Door::new(1));
        let _one = start(&one, tls, "", &origin, &[("/c.pem", &pem), ("/keys", keys)]);
        let _two = start(&two, tls, "", &origin, &[("/c.pem", &pem), ("/keys", second_keys)]);
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
        let config = builder.unwrap().with_root_certificates(authority.roots()).with_no_client_auth();
        let config = Arc::new(config);
        let mut first = connect(&one, &config, "h.test").unwrap();
        assert_eq!(first.get_ref().conn.handshake_kind(), Some(HandshakeKind::Full));
        ask(&mut first, "/"); // and with the answer come the tickets of TLS 1.3
        let mut second = connect(&two, &config, "h.test").unwrap();
        ask(&mut second, "/");
        second.get_ref().conn.handshake_kind() == Some(HandshakeKind::Resumed)
    };
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        assert!(resumed(version, keys), "{version:?}");
        assert!(!resumed(version, &keys.replace('7', "8")), "{version:?}");
    }
}

#[test]
fn tickets_are_made_of_the_clusters_key_where_there_is_one() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let pem = authority.sign(&["h.test"]);
    let key = "7c2e0Jb1nZs0m5Z2hD6m0mWqk1e3Vt9cAA\n";
    let run = |door: &Door, key: &str| {
        let mut proxy = Proxy::bare(1);
        proxy.platform = "secret cluster-key file=\"/key\";".to_owned();
        give(&mut proxy, &[("/c.pem", &pem), ("/key", key)], false);
        let plan = tls_plan(door, "certificate \"/c.pem\"", "", "", &[origin.address]);
        assert_eq!(proxy.plan(&plan, &[door]), Report::Ready { generation: 1 });
        proxy
    };
    for version in [&rustls::version::TLS13, &rustls::version::TLS12] {
        let (one, two, stranger) = (Door::new(1), Door::new(1), Door::new(1));
        let _others = (run(&two, key), run(&stranger, &key.replace('7', "8")));
        let builder = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
        let config = builder.unwrap().with_root_certificates(authority.roots()).with_no_client_auth();
        let config = Arc::new(config);
        let visit = |door: &Door| {
            let mut tls = connect(door, &config, "h.test").unwrap();
            ask(&mut tls, "/"); // and with the answer come the tickets of TLS 1.3
            tls.get_ref().conn.handshake_kind().unwrap()
        };
        let before = run(&one, key);
        assert_eq!(visit(&one), HandshakeKind::Full, "{version:?}");
        drop(before);
        assert_eq!(visit(&two), HandshakeKind::Resumed, "{version:?}: the other balancer");
        let _after = run(&one, key);
        assert_eq!(visit(&one), HandshakeKind::Resumed, "{version:?}: the same one, started again");
        assert_eq!(visit(&stranger), HandshakeKind::Full, "{version:?}: of another cluster");
    }
}

#[test]
fn browsers_are_told_to_come_by_https_only() {
    let authority = Authority::new();
    let origin = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            let own =
                if head.starts_with("GET /own") { "strict-transport-security: max-age=1\r\n" } else { "" };
            peer.send(format!("HTTP/1.1 200 OK\r\n{own}Content-Length: 2\r\n\r\nok"));
        }
    });
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let _proxy = start(&door, "certificate \"/c.pem\"; hsts \"2h\"", "", &origin, &[("/c.pem", &pem)]);
    let config = Arc::new(client_config(&authority, None));
    let mut tls = connect(&door, &config, "h.test").unwrap();
    let said = |head: &str| {
        let lines = head.lines().filter(|l| l.to_ascii_lowercase().starts_with("strict-transport-security:"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(said(&ask(&mut tls, "/").0), ["Strict-Transport-Security: max-age=7200"]);
    assert_eq!(said(&ask(&mut tls, "/own").0), ["strict-transport-security: max-age=1"]);
    tls.get_mut().write_all(b"BAD\r\n\r\n").unwrap();
    assert_eq!(said(&head(&mut tls)), ["Strict-Transport-Security: max-age=7200"], "our own answers too");
}

/// A server that speaks TLS and answers `ok`.
fn tls_origin(pem: &str) -> Origin {
    let (chain, key) = chain(pem);
    let config =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_no_client_auth().with_single_cert(chain, key).unwrap());
    Origin::new(move |peer| {
        let connection = rustls::ServerConnection::new(config.clone()).unwrap();
        let mut io = BufReader::new(StreamOwned::new(connection, peer.io.into_inner()));
        loop {
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                match io.read_line(&mut head) {
                    Ok(0) | Err(_) => return,
                    Ok(_) => {}
                }
            }
            if io.get_mut().write_all(OK.as_bytes()).is_err() {
                return;
            }
        }
    })
}

#[test]
fn servers_are_reached_over_tls_and_only_if_they_are_who_they_should_be() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let right = tls_origin(&authority.sign(&["app.internal"]));
    let by_address = tls_origin(&authority.sign(&["127.0.0.1"]));
    let unknown = tls_origin(&stranger.sign(&["app.internal"]));
    let plain = Origin::answering(OK);
    let cases = [
        ("tls sni=\"app.internal\" ca=\"/ca.pem\"", &right, 200),
        ("tls ca=\"/ca.pem\"", &by_address, 200),
        ("tls ca=\"/ca.pem\"", &right, 503),
        ("tls sni=\"other.internal\" ca=\"/ca.pem\"", &right, 503),
        ("tls sni=\"app.internal\" ca=\"/ca.pem\"", &unknown, 503),
        ("tls sni=\"app.internal\" verify=none", &unknown, 200),
        ("tls verify=none", &plain, 503),
    ];
    for (back, origin, expected) in cases {
        let door = Door::new(1);
        let mut proxy = Proxy::bare(1);
        give(&mut proxy, &[("/ca.pem", &authority.pem())], false);
        let back = format!("{back}\n retries 0");
        let report = proxy.plan(&plan(&door, "", &back, &[origin.address]), &[&door]);
        assert_eq!(report, Report::Ready { generation: 1 });
        let before = origin.accepted();
        let mut client = Peer::connect(door.address);
        for _ in 0..2 {
            client.send(get("/"));
            let (head, _) = client.message();
            assert!(head.starts_with(&format!("HTTP/1.1 {expected} ")), "{back}: {head}");
        }
        if expected == 200 {
            assert_eq!(origin.accepted() - before, 1, "the connection is kept");
        }
    }
}

#[test]
fn checks_speak_tls_where_requests_do() {
    let authority = Authority::new();
    let right = tls_origin(&authority.sign(&["app.internal"]));
    let wrong = tls_origin(&authority.sign(&["other.internal"]));
    let door = Door::new(1);
    let mut proxy = Proxy::bare(1);
    give(&mut proxy, &[("/ca.pem", &authority.pem())], false);
    let back = "tls sni=\"app.internal\" ca=\"/ca.pem\"\n check http path=\"/\" every=\"50ms\" fall=1 rise=1";
    let report = proxy.plan(&plan(&door, "", back, &[right.address, wrong.address]), &[&door]);
    assert_eq!(report, Report::Ready { generation: 1 });
    proxy.wait_server("s2", false);
    let servers = &proxy.status().backends[0].servers;
    assert!(servers[1].check.contains("another name"), "{}", servers[1].check);
    wait("the first to be seen well", || proxy.status().backends[0].servers[0].check == "status 200");
}

#[test]
fn a_tcp_frontend_ends_tls_and_halves_still_close_apart() {
    let authority = Authority::new();
    let origin = Origin::new(|mut peer| {
        assert_eq!(peer.rest(), "question");
        peer.send("answer");
    });
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let mut proxy = Proxy::bare(1);
    give(&mut proxy, &[("/c.pem", &pem)], false);
    let text = tls_plan(&door, "certificate \"/c.pem\"", "mode tcp", "mode tcp", &[origin.address]);
    assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
    let mut tls = connect(&door, &Arc::new(client_config(&authority, None)), "h.test").unwrap();
    let io = tls.get_mut();
    io.write_all(b"question").unwrap();
    io.conn.send_close_notify();
    io.flush().unwrap();
    let mut answer = String::new();
    tls.read_to_string(&mut answer).unwrap();
    assert_eq!(answer, "answer");
}

#[test]
fn a_plan_whose_certificate_cannot_be_used_is_refused_and_says_why() {
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let mut proxy = Proxy::bare(1);
    give(&mut proxy, &[("/c.pem", "nothing")], false);
    let text = tls_plan(&door, "certificate \"/c.pem\"", "", "", &[origin.address]);
    let Report::Refused { why, .. } = proxy.plan(&text, &[&door]) else { panic!("it was taken") };
    assert!(why.contains("frontend web: /c.pem has no certificate"), "{why}");
}

#[test]
fn the_name_in_the_handshake_chooses_the_backend_and_tls_passes_through() {
    let authority = Authority::new();
    let (one, two) = (authority.sign(&["one.test"]), authority.sign(&["two.test"]));
    let (first, second) = (tls_origin(&one), tls_origin(&two));
    let door = Door::new(1);
    let rule = "mode tcp\n rule \"two\" { match sni \"TWO.test\"; backend two; }";
    let text = plan(&door, rule, "mode tcp", &[first.address])
        + &format!("backend two {{ mode tcp; server s1 \"{}\"; }}\n", second.address);
    let _proxy = Proxy::start(&text, &[&door]);
    let config = Arc::new(client_config(&authority, None));
    for name in ["one.test", "two.test"] {
        ask(&mut connect(&door, &config, name).unwrap(), "/");
    }
    // One byte after the other.
    let mut socket = TcpStream::connect(door.address).unwrap();
    let mut tls = ClientConnection::new(config, ServerName::try_from("two.test").unwrap()).unwrap();
    let mut hello = Vec::new();
    tls.write_tls(&mut hello).unwrap();
    socket.set_nodelay(true).unwrap();
    for byte in &hello {
        socket.write_all(&[*byte]).unwrap();
    }
    while tls.is_handshaking() {
        tls.complete_io(&mut socket).unwrap();
    }
    assert_eq!((first.accepted(), second.accepted()), (1, 2));
}

#[test]
fn rules_and_lines_know_of_tls() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let door = Door::new(1);
    let pem = authority.sign(&["h.test"]);
    let front = "forwarded-for\n rule \"by name\" { match sni \"h.test\"; match scheme https; deny 403; }";
    let _proxy = start(&door, "certificate \"/c.pem\"", front, &origin, &[("/c.pem", &pem)]);
    let config = Arc::new(client_config(&authority, None));
    let mut tls = connect(&door, &config, "h.test").unwrap();
    assert!(ask(&mut tls, "/").0.starts_with("HTTP/1.1 403 "));
}

#[test]
fn a_ticket_given_without_a_certificate_opens_no_door_that_requires_one() {
    let authority = Authority::new();
    let origin = Origin::answering(OK);
    let (pem, ca) = (authority.sign(&["h.test"]), authority.pem());
    let (open, closed) = (Door::new(1), Door::new(1));
    let mut proxy = Proxy::bare(1);
    give(&mut proxy, &[("/c.pem", &pem), ("/ca.pem", &ca)], false);
    let tls = "certificate \"/c.pem\"";
    let second = format!(
        "frontend safe {{ bind \"{}\" {{ tls {{ {tls}; client-certificate required ca=\"/ca.pem\"; }} }}\n \
         default-backend app; }}\n",
        closed.address
    );
    let text = tls_plan(&open, tls, "", "", &[origin.address]) + &second;
    assert_eq!(proxy.plan(&text, &[&open, &closed]), Report::Ready { generation: 1 });
    let config = Arc::new(client_config(&authority, None));
    ask(&mut connect(&open, &config, "h.test").unwrap(), "/");
    let mut again = connect(&open, &config, "h.test").unwrap();
    assert_eq!(again.get_ref().conn.handshake_kind(), Some(HandshakeKind::Resumed));
    ask(&mut again, "/");
    let answered = connect(&closed, &config, "h.test").is_ok_and(|mut tls| {
        let _ = tls.get_mut().write_all(get("/").as_bytes());
        let mut line = String::new();
        tls.read_line(&mut line).is_ok_and(|n| n > 0)
    });
    assert!(!answered);
}
