//! The real program with real clients, killed and restarted. One binary, a module for each story.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets what it did not expect should end there")]

mod clients;
mod forgotten;
mod idle;
mod kafka;
mod killed;
mod logfile;
mod shards;
mod spliced;

use corelog_client::ConsumerOptions;
use corelog_tests::process::Node;
use corelog_tests::serving::{self, PATIENCE};

/// Creates a topic with default settings.
fn create_topic(node: &Node, topic: &str, partitions: u32) {
    serving::create_topic(node, topic, partitions, &[]);
}

/// Hands every record of a topic to `take`: partition, offset, key, value. Ends at what was the end when it began.
fn consume_all(node: &Node, topic: &str, take: impl FnMut(u32, i64, &[u8], &[u8])) {
    consume(node, topic, ConsumerOptions::default(), take);
}

/// The same with a consumer of one's own options.
fn consume(node: &Node, topic: &str, options: ConsumerOptions, mut take: impl FnMut(u32, i64, &[u8], &[u8])) {
    serving::consume(node, topic, options, |partition, record| {
        take(partition, record.offset, record.key.unwrap_or_default(), record.value.unwrap_or_default());
    });
}
