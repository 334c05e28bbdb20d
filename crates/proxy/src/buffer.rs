//! Receive buffers, and reading from a socket into them.

use std::io;

use crate::io::Io;

use crate::limits;

/// A buffer with the bytes `start..end` filled.
pub(crate) struct Buffer {
    data: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// An empty buffer.
    pub(crate) fn new() -> Buffer {
        Buffer { data: vec![0; limits::BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0 }
    }

    /// The bytes in it.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[self.start..self.end]
    }

    /// The bytes in it, to be changed in place.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.data[self.start..self.end]
    }

    /// How many bytes are in it.
    pub(crate) fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Takes `n` bytes off the front.
    pub(crate) fn consume(&mut self, n: usize) {
        debug_assert!(n <= self.len());
        self.start += n;
        if self.start == self.end {
            self.clear();
        }
    }

    /// Takes `n` bytes out at `at`.
    pub(crate) fn remove(&mut self, at: usize, n: usize) {
        if n > 0 {
            let at = self.start + at;
            self.data.copy_within(at + n..self.end, at);
            self.end -= n;
        }
    }

    /// Takes everything out.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// Appends as much of `bytes` as there is room for.
    pub(crate) fn append(&mut self, bytes: &[u8]) {
        self.make_room();
        let n = bytes.len().min(self.data.len() - self.end);
        self.data[self.end..self.end + n].copy_from_slice(&bytes[..n]);
        self.end += n;
    }

    /// Whether no more can be read into it.
    pub(crate) fn is_full(&self) -> bool {
        self.len() == self.data.len()
    }

    /// Moves a little that is in it to memory of its own size, and returns what it was in; [`Buffer::unfold`] has to
    /// follow. Many clients that send their heads slowly cost what they sent, not a buffer each.
    pub(crate) fn fold(&mut self) -> Option<Buffer> {
        if self.len() > limits::SLOW_HEAD_BYTES {
            return None;
        }
        let small = Buffer { data: self.bytes().into(), start: 0, end: self.len() };
        Some(std::mem::replace(self, small))
    }

    /// Goes on in `spacious`, an empty buffer.
    pub(crate) fn unfold(&mut self, mut spacious: Buffer) {
        spacious.append(self.bytes());
        *self = spacious;
    }

    fn make_room(&mut self) {
        if self.end == self.data.len() && self.start > 0 {
            self.data.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
    }

    /// Reads what is there; 0 is the end of the stream.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; else what the kernel says.
    pub(crate) fn fill(&mut self, io: &Io) -> io::Result<usize> {
        self.make_room();
        let got = io.try_read(&mut self.data[self.end..])?;
        self.end += got;
        Ok(got)
    }
}
