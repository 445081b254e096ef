//! The simulator: a world of nodes in one thread, whose disks, network, clocks and chance follow from one seed.
//!
//! The reactors in it are the shipped ones; only the driver behind them is another. Every operation becomes an event at
//! a time that the seed draws, and takes its effect then, so that what is in flight at once can end in any order. A
//! crash can come between any two events.
#![forbid(unsafe_code)]

mod disk;
mod driver;
mod event;
mod faults;
mod net;
mod random;
#[cfg(test)]
mod tests;
mod world;

pub(crate) use driver::SimDriver;
pub use faults::{DiskOp, Fault, Faults, NodeCounters};
pub use net::NetOptions;
pub use random::Random;
pub use world::{CrashKind, NodeId, Span, World, WorldOptions};
