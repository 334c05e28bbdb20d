//! What an agent on a server's machine says of it: HAProxy's agent checks (`agent-check`), one line of words.

use alloc::string::{String, ToString};

use super::quote;

/// What there was in the line. Of two words that say the same the later one counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AgentSaid {
    /// `75%`: so much of its weight, 0 to 100; more than all is all.
    pub weight: Option<u8>,
    /// `up`; or `down`, `failed` or `stopped`: it is dead, whatever checks say.
    pub up: Option<bool>,
    /// `ready`, `drain`, `maint`.
    pub admin: Option<AgentAdmin>,
    /// `maxconn:30`: it may have so many requests or connections.
    pub max_connections: Option<u32>,
    /// A word that is none of these.
    pub unknown: Option<String>,
    /// The line, for a log.
    pub text: String,
}

/// What a server is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentAdmin {
    /// It serves.
    Ready,
    /// It gets nothing new.
    Drain,
    /// It is taken for dead.
    Maint,
}

/// Reads a line: words in any case, with spaces, tabs or commas between them, and a reason for people behind `#`.
pub fn agent(line: &[u8]) -> AgentSaid {
    let line = line.split(|&byte| matches!(byte, b'\r' | b'\n' | 0)).next().unwrap_or_default();
    let mut said = AgentSaid { text: quote(line), ..AgentSaid::default() };
    let words = line.split(|&byte| byte == b'#').next().unwrap_or_default();
    for word in words.split(|byte| matches!(byte, b' ' | b'\t' | b',')).filter(|word| !word.is_empty()) {
        let word = String::from_utf8_lossy(word).to_ascii_lowercase();
        match &*word {
            "up" => said.up = Some(true),
            "down" | "fail" | "failed" | "stopped" => said.up = Some(false),
            "ready" => said.admin = Some(AgentAdmin::Ready),
            "drain" => said.admin = Some(AgentAdmin::Drain),
            "maint" => said.admin = Some(AgentAdmin::Maint),
            other => {
                let percent = other.strip_suffix('%').and_then(|percent| percent.parse::<u32>().ok());
                let most = other.strip_prefix("maxconn:").and_then(|most| most.parse::<u32>().ok());
                match (percent, most) {
                    (Some(percent), _) => said.weight = Some(percent.min(100) as u8),
                    (_, Some(most)) => said.max_connections = Some(most),
                    (None, None) => said.unknown = Some(quote(word.as_bytes()).to_string()),
                }
            }
        }
    }
    said
}
