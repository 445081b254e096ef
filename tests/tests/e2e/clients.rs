//! Two hundred clients at once, each with a producer of its own.

use super::{consume_all, create_topic};
use corelog_client::blocking::Producer;
use corelog_client::{NewRecord, ProducerOptions};
use corelog_tests::process::Node;
use std::sync::Barrier;
use std::thread;

const CLIENTS: usize = 200;
const RECORDS: usize = 100;

#[test]
fn two_hundred_clients_at_once_each_get_their_records_in_order() {
    let node = Node::start(2, &[]);
    create_topic(&node, "crowd", 8);
    let all_connected = Barrier::new(CLIENTS);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let (node, all_connected) = (&node, &all_connected);
            scope.spawn(move || produce(node, client, all_connected));
        }
    });
    let mut next = vec![0; CLIENTS];
    consume_all(&node, "crowd", |_, _, key, value| {
        let client: usize = std::str::from_utf8(key).expect("text").parse().expect("a client");
        let number: usize = std::str::from_utf8(value).expect("text").parse().expect("a number");
        assert_eq!(number, next[client], "client {client}");
        next[client] += 1;
    });
    assert!(next.iter().all(|count| *count == RECORDS), "{next:?}");
}

fn produce(node: &Node, client: usize, all_connected: &Barrier) {
    let producer = Producer::connect(&node.bootstrap(), "crowd", ProducerOptions::default()).expect("connects");
    all_connected.wait();
    let key = client.to_string();
    for number in 0..RECORDS {
        let value = number.to_string();
        producer.send(NewRecord::new(value.as_bytes()).key(key.as_bytes())).expect("takes the record");
    }
    producer.close().expect("all is acknowledged");
}
