//! Whether a thread that should give signs of life has hung, or only waits for its turn on a busy machine.
//!
//! Whoever watches counts its *own* ticks: where the watcher does not come to run, nobody is blamed. What the
//! kernel says of the thread decides the rest (`proc_pid_stat(5)`): one that sleeps or is stopped while its timer
//! is long due will not come back; one that is runnable is waiting for a processor, unless it eats one. The
//! supervisor watches proxy's main thread, and that its workers.

use std::time::Duration;

/// How often the watched give a sign, and the watchers look.
pub const EVERY: Duration = Duration::from_millis(500);
/// Ticks without a sign after which a thread that sleeps has hung: 3 s.
const ASLEEP: u32 = 6;
/// Ticks without a sign after which a thread that waits for a disk has hung: 30 s.
const AT_DISK: u32 = 60;
/// Processor time, in hundredths of a second, that a thread may eat between two signs.
const SPINNING: u64 = 500;

/// What the kernel says of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `R`, `S`, `D`, `T`, ...
    pub state: char,
    /// Processor time it has used, in hundredths of a second.
    pub cpu: u64,
}

impl Stat {
    /// That of a process's main thread.
    pub fn of_process(pid: u32) -> Option<Stat> {
        Stat::parse(&std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/stat")).ok()?)
    }

    /// That of a thread of this process.
    pub fn of_thread(tid: i32) -> Option<Stat> {
        Stat::parse(&std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).ok()?)
    }

    fn parse(text: &str) -> Option<Stat> {
        let mut fields = text.rsplit_once(") ")?.1.split(' '); // the name before may hold anything
        let state = fields.next()?.chars().next()?;
        let mut times = fields.skip(10).map(|field| field.parse::<u64>().ok());
        Some(Stat { state, cpu: times.next()?? + times.next()?? })
    }
}

/// One watched thread.
#[derive(Debug, Default)]
pub struct Pulse {
    /// Ticks since its last sign.
    quiet: u32,
    /// Processor time it had used at the second of them.
    cpu: u64,
}

impl Pulse {
    /// It gave a sign.
    pub fn beat(&mut self) {
        self.quiet = 0;
    }

    /// A tick of the watcher's, [`EVERY`] after the last. Says what is wrong once the thread has hung.
    pub fn tick(&mut self, stat: impl FnOnce() -> Option<Stat>) -> Option<String> {
        self.quiet += 1;
        // One tick between two signs is how it should be: only then does nobody ask the kernel.
        if self.quiet < 2 || (3..ASLEEP).contains(&self.quiet) {
            return None;
        }
        let Stat { state, cpu } = stat()?;
        if self.quiet == 2 {
            self.cpu = cpu;
        }
        let eaten = cpu.saturating_sub(self.cpu);
        let what = match state {
            'S' | 'T' if self.quiet >= ASLEEP => {
                if state == 'T' {
                    "stopped"
                } else {
                    "blocked"
                }
            }
            'D' if self.quiet >= AT_DISK => "waiting for a disk",
            _ if eaten >= SPINNING => "spinning",
            _ => return None,
        };
        let silent = EVERY * self.quiet;
        Some(format!("is {what} and has not moved for {:.1} s", silent.as_secs_f64()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(pulse: &mut Pulse, n: u32, state: char, cpu: u64) -> Option<String> {
        (0..n).filter_map(|_| pulse.tick(|| Some(Stat { state, cpu }))).last()
    }

    #[test]
    fn who_sleeps_or_is_stopped_without_a_sign_has_hung() {
        for (state, word) in [('S', "blocked"), ('T', "stopped")] {
            let mut pulse = Pulse::default();
            assert_eq!(ticks(&mut pulse, 5, state, 0), None);
            assert!(ticks(&mut pulse, 1, state, 0).unwrap().contains(word));
        }
    }

    #[test]
    fn who_gives_signs_has_not() {
        let mut pulse = Pulse::default();
        for _ in 0..100 {
            pulse.beat();
            assert_eq!(ticks(&mut pulse, 3, 'S', 0), None);
        }
    }

    #[test]
    fn who_waits_for_a_processor_or_a_debugger_has_not() {
        assert_eq!(ticks(&mut Pulse::default(), 1000, 'R', 7), None);
        assert_eq!(ticks(&mut Pulse::default(), 1000, 't', 7), None);
    }

    #[test]
    fn who_eats_a_processor_without_a_sign_has() {
        let mut pulse = Pulse::default();
        assert_eq!(ticks(&mut pulse, 7, 'R', 100), None);
        assert!(ticks(&mut pulse, 1, 'R', 600).unwrap().contains("spinning"));
    }

    #[test]
    fn who_waits_for_a_disk_has_longer() {
        assert_eq!(ticks(&mut Pulse::default(), 59, 'D', 0), None);
        assert!(ticks(&mut Pulse::default(), 60, 'D', 0).is_some());
    }

    #[test]
    fn a_real_thread_that_blocks_is_seen_and_one_that_runs_is_not() {
        let (send, receive) = std::sync::mpsc::channel();
        let (go, wait) = std::sync::mpsc::channel::<()>();
        std::thread::spawn(move || {
            send.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            wait.recv().unwrap_or_default();
        });
        let tid = receive.recv().unwrap();
        let start = std::time::Instant::now();
        while Stat::of_thread(tid).map(|stat| stat.state) != Some('S') {
            assert!(start.elapsed() < Duration::from_secs(10));
        }
        let mut pulse = Pulse::default();
        let said = (0..ASLEEP).find_map(|_| pulse.tick(|| Stat::of_thread(tid)));
        assert!(said.is_some_and(|what| what.contains("blocked")));
        drop(go);
        let me = rustix::thread::gettid().as_raw_nonzero().get();
        assert_eq!(Stat::of_thread(me).unwrap().state, 'R');
        assert_eq!(Stat::of_process(std::process::id()).map(|s| s.state.is_ascii_alphabetic()), Some(true));
    }
}
