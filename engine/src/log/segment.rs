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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::BLOCK;
    use crate::log::testing::*;
    use corelog_batch::{BatchBuilder, Codec, stamp};
    use proptest::prelude::*;
    use proptest::sample::Index;

    const NEXT: Offset = Offset(40);
    const AT: Position = Position(8192);
    const EPOCHS: RangeInclusive<LeaderEpoch> = LeaderEpoch(3)..=LeaderEpoch(3);

    fn batch(base: Offset, epoch: i32, values: &[Vec<u8>]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1 << 20, Codec::None);
        for (at, value) in values.iter().enumerate() {
            builder.append(None, Some(value), &[], 1_700_000_000_000 + at as i64).unwrap();
        }
        let mut bytes = builder.build().unwrap();
        stamp(bytes.first_chunk_mut().unwrap(), base.0, epoch);
        bytes
    }

    /// Batches one after another, each with so many records; the values make each differ.
    fn batches(next: Offset, epoch: i32, records: &[usize]) -> (Vec<u8>, Vec<BatchRef>) {
        let (mut bytes, mut refs, mut base) = (Vec::new(), Vec::new(), next);
        for (at, count) in records.iter().enumerate() {
            let values: Vec<_> = (0..*count).map(|value| vec![at as u8 ^ value as u8; 30 + at * 7]).collect();
            let batch = batch(base, epoch, &values);
            let last = base.plus(*count as u32 - 1);
            refs.push(BatchRef {
                base,
                last,
                position: AT.plus(bytes.len() as u64),
                length: batch.len(),
                max_timestamp: Timestamp(1_700_000_000_000 + *count as i64 - 1),
                leader_epoch: LeaderEpoch(epoch),
            });
            bytes.extend(batch);
            base = last.plus(1);
        }
        (bytes, refs)
    }

    fn found(bytes: &[u8]) -> (Vec<BatchRef>, Stop) {
        let mut scan = scan(bytes, AT, NEXT, EPOCHS);
        let refs: Vec<_> = scan.by_ref().collect();
        let end = refs.last().map_or((AT, NEXT), |last| (last.end(), last.next()));
        assert_eq!((scan.position(), scan.next_offset()), end);
        (refs, scan.stop().unwrap())
    }

    fn any_counts() -> impl Strategy<Value = Vec<usize>> {
        prop::collection::vec(1usize..6, 1..12)
    }

    proptest! {
        #[test]
        fn batches_come_back(counts in any_counts(), zeros in 0usize..9000) {
            let (mut bytes, refs) = batches(NEXT, 3, &counts);
            prop_assert_eq!(found(&bytes), (refs.clone(), Stop::End));
            bytes.resize(bytes.len() + zeros + 1, 0);
            prop_assert_eq!(found(&bytes), (refs, Stop::Zeros));
        }

        #[test]
        fn a_prefix_is_told(counts in any_counts(), cut: Index) {
            let (bytes, mut refs) = batches(NEXT, 3, &counts);
            let cut = cut.index(bytes.len());
            let whole = refs.partition_point(|batch| (batch.end().0 - AT.0) as usize <= cut);
            let (scanned, stop) = found(&bytes[..cut]);
            let left = cut - refs[..whole].last().map_or(0, |last| (last.end().0 - AT.0) as usize);
            match stop {
                Stop::End => prop_assert_eq!(left, 0),
                // Eight bytes of base offset are zeros only if the offset is zero, which it is not here.
                Stop::Zeros => prop_assert!(left < 8),
                Stop::Short { needs } if left >= HEADER_BYTES => prop_assert_eq!(needs, refs[whole].length),
                other => prop_assert_eq!(other, Stop::Short { needs: HEADER_BYTES }),
            }
            refs.truncate(whole);
            prop_assert_eq!(scanned, refs);
        }

        /// Also in the base offset and the leader epoch, which the batch's checksum does not cover.
        #[test]
        fn a_flipped_bit_is_told(counts in any_counts(), bit: Index) {
            let (mut bytes, mut refs) = batches(NEXT, 3, &counts);
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            let (scanned, stop) = found(&bytes);
            let hit = refs.partition_point(|batch| (batch.end().0 - AT.0) as usize <= bit / 8);
            let within = bit / 8 - (refs[hit].position.0 - AT.0) as usize;
            refs.truncate(hit);
            prop_assert_eq!(scanned, refs);
            let told = match within {
                0..8 => matches!(stop, Stop::OffsetGap { .. }),
                8..12 => matches!(stop, Stop::Short { .. } | Stop::Checksum | Stop::NotABatch(_)),
                12..16 => matches!(stop, Stop::Epoch { .. }),
                16 => matches!(stop, Stop::NotABatch(BatchError::WrongMagic { .. })),
                _ => stop == Stop::Checksum,
            };
            prop_assert!(told, "byte {within} of a batch: {stop}");
        }

        /// Recycled blocks: whole batches of another partition or of an earlier time, or zeros, where sectors did not
        /// arrive. Only batches that were written come back, each with its own bytes.
        #[test]
        fn a_torn_tail_is_told(counts in any_counts(), before in any_counts(), shift in -5i64..6, kept in any_arrival()) {
            let (new, refs) = batches(NEXT, 3, &counts);
            let (old, _) = batches(Offset(NEXT.0 + shift), 2, &before);
            let bytes = torn(&old, &new, |at| kept[at % kept.len()]);
            let (scanned, stop) = found(&bytes);
            prop_assert!(refs.starts_with(&scanned));
            let whole = scanned.last().map_or(0, |last| (last.end().0 - AT.0) as usize);
            prop_assert_eq!(&bytes[..whole], &new[..whole]);
            prop_assert_eq!(scanned.len() == refs.len(), stop == Stop::End, "{}", stop);
        }

        #[test]
        fn any_bytes_are_harmless(bytes in prop::collection::vec(any::<u8>(), 0..2000)) {
            let (scanned, _) = found(&bytes);
            prop_assert!(scanned.is_empty());
        }
    }

    #[test]
    fn epochs_never_fall() {
        let (one, two) = (batch(NEXT, 5, &[vec![1]]), batch(NEXT.plus(1), 4, &[vec![2]]));
        let (scanned, stop) = scan_any(&[one, two].concat());
        assert_eq!(scanned.len(), 1);
        assert_eq!(stop, Some(Stop::Epoch { found: LeaderEpoch(4) }));
    }

    fn scan_any(bytes: &[u8]) -> (Vec<BatchRef>, Option<Stop>) {
        let mut scan = scan(bytes, AT, NEXT, ANY_EPOCH);
        (scan.by_ref().collect(), scan.stop())
    }

    /// A batch whose checksum fits and whose offsets cannot be is a bug, and no reason to overflow.
    #[test]
    fn a_last_offset_that_cannot_be_is_told() {
        let mut bytes = batch(NEXT, 3, &[vec![1]]);
        bytes[23..27].copy_from_slice(&(-1i32).to_be_bytes());
        let sum = corelog_batch::crc32c(&bytes[21..]);
        bytes[17..21].copy_from_slice(&sum.to_be_bytes());
        assert_eq!(found(&bytes).1, Stop::LastOffset);
    }

    #[test]
    fn a_segment_is_as_it_always_was() {
        let (mut bytes, refs) = batches(NEXT, 3, &[1, 3, 2]);
        bytes.resize(BLOCK, 0);
        let stored = golden("segment-v1.bin", &bytes);
        assert_eq!(found(&stored), (refs, Stop::Zeros));
    }
}
