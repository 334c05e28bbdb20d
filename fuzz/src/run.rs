//! The loop: inputs until the time is over, and what to do with one that fails.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use relais_base::Rng;

use crate::{Target, mutate};

/// No input may take longer than this, on however busy a machine: a parser that is quadratic does.
const SLOW: Duration = Duration::from_secs(5);

/// An input that fails.
#[derive(Debug)]
pub struct Finding {
    /// The input, made as short as could be.
    pub input: Vec<u8>,
    /// What is wrong.
    pub fault: String,
    /// How many inputs were tried.
    pub tried: u64,
}

/// Tries the seeds of `target`, then mutations of them for `time`; returns how many were tried.
///
/// # Errors
/// The first input that fails.
pub fn run(target: &Target, seed: u64, time: Duration) -> Result<u64, Box<Finding>> {
    let seeds = (target.seeds)();
    assert!(!seeds.is_empty(), "{} has no seeds", target.name);
    let mut tried = 0;
    for input in &seeds {
        tried += 1;
        try_one(target, input, tried)?;
    }
    let mut rng = Rng::new(seed);
    let until = Instant::now() + time;
    while Instant::now() < until {
        for _ in 0..32 {
            tried += 1;
            try_one(target, &mutate::input(&mut rng, &seeds, target.words), tried)?;
        }
    }
    Ok(tried)
}

fn try_one(target: &Target, input: &[u8], tried: u64) -> Result<(), Box<Finding>> {
    let began = Instant::now();
    let fault = match fault(target, input) {
        None if began.elapsed() < SLOW => return Ok(()),
        None => return Err(Box::new(Finding { input: input.to_vec(), fault: "slow".into(), tried })),
        Some(fault) => fault,
    };
    let input = shorten(target, input.to_vec());
    let fault = self::fault(target, &input).unwrap_or(fault);
    Err(Box::new(Finding { input, fault, tried }))
}

fn fault(target: &Target, input: &[u8]) -> Option<String> {
    match catch_unwind(AssertUnwindSafe(|| (target.check)(input))) {
        Ok(Ok(())) => None,
        Ok(Err(fault)) => Some(fault),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Some(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
        }
    }
}

/// Takes parts out while it still fails.
fn shorten(target: &Target, mut input: Vec<u8>) -> Vec<u8> {
    let mut size = input.len() / 2;
    while size > 0 {
        let mut at = 0;
        while at < input.len() {
            let mut shorter = input.clone();
            shorter.drain(at..(at + size).min(input.len()));
            if fault(target, &shorter).is_some() {
                input = shorter;
            } else {
                at += size;
            }
        }
        size /= 2;
    }
    input
}
