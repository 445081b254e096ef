//! What a shard counts, and where the time of an acknowledged append goes.
//!
//! Counting must not be noticed: a count is a cell of the shard's own, and a stage costs a look at the clock where it
//! begins and one step in a histogram of fixed size. What is asked for over the mesh is a copy.

use super::{Partitions, Shard};
use crate::model::ShardId;
use crate::reactor::Instant;
use hdrhistogram::Histogram;
use std::cell::{Cell, RefCell};
use std::time::Duration;

/// Durations are told apart to 64 ns and beyond 16 us to one in a hundred; longer ones count as this.
const STAGE_TIME_MAX: Duration = Duration::from_secs(100);
const STAGE_TIME_STEP: Duration = Duration::from_nanos(64);
const STAGE_DIGITS: u8 = 2;

/// A part of the way of an append, from its arrival at the core to its acknowledgement. They follow each other without
/// gaps, so that their means add up to the mean of the whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// From the turn in which the last bytes of its frame were there until it is looked at.
    Receive,
    /// Checksum, lengths, counts.
    Validate,
    /// Until an entry is begun that holds it: the copy to the tail, the wait for its segment, the wait for the commit
    /// under way.
    Queue,
    /// Building the entry, and writing what the flush does not write itself: blocks that go straight to segments.
    Write,
    /// Until it is as durable as its topic asks, with every entry before it.
    Flush,
    /// Until the kernel has taken its acknowledgement. Of those sent together the oldest counts for all.
    Send,
}

impl Stage {
    /// All of them, in the order in which an append passes them.
    pub const ALL: [Stage; 6] =
        [Stage::Receive, Stage::Validate, Stage::Queue, Stage::Write, Stage::Flush, Stage::Send];

    /// Its name in protocols and tables.
    pub fn name(self) -> &'static str {
        match self {
            Stage::Receive => "receive",
            Stage::Validate => "validate",
            Stage::Queue => "queue",
            Stage::Write => "write",
            Stage::Flush => "flush",
            Stage::Send => "send",
        }
    }
}

/// How long appends were in each stage, since the start.
#[derive(Debug)]
pub struct Stages([Recorder; Stage::ALL.len()]);

#[derive(Debug)]
struct Recorder {
    histogram: RefCell<Histogram<u64>>,
    /// The histogram's own sum is rounded.
    nanoseconds: Cell<u64>,
}

impl Default for Recorder {
    #[expect(clippy::expect_used, reason = "the bounds are constants that the library accepts")]
    fn default() -> Recorder {
        let (step, max) = (STAGE_TIME_STEP.as_nanos() as u64, STAGE_TIME_MAX.as_nanos() as u64);
        let histogram = Histogram::new_with_bounds(step, max, STAGE_DIGITS).expect("bounds of a histogram");
        Recorder { histogram: RefCell::new(histogram), nanoseconds: Cell::new(0) }
    }
}

impl Default for Stages {
    fn default() -> Stages {
        Stages(std::array::from_fn(|_| Recorder::default()))
    }
}

impl Stages {
    /// So many appends were this long in a stage.
    pub fn record(&self, stage: Stage, took: Duration, appends: u64) {
        let recorder = &self.0[stage as usize];
        let took = took.min(STAGE_TIME_MAX).as_nanos() as u64;
        recorder.histogram.borrow_mut().saturating_record_n(took, appends);
        recorder.nanoseconds.set(recorder.nanoseconds.get() + took * appends);
    }

    /// The stages of an append that was committed.
    pub(super) fn record_commit(&self, since: Instant, commit: &CommitTimes) {
        self.record(Stage::Queue, commit.built.since(since), 1);
        self.record(Stage::Write, commit.flushing.since(commit.built), 1);
        self.record(Stage::Flush, commit.durable.since(commit.flushing), 1);
    }

    fn stats(&self) -> Vec<StageStats> {
        Stage::ALL.iter().zip(&self.0).map(|(stage, recorder)| recorder.stats(*stage)).collect()
    }
}

impl Recorder {
    fn stats(&self, stage: Stage) -> StageStats {
        let histogram = self.histogram.borrow();
        let bucket = |found: hdrhistogram::iterators::IterationValue<u64>| Bucket {
            up_to: Duration::from_nanos(found.value_iterated_to()),
            count: found.count_at_value(),
        };
        StageStats {
            stage,
            sum: Duration::from_nanos(self.nanoseconds.get()),
            buckets: histogram.iter_recorded().map(bucket).collect(),
        }
    }
}

/// When an entry passed its stages.
#[derive(Debug, Clone, Copy)]
pub(super) struct CommitTimes {
    /// It was begun.
    pub(super) built: Instant,
    /// What makes it durable was begun.
    pub(super) flushing: Instant,
    /// It is durable.
    pub(super) durable: Instant,
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct ShardCounters {
    /// Produces that were appended.
    pub appends: Cell<u64>,
    /// Records of them.
    pub appended_records: Cell<u64>,
    /// Bytes of their batches.
    pub appended_bytes: Cell<u64>,
    /// Produces whose batch was in the log already.
    pub duplicates: Cell<u64>,
    /// Bytes of batches that were read for readers, from memory or disk.
    pub read_bytes: Cell<u64>,
    /// Of those, bytes from the tail in memory.
    pub read_memory_bytes: Cell<u64>,
    /// Of those, bytes that were read past the page cache.
    pub read_direct_bytes: Cell<u64>,
    /// Of those, bytes that were spliced from their file to the reader's socket.
    pub read_splice_bytes: Cell<u64>,
    /// Requests that were answered for another shard.
    pub crossings: Cell<u64>,
    /// Journal entries that became durable.
    pub commits: Cell<u64>,
    /// Bytes of journal entries.
    pub journal_bytes: Cell<u64>,
    /// Bytes that commits wrote to segments directly.
    pub direct_bytes: Cell<u64>,
    /// Checkpoints that were begun.
    pub checkpoints_begun: Cell<u64>,
    /// Checkpoints that were completed; fewer than were begun while one is under way, or after an error.
    pub checkpoints: Cell<u64>,
    /// Passes of compaction.
    pub compactions: Cell<u64>,
    /// Records that it left out.
    pub compacted_records: Cell<u64>,
    /// Bytes of segments that it wrote anew.
    pub compacted_bytes_before: Cell<u64>,
    /// Bytes of those that it wrote.
    pub compacted_bytes_after: Cell<u64>,
    /// Times that the shard recovered from an I/O error.
    pub reopenings: Cell<u64>,
    /// Connections that were accepted; by who serves them.
    pub connections_accepted: Cell<u64>,
    /// Connections open now; by who serves them.
    pub connections: Cell<u64>,
    /// Requests of clients; by who serves them.
    pub requests: Cell<u64>,
    /// Requests that were answered with an error; by who serves them.
    pub refusals: Cell<u64>,
    /// Times that a producer was not read from for being ahead of its rate; by who serves it.
    pub throttles: Cell<u64>,
}

/// Adds to a count.
pub fn count(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

/// Whether a number only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountKind {
    /// Counted since the start.
    Total,
    /// As it is now.
    Now,
}

/// A number that an operator looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Count {
    /// Its name in protocols and tables, unit included.
    pub name: &'static str,
    /// What it says, in one line.
    pub about: &'static str,
    /// Whether it only grows.
    pub kind: CountKind,
    /// The number.
    pub value: u64,
}

/// How many appends were in a stage for about the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bucket {
    /// Nobody was in it for longer than this, nor for as short as the bucket before tells.
    pub up_to: Duration,
    /// How many.
    pub count: u64,
}

/// How long appends were in a stage, since the start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageStats {
    /// Which.
    pub stage: Stage,
    /// The times of all appends together.
    pub sum: Duration,
    /// Ascending; those without appends are left out.
    pub buckets: Vec<Bucket>,
}

/// All that a shard counts, as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStats {
    /// Which shard.
    pub shard: ShardId,
    /// In a fixed order.
    pub counts: Vec<Count>,
    /// In the order of [`Stage::ALL`].
    pub stages: Vec<StageStats>,
}

fn total(name: &'static str, about: &'static str, counter: &Cell<u64>) -> Count {
    Count { name, about, kind: CountKind::Total, value: counter.get() }
}

fn now(name: &'static str, about: &'static str, value: usize) -> Count {
    Count { name, about, kind: CountKind::Now, value: value as u64 }
}

impl Shard {
    /// What this shard has counted.
    pub fn counters(&self) -> &ShardCounters {
        &self.0.counters
    }

    /// Where the time of its appends went. Who serves connections records [`Stage::Receive`] and [`Stage::Send`].
    pub fn stages(&self) -> &Stages {
        &self.0.stages
    }

    /// A copy of all that this shard counts.
    pub fn stats(&self) -> ShardStats {
        let mut counts = self.totals();
        counts.extend(self.states());
        ShardStats { shard: self.id(), counts, stages: self.0.stages.stats() }
    }

    fn totals(&self) -> Vec<Count> {
        let (own, reactor) = (&self.0.counters, self.reactor().counters());
        vec![
            total("connections_accepted", "Connections that were accepted", &own.connections_accepted),
            total("requests", "Requests of clients", &own.requests),
            total("refusals", "Requests that were answered with an error", &own.refusals),
            total("throttles", "Times that a producer ahead of its rate was not read from for a while", &own.throttles),
            total("appends", "Produces that were appended", &own.appends),
            total("appended_records", "Records that were appended", &own.appended_records),
            total("appended_bytes", "Bytes of record batches that were appended", &own.appended_bytes),
            total(
                "duplicates",
                "Produces whose batch was in the log already, told by its producer's number",
                &own.duplicates,
            ),
            total("read_bytes", "Bytes of record batches that were read for readers", &own.read_bytes),
            total("read_memory_bytes", "Of those, from memory", &own.read_memory_bytes),
            total("read_direct_bytes", "Of those, by direct reads of segments", &own.read_direct_bytes),
            total("read_splice_bytes", "Of those, spliced from segments to sockets", &own.read_splice_bytes),
            total("crossings", "Requests that were answered for another shard", &own.crossings),
            total("commits", "Journal entries that became durable", &own.commits),
            total("journal_bytes", "Bytes of journal entries", &own.journal_bytes),
            total("direct_bytes", "Bytes that commits wrote to segments directly", &own.direct_bytes),
            total("checkpoints", "Checkpoints that were completed", &own.checkpoints),
            total("compactions", "Passes of compaction over a partition", &own.compactions),
            total("compacted_records", "Records that compaction left out", &own.compacted_records),
            total(
                "compacted_bytes_before",
                "Bytes of segments that compaction wrote anew",
                &own.compacted_bytes_before,
            ),
            total("compacted_bytes_after", "Bytes of the segments that it wrote", &own.compacted_bytes_after),
            total("reopenings", "Times that the log was read again after an I/O error", &own.reopenings),
            total("flushes", "Flushes of the device, and writes that are durable in themselves", &reactor.flushes),
            total("disk_written_bytes", "Bytes written to files", &reactor.bytes_written),
            total("disk_read_bytes", "Bytes read from files", &reactor.bytes_read),
            total("ring_calls", "System calls to io_uring", &reactor.submits),
            total("ring_operations", "Operations given to io_uring", &reactor.ops),
            total("turns", "Turns of the run loop in which a task ran", &reactor.turns),
            total("stalls", "Turns that took longer than they should", &reactor.stalls),
            total("parks", "Times the core went to sleep for want of work", &reactor.parks),
        ]
    }

    fn states(&self) -> Vec<Count> {
        let (own, pool) = (&self.0.counters, self.reactor().pool());
        let (partitions, fenced) = self.0.partitions.borrow().count();
        let journal = self.0.journal.borrow().used() as usize;
        vec![
            now("connections", "Connections that are open", own.connections.get() as usize),
            now("partitions", "Partitions that live here", partitions),
            now("fenced_partitions", "Partitions that are damaged and take no writes", fenced),
            now(
                "storage_full",
                "1 while produces are refused for want of disk space",
                self.0.storage_full.get().into(),
            ),
            now("journal_used_bytes", "Bytes of the journal that a checkpoint has yet to free", journal),
            now("producers", "Producers that number their batches, once for each partition", self.producers_known()),
            now("tail_bytes", "Memory of what is newest in each partition", self.0.tail_bytes.get()),
            now("pipes", "Readers that are spliced to", self.reactor().counters().pipes.get()),
            now("read_window_bytes", "Memory of what was read from disk", self.0.read_bytes.get()),
            now("buffer_bytes", "Memory for buffers", pool.total_bytes()),
            now("buffer_free_bytes", "Memory for buffers that is free", pool.free_bytes()),
        ]
    }
}

impl Partitions {
    /// How many there are, and how many of them are fenced.
    fn count(&self) -> (usize, usize) {
        let fenced = self.slots.iter().filter(|(_, (_, partition))| partition.fenced.is_some()).count();
        (self.slots.len(), fenced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_keeps_its_sum_and_tells_short_times_apart() {
        let stages = Stages::default();
        for (nanoseconds, appends) in [(100, 1), (150, 2), (1_000_000, 3)] {
            stages.record(Stage::Queue, Duration::from_nanos(nanoseconds), appends);
        }
        let stats = stages.stats();
        assert_eq!(stats.iter().map(|stage| stage.stage).collect::<Vec<_>>(), Stage::ALL);
        let queue = &stats[Stage::Queue as usize];
        assert_eq!(queue.sum, Duration::from_nanos(100 + 2 * 150 + 3_000_000));
        assert_eq!(queue.buckets.iter().map(|bucket| bucket.count).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(queue.buckets[0].up_to, Duration::from_nanos(127));
        assert!(queue.buckets[2].up_to >= Duration::from_millis(1));
        assert!(stats[Stage::Send as usize].buckets.is_empty());
    }

    #[test]
    fn a_time_beyond_the_last_bucket_counts_in_it() {
        let stages = Stages::default();
        stages.record(Stage::Flush, Duration::from_secs(1000), 1);
        let flush = &stages.stats()[Stage::Flush as usize];
        assert_eq!((flush.sum, flush.buckets.len()), (STAGE_TIME_MAX, 1));
    }
}
