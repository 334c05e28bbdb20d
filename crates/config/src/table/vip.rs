//! `vip`: addresses that move from machine to machine.

use super::Type::{Address4, Duration, Integer, Interface, Name, Reference, Word};
use super::{Directive, Effect, Kind, Section, Times, default, required};

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "vip",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Vip), "what logs and commands call it")],
        block: Some(Section::Vip),
        times: Times::Many,
        doc: "A virtual address: users know it, and one node at a time holds it, elected by VRRP (RFC 9568). keepalived \
              understands it on the wire.",
        example: "vip public { address \"192.168.112.180/24\" interface=eth0; router-id 51; node haproxy1 priority=101; }",
        effect: Effect::Tests(&["a_killed_process_loses_the_address_to_the_peer_and_then_to_the_kernel"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "address",
        inside: &[Section::Vip],
        arguments: &[required("address", Address4, "the address and the length of its network prefix")],
        properties: &[required("interface", Interface, "interface that carries it on every node")],
        times: Times::Required,
        doc: "The virtual address. It is no node's own: Relais adds it where it is held and takes it away elsewhere.",
        example: "address \"192.168.112.180/24\" interface=eth0",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "a_killed_process_loses_the_address_to_the_peer_and_then_to_the_kernel",
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
        name: "advertise",
        inside: &[Section::Vip],
        arguments: &[default("interval", Duration(10, 40_950), "1s", "in whole hundredths of a second")],
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
        doc: "Whether a returning node of higher priority takes the address back.",
        example: "preempt never",
        effect: Effect::Tests(&[
            "a_virtual_address_has_what_its_election_needs",
            "a_lower_master_is_displaced_only_with_preemption",
        ]),
        ..Directive::EMPTY
    },
    Directive {
        name: "track",
        inside: &[Section::Vip],
        properties: &[required("frontend", Reference(Kind::Frontend), "frontend that must be up there")],
        times: Times::Many,
        doc: "What must be up on a node for it to hold the address: where the frontend is down, the address goes.",
        example: "track frontend=web",
        effect: Effect::Tests(&["the_address_follows_the_frontend"]),
        ..Directive::EMPTY
    },
];
