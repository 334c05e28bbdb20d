//! What is added to messages on their way, and what clients read where there is no answer.

use super::Type::{File, Statuses};
use super::{Directive, Effect, Section, Times, required};

pub(super) const ROWS: &[Directive] = &[Directive {
    name: "error-page",
    inside: &[Section::Platform, Section::Frontend, Section::Backend],
    arguments: &[
        required("status", Statuses, "the errors that it is for, of 400 to 599"),
        required("file", File, "the body: `.html`, `.htm`, `.txt` or `.json`, UTF-8, at most 64 KiB"),
    ],
    times: Times::Many,
    doc: "What a client reads where Relais answers with an error itself, instead of a sentence in English. The file is the body; \
          status, length, type and connection are said by Relais. Errors that a server answers with pass as they are. The \
          backend's page goes before the frontend's, that before the platform's, and of several that fit, the first. Files \
          are read anew on reload. HTTP only.",
    example: "error-page \"502-504\" \"/etc/relais/errors/sorry.html\"",
    effect: Effect::Tests(&[
        "an_error_is_answered_with_the_page_of_its_backend_frontend_or_platform",
        "an_error_page_is_for_keeps_and_for_head_too",
    ]),
    ..Directive::EMPTY
}];
