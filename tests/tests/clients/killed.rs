//! The server is killed under producers that number their batches: no record is missing, and none is there twice.

use super::programs::{CODECS, Client, Running, clients};
use super::records::{Written, an_hour_ago, expected, lines, read_natively};
use corelog_client::ConnectOptions;
use corelog_client::blocking::Admin;
use corelog_tests::process::Node;
use corelog_tests::serving::{PATIENCE, SHARDS, create_topic, start};
use std::io::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

const KILLS: usize = 4;
const PARTITIONS: u32 = 3;
/// A producer is given so many records, then pauses, so that it has some on their way at any time.
const AT_A_TIME: usize = 5;
const PAUSE: Duration = Duration::from_millis(10);

#[test]
fn numbered_producers_outlive_kills() {
    let clients: Vec<Client> = clients().into_iter().filter(|client| client.is_idempotent).collect();
    let (mut node, address) = start();
    for client in &clients {
        create_topic(&node, client.name, PARTITIONS, &[]);
    }
    let is_over = AtomicBool::new(false);
    let sent: Vec<Vec<Written>> = thread::scope(|scope| {
        let is_over = &is_over;
        let feed = |(client, codec)| scope.spawn(move || feed(address, client, codec, is_over));
        let producers: Vec<_> = clients.iter().zip(CODECS.into_iter().cycle()).map(feed).collect();
        let killing = scope.spawn(|| {
            for _ in 0..KILLS {
                all_go_on(&node, &clients);
                node.kill();
                node.restart(SHARDS);
            }
            all_go_on(&node, &clients);
        });
        // Also when that failed, or the producers would go on for good.
        let killed = killing.join();
        is_over.store(true, Ordering::Relaxed);
        killed.expect("producers that go on behind a kill");
        producers.into_iter().map(|producer| producer.join().expect("a producer that writes all")).collect()
    });
    for (client, sent) in clients.iter().zip(sent) {
        let (found, sent) = (read_natively(&node, client.name), expected(client.name, &sent));
        let differ = found.iter().zip(&sent).find(|(found, sent)| found != sent);
        assert!(differ.is_none(), "{}: found and sent differ: {differ:#?}", client.name);
        assert_eq!(found.len(), sent.len(), "{}", client.name);
    }
    node.stop();
}

/// Gives a producer records until it is over, and waits until it has written them. Which they were.
fn feed(address: SocketAddr, client: &Client, codec: &str, is_over: &AtomicBool) -> Vec<Written> {
    let mut producer = Running::start(client, address, &["write", client.name, codec]);
    let mut sent = Vec::new();
    while !is_over.load(Ordering::Relaxed) {
        let some: Vec<Written> = (sent.len()..sent.len() + AT_A_TIME).map(numbered).collect();
        if producer.input().write_all(lines(&some).as_bytes()).is_err() {
            break; // it ended, and its status says how
        }
        sent.extend(some);
        thread::sleep(PAUSE);
    }
    producer.end();
    sent
}

fn numbered(number: usize) -> Written {
    let value = Some(number.to_string().into_bytes());
    Written { partition: number as u32 % PARTITIONS, timestamp: an_hour_ago(), value, ..Written::default() }
}

/// Waits until each client has written more than it had: the next kill then meets all of them at work.
fn all_go_on(node: &Node, clients: &[Client]) {
    let mut admin = Admin::connect(&node.bootstrap(), ConnectOptions::default()).expect("connects");
    let mut written = |client: &Client| -> i64 {
        let topic = admin.describe_topic(client.name).expect("the topic");
        topic.partitions.iter().map(|partition| partition.next).sum()
    };
    let before: Vec<i64> = clients.iter().map(&mut written).collect();
    let began = Instant::now();
    for (client, before) in clients.iter().zip(before) {
        while written(client) <= before {
            assert!(began.elapsed() < PATIENCE, "{} does not go on", client.name);
            thread::sleep(PAUSE);
        }
    }
}
