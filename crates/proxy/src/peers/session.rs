//! What goes between this balancer and a peer once they have greeted.
//!
//! Each asks the other for everything at once. What is to be told waits in a queue of bounded length; a peer that does
//! not keep up gets the whole table anew, so it never lacks anything for long. Silence, a full socket that nobody empties, and
//! what is no message end it.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::net::Ipv6Addr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use relais_cluster::peers::{Announced, Control, Event, Kind, Reader, Writer};
use relais_config::plan::StickKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::{Figures, Local, Other, Shared, add, left};
use crate::limits;
use crate::stick::PARTS;

/// Places of a part that are looked at with its lock held once.
const PLACES: u32 = 256;
/// Bytes of a longest message and its head.
const BUFFER: usize = 2 * relais_cluster::peers::LONGEST;

/// Something that a peer is to know.
#[derive(Clone)]
pub(super) struct Change {
    pub(super) table: usize,
    pub(super) key: Rc<[u8]>,
    pub(super) server: Arc<str>,
    pub(super) ends: Instant,
}

/// How far everything has been told.
#[derive(Clone, Copy, Default)]
struct Told {
    table: usize,
    part: usize,
    place: u32,
}

/// A peer that is there.
pub(super) struct Session {
    queue: RefCell<VecDeque<Change>>,
    telling: Cell<Option<Told>>,
    /// It wants to hear when it has heard everything.
    asked: Cell<bool>,
    /// Short messages that go first.
    urgent: RefCell<Vec<u8>>,
    /// Messages for nodes, and their bytes.
    news: RefCell<(VecDeque<Rc<[u8]>>, usize)>,
    pub(super) is_haproxy: bool,
    wake: Notify,
    over: Notify,
}

impl Session {
    /// Something more to tell.
    pub(super) fn add(&self, change: &Change) {
        let mut queue = self.queue.borrow_mut();
        if queue.len() >= limits::PEER_QUEUE {
            queue.clear();
            self.telling.set(Some(Told::default()));
        }
        queue.push_back(change.clone());
    }

    /// There may be something to tell.
    pub(super) fn wake(&self) {
        if !self.queue.borrow().is_empty() || self.news.borrow().1 > 0 {
            self.wake.notify_one();
        }
    }

    /// Messages for it; whether there is room for them. What a node that does not keep up misses is over soon.
    pub(super) fn hear_news(&self, messages: &Rc<[u8]>) -> bool {
        let (waiting, bytes) = &mut *self.news.borrow_mut();
        let has_room = *bytes + messages.len() <= limits::PEER_NEWS;
        if has_room && !messages.is_empty() {
            *bytes += messages.len();
            waiting.push_back(messages.clone());
        }
        has_room
    }

    fn next_news(&self) -> Option<Rc<[u8]>> {
        let (waiting, bytes) = &mut *self.news.borrow_mut();
        let next = waiting.pop_front()?;
        *bytes -= next.len();
        Some(next)
    }

    pub(super) fn end(&self) {
        self.over.notify_one();
    }

    fn control(&self, control: Control) {
        Writer::control(&mut self.urgent.borrow_mut(), control);
        self.wake.notify_one();
    }
}

/// Removes the session from those that are told, if no other has taken its place.
struct Registered<'a> {
    shared: &'a Shared,
    name: &'a Arc<str>,
    session: Rc<Session>,
}

impl Drop for Registered<'_> {
    fn drop(&mut self) {
        let mut sessions = self.shared.sessions.borrow_mut();
        if sessions.get(self.name).is_some_and(|session| Rc::ptr_eq(session, &self.session)) {
            sessions.remove(self.name);
            self.shared.figures[self.name].connected.set(false);
            self.shared.checked(self.name, None);
        }
    }
}

/// Shares tables with a peer that has greeted, until one of the two is gone.
pub(super) async fn run(shared: Rc<Shared>, other: Other, mut stream: TcpStream) {
    if shared.over.get() {
        return;
    }
    let _ = stream.set_nodelay(true);
    let session = Rc::new(Session {
        queue: RefCell::default(),
        // A HAProxy asks only after 5 s, in which it waits for a predecessor on its own machine.
        telling: Cell::new(other.is_haproxy.then(Told::default)),
        asked: Cell::new(false),
        urgent: RefCell::default(),
        news: RefCell::default(),
        is_haproxy: other.is_haproxy,
        wake: Notify::new(),
        over: Notify::new(),
    });
    session.control(Control::Resync);
    if let Some(before) = shared.sessions.borrow_mut().insert(other.name.clone(), session.clone()) {
        before.end();
    }
    let figures = &shared.figures[&other.name];
    figures.connected.set(true);
    add(&figures.connections, 1);
    tracing::info!("peers: {} is there: tables are compared", other.name);
    let registered = Registered { shared: &shared, name: &other.name, session: session.clone() };
    let (reads, writes) = stream.split();
    let why = tokio::select! {
        why = hear(&shared, &session, figures, &other, reads) => why,
        why = speak(&shared, &session, figures, &other, writes) => why,
        () = session.over.notified() => "it came anew, or the plan has changed".to_owned(),
    };
    drop(registered);
    if !shared.over.get() {
        tracing::warn!("peers: the connection to {} is over: {why}", other.name);
    }
}

/// Learns what the peer says; why that ended.
async fn hear(
    shared: &Shared,
    session: &Session,
    figures: &Figures,
    other: &Other,
    mut reads: ReadHalf<'_>,
) -> String {
    let (mut buffer, mut filled) = (vec![0; BUFFER], 0);
    let mut reader = Reader::default();
    let mut window = (Instant::now(), 0u64);
    loop {
        match timeout(limits::PEER_SILENCE, reads.read(&mut buffer[filled..])).await {
            Ok(Ok(0)) => return "it closed it".to_owned(),
            Ok(Ok(n)) => filled += n,
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it was silent for 10 s".to_owned(),
        }
        let now = Instant::now();
        if now.duration_since(window.0) > limits::PEER_SILENCE {
            window = (now, 0);
        }
        let mut at = 0;
        loop {
            let event = match reader.read(&buffer[at..filled]) {
                Ok(Some((length, event))) => {
                    at += length;
                    event
                }
                Ok(None) => break,
                Err(wrong) => return format!("it is cut off, {wrong}"),
            };
            match event {
                Event::Update { table, kind, key, server, expire_ms } => {
                    window.1 += 1;
                    let tables = shared.tables.borrow();
                    // A HAProxy tells of a key before it has a server, too.
                    let Some(server) = server else { continue };
                    let local = tables.iter().find(|local| *local.name == *table);
                    let left = Duration::from_millis(expire_ms);
                    let known = local.is_some_and(|local| learn(local, kind, key, server, left, now));
                    add(if known { &figures.learned } else { &figures.ignored }, 1);
                }
                Event::Control(Control::Resync) => {
                    session.queue.borrow_mut().clear(); // it is in what is told now
                    session.telling.set(Some(Told::default()));
                    session.asked.set(true);
                    if !session.is_haproxy {
                        let (messages, told) = shared.all_rates();
                        add(&figures.sent, if session.hear_news(&messages) { told } else { 0 });
                    }
                    session.wake.notify_one();
                }
                Event::Checked { server, ok } if !session.is_haproxy => {
                    window.1 += 1;
                    shared.checked(&other.name, Some((server, ok)));
                }
                Event::Counts { table, is_all, counts } if !session.is_haproxy => {
                    let (learned, ignored) = shared.learn_rates(table, counts, is_all);
                    window.1 += learned + ignored;
                    add(&figures.learned, learned);
                    add(&figures.ignored, ignored);
                }
                Event::Control(Control::Finished | Control::Partial) => session.control(Control::Confirm),
                Event::Control(Control::Confirm | Control::Heartbeat)
                | Event::Taken { .. }
                | Event::Counts { .. }
                | Event::Checked { .. }
                | Event::Other => {}
                Event::Gone => return "it says that it was sent nonsense".to_owned(),
            }
        }
        buffer.copy_within(at..filled, 0);
        filled -= at;
        if window.1 > limits::PEER_UPDATES {
            return "it is cut off, it sends more than any table holds".to_owned();
        }
        reader.acknowledge(&mut session.urgent.borrow_mut());
        if !session.urgent.borrow().is_empty() {
            session.wake.notify_one();
        }
    }
}

/// Takes an update into a table; whether it is of any use there.
fn learn(local: &Local, kind: Kind, key: &[u8], server: &str, left: Duration, now: Instant) -> bool {
    let plan = &local.sticky.plan;
    let Some(server) = local.id(server) else { return false };
    let mapped = <[u8; 16]>::try_from(key).ok().and_then(|ip| Ipv6Addr::from(ip).to_ipv4_mapped());
    let mapped = mapped.map(|ip| ip.octets());
    let key = match (kind, plan.key.is_address()) {
        (Kind::Ip, true) => key,
        (Kind::Ipv6, true) => mapped.as_ref().map_or(key, |ip| &ip[..]),
        (Kind::Text, false) if !key.is_empty() && key.len() <= StickKey::LONGEST => key,
        _ => return false,
    };
    local.sticky.table.learn(key, server, left.min(plan.expire), now, plan.size);
    true
}

/// Tells the peer what there is; why that ended.
async fn speak(
    shared: &Shared,
    session: &Session,
    figures: &Figures,
    other: &Other,
    mut writes: WriteHalf<'_>,
) -> String {
    let mut writer = if other.is_haproxy { Writer::with_names() } else { Writer::default() };
    let mut out = Vec::new();
    loop {
        out.append(&mut session.urgent.borrow_mut());
        while out.len() < limits::PEER_CHUNK
            && let Some(news) = session.next_news()
        {
            out.extend_from_slice(&news);
        }
        let mut told = 0;
        while out.len() < limits::PEER_CHUNK
            && let Some(at) = session.telling.get()
        {
            let next = copy(shared, at, |table, key, server, left| {
                told += put(&mut writer, &mut out, other, &table, key, server, left);
            });
            session.telling.set(next);
            if next.is_none() && session.asked.take() {
                Writer::control(&mut out, Control::Finished);
            }
        }
        let now = Instant::now();
        while out.len() < limits::PEER_CHUNK {
            let Some(change) = session.queue.borrow_mut().pop_front() else { break };
            let tables = shared.tables.borrow();
            let Some(local) = tables.get(change.table) else { continue };
            let table = (change.table, local);
            told += put(
                &mut writer,
                &mut out,
                other,
                &table,
                &change.key,
                &change.server,
                left(change.ends, now),
            );
        }
        add(&figures.sent, told);
        if out.is_empty() {
            if timeout(limits::PEER_HEARTBEAT, session.wake.notified()).await.is_err() {
                Writer::control(&mut out, Control::Heartbeat);
            } else {
                continue;
            }
        }
        match timeout(limits::PEER_SILENCE, writes.write_all(&out)).await {
            Ok(Ok(())) => out.clear(),
            Ok(Err(error)) => return error.to_string(),
            Err(_) => return "it has read nothing for 10 s".to_owned(),
        }
    }
}

/// Gives some entries to `each`; where to go on, `None`: that was all.
fn copy(
    shared: &Shared,
    at: Told,
    mut each: impl FnMut((usize, &Local), &[u8], &str, Duration),
) -> Option<Told> {
    let tables = shared.tables.borrow();
    let local = tables.get(at.table)?;
    let next = local.sticky.table.copy(at.part, at.place, PLACES, Instant::now(), |key, server, left| {
        if let Some(server) = local.server(server) {
            each((at.table, local), key, server, left);
        }
    });
    let next = match next {
        Some(place) => Told { place, ..at },
        None if at.part + 1 < PARTS => Told { part: at.part + 1, place: 0, ..at },
        None => Told { table: at.table + 1, part: 0, place: 0 },
    };
    (next.table < tables.len()).then_some(next)
}

/// Adds an update to `out` in all forms in which this peer may have the table; how many.
fn put(
    writer: &mut Writer,
    out: &mut Vec<u8>,
    other: &Other,
    (table, local): &(usize, &Local),
    key: &[u8],
    server: &str,
    left: Duration,
) -> u64 {
    let plan = &local.sticky.plan;
    let expire_ms = plan.expire.as_millis() as u64;
    let number = *table as u64 * 2 + 1;
    let announced =
        |number, kind, key_bytes| Announced { number, name: &local.name, kind, key_bytes, expire_ms };
    let left = left.as_millis() as u64;
    if !plan.key.is_address() {
        if other.is_haproxy && (plan.key.is_joined() || key.contains(&0)) {
            return 0;
        }
        writer.update(out, announced(number, Kind::Text, StickKey::LONGEST + 1), key, server, left);
        return 1;
    }
    let Ok(v4) = <[u8; 4]>::try_from(key) else {
        writer.update(out, announced(number + 1, Kind::Ipv6, 16), key, server, left);
        return 1;
    };
    let mapped = std::net::Ipv4Addr::from(v4).to_ipv6_mapped().octets();
    writer.update(out, announced(number + 1, Kind::Ipv6, 16), &mapped, server, left);
    if !other.is_haproxy {
        return 1;
    }
    // Whichever of the two types its table has, it passes over the other.
    writer.update(out, announced(number, Kind::Ip, 4), &v4, server, left);
    1
}
