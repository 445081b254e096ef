//! Records that say who they are, so that whoever reads one knows whether it belongs where it was found.

use corelog_batch::{BatchBuilder, BatchError, BatchView, Codec};

/// Which record: the append that it came in, and its place in it. No two appends of a run have one number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId {
    /// Number of the append.
    pub append: u64,
    /// Place in the append, from 0.
    pub index: u32,
}

/// Bytes of a value before its filling.
const HEAD: usize = 16;
/// Most bytes that a batch is unpacked to.
const UNPACKED_MAX: usize = 64 << 20;

/// One batch of `count` records of the append `append`, each with a value of `value_bytes` (at least 16).
pub fn batch(append: u64, count: u32, value_bytes: usize, timestamp: i64, codec: Codec) -> Vec<u8> {
    let mut builder = BatchBuilder::new(UNPACKED_MAX, codec);
    let mut value = vec![0; value_bytes.max(HEAD)];
    for index in 0..count {
        fill(&mut value, RecordId { append, index });
        assert!(builder.append(None, Some(&value), &[], timestamp).is_ok(), "a record of a test fits");
    }
    builder.build().unwrap_or_default()
}

/// Writes into a value (at least 16 bytes) which record it is.
pub fn fill(value: &mut [u8], id: RecordId) {
    value[..8].copy_from_slice(&id.append.to_le_bytes());
    value[8..12].copy_from_slice(&id.index.to_le_bytes());
    let length = value.len() as u32;
    value[12..HEAD].copy_from_slice(&length.to_le_bytes());
    for (at, byte) in value.iter_mut().enumerate().skip(HEAD) {
        *byte = filling(id, at);
    }
}

fn filling(id: RecordId, at: usize) -> u8 {
    (id.append as u8) ^ (id.index as u8).rotate_left(3) ^ (at as u8) ^ ((at >> 8) as u8)
}

/// A batch as a reader saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenBatch {
    /// Offset of its first record.
    pub base: i64,
    /// Offset after its last.
    pub next: i64,
    /// Its records with their offsets.
    pub records: Vec<(i64, RecordId)>,
}

/// Reads what a fetch gave: whole batches, each with a right checksum, each record as it was made.
///
/// # Errors
/// A sentence that says what is not so.
pub fn read(bytes: &[u8]) -> Result<Vec<SeenBatch>, String> {
    corelog_batch::batches(bytes).map(|batch| seen(batch.map_err(told)?)).collect()
}

fn seen(batch: BatchView<'_>) -> Result<SeenBatch, String> {
    if batch.crc() != batch.computed_crc() {
        return Err(format!("the batch at offset {} has a wrong checksum", batch.base_offset()));
    }
    let mut scratch = Vec::new();
    let mut records = Vec::new();
    for record in batch.records(&mut scratch, UNPACKED_MAX).map_err(told)? {
        let record = record.map_err(told)?;
        let id = identify(record.value.unwrap_or_default());
        records
            .push((record.offset, id.ok_or_else(|| format!("the record at {} is not as it was made", record.offset))?));
    }
    Ok(SeenBatch { base: batch.base_offset(), next: batch.next_offset(), records })
}

/// Which record a value is; None if any byte of it is not as it was made.
pub fn identify(value: &[u8]) -> Option<RecordId> {
    let append = u64::from_le_bytes(*value.first_chunk()?);
    let index = u32::from_le_bytes(*value.get(8..)?.first_chunk()?);
    let length = u32::from_le_bytes(*value.get(12..)?.first_chunk()?);
    let id = RecordId { append, index };
    let whole = value.iter().enumerate().skip(HEAD).all(|(at, byte)| *byte == filling(id, at));
    (length as usize == value.len() && whole).then_some(id)
}

fn told(error: BatchError) -> String {
    format!("a batch is broken: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_known_again_and_damage_is_noticed() {
        for codec in [Codec::None, Codec::Lz4] {
            let bytes = batch(7, 3, 100, 1, codec);
            let seen = read(&bytes).unwrap();
            let ids: Vec<_> = (0..3).map(|index| (i64::from(index), RecordId { append: 7, index })).collect();
            assert_eq!(seen, [SeenBatch { base: 0, next: 3, records: ids }]);
            let mut damaged = bytes.clone();
            *damaged.last_mut().unwrap() ^= 1;
            assert!(read(&damaged).is_err());
        }
        let mut value = vec![0; 40];
        fill(&mut value, RecordId { append: 1, index: 2 });
        value[30] ^= 1;
        assert_eq!(identify(&value), None);
    }
}
