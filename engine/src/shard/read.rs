//! Reading: the tail from memory without a copy, what lies behind it in large direct reads.

use super::{PartitionHandle, Shard};
use crate::error::{ReadError, ShardError};
use crate::log::index::{FILE_BYTES_MAX, Identity, SparseIndex, decode};
use crate::log::paths;
use crate::log::tail::{BLOCK, Place, Tail, block_ceil, block_floor};
use crate::model::{Offset, Position, Timestamp};
use crate::partition::{Partition, Sealed};
use crate::reactor::Slice;
use crate::reactor::{Open, Outgoing};
use corelog_batch::{BatchView, HEADER_BYTES, frame_length};
use std::cell::Cell;
use std::ops::Range;
use std::rc::Rc;

/// Where a reader left off, and what was read ahead for it. One a reader and partition; starts empty.
#[derive(Debug, Default)]
pub struct Cursor {
    /// The batch that begins at this offset is at this place.
    at: Option<(Offset, Place)>,
    window: Option<Window>,
}

impl Cursor {
    /// Gives back the memory of what was read ahead; the place is kept.
    pub fn release(&mut self) {
        self.window = None;
    }
}

/// A piece of a segment in memory, whole batches only, each with a checksum that was found right.
#[derive(Debug)]
struct Window {
    start: Place,
    base: Offset,
    end: Position,
    next: Offset,
    data: Slice,
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

/// What came of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Read {
    /// Whole batches were added to the outgoing list.
    Data {
        /// How many bytes.
        bytes: usize,
        /// The offset after the last record of them.
        next: Offset,
        /// Records below this are shown to readers.
        high_watermark: Offset,
    },
    /// There is nothing yet at or after the offset.
    End {
        /// Records below this are shown to readers.
        high_watermark: Offset,
    },
    /// What was asked for is not in memory; [`Shard::read_disk`] gets it.
    OnDisk,
}

/// What to look up an offset by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffsetQuery {
    /// The first offset of the log.
    Earliest,
    /// The offset after the last record shown to readers.
    Latest,
    /// The record with the greatest timestamp: the base offset of its batch.
    MaxTimestamp,
    /// The first batch with a record at or after a time: its base offset.
    At(Timestamp),
}

/// Where batches are read from.
enum Source<'a> {
    Tail(&'a Tail, Offset),
    Window(&'a Window),
}

impl Source<'_> {
    /// Copies the bytes of a range that is held whole.
    fn copy(&self, range: Range<Position>, target: &mut [u8]) {
        match self {
            Source::Tail(tail, segment) => tail.copy(*segment, range, target),
            Source::Window(window) => target.copy_from_slice(window.bytes(range)),
        }
    }

    fn slices(&self, range: Range<Position>, mut give: impl FnMut(Slice)) {
        match self {
            Source::Tail(tail, segment) => tail.slices(*segment, range, give),
            Source::Window(window) => give(window.data.slice(window.within(range))),
        }
    }
}

impl Window {
    fn within(&self, range: Range<Position>) -> Range<usize> {
        (range.start.0 - self.data_from.0) as usize..(range.end.0 - self.data_from.0) as usize
    }

    fn bytes(&self, range: Range<Position>) -> &[u8] {
        &self.data[self.within(range)]
    }
}

/// A stretch of batches that can be read at once: from a batch that is known, to an end that is known.
struct Stretch<'a> {
    source: Source<'a>,
    segment: Offset,
    at: Position,
    base: Offset,
    end: Position,
    next: Offset,
}

/// The first bytes of a batch, enough to step over it.
struct Step {
    length: u64,
    next: Offset,
}

impl Stretch<'_> {
    fn step(&self, at: Position) -> Option<Step> {
        let mut header = [0; 27];
        if at.plus(header.len() as u64) > self.end {
            return None;
        }
        self.source.copy(at..at.plus(header.len() as u64), &mut header);
        let length = frame_length(&header)? as u64;
        let (base, delta) = (header.first_chunk::<8>()?, header.last_chunk::<4>()?);
        let next = i64::from_be_bytes(*base).checked_add(i64::from(i32::from_be_bytes(*delta)))?.checked_add(1)?;
        (at.plus(length) <= self.end).then_some(Step { length, next: Offset(next) })
    }

    /// Steps over batches that end before `from`. None if there is none left.
    fn seek(&mut self, from: Offset) -> Option<()> {
        while self.base < from {
            let step = self.step(self.at)?;
            if step.next > from {
                break;
            }
            self.at = self.at.plus(step.length);
            self.base = step.next;
        }
        (self.at < self.end).then_some(())
    }

    /// Where whole batches of at most `max_bytes` end; the first is taken whatever its length if one is `wanted`.
    fn cut(&self, max_bytes: usize, wanted: bool) -> (Position, Offset) {
        if self.end.0 - self.at.0 <= max_bytes as u64 {
            return (self.end, self.next);
        }
        let (mut at, mut next) = (self.at, self.base);
        while let Some(step) = self.step(at) {
            let needed = wanted && at == self.at;
            if !needed && at.0 + step.length - self.at.0 > max_bytes as u64 {
                break;
            }
            at = at.plus(step.length);
            next = step.next;
        }
        (at, next)
    }
}

impl Shard {
    /// Reads whole batches from memory: from the one that holds `from`, up to `max_bytes` of them but at least one.
    ///
    /// # Errors
    /// [`ReadError::OutOfRange`] with the range if `from` is not in the log and not just behind it.
    pub fn read(
        &self,
        handle: PartitionHandle,
        from: Offset,
        max_bytes: usize,
        cursor: &mut Cursor,
        out: &mut Outgoing,
    ) -> Result<Read, ReadError> {
        let partitions = self.0.partitions.borrow();
        let partition = partitions.get(handle).ok_or(ReadError::UnknownPartition)?;
        let high_watermark = partition.visible;
        if from < partition.first {
            return Err(ReadError::OutOfRange { first: partition.first, next: high_watermark });
        }
        // What was acknowledged may have been here, and nothing more will come. A start reads the metadata log to the end
        // that is left, for the topics that it still knows.
        let is_past_end = from >= high_watermark && !partition.id.is_metadata();
        if let Some(why) = partition.fenced.as_ref().filter(|_| is_past_end) {
            return Err(ReadError::Fenced(why.clone()));
        }
        if from > partition.next {
            return Err(ReadError::OutOfRange { first: partition.first, next: high_watermark });
        }
        if from >= high_watermark {
            return Ok(Read::End { high_watermark });
        }
        // What was read ahead for the reader may end where the tail begins, and a segment where the next one does.
        let (mut bytes, mut next) = (0, from);
        while bytes < max_bytes.max(1) && next < high_watermark {
            let Some(taken) = take_stretch(partition, next, max_bytes.saturating_sub(bytes), bytes == 0, cursor, out)
            else {
                break;
            };
            bytes += taken;
            next = cursor.at.map_or(next, |(next, _)| next);
        }
        if bytes == 0 { Ok(Read::OnDisk) } else { Ok(Read::Data { bytes, next, high_watermark }) }
    }

    /// Like [`Shard::read`], and gets from disk what is not in memory.
    pub async fn read_disk(
        &self,
        handle: PartitionHandle,
        from: Offset,
        max_bytes: usize,
        cursor: &mut Cursor,
        out: &mut Outgoing,
    ) -> Result<Read, ReadError> {
        // The log can move under a read: what was on disk when asked for may be dropped, never the other way round.
        for _ in 0..3 {
            match self.read(handle, from, max_bytes, cursor, out)? {
                Read::OnDisk => self.load_window(handle, from, cursor).await.map_err(|error| self.explain(error))?,
                read => return Ok(read),
            }
        }
        Err(self.explain(ReadError::Busy))
    }

    /// While the log is read again from disk there may be nothing to read from: that is why, not a bound.
    fn explain(&self, error: ReadError) -> ReadError {
        if error == ReadError::Busy && self.has_failed() { ReadError::Reopening } else { error }
    }

    /// Looks up an offset; with it the timestamp that it was found by, or -1.
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
            let mut header = [0; HEADER_BYTES];
            let bytes = out.pieces().iter().flat_map(|piece| piece.iter());
            header.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
            let base = Offset(i64::from_be_bytes(*header.first_chunk().unwrap_or(&[0; 8])));
            let newest = Timestamp(i64::from_be_bytes(*header[35..].first_chunk().unwrap_or(&[0; 8])));
            if newest >= time {
                return Ok(Some((base.max(first), newest)));
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
        let index = self.sealed_index(handle, &sealed).await?;
        Ok(Some(index.lookup_time(time).map_or(sealed.base, |(offset, _)| offset)))
    }

    /// Reads the piece of a segment that holds `from` into the cursor.
    async fn load_window(&self, handle: PartitionHandle, from: Offset, cursor: &mut Cursor) -> Result<(), ReadError> {
        cursor.window = None;
        if cursor.at.is_none_or(|(offset, _)| offset != from) {
            self.complete_active_index(handle).await?;
        }
        let target = self.target(handle, from, cursor).await?;
        let mut bytes = self.0.config.read_bytes;
        let mut at = target.known;
        loop {
            let window = self.read_window(handle, &target, at, bytes).await?;
            match window {
                Loaded::Window(window) if window.next > from => {
                    cursor.window = Some(window);
                    return Ok(());
                }
                // Not far enough: on from where whole batches ended.
                Loaded::Window(window) => at = (window.next, window.end),
                Loaded::Larger(needed) => bytes = needed,
            }
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
            let exact = cursor.at.filter(|(offset, place)| *offset == from && place.segment == segment);
            let end = on_disk_end(partition, segment, partition.sealed.get(holds));
            if let Some((offset, place)) = exact {
                return Ok(Target { segment, known: (offset, place.position), end });
            }
            match (partition.sealed.get(holds), &partition.active) {
                (Some(sealed), _) => (sealed.clone(), end),
                (None, Some(active)) => {
                    let (offset, position) = active.index.lookup(from);
                    return Ok(Target { segment, known: (offset, position), end });
                }
                (None, None) => return Err(ReadError::UnknownPartition),
            }
        };
        let (sealed, end) = sealed;
        let index = self.sealed_index(handle, &sealed).await?;
        Ok(Target { segment: sealed.base, known: index.lookup(from), end })
    }

    async fn read_window(
        &self,
        handle: PartitionHandle,
        target: &Target,
        (base, position): (Offset, Position),
        bytes: usize,
    ) -> Result<Loaded, ReadError> {
        let life = self.life();
        let mut damage = (position, "");
        // Twice: a disk may fail once to read what it holds.
        for _ in 0..2 {
            match self.try_window(handle, target, (base, position), bytes).await {
                Ok(loaded) => return Ok(loaded),
                Err(Unread::Refused(error)) => return Err(error),
                Err(Unread::Damaged(at, why)) => damage = (at, why),
            }
            // A failed flush may have undone what recovery is about to write again.
            if life.is_none() || self.life() != life {
                return Err(ReadError::Reopening);
            }
        }
        Err(self.damaged(handle, target.segment, damage.0, damage.1))
    }

    /// Which of its lives the shard is in: each ends with an I/O error, and the log is read again from disk.
    fn life(&self) -> Option<u64> {
        (!self.has_failed()).then(|| self.counters().reopenings.get())
    }

    async fn try_window(
        &self,
        handle: PartitionHandle,
        target: &Target,
        (base, position): (Offset, Position),
        bytes: usize,
    ) -> Result<Loaded, Unread> {
        let start = block_floor(position);
        let to = block_ceil(target.end).min(Position(start.0 + bytes.next_multiple_of(BLOCK as usize) as u64));
        if position >= target.end {
            return Err(ReadError::Busy.into());
        }
        let lease = self.lease_read((to.0 - start.0) as usize)?;
        let buffer = self.reactor().pool().buffer(lease.bytes).ok_or(ReadError::Busy)?;
        let file = self.segment_file(handle, target.segment).await;
        let file = file.map_err(|error| self.not_opened(handle, target.segment, &error))?;
        let file = file.ok_or(ReadError::UnknownPartition)?;
        let (read, buffer) = file.read_at(start.0, buffer).await;
        let read = read.map_err(|error| io(&error))?;
        let data_end = Position(start.0 + read as u64).min(target.end);
        let data = buffer.freeze();
        let held = &data[(position.0 - start.0) as usize..(data_end.0.max(position.0) - start.0) as usize];
        let (length, next) = match whole_batches(held, base) {
            // A file that ends early, or a batch that reaches beyond the end, would be asked for again for ever.
            Ok((0, _)) if read < lease.bytes || data_end == target.end => {
                return Err(Unread::Damaged(position, "the segment ends within a batch"));
            }
            Ok((0, _)) => return grow(target, position, held, lease.bytes),
            Ok(whole) => whole,
            Err((at, why)) => return Err(Unread::Damaged(position.plus(at as u64), why)),
        };
        let start_place = Place { segment: target.segment, position };
        let end = position.plus(length as u64);
        Ok(Loaded::Window(Window { start: start_place, base, end, next, data, data_from: start, _memory: lease }))
    }

    fn lease_read(&self, bytes: usize) -> Result<Lease, ReadError> {
        let used = &self.0.read_bytes;
        if used.get() + bytes > self.0.config.read_bytes_max {
            return Err(ReadError::Busy);
        }
        used.set(used.get() + bytes);
        Ok(Lease { bytes, used: used.clone() })
    }

    fn not_opened(&self, handle: PartitionHandle, segment: Offset, error: &ShardError) -> ReadError {
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
    fn dropped(&self, handle: PartitionHandle, segment: Offset) -> Option<ReadError> {
        let partitions = self.0.partitions.borrow();
        let Some(partition) = partitions.get(handle) else { return Some(ReadError::UnknownPartition) };
        let is_active = partition.active.as_ref().is_some_and(|active| active.base == segment);
        let is_there = is_active || partition.sealed.iter().any(|sealed| sealed.base == segment);
        (!is_there).then_some(ReadError::OutOfRange { first: partition.first, next: partition.visible })
    }

    fn on_disk_end(&self, handle: PartitionHandle, sealed: &Sealed) -> Result<Position, ReadError> {
        let partitions = self.0.partitions.borrow();
        let partition = partitions.get(handle).ok_or(ReadError::UnknownPartition)?;
        Ok(on_disk_end(partition, sealed.base, Some(sealed)))
    }

    /// Reports what cannot be right on disk, and fences the partition.
    fn damaged(&self, handle: PartitionHandle, segment: Offset, at: Position, why: &str) -> ReadError {
        let what = format!("{} at byte {at}: {why}", self.segment_path(handle, segment).display());
        self.fence(handle, what.clone());
        ReadError::Fenced(what.into())
    }

    /// The index of a sealed segment: from memory, its file, or, if that is missing or damaged, the segment itself.
    async fn sealed_index(&self, handle: PartitionHandle, sealed: &Sealed) -> Result<SparseIndex, ReadError> {
        if let Some(index) = &sealed.index {
            return Ok(index.clone());
        }
        let id = self.0.partitions.borrow().get(handle).ok_or(ReadError::UnknownPartition)?.id;
        let path = paths::index(&self.0.config.data_dir, id, sealed.base);
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
        let index = self.rebuild_index(handle, sealed.base, on_disk).await?;
        if on_disk == sealed.bytes {
            // A rebuilt index that cannot be written is built again next time.
            let _ = self.write_index(id, sealed, &index).await;
        }
        Ok(index)
    }

    /// After a start the index of the active segment knows nothing of what was there before: reads that.
    async fn complete_active_index(&self, handle: PartitionHandle) -> Result<(), ReadError> {
        let Some((base, known_from)) = self.0.partitions.borrow().get(handle).and_then(|partition| {
            let active = partition.active.as_ref().filter(|active| active.indexed_from.0 > 0)?;
            Some((active.base, active.indexed_from))
        }) else {
            return Ok(());
        };
        let mut index = self.rebuild_index(handle, base, known_from).await?;
        let mut partitions = self.0.partitions.borrow_mut();
        let partition = partitions.get_mut(handle).ok_or(ReadError::UnknownPartition)?;
        let active = partition.active.as_mut().filter(|active| active.base == base && active.indexed_from.0 > 0);
        if let Some(active) = active {
            for entry in active.index.entries() {
                index.note(entry.offset, entry.position, entry.max_timestamp_before);
            }
            (active.index, active.indexed_from) = (index, Position(0));
        }
        Ok(())
    }

    async fn rebuild_index(
        &self,
        handle: PartitionHandle,
        base: Offset,
        end: Position,
    ) -> Result<SparseIndex, ReadError> {
        let mut index = SparseIndex::new(base);
        let target = Target { segment: base, known: (base, Position(0)), end };
        let (mut at, mut bytes) = (target.known, self.0.config.read_bytes);
        while at.1 < end {
            let window = match self.read_window(handle, &target, at, bytes).await? {
                Loaded::Larger(needed) => {
                    bytes = needed;
                    continue;
                }
                Loaded::Window(window) => window,
            };
            let mut position = at.1;
            for batch in corelog_batch::batches(window.bytes(at.1..window.end)).flatten() {
                index.note(Offset(batch.base_offset()), position, Timestamp(batch.max_timestamp()));
                position = position.plus(batch.bytes().len() as u64);
            }
            at = (window.next, window.end);
            self.reactor().yield_now().await;
        }
        Ok(index)
    }
}

struct Target {
    segment: Offset,
    known: (Offset, Position),
    end: Position,
}

enum Loaded {
    Window(Window),
    Larger(usize),
}

/// Why a piece of a segment was not read.
enum Unread {
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
    match length.map(|length| length + 2 * BLOCK as usize).filter(|needed| *needed > had) {
        Some(needed) => Ok(Loaded::Larger(needed)),
        None => Err(Unread::Damaged(position, "no whole batch begins here")),
    }
}

fn io(error: &dyn std::fmt::Display) -> ReadError {
    ReadError::Io(error.to_string().into())
}

/// Up to where a segment's batches are certain to be in its file.
fn on_disk_end(partition: &Partition, segment: Offset, sealed: Option<&Sealed>) -> Position {
    match (sealed, partition.checkpoint.end) {
        (_, Some(end)) if end.segment == segment => end.position,
        (Some(sealed), Some(end)) if end.segment > segment => sealed.bytes,
        _ => Position(0),
    }
}

/// How many bytes of whole batches there are, and the offset after them. Each must follow the one before it and have
/// the right checksum; the error says where not.
fn whole_batches(bytes: &[u8], base: Offset) -> Result<(usize, Offset), (usize, &'static str)> {
    let (mut at, mut next) = (0, base);
    loop {
        let rest = &bytes[at..];
        let Some(length) = frame_length(rest) else {
            return if rest.len() < HEADER_BYTES { Ok((at, next)) } else { Err((at, "no batch begins here")) };
        };
        if length > rest.len() {
            return Ok((at, next));
        }
        let batch = BatchView::first(rest).map_err(|_| (at, "no batch begins here"))?;
        if Offset(batch.base_offset()) != next {
            return Err((at, "the batch's offset does not follow the one before"));
        }
        if batch.crc() != batch.computed_crc() {
            return Err((at, "the batch's checksum does not fit"));
        }
        at += length;
        next = Offset(batch.next_offset());
    }
}

/// Adds whole batches of one stretch in memory, from the one that holds `from`, and moves the cursor behind them. Their
/// bytes; None if there are none that may be added.
fn take_stretch(
    partition: &Partition,
    from: Offset,
    max_bytes: usize,
    wanted: bool,
    cursor: &mut Cursor,
    out: &mut Outgoing,
) -> Option<usize> {
    let mut stretch = find(partition, from, cursor)?;
    stretch.seek(from)?;
    let (end, next) = stretch.cut(max_bytes, wanted);
    if end == stretch.at {
        return None;
    }
    stretch.source.slices(stretch.at..end, |slice| out.push(slice));
    let (segment, bytes) = (stretch.segment, (end.0 - stretch.at.0) as usize);
    cursor.at = Some((next, Place { segment, position: end }));
    Some(bytes)
}

/// The stretch in memory that `from` lies in: where the reader left off, what was read ahead for it, or the tail.
fn find<'a>(partition: &'a Partition, from: Offset, cursor: &'a Cursor) -> Option<Stretch<'a>> {
    in_tail(partition, from, cursor).or_else(|| {
        let window = cursor.window.as_ref().filter(|window| window.base <= from && from < window.next)?;
        let exact = cursor.at.filter(|(offset, place)| *offset == from && place.segment == window.start.segment);
        let (base, at) = exact.map_or((window.base, window.start.position), |(base, place)| (base, place.position));
        let segment = window.start.segment;
        Some(Stretch { source: Source::Window(window), segment, at, base, end: window.end, next: window.next })
    })
}

fn in_tail<'a>(partition: &'a Partition, from: Offset, cursor: &Cursor) -> Option<Stretch<'a>> {
    let start = partition.tail.start()?;
    let (base, place) = tail_place(partition, from, cursor)?;
    let (end, next) = visible_end(partition, place.segment)?;
    let held = place >= start && partition.tail.holds(place.segment, &(place.position..end));
    let source = Source::Tail(&partition.tail, place.segment);
    held.then_some(Stretch { source, segment: place.segment, at: place.position, base, end, next })
}

fn tail_place(partition: &Partition, from: Offset, cursor: &Cursor) -> Option<(Offset, Place)> {
    let exact = cursor.at.filter(|(offset, _)| *offset == from);
    let (base, place) = exact.or_else(|| partition.tail.search_from(from))?;
    let (end, next) = visible_end(partition, place.segment)?;
    if place.position < end || base < next {
        return Some((base, place));
    }
    // The segment ended just there: on to the next one.
    let following = partition.sealed.iter().map(|sealed| sealed.base);
    let following = following.chain(partition.active.as_ref().map(|active| active.base));
    let segment = following.filter(|base| *base > place.segment).min()?;
    Some((segment, Place { segment, position: Position(0) }))
}

/// Up to where a segment is shown to readers.
fn visible_end(partition: &Partition, segment: Offset) -> Option<(Position, Offset)> {
    let visible = partition.visible_end;
    if visible.segment == segment {
        return Some((visible.position, partition.visible));
    }
    let sealed = partition.sealed.iter().rev().find(|sealed| sealed.base == segment)?;
    (segment < visible.segment).then_some((sealed.bytes, sealed.next))
}
