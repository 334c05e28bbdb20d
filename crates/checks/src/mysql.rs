//! MySQL's and MariaDB's protocol (their manuals, "Connection Phase", "COM_QUERY"): the greeting, a login with
//! `mysql_native_password`, and for Galera one question for the node's state in its cluster. A small implementation of our
//! own because a check needs one login and one query, and a client library would bring TLS, pools and prepared
//! statements into the process that speaks to the network.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use crate::{Sha1, Step, quote};

/// `PROTOCOL_41`, `LONG_PASSWORD`, `TRANSACTIONS`, `SECURE_CONNECTION`, `PLUGIN_AUTH`.
const CAPABILITIES: u32 = 0x200 | 0x1 | 0x2000 | 0x8000 | 0x8_0000;
const NATIVE: &[u8] = b"mysql_native_password";
/// `COM_QUIT`.
const QUIT: &[u8] = b"\x01\0\0\0\x01";
/// Answered by a node in whatever state, also one that is not Primary.
const QUESTION: &str = "SHOW GLOBAL STATUS WHERE Variable_name IN \
                        ('wsrep_ready','wsrep_cluster_status','wsrep_local_state','wsrep_local_state_comment')";

#[derive(Debug)]
pub(crate) struct Mysql<'a> {
    user: Option<&'a str>,
    password: &'a [u8],
    galera: bool,
    sha1: Sha1,
    state: State,
}

#[derive(Debug)]
enum State {
    Greeting,
    Login,
    /// Reading the answer to the question.
    Answer {
        /// The number of columns is known; its definitions are passed over.
        counted: bool,
        /// The definitions are over.
        rows: bool,
        node: Node,
    },
}

/// What a node says of itself.
#[derive(Debug, Default)]
struct Node {
    ready: Option<String>,
    cluster: Option<String>,
    state: Option<String>,
    comment: Option<String>,
}

impl<'a> Mysql<'a> {
    pub(crate) fn new(user: Option<&'a str>, password: &'a [u8], galera: bool, sha1: Sha1) -> Mysql<'a> {
        Mysql { user, password, galera, sha1, state: State::Greeting }
    }

    pub(crate) fn step(&mut self, inbox: &mut Vec<u8>) -> Step {
        loop {
            let (sequence, packet) = match packet(inbox) {
                Ok(Some(packet)) => packet,
                Ok(None) => return Step::Wait,
                Err(()) => return Step::ill("not MySQL"),
            };
            if let Some(why) = error(&packet) {
                return Step::ill(why);
            }
            let step = match &mut self.state {
                State::Greeting => Some(self.login(sequence, &packet)),
                State::Login => Some(self.logged_in(sequence, &packet)),
                State::Answer { counted, rows, node } => read(&packet, counted, rows, node),
            };
            if let Some(step) = step {
                return step;
            }
        }
    }

    /// Answers the greeting.
    fn login(&mut self, sequence: u8, greeting: &[u8]) -> Step {
        let Some(Greeting { version, nonce }) = Greeting::read(greeting) else {
            return Step::ill("not MySQL");
        };
        let Some(user) = self.user else { return Step::well(version, b"") };
        self.state = State::Login;
        let mut message = Vec::from(CAPABILITIES.to_le_bytes());
        message.extend_from_slice(&(1u32 << 24).to_le_bytes()); // longest packet
        message.push(33); // utf8
        message.extend_from_slice(&[0; 23]);
        message.extend_from_slice(user.as_bytes());
        message.push(0);
        let proof = self.proof(&nonce);
        message.push(proof.len() as u8);
        message.extend_from_slice(&proof);
        message.extend_from_slice(NATIVE);
        message.push(0);
        Step::Say(framed(sequence, &message))
    }

    /// Takes in the answer to the login.
    fn logged_in(&mut self, sequence: u8, packet: &[u8]) -> Step {
        match packet {
            [0, ..] if self.galera => {
                self.state = State::Answer { counted: false, rows: false, node: Node::default() };
                let mut message = Vec::from([3]);
                message.extend_from_slice(QUESTION.as_bytes());
                Step::Say(framed(255, &message))
            }
            [0, ..] => Step::well("login", QUIT),
            // The user's password is of another kind than the one that we guessed.
            [0xfe, rest @ ..] => {
                let mut parts = rest.splitn(2, |&byte| byte == 0);
                let (plugin, data) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let nonce = data.strip_suffix(b"\0").unwrap_or(data);
                let proof = match plugin {
                    NATIVE => self.proof(nonce),
                    // Without a password every kind is the same: nothing.
                    _ if self.password.is_empty() => Vec::new(),
                    _ => {
                        return Step::ill(format!(
                            "the user is identified by {}; this check needs mysql_native_password",
                            quote(plugin)
                        ));
                    }
                };
                Step::Say(framed(sequence, &proof))
            }
            _ => Step::ill("not MySQL"),
        }
    }

    /// What shows that we know the password: SHA1(password) xor SHA1(nonce, SHA1(SHA1(password))).
    fn proof(&self, nonce: &[u8]) -> Vec<u8> {
        if self.password.is_empty() {
            return Vec::new();
        }
        let once = (self.sha1)(&[self.password]);
        let twice = (self.sha1)(&[&once]);
        let mask = (self.sha1)(&[nonce, &twice]);
        once.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
    }
}

/// Takes in a packet of the answer; a step once it is over.
fn read(packet: &[u8], counted: &mut bool, rows: &mut bool, node: &mut Node) -> Option<Step> {
    let is_end = packet.first() == Some(&0xfe) && packet.len() < 9;
    match (*counted, *rows) {
        // Two columns; no statement of ours has another answer.
        (false, _) if packet == [2] => *counted = true,
        (false, _) => return Some(Step::ill("not MySQL")),
        (true, false) => *rows = is_end,
        (true, true) if is_end => return Some(node.judge()),
        (true, true) => {
            let Some((name, rest)) = text(packet) else { return Some(Step::ill("not MySQL")) };
            let Some((value, _)) = text(rest) else { return Some(Step::ill("not MySQL")) };
            node.note(name, value);
        }
    }
    None
}

impl Node {
    fn note(&mut self, name: &[u8], value: &[u8]) {
        let field = match &*name.to_ascii_lowercase() {
            b"wsrep_ready" => &mut self.ready,
            b"wsrep_cluster_status" => &mut self.cluster,
            b"wsrep_local_state" => &mut self.state,
            b"wsrep_local_state_comment" => &mut self.comment,
            _ => return,
        };
        *field = Some(quote(value).trim_matches('"').into());
    }

    /// Well is: part of the primary component, in step with it (state 4), and ready for queries. A donor is in state 2.
    fn judge(&self) -> Step {
        let Node { ready: Some(ready), cluster: Some(cluster), state: Some(state), comment } = self else {
            return Step::ill("not a node of Galera: it knows no wsrep_local_state");
        };
        let state_name = comment.as_deref().unwrap_or(state);
        if !cluster.eq_ignore_ascii_case("primary") {
            return Step::ill(format!("{cluster}, {state_name}: not in the primary component"));
        }
        if state != "4" {
            return Step::ill(format!("{cluster}, {state_name}: not synced"));
        }
        if !ready.eq_ignore_ascii_case("on") {
            return Step::ill(format!("{cluster}, {state_name}, but not ready for queries"));
        }
        Step::well(format!("{cluster}, {state_name}"), QUIT)
    }
}

struct Greeting {
    version: String,
    nonce: Vec<u8>,
}

impl Greeting {
    /// Protocol 10 alone: what came before it died with MySQL 3.
    fn read(packet: &[u8]) -> Option<Greeting> {
        let rest = packet.strip_prefix(&[10])?;
        let end = rest.iter().position(|&byte| byte == 0)?;
        let (version, rest) = rest.split_at_checked(end)?;
        // Its end, the connection's number; 8 bytes of the nonce; a zero, capabilities, charset, status, capabilities, the
        // nonce's length and 10 bytes; the rest of the nonce, which ends with a zero.
        let first = rest.get(5..13)?;
        let second = rest.get(13 + 19..)?;
        let second = second.get(..12)?;
        Some(Greeting { version: quote(version).trim_matches('"').into(), nonce: [first, second].concat() })
    }
}

/// The first whole packet and its number, taken out.
fn packet(inbox: &mut Vec<u8>) -> Result<Option<(u8, Vec<u8>)>, ()> {
    let Some(&[a, b, c, sequence]) = inbox.first_chunk::<4>() else { return Ok(None) };
    let length = usize::from(a) | usize::from(b) << 8 | usize::from(c) << 16;
    if length == 0 || length > crate::MOST - 4 {
        return Err(());
    }
    if inbox.len() < 4 + length {
        return Ok(None);
    }
    let packet = inbox[4..4 + length].to_vec();
    inbox.drain(..4 + length);
    Ok(Some((sequence, packet)))
}

/// A packet that follows the one with this number.
fn framed(sequence: u8, message: &[u8]) -> Vec<u8> {
    let mut packet = Vec::from((message.len() as u32).to_le_bytes());
    packet[3] = sequence.wrapping_add(1);
    packet.extend_from_slice(message);
    packet
}

/// What an error packet says: its number, then perhaps `#` and an SQL state, then words.
fn error(packet: &[u8]) -> Option<String> {
    let [0xff, low, high, words @ ..] = packet else { return None };
    let words = match words {
        [b'#', _, _, _, _, _, words @ ..] => words,
        words => words,
    };
    Some(format!("error {}: {}", u16::from_le_bytes([*low, *high]), quote(words)))
}

/// A text behind its length, and what follows; `NULL` is empty.
fn text(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&first, rest) = bytes.split_first()?;
    let (length, rest) = match first {
        0xfb => (0, rest),
        0xfc => (usize::from(u16::from_le_bytes(*rest.first_chunk()?)), rest.get(2..)?),
        0xfd.. => return None, // longer than any packet here
        short => (usize::from(short), rest),
    };
    rest.split_at_checked(length)
}
