//! Every way of speaking VRRP that both Relais and Debian's keepalived know, in both roles, at once: versions 2 and
//! 3, IPv4 and IPv6, group and peers, with a password and without, with the same interval and with different ones.

#![allow(clippy::unwrap_used)] // helpers are not tests to clippy

mod common;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use common::keepalived::Keepalived;
use common::{Lan, Vip, ready, run};
use relais_ipc::{Order, Report, VipState};

const SECOND: Duration = Duration::from_secs(1);
/// Machines of the test.
const RELAIS: usize = 0;
const KEEPALIVED: usize = 1;

/// A way of speaking.
#[derive(Clone, Copy, Debug)]
struct Way {
    version: u8,
    v6: bool,
    unicast: bool,
    password: Password,
    /// Seconds between advertisements: Relais's, keepalived's.
    intervals: (f32, f32),
}

/// How a virtual router is kept apart from strangers.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Password {
    None,
    Plain,
    Header,
}

use Password::{Header, None as Open, Plain};

const fn way(version: u8, v6: bool, unicast: bool, password: Password, intervals: (f32, f32)) -> Way {
    Way { version, v6, unicast, password, intervals }
}

const WAYS: [Way; 12] = [
    way(2, false, false, Open, (1.0, 1.0)),
    way(2, false, false, Plain, (1.0, 1.0)),
    way(2, false, true, Open, (1.0, 1.0)),
    way(2, false, true, Plain, (1.0, 1.0)),
    way(2, false, false, Header, (1.0, 1.0)),
    way(2, false, true, Header, (1.0, 1.0)),
    way(3, false, false, Open, (0.4, 0.4)),
    way(3, false, true, Open, (0.4, 0.4)),
    way(3, false, false, Open, (0.3, 0.8)), // the master's counts
    way(3, true, false, Open, (0.4, 0.4)),
    way(3, true, true, Open, (0.4, 0.4)),
    way(3, true, false, Open, (0.8, 0.3)),
];

/// One virtual router: a way, and who is to be its master while both are well.
#[derive(Clone, Copy, Debug)]
struct Router {
    way: Way,
    master: usize,
    id: u8,
}

impl Router {
    fn all() -> Vec<Router> {
        let both = WAYS.iter().flat_map(|way| [RELAIS, KEEPALIVED].map(|master| (*way, master)));
        both.zip(100..).map(|((way, master), id)| Router { way, master, id }).collect()
    }

    fn addresses(&self) -> Vec<String> {
        match self.way.v6 {
            true => vec![format!("fe80::{0}/64", self.id), format!("fd09::{0}/64", self.id)],
            false => vec![format!("10.9.0.{}/24", self.id), format!("10.9.1.{}/24", self.id)],
        }
    }

    fn priority(&self, of: usize) -> u8 {
        if of == self.master { 150 } else { 100 }
    }

    fn vip(&self) -> String {
        let Way { version, unicast, password, intervals, .. } = self.way;
        let lines: String =
            self.addresses().iter().map(|a| format!("address \"{a}\" interface=eth0\n")).collect();
        let unicast = if unicast { "unicast" } else { "" };
        let password = match password {
            Open => String::new(),
            Plain => format!("password \"{}\"", password_file()),
            Header => format!("password \"{}\" method=ah", password_file()),
        };
        format!(
            "vip v{0} {{\n{lines}router-id {0}\nnode a priority={1}\nnode b priority={2}\nversion {version}\n\
             advertise \"{3}ms\"\n{unicast}\n{password}\n}}\n",
            self.id,
            self.priority(RELAIS),
            self.priority(KEEPALIVED),
            (intervals.0 * 1000.0) as u32
        )
    }

    fn instance(&self) -> String {
        let Way { version, v6, unicast, password, intervals } = self.way;
        let addresses = self.addresses().join("\n    ");
        let kind = match password {
            Open => None,
            Plain => Some("PASS"),
            Header => Some("AH"),
        };
        let password = kind.map_or(String::new(), |kind| {
            format!("  authentication {{\n    auth_type {kind}\n    auth_pass secret99\n  }}\n")
        });
        let unicast = match (unicast, v6) {
            (false, _) => "",
            (true, false) => "  unicast_src_ip 10.9.0.2\n  unicast_peer {\n    10.9.0.1\n  }\n",
            (true, true) => {
                "  unicast_src_ip fd09::2\n  unicast_ttl 255\n  unicast_peer {\n    fd09::1\n  }\n"
            }
        };
        format!(
            "vrrp_instance v{0} {{\n  state BACKUP\n  interface eth0\n  virtual_router_id {0}\n  version {version}\n  \
             priority {1}\n  advert_int {2}\n{unicast}{password}  virtual_ipaddress {{\n    {addresses}\n  }}\n}}\n",
            self.id,
            self.priority(KEEPALIVED),
            intervals.1
        )
    }
}

fn password_file() -> String {
    std::env::temp_dir().join(format!("rlxvip-{}.password", std::process::id())).display().to_string()
}

/// The virtual routers whose addresses the machine has, all of them.
fn held(lan: &Lan, machine: usize, routers: &[Router]) -> BTreeSet<u8> {
    let there = run(&format!("ip -n {} -o address show dev eth0", lan.machine(machine)));
    let has = |router: &&Router| {
        let count = router.addresses().iter().filter(|a| there.contains(&format!(" {a} "))).count();
        assert!(count == 0 || there.contains("eth0"), "{there}");
        count == router.addresses().len()
    };
    routers.iter().filter(has).map(|router| router.id).collect()
}

/// Waits until each machine holds what `relais` says it should, and nothing else.
fn await_held(
    lan: &Lan,
    routers: &[Router],
    limit: Duration,
    what: &str,
    by_relais: impl Fn(&Router) -> bool,
) {
    let begin = Instant::now();
    let (ours, theirs): (Vec<Router>, Vec<Router>) = routers.iter().partition(|r| by_relais(r));
    let ids = |routers: &[Router]| routers.iter().map(|r| r.id).collect::<BTreeSet<u8>>();
    loop {
        let (a, b) = (held(lan, RELAIS, routers), held(lan, KEEPALIVED, routers));
        if (a == ids(&ours), b == ids(&theirs)) == (true, true) {
            return;
        }
        assert!(
            begin.elapsed() < limit,
            "{what}: Relais holds {a:?} and not {:?}, keepalived {b:?} and not {:?}, after {limit:?}",
            ids(&ours),
            ids(&theirs)
        );
    }
}

/// Watches that nothing moves for longer than the longest time-out.
fn await_calm(lan: &Lan, routers: &[Router]) {
    let begin = Instant::now();
    while begin.elapsed() < 4 * SECOND {
        await_held(lan, routers, SECOND / 100, "in the calm", |r| r.master == RELAIS);
    }
}

/// keepalived refuses nothing that Relais says.
fn assert_understood(log: &str) {
    let complaints = ["nvalid", "ismatch", "ncorrect", "gnoring", "hecksum", "bogus", "discard"];
    let lines = log.lines().filter(|line| !line.contains("received lower priority"));
    let lines = lines.filter(|line| complaints.iter().any(|word| line.contains(word)));
    let lines: Vec<&str> = lines.collect();
    assert!(lines.is_empty(), "keepalived complains: {lines:#?}");
}

#[tokio::test]
async fn keepalived_and_relais_follow_each_other_in_every_way_that_both_speak() {
    if !ready(&["ip", "keepalived"]) {
        return;
    }
    let lan = Lan::new(&["a", "b"]);
    for i in [RELAIS, KEEPALIVED] {
        run(&format!("ip -n {} address add fd09::{}/64 dev eth0 nodad", lan.machine(i), i + 1));
    }
    for i in [RELAIS, KEEPALIVED] {
        let begin = Instant::now();
        while !run(&format!("ip -n {} -6 -o address show tentative", lan.machine(i))).is_empty() {
            assert!(begin.elapsed() < 5 * SECOND, "machine {i} still looks whether its addresses are taken");
        }
    }
    std::fs::write(password_file(), "secret99\n").unwrap();
    let routers = Router::all();
    let links = |i: usize| format!("link \"10.9.0.{i}\"; link \"fd09::{i}\";");
    let text = format!(
        "platform test {{\n drain \"1s\"\n}}\nnode a {{ {} }}\nnode b {{ {} }}\n{}\
         frontend web {{\n bind \"*:80\"\n redirect scheme=https\n}}\n",
        links(1),
        links(2),
        routers.iter().map(Router::vip).collect::<String>()
    );
    let instances: String = routers.iter().map(Router::instance).collect();
    let conf = format!(
        "global_defs {{\n  router_id peer\n  vrrp_rt_priority 50\n  vrrp_rlimit_rttime 5000000\n}}\n{instances}"
    );

    let mut peer = Keepalived::start(&lan, KEEPALIVED, &conf);
    let mut relais = Vip::with_plan(lan.machine(RELAIS), "a", &text).await;
    let own = |r: &Router| r.master == RELAIS;
    await_held(&lan, &routers, 12 * SECOND, "from the start", own);
    await_calm(&lan, &routers);

    // Killed: keepalived takes everything after its time-outs, and the kernel takes what Relais had.
    relais.kill();
    await_held(&lan, &routers, 6 * SECOND, "after Relais was killed", |_| false);
    let relais = Vip::with_plan(lan.machine(RELAIS), "a", &text).await;
    await_held(&lan, &routers, 8 * SECOND, "after Relais came back", own);

    // Priority 0: less than any time-out, which is 3 intervals (of 1 s in version 2) and the skew.
    relais.order(Order::HandOver).await;
    let took = relais.await_report("HandedOver", |report| *report == Report::HandedOver).await;
    assert!(took < 2 * SECOND, "the hand-over took {took:?}");
    await_held(&lan, &routers, SECOND, "after Relais handed over", |_| false);
    relais.plan(2, &text).await;
    await_held(&lan, &routers, 8 * SECOND, "after Relais was wanted again", own);

    peer.stop();
    await_held(&lan, &routers, 2 * SECOND, "after keepalived said farewell", |_| true);
    assert_understood(&peer.log());
    let mut peer = Keepalived::start(&lan, KEEPALIVED, &conf);
    await_held(&lan, &routers, 8 * SECOND, "after keepalived came back", own);
    await_calm(&lan, &routers);

    let status = relais.status_socket().await;
    let refused: Vec<_> =
        status.all().await.vips.into_iter().filter(|v| v.adverts_refused_total > 0).collect();
    assert!(refused.is_empty(), "Relais refuses what keepalived says: {refused:?}");
    assert_understood(&peer.log());
    peer.kill(); // which leaves its addresses behind
    let begin = Instant::now();
    while held(&lan, RELAIS, &routers).len() < routers.len() {
        assert!(begin.elapsed() < 6 * SECOND, "Relais holds {:?} only", held(&lan, RELAIS, &routers));
    }
    let _ = std::fs::remove_file(password_file());
}

/// The files of the first installation: version 2, no password, a script; `SLAVE`, which keepalived does not know, is
/// what it calls BACKUP.
#[tokio::test]
async fn relais_is_either_half_of_the_pair_that_it_replaces() {
    if !ready(&["ip", "keepalived"]) {
        return;
    }
    for (ours, conf) in [
        (100, include_str!("progres/keepalived-master.conf")),
        (101, include_str!("progres/keepalived-slave.conf")),
    ] {
        let lan = Lan::new(&["a", "b"]);
        let text = format!(
            "platform test {{\n drain \"1s\"\n}}\nnode a {{ link \"10.9.0.1\"; }}\n\
             vip public {{\n address \"192.168.112.180/32\" interface=eth0\n router-id 51\n node a priority={ours}\n \
             version 2\n}}\nfrontend web {{\n bind \"*:80\"\n redirect scheme=https\n}}\n"
        );
        let holds = |i: usize| {
            let there = run(&format!("ip -n {} -o address show dev eth0", lan.machine(i)));
            there.contains(" 192.168.112.180/32 ")
        };
        let await_holder = |wanted: (bool, bool), what: &str| {
            let begin = Instant::now();
            while (holds(0), holds(1)) != wanted {
                assert!(
                    begin.elapsed() < 8 * SECOND,
                    "{what}: Relais and keepalived hold it: {:?}",
                    (holds(0), holds(1))
                );
            }
        };
        let relais = Vip::with_plan(lan.machine(0), "a", &text).await;
        relais.await_state(VipState::Master).await;
        let mut peer = Keepalived::start(&lan, 1, conf);
        if ours == 100 {
            await_holder((false, true), "keepalived has the higher priority");
            peer.stop();
            await_holder((true, false), "keepalived said farewell");
        } else {
            let begin = Instant::now();
            while !peer.log().contains("BACKUP STATE") {
                assert!(begin.elapsed() < 8 * SECOND, "keepalived says {}", peer.log());
                assert!(holds(0), "Relais has the higher priority");
            }
            relais.order(Order::HandOver).await;
            await_holder((false, true), "Relais handed over");
        }
        assert_understood(&peer.log().replace("unknown state 'SLAVE'", ""));
    }
}
