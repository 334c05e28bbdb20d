#![no_std]
#![forbid(unsafe_code)]
//! HTTP/1 framing (RFC 9112) and the part of its semantics that a gateway must know (RFC 9110).
//!
//! Pure functions over receive buffers: a head is parsed into offsets and flags, never copied; what must
//! not be forwarded becomes a gap between [`head::Kept`] ranges; a chunked body is checked where it lies.
//! `httparse` reads the tokens, and everything that decides *where a message ends and whom it is for* is
//! decided here, strictly: what two parsers could read differently is a [`Reject`], with the byte.
//!
//! [`meter`] stands apart: it counts HTTP/2 frames, whose meaning is a library's work.
//!
//! Not here: sockets, time-outs, retries, who answers. Called by the `proxy` crate.

extern crate alloc;
#[cfg(test)]
extern crate std;

pub mod accept;
pub mod chunked;
pub mod field;
pub mod head;
pub mod limits;
pub mod meter;
pub mod proxy_protocol;
pub mod reject;
pub mod request;
pub mod response;

pub use chunked::{Chunked, Framing};
pub use head::{Body, Kept, Span};
pub use reject::{Reject, Why};
pub use request::{Method, Request};
pub use response::Response;
