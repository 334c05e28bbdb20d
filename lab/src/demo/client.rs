//! The client: a machine of the demo's network on which the lab's probe asks every 5 ms, a student enrols five times a second, and the visitor's own browser comes through.
//!
//! A student who gets no receipt sends the same enrolment with the same token again until one comes. What
//! has a receipt and is not in the store is lost; there must be none.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener as StdTcpListener};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::outage::{PATIENCE_MS, Sample};
use super::platform::Platform;
use super::state::State;
use crate::app::store::Store;
use crate::probe::{Options, Probe, Stream};

/// A request without an answer after this long has failed.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time between two enrolments.
const ENROL_EVERY: Duration = Duration::from_millis(200);
/// How long a student waits before trying again, and how often at most.
const TRY_AGAIN_AFTER: Duration = Duration::from_millis(100);
const MAX_TRIES: u32 = 600;
/// Connections of the visitor's browser at one time.
const MAX_VISITORS: usize = 256;
/// Longest answer that is read, bytes.
const MAX_ANSWER: u64 = 64 * 1024;

/// Where the platform is found.
type Doors = Arc<[SocketAddr]>;

/// Starts the client; it ends when the probe is dropped and the process ends.
pub(crate) fn start(platform: &Platform, state: &Arc<State>, visitors: StdTcpListener) -> io::Result<Probe> {
    let machine = platform.client_netns().cloned();
    let doors: Doors = platform.doors().into();
    // On loopback the probe goes the visitor's way, which tries one balancer after the other.
    let target = if platform.has_network() { doors[0] } else { visitors.local_addr()? };
    let timeout = Duration::from_millis(PATIENCE_MS);
    let options = Options { path: "/enrolments".into(), timeout, ..Options::new(target) };
    let probed = Arc::clone(state);
    let probe = Probe::start(machine.as_ref(), options, move |sample| {
        if sample.stream == Stream::New {
            let took = sample.done.saturating_sub(sample.intended);
            let sent = probed.started.elapsed().saturating_sub(took);
            let took_us = u32::try_from(took.as_micros()).unwrap_or(u32::MAX);
            probed.sample(Sample {
                sent_ms: sent.as_millis() as u64,
                took_us,
                answered: sample.outcome.is_ok(),
            });
        }
    })?;
    let store = platform.store();
    let state = Arc::clone(state);
    let run = move || -> io::Result<()> {
        machine.map_or(Ok(()), |netns| netns.enter())?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let visitors = TcpListener::from_std(visitors)?;
            tokio::join!(students(&doors, &state, store), relay(&doors, visitors));
            Ok(())
        })
    };
    std::thread::Builder::new().name("client".into()).spawn(move || {
        if let Err(error) = run() {
            tracing::error!("the client's machine cannot be used: {error}");
        }
    })?;
    Ok(probe)
}

/// A connection to the first door that opens.
async fn connect(doors: &[SocketAddr]) -> io::Result<TcpStream> {
    let mut last = io::Error::other("there is no door");
    for door in doors {
        match TcpStream::connect(door).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Sends one request on a new connection; its answer's status and everything after the head.
async fn ask(doors: &[SocketAddr], request: &str) -> io::Result<(u16, String)> {
    let mut stream = connect(doors).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.take(MAX_ANSWER).read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or(io::ErrorKind::UnexpectedEof)?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    Ok((status.ok_or(io::ErrorKind::InvalidData)?, body.to_owned()))
}

const FAMILY_NAMES: [&str; 12] = [
    "Benali", "Bouzid", "Cherif", "Djebbar", "Ferhat", "Haddad", "Kaci", "Mansouri", "Meziane", "Rahmani",
    "Saïdi", "Zerrouki",
];
const FIRST_NAMES: [&str; 11] =
    ["Amina", "Yacine", "Lina", "Sofiane", "Meriem", "Rayan", "Nour", "Walid", "Ines", "Karim", "Samia"];
const SCHOOLS: [(&str, &str); 7] = [
    ("USTHB", "Alger"),
    ("Université Mentouri", "Constantine"),
    ("Université d’Oran 1", "Oran"),
    ("Université Badji Mokhtar", "Annaba"),
    ("Université Abou Bekr Belkaïd", "Tlemcen"),
    ("Université Mouloud Mammeri", "Tizi Ouzou"),
    ("Université Kasdi Merbah", "Ouargla"),
];

/// The body of the `n`-th student's request.
fn form(n: u64, token: &str) -> String {
    let pick = |names: &[&'static str]| names[n as usize % names.len()];
    let (school, wilaya) = SCHOOLS[n as usize % SCHOOLS.len()];
    let level = if n.is_multiple_of(3) { "Doctorat" } else { "Master" };
    let fields = [
        ("family_name", pick(&FAMILY_NAMES)),
        ("first_name", pick(&FIRST_NAMES)),
        ("establishment", school),
        ("wilaya", wilaya),
        ("level", level),
        ("token", token),
    ];
    let encode = |text: &str| -> String {
        let byte = |b: u8| {
            if b.is_ascii_alphanumeric() || b == b'-' {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        };
        text.bytes().map(byte).collect()
    };
    fields.map(|(name, text)| format!("{name}={}", encode(text))).join("&")
}

/// Enrols students, and sees to it that what has a receipt is in the store: each receipt at once, and all
/// of them again every ten seconds.
async fn students(doors: &Doors, state: &Arc<State>, store: PathBuf) {
    let (sender, mut receipts) = mpsc::unbounded_channel::<(String, u64)>();
    let mut held: BTreeMap<String, u64> = BTreeMap::new();
    let mut store = match Store::open(&store) {
        Ok(store) => store,
        Err(error) => return tracing::error!("the enrolments cannot be read: {error}"),
    };
    let mut ticks = interval(ENROL_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for n in 0_u64.. {
        ticks.tick().await;
        let new: Vec<_> = std::iter::from_fn(|| receipts.try_recv().ok()).collect();
        if let Err(error) = store.refresh() {
            tracing::error!("the enrolments cannot be read: {error}");
        }
        let is_lost = |(token, id): (&String, &u64)| store.receipt(token) != Some(*id);
        let lost_now = new.iter().filter(|(token, id)| is_lost((token, id))).count() as u64;
        held.extend(new);
        let lost =
            n.is_multiple_of(50).then(|| held.iter().filter(|receipt| is_lost(*receipt)).count() as u64);
        state.enrolments(|seen| {
            seen.begun += 1;
            seen.acknowledged = held.len() as u64;
            seen.lost = lost.unwrap_or(seen.lost + lost_now);
            (seen.twice, seen.in_store) = (store.repeated(), store.count());
        });
        let token = format!("student-{n}");
        tokio::spawn(student(n, token, Arc::clone(doors), Arc::clone(state), sender.clone()));
    }
}

/// One student: tries until there is a receipt.
async fn student(
    n: u64,
    token: String,
    doors: Doors,
    state: Arc<State>,
    receipts: mpsc::UnboundedSender<(String, u64)>,
) {
    let body = form(n, &token);
    let request = format!(
        "POST /enrolments HTTP/1.1\r\nHost: progres\r\nConnection: close\r\nAccept: application/json\r\n\
         Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let begun = Instant::now();
    for _ in 0..MAX_TRIES {
        if let Ok(Ok((201, answer))) = timeout(PATIENCE, ask(&doors, &request)).await
            && let Some(id) =
                serde_json::from_str::<serde_json::Value>(&answer).ok().and_then(|a| a["id"].as_u64())
        {
            let waited = begun.elapsed().as_millis() as u64;
            state.enrolments(|seen| {
                seen.longest_wait_ms = seen.longest_wait_ms.max(waited);
            });
            let _ = receipts.send((token, id));
            return;
        }
        state.enrolments(|seen| seen.tried_again += 1);
        tokio::time::sleep(TRY_AGAIN_AFTER).await;
    }
    state.enrolments(|seen| seen.given_up += 1);
}

/// Brings the visitor's browser to the platform.
async fn relay(doors: &Doors, visitors: TcpListener) {
    let places = Arc::new(Semaphore::new(MAX_VISITORS));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        let Ok((mut visitor, _)) = visitors.accept().await else {
            tokio::time::sleep(Duration::from_millis(10)).await; // out of descriptors: let some come back
            continue;
        };
        let doors = Arc::clone(doors);
        tokio::spawn(async move {
            if let Ok(Ok(mut platform)) = timeout(PATIENCE * 5, connect(&doors)).await {
                let _ = tokio::io::copy_bidirectional(&mut visitor, &mut platform).await;
            }
            drop(place);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_students_form_is_one_that_the_application_takes() {
        for n in 0..100 {
            let body = form(n, &format!("student-{n}"));
            assert!(body.is_ascii() && !body.contains(' '), "{body}");
            assert_eq!(body.split('&').count(), 6, "{body}");
        }
        assert!(
            form(10, "student-10").starts_with("family_name=Sa%C3%AFdi&first_name=Samia&"),
            "{}",
            form(10, "x")
        );
    }
}
