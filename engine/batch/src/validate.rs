//! Whether a batch from a client may be stored. Compressed records are not opened here: see [`Unpacker`](crate::Unpacker).

use crate::header::{BatchView, CODEC_BITS, CONTROL_BIT, TRANSACTIONAL_BIT};
use crate::record::take_record;
use crate::{BatchError, Codec, NONE};

/// Bounds on what [`validate`] accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest batch with its header, in bytes: a topic's `max.message.bytes`.
    pub batch_bytes_max: usize,
}

/// What a valid batch holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchSummary {
    /// Records, at least one. They take as many offsets.
    pub record_count: u32,
    /// Greatest timestamp, milliseconds since 1970-01-01 UTC; -1 for none.
    pub max_timestamp: i64,
    /// Bytes with the header.
    pub length: usize,
    /// How the records are compressed.
    pub codec: Codec,
}

/// Checks the one batch that `bytes` must be, from a producer: lengths, checksum, attributes, counts, timestamps, and
/// each record where they are not compressed. Allocates nothing.
///
/// # Errors
/// The first thing that is wrong.
pub fn validate(bytes: &[u8], limits: Limits) -> Result<BatchSummary, BatchError> {
    let batch = BatchView::first(bytes)?;
    if batch.bytes().len() != bytes.len() {
        return Err(BatchError::TrailingBytes { bytes: bytes.len() - batch.bytes().len() });
    }
    check_size(&batch, limits)?;
    check_crc(&batch)?;
    check_attributes(&batch)?;
    let record_count = check_count(&batch)?;
    let codec = batch.codec()?;
    check_timestamp(batch.base_timestamp())?;
    check_timestamp(batch.max_timestamp())?;
    if codec == Codec::None {
        check_records(&batch, record_count)?;
    } else if batch.payload().is_empty() {
        return Err(BatchError::RecordLies { index: 0 });
    }
    Ok(BatchSummary { record_count, max_timestamp: batch.max_timestamp(), length: bytes.len(), codec })
}

/// The consecutive batches of a produce body or a fetched range. Ends after the first error.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { rest: bytes }
}

/// See [`batches`].
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    rest: &'a [u8],
}

impl<'a> Batches<'a> {
    /// What has not been read, from the next batch on; empty after an error.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<BatchView<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let batch = BatchView::first(self.rest);
        self.rest = batch.map_or(&[], |batch| &self.rest[batch.bytes().len()..]);
        Some(batch)
    }
}

fn check_size(batch: &BatchView<'_>, limits: Limits) -> Result<(), BatchError> {
    let (size, max) = (batch.bytes().len(), limits.batch_bytes_max);
    if size > max { Err(BatchError::TooLarge { size, max }) } else { Ok(()) }
}

fn check_crc(batch: &BatchView<'_>) -> Result<(), BatchError> {
    let (declared, computed) = (batch.crc(), batch.computed_crc());
    if declared == computed { Ok(()) } else { Err(BatchError::CrcMismatch { declared, computed }) }
}

fn check_attributes(batch: &BatchView<'_>) -> Result<(), BatchError> {
    let bits = batch.attributes() & !(CODEC_BITS | TRANSACTIONAL_BIT | CONTROL_BIT);
    if batch.is_control() {
        Err(BatchError::ControlBatch)
    } else if batch.is_transactional() {
        Err(BatchError::Transactional)
    } else if bits != 0 {
        Err(BatchError::ForbiddenAttributes { bits })
    } else {
        check_producer(batch)
    }
}

fn check_producer(batch: &BatchView<'_>) -> Result<(), BatchError> {
    let (producer_id, epoch, sequence) = (batch.producer_id(), batch.producer_epoch(), batch.base_sequence());
    let can_be = producer_id == NONE || (producer_id >= 0 && epoch >= 0 && sequence >= 0);
    if can_be { Ok(()) } else { Err(BatchError::ProducerId { producer_id, epoch, sequence }) }
}

pub(crate) fn check_count(batch: &BatchView<'_>) -> Result<u32, BatchError> {
    let (count, last_offset_delta) = (batch.record_count(), batch.last_offset_delta());
    let records = u32::try_from(count).map_err(|_| BatchError::NegativeCount { count })?;
    if records == 0 {
        Err(BatchError::Empty)
    } else if last_offset_delta != count - 1 {
        Err(BatchError::CountLies { count, last_offset_delta })
    } else {
        Ok(records)
    }
}

fn check_timestamp(timestamp: i64) -> Result<(), BatchError> {
    if timestamp < NONE { Err(BatchError::NegativeTimestamp { timestamp }) } else { Ok(()) }
}

fn check_records(batch: &BatchView<'_>, count: u32) -> Result<(), BatchError> {
    let mut rest = batch.payload();
    for index in 0..count {
        let record = take_record(&mut rest).ok_or(BatchError::RecordLies { index })?;
        check_record(batch, index, record.offset_delta, record.timestamp_delta)?;
    }
    if rest.is_empty() { Ok(()) } else { Err(BatchError::TrailingBytes { bytes: rest.len() }) }
}

/// Whether the record with this index may say so of itself.
#[inline]
pub(crate) fn check_record(
    batch: &BatchView<'_>,
    index: u32,
    delta: i32,
    timestamp_delta: i64,
) -> Result<(), BatchError> {
    if u32::try_from(delta) != Ok(index) {
        return Err(BatchError::OffsetDelta { index, delta });
    }
    let (declared, found) = (batch.max_timestamp(), batch.base_timestamp().wrapping_add(timestamp_delta));
    check_timestamp(found)?;
    if found > declared { Err(BatchError::MaxTimestampLies { declared, found }) } else { Ok(()) }
}
