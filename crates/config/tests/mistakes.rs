//! Mistakes that operators make in the reference file, and what they are told: `tests/mistakes/NAME.txt`.
//!
//! `UPDATE=1 cargo test -p relais-config` writes the expectations anew; read them as somebody would at
//! three in the morning before they are committed.

use std::path::PathBuf;

/// Name, what stands in `examples/progres.kdl`, and what somebody wrote instead.
const MISTAKES: &[(&str, &str, &str)] = &[
    // ---- words of KDL ----
    ("time_without_quotes", "    advertise \"50ms\"\n    preempt", "    advertise 50ms\n    preempt"),
    ("address_without_quotes", "link \"192.168.112.177\"", "link 192.168.112.177"),
    ("path_without_quotes", "check http path=\"/healthz\" expect=200", "check http path=/healthz expect=200"),
    ("pattern_without_quotes", "match path \"/manager/**\"", "match path /manager/**"),
    ("url_without_quotes", "webhook \"https://127.0.0.1:9443/hook\"", "webhook https://127.0.0.1:9443/hook"),
    ("ipv6_without_quotes", "bind \"*:80\"", "bind [::]:80"),
    ("single_quotes", "grace \"1h\"", "grace '1h'"),
    ("curly_quotes", "grace \"1h\"", "grace “1h”"),
    ("no_closing_quote", "grace \"1h\"", "grace \"1h"),
    (
        "brace_never_closed",
        "    size \"256MiB\"\n    grace \"1h\"\n}\n",
        "    size \"256MiB\"\n    grace \"1h\"\n",
    ),
    ("brace_too_many", "    grace \"1h\"\n}\n", "    grace \"1h\"\n}\n}\n"),
    ("brace_on_its_own_line", "cache pages {", "cache pages\n{"),
    ("hash_comment", "    max-connections 20000\n", "    max-connections 20000 # enough for us\n"),
    (
        "commas",
        "    on haproxy1 haproxy2\n    bind \"*:443\"",
        "    on haproxy1, haproxy2\n    bind \"*:443\"",
    ),
    ("equals_after_directive", "    max-connections 20000\n", "    max-connections = 20000\n"),
    ("no_value_after_equals", "retries 3", "servers tomcat=\n    retries 3"),
    (
        "two_directives_on_a_line",
        "node haproxy2 { link \"192.168.112.178\"; link \"10.10.0.2\"; }",
        "node haproxy2 { link \"192.168.112.178\" } node spare { link \"10.10.0.9\" }",
    ),
    ("backslash_in_quotes", "\"/srv/relais/progres.war\"", "\"C:\\progres.war\""),
    ("true_is_a_keyword", "    redispatch\n", "    redispatch true\n"),
    (
        "log_format_unknown_field",
        "platform progres {\n",
        "platform progres {\n    access-log stdout format=\"\\\"%r\\\" %ci %xy %ST\"\n",
    ),
    (
        "log_format_misspelt",
        "platform progres {\n",
        "platform progres {\n    access-log stdout format=htplog\n",
    ),
    ("log_server_no_port", "platform progres {\n", "platform progres {\n    access-log \"udp@10.0.0.1\"\n"),
    (
        "log_facility_for_a_file",
        "platform progres {\n",
        "platform progres {\n    access-log \"/var/log/a\" facility=mail\n",
    ),
    ("rate_of_a_header_without_name", "match rate key=src over", "match rate key=header over"),
    ("rate_with_a_name_of_nothing", "match rate key=src over", "match rate key=src name=X-Key over"),
    ("rate_prefix_of_a_host", "match rate key=src over", "match rate key=host prefix=24 over"),
    ("rate_without_time", "over=200 per=\"10s\"", "over=200"),
    (
        "rate_of_too_many_keys",
        "match rate key=src over=200 per=\"10s\"",
        "match rate key=src over=200 per=\"10s\" remember=9000000; match rate key=host over=9 per=\"1s\" remember=9000000",
    ),
    (
        "persist_route_with_a_cookie_s_property",
        "persist cookie=SRV",
        "persist route=JSESSIONID maxidle=\"30m\"",
    ),
    (
        "persist_prefix_with_a_domain",
        "persist cookie=SRV",
        "persist cookie=SRV mode=prefix domain=\"a.example\"",
    ),
    (
        "persist_learn_with_a_cookie_s_property",
        "persist cookie=SRV",
        "persist learn=PHPSESSID maxidle=\"30m\"",
    ),
    ("persist_cookie_with_a_table_s_size", "persist cookie=SRV", "persist cookie=SRV size=100"),
    ("stick_on_a_header_of_no_name", "persist cookie=SRV", "stick header"),
    ("stick_on_an_unknown_key", "persist cookie=SRV", "stick srcc"),
    ("stick_on_a_depth_of_nothing", "persist cookie=SRV", "stick src depth=1"),
    ("stick_on_a_cookie_in_tcp", "    balance first ", "    stick cookie name=ID; balance first "),
    ("peers_without_a_key", "    secret cluster-key file=\"/etc/relais/cluster.key\"", "    peers"),
    ("peers_where_another_listens", "platform progres {\n", "platform progres {\n    peers port=8081\n"),
    ("peer_without_peers", "platform progres {\n", "platform progres {\n    peer old \"192.168.112.9\"\n"),
    (
        "peer_named_as_a_node",
        "platform progres {\n",
        "platform progres {\n    peers; peer haproxy1 \"192.168.112.9\"\n",
    ),
    ("persist_with_an_unknown_secret", "persist cookie=SRV", "persist cookie=SRV secret=cluster-kez"),
    (
        "server_that_no_cookie_can_name",
        "servers tomcat=app",
        "server a \"192.168.112.177:8081\" cookie=\"a;b\"; servers tomcat=app",
    ),
    ("rate_of_nobody", "match rate key=src over", "match rate over"),
    (
        "backend_rule_chooses_a_backend",
        "    retries 3\n",
        "    retries 3\n    rule a { match host \"a.example\"; backend doctorat; }\n",
    ),
    ("rate_of_two_names", "match rate key=src over", "match rate key=\"header+cookie\" name=X-Key over"),
    ("rate_of_a_misspelt_part", "match rate key=src over", "match rate key=\"src+hots\" over"),
    ("reject_by_path", "        deny 429\n", "        match path \"/x\"; reject\n"),
    ("limit_of_nothing", "        deny 429\n", "        limit\n"),
    ("limit_of_nobody", "        deny 429\n", "        limit max-connections=20\n"),
    ("limit_key_without_number", "        deny 429\n", "        limit key=src max-body=\"1MiB\"\n"),
    (
        "limit_of_requests_in_tcp",
        "    bind \"127.0.0.1:3306\"\n",
        "    bind \"127.0.0.1:3306\"\n    rule a { match rate key=host over=1 per=\"1s\"; limit max-body=\"1MiB\"; }\n",
    ),
    ("log_request_in_tcp", "    mode tcp\n", "    mode tcp\n    access-log stdout format=\"%ci %HM\"\n"),
    ("capture_too_long", "    max-connections 20000\n", "    capture request-header Host len=65536\n"),
    (
        "error_page_with_a_head",
        "    max-connections 20000\n",
        "    error-page 503 \"/etc/haproxy/errors/503.http\"\n",
    ),
    ("error_page_for_no_error", "    max-connections 20000\n", "    error-page 200 \"/srv/sorry.html\"\n"),
    (
        "tls_without_certificate",
        "            certificate \"/etc/relais/tls/www1.pem\"\n            certificate \"/etc/relais/tls/www2.pem\"\n",
        "",
    ),
    (
        "tls_verify_none_with_ca",
        "    retries 3",
        "    tls verify=none ca=\"/etc/relais/tls/inside.pem\"\n    retries 3",
    ),
    ("tls_unverified_server", "    retries 3", "    tls verify=none\n    retries 3"),
    ("tls_old_version", "            alpn h2", "            min-version \"1.1\"\n            alpn h2"),
    (
        "tls_client_certificate_of_nobody",
        "            alpn h2",
        "            client-certificate required\n            alpn h2",
    ),
    (
        "tls_hsts_without_http",
        "    mode tcp\n    bind \"127.0.0.1:3306\"\n",
        "    mode tcp\n    bind \"127.0.0.1:3306\" { tls { certificate \"/db.pem\"; hsts \"1d\"; }; }\n",
    ),
    (
        "proto_misspelt",
        "server tomcat1 \"192.168.112.177:8081\"",
        "server tomcat1 \"192.168.112.177:8081\" proto=http2",
    ),
    (
        "proto_h2_in_tcp",
        "server percona1 \"192.168.112.175:3306\"",
        "server percona1 \"192.168.112.175:3306\" proto=h2",
    ),
    (
        "proto_h2_with_send_proxy",
        "server tomcat1 \"192.168.112.177:8081\"",
        "server tomcat1 \"192.168.112.177:8081\" proto=h2 send-proxy=v2",
    ),
    ("http2_in_tcp", "    mode tcp\n    bind", "    mode tcp\n    http2 max-concurrent-streams=50\n    bind"),
    ("http2_too_many_streams", "    max-connections 20000\n", "    http2 max-concurrent-streams=100000\n"),
    ("http2_window_is_the_servers", "backend app {\n", "backend app {\n    http2 initial-window=\"64KiB\"\n"),
    ("forwarded_by_a_name", "    max-connections 20000\n", "    forwarded by=edge1\n"),
    ("request_id_as_host", "    max-connections 20000\n", "    request-id Host\n"),
    ("trace_start_yes", "    max-connections 20000\n", "    trace start=yes\n"),
    ("rule_host_star_inside", "match host \"doctorat.progres.example\"", "match host \"doctorat.*.example\""),
    (
        "rule_host_with_port",
        "match host \"doctorat.progres.example\"",
        "match host \"doctorat.progres.example:443\"",
    ),
    ("rule_regex_open", "match host \"doctorat.progres.example\"", "match path regex=\"^/(a\""),
    ("rule_bad_network", "unless src \"192.168.112.0/24\"", "unless src \"192.168.112.0/33\""),
    ("rule_two_ends", "        backend doctorat\n", "        deny 403\n        backend doctorat\n"),
    ("rule_no_such_backend", "        backend doctorat\n", "        backend doctorant\n"),
    (
        "rule_never_asked",
        "        match host \"doctorat.progres.example\"\n        backend doctorat\n    }\n",
        "        backend doctorat\n    }\n    rule late { deny 404; }\n",
    ),
    (
        "rule_frames_the_message",
        "        backend doctorat\n",
        "        set-header Content-Length 0\n        backend doctorat\n",
    ),
    (
        "rule_unknown_placeholder",
        "        backend doctorat\n",
        "        set-header X-Real-IP \"%{source}\"\n        backend doctorat\n",
    ),
    (
        "rule_open_redirect",
        "        backend doctorat\n",
        "        redirect location=\"https://%{header:x}/\"\n",
    ),
    (
        "rule_two_redirects",
        "        backend doctorat\n",
        "        redirect scheme=https prefix=\"https://www.example\"\n",
    ),
    (
        "rule_group_missing",
        "        backend doctorat\n",
        "        rewrite path regex=\"^/a\" to=\"/$1\"\n        backend doctorat\n",
    ),
    (
        "rule_typo_of_condition",
        "match host \"doctorat.progres.example\"",
        "match hots \"doctorat.progres.example\"",
    ),
    ("rule_typo_of_action", "        deny 403\n", "        denny 403\n"),
    ("rule_looks_for_nothing", "match path \"/manager/**\" \"/host-manager/**\"", "match path"),
    (
        "rule_header_host",
        "match host \"doctorat.progres.example\"",
        "match header Host \"doctorat.progres.example\"",
    ),
    (
        "rule_path_in_tcp",
        "    mode tcp\n    bind",
        "    mode tcp\n    rule r { match path \"/a\"; deny 403; }\n    bind",
    ),
    // ---- words of the table ----
    ("source_of_haproxy", "    redispatch\n", "    redispatch\n    source \"0.0.0.0\" usesrc=clientip\n"),
    ("source_without_value", "    redispatch\n", "    redispatch\n    source\n"),
    ("proxy_believes_nobody", "    bind \"*:80\"\n", "    bind \"*:80\" { accept-proxy; }\n"),
    (
        "proxy_believes_a_name",
        "    bind \"*:80\"\n",
        "    bind \"*:80\" { accept-proxy from=\"lb.example\"; }\n",
    ),
    ("proxy_of_another_version", "servers tomcat=app", "servers tomcat=app send-proxy=v3"),
    ("proxy_without_version", "servers tomcat=app", "servers tomcat=app send-proxy=#true"),
    (
        "hard_stop_at_once",
        "    admin \"127.0.0.1:8404\"",
        "    admin \"127.0.0.1:8404\"\n    hard-stop-after \"0s\"",
    ),
    (
        "hard_stop_never",
        "    admin \"127.0.0.1:8404\"",
        "    admin \"127.0.0.1:8404\"\n    hard-stop-after off",
    ),
    ("unknown_section", "frontend plain {", "frontent plain {"),
    ("unknown_directive", "    balance roundrobin\n", "    balanse roundrobin\n"),
    (
        "directive_of_another_section",
        "    max-connections 20000\n",
        "    max-connections 20000\n    retries 3\n",
    ),
    ("unknown_stranger", "    max-connections 20000\n", "    upstream app\n"),
    ("unknown_property", "request=\"10s\" client", "requests=\"10s\" client"),
    ("unknown_form", "check http path=\"/healthz\" every=\"1s\"", "check htp path=\"/healthz\" every=\"1s\""),
    ("form_left_out", "check http path=\"/healthz\" every=\"1s\"", "check path=\"/healthz\" every=\"1s\""),
    (
        "haproxy_timeouts",
        "    timeout connect=\"3s\" server=\"1m\" queue=\"10s\" check=\"5s\"",
        "    timeout connect 3s",
    ),
    (
        "haproxy_server",
        "server tomcat1 \"192.168.112.177:8081\" max-connections=5000",
        "server tomcat1 192.168.112.177:8081 check maxconn 5000",
    ),
    ("keepalived_priority", "node haproxy1 priority=101", "node haproxy1 101"),
    ("argument_missing", "    retries 3\n", "    retries\n"),
    ("required_property_missing", "node haproxy1 priority=101", "node haproxy1"),
    ("required_directive_missing", "    router-id 51\n", ""),
    ("block_where_none_is", "    retries 3\n", "    retries 3 { }\n"),
    (
        "new_line_forgotten",
        "    bind \"*:80\"\n    redirect scheme=https",
        "    bind \"*:80\" redirect scheme=https",
    ),
    ("block_forgotten", "vip second {\n    address", "vip third\nvip second {\n    address"),
    ("property_as_directive", "    retries 3\n", "    max-connections 5000\n    retries 3\n"),
    ("keepalived_section", "vip second {", "vrrp_instance second {"),
    ("address_before_name", "server tomcat1 \"192.168.112.177:8081\"", "server \"192.168.112.177:8081\""),
    ("port_alone", "bind \"*:80\"", "bind 80"),
    ("tier_twice", "    retries 3\n", "    servers tomcat=app\n"),
    // ---- values ----
    ("number_in_quotes", "    retries 3\n", "    retries \"3\"\n"),
    ("number_out_of_range", "    router-id 51\n", "    router-id 256\n"),
    ("time_without_unit", "every=\"1s\" fall=2", "every=1 fall=2"),
    ("time_with_wrong_unit", "    advertise \"50ms\"\n    preempt", "    advertise \"1sec\"\n    preempt"),
    ("time_too_long", "    advertise \"50ms\"\n    preempt", "    advertise \"1m\"\n    preempt"),
    (
        "time_not_in_centiseconds",
        "    advertise \"50ms\"\n    preempt",
        "    advertise \"55ms\"\n    preempt",
    ),
    ("size_with_wrong_unit", "size \"256MiB\"", "size \"256M\""),
    ("wrong_word", "    preempt never", "    preempt nevr"),
    ("no_prefix_length", "address \"192.168.112.180/24\"", "address \"192.168.112.180\""),
    ("broadcast_address", "address \"192.168.112.180/24\"", "address \"192.168.112.255/24\""),
    ("no_port", "server tomcat1 \"192.168.112.177:8081\"", "server tomcat1 \"192.168.112.177\""),
    (
        "host_name_as_address",
        "server tomcat1 \"192.168.112.177:8081\"",
        "server tomcat1 \"tomcat1.example:8081\"",
    ),
    ("ipv6_without_brackets", "bind \"*:80\"", "bind \"::1:80\""),
    ("octet_too_large", "link \"192.168.112.177\"", "link \"192.168.112.277\""),
    ("status_range_backwards", "expect=200", "expect=\"399-200\""),
    ("relative_path", "\"/srv/relais/progres.war\"", "\"progres.war\""),
    // ---- twice ----
    ("property_twice", "request=\"10s\" client=\"1m\"", "request=\"10s\" client=\"1m\" request=\"5s\""),
    ("directive_twice", "    retries 3\n", "    retries 3\n    retries 5\n"),
    ("name_twice", "backend doctorat {", "backend app {"),
    ("server_twice", "server tomcat2 \"192.168.112.174:8081\"", "server tomcat1 \"192.168.112.174:8081\""),
    ("link_twice", "link \"192.168.112.174\"", "link \"192.168.112.177\""),
    ("router_id_twice", "router-id 52", "router-id 51"),
    ("priority_twice", "    node haproxy2 priority=100\n", "    node haproxy2 priority=101\n"),
    ("vip_twice", "address \"192.168.112.181/24\"", "address \"192.168.112.180/24\""),
    ("node_twice_in_vip", "    node haproxy2 priority=100\n", "    node haproxy1 priority=100\n"),
    ("listener_twice", "    bind \"*:443\" {", "    bind \"*:80\"\n    bind \"*:443\" {"),
    (
        "listener_under_a_star",
        "    bind \"*:443\" {",
        "    bind \"192.168.112.176:80\"\n    bind \"*:443\" {",
    ),
    ("listener_on_the_dashboard", "    bind \"*:443\" {", "    bind \"*:8404\"\n    bind \"*:443\" {"),
    ("listener_on_an_instance", "    bind \"127.0.0.1:3306\"", "    bind \"*:8082\""),
    // ---- references and sense ----
    ("no_such_backend", "    default-backend app\n", "    default-backend ap\n"),
    ("no_such_node", "    on tomcat1 tomcat2\n    instances", "    on tomcat1 tomcat3\n    instances"),
    ("no_such_secret", "secret=db-monitor", "secret=database"),
    ("node_of_another_site", "    arbitrator gluster1", "    arbitrator cerist1"),
    ("leads_nowhere", "    default-backend app\n", ""),
    ("tcp_to_http", "    default-backend percona\n", "    default-backend app\n"),
    (
        "http_rules_in_tcp",
        "    mode tcp\n    bind \"127.0.0.1:3306\"",
        "    mode tcp\n    forwarded-for\n    bind \"127.0.0.1:3306\"",
    ),
    (
        "tracked_frontend_elsewhere",
        "    on haproxy1 haproxy2\n    bind \"*:443\"",
        "    on haproxy1\n    bind \"*:443\"",
    ),
    (
        "vip_of_two_families",
        "    router-id 52",
        "    address \"fd00::1/64\" interface=eth0\n    router-id 52",
    ),
    (
        "vip_on_two_interfaces",
        "    router-id 52",
        "    address \"10.0.0.7/24\" interface=eth1\n    router-id 52",
    ),
    ("vip_password_in_version_3", "    router-id 52", "    password \"/etc/relais/vrrp\"\n    router-id 52"),
    (
        "vip_unicast_to_nobody",
        "    node haproxy2 priority=101\n    node haproxy1 priority=100\n",
        "    unicast\n    node haproxy2 priority=101\n",
    ),
    (
        "vip_unicast_without_links_of_its_family",
        "    address \"192.168.112.181/24\" interface=eth0\n    router-id 52",
        "    address \"fd00::1/64\" interface=eth0\n    unicast\n    router-id 52",
    ),
    ("vip_fraction_in_version_2", "    router-id 52", "    version 2\n    router-id 52"),
    (
        "vip_version_2_of_ipv6",
        "    address \"192.168.112.181/24\" interface=eth0\n    router-id 52",
        "    address \"fd00::1/64\" interface=eth0\n    router-id 52\n    version 2",
    ),
    (
        "vip_link_local_last",
        "    address \"192.168.112.181/24\" interface=eth0\n",
        "    address \"fd00::1/64\" interface=eth0\n    address \"fe80::1/64\" interface=eth0\n",
    ),
    ("vip_of_mapped_ipv6", "\"192.168.112.181/24\"", "\"::ffff:192.168.112.181/96\""),
    ("track_two_things", "    track frontend=web\n", "    track frontend=web link=eth1\n"),
    ("track_nothing", "    track frontend=web\n", "    track weight=-20\n"),
    ("track_too_heavy", "    track frontend=web\n", "    track frontend=web weight=-254\n"),
    ("track_file_of_no_weight", "    track frontend=web\n", "    track file=\"/run/weight\" weight=0\n"),
    ("vip_is_a_node", "address \"192.168.112.180/24\"", "address \"192.168.112.176/24\""),
    (
        "check_port_without_check",
        "    check galera user=monitor secret=db-monitor every=\"1s\"\n    server percona1 \"192.168.112.175:3306\"\n",
        "    server percona1 \"192.168.112.175:3306\" check-port=9200\n",
    ),
    ("bind_elsewhere", "    bind \"127.0.0.1:3306\"", "    bind \"192.168.112.176:3306\""),
    (
        "no_server",
        "    server percona1 \"192.168.112.175:3306\"\n    server percona2 \"192.168.112.179:3306\"\n",
        "",
    ),
    ("no_on", "    on tomcat1 tomcat2\n    instances", "    instances"),
    ("rule_without_action", "        deny 429\n", ""),
    ("secret_nowhere", "secret db-monitor credential=\"db-monitor\"", "secret db-monitor"),
    ("ports_beyond_the_last", "first-port=8081", "first-port=65535"),
    (
        "server_of_no_node",
        "server tomcat1 \"192.168.112.177:8081\"",
        "server tomcat1 \"192.168.112.99:8081\"",
    ),
    (
        "body_limit_in_tcp",
        "    mode tcp\n    balance first",
        "    mode tcp\n    max-body \"1MiB\"\n    balance first",
    ),
    ("udp_leads_to_tcp", "    mode tcp\n    bind \"127", "    mode udp\n    bind \"127"),
    (
        "tunnel_of_datagrams",
        "    mode tcp\n    balance first",
        "    mode udp\n    timeout tunnel=\"1h\" session=\"5s\"\n    balance first",
    ),
    (
        "proxy_header_before_datagrams",
        "    mode tcp\n    balance first                                         // one writer at a time\n    check galera user=monitor secret=db-monitor every=\"1s\"\n    server percona1 \"192.168.112.175:3306\"",
        "    mode udp\n    check dns name=\"www.example\"\n    max-queue 5\n    server percona1 \"192.168.112.175:3306\" send-proxy=v2",
    ),
    (
        "responses_in_tcp",
        "    mode tcp\n    balance first",
        "    mode tcp\n    responses 1\n    timeout session=\"5s\"\n    balance first",
    ),
    (
        "rules_of_datagrams",
        "    mode tcp\n    bind \"127.0.0.1:3306\"\n",
        "    mode udp\n    bind \"127.0.0.1:3306\" { max-connections 5; }\n    rule inside { match src \"10.0.0.0/8\"; deny 403; }\n",
    ),
    (
        "forward_to_a_tcp_backend",
        "    mode tcp\n    bind \"127.0.0.1:3306\"",
        "    mode forward\n    bind \"192.168.112.178:3306\"",
    ),
    (
        "forward_from_everywhere",
        "    on tomcat1 tomcat2                                    // each application server has its own door\n    mode tcp\n    bind \"127.0.0.1:3306\"",
        "    mode forward\n    bind \"*:3306\" { max-connections 5; }\n    access-log off\n    rule inside { match src \"10.0.0.0/8\"; deny; }",
    ),
    (
        "forward_of_a_tcp_frontend",
        "    mode tcp\n    bind \"127.0.0.1:3306\"",
        "    mode tcp\n    forward masquerade=no\n    bind \"127.0.0.1:3306\"",
    ),
    (
        "forward_by_connections",
        "    mode tcp\n    balance first                                         // one writer at a time\n    check galera user=monitor secret=db-monitor every=\"1s\"\n    server percona1 \"192.168.112.175:3306\"",
        "    mode forward\n    balance leastconn\n    timeout connect=\"1s\" tunnel=\"1h\"\n    server percona1 \"192.168.112.175:3306\" max-connections=50 send-proxy=v2",
    ),
    ("dns_check_of_no_name", "check galera user=monitor secret=db-monitor", "check dns type=A6"),
    ("rate_in_tcp", "    mode tcp\n    bind \"127", "    mode tcp\n    min-rate \"1KiB\"\n    bind \"127"),
    ("body_without_unit", "    max-connections 20000\n", "    max-connections 20000\n    max-body 10\n"),
    ("queue_of_a_server", " max-connections=5000 ", " max-connections=5000 max-queue=10 "),
    (
        "compression_of_nothing",
        "    max-connections 20000\n",
        "    max-connections 20000\n    compression {\n        algorithms gzip\n    }\n",
    ),
    (
        "compression_type_with_parameter",
        "    max-connections 20000\n",
        "    max-connections 20000\n    compression {\n        algorithms gzip\n        types \"text/html; charset=utf-8\"\n    }\n",
    ),
    (
        "compression_algorithm_unknown",
        "    max-connections 20000\n",
        "    max-connections 20000\n    compression {\n        algorithms brotli\n        types \"text/*\"\n    }\n",
    ),
    (
        "compression_in_tcp",
        "    mode tcp\n    balance first",
        "    mode tcp\n    compression { algorithms gzip; types \"text/*\"; }\n    balance first",
    ),
    // ---- who gets the next request ----
    ("balance_hdr_of_haproxy", "    balance roundrobin\n", "    balance \"hdr(host)\"\n"),
    ("balance_url_param_of_haproxy", "    balance roundrobin\n", "    balance url_param userid\n"),
    ("balance_rdp_cookie", "    balance roundrobin\n", "    balance rdp-cookie\n"),
    ("balance_misspelt", "    balance roundrobin\n", "    balance leastcon\n"),
    ("balance_header_of_no_name", "    balance roundrobin\n", "    balance header\n"),
    ("balance_locality_by_no_header", "    balance roundrobin\n", "    balance lblc key=header\n"),
    ("balance_locality_name_of_nothing", "    balance roundrobin\n", "    balance lblc key=uri name=X-Id\n"),
    ("balance_hash_of_nothing", "    balance roundrobin\n", "    balance leastconn\n    hash type=maglev\n"),
    (
        "balance_factor_below_the_even_share",
        "    balance roundrobin\n",
        "    balance uri\n    hash balance-factor=90\n",
    ),
    ("balance_backups_of_nobody", "    balance roundrobin\n", "    balance roundrobin\n    allbackups\n"),
    (
        "balance_slow_start_of_a_table",
        "    balance roundrobin\n",
        "    balance static-rr\n    server slow \"192.168.112.177:9000\" slowstart=\"30s\"\n",
    ),
    ("balance_uri_in_tcp", "    mode tcp\n    balance first", "    mode tcp\n    balance uri"),
    // ---- several at once ----
    (
        "everything_in_one_run",
        "    retries 3\n    redispatch\n    servers tomcat=app max-connections=5000 ",
        "    retries 300\n    redispach\n    timeout queue=10s\n    servers tomcat=ap max-conections=5000 ",
    ),
];

fn expectations() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/mistakes")
}

fn reference() -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/progres.kdl");
    std::fs::read_to_string(path).expect("the reference file")
}

#[test]
fn every_mistake_is_told_as_expected() {
    let reference = reference();
    let mut wrong = Vec::new();
    for (name, right, mistake) in MISTAKES {
        assert!(reference.contains(right), "{name}: the reference file has no {right:?}");
        let text = reference.replacen(right, mistake, 1);
        let told = match relais_config::parse("progres.kdl", &text) {
            Ok(checked) => checked.render(false),
            Err(rejected) => rejected.to_string(),
        };
        let told: String = told.lines().flat_map(|line| [line.trim_end(), "\n"]).collect();
        let path = expectations().join(format!("{name}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &told).expect("the expectation can be written");
        }
        if std::fs::read_to_string(&path).unwrap_or_default() != told {
            wrong.push(format!("{name}:\n{told}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "told otherwise (UPDATE=1 writes the expectations anew):\n\n{}",
        wrong.join("\n")
    );
}

#[test]
fn every_expectation_belongs_to_a_mistake_and_says_where_and_what_to_do() {
    if std::env::var_os("UPDATE").is_some() {
        return; // They are being written by the other test.
    }
    for entry in std::fs::read_dir(expectations()).expect("the expectations") {
        let path = entry.expect("an expectation").path();
        let name = path.file_stem().and_then(|name| name.to_str()).expect("a name");
        assert!(MISTAKES.iter().any(|(mistake, ..)| *mistake == name), "{name} belongs to no mistake");
        let told = std::fs::read_to_string(&path).expect("text");
        assert!(
            told.contains("--> progres.kdl:") && told.contains('^') && told.contains("help: "),
            "{name}:\n{told}"
        );
    }
}
