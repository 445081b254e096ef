//! The servers of one shard: listeners, the table of connections, what they share, and the sweep that ends those that take
//! too long.

use super::connection::Connection;
use super::dialect::{Dialect, Goodbye};
use super::inbox::FrameMemory;
use super::log::Log;
use super::unpacking::Unpacking;
use crate::limits::Limits;
use corelog_engine::model::ShardId;
use corelog_engine::reactor::{Instant, Listener, Stream, Task};
use corelog_engine::shard::{Shard, count};
use slab::Slab;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::net::SocketAddr;
use std::ops::Deref;
use std::rc::{Rc, Weak};
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

/// What the servers of a shard share, whatever their connections speak: the bounds are the shard's.
pub struct Common {
    pub(crate) shard: Shard,
    pub(crate) limits: Limits,
    pub(crate) frame_memory: Rc<FrameMemory>,
    pub(crate) outgoing_bytes: Rc<Cell<usize>>,
    /// Requests that wait, and subscriptions, of all connections.
    pub(crate) waits: Rc<Cell<usize>>,
    pub(crate) unpacking: Unpacking,
    pub(crate) log: Log,
    servers: RefCell<Vec<Weak<dyn Table>>>,
}

impl fmt::Debug for Common {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Common").field("shard", &self.shard.id()).finish_non_exhaustive()
    }
}

impl Common {
    /// For the servers of a shard, whose connections together may take so much.
    pub fn new(shard: Shard, limits: Limits) -> Rc<Common> {
        Rc::new(Common {
            shard,
            limits,
            frame_memory: FrameMemory::new(limits.frame_bytes_max),
            outgoing_bytes: Rc::default(),
            waits: Rc::default(),
            unpacking: Unpacking::new(),
            log: Log::default(),
            servers: RefCell::default(),
        })
    }

    /// Whether little is left of the pool: a response of a few bytes can hold on to a block of a MiB, so that the bytes
    /// queued do not tell.
    pub(crate) fn is_memory_short(&self) -> bool {
        let pool = self.shard.reactor().pool();
        pool.free_bytes() < pool.total_bytes() / SHORT_SHARE
    }

    /// Whether all connections of the shard together have as much queued as they may, or hold on to more than that.
    pub(crate) fn is_full(&self) -> bool {
        self.outgoing_bytes.get() >= self.limits.shard_outgoing_bytes_max || self.is_memory_short()
    }

    fn tables(&self) -> Vec<Rc<dyn Table>> {
        self.servers.borrow().iter().filter_map(Weak::upgrade).collect()
    }

    fn has_place(&self) -> bool {
        let servers = self.servers.borrow();
        let connections: usize = servers.iter().filter_map(Weak::upgrade).map(|table| table.connections()).sum();
        connections < self.limits.connections_max
    }

    /// Waits while all places are taken and one of them can be had: who only connects must not keep others out.
    async fn wait_for_place(&self) {
        while !self.has_place() && self.make_room() {
            // The place is free some turns later.
            self.shard.reactor().sleep(PLACE_PAUSE).await;
        }
    }

    /// Closes the connection that nobody has spoken on for longest. False if all have.
    fn make_room(&self) -> bool {
        let tables = self.tables();
        let waiting = tables.iter().filter_map(|table| Some((table.greeting_since()?, table)));
        let oldest = waiting.min_by_key(|(since, _)| *since);
        oldest.inspect(|(_, table)| table.cut_greeting()).is_some()
    }
}

/// Serves connections of one protocol at one shard until it is stopped.
pub struct Server(Rc<dyn Table>);

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("connections", &self.connections()).finish_non_exhaustive()
    }
}

/// The connections of a server, whatever they speak.
trait Table {
    fn shard(&self) -> &Shard;
    fn connections(&self) -> usize;
    /// Accepts no more.
    fn close(&self);
    /// All are to end in order.
    fn say_goodbye(&self);
    fn sweep(&self, now: Instant);
    fn cut(&self);
    /// Lets go of all.
    fn forget(&self);
    /// Since when the oldest of those that have not said who they are has been there.
    fn greeting_since(&self) -> Option<Instant>;
    /// Cuts that one.
    fn cut_greeting(&self);
}

/// What the connections of a server share.
pub(crate) struct Shared<D: Dialect> {
    common: Rc<Common>,
    /// What is the protocol's own.
    pub(crate) own: D::Shared,
    connections: RefCell<Slab<Rc<Connection<D>>>>,
    tasks: RefCell<Vec<Task<()>>>,
}

impl<D: Dialect> Deref for Shared<D> {
    type Target = Common;

    fn deref(&self) -> &Common {
        &self.common
    }
}

/// Serves connections that come in at any of the listeners.
pub(crate) fn serve<D: Dialect>(common: &Rc<Common>, listeners: Vec<Listener>, own: D::Shared) -> Server {
    let (connections, tasks) = (RefCell::default(), RefCell::default());
    let shared = Rc::new(Shared::<D> { common: common.clone(), own, connections, tasks });
    let table: Rc<dyn Table> = shared.clone();
    let mut servers = common.servers.borrow_mut();
    servers.retain(|server| server.strong_count() > 0);
    servers.push(Rc::downgrade(&table));
    let reactor = common.shard.reactor();
    let accepting = listeners.into_iter().map(|listener| reactor.spawn(accept_all(shared.clone(), listener)));
    let mut tasks: Vec<_> = accepting.collect();
    tasks.push(reactor.spawn(sweep_all(shared.clone())));
    *shared.tasks.borrow_mut() = tasks;
    Server(table)
}

impl Server {
    /// Connections at present.
    pub fn connections(&self) -> usize {
        self.0.connections()
    }

    /// Takes no more connections, has the present ones end in order, and cuts those that do not.
    pub async fn stop(self) {
        self.0.close();
        self.0.say_goodbye();
        let reactor = self.0.shard().reactor().clone();
        let until = reactor.now().plus(STOP_TIME);
        while self.connections() > 0 && reactor.now() < until {
            self.0.sweep(reactor.now());
            reactor.sleep(Duration::from_millis(5)).await;
        }
        self.0.cut();
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
        self.0.close();
        self.0.forget();
    }
}

impl<D: Dialect> Table for Shared<D> {
    fn shard(&self) -> &Shard {
        &self.shard
    }

    fn connections(&self) -> usize {
        self.connections.borrow().len()
    }

    fn close(&self) {
        self.tasks.take();
    }

    fn say_goodbye(&self) {
        self.each(|connection| connection.say_goodbye(Goodbye::Stopping));
    }

    fn sweep(&self, now: Instant) {
        self.each(|connection| connection.sweep(now));
    }

    fn cut(&self) {
        self.each(Connection::cut);
    }

    fn forget(&self) {
        self.connections.take();
    }

    fn greeting_since(&self) -> Option<Instant> {
        self.connections.borrow().iter().filter_map(|(_, connection)| connection.greeting_since()).min()
    }

    fn cut_greeting(&self) {
        let connections = self.connections.borrow();
        let waiting = connections.iter().filter_map(|(_, connection)| Some((connection.greeting_since()?, connection)));
        if let Some((_, oldest)) = waiting.min_by_key(|(since, _)| *since) {
            oldest.cut();
        }
    }
}

impl<D: Dialect> Shared<D> {
    fn each(&self, mut act: impl FnMut(&Connection<D>)) {
        let slots = self.connections.borrow().capacity();
        for slot in 0..slots {
            let connection = self.connections.borrow().get(slot).cloned();
            if let Some(connection) = connection {
                act(&connection);
            }
        }
    }

    fn begin(self: &Rc<Self>, stream: Stream, peer: SocketAddr) {
        if !self.has_place() {
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

async fn accept_all<D: Dialect>(shared: Rc<Shared<D>>, listener: Listener) {
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

async fn sweep_all<D: Dialect>(shared: Rc<Shared<D>>) {
    let reactor = shared.shard.reactor().clone();
    loop {
        reactor.sleep(SWEEP_INTERVAL).await;
        let now = reactor.now();
        shared.sweep(now);
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
