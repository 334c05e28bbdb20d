//! hyper as the reader of what we forward: another house's idea of where a message ends.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::rt::ReadBufCursor;
use hyper::service::service_fn;

use crate::{Message, Reading};

/// More turns than any message of [`crate::mutate::MOST_BYTES`] takes.
const TURNS: usize = 1_000_000;
/// More fields than we let through.
const FIELDS: usize = 512;

/// A connection whose other end has sent all these bytes and closed, and swallows what it is sent.
struct Feed {
    bytes: Vec<u8>,
    at: usize,
    /// Nothing is read before something was written: a client asks first.
    gate: bool,
}

impl hyper::rt::Read for Feed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buf: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        if self.gate {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let n = buf.remaining().min(self.bytes.len() - self.at);
        let at = self.at;
        buf.put_slice(&self.bytes[at..at + n]);
        self.at += n;
        Poll::Ready(Ok(()))
    }
}

impl hyper::rt::Write for Feed {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.gate = false;
        Poll::Ready(Ok(buf.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// Runs a future that waits for nothing but itself; `None` if it does not come to an end.
fn turn<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    for _ in 0..TURNS {
        if let Poll::Ready(value) = future.as_mut().poll(&mut cx) {
            return Some(value);
        }
    }
    None
}

fn fields(map: &hyper::HeaderMap) -> Vec<(String, Vec<u8>)> {
    map.iter().map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec())).collect()
}

/// The requests that hyper's server finds on a connection that ended behind `bytes`.
pub fn requests(bytes: &[u8]) -> Reading {
    let reading = Rc::new(RefCell::new(Reading::default()));
    let notes = reading.clone();
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let notes = notes.clone();
        async move {
            let (head, body) = request.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            let message = Message {
                method: head.method.to_string(),
                target: head.uri.to_string(),
                fields: fields(&head.headers),
                body,
            };
            notes.borrow_mut().whole.push(message.sorted());
            Ok::<_, hyper::Error>(hyper::Response::new(Empty::<Bytes>::new()))
        }
    });
    let feed = Feed { bytes: bytes.to_vec(), at: 0, gate: false };
    let connection = hyper::server::conn::http1::Builder::new()
        .half_close(true)
        .max_headers(FIELDS)
        .serve_connection(feed, service);
    let end = turn(connection);
    let mut reading = std::mem::take(&mut *reading.borrow_mut());
    reading.refused = match end {
        None => Some("hyper does not come to an end".into()),
        Some(Err(error)) => Some(error.to_string()),
        Some(Ok(())) => None,
    };
    reading
}

/// The response that hyper's client finds to a request (`head`: HEAD), on a connection that ended behind `bytes`.
pub fn response(bytes: &[u8], head: bool) -> Reading {
    let feed = Feed { bytes: bytes.to_vec(), at: 0, gate: true };
    let whole = turn(async {
        let (mut sender, connection) =
            hyper::client::conn::http1::Builder::new().max_headers(FIELDS).handshake(feed).await?;
        let method = if head { hyper::Method::HEAD } else { hyper::Method::GET };
        let mut request = hyper::Request::new(Empty::<Bytes>::new());
        *request.method_mut() = method;
        request.headers_mut().insert("host", hyper::header::HeaderValue::from_static("h"));
        let answer = sender.send_request(request);
        let mut connection = Box::pin(connection);
        let mut exchange = Box::pin(async move {
            let (head, body) = answer.await?.into_parts();
            let body = body.collect().await?.to_bytes().to_vec();
            let target = head.status.as_str().to_owned();
            Ok::<_, hyper::Error>(Message {
                method: String::new(),
                target,
                fields: fields(&head.headers),
                body,
            })
        });
        let mut ended = false;
        std::future::poll_fn(|cx| {
            if !ended && connection.as_mut().poll(cx).is_ready() {
                ended = true;
            }
            exchange.as_mut().poll(cx)
        })
        .await
    });
    match whole {
        None => Reading { refused: Some("hyper does not come to an end".into()), ..Reading::default() },
        Some(Err(error)) => Reading { refused: Some(error.to_string()), ..Reading::default() },
        Some(Ok(message)) => Reading { whole: vec![message.sorted()], refused: None },
    }
}
