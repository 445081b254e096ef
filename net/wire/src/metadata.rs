//! Who serves which partition, and where.

use crate::codec::{DecodeError, List, Reader, Sink, Text, Wire, message};
use uuid::Uuid;

/// Which topics to tell of: kind u8, then what belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Selection<'a> {
    /// Kind 0: none, only the addresses.
    None,
    /// Kind 1: all behind this name in the server's order; an empty name begins with the first.
    After(Text<'a>),
    /// Kind 2: these.
    Named(List<'a, Text<'a>>),
}

impl<'a> Wire<'a> for Selection<'a> {
    const MIN: usize = 1;
    fn put(&self, out: &mut impl Sink) {
        match self {
            Selection::None => 0u8.put(out),
            Selection::After(name) => {
                1u8.put(out);
                name.put(out);
            }
            Selection::Named(names) => {
                2u8.put(out);
                names.put(out);
            }
        }
    }
    fn take(from: &mut Reader<'a>) -> Result<Selection<'a>, DecodeError> {
        match u8::take(from)? {
            0 => Ok(Selection::None),
            1 => Ok(Selection::After(Text::take(from)?)),
            2 => Ok(Selection::Named(List::take(from)?)),
            value => Err(DecodeError::UnknownValue { what: "kind of selection", value: value.into() }),
        }
    }
}

message! {
    /// Asks who serves what.
    pub struct MetadataRequest<'a> {
        /// Which topics to tell of.
        pub topics: Selection<'a>,
    }
}

message! {
    /// Where a shard listens.
    pub struct Endpoint<'a> {
        /// The node.
        pub node: u32,
        /// Which of its shards.
        pub shard: u16,
        /// TCP port.
        pub port: u16,
        /// Name or address of the host. Empty: the host that the client reached this server by.
        pub host: Text<'a>,
    }
}

message! {
    /// Who owns a partition.
    pub struct Owner {
        /// The node.
        pub node: u32,
        /// Which of its shards.
        pub shard: u16,
        /// Term of leadership; -1 when the answering shard does not know it.
        pub leader_epoch: i32,
    }
}

message! {
    /// A topic and the owners of its partitions.
    pub struct TopicEntry<'a> {
        /// 0, or why the rest means nothing (unknown_topic).
        pub status: u16,
        /// Its id.
        pub id: Uuid,
        /// Its name.
        pub name: Text<'a>,
        /// Owner of partition 0, 1, and so on.
        pub owners: List<'a, Owner>,
    }
}

message! {
    /// Who serves what.
    pub struct Metadata<'a> {
        /// The cluster.
        pub cluster_id: Uuid,
        /// The node that answers.
        pub node: u32,
        /// Every shard's address.
        pub endpoints: List<'a, Endpoint<'a>>,
        /// The topics asked for, those of `Selection::After` in the server's order.
        pub topics: List<'a, TopicEntry<'a>>,
        /// Whether not all fitted: ask again after the last name, or for the names that are missing.
        pub more: bool,
    }
}
