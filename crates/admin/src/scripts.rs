//! Scripts that addresses depend on (`track script`) and that check servers (`check exec`), run here because this process has no privileges and nobody waits for it.
//!
//! Each runs in a process group of its own, one at a time, with a time-out that ends the whole group. What they say goes
//! to the supervisor. Where this process dies, the last word about each holds until its successor has another.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use relais_balance::Health;
use relais_config::plan::Script;
use relais_ipc::Report;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncReadExt;
use tokio::process::{ChildStderr, Command};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;
use tracing::{info, warn};

/// Of what a failing script says, so many bytes of its first line go to the log.
const LONGEST_WORD: usize = 200;
/// How long after a script's end what it said is waited for.
const LAST_WORD: Duration = Duration::from_millis(50);

/// Those of the plan in force.
pub(crate) struct Scripts {
    reports: UnboundedSender<Report>,
    running: Vec<(Script, JoinHandle<()>)>,
}

impl Scripts {
    pub(crate) fn new(reports: UnboundedSender<Report>) -> Scripts {
        Scripts { reports, running: Vec::new() }
    }

    /// Runs these and no others; those that run already go on.
    pub(crate) fn run(&mut self, wanted: impl Iterator<Item = Script>) {
        let mut before = std::mem::take(&mut self.running);
        for script in wanted {
            if self.running.iter().any(|(known, _)| *known == script) {
                continue; // several addresses depend on it
            }
            let kept = before.iter().position(|(known, _)| *known == script);
            self.running.push(match kept {
                Some(at) => before.swap_remove(at),
                None => {
                    let task = tokio::spawn(again_and_again(script.clone(), self.reports.clone()));
                    (script, task)
                }
            });
        }
        before.iter().for_each(|(_, task)| task.abort());
    }
}

async fn again_and_again(script: Script, reports: UnboundedSender<Report>) {
    let Script { command, interval, rise, fall, .. } = &script;
    let mut health: Option<Health> = None;
    loop {
        let result = run(&script).await;
        let ok = result.is_ok();
        let changed = match &mut health {
            Some(health) => health.record(ok),
            // The first result counts at once.
            None => {
                health = Some(Health::new(*rise, *fall, ok));
                Some(ok)
            }
        };
        if let Some(up) = changed {
            match result {
                Ok(()) => info!("script {command}: it is well"),
                Err(why) => warn!("script {command}: it {why}; what depends on it goes or loses priority"),
            }
            if reports.send(Report::Script { command: command.to_string(), up }).is_err() {
                return;
            }
        }
        tokio::time::sleep(*interval).await;
    }
}

/// Ends the process group where the run is not waited for any more.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(pid) = self.0 {
            let _ = kill_process_group(pid, Signal::KILL); // it may have ended
        }
    }
}

/// Runs it once. An error is what it did, to go behind "it".
async fn run(script: &Script) -> Result<(), String> {
    let mut words = script.command.split_whitespace();
    let child = Command::new(words.next().unwrap_or_default())
        .args(words)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let mut child = child.map_err(|e| format!("cannot be run ({e})"))?;
    let mut group = Group(child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?)));
    let heard = Arc::new(std::sync::Mutex::new(Vec::new()));
    let listening = child.stderr.take().map(|stderr| tokio::spawn(listen(stderr, heard.clone())));
    let ended = tokio::time::timeout(script.timeout, child.wait()).await;
    let result = match ended {
        Err(_) => Err(format!("did not end within {} ms and was killed", script.timeout.as_millis())),
        Ok(Err(e)) => Err(format!("cannot be waited for ({e})")),
        Ok(Ok(status)) => {
            group.0 = None; // its number may be another's from now on
            judge(status)
        }
    };
    // What it has left behind may have its standard error open still.
    if let Some(mut listening) = listening
        && tokio::time::timeout(LAST_WORD, &mut listening).await.is_err()
    {
        listening.abort();
    }
    let said = heard.lock().map(|said| first_line(&said)).unwrap_or_default();
    result.map_err(|why| if said.is_empty() { why } else { format!("{why} and said: {said}") })
}

fn judge(status: ExitStatus) -> Result<(), String> {
    use std::os::unix::process::ExitStatusExt;
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => Err(format!("ended with {code}")),
        (_, signal) => Err(format!("was killed by signal {}", signal.unwrap_or_default())),
    }
}

/// Reads all it says, so that it never waits for us, and keeps the beginning.
async fn listen(mut stderr: ChildStderr, heard: Arc<std::sync::Mutex<Vec<u8>>>) {
    let mut buffer = [0; 1024];
    while let Ok(length @ 1..) = stderr.read(&mut buffer).await {
        if let Ok(mut heard) = heard.lock() {
            let room = LONGEST_WORD.saturating_sub(heard.len()).min(length);
            heard.extend_from_slice(&buffer[..room]);
        }
    }
}

fn first_line(said: &[u8]) -> String {
    let line = said.split(|byte| *byte == b'\n').next().unwrap_or_default();
    String::from_utf8_lossy(line).chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;
    use std::path::PathBuf;
    use std::time::Instant;

    /// A script in a directory of its own, with that as its argument.
    struct Lab(PathBuf);

    impl Lab {
        fn new(name: &str, body: &str) -> Lab {
            let dir = std::env::temp_dir().join(format!("relais-script-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&dir).unwrap();
            let path = dir.join("script");
            std::fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
            Lab(dir)
        }

        fn script(&self, rise: u8, fall: u8) -> Script {
            let dir = self.0.display();
            Script {
                command: format!("{dir}/script {dir}").into(),
                interval: Duration::from_millis(1),
                timeout: Duration::from_secs(20),
                rise,
                fall,
            }
        }

        fn path(&self, name: &str) -> PathBuf {
            self.0.join(name)
        }
    }

    impl Drop for Lab {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    #[tokio::test]
    async fn a_script_is_believed_after_so_many_runs_and_at_first_at_once() {
        // Results in a file, one a run; when they are used up it waits for ever.
        let lab = Lab::new(
            "rise",
            "read -r r rest < $1/results || exec sleep 100\necho $rest > $1/results\n[ -n \"$r\" ] || exec sleep 100\nexit $r",
        );
        std::fs::write(lab.path("results"), "1 0 1 0 0 1 0 1 1 0 0\n").unwrap();
        let (reports, mut heard) = tokio::sync::mpsc::unbounded_channel();
        let mut scripts = Scripts::new(reports);
        let script = lab.script(2, 2);
        scripts.run([script.clone(), script.clone()].into_iter());
        let mut said = Vec::new();
        while said.len() < 4 {
            let report = tokio::time::timeout(Duration::from_secs(20), heard.recv()).await.unwrap();
            let Some(Report::Script { up, .. }) = report else { panic!("{report:?}") };
            said.push(up);
        }
        assert_eq!(said, [false, true, false, true]);
        scripts.run([].into_iter());
        assert!(heard.try_recv().is_err());
    }

    #[tokio::test]
    async fn what_a_script_did_is_said_and_one_that_hangs_goes_with_its_children() {
        let missing = Script { command: "/nonexistent/script".into(), ..Lab::new("none", "").script(1, 1) };
        assert!(run(&missing).await.unwrap_err().starts_with("cannot be run (No such file"));
        let lab = Lab::new("says", "echo 'no route' >&2\necho more >&2\nexit 3");
        let why = run(&lab.script(1, 1)).await.unwrap_err();
        assert_eq!(why, "ended with 3 and said: no route");
        let lab = Lab::new("loud", "head -c 1000000 /dev/zero >&2; exit 0");
        assert_eq!(run(&lab.script(1, 1)).await, Ok(()));
        // It ends, but what it started does not, and holds its standard error.
        let lab = Lab::new("daemon", "sleep 100 & echo $! > $1/pid; exit 0");
        let begin = Instant::now();
        assert_eq!(run(&lab.script(1, 1)).await, Ok(()));
        assert!(begin.elapsed() < Duration::from_secs(20));
        kill(&lab.path("pid"));

        let lab = Lab::new("hangs", "sleep 100 & echo $! > $1/pid; wait");
        let hangs = Script { timeout: Duration::from_secs(1), ..lab.script(1, 1) };
        let why = run(&hangs).await.unwrap_err();
        assert!(why.starts_with("did not end within 1000 ms and was killed"), "{why}");
        let child = std::fs::read_to_string(lab.path("pid")).unwrap();
        let gone = || match std::fs::read_to_string(format!("/proc/{}/stat", child.trim())) {
            Ok(stat) => stat.contains(") Z "),
            Err(_) => true,
        };
        let begin = Instant::now();
        while !gone() {
            assert!(begin.elapsed() < Duration::from_secs(10), "what it started lives");
            tokio::task::yield_now().await;
        }
    }

    fn kill(file: &std::path::Path) {
        let pid = std::fs::read_to_string(file).unwrap().trim().parse().unwrap();
        rustix::process::kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    }
}
