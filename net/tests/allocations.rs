//! Produce, tail fetch and push ask nothing of the heap once a connection is warm: over real sockets, with the whole engine
//! below.
//!
//! Each run does the same a number of times; three times as many times may cost a few doublings more, not one a request.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use corelog_batch::{BatchBuilder, Codec};
use corelog_engine::metadata::Bounds;
use corelog_engine::reactor::{Reactor, mesh, ring, run_ring};
use corelog_engine::shard::{Envelope, FetchPath, GroupSettings, Shard, ShardConfig};
use corelog_net::limits::Limits;
use corelog_net::native::{Options, serve};
use corelog_net::transport::{Common, Ports};
use corelog_wire::*;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

const ROUNDS: usize = 100;
/// What lists that double may cost between so many rounds and three times as many.
const DOUBLINGS: u64 = 30;

#[test]
fn produce_tail_fetch_and_push_allocate_nothing() {
    let least = |rounds| (0..3).map(|_| allocations(rounds)).min().unwrap();
    let (few, many) = (least(ROUNDS), least(3 * ROUNDS));
    let more = many.saturating_sub(few);
    assert!(more <= DOUBLINGS, "{few} allocations for {ROUNDS} rounds, {many} for three times as many");
}

/// Allocations of the shard's thread for a run of so many rounds, its start and end included.
fn allocations(rounds: usize) -> u64 {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().to_owned();
    let options = ring::Options { log: |_| {}, ..ring::Options::default() };
    let run = move || run_ring(options, move |reactor| node(reactor, path, rounds)).unwrap();
    allocation_counter::measure(run).count_total
}

async fn node(reactor: Reactor, path: std::path::PathBuf, rounds: usize) {
    let mesh = mesh::build::<Envelope>(1, 16).pop().unwrap().attach(&reactor);
    let shard = Shard::start(reactor.clone(), mesh, config(&path)).await.unwrap();
    let listener = reactor.listen(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
    let address = listener.local_addr();
    let options = Options { host: String::new(), ports: Ports::new(1) };
    let server = serve(&Common::new(shard.clone(), Limits::default()), vec![listener], options);
    let client = thread::spawn(move || client(address, rounds));
    while !client.is_finished() {
        reactor.sleep(Duration::from_millis(1)).await;
    }
    client.join().unwrap();
    server.stop().await;
    shard.stop().await;
}

fn config(path: &Path) -> ShardConfig {
    ShardConfig {
        data_dir: path.join("data"),
        generation: 0,
        node: 1,
        journal_bytes: 16 << 20,
        entry_bytes_max: 4 << 20,
        commits_in_flight: 2,
        beside_bytes_min: 0,
        direct_bytes_min: 256 << 10,
        tail_bytes_max: 16 << 20,
        waiting_bytes_max: 8 << 20,
        read_bytes: 256 << 10,
        read_bytes_max: 8 << 20,
        fetch_path: FetchPath::default(),
        files_max: 16,
        // A checkpoint is no part of the path of a request.
        checkpoint_interval: Duration::from_secs(3600),
        retention_interval: Duration::from_secs(3600),
        compaction_interval: Duration::from_secs(3600),
        producer_expiration: Duration::from_secs(3600),
        producers_max: 1024,
        groups: GroupSettings::default(),
        disk_reserve_bytes: 0,
        bounds: Bounds::default(),
    }
}

/// Produces one batch a round, which a fetch waits for and a subscription is pushed.
fn client(address: SocketAddr, rounds: usize) {
    let (mut producer, mut fetcher) = (Connection::new(address), Connection::new(address));
    let create = CreateTopic { name: Text::new("t").unwrap(), partitions: 1, settings: List::default() };
    producer.call(Operation::CreateTopic, 0, &create, &[]);
    let open = Open { topic: Topic::Name(Text::new("t").unwrap()), partition: 0 };
    let produce_handle = producer.call(Operation::Open, 0, &open, &[]).handle;
    let fetch_handle = fetcher.call(Operation::Open, 0, &open, &[]).handle;
    let subscribe = Subscribe { offset: 0, credit: u32::MAX, bytes_max: 1 << 20 };
    producer.call(Operation::Subscribe, produce_handle, &subscribe, &[]);
    let mut builder = BatchBuilder::new(1 << 20, Codec::None);
    builder.append(None, Some(&[7; 1024]), &[], 0).unwrap();
    let batch = builder.build().unwrap();
    for round in 0..rounds {
        let fetch = Fetch { offset: round as i64, bytes_max: 1 << 20, bytes_min: 1, wait_ms: 30_000 };
        fetcher.send(Operation::Fetch, fetch_handle, &fetch, &[]);
        producer.send(Operation::Produce, produce_handle, &(), &batch);
        // The response and the push, in whichever order.
        let lengths = [producer.receive().length, producer.receive().length];
        assert_eq!(lengths.iter().sum::<u32>(), (RECORDS_BYTES + batch.len() + 24) as u32);
        assert_eq!(fetcher.receive().length as usize, RECORDS_BYTES + batch.len());
    }
}

struct Connection(TcpStream);

impl Connection {
    fn new(address: SocketAddr) -> Connection {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let mut connection = Connection(stream);
        let hello = Hello {
            magic: Magic,
            version_min: VERSION_MIN,
            version_max: VERSION_MAX,
            features: 0,
            software: Text::default(),
            client_id: Text::default(),
        };
        connection.call(Operation::Hello, 0, &hello, &[]);
        connection
    }

    fn send<'a>(&mut self, operation: Operation, handle: u32, body: &impl corelog_wire::Wire<'a>, extra: &[u8]) {
        let mut bytes = Vec::new();
        Header::request(operation, 1, handle).put(body, extra.len(), &mut bytes);
        bytes.extend_from_slice(extra);
        self.0.write_all(&bytes).unwrap();
    }

    fn receive(&mut self) -> Header {
        let mut header = [0; HEADER_BYTES];
        self.0.read_exact(&mut header).unwrap();
        let header = Header::parse(&header);
        assert_eq!(header.status, 0);
        let mut body = vec![0; header.length as usize];
        self.0.read_exact(&mut body).unwrap();
        header
    }

    fn call<'a>(
        &mut self,
        operation: Operation,
        handle: u32,
        body: &impl corelog_wire::Wire<'a>,
        extra: &[u8],
    ) -> Header {
        self.send(operation, handle, body, extra);
        self.receive()
    }
}
