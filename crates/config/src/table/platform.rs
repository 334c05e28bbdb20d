//! `platform` and `node`: what the whole is called, and its machines.

use super::Type::{Duration, Integer, Ip, Listen, LogFormat, LogTarget, Name, Text, Word};
use super::{DAY, Directive, Effect, Field, Kind, Section, Times, Type, default, optional, required};

pub(super) const LOG_TARGET: &str = "`off`, `stdout`, a file that is appended to, or a syslog server: `udp@`, `tcp@`, `unix@`; in a frontend also `platform`";

pub(super) const FACILITIES: &[&str] = &[
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6",
    "local7",
];

/// What `access-log` takes beside its target, in every section.
pub(super) const LOG_PROPERTIES: [Field; 6] = [
    optional(
        "format",
        LogFormat,
        "`httplog` for `mode http`, `tcplog` for `mode tcp`",
        "`httplog`, `tcplog`, `json`, `clf`, `combined`, or a text with `%` names",
    ),
    default("facility", Word(FACILITIES), "local0", "syslog facility; the severity is `info`"),
    default(
        "protocol",
        Word(&["rfc5424", "rfc3164", "local"]),
        "rfc5424",
        "syslog header; `local` is RFC 3164 without host name, which the journal and older daemons read on `/dev/log`",
    ),
    default("tag", Text, "relais", "syslog APP-NAME, at most 48 characters without blanks"),
    optional("hostname", Text, "the machine's own", "syslog HOSTNAME"),
    default(
        "length",
        Integer(80, 65_000),
        "8192",
        "longest syslog message in bytes; what is more is cut off",
    ),
];

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "platform",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Platform), "what logs and the dashboard call it")],
        block: Some(Section::Platform),
        times: Times::Required,
        doc: "The platform as a whole: its name, and what holds on every node.",
        example: "platform progres { admin \"127.0.0.1:8404\"; }",
        effect: Effect::Tests(&["the_status_document_has_what_every_process_says"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "secret",
        inside: &[Section::Platform],
        arguments: &[required("name", Name(Kind::Secret), "what other directives call it")],
        properties: &[
            optional("file", Type::File, "not read from a file", "file that holds it, readable by root only"),
            optional("credential", Text, "no systemd credential", "systemd credential that holds it"),
            optional("environment", Text, "not in the environment", "environment variable that holds it"),
        ],
        times: Times::Many,
        doc: "A secret, named here and kept elsewhere: exactly one of `file`, `credential` and `environment` says where. \
              Secrets themselves never stand in this file. The one called `cluster-key` is what nodes know each other by: heartbeats, \
              session tickets and waiting rooms are sealed with it; it is the same on every node, at least 16 bytes, and kept in a \
              file.",
        example: "secret cluster-key file=\"/etc/relais/cluster.key\"",
        effect: Effect::Tests(&[
            "tickets_are_made_of_the_clusters_key_where_there_is_one",
            "both_balancers_know_each_others_tickets_by_the_cluster_key",
            "secrets_come_from_where_the_file_says",
            "a_cut_link_between_two_nodes_makes_no_second_master_where_a_third_hears_both",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "peers",
        inside: &[Section::Platform],
        properties: &[default(
            "port",
            Integer(1024, 65_535),
            "10000",
            "TCP port, on the first link of each node",
        )],
        doc: "Balancers tell each other which server each client stays with (`stick`, `persist learn=`), so that a client keeps its \
              server when the other balancer takes over: every change within a tenth of a second, everything when they meet. Peers are \
              the nodes that run a frontend together. They speak HAProxy's peers protocol 2.1 and know each other by `secret \
              cluster-key`, which is needed; what they say is not encrypted: let it run over a network of their own. Balancers that were apart agree by \
              who came later. What rules count (`match rate`) nodes count together, if their rules say the same; a node that comes back is told \
              what the others have counted. A peer that is not there costs nothing and is tried again, at most every 5 s; one that sends what \
              it should not is cut off. A new process has the table from its peers.",
        example: "peers port=10000",
        effect: Effect::Tests(&[
            "clients_stay_with_their_servers_when_their_balancer_dies",
            "a_balancer_that_comes_back_learns_the_whole_table_and_both_agree_on_the_later_word",
            "who_does_not_know_the_key_or_sends_nonsense_is_cut_off",
            "balancers_count_together_and_one_that_comes_back_knows_what_the_other_does",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "peer",
        inside: &[Section::Platform],
        arguments: &[
            required("name", Text, "what it calls itself: its host name, or what `-L` says"),
            required("address", Ip, "where it connects from"),
        ],
        times: Times::Many,
        doc: "A HAProxy that shares tables with these balancers, while one replaces the other. In its `peers` section stands each node by \
              its name, with its first link and the port of `peers`; it connects to them. Its backend has the name of \
              the one here, its servers have the names of those here, and its `stick-table` has `type ip` or `type ipv6` for `stick src`, \
              `type string len 128` for another key or `persist learn=`; keys of several parts are not shared with it. The protocol has no \
              authentication: whoever has this address, and can say this name, can send clients to servers of its choice; take the line out when \
              the HAProxy is gone.",
        example: "peer haproxy-old \"192.168.112.180\"",
        effect: Effect::Tests(&["a_haproxy_and_a_relais_share_a_table_both_ways"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "max-connections",
        inside: &[Section::Platform],
        arguments: &[required("number", Integer(1, 10_000_000), "connections")],
        doc: "Client connections open at a time on one node, all frontends together. More wait in the kernel's queue. Without it, \
              and at most, as many as the limit of open files allows at two descriptors each; where that is less than the \
              frontends may have, a warning says so.",
        example: "max-connections 100000",
        effect: Effect::Tests(&[
            "a_full_process_leaves_connections_in_the_kernels_queue",
            "a_low_limit_of_open_files_is_said_and_kept",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "admin",
        inside: &[Section::Platform],
        arguments: &[default("address", Listen, "127.0.0.1:8404", "where it listens")],
        doc: "Where each node's dashboard, API and `/metrics` listen. Nothing protects them but this address.",
        example: "admin \"127.0.0.1:8404\"",
        effect: Effect::Tests(&["it_serves_where_the_latest_plan_says"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "access-log",
        inside: &[Section::Platform],
        arguments: &[default("target", LogTarget, "stdout", LOG_TARGET)],
        properties: &LOG_PROPERTIES,
        doc: "Where one line a request or connection goes, and what it says. `stdout` is kept by systemd's journal; a file is \
              reopened on reload and on SIGUSR1, so that it can be rotated; `udp@ADDRESS:PORT`, `tcp@ADDRESS:PORT` and \
              `unix@PATH` are syslog servers. A format of one's own is a text with HAProxy's names: `%B` `%H` `%HM` `%HP` \
              `%HQ` `%HU` `%HV` `%ID` `%ST` `%T` `%TR` `%Ta` `%Tc` `%Td` `%Th` `%Ti` `%Tl` `%Tq` `%Tr` `%Ts` `%Tt` `%Tu` \
              `%Tw` `%U` `%ac` `%b` `%bc` `%bq` `%ci` `%cp` `%f` `%fc` `%fi` `%fp` `%ft` `%hr` `%hrl` `%hs` `%hsl` `%ms` \
              `%pid` `%r` `%rc` `%s` `%sc` `%si` `%sp` `%sq` `%t` `%tr` `%trg` `%trl` `%ts` `%tsc`, `%[traceparent]`, `%%`; \
              `%{+Q}r` is `%r` in quotation marks. No worker waits for a log: what a slow reader cannot take is dropped, \
              counted and said.",
        example: "access-log \"udp@192.168.112.190:514\" format=json facility=local0",
        effect: Effect::Tests(&[
            "an_access_line_has_the_fields_of_httplog",
            "access_lines_go_where_the_file_says",
            "a_syslog_server_gets_each_line_as_a_datagram",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "user",
        inside: &[Section::Platform],
        arguments: &[default("name", Text, "relais", "user of this machine")],
        doc: "The user that processes without privileges run as, when Relais is started by root. Where it does not exist, \
              they run as `nobody`.",
        example: "user relais",
        effect: Effect::Tests(&["a_user_is_found_by_its_whole_name"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "drain",
        inside: &[Section::Platform],
        arguments: &[default("time", Duration(0, DAY), "30s", "longest wait")],
        doc: "How long a stopping node waits for open requests before it ends them.",
        example: "drain \"30s\"",
        effect: Effect::Tests(&["a_drain_cuts_at_its_limit_and_says_how_many"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "hard-stop-after",
        inside: &[Section::Platform],
        arguments: &[default(
            "time",
            Duration(1000, 30 * DAY),
            "12h",
            "longest life of a replaced generation",
        )],
        doc: "After a binary upgrade: how long the old processes may keep the connections that are still open, such as \
              WebSockets, before they end them.",
        example: "hard-stop-after \"1h\"",
        effect: Effect::Tests(&["a_replaced_generation_ends_what_is_open_at_its_hard_stop"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "node",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Node), "what `--node` and other directives call it")],
        block: Some(Section::Node),
        times: Times::OneOrMore,
        doc: "A machine of the platform. The same file stands on every node; `relais run FILE --node NAME` gives each its part.",
        example: "node haproxy1 { link \"192.168.112.176\"; link \"10.10.0.1\"; }",
        effect: Effect::Tests(&["nodes_have_their_links_in_order", "the_node_is_as_the_supervisor_says"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "link",
        inside: &[Section::Node],
        arguments: &[required("address", Ip, "the node's own address on that network")],
        times: Times::OneOrMore,
        doc: "An address of the node. Each link is one heartbeat channel; the first is the one its servers are reached by.",
        example: "link \"192.168.112.176\"",
        effect: Effect::Tests(&["nodes_have_their_links_in_order", "a_tier_is_expanded_to_its_instances"]),
        ..Directive::EMPTY
    },
];
