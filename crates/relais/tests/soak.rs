//! The soak of `make verify`, for twenty seconds: full load, while plans are reloaded and a server dies again and
//! again. No request fails and no memory grows.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

use std::path::Path;
use std::process::Command;

#[test]
fn at_full_load_reloads_and_dying_servers_cost_no_request_and_no_memory() {
    let missing =
        ["nginx", "wrk", "python3"].into_iter().find(|tool| Command::new(tool).arg("-v").output().is_err());
    if let Some(tool) = missing {
        assert!(std::env::var_os("CI").is_none(), "{tool} is missing");
        eprintln!("SKIPPED: {tool} is not installed");
        return;
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../packaging/soak");
    let output = Command::new(script)
        .args(["--seconds", "20", "--relais", env!("CARGO_BIN_EXE_relais")])
        .output()
        .expect("packaging/soak runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
}
