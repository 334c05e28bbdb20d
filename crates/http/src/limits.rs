//! The limits of a message, in one table.

/// Longest head, bytes, empty lines before it included (HAProxy's `tune.bufsize`).
pub const HEAD_BYTES: usize = 16 * 1024;
/// Most fields of a head, more is answered with 431; and of a trailer section.
pub const FIELDS: usize = 128;
/// Most empty lines before a request line (RFC 9112 §2.2 asks for at least one).
pub const LEADING_EMPTY_LINES: usize = 4;
/// Most ranges that a forwarded head may be cut into.
pub const CUTS: usize = 24;
/// Most fields that `Connection` may name beside the well-known options.
pub const CONNECTION_NAMES: usize = 32;
/// Longest chunk-size line, bytes, extensions and CRLF included (RFC 9112 §7.1.1 asks for a limit).
pub const CHUNK_LINE_BYTES: usize = 512;
/// Most digits of a `Content-Length`, leading zeros included: as many as the largest has.
pub const LENGTH_DIGITS: usize = 19;
/// Most hexadecimal digits of a chunk size, leading zeros not counted.
pub const CHUNK_SIZE_DIGITS: usize = 16;
/// Longest trailer field line, bytes.
pub const TRAILER_LINE_BYTES: usize = 4096;
/// Longest trailer section, bytes.
pub const TRAILER_BYTES: usize = 8192;
/// Longest body that a length or a chunk may announce.
pub const BODY_BYTES: u64 = (1 << 63) - 1;
