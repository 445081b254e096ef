//! The native server as its clients meet it, over the simulated network and disk.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, missing_docs, reason = "nothing outside sees a test's harness")]

mod bad_batches;
mod bad_frames;
mod bounds;
mod consume;
mod crossing;
mod harness;
mod lifecycle;
mod produce;
mod sockets;
mod stats;
mod topics;
