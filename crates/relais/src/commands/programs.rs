//! What `relais check` says of the programs that a plan has run (`track script`, `check exec`), where this machine has them.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use relais_config::plan::{NodeId, Plan};
use relais_config::{Remark, Severity};

/// Any of the bits that let somebody run a file.
const ANYBODY: u32 = 0o111;
/// The bit that lets a user run it who is neither its owner nor in its group, as control's is.
const OTHERS: u32 = 0o001;

/// `node`: this machine is that one, and has to have what it runs. Else a program that is not here may be elsewhere.
pub(crate) fn look(plan: &Plan, node: Option<NodeId>) -> Vec<Remark> {
    let nodes = (0u16..).map(NodeId).take(plan.nodes.len()).filter(|id| node.is_none_or(|node| node == *id));
    let commands = nodes.flat_map(|node| plan.scripts_on(node)).map(|script| script.command);
    let programs: BTreeSet<PathBuf> =
        commands.filter_map(|command| command.split_whitespace().next().map(PathBuf::from)).collect();
    programs.into_iter().filter_map(|program| remark(program, node.is_some())).collect()
}

/// What is wrong with it, if something is.
fn remark(program: PathBuf, here: bool) -> Option<Remark> {
    let shown = program.display();
    let (missing, message, help) = match program.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => (
            true,
            format!("the program {shown} is not on this machine"),
            "put it there, on every node that runs it: until then it fails",
        ),
        Err(error) => (
            false,
            format!("the program {shown} cannot be looked at: {error}"),
            "run `relais check` as root to have it looked at",
        ),
        Ok(found) => {
            let mode = found.permissions().mode();
            let why = match mode {
                _ if !found.is_file() => "is no file",
                mode if mode & ANYBODY == 0 => "may be run by nobody",
                mode if mode & OTHERS == 0 => "may not be run by users without privileges, as Relais runs it",
                _ => return None,
            };
            let help = match found.is_file() {
                true => "`chmod 755` it",
                false => "name a program, with its arguments behind it",
            };
            (false, format!("the program {shown} {why}"), help)
        }
    };
    let severity = if here { Severity::Error } else { Severity::Warning };
    Some(Remark { path: program, severity, missing, message, help: help.to_owned() })
}
