//! The PROXY protocol header that a connection from a trusted source begins with: waits for it, and takes off the
//! socket exactly its bytes. What follows, TLS or not, is read by whoever would have read the first byte.
//!
//! Called by `worker` between accepting and serving; what a header means is `relais_http::proxy_protocol`'s.

use std::future::Future;
use std::io;
use std::task::{Context, Poll, Waker, ready};

use relais_http::proxy_protocol::{Ends, Header, MAX_V2, parse};
use rustix::net::{RecvFlags, recv};
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::client::{Client, Late};
use crate::rules;

/// Why a connection ends before it has said who it is for.
enum Cut {
    /// It closed without a word, as checks of load balancers do.
    Silent,
    Because(String),
}

/// The client that the header names, in place of who sent it; `None` if there is none, which is logged.
pub(crate) async fn receive(mut client: Client) -> Option<Client> {
    let deadline = client.worker.now() + client.front.plan().plan.timeout.request;
    let mut seen = vec![0; 256];
    let result = client
        .until(deadline, |cx| {
            // Before TLS: its bytes stay where they are.
            let Some(io) = client.io.socket() else { return Poll::Ready(Err(Cut::Silent)) };
            loop {
                if let Err(error) = ready!(io.poll_read_ready(cx)) {
                    return Poll::Ready(Err(Cut::Because(error.to_string())));
                }
                match io.try_io(Interest::READABLE, || look(io, &mut seen)) {
                    Ok(found) => return Poll::Ready(found),
                    Err(error) if error.kind() != io::ErrorKind::WouldBlock => {
                        return Poll::Ready(Err(Cut::Because(error.to_string())));
                    }
                    Err(_) if is_closed(io) => {
                        return Poll::Ready(Err(Cut::Because(
                            "the connection was closed within it".to_owned(),
                        )));
                    }
                    Err(_) => {}
                }
            }
        })
        .await;
    let why = match result {
        Ok(Ok(header)) => match take(&client, header) {
            Ok(()) => {
                if let Ends::Tcp { source, destination } = header.ends {
                    client.peer = source;
                    client.connected_to(destination);
                }
                let port = || client.local().map_or(0, |local| local.port());
                match rules::door(&client.worker, &client.front.plan(), client.peer.ip(), port) {
                    Ok(limits) => client.keep(limits),
                    Err(silent) => {
                        client.front.counters().errors.add(1);
                        if let Some(socket) = client.io.socket() {
                            crate::io::reject(socket, silent);
                        }
                        return None;
                    }
                }
                return Some(client);
            }
            Err(error) => error.to_string(),
        },
        Ok(Err(Cut::Silent)) => return None,
        Ok(Err(Cut::Because(why))) => why,
        Err(Late) => "no whole one came in time".to_owned(),
    };
    client.front.counters().errors.add(1);
    if client.worker.may_complain() {
        let (peer, front) = (client.peer, &client.front.shared.name);
        tracing::warn!("frontend {front}: {peer} is cut for its PROXY header: {why}");
    }
    None
}

/// Looks at what has come, without taking it.
///
/// # Errors
/// `WouldBlock` if it is the beginning of a header: with that the readiness is cleared until more comes.
fn look(io: &TcpStream, seen: &mut Vec<u8>) -> io::Result<Result<Header, Cut>> {
    loop {
        let n = recv(io, &mut seen[..], RecvFlags::PEEK)?.0;
        match parse(&seen[..n]) {
            _ if n == 0 => return Ok(Err(Cut::Silent)),
            Ok(Some(header)) => return Ok(Ok(header)),
            Ok(None) if n == seen.len() && n < MAX_V2 => seen.resize(MAX_V2, 0),
            Ok(None) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(bad) => return Ok(Err(Cut::Because(bad.to_string()))),
        }
    }
}

/// Whether the other end has closed: then nothing more comes, though there are bytes to look at.
fn is_closed(io: &TcpStream) -> bool {
    let ready = std::pin::pin!(io.ready(Interest::READABLE)).poll(&mut Context::from_waker(Waker::noop()));
    matches!(ready, Poll::Ready(Ok(ready)) if ready.is_read_closed())
}

/// Takes the header off the socket.
fn take(client: &Client, header: Header) -> io::Result<()> {
    let mut bytes = vec![0; header.length];
    let mut room = &mut bytes[..];
    while !room.is_empty() {
        let socket = client.io.socket().ok_or(io::ErrorKind::NotConnected)?;
        match recv(socket, &mut *room, RecvFlags::empty())? {
            (0, _) => return Err(io::ErrorKind::UnexpectedEof.into()),
            (n, _) => room = &mut room[n..],
        }
    }
    Ok(())
}
