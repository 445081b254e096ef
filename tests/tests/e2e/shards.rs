//! The number of shards changes from run to run; nothing is lost and everything goes on.

use super::{consume_all, create_topic};
use corelog_client::blocking::{Admin, Producer};
use corelog_client::{ConnectOptions, NewRecord, ProducerOptions};
use corelog_tests::process::Node;
use std::collections::BTreeSet;

const PARTITIONS: u32 = 8;
const RECORDS: u32 = 20_000;

#[test]
fn one_two_one_keeps_everything() {
    let mut node = Node::start(1, &[]);
    create_topic(&node, "moving", PARTITIONS);
    produce(&node, 0);
    assert_eq!(owners(&node), BTreeSet::from([0]));

    node.stop();
    node.restart(2);
    expect_everything(&node, RECORDS);
    assert_eq!(owners(&node), BTreeSet::from([0, 1]), "partitions moved to the new shard");
    produce(&node, RECORDS);

    node.kill(); // journals of two shards, to be read by one
    node.restart(1);
    expect_everything(&node, 2 * RECORDS);
    assert_eq!(owners(&node), BTreeSet::from([0]));
    produce(&node, 2 * RECORDS);
    expect_everything(&node, 3 * RECORDS);
}

fn produce(node: &Node, first: u32) {
    let producer = Producer::connect(&node.bootstrap(), "moving", ProducerOptions::default()).expect("connects");
    for number in first..first + RECORDS {
        let value = format!("value {number}");
        let key = (number % 1000).to_le_bytes();
        producer.send(NewRecord::new(value.as_bytes()).key(&key)).expect("takes the record");
    }
    producer.close().expect("all is acknowledged");
}

/// Every number once, ascending within a key, offsets without gaps.
fn expect_everything(node: &Node, records: u32) {
    let mut seen = BTreeSet::new();
    let mut last_of_key = vec![None; 1000];
    let mut next = vec![0; PARTITIONS as usize];
    consume_all(node, "moving", |partition, offset, key, value| {
        let text = std::str::from_utf8(value).expect("text");
        let number: u32 = text.strip_prefix("value ").expect("a value").parse().expect("a number");
        assert_eq!(offset, next[partition as usize]);
        next[partition as usize] += 1;
        let last = &mut last_of_key[u32::from_le_bytes(key.try_into().expect("a key")) as usize];
        assert!(last.is_none_or(|last| last < number), "{number} after {last:?}");
        *last = Some(number);
        assert!(seen.insert(number), "{number} twice");
    });
    assert_eq!(seen.len(), records as usize);
}

fn owners(node: &Node) -> BTreeSet<u16> {
    let mut admin = Admin::connect(&node.bootstrap(), ConnectOptions::default()).expect("connects");
    admin.topic("moving").expect("the topic").owners.iter().map(|(_, shard)| *shard).collect()
}
