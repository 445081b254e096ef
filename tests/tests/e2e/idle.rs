//! Ten thousand partitions that hold little and do nothing cost little.

use super::{consume, create_topic};
use corelog_client::blocking::Producer;
use corelog_client::{ConsumerOptions, NewRecord, ProducerOptions};
use corelog_tests::process::Node;
use std::time::Duration;

const PARTITIONS: u32 = 10_000;
/// What an idle partition may take, bytes.
const PARTITION_BYTES: u64 = 16 << 10;
const MEMORY: u64 = 1 << 30;
/// Shards, connections, journals and the like: all that does not grow with the partitions.
const DESCRIPTORS: usize = 128;
/// A consumer has one connection to each shard, and a connection may have 1,024 subscriptions.
const SUBSCRIPTIONS: usize = 1000;
/// Generous, for machines that run other things: alone it takes one or two seconds.
const RESTART: Duration = Duration::from_secs(30);

#[test]
fn ten_thousand_idle_partitions_stay_within_the_bounds() {
    let mut node = Node::start(2, &["--memory", "1GiB"]);
    let before = node.resident_bytes();
    create_topic(&node, "wide", PARTITIONS);
    produce_one_each(&node);
    // An idle partition gives its memory back at the next checkpoint at the latest; a restart makes all of them idle.
    node.stop();
    let clean = node.restart(2);
    let after = node.resident_bytes();
    let each = after.saturating_sub(before) / u64::from(PARTITIONS);
    println!("restart {clean:?}, {each} bytes a partition, {after} in all, {} descriptors", node.descriptors());
    assert!(each <= PARTITION_BYTES, "an idle partition takes {each} bytes");
    assert!(after <= MEMORY, "{after} bytes are resident");
    assert!(node.descriptors() <= DESCRIPTORS, "{} descriptors are open", node.descriptors());
    assert!(clean < RESTART, "the restart took {clean:?}");

    node.kill();
    let recovered = node.restart(2);
    assert!(recovered < RESTART, "the restart after a kill took {recovered:?}");
    let mut seen = 0;
    for first in (0..PARTITIONS).step_by(SUBSCRIPTIONS) {
        let partitions = (first..PARTITIONS.min(first + SUBSCRIPTIONS as u32)).collect();
        let options = ConsumerOptions { partitions: Some(partitions), ..ConsumerOptions::default() };
        consume(&node, "wide", options, |partition, offset, _, value| {
            assert_eq!((offset, value), (0, partition.to_string().as_bytes()));
            seen += 1;
        });
    }
    assert_eq!(seen, PARTITIONS);
    assert!(node.resident_bytes() <= MEMORY, "{} bytes are resident", node.resident_bytes());
}

fn produce_one_each(node: &Node) {
    let producer = Producer::connect(&node.bootstrap(), "wide", ProducerOptions::default()).expect("connects");
    for partition in 0..PARTITIONS {
        let value = partition.to_string();
        producer.send(NewRecord::new(value.as_bytes()).partition(partition)).expect("takes the record");
    }
    producer.close().expect("all is acknowledged");
}
