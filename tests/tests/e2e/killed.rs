//! A log of a gigabyte goes in over eight partitions while the server is killed again and again, and comes out the same.
//!
//! The producer repeats what it cannot know the fate of (at least once). What can then be said exactly, and is checked:
//! - every record is at the offset that its delivery named, and nowhere later in its partition;
//! - what stands elsewhere is a repetition, and repetitions step back, never forward: without them each partition holds
//!   its lines in the order in which they were sent, none missing;
//! - a partition steps back at most once for each kill;
//! - per key, what comes out equals the file.
//!
//! A producer that numbers its batches (exactly once) repeats nothing: the server recognises what it has.

use super::logfile::{key_of, number_of, write_access_log};
use super::{consume_all, create_topic};
use corelog_client::blocking::Producer;
use corelog_client::{Delivery, NewRecord, ProducerOptions, RetryUnknown};
use corelog_tests::chance::{Chance, seed};
use corelog_tests::process::{Node, scratch};
use std::collections::HashMap;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

const PARTITIONS: u32 = 8;
const KILLS: usize = 6;
const DEFAULT_BYTES: u64 = 1 << 30;

/// Size of the file: `CORELOG_E2E_BYTES`, or a gibibyte.
fn file_bytes() -> u64 {
    std::env::var("CORELOG_E2E_BYTES").ok().and_then(|text| text.parse().ok()).unwrap_or(DEFAULT_BYTES)
}

#[test]
fn a_log_that_goes_in_under_kills_comes_out_the_same() {
    go_in_and_come_out(RetryUnknown::AtLeastOnce, file_bytes());
}

#[test]
fn a_log_that_is_numbered_comes_out_once() {
    let repeated = go_in_and_come_out(RetryUnknown::ExactlyOnce, file_bytes() / 4);
    assert_eq!(repeated, 0, "none is there twice");
}

/// How many records were repeated.
fn go_in_and_come_out(retry_unknown: RetryUnknown, bytes: u64) -> usize {
    let seed = seed();
    let directory = scratch();
    let path = directory.path().join("access.log");
    let lines = write_access_log(&path, seed, bytes).expect("writes the file");
    let mut node = Node::start(1, &[]);
    create_topic(&node, "access", PARTITIONS);

    let mut sent = produce_under_kills(&mut node, &path, lines, seed, retry_unknown);
    node.kill(); // what was acknowledged a moment ago is there as well
    node.restart(1);

    let mut came_out = ByKey::default();
    let mut readings: Vec<Reading> = (0..PARTITIONS).map(|_| Reading::default()).collect();
    consume_all(&node, "access", |partition, offset, key, line| {
        let of_partition = &sent.partitions[partition as usize];
        let reading = &mut readings[partition as usize];
        if reading.take(of_partition, offset, line) {
            came_out.take(key, line);
        }
    });
    for (partition, (of_partition, reading)) in sent.partitions.iter().zip(&readings).enumerate() {
        assert_eq!(reading.kept, of_partition.numbers.len(), "partition {partition} lacks records");
        assert!(reading.steps_back <= KILLS, "partition {partition} stepped back {} times", reading.steps_back);
    }
    assert_eq!(came_out.0.len(), sent.by_key.0.len());
    came_out.0.drain().for_each(|(key, hash)| assert_eq!(sent.by_key.0.remove(&key), Some(hash), "key {key:?}"));
    let repeated: usize = readings.iter().map(|reading| reading.repeated).sum();
    println!("{lines} lines, {KILLS} kills, {repeated} records repeated");
    repeated
}

/// What was sent, and what the producer was told of it.
struct Sent {
    partitions: Vec<SentPartition>,
    by_key: ByKey,
}

#[derive(Default)]
struct SentPartition {
    /// Numbers of the lines in the order in which they were sent.
    numbers: Vec<u32>,
    /// The offset that each one's delivery named.
    offsets: Vec<i64>,
}

/// A running hash of each key's lines in order.
#[derive(Default)]
struct ByKey(HashMap<Vec<u8>, u64>);

impl ByKey {
    fn take(&mut self, key: &[u8], line: &[u8]) {
        let mut hasher = DefaultHasher::new();
        let hash = match self.0.get_mut(key) {
            Some(hash) => hash,
            None => self.0.entry(key.to_vec()).or_default(),
        };
        (*hash, line).hash(&mut hasher);
        *hash = hasher.finish();
    }
}

/// What was read of a partition so far.
#[derive(Default)]
struct Reading {
    /// Records that stand where their delivery said.
    kept: usize,
    /// Place, in the order of sending, of the last record.
    last: Option<usize>,
    /// Highest place so far.
    highest: Option<usize>,
    steps_back: usize,
    repeated: usize,
}

impl Reading {
    /// Takes the next record. Answers whether it stands where its delivery said.
    fn take(&mut self, sent: &SentPartition, offset: i64, line: &[u8]) -> bool {
        let number = number_of(line).expect("a whole line") as u32;
        // Lines are numbered in the order of the file, and each partition got its share in that order.
        let place = sent.numbers.binary_search(&number).expect("a line of this partition");
        let next = self.last.map_or(0, |last| last + 1);
        if place != next {
            let highest = self.highest.expect("a first record");
            assert!(place <= highest + 1, "at offset {offset} line {number} comes before its turn");
            self.steps_back += usize::from(place < next);
            assert!(place < next, "at offset {offset} line {number} leaves out lines after a repetition");
        }
        self.last = Some(place);
        self.highest = self.highest.max(Some(place));
        let named = sent.offsets[place];
        assert!(offset <= named, "line {number} stands at {offset}, after {named} where it was acknowledged");
        let stands_there = offset == named;
        self.kept += usize::from(stands_there);
        self.repeated += usize::from(!stands_there);
        stands_there
    }
}

fn produce_under_kills(node: &mut Node, path: &Path, lines: u64, seed: u64, retry_unknown: RetryUnknown) -> Sent {
    let deliveries: Arc<Mutex<Vec<Delivery>>> = Arc::default();
    let options = ProducerOptions { retry_unknown, ..ProducerOptions::default() };
    let told = deliveries.clone();
    let producer = Producer::with_deliveries(&node.bootstrap(), "access", options, move |delivery| {
        told.lock().expect("the list").push(delivery.clone());
    });
    let producer = producer.expect("connects the producer");
    let taken = AtomicU64::new(0);
    let mut sent = thread::scope(|scope| {
        let sending = scope.spawn(|| send_file(producer, path, &taken));
        kill_on_the_way(node, lines, seed, &taken);
        sending.join().expect("sends the file")
    });
    for delivery in deliveries.lock().expect("the list").iter() {
        let partition = &mut sent.partitions[delivery.partition as usize];
        let base = *delivery.outcome.as_ref().expect("none is left behind");
        let first = delivery.first as usize;
        assert_eq!(first, partition.offsets.len(), "deliveries of a partition come in order, each record in one");
        partition.offsets.extend((0..i64::from(delivery.count)).map(|place| base + place));
    }
    for partition in &sent.partitions {
        assert_eq!(partition.offsets.len(), partition.numbers.len(), "every record was delivered");
    }
    sent
}

/// Sends the whole file and waits for its last acknowledgement; counts lines in `taken` on the way.
fn send_file(producer: Producer, path: &Path, taken: &AtomicU64) -> Sent {
    let mut sent =
        Sent { partitions: (0..PARTITIONS).map(|_| SentPartition::default()).collect(), by_key: ByKey::default() };
    let mut file = BufReader::with_capacity(1 << 20, File::open(path).expect("opens the file"));
    let mut line = Vec::new();
    for number in 0.. {
        line.clear();
        if file.read_until(b'\n', &mut line).expect("reads the file") == 0 {
            break;
        }
        line.pop();
        let key = key_of(&line);
        let put = producer.send(NewRecord::new(&line).key(key)).expect("takes the record");
        let partition = &mut sent.partitions[put.partition as usize];
        assert_eq!(put.number as usize, partition.numbers.len());
        partition.numbers.push(number);
        sent.by_key.take(key, &line);
        taken.store(u64::from(number) + 1, Ordering::Relaxed);
    }
    producer.close().expect("all is acknowledged");
    sent
}

/// Kills and restarts the server at moments of the seed's choice, spread over the file.
fn kill_on_the_way(node: &mut Node, lines: u64, seed: u64, taken: &AtomicU64) {
    let mut chance = Chance(seed);
    let mut moments: Vec<u64> = (0..KILLS).map(|_| lines / 50 + chance.below(lines * 48 / 50)).collect();
    moments.sort_unstable();
    for moment in moments {
        while taken.load(Ordering::Relaxed) < moment {
            thread::sleep(Duration::from_millis(1));
        }
        thread::sleep(Duration::from_micros(chance.below(50_000)));
        node.kill();
        thread::sleep(Duration::from_millis(chance.below(200)));
        let took = node.restart(1);
        println!("killed at line {moment} of {lines}, served again {took:?} after its start");
    }
}
