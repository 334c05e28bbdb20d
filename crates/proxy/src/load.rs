//! How much there is to do: what waits for servers, how full they are, how busy the workers are. Waiting rooms open and
//! close by it; the main thread asks.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use relais_config::plan;
use relais_ipc::pulse;
use tokio::time::Instant;

use crate::worker::{Setup, Signs};

/// How many requests wait for the servers of the backends that a frontend names, and how full those servers are that have
/// a limit, percent: the worst of the backends.
pub(crate) fn load_of(setup: &Setup, front: &plan::Frontend) -> (u64, u64) {
    let named = front.rules.iter().flat_map(plan::Rule::backends).chain(front.default_backend);
    let (mut queued, mut saturation) = (0, 0);
    for (_, shared, servers) in named.filter_map(|id| setup.backs.get(usize::from(id.0))) {
        queued = queued.max(u64::from(shared.queued.load(Relaxed)));
        let (mut active, mut most) = (0, 0);
        for server in servers.iter().filter(|server| server.is_up()) {
            let limit = server.limit.load(Relaxed);
            if limit < u32::MAX {
                active += u64::from(server.active.load(Relaxed));
                most += u64::from(limit);
            }
        }
        saturation = saturation.max((active * 100).checked_div(most).unwrap_or(0));
    }
    (queued, saturation)
}

/// How much of the workers' time is used, as of the last second.
#[derive(Default)]
pub(crate) struct Busy {
    last: Option<(Instant, u64)>,
    percent: u64,
}

impl Busy {
    pub(crate) fn percent(&mut self, workers: &[Arc<Signs>]) -> u64 {
        let now = Instant::now();
        if self.last.is_none_or(|(at, _)| now.duration_since(at) >= Duration::from_secs(1)) {
            let used =
                |signs: &Arc<Signs>| pulse::Stat::of_thread(signs.thread.load(Relaxed)).map(|stat| stat.cpu);
            let used: u64 = workers.iter().filter_map(used).sum();
            if let Some((at, before)) = self.last {
                // Hundredths of a second: of one second and one worker, percent.
                let gone = now.duration_since(at).as_millis() as u64 * workers.len().max(1) as u64;
                self.percent = used.saturating_sub(before) * 1_000 / gone.max(1);
            }
            self.last = Some((now, used));
        }
        self.percent
    }
}
