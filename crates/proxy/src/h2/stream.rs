//! One stream of an HTTP/2 connection as a virtual HTTP/1.1 connection: it is read from and written to as text.
//!
//! Nothing is held here but what one frame brought: what is read is given back to the peer's flow control as it is
//! taken, and what is written is refused (`WouldBlock`) where the peer's windows, or the library's send buffer, have
//! no room. So each end of an exchange waits for the slower other one, as between two sockets.

use std::cell::{Cell, RefCell};
use std::io;
use std::task::{Context, Poll, Waker};

use bytes::{Buf, Bytes, BytesMut};
use h2::client::{ResponseFuture, SendRequest};
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::HeaderMap;
use relais_http::request::Edit;
use relais_http::{Request, Response};

use super::decode::Decode;
use super::text::{self, Form, Known, Malformed};
use super::upstream::Link;
use crate::limits;

/// A stream, as the session code knows a connection.
pub(crate) struct StreamIo {
    read: RefCell<Read>,
    write: RefCell<Write>,
    /// An extended CONNECT (RFC 8441): no message, but a tunnel.
    tunnel: Cell<bool>,
}

/// What comes.
struct Read {
    source: Source,
    form: Form,
    /// Text that is to be read before `data`.
    text: Vec<u8>,
    text_at: usize,
    /// What is left of the data that came last.
    data: Bytes,
    /// Text that is to be read behind it.
    behind: Option<Vec<u8>>,
}

enum Source {
    /// Towards a server: no request was sent yet.
    Unasked,
    /// Towards a server: its response is awaited. With whether the request was HEAD.
    Response(Box<ResponseFuture>, bool),
    /// A body.
    Body(RecvStream),
    /// Behind the end.
    End,
    /// It broke off.
    Broken(io::ErrorKind),
}

/// What goes.
struct Write {
    target: Target,
    /// The beginning of a head that came in pieces.
    head: Vec<u8>,
    decode: Decode,
    trailers: HeaderMap,
}

enum Target {
    /// To a client: the head was not written yet. With whether it asked with HEAD, and for a tunnel.
    Response(SendResponse<Bytes>, bool),
    /// To a server: the head was not written yet.
    Request(Box<Ready>),
    /// The body.
    Body(SendStream<Bytes>),
    /// All is written.
    Done,
}

/// A connection to a server that has room for one stream more.
struct Ready {
    send: SendRequest<Bytes>,
    link: Link,
}

impl StreamIo {
    /// A stream that a client opened.
    ///
    /// # Errors
    /// If the request is malformed: the stream is then to be reset.
    pub(crate) fn accepted(
        request: http::Request<RecvStream>,
        send: SendResponse<Bytes>,
    ) -> Result<StreamIo, (SendResponse<Bytes>, Malformed)> {
        let (parts, mut body) = request.into_parts();
        let (data, known) = if body.is_end_stream() {
            (Bytes::new(), Known { none: true, whole: None })
        } else {
            early(&mut body)
        };
        let mut head = Vec::with_capacity(512);
        let form = match text::request(&mut head, &parts, known) {
            Ok(form) => form,
            Err(malformed) => return Err((send, malformed)),
        };
        let tunnel = parts.extensions.get::<h2::ext::Protocol>().is_some();
        let mut read = Read {
            source: if known.none { Source::End } else { Source::Body(body) },
            form,
            text: head,
            text_at: 0,
            data: Bytes::new(),
            behind: None,
        };
        read.stash(data);
        if known.whole.is_some() {
            read.end(None);
        }
        let write = Write::new(Target::Response(send, parts.method == http::Method::HEAD));
        Ok(StreamIo { read: RefCell::new(read), write: RefCell::new(write), tunnel: Cell::new(tunnel) })
    }

    /// A stream to be opened to a server.
    pub(crate) fn to_server(send: SendRequest<Bytes>, link: Link) -> StreamIo {
        let read = Read {
            source: Source::Unasked,
            form: Form::Nothing,
            text: Vec::new(),
            text_at: 0,
            data: Bytes::new(),
            behind: None,
        };
        let write = Write::new(Target::Request(Box::new(Ready { send, link })));
        StreamIo { read: RefCell::new(read), write: RefCell::new(write), tunnel: Cell::new(false) }
    }

    /// Reads text into `room`; 0 is the end.
    ///
    /// # Errors
    /// `WouldBlock` if nothing is there; `ConnectionRefused` if the server has not touched the request, so that it may
    /// be repeated (RFC 9113 §8.7); else that the stream broke off.
    pub(crate) fn try_read(&self, room: &mut [u8]) -> io::Result<usize> {
        let read = &mut *self.read.borrow_mut();
        let mut got = 0;
        loop {
            got += copy(&mut room[got..], &read.text[read.text_at..], &mut read.text_at);
            if read.text_at < read.text.len() {
                break;
            }
            read.text.clear();
            read.text_at = 0;
            let mut n = 0;
            got += copy(&mut room[got..], &read.data, &mut n);
            read.data.advance(n);
            if n > 0
                && let Source::Body(body) = &mut read.source
            {
                let _ = body.flow_control().release_capacity(n); // fails only once the stream is gone
            }
            if !read.data.is_empty() || read.behind.is_none() {
                break;
            }
            read.text = read.behind.take().unwrap_or_default();
        }
        match read.source {
            _ if got > 0 => Ok(got),
            Source::End => Ok(0),
            Source::Broken(kind) => Err(kind.into()),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Ready once [`StreamIo::try_read`] has something to say.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut read = self.read.borrow_mut();
        while !read.has_something() {
            match &mut read.source {
                Source::Unasked => return Poll::Pending,
                Source::Response(response, head) => {
                    let bodiless = *head;
                    if let Poll::Ready(Some(interim)) = response.poll_informational(cx) {
                        read.response(interim.map(|i| i.map(|()| None)), bodiless);
                        continue;
                    }
                    match std::pin::Pin::new(&mut **response).poll(cx) {
                        Poll::Ready(result) => read.response(result.map(|r| r.map(Some)), bodiless),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Source::Body(body) => match body.poll_data(cx) {
                    Poll::Ready(Some(Ok(data))) => read.stash(data),
                    Poll::Ready(Some(Err(error))) => read.source = Source::Broken(kind(&error)),
                    Poll::Ready(None) => match body.poll_trailers(cx) {
                        Poll::Ready(Ok(trailers)) => read.end(trailers.as_ref()),
                        Poll::Ready(Err(error)) => read.source = Source::Broken(kind(&error)),
                        Poll::Pending => return Poll::Pending,
                    },
                    Poll::Pending => return Poll::Pending,
                },
                Source::End | Source::Broken(_) => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Takes as much of the text as the peer's windows have room for.
    ///
    /// # Errors
    /// `WouldBlock` if it takes nothing now; else that the stream, or the text, is broken.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut write = self.write.borrow_mut();
        let mut taken = 0;
        while !matches!(write.target, Target::Body(_) | Target::Done) {
            if taken == bytes.len() {
                return Ok(taken);
            }
            taken += self.head(&mut write, &bytes[taken..])?;
        }
        match write.body(&bytes[taken..]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && taken > 0 => Ok(taken),
            result => Ok(taken + result?),
        }
    }

    /// Ready once [`StreamIo::try_write`] takes something, or fails.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if let Target::Body(send) = &mut self.write.borrow_mut().target
            && send.capacity() == 0
        {
            std::task::ready!(send.poll_capacity(cx));
        }
        Poll::Ready(Ok(()))
    }

    /// Ends what is written. A message that is not whole is cut off instead, so that the peer can tell.
    pub(crate) fn shut_down(&self) {
        let write = &mut *self.write.borrow_mut();
        if let (Target::Body(send), Decode::Open) = (&mut write.target, &write.decode) {
            let _ = send.send_data(Bytes::new(), true);
            write.target = Target::Done;
        }
    }

    /// Cuts off what is written.
    pub(crate) fn reset(&self) {
        let write = &mut *self.write.borrow_mut();
        match &mut write.target {
            Target::Response(send, _) => send.send_reset(Reason::INTERNAL_ERROR),
            Target::Body(send) => send.send_reset(Reason::CANCEL),
            Target::Request(_) | Target::Done => return,
        }
        write.target = Target::Done;
    }

    /// Ready once the client has cancelled the stream, or its connection is gone.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.write.borrow_mut().target {
            Target::Response(send, _) => send.poll_reset(cx).map(drop),
            Target::Body(send) => send.poll_reset(cx).map(drop),
            Target::Request(_) | Target::Done => Poll::Pending,
        }
    }

    /// A head, or a piece of it; says how much of `bytes` it was.
    fn head(&self, write: &mut Write, bytes: &[u8]) -> io::Result<usize> {
        let before = write.head.len();
        let joined;
        let text = if before == 0 {
            bytes
        } else {
            write.head.extend_from_slice(bytes);
            joined = std::mem::take(&mut write.head);
            &joined
        };
        let length = match &mut write.target {
            Target::Response(send, head) => {
                let asked =
                    relais_http::response::Asked { head: *head, upgrade: self.tunnel.get(), minor: 1 };
                match Response::parse(text, asked).map_err(garbled)? {
                    Some(parsed) => {
                        let decode = respond(send, text, &parsed, self.tunnel.get())?;
                        if let Some((target, decode)) = decode {
                            write.decode = decode;
                            write.target = target;
                        }
                        parsed.length
                    }
                    None => 0,
                }
            }
            Target::Request(ready) => match Request::parse(text, Edit::default()).map_err(garbled)? {
                Some(parsed) => {
                    let (response, target) = ask(ready, text, &parsed)?;
                    self.read.borrow_mut().source =
                        Source::Response(Box::new(response), parsed.method == relais_http::Method::Head);
                    write.decode = Decode::new(&parsed.body);
                    write.target = target;
                    parsed.length
                }
                None => 0,
            },
            Target::Body(_) | Target::Done => return Ok(0),
        };
        if length == 0 {
            write.head = text.to_vec();
            return Ok(bytes.len());
        }
        Ok(length - before)
    }
}

impl Drop for StreamIo {
    fn drop(&mut self) {
        let write = self.write.get_mut();
        match &mut write.target {
            // Without this, the library would tell a client that *it* cancelled.
            Target::Response(send, _) => send.send_reset(Reason::INTERNAL_ERROR),
            Target::Body(send) => send.send_reset(Reason::CANCEL),
            Target::Request(_) | Target::Done => {}
        }
    }
}

impl Read {
    fn has_something(&self) -> bool {
        self.text_at < self.text.len() || !self.data.is_empty() || self.behind.is_some()
    }

    fn stash(&mut self, data: Bytes) {
        if data.is_empty() {
            return;
        }
        if self.form == Form::Chunks {
            text::chunk(&mut self.text, data.len());
            self.behind = Some(b"\r\n".to_vec());
        }
        self.data = data;
    }

    /// The body has ended.
    fn end(&mut self, trailers: Option<&HeaderMap>) {
        // The stream's handle stays while data waits whose window is to be given back.
        self.source = match std::mem::replace(&mut self.source, Source::End) {
            Source::Body(body) if !self.data.is_empty() && self.form != Form::Chunks => Source::Body(body),
            _ => Source::End,
        };
        if self.form != Form::Chunks {
            return;
        }
        let out = if self.data.is_empty() { &mut self.text } else { self.behind.get_or_insert_default() };
        if text::last_chunk(out, trailers).is_err() {
            self.source = Source::Broken(io::ErrorKind::InvalidData);
        }
    }

    /// A response, or an interim one.
    fn response(&mut self, result: Result<http::Response<Option<RecvStream>>, h2::Error>, bodiless: bool) {
        let response = match result {
            Ok(response) => response,
            Err(error) => {
                self.source = Source::Broken(kind(&error));
                return;
            }
        };
        let (parts, body) = response.into_parts();
        let interim = body.is_none();
        let (data, known) = match body {
            Some(mut body) if !body.is_end_stream() => {
                let (data, known) = early(&mut body);
                self.source = Source::Body(body);
                (data, known)
            }
            _ => (Bytes::new(), Known { none: true, whole: None }),
        };
        match text::response(&mut self.text, &parts, known, bodiless) {
            Ok(form) if !interim => {
                self.form = form;
                if known.none {
                    self.source = Source::End;
                } else {
                    self.stash(data);
                    if known.whole.is_some() {
                        self.end(None);
                    }
                }
            }
            Ok(_) => {}
            Err(Malformed) => {
                self.text.clear();
                self.source = Source::Broken(io::ErrorKind::InvalidData);
            }
        }
    }
}

/// What of a body came together with its head: most often all of it, and then it can be sent as one piece, and repeated.
fn early(body: &mut RecvStream) -> (Bytes, Known) {
    let mut context = Context::from_waker(Waker::noop());
    let data = match body.poll_data(&mut context) {
        Poll::Ready(Some(Ok(data))) => data,
        _ => Bytes::new(),
    };
    let whole = body.is_end_stream().then_some(data.len() as u64);
    (data, Known { none: false, whole })
}

/// Copies what there is room for, and moves `at` on by it.
fn copy(room: &mut [u8], from: &[u8], at: &mut usize) -> usize {
    let n = room.len().min(from.len());
    room[..n].copy_from_slice(&from[..n]);
    *at += n;
    n
}

impl Write {
    fn new(target: Target) -> Write {
        Write { target, head: Vec::new(), decode: Decode::End, trailers: HeaderMap::new() }
    }

    /// Takes of a body what there is room for.
    fn body(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Target::Body(send) = &mut self.target else {
            return if bytes.is_empty() { Ok(0) } else { Err(io::ErrorKind::BrokenPipe.into()) };
        };
        if bytes.is_empty() {
            return Ok(0);
        }
        let most = bytes.len().min(limits::H2_SEND_BYTES);
        send.reserve_capacity(most);
        let room = send.capacity().min(most);
        let mut data = BytesMut::with_capacity(room);
        let taken = self
            .decode
            .take(bytes, room, &mut data, &mut self.trailers)
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        let ended = self.decode.is_end();
        if taken == 0 {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let trailers = ended && !self.trailers.is_empty();
        if !data.is_empty() || ended && !trailers {
            if taken == bytes.len() && data.len() < room {
                send.reserve_capacity(data.len()); // the windows are for others, too
            }
            send.send_data(data.freeze(), ended && !trailers).map_err(broken)?;
        }
        if trailers {
            send.send_trailers(std::mem::take(&mut self.trailers)).map_err(broken)?;
        }
        if ended {
            self.target = Target::Done;
        }
        Ok(taken)
    }
}

/// Sends a response's head; what follows, unless it was an interim one.
fn respond(
    send: &mut SendResponse<Bytes>,
    text: &[u8],
    parsed: &Response,
    tunnel: bool,
) -> io::Result<Option<(Target, Decode)>> {
    let head = Bytes::copy_from_slice(&text[..parsed.length]);
    let response = text::to_response(&head, parsed, tunnel).ok_or(io::ErrorKind::InvalidData)?;
    if parsed.is_interim() {
        send.send_informational(response).map_err(broken)?;
        return Ok(None);
    }
    let open = tunnel && parsed.status == 101;
    let end = !open && !text::has_body(&parsed.body);
    let body = send.send_response(response, end).map_err(broken)?;
    Ok(Some(if end {
        (Target::Done, Decode::End)
    } else {
        (Target::Body(body), if open { Decode::Open } else { Decode::new(&parsed.body) })
    }))
}

/// Sends a request's head.
fn ask(ready: &mut Ready, text: &[u8], parsed: &Request) -> io::Result<(ResponseFuture, Target)> {
    let head = Bytes::copy_from_slice(&text[..parsed.length]);
    let request = text::to_request(&head, parsed, ready.link.tls).ok_or(io::ErrorKind::InvalidData)?;
    let end = !text::has_body(&parsed.body);
    let (response, body) = ready.send.send_request(request, end).map_err(broken)?;
    Ok((response, if end { Target::Done } else { Target::Body(body) }))
}

fn garbled(_: relais_http::Reject) -> io::Error {
    io::ErrorKind::InvalidData.into()
}

fn broken(error: h2::Error) -> io::Error {
    kind(&error).into()
}

/// What became of a stream.
fn kind(error: &h2::Error) -> io::ErrorKind {
    // The library ends only those streams with a GOAWAY that it does not name as processed.
    let refused = error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
    if refused { io::ErrorKind::ConnectionRefused } else { io::ErrorKind::ConnectionReset }
}
