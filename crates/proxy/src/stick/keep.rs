//! Tables outlive this process: what changes in one is written to a memory file that the supervisor holds too, and whoever
//! comes next reads it, after a death as well as at a binary upgrade.
//!
//! Not for a machine that goes down: its peers have the table (`peers`).
//!
//! A file has a head and slots of one length, one for each place of the table. A slot has a sum, so one that was being written when
//! the process was killed is none; servers stand there by the hash of their names, which is every process's. The main
//! thread does all of it: as each plan comes, and a few times a second, when peers hear the same changes.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use relais_balance::hash;
use relais_balance::stick::Kept as Entry;
use relais_config::plan::StickKey;
use rustix::fs::{MemfdFlags, memfd_create};

use super::{PARTS, Sticky, Table};
use crate::counters::ServerShared;
use crate::limits;
use crate::peers::Peers;
use crate::worker::Setup;

const MAGIC: &[u8; 8] = b"RlStick1";
const HEAD: u64 = 64;
/// Before the key: sum, length, end, server.
const FIXED: usize = 24;
/// Slots that are read at a time.
const SLOTS: usize = 4096;

/// The files of this process's tables, and those of its predecessor.
#[derive(Default)]
pub(crate) struct Keeper {
    before: HashMap<String, OwnedFd>,
    files: HashMap<Arc<str>, (Arc<Table>, Option<Kept>)>,
    /// When it was last looked for what is over.
    swept: Option<Instant>,
}

/// A table's file.
struct Kept {
    file: File,
    slot: usize,
}

impl Keeper {
    /// What a predecessor of this process has left of a backend's table.
    pub(crate) fn left(&mut self, backend: String, file: OwnedFd) {
        self.before.insert(backend, file);
    }

    /// Has a file for each table of a setup, and in new tables what was left of them: new files by backend, for the supervisor; with
    /// `None` it may forget one.
    pub(crate) fn set(&mut self, setup: &Setup) -> Vec<(Arc<str>, Option<File>)> {
        let mut news = Vec::new();
        for ((plan, _, servers), sticky) in setup.backs.iter().zip(&setup.sticky) {
            let Some(sticky) = sticky else {
                news.extend(self.files.remove(&plan.name).map(|_| (plan.name.clone(), None)));
                continue;
            };
            if self.files.get(&plan.name).is_some_and(|(table, _)| Arc::ptr_eq(table, &sticky.table)) {
                continue;
            }
            if let Some(file) = self.before.remove(&*plan.name)
                && let Err(why) = restore(&File::from(file), sticky, servers)
            {
                tracing::warn!(
                    "backend {}: the table begins empty, what was left of it cannot be read: {why}",
                    plan.name
                );
            }
            let kept = Kept::new(&sticky.plan.key).and_then(|kept| Ok((kept.file.try_clone()?, kept)));
            let kept = match kept {
                Ok((file, kept)) => {
                    news.push((plan.name.clone(), Some(file)));
                    Some(kept)
                }
                Err(error) => {
                    tracing::warn!("backend {}: the table ends with this process: {error}", plan.name);
                    None
                }
            };
            self.files.insert(plan.name.clone(), (sticky.table.clone(), kept));
        }
        self.before.clear();
        self.turn(setup, &Peers::default());
        news
    }

    /// Writes down what has changed, and tells the peers; now and then forgets what is over.
    pub(crate) fn turn(&mut self, setup: &Setup, peers: &Peers) {
        let (now, wall_ms) = (Instant::now(), wall_ms());
        if self.swept.is_none_or(|before| now.duration_since(before) >= limits::TABLES_EVERY) {
            self.swept = Some(now);
            setup.sticky.iter().flatten().for_each(|sticky| sticky.sweep(now));
        }
        let tables =
            setup.backs.iter().zip(&setup.sticky).filter_map(|(back, sticky)| Some((back, sticky.as_ref()?)));
        for (index, ((plan, _, servers), sticky)) in tables.enumerate() {
            let mut file = self.files.get_mut(&plan.name).and_then(|(_, kept)| kept.as_mut());
            let mut wrong = None;
            sticky.table.changes(now, limits::CHANGES_AT_A_TIME, |part, place, entry, left| {
                let server = entry.and_then(|entry| servers.iter().find(|server| server.id == entry.server));
                if let Some(file) = &mut file {
                    let ends_ms = wall_ms + left.as_millis() as u64;
                    let entry = entry.zip(server).map(|(entry, server)| (entry.key, &*server.name, ends_ms));
                    wrong = file.write(part, place, entry).err().or(wrong.take());
                }
                if let (Some(entry), Some(server)) = (entry.filter(|entry| entry.is_ours), server) {
                    peers.tell(index, entry.key, &server.name, now + left);
                }
            });
            if let Some(error) = wrong {
                tracing::warn!("backend {}: the table ends with this process: {error}", plan.name);
                if let Some((_, kept)) = self.files.get_mut(&plan.name) {
                    *kept = None;
                }
            }
        }
        peers.wake();
    }
}

impl Kept {
    fn new(key: &StickKey) -> io::Result<Kept> {
        let slot = slot(key.is_address());
        let file = File::from(memfd_create("relais-table", MemfdFlags::CLOEXEC)?);
        file.write_all_at(&head(key), 0)?;
        Ok(Kept { file, slot })
    }

    /// Writes what is at a place: key, server's name, end in milliseconds since 1970.
    fn write(&mut self, part: usize, place: u32, entry: Option<(&[u8], &str, u64)>) -> io::Result<()> {
        let mut slot = [0; FIXED + StickKey::LONGEST];
        if let Some((key, server, ends_ms)) = entry.filter(|(key, ..)| key.len() <= self.slot - FIXED) {
            slot[4] = key.len() as u8;
            slot[8..16].copy_from_slice(&ends_ms.to_le_bytes());
            slot[16..24].copy_from_slice(&hash(server.as_bytes()).to_le_bytes());
            slot[FIXED..FIXED + key.len()].copy_from_slice(key);
            let sum = sum(&slot[4..self.slot]);
            slot[..4].copy_from_slice(&sum);
        }
        let number = u64::from(place) * PARTS as u64 + part as u64;
        self.file.write_all_at(&slot[..self.slot], HEAD + number * self.slot as u64)
    }
}

/// Bytes of a slot.
fn slot(is_address: bool) -> usize {
    FIXED + if is_address { 16 } else { StickKey::LONGEST }
}

/// What a file begins with: another kind of key has another one.
fn head(key: &StickKey) -> [u8; HEAD as usize] {
    let mut head = [0; HEAD as usize];
    head[..8].copy_from_slice(MAGIC);
    head[8..16].copy_from_slice(&hash(format!("{key:?}").as_bytes()).to_le_bytes());
    head
}

fn sum(bytes: &[u8]) -> [u8; 4] {
    (hash(bytes) as u32 | 1).to_le_bytes() // never that of an empty slot
}

fn wall_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis() as u64
}

fn number(bytes: &[u8]) -> u64 {
    bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Puts into a table what its predecessor's file has.
fn restore(file: &File, sticky: &Sticky, servers: &[Arc<ServerShared>]) -> io::Result<()> {
    let mut found = [0; HEAD as usize];
    file.read_exact_at(&mut found, 0)?;
    if found != head(&sticky.plan.key) {
        return Ok(()); // another key, or another version: an empty table is right
    }
    let now = Instant::now();
    let names: HashMap<u64, u32> =
        servers.iter().map(|server| (hash(server.name.as_bytes()), server.id)).collect();
    read(file, sticky.plan.key.is_address(), |key, server, left| {
        if let Some(server) = names.get(&server) {
            sticky.table.learn(key, *server, left.min(sticky.plan.expire), now, sticky.plan.size);
        }
    })
}

/// Gives what counts in a table's file to `each`: key, hash of the server's name, for how long.
pub(super) fn read(
    file: &File,
    is_address: bool,
    mut each: impl FnMut(&[u8], u64, Duration),
) -> io::Result<()> {
    let (wall_ms, length) = (wall_ms(), slot(is_address));
    let mut buffer = vec![0; SLOTS * length];
    let mut at = HEAD;
    let end = file.metadata()?.len();
    while at < end {
        let whole = usize::try_from(end - at).unwrap_or(usize::MAX).min(buffer.len()) / length * length;
        if whole == 0 {
            break;
        }
        file.read_exact_at(&mut buffer[..whole], at)?;
        at += whole as u64;
        for slot in buffer[..whole].chunks_exact(length) {
            let Some(key) = slot.get(FIXED..FIXED + usize::from(slot[4])) else { continue };
            let left = number(&slot[8..]).saturating_sub(wall_ms);
            if slot[..4] == sum(&slot[4..]) && !key.is_empty() && left > 0 {
                each(key, number(&slot[16..]), Duration::from_millis(left));
            }
        }
    }
    Ok(())
}

/// An entry as [`Table::changes`] gives it.
pub(super) type Changed<'a> = Option<Entry<'a>>;
