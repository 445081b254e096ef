//! Kafka's protocol as its clients meet it, over the simulated network and disk; requests and responses by `kafka-protocol`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]
#![allow(unreachable_pub, missing_docs, reason = "nothing outside sees a test's harness")]

mod configs;
mod consumer_groups;
mod fetch;
mod groups;
#[allow(dead_code, reason = "a part of it is the native protocol's")]
#[path = "../native/harness.rs"]
mod harness;
mod hostile;
mod produce;
mod producers;
mod topics;
mod wire;
