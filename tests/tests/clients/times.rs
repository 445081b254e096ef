//! Reading from a time: the first record at or behind it in each partition, and all that follow it.

use super::a_few_at_once;
use super::programs::clients;
use super::records::{Shown, Written, an_hour_ago, expected, shown, write_natively};
use corelog_client::Codec;
use corelog_tests::serving::{create_topic, start};

/// Seconds of the records of a partition: clocks of producers go back, too.
const SECONDS: [i64; 8] = [0, 10, 20, 15, 30, 30, 5, 40];
/// Between, on a record, where clocks went back, on two, and behind all.
const ASKED: [i64; 5] = [-1, 10, 16, 30, 41];
const PARTITIONS: u32 = 3;

#[test]
fn each_client_finds_a_time() {
    let clients = clients();
    let (mut node, address) = start();
    create_topic(&node, "t", PARTITIONS, &[]);
    let base = an_hour_ago();
    let at = |partition: u32, seconds: i64| {
        // Each partition has times of its own.
        let timestamp = base + seconds * 1000 + i64::from(partition) * 1500;
        Written { partition, timestamp, value: Some(vec![b'v'; 100]), ..Written::default() }
    };
    let of_partition = |partition| SECONDS.map(|seconds| at(partition, seconds));
    let records: Vec<Written> = (0..PARTITIONS).flat_map(of_partition).collect();
    write_natively(&node, "t", Codec::Lz4, &records);
    let records = expected("t", &records);
    let questions = clients.iter().flat_map(|client| ASKED.map(|seconds| (client, base + seconds * 1000)));
    a_few_at_once(questions, |(client, time)| {
        let found = shown(&client.ask(address, "read", &[&time.to_string(), "t"], ""));
        assert_eq!(found, from(&records, time), "{} at {time}", client.name);
    });
    node.stop();
}

fn from(records: &[Shown], time: i64) -> Vec<Shown> {
    let is_behind = |record: &Shown| {
        let timestamp = record.rest.split(' ').next().and_then(|word| word.parse::<i64>().ok());
        timestamp.expect("a timestamp") >= time
    };
    let first = |partition| records.iter().find(move |record| record.partition == partition && is_behind(record));
    let is_read = |record: &&Shown| first(record.partition).is_some_and(|first| record.offset >= first.offset);
    records.iter().filter(is_read).cloned().collect()
}
