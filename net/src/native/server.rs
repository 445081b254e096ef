//! The server of one shard: listeners, the table of connections, what they share, and the sweep that ends those that take
//! too long.

use super::connection::Connection;
use super::inbox::FrameMemory;
use super::refusal::Refusal;
use super::unpacking::Unpacking;
use crate::limits::Limits;
use corelog_engine::model::ShardId;
use corelog_engine::reactor::{Instant, Listener, Stream, Task};
use corelog_engine::shard::{Shard, count};
use corelog_wire::Status;
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

/// How often connections are looked at for what took too long.
const SWEEP_INTERVAL: Duration = Duration::from_millis(250);
/// A pause after the system refused to accept: out of file descriptors, for one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A pause after a connection was closed for another to have its place.
const PLACE_PAUSE: Duration = Duration::from_millis(1);
/// Time that connections have to end in order when the server stops.
const STOP_TIME: Duration = Duration::from_secs(3);
/// Memory is short when less than one part in so many of the pool is free. What tails and reads may take leaves more.
const SHORT_SHARE: usize = 16;
/// At most one line of a kind in this time.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// On which port each shard of the node listens: filled in by the shards as they start, read for metadata.
#[derive(Debug, Clone)]
pub struct Ports(Arc<[AtomicU16]>);

impl Ports {
    /// For so many shards, none of which listens yet.
    pub fn new(shards: u16) -> Ports {
        Ports((0..shards).map(|_| AtomicU16::new(0)).collect())
    }

    /// A shard listens on a port of its own.
    pub fn set(&self, shard: ShardId, port: u16) {
        self.0[usize::from(shard.0)].store(port, Ordering::Release);
    }

    /// Whether every shard listens: before that, metadata would lack some.
    pub fn are_all_listening(&self) -> bool {
        self.listening().count() == self.0.len()
    }

    /// The shards that listen, and where.
    pub fn listening(&self) -> impl Iterator<Item = (ShardId, u16)> {
        let ports = self.0.iter().map(|port| port.load(Ordering::Acquire)).enumerate();
        ports.filter(|(_, port)| *port != 0).map(|(shard, port)| (ShardId(shard as u16), port))
    }
}

/// What a server tells its clients and allows them.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name or address that clients reach this node by; empty lets them use the one they know.
    pub host: String,
    /// Ports of the node's shards.
    pub ports: Ports,
    /// What connections may take.
    pub limits: Limits,
}

/// Serves connections of one shard until it is stopped.
pub struct Server(Rc<Shared>);

/// What connections of a shard share.
pub(super) struct Shared {
    pub(super) shard: Shard,
    pub(super) host: String,
    pub(super) ports: Ports,
    pub(super) limits: Limits,
    pub(super) frame_memory: Rc<FrameMemory>,
    pub(super) outgoing_bytes: Rc<Cell<usize>>,
    /// Requests that wait, and subscriptions, of all connections.
    pub(super) waits: Rc<Cell<usize>>,
    /// Open partitions of all connections.
    pub(super) handles: Cell<usize>,
    pub(super) unpacking: Unpacking,
    pub(super) log: Log,
    connections: RefCell<Slab<Rc<Connection>>>,
    tasks: RefCell<Vec<Task<()>>>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("shard", &self.0.shard.id()).finish_non_exhaustive()
    }
}

/// Serves connections that come in at any of the listeners.
pub fn serve(shard: Shard, listeners: Vec<Listener>, options: Options) -> Server {
    let Options { host, ports, limits } = options;
    let reactor = shard.reactor().clone();
    let shared = Rc::new(Shared {
        shard,
        host,
        ports,
        limits,
        frame_memory: FrameMemory::new(limits.frame_bytes_max),
        outgoing_bytes: Rc::default(),
        waits: Rc::default(),
        handles: Cell::new(0),
        unpacking: Unpacking::new(limits.unpacked_bytes_max),
        log: Log::default(),
        connections: RefCell::default(),
        tasks: RefCell::default(),
    });
    let accepting = listeners.into_iter().map(|listener| reactor.spawn(accept_all(shared.clone(), listener)));
    let mut tasks: Vec<_> = accepting.collect();
    tasks.push(reactor.spawn(sweep_all(shared.clone())));
    *shared.tasks.borrow_mut() = tasks;
    Server(shared)
}

impl Server {
    /// Connections at present.
    pub fn connections(&self) -> usize {
        self.0.connections.borrow().len()
    }

    /// Takes no more connections, has the present ones end in order, and cuts those that do not.
    pub async fn stop(self) {
        self.0.tasks.borrow_mut().clear();
        let refusal = Refusal::new(Status::ShuttingDown, "the server stops");
        self.0.each(|connection| connection.say_goodbye(&refusal));
        let reactor = self.0.shard.reactor().clone();
        let until = reactor.now().plus(STOP_TIME);
        while self.connections() > 0 && reactor.now() < until {
            self.0.each(|connection| connection.sweep(reactor.now()));
            reactor.sleep(Duration::from_millis(5)).await;
        }
        self.0.each(Connection::cut);
        // A few turns for their tasks to see it.
        for _ in 0..100 {
            if self.connections() == 0 {
                return;
            }
            reactor.sleep(Duration::from_millis(1)).await;
        }
    }
}

/// Connections hold what they share, which holds them: whoever drops a server without stopping it must get its memory back.
impl Drop for Server {
    fn drop(&mut self) {
        self.0.tasks.take();
        self.0.connections.take();
    }
}

impl Shared {
    /// Whether little is left of the pool: a response of a few bytes can hold on to a block of a MiB, so that the bytes
    /// queued do not tell.
    pub(super) fn is_memory_short(&self) -> bool {
        let pool = self.shard.reactor().pool();
        pool.free_bytes() < pool.total_bytes() / SHORT_SHARE
    }

    fn each(&self, mut act: impl FnMut(&Connection)) {
        let slots = self.connections.borrow().capacity();
        for slot in 0..slots {
            let connection = self.connections.borrow().get(slot).cloned();
            if let Some(connection) = connection {
                act(&connection);
            }
        }
    }

    /// Waits while all places are taken and one of them can be had: who only connects must not keep others out.
    async fn wait_for_place(&self) {
        while self.connections.borrow().len() >= self.limits.connections_max && self.make_room() {
            // The place is free some turns later.
            self.shard.reactor().sleep(PLACE_PAUSE).await;
        }
    }

    /// Closes the connection that has waited for its hello for longest. False if none waits for one.
    fn make_room(&self) -> bool {
        let connections = self.connections.borrow();
        let waiting = connections.iter().filter_map(|(_, connection)| Some((connection.greeting_since()?, connection)));
        let oldest = waiting.min_by_key(|(since, _)| *since);
        oldest.inspect(|(_, oldest)| oldest.cut()).is_some()
    }

    fn begin(self: &Rc<Shared>, stream: Stream, peer: SocketAddr) {
        if self.connections.borrow().len() >= self.limits.connections_max {
            let now = self.shard.reactor().now();
            self.log.say(now, || format!("{peer}: refused, the shard has as many connections as it may"));
            return;
        }
        let connection = Connection::new(self, stream, peer);
        count(&self.shard.counters().connections_accepted, 1);
        count(&self.shard.counters().connections, 1);
        let slot = self.connections.borrow_mut().insert(connection.clone());
        let shared = self.clone();
        let serving = async move {
            connection.run().await;
            shared.connections.borrow_mut().try_remove(slot);
            let open = &shared.shard.counters().connections;
            open.set(open.get() - 1);
        };
        self.shard.reactor().spawn(serving).detach();
    }
}

async fn accept_all(shared: Rc<Shared>, listener: Listener) {
    let reactor = shared.shard.reactor().clone();
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                shared.wait_for_place().await;
                shared.begin(stream, peer);
            }
            Err(error) => {
                shared.log.say(reactor.now(), || format!("accepting a connection failed: {error}"));
                reactor.sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn sweep_all(shared: Rc<Shared>) {
    let reactor = shared.shard.reactor().clone();
    loop {
        reactor.sleep(SWEEP_INTERVAL).await;
        let now = reactor.now();
        shared.each(|connection| connection.sweep(now));
    }
}

/// Lines for the operator about what clients do: clients decide how often, so that there is a bound.
#[derive(Debug, Default)]
pub(super) struct Log {
    next: Cell<Option<Instant>>,
    left_out: Cell<u64>,
}

impl Log {
    pub(super) fn say(&self, now: Instant, line: impl FnOnce() -> String) {
        if self.next.get().is_some_and(|next| now < next) {
            return self.left_out.set(self.left_out.get() + 1);
        }
        self.next.set(Some(now.plus(LOG_INTERVAL)));
        match self.left_out.replace(0) {
            0 => eprintln!("corelog: {}", line()),
            left_out => eprintln!("corelog: {} ({left_out} more lines left out)", line()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_listen_when_the_last_one_does() {
        let ports = Ports::new(3);
        for (shard, all) in [(2, false), (0, false), (0, false), (1, true)] {
            assert!(!ports.are_all_listening());
            ports.clone().set(ShardId(shard), 7100 + shard);
            assert_eq!(ports.are_all_listening(), all, "{shard}");
        }
    }
}
