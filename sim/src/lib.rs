#![forbid(unsafe_code)]
//! Many nodes, one seed, virtual time: the cores under loss, delay, duplication, reordering, partition,
//! crash, pause and planned moves, with invariants that must hold at every instant.
//!
//! Here are the world ([`vrrp`]) and what happens in it; `tests/` runs it over thousands of seeds, and
//! shows for each invariant that it fails on a bug planted for it ([`vrrp::Mutant`]). The shells are not in
//! it: they decide nothing.
//!
//! One seed again, with its trace: `RELAIS_SIM_SEED=N cargo test -p relais-sim one_seed -- --nocapture`.

pub mod vrrp;
pub mod witness;
