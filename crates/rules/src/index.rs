//! Many patterns at once: which of them a value fits, without asking each.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::net::IpAddr;

use regex_automata::meta::Regex;
use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, PatternSet};

use crate::facts::Worked;
use crate::glob::{Glob, LONGEST};
use crate::path::BadPath;
use crate::table::{self, Table};
use crate::{Pattern, REGEX_BYTES, What};

/// What a worker keeps between requests, so that none of them allocates.
#[derive(Debug, Default)]
pub struct Scratch {
    pub(crate) worked: Worked,
    /// Ranges of postings that are still to be looked at.
    pub(crate) lists: Vec<(u32, u32)>,
    pub(crate) hits: Vec<u32>,
    pub(crate) found: Found,
}

/// Regular expressions that a value fits.
#[derive(Debug, Default)]
pub(crate) struct Found(Option<PatternSet>);

impl Scratch {
    /// Numbers of the rules that matched, in order.
    pub fn hits(&self) -> &[u32] {
        &self.hits
    }

    /// Gives the value of a key to `each`, and returns its answer; `false` if the last request has none.
    pub fn key(
        &mut self,
        key: &crate::Key,
        facts: &crate::Facts<'_>,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        self.worked.key(key, facts, each)
    }

    /// As [`Scratch::key`] for a request that no rule was asked about.
    pub fn key_alone(
        &mut self,
        key: &crate::Key,
        facts: &crate::Facts<'_>,
        each: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        self.worked.forget();
        self.worked.key(key, facts, each)
    }

    /// Why the path of the last request cannot be read, if it is read at all; for those who asked without rules.
    ///
    /// # Errors
    /// As [`crate::path::normalize`].
    pub fn read_path(&mut self, facts: &crate::Facts<'_>) -> Result<(), BadPath> {
        self.worked.read_path(facts)
    }
}

impl Pattern {
    /// Whether it can be looked for.
    ///
    /// # Errors
    /// What is wrong with it, a clause.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Glob(text) if text.len() > LONGEST => {
                Err(format!("a pattern has at most {LONGEST} characters, this one {}", text.len()))
            }
            Self::Regex(text) => regex(core::slice::from_ref(text)).map(drop),
            _ => Ok(()),
        }
    }
}

/// A regular expression by itself.
#[derive(Clone, Debug)]
pub struct Finder(Regex);

impl Finder {
    /// Compiles it.
    ///
    /// # Errors
    /// What is wrong with it, a clause.
    pub fn new(text: &str) -> Result<Finder, String> {
        regex(&[text.into()]).map(Finder)
    }

    /// Whether it is found anywhere in `bytes`.
    pub fn finds(&self, bytes: &[u8]) -> bool {
        self.0.is_match(bytes)
    }
}

/// Regular expressions on bytes: what a path or a field may hold need not be UTF-8.
pub(crate) fn regex(texts: &[String]) -> Result<Regex, String> {
    // Of several, each that is found counts, not only the one that is found first.
    let kind = if texts.len() > 1 { MatchKind::All } else { MatchKind::LeftmostFirst };
    let config = Regex::config()
        .utf8_empty(false)
        .match_kind(kind)
        .nfa_size_limit(Some(REGEX_BYTES.saturating_mul(texts.len().max(1))))
        .hybrid_cache_capacity(1 << 20);
    Regex::builder()
        .configure(config)
        .syntax(syntax::Config::new().utf8(false).unicode(false).nest_limit(64))
        .build_many(texts)
        .map_err(|error| match error.syntax_error() {
            // The last line of a syntax error is what is wrong; those before show where.
            Some(error) => {
                let text = error.to_string();
                let last = text.lines().last().unwrap_or_default();
                last.strip_prefix("error: ").unwrap_or(last).to_string()
            }
            None => "it needs too much memory".into(),
        })
}

/// Globs that begin, or end, with the same text.
type Group = Vec<(Glob, u32)>;

/// Globs by a literal end.
#[derive(Debug, Default)]
struct Ends {
    lengths: Box<[u32]>,
    table: Table,
    groups: Vec<Group>,
}

impl Ends {
    /// `literals` read from the end that they are fixed at.
    fn new(mut globs: Vec<(Vec<u8>, Glob, u32)>) -> Ends {
        globs.sort_by(|a, b| a.0.cmp(&b.0));
        let mut ends = Ends::default();
        let mut pairs: Vec<(u64, Vec<u8>, u32)> = Vec::new();
        for (literal, glob, id) in globs {
            match pairs.last() {
                Some((_, last, group)) if *last == literal => ends.groups[*group as usize].push((glob, id)),
                _ => {
                    pairs.push((table::hash(&literal), literal, ends.groups.len() as u32));
                    ends.groups.push(alloc::vec![(glob, id)]);
                }
            }
        }
        let mut lengths: Vec<u32> = pairs.iter().map(|(_, literal, _)| literal.len() as u32).collect();
        lengths.sort_unstable();
        lengths.dedup();
        ends.lengths = lengths.into_boxed_slice();
        ends.table = Table::new(pairs);
        ends
    }

    /// `key` of so many bytes of the value's end, as the table has it.
    fn find(
        &self,
        bytes: impl Iterator<Item = u8>,
        key: impl Fn(usize) -> (usize, usize),
        value: &[u8],
        backwards: bool,
        each: &mut dyn FnMut(u32) -> bool,
    ) -> bool {
        let mut lengths = self.lengths.iter().peekable();
        let mut hash = table::start();
        let mut done = 0;
        let mut reversed = [0u8; LONGEST];
        let mut bytes = bytes.take(LONGEST);
        while let Some(&&length) = lengths.peek() {
            while done < length as usize {
                let Some(byte) = bytes.next() else { return false };
                hash = table::step(hash, byte);
                if backwards {
                    reversed[done] = byte;
                }
                done += 1;
            }
            lengths.next();
            let (from, to) = key(done);
            let literal = if backwards { &reversed[..done] } else { &value[from..to] };
            if let Some(group) = self.table.get(hash, literal)
                && self.groups[group as usize].iter().any(|(glob, id)| glob.matches(value) && each(*id))
            {
                return true;
            }
        }
        false
    }
}

/// Networks of one family and prefix length.
#[derive(Debug)]
struct Nets {
    v4: bool,
    mask: u128,
    table: Table,
}

/// Patterns by number.
#[derive(Debug, Default)]
pub(crate) struct Index {
    wholes: Table,
    prefixes: Ends,
    suffixes: Ends,
    /// Globs with a star at either end.
    open: Group,
    regexes: Option<(Regex, Vec<u32>)>,
    nets: Vec<Nets>,
    any: Option<u32>,
}

impl Index {
    /// Patterns that differ, each with its number.
    pub(crate) fn new<'a>(
        what: &What,
        patterns: impl IntoIterator<Item = (&'a Pattern, u32)>,
    ) -> Result<Index, String> {
        let mut index = Index::default();
        let (mut wholes, mut prefixes, mut suffixes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut regexes, mut ids) = (Vec::new(), Vec::new());
        let mut nets: BTreeMap<(bool, u8), BTreeMap<Vec<u8>, u32>> = BTreeMap::new();
        for (pattern, id) in patterns {
            match pattern {
                Pattern::Any => index.any = Some(id),
                Pattern::Regex(text) => {
                    regexes.push(text.clone());
                    ids.push(id);
                }
                Pattern::Net(address, prefix) => {
                    let (v4, bits) = bits(*address);
                    let key = (bits & mask(v4, *prefix)).to_be_bytes().to_vec();
                    // Two spellings of one network are one; the first is asked.
                    nets.entry((v4, *prefix)).or_default().entry(key).or_insert(id);
                }
                Pattern::Glob(text) => {
                    let glob = Glob::new(text, *what == What::Path);
                    let (prefix, mut suffix) = (glob.prefix(), glob.suffix());
                    if let Some(whole) = glob.whole() {
                        wholes.push((table::hash(&whole), whole, id));
                    } else if prefix.is_empty() && suffix.is_empty() {
                        index.open.push((glob, id));
                    } else if prefix.len() >= suffix.len() {
                        prefixes.push((prefix, glob, id));
                    } else {
                        suffix.reverse();
                        suffixes.push((suffix, glob, id));
                    }
                }
            }
        }
        index.wholes = Table::new(wholes);
        index.prefixes = Ends::new(prefixes);
        index.suffixes = Ends::new(suffixes);
        if !regexes.is_empty() {
            index.regexes = Some((regex(&regexes)?, ids));
        }
        for ((v4, prefix), pairs) in nets {
            let pairs = pairs.into_iter().map(|(key, id)| (table::hash(&key), key, id)).collect();
            index.nets.push(Nets { v4, mask: mask(v4, prefix), table: Table::new(pairs) });
        }
        Ok(index)
    }

    /// Whether an address is in a network.
    pub(crate) fn address(&self, ip: IpAddr, each: &mut dyn FnMut(u32) -> bool) -> bool {
        let (v4, bits) = bits(ip);
        let find = |nets: &Nets| {
            let key = (bits & nets.mask).to_be_bytes();
            nets.table.get(table::hash(&key), &key)
        };
        self.nets.iter().any(|nets| nets.v4 == v4 && find(nets).is_some_and(&mut *each))
    }

    /// Gives the number of every pattern that `value` fits to `each`, until it says that it has seen enough; whether
    /// it did.
    pub(crate) fn value(&self, value: &[u8], found: &mut Found, each: &mut dyn FnMut(u32) -> bool) -> bool {
        if self.any.is_some_and(&mut *each) {
            return true;
        }
        if !self.wholes.is_empty() && self.wholes.get(table::hash(value), value).is_some_and(&mut *each) {
            return true;
        }
        let length = value.len();
        if !self.prefixes.lengths.is_empty()
            && self.prefixes.find(value.iter().copied(), |n| (0, n), value, false, each)
        {
            return true;
        }
        if !self.suffixes.lengths.is_empty()
            && self.suffixes.find(value.iter().rev().copied(), |n| (length - n, length), value, true, each)
        {
            return true;
        }
        if self.open.iter().any(|(glob, id)| glob.matches(value) && each(*id)) {
            return true;
        }
        match &self.regexes {
            None => false,
            Some((regex, ids)) if ids.len() == 1 => regex.is_match(value) && each(ids[0]),
            Some((regex, ids)) => {
                if found.0.as_ref().is_none_or(|set| set.capacity() < ids.len()) {
                    found.0 = Some(PatternSet::new(ids.len()));
                }
                let Some(set) = &mut found.0 else { return false };
                set.clear();
                regex.which_overlapping_matches(&Input::new(value), set);
                set.iter().any(|pattern| each(ids[pattern.as_usize()]))
            }
        }
    }
}

/// An address as bits on the left; an IPv4-mapped one is the IPv4 address that it means.
fn bits(ip: IpAddr) -> (bool, u128) {
    match ip.to_canonical() {
        IpAddr::V4(ip) => (true, u128::from(u32::from(ip)) << 96),
        IpAddr::V6(ip) => (false, u128::from(ip)),
    }
}

fn mask(v4: bool, prefix: u8) -> u128 {
    let longest = if v4 { 32 } else { 128 };
    u128::MAX.checked_shl(128 - u32::from(prefix.min(longest))).unwrap_or(0)
}
