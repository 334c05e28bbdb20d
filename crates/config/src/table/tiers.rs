//! The tiers: engines that Relais brings up, watches and heals.

use super::Type::{Duration, File, Integer, Name, Path, Reference, Size, UrlPath};
use super::{Directive, Effect, HOUR, Kind, MIB, SECOND, Section, TIB, Times, default, required};

pub(super) const ROWS: &[Directive] = &[
    Directive {
        name: "tomcat",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Tomcat), "what other directives call it")],
        block: Some(Section::Tomcat),
        times: Times::Many,
        doc: "An application tier: instances of Tomcat on several nodes. It needs an `on`.",
        example: "tomcat app { on tomcat1 tomcat2; instances 2 first-port=8081; }",
        effect: Effect::Tests(&["a_tier_is_expanded_to_its_instances"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "instances",
        inside: &[Section::Tomcat],
        arguments: &[default("number", Integer(1, 64), "1", "instances on each node")],
        properties: &[default(
            "first-port",
            Integer(1, 65_535),
            "8080",
            "port of the first; the next ones count up",
        )],
        doc: "Instances on each node, and where they listen.",
        example: "instances 2 first-port=8081",
        effect: Effect::Tests(&["a_tier_is_expanded_to_its_instances"]),
        ..Directive::EMPTY
    },
    Directive {
        name: "heap",
        inside: &[Section::Tomcat],
        properties: &[
            required("min", Size(16 * MIB, TIB), "at the start (`-Xms`)"),
            required("max", Size(16 * MIB, TIB), "at most (`-Xmx`)"),
        ],
        doc: "The Java heap of each instance.",
        example: "heap min=\"512MiB\" max=\"1GiB\"",
        effect: Effect::Later("start each instance with this heap"),
        ..Directive::EMPTY
    },
    Directive {
        name: "webapp",
        inside: &[Section::Tomcat],
        arguments: &[required("file", File, "a WAR")],
        properties: &[default("path", UrlPath, "/", "context path")],
        times: Times::Many,
        doc: "An application that every instance serves.",
        example: "webapp \"/srv/relais/progres.war\" path=\"/\"",
        effect: Effect::Later("deploy the application"),
        ..Directive::EMPTY
    },
    Directive {
        name: "drain",
        inside: &[Section::Tomcat],
        properties: &[required(
            "backend",
            Reference(Kind::Backend),
            "backend that has the instances as servers",
        )],
        times: Times::Many,
        doc: "Before an instance stops, it gets no new requests from this backend.",
        example: "drain backend=app",
        effect: Effect::Later("drain an instance before it stops"),
        ..Directive::EMPTY
    },
    Directive {
        name: "galera",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Galera), "what other directives call it")],
        block: Some(Section::Galera),
        times: Times::Many,
        doc: "A Galera cluster (Percona XtraDB Cluster or MariaDB). It needs an `on`.",
        example: "galera progres { on percona1 percona2; arbitrator gluster1; }",
        effect: Effect::Later("bring the cluster up, watch and heal it"),
        ..Directive::EMPTY
    },
    Directive {
        name: "arbitrator",
        inside: &[Section::Galera],
        arguments: &[required("node", Reference(Kind::Node), "node that votes and holds no data")],
        doc: "The vote that two nodes lack: without it, a network partition or one dead node may stop both.",
        example: "arbitrator gluster1",
        effect: Effect::Later("run the arbitrator"),
        ..Directive::EMPTY
    },
    Directive {
        name: "gluster",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Gluster), "the volume's name")],
        block: Some(Section::Gluster),
        times: Times::Many,
        doc: "A replicated GlusterFS volume. It needs an `on` and a `brick`.",
        example: "gluster files { on gluster1 gluster2; arbiter haproxy1; brick \"/bricks/brick1/brick\"; }",
        effect: Effect::Later("bring the volume up, watch and heal it"),
        ..Directive::EMPTY
    },
    Directive {
        name: "arbiter",
        inside: &[Section::Gluster],
        arguments: &[required("node", Reference(Kind::Node), "node that keeps names, not contents")],
        doc: "The brick that decides which copy is right after a partition.",
        example: "arbiter haproxy1",
        effect: Effect::Later("keep the arbiter brick"),
        ..Directive::EMPTY
    },
    Directive {
        name: "brick",
        inside: &[Section::Gluster],
        arguments: &[required("path", Path, "directory, the same on every node")],
        times: Times::Required,
        doc: "Where each node keeps its copy.",
        example: "brick \"/bricks/brick1/brick\"",
        effect: Effect::Later("keep the copy there"),
        ..Directive::EMPTY
    },
    Directive {
        name: "ping-timeout",
        inside: &[Section::Gluster],
        arguments: &[default("time", Duration(SECOND, HOUR), "5s", "whole seconds")],
        doc: "How long a silent storage node stalls the others.",
        example: "ping-timeout \"5s\"",
        effect: Effect::Later("set `network.ping-timeout`"),
        ..Directive::EMPTY
    },
    Directive {
        name: "mount",
        inside: &[Section::Gluster],
        arguments: &[required("path", Path, "directory")],
        block: Some(Section::Mount),
        times: Times::Many,
        doc: "Where nodes see the volume. It needs an `on`.",
        example: "mount \"/srv/files\" { on tomcat1 tomcat2; }",
        effect: Effect::Later("mount the volume"),
        ..Directive::EMPTY
    },
    Directive {
        name: "sync",
        inside: &[Section::File],
        arguments: &[required("name", Name(Kind::Sync), "what logs call it")],
        block: Some(Section::Sync),
        times: Times::Many,
        doc: "A directory that is copied to other nodes by rsync.",
        example: "sync www { from haproxy1 \"/srv/www/\"; to haproxy2 \"/srv/www/\"; every \"5m\"; }",
        effect: Effect::Later("copy the directory"),
        ..Directive::EMPTY
    },
    Directive {
        name: "from",
        inside: &[Section::Sync],
        arguments: &[
            required("node", Reference(Kind::Node), "where it is"),
            required("path", Path, "directory there"),
        ],
        times: Times::Required,
        doc: "What is copied.",
        example: "from haproxy1 \"/srv/www/\"",
        effect: Effect::Later("copy it"),
        ..Directive::EMPTY
    },
    Directive {
        name: "to",
        inside: &[Section::Sync],
        arguments: &[
            required("node", Reference(Kind::Node), "where it goes"),
            required("path", Path, "directory there"),
        ],
        times: Times::OneOrMore,
        doc: "Where it is copied to.",
        example: "to haproxy2 \"/srv/www/\"",
        effect: Effect::Later("copy it there"),
        ..Directive::EMPTY
    },
    Directive {
        name: "every",
        inside: &[Section::Sync],
        arguments: &[default("time", Duration(SECOND, 24 * HOUR), "5m", "time between copies")],
        doc: "How often it is copied.",
        example: "every \"5m\"",
        effect: Effect::Later("copy it that often"),
        ..Directive::EMPTY
    },
    Directive {
        name: "reverse",
        inside: &[Section::Sync],
        doc: "A returned master catches up from the others before it serves.",
        example: "reverse",
        effect: Effect::Later("copy back first"),
        ..Directive::EMPTY
    },
];
