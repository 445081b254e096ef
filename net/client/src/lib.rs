//! Client of corelog's native protocol.
//!
//! ```no_run
//! use corelog_client::blocking::{Admin, Consumer, Producer};
//! use corelog_client::{ConnectOptions, ConsumerOptions, NewRecord, ProducerOptions};
//! use std::time::Duration;
//!
//! let server = "127.0.0.1:7092";
//! Admin::connect(server, ConnectOptions::default())?.create_topic("clicks", 8, &[])?;
//!
//! let producer = Producer::connect(server, "clicks", ProducerOptions::default())?;
//! producer.send(NewRecord::new(b"hello").key(b"greeting"))?;
//! producer.flush()?; // it is on stable storage now
//!
//! let mut consumer = Consumer::connect(server, "clicks", ConsumerOptions::default())?;
//! if let Some(fetched) = consumer.poll(Duration::from_secs(1))? {
//!     for record in fetched.records() {
//!         println!("{:?}", record?.value);
//!     }
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! [`blocking`] is for programs with threads, `tokio` (a feature) for asynchronous ones. Both drive the same state
//! machines, which are told the time and handed bytes, and never touch a socket or a clock themselves. The one for a single
//! connection is [`protocol`], for drivers of your own. A key goes to the partition that Apache Kafka's default would choose
//! ([`partition_of`]). What is promised about order, loss and repetition is at [`blocking::Producer`].
#![forbid(unsafe_code)]

mod accumulator;
mod admin;
pub mod blocking;
mod cluster;
mod consumer;
mod deliver;
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
mod stats;
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
pub use stats::{CountInfo, ShardStats, StageInfo};
