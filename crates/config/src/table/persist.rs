//! `persist` and `stick`: how clients stay with their servers.

use super::Type::{Duration, Integer, Reference, Text, Word};
use super::condition::{KEY_NAME, KEYS, PREFIX};
use super::{DAY, Directive, Effect, Field, Kind, Section, default, optional, required};

const MOST: u64 = 16 << 20;
const SIZE: Field = default("size", Integer(1, MOST), "20480", "keys remembered at a time");
const EXPIRE: Field = default(
    "expire",
    Duration(1_000, 30 * DAY),
    "30m",
    "how long a key is remembered after its last request",
);
const SIZE_OF_LEARNED: Field =
    optional("size", Integer(1, MOST), "20480", "of `learn`: session ids remembered at a time");
const EXPIRE_OF_LEARNED: Field = optional(
    "expire",
    Duration(1_000, 30 * DAY),
    "30m",
    "of `learn`: how long an id is remembered after its last request",
);
const YES_NO: &[&str] = &["yes", "no"];

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "persist",
        inside: &[Section::Backend],
        properties: &[
            optional("cookie", Text, "by the application's", "name of the cookie that says the server"),
            optional(
                "route",
                Text,
                "by a cookie of our own",
                "name of the application's session cookie, for Tomcat's `jvmRoute`",
            ),
            optional(
                "learn",
                Text,
                "by a cookie of our own",
                "name of the application's session cookie, of which a table remembers who gave it",
            ),
            SIZE_OF_LEARNED,
            EXPIRE_OF_LEARNED,
            default(
                "mode",
                Word(&["insert", "prefix", "rewrite"]),
                "insert",
                "who sets the cookie: Relais; or the application, and the server is written before its value, up to a `~`; or the \
                 application, and its value is replaced by the server",
            ),
            default("indirect", Word(YES_NO), "yes", "no server sees the cookie"),
            default("nocache", Word(YES_NO), "yes", "an answer that sets it says `Cache-Control: private`"),
            default("preserve", Word(YES_NO), "no", "a server that sets it itself has its way"),
            default("postonly", Word(YES_NO), "no", "only answers to POST set it"),
            optional("maxidle", Duration(1_000, 365 * DAY), "any time", "longest time between two requests"),
            optional(
                "maxlife",
                Duration(1_000, 365 * DAY),
                "any time",
                "longest time since the first request",
            ),
            optional("domain", Text, "the host that was asked", "the cookie's `Domain`"),
            default("path", Text, "/", "the cookie's `Path`"),
            default("same-site", Word(&["lax", "strict", "none", "off"]), "lax", "the cookie's `SameSite`"),
            default(
                "secure",
                Word(&["auto", "yes", "no"]),
                "auto",
                "its `Secure`; `auto`: if it is set over TLS",
            ),
            default("httponly", Word(YES_NO), "yes", "its `HttpOnly`: scripts do not see it"),
            optional("attributes", Text, "none", "more attributes, as they are to be sent: `Partitioned`"),
            optional(
                "secret",
                Reference(Kind::Secret),
                "cookies say the server's name",
                "cookies say a hash of the server's name with this secret, which nobody else can make or read",
            ),
        ],
        doc: "A client stays with its server. With `cookie`, by a cookie that Relais sets in the first answer; it says the server, \
              and no server sees it. It goes to the server that the client asked for as long as that is up; one of weight \
              0 keeps the clients it has; where it is full, its client waits for it. Where the server is down, or the cookie names none \
              or is too old, the balance decides and the cookie is set anew. With `maxidle` or `maxlife` it says when its client came \
              last and first. What a server sets under its name is taken out. All is as with HAProxy's `cookie NAME insert indirect nocache \
              httponly`, the dates too, so that either understands the other's cookies. With `route`, by what the application's own \
              session id ends in: `JSESSIONID=1A2B.tomcat1`, or `;jsessionid=1A2B.tomcat1` in the path, goes to server \
              `tomcat1`, which has `jvmRoute=\"tomcat1\"`. With `learn`, by any session id: \
              `PHPSESSID=...` goes to the server that gave it, which a table remembers as `stick` does, also from `;phpsessid=` in the path; an id that no \
              table knows goes by the balance, and stays where it was answered. Logs have HAProxy's letters (`VN`, `NI`, `DI`). HTTP only.",
        example: "persist cookie=SRV maxidle=\"30m\" maxlife=\"8h\"",
        effect: Effect::Tests(&[
            "a_client_stays_with_its_server_by_a_cookie_that_no_server_sees",
            "a_session_s_route_leads_to_its_server",
            "who_is_stuck_to_a_drained_server_stays_and_to_a_dead_one_moves",
            "cookies_are_what_haproxy_makes_of_them",
            "a_cookie_that_is_too_old_counts_no_more_and_one_that_is_used_lives_on",
            "a_session_stays_with_the_server_that_gave_its_cookie",
            "a_cookie_made_with_a_secret_says_no_name_and_both_balancers_read_it",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "stick",
        inside: &[Section::Backend],
        arguments: &[required(
            "key",
            KEYS,
            "what a client is known by; several joined by `+`: each combination",
        )],
        properties: &[
            KEY_NAME,
            SIZE,
            EXPIRE,
            PREFIX,
            optional(
                "prefix6",
                Integer(0, 128),
                "128: each address",
                "with `src`: IPv6 networks of this length are one key",
            ),
            optional(
                "depth",
                Integer(1, 32),
                "the whole path",
                "of `path`: only so many directories from its beginning",
            ),
        ],
        doc: "A client stays with its server by a table that Relais keeps: whoever comes with a key that it knows goes to \
              the server of the key's last answer (in `mode tcp`: connection) as long as that is up; one of weight 0 keeps the clients it has, \
              where it is full its client waits for it. Where the server is down, or the key is new, the balance decides, and the table \
              learns who answered. Whoever comes without such a key has no place in it. An IPv4 client is the same behind IPv6 \
              listeners. Keys of more than 128 bytes are known by their SHA-256. All threads have one table, and reloads keep it if the \
              key stays the same; so do a death of the process and a binary upgrade, but for the last 50 ms. Where it is full, who came longest ago is forgotten; an entry takes about 100 bytes and its key, and in the file that outlives the process 40 bytes for an address, 152 for other keys. The other balancer has it, too, with `peers`. All clients behind one NAT \
              address have one server with `src`: where there are cookies, `persist` spreads them better. `relais status` and \
              `/metrics` have its figures. In `mode tcp`: `src` and `sni`.",
        example: "stick src size=20480 expire=\"30m\"",
        effect: Effect::Tests(&[
            "whoever_has_a_key_stays_with_the_server_that_answered_it",
            "keys_of_all_kinds_stick",
            "a_table_outlives_reloads_and_changes_of_the_servers_order",
            "the_next_process_reads_what_the_last_one_wrote",
            "a_stick_table_outlives_a_killed_proxy_and_an_upgrade",
            "a_full_table_forgets_who_came_longest_ago_and_old_keys_expire",
            "a_connection_sticks_by_its_address_and_by_the_name_in_its_handshake",
        ]),
        ..Directive::EMPTY
    },
];
