//! Rules through the proxy, one behaviour a test.

#![allow(clippy::unwrap_used)]

mod common;

use std::net::SocketAddr;

use common::*;

/// An origin that answers with its name and the head it got.
fn named(name: &'static str) -> Origin {
    Origin::new(move |mut peer| {
        while let Some(head) = peer.try_head() {
            let body = format!("{name} {head}");
            peer.send(format!(
                "HTTP/1.1 200 OK\r\nServer: secret/1.0\r\nX-Old: 1\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            ));
        }
    })
}

/// A plan with these rules, backend `app`, and backend `other`.
fn two(door: &Door, rules: &str, app: SocketAddr, other: SocketAddr) -> String {
    plan(door, rules, "", &[app]) + &format!("backend other {{ server o1 \"{other}\"; }}\n")
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

/// The answer to this request head without its last empty line, on a connection of its own.
fn ask(door: &Door, head: &str) -> (String, String) {
    let mut client = Peer::connect(door.address);
    client.send(format!("{head}\r\n\r\n"));
    client.message()
}

#[test]
fn the_manager_is_for_one_network_only() {
    let (door, app) = (Door::new(1), named("app"));
    let rules = |net: &str| {
        format!(
            "rule \"manager from the ministry only\" {{ match path \"/manager/**\" \"/host-manager/**\"; \
             unless src \"{net}\"; deny 403; }}"
        )
    };
    let mut proxy = Proxy::start(&plan(&door, &rules("192.168.112.0/24"), "", &[app.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/manager/html"));
    let (head, _) = client.message();
    assert_eq!(status(&head), "403");
    client.send(get("/managers"));
    assert_eq!(status(&client.message().0), "200");
    let line = &proxy.lines(2)[0];
    assert!(line.contains("/<NOSRV> ") && line.contains(" 403 ") && line.contains(" PR-- "), "{line}");
    let rule = &proxy.status().frontends[0].rules[0];
    assert_eq!((rule.name.as_str(), rule.hits_total), ("manager from the ministry only", 1));
    proxy.plan(&plan(&door, &rules("127.0.0.0/8"), "", &[app.address]), &[&door]);
    client.send(get("/manager/html"));
    assert_eq!(status(&client.message().0), "200");
}

#[test]
fn no_spelling_of_a_path_gets_past_a_rule() {
    let (door, app) = (Door::new(1), named("app"));
    let rule = "rule \"no manager\" { match path \"/manager/**\"; deny 403; }";
    let _proxy = Proxy::start(&plan(&door, rule, "", &[app.address]), &[&door]);
    for spelling in [
        "/manager",
        "/manager/",
        "/%6danager/html",
        "/manager;x/html",
        "/;a/manager",
        "//manager/html",
        "/a/../manager/html",
        "/a/..;/manager/html",
        "/%2e/manager/html",
        "/a/%2e%2e/manager/html?x",
        "http://h/manager/html",
    ] {
        assert_eq!(
            status(&ask(&door, &format!("GET {spelling} HTTP/1.1\r\nHost: h")).0),
            "403",
            "{spelling}"
        );
    }
    for refused in ["/manager%2fhtml", "/x%5c..%5cmanager", "/%00", "/..;/manager", "/%zz", "/%c0%af"] {
        assert_eq!(status(&ask(&door, &format!("GET {refused} HTTP/1.1\r\nHost: h")).0), "400", "{refused}");
    }
    let (_, seen) = ask(&door, "GET /a;v=1/%62/../c HTTP/1.1\r\nHost: h");
    assert!(seen.starts_with("app GET /a;v=1/%62/../c HTTP/1.1\r\n"), "as the client wrote it: {seen}");
}

#[test]
fn a_host_of_its_own_has_a_backend_of_its_own() {
    let (door, app, other) = (Door::new(1), named("app"), named("other"));
    let rule =
        "rule \"doctorate\" { match host \"doctorat.progres.example\" \"*.doc.example\"; backend other; }";
    let proxy = Proxy::start(&two(&door, rule, app.address, other.address), &[&door]);
    for (host, who) in [
        ("doctorat.progres.example", "other"),
        ("Doctorat.PROGRES.example:8080", "other"),
        ("doctorat.progres.example.", "other"),
        ("a.b.doc.example", "other"),
        ("doc.example", "app"),
        ("progres.example", "app"),
    ] {
        let (_, seen) = ask(&door, &format!("GET / HTTP/1.1\r\nHost: {host}"));
        assert!(seen.starts_with(who), "{host}: {seen}");
    }
    assert_eq!(proxy.status().backends.len(), 2);
}

#[test]
fn no_spelling_of_a_host_gets_past_a_rule() {
    let (door, app) = (Door::new(1), named("app"));
    let rule = "rule closed { match host \"intern.example\"; deny 403; }";
    let _proxy = Proxy::start(&plan(&door, rule, "", &[app.address]), &[&door]);
    for (target, host) in [
        ("/", "intern.example"),
        ("/", "INTERN.example."),
        ("/", "intern.example.:8080"),
        ("/", "intern.example:"),
        ("/", "%69ntern.example"),
        ("/", "inter%4E.example"),
        ("/", "intern%2eexample"),
        ("/", "intern.example%2E"),
        ("/", "intern.%65xample:80"),
        ("http://intern.example", "other.example"),
        ("HTTP://Intern.Example:80/a?b", "other.example"),
        ("https://%69ntern.example./", "other.example"),
        ("http://intern.example?x", "other.example"),
    ] {
        let (head, _) = ask(&door, &format!("GET {target} HTTP/1.1\r\nHost: {host}"));
        assert_eq!(status(&head), "403", "{target} of {host}");
    }
    for (target, host) in [
        ("http://u@intern.example/", "h"),
        ("http://intern.example@h/", "h"),
        ("/", "u@intern.example"),
        ("/", "intern%zz.example"),
        ("/", "intern.example, h"),
    ] {
        let (head, _) = ask(&door, &format!("GET {target} HTTP/1.1\r\nHost: {host}"));
        assert_eq!(status(&head), "400", "{target} of {host}");
    }
    // The target rules (RFC 9112 §3.2.2), here as at the server.
    let (head, seen) = ask(&door, "GET http://other.example/ HTTP/1.1\r\nHost: intern.example");
    assert_eq!((status(&head), field(&seen, "host")), ("200", Some("other.example")));
    // Escapes are taken off once: `%2569` is no `i`.
    assert_eq!(status(&ask(&door, "GET / HTTP/1.1\r\nHost: %2569ntern.example").0), "200");
}

#[test]
fn rules_are_asked_in_order_until_one_ends_it() {
    let (door, app, other) = (Door::new(1), named("app"), named("other"));
    let rules = "rule first { match path \"/a/**\"; set-header X-One 1; }\n\
                 rule second { match path \"/a/b/**\"; set-header X-Two 2; backend other; }\n\
                 rule third { match path \"/a/**\"; deny 403; }\n\
                 rule fourth { set-header X-Four 4; }";
    let _proxy = Proxy::start(&two(&door, rules, app.address, other.address), &[&door]);
    let (_, seen) = ask(&door, "GET /a/b/c HTTP/1.1\r\nHost: h");
    assert!(seen.starts_with("other "), "{seen}");
    assert_eq!(
        [field(&seen, "x-one"), field(&seen, "x-two"), field(&seen, "x-four")],
        [Some("1"), Some("2"), None]
    );
    assert_eq!(status(&ask(&door, "GET /a/c HTTP/1.1\r\nHost: h").0), "403");
    assert_eq!(field(&ask(&door, "GET /b HTTP/1.1\r\nHost: h").1, "x-four"), Some("4"));
}

#[test]
fn conditions_look_at_every_part_of_a_request() {
    let (door, app) = (Door::new(1), named("app"));
    let port = door.address.port();
    let rules = format!(
        "rule a {{ match method PUT DELETE; deny 405; }}\n\
         rule b {{ match header User-Agent \"curl/*\"; unless header X-Pass; deny 406; }}\n\
         rule c {{ match cookie beta yes; match query debug \"1\"; deny 409; }}\n\
         rule d {{ match scheme https; deny 410; }}\n\
         rule e {{ match tls yes; deny 410; }}\n\
         rule f {{ match path regex=#\"^/f/[0-9]+$\"#; match port {port}; unless src \"10.0.0.0/8\"; deny 421; }}"
    );
    let _proxy = Proxy::start(&plan(&door, &rules, "", &[app.address]), &[&door]);
    for (line, fields, code) in [
        ("GET /", "", "200"),
        ("PUT /", "", "405"),
        ("GET /", "user-agent: curl/8", "406"),
        ("GET /", "user-agent: curl/8\r\nX-Pass: 1", "200"),
        ("GET /?debug=1", "Cookie: a=b; beta=yes", "409"),
        ("GET /?debug=2&x", "Cookie: a=b; beta=yes", "200"),
        ("GET /?%64ebug=%31", "Cookie: beta=\"yes\"", "409"),
        ("GET /f/12", "", "421"),
        ("GET /f/12x", "", "200"),
    ] {
        let fields = if fields.is_empty() { String::new() } else { format!("\r\n{fields}") };
        let (head, _) = ask(&door, &format!("{line} HTTP/1.1\r\nHost: h{fields}"));
        assert_eq!(status(&head), code, "{line} {fields}");
    }
}

#[test]
fn a_redirect_goes_where_the_rule_says_and_nowhere_else() {
    let (door, app) = (Door::new(1), named("app"));
    let rules = "rule a { match path \"/a/**\"; redirect prefix=\"https://www.example\" code=301; }\n\
                 rule b { match path \"/b/**\"; redirect scheme=https code=308; }\n\
                 rule c { match path \"/c\"; redirect location=\"%{path}?from=%{header:referer}\"; }";
    let _proxy = Proxy::start(&plan(&door, rules, "", &[app.address]), &[&door]);
    let to = |target: &str, fields: &str| {
        let (head, _) = ask(&door, &format!("GET {target} HTTP/1.1\r\nHost: h:81{fields}"));
        (status(&head).to_owned(), field(&head, "location").unwrap().to_owned())
    };
    assert_eq!(to("/a/x?y=z", ""), ("301".into(), "https://www.example/a/x?y=z".into()));
    assert_eq!(to("//a/x", ""), ("301".into(), "https://www.example//a/x".into()));
    assert_eq!(to("/b/", ""), ("308".into(), "https://h/b/".into()));
    assert_eq!(to("//c", "\r\nReferer: a b"), ("302".into(), "/c?from=a%20b".into()));
}

#[test]
fn a_rule_answers_with_a_text_or_a_file() {
    let (door, app, file) = (Door::new(1), named("app"), scratch("body"));
    std::fs::write(&file, "<p>closed</p>").unwrap();
    let rules = format!(
        "rule robots {{ match path \"/robots.txt\"; respond 200 text=\"User-agent: *\"; }}\n\
         rule closed {{ match path \"/closed\"; set-response-header Retry-After \"60\"; \
         respond 503 file=\"{}\" content-type=\"text/html\"; }}",
        file.display()
    );
    let _proxy = Proxy::start(&plan(&door, &rules, "", &[app.address]), &[&door]);
    let mut client = Peer::connect(door.address);
    client.send(get("/robots.txt"));
    let (head, body) = client.message();
    assert_eq!((status(&head), body.as_str()), ("200", "User-agent: *"));
    assert_eq!(field(&head, "content-type"), Some("text/plain; charset=utf-8"));
    client.send(get("/closed"));
    let (head, body) = client.message();
    assert_eq!((status(&head), body.as_str()), ("503", "<p>closed</p>"));
    assert_eq!((field(&head, "content-type"), field(&head, "retry-after")), (Some("text/html"), Some("60")));
    std::fs::remove_file(file).unwrap();
}

#[test]
fn header_fields_of_requests_and_responses_are_set_added_and_removed() {
    let (door, app) = (Door::new(1), named("app"));
    let rules = "rule all { set-header X-Real-IP \"%{src}\"; add-header X-Seen \"%{method} %{uri} 100%%\"; \
                 remove-header X-Debug; set-header Host \"inner.example\"; \
                 set-response-header X-Old new; add-response-header X-For \"%{host}\"; \
                 remove-response-header Server; }";
    let _proxy = Proxy::start(&plan(&door, rules, "", &[app.address]), &[&door]);
    let (head, seen) = ask(
        &door,
        "GET /p?q HTTP/1.1\r\nHost: www.example:80\r\nX-REAL-ip: 6.6.6.6\r\nx-debug: 1\r\nX-Seen: mine\r\nA: b",
    );
    assert_eq!(
        seen,
        "app GET /p?q HTTP/1.1\r\nHost: inner.example\r\nX-Seen: mine\r\nA: b\r\nX-Real-IP: 127.0.0.1\r\n\
         X-Seen: GET /p?q 100%\r\nVia: 1.1 relais\r\n\r\n"
    );
    assert_eq!(field(&head, "server"), None);
    assert_eq!(field(&head, "x-for"), Some("www.example"));
    assert_eq!(head.matches("X-Old").count(), 1);
    assert_eq!(field(&head, "x-old"), Some("new"));
}

#[test]
fn a_path_is_rewritten_and_the_query_stays() {
    let (door, app) = (Door::new(1), named("app"));
    let rules = "rule a { match path \"/old/**\"; rewrite path prefix=\"/old\" to=\"/new\"; }\n\
                 rule b { match path \"/u/**\"; rewrite path regex=#\"^/u/([^/]+)$\"# to=\"/users/$1/\"; }";
    let _proxy = Proxy::start(&plan(&door, rules, "", &[app.address]), &[&door]);
    for (target, seen) in [
        ("/old/a%20b?x=/old", "/new/a%20b?x=/old"),
        ("/x/../%6fld;y/z", "/new/z"),
        ("/u/ann", "/users/ann/"),
        ("/u/ann/x", "/u/ann/x"),
    ] {
        let (_, got) = ask(&door, &format!("GET {target} HTTP/1.1\r\nHost: h"));
        assert!(got.starts_with(&format!("app GET {seen} HTTP/1.1\r\n")), "{target}: {got}");
    }
}

#[test]
fn a_list_is_read_again_when_it_changes_and_stays_when_it_is_wrong() {
    let (door, app, file) = (Door::new(1), named("app"), scratch("blocked"));
    std::fs::write(&file, "# nobody\n10.0.0.0/8\n").unwrap();
    let rule = format!("rule blocked {{ match src list=\"{}\"; deny 403; }}", file.display());
    let mut proxy = Proxy::start(&plan(&door, &rule, "", &[app.address]), &[&door]);
    let code = || status(&ask(&door, "GET / HTTP/1.1\r\nHost: h").0).to_owned();
    assert_eq!(code(), "200");
    std::fs::write(&file, "10.0.0.0/8\n127.0.0.0/8 # us\n").unwrap();
    wait("the list is read again", || code() == "403");
    std::fs::write(&file, "10.0.0.0/33\n").unwrap();
    let refused = proxy.plan(&plan(&door, &rule, "", &[app.address]), &[&door]);
    let relais_ipc::Report::Refused { why, .. } = refused else { panic!("{refused:?}") };
    assert!(why.starts_with(&format!("{}:1: `10.0.0.0/33` is not", file.display())), "{why}");
    assert_eq!(code(), "403");
    std::fs::remove_file(&file).unwrap();
}

#[test]
fn a_map_chooses_backends_and_is_read_again_when_it_changes() {
    let (door, app, other, file) = (Door::new(1), named("app"), named("other"), scratch("map"));
    std::fs::write(&file, "www.example app\n").unwrap();
    let rules = format!(
        "rule map {{ backend map=\"{}\" key=host; }}\nrule rest {{ match host unknown; deny 404; }}",
        file.display()
    );
    let _proxy = Proxy::start(&two(&door, &rules, app.address, other.address), &[&door]);
    let who = |host: &str| {
        let (head, seen) = ask(&door, &format!("GET / HTTP/1.1\r\nHost: {host}"));
        if status(&head) == "200" {
            seen.split(' ').next().unwrap().to_owned()
        } else {
            status(&head).to_owned()
        }
    };
    assert_eq!([who("www.example"), who("unknown"), who("x.example")], ["app", "404", "app"]);
    std::fs::write(&file, "*.example other\n").unwrap();
    wait("the map is read again", || who("x.example") == "other");
}

#[test]
fn a_tcp_rule_denies_or_chooses_a_backend() {
    let (door, app, other) = (Door::new(1), Origin::answering("app"), Origin::answering("other"));
    let text = |net: &str, act: &str| {
        format!(
            "frontend web {{ mode tcp; bind \"{}\"; rule r {{ match src \"{net}\"; {act}; }}; default-backend app; }}\n\
             backend app {{ mode tcp; server a \"{}\"; }}\nbackend other {{ mode tcp; server o \"{}\"; }}\n",
            door.address, app.address, other.address
        )
    };
    let mut proxy = Proxy::start(&text("10.0.0.0/8", "deny 403"), &[&door]);
    let got = || {
        let mut client = Peer::connect(door.address);
        let _ = client.try_send("GET / HTTP/1.1\r\n\r\n");
        client.half_close();
        client.rest()
    };
    assert_eq!(got(), "app");
    proxy.plan(&text("127.0.0.0/8", "backend other"), &[&door]);
    assert_eq!(got(), "other");
    proxy.plan(&text("127.0.0.0/8", "deny 403"), &[&door]);
    let mut client = Peer::connect(door.address);
    assert!(client.is_closed());
    let line = &proxy.lines(3)[2];
    assert!(line.contains("/<NOSRV> ") && line.contains(" PR "), "{line}");
}

#[test]
fn rules_of_a_backend_are_for_what_it_answers() {
    let (door, app, other) = (Door::new(1), named("app"), named("other"));
    let list = scratch("backend-list");
    std::fs::write(&list, "/secret\n").unwrap();
    let front = "rule \"to other\" { match host \"other.example\"; set-header X-Front 1; backend other; }\n\
                 rule old { match path \"/a/**\"; rewrite path prefix=\"/a\" to=\"/b\"; }";
    let back = format!(
        "rule \"to other\" {{ set-header X-Back \"%{{path}}\"; set-response-header X-By other; }}\n\
         rule secret {{ match path list=\"{}\"; deny 403; }}\n\
         rule one {{ match path \"/one\"; limit max-body=\"1B\"; }}\n",
        list.display()
    );
    let text = two(&door, front, app.address, other.address)
        .replace("backend other {", &format!("backend other {{ {back}"))
        .replace("backend app {", "backend app { rule new { rewrite path prefix=\"/b\" to=\"/c\"; }\n");
    let mut proxy = Proxy::start(&text, &[&door]);
    let to = |host: &str, path: &str| ask(&door, &format!("GET {path} HTTP/1.1\r\nHost: {host}"));
    let (head, seen) = to("other.example", "/x");
    assert!(seen.starts_with("other GET /x ") && seen.contains("X-Front: 1") && seen.contains("X-Back: /x"));
    assert_eq!(field(&head, "x-by"), Some("other"));
    let (head, seen) = to("app.example", "/a/x");
    assert!(seen.starts_with("app GET /c/x ") && !seen.contains("X-Back"), "both rewrite: {seen}");
    assert_eq!(field(&head, "x-by"), None);
    assert_eq!(status(&to("app.example", "/secret").0), "200");
    let (head, _) = to("other.example", "/./secret");
    assert_eq!((status(&head), field(&head, "x-by")), ("403", Some("other")));
    let line = &proxy.lines(4)[3];
    assert!(line.contains(" other/<NOSRV> ") && line.contains(" PR-- "), "{line}");
    let long = "POST /one HTTP/1.1\r\nHost: other.example\r\nContent-Length: 2";
    assert_eq!(status(&ask(&door, long).0), "413");
    let hits =
        |proxy: &Proxy, backend: usize, rule: usize| proxy.status().backends[backend].rules[rule].hits_total;
    assert_eq!((hits(&proxy, 1, 0), hits(&proxy, 1, 1), hits(&proxy, 0, 0)), (3, 1, 2));
    assert_eq!(proxy.status().frontends[0].rules[0].hits_total, 3, "of the same name, and another");
    std::fs::write(&list, "/other-secret\n").unwrap();
    wait("the list", || status(&to("other.example", "/other-secret").0) == "403");
    assert_eq!(status(&to("other.example", "/secret").0), "200");

    let tcp = "mode tcp\nrule \"not for us\" { match src \"127.0.0.0/8\"; deny 403; }";
    assert!(matches!(
        proxy.plan(&plan(&door, "mode tcp", tcp, &[app.address]), &[]),
        relais_ipc::Report::Ready { .. }
    ));
    assert!(Peer::connect(door.address).is_closed());
    std::fs::remove_file(&list).unwrap();
}
