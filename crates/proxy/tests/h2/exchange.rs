//! What clients that speak HTTP/2 may expect of an exchange, whatever the server speaks.

use std::time::Duration;

use relais_ipc::Order;

use crate::common::*;
use crate::wire::*;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

fn started(front: &str, back: &str, origin: &Origin) -> (Proxy, Door) {
    let door = Door::new(1);
    (Proxy::start(&plan(&door, front, back, &[origin.address]), &[&door]), door)
}

#[test]
fn a_request_arrives_as_http_1_and_the_access_line_says_http_2() {
    let (heard, hears) = handover();
    let origin = Origin::new(move |mut peer| {
        heard.lock().unwrap().send(peer.head()).unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\nKeep-Alive: timeout=5\r\nX-Y: z\r\n\r\nok");
    });
    let (proxy, door) = started("forwarded-for", "", &origin);
    let mut raw = Raw::open(door.address);
    let more = [("cookie", "a=1"), ("accept", "*/*"), ("cookie", "b=2"), ("te", "trailers")];
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, with(GET, &more));
    let head = raw.until(|f| f.kind == HEADERS);
    assert_eq!(head.payload[0], 0x88);
    let text = String::from_utf8_lossy(&head.payload);
    assert!(!text.contains("timeout"), "fields of one connection stay there: {text}");
    let head = hears.recv().unwrap();
    assert!(head.starts_with("GET / HTTP/1.1\r\nHost: h.test\r\n"), "{head}");
    assert_eq!(field(&head, "cookie"), Some("a=1; b=2"));
    assert_eq!(field(&head, "via"), Some("2.0 relais"));
    assert_eq!((field(&head, "te"), field(&head, "x-forwarded-for")), (None, Some("127.0.0.1")));
    let line = proxy.lines(1).remove(0);
    assert!(line.contains(" web app/s1 ") && line.contains(" 200 "), "{line}");
    assert!(line.contains(" ---- 1/1/") && line.ends_with(" \"GET / HTTP/2.0\""), "{line}");
}

#[test]
fn head_and_empty_answers_end_with_their_head() {
    let origin = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            peer.send(match head.split(' ').nth(1).unwrap() {
                "/204" => "HTTP/1.1 204 No Content\r\n\r\n",
                "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
                "/0" => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                _ => "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
            });
        }
    });
    let (_proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    for (i, (method, path, code)) in
        [("GET", "/204", 0x89), ("GET", "/304", 0x8b), ("GET", "/0", 0x88), ("HEAD", "/5", 0x88)]
            .into_iter()
            .enumerate()
    {
        let stream = 2 * i as u32 + 1;
        let fields = [(":method", method), (":scheme", "http"), (":path", path), (":authority", "h.test")];
        raw.send(HEADERS, END_HEADERS | END_STREAM, stream, block(&fields));
        let head = raw.until(|f| f.kind == HEADERS);
        assert!(head.ends() && head.stream == stream && head.payload[0] == code, "{path}: {head:?}");
    }
}

#[test]
fn trailers_go_both_ways() {
    let (heard, hears) = handover();
    let origin = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            let mut text = String::new();
            while !text.ends_with("\r\n\r\n") {
                text += &peer.text(1);
            }
            heard.lock().unwrap().send(text).unwrap();
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nGrpc-Status: 7\r\n\r\n");
        }
    });
    let (_proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    raw.send(HEADERS, END_HEADERS, 1, block(POST));
    raw.send(DATA, 0, 1, b"hello");
    raw.send(DATA, 0, 1, b", you");
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, block(&[("x-sum", "10")]));
    let data = raw.until(|f| f.kind == DATA);
    assert_eq!((&data.payload[..], data.ends()), (&b"abc"[..], false));
    let trailers = raw.next().unwrap();
    assert!(trailers.kind == HEADERS && trailers.ends(), "{trailers:?}");
    let text = hears.recv().unwrap();
    assert!(text.contains("hello") && text.ends_with("\r\n0\r\nx-sum: 10\r\n\r\n"), "{text}");
}

#[test]
fn interim_answers_come_before_the_final_one() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n");
        peer.send(OK);
        peer.is_closed();
    });
    let (_proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    raw.get(1);
    let interim = raw.until(|f| f.kind == HEADERS);
    assert!(!interim.ends() && interim.payload[0] != 0x88, "{interim:?}");
    assert_eq!(raw.answer(1), (0x88, b"ok".to_vec()));
}

#[test]
fn a_client_sends_no_more_of_a_body_than_the_server_takes() {
    let (go, gone) = handover::<()>();
    drop(go);
    let origin = Origin::new(|mut peer| {
        peer.head();
        // It takes nothing more, and waits for the end.
        std::thread::park_timeout(PATIENCE);
    });
    drop(gone);
    let (_proxy, door) = started("http2 initial-window=\"16KiB\"\n timeout client=\"10s\"", "", &origin);
    let mut raw = Raw::silent(door.address);
    raw.write(PREFACE);
    raw.settings(&[]);
    let settings = raw.until(|f| f.kind == SETTINGS && f.flags & ACK == 0);
    let window = settings
        .payload
        .chunks(6)
        .find(|s| s[1] == 4)
        .map(|s| u32::from_be_bytes(s[2..6].try_into().unwrap()));
    assert_eq!(window, Some(16 * 1024));
    raw.send(SETTINGS, ACK, 0, b"");
    raw.send(HEADERS, END_HEADERS, 1, block(POST));
    // Windows are opened while the kernel's buffers on the way to the server take more, and then no more.
    let (mut window, mut sent) = (16 * 1024i64, 0u64);
    raw.io.wait_at_most(Duration::from_millis(300));
    loop {
        while window > 0 {
            let size = window.min(8192) as usize;
            raw.send(DATA, 0, 1, vec![b'x'; size]);
            (window, sent) = (window - size as i64, sent + size as u64);
        }
        let mut head = [0; 9];
        if std::io::Read::read_exact(&mut raw.io, &mut head).is_err() {
            break;
        }
        let mut payload = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        std::io::Read::read_exact(&mut raw.io, &mut payload).unwrap();
        if head[3] == WINDOW_UPDATE && head[8] == 1 {
            window += i64::from(u32::from_be_bytes(payload[..4].try_into().unwrap()));
        }
        assert!(sent < 64 << 20, "the server has taken nothing");
    }
}

#[test]
fn a_slow_client_holds_its_own_stream_only() {
    const BIG: usize = 1 << 20;
    let origin = Origin::new(|mut peer| {
        while let Some(head) = peer.try_head() {
            if head.starts_with("GET /big ") {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n"));
                let _ = peer.try_send(vec![b'x'; BIG]);
            } else {
                peer.send(OK);
            }
        }
    });
    let (_proxy, door) = started("", "", &origin);
    let mut raw = Raw::open_with(door.address, &[(4, 1000)]);
    raw.send(HEADERS, END_HEADERS | END_STREAM, 1, block(&[GET[0], GET[1], (":path", "/big"), GET[3]]));
    let mut got = 0;
    while got < 1000 {
        got += raw.until(|f| f.kind == DATA).payload.len();
    }
    assert_eq!(got, 1000, "no more than the window");
    raw.get(3);
    assert_eq!(raw.answer(3), (0x88, b"ok".to_vec()));
    // The connection's window is another: 64 KiB less what came.
    while got < BIG {
        raw.send(WINDOW_UPDATE, 0, 1, 60_000u32.to_be_bytes());
        raw.send(WINDOW_UPDATE, 0, 0, 60_000u32.to_be_bytes());
        let until = (got + 60_000).min(BIG);
        while got < until {
            got += raw.until(|f| f.kind == DATA && f.stream == 1).payload.len();
        }
        assert_eq!(got, until);
    }
}

#[test]
fn a_client_that_takes_nothing_loses_its_stream() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n0123456789");
    let (proxy, door) = started("timeout client=\"200ms\"", "", &origin);
    let mut raw = Raw::open_with(door.address, &[(4, 0)]);
    raw.get(1);
    let reset = raw.until(|f| f.kind == RST_STREAM);
    assert_eq!((reset.stream, reset.code()), (1, CANCEL));
    assert!(proxy.lines(1)[0].contains(" cD-- "), "{:?}", proxy.lines(1));
    assert!(raw.lives());
}

#[test]
fn a_cancelled_request_is_cancelled_at_the_server() {
    let (told, tell) = handover();
    let origin = Origin::new(move |mut peer| {
        peer.head();
        told.lock().unwrap().send(()).unwrap();
        assert!(peer.is_closed());
        told.lock().unwrap().send(()).unwrap();
    });
    let (proxy, door) = started("", "timeout server=\"1h\"", &origin);
    let mut raw = Raw::open(door.address);
    raw.get(1);
    tell.recv_timeout(PATIENCE).expect("the request arrives");
    raw.send(RST_STREAM, 0, 1, CANCEL.to_be_bytes());
    tell.recv_timeout(PATIENCE).expect("the server sees its end");
    assert!(proxy.lines(1)[0].contains(" CH-- "), "{:?}", proxy.lines(1));
    assert!(raw.lives());
}

#[test]
fn an_answer_that_breaks_off_resets_its_stream() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc");
    });
    let (proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    raw.get(1);
    let last = raw.until(|f| f.kind == RST_STREAM || f.ends());
    assert_eq!(last.kind, RST_STREAM, "it must not look whole");
    assert!(proxy.lines(1)[0].contains(" SD-- "));
    assert!(raw.lives());
}

#[test]
fn an_answer_before_the_end_of_the_request_is_whole_and_then_the_stream_is_reset_without_error() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
        peer.is_closed();
    });
    let (_proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    raw.send(HEADERS, END_HEADERS, 1, with(POST, &[("content-length", "1000")]));
    raw.send(DATA, 0, 1, b"begun");
    assert_eq!(raw.answer(1).1, b"no");
    let reset = raw.until(|f| f.kind == RST_STREAM);
    assert_eq!((reset.stream, reset.code()), (1, NO_ERROR));
    assert!(raw.lives());
}

#[test]
fn an_answer_that_only_the_end_delimits_is_delimited() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.send("HTTP/1.0 200 OK\r\n\r\nuntil the end");
    });
    let (_proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    raw.get(1);
    assert_eq!(raw.answer(1), (0x88, b"until the end".to_vec()));
}

#[test]
fn no_more_streams_are_open_at_a_time_than_the_frontend_allows() {
    let origin = Origin::new(|mut peer| {
        peer.head();
        peer.is_closed();
    });
    let (_proxy, door) = started("http2 max-concurrent-streams=2", "timeout server=\"1h\"", &origin);
    let mut raw = Raw::open(door.address);
    [1, 3, 5].into_iter().for_each(|stream| raw.get(stream));
    let reset = raw.until(|f| f.kind == RST_STREAM);
    assert_eq!((reset.stream, reset.code()), (5, REFUSED));
    assert!(raw.lives());
}

#[test]
fn a_websocket_opens_on_a_stream() {
    let (heard, hears) = handover();
    let origin = Origin::new(move |mut peer| {
        heard.lock().unwrap().send(peer.head()).unwrap();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: x\r\n\r\nhi!");
        assert_eq!(peer.text(5), "hello");
        peer.send("bye");
    });
    let (proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    let fields = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":path", "/chat"),
        (":authority", "h.test"),
        ("sec-websocket-version", "13"),
    ];
    raw.send(HEADERS, END_HEADERS, 1, block(&fields));
    let head = raw.until(|f| f.kind == HEADERS);
    assert!(head.payload[0] == 0x88 && !head.ends(), "{head:?}");
    assert!(!String::from_utf8_lossy(&head.payload).contains("accept"));
    assert_eq!(raw.until(|f| f.kind == DATA).payload, b"hi!");
    raw.send(DATA, 0, 1, b"hello");
    assert_eq!(raw.until(|f| f.kind == DATA).payload, b"bye");
    raw.send(DATA, END_STREAM, 1, b"");
    raw.until(Frame::ends);
    let head = hears.recv().unwrap();
    assert!(head.starts_with("GET /chat HTTP/1.1\r\n"), "{head}");
    assert_eq!((field(&head, "upgrade"), field(&head, "connection")), (Some("websocket"), Some("upgrade")));
    assert_eq!(field(&head, "sec-websocket-key").map(str::len), Some(24));
    assert!(proxy.lines(1)[0].contains(" 101 "), "{:?}", proxy.lines(1));
}

#[test]
fn a_plain_connect_is_refused() {
    let origin = Origin::answering(OK);
    let (proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    raw.send(HEADERS, END_HEADERS, 1, block(&[(":method", "CONNECT"), (":authority", "h.test:443")]));
    raw.until(|f| f.stream == 1 && f.kind == HEADERS);
    assert!(proxy.lines(1)[0].contains(" 501 "), "{:?}", proxy.lines(1));
}

#[test]
fn an_idle_connection_is_told_to_go_and_then_closed() {
    let origin = Origin::answering(OK);
    let (proxy, door) = started("timeout keep-alive=\"200ms\"", "", &origin);
    let mut raw = Raw::open(door.address);
    raw.get(1);
    raw.answer(1);
    let first = raw.until(|f| f.kind == GOAWAY);
    assert_eq!((first.code(), &first.payload[..4]), (NO_ERROR, &[0x7f, 255, 255, 255][..]));
    let ping = raw.until(|f| f.kind == PING);
    raw.send(PING, ACK, 0, ping.payload);
    let last = raw.until(|f| f.kind == GOAWAY);
    assert_eq!((last.code(), &last.payload[..4]), (NO_ERROR, &[0, 0, 0, 1][..]));
    assert_eq!(raw.goodbye(), None);
    wait("the connection's end", || proxy.status().frontends[0].connections == 0);
}

#[test]
fn a_drain_ends_connections_and_loses_no_request() {
    let (told, tell) = handover();
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let origin = Origin::new(move |mut peer| {
        while peer.try_head().is_some() {
            told.lock().unwrap().send(()).unwrap();
            let _ = released.lock().unwrap().recv();
            peer.send(OK);
        }
    });
    let (mut proxy, door) = started("", "", &origin);
    let mut raw = Raw::open(door.address);
    raw.get(1);
    tell.recv_timeout(PATIENCE).unwrap();
    proxy.order(&Order::Drain { limit_ms: 10_000 }, None);
    let first = raw.until(|f| f.kind == GOAWAY);
    assert_eq!(&first.payload[..4], [0x7f, 255, 255, 255], "no number is the last yet");
    raw.get(3);
    tell.recv_timeout(PATIENCE).expect("what is under way to us is still served");
    let ping = raw.until(|f| f.kind == PING && f.flags & ACK == 0);
    release.send(()).unwrap();
    release.send(()).unwrap();
    raw.send(PING, ACK, 0, ping.payload);
    let mut ended = Vec::new();
    let mut last = 0;
    while let Some(frame) = raw.next() {
        if frame.ends() {
            ended.push(frame.stream);
        }
        if frame.kind == GOAWAY {
            last = u32::from_be_bytes(frame.payload[..4].try_into().unwrap());
        }
    }
    ended.sort_unstable();
    assert_eq!((ended, last), (vec![1, 3], 3));
}
