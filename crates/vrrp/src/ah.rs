//! The authentication header of version 2 (RFC 2402, HMAC-MD5-96 of RFC 2403), as keepalived's `auth_type AH` has it: all members
//! of a virtual router share one key and one sequence of numbers, and the SPI is the sender's address. Two who speak in the same
//! moment say the same number, so what was heard before is known of each sender by itself.
//!
//! It was in the drafts of VRRP and is in no RFC of it any more; MD5 is of another time. It is here for installations that
//! have it. Called by the driver, around [`encode`](crate::encode) and after [`parse`](crate::parse).

use alloc::vec::Vec;

use hmac::{Hmac, KeyInit, Mac};
use md5::Md5;

use crate::packet::{HEADER_LEN, PROTOCOL, Password, Refused};

/// IP protocol number of the authentication header.
pub const AH_PROTOCOL: u8 = 51;
/// Its length with 96 bits of digest.
pub const AH_LEN: usize = 12 + DIGEST_LEN;
const DIGEST_LEN: usize = 12;
/// Senders that are told apart; a virtual router has a handful.
const MOST_SENDERS: usize = 64;
/// The length in its own terms: 32-bit words less two (RFC 2402 §2.2).
const PAYLOAD_LEN: u8 = (AH_LEN / 4 - 2) as u8;

/// One virtual router's key and its place in the sequence (RFC 2402 §4.1).
#[derive(Debug)]
pub struct Association {
    key: Password,
    /// The highest number that was sent or heard.
    last: u32,
    /// The highest of each sender, this one included.
    heard: Vec<([u8; 4], u32)>,
    /// Below the first that may be sent.
    floor: u32,
    /// To peers the TTL may change on the way, so it is not sealed.
    is_unicast: bool,
}

impl Association {
    /// `floor` is to be higher than any number that a predecessor of this process may have used: others refuse what is
    /// not above all that they have heard. The first that is heard here may be any.
    pub fn new(key: Password, is_unicast: bool, floor: u32) -> Association {
        Association { key, last: 0, heard: Vec::new(), floor, is_unicast }
    }

    /// The datagram of [`encode`](crate::encode) under the next number.
    pub fn seal(&mut self, datagram: &[u8]) -> Vec<u8> {
        let Some((header, message)) = datagram.split_first_chunk::<HEADER_LEN>() else { return Vec::new() };
        self.last = self.last.max(self.floor).saturating_add(1);
        self.note([header[12], header[13], header[14], header[15]], self.last);
        let mut sealed = Vec::with_capacity(datagram.len() + AH_LEN);
        sealed.extend_from_slice(header);
        sealed[2..4].copy_from_slice(&((datagram.len() + AH_LEN) as u16).to_be_bytes());
        // It is sealed, and the kernel would fill in a zero.
        sealed[4..6].copy_from_slice(&((self.last as u16).max(1)).to_be_bytes());
        sealed[9] = AH_PROTOCOL;
        sealed.extend_from_slice(&[PROTOCOL, PAYLOAD_LEN, 0, 0]);
        sealed.extend_from_slice(&header[12..16]);
        sealed.extend_from_slice(&self.last.to_be_bytes());
        sealed.extend_from_slice(&[0; DIGEST_LEN]);
        sealed.extend_from_slice(message);
        let digest = self.digest(&sealed, HEADER_LEN).finalize().into_bytes();
        sealed[HEADER_LEN + AH_LEN - DIGEST_LEN..][..DIGEST_LEN].copy_from_slice(&digest[..DIGEST_LEN]);
        sealed
    }

    /// Whether a datagram that [`parse`](crate::parse) finds well-formed comes from somebody with the key, for the first time.
    ///
    /// # Errors
    /// [`Refused::Seal`], [`Refused::Replay`].
    pub fn verify(&mut self, datagram: &[u8]) -> Result<(), Refused> {
        let header_len = datagram.first().map_or(0, |byte| usize::from(byte & 0x0f) * 4);
        let total =
            datagram.get(2..4).map_or(0, |bytes| usize::from(u16::from_be_bytes([bytes[0], bytes[1]])));
        let datagram = datagram.get(..total).ok_or(Refused::Truncated)?;
        let header = datagram.get(header_len..header_len + AH_LEN).ok_or(Refused::Truncated)?;
        let digest = &header[AH_LEN - DIGEST_LEN..];
        if self.digest(datagram, header_len).verify_truncated_left(digest).is_err() {
            return Err(Refused::Seal);
        }
        let sender = [datagram[12], datagram[13], datagram[14], datagram[15]];
        if header[4..8] != sender {
            return Err(Refused::Seal);
        }
        let sequence = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let known = self.heard.iter().find(|(known, _)| *known == sender);
        let last = match known {
            Some((_, last)) => *last,
            None if self.heard.len() < MOST_SENDERS => 0,
            None => self.last,
        };
        if sequence <= last {
            return Err(Refused::Replay { sequence, last });
        }
        self.note(sender, sequence);
        self.last = self.last.max(sequence);
        Ok(())
    }

    fn note(&mut self, sender: [u8; 4], sequence: u32) {
        let is_room = self.heard.len() < MOST_SENDERS;
        match self.heard.iter_mut().find(|(known, _)| *known == sender) {
            Some((_, last)) => *last = sequence,
            None if is_room => self.heard.push((sender, sequence)),
            None => {}
        }
    }

    /// Over everything but what changes on the way (RFC 2402 §3.3.3.1.1), and the digest's own place.
    fn digest(&self, datagram: &[u8], header_len: usize) -> Hmac<Md5> {
        let mut head = [0; 60 + AH_LEN];
        let length = header_len + AH_LEN;
        head[..length].copy_from_slice(&datagram[..length]);
        head[1] = 0; // class
        head[6..8].fill(0); // fragmentation
        head[10..12].fill(0); // checksum
        if self.is_unicast {
            head[8] = 0;
        }
        head[length - DIGEST_LEN..length].fill(0);
        let mut key = [0; 64]; // HMAC pads it so
        key[..8].copy_from_slice(&self.key.padded());
        let mut digest = Hmac::<Md5>::new(&key.into());
        digest.update(&head[..length]);
        digest.update(&datagram[length..]);
        digest
    }
}

#[cfg(test)]
mod tests;
