//! Compressing a response's body on its way: plain bytes in, chunks of a content coding out.
//!
//! The codecs are libraries'; this puts them behind one face and their output into chunks (RFC 9112 §7.1). What
//! is compressed, and whether, is `compress`'s; when to flush is `half`'s, which owns one of these.

use std::io::{self, Write};

use relais_config::plan::Coding;

use crate::compress;
use crate::counters::Pass;
use crate::limits;

/// A body being compressed.
pub(crate) struct Squeeze {
    encoder: Encoder,
    /// Chunks to be written, from `at` on.
    out: Vec<u8>,
    at: usize,
    /// The encoder holds back what it was given.
    dirty: bool,
    finished: bool,
    /// Field lines that go behind the last chunk.
    trailers: Vec<u8>,
    /// Bytes given to it.
    pub(crate) taken: u64,
    /// Its place among the compressors of the process.
    _place: Pass,
}

enum Encoder {
    Gzip(flate2::write::GzEncoder<Vec<u8>>),
    /// `None` once it is finished: it ends by being consumed.
    Brotli(Option<Box<brotli::CompressorWriter<Vec<u8>>>>),
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
}

impl Encoder {
    fn new(coding: Coding, level: u8) -> io::Result<Encoder> {
        Ok(match coding {
            Coding::Gzip => {
                let level = flate2::Compression::new(u32::from(level));
                Encoder::Gzip(flate2::write::GzEncoder::new(Vec::new(), level))
            }
            Coding::Brotli => {
                let (size, window) = (limits::SQUEEZE_BYTES, limits::BROTLI_WINDOW);
                let level = u32::from(level.min(limits::BROTLI_QUALITY));
                let writer = brotli::CompressorWriter::new(Vec::new(), size, level, window);
                Encoder::Brotli(Some(Box::new(writer)))
            }
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), i32::from(level))?;
                for parameter in limits::ZSTD {
                    encoder.set_parameter(parameter)?;
                }
                Encoder::Zstd(encoder)
            }
        })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.write_all(bytes),
            Encoder::Brotli(encoder) => encoder.as_mut().map_or(Ok(()), |e| e.write_all(bytes)),
            Encoder::Zstd(encoder) => encoder.write_all(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.flush(),
            Encoder::Brotli(encoder) => encoder.as_mut().map_or(Ok(()), |e| e.flush()),
            Encoder::Zstd(encoder) => encoder.flush(),
        }
    }

    /// Ends the coding; what is left of it is appended to `out`.
    fn finish(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        match self {
            Encoder::Gzip(encoder) => encoder.try_finish()?,
            Encoder::Brotli(encoder) => {
                if let Some(encoder) = encoder.take() {
                    out.append(&mut encoder.into_inner());
                }
            }
            Encoder::Zstd(encoder) => encoder.do_finish()?,
        }
        self.collect(out);
        Ok(())
    }

    /// Moves what has come out to `out`.
    fn collect(&mut self, out: &mut Vec<u8>) {
        match self {
            Encoder::Gzip(encoder) => out.append(encoder.get_mut()),
            Encoder::Brotli(encoder) => {
                if let Some(encoder) = encoder {
                    out.append(encoder.get_mut());
                }
            }
            Encoder::Zstd(encoder) => out.append(encoder.get_mut()),
        }
    }
}

impl Squeeze {
    /// A body that is about to begin.
    ///
    /// # Errors
    /// If the library cannot have its memory.
    pub(crate) fn new(coding: Coding, level: u8, place: Pass) -> io::Result<Squeeze> {
        let encoder = Encoder::new(coding, level)?;
        let (out, at) = (Vec::new(), 0);
        Ok(Squeeze {
            encoder,
            out,
            at,
            dirty: false,
            finished: false,
            trailers: Vec::new(),
            taken: 0,
            _place: place,
        })
    }

    /// What is to be written next.
    pub(crate) fn ready(&self) -> &[u8] {
        &self.out[self.at..]
    }

    /// Notes that `n` of the ready bytes were written.
    pub(crate) fn wrote(&mut self, n: usize) {
        self.at += n;
        if self.at == self.out.len() {
            self.out.clear();
            self.at = 0;
        }
    }

    /// Whether the encoder holds back what it was given.
    pub(crate) fn is_dirty(&self) -> bool {
        self.dirty
    }

    /// Whether the end of the body is among what was, or is to be, written.
    pub(crate) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Takes the next bytes of the body.
    ///
    /// # Errors
    /// If the library fails.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> io::Result<()> {
        debug_assert!(!self.finished);
        if bytes.is_empty() {
            return Ok(());
        }
        self.taken += bytes.len() as u64;
        self.dirty = true;
        self.chunk(|encoder, _| encoder.write(bytes))
    }

    /// Takes field lines that stood behind the body; those that speak of its plain bytes do not hold any more.
    pub(crate) fn add_trailers(&mut self, lines: &[u8]) {
        debug_assert!(!self.finished);
        for line in lines.split_inclusive(|byte| *byte == b'\n') {
            if !compress::speaks_of_bytes(line) {
                self.trailers.extend_from_slice(line);
            }
        }
    }

    /// Has everything that was fed come out.
    ///
    /// # Errors
    /// If the library fails.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        self.dirty = false;
        self.chunk(|encoder, _| encoder.flush())
    }

    /// Ends the body.
    ///
    /// # Errors
    /// If the library fails.
    pub(crate) fn finish(&mut self) -> io::Result<()> {
        self.dirty = false;
        self.finished = true;
        self.chunk(Encoder::finish)?;
        self.out.extend_from_slice(b"0\r\n");
        self.out.append(&mut self.trailers);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }

    /// Puts what comes out of the encoder into one chunk: room for its size is left in front of it.
    fn chunk(&mut self, step: impl FnOnce(&mut Encoder, &mut Vec<u8>) -> io::Result<()>) -> io::Result<()> {
        const ROOM: &[u8] = b"00000000\r\n";
        let start = self.out.len();
        self.out.extend_from_slice(ROOM);
        step(&mut self.encoder, &mut self.out)?;
        self.encoder.collect(&mut self.out);
        let size = self.out.len() - start - ROOM.len();
        if size == 0 {
            self.out.truncate(start); // nothing came out, and an empty chunk would be the last one
            return Ok(());
        }
        let digits = format!("{size:x}");
        let head = ROOM.len() - 2 - digits.len();
        self.out[start + head..start + head + digits.len()].copy_from_slice(digits.as_bytes());
        self.out.drain(start..start + head);
        self.out.extend_from_slice(b"\r\n");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::sync::Arc;

    use proptest::prelude::*;
    use relais_http::{Chunked, Framing};

    use super::*;
    use crate::counters::Gate;

    const ALL: [Coding; 3] = [Coding::Zstd, Coding::Brotli, Coding::Gzip];

    fn squeeze(coding: Coding, level: u8) -> Squeeze {
        let place = Pass::at_once(&Arc::new(Gate::new(1)), 1).unwrap();
        Squeeze::new(coding, level, place).unwrap()
    }

    /// The data of these chunks, and whether the last one was seen.
    fn unchunk(mut chunks: Vec<u8>) -> (Vec<u8>, bool) {
        let mut chunked = Chunked::new(Framing::Strip);
        let progress = chunked.forward(&mut chunks).unwrap();
        chunks.truncate(progress.kept);
        (chunks, chunked.is_end())
    }

    /// As much as a decoder makes of the beginning of a coded body.
    fn decode(coding: Coding, coded: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut read = |mut reader: Box<dyn Read + '_>| {
            let mut piece = [0; 100];
            while let Ok(n @ 1..) = reader.read(&mut piece) {
                plain.extend_from_slice(&piece[..n]);
            }
        };
        match coding {
            Coding::Gzip => read(Box::new(flate2::read::GzDecoder::new(coded))),
            Coding::Brotli => read(Box::new(brotli::Decompressor::new(coded, 100))),
            Coding::Zstd => read(Box::new(zstd::Decoder::new(coded).unwrap())),
        }
        plain
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn whatever_way_a_body_is_cut_and_flushed_it_decodes_to_itself(
            pieces in prop::collection::vec((prop::collection::vec(0u8..4, 0..3000), any::<bool>()), 0..12),
            level in 1u8..=9,
        ) {
            for coding in ALL {
                let mut squeeze = squeeze(coding, level);
                let (mut wire, mut plain) = (Vec::new(), Vec::new());
                for (piece, flush) in &pieces {
                    squeeze.feed(piece).unwrap();
                    plain.extend_from_slice(piece);
                    if *flush {
                        squeeze.flush().unwrap();
                    }
                    // The client takes a little at a time.
                    while !squeeze.ready().is_empty() {
                        let n = squeeze.ready().len().min(700);
                        wire.extend_from_slice(&squeeze.ready()[..n]);
                        squeeze.wrote(n);
                    }
                    let (coded, end) = unchunk(wire.clone());
                    prop_assert!(!end);
                    if *flush {
                        prop_assert_eq!(&decode(coding, &coded), &plain, "flushed {:?}", coding);
                    }
                }
                squeeze.finish().unwrap();
                wire.extend_from_slice(squeeze.ready());
                let (coded, end) = unchunk(wire);
                prop_assert!(end && squeeze.is_finished());
                prop_assert_eq!(decode(coding, &coded), plain);
            }
        }
    }

    #[test]
    fn a_higher_level_makes_it_smaller() {
        let text: String =
            (0..4000).map(|i| format!("<li class=\"item\">{}</li>\n", i * 7919 % 1000)).collect();
        for coding in ALL {
            let size = |level| {
                let mut squeeze = squeeze(coding, level);
                squeeze.feed(text.as_bytes()).unwrap();
                squeeze.finish().unwrap();
                squeeze.ready().len()
            };
            assert!(size(9) < size(1) && size(1) < text.len() / 3, "{coding:?}: {} {}", size(1), size(9));
        }
    }
}
