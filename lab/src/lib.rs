//! The platform in network namespaces, its embedded application, and the demo.

pub mod app;
