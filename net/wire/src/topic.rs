//! Topics: create, delete, alter, describe.

use crate::codec::{DecodeError, List, Reader, Sink, Text, Wire, message};
use uuid::Uuid;

/// A topic by name or by id: kind u8, then the name (0) or the id (1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic<'a> {
    /// By name: whichever topic has it now.
    Name(Text<'a>),
    /// By id: this one and no later one of the same name.
    Id(Uuid),
}

impl<'a> Wire<'a> for Topic<'a> {
    const MIN: usize = 3;
    fn put(&self, out: &mut impl Sink) {
        match self {
            Topic::Name(name) => {
                0u8.put(out);
                name.put(out);
            }
            Topic::Id(id) => {
                1u8.put(out);
                id.put(out);
            }
        }
    }
    fn take(from: &mut Reader<'a>) -> Result<Topic<'a>, DecodeError> {
        match u8::take(from)? {
            0 => Ok(Topic::Name(Text::take(from)?)),
            1 => Ok(Topic::Id(Uuid::take(from)?)),
            value => Err(DecodeError::UnknownValue { what: "kind of topic reference", value: value.into() }),
        }
    }
}

message! {
    /// A setting of a topic, as text.
    pub struct Setting<'a> {
        /// For example `retention.ms`.
        pub key: Text<'a>,
        /// For example `86400000`.
        pub value: Text<'a>,
    }
}

message! {
    /// Creates a topic.
    pub struct CreateTopic<'a> {
        /// Its name.
        pub name: Text<'a>,
        /// Number of partitions; 0 is the server's default.
        pub partitions: u32,
        /// Settings other than the defaults.
        pub settings: List<'a, Setting<'a>>,
    }
}

message! {
    /// Answer to create, alter and delete: the topic as it is, or was.
    pub struct TopicFacts {
        /// Its id.
        pub id: Uuid,
        /// Number of partitions.
        pub partitions: u32,
    }
}

message! {
    /// Deletes a topic with all its records.
    pub struct DeleteTopic<'a> {
        /// Which.
        pub topic: Topic<'a>,
    }
}

message! {
    /// Changes a topic: all of it or, when any part is refused, nothing. Partitions or settings, not both in one request.
    pub struct AlterTopic<'a> {
        /// Which.
        pub topic: Topic<'a>,
        /// The new number of partitions; 0 leaves it.
        pub partitions: u32,
        /// Settings to set.
        pub set: List<'a, Setting<'a>>,
        /// Settings to put back to their defaults.
        pub reset: List<'a, Text<'a>>,
    }
}

message! {
    /// Asks for settings and state of a topic; partitions come a page at a time.
    pub struct DescribeTopic<'a> {
        /// Which.
        pub topic: Topic<'a>,
        /// First partition of the page.
        pub first_partition: u32,
        /// Most partitions to tell of; the server may tell of fewer.
        pub partitions_max: u32,
    }
}

message! {
    /// A setting in force, and whether the topic sets it.
    pub struct SettingInForce<'a> {
        /// Its name.
        pub key: Text<'a>,
        /// Its value.
        pub value: Text<'a>,
        /// Whether the topic sets it; else it is a default.
        pub set: bool,
    }
}

message! {
    /// State of a partition.
    pub struct PartitionState<'a> {
        /// Which.
        pub partition: u32,
        /// Node that owns it.
        pub node: u32,
        /// Shard of the node that owns it.
        pub shard: u16,
        /// Status of asking for it: 0, or why the numbers that follow mean nothing.
        pub status: u16,
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
        /// Requests since the start that came in at another shard and crossed to the owner.
        pub crossings: u64,
        /// Why it is fenced; empty when it is not.
        pub fenced: Text<'a>,
    }
}

message! {
    /// Settings and state of a topic.
    pub struct TopicState<'a> {
        /// Its id.
        pub id: Uuid,
        /// Its name.
        pub name: Text<'a>,
        /// Number of partitions of the topic, not of this page.
        pub partition_count: u32,
        /// All settings in force.
        pub settings: List<'a, SettingInForce<'a>>,
        /// This page's partitions.
        pub partitions: List<'a, PartitionState<'a>>,
    }
}
