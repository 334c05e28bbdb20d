//! A client with one long download: slow on purpose, so that it is under way while something is broken. The drills that
//! move an address as planned judge by it, for nothing else shows that a connection went on.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::application::DOWNLOAD;
use crate::netns::Netns;

/// So long may nothing come.
const SILENCE: Duration = Duration::from_secs(5);
/// What is read at a time.
const PIECE: usize = 64 * 1024;

/// A download under way.
#[derive(Debug)]
pub(crate) struct Download(JoinHandle<io::Result<()>>);

impl Download {
    /// Begins one that takes `takes` in `netns`; the first piece of it has come when this returns.
    ///
    /// # Errors
    /// If it does not begin.
    pub(crate) fn begin(netns: &Netns, target: SocketAddr, takes: Duration) -> io::Result<Download> {
        let (begun, has_begun) = std::sync::mpsc::channel();
        let netns = netns.clone();
        let work = move || {
            netns.enter()?;
            let mut stream = TcpStream::connect(target)?;
            stream.set_read_timeout(Some(SILENCE))?;
            write!(stream, "GET {} HTTP/1.1\r\nHost: lab\r\n\r\n", DOWNLOAD.0)?;
            let mut piece = vec![0; PIECE];
            let (mut got, mut length) = (stream.read(&mut piece)?, None);
            let _ = begun.send(());
            let begin = Instant::now();
            while length.is_none_or(|length| got < length) {
                if length.is_none() {
                    length = Some(whole(&piece[..got])?);
                }
                let due = takes.mul_f64(got as f64 / DOWNLOAD.1 as f64);
                std::thread::sleep(due.saturating_sub(begin.elapsed())); // its slowness
                match stream.read(&mut piece)? {
                    0 => return Err(io::Error::other(format!("it ended after {got} bytes"))),
                    n => got += n,
                }
            }
            Ok(())
        };
        let thread = std::thread::Builder::new().name("download".into()).spawn(work)?;
        match has_begun.recv() {
            Ok(()) => Ok(Download(thread)),
            Err(_) => {
                Err(thread.join().map_or_else(|_| panicked(), |done| done.err().unwrap_or_else(panicked)))
            }
        }
    }

    /// Waits for its end: whether all of it came.
    ///
    /// # Errors
    /// What broke it.
    pub(crate) fn finish(self) -> io::Result<()> {
        self.0.join().map_err(|_| panicked())?
    }
}

/// Length of head and body.
fn whole(beginning: &[u8]) -> io::Result<usize> {
    let head = beginning.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    match head {
        Some(head) if beginning.starts_with(b"HTTP/1.1 200 ") => Ok(head + DOWNLOAD.1),
        _ => Err(io::Error::other("it was not answered with 200")),
    }
}

fn panicked() -> io::Error {
    io::Error::other("the download panicked")
}
