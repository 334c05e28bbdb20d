//! What a file comes to: each directive's place in the plan, and each default.

use std::time::Duration;

use relais_config::parse;
use relais_config::plan::{
    BackendTimeouts, Balance, By, Check, CheckKind, Cidr, DnsExpect, Forward, FrontendTimeouts, InitState,
    LogTo, Method, Mode, NodeId, Plan, Preempt, Redirect,
};

/// The least that a platform has; tests add to it.
const LEAST: &str = r#"
platform lab
node a { link "10.0.0.1"; link "10.1.0.1"; }
node b { link "10.0.0.2"; }
node c { link "10.0.0.3"; }
"#;

fn plan(text: &str) -> Plan {
    match parse("test.kdl", &format!("{LEAST}{text}")) {
        Ok(checked) => checked.plan,
        Err(rejected) => panic!("{rejected}"),
    }
}

fn errors(text: &str) -> String {
    match parse("test.kdl", &format!("{LEAST}{text}")) {
        Ok(checked) => panic!("accepted: {:#?}", checked.plan),
        Err(rejected) => rejected.to_string(),
    }
}

fn example(name: &str) -> String {
    let path = format!("{}/../../examples/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(path).expect("an example")
}

#[test]
fn the_examples_are_plans_without_a_warning() {
    for name in ["progres.kdl", "lab.kdl", "forward.kdl"] {
        let checked = parse(name, &example(name)).unwrap_or_else(|rejected| panic!("{rejected}"));
        assert_eq!(checked.render(false), "");
        assert_eq!(checked.plan, parse(name, &example(name)).expect("the same again").plan);
    }
}

#[test]
fn what_is_not_acted_on_yet_is_said() {
    let checked = parse("progres.kdl", &example("progres.kdl")).expect("the reference file");
    let pending = checked.plan.pending.join("\n");
    let expected = "frontend web: cache pages\ncache pages\n\
        tomcat app: heap\ntomcat app: webapp\ntomcat app: drain\n\
        galera progres\ngluster files\nsync www\nresource report-job\nsite cerist\nobjective web\nalert operators";
    assert_eq!(pending, expected);
    let lab = parse("lab.kdl", &example("lab.kdl")).expect("the lab's file");
    assert_eq!(lab.plan.pending, [""; 0]);
}

#[test]
fn missing_files_are_notes_for_check_and_a_list_for_run() {
    let text = example("progres.kdl");
    let checked = parse("progres.kdl", &text).expect("the reference file");
    let missing = checked.missing_files();
    let names: Vec<&str> = missing.iter().filter_map(|file| file.path.to_str()).collect();
    assert!(
        names.contains(&"/srv/relais/progres.war") && names.contains(&"/etc/relais/tls/www1.pem"),
        "{names:?}"
    );
    let needed: Vec<&str> =
        missing.iter().filter(|file| file.needed).filter_map(|f| f.path.to_str()).collect();
    assert_eq!(needed, ["/etc/relais/cluster.key", "/etc/relais/tls/www1.pem", "/etc/relais/tls/www2.pem"]);
    let report = relais_config::check("progres.kdl", &text, false);
    assert!(report.ok, "{}", report.text);
    assert!(report.text.contains("note: /srv/relais/progres.war is not on this machine"), "{}", report.text);
    assert!(report.text.ends_with("progres.kdl: good (4 notes)\n"), "{}", report.text);
}

#[test]
fn check_says_that_two_nodes_may_both_hold_an_address_and_one_node_may_not() {
    let vip = |nodes: &str| {
        let text = format!(
            "{LEAST}\nnode p {{ link \"10.9.9.1\"; }}\nnode q {{ link \"10.9.9.2\"; }}\nnode r {{ link \"10.9.9.3\"; }}\n\
             vip public {{ address \"10.9.9.9/24\" interface=eth7; router-id 7; {nodes} }}"
        );
        let report = relais_config::check("vip.kdl", &text, false);
        assert!(report.ok, "{}", report.text);
        report.text
    };
    let two = vip("node p priority=2; node q priority=1");
    let said = "note: nodes exchange no heartbeats without a cluster-key: while `p` and `q` run but do not hear each other \
                on eth7, both hold vip `public`, and a client may reach either";
    assert!(two.contains(said) && two.ends_with("vip.kdl: good (1 note)\n"), "{two}");
    let three = vip("node p priority=3; node q priority=2; node r priority=1");
    assert!(
        three.contains("while `p`, `q` and `r` run") && three.contains("more than one of them holds"),
        "{three}"
    );
    assert!(vip("node p priority=2").ends_with("vip.kdl: good\n"));
}

#[test]
fn check_counts_what_is_wrong() {
    let report =
        relais_config::check("bad.kdl", "platform x\nnode a { link 10.0.0.1; }\nfrontent web\n", false);
    assert!(!report.ok);
    assert!(report.text.ends_with("bad.kdl: not usable (2 errors)\n"), "{}", report.text);
    let good = relais_config::check("good.kdl", LEAST, false);
    assert_eq!((good.text.as_str(), good.ok), ("good.kdl: good\n", true));
}

/// A plan with a frontend, this in its `platform`, and this in the frontend.
fn logging(platform: &str, frontend: &str) -> String {
    format!(
        "platform lab {{ {platform}\n }}\nnode a {{ link \"10.0.0.1\"; }}\n\
         frontend web {{ bind \"*:80\"; redirect scheme=https\n {frontend}\n }}\n\
         frontend plain {{ bind \"*:81\"; redirect scheme=https; }}"
    )
}

#[test]
fn access_lines_go_where_the_file_says() {
    let target = |text: &str| {
        let plan = parse("test.kdl", &logging(text, "")).unwrap_or_else(|rejected| panic!("{rejected}")).plan;
        assert_eq!(plan.frontends[0].log.is_some(), !plan.logs.is_empty());
        assert!(plan.logs.len() <= 1, "both frontends share it");
        plan.logs.first().map(|log| log.to.clone())
    };
    assert_eq!(target(""), Some(LogTo::Stdout));
    assert_eq!(target("access-log off"), None);
    assert_eq!(target("access-log stdout"), Some(LogTo::Stdout));
    assert_eq!(target("access-log \"/var/log/relais.log\""), Some(LogTo::File("/var/log/relais.log".into())));
    let server = "192.0.2.1:514".parse().expect("an address");
    assert_eq!(target("access-log \"udp@192.0.2.1:514\" facility=local3"), Some(LogTo::Udp(server)));
    assert_eq!(target("access-log \"tcp@192.0.2.1:514\""), Some(LogTo::Tcp(server)));
    assert_eq!(target("access-log \"unix@/dev/log\" protocol=local"), Some(LogTo::Unix("/dev/log".into())));
}

#[test]
fn error_pages_of_a_frontend_come_before_those_of_the_platform() {
    let text = logging("error-page \"500-599\" \"/p.html\"", "error-page 503 \"/f.JSON\"");
    let plan = parse("test.kdl", &text).unwrap_or_else(|rejected| panic!("{rejected}")).plan;
    let pages: Vec<_> =
        plan.frontends[0].error_pages.iter().map(|p| (p.first, p.last, &*p.file, &*p.kind)).collect();
    assert_eq!(
        pages,
        [(503, 503, "/f.JSON", "application/json"), (500, 599, "/p.html", "text/html; charset=utf-8")]
    );
    assert_eq!(plan.frontends[1].error_pages.len(), 1);
    assert_eq!(plan.error_page_files().len(), 2);
}

#[test]
fn an_error_page_that_is_too_long_is_found_by_check() {
    let path = std::env::temp_dir().join(format!("relais-page-{}.html", std::process::id()));
    let text = logging(&format!("error-page 503 \"{}\"", path.display()), "");
    let verdict = |bytes: &[u8]| {
        std::fs::write(&path, bytes).expect("a page");
        relais_config::check("test.kdl", &text, false)
    };
    assert!(verdict(&[b'x'; 65_536]).ok);
    let long = verdict(&[b'x'; 65_537]);
    assert!(!long.ok && long.text.contains("is longer than 64 KiB"), "{}", long.text);
    assert!(verdict(b"\xff").text.contains("is not UTF-8"));
    std::fs::remove_file(&path).expect("it was there");
    let missing = relais_config::check("test.kdl", &text, false);
    assert!(missing.ok && missing.text.contains("is not on this machine"), "{}", missing.text);
}

#[test]
fn a_frontend_has_an_access_log_of_its_own() {
    let of = |platform: &str, frontend: &str| {
        let text = logging(platform, frontend);
        parse("test.kdl", &text).unwrap_or_else(|rejected| panic!("{rejected}")).plan
    };
    let plan = of("access-log \"/a\"", "access-log \"/b\" format=json");
    assert_eq!(plan.logs.len(), 2);
    let (web, plain) =
        (plan.frontends[0].log.as_ref().expect("a"), plan.frontends[1].log.as_ref().expect("b"));
    assert_eq!(plan.logs[web.target].to, LogTo::File("/b".into()));
    assert_eq!(plan.logs[plain.target].to, LogTo::File("/a".into()));
    assert_ne!(web.format, plain.format);
    assert!(of("access-log \"/a\"", "access-log off").frontends[0].log.is_none());
    assert!(of("access-log off", "access-log \"/b\"").frontends[0].log.is_some());
    let same = of("access-log \"/a\"", "access-log platform format=json");
    assert_eq!(same.logs.len(), 1);
}

#[test]
fn the_platform_has_its_settings_and_their_defaults() {
    let least = plan("");
    assert_eq!(&*least.platform, "lab");
    assert_eq!(least.admin, "127.0.0.1:8404".parse().expect("an address"));
    assert_eq!((&*least.user, least.drain), ("relais", Duration::from_secs(30)));
    assert_eq!(least.hard_stop_after, Duration::from_secs(12 * 3600));
    let text = "platform p { admin \"*:9000\"; user www-data; drain \"1m\"; }\nnode a { link \"10.0.0.1\"; }";
    let set = parse("test.kdl", text).unwrap_or_else(|rejected| panic!("{rejected}")).plan;
    assert_eq!(set.admin, "0.0.0.0:9000".parse().expect("an address"));
    assert_eq!((&*set.user, set.drain), ("www-data", Duration::from_secs(60)));
}

#[test]
fn nodes_have_their_links_in_order() {
    let plan = plan("");
    let names: Vec<&str> = plan.nodes.iter().map(|node| &*node.name).collect();
    assert_eq!(names, ["a", "b", "c"]);
    let links: Vec<String> = plan.nodes[0].links.iter().map(ToString::to_string).collect();
    assert_eq!(links, ["10.0.0.1", "10.1.0.1"]);
    assert_eq!(plan.node("b"), Some(NodeId(1)));
    assert_eq!(plan.node("d"), None);
}

#[test]
fn a_virtual_address_has_what_its_election_needs() {
    let text = r#"
        vip public {
            address "10.0.0.180/24" interface=eth0
            router-id 51
            node b priority=101
            node a priority=100
            advertise "50ms"
            preempt never
            track frontend=web
            track link=eth1 weight=-20
            track file="/run/weight"
        }
        vip plain { address "10.0.0.181/31" interface=eth0; router-id 52; node c priority=255; }
        vip old {
            address "10.0.0.182/24" interface=eth0
            router-id 53
            node a priority=1
            node b priority=2
            version 2
            password "/etc/password"
            unicast least-ttl=254
            advertise "200s"
            preempt always delay="30s"
        }
        vip new {
            address "fe80::1/64" interface=eth0
            address "fd00::1/64" interface=eth0
            router-id 53 // of another family than the one above
            node a priority=1
            checksum message
        }
        frontend web { on a b; bind "*:80"; redirect scheme=https; }
    "#;
    let plan = plan(text);
    let vip = &plan.vips[0];
    let addresses = |vip: &relais_config::plan::Vip| -> Vec<String> {
        vip.addresses.iter().map(|a| format!("{}/{}", a.address, a.prefix)).collect()
    };
    assert_eq!((&*vip.name, addresses(vip)), ("public", vec!["10.0.0.180/24".to_owned()]));
    assert_eq!((vip.version, vip.checksum_with_pseudo_header, vip.unicast), (3, true, None));
    assert_eq!((&*vip.interface, vip.router_id), ("eth0", 51));
    assert_eq!(vip.nodes, [(NodeId(1), 101), (NodeId(0), 100)]);
    assert_eq!((vip.advertise, vip.preempt), (Duration::from_millis(50), Preempt::Never));
    let web = plan.frontends.iter().position(|f| &*f.name == "web").expect("web");
    let track = |what, weight| relais_config::plan::Track { what, weight };
    use relais_config::plan::Tracked::{File, Frontend, Link};
    assert_eq!(
        vip.track,
        [
            track(Frontend(relais_config::plan::FrontendId(web as u16)), 0),
            track(Link("eth1".into()), -20),
            track(File("/run/weight".into()), 1),
        ]
    );
    let plain = &plan.vips[1];
    assert_eq!(
        (plain.advertise, plain.preempt, plain.track.len()),
        (Duration::from_secs(1), Preempt::Always, 0)
    );
    let mine: Vec<u8> = plan.vips_on(NodeId(2)).map(|(_, _, priority)| priority).collect();
    assert_eq!(mine, [255]);
    let old = &plan.vips[2];
    assert_eq!((old.version, old.password.as_deref(), old.unicast), (2, Some("/etc/password"), Some(254)));
    assert_eq!((old.advertise, old.preempt_delay), (Duration::from_secs(200), Duration::from_secs(30)));
    let new = &plan.vips[3];
    assert_eq!(addresses(new), ["fe80::1/64", "fd00::1/64"]);
    assert!(!new.checksum_with_pseudo_header);
}

#[test]
fn a_sync_group_has_vips_that_can_stay_together() {
    let two = |outer: &str, inner: &str| {
        format!(
            r#"
            vip outer {{ address "10.0.0.180/24" interface=eth0; router-id 51; sync-group edge; {outer} }}
            vip inner {{ address "10.1.0.180/24" interface=eth1; router-id 52; sync-group edge; {inner} }}
            frontend web {{ on a b; bind "*:80"; redirect scheme=https; }}
            "#
        )
    };
    let plan = plan(&two(
        "node a priority=101; node b priority=100; track frontend=web;",
        "node b priority=5; node a priority=6; track link=eth2; track frontend=web;",
    ));
    use relais_config::plan::Tracked::{Frontend, Link};
    for vip in &plan.vips {
        let tracked: Vec<_> = vip.track.iter().map(|track| track.what.clone()).collect();
        let web = Frontend(relais_config::plan::FrontendId(0));
        assert_eq!(tracked, [web, Link("eth2".into())], "each tracks what any does");
        assert_eq!(vip.sync_group.as_deref(), Some("edge"));
    }

    let nodes = "node a priority=101; node b priority=100;";
    let parted = errors(&two(nodes, "node a priority=100; node b priority=101;"));
    let expected = "vips `outer` and `inner` of sync-group `edge` have different nodes, or prefer them in a different order";
    assert!(parted.contains(expected) && parted.contains("the other is here"), "{parted}");
    let elsewhere = errors(&two(nodes, "node a priority=101; node c priority=100;"));
    assert!(elsewhere.contains(expected), "{elsewhere}");
    let unlike = errors(&two(nodes, &format!("{nodes} preempt never;")));
    assert!(unlike.contains("have a different `preempt`"), "{unlike}");
    let alone = errors(
        "vip outer { address \"10.0.0.180/24\" interface=eth0; router-id 51; node a priority=1; sync-group edge; }",
    );
    assert!(alone.contains("vip `outer` is alone in sync-group `edge`"), "{alone}");
}

#[test]
fn observation_makes_sense() {
    let text = |lines: &str| format!("backend app {{ {lines}; server s0 \"10.0.0.9:80\"; }}");
    let observe = |text: &str| plan(text).backends[0].observe.clone().unwrap();
    use relais_config::plan::{Observe, OnError};
    let plain = Observe { layer7: true, errors: 10, on_error: OnError::MarkDown, most_down: 50 };
    assert_eq!(observe(&text("check tcp; observe layer7")), plain);
    let all = observe(&text("check tcp; observe layer4 errors=3 on-error=sudden-death most-down=100"));
    assert_eq!(all, Observe { layer7: false, errors: 3, on_error: OnError::SuddenDeath, most_down: 100 });
    for (lines, said) in [
        ("observe layer7", "`observe` needs a `check`"),
        ("mode tcp; check tcp; observe layer7", "there are no answers to look at"),
    ] {
        let errors = errors(&text(lines));
        assert!(errors.contains(said), "{lines}: {errors}");
    }
}

#[test]
fn shared_checks_need_something_to_share_and_somebody() {
    let text = |check: &str| format!("backend app {{ {check}; share-checks; server s0 \"10.0.0.9:80\"; }}");
    for (check, said) in [
        ("check tcp", "nodes share their checks as they share tables"),
        ("mode http", "there is no `check` to share"),
        ("check exec command=\"/bin/true\"", "what a program finds is not shared"),
    ] {
        let errors = errors(&text(check));
        assert!(errors.contains(said), "{check}: {errors}");
    }
}

#[test]
fn what_is_tracked_makes_sense() {
    let text = |track: &str, nodes: &str| {
        format!(
            r#"
            vip outer {{ address "10.0.0.180/24" interface=eth0; router-id 51; node a priority=101; {track}; }}
            backend app {{ check tcp; server s0 "10.0.0.9:80"; server s1 "10.0.0.9:81"; }}
            backend blind {{ server s0 "10.0.0.9:80"; }}
            {nodes}
            "#
        )
    };
    let good = "track backend=app min=2 weight=-5; track script=\"/bin/look x\" interval=\"1s\" rise=2 fall=3 timeout=\"500ms\"";
    let track = plan(&text(good, "")).vips[0].track.clone();
    use relais_config::plan::{BackendId, Script, Tracked};
    assert_eq!((&track[0].what, track[0].weight), (&Tracked::Backend { backend: BackendId(0), min: 2 }, -5));
    let ms = Duration::from_millis;
    let script =
        Script { command: "/bin/look x".into(), interval: ms(1000), timeout: ms(500), rise: 2, fall: 3 };
    assert_eq!(track[1].what, Tracked::Script(script));

    for (track, said) in [
        ("track", "`track` names one thing a line, not 0"),
        ("track link=eth0 backend=app", "`track` names one thing a line, not 2"),
        ("track link=eth0 min=2", "`min` belongs to `backend`"),
        ("track backend=app fall=2", "`fall` belongs to `script`"),
        ("track backend=app min=3", "backend `app` has 2 servers, so it can never have 3"),
        ("track backend=blind", "backend `blind` checks nobody"),
        ("track script=\"look\"", "a script is named by its absolute path"),
        (
            "track script=\"/bin/look\"; track script=\"/bin/look\" fall=2",
            "this script is tracked twice, in different ways",
        ),
        ("track quorum=majority", "a majority is known by heartbeats"),
    ] {
        let errors = errors(&text(track, ""));
        assert!(errors.contains(said), "{track}: {errors}");
    }
}

#[test]
fn two_virtual_macs_have_two_router_ids() {
    let two = |id: u8, address: &str| {
        format!(
            r#"
            vip outer {{ address "10.0.0.180/24" interface=eth0; router-id 51; virtual-mac; node a priority=101; }}
            vip inner {{ address "{address}" interface=eth1; router-id {id}; virtual-mac; node a priority=101; }}
            "#
        )
    };
    for (id, address) in [(52, "10.1.0.180/24"), (51, "fd00::180/64")] {
        assert!(plan(&two(id, address)).vips.iter().all(|vip| vip.virtual_mac));
    }
    let same = errors(&two(51, "10.1.0.180/24"));
    assert!(same.contains("two vips with `virtual-mac` have router-id 51"), "{same}");
}

#[test]
fn a_frontend_has_what_its_file_says_and_else_the_defaults() {
    let text = r#"
        frontend web {
            on b c
            bind "*:80"
            bind "[::1]:80"
            bind "*:443" { tls { certificate "/x.pem"; } }
            max-connections 100
            forwarded-for except="127.0.0.0/8 10.0.0.0/8"
            timeout request="1s" client="2s" keep-alive="3s"
            default-backend app
        }
        frontend plain { bind "*:81"; default-backend app; }
        backend app { server one "10.0.0.2:8080"; }
    "#;
    let plan = plan(text);
    let web = &plan.frontends[0];
    assert_eq!(
        (web.nodes.as_slice(), web.mode, web.max_connections),
        ([NodeId(1), NodeId(2)].as_slice(), Mode::Http, 100)
    );
    let binds: Vec<(String, bool)> =
        web.binds.iter().map(|bind| (bind.address.to_string(), bind.tls.is_some())).collect();
    assert_eq!(
        binds,
        [("0.0.0.0:80".to_owned(), false), ("[::1]:80".to_owned(), false), ("0.0.0.0:443".to_owned(), true)]
    );
    let except: Vec<String> = web.forwarded_for.iter().flatten().map(Cidr::to_string).collect();
    assert_eq!(except, ["127.0.0.0/8", "10.0.0.0/8"]);
    let seconds = Duration::from_secs;
    assert_eq!(
        web.timeout,
        FrontendTimeouts {
            request: seconds(1),
            client: seconds(2),
            keep_alive: seconds(3),
            client_fin: None
        }
    );
    assert_eq!((web.redirect.clone(), web.default_backend), (None, Some(relais_config::plan::BackendId(0))));
    let plain = &plan.frontends[1];
    assert_eq!((plain.nodes.len(), plain.max_connections, plain.forwarded_for.clone()), (3, 20_000, None));
    assert_eq!(
        plain.timeout,
        FrontendTimeouts {
            request: seconds(10),
            client: seconds(60),
            keep_alive: seconds(10),
            client_fin: None
        }
    );
}

#[test]
fn a_frontend_without_on_runs_where_its_addresses_are() {
    let text = r#"
        vip public { address "10.0.0.180/24" interface=eth0; router-id 1; node a priority=2; node c priority=1; }
        frontend own { bind "10.0.0.2:80"; redirect scheme=https; }
        frontend virtual { bind "10.0.0.180:81"; redirect scheme=https; }
        frontend both { bind "10.0.0.180:82"; bind "10.0.0.2:82"; redirect scheme=https; }
        frontend everywhere { bind "*:83"; redirect scheme=https; }
        frontend loopback { bind "127.0.0.1:84"; redirect scheme=https; }
    "#;
    let plan = plan(text);
    let nodes = |index: usize| plan.frontends[index].nodes.iter().map(|id| id.0).collect::<Vec<_>>();
    assert_eq!((nodes(0), nodes(1), nodes(2)), (vec![1], vec![0, 2], vec![0, 1, 2]));
    assert_eq!((nodes(3), nodes(4)), (vec![0, 1, 2], vec![0, 1, 2]));
    let on_b: Vec<&str> = plan.frontends_on(NodeId(1)).map(|(_, frontend)| &*frontend.name).collect();
    assert_eq!(on_b, ["own", "both", "everywhere", "loopback"]);
}

#[test]
fn an_address_of_one_node_is_opened_there_only() {
    let text = r#"frontend web { on a b; bind "10.0.0.1:80"; bind "10.0.0.2:80"; bind "127.0.0.1:81"; redirect scheme=https; }"#;
    let plan = plan(text);
    let opened = |node: u16| {
        let binds = plan.binds_on(NodeId(node), &plan.frontends[0]);
        binds.map(|bind| bind.address.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(opened(0), ["10.0.0.1:80", "127.0.0.1:81"]);
    assert_eq!(opened(1), ["10.0.0.2:80", "127.0.0.1:81"]);
}

fn a_check(kind: CheckKind, every_s: u64, fall: u8, rise: u8) -> Check {
    let every = Duration::from_secs(every_s);
    Check {
        kind,
        every,
        fall,
        rise,
        fastinter: None,
        downinter: None,
        port: None,
        address: None,
        jitter: 0,
        init: InitState::Up,
        grace: Duration::ZERO,
        agent: None,
        shared: false,
    }
}

#[test]
fn a_database_check_knows_where_its_password_is_and_whom_to_ask() {
    let plan = parse("progres.kdl", &example("progres.kdl")).expect("the reference file").plan;
    let percona = plan.backends.iter().find(|backend| &*backend.name == "percona").expect("it is there");
    let check = percona.check.as_ref().expect("it has one");
    let secret = Some("credential:db-monitor".into());
    assert_eq!(check.kind, CheckKind::Mysql { user: Some("monitor".into()), secret, galera: true });
    let server = &percona.servers[0];
    assert_eq!(check.elsewhere(server), None);
    assert_eq!(plan.files_on(NodeId(2)).last().map(|name| &**name), Some("credential:db-monitor"));
    let other = Check { port: Some(9200), ..check.clone() };
    assert_eq!(other.elsewhere(server), Some((server.address.ip(), 9200).into()));
}

#[test]
fn a_tcp_frontend_leads_to_its_tcp_backend() {
    let text = r#"
        frontend database { mode tcp; bind "127.0.0.1:3306"; default-backend percona; }
        backend percona { mode tcp; check tcp every="1s" fall=1 rise=1; server one "10.0.0.2:3306"; }
    "#;
    let plan = plan(text);
    assert_eq!((plan.frontends[0].mode, plan.backends[0].mode), (Mode::Tcp, Mode::Tcp));
    assert_eq!(plan.backends[0].check, Some(a_check(CheckKind::Tcp, 1, 1, 1)));
}

#[test]
fn a_udp_frontend_leads_to_its_udp_backend() {
    let text = r#"
        frontend dns { mode udp; bind "*:53"; default-backend resolvers; }
        backend resolvers {
            mode udp
            responses 1
            timeout server="2s" session="5s"
            redispatch
            check dns name="www.example" type=AAAA expect=either
            server one "10.0.0.2:53"
        }
        backend syslog { mode udp; responses 0; server one "10.0.0.2:514"; }
        backend other { mode udp; server one "10.0.0.2:5000"; }
    "#;
    let plan = plan(text);
    let (front, back) = (&plan.frontends[0], &plan.backends[0]);
    assert_eq!((front.mode, back.mode, back.responses), (Mode::Udp, Mode::Udp, Some(1)));
    assert_eq!(back.timeout.session, Duration::from_secs(5));
    let kind = CheckKind::Dns { name: "www.example".into(), kind: 28, expect: DnsExpect::Either };
    assert_eq!(back.check.as_ref().map(|check| &check.kind), Some(&kind));
    assert_eq!(plan.backends[1].responses, Some(0));
    assert_eq!((plan.backends[2].responses, plan.backends[2].timeout.session.as_secs()), (None, 30));
}

#[test]
fn a_forward_frontend_is_carried_and_nobody_listens() {
    let text = r#"
        frontend dns { mode forward; forward protocol=udp masquerade=no; bind "10.0.0.1:53"; default-backend r; }
        frontend dns-tcp { mode forward; bind "10.0.0.1:53"; default-backend r; }
        frontend web { bind "*:80"; default-backend app; }
        backend r { mode forward; balance source; check dns name="www.example"; server one "10.0.0.2:53" weight=3; }
        backend app { server one "10.0.0.2:80"; }
    "#;
    let plan = plan(text);
    let forwards: Vec<_> =
        plan.forwards_on(NodeId(0)).map(|(front, forward)| (&*front.name, forward)).collect();
    let udp = Forward { udp: true, by: By::Nftables { masquerade: false } };
    assert_eq!(
        forwards,
        [("dns", udp), ("dns-tcp", Forward { udp: false, by: By::Nftables { masquerade: true } })]
    );
    let listens: Vec<_> = plan.listens_on(NodeId(0)).map(|(front, _)| &*front.name).collect();
    assert_eq!(listens, ["web"]);
    assert!(plan.frontends[0].log.is_none() && plan.frontends[2].log.is_some());
    let mixed = text.replace("\"10.0.0.2:53\"", "\"[fd00::2]:53\"");
    let said = errors(&mixed);
    assert!(said.contains("10.0.0.1 is IPv4 and every server of backend `r` is IPv6"), "{said}");
}

#[test]
fn ipvs_shares_and_reaches_servers_in_ways_of_its_own() {
    let text = r#"
        frontend web { mode forward; forward by=ipvs method=direct; bind "10.0.0.1:80"; default-backend r; }
        backend r { mode forward; balance leastconn; check tcp; server one "10.0.0.2:80" weight=3; }
    "#;
    let found = plan(text);
    let forward = found.forwards_on(NodeId(0)).next().map(|(_, forward)| forward);
    assert_eq!(forward, Some(Forward { udp: false, by: By::Ipvs(Method::Direct) }));
    assert_eq!(found.backends[0].balance.ipvs_scheduler(), Some("wlc"));
    for (mistake, instead, said) in [
        (
            "10.0.0.2:80",
            "10.0.0.2:8080",
            "server `one` has port 8080, and with `method=direct` packets reach it with port 80",
        ),
        ("leastconn", "random", "the way that backend `r` balances cannot be had here"),
        ("balance leastconn", "balance uri", "the way that backend `r` balances cannot be had here"),
        ("by=ipvs method=direct", "", "the way that backend `r` balances cannot be had here"),
        ("method=direct", "masquerade=yes", "`masquerade` is of `forward by=nftables`, and this is not"),
        ("by=ipvs ", "", "`method` is of `forward by=ipvs`, and this is not"),
    ] {
        let errors = errors(&text.replace(mistake, instead));
        assert!(errors.contains(said), "{instead}: {errors}");
    }
}

#[test]
fn tcp_and_udp_have_ports_of_their_own() {
    let two = |first: &str, second: &str| {
        format!(
            "frontend one {{ mode {first}; bind \"*:53\"; default-backend b{first}; }}\n\
             frontend two {{ mode {second}; bind \"127.0.0.1:53\"; default-backend b{second}; }}\n\
             backend btcp {{ mode tcp; server s \"10.0.0.2:53\"; }}\nbackend budp {{ mode udp; server s \"10.0.0.2:53\"; }}"
        )
    };
    assert_eq!(plan(&two("udp", "tcp")).frontends.len(), 2);
    assert_eq!(plan(&two("tcp", "udp")).frontends.len(), 2);
    assert!(errors(&two("udp", "udp")).contains("frontend `one` listens on *:53"));
    assert!(errors(&two("tcp", "tcp")).contains("frontend `one` listens on *:53"));
}

#[test]
fn a_redirecting_frontend_needs_no_backend() {
    let redirect = |text: &str| {
        plan(&format!("frontend plain {{ bind \"*:80\"; redirect {text}; }}")).frontends[0].redirect.clone()
    };
    assert_eq!(redirect("scheme=https"), Some(Redirect { scheme: "https".into(), code: 302 }));
    assert_eq!(redirect("scheme=https code=308"), Some(Redirect { scheme: "https".into(), code: 308 }));
    assert!(
        errors("frontend plain { bind \"*:80\"; redirect scheme=https code=200; }")
            .contains("`301`, `302`, `303`, `307` or `308`")
    );
}

#[test]
fn a_backend_has_what_its_file_says_and_else_the_defaults() {
    let text = r#"
        backend app {
            balance roundrobin
            check http path="/up?x=1" expect="200-299" host="www.example" every="1s" fall=2 rise=4
            timeout connect="1s" server="2s" queue="3s" tunnel="4s" check="5s"
            retries 1
            redispatch
            server one "10.0.0.2:8080" weight=256 max-connections=5
            server two "[fd00::2]:8080" weight=0
            server here "127.0.0.1:8080"
        }
        backend plain { check http; server one "10.0.0.3:8080"; }
        backend bare { server one "10.0.0.3:8080"; }
    "#;
    let text = text.replace("[fd00::2]:8080", "10.0.0.3:8080");
    let plan = plan(&text);
    let app = &plan.backends[0];
    let http = |path: &str, host: Option<&str>, expect| CheckKind::Http {
        path: path.into(),
        host: host.map(Into::into),
        expect,
        method: "GET".into(),
        contains: None,
        matches: None,
        headers: Vec::new(),
        body: None,
    };
    let kind = http("/up?x=1", Some("www.example"), (200, 299));
    assert_eq!(app.check, Some(a_check(kind, 1, 2, 4)));
    let [connect, server, queue, tunnel, check, session] = [1, 2, 3, 4, 5, 30].map(Duration::from_secs);
    assert_eq!(
        app.timeout,
        BackendTimeouts { connect, server, queue, tunnel, server_fin: None, session, check }
    );
    assert_eq!((app.balance.clone(), app.retries, app.redispatch), (Balance::RoundRobin, 1, true));
    let servers: Vec<_> =
        app.servers.iter().map(|s| (&*s.name, s.weight, s.max_connections, s.node.map(|n| n.0))).collect();
    assert_eq!(servers, [("one", 256, Some(5), Some(1)), ("two", 0, None, Some(2)), ("here", 1, None, None)]);
    let plain = &plan.backends[1];
    assert_eq!(plain.check, Some(a_check(http("/", None, (200, 399)), 2, 3, 2)));
    let [connect, server, queue, tunnel, check, session] = [5, 60, 10, 3600, 2, 30].map(Duration::from_secs);
    assert_eq!(
        plain.timeout,
        BackendTimeouts { connect, server, queue, tunnel, server_fin: None, session, check }
    );
    assert_eq!((plain.retries, plain.redispatch), (3, false));
    assert_eq!(plan.backends[2].check, None);
}

#[test]
fn a_tier_is_expanded_to_its_instances() {
    let text = r#"
        backend app { servers tomcat=app weight=3 max-connections=7; }
        tomcat app { on c a; instances 2 first-port=8081; }
    "#;
    let plan = plan(text);
    let servers: Vec<String> =
        plan.backends[0].servers.iter().map(|s| format!("{} {}", s.name, s.address)).collect();
    assert_eq!(servers, ["c-1 10.0.0.3:8081", "c-2 10.0.0.3:8082", "a-1 10.0.0.1:8081", "a-2 10.0.0.1:8082"]);
    let first = &plan.backends[0].servers[0];
    assert_eq!((first.weight, first.max_connections, first.node), (3, Some(7), Some(NodeId(2))));
    let tier = &plan.tomcats[0];
    assert_eq!(
        (tier.instances, tier.first_port, tier.nodes.as_slice()),
        (2, 8081, [NodeId(2), NodeId(0)].as_slice())
    );
}

#[test]
fn listeners_of_different_nodes_are_in_nobodys_way() {
    plan(
        r#"
        frontend one { bind "10.0.0.1:80"; redirect scheme=https; }
        frontend two { on b; bind "*:80"; redirect scheme=https; }
        frontend three { on b; bind "[::]:80"; redirect scheme=https; }
        frontend both { on a b; bind "10.0.0.1:81"; bind "10.0.0.2:82"; redirect scheme=https; }
        frontend four { on b; bind "*:81"; redirect scheme=https; }
    "#,
    );
}

#[test]
fn everything_wrong_is_said_in_the_order_of_the_file() {
    let text = "platform x { admin 80; }\nnode a { link \"10.0.0\"; }\nvip v\nbackend b { retries 101; }\n";
    let rejected = parse("test.kdl", text).expect_err("many errors");
    let lines: Vec<usize> = rejected
        .diagnostics()
        .iter()
        .map(|d| relais_config::diagnostic::position(text, d.span.start).line)
        .collect();
    assert!(lines.is_sorted(), "{rejected}");
    assert_eq!(lines, [1, 2, 3, 4, 4], "{rejected}");
}

#[test]
fn a_file_too_long_or_too_deep_is_refused() {
    assert!(errors(&" ".repeat(1 << 20)).contains("1048576 are allowed"));
    assert!(errors(&"a {\n".repeat(100_000)).contains("nested more than 16 deep"));
    assert!(errors(&"/*".repeat(100_000)).contains("comment"));
    assert!(errors(&"/-".repeat(100_000)).contains("`/-`"));
    assert!(
        errors(&format!("{}{}", "/*".repeat(100), "*/".repeat(100))).contains("nested more than 16 deep")
    );
}

#[test]
fn an_empty_file_lacks_what_a_platform_has() {
    let told = parse("empty.kdl", "").expect_err("nothing in it").to_string();
    assert!(told.contains("has no `platform`") && told.contains("has no `node`"), "{told}");
}

#[test]
fn a_waiting_room_without_the_clusters_key_is_a_warning() {
    let text = |platform: &str| {
        let text = LEAST.replace("platform lab", &format!("platform lab {{ {platform} }}"));
        format!(
            "{text}frontend web {{ bind \"*:80\"; shield admit=50; default-backend app; }}\n\
             backend app {{ server s1 \"10.0.0.2:8080\"; }}\n"
        )
    };
    let with =
        parse("test.kdl", &text("secret cluster-key file=\"/etc/relais/cluster.key\"")).expect("a plan");
    assert_eq!(with.render(false), "");
    let shield = with.plan.frontends[0].shield.as_ref().expect("a shield");
    assert_eq!(shield.key.as_deref(), Some("/etc/relais/cluster.key"));
    assert_eq!((shield.queue, shield.admit, shield.refresh.as_secs()), (100, Some(50), 10));
    assert!(with.plan.files_on(NodeId(0)).iter().any(|file| &**file == "/etc/relais/cluster.key"));
    assert!(with.plan.pending.is_empty(), "the key is in use: {:?}", with.plan.pending);
    for platform in ["", "secret cluster-key credential=key"] {
        let without = parse("test.kdl", &text(platform)).expect("a plan");
        assert!(without.render(false).contains("`shield` signs with a key"), "{}", without.render(false));
        assert_eq!(without.plan.frontends[0].shield.as_ref().expect("a shield").key, None);
    }
}

#[test]
fn deny_alone_denies_with_403() {
    let rules = |action: &str| {
        let rule = format!("rule r {{ match path \"/a\"; {action}; }}");
        let text = format!("frontend web {{ bind \"*:80\"; {rule}; default-backend app; }}");
        let rest = "backend app { server s \"127.0.0.1:81\"; }";
        plan(&format!("{rest}\n{text}\n")).frontends[0].rules.clone()
    };
    assert_eq!(rules("deny"), rules("deny 403"));
    assert_ne!(rules("deny"), rules("deny 404"));
}

/// The notes that `check` makes of a pair of balancers, with this in `platform` and these other nodes.
fn notes_on_a_pair(platform: &str, others: &str) -> String {
    let text = format!(
        "platform lab {{ {platform}\n }}\nnode a {{ link \"10.0.0.1\"; }}\nnode b {{ link \"10.0.0.2\"; }}\n{others}\n\
         vip public {{ address \"10.0.0.100/24\" interface=eth0; router-id 51; node a priority=101; node b priority=100; }}\n\
         frontend web {{ bind \"*:80\"; redirect scheme=https; }}"
    );
    let report = relais_config::check("pair.kdl", &text, false);
    assert!(report.ok, "{}", report.text);
    report.text
}

#[test]
fn check_says_where_a_cut_link_can_make_two_masters() {
    let key = "secret cluster-key file=\"/dev/null\"";
    let text = notes_on_a_pair("", "node w { link \"10.0.0.3\"; }");
    assert!(text.contains("note: nodes exchange no heartbeats without a cluster-key"), "{text}");
    for elsewhere in ["", "node w { link \"10.0.1.3\"; }"] {
        let text = notes_on_a_pair(key, elsewhere);
        assert!(text.contains("no other node is on its network to say which of them is cut off"), "{text}");
    }
    let text = notes_on_a_pair(key, "node w { link \"10.0.0.3\"; }");
    assert!(!text.contains("note: n"), "{text}");
}

#[test]
fn names_that_heartbeats_cannot_tell_apart_are_refused() {
    let text = |other: &str| {
        let nodes =
            format!("node costarring {{ link \"10.0.0.1\"; }}\nnode {other} {{ link \"10.0.0.2\"; }}\n");
        relais_config::check("alike.kdl", &format!("platform lab\n{nodes}"), false).text
    };
    assert!(
        text("liquid").contains("`liquid` and `costarring` look the same to heartbeats"),
        "{}",
        text("liquid")
    );
    assert!(!text("solid").contains("look the same"), "{}", text("solid"));
}
