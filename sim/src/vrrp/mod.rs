//! Two to five virtual routers on a bad network.
//!
//! A run has two parts. In the *storm* anything happens: partitions (also of one direction), crashes with
//! and without a quick restart, pauses, cables pulled, frontends that flap, hand-overs. Then everything is
//! mended and in the *calm* only the network stays bad; there, planned moves and returning nodes are tried.
//!
//! The invariants, and why their bounds are what they are ([`Bounds`]):
//!
//! 1. *One holder.* Two running nodes that hear each other do not both hold the address for longer than
//!    the loser needs to hear the winner. A node that does not run (dead, stopped) holds it for at most its
//!    lease, which its kernel ends.
//! 2. *A late riser yields.* A node that did not run for a whole time-out of the others holds nothing that
//!    a node it can hear holds.
//! 3. *Somebody holds it.* In the calm, after the settling time, one running node holds it and all others
//!    follow; with preemption it is one of the highest priority, without it no return changes the holder.
//! 4. *No gap.* In the calm, from then on, there is no instant without a holder, whoever hands over or
//!    returns. (Not where two packets in a row may be lost: a backup that takes a living master for dead
//!    in the very milliseconds of a hand-over can be mistaken for the taker.)
//! 5. *The client follows.* What it heard announced last is where the address is: at once where two
//!    masters met, and by the slow schedule where the other let go unheard.
//! 6. The core's own `check_invariants`, after every input.

pub(crate) mod network;
mod node;
mod speech;
mod world;

use std::time::Duration;

use relais_base::{Rng, Time};
use relais_vrrp::{ANNOUNCE_EVERY, Health, Input};

use world::World;

/// A bug planted in the node that it matters for, or in all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// No bug.
    None,
    /// Takes every other master for one of priority 1.
    IgnoresPriority,
    /// Never removes the address when it should.
    ForgetsToRemove,
    /// Does not notice that a master is gone.
    NeverTimesOut,
    /// A restarted process goes on as master however long that took.
    ResumesTooLate,
    /// A process that was stopped goes on as if no time had passed and nothing had come.
    SleepsUnnoticed,
    /// The kernel keeps the address of a dead process for ever.
    HasNoLease,
    /// A hand-over removes the address before another node has it.
    BreaksBeforeMaking,
    /// A node that returns in the calm takes the address although it must not.
    PreemptsAnyway,
    /// No gratuitous ARP.
    AnnouncesNothing,
}

/// Which invariant did not hold, and what happened.
#[derive(Debug)]
pub struct Violation {
    /// Number in the module's list.
    pub invariant: u8,
    /// What was seen.
    pub what: String,
    /// The seed that shows it.
    pub seed: u64,
    /// What happened until then, if a trace was asked for.
    pub trace: Vec<String>,
}

/// How much happened in a run: a simulation in which nothing happens proves nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events {
    /// Becomings of a master.
    pub masters: u64,
    /// Instants at which two nodes began to hold the address both.
    pub overlaps: u64,
    /// Crashes, with or without restart.
    pub crashes: u64,
    /// Pauses.
    pub pauses: u64,
    /// Partitions of one or both directions.
    pub partitions: u64,
    /// Hand-overs begun by a master.
    pub hand_overs: u64,
    /// Packets that arrived.
    pub packets: u64,
}

impl Events {
    /// Adds another run's.
    pub fn add(&mut self, other: &Events) {
        self.masters += other.masters;
        self.overlaps += other.overlaps;
        self.crashes += other.crashes;
        self.pauses += other.pauses;
        self.partitions += other.partitions;
        self.hand_overs += other.hand_overs;
        self.packets += other.packets;
    }
}

/// Derived from what the network may do; `interval` is the advertisement interval, `losses` the most in a
/// row, `delay` the longest, `lateness` how late a driver may run a timer.
#[derive(Clone, Copy, Debug)]
struct Bounds {
    /// Overlap of two running holders: the winner's next advertisements may be lost `losses` times, the one
    /// after arrives `delay` later; and what a node sends within two intervals of its own farewell is
    /// ignored, as it may have been overtaken by it.
    overlap: Duration,
    /// From the end of the storm to a holder: a time-out of at most four intervals, once more for a node
    /// that woke late, the losses and a conflict.
    settle: Duration,
    /// From the holder's start to a client that knows it: `losses` announcements of the burst are lost.
    announce: Duration,
    /// The same where the client did not hear the burst at all.
    announce_again: Duration,
}

impl Bounds {
    fn new(
        interval: Duration,
        losses: u32,
        delay: Duration,
        lateness: Duration,
        preempt_delay: Duration,
    ) -> Bounds {
        let heard = (interval + lateness) * (losses + 1) + delay;
        let overlap = heard + interval * 2 + delay;
        let settle = preempt_delay + (interval * 4 + lateness) * 2 + overlap * 2;
        let announce = [100, 300, 1000][losses.clamp(1, 3) as usize - 1];
        let announce = Duration::from_millis(announce) + delay + lateness;
        Bounds { overlap, settle, announce, announce_again: ANNOUNCE_EVERY * (losses + 1) + announce }
    }
}

/// Runs one seed to its end.
///
/// # Errors
/// The first violation of an invariant.
///
/// # Panics
/// If the core's own invariants do not hold.
pub fn run(seed: u64, mutant: Mutant, trace: bool) -> Result<Events, Box<Violation>> {
    let mut rng = Rng::new(seed);
    let mut world = World::new(seed, &mut rng, mutant, trace);
    let interval = world.interval;
    let storm = interval * 60 + Duration::from_secs(1);
    let calm_at = Time::ZERO + storm;
    loop {
        let pause = interval.mul_f64(0.2 + rng.below(120) as f64 / 20.0);
        let at = world.now() + pause;
        if at >= calm_at {
            break;
        }
        world.run_until(at)?;
        strike(&mut world, &mut rng);
    }
    world.run_until(calm_at)?;
    world.remember_masters();
    mend(&mut world);
    world.settle()?;
    for _ in 0..1 + rng.below(2) {
        match rng.below(3) {
            0 => world.hand_over_calmly()?,
            1 => world.return_calmly()?,
            _ => world.move_calmly()?,
        }
    }
    Ok(world.events())
}

/// One fault, somewhere.
fn strike(world: &mut World, rng: &mut Rng) {
    let n = world.size() as u64;
    let i = rng.below(n) as usize;
    match rng.below(12) {
        0 | 1 => world.crash(i),
        2 | 3 => world.restart(i),
        4 => world.pause(i),
        5 => world.wake(i),
        6 => world.partition(i, rng.below(n + 1) as usize, rng.chance(1, 2)),
        7 => world.split(rng.below(1 << n)),
        8 => world.mend_network(),
        9 => world.cable(i, rng.chance(1, 2)),
        10 => {
            let health = [Health::Up, Health::Healing, Health::Down][rng.below(3) as usize];
            world.frontend(i, health);
        }
        _ => {
            let input = match rng.below(8) {
                0..3 => Input::HandOver,
                3..5 => Input::Start { resume: None },
                5 => Input::Standby(rng.chance(1, 2)),
                6 => Input::MoveHere,
                _ => Input::MoveAway,
            };
            world.order(i, input);
        }
    }
}

/// Ends every fault but the network's own.
fn mend(world: &mut World) {
    world.mend_network();
    for i in 0..world.size() {
        world.cable(i, true);
        world.wake(i);
        world.restart(i);
        world.frontend(i, Health::Up);
        world.order(i, Input::Standby(false));
        world.order(i, Input::Restore(None));
        world.order(i, Input::Start { resume: None });
    }
}
