//! `vip`: addresses that move from machine to machine.

use super::Type::{Address, Duration, File, Integer, Interface, Name, Reference, Signed, Text, Word};
use super::{Directive, Effect, Kind, Section, Times, default, optional, required};

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "vip",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Vip), "what logs and commands call it")],
        block: Some(Section::Vip),
        times: Times::Many,
        doc: "A virtual address, or several that move together: users know it, and one node at a time holds it, elected by \
              VRRP (RFC 9568, or RFC 3768 with `version 2`). keepalived understands it on the wire.",
        example: "vip public { address \"192.168.112.180/24\" interface=eth0; router-id 51; node haproxy1 priority=101; }",
        effect: Effect::Tests(&["a_killed_process_loses_the_address_to_the_peer_and_then_to_the_kernel"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "address",
        inside: &[Section::Vip],
        arguments: &[required("address", Address, "the address and the length of its network prefix")],
        properties: &[required("interface", Interface, "interface that carries it on every node")],
        times: Times::OneOrMore,
        doc: "The virtual address. It is no node's own: Relais adds it where it is held and takes it away elsewhere. Up to \
              64 of one family may stand in a vip; they move together. With IPv6 a link-local one comes first, if there \
              is one (RFC 9568 §5.2.9), and no address brings a route: its network is to be on the interface already.",
        example: "address \"192.168.112.180/24\" interface=eth0",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "a_killed_process_loses_the_address_to_the_peer_and_then_to_the_kernel",
            "keepalived_and_relais_follow_each_other_in_every_way_that_both_speak",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "router-id",
        inside: &[Section::Vip],
        arguments: &[required("id", Integer(1, 255), "VRID")],
        times: Times::Required,
        doc: "The virtual router's identifier (VRID). No other virtual address on that network may have it, keepalived's included.",
        example: "router-id 51",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "keepalived_of_higher_priority_is_followed_and_its_farewell_understood",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "node",
        inside: &[Section::Vip],
        arguments: &[required("name", Reference(Kind::Node), "node that may hold it")],
        properties: &[required(
            "priority",
            Integer(1, 255),
            "the highest that is well holds it; no two may be equal",
        )],
        times: Times::OneOrMore,
        doc: "A node that may hold the address, and its priority there.",
        example: "node haproxy1 priority=101",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "of_two_masters_the_higher_priority_and_then_the_higher_address_stays",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "version",
        inside: &[Section::Vip],
        arguments: &[default("version", Integer(2, 3), "3", "2 is for IPv4 alone")],
        doc: "Version of VRRP: 3 (RFC 9568), or 2 (RFC 3768), which is what keepalived speaks unless it is told otherwise. \
              The other version's packets are refused, and the log says so.",
        example: "version 2",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "keepalived_and_relais_follow_each_other_in_every_way_that_both_speak",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "password",
        inside: &[Section::Vip],
        arguments: &[required("file", File, "its first line is the password; eight characters count")],
        properties: &[default(
            "method",
            Word(&["pass", "ah"]),
            "pass",
            "`pass`: it stands in the packet; `ah`: an authentication header is made with it",
        )],
        doc: "The password of version 2. By itself (keepalived: `auth_type PASS`) it stands in every packet for all to read: it keeps \
              apart what is not meant to meet, and keeps nobody out. With `method=ah` (keepalived: `auth_type AH`) each packet \
              has a number and a digest (HMAC-MD5, RFC 2403), so that none can be forged without the password or be said \
              twice; it is obsolete and for installations that have it. What keeps strangers from taking part in Relais's own \
              decisions is the platform's `cluster-key`. The file is read with each plan.",
        example: "password \"/etc/relais/vrrp.password\" method=ah",
        effect: Effect::Tests(&[
            "keepalived_and_relais_follow_each_other_in_every_way_that_both_speak",
            "what_is_sealed_is_heard_once_and_by_those_with_the_key",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "checksum",
        inside: &[Section::Vip],
        arguments: &[default(
            "over",
            Word(&["pseudo-header", "message"]),
            "pseudo-header",
            "`pseudo-header`: as keepalived does; `message`: the message alone, as RFC 9568 has it",
        )],
        doc: "What the checksum of version 3 over IPv4 covers when sending. Both are understood. RFC 5798 could be read in two \
              ways; routers of other makers may accept `message` alone (keepalived: `v3_checksum_as_v2`).",
        example: "checksum message",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "version_3_over_ipv4_is_read_with_each_checksum_that_is_about",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "unicast",
        inside: &[Section::Vip],
        properties: &[default(
            "least-ttl",
            Integer(1, 255),
            "255",
            "packets with less are refused; 255 is what a neighbour's have",
        )],
        doc: "Advertisements go to the other nodes of the vip instead of to the multicast group, for networks that have none \
              (keepalived: `unicast_peer`). Each is sent to the node's first link in the network of the vip's address, else \
              to its first of that family; only the nodes of the vip are heard.",
        example: "unicast least-ttl=254",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "keepalived_and_relais_follow_each_other_in_every_way_that_both_speak",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "advertise",
        inside: &[Section::Vip],
        arguments: &[default(
            "interval",
            Duration(10, 255_000),
            "1s",
            "in whole hundredths of a second up to 40.95 s; with `version 2` in whole seconds",
        )],
        doc: "How often the holder says that it lives. The others take over after three intervals and a bit (RFC 9568 §6.1), \
              so it is what a machine's death costs; the same on every node.",
        example: "advertise \"50ms\"",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "the_intervals_are_those_of_the_rfc",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "preempt",
        inside: &[Section::Vip],
        arguments: &[default(
            "when",
            Word(&["always", "never"]),
            "always",
            "`always`: as soon as it is ready; `never`: not while the holder lives",
        )],
        properties: &[default(
            "delay",
            Duration(0, 3_600_000),
            "0s",
            "how long a node that has come (back) lets a holder of lower priority be",
        )],
        doc: "Whether a returning node of higher priority takes the address back.",
        example: "preempt never",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "a_lower_master_is_displaced_only_with_preemption",
            "a_node_that_comes_back_waits_before_it_preempts",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "virtual-mac",
        inside: &[Section::Vip],
        doc: "The addresses have a hardware address of their own, which moves with them: 00:00:5e:00:01:VRID, over IPv6 \
              00:00:5e:00:02:VRID (RFC 9568 §7.3, keepalived's `use_vmac`). Clients need not learn anything at a move, so it helps where \
              some ignore gratuitous ARP. Needs a switch or hypervisor that lets a port have a second hardware address, and an \
              interface that is no member of a bridge or bond. Advertisements to peers (`unicast`) leave with the machine's \
              own. It is carried by an interface `vrrp.VRID` (`vrrp6.VRID`); on the one below, `arp_ignore` becomes 1 and \
              `arp_announce` 2, and stay so.",
        example: "virtual-mac",
        effect: Effect::Tests(&[
            "two_virtual_macs_have_two_router_ids",
            "a_virtual_mac_moves_with_the_address_and_clients_learn_nothing",
            "keepalived_with_a_virtual_mac_and_relais_with_one_take_turns",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "sync-group",
        inside: &[Section::Vip],
        arguments: &[required("name", Text, "any name, the same in every vip of the group")],
        doc: "One node holds all vips of the group or none, as with keepalived's `vrrp_sync_group`: where one of them cannot be \
              held (its interface has no carrier, what it tracks is down), all go. For the two sides of a router, or an \
              IPv4 and an IPv6 address that must not part. All have the same nodes in the same order of preference, and \
              what one of them tracks counts for all.",
        example: "sync-group edge",
        effect: Effect::Tests(&[
            "a_sync_group_has_vips_that_can_stay_together",
            "where_one_address_cannot_be_held_the_other_goes_too",
            "a_cable_pulled_on_one_side_moves_both_addresses_beside_keepalived",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "track",
        inside: &[Section::Vip],
        properties: &[
            optional(
                "frontend",
                Reference(Kind::Frontend),
                "the line is for something else",
                "frontend that must be up there",
            ),
            optional(
                "backend",
                Reference(Kind::Backend),
                "the line is for something else",
                "backend of which `min` servers must be well, as this node's checks see them",
            ),
            optional("min", Integer(1, 1000), "1", "with `backend`: how many"),
            optional(
                "link",
                Interface,
                "the line is for something else",
                "interface that must be up with a carrier; a bond has one while one of its members works",
            ),
            optional(
                "file",
                File,
                "the line is for something else",
                "its whole number, times `weight`, is added to the priority; read twice a second, 0 if it cannot be",
            ),
            optional(
                "script",
                Text,
                "the line is for something else",
                "a program, by its absolute path, and its arguments between blanks: 0 means well. No shell is in between, \
                 and it runs as the platform's `user`",
            ),
            optional(
                "interval",
                Duration(100, 3_600_000),
                "2s",
                "with `script`: from its end to the next run",
            ),
            optional(
                "timeout",
                Duration(100, 3_600_000),
                "the interval",
                "with `script`: after this it is killed and has failed",
            ),
            optional(
                "rise",
                Integer(1, 100),
                "1",
                "with `script`: successes in a row that make it well; the first result counts at once",
            ),
            optional("fall", Integer(1, 100), "1", "with `script`: failures in a row that make it ill"),
            optional(
                "quorum",
                Word(&["majority"]),
                "the line is for something else",
                "this node hears more than half of all nodes of the file, itself included; their silence is noticed after 1 s",
            ),
            optional(
                "weight",
                Signed(253),
                "0; for a file 1",
                "0: where it is down the address goes; above 0: the priority gains this while it is up; below 0: it loses \
                 this while it is down",
            ),
        ],
        times: Times::Many,
        doc: "What the address depends on: one `frontend`, `backend`, `link`, `file`, `script` or `quorum` a line. Without a weight the address goes where it is \
              down; with one only the priority moves, within 1 to 254, and a backup of then higher priority takes the \
              address after three intervals (RFC 9568 §6.4.2). An owner's priority (255) does not move.",
        example: "track link=eth1 weight=-20",
        effect: Effect::Tests(&[
            "the_address_follows_the_frontend",
            "links_and_files_move_the_priority_and_a_link_without_weight_the_address",
            "what_is_tracked_makes_sense",
            "a_backend_that_loses_its_servers_takes_the_address_along",
            "a_script_that_fails_takes_the_address_along",
            "without_a_majority_the_address_goes",
        ]),
        ..Directive::EMPTY
    },
];
