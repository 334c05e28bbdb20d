//! The HTTP/1 torture suite, where it is at hand: `h1-torture.py` and `h1-torture.jsonl` in the directory
//! that `RELAIS_SUITES` names, or in `../shared/suites` beside the workspace or `../../shared/suites`.

#![allow(clippy::unwrap_used)]

mod common;

use std::path::PathBuf;
use std::process::Command;

use common::*;

fn suites() -> Option<PathBuf> {
    let workspace = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let named = std::env::var_os("RELAIS_SUITES").map(PathBuf::from);
    let beside = ["../shared/suites", "../../shared/suites"].map(|path| workspace.join(path));
    named.into_iter().chain(beside).find(|dir| dir.join("h1-torture.jsonl").exists())
}

#[test]
fn every_case_of_the_torture_suite_passes() {
    let Some(suites) = suites() else {
        eprintln!("SKIPPED: h1-torture.jsonl is not at hand; name its directory in RELAIS_SUITES");
        return;
    };
    if Command::new("python3").arg("--version").output().is_err() {
        eprintln!("SKIPPED: there is no python3");
        return;
    }
    let backend = nobody();
    let door = Door::new(1);
    let front = "timeout request=\"5s\" client=\"5s\" keep-alive=\"5s\"\n forwarded-for";
    let _proxy = Proxy::start(&plan(&door, front, "timeout server=\"5s\"", &[backend]), &[&door]);
    let results = scratch("torture.json");
    let output = Command::new("python3")
        .arg(suites.join("h1-torture.py"))
        .args([door.address.to_string(), backend.port().to_string()])
        .arg("-v")
        .arg("-f")
        .arg(suites.join("h1-torture.jsonl"))
        .arg("-o")
        .arg(&results)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let report = std::fs::read_to_string(&results).unwrap();
    let _ = std::fs::remove_file(&results);
    let cases: serde_json::Value = serde_json::from_str(&report).unwrap();
    let cases = cases.as_object().unwrap();
    let bad: Vec<_> = cases.iter().filter(|(_, case)| case["verdict"] != "pass").collect();
    assert!(cases.len() >= 100 && bad.is_empty(), "{bad:#?}");
}
