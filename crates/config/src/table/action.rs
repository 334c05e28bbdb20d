//! What a `rule` does.

use super::Type::{
    Duration, File, HeaderName, HeaderValue, Integer, Location, Reference, Regex, Signed, Size, Text,
    UrlPath, Word,
};
use super::condition::{KEY, KEY_NAME, KEYS, PREFIX, PREFIX6};
use super::{DAY, Directive, Effect, Field, Kind, Section, TIB, Times, any, default, optional, required};

const FIELD: Field =
    required("name", HeaderName, "the field; none that frames the message or is for one hop only");
const VALUE: Field = required("value", HeaderValue, "the value; it may have `%{placeholders}`");

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "deny",
        inside: &[Section::Rule],
        arguments: &[default("code", Integer(400, 599), "403", "status of the answer")],
        doc: "Action: the request is answered with this status and goes no further. In `mode tcp` the connection is closed.",
        example: "deny 403",
        effect: Effect::Tests(&[
            "the_manager_is_for_one_network_only",
            "deny_alone_denies_with_403",
            "a_tcp_rule_denies_or_chooses_a_backend",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "tarpit",
        inside: &[Section::Rule],
        arguments: &[default("code", Integer(400, 599), "403", "status of the answer")],
        properties: &[default("hold", Duration(1, DAY), "10s", "how long it is held")],
        doc: "Action: the request is held for a while and then answered with this status, so that who sends many gets few answers. A node holds at most 10000 at a time; more are answered at once. One that is held has its connection, and no more memory than an idle one and its head. In `mode tcp` the connection is held, and then closed.",
        example: "tarpit 429 hold=\"20s\"",
        effect: Effect::Tests(&[
            "a_tarpit_holds_a_request_and_then_denies_it",
            "a_tcp_connection_is_held_or_vanishes",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "delay",
        inside: &[Section::Rule],
        arguments: &[required("time", Duration(1, DAY), "how long it is held")],
        doc: "Action: the request is held for a while and then goes on as if nothing were: who asks too often is slowed down, and no page has to explain it. What Relais answers itself it answers at once. A node holds at most 10000 at a time, those of `tarpit` included; more are not held. Of two rules that say it, the later one holds. In `mode tcp` the connection is held before a server is chosen.",
        example: "delay \"2s\"",
        effect: Effect::Tests(&[
            "a_delayed_request_is_answered_later_and_whoever_does_not_wait_is_not_asked_for",
            "a_tcp_connection_is_held_or_vanishes",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "silent-drop",
        inside: &[Section::Rule],
        doc: "Action: the connection ends here, and the client is not told: it goes on waiting. As the proxy has no privileges it is HAProxy's way without any: the kernel's reset is sent with a time to live of one hop, so clients behind a router hear nothing, and those of the same network hear a reset. Stateful firewalls on the way keep the connection, too. Of HTTP/2 the whole connection goes.",
        example: "silent-drop",
        effect: Effect::Tests(&[
            "a_silent_drop_is_not_heard_behind_a_router",
            "a_tcp_connection_is_held_or_vanishes",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "reject",
        inside: &[Section::Rule],
        properties: &[
            optional(
                "max-connections",
                Integer(1, 1_000_000),
                "all that the rule is for",
                "of each address so many may be open; only more are rejected",
            ),
            PREFIX,
            PREFIX6,
            default(
                "how",
                Word(&["reset", "silent"]),
                "reset",
                "`silent`: the client is not told, as by `silent-drop`",
            ),
        ],
        doc: "Action: connections are closed as soon as they are accepted, before TLS and before a byte is read; of those behind `accept-proxy`, as soon as their header is there. Such a rule is asked before all others, once a connection, and looks at `src`, `port` and `match rate key=src` (of connections) only. Lists of 100000 networks cost less than a microsecond. For lists of those who may: `unless src list=...`.",
        example: "reject max-connections=100",
        effect: Effect::Tests(&[
            "connections_of_listed_networks_are_rejected_before_tls",
            "connections_of_one_address_are_limited_where_they_are_accepted",
            "connections_that_come_too_often_are_rejected",
            "what_a_trusted_proxy_says_is_what_is_rejected",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "backend",
        inside: &[Section::Rule],
        arguments: &[any(
            "backend",
            Reference(Kind::Backend),
            "with `map=`: where it says nothing, the next rules are asked",
            "who answers",
        )],
        properties: &[
            optional(
                "map",
                File,
                "the one named here",
                "a file of lines `VALUE BACKEND`; the first that fits is taken; it is read again when it changes",
            ),
            default(
                "key",
                Word(&["host", "path", "src", "sni"]),
                "host",
                "what of the request the map is asked for",
            ),
        ],
        doc: "Action: this backend answers, or the one that a map has for the request.",
        example: "backend doctorat",
        effect: Effect::Tests(&[
            "a_host_of_its_own_has_a_backend_of_its_own",
            "a_map_chooses_backends_and_is_read_again_when_it_changes",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "redirect",
        inside: &[Section::Rule],
        properties: &[
            optional(
                "scheme",
                Word(&["http", "https"]),
                "see `location=` and `prefix=`",
                "to the same host and path under this scheme",
            ),
            optional("location", Location, "see `scheme=`", "to this place; it may have `%{placeholders}`"),
            optional("prefix", Location, "see `scheme=`", "to this place, with path and query behind it"),
            default("code", Word(&["301", "302", "303", "307", "308"]), "302", "status of the answer"),
        ],
        doc: "Action: the request is answered with a redirect. Placeholders cannot lead to a host that the file does not name, but for the one that the client asked for (`%{host}`).",
        example: "redirect prefix=\"https://www.progres.example\" code=301",
        effect: Effect::Tests(&["a_redirect_goes_where_the_rule_says_and_nowhere_else"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "respond",
        inside: &[Section::Rule],
        arguments: &[required("code", Integer(200, 599), "status of the answer")],
        properties: &[
            optional("text", Text, "no body, or `file=`", "the body"),
            optional(
                "file",
                File,
                "no body, or `text=`",
                "a file that is the body, up to 1 MiB; it is read again when it changes",
            ),
            default("content-type", HeaderValue, "text/plain; charset=utf-8", "what the body is"),
        ],
        doc: "Action: the request is answered with this.",
        example: "respond 200 text=\"User-agent: *\"",
        effect: Effect::Tests(&["a_rule_answers_with_a_text_or_a_file"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "limit",
        inside: &[Section::Rule],
        properties: &[
            optional(
                "max-connections",
                Integer(1, 1_000_000),
                "no limit",
                "most requests under way of one `key`; in `mode tcp`, connections",
            ),
            optional("key", KEYS, "none; with `max-connections=` it is needed", KEY),
            KEY_NAME,
            PREFIX,
            PREFIX6,
            optional(
                "max-body",
                Size(0, TIB),
                "that of the frontend and of the backend",
                "longest body; the smallest of all holds",
            ),
            optional(
                "min-rate",
                Size(0, 1 << 30),
                "that of the frontend",
                "the least that a client sends or takes a second; `\"0B\"`: none",
            ),
            default("grace", Duration(1, DAY), "1m", "with `min-rate=`: patience that a client begins with"),
            optional("timeout-client", Duration(1, DAY), "that of the frontend", "silence of the client"),
            optional("timeout-server", Duration(1, DAY), "that of the backend", "silence of the server"),
        ],
        times: Times::Many,
        doc: "Action: holds those that the rule is for to limits of their own. Where one `key` has `max-connections` requests under way, the next is answered with 429 and `Retry-After` (`PR` in the log; the rule is named in the node's log); in `mode tcp` the connection is closed. A request is under way from its head until its answer is over; an idle connection is none. Each machine counts for itself, all its threads together. A request without the key is not limited. Of two rules that set the same, the later one holds.",
        example: "limit max-connections=20 key=src",
        effect: Effect::Tests(&[
            "a_rule_limits_the_requests_under_way_of_each_address",
            "a_limited_place_is_given_back_however_a_request_ends",
            "a_rule_limits_the_connections_of_each_address_in_tcp_mode",
            "a_rule_sets_limits_of_bodies_and_patience_for_some",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "priority",
        inside: &[Section::Rule],
        arguments: &[required(
            "class",
            Signed(2047),
            "who waits before whom: the lower, the sooner; others have 0",
        )],
        properties: &[default(
            "later",
            Duration(0, DAY),
            "0ms",
            "within its class, as if it had come so much later than it did",
        )],
        doc: "Action: where requests wait for a place at a server, those of a lower class go first, whenever they came (HAProxy's \
              `set-priority-class` and `set-priority-offset`). Those of a higher class may wait until `timeout queue` ends it.",
        example: "priority -100",
        effect: Effect::Tests(&["who_has_priority_leaves_the_queue_first"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "set-header",
        inside: &[Section::Rule],
        arguments: &[FIELD, VALUE],
        times: Times::Many,
        doc: "Action: the request has this field once, with this value. Placeholders are %{src}, %{host}, %{path}, %{query}, %{uri}, %{method}, %{scheme}, %{port}, %{sni}, %{request-id}, %{client-certificate:FIELD} (subject, issuer, cn, serial, san, sha256 or verified) or %{header:NAME}, all of the request; `%%` is a percent sign.",
        example: "set-header X-Real-IP \"%{src}\"",
        effect: Effect::Tests(&["header_fields_of_requests_and_responses_are_set_added_and_removed"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "add-header",
        inside: &[Section::Rule],
        arguments: &[FIELD, VALUE],
        times: Times::Many,
        doc: "Action: the request has this field, too.",
        example: "add-header X-Real-IP \"%{src}\"",
        effect: Effect::Tests(&["header_fields_of_requests_and_responses_are_set_added_and_removed"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "remove-header",
        inside: &[Section::Rule],
        arguments: &[FIELD],
        times: Times::Many,
        doc: "Action: the request does not have this field.",
        example: "remove-header X-Debug",
        effect: Effect::Tests(&["header_fields_of_requests_and_responses_are_set_added_and_removed"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "set-response-header",
        inside: &[Section::Rule],
        arguments: &[FIELD, VALUE],
        times: Times::Many,
        doc: "Action: the response has this field once, with this value. Placeholders are %{src}, %{host}, %{path}, %{query}, %{uri}, %{method}, %{scheme}, %{port}, %{sni}, %{request-id}, %{client-certificate:FIELD} (subject, issuer, cn, serial, san, sha256 or verified) or %{header:NAME}, all of the request; `%%` is a percent sign.",
        example: "set-response-header Cache-Control \"no-store\"",
        effect: Effect::Tests(&["header_fields_of_requests_and_responses_are_set_added_and_removed"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "add-response-header",
        inside: &[Section::Rule],
        arguments: &[FIELD, VALUE],
        times: Times::Many,
        doc: "Action: the response has this field, too.",
        example: "add-response-header Cache-Control \"no-store\"",
        effect: Effect::Tests(&["header_fields_of_requests_and_responses_are_set_added_and_removed"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "remove-response-header",
        inside: &[Section::Rule],
        arguments: &[FIELD],
        times: Times::Many,
        doc: "Action: the response does not have this field.",
        example: "remove-response-header Server",
        effect: Effect::Tests(&["header_fields_of_requests_and_responses_are_set_added_and_removed"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "rewrite",
        form: Some("path"),
        inside: &[Section::Rule],
        properties: &[
            optional("prefix", UrlPath, "see `regex=`", "what the path begins with, in whole segments"),
            optional("regex", Regex, "see `prefix=`", "what is found in the path"),
            required("to", Text, "what stands there instead; `$1` to `$9` are the groups of `regex=`"),
        ],
        doc: "Action: the server gets another path. It is made of the path as rules read it and is a normal one again; the query stays. Rules that follow see what the client sent.",
        example: "rewrite path prefix=\"/old\" to=\"/new\"",
        effect: Effect::Tests(&["a_path_is_rewritten_and_the_query_stays"]),
        ..Directive::EMPTY
    },
];
