//! `balance`: who gets the next request. One row an algorithm; the terms are HAProxy's and IPVS's.

use super::Type::{Duration, HeaderName, Integer, Text, Word};
use super::{DAY, Directive, Effect, Field, SECOND, Section, default, optional, required};

const KEY: Field = default(
    "key",
    Word(&["source", "destination", "uri", "header"]),
    "source",
    "what requests have in common that belong together: the client's address, the address it came to, the path, \
     or a header",
);
const NAME: Field = optional("name", HeaderName, "no header", "the header of `key=header`");

const fn row(form: &'static str, example: &'static str, doc: &'static str) -> Directive {
    Directive {
        name: "balance",
        form: Some(form),
        inside: &[Section::Backend],
        doc,
        example,
        effect: Effect::Tests(&["every_algorithm_serves_requests"]),
        ..Directive::EMPTY
    }
}

pub(super) const ROWS: &[Directive] = &[
    Directive {
        properties: &[default(
            "order",
            Word(&["smooth", "ipvs"]),
            "smooth",
            "of weights 4, 2, 1: `smooth`: a b a a b a c; `ipvs`: a a a b a b c, as IPVS's `wrr` does",
        )],
        effect: Effect::Tests(&["weights_share_requests_out", "heavy_servers_come_first_where_it_is_said"]),
        ..row(
            "roundrobin",
            "balance roundrobin",
            "Each server in turn, by weight, evenly spread. The default.",
        )
    },
    row(
        "static-rr",
        "balance static-rr",
        "Each in turn by weights that never change while it runs: no `slowstart`, no limit to the number of servers.",
    ),
    Directive {
        properties: &[default(
            "count",
            Word(&["active", "ipvs"]),
            "active",
            "what a server's connections are: `active`: requests (`mode tcp`: connections) under way; `ipvs`: 256 times \
             those, and connections that are kept open for later",
        )],
        effect: Effect::Tests(&[
            "the_least_connections_are_those_of_all_workers",
            "least_connections_hold_for_tcp",
        ]),
        ..row(
            "leastconn",
            "balance leastconn",
            "Who has the fewest connections for its weight; of equals, who has been idle longest. For requests or connections \
             of very different length.",
        )
    },
    row(
        "sed",
        "balance sed",
        "Shortest expected delay: the least connections and one more, for its weight; of equals the first. Unlike \
         `leastconn` it minds weights where nobody has anything to do.",
    ),
    row(
        "nq",
        "balance nq",
        "Never queue: the first server that has nothing to do; if there is none, as `sed`.",
    ),
    Directive {
        effect: Effect::Tests(&["first_fills_one_server_after_the_other"]),
        ..row(
            "first",
            "balance first",
            "The first server in the file until it has `max-connections`, then the next: as few as suffice have work.",
        )
    },
    Directive {
        properties: &[default("draws", Integer(1, 16), "2", "servers that are drawn and compared")],
        ..row(
            "random",
            "balance random draws=2",
            "Draws servers by weight, and takes the one of the least connections for its weight.",
        )
    },
    row(
        "least-time",
        "balance least-time",
        "The least product of the mean time until its answers begin (`mode tcp`: until it is connected) and its \
         connections and one more, for its weight. A mean halves in 10 s without answers, so who was slow once is \
         tried again.",
    ),
    Directive {
        effect: Effect::Tests(&["clients_stay_with_their_server_by_address"]),
        ..row("source", "balance source", "A client's address decides. `hash` says how.")
    },
    row("destination", "balance destination", "The address that the client came to decides."),
    Directive {
        properties: &[
            default(
                "part",
                Word(&["left", "whole"]),
                "left",
                "`left`: up to the `?`; `whole`: the query too",
            ),
            optional("len", Integer(1, 65_535), "all", "only so many bytes count"),
            optional("depth", Integer(1, 255), "all", "only so many directories count"),
        ],
        effect: Effect::Tests(&["requests_of_one_key_go_to_one_server"]),
        ..row(
            "uri",
            "balance uri depth=2",
            "The path decides, as the client wrote it: HAProxy's `path-only`, the same for HTTP/1.1 and HTTP/2. For servers with caches.",
        )
    },
    Directive {
        properties: &[required("name", HeaderName, "the header's name")],
        effect: Effect::Tests(&["requests_of_one_key_go_to_one_server"]),
        ..row(
            "header",
            "balance header name=\"X-Tenant\"",
            "A header's value decides (HAProxy's `hdr`); the last, if there are several. Without it, each in turn.",
        )
    },
    Directive {
        properties: &[required("name", Text, "the parameter's name")],
        effect: Effect::Tests(&["requests_of_one_key_go_to_one_server"]),
        ..row(
            "query",
            "balance query name=\"user\"",
            "A parameter of the query decides (HAProxy's `url_param`). Without it, each in turn.",
        )
    },
    Directive {
        properties: &[required("name", Text, "the cookie's name")],
        effect: Effect::Tests(&["requests_of_one_key_go_to_one_server"]),
        ..row(
            "cookie",
            "balance cookie name=\"session\"",
            "The value of a cookie of the application's decides. Without it, each in turn.",
        )
    },
    Directive {
        properties: &[KEY, NAME],
        ..row(
            "lblc",
            "balance lblc key=uri",
            "Locality-based least connection: a key gets the server with the least connections and stays there, until that one \
             has more connections than its weight while another has less than half of its own.",
        )
    },
    Directive {
        properties: &[
            KEY,
            NAME,
            default(
                "shrink",
                Duration(SECOND, 30 * DAY),
                "24h",
                "a key's servers that did not change for so long become one less",
            ),
        ],
        ..row(
            "lblcr",
            "balance lblcr key=uri",
            "As `lblc`, but a key whose server has too much gets one more instead of another: up to 8.",
        )
    },
    Directive {
        name: "hash",
        inside: &[Section::Backend],
        properties: &[
            default(
                "type",
                Word(&["consistent", "map", "maglev"]),
                "consistent",
                "`consistent`: points on a circle; `map`: the most even, but a server more or less in the file moves most keys; \
                 `maglev`: as even, and few keys move",
            ),
            optional(
                "balance-factor",
                Integer(101, 1000),
                "no bound",
                "a server has at most so many percent of an even share of the requests under way; the next takes the rest. \
                 125 to 200 are useful",
            ),
        ],
        doc: "How a key finds its server, for `balance source`, `destination`, `uri`, `header`, `query` and `cookie`. Every balancer \
              places alike. A key whose server is down or full goes elsewhere, and comes back.",
        example: "hash type=maglev balance-factor=150",
        effect: Effect::Tests(&[
            "requests_of_one_key_go_to_one_server",
            "a_popular_key_is_spread_by_its_balance_factor",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "allbackups",
        inside: &[Section::Backend],
        doc: "Where no other server is up, all those with `backup=yes` serve, not the first one alone.",
        example: "allbackups",
        effect: Effect::Tests(&["backups_serve_when_nobody_else_is_up"]),
        ..Directive::EMPTY
    },
];
