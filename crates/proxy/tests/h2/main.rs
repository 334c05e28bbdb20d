//! HTTP/2, to clients and to servers: frame by frame, and through a real peer.

#![allow(unreachable_pub, clippy::unwrap_used)]

#[path = "../common/mod.rs"]
mod common;

mod abuse;
mod exchange;
mod secure;
mod servers;
mod spec;
mod wire;
