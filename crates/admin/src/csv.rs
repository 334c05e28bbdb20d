//! `/stats;csv`: HAProxy's `show stat`, for scripts and monitoring made for it.
//!
//! The columns and their order are HAProxy 2.6's, up to `mode`; what Relais does not count stays empty.

use relais_ipc::status::{BackendStatus, FrontendStatus, ServerStatus};

use crate::metrics::{
    active_servers, backend_client_aborts, backend_responses, backend_state, backup_servers, server_state,
};
use crate::snapshot::Snapshot;

const COLUMNS: &str = "pxname,svname,qcur,qmax,scur,smax,slim,stot,bin,bout,dreq,dresp,ereq,econ,eresp,wretr,wredis,\
status,weight,act,bck,chkfail,chkdown,lastchg,downtime,qlimit,pid,iid,sid,throttle,lbtot,tracked,type,rate,\
rate_lim,rate_max,check_status,check_code,check_duration,hrsp_1xx,hrsp_2xx,hrsp_3xx,hrsp_4xx,hrsp_5xx,hrsp_other,\
hanafail,req_rate,req_rate_max,req_tot,cli_abrt,srv_abrt,comp_in,comp_out,comp_byp,comp_rsp,lastsess,last_chk,\
last_agt,qtime,ctime,rtime,ttime,agent_status,agent_code,agent_duration,check_desc,agent_desc,check_rise,\
check_fall,check_health,agent_rise,agent_fall,agent_health,addr,cookie,mode";

const CODES: [&str; 6] = ["hrsp_1xx", "hrsp_2xx", "hrsp_3xx", "hrsp_4xx", "hrsp_5xx", "hrsp_other"];

/// A line: names of columns and what stands in them.
type Line = Vec<(&'static str, String)>;

/// The whole answer; only the header while the data plane does not answer.
pub(crate) fn write(snapshot: &Snapshot) -> String {
    let mut out = format!("# {COLUMNS},\n");
    let Some(proxy) = &snapshot.proxy else { return out };
    let mut put = |mut line: Line| {
        line.push(("pid", "1".to_owned())); // HAProxy's relative process number
        for column in COLUMNS.split(',') {
            if let Some((_, text)) = line.iter().find(|(name, _)| *name == column) {
                out.push_str(&quoted(text));
            }
            out.push(',');
        }
        out.push('\n');
    };
    proxy.frontends.iter().map(frontend).for_each(&mut put);
    for backend in &proxy.backends {
        backend.servers.iter().map(|server| self::server(backend, server)).for_each(&mut put);
        put(self::backend(backend));
    }
    out
}

/// A field of RFC 4180.
fn quoted(text: &str) -> String {
    match text.contains([',', '"', '\n', '\r']) {
        true => format!("\"{}\"", text.replace('"', "\"\"")),
        false => text.to_owned(),
    }
}

fn with_responses(mut line: Line, mode: &str, responses: [u64; 6]) -> Line {
    if mode == "http" {
        line.extend(CODES.into_iter().zip(responses.map(|n| n.to_string())));
    }
    line.push(("mode", mode.to_owned()));
    line
}

fn frontend(f: &FrontendStatus) -> Line {
    let line = vec![
        ("pxname", f.name.clone()),
        ("svname", "FRONTEND".to_owned()),
        ("scur", f.connections.to_string()),
        ("slim", f.max_connections.to_string()),
        ("smax", f.traffic.sessions_max.to_string()),
        ("rate", f.traffic.rate.to_string()),
        ("rate_max", f.traffic.rate_max.to_string()),
        ("req_rate", f.request_rate.to_string()),
        ("req_rate_max", f.request_rate_max.to_string()),
        ("stot", f.connections_total.to_string()),
        ("bin", f.bytes_in_total.to_string()),
        ("bout", f.bytes_out_total.to_string()),
        ("ereq", f.request_errors_total.to_string()),
        ("status", "OPEN".to_owned()),
        ("type", "0".to_owned()),
        ("req_tot", f.requests_total.to_string()),
        ("comp_in", f.comp_in_total.to_string()),
        ("comp_out", f.comp_out_total.to_string()),
        ("comp_rsp", f.comp_responses_total.to_string()),
    ];
    with_responses(line, &f.mode, f.responses_total)
}

fn backend(b: &BackendStatus) -> Line {
    let sum = |read: fn(&ServerStatus) -> u64| b.servers.iter().map(read).sum::<u64>().to_string();
    let line = vec![
        ("pxname", b.name.clone()),
        ("svname", "BACKEND".to_owned()),
        ("qcur", b.queued.to_string()),
        ("qmax", b.queued_max.to_string()),
        ("smax", b.traffic.sessions_max.to_string()),
        ("rate", b.traffic.rate.to_string()),
        ("rate_max", b.traffic.rate_max.to_string()),
        ("cli_abrt", backend_client_aborts(b).to_string()),
        ("srv_abrt", sum(|s| s.server_aborts_total)),
        ("qtime", b.average_ms[0].to_string()),
        ("ctime", b.average_ms[1].to_string()),
        ("rtime", b.average_ms[2].to_string()),
        ("ttime", b.average_ms[3].to_string()),
        ("scur", sum(|s| s.active)),
        ("stot", sum(|s| s.sessions_total)),
        ("bin", sum(|s| s.bytes_in_total)),
        ("bout", sum(|s| s.bytes_out_total)),
        ("econ", sum(|s| s.connect_errors_total)),
        ("eresp", sum(|s| s.response_errors_total)),
        ("wretr", sum(|s| s.retries_total)),
        ("wredis", sum(|s| s.redispatches_total)),
        ("status", backend_state(b).to_owned()),
        ("weight", sum(|s| if s.up { s.weight.into() } else { 0 })),
        ("act", active_servers(b).to_string()),
        ("bck", backup_servers(b).to_string()),
        ("type", "1".to_owned()),
    ];
    with_responses(line, &b.mode, backend_responses(b))
}

fn server(b: &BackendStatus, s: &ServerStatus) -> Line {
    let mut line = vec![
        ("pxname", b.name.clone()),
        ("svname", s.name.clone()),
        ("scur", s.active.to_string()),
        ("smax", s.traffic.sessions_max.to_string()),
        ("rate", s.traffic.rate.to_string()),
        ("rate_max", s.traffic.rate_max.to_string()),
        ("cli_abrt", s.client_aborts_total.to_string()),
        ("srv_abrt", s.server_aborts_total.to_string()),
        ("stot", s.sessions_total.to_string()),
        ("bin", s.bytes_in_total.to_string()),
        ("bout", s.bytes_out_total.to_string()),
        ("econ", s.connect_errors_total.to_string()),
        ("eresp", s.response_errors_total.to_string()),
        ("wretr", s.retries_total.to_string()),
        ("wredis", s.redispatches_total.to_string()),
        ("weight", s.weight.to_string()),
        ("act", u8::from(!s.backup).to_string()),
        ("bck", u8::from(s.backup).to_string()),
        ("type", "2".to_owned()),
        ("addr", s.address.clone()),
        ("qtime", s.average_ms[0].to_string()),
        ("ctime", s.average_ms[1].to_string()),
        ("rtime", s.average_ms[2].to_string()),
        ("ttime", s.average_ms[3].to_string()),
    ];
    match s.checked {
        false if s.admin == "down" => line.push(("status", "MAINT".to_owned())),
        false => line.push(("status", "no check".to_owned())),
        true => line.extend([
            ("status", server_state(s).to_owned()),
            ("chkfail", s.check_failures_total.to_string()),
            ("chkdown", s.downs_total.to_string()),
            ("lastchg", s.since_s.to_string()),
            ("check_duration", s.check_ms.to_string()),
            ("last_chk", s.check.clone()),
        ]),
    }
    with_responses(line, &b.mode, s.responses_total)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::tests::example;

    #[test]
    fn every_line_has_a_field_for_every_column() {
        let mut snapshot = example();
        snapshot.proxy.as_mut().unwrap().backends[0].servers[0].check = "a, \"b\"".into();
        let text = write(&snapshot);
        let mut lines = text.lines();
        let header: Vec<_> = lines.next().unwrap().strip_prefix("# ").unwrap().split(',').collect();
        let column = |line: &str, name: &str| {
            let line = line.replace("\"a, \"\"b\"\"\"", "quoted").replace("\"odd \"\"name\"\"\\\"", "odd");
            let fields: Vec<_> = line.split(',').map(str::to_owned).collect();
            assert_eq!(fields.len(), header.len(), "{line}");
            fields[header.iter().position(|column| *column == name).unwrap()].clone()
        };
        let lines: Vec<_> = lines.collect();
        let of = |name: &str| lines.iter().map(|line| column(line, name)).collect::<Vec<_>>();
        assert_eq!(of("pxname"), ["web", "database", "app", "app", "app", "odd", "odd"]);
        assert_eq!(of("svname"), ["FRONTEND", "FRONTEND", "t1", "t2", "BACKEND", "db", "BACKEND"]);
        assert_eq!(of("status"), ["OPEN", "OPEN", "UP", "UP", "UP", "no check", "UP"]);
        assert_eq!(of("last_chk"), ["", "", "quoted", "status 200", "", "", ""]);
        assert_eq!(of("hrsp_5xx"), ["1", "", "0", "0", "1", "", ""]);
        assert_eq!((of("rtime")[2].as_str(), of("ttime")[2].as_str()), ("69", "109"));
        assert_eq!(of("scur"), ["12", "0", "3", "3", "6", "3", "3"]);
        assert_eq!(of("smax"), ["40", "0", "9", "9", "12", "9", "0"]);
        assert_eq!((of("rate")[0].as_str(), of("rate_max")[0].as_str()), ("5", "50"));
        assert_eq!((of("req_rate")[0].as_str(), of("req_rate_max")[0].as_str()), ("6", "60"));
        assert_eq!((of("qmax")[4].as_str(), of("ttime")[4].as_str()), ("7", "108"));
        assert_eq!((of("cli_abrt")[4].as_str(), of("srv_abrt")[4].as_str()), ("7", "4"));
        assert_eq!(of("mode"), ["http", "tcp", "http", "http", "http", "tcp", "tcp"]);
    }

    #[test]
    fn a_dead_data_plane_leaves_the_header() {
        assert_eq!(write(&Snapshot { proxy: None, ..example() }).lines().count(), 1);
    }
}
