//! What lies behind the tail: whole batches out of a segment, in one large direct read.

use super::Cursor;
use crate::error::{ReadError, ShardError};
use crate::log::paths::SegmentName;
use crate::log::tail::{BLOCK, Place, block_ceil, block_floor};
use crate::model::{LeaderEpoch, Offset, Position};
use crate::planted::{self, Bug};
use crate::reactor::Slice;
use crate::shard::pace::{Leave, Rank};
use crate::shard::partition::Sealed;
use crate::shard::{PartitionHandle, Shard};
use corelog_batch::{BatchView, HEADER_BYTES, frame_length};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// A piece of a segment in memory, whole batches only, each with a checksum that was found right.
#[derive(Debug)]
pub(in crate::shard) struct Window {
    pub(super) start: Place,
    /// Of the segment's file.
    pub(super) rewrite: u32,
    pub(super) base: Offset,
    pub(super) end: Position,
    pub(super) next: Offset,
    pub(super) data: Slice,
    /// Length of the longest batch.
    pub(super) longest: usize,
    /// Position in the segment of the first byte of `data`.
    data_from: Position,
    _memory: Lease,
}

/// A part of the memory for reads; given back when dropped.
#[derive(Debug)]
struct Lease {
    bytes: usize,
    used: Rc<Cell<usize>>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.used.set(self.used.get() - self.bytes);
    }
}

impl Window {
    pub(super) fn within(&self, range: Range<Position>) -> Range<usize> {
        (range.start.0 - self.data_from.0) as usize..(range.end.0 - self.data_from.0) as usize
    }

    /// All of its batches, one behind the other.
    pub(in crate::shard) fn batches(&self) -> &[u8] {
        self.bytes(self.start.position..self.end)
    }

    /// The offset and the place behind them.
    pub(in crate::shard) fn after(&self) -> (Offset, Position) {
        (self.next, self.end)
    }

    pub(super) fn bytes(&self, range: Range<Position>) -> &[u8] {
        &self.data[self.within(range)]
    }
}

impl Shard {
    /// Reads the piece of a segment that holds `from` into the cursor.
    pub(super) async fn load_window(
        &self,
        handle: PartitionHandle,
        from: Offset,
        cursor: &mut Cursor,
    ) -> Result<(), ReadError> {
        cursor.window = None;
        if let Some((window, end)) = self.take_ahead(from, cursor).await {
            cursor.ahead = self.read_ahead(handle, &window, end);
            cursor.window = Some(Box::new(window));
            return Ok(());
        }
        let goes_on = cursor.at.is_some_and(|(offset, _)| offset == from);
        if !goes_on {
            self.complete_active_index(handle).await?;
        }
        let target = self.target(handle, from, cursor).await?;
        let mut at = target.known;
        loop {
            let window = self.read_window(handle, &target, at, Some(Rank::Reader)).await?;
            if window.next > from {
                cursor.ahead = goes_on.then(|| self.read_ahead(handle, &window, target.end)).flatten();
                cursor.window = Some(Box::new(window));
                return Ok(());
            }
            // Not far enough: on from where whole batches ended.
            at = (window.next, window.end);
        }
    }

    /// Where in which segment the search for an offset begins.
    async fn target(&self, handle: PartitionHandle, from: Offset, cursor: &Cursor) -> Result<Target, ReadError> {
        let sealed = {
            let partitions = self.0.partitions.borrow();
            let partition = partitions.get(handle).ok_or(ReadError::UnknownPartition)?;
            if from < partition.first {
                return Err(ReadError::OutOfRange { first: partition.first, next: partition.visible });
            }
            let holds = partition.sealed.partition_point(|sealed| sealed.next <= from);
            let segment = partition.sealed.get(holds).map(|sealed| sealed.base);
            let segment = segment.or(partition.active.as_ref().map(|active| active.base)).unwrap_or(Offset(0));
            let is_so = cursor.rewrites == partition.rewrites || planted::active(Bug::OldPlacesTrusted);
            let exact = cursor.at.filter(|(offset, place)| is_so && *offset == from && place.segment == segment);
            let rewrite = partition.sealed.get(holds).map_or(0, |sealed| sealed.rewrite);
            let end = super::lookup::on_disk_end(partition, segment, partition.sealed.get(holds));
            if let Some((offset, place)) = exact {
                return Ok(Target { segment, rewrite, known: (offset, place.position), end });
            }
            match (partition.sealed.get(holds), &partition.active) {
                (Some(sealed), _) => (sealed.clone(), end),
                (None, Some(active)) => {
                    let (offset, position) = active.index.lookup(from);
                    return Ok(Target { segment, rewrite, known: (offset, position), end });
                }
                (None, None) => return Err(ReadError::UnknownPartition),
            }
        };
        let (sealed, end) = sealed;
        let index = self.sealed_index(handle, &sealed).await?;
        Ok(Target { segment: sealed.base, rewrite: sealed.rewrite, known: index.lookup(from), end })
    }

    /// Reads whole batches of a sealed segment, at least one, from the one that is at this place.
    pub(in crate::shard) async fn read_sealed(
        &self,
        handle: PartitionHandle,
        sealed: &Sealed,
        at: (Offset, Position),
    ) -> Result<Window, ReadError> {
        let (segment, rewrite, end) = (sealed.base, sealed.rewrite, sealed.bytes);
        self.read_window(handle, &Target { segment, rewrite, known: at, end }, at, Some(Rank::Reader)).await
    }

    /// Reads whole batches, at least one. Without a rank it waits for no turn: for what others wait for, and is rare.
    pub(super) async fn read_window(
        &self,
        handle: PartitionHandle,
        target: &Target,
        (base, position): (Offset, Position),
        rank: Option<Rank>,
    ) -> Result<Window, ReadError> {
        let life = self.life();
        let (mut least, mut is_second) = (0, false);
        loop {
            let leave = self.leave_to_read(target, position, rank).await;
            match self.try_window(handle, target, (base, position), leave.bytes.max(least)).await {
                Ok(Loaded::Window(window)) => return Ok(window),
                Ok(Loaded::Larger(needed)) => least = needed,
                Err(Unread::Refused(error)) => return Err(error),
                // A failed flush may have undone what recovery is about to write again.
                Err(Unread::Damaged(..)) if life.is_none() || self.life() != life => return Err(ReadError::Reopening),
                // Twice: a disk may fail once to read what it holds.
                Err(Unread::Damaged(at, why)) if is_second => {
                    return Err(self.damaged(handle, target.name(), at, why));
                }
                Err(Unread::Damaged(..)) => is_second = true,
            }
        }
    }

    /// Leave to read about as much as is read at once, of what there is from `position` on.
    pub(super) async fn leave_to_read(&self, target: &Target, position: Position, rank: Option<Rank>) -> Leave<'_> {
        let usual = target.blocks_from(position).min(self.0.config.read_bytes);
        match rank {
            Some(rank) => self.leave(rank, usual).await,
            None => self.leave_at_once(usual),
        }
    }

    /// How often segments of a partition were written anew.
    pub(super) fn rewrites(&self, handle: PartitionHandle) -> Option<u64> {
        self.0.partitions.borrow().get(handle).map(|partition| partition.rewrites)
    }

    /// Which of its lives the shard is in: each ends with an I/O error, and the log is read again from disk.
    fn life(&self) -> Option<u64> {
        (!self.has_failed()).then(|| self.counters().reopenings.get())
    }

    pub(super) async fn try_window(
        &self,
        handle: PartitionHandle,
        target: &Target,
        (base, position): (Offset, Position),
        bytes: usize,
    ) -> Result<Loaded, Unread> {
        let data_from = block_floor(position);
        let to = block_ceil(target.end).min(Position(data_from.0 + bytes.next_multiple_of(BLOCK as usize) as u64));
        if position >= target.end {
            return Err(ReadError::Busy.into());
        }
        let epoch = self.0.partitions.borrow().get(handle).ok_or(ReadError::UnknownPartition)?.leader_epoch;
        let lease = self.lease_read((to.0 - data_from.0) as usize)?;
        let buffer = self.reactor().pool().buffer(lease.bytes).ok_or(ReadError::Busy)?;
        let file = self.segment_file(handle, target.name()).await;
        let file = file.map_err(|error| self.not_opened(handle, target.name(), &error))?;
        let file = file.ok_or(ReadError::UnknownPartition)?;
        let (read, buffer) = file.read_at(data_from.0, buffer).await;
        let read = read.map_err(|error| io(&error))?;
        let data_end = Position(data_from.0 + read as u64).min(target.end);
        let data = buffer.freeze();
        let held = &data[(position.0 - data_from.0) as usize..(data_end.0.max(position.0) - data_from.0) as usize];
        let Whole { length, next, longest } = match whole_batches(held, base, epoch) {
            // A file that ends early, or a batch that reaches beyond the end, would be asked for again for ever.
            Ok(Whole { length: 0, .. }) if read < lease.bytes || data_end == target.end => {
                return Err(Unread::Damaged(position, "the segment ends within a batch"));
            }
            Ok(Whole { length: 0, .. }) => return grow(target, position, held, lease.bytes),
            Ok(whole) => whole,
            Err(why) => return Err(Unread::Damaged(position, why)),
        };
        let (start, rewrite) = (Place { segment: target.segment, position }, target.rewrite);
        let end = position.plus(length as u64);
        let window = Window { start, rewrite, base, end, next, data, longest, data_from, _memory: lease };
        Ok(Loaded::Window(window))
    }

    fn lease_read(&self, bytes: usize) -> Result<Lease, ReadError> {
        let used = &self.0.read_bytes;
        if used.get() + bytes > self.0.config.read_bytes_max {
            return Err(ReadError::Busy);
        }
        used.set(used.get() + bytes);
        Ok(Lease { bytes, used: used.clone() })
    }

    fn not_opened(&self, handle: PartitionHandle, segment: SegmentName, error: &ShardError) -> ReadError {
        match (self.dropped(handle, segment), error) {
            (Some(dropped), _) => dropped,
            (None, ShardError::Damaged { .. }) => {
                self.fence(handle, error.to_string());
                ReadError::Fenced(error.to_string().into())
            }
            (None, error) => io(error),
        }
    }

    /// The error for a reader of a segment that was dropped while it was about to open the file; none if it is there.
    fn dropped(&self, handle: PartitionHandle, segment: SegmentName) -> Option<ReadError> {
        let partitions = self.0.partitions.borrow();
        let Some(partition) = partitions.get(handle) else { return Some(ReadError::UnknownPartition) };
        let is_active = partition.active.as_ref().is_some_and(|active| SegmentName::from(active.base) == segment);
        let is_there = is_active || partition.sealed.iter().any(|sealed| sealed.name() == segment);
        (!is_there).then_some(ReadError::OutOfRange { first: partition.first, next: partition.visible })
    }

    /// Reports what cannot be right on disk, and fences the partition.
    fn damaged(&self, handle: PartitionHandle, segment: SegmentName, at: Position, why: &str) -> ReadError {
        let what = format!("{} at byte {at}: {why}", self.segment_path(handle, segment).display());
        self.fence(handle, what.clone());
        ReadError::Fenced(what.into())
    }
}

impl Target {
    pub(super) fn name(&self) -> SegmentName {
        SegmentName { base: self.segment, rewrite: self.rewrite }
    }

    /// Bytes of the blocks from the one at `position` to the end: of a short log little is read.
    fn blocks_from(&self, position: Position) -> usize {
        block_ceil(self.end).0.saturating_sub(block_floor(position).0).max(BLOCK) as usize
    }
}

pub(super) struct Target {
    pub(super) segment: Offset,
    /// Of its file.
    pub(super) rewrite: u32,
    pub(super) known: (Offset, Position),
    pub(super) end: Position,
}

pub(super) enum Loaded {
    Window(Window),
    Larger(usize),
}

/// Why a piece of a segment was not read.
pub(super) enum Unread {
    Refused(ReadError),
    /// At this byte there is not what must be there.
    Damaged(Position, &'static str),
}

impl From<ReadError> for Unread {
    fn from(error: ReadError) -> Unread {
        Unread::Refused(error)
    }
}

/// The first batch does not fit in what was read: how much is needed, if it can be.
fn grow(target: &Target, position: Position, held: &[u8], had: usize) -> Result<Loaded, Unread> {
    let length = frame_length(held).filter(|length| position.plus(*length as u64) <= target.end);
    match length.map(with_edges).filter(|needed| *needed > had) {
        Some(needed) => Ok(Loaded::Larger(needed)),
        None => Err(Unread::Damaged(position, "no whole batch begins here")),
    }
}

/// A read of so many bytes holds a batch of `length` wherever it begins.
pub(super) fn with_edges(length: usize) -> usize {
    length + 2 * BLOCK as usize
}

fn io(error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Io(error.to_string().into())
}

/// Whole batches, one behind the other.
struct Whole {
    /// Of all together, in bytes.
    length: usize,
    /// Of the longest.
    longest: usize,
    /// The offset after them.
    next: Offset,
}

/// What there is of whole batches. Each must follow the one before it, have the right checksum, and be of an epoch up to
/// `last`, which the checksum does not cover. What lies before one that is not so is given: it was acknowledged and is whole.
/// The error says what is wrong with the first.
fn whole_batches(bytes: &[u8], base: Offset, last: LeaderEpoch) -> Result<Whole, &'static str> {
    let mut whole = Whole { length: 0, longest: 0, next: base };
    loop {
        match whole_batch(&bytes[whole.length..], whole.next, last) {
            Ok(Some((length, next))) => {
                whole = Whole { length: whole.length + length, longest: whole.longest.max(length), next };
            }
            Err(why) if whole.length == 0 => return Err(why),
            Ok(None) | Err(_) => return Ok(whole),
        }
    }
}

/// The length of the batch that begins here, and the offset after it; None if it goes on behind these bytes.
fn whole_batch(bytes: &[u8], base: Offset, last: LeaderEpoch) -> Result<Option<(usize, Offset)>, &'static str> {
    let Some(length) = frame_length(bytes) else {
        return if bytes.len() < HEADER_BYTES { Ok(None) } else { Err("no batch begins here") };
    };
    if length > bytes.len() {
        return Ok(None);
    }
    let batch = BatchView::first(bytes).map_err(|_| "no batch begins here")?;
    if Offset(batch.base_offset()) != base {
        return Err("the batch's offset does not follow the one before");
    }
    if batch.crc() != batch.computed_crc() {
        return Err("the batch's checksum does not fit");
    }
    if !(0..=last.0).contains(&batch.leader_epoch()) {
        return Err("the batch is of a leader epoch that cannot be here");
    }
    Ok(Some((length, Offset(batch.next_offset()))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelog_batch::{BatchBuilder, Codec};

    /// The checksum covers neither the offset nor the epoch.
    #[test]
    fn offset_and_epoch_of_a_batch_are_looked_at() {
        let mut builder = BatchBuilder::new(1 << 10, Codec::None);
        builder.append(None, Some(b"value"), &[], 1).unwrap();
        let mut bytes = builder.build().unwrap();
        let mut stamped = |offset, epoch| {
            corelog_batch::stamp(bytes.first_chunk_mut().unwrap(), offset, epoch);
            whole_batches(&bytes, Offset(7), LeaderEpoch(2)).map(|whole| whole.next)
        };
        assert_eq!((stamped(7, 0), stamped(7, 2)), (Ok(Offset(8)), Ok(Offset(8))));
        for (offset, epoch) in [(8, 0), (7, 3), (7, -1), (7, 1 << 26)] {
            assert!(stamped(offset, epoch).is_err(), "{offset} {epoch}");
        }
    }
}
