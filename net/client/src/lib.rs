//! Client of corelog's native protocol.
//!
//! [`blocking`] is for programs with threads, `tokio` (a feature) for asynchronous ones. Both drive the same state
//! machines, which are told the time and handed bytes, and never touch a socket or a clock themselves.
#![forbid(unsafe_code)]

mod accumulator;
mod admin;
pub mod blocking;
mod cluster;
mod consumer;
#[cfg(test)]
mod drivers;
mod error;
mod fetched;
mod front;
mod machine;
mod options;
mod partitioner;
#[cfg(test)]
mod pretend;
mod producer;
pub mod protocol;
mod report;
mod routes;
mod start;
#[cfg(test)]
mod tests;
#[cfg(feature = "tokio")]
pub mod tokio;
#[cfg(test)]
mod world;

pub use corelog_batch::{Codec, Header, Record};
pub use corelog_wire::{Detail, ListOffsets, Operation, Retry, Status};
pub use error::{ClientError, Ended, ProduceError, Refusal, SendError};
pub use fetched::{Fetched, FetchedRecords};
pub use options::{ConnectOptions, ConsumerOptions, Mode, OutOfRange, ProducerOptions, RetryUnknown, Start};
pub use partitioner::{murmur2, partition_of};
pub use report::{
    ClusterInfo, Delivery, EndpointInfo, FoundOffset, NewRecord, PartitionInfo, ProducerStats, Sent, SettingInfo,
    Stored, TopicChanges, TopicDescription, TopicFacts, TopicInfo,
};
