//! `check`: how a backend knows that a server is well. One row a form.

use super::Type::{Duration, HeaderName, Host, Integer, Ip, Reference, Regex, Statuses, Text, UrlPath, Word};
use super::{Directive, Effect, Field, HOUR, Kind, Section, Times, default, optional, required};

const EVERY: Field = default("every", Duration(10, HOUR), "2s", "how often");
const FASTINTER: Field = optional(
    "fastinter",
    Duration(10, HOUR),
    "as `every`",
    "how often while results begin to change: a server that is up has failed, or one that is down has succeeded",
);
const DOWNINTER: Field =
    optional("downinter", Duration(10, HOUR), "as `every`", "how often while a server is down, and stays it");
const FALL: Field = default("fall", Integer(1, 255), "3", "failures in a row that take a server out");
const RISE: Field = default("rise", Integer(1, 255), "2", "successes in a row that bring it back");
const PORT: Field = optional(
    "port",
    Integer(1, 65535),
    "the server's",
    "another port to ask; it is asked without the backend's `tls` and the server's `send-proxy`",
);
const ADDRESS: Field = optional("address", Ip, "the server's", "another address to ask, likewise");
const JITTER: Field = default(
    "jitter",
    Integer(0, 50),
    "0",
    "percent by which each interval is made longer or shorter by chance, so that many checks do not meet (HAProxy's `spread-checks`)",
);
const INIT: Field = default(
    "init",
    Word(&["up", "fully-up", "down", "fully-down"]),
    "up",
    "a server that nobody has asked yet: `up`: gets requests until its first check fails; `fully-up`: until `fall` fail; `down`: none \
     until one succeeds; `fully-down`: none until `rise` succeed (HAProxy's `init-state`)",
);
const GRACE: Field = default(
    "grace",
    Duration(0, HOUR),
    "0ms",
    "for so long after a server is first asked failures do not count: it may still be starting",
);

const ELSEWHERE_TEST: &str = "a_check_may_ask_another_port_and_more_often_while_a_server_is_down";

/// A form whose conversation `relais-checks` has.
const fn talk(
    form: &'static str,
    properties: &'static [Field],
    doc: &'static str,
    example: &'static str,
    tests: &'static [&'static str],
) -> Directive {
    Directive {
        name: "check",
        form: Some(form),
        inside: &[Section::Backend],
        properties,
        doc,
        example,
        effect: Effect::Tests(tests),
        ..Directive::EMPTY
    }
}

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "header",
        inside: &[Section::Check],
        arguments: &[
            required("name", HeaderName, "the field; none that frames the message or is for one hop only"),
            required("value", Text, "its value"),
        ],
        times: Times::Many,
        doc: "The check's request has this field, too; `User-Agent` and `Accept` are replaced.",
        example: "header Authorization \"Bearer of-the-check\"",
        effect: Effect::Tests(&["a_check_says_what_the_file_has_it_say"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "agent",
        inside: &[Section::Backend],
        arguments: &[required("port", Integer(1, 65535), "where it listens on each server's machine")],
        properties: &[
            optional("address", Ip, "the server's", "another address to ask"),
            default("every", Duration(10, HOUR), "2s", "how often"),
            optional("send", Text, "nothing", "what is said to it first; `\\n` ends a line"),
        ],
        doc: "Each server's machine says itself how its server is: HAProxy's `agent-check`. The agent answers each connection with a line of \
              words: `75%` (of its weight), `maxconn:30` (requests at a time), `ready`, `drain`, `maint`, `up`, `down`, `failed` or `stopped`, with `#` before a reason. A \
              server is up while its check and its agent say so; where the agent does not answer, what it said last holds. Needs a `check`.",
        example: "agent 9999 every=\"1s\"",
        effect: Effect::Tests(&[
            "an_agent_drains_weighs_and_kills_its_server",
            "an_agent_is_understood_as_haproxy_does",
            "an_agent_says_how_many_requests_its_server_may_have",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "share-checks",
        inside: &[Section::Backend],
        doc: "The nodes that run a frontend together take turns in checking this backend's servers, so that all of them together ask as often as \
              `every` says, and not each of them. Each goes on seeing every server with its own eyes, once in as many intervals as \
              there are nodes, and decides for itself. What one finds otherwise than before the others look at at once; a server that is ill each \
              checks by itself. Where a node is not heard, the others check more often. Needs `peers` in `platform`; `check exec` and `agent` are \
              not shared.",
        example: "share-checks",
        effect: Effect::Tests(&[
            "balancers_take_turns_in_checking_and_see_a_death_at_once",
            "each_looks_in_turn_and_all_together_once_an_interval",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "observe",
        inside: &[Section::Backend],
        arguments: &[required(
            "what",
            Word(&["layer4", "layer7"]),
            "`layer4`: whether connections can be made; `layer7`: and what is answered: nothing, nothing that is HTTP, 500, 502, 503 or 504 \
             is a failure",
        )],
        properties: &[
            default("errors", Integer(1, 1000), "10", "failures in a row"),
            default(
                "on-error",
                Word(&["mark-down", "fail-check", "sudden-death", "fastinter"]),
                "mark-down",
                "`mark-down`: the server is down at once; `fail-check`: as if a check had failed; `sudden-death`: the next failed \
                 check takes it down; `fastinter`: only the next check comes sooner, as in any case",
            ),
            default(
                "most-down",
                Integer(1, 100),
                "50",
                "percentage of the backend's servers, none beyond which is taken out like this: where all fail, the fault is elsewhere",
            ),
        ],
        doc: "Requests say how a server is sooner than checks do: so many failures in a row (HAProxy's `observe`, `error-limit`, \
              `on-error`) take it out, and the check brings it back. Needs a `check`.",
        example: "observe layer7 errors=5",
        effect: Effect::Tests(&[
            "servers_that_fail_requests_are_taken_out_before_any_check",
            "a_row_of_failures_does_what_haproxy_does",
            "observation_makes_sense",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "outlier",
        inside: &[Section::Backend],
        properties: &[
            default(
                "errors",
                Integer(1, 100),
                "20",
                "percentage points: so many of a hundred requests more have to fail than of all other servers together",
            ),
            default("least", Integer(1, 1_000_000), "50", "of at least so many requests"),
            default("window", Duration(100, HOUR), "10s", "that ended within so long"),
            default("for", Duration(100, HOUR), "30s", "how long it is out; after that its check decides"),
            default(
                "most-down",
                Integer(1, 100),
                "50",
                "percentage of the backend's servers, none beyond which is taken out like this",
            ),
        ],
        doc: "A server that fails far more of its requests than the others do is taken out for a time, though it passes its checks and some requests: \
              a full disk, one bad instance after a deployment. Failures are requests without an answer and those with 500 to 599. Where all fail alike \
              nobody is taken out. Needs a `check`; `observe` sees rows of failures, and sooner.",
        example: "outlier errors=20 for=\"30s\"",
        effect: Effect::Tests(&[
            "a_server_that_fails_more_than_the_others_is_out_for_a_while",
            "who_fails_more_than_the_others_is_one_and_where_all_fail_nobody_is",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        block: Some(Section::Check),
        ..talk(
            "http",
            &[
                default("path", UrlPath, "/", "path and query that are asked for"),
                default("method", Word(&["GET", "HEAD", "OPTIONS", "POST", "PUT"]), "GET", "how it is asked"),
                optional("body", Text, "none", "what is sent with `POST` or `PUT`"),
                default(
                    "expect",
                    Statuses,
                    "200-399",
                    "statuses that count as well: `200`, or `\"200-399\"`",
                ),
                optional(
                    "contains",
                    Text,
                    "the status is enough",
                    "text that has to be within the first 64 KiB of the body as well",
                ),
                optional(
                    "matches",
                    Regex,
                    "the status is enough",
                    "regular expression that has to be found within the first 64 KiB of the body as well",
                ),
                optional("host", Host, "the server's address and port", "the `Host` field"),
                EVERY,
                FASTINTER,
                DOWNINTER,
                FALL,
                RISE,
                PORT,
                ADDRESS,
                JITTER,
                INIT,
                GRACE,
            ],
            "A server is well while it answers a request with an expected status. Without any `check`, servers are taken for well.",
            "check http path=\"/healthz\" expect=200 every=\"1s\" fall=2 rise=2",
            &[
                "checks_take_servers_out_and_bring_them_back",
                "a_status_out_of_the_range_is_a_failure_that_says_both",
                "the_host_is_the_one_given_or_the_servers_address",
                "a_body_has_to_contain_what_is_expected_of_it",
                "a_check_says_what_the_file_has_it_say",
                "jitter_grace_and_the_first_state_are_as_said",
                ELSEWHERE_TEST,
            ],
        )
    },
    talk(
        "grpc",
        &[
            optional("service", Text, "the server as a whole", "the service that is asked about"),
            default("host", Host, "localhost", "the name in `:authority`"),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while it says that the service is SERVING, by gRPC's health protocol (`grpc.health.v1.Health/Check`), over HTTP/2 \
         without TLS, or with the backend's `tls`.",
        "check grpc service=\"enrolment.Enrolment\" every=\"1s\"",
        &["grpc_says_whether_a_service_is_serving", "a_grpc_server_is_asked_over_http2"],
    ),
    talk(
        "exec",
        &[
            required(
                "command",
                Text,
                "absolute path of a program, and its arguments with blanks between them",
            ),
            optional(
                "timeout",
                Duration(10, HOUR),
                "as `every`",
                "how long it may take; then it is killed, and has failed",
            ),
            EVERY,
            FALL,
            RISE,
        ],
        "A server is well while a program ends with 0: it is run with the server's address, port and name as its last arguments, by the \
         control process, which has no privileges, one at a time for each server; the first result counts at once. What it says on its \
         standard error goes to the log. For what needs a client library or a shell; every other check costs a thousandth of it.",
        "check exec command=\"/usr/local/bin/looks-well --deep\" every=\"5s\" timeout=\"2s\"",
        &["a_program_says_how_each_server_is"],
    ),
    talk(
        "tcp",
        &[EVERY, FASTINTER, DOWNINTER, FALL, RISE, PORT, ADDRESS, JITTER, INIT, GRACE],
        "A server is well while a connection to it can be made.",
        "check tcp every=\"1s\"",
        &["a_tcp_check_ends_with_a_reset"],
    ),
    talk(
        "dns",
        &[
            required("name", Host, "the name that is asked for"),
            default(
                "type",
                Word(&["A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT"]),
                "A",
                "the type of its records",
            ),
            default(
                "expect",
                Word(&["noerror", "nxdomain", "either", "any"]),
                "noerror",
                "`noerror`: the name exists; `nxdomain`: it does not; `either`: one of both; `any`: whatever it answers, a \
                 failure of its own too",
            ),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while it answers a question as a name server does (RFC 1035), over UDP, within `timeout check`.",
        "check dns name=\"www.example\" type=A every=\"1s\"",
        &["a_name_server_is_judged_by_its_answer_and_no_other", "a_dns_check_takes_a_server_out"],
    ),
    talk(
        "tls",
        &[
            optional("sni", Host, "no name", "the name that is asked for"),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while it answers a TLS `ClientHello` with its own: for a backend that passes TLS through (HAProxy's \
         `ssl-hello-chk`). Its certificate is not looked at. Where the backend itself has `tls`, every other check does the whole handshake.",
        "check tls sni=\"www.example\" every=\"1s\"",
        &["a_server_hello_is_told_from_an_alert_and_from_noise", "a_tls_check_sees_whether_tls_is_spoken"],
    ),
    talk(
        "mysql",
        &[
            optional("user", Text, "the greeting is enough", "database user that logs in"),
            optional("secret", Reference(Kind::Secret), "no password", "its password"),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while MySQL or MariaDB greets, and takes the login of `user` (`mysql_native_password`, or any kind without a \
         password). Without `user`, the server counts each check as an interrupted connection, and after `max_connect_errors` refuses this \
         machine: give it one, which needs no rights.",
        "check mysql user=monitor secret=db-monitor every=\"1s\"",
        &[
            "a_database_greets_and_takes_a_login_with_a_password",
            "another_way_to_log_in_is_taken_where_it_can_be",
        ],
    ),
    talk(
        "galera",
        &[
            required("user", Text, "database user that asks"),
            required("secret", Reference(Kind::Secret), "its password"),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while its node is Primary, Synced (`wsrep_local_state` 4: a donor is not) and ready. One that is not Primary takes \
         connections and refuses every query. `user` needs no rights but to log in, with `mysql_native_password`.",
        "check galera user=monitor secret=db-monitor every=\"1s\"",
        &[
            "a_node_of_galera_is_well_while_it_is_primary_synced_and_ready",
            "a_real_node_of_galera_is_well_while_it_is_synced",
        ],
    ),
    talk(
        "postgresql",
        &[
            default(
                "user",
                Text,
                "relais",
                "database user whose session is begun; it need not have a password here",
            ),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while PostgreSQL wants a password for a session, or takes it without one. While it starts up or shuts down it refuses.",
        "check postgresql user=monitor every=\"1s\"",
        &["postgresql_is_well_once_it_wants_a_password_or_none"],
    ),
    talk(
        "redis",
        &[
            optional("secret", Reference(Kind::Secret), "no password", "the password"),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while Redis or Valkey answers `PING` with `PONG`; while it loads its data it does not.",
        "check redis every=\"1s\"",
        &["redis_answers_ping_after_the_password", "a_real_redis_is_checked_with_its_password"],
    ),
    talk(
        "smtp",
        &[
            default("helo", Host, "localhost", "the name that we say is ours"),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while it greets with 220 and answers `EHLO` with 250.",
        "check smtp helo=\"lb1.example\" every=\"5s\"",
        &["a_mail_server_greets_and_takes_ehlo"],
    ),
    talk(
        "ldap",
        &[
            optional(
                "base",
                Text,
                "nothing is looked for",
                "the distinguished name of an entry that has to be there",
            ),
            optional("user", Text, "an anonymous bind", "the distinguished name of who binds"),
            optional("secret", Reference(Kind::Secret), "none", "the password of `user`"),
            EVERY,
            FASTINTER,
            DOWNINTER,
            FALL,
            RISE,
            PORT,
            ADDRESS,
            JITTER,
            INIT,
            GRACE,
        ],
        "A server is well while it takes a bind (LDAP version 3), and with `base=` while a search finds that entry: a replica that has lost its \
         data takes binds as ever. The password goes in the clear where the backend has no `tls`.",
        "check ldap base=\"dc=example,dc=org\" every=\"2s\"",
        &[
            "a_directory_takes_an_anonymous_bind",
            "a_directory_is_asked_for_an_entry_by_somebody",
            "a_real_directory_is_asked_for_an_entry",
        ],
    ),
];
