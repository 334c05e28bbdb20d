//! `match` and `unless`: what a rule looks at. Each condition stands here once and makes a row for either word.

use super::Type::{
    Amount, Duration, File, HeaderName, HostPattern, Integer, Networks, PathPattern, Regex, Text, Word, Words,
};
use super::{DAY, Directive, Effect, Field, Section, Times, Type, any, default, many, optional, required};

const NONE: &str = "with `regex=` or `list=`, none of its own";
const HOST: &str = "a name without port, or `*.` and a name for all below it; case does not matter";
const REGEX: Field =
    optional("regex", Regex, "none", "a regular expression that is found in it; `^` and `$` are its ends");
const LIST: Field = optional(
    "list",
    File,
    "the values given here only",
    "a file of more, one a line; it is read again when it changes",
);
const TEXTS: &[Field] = &[REGEX, LIST];
const PARTS: Effect = Effect::Tests(&["conditions_look_at_every_part_of_a_request"]);

/// A row of `match` and one of `unless` for each: form, arguments and properties, when it is true, what else there is
/// to say of it, an example's values, what comes of it.
macro_rules! conditions {
    ($($form:literal, $arguments:expr, $properties:expr, $when:literal, $more:literal, $example:literal, $effect:expr;)*) => {
        pub(super) const ROWS: &[Directive] = &[
            $(Directive {
                name: "match",
                form: Some($form),
                inside: &[Section::Rule],
                arguments: $arguments,
                properties: $properties,
                times: Times::Many,
                doc: concat!("True where ", $when, ".", $more),
                example: concat!("match ", $form, " ", $example),
                effect: $effect,
                ..Directive::EMPTY
            },)*
            $(Directive {
                name: "unless",
                form: Some($form),
                inside: &[Section::Rule],
                arguments: $arguments,
                properties: $properties,
                times: Times::Many,
                doc: concat!("The rule is passed over where ", $when, ".", $more),
                example: concat!("unless ", $form, " ", $example),
                effect: $effect,
                ..Directive::EMPTY
            },)*
        ];
    };
}

conditions! {
    "path", &[any("pattern", PathPattern, NONE, "`*` is any text without `/`, `**` any text; `/dir/**` is for `/dir`, too")], TEXTS,
        "the path fits one of the patterns",
        " It is compared as the application server reads it: escapes decoded, `;parameters` taken away, `//` and dot segments resolved. A request whose path an application server would refuse (an encoded slash, a backslash, `%00`, a broken escape, more `..` than segments) is answered with 400 where any rule of the frontend looks at the path.",
        "\"/manager/**\" \"/host-manager/**\"", Effect::Tests(&["no_spelling_of_a_path_gets_past_a_rule"]);
    "host", &[any("host", HostPattern, NONE, HOST)], TEXTS,
        "the request is for one of the hosts", "",
        "\"doctorat.progres.example\"", Effect::Tests(&["a_host_of_its_own_has_a_backend_of_its_own"]);
    "sni", &[any("host", HostPattern, NONE, HOST)], TEXTS,
        "the client asked for one of the names in its TLS handshake",
        " The name is one of our own certificates or, in `mode tcp` without `tls`, of the server that it is passed through to.",
        "\"doctorat.progres.example\"", Effect::Tests(&["the_name_in_the_handshake_chooses_the_backend_and_tls_passes_through"]);
    "method", &[many("method", Text, "in capitals")], &[],
        "the request has one of the methods", "",
        "PUT DELETE", PARTS;
    "header", &[required("name", HeaderName, "the field; case does not matter"), any("value", Text, "any value: the field is there", "`*` is any text")], TEXTS,
        "a field of this name has one of the values", " Each of its lines is one value.",
        "User-Agent \"curl/*\"", PARTS;
    "cookie", &[required("name", HeaderName, "the cookie"), any("value", Text, "any value: the cookie is there", "`*` is any text")], TEXTS,
        "a cookie of this name has one of the values", "",
        "beta yes", PARTS;
    "query", &[required("name", Text, "the parameter"), any("value", Text, "any value: the parameter is there", "`*` is any text")], TEXTS,
        "a parameter of this name in the query has one of the values, decoded", "",
        "debug yes", PARTS;
    "src", &[any("network", Networks, "with `list=`, none of its own", "networks in CIDR notation")], &[LIST],
        "the client's address is in one of the networks", " In `mode tcp`, too.",
        "\"192.168.112.0/24\"", Effect::Tests(&["the_manager_is_for_one_network_only"]);
    "scheme", &[required("scheme", Word(&["http", "https"]), "what the client spoke")], &[],
        "the request came over this scheme", "",
        "http", PARTS;
    "tls", &[required("tls", Word(&["yes", "no"]), "whether there is TLS")], &[],
        "the connection is, or is not, under TLS", "",
        "no", PARTS;
    "port", &[many("port", Integer(1, 65535), "of the listener")], &[],
        "the connection came in on one of the ports", " In `mode tcp`, too.",
        "8080", PARTS;
}

/// What only `match` has: it counts.
pub(super) const COUNTING: &[Directive] = &[Directive {
    name: "match",
    form: Some("rate"),
    inside: &[Section::Rule],
    properties: &[
        required("key", KEYS, KEY),
        KEY_NAME,
        PREFIX,
        PREFIX6,
        default(
            "measure",
            Word(MEASURES),
            "requests",
            "what is counted of them: requests, new connections, answers 4xx (`errors`) or 5xx (`failures`), bytes received or sent",
        ),
        required(
            "over",
            Amount(1, 4_000_000_000),
            "true from the next one on; of bytes, it may be a size such as \"100MiB\"",
        ),
        required("per", Duration(1, DAY), "the time that they are counted over"),
        default(
            "remember",
            Integer(1024, 16 << 20),
            "100000",
            "keys that are remembered, 32 bytes each; where they are more, those that came least often are forgotten",
        ),
    ],
    times: Times::Many,
    doc: "True where more than `over` requests of one `key` came in the last `per`, or more of another `measure`. Counted are the requests for which everything else in the rule holds, whatever is then done with them; so who goes on at the same pace stays over it. The window slides, as HAProxy's does: a burst is counted exactly, and who times bursts gets twice `over` at most. All threads of the machine count together; with `peers` in `platform` so do the balancers, a twentieth of a second late, else each machine counts for itself. A reload goes on counting. A request without that key is not counted, and the rule is not for it. `key=src+host` counts each pair by itself. With `measure=connections` the first request of each connection counts. Answers and bytes are counted when a request is over, those that Relais gave itself, too. In `mode tcp`: connections and their bytes, by `src` and `sni`.",
    example: "match rate key=src over=200 per=\"10s\"",
    effect: Effect::Tests(&[
        "too_many_requests_from_one_address_are_denied_until_it_slows_down",
        "a_rate_is_counted_by_what_the_rule_says_and_only_where_the_rest_of_it_holds",
        "all_workers_count_together_and_a_reload_goes_on_counting",
        "answers_and_bytes_are_counted_when_requests_are_over",
        "connections_are_counted_by_their_first_requests",
        "a_key_of_several_parts_counts_each_combination_by_itself",
        "too_many_connections_from_one_address_are_refused_in_tcp_mode",
        "balancers_count_together_and_one_that_comes_back_knows_what_the_other_does",
    ]),
    ..Directive::EMPTY
}];

/// What a rate counts.
pub(crate) const MEASURES: &[&str] =
    &["requests", "connections", "errors", "failures", "bytes-in", "bytes-out"];
pub(super) const KEYS: Type = Words(&["src", "header", "cookie", "path", "host", "query", "sni"]);
pub(super) const KEY: &str = "what is counted together: all requests from one address, or with one value of this; several joined by `+`: each combination";
pub(super) const KEY_NAME: Field = optional(
    "name",
    Text,
    "none, as the key has none",
    "of the `header`, the `cookie` or the parameter of the `query`",
);
pub(super) const PREFIX: Field = optional(
    "prefix",
    Integer(0, 32),
    "32: each address",
    "with `key=src`: IPv4 networks of this length are one key",
);
pub(super) const PREFIX6: Field = optional(
    "prefix6",
    Integer(0, 128),
    "64: each network that one line has",
    "with `key=src`: IPv6 networks of this length are one key",
);
