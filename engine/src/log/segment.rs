//! Segments hold batches and nothing else, then zeros up to their reserved end.
//!
//! A segment alone does not say where it ends: blocks are recycled, and what lies behind the last batch may be whole
//! batches of another partition. The end is what checkpoint and journal say; nothing here may be used to find a later one.

use crate::model::{LeaderEpoch, Offset, Position, Timestamp};
use corelog_batch::{BatchError, BatchView, HEADER_BYTES, frame_length};
use std::ops::RangeInclusive;

/// One whole batch in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchRef {
    /// Offset of its first record.
    pub base: Offset,
    /// Offset of its last record.
    pub last: Offset,
    /// Where it begins.
    pub position: Position,
    /// Its bytes.
    pub length: usize,
    /// The highest timestamp of its records.
    pub max_timestamp: Timestamp,
    /// The leader epoch it was written under.
    pub leader_epoch: LeaderEpoch,
}

impl BatchRef {
    /// Where the next batch begins.
    pub fn end(&self) -> Position {
        self.position.plus(self.length as u64)
    }

    /// Offset of the next batch's first record.
    pub fn next(&self) -> Offset {
        self.last.plus(1)
    }
}

/// Why a scan came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stop {
    /// The bytes end with a whole batch.
    #[error("the end")]
    End,
    /// All that follows is zeros.
    #[error("zeros up to the end")]
    Zeros,
    /// The bytes end within a batch. The number is what its header claims: hostile until it was compared with a bound.
    #[error("a batch that needs {needs} bytes is cut short")]
    Short {
        /// Bytes of the batch.
        needs: usize,
    },
    /// No batch begins here.
    #[error("not a batch: {0}")]
    NotABatch(BatchError),
    /// A batch whose bytes are not those that were summed.
    #[error("the batch's checksum does not fit")]
    Checksum,
    /// A batch whose checksum fits and whose last offset cannot be: a bug of the program that wrote it.
    #[error("the batch's last offset is before its first or beyond all offsets")]
    LastOffset,
    /// A whole batch that does not follow the one before: of another time or another partition.
    #[error("a batch with base offset {found} where {expected} comes next")]
    OffsetGap {
        /// What follows the batch before.
        expected: Offset,
        /// What the batch says.
        found: Offset,
    },
    /// A batch of an epoch that cannot be here. The batch's checksum does not cover its epoch.
    #[error("a batch of leader epoch {found}, which cannot be here")]
    Epoch {
        /// What the batch says.
        found: LeaderEpoch,
    },
}

/// The batches in a piece of a segment, each checked by length, checksum, offset and leader epoch.
#[derive(Debug)]
pub struct Scan<'a> {
    rest: &'a [u8],
    position: Position,
    next: Offset,
    epochs: RangeInclusive<LeaderEpoch>,
    stop: Option<Stop>,
}

/// Scans `bytes`, which lie at `position`, where the batch with base offset `next` must begin. Leader epochs must lie in
/// `epochs` and never fall.
pub fn scan(bytes: &[u8], position: Position, next: Offset, epochs: RangeInclusive<LeaderEpoch>) -> Scan<'_> {
    Scan { rest: bytes, position, next, epochs, stop: None }
}

/// Every epoch that a stored batch can have.
pub const ANY_EPOCH: RangeInclusive<LeaderEpoch> = LeaderEpoch(0)..=LeaderEpoch(i32::MAX);

impl Scan<'_> {
    /// Where the next batch begins, or should.
    pub fn position(&self) -> Position {
        self.position
    }

    /// Base offset of the next batch.
    pub fn next_offset(&self) -> Offset {
        self.next
    }

    /// Why there are no more batches; `None` while there may be.
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    fn batch(&self) -> Result<BatchRef, Stop> {
        let batch = first(self.rest)?;
        if batch.base_offset() != self.next.0 {
            return Err(Stop::OffsetGap { expected: self.next, found: Offset(batch.base_offset()) });
        }
        if batch.computed_crc() != batch.crc() {
            return Err(Stop::Checksum);
        }
        let last = last_offset(&batch).ok_or(Stop::LastOffset)?;
        let leader_epoch = LeaderEpoch(batch.leader_epoch());
        if !self.epochs.contains(&leader_epoch) {
            return Err(Stop::Epoch { found: leader_epoch });
        }
        Ok(BatchRef {
            base: self.next,
            last,
            position: self.position,
            length: batch.bytes().len(),
            max_timestamp: Timestamp(batch.max_timestamp()),
            leader_epoch,
        })
    }
}

/// The offset behind it must exist too, as that of the batch that follows.
fn last_offset(batch: &BatchView<'_>) -> Option<Offset> {
    let delta = u32::try_from(batch.last_offset_delta()).ok()?;
    batch.base_offset().checked_add(i64::from(delta)).filter(|last| *last < i64::MAX).map(Offset)
}

/// The batch at the front, its frame checked.
fn first(rest: &[u8]) -> Result<BatchView<'_>, Stop> {
    if rest.is_empty() {
        return Err(Stop::End);
    }
    if rest.iter().take(HEADER_BYTES).all(|byte| *byte == 0) && rest.iter().all(|byte| *byte == 0) {
        return Err(Stop::Zeros);
    }
    match BatchView::first(rest) {
        Ok(batch) => Ok(batch),
        Err(BatchError::TooShort { .. }) => Err(Stop::Short { needs: HEADER_BYTES }),
        Err(wrong) => Err(match frame_length(rest) {
            Some(needs) if needs > rest.len() => Stop::Short { needs },
            _ => Stop::NotABatch(wrong),
        }),
    }
}

impl Iterator for Scan<'_> {
    type Item = BatchRef;

    fn next(&mut self) -> Option<BatchRef> {
        if self.stop.is_some() {
            return None;
        }
        match self.batch() {
            Ok(batch) => {
                self.rest = &self.rest[batch.length..];
                self.position = batch.end();
                self.next = batch.next();
                self.epochs = batch.leader_epoch..=*self.epochs.end();
                Some(batch)
            }
            Err(stop) => {
                self.stop = Some(stop);
                None
            }
        }
    }
}
