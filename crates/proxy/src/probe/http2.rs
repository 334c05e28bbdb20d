//! A check's request over HTTP/2, to servers that are spoken to so: by their word in the TLS handshake, else because the file says it
//! (RFC 9113 §3.3).

use std::net::SocketAddr;

use bytes::Bytes;
use h2::client;
use http::{Request, Version};
use relais_config::plan::CheckKind;

use super::{MAX_BODY, Wanted, authority};
use crate::io::Io;

/// Asks, and judges status and body.
pub(super) async fn ask(
    stream: &mut Io,
    kind: &CheckKind,
    server: SocketAddr,
    wanted: &Wanted<'_>,
) -> Result<String, String> {
    let scheme = if stream.tls().is_some() { "https" } else { "http" };
    let (sender, connection) = client::handshake(stream).await.map_err(|error| in_words(&error))?;
    tokio::select! {
        result = exchange(sender, kind, (scheme, server), wanted) => result,
        ended = connection => Err(match ended {
            Ok(()) => "closed without an answer".to_owned(),
            Err(error) => in_words(&error),
        }),
    }
}

async fn exchange(
    sender: client::SendRequest<Bytes>,
    kind: &CheckKind,
    (scheme, server): (&str, SocketAddr),
    wanted: &Wanted<'_>,
) -> Result<String, String> {
    let CheckKind::Http { method, path, host, headers, body, .. } = kind else {
        return Err("no HTTP".to_owned());
    };
    let mut sender = sender.ready().await.map_err(|error| in_words(&error))?;
    let uri = format!("{scheme}://{}{path}", authority(host.as_deref(), server));
    let mut request = Request::builder().method(&**method).uri(uri).version(Version::HTTP_2);
    for (name, value) in [("user-agent", "relais-check"), ("accept", "*/*")] {
        if !headers.iter().any(|(other, _)| other.eq_ignore_ascii_case(name)) {
            request = request.header(name, value);
        }
    }
    for (name, value) in headers {
        request = request.header(&**name, &**value);
    }
    if let Some(body) = body {
        request = request.header("content-length", body.len());
    }
    let request = request.body(()).map_err(|error| error.to_string())?;
    let (response, mut upload) =
        sender.send_request(request, body.is_none()).map_err(|error| in_words(&error))?;
    if let Some(body) = body {
        upload.send_data(Bytes::copy_from_slice(body.as_bytes()), true).map_err(|error| in_words(&error))?;
    }
    let response = response.await.map_err(|error| in_words(&error))?;
    let said = wanted.status(response.status().as_u16())?;
    let (mut body, mut found) = (response.into_body(), Vec::new());
    while !wanted.is_in(&found) {
        match body.data().await {
            Some(Ok(data)) if found.len() < MAX_BODY => {
                let _ = body.flow_control().release_capacity(data.len());
                found.extend_from_slice(&data[..data.len().min(MAX_BODY - found.len())]);
            }
            Some(Err(error)) => return Err(in_words(&error)),
            Some(Ok(_)) | None => return Err(wanted.lacking(&said, &found)),
        }
    }
    Ok(said)
}

fn in_words(error: &h2::Error) -> String {
    match error.get_io() {
        Some(error) => super::in_words(error),
        None if error.is_go_away() && error.is_library() => "not HTTP/2".to_owned(),
        None => error.to_string(),
    }
}
