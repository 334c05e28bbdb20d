//! HAProxy's peers protocol, version 2.1 (`doc/peers-v2.0.txt` of its sources, and what 2.1 added): how balancers tell each other which
//! server a key stays with.
//!
//! [`Reader`] makes [`Event`]s of what a peer sends, [`Writer`] says what this side has. Greetings, time-outs and sockets are the
//! caller's (`relais-proxy`). Of a table's data only `server_key` is read and written: the server's name. What else a HAProxy
//! counts in a table is passed over. What Relais nodes have to tell each other beside is in [`ours`].

mod ours;

pub use ours::{Counts, put_checked, put_counts};

use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;

/// Longest message, bytes: HAProxy's buffer.
pub const LONGEST: usize = 16_384;
/// Tables of one peer.
const TABLES: usize = 1_024;
/// Servers' names that are said by number.
const NAMES: usize = 128;
/// Longest name of a table or server.
const NAME: usize = 1_024;

const CONTROL: u8 = 0;
const ERROR: u8 = 1;
const TABLE: u8 = 10;

const UPDATE: u8 = 0x80;
const NEXT: u8 = 0x81;
const DEFINE: u8 = 0x82;
const SWITCH: u8 = 0x83;
const ACK: u8 = 0x84;
const UPDATE_TIMED: u8 = 0x85;
const NEXT_TIMED: u8 = 0x86;

/// The bit, and the place, of `server_key` among a table's data.
const SERVER: u32 = 19;
/// Data before it that are three numbers: rates.
const RATES: u32 = 1 << 3 | 1 << 5 | 1 << 8 | 1 << 10 | 1 << 12 | 1 << 14 | 1 << 16 | 1 << 18;

/// What a table's keys are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Numbers of 32 bits.
    Integer,
    /// IPv4 addresses.
    Ip,
    /// IPv6 addresses, IPv4 ones mapped.
    Ipv6,
    /// Text.
    Text,
    /// Bytes, of one length.
    Binary,
}

impl Kind {
    const fn number(self) -> u64 {
        match self {
            Kind::Integer => 2,
            Kind::Ip => 4,
            Kind::Ipv6 => 5,
            Kind::Text => 6,
            Kind::Binary => 7,
        }
    }

    fn of(number: u64) -> Option<Kind> {
        [Kind::Integer, Kind::Ip, Kind::Ipv6, Kind::Text, Kind::Binary]
            .into_iter()
            .find(|kind| kind.number() == number)
    }
}

/// A message without a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Control {
    /// Tell me everything.
    Resync = 0,
    /// That was everything.
    Finished = 1,
    /// That was what I have, and I lack something myself.
    Partial = 2,
    /// I have it.
    Confirm = 3,
    /// I am here.
    Heartbeat = 4,
}

/// What a peer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event<'a> {
    /// A message without a table.
    Control(Control),
    /// It ends the session, for it read nonsense.
    Gone,
    /// A key stays with a server.
    Update {
        /// The table's name.
        table: &'a str,
        /// What its keys are.
        kind: Kind,
        /// The key.
        key: &'a [u8],
        /// The server's name; `None`: it does not say, or counts something else.
        server: Option<&'a str>,
        /// For so long from now on.
        expire_ms: u64,
    },
    /// It has taken updates of the table of this number.
    Taken {
        /// As it was announced here.
        table: u64,
        /// Up to this one.
        update: u32,
    },
    /// A Relais says how often keys came.
    Counts {
        /// What is counted, by a number that those who share it know.
        table: u64,
        /// Of late and all told, not since the last time.
        is_all: bool,
        /// The keys.
        counts: Counts<'a>,
    },
    /// A Relais has checked a server.
    Checked {
        /// Which, by a number that those who check it know.
        server: u64,
        /// Whether it found it well.
        ok: bool,
    },
    /// Nothing that matters.
    Other,
}

/// What a peer sent is no peers protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wrong(&'static str);

impl fmt::Display for Wrong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

#[derive(Debug)]
struct Table {
    number: u64,
    name: String,
    kind: Option<Kind>,
    key_bytes: usize,
    data: u64,
    expire_ms: u64,
    /// The last update, if one was acknowledged or came.
    last: Option<u32>,
    is_owed: bool,
}

/// Reads what a peer sends.
#[derive(Debug, Default)]
pub struct Reader {
    tables: Vec<Table>,
    current: Option<usize>,
    names: Vec<String>,
}

impl Reader {
    /// The first message of `bytes` and its length; `None`: it is not all there.
    ///
    /// # Errors
    /// If that cannot be one: nothing that follows can be understood.
    pub fn read<'a>(&'a mut self, bytes: &'a [u8]) -> Result<Option<(usize, Event<'a>)>, Wrong> {
        let [class, kind, rest @ ..] = bytes else { return Ok(None) };
        if *kind < 128 {
            let event = match (*class, *kind) {
                (CONTROL, 0) => Event::Control(Control::Resync),
                (CONTROL, 1) => Event::Control(Control::Finished),
                (CONTROL, 2) => Event::Control(Control::Partial),
                (CONTROL, 3) => Event::Control(Control::Confirm),
                (CONTROL, 4) => Event::Control(Control::Heartbeat),
                (ERROR, _) => Event::Gone,
                _ => return Err(Wrong("a message is of no known kind")),
            };
            return Ok(Some((2, event)));
        }
        let mut at = rest;
        let Some(length) = number(&mut at) else {
            return if rest.len() < 10 { Ok(None) } else { Err(Wrong("a message's length is no number")) };
        };
        if length > LONGEST as u64 {
            return Err(Wrong("a message is longer than 16 KiB"));
        }
        let Some(message) = at.get(..length as usize) else { return Ok(None) };
        let whole = bytes.len() - at.len() + message.len();
        let event = match (*class, *kind) {
            (TABLE, UPDATE | NEXT | UPDATE_TIMED | NEXT_TIMED) => self.update(*kind, message)?,
            (TABLE, DEFINE) => self.define(message)?,
            (TABLE, SWITCH) => {
                let to = number(&mut { message }).ok_or(Wrong("a switch names no table"))?;
                self.current = self.tables.iter().position(|table| table.number == to);
                Event::Other
            }
            (TABLE, ACK) => {
                let mut at = message;
                let table = number(&mut at).ok_or(Wrong("an acknowledgement names no table"))?;
                Event::Taken { table, update: word(&mut at).ok_or(Wrong("an acknowledgement is cut off"))? }
            }
            (ours::CLASS, ours::COUNTS | ours::RATES) => {
                let (table, counts) = ours::read_counts(message)?;
                Event::Counts { table, is_all: *kind == ours::RATES, counts }
            }
            (ours::CLASS, ours::CHECKED) => {
                let (server, ok) = ours::read_checked(message)?;
                Event::Checked { server, ok }
            }
            _ => Event::Other,
        };
        Ok(Some((whole, event)))
    }

    fn define(&mut self, mut at: &[u8]) -> Result<Event<'static>, Wrong> {
        const CUT: Wrong = Wrong("the definition of a table is cut off");
        let number_of = number(&mut at).ok_or(CUT)?;
        let length = number(&mut at).ok_or(CUT)?;
        let name = take(&mut at, length).ok_or(CUT)?;
        let name = core::str::from_utf8(name).ok().filter(|name| name.len() <= NAME);
        let name = name.ok_or(Wrong("a table has no name that could be one"))?;
        let kind = number(&mut at).ok_or(CUT)?;
        let key_bytes = number(&mut at).ok_or(CUT)?;
        let data = number(&mut at).ok_or(CUT)?;
        let expire_ms = number(&mut at).ok_or(CUT)?;
        let place = self.tables.iter().position(|table| table.number == number_of);
        let table = Table {
            number: number_of,
            name: name.to_string(),
            kind: Kind::of(kind),
            key_bytes: key_bytes.min(LONGEST as u64) as usize,
            data,
            expire_ms,
            last: place.and_then(|at| self.tables[at].last),
            is_owed: place.is_some_and(|at| self.tables[at].is_owed),
        };
        self.current = Some(match place {
            Some(at) => {
                self.tables[at] = table;
                at
            }
            None if self.tables.len() >= TABLES => return Err(Wrong("there are more than 1024 tables")),
            None => {
                self.tables.push(table);
                self.tables.len() - 1
            }
        });
        Ok(Event::Other)
    }

    fn update<'a>(&'a mut self, how: u8, mut at: &'a [u8]) -> Result<Event<'a>, Wrong> {
        const CUT: Wrong = Wrong("an update is cut off");
        let Some(table) = self.current.and_then(|at| self.tables.get_mut(at)) else {
            return Ok(Event::Other);
        };
        let id = match how {
            UPDATE | UPDATE_TIMED => word(&mut at).ok_or(CUT)?,
            _ => table.last.map_or(1, |last| last.wrapping_add(1)),
        };
        (table.last, table.is_owed) = (Some(id), true);
        let expire_ms = match how {
            UPDATE_TIMED | NEXT_TIMED => u64::from(word(&mut at).ok_or(CUT)?),
            _ => table.expire_ms,
        };
        let Some(kind) = table.kind else { return Ok(Event::Other) };
        let length = match kind {
            Kind::Text => number(&mut at).ok_or(CUT)?,
            Kind::Integer => 4,
            Kind::Ip => 4,
            Kind::Ipv6 => 16,
            Kind::Binary => table.key_bytes as u64,
        };
        let key = take(&mut at, length).ok_or(CUT)?;
        for bit in (0..SERVER).filter(|bit| table.data & 1 << bit != 0) {
            for _ in 0..if RATES & 1 << bit != 0 { 3 } else { 1 } {
                number(&mut at).ok_or(CUT)?;
            }
        }
        let server = if table.data & 1 << SERVER != 0 { name(&mut self.names, at)? } else { None };
        Ok(Event::Update { table: &table.name, kind, key, server, expire_ms: expire_ms.min(table.expire_ms) })
    }

    /// Adds to `out` the acknowledgements of all updates since the last time.
    pub fn acknowledge(&mut self, out: &mut Vec<u8>) {
        for table in self.tables.iter_mut().filter(|table| table.is_owed) {
            table.is_owed = false;
            let mut text = Vec::new();
            put_number(&mut text, table.number);
            text.extend_from_slice(&table.last.unwrap_or_default().to_be_bytes());
            put_message(out, ACK, &text);
        }
    }
}

/// A server's name, which stands here or is known by its number.
fn name<'a>(names: &'a mut Vec<String>, mut at: &[u8]) -> Result<Option<&'a str>, Wrong> {
    const CUT: Wrong = Wrong("a server's name is cut off");
    let length = number(&mut at).ok_or(CUT)?;
    let mut at = take(&mut at, length).ok_or(CUT)?;
    if at.is_empty() {
        return Ok(None);
    }
    let id = number(&mut at).ok_or(CUT)?;
    let id = usize::try_from(id).ok().filter(|id| (1..=NAMES).contains(id));
    let place = id.ok_or(Wrong("a server's name has a number above 128"))? - 1;
    if !at.is_empty() {
        let length = number(&mut at).ok_or(CUT)?;
        let name = core::str::from_utf8(take(&mut at, length).ok_or(CUT)?).ok();
        let name =
            name.filter(|name| name.len() <= NAME).ok_or(Wrong("a server has no name that could be one"))?;
        if names.len() <= place {
            names.resize(place + 1, String::new());
        }
        if names[place] != name {
            names[place] = name.to_string();
        }
    }
    Ok(names.get(place).map(String::as_str).filter(|name| !name.is_empty()))
}

/// A table as it is announced.
#[derive(Clone, Copy, Debug)]
pub struct Announced<'a> {
    /// A number of its own, from 1.
    pub number: u64,
    /// Its name.
    pub name: &'a str,
    /// What its keys are.
    pub kind: Kind,
    /// The most bytes of a key, of a text with the zero behind it.
    pub key_bytes: usize,
    /// How long its entries last.
    pub expire_ms: u64,
}

/// Writes what a peer is to know.
#[derive(Debug, Default)]
pub struct Writer {
    current: Option<u64>,
    update: u32,
    names: Vec<String>,
    /// The name that gives way to the next one.
    turn: usize,
    says_names: bool,
    text: Vec<u8>,
}

impl Writer {
    /// For a peer that passes over updates of tables that it does not have, and with them the names in them: every update says the
    /// server's name.
    pub fn with_names() -> Writer {
        Writer { says_names: true, ..Writer::default() }
    }

    /// Adds a message without a table to `out`.
    pub fn control(out: &mut Vec<u8>, control: Control) {
        out.extend_from_slice(&[CONTROL, control as u8]);
    }

    /// Adds to `out` that a key of a table stays with a server for so long.
    pub fn update(
        &mut self,
        out: &mut Vec<u8>,
        table: Announced<'_>,
        key: &[u8],
        server: &str,
        expire_ms: u64,
    ) {
        let mut text = core::mem::take(&mut self.text);
        if self.current != Some(table.number) {
            self.current = Some(table.number);
            text.clear();
            put_number(&mut text, table.number);
            put_number(&mut text, table.name.len() as u64);
            text.extend_from_slice(table.name.as_bytes());
            put_number(&mut text, table.kind.number());
            put_number(&mut text, table.key_bytes as u64);
            put_number(&mut text, 1 << SERVER);
            put_number(&mut text, table.expire_ms);
            put_message(out, DEFINE, &text);
        }
        text.clear();
        // With its number each, which a peer need not count along: one sequence for all tables.
        self.update = self.update.wrapping_add(1);
        text.extend_from_slice(&self.update.to_be_bytes());
        text.extend_from_slice(&u32::try_from(expire_ms).unwrap_or(i32::MAX as u32).to_be_bytes());
        if table.kind == Kind::Text {
            put_number(&mut text, key.len() as u64);
        }
        text.extend_from_slice(key);
        self.put_name(&mut text, server);
        put_message(out, UPDATE_TIMED, &text);
        self.text = text;
    }

    fn put_name(&mut self, text: &mut Vec<u8>, server: &str) {
        let known = self.names.iter().position(|name| name == server);
        if let Some(place) = known.filter(|_| !self.says_names) {
            put_number(text, 1);
            put_number(text, place as u64 + 1);
            return;
        }
        let place = if let Some(place) = known {
            place
        } else if self.names.len() < NAMES {
            self.names.push(server.to_string());
            self.names.len() - 1
        } else {
            self.turn = (self.turn + 1) % NAMES;
            self.names[self.turn] = server.to_string();
            self.turn
        };
        let mut entry = Vec::new();
        put_number(&mut entry, place as u64 + 1);
        put_number(&mut entry, server.len() as u64);
        entry.extend_from_slice(server.as_bytes());
        put_number(text, entry.len() as u64);
        text.extend_from_slice(&entry);
    }
}

fn put_message(out: &mut Vec<u8>, kind: u8, text: &[u8]) {
    put_framed(out, TABLE, kind, text);
}

fn put_framed(out: &mut Vec<u8>, class: u8, kind: u8, text: &[u8]) {
    out.extend_from_slice(&[class, kind]);
    put_number(out, text.len() as u64);
    out.extend_from_slice(text);
}

fn put_number(out: &mut Vec<u8>, number: u64) {
    if number < 240 {
        out.push(number as u8);
        return;
    }
    out.push(number as u8 | 240);
    let mut rest = (number - 240) >> 4;
    while rest >= 128 {
        out.push(rest as u8 | 128);
        rest = (rest - 128) >> 7;
    }
    out.push(rest as u8);
}

/// The number that `at` begins with; `None`: it is cut off, or too large.
fn number(at: &mut &[u8]) -> Option<u64> {
    let (first, mut rest) = at.split_first()?;
    let mut number = u64::from(*first);
    if *first >= 240 {
        let mut shift = 4;
        loop {
            let (byte, behind) = rest.split_first()?;
            rest = behind;
            if shift > 60 {
                return None;
            }
            number = number.wrapping_add(u64::from(*byte) << shift); // negative ones are 64 bits long
            shift += 7;
            if *byte < 128 {
                break;
            }
        }
    }
    *at = rest;
    Some(number)
}

fn word(at: &mut &[u8]) -> Option<u32> {
    let (word, rest) = at.split_first_chunk::<4>()?;
    *at = rest;
    Some(u32::from_be_bytes(*word))
}

fn take<'a>(at: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    let (taken, rest) = at.split_at_checked(usize::try_from(length).ok()?)?;
    *at = rest;
    Some(taken)
}

#[cfg(test)]
#[path = "peers/tests.rs"]
mod tests;
