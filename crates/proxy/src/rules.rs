//! Rules at work: what a plan's rules come to, and what they do to a request.
//!
//! Which rules match is `relais_rules`' business. Here their files are read (by the main thread, which watches
//! them), their actions are put together, and a matching rule's actions become a [`Decision`] that the session
//! acts on: an answer, a backend, changes of the heads. A frontend without rules costs one branch; a request that no
//! rule matches allocates nothing.

use std::fmt;
use std::net::IpAddr;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use relais_config::lists;
use relais_config::plan::{self, BackendId, RespondBody};
use relais_http::field;
use relais_rules::rewrite::Rewrite;
use relais_rules::template::Template;
use relais_rules::{BadPath, Condition, Facts, Key, Program, Rule, Scratch, What};

use crate::answer::{self, Persistence};
use crate::client::Client;
use crate::counters::{Counter, Registry};
use crate::keyed::{Place, Places, Rates, Tally};
use crate::limits;
use crate::pages::Pages;
use crate::session::Asked;
use crate::tls;
use crate::upstream::Backend;
use crate::worker::{FrontPlan, Worker};

/// A frontend's or backend's rules, compiled; shared by the workers.
#[derive(Debug)]
pub(crate) struct Rules {
    program: Program,
    rules: Vec<Acts>,
    reads_port: bool,
    reads_client: bool,
    /// The name in the TLS handshake matters.
    pub(crate) reads_sni: bool,
    /// Those that are asked about connections as they are accepted.
    doors: Option<Box<Rules>>,
}

#[derive(Debug)]
struct Acts {
    name: Arc<str>,
    /// By worker.
    hits: Arc<[Counter]>,
    /// What it counts, in the order that the program asks in.
    rates: Vec<Arc<Rates>>,
    acts: Vec<Act>,
}

#[derive(Debug)]
enum Act {
    Deny(u16, Manner),
    Reject { most: Option<(u32, Key)>, places: Option<Arc<Places>>, silent: bool },
    Backend { to: Option<BackendId>, map: Option<Map> },
    Redirect { to: Template, code: u16 },
    Respond { status: u16, body: Arc<[u8]>, content_type: Template },
    Header { response: bool, replace: bool, name: Arc<str>, value: Option<Template> },
    Rewrite(Rewrite),
    Limit { limit: plan::Limit, places: Option<Arc<Places>> },
}

/// How somebody is denied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Manner {
    #[default]
    AtOnce,
    /// Held for so long first.
    After(Duration),
    /// Not told.
    Silent,
}

#[derive(Debug)]
struct Map {
    program: Program,
    to: Vec<BackendId>,
}

/// Whose rules they are.
#[derive(Clone, Debug)]
pub(crate) enum Owner {
    Frontend(Arc<str>),
    Backend(Arc<str>),
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Owner::Frontend(name) => write!(f, "frontend {name}"),
            Owner::Backend(name) => write!(f, "backend {name}"),
        }
    }
}

/// What tells one state of a file from the next.
pub(crate) type Stamp = Option<(u64, u64, i64, i64)>;

/// A file's stamp; `None`: it is not there.
pub(crate) fn stamp(path: &Path) -> Stamp {
    let meta = std::fs::metadata(path).ok()?;
    Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
}

/// The files that rules read.
pub(crate) fn files(rules: &[plan::Rule]) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = Vec::new();
    for rule in rules {
        files.extend(rule.conditions.iter().filter_map(|c| c.list.as_deref()).map(PathBuf::from));
        files.extend(rule.actions.iter().filter_map(|action| match action {
            plan::Action::Backend { map: Some((file, _)), .. } => Some(PathBuf::from(&**file)),
            plan::Action::Respond { body: RespondBody::File(file), .. } => Some(PathBuf::from(&**file)),
            _ => None,
        }));
    }
    files.sort();
    files.dedup();
    files
}

impl Rules {
    /// Reads what rules name, and compiles them; `None` if there are none.
    ///
    /// # Errors
    /// A sentence with `FILE:LINE` where a file is at fault.
    pub(crate) fn new(
        owner: &Owner,
        plan: &[plan::Rule],
        backends: &[Arc<str>],
        registry: &mut Registry,
    ) -> Result<Option<Arc<Rules>>, String> {
        if plan.is_empty() {
            return Ok(None);
        }
        let (doors, others): (Vec<_>, Vec<_>) = plan.iter().partition(|rule| rule.rejects());
        let mut rules = Rules::compile(owner, &others, backends, registry)?;
        if !doors.is_empty() {
            rules.doors = Some(Box::new(Rules::compile(owner, &doors, backends, registry)?));
        }
        Ok(Some(Arc::new(rules)))
    }

    fn compile(
        owner: &Owner,
        plan: &[&plan::Rule],
        backends: &[Arc<str>],
        registry: &mut Registry,
    ) -> Result<Rules, String> {
        let place: Arc<str> = owner.to_string().into();
        let mut rules = Vec::with_capacity(plan.len());
        let mut specs = Vec::with_capacity(plan.len());
        let mut reads_port = false;
        let mut reads_client = false;
        let mut reads_sni = false;
        for rule in plan {
            let conditions: Vec<Condition> =
                rule.conditions.iter().map(condition).collect::<Result<_, _>>()?;
            let port = |a: &plan::Action| match a {
                plan::Action::Header { value: Some(value), .. } => value.reads_port(),
                plan::Action::Redirect { to, .. } => to.reads_port(),
                _ => false,
            };
            let client = |a: &plan::Action| match a {
                plan::Action::Header { value: Some(value), .. } => value.reads_client(),
                plan::Action::Redirect { to, .. } => to.reads_client(),
                _ => false,
            };
            reads_client |= rule.actions.iter().any(client);
            reads_sni |= rule.rates.iter().any(|rate| rate.key.parts.contains(&What::Sni))
                || rule.actions.iter().any(|a| match a {
                    plan::Action::Limit(plan::Limit { places: Some((_, key)), .. }) => {
                        key.parts.contains(&What::Sni)
                    }
                    _ => false,
                });
            reads_sni |= conditions.iter().any(|c| c.what == What::Sni)
                || rule.actions.iter().any(
                    |a| matches!(a, plan::Action::Backend { map: Some((_, what)), .. } if *what == What::Sni),
                );
            reads_port |= conditions.iter().any(|c| c.what == What::Port) || rule.actions.iter().any(port);
            let asked = rule.rates.iter().map(|rate| rate.key.clone()).collect();
            specs.push(Rule { conditions, asked, last: rule.ends() });
            let rates = rule.rates.iter().enumerate();
            let rates = rates
                .map(|(at, rate)| registry.rates((place.clone(), rule.name.clone(), at, rate.clone())))
                .collect();
            let mut acts = Vec::with_capacity(rule.actions.len());
            for (at, action) in rule.actions.iter().enumerate() {
                let places = |key: &Key| registry.places((place.clone(), rule.name.clone(), at, key.clone()));
                acts.push(act(action, backends, places)?);
            }
            let hits = registry.rule(&place, &rule.name);
            rules.push(Acts { name: rule.name.clone(), hits, rates, acts });
        }
        let program = Program::new(&specs).map_err(|error| {
            let name = rules.get(error.rule).map(|rule| rule.name.clone()).unwrap_or_default();
            format!("rule `{name}` of {owner} cannot be used: {error}")
        })?;
        Ok(Rules { program, rules, reads_port, reads_client, reads_sni, doors: None })
    }

    fn reads(&self) -> [bool; 2] {
        [self.reads_port, self.reads_client]
    }

    /// The rules and how often each matched.
    pub(crate) fn hits(&self) -> impl Iterator<Item = (&Arc<str>, u64)> {
        let doors = self.doors.iter().flat_map(|doors| &doors.rules);
        doors.chain(&self.rules).map(|rule| (&rule.name, rule.hits.iter().map(Counter::get).sum()))
    }

    /// The backends that maps lead to now.
    pub(crate) fn mapped(&self) -> impl Iterator<Item = BackendId> {
        self.rules
            .iter()
            .flat_map(|rule| &rule.acts)
            .flat_map(|act| match act {
                Act::Backend { map: Some(map), .. } => map.to.as_slice(),
                _ => &[],
            })
            .copied()
    }
}

fn condition(condition: &plan::RuleCondition) -> Result<Condition, String> {
    let mut is = condition.is.clone();
    if let Some(file) = &condition.list {
        is.any.extend(lists::list(Path::new(&**file), &is.what)?);
    }
    Ok(is)
}

fn act(
    action: &plan::Action,
    backends: &[Arc<str>],
    places: impl FnOnce(&Key) -> Arc<Places>,
) -> Result<Act, String> {
    Ok(match action {
        plan::Action::Deny(code) => Act::Deny(*code, Manner::AtOnce),
        plan::Action::Tarpit(code, time) => Act::Deny(*code, Manner::After(*time)),
        plan::Action::SilentDrop => Act::Deny(403, Manner::Silent),
        plan::Action::Reject { places: most, silent } => Act::Reject {
            most: most.clone(),
            places: most.as_ref().map(|(_, key)| places(key)),
            silent: *silent,
        },
        plan::Action::Backend { to, map } => Act::Backend {
            to: *to,
            map: map.as_ref().map(|(file, key)| read_map(file, key, backends)).transpose()?,
        },
        plan::Action::Redirect { to, code } => Act::Redirect { to: to.clone(), code: *code },
        plan::Action::Respond { status, body, content_type } => Act::Respond {
            status: *status,
            body: match body {
                RespondBody::Text(text) => text.as_bytes().into(),
                RespondBody::File(file) => read_body(file)?,
            },
            content_type: Template::value(content_type)?,
        },
        plan::Action::Header { response, replace, name, value } => {
            Act::Header { response: *response, replace: *replace, name: name.clone(), value: value.clone() }
        }
        plan::Action::Limit(limit) => {
            Act::Limit { limit: limit.clone(), places: limit.places.as_ref().map(|(_, key)| places(key)) }
        }
        plan::Action::Rewrite(spec) if spec.regex => Act::Rewrite(Rewrite::regex(&spec.what, &spec.to)?),
        plan::Action::Rewrite(spec) => Act::Rewrite(Rewrite::prefix(&spec.what, &spec.to)),
    })
}

fn read_map(file: &str, key: &What, backends: &[Arc<str>]) -> Result<Map, String> {
    let known = |name: &str| backends.iter().position(|b| &**b == name).map(|at| BackendId(at as u16));
    let entries = lists::map(Path::new(file), key, known)?;
    let (mut rules, mut to) = (Vec::with_capacity(entries.len()), Vec::with_capacity(entries.len()));
    for (any, backend) in entries {
        rules.push(Rule {
            conditions: vec![Condition { negated: false, what: key.clone(), any }],
            last: true,
            ..Rule::default()
        });
        to.push(backend);
    }
    let program = Program::new(&rules).map_err(|error| format!("{file} cannot be used: {error}"))?;
    Ok(Map { program, to })
}

pub(crate) fn read_body(file: &str) -> Result<Arc<[u8]>, String> {
    use std::io::Read;
    let mut body = Vec::new();
    std::fs::File::open(file)
        .and_then(|open| open.take(limits::RESPOND_BYTES + 1).read_to_end(&mut body))
        .map_err(|error| format!("{file} cannot be read: {error}"))?;
    if body.len() as u64 > limits::RESPOND_BYTES {
        return Err(format!("{file} is longer than {} bytes", limits::RESPOND_BYTES));
    }
    Ok(body.into())
}

/// What rules made of a request.
#[derive(Default)]
pub(crate) struct Decision {
    /// Who answers, if not the default.
    pub(crate) backend: Option<Rc<Backend>>,
    /// What is answered without a server.
    pub(crate) verdict: Option<Verdict>,
    /// What is different in the heads.
    pub(crate) edits: Option<Box<Edits>>,
    /// What it is held to.
    pub(crate) limits: Option<Box<Limits>>,
}

/// What rules hold a request or connection to, and its places among those of its keys: they are given back with it.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    places: Vec<Place>,
    /// What is counted of it when it is over.
    pub(crate) tallies: Vec<Tally>,
    pub(crate) max_body: Option<u64>,
    pub(crate) min_rate: Option<Option<plan::MinRate>>,
    pub(crate) timeout_client: Option<Duration>,
    pub(crate) timeout_server: Option<Duration>,
    pub(crate) rank: Option<plan::Rank>,
    pub(crate) delay: Option<Duration>,
}

impl Limits {
    /// Keeps a place for as long as the request is under way.
    pub(crate) fn hold(&mut self, place: Place) {
        self.places.push(place);
    }

    fn add(&mut self, limit: &plan::Limit) {
        self.max_body = [self.max_body, limit.max_body].into_iter().flatten().min();
        self.min_rate = limit.min_rate.or(self.min_rate);
        self.timeout_client = limit.client.or(self.timeout_client);
        self.timeout_server = limit.server.or(self.timeout_server);
        self.rank = limit.rank.or(self.rank);
        self.delay = limit.delay.or(self.delay);
    }
}

/// An answer that a rule gives.
pub(crate) enum Verdict {
    Deny(u16, Arc<str>, Manner),
    Redirect(u16, Vec<u8>),
    Respond { status: u16, body: Arc<[u8]>, content_type: Vec<u8> },
}

/// What is different in the heads that are sent on.
#[derive(Default)]
pub(crate) struct Edits {
    /// Path and query.
    pub(crate) target: Option<Vec<u8>>,
    /// The value of `Host`.
    pub(crate) host: Option<Vec<u8>>,
    pub(crate) request: Change,
    pub(crate) response: Change,
}

impl Edits {
    /// Changes the request's field lines, which are what `out` has from `start` on.
    pub(crate) fn apply_request(&self, out: &mut Vec<u8>, start: usize) {
        self.request.apply(out, start);
        let Some(host) = &self.host else { return };
        let mut line = b"Host: ".to_vec();
        line.extend_from_slice(host);
        line.extend_from_slice(b"\r\n");
        let rest = out.split_off(start);
        out.extend_from_slice(&line);
        for line in rest.split_inclusive(|&b| b == b'\n').filter(|line| !is_named(line, "host")) {
            out.extend_from_slice(line);
        }
    }
}

/// What is different in the fields of a head.
#[derive(Default)]
pub(crate) struct Change {
    cut: Vec<Arc<str>>,
    add: Vec<u8>,
}

impl Change {
    /// Adds a whole line.
    pub(crate) fn add_line(&mut self, line: &[u8]) {
        self.add.extend_from_slice(line);
    }

    fn cut(&mut self, name: &Arc<str>) {
        // What an earlier rule added under that name goes, too.
        let mut kept = Vec::with_capacity(self.add.len());
        self.add.split_inclusive(|&b| b == b'\n').filter(|line| !is_named(line, name)).for_each(|line| {
            kept.extend_from_slice(line);
        });
        self.add = kept;
        self.cut.push(name.clone());
    }

    /// Changes a head's lines, which are what `out` has from `start` on, without the empty one.
    pub(crate) fn apply(&self, out: &mut Vec<u8>, start: usize) {
        if !self.cut.is_empty() {
            let mut to = start;
            let mut from = start;
            while from < out.len() {
                let end = out[from..].iter().position(|&b| b == b'\n').map_or(out.len(), |at| from + at + 1);
                if !self.cut.iter().any(|name| is_named(&out[from..end], name)) {
                    out.copy_within(from..end, to);
                    to += end - from;
                }
                from = end;
            }
            out.truncate(to);
        }
        out.extend_from_slice(&self.add);
    }

    /// Changes the head of a whole answer.
    fn edit(&self, answer: &mut Vec<u8>) {
        let Some(end) = answer.windows(4).position(|four| four == b"\r\n\r\n") else { return };
        let rest = answer.split_off(end + 2);
        self.apply(answer, 0);
        answer.extend_from_slice(&rest);
    }
}

fn is_named(line: &[u8], name: &str) -> bool {
    line.get(name.len()) == Some(&b':') && line[..name.len()].eq_ignore_ascii_case(name.as_bytes())
}

/// A worker's memory for rules.
#[derive(Default)]
pub(crate) struct Memory {
    rules: Scratch,
    maps: Scratch,
}

/// What rules are told of a request.
fn facts<'a>(asked: &'a Asked<'_>, reads: [bool; 2]) -> Facts<'a> {
    let (request, bytes) = (asked.request, asked.buffer.bytes());
    let method = request.method_sp.of(bytes);
    Facts {
        method: method.strip_suffix(b" ").unwrap_or(method),
        host: request.host.map(|host| host.of(bytes)),
        target: request.path.of(bytes),
        fields: &bytes[(usize::from(request.line.end) + 2).min(request.length)..request.length],
        request_id: asked.marks.as_ref().map_or(&[], |marks| &marks.request_id),
        ..connection(asked.client, reads, None)
    }
}

/// What rules are told of a connection; `reads`: whether they look at its port, and at the client's certificate.
fn connection<'a>(client: &'a Client, reads: [bool; 2], sni: Option<&'a str>) -> Facts<'a> {
    let port = if reads[0] { client.local().map_or(0, |local| local.port()) } else { 0 };
    let tls = client.tls();
    let sni = sni.or_else(|| tls.and_then(tls::Stream::sni)).map(str::as_bytes);
    let identity = if reads[1] { tls.and_then(tls::Stream::identity) } else { None };
    Facts { src: client.peer.ip(), port, tls: tls.is_some(), sni, client: identity, ..Facts::default() }
}

/// Gives what of a request is its key to `each`, if it has that.
pub(crate) fn key_of_request(asked: &Asked<'_>, key: &Key, each: &mut dyn FnMut(&[u8])) {
    let facts = facts(asked, [false; 2]);
    let memory = &mut asked.client.worker.rules.borrow_mut().rules;
    memory.key_alone(key, &facts, &mut |key| {
        each(key);
        true
    });
}

/// The same of a connection; `sni`: the name in a handshake that is passed through.
pub(crate) fn key_of_connection(client: &Client, sni: Option<&str>, key: &Key, each: &mut dyn FnMut(&[u8])) {
    let facts = connection(client, [false; 2], sni);
    let memory = &mut client.worker.rules.borrow_mut().rules;
    memory.key_alone(key, &facts, &mut |key| {
        each(key);
        true
    });
}

/// Asks the rules about a request of which others have decided something already.
///
/// # Errors
/// If its path cannot be read and a rule looks at it.
pub(crate) fn decide(asked: &Asked<'_>, rules: &Rules, so_far: Decision) -> Result<Decision, BadPath> {
    decide_by(asked.client, asked.plan, rules, &facts(asked, rules.reads()), so_far)
}

/// Asks the rules about a connection in TCP mode; `sni`: the name in a handshake that is passed through.
pub(crate) fn decide_connection(
    client: &Client,
    plan: &FrontPlan,
    rules: &Rules,
    sni: Option<&str>,
    so_far: Decision,
) -> Decision {
    decide_by(client, plan, rules, &connection(client, rules.reads(), sni), so_far).unwrap_or_default()
}

/// Asks about a connection that has just been accepted: its places among those of its address, or that it is
/// rejected, and is not told if the latter is true.
///
/// # Errors
/// See above.
pub(crate) fn door(
    worker: &Worker,
    plan: &FrontPlan,
    src: IpAddr,
    port: impl FnOnce() -> u16,
) -> Result<Option<Box<Limits>>, bool> {
    let Some(rules) = plan.rules.as_ref().and_then(|rules| rules.doors.as_deref()) else { return Ok(None) };
    let facts = Facts { src, port: if rules.reads_port { port() } else { 0 }, ..Facts::default() };
    let memory = &mut *worker.rules.borrow_mut();
    let now = worker.instant(worker.now());
    let asked = rules.program.evaluate_asking(&facts, &mut memory.rules, &mut |rule, at, key| {
        rules.rules[rule as usize].rates[at].over(key, now, true, &mut Vec::new())
    });
    if asked.is_err() {
        return Ok(None); // only a path cannot be read, and here is none
    }
    let mut kept: Option<Box<Limits>> = None;
    for at in 0..memory.rules.hits().len() {
        let rule = &rules.rules[memory.rules.hits()[at] as usize];
        for act in &rule.acts {
            let Act::Reject { most, places, silent } = act else { continue };
            if let (Some((most, key)), Some(places)) = (most, places) {
                let place = &mut None;
                memory.rules.key(key, &facts, &mut |key| {
                    *place = places.take(key, *most);
                    true
                });
                if let Some(place) = place.take() {
                    kept.get_or_insert_default().hold(place);
                    continue;
                }
            }
            rule.hits[worker.index].add(1);
            if worker.may_complain() {
                tracing::info!(
                    "frontend {}: connection of {src} rejected by rule `{}`",
                    plan.plan.name,
                    rule.name
                );
            }
            return Err(*silent);
        }
    }
    Ok(kept)
}

fn decide_by(
    client: &Client,
    plan: &FrontPlan,
    rules: &Rules,
    facts: &Facts<'_>,
    mut decision: Decision,
) -> Result<Decision, BadPath> {
    let memory = &mut *client.worker.rules.borrow_mut();
    let worker = &client.worker;
    let mut tallies = Vec::new();
    let first = client.is_first();
    rules.program.evaluate_asking(facts, &mut memory.rules, &mut |rule, at, key| {
        rules.rules[rule as usize].rates[at].over(key, worker.instant(worker.now()), first, &mut tallies)
    })?;
    if !tallies.is_empty() {
        decision.limits.get_or_insert_default().tallies.append(&mut tallies);
    }
    for at in 0..memory.rules.hits().len() {
        let rule = &rules.rules[memory.rules.hits()[at] as usize];
        rule.hits[worker.index].add(1);
        for act in &rule.acts {
            if decision.take(act, rule, plan, facts, memory)? {
                return Ok(decision);
            }
        }
    }
    Ok(decision)
}

impl Decision {
    /// Takes an action; whether that was the end.
    fn take(
        &mut self,
        act: &Act,
        rule: &Acts,
        plan: &FrontPlan,
        facts: &Facts<'_>,
        memory: &mut Memory,
    ) -> Result<bool, BadPath> {
        match act {
            Act::Deny(code, manner) => {
                self.verdict = Some(Verdict::Deny(*code, rule.name.clone(), *manner));
            }
            Act::Reject { .. } => return Ok(false), // asked by `door`
            Act::Redirect { to, code } => {
                let mut location = Vec::new();
                to.render_location(facts, &mut location);
                self.verdict = Some(Verdict::Redirect(*code, location));
            }
            Act::Respond { status, body, content_type } => {
                let mut kind = Vec::new();
                content_type.render(facts, &mut kind);
                self.verdict =
                    Some(Verdict::Respond { status: *status, body: body.clone(), content_type: kind });
            }
            Act::Backend { to, map } => {
                let mapped = match map {
                    Some(map) => {
                        map.program.evaluate(facts, &mut memory.maps)?;
                        memory.maps.hits().first().map(|entry| map.to[*entry as usize])
                    }
                    None => None,
                };
                let Some(id) = mapped.or(*to) else { return Ok(false) };
                self.backend = plan.backends.get(usize::from(id.0)).cloned();
            }
            Act::Header { response, replace, name, value } => {
                let edits = self.edits.get_or_insert_default();
                if !*response && name.eq_ignore_ascii_case("host") {
                    let mut host = Vec::new();
                    value.iter().for_each(|value| value.render(facts, &mut host));
                    edits.host = Some(host).filter(|host| field::is_host(host));
                    return Ok(false);
                }
                let change = if *response { &mut edits.response } else { &mut edits.request };
                if *replace {
                    change.cut(name);
                }
                if let Some(value) = value {
                    change.add.extend_from_slice(name.as_bytes());
                    change.add.extend_from_slice(b": ");
                    let room = limits::RULE_FIELD_BYTES.saturating_sub(change.add.len());
                    let start = change.add.len();
                    value.render(facts, &mut change.add);
                    change.add.truncate(start + room);
                    change.add.extend_from_slice(b"\r\n");
                }
                return Ok(false);
            }
            Act::Limit { limit, places } => {
                let limits = self.limits.get_or_insert_default();
                limits.add(limit);
                let (Some((most, key)), Some(places)) = (&limit.places, places) else { return Ok(false) };
                let full = memory.rules.key(key, facts, &mut |key| {
                    let place = places.take(key, *most);
                    let full = place.is_none();
                    limits.places.extend(place);
                    full
                });
                if !full {
                    return Ok(false);
                }
                self.verdict = Some(Verdict::Deny(429, rule.name.clone(), Manner::AtOnce));
            }
            Act::Rewrite(rewrite) => {
                let mut target = Vec::new();
                let edits = self.edits.get_or_insert_default();
                let from = edits.target.as_deref().unwrap_or(facts.target);
                if rewrite.apply(from, &mut target) {
                    edits.target = Some(target);
                }
                return Ok(false);
            }
        }
        Ok(true)
    }
}

impl Verdict {
    /// Status, the two letters for the log, and the whole answer, with what rules before this one changed of it.
    pub(crate) fn answer(
        &self,
        persistence: Persistence,
        head: bool,
        change: Option<&Change>,
        pages: &Pages,
    ) -> (u16, [u8; 2], Vec<u8>) {
        let (status, state, mut answer) = match self {
            Verdict::Deny(status, ..) => {
                (*status, *b"PR", answer::error(*status, persistence, head, pages.find(*status)))
            }
            Verdict::Redirect(status, location) => {
                (*status, *b"LR", answer::location(*status, location, persistence))
            }
            Verdict::Respond { status, body, content_type } => {
                (*status, *b"LR", answer::respond(*status, content_type, body, persistence, head))
            }
        };
        if let Some(change) = change {
            change.edit(&mut answer);
        }
        (status, state, answer)
    }
}
