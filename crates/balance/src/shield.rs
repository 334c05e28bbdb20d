//! Who is let in when more come than can be served: the line before a frontend, in the order of arrival.
//!
//! A newcomer gets a [`Place`]: the moment of its arrival, and nothing else is kept of it. It comes back after
//! [`Settings::refresh_ms`] (a page that loads itself again, `Retry-After`) and shows its place; from then on it is in the
//! line, as long as it keeps coming. As capacity frees, those with the earliest places are *called*: that which was
//! freed is kept for them until they come back, and is theirs then. Who does not come back is passed over; should it
//! come after all, its place is still good.
//!
//! Places are moments, so they mean the same on every balancer. One that takes over another's line knows nothing of it,
//! and need not: for a while it calls nobody, everybody comes back in that time, and the line stands as it stood.
//! Only after that while are the places of newcomers called, too: whoever came before them has been heard by then.
//!
//! The rate of calls is given, or follows the load: less at once while there is too much, more little by little while there is
//! room. The line begins with too much load and ends when there is none, of either, for some time.
//!
//! Called by the proxy, which signs what clients carry and measures loads. A place that was let in is
//! remembered, so that copies of it are newcomers. Not here: clocks, signatures, pages.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::vec::Vec;

/// Most places in a line; who comes then keeps its place, and is taken into the line later.
pub const MOST_WAITING: usize = 1 << 21;
/// So many places that were let in are remembered; places that came before one that is forgotten are good no more.
const MOST_USED: usize = 1 << 19;
/// What is allowed for the way of an answer and a request, milliseconds.
const SLACK_MS: u64 = 2_000;
/// A load of this is too much, thousandths.
const FULL: u32 = 1_000;
/// Below this there is room for more, thousandths.
const ROOM: u32 = 850;
/// Below this a line may end, thousandths.
const CALM: u32 = 700;
/// How long it must have been calm and empty before it ends.
const CALM_MS: u64 = 10_000;
/// Rates by load: the first, the least and the most, thousandths a second.
const FIRST_RATE: u64 = 5_000;
/// See [`FIRST_RATE`].
const LEAST_RATE: u64 = 200;
/// See [`FIRST_RATE`].
const MOST_RATE: u64 = 100_000_000;
/// Milliseconds of too much load in which a rate would be gone, and of room in which it would double.
const SLOWER: u64 = 20_000;
/// See [`SLOWER`].
const FASTER: u64 = 10_000;
/// One admission, in the unit of what has been freed: a thousandth a second, for a millisecond.
const ONE: u64 = 1_000_000;
/// What places count from, milliseconds since 1970: 2024. They last until 2058.
const EPOCH_MS: u64 = 1_704_067_200_000;
/// Bits of a place beside the millisecond: a number within it, and who gave it.
const NUMBER_BITS: u32 = 10;
/// See [`NUMBER_BITS`].
const ISSUER_BITS: u32 = 14;
/// Within a second so many places are counted one by one; more are taken for evenly spread.
const COUNTED: usize = 16;

/// A moment of arrival, unlike any other. Earlier ones are smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u64);

impl Place {
    /// The moment, milliseconds.
    pub fn at_ms(self) -> u64 {
        (self.0 >> (NUMBER_BITS + ISSUER_BITS)) + EPOCH_MS
    }

    fn second(self) -> u64 {
        self.at_ms() / 1_000
    }

    /// Who gave it.
    fn issuer(self) -> u64 {
        self.0 & ((1 << ISSUER_BITS) - 1)
    }

    /// The first of all at a moment.
    fn first_at(ms: u64) -> Place {
        Place(ms.saturating_sub(EPOCH_MS) << (NUMBER_BITS + ISSUER_BITS))
    }
}

/// How a line works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Admissions in a thousand seconds; `None`: as the load allows.
    pub rate: Option<u64>,
    /// How often those who wait come back, milliseconds, at least 1.
    pub refresh_ms: u64,
    /// There is always a line, whatever the load.
    pub always: bool,
}

impl Settings {
    /// After so long everybody who is still there has come back once.
    fn settle_ms(&self) -> u64 {
        self.refresh_ms + SLACK_MS
    }

    /// Who has not come for so long is not there.
    fn patience_ms(&self) -> u64 {
        3 * self.refresh_ms + SLACK_MS
    }
}

/// What is said to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Come in.
    Enter,
    /// Wait, with this place.
    Wait {
        /// Its own, or a new one.
        place: Place,
        /// So many come before it, as far as is known.
        ahead: u64,
        /// For about so long, milliseconds.
        wait_ms: u64,
    },
}

/// What a line is like; the totals never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// There is a line.
    pub on: bool,
    /// Those in it, the called ones included.
    pub waiting: u64,
    /// Let in from it, or past it while it was empty.
    pub admitted: u64,
    /// Those who were in it, or called, and did not come back.
    pub abandoned: u64,
    /// Admissions in a thousand seconds, now.
    pub rate: u64,
}

/// A line; see the module. Moments are milliseconds of a clock that all balancers share, and may go back a little.
#[derive(Debug)]
pub struct Shield {
    settings: Settings,
    issuer: u64,
    on: bool,
    /// Until then nobody is called: others' places are still coming.
    hold_until: u64,
    calm_since: u64,
    /// When each was last heard of.
    waiting: BTreeMap<Place, u64>,
    /// When each was called.
    called: BTreeMap<Place, u64>,
    used: BTreeSet<Place>,
    /// The same, in the order of their admission.
    used_order: VecDeque<Place>,
    /// The latest place that was used and is forgotten.
    forgotten: Option<Place>,
    /// Those waiting, by the second of their arrival; and what that comes to before each, as of a moment.
    seconds: BTreeMap<u64, u32>,
    before: Vec<(u64, u64)>,
    counted_at: u64,
    last_place: Place,
    /// When a newcomer last got a place, and how many did in this refresh and in the one before.
    issued_at: Option<u64>,
    issued: [u64; 2],
    issued_since: u64,
    rate: u64,
    free: u64,
    filled_at: u64,
    loaded_at: u64,
    /// Where those who do not come back are looked for.
    swept: Place,
    admitted: u64,
    abandoned: u64,
}

impl Shield {
    /// A line of nobody. `issuer`: a number that other balancers hardly have.
    pub fn new(settings: Settings, issuer: u64, now: u64) -> Shield {
        Shield {
            settings,
            issuer: issuer & ((1 << ISSUER_BITS) - 1),
            on: settings.always,
            hold_until: now + settings.settle_ms(),
            calm_since: now,
            waiting: BTreeMap::new(),
            called: BTreeMap::new(),
            used: BTreeSet::new(),
            used_order: VecDeque::new(),
            forgotten: None,
            seconds: BTreeMap::new(),
            before: Vec::new(),
            counted_at: 0,
            last_place: Place(0),
            issued_at: None,
            issued: [0; 2],
            issued_since: now,
            rate: settings.rate.unwrap_or(FIRST_RATE),
            free: 0,
            filled_at: now,
            loaded_at: now,
            swept: Place(0),
            admitted: 0,
            abandoned: 0,
        }
    }

    /// Goes on with other settings.
    pub fn set(&mut self, settings: Settings, now: u64) {
        self.settings = settings;
        if let Some(rate) = settings.rate {
            self.rate = rate;
        }
        if settings.always {
            self.turn_on(now);
        }
    }

    /// Whether there is a line.
    pub fn is_on(&self) -> bool {
        self.on
    }

    /// What it is like.
    pub fn figures(&self) -> Figures {
        Figures {
            on: self.on,
            waiting: (self.waiting.len() + self.called.len()) as u64,
            admitted: self.admitted,
            abandoned: self.abandoned,
            rate: self.rate,
        }
    }

    fn turn_on(&mut self, now: u64) {
        if !self.on {
            self.on = true;
            self.hold_until = now + self.settings.settle_ms();
            (self.free, self.filled_at, self.calm_since) = (0, now, now);
        }
    }

    /// Takes in how much load there is: [`FULL`] thousandths is too much. Whether there is a line now.
    pub fn load(&mut self, load: u32, now: u64) -> bool {
        let past = now.saturating_sub(self.loaded_at).min(1_000);
        self.loaded_at = now;
        if load >= FULL {
            self.turn_on(now);
        }
        if !self.on {
            return false;
        }
        if self.settings.rate.is_none() {
            if load >= FULL {
                self.rate = (self.rate - self.rate * past / SLOWER).max(LEAST_RATE);
                self.filled_at = self.filled_at.max(now); // nothing is freed
            } else if load < ROOM && now >= self.hold_until {
                self.rate = (self.rate + self.rate * past / FASTER + past).min(MOST_RATE);
            }
        }
        self.advance(now);
        let empty = self.waiting.is_empty() && self.called.is_empty();
        let busy = load >= CALM || !empty || self.hears_newcomers(now) || self.settings.always;
        if busy {
            self.calm_since = now;
        } else if now.saturating_sub(self.calm_since) >= CALM_MS {
            self.on = false;
        }
        self.on
    }

    /// Whether somebody has a place and may not have come back yet.
    fn hears_newcomers(&self, now: u64) -> bool {
        self.issued_at.is_some_and(|at| now < at + self.settings.settle_ms())
    }

    /// A moment that nobody has: of an arrival.
    pub fn place(&mut self, now: u64) -> Place {
        let step = 1 << ISSUER_BITS;
        let next = Place((self.last_place.0 | (step - 1)) + 1);
        let place = Place(next.max(Place::first_at(now)).0 & !(step - 1) | self.issuer);
        self.last_place = place;
        place
    }

    /// A client without a place, or with one that it last showed at `seen`, wants to come in.
    pub fn ask(&mut self, ticket: Option<(Place, u64)>, now: u64) -> Answer {
        if let Some((place, seen)) = ticket.filter(|(place, _)| self.is_good(*place)) {
            let lately = now.saturating_sub(seen) <= self.settings.patience_ms();
            if !self.on && place.issuer() != self.issuer && lately {
                // There is a line, and somebody else has kept it until just now.
                self.turn_on(now);
            }
            if !self.on {
                return self.enter(place);
            }
            let room = self.waiting.len() < MOST_WAITING || self.waits(place);
            if room && !self.called.contains_key(&place) && self.waiting.insert(place, now).is_none() {
                *self.seconds.entry(place.second()).or_default() += 1;
            }
            self.advance(now);
            if self.called.remove(&place).is_some() {
                return self.enter(place);
            }
            return self.wait(place, now);
        }
        if !self.on {
            self.admitted += 1;
            return Answer::Enter;
        }
        self.advance(now);
        let nobody = self.waiting.is_empty() && self.called.is_empty() && !self.hears_newcomers(now);
        if nobody && now >= self.hold_until && self.free >= ONE {
            self.free -= ONE;
            self.admitted += 1;
            return Answer::Enter;
        }
        let place = self.place(now);
        self.issued_at = Some(now);
        self.count_issued(now);
        self.issued[0] += 1;
        self.wait(place, now)
    }

    fn waits(&self, place: Place) -> bool {
        self.waiting.contains_key(&place)
    }

    /// Whether a place has not been used.
    fn is_good(&self, place: Place) -> bool {
        if self.used.contains(&place) {
            return false;
        }
        self.forgotten.is_none_or(|forgotten| place > forgotten)
            || self.waits(place)
            || self.called.contains_key(&place)
    }

    fn enter(&mut self, place: Place) -> Answer {
        self.used.insert(place);
        self.used_order.push_back(place);
        if self.used_order.len() > MOST_USED
            && let Some(oldest) = self.used_order.pop_front()
        {
            self.used.remove(&oldest);
            self.forgotten = self.forgotten.max(Some(oldest));
        }
        self.admitted += 1;
        Answer::Enter
    }

    fn wait(&mut self, place: Place, now: u64) -> Answer {
        let ahead = self.ahead(place, now);
        let wait_ms = (ahead + 1).saturating_mul(ONE) / self.rate.max(1);
        Answer::Wait { place, ahead, wait_ms: wait_ms.max(self.settings.refresh_ms) }
    }

    /// How many are before a place.
    fn ahead(&mut self, place: Place, now: u64) -> u64 {
        if now.abs_diff(self.counted_at) >= 1_000 || self.before.is_empty() {
            self.counted_at = now;
            let mut sum = 0;
            self.before.clear();
            for (&second, &count) in &self.seconds {
                self.before.push((second, sum));
                sum += u64::from(count);
            }
            self.before.push((u64::MAX, sum));
        }
        let second = place.second();
        let at = self.before.partition_point(|(other, _)| *other < second);
        let earlier = self.before.get(at).map_or(0, |(_, sum)| *sum);
        let same = self.waiting.range(Place::first_at(second * 1_000)..place).take(COUNTED).count() as u64;
        let same = match same < COUNTED as u64 {
            true => same,
            false => u64::from(*self.seconds.get(&second).unwrap_or(&0)) * (place.at_ms() % 1_000) / 1_000,
        };
        self.count_issued(now);
        // Newcomers come behind all who have been back, and behind those that have not.
        let unheard = if self.waits(place) { 0 } else { self.issued.iter().sum::<u64>().saturating_sub(1) };
        let behind = (self.waiting.len() as u64).min(earlier + same);
        behind + self.called.len() as u64 + unheard
    }

    fn count_issued(&mut self, now: u64) {
        let past = now.saturating_sub(self.issued_since) / self.settings.refresh_ms.max(1);
        if past > 0 {
            self.issued = if past == 1 { [0, self.issued[0]] } else { [0, 0] };
            self.issued_since = now;
        }
    }

    fn fill(&mut self, now: u64) {
        let past = now.saturating_sub(self.filled_at);
        self.filled_at = self.filled_at.max(now);
        let most = (self.rate * 1_000).max(ONE);
        self.free = (self.free + self.rate.saturating_mul(past)).min(most);
    }

    /// Calls as many as there is room for, and passes over those who are gone.
    fn advance(&mut self, now: u64) {
        self.fill(now);
        let patience = self.settings.patience_ms();
        let gone: Vec<Place> =
            self.called.iter().take(8).filter(|(_, at)| now > **at + patience).map(|(p, _)| *p).collect();
        for place in gone {
            // What was kept for it is the next one's.
            self.called.remove(&place);
            self.abandoned += 1;
            self.free += ONE;
        }
        self.sweep(now, patience);
        if now < self.hold_until {
            return;
        }
        let settled = Place::first_at(now.saturating_sub(self.settings.settle_ms()));
        while self.free >= ONE {
            let Some((&place, &seen)) = self.waiting.first_key_value() else { return };
            if place >= settled {
                return;
            }
            self.leave(place);
            if now > seen + patience {
                self.abandoned += 1;
                continue;
            }
            self.free -= ONE;
            self.called.insert(place, now);
        }
    }

    /// Looks at some of the line for those who are gone.
    fn sweep(&mut self, now: u64, patience: u64) {
        let mut gone = Vec::new();
        let mut last = None;
        for (&place, &seen) in self.waiting.range(self.swept..).take(8) {
            last = Some(place);
            if now > seen + patience {
                gone.push(place);
            }
        }
        self.swept = last.map_or(Place(0), |place| Place(place.0 + 1));
        for place in gone {
            self.leave(place);
            self.abandoned += 1;
        }
    }

    fn leave(&mut self, place: Place) {
        self.waiting.remove(&place);
        if let Some(count) = self.seconds.get_mut(&place.second()) {
            *count -= 1;
            if *count == 0 {
                self.seconds.remove(&place.second());
            }
        }
    }

    /// Panics where something that must hold does not.
    pub fn check_invariants(&self) {
        let counted: u64 = self.seconds.values().map(|n| u64::from(*n)).sum();
        assert_eq!(counted, self.waiting.len() as u64, "the seconds are not those of the line");
        assert!(self.waiting.len() <= MOST_WAITING && self.used.len() <= MOST_USED);
        assert_eq!(self.used.len(), self.used_order.len());
        let twice = self.called.keys().any(|place| self.waits(*place) || self.used.contains(place));
        assert!(!twice, "a place is called twice");
    }
}

#[cfg(test)]
mod tests;
