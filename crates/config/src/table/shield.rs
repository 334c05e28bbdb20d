//! `shield`: who is let in when more come than can be served.

use super::Type::{Duration, File, Integer, Networks, PathPattern, Word};
use super::{Directive, Effect, HOUR, MINUTE, SECOND, Section, Times, default, many, optional};

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "shield",
        inside: &[Section::Frontend],
        properties: &[
            default(
                "queue",
                Integer(1, 1_000_000),
                "100",
                "requests that wait for a server: too many from here on",
            ),
            default(
                "saturation",
                Integer(1, 100),
                "95",
                "percent of what the servers with `max-connections` may have: too many from here on",
            ),
            default(
                "cpu",
                Integer(1, 100),
                "95",
                "percent of the workers' processor time: too much from here on",
            ),
            optional(
                "admit",
                Integer(1, 100_000),
                "as many as the load allows",
                "newcomers that are let in a second while there is a waiting room",
            ),
            default(
                "refresh",
                Duration(SECOND, 5 * MINUTE),
                "10s",
                "how often those who wait come back; who is away for three times that loses its turn, not its place",
            ),
            default(
                "session",
                Duration(MINUTE, 24 * HOUR),
                "30m",
                "how long who was let in stays in, from its last request on",
            ),
            optional(
                "page",
                File,
                "one in French and English, as the browser prefers",
                "HTML of the waiting room, up to 1 MiB, with %{place}, %{wait} and %{refresh}; read when the plan is put in force",
            ),
            default(
                "when",
                Word(&["overload", "always"]),
                "overload",
                "`always`: there is a waiting room whatever the load",
            ),
        ],
        block: Some(Section::Shield),
        doc: "Under too much load the frontend keeps those who are in and has newcomers wait outside: of the backends that it names, more than `queue` requests wait or `saturation` is reached, or the workers have no time. Browsers get a page with their place and the expected wait, which loads itself again (503, `Retry-After`, never cached); programs, and all that is not GET, a plain 503 with `Retry-After`. They are let in in the order of their arrival, `admit` a second, or as many as the load allows: fewer while there is too much, more while there is room. Who is in has a signed cookie, `relais-shield`, which the first page sets, in quiet times too; who waits has one with its place, which is good once. With `secret cluster-key` in `platform` both balancers know each other's cookies, so a failover loses no session and no place; without it each process knows its own only, until it ends. The waiting room closes when the load has been low and nobody has waited for 10 s. HTTP only.",
        example: "shield queue=100 admit=50 { except path \"/healthz\"; }",
        effect: Effect::Tests(&[
            "under_overload_newcomers_wait_and_those_inside_go_on",
            "the_waiting_room_is_a_page_for_browsers_and_a_503_for_programs",
            "those_who_wait_come_in_by_their_order_and_a_place_is_good_once",
            "a_forged_or_changed_ticket_is_a_newcomers",
            "both_balancers_know_each_others_tickets_by_the_cluster_key",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "except",
        form: Some("path"),
        inside: &[Section::Shield],
        arguments: &[many(
            "path",
            PathPattern,
            "`*` is within a segment, `**` also several and none, `?` one character",
        )],
        times: Times::Many,
        doc: "Requests with one of these paths never wait, such as those of health checks and of pictures.",
        example: "except path \"/healthz\" \"/static/**\"",
        effect: Effect::Tests(&["what_is_excepted_never_waits"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "except",
        form: Some("src"),
        inside: &[Section::Shield],
        arguments: &[many("network", Networks, "networks in CIDR notation")],
        times: Times::Many,
        doc: "Clients of these networks never wait.",
        example: "except src \"192.168.112.0/24\"",
        effect: Effect::Tests(&["what_is_excepted_never_waits"]),
        ..Directive::EMPTY
    },
];
