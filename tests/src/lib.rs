//! Simulated world and end-to-end harness.
#![forbid(unsafe_code)]

pub mod process;
