//! `backend`: who answers.

use super::Type::{Duration, File, Host, Integer, Ip, Name, Reference, Socket, Text, Word, Words};
use super::{DAY, Directive, Effect, Field, HOUR, Kind, MINUTE, Section, Times, default, optional, required};

const WEIGHT: Field = default("weight", Integer(0, 256), "1", "its share of requests; 0 gets nothing new");
const SEND_PROXY: Field = optional(
    "send-proxy",
    Word(&["v1", "v2"]),
    "no header",
    "each connection begins with a PROXY protocol header of this version that names the client; a check's says `LOCAL`. \
     A connection is then kept for its own client alone",
);
const MAX_CONNECTIONS: Field = optional(
    "max-connections",
    Integer(1, 1_000_000),
    "no limit",
    "requests (`mode tcp`: connections) it may have at a time; more wait in the queue",
);
const MIN_CONNECTIONS: Field = optional(
    "min-connections",
    Integer(1, 1_000_000),
    "`max-connections`, always",
    "how many of `max-connections` it may have while little goes on; it grows to all of them as the backend comes to \
     `full-connections`",
);

const BACKUP: Field =
    default("backup", Word(&["no", "yes"]), "no", "`yes`: it gets requests only while no other server is up");
const SLOWSTART: Field = optional(
    "slowstart",
    Duration(1_000, HOUR),
    "at once",
    "after it was down, its weight and `max-connections` grow from a hundredth to all in this time",
);

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "backend",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Backend), "what logs and other directives call it")],
        block: Some(Section::Backend),
        times: Times::Many,
        doc: "Who answers: servers, and how they are chosen and watched. It needs a `server` or `servers`.",
        example: "backend app { check http path=\"/healthz\"; server tomcat1 \"192.168.112.177:8081\"; }",
        effect: Effect::Tests(&["a_request_is_forwarded_and_both_connections_are_kept"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "tls",
        inside: &[Section::Backend],
        properties: &[
            optional(
                "sni",
                Host,
                "the server's IP address",
                "the name asked for, and to be found in the certificate",
            ),
            optional(
                "ca",
                File,
                "the machine's own",
                "PEM: the authorities that sign the servers' certificates",
            ),
            default(
                "verify",
                Word(&["required", "none"]),
                "required",
                "`none`: any certificate is taken, so anybody can stand in for the server",
            ),
            optional(
                "certificate",
                File,
                "none",
                "PEM: our certificate, chain and key, for servers that ask",
            ),
        ],
        doc: "Speaks TLS to the servers, and in their health checks. Without `sni` the certificate has to name \
              the server's IP address.",
        example: "tls sni=\"app.internal\" ca=\"/etc/relais/tls/ca.pem\"",
        effect: Effect::Tests(&["servers_are_reached_over_tls_and_only_if_they_are_who_they_should_be"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "timeout",
        inside: &[Section::Backend],
        properties: &[
            default("connect", Duration(1, HOUR), "5s", "to establish a connection; answer: 503"),
            default(
                "server",
                Duration(1, DAY),
                "1m",
                "longest silence while the server owes bytes or takes them; answer: 504",
            ),
            default(
                "queue",
                Duration(1, HOUR),
                "10s",
                "longest wait for a free place at a server; answer: 503",
            ),
            default(
                "tunnel",
                Duration(1, 30 * DAY),
                "1h",
                "longest silence of a tunnel (Upgrade, `mode tcp`)",
            ),
            optional(
                "server-fin",
                Duration(1, DAY),
                "`tunnel`",
                "longest silence of a tunnel's server once the client has ended its half",
            ),
            default(
                "session",
                Duration(1, DAY),
                "30s",
                "longest silence of a session (`mode udp`); then it ends",
            ),
            optional(
                "check",
                Duration(1, 10 * MINUTE),
                "the check's `every`",
                "for a health check as a whole, once connected",
            ),
        ],
        doc: "Time-outs towards the servers.",
        example: "timeout connect=\"3s\" server=\"1m\" queue=\"10s\" check=\"5s\"",
        effect: Effect::Tests(&[
            "a_server_that_does_not_take_connections_is_waited_for_no_longer_than_connect_allows",
            "a_server_that_falls_silent_in_its_response_ends_the_response",
            "who_waits_too_long_for_a_place_gets_a_503",
            "a_silent_tunnel_ends",
            "a_silent_session_ends_after_its_time",
            "a_half_closed_tunnel_waits_no_longer_than_its_fin_time_outs",
            "a_check_that_takes_too_long_has_failed",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "responses",
        inside: &[Section::Backend],
        arguments: &[required("number", Integer(0, 1_000_000), "datagrams")],
        doc: "Datagrams that a server answers each datagram of a client with: 1 for DNS and RADIUS. A session ends with the last of them, \
              so that it takes no room while it waits for nothing. 0 for syslog, which is never answered: sessions end by `timeout \
              session`, and a stop does not wait for them. Without it, a session ends by `timeout session` alone. `mode udp` only.",
        example: "responses 1",
        effect: Effect::Tests(&[
            "a_session_ends_with_the_answers_to_all_that_was_asked",
            "a_stop_waits_for_what_is_owed_and_no_longer",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "full-connections",
        inside: &[Section::Backend],
        arguments: &[required("number", Integer(1, 1_000_000), "requests (`mode tcp`: connections)")],
        doc: "With how many at its servers and in its queue the backend is full, so that servers with `min-connections` may have all of \
              their `max-connections`; with fewer they may have a part that is in proportion, and never less than `min-connections` \
              (HAProxy's `fullconn`). Without it: a tenth of the `max-connections` of the frontends that lead here.",
        example: "full-connections 2000",
        effect: Effect::Tests(&[
            "the_limit_of_a_server_grows_with_the_load_as_haproxys",
            "a_dynamic_limit_is_what_haproxy_computes",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "max-queue",
        inside: &[Section::Backend],
        arguments: &[required("number", Integer(0, 1_000_000), "requests (`mode tcp`: connections)")],
        doc: "The most that may wait for a place at the servers. One more is answered with 503 (`PQ`) at once, which serves everybody \
              better than a queue nobody will see the end of. Without it, only `timeout queue` ends the waiting.",
        example: "max-queue 1000",
        effect: Effect::Tests(&["who_finds_the_queue_full_gets_a_503_at_once"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "breaker",
        inside: &[Section::Backend],
        properties: &[
            default("errors", Integer(1, 100), "50", "percentage of failed requests from which on it opens"),
            default("least", Integer(1, 1_000_000), "20", "of at least so many"),
            default("window", Duration(100, HOUR), "10s", "that ended within so long"),
            default("open", Duration(100, HOUR), "5s", "for so long no request goes to the servers"),
            default(
                "probes",
                Integer(1, 1000),
                "5",
                "then so many do; if all succeed everything is as before",
            ),
        ],
        doc: "A circuit breaker: where too many requests fail (no connection, no answer, 500, 502, 503 or 504), the next ones are \
              answered with 503 (`PC` in the log) at once and the servers are left alone, so that they can recover. Retries are no \
              requests of their own.",
        example: "breaker errors=50 open=\"5s\"",
        effect: Effect::Tests(&[
            "a_backend_that_fails_is_left_alone_for_a_while",
            "it_opens_at_its_share_of_enough_requests_and_tries_again_with_a_few",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "hedge",
        inside: &[Section::Backend],
        properties: &[
            required(
                "after",
                Duration(1, HOUR),
                "how long the first server may take for the beginning of its answer: longer than nearly all answers do",
            ),
            default(
                "budget",
                Integer(1, 100),
                "5",
                "percentage of all requests that may be hedged, so that a backend that is slow as a whole is not asked twice; ten a second \
                 may on each worker whatever it is",
            ),
        ],
        doc: "A GET or HEAD whose server is slow is sent to a second one as well, and whoever answers first is heard; the other request is \
              broken off. It takes the sting out of single pauses (a garbage collection, a full disk), for a few requests more. \
              Nobody is hedged who stays with a server (`persist`, `stick`): the other one does not know him. The second is one that has a \
              place at once; a backup is none. In the log such a request has the server that answered.",
        example: "hedge after=\"200ms\"",
        effect: Effect::Tests(&[
            "a_slow_server_is_overtaken_by_another",
            "a_hedge_asks_nobody_who_stays_or_writes_and_keeps_to_its_budget",
            "whoever_of_two_fails_the_other_is_waited_for",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "panic",
        inside: &[Section::Backend],
        arguments: &[required("percent", Integer(1, 100), "of the servers that are no backups")],
        doc: "While fewer of the servers than this are up, all of them get requests, dead or not (but none that an operator or its \
              agent has put down): the few that are left would go down under the load of all, and where most fail at once it is often \
              the check that is wrong.",
        example: "panic 50",
        effect: Effect::Tests(&["where_too_few_are_up_all_serve"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "retries",
        inside: &[Section::Backend],
        arguments: &[default("number", Integer(0, 100), "3", "tries after the first")],
        properties: &[optional(
            "budget",
            Integer(1, 100),
            "every failure may be repeated",
            "percentage of all requests that may be repeated; ten a second may on each worker whatever it is. So a backend that fails as a \
             whole is not asked several times as much",
        )],
        doc: "How often a request may be tried again: when its connection failed before it was sent, or when it is idempotent and \
              its response has not begun. Nothing else is ever repeated. In `mode udp`: how often datagrams go to another server because \
              nobody listens at one (ICMP), as long as the server has answered none of them.",
        example: "retries 3",
        effect: Effect::Tests(&[
            "a_budget_ends_retries_where_all_servers_fail",
            "the_retries_are_counted_and_end",
            "what_a_dead_server_did_not_take_is_answered_by_another",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "retry-on",
        inside: &[Section::Backend],
        arguments: &[default(
            "what",
            Words(&[
                "empty-response",
                "junk-response",
                "response-timeout",
                "401",
                "403",
                "404",
                "408",
                "425",
                "429",
                "500",
                "501",
                "502",
                "503",
                "504",
            ]),
            "empty-response",
            "`empty-response`: the connection ended before a byte of the answer; `junk-response`: what came is no HTTP; \
             `response-timeout`: nothing came within `timeout server`; a status",
        )],
        doc: "After what a request is tried again, beside a connection that cannot be made. It has to be idempotent and without a body \
              (RFC 9110 §9.2.2), whatever stands here: nothing that a server may have done is done twice. The last answer goes to \
              the client as it is.",
        example: "retry-on empty-response+503",
        effect: Effect::Tests(&["chosen_answers_are_asked_for_again_elsewhere_and_the_last_is_given"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "redispatch",
        inside: &[Section::Backend],
        doc: "A retry may go to another server. Without it, a retry goes to the same one. In `mode udp`, what a server has not answered \
              within `timeout server` goes to another too: only for protocols that bear to be asked twice, such as DNS.",
        example: "redispatch",
        effect: Effect::Tests(&[
            "without_redispatch_the_same_server_is_tried_again",
            "a_silent_server_is_passed_over_where_the_file_says_so",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "abort-on-close",
        inside: &[Section::Backend],
        doc: "A client that has closed its half of the connection, and whose request still waits for a place, a connection or the \
              first byte of an answer, is taken for gone: its place is free at once (`CQ`, `CC`, `CH` in the log). Browsers close both halves \
              when somebody presses stop or reload; a program that half-closes and still reads gets no answer. Without \
              it only a reset, or a cancelled HTTP/2 stream, frees the place.",
        example: "abort-on-close",
        effect: Effect::Tests(&[
            "a_client_that_closes_while_it_waits_leaves_its_place_where_the_file_says_so",
            "a_client_that_half_closes_is_answered_where_the_file_does_not_say_otherwise",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "source",
        inside: &[Section::Backend],
        arguments: &[required(
            "address",
            Word(&["client"]),
            "`client`: connections to servers come from the client's own address",
        )],
        doc: "Servers see the client's address as the source of the connection (TPROXY), in both modes. Answers must come back through this \
              machine, and its kernel must give them to Relais: docs/operating.md has the routes. The proxy then keeps \
              CAP_NET_RAW, and only that. Checks come from this machine. A connection is kept for its own client alone.",
        example: "source client",
        effect: Effect::Tests(&[
            "servers_see_the_clients_own_address",
            "the_proxy_keeps_one_capability_where_it_needs_it",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "http2",
        inside: &[Section::Backend],
        properties: &[default(
            "max-concurrent-streams",
            Integer(1, 1000),
            "100",
            "requests at a time on one connection to a server; fewer where it says so itself",
        )],
        doc: "How HTTP/2 is spoken to servers that have `proto=h2`. When every connection is full, one more is opened.",
        example: "http2 max-concurrent-streams=100",
        effect: Effect::Tests(&["a_server_gets_no_more_streams_on_a_connection_than_it_allows"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "server",
        inside: &[Section::Backend],
        arguments: &[
            required("name", Name(Kind::Server), "unique in the backend; logs say it"),
            required("address", Socket, "where it listens"),
        ],
        properties: &[
            WEIGHT,
            MAX_CONNECTIONS,
            MIN_CONNECTIONS,
            BACKUP,
            SLOWSTART,
            SEND_PROXY,
            optional("cookie", Text, "its name", "what stands for it in the cookie of `persist`"),
            optional(
                "check-port",
                Integer(1, 65535),
                "the check's",
                "another port for its check, as `check port=` is for all",
            ),
            optional("check-address", Ip, "the check's", "another address for its check, likewise"),
            default(
                "proto",
                Word(&["h1", "h2"]),
                "h1",
                "what it speaks: HTTP/1.1, or HTTP/2 from the first byte",
            ),
        ],
        times: Times::Many,
        doc: "One server. An address that is no node's is a warning: it may be a machine outside the platform, or a slip.",
        example: "server tomcat1 \"192.168.112.177:8081\" max-connections=5000 weight=2",
        effect: Effect::Tests(&[
            "weights_share_requests_out",
            "who_waits_for_a_place_is_served_in_order",
            "a_server_is_told_the_client_before_anything_else",
            "a_connection_that_names_its_client_serves_no_other",
            "many_requests_share_one_connection_to_a_server",
            "backups_serve_when_nobody_else_is_up",
            "a_server_that_comes_back_gets_more_step_by_step",
            "a_server_is_called_in_the_cookie_what_its_row_says",
            "servers_of_one_machine_are_each_checked_where_their_rows_say",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "servers",
        inside: &[Section::Backend],
        properties: &[
            required("tomcat", Reference(Kind::Tomcat), "the tier"),
            WEIGHT,
            MAX_CONNECTIONS,
            MIN_CONNECTIONS,
            BACKUP,
            SLOWSTART,
            SEND_PROXY,
        ],
        times: Times::Many,
        doc: "Every instance of a tier is a server, named after its node and counted from 1: `tomcat1-1`, `tomcat1-2`.",
        example: "servers tomcat=app max-connections=5000",
        effect: Effect::Tests(&["a_tier_is_expanded_to_its_instances"]),
        ..Directive::EMPTY
    },
];
