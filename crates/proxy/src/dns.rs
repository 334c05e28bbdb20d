//! One question to a name server, for its health check: RFC 1035 §4, over UDP.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use relais_config::plan::DnsExpect;
use tokio::net::UdpSocket;
use tokio::time::timeout;

use crate::probe::in_words;

/// A question does not ask for more than this (RFC 1035 §4.2.1); what is longer comes cut, with its head.
const LONGEST: usize = 512;

/// Asks `server` for records of this `kind` of `name`, and waits at most `answer`.
///
/// # Errors
/// In a few words: what it said instead, or that it said nothing.
pub(crate) async fn ask(
    server: SocketAddr,
    name: &str,
    kind: u16,
    expect: DnsExpect,
    answer: Duration,
) -> Result<String, String> {
    let id = RandomState::new().hash_one(Instant::now()) as u16;
    let question = question(id, name, kind);
    let code = timeout(answer, exchange(server, &question)).await;
    let code = code.map_err(|_| format!("no answer within {}", crate::probe::Seconds(answer)))?;
    judge(code.map_err(|error| in_words(&error))?, expect)
}

/// The RCODE of the answer. What answers another question is passed over: it may be late, or forged.
async fn exchange(server: SocketAddr, question: &[u8]) -> io::Result<u8> {
    let ours: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(ours).await?;
    socket.connect(server).await?;
    socket.send(question).await?;
    let mut buffer = [0; LONGEST];
    loop {
        let length = socket.recv(&mut buffer).await?;
        if let Some(code) = code(question, &buffer[..length]) {
            return Ok(code);
        }
    }
}

/// A query with recursion desired, one question, class IN.
fn question(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(18 + name.len());
    bytes.extend(id.to_be_bytes());
    bytes.extend([0x01, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8); // a host name's labels have at most 63 characters
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend(1u16.to_be_bytes());
    bytes
}

/// The RCODE, if this answers that question. A server that cannot read a question may leave it out (RCODE 1).
fn code(question: &[u8], answer: &[u8]) -> Option<u8> {
    let (head, rest) = answer.split_at_checked(12)?;
    let (asked, text) = question.split_at_checked(12)?;
    let is_response = head[2] & 0xf8 == 0x80; // QR, and OPCODE 0
    let repeats = match [head[4], head[5]] {
        [0, 0] => true,
        [0, 1] => rest.get(..text.len()).is_some_and(|said| said.eq_ignore_ascii_case(text)),
        _ => false,
    };
    (head[..2] == asked[..2] && is_response && repeats).then_some(head[3] & 0x0f)
}

fn judge(code: u8, expect: DnsExpect) -> Result<String, String> {
    const NAMES: [&str; 6] = ["NOERROR", "FORMERR", "SERVFAIL", "NXDOMAIN", "NOTIMP", "REFUSED"];
    let name = NAMES.get(usize::from(code)).map_or_else(|| format!("RCODE {code}"), |&name| name.to_owned());
    let (well, wanted) = match expect {
        DnsExpect::NoError => (code == 0, "NOERROR"),
        DnsExpect::NxDomain => (code == 3, "NXDOMAIN"),
        DnsExpect::Either => (matches!(code, 0 | 3), "NOERROR or NXDOMAIN"),
        DnsExpect::Any => (true, ""),
    };
    if well { Ok(name) } else { Err(format!("{name}, expected {wanted}")) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// What is found of a server that answers with what `say` makes of the question, one datagram after the other.
    async fn found(
        say: impl Fn(&[u8]) -> Vec<Vec<u8>> + Send + 'static,
        expect: DnsExpect,
    ) -> Result<String, String> {
        let server = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            let mut buffer = [0; 512];
            let (length, from) = server.recv_from(&mut buffer).await.unwrap();
            for answer in say(&buffer[..length]) {
                server.send_to(&answer, from).await.unwrap();
            }
        });
        ask(address, "www.example", 1, expect, LONG).await
    }

    fn answer(question: &[u8], code: u8) -> Vec<u8> {
        let mut answer = question.to_vec();
        (answer[2], answer[3]) = (0x81, 0x80 | code);
        answer
    }

    #[test]
    fn a_question_is_what_the_rfc_says() {
        let expected = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\0\0\x1c\0\x01";
        assert_eq!(question(0x1234, "www.example", 28), expected);
    }

    #[tokio::test]
    async fn a_name_server_is_judged_by_its_answer_and_no_other() {
        use DnsExpect::{Any, Either, NoError, NxDomain};
        let said = |code, expect| found(move |question| vec![answer(question, code)], expect);
        assert_eq!(said(0, NoError).await.as_deref(), Ok("NOERROR"));
        assert_eq!(said(3, NoError).await.unwrap_err(), "NXDOMAIN, expected NOERROR");
        assert_eq!(said(3, NxDomain).await.as_deref(), Ok("NXDOMAIN"));
        assert_eq!(said(0, NxDomain).await.unwrap_err(), "NOERROR, expected NXDOMAIN");
        assert_eq!(said(3, Either).await.as_deref(), Ok("NXDOMAIN"));
        assert_eq!(said(5, Either).await.unwrap_err(), "REFUSED, expected NOERROR or NXDOMAIN");
        assert_eq!(said(2, Any).await.as_deref(), Ok("SERVFAIL"));
        assert_eq!(said(11, NoError).await.unwrap_err(), "RCODE 11, expected NOERROR");
        // Everything that is not the answer to this question is passed over.
        let others = |question: &[u8]| {
            let good = answer(question, 0);
            let changed = |at: usize, byte: u8| {
                let mut other = answer(question, 2);
                other[at] ^= byte;
                other
            };
            vec![
                b"".to_vec(),
                b"short".to_vec(),
                changed(0, 1),                     // another id
                changed(2, 0x80),                  // a question
                changed(2, 0x28),                  // another opcode
                changed(14, 1),                    // another name
                changed(question.len() - 3, 0x1d), // another type
                good[..question.len() - 1].to_vec(),
                [&good[..12], &good[12..].to_ascii_uppercase()].concat(), // the id may look like letters
            ]
        };
        assert_eq!(found(others, NoError).await.as_deref(), Ok("NOERROR"));
        let bare = |question: &[u8]| vec![[&question[..2], b"\x80\x01\0\0\0\0\0\0\0\0"].concat()];
        assert_eq!(found(bare, NoError).await.unwrap_err(), "FORMERR, expected NOERROR");
    }

    proptest::proptest! {
        #[test]
        fn no_answer_is_too_strange(mut bytes: Vec<u8>, id: u16, cut in 0..64usize) {
            let question = question(id, "www.example", 1);
            let _ = code(&question, &bytes);
            bytes.splice(0..0, question[..cut.min(question.len())].iter().copied());
            let _ = code(&question, &bytes);
        }
    }

    #[tokio::test]
    async fn a_name_server_that_is_not_there_is_said_so() {
        let closed = std::net::UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        assert_eq!(ask(closed, "a", 1, DnsExpect::Any, LONG).await.unwrap_err(), "connection refused");
        let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        let short = Duration::from_millis(30);
        let why = ask(silent.local_addr().unwrap(), "a", 1, DnsExpect::Any, short).await.unwrap_err();
        assert_eq!(why, "no answer within 30 ms");
    }
}
