//! The waiting room of a frontend: who a client is, and what it is answered.
//!
//! Who is let in and when is `relais_balance::shield`'s business. Here are the cookies that say who is in and who waits, signed with
//! the cluster's key so that both balancers know them; the page of those who wait; and how much load there is, which the main
//! thread measures. One line a frontend, for all workers, behind a lock that only newcomers and those who wait come to:
//! who is in costs a signature to look at, and a place of [`crate::keyed`], and only while there is a waiting room.

use std::borrow::Cow;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use aws_lc_rs::{hkdf, hmac};
use base64::prelude::{BASE64_URL_SAFE_NO_PAD as BASE64, Engine};
use relais_balance::shield::{Answer, Figures, Place, Settings, Shield};
use relais_config::plan;
use relais_http::Method;
use relais_rules::{Facts, Program, Rule, Scratch};

use crate::answer::Persistence;
use crate::counters::lock;
use crate::keyed::Places;
use crate::session::{self, Asked, Rest};

/// The cookie of those who are in, and of those who wait.
const COOKIE: &str = "relais-shield";
/// Bytes of a signature: half of SHA-256, which is more than anybody can guess.
const SIGNATURE: usize = 16;
/// Bytes of a ticket: its kind, its place, when it was last given, its signature.
const TICKET: usize = 1 + 8 + 4 + SIGNATURE;
/// Requests at a time of one that is in: more than a browser has, and less than those who share a cookie.
const MOST_AT_ONCE: u32 = 128;
/// How long a place is good, milliseconds.
const PLACE_MS: u64 = 12 * 60 * 60 * 1_000;
/// What the clocks of two balancers may differ, milliseconds.
const CLOCKS_MS: u64 = 60 * 1_000;

/// What all workers share of a frontend's line, for as long as the process lives.
#[derive(Debug)]
pub(crate) struct Line {
    on: AtomicBool,
    core: Mutex<Shield>,
    inside: Arc<Places>,
    /// Requests that were answered with the page, or with 503.
    turned_away: AtomicU64,
}

impl Line {
    pub(crate) fn new(issuer: u64, now_ms: u64) -> Line {
        let settings = Settings { rate: None, refresh_ms: 10_000, always: false };
        Line {
            on: AtomicBool::new(false),
            core: Mutex::new(Shield::new(settings, issuer, now_ms)),
            inside: Arc::new(Places::new()),
            turned_away: AtomicU64::new(0),
        }
    }

    /// Takes in how much load there is, thousandths of too much. What has changed: there is a line now, or none.
    pub(crate) fn load(&self, load: u32, now_ms: u64) -> Option<bool> {
        let mut core = lock(&self.core);
        let on = core.load(load, now_ms);
        (self.on.swap(on, Relaxed) != on).then_some(on)
    }

    pub(crate) fn figures(&self) -> (Figures, u64) {
        (lock(&self.core).figures(), self.turned_away.load(Relaxed))
    }

    fn ask(&self, ticket: Option<&Ticket>, now_ms: u64) -> Answer {
        let mut core = lock(&self.core);
        let answer = core.ask(ticket.map(|ticket| (ticket.place, ticket.given_ms())), now_ms);
        self.on.store(core.is_on(), Relaxed);
        answer
    }
}

/// A frontend's waiting room as one plan has it.
#[derive(Debug)]
pub(crate) struct Guard {
    plan: plan::Shield,
    key: hmac::Key,
    except: Option<Program>,
    page: Option<String>,
    pub(crate) line: Arc<Line>,
}

/// What a cookie says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Ticket {
    /// Its client is in; else it waits.
    inside: bool,
    /// Its place in the line; of one that is in, what it is known by.
    place: Place,
    /// When it was last given, seconds since 1970.
    given_s: u32,
}

impl Ticket {
    fn given_ms(&self) -> u64 {
        u64::from(self.given_s) * 1_000
    }

    fn bytes(&self) -> [u8; TICKET - SIGNATURE] {
        let mut bytes = [0; TICKET - SIGNATURE];
        bytes[0] = self.inside.into();
        bytes[1..9].copy_from_slice(&self.place.0.to_be_bytes());
        bytes[9..].copy_from_slice(&self.given_s.to_be_bytes());
        bytes
    }
}

impl Guard {
    /// The waiting room of the frontend of this name; `secret`: what both balancers have, or what nobody else has.
    ///
    /// # Errors
    /// A sentence, if a file is at fault.
    pub(crate) fn new(
        name: &str,
        plan: &plan::Shield,
        secret: &[u8],
        line: Arc<Line>,
        now_ms: u64,
    ) -> Result<Guard, String> {
        let rules = plan.except.iter().map(|condition| Rule {
            conditions: vec![condition.clone()],
            last: true,
            ..Rule::default()
        });
        let rules: Vec<Rule> = rules.collect();
        let except = match rules.is_empty() {
            true => None,
            false => Some(Program::new(&rules).map_err(|error| error.to_string())?),
        };
        let page = match &plan.page {
            Some(file) => {
                let page = crate::rules::read_body(file)?;
                let text = str::from_utf8(&page).map_err(|_| format!("{file} is not UTF-8"))?;
                Some(text.to_owned())
            }
            None => None,
        };
        let settings = Settings {
            rate: plan.admit.map(|rate| u64::from(rate) * 1_000),
            refresh_ms: plan.refresh.as_millis() as u64,
            always: plan.always,
        };
        let mut core = lock(&line.core);
        core.set(settings, now_ms);
        line.on.store(core.is_on(), Relaxed);
        drop(core);
        let key = key(secret, name).ok_or("its key cannot be used")?;
        Ok(Guard { plan: plan.clone(), key, except, page, line })
    }

    /// Too much load, in thousandths of what each measure allows: the worst of them.
    pub(crate) fn judge(&self, queued: u64, saturation: u64, cpu: u64) -> u32 {
        let part = |is: u64, most: u64| is.saturating_mul(1_000) / most.max(1);
        let worst = part(queued, self.plan.queue.into())
            .max(part(saturation, self.plan.saturation.into()))
            .max(part(cpu, self.plan.cpu.into()));
        u32::try_from(worst).unwrap_or(u32::MAX)
    }

    fn sign(&self, ticket: &Ticket) -> String {
        let bytes = ticket.bytes();
        let signature = hmac::sign(&self.key, &bytes);
        BASE64.encode([&bytes[..], &signature.as_ref()[..SIGNATURE]].concat())
    }

    /// What a cookie says, if we, or the other balancer, have said so.
    fn read(&self, text: &[u8]) -> Option<Ticket> {
        let mut bytes = [0; TICKET];
        let length = BASE64.decode_slice(text, &mut bytes).ok()?;
        if length != TICKET {
            return None;
        }
        let (said, signature) = bytes.split_at(TICKET - SIGNATURE);
        let good = hmac::sign(&self.key, said);
        aws_lc_rs::constant_time::verify_slices_are_equal(&good.as_ref()[..SIGNATURE], signature).ok()?;
        let (place, given) = said[1..].split_first_chunk()?;
        Some(Ticket {
            inside: said[0] == 1,
            place: Place(u64::from_be_bytes(*place)),
            given_s: u32::from_be_bytes(given.try_into().ok()?),
        })
    }

    /// Whether what it says still holds.
    fn holds(&self, ticket: &Ticket, now_ms: u64) -> bool {
        let (since, longest) = match ticket.inside {
            true => (ticket.given_ms(), self.plan.session.as_millis() as u64),
            false => (ticket.place.at_ms(), PLACE_MS),
        };
        since <= now_ms + CLOCKS_MS && now_ms <= since + longest
    }

    fn cookie(&self, ticket: &Ticket, tls: bool) -> String {
        let age = if ticket.inside { self.plan.session.as_secs() } else { PLACE_MS / 1_000 };
        let secure = if tls { "; Secure" } else { "" };
        format!(
            "Set-Cookie: {COOKIE}={}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}\r\n",
            self.sign(ticket)
        )
    }

    fn excepts(&self, asked: &Asked<'_>) -> bool {
        let Some(except) = &self.except else { return false };
        let facts = Facts {
            src: asked.client.peer.ip(),
            target: asked.request.path.of(asked.buffer.bytes()),
            ..Facts::default()
        };
        let mut scratch = Scratch::default();
        except.evaluate(&facts, &mut scratch).is_ok() && !scratch.hits().is_empty()
    }
}

/// The key of a frontend's tickets (HKDF with SHA-256, RFC 5869).
fn key(secret: &[u8], name: &str) -> Option<hmac::Key> {
    let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, b"relais shield").extract(secret);
    let context = [name.as_bytes()];
    Some(hmac::Key::from(pseudo_random.expand(&context, hmac::HMAC_SHA256).ok()?))
}

/// Whether a request may go on; else what it is answered. Who is let in is given its cookie with what it gets.
#[inline(never)]
pub(crate) fn ask(asked: &mut Asked<'_>, guard: &Guard) -> Option<(u16, [u8; 2], Vec<u8>)> {
    let worker = &asked.client.worker;
    let now_ms = worker.date_ms(worker.now());
    let now_s = u32::try_from(now_ms / 1_000).unwrap_or(u32::MAX);
    let head = asked.head();
    let html = wants_html(asked.request.method, head);
    let text = fields(head, "cookie").find_map(|line| relais_balance::key::cookie(line, COOKIE.as_bytes()));
    let ticket = text.and_then(|text| guard.read(text)).filter(|ticket| guard.holds(ticket, now_ms));
    let line = &guard.line;
    let on = line.on.load(Relaxed);
    if on && guard.excepts(asked) {
        return None;
    }
    let waits = match ticket {
        Some(ticket) if ticket.inside => {
            let place = on.then(|| line.inside.take(&ticket.place.0.to_be_bytes(), MOST_AT_ONCE));
            match place {
                None | Some(Some(_)) => {
                    if let Some(place) = place.flatten() {
                        asked.limits.get_or_insert_default().hold(place);
                    }
                    let old =
                        now_ms.saturating_sub(ticket.given_ms()) > guard.plan.session.as_millis() as u64 / 4;
                    if old {
                        give(asked, guard, Ticket { given_s: now_s, ..ticket });
                    }
                    return None;
                }
                Some(None) => None, // too many have this cookie
            }
        }
        // In quiet times only pages make sessions.
        None if !on => {
            if html {
                let place = lock(&line.core).place(now_ms);
                give(asked, guard, Ticket { inside: true, place, given_s: now_s });
            }
            return None;
        }
        waits => waits,
    };
    match line.ask(waits.as_ref(), now_ms) {
        Answer::Enter => {
            let place = waits.map_or_else(|| lock(&line.core).place(now_ms), |ticket| ticket.place);
            give(asked, guard, Ticket { inside: true, place, given_s: now_s });
            None
        }
        Answer::Wait { place, ahead, wait_ms } => {
            line.turned_away.fetch_add(1, Relaxed);
            let cookie =
                guard.cookie(&Ticket { inside: false, place, given_s: now_s }, asked.client.tls().is_some());
            let french = html && prefers_french(asked.head());
            let keep = matches!(asked.rest, Rest::Nothing) && session::may_keep(asked);
            let persistence = session::persistence(keep, asked.request.minor);
            let to_head = asked.request.method == Method::Head;
            let refresh_s = guard.plan.refresh.as_secs().max(1);
            let wait_s = wait_ms.div_ceil(1_000);
            let told = Told { ahead, wait_s, refresh_s, french };
            let page = html.then(|| told.page(guard.page.as_deref()));
            Some((503, *b"PQ", told.answer(page, &cookie, persistence, to_head)))
        }
    }
}

/// Lets a client's answer set its cookie; a cache on the way must not give it to others.
fn give(asked: &mut Asked<'_>, guard: &Guard, ticket: Ticket) {
    let cookie = guard.cookie(&ticket, asked.client.tls().is_some());
    let response = &mut asked.edits.get_or_insert_default().response;
    response.add_line(cookie.as_bytes());
    response.add_line(b"Cache-Control: private\r\n");
}

/// What somebody who waits is told.
struct Told {
    ahead: u64,
    wait_s: u64,
    refresh_s: u64,
    french: bool,
}

impl Told {
    fn wait(&self) -> String {
        let minutes = self.wait_s.div_ceil(60);
        match (self.french, minutes) {
            (true, 0 | 1) => "moins d’une minute".into(),
            (false, 0 | 1) => "less than a minute".into(),
            (_, 2..120) => format!("{minutes} minutes"),
            (true, _) => format!("{} heures", minutes.div_ceil(60)),
            (false, _) => format!("{} hours", minutes.div_ceil(60)),
        }
    }

    /// The page: the operator's, or ours.
    fn page(&self, own: Option<&str>) -> String {
        let (place, wait, refresh) = ((self.ahead + 1).to_string(), self.wait(), self.refresh_s.to_string());
        let page = match own {
            Some(page) => Cow::Borrowed(page),
            None => Cow::Borrowed(if self.french { FRENCH } else { ENGLISH }),
        };
        page.replace("%{place}", &place).replace("%{wait}", &wait).replace("%{refresh}", &refresh)
    }

    fn answer(&self, page: Option<String>, cookie: &str, persistence: Persistence, head: bool) -> Vec<u8> {
        let (kind, retry_s) = match page {
            Some(_) => ("text/html", self.refresh_s),
            // A program has nobody who looks at a page; it need not come before its turn.
            None => ("text/plain", self.wait_s.clamp(self.refresh_s, 300)),
        };
        let language = match (&page, self.french) {
            (None, _) => "",
            (_, true) => "Content-Language: fr\r\n",
            (_, false) => "Content-Language: en\r\n",
        };
        let body = page.unwrap_or_else(|| {
            format!("Too many requests are being served. Please try again in {retry_s} seconds.\n")
        });
        let mut answer = String::with_capacity(512 + body.len());
        let _ = write!(
            answer,
            "HTTP/1.1 503 Service Unavailable\r\nCache-Control: no-store\r\nContent-Type: {kind}; charset=utf-8\r\n\
             {language}Retry-After: {retry_s}\r\n{cookie}Content-Length: {}\r\n",
            body.len()
        );
        let mut answer = answer.into_bytes();
        answer.extend_from_slice(persistence.tail());
        if !head {
            answer.extend_from_slice(body.as_bytes());
        }
        answer
    }
}

/// The values of the fields of a name, in small letters, of a head that has been parsed.
fn fields<'a>(head: &'a [u8], name: &'static str) -> impl Iterator<Item = &'a [u8]> {
    head.split(|&b| b == b'\n').skip(1).filter_map(move |line| {
        let (field, rest) = line.split_at_checked(name.len())?;
        let value = rest.strip_prefix(b":")?;
        field.eq_ignore_ascii_case(name.as_bytes()).then(|| value.trim_ascii())
    })
}

/// Whether somebody looks at the answer: a browser that goes to a page says so.
fn wants_html(method: Method, head: &[u8]) -> bool {
    const HTML: &[u8] = b"text/html";
    matches!(method, Method::Get | Method::Head)
        && fields(head, "accept")
            .any(|value| value.windows(HTML.len()).any(|part| part.eq_ignore_ascii_case(HTML)))
}

/// Whether French comes before English in `Accept-Language`.
fn prefers_french(head: &[u8]) -> bool {
    let mut best: [f32; 2] = [0.0; 2];
    for part in fields(head, "accept-language").flat_map(|value| value.split(|&b| b == b',')) {
        let Ok(part) = str::from_utf8(part.trim_ascii()) else { continue };
        let (tag, rest) = part.split_once(';').unwrap_or((part, ""));
        let quality =
            rest.trim().strip_prefix("q=").and_then(|q| q.trim().parse::<f32>().ok()).unwrap_or(1.0);
        let language = tag.split('-').next().unwrap_or_default();
        let which = if language.eq_ignore_ascii_case("fr") {
            0
        } else if language.eq_ignore_ascii_case("en") {
            1
        } else {
            continue;
        };
        best[which] = best[which].max(quality);
    }
    best[0] > best[1]
}

const FRENCH: &str = include_str!("shield/fr.html");
const ENGLISH: &str = include_str!("shield/en.html");

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use std::time::Duration;

    const NOW: u64 = 1_800_000_000_000;

    fn guard(name: &str, secret: &[u8]) -> Guard {
        let plan = plan::Shield {
            queue: 100,
            saturation: 90,
            cpu: 50,
            admit: Some(10),
            refresh: Duration::from_secs(10),
            session: Duration::from_secs(1800),
            page: None,
            always: true,
            except: Vec::new(),
            key: None,
        };
        Guard::new(name, &plan, secret, Arc::new(Line::new(1, NOW)), NOW).unwrap()
    }

    fn ticket() -> Ticket {
        let given_s = (NOW / 1_000) as u32;
        Ticket { inside: false, place: lock(&Line::new(1, NOW).core).place(NOW), given_s }
    }

    #[test]
    fn both_balancers_know_each_others_tickets_by_the_cluster_key() {
        let text = guard("web", b"what both have").sign(&ticket());
        assert_eq!(guard("web", b"what both have").read(text.as_bytes()), Some(ticket()));
        assert_eq!(guard("web", b"another").read(text.as_bytes()), None);
        assert_eq!(guard("doctorat", b"what both have").read(text.as_bytes()), None, "of another frontend");
    }

    #[test]
    fn a_forged_or_changed_ticket_is_a_newcomers() {
        let guard = guard("web", b"secret");
        let text = guard.sign(&ticket()).into_bytes();
        for at in 0..text.len() {
            for bit in 0..7 {
                let mut changed = text.clone();
                changed[at] ^= 1 << bit;
                assert_eq!(guard.read(&changed), None, "byte {at}");
            }
            assert_eq!(guard.read(&text[..at]), None, "cut at {at}");
        }
        for strange in [&b""[..], b"!", b"AAAA", &[b'A'; 38], &[b'A'; 39], &[b'A'; 4000], &[0xff; 39]] {
            assert_eq!(guard.read(strange), None);
        }
        let inside = Ticket { inside: true, ..ticket() };
        assert!(guard.holds(&inside, NOW + 1_800_000) && !guard.holds(&inside, NOW + 1_802_000));
        assert!(guard.holds(&ticket(), NOW + PLACE_MS) && !guard.holds(&ticket(), NOW + PLACE_MS + 1_000));
        assert!(!guard.holds(&ticket(), NOW - CLOCKS_MS - 1_000), "it is not from the future");
    }

    #[test]
    fn the_worst_of_queue_saturation_and_time_is_the_load() {
        let guard = guard("web", b"secret");
        assert_eq!(guard.judge(0, 0, 0), 0);
        assert_eq!(guard.judge(50, 90, 0), 1_000);
        assert_eq!(guard.judge(300, 0, 10), 3_000);
        assert_eq!(guard.judge(0, 0, 50), 1_000);
        assert_eq!(guard.judge(u64::MAX, 0, 0), u32::MAX);
    }

    #[test]
    fn a_page_speaks_the_language_that_the_browser_prefers() {
        let french = |value: &str| {
            prefers_french(format!("GET / HTTP/1.1\r\nAccept-Language: {value}\r\n").as_bytes())
        };
        assert!(french("fr") && french("fr-DZ, en;q=0.8") && french("ar, fr;q=0.6, en;q=0.4"));
        assert!(
            !french("en") && !french("") && !french("de") && !french("fr;q=0.3, en") && !french("frx;q=;;,")
        );
        let told = |french| Told { ahead: 41, wait_s: 300, refresh_s: 10, french };
        let page = told(true).page(None);
        assert!(page.contains("lang=\"fr\"") && page.contains("42") && page.contains("5 minutes"), "{page}");
        assert!(page.contains("http-equiv=\"refresh\" content=\"10\"") && !page.contains("%{"), "{page}");
        let page = told(false).page(None);
        assert!(page.contains("lang=\"en\"") && page.contains("42") && page.contains("5 minutes"), "{page}");
        assert_eq!(told(false).page(Some("<b>%{place}</b> %{wait} %{refresh}")), "<b>42</b> 5 minutes 10");
    }
}
