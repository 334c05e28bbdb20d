//! HTTP/2 over TLS: a proxy with a listener of each kind, and connections to either.

use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use relais_ipc::Report;
use relais_ipc::files::Files;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::common::*;
use crate::wire::{Carrier, Raw};

impl Carrier for StreamOwned<ClientConnection, TcpStream> {
    fn wait_at_most(&self, time: Duration) {
        self.sock.set_read_timeout(Some(time)).unwrap();
    }
}

/// A proxy that listens without TLS and with it.
pub struct Both {
    pub proxy: Proxy,
    pub plain: SocketAddr,
    secure: SocketAddr,
    config: Arc<ClientConfig>,
}

/// How a connection is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    Tcp,
    Tls,
}

impl Both {
    pub fn start(server: SocketAddr) -> Both {
        let made = rcgen::generate_simple_self_signed(vec!["h.test".to_owned()]).unwrap();
        let pem = made.cert.pem() + &made.signing_key.serialize_pem();
        let (plain, secure) = (Door::new(1), Door::new(1));
        let mut proxy = Proxy::bare(1);
        let mut files = Files::default();
        files.insert("/h.pem", Ok(pem.into_bytes()));
        proxy.order(&relais_ipc::Order::Files { renew: false }, Some(files.to_fd().unwrap()));
        let bind = format!("bind \"{}\" {{ tls {{ certificate \"/h.pem\"; }}; }}", secure.address);
        let report = proxy.plan(&plan(&plain, &bind, "", &[server]), &[&plain, &secure]);
        assert_eq!(report, Report::Ready { generation: 1 });
        Both { proxy, plain: plain.address, secure: secure.address, config: config(made.cert.der()) }
    }

    /// A connection that has begun.
    pub fn open(&self, over: Over) -> Raw {
        match over {
            Over::Tcp => Raw::open(self.plain),
            Over::Tls => {
                let io = TcpStream::connect(self.secure).unwrap();
                io.set_read_timeout(Some(PATIENCE)).unwrap();
                io.set_write_timeout(Some(PATIENCE)).unwrap();
                io.set_nodelay(true).unwrap();
                let name = ServerName::try_from("h.test").unwrap();
                let tls = ClientConnection::new(self.config.clone(), name).unwrap();
                let mut raw = Raw { io: Box::new(StreamOwned::new(tls, io)) };
                raw.begin(&[]);
                raw
            }
        }
    }
}

fn config(trusted: &CertificateDer<'static>) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    Arc::new(config)
}
