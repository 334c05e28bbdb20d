//! `relais standby`, `relais ready`, `relais move`: where addresses are to be. Each waits for the outcome and says it.

use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use relais_ipc::VipState;
use relais_ipc::message::{Answer, Ask, Moved};
use relais_ipc::status::{VipStatus, VipsStatus, fetch};

use super::{ask, fail, print};

/// Longest wait for the outcome: a hand-over's patience is three intervals, of at most 40.95 s, and a second.
const OUTCOME: Duration = Duration::from_secs(125);
/// The same where the interval is not known to be long.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LIMIT: Duration = Duration::from_secs(1);

/// `relais standby [NODE]`, `relais ready [NODE]`
pub(crate) fn standby(run_dir: &Path, on: bool, node: Option<String>) -> ExitCode {
    let held = vips(run_dir).map(|vips| vips.into_iter().filter(is_held).collect::<Vec<_>>());
    let (changed, forgets) = match ask(run_dir, &Ask::Standby { on, node, by: who() }, None) {
        Ok(Answer::Standby { changed, forgets }) => (changed, forgets),
        Ok(Answer::Refused { why }) => return fail(&format!("nothing was changed: {why}")),
        Ok(other) => return fail(&format!("the node answered something else: {other:?}")),
        Err(why) => return fail(&why),
    };
    print(match (on, changed) {
        (true, true) => "this node is in standby: it takes no address until `relais ready`\n",
        (true, false) => "this node is in standby already\n",
        (false, true) => "this node is ready: it may hold addresses again\n",
        (false, false) => "this node is ready already\n",
    });
    if !forgets.is_empty() {
        print(&format!("a restart of this node ends that: {forgets}\n"));
    }
    if !on {
        return ExitCode::SUCCESS;
    }
    let Ok(held) = held else { return fail("vip does not answer: see the journal") };
    let mut done = ExitCode::SUCCESS;
    for vip in held {
        match outcome(run_dir, &vip.name, |vip| vip.state != VipState::Master) {
            Some(VipStatus { name, master: Some(holder), .. }) => {
                print(&format!("vip {name}: {holder} has it\n"))
            }
            Some(VipStatus { name, .. }) => {
                print(&format!("vip {name}: NOBODY took it, and nobody answers for it now\n"));
            }
            None => done = fail(&format!("vip {} is still held here: see the journal", vip.name)),
        }
    }
    done
}

/// `relais move VIP NODE`
pub(crate) fn shift(run_dir: &Path, name: String, node: String) -> ExitCode {
    let before = match vips(run_dir) {
        Ok(vips) => vips.into_iter().find(|vip| vip.name == name),
        Err(why) => return fail(&why),
    };
    let move_it = Ask::Move { vip: name.clone(), node: node.clone(), by: who() };
    let here = match ask(run_dir, &move_it, None) {
        Ok(Answer::Moving { here }) => here,
        Ok(Answer::Refused { why }) => return fail(&format!("nothing was moved: {why}")),
        Ok(other) => return fail(&format!("the node answered something else: {other:?}")),
        Err(why) => return fail(&why),
    };
    if here && before.as_ref().is_some_and(is_held) {
        print(&format!("vip {name} is on {node} already\n"));
        return ExitCode::SUCCESS;
    }
    // Where nobody takes it the holder says so and goes on; where this node cannot it says so at once.
    let failed = |vip: &VipStatus| {
        if here { vip.state == VipState::Fault } else { vip.reason.contains("nobody took it") }
    };
    let arrived = |vip: &VipStatus| is_held(vip) == here;
    let limit = if here { Duration::from_secs(5) } else { OUTCOME };
    let after = outcome_within(run_dir, &name, limit, |vip| arrived(vip) || failed(vip));
    match after {
        Some(vip) if arrived(&vip) => {
            print(&said(&vip, &node, here));
            ExitCode::SUCCESS
        }
        Some(vip) => fail(&format!("vip {name} was not moved: {}", vip.reason)),
        None => fail(&format!("vip {name} was not moved: the journal says why")),
    }
}

/// What was done, and what ends it.
fn said(vip: &VipStatus, node: &str, here: bool) -> String {
    let name = &vip.name;
    let holds = match (here, vip.moved) {
        (true, Some(Moved::Here(priority))) => format!(
            "it is held with priority {priority} here, until this node fails or stops, or it is moved again"
        ),
        (true, _) => "where the plan has it by priority: nothing else holds it there".to_owned(),
        (false, Some(Moved::Away)) => {
            "this node, of higher priority, takes it back when that one fails or stops, or by `relais move`"
                .to_owned()
        }
        (false, _) => "priorities decide from now on".to_owned(),
    };
    format!("vip {name} is on {node} now; {holds}\n")
}

fn is_held(vip: &VipStatus) -> bool {
    vip.state == VipState::Master
}

fn vips(run_dir: &Path) -> Result<Vec<VipStatus>, String> {
    let status: VipsStatus = fetch(&run_dir.join("vip.sock"), LIMIT)
        .map_err(|error| format!("vip in {} does not answer: {error}", run_dir.display()))?;
    Ok(status.vips)
}

fn outcome(run_dir: &Path, name: &str, done: impl Fn(&VipStatus) -> bool) -> Option<VipStatus> {
    outcome_within(run_dir, name, OUTCOME, done)
}

/// Waits until the address's status is `done`.
fn outcome_within(
    run_dir: &Path,
    name: &str,
    limit: Duration,
    done: impl Fn(&VipStatus) -> bool,
) -> Option<VipStatus> {
    let begin = Instant::now();
    while begin.elapsed() < limit {
        let vip = vips(run_dir).ok().and_then(|vips| vips.into_iter().find(|vip| vip.name == name));
        if let Some(vip) = vip.filter(&done) {
            return Some(vip);
        }
        std::thread::sleep(LOOK_EVERY); // a status document has no event to wait for
    }
    None
}

/// Who asks: the person behind `sudo`, else the user that runs the command.
fn who() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|name| !name.is_empty() && name.len() <= 64);
    let plain = |name: &String| name.chars().all(|c| c.is_ascii_graphic());
    let uid = rustix::process::getuid().as_raw();
    match named("SUDO_USER").or_else(|| named("USER")).filter(plain) {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("uid {uid}"),
    }
}
