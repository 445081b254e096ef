//! Checkpoints: what the journal holds goes to the segments in large aligned pieces, one barrier makes all of it
//! durable, one record says so, and the journal behind it is free.
//!
//! A checkpoint's boundary lies between two journal entries. Its cost is in proportion to the partitions that changed
//! since the last one, and it runs beside the commits, a few writes at a time.

use super::event::Event;
use super::pace::Rank;
use super::partition::{Captured, Mark, Partition, Sealed, Span};
use super::{PartitionHandle, Shard, count};
use crate::error::ShardError;
use crate::log::checkpoint::{
    self, CheckpointState, Extent, FileHeader, GroupWriter, JournalFrom, Next, Record, Sealed as SealedRecord,
};
use crate::log::paths;
use crate::log::tail::{BLOCK, block_ceil, block_floor};
use crate::model::{Offset, PartitionId};
use crate::planted::{self, Bug};
use crate::reactor::{Buffer, Slice, either};
use crate::reactor::{File, Open, WriteSync};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use uuid::Uuid;

/// Groups are built in a buffer of this many bytes; larger checkpoints take several.
const GROUP_BYTES: usize = 64 << 10;
/// The checkpoint file grows in steps of this many bytes, so that a group is seldom more than one write and one flush.
const FILE_STEP_BYTES: u64 = 256 << 10;
/// Partitions that are written to their segments at the same time. More would be felt by the commits.
const WRITERS: usize = 4;
/// The same while the journal is short of space: commits that wait for it would feel that more.
const WRITERS_MAX: usize = 32;
/// How often a writer that is spared looks whether it is needed.
const SPARED: Duration = Duration::from_millis(10);

/// The checkpoint file of a shard, and when to add to it.
#[derive(Debug)]
pub(super) struct Checkpoints {
    /// Counts boundaries; partitions compare theirs with it.
    pub(super) boundary: Cell<u64>,
    /// Partitions that changed since the last boundary.
    listed: RefCell<Vec<PartitionHandle>>,
    /// How many the last checkpoint covered.
    covered: Cell<usize>,
    /// Partitions whose topic was deleted since the last checkpoint.
    pub(super) gone: RefCell<Vec<PartitionId>>,
    /// Segments that were written anew since the last checkpoint.
    swaps: RefCell<Vec<Swap>>,
    requested: Cell<bool>,
    /// Bytes appended since the last boundary.
    dirty: Cell<u64>,
    /// Bytes that the checkpoint under way is writing.
    writing: Cell<u64>,
    /// A checkpoint is being taken.
    under_way: Cell<bool>,
    /// It was taken, or could not be.
    pub(super) ended: Event,
    /// A checkpoint was completed.
    pub(super) completed: Event,
    /// Some tails may hold chunks that are on disk.
    pub(super) evictable: Cell<bool>,
    pub(super) wanted: Event,
    pub(super) file: RefCell<Option<CheckpointFile>>,
}

/// The file that records are added to, and all that it says.
#[derive(Debug)]
pub(super) struct CheckpointFile {
    pub(super) file: Rc<File>,
    pub(super) path: PathBuf,
    pub(super) header: FileHeader,
    pub(super) next: Next,
    pub(super) state: CheckpointState,
    /// Space reserved in the file.
    pub(super) reserved: u64,
    /// Bytes of the snapshot that the file began with.
    pub(super) snapshot_bytes: u64,
}

impl Checkpoints {
    pub(super) fn new() -> Checkpoints {
        Checkpoints {
            boundary: Cell::new(1),
            listed: RefCell::default(),
            covered: Cell::new(0),
            gone: RefCell::default(),
            swaps: RefCell::default(),
            requested: Cell::new(false),
            dirty: Cell::new(0),
            writing: Cell::new(0),
            under_way: Cell::new(false),
            ended: Event::default(),
            completed: Event::default(),
            evictable: Cell::new(true),
            wanted: Event::default(),
            file: RefCell::new(None),
        }
    }

    /// Asks for a checkpoint soon.
    pub(super) fn request(&self) {
        if !self.requested.replace(true) {
            self.wanted.notify();
        }
    }

    /// Has the next checkpoint, soon, say that a segment that was written anew counts. Whether it did is told there.
    pub(super) fn swap(&self, swap: Swap) -> Rc<Cell<Option<bool>>> {
        let outcome = swap.outcome.clone();
        self.swaps.borrow_mut().push(swap);
        self.request();
        outcome
    }

    /// Counts bytes that the next checkpoint will have to write.
    pub(super) fn add_dirty(&self, bytes: usize) {
        self.dirty.set(self.dirty.get() + bytes as u64);
    }

    /// Bytes that are in memory and not in segments.
    pub(super) fn dirty(&self) -> u64 {
        self.dirty.get() + self.writing.get()
    }

    /// Notes that a partition has something for the next checkpoint.
    pub(super) fn list(&self, handle: PartitionHandle, partition: &mut Partition) {
        if !partition.checkpoint.listed {
            partition.checkpoint.listed = true;
            self.listed.borrow_mut().push(handle);
        }
    }

    /// Partitions that are being appended to.
    pub(super) fn at_work(&self) -> usize {
        self.listed.borrow().len().max(self.covered.get())
    }

    /// Forgets what was listed; the partitions are read again from disk.
    pub(super) fn forget(&self) {
        self.listed.borrow_mut().clear();
        self.swaps.borrow_mut().clear();
        self.dirty.set(0);
        self.writing.set(0);
    }

    fn is_due(&self) -> bool {
        self.requested.get()
    }
}

/// A segment that was written anew, to take the place of those whose offsets it has.
#[derive(Debug)]
pub(super) struct Swap {
    handle: PartitionHandle,
    sealed: Sealed,
    /// Compaction has looked at every key before this offset.
    cleaned: Option<Offset>,
    /// Whether it was done.
    outcome: Rc<Cell<Option<bool>>>,
}

impl Swap {
    pub(super) fn new(handle: PartitionHandle, sealed: Sealed, cleaned: Option<Offset>) -> Swap {
        Swap { handle, sealed, cleaned, outcome: Rc::default() }
    }
}

/// What one checkpoint covers.
struct Cut {
    swaps: Vec<Swap>,
    journal: JournalFrom,
    partitions: VecDeque<PartitionHandle>,
    records: Vec<Record>,
    sealed: Vec<(PartitionId, Sealed)>,
    /// With what was true of them.
    covered: Vec<(PartitionHandle, Mark)>,
}

impl Shard {
    /// Takes checkpoints until the shard stops or fails.
    pub(super) async fn run_checkpoints(&self) {
        loop {
            let wanted = self.0.checkpoints.wanted.wait();
            if self.has_failed() || self.has_no_lanes() {
                return;
            }
            if !self.0.checkpoints.is_due() && !self.journal_is_filling() {
                either(wanted, self.reactor().sleep(self.0.config.checkpoint_interval)).await;
            }
            if self.has_failed() || self.has_no_lanes() {
                return;
            }
            if let Err(error) = self.checkpoint().await {
                self.fail(error);
            }
        }
    }

    /// Until the lanes have written all that was pending they may need space in the journal. What comes behind the last of
    /// them, as retention that was at work may bring it, is never written, and not to be waited for.
    fn has_no_lanes(&self) -> bool {
        self.is_stopping() && self.0.commits.lanes.get() == 0
    }

    /// Begins a checkpoint early enough that it can take its time. One that is under way looks for itself when it is done.
    pub(super) fn note_journal_filling(&self) {
        if self.journal_is_filling() {
            self.0.checkpoints.wanted.notify();
        }
    }

    fn journal_is_filling(&self) -> bool {
        let journal = self.0.journal.borrow();
        journal.used() * 3 > journal.bytes
    }

    fn journal_is_short(&self) -> bool {
        let journal = self.0.journal.borrow();
        journal.used() * 3 > journal.bytes * 2
    }

    /// Makes everything in the journal so far durable in the segments, and frees it. One at a time: a second one beside it
    /// would free the journal behind what the first has not written yet.
    pub(super) async fn checkpoint(&self) -> Result<(), ShardError> {
        let checkpoints = &self.0.checkpoints;
        loop {
            let ended = checkpoints.ended.wait();
            if !checkpoints.under_way.replace(true) {
                break;
            }
            ended.await;
        }
        let outcome = self.checkpoint_alone().await;
        checkpoints.under_way.set(false);
        checkpoints.ended.notify();
        outcome
    }

    async fn checkpoint_alone(&self) -> Result<(), ShardError> {
        self.0.checkpoints.requested.set(false);
        self.release_idle();
        let Some(mut cut) = self.cut() else { return Ok(()) };
        count(&self.0.counters.checkpoints_begun, 1);
        if planted::active(Bug::JournalReusedEarly) {
            self.0.journal.borrow_mut().free_from = cut.journal.position;
        }
        if !self.durable_before(cut.journal.sequence).await {
            return Ok(());
        }
        self.write_partitions(&mut cut).await?;
        self.write_indexes(&cut).await?;
        let root = &self.0.config.data_dir;
        self.barrier().await.map_err(|error| ShardError::io("flushing", root, &error))?;
        // A commit's flush that failed meanwhile has let go of what was written here, and the barrier did not cover it.
        if self.has_failed() && !planted::active(Bug::CheckpointedAfterFailure) {
            return Ok(());
        }
        self.describe_swaps(&mut cut).await;
        cut.records.extend(self.take_gone());
        cut.records.push(Record::JournalFrom(cut.journal));
        self.record(&cut.records).await?;
        self.finish_checkpoint(&cut);
        Ok(())
    }

    /// Draws the boundary. None if nothing changed since the last one.
    fn cut(&self) -> Option<Cut> {
        let checkpoints = &self.0.checkpoints;
        let journal = self.0.journal.borrow();
        let is_told = checkpoints.gone.borrow().is_empty() && checkpoints.swaps.borrow().is_empty();
        if journal.used() == 0 && is_told {
            return None;
        }
        checkpoints.boundary.set(checkpoints.boundary.get() + 1);
        checkpoints.writing.set(checkpoints.dirty.replace(0));
        checkpoints.covered.set(checkpoints.listed.borrow().len());
        Some(Cut {
            journal: JournalFrom {
                nonce: journal.nonce,
                size: journal.bytes,
                position: journal.next,
                sequence: journal.sequence,
                previous: journal.previous,
            },
            // Before the barrier: it must cover what is to count.
            swaps: checkpoints.swaps.take(),
            partitions: checkpoints.listed.take().into(),
            records: Vec::new(),
            sealed: Vec::new(),
            covered: Vec::new(),
        })
    }

    async fn write_partitions(&self, cut: &mut Cut) -> Result<(), ShardError> {
        let boundary = self.0.checkpoints.boundary.get();
        let count = cut.partitions.len().min(WRITERS_MAX);
        let queue = Rc::new(RefCell::new(std::mem::take(&mut cut.partitions)));
        let done = Rc::new(RefCell::new(Vec::new()));
        let writers: Vec<_> = (0..count)
            .map(|number| {
                let (shard, queue, done) = (self.clone(), queue.clone(), done.clone());
                self.reactor().spawn(async move {
                    loop {
                        while number >= WRITERS && !shard.journal_is_short() && !queue.borrow().is_empty() {
                            shard.reactor().sleep(SPARED).await;
                        }
                        let Some(handle) = queue.borrow_mut().pop_front() else { return Ok(()) };
                        if let Some(captured) = shard.capture(handle, boundary) {
                            shard.write_spans(handle, &captured.unwritten).await?;
                            done.borrow_mut().push((handle, captured));
                        }
                    }
                })
            })
            .collect();
        // All of them also after an error: a write that lands later would undo what recovery writes.
        let mut outcome = Ok(());
        for writer in writers {
            outcome = outcome.and(writer.await);
        }
        outcome?;
        for (handle, captured) in done.take() {
            self.describe_captured(cut, handle, &captured);
        }
        Ok(())
    }

    fn capture(&self, handle: PartitionHandle, boundary: u64) -> Option<Captured> {
        let mut partitions = self.0.partitions.borrow_mut();
        let partition = partitions.get_mut(handle)?;
        partition.notice_boundary(boundary);
        partition.checkpoint.captured.take()
    }

    async fn write_spans(&self, handle: PartitionHandle, spans: &[Span]) -> Result<(), ShardError> {
        for span in spans {
            let Some(file) = self.segment_file(handle, span.segment).await? else { return Ok(()) };
            let last = self.0.memory.wait_buffer(BLOCK as usize).await;
            let Some(pieces) = self.pieces(handle, span, last) else { return Ok(()) };
            for (position, slice) in pieces {
                self.write_piece(&file, position, &slice, Rank::Checkpoint).await?;
            }
        }
        Ok(())
    }

    pub(super) async fn write_piece(
        &self,
        file: &File,
        mut position: u64,
        slice: &Slice,
        rank: Rank,
    ) -> Result<(), ShardError> {
        let mut at = 0;
        while at < slice.len() {
            let rest = slice.len() - at;
            let leave = self.leave(rank, rest).await;
            let part = slice.slice(at..at + leave.bytes);
            let written = file.write_at(position, part, WriteSync::None).await;
            written.map_err(|error| ShardError::io("writing a segment in", &self.0.config.data_dir, &error))?;
            at += leave.bytes;
            position += leave.bytes as u64;
        }
        Ok(())
    }

    /// Whether commits wait for the checkpoint, or soon will, for space in the journal or for memory.
    pub(super) fn is_hurried(&self) -> bool {
        // Between the half at which a checkpoint is asked for and the three quarters at which producers feel it.
        let is_memory_short = self.0.checkpoints.dirty() * 3 > self.0.config.tail_bytes_max as u64 * 2;
        self.journal_is_short() || is_memory_short || self.is_stopping()
    }

    /// The blocks that a span lies in: whole ones as they are in the tail, the last partly filled one as a copy, for the
    /// tail goes on filling it while it is written.
    fn pieces(&self, handle: PartitionHandle, span: &Span, mut last: Buffer) -> Option<Vec<(u64, Slice)>> {
        let partitions = self.0.partitions.borrow();
        let partition = partitions.get(handle)?;
        let (from, whole_to) = (block_floor(span.from), block_floor(span.to));
        let mut pieces = Vec::new();
        let mut at = from.0;
        if from < whole_to {
            partition.tail.slices(span.segment, from..whole_to, |slice| {
                let length = slice.len() as u64;
                pieces.push((at, slice));
                at += length;
            });
        }
        if whole_to < span.to {
            let (filled, rest) = last.split_at_mut((span.to.0 - whole_to.0) as usize);
            partition.tail.copy(span.segment, whole_to..span.to, filled);
            rest.fill(0);
            pieces.push((whole_to.0, last.freeze()));
        }
        Some(pieces)
    }

    /// What the checkpoint file is to say of a partition.
    fn describe_captured(&self, cut: &mut Cut, handle: PartitionHandle, captured: &Captured) {
        let mut partitions = self.0.partitions.borrow_mut();
        let Some(partition) = partitions.get_mut(handle) else { return };
        let (id, mark) = (partition.id, captured.mark);
        cut.records.push(Record::Partition { partition: id, extent: extent(partition, &mark) });
        for (producer, window) in captured.produced.iter().filter(|_| !planted::active(Bug::ProducersNotCheckpointed)) {
            cut.records.extend(window.batches(*producer).map(|batch| Record::Produced { partition: id, batch }));
        }
        let newly_sealed =
            |sealed: &&Sealed| sealed.base >= partition.checkpoint.sealed_before && sealed.base < mark.end.segment;
        for sealed in partition.sealed.iter().filter(newly_sealed) {
            cut.records.push(Record::Sealed { partition: id, base: sealed.base, sealed: sealed_state(sealed) });
            cut.sealed.push((id, sealed.clone()));
        }
        // A segment that was sealed although nothing of it is left was not there when the first offset moved.
        let sealed_late = partition.sealed.front().is_some_and(|sealed| sealed.next <= mark.first);
        if mark.first > partition.checkpoint.first || sealed_late {
            let below = first_segment(partition, mark.first);
            cut.records.push(Record::Dropped { partition: id, below });
        }
        cut.covered.push((handle, mark));
    }

    /// Says which new segments count, before anything is said of the partitions' first offsets. What a partition has lost of
    /// its segments meanwhile is not brought back by one that holds it too.
    async fn describe_swaps(&self, cut: &mut Cut) {
        let mut records = Vec::new();
        let mut refused = Vec::new();
        for swap in &cut.swaps {
            let mut partitions = self.0.partitions.borrow_mut();
            let known = partitions.get_mut(swap.handle).filter(|partition| partition.may_swap(&swap.sealed));
            let Some(partition) = known else {
                swap.outcome.set(Some(false));
                let id = partitions.get(swap.handle).map(|partition| partition.id);
                refused.extend(id.map(|id| (id, swap.sealed.clone())));
                continue;
            };
            partition.swapping = true;
            let (id, base, sealed) = (partition.id, swap.sealed.base, sealed_state(&swap.sealed));
            records.push(Record::Rewritten { partition: id, base, sealed });
            records.extend(swap.cleaned.map(|to| Record::Cleaned { partition: id, to }));
        }
        cut.swaps.retain(|swap| swap.outcome.get().is_none());
        if !planted::active(Bug::SwapNotRecorded) {
            cut.records.splice(..0, records);
        }
        for (id, sealed) in refused {
            self.retire(id, &sealed).await;
        }
    }

    /// Has new segments take the place of the old ones.
    fn finish_swaps(&self, cut: &Cut) {
        for swap in &cut.swaps {
            let mut partitions = self.0.partitions.borrow_mut();
            if let Some(partition) = partitions.get_mut(swap.handle) {
                let (old, released) = partition.swap(&swap.sealed, swap.cleaned);
                self.0.tail_bytes.set(self.0.tail_bytes.get() - released);
                self.0.retention.replaced(partition.id, old);
            }
            swap.outcome.set(Some(true));
        }
    }

    /// Writes the index of every newly sealed segment, and cuts off the space that was reserved behind it.
    async fn write_indexes(&self, cut: &Cut) -> Result<(), ShardError> {
        for (id, sealed) in &cut.sealed {
            self.finish_segment(*id, sealed).await?;
        }
        Ok(())
    }

    fn take_gone(&self) -> Vec<Record> {
        let known = |id: &PartitionId| {
            let file = self.0.checkpoints.file.borrow();
            file.as_ref().is_some_and(|file| file.state.partitions.contains_key(id))
        };
        let gone = self.0.checkpoints.gone.take();
        gone.into_iter().filter(known).map(|partition| Record::Gone { partition }).collect()
    }

    /// Adds records to the checkpoint file, durably; begins a new file when this one has become long.
    async fn record(&self, records: &[Record]) -> Result<(), ShardError> {
        let Some(mut file) = self.0.checkpoints.file.borrow_mut().take() else { return Ok(()) };
        for record in records {
            file.state.apply(record);
        }
        let outgrown = file.next.position > 2 * file.snapshot_bytes + FILE_STEP_BYTES;
        if outgrown {
            self.prune_producers(&mut file.state);
        }
        let outcome = match outgrown {
            true => self.begin_checkpoint_file(file.header.sequence + 1, file.state).await,
            false => self.add_groups(file, records).await,
        };
        *self.0.checkpoints.file.borrow_mut() = Some(outcome?);
        Ok(())
    }

    async fn add_groups(&self, mut file: CheckpointFile, records: &[Record]) -> Result<CheckpointFile, ShardError> {
        let mut rest = records;
        while !rest.is_empty() {
            let mut buffer = self.0.memory.wait_buffer(GROUP_BYTES).await;
            let mut group = GroupWriter::new(&mut buffer, &file.next);
            let fits = rest.iter().take_while(|record| group.push(record).is_ok()).count();
            let finished = group.finish();
            rest = &rest[fits..];
            buffer.truncate(finished.length);
            self.write_group(&mut file, buffer.freeze()).await?;
            file.next = file.next.after(finished);
        }
        file.file.sync_data().await.map_err(|error| ShardError::io("flushing", &file.path, &error))?;
        file.next = file.next.synced();
        Ok(file)
    }

    async fn write_group(&self, file: &mut CheckpointFile, group: Slice) -> Result<(), ShardError> {
        let failed = |error| ShardError::io("writing", &file.path, &error);
        let end = file.next.position + group.len() as u64;
        if end > file.reserved {
            let more = (end - file.reserved).next_multiple_of(FILE_STEP_BYTES);
            file.file.allocate(file.reserved, more).await.map_err(failed)?;
            file.reserved += more;
        }
        file.file.write_at(file.next.position, group, WriteSync::None).await.map_err(failed)
    }

    /// Begins a checkpoint file that says `state`, and makes it the one that counts.
    pub(super) async fn begin_checkpoint_file(
        &self,
        sequence: u64,
        state: CheckpointState,
    ) -> Result<CheckpointFile, ShardError> {
        let config = &self.0.config;
        let header = FileHeader {
            nonce: crate::log::frame::Nonce(self.reactor().random()),
            sequence,
            generation: config.generation,
            node: config.node,
            shard: self.id(),
        };
        let (bytes, next) = checkpoint::snapshot(&state, &header, GROUP_BYTES);
        let directory = paths::shard(&config.data_dir, config.generation, self.id());
        let path = directory.join(paths::checkpoint_name(sequence));
        let temporary = directory.join("checkpoint.new");
        let file = self.write_file(&temporary, &bytes).await?;
        let reactor = self.reactor();
        reactor.rename(&temporary, &path).await.map_err(|error| ShardError::io("renaming to", &path, &error))?;
        reactor.sync_dir(&directory).await.map_err(|error| ShardError::io("flushing", &directory, &error))?;
        if let Some(old) = sequence.checked_sub(1).filter(|old| *old > 0) {
            // The new file is the one that counts from here on; if the old one stays, the next start removes it.
            let _ = reactor.remove_file(&directory.join(paths::checkpoint_name(old))).await;
        }
        let snapshot_bytes = bytes.len() as u64;
        Ok(CheckpointFile { file: Rc::new(file), path, header, next, state, reserved: snapshot_bytes, snapshot_bytes })
    }

    /// Makes durable what was written to any file.
    async fn barrier(&self) -> std::io::Result<()> {
        let (reactor, root) = (self.reactor(), &self.0.config.data_dir);
        if planted::active(Bug::BarrierSkipped) {
            return Ok(());
        }
        match reactor.sync_fs(root).await {
            Err(_) if planted::active(Bug::FailedFlushRetried) => reactor.sync_fs(root).await,
            outcome => outcome,
        }
    }

    /// Writes a whole file of whole blocks and makes its content durable.
    pub(super) async fn write_file(&self, path: &std::path::Path, bytes: &[u8]) -> Result<File, ShardError> {
        let file = self.write_file_unflushed(path, bytes).await?;
        if !planted::active(Bug::CheckpointNotFlushed) {
            file.sync_data().await.map_err(|error| ShardError::io("writing", path, &error))?;
        }
        Ok(file)
    }

    /// The same for a file that can be made anew.
    pub(super) async fn write_file_unflushed(&self, path: &std::path::Path, bytes: &[u8]) -> Result<File, ShardError> {
        let file = self.reactor().open(path, Open::Create).await;
        let file = file.map_err(|error| ShardError::io("creating", path, &error))?;
        let failed = |error| ShardError::io("writing", path, &error);
        file.truncate(0).await.map_err(failed)?;
        for (index, piece) in bytes.chunks(GROUP_BYTES).enumerate() {
            let mut buffer = self.0.memory.wait_buffer(piece.len().next_multiple_of(BLOCK as usize)).await;
            buffer[..piece.len()].copy_from_slice(piece);
            buffer[piece.len()..].fill(0);
            let position = (index * GROUP_BYTES) as u64;
            file.write_at(position, buffer.freeze(), WriteSync::None).await.map_err(failed)?;
        }
        Ok(file)
    }

    fn finish_checkpoint(&self, cut: &Cut) {
        self.0.journal.borrow_mut().free_from = cut.journal.position;
        let mut partitions = self.0.partitions.borrow_mut();
        let file = self.0.checkpoints.file.borrow();
        for (handle, mark) in &cut.covered {
            let Some(partition) = partitions.get_mut(*handle) else { continue };
            // Not before it is durable: what retention drops by it is asked for by entries of the journal until then.
            partition.checkpoint.sealed_before = mark.end.segment;
            partition.checkpoint.first = mark.first;
            let Some(state) = file.as_ref().and_then(|file| file.state.partitions.get(&partition.id)) else { continue };
            partition.note_checkpointed(&state.extent);
            let segment = state.extent.segment_base;
            if let Some(active) = partition.active.as_mut().filter(|active| active.base == segment) {
                active.linked = true;
                active.initialised = active.initialised.max(block_ceil(state.extent.end));
            }
        }
        drop((partitions, file));
        self.finish_swaps(cut);
        count(&self.0.counters.checkpoints, 1);
        self.0.checkpoints.writing.set(0);
        self.0.checkpoints.evictable.set(true);
        self.0.checkpoints.completed.notify();
        self.0.commits.work.notify();
    }
}

pub(super) fn extent(partition: &Partition, mark: &Mark) -> Extent {
    Extent {
        first: mark.first,
        next: mark.next,
        // One replica: what is durable here is on enough replicas.
        high_watermark: mark.next,
        segment_base: mark.end.segment,
        end: mark.end.position,
        max_timestamp: mark.max_timestamp,
        leader_epoch: partition.leader_epoch,
        replica: Uuid::nil(),
    }
}

pub(super) fn sealed_state(sealed: &Sealed) -> SealedRecord {
    SealedRecord {
        last: Offset(sealed.next.0 - 1),
        end: sealed.bytes,
        max_timestamp: sealed.max_timestamp,
        rewrite: sealed.rewrite,
    }
}

/// Base of the segment that holds `first`: those before it are dropped.
fn first_segment(partition: &Partition, first: Offset) -> Offset {
    let holds = |sealed: &&Sealed| sealed.next > first;
    partition.sealed.iter().find(holds).map_or(partition.journaled.end.segment, |sealed| sealed.base)
}
