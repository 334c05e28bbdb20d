//! The platform in network namespaces, its embedded application, and the demo.

pub mod app;
pub mod exchange;
mod netlink;
pub mod netns;
pub mod network;
pub mod probe;
pub mod process;
pub mod report;
mod sys;
