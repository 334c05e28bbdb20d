//! What is added to messages on their way, and what clients read where there is no answer.

use super::Type::{File, HeaderName, Networks, Statuses, Text, Word};
use super::{Directive, Effect, Section, Times, default, optional, required};

pub(super) const ROWS: &[Directive] = &[
    Directive {
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
    },
    Directive {
        name: "forwarded",
        inside: &[Section::Frontend],
        properties: &[
            optional("by", Text, "not said", "this proxy's name: `_` and letters, digits, `.`, `_` or `-`"),
            default("for", Word(&["address", "hidden"]), "address", "the client's address, or `unknown`"),
            optional(
                "from",
                Networks,
                "nobody is believed",
                "proxies whose own `Forwarded` is kept before ours",
            ),
            optional(
                "except",
                Networks,
                "set for every client",
                "clients it is not set for, and whose own passes as it is",
            ),
        ],
        doc: "Tells servers in `Forwarded` (RFC 7239) for whom a request is, for which host, and what the client spoke. What \
              clients send under this name is taken out, except from the networks in `from`. HTTP only.",
        example: "forwarded by=_edge1 from=\"10.0.0.0/8\"",
        effect: Effect::Tests(&[
            "forwarded_says_who_asks_and_believes_only_whom_it_should",
            "forwarded_is_appended_for_proxies_of_ours",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "request-id",
        inside: &[Section::Frontend],
        arguments: &[default("header", HeaderName, "X-Request-Id", "the header that holds it")],
        properties: &[
            optional(
                "from",
                Networks,
                "nobody's is",
                "clients whose own id is kept, if it is one of 1 to 128 plain characters",
            ),
            default(
                "answer",
                Word(&["off", "on"]),
                "off",
                "whether the client is told it, in the same header",
            ),
        ],
        doc: "Gives each request an id: a UUID of version 7, which sorts by time. Servers get it in the header; the access log has \
              it as `%ID`. HTTP only.",
        example: "request-id X-Request-Id answer=on",
        effect: Effect::Tests(&["a_request_gets_an_id_that_server_client_and_log_share"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "trace",
        inside: &[Section::Frontend],
        properties: &[default(
            "start",
            Word(&["no", "sampled", "unsampled"]),
            "no",
            "what a request without a trace gets: none, or a new one with that flag",
        )],
        doc: "Looks at `traceparent` (W3C Trace Context): a good one passes untouched with its `tracestate`, one that is malformed \
              or there twice is taken out with it. The access log has it as `%[traceparent]`. Without this directive both pass \
              as they are. HTTP only.",
        example: "trace start=sampled",
        effect: Effect::Tests(&["a_trace_passes_untouched_and_a_broken_one_ends"]),
        ..Directive::EMPTY
    },
];
