//! HTTP/2 (RFC 9113), to clients and to servers, with the `h2` crate for frames, states and HPACK.
//!
//! A connection is one task, and each of its streams a virtual HTTP/1.1 connection that carries one exchange
//! ([`stream::StreamIo`]): a client's stream is served by the very code that serves an HTTP/1 client, and a server's
//! is written to and read from like any other server's connection. So whatever a request goes through, it goes
//! through once and in one way, and the strict parser of `relais_http` has the last word on every head, in both
//! directions ([`text`]).
//!
//! Below the library sits the meter ([`wire`]), because the library counts neither PING nor SETTINGS nor what
//! clients cancel. Not here: rules, retries, time-outs of an exchange, logs.

mod decode;
pub(crate) mod server;
pub(crate) mod stream;
mod text;
pub(crate) mod upstream;
mod wire;

/// What a client that speaks HTTP/2 says first (RFC 9113 §3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Whether `bytes`, the first of a connection, are the preface (`Some(true)`), may become it (`None`), or are
/// something else.
pub(crate) fn is_preface(bytes: &[u8]) -> Option<bool> {
    if bytes.len() < PREFACE.len() {
        return if PREFACE.starts_with(bytes) { None } else { Some(false) };
    }
    Some(bytes.starts_with(PREFACE))
}
