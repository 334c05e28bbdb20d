//! The demo's own HTTP: the page, the document that it draws, and the acts that it asks for. Only for this
//! machine's browser: it listens on 127.0.0.1, and takes no act from a page of another origin.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Query, Request, State as FromState};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::{Next, from_fn_with_state, map_response};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};

use super::act::{Act, Order, Refusal};
use super::state::State;

/// Longest body of an act, bytes.
const MAX_BODY: usize = 1024;

#[derive(Clone)]
struct Page {
    state: Arc<State>,
    orders: mpsc::Sender<Order>,
}

/// Serves the page for ever; what it asks for comes out of the receiver.
pub(crate) fn serve(listener: io::Result<TcpListener>, state: Arc<State>) -> mpsc::Receiver<Order> {
    let (orders, receiver) = mpsc::channel(16);
    let router = router(state, orders);
    tokio::spawn(async move {
        let end = async { axum::serve(listener?, router).await };
        if let Err(error) = end.await {
            tracing::error!("the page cannot be served: {error}");
        }
    });
    receiver
}

fn router(state: Arc<State>, orders: mpsc::Sender<Order>) -> Router {
    const CSP: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
                       frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    let headers = |mut response: Response| {
        let headers = response.headers_mut();
        for (name, value) in [
            (header::CONTENT_SECURITY_POLICY, CSP),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::CACHE_CONTROL, "no-store"),
            (HeaderName::from_static("referrer-policy"), "no-referrer"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        std::future::ready(response)
    };
    let text = |kind: &'static str, body: &'static str| {
        get(move || std::future::ready(([(header::CONTENT_TYPE, kind)], body)))
    };
    let page = state.page();
    Router::new()
        .route("/", get(async || Html(include_str!("page.html"))))
        .route("/page.css", text("text/css; charset=utf-8", include_str!("page.css")))
        .route("/page.js", text("text/javascript; charset=utf-8", include_str!("page.js")))
        .route("/state", get(document))
        .route("/act", post(act))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(from_fn_with_state(page, only_ours))
        .layer(map_response(headers))
        .with_state(Page { state, orders })
}

/// Refuses what a foreign page makes the visitor's browser send: a name that was made to point here (DNS
/// rebinding) shows in `Host`, a foreign page in `Origin`.
async fn only_ours(FromState(page): FromState<SocketAddr>, request: Request, next: Next) -> Response {
    if is_ours(request.method(), request.headers(), page) {
        return next.run(request).await;
    }
    let why = format!("this is for pages of http://{page} only\n");
    (StatusCode::FORBIDDEN, why).into_response()
}

fn is_ours(method: &Method, headers: &HeaderMap, page: SocketAddr) -> bool {
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let names = [page.to_string(), format!("localhost:{}", page.port())];
    let host = text(header::HOST).is_some_and(|host| names.iter().any(|name| name == host));
    let origin = text(header::ORIGIN)
        .is_none_or(|origin| names.iter().any(|name| origin.strip_prefix("http://") == Some(name)));
    // A form of a foreign page cannot send JSON without asking first, which nobody here answers.
    let json = text(header::CONTENT_TYPE).is_some_and(|kind| kind.starts_with("application/json"));
    host && origin && (method == Method::GET || json)
}

#[derive(Deserialize)]
struct After {
    #[serde(default)]
    after: u64,
}

async fn document(FromState(page): FromState<Page>, Query(after): Query<After>) -> Response {
    match page.state.json(after.after) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn act(FromState(page): FromState<Page>, Json(act): Json<Act>) -> Response {
    let (answer, answered) = oneshot::channel();
    let asked = page.orders.send((act, answer)).await.is_ok();
    let refused = |status, why: String| (status, Json(json!({ "error": why }))).into_response();
    match answered.await {
        Ok(Ok(done)) if asked => Json(done).into_response(),
        Ok(Err(Refusal::Wrong(why))) => refused(StatusCode::BAD_REQUEST, why),
        Ok(Err(Refusal::NotNow(why))) => refused(StatusCode::CONFLICT, why),
        _ => refused(StatusCode::SERVICE_UNAVAILABLE, "the demo is ending".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::act::{Action, Done};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    fn judge(method: Method, headers: &[(&'static str, &str)]) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.insert(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        is_ours(&method, &map, SocketAddr::from(([127, 0, 0, 1], 8080)))
    }

    #[test]
    fn an_act_is_taken_from_our_own_page_and_from_a_terminal() {
        const JSON: (&str, &str) = ("content-type", "application/json");
        let ours = ("origin", "http://127.0.0.1:8080");
        assert!(judge(Method::POST, &[("host", "127.0.0.1:8080"), ours, JSON]));
        assert!(judge(
            Method::POST,
            &[("host", "localhost:8080"), ("origin", "http://localhost:8080"), JSON]
        ));
        assert!(judge(Method::POST, &[("host", "127.0.0.1:8080"), JSON]), "curl sends no origin");
    }

    #[test]
    fn an_act_from_a_foreign_page_is_refused() {
        const JSON: (&str, &str) = ("content-type", "application/json");
        let host = ("host", "127.0.0.1:8080");
        assert!(!judge(Method::POST, &[host, ("origin", "http://evil.example"), JSON]));
        assert!(!judge(Method::POST, &[host, ("origin", "null"), JSON]));
        assert!(!judge(Method::POST, &[host, ("content-type", "text/plain")]));
        assert!(!judge(Method::POST, &[("host", "evil.example:8080"), JSON]), "a name made to point here");
        assert!(!judge(Method::GET, &[("host", "evil.example:8080")]));
        assert!(!judge(Method::GET, &[]));
    }

    /// What the page's server answers to one request, with this for a controller.
    async fn ask(controller: fn(Act) -> Result<Done, Refusal>, head: &str, body: &str) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(State::new(None, address, address));
        let mut orders = serve(Ok(listener), state);
        tokio::spawn(async move {
            while let Some((act, answer)) = orders.recv().await {
                answer.send(controller(act)).unwrap();
            }
        });
        let mut stream = TcpStream::connect(address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {length}\r\n"
        );
        stream
            .write_all(format!("{request}Content-Type: application/json\r\n\r\n{body}").as_bytes())
            .await
            .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    fn controller(act: Act) -> Result<Done, Refusal> {
        match (act.target.as_str(), act.action) {
            ("holder", Action::KillAll) => Ok(Done { row: 7, target: "haproxy2".into() }),
            ("haproxy1", Action::Start) => Err(Refusal::NotNow("Relais runs on haproxy1".into())),
            (target, _) => Err(Refusal::Wrong(format!("there is no {target} here"))),
        }
    }

    #[tokio::test]
    async fn an_act_gets_its_row_or_a_sentence_that_says_why_not() {
        let done = ask(controller, "POST /act", r#"{"target":"holder","action":"kill-all"}"#).await;
        assert!(
            done.starts_with("HTTP/1.1 200") && done.ends_with(r#"{"row":7,"target":"haproxy2"}"#),
            "{done}"
        );
        let late = ask(controller, "POST /act", r#"{"target":"haproxy1","action":"start"}"#).await;
        assert!(late.starts_with("HTTP/1.1 409") && late.contains("Relais runs on haproxy1"), "{late}");
        let wrong = ask(controller, "POST /act", r#"{"target":"moon","action":"stop"}"#).await;
        assert!(wrong.starts_with("HTTP/1.1 400") && wrong.contains("there is no moon here"), "{wrong}");
        let unknown = ask(controller, "POST /act", r#"{"target":"holder","action":"explode"}"#).await;
        assert!(unknown.starts_with("HTTP/1.1 422"), "{unknown}");
    }

    #[tokio::test]
    async fn the_page_loads_nothing_from_elsewhere() {
        let page = ask(controller, "GET /", "").await;
        assert!(
            page.starts_with("HTTP/1.1 200") && page.contains("content-security-policy: default-src 'none'")
        );
        for (path, kind) in
            [("/page.css", "text/css"), ("/page.js", "text/javascript"), ("/state", "application/json")]
        {
            let answer = ask(controller, &format!("GET {path}"), "").await;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.contains(&format!("content-type: {kind}")),
                "{path}"
            );
            assert!(!answer.contains("https://") && !answer.contains("//cdn"), "{path}");
        }
    }
}
