//! The platform in network namespaces, its embedded application, and the demo.

pub mod app;
pub mod application;
pub mod balancer;
pub mod commands;
pub mod demo;
pub mod drill;
pub mod exchange;
pub mod holders;
mod netlink;
pub mod netns;
pub mod network;
mod peer;
pub mod platform;
pub mod probe;
pub mod process;
pub mod report;
mod sys;
