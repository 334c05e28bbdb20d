//! Session tickets (RFC 8446 §4.6.1, RFC 5077): a client that comes back needs no full handshake, at whichever
//! balancer it arrives, if they have the same keys.
//!
//! A line of the key file is a secret of at least 32 characters, as `openssl rand -base64 48` prints one. The first
//! line seals new tickets; every line opens old ones, so that a new key is put in front and the last one taken away.
//! Without such a file keys are made of the cluster's secret, others in every slot of 12 h, so that balancers that share
//! it agree without a word, and a ticket is no good for longer than two slots. Without that either they are random, and are
//! lost with the process.
//!
//! What a listener asks of its clients goes into its keys: a ticket that was given without a certificate opens no
//! door where one is required.

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use aws_lc_rs::{hkdf, rand};
use rustls::server::ProducesTickets;

/// Bytes that tell which key sealed a ticket.
const NAME: usize = 16;
/// How long a ticket is good for, seconds (RFC 8446 §4.6.1 allows a week).
const LIFETIME: u32 = 12 * 60 * 60;
/// Shortest secret, characters.
const SHORTEST: usize = 32;

/// The keys of one listener's tickets.
pub(crate) struct Tickets {
    keys: Vec<Key>,
}

struct Key {
    name: [u8; NAME],
    key: LessSafeKey,
}

impl Tickets {
    /// Keys made of the lines of a file; see the module.
    ///
    /// # Errors
    /// One sentence, without the secret, if a line is too short or there is none.
    pub(crate) fn from_file(path: &str, contents: &[u8], asked: &[u8]) -> Result<Tickets, String> {
        let lines = contents.split(|&byte| byte == b'\n').map(<[u8]>::trim_ascii);
        let lines = (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"));
        let mut keys = Vec::new();
        for (number, line) in lines {
            if line.len() < SHORTEST {
                return Err(format!(
                    "{path}:{number}: a ticket key has at least {SHORTEST} characters; make one with \
                     `openssl rand -base64 48`"
                ));
            }
            keys.push(
                Key::derive(line, asked).ok_or_else(|| format!("{path}:{number}: the key cannot be used"))?,
            );
        }
        match keys.is_empty() {
            true => Err(format!("{path} has no ticket key; make one with `openssl rand -base64 48`")),
            false => Ok(Tickets { keys }),
        }
    }

    /// Keys made of a secret of this process.
    ///
    /// # Errors
    /// If the secret cannot be used.
    pub(crate) fn of_process(secret: &Secret, asked: &[u8]) -> Result<Tickets, String> {
        let key = Key::derive(&secret.0, asked).ok_or("the ticket key of this process cannot be used")?;
        Ok(Tickets { keys: vec![key] })
    }
}

/// The keys of one listener's tickets, of what all balancers of a cluster have.
pub(crate) struct ClusterTickets {
    pseudo_random: hkdf::Prk,
    asked: Box<[u8]>,
    slot: fn() -> u64,
}

impl ClusterTickets {
    /// Keys made of the contents of a file.
    ///
    /// # Errors
    /// One sentence, without the secret, if it is too short.
    pub(crate) fn new(path: &str, contents: &[u8], asked: &[u8]) -> Result<ClusterTickets, String> {
        let secret = contents.trim_ascii();
        if secret.len() < SHORTEST {
            return Err(format!(
                "{path}: the cluster's key has at least {SHORTEST} characters; make one with `openssl rand -base64 48`"
            ));
        }
        Ok(ClusterTickets { pseudo_random: extract(secret), asked: asked.into(), slot: slot_now })
    }

    /// Cheap beside the signature or the key exchange that every handshake has, so nothing is kept for the next one.
    fn key(&self, slot: u64) -> Option<Key> {
        Key::expand(&self.pseudo_random, &[b"cluster", &self.asked, &slot.to_be_bytes()])
    }
}

fn slot_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs() / u64::from(LIFETIME)
}

/// What nobody else has.
pub(crate) struct Secret([u8; 48]);

impl Secret {
    /// It, to make keys of.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// A new one.
    ///
    /// # Errors
    /// If the machine gives no random bytes.
    pub(crate) fn random() -> Result<Secret, String> {
        let mut secret = [0; 48];
        rand::fill(&mut secret).map_err(|_| "the machine gives no random bytes")?;
        Ok(Secret(secret))
    }
}

impl Key {
    /// HKDF with SHA-256 (RFC 5869) makes a name and a key of a secret.
    fn derive(secret: &[u8], asked: &[u8]) -> Option<Key> {
        Self::expand(&extract(secret), &[b"1", asked])
    }

    fn expand(pseudo_random: &hkdf::Prk, info: &[&[u8]]) -> Option<Key> {
        struct Length(usize);
        impl hkdf::KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        let mut bytes = [0; NAME + 32];
        pseudo_random.expand(info, Length(bytes.len())).ok()?.fill(&mut bytes).ok()?;
        let (name, key) = bytes.split_first_chunk::<NAME>()?;
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key).ok()?);
        Some(Key { name: *name, key })
    }

    fn seal(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let Key { name, key } = self;
        let mut nonce = [0; NONCE_LEN];
        rand::fill(&mut nonce).ok()?;
        let mut sealed = plain.to_vec();
        let nonce_used = Nonce::assume_unique_for_key(nonce);
        key.seal_in_place_append_tag(nonce_used, Aad::from(name), &mut sealed).ok()?;
        Some([name, &nonce[..], &sealed].concat())
    }

    /// `None` if it is another key's, too.
    fn open(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<NAME>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        if self.name != *name {
            return None;
        }
        let mut plain = sealed.to_vec();
        let nonce = Nonce::assume_unique_for_key(*nonce);
        let length = self.key.open_in_place(nonce, Aad::from(name), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

fn extract(secret: &[u8]) -> hkdf::Prk {
    hkdf::Salt::new(hkdf::HKDF_SHA256, b"relais tls tickets").extract(secret)
}

impl std::fmt::Debug for Tickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tickets").field("keys", &self.keys.len()).finish()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.keys.first()?.seal(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.keys.iter().find_map(|key| key.open(ticket))
    }
}

impl std::fmt::Debug for ClusterTickets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClusterTickets").finish_non_exhaustive()
    }
}

impl ProducesTickets for ClusterTickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.key((self.slot)())?.seal(plain)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        // Of the slot before, and of the next one: the other balancer's clock may be ahead.
        let now = (self.slot)();
        let slots = [now, now.saturating_sub(1), now + 1];
        slots.into_iter().find_map(|slot| self.key(slot)?.open(ticket))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "7c2e0Jb1nZs0m5Z2hD6m0mWqk1e3Vt9c";
    const TWO: &str = "9d3f1Kc2oAt1n6A3iE7n1nXrl2f4Wu0d";

    fn tickets(text: &str) -> Tickets {
        Tickets::from_file("keys", text.as_bytes(), b"").unwrap()
    }

    #[test]
    fn a_ticket_of_one_balancer_is_opened_by_another_with_the_same_key() {
        let ticket = tickets(ONE).encrypt(b"session").unwrap();
        assert_eq!(tickets(ONE).decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        assert_eq!(tickets(TWO).decrypt(&ticket), None);
        let own = Tickets::of_process(&Secret::random().unwrap(), b"").unwrap();
        assert_eq!(own.decrypt(&ticket), None);
        assert_eq!(
            Tickets::from_file("keys", ONE.as_bytes(), b"certificate").unwrap().decrypt(&ticket),
            None
        );
    }

    #[test]
    fn a_key_that_moves_down_still_opens_what_it_sealed() {
        let old = tickets(ONE).encrypt(b"session").unwrap();
        let rotated = tickets(&format!("# new first\n{TWO}\n\n{ONE}\n"));
        assert_eq!(rotated.decrypt(&old).as_deref(), Some(&b"session"[..]));
        let new = rotated.encrypt(b"session").unwrap();
        assert_eq!(tickets(ONE).decrypt(&new), None, "the first line seals");
    }

    #[test]
    fn a_ticket_that_was_changed_or_cut_is_not_opened() {
        let tickets = tickets(ONE);
        let ticket = tickets.encrypt(b"session").unwrap();
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None, "byte {at}");
            assert_eq!(tickets.decrypt(&ticket[..at]), None, "cut at {at}");
        }
        assert_ne!(
            tickets.encrypt(b"session"),
            tickets.encrypt(b"session"),
            "two tickets are never the same"
        );
    }

    #[test]
    fn the_clusters_tickets_are_good_for_two_slots_and_for_a_clock_that_is_ahead() {
        let at = |slot: fn() -> u64| ClusterTickets {
            slot,
            ..ClusterTickets::new("/k", format!("{ONE}\n").as_bytes(), b"").unwrap()
        };
        let ticket = at(|| 7).encrypt(b"session").unwrap();
        let opened = [at(|| 5), at(|| 6), at(|| 7), at(|| 8), at(|| 9)].map(|t| t.decrypt(&ticket).is_some());
        assert_eq!(opened, [false, true, true, true, false]);
        let other =
            ClusterTickets { slot: || 7, ..ClusterTickets::new("/k", ONE.as_bytes(), b"asked").unwrap() };
        assert_eq!(other.decrypt(&ticket), None, "another listener's");
        assert_eq!(tickets(ONE).decrypt(&ticket), None, "a file of keys is no cluster's key");
        let why = ClusterTickets::new("/k", b"short-secret", b"").unwrap_err();
        assert!(why.starts_with("/k: ") && !why.contains("short-secret"), "{why}");
    }

    #[test]
    fn a_bad_key_file_is_said_with_its_line_and_without_its_secret() {
        let why = Tickets::from_file("/k", format!("{ONE}\nshort-secret\n").as_bytes(), b"").unwrap_err();
        assert!(why.starts_with("/k:2: ") && !why.contains("short-secret"), "{why}");
        let why = Tickets::from_file("/k", b"# nothing\n", b"").unwrap_err();
        assert!(why.starts_with("/k has no ticket key"), "{why}");
    }
}
