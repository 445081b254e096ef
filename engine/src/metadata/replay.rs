//! From the metadata log back to the catalog, and the snapshots that keep that log short.
//!
//! A snapshot is a run of records: begin, one per topic, end. The log's first offset moves up to a snapshot's begin only
//! when its end is durable, so a log either starts at offset 0 or with a whole snapshot.

use super::catalog::{ApplyError, Catalog};
use super::records::{MetadataRecord, RecordError};
use crate::model::Offset;
use corelog_batch::{BatchError, BatchView, Records, batches};

/// A metadata log shorter than this gets no snapshot, in bytes.
const SNAPSHOT_BYTES_MIN: u64 = 64 << 10;

/// Reads the metadata log from its first offset on.
#[derive(Debug)]
pub struct Replay {
    first: Offset,
    /// The last offset taken.
    last: Offset,
    /// `None` while the log, having lost its beginning to a snapshot, has not shown that snapshot whole yet.
    catalog: Option<Catalog>,
    /// The snapshot that is being read, and how many topics it still lacks.
    snapshot: Option<(Catalog, u32)>,
}

/// A metadata log that cannot be replayed. The operator has to act: nothing is served from it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// What is stored is not a batch of records.
    #[error("the metadata log cannot be read behind offset {offset}: {cause}")]
    Batch {
        /// The last offset that could be read.
        offset: Offset,
        /// Why.
        cause: BatchError,
    },
    /// A record cannot be read.
    #[error("the metadata log cannot be read at offset {offset}: {cause}")]
    Record {
        /// Where.
        offset: Offset,
        /// Why.
        cause: RecordError,
    },
    /// A record contradicts those before it.
    #[error("the metadata log contradicts itself at offset {offset}: {cause}")]
    Apply {
        /// Where.
        offset: Offset,
        /// How.
        cause: ApplyError,
    },
    /// A snapshot is not what the records before it amount to.
    #[error("the metadata log contradicts itself at offset {offset}: a snapshot differs from the records before it")]
    SnapshotDiffers {
        /// Where the snapshot ends.
        offset: Offset,
    },
    /// The log's beginning was dropped, and no snapshot stands for it.
    #[error("the metadata log begins at offset {first} without a whole snapshot")]
    NoSnapshot {
        /// Its first offset.
        first: Offset,
    },
}

impl Replay {
    /// Begins at the log's first offset.
    pub fn new(first: Offset) -> Replay {
        let catalog = (first == Offset(0)).then(Catalog::default);
        Replay { first, last: Offset(first.0 - 1), catalog, snapshot: None }
    }

    /// Takes the next stored batches. Records before the next offset are passed over: the log's first offset may lie in
    /// the midst of a batch.
    pub fn batches(&mut self, stored: &[u8]) -> Result<(), ReplayError> {
        for batch in batches(stored) {
            for record in batch.and_then(verified).map_err(|cause| self.unreadable(cause))? {
                let record = record.map_err(|cause| self.unreadable(cause))?;
                if record.offset > self.last.0 {
                    self.value(Offset(record.offset), record.value.unwrap_or_default())?;
                }
            }
        }
        Ok(())
    }

    /// Takes the next record, as its bytes.
    pub fn value(&mut self, offset: Offset, value: &[u8]) -> Result<(), ReplayError> {
        let record = MetadataRecord::decode(value).map_err(|cause| ReplayError::Record { offset, cause })?;
        self.record(offset, &record)?;
        self.last = offset;
        Ok(())
    }

    /// Takes the next record.
    pub fn record(&mut self, offset: Offset, record: &MetadataRecord) -> Result<(), ReplayError> {
        match record {
            MetadataRecord::SnapshotBegin { topics, next_placement } => {
                self.snapshot = Some((Catalog::with_placement(*next_placement), *topics));
                Ok(())
            }
            MetadataRecord::SnapshotTopic(topic) => match &mut self.snapshot {
                Some((catalog, lacks)) if *lacks > 0 => {
                    *lacks -= 1;
                    catalog.insert(topic).map_err(|cause| ReplayError::Apply { offset, cause })
                }
                _ => Err(ReplayError::Apply { offset, cause: ApplyError::Snapshot }),
            },
            MetadataRecord::SnapshotEnd => self.end_snapshot(offset),
            change => self.change(offset, change),
        }
    }

    /// The catalog at the log's end. A snapshot that has no end was cut short by a crash and does not count.
    pub fn finish(self) -> Result<Catalog, ReplayError> {
        self.catalog.ok_or(ReplayError::NoSnapshot { first: self.first })
    }

    fn unreadable(&self, cause: BatchError) -> ReplayError {
        ReplayError::Batch { offset: self.last, cause }
    }

    fn end_snapshot(&mut self, offset: Offset) -> Result<(), ReplayError> {
        let Some((snapshot, 0)) = self.snapshot.take() else {
            return Err(ReplayError::Apply { offset, cause: ApplyError::Snapshot });
        };
        if self.catalog.as_ref().is_some_and(|catalog| *catalog != snapshot) {
            return Err(ReplayError::SnapshotDiffers { offset });
        }
        self.catalog = Some(snapshot);
        Ok(())
    }

    /// A change in the midst of a snapshot means that a crash cut that snapshot short.
    fn change(&mut self, offset: Offset, change: &MetadataRecord) -> Result<(), ReplayError> {
        self.snapshot = None;
        let catalog = self.catalog.as_mut().ok_or(ReplayError::NoSnapshot { first: self.first })?;
        catalog.apply(change).map_err(|cause| ReplayError::Apply { offset, cause })
    }
}

/// The records of a batch whose checksum holds. Recovery has looked at the journal only, not at what it found in segments.
fn verified(batch: BatchView<'_>) -> Result<Records<'_>, BatchError> {
    let (declared, computed) = (batch.crc(), batch.computed_crc());
    if declared == computed { batch.plain_records() } else { Err(BatchError::CrcMismatch { declared, computed }) }
}

impl Catalog {
    /// The records of a snapshot, in the order in which they are to be logged. The log's first offset may move up to the
    /// first one's when the last one is durable, and no other record may come between them.
    pub fn snapshot(&self) -> impl Iterator<Item = MetadataRecord> {
        let begin = MetadataRecord::SnapshotBegin { topics: self.len() as u32, next_placement: self.next_placement() };
        let topics = self.topics().cloned().map(MetadataRecord::SnapshotTopic);
        std::iter::once(begin).chain(topics).chain(std::iter::once(MetadataRecord::SnapshotEnd))
    }
}

/// Whether a snapshot is due, given the bytes logged since the last one and the bytes of that one: the log is then at most
/// about twice what it says, and the cost of snapshots at most that of the changes.
pub fn snapshot_due(bytes_since: u64, bytes_of_last: u64) -> bool {
    bytes_since > bytes_of_last.max(SNAPSHOT_BYTES_MIN)
}
