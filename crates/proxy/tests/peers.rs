//! Health checks beside the servers that they are for: a node of Galera, Redis. What Debian has of them, started here on ports
//! of their own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod common;

use std::io::Write;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use common::{Door, Origin, Proxy, nobody, plan, scratch};
use relais_ipc::files::Files;
use relais_ipc::{Order, Report};

/// A server's process and its directory, both gone with the test.
struct Server {
    process: Child,
    dir: PathBuf,
}

impl Server {
    fn end(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Whether this program is here; said out loud if not.
fn is_there(program: &str) -> bool {
    let there = Path::new(program).exists();
    if !there {
        assert!(
            std::env::var("CI").as_deref() != Ok("true"),
            "{program} is not installed, and CI must not skip"
        );
        let _ = writeln!(std::io::stderr(), "SKIPPED: {program} is not installed");
    }
    there
}

/// A proxy whose checks ask this server, with this password at hand.
fn checking(check: &str, server: SocketAddr, password: &str) -> (Proxy, Door) {
    let door = Door::new(1);
    let mut files = Files::default();
    files.insert("/password", Ok(format!("{password}\n").into_bytes()));
    let mut proxy = Proxy::bare(1);
    proxy.platform = "secret word file=\"/password\";".to_owned();
    proxy.order(&Order::Files { renew: false }, Some(files.to_fd().unwrap()));
    let back = format!("mode tcp\n check {check} every=\"50ms\" fall=1 rise=1");
    let text = plan(&door, "mode tcp", &back, &[server]);
    assert_eq!(proxy.plan(&text, &[&door]), Report::Ready { generation: 1 });
    (proxy, door)
}

fn found(proxy: &Proxy) -> (bool, String) {
    let status = proxy.status();
    let server = &status.backends[0].servers[0];
    (server.up, server.check.clone())
}

/// Waits until a check has found this.
fn wait_found(proxy: &Proxy, up: bool, what: &str) {
    let start = std::time::Instant::now();
    while found(proxy) != (up, what.to_owned()) {
        assert!(start.elapsed().as_secs() < 30, "{:?}, and not {what}", found(proxy));
        std::thread::sleep(std::time::Duration::from_millis(10)); // the polling interval of an awaited condition
    }
}

#[test]
fn a_real_redis_is_checked_with_its_password() {
    const REDIS: &str = "/usr/bin/redis-server";
    if !is_there(REDIS) {
        return;
    }
    let (address, dir) = (nobody(), scratch("redis"));
    std::fs::create_dir(&dir).unwrap();
    let port = address.port().to_string();
    let mut command = Command::new(REDIS);
    command.args(["--bind", "127.0.0.1", "--port", &port, "--requirepass", "open sesame", "--save", ""]);
    let process = command.current_dir(&dir).stdout(Stdio::null()).spawn().unwrap();
    let mut redis = Server { process, dir };
    let (proxy, _door) = checking("redis secret=word", address, "open sesame");
    wait_found(&proxy, true, "PONG");
    let (without, _door) = checking("redis", address, "");
    wait_found(&without, false, "\"NOAUTH Authentication required.\"");
    let (wrong, _door) = checking("redis secret=word", address, "open barley");
    wait_found(&wrong, false, "\"WRONGPASS invalid username-password pair or user is disabled.\"");
    redis.end();
    wait_found(&proxy, false, "connection refused");
}

/// A directory with one entry below its root, and one that may read it.
fn directory(address: SocketAddr) -> Server {
    let dir = scratch("slapd");
    std::fs::create_dir_all(dir.join("data")).unwrap();
    let shown = dir.display();
    let config = format!(
        "include /etc/ldap/schema/core.schema\nmodulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {shown}/pid\n\
         database mdb\nsuffix \"dc=example,dc=org\"\nrootdn \"cn=monitor,dc=example,dc=org\"\nrootpw sesame\n\
         directory {shown}/data\nmaxsize 10485760\naccess to dn.base=\"ou=hidden,dc=example,dc=org\" by * none\n\
         access to * by * read\n"
    );
    let entries = "dn: dc=example,dc=org\nobjectClass: dcObject\nobjectClass: organization\no: Example\ndc: example\n\n\
         dn: ou=hidden,dc=example,dc=org\nobjectClass: organizationalUnit\nou: hidden\n";
    let (file, ldif) = (dir.join("slapd.conf"), dir.join("entries.ldif"));
    std::fs::write(&file, config).unwrap();
    std::fs::write(&ldif, entries).unwrap();
    let added = Command::new("/usr/sbin/slapadd").arg("-f").arg(&file).arg("-l").arg(&ldif).output().unwrap();
    assert!(added.status.success(), "{}", String::from_utf8_lossy(&added.stderr));
    let mut slapd = Command::new(SLAPD);
    slapd.arg("-f").arg(&file).args(["-h", &format!("ldap://{address}"), "-d", "0"]);
    Server { process: slapd.stderr(Stdio::null()).spawn().unwrap(), dir }
}

const SLAPD: &str = "/usr/sbin/slapd";

#[test]
fn a_real_directory_is_asked_for_an_entry() {
    if !is_there(SLAPD) {
        return;
    }
    let address = nobody();
    let mut server = directory(address);
    let (bound, _door) = checking("ldap", address, "");
    wait_found(&bound, true, "bound");
    let (entry, _door) = checking("ldap base=\"dc=example,dc=org\"", address, "");
    wait_found(&entry, true, "found");
    let (missing, _door) = checking("ldap base=\"ou=none,dc=example,dc=org\"", address, "");
    wait_found(&missing, false, "it has no ou=none,dc=example,dc=org, or does not show it");
    let hidden = "base=\"ou=hidden,dc=example,dc=org\"";
    let (anonymous, _door) = checking(&format!("ldap {hidden}"), address, "");
    wait_found(&anonymous, false, "it has no ou=hidden,dc=example,dc=org, or does not show it");
    let login = format!("ldap {hidden} user=\"cn=monitor,dc=example,dc=org\" secret=word");
    let (known, _door) = checking(&login, address, "sesame");
    wait_found(&known, true, "found");
    let (wrong, _door) = checking(&login, address, "barley");
    wait_found(&wrong, false, "it refuses the login of cn=monitor,dc=example,dc=org, result code 49");
    server.end();
    wait_found(&entry, false, "connection refused");
}

/// A cluster of one node, of which it is the whole primary component.
fn galera(address: SocketAddr) -> Server {
    let dir = scratch("galera");
    let data = dir.join("data");
    std::fs::create_dir_all(&data).unwrap();
    let datadir = format!("--datadir={}", data.display());
    let mut install = Command::new("mariadb-install-db");
    install.args([
        "--no-defaults",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--user=root",
    ]);
    let Output { status, stderr, .. } = install.arg(&datadir).stdout(Stdio::null()).output().unwrap();
    assert!(status.success(), "{}", String::from_utf8_lossy(&stderr));
    let (cluster, transfer) = (nobody().port(), nobody().port());
    let mut mariadbd = Command::new("/usr/sbin/mariadbd");
    mariadbd.args(["--no-defaults", "--user=root", "--bind-address=127.0.0.1", "--skip-name-resolve"]);
    mariadbd.args([
        "--wsrep-on=ON",
        "--binlog-format=ROW",
        "--innodb-autoinc-lock-mode=2",
        "--wsrep-new-cluster",
    ]);
    mariadbd.args(["--wsrep-provider=/usr/lib/galera/libgalera_smm.so", "--wsrep-cluster-address=gcomm://"]);
    mariadbd.args([
        "--wsrep-node-address=127.0.0.1",
        "--innodb-buffer-pool-size=16M",
        "--innodb-log-file-size=8M",
    ]);
    mariadbd.arg(format!(
        "--wsrep-provider-options=gcache.size=1M;gmcast.listen_addr=tcp://127.0.0.1:{cluster};\
         ist.recv_addr=127.0.0.1:{transfer}"
    ));
    mariadbd.arg(format!("--port={}", address.port())).arg(format!("--socket={}/s", dir.display()));
    let log = std::fs::File::create(dir.join("log")).unwrap();
    let process = mariadbd.arg(&datadir).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    Server { process, dir }
}

impl Server {
    fn sql(&self, statement: &str) -> bool {
        let mut client = Command::new("mariadb");
        client.args(["--no-defaults", "-uroot", "-e", statement]);
        let output = client.arg(format!("--socket={}/s", self.dir.display())).output().unwrap();
        output.status.success()
    }
}

#[test]
fn a_real_node_of_galera_is_well_while_it_is_synced() {
    if !is_there("/usr/sbin/mariadbd") || !is_there("/usr/lib/galera/libgalera_smm.so") {
        return;
    }
    let address = nobody();
    let mut node = galera(address);
    common::wait("the database", || node.sql("SELECT 1"));
    assert!(node.sql("CREATE USER monitor@'127.0.0.1' IDENTIFIED BY 'open sesame'"));
    let (proxy, _door) = checking("galera user=monitor secret=word", address, "open sesame");
    wait_found(&proxy, true, "Primary, Synced");
    let (login, _door) = checking("mysql user=monitor secret=word", address, "open sesame");
    wait_found(&login, true, "login");
    let (wrong, _door) = checking("mysql user=monitor secret=word", address, "open barley");
    let denied = "error 1045: \"Access denied for user 'monitor'@'127.0.0.1' (using password: YES)\"";
    wait_found(&wrong, false, denied);
    drop(wrong);
    assert!(node.sql("SET GLOBAL wsrep_desync = ON"));
    wait_found(&proxy, false, "Primary, Donor/Desynced: not synced");
    assert!(node.sql("SET GLOBAL wsrep_desync = OFF"));
    wait_found(&proxy, true, "Primary, Synced");
    node.end();
    wait_found(&proxy, false, "connection refused");
}

#[test]
fn a_check_may_ask_another_port_and_more_often_while_a_server_is_down() {
    let health = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let door = Door::new(1);
    let check = format!(
        "check http port={} every=\"1h\" fastinter=\"20ms\" downinter=\"20ms\" fall=1 rise=2",
        health.address.port()
    );
    let mut proxy = Proxy::start(&plan(&door, "", &check, &[silent.local_addr().unwrap()]), &[&door]);
    wait_found(&proxy, true, "status 200");
    let elsewhere = check.replace(&health.address.port().to_string(), &nobody().port().to_string());
    let text = plan(&door, "", &elsewhere, &[silent.local_addr().unwrap()]);
    proxy.plan(&text, &[]);
    // Of what was firm one failure is enough; then checks come every 20 ms, not every hour.
    proxy.wait_server("s1", false);
    common::wait("further checks", || proxy.status().backends[0].servers[0].check_failures_total > 3);
}
