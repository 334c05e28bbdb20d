#![forbid(unsafe_code)]
//! Fuzzing of everything that reads what strangers send.
//!
//! A [`Target`] is a function that must hold for every input: that nothing panics, and that what we pass on
//! means the same to other parsers. [`run()`] tries seeds and mutations of them, reproducibly, for as long as it
//! is given: about a second each in `make test`, ten minutes each in `make verify`. It runs on the stable
//! toolchain and has no eyes for coverage; the seeds (`corpus/`, and the tables of the proxy's tests) are what
//! brings it to the interesting places.
//!
//! An input that failed once becomes a line in `corpus/NAME.seeds`, and is tried first ever after.

mod heartbeat;
pub mod lines;
pub mod mutate;
pub mod peer;
mod peers;
mod run;
pub mod seeds;
pub mod targets;
mod vrrp;

pub use run::{Finding, run};

/// Something to be fuzzed.
#[derive(Debug)]
pub struct Target {
    /// Its name, and its file's in `corpus/`.
    pub name: &'static str,
    /// What it begins with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// The words of its format.
    pub words: &'static [&'static [u8]],
    /// What must hold for every input; the error says what does not.
    pub check: fn(&[u8]) -> Result<(), String>,
}

/// A message, as a parser understood it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// The method; empty in a response.
    pub method: String,
    /// The target, or the status code.
    pub target: String,
    /// Names in lower case and values, sorted.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body, decoded.
    pub body: Vec<u8>,
}

impl Message {
    /// The same with its fields in order.
    pub fn sorted(mut self) -> Message {
        self.fields.sort();
        self
    }
}

/// What a parser found on a connection: the messages that were whole, and what it thinks of the rest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reading {
    /// The whole messages.
    pub whole: Vec<Message>,
    /// Why it read no further, if bytes are left.
    pub refused: Option<String>,
}
