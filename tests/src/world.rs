//! A node that runs the shipped engine in a simulated world, and what its clients share across its crashes.

use crate::clients::{self, Load};
use crate::invariants::{Event, Observer};
use crate::keyed::Keyed;
use crate::native::{self, Natives};
use crate::numbered::Numbered;
use crate::sometimes;
use corelog_engine::error::ShardError;
use corelog_engine::metadata::Bounds;
use corelog_engine::model::{PartitionId, ShardId};
use corelog_engine::reactor::Reactor;
use corelog_engine::reactor::mesh;
use corelog_engine::reactor::sim::{CrashKind, NodeId, World};
use corelog_engine::shard::{Envelope, FetchPath, GroupSettings, Shard, ShardConfig};
use corelog_net::limits::Limits;
use corelog_net::native::{Options, serve};
use corelog_net::transport::{self, Common, Ports};
use std::cell::{Cell, RefCell};
use std::future::pending;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

/// Messages under way between two shards.
const MESH_MESSAGES: usize = 1024;

/// The port that all shards serve.
pub const BOOTSTRAP_PORT: u16 = 7092;
/// The own port of shard 0; the others' follow.
pub const SHARD_PORT: u16 = 7100;
/// Bytes of the pool of the native clients' node.
const CLIENT_POOL_BYTES: usize = 32 << 20;

/// One node with the engine on it.
pub struct Server {
    /// The world that it lives in.
    pub world: World,
    /// Which node it is.
    pub node: NodeId,
    /// What the clients share.
    pub shared: Rc<Shared>,
    /// Bytes of a shard's pool.
    pub pool_bytes: usize,
    config: ShardConfig,
    /// The native clients' node, if there are any.
    pub clients: Option<NodeId>,
}

/// What outlives the node's crashes: what clients remember, and how hard they work.
pub struct Shared {
    /// Hears of everything.
    pub observer: Observer,
    /// What the clients do.
    pub load: RefCell<Load>,
    /// The shards that run, by number.
    pub shards: RefCell<Vec<Option<Shard>>>,
    /// Why a start failed.
    pub start_error: RefCell<Option<ShardError>>,
    /// Numbers of appends: the producer in the upper bits, so that one producer's are in order.
    appends: Cell<u64>,
    producers: Cell<u64>,
    /// Producers that number their batches.
    pub(crate) numbered: RefCell<Numbered>,
    /// What was sent to the topic that is compacted.
    pub(crate) keyed: RefCell<Keyed>,
    /// Appends that nobody has heard of yet: producers count up and down.
    pub outstanding: Cell<u64>,
    /// Acknowledged so far.
    pub acknowledged: Cell<u64>,
    /// Read so far, in records.
    pub records_read: Cell<u64>,
    /// What the native clients show of themselves.
    pub natives: Natives,
}

const PRODUCER_BITS: u32 = 24;

impl Shared {
    fn new(load: Load) -> Rc<Shared> {
        Rc::new(Shared {
            observer: Observer::default(),
            load: RefCell::new(load),
            shards: RefCell::default(),
            start_error: RefCell::default(),
            appends: Cell::new(0),
            producers: Cell::new(0),
            numbered: RefCell::default(),
            keyed: RefCell::default(),
            outstanding: Cell::new(0),
            acknowledged: Cell::new(0),
            records_read: Cell::new(0),
            natives: Natives::default(),
        })
    }

    /// A number for a producer that begins.
    pub fn new_producer(&self) -> u64 {
        self.producers.set(self.producers.get() + 1);
        self.producers.get()
    }

    /// A number for an append: greater than all before of the same producer.
    pub fn new_append(&self, producer: u64) -> u64 {
        self.appends.set(self.appends.get() + 1);
        producer << (64 - PRODUCER_BITS) | self.appends.get()
    }
}

/// Who made an append.
pub fn producer_of(append: u64) -> u64 {
    append >> (64 - PRODUCER_BITS)
}

impl Server {
    /// A node with an empty disk, which is not started.
    pub fn new(world: World, config: ShardConfig, pool_bytes: usize, load: Load) -> Server {
        let node = world.add_node("server");
        Server { world, node, shared: Shared::new(load), pool_bytes, config, clients: None }
    }

    /// From the next start on the node serves the native protocol, to so many clients on a node of their own.
    pub fn serve_natives(&mut self, producers: usize, consumers: usize) {
        let clients = self.world.add_client("clients");
        let (shared, server) = (self.shared.clone(), self.world.address(self.node));
        self.world.start_shard(clients, ShardId(0), 1, CLIENT_POOL_BYTES, move |reactor| {
            native::run(reactor, shared, server, producers, consumers)
        });
        self.clients = Some(clients);
        self.shared.natives.are_served.set(true);
    }

    /// What the connections of a shard may take: little, so that every bound is met.
    pub(crate) fn limits() -> Limits {
        Limits {
            body_bytes_max: 320 << 10,
            frame_bytes_max: 512 << 10,
            requests_max: 32,
            request_bytes_max: 256 << 10,
            outgoing_bytes_max: 128 << 10,
            shard_outgoing_bytes_max: 1 << 20,
            fetch_bytes_max: 256 << 10,
            ..Limits::default()
        }
    }

    /// Bounds that fit a few small shards: everything that can fill up does so soon.
    pub fn small_config() -> ShardConfig {
        ShardConfig {
            data_dir: PathBuf::from("data"),
            generation: 0,
            node: 1,
            journal_bytes: 1 << 20,
            entry_bytes_max: 128 << 10,
            commits_in_flight: 2,
            beside_bytes_min: 0,
            direct_bytes_min: 32 << 10,
            tail_bytes_max: 2 << 20,
            waiting_bytes_max: 1 << 20,
            read_bytes: 64 << 10,
            read_bytes_max: 1 << 20,
            fetch_path: FetchPath::default(),
            files_max: 8,
            checkpoint_interval: Duration::from_millis(200),
            retention_interval: Duration::from_millis(100),
            compaction_interval: Duration::from_millis(100),
            producer_expiration: Duration::from_secs(3600),
            producers_max: 1024,
            groups: GroupSettings::default(),
            disk_reserve_bytes: 8 << 20,
            bounds: Bounds::default(),
        }
    }

    /// Starts the node with so many shards. They are not ready when this returns.
    pub fn start(&self, shards: u16) {
        *self.shared.shards.borrow_mut() = vec![None; usize::from(shards)];
        *self.shared.start_error.borrow_mut() = None;
        let address = self.clients.map(|_| self.world.address(self.node));
        let ports = Ports::new(shards);
        for (shard, mesh) in mesh::build::<Envelope>(shards, MESH_MESSAGES).into_iter().enumerate() {
            let (shared, config, shard) = (self.shared.clone(), self.config.clone(), ShardId(shard as u16));
            let serving = address.map(|address| Serving { address, ports: ports.clone() });
            self.world.start_shard(self.node, shard, shards, self.pool_bytes, move |reactor| {
                run_shard(reactor, mesh, config, shared, serving)
            });
        }
    }

    /// Waits until the node serves. False if it did not within `limit`, or a shard refused to start.
    pub fn wait_ready(&self, limit: Duration) -> bool {
        let shared = self.shared.clone();
        let ready = move || shared.shards.borrow().iter().all(Option::is_some) || shared.start_error.borrow().is_some();
        self.world.run_until(limit, ready) && self.shared.start_error.borrow().is_none()
    }

    /// Crashes the node, and tells.
    pub fn crash(&self, kind: CrashKind) {
        self.shared.natives.disturb(true);
        self.world.crash(self.node, kind);
        self.shared.shards.borrow_mut().iter_mut().for_each(|shard| *shard = None);
        self.shared.outstanding.set(0);
        self.shared.observer.tell(&Event::Crashed { kind });
        match kind {
            CrashKind::Kill => sometimes!("the process was killed"),
            CrashKind::PowerCut => sometimes!("the power was cut"),
        }
    }

    /// Stops the node in order. False if it takes longer than `limit`.
    pub fn stop(&self, limit: Duration) -> bool {
        self.shared.load.borrow_mut().stopping = true;
        let stopped = self.world.run_until(limit, || !self.world.is_up(self.node));
        self.shared.load.borrow_mut().stopping = false;
        self.shared.shards.borrow_mut().iter_mut().for_each(|shard| *shard = None);
        // Clients that ended before their answers came.
        self.shared.outstanding.set(0);
        sometimes!("the node was stopped in order", stopped);
        stopped
    }

    /// The shard that owns a partition, if it runs.
    pub fn owner(&self, partition: PartitionId) -> Option<Shard> {
        let shards = self.shared.shards.borrow();
        let first = shards.first()?.as_ref()?;
        let owner = first.owner(partition.topic, partition.index)?;
        shards.get(usize::from(owner.0))?.clone()
    }

    /// Names of the files of a directory of the node.
    pub fn files(&self, path: &str) -> Vec<String> {
        self.world.list_dir(self.node, Path::new(path)).into_iter().map(|(name, _)| name).collect()
    }
}

/// Tells how far the partitions of a shard go.
pub fn tell_extents(shard: &Shard, observer: &Observer) {
    let partitions: Vec<PartitionId> = shard.catalog().owned_by(shard.id(), shard.shards()).map(|(id, _)| id).collect();
    for partition in partitions {
        let Some(status) = shard.open(partition).and_then(|handle| shard.describe(handle)) else {
            observer.broken_by(format!("{partition} is not at its owner"));
            continue;
        };
        if status.fenced.is_some() {
            sometimes!("a partition was fenced");
            observer.tell(&Event::Fenced { partition });
        }
        let (first, next, high_watermark) = (status.first.0, status.next.0, status.high_watermark.0);
        observer.tell(&Event::Extent { partition, first, next, high_watermark });
    }
}

/// Where the native protocol is served.
struct Serving {
    address: IpAddr,
    ports: Ports,
}

impl Serving {
    async fn begin(self, shard: &Shard) -> transport::Server {
        let (reactor, id) = (shard.reactor(), shard.id());
        let mut listeners = Vec::new();
        for port in [BOOTSTRAP_PORT, SHARD_PORT + id.0] {
            listeners.push(reactor.listen(SocketAddr::new(self.address, port)).await.expect("a port that is free"));
        }
        self.ports.set(id, SHARD_PORT + id.0);
        let common = Common::new(shard.clone(), Server::limits());
        serve(&common, listeners, Options { host: String::new(), ports: self.ports })
    }
}

async fn run_shard(
    reactor: Reactor,
    mesh: mesh::Mesh<Envelope>,
    config: ShardConfig,
    shared: Rc<Shared>,
    serving: Option<Serving>,
) {
    let number = usize::from(reactor.shard().0);
    let mesh = mesh.attach(&reactor);
    match Shard::start(reactor.clone(), mesh, config.clone()).await {
        Ok(shard) => {
            // Before any client can see what has taken the place of something that a weak topic lost.
            tell_extents(&shard, &shared.observer);
            shared.shards.borrow_mut()[number] = Some(shard.clone());
            let clients = clients::start(&shard, &config, &shared);
            let server = match serving {
                Some(serving) => Some(serving.begin(&shard).await),
                None => None,
            };
            clients::until_stopping(&reactor, &shared).await;
            drop(clients);
            if let Some(server) = server {
                server.stop().await;
            }
            shard.stop().await;
        }
        Err(error) => {
            shared.start_error.borrow_mut().get_or_insert(error);
            // The harness looks at it and starts the node anew.
            pending::<()>().await;
        }
    }
}
