//! The 61 bytes before the records, big endian:
//!
//! ```text
//!  0 base offset i64            23 last offset delta i32     51 producer epoch i16
//!  8 batch length i32           27 base timestamp i64        53 base sequence i32
//! 12 partition leader epoch i32 35 max timestamp i64         57 record count i32
//! 16 magic i8 = 2               43 producer id i64           61 records
//! 17 crc u32, over everything from 21 on
//! 21 attributes i16: 0-2 codec, 3 log append time, 4 transactional, 5 control, 6 delete horizon
//! ```
//!
//! The batch length counts what follows the length field. Base offset and leader epoch lie outside the checksum.

use crate::{BatchError, Codec};

/// Bytes of the header, and so the least a batch can take.
pub const HEADER_BYTES: usize = 61;
/// Bytes up to and including the length field: what [`frame_length`] needs.
pub const LENGTH_PREFIX_BYTES: usize = 12;
/// Leading bytes that [`stamp`] may change. The rest of a batch is stored as it came, but for [`BatchView::stamped_at`].
pub const STAMPED_BYTES: usize = 16;

/// The length field is signed.
pub(crate) const PAYLOAD_BYTES_MAX: usize = i32::MAX as usize - HEADER_BYTES;

pub(crate) const MAGIC: i8 = 2;
pub(crate) const MAGIC_AT: usize = 16;
pub(crate) const CRC_AT: usize = 17;
/// Where the checksum begins to count.
pub(crate) const SUMMED_FROM: usize = 21;

pub(crate) const CODEC_BITS: u16 = 0b111;
pub(crate) const LOG_APPEND_TIME_BIT: u16 = 1 << 3;
pub(crate) const TRANSACTIONAL_BIT: u16 = 1 << 4;
pub(crate) const CONTROL_BIT: u16 = 1 << 5;
pub(crate) const DELETE_HORIZON_BIT: u16 = 1 << 6;

/// One batch, borrowed. Its frame is checked (length and magic); its content is not: see [`crate::validate`].
#[derive(Debug, Clone, Copy)]
pub struct BatchView<'a> {
    bytes: &'a [u8],
}

impl<'a> BatchView<'a> {
    /// The batch at the beginning of `bytes`; what follows it is left alone.
    ///
    /// # Errors
    /// `TooShort`, `LengthLies` or `WrongMagic`.
    pub fn first(bytes: &'a [u8]) -> Result<BatchView<'a>, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::TooShort { have: bytes.len() });
        }
        let found = bytes[MAGIC_AT] as i8;
        if found != MAGIC {
            return Err(BatchError::WrongMagic { found });
        }
        let length = frame_length(bytes).filter(|&length| length <= bytes.len());
        let length = length.ok_or(BatchError::LengthLies {
            declared: i32::from_be_bytes(take(bytes, 8)),
            have: bytes.len() - LENGTH_PREFIX_BYTES,
        })?;
        Ok(BatchView { bytes: &bytes[..length] })
    }

    /// The whole batch, header and records.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// What follows the header: the records, compressed if [`BatchView::codec`] says so.
    pub fn payload(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.take(0))
    }

    /// Offset of the last record, wrapping where the header lies.
    pub fn last_offset(&self) -> i64 {
        self.base_offset().wrapping_add(i64::from(self.last_offset_delta()))
    }

    /// Offset that follows the last record's, wrapping where the header lies.
    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    /// Which term of leadership wrote the batch; -1 before a server stamped it.
    pub fn leader_epoch(&self) -> i32 {
        i32::from_be_bytes(self.take(12))
    }

    /// CRC-32C that the producer computed.
    pub fn crc(&self) -> u32 {
        u32::from_be_bytes(self.take(CRC_AT))
    }

    /// CRC-32C of the bytes as they are.
    pub fn computed_crc(&self) -> u32 {
        crate::crc32c(&self.bytes[SUMMED_FROM..])
    }

    /// The attribute bits.
    pub fn attributes(&self) -> u16 {
        u16::from_be_bytes(self.take(21))
    }

    /// How the records are compressed.
    ///
    /// # Errors
    /// `UnknownCodec`.
    pub fn codec(&self) -> Result<Codec, BatchError> {
        Codec::from_code((self.attributes() & CODEC_BITS) as u8)
    }

    /// Whether the batch belongs to a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes() & TRANSACTIONAL_BIT != 0
    }

    /// Whether the batch is a server's marker, not data.
    pub fn is_control(&self) -> bool {
        self.attributes() & CONTROL_BIT != 0
    }

    /// Whether the time of all its records is the one at which a server appended them: its greatest.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes() & LOG_APPEND_TIME_BIT != 0
    }

    /// Offset of the last record less that of the first.
    pub fn last_offset_delta(&self) -> i32 {
        i32::from_be_bytes(self.take(23))
    }

    /// Timestamp of the first record, milliseconds since 1970-01-01 UTC; -1 for none.
    pub fn base_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.take(27))
    }

    /// Greatest timestamp of all records, milliseconds since 1970-01-01 UTC; -1 for none.
    pub fn max_timestamp(&self) -> i64 {
        i64::from_be_bytes(self.take(35))
    }

    /// The producer's id; -1 for none.
    pub fn producer_id(&self) -> i64 {
        i64::from_be_bytes(self.take(43))
    }

    /// The producer's epoch; -1 for none.
    pub fn producer_epoch(&self) -> i16 {
        i16::from_be_bytes(self.take(51))
    }

    /// Sequence number of the first record at its producer; -1 for none.
    pub fn base_sequence(&self) -> i32 {
        i32::from_be_bytes(self.take(53))
    }

    /// Number of records as declared.
    pub fn record_count(&self) -> i32 {
        i32::from_be_bytes(self.take(57))
    }

    /// The leading bytes as they are to be stored, for callers that write a batch in two pieces and never change the
    /// received one.
    pub fn stamped(&self, base_offset: i64, leader_epoch: i32) -> [u8; STAMPED_BYTES] {
        let mut leading = self.take(0);
        stamp(&mut leading, base_offset, leader_epoch);
        leading
    }

    /// The header as it is to be stored where the time of records is the one at which they are appended, `now`, in
    /// milliseconds since 1970-01-01 UTC. The batch is summed anew, for the checksum covers that.
    pub fn stamped_at(&self, base_offset: i64, leader_epoch: i32, now: i64) -> [u8; HEADER_BYTES] {
        let mut header = self.take::<HEADER_BYTES>(0);
        header[..STAMPED_BYTES].copy_from_slice(&self.stamped(base_offset, leader_epoch));
        let attributes = self.attributes() | LOG_APPEND_TIME_BIT;
        header[SUMMED_FROM..SUMMED_FROM + 2].copy_from_slice(&attributes.to_be_bytes());
        header[35..43].copy_from_slice(&now.to_be_bytes());
        let crc = crate::crc32c_of([&header[SUMMED_FROM..], self.payload()]);
        header[CRC_AT..SUMMED_FROM].copy_from_slice(&crc.to_be_bytes());
        header
    }

    fn take<const N: usize>(&self, at: usize) -> [u8; N] {
        take(self.bytes, at)
    }
}

/// Whole length of the batch that begins with `prefix`, header included. None where `prefix` is shorter than
/// [`LENGTH_PREFIX_BYTES`] or no batch can have the length it declares, as with zeros behind a segment's last batch.
pub fn frame_length(prefix: &[u8]) -> Option<usize> {
    let declared = prefix.get(8..LENGTH_PREFIX_BYTES)?;
    let declared = i32::from_be_bytes(take(declared, 0));
    let length = usize::try_from(declared).ok()? + LENGTH_PREFIX_BYTES;
    (length >= HEADER_BYTES).then_some(length)
}

/// Writes base offset and leader epoch into a batch's leading bytes. The checksum does not cover them.
pub fn stamp(leading: &mut [u8; STAMPED_BYTES], base_offset: i64, leader_epoch: i32) {
    leading[..8].copy_from_slice(&base_offset.to_be_bytes());
    leading[12..].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Numbers the one batch that `batch` is for its producer, so that a server recognises it when it comes again, and sums it
/// anew.
///
/// # Errors
/// It is not a batch.
pub fn number(batch: &mut [u8], producer_id: i64, epoch: i16, sequence: i32) -> Result<(), BatchError> {
    let attributes = BatchView::first(batch)?.attributes();
    batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&sequence.to_be_bytes());
    seal(batch, attributes);
    Ok(())
}

/// Writes what depends on all of a batch: length, attributes, checksum.
pub(crate) fn seal(batch: &mut [u8], attributes: u16) {
    let length = (batch.len() - LENGTH_PREFIX_BYTES) as i32;
    batch[8..LENGTH_PREFIX_BYTES].copy_from_slice(&length.to_be_bytes());
    batch[SUMMED_FROM..SUMMED_FROM + 2].copy_from_slice(&attributes.to_be_bytes());
    let crc = crate::crc32c(&batch[SUMMED_FROM..]);
    batch[CRC_AT..SUMMED_FROM].copy_from_slice(&crc.to_be_bytes());
}

/// `N` bytes from `at`, where the caller has checked that they are there.
fn take<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut taken = [0; N];
    taken.copy_from_slice(&bytes[at..at + N]);
    taken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_has_a_possible_length() {
        let prefix = |length: i32| [[0; 8].as_slice(), &length.to_be_bytes()].concat();
        assert_eq!(frame_length(&prefix(49)), Some(61));
        assert_eq!(frame_length(&prefix(48)), None);
        assert_eq!(frame_length(&prefix(0)), None);
        assert_eq!(frame_length(&prefix(-1)), None);
        assert_eq!(frame_length(&prefix(i32::MAX)), Some(i32::MAX as usize + 12));
        assert_eq!(frame_length(&prefix(49)[..11]), None);
    }

    #[test]
    fn a_batch_is_given_its_time() {
        for codec in [crate::Codec::None, crate::Codec::Lz4] {
            let mut builder = crate::BatchBuilder::new(1 << 20, codec);
            for time in [5, 7, 6] {
                builder.append(Some(b"k"), Some(&[1; 100]), &[], time).unwrap();
            }
            let batch = builder.build().unwrap();
            let header = BatchView::first(&batch).unwrap().stamped_at(40, 3, 1000);
            let given = [&header[..], &batch[HEADER_BYTES..]].concat();
            let view = BatchView::first(&given).unwrap();
            assert_eq!(view.crc(), view.computed_crc());
            assert_eq!((view.base_offset(), view.leader_epoch(), view.max_timestamp()), (40, 3, 1000));
            let mut scratch = Vec::new();
            let records = view.records(&mut scratch, 1 << 20).unwrap();
            let found: Vec<_> = records.map(|record| record.unwrap()).map(|r| (r.offset, r.timestamp)).collect();
            assert_eq!(found, [(40, 1000), (41, 1000), (42, 1000)]);
            let unsent = crate::validate(&given, crate::Limits { batch_bytes_max: 1 << 20 });
            assert!(matches!(unsent, Err(BatchError::ForbiddenAttributes { .. })), "no producer may say so");
        }
    }

    #[test]
    fn stamping_touches_offset_and_epoch_only() {
        let mut leading = [0x55; STAMPED_BYTES];
        stamp(&mut leading, 0x0102_0304_0506_0708, 0x090a_0b0c);
        assert_eq!(leading, [1, 2, 3, 4, 5, 6, 7, 8, 0x55, 0x55, 0x55, 0x55, 9, 10, 11, 12]);
    }
}
