//! An address that depends on a script, from the script's process to the kernel. Needs root.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod machine;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use machine::{LIMIT, Machine, VIP, can_run};

#[test]
fn an_address_goes_and_comes_with_what_a_script_says() {
    if !can_run("an_address_goes_and_comes_with_what_a_script_says") {
        return;
    }
    let machine = Machine::new("track script=\"DIR/look DIR/good\" interval=\"100ms\" fall=2");
    let script = machine.dir.join("look");
    let text = "#!/bin/sh\n[ -e \"$1\" ] || { echo \"user $(id -u)\" >&2; exit 7; }\n";
    fs::write(&script, text).unwrap();
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let good = machine.dir.join("good");
    let (_node, log) = machine.start();
    let said = || fs::read_to_string(&log).unwrap();
    let until = |what: &str, is_so: &dyn Fn() -> bool| {
        let begin = Instant::now();
        while !is_so() {
            assert!(begin.elapsed() < LIMIT, "not {what}: {}", said());
            std::thread::sleep(Duration::from_millis(5)); // neither kernel nor log tells this test
        }
    };
    until("run", &|| said().contains("/good: it ended with 7 and said: user "));
    assert!(!said().contains("said: user 0"), "it has no privileges: {}", said());
    assert!(!machine.kernel().contains(VIP));
    fs::write(&good, "").unwrap();
    until("held", &|| machine.kernel().contains(VIP));
    fs::remove_file(&good).unwrap();
    until("given up", &|| !machine.kernel().contains(VIP));
    until("explained", &|| {
        said().contains(&format!("because script {} {} is down", script.display(), good.display()))
    });
}
