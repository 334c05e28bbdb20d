//! The embedded application: a small enrolment form in the place of the thesis's PROGRES on Tomcat, for the
//! lab where no Tomcat is installed and for `relais demo`. It is real where it matters: what it
//! acknowledges is on the disk, whatever is killed afterwards. It is no part of what is measured, and
//! nothing but the lab and the demo starts it.
//!
//! | request | answer |
//! | --- | --- |
//! | `GET /` | the form and the last enrolments |
//! | `POST /enrolments` | after it is stored: 303 to the receipt, or 201 and JSON to `Accept: application/json` |
//! | `GET /enrolments` | JSON: how many, and the last receipts |
//! | `GET /enrolled/ID` | the receipt |
//! | `GET /healthz` | 200 |
//! | `GET /download.bin` | 200 and 16 MiB |
//! | `GET /slow?ms=N` | 200 after N milliseconds (at most a minute) |
//!
//! Every answer names its instance in `X-Served-By`.

mod page;
pub(crate) mod store;

use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Form, Path, Query, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Redirect, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::json;
use tokio::net::TcpListener;

use store::{Enrolment, Store};

/// Longest body of a request, bytes.
const MAX_BODY: usize = 8 * 1024;

/// What `relais child app` is told.
#[derive(Clone, Debug)]
pub struct Args {
    /// Where it listens.
    pub listen: SocketAddr,
    /// Its name, such as `tomcat1-1`.
    pub name: String,
    /// The directory that all instances share; made if it is missing.
    pub store: PathBuf,
}

/// Runs one instance until `SIGTERM`, then finishes what it has begun.
pub fn main(args: Args) -> ExitCode {
    relais_ipc::journal::init(&args.name);
    let run = || -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let listener = TcpListener::bind(args.listen).await?;
            let mut term = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
            let stopped = async move {
                term.recv().await;
            };
            let app = router(&args.name, Store::open(&args.store)?)?;
            axum::serve(listener, app).with_graceful_shutdown(stopped).await
        })
    };
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(
                "the application on {} cannot run with {}: {e}",
                args.listen,
                args.store.display()
            );
            ExitCode::FAILURE
        }
    }
}

#[derive(Debug)]
struct Instance {
    name: String,
    store: Mutex<Store>,
}

type Shared = State<Arc<Instance>>;

fn router(name: &str, store: Store) -> io::Result<Router> {
    let served_by = HeaderValue::from_str(name).map_err(io::Error::other)?;
    let instance = Arc::new(Instance { name: name.to_owned(), store: Mutex::new(store) });
    let headers = move |mut response: Response| {
        let headers = response.headers_mut();
        headers.insert(HeaderName::from_static("x-served-by"), served_by.clone());
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(
                "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
            ),
        );
        std::future::ready(response)
    };
    Ok(Router::new()
        .route("/", get(home))
        .route("/enrolments", post(enrol).get(list))
        .route("/enrolled/{id}", get(enrolled))
        .route("/healthz", get(async || "ok\n"))
        .route(crate::application::DOWNLOAD.0, get(async || vec![b'.'; crate::application::DOWNLOAD.1]))
        .route("/slow", get(slow))
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(axum::middleware::map_response(headers))
        .with_state(instance))
}

/// Runs `work` on the store where waiting for the disk delays nobody else.
async fn with_store<T: Send + 'static>(
    instance: &Arc<Instance>,
    work: impl FnOnce(&Instance, &mut Store) -> io::Result<T> + Send + 'static,
) -> Result<T, Response> {
    let shared = Arc::clone(instance);
    let done = tokio::task::spawn_blocking(move || {
        // A panic leaves the file as it was or with one line more: both are what `refresh` reads.
        let mut store = shared.store.lock().unwrap_or_else(PoisonError::into_inner);
        work(&shared, &mut store)
    });
    let result = done.await.unwrap_or_else(|e| Err(io::Error::other(e)));
    result.map_err(|e| {
        tracing::error!("the enrolments cannot be read or stored: {e}");
        let page = page::refused(&instance.name, "Réessayez dans un instant. Please try again in a moment.");
        (StatusCode::SERVICE_UNAVAILABLE, Html(page)).into_response()
    })
}

async fn home(State(instance): Shared) -> Result<Html<String>, Response> {
    with_store(&instance, |instance, store| {
        store.refresh()?;
        Ok(Html(page::form(&instance.name, &new_token()?, store.count(), store.recent())))
    })
    .await
}

async fn enrol(
    State(instance): Shared,
    headers: HeaderMap,
    form: Result<Form<Enrolment>, axum::extract::rejection::FormRejection>,
) -> Result<Response, Response> {
    let wants_json =
        headers.get(header::ACCEPT).is_some_and(|v| v.as_bytes().starts_with(b"application/json"));
    let refuse = |status: StatusCode, why: &str| {
        if wants_json {
            (status, Json(json!({ "error": why }))).into_response()
        } else {
            (status, Html(page::refused(&instance.name, why))).into_response()
        }
    };
    let Form(enrolment) = form.map_err(|e| refuse(e.status(), &e.body_text()))?;
    let enrolment = enrolment.checked().map_err(|why| refuse(StatusCode::UNPROCESSABLE_ENTITY, &why))?;
    let (id, _) = with_store(&instance, |instance, store| store.add(&instance.name, enrolment)).await?;
    Ok(if wants_json {
        let receipt = json!({ "id": id, "receipt": page::receipt(id), "instance": instance.name });
        (StatusCode::CREATED, Json(receipt)).into_response()
    } else {
        Redirect::to(&format!("/enrolled/{id}")).into_response()
    })
}

async fn list(State(instance): Shared) -> Result<Response, Response> {
    with_store(&instance, |instance, store| {
        store.refresh()?;
        let last: Vec<u64> = store.recent().map(|record| record.id).collect();
        Ok(Json(json!({ "count": store.count(), "last": last, "instance": instance.name })).into_response())
    })
    .await
}

async fn enrolled(State(instance): Shared, Path(id): Path<u64>) -> Result<Response, Response> {
    with_store(&instance, move |instance, store| {
        store.refresh()?;
        Ok(if (1..=store.count()).contains(&id) {
            Html(page::enrolled(&instance.name, id)).into_response()
        } else {
            let why = "Ce reçu n’existe pas. There is no such receipt.";
            (StatusCode::NOT_FOUND, Html(page::refused(&instance.name, why))).into_response()
        })
    })
    .await
}

#[derive(Deserialize)]
struct Slow {
    ms: u64,
}

async fn slow(Query(slow): Query<Slow>) -> String {
    let ms = slow.ms.min(60_000);
    tokio::time::sleep(Duration::from_millis(ms)).await;
    format!("{ms} ms\n")
}

/// 128 random bits in hexadecimal.
fn new_token() -> io::Result<String> {
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_ne_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::store::tests::Scratch;
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn instance(dir: &Scratch, name: &str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let app = router(name, Store::open(&dir.0).unwrap()).unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        address
    }

    async fn ask(to: SocketAddr, head: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(to).await.unwrap();
        let request = format!(
            "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    const AMINA: &str = "family_name=Benali&first_name=Amina&establishment=USTHB&wilaya=Alger&level=Master";

    #[tokio::test]
    async fn an_enrolment_is_seen_by_every_instance_and_a_repeated_one_gets_its_first_receipt() {
        let dir = Scratch::new("app-instances");
        let (one, two) = (instance(&dir, "tomcat1-1").await, instance(&dir, "tomcat2-1").await);
        let form = format!("{AMINA}&token=token-a1");
        let first = ask(one, "POST /enrolments", &form).await;
        assert!(first.starts_with("HTTP/1.1 303"), "{first}");
        assert!(first.contains("location: /enrolled/1\r\n") && first.contains("x-served-by: tomcat1-1\r\n"));
        assert!(ask(two, "POST /enrolments", &form).await.contains("location: /enrolled/1\r\n"));
        assert!(ask(two, "GET /enrolled/1", "").await.contains("PRG-000001"));
        assert!(ask(two, "GET /enrolled/2", "").await.starts_with("HTTP/1.1 404"));
        let list = ask(two, "GET /enrolments", "").await;
        assert!(list.contains(r#""count":1"#) && list.contains(r#""last":[1]"#), "{list}");
    }

    #[tokio::test]
    async fn what_a_client_wrote_is_escaped_on_the_page() {
        let dir = Scratch::new("app-escape");
        let one = instance(&dir, "tomcat1-1").await;
        let form = "family_name=%3Cscript%3Ealert(1)%3C/script%3E&first_name=%22%27%26&establishment=x&wilaya=x&level=x\
                    &token=token-a1";
        assert!(ask(one, "POST /enrolments", form).await.starts_with("HTTP/1.1 303"));
        let page = ask(one, "GET /", "").await;
        assert!(page.contains("&quot;&#39;&amp; &lt;script&gt;alert(1)&lt;/script&gt;"), "{page}");
        assert!(!page.contains("<script"), "{page}");
    }

    #[tokio::test]
    async fn what_is_wrong_or_too_large_is_refused_and_not_stored() {
        let dir = Scratch::new("app-refuse");
        let one = instance(&dir, "tomcat1-1").await;
        assert!(ask(one, "POST /enrolments", AMINA).await.starts_with("HTTP/1.1 422")); // no token
        let long = format!("{AMINA}&token=token-a1&x={}", "x".repeat(MAX_BODY));
        assert!(ask(one, "POST /enrolments", &long).await.starts_with("HTTP/1.1 413"));
        assert!(ask(one, "GET /enrolments", "").await.contains(r#""count":0"#));
    }
}
