//! The records of a batch, all numbers but the attributes as zigzag varints:
//!
//! ```text
//! length, attributes i8 (unused), timestamp delta, offset delta, key length (-1: null), key, value length (-1: null),
//! value, header count, then per header: key length, key, value length (-1: null), value
//! ```

use crate::codec::decompress;
use crate::header::{BatchView, CODEC_BITS, HEADER_BYTES, PAYLOAD_BYTES_MAX, seal};
use crate::{BatchError, Codec, NONE, varint};

/// One record, borrowed from its batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    /// Its offset in the partition.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC; -1 for none.
    pub timestamp: i64,
    /// What decides the partition, by the producer's choice; None is not the same as empty.
    pub key: Option<&'a [u8]>,
    /// The data; None marks the key as deleted where a topic is compacted.
    pub value: Option<&'a [u8]>,
    /// Its headers.
    pub headers: Headers<'a>,
}

/// A name and a value beside the record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name. UTF-8 by the format's word, which nobody checks.
    pub key: &'a [u8],
    /// The value.
    pub value: Option<&'a [u8]>,
}

/// The headers of a record, in their order. An iterator; lengths were checked when the record was parsed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Headers<'a> {
    bytes: &'a [u8],
    left: u32,
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        self.left = self.left.checked_sub(1)?;
        take_header(&mut self.bytes)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for Headers<'_> {}

/// The records of one batch. Ends after the first error.
#[derive(Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    base_offset: i64,
    base_timestamp: i64,
    /// The time of all of them, if it is the one at which they were appended.
    appended_at: Option<i64>,
    last_offset_delta: i32,
    /// Records read so far, and so the index of the next.
    index: u32,
    count: u32,
    last_delta: i32,
}

impl<'a> BatchView<'a> {
    /// The records, decompressed into `scratch` if need be, where they may take `max` bytes. Does not verify the
    /// checksum: see [`BatchView::computed_crc`].
    ///
    /// # Errors
    /// `UnknownCodec`, `CodecNotBuilt`, `Compression`, `Bomb`, `NegativeCount`.
    pub fn records<'s>(&self, scratch: &'s mut Vec<u8>, max: usize) -> Result<Records<'s>, BatchError>
    where
        'a: 's,
    {
        let codec = self.codec()?;
        if codec == Codec::None {
            return self.walk(self.payload());
        }
        scratch.clear();
        decompress(codec, self.payload(), max, scratch)?;
        self.walk(scratch)
    }

    /// The records of a batch that is not compressed, without the scratch memory that others need.
    ///
    /// # Errors
    /// `CodecNotBuilt` where it is compressed, `UnknownCodec`, `NegativeCount`.
    pub fn plain_records(&self) -> Result<Records<'a>, BatchError> {
        match self.codec()? {
            Codec::None => self.walk(self.payload()),
            codec => Err(BatchError::CodecNotBuilt { codec: codec.name() }),
        }
    }

    /// Appends the same batch without compression to `out`: its records may take `max` bytes. Where it is not compressed
    /// its bytes are copied as they are.
    ///
    /// # Errors
    /// `UnknownCodec`, `CodecNotBuilt`, `Compression`, `Bomb`; then `out` is as it was.
    pub fn decompress_into(&self, out: &mut Vec<u8>, max: usize) -> Result<(), BatchError> {
        let codec = self.codec()?;
        if codec == Codec::None {
            out.extend_from_slice(self.bytes());
            return Ok(());
        }
        let mut records = Vec::new();
        decompress(codec, self.payload(), max.min(PAYLOAD_BYTES_MAX), &mut records)?;
        let begin = out.len();
        out.extend_from_slice(&self.bytes()[..HEADER_BYTES]);
        out.extend_from_slice(&records);
        seal(&mut out[begin..], self.attributes() & !CODEC_BITS);
        Ok(())
    }

    pub(crate) fn walk<'s>(&self, records: &'s [u8]) -> Result<Records<'s>, BatchError> {
        let count = self.record_count();
        Ok(Records {
            rest: records,
            base_offset: self.base_offset(),
            base_timestamp: self.base_timestamp(),
            appended_at: self.is_log_append_time().then(|| self.max_timestamp()),
            last_offset_delta: self.last_offset_delta(),
            index: 0,
            count: u32::try_from(count).map_err(|_| BatchError::NegativeCount { count })?,
            last_delta: -1,
        })
    }
}

impl<'a> Records<'a> {
    /// Records that the header says are still to come.
    pub fn left(&self) -> u32 {
        self.count - self.index
    }

    fn take(&mut self) -> Result<Record<'a>, BatchError> {
        let index = self.index;
        let parsed = take_record(&mut self.rest).ok_or(BatchError::RecordLies { index })?;
        let delta = parsed.offset_delta;
        // Strictly ascending within the batch's range, not 0..n: compaction leaves gaps.
        if delta <= self.last_delta || delta > self.last_offset_delta {
            return Err(BatchError::OffsetDelta { index, delta });
        }
        self.last_delta = delta;
        self.index += 1;
        let timestamp = self.appended_at.unwrap_or(self.base_timestamp.wrapping_add(parsed.timestamp_delta));
        if timestamp < NONE {
            return Err(BatchError::NegativeTimestamp { timestamp });
        }
        let offset = self.base_offset.wrapping_add(i64::from(delta));
        Ok(Record { offset, timestamp, key: parsed.key, value: parsed.value, headers: parsed.headers })
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        let taken = if self.left() > 0 {
            self.take()
        } else if !self.rest.is_empty() {
            Err(BatchError::TrailingBytes { bytes: self.rest.len() })
        } else {
            return None;
        };
        if taken.is_err() {
            (self.rest, self.count) = (&[], self.index);
        }
        Some(taken)
    }
}

/// A record before its batch's base is added.
pub(crate) struct RecordParts<'a> {
    pub(crate) timestamp_delta: i64,
    pub(crate) offset_delta: i32,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: Headers<'a>,
}

/// Takes one record off the front. None where a length in it lies.
pub(crate) fn take_record<'a>(bytes: &mut &'a [u8]) -> Option<RecordParts<'a>> {
    let length = usize::try_from(varint::take_i32(bytes)?).ok()?;
    let (mut body, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let (_attributes, behind) = body.split_first()?;
    body = behind;
    Some(RecordParts {
        timestamp_delta: varint::take_i64(&mut body)?,
        offset_delta: varint::take_i32(&mut body)?,
        key: take_nullable(&mut body)?,
        value: take_nullable(&mut body)?,
        headers: take_headers(body)?,
    })
}

/// The headers, which must be all that is left of the record.
fn take_headers(mut bytes: &[u8]) -> Option<Headers<'_>> {
    let left = u32::try_from(varint::take_i32(&mut bytes)?).ok()?;
    let headers = Headers { bytes, left };
    for _ in 0..left {
        take_header(&mut bytes)?;
    }
    bytes.is_empty().then_some(headers)
}

fn take_header<'a>(bytes: &mut &'a [u8]) -> Option<Header<'a>> {
    Some(Header { key: take_nullable(bytes)??, value: take_nullable(bytes)? })
}

/// Takes a length and as many bytes. The outer None where the length lies, the inner for null.
fn take_nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint::take_i32(bytes)?;
    if length == -1 {
        return Some(None);
    }
    let (taken, rest) = bytes.split_at_checked(usize::try_from(length).ok()?)?;
    *bytes = rest;
    Some(Some(taken))
}
