//! The data plane.

pub mod probe;
