//! Behaviour of the wire crate as its users see it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod hostile;
mod protocol_doc;
mod round_trip;
