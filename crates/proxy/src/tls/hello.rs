//! The server name in a TLS handshake that is not ours: a connection in TCP mode is passed through to who has the
//! certificate, and only looked at. Nothing is taken off the socket.

use std::io;
use std::task::{Poll, ready};

use rustix::net::{RecvFlags, recv};
use rustls::server::Acceptor;
use tokio::io::Interest;

use crate::client::Client;

/// Longest ClientHello that is looked at, bytes: with post-quantum keys one is about 2 KiB.
const LONGEST: usize = 16 * 1024;

/// The name, lower-case; `None` if there is none, if this is no TLS, or if it does not come within the request time-out.
pub(crate) async fn sni(client: &Client) -> Option<Box<str>> {
    let deadline = client.worker.now() + client.front.plan().plan.timeout.request;
    let mut seen = vec![0; 2048];
    let mut before = 0;
    let look = |cx: &mut std::task::Context<'_>| {
        let Some(socket) = client.io.socket() else { return Poll::Ready(None) };
        loop {
            if ready!(socket.poll_read_ready(cx)).is_err() {
                return Poll::Ready(None);
            }
            let peeked = socket.try_io(Interest::READABLE, || {
                let (n, _) = recv(socket, &mut seen[..], RecvFlags::PEEK)?;
                // The beginning that is known already: with this the readiness is cleared until more comes.
                if n == before && n < seen.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
            });
            match peeked {
                Ok(0) => return Poll::Ready(None),
                Ok(n) => {
                    if let Verdict::Over(name) = parse(&seen[..n]) {
                        return Poll::Ready(name);
                    }
                    before = n;
                    if n == seen.len() {
                        if n == LONGEST {
                            return Poll::Ready(None);
                        }
                        seen.resize(LONGEST, 0);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => return Poll::Ready(None),
            }
        }
    };
    client.until(deadline, look).await.ok().flatten()
}

enum Verdict {
    /// More has to come.
    More,
    /// This is the name, or there is none.
    Over(Option<Box<str>>),
}

fn parse(mut bytes: &[u8]) -> Verdict {
    if bytes.first() != Some(&22) {
        return Verdict::Over(None); // no handshake record (RFC 8446 §5.1)
    }
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Verdict::Over(None);
        }
        match acceptor.accept() {
            Ok(None) => {}
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(str::to_ascii_lowercase);
                return Verdict::Over(name.map(Box::from));
            }
            Err(_) => return Verdict::Over(None),
        }
    }
    Verdict::More
}
