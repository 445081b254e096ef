//! The driver over io_uring.
//!
//! `queue` is the two queues shared with the kernel, `operations` turns the front's operations into entries,
//! `sockets` does receives and accepts, `descriptors` knows what is open, `device` how a disk makes a
//! write durable, `provided` lends receive buffers, `helper` is the thread for what blocks, `probe` finds out what the
//! kernel can do, `start` puts all together and runs it, `boundary` ends the process at a chosen operation for tests.
#![allow(unsafe_code)]

mod boundary;
mod descriptors;
mod device;
mod helper;
mod operations;
mod probe;
mod provided;
mod queue;
mod sockets;
mod start;
#[cfg(test)]
mod tests;

#[cfg(feature = "planted")]
pub use boundary::{Boundary, Side, end_at, handed_over};
pub use device::DurableWrites;
pub use probe::{Avoid, CannotRun, Features, probe};
pub(crate) use provided::Provided;
pub use start::{Options, StartError, run_ring};

use super::buffers::Pool;
use super::door::Door;
use super::driver::{Drive, HandleKind};
use super::ops::{Op, OpId, Ops};
use super::socket::Chunk;
use super::{Counters, Instant};
use crate::model::Timestamp;
use descriptors::{Descriptors, What};
use device::Devices;
use helper::{Helper, Job};
use io_uring::{opcode, types};
use operations::{Next, Work};
use provided::Buffers;
use queue::{Completion, Kind, Order, Queue, Token};
use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

/// One shard's ring and all that it has in hand.
pub(crate) struct RingDriver {
    queue: Queue,
    features: Features,
    log: fn(&str),
    /// By slot of the operation. Boxed: the kernel holds pointers into it while the list grows.
    #[allow(clippy::vec_box)]
    work: Vec<Box<Work>>,
    descriptors: Descriptors,
    devices: Devices,
    buffers: Rc<Buffers>,
    pool: Pool,
    pool_registered: bool,
    /// Streams that wait for a receive buffer, in that order.
    starved: VecDeque<u64>,
    /// Streams and listeners to be paused if the tasks do not keep up.
    crowded: Vec<u64>,
    helper: Helper,
    /// Counts what the helper, or a core without ring messages, has to say.
    bell: Arc<OwnedFd>,
    /// What the kernel reads `bell` into.
    bell_count: Box<u64>,
    bell_armed: bool,
    door: Arc<Door>,
    random: u64,
    /// Operations started and not completed.
    in_flight: usize,
    /// Receives and accepts in the kernel.
    armed: usize,
    draining: bool,
    said_buffered: bool,
}

impl Drive for RingDriver {
    fn start(&mut self, id: OpId, op: &mut Op, _counters: &Counters) -> Option<io::Result<u64>> {
        self.begin(id, op)
    }

    fn abandon(&mut self, id: OpId, op: &Op) {
        // What waits for a peer may wait for ever. Disks answer; their memory is theirs until they do.
        if matches!(op, Op::Connect { .. } | Op::Send { .. } | Op::Splice { .. }) {
            self.cancel(Token::op(id));
        }
    }

    fn poll_receive(&mut self, stream: u64, cx: &mut Context<'_>) -> Poll<io::Result<Option<Chunk>>> {
        self.next_chunk(stream, cx)
    }

    fn poll_accept(&mut self, listener: u64, cx: &mut Context<'_>) -> Poll<io::Result<(u64, SocketAddr)>> {
        self.next_connection(listener, cx)
    }

    fn pause_receive(&mut self, stream: u64) {
        self.cancel_receive(stream);
    }

    fn shutdown(&mut self, stream: u64) {
        self.shut_stream(stream);
    }

    fn close(&mut self, kind: HandleKind, number: u64) {
        match kind {
            HandleKind::Stream => self.close_stream(number),
            HandleKind::Listener => self.close_listener(number),
            HandleKind::Pipe => drop(self.descriptors.remove(self.queue.ring(), number)),
            HandleKind::File => match self.descriptors.remove(self.queue.ring(), number) {
                (lock, What::Lock) => drop(lock),
                (file, _) => self.helper.ask(None, Job::Close(file)),
            },
        }
    }

    fn poll(&mut self, ops: &mut Ops, counters: &Counters) -> bool {
        self.tend_sockets();
        let mut matters = false;
        while self.queue.submit_first(counters) {
            matters |= self.take_in(ops);
            // A write that is done asks for its flush, which is not to wait for the sends of this turn.
            if !self.queue.has_first() {
                break;
            }
        }
        self.queue.submit_group(counters);
        matters | self.take_in(ops) | self.queue.has_more()
    }

    fn park(&mut self, ops: &mut Ops, counters: &Counters, until: Option<Instant>) {
        self.tend_sockets();
        // Those that were just armed may have nothing to read and leave the buffers to others that have.
        let more = !self.starved.is_empty() && self.buffers.available() > 0;
        let timeout = if more { Some(Duration::ZERO) } else { until.map(|until| until.since(self.now())) };
        self.queue.submit_and_wait(counters, timeout);
        self.take_in(ops);
    }

    fn doorbell(&mut self, door: &Door) {
        if !self.features.ring_messages {
            return door.counter().into_iter().for_each(helper::ring);
        }
        let ring = types::Fd(door.address() as i32);
        let entry = opcode::MsgRingData::new(ring, 0, Token::MESSAGE.to_bits(), None).build();
        // SAFETY: the entry points to nothing. If the other ring is gone, and its descriptor even taken by another,
        // the kernel refuses, or a ring of ours wakes for nothing.
        unsafe { self.queue.push(Order::First, entry, Token::NOTHING) };
    }

    fn door(&self) -> Arc<Door> {
        self.door.clone()
    }

    fn now(&self) -> Instant {
        monotonic()
    }

    fn wall_clock(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn random(&mut self) -> u64 {
        // splitmix64
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn drain(&mut self, ops: &mut Ops, counters: &Counters) {
        self.draining = true;
        for number in self.descriptors.numbers() {
            self.disarm(number);
        }
        for slot in 0..self.work.len() {
            if let Some(id) = self.work[slot].id {
                self.cancel(Token::op(id));
            }
        }
        while self.in_flight > 0 || self.armed > 0 {
            self.park(ops, counters, None);
        }
        if self.bell_armed {
            self.cancel(Token::BELL);
        }
        while self.bell_armed {
            self.park(ops, counters, None);
        }
    }
}

impl RingDriver {
    /// Takes in all completions. Whether there were any that matter.
    fn take_in(&mut self, ops: &mut Ops) -> bool {
        let completions = self.queue.take_completions();
        let mut matters = false;
        for completion in &completions {
            matters |= completion.token.kind != Kind::Nothing;
            self.dispatch(ops, *completion);
        }
        self.queue.give_back(completions);
        matters
    }

    fn dispatch(&mut self, ops: &mut Ops, completion: Completion) {
        match completion.token.kind {
            Kind::Op => self.op_completed(ops, completion),
            Kind::Receive => self.received(completion),
            Kind::Readable => self.readable(completion),
            Kind::Accept => self.accepted(completion),
            Kind::Bell => self.rung(ops),
            // The front looks at the mesh in its next turn.
            Kind::Message | Kind::Nothing => {}
        }
    }

    fn op_completed(&mut self, ops: &mut Ops, completion: Completion) {
        let slot = completion.token.index as usize;
        let Some(id) = self.work[slot].id else { unreachable!("a completion of no operation") };
        self.after_completion(id);
        match self.advance(id, ops.op(id), completion.result) {
            // At the end nobody waits for what a peer has not taken yet.
            Next::Again if self.draining && matches!(ops.op(id), Op::Send { .. } | Op::Splice { .. }) => {
                self.finish(ops, id, Err(ended()));
            }
            Next::Again => self.issue(id, ops.op(id)),
            Next::Done(result) => self.finish(ops, id, result),
        }
    }

    fn finish(&mut self, ops: &mut Ops, id: OpId, result: io::Result<u64>) {
        self.work[id.slot as usize].id = None;
        self.in_flight -= 1;
        ops.complete(id, result);
    }

    fn rung(&mut self, ops: &mut Ops) {
        self.bell_armed = false;
        while let Some((id, answer)) = self.helper.answer() {
            self.after_completion(id);
            let result = answer.map(|answer| self.answered(ops.op(id), answer));
            self.in_flight -= 1;
            ops.complete(id, result);
        }
        if !self.draining || self.in_flight > 0 {
            self.arm_bell();
        }
    }

    fn arm_bell(&mut self) {
        self.bell_armed = true;
        let count = (&raw mut *self.bell_count).cast();
        let entry = opcode::Read::new(types::Fd(self.bell.as_raw_fd()), count, 8).build();
        // SAFETY: the box stays where it is until the driver is dropped, which checks that the read is over.
        unsafe { self.queue.push(Order::InTurn, entry, Token::BELL) };
    }

    fn cancel(&mut self, token: Token) {
        // SAFETY: the entry points to nothing.
        unsafe { self.queue.push(Order::InTurn, opcode::AsyncCancel::new(token.to_bits()).build(), Token::NOTHING) };
    }

    /// Gives a number to something open.
    fn open(&mut self, fd: OwnedFd, what: What) -> u64 {
        self.descriptors.insert(self.queue.ring(), fd, what)
    }
}

impl Drop for RingDriver {
    /// What the kernel still writes to would be freed next. Only a panic amidst a panic gets here undrained.
    fn drop(&mut self) {
        if self.in_flight > 0 || self.armed > 0 || self.bell_armed {
            eprintln!("a ring ends with operations in flight: this is a bug");
            std::process::abort();
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("the reactor has ended")
}

/// Nanoseconds since boot, without a system call.
fn monotonic() -> Instant {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is valid for the call, which cannot fail for this clock.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    Instant::from_nanos(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
}
