//! `/metrics`: the node in Prometheus's text format, version 0.0.4.
//!
//! What HAProxy has a name for is under that name, so that dashboards made for its exporter (Grafana's 12693)
//! show a Relais node; the rest is `relais_*`. One row of a table a metric. What is not known is left out rather
//! than shown as 0: the data plane's metrics are absent while it does not answer.

use std::fmt::Write;

use relais_ipc::status::{
    AccessLogStatus, BackendStatus, Certificate, ForwardStatus, ForwardTargetStatus, FrontendStatus,
    HeartbeatStatus, PeerStatus, ProcessStatus, ProxyStatus, ServerStatus, ShieldStatus, TableStatus,
    VipStatus,
};
use relais_ipc::{FrontendState, Role, VipState};

use crate::snapshot::Snapshot;

/// Classes of status codes, as the status documents count them.
const CODES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];

/// A value, or one for each value of a further label.
enum Value {
    None,
    One(f64),
    By(&'static str, Vec<(String, f64)>),
}

/// One metric of a `T`.
struct Metric<T: ?Sized> {
    name: &'static str,
    kind: &'static str,
    help: &'static str,
    read: fn(&T) -> Value,
}

const fn gauge<T: ?Sized>(name: &'static str, help: &'static str, read: fn(&T) -> Value) -> Metric<T> {
    Metric { name, kind: "gauge", help, read }
}

const fn counter<T: ?Sized>(name: &'static str, help: &'static str, read: fn(&T) -> Value) -> Metric<T> {
    Metric { name, kind: "counter", help, read }
}

fn one(number: u64) -> Value {
    Value::One(number as f64)
}

fn sum<T>(items: &[T], read: fn(&T) -> u64) -> Value {
    one(items.iter().map(read).sum())
}

fn codes(responses: [u64; 6]) -> Value {
    Value::By("code", CODES.into_iter().zip(responses).map(|(code, n)| (code.to_owned(), n as f64)).collect())
}

/// 1 for the state that is, 0 for each that could be.
fn state(all: &[&str], is: &str) -> Value {
    let one_hot = |state: &&str| ((*state).to_owned(), f64::from(u8::from(*state == is)));
    Value::By("state", all.iter().map(one_hot).collect())
}

fn if_http(mode: &str, value: Value) -> Value {
    if mode == "http" { value } else { Value::None }
}

/// One of a server's average times, in seconds.
fn average(server: &ServerStatus, which: usize) -> Value {
    Value::One(server.average_ms[which] as f64 / 1000.0)
}

fn if_checked(server: &ServerStatus, number: u64) -> Value {
    if server.checked { one(number) } else { Value::None }
}

/// A server's state in HAProxy's words.
pub(crate) fn server_state(server: &ServerStatus) -> &'static str {
    match server.up {
        _ if server.admin == "down" => "MAINT",
        false => "DOWN",
        true if server.weight == 0 => "DRAIN",
        true => "UP",
    }
}

/// A backend's state in HAProxy's words.
pub(crate) fn backend_state(backend: &BackendStatus) -> &'static str {
    if active_servers(backend) + backup_servers(backend) > 0 { "UP" } else { "DOWN" }
}

fn able_servers(backend: &BackendStatus, backup: bool) -> u64 {
    let able = |server: &&ServerStatus| server.up && server.weight > 0 && server.backup == backup;
    backend.servers.iter().filter(able).count() as u64
}

/// Servers that get requests, but for backups.
pub(crate) fn active_servers(backend: &BackendStatus) -> u64 {
    able_servers(backend, false)
}

/// Backups that would get requests if nobody else could.
pub(crate) fn backup_servers(backend: &BackendStatus) -> u64 {
    able_servers(backend, true)
}

/// What clients of a backend ended before the end, with a server or waiting for one.
pub(crate) fn backend_client_aborts(backend: &BackendStatus) -> u64 {
    backend.client_aborts_total + backend.servers.iter().map(|s| s.client_aborts_total).sum::<u64>()
}

/// What a backend answered: its servers' responses, and 503 where there was no server.
pub(crate) fn backend_responses(backend: &BackendStatus) -> [u64; 6] {
    let mut total = [0; 6];
    for server in &backend.servers {
        total.iter_mut().zip(server.responses_total).for_each(|(total, n)| *total += n);
    }
    total[4] += backend.unserved_total;
    total
}

const PROCESS: &[Metric<Snapshot>] = &[
    gauge(
        "haproxy_process_start_time_seconds",
        "When the data plane was started, seconds since 1970.",
        |s| s.started_s(Role::Proxy).map_or(Value::None, one),
    ),
    gauge("haproxy_process_uptime_seconds", "How long the data plane has been running.", |s| {
        s.started_s(Role::Proxy).map_or(Value::None, |started| one(s.time_s.saturating_sub(started)))
    }),
    gauge("haproxy_process_build_info", "1, with the version as a label.", |s| {
        Value::By("version", vec![(s.node.version.clone(), 1.0)])
    }),
];

const PROXY: &[Metric<ProxyStatus>] = &[
    gauge("haproxy_process_nbthread", "Worker threads of the data plane.", |p| one(p.workers.into())),
    gauge("haproxy_process_stopping", "1 while the data plane drains.", |p| one(p.draining.into())),
    gauge("haproxy_process_max_connections", "The most client connections that may be open.", |p| {
        sum(&p.frontends, |f| f.max_connections)
    }),
    gauge("haproxy_process_current_connections", "Client connections open now.", |p| {
        sum(&p.frontends, |f| f.connections)
    }),
    counter("haproxy_process_connections_total", "Client connections accepted.", |p| {
        sum(&p.frontends, |f| f.connections_total)
    }),
    counter("haproxy_process_requests_total", "Requests received whole.", |p| {
        sum(&p.frontends, |f| f.requests_total)
    }),
    counter("haproxy_process_bytes_out_total", "Bytes sent to clients.", |p| {
        sum(&p.frontends, |f| f.bytes_out_total)
    }),
];

const FRONTEND: &[Metric<FrontendStatus>] = &[
    gauge("haproxy_frontend_status", "One for the state that the frontend is in.", |_| {
        state(&["DOWN", "UP"], "UP") // the document has only frontends that listen
    }),
    gauge("haproxy_frontend_current_sessions", "Connections open now.", |f| one(f.connections)),
    gauge("haproxy_frontend_max_sessions", "The most connections there have been at a time.", |f| {
        one(f.traffic.sessions_max)
    }),
    gauge("haproxy_frontend_current_session_rate", "Connections in the last second.", |f| {
        one(f.traffic.rate)
    }),
    gauge("haproxy_frontend_max_session_rate", "Connections in the second with most.", |f| {
        one(f.traffic.rate_max)
    }),
    gauge("haproxy_frontend_http_requests_rate_current", "Requests in the last second.", |f| {
        if_http(&f.mode, one(f.request_rate))
    }),
    gauge("haproxy_frontend_http_requests_rate_max", "Requests in the second with most.", |f| {
        if_http(&f.mode, one(f.request_rate_max))
    }),
    gauge("haproxy_frontend_limit_sessions", "The most connections that may be open.", |f| {
        one(f.max_connections)
    }),
    counter("haproxy_frontend_sessions_total", "Connections accepted.", |f| one(f.connections_total)),
    counter("haproxy_frontend_connections_total", "Connections accepted.", |f| one(f.connections_total)),
    counter("haproxy_frontend_bytes_in_total", "Bytes received from clients.", |f| one(f.bytes_in_total)),
    counter("haproxy_frontend_bytes_out_total", "Bytes sent to clients.", |f| one(f.bytes_out_total)),
    counter("haproxy_frontend_http_comp_bytes_in_total", "Bytes of bodies before compression.", |f| {
        if_http(&f.mode, one(f.comp_in_total))
    }),
    counter("haproxy_frontend_http_comp_bytes_out_total", "Bytes of bodies after compression.", |f| {
        if_http(&f.mode, one(f.comp_out_total))
    }),
    counter("haproxy_frontend_http_comp_responses_total", "Responses compressed.", |f| {
        if_http(&f.mode, one(f.comp_responses_total))
    }),
    counter(
        "relais_frontend_comp_bypassed_total",
        "Responses not compressed because too many others were being.",
        |f| if_http(&f.mode, one(f.comp_bypassed_total)),
    ),
    counter("haproxy_frontend_request_errors_total", "Requests refused as malformed or too slow.", |f| {
        one(f.request_errors_total)
    }),
    counter("haproxy_frontend_http_requests_total", "Requests received whole.", |f| {
        if_http(&f.mode, one(f.requests_total))
    }),
    counter("haproxy_frontend_http_responses_total", "Responses by class of status.", |f| {
        if_http(&f.mode, codes(f.responses_total))
    }),
    counter("relais_frontend_datagrams_in_total", "Datagrams received from clients.", |f| {
        if_udp(&f.mode, f.datagrams_in_total)
    }),
    counter("relais_frontend_datagrams_out_total", "Datagrams sent to clients.", |f| {
        if_udp(&f.mode, f.datagrams_out_total)
    }),
    counter(
        "relais_frontend_datagrams_dropped_total",
        "Datagrams lost: too many sessions, no server, no room in a socket.",
        |f| if_udp(&f.mode, f.datagrams_dropped_total),
    ),
    gauge("relais_frontend_shield_active", "1 while newcomers wait outside.", |f| {
        shield(f, |s| s.active.into())
    }),
    gauge("relais_frontend_shield_waiting", "Those who wait outside.", |f| shield(f, |s| s.waiting)),
    gauge("relais_frontend_shield_rate", "Newcomers let in, a second.", |f| {
        f.shield.as_ref().map_or(Value::None, |s| Value::One(s.rate_per_1000_s as f64 / 1000.0))
    }),
    counter("relais_frontend_shield_admitted_total", "Newcomers let in.", |f| {
        shield(f, |s| s.admitted_total)
    }),
    counter("relais_frontend_shield_abandoned_total", "Those who waited and did not come back.", |f| {
        shield(f, |s| s.abandoned_total)
    }),
    counter("relais_frontend_shield_turned_away_total", "Requests that were told to wait.", |f| {
        shield(f, |s| s.turned_away_total)
    }),
    counter("relais_rule_hits_total", "Requests or connections that a rule matched.", |f| {
        Value::By("rule", f.rules.iter().map(|rule| (rule.name.clone(), rule.hits_total as f64)).collect())
    }),
];

fn table(backend: &BackendStatus, number: fn(&TableStatus) -> u64) -> Value {
    backend.table.as_ref().map_or(Value::None, |table| one(number(table)))
}

fn shield(frontend: &FrontendStatus, number: fn(&ShieldStatus) -> u64) -> Value {
    frontend.shield.as_ref().map_or(Value::None, |shield| one(number(shield)))
}

fn if_udp(mode: &str, number: u64) -> Value {
    if mode == "udp" { one(number) } else { Value::None }
}

const BACKEND: &[Metric<BackendStatus>] = &[
    gauge("haproxy_backend_status", "One for the state that the backend is in: UP with any server.", |b| {
        state(&["DOWN", "UP"], backend_state(b))
    }),
    gauge("haproxy_backend_active_servers", "Servers that get requests, but for backups.", |b| {
        one(active_servers(b))
    }),
    gauge("haproxy_backend_backup_servers", "Backups that would get requests.", |b| one(backup_servers(b))),
    gauge("haproxy_backend_weight", "Weights of the servers that get requests, summed.", |b| {
        sum(&b.servers, |s| if s.up { s.weight.into() } else { 0 })
    }),
    gauge("haproxy_backend_current_queue", "Requests that wait for a free place.", |b| one(b.queued)),
    gauge("haproxy_backend_current_sessions", "Requests or connections at its servers now.", |b| {
        sum(&b.servers, |s| s.active)
    }),
    gauge(
        "relais_backend_breaker_open",
        "1 while too many requests fail, and the servers are left alone.",
        |b| one(b.breaker_open.into()),
    ),
    gauge("haproxy_backend_max_queue", "The most that have waited for a free place at a time.", |b| {
        one(b.queued_max)
    }),
    gauge("haproxy_backend_max_sessions", "The most there have been at its servers at a time.", |b| {
        one(b.traffic.sessions_max)
    }),
    gauge("haproxy_backend_current_session_rate", "Given to its servers in the last second.", |b| {
        one(b.traffic.rate)
    }),
    gauge("haproxy_backend_max_session_rate", "Given to its servers in the second with most.", |b| {
        one(b.traffic.rate_max)
    }),
    gauge("haproxy_backend_queue_time_average_seconds", "In the queue, average of the last 1024.", |b| {
        Value::One(b.average_ms[0] as f64 / 1000.0)
    }),
    gauge("haproxy_backend_connect_time_average_seconds", "To connect, average of the last 1024.", |b| {
        Value::One(b.average_ms[1] as f64 / 1000.0)
    }),
    gauge(
        "haproxy_backend_response_time_average_seconds",
        "To the response, average of the last 1024.",
        |b| Value::One(b.average_ms[2] as f64 / 1000.0),
    ),
    gauge("haproxy_backend_total_time_average_seconds", "Of it all, average of the last 1024.", |b| {
        Value::One(b.average_ms[3] as f64 / 1000.0)
    }),
    counter(
        "haproxy_backend_client_aborts_total",
        "Ended by clients before the end, in the queue too.",
        |b| one(backend_client_aborts(b)),
    ),
    counter("haproxy_backend_server_aborts_total", "Answers that its servers broke off.", |b| {
        sum(&b.servers, |s| s.server_aborts_total)
    }),
    gauge("relais_backend_table_entries", "Keys in the table that clients stay by.", |b| {
        table(b, |t| t.entries)
    }),
    gauge("relais_backend_table_size", "The most keys that may be in it.", |b| table(b, |t| t.size)),
    counter("relais_backend_table_known_total", "Requests whose key the table knew.", |b| {
        table(b, |t| t.known_total)
    }),
    counter("relais_backend_table_unknown_total", "Requests with a key that it did not know.", |b| {
        table(b, |t| t.unknown_total)
    }),
    counter("relais_backend_table_evicted_total", "Keys that it forgot for want of room.", |b| {
        table(b, |t| t.evicted_total)
    }),
    counter("haproxy_backend_sessions_total", "Requests or connections given to its servers.", |b| {
        sum(&b.servers, |s| s.sessions_total)
    }),
    counter("haproxy_backend_bytes_in_total", "Bytes sent to its servers.", |b| {
        sum(&b.servers, |s| s.bytes_in_total)
    }),
    counter("haproxy_backend_bytes_out_total", "Bytes received from its servers.", |b| {
        sum(&b.servers, |s| s.bytes_out_total)
    }),
    counter("haproxy_backend_connection_errors_total", "Connections to its servers that failed.", |b| {
        sum(&b.servers, |s| s.connect_errors_total)
    }),
    counter("haproxy_backend_response_errors_total", "Responses broken off, timed out or malformed.", |b| {
        sum(&b.servers, |s| s.response_errors_total)
    }),
    counter("haproxy_backend_retry_warnings_total", "Requests tried again.", |b| {
        sum(&b.servers, |s| s.retries_total)
    }),
    counter("haproxy_backend_redispatch_warnings_total", "Requests tried again at another server.", |b| {
        sum(&b.servers, |s| s.redispatches_total)
    }),
    counter("haproxy_backend_http_requests_total", "Requests that it answered.", |b| {
        if_http(&b.mode, one(backend_responses(b)[1..].iter().sum()))
    }),
    counter("haproxy_backend_http_responses_total", "Responses by class of status.", |b| {
        if_http(&b.mode, codes(backend_responses(b)))
    }),
    counter("relais_backend_datagrams_in_total", "Datagrams sent to its servers.", |b| {
        if_udp(&b.mode, b.servers.iter().map(|s| s.datagrams_in_total).sum())
    }),
    counter("relais_backend_datagrams_out_total", "Datagrams received from its servers.", |b| {
        if_udp(&b.mode, b.servers.iter().map(|s| s.datagrams_out_total).sum())
    }),
    counter(
        "relais_backend_unserved_total",
        "Requests answered with 503 because no server was there.",
        |b| one(b.unserved_total),
    ),
    counter("relais_backend_rule_hits_total", "Requests or connections that a rule of it matched.", |b| {
        Value::By("rule", b.rules.iter().map(|rule| (rule.name.clone(), rule.hits_total as f64)).collect())
    }),
];

const SERVER: &[Metric<ServerStatus>] = &[
    gauge("haproxy_server_status", "One for the state that the server is in.", |s| {
        state(&["DOWN", "UP", "MAINT", "DRAIN", "NOLB"], server_state(s))
    }),
    gauge("haproxy_server_weight", "Its share.", |s| one(s.weight.into())),
    gauge("haproxy_server_current_sessions", "Requests or connections that it has now.", |s| one(s.active)),
    gauge("haproxy_server_idle_connections_current", "Idle connections kept to it.", |s| one(s.idle)),
    gauge("haproxy_server_max_sessions", "The most it has had at a time.", |s| one(s.traffic.sessions_max)),
    gauge("haproxy_server_current_session_rate", "Given to it in the last second.", |s| one(s.traffic.rate)),
    gauge("haproxy_server_max_session_rate", "Given to it in the second with most.", |s| {
        one(s.traffic.rate_max)
    }),
    counter("haproxy_server_client_aborts_total", "Ended by the client before the end.", |s| {
        one(s.client_aborts_total)
    }),
    counter("haproxy_server_server_aborts_total", "Answers that it broke off.", |s| {
        one(s.server_aborts_total)
    }),
    counter("haproxy_server_sessions_total", "Requests or connections given to it.", |s| {
        one(s.sessions_total)
    }),
    counter("haproxy_server_bytes_in_total", "Bytes sent to it.", |s| one(s.bytes_in_total)),
    counter("haproxy_server_bytes_out_total", "Bytes received from it.", |s| one(s.bytes_out_total)),
    counter("haproxy_server_connection_errors_total", "Connections to it that failed.", |s| {
        one(s.connect_errors_total)
    }),
    counter("haproxy_server_response_errors_total", "Responses broken off, timed out or malformed.", |s| {
        one(s.response_errors_total)
    }),
    counter("haproxy_server_retry_warnings_total", "Requests tried again after it failed them.", |s| {
        one(s.retries_total)
    }),
    counter("haproxy_server_redispatch_warnings_total", "Of these, those given to another server.", |s| {
        one(s.redispatches_total)
    }),
    counter(
        "relais_server_hedges_total",
        "Requests it was asked beside another server that was slow.",
        |s| one(s.hedges_total[0]),
    ),
    counter("relais_server_hedges_won_total", "Of these, those that it answered first.", |s| {
        one(s.hedges_total[1])
    }),
    gauge("haproxy_server_queue_time_average_seconds", "In the queue, average of the last 1024.", |s| {
        average(s, 0)
    }),
    gauge("haproxy_server_connect_time_average_seconds", "To connect, average of the last 1024.", |s| {
        average(s, 1)
    }),
    gauge(
        "haproxy_server_response_time_average_seconds",
        "To its response, average of the last 1024.",
        |s| average(s, 2),
    ),
    gauge("haproxy_server_total_time_average_seconds", "Of it all, average of the last 1024.", |s| {
        average(s, 3)
    }),
    counter("haproxy_server_check_failures_total", "Failed checks.", |s| {
        if_checked(s, s.check_failures_total)
    }),
    counter("haproxy_server_check_up_down_total", "How often checks took it down.", |s| {
        if_checked(s, s.downs_total)
    }),
    gauge("haproxy_server_check_last_change_seconds", "Since it went up or down.", |s| {
        if_checked(s, s.since_s)
    }),
    gauge("haproxy_server_check_duration_seconds", "How long the last check took.", |s| match s.checked {
        true => Value::One(s.check_ms as f64 / 1000.0),
        false => Value::None,
    }),
    counter("relais_server_datagrams_in_total", "Datagrams sent to it.", |s| one(s.datagrams_in_total)),
    counter("relais_server_datagrams_out_total", "Datagrams received from it.", |s| {
        one(s.datagrams_out_total)
    }),
    counter("haproxy_server_http_responses_total", "Responses by class of status.", |s| {
        codes(s.responses_total)
    }),
];

const CERTIFICATE: &[Metric<Certificate>] = &[gauge(
    "relais_certificate_expires_timestamp_seconds",
    "When the certificate expires, seconds since 1970.",
    |c| Value::One(c.not_after as f64),
)];

const ACCESS_LOG: &[Metric<AccessLogStatus>] = &[
    counter("relais_access_log_lines_total", "Access lines written.", |l| one(l.written_total)),
    counter("relais_access_log_dropped_total", "Access lines that their target could not take.", |l| {
        one(l.dropped_total)
    }),
];

const PEER: &[Metric<PeerStatus>] = &[
    gauge("relais_peer_up", "1 while the balancer that shares tables is there.", |p| one(p.connected.into())),
    counter("relais_peer_connections_total", "How often it came.", |p| one(p.connections_total)),
    counter("relais_peer_sent_total", "Keys that it was told of.", |p| one(p.sent_total)),
    counter("relais_peer_learned_total", "Keys that it told of.", |p| one(p.learned_total)),
    counter("relais_peer_ignored_total", "Keys that it told of and that are of no use here.", |p| {
        one(p.ignored_total)
    }),
];

const NODE: &[Metric<Snapshot>] = &[
    gauge("relais_node_info", "1, with the node's name as a label.", |s| {
        Value::By("node", vec![(s.node.node.clone(), 1.0)])
    }),
    gauge("relais_plan_generation", "Counts up with each plan put in force.", |s| one(s.node.generation)),
    gauge("relais_node_stopping", "1 while the node is being stopped.", |s| one(s.node.stopping.into())),
    gauge("relais_attention", "How many things need an operator's eye; /status says which.", |s| {
        one(s.attention.len() as u64)
    }),
    gauge("relais_process_answers", "1 if the process told its status for this answer.", |s| {
        let answers = |role: Role| (role.name().to_owned(), f64::from(u8::from(s.missing(role).is_none())));
        Value::By("role", vec![answers(Role::Proxy), answers(Role::Vip)])
    }),
    gauge("relais_process_started_seconds", "When the process was started, seconds since 1970.", |s| {
        Value::By("role", s.started_s.iter().map(|(r, at)| (r.name().to_owned(), *at as f64)).collect())
    }),
];

const CHILD: &[Metric<ProcessStatus>] = &[
    gauge("relais_process_up", "1 while the process runs.", |p| one(p.pid.is_some().into())),
    gauge("relais_process_ready", "1 while the current plan is in force in it.", |p| one(p.ready.into())),
    counter("relais_process_restarts_total", "How often it had to be started again.", |p| one(p.restarts)),
];

const VIP: &[Metric<VipStatus>] = &[
    gauge("relais_vip_state", "One for this node's state in the election.", |v| {
        let is = match v.state {
            VipState::Fault => "fault",
            VipState::Backup => "backup",
            VipState::Master => "master",
        };
        state(&["fault", "backup", "master"], is)
    }),
    gauge("relais_vip_priority", "This node's priority.", |v| one(v.priority.into())),
    gauge("relais_vip_last_change_seconds", "Since the last change of state.", |v| one(v.since_s)),
    counter("relais_vip_became_master_total", "How often this node took the address.", |v| {
        one(v.became_master_total)
    }),
    counter("relais_vip_transitions_total", "Changes of state, by the state they led to.", |v| {
        Value::By("to", v.transitions_total.iter().map(|(to, n)| (to.clone(), *n as f64)).collect())
    }),
    counter("relais_vip_adverts_sent_total", "Advertisements sent.", |v| one(v.adverts_sent_total)),
    counter("relais_vip_adverts_received_total", "Advertisements received.", |v| {
        one(v.adverts_received_total)
    }),
    counter("relais_vip_adverts_refused_total", "Packets refused.", |v| one(v.adverts_refused_total)),
    gauge("relais_vip_tracked_up", "1 for each thing that an address depends on and that is well.", |v| {
        let up = |(name, state): &(String, FrontendState)| {
            (name.clone(), f64::from(u8::from(*state == FrontendState::Up)))
        };
        Value::By("tracked", v.tracked.iter().map(up).collect())
    }),
];

const FORWARD: &[Metric<ForwardStatus>] =
    &[gauge("relais_forward_stale", "1 while the kernel refuses the last change of what it carries.", |f| {
        one(u64::from(f.stale))
    })];

const FORWARD_SERVER: &[Metric<ForwardTargetStatus>] = &[
    counter(
        "relais_forward_connections_total",
        "Connections (UDP: sessions) that the kernel passed on to the server.",
        |s| one(s.connections_total),
    ),
    gauge("relais_forward_server_up", "1 unless the server is dead.", |s| one(u64::from(s.up))),
    gauge("relais_forward_server_weight", "Its share; 0 keeps what it has.", |s| one(s.weight.into())),
];

const HEARTBEAT: &[Metric<HeartbeatStatus>] = &[
    gauge("relais_heartbeat_up", "1 while the node's heartbeats come as often as they should.", |h| {
        one(h.up.into())
    }),
    gauge("relais_heartbeat_age_seconds", "Since the last heartbeat.", |h| {
        h.age_ms.map_or(Value::None, |ms| Value::One(ms as f64 / 1000.0))
    }),
    counter("relais_heartbeats_received_total", "Heartbeats received.", |h| one(h.received_total)),
    counter("relais_heartbeats_lost_total", "Heartbeats that were sent here and did not come.", |h| {
        one(h.lost_total)
    }),
];

/// The whole answer.
pub(crate) fn write(snapshot: &Snapshot) -> String {
    let mut out = String::with_capacity(16 * 1024);
    family(&mut out, NODE, &[(vec![], snapshot)]);
    let children: Vec<_> =
        snapshot.node.processes.iter().map(|p| (vec![("role", p.role.name())], p)).collect();
    family(&mut out, CHILD, &children);
    if let Some(vips) = &snapshot.vips {
        let vips: Vec<_> =
            vips.vips.iter().map(|v| (vec![("vip", &*v.name), ("address", &*v.address)], v)).collect();
        family(&mut out, VIP, &vips);
        let all = snapshot.vips.iter().flat_map(|vips| &vips.heartbeats);
        let all: Vec<_> = all.map(|h| (h.to.to_string(), h)).collect();
        let all: Vec<_> =
            all.iter().map(|(to, h)| (vec![("node", &*h.node), ("address", &**to)], *h)).collect();
        family(&mut out, HEARTBEAT, &all);
    }
    if let Some(vips) = &snapshot.vips {
        let all: Vec<_> = vips.forwards.iter().map(|f| (vec![("proxy", &*f.frontend)], f)).collect();
        family(&mut out, FORWARD, &all);
        let servers = vips.forwards.iter().flat_map(|f| f.servers.iter().map(move |s| (f, s)));
        let all: Vec<_> =
            servers.map(|(f, s)| (vec![("proxy", &*f.frontend), ("server", &*s.name)], s)).collect();
        family(&mut out, FORWARD_SERVER, &all);
    }
    family(&mut out, PROCESS, &[(vec![], snapshot)]);
    if let Some(proxy) = &snapshot.proxy {
        family(&mut out, PROXY, &[(vec![], proxy)]);
        let logs: Vec<_> = proxy.access_logs.iter().map(|l| (vec![("target", &*l.target)], l)).collect();
        family(&mut out, ACCESS_LOG, &logs);
        let peers: Vec<_> = proxy.peers.iter().map(|p| (vec![("peer", &*p.name)], p)).collect();
        family(&mut out, PEER, &peers);
        let certificates: Vec<_> =
            proxy.certificates.iter().map(|c| (vec![("file", &*c.file), ("name", &*c.name)], c)).collect();
        family(&mut out, CERTIFICATE, &certificates);
        let frontends: Vec<_> = proxy.frontends.iter().map(|f| (vec![("proxy", &*f.name)], f)).collect();
        family(&mut out, FRONTEND, &frontends);
        let backends: Vec<_> = proxy.backends.iter().map(|b| (vec![("proxy", &*b.name)], b)).collect();
        family(&mut out, BACKEND, &backends);
        let servers: Vec<_> = proxy
            .backends
            .iter()
            .flat_map(|b| b.servers.iter().map(|s| (vec![("proxy", &*b.name), ("server", &*s.name)], s)))
            .collect();
        family(&mut out, SERVER, &servers);
    }
    out
}

type Labels<'a> = Vec<(&'a str, &'a str)>;

/// Each metric of the table with its value for every item: a metric's series must stand together.
fn family<T>(out: &mut String, metrics: &[Metric<T>], items: &[(Labels<'_>, &T)]) {
    for metric in metrics {
        let before = out.len();
        // Writing to a string cannot fail.
        let _ = writeln!(out, "# HELP {} {}\n# TYPE {0} {}", metric.name, metric.help, metric.kind);
        let head = out.len();
        for (labels, item) in items {
            match (metric.read)(item) {
                Value::None => {}
                Value::One(value) => series(out, metric.name, labels, value),
                Value::By(label, values) => {
                    for (name, value) in values {
                        let mut labels = labels.clone();
                        labels.push((label, &name));
                        series(out, metric.name, &labels, value);
                    }
                }
            }
        }
        if out.len() == head {
            out.truncate(before); // nobody has it
        }
    }
}

fn series(out: &mut String, name: &str, labels: &[(&str, &str)], value: f64) {
    out.push_str(name);
    for (index, (label, text)) in labels.iter().enumerate() {
        let text = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
        let _ = write!(out, "{}{label}=\"{text}\"", if index == 0 { '{' } else { ',' });
    }
    let _ = writeln!(out, "{} {value}", if labels.is_empty() { "" } else { "}" });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::example;
    use std::collections::{BTreeMap, BTreeSet};

    /// A strict reader of the format: every series is checked against what stands above it.
    fn read(text: &str) -> BTreeMap<String, f64> {
        let (mut series, mut families, mut current) = (BTreeMap::new(), BTreeSet::new(), None);
        let mut lines = text.lines();
        assert!(text.ends_with('\n'));
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, sentence) = help.split_once(' ').unwrap();
                assert!(sentence.ends_with('.') && !sentence.contains('\\'), "{line}");
                assert!(families.insert(name.to_owned()), "{name} has two families");
                let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
                current = Some(name.to_owned());
                continue;
            }
            let (id, value) = line.rsplit_once(' ').unwrap();
            let name = id.split('{').next().unwrap();
            assert_eq!(Some(name), current.as_deref(), "{line} is out of its family");
            assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
            if let Some(labels) = id.strip_prefix(name).and_then(|rest| rest.strip_prefix('{')) {
                check_labels(labels.strip_suffix('}').unwrap());
            }
            let value: f64 = value.parse().unwrap();
            assert!(value.is_finite() && value >= 0.0);
            assert!(series.insert(id.to_owned(), value).is_none(), "{id} is there twice");
        }
        for family in families {
            assert!(series.keys().any(|id| id.split('{').next() == Some(&family)), "{family} is empty");
        }
        series
    }

    /// `name="text",...` with `\\`, `\"` and `\n` as the only escapes, each name once.
    fn check_labels(mut rest: &str) {
        let mut names = BTreeSet::new();
        loop {
            let (name, text) = rest.split_once("=\"").unwrap();
            assert!(
                name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') && names.insert(name),
                "{rest}"
            );
            let mut chars = text.char_indices();
            let end = loop {
                match chars.next().unwrap() {
                    (_, '\\') => assert!(matches!(chars.next().unwrap().1, '\\' | '"' | 'n')),
                    (at, '"') => break at,
                    _ => {}
                }
            };
            rest = match &text[end + 1..] {
                "" => return,
                more => more.strip_prefix(',').unwrap(),
            };
        }
    }

    #[test]
    fn what_is_written_is_what_prometheus_reads() {
        let series = read(&write(&example()));
        for (id, value) in [
            ("haproxy_process_nbthread", 2.0),
            ("haproxy_process_uptime_seconds", 1000.0),
            ("haproxy_process_start_time_seconds", 1_799_999_000.0),
            ("haproxy_process_bytes_out_total", 18_014_398_509_481_984.0),
            ("haproxy_process_build_info{version=\"0.1.0\"}", 1.0),
            ("haproxy_frontend_status{proxy=\"web\",state=\"UP\"}", 1.0),
            ("haproxy_frontend_http_responses_total{proxy=\"web\",code=\"2xx\"}", 1980.0),
            ("haproxy_backend_active_servers{proxy=\"app\"}", 2.0),
            ("haproxy_backend_backup_servers{proxy=\"app\"}", 0.0),
            ("haproxy_backend_http_responses_total{proxy=\"app\",code=\"5xx\"}", 1.0),
            ("haproxy_backend_http_requests_total{proxy=\"app\"}", 2001.0),
            ("haproxy_server_status{proxy=\"app\",server=\"t1\",state=\"UP\"}", 1.0),
            ("haproxy_server_status{proxy=\"app\",server=\"t1\",state=\"DOWN\"}", 0.0),
            ("haproxy_server_check_duration_seconds{proxy=\"app\",server=\"t2\"}", 0.002),
            ("haproxy_server_response_time_average_seconds{proxy=\"app\",server=\"t1\"}", 0.069),
            ("haproxy_server_total_time_average_seconds{proxy=\"app\",server=\"t2\"}", 0.109),
            ("haproxy_backend_current_sessions{proxy=\"odd \\\"name\\\"\\\\\"}", 3.0),
            ("relais_vip_state{vip=\"public\",address=\"192.0.2.180/24\",state=\"master\"}", 1.0),
            ("relais_vip_state{vip=\"public\",address=\"192.0.2.180/24\",state=\"fault\"}", 0.0),
            ("relais_process_restarts_total{role=\"proxy\"}", 1.0),
            ("relais_process_answers{role=\"vip\"}", 1.0),
            ("relais_certificate_expires_timestamp_seconds{file=\"/tls/1.pem\",name=\"a.test\"}", 1.9e9),
            ("relais_node_info{node=\"haproxy1\"}", 1.0),
        ] {
            assert_eq!(series.get(id), Some(&value), "{id}");
        }
    }

    #[test]
    fn what_is_not_known_is_not_shown() {
        let text = write(&example());
        assert!(!text.contains("haproxy_frontend_http_requests_total{proxy=\"database\"}"));
        assert!(!text.contains("haproxy_server_check_failures_total{proxy=\"odd"));
        let dead = Snapshot { proxy: None, vips: None, started_s: vec![], ..example() };
        let series = read(&write(&dead));
        assert!(
            series.keys().all(|id| id.starts_with("relais_") || id.starts_with("haproxy_process_build_info"))
        );
    }

    #[test]
    fn a_server_is_in_one_state_at_a_time() {
        let mut snapshot = example();
        let backend = &mut snapshot.proxy.as_mut().unwrap().backends[0];
        backend.servers[0].up = false;
        backend.servers[1].weight = 0;
        let series = read(&write(&snapshot));
        let is = |server: &str, state: &str| {
            series[&format!("haproxy_server_status{{proxy=\"app\",server=\"{server}\",state=\"{state}\"}}")]
        };
        let states = ["DOWN", "UP", "MAINT", "DRAIN", "NOLB"];
        assert_eq!(states.map(|state| is("t1", state)), [1.0, 0.0, 0.0, 0.0, 0.0]);
        assert_eq!(states.map(|state| is("t2", state)), [0.0, 0.0, 0.0, 1.0, 0.0]);
        assert_eq!(series["haproxy_backend_status{proxy=\"app\",state=\"UP\"}"], 0.0);
    }
}
