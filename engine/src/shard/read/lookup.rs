//! Where an offset or a time is: the sparse indexes, and segments where there is none.

use super::window::Target;
use super::{Cursor, Read};
use crate::error::ReadError;
use crate::log::index::{FILE_BYTES_MAX, Identity, SparseIndex, decode};
use crate::log::paths::{self, SegmentName};
use crate::model::{Offset, Position, Timestamp};
use crate::reactor::{Open, Outgoing};
use crate::shard::event::Event;
use crate::shard::partition::{Partition, Sealed};
use crate::shard::{PartitionHandle, Shard};
use corelog_batch::batches;
use std::cell::RefCell;
use std::collections::HashSet;

/// What to look up an offset by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The first offset of the log.
    Earliest,
    /// The offset after the last record shown to readers.
    Latest,
    /// The first record with the greatest timestamp.
    MaxTimestamp,
    /// The first record at or after a time.
    At(Timestamp),
}

/// A batch whose records take more is not searched for the one: its first offset is given.
const SEARCHED_BYTES_MAX: usize = 4 << 20;

/// Active segments whose index is being completed.
#[derive(Debug, Default)]
pub(in crate::shard) struct Rebuilds {
    under_way: RefCell<HashSet<PartitionHandle>>,
    ended: Event,
}

/// One of them, until it is dropped.
struct Rebuild<'a> {
    shard: &'a Shard,
    handle: PartitionHandle,
}

impl Drop for Rebuild<'_> {
    fn drop(&mut self) {
        self.shard.0.rebuilds.under_way.borrow_mut().remove(&self.handle);
        self.shard.0.rebuilds.ended.notify();
    }
}

impl Shard {
    /// Looks up an offset; with it the timestamp of the record that was found, or -1 where none was looked for.
    ///
    /// # Errors
    /// As [`Shard::read_disk`].
    pub async fn list_offset(
        &self,
        handle: PartitionHandle,
        query: OffsetQuery,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let none = Timestamp(-1);
        let (first, visible, newest) = {
            let partitions = self.0.partitions.borrow();
            let partition = partitions.get(handle).ok_or(ReadError::UnknownPartition)?;
            (partition.first, partition.visible, partition.max_timestamp())
        };
        match query {
            OffsetQuery::Earliest => Ok(Some((first, none))),
            OffsetQuery::Latest => Ok(Some((visible, none))),
            OffsetQuery::MaxTimestamp if newest == none => Ok(None),
            OffsetQuery::MaxTimestamp => self.find_time(handle, newest, first).await,
            OffsetQuery::At(time) => self.find_time(handle, time, first).await,
        }
    }

    async fn find_time(
        &self,
        handle: PartitionHandle,
        time: Timestamp,
        first: Offset,
    ) -> Result<Option<(Offset, Timestamp)>, ReadError> {
        let Some(mut from) = self.time_floor(handle, time).await? else { return Ok(None) };
        from = from.max(first);
        let (mut cursor, mut out) = (Cursor::default(), Outgoing::new());
        loop {
            out.clear();
            let read = self.read_disk(handle, from, 1, &mut cursor, &mut out).await?;
            let Read::Data { next, .. } = read else { return Ok(None) };
            if let Some(found) = find_record(&out.to_vec(), time, first) {
                return Ok(Some(found));
            }
            from = next;
        }
    }

    /// An offset before which every record is older than `time`; None if all are.
    async fn time_floor(&self, handle: PartitionHandle, time: Timestamp) -> Result<Option<Offset>, ReadError> {
        self.complete_active_index(handle).await?;
        let sealed = {
            let partitions = self.0.partitions.borrow();
            let partition = partitions.get(handle).ok_or(ReadError::UnknownPartition)?;
            let first_newer = partition.sealed.iter().find(|sealed| sealed.max_timestamp >= time);
            match (first_newer, &partition.active) {
                (Some(sealed), _) => sealed.clone(),
                (None, Some(active)) if active.max_timestamp >= time => {
                    return Ok(Some(active.index.lookup_time(time).map_or(active.base, |(offset, _)| offset)));
                }
                _ => return Ok(None),
            }
        };
        let rewrites = self.rewrites(handle);
        let index = match self.sealed_index(handle, &sealed).await {
            // Its file is gone, and what it held is in another one.
            Err(_) if self.rewrites(handle) != rewrites => return Box::pin(self.time_floor(handle, time)).await,
            index => index?,
        };
        Ok(Some(index.lookup_time(time).map_or(sealed.base, |(offset, _)| offset)))
    }

    fn on_disk_end(&self, handle: PartitionHandle, sealed: &Sealed) -> Result<Position, ReadError> {
        let partitions = self.0.partitions.borrow();
        let partition = partitions.get(handle).ok_or(ReadError::UnknownPartition)?;
        Ok(on_disk_end(partition, sealed.base, Some(sealed)))
    }

    /// The index of a sealed segment: from memory, its file, or, if that is missing or damaged, the segment itself.
    pub(super) async fn sealed_index(
        &self,
        handle: PartitionHandle,
        sealed: &Sealed,
    ) -> Result<SparseIndex, ReadError> {
        if let Some(index) = &sealed.index {
            return Ok(index.clone());
        }
        let id = self.0.partitions.borrow().get(handle).ok_or(ReadError::UnknownPartition)?.id;
        let path = paths::index(&self.0.config.data_dir, id, sealed.name());
        let identity = Identity { partition: id, base: sealed.base, end: sealed.bytes };
        if let Ok(file) = self.reactor().open(&path, Open::Read).await {
            let buffer = self.reactor().pool().buffer(FILE_BYTES_MAX).ok_or(ReadError::Busy)?;
            let (read, buffer) = file.read_at(0, buffer).await;
            let decoded = read.ok().and_then(|read| decode(&buffer[..read]).ok());
            if let Some((_, index)) = decoded.filter(|(found, _)| *found == identity) {
                return Ok(index);
            }
        }
        // The end of a segment that was just sealed may be in the journal only.
        let on_disk = self.on_disk_end(handle, sealed)?;
        let (index, is_whole) = self.rebuild_index(handle, sealed.name(), on_disk).await?;
        if is_whole && on_disk == sealed.bytes {
            // A rebuilt index that cannot be written is built again next time.
            let _ = self.write_index(id, sealed, &index).await;
        }
        Ok(index)
    }

    /// After a start the index of the active segment knows nothing of what was there before: reads that, once for all who
    /// wait for it.
    pub(super) async fn complete_active_index(&self, handle: PartitionHandle) -> Result<(), ReadError> {
        loop {
            let ended = self.0.rebuilds.ended.wait();
            let Some((base, known_from)) = self.unindexed(handle) else { return Ok(()) };
            if self.0.rebuilds.under_way.borrow_mut().insert(handle) {
                let _rebuild = Rebuild { shard: self, handle };
                return self.index_active(handle, base, known_from).await;
            }
            ended.await;
        }
    }

    /// The active segment, if its index does not reach back to its beginning, and from where on it does.
    fn unindexed(&self, handle: PartitionHandle) -> Option<(Offset, Position)> {
        let partitions = self.0.partitions.borrow();
        let active = partitions.get(handle)?.active.as_ref().filter(|active| active.indexed_from.0 > 0)?;
        Some((active.base, active.indexed_from))
    }

    async fn index_active(&self, handle: PartitionHandle, base: Offset, known_from: Position) -> Result<(), ReadError> {
        let (mut index, _) = self.rebuild_index(handle, base.into(), known_from).await?;
        let mut partitions = self.0.partitions.borrow_mut();
        let partition = partitions.get_mut(handle).ok_or(ReadError::UnknownPartition)?;
        let active = partition.active.as_mut().filter(|active| active.base == base && active.indexed_from.0 > 0);
        if let Some(active) = active {
            index.join(&active.index);
            (active.index, active.indexed_from) = (index, Position(0));
        }
        Ok(())
    }

    /// The index of a segment up to `end`, by reading it; false if that ended before, where something cannot be read. Whoever
    /// reads on from there meets it and is told; what lies before it is not to be refused for it.
    async fn rebuild_index(
        &self,
        handle: PartitionHandle,
        SegmentName { base, rewrite }: SegmentName,
        end: Position,
    ) -> Result<(SparseIndex, bool), ReadError> {
        let mut index = SparseIndex::new(base);
        let target = Target { segment: base, rewrite, known: (base, Position(0)), end };
        let mut at = target.known;
        while at.1 < end {
            let window = match self.read_window(handle, &target, at, None).await {
                Ok(window) => window,
                Err(ReadError::Fenced(_) | ReadError::Io(_)) => return Ok((index, false)),
                Err(error) => return Err(error),
            };
            let mut position = at.1;
            for batch in corelog_batch::batches(window.bytes(at.1..window.end)).flatten() {
                index.note(Offset(batch.base_offset()), position, Timestamp(batch.max_timestamp()));
                position = position.plus(batch.bytes().len() as u64);
            }
            at = (window.next, window.end);
            self.reactor().yield_now().await;
        }
        Ok((index, true))
    }
}

/// The first record of a batch at or after a time, of those from `first` on.
fn find_record(bytes: &[u8], time: Timestamp, first: Offset) -> Option<(Offset, Timestamp)> {
    let batch = batches(bytes).next()?.ok().filter(|batch| batch.max_timestamp() >= time.0)?;
    let mut scratch = Vec::new();
    let Ok(records) = batch.records(&mut scratch, SEARCHED_BYTES_MAX) else {
        return Some((Offset(batch.base_offset()).max(first), Timestamp(batch.max_timestamp())));
    };
    let found = records.map_while(Result::ok).find(|record| record.offset >= first.0 && record.timestamp >= time.0)?;
    Some((Offset(found.offset), Timestamp(found.timestamp)))
}

/// Up to where a segment's batches are certain to be in its file.
pub(super) fn on_disk_end(partition: &Partition, segment: Offset, sealed: Option<&Sealed>) -> Position {
    match (sealed, partition.checkpoint.end) {
        (_, Some(end)) if end.segment == segment => end.position,
        (Some(sealed), Some(end)) if end.segment > segment => sealed.bytes,
        _ => Position(0),
    }
}
