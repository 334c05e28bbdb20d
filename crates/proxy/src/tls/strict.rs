//! The record layer where rustls is laxer, or more silent, than RFC 8446 §5 and OpenSSL: what only the bytes of a
//! client show, judged beside rustls and never instead of it. Who is refused here would have been refused, or cut off
//! without a word, a little later.
//!
//! [`Watch`] sees the headers of records as long as they come in the clear. [`suites`] are rustls's cipher suites,
//! whose openers look once more at what they opened, and whose sealers can seal another last word than rustls has
//! (see [`instead_of_close_notify`]). None of it allocates.

use std::cell::Cell;
use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls::crypto::cipher::{
    AeadKey, InboundOpaqueMessage, InboundPlainMessage, Iv, KeyBlockShape, MessageDecrypter,
    MessageEncrypter, OutboundChunks, OutboundOpaqueMessage, OutboundPlainMessage, Tls12AeadAlgorithm,
    Tls13AeadAlgorithm, UnsupportedOperationError,
};
use rustls::{
    AlertDescription, ConnectionTrafficSecrets, ContentType, Error, OtherError, SupportedCipherSuite,
    Tls12CipherSuite, Tls13CipherSuite,
};

/// Longest text of a record (RFC 8446 §5.1), bytes.
const LONGEST: usize = 1 << 14;
/// Longest record of TLS 1.3 as it is sent (RFC 8446 §5.2), bytes.
const LONGEST_SEALED: usize = LONGEST + 256;
/// Length of a record's header, bytes.
const HEADER: usize = 5;
/// Types of records (RFC 8446 §5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
/// Types of handshake messages (RFC 8446 §4).
const CLIENT_HELLO: u8 = 1;
const FINISHED: u8 = 20;
/// Length of Finished in TLS 1.2 (RFC 5246 §7.4.9), bytes.
const FINISHED_12: usize = 12;

/// What is wrong with what a client sent, as the alert that says it.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) AlertDescription);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "what came breaks the rules of TLS: {:?}", self.0)
    }
}

impl std::error::Error for Refused {}

impl From<Refused> for Error {
    fn from(refused: Refused) -> Error {
        Error::Other(OtherError(Arc::new(refused)))
    }
}

/// Looks at a client's records until they are sealed: their headers, and the beginning of the first ClientHello.
#[derive(Default)]
pub(crate) struct Watch {
    /// Where in a record it is, bytes.
    at: usize,
    /// The record's type and length.
    kind: u8,
    length: usize,
    /// It is the first one of the handshake, a ClientHello, and this is the major version that it asks for.
    greeting: bool,
    greeted: bool,
    major: u8,
    /// A change of ciphers has come.
    changed: bool,
    over: bool,
    refused: Option<AlertDescription>,
}

impl Watch {
    /// Takes the next bytes.
    pub(crate) fn take(&mut self, mut bytes: &[u8]) {
        while !self.over && !bytes.is_empty() {
            let n = if self.at < Self::LOOKED_AT {
                self.take_byte(bytes[0]);
                1
            } else {
                bytes.len().min(HEADER + self.length - self.at)
            };
            (self.at, bytes) = (self.at + n, &bytes[n..]);
            if self.at >= HEADER && self.at == HEADER + self.length {
                self.at = 0;
            }
        }
    }

    /// The alert that what came is worth.
    pub(crate) fn refused(&self) -> Option<AlertDescription> {
        self.refused
    }

    /// Up to the version in a ClientHello.
    const LOOKED_AT: usize = 11;

    fn take_byte(&mut self, byte: u8) {
        match self.at {
            // What is sealed, no TLS at all, or of a type that rustls refuses.
            0 if !matches!(byte, CHANGE_CIPHER_SPEC | ALERT | HANDSHAKE) => self.over = true,
            // Clients send one (RFC 8446 appendix D.4, RFC 5246 §7.1).
            0 if byte == CHANGE_CIPHER_SPEC && self.changed => {
                self.refuse(AlertDescription::UnexpectedMessage)
            }
            0 => self.kind = byte,
            3 => self.length = usize::from(byte) << 8,
            4 => {
                self.length |= usize::from(byte);
                match self.kind {
                    CHANGE_CIPHER_SPEC if self.length != 1 => {
                        self.refuse(AlertDescription::UnexpectedMessage)
                    }
                    _ if self.length > LONGEST => self.refuse(AlertDescription::RecordOverflow),
                    _ => {}
                }
            }
            5 if self.kind == CHANGE_CIPHER_SPEC => match byte {
                1 => self.changed = true,
                _ => self.refuse(AlertDescription::UnexpectedMessage),
            },
            5 => {
                self.greeting = self.kind == HANDSHAKE && byte == CLIENT_HELLO && !self.greeted;
                self.greeted |= self.kind == HANDSHAKE;
            }
            9 => self.major = byte,
            // SSL 3 or what was before it (RFC 8446 appendix D.5).
            10 if self.greeting && [self.major, byte] < [3, 1] => {
                self.refuse(AlertDescription::ProtocolVersion)
            }
            _ => {}
        }
    }

    fn refuse(&mut self, alert: AlertDescription) {
        (self.refused, self.over) = (Some(alert), true);
    }
}

/// What must hold for whatever comes: the verdict does not depend on how it was cut. For `fuzz/`.
///
/// # Panics
/// If it does.
pub fn fuzz(input: &[u8]) {
    let cut = input.first().map_or(0, |byte| usize::from(*byte) % input.len());
    let watched = |pieces: &[&[u8]]| {
        let mut watch = Watch::default();
        pieces.iter().for_each(|piece| watch.take(piece));
        watch.refused()
    };
    let taken = |pieces: &[&[u8]]| {
        let mut messages = Messages::new(32);
        pieces.iter().filter(|piece| !piece.is_empty()).try_for_each(|piece| messages.take(piece)).is_ok()
    };
    let (begin, end) = input.split_at(cut);
    assert_eq!(watched(&[input]), watched(&[begin, end]), "cut at {cut}");
    assert_eq!(taken(&[input]), taken(&[begin, end]), "cut at {cut}");
}

thread_local! {
    static LAST_WORD: Cell<Option<AlertDescription>> = const { Cell::new(None) };
}

/// Has `alert` sealed where rustls seals `close_notify`, while `close` runs: rustls cannot be told to send one.
pub(crate) fn instead_of_close_notify(alert: AlertDescription, close: impl FnOnce()) {
    LAST_WORD.set(Some(alert));
    close();
    LAST_WORD.set(None);
}

/// The cipher suites of `from`, with a second look.
pub(crate) fn suites(from: &[SupportedCipherSuite]) -> Vec<SupportedCipherSuite> {
    // They have to live as long as the process: made once, of the one set of suites that there is.
    static STRICT: LazyLock<Vec<SupportedCipherSuite>> = LazyLock::new(|| {
        rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES.iter().map(|suite| stricter(*suite)).collect()
    });
    from.iter()
        .filter_map(|one| STRICT.iter().find(|strict| strict.suite() == one.suite()).copied())
        .collect()
}

fn stricter(suite: SupportedCipherSuite) -> SupportedCipherSuite {
    match suite {
        SupportedCipherSuite::Tls13(suite) => {
            let finished = suite.common.hash_provider.output_len();
            let aead_alg = Box::leak(Box::new(Strict13 { aead: suite.aead_alg, finished }));
            let strict = Tls13CipherSuite {
                common: common(&suite.common),
                hkdf_provider: suite.hkdf_provider,
                aead_alg,
                quic: None,
            };
            SupportedCipherSuite::Tls13(Box::leak(Box::new(strict)))
        }
        SupportedCipherSuite::Tls12(suite) => {
            let strict = Tls12CipherSuite {
                common: common(&suite.common),
                prf_provider: suite.prf_provider,
                kx: suite.kx,
                sign: suite.sign,
                aead_alg: Box::leak(Box::new(Strict12(suite.aead_alg))),
            };
            SupportedCipherSuite::Tls12(Box::leak(Box::new(strict)))
        }
    }
}

fn common(of: &rustls::crypto::CipherSuiteCommon) -> rustls::crypto::CipherSuiteCommon {
    rustls::crypto::CipherSuiteCommon {
        suite: of.suite,
        hash_provider: of.hash_provider,
        confidentiality_limit: of.confidentiality_limit,
    }
}

struct Strict13 {
    aead: &'static dyn Tls13AeadAlgorithm,
    finished: usize,
}

impl Tls13AeadAlgorithm for Strict13 {
    fn encrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageEncrypter> {
        Box::new(Sealer(self.aead.encrypter(key, iv)))
    }

    fn decrypter(&self, key: AeadKey, iv: Iv) -> Box<dyn MessageDecrypter> {
        let messages = Messages::new(self.finished);
        Box::new(Opener { opener: self.aead.decrypter(key, iv), is_13: true, messages })
    }

    fn key_len(&self) -> usize {
        self.aead.key_len()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: Iv,
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.aead.extract_keys(key, iv)
    }

    fn fips(&self) -> bool {
        self.aead.fips()
    }
}

struct Strict12(&'static dyn Tls12AeadAlgorithm);

impl Tls12AeadAlgorithm for Strict12 {
    fn encrypter(&self, key: AeadKey, iv: &[u8], extra: &[u8]) -> Box<dyn MessageEncrypter> {
        Box::new(Sealer(self.0.encrypter(key, iv, extra)))
    }

    fn decrypter(&self, key: AeadKey, iv: &[u8]) -> Box<dyn MessageDecrypter> {
        let messages = Messages::new(FINISHED_12);
        Box::new(Opener { opener: self.0.decrypter(key, iv), is_13: false, messages })
    }

    fn key_block_shape(&self) -> KeyBlockShape {
        self.0.key_block_shape()
    }

    fn extract_keys(
        &self,
        key: AeadKey,
        iv: &[u8],
        explicit: &[u8],
    ) -> Result<ConnectionTrafficSecrets, UnsupportedOperationError> {
        self.0.extract_keys(key, iv, explicit)
    }

    fn fips(&self) -> bool {
        self.0.fips()
    }
}

struct Sealer(Box<dyn MessageEncrypter>);

impl MessageEncrypter for Sealer {
    fn encrypt(&mut self, msg: OutboundPlainMessage<'_>, seq: u64) -> Result<OutboundOpaqueMessage, Error> {
        if msg.typ == ContentType::Alert
            && let Some(alert) = LAST_WORD.get()
        {
            let fatal = [2, u8::from(alert)];
            let payload = OutboundChunks::Single(&fatal);
            return self.0.encrypt(OutboundPlainMessage { payload, ..msg }, seq);
        }
        self.0.encrypt(msg, seq)
    }

    fn encrypted_payload_len(&self, payload_len: usize) -> usize {
        self.0.encrypted_payload_len(payload_len)
    }
}

struct Opener {
    opener: Box<dyn MessageDecrypter>,
    is_13: bool,
    messages: Messages,
}

impl MessageDecrypter for Opener {
    fn decrypt<'a>(
        &mut self,
        msg: InboundOpaqueMessage<'a>,
        seq: u64,
    ) -> Result<InboundPlainMessage<'a>, Error> {
        if self.is_13 {
            // Nothing but what is sealed comes any more (RFC 8446 §5.2), and none is longer, whatever is in it.
            if msg.typ != ContentType::ApplicationData {
                return Err(Refused(AlertDescription::UnexpectedMessage).into());
            }
            if msg.payload.len() > LONGEST_SEALED {
                return Err(Error::PeerSentOversizedRecord);
            }
        }
        let plain = self.opener.decrypt(msg, seq)?;
        match plain.typ {
            ContentType::ApplicationData => {}
            ContentType::Handshake => self.messages.take(plain.payload)?,
            // "Zero-length fragments of Alert types MUST NOT be sent" (RFC 8446 §5.1).
            ContentType::Alert if plain.payload.is_empty() => {
                return Err(Refused(AlertDescription::UnexpectedMessage).into());
            }
            _ => {}
        }
        Ok(plain)
    }
}

/// Looks at the headers of handshake messages.
struct Messages {
    finished: usize,
    head: [u8; 4],
    have: usize,
    /// Bytes of this message that are still to come.
    left: usize,
}

impl Messages {
    fn new(finished: usize) -> Messages {
        Messages { finished, head: [0; 4], have: 0, left: 0 }
    }

    /// Takes the text of a record; a Finished has the length of a hash, and no other (RFC 8446 §4.4.4).
    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Refused> {
        if bytes.is_empty() {
            return Err(Refused(AlertDescription::UnexpectedMessage)); // as of alerts
        }
        while !bytes.is_empty() {
            let n = bytes.len().min(self.left);
            (self.left, bytes) = (self.left - n, &bytes[n..]);
            let n = bytes.len().min(4 - self.have);
            if self.left > 0 || n == 0 {
                continue;
            }
            self.head[self.have..self.have + n].copy_from_slice(&bytes[..n]);
            (self.have, bytes) = (self.have + n, &bytes[n..]);
            if self.have == 4 {
                let [kind, high, middle, low] = self.head;
                self.have = 0;
                self.left = u32::from_be_bytes([0, high, middle, low]) as usize;
                if kind == FINISHED && self.left != self.finished {
                    return Err(Refused(AlertDescription::DecodeError));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(pieces: &[&[u8]]) -> Option<AlertDescription> {
        let mut watch = Watch::default();
        pieces.iter().for_each(|piece| watch.take(piece));
        watch.refused()
    }

    const HELLO: [u8; 12] = [22, 3, 1, 0, 7, 1, 0, 0, 3, 3, 3, 0];

    #[test]
    fn records_are_judged_however_they_are_cut() {
        let cases: [(&[u8], Option<AlertDescription>); 8] = [
            (&HELLO, None),
            (&[22, 3, 1, 0, 7, 1, 0, 0, 3, 3, 0, 0], Some(AlertDescription::ProtocolVersion)),
            (&[22, 3, 1, 0x40, 1], Some(AlertDescription::RecordOverflow)),
            (&[20, 3, 3, 0, 1, 1], None),
            (&[20, 3, 3, 0, 1, 0], Some(AlertDescription::UnexpectedMessage)),
            (&[20, 3, 3, 0, 0], Some(AlertDescription::UnexpectedMessage)),
            (&[20, 3, 3, 0, 1, 1, 20], Some(AlertDescription::UnexpectedMessage)),
            (b"GET / HTTP/1.1\r\n\r\n", None),
        ];
        for (bytes, expected) in cases {
            let bytes = [&HELLO[..], bytes].concat();
            let bytes =
                if expected == Some(AlertDescription::ProtocolVersion) { &bytes[12..] } else { &bytes[..] };
            assert_eq!(verdict(&[bytes]), expected, "{bytes:?}");
            for cut in 0..bytes.len() {
                assert_eq!(verdict(&[&bytes[..cut], &bytes[cut..]]), expected, "{bytes:?} cut at {cut}");
            }
        }
    }

    #[test]
    fn what_is_sealed_is_not_looked_at() {
        assert_eq!(verdict(&[&[23, 3, 3, 0, 1, 0], &[20, 3, 3, 0, 9]]), None);
    }

    #[test]
    fn a_finished_has_the_length_of_its_hash_however_it_is_cut() {
        let good = [&[11, 0, 0, 5, 1, 2, 3, 4, 5][..], &[20, 0, 0, 32], &[7; 32]].concat();
        let bad = [&[11, 0, 0, 5, 1, 2, 3, 4, 5][..], &[20, 0, 0, 31], &[7; 31]].concat();
        let judge = |pieces: &[&[u8]]| {
            let mut messages = Messages::new(32);
            pieces.iter().try_for_each(|piece| messages.take(piece)).is_ok()
        };
        for cut in 1..good.len() - 1 {
            assert!(judge(&[&good[..cut], &good[cut..]]), "cut at {cut}");
        }
        for cut in 1..bad.len() - 1 {
            assert!(!judge(&[&bad[..cut], &bad[cut..]]), "cut at {cut}");
        }
        assert!(!judge(&[b""]), "no fragment is empty");
    }

    #[test]
    fn every_suite_of_the_provider_is_there_in_its_order() {
        let all = rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES;
        let names = |suites: &[SupportedCipherSuite]| suites.iter().map(|s| s.suite()).collect::<Vec<_>>();
        assert_eq!(names(&suites(all)), names(all));
    }
}
