//! What can be asked, and the answers.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::{Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HOST, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;

use crate::snapshot::{Snapshot, Source};
use crate::{csv, metrics};

const PAGE: &str = include_str!("page.html");

/// The page loads nothing from anywhere and is shown in no other page.
const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                      connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PATHS: &str = "\
/           the dashboard
/status     the node as JSON
/metrics    the same for Prometheus, under HAProxy's names and relais_*
/stats;csv  the same as HAProxy's `show stat` (also /stats.csv)
/healthz    200 while this process answers
";

/// Everything that can be asked of `source`'s node.
pub(crate) fn router(source: Arc<Source>) -> Router {
    Router::new()
        .route("/", get(|| async { Html(PAGE) }))
        .route("/status", get(async |source: State<Arc<Source>>| Json(source.snapshot().await)))
        .route(
            "/metrics",
            get(|source| text(source, "text/plain; version=0.0.4; charset=utf-8", metrics::write)),
        )
        .route("/stats;csv", get(|source| text(source, "text/csv; charset=utf-8", csv::write)))
        .route("/stats.csv", get(|source| text(source, "text/csv; charset=utf-8", csv::write)))
        .route("/healthz", get(|| async { "ok\n" }))
        .fallback(|| async {
            (StatusCode::NOT_FOUND, format!("There is nothing here. What there is:\n\n{PATHS}"))
        })
        .method_not_allowed_fallback(|| async {
            (StatusCode::METHOD_NOT_ALLOWED, "Everything here is read only: GET or HEAD.\n")
        })
        .layer(middleware::from_fn_with_state(source.clone(), guard))
        .with_state(source)
}

async fn text(
    State(source): State<Arc<Source>>,
    kind: &'static str,
    write: fn(&Snapshot) -> String,
) -> impl IntoResponse {
    ([(CONTENT_TYPE, kind)], write(&source.snapshot().await))
}

/// Answers only who asked for this machine, and tells browsers and caches to keep nothing.
///
/// A page on the internet can make a name of its own point to this address and have its visitor's browser ask
/// here (DNS rebinding); such a request carries that name.
async fn guard(State(source): State<Arc<Source>>, request: Request, next: Next) -> Response {
    let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or_default());
    let mut response = if host.is_some_and(|host| is_ours(host, &source.node().node)) {
        next.run(request).await
    } else {
        let why = "Ask by address, as localhost, or by the node's name: other names are refused, because \
                   anyone can make one point here.\n";
        (StatusCode::MISDIRECTED_REQUEST, why).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in [
        (CONNECTION, "close"),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (X_FRAME_OPTIONS, "DENY"),
        (REFERRER_POLICY, "no-referrer"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a `Host` field names this machine in a way that nobody else can take.
fn is_ours(host: &str, node: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    match name.strip_prefix('[').and_then(|name| name.strip_suffix(']')) {
        Some(v6) => v6.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()),
        None => {
            name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4())
                || name.eq_ignore_ascii_case("localhost")
                || (!node.is_empty() && name.eq_ignore_ascii_case(node))
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use relais_ipc::status::{
        BackendStatus, FrontendStatus, HeartbeatStatus, NodeStatus, ProcessStatus, ProxyStatus, ServerStatus,
        Traffic, VipStatus, VipsStatus,
    };
    use relais_ipc::{FrontendState, Role, VipState};
    use std::path::{Path, PathBuf};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream, UnixListener};

    /// A node on which all is well.
    pub(crate) fn example() -> Snapshot {
        let server = |name: &str, address: &str| ServerStatus {
            name: name.into(),
            address: address.into(),
            up: true,
            checked: true,
            check: "status 200".into(),
            check_ms: 2,
            average_ms: [1, 30, 69, 109],
            since_s: 60,
            weight: 1,
            active: 3,
            sessions_total: 1000,
            traffic: Traffic { sessions_max: 9, rate: 1, rate_max: 2 },
            client_aborts_total: 3,
            server_aborts_total: 2,
            retries_total: 2,
            responses_total: [0, 990, 0, 10, 0, 0],
            ..ServerStatus::default()
        };
        let process = |role| ProcessStatus { role, pid: Some(std::process::id()), ready: true, restarts: 1 };
        Snapshot {
            time_s: 1_800_000_000,
            started_s: vec![(Role::Proxy, 1_799_999_000)],
            node: NodeStatus {
                node: "haproxy1".into(),
                platform: "progres".into(),
                version: "0.1.0".into(),
                generation: 3,
                processes: Role::ALL.map(process).to_vec(),
                ..NodeStatus::default()
            },
            proxy: Some(ProxyStatus {
                certificates: vec![relais_ipc::status::Certificate {
                    file: "/tls/1.pem".into(),
                    name: "a.test".into(),
                    not_after: 1_900_000_000,
                }],
                workers: 2,
                frontends: vec![
                    FrontendStatus {
                        name: "web".into(),
                        mode: "http".into(),
                        connections: 12,
                        max_connections: 20_000,
                        traffic: Traffic { sessions_max: 40, rate: 5, rate_max: 50 },
                        request_rate: 6,
                        request_rate_max: 60,
                        requests_total: 2000,
                        bytes_out_total: 1 << 54,
                        responses_total: [0, 1980, 0, 20, 1, 0],
                        ..FrontendStatus::default()
                    },
                    FrontendStatus {
                        name: "database".into(),
                        mode: "tcp".into(),
                        ..FrontendStatus::default()
                    },
                ],
                backends: vec![
                    BackendStatus {
                        name: "app".into(),
                        mode: "http".into(),
                        servers: vec![server("t1", "10.0.0.1:8081"), server("t2", "10.0.0.2:8081")],
                        unserved_total: 1,
                        queued_max: 7,
                        traffic: Traffic { sessions_max: 12, rate: 1, rate_max: 2 },
                        average_ms: [1, 2, 68, 108],
                        client_aborts_total: 1,
                        ..BackendStatus::default()
                    },
                    BackendStatus {
                        name: "odd \"name\"\\".into(),
                        mode: "tcp".into(),
                        servers: vec![ServerStatus {
                            checked: false,
                            check: String::new(),
                            ..server("db", "10.0.0.3:3306")
                        }],
                        ..BackendStatus::default()
                    },
                ],
                ..ProxyStatus::default()
            }),
            vips: Some(VipsStatus {
                vips: vec![VipStatus {
                    name: "public".into(),
                    address: "192.0.2.180/24".into(),
                    interface: "eth0".into(),
                    router_id: 51,
                    state: VipState::Master,
                    priority: 101,
                    master: Some([192, 0, 2, 1].into()),
                    moved: None,
                    reason: "highest priority".into(),
                    since_s: 5,
                    became_master_total: 1,
                    transitions_total: [("master".to_owned(), 1)].into(),
                    adverts_sent_total: 9,
                    adverts_received_total: 1,
                    adverts_refused_total: 0,
                    tracked: vec![("frontend web".into(), FrontendState::Up)],
                }],
                heartbeats: vec![HeartbeatStatus {
                    node: "haproxy2".into(),
                    from: Some([192, 0, 2, 1].into()),
                    to: [192, 0, 2, 2].into(),
                    up: true,
                    age_ms: Some(12),
                    received_total: 40,
                    lost_total: 1,
                }],
                ..VipsStatus::default()
            }),
            ..Snapshot::default()
        }
    }

    /// A running app on a run directory of its own, removed at the end.
    struct Running {
        address: std::net::SocketAddr,
        run_dir: PathBuf,
    }

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.run_dir);
        }
    }

    fn socket(run_dir: &Path, name: &str) -> UnixListener {
        UnixListener::bind(run_dir.join(name)).unwrap()
    }

    async fn start(name: &str) -> Running {
        let run_dir = std::env::temp_dir().join(format!("relais-admin-{}-{name}", std::process::id()));
        let _ = std::fs::remove_dir_all(&run_dir);
        std::fs::create_dir(&run_dir).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let source = Arc::new(Source::default());
        source.hello("haproxy1".into(), run_dir.clone());
        source.node_is(example().node);
        tokio::spawn(crate::server::run(listener, source));
        Running { address, run_dir }
    }

    fn serve_documents(run_dir: &Path) {
        let documents = example();
        let (proxy, vips) = (documents.proxy.unwrap(), documents.vips.unwrap());
        tokio::spawn(relais_ipc::status::serve(socket(run_dir, "proxy.sock"), move || proxy.clone()));
        tokio::spawn(relais_ipc::status::serve(socket(run_dir, "vip.sock"), move || vips.clone()));
    }

    /// The whole answer to these bytes.
    async fn say(running: &Running, request: &str) -> String {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await; // a reset ends an answer too
        String::from_utf8(answer).unwrap()
    }

    async fn ask(running: &Running, method: &str, path: &str) -> (u16, String) {
        let answer =
            say(running, &format!("{method} {path} HTTP/1.1\r\nHost: {}\r\n\r\n", running.address)).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.to_lowercase().contains("\r\nconnection: close"), "{head}");
        assert!(head.to_lowercase().contains("\r\ncache-control: no-store"), "{head}");
        (head[9..12].parse().unwrap(), body.to_owned())
    }

    #[tokio::test]
    async fn the_status_document_has_what_every_process_says() {
        let running = start("status").await;
        serve_documents(&running.run_dir);
        let (status, body) = ask(&running, "GET", "/status").await;
        assert_eq!(status, 200);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!(json["node"]["node"], "haproxy1");
        assert_eq!(json["proxy"]["backends"][0]["servers"][1]["name"], "t2");
        assert_eq!(json["vips"]["vips"][0]["state"], "master");
        assert_eq!(json["missing"], serde_json::json!([]));
        assert_eq!(json["attention"], serde_json::json!([]));
        assert_eq!(json["started_s"][0][0], "proxy");
    }

    #[tokio::test]
    async fn a_process_that_is_gone_or_hangs_is_said_and_is_no_error() {
        let running = start("missing").await;
        let _silent = socket(&running.run_dir, "proxy.sock");
        let (status, body) = ask(&running, "GET", "/status").await;
        assert_eq!(status, 200);
        let json: serde_json::Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&json["proxy"], &json["vips"]), (&serde_json::Value::Null, &serde_json::Value::Null));
        assert_eq!(json["missing"][0]["why"], "has not answered within 500 ms");
        let why = json["missing"][1]["why"].as_str().unwrap();
        assert!(why.starts_with("does not listen on ") && why.ends_with("/vip.sock"), "{why}");
        assert!(json["attention"][0].as_str().unwrap().starts_with("proxy has not answered within 500 ms"));
        let (status, body) = ask(&running, "GET", "/metrics").await;
        assert_eq!(status, 200);
        assert!(body.contains("relais_process_answers{role=\"proxy\"} 0\n"), "{body}");
        assert_eq!(ask(&running, "GET", "/stats;csv").await.0, 200);
    }

    #[tokio::test]
    async fn every_path_that_the_404_names_is_there_and_nothing_else() {
        let running = start("paths").await;
        serve_documents(&running.run_dir);
        let (status, body) = ask(&running, "GET", "/nothing").await;
        assert_eq!(status, 404);
        let named: Vec<&str> = body
            .split_whitespace()
            .map(|word| word.trim_end_matches(')'))
            .filter(|w| w.starts_with('/'))
            .collect();
        assert_eq!(named, ["/", "/status", "/metrics", "/stats;csv", "/stats.csv", "/healthz"]);
        for path in named {
            assert_eq!(ask(&running, "GET", path).await.0, 200, "{path}");
            assert_eq!(ask(&running, "HEAD", path).await, (200, String::new()), "{path}");
        }
        assert!(ask(&running, "GET", "/").await.1.contains("</html>"));
    }

    #[tokio::test]
    async fn nothing_can_be_changed() {
        let running = start("readonly").await;
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            let (status, body) = ask(&running, method, "/status").await;
            assert_eq!((status, &*body), (405, "Everything here is read only: GET or HEAD.\n"), "{method}");
        }
    }

    #[tokio::test]
    async fn a_name_that_somebody_else_could_have_made_is_refused() {
        let running = start("rebinding").await;
        for (host, status) in [("evil.example", "421"), ("haproxy1:8404", "200"), ("localhost", "200")] {
            let answer = say(&running, &format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
            assert_eq!(&answer[9..12], status, "{host}");
        }
        assert_eq!(&say(&running, "GET /healthz HTTP/1.0\r\n\r\n").await[9..12], "421");
    }

    #[test]
    fn hosts_are_addresses_localhost_or_the_node() {
        for ours in ["127.0.0.1", "10.1.2.3:8404", "[::1]", "[::1]:8404", "LocalHost:1", "n1", "N1:80"] {
            assert!(is_ours(ours, "n1"), "{ours}");
        }
        for other in
            ["", "a.example", "127.0.0.1.a.example", "::1", "[10.0.0.1]", "n1.example", "n1:x", "localhost:"]
        {
            assert!(!is_ours(other, "n1"), "{other}");
        }
        assert!(!is_ours("", ""));
    }

    #[tokio::test]
    async fn a_request_without_end_is_cut_off() {
        let running = start("endless").await;
        let long = format!("GET / HTTP/1.1\r\nHost: localhost\r\nx: {}", "x".repeat(64 * 1024));
        let said = tokio::time::timeout(std::time::Duration::from_secs(5), say(&running, &long)).await;
        assert_eq!(said.expect("it was heard to the end of its time"), "");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_says_nothing_is_let_go() {
        let running = start("silent").await;
        let started = tokio::time::Instant::now();
        assert_eq!(say(&running, "GET / HTTP/1.1\r\n").await, "");
        let took = started.elapsed().as_secs();
        assert!((9..=11).contains(&took), "{took}");
    }

    #[tokio::test]
    async fn those_beyond_the_limit_wait_their_turn() {
        let running = start("limit").await;
        let mut held = Vec::new();
        for _ in 0..64 {
            held.push(TcpStream::connect(running.address).await.unwrap());
        }
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {}\r\n\r\n", running.address);
        let late = say(&running, &request);
        tokio::pin!(late);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(100), &mut late).await;
        assert!(waited.is_err(), "the 65th was served beside 64 others");
        held.pop();
        assert!(late.await.starts_with("HTTP/1.1 200"));
    }
}
