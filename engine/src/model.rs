//! The words of the field as types, so that an offset cannot be passed where a position is meant.

use std::fmt;
use uuid::Uuid;

/// Identity of a topic. A topic that is deleted and created again has another id, so that nothing left of the old one
/// can pass as the new one's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// The metadata log itself: one partition, owned by shard 0, never in the catalog.
    pub const METADATA: TopicId = TopicId(Uuid::from_u128(1));
}

/// Number of a partition in its topic, from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionIndex(pub u32);

/// A partition of this node: what journal entries, checkpoints and directories name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicId,
    /// Which of its partitions.
    pub index: PartitionIndex,
}

/// Number of a record in its partition, from 0, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Offset(pub i64);

/// Byte position in a segment file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Position(pub u64);

/// Which term of leadership wrote a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct LeaderEpoch(pub i32);

/// Identity of a producer that numbers its batches. Drawn at random, so that nobody has to remember which are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerId(pub i64);

/// A producer's own count of its beginnings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProducerEpoch(pub i16);

/// A producer's number of a record in a partition: from 0 to `i32::MAX`, and then from 0 again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ProducerSequence(pub i32);

/// A core's share of the node: 0 to the shard count less one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ShardId(pub u16);

/// Milliseconds since 1970-01-01 UTC, as record timestamps have it; -1 means none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Timestamp(pub i64);

impl Offset {
    /// The offset `records` further on.
    pub fn plus(self, records: u32) -> Offset {
        Offset(self.0 + i64::from(records))
    }
}

impl ProducerSequence {
    /// The number of the record so many further on.
    pub fn plus(self, records: u32) -> ProducerSequence {
        ProducerSequence(((i64::from(self.0) + i64::from(records)) & i64::from(i32::MAX)) as i32)
    }
}

impl Position {
    /// The position `bytes` further on.
    pub fn plus(self, bytes: u64) -> Position {
        Position(self.0 + bytes)
    }
}

macro_rules! shows_number {
    ($($name:ident),*) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    )*};
}
shows_number!(TopicId, PartitionIndex, Offset, Position, LeaderEpoch, ShardId, Timestamp);
shows_number!(ProducerId, ProducerEpoch, ProducerSequence);

impl PartitionId {
    /// What messages call it.
    pub fn called(&self) -> String {
        if self.topic == TopicId::METADATA { "the metadata log".to_owned() } else { format!("partition {self}") }
    }
}

impl fmt::Display for PartitionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.topic, self.index)
    }
}
