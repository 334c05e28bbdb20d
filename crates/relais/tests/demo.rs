//! `relais demo` as a visitor has it: started without root, watched and broken over its own HTTP, ended by
//! force. Where the machine refuses user namespaces the tests that need them say so, and fail if `CI` is set.
#![allow(clippy::unwrap_used, reason = "a test's panic is its verdict")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

const NOBODY: u32 = 65534;

/// A directory for one test, which `nobody` can use too.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let dir = std::env::temp_dir().join(format!("relais-test-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).unwrap();
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o777)).unwrap();
        Scratch(dir)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A running demo.
struct Demo {
    front: Child,
    page: String,
    platform: String,
    scratch: Scratch,
}

impl Demo {
    /// Starts it as an ordinary user, root's tests as `nobody`, and waits until it says where it is.
    fn start(name: &str, arguments: &[&str]) -> Demo {
        let scratch = Scratch::new(name);
        let mut command = if rustix::process::geteuid().is_root() {
            // The build directory may be closed to others.
            let binary = scratch.0.join("relais");
            std::fs::copy(env!("CARGO_BIN_EXE_relais"), &binary).unwrap();
            let mut command = Command::new(binary);
            command.uid(NOBODY).gid(NOBODY);
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_relais"))
        };
        command.args(["demo", "--port", "0", "--duration", "60"]).args(arguments);
        command.env("TMPDIR", &scratch.0).stdin(Stdio::null()).stdout(Stdio::piped());
        let begun = Instant::now();
        let mut front = command.spawn().unwrap();
        let mut urls =
            BufReader::new(front.stdout.take().unwrap()).lines().map(Result::unwrap).filter_map(|line| {
                let url = line.trim_start().strip_prefix("http://")?;
                Some(url.split('/').next()?.to_owned())
            });
        let page = urls.next().expect("the demo ended before it said where its page is");
        let platform = urls.next().expect("the demo ended before it said where the platform is");
        // What it says later must have somewhere to go.
        std::thread::spawn(move || urls.for_each(drop));
        assert!(begun.elapsed() < Duration::from_secs(10), "it took {:?} to start", begun.elapsed());
        let demo = Demo { front, page, platform, scratch };
        demo.wait("everybody is well", |state| {
            let up =
                |server: &Value| server["instances"].as_array().unwrap().iter().all(|one| one["up"] == true);
            state["holder"].is_string()
                && state["servers"].as_array().unwrap().iter().all(up)
                && state["client"]["requests"].as_u64() > Some(200)
                && state["enrolments"]["acknowledged"].as_u64() > Some(2)
        });
        demo
    }

    fn state(&self) -> Value {
        let (status, body) = ask(&self.page, "GET /state?after=999999999", &[], "");
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// The first state that is as it should be.
    fn wait(&self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let state = self.state();
            if is(&state) {
                return state;
            }
            assert!(Instant::now() < deadline, "waited in vain until {what}: {state:#}");
            std::thread::sleep(Duration::from_millis(50)); // the state has no event to wait for
        }
    }

    fn act(&self, target: &str, action: &str) -> (u16, Value) {
        let body = json!({ "target": target, "action": action }).to_string();
        let (status, body) = ask(&self.page, "POST /act", &["Content-Type: application/json"], &body);
        (status, serde_json::from_str(&body).unwrap_or(Value::String(body)))
    }

    /// Does it and waits for the row that says what it cost.
    fn cost_of(&self, target: &str, action: &str) -> Value {
        let (status, done) = self.act(target, action);
        assert_eq!(status, 200, "{done}");
        let find = |state: &Value| {
            let rows = state["rows"].as_array().unwrap();
            rows.iter().find(|row| row["id"] == done["row"] && row["done"] == true).cloned()
        };
        find(&self.wait("the row is closed", |state| find(state).is_some())).unwrap()
    }

    /// Everything that was started from its directory or works in it and is alive.
    fn processes(&self) -> Vec<String> {
        let here = self.scratch.0.to_str().unwrap();
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|entry| {
                let command = std::fs::read(entry.path().join("cmdline")).ok()?;
                let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
                let ours =
                    [&command, &environment].iter().any(|text| String::from_utf8_lossy(text).contains(here));
                (ours && !command.is_empty()).then(|| String::from_utf8_lossy(&command).replace('\0', " "))
            })
            .collect()
    }

    /// Ends the front by a signal; nothing may be left.
    fn end_by(self, signal: Signal) {
        let front = Pid::from_child(&self.front);
        self.end(front, signal);
    }

    /// Kills the controller, which is no more polite; nothing may be left.
    fn end_by_controller(self) {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
        let here = self.scratch.0.to_str().unwrap();
        let is_controller = |pid: &i32| {
            let command = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            command.contains(" child demo ") && command.contains(here)
        };
        let controllers: Vec<_> = pids.filter(is_controller).collect();
        assert_eq!(controllers.len(), 1);
        self.end(Pid::from_raw(controllers[0]).unwrap(), Signal::KILL);
    }

    fn end(mut self, pid: Pid, signal: Signal) {
        assert!(self.processes().len() > 8, "{:?}", self.processes());
        kill_process(pid, signal).unwrap();
        self.front.wait().unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        let left = || {
            let files = std::fs::read_dir(&self.scratch.0).unwrap().flatten().map(|entry| entry.path());
            let files: Vec<_> = files.filter(|path| path.file_name() != Some("relais".as_ref())).collect();
            (self.processes(), files)
        };
        while left() != (vec![], vec![]) {
            assert!(Instant::now() < deadline, "{:?} is left", left());
            std::thread::sleep(Duration::from_millis(20)); // who is not the parent has no event to wait for
        }
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        let _ = self.front.kill();
        let _ = self.front.wait();
    }
}

/// One request; status and body.
fn ask(address: &str, head: &str, fields: &[&str], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    let fields: String = fields.iter().map(|field| format!("{field}\r\n")).collect();
    let length = body.len();
    let request = format!(
        "{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n{fields}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").map_or(String::new(), |(_, body)| body.to_owned()))
}

/// Says why a test cannot show anything here; in CI that is a failure.
fn skip(why: &str) {
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{why}");
    eprintln!("SKIPPED: {why}");
}

#[test]
fn the_holder_is_killed_and_the_client_hardly_notices() {
    let demo = Demo::start("killed", &[]);
    let before = demo.state();
    if before["mode"] != "network" {
        return skip("this machine allows no user namespaces, so there is no virtual address to move");
    }
    let row = demo.cost_of("holder", "kill-all");
    assert_eq!(row["target"], before["holder"]);
    assert!(row["outage_ms"].as_u64() < Some(1_000), "{row:#}");
    assert!(row["then"].as_str().unwrap().ends_with("took the address over"), "{row:#}");

    let after = demo.wait("receipts come from the new holder", |state| {
        let acknowledged = |state: &Value| state["enrolments"]["acknowledged"].as_u64().unwrap();
        acknowledged(state) > acknowledged(&before) + 5
    });
    assert_ne!(after["holder"], before["holder"]);
    assert_eq!(
        (&after["enrolments"]["lost"], &after["enrolments"]["twice"]),
        (&json!(0), &json!(0)),
        "{after:#}"
    );

    let dead = before["holder"].as_str().unwrap();
    let (status, why) = demo.act(dead, "kill-worker");
    assert_eq!(status, 409, "there is nothing left to kill: {why}");
    demo.cost_of(dead, "start");
    demo.wait("the dead balancer is back", |state| {
        state["balancers"].as_array().unwrap().iter().all(|one| one["running"] == true && one["state"] != "")
    });

    // A planned stop costs nothing at all.
    let row = demo.cost_of("holder", "stop");
    assert_eq!(row["failed"], 0, "{row:#}");
    demo.end_by(Signal::KILL);
}

#[test]
fn an_instance_is_killed_and_a_plan_reloaded_and_no_request_fails() {
    let demo = Demo::start("parts", &[]);
    // A killed worker takes along what it was in the middle of, and no more.
    let row = demo.cost_of("holder", "kill-worker");
    assert!(row["outage_ms"].as_u64() < Some(500) && row["failed"].as_u64() < Some(10), "{row:#}");
    for (target, action) in [("tomcat1-1", "kill"), ("tomcat1-1", "start"), ("holder", "reload")] {
        let row = demo.cost_of(target, action);
        assert_eq!(row["failed"], 0, "{row:#}");
        assert!(row["outage_ms"].as_u64() < Some(500), "{row:#}");
    }
    let (status, _) = ask(&demo.platform, "GET /", &[], "");
    assert_eq!(status, 200, "a visitor comes through to the application");

    // What a visitor kills from a terminal has its row too.
    let pid = demo.state()["balancers"][0]["processes"][1]["pid"].as_i64().unwrap();
    kill_process(Pid::from_raw(pid as i32).unwrap(), Signal::KILL).unwrap();
    let found = |state: &Value| {
        let rows = state["rows"].as_array().unwrap();
        rows.last().is_some_and(|row| row["what"] == "proxy killed from outside" && row["done"] == true)
    };
    demo.wait("the page tells of the killed proxy", found);
    demo.end_by(Signal::INT);
}

#[test]
fn without_a_network_of_its_own_the_platform_runs_on_loopback_and_says_so() {
    let demo = Demo::start("loopback", &["--loopback"]);
    let state = demo.state();
    assert_eq!((&state["mode"], &state["address"]), (&json!("loopback"), &Value::Null));
    let row = demo.cost_of("haproxy1", "kill-all");
    assert!(row["outage_ms"].as_u64() < Some(1_000), "{row:#}");
    demo.wait("the second balancer serves", |state| state["holder"] == "haproxy2");
    let (status, why) = demo.act("haproxy2", "cut-link");
    assert_eq!(status, 409, "{why}");
    demo.end_by_controller();
}

#[test]
fn a_foreign_page_can_break_nothing() {
    let demo = Demo::start("foreign", &["--loopback"]);
    let body = json!({ "target": "haproxy1", "action": "kill-all" }).to_string();
    let json = "Content-Type: application/json";
    let (status, _) = ask(&demo.page, "POST /act", &[json, "Origin: http://evil.example"], &body);
    assert_eq!(status, 403);
    let (status, _) = ask(&demo.page, "POST /act", &["Content-Type: text/plain"], &body);
    assert_eq!(status, 403);
    assert_eq!(demo.state()["rows"], json!([]));
    demo.end_by(Signal::KILL);
}

#[test]
fn the_page_draws_the_platform_without_an_error() {
    let Some(chromium) = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"]
        .into_iter()
        .find(|path| Path::new(path).exists())
    else {
        return skip("no chromium is installed, so nobody looks at the page");
    };
    let demo = Demo::start("page", &[]);
    let profile = Scratch::new("chromium");
    let out = Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
            "--disable-sync",
        ])
        .args(["--disable-background-networking", "--disable-component-update", "--enable-logging=stderr"])
        .args(["--window-size=390,844", "--virtual-time-budget=3000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.0.display()))
        .arg(format!("http://{}/", demo.page))
        .output()
        .unwrap();
    let (dom, log) = (String::from_utf8_lossy(&out.stdout), String::from_utf8_lossy(&out.stderr));
    let complaints: Vec<_> = log.lines().filter(|line| line.contains("CONSOLE")).collect();
    assert_eq!(complaints, Vec::<&str>::new());
    for part in ["haproxy1", "haproxy2", "tomcat1-1", "tomcat2-2", "Pull the network cable of haproxy2"] {
        assert!(dom.contains(part) || demo.state()["mode"] == "loopback", "{part} is not drawn:\n{dom}");
    }
    assert!(dom.contains(r#"aria-busy="false""#), "the page never got its first state:\n{dom}");
}
