#![forbid(unsafe_code)]
//! The file: text to an immutable [`plan::Plan`].

pub mod plan;
pub use plan::Plan;
