//! How two balancers greet.
//!
//! HAProxy's greeting is three lines, `HAProxyS 2.1`, the name of who is called and of who calls, and the answer `200`. It proves nothing:
//! the address of who calls has to do. Relais's has a number used once on either side, and both prove that they know the
//! cluster's key:
//!
//! ```text
//! RelaisS 1.0          200 NUMBER PROOF
//! CALLED               (proof of who was called)
//! CALLER NUMBER        PROOF
//!                      (proof of who called)
//! ```
//!
//! After it the bytes are not sealed: who sits between the two can change them.

use std::net::IpAddr;

use aws_lc_rs::{hmac, rand};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Other, Shared};

/// Longest line of a greeting.
const LINE: usize = 600;

/// Greets a node that was called.
pub(super) async fn say(shared: &Shared, other: &Other, stream: &mut TcpStream) -> Result<(), String> {
    let (us, them, ours) = (&*shared.settings.name, &*other.name, once()?);
    put(stream, &format!("RelaisS 1.0\n{them}\n{us} {ours}\n")).await?;
    let line = line(stream).await?;
    let mut words = line.split(' ');
    match (words.next(), words.next(), words.next()) {
        (Some("200"), Some(theirs), Some(proof)) => {
            check(&shared.key, &["called", us, them, &ours, theirs], proof)?;
            let proof = prove(&shared.key, &["caller", us, them, &ours, theirs]);
            put(stream, &format!("{proof}\n")).await
        }
        (Some("503"), ..) => Err(format!("it is not called {them}: compare the plans of both")),
        (Some("504"), ..) => Err(format!("it knows no peer called {us}: compare the plans of both")),
        (Some("502"), ..) => Err("it speaks another version".to_owned()),
        _ => Err("it does not answer as a Relais does".to_owned()),
    }
}

/// Answers who calls from this address; who it is.
pub(super) async fn answer(shared: &Shared, from: IpAddr, stream: &mut TcpStream) -> Result<Other, String> {
    let version = line(stream).await?;
    let is_haproxy = matches!(&*version, "HAProxyS 2.0" | "HAProxyS 2.1");
    if !is_haproxy && version != "RelaisS 1.0" {
        put(stream, "502\n").await?;
        return Err("it speaks neither HAProxy's peers protocol 2.1 nor Relais's".to_owned());
    }
    let called = line(stream).await?;
    if *called != *shared.settings.name {
        put(stream, "503\n").await?;
        return Err(format!("it calls {called:?}, and this is {}", shared.settings.name));
    }
    let caller = line(stream).await?;
    let mut words = caller.split(' ');
    let (name, theirs) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let known = |other: &&Other| {
        *other.name == *name && other.is_haproxy == is_haproxy && other.addresses.contains(&from)
    };
    let Some(other) = shared.settings.others.iter().find(known) else {
        put(stream, "504\n").await?;
        return Err(format!("no peer {name:?} is known that has this address and speaks so"));
    };
    if is_haproxy {
        put(stream, "200\n").await?;
        return Ok(other.clone());
    }
    let (us, ours) = (&*shared.settings.name, once()?);
    let proof = prove(&shared.key, &["called", name, us, theirs, &ours]);
    put(stream, &format!("200 {ours} {proof}\n")).await?;
    let proof = line(stream).await?;
    check(&shared.key, &["caller", name, us, theirs, &ours], &proof)?;
    Ok(other.clone())
}

/// A number that nobody has used.
fn once() -> Result<String, String> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| "there are no random numbers".to_owned())?;
    Ok(hex(&bytes))
}

fn text(words: &[&str]) -> Vec<u8> {
    [&["relais peers"], words].concat().join("\n").into_bytes()
}

fn prove(key: &hmac::Key, words: &[&str]) -> String {
    hex(hmac::sign(key, &text(words)).as_ref())
}

fn check(key: &hmac::Key, words: &[&str], proof: &str) -> Result<(), String> {
    let digit = |at: usize| u8::from_str_radix(proof.get(at..at + 2)?, 16).ok();
    let bytes: Option<Vec<u8>> = (0..proof.len()).step_by(2).map(digit).collect();
    let good = bytes.is_some_and(|bytes| hmac::verify(key, &text(words), &bytes).is_ok());
    good.then_some(())
        .ok_or_else(|| "it has another cluster-key: write the same one on every node".to_owned())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn put(stream: &mut TcpStream, text: &str) -> Result<(), String> {
    stream.write_all(text.as_bytes()).await.map_err(|error| error.to_string())
}

/// A line; not a byte behind it is taken.
async fn line(stream: &mut TcpStream) -> Result<String, String> {
    let mut line = Vec::new();
    loop {
        match stream.read_u8().await.map_err(|error| error.to_string())? {
            b'\n' => break,
            _ if line.len() == LINE => return Err("its greeting has no end".to_owned()),
            byte => line.push(byte),
        }
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| "its greeting is no text".to_owned())
}
