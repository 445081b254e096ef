//! What goes in and what comes out, as owned or borrowed values that know nothing of the wire.

use crate::error::ProduceError;
use corelog_batch::Header;
use uuid::Uuid;

/// A record to be sent.
///
/// ```
/// use corelog_client::NewRecord;
/// let record = NewRecord::new(b"hello").key(b"greeting").partition(3);
/// # assert_eq!(record.partition, Some(3));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct NewRecord<'a> {
    /// Which partition; None leaves it to the key, and without a key to the producer.
    pub partition: Option<u32>,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; None is a null.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: &'a [Header<'a>],
    /// Milliseconds since 1970-01-01 UTC; None is the time of the call.
    pub timestamp: Option<i64>,
}

impl<'a> NewRecord<'a> {
    /// A record with a value and nothing else.
    pub fn new(value: &'a [u8]) -> NewRecord<'a> {
        NewRecord { value: Some(value), ..NewRecord::default() }
    }

    /// The same with a key.
    pub fn key(self, key: &'a [u8]) -> NewRecord<'a> {
        NewRecord { key: Some(key), ..self }
    }

    /// The same for this partition.
    pub fn partition(self, partition: u32) -> NewRecord<'a> {
        NewRecord { partition: Some(partition), ..self }
    }

    /// The same with this timestamp, milliseconds since 1970-01-01 UTC.
    pub fn timestamp(self, timestamp: i64) -> NewRecord<'a> {
        NewRecord { timestamp: Some(timestamp), ..self }
    }
}

/// Where `send` put a record: its partition, and its number among all records that this producer sent there, from 0.
/// A [`Delivery`] names records by the same numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Sent {
    /// The partition.
    pub partition: u32,
    /// The record's number.
    pub number: u64,
}

/// Where an acknowledged record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Stored {
    /// The partition.
    pub partition: u32,
    /// Its offset there.
    pub offset: i64,
}

/// What became of consecutive records of a partition. Deliveries of one partition come in order, and every record is in
/// exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivery {
    /// The partition.
    pub partition: u32,
    /// Number of the first record, as in [`Sent`].
    pub first: u64,
    /// How many records.
    pub count: u32,
    /// Bytes of their batch as it was sent.
    pub bytes: usize,
    /// Offset of the first record (the others follow without gaps), or why they were not acknowledged.
    pub outcome: Result<i64, ProduceError>,
}

/// Sums over a producer's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ProducerStats {
    /// Records that `send` took.
    pub sent: u64,
    /// Records acknowledged.
    pub acknowledged: u64,
    /// Of those acknowledged, records that were sent again although an earlier try may have written them:
    /// [`RetryUnknown::AtLeastOnce`](crate::RetryUnknown).
    pub resent: u64,
    /// Records not acknowledged that are not there.
    pub failed: u64,
    /// Records not acknowledged that may be there.
    pub unknown: u64,
    /// Bytes of acknowledged batches as they were sent.
    pub bytes_acknowledged: u64,
    /// Bytes of `buffer_bytes` that are taken now.
    pub bytes_buffered: usize,
}

/// An offset and the timestamp of its record (-1 for none).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FoundOffset {
    /// The offset.
    pub offset: i64,
    /// Milliseconds since 1970-01-01 UTC.
    pub timestamp: i64,
}

/// A cluster as one of its nodes sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterInfo {
    /// The cluster.
    pub cluster_id: Uuid,
    /// The node that answered.
    pub node: u32,
    /// Every shard's address.
    pub endpoints: Vec<EndpointInfo>,
}

/// Where a shard listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointInfo {
    /// The node.
    pub node: u32,
    /// Which of its shards.
    pub shard: u16,
    /// Name or address of the host; the one that the client reached the server by where the server names none.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

/// A topic and the owners of its partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicInfo {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Owner of partition 0, 1, and so on: node and shard.
    pub owners: Vec<(u32, u16)>,
}

/// A topic as it is after a call, or was before its deletion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TopicFacts {
    /// Its id.
    pub id: Uuid,
    /// Number of partitions.
    pub partitions: u32,
}

/// What to change about a topic: all of it, or nothing where any part is refused. The server refuses partitions and
/// settings in one call.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TopicChanges {
    /// New number of partitions, more than now.
    pub partitions: Option<u32>,
    /// Settings to set.
    pub set: Vec<(String, String)>,
    /// Settings to put back to their defaults.
    pub reset: Vec<String>,
}

/// Settings and state of a topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// All settings in force.
    pub settings: Vec<SettingInfo>,
    /// All partitions, in order.
    pub partitions: Vec<PartitionInfo>,
}

/// A setting in force.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SettingInfo {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Whether the topic sets it; else it is a default.
    pub set: bool,
}

/// State of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Which.
    pub partition: u32,
    /// Node that owns it.
    pub node: u32,
    /// Shard of the node that owns it.
    pub shard: u16,
    /// Why the numbers that follow mean nothing; None where they do.
    pub trouble: Option<String>,
    /// Term of leadership.
    pub leader_epoch: i32,
    /// First offset held.
    pub first: i64,
    /// Offset the next record gets.
    pub next: i64,
    /// Readers see records below it.
    pub high_watermark: i64,
    /// Bytes of its batches.
    pub bytes: u64,
    /// Number of segments.
    pub segments: u32,
    /// Requests since the server's start that came in at another shard and crossed to the owner.
    pub crossings: u64,
    /// Why it is fenced.
    pub fenced: Option<String>,
}
