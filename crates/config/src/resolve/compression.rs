//! `compression` of a frontend or backend.

use std::sync::Arc;

use super::Context;
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::{Coding, Compression};

/// What a frontend's or backend's `compression` says; `None` within if it has none.
pub(super) fn compression(cx: &mut Context, parent: &Item) -> Option<Option<Arc<Compression>>> {
    let Some(item) = parent.find("compression") else { return Some(None) };
    let mut algorithms = Vec::new();
    for (word, span) in item.find("algorithms")?.all::<Arc<str>>("algorithm") {
        let coding = match &*word {
            "zstd" => Coding::Zstd,
            "br" => Coding::Brotli,
            _ => Coding::Gzip,
        };
        if algorithms.contains(&coding) {
            cx.error(
                Diagnostic::error(span, format!("`{word}` is named twice in one `algorithms`"))
                    .help("keep one of them"),
            );
        }
        algorithms.push(coding);
    }
    let mut types = Vec::new();
    for (text, span) in item.find("types")?.all::<Arc<str>>("type") {
        match media_type(&text) {
            Some(kind) => types.push(kind),
            None => cx.error(
                Diagnostic::error(span, format!("\"{text}\" is no media type"))
                    .help("write a type without parameters, \"text/html\", or all of a kind, \"text/*\""),
            ),
        }
    }
    Some(Some(Arc::new(Compression {
        algorithms,
        types,
        min_size: item.setting("min-size").get("size")?,
        level: item.setting("level").get("level")?,
        max_active: item.setting("max-active").get("number")?,
        offload: item.find("offload").is_some(),
    })))
}

/// `type/subtype`, or `type/` where the file says `type/*`.
fn media_type(text: &str) -> Option<Arc<str>> {
    let (kind, sub) = text.split_once('/')?;
    let token = |word: &str| {
        !word.is_empty() && word.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    match sub {
        "*" if token(kind) => Some(format!("{kind}/").to_ascii_lowercase().into()),
        sub if token(kind) && token(sub) => Some(text.to_ascii_lowercase().into()),
        _ => None,
    }
}
