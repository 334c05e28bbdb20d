//! The probe against servers that do a known thing: what it reports must be that. No root needed.

#![allow(clippy::unwrap_used)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use relais_lab::probe::{Options, Probe, Sample, Stream};
use relais_lab::report::Seen;

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What the server does with requests from now on.
#[derive(Default)]
struct Mood {
    stalled: AtomicBool,
    resetting: AtomicBool,
}

fn wait_while_stalled(mood: &Mood) {
    while mood.stalled.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

fn serve(mut stream: TcpStream, mood: &Mood) {
    let mut request = [0; 1024];
    while let Ok(length) = stream.read(&mut request) {
        wait_while_stalled(mood);
        if length == 0 {
            return;
        }
        if mood.resetting.load(Ordering::SeqCst) {
            // Closing with a time of zero to linger sends a reset.
            socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).unwrap();
            return;
        }
        if stream.write_all(ANSWER).is_err() {
            return;
        }
    }
}

fn server(mood: Arc<Mood>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mood = mood.clone();
            std::thread::spawn(move || serve(stream.unwrap(), &mood));
        }
    });
    address
}

/// Probes for 200 ms, does `disturb`, probes for 300 ms more; the samples, and how long all of it took.
fn probed(mood: &Arc<Mood>, disturb: impl FnOnce(&Mood)) -> (Vec<Sample>, Duration) {
    let samples = Arc::new(Mutex::new(Vec::new()));
    let sink = samples.clone();
    let probe = Probe::start(None, Options::new(server(mood.clone())), move |s| sink.lock().unwrap().push(s))
        .unwrap();
    let started = probe.started();
    let count = |at_least: usize| {
        let deadline = Instant::now() + Duration::from_secs(10);
        while samples.lock().unwrap().len() < at_least {
            assert!(Instant::now() < deadline, "the probe sends nothing");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    count(80);
    disturb(mood);
    let so_far = samples.lock().unwrap().len();
    count(so_far + 120);
    let until = started.elapsed();
    let jitter = probe.finish().unwrap();
    println!("the probe was late by {jitter:?}");
    let samples = samples.lock().unwrap().clone();
    (samples, until)
}

fn seen((samples, until): &(Vec<Sample>, Duration), stream: Stream) -> Seen {
    Seen::of(samples, stream, Duration::ZERO, *until, Duration::from_millis(5))
}

#[test]
fn a_stall_of_300_ms_is_measured_as_300_ms() {
    let mood = Arc::new(Mood::default());
    let mut stall = Duration::ZERO;
    let result = probed(&mood, |mood| {
        let begin = Instant::now();
        mood.stalled.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(300)); // the stall itself
        mood.stalled.store(false, Ordering::SeqCst);
        stall = begin.elapsed();
    });
    let stall_ms = stall.as_secs_f64() * 1000.0;
    for stream in [Stream::New, Stream::KeepAlive] {
        let seen = seen(&result, stream);
        assert!(
            (seen.longest_outage_ms - stall_ms).abs() <= 20.0,
            "{stream:?}: {stall_ms} is seen as {seen:?}"
        );
        assert!((seen.max_ms - stall_ms).abs() <= 20.0, "{stream:?}: {stall_ms} is seen as {seen:?}");
        assert_eq!(seen.failed, 0, "{seen:?}");
        // Open loop: every request that was due in the stall is late.
        assert!(seen.requests as f64 >= 0.9 * result.1.as_millis() as f64 / 5.0, "{seen:?}");
    }
}

#[test]
fn a_reset_is_a_failure_and_on_a_reused_connection_it_is_tried_once_more() {
    let mood = Arc::new(Mood::default());
    let result = probed(&mood, |mood| {
        mood.resetting.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(100)); // the time of resets
        mood.resetting.store(false, Ordering::SeqCst);
    });
    for stream in [Stream::New, Stream::KeepAlive] {
        let seen = seen(&result, stream);
        assert!((10..=40).contains(&seen.failed), "{seen:?}");
        assert_eq!(seen.reasons["reset before the answer"], seen.failed);
        assert!((80.0..=150.0).contains(&seen.longest_outage_ms), "{seen:?}");
    }
    // The first of them was on a reused connection and had a second chance; the later ones had fresh ones.
    assert_eq!(seen(&result, Stream::KeepAlive).retried, 1);
}

#[test]
fn nobody_there_is_refused() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let samples = Arc::new(Mutex::new(Vec::new()));
    let sink = samples.clone();
    let probe = Probe::start(None, Options::new(address), move |s| sink.lock().unwrap().push(s)).unwrap();
    while samples.lock().unwrap().len() < 20 {
        std::thread::sleep(Duration::from_millis(1));
    }
    probe.finish().unwrap();
    let samples = samples.lock().unwrap().clone();
    let seen =
        Seen::of(&samples, Stream::New, Duration::ZERO, Duration::from_millis(50), Duration::from_millis(5));
    assert_eq!(seen.failed, seen.requests);
    assert_eq!(seen.reasons["refused"], seen.failed);
}
