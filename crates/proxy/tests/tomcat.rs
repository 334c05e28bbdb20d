//! Tomcat as the judge: no spelling of a path that it takes into `/manager` gets past a rule against it, and where both read a
//! path, both read the same one.

#![allow(clippy::unwrap_used)]

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use common::*;

const HOME: &str = "/usr/share/tomcat10";

/// A Tomcat with two applications, `/` and `/manager`, that answer with the path that their servlet sees.
struct Tomcat {
    child: Child,
    base: PathBuf,
    address: SocketAddr,
}

const ECHO: &str = "<%@ page contentType=\"text/plain; charset=utf-8\" %><%= application.getContextPath() %>|<%= \
    request.getServletPath() + (request.getPathInfo() == null ? \"\" : request.getPathInfo()) %>|";

fn application(folder: &Path) {
    std::fs::create_dir_all(folder.join("WEB-INF")).unwrap();
    std::fs::write(folder.join("WEB-INF/echo.jsp"), ECHO).unwrap();
    let web = "<web-app xmlns=\"https://jakarta.ee/xml/ns/jakartaee\" version=\"5.0\">\
        <servlet><servlet-name>echo</servlet-name><jsp-file>/WEB-INF/echo.jsp</jsp-file></servlet>\
        <servlet-mapping><servlet-name>echo</servlet-name><url-pattern>/*</url-pattern></servlet-mapping></web-app>";
    std::fs::write(folder.join("WEB-INF/web.xml"), web).unwrap();
}

impl Tomcat {
    fn start() -> Tomcat {
        let base = scratch("tomcat");
        for folder in ["conf", "temp", "work"] {
            std::fs::create_dir_all(base.join(folder)).unwrap();
        }
        application(&base.join("webapps/ROOT"));
        application(&base.join("webapps/manager"));
        let server = "<Server port=\"-1\"><Service name=\"Catalina\">\
            <Connector port=\"0\" address=\"127.0.0.1\" maxKeepAliveRequests=\"-1\"/>\
            <Engine name=\"Catalina\" defaultHost=\"localhost\">\
            <Host name=\"localhost\" appBase=\"webapps\" autoDeploy=\"false\"/></Engine></Service></Server>";
        std::fs::write(base.join("conf/server.xml"), server).unwrap();
        // What Tomcat's own conf/web.xml says of JSP.
        let web = "<web-app xmlns=\"https://jakarta.ee/xml/ns/jakartaee\" version=\"5.0\"><servlet>\
            <servlet-name>jsp</servlet-name><servlet-class>org.apache.jasper.servlet.JspServlet</servlet-class>\
            </servlet></web-app>";
        std::fs::write(base.join("conf/web.xml"), web).unwrap();
        let mut child = Command::new("java")
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .args(["-cp", &format!("{HOME}/bin/bootstrap.jar:{HOME}/bin/tomcat-juli.jar")])
            .arg(format!("-Dcatalina.home={HOME}"))
            .arg(format!("-Dcatalina.base={}", base.display()))
            .arg(format!("-Djava.io.tmpdir={}", base.join("temp").display()))
            .args(["org.apache.catalina.startup.Bootstrap", "start"])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut port = None;
        let mut said = String::new();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        while let Some(Ok(line)) = lines.next() {
            // `Starting ProtocolHandler ["http-nio-127.0.0.1-auto-1-43210"]`, then `Server startup in ...`
            if line.contains("Starting ProtocolHandler") {
                port = line.trim_end_matches("\"]").rsplit('-').next().and_then(|port| port.parse().ok());
            }
            if line.contains("Server startup in") {
                break;
            }
            said += &line;
            said.push('\n');
        }
        let port: u16 = port.unwrap_or_else(|| panic!("Tomcat did not start:\n{said}"));
        std::thread::spawn(move || lines.for_each(drop)); // a full pipe would hold it
        Tomcat { child, base, address: SocketAddr::from(([127, 0, 0, 1], port)) }
    }
}

impl Drop for Tomcat {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.base);
    }
}

/// Requests on one connection, which is made anew when it ends.
struct Asker {
    address: SocketAddr,
    peer: Peer,
}

impl Asker {
    fn new(address: SocketAddr) -> Asker {
        Asker { address, peer: Peer::connect(address) }
    }

    /// Status and body; what cannot be read as an answer is a refusal.
    fn ask(&mut self, target: &[u8]) -> (u16, String) {
        let request = [b"GET ", target, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
        for _ in 0..2 {
            if self.peer.try_send(&request).is_ok()
                && let Some(head) = self.peer.try_head()
            {
                let length = field(&head, "content-length");
                let body = match length {
                    Some(length) => {
                        String::from_utf8_lossy(&self.peer.take(length.parse().unwrap())).into_owned()
                    }
                    None => self.chunks(&head),
                };
                if field(&head, "connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
                    self.peer = Peer::connect(self.address);
                }
                return (head.split(' ').nth(1).unwrap().parse().unwrap(), body);
            }
            self.peer = Peer::connect(self.address);
        }
        (400, String::new())
    }

    fn chunks(&mut self, head: &str) -> String {
        assert!(field(head, "transfer-encoding").is_some() || head.contains(" 30"), "{head}");
        let mut body = Vec::new();
        loop {
            let mut line = String::new();
            self.peer.io.read_line(&mut line).unwrap();
            let size = usize::from_str_radix(line.trim(), 16).unwrap();
            body.extend(self.peer.take(size));
            self.peer.take(2);
            if size == 0 {
                return String::from_utf8_lossy(&body).into_owned();
            }
        }
    }
}

/// Ways to write paths: every piece alone, before and behind the name, between its letters, and a seeded mixture.
fn spellings() -> BTreeSet<Vec<u8>> {
    const PIECES: &[&[u8]] = &[
        b"/",
        b"//",
        b"///",
        b"/.",
        b"/./",
        b"/..",
        b"/../",
        b"/a/..",
        b"/a/../",
        b"/a/b/../..",
        b";",
        b";x",
        b";x=1;y",
        b";/",
        b"/;/",
        b"/;x/",
        b"/..;/",
        b"/..;x=1/",
        b"/a/..;/",
        b"/.;/",
        b"/%2e",
        b"/%2e/",
        b"/%2e%2e/",
        b"/a/%2e%2e/",
        b"/a/.%2E/",
        b"/a/%2e.;/",
        b"/%2f",
        b"%2f",
        b"%2F",
        b"%5c",
        b"%5C",
        b"\\",
        b"/\\",
        b"%00",
        b"%",
        b"%4",
        b"%zz",
        b"%u002f",
        b"%25",
        b"%252f",
        b"%252e",
        b"%c0%af",
        b"%c0%ae",
        b"%e0%80%af",
        b"%f0%80%80%af",
        b"%ff",
        b"%c3%a9",
        b"\xc3\xa9",
        b"\xff",
        b"%3b",
        b"%3B",
        b"%3f",
        b"%23",
        b"%20",
        b"+",
        b"%09",
        b"%0d%0a",
        b"%7f",
        b".",
        b"..",
        b"...",
        b"~",
        b"*",
        b"|",
        b"^",
        b"{",
        b"}",
        b"\"",
        b"<",
        b"[",
        b"]",
        b"`",
        b"?",
        b"?x=/../manager",
        b"#",
        b"%ef%bc%8f",
        b"%e2%88%95",
        b"html",
        b"/html",
        b"manager",
        b"/manager",
        b"/manager/",
        b"MANAGER",
        b"%6d",
        b"%6D",
        b":",
        b"@",
        b"'",
        b"%2e%2e%2f",
        b"..%2f",
        b"%2e%2e/",
        b"..%5c",
        b"%c1%9c",
        b"%ed%a0%80",
        b"&",
        b"=",
        b",",
        b"!",
        b"$",
        b"(",
        b")",
    ];
    let names: [&[u8]; 6] =
        [b"manager", b"%6danager", b"m%61nager", b"%6D%61%6E%61%67%65%72", b"manage%72", b"%256danager"];
    let mut all = BTreeSet::new();
    for piece in PIECES {
        all.insert([b"/", *piece].concat());
        for name in names {
            let name: &[u8] = name;
            all.insert([b"/", *piece, name, b"/html"].concat());
            all.insert([*piece, name].concat());
            all.insert([b"/", name, *piece].concat());
            all.insert([b"/", name, *piece, b"html"].concat());
            all.insert([b"/x", *piece, b"/", name, b"/x"].concat());
        }
        for at in 1..7 {
            all.insert([b"/", &b"manager"[..at], *piece, &b"manager"[at..]].concat());
        }
    }
    let mut seed = 0x5eed_u64;
    let mut pick = |n: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % n
    };
    while all.len() < 9_000 {
        let mut path = b"/".to_vec();
        for _ in 0..2 + pick(5) {
            path.extend_from_slice(if pick(3) == 0 {
                names[pick(names.len())]
            } else {
                PIECES[pick(PIECES.len())]
            });
        }
        all.insert(path);
    }
    // A target that is none, or is another one to every parser, is not a spelling of a path.
    all.retain(|path| path.starts_with(b"/") && !path.iter().any(|&b| b == b'\r' || b == b'\n' || b == b' '));
    all
}

#[test]
fn no_spelling_that_tomcat_takes_for_the_manager_gets_past_a_rule() {
    if !Path::new(HOME).join("bin/bootstrap.jar").exists() {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "tomcat10 is not installed, and CI must not skip"
        );
        let _ = writeln!(std::io::stderr(), "SKIPPED: tomcat10 is not installed");
        return;
    }
    let tomcat = Tomcat::start();
    let door = Door::new(1);
    let rule = "rule manager { match path \"/manager/**\"; deny 403; }";
    let _proxy = Proxy::start(&plan(&door, rule, "", &[tomcat.address]), &[&door]);
    let (mut direct, mut relais) = (Asker::new(tomcat.address), Asker::new(door.address));
    let spellings = spellings();
    let (mut into_manager, mut both, mut out) = (0, 0, Vec::new());
    let mut wrong = Vec::new();
    for target in &spellings {
        let shown = String::from_utf8_lossy(target).into_owned();
        let (status, body) = direct.ask(target);
        let (ruled, _) = relais.ask(target);
        // A redirect to `/manager/` is a way into it, too.
        let mut parts = body.split('|');
        let (context, path) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let manager = matches!(status, 200 | 302) && (context == "/manager" || status == 302);
        into_manager += u32::from(manager);
        if manager && !matches!(ruled, 400 | 403) {
            wrong.push(format!("{shown}: let through ({ruled}); Tomcat: {status} {body}"));
        }
        if status != 200 {
            continue;
        }
        if let Ok(ours) = relais_rules::path::normalize(target, &mut out) {
            both += 1;
            let theirs = format!("{context}{path}");
            if ours != theirs.as_bytes() {
                wrong.push(format!("{shown}: {} for us, {theirs} for Tomcat", String::from_utf8_lossy(ours)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), spellings.len(), wrong.join("\n"));
    assert!(
        spellings.len() >= 4_000 && into_manager >= 500 && both >= 1_500,
        "{} {into_manager} {both}",
        spellings.len()
    );
}
