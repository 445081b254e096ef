//! What is behind the tail, sent by the kernel from its files.

use super::PATIENCE;
use corelog_client::blocking::{Admin, Consumer, Producer};
use corelog_client::{ConnectOptions, ConsumerOptions, NewRecord, ProducerOptions};
use corelog_tests::chance::Chance;
use corelog_tests::process::Node;
use std::thread;
use std::time::{Duration, Instant};

const RECORDS: u64 = 20_000;
const SEED: u64 = 25;
const PAUSE: Duration = Duration::from_millis(5);

/// Record `number` is different from every other in each of its 1 to 4 KiB.
fn value(number: u64) -> Vec<u8> {
    let mut chance = Chance(SEED ^ number << 20);
    let words = 128 + chance.below(384);
    (0..words).flat_map(|_| chance.draw().to_le_bytes()).collect()
}

fn count(node: &Node, name: &str) -> u64 {
    let mut admin = Admin::connect(&node.bootstrap(), ConnectOptions::default()).expect("connects");
    admin.stats(0).expect("the server's counts").count(name)
}

/// Reads records and holds each against what was sent, until `most` have come or the end. How many came.
fn read(node: &Node, most: u64, pause: Duration) -> u64 {
    let mut consumer = Consumer::connect(&node.bootstrap(), "t", ConsumerOptions::default()).expect("connects");
    let mut next = 0;
    while next < most && !consumer.at_end() {
        let fetched = consumer.poll(PATIENCE).expect("polls").expect("something comes");
        for record in fetched.records() {
            let record = record.expect("a whole record");
            assert!(record.offset == next as i64 && record.value == Some(&value(next)[..]), "record {next}");
            next += 1;
        }
        thread::sleep(pause);
    }
    next
}

#[test]
fn what_is_spliced_is_what_was_sent_whatever_clients_do() {
    let mut node = Node::start(1, &["--fetch-path", "splice"]);
    let mut admin = Admin::connect(&node.bootstrap(), ConnectOptions::default()).expect("connects");
    admin.create_topic("t", 1, &[("segment.bytes", "4194304")]).expect("creates the topic");
    drop(admin);
    let producer = Producer::connect(&node.bootstrap(), "t", ProducerOptions::default()).expect("connects");
    for number in 0..RECORDS {
        producer.send(NewRecord::new(&value(number))).expect("takes the record");
    }
    producer.close().expect("all is acknowledged");
    // Nothing is in memory then.
    node.stop();
    node.restart(1);

    assert_eq!(read(&node, u64::MAX, Duration::ZERO), RECORDS);
    let spliced = count(&node, "read_splice_bytes");
    assert!(spliced > RECORDS * 2048 / 4 * 3, "{spliced} bytes: most of it");

    // Some leave in the midst of it, while others read on and one is slow.
    thread::scope(|scope| {
        let slow = scope.spawn(|| read(&node, u64::MAX, PAUSE));
        for most in (1..6).map(|part| RECORDS / 6 * part) {
            let node = &node;
            scope.spawn(move || read(node, most, Duration::ZERO));
        }
        assert_eq!(slow.join().expect("it read all"), RECORDS);
    });
    let since = Instant::now();
    while count(&node, "pipes") > 0 {
        assert!(since.elapsed() < PATIENCE, "readers are gone, and their pipes stay open");
        thread::sleep(PAUSE);
    }
}
