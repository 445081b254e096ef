//! A real server that serves Kafka's protocol too, and its topics as the native client sees them.

use crate::process::Node;
use corelog_client::blocking::{Admin, Consumer};
use corelog_client::{ConnectOptions, ConsumerOptions, Record};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

/// How many shards it has, each with a port of its own.
pub const SHARDS: u16 = 2;

/// Without a record for so long a consumer is stuck. The tests share two cores and a disk with each other.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A server, and where it speaks Kafka's protocol, also after a restart.
pub fn start() -> (Node, SocketAddr) {
    start_with(&[])
}

/// The same with more arguments.
pub fn start_with(more: &[&str]) -> (Node, SocketAddr) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_ports()));
    let listen = address.to_string();
    let usual = ["--memory", "1GiB", "--kafka-listen", &listen, "--compaction-interval", "50ms"];
    let node = Node::start(SHARDS, &[&usual[..], more].concat());
    // The native protocol's port, for which starting waits, may be first.
    let began = Instant::now();
    while let Err(error) = TcpStream::connect(address) {
        assert!(began.elapsed() < PATIENCE, "Kafka's port: {error}");
        std::thread::sleep(Duration::from_millis(5));
    }
    (node, address)
}

/// The first of as many ports as the server takes: one for all shards, and one for each.
fn free_ports() -> u16 {
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let chosen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let firsts = (0..100).map(|_| chosen().expect("a free port").port()).filter(|first| *first < u16::MAX - SHARDS);
    let found = firsts.into_iter().find(|first| (*first..=first + SHARDS).all(|port| is_free(&port)));
    found.expect("free ports one behind the other")
}

/// Creates a topic.
pub fn create_topic(node: &Node, topic: &str, partitions: u32, settings: &[(&str, &str)]) {
    let mut admin = Admin::connect(&node.bootstrap(), ConnectOptions::default()).expect("connects");
    admin.create_topic(topic, partitions, settings).expect("creates the topic");
}

/// Hands every record of a topic to `take`, with its partition. Ends at what was the end when it began.
pub fn consume(node: &Node, topic: &str, options: ConsumerOptions, mut take: impl FnMut(u32, &Record<'_>)) {
    let mut consumer = Consumer::connect(&node.bootstrap(), topic, options).expect("connects the consumer");
    while !consumer.at_end() {
        let Some(fetched) = consumer.poll(PATIENCE).expect("polls") else {
            panic!("nothing came for {PATIENCE:?}, and the end is not reached");
        };
        for record in fetched.records() {
            take(fetched.partition(), &record.expect("a whole record"));
        }
    }
}
