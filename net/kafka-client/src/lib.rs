//! A small blocking client of Kafka's protocol: consumer groups, and how far they have come. It speaks to corelog and to Apache
//! Kafka's brokers alike.
#![forbid(unsafe_code)]

mod cluster;
mod connection;
mod error;
mod groups;
mod membership;

pub use cluster::{Bound, Partition};
pub use error::KafkaError;
pub use groups::{Committed, Description, Groups, Listed, Member};
pub use membership::{Beat, Membership};
