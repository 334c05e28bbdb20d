//! The lab as a whole: it says what is wrong, and it leaves nothing behind. Needs root.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use relais_lab::application::Application;
use relais_lab::netns::{self, Netns};
use relais_lab::platform::{Lab, Settings};

mod common;
use common::{root, until};

/// Tells the process that is to be killed from the one that kills it.
const MAKER: &str = "RELAIS_LAB_TEST_MAKER";

/// A program in the place of Relais that runs and is never well.
fn never_well(id: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("{id}.sh"));
    std::fs::write(&path, "#!/bin/sh\nexec sleep 600\n").unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

fn id(test: &str) -> String {
    format!("{test}-{}", std::process::id())
}

fn pins(id: &str) -> Vec<(PathBuf, Option<Netns>)> {
    Netns::pinned(&format!("relais-lab-{id}-"))
}

/// Where this process is the one to be killed: makes a lab, and is killed in the midst of it.
fn be_the_maker_if_told() {
    let Ok(id) = std::env::var(MAKER) else { return };
    let settings = Settings {
        relais: never_well(&id),
        application: Application::Embedded,
        id: id.clone(),
        ..Settings::new()
    };
    let settings = if id == "own" { Lab::own(&settings) } else { settings };
    let result = Lab::up(settings, &mut |_| ());
    panic!("it can only end by being killed: {result:?}");
}

/// Has the test `name` in another process make lab `id` (`own`: one of its own) and kills it before the lab is
/// well; the namespaces that are left, and the lab's id.
fn killed_half_way(name: &str, id: &str) -> (BTreeSet<u64>, String) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(MAKER, id).stdout(Stdio::null()).stderr(Stdio::null());
    let mut maker = command.spawn().unwrap();
    let id = if id == "own" { format!("drill-{}", maker.id()) } else { id.to_owned() };
    let inodes =
        || pins(&id).iter().filter_map(|(_, n)| n.as_ref()).map(Netns::inode).collect::<BTreeSet<_>>();
    until("four application instances run", || netns::processes_in(&inodes()).len() == 4);
    maker.kill().unwrap();
    maker.wait().unwrap();
    let inodes = inodes();
    assert_eq!((inodes.len(), netns::processes_in(&inodes).len()), (6, 4), "they outlive their maker");
    (inodes, id)
}

fn assert_nothing_is_left(id: &str, inodes: &BTreeSet<u64>) {
    assert!(pins(id).is_empty());
    assert!(netns::processes_in(inodes).is_empty());
    for dir in ["/run/relais-lab", "/tmp/relais-lab-0"] {
        assert!(!PathBuf::from(dir).join(id).exists());
    }
}

#[test]
fn a_lab_whose_maker_is_killed_half_way_is_removed_whole() {
    if let Ok(id) = std::env::var(MAKER) {
        let relais = never_well(&id);
        let settings = Settings { id, relais, application: Application::Embedded, ..Settings::new() };
        let result = Lab::up(settings, &mut |_| ());
        panic!("it can only end by being killed: {result:?}");
    }
    if !root("a_lab_whose_maker_is_killed_half_way_is_removed_whole") {
        return;
    }
    let id = id("crash");
    let mut maker = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_lab_whose_maker_is_killed_half_way_is_removed_whole", "--nocapture"])
        .env(MAKER, &id)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let inodes =
        || pins(&id).iter().filter_map(|(_, n)| n.as_ref()).map(Netns::inode).collect::<BTreeSet<_>>();
    until("four application instances run", || netns::processes_in(&inodes()).len() == 4);
    maker.kill().unwrap();
    maker.wait().unwrap();
    let inodes = inodes();
    assert_eq!((inodes.len(), netns::processes_in(&inodes).len()), (6, 4), "they outlive their maker");

    let again = Lab::up(Settings { id: id.clone(), ..Settings::new() }, &mut |_| ()).unwrap_err();
    assert!(again.contains("is up already") && again.contains("relais lab down"), "{again}");
    assert!(Lab::down(&id).unwrap());
    assert_nothing_is_left(&id, &inodes);
    assert!(!Lab::down(&id).unwrap(), "a second time there is nothing to do");
    std::fs::remove_file(std::env::temp_dir().join(format!("{id}.sh"))).unwrap();
}

#[test]
fn the_lab_of_an_interrupted_drill_is_removed_with_the_next_one() {
    const NAME: &str = "the_lab_of_an_interrupted_drill_is_removed_with_the_next_one";
    be_the_maker_if_told();
    if !root(NAME) {
        return;
    }
    let (inodes, id) = killed_half_way(NAME, "own");
    // A lab whose maker lives is not touched.
    let living = Lab::own(&Settings::new());
    std::fs::create_dir_all(PathBuf::from("/run/relais-lab").join(&living.id)).unwrap();
    Lab::end_abandoned().unwrap();
    assert_nothing_is_left(&id, &inodes);
    assert!(Lab::down(&living.id).unwrap(), "it was still there");
    std::fs::remove_file(std::env::temp_dir().join("own.sh")).unwrap();
}

#[test]
fn a_lab_that_cannot_get_well_says_why_and_leaves_nothing() {
    if !root("a_lab_that_cannot_get_well_says_why_and_leaves_nothing") {
        return;
    }
    let id = id("sick");
    let relais = std::env::temp_dir().join(format!("{id}.sh"));
    std::fs::write(&relais, "#!/bin/sh\necho the disk is on fire\n").unwrap();
    std::fs::set_permissions(&relais, std::fs::Permissions::from_mode(0o755)).unwrap();
    let application = Application::Embedded;
    let settings = Settings { id: id.clone(), relais: relais.clone(), application, ..Settings::new() };
    let error = Lab::up(settings, &mut |_| ()).unwrap_err();
    assert!(error.contains("tomcat1/app-1 died: the disk is on fire"), "{error}");
    assert_nothing_is_left(&id, &BTreeSet::new());
    std::fs::remove_file(relais).unwrap();
}

#[test]
fn a_lab_of_a_wrong_name_or_that_is_not_there_is_refused() {
    for wrong in ["", "a/b", "..", "a b", &"x".repeat(33)] {
        assert!(Lab::down(wrong).unwrap_err().contains("cannot name a lab"), "{wrong}");
    }
    let error = Lab::attach("nobody-made-this").unwrap_err();
    assert!(error.contains("relais lab up"), "{error}");
}
