//! The application servers: real Tomcats from Debian's package where it is installed, else the embedded
//! application. Two instances a machine, on 8081 and 8082, healthy when `/healthz` answers 200.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::exchange;
use crate::platform::{Lab, Result, SERVERS};

/// Instances on each application server.
const INSTANCES: u16 = 2;
/// Port of the first instance.
const FIRST_PORT: u16 = 8081;
const CATALINA_HOME: &str = "/usr/share/tomcat10";
const CREATE: &str = "/usr/bin/tomcat10-instance-create";
/// Small and quick to start: a lab runs four of them beside everything else.
const JVM: &str = "-Xms64m -Xmx128m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -Djava.awt.headless=true";
const INDEX: &str = "<%@ page session=\"false\" contentType=\"text/plain;charset=UTF-8\" %>NAME answers\n";

/// What an application server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Application {
    /// Tomcat 10 as Debian packages it (tomcat10, tomcat10-user).
    Tomcat,
    /// The enrolment form in this binary.
    Embedded,
}

impl Application {
    /// Tomcat if its packages are there, else the embedded application.
    pub fn installed() -> Application {
        let there = Path::new(CREATE).exists() && Path::new(CATALINA_HOME).join("bin/catalina.sh").exists();
        if there { Application::Tomcat } else { Application::Embedded }
    }

    /// For operators.
    pub fn name(self) -> &'static str {
        match self {
            Application::Tomcat => "Tomcat 10",
            Application::Embedded => "the embedded application",
        }
    }
}

impl Lab {
    /// Every application instance: host and number, from 1.
    pub fn instances(&self) -> Vec<(&'static str, u16)> {
        let all = SERVERS.iter().flat_map(|host| (1..=INSTANCES).map(|number| (*host, number)));
        all.take(if self.settings.failover { usize::MAX } else { 1 }).collect()
    }

    /// Where an instance listens.
    pub fn instance_address(&self, host: &str, number: u16) -> SocketAddr {
        (self.network().host(host).address(), FIRST_PORT + number - 1).into()
    }

    /// An instance's name among the lab's processes.
    pub fn instance_name(host: &str, number: u16) -> String {
        format!("{host}/app-{number}")
    }

    /// Starts an instance; it is well some seconds later ([`Lab::fault`] tells).
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start_instance(&mut self, host: &str, number: u16) -> Result<()> {
        let address = self.instance_address(host, number);
        let mut command = match self.settings.application {
            Application::Tomcat => {
                let base = self.dir.join(host).join(format!("tomcat-{number}"));
                prepare_tomcat(&base, address.port(), &format!("{host}-{number}"))?;
                let mut command = Command::new(Path::new(CATALINA_HOME).join("bin/catalina.sh"));
                command.arg("run").env("CATALINA_HOME", CATALINA_HOME).env("CATALINA_OPTS", JVM);
                command.env("CATALINA_TMPDIR", base.join("temp")).env("CATALINA_BASE", &base);
                command
            }
            Application::Embedded => {
                let mut command = Command::new(&self.settings.relais);
                command.args(["child", "app", "--listen", &address.to_string()]);
                command.args(["--name", &format!("{host}-{number}"), "--store"]).arg(self.dir.join("store"));
                command
            }
        };
        self.start(host, &format!("app-{number}"), &mut command)
    }

    /// Why an instance is not well, asked from its own machine.
    pub(crate) fn application_fault(&self) -> Option<String> {
        self.instances().into_iter().find_map(|(host, number)| {
            let name = Lab::instance_name(host, number);
            if self.process(&name).is_none() {
                return Some(format!("{name} is dead"));
            }
            let netns = self.network().host(host).netns();
            let address = self.instance_address(host, number);
            // The page too: the first request to it compiles it, which is no client's business.
            let asked = ["/healthz", "/"]
                .iter()
                .try_for_each(|path| exchange::get(netns, address, path, Duration::from_secs(10)).map(drop));
            asked.err().map(|why| format!("{name} does not answer: {why}"))
        })
    }
}

/// What the application servers serve as a long download: its path, and how long it is, bytes.
pub(crate) const DOWNLOAD: (&str, usize) = ("/download.bin", 16 * 1024 * 1024);

/// An instance's directory, made as Debian does it, with a web application that says who it is. Made once; a
/// restarted instance finds its own again.
fn prepare_tomcat(base: &Path, port: u16, name: &str) -> Result<()> {
    let root = base.join("webapps/ROOT");
    if root.join("index.jsp").exists() {
        return Ok(());
    }
    let shutdown = (port + 1000).to_string();
    let created = Command::new(CREATE).args(["-p", &port.to_string(), "-c", &shutdown]).arg(base).output();
    let created = created.map_err(|e| format!("{CREATE} cannot be run: {e}"))?;
    if !created.status.success() {
        return Err(format!("{CREATE} failed: {}", String::from_utf8_lossy(&created.stderr).trim()));
    }
    fs::create_dir_all(&root)
        .and_then(|()| fs::write(root.join("healthz"), "ok\n"))
        .and_then(|()| fs::write(root.join(&DOWNLOAD.0[1..]), vec![b'.'; DOWNLOAD.1]))
        .and_then(|()| fs::write(root.join("index.jsp"), INDEX.replace("NAME", name)))
        .map_err(|e| format!("{} cannot be written: {e}", root.display()))
}
