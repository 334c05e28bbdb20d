//! `rule` with what stands in it.

use super::Type::{
    Duration, File, HeaderName, HeaderValue, HostPattern, Integer, Location, Name, Networks, PathPattern,
    Reference, Regex, Text, UrlPath, Word,
};
use super::{DAY, Directive, Effect, Field, Kind, Section, Times, any, default, many, optional, required};

const RATE: &[Field] = &[
    required("key", Word(&["src"]), "what is counted: `src`, the client's address"),
    required("over", Integer(1, 1_000_000_000), "matches from the next one on"),
    required("per", Duration(1, DAY), "the time they are counted over"),
];

const FIELD: Field =
    required("name", HeaderName, "the field; none that frames the message or is for one hop only");
const VALUE: Field = required("value", HeaderValue, "the value; it may have `%{placeholders}`");

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "rule",
        inside: &[Section::Frontend],
        arguments: &[required("name", Name(Kind::Rule), "what it is for, in words; logs and metrics say it")],
        block: Some(Section::Rule),
        times: Times::Many,
        doc: "Rules are asked in the order of the file. When every `match` and no `unless` of one is true of a request, its actions are taken; `deny`, `respond`, `redirect` and `backend` end it, after the others no rule is skipped. Several values in one `match` are alternatives. Every rule sees the request as the client sent it. What no rule answers or sends elsewhere goes to `default-backend`. In `mode tcp` there are `src` and `port`, `backend` and `deny`.",
        example: "rule \"manager from the ministry only\" { match path \"/manager/**\"; unless src \"192.168.112.0/24\"; deny 403; }",
        effect: Effect::Tests(&[
            "the_manager_is_for_one_network_only",
            "rules_are_asked_in_order_until_one_ends_it",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("path"),
        inside: &[Section::Rule],
        arguments: &[any(
            "pattern",
            PathPattern,
            "with `regex=` or `list=`, none of its own",
            "`*` is any text without `/`, `**` any text; `/dir/**` is for `/dir`, too",
        )],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "True where the path fits one of the patterns. It is compared as the application server reads it: escapes decoded, `;parameters` taken away, `//` and dot segments resolved. A request whose path an application server would refuse (an encoded slash, a backslash, `%00`, a broken escape, more `..` than segments) is answered with 400 where any rule of the frontend looks at the path.",
        example: "match path \"/manager/**\" \"/host-manager/**\"",
        effect: Effect::Tests(&["no_spelling_of_a_path_gets_past_a_rule"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("host"),
        inside: &[Section::Rule],
        arguments: &[any(
            "host",
            HostPattern,
            "with `regex=` or `list=`, none of its own",
            "a name without port, or `*.` and a name for all below it; case does not matter",
        )],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "True where the request is for one of the hosts.",
        example: "match host \"doctorat.progres.example\"",
        effect: Effect::Tests(&["a_host_of_its_own_has_a_backend_of_its_own"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("sni"),
        inside: &[Section::Rule],
        arguments: &[any(
            "host",
            HostPattern,
            "with `regex=` or `list=`, none of its own",
            "a name without port, or `*.` and a name for all below it; case does not matter",
        )],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "True where the client asked for one of the names in its TLS handshake: of our own certificates, or, in `mode tcp` without `tls`, of the server that it is passed through to.",
        example: "match sni \"doctorat.progres.example\"",
        effect: Effect::Tests(&["the_name_in_the_handshake_chooses_the_backend_and_tls_passes_through"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("method"),
        inside: &[Section::Rule],
        arguments: &[many("method", Text, "in capitals")],
        times: Times::Many,
        doc: "True where the request has one of the methods.",
        example: "match method PUT DELETE",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("header"),
        inside: &[Section::Rule],
        arguments: &[
            required("name", HeaderName, "the field; case does not matter"),
            any("value", Text, "any value: the field is there", "`*` is any text"),
        ],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "True where a field of this name has one of the values; each of its lines is one.",
        example: "match header User-Agent \"curl/*\"",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("cookie"),
        inside: &[Section::Rule],
        arguments: &[
            required("name", HeaderName, "the cookie"),
            any("value", Text, "any value: the cookie is there", "`*` is any text"),
        ],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "True where a cookie of this name has one of the values.",
        example: "match cookie beta yes",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("query"),
        inside: &[Section::Rule],
        arguments: &[
            required("name", Text, "the parameter"),
            any("value", Text, "any value: the parameter is there", "`*` is any text"),
        ],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "True where a parameter of this name in the query has one of the values, decoded.",
        example: "match query debug yes",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("src"),
        inside: &[Section::Rule],
        arguments: &[any("network", Networks, "with `list=`, none of its own", "networks in CIDR notation")],
        properties: &[optional(
            "list",
            File,
            "the values given here only",
            "a file of more, one a line; it is read again when it changes",
        )],
        times: Times::Many,
        doc: "True where the client's address is in one of the networks. In `mode tcp`, too.",
        example: "match src \"192.168.112.0/24\"",
        effect: Effect::Tests(&["the_manager_is_for_one_network_only"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("scheme"),
        inside: &[Section::Rule],
        arguments: &[required("scheme", Word(&["http", "https"]), "what the client spoke")],
        times: Times::Many,
        doc: "True where the request came over this scheme.",
        example: "match scheme http",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("tls"),
        inside: &[Section::Rule],
        arguments: &[required("tls", Word(&["yes", "no"]), "whether there is TLS")],
        times: Times::Many,
        doc: "True where the connection is, or is not, under TLS.",
        example: "match tls no",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("port"),
        inside: &[Section::Rule],
        arguments: &[many("port", Integer(1, 65535), "of the listener")],
        times: Times::Many,
        doc: "True where the connection came in on one of the ports. In `mode tcp`, too.",
        example: "match port 8080",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "match",
        form: Some("rate"),
        inside: &[Section::Rule],
        properties: RATE,
        times: Times::Many,
        doc: "True where more requests than `over` came in the last `per` from one `key`.",
        example: "match rate key=src over=200 per=\"10s\"",
        effect: Effect::Later("count requests"),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("path"),
        inside: &[Section::Rule],
        arguments: &[any(
            "pattern",
            PathPattern,
            "with `regex=` or `list=`, none of its own",
            "`*` is any text without `/`, `**` any text; `/dir/**` is for `/dir`, too",
        )],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "The rule is not for requests where the path fits one of the patterns.",
        example: "unless path \"/manager/**\" \"/host-manager/**\"",
        effect: Effect::Tests(&["no_spelling_of_a_path_gets_past_a_rule"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("host"),
        inside: &[Section::Rule],
        arguments: &[any(
            "host",
            HostPattern,
            "with `regex=` or `list=`, none of its own",
            "a name without port, or `*.` and a name for all below it; case does not matter",
        )],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "The rule is not for requests that are for one of the hosts.",
        example: "unless host \"doctorat.progres.example\"",
        effect: Effect::Tests(&["a_host_of_its_own_has_a_backend_of_its_own"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("sni"),
        inside: &[Section::Rule],
        arguments: &[any(
            "host",
            HostPattern,
            "with `regex=` or `list=`, none of its own",
            "a name without port, or `*.` and a name for all below it; case does not matter",
        )],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "The rule is not for clients that asked for one of the names in their TLS handshake.",
        example: "unless sni \"doctorat.progres.example\"",
        effect: Effect::Tests(&["the_name_in_the_handshake_chooses_the_backend_and_tls_passes_through"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("method"),
        inside: &[Section::Rule],
        arguments: &[many("method", Text, "in capitals")],
        times: Times::Many,
        doc: "The rule is not for requests that have one of the methods.",
        example: "unless method PUT DELETE",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("header"),
        inside: &[Section::Rule],
        arguments: &[
            required("name", HeaderName, "the field; case does not matter"),
            any("value", Text, "any value: the field is there", "`*` is any text"),
        ],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "The rule is not for requests where a field of this name has one of the values; each of its lines is one.",
        example: "unless header User-Agent \"curl/*\"",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("cookie"),
        inside: &[Section::Rule],
        arguments: &[
            required("name", HeaderName, "the cookie"),
            any("value", Text, "any value: the cookie is there", "`*` is any text"),
        ],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "The rule is not for requests where a cookie of this name has one of the values.",
        example: "unless cookie beta yes",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("query"),
        inside: &[Section::Rule],
        arguments: &[
            required("name", Text, "the parameter"),
            any("value", Text, "any value: the parameter is there", "`*` is any text"),
        ],
        properties: &[
            optional(
                "regex",
                Regex,
                "none",
                "a regular expression that is found in it; `^` and `$` are its ends",
            ),
            optional(
                "list",
                File,
                "the values given here only",
                "a file of more, one a line; it is read again when it changes",
            ),
        ],
        times: Times::Many,
        doc: "The rule is not for requests where a parameter of this name in the query has one of the values, decoded.",
        example: "unless query debug yes",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("src"),
        inside: &[Section::Rule],
        arguments: &[any("network", Networks, "with `list=`, none of its own", "networks in CIDR notation")],
        properties: &[optional(
            "list",
            File,
            "the values given here only",
            "a file of more, one a line; it is read again when it changes",
        )],
        times: Times::Many,
        doc: "The rule is not for requests where the client's address is in one of the networks.",
        example: "unless src \"192.168.112.0/24\"",
        effect: Effect::Tests(&["the_manager_is_for_one_network_only"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("scheme"),
        inside: &[Section::Rule],
        arguments: &[required("scheme", Word(&["http", "https"]), "what the client spoke")],
        times: Times::Many,
        doc: "The rule is not for requests that came over this scheme.",
        example: "unless scheme http",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("tls"),
        inside: &[Section::Rule],
        arguments: &[required("tls", Word(&["yes", "no"]), "whether there is TLS")],
        times: Times::Many,
        doc: "The rule is not for requests where the connection is, or is not, under TLS.",
        example: "unless tls no",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unless",
        form: Some("port"),
        inside: &[Section::Rule],
        arguments: &[many("port", Integer(1, 65535), "of the listener")],
        times: Times::Many,
        doc: "The rule is not for requests where the connection came in on one of the ports.",
        example: "unless port 8080",
        effect: Effect::Tests(&["conditions_look_at_every_part_of_a_request"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "deny",
        inside: &[Section::Rule],
        arguments: &[default("code", Integer(400, 599), "403", "status of the answer")],
        doc: "Action: the request is answered with this status and goes no further. In `mode tcp` the connection is closed.",
        example: "deny 403",
        effect: Effect::Tests(&[
            "the_manager_is_for_one_network_only",
            "a_tcp_rule_denies_or_chooses_a_backend",
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
        name: "set-header",
        inside: &[Section::Rule],
        arguments: &[FIELD, VALUE],
        times: Times::Many,
        doc: "Action: the request has this field once, with this value. Placeholders are %{src}, %{host}, %{path}, %{query}, %{uri}, %{method}, %{scheme}, %{port}, %{sni}, %{request-id} or %{header:NAME}, all of the request; `%%` is a percent sign.",
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
        doc: "Action: the response has this field once, with this value. Placeholders are %{src}, %{host}, %{path}, %{query}, %{uri}, %{method}, %{scheme}, %{port}, %{sni}, %{request-id} or %{header:NAME}, all of the request; `%%` is a percent sign.",
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
