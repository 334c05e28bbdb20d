#![no_std]
#![forbid(unsafe_code)]
//! Rules: which of an operator's rules are for a request. Facts in, the numbers of the rules that match out.
//!
//! A [`Program`] is compiled once from [`Rule`]s. It does not walk them: every rule is filed under its most
//! selective condition (hash tables for whole values and for what globs begin or end with, one table for each
//! length of network prefix, one automaton for all regular expressions of a kind), and only those that a request
//! could meet are looked at, in the order of the file. Paths are read as the application server reads them
//! ([`path`]), once a request and only if a rule asks. Everything is worked out in a [`Scratch`] that the caller
//! keeps, so that a request costs no allocation.
//!
//! Also here, because they are as pure: [`template`] (`%{host}` in header values and redirects) and
//! [`rewrite`] (paths). Not here: what an action does to a connection (`proxy`), what a directive looks like
//! (`config`), files.

extern crate alloc;
#[cfg(test)]
extern crate std;

mod facts;
mod glob;
mod index;
pub mod path;
mod program;
pub mod rate;
pub mod rewrite;
mod table;
pub mod template;

pub use facts::{Facts, Identity, IdentityField};
pub use glob::Glob;
pub use index::{Finder, Scratch};
pub use path::BadPath;
pub use program::{Error, Program};

use alloc::string::String;
use alloc::vec::Vec;
use core::net::IpAddr;

/// Most rules of a program.
pub const RULES: usize = 100_000;
/// Most regular expressions of one kind of condition in a program.
pub const REGEXES: usize = 1_000;
/// Most memory of one compiled regular expression, bytes.
pub const REGEX_BYTES: usize = 1 << 20;

/// What a condition looks at.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum What {
    /// The path, as the application server reads it.
    Path,
    /// The host asked for, in small letters, without port and final dot.
    Host,
    /// The method.
    Method,
    /// Each value of this field; the name in small letters.
    Header(String),
    /// Each cookie of this name.
    Cookie(String),
    /// Each parameter of this name in the query, decoded.
    Query(String),
    /// The client's address.
    Src,
    /// The server name of the TLS handshake.
    Sni,
    /// `yes` or `no`.
    Tls,
    /// `https` or `http`.
    Scheme,
    /// The port that the connection came in on.
    Port,
}

/// What a value may be.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// A glob; without a star, the value itself.
    Glob(String),
    /// A regular expression, on bytes, that is found anywhere in it.
    Regex(String),
    /// A network: an address and the length of its prefix.
    Net(IpAddr, u8),
    /// Anything, as long as there is one.
    Any,
}

/// True where one of the values of `what` fits one of `any`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// The rule needs it to be false.
    pub negated: bool,
    /// What it looks at.
    pub what: What,
    /// What is looked for.
    pub any: Vec<Pattern>,
}

/// Whose requests are counted together: those with the same value of each of these.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What it is made of, at least one; of several values, the first.
    pub parts: Vec<What>,
    /// Bits of an IPv4 address that count, 0 to 32.
    pub prefix4: u8,
    /// Bits of an IPv6 address that count, 0 to 128.
    pub prefix6: u8,
}

/// A rule: all of its conditions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rule {
    /// All must hold; none: it is for every request.
    pub conditions: Vec<Condition>,
    /// Where they hold, the caller is asked about each of these, which it counts, say; it must say yes to all.
    pub asked: Vec<Key>,
    /// When it matches, no later rule is asked.
    pub last: bool,
}

/// For fuzzing: reads the first line of `data` as a glob and a regular expression, the rest as a path, and looks
/// at what every part makes of it. Panics where something that must hold does not.
pub fn fuzz(data: &[u8]) {
    let mut parts = data.splitn(3, |&b| b == b'\n');
    let (Some(glob), Some(regex), Some(target)) = (parts.next(), parts.next(), parts.next()) else { return };
    let mut out = Vec::new();
    if let Ok(path) = path::normalize(target, &mut out) {
        assert!(path::is_normal(path), "not normal: {path:?}");
    }
    let (Ok(glob), Ok(regex)) = (core::str::from_utf8(glob), core::str::from_utf8(regex)) else { return };
    let rule = |pattern| Rule {
        conditions: alloc::vec![Condition { negated: false, what: What::Path, any: alloc::vec![pattern] }],
        ..Rule::default()
    };
    let rules = [rule(Pattern::Glob(glob.into())), rule(Pattern::Regex(regex.into()))];
    let Ok(program) = Program::new(&rules) else { return };
    let mut scratch = Scratch::default();
    let facts = Facts { target, ..Facts::default() };
    if program.evaluate(&facts, &mut scratch).is_ok()
        && let Ok(path) = path::normalize(target, &mut out)
    {
        let hit = scratch.hits().contains(&0);
        assert_eq!(hit, Glob::new(glob, true).matches(path), "{glob:?} {path:?}");
    }
    if let Ok(rewrite) = rewrite::Rewrite::regex(regex, glob) {
        let mut new = Vec::new();
        // Heads are only parsed with targets that are: what comes in stays in.
        if rewrite::is_target(target) && rewrite.apply(target, &mut new) {
            assert!(rewrite::is_target(&new), "not a target: {new:?}");
        }
    }
}
