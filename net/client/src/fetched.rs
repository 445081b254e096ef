//! What a consumer hands over.

use corelog_batch::{BatchError, BatchView, Batches, Record, Records, batches};

/// Consecutive records of one partition, decompressed and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    pub(crate) partition: u32,
    pub(crate) from: i64,
    pub(crate) next: i64,
    pub(crate) high_watermark: i64,
    /// Uncompressed batches; the first may begin before `from`.
    pub(crate) bytes: Vec<u8>,
}

impl Fetched {
    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Offset that follows the last record here.
    pub fn next(&self) -> i64 {
        self.next
    }

    /// Readers see records below this offset, as far as was known when these records came.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// Bytes of batches here, uncompressed.
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The records, in order. One that cannot be read is an error, and ends the walk.
    pub fn records(&self) -> FetchedRecords<'_> {
        FetchedRecords { batches: batches(&self.bytes), records: None, from: self.from }
    }
}

/// See [`Fetched::records`].
#[derive(Debug)]
pub struct FetchedRecords<'a> {
    batches: Batches<'a>,
    records: Option<Records<'a>>,
    from: i64,
}

impl<'a> FetchedRecords<'a> {
    fn next_batch(&mut self) -> Option<Result<(), BatchError>> {
        let opened = self.batches.next()?.and_then(|batch: BatchView<'a>| batch.plain_records());
        Some(opened.map(|records| self.records = Some(records)))
    }
}

impl<'a> Iterator for FetchedRecords<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.records.as_mut().and_then(Iterator::next) {
                Some(Ok(record)) if record.offset < self.from => {}
                Some(record) => return Some(record),
                None => match self.next_batch()? {
                    Ok(()) => {}
                    Err(error) => return Some(Err(error)),
                },
            }
        }
    }
}
