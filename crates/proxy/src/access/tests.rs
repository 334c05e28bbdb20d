#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use jiff::tz::TimeZone;
use relais_config::plan::Frontend;

use super::*;

/// A frontend whose `access-log` says this.
fn front(log: &str) -> Frontend {
    let text = format!(
        "platform p\nnode a {{ link \"10.0.0.1\"; }}\nfrontend http-in {{ bind \"*:80\"; redirect scheme=https\n{log}\n }}"
    );
    relais_config::parse("test", &text)
        .unwrap_or_else(|rejected| panic!("{rejected}"))
        .plan
        .frontends
        .remove(0)
}

fn entry(kind: Kind<'_>) -> Entry<'_> {
    static NOTHING: OnceLock<Noted> = OnceLock::new();
    Entry {
        client: "[::ffff:10.0.1.2]:33317".parse().unwrap(),
        local: Some("10.0.0.1:80".parse().unwrap()),
        tls: false,
        date_ms: 1_233_922_454_655,
        frontend: "http-in",
        backend: "static",
        server: Some(("srv1", "10.0.0.2:8080".parse().unwrap())),
        times: Times { idle: 5, request: 10, queue: 0, connect: 30, response: 69, total: 109 },
        bytes_in: 100,
        bytes_out: 2750,
        state: *b"--",
        cookie: *b"--",
        sessions: Sessions { process: 1, frontend: 2, backend: 3, server: 4 },
        retries: 5,
        redispatched: true,
        server_queue: 0,
        backend_queue: 6,
        request_captures: &[],
        response_captures: &[],
        noted: NOTHING.get_or_init(Noted::default),
        request_id: b"",
        traceparent: b"",
        kind,
    }
}

fn http(line: &[u8]) -> Kind<'_> {
    Kind::Http { status: 200, line: Some(line), head: b"" }
}

fn line(log: &str, entry: &Entry<'_>) -> String {
    let front = front(log);
    let mut out = Vec::new();
    entry.write(&front.log.unwrap().format.parts, &mut out, &mut Dates::in_zone(TimeZone::UTC));
    String::from_utf8(out).unwrap()
}

#[test]
fn a_request_is_logged_as_haproxy_s_httplog() {
    let expected = "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 10/0/30/69/109 200 2750 - - ---- \
                    1/2/3/4/+5 0/6 \"GET /index.html HTTP/1.1\"";
    assert_eq!(line("", &entry(http(b"GET /index.html HTTP/1.1"))), expected);
    assert_eq!(
        line("access-log platform format=httplog", &entry(http(b"GET /index.html HTTP/1.1"))),
        expected
    );
}

#[test]
fn a_connection_is_logged_as_haproxy_s_tcplog() {
    assert_eq!(
        line(
            "access-log platform format=tcplog",
            &Entry { times: Times { idle: 0, ..entry(Kind::Tcp).times }, ..entry(Kind::Tcp) }
        ),
        "10.0.1.2:33317 [06/Feb/2009:12:14:14.655] http-in static/srv1 0/30/109 2750 -- 1/2/3/4/+5 0/6"
    );
}

#[test]
fn common_formats_are_as_haproxy_and_apache_have_them() {
    let mut entry = entry(http(b"GET /index.html HTTP/1.1"));
    entry.kind = Kind::Http {
        status: 200,
        line: Some(b"GET /index.html HTTP/1.1"),
        head: b"GET /index.html HTTP/1.1\r\nHost: h\r\nUser-Agent: a\"b\r\nReferer: http://r/\r\n\r\n",
    };
    assert_eq!(
        line("access-log platform format=combined", &entry),
        "10.0.1.2 - - [06/Feb/2009:12:14:14 +0000] \"GET /index.html HTTP/1.1\" 200 2750 \"http://r/\" \"a#22b\""
    );
    assert_eq!(
        line("access-log platform format=clf", &entry),
        "10.0.1.2 - - [06/Feb/2009:12:14:14 +0000] \"GET /index.html HTTP/1.1\" 200 2750 \"\" \"\" 33317 \
         650 \"http-in\" \"static\" \"srv1\" 10 0 30 69 109 ---- 1 2 3 4 +5 0 6 \"\" \"\" "
    );
}

#[test]
fn what_a_client_sends_cannot_forge_a_line() {
    let forged = entry(http(b"GET /\"\n#\xff HTTP/1.1"));
    assert!(line("", &forged).ends_with("\"GET /#22#0A#23#FF HTTP/1.1\""));
    let bad = Entry { server: None, ..entry(Kind::Http { status: 400, line: None, head: b"" }) };
    assert!(line("", &bad).contains(" static/<NOSRV> ") && line("", &bad).ends_with(" \"<BADREQ>\""));
    for log in [
        "",
        "access-log platform format=json",
        "access-log platform format=clf",
        "access-log platform format=combined",
    ] {
        for byte in 0..=255u8 {
            let target = [b"GET /", &[byte][..], b" HTTP/1.1"].concat();
            let head = [b"GET / HTTP/1.1\r\nUser-Agent: ", &[byte][..], b"x\r\n\r\n"].concat();
            let entry = entry(Kind::Http { status: 200, line: Some(&target), head: &head });
            let line = line(log, &entry);
            assert!(!line.contains(|c: char| c.is_control()), "{log} {byte}: {line:?}");
        }
    }
}

#[test]
fn json_is_json_whatever_comes() {
    let front = front(
        "access-log platform format=json\n capture request-header X-A len=4\n capture request-header X-B",
    );
    let parse = |head: &[u8], target: &[u8]| {
        let mut entry = entry(Kind::Http { status: 200, line: Some(target), head });
        entry.request_captures = &front.request_captures;
        entry.times.connect = -1;
        let mut out = Vec::new();
        entry.write(&front.log.as_ref().unwrap().format.parts, &mut out, &mut Dates::in_zone(TimeZone::UTC));
        serde_json::from_slice::<serde_json::Value>(&out)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&out)))
    };
    for byte in 0..=255u8 {
        let head = [b"GET / HTTP/1.1\r\nX-A: ", &[byte][..], b"y\r\n\r\n"].concat();
        let value = parse(&head, &[b"GET /", &[byte][..], b" HTTP/1.1"].concat());
        assert_eq!(value["method"], "GET", "{byte}");
    }
    let value =
        parse(b"GET / HTTP/1.1\r\nhost: h.test\r\nx-a: \xc3\xa9\"\\\xff\r\n\r\n", b"GET /?q=1 HTTP/1.1");
    assert_eq!(value["request_headers"]["x-a"], "é\"\\");
    assert_eq!(value["request_headers"]["x-b"], serde_json::Value::Null);
    assert_eq!((&value["target"], &value["host"]), (&"/?q=1".into(), &"h.test".into()));
    assert_eq!(value["time"], "2009-02-06T12:14:14.655Z");
    assert_eq!((&value["ms_connect"], &value["ms_total"]), (&serde_json::Value::Null, &109.into()));
    assert_eq!((&value["client_port"], &value["redispatched"]), (&33_317.into(), &true.into()));
}

#[test]
fn captured_headers_stand_in_braces_as_haproxy_s_do() {
    let front = front(
        "capture request-header Host len=20\ncapture request-header X-None\ncapture response-header Server len=3",
    );
    let mut noted = Noted::default();
    noted.note(&front.response_captures, b"HTTP/1.1 200 OK\r\nServer: old\r\nserver:  nginx \r\n\r\n");
    let head = b"GET / HTTP/1.1\r\nHost: {h|.test}\r\n\r\n";
    let mut entry = entry(Kind::Http { status: 200, line: Some(b"GET / HTTP/1.1"), head });
    entry.request_captures = &front.request_captures;
    entry.response_captures = &front.response_captures;
    entry.noted = &noted;
    let mut out = Vec::new();
    entry.write(&front.log.unwrap().format.parts, &mut out, &mut Dates::in_zone(TimeZone::UTC));
    let line = String::from_utf8(out).unwrap();
    assert!(line.ends_with(" 0/6 {#7Bh#7C.test#7D|} {ngi} \"GET / HTTP/1.1\""), "{line}");
}

#[test]
fn a_format_of_one_s_own_is_written_as_it_says() {
    let mut entry = entry(http(b"POST /a/b?c=d HTTP/1.1"));
    entry.request_id = b"0198";
    assert_eq!(
        line(
            "access-log platform format=\"%HM|%HP|%HQ|%HU|%HV|%ID|%ST|%Td|%Ti|%Tq|%Tt|%Ts|%ms|%U|%fi:%fp|%si:%sp|%{+Q}s|%%\"",
            &entry
        ),
        "POST|/a/b|?c=d|/a/b?c=d|HTTP/1.1|0198|200|0|5|15|114|1233922454|650|100|10.0.0.1:80|10.0.0.2:8080|\"srv1\"|%"
    );
}
