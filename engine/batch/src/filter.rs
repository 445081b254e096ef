//! Batches that are stored again with fewer records, as compaction does.
//!
//! Offsets stay what they were. So that batches go on to follow one another without a gap, a batch may begin before its first
//! record and end behind its last one: [`Rebuild::base`] and [`extend`] say where.

use crate::codec::{compress, decompress};
use crate::header::{
    BatchView, CODEC_BITS, DELETE_HORIZON_BIT, HEADER_BYTES, MAGIC, MAGIC_AT, PAYLOAD_BYTES_MAX, seal,
};
use crate::record::{Record, take_record};
use crate::{BatchError, Codec, NONE, varint};

/// How a batch is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuild {
    /// The offset that it begins with: at most its own, and at most `i32::MAX` before its last.
    pub base: i64,
    /// For a batch that does not have one and keeps records without a value: when these may go, in milliseconds since
    /// 1970-01-01 UTC (KIP-534's delete horizon). None leaves that open.
    pub horizon: Option<i64>,
    /// What its records may take, unpacked.
    pub unpacked_max: usize,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rebuilt {
    /// Records that were kept.
    pub kept: u32,
    /// Records that were left out.
    pub left_out: u32,
}

impl BatchView<'_> {
    /// When its records without a value may go, if that was said.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes() & DELETE_HORIZON_BIT != 0).then(|| self.base_timestamp())
    }

    /// Appends the batch to `out` with those of its records that `keep` wants; nothing if it wants none. The bytes are those of
    /// the batch if nothing changes.
    ///
    /// # Errors
    /// Those of [`BatchView::records`]; then `out` is as it was.
    pub fn rebuild(
        &self,
        how: &Rebuild,
        scratch: &mut Vec<u8>,
        out: &mut Vec<u8>,
        mut keep: impl FnMut(&Record<'_>) -> bool,
    ) -> Result<Rebuilt, BatchError> {
        let codec = self.codec()?;
        let plain = match codec {
            Codec::None => self.payload(),
            codec => {
                scratch.clear();
                decompress(codec, self.payload(), how.unpacked_max.min(PAYLOAD_BYTES_MAX), scratch)?;
                scratch
            }
        };
        let mut rebuilt = Rebuilt::default();
        let (mut has_tombstone, mut newest) = (false, NONE);
        // Decided before anything is written: the base of all timestamps depends on it.
        let mut wanted = Vec::new();
        for record in self.walk(plain)? {
            let record = record?;
            let is_kept = keep(&record);
            wanted.push(is_kept);
            if is_kept {
                rebuilt.kept += 1;
                has_tombstone |= record.value.is_none();
                newest = newest.max(record.timestamp);
            } else {
                rebuilt.left_out += 1;
            }
        }
        if rebuilt.kept == 0 {
            return Ok(rebuilt);
        }
        let horizon = how.horizon.filter(|_| has_tombstone && self.delete_horizon().is_none());
        if rebuilt.left_out == 0 && horizon.is_none() && how.base == self.base_offset() {
            out.extend_from_slice(self.bytes());
            return Ok(rebuilt);
        }
        let records = self.encode(plain, &wanted, how.base, horizon)?;
        let begin = out.len();
        out.extend_from_slice(&self.bytes()[..HEADER_BYTES]);
        let packed = match codec {
            Codec::None => false,
            codec => compress(codec, &records, out).is_ok() && out.len() - begin < HEADER_BYTES + records.len(),
        };
        if !packed {
            out.truncate(begin + HEADER_BYTES);
            out.extend_from_slice(&records);
        }
        let mut put = |at: usize, bytes: &[u8]| out[begin + at..begin + at + bytes.len()].copy_from_slice(bytes);
        put(0, &how.base.to_be_bytes());
        put(23, &((self.last_offset() - how.base) as i32).to_be_bytes());
        if let Some(horizon) = horizon {
            put(27, &horizon.to_be_bytes());
        }
        put(35, &newest.to_be_bytes());
        put(57, &rebuilt.kept.to_be_bytes());
        let codec_bits = if packed { self.attributes() & CODEC_BITS } else { 0 };
        let horizon_bit = if horizon.is_some() { DELETE_HORIZON_BIT } else { 0 };
        seal(&mut out[begin..], self.attributes() & !CODEC_BITS | codec_bits | horizon_bit);
        Ok(rebuilt)
    }

    /// The wanted records, with offsets from `base` on and, if there is a new horizon, timestamps from that on.
    fn encode(
        &self,
        mut plain: &[u8],
        wanted: &[bool],
        base: i64,
        horizon: Option<i64>,
    ) -> Result<Vec<u8>, BatchError> {
        let mut records = Vec::with_capacity(plain.len());
        let base_timestamp = horizon.unwrap_or(self.base_timestamp());
        for (index, is_wanted) in wanted.iter().enumerate() {
            let whole = plain;
            let record = take_record(&mut plain).ok_or(BatchError::RecordLies { index: index as u32 })?;
            if !is_wanted {
                continue;
            }
            let timestamp_delta =
                self.base_timestamp().wrapping_add(record.timestamp_delta).wrapping_sub(base_timestamp);
            let offset_delta = self.base_offset() - base + i64::from(record.offset_delta);
            let body = behind_deltas(&whole[..whole.len() - plain.len()])
                .ok_or(BatchError::RecordLies { index: index as u32 })?;
            let length = 1 + varint::length(timestamp_delta) + varint::length(offset_delta) + body.len();
            varint::put(&mut records, length as i64);
            records.push(0);
            varint::put(&mut records, timestamp_delta);
            varint::put(&mut records, offset_delta);
            records.extend_from_slice(body);
        }
        Ok(records)
    }
}

/// Key, value and headers of a record.
fn behind_deltas(mut record: &[u8]) -> Option<&[u8]> {
    varint::take_i32(&mut record)?;
    let (_attributes, mut rest) = record.split_first()?;
    varint::take_i64(&mut rest)?;
    varint::take_i32(&mut rest)?;
    Some(rest)
}

/// Has the one batch that `batch` is end with the offset `last`, which is not before its last one, and sums it anew. False, and
/// nothing is changed, if that is too far away for a batch.
pub fn extend(batch: &mut [u8], last: i64) -> bool {
    let Ok(view) = BatchView::first(batch) else { return false };
    let (attributes, base) = (view.attributes(), view.base_offset());
    let delta = last.checked_sub(base).and_then(|delta| i32::try_from(delta).ok());
    let Some(delta) = delta.filter(|delta| *delta >= view.last_offset_delta()) else { return false };
    batch[23..27].copy_from_slice(&delta.to_be_bytes());
    seal(batch, attributes);
    true
}

/// A batch without records that stands for the offsets from `base` to `last`, which is at most `i32::MAX` away.
pub fn empty(base: i64, last: i64, leader_epoch: i32) -> [u8; HEADER_BYTES] {
    let mut batch = [0; HEADER_BYTES];
    let mut put = |at: usize, bytes: &[u8]| batch[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, &base.to_be_bytes());
    put(12, &leader_epoch.to_be_bytes());
    put(MAGIC_AT, &MAGIC.to_be_bytes());
    put(23, &((last - base) as i32).to_be_bytes());
    put(27, &NONE.to_be_bytes());
    put(35, &NONE.to_be_bytes());
    put(43, &NONE.to_be_bytes());
    put(51, &(-1_i16).to_be_bytes());
    put(53, &(-1_i32).to_be_bytes());
    seal(&mut batch, 0);
    batch
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BatchBuilder, Header, number, stamp};
    use proptest::prelude::*;

    type Plain = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>, usize);

    const HOW: Rebuild = Rebuild { base: 1000, horizon: Some(777_000), unpacked_max: 1 << 20 };

    fn batch(codec: Codec, values: &[Option<Vec<u8>>]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(1 << 20, codec);
        for (at, value) in values.iter().enumerate() {
            let (key, headers) = ([at as u8], [Header { key: b"h", value: Some(b"v") }]);
            builder.append(Some(&key), value.as_deref(), &headers[..at % 2], 5000 - at as i64).unwrap();
        }
        let mut bytes = builder.build().unwrap();
        stamp(bytes.first_chunk_mut().unwrap(), 1000, 3);
        bytes
    }

    fn plain(bytes: &[u8]) -> Vec<Plain> {
        let batch = BatchView::first(bytes).unwrap();
        assert_eq!((batch.bytes().len(), batch.computed_crc()), (bytes.len(), batch.crc()));
        let own = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        let plain = |record: Record<'_>| {
            (record.offset, record.timestamp, own(record.key), own(record.value), record.headers.len())
        };
        batch.records(&mut Vec::new(), 1 << 20).unwrap().map(|record| plain(record.unwrap())).collect()
    }

    fn rebuilt(bytes: &[u8], how: &Rebuild, keep: impl FnMut(&Record<'_>) -> bool) -> (Vec<u8>, Rebuilt) {
        let mut out = vec![9; 3];
        let came = BatchView::first(bytes).unwrap().rebuild(how, &mut Vec::new(), &mut out, keep).unwrap();
        assert_eq!(out[..3], [9; 3]);
        (out.split_off(3), came)
    }

    proptest! {
        #[test]
        fn what_is_kept_stays_as_it_was(
            values in prop::collection::vec(prop::option::of(prop::collection::vec(0u8..4, 0..60)), 1..40),
            mask: u64, before in 0i64..5000, behind in 0i64..5000, codec in 0usize..5
        ) {
            let bytes = batch(Codec::ALL[codec], &values);
            let is_kept = |offset: i64| mask >> ((offset - 1000) % 64) & 1 == 1;
            let how = Rebuild { base: 1000 - before.min(1000), ..HOW };
            let (mut out, came) = rebuilt(&bytes, &how, |record| is_kept(record.offset));
            let wanted: Vec<Plain> = plain(&bytes).into_iter().filter(|record| is_kept(record.0)).collect();
            prop_assert_eq!((came.kept + came.left_out) as usize, values.len());
            prop_assert_eq!(came.kept as usize, wanted.len());
            if wanted.is_empty() {
                prop_assert!(out.is_empty());
                return Ok(());
            }
            let last = 1000 + values.len() as i64 - 1 + behind;
            prop_assert!(extend(&mut out, last));
            prop_assert_eq!(plain(&out), wanted.clone());
            let view = BatchView::first(&out).unwrap();
            prop_assert_eq!((view.base_offset(), view.last_offset(), view.leader_epoch()), (how.base, last, 3));
            prop_assert_eq!(view.max_timestamp(), wanted.iter().map(|record| record.1).max().unwrap());
            let has_tombstone = wanted.iter().any(|record| record.3.is_none());
            prop_assert_eq!(view.delete_horizon(), has_tombstone.then_some(777_000));
            // The second time the horizon stays.
            let (again, _) = rebuilt(&out, &Rebuild { base: how.base, horizon: Some(1), ..HOW }, |_| true);
            prop_assert_eq!(again, out);
        }

        #[test]
        fn any_bytes_are_harmless(payload in prop::collection::vec(any::<u8>(), 0..200), codec in 0u16..5, count in 0i32..9) {
            let mut bytes = batch(Codec::None, &[Some(vec![1])]);
            bytes.truncate(HEADER_BYTES);
            bytes.extend(payload);
            bytes[57..61].copy_from_slice(&count.to_be_bytes());
            seal(&mut bytes, codec);
            let mut out = Vec::new();
            let came = BatchView::first(&bytes).unwrap().rebuild(&HOW, &mut Vec::new(), &mut out, |_| true);
            prop_assert!(came.is_ok() || out.is_empty());
        }
    }

    #[test]
    fn a_batch_of_which_all_stays_is_not_touched() {
        let mut bytes = batch(Codec::Zstd, &vec![Some(vec![7; 100]); 20]);
        number(&mut bytes, 5, 1, 44).unwrap();
        let (out, came) = rebuilt(&bytes, &HOW, |_| true);
        assert_eq!((out, came), (bytes.clone(), Rebuilt { kept: 20, left_out: 0 }));
        let (out, _) = rebuilt(&bytes, &HOW, |record| record.offset == 1003);
        let view = BatchView::first(&out).unwrap();
        assert_eq!((view.producer_id(), view.producer_epoch(), view.base_sequence()), (5, 1, 44));
    }

    #[test]
    fn an_empty_batch_stands_for_offsets() {
        let mut bytes = empty(10, 19, 4);
        let view = BatchView::first(&bytes).unwrap();
        assert_eq!((view.base_offset(), view.next_offset(), view.leader_epoch()), (10, 20, 4));
        assert_eq!(plain(&bytes), []);
        assert!(extend(&mut bytes, 10 + i64::from(i32::MAX)));
        let before = bytes;
        assert!(!extend(&mut bytes, 11 + i64::from(i32::MAX)), "too far");
        assert!(!extend(&mut bytes, 10), "before its end");
        assert_eq!(bytes, before);
    }

    #[test]
    fn what_unpacks_to_too_much_is_an_error() {
        let bytes = batch(Codec::Gzip, &vec![Some(vec![0; 1000]); 20]);
        let mut out = Vec::new();
        let how = Rebuild { unpacked_max: 10_000, ..HOW };
        let came = BatchView::first(&bytes).unwrap().rebuild(&how, &mut Vec::new(), &mut out, |_| true);
        assert!(matches!(came, Err(BatchError::Bomb { .. })), "{came:?}");
        assert!(out.is_empty());
    }
}
