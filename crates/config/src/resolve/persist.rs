//! `persist`: how clients stay with their servers.

use std::sync::Arc;
use std::time::Duration;

use relais_rules::What;

use super::{Context, check};
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::{CookieMode, Mode, Persist, SameSite, Secure, ServerCookie, Stick, StickKey};

/// What only a cookie that Relais sets has.
const OF_INSERT: &[&str] = &[
    "indirect",
    "nocache",
    "preserve",
    "postonly",
    "maxidle",
    "maxlife",
    "domain",
    "path",
    "same-site",
    "secure",
    "httponly",
    "attributes",
];

/// Characters that a cookie's value has (RFC 6265 §4.1.1), without those that HAProxy ends a server's name with.
fn is_value(byte: u8) -> bool {
    byte.is_ascii_graphic() && !b"\",;\\|~".contains(&byte)
}

/// The first of these properties that the file gives.
fn given<'a>(item: &Item, fields: &[&'a str]) -> Option<&'a str> {
    fields.iter().find(|field| item.span_of(field) != item.span).copied()
}

/// How the clients of a backend stay with their servers.
#[derive(Default)]
pub(super) struct Stays {
    pub(super) persist: Option<Persist>,
    pub(super) stick: Option<Stick>,
}

pub(super) fn stays(cx: &mut Context, backend: &Item, mode: Option<Mode>, items: &[Item]) -> Option<Stays> {
    if let Some(item) = backend.find("stick") {
        return Some(Stays { stick: Some(stick(cx, item, mode)?), persist: None });
    }
    match backend.find("persist") {
        Some(item) => persist(cx, item, backend, items),
        None => Some(Stays::default()),
    }
}

/// A table by what requests or connections bring.
fn stick(cx: &mut Context, item: &Item, mode: Option<Mode>) -> Option<Stick> {
    let key = super::rules::joint_key(cx, item, "stick ", 128)?;
    let is_of_connections = |what: &What| matches!(what, What::Src | What::Sni);
    if mode == Some(Mode::Tcp) && !key.parts.iter().all(is_of_connections) {
        cx.error(
            Diagnostic::error(
                item.span_of("key"),
                "in `mode tcp` requests are not read: there is no such key",
            )
            .help("write `stick src` or `stick sni`, or take `mode tcp` out"),
        );
    }
    let depth: Option<u8> = item.get("depth");
    if depth.is_some() && key.parts != [What::Path] {
        cx.error(
            Diagnostic::error(item.span_of("depth"), "`depth` is of `stick path` alone").help("take it out"),
        );
    }
    let key = StickKey::Of(key, depth.unwrap_or(0));
    Some(Stick { key, size: item.get("size")?, expire: item.get("expire")? })
}

fn persist(cx: &mut Context, item: &Item, backend: &Item, items: &[Item]) -> Option<Stays> {
    let (cookie, route) = (item.get::<Arc<str>>("cookie"), item.get::<Arc<str>>("route"));
    let learn = item.get::<Arc<str>>("learn");
    let (field, name) = match (cookie, route, learn) {
        (Some(name), None, None) => ("cookie", name),
        (None, Some(name), None) => ("route", name),
        (None, None, Some(name)) => ("learn", name),
        _ => {
            cx.error(
                Diagnostic::error(
                    item.span.clone(),
                    "`persist` goes by one cookie: one that is set here, or the application's",
                )
                .help("write cookie=SRV, or route=JSESSIONID where the servers are Tomcats with a jvmRoute, or learn=PHPSESSID"),
            );
            return None;
        }
    };
    if !relais_http::field::is_token(name.as_bytes()) {
        cx.error(
            Diagnostic::error(
                item.span_of(field),
                format!("`{name}` is no name of a cookie (RFC 6265 §4.1.1)"),
            )
            .help("use letters, digits, `-` and `_`"),
        );
        return None;
    }
    if field != "learn"
        && let Some(other) = given(item, &["size", "expire"])
    {
        let message = format!("`{other}` has no effect here: only `learn` has a table");
        cx.error(Diagnostic::error(item.span_of(other), message).help(format!("take `{other}` out")));
    }
    if field != "cookie" {
        if let Some(other) = given(item, OF_INSERT).or_else(|| given(item, &["mode", "secret"])) {
            let why = format!("`{field}` goes by the application's cookie, which stays as it is");
            refuse(cx, item, other, &why);
            return None;
        }
        if field == "route" {
            return Some(Stays { persist: Some(Persist::Route(name)), stick: None });
        }
        let size = item.get("size").unwrap_or(20_480);
        let expire = item.get("expire").unwrap_or(Duration::from_secs(30 * 60));
        let stick = Stick { key: StickKey::Learned(name), size, expire };
        return Some(Stays { stick: Some(stick), persist: None });
    }
    check_names(cx, item, backend);
    let mode = match &*item.get::<Arc<str>>("mode")? {
        "insert" => insert(cx, item)?,
        word => {
            if let Some(other) = given(item, OF_INSERT) {
                refuse(cx, item, other, "the application sets this cookie, and says what holds for it");
                return None;
            }
            if word == "prefix" { CookieMode::Prefix } else { CookieMode::Rewrite }
        }
    };
    let persist = Persist::Cookie(ServerCookie { name, mode, secret: check::secret(item, items) });
    Some(Stays { persist: Some(persist), stick: None })
}

fn refuse(cx: &mut Context, item: &Item, field: &str, why: &str) {
    cx.error(
        Diagnostic::error(item.span_of(field), format!("`{field}` has no effect here: {why}"))
            .help(format!("take `{field}` out, or write cookie=SRV without `route` and `mode`")),
    );
}

fn insert(cx: &mut Context, item: &Item) -> Option<CookieMode> {
    let (domain, path) = (item.get::<Arc<str>>("domain"), item.get::<Arc<str>>("path")?);
    let attributes = item.get::<Arc<str>>("attributes");
    let is_bad = |b: u8| b == b';' || !b.is_ascii_graphic();
    let is_bad_in_attributes = |b: u8| b != b' ' && !b.is_ascii_graphic();
    for (field, value, bad) in [
        ("domain", domain.as_deref(), &is_bad as &dyn Fn(u8) -> bool),
        ("path", Some(&*path), &is_bad),
        ("attributes", attributes.as_deref(), &is_bad_in_attributes),
    ] {
        if value.is_some_and(|value| value.bytes().any(bad)) {
            cx.error(
                Diagnostic::error(
                    item.span_of(field),
                    "a cookie's attribute has no `;`, no space and no other alphabet",
                )
                .help("write it as browsers compare it, escaped if need be"),
            );
            return None;
        }
    }
    let yes = |field: &str| item.get::<Arc<str>>(field).is_some_and(|word| &*word == "yes");
    let same_site = match &*item.get::<Arc<str>>("same-site")? {
        "off" => SameSite::Off,
        "strict" => SameSite::Strict,
        "none" => SameSite::None,
        _ => SameSite::Lax,
    };
    let secure = match &*item.get::<Arc<str>>("secure")? {
        "yes" => Secure::Yes,
        "no" => Secure::No,
        _ => Secure::Auto,
    };
    if let (SameSite::None, Secure::No) = (same_site, secure) {
        cx.warn(
            item.span_of("same-site"),
            "browsers throw a cookie with `SameSite=None` away that has no `Secure`".to_owned(),
            "take `secure=no` out, or write same-site=lax",
        );
    }
    Some(CookieMode::Insert {
        indirect: yes("indirect"),
        nocache: yes("nocache"),
        preserve: yes("preserve"),
        post_only: yes("postonly"),
        max_idle: item.get("maxidle"),
        max_life: item.get("maxlife"),
        domain,
        path,
        same_site,
        secure,
        http_only: yes("httponly"),
        attributes,
    })
}

/// Servers are called in the cookie what its value can have.
fn check_names(cx: &mut Context, item: &Item, backend: &Item) {
    for server in backend.each("server").filter(|server| server.get::<Arc<str>>("cookie").is_none()) {
        if !server.name().bytes().all(is_value) {
            cx.error(
                Diagnostic::error(
                    server.name_span(),
                    format!("`{}` cannot stand in a cookie (RFC 6265 §4.1.1)", server.name()),
                )
                .related(item.span.clone(), "`persist` writes it there")
                .help("add cookie=NAME to the server"),
            );
        }
    }
}

/// What a server is called in the cookie, if its row says that.
pub(super) fn server_cookie(cx: &mut Context, server: &Item) -> Option<Arc<str>> {
    let value = server.get::<Arc<str>>("cookie")?;
    if !value.bytes().all(is_value) {
        cx.error(
            Diagnostic::error(
                server.span_of("cookie"),
                format!("`{value}` cannot stand in a cookie (RFC 6265 §4.1.1)"),
            )
            .help("use letters, digits, `.`, `-` and `_`"),
        );
    }
    Some(value)
}
