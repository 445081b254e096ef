//! Reading: the tail from memory without a copy, what lies behind it in large direct reads or as pieces of files.

mod ahead;
mod lookup;
mod splice;
mod window;

pub use lookup::OffsetQuery;
pub(super) use lookup::Rebuilds;
pub use splice::FetchPath;

use super::{PartitionHandle, Shard, count};
use crate::error::ReadError;
use crate::log::tail::{Place, Tail};
use crate::model::{Offset, Position};
use crate::planted::{self, Bug};
use crate::reactor::{Outgoing, Slice};
use crate::shard::partition::Partition;
use ahead::Ahead;
use corelog_batch::frame_length;
use splice::Splicing;
use std::ops::Range;
pub(super) use window::Window;

/// Where a reader left off, and what was read ahead for it. One a reader and partition; starts empty.
#[derive(Debug, Default)]
pub struct Cursor {
    /// How often segments had been written anew when this was so; see [`Partition::rewrites`].
    rewrites: u64,
    /// The batch that begins at this offset is at this place.
    at: Option<(Offset, Place)>,
    /// On the heap, for most cursors have none and there may be very many.
    window: Option<Box<Window>>,
    ahead: Option<Ahead>,
    splicing: Option<Box<Splicing>>,
}

impl Cursor {
    /// Gives back the memory of what was read ahead; the place is kept.
    pub fn release(&mut self) {
        self.window = None;
        self.ahead = None;
        self.splicing = None;
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
        if cursor.rewrites != partition.rewrites && !planted::active(Bug::OldPlacesTrusted) {
            *cursor = Cursor { rewrites: partition.rewrites, ..Cursor::default() };
        }
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
            let left = max_bytes.saturating_sub(bytes);
            let Some(taken) = self.take_stretch(partition, next, left, bytes == 0, cursor, out) else { break };
            bytes += taken;
            next = cursor.at.map_or(next, |(next, _)| next);
        }
        count(&self.0.counters.read_bytes, bytes as u64);
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
                Read::OnDisk => {
                    let rewrites = self.rewrites(handle);
                    let loaded = self.load_window(handle, from, cursor).await;
                    // Or its file is gone, and what it held is in another one.
                    if self.rewrites(handle) == rewrites {
                        loaded.map_err(|error| self.explain(error))?;
                    }
                }
                read => return Ok(read),
            }
        }
        Err(self.explain(ReadError::Busy))
    }

    /// Adds whole batches of one stretch in memory, from the one that holds `from`, and moves the cursor behind them. Their
    /// bytes; None if there are none that may be added.
    fn take_stretch(
        &self,
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
        let counters = &self.0.counters;
        let by_path = match stretch.source {
            Source::Tail(..) => &counters.read_memory_bytes,
            Source::Window(_) => &counters.read_direct_bytes,
        };
        count(by_path, bytes as u64);
        cursor.at = Some((next, Place { segment, position: end }));
        Some(bytes)
    }

    /// While the log is read again from disk there may be nothing to read from: that is why, not a bound.
    fn explain(&self, error: ReadError) -> ReadError {
        if error == ReadError::Busy && self.has_failed() { ReadError::Reopening } else { error }
    }
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
