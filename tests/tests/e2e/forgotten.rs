//! A topic whose making is lost: what another shard's journal has of it is kept.

use super::create_topic;
use corelog_client::blocking::{Admin, Producer};
use corelog_client::{ConnectOptions, NewRecord, ProducerOptions};
use corelog_tests::process::{Node, program};
use std::fs;
use std::path::Path;
use std::process::Command;

const SHARDS: u16 = 2;
const PARTITIONS: u32 = 4;
const RECORDS: usize = 300;

/// Produces so many records to each partition of a topic.
fn fill(node: &Node, topic: &str, partitions: u32) {
    let producer = Producer::connect(&node.bootstrap(), topic, ProducerOptions::default()).expect("connects");
    for partition in 0..partitions {
        for number in 0..RECORDS {
            let value = format!("{topic}-{partition}-{number}");
            producer.send(NewRecord::new(value.as_bytes()).partition(partition)).expect("takes the record");
        }
    }
    producer.close().expect("all is acknowledged");
}

/// Writes over the journal entry that has this text.
fn damage(journal: &Path, text: &str) {
    let mut bytes = fs::read(journal).expect("reads the journal");
    let at = bytes.windows(text.len()).position(|window| window == text.as_bytes()).expect("the text is there");
    bytes[at..at + text.len()].fill(b'U');
    fs::write(journal, bytes).expect("writes the journal");
}

fn dumped(path: &Path) -> String {
    let ended = Command::new(program()).args(["dump-log", "--records"]).arg(path).output().expect("runs");
    String::from_utf8_lossy(&ended.stdout).into_owned()
}

#[test]
fn records_of_a_topic_whose_making_is_lost_are_kept() {
    let mut node = Node::start(SHARDS, &["--memory", "1GiB", "--kafka-listen", "off"]);
    create_topic(&node, "known", 2);
    fill(&node, "known", 2);
    create_topic(&node, "forgotten", PARTITIONS);
    fill(&node, "forgotten", PARTITIONS);
    // Later entries say that the one which is damaged was acknowledged.
    fill(&node, "known", 2);
    let mut admin = Admin::connect(&node.bootstrap(), ConnectOptions::default()).expect("connects");
    let topic = admin.describe_topic("forgotten").expect("it is there");
    let elsewhere: Vec<u32> = topic.partitions.iter().filter(|p| p.shard != 0).map(|p| p.partition).collect();
    assert!(!elsewhere.is_empty(), "some of {PARTITIONS} partitions are on the second shard");
    node.kill();
    damage(&node.data_dir().join("shards-1/0/journal"), "forgotten");
    for _ in 0..3 {
        node.restart(SHARDS);
        // The first of these starts says so, and no other.
        let told = node.output().matches("of a topic that is not known any more").count();
        assert_eq!(told, elsewhere.len(), "{}", node.output());
        let made =
            Command::new(program()).args(["topic", "create", "new", "-b", &node.bootstrap()]).output().expect("runs");
        let refused = String::from_utf8_lossy(&made.stderr);
        assert!(!made.status.success() && refused.contains("the log of topics takes no records"), "{refused}");
        let directory = node.data_dir().join("topics").join(topic.id.to_string());
        for partition in &elsewhere {
            let dumped = dumped(&directory.join(partition.to_string()));
            let last = format!("forgotten-{partition}-{}", RECORDS - 1);
            let found = dumped.matches(&format!("forgotten-{partition}-")).count();
            assert!(found == RECORDS && dumped.contains(&last), "{found} of {RECORDS} records: {}", node.output());
        }
        node.stop();
    }
}
