//! What must hold in every run, whatever goes wrong. One invariant a file, with its statement on top.
//!
//! The harness tells what it asked for, what it was told and what it read; each invariant keeps what it needs of that
//! and says at once when it is broken.

mod acknowledged;
mod contiguous;
mod memory;
mod one_flush;
mod ordered;
mod stable;
mod topics;

use crate::records::{RecordId, SeenBatch};
use corelog_engine::metadata::Durability;
use corelog_engine::model::PartitionId;
use corelog_engine::reactor::sim::CrashKind;
use std::cell::RefCell;
use std::rc::Rc;

/// Something that a run did, or was told.
#[derive(Debug, Clone)]
#[expect(missing_docs, reason = "the variants say what their fields are")]
pub enum Event<'a> {
    /// A topic's creation was acknowledged.
    Created { topic: &'a str, partitions: u32 },
    /// A topic's creation or deletion was begun: until it is acknowledged it may or may not have happened.
    TopicUncertain { topic: &'a str },
    /// A topic's deletion was acknowledged.
    Deleted { topic: &'a str },
    /// All the topics there are, after a start.
    Topics { listed: &'a [(String, u32)] },
    /// An append of `records` records is on its way.
    Appending { partition: PartitionId, append: u64, records: u32, durability: Durability },
    /// It was acknowledged at these offsets, first and last.
    Acknowledged { partition: PartitionId, append: u64, base: i64, last: i64 },
    /// It was refused for certain: nothing of it is in the log.
    Refused { partition: PartitionId, append: u64 },
    /// A reader that asked for `from` was given this.
    Read { partition: PartitionId, from: i64, high_watermark: i64, batches: &'a [SeenBatch] },
    /// The log's extent as the engine tells it.
    Extent { partition: PartitionId, first: i64, next: i64, high_watermark: i64 },
    /// A partition says that it is damaged: what it lost is told, not hidden.
    Fenced { partition: PartitionId },
    /// Records before this offset may be gone from now on.
    Deleting { partition: PartitionId, before: i64 },
    /// A node crashed.
    Crashed { kind: CrashKind },
    /// Recovery is over and all was read from first to last: nothing more will come.
    Finished { partition: PartitionId, first: i64, next: i64 },
    /// Memory for buffers in use on a shard, and its bound.
    Memory { used: usize, bound: usize },
    /// Flushes of a shard since it serves, begun without faults, and what they were for. So many entries may be on their way.
    Flushes { flushes: u64, entries: u64, checkpoints: u64, under_way: u64 },
    /// A quiet shard was given a batch for each of so many partitions at once, and took so many flushes for them.
    Burst { partitions: u64, flushes: u64 },
}

impl Event<'_> {
    /// What it is about, if that is one partition.
    fn partition(&self) -> Option<PartitionId> {
        match *self {
            Event::Appending { partition, .. }
            | Event::Acknowledged { partition, .. }
            | Event::Refused { partition, .. }
            | Event::Read { partition, .. }
            | Event::Extent { partition, .. }
            | Event::Fenced { partition }
            | Event::Deleting { partition, .. }
            | Event::Finished { partition, .. } => Some(partition),
            _ => None,
        }
    }
}

/// One statement about all runs.
trait Invariant {
    /// Its name, for the report.
    fn name(&self) -> &'static str;

    /// Takes note of an event.
    ///
    /// # Errors
    /// What is wrong, if this event breaks the invariant.
    fn observe(&mut self, event: &Event<'_>) -> Result<(), String>;
}

/// All invariants of one run. A cheap handle for everybody who has something to tell.
#[derive(Clone)]
pub struct Observer(Rc<RefCell<Inner>>);

struct Inner {
    invariants: Vec<Box<dyn Invariant>>,
    broken: Option<String>,
}

impl Default for Observer {
    fn default() -> Observer {
        let invariants: Vec<Box<dyn Invariant>> = vec![
            Box::new(acknowledged::Acknowledged::default()),
            Box::new(contiguous::Contiguous),
            Box::new(memory::Memory),
            Box::new(one_flush::OneFlush),
            Box::new(ordered::Ordered::default()),
            Box::new(stable::Stable::default()),
            Box::new(topics::Topics::default()),
        ];
        Observer(Rc::new(RefCell::new(Inner { invariants, broken: None })))
    }
}

impl Observer {
    /// Tells all invariants. The first one that is broken is remembered.
    pub fn tell(&self, event: &Event<'_>) {
        let inner = &mut *self.0.borrow_mut();
        for invariant in &mut inner.invariants {
            if let Err(why) = invariant.observe(event) {
                inner.broken.get_or_insert_with(|| format!("{}: {why}", invariant.name()));
            }
        }
    }

    /// Notes that something is wrong that no invariant is about.
    pub fn broken_by(&self, why: String) {
        self.0.borrow_mut().broken.get_or_insert(why);
    }

    /// What was found to be wrong first.
    pub fn broken(&self) -> Option<String> {
        self.0.borrow().broken.clone()
    }
}

/// Whether records of this durability are there for certain after a crash of this kind.
fn survives(durability: Durability, kind: CrashKind) -> bool {
    match durability {
        Durability::Flush => true,
        Durability::Write => kind == CrashKind::Kill,
        Durability::Memory => false,
    }
}

/// A record as people read it.
fn shown(id: RecordId) -> String {
    format!("record {} of append {}", id.index, id.append)
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_engine::model::{PartitionIndex, TopicId};

    pub(super) const PARTITION: PartitionId = PartitionId { topic: TopicId::METADATA, index: PartitionIndex(0) };

    pub(super) fn appending(append: u64, records: u32) -> Event<'static> {
        Event::Appending { partition: PARTITION, append, records, durability: Durability::Flush }
    }

    pub(super) fn acknowledged(append: u64, base: i64, last: i64) -> Event<'static> {
        Event::Acknowledged { partition: PARTITION, append, base, last }
    }

    /// A batch at `base` with the first `count` records of an append.
    pub(super) fn batch(append: u64, base: i64, count: u32) -> SeenBatch {
        let records = (0..count).map(|index| (base + i64::from(index), RecordId { append, index })).collect();
        SeenBatch { base, next: base + i64::from(count), records }
    }

    pub(super) fn read(from: i64, batches: &[SeenBatch]) -> Event<'_> {
        let high_watermark = batches.last().map_or(from, |batch| batch.next);
        Event::Read { partition: PARTITION, from, high_watermark, batches }
    }

    pub(super) fn extent(first: i64, next: i64) -> Event<'static> {
        Event::Extent { partition: PARTITION, first, next, high_watermark: next }
    }

    #[test]
    fn the_first_thing_wrong_is_reported_with_its_invariant() {
        let observer = Observer::default();
        observer.tell(&appending(1, 1));
        assert_eq!(observer.broken(), None);
        observer.tell(&read(5, &[batch(1, 7, 1)]));
        observer.broken_by("later".into());
        assert!(observer.broken().unwrap().starts_with("contiguous: "));
    }
}
