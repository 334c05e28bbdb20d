//! Debian's keepalived in a namespace, with its log.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use super::Lan;

/// A keepalived in a namespace, ended with it.
pub struct Keepalived {
    child: Child,
    directory: PathBuf,
}

impl Keepalived {
    /// Starts it with this file. No script that it runs finds a process: `killall` would see other namespaces' too.
    pub fn start(lan: &Lan, machine: usize, text: &str) -> Keepalived {
        let namespace = lan.machine(machine);
        let directory = std::env::temp_dir().join(namespace);
        fs::create_dir_all(&directory).unwrap();
        let path = |name: &str| directory.join(name).display().to_string();
        fs::write(path("keepalived.conf"), text).unwrap();
        fs::set_permissions(path("keepalived.conf"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(path("killall"), "#!/bin/sh\nexit 1\n").unwrap();
        fs::set_permissions(path("killall"), fs::Permissions::from_mode(0o755)).unwrap();
        let search = format!("{}:{}", directory.display(), std::env::var("PATH").unwrap_or_default());
        let child = Command::new("ip")
            .args(["netns", "exec", namespace, "keepalived", "-n", "-l", "-D", "-P"])
            .args(["-f", &path("keepalived.conf"), "-p", &path("pid"), "-r", &path("vrrp.pid")])
            .env("PATH", search)
            .stdout(Stdio::null())
            .stderr(File::create(path("log")).unwrap())
            .spawn()
            .unwrap();
        Keepalived { child, directory }
    }

    /// SIGTERM, upon which it says priority 0; waits for its end.
    pub fn stop(&mut self) {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        self.child.wait().unwrap();
    }

    /// What it has said so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.join("log")).unwrap()
    }

    /// SIGKILL for the process that speaks VRRP and for its parent.
    pub fn kill(&mut self) {
        let vrrp = fs::read_to_string(self.directory.join("vrrp.pid")).unwrap();
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        kill_process(Pid::from_raw(vrrp.trim().parse().unwrap()).unwrap(), Signal::KILL).unwrap();
    }
}

impl Drop for Keepalived {
    fn drop(&mut self) {
        if let Ok(None) = self.child.try_wait() {
            self.stop();
        }
        let _ = fs::remove_dir_all(&self.directory);
    }
}
