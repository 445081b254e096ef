//! A node with the shipped engine and server in a simulated world, and a client that says exactly what a test wants.

use corelog_batch::{BatchBuilder, Codec};
use corelog_engine::metadata::{Bounds, Shown};
use corelog_engine::model::ShardId;
use corelog_engine::reactor::sim::{World, WorldOptions};
use corelog_engine::reactor::{Chunk, Outgoing, Reactor, Stream, mesh};
use corelog_engine::shard::{Envelope, FetchPath, GroupSettings, Shard, ShardConfig};
use corelog_net::admin::{self, Admin};
use corelog_net::kafka::{self, NodeSettings};
use corelog_net::limits::Limits;
use corelog_net::native::{Options, serve};
use corelog_net::transport::{Common, Ports, Server};
use corelog_wire::*;
use std::cell::{Cell, RefCell};
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;

const BOOTSTRAP_PORT: u16 = 7092;
const ADMIN_PORT: u16 = 7093;
/// Kafka's protocol at any shard, and behind it at each.
pub const KAFKA_PORT: u16 = 9092;
const POOL_BYTES: usize = 64 << 20;
const CLIENT_POOL_BYTES: usize = 64 << 20;
/// Of the world's time; a test that needs more hangs.
const TEST_TIME: Duration = Duration::from_secs(300);

/// What a test wants of the node.
#[derive(Debug, Clone)]
pub struct Setup {
    pub shards: u16,
    pub limits: Limits,
    pub config: ShardConfig,
    pub seed: u64,
}

impl Default for Setup {
    fn default() -> Setup {
        Setup { shards: 1, limits: Limits::default(), config: config(), seed: 7 }
    }
}

pub fn config() -> ShardConfig {
    ShardConfig {
        data_dir: PathBuf::from("data"),
        generation: 0,
        node: 1,
        journal_bytes: 8 << 20,
        entry_bytes_max: 1 << 20,
        commits_in_flight: 2,
        beside_bytes_min: 0,
        direct_bytes_min: 256 << 10,
        tail_bytes_max: 24 << 20,
        waiting_bytes_max: 8 << 20,
        read_bytes: 256 << 10,
        read_bytes_max: 8 << 20,
        fetch_path: FetchPath::default(),
        files_max: 16,
        checkpoint_interval: Duration::from_millis(200),
        retention_interval: Duration::from_secs(1),
        compaction_interval: Duration::from_secs(1),
        producer_expiration: Duration::from_secs(3600),
        producers_max: 1024,
        groups: GroupSettings::default(),
        disk_reserve_bytes: 1 << 20,
        bounds: Bounds::default(),
    }
}

/// The running node, for tests that look behind the protocol.
pub struct Node {
    pub shards: RefCell<Vec<Option<Shard>>>,
    pub servers: RefCell<Vec<Option<Server>>>,
    pub kafka_servers: RefCell<Vec<Server>>,
    admin: RefCell<Option<Admin>>,
    failed: RefCell<Option<String>>,
}

/// Where a test's client stands.
#[derive(Clone)]
pub struct Client {
    pub reactor: Reactor,
    pub node: Rc<Node>,
    host: std::net::IpAddr,
}

/// Runs a node and, once it serves, a client.
pub fn run<F: Future<Output = ()> + 'static>(setup: Setup, script: impl FnOnce(Client) -> F + 'static) {
    let world = World::new(setup.seed, WorldOptions::default());
    let (server, client) = (world.add_node("server"), world.add_client("client"));
    let host = world.address(server);
    let shards = usize::from(setup.shards);
    let node = Rc::new(Node {
        shards: RefCell::new(vec![None; shards]),
        servers: RefCell::new((0..shards).map(|_| None).collect()),
        kafka_servers: RefCell::default(),
        admin: RefCell::default(),
        failed: RefCell::default(),
    });
    let ports = [Ports::new(setup.shards), Ports::new(setup.shards)];
    for (shard, mesh) in mesh::build::<Envelope>(setup.shards, 1024).into_iter().enumerate() {
        let (setup, node, ports) = (setup.clone(), node.clone(), ports.clone());
        world.start_shard(server, ShardId(shard as u16), setup.shards, POOL_BYTES, move |reactor| async move {
            if let Err(error) = run_shard(&reactor, mesh, setup, ports, &node, host).await {
                *node.failed.borrow_mut() = Some(error);
            }
            pending::<()>().await;
        });
    }
    let serving = node.clone();
    let is_up = move || serving.servers.borrow().iter().all(Option::is_some) || serving.failed.borrow().is_some();
    assert!(world.run_until(TEST_TIME, is_up), "the node did not start");
    assert_eq!(*node.failed.borrow(), None);
    let done = Rc::new(Cell::new(false));
    let told = done.clone();
    world.start_shard(client, ShardId(0), 1, CLIENT_POOL_BYTES, move |reactor| async move {
        script(Client { reactor, node, host }).await;
        told.set(true);
        pending::<()>().await;
    });
    assert!(world.run_until(TEST_TIME, || done.get()), "the test's client did not get to its end");
}

/// The same with what most tests need.
pub fn run_default<F: Future<Output = ()> + 'static>(script: impl FnOnce(Client) -> F + 'static) {
    run(Setup::default(), script);
}

async fn run_shard(
    reactor: &Reactor,
    mesh: mesh::Mesh<Envelope>,
    setup: Setup,
    [ports, kafka_ports]: [Ports; 2],
    node: &Node,
    host: std::net::IpAddr,
) -> Result<(), String> {
    let mesh = mesh.attach(reactor);
    let shard = Shard::start(reactor.clone(), mesh, setup.config).await.map_err(|error| error.to_string())?;
    let number = usize::from(shard.id().0);
    let own = reactor.listen(SocketAddr::new(host, 0)).await.map_err(|error| error.to_string())?;
    ports.set(shard.id(), own.local_addr().port());
    let shared = reactor.listen(SocketAddr::new(host, BOOTSTRAP_PORT)).await.map_err(|error| error.to_string())?;
    let options = Options { host: String::new(), ports };
    let common = Common::new(shard.clone(), setup.limits);
    let server = serve(&common, vec![own, shared], options);
    let kafka_port = KAFKA_PORT + 1 + shard.id().0;
    let mut listeners = Vec::new();
    for port in [KAFKA_PORT, kafka_port] {
        listeners.push(reactor.listen(SocketAddr::new(host, port)).await.map_err(|error| error.to_string())?);
    }
    kafka_ports.set(shard.id(), kafka_port);
    let shown = vec![Shown { key: "num.partitions", value: "1".into(), is_default: true }];
    let told = NodeSettings { creates_topics: true, partitions: 1, shown: shown.into() };
    let options = kafka::Options { host: host.to_string(), ports: kafka_ports, node: told };
    node.kafka_servers.borrow_mut().push(kafka::serve(&common, listeners, options));
    if number == 0 {
        let listener = reactor.listen(SocketAddr::new(host, ADMIN_PORT)).await.map_err(|error| error.to_string())?;
        *node.admin.borrow_mut() = Some(admin::serve(shard.clone(), listener));
    }
    node.shards.borrow_mut()[number] = Some(shard);
    node.servers.borrow_mut()[number] = Some(server);
    Ok(())
}

impl Client {
    /// A connection to the bootstrap port that has not said anything.
    pub async fn dial(&self) -> Wire {
        self.dial_port(BOOTSTRAP_PORT).await
    }

    pub async fn dial_port(&self, port: u16) -> Wire {
        let stream = self.reactor.connect(SocketAddr::new(self.host, port)).await.unwrap();
        Wire { reactor: self.reactor.clone(), stream, received: Vec::new(), correlation: 0 }
    }

    /// What the node answers over HTTP to these bytes, to the end of the connection.
    pub async fn http(&self, request: &str) -> String {
        let mut wire = self.dial_port(ADMIN_PORT).await;
        wire.send(request.as_bytes()).await;
        let mut answer = Vec::new();
        while let Ok(Some(chunk)) = wire.stream.receive().await {
            answer.extend_from_slice(&chunk);
        }
        String::from_utf8(answer).unwrap()
    }

    /// A connection that was welcomed.
    pub async fn connect(&self) -> Wire {
        let mut wire = self.dial().await;
        wire.greet().await;
        wire
    }

    /// The same to the port of one shard.
    pub async fn connect_to(&self, shard: u16) -> Wire {
        let mut any = self.connect().await;
        let frame = any.call(Operation::Metadata, 0, &MetadataRequest { topics: Selection::None }).await;
        let Response::Metadata(metadata) = frame.response() else { panic!("{frame:?}") };
        let port = metadata.endpoints.iter().find(|endpoint| endpoint.shard == shard).unwrap().port;
        let mut wire = self.dial_port(port).await;
        assert_eq!(wire.greet().await, shard);
        wire
    }

    pub async fn sleep(&self, time: Duration) {
        self.reactor.sleep(time).await;
    }

    /// A connection with a topic of its own and handles of its partitions.
    pub async fn with_topic(&self, name: &str, partitions: u32) -> (Wire, Vec<u32>) {
        let mut wire = self.connect().await;
        wire.create(name, partitions, &[]).await;
        let mut handles = Vec::new();
        for partition in 0..partitions {
            handles.push(wire.open(name, partition).await);
        }
        (wire, handles)
    }

    /// Whether the server serves somebody else.
    pub async fn assert_server_is_well(&self) {
        let mut wire = self.connect().await;
        let pong = wire.call(Operation::Ping, 0, &()).await;
        assert_eq!(pong.response(), Response::Ping);
    }

    pub fn connections(&self) -> usize {
        self.node.servers.borrow().iter().flatten().map(Server::connections).sum()
    }
}

/// A connection of the client's.
pub struct Wire {
    pub reactor: Reactor,
    pub stream: Stream,
    received: Vec<u8>,
    correlation: u32,
}

/// A frame that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub header: Header,
    pub body: Vec<u8>,
}

impl Received {
    pub fn response(&self) -> Response<'_> {
        Response::decode(&Frame { header: self.header, body: &self.body }).unwrap()
    }

    pub fn status(&self) -> Status {
        Status::from_code(self.header.status).unwrap()
    }

    pub fn status_or_ok(&self) -> Option<Status> {
        Some(self.status()).filter(|status| *status != Status::Ok)
    }

    pub fn failure(&self) -> Failure<'_> {
        let Response::Failed(failure) = self.response() else { panic!("it did not fail: {self:?}") };
        failure
    }

    pub fn batches(&self) -> Batches<'_> {
        match self.response() {
            Response::Fetch(batches) | Response::Push(batches) => batches,
            other => panic!("no batches: {other:?}"),
        }
    }
}

impl Wire {
    pub async fn send(&mut self, bytes: &[u8]) {
        assert!(self.try_send(bytes).await.is_ok(), "the server closed the connection");
    }

    pub async fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let mut out = Outgoing::new();
        for piece in bytes.chunks(1 << 20) {
            let mut buffer = self.reactor.pool().buffer(piece.len()).unwrap();
            buffer.copy_from_slice(piece);
            out.push(buffer.freeze());
        }
        self.stream.send(out).await.0
    }

    /// Sends a request and returns its correlation.
    pub async fn ask<'a>(&mut self, operation: Operation, handle: u32, body: &impl corelog_wire::Wire<'a>) -> u32 {
        self.correlation += 1;
        let mut bytes = Vec::new();
        Header::request(operation, self.correlation, handle).put(body, 0, &mut bytes);
        self.send(&bytes).await;
        self.correlation
    }

    pub async fn ask_produce(&mut self, handle: u32, flags: u8, batches: &[u8]) -> u32 {
        self.correlation += 1;
        let bytes = frame(Operation::Produce, self.correlation, handle, flags, batches);
        self.send(&bytes).await;
        self.correlation
    }

    /// The next frame, or None at the end of the connection.
    pub async fn next(&mut self) -> Option<Received> {
        loop {
            if let Some(frame) = Frame::first(&self.received, u32::MAX).unwrap() {
                let (received, size) = (Received { header: frame.header, body: frame.body.to_vec() }, frame.size());
                self.received.drain(..size);
                assert!(received.header.is_response());
                return Some(received);
            }
            let chunk: Chunk = self.stream.receive().await.ok().flatten()?;
            self.received.extend_from_slice(&chunk);
        }
    }

    /// The next frame, which must answer this request.
    pub async fn answer(&mut self, correlation: u32) -> Received {
        let received = self.next().await.expect("the server closed the connection");
        assert_eq!(received.header.correlation, correlation, "{received:?}");
        received
    }

    pub async fn call<'a>(
        &mut self,
        operation: Operation,
        handle: u32,
        body: &impl corelog_wire::Wire<'a>,
    ) -> Received {
        let correlation = self.ask(operation, handle, body).await;
        self.answer(correlation).await
    }

    /// Says hello; returns the shard that serves this connection.
    pub async fn greet(&mut self) -> u16 {
        let answer = self.call(Operation::Hello, 0, &hello(VERSION_MIN, VERSION_MAX)).await;
        let Response::Hello(welcome) = answer.response() else { panic!("{answer:?}") };
        assert_eq!(welcome.version, VERSION_MAX);
        welcome.shard
    }

    pub async fn create(&mut self, name: &str, partitions: u32, settings: &[(&str, &str)]) -> Received {
        let settings: Vec<_> =
            settings.iter().map(|(key, value)| Setting { key: text(key), value: text(value) }).collect();
        let create = CreateTopic { name: text(name), partitions, settings: List::of(&settings) };
        self.call(Operation::CreateTopic, 0, &create).await
    }

    pub async fn try_open(&mut self, name: &str, partition: u32) -> Received {
        self.call(Operation::Open, 0, &Open { topic: Topic::Name(text(name)), partition }).await
    }

    pub async fn open(&mut self, name: &str, partition: u32) -> u32 {
        let opened = self.try_open(name, partition).await;
        assert!(matches!(opened.response(), Response::Open(_)), "{opened:?}");
        opened.header.handle
    }

    pub async fn produce(&mut self, handle: u32, batches: &[u8]) -> Received {
        let correlation = self.ask_produce(handle, 0, batches).await;
        self.answer(correlation).await
    }

    /// Produces values as one batch; returns the offset of the first.
    pub async fn put(&mut self, handle: u32, values: &[&str]) -> i64 {
        let answer = self.produce(handle, &batch(values)).await;
        let Response::Produce(produced) = answer.response() else { panic!("{answer:?}") };
        assert_eq!(produced.last, produced.base + values.len() as i64 - 1);
        produced.base
    }

    pub async fn fetch(&mut self, handle: u32, offset: i64, wait_ms: u32) -> Received {
        let fetch = Fetch { offset, bytes_max: 1 << 20, bytes_min: 1, wait_ms };
        self.call(Operation::Fetch, handle, &fetch).await
    }

    /// Asserts that the server ends the connection, and that nothing more comes.
    pub async fn assert_ends(&mut self) {
        assert_eq!(self.next().await, None);
    }
}

pub fn hello(version_min: u16, version_max: u16) -> Hello<'static> {
    Hello {
        magic: Magic,
        version_min,
        version_max,
        features: u64::MAX,
        software: text("test/1"),
        client_id: Text::default(),
    }
}

pub fn text(text: &str) -> Text<'_> {
    Text::new(text).unwrap()
}

pub fn frame(operation: Operation, correlation: u32, handle: u32, flags: u8, body: &[u8]) -> Vec<u8> {
    let header = Header { flags, length: body.len() as u32, ..Header::request(operation, correlation, handle) };
    [&header.to_bytes()[..], body].concat()
}

/// A batch of these values.
pub fn batch<T: AsRef<[u8]>>(values: &[T]) -> Vec<u8> {
    let mut builder = BatchBuilder::new(16 << 20, Codec::None);
    for value in values {
        builder.append(None, Some(value.as_ref()), &[], 1_700_000_000_000).unwrap();
    }
    builder.build().unwrap()
}

/// Offsets and values of the records in whole batches.
pub fn records(batches: &[u8]) -> Vec<(i64, Vec<u8>)> {
    let (mut found, mut scratch) = (Vec::new(), Vec::new());
    for batch in corelog_batch::batches(batches) {
        for record in batch.unwrap().records(&mut scratch, 16 << 20).unwrap() {
            let record = record.unwrap();
            found.push((record.offset, record.value.unwrap_or_default().to_vec()));
        }
    }
    found
}
