#![deny(unsafe_code)]
//! The platform on one machine: in network namespaces with the thesis's addresses, to be measured and broken.
//!
//! | module | |
//! | --- | --- |
//! | [`commands`] | what `relais lab` and `relais drill` do |
//! | [`drill`] | break one thing, watch, mend; [`report`] has the figures |
//! | [`storm`] | break random things, hold promises against what is seen |
//! | [`probe`] | the client whose eyes count; [`holders`] watches who has the address, [`answers`] who answers for it |
//! | [`platform`] | the machines and their life; [`balancer`] and [`application`] say what runs on them |
//! | [`network`] | switch, hosts, cables; [`netns`] and [`process`] beneath it |
//! | [`demo`], [`app`] | `relais demo`, and the application that it and a lab without Tomcat serve |
//!
//! Nothing here finds or ends a process by its name: a lab's processes are those inside its namespaces. Nothing is
//! measured here that a client in the lab could not see, but for who has the address.

pub mod answers;
pub mod app;
pub mod application;
pub mod balancer;
pub mod commands;
pub mod demo;
mod download;
pub mod drill;
pub mod exchange;
mod eyes;
pub mod holders;
mod netlink;
pub mod netns;
pub mod network;
mod peer;
pub mod platform;
pub mod probe;
pub mod process;
pub mod report;
pub mod storm;
#[allow(unsafe_code)]
mod sys;
