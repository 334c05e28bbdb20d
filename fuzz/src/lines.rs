//! A reader of HTTP/1 that splits text at CRLF and knows nothing else: the opposite in kind of a tokenizer, and
//! as strict as RFC 9112 reads at its narrowest. It judges what we forward; it is not for production.

use crate::{Message, Reading};

/// The requests on a connection that ended behind `bytes`.
pub fn requests(bytes: &[u8]) -> Reading {
    let mut reading = Reading::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        match request(rest) {
            Ok((message, used)) => {
                reading.whole.push(message.sorted());
                rest = &rest[used..];
            }
            Err(fault) => {
                reading.refused = Some(fault);
                break;
            }
        }
    }
    reading
}

/// The response to a request (`head`: HEAD), on a connection that ended behind `bytes`; interim ones are skipped.
pub fn response(mut bytes: &[u8], head: bool) -> Reading {
    let mut reading = Reading::default();
    loop {
        match one_response(bytes, head) {
            Ok((None, used)) => bytes = &bytes[used..],
            Ok((Some(message), used)) => {
                reading.whole.push(message.sorted());
                if used < bytes.len() {
                    reading.refused = Some("bytes behind the response".into());
                }
            }
            Err(fault) => reading.refused = Some(fault),
        }
        if reading.refused.is_some() || !reading.whole.is_empty() {
            return reading;
        }
    }
}

fn request(bytes: &[u8]) -> Result<(Message, usize), String> {
    let (first, fields, mut used) = head(bytes)?;
    let words: Vec<&[u8]> = first.split(|&b| b == b' ').collect();
    let [method, target, b"HTTP/1.1"] = words[..] else { return Err("not a request line".into()) };
    let target_ok = !target.is_empty() && target.iter().all(|b| (0x21..0x7f).contains(b));
    if method.is_empty() || !method.iter().all(|b| is_token(*b)) || !target_ok {
        return Err("a bad method or target".into());
    }
    let hosts = fields.iter().filter(|(name, _)| name == "host").count();
    if hosts != 1 {
        return Err(format!("{hosts} Host fields"));
    }
    let rest = &bytes[used..];
    let (body, more) = match framing(&fields)? {
        Framed::Nothing => (Vec::new(), 0),
        Framed::Length(n) => (rest.get(..n).ok_or("cut")?.to_vec(), n),
        Framed::Chunks => chunks(rest)?,
    };
    used += more;
    Ok((Message { method: text(method), target: text(target), fields, body }, used))
}

fn one_response(bytes: &[u8], head_asked: bool) -> Result<(Option<Message>, usize), String> {
    let (first, fields, mut used) = head(bytes)?;
    let code = match first {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a, b, c] => [*a, *b, *c],
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'1', b' ', a, b, c, b' ', ..] => [*a, *b, *c],
        _ => return Err("not a status line".into()),
    };
    if !code.iter().all(u8::is_ascii_digit) || !(b'1'..=b'5').contains(&code[0]) {
        return Err("a bad status code".into());
    }
    let framed = framing(&fields)?;
    if code[0] == b'1' && code != *b"101" {
        return Ok((None, used));
    }
    let rest = &bytes[used..];
    let (body, more) = match framed {
        _ if head_asked || code == *b"204" || code == *b"304" || code[0] == b'1' => (Vec::new(), 0),
        Framed::Nothing => (rest.to_vec(), rest.len()),
        Framed::Length(n) => (rest.get(..n).ok_or("cut")?.to_vec(), n),
        Framed::Chunks => chunks(rest)?,
    };
    used += more;
    Ok((Some(Message { method: String::new(), target: text(&code), fields, body }), used))
}

enum Framed {
    Nothing,
    Length(usize),
    Chunks,
}

fn framing(fields: &[(String, Vec<u8>)]) -> Result<Framed, String> {
    let framing: Vec<_> =
        fields.iter().filter(|(n, _)| n == "content-length" || n == "transfer-encoding").collect();
    match framing[..] {
        [] => Ok(Framed::Nothing),
        [(name, value)] if name == "content-length" => {
            let digits = !value.is_empty() && value.len() < 20 && value.iter().all(u8::is_ascii_digit);
            let number = std::str::from_utf8(value).ok().filter(|_| digits).and_then(|d| d.parse().ok());
            number.map(Framed::Length).ok_or_else(|| format!("Content-Length {value:?}"))
        }
        [(_, value)] if value.eq_ignore_ascii_case(b"chunked") => Ok(Framed::Chunks),
        _ => Err(format!("framed by {framing:?}")),
    }
}

type Head<'a> = (&'a [u8], Vec<(String, Vec<u8>)>, usize);

/// The first line, the fields, and the length of the head.
fn head(bytes: &[u8]) -> Result<Head<'_>, String> {
    let (first, mut used) = line(bytes)?;
    let mut fields = Vec::new();
    loop {
        let (text, length) = line(&bytes[used..])?;
        used += length;
        if text.is_empty() {
            return Ok((first, fields, used));
        }
        fields.push(field(text)?);
    }
}

fn field(line: &[u8]) -> Result<(String, Vec<u8>), String> {
    let colon = line.iter().position(|&b| b == b':').ok_or("no colon")?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) {
        return Err(format!("a bad name {name:?}"));
    }
    Ok((text(name).to_ascii_lowercase(), value.trim_ascii().to_vec()))
}

/// A line without its CRLF, and its length with it. No other control characters than tabs are in it.
fn line(bytes: &[u8]) -> Result<(&[u8], usize), String> {
    let end = bytes.windows(2).position(|two| two == b"\r\n").ok_or("cut")?;
    match bytes[..end].iter().find(|b| (**b < b' ' && **b != b'\t') || **b == 0x7f) {
        Some(byte) => Err(format!("a control character {byte:#x}")),
        None => Ok((&bytes[..end], end + 2)),
    }
}

fn chunks(bytes: &[u8]) -> Result<(Vec<u8>, usize), String> {
    let (mut body, mut used) = (Vec::new(), 0);
    loop {
        let (digits, length) = line(&bytes[used..])?;
        if digits.is_empty() || digits.len() > 16 || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(format!("a chunk size {digits:?}"));
        }
        let size = usize::from_str_radix(&text(digits), 16).map_err(|e| e.to_string())?;
        used += length;
        if size == 0 {
            break;
        }
        let end = used.checked_add(size).ok_or("a huge chunk")?;
        body.extend_from_slice(bytes.get(used..end).ok_or("cut")?);
        match bytes.get(end..end + 2) {
            Some(b"\r\n") => used = end + 2,
            None => return Err("cut".into()),
            Some(other) => return Err(format!("{other:?} behind a chunk")),
        }
    }
    loop {
        let (text, length) = line(&bytes[used..])?;
        used += length;
        if text.is_empty() {
            return Ok((body, used));
        }
        field(text)?;
    }
}

fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|b| char::from(*b)).collect()
}
