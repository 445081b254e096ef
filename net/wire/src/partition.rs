//! Open and close, offsets by time, deletion of old records.

use crate::codec::{DecodeError, Reader, Sink, Wire, message};
use crate::topic::Topic;
use uuid::Uuid;

message! {
    /// Opens a partition; the response's header holds the handle.
    pub struct Open<'a> {
        /// The topic.
        pub topic: Topic<'a>,
        /// Which of its partitions.
        pub partition: u32,
    }
}

message! {
    /// An open partition as it is now.
    pub struct Opened {
        /// The topic's id.
        pub topic_id: Uuid,
        /// Node that owns the partition.
        pub node: u32,
        /// Shard of the node that owns it: connect there to save a crossing.
        pub shard: u16,
        /// Term of leadership.
        pub leader_epoch: i32,
        /// First offset held.
        pub first: i64,
        /// Offset the next record gets.
        pub next: i64,
        /// Readers see records below it.
        pub high_watermark: i64,
        /// Largest batch the topic takes, bytes.
        pub message_bytes_max: u32,
    }
}

/// Which offset to find: kind u8, timestamp i64 (0 unless the kind is 3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListOffsets {
    /// Kind 0: the first offset held.
    Earliest,
    /// Kind 1: the high watermark, where a reader of new records begins.
    Latest,
    /// Kind 2: the record with the greatest timestamp.
    MaxTimestamp,
    /// Kind 3: the first record whose timestamp is at or after this one, milliseconds since 1970.
    At(i64),
}

impl<'a> Wire<'a> for ListOffsets {
    const MIN: usize = 9;
    fn put(&self, out: &mut impl Sink) {
        let (kind, timestamp) = match *self {
            ListOffsets::Earliest => (0u8, 0i64),
            ListOffsets::Latest => (1, 0),
            ListOffsets::MaxTimestamp => (2, 0),
            ListOffsets::At(timestamp) => (3, timestamp),
        };
        kind.put(out);
        timestamp.put(out);
    }
    fn take(from: &mut Reader<'a>) -> Result<ListOffsets, DecodeError> {
        let kind = u8::take(from)?;
        let timestamp = i64::take(from)?;
        match kind {
            0 => Ok(ListOffsets::Earliest),
            1 => Ok(ListOffsets::Latest),
            2 => Ok(ListOffsets::MaxTimestamp),
            3 => Ok(ListOffsets::At(timestamp)),
            value => Err(DecodeError::UnknownValue { what: "kind of offset query", value: value.into() }),
        }
    }
}

message! {
    /// The offset found.
    pub struct ListedOffset {
        /// The offset; -1 when there is none.
        pub offset: i64,
        /// The record's timestamp; -1 for none, as for earliest and latest of an empty partition.
        pub timestamp: i64,
    }
}

message! {
    /// Moves the first offset forward; records before it are gone.
    pub struct DeleteRecords {
        /// The new first offset; -1 is the high watermark. At or below the present first offset nothing is done.
        pub before: i64,
    }
}

message! {
    /// Answer to delete_records.
    pub struct DeletedRecords {
        /// The first offset now.
        pub first: i64,
    }
}
