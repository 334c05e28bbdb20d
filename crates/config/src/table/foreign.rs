//! What other programs call our directives: whoever comes from there is told the word here.

/// `(their word, ours)`: HAProxy, keepalived, nginx, Varnish, Pacemaker. Ours is a directive, a form of
/// one, or a property.
const WORDS: &[(&str, &str)] = &[
    // HAProxy
    ("global", "platform"),
    ("defaults", "timeout"),
    ("listen", "bind"),
    ("stats", "admin"),
    ("log", "access-log"),
    ("maxconn", "max-connections"),
    ("minconn", "min-connections"),
    ("fullconn", "full-connections"),
    ("set-priority-class", "priority"),
    ("set-priority-offset", "priority"),
    ("default_backend", "default-backend"),
    ("use_backend", "rule"),
    ("acl", "rule"),
    ("http-request", "rule"),
    ("option", "check http"),
    ("abortonclose", "abort-on-close"),
    ("httpchk", "check http"),
    ("http-check", "check http"),
    ("forwardfor", "forwarded-for"),
    ("cookie", "persist"),
    ("stick-table", "stick"),
    ("ssl", "tls"),
    ("crt", "certificate"),
    ("inter", "every"),
    ("hdr", "balance header"),
    ("url_param", "balance query"),
    ("rdp-cookie", "balance source"),
    ("hash-type", "hash"),
    ("hash-balance-factor", "balance-factor"),
    // keepalived
    ("vrrp_instance", "vip"),
    ("virtual_ipaddress", "address"),
    ("virtual_router_id", "router-id"),
    ("advert_int", "advertise"),
    ("nopreempt", "preempt"),
    ("track_script", "track"),
    ("virtual_server", "backend"),
    ("real_server", "server"),
    // nginx and Varnish
    ("upstream", "backend"),
    ("location", "rule"),
    ("proxy_pass", "default-backend"),
    ("ssl_certificate", "certificate"),
    ("access_log", "access-log"),
    ("worker_connections", "max-connections"),
    ("keepalive_timeout", "timeout"),
    ("probe", "check http"),
    ("ip_hash", "balance source"),
    ("least_conn", "balance leastconn"),
    ("least_time", "balance least-time"),
    // IPVS
    ("rr", "balance roundrobin"),
    ("wrr", "balance roundrobin"),
    ("lc", "balance leastconn"),
    ("wlc", "balance leastconn"),
    ("sh", "balance source"),
    ("dh", "balance destination"),
    ("director", "backend"),
    // Pacemaker
    ("primitive", "resource"),
    ("resource-stickiness", "stickiness"),
];

/// Our word for theirs.
pub fn foreign(word: &str) -> Option<&'static str> {
    WORDS.iter().find(|(theirs, _)| *theirs == word).map(|(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_foreign_word_has_one_of_ours() {
        for (theirs, ours) in WORDS {
            let known = crate::table::all().any(|row| {
                row.name == *ours
                    || row.title() == *ours
                    || row.properties.iter().any(|field| field.name == *ours)
            });
            assert!(known, "{theirs} is said to be {ours}, which is nothing");
        }
    }
}
