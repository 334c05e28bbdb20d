//! What the lab's own tests share.

use std::time::{Duration, Instant};

use relais_lab::netns::Netns;

/// Whether this test can run; without root it says that it does not, and in CI that is a failure.
pub(crate) fn root(test: &str) -> bool {
    // Root of the machine: root of a user namespace may make network namespaces but not name them.
    let map = std::fs::read_to_string("/proc/self/uid_map").unwrap_or_default();
    let whole = map.split_ascii_whitespace().eq(["0", "0", "4294967295"]);
    let root = whole && rustix::process::geteuid().is_root() && Netns::create().is_ok();
    if !root {
        eprintln!("SKIPPED: {test} needs root for network namespaces");
        assert!(std::env::var_os("CI").is_none(), "CI must run {test}: it needs root");
    }
    root
}

/// Waits for a condition that comes without an event.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(2));
    }
}
