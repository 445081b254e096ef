//! A request in the steady state takes nothing from the heap: a whole node in this process, driven over the wire, with an
//! allocator that counts what the shard's thread asks for.
//!
//! Time is cut into windows of many requests. Work that is not a request's (a checkpoint, a segment made ready ahead)
//! may allocate in some of them; if a request did, there would be no window without.

#![allow(clippy::expect_used, clippy::panic, reason = "a test that meets what it did not expect should end there")]

use corelog_batch::{BatchBuilder, Codec};
use corelog_bench::load::{self, Count, Lane, Pace, Plan, Span};
use corelog_bench::{Connection, Embedded};
use corelog_tests::process::scratch;
use corelog_wire::{Batches, Credit, Fetch, Operation, Produced, Subscribe};
use corelog_yardstick::heap::{Counting, allocations, is_installed};
use std::time::Duration;

#[global_allocator]
static HEAP: Counting = Counting;

const WINDOWS: usize = 40;
/// Requests of a window.
const REQUESTS: u64 = 20;

/// One test, because two nodes would be counted together.
#[test]
fn requests_in_the_steady_state_do_not_allocate() {
    assert!(is_installed());
    let scratch = scratch();
    let node = Embedded::start(scratch.path()).expect("a node");
    let batch = batch();
    let mut partition = Partition::create(&node, "steady");
    expect_quiet("produce, one at a time", || {
        counted(|| {
            partition.produce(&batch);
        })
    });
    expect_quiet("produce, 8 connections with 4 in flight each", || loaded(&node, &batch));
    expect_quiet("fetch of what is there", || {
        counted(|| {
            let offset = partition.produce(&batch).base;
            partition.fetch(offset);
        })
    });
    expect_quiet("fetch that waits", || {
        counted(|| {
            let end = partition.produce(&batch).last + 1;
            partition.fetch_then_produce(end, &batch);
        })
    });
    let mut reader = Reader::subscribe(&node, "steady");
    expect_quiet("push", || {
        counted(|| {
            partition.produce(&batch);
            reader.receive();
        })
    });
    node.stop().expect("ends in order");
}

struct Window {
    requests: u64,
    allocations: u64,
}

/// A window of [`REQUESTS`] requests.
fn counted(mut request: impl FnMut()) -> Window {
    let before = allocations();
    (0..REQUESTS).for_each(|_| request());
    Window { requests: REQUESTS, allocations: allocations() - before }
}

/// Runs `window` often enough to warm everything up, then counts; an eighth of the windows at least must be without an
/// allocation. A request that allocates does so in each; a checkpoint takes some twenty, in more than half of the windows where
/// the disk is slow.
fn expect_quiet(what: &str, mut window: impl FnMut() -> Window) {
    (0..WINDOWS).for_each(|_| {
        window();
    });
    let windows: Vec<Window> = (0..WINDOWS).map(|_| window()).collect();
    let counts: Vec<u64> = windows.iter().map(|window| window.allocations).collect();
    let requests: u64 = windows.iter().map(|window| window.requests).sum();
    println!("{what}: {requests} requests, allocations by window {counts:?}");
    let quiet = counts.iter().filter(|count| **count == 0).count();
    assert!(quiet * 8 >= WINDOWS, "{what}: only {quiet} of {WINDOWS} windows without an allocation: {counts:?}");
}

/// A partition, open on a connection of its own.
struct Partition {
    connection: Connection,
    handle: u32,
}

impl Partition {
    fn create(node: &Embedded, topic: &str) -> Partition {
        let mut connection = Connection::open(node.address()).expect("connects");
        connection.create_topic(topic, 1, &[]).expect("creates the topic");
        Partition::open(node, topic)
    }

    fn open(node: &Embedded, topic: &str) -> Partition {
        let mut connection = Connection::open(node.address()).expect("connects");
        let (handle, _) = connection.open_partition(topic, 0).expect("opens the partition");
        Partition { connection, handle }
    }

    fn produce(&mut self, batch: &[u8]) -> Produced {
        self.connection.call(Operation::Produce, self.handle, &(), batch).expect("is acknowledged");
        self.connection.decode(Operation::Produce).expect("an acknowledgement")
    }

    fn fetch(&mut self, offset: i64) {
        let fetch = Fetch { offset, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 5000 };
        self.connection.call(Operation::Fetch, self.handle, &fetch, &[]).expect("is answered");
        self.expect_records();
    }

    /// Asks for what is not there yet, then produces it: two answers, in either order.
    fn fetch_then_produce(&mut self, offset: i64, batch: &[u8]) {
        let fetch = Fetch { offset, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 5000 };
        self.connection.send(Operation::Fetch, self.handle, &fetch, &[]).expect("asks");
        self.connection.send(Operation::Produce, self.handle, &(), batch).expect("produces");
        for _ in 0..2 {
            let answer = self.connection.receive().expect("an answer");
            assert_eq!(answer.status, 0);
            if answer.operation == Operation::Fetch as u8 {
                self.expect_records();
            }
        }
    }

    fn expect_records(&self) {
        let batches = Batches::decode(self.connection.body()).expect("records");
        assert!(!batches.bytes.is_empty(), "the records are there");
    }
}

/// A subscription from the end.
struct Reader {
    partition: Partition,
    subscription: u32,
}

impl Reader {
    fn subscribe(node: &Embedded, topic: &str) -> Reader {
        let mut partition = Partition::open(node, topic);
        let (_, opened) = partition.connection.open_partition(topic, 0).expect("opens the partition");
        let subscribe = Subscribe { offset: opened.high_watermark, credit: 1 << 20, bytes_max: 1 << 20 };
        let answer = partition.connection.call(Operation::Subscribe, partition.handle, &subscribe, &[]);
        Reader { subscription: answer.expect("subscribes").handle, partition }
    }

    fn receive(&mut self) {
        assert_eq!(self.partition.connection.receive().expect("a push").status, 0);
        let bytes = Batches::decode(self.partition.connection.body()).expect("records").bytes.len();
        let credit = Credit { bytes: bytes as u32 };
        self.partition.connection.send(Operation::Credit, self.subscription, &credit, &[]).expect("credits");
    }
}

/// The load driver for a moment; what its connections cost to be made is not counted.
fn loaded(node: &Embedded, batch: &[u8]) -> Window {
    let lane = |_| {
        let Partition { connection, handle } = Partition::open(node, "steady");
        Lane { stream: connection.into_stream(), handles: vec![handle] }
    };
    let span = Span { warm_up: Duration::from_millis(20), measured: Duration::from_millis(30) };
    let lanes = (0..8).map(lane).collect();
    let plan = Plan { bodies: &[batch.to_vec()], pace: Pace::Closed { window: 4 }, span, stamped: false };
    let load = load::run(lanes, plan, &mut Count(|| Ok(allocations()))).expect("loads");
    Window { requests: load.requests, allocations: load.probed }
}

fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(64 << 10, Codec::None);
    builder.append(Some(b"key"), Some(&[7; 1000]), &[], 1_700_000_000_000).expect("fits");
    builder.build().expect("builds")
}
