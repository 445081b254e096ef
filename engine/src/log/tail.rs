//! The newest bytes of a partition, in memory: what is not yet in its segments, and what consumers ask for most.
//!
//! A chunk covers an aligned piece of one segment, so that full blocks are written from it as they lie, and a fetch
//! sends slices of it. Bytes once appended never change; a chunk is given back when nobody reads or sends it any more.

use crate::model::{Offset, Position};
use crate::reactor::{AppendBuffer, Slice};
use std::collections::VecDeque;
use std::ops::Range;

/// Unit of direct I/O: positions, lengths and buffers are multiples of it.
pub const BLOCK: u64 = super::BLOCK as u64;

/// A chunk is at least one block, and doubles up to this while its partition stays busy.
pub const CHUNK_BYTES_MAX: usize = 256 << 10;

/// The beginning of the block that `position` lies in.
pub fn block_floor(position: Position) -> Position {
    Position(position.0 - position.0 % BLOCK)
}

/// The first block boundary at or after `position`.
pub fn block_ceil(position: Position) -> Position {
    Position(position.0.next_multiple_of(BLOCK))
}

/// A byte of the log: which segment, and where in it. Ordered as the log is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Base offset of the segment.
    pub segment: Offset,
    /// Byte in the segment.
    pub position: Position,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Tail {
    chunks: VecDeque<Chunk>,
    bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    /// Where the first byte of the buffer belongs; its position is a block boundary.
    start: Place,
    /// The first batch that begins in this chunk: where a search may start.
    first_batch: Option<(Offset, Position)>,
    /// Bytes that it was filled with from the segment when it came, and whose checksums nobody looked at.
    loaded: usize,
    buffer: AppendBuffer,
}

impl Chunk {
    fn end(&self) -> Position {
        self.start.position.plus(self.buffer.filled() as u64)
    }

    fn memory(&self) -> usize {
        self.buffer.filled() + self.buffer.room()
    }
}

impl Tail {
    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The first byte held that was appended here, and so can be given to readers.
    pub fn start(&self) -> Option<Place> {
        let chunk = self.chunks.front()?;
        Some(Place { position: chunk.start.position.plus(chunk.loaded as u64), ..chunk.start })
    }

    /// The place after the last byte held.
    pub fn end(&self) -> Option<Place> {
        self.chunks.back().map(|chunk| Place { segment: chunk.start.segment, position: chunk.end() })
    }

    /// Bytes that can be appended to `segment` before another chunk is needed.
    pub fn room(&self, segment: Offset) -> usize {
        match self.chunks.back() {
            Some(chunk) if chunk.start.segment == segment => chunk.buffer.room(),
            _ => 0,
        }
    }

    /// Memory of the next chunk: twice the last one's up to `share`, and large enough for `needed` bytes up to the
    /// greatest chunk.
    pub fn next_chunk_bytes(&self, needed: usize, share: usize) -> usize {
        let last = self.chunks.back().map_or(0, Chunk::memory);
        (last * 2).min(share).max(needed).next_power_of_two().clamp(BLOCK as usize, CHUNK_BYTES_MAX)
    }

    /// Adds an empty chunk (or one filled with what the segment holds from `start` on).
    pub fn push_chunk(&mut self, start: Place, buffer: AppendBuffer) {
        assert!(start.position.0.is_multiple_of(BLOCK), "chunks begin at block boundaries");
        if let Some(end) = self.end().filter(|end| end.segment == start.segment) {
            assert!(end.position == start.position, "chunks of a segment are contiguous");
        }
        let chunk = Chunk { start, first_batch: None, loaded: buffer.filled(), buffer };
        self.bytes += chunk.memory();
        self.chunks.push_back(chunk);
    }

    /// Marks that a batch begins at the end of what is held.
    pub fn begin_batch(&mut self, base: Offset) {
        if let Some(chunk) = self.chunks.back_mut() {
            let at = chunk.end();
            chunk.first_batch.get_or_insert((base, at));
        }
    }

    /// Appends what fits into the last chunk; the rest is returned.
    pub fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(chunk) = self.chunks.back_mut() else { return bytes };
        let (fits, rest) = bytes.split_at(bytes.len().min(chunk.buffer.room()));
        chunk.buffer.append(fits);
        rest
    }

    /// Where to begin looking for the batch that holds `offset`: the last known beginning of a batch at or before it.
    pub fn search_from(&self, offset: Offset) -> Option<(Offset, Place)> {
        let known = |chunk: &Chunk| chunk.first_batch.map(|(base, at)| (base, chunk.start.segment, at));
        let (base, segment, position) =
            self.chunks.iter().rev().filter_map(known).find(|(base, _, _)| *base <= offset)?;
        Some((base, Place { segment, position }))
    }

    /// Gives the bytes of `range` of `segment` piece by piece, in order. All of it must be held.
    pub fn slices(&self, segment: Offset, range: Range<Position>, mut give: impl FnMut(Slice)) {
        let mut at = range.start;
        for chunk in self.covering(segment, &range) {
            let from = (at.0 - chunk.start.position.0) as usize;
            let to = (chunk.end().min(range.end).0 - chunk.start.position.0) as usize;
            give(chunk.buffer.slice(from..to));
            at = chunk.start.position.plus(to as u64);
        }
        assert!(at == range.end || range.is_empty(), "the range is held whole");
    }

    /// Copies the bytes of a range that is held whole into `target`, which has just its length.
    pub fn copy(&self, segment: Offset, range: Range<Position>, target: &mut [u8]) {
        let mut filled = 0;
        self.slices(segment, range, |slice| {
            target[filled..filled + slice.len()].copy_from_slice(&slice);
            filled += slice.len();
        });
        assert!(filled == target.len(), "the range is as long as the target");
    }

    /// Whether every byte of the range is held.
    pub fn holds(&self, segment: Offset, range: &Range<Position>) -> bool {
        let mut at = range.start;
        for chunk in self.covering(segment, range) {
            if chunk.start.position > at {
                return false;
            }
            at = chunk.end().min(range.end);
        }
        at == range.end
    }

    /// The end of what is held of one segment.
    pub fn end_in(&self, segment: Offset) -> Option<Position> {
        self.chunks.iter().rev().find(|chunk| chunk.start.segment == segment).map(Chunk::end)
    }

    /// Gives back the oldest chunk if it lies wholly before `keep`; returns its memory in bytes.
    pub fn release_front(&mut self, keep: Place) -> Option<usize> {
        let chunk = self.chunks.front()?;
        if (Place { segment: chunk.start.segment, position: chunk.end() }) > keep {
            return None;
        }
        let bytes = chunk.memory();
        self.chunks.pop_front();
        self.bytes -= bytes;
        if self.chunks.is_empty() {
            // An idle partition keeps no list either.
            self.chunks = VecDeque::new();
        }
        Some(bytes)
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        *self = Tail::default();
    }

    fn covering(&self, segment: Offset, range: &Range<Position>) -> impl Iterator<Item = &Chunk> {
        let (start, end) = (range.start, range.end);
        let before = self.chunks.partition_point(|chunk| (chunk.start.segment, chunk.end()) <= (segment, start));
        let overlaps = move |chunk: &&Chunk| chunk.start.segment == segment && chunk.start.position < end;
        self.chunks.range(before..).take_while(overlaps)
    }
}
