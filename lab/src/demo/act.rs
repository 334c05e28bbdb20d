//! What a visitor can do to the platform, from the page or from the terminal, and the controller's loop:
//! it does it, looks at the platform, and says what it cost.

use std::fmt;
use std::io;
use std::time::Duration;

use relais_ipc::Channel;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{MissedTickBehavior, interval};

use super::Letter;
use super::outage::Row;
use super::platform::Platform;
use super::state::State;
use super::watch::{BalancerView, View, Watch};
use crate::process::Identity;

/// Time between two looks at the platform.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The visitor is told where to look once somebody holds the address, or after this long.
const GREET_AFTER_MS: u64 = 2_000;

/// One thing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Action {
    /// Pull a machine's network cable.
    CutLink,
    /// Plug it in again.
    MendLink,
    /// `SIGKILL` to a balancer's data plane.
    KillWorker,
    /// `SIGKILL` to the process that holds the virtual address.
    KillVip,
    /// `SIGKILL` to the control process.
    KillControl,
    /// `SIGKILL` to a balancer's supervisor alone.
    KillSupervisor,
    /// `SIGKILL` to every process of a balancer.
    KillAll,
    /// `SIGTERM` to a balancer's supervisor.
    Stop,
    /// `SIGHUP` to a balancer's supervisor.
    Reload,
    /// `SIGKILL` to an application instance.
    Kill,
    /// Start a balancer's Relais, or an instance, again.
    Start,
}

impl Action {
    const ALL: [Action; 11] = [
        Action::CutLink,
        Action::MendLink,
        Action::KillWorker,
        Action::KillVip,
        Action::KillControl,
        Action::KillSupervisor,
        Action::KillAll,
        Action::Stop,
        Action::Reload,
        Action::Kill,
        Action::Start,
    ];

    /// In a row of the page.
    const fn what(self) -> &'static str {
        match self {
            Action::CutLink => "network cable pulled",
            Action::MendLink => "network cable plugged in",
            Action::KillWorker => "proxy killed (SIGKILL)",
            Action::KillVip => "vip killed (SIGKILL)",
            Action::KillControl => "control killed (SIGKILL)",
            Action::KillSupervisor => "supervisor killed (SIGKILL)",
            Action::KillAll => "all of Relais killed (SIGKILL)",
            Action::Stop => "planned stop (SIGTERM)",
            Action::Reload => "plan reloaded (SIGHUP)",
            Action::Kill => "instance killed (SIGKILL)",
            Action::Start => "started",
        }
    }

    const fn kind(self) -> &'static str {
        match self {
            Action::MendLink | Action::Start => "revive",
            _ => "kill",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As in JSON, so that what is typed and what is posted are spelt alike.
        match serde_json::to_value(self) {
            Ok(serde_json::Value::String(name)) => f.write_str(&name),
            _ => Err(fmt::Error),
        }
    }
}

/// What to do to whom.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    /// A machine, an instance, or `holder`: the balancer that has the address.
    pub(crate) target: String,
    pub(crate) action: Action,
}

/// Why it was not done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// It makes no sense for that target.
    Wrong(String),
    /// Not now: what it needs is not there.
    NotNow(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Refusal::Wrong(why) | Refusal::NotNow(why)) = self;
        f.write_str(why)
    }
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Done {
    /// The row that tells what it cost.
    pub(crate) row: u64,
    /// On whom, by name.
    pub(crate) target: String,
}

/// An act that the page asks for, and where its answer goes.
pub(crate) type Order = (Act, oneshot::Sender<Result<Done, Refusal>>);

/// Something whose end is awaited.
struct Pending {
    row: u64,
    target: String,
    action: Action,
    before: View,
}

/// Does what the page and the terminal say, and looks, until the front is gone.
pub(crate) async fn obey(
    front: &Channel,
    mut orders: mpsc::Receiver<Order>,
    platform: &mut Platform,
    state: &State,
) -> io::Result<()> {
    let mut watch = Watch::new(platform);
    let mut pending: Option<Pending> = None;
    let mut greeted = false;
    let mut looks = interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            letter = front.recv::<Letter>() => match letter? {
                Some((Letter::Typed(line), _)) => match typed(&line) {
                    Ok(Some(act)) => match begin(platform, state, &act) {
                        Ok(begun) => pending = Some(begun),
                        Err(refusal) => say(&format!("  {refusal}")),
                    },
                    Ok(None) => say(&help(platform)),
                    Err(why) => say(&why),
                },
                Some(_) => {}
                None => return Ok(()),
            },
            Some((act, answer)) = orders.recv() => {
                let result = begin(platform, state, &act).map(|begun| {
                    let done = Done { row: begun.row, target: begun.target.clone() };
                    pending = Some(begun);
                    done
                });
                let _ = answer.send(result); // the page may be gone
            }
            _ = looks.tick() => {
                platform.bury();
                let view = watch.look(platform).await;
                for balancer in &view.balancers {
                    platform.expect_orphans(balancer.processes.iter().skip(1).filter_map(|process| process.pid));
                }
                let closed = look_back(state, view, &mut pending);
                closed.iter().for_each(|row| say(&line(row)));
                if !greeted && (state.lock().view.holder.is_some() || state.now_ms() > GREET_AFTER_MS) {
                    greeted = true;
                    greet(platform, state);
                }
            }
        }
    }
}

/// Puts a new view in place and brings the rows up to date; the rows that were closed.
fn look_back(state: &State, view: View, pending: &mut Option<Pending>) -> Vec<Row> {
    let now_ms = state.now_ms();
    let mut changing = state.lock();
    if changing.ledger.open_row().is_none()
        && let Some((target, action, what)) = died(&changing.view, &view)
    {
        // Some time between the last look and this one.
        let since_ms = now_ms.saturating_sub(2 * LOOK_EVERY.as_millis() as u64);
        let row = changing.ledger.discover(since_ms, &what, &target);
        *pending = Some(Pending { row, target, action, before: changing.view.clone() });
    }
    if let Some(pending) = pending
        && changing.ledger.open_row().is_some_and(|row| row.id == pending.row)
    {
        changing.ledger.then(pending.row, &then(pending, &view));
    }
    changing.view = view;
    changing.ledger.pass(now_ms)
}

/// Who died between two looks though nobody did anything here: where, as what act, and in words.
fn died(before: &View, now: &View) -> Option<(String, Action, String)> {
    for old in before.balancers.iter().filter(|old| !old.stopping) {
        let new = now.balancer(&old.name)?;
        for process in old.processes.iter().filter(|process| process.pid.is_some()) {
            let same = new.processes.iter().find(|other| other.role == process.role);
            let action = match process.role.as_str() {
                "proxy" => Action::KillWorker,
                "vip" => Action::KillVip,
                "control" => Action::KillControl,
                _ => Action::KillSupervisor,
            };
            // A supervisor that does not answer just now says nothing about its children.
            if same.is_some_and(|same| same.pid != process.pid) {
                let what = format!("{} killed from outside", process.role);
                return Some((old.name.clone(), action, what));
            }
        }
    }
    let instances =
        |view: &View| view.servers.iter().flat_map(|server| server.instances.clone()).collect::<Vec<_>>();
    let gone =
        instances(before).into_iter().zip(instances(now)).find(|(old, new)| old.running && !new.running);
    gone.map(|(old, _)| (old.name, Action::Kill, "instance killed from outside".to_owned()))
}

/// Does an act; its row is open from the moment before it.
fn begin(platform: &mut Platform, state: &State, act: &Act) -> Result<Pending, Refusal> {
    let before = state.lock().view.clone();
    let target = match act.target.as_str() {
        "holder" => {
            before.holder.clone().ok_or_else(|| Refusal::NotNow("nobody holds the address now".into()))?
        }
        name => name.to_owned(),
    };
    let row = state.lock().ledger.open(state.now_ms(), act.action.kind(), act.action.what(), &target);
    let action = act.action;
    match perform(platform, &before, &target, action) {
        Ok(()) => Ok(Pending { row, target, action, before }),
        Err(refusal) => {
            state.lock().ledger.forget(row);
            Err(refusal)
        }
    }
}

fn perform(platform: &mut Platform, view: &View, target: &str, action: Action) -> Result<(), Refusal> {
    let not_now = |error: io::Error| Refusal::NotNow(error.to_string());
    if let Some(i) = platform.balancers.iter().position(|balancer| balancer.name == target) {
        let (name, known) = (platform.balancers[i].name, view.balancer(target));
        return match action {
            Action::CutLink | Action::MendLink => set_link(platform, name, action == Action::MendLink),
            Action::Start => match platform.supervisor(i) {
                Some(_) => Err(Refusal::NotNow(format!("Relais runs on {target}"))),
                None => platform.start_balancer(i).map_err(not_now),
            },
            Action::Stop => signal(&[supervisor(platform, i)?], Signal::TERM),
            Action::Reload => signal(&[supervisor(platform, i)?], Signal::HUP),
            Action::KillSupervisor => signal(&[supervisor(platform, i)?], Signal::KILL),
            Action::KillAll => {
                let first = supervisor(platform, i)?;
                let rest = known.into_iter().flat_map(|view| &view.processes[1..]);
                let rest = rest.filter_map(|process| Identity::of(process.pid?));
                signal(&[vec![first], rest.collect()].concat(), Signal::KILL)
            }
            Action::KillWorker => signal(&[child(known, "proxy")?], Signal::KILL),
            Action::KillVip => signal(&[child(known, "vip")?], Signal::KILL),
            Action::KillControl => signal(&[child(known, "control")?], Signal::KILL),
            Action::Kill => {
                Err(Refusal::Wrong(format!("`kill` is for an application instance, not for {target}")))
            }
        };
    }
    if let Some(i) = platform.instances.iter().position(|instance| instance.name == target) {
        return match (action, platform.instance(i)) {
            (Action::Kill, Some(process)) => signal(&[process], Signal::KILL),
            (Action::Kill, None) => Err(Refusal::NotNow(format!("{target} is dead already"))),
            (Action::Start, None) => platform.start_instance(i).map_err(not_now),
            (Action::Start, Some(_)) => Err(Refusal::NotNow(format!("{target} runs"))),
            _ => Err(Refusal::Wrong(format!(
                "to an application instance one does `kill` or `start`, not `{action}`"
            ))),
        };
    }
    let machine =
        platform.instances.iter().map(|instance| instance.machine).find(|machine| *machine == target);
    match (machine, action) {
        (Some(machine), Action::CutLink | Action::MendLink) => {
            set_link(platform, machine, action == Action::MendLink)
        }
        (Some(_), _) => {
            Err(Refusal::Wrong("to an application server one does `cut-link` or `mend-link`".into()))
        }
        (None, _) => Err(Refusal::Wrong(format!("there is no {target} here"))),
    }
}

fn set_link(platform: &mut Platform, machine: &'static str, plugged: bool) -> Result<(), Refusal> {
    if platform.linked(machine) == plugged && platform.has_network() {
        let state = if plugged { "in" } else { "pulled" };
        return Err(Refusal::NotNow(format!("the cable of {machine} is {state} already")));
    }
    platform.set_link(machine, plugged).map_err(|error| Refusal::NotNow(error.to_string()))
}

fn supervisor(platform: &Platform, i: usize) -> Result<Identity, Refusal> {
    let name = platform.balancers[i].name;
    platform.supervisor(i).ok_or_else(|| Refusal::NotNow(format!("Relais does not run on {name}")))
}

fn child(balancer: Option<&BalancerView>, role: &str) -> Result<Identity, Refusal> {
    let mut processes = balancer.into_iter().flat_map(|view| &view.processes);
    let pid = processes.find(|process| process.role == role).and_then(|process| process.pid);
    pid.and_then(Identity::of).ok_or_else(|| Refusal::NotNow(format!("there is no {role} process now")))
}

fn signal(processes: &[Identity], signal: Signal) -> Result<(), Refusal> {
    let hit = processes.iter().filter(|process| process.signal(signal)).count();
    if hit == 0 { Err(Refusal::NotNow("that process is gone already".into())) } else { Ok(()) }
}

/// What came of an act so far, one sentence.
fn then(pending: &Pending, now: &View) -> String {
    let holder = |view: &View| view.holder.clone().unwrap_or_default();
    let (before, after) = (holder(&pending.before), holder(now));
    if before != after && now.balancers.iter().any(|balancer| balancer.has_address) {
        return format!("{after} took the address over");
    }
    let (then, now) = (pending.before.balancer(&pending.target), now.balancer(&pending.target));
    let role = match pending.action {
        Action::KillWorker => "proxy",
        Action::KillVip => "vip",
        Action::KillControl => "control",
        Action::KillSupervisor | Action::KillAll | Action::Stop
            if before == after && before != pending.target =>
        {
            return format!("{before} kept the address");
        }
        Action::Reload => {
            let generation = |view: Option<&BalancerView>| view.map_or(0, |view| view.generation);
            let changed = generation(now) > generation(then);
            return if changed { format!("plan {} is in force", generation(now)) } else { String::new() };
        }
        Action::CutLink | Action::Kill if then.is_none() => return "the other instances answer".into(),
        Action::CutLink if before != pending.target => return format!("{before} kept the address"),
        Action::Start | Action::MendLink => return format!("{} is back", pending.target),
        _ => return String::new(),
    };
    let process = |view: Option<&BalancerView>| {
        view.and_then(|view| view.processes.iter().find(|process| process.role == role)).cloned()
    };
    match (process(then), process(now)) {
        (Some(old), Some(new)) if new.ready && new.pid != old.pid => {
            format!("the supervisor started a new {role} (pid {})", new.shown.unwrap_or_default())
        }
        _ => String::new(),
    }
}

/// What can be typed.
fn help(platform: &Platform) -> String {
    let cables = platform.has_network();
    let on = |words: &'static str| if cables { words } else { "" };
    format!(
        "  Type what to do and to whom, then Enter:\n    \
         {}kill-all, stop, reload, kill-worker, kill-vip, kill-control, kill-supervisor: holder, haproxy1, haproxy2\n    \
         kill: tomcat1-1, tomcat1-2, tomcat2-1, tomcat2-2{}\n    \
         {}start: what was {}killed\n  \
         An action alone is for the holder of the address. q ends the demo.",
        on("cut-link, "),
        on("; cut-link: tomcat1, tomcat2"),
        on("mend-link, "),
        on("cut or "),
    )
}

/// `ACTION [TARGET]`; nothing typed asks for help.
fn typed(line: &str) -> Result<Option<Act>, String> {
    let mut words = line.split_whitespace();
    let Some(word) = words.next() else { return Ok(None) };
    let action = Action::ALL.into_iter().find(|action| action.to_string() == word);
    let action = action.ok_or_else(|| format!("  There is no `{word}`; Enter alone says what there is."))?;
    Ok(Some(Act { target: words.next().unwrap_or("holder").to_owned(), action }))
}

/// A closed row for the terminal.
fn line(row: &Row) -> String {
    let Row { what, target, outage_ms, slowest_ms, failed, then, .. } = row;
    let then = if then.is_empty() { String::new() } else { format!("; {then}") };
    format!(
        "  {target}: {what}: {outage_ms} ms without an answer, slowest answer {slowest_ms} ms, {failed} failed{then}"
    )
}

/// To the visitor's terminal; one that went away is no error.
fn say(text: &str) {
    use std::io::Write;
    let _ = writeln!(io::stdout(), "{text}");
}

fn greet(platform: &Platform, state: &State) {
    let page = state.page();
    let first = platform.balancers[0].name;
    say(&format!(
        "\n  The platform runs on this machine. Open\n\n    http://{page}/    to watch it and to break it\n    \
         {}    to enrol through it\n",
        state.platform_url()
    ));
    if !platform.has_network() {
        say(
            "  On loopback addresses there is no virtual address that moves: the client itself tries the second balancer.\n",
        );
    }
    say(&format!(
        "{}\n\n  From another terminal: curl http://{page}/act --json '{{\"target\":\"{first}\",\"action\":\"kill-all\"}}'\n  \
         or kill -9 any process id that the page shows. Ctrl-C ends the demo and leaves nothing behind.\n",
        help(platform)
    ));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::watch::{InstanceView, ProcessView, ServerView};

    #[test]
    fn what_is_typed_is_an_action_and_the_holder_unless_somebody_is_named() {
        let act = |target: &str, action| Ok(Some(Act { target: target.to_owned(), action }));
        assert_eq!(typed("kill-all"), act("holder", Action::KillAll));
        assert_eq!(typed(" kill  tomcat1-2 "), act("tomcat1-2", Action::Kill));
        assert_eq!(typed("  "), Ok(None));
        assert!(typed("explode").unwrap_err().contains("no `explode`"));
        for action in Action::ALL {
            assert_eq!(typed(&action.to_string()), act("holder", action));
        }
    }

    #[test]
    fn a_takeover_is_told_by_the_name_of_the_new_holder() {
        let view = |holder: &str| View {
            holder: Some(holder.to_owned()),
            balancers: ["haproxy1", "haproxy2"]
                .map(|name| BalancerView {
                    name: name.into(),
                    has_address: name == holder,
                    ..Default::default()
                })
                .to_vec(),
            servers: Vec::new(),
        };
        let pending = |action, target: &str| Pending {
            row: 1,
            target: target.into(),
            action,
            before: view("haproxy1"),
        };
        let cut = pending(Action::CutLink, "haproxy1");
        assert_eq!(then(&cut, &view("haproxy2")), "haproxy2 took the address over");
        assert_eq!(then(&cut, &view("haproxy1")), "");
        assert_eq!(
            then(&pending(Action::KillAll, "haproxy2"), &view("haproxy1")),
            "haproxy1 kept the address"
        );
        assert_eq!(
            then(&pending(Action::Kill, "tomcat1-1"), &view("haproxy1")),
            "the other instances answer"
        );
    }

    #[test]
    fn a_death_that_nobody_asked_for_is_noticed_and_a_planned_one_is_not() {
        let process = |role: &str, pid| ProcessView { role: role.into(), pid, ..Default::default() };
        let view = |stopping, supervisor, proxy, running| View {
            balancers: vec![BalancerView {
                name: "haproxy1".into(),
                stopping,
                processes: vec![process("supervisor", supervisor), process("proxy", proxy)],
                ..Default::default()
            }],
            servers: vec![ServerView {
                instances: vec![InstanceView { name: "tomcat1-1".into(), running, ..Default::default() }],
                ..Default::default()
            }],
            ..Default::default()
        };
        let well = view(false, Some(1), Some(2), true);
        let action =
            |before: &View, now: &View| died(before, now).map(|(target, action, _)| (target, action));
        assert_eq!(died(&well, &well), None);
        assert_eq!(
            action(&well, &view(false, Some(1), Some(3), true)),
            Some(("haproxy1".into(), Action::KillWorker))
        );
        assert_eq!(
            action(&well, &view(false, None, Some(2), true)),
            Some(("haproxy1".into(), Action::KillSupervisor))
        );
        assert_eq!(
            action(&well, &view(false, Some(1), Some(2), false)),
            Some(("tomcat1-1".into(), Action::Kill))
        );
        assert_eq!(died(&view(true, Some(1), Some(2), true), &view(false, None, None, true)), None);
    }
}
