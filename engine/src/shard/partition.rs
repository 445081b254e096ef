//! One partition's state in memory: where its log begins and ends, what of it is where, and who waits for it.
//!
//! A byte of the log goes this way: appended to the tail (`next`), put in a journal entry (`journaled`), visible to
//! readers once the entry is as durable as the topic asks (`visible`), and written to its segment by a checkpoint:
//!
//! ```text
//! first <= checkpointed.next <= journaled.next <= next,   checkpointed.next <= visible <= next
//! ```
//!
//! Nothing here waits or does I/O; the shard's tasks do, and tell the partition what happened.

use super::append::{Asker, Waiting};
use super::session::{Appended, Session};
use crate::limits::PARTITION_BYTES;
use crate::log::checkpoint::Extent;
use crate::log::index::{ENTRIES_MAX, Entry, SparseIndex};
use crate::log::journal::PRODUCED_MAX;
use crate::log::paths::SegmentName;
use crate::log::tail::{Place, Tail};
use crate::metadata::{Durability, TopicSettings};
use crate::model::{LeaderEpoch, Offset, PartitionId, Position, ProducerId, Timestamp};
use crate::planted::{self, Bug};
use crate::producer::{self, Produced, Window};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

/// See the module.
#[derive(Debug)]
pub(crate) struct Partition {
    /// Which one.
    pub(crate) id: PartitionId,
    /// Its topic's settings.
    pub(crate) settings: TopicSettings,
    /// Only the node itself writes to it.
    pub(crate) is_internal: bool,
    /// First offset of the log; retention and deletion of records advance it.
    pub(crate) first: Offset,
    /// The offset that the next record gets.
    pub(crate) next: Offset,
    /// Records below are shown to readers (the high watermark of one replica).
    pub(crate) visible: Offset,
    /// Where the batch at `visible` begins, or will.
    pub(crate) visible_end: Place,
    /// Start offsets of the leader epochs that the log has records of.
    pub(crate) epochs: BTreeMap<LeaderEpoch, Offset>,
    /// Acknowledged records from this offset on were found lost at recovery; said in every checkpoint file.
    pub(crate) lost_from: Option<Offset>,
    /// The term in which this node leads, stamped on every batch.
    pub(crate) leader_epoch: LeaderEpoch,
    /// Segments that get no more batches, oldest first.
    pub(crate) sealed: VecDeque<Sealed>,
    /// How often some of them were written anew: then what a reader knows of places in files is no longer so.
    pub(crate) rewrites: u64,
    /// A checkpoint says that some of them are written anew; until it is durable none is dropped.
    pub(crate) swapping: bool,
    /// Compaction has looked at every key before this offset.
    pub(crate) cleaned: Offset,
    /// The segment that gets the next batch, if there ever was one.
    pub(crate) active: Option<Active>,
    /// The newest bytes.
    pub(crate) tail: Tail,
    /// Appended and in no journal entry yet: one run a segment and commit.
    pub(crate) runs: VecDeque<Run>,
    /// Producers that number their batches, as of `next`.
    pub(crate) producers: BTreeMap<ProducerId, Window>,
    /// Their batches in `runs`.
    pub(crate) produced: VecDeque<Produced>,
    /// What journal entries hold.
    pub(crate) journaled: Mark,
    /// What checkpoints need to know.
    pub(crate) checkpoint: CheckpointSide,
    /// Appends whose records are not yet as durable as they asked for, in the order of their offsets.
    pub(crate) acks: VecDeque<Ack>,
    /// Readers at the end of the log.
    pub(crate) watchers: Vec<Watcher>,
    /// Appends that wait for the segment to be made ready, in order.
    pub(crate) deferred: VecDeque<Waiting>,
    /// A task makes the segment ready; appends queue up behind it.
    pub(crate) preparing: bool,
    /// A task reserves space ahead.
    pub(crate) reserving: bool,
    /// In the shard's list of partitions with something for the journal.
    pub(crate) queued: bool,
    /// An advance of the first offset that is to be journaled.
    pub(crate) first_due: Option<Offset>,
    /// Requests since the start that arrived at another shard and crossed to this one.
    pub(crate) crossings: u64,
    /// Why the partition takes no writes, if it is damaged.
    pub(crate) fenced: Option<Arc<str>>,
}

/// The memory budget counts idle partitions at this size: their state and the index of their active segment.
const _: () = assert!(size_of::<Partition>() + ENTRIES_MAX * size_of::<Entry>() <= PARTITION_BYTES as usize);

/// What a run of commits has made of a partition: its extent at one point of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    /// First offset.
    pub(crate) first: Offset,
    /// The offset after the last record.
    pub(crate) next: Offset,
    /// Where that next record goes, were it in the same segment.
    pub(crate) end: Place,
    /// Greatest timestamp in the segment of `end`.
    pub(crate) max_timestamp: Timestamp,
}

/// A segment that gets no more batches.
#[derive(Debug, Clone)]
pub(crate) struct Sealed {
    /// Offset of its first record, and its name.
    pub(crate) base: Offset,
    /// Offset after its last record.
    pub(crate) next: Offset,
    /// Its length in bytes.
    pub(crate) bytes: Position,
    /// Greatest timestamp in it.
    pub(crate) max_timestamp: Timestamp,
    /// Its index until the index file is written.
    pub(crate) index: Option<SparseIndex>,
    /// How often it was written anew.
    pub(crate) rewrite: u32,
}

impl Sealed {
    /// Which file holds it.
    pub(crate) fn name(&self) -> SegmentName {
        SegmentName { base: self.base, rewrite: self.rewrite }
    }
}

/// The segment that gets the next batch.
#[derive(Debug)]
pub(crate) struct Active {
    /// Offset of its first record, and its name.
    pub(crate) base: Offset,
    /// Where the next batch goes.
    pub(crate) end: Position,
    /// File space is reserved up to here.
    pub(crate) reserved: Position,
    /// Blocks before this position were written once: a write to them changes no metadata of the file system.
    pub(crate) initialised: Position,
    /// Whether the directory entry of the file is known to be on stable storage.
    pub(crate) linked: bool,
    /// Of what is appended since the segment was opened or made (see `indexed_from`).
    pub(crate) index: SparseIndex,
    /// The index knows the segment from here on.
    pub(crate) indexed_from: Position,
    /// Greatest timestamp in it.
    pub(crate) max_timestamp: Timestamp,
    /// When its first batch came; tells when `segment.ms` is over.
    pub(crate) since: Timestamp,
}

/// Consecutive batches in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Run {
    /// The segment.
    pub(crate) segment: Offset,
    /// First byte.
    pub(crate) start: Position,
    /// Byte after the last.
    pub(crate) end: Position,
    /// First offset.
    pub(crate) base: Offset,
    /// Offset after the last.
    pub(crate) next: Offset,
    /// Greatest timestamp of the batches.
    pub(crate) max_timestamp: Timestamp,
    /// How many of the batches are of producers that number them.
    pub(crate) produced: usize,
}

/// What a partition remembers for checkpoints. A checkpoint's boundary lies between two journal entries; the partition
/// notices that one was passed when it next has something for the journal, or when the checkpoint comes by.
#[derive(Debug, Default)]
pub(crate) struct CheckpointSide {
    /// The last boundary this partition has noticed.
    pub(crate) boundary: u64,
    /// In the shard's list of partitions that changed since the last boundary.
    pub(crate) listed: bool,
    /// Put in entries since the boundary, and not in its segment.
    pub(crate) unwritten: Vec<Span>,
    /// What producers' batches were put in entries since the boundary: the newest of each.
    pub(crate) produced: BTreeMap<ProducerId, Window>,
    /// What there was at the boundary, until the checkpoint takes it.
    pub(crate) captured: Option<Captured>,
    /// The next entry must carry the partly filled last block from its beginning: a checkpoint may have that block as
    /// its only copy, and the next one rewrites it in place.
    pub(crate) prefix_due: bool,
    /// All before this offset is in segments, durably.
    pub(crate) next: Offset,
    /// All before this place is in segments, durably.
    pub(crate) end: Option<Place>,
    /// First offset as the last checkpoint has it.
    pub(crate) first: Offset,
    /// Sealed segments up to this base offset are in the checkpoint file.
    pub(crate) sealed_before: Offset,
}

/// Bytes of one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    /// The segment.
    pub(crate) segment: Offset,
    /// First byte.
    pub(crate) from: Position,
    /// Byte after the last.
    pub(crate) to: Position,
}

/// What a checkpoint is to make durable of a partition.
#[derive(Debug)]
pub(crate) struct Captured {
    /// The extent at the boundary.
    pub(crate) mark: Mark,
    /// What is to be written.
    pub(crate) unwritten: Vec<Span>,
    /// What is to be said of producers.
    pub(crate) produced: BTreeMap<ProducerId, Window>,
}

/// Somebody who waits for records to be as durable as their topic asks.
#[derive(Debug)]
pub(crate) struct Ack {
    /// Offset of the first record.
    pub(crate) base: Offset,
    /// Offset after the last record.
    pub(crate) next: Offset,
    /// Their time, if the topic gives it to them; else -1.
    pub(crate) at: Timestamp,
    /// Whom to tell.
    pub(crate) asker: Asker,
}

impl Ack {
    /// What the asker is told, of a log that begins with `first`.
    pub(crate) fn appended(&self, first: Offset) -> Appended {
        Appended { base: self.base, last: Offset(self.next.0 - 1), at: self.at, first }
    }
}

/// A reader that waits for records at or after an offset.
#[derive(Debug)]
pub(crate) struct Watcher {
    /// The first offset it lacks.
    pub(crate) from: Offset,
    /// Where to say so.
    pub(crate) session: Session,
    /// In whose name.
    pub(crate) ticket: u64,
}

impl Partition {
    /// An empty partition.
    pub(crate) fn new(id: PartitionId, settings: TopicSettings) -> Partition {
        let zero = Offset(0);
        let start = Place { segment: zero, position: Position(0) };
        Partition {
            id,
            settings,
            is_internal: false,
            first: zero,
            next: zero,
            visible: zero,
            visible_end: start,
            epochs: BTreeMap::new(),
            lost_from: None,
            leader_epoch: LeaderEpoch(0),
            sealed: VecDeque::new(),
            rewrites: 0,
            swapping: false,
            cleaned: zero,
            active: None,
            tail: Tail::default(),
            runs: VecDeque::new(),
            producers: BTreeMap::new(),
            produced: VecDeque::new(),
            journaled: Mark { first: zero, next: zero, end: start, max_timestamp: Timestamp(-1) },
            checkpoint: CheckpointSide::default(),
            acks: VecDeque::new(),
            watchers: Vec::new(),
            deferred: VecDeque::new(),
            preparing: false,
            reserving: false,
            queued: false,
            first_due: None,
            crossings: 0,
            fenced: None,
        }
    }

    /// Whether nothing of it is known to be lost or damaged: else no file of it may be removed, for it could be what was lost.
    pub(crate) fn is_whole(&self) -> bool {
        self.fenced.is_none() && self.lost_from.is_none()
    }

    /// Whether something waits to be put in a journal entry.
    pub(crate) fn has_journal_work(&self) -> bool {
        !self.runs.is_empty() || self.first_due.is_some()
    }

    /// Whether `bytes` more make the active segment too large, or it is too old for another batch.
    pub(crate) fn must_roll(&self, bytes: usize, now: Timestamp) -> bool {
        let Some(active) = self.active.as_ref().filter(|active| active.end.0 > 0) else { return false };
        let full = active.end.0 + bytes as u64 > u64::from(self.settings.segment_bytes);
        let age_ms = u64::try_from(now.0.saturating_sub(active.since.0)).unwrap_or(0);
        full || age_ms >= self.settings.seal_ms()
    }

    /// Ends the active segment; the next batch opens another.
    pub(crate) fn seal(&mut self) {
        let Some(active) = self.active.take() else { return };
        let index = (active.indexed_from.0 == 0).then_some(active.index);
        let (base, bytes, max_timestamp) = (active.base, active.end, active.max_timestamp);
        self.sealed.push_back(Sealed { base, next: self.next, bytes, max_timestamp, index, rewrite: 0 });
        if self.runs.is_empty() {
            // All of it is journaled: a checkpoint can say that it is sealed, though nothing follows it yet.
            let end = Place { segment: self.next, position: Position(0) };
            self.journaled = Mark { end, max_timestamp: Timestamp(-1), ..self.journaled };
        }
    }

    /// Notes batches that were just put in the tail.
    pub(crate) fn note_run(&mut self, run: Run) {
        let joins = |last: &&mut Run| last.segment == run.segment && last.produced + run.produced <= PRODUCED_MAX;
        match self.runs.back_mut().filter(joins) {
            Some(last) => {
                assert!(last.end == run.start && last.next == run.base, "runs of a segment are contiguous");
                last.produced += run.produced;
                last.end = run.end;
                last.next = run.next;
                last.max_timestamp = last.max_timestamp.max(run.max_timestamp);
            }
            None => self.runs.push_back(run),
        }
    }

    /// Whether a segment that was written anew may take the place of others: they are all there, and none of them is about to go.
    pub(crate) fn may_swap(&self, new: &Sealed) -> bool {
        let first = self.sealed.range(self.replaced_by(new)).next();
        let none_goes = first.is_some_and(|first| first.next > self.first);
        none_goes && self.has_segments_of(new) && self.fenced.is_none()
    }

    fn has_segments_of(&self, new: &Sealed) -> bool {
        let replaced = || self.sealed.range(self.replaced_by(new));
        let begins = replaced().next().is_some_and(|first| first.base == new.base);
        begins && replaced().next_back().is_some_and(|last| last.next == new.next)
    }

    fn replaced_by(&self, new: &Sealed) -> Range<usize> {
        let begin = self.sealed.partition_point(|sealed| sealed.base < new.base);
        begin..self.sealed.partition_point(|sealed| sealed.next <= new.next).max(begin)
    }

    /// Has a segment that was written anew take the place of others. These, and the bytes of memory that were released: what is
    /// in memory is found by its place in the old ones.
    pub(crate) fn swap(&mut self, new: &Sealed, cleaned: Option<Offset>) -> (Vec<Sealed>, usize) {
        assert!(self.has_segments_of(new), "none was dropped since the checkpoint was described");
        let replaced = self.replaced_by(new);
        let begin = replaced.start;
        let old = self.sealed.drain(replaced).collect();
        self.sealed.insert(begin, new.clone());
        self.cleaned = cleaned.unwrap_or(self.cleaned);
        self.rewrites += 1;
        self.swapping = false;
        let (behind, mut released) = (Place { segment: new.next, position: Position(0) }, 0);
        while let Some(bytes) = self.tail.release_front(behind) {
            released += bytes;
        }
        (old, released)
    }

    /// Notices a checkpoint's boundary: sets aside what there was, and begins anew.
    pub(crate) fn notice_boundary(&mut self, boundary: u64) {
        if self.checkpoint.boundary == boundary {
            return;
        }
        assert!(self.checkpoint.captured.is_none(), "one checkpoint at a time");
        let side = &mut self.checkpoint;
        side.boundary = boundary;
        side.prefix_due = true;
        if side.listed {
            side.listed = false;
            let (unwritten, produced) = (std::mem::take(&mut side.unwritten), std::mem::take(&mut side.produced));
            side.captured = Some(Captured { mark: self.journaled, unwritten, produced });
        }
    }

    /// Notes that an entry now holds a run, of which `spans` are not in the segment.
    pub(crate) fn note_journaled(&mut self, run: &Run, spans: impl IntoIterator<Item = Span>) {
        let same_segment = self.journaled.end.segment == run.segment;
        let max_timestamp = match same_segment {
            true => self.journaled.max_timestamp.max(run.max_timestamp),
            false => run.max_timestamp,
        };
        self.journaled = Mark {
            first: self.journaled.first,
            next: run.next,
            end: Place { segment: run.segment, position: run.end },
            max_timestamp,
        };
        for batch in self.produced.drain(..run.produced) {
            producer::note(&mut self.checkpoint.produced, &batch);
        }
        for span in spans.into_iter().filter(|span| span.from < span.to) {
            match self.checkpoint.unwritten.last_mut() {
                Some(last) if last.segment == span.segment && last.to == span.from => last.to = span.to,
                _ => self.checkpoint.unwritten.push(span),
            }
        }
    }

    /// Records up to `next` are now as durable as the topic asks: shows them, and tells who waits for them. `each` is
    /// called for every append.
    pub(crate) fn show(&mut self, next: Offset, end: Place, each: impl Fn(&Asker)) {
        assert!(next <= self.next, "what is shown was appended");
        if next > self.visible {
            (self.visible, self.visible_end) = (next, end);
        }
        while let Some(ack) = self.acks.front().filter(|ack| ack.next <= self.visible) {
            ack.asker.session.appended(ack.asker.ticket, ack.appended(self.first));
            each(&ack.asker);
            self.acks.pop_front();
        }
        let visible = self.visible;
        self.watchers.retain(|watcher| {
            let waits = watcher.from >= visible;
            if !waits {
                watcher.session.readable(watcher.ticket);
            }
            waits
        });
    }

    /// Whether records wait for a flush before they are shown.
    pub(crate) fn is_flushed(&self) -> bool {
        self.settings.durability == Durability::Flush
    }

    /// Everything before this place is in segments and may be dropped from memory.
    pub(crate) fn clean_before(&self) -> Option<Place> {
        if planted::active(Bug::BufferFreedEarly) {
            return Some(self.journaled.end);
        }
        self.checkpoint.end
    }

    /// Greatest timestamp of the log; -1 if there is none.
    pub(crate) fn max_timestamp(&self) -> Timestamp {
        let sealed = self.sealed.iter().map(|sealed| sealed.max_timestamp);
        let active = self.active.as_ref().map(|active| active.max_timestamp);
        sealed.chain(active).max().unwrap_or(Timestamp(-1))
    }

    /// Takes over what a checkpoint made durable.
    pub(crate) fn note_checkpointed(&mut self, extent: &Extent) {
        self.checkpoint.next = extent.next;
        self.checkpoint.end = Some(Place { segment: extent.segment_base, position: extent.end });
    }

    /// Bytes of the log in segments and tail.
    pub(crate) fn bytes(&self) -> u64 {
        let sealed: u64 = self.sealed.iter().map(|segment| segment.bytes.0).sum();
        sealed + self.active.as_ref().map_or(0, |active| active.end.0)
    }
}
