//! The commands that are not the platform itself: they read a file or ask a running node.

mod certificates;
mod forward;
pub(crate) mod lab;
pub(crate) mod moves;
mod programs;
pub(crate) mod servers;
pub(crate) mod status;
pub(crate) mod tables;

use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use relais_config::Plan;
use relais_ipc::Channel;
use relais_ipc::channel::text_to_fd;
use relais_ipc::message::{Answer, Ask};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};

use crate::supervisor::read_plan;

/// Longest wait for a node's answer; an apply is given up by the node itself before that.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

/// `relais check FILE [--node NAME]`
pub(crate) fn check(file: &Path, node: Option<&str>) -> ExitCode {
    let text = match read_plan(file) {
        Ok(text) => text,
        Err(why) => return fail(&why),
    };
    let (colour, shown) = (io::stdout().is_terminal(), file.display().to_string());
    if let Some(name) = node
        && let Ok(checked) = relais_config::parse(&shown, &text)
        && checked.plan.node(name).is_none()
    {
        return fail(&format!("{shown} has no node `{name}`"));
    }
    let look = |plan: &Plan| {
        let node = node.and_then(|name| plan.node(name));
        let mut remarks = certificates::look(plan, node);
        remarks.extend(programs::look(plan, node));
        remarks.extend(forward::look(plan));
        remarks
    };
    let report = relais_config::check_with(&shown, &text, colour, look);
    print(&report.text);
    if report.ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// `relais explain [DIRECTIVE]`
pub(crate) fn explain(directive: Option<&str>) -> ExitCode {
    match relais_config::explain(directive.unwrap_or_default()) {
        Ok(text) => {
            print(&text);
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why),
    }
}

/// `relais apply FILE`
pub(crate) fn apply(file: &Path, run_dir: &Path) -> ExitCode {
    let shown = file.display().to_string();
    let text = match read_plan(file) {
        Ok(text) => text,
        Err(why) => return fail(&why),
    };
    match ask(run_dir, &Ask::Apply { file: shown.clone() }, Some(&text)) {
        Ok(Answer::Applied { generation, dropped }) => {
            print(&format!("{shown} is in force (generation {generation})\n"));
            dropped.iter().for_each(|why| print(&format!("{why}\n")));
            ExitCode::SUCCESS
        }
        Ok(Answer::Refused { why }) if why.contains('\n') => fail(&format!("nothing was changed:\n{why}")),
        Ok(Answer::Refused { why }) => fail(&format!("nothing was changed: {why}")),
        Ok(other) => fail(&format!("the node answered something else: {other:?}")),
        Err(why) => fail(&why),
    }
}

/// `relais release FILE --node NAME`
pub(crate) fn release(file: &Path, node: &str, run_dir: &Path) -> ExitCode {
    let shown = file.display().to_string();
    let sockets =
        [("relais.sock", "a node", SocketType::SEQPACKET), ("vip.sock", "a node's vip", SocketType::STREAM)];
    for (socket, who, kind) in sockets {
        if is_listened_on(&run_dir.join(socket), kind) {
            return fail(&format!(
                "{who} runs in {}: stop it, and it leaves nothing behind",
                run_dir.display()
            ));
        }
    }
    let plan = read_plan(file).and_then(|text| {
        let checked = relais_config::parse(&shown, &text);
        checked
            .map(|checked| checked.plan)
            .map_err(|_| format!("{shown} has errors: see `relais check {shown}`"))
    });
    match plan.and_then(|plan| relais_vip::release(&plan, node)) {
        Ok(found) if found.is_empty() => print("nothing was left\n"),
        Ok(found) => found.iter().for_each(|what| print(&format!("removed {what}\n"))),
        Err(why) => return fail(&why),
    }
    ExitCode::SUCCESS
}

/// Whether a process listens there: the socket of one that is dead refuses.
fn is_listened_on(path: &Path, kind: SocketType) -> bool {
    let connect = || {
        let socket = rustix::net::socket(AddressFamily::UNIX, kind, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)
    };
    connect().is_ok()
}

/// Asks the supervisor of the node whose run directory this is.
fn ask(run_dir: &Path, ask: &Ask, text: Option<&str>) -> Result<Answer, String> {
    ask_for_more(run_dir, ask, text).map(|(answer, _)| answer)
}

/// The same, with the descriptor that came with the answer.
fn ask_for_more(run_dir: &Path, ask: &Ask, text: Option<&str>) -> Result<(Answer, Option<OwnedFd>), String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("cannot start: {error}"))?;
    let shown = run_dir.display();
    runtime.block_on(async {
        let channel = Channel::connect(&run_dir.join("relais.sock")).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                format!("no node runs in {shown}: start it with `relais run`, or name its --run-dir")
            }
            io::ErrorKind::PermissionDenied => {
                format!("only the user that runs the node in {shown} may ask it")
            }
            _ => format!("the node in {shown} cannot be asked: {error}"),
        })?;
        let fd =
            text.map(text_to_fd).transpose().map_err(|error| format!("no memory for the plan: {error}"))?;
        let question = async {
            channel.send(ask, fd.as_ref().map(AsFd::as_fd)).await?;
            channel.recv::<Answer>().await
        };
        match tokio::time::timeout(ANSWER_LIMIT, question).await {
            Ok(Ok(Some(answered))) => Ok(answered),
            Ok(Ok(None)) => Err(format!("the node in {shown} ended before it answered")),
            Ok(Err(error)) => Err(format!("the node in {shown} cannot be asked: {error}")),
            Err(_) => Err(format!("the node in {shown} did not answer in {} s", ANSWER_LIMIT.as_secs())),
        }
    })
}

/// Prints to the standard output; a reader that went away (`| head`) is no error.
fn print(text: &str) {
    let _ = io::stdout().write_all(text.as_bytes());
}

/// Says why it could not be done.
fn fail(why: &str) -> ExitCode {
    eprintln!("relais: {}", why.trim_end());
    ExitCode::FAILURE
}
