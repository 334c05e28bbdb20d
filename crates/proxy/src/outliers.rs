//! Takes servers out that fail far more of their requests than the others do (`outlier`).
//!
//! Once in a window the main thread looks at what the workers have counted; who goes is told to its check ([`crate::checks`]), which has it
//! down until its time is over.

use std::sync::Arc;

use relais_balance::outlier::{Sample, outliers, percent};
use relais_config::plan;

use crate::counters::{Classes, ServerCounters, ServerShared};
use crate::probe::Seconds;

/// Watches the servers of a backend for ever.
pub(crate) async fn watch(plan: plan::Outlier, servers: Vec<Arc<ServerShared>>) {
    let mut before: Vec<Sample> = servers.iter().map(|server| counted(server)).collect();
    loop {
        tokio::time::sleep(plan.window).await;
        let now: Vec<Sample> = servers.iter().map(|server| counted(server)).collect();
        let lately: Vec<Sample> = now
            .iter()
            .zip(&before)
            .map(|(now, before)| Sample {
                total: now.total - before.total,
                failed: now.failed - before.failed,
            })
            .collect();
        before = now;
        // Whoever is told now is seen to be down a little later.
        let mut down = servers.iter().filter(|server| !server.is_up()).count();
        for at in outliers(&lately, plan.errors, plan.least) {
            if servers[at].is_up() && judge(&plan, &servers, &lately, at, down) {
                down += 1;
            }
        }
    }
}

/// Whether it goes, where `down` servers are down already.
fn judge(
    plan: &plan::Outlier,
    servers: &[Arc<ServerShared>],
    lately: &[Sample],
    at: usize,
    down: usize,
) -> bool {
    let (server, own) = (&servers[at], lately[at]);
    let others = lately.iter().enumerate().filter(|(other, _)| *other != at).map(|(_, sample)| sample);
    let (failed, total) = others.fold((0, 0), |(f, t), sample| (f + sample.failed, t + sample.total));
    let why = format!(
        "of its last {} requests {} % failed, of the others' {} %",
        own.total,
        percent(own.failed, own.total),
        percent(failed, total)
    );
    if (down + 1) * 100 > usize::from(plan.most_down) * servers.len() {
        tracing::warn!(
            "backend {}: {why}, and server {} stays: {down} of {} servers are down, and `outlier` takes out {} % at most",
            server.backend,
            server.name,
            servers.len(),
            plan.most_down
        );
        return false;
    }
    server.observed.send_out(plan.out, format!("{why}; out for {}", Seconds(plan.out)));
    true
}

/// What all workers have counted of a server.
fn counted(server: &ServerShared) -> Sample {
    let sum = |each: fn(&ServerCounters) -> u64| server.workers.iter().map(each).sum::<u64>();
    let classes = Classes::sum(server.workers.iter().map(|worker| &worker.responses));
    let broken = sum(|worker| worker.response_errors.get()) + sum(|worker| worker.connect_errors.get());
    Sample { total: classes.iter().sum::<u64>() + broken, failed: classes[4] + broken }
}
