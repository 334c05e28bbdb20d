//! `compression`: responses made smaller on their way.

use super::Type::{Integer, Size, Text, Word};
use super::{Directive, Effect, MIB, Section, Times, default, many};

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "compression",
        inside: &[Section::Frontend, Section::Backend],
        block: Some(Section::Compression),
        doc: "Responses are compressed for clients that accept it (`Accept-Encoding`). Left as they are: what the server has encoded, \
              `Cache-Control: no-transform`, parts (206), responses to HEAD, to HTTP/1.0 and with a digest. A strong `ETag` becomes \
              weak, `Vary: Accept-Encoding` is added. Where frontend and backend both have it, the backend's holds. HTTP only. Do not \
              compress pages that hold both a secret and what a stranger can put there (BREACH).",
        example: "compression { algorithms zstd br gzip; types \"text/*\" \"application/json\"; }",
        effect: Effect::Tests(&[
            "a_response_is_compressed_as_the_client_likes_it_best",
            "what_must_not_be_compressed_is_not",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "algorithms",
        inside: &[Section::Compression],
        arguments: &[many("algorithm", Word(&["zstd", "br", "gzip"]), "in the order of preference")],
        times: Times::Required,
        doc: "What responses may be compressed with. The client's quality values decide; among equals, this order.",
        example: "algorithms zstd br gzip",
        effect: Effect::Tests(&["a_response_is_compressed_as_the_client_likes_it_best"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "types",
        inside: &[Section::Compression],
        arguments: &[many("type", Text, "`\"text/html\"`, or `\"text/*\"` for all of a kind")],
        times: Times::Required,
        doc: "Media types that are compressed, without parameters. What is compressed already (images, video, archives) only costs time.",
        example: "types \"text/*\" \"application/json\" \"application/javascript\" \"image/svg+xml\"",
        effect: Effect::Tests(&["what_must_not_be_compressed_is_not"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "min-size",
        inside: &[Section::Compression],
        arguments: &[default("size", Size(0, 1024 * MIB), "1KiB", "length of the response's body")],
        doc: "Shorter responses are left as they are. One that does not say its length is compressed.",
        example: "min-size \"1KiB\"",
        effect: Effect::Tests(&["what_must_not_be_compressed_is_not"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "level",
        inside: &[Section::Compression],
        arguments: &[default("level", Integer(1, 9), "4", "1: fastest; 9: smallest")],
        doc: "How hard to try: gzip's level, brotli's quality (6 at most, for the sake of memory), zstd's level.",
        example: "level 4",
        effect: Effect::Tests(&["a_higher_level_makes_it_smaller"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "max-active",
        inside: &[Section::Compression],
        arguments: &[default("number", Integer(1, 1_000_000), "256", "responses")],
        doc: "Responses compressed at a time on one node, all of its `compression` together; each costs memory: \
              zstd 1 MiB, gzip half of that, br 2 MiB at level 4 and 4 MiB from 6 on. Beyond it \
              responses are sent as they are.",
        example: "max-active 256",
        effect: Effect::Tests(&["beyond_the_limit_of_compressors_responses_go_as_they_are"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "offload",
        inside: &[Section::Compression],
        doc: "Takes `Accept-Encoding` out of requests, so that servers leave compressing to Relais.",
        example: "offload",
        effect: Effect::Tests(&["offload_keeps_servers_from_compressing"]),
        ..Directive::EMPTY
    },
];
