//! The heartbeat on the wire: one UDP datagram, big-endian.
//!
//! | bytes | |
//! | --- | --- |
//! | 4 | `RlHb` |
//! | 1 | version, 1 |
//! | 1 | flags: 1, the sender leaves |
//! | 1 | number of nodes heard, 0 to 64 |
//! | 1 | number of addresses held, 0 to 64 |
//! | 4 | platform, the hash of its name |
//! | 4 | sender, the hash of its name |
//! | 8 | incarnation: nanoseconds since 1970 when its process began |
//! | 8 | sequence, from 1; counted for each link, and there for close nodes and for the others |
//! | 6 each | a node, and milliseconds since it was heard here |
//! | 11 each | a virtual router, its holder, the holder's priority, and milliseconds since the holder said so |
//! | 16 | seal: the first half of an HMAC-SHA256 over all before it |
//!
//! Ages are rounded up and end at 65,535: nothing looks fresher than it is.

use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

/// Length of the seal, bytes.
pub const SEAL_LEN: usize = 16;
/// Most nodes, and most addresses, that a heartbeat names.
pub const MAX_ENTRIES: usize = 64;
/// Longest heartbeat, bytes.
pub const MAX_LEN: usize = HEAD_LEN + MAX_ENTRIES * (HEARD_LEN + HELD_LEN) + SEAL_LEN;

const MAGIC: [u8; 4] = *b"RlHb";
const VERSION: u8 = 1;
const LEAVES: u8 = 1;
const HEAD_LEN: usize = 32;
const HEARD_LEN: usize = 6;
const HELD_LEN: usize = 11;

/// A node that the sender hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// Which.
    pub node: u32,
    /// Milliseconds since.
    pub age_ms: u16,
}

/// An address that the sender holds, or whose holder it hears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// Which virtual router.
    pub vip: u32,
    /// Its holder.
    pub node: u32,
    /// The holder's priority; 0 while it hands the address over.
    pub priority: u8,
    /// Milliseconds since the holder said so.
    pub age_ms: u16,
}

/// What a node says on one link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// The platform.
    pub platform: u32,
    /// Who says it.
    pub sender: u32,
    /// When its process began: what an earlier one said is over.
    pub incarnation: u64,
    /// One more than that of the one before to the same address.
    pub sequence: u64,
    /// It is the last: the sender ends, and is not dead.
    pub leaves: bool,
    /// Whom it hears on this link.
    pub heard: Vec<Heard>,
    /// Who holds what on this link's network, as it heard from the holders themselves.
    pub held: Vec<Held>,
}

/// Why a datagram is no heartbeat of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It is none at all.
    Malformed,
    /// It has another version.
    Version(u8),
    /// Its seal is not made with our key.
    Seal,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed => f.write_str("it is no heartbeat"),
            Self::Version(version) => {
                write!(
                    f,
                    "it has version {version}, this node speaks {VERSION}; run the same Relais on all nodes"
                )
            }
            Self::Seal => f.write_str("its seal is wrong; give all nodes the same cluster-key"),
        }
    }
}

/// The age of something, as the wire has it.
pub(crate) fn age_ms(age: Duration) -> u16 {
    u16::try_from(age.as_nanos().div_ceil(1_000_000)).unwrap_or(u16::MAX)
}

/// Names to numbers: FNV-1a, 32 bits. Two nodes of one platform whose names have the same would not know each other
/// apart; `relais check` refuses them.
pub fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// The datagram without its seal, which goes behind it.
///
/// # Panics
/// If it names more than [`MAX_ENTRIES`].
pub fn encode(heartbeat: &Heartbeat) -> Vec<u8> {
    let Heartbeat { heard, held, .. } = heartbeat;
    assert!(heard.len() <= MAX_ENTRIES && held.len() <= MAX_ENTRIES, "a heartbeat has limits");
    let mut bytes = Vec::with_capacity(HEAD_LEN + heard.len() * HEARD_LEN + held.len() * HELD_LEN + SEAL_LEN);
    bytes.extend(MAGIC);
    bytes.extend([VERSION, if heartbeat.leaves { LEAVES } else { 0 }, heard.len() as u8, held.len() as u8]);
    bytes.extend(heartbeat.platform.to_be_bytes());
    bytes.extend(heartbeat.sender.to_be_bytes());
    bytes.extend(heartbeat.incarnation.to_be_bytes());
    bytes.extend(heartbeat.sequence.to_be_bytes());
    for Heard { node, age_ms } in heard {
        bytes.extend(node.to_be_bytes());
        bytes.extend(age_ms.to_be_bytes());
    }
    for Held { vip, node, priority, age_ms } in held {
        bytes.extend(vip.to_be_bytes());
        bytes.extend(node.to_be_bytes());
        bytes.push(*priority);
        bytes.extend(age_ms.to_be_bytes());
    }
    bytes
}

/// Reads a datagram. `is_sealed` gets all before the seal, and the seal.
///
/// # Errors
/// Why it is none of ours. Nothing of it is looked at before its seal is known to be good, but magic and version.
pub fn parse(datagram: &[u8], is_sealed: impl FnOnce(&[u8], &[u8]) -> bool) -> Result<Heartbeat, Refused> {
    let length = datagram.len().checked_sub(SEAL_LEN).ok_or(Refused::Malformed)?;
    let (bytes, seal) = datagram.split_at(length);
    let (head, entries) = bytes.split_at_checked(HEAD_LEN).ok_or(Refused::Malformed)?;
    if head[..4] != MAGIC {
        return Err(Refused::Malformed);
    }
    if head[4] != VERSION {
        return Err(Refused::Version(head[4]));
    }
    if !is_sealed(bytes, seal) {
        return Err(Refused::Seal);
    }
    let (heard, held) = (usize::from(head[6]), usize::from(head[7]));
    let too_many = heard > MAX_ENTRIES || held > MAX_ENTRIES;
    if too_many || entries.len() != heard * HEARD_LEN + held * HELD_LEN {
        return Err(Refused::Malformed);
    }
    let (heard, held) = entries.split_at(heard * HEARD_LEN);
    Ok(Heartbeat {
        platform: u32_at(head, 8),
        sender: u32_at(head, 12),
        incarnation: u64_at(head, 16),
        sequence: u64_at(head, 24),
        leaves: head[5] & LEAVES != 0,
        heard: heard
            .chunks_exact(HEARD_LEN)
            .map(|entry| Heard { node: u32_at(entry, 0), age_ms: u16_at(entry, 4) })
            .collect(),
        held: held
            .chunks_exact(HELD_LEN)
            .map(|entry| Held {
                vip: u32_at(entry, 0),
                node: u32_at(entry, 4),
                priority: entry[8],
                age_ms: u16_at(entry, 9),
            })
            .collect(),
    })
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) << 16 | u32::from(u16_at(bytes, at + 2))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) << 32 | u64::from(u32_at(bytes, at + 4))
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn some() -> Heartbeat {
        Heartbeat {
            platform: hash("progres"),
            sender: hash("haproxy1"),
            incarnation: 0x0102_0304_0506_0708,
            sequence: 9,
            leaves: false,
            heard: vec![Heard { node: hash("tomcat1"), age_ms: 12 }],
            held: vec![Held { vip: hash("public"), node: hash("haproxy1"), priority: 101, age_ms: 0 }],
        }
    }

    fn sealed(heartbeat: &Heartbeat) -> Vec<u8> {
        let mut bytes = encode(heartbeat);
        bytes.extend([7; SEAL_LEN]);
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let all_there_is = Heartbeat {
            leaves: true,
            heard: (0..64).map(|n| Heard { node: n, age_ms: n as u16 }).collect(),
            held: (0..64)
                .map(|n| Held { vip: n, node: n * 7, priority: n as u8, age_ms: u16::MAX })
                .collect(),
            ..some()
        };
        for heartbeat in [some(), all_there_is] {
            let bytes = sealed(&heartbeat);
            assert!(bytes.len() <= MAX_LEN);
            let read = parse(&bytes, |text, seal| text == encode(&heartbeat) && seal == [7; SEAL_LEN]);
            assert_eq!(read, Ok(heartbeat));
        }
    }

    #[test]
    fn what_is_not_sealed_by_us_is_refused() {
        assert_eq!(parse(&sealed(&some()), |_, _| false), Err(Refused::Seal));
    }

    #[test]
    fn every_cut_and_every_wrong_number_is_refused() {
        let bytes = sealed(&some());
        for length in 0..bytes.len() {
            let read = parse(&bytes[..length], |_, _| true);
            assert!(matches!(read, Err(Refused::Malformed)), "{length} bytes: {read:?}");
        }
        for (at, value, why) in [
            (0, b'X', Refused::Malformed),
            (4, 2, Refused::Version(2)),
            (6, 2, Refused::Malformed),
            (7, 200, Refused::Malformed),
        ] {
            let mut wrong = bytes.clone();
            wrong[at] = value;
            assert_eq!(parse(&wrong, |_, _| true), Err(why));
        }
    }

    #[test]
    fn ages_are_rounded_up_and_end() {
        assert_eq!(age_ms(Duration::from_micros(1)), 1);
        assert_eq!(age_ms(Duration::from_millis(20)), 20);
        assert_eq!(age_ms(Duration::from_secs(100)), u16::MAX);
    }
}
