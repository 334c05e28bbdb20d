//! The platform in network namespaces, its embedded application, and the demo.

pub mod app;
mod netlink;
pub mod netns;
pub mod network;
pub mod process;
mod sys;
