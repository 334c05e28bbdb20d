//! The status document of this process.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use relais_config::plan;
use relais_ipc::status::{
    AccessLogStatus, BackendStatus, FrontendStatus, ProxyStatus, RuleStatus, ServerStatus, ShieldStatus,
    Traffic,
};

use crate::counters::{
    Averages, BackShared, Classes, Counter, FrontCounters, FrontShared, ServerCounters, ServerShared, lock,
};
use crate::rules::Rules;
use crate::shield::Guard;
use crate::stick::Sticky;
use crate::traffic::{Peak, Rate};
use crate::worker::Setup;

/// What this process says of itself.
pub(crate) fn document(setup: Option<&Setup>, generation: u64, draining: bool, workers: u16) -> ProxyStatus {
    let mut status =
        ProxyStatus { pid: std::process::id(), generation, draining, workers, ..ProxyStatus::default() };
    if let Some(setup) = setup {
        status.frontends = setup
            .fronts
            .iter()
            .enumerate()
            .map(|(i, (plan, shared))| {
                let rules = setup.rules.get(i).and_then(Option::as_deref);
                let shield = setup.shields.get(i).and_then(Option::as_deref).map(shield);
                FrontendStatus { shield, ..frontend(plan, shared, rules) }
            })
            .collect();
        let reached = |i: usize| {
            let here = |id: plan::BackendId| usize::from(id.0) == i;
            let named = |f: &plan::Frontend| {
                f.default_backend.is_some_and(here) || f.rules.iter().flat_map(plan::Rule::backends).any(here)
            };
            setup.fronts.iter().any(|(f, _)| named(f))
                || setup.rules.iter().flatten().any(|rules| rules.mapped().any(here))
        };
        let backs = setup.backs.iter().enumerate().filter(|(i, _)| reached(*i));
        let log = |sink: &Arc<crate::access::Sink>| {
            let (target, written_total, dropped_total) = sink.counts();
            AccessLogStatus { target, written_total, dropped_total }
        };
        status.certificates.clone_from(&setup.certificates);
        status.access_logs = setup.logs.iter().map(log).collect();
        let one = |(i, (plan, shared, servers)): (usize, &(plan::Backend, Arc<BackShared>, Vec<_>))| {
            let rules = setup.back_rules.get(i).and_then(Option::as_deref);
            let table = setup.sticky.get(i).and_then(|sticky| sticky.as_ref()).map(Sticky::status);
            BackendStatus {
                rules: rules.map(hits).unwrap_or_default(),
                table,
                ..backend(plan, shared, servers)
            }
        };
        status.backends = backs.map(one).collect();
    }
    status
}

fn frontend(plan: &plan::Frontend, shared: &FrontShared, rules: Option<&Rules>) -> FrontendStatus {
    let sum = |pick: fn(&FrontCounters) -> &Counter| shared.workers.iter().map(|w| pick(w).get()).sum();
    FrontendStatus {
        name: plan.name.to_string(),
        mode: plan.mode.to_string(),
        connections: u64::from(shared.open()),
        max_connections: u64::from(plan.max_connections),
        connections_total: sum(|w| &w.connections),
        requests_total: sum(|w| &w.requests),
        request_errors_total: sum(|w| &w.errors),
        responses_total: Classes::sum(shared.workers.iter().map(|w| &w.responses)),
        bytes_in_total: sum(|w| &w.bytes_in),
        bytes_out_total: sum(|w| &w.bytes_out),
        datagrams_in_total: sum(|w| &w.datagrams_in),
        datagrams_out_total: sum(|w| &w.datagrams_out),
        datagrams_dropped_total: sum(|w| &w.dropped),
        comp_responses_total: sum(|w| &w.comp_responses),
        comp_in_total: sum(|w| &w.comp_in),
        comp_out_total: sum(|w| &w.comp_out),
        comp_bypassed_total: sum(|w| &w.comp_bypassed),
        traffic: traffic(&shared.gate.peak, &shared.rate),
        request_rate: shared.request_rate.get()[0],
        request_rate_max: shared.request_rate.get()[1],
        rules: rules.map(hits).unwrap_or_default(),
        shield: None,
    }
}

fn shield(guard: &Guard) -> ShieldStatus {
    let (figures, turned_away_total) = guard.line.figures();
    ShieldStatus {
        active: figures.on,
        waiting: figures.waiting,
        admitted_total: figures.admitted,
        abandoned_total: figures.abandoned,
        turned_away_total,
        rate_per_1000_s: figures.rate,
    }
}

fn traffic(peak: &Peak, rate: &Rate) -> Traffic {
    let [rate, rate_max] = rate.get();
    Traffic { sessions_max: peak.get(), rate, rate_max }
}

fn hits(rules: &Rules) -> Vec<RuleStatus> {
    rules.hits().map(|(name, hits_total)| RuleStatus { name: name.to_string(), hits_total }).collect()
}

fn backend(plan: &plan::Backend, shared: &BackShared, servers: &[Arc<ServerShared>]) -> BackendStatus {
    BackendStatus {
        name: plan.name.to_string(),
        mode: plan.mode.to_string(),
        servers: plan.servers.iter().zip(servers).map(|(plan, shared)| server(plan, shared)).collect(),
        unserved_total: shared.unserved.iter().map(Counter::get).sum(),
        breaker_open: shared.is_open.load(Relaxed),
        queued: u64::from(shared.queued.load(Relaxed)),
        queued_max: shared.queue_peak.get(),
        traffic: traffic(&shared.peak, &shared.rate),
        average_ms: Averages::of(servers.iter().flat_map(|s| s.workers.iter().map(|w| &w.times))),
        client_aborts_total: shared.client_aborts.iter().map(Counter::get).sum(),
        rules: Vec::new(),
        table: None,
    }
}

fn server(plan: &plan::Server, shared: &ServerShared) -> ServerStatus {
    let sum = |pick: fn(&ServerCounters) -> &Counter| shared.workers.iter().map(|w| pick(w).get()).sum();
    let check = lock(&shared.check);
    ServerStatus {
        name: plan.name.to_string(),
        address: plan.address.to_string(),
        up: shared.is_up(),
        admin: plan.admin.name().to_owned(),
        checked: check.checked,
        check: check.what.clone(),
        check_ms: check.took_ms,
        since_s: check.since.elapsed().as_secs(),
        downs_total: check.downs,
        weight: plan.weight,
        backup: plan.backup,
        active: u64::from(shared.active.load(Relaxed)),
        idle: u64::from(shared.idle.load(Relaxed)),
        sessions_total: sum(|w| &w.sessions),
        connect_errors_total: sum(|w| &w.connect_errors),
        response_errors_total: sum(|w| &w.response_errors),
        retries_total: sum(|w| &w.retries),
        redispatches_total: sum(|w| &w.redispatches),
        hedges_total: [sum(|w| &w.hedges), sum(|w| &w.hedges_won)],
        average_ms: Averages::of(shared.workers.iter().map(|w| &w.times)),
        traffic: traffic(&shared.peak, &shared.rate),
        client_aborts_total: sum(|w| &w.client_aborts),
        server_aborts_total: sum(|w| &w.server_aborts),
        check_failures_total: check.failures,
        responses_total: Classes::sum(shared.workers.iter().map(|w| &w.responses)),
        bytes_in_total: sum(|w| &w.bytes_in),
        bytes_out_total: sum(|w| &w.bytes_out),
        datagrams_in_total: sum(|w| &w.datagrams_in),
        datagrams_out_total: sum(|w| &w.datagrams_out),
    }
}
