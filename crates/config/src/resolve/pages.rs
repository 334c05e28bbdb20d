//! `error-page`: which file is for which error.

use std::sync::Arc;

use super::Context;
use crate::diagnostic::Diagnostic;
use crate::item::Item;
use crate::plan::ErrorPage;

/// Extensions that a page may have, and what it is then.
const TYPES: &[(&str, &str)] = &[
    ("html", "text/html; charset=utf-8"),
    ("htm", "text/html; charset=utf-8"),
    ("txt", "text/plain; charset=utf-8"),
    ("json", "application/json"),
];

/// Most pages of one section.
const MOST_PAGES: usize = 64;

/// The error pages that a section names, in its order.
pub(super) fn error_pages(cx: &mut Context, item: &Item) -> Vec<ErrorPage> {
    let mut pages = Vec::new();
    for (index, page) in item.each("error-page").enumerate() {
        let Some((first, last)) = page.get::<(u16, u16)>("status") else { continue };
        if first < 400 {
            cx.error(
                Diagnostic::error(
                    page.span_of("status"),
                    format!("{first} is no error: they are 400 to 599"),
                )
                .help("write for example error-page \"502-504\" \"/etc/relais/errors/sorry.html\""),
            );
        }
        let Some(file) = page.get::<Arc<str>>("file") else { continue };
        let extension = file.rsplit_once('.').map_or("", |(_, extension)| extension);
        let kind = TYPES.iter().find(|(known, _)| extension.eq_ignore_ascii_case(known));
        if index >= MOST_PAGES {
            cx.error(
                Diagnostic::error(
                    page.span.clone(),
                    format!("more than {MOST_PAGES} error pages in one place"),
                )
                .help("a range of statuses may share a page: \"500-599\""),
            );
            break;
        }
        match kind {
            Some((_, kind)) => pages.push(ErrorPage { first, last, file, kind: (*kind).into() }),
            None if extension.eq_ignore_ascii_case("http") => cx.error(
                Diagnostic::error(
                    page.span_of("file"),
                    "an error page is a body, without the head of HAProxy's `errorfile`",
                )
                .help("take away everything up to the first empty line, and name the file .html"),
            ),
            None => cx.error(
                Diagnostic::error(page.span_of("file"), format!("nothing says what `{file}` is"))
                    .help("the name of an error page ends with .html, .htm, .txt or .json"),
            ),
        }
    }
    pages
}
