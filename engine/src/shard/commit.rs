//! The commit: everything the shard's partitions have pending becomes one journal entry and one flush.
//!
//! Two lanes take turns (or one, if so configured): while one waits for its flush, the other gathers, and writes the next
//! entry once there is enough for one. Entries are acknowledged in order only, for a later one does not survive without
//! the earlier.

use super::journal::Debt;
use super::partition::{Partition, Run, Span};
use super::stats::CommitTimes;
use super::{PartitionHandle, Shard, count};
use crate::error::ShardError;
use crate::log::frame::{Full, Sequence};
use crate::log::journal::{
    AppendSection, EntryHeader, EntryWriter, JournalPosition, PRODUCED_MAX, Start, produced_len, unflushed_max,
};
use crate::log::tail::{BLOCK, Place, block_ceil, block_floor};
use crate::model::{Offset, Position};
use crate::planted::{self, Bug};
use crate::reactor::{File, Instant, Slice, Task, WriteSync};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use super::event::Event;

/// Turns of a rest: in the first the acknowledgements go out, in the others arrives, and is appended, what they brought.
const REST_TURNS: usize = 3;

/// An entry's fixed cost per partition, generously: section header, fixed part, and a block carried from its beginning.
const SECTION_BYTES_MAX: usize = 256 + BLOCK as usize;

/// What an entry must have room for, or a run might wait for ever: one that just does not go to its segment directly, with
/// as many producers' batches as it may have.
pub(super) const fn run_bytes_max(direct_bytes_min: usize) -> usize {
    direct_bytes_min + 4 * BLOCK as usize
}

// Beside the block that the run begins in, and headers.
const _: () = assert!(produced_len(PRODUCED_MAX) <= 2 * BLOCK as usize);

/// What the commit lanes share.
#[derive(Debug, Default)]
pub(super) struct Commits {
    /// Partitions with something for the journal, in the order in which they got it.
    pending: RefCell<VecDeque<PartitionHandle>>,
    /// About how many bytes those partitions have for it.
    pending_bytes: Cell<usize>,
    /// Something became pending, space came free, or the shard stops.
    pub(super) work: Event,
    /// An entry became durable, or failed.
    pub(super) settled: Event,
    /// Lanes that have not ended.
    pub(super) lanes: Cell<usize>,
    /// Lanes that are between building an entry and its end.
    pub(super) under_way: Cell<usize>,
    /// A lane gathers; see [`Shard::rest`].
    is_resting: Cell<bool>,
}

/// What an entry holds of one partition.
struct Part {
    handle: PartitionHandle,
    next: Offset,
    end: Place,
    first: Option<Offset>,
}

/// Bytes that go straight to a segment.
struct Direct {
    handle: PartitionHandle,
    segment: Offset,
    pieces: Vec<(u64, Slice)>,
    /// The write changes the file system's metadata: its journal must be committed before the records count.
    needs_barrier: bool,
    /// The file's directory entry may not be durable.
    needs_link: bool,
}

impl Direct {
    fn bytes(&self) -> usize {
        self.pieces.iter().map(|(_, slice)| slice.len()).sum()
    }
}

/// A built entry on its way.
struct Entry {
    /// When it was begun.
    built: Instant,
    sequence: Sequence,
    position: JournalPosition,
    bytes: Slice,
    flush: bool,
    debt: Debt,
}

/// One lane's own memory, used again for every entry.
#[derive(Default)]
struct Lane {
    /// When what makes the entry durable was begun.
    flushing: Instant,
    parts: Vec<Part>,
    direct: Vec<Direct>,
}

impl Shard {
    /// Lists a partition for the next entry.
    pub(super) fn queue_for_journal(&self, handle: PartitionHandle, partition: &mut Partition, bytes: usize) {
        let commits = &self.0.commits;
        commits.pending_bytes.set(commits.pending_bytes.get() + bytes);
        if !partition.queued {
            partition.queued = true;
            commits.pending.borrow_mut().push_back(handle);
        }
        commits.work.notify();
    }

    /// Forgets what is pending; the partitions are read again from disk.
    pub(super) fn forget_pending(&self) {
        self.0.commits.pending.borrow_mut().clear();
        self.0.commits.pending_bytes.set(0);
    }

    /// Begins all lanes.
    pub(super) fn begin_lanes(&self) -> Vec<Task<()>> {
        let lanes = self.0.config.commits_in_flight;
        self.0.commits.lanes.set(lanes);
        let begin = |_| {
            let shard = self.clone();
            self.reactor().spawn(async move {
                shard.run_lane().await;
                shard.0.commits.lanes.set(shard.0.commits.lanes.get() - 1);
                shard.0.checkpoints.wanted.notify();
            })
        };
        (0..lanes).map(begin).collect()
    }

    /// Runs one lane until the shard stops with nothing pending, or fails.
    async fn run_lane(&self) {
        let mut lane = Lane::default();
        loop {
            let work = self.0.commits.work.wait();
            if self.has_failed() {
                return;
            }
            match self.build(&mut lane) {
                Built::Entry(entry) => {
                    self.0.commits.under_way.set(self.0.commits.under_way.get() + 1);
                    let bytes = entry.bytes.len() + lane.direct.iter().map(Direct::bytes).sum::<usize>();
                    let outcome = self.commit(&mut lane, entry).await;
                    self.0.commits.under_way.set(self.0.commits.under_way.get() - 1);
                    self.0.pace.note_commit(self.reactor().now(), bytes);
                    if let Err(error) = outcome {
                        self.fail(error);
                    }
                    self.0.commits.settled.notify();
                    self.rest().await;
                }
                // Appends that wait for their segment come to a lane yet, also after the shard was told to stop.
                Built::Nothing if self.is_stopping() && self.0.waiting_bytes.get() == 0 => return,
                Built::Nothing => work.await,
                Built::JournalFull => {
                    self.0.checkpoints.request();
                    // No commit will end that would tell a checkpoint under way that it has to hurry.
                    self.0.pace.wake();
                    work.await;
                }
                Built::NoMemory => self.reactor().sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Waits until every entry before `sequence` is durable. False if the shard fails meanwhile.
    pub(super) async fn durable_before(&self, sequence: Sequence) -> bool {
        loop {
            let settled = self.0.commits.settled.wait();
            if self.has_failed() {
                return false;
            }
            if self.0.journal.borrow().durable.next() >= sequence {
                return true;
            }
            settled.await;
        }
    }

    /// A device takes one flush at a time: a small entry written beside one under way is acknowledged no earlier than it
    /// would be in the next, and costs a flush. The lane that is busy, or resting, takes it when it is done.
    fn waits_for_more(&self) -> bool {
        let commits = &self.0.commits;
        let is_taken = commits.under_way.get() > 0 || commits.is_resting.get();
        is_taken && commits.pending_bytes.get() < self.0.config.beside_bytes_min
    }

    /// After a commit: lets the acknowledgements go out, and gathers what comes back at once, before the next entry.
    ///
    /// Whoever waits for an acknowledgement sends again when he has it. Begun before that, the next entry has only those
    /// who were not in this one: two halves take turns, each with a flush of its own.
    async fn rest(&self) {
        let commits = &self.0.commits;
        if commits.under_way.get() > 0 || commits.is_resting.get() {
            return;
        }
        commits.is_resting.set(true);
        for _ in 0..REST_TURNS {
            if self.waits_for_more() {
                self.reactor().yield_now().await;
            }
        }
        commits.is_resting.set(false);
    }

    fn build(&self, lane: &mut Lane) -> Built {
        let commits = &self.0.commits;
        let mut pending = commits.pending.borrow_mut();
        if pending.is_empty() || self.waits_for_more() {
            return Built::Nothing;
        }
        let mut journal = self.0.journal.borrow_mut();
        let entry_bytes_max = self.0.config.entry_bytes_max;
        if journal.bytes - journal.used() < entry_bytes_max as u64 {
            return Built::JournalFull;
        }
        let estimate = commits.pending_bytes.get() + pending.len() * SECTION_BYTES_MAX + BLOCK as usize;
        let wanted = estimate.max(run_bytes_max(self.0.config.direct_bytes_min)).min(entry_bytes_max);
        let Some(mut buffer) = self.0.memory.buffer(wanted.next_multiple_of(BLOCK as usize)) else {
            return Built::NoMemory;
        };
        let header = EntryHeader {
            nonce: journal.nonce,
            sequence: journal.sequence,
            position: journal.next,
            previous: journal.previous,
            durable: journal.flushed,
        };
        let built = self.reactor().clock();
        let mut writer = EntryWriter::new(&mut buffer, header);
        let mut flush = false;
        let mut partitions = self.0.partitions.borrow_mut();
        while let Some(&handle) = pending.front() {
            if let Some(partition) = partitions.get_mut(handle) {
                let whole = self.add_partition(&mut writer, lane, handle, partition);
                flush |= partition.is_flushed() || lane.parts.last().is_some_and(|part| part.first.is_some());
                if !whole {
                    break;
                }
                partition.queued = false;
            }
            pending.pop_front();
        }
        let left = commits.pending_bytes.get().saturating_sub(writer.length());
        commits.pending_bytes.set(if pending.is_empty() { 0 } else { left });
        if writer.is_empty() {
            return Built::Nothing;
        }
        let finished = writer.finish();
        buffer.truncate(finished.length);
        // A damaged entry is known by a later one that claims it, and only so many bytes are searched for that.
        flush |= journal.unflushed >= unflushed_max(entry_bytes_max) as u64;
        let debt = journal.take_debt(flush, !lane.direct.is_empty());
        journal.unflushed = if flush { 0 } else { journal.unflushed + finished.length as u64 };
        let bytes = buffer.freeze();
        let flush = flush && !planted::active(Bug::FlushSkipped);
        let entry = Entry { built, sequence: journal.sequence, position: journal.next, bytes, flush, debt };
        journal.next = journal.next.plus(finished.length as u64);
        journal.sequence = journal.sequence.next();
        journal.previous = finished.checksum;
        drop(journal);
        self.note_journal_filling();
        Built::Entry(entry)
    }

    /// Puts what a partition has in the entry. False if the entry is full before the end of it.
    fn add_partition(
        &self,
        writer: &mut EntryWriter<'_>,
        lane: &mut Lane,
        handle: PartitionHandle,
        partition: &mut Partition,
    ) -> bool {
        let boundary = self.0.checkpoints.boundary.get();
        partition.notice_boundary(boundary);
        let mut part = Part { handle, next: partition.journaled.next, end: partition.journaled.end, first: None };
        let mut added = false;
        let whole = loop {
            let Some(run) = partition.runs.front().copied() else { break true };
            if self.add_run(writer, lane, handle, partition, &run).is_err() {
                break false;
            }
            partition.runs.pop_front();
            (part.next, part.end, added) = (run.next, partition.journaled.end, true);
        };
        if let (true, Some(first)) = (whole, partition.first_due) {
            if writer.start(&Start { partition: partition.id, first }).is_err() {
                self.note_parts(lane, part, added, partition, handle);
                return false;
            }
            partition.first_due = None;
            partition.journaled.first = first;
            (part.first, added) = (Some(first), true);
        }
        self.note_parts(lane, part, added, partition, handle);
        whole
    }

    fn note_parts(&self, lane: &mut Lane, part: Part, added: bool, partition: &mut Partition, handle: PartitionHandle) {
        if added {
            lane.parts.push(part);
            self.0.checkpoints.list(handle, partition);
        }
    }

    fn add_run(
        &self,
        writer: &mut EntryWriter<'_>,
        lane: &mut Lane,
        handle: PartitionHandle,
        partition: &mut Partition,
        run: &Run,
    ) -> Result<(), Full> {
        let (direct_from, direct_to) = self.direct_range(run);
        let prefix_due = partition.checkpoint.prefix_due && !planted::active(Bug::TailBlockRewritten);
        let inline_from = if prefix_due { block_floor(run.start) } else { run.start };
        let direct_crc = crc_of(partition, run.segment, direct_from, direct_to);
        let section = AppendSection {
            partition: partition.id,
            segment_base: run.segment,
            base_offset: run.base,
            last_offset: Offset(run.next.0 - 1),
            inline_from,
            start: run.start,
            direct_from,
            direct_to,
            end: run.end,
            leader_epoch: partition.leader_epoch,
            max_timestamp: run.max_timestamp,
            direct_crc,
        };
        // Both or none: a batch in the log whose producer is not known would be taken again.
        if section.section_len() + produced_len(run.produced) > writer.room() {
            return Err(Full);
        }
        let inline = writer.append(&section)?;
        let (head, rest) = inline.split_at_mut((direct_from.0 - inline_from.0) as usize);
        partition.tail.copy(run.segment, inline_from..direct_from, head);
        partition.tail.copy(run.segment, direct_to..run.end, rest);
        if !planted::active(Bug::ProducersNotJournaled) {
            writer.produced(partition.id, partition.produced.range(..run.produced).copied())?;
        }
        partition.checkpoint.prefix_due = false;
        let spans = [
            Span { segment: run.segment, from: run.start, to: direct_from },
            Span { segment: run.segment, from: direct_to, to: run.end },
        ];
        partition.note_journaled(run, spans);
        if direct_from < direct_to {
            lane.direct.push(self.plan_direct(handle, partition, run, direct_from, direct_to));
        }
        Ok(())
    }

    /// Which blocks of a run go straight to the segment: none of a small one, all whole blocks of a large one.
    fn direct_range(&self, run: &Run) -> (Position, Position) {
        let (from, to) = (block_ceil(run.start), block_floor(run.end));
        let is_large = run.end.0 - run.start.0 >= self.0.config.direct_bytes_min as u64;
        if is_large && from < to { (from, to) } else { (run.end, run.end) }
    }

    fn plan_direct(
        &self,
        handle: PartitionHandle,
        partition: &mut Partition,
        run: &Run,
        from: Position,
        to: Position,
    ) -> Direct {
        let mut pieces = Vec::new();
        let mut at = from.0;
        partition.tail.slices(run.segment, from..to, |slice| {
            let length = slice.len() as u64;
            pieces.push((at, slice));
            at += length;
        });
        let active = partition.active.as_mut().filter(|active| active.base == run.segment);
        let (needs_barrier, needs_link) = match active {
            Some(active) => {
                let fresh = to > active.initialised;
                active.initialised = active.initialised.max(to);
                (fresh, !active.linked)
            }
            None => (true, true),
        };
        count(&self.0.counters.direct_bytes, to.0 - from.0);
        let needs_link = needs_link && !planted::active(Bug::DirectoryNotSynced);
        Direct { handle, segment: run.segment, pieces, needs_barrier, needs_link }
    }

    async fn commit(&self, lane: &mut Lane, entry: Entry) -> Result<(), ShardError> {
        lane.flushing = self.reactor().clock();
        if planted::active(Bug::AcknowledgeBeforeFlush) {
            self.acknowledge(lane, &entry);
        }
        let flushes_itself = entry.flush && entry.debt == Debt::None;
        match lane.direct.is_empty() {
            true => self.write_entry(&entry, flushes_itself).await?,
            false => self.commit_direct(lane, &entry).await?,
        }
        if !flushes_itself {
            lane.flushing = self.reactor().now();
        }
        if !planted::active(Bug::AcknowledgedOutOfOrder) && !self.durable_before(entry.sequence).await {
            return Ok(());
        }
        self.pay(entry.debt).await?;
        if planted::active(Bug::FlushPerPartition) {
            for _ in 1..lane.parts.len() {
                self.pay(Debt::Entries).await?;
            }
        }
        {
            let mut journal = self.0.journal.borrow_mut();
            journal.durable = entry.sequence;
            if entry.flush {
                journal.flushed = entry.sequence;
            }
        }
        count(&self.0.counters.commits, 1);
        count(&self.0.counters.journal_bytes, entry.bytes.len() as u64);
        self.acknowledge(lane, &entry);
        Ok(())
    }

    /// Flushes what earlier entries left, and with it the entry that pays for them.
    async fn pay(&self, debt: Debt) -> Result<(), ShardError> {
        let root = &self.0.config.data_dir;
        let flushed = match debt {
            Debt::None => return Ok(()),
            Debt::Entries => self.journal_file().sync_data().await,
            Debt::Segments => self.reactor().sync_fs(root).await,
        };
        flushed.map_err(|error| ShardError::io("flushing", root, &error))
    }

    /// Writes the segments and the entry, then makes both durable at once.
    async fn commit_direct(&self, lane: &mut Lane, entry: &Entry) -> Result<(), ShardError> {
        let mut files = Vec::new();
        for direct in &lane.direct {
            files.push(self.segment_file(direct.handle, direct.segment).await?);
        }
        let mut writes = Vec::new();
        for (direct, file) in lane.direct.iter_mut().zip(&files) {
            let Some(file) = file else { continue };
            for (position, slice) in direct.pieces.drain(..) {
                let file = file.clone();
                writes.push(self.reactor().spawn(async move { file.write_at(position, slice, WriteSync::None).await }));
            }
        }
        // All of them also after an error: a write that lands later would undo what recovery writes.
        let mut outcome = self.write_entry(entry, false).await;
        for write in writes {
            let written = write.await;
            let failed = |error| ShardError::io("writing a segment in", &self.0.config.data_dir, &error);
            outcome = outcome.and(written.map_err(failed));
        }
        outcome?;
        if entry.flush && entry.debt < Debt::Segments {
            self.flush_direct(lane, &files).await?;
        }
        lane.direct.clear();
        Ok(())
    }

    /// One barrier for segments and journal, as cheap as what was written allows: the journal's own flush where no file
    /// system metadata changed, one file's where one changed, else the whole file system's.
    async fn flush_direct(&self, lane: &mut Lane, files: &[Option<Rc<File>>]) -> Result<(), ShardError> {
        let root = &self.0.config.data_dir;
        let unlinked = lane.direct.iter().any(|direct| direct.needs_link);
        let mut fresh = lane.direct.iter().zip(files).filter(|(direct, _)| direct.needs_barrier);
        let flushed = match (unlinked, fresh.next(), fresh.next()) {
            _ if planted::active(Bug::DirectBarrierSkipped) => self.journal_file().sync_data().await,
            (false, None, _) => self.journal_file().sync_data().await,
            (false, Some((_, Some(file))), None) => file.sync_data().await,
            _ => self.reactor().sync_fs(root).await,
        };
        flushed.map_err(|error| ShardError::io("flushing", root, &error))?;
        for direct in lane.direct.drain(..) {
            if let Some(partition) = self.0.partitions.borrow_mut().get_mut(direct.handle) {
                let active = partition.active.as_mut().filter(|active| active.base == direct.segment);
                if let Some(active) = active {
                    active.linked |= unlinked;
                }
            }
        }
        Ok(())
    }

    async fn write_entry(&self, entry: &Entry, durably: bool) -> Result<(), ShardError> {
        let (file, bytes) = {
            let journal = self.0.journal.borrow();
            (self.journal_file(), journal.bytes)
        };
        let sync = if durably { WriteSync::Data } else { WriteSync::None };
        let at = entry.position.0 % bytes;
        let before_wrap = ((bytes - at) as usize).min(entry.bytes.len());
        let mut written = file.write_at(at, entry.bytes.slice(0..before_wrap), sync).await;
        if before_wrap < entry.bytes.len() && written.is_ok() {
            written = file.write_at(0, entry.bytes.slice(before_wrap..entry.bytes.len()), sync).await;
        }
        written.map_err(|error| ShardError::io("writing", &self.0.journal.borrow().path, &error))
    }

    fn journal_file(&self) -> Rc<File> {
        let file = self.0.journal.borrow().file.clone();
        file.unwrap_or_else(|| unreachable!("lanes run while the journal is open"))
    }

    /// Shows the records of a durable entry, and tells those who wait for them.
    fn acknowledge(&self, lane: &mut Lane, entry: &Entry) {
        let times = CommitTimes { built: entry.built, flushing: lane.flushing, durable: self.reactor().now() };
        let mut partitions = self.0.partitions.borrow_mut();
        for part in lane.parts.drain(..) {
            let Some(partition) = partitions.get_mut(part.handle) else { continue };
            if let Some(first) = part.first {
                partition.first = partition.first.max(first);
                self.0.retention.dropped(part.handle);
            }
            partition.show(part.next, part.end, |asker| self.0.stages.record_commit(asker.since, &times));
        }
    }
}

/// What came of gathering an entry.
enum Built {
    Entry(Entry),
    Nothing,
    JournalFull,
    NoMemory,
}

fn crc_of(partition: &Partition, segment: Offset, from: Position, to: Position) -> u32 {
    if from == to {
        return 0;
    }
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    partition.tail.slices(segment, from..to, |slice| digest.update(&slice));
    digest.finalize() as u32
}
