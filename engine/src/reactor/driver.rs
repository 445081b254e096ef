//! What stands behind the seam: the contract of a driver, and the two there are.

use super::door::Door;
use super::ops::{Op, OpId, Ops};
use super::ring::RingDriver;
use super::sim::SimDriver;
use super::socket::Chunk;
use super::{Counters, Instant};
use crate::model::Timestamp;
use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

/// What a driver must do. The front calls it with itself borrowed, so a driver never calls back into the reactor: it
/// answers through return values, through [`Ops::complete`] and by waking wakers, which only queues tasks.
///
/// Order within one iteration of a run loop: `Reactor::turn` fires timers (by `now`), wakes readers of the mesh, runs
/// ready tasks (which call `start`, `poll_receive`, ...), then calls `close` for every handle dropped. After it the
/// run loop, which belongs to the driver, takes in completions with `poll`, and parks when the turn said it was idle.
/// `close` of what was dropped always comes before the next `start`.
pub(crate) trait Drive {
    /// Begins an operation. `Some` if it is over at once; else the driver calls [`Ops::complete`] for this id exactly
    /// once, from `poll` or `park`, when nothing outside holds the operation's memory any more. The op stays in its
    /// slot until then; the driver looks it up again with [`Ops::op`].
    fn start(&mut self, id: OpId, op: &mut Op, counters: &Counters) -> Option<io::Result<u64>>;

    /// Nobody waits for the operation any more. It must still be completed once; sooner, if it can be cancelled.
    fn abandon(&mut self, id: OpId, op: &Op);

    /// The next piece that arrived on a stream, in order: `Ok(None)` at an orderly end and again on each call after
    /// it, or after `shutdown`; an error such as a reset stays as well. `Pending` keeps the waker and wakes it once
    /// when this would be ready. Receives nothing further from the peer while 4 chunks lie unclaimed, or one where buffers
    /// are scarce, give or take what was under way already.
    fn poll_receive(&mut self, stream: u64, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>>;

    /// Receives no more from the peer until `poll_receive` is called again, give or take what was under way.
    fn pause_receive(&mut self, stream: u64);

    /// The next connection that arrived, as the number of a stream and its peer. One waker is kept, as above.
    fn poll_accept(&mut self, listener: u64, cx: &mut Context<'_>) -> Poll<io::Result<(u64, SocketAddr)>>;

    /// Ends both directions of a stream: what was sent arrives, then the peer sees the end; sends fail from now on,
    /// a send under way too; `poll_receive` gives what is queued, then `Ok(None)`.
    fn shutdown(&mut self, stream: u64);

    /// The last owner of a file, stream or listener is gone; no operation on it is in flight. Unclaimed chunks and
    /// connections of it are dropped. A lock must be free when this returns; the rest may take its time.
    fn close(&mut self, kind: HandleKind, number: u64);

    /// Hands everything started to the world and takes in all that is complete, without waiting. Returns whether
    /// anything was taken in.
    fn poll(&mut self, ops: &mut Ops, counters: &Counters) -> bool;

    /// As `poll`, but waits for something to be complete, for another core's doorbell, or for `until`. Called with
    /// [`Door::close_eyes`] done and the mesh found empty.
    fn park(&mut self, ops: &mut Ops, counters: &Counters, until: Option<Instant>);

    /// Makes the owner of a door leave its `park`.
    fn doorbell(&mut self, door: &Door);

    /// The door of this reactor itself.
    fn door(&self) -> Arc<Door>;

    /// Time since the world began; never goes back.
    fn now(&self) -> Instant;

    /// What the calendar says.
    fn wall_clock(&self) -> Timestamp;

    /// Unpredictable in the ring, decided by the seed in the simulator.
    fn random(&mut self) -> u64;

    /// The reactor ends, its tasks are dropped: cancels what can be cancelled and completes every operation that is
    /// in flight. When this returns, nothing outside holds memory of an operation.
    fn drain(&mut self, ops: &mut Ops, counters: &Counters);
}

/// One of the drivers there are. An enum, so that nothing above carries a type parameter; the branch is predicted.
pub(crate) enum Driver {
    /// The Linux kernel, through io_uring.
    Ring(Box<RingDriver>),
    /// A simulated world.
    Sim(Box<SimDriver>),
}

/// Calls a method of the driver in hand.
macro_rules! with_driver {
    ($self:expr, $driver:ident => $call:expr) => {
        match $self {
            Driver::Ring($driver) => $call,
            Driver::Sim($driver) => $call,
        }
    };
}

impl Drive for Driver {
    fn start(&mut self, id: OpId, op: &mut Op, counters: &Counters) -> Option<io::Result<u64>> {
        with_driver!(self, driver => driver.start(id, op, counters))
    }
    fn abandon(&mut self, id: OpId, op: &Op) {
        with_driver!(self, driver => driver.abandon(id, op));
    }
    fn poll_receive(&mut self, stream: u64, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        with_driver!(self, driver => driver.poll_receive(stream, cx))
    }
    fn pause_receive(&mut self, stream: u64) {
        with_driver!(self, driver => driver.pause_receive(stream))
    }
    fn poll_accept(&mut self, listener: u64, cx: &mut Context<'_>) -> Poll<io::Result<(u64, SocketAddr)>> {
        with_driver!(self, driver => driver.poll_accept(listener, cx))
    }
    fn shutdown(&mut self, stream: u64) {
        with_driver!(self, driver => driver.shutdown(stream));
    }
    fn close(&mut self, kind: HandleKind, number: u64) {
        with_driver!(self, driver => driver.close(kind, number));
    }
    fn poll(&mut self, ops: &mut Ops, counters: &Counters) -> bool {
        with_driver!(self, driver => driver.poll(ops, counters))
    }
    fn park(&mut self, ops: &mut Ops, counters: &Counters, until: Option<Instant>) {
        with_driver!(self, driver => driver.park(ops, counters, until));
    }
    fn doorbell(&mut self, door: &Door) {
        with_driver!(self, driver => driver.doorbell(door));
    }
    fn door(&self) -> Arc<Door> {
        with_driver!(self, driver => driver.door())
    }
    fn now(&self) -> Instant {
        with_driver!(self, driver => driver.now())
    }
    fn wall_clock(&self) -> Timestamp {
        with_driver!(self, driver => driver.wall_clock())
    }
    fn random(&mut self) -> u64 {
        with_driver!(self, driver => driver.random())
    }
    fn drain(&mut self, ops: &mut Ops, counters: &Counters) {
        with_driver!(self, driver => driver.drain(ops, counters));
    }
}

/// What a number of the driver stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandleKind {
    File,
    Stream,
    Listener,
    Pipe,
}

/// Ownership of something open in the driver. Operations in flight hold it too, so a handle is closed after them.
#[derive(Debug)]
pub(crate) struct Handle {
    kind: HandleKind,
    number: u64,
    closings: Rc<Closings>,
}

/// Handles that were dropped and wait for the driver to close them. A drop may happen while the driver is borrowed, so
/// it only leaves a note here.
#[derive(Debug, Default)]
pub(crate) struct Closings(RefCell<Vec<(HandleKind, u64)>>);

impl Handle {
    pub(super) fn new(kind: HandleKind, number: u64, closings: &Rc<Closings>) -> Rc<Handle> {
        Rc::new(Handle { kind, number, closings: closings.clone() })
    }

    /// The driver's name for it.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.closings.push(self.kind, self.number);
    }
}

impl Closings {
    pub(super) fn push(&self, kind: HandleKind, number: u64) {
        self.0.borrow_mut().push((kind, number));
    }

    pub(super) fn pop(&self) -> Option<(HandleKind, u64)> {
        self.0.borrow_mut().pop()
    }
}
