//! Collects records into one batch.

use crate::codec::compress;
use crate::header::{HEADER_BYTES, MAGIC, MAGIC_AT, PAYLOAD_BYTES_MAX, seal};
use crate::record::Header;
use crate::{BatchError, Codec, NONE, varint};

/// Collects records up to a size, then builds the batch. Reusable: building empties it and keeps its memory.
///
/// ```
/// use corelog_batch::{BatchBuilder, Codec};
/// let mut builder = BatchBuilder::new(16 << 10, Codec::None);
/// builder.append(Some(b"key"), Some(b"value"), &[], 1_700_000_000_000)?;
/// let mut batch = Vec::new();
/// builder.build_into(&mut batch)?;
/// assert_eq!(batch.len(), 61 + 15);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BatchBuilder {
    /// Empty, or room for the header and then the records.
    batch: Vec<u8>,
    count: i32,
    base_timestamp: i64,
    max_timestamp: i64,
    bytes_max: usize,
    codec: Codec,
}

/// Why a record was not taken. The batch is as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AppendRefused {
    /// The batch has no room left for this record: build it, then append again.
    #[error("the batch is full")]
    Full,
    /// No batch of this size can hold the record.
    #[error("a record that takes a batch of {size} bytes does not fit the {max} allowed")]
    TooLarge {
        /// Size of a batch with only this record, in bytes, before compression.
        size: usize,
        /// The builder's bound.
        max: usize,
    },
    /// A timestamp below -1.
    #[error("timestamp {timestamp} is negative and not -1")]
    NegativeTimestamp {
        /// The timestamp.
        timestamp: i64,
    },
}

impl BatchBuilder {
    /// A builder of batches of at most `bytes_max` bytes, header included, before compression.
    pub fn new(bytes_max: usize, codec: Codec) -> BatchBuilder {
        let bytes_max = bytes_max.min(PAYLOAD_BYTES_MAX);
        BatchBuilder { batch: Vec::new(), count: 0, base_timestamp: NONE, max_timestamp: NONE, bytes_max, codec }
    }

    /// Adds a record. `timestamp` is in milliseconds since 1970-01-01 UTC, -1 for none.
    ///
    /// # Errors
    /// `Full` when the batch should be built first, else the record itself cannot be taken.
    pub fn append(
        &mut self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
        timestamp: i64,
    ) -> Result<(), AppendRefused> {
        if timestamp < NONE {
            return Err(AppendRefused::NegativeTimestamp { timestamp });
        }
        let base_timestamp = if self.count == 0 { timestamp } else { self.base_timestamp };
        let (timestamp_delta, offset_delta) = (timestamp - base_timestamp, i64::from(self.count));
        let body = body_length(key, value, headers, timestamp_delta, offset_delta);
        self.check_room(varint::length(body as i64) + body)?;
        let out = &mut self.batch;
        if out.is_empty() {
            out.resize(HEADER_BYTES, 0);
        }
        varint::put(out, body as i64);
        out.push(0);
        varint::put(out, timestamp_delta);
        varint::put(out, offset_delta);
        put_nullable(out, key);
        put_nullable(out, value);
        varint::put(out, headers.len() as i64);
        for header in headers {
            put_nullable(out, Some(header.key));
            put_nullable(out, header.value);
        }
        self.count += 1;
        self.base_timestamp = base_timestamp;
        self.max_timestamp = self.max_timestamp.max(timestamp);
        Ok(())
    }

    /// Records appended since the last build.
    pub fn record_count(&self) -> u32 {
        self.count as u32
    }

    /// Whether nothing was appended since the last build.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Size of the batch as it stands, header included, before compression.
    pub fn size(&self) -> usize {
        self.batch.len().max(HEADER_BYTES)
    }

    /// The batch; the builder is empty afterwards and holds no memory.
    ///
    /// # Errors
    /// As [`BatchBuilder::build_into`].
    pub fn build(&mut self) -> Result<Vec<u8>, BatchError> {
        if self.codec == Codec::None {
            return self.build_plain();
        }
        let mut out = Vec::new();
        self.build_into(&mut out)?;
        self.batch = Vec::new();
        Ok(out)
    }

    /// The batch without compression, whatever the builder's codec; the builder is empty afterwards and holds no memory.
    ///
    /// # Errors
    /// `Empty`.
    pub fn build_plain(&mut self) -> Result<Vec<u8>, BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let mut out = std::mem::take(&mut self.batch);
        self.fill_header(&mut out, Codec::None);
        self.clear();
        Ok(out)
    }

    /// Appends the batch to `out`; the builder is empty afterwards and keeps its memory. A batch that compression would
    /// not shrink is left uncompressed. Base offset 0 and leader epoch -1
    /// wait for the server's stamp.
    ///
    /// # Errors
    /// `Empty`, or `CodecNotBuilt` or `Compression` from the codec; then `out` and the builder are as they were.
    pub fn build_into(&mut self, out: &mut Vec<u8>) -> Result<(), BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        let begin = out.len();
        if self.codec == Codec::None {
            out.extend_from_slice(&self.batch);
        } else {
            out.resize(begin + HEADER_BYTES, 0);
            if let Err(error) = compress(self.codec, &self.batch[HEADER_BYTES..], out) {
                out.truncate(begin);
                return Err(error);
            }
        }
        let mut codec = self.codec;
        if codec != Codec::None && out.len() - begin >= self.batch.len() {
            // What does not shrink is not worth decompressing, and a batch never outgrows its bound.
            out.truncate(begin);
            out.extend_from_slice(&self.batch);
            codec = Codec::None;
        }
        self.fill_header(&mut out[begin..], codec);
        self.clear();
        Ok(())
    }

    /// Drops what was appended.
    pub fn clear(&mut self) {
        self.batch.clear();
        (self.count, self.base_timestamp, self.max_timestamp) = (0, NONE, NONE);
    }

    fn check_room(&self, record: usize) -> Result<(), AppendRefused> {
        let alone = HEADER_BYTES + record;
        if alone > self.bytes_max {
            return Err(AppendRefused::TooLarge { size: alone, max: self.bytes_max });
        }
        if self.size() + record > self.bytes_max { Err(AppendRefused::Full) } else { Ok(()) }
    }

    fn fill_header(&self, batch: &mut [u8], codec: Codec) {
        let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
        put(12, &(-1_i32).to_be_bytes());
        put(MAGIC_AT, &MAGIC.to_be_bytes());
        put(23, &(self.count - 1).to_be_bytes());
        put(27, &self.base_timestamp.to_be_bytes());
        put(35, &self.max_timestamp.to_be_bytes());
        put(43, &NONE.to_be_bytes());
        put(51, &(-1_i16).to_be_bytes());
        put(53, &(-1_i32).to_be_bytes());
        put(57, &self.count.to_be_bytes());
        seal(batch, u16::from(codec.code()));
    }
}

/// Bytes of a record behind its length.
fn body_length(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[Header<'_>],
    timestamp_delta: i64,
    offset_delta: i64,
) -> usize {
    let fixed = 1 + varint::length(timestamp_delta) + varint::length(offset_delta);
    let data = nullable_length(key) + nullable_length(value) + varint::length(headers.len() as i64);
    let each = headers.iter().map(|header| nullable_length(Some(header.key)) + nullable_length(header.value));
    fixed + data + each.sum::<usize>()
}

fn nullable_length(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varint::length(bytes.len() as i64) + bytes.len())
}

fn put_nullable(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    varint::put(out, bytes.map_or(-1, |bytes| bytes.len() as i64));
    out.extend_from_slice(bytes.unwrap_or_default());
}
