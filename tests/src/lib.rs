//! The simulated world: the engine that is shipped, on disks and networks that fail, with clients that remember what
//! they were told. And the real program as a process of its own, on disks whose power is cut.
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    reason = "all of this is for tests: what is broken is to stop one"
)]

#[cfg(feature = "planted")]
pub mod boundaries;
pub mod campaign;
pub mod chance;
pub mod clients;
pub mod damage;
pub mod disk;
pub mod disks;
pub mod edges;
pub mod fuzz;
pub mod interrupt;
pub mod invariants;
pub mod kept;
mod keyed;
pub mod native;
mod numbered;
pub mod powercut;
pub mod process;
pub mod records;
pub mod run;
pub mod serving;
pub mod sometimes;
pub mod world;
