//! The house's own rules, kept by the machine: which crate may know which, and where `unsafe` may stand.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each crate and the ones of this workspace that it may use (ARCHITECTURE.md, "Arrows").
/// `dev` dependencies count as well: a core's tests must not need a shell.
const ARROWS: &[(&str, &[&str])] = &[
    ("relais-base", &[]),
    ("relais-http", &["relais-base"]),
    ("relais-balance", &["relais-base"]),
    ("relais-cluster", &["relais-base"]),
    ("relais-vrrp", &["relais-base"]),
    ("relais-rules", &[]),
    ("relais-checks", &[]),
    ("relais-config", &["relais-base", "relais-cluster", "relais-http", "relais-rules"]),
    ("relais-ipc", &["relais-base"]),
    (
        "relais-proxy",
        &[
            "relais-base",
            "relais-http",
            "relais-balance",
            "relais-checks",
            "relais-cluster",
            "relais-rules",
            "relais-config",
            "relais-ipc",
        ],
    ),
    (
        "relais-vip",
        &["relais-balance", "relais-base", "relais-cluster", "relais-vrrp", "relais-config", "relais-ipc"],
    ),
    ("relais-admin", &["relais-balance", "relais-base", "relais-config", "relais-ipc"]),
    ("relais-sim", &["relais-base", "relais-cluster", "relais-vrrp"]),
    (
        "relais-fuzz",
        &[
            "relais-base",
            "relais-checks",
            "relais-cluster",
            "relais-config",
            "relais-http",
            "relais-proxy",
            "relais-rules",
            "relais-vrrp",
        ],
    ),
    ("relais-lab", &["relais-base", "relais-config", "relais-ipc"]),
    (
        "relais",
        &[
            "relais-base",
            "relais-config",
            "relais-ipc",
            "relais-proxy",
            "relais-vip",
            "relais-admin",
            "relais-lab",
        ],
    ),
];

/// Crates that the compiler itself keeps from clocks, sockets and threads.
const CORES: &[&str] = &["base", "http", "balance", "checks", "cluster", "vrrp", "rules"];

/// Files in which `unsafe` may stand.
const UNSAFE: &[&str] = &["crates/vip/src/sys.rs", "lab/src/sys.rs"];

/// A build with more packages than this has stopped looking at what it takes in.
const MOST_PACKAGES: usize = 250;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace is there")
}

fn metadata() -> serde_json::Value {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform"])
        .arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH))
        .current_dir(root())
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("cargo speaks JSON")
}

/// The workspace's crates, each with those of the workspace that it depends on.
fn arrows(metadata: &serde_json::Value) -> BTreeMap<String, Vec<String>> {
    let members: Vec<&str> =
        metadata["workspace_members"].as_array().unwrap().iter().map(|id| id.as_str().unwrap()).collect();
    let packages = metadata["packages"].as_array().unwrap();
    let ours = packages.iter().filter(|package| members.contains(&package["id"].as_str().unwrap()));
    ours.map(|package| {
        let dependencies = package["dependencies"].as_array().unwrap().iter();
        let names =
            dependencies.filter(|d| !d["path"].is_null()).map(|d| d["name"].as_str().unwrap().to_owned());
        (package["name"].as_str().unwrap().to_owned(), names.collect())
    })
    .collect()
}

/// What is wrong with these arrows.
fn wrong_arrows(arrows: &BTreeMap<String, Vec<String>>) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, tos) in arrows {
        let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| name == from) else {
            wrong.push(format!("{from} has no row in ARROWS"));
            continue;
        };
        let bad = tos.iter().filter(|to| !allowed.contains(&to.as_str()));
        wrong.extend(bad.map(|to| format!("{from} must not know {to}")));
    }
    wrong
}

#[test]
fn arrows_point_one_way() {
    assert_eq!(wrong_arrows(&arrows(&metadata())), Vec::<String>::new());
}

#[test]
fn an_arrow_the_wrong_way_is_seen() {
    let planted = BTreeMap::from([
        ("relais-vrrp".to_owned(), vec!["relais-base".to_owned(), "relais-http".to_owned()]),
        ("relais-new".to_owned(), vec![]),
    ]);
    let wrong = wrong_arrows(&planted);
    assert_eq!(wrong, ["relais-new has no row in ARROWS", "relais-vrrp must not know relais-http"]);
}

#[test]
fn the_build_stays_small() {
    let packages = metadata()["packages"].as_array().unwrap().len();
    assert!(packages <= MOST_PACKAGES, "{packages} packages: which of them can go?");
}

#[test]
fn cores_are_no_std_and_unsafe_stands_only_in_its_two_files() {
    let root = root();
    for core in CORES {
        let lib = std::fs::read_to_string(root.join(format!("crates/{core}/src/lib.rs"))).unwrap();
        assert!(lib.contains("#![no_std]"), "crates/{core} must be no_std");
        assert!(lib.contains("#![forbid(unsafe_code)]"), "crates/{core} must forbid unsafe code");
    }
    let mut sources = Vec::new();
    for top in ["crates", "lab", "sim", "fuzz"] {
        rust_files(&root.join(top), &mut sources);
    }
    assert!(sources.len() > 20, "the sources were not found");
    for path in sources {
        let name = path.strip_prefix(&root).unwrap().display().to_string();
        let text = std::fs::read_to_string(&path).unwrap();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let word = concat!("unsafe", " ");
        let used = code.clone().any(|line| line.contains(word) && !line.contains('"'));
        assert!(!used || UNSAFE.contains(&name.as_str()), "{name} has unsafe code");
    }
}

fn rust_files(dir: &Path, into: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(dir).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            rust_files(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push(path);
        }
    }
}
