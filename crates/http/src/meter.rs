//! HTTP/2 frames on their way, counted: what a client may ask of us without our answering anything.
//!
//! An HTTP/2 implementation obeys every frame that the protocol allows, and it allows much that costs the sender
//! nothing: streams opened and cancelled (CVE-2023-44487), streams that make *us* cancel (CVE-2025-8671), PING and
//! SETTINGS to be answered, frames that do nothing. [`Meter`] looks at the frame headers that pass below the
//! implementation, in both directions, and says when a connection has had enough of that; the connection then
//! ends with `ENHANCE_YOUR_CALM` (RFC 9113 §10.5).
//!
//! Two leaky buckets, one of cancelled streams and one of control frames. They leak with time, and work done empties
//! them too: a finished response makes up for half a cancelled one, every frame of an answer for several window updates. So
//! nothing that a client does at leisure, or along with real requests, ever fills one, however long it lives.
//!
//! Pure: no clock, no memory beyond itself, no trust in what it reads. Called by the `proxy` crate with whatever
//! bytes a connection read or wrote. Not here: whether frames are well formed, what they mean.

use core::fmt;

use relais_base::Time;

/// What a bucket holds before a connection ends, in the units of the costs below.
pub const BURST: u32 = 1600;
/// Units that leak from the bucket of cancelled streams in a second: 50 cancelled requests.
pub const STREAMS_LEAK: u32 = 400;
/// Units that leak from the bucket of control frames in a second: 50 PINGs.
pub const CONTROL_LEAK: u32 = 200;
/// Longest header block, bytes as sent, of HEADERS and its CONTINUATIONs.
pub const BLOCK_BYTES: u32 = 48 * 1024;

/// A stream that the client cancels: 200 at once.
const CANCEL: u32 = 8;
/// A stream that the client makes us reset: 100 at once.
const FAULT: u32 = 16;
/// A stream beyond the limit of concurrent ones: 800 at once, as a client may not know our limit yet.
const REFUSED: u32 = 2;
/// A header list so long that it was answered with 431 before anybody saw it: 4 at once.
const OVERSIZE: u32 = 410;
/// What an answered request takes away of them.
const ANSWERED: u32 = 4;

/// SETTINGS, GOAWAY: 200 at once; with many parameters, fewer.
const SETTINGS: u32 = 8;
/// Bytes of SETTINGS for which they cost one unit more.
const SETTINGS_BYTES: u32 = 48;
/// PING, PRIORITY, DATA without data, frames of unknown type: 400 at once.
const IDLE_WORK: u32 = 4;
/// WINDOW_UPDATE, acknowledgements: 800 at once.
const WINDOW_UPDATE: u32 = 2;
/// What a frame of an answer takes away of them.
const ANSWERING: u32 = 8;

/// The frame types of RFC 9113 §6 that are told apart.
mod kind {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const PRIORITY: u8 = 2;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PING: u8 = 6;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const WINDOW_UPDATE: u8 = 8;
    pub(super) const CONTINUATION: u8 = 9;
}

/// Flags; ACK is END_STREAM's bit.
mod flag {
    pub(super) const END_STREAM: u8 = 0x1;
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
}

/// The error codes of RFC 9113 §7 with which a stream is reset through no fault of the client.
mod code {
    pub(super) const NO_ERROR: u32 = 0;
    pub(super) const INTERNAL_ERROR: u32 = 2;
    pub(super) const REFUSED_STREAM: u32 = 7;
    pub(super) const CANCEL: u32 = 8;
}

/// What a connection has had enough of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abuse {
    /// Streams that came to nothing.
    Streams,
    /// Frames that ask for work without asking for anything.
    Control,
    /// A header block without end.
    Block,
    /// No abuse, but an error that nobody else looks for: it did not begin with SETTINGS (RFC 9113 §3.4).
    Beginning,
}

impl fmt::Display for Abuse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Abuse::Streams => "too many cancelled or malformed requests",
            Abuse::Control => "too many frames that carry nothing",
            Abuse::Block => "a header block that does not end",
            Abuse::Beginning => "its first frame is not SETTINGS",
        })
    }
}

/// A frame, as far as it is looked at.
#[derive(Clone, Copy)]
struct Frame {
    length: u32,
    kind: u8,
    flags: u8,
    stream: u32,
    /// The first bytes of the payload; zero where it has fewer.
    lead: [u8; 4],
}

const HEADER: usize = 9;
const LEAD: usize = 4;

/// Finds the frames in one direction of a connection.
#[derive(Clone, Debug, Default)]
struct Walker {
    head: [u8; HEADER + LEAD],
    /// Bytes of `head` that are there.
    have: usize,
    /// Bytes that go by unseen: the rest of a payload, or the preface.
    skip: u32,
}

impl Walker {
    fn walk(
        &mut self,
        mut bytes: &[u8],
        mut each: impl FnMut(Frame) -> Result<(), Abuse>,
    ) -> Result<(), Abuse> {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let n = bytes.len().min(self.skip as usize);
                self.skip -= n as u32;
                bytes = &bytes[n..];
                continue;
            }
            let want = if self.have < HEADER { HEADER } else { HEADER + LEAD.min(self.length() as usize) };
            let n = bytes.len().min(want - self.have);
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            self.have += n;
            bytes = &bytes[n..];
            if self.have >= HEADER && self.have == HEADER + LEAD.min(self.length() as usize) {
                let frame = self.frame();
                self.skip = frame.length - (self.have - HEADER) as u32;
                *self = Walker { skip: self.skip, ..Walker::default() };
                each(frame)?;
            }
        }
        Ok(())
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]])
    }

    fn frame(&self) -> Frame {
        let h = &self.head;
        Frame {
            length: self.length(),
            kind: h[3],
            flags: h[4],
            stream: u32::from_be_bytes([h[5] & 0x7f, h[6], h[7], h[8]]),
            lead: [h[9], h[10], h[11], h[12]],
        }
    }
}

/// A bucket; in thousandths of a unit, so that it leaks by the millisecond.
#[derive(Clone, Copy, Debug, Default)]
struct Bucket(u32);

impl Bucket {
    fn add(&mut self, units: u32) -> bool {
        self.0 = self.0.saturating_add(units.saturating_mul(1000));
        self.0 >= BURST * 1000
    }

    fn take(&mut self, units: u32) {
        self.0 = self.0.saturating_sub(units * 1000);
    }

    fn leak(&mut self, ms: u64, per_second: u32) {
        let gone = ms.saturating_mul(u64::from(per_second));
        self.0 = self.0.saturating_sub(u32::try_from(gone).unwrap_or(u32::MAX));
    }
}

/// Length of the client's connection preface (RFC 9113 §3.4).
const PREFACE: u32 = 24;

/// The meter of one connection with a client.
#[derive(Clone, Debug)]
pub struct Meter {
    from_client: Walker,
    to_client: Walker,
    streams: Bucket,
    control: Bucket,
    leaked: Time,
    /// Bytes of the header block that has not ended.
    block: u32,
    /// The stream that our last complete answer, a HEADERS frame alone, was on; 0: none.
    answered: u32,
    /// A frame has come.
    begun: bool,
}

impl Meter {
    /// The meter of a connection that begins with the client's preface.
    pub fn new(now: Time) -> Meter {
        Meter {
            from_client: Walker { skip: PREFACE, ..Walker::default() },
            to_client: Walker::default(),
            streams: Bucket::default(),
            control: Bucket::default(),
            leaked: now,
            block: 0,
            answered: 0,
            begun: false,
        }
    }

    /// Looks at the next bytes that the client sent.
    ///
    /// # Errors
    /// Once it has had enough.
    pub fn received(&mut self, bytes: &[u8], now: Time) -> Result<(), Abuse> {
        let ms = now.since(self.leaked).as_millis() as u64;
        if ms > 0 {
            self.leaked = now;
            self.streams.leak(ms, STREAMS_LEAK);
            self.control.leak(ms, CONTROL_LEAK);
        }
        let mut walker = core::mem::take(&mut self.from_client);
        let result = walker.walk(bytes, |frame| self.came(frame));
        self.from_client = walker;
        result
    }

    /// Looks at the next bytes that went to the client.
    ///
    /// # Errors
    /// Once it has had enough of resetting streams.
    pub fn sent(&mut self, bytes: &[u8]) -> Result<(), Abuse> {
        let mut walker = core::mem::take(&mut self.to_client);
        let result = walker.walk(bytes, |frame| self.went(frame));
        self.to_client = walker;
        result
    }

    fn came(&mut self, frame: Frame) -> Result<(), Abuse> {
        if !self.begun {
            self.begun = true;
            full(frame.kind != kind::SETTINGS || frame.flags & flag::ACK != 0, Abuse::Beginning)?;
        }
        let ends = frame.flags & flag::END_HEADERS != 0;
        let cost = match frame.kind {
            kind::DATA if frame.flags & flag::END_STREAM != 0 => 0,
            kind::DATA if frame.length == 0 => IDLE_WORK,
            kind::DATA if frame.flags & flag::PADDED != 0 && frame.length == u32::from(frame.lead[0]) + 1 => {
                IDLE_WORK
            }
            kind::DATA => 0,
            kind::HEADERS | kind::CONTINUATION => {
                let before = if frame.kind == kind::HEADERS { 0 } else { self.block };
                self.block = if ends { 0 } else { before + frame.length };
                if before + frame.length > BLOCK_BYTES {
                    return Err(Abuse::Block);
                }
                if frame.length == 0 { SETTINGS } else { 0 }
            }
            kind::RST_STREAM => return full(self.streams.add(CANCEL), Abuse::Streams),
            kind::SETTINGS | kind::PING if frame.flags & flag::ACK != 0 => WINDOW_UPDATE,
            kind::SETTINGS | kind::GOAWAY => SETTINGS + frame.length / SETTINGS_BYTES,
            kind::WINDOW_UPDATE => WINDOW_UPDATE,
            kind::PRIORITY | kind::PING => IDLE_WORK,
            _ => IDLE_WORK,
        };
        full(cost > 0 && self.control.add(cost), Abuse::Control)
    }

    fn went(&mut self, frame: Frame) -> Result<(), Abuse> {
        match frame.kind {
            kind::DATA | kind::HEADERS => {
                self.control.take(ANSWERING);
                if frame.flags & flag::END_STREAM != 0 {
                    self.streams.take(ANSWERED);
                    self.answered = if frame.kind == kind::HEADERS { frame.stream } else { 0 };
                }
                Ok(())
            }
            kind::RST_STREAM => {
                let cost = match u32::from_be_bytes(frame.lead) {
                    code::NO_ERROR | code::INTERNAL_ERROR | code::CANCEL => return Ok(()),
                    code::REFUSED_STREAM => REFUSED,
                    _ if self.answered == frame.stream => OVERSIZE,
                    _ => FAULT,
                };
                full(self.streams.add(cost), Abuse::Streams)
            }
            _ => Ok(()),
        }
    }
}

fn full(is: bool, abuse: Abuse) -> Result<(), Abuse> {
    if is { Err(abuse) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let mut bytes = (payload.len() as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.extend(payload);
        bytes
    }

    fn begun() -> Meter {
        let mut meter = Meter::new(Time::ZERO);
        meter.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Time::ZERO).unwrap();
        meter.received(&frame(kind::SETTINGS, 0, 0, b""), Time::ZERO).unwrap();
        meter.control = Bucket::default();
        meter
    }

    /// How many repetitions it takes; `None` if a hundred thousand are nothing.
    fn endures(mut each: impl FnMut(&mut Meter, u32) -> Result<(), Abuse>) -> Option<(u32, Abuse)> {
        let mut meter = begun();
        (0..100_000).find_map(|i| each(&mut meter, i).err().map(|abuse| (i + 1, abuse)))
    }

    fn flood(bytes: &[u8]) -> Option<(u32, Abuse)> {
        endures(|meter, _| meter.received(bytes, Time::ZERO))
    }

    fn request(stream: u32) -> Vec<u8> {
        frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, stream, b"\x82\x84\x86\x41\x01h")
    }

    #[test]
    fn every_flood_ends_within_a_thousand_frames() {
        for (name, bytes, most) in [
            ("SETTINGS", frame(kind::SETTINGS, 0, 0, b""), 200),
            ("SETTINGS that set much", frame(kind::SETTINGS, 0, 0, &[0; 16_380]), 5),
            ("acknowledgements of nothing", frame(kind::SETTINGS, flag::ACK, 0, b""), 800),
            ("PING", frame(kind::PING, 0, 0, b"12345678"), 400),
            ("PRIORITY", frame(kind::PRIORITY, 0, 1, b"\0\0\0\0\x10"), 400),
            ("empty DATA", frame(kind::DATA, 0, 1, b""), 400),
            ("DATA of padding alone", frame(kind::DATA, flag::PADDED, 1, b"\x03\0\0\0"), 400),
            ("WINDOW_UPDATE", frame(kind::WINDOW_UPDATE, 0, 1, b"\0\0\0\x01"), 800),
            ("empty CONTINUATION", frame(kind::CONTINUATION, 0, 1, b""), 200),
            ("an unknown type", frame(0xbe, 0, 0, b"x"), 400),
        ] {
            assert_eq!(flood(&bytes), Some((most, Abuse::Control)), "{name}");
        }
    }

    #[test]
    fn streams_that_come_to_nothing_end_a_connection() {
        let cancel = |i| [request(2 * i + 1), frame(kind::RST_STREAM, 0, 2 * i + 1, b"\0\0\0\x08")].concat();
        assert_eq!(endures(|m, i| m.received(&cancel(i), Time::ZERO)), Some((200, Abuse::Streams)));
        let made = |m: &mut Meter, i, code: &[u8]| {
            m.received(&request(2 * i + 1), Time::ZERO)?;
            m.sent(&frame(kind::RST_STREAM, 0, 2 * i + 1, code))
        };
        assert_eq!(endures(|m, i| made(m, i, b"\0\0\0\x01")), Some((100, Abuse::Streams)));
        assert_eq!(endures(|m, i| made(m, i, b"\0\0\0\x07")), Some((800, Abuse::Streams)));
        for ours in [b"\0\0\0\0", b"\0\0\0\x02", b"\0\0\0\x08"] {
            assert_eq!(endures(|m, i| made(m, i, ours)), None, "a reset that is not the client's fault");
        }
    }

    #[test]
    fn a_list_too_long_may_be_tried_a_few_times() {
        let bomb = |m: &mut Meter, i| {
            m.received(&request(2 * i + 1), Time::ZERO)?;
            m.sent(&frame(kind::HEADERS, flag::END_HEADERS | flag::END_STREAM, 2 * i + 1, b"\x48\x03431"))?;
            m.sent(&frame(kind::RST_STREAM, 0, 2 * i + 1, b"\0\0\0\x01"))
        };
        assert_eq!(endures(bomb), Some((4, Abuse::Streams)));
    }

    #[test]
    fn a_header_block_has_an_end() {
        let piece = frame(kind::CONTINUATION, 0, 1, &[0; 1024]);
        let mut meter = begun();
        meter.received(&frame(kind::HEADERS, 0, 1, &[0; 1024]), Time::ZERO).unwrap();
        let many = (0..).find(|_| meter.received(&piece, Time::ZERO) == Err(Abuse::Block)).unwrap();
        assert_eq!(many, 47);
        let whole = frame(kind::HEADERS, flag::END_HEADERS, 1, &[0; 16_384]);
        assert_eq!(flood(&whole), None, "each ends, so they do not add up");
    }

    #[test]
    fn a_connection_at_work_is_never_ended() {
        // A download whose client opens its windows, both, after each frame, and measures with PINGs.
        let acks = [
            frame(kind::WINDOW_UPDATE, 0, 1, b"\0\0\x40\0"),
            frame(kind::WINDOW_UPDATE, 0, 0, b"\0\0\x40\0"),
            frame(kind::PING, 0, 0, b"12345678"),
        ]
        .concat();
        let data = frame(kind::DATA, 0, 1, &[0; 1024]);
        assert_eq!(
            endures(|m, _| {
                m.sent(&data)?;
                m.received(&acks, Time::ZERO)
            }),
            None
        );
        // Requests by the thousand, a third of them cancelled.
        let served = |m: &mut Meter, i| {
            m.received(&request(2 * i + 1), Time::ZERO)?;
            if i % 3 == 0 {
                return m.received(&frame(kind::RST_STREAM, 0, 2 * i + 1, b"\0\0\0\x08"), Time::ZERO);
            }
            m.sent(&frame(kind::HEADERS, flag::END_HEADERS, 2 * i + 1, b"\x88"))?;
            m.sent(&frame(kind::DATA, flag::END_STREAM, 2 * i + 1, b"ok"))
        };
        assert_eq!(endures(served), None);
        // An upload in small pieces.
        let piece = frame(kind::DATA, 0, 1, b"x");
        assert_eq!(endures(|m, _| m.received(&piece, Time::ZERO)), None);
    }

    #[test]
    fn what_is_spread_over_time_is_forgiven() {
        let cancel = |i| [request(2 * i + 1), frame(kind::RST_STREAM, 0, 2 * i + 1, b"\0\0\0\x08")].concat();
        let at = |i: u32, ms: u32| Time::from_millis(u64::from(i) * u64::from(ms));
        assert_eq!(endures(|m, i| m.received(&cancel(i), at(i, 20))), None, "50 a second for half an hour");
        let ping = frame(kind::PING, 0, 0, b"12345678");
        assert_eq!(endures(|m, i| m.received(&ping, at(i, 20))), None);
        assert!(endures(|m, i| m.received(&cancel(i), at(i, 10))).is_some(), "100 a second is too much");
    }

    #[test]
    fn settings_come_first() {
        for (bytes, good) in [
            (frame(kind::SETTINGS, 0, 0, b""), true),
            (frame(kind::SETTINGS, flag::ACK, 0, b""), false),
            (request(1), false),
        ] {
            let mut meter = Meter::new(Time::ZERO);
            meter.received(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Time::ZERO).unwrap();
            assert_eq!(meter.received(&bytes, Time::ZERO).is_ok(), good);
        }
    }

    #[test]
    fn bytes_may_come_in_any_pieces() {
        let mut stream = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
        stream.extend(frame(kind::SETTINGS, 0, 0, b""));
        for _ in 0..250 {
            stream.extend(frame(kind::WINDOW_UPDATE, 0, 0, b"\0\0\0\x01"));
            stream.extend(frame(kind::DATA, flag::PADDED, 1, b"\x00"));
            stream.extend(frame(kind::SETTINGS, 0, 0, b""));
        }
        let mut whole = Meter::new(Time::ZERO);
        assert_eq!(whole.received(&stream, Time::ZERO), Err(Abuse::Control));
        for size in [1, 2, 3, 5, 7, 8, 9, 10, 13, 64] {
            let mut meter = Meter::new(Time::ZERO);
            let mut pieces = stream.chunks(size);
            assert!(pieces.any(|piece| meter.received(piece, Time::ZERO).is_err()), "{size}");
            // 14 units a round of three frames, 32 bytes: the 114th round is the last.
            let read = stream.len() - pieces.map(<[u8]>::len).sum::<usize>();
            assert!((33 + 113 * 32..33 + 115 * 32 + size).contains(&read), "{size}: {read}");
        }
    }
}
