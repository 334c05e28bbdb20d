//! Cluster resources, other sites, promises and alarms.

use super::Type::{Decimal, Duration, Integer, Ip, Mail, Name, Reference, Socket, Text, Url, Word};
use super::{DAY, Directive, Effect, HOUR, Kind, SECOND, Section, Times, default, optional, required};

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "resource",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Resource), "what commands and logs call it")],
        block: Some(Section::Resource),
        times: Times::Many,
        doc: "Anything else that must run on exactly one node at a time. It needs an `on`.",
        example: "resource report-job { agent systemd unit=\"progres-report.service\"; on tomcat1 tomcat2; }",
        effect: Effect::Later("run it on one node, and move it when that dies"),
        ..Directive::EMPTY
    },
    Directive {
        name: "agent",
        form: Some("systemd"),
        inside: &[Section::Resource],
        properties: &[required("unit", Text, "name of the unit")],
        times: Times::Required,
        doc: "The resource is a systemd unit.",
        example: "agent systemd unit=\"progres-report.service\"",
        effect: Effect::Later("start and stop the unit"),
        ..Directive::EMPTY
    },
    Directive {
        name: "monitor",
        inside: &[Section::Resource],
        arguments: &[default("time", Duration(100, HOUR), "10s", "time between looks")],
        doc: "How often the agent looks after the resource.",
        example: "monitor \"5s\"",
        effect: Effect::Later("look that often"),
        ..Directive::EMPTY
    },
    Directive {
        name: "stickiness",
        inside: &[Section::Resource],
        arguments: &[default("score", Integer(0, 1_000_000), "0", "Pacemaker's `resource-stickiness`")],
        doc: "How much the resource would rather stay where it is.",
        example: "stickiness 100",
        effect: Effect::Later("weigh a move"),
        ..Directive::EMPTY
    },
    Directive {
        name: "site",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Site), "what commands and logs call it")],
        block: Some(Section::Site),
        times: Times::Many,
        doc: "Another site, which takes over when this one is lost.",
        example: "site cerist { node cerist1 { link \"192.168.200.10\"; }; takeover manual; }",
        effect: Effect::Later("keep the other site ready"),
        ..Directive::EMPTY
    },
    Directive {
        name: "node",
        inside: &[Section::Site],
        arguments: &[required(
            "name",
            Name(Kind::SiteNode),
            "what it is called; no node of this site may have the name",
        )],
        block: Some(Section::Node),
        times: Times::OneOrMore,
        doc: "A machine of the other site.",
        example: "node cerist1 { link \"192.168.200.10\"; }",
        effect: Effect::Later("talk to it"),
        ..Directive::EMPTY
    },
    Directive {
        name: "replicate",
        inside: &[Section::Site],
        properties: &[
            optional("galera", Reference(Kind::Galera), "no database", "database that is copied there"),
            optional("gluster", Reference(Kind::Gluster), "no volume", "volume that is copied there"),
            default("target-lag", Duration(SECOND, DAY), "1m", "an alert says when the copy is older"),
        ],
        doc: "What is copied to the other site, and how old the copy may be.",
        example: "replicate galera=progres gluster=files target-lag=\"30s\"",
        effect: Effect::Later("copy data to the site"),
        ..Directive::EMPTY
    },
    Directive {
        name: "takeover",
        inside: &[Section::Site],
        arguments: &[default(
            "when",
            Word(&["manual", "automatic"]),
            "manual",
            "`manual`: an operator decides; `automatic`: a witness must agree",
        )],
        doc: "Who decides that the other site takes over.",
        example: "takeover manual",
        effect: Effect::Later("let the site take over"),
        ..Directive::EMPTY
    },
    Directive {
        name: "objective",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Objective), "what reports call it")],
        block: Some(Section::Objective),
        times: Times::Many,
        doc: "A promise that is measured: how often it answers, and how fast it comes back.",
        example: "objective web { probe \"https://progres.example/healthz\" at=\"192.168.112.180\"; availability 99.99; }",
        effect: Effect::Later("measure it"),
        ..Directive::EMPTY
    },
    Directive {
        name: "probe",
        inside: &[Section::Objective],
        arguments: &[required("url", Url, "what is asked for")],
        properties: &[optional("at", Ip, "what DNS says", "address it is asked at")],
        times: Times::Required,
        doc: "What a user would ask for.",
        example: "probe \"https://progres.example/healthz\" at=\"192.168.112.180\"",
        effect: Effect::Later("ask for it"),
        ..Directive::EMPTY
    },
    Directive {
        name: "availability",
        inside: &[Section::Objective],
        arguments: &[required("percent", Decimal(0.0, 100.0), "per cent of the time")],
        doc: "The share of time it answers.",
        example: "availability 99.99",
        effect: Effect::Later("report it"),
        ..Directive::EMPTY
    },
    Directive {
        name: "recovery-time",
        inside: &[Section::Objective],
        arguments: &[required("time", Duration(1, DAY), "longest outage")],
        doc: "The longest outage that keeps the promise.",
        example: "recovery-time \"1s\"",
        effect: Effect::Later("report it"),
        ..Directive::EMPTY
    },
    Directive {
        name: "alert",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Alert), "what logs call it")],
        block: Some(Section::Alert),
        times: Times::Many,
        doc: "Who hears when a promise breaks or a part fails. It needs an `smtp` or a `webhook`.",
        example: "alert operators { smtp to=\"drsi@progres.example\" via=\"127.0.0.1:25\"; }",
        effect: Effect::Later("tell them"),
        ..Directive::EMPTY
    },
    Directive {
        name: "smtp",
        inside: &[Section::Alert],
        properties: &[
            required("to", Mail, "who gets it"),
            default("via", Socket, "127.0.0.1:25", "mail server"),
        ],
        times: Times::Many,
        doc: "They are told by mail.",
        example: "smtp to=\"drsi@progres.example\" via=\"127.0.0.1:25\"",
        effect: Effect::Later("send mail"),
        ..Directive::EMPTY
    },
    Directive {
        name: "webhook",
        inside: &[Section::Alert],
        arguments: &[required("url", Url, "where it is posted to")],
        times: Times::Many,
        doc: "They are told by an HTTP POST to this URL.",
        example: "webhook \"https://127.0.0.1:9443/hook\"",
        effect: Effect::Later("post it"),
        ..Directive::EMPTY
    },
];
