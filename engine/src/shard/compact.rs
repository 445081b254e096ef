//! Compaction: segments are written anew without the records that later ones of the same key replace.
//!
//! A new segment is a file of its own. The next checkpoint's barrier makes it durable, its records say that it counts, and then
//! it takes the place of the old ones, which go. So a crash finds either all of it or nothing. One group of segments after
//! the other: the news that a key is gone may only go when what the key had is gone for good.

use super::checkpoint::Swap;
use super::pace::Rank;
use super::partition::{Partition, Sealed};
use super::read::Window;
use super::{PartitionHandle, Shard, count};
use crate::error::{ReadError, ShardError};
use crate::limits::COMPACTION_KEYS_MAX;
use crate::log::compaction::{self, Dirt, Judge, Keys, Rewriter, note_keys};
use crate::log::index::SparseIndex;
use crate::log::paths::{self, SegmentName};
use crate::log::tail::{BLOCK, block_ceil};
use crate::metadata::TopicSettings;
use crate::model::{Offset, PartitionId, Position, Timestamp};
use crate::reactor::{File, Open, either};
use corelog_batch::{BatchView, batches};
use std::path::PathBuf;
use std::time::Duration;

/// Written at once.
const PIECE_BYTES: usize = 64 << 10;
/// Space is asked for in steps of so many bytes.
const RESERVE_BYTES: u64 = 16 << 20;
/// Others get their turn when so many bytes of batches were looked at.
const TURN_BYTES: usize = 64 << 10;
/// Partitions that are looked at before others get their turn.
const PARTITIONS_A_TURN: usize = 128;
/// How long it waits for memory that readers have.
const PAUSE: Duration = Duration::from_millis(10);

/// Why a pass was given up. Nothing has changed but what was durably swapped before.
#[derive(Debug, thiserror::Error)]
enum GivenUp {
    /// The shard stops, or the partition or what it was to read is gone.
    #[error("it is gone")]
    Gone,
    /// The disk has no room for what would be written.
    #[error("the disk has too little room to write {0} bytes")]
    NoSpace(u64),
    #[error(transparent)]
    Unread(#[from] ReadError),
    #[error(transparent)]
    Unwritten(#[from] ShardError),
}

/// What one pass works on.
struct Pass {
    id: PartitionId,
    settings: TopicSettings,
    sealed: Vec<Sealed>,
    cleaned: Offset,
    first: Offset,
}

impl Shard {
    /// Compacts the partitions whose topics ask for it, until the shard stops.
    pub(super) async fn run_compaction(&self) {
        self.clear_replaced().await;
        // Said once, not every time that it is tried again.
        let mut is_told = false;
        while self.goes_on() {
            either(self.reactor().sleep(self.0.config.compaction_interval), self.0.state_changed.wait()).await;
            for handle in self.dirty_partitions().await {
                if !self.goes_on() {
                    return;
                }
                match self.compact(handle).await {
                    Ok(()) => is_told = false,
                    Err(GivenUp::Gone) => {}
                    Err(why) if !is_told => {
                        eprintln!("corelog: shard {}: a compaction is given up for now: {why}", self.id());
                        is_told = true;
                    }
                    Err(_) => {}
                }
            }
        }
    }

    fn goes_on(&self) -> bool {
        !self.is_stopping() && !self.has_failed()
    }

    /// Partitions that are worth a pass, the dirtiest first.
    async fn dirty_partitions(&self) -> Vec<PartitionHandle> {
        let now = self.reactor().wall_clock();
        let handles = self.0.partitions.borrow().handles();
        let mut dirty = Vec::new();
        for (index, handle) in handles.into_iter().enumerate() {
            if index % PARTITIONS_A_TURN == 0 {
                self.reactor().yield_now().await;
            }
            let partitions = self.0.partitions.borrow();
            let due = partitions.get(handle).and_then(|partition| partition.dirt(now));
            dirty.extend(due.map(|dirt| (dirt.ratio, handle)));
        }
        dirty.sort_by(|(one, _), (other, _)| other.total_cmp(one));
        dirty.into_iter().map(|(_, handle)| handle).collect()
    }

    async fn compact(&self, handle: PartitionHandle) -> Result<(), GivenUp> {
        let now = self.reactor().wall_clock();
        let pass = self.0.partitions.borrow().get(handle).and_then(|partition| partition.begin_pass(now));
        let Some(pass) = pass else { return Ok(()) };
        let seeds = [self.reactor().random(), self.reactor().random()];
        let mut keys = Keys::new(seeds, COMPACTION_KEYS_MAX);
        let to = self.map_keys(handle, &pass, &mut keys).await?;
        let last = Offset(pass.sealed.last().map_or(0, |sealed| sealed.next.0) - 1);
        let (first, delete_retention_ms) = (pass.first, pass.settings.delete_retention_ms);
        let judge = Judge { keys: &keys, to, last, first, now, delete_retention_ms };
        let mut rest = &pass.sealed[..pass.sealed.partition_point(|sealed| sealed.base < to)];
        let mut has_unread = false;
        while !rest.is_empty() {
            let sealed = self.rewrite(handle, &pass, rest, &judge, &mut has_unread).await?;
            rest = &rest[rest.partition_point(|old| old.next <= sealed.next)..];
            self.swap(handle, sealed, rest.is_empty().then_some(to)).await?;
        }
        count(&self.0.counters.compactions, 1);
        Ok(())
    }

    /// Notes the newest record of each key that no pass has seen; up to which offset there was room for them.
    async fn map_keys(&self, handle: PartitionHandle, pass: &Pass, keys: &mut Keys) -> Result<Offset, GivenUp> {
        let mut scratch = Vec::new();
        for sealed in pass.sealed.iter().filter(|sealed| sealed.next > pass.cleaned) {
            let mut at = (sealed.base, Position(0));
            while at.1 < sealed.bytes {
                let window = self.window(handle, sealed, at).await?;
                let mut turn = 0;
                for batch in batches(window.batches()).map_while(Result::ok) {
                    let is_dirty = batch.next_offset() > pass.cleaned.0;
                    let full = if is_dirty { note_keys(keys, &batch, pass.cleaned, &mut scratch) } else { None };
                    if let Some(full) = full {
                        return Ok(full);
                    }
                    self.take_turns(&mut turn, batch.bytes().len()).await;
                }
                at = window.after();
            }
        }
        Ok(pass.sealed.last().map_or(pass.cleaned, |sealed| sealed.next))
    }

    /// Writes the first segments of those that are left anew as one, which is not flushed yet.
    async fn rewrite(
        &self,
        handle: PartitionHandle,
        pass: &Pass,
        rest: &[Sealed],
        judge: &Judge<'_>,
        has_unread: &mut bool,
    ) -> Result<Sealed, GivenUp> {
        let Some(first) = rest.first() else { return Err(GivenUp::Gone) };
        // Above those of all that it may take the place of.
        let rewrite = rest.iter().map(|sealed| sealed.rewrite).max().unwrap_or(0) + 1;
        let mut writer = Writer::create(self, pass.id, SegmentName { base: first.base, rewrite }).await?;
        let mut rewriter = Rewriter::new(first.base, *has_unread);
        let bytes = match self.copy_group(handle, pass, rest, judge, &mut rewriter, &mut writer).await {
            Ok(bytes) => bytes,
            Err(why) => {
                // What stays now is looked at again by the next start.
                let _ = self.reactor().remove_file(&writer.path).await;
                return Err(why);
            }
        };
        *has_unread = rewriter.has_unread();
        let sealed = writer.sealed(rewriter.next());
        // Without its file an index is read back from the segment.
        let _ = self.write_index(pass.id, &sealed, &writer.index).await;
        count(&self.0.counters.compacted_records, rewriter.left_out);
        count(&self.0.counters.compacted_bytes_before, bytes);
        count(&self.0.counters.compacted_bytes_after, sealed.bytes.0);
        Ok(sealed)
    }

    /// As many segments as fit in one, and more as long as nothing of them stays; their bytes.
    async fn copy_group(
        &self,
        handle: PartitionHandle,
        pass: &Pass,
        mut rest: &[Sealed],
        judge: &Judge<'_>,
        rewriter: &mut Rewriter,
        writer: &mut Writer,
    ) -> Result<u64, GivenUp> {
        let mut bytes = 0;
        while !rest.is_empty() && !rewriter.has_records() {
            let sizes: Vec<_> = rest.iter().map(Sealed::size).collect();
            let (group, behind) = rest.split_at(compaction::group(&pass.settings, &sizes));
            let more = group.iter().map(|sealed| sealed.bytes.0).sum();
            self.look_for_space(more).await?;
            self.copy(handle, group, judge, rewriter, writer).await?;
            (bytes, rest) = (bytes + more, behind);
        }
        rewriter.finish(|batch| writer.put(batch));
        writer.finish(self).await?;
        Ok(bytes)
    }

    async fn copy(
        &self,
        handle: PartitionHandle,
        group: &[Sealed],
        judge: &Judge<'_>,
        rewriter: &mut Rewriter,
        writer: &mut Writer,
    ) -> Result<(), GivenUp> {
        for sealed in group {
            let mut at = (sealed.base, Position(0));
            while at.1 < sealed.bytes {
                let window = self.window(handle, sealed, at).await?;
                let mut turn = 0;
                for batch in batches(window.batches()).map_while(Result::ok) {
                    rewriter.take(&batch, judge, |batch| writer.put(batch));
                    writer.flush(self, PIECE_BYTES).await?;
                    self.take_turns(&mut turn, batch.bytes().len()).await;
                }
                at = window.after();
            }
        }
        Ok(())
    }

    /// Has the next checkpoint say that a new segment counts, and waits until it does.
    async fn swap(&self, handle: PartitionHandle, sealed: Sealed, cleaned: Option<Offset>) -> Result<(), GivenUp> {
        let outcome = self.0.checkpoints.swap(Swap::new(handle, sealed, cleaned));
        loop {
            let ended = self.0.checkpoints.ended.wait();
            match outcome.get() {
                Some(true) => return Ok(()),
                None if self.goes_on() => {}
                _ => return Err(GivenUp::Gone),
            }
            either(ended, self.0.state_changed.wait()).await;
        }
    }

    async fn window(
        &self,
        handle: PartitionHandle,
        sealed: &Sealed,
        at: (Offset, Position),
    ) -> Result<Window, GivenUp> {
        loop {
            if !self.goes_on() {
                return Err(GivenUp::Gone);
            }
            match self.read_sealed(handle, sealed, at).await {
                Err(ReadError::Busy) => self.reactor().sleep(PAUSE).await,
                // It was dropped meanwhile.
                Err(ReadError::OutOfRange { .. } | ReadError::UnknownPartition) => return Err(GivenUp::Gone),
                window => return Ok(window?),
            }
        }
    }

    async fn take_turns(&self, turn: &mut usize, bytes: usize) {
        *turn += bytes;
        if *turn >= TURN_BYTES {
            *turn = 0;
            self.reactor().yield_now().await;
        }
    }

    /// Old and new segments are on the disk together for a while.
    async fn look_for_space(&self, bytes: u64) -> Result<(), GivenUp> {
        let free = self.reactor().free_space(&self.0.config.data_dir).await.map_or(u64::MAX, |space| space.free);
        if self.0.storage_full.get() || self.space_share(free) < bytes {
            return Err(GivenUp::NoSpace(bytes));
        }
        Ok(())
    }

    /// Removes files that others have taken the place of, or never did, when the process ended.
    async fn clear_replaced(&self) {
        let handles = self.0.partitions.borrow().handles();
        for handle in handles {
            if !self.goes_on() {
                return;
            }
            let known = self.0.partitions.borrow().get(handle).and_then(Partition::known_files);
            let Some((id, before, known)) = known else { continue };
            self.remove_segments(id, |found| found.base < before && !known.contains(&found)).await;
        }
    }
}

impl Partition {
    /// Segments that are in a checkpoint file; of others the journal may still have something to say.
    fn settled(&self) -> impl Iterator<Item = &Sealed> {
        let is_settled = |sealed: &&Sealed| sealed.base < self.checkpoint.sealed_before && sealed.next <= self.visible;
        self.sealed.iter().take_while(is_settled).filter(|sealed| sealed.next > self.first)
    }

    fn dirt(&self, now: Timestamp) -> Option<Dirt> {
        let may_compact = self.settings.compacts() && !self.is_internal && self.fenced.is_none() && !self.swapping;
        if !may_compact {
            return None;
        }
        let sizes: Vec<_> = self.settled().map(Sealed::size).collect();
        compaction::dirt(&self.settings, now, &sizes, self.cleaned).filter(|dirt| dirt.is_due(&self.settings))
    }

    fn begin_pass(&self, now: Timestamp) -> Option<Pass> {
        let dirt = self.dirt(now)?;
        let (id, settings, cleaned, first) = (self.id, self.settings, self.cleaned, self.first);
        Some(Pass { id, settings, sealed: self.settled().take(dirt.segments).cloned().collect(), cleaned, first })
    }

    /// Before which base offset all files are known, and those that are. None where there is nothing to clear.
    fn known_files(&self) -> Option<(PartitionId, Offset, Vec<SegmentName>)> {
        let was_compacted = self.settings.compacts() || self.sealed.iter().any(|sealed| sealed.rewrite > 0);
        let known = || self.sealed.iter().map(Sealed::name).collect();
        (was_compacted && self.is_whole()).then(|| (self.id, self.checkpoint.sealed_before, known()))
    }
}

impl Sealed {
    fn size(&self) -> compaction::Segment {
        compaction::Segment { next: self.next, bytes: self.bytes.0, max_timestamp: self.max_timestamp }
    }
}

/// A new segment that is being written.
struct Writer {
    name: SegmentName,
    path: PathBuf,
    file: File,
    /// Not written yet.
    out: Vec<u8>,
    /// What is.
    written: u64,
    reserved: u64,
    end: Position,
    index: SparseIndex,
}

impl Writer {
    async fn create(shard: &Shard, id: PartitionId, name: SegmentName) -> Result<Writer, ShardError> {
        let path = paths::segment(&shard.0.config.data_dir, id, name);
        let failed = |error| ShardError::io("creating", &path, &error);
        let file = shard.reactor().open(&path, Open::Create).await.map_err(failed)?;
        // A file of this name can be left over from a pass that was given up.
        file.truncate(0).await.map_err(failed)?;
        let (out, index) = (Vec::new(), SparseIndex::new(name.base));
        Ok(Writer { name, path, file, out, written: 0, reserved: 0, end: Position(0), index })
    }

    fn put(&mut self, batch: &[u8]) {
        let Ok(view) = BatchView::first(batch) else { unreachable!("it was just built") };
        self.index.note(Offset(view.base_offset()), self.end, Timestamp(view.max_timestamp()));
        self.out.extend_from_slice(batch);
        self.end = self.end.plus(batch.len() as u64);
    }

    /// Writes what there is, until less than `least` bytes are left.
    async fn flush(&mut self, shard: &Shard, least: usize) -> Result<(), ShardError> {
        while self.out.len() >= least {
            let length = self.out.len().min(PIECE_BYTES);
            let blocks = length.next_multiple_of(BLOCK as usize);
            self.reserve(self.written + blocks as u64).await?;
            let mut buffer = shard.0.memory.wait_buffer(blocks).await;
            buffer[..length].copy_from_slice(&self.out[..length]);
            buffer[length..].fill(0);
            shard.write_piece(&self.file, self.written, &buffer.freeze(), Rank::Reader).await?;
            self.out.drain(..length);
            self.written += blocks as u64;
        }
        Ok(())
    }

    async fn reserve(&mut self, to: u64) -> Result<(), ShardError> {
        if to > self.reserved {
            let step = RESERVE_BYTES.min(self.reserved.max(PIECE_BYTES as u64));
            let bytes = (to - self.reserved).max(step);
            let reserved = self.file.allocate(self.reserved, bytes).await;
            reserved.map_err(|error| ShardError::io("reserving space in", &self.path, &error))?;
            self.reserved += bytes;
        }
        Ok(())
    }

    async fn finish(&mut self, shard: &Shard) -> Result<(), ShardError> {
        self.flush(shard, 1).await?;
        let cut = self.file.truncate(block_ceil(self.end).0).await;
        cut.map_err(|error| ShardError::io("cutting off", &self.path, &error))
    }

    fn sealed(&self, next: Offset) -> Sealed {
        let SegmentName { base, rewrite } = self.name;
        Sealed { base, next, bytes: self.end, max_timestamp: self.index.max_timestamp(), index: None, rewrite }
    }
}
