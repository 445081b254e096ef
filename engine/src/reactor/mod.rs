//! One core's way to the outside: a single-threaded executor and everything that waits.
//!
//! A [`Reactor`] runs on one thread. Whatever touches a file, a socket, a timer, a clock, chance or another core goes
//! through it, and behind it stands one of two drivers: the kernel's io_uring, or a simulated world (see
//! `driver.rs` for the contract). Code above cannot tell which.

mod buffers;
mod door;
mod driver;
mod either;
mod executor;
mod file;
pub mod mesh;
mod ops;
pub mod ring;
pub mod sim;
mod socket;
mod splice;
#[cfg(test)]
mod suite;
mod sync;
mod timers;

pub use buffers::{AppendBuffer, BLOCK_MAX, Backing, Buffer, PAGE, Pool, Slice};
pub use either::either;
pub use executor::Task;
pub use file::{DirEntry, File, FileLock, Open, Space, WriteSync};
pub use ring::{CannotRun, Features, probe, run_ring};
pub use socket::{Chunk, Listener, Outgoing, Stream};
pub use splice::{FileRange, Pipe};

use crate::model::{ShardId, Timestamp};
use door::Door;
use driver::{Closings, Drive, Driver, Handle, HandleKind};
use executor::Executor;
use ops::{Op, OpId, Ops};
use std::cell::{Cell, RefCell, RefMut};
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use timers::{TimerId, Timers};

/// Tasks run in one turn before completions are taken in again.
const TURN_TASKS_MAX: usize = 256;
/// A turn that takes longer is counted as a stall: everything else on the core waited for it.
pub const TURN_BUDGET: Duration = Duration::from_micros(500);

/// One core's executor, timers, buffers and driver. Cheap to clone; bound to its thread.
#[derive(Clone)]
pub struct Reactor(Rc<Inner>);

struct Inner {
    shard: ShardId,
    shards: u16,
    pool: Pool,
    executor: Executor,
    driver: RefCell<Driver>,
    ops: RefCell<Ops>,
    closings: Rc<Closings>,
    timers: RefCell<Timers>,
    /// Tasks that go on in the next turn.
    yielded: RefCell<Vec<Waker>>,
    door: Arc<Door>,
    watched: RefCell<Vec<Rc<dyn mesh::Watch>>>,
    counters: Counters,
    now: Cell<Instant>,
    life: Cell<Life>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Life {
    Running,
    /// [`Reactor::stop`] was called.
    Stopping,
    /// Tasks are gone, the driver is drained; operations are refused.
    Ended,
}

/// Nanoseconds since the reactor's world began: since boot on the ring, since the simulation's start in it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instant(u64);

/// What a reactor has done since it began.
#[derive(Debug, Default)]
pub struct Counters {
    /// Iterations of the run loop in which a task ran.
    pub turns: Cell<u64>,
    /// Turns that took longer than [`TURN_BUDGET`].
    pub stalls: Cell<u64>,
    /// Times the core went to sleep for want of work.
    pub parks: Cell<u64>,
    /// Calls of io_uring_enter.
    pub submits: Cell<u64>,
    /// Operations started.
    pub ops: Cell<u64>,
    /// Operations that made data durable: DSYNC writes, `sync_data`, `sync_dir` and `sync_fs`.
    pub flushes: Cell<u64>,
    /// Bytes written to files.
    pub bytes_written: Cell<u64>,
    /// Bytes read from files.
    pub bytes_read: Cell<u64>,
    /// Pipes that are open now.
    pub pipes: Cell<usize>,
}

/// What a turn left to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// Tasks are ready to run.
    Busy,
    /// Nothing to do until a completion, a doorbell, or the next timer at this time.
    Idle(Option<Instant>),
}

impl Reactor {
    /// For a driver's run loop.
    pub(crate) fn new(shard: ShardId, shards: u16, pool: Pool, driver: Driver) -> Reactor {
        let closings = Rc::new(Closings::default());
        Reactor(Rc::new(Inner {
            shard,
            shards,
            pool,
            executor: Executor::new(),
            door: driver.door(),
            now: Cell::new(driver.now()),
            driver: RefCell::new(driver),
            ops: RefCell::new(Ops::new(closings.clone())),
            closings,
            timers: RefCell::default(),
            yielded: RefCell::default(),
            watched: RefCell::default(),
            counters: Counters::default(),
            life: Cell::new(Life::Running),
        }))
    }

    /// Runs a future beside the others. It is dropped with the handle, unless that is detached, or with the reactor.
    pub fn spawn<T: 'static>(&self, future: impl Future<Output = T> + 'static) -> Task<T> {
        self.0.executor.spawn(future)
    }

    /// Lets every other task that is ready run, and completions be taken in, first: goes on in the next turn.
    pub async fn yield_now(&self) {
        let mut yielded = false;
        poll_fn(|cx| {
            if std::mem::replace(&mut yielded, true) {
                return Poll::Ready(());
            }
            self.0.yielded.borrow_mut().push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// The time at which the present turn began.
    pub fn now(&self) -> Instant {
        self.0.now.get()
    }

    /// The time now, for measuring what takes less than a turn: a look at the clock.
    pub fn clock(&self) -> Instant {
        self.driver().now()
    }

    /// The calendar's time. It may jump, also backwards.
    pub fn wall_clock(&self) -> Timestamp {
        self.driver().wall_clock()
    }

    /// A random number. Not for secrets.
    pub fn random(&self) -> u64 {
        self.driver().random()
    }

    /// Completes after `duration`, counted from the beginning of this turn.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.sleep_until(self.now().plus(duration))
    }

    /// Completes at `at`, or at once if that is past.
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep { reactor: self.clone(), at, timer: None }
    }

    /// The shard that this reactor runs.
    pub fn shard(&self) -> ShardId {
        self.0.shard
    }

    /// Shards of this node.
    pub fn shards(&self) -> u16 {
        self.0.shards
    }

    /// The memory for buffers.
    pub fn pool(&self) -> &Pool {
        &self.0.pool
    }

    /// What this reactor has done.
    pub fn counters(&self) -> &Counters {
        &self.0.counters
    }

    /// Ends the run loop after this turn, though the root future has not ended.
    pub fn stop(&self) {
        if self.0.life.get() == Life::Running {
            self.0.life.set(Life::Stopping);
        }
    }
}

/// What drivers and the rest of the room use.
impl Reactor {
    /// One iteration without waiting: fires timers, wakes readers of the mesh, runs ready tasks, closes what they
    /// dropped. The driver takes in completions before the next.
    pub(crate) fn turn(&self) -> Turn {
        let inner = &*self.0;
        let began = self.driver().now();
        inner.now.set(began);
        inner.timers.borrow_mut().fire(began);
        inner.yielded.borrow_mut().drain(..).for_each(Waker::wake);
        self.wake_readers();
        if inner.executor.run(TURN_TASKS_MAX) > 0 {
            inner.counters.add_turn(self.driver().now().since(began));
        }
        self.close_dropped();
        if inner.executor.has_ready() || !inner.yielded.borrow().is_empty() {
            return Turn::Busy;
        }
        Turn::Idle(inner.timers.borrow().next())
    }

    /// Before a driver parks: says to other cores that they must ring, and looks for messages once more. False if
    /// there are some, and no bell is needed.
    pub(crate) fn close_eyes(&self) -> bool {
        self.0.door.close_eyes();
        if self.wake_readers() {
            self.open_eyes();
            return false;
        }
        self.0.counters.parks.set(self.0.counters.parks.get() + 1);
        true
    }

    /// After a park.
    pub(crate) fn open_eyes(&self) {
        self.0.door.open_eyes();
    }

    /// Wakes the readers of the mesh that have a message. Whether any was woken.
    pub(crate) fn wake_readers(&self) -> bool {
        self.0.watched.borrow().iter().fold(false, |woken, inbox| inbox.wake_reader() | woken)
    }

    /// Gives the driver access to the operations: to take in completions.
    pub(crate) fn with_ops<R>(&self, act: impl FnOnce(&mut Driver, &mut Ops, &Counters) -> R) -> R {
        act(&mut self.0.driver.borrow_mut(), &mut self.0.ops.borrow_mut(), &self.0.counters)
    }

    /// Whether a task is ready to run.
    pub(crate) fn has_ready(&self) -> bool {
        self.0.executor.has_ready()
    }

    /// Whether [`Reactor::stop`] was called.
    pub(crate) fn is_stopping(&self) -> bool {
        self.0.life.get() != Life::Running
    }

    /// Drops all tasks, completes all operations in flight and closes everything; later operations are refused.
    pub(crate) fn end(&self) {
        self.0.executor.close();
        self.close_dropped();
        self.with_ops(|driver, ops, counters| driver.drain(ops, counters));
        self.0.life.set(Life::Ended);
        self.close_dropped();
        self.0.watched.borrow_mut().clear();
        self.open_eyes();
    }

    fn driver(&self) -> RefMut<'_, Driver> {
        self.0.driver.borrow_mut()
    }

    fn door(&self) -> Arc<Door> {
        self.0.door.clone()
    }

    fn watch(&self, inbox: Rc<dyn mesh::Watch>) {
        self.0.watched.borrow_mut().push(inbox);
    }

    fn ring_bell(&self, door: &Door) {
        if self.0.life.get() != Life::Ended {
            self.driver().doorbell(door);
        }
    }

    fn handle(&self, kind: HandleKind, number: u64) -> Rc<Handle> {
        Handle::new(kind, number, &self.0.closings)
    }

    fn close_dropped(&self) {
        while let Some((kind, number)) = self.0.closings.pop() {
            self.driver().close(kind, number);
        }
    }

    /// Starts an operation.
    fn operate(&self, mut op: Op) -> Operation {
        if self.0.life.get() == Life::Ended {
            return Operation { reactor: self.clone(), state: OperationState::Refused(op) };
        }
        self.close_dropped();
        self.0.counters.count(&mut op);
        let id = self.with_ops(|driver, ops, counters| {
            let id = ops.insert(op);
            if let Some(result) = driver.start(id, ops.op(id), counters) {
                ops.complete(id, result);
            }
            id
        });
        Operation { reactor: self.clone(), state: OperationState::Started(id) }
    }

    async fn operate_unit(&self, op: Op) -> io::Result<()> {
        self.operate(op).await.0.map(|_| ())
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reactor({})", self.0.shard)
    }
}

/// An operation under way. Dropping it leaves the operation, with its memory, to the driver.
struct Operation {
    reactor: Reactor,
    state: OperationState,
}

enum OperationState {
    Started(OpId),
    /// The reactor had ended.
    Refused(Op),
    Over,
}

impl Future for Operation {
    type Output = (io::Result<u64>, Op);
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let OperationState::Started(id) = self.state {
            let polled = self.reactor.0.ops.borrow_mut().poll(id, cx);
            if polled.is_ready() {
                self.state = OperationState::Over;
            }
            return polled;
        }
        match std::mem::replace(&mut self.state, OperationState::Over) {
            OperationState::Refused(op) => Poll::Ready((Err(io::Error::other("the reactor has ended")), op)),
            OperationState::Started(_) | OperationState::Over => unreachable!("polled after its end"),
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if let OperationState::Started(id) = self.state {
            self.reactor.with_ops(|driver, ops, _| {
                if ops.abandon(id) {
                    driver.abandon(id, ops.op(id));
                }
            });
        }
    }
}

/// A wait for a time. Dropping it ends the wait. Allocates nothing once the reactor has had as many timers at once.
#[must_use = "a sleep does nothing unless it is awaited"]
pub struct Sleep {
    reactor: Reactor,
    at: Instant,
    timer: Option<TimerId>,
}

impl Future for Sleep {
    type Output = ();
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let reactor = self.reactor.clone();
        let mut timers = reactor.0.timers.borrow_mut();
        let fired = match &self.timer {
            Some(timer) => timers.poll(timer, cx.waker()),
            None if self.at <= reactor.now() => true,
            None => {
                self.timer = Some(timers.set(self.at, cx.waker().clone()));
                false
            }
        };
        if fired { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(timer) = self.timer.take() {
            self.reactor.0.timers.borrow_mut().cancel(timer);
        }
    }
}

impl Instant {
    /// The instant this many nanoseconds after the world began.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the world began.
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The instant `duration` later; the end of time if that is past it.
    #[must_use]
    pub fn plus(self, duration: Duration) -> Instant {
        Instant(self.0.saturating_add(u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)))
    }

    /// Time passed since `earlier`, or nothing if that is later.
    pub fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Counters {
    fn add_turn(&self, took: Duration) {
        self.turns.set(self.turns.get() + 1);
        if took > TURN_BUDGET {
            self.stalls.set(self.stalls.get() + 1);
        }
    }

    fn count(&self, op: &mut Op) {
        self.ops.set(self.ops.get() + 1);
        let flushes = matches!(
            op,
            Op::SyncData { .. } | Op::SyncDir { .. } | Op::SyncFs { .. } | Op::Write { sync: WriteSync::Data, .. }
        );
        self.flushes.set(self.flushes.get() + u64::from(flushes));
        match op {
            Op::Write { data, .. } => self.bytes_written.set(self.bytes_written.get() + data.len() as u64),
            Op::Read { buffer, .. } => self.bytes_read.set(self.bytes_read.get() + buffer.len() as u64),
            Op::Splice { length, .. } => self.bytes_read.set(self.bytes_read.get() + *length as u64),
            _ => {}
        }
    }
}
