//! What an operator has changed on a running node, beside the file: servers drained, put down, weighed anew, added and
//! taken out. A plan in force is its text and these, applied to it.
//!
//! An override is kept and passed on as the command that makes it, one a line: `drain app/tomcat1`. Not who keeps
//! them (the supervisor, in a file of its own), nor what they do to traffic: the proxy gets a plan like any other.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::plan::{Admin, Backend, Plan, Server};

/// Most servers that may have overrides.
const MOST: usize = 1_000;

/// Longest line, bytes.
const LONGEST: usize = 512;

/// Overrides by backend and server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(BTreeMap<(Arc<str>, Arc<str>), Override>);

/// What an operator wants of one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Override {
    added: Option<Added>,
    removed: bool,
    admin: Admin,
    weight: Option<u16>,
}

/// A server that is not in the file. What is not said here is as it is of the backend's first server.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Added {
    address: SocketAddr,
    backup: bool,
    max_connections: Option<u32>,
}

impl Overrides {
    /// Those of a file of lines, and what is wrong with lines that are not among them.
    pub fn read(text: &str) -> (Overrides, Vec<String>) {
        let (mut all, mut wrong) = (Overrides::default(), Vec::new());
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            if let Err(why) = Words::of(line).and_then(|words| all.enter(&words)) {
                wrong.push(format!("`{line}`: {why}"));
            }
        }
        (all, wrong)
    }

    /// The commands that make them, in an order in which they can be given.
    pub fn lines(&self) -> Vec<String> {
        self.0.iter().flat_map(|((backend, server), one)| one.lines(&format!("{backend}/{server}"))).collect()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes in a command. `plan` is the one in force, with these overrides in it.
    ///
    /// # Errors
    /// One sentence that says why it cannot be done; nothing has changed then.
    pub fn command(&mut self, line: &str, plan: &Plan) -> Result<(), String> {
        let words = Words::of(line)?;
        if words.verb == "reset" {
            return self.reset(&words);
        }
        let (backend, name) = words.server()?;
        let Some(found) = plan.backends.iter().find(|known| *known.name == *backend) else {
            return Err(format!("there is no backend `{backend}`: `relais status` lists them"));
        };
        let there = found.servers.iter().any(|server| *server.name == *name);
        match words.verb {
            "add-server" if there => {
                return Err(format!("backend `{backend}` has a server `{name}` already"));
            }
            "add-server" if self.0.get(&(backend.into(), name.into())).is_some_and(|one| one.removed) => {
                return Err(format!(
                    "`{backend}/{name}` is a server of the file: bring it back with `relais reset {backend}/{name}`"
                ));
            }
            "add-server" => {}
            _ if !there => return Err(format!("backend `{backend}` has no server `{name}`")),
            "remove-server" if found.servers.len() == 1 => {
                return Err(format!(
                    "`{name}` is the only server of backend `{backend}`: add another first, or put it `down`"
                ));
            }
            _ => {}
        }
        let mut changed = self.clone();
        changed.enter(&words)?;
        if changed.0.len() > MOST {
            return Err(format!("{MOST} servers have overrides already: write the changes into the file"));
        }
        *self = changed;
        Ok(())
    }

    /// Drops those of one server, or all.
    fn reset(&mut self, words: &Words<'_>) -> Result<(), String> {
        if words.subject.is_empty() {
            if self.0.is_empty() {
                return Err("nothing is overridden".to_owned());
            }
            self.0.clear();
            return Ok(());
        }
        let (backend, name) = words.server()?;
        match self.0.remove(&(backend.into(), name.into())) {
            Some(_) => Ok(()),
            None => Err(format!("nothing of `{backend}/{name}` is overridden")),
        }
    }

    /// Takes in what a line says, whatever the plan.
    fn enter(&mut self, words: &Words<'_>) -> Result<(), String> {
        let (backend, name) = words.server()?;
        let key = (Arc::from(backend), Arc::from(name));
        let mut one = self.0.get(&key).cloned().unwrap_or_default();
        match (words.verb, words.rest.as_slice()) {
            ("ready", []) => one.admin = Admin::Ready,
            ("drain", []) => one.admin = Admin::Drain,
            ("down", []) => one.admin = Admin::Down,
            ("weight", [weight]) => {
                let number = weight.parse().ok().filter(|weight| *weight <= 256);
                one.weight = Some(
                    number.ok_or_else(|| format!("a weight is a number from 0 to 256, not `{weight}`"))?,
                );
            }
            ("add-server", [address, options @ ..]) => {
                one = Override::default();
                one.added = Some(Added::read(address, options, &mut one.weight)?);
            }
            // One that was added is only forgotten.
            ("remove-server", []) if one.added.is_some() => one = Override::default(),
            ("remove-server", []) => one = Override { removed: true, ..Override::default() },
            ("ready" | "drain" | "down" | "remove-server", _) => {
                return Err(format!("`{}` takes a server and nothing else", words.verb));
            }
            ("weight", _) => return Err("`weight` takes a server and a number from 0 to 256".to_owned()),
            ("add-server", _) => return Err("`add-server` takes a server and its ADDRESS:PORT".to_owned()),
            (verb, _) => return Err(format!("there is no command `{verb}`")),
        }
        if one == Override::default() {
            self.0.remove(&key);
        } else {
            self.0.insert(key, one);
        }
        Ok(())
    }

    /// Makes them part of a plan that comes from the file. Those that do not fit it any more are dropped, and a sentence
    /// is said of each.
    pub fn apply(&mut self, plan: &mut Plan) -> Vec<String> {
        let mut dropped = Vec::new();
        // Added ones first: they may be all that is left when others are taken out.
        for added in [true, false] {
            self.0.retain(|(backend, name), one| {
                if one.added.is_some() != added {
                    return true;
                }
                let fits = match plan.backends.iter_mut().find(|known| known.name == *backend) {
                    Some(known) => one.apply(known, name),
                    None => Err("the plan has no such backend any more"),
                };
                if let Err(why) = fits {
                    let lines = one.lines(&format!("{backend}/{name}")).join("`, `");
                    dropped.push(format!("`{lines}` is no longer in force: {why}"));
                }
                fits.is_ok()
            });
        }
        dropped
    }
}

impl Override {
    fn lines(&self, server: &str) -> Vec<String> {
        let mut lines = Vec::new();
        match &self.added {
            Some(added) => lines.push(added.line(server, self.weight)),
            None if self.removed => lines.push(format!("remove-server {server}")),
            None => lines.extend(self.weight.map(|weight| format!("weight {server} {weight}"))),
        }
        match self.admin {
            Admin::Ready => {}
            Admin::Drain => lines.push(format!("drain {server}")),
            Admin::Down => lines.push(format!("down {server}")),
        }
        lines
    }

    fn apply(&self, backend: &mut Backend, name: &Arc<str>) -> Result<(), &'static str> {
        let at = backend.servers.iter().position(|server| server.name == *name);
        let at = match (at, &self.added) {
            (Some(_), Some(_)) => return Err("the plan has a server of this name itself now"),
            (Some(at), None) => at,
            (None, None) => return Err("the plan has no such server any more"),
            (None, Some(added)) => {
                let like =
                    backend.servers.first().ok_or("the backend has no server that it could be like")?;
                let server = Server {
                    name: name.clone(),
                    address: added.address,
                    backup: added.backup,
                    max_connections: added.max_connections.or(like.max_connections),
                    weight: 1,
                    node: None,
                    cookie: None,
                    check_port: None,
                    check_address: None,
                    ..like.clone()
                };
                backend.servers.push(server);
                backend.servers.len() - 1
            }
        };
        if self.removed {
            if backend.servers.len() == 1 {
                return Err("it is the only server that is left");
            }
            backend.servers.remove(at);
            return Ok(());
        }
        let server = &mut backend.servers[at];
        server.weight = self.weight.unwrap_or(server.weight);
        server.admin = self.admin;
        if self.admin == Admin::Drain {
            server.weight = 0;
        }
        Ok(())
    }
}

impl Added {
    fn read(address: &str, options: &[&str], weight: &mut Option<u16>) -> Result<Added, String> {
        let parsed = address.parse().ok().filter(|address: &SocketAddr| address.port() > 0);
        let address = parsed.ok_or_else(|| format!("`{address}` is no ADDRESS:PORT"))?;
        let mut added = Added { address, backup: false, max_connections: None };
        for option in options {
            let wrong = || format!("`{option}`: write weight=N, max-connections=N or backup");
            match option.split_once('=') {
                None if *option == "backup" => added.backup = true,
                Some(("weight", value)) => {
                    *weight = Some(value.parse().ok().filter(|w| *w <= 256).ok_or_else(wrong)?);
                }
                Some(("max-connections", value)) => {
                    let number = value.parse().ok().filter(|n| (1..=1_000_000).contains(n));
                    added.max_connections = Some(number.ok_or_else(wrong)?);
                }
                _ => return Err(wrong()),
            }
        }
        Ok(added)
    }

    fn line(&self, server: &str, weight: Option<u16>) -> String {
        let mut line = format!("add-server {server} {}", self.address);
        // Writing to a string cannot fail.
        let _ = weight.map(|weight| write!(line, " weight={weight}"));
        let _ = self.max_connections.map(|most| write!(line, " max-connections={most}"));
        line + if self.backup { " backup" } else { "" }
    }
}

/// A command, taken apart.
struct Words<'a> {
    verb: &'a str,
    subject: &'a str,
    rest: Vec<&'a str>,
}

impl<'a> Words<'a> {
    fn of(line: &'a str) -> Result<Words<'a>, String> {
        if line.len() > LONGEST {
            return Err(format!("it is longer than {LONGEST} bytes"));
        }
        let mut words = line.split_ascii_whitespace();
        let verb = words.next().ok_or("it says nothing")?;
        Ok(Words { verb, subject: words.next().unwrap_or_default(), rest: words.collect() })
    }

    fn server(&self) -> Result<(&'a str, &'a str), String> {
        let parts = self.subject.split_once('/').filter(|(backend, name)| is_name(backend) && is_name(name));
        parts.ok_or_else(|| format!("`{}` is no BACKEND/SERVER, such as app/tomcat1", self.subject))
    }
}

/// As names are in the file.
fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    text.len() <= 63 && text.starts_with(|c: char| c.is_ascii_alphanumeric()) && text.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        let text = "platform p\nnode here { link \"127.0.0.1\"; }\nfrontend web { bind \"*:80\"; default-backend app; }\n\
                    backend app { persist cookie=SRV; check tcp; server s1 \"127.0.0.1:81\" max-connections=7 cookie=one check-port=91; server s2 \"127.0.0.1:82\" weight=3; }";
        crate::parse("plan.kdl", text).expect("a plan").plan
    }

    /// The plan with these commands given one after the other, and what they are kept as.
    fn after(commands: &[&str]) -> (Plan, Vec<String>) {
        let (mut all, mut in_force) = (Overrides::default(), plan());
        for line in commands {
            all.command(line, &in_force).unwrap_or_else(|why| panic!("{line}: {why}"));
            in_force = plan();
            assert_eq!(all.apply(&mut in_force), Vec::<String>::new());
        }
        let lines = all.lines();
        assert_eq!(Overrides::read(&lines.join("\n")), (all, vec![]), "what is written is read");
        (in_force, lines)
    }

    fn servers(plan: &Plan) -> Vec<(&str, u16, Admin)> {
        plan.backends[0].servers.iter().map(|s| (&*s.name, s.weight, s.admin)).collect()
    }

    #[test]
    fn a_server_is_drained_put_down_weighed_and_made_ready_again() {
        let (plan, lines) = after(&["drain app/s2", "weight app/s2 9", "down app/s1"]);
        assert_eq!(servers(&plan), [("s1", 1, Admin::Down), ("s2", 0, Admin::Drain)]);
        assert_eq!(lines, ["down app/s1", "weight app/s2 9", "drain app/s2"]);
        let (plan, lines) = after(&["drain app/s2", "weight app/s2 9", "ready app/s2"]);
        assert_eq!(servers(&plan), [("s1", 1, Admin::Ready), ("s2", 9, Admin::Ready)]);
        assert_eq!(lines, ["weight app/s2 9"]);
        let (_, lines) = after(&["drain app/s2", "ready app/s2", "down app/s1", "reset app/s1"]);
        assert_eq!(lines, Vec::<String>::new());
        assert_eq!(after(&["drain app/s2", "down app/s1", "reset"]).1, Vec::<String>::new());
    }

    #[test]
    fn servers_are_added_like_the_first_and_taken_out() {
        let (plan, lines) = after(&["add-server app/s3 127.0.0.1:83 weight=5", "drain app/s3"]);
        assert_eq!(servers(&plan)[2], ("s3", 0, Admin::Drain));
        assert_eq!(plan.backends[0].servers[2].max_connections, Some(7));
        assert_eq!(lines, ["add-server app/s3 127.0.0.1:83 weight=5", "drain app/s3"]);
        let (plan, _) = after(&["add-server app/s3 [::1]:83 max-connections=2 backup"]);
        let third = &plan.backends[0].servers[2];
        assert!(third.backup && third.max_connections == Some(2) && third.weight == 1);
        assert_eq!((&third.cookie, third.check_port), (&None, None), "these are the first one's alone");
        let (plan, lines) =
            after(&["add-server app/s3 127.0.0.1:83", "remove-server app/s3", "remove-server app/s1"]);
        assert_eq!((servers(&plan).len(), lines), (1, vec!["remove-server app/s1".to_owned()]));
        let (plan, _) =
            after(&["add-server app/z 127.0.0.1:83", "remove-server app/s1", "remove-server app/s2"]);
        assert_eq!(servers(&plan), [("z", 1, Admin::Ready)], "a new one in place of all others");
    }

    #[test]
    fn what_cannot_be_done_is_said_and_changes_nothing() {
        for (command, why) in [
            ("drain app/s9", "backend `app` has no server `s9`"),
            ("drain web/s1", "there is no backend `web`: `relais status` lists them"),
            ("drain app", "`app` is no BACKEND/SERVER, such as app/tomcat1"),
            ("drain app/s1 now", "`drain` takes a server and nothing else"),
            ("weight app/s1 257", "a weight is a number from 0 to 256, not `257`"),
            ("add-server app/s1 127.0.0.1:1", "backend `app` has a server `s1` already"),
            ("add-server app/s3 localhost", "`localhost` is no ADDRESS:PORT"),
            ("add-server app/s3 127.0.0.1:1 x=1", "`x=1`: write weight=N, max-connections=N or backup"),
            ("reset app/s1", "nothing of `app/s1` is overridden"),
            ("reset", "nothing is overridden"),
            ("fly app/s1", "there is no command `fly`"),
        ] {
            let mut all = Overrides::default();
            assert_eq!(all.command(command, &plan()), Err(why.to_owned()), "{command}");
            assert!(all.is_empty());
        }
        let (plan, _) = after(&["remove-server app/s2"]);
        let mut all = Overrides::read("remove-server app/s2").0;
        assert!(all.command("remove-server app/s1", &plan).is_err_and(|why| why.contains("only server")));
        assert!(
            all.command("add-server app/s2 127.0.0.1:1", &plan)
                .is_err_and(|why| why.contains("relais reset"))
        );
    }

    #[test]
    fn a_plan_that_has_moved_on_drops_what_no_longer_fits_and_says_so() {
        let lines = "# kept by relais\ndown app/s9\n\nadd-server app/s1 127.0.0.1:9\ndrain old/x\ndrain app/s2\nnonsense\n";
        let (mut all, wrong) = Overrides::read(lines);
        assert_eq!(wrong, ["`nonsense`: `` is no BACKEND/SERVER, such as app/tomcat1"]);
        let mut plan = plan();
        assert_eq!(
            all.apply(&mut plan),
            [
                "`add-server app/s1 127.0.0.1:9` is no longer in force: the plan has a server of this name itself now",
                "`down app/s9` is no longer in force: the plan has no such server any more",
                "`drain old/x` is no longer in force: the plan has no such backend any more",
            ]
        );
        assert_eq!(all.lines(), ["drain app/s2"]);
    }
}
