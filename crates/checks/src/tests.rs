//! Conversations with answers as real servers give them (MariaDB 10.11, PostgreSQL 15, Redis 7, slapd 2.5, Postfix).

use super::*;
use alloc::borrow::ToOwned;
use alloc::vec;

/// FIPS 180-4 §6.1, for tests.
pub(crate) fn sha1(pieces: &[&[u8]]) -> [u8; 20] {
    let mut data = pieces.concat();
    let bits = (data.len() as u64) * 8;
    data.push(0x80);
    while data.len() % 64 != 56 {
        data.push(0);
    }
    data.extend_from_slice(&bits.to_be_bytes());
    let mut state: [u32; 5] = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    for block in data.chunks(64) {
        let mut w: Vec<u32> =
            block.chunks(4).map(|word| u32::from_be_bytes([word[0], word[1], word[2], word[3]])).collect();
        for i in 16..80 {
            w.push((w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16]).rotate_left(1));
        }
        let [mut a, mut b, mut c, mut d, mut e] = state;
        for (i, word) in w.iter().enumerate() {
            let (f, k) = match i / 20 {
                0 => ((b & c) | (!b & d), 0x5a82_7999),
                1 => (b ^ c ^ d, 0x6ed9_eba1),
                2 => ((b & c) | (b & d) | (c & d), 0x8f1b_bcdc),
                _ => (b ^ c ^ d, 0xca62_c1d6u32),
            };
            let next = a.rotate_left(5).wrapping_add(f).wrapping_add(e).wrapping_add(k).wrapping_add(*word);
            (e, d, c, b, a) = (d, c, b.rotate_left(30), a, next);
        }
        for (sum, word) in state.iter_mut().zip([a, b, c, d, e]) {
            *sum = sum.wrapping_add(word);
        }
    }
    let mut out = [0; 20];
    out.chunks_mut(4).zip(state).for_each(|(out, word)| out.copy_from_slice(&word.to_be_bytes()));
    out
}

/// What we say, one piece after the other, and the verdict, if the server says these one after the other.
fn talk(ask: Ask<'_>, answers: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Result<String, String>>) {
    let (mut talk, mut inbox, mut said) = (Talk::new(ask), Vec::new(), Vec::new());
    let mut answers = answers.iter();
    loop {
        match talk.step(&mut inbox) {
            Step::Say(bytes) => said.push(bytes),
            Step::Done(verdict, _) => return (said, Some(verdict)),
            Step::Wait => match answers.next() {
                Some(answer) => inbox.extend_from_slice(answer),
                None => return (said, None),
            },
        }
    }
}

fn verdict(ask: Ask<'_>, answers: &[&[u8]]) -> Result<String, String> {
    talk(ask, answers).1.expect("a verdict")
}

fn well(what: &str) -> Result<String, String> {
    Ok(what.to_owned())
}

fn ill(what: &str) -> Result<String, String> {
    Err(what.to_owned())
}

fn packet(sequence: u8, body: &[u8]) -> Vec<u8> {
    let mut packet = vec![body.len() as u8, (body.len() >> 8) as u8, 0, sequence];
    packet.extend_from_slice(body);
    packet
}

fn greeting() -> Vec<u8> {
    let mut body = b"\x0a5.5.5-10.11.6-MariaDB\0\x2a\0\0\0".to_vec();
    body.extend_from_slice(b"abcdefgh\0\xfe\xf7\x2d\x02\0\xff\x81\x15\0\0\0\0\0\0\x1d\0\0\0ijklmnopqrst\0");
    body.extend_from_slice(b"mysql_native_password\0");
    packet(0, &body)
}

fn mysql<'a>(user: Option<&'a str>, password: &'a [u8], galera: bool) -> Ask<'a> {
    Ask::Mysql { user, password, galera, sha1 }
}

const OK: &[u8] = b"\x07\0\0\x02\0\0\0\x02\0\0\0";

/// The answer of a node that says this of itself.
fn state(rows: &[(&str, &str)]) -> Vec<u8> {
    let mut all = packet(1, &[2]);
    all.extend(packet(2, b"\x03def a column"));
    all.extend(packet(3, b"\x03def another"));
    all.extend(packet(4, b"\xfe\0\0\x02\0"));
    for (name, value) in rows {
        let mut row = vec![name.len() as u8];
        row.extend_from_slice(name.as_bytes());
        row.push(value.len() as u8);
        row.extend_from_slice(value.as_bytes());
        all.extend(packet(5, &row));
    }
    all.extend(packet(6, b"\xfe\0\0\x02\0"));
    all
}

#[test]
fn a_database_greets_and_takes_a_login_with_a_password() {
    assert_eq!(verdict(mysql(None, b"", false), &[&greeting()]), well("5.5.5-10.11.6-MariaDB"));
    let (said, verdict) = talk(mysql(Some("monitor"), b"secret", false), &[&greeting(), OK]);
    assert_eq!(verdict, Some(well("login")));
    let login = &said[0];
    assert_eq!(&login[..8], [login.len() as u8 - 4, 0, 0, 1, 0x01, 0xa2, 0x08, 0]);
    assert_eq!(&login[36..44], b"monitor\0");
    let (once, nonce) = (sha1(&[b"secret"]), b"abcdefghijklmnopqrst");
    let mask = sha1(&[nonce, &sha1(&[&once])]);
    let proof: Vec<u8> = once.iter().zip(mask).map(|(a, b)| a ^ b).collect();
    assert_eq!((login[44], &login[45..65]), (20, &*proof));
    assert_eq!(&login[65..], b"mysql_native_password\0");
    assert_eq!(sha1(&[b"a", b"bc"])[..4], [0xa9, 0x99, 0x3e, 0x36], "FIPS 180-4's example");
}

#[test]
fn another_way_to_log_in_is_taken_where_it_can_be() {
    let switch = packet(2, b"\xfemysql_native_password\0ABCDEFGHIJKLMNOPQRST\0");
    let (said, verdict) = talk(mysql(Some("m"), b"secret", false), &[&greeting(), &switch, OK]);
    assert_eq!(verdict, Some(well("login")));
    let once = sha1(&[b"secret"]);
    let mask = sha1(&[b"ABCDEFGHIJKLMNOPQRST", &sha1(&[&once])]);
    let proof: Vec<u8> = once.iter().zip(mask).map(|(a, b)| a ^ b).collect();
    assert_eq!(said[1], packet(3, &proof));
    let newer = packet(2, b"\xfecaching_sha2_password\0ABCDEFGHIJKLMNOPQRST\0");
    let (said, verdict) = talk(mysql(Some("m"), b"", false), &[&greeting(), &newer, OK]);
    assert_eq!((said[1].as_slice(), verdict), (b"\0\0\0\x03".as_slice(), Some(well("login"))));
    let refused = talk(mysql(Some("m"), b"secret", false), &[&greeting(), &newer]).1.expect("a verdict");
    assert!(refused.is_err_and(|why| why.contains("needs mysql_native_password")));
}

#[test]
fn a_node_of_galera_is_well_while_it_is_primary_synced_and_ready() {
    let found = |rows: &[(&str, &str)]| {
        let answers: [&[u8]; 3] = [&greeting(), OK, &state(rows)];
        verdict(mysql(Some("monitor"), b"secret", true), &answers)
    };
    let node = |cluster, number, comment, ready| {
        found(&[
            ("wsrep_local_state", number),
            ("wsrep_local_state_comment", comment),
            ("wsrep_cluster_status", cluster),
            ("wsrep_ready", ready),
        ])
    };
    assert_eq!(node("Primary", "4", "Synced", "ON"), well("Primary, Synced"));
    assert_eq!(node("Primary", "2", "Donor/Desynced", "ON"), ill("Primary, Donor/Desynced: not synced"));
    assert_eq!(
        node("non-Primary", "0", "Initialized", "OFF"),
        ill("non-Primary, Initialized: not in the primary component")
    );
    assert_eq!(node("Primary", "4", "Synced", "OFF"), ill("Primary, Synced, but not ready for queries"));
    assert_eq!(found(&[]), ill("not a node of Galera: it knows no wsrep_local_state"));
}

#[test]
fn a_database_that_refuses_is_quoted() {
    let denied = packet(2, b"\xff\x15\x04#28000Access denied for user 'monitor'@'localhost'");
    assert_eq!(
        verdict(mysql(Some("monitor"), b"", false), &[&greeting(), &denied]),
        ill("error 1045: \"Access denied for user 'monitor'@'localhost'\"")
    );
    let blocked = packet(0, b"\xff\x69\x04Host '10.0.0.1' is blocked");
    assert_eq!(
        verdict(mysql(None, b"", false), &[&blocked]),
        ill("error 1129: \"Host '10.0.0.1' is blocked\"")
    );
    for bytes in [&b"HTTP/1.1 400 Bad Request\r\n"[..], b"\0\0\0\0", b"\x05\0\0\0\x09abcd"] {
        assert_eq!(verdict(mysql(None, b"", false), &[bytes]), ill("not MySQL"), "{bytes:?}");
    }
}

#[test]
fn postgresql_is_well_once_it_wants_a_password_or_none() {
    let ask = Ask::Postgresql { user: "monitor" };
    let (said, found) = talk(ask, &[b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0"]);
    assert_eq!(said, [b"\0\0\0\x16\0\x03\0\0user\0monitor\0\0".to_vec()]);
    assert_eq!(found, Some(well("takes sessions")));
    let mut starting = b"E\0\0\0\x38SFATAL\0VFATAL\0C57P03\0".to_vec();
    starting.extend_from_slice(b"Mthe database system is starting up\0\0");
    starting[4] = starting.len() as u8 - 1;
    assert_eq!(verdict(ask, &[&starting]), ill("\"the database system is starting up\" 57P03"));
    assert_eq!(verdict(ask, &[b"HTTP/1.1 400"]), ill("not PostgreSQL"));
}

#[test]
fn redis_answers_ping_after_the_password() {
    let (said, found) = talk(Ask::Redis { password: b"" }, &[b"+PO", b"NG\r\n"]);
    assert_eq!((said, found), (vec![b"*1\r\n$4\r\nPING\r\n".to_vec()], Some(well("PONG"))));
    let (said, found) = talk(Ask::Redis { password: b"pa ss" }, &[b"+OK\r\n", b"+PONG\r\n"]);
    assert_eq!((&*said[0], found), (&b"*2\r\n$4\r\nAUTH\r\n$5\r\npa ss\r\n"[..], Some(well("PONG"))));
    let loading = b"-LOADING Redis is loading the dataset in memory\r\n";
    assert_eq!(
        verdict(Ask::Redis { password: b"" }, &[loading]),
        ill("\"LOADING Redis is loading the dataset in memory\"")
    );
    assert_eq!(verdict(Ask::Redis { password: b"" }, &[b"$5\r\n"]), ill("not Redis: \"$5\""));
}

#[test]
fn a_mail_server_greets_and_takes_ehlo() {
    let ask = Ask::Smtp { helo: "lb1" };
    let answers: [&[u8]; 2] =
        [b"220-mail.example\r\n220 ready\r\n", b"250-mail.example\r\n250-PIPELINING\r\n250 SIZE\r\n"];
    assert_eq!(talk(ask, &answers), (vec![b"EHLO lb1\r\n".to_vec()], Some(well("250"))));
    assert_eq!(verdict(ask, &[b"421 too busy\r\n"]), ill("\"421 too busy\""));
    assert_eq!(verdict(ask, &[b"SSH-2.0-x\r\n"]), ill("not SMTP: \"SSH-2.0-x\""));
    assert_eq!(verdict(ask, &[b"220 ok\r\n", b"503 \x1b[31mno\r\n"]), ill("\"503  [31mno\""), "no escapes");
}

#[test]
fn a_directory_takes_an_anonymous_bind() {
    let ldap = Ask::Ldap { user: None, password: b"", base: None };
    let bound = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
    assert_eq!(verdict(ldap, &[&bound[..5], &bound[5..]]), well("bound"));
    let busy = b"\x30\x84\0\0\0\x0c\x02\x01\x01\x61\x07\x0a\x01\x33\x04\x00\x04\x00";
    assert_eq!(verdict(ldap, &[busy]), ill("it is busy"));
    let refused = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x30\x04\x00\x04\x00";
    assert_eq!(verdict(ldap, &[refused]), ill("it refuses an anonymous bind, result code 48"));
    for bytes in [&b"HTTP"[..], b"\x30\xff", b"\x30\x84\xff\xff\xff\xff", b"\x30\x02\x02\x00"] {
        assert_eq!(verdict(ldap, &[bytes]), ill("not LDAP"), "{bytes:?}");
    }
}

#[test]
fn a_directory_is_asked_for_an_entry_by_somebody() {
    let ldap = Ask::Ldap { user: Some("cn=m"), password: b"pw", base: Some("dc=x") };
    let bound = b"\x30\x0c\x02\x01\x01\x61\x07\x0a\x01\x00\x04\x00\x04\x00";
    let entry = b"\x30\x0d\x02\x01\x02\x64\x08\x04\x04dc=x\x30\x00";
    let done = b"\x30\x0c\x02\x01\x02\x65\x07\x0a\x01\x00\x04\x00\x04\x00";
    let (said, found) = talk(ldap, &[bound, entry, &done[..3], &done[3..]]);
    assert_eq!(found, Some(well("found")));
    assert_eq!(said[0], b"\x30\x12\x02\x01\x01\x60\x0d\x02\x01\x03\x04\x04cn=m\x80\x02pw");
    let search = b"\x30\x2e\x02\x01\x02\x63\x29\x04\x04dc=x\x0a\x01\x00\x0a\x01\x00\x02\x01\x00\x02\x01\x00\x01\x01\x00\
        \x87\x0bobjectClass\x30\x05\x04\x031.1";
    assert_eq!(said[1], search);
    // Entry and end in one piece; no entry; no such entry; a wrong password; a search that may not be made.
    assert_eq!(verdict(ldap, &[bound, &[&entry[..], done].concat()]), well("found"));
    let missing = ill("it has no dc=x, or does not show it");
    assert_eq!(verdict(ldap, &[bound, done]), missing);
    let code = |id: u8, tag: u8, code: u8| [0x30, 0x0c, 2, 1, id, tag, 7, 0x0a, 1, code, 4, 0, 4, 0];
    assert_eq!(verdict(ldap, &[bound, &code(2, 0x65, 32)]), missing);
    assert_eq!(verdict(ldap, &[&code(1, 0x61, 49)]), ill("it refuses the login of cn=m, result code 49"));
    assert_eq!(verdict(ldap, &[bound, &code(2, 0x65, 50)]), ill("the search failed, result code 50"));
    assert_eq!(verdict(ldap, &[bound, &code(2, 0x65, 51)]), ill("it is busy"));
    for strange in [&code(1, 0x65, 0)[..], &code(2, 0x61, 0), entry] {
        assert_eq!(verdict(ldap, &[strange]), ill("not LDAP"), "{strange:?}");
    }
}

#[test]
fn a_server_hello_is_told_from_an_alert_and_from_noise() {
    let ask = Ask::Tls { sni: Some("a.example"), random: [7; 32] };
    let (said, found) = talk(ask, &[b"\x16\x03\x03\0\x7a", b"\x02\0\0\x76"]);
    assert_eq!(found, Some(well("ServerHello")));
    let hello = &said[0];
    assert_eq!(usize::from(hello[3]) << 8 | usize::from(hello[4]), hello.len() - 5);
    assert!(hello.windows(9).any(|w| w == b"a.example"));
    assert_eq!(verdict(ask, &[b"\x15\x03\x01\0\x02\x02\x28"]), ill("TLS alert 40 for a ClientHello"));
    for bytes in [&b"HTTP/1.1 400"[..], b"\x16\x03\x03\0\x7a\x0b", b"\x15\x03\x03\x01"] {
        assert_eq!(verdict(ask, &[bytes]), ill("not TLS"), "{bytes:?}");
    }
}

/// A frame of HTTP/2 (RFC 9113 §4.1).
fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, payload.len() as u8, kind, flags, 0, 0, 0, u8::from(kind < 2)];
    frame.extend_from_slice(payload);
    frame
}

#[test]
fn grpc_says_whether_a_service_is_serving() {
    let ask = || Ask::Grpc { service: "a.Service", host: "a.example", tls: false };
    let settings = frame(4, 0, &[0, 3, 0, 0, 0, 100]);
    let answer = |message: &[u8]| {
        let mut data = vec![0, 0, 0, 0, message.len() as u8];
        data.extend_from_slice(message);
        frame(0, 0, &data)
    };
    let (said, found) =
        talk(ask(), &[&settings, &frame(6, 0, b"12345678"), &frame(1, 4, b"\x88"), &answer(b"\x08\x01")]);
    assert_eq!(found, Some(well("SERVING")));
    assert!(said[0].starts_with(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"));
    assert!(
        said[0].windows(9).any(|part| part == b"a.Service")
            && said[0].windows(9).any(|part| part == b"a.example")
    );
    assert_eq!(
        said[1..],
        [frame(4, 1, b""), frame(6, 1, b"12345678")],
        "settings and pings are acknowledged"
    );
    for (message, what) in [
        (&b"\x08\x02"[..], "NOT_SERVING"),
        (b"\x08\x03", "SERVICE_UNKNOWN"),
        (b"", "UNKNOWN"),
        (b"\x08\x00", "UNKNOWN"),
    ] {
        assert_eq!(verdict(ask(), &[&settings, &answer(message)]), ill(what));
    }
    let padded = frame(0, 8, b"\x02\0\0\0\0\x02\x08\x01..");
    assert_eq!(verdict(ask(), &[&settings, &padded]), well("SERVING"));
    let error = "an error instead of an answer; is grpc.health.v1.Health there?";
    assert_eq!(verdict(ask(), &[&settings, &frame(1, 5, b"\x88")]), ill(error));
    assert_eq!(verdict(ask(), &[&settings, &frame(0, 1, b"\0\0\0")]), ill("an answer that ends too soon"));
    assert_eq!(verdict(ask(), &[&settings, &frame(3, 0, &[0; 4])]), ill("the call was reset"));
    assert_eq!(verdict(ask(), &[&settings, &frame(7, 0, &[0; 8])]), ill("the server says goodbye"));
    assert_eq!(verdict(ask(), &[b"HTTP/1.1 400 Bad Request\r\n"]), ill("not HTTP/2"));
}

#[test]
fn an_agent_is_understood_as_haproxy_does() {
    let said = |line: &str| agent(line.as_bytes());
    let both = said("up 75%\n");
    assert_eq!((both.up, both.weight, both.admin, both.unknown), (Some(true), Some(75), None, None));
    assert_eq!(
        (said("DOWN").up, said("failed,drain").up, said("stopped#50%").up),
        (Some(false), Some(false), Some(false))
    );
    assert_eq!(said("stopped#50%").weight, None, "a reason is for people");
    let admin = |line| said(line).admin;
    assert_eq!(admin("ready\tdrain"), Some(AgentAdmin::Drain), "the later word");
    assert_eq!((admin("maint"), admin("ready\r\ndrain")), (Some(AgentAdmin::Maint), Some(AgentAdmin::Ready)));
    assert_eq!((said("250%").weight, said("0%").weight, said("x%").weight), (Some(100), Some(0), None));
    let most = |line| (said(line).max_connections, said(line).unknown);
    assert_eq!(most("up maxconn:30"), (Some(30), None));
    assert_eq!(most("maxconn:many"), (None, Some("\"maxconn:many\"".into())));
    assert_eq!(said("up hungry").unknown.as_deref(), Some("\"hungry\""));
    assert_eq!(said("").text, "\"\"");
}
