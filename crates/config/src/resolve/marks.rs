//! `forwarded`, `request-id`, `trace`: what requests are marked with.

use std::sync::Arc;

use super::Context;
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::{Forwarded, Marking, RequestId, StartTrace};

/// Names that a request id may not go by: they mean something else to a proxy or a server.
const TAKEN: &[&str] = &[
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "content-type",
    "cookie",
    "authorization",
    "te",
    "trailer",
    "upgrade",
    "via",
    "date",
    "set-cookie",
    "location",
    "expect",
    "keep-alive",
    "forwarded",
    "traceparent",
    "tracestate",
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
];

/// Whether the property of a directive has this value.
pub(super) fn says(item: &Item, directive: &'static str, property: &str, value: &str) -> bool {
    item.find(directive).and_then(|d| d.get::<Arc<str>>(property)).as_deref() == Some(value)
}

/// What a frontend marks requests with; `None` if with nothing.
pub(super) fn marking(cx: &mut Context, item: &Item) -> Option<Arc<Marking>> {
    let forwarded = item.find("forwarded").map(|f| {
        let by = f.get::<Arc<str>>("by");
        let good = |by: &str| {
            by.strip_prefix('_').is_some_and(|rest| {
                !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
            })
        };
        if by.as_deref().is_some_and(|by| !good(by)) {
            cx.error(
                Diagnostic::error(f.span_of("by"), "this is no identifier of RFC 7239")
                    .help("write `_` and letters, digits, `.`, `_` or `-`: by=_edge1"),
            );
        }
        Forwarded {
            by,
            hidden: f.get::<Arc<str>>("for").as_deref() == Some("hidden"),
            from: f.get("from").unwrap_or_default(),
            except: f.get("except").unwrap_or_default(),
        }
    });
    let request_id = item.find("request-id").and_then(|id| {
        let header = id.get::<Arc<str>>("header")?;
        let name: Arc<str> = header.to_ascii_lowercase().into();
        if TAKEN.contains(&&*name) {
            cx.error(
                Diagnostic::error(id.span_of("header"), format!("`{header}` means something else already"))
                    .help("X-Request-Id is the usual name"),
            );
        }
        let answer = id.get::<Arc<str>>("answer").as_deref() == Some("on");
        Some(RequestId { header, name, from: id.get("from").unwrap_or_default(), answer })
    });
    let trace = item.find("trace").map(|trace| match trace.get::<Arc<str>>("start").as_deref() {
        Some("sampled") => StartTrace::Sampled,
        Some("unsampled") => StartTrace::Unsampled,
        _ => StartTrace::No,
    });
    let marking = Marking { forwarded, request_id, trace };
    let x_forwarded =
        says(item, "forwarded-for", "sent", "replace") || says(item, "forwarded-for", "port", "on");
    (marking != Marking::default() || x_forwarded).then(|| Arc::new(marking))
}
