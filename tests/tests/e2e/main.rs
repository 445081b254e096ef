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

use corelog_client::blocking::{Admin, Consumer};
use corelog_client::{ConnectOptions, ConsumerOptions};
use corelog_tests::process::Node;
use std::time::Duration;

/// Without a record for so long a consumer is stuck. The tests share two cores and a disk with each other.
const PATIENCE: Duration = Duration::from_secs(90);

/// Creates a topic with default settings.
fn create_topic(node: &Node, topic: &str, partitions: u32) {
    let mut admin = Admin::connect(&node.bootstrap(), ConnectOptions::default()).expect("connects");
    admin.create_topic(topic, partitions, &[]).expect("creates the topic");
}

/// Hands every record of a topic to `take`: partition, offset, key, value. Ends at what was the end when it began.
fn consume_all(node: &Node, topic: &str, take: impl FnMut(u32, i64, &[u8], &[u8])) {
    consume(node, topic, ConsumerOptions::default(), take);
}

/// The same with a consumer of one's own options.
fn consume(node: &Node, topic: &str, options: ConsumerOptions, mut take: impl FnMut(u32, i64, &[u8], &[u8])) {
    let mut consumer = Consumer::connect(&node.bootstrap(), topic, options).expect("connects the consumer");
    while !consumer.at_end() {
        let Some(fetched) = consumer.poll(PATIENCE).expect("polls") else {
            panic!("nothing came for {PATIENCE:?}, and the end is not reached");
        };
        for record in fetched.records() {
            let record = record.expect("a whole record");
            take(fetched.partition(), record.offset, record.key.unwrap_or_default(), record.value.unwrap_or_default());
        }
    }
}
