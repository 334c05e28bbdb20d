//! The limits of the data plane, in one table. Those of a message are in `relais_http::limits`.

use std::time::Duration;

use zstd::stream::raw::CParameter;

/// Size of a buffer: the longest head, and how much of a body is held in one direction.
pub(crate) const BUFFER_BYTES: usize = relais_http::limits::HEAD_BYTES;
/// A body of at most so many bytes is copied behind its head, so that both are one plain write.
pub(crate) const COALESCE_BYTES: usize = 4096;
/// Free buffers that a worker keeps; more go back to the allocator.
pub(crate) const FREE_BUFFERS: usize = 256;
/// Free pipes that a worker keeps for splicing.
pub(crate) const FREE_PIPES: usize = 64;
/// Bodies with at least so many bytes missing are spliced from socket to socket.
pub(crate) const SPLICE_FROM: u64 = 16 * 1024;
/// Most bytes of one splice: what a pipe holds.
pub(crate) const SPLICE_BYTES: usize = 64 * 1024;
/// Turns of one direction before other connections get theirs.
pub(crate) const TURNS: u32 = 16;
/// Idle connections that a worker keeps to one server.
pub(crate) const IDLE_PER_SERVER: usize = 256;
/// Longest that a connection to a server stays idle.
pub(crate) const IDLE_FOR: Duration = Duration::from_secs(20);
/// A request that must not be repeated takes only a connection that was idle for less than this, so that it
/// does not meet a server that is just closing it.
pub(crate) const FRESH_FOR: Duration = Duration::from_secs(1);
/// How often idle connections are looked through.
pub(crate) const SWEEP: Duration = Duration::from_secs(1);
/// Pause before the same server is tried again (HAProxy's too).
pub(crate) const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// Most interim responses (1xx) to one request.
pub(crate) const INTERIM: u32 = 16;
/// After an answer that ends a connection: how long, and for how many bytes, the client's rest is read, so that
/// the kernel does not take the answer away from it with a reset (RFC 9112 §9.6).
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// See [`LINGER`].
pub(crate) const LINGER_BYTES: usize = 256 * 1024;
/// How long accepting pauses when the process is out of descriptors.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Descriptors of a process beside those of connections: its channel, logs, status and runtime.
pub(crate) const DESCRIPTORS: u64 = 64;
/// Descriptors of a worker beside those of connections: its runtime, and a pipe or two. Without a pipe, bytes are
/// copied.
pub(crate) const DESCRIPTORS_PER_WORKER: u64 = 8;
/// A head that comes in pieces is kept in memory of its own size while it has at most so many bytes.
pub(crate) const SLOW_HEAD_BYTES: usize = 2048;
/// Turns of a direction that is compressed: each is a buffer's worth of the processor.
pub(crate) const SQUEEZE_TURNS: u32 = 2;
/// Longest `If-None-Match` whose weak tags are named as the server knows them, too.
pub(crate) const TAGS_BYTES: usize = 2048;
/// What brotli gathers before it hands it over.
pub(crate) const SQUEEZE_BYTES: usize = 4096;
/// Logarithm of brotli's window: 128 KiB, for the sake of memory.
pub(crate) const BROTLI_WINDOW: u32 = 17;
/// Highest quality of brotli: an encoder then takes 4 MiB; from 7 on it takes 10 to 35.
pub(crate) const BROTLI_QUALITY: u8 = 6;
/// Window and tables of zstd, as logarithms: an encoder takes 1 MiB at every level, and pages do not get larger.
pub(crate) const ZSTD: [CParameter; 3] =
    [CParameter::WindowLog(17), CParameter::HashLog(16), CParameter::ChainLog(16)];
/// Access lines gathered before they are handed over.
pub(crate) const LOG_BYTES: usize = 32 * 1024;
/// Longest that an access line is kept back.
pub(crate) const LOG_EVERY: Duration = Duration::from_millis(100);
/// Blocks of access lines that wait for a slow sink; more are dropped and counted.
pub(crate) const LOG_BLOCKS: usize = 64;
/// Between two messages about one log that loses lines.
pub(crate) const LOG_COMPLAINT: Duration = Duration::from_secs(10);
/// Longest wait for a syslog server to accept a connection or a line.
pub(crate) const LOG_PATIENCE: Duration = Duration::from_secs(3);
/// First and longest pause before a syslog server is tried again.
pub(crate) const LOG_RETRY_FIRST: Duration = Duration::from_millis(100);
/// See [`LOG_RETRY_FIRST`].
pub(crate) const LOG_RETRY_LAST: Duration = Duration::from_secs(5);
/// Longest that an ending process waits for its access lines to be written.
pub(crate) const LOG_END: Duration = Duration::from_secs(1);
/// Longest request line, header or id in an access line.
pub(crate) const LOG_LINE_BYTES: usize = 8192;
/// Messages about refused requests, a second and worker.
pub(crate) const COMPLAINTS_PER_SECOND: u32 = 100;
/// Longest plan text.
pub(crate) const PLAN_BYTES: u64 = 4 * 1024 * 1024;
/// Longest time for workers to take over a plan.
pub(crate) const PLAN_TAKES: Duration = Duration::from_secs(5);
/// Longest header list of an HTTP/2 message, as RFC 9113 §6.5.2 counts it: a head of [`BUFFER_BYTES`] with the 32
/// bytes that every field counts more there.
pub(crate) const H2_HEADER_LIST: u32 = BUFFER_BYTES as u32 + 32 * relais_http::limits::FIELDS as u32;
/// Bytes written to an HTTP/2 stream that wait for its connection.
pub(crate) const H2_SEND_BYTES: usize = 32 * 1024;
/// What a client may send ahead on all its HTTP/2 streams together; more where one stream may more.
pub(crate) const H2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// What a server may send ahead on one stream, and on all of a connection.
pub(crate) const H2_SERVER_WINDOW: u32 = 256 * 1024;
/// See [`H2_SERVER_WINDOW`].
pub(crate) const H2_SERVER_CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Streams that we reset and still know, so as to bear what a client sends before it hears of it.
pub(crate) const H2_REMEMBERED_RESETS: usize = 100;
/// Streams that a client may open and cancel before we look at them.
pub(crate) const H2_PENDING_RESETS: usize = 200;
/// Streams of an HTTP/2 connection that are begun before other clients get their turn.
pub(crate) const H2_STREAMS_IN_A_ROW: u32 = 16;
/// Bytes read from an HTTP/2 connection before what they ask for is answered.
pub(crate) const H2_RUN_BYTES: usize = 16 * 1024;
/// How long a client may take to close its HTTP/2 connection after GOAWAY, once no stream is open.
pub(crate) const H2_GOODBYE: Duration = Duration::from_secs(2);
/// HTTP/2 connections of a worker to one server; with more requests than these hold, requests wait on them.
pub(crate) const H2_LINKS: usize = 64;
/// How often a server with open HTTP/2 streams is asked whether it lives; it has as long to answer.
pub(crate) const H2_PING_EVERY: Duration = Duration::from_secs(10);
/// Stands in the place of a server's id for connections that want to hear of a drain, or of their frontend's end.
pub(crate) const WAITS_FOR_DRAIN: u32 = u32::MAX;
/// Longest body that a rule answers with.
pub(crate) const RESPOND_BYTES: u64 = 1024 * 1024;
/// Most bytes of fields that rules add to one head.
pub(crate) const RULE_FIELD_BYTES: usize = 8 * 1024;
/// Of a UDP session: datagrams that wait for a word of the server, to go to another if need be, and their bytes.
/// More are sent and not held.
pub(crate) const UDP_HELD: usize = 16;
/// See [`UDP_HELD`]: the longest RADIUS packet (RFC 2865 §3), some questions to a name server.
pub(crate) const UDP_HELD_BYTES: usize = 4096;
/// How often the files that rules read are looked at.
pub(crate) const FILES_EVERY: Duration = Duration::from_secs(1);
/// Most requests and connections that are held before they are denied.
pub(crate) const TARPITS: u32 = 10_000;
/// Descriptors that the kernel has room for from the beginning, 8 bytes each.
pub(crate) const DESCRIPTOR_TABLE: u64 = 65_536;
/// How often the load before waiting rooms is measured.
pub(crate) const LOAD_EVERY: Duration = Duration::from_millis(100);
/// How often stick tables are looked at for what is over.
pub(crate) const TABLES_EVERY: Duration = Duration::from_secs(1);
/// What is over in a part of a table and forgotten with its lock held once.
pub(crate) const EXPIRED_AT_A_TIME: usize = 1024;
/// How often what has changed in tables is written down, and peers are told.
pub(crate) const CHANGES_EVERY: Duration = Duration::from_millis(50);
/// Changes of a part of a table that are told of with its lock held once.
pub(crate) const CHANGES_AT_A_TIME: usize = 1024;
/// Changes that wait for a peer; where there are more, it gets the whole table anew.
pub(crate) const PEER_QUEUE: usize = 100_000;
/// Bytes of counts that wait for a peer; those that there is no room for it does not hear.
pub(crate) const PEER_NEWS: usize = 16 << 20;
/// Bytes that are put together for a peer at a time.
pub(crate) const PEER_CHUNK: usize = 64 * 1024;
/// Silence of a peer, or of its reading, after which it is gone: HAProxy's heartbeats come every 3 s.
pub(crate) const PEER_SILENCE: Duration = Duration::from_secs(10);
/// How often a peer hears from us at least.
pub(crate) const PEER_HEARTBEAT: Duration = Duration::from_secs(3);
/// Pause before a peer is tried again, the first time.
pub(crate) const PEER_RETRY: Duration = Duration::from_millis(100);
/// Longest such pause.
pub(crate) const PEER_RETRY_MOST: Duration = Duration::from_secs(5);
/// Peers that have not said who they are yet, at a time.
pub(crate) const PEERS_GREETING: u32 = 16;
/// Updates that a peer may send in a window of [`PEER_SILENCE`]; tables hold 16 million keys at most.
pub(crate) const PEER_UPDATES: u64 = 40_000_000;
/// How often it is said which certificates expire soon.
pub(crate) const REMARKS_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
