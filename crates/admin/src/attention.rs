//! What an operator should look at, in sentences, most urgent first. The page shows them on top and
//! `/status` carries them, so that whoever is called at night reads one list.

use relais_ipc::status::BackendStatus;
use relais_ipc::{FrontendState, Role, VipState};

use crate::snapshot::Snapshot;

/// The sentences for `snapshot`; none if all is well.
pub(crate) fn attention(snapshot: &Snapshot) -> Vec<String> {
    let mut sentences = Vec::new();
    let mut say = |sentence: String| sentences.push(sentence);
    if snapshot.node.stopping {
        say("This node is being stopped: it hands its addresses over and finishes what is open.".to_owned());
    }
    if let Some(standby) = &snapshot.node.standby {
        say(format!(
            "This node is in standby and holds no address, by {}; `relais ready` ends it.",
            standby.by
        ));
    }
    processes(snapshot, &mut say);
    vips(snapshot, &mut say);
    for backend in snapshot.proxy.iter().flat_map(|proxy| &proxy.backends) {
        servers(backend, &mut say);
    }
    sentences
}

fn processes(snapshot: &Snapshot, say: &mut impl FnMut(String)) {
    for process in &snapshot.node.processes {
        let name = process.role.name();
        let costs = match process.role {
            Role::Proxy => "new connections wait, and open ones were cut",
            Role::Vip => "no address is held here",
            Role::Control => "no traffic is affected",
        };
        match (process.pid, snapshot.missing(process.role)) {
            (None, _) => say(format!("{name} is not running and is being started again: {costs}.")),
            (Some(_), Some(why)) => {
                say(format!("{name} {why}: it may hang. It is pid {}.", pid(process.pid)))
            }
            (Some(_), None) if !process.ready => {
                say(format!(
                    "{name} has not put generation {} of the plan in force yet.",
                    snapshot.node.generation
                ));
            }
            (Some(_), None) => {}
        }
    }
    if snapshot.proxy.as_ref().is_some_and(|proxy| proxy.draining) && !snapshot.node.stopping {
        say("proxy is draining: it takes nothing new.".to_owned());
    }
}

fn pid(pid: Option<u32>) -> u32 {
    pid.unwrap_or_default()
}

fn vips(snapshot: &Snapshot, say: &mut impl FnMut(String)) {
    for vip in snapshot.vips.iter().flat_map(|vips| &vips.vips) {
        if vip.state == VipState::Fault && snapshot.node.standby.is_some() {
            continue; // that is what standby means
        }
        if vip.state == VipState::Fault {
            say(format!(
                "Address {} ({}) cannot be held here: {}",
                vip.address,
                vip.name,
                sentence(&vip.reason)
            ));
        } else if vip.state == VipState::Backup && vip.master.is_none() {
            say(format!("Nobody is seen to hold address {} ({}).", vip.address, vip.name));
        }
        for (what, _) in vip.tracked.iter().filter(|(_, state)| *state == FrontendState::Healing) {
            say(format!("Address {} depends on {what}, which is being healed.", vip.name));
        }
    }
}

fn servers(backend: &BackendStatus, say: &mut impl FnMut(String)) {
    let down: Vec<_> = backend.servers.iter().filter(|server| !server.up).collect();
    let some = backend.servers.iter().any(|server| server.up && server.weight > 0);
    if !some {
        say(format!("Backend {} has no server left: its requests get 503.", backend.name));
    }
    for server in down {
        say(format!(
            "Server {}/{} ({}) has been down for {}: {}",
            backend.name,
            server.name,
            server.address,
            ago(server.since_s),
            // What a new data plane was told by its predecessor.
            if server.check.is_empty() {
                "it has not been checked anew yet.".to_owned()
            } else {
                sentence(&server.check)
            }
        ));
    }
}

fn sentence(text: &str) -> String {
    let text = text.trim().trim_end_matches('.');
    if text.is_empty() { "no reason was given.".to_owned() } else { format!("{text}.") }
}

/// `45 s`, `12 min`, `3 h 5 min`, `2 d 4 h`.
fn ago(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::example;
    use crate::snapshot::Missing;
    use relais_ipc::status::ServerStatus;

    #[test]
    fn a_well_node_needs_no_attention() {
        assert_eq!(attention(&example()), Vec::<String>::new());
    }

    #[test]
    fn a_dead_process_is_said_with_what_it_costs() {
        let mut snapshot = example();
        snapshot.node.processes[0].pid = None;
        snapshot.proxy = None;
        snapshot.missing = vec![Missing { role: Role::Proxy, why: "is not running".into() }];
        assert_eq!(
            attention(&snapshot),
            [
                "proxy is not running and is being started again: new connections wait, and open ones were cut."
            ]
        );
        snapshot.node.processes[0].pid = Some(7);
        snapshot.missing[0].why = "has not answered within 500 ms".into();
        assert_eq!(attention(&snapshot), ["proxy has not answered within 500 ms: it may hang. It is pid 7."]);
        snapshot.missing.clear();
        snapshot.node.processes[0].ready = false;
        assert_eq!(attention(&snapshot), ["proxy has not put generation 3 of the plan in force yet."]);
    }

    #[test]
    fn a_dead_server_is_said_and_so_is_an_empty_backend() {
        let mut snapshot = example();
        let servers = &mut snapshot.proxy.as_mut().unwrap().backends[0].servers;
        let down = |server: &mut ServerStatus| {
            (server.up, server.check, server.since_s) = (false, "connection refused".into(), 7200);
        };
        down(&mut servers[0]);
        let first = "Server app/t1 (10.0.0.1:8081) has been down for 2 h 0 min: connection refused.";
        assert_eq!(attention(&snapshot), [first]);
        snapshot.proxy.as_mut().unwrap().backends[0].servers[0].check.clear();
        assert!(attention(&snapshot)[0].ends_with("down for 2 h 0 min: it has not been checked anew yet."));
        let servers = &mut snapshot.proxy.as_mut().unwrap().backends[0].servers;
        servers[0].check = "connection refused".into();
        down(&mut servers[1]);
        let all = attention(&snapshot);
        assert_eq!(all[0], "Backend app has no server left: its requests get 503.");
        assert_eq!((all.len(), &*all[1]), (3, first));
    }

    #[test]
    fn an_address_that_cannot_be_held_is_said_with_its_reason() {
        let mut snapshot = example();
        let vip = &mut snapshot.vips.as_mut().unwrap().vips[0];
        (vip.state, vip.reason) = (VipState::Fault, "frontend web is down".into());
        vip.tracked[0].1 = FrontendState::Healing;
        assert_eq!(
            attention(&snapshot),
            [
                "Address 192.0.2.180/24 (public) cannot be held here: frontend web is down.",
                "Address public depends on frontend web, which is being healed."
            ]
        );
        let vip = &mut snapshot.vips.as_mut().unwrap().vips[0];
        (vip.state, vip.master, vip.tracked[0].1) = (VipState::Backup, None, FrontendState::Up);
        assert_eq!(attention(&snapshot), ["Nobody is seen to hold address 192.0.2.180/24 (public)."]);
    }

    #[test]
    fn a_stop_is_not_an_alarm_of_its_own_drain() {
        let mut snapshot = example();
        snapshot.proxy.as_mut().unwrap().draining = true;
        assert_eq!(attention(&snapshot), ["proxy is draining: it takes nothing new."]);
        snapshot.node.stopping = true;
        assert_eq!(attention(&snapshot).len(), 1);
        assert!(attention(&snapshot)[0].starts_with("This node is being stopped"));
    }

    #[test]
    fn durations_are_said_in_two_units_at_most() {
        assert_eq!(
            [59, 60, 3599, 3600, 90_000].map(ago),
            ["59 s", "1 min", "59 min", "1 h 0 min", "1 d 1 h"]
        );
    }
}
