//! The world: its nodes, its time and its events.

use super::disk::{BLOCK, Create, Disk};
use super::driver::{SimDriver, disk_op};
use super::event::{Event, ReactorKey, Schedule, Trace};
use super::faults::{DiskOp, Fault, Faults, NodeCounters};
use super::net::{Net, NetOptions, NodeIndex, address_of};
use super::random::Random;
use crate::model::{ShardId, Timestamp};
use crate::reactor::driver::Driver;
use crate::reactor::file::WriteSync;
use crate::reactor::ops::{Op, OpId};
use crate::reactor::{Instant, Pool, Reactor, Task, Turn};
use std::cell::{RefCell, RefMut};
use std::future::Future;
use std::io;
use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

/// Many nodes of many shards in one thread. Everything in it follows from its seed: to run it twice is to see the same
/// twice. Nothing moves but within `run_for` and `run_until`.
pub struct World {
    state: Rc<RefCell<State>>,
    seats: RefCell<Vec<Option<Seat>>>,
    seed: u64,
}

/// A node of the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(NodeIndex);

/// How a node goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashKind {
    /// Its processes end at once. The kernel lives on: what was finished stays, connections are ended.
    Kill,
    /// Its power is gone: only what was flushed is sure to be there, and nobody hears of it.
    PowerCut,
}

/// How the world behaves where nothing goes wrong.
#[derive(Debug, Clone)]
pub struct WorldOptions {
    /// The network.
    pub net: NetOptions,
    /// Bytes of a node's disk.
    pub disk_bytes: u64,
    /// How long a read takes, nanoseconds.
    pub read_ns: Span,
    /// How long a write takes until it is handed to the device.
    pub write_ns: Span,
    /// How long a flush, or a write with DSYNC, takes.
    pub flush_ns: Span,
    /// How long an operation on names and space takes.
    pub meta_ns: Span,
    /// How long a turn of a reactor keeps its core busy.
    pub turn_ns: Span,
    /// How long a doorbell takes to wake another core.
    pub bell_ns: Span,
    /// Turns in a row after which a reactor that always has something to run is taken for one that never waits.
    pub busy_turns_max: u32,
}

/// A time between two bounds, both included, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub struct Span(pub u64, pub u64);

impl Default for WorldOptions {
    fn default() -> WorldOptions {
        WorldOptions {
            net: NetOptions::default(),
            disk_bytes: 4 << 30,
            read_ns: Span(50_000, 200_000),
            write_ns: Span(10_000, 100_000),
            flush_ns: Span(80_000, 500_000),
            meta_ns: Span(5_000, 100_000),
            turn_ns: Span(200, 2_000),
            bell_ns: Span(1_000, 50_000),
            busy_turns_max: 1_000_000,
        }
    }
}

impl Span {
    pub(super) fn draw(self, random: &mut Random) -> u64 {
        random.between(self.0, self.1)
    }
}

/// What drivers share.
pub(super) struct State {
    pub(super) options: WorldOptions,
    pub(super) schedule: Schedule,
    pub(super) trace: Trace,
    pub(super) net: Net,
    pub(super) nodes: Vec<Node>,
    random: Random,
}

pub(super) struct Node {
    name: String,
    pub(super) disk: Disk,
    pub(super) faults: Faults,
    pub(super) counters: NodeCounters,
    /// Operations that are due while the disk hangs.
    pub(super) held: Vec<(ReactorKey, OpId)>,
    clock_ahead_ms: i64,
    random: Random,
    read_ns: Span,
    write_ns: Span,
    flush_ns: Span,
    meta_ns: Span,
}

/// A reactor that runs.
struct Seat {
    reactor: Reactor,
    root: Task<()>,
    node: NodeIndex,
    turn_is_due: bool,
    /// Its core is busy with the last turn until then.
    busy_until: u64,
    busy_turns: u32,
    /// When it is woken for its timers next.
    timer_at: Option<u64>,
}

/// What the calendar says when a world begins.
const EPOCH_MS: i64 = 1_700_000_000_000;

impl World {
    /// An empty world.
    pub fn new(seed: u64, options: WorldOptions) -> World {
        let mut random = Random::new(seed);
        let state = State {
            schedule: Schedule::new(random.fork()),
            trace: Trace::new(seed),
            net: Net::new(random.fork(), options.net.clone()),
            nodes: Vec::new(),
            options,
            random,
        };
        World { state: Rc::new(RefCell::new(state)), seats: RefCell::default(), seed }
    }

    /// Adds a node with an empty disk.
    pub fn add_node(&self, name: &str) -> NodeId {
        let bytes = self.state.borrow().options.disk_bytes;
        self.add(name, bytes)
    }

    /// Adds a node that cannot store anything.
    pub fn add_client(&self, name: &str) -> NodeId {
        self.add(name, 0)
    }

    fn add(&self, name: &str, disk_bytes: u64) -> NodeId {
        let state = &mut *self.state.borrow_mut();
        let options = &state.options;
        let node = Node {
            name: name.to_owned(),
            disk: Disk::new(state.random.fork(), disk_bytes),
            faults: Faults::default(),
            counters: NodeCounters::default(),
            held: Vec::new(),
            clock_ahead_ms: 0,
            random: state.random.fork(),
            read_ns: options.read_ns,
            write_ns: options.write_ns,
            flush_ns: options.flush_ns,
            meta_ns: options.meta_ns,
        };
        state.nodes.push(node);
        NodeId(state.nodes.len() - 1)
    }

    /// Starts a reactor on a node, with a pool of `pool_bytes`. It ends with its root future, or by
    /// [`Reactor::stop`], or in a crash.
    pub fn start_shard<F: Future<Output = ()> + 'static>(
        &self,
        node: NodeId,
        shard: ShardId,
        shards: u16,
        pool_bytes: usize,
        root: impl FnOnce(Reactor) -> F,
    ) {
        let key = self.seats.borrow().len() as ReactorKey;
        let random = {
            let state = &mut *self.state.borrow_mut();
            state.net.power_on(&mut state.schedule, node.0);
            state.random.fork()
        };
        let driver = SimDriver::new(self.state.clone(), key, node.0, random);
        let reactor = Reactor::new(shard, shards, Pool::heap(pool_bytes), Driver::Sim(Box::new(driver)));
        let root = reactor.spawn(root(reactor.clone()));
        let seat =
            Seat { reactor, root, node: node.0, turn_is_due: false, busy_until: 0, busy_turns: 0, timer_at: None };
        self.seats.borrow_mut().push(Some(seat));
        self.want_turn(key);
    }

    /// Ends all reactors of a node, at this point between two events, and leaves its disk as the kind of crash does.
    pub fn crash(&self, node: NodeId, kind: CrashKind) {
        if kind == CrashKind::PowerCut {
            self.state.borrow_mut().net.power_cut(node.0);
        }
        for key in self.reactors_of(node) {
            self.end(key);
        }
        let state = &mut *self.state.borrow_mut();
        let crashed = &mut state.nodes[node.0];
        crashed.held.clear();
        match kind {
            CrashKind::Kill => {
                crashed.counters.kills += 1;
                crashed.disk.close_all();
            }
            CrashKind::PowerCut => {
                crashed.counters.power_cuts += 1;
                crashed.disk.power_cut();
            }
        }
        state.trace.add_all([7, node.0 as u64, kind as u64]);
    }

    /// Whether any reactor of the node runs.
    pub fn is_up(&self, node: NodeId) -> bool {
        !self.reactors_of(node).is_empty()
    }

    // Time ---------------------------------------------------------------------------------------------------------

    /// Lets `duration` of the world's time pass.
    pub fn run_for(&self, duration: Duration) {
        let until = self.now().plus(duration).nanos();
        self.run(until, &mut || false);
    }

    /// Runs until `done`, asked after each event, or until `limit` has passed. Says whether it was done.
    pub fn run_until(&self, limit: Duration, mut done: impl FnMut() -> bool) -> bool {
        let until = self.now().plus(limit).nanos();
        done() || self.run(until, &mut done)
    }

    /// Time since the world began.
    pub fn now(&self) -> Instant {
        Instant::from_nanos(self.state.borrow().schedule.now)
    }

    /// A hash of all that happened so far.
    pub fn trace_hash(&self) -> u64 {
        self.state.borrow().trace.hash()
    }

    /// Events so far.
    pub fn events(&self) -> u64 {
        self.state.borrow().trace.events
    }

    /// A number that the seed decides, for what a test wants to leave to chance.
    pub fn random(&self) -> u64 {
        self.state.borrow_mut().random.bits()
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    // Nodes and their faults ---------------------------------------------------------------------------------------

    /// The node's address for the others.
    pub fn address(&self, node: NodeId) -> IpAddr {
        address_of(node.0)
    }

    /// What goes wrong on the node's disk. Do not hold on to it while the world runs.
    pub fn faults_mut(&self, node: NodeId) -> RefMut<'_, Faults> {
        RefMut::map(self.state.borrow_mut(), |state| &mut state.nodes[node.0].faults)
    }

    /// How the network behaves from now on. Do not hold on to it while the world runs.
    pub fn net_mut(&self) -> RefMut<'_, NetOptions> {
        RefMut::map(self.state.borrow_mut(), |state| &mut state.net.options)
    }

    /// What has happened on the node.
    pub fn counters(&self, node: NodeId) -> NodeCounters {
        self.state.borrow().nodes[node.0].counters
    }

    /// Connections broken by faults of the network.
    pub fn resets(&self) -> u64 {
        self.state.borrow().net.resets
    }

    /// A disk that hung goes on.
    pub fn release_disk(&self, node: NodeId) {
        let state = &mut *self.state.borrow_mut();
        let released = &mut state.nodes[node.0];
        released.faults.hung = false;
        for (reactor, op) in released.held.drain(..) {
            let at = state.schedule.now + released.write_ns.draw(&mut released.random);
            state.schedule.push(at, Event::Land { reactor, op });
        }
    }

    /// Makes the node's disk as large as `bytes`: what it holds stays, even beyond it.
    pub fn set_disk_bytes(&self, node: NodeId, bytes: u64) {
        self.state.borrow_mut().nodes[node.0].disk.set_capacity(bytes);
    }

    /// Free and total bytes of the node's disk.
    pub fn disk_space(&self, node: NodeId) -> (u64, u64) {
        self.state.borrow().nodes[node.0].disk.space()
    }

    /// Sets the node's calendar ahead, or back.
    pub fn jump_clock(&self, node: NodeId, by_ms: i64) {
        self.state.borrow_mut().nodes[node.0].clock_ahead_ms += by_ms;
    }

    /// Nothing passes between two nodes until the link heals; what is sent meanwhile waits.
    pub fn cut_link(&self, a: NodeId, b: NodeId) {
        self.state.borrow_mut().net.cut_link(a.0, b.0);
    }

    /// See `cut_link`.
    pub fn heal_link(&self, a: NodeId, b: NodeId) {
        let state = &mut *self.state.borrow_mut();
        state.net.heal_link(&mut state.schedule, a.0, b.0);
    }

    /// Breaks every connection between two nodes.
    pub fn reset_link(&self, a: NodeId, b: NodeId) {
        let state = &mut *self.state.borrow_mut();
        state.net.reset_link(&mut state.schedule, a.0, b.0);
    }

    /// What a file of the node holds now, or nothing if it is not there.
    pub fn read_file(&self, node: NodeId, path: &Path) -> Option<Vec<u8>> {
        let disk = &mut self.state.borrow_mut().nodes[node.0].disk;
        let file = disk.open(path, Create::No).ok()?;
        let mut bytes = vec![0; disk.length(file) as usize];
        disk.read(file, 0, &mut bytes);
        disk.close(file);
        Some(bytes)
    }

    /// Puts a file on the node's disk as if it had always been there, with the directories that it lies in.
    ///
    /// # Errors
    /// When the disk is full, or a part of the path is something else.
    pub fn put_file(&self, node: NodeId, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let disk = &mut self.state.borrow_mut().nodes[node.0].disk;
        let above: Vec<&Path> = path.ancestors().skip(1).filter(|above| above.parent().is_some()).collect();
        above.into_iter().rev().try_for_each(|above| disk.create_dir(above))?;
        let file = disk.open(path, Create::Allowed)?;
        let mut blocks = bytes.to_vec();
        blocks.resize(bytes.len().next_multiple_of(BLOCK), 0);
        disk.truncate(file, 0);
        let written = disk.write(file, 0, &blocks, true);
        disk.truncate(file, bytes.len() as u64);
        disk.close(file);
        let mark = disk.mark();
        written.and_then(|()| disk.sync_fs(mark))
    }

    /// Names in a directory of the node and whether they are directories, sorted; nothing if it is not there.
    pub fn list_dir(&self, node: NodeId, path: &Path) -> Vec<(String, bool)> {
        self.state.borrow().nodes[node.0].disk.list_dir(path).unwrap_or_default()
    }

    /// Turns one stored bit over, as time does. False if the file has no such byte.
    pub fn flip_bit(&self, node: NodeId, path: &Path, position: u64, bit: u8) -> bool {
        let disk = &mut self.state.borrow_mut().nodes[node.0].disk;
        let Ok(file) = disk.open(path, Create::No) else { return false };
        let flipped = disk.flip_bit(file, position, bit);
        disk.close(file);
        flipped
    }

    // Events -------------------------------------------------------------------------------------------------------

    fn run(&self, until: u64, done: &mut dyn FnMut() -> bool) -> bool {
        self.want_turns_of_ready();
        loop {
            let event = {
                let state = &mut *self.state.borrow_mut();
                let Some(event) = state.schedule.pop(until) else {
                    state.schedule.now = until;
                    return false;
                };
                state.trace.event(state.schedule.now, &event);
                event
            };
            self.handle(event);
            if done() {
                return true;
            }
        }
    }

    fn handle(&self, event: Event) {
        match event {
            Event::Land { reactor, op } => self.land(reactor, op),
            Event::Turn { reactor } => self.turn(reactor),
            Event::Wake { reactor } => self.want_turn(reactor),
            Event::Net(event) => {
                let state = &mut *self.state.borrow_mut();
                state.net.handle(&mut state.schedule, event);
            }
        }
        loop {
            let woken = self.state.borrow_mut().schedule.woken.pop();
            let Some(reactor) = woken else { return };
            self.want_turn(reactor);
        }
    }

    fn land(&self, key: ReactorKey, op: OpId) {
        let Some(reactor) = self.reactor(key) else { return };
        reactor.with_ops(|driver, ops, _| match driver {
            Driver::Sim(driver) => driver.land(op, ops),
            Driver::Ring(_) => unreachable!("a ring does not live in a world"),
        });
        self.want_turn(key);
    }

    /// Sees to it that the reactor runs its tasks as soon as its core is free.
    fn want_turn(&self, key: ReactorKey) {
        let seats = &mut *self.seats.borrow_mut();
        let Some(Some(seat)) = seats.get_mut(key as usize) else { return };
        if !std::mem::replace(&mut seat.turn_is_due, true) {
            self.state.borrow_mut().schedule.push(seat.busy_until, Event::Turn { reactor: key });
        }
    }

    fn turn(&self, key: ReactorKey) {
        let Some(reactor) = self.reactor(key) else { return };
        reactor.open_eyes();
        let left = reactor.turn();
        if self.is_over(key) {
            return self.end(key);
        }
        let again = match left {
            Turn::Busy => true,
            Turn::Idle(timer) => {
                self.set_timer(key, timer);
                !reactor.close_eyes()
            }
        };
        self.after_turn(key, again);
        self.want_turns_of_ready();
    }

    fn after_turn(&self, key: ReactorKey, again: bool) {
        let busy_until = {
            let state = &mut *self.state.borrow_mut();
            state.schedule.now + state.options.turn_ns.draw(&mut state.random)
        };
        if let Some(Some(seat)) = self.seats.borrow_mut().get_mut(key as usize) {
            seat.turn_is_due = false;
            seat.busy_until = busy_until;
            seat.busy_turns = if again { seat.busy_turns + 1 } else { 0 };
            self.assert_waits_sometimes(seat);
        }
        if again {
            self.want_turn(key);
        }
    }

    fn assert_waits_sometimes(&self, seat: &Seat) {
        let state = self.state.borrow();
        let (shard, node) = (seat.reactor.shard(), &state.nodes[seat.node].name);
        assert!(seat.busy_turns < state.options.busy_turns_max, "shard {shard} of {node} runs on and never waits");
    }

    fn set_timer(&self, key: ReactorKey, timer: Option<Instant>) {
        let Some(at) = timer.map(Instant::nanos) else { return };
        let seats = &mut *self.seats.borrow_mut();
        let Some(Some(seat)) = seats.get_mut(key as usize) else { return };
        let state = &mut *self.state.borrow_mut();
        if seat.timer_at.is_none_or(|set| at < set || set <= state.schedule.now) {
            seat.timer_at = Some(at);
            state.schedule.push(at, Event::Wake { reactor: key });
        }
    }

    /// Tasks can be woken past the world: by another reactor's task, or by a test between two runs.
    fn want_turns_of_ready(&self) {
        let ready = |seat: &Seat| !seat.turn_is_due && seat.reactor.has_ready();
        let numbered = 0..self.seats.borrow().len();
        for key in numbered {
            if self.seats.borrow()[key].as_ref().is_some_and(ready) {
                self.want_turn(key as ReactorKey);
            }
        }
    }

    fn is_over(&self, key: ReactorKey) -> bool {
        let seats = self.seats.borrow();
        seats[key as usize].as_ref().is_some_and(|seat| seat.root.is_finished() || seat.reactor.is_stopping())
    }

    fn end(&self, key: ReactorKey) {
        let Some(seat) = self.seats.borrow_mut()[key as usize].take() else { return };
        seat.reactor.end();
        let state = &mut *self.state.borrow_mut();
        state.net.close_all_of(&mut state.schedule, key);
    }

    fn reactor(&self, key: ReactorKey) -> Option<Reactor> {
        Some(self.seats.borrow().get(key as usize)?.as_ref()?.reactor.clone())
    }

    fn reactors_of(&self, node: NodeId) -> Vec<ReactorKey> {
        let seats = self.seats.borrow();
        let here = |seat: &Option<Seat>| seat.as_ref().is_some_and(|seat| seat.node == node.0);
        seats.iter().enumerate().filter(|(_, seat)| here(seat)).map(|(key, _)| key as ReactorKey).collect()
    }
}

impl Drop for World {
    /// Tasks hold their reactor and reactors their tasks: end them. Not in a panic, where a second one would hide it.
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::mem::forget(self.seats.take());
            return;
        }
        let count = self.seats.borrow().len();
        (0..count).for_each(|key| self.end(key as ReactorKey));
    }
}

impl State {
    pub(super) fn wall_clock(&self, node: NodeIndex) -> Timestamp {
        Timestamp(EPOCH_MS + (self.schedule.now / 1_000_000) as i64 + self.nodes[node].clock_ahead_ms)
    }
}

impl Node {
    /// What will go wrong with an operation of the disk that begins, on this file if it is a write, and how long it takes.
    pub(super) fn begin(&mut self, op: &Op, file: Option<&Path>) -> (Option<Fault>, u64) {
        let Some(kind) = disk_op(op) else { return (None, 0) };
        let fault = self.faults.draw(kind, file, &mut self.random);
        let usual = match (kind, op) {
            (DiskOp::Flush, _) | (_, Op::Write { sync: WriteSync::Data, .. }) => self.flush_ns,
            (DiskOp::Read, _) => self.read_ns,
            (DiskOp::Write, _) => self.write_ns,
            (DiskOp::Meta, _) => self.meta_ns,
        };
        let slower = if let Some(Fault::Slow(by)) = fault { by } else { 0 };
        (fault, usual.draw(&mut self.random) + slower)
    }

    pub(super) fn count(&mut self, op: &Op) {
        let counters = &mut self.counters;
        match (disk_op(op), op) {
            (Some(DiskOp::Read), _) => counters.reads += 1,
            (Some(DiskOp::Flush), _) => counters.flushes += 1,
            (Some(DiskOp::Meta), _) => counters.metas += 1,
            (_, Op::Write { data, sync, .. }) => {
                counters.writes += 1;
                counters.durable_writes += u64::from(*sync == WriteSync::Data);
                counters.bytes_written += data.len() as u64;
            }
            _ => {}
        }
    }

    pub(super) fn count_fault(&mut self, fault: Fault) {
        match fault {
            Fault::Error(_) => self.counters.errors += 1,
            Fault::Lost | Fault::Misdirected => self.counters.strays += 1,
            Fault::Slow(_) => self.counters.slowed += 1,
        }
    }
}
