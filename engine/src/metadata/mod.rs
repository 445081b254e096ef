//! Which topics there are, with which settings and where: plain synchronous state, fed by the records of the metadata log.
//!
//! The metadata log is an ordinary partition ([`TopicId::METADATA`](crate::model::TopicId::METADATA), on shard 0). A
//! command is first decided against the catalog, which yields a record; the record is made durable; then every shard
//! applies it. Deciding changes nothing, so that a crash before the record is durable leaves the old state and one
//! after it the new.

pub mod catalog;
pub mod names;
pub mod records;
pub mod replay;
pub mod settings;

pub use catalog::{Bounds, Catalog, MetadataError, TopicInfo};
pub use names::{GROUPS_TOPIC, NameError, TopicName};
pub use records::{MetadataRecord, RecordError};
pub use replay::{Replay, ReplayError, snapshot_due};
pub use settings::{Durability, SettingError, Shown, TimestampType, TopicSettings};

#[cfg(test)]
mod tests;
