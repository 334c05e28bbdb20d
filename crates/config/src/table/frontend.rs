//! `frontend` with what stands in it, and `cache`.

use super::Type::{
    Duration, File, HeaderName, Integer, Listen, LogTarget, Name, Networks, Reference, Size, Word,
};
use super::platform::{LOG_PROPERTIES, LOG_TARGET};
use super::{DAY, Directive, Effect, KIB, Kind, MIB, Section, TIB, Times, default, many, optional, required};

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "frontend",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Frontend), "what logs and other directives call it")],
        block: Some(Section::Frontend),
        times: Times::Many,
        doc: "Where requests come in. It needs a `bind`, and a `default-backend` or a `redirect`.",
        example: "frontend web { bind \"*:80\"; default-backend app; }",
        effect: Effect::Tests(&["a_request_is_forwarded_and_both_connections_are_kept"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "on",
        inside: &[
            Section::Frontend,
            Section::Tomcat,
            Section::Galera,
            Section::Gluster,
            Section::Mount,
            Section::Resource,
        ],
        arguments: &[many("node", Reference(Kind::Node), "nodes that run it")],
        doc: "The nodes that run it. A frontend without `on` runs on the nodes that have, or may hold, an address it binds; \
              where it binds none, on all.",
        example: "on haproxy1 haproxy2",
        effect: Effect::Tests(&["a_frontend_without_on_runs_where_its_addresses_are"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "mode",
        inside: &[Section::Frontend, Section::Backend],
        arguments: &[default(
            "mode",
            Word(&["http", "tcp", "udp", "forward"]),
            "http",
            "`http`: request by request; `tcp`: connection by connection; `udp`: datagrams, session by session; `forward`: packets, \
             passed on by the kernel (nftables or IPVS)",
        )],
        doc: "What it speaks. A frontend and its backends speak the same. A UDP session is what comes from one client port to one of our \
              addresses, until it ends (`responses`, `timeout session`); answers leave from the address that was asked. A TCP or \
              HTTP frontend and a UDP one may listen on the same address and port. `forward` is for what is to be balanced and not to be \
              looked at: no process of Relais sees its packets, checks decide where they go, and what needs a proxy is refused \
              (docs/forward.md).",
        example: "mode tcp",
        effect: Effect::Tests(&[
            "a_tcp_frontend_leads_to_its_tcp_backend",
            "bytes_pass_both_ways_and_halves_close_apart",
            "datagrams_pass_both_ways_and_keep_their_borders",
            "an_answer_comes_from_the_address_that_was_asked",
            "weights_share_connections_and_a_dead_server_is_left",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "forward",
        inside: &[Section::Frontend],
        properties: &[
            default("protocol", Word(&["tcp", "udp"]), "tcp", "what is passed on"),
            default(
                "by",
                Word(&["nftables", "ipvs"]),
                "nftables",
                "what of the kernel does it; not every kernel has IPVS: `relais check` says what this one has",
            ),
            default(
                "method",
                Word(&["nat", "direct", "tunnel"]),
                "nat",
                "`by=ipvs`: `nat`: servers' way back leads through this machine; `direct`: they are on the same link and have the \
                 address too; `tunnel`: they have it too, and packets reach them in IPIP. With the latter two they answer past this \
                 machine, and have the port that clients come to",
            ),
            default(
                "masquerade",
                Word(&["yes", "no"]),
                "yes",
                "`by=nftables`: `yes`: servers see this machine's address, and need nothing; `no`: they see the client's, and their way back to \
                 clients has to lead through this machine",
            ),
        ],
        doc: "How `mode forward` passes packets on. With `masquerade=yes` there is room for some 64,000 connections at a time to each \
              server: one for each port of this machine's address.",
        example: "forward protocol=udp masquerade=no",
        effect: Effect::Tests(&[
            "udp_is_forwarded_and_servers_may_see_the_client",
            "weights_share_connections_and_a_dead_server_is_left",
            "on_a_kernel_with_ipvs",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "bind",
        inside: &[Section::Frontend],
        arguments: &[required(
            "address",
            Listen,
            "`*` is every IPv4 address of the machine, `[::]` every IPv6 one",
        )],
        block: Some(Section::Bind),
        times: Times::OneOrMore,
        doc: "Where the frontend listens. An address of one node is opened there only, so one frontend may name an address of each.",
        example: "bind \"*:80\"",
        effect: Effect::Tests(&[
            "an_address_of_one_node_is_opened_there_only",
            "two_workers_share_the_connections_of_a_bind",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "tls",
        inside: &[Section::Bind],
        block: Some(Section::Tls),
        doc: "TLS on this listener: 1.2 with forward secrecy, and 1.3. It needs a `certificate` or `certificates`. \
              The files are read anew when they change, without a reload; connections keep what they began with.",
        example: "tls { certificate \"/etc/relais/tls/www1.pem\"; }",
        effect: Effect::Tests(&[
            "requests_and_answers_of_every_size_pass_over_tls",
            "http_on_a_tls_port_is_told_so",
            "a_certificate_that_changes_is_presented_without_a_reload",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "certificate",
        inside: &[Section::Tls],
        arguments: &[required("file", File, "PEM: certificate, chain and key")],
        times: Times::Many,
        doc: "A certificate with its chain and key. The client's server name chooses among several, exact names before \
              wildcards; the first is for everybody else. An OCSP response (DER) in a file of the same name with `.ocsp` \
              behind it is stapled.",
        example: "certificate \"/etc/relais/tls/www1.pem\"",
        effect: Effect::Tests(&[
            "the_exact_name_comes_before_the_wildcard_and_the_first_is_for_everybody_else",
            "what_is_wrong_with_a_certificate_is_said_before_it_is_used",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "certificates",
        inside: &[Section::Tls],
        arguments: &[required("directory", File, "a directory of PEM files")],
        times: Times::Many,
        doc: "Every file of a directory whose name ends in `.pem`, as if each were a `certificate`, in the order of \
              their names. What is added, replaced or taken away there takes effect within seconds. A file that is of no use keeps \
              back no other: it is left out, or stays as it was.",
        example: "certificates \"/etc/relais/tls\"",
        effect: Effect::Tests(&[
            "a_directory_of_certificates_is_followed",
            "a_bad_file_keeps_no_good_one_back",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "alpn",
        inside: &[Section::Tls],
        arguments: &[many("protocol", Word(&["h2", "http/1.1"]), "in the order of preference")],
        doc: "Protocols offered in the TLS handshake; without it, `h2` and `http/1.1`, and in `mode tcp` none.",
        example: "alpn h2 \"http/1.1\"",
        effect: Effect::Tests(&["the_protocol_is_agreed_on_in_the_handshake"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "min-version",
        inside: &[Section::Tls],
        arguments: &[default(
            "version",
            Word(&["1.2", "1.3"]),
            "1.2",
            "`1.2`: what Mozilla calls intermediate; `1.3`: modern",
        )],
        doc: "The least version of TLS that clients may speak.",
        example: "min-version \"1.3\"",
        effect: Effect::Tests(&["clients_below_the_least_version_are_refused"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "client-certificate",
        inside: &[Section::Tls],
        arguments: &[required(
            "need",
            Word(&["required", "optional"]),
            "`required`: no handshake without one; `optional`: who presents one presents a good one",
        )],
        properties: &[
            required("ca", File, "PEM: the authorities that sign clients' certificates"),
            optional("crl", File, "none are revoked", "PEM: the authorities' lists of revoked certificates"),
        ],
        doc: "Asks clients for a certificate. Servers get it in `Client-Cert` (RFC 9440); what a client sends in that field \
              itself never reaches them. Rules put what is in it into other fields: \
              set-header \"X-Client-CN\" \"%{client-certificate:cn}\".",
        example: "client-certificate required ca=\"/etc/relais/tls/clients.pem\"",
        effect: Effect::Tests(&[
            "clients_show_their_certificate_and_servers_see_it",
            "rules_tell_servers_who_shows_a_certificate_and_nobody_can_pretend",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "ticket-keys",
        inside: &[Section::Tls],
        arguments: &[required("file", File, "one secret a line, `openssl rand -base64 48`")],
        doc: "Keys of session tickets, so that a client comes back to any balancer that has the same file without a full \
              handshake. The first line seals new tickets, every line opens old ones: put a new one in front, take the last away. \
              Without it they are made of `secret cluster-key` in `platform`, anew every 12 h, so that balancers that have the same \
              secret take each other's tickets, over restarts, too, for 12 h at least; without that either, each process has a key \
              of its own.",
        example: "ticket-keys \"/etc/relais/tls/tickets\"",
        effect: Effect::Tests(&[
            "a_ticket_of_one_balancer_is_taken_by_another_with_the_same_keys",
            "tickets_are_made_of_the_clusters_key_where_there_is_one",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "strict-sni",
        inside: &[Section::Tls],
        doc: "Refuses the handshake of a client that asks for a name which no certificate has, instead of presenting \
              the first.",
        example: "strict-sni",
        effect: Effect::Tests(&[
            "the_exact_name_comes_before_the_wildcard_and_the_first_is_for_everybody_else",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "hsts",
        inside: &[Section::Tls],
        arguments: &[default(
            "max-age",
            Duration(1_000, 3_650 * DAY),
            "365d",
            "how long browsers remember it",
        )],
        doc: "Tells browsers to come by `https` only: `Strict-Transport-Security` (RFC 6797) on every answer over this \
              listener, in the place of what the server says of it. HTTP only.",
        example: "hsts \"365d\"",
        effect: Effect::Tests(&["browsers_are_told_to_come_by_https_only"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "max-connections",
        inside: &[Section::Frontend],
        arguments: &[default("number", Integer(1, 1_000_000), "20000", "connections")],
        doc: "Connections open at a time on one node. More wait in the kernel's queue. In `mode udp`, sessions: a datagram that would \
              begin one more is dropped and counted.",
        example: "max-connections 20000",
        effect: Effect::Tests(&[
            "a_full_frontend_leaves_connections_in_the_kernels_queue",
            "a_full_table_drops_datagrams_and_counts_them",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "max-connections",
        inside: &[Section::Bind],
        arguments: &[required("number", Integer(1, 1_000_000), "connections")],
        doc: "Connections open at a time that came in on this address, so that one listener leaves room for the others of its \
              frontend. More wait in the kernel's queue. Without it, only the frontend's limit holds.",
        example: "max-connections 5000",
        effect: Effect::Tests(&["a_full_listener_leaves_the_others_of_its_frontend_alone"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "accept-proxy",
        inside: &[Section::Bind],
        properties: &[required("from", Networks, "who is believed; everybody: `\"0.0.0.0/0 ::/0\"`")],
        doc: "Connections from these networks begin with a PROXY protocol header, version 1 or 2, before TLS too: its source is \
              the client for logs, rules and servers. One that sends anything else, or no whole header within `timeout request`, is cut. \
              From elsewhere no header is expected, as with HAProxy's `expect-proxy` rule: one that comes is data, which `mode http` \
              refuses with 400. Load balancers may speak for themselves (`LOCAL`, `UNKNOWN`).",
        example: "accept-proxy from=\"10.10.0.0/24\"",
        effect: Effect::Tests(&[
            "a_trusted_source_says_who_the_client_is",
            "a_header_from_elsewhere_is_data",
            "a_trusted_source_that_says_nothing_is_cut",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "max-body",
        inside: &[Section::Frontend, Section::Backend],
        arguments: &[required("size", Size(0, TIB), "longest body of a request")],
        doc: "A request that announces a longer body is answered with 413 before a byte of it goes to a server. One in chunks is cut \
              where it announces the chunk that would pass the limit: the server's connection ends unfinished. Where frontend \
              and backend both say it, the smaller holds. Without it there is no limit. HTTP only.",
        example: "max-body \"10MiB\"",
        effect: Effect::Tests(&[
            "a_body_that_is_announced_too_long_never_reaches_a_server",
            "a_chunked_body_that_grows_too_long_is_never_finished_for_the_server",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "min-rate",
        inside: &[Section::Frontend],
        arguments: &[default(
            "rate",
            Size(0, 1 << 30),
            "100B",
            "a second; `\"0B\"`: none, only the time-outs hold",
        )],
        properties: &[default("grace", Duration(1, DAY), "1m", "patience that a client begins with")],
        doc: "The least that a client must send of a body, or take of a response, a second. Each second that it is waited for costs a \
              second of patience; every byte that moves brings back its share, up to `grace`. A client that has used all up is \
              answered with 408 (`cD`), or its response is cut. A client that is fast and then pauses is the business of \
              `timeout client`; one that trickles is that of this. The head is held to `timeout request` as a whole. HTTP only.",
        example: "min-rate \"240B\" grace=\"20s\"",
        effect: Effect::Tests(&[
            "a_body_that_trickles_is_cut_though_it_never_pauses",
            "a_reader_that_trickles_is_cut_though_it_never_pauses",
            "a_client_that_keeps_the_minimum_rate_is_never_cut",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "access-log",
        inside: &[Section::Frontend],
        arguments: &[required("target", LogTarget, LOG_TARGET)],
        properties: &LOG_PROPERTIES,
        doc: "This frontend's access lines, instead of the platform's `access-log`. The target `platform` is where the \
              platform's go: for a format of its own.",
        example: "access-log platform format=\"%ci [%tr] %ft %ST %Ta %{+Q}r\"",
        effect: Effect::Tests(&[
            "a_frontend_has_an_access_log_of_its_own",
            "a_frontend_logs_elsewhere_or_not_at_all",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "capture",
        form: Some("request-header"),
        inside: &[Section::Frontend],
        arguments: &[required("name", HeaderName, "the header; its last occurrence counts")],
        properties: &[default("len", Integer(1, 4096), "128", "bytes of its value that are kept")],
        times: Times::Many,
        doc: "Shows a header of the request in the access log: `%hr`, between braces, in the order of the file. At most 16. HTTP \
              only.",
        example: "capture request-header User-Agent len=64",
        effect: Effect::Tests(&["captured_headers_stand_in_braces_as_haproxy_s_do"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "capture",
        form: Some("response-header"),
        inside: &[Section::Frontend],
        arguments: &[required("name", HeaderName, "the header; its last occurrence counts")],
        properties: &[default("len", Integer(1, 4096), "128", "bytes of its value that are kept")],
        times: Times::Many,
        doc: "Shows a header of the server's response in the access log: `%hs`, between braces, in the order of the file. At \
              most 16. HTTP only.",
        example: "capture response-header Content-Type len=32",
        effect: Effect::Tests(&["captured_headers_stand_in_braces_as_haproxy_s_do"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "forwarded-for",
        inside: &[Section::Frontend],
        properties: &[
            optional(
                "except",
                Networks,
                "set for every client",
                "clients it is not set for, which send it themselves",
            ),
            default(
                "sent",
                Word(&["append", "replace"]),
                "append",
                "what becomes of an `X-Forwarded-For` that came: a line of ours after it, as in HAProxy, or instead of it",
            ),
            default(
                "port",
                Word(&["off", "on"]),
                "off",
                "`X-Forwarded-Port`: the port that the client connected to",
            ),
        ],
        doc: "Tells servers the client's address in `X-Forwarded-For`, what it spoke in `X-Forwarded-Proto`, and the host it asked \
              for in `X-Forwarded-Host`; what clients send under the latter names is taken out. With `sent=append`, only the \
              last `X-Forwarded-For` is to be believed. HTTP only.",
        example: "forwarded-for except=\"127.0.0.0/8\"",
        effect: Effect::Tests(&[
            "hop_fields_go_and_via_and_x_forwarded_come",
            "an_excepted_network_keeps_the_forwarding_fields_that_it_sent",
            "x_forwarded_for_is_replaced_where_the_file_says_so",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "timeout",
        inside: &[Section::Frontend],
        properties: &[
            default(
                "request",
                Duration(1, DAY),
                "10s",
                "from the first byte of a request to the end of its head; answer: 408",
            ),
            default(
                "client",
                Duration(1, DAY),
                "1m",
                "longest silence while the client owes bytes or takes them",
            ),
            default(
                "keep-alive",
                Duration(1, DAY),
                "10s",
                "longest wait for the next request; end: a silent close",
            ),
            optional(
                "client-fin",
                Duration(1, DAY),
                "the backend's `tunnel`",
                "longest silence of a tunnel's client once the server has ended its half",
            ),
        ],
        doc: "Time-outs towards the client.",
        example: "timeout request=\"10s\" client=\"1m\" keep-alive=\"10s\"",
        effect: Effect::Tests(&[
            "a_head_that_does_not_come_to_its_end_is_answered_with_408",
            "a_client_that_takes_nothing_is_let_go",
            "an_idle_connection_ends_silently_after_the_keep_alive_time",
            "a_half_closed_tunnel_waits_no_longer_than_its_fin_time_outs",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "http2",
        inside: &[Section::Frontend],
        properties: &[
            default(
                "max-concurrent-streams",
                Integer(1, 1000),
                "100",
                "requests at a time on one connection; more are refused, and clients try them again",
            ),
            default(
                "initial-window",
                Size(16 * KIB, 16 * MIB),
                "64KiB",
                "of a request's body: what a client may send before the server has taken it",
            ),
        ],
        doc: "How HTTP/2 is spoken to clients: over TLS where `alpn` has `h2`, without TLS to those that begin with it (prior knowledge). \
              A connection that asks for work without end (cancelled streams, PING, SETTINGS, header blocks) is ended.",
        example: "http2 max-concurrent-streams=100 initial-window=\"64KiB\"",
        effect: Effect::Tests(&[
            "no_more_streams_are_open_at_a_time_than_the_frontend_allows",
            "a_client_sends_no_more_of_a_body_than_the_server_takes",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "redirect",
        inside: &[Section::Frontend],
        properties: &[
            required("scheme", Word(&["http", "https"]), "where to"),
            default("code", Word(&["301", "302", "303", "307", "308"]), "302", "status of the answer"),
        ],
        doc: "Answers every request with a redirect to the same host and path under another scheme. HTTP only.",
        example: "redirect scheme=https code=301",
        effect: Effect::Tests(&["a_redirect_frontend_answers_by_itself"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "default-backend",
        inside: &[Section::Frontend],
        arguments: &[required("backend", Reference(Kind::Backend), "who answers")],
        doc: "Who answers what no rule sends elsewhere.",
        example: "default-backend app",
        effect: Effect::Tests(&["a_request_is_forwarded_and_both_connections_are_kept"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "cache",
        inside: &[Section::Frontend],
        arguments: &[required("cache", Reference(Kind::Cache), "which cache")],
        doc: "Answers come from this cache where they may. HTTP only.",
        example: "cache pages",
        effect: Effect::Later("answer from the cache"),
        ..Directive::EMPTY
    },
    Directive {
        name: "cache",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Cache), "what frontends call it")],
        block: Some(Section::Cache),
        times: Times::Many,
        doc: "A cache that frontends answer from, one on each of their nodes.",
        example: "cache pages { size \"256MiB\"; grace \"1h\"; }",
        effect: Effect::Later("keep answers in memory"),
        ..Directive::EMPTY
    },
    Directive {
        name: "size",
        inside: &[Section::Cache],
        arguments: &[required("size", Size(MIB, TIB), "memory, all told")],
        times: Times::Required,
        doc: "Memory that the cache never exceeds, on each node.",
        example: "size \"256MiB\"",
        effect: Effect::Later("bound the cache"),
        ..Directive::EMPTY
    },
    Directive {
        name: "grace",
        inside: &[Section::Cache],
        arguments: &[default("time", Duration(0, 30 * DAY), "10s", "time after an answer went stale")],
        doc: "How long a stale answer may still be given while a fresh one is fetched, or no server can be reached.",
        example: "grace \"1h\"",
        effect: Effect::Later("answer with what is stale"),
        ..Directive::EMPTY
    },
];
