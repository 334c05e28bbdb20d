//! A TLS connection as [`crate::io::Io`] needs one: plain bytes in and out, and readiness that counts what waits
//! inside the TLS engine too.
//!
//! Nothing here waits. Encrypted bytes that the socket does not take at once stay in the engine and go out with the
//! next call of any kind; [`Stream::flush`] tells whether some are left. While a connection idles the engine holds
//! a few kilobytes: its buffers are given back when they are empty.

use std::cell::{OnceCell, RefCell};
use std::io::{self, IoSlice, Read, Write};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use aws_lc_rs::digest;
use relais_rules::Identity;
use rustix::net::{SendFlags, Shutdown};
use rustls::{AlertDescription, Connection};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::strict::{self, Refused, Watch};
use super::x509::Certificate;
use super::{Accepts, alert};
use crate::limits;

/// Plain bytes that one write takes: a full record (RFC 8446 §5.1).
const RECORD: usize = 16 * 1024;
/// Encrypted bytes that may wait for the socket. More than two records cannot come together: a write is
/// only taken when nothing waits.
const WAITING: usize = 64 * 1024;

/// A TLS connection over TCP.
pub(crate) struct Stream {
    socket: TcpStream,
    accepts: Option<Accepts>,
    /// The name that the client asked for.
    sni: OnceCell<Option<Box<str>>>,
    /// Who the other end is by its certificate, once somebody has asked.
    identity: OnceCell<Option<Box<Identity>>>,
    state: RefCell<State>,
}

struct State {
    tls: Connection,
    /// Decrypted bytes that wait to be read.
    readable: usize,
    /// The other end said that it is done (close_notify).
    closed: bool,
    /// Why the connection cannot go on.
    failed: Option<String>,
    /// `close_notify` is on its way; the socket is shut down behind it.
    closing: bool,
    /// The other end has had something of us.
    sent: bool,
    /// The first bytes that came, for those who speak no TLS.
    first: [u8; 8],
    came: usize,
    watch: Watch,
}

impl Stream {
    /// A connection whose handshake is still to come.
    pub(crate) fn new(socket: TcpStream, mut tls: Connection, accepts: Option<Accepts>) -> Stream {
        tls.set_buffer_limit(Some(WAITING));
        let state = State {
            tls,
            readable: 0,
            closed: false,
            failed: None,
            closing: false,
            sent: false,
            first: [0; 8],
            came: 0,
            watch: Watch::default(),
        };
        Stream {
            socket,
            accepts,
            sni: OnceCell::new(),
            identity: OnceCell::new(),
            state: RefCell::new(state),
        }
    }

    /// Goes on with the handshake; ready when it is over.
    ///
    /// # Errors
    /// `InvalidData` with the reason if the two ends cannot agree; else what the kernel says.
    pub(crate) fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let sent = self.flush();
            let state = &mut *self.state.borrow_mut();
            if let Err(error) = sent
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Poll::Ready(Err(error));
            }
            if !state.tls.is_handshaking() {
                if let Connection::Server(tls) = &state.tls {
                    let _ = self.sni.set(tls.server_name().map(Box::from)); // once is all it is called
                }
                return Poll::Ready(Ok(()));
            }
            if state.tls.wants_write() {
                ready!(self.socket.poll_write_ready(cx))?;
                continue;
            }
            match state.receive(&self.socket) {
                Ok(true) => {}
                Ok(false) => return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into())),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_read_ready(cx))?;
                }
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Whether the other end began with something that is a request of HTTP/1 and no TLS.
    pub(crate) fn looks_like_http(&self) -> bool {
        self.state.borrow().looks_like_http()
    }

    /// The name that the client asked for (RFC 6066 §3), once the handshake is over.
    pub(crate) fn sni(&self) -> Option<&str> {
        self.sni.get()?.as_deref()
    }

    /// What the certificate that the other end has shown says of it; once the handshake is over.
    pub(crate) fn identity(&self) -> Option<&Identity> {
        let read = || {
            self.with(|tls| {
                let der = tls.peer_certificates()?.first()?;
                let sha256 = digest::digest(&digest::SHA256, der);
                Certificate::read(der).map(|read| Box::new(read.identity(sha256.as_ref())))
            })
        };
        self.identity.get_or_init(read).as_deref()
    }

    /// Whether the two ends agreed to speak HTTP/2 (RFC 7301).
    pub(crate) fn agreed_on_h2(&self) -> bool {
        self.state.borrow().tls.alpn_protocol() == Some(b"h2")
    }

    /// Looks at the connection as the handshake left it.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Connection) -> T) -> T {
        look(&self.state.borrow().tls)
    }

    /// The field line that tells browsers to come by https only, or nothing.
    pub(crate) fn hsts(&self) -> &[u8] {
        self.accepts.as_ref().map_or(&[], |accepts| &accepts.hsts)
    }

    /// The socket below, for bytes that are no TLS.
    pub(crate) fn socket(&self) -> &TcpStream {
        &self.socket
    }

    /// As [`crate::io::Io::try_read`]. An end without `close_notify` is an error: what ends by being closed may
    /// have been cut short by anybody (RFC 8446 §6.1, RFC 9112 §9.8).
    pub(crate) fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        let state = &mut *self.state.borrow_mut();
        loop {
            if state.readable > 0 {
                let got = state.tls.reader().read(room)?;
                state.readable = state.readable.saturating_sub(got);
                return Ok(got);
            }
            if state.closed {
                return Ok(0);
            }
            if !state.receive(&self.socket)? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// As [`crate::io::Io::try_write`].
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_both(bytes, &[])
    }

    /// As [`crate::io::Io::try_write_both`]: both in one record where they fit.
    pub(crate) fn try_write_both(&self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        self.flush()?;
        let state = &mut *self.state.borrow_mut();
        let first = &first[..first.len().min(RECORD)];
        let second = &second[..second.len().min(RECORD - first.len())];
        let taken = if second.is_empty() {
            state.tls.writer().write(first)?
        } else {
            state.tls.writer().write_vectored(&[IoSlice::new(first), IoSlice::new(second)])?
        };
        match state.send(&self.socket) {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Sends what waits.
    ///
    /// # Errors
    /// `WouldBlock` while the socket does not take all of it; else what the kernel says.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.state.borrow_mut().send(&self.socket)
    }

    /// As [`crate::io::Io::poll_read_ready`].
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let state = &mut *self.state.borrow_mut();
            if state.readable > 0 || state.closed || state.failed.is_some() {
                return Poll::Ready(Ok(()));
            }
            while state.tls.wants_write() {
                match state.send(&self.socket) {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if self.socket.poll_write_ready(cx).is_pending() {
                            break;
                        }
                    }
                    Err(_) => return Poll::Ready(Ok(())), // the read says what it is
                }
            }
        }
        self.socket.poll_read_ready(cx)
    }

    /// As [`crate::io::Io::poll_write_ready`]: ready once nothing waits.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            match self.flush() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.socket.poll_write_ready(cx))?;
                }
                result => return Poll::Ready(result),
            }
        }
    }

    /// As [`crate::io::Io::shut_down`]: `close_notify`, and the end of the socket behind it.
    pub(crate) fn shut_down(&self) -> io::Result<()> {
        let state = &mut *self.state.borrow_mut();
        if !state.closing {
            state.closing = true;
            state.tls.send_close_notify();
        }
        match state.send(&self.socket) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()), // it follows when it can
            result => result,
        }
    }

    /// As [`crate::io::Io::end_in_reset`]: without `close_notify` either.
    pub(crate) fn end_in_reset(&self) {
        self.state.borrow_mut().failed.get_or_insert_with(|| "it was given up".to_owned());
        let _ = rustix::net::sockopt::set_socket_linger(&self.socket, Some(Duration::ZERO));
    }

    /// As [`crate::io::Io::is_quiet`]. Session tickets (RFC 8446 §4.6.1) come on a quiet connection.
    pub(crate) fn is_quiet(&self) -> bool {
        let state = &mut *self.state.borrow_mut();
        while state.readable == 0 && !state.closed {
            match state.receive(&self.socket) {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => return error.kind() == io::ErrorKind::WouldBlock,
            }
        }
        false
    }
}

impl State {
    fn looks_like_http(&self) -> bool {
        let seen = &self.first[..self.came.min(self.first.len())];
        let method = seen.iter().position(|&byte| byte == b' ').unwrap_or(seen.len());
        method >= 3 && seen[..method].iter().all(u8::is_ascii_uppercase)
    }

    /// Reads from the socket once; `false` at its end.
    fn receive(&mut self, socket: &TcpStream) -> io::Result<bool> {
        if let Some(why) = &self.failed {
            return Err(io::Error::new(io::ErrorKind::InvalidData, why.clone()));
        }
        let is_client = matches!(self.tls, Connection::Server(_));
        let mut tap = Tap {
            socket: Socket(socket),
            first: &mut self.first,
            came: &mut self.came,
            watch: is_client.then_some(&mut self.watch),
        };
        match self.tls.read_tls(&mut tap) {
            Ok(0) => return Ok(false),
            Ok(_) => {}
            // A longer handshake message than the engine holds.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(self.refuse(&Refused(AlertDescription::DecodeError).into(), socket));
            }
            Err(error) => return Err(error),
        }
        let processed = self.tls.process_new_packets(); // first: what is wrong may stand behind what is not
        let refused = self.watch.refused().map(|alert| Refused(alert).into());
        match refused.map_or(processed, Err) {
            Ok(now) => {
                self.readable = now.plaintext_bytes_to_read();
                self.closed |= now.peer_has_closed();
                Ok(true)
            }
            Err(error) => Err(self.refuse(&error, socket)),
        }
    }

    /// Notes that the connection cannot go on, and says so to the other end.
    #[cold]
    fn refuse(&mut self, error: &rustls::Error, socket: &TcpStream) -> io::Error {
        let why = in_words(error);
        self.failed = Some(why.clone());
        // The alert that says why is worth one try, but not to those who speak no TLS.
        if !(self.tls.is_handshaking() && self.looks_like_http()) {
            let _ = self.say_last(error, socket);
        }
        io::Error::new(io::ErrorKind::InvalidData, why)
    }

    /// Sends what waits, and an alert behind it unless rustls has one there. Nothing of it is sent twice.
    fn say_last(&mut self, error: &rustls::Error, socket: &TcpStream) -> io::Result<()> {
        let Connection::Server(tls) = &mut self.tls else { return self.send(socket) };
        let mut all = Vec::new();
        if !self.sent
            && let Some(alert) = alert::rather(error, tls.protocol_version())
        {
            all.extend(fatal(alert));
        } else {
            let alert = alert::of(error);
            if let Some(alert) = alert {
                // It does nothing where rustls has said something else.
                strict::instead_of_close_notify(alert, || tls.send_close_notify());
            }
            while tls.wants_write() {
                tls.write_tls(&mut all)?;
            }
            // In the clear it can still be changed: `close_notify`, and what rustls says where we know better.
            if let (Some(last), Some(alert)) = (all.last_chunk_mut::<7>(), alert)
                && let [21, 3, 3, 0, 2, level, said] = *last
                && ([level, said] == [1, 0] || matches!(error, rustls::Error::Other(_)))
            {
                *last = fatal(alert);
            }
        }
        Socket(socket).write_all(&all)?;
        if !self.tls.is_handshaking() {
            // What is unread when a socket is closed turns its end into a reset, which overtakes what was said. Behind
            // a failed handshake `session` waits for more; here what has come already must do.
            rustix::net::shutdown(socket, Shutdown::Write)?;
            let mut room = [0; 4096];
            let mut left = limits::LINGER_BYTES;
            while let Ok(n @ 1..) = crate::io::receive(socket, &mut room)
                && n < left
            {
                left -= n;
            }
        }
        Ok(())
    }

    fn send(&mut self, socket: &TcpStream) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Socket(socket))?;
            self.sent = true;
        }
        if self.closing {
            rustix::net::shutdown(socket, Shutdown::Write)?;
        }
        Ok(())
    }
}

/// A fatal alert in the clear, as rustls writes one.
fn fatal(alert: AlertDescription) -> [u8; 7] {
    [21, 3, 3, 0, 2, 2, alert.into()]
}

/// What went wrong, as an operator reads it.
fn in_words(error: &rustls::Error) -> String {
    use rustls::{CertificateError as C, Error as E, PeerIncompatible as P};
    match error {
        E::InvalidCertificate(C::Expired | C::ExpiredContext { .. }) => "the certificate has expired".into(),
        E::InvalidCertificate(C::NotValidYet | C::NotValidYetContext { .. }) => {
            "the certificate is not valid yet".into()
        }
        E::InvalidCertificate(C::UnknownIssuer) => "the certificate's issuer is not trusted".into(),
        E::InvalidCertificate(C::Revoked) => "the certificate is revoked".into(),
        E::InvalidCertificate(C::NotValidForName | C::NotValidForNameContext { .. }) => {
            "the certificate is for another name".into()
        }
        E::NoCertificatesPresented => "it presented no certificate".into(),
        E::AlertReceived(AlertDescription::UnknownCA) => {
            "the other end does not trust our certificate".into()
        }
        E::AlertReceived(alert) => format!("the other end refused: {alert:?}"),
        E::PeerIncompatible(P::NoCipherSuitesInCommon) => "no cipher suite in common".into(),
        E::PeerIncompatible(P::Tls12NotOffered | P::Tls13RequiredForQuic) => {
            "no protocol version in common".into()
        }
        E::InvalidMessage(_) => "what came is not TLS".into(),
        other => other.to_string(),
    }
}

/// The socket as the engine reads and writes it.
struct Socket<'a>(&'a TcpStream);

impl Read for Socket<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        crate::io::receive(self.0, room)
    }
}

impl Write for Socket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_io(Interest::WRITABLE, || Ok(rustix::net::send(self.0, bytes, SendFlags::NOSIGNAL)?))
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match pieces {
            [one] => self.write(one),
            _ => self.0.try_write_vectored(pieces),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Keeps the first bytes that pass, and has all of them watched.
struct Tap<'a> {
    socket: Socket<'a>,
    first: &'a mut [u8; 8],
    came: &'a mut usize,
    watch: Option<&'a mut Watch>,
}

impl Read for Tap<'_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let got = self.socket.read(room)?;
        if let Some(free) = self.first.get_mut(*self.came..) {
            let n = got.min(free.len());
            free[..n].copy_from_slice(&room[..n]);
        }
        *self.came = self.came.saturating_add(got);
        if let Some(watch) = &mut self.watch {
            watch.take(&room[..got]);
        }
        Ok(got)
    }
}

impl Drop for Stream {
    /// Whoever reads an answer that ends with the connection must see that it is whole.
    fn drop(&mut self) {
        let state = self.state.get_mut();
        if !state.closing && !state.tls.is_handshaking() && state.failed.is_none() {
            state.tls.send_close_notify();
            let _ = state.send(&self.socket);
        }
    }
}
