//! What a connection has under way, against its bounds: the part of it that every dialect has.

use super::connection::Connection;
use super::dialect::Dialect;
use super::outbox::Outbox;
use super::server::Common;
use corelog_engine::reactor::Instant;
use std::time::Duration;

/// Bytes that are read for a client although the shard is full.
const SCANT_BYTES: usize = 64 << 10;
const MEMORY_PAUSE: Duration = Duration::from_millis(5);

/// How far a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Nobody said yet what is spoken.
    Greeting,
    /// Requests are taken.
    Serving,
    /// No more requests; what was begun is answered, then the connection ends.
    Draining,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Flow {
    pub(crate) phase: Phase,
    pub(crate) outbox: Outbox,
    /// Requests not answered yet.
    pub(crate) requests: usize,
    /// Bytes of produces not answered yet.
    pub(crate) request_bytes: usize,
    /// Lengthy requests that have a task.
    pub(crate) errands: usize,
    /// The next wait that ends by itself.
    pub(crate) due: Option<Instant>,
    /// That became earlier, which the sending task does not know yet.
    due_changed: bool,
    /// A response could not be queued, so that nothing more can be.
    pub(crate) broken: bool,
}

impl Flow {
    pub(crate) fn new(common: &Common) -> Flow {
        Flow {
            phase: Phase::Greeting,
            outbox: Outbox::new(common.shard.reactor().pool(), &common.outgoing_bytes),
            requests: 0,
            request_bytes: 0,
            errands: 0,
            due: None,
            due_changed: false,
            broken: false,
        }
    }

    /// Whether a request of so many bytes may begin now.
    pub(crate) fn admits(&mut self, common: &Common, bytes: usize) -> bool {
        let limits = &common.limits;
        // While memory is short, who takes nothing gets nothing more.
        if self.outbox.bytes() > 0 && common.is_full() {
            return false;
        }
        self.requests < limits.requests_max
            && (self.request_bytes == 0 || self.request_bytes + bytes <= limits.request_bytes_max)
            && self.errands < limits.errands_max
            && self.outbox.bytes() < limits.outgoing_bytes_max
            && self.outbox.is_ready()
    }

    /// Whether a connection that ends has nothing left to do.
    pub(super) fn is_finished(&self) -> bool {
        self.broken || self.phase == Phase::Draining && self.requests == 0
    }

    /// Whether the sending task has something to do, beside what readers want.
    pub(super) fn has_work(&self) -> bool {
        self.outbox.bytes() > 0 || self.due_changed || self.phase == Phase::Draining
    }

    /// Without memory for a response the connection ends: what its client would get later makes no sense to it.
    pub(crate) fn give_up(&mut self) {
        self.broken = true;
        self.phase = Phase::Draining;
    }

    /// Sees to it that the sending task looks at waits at `at` or earlier.
    pub(crate) fn due_by(&mut self, at: Instant) {
        if self.due.is_none_or(|due| at < due) {
            self.due = Some(at);
            self.due_changed = true;
        }
    }

    /// The sending task looks at everything now.
    pub(super) fn begin_work(&mut self) {
        self.due_changed = false;
    }

    /// Whether waits are over; then those that are not say anew when they will be.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        let is_due = self.due.is_some_and(|due| due <= now);
        if is_due {
            self.due = None;
        }
        is_due
    }

    /// No memory for responses: outcomes stay where they are until there is some, and waits that are over too.
    pub(crate) fn wait_for_memory(&mut self, now: Instant) {
        self.due = self.due.filter(|due| *due > now);
        self.due_by(now.plus(MEMORY_PAUSE));
    }

    /// How much may be read for the client now, of `bytes_max`. Those who are slow to take much must not keep the others
    /// from reading: who has taken all gets a little though the shard is full, as long as there is memory.
    pub(crate) fn allowance(&self, common: &Common, bytes_max: usize) -> Option<usize> {
        if !common.is_full() {
            return Some(bytes_max);
        }
        let has_taken_all = self.outbox.bytes() == 0 && !common.is_memory_short();
        has_taken_all.then_some(bytes_max.min(SCANT_BYTES))
    }

    /// Whether an answer of another shard may be kept for the client. More than its bound it gets only if it takes some.
    pub(crate) fn has_room(&self, common: &Common) -> bool {
        self.outbox.bytes() < common.limits.outgoing_bytes_max && self.allowance(common, 1).is_some()
    }

    /// Something lengthy begins in a task of its own.
    pub(crate) fn begin_errand(&mut self) {
        self.errands += 1;
        self.requests += 1;
    }

    /// It ended, and its connection may go on.
    pub(crate) fn end_errand<D: Dialect>(&mut self, connection: &Connection<D>) {
        self.errands -= 1;
        self.requests -= 1;
        connection.room.notify();
        connection.session.wake();
    }
}
