//! What a shard has counted, for operators and benchmarks. Names stand on the wire, so that a client shows what it does not
//! know.

use crate::codec::{List, Text, message};

message! {
    /// Asks for what a shard has counted. Any shard answers for any other.
    pub struct StatsRequest {
        /// Which shard of the node.
        pub shard: u16,
    }
}

message! {
    /// A number that an operator looks at.
    pub struct Count<'a> {
        /// Its name, unit included.
        pub name: Text<'a>,
        /// Whether it is counted since the start and only grows; else it is as it is now.
        pub total: bool,
        /// The number.
        pub value: u64,
    }
}

message! {
    /// How many appends were in a stage for about the same time.
    pub struct Bucket {
        /// None of them was in it for longer than this, nanoseconds, nor for as short as the bucket before tells.
        pub up_to_ns: u64,
        /// How many since the start.
        pub count: u64,
    }
}

message! {
    /// How long appends were in one part of their way.
    pub struct StageTimes<'a> {
        /// Which.
        pub name: Text<'a>,
        /// The times of all appends since the start together, nanoseconds.
        pub sum_ns: u64,
        /// Ascending; those without appends are left out.
        pub buckets: List<'a, Bucket>,
    }
}

message! {
    /// What a shard has counted.
    pub struct ShardStats<'a> {
        /// The shard.
        pub shard: u16,
        /// Numbers by name.
        pub counts: List<'a, Count<'a>>,
        /// The stages of an append, in the order in which it passes them.
        pub stages: List<'a, StageTimes<'a>>,
    }
}
